"""A pool: what counts and what does not, what a restart keeps, who may ask, and thirty laptops."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

import kdlab as kd
from kdlab.__main__ import main, parser
from kdlab.base.repeats import fresh
from kdlab.lessons import pool_simulate as simulate
from kdlab.lessons.pool import pool
from kdlab.lessons.pool_asking import AwayError, parsed, terms
from kdlab.lessons.pool_book import LAPTOPS, OF_ONE, OF_STRANGERS, Book, FullError, Sent, Terms
from kdlab.lessons.pool_picture import keep
from kdlab.lessons.pool_reading import Reading
from kdlab.lessons.pool_server import BURST, EACH_SECOND, GUESS, LARGEST, local, opened, shown

TERMS = Terms("Does the teacher help?", -20, 20)
NAMES = [f"{i:032x}" for i in range(400)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KDLAB_REPEAT", raising=False)


@pytest.fixture
def running(tmp_path):
    with opened(tmp_path / "pool", TERMS) as found:
        yield found


@contextmanager
def as_laptop(monkeypatch, folder):
    """What is asked inside is asked by another laptop."""
    with monkeypatch.context() as patch:
        patch.setenv("KDLAB_CACHE", str(folder))
        yield


def ask(address, path, key="", body=None, raw=None, method=None):
    """(status, answer, headers) of one request."""
    data = raw if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/{path}", data, method=method)
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


def state(running, key=None):
    return json.loads(ask(running.address, "state", key or running.token)[1])


def sent(laptop, split, difference=1.0, measure="points", prediction="helps"):
    return Sent(laptop, split, difference, measure, prediction)


def filled(book, values):
    """A laptop for each value, which joins and sends it."""
    return [
        book.enter(sent(name, book.join(name), value))
        for name, value in zip(NAMES, values, strict=False)
    ]


# --- what counts ---


def test_each_laptop_has_its_own_split_and_keeps_it(tmp_path):
    book = Book(tmp_path, TERMS)
    assert [book.join(name) for name in ("a", "b", "a", "c", "b")] == [1, 2, 1, 3, 2]


def test_the_interval_is_that_of_the_entries_that_count(tmp_path):
    book, values = Book(tmp_path, TERMS), [1.0, 2.5, -0.5, 3.0, 2.0]
    assert Reading(book).now()["verdict"] == ""
    filled(book, values)
    book.enter(sent(NAMES[0], 1, 9.0))  # double
    book.enter(sent("stranger", 3, 9.0))
    book.close()
    book.enter(sent("another", 4, 9.0))
    told = Reading(book).now()
    low, high = stats.t.interval(0.95, 4, pd.Series(values).mean(), stats.sem(values))
    assert told["dots"][-1]["low"] == pytest.approx(low)
    assert told["dots"][-1]["high"] == pytest.approx(high)
    assert told["dots"][2]["low"] is None and told["dots"][3]["low"] is not None
    assert told["said"] == f"+{sum(values) / 5:.2f} ± {(high - low) / 2:.2f} points"
    assert [e["status"] for e in told["apart"]] == ["double", "cannot be", "late"]
    assert told["predictions"] == {"helps": 5, "no difference": 0, "hurts": 0}
    assert (told["joined"], told["heard"]) == (5, 5)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (sent("a", 2), "split 2 was not given to this laptop"),
        (sent("b", 1), "split 1 was not given to this laptop"),
        (sent("a", 1, float("nan")), "no finite number"),
        (sent("a", 1, float("-inf")), "no finite number"),
        (sent("a", 1, 20.1), "outside -20 to 20 points"),
        (sent("a", 1, measure="nats"), "in nats, asked are points"),
    ],
)
def test_what_cannot_be_is_kept_with_its_reason(what, reason, tmp_path):
    book = Book(tmp_path, TERMS)
    book.join("a")
    entry = book.enter(what)
    assert (entry.status, entry.reason) == ("cannot be", reason)
    (shown,) = json.loads(json.dumps(Reading(book).now(), allow_nan=False))["apart"]
    assert shown["reason"] == reason
    assert book.enter(sent("a", 1)).status == "counts"  # the mistake can be mended


def test_the_first_counts_and_the_same_once_more_is_no_double(tmp_path):
    book = Book(tmp_path, TERMS)
    book.join("a")
    for _ in range(3):  # the answer was lost on its way
        assert book.enter(sent("a", 1, 2.0)).status == "counts"
    assert book.enter(sent("a", 1, 3.0)).status == "double"
    book.close()
    assert book.enter(sent("a", 1, 2.0)).status == "counts"
    assert book.enter(sent("a", 1, 4.0)).status == "late"
    assert len(book.entries) == 3


def test_there_is_an_end_to_what_one_laptop_and_all_of_them_send(tmp_path):
    book = Book(tmp_path, TERMS)
    book.join("a")
    for i in range(OF_ONE):
        book.enter(sent("a", 1, float(i)))
    with pytest.raises(FullError, match=f"at most {OF_ONE} results"):
        book.enter(sent("a", 1, -1.0))
    for i in range(OF_STRANGERS):
        book.enter(sent(f"stranger {i}", 1))
    with pytest.raises(FullError, match="too many sent without"):
        book.enter(sent("one more", 1))
    for i in range(1, LAPTOPS):
        book.join(NAMES[i])
    assert book.enter(sent(NAMES[1], 2)).status == "counts"  # strangers leave room
    with pytest.raises(FullError, match=f"at most {LAPTOPS} laptops"):
        book.join("one more")
    assert book.join("a") == 1


# --- what a restart keeps ---


def test_a_restart_loses_nothing(tmp_path):
    with opened(tmp_path, TERMS) as before:
        filled(before.book, [1.0, float("nan"), 3.0, 2.0, 2.5])
        before.book.enter(sent(NAMES[0], 1, 9.0))
        told = state(before)
    with opened(tmp_path) as after:
        assert (after.address, after.code, after.token) == (
            before.address,
            before.code,
            before.token,
        )
        assert state(after) == told
        assert after.book.join("new") == 6
        assert ask(after.address, "close", after.token, raw=b"")[0] == 200
    with opened(tmp_path) as again:
        assert state(again)["closed"] and again.book.join("new") == 6


def test_half_a_line_is_passed_over_and_said_and_the_next_one_is_whole(tmp_path):
    filled(Book(tmp_path, TERMS), [1.0, 2.0])
    path = tmp_path / "pool.jsonl"
    path.write_bytes(path.read_bytes()[:-9])  # a crash in the middle of the fifth
    book = Book(tmp_path, None)
    assert [e.sent.difference for e in book.entries] == [1.0]
    assert "Line 5 of pool.jsonl could not be read" in Reading(book).now()["notes"][0]
    book.enter(sent(NAMES[1], 2, 2.0))  # who got no answer sends again
    again = Book(tmp_path, None)
    assert [e.status for e in again.entries] == ["counts", "counts"]
    assert len(again.notes) == 1


def test_a_line_that_another_hand_wrote_is_passed_over(tmp_path):
    filled(Book(tmp_path, TERMS), [1.0])
    with (tmp_path / "pool.jsonl").open("ab") as file:
        file.write(b'\xff\n[]\n{"kind": "flown"}\n{"kind": "sent", "laptop": "a"}\n')
    book = Book(tmp_path, None)
    assert len(book.entries) == 1 and "Lines 4, 5, 6, 7 of" in book.notes[0]


def test_a_disk_that_takes_nothing_changes_nothing(running, monkeypatch):
    name = NAMES[0]
    running.book.join(name)

    def full(file):
        raise OSError("no space left")

    what = {"laptop": name, "split": 1, "difference": 1.0, "measure": "points"}
    what["prediction"] = "helps"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert ask(running.address, "send", running.code, what)[0] == 503
        assert running.book.entries == []
    assert json.loads(ask(running.address, "send", running.code, what)[1])["status"] == "counts"
    assert len(Book(running.folder, None).entries) == 1


def test_one_folder_one_pool_and_its_terms_stay(running, tmp_path):
    with pytest.raises(OSError, match="another pool is open in"), opened(running.folder):
        pass
    Book(tmp_path, TERMS)
    with pytest.raises(ValueError, match="must hold a pool of these terms, got Terms"):
        Book(tmp_path, Terms("Another question?"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must hold a pool to go on with, got none"):
        Book(tmp_path / "empty", None)


# --- who may ask what ---


def test_only_this_machine_reaches_a_pool_unless_another_host_is_asked_for(running):
    assert parser().parse_args(["pool"]).host == "127.0.0.1"
    assert running.address.startswith("http://127.0.0.1:")
    port = int(running.address.rpartition(":")[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("no other network here")
        outside = asked.getsockname()[0]
    with pytest.raises(OSError), socket.create_connection((outside, port), timeout=5):
        pass


def test_an_open_host_is_shown_as_an_address_that_others_reach():
    assert shown("192.168.1.7") == "192.168.1.7"
    assert shown("0.0.0.0") not in ("0.0.0.0", "")
    assert not local("0.0.0.0") and not local("192.168.1.7") and local("localhost")


@pytest.mark.parametrize("path", ["state", "pooled.csv", "pooled.svg", "join", "nowhere"])
@pytest.mark.parametrize("key", ["", "BCDFGH"])
def test_without_the_code_there_is_nothing_but_the_empty_page(path, key, running):
    body = {"laptop": NAMES[0]} if path == "join" else None
    status, said, _ = ask(running.address, path, key, body)
    assert status == 401 and json.loads(said) == {"error": "wrong or no code"}


def test_the_page_holds_no_data_and_no_key(running):
    status, page, headers = ask(running.address, "")
    assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
    for secret in (running.code, running.token, TERMS.question):
        assert secret not in page
    # it asks nobody else for anything
    assert re.findall(r"(?:src|href)=|https?://(?!www\.w3\.org/2000/svg)", page) == []


def test_only_the_token_closes_and_no_laptop_is_named(running):
    filled(running.book, [1.0, 2.0])
    status, said, _ = ask(running.address, "close", running.code, raw=b"")
    assert status == 403 and "only the instructor's token" in said and not running.book.closed
    assert state(running)["instructor"] and not state(running, running.code)["instructor"]
    status, said, _ = ask(running.address, "close", running.token, raw=b"")
    assert status == 200 and running.book.closed
    for path in ("state", "pooled.csv", "pooled.svg"):
        said = ask(running.address, path, running.code)[1]
        assert NAMES[0] not in said and running.token not in said
    files = {path.name for path in running.folder.iterdir()}
    assert {"pooled.csv", "pooled.svg", "pooled.png"} <= files
    if os.name == "posix":
        assert (running.folder / "keys.json").stat().st_mode & 0o77 == 0


GOOD = {
    "laptop": NAMES[0],
    "split": 1,
    "difference": 1.5,
    "measure": "points",
    "prediction": "helps",
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"difference": "1.5"}, "difference: .* got '1.5'"),
        ({"difference": None}, "difference: "),
        ({"difference": True}, "difference: "),
        ({"difference": [1.5]}, "difference: "),
        ({"split": 1.5}, "split: "),
        ({"split": -1}, "split: .* greater than or equal to 0, got -1"),
        ({"split": 10**9}, "split: "),
        ({"laptop": "Ada"}, "laptop: "),
        ({"laptop": "../" * 10 + "aa"}, "laptop: "),
        ({"prediction": "maybe"}, "prediction: "),
        ({"measure": "miles"}, "measure: "),
        ({"code": "import os"}, "code: Extra inputs are not permitted"),
    ],
)
def test_what_is_malformed_is_refused_with_a_sentence(change, words, running):
    status, said, _ = ask(running.address, "send", running.code, GOOD | change)
    assert status == 400 and re.match(words, json.loads(said)["error"]), said
    assert running.book.entries == []


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"laptop"' * 50, b"[" * 900]
)
def test_what_is_no_form_at_all_is_refused(raw, running):
    status, said, _ = ask(running.address, "send", running.code, raw=raw)
    assert status == 400 and json.loads(said)["error"]
    assert running.book.entries == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1e999", "1" + "0" * 400])
def test_a_number_that_is_none_is_shown_and_not_counted(number, running):
    running.book.join(NAMES[0])
    raw = json.dumps(GOOD).replace("1.5", number).encode()
    status, said, _ = ask(running.address, "send", running.code, raw=raw)
    assert status in (200, 400)
    assert status == 400 or json.loads(said)["status"] == "cannot be"
    assert state(running)["dots"] == []
    assert Book(running.folder, None).notes == []


def test_a_large_request_is_refused_before_it_is_read(running):
    status, said, _ = ask(running.address, "send", running.code, raw=b" " * (LARGEST + 1))
    assert status == 413 and f"at most {LARGEST} bytes" in said
    host = running.address.removeprefix("http://")
    told = http.client.HTTPConnection(host, timeout=30)  # no length beforehand
    told.request(
        "POST",
        "/send",
        iter([b" " * 400] * 4),
        {"Authorization": f"Bearer {running.code}"},
        encode_chunked=True,
    )
    assert told.getresponse().status == 413
    told.close()


def test_who_asks_too_often_is_told_to_wait(running):
    found = [ask(running.address, "state", running.code)[0] for _ in range(BURST + 40)]
    assert found[0] == 200 and 429 in found[BURST - 1 :]


def test_a_guess_at_the_code_is_dear(running):
    start = time.monotonic()
    found = [ask(running.address, "state", "BCDFGH")[0] for _ in range(60)]
    tried = found.count(401)
    paid = BURST + EACH_SECOND * (time.monotonic() - start) + GUESS
    assert found[0] == 401 and tried <= paid / (GUESS + 1) + 1


# --- a laptop ---


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


def test_who_answers_and_is_no_pool_gets_nothing_and_loses_nothing(tmp_path, monkeypatch):
    with opened(tmp_path / "pool", TERMS) as first:
        place = pool(first.address, first.code)
    for answer in ({}, {"split": "rm -rf"}, {"split": 0}, [], None):
        with monkeypatch.context() as patch:
            patch.setattr(json, "loads", lambda text, answer=answer: answer)
            with pytest.raises(AwayError):
                terms(parsed(b"..."))
    assert place.send(1.0, "helps").status == "kept"


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


# --- thirty at once, and the command ---


def test_thirty_laptops_at_once(running, tmp_path):
    started = [
        simulate.start(running.address, running.code, number, tmp_path) for number in range(30)
    ]
    assert [process.wait(300) for process in started] == [0] * 30
    assert sorted(running.book.laptops.values()) == list(range(1, 31))
    told = state(running)
    # of each ten, one sends what cannot be and one twice
    assert len(told["dots"]) == 27 and len({d["split"] for d in told["dots"]}) == 27
    assert sorted(e["status"] for e in told["apart"]) == ["cannot be"] * 3 + ["double"] * 3
    assert sum(told["predictions"].values()) == 27
    again = Book(running.folder, None)
    assert again.entries == running.book.entries and again.laptops == running.book.laptops


def test_threads_that_join_and_send_at_once_share_no_split(tmp_path):
    book = Book(tmp_path, TERMS)

    def one(name):
        book.enter(sent(name, book.join(name)))

    threads = [threading.Thread(target=one, args=(name,)) for name in NAMES[:40]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(book.laptops.values()) == list(range(1, 41))
    assert Book(tmp_path, None).entries == book.entries


def test_what_is_kept_says_all_of_it(tmp_path):
    book = Book(tmp_path, Terms("Does <it> & help?", -20, 20, simulated=True))
    assert {path.name for path in keep(book, tmp_path)} >= {"pooled.csv", "pooled.svg"}
    filled(book, [1.0, 2.0, 3.0, 2.5, 50.0])
    keep(book, tmp_path)
    frame = pd.read_csv(tmp_path / "pooled.csv")
    assert frame["difference"].tolist() == [1.0, 2.0, 3.0, 2.5, 50.0]
    assert frame["status"].tolist() == ["counts"] * 4 + ["cannot be"]
    assert frame["simulated"].all()
    drawn = (tmp_path / "pooled.svg").read_text(encoding="utf-8")
    assert "Does &lt;it&gt; &amp; help? (simulated)" in drawn and "helps (4 splits)" in drawn


def test_the_command_opens_prints_goes_on_and_stops(tmp_path, monkeypatch):
    def command(*more):
        return subprocess.Popen(
            [sys.executable, "-m", "kdlab", "pool", "--dir", str(tmp_path / "pool"), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONUTF8": "1"},
        )

    def told(process):
        lines = []
        while not (lines and lines[-1].startswith("Ctrl-C")):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        return "".join(lines)

    first = command("--question", "Ours?", "--low", "-5", "--high", "5")
    said = told(first)
    address, code = re.search(r'kd\.pool\("(\S+)", "([A-Z]{6})"\)', said).groups()
    assert address.startswith("http://127.0.0.1:") and "this machine only" in said
    assert pool(address, code).send(1.0, "helps").status == "counts"
    first.kill()  # as when the battery is empty
    first.wait()
    again = command()
    assert f'kd.pool("{address}", "{code}")' in told(again)
    place = pool(address, code)
    assert (place.split, place.question, place.high) == (1, "Ours?", 5)
    assert place.send(2.0, "helps").status == "double"
    again.send_signal(signal.SIGINT)
    assert again.wait(60) == 0 and "to go on: kdlab pool --dir" in again.stdout.read()
    again.stdout.close(), first.stdout.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--low", "3", "--high", "2"], "pool: high must be a finite number above 3"),
        (["--question", " "], "pool: question must not be empty"),
        (["--simulate", "1000"], "pool: simulate must be a whole number"),
        (["--simulate", "3", "--dir", "real"], "must hold a simulated pool, got one of a class"),
        (["--port", "70000"], "pool: port must be a whole number in [0, 65535], got 70000"),
    ],
)
def test_the_command_says_what_it_cannot_do(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    Book(tmp_path / "real", TERMS)
    assert main(["pool", *options]) == 1
    assert words in capsys.readouterr().err


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
