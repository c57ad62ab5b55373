"""A pool behind HTTP: who may ask what, how much of it, what a restart keeps, and its command."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from laptops import NAMES, TERMS, ask, filled, sent, state

from kdlab.__main__ import main, parser
from kdlab.lessons.pool import pool
from kdlab.lessons.pool_book import Book
from kdlab.lessons.pool_server import BURST, EACH_SECOND, GUESS, LARGEST, local, opened, shown

pytestmark = pytest.mark.usefixtures("own_cache")


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


def test_one_folder_has_one_pool(running):
    with pytest.raises(OSError, match="another pool is open in"), opened(running.folder):
        pass


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
