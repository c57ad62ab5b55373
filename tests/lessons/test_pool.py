"""A laptop in the class's experiment: its split, what it sends, and a pool that is away."""

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from laptops import TERMS

import kdlab as kd
from kdlab.base.repeats import fresh
from kdlab.lessons.pool import pool
from kdlab.lessons.pool_server import opened

pytestmark = pytest.mark.usefixtures("own_cache")


@contextmanager
def as_laptop(monkeypatch, folder):
    """What is asked inside is asked by another laptop."""
    with monkeypatch.context() as patch:
        patch.setenv("KDLAB_CACHE", str(folder))
        yield


def test_a_laptop_joins_sends_and_hears(running):
    code = f"{running.code[:3]}-{running.code[3:].lower()} "  # as it is typed from a board
    place = pool(f"{running.address}/", code)
    assert (place.split, place.question, place.measure) == (1, TERMS.question, "points")
    assert "Yours is split 1" in repr(place)
    assert repr(place.send(2.5, "helps")) == "Split 1, +2.50 points: it counts."
    assert place.send(2.5, "helps").status == "counts"
    assert place.send(3.5, "helps").status == "double"
    assert place.send() is None
    assert pool(running.address, running.code).split == 1  # a second kernel is the same laptop
    running.book.close()
    assert "late" in repr(place.send(4.0, "hurts"))


def test_inside_fresh_every_seed_is_the_laptops_own(running, monkeypatch):
    running.book.join("another")
    place = pool(running.address, running.code)
    with place.fresh() as split:
        assert split == 2 and fresh(0) == 2000
    assert fresh(0) == 0 and "KDLAB_REPEAT" not in os.environ
    monkeypatch.setenv("KDLAB_REPEAT", "7")
    with place.fresh():
        assert fresh(1) == 2001
    assert fresh(1) == 7001


def test_without_a_pool_a_split_is_measured_and_nothing_is_kept(tmp_path, monkeypatch):
    alone = pool()
    assert repr(alone) == "No pool is open: this laptop measures split 1 by itself."
    with alone.fresh() as split:
        assert split == 1 and fresh(0) == 1000  # which no lesson draws otherwise
    assert fresh(0) == 0
    reply = alone.send(2.5, "hurts")
    assert reply.status == "not sent" and '+2.50 points, "hurts" is what' in repr(reply)
    assert alone.send() is None
    with pytest.raises(ValueError, match="^send: prediction must be one of"):
        alone.send(2.5, "maybe")
    assert not (tmp_path / "cache").exists()


def test_a_laptop_that_is_offline_keeps_its_result_and_sends_it_later(tmp_path):
    with opened(tmp_path / "pool", TERMS) as first:
        place = pool(first.address, first.code)
    reply = place.send(2.0, "hurts")
    assert reply.status == "kept" and "kept on this laptop" in repr(reply)
    away = pool(first.address, first.code)  # another kernel, the pool still away
    assert away.split == 1 and "can't be reached now" in repr(away)
    assert away.send().status == "kept"
    with opened(tmp_path / "pool") as again:
        back = pool(again.address, again.code)
        assert [r.status for r in back.replies] == ["counts"] and "it counts." in repr(back)
        assert back.send() is None
        assert [e.sent.difference for e in again.book.entries] == [2.0]


def test_a_result_goes_to_the_pool_s_new_address(tmp_path):
    with opened(tmp_path / "pool", TERMS) as first:
        place = pool(first.address, first.code)
    place.send(2.0, "hurts")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with opened(tmp_path / "pool", port=port) as moved:
        assert pool(moved.address, moved.code).replies[0].status == "counts"


def test_what_the_pool_refuses_for_ever_is_told_and_let_go(running):
    place = pool(running.address, running.code)
    place.measure = "miles"
    reply = place.send(1.0, "helps")
    assert reply.status == "refused" and "measure" in reply.reason
    assert place.send() is None


@pytest.mark.parametrize(
    ("address", "code", "words"),
    [
        ("127.0.0.1:1", "BCDFGH", "address must be such as"),
        ("http://127.0.0.1:1/a/b", "BCDFGH", "address must be such as"),
        ("ftp://127.0.0.1:1", "BCDFGH", "address must be such as"),
        ("file:///etc/passwd", "BCDFGH", "address must be such as"),
        ("", "BCDFGH", "address must not be empty"),
        ("http://127.0.0.1:1", "", "code must not be empty"),
        (None, "BCDFGH", "address must be a string, got NoneType"),
        ("http://127.0.0.1:1", "BCD", "code must be six letters, got 'BCD'"),
        ("http://127.0.0.1:1", "../../", "code must be six letters"),
        ("http://127.0.0.1:1", 3, "code must be a string, got int"),
        ("http://127.0.0.1:1", "BCDFGH", "address must be that of an open pool, got"),
        ("http://127.0.0.1:99999", "BCDFGH", "address must be that of an open pool, got"),
        ("http://a..b:1", "BCDFGH", "address must be that of an open pool, got"),
    ],
)
def test_a_wrong_argument_is_named(address, code, words):
    with pytest.raises((TypeError, ValueError, ConnectionError), match=f"^pool: {words}"):
        pool(address, code)


def test_a_wrong_code_is_named(running):
    with pytest.raises(ValueError, match="^pool: code must be the pool's, got 'BCDFGH'"):
        pool(running.address, "BCDFGH")


@pytest.mark.parametrize(
    ("difference", "prediction", "words"),
    [
        (float("nan"), "helps", "difference must be a finite number"),
        ("2", "helps", "difference must be a finite number"),
        (2.0, "maybe", "prediction must be one of"),
        (2.0, None, "prediction must be one of"),
        (None, "helps", "difference must be a finite number"),
    ],
)
def test_a_result_that_is_none_is_named_and_not_kept(difference, prediction, words, running):
    place = pool(running.address, running.code)
    with pytest.raises(ValueError, match=f"^send: {words}"):
        place.send(difference, prediction)
    assert place.send() is None and running.book.entries == []


def test_a_home_that_can_not_be_written_to_is_no_hindrance(running, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with as_laptop(monkeypatch, tmp_path / "file"):
        assert pool(running.address, running.code).send(1.0, "helps").status == "counts"


def test_neither_the_client_nor_the_server_loads_torch():
    code = (
        "import sys, kdlab as kd; kd.pool; print({'torch', 'numpy', 'pandas'} & set(sys.modules))\n"
        "import kdlab.lessons.pool_server; print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[1] == "set()" and "torch" not in ran.stdout


def test_what_the_guide_gives_the_class_runs(running):
    guide = Path(__file__).parents[2] / "docs" / "instructor_guide.md"
    code = re.search(r"```python\n(import kdlab.*?)```", guide.read_text(encoding="utf-8"), re.S)[1]
    code = code.replace("http://192.168.1.7:8123", running.address)
    code = code.replace("BCDFGH", running.code).replace("epochs=240", "epochs=8")
    scope = {}
    exec(code, scope)
    assert scope["whole"].unit == "digits/1000"
    (entry,) = running.book.entries
    assert entry.status == "counts" and entry.sent.difference == scope["one"] - scope["other"]


LESSONS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.parametrize(
    ("lesson", "exercise", "opening"),
    [("02_dark_knowledge", "02.2", "shuffle_wrong"), ("04_why_not_directly", "04.1", "smooth")],
)
@pytest.mark.parametrize("joined", [True, False])
def test_what_ends_a_lesson_sends_what_the_learner_s_own_function_made(
    lesson, exercise, opening, joined, running
):
    notebook = json.loads((LESSONS / f"{lesson}.ipynb").read_text(encoding="utf-8"))
    code = {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}
    asked, reference = [], kd.reference(exercise)

    def own(*given):
        asked.append(fresh(0))
        return reference(*given)

    scope = {opening: own}
    used = "|".join(["^def shuffled_answers", "^def smoothing_loss"])
    needed = [code["c01"], *(text for text in code.values() if re.search(used, text))]
    for text in needed:
        text = re.sub(r"(?s)\ncontrol = .*", "", text)  # the definition, not its first use
        exec(text, scope)
    scope["steady"] = dict(lr=1e-2, schedule="constant")
    cell = re.sub(r"epochs=\d+", "epochs=1", code["pool-run"])
    cell = cell.replace('"epochs": 15', '"epochs": 1')
    if joined:
        cell = cell.replace('address=""', f"address={running.address!r}")
        cell = cell.replace('code=""', f"code={running.code!r}")
    exec(cell, scope)
    assert set(asked) == {1000} and "KDLAB_REPEAT" not in os.environ
    sent = [entry.sent.difference for entry in running.book.entries]
    assert sent == ([scope["one"] - scope["other"]] if joined else [])
