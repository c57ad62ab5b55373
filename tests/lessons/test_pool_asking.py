"""What a laptop makes of an answer, whoever gives it."""

import json
import threading
import time
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from laptops import TERMS

from kdlab.lessons.pool import pool
from kdlab.lessons.pool_asking import AwayError, RefusedError, asked, parsed, terms
from kdlab.lessons.pool_server import opened

pytestmark = pytest.mark.usefixtures("own_cache")


def test_who_answers_and_is_no_pool_gets_nothing_and_loses_nothing(tmp_path, monkeypatch):
    with opened(tmp_path / "pool", TERMS) as first:
        place = pool(first.address, first.code)
    for answer in ({}, {"split": "rm -rf"}, {"split": 0}, [], None):
        with monkeypatch.context() as patch:
            patch.setattr(json, "loads", lambda text, answer=answer: answer)
            with pytest.raises(AwayError):
                terms(parsed(b"..."))
    assert place.send(1.0, "helps").status == "kept"


@pytest.fixture
def answers():
    """A server that gives these answers, (status, body), in their order: answers(pairs) → its
    address."""
    with ExitStack() as stack:

        def give(pairs):
            left = iter(pairs)

            class Gives(BaseHTTPRequestHandler):
                def do_POST(self):
                    self.rfile.read(int(self.headers["Content-Length"]))
                    status, body = next(left)
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, *told):
                    """Nothing."""

            server = stack.enter_context(HTTPServer(("127.0.0.1", 0), Gives))
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/join"

        yield give


def test_who_is_told_to_wait_asks_again_and_later_each_time(answers, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    busy = [(429, b"{}")] * 3
    assert asked(answers([*busy, (200, b'{"split": 3}')]), "BCDFGH", {}) == {"split": 3}
    assert len(waits) == 3 and waits == sorted(waits) and waits[0] >= 0.5
    with pytest.raises(AwayError, match="it answers 429"):
        asked(answers([(429, b"{}")] * 5), "BCDFGH", {})


@pytest.mark.parametrize("status", [408, 500, 503])
def test_a_pool_that_cannot_just_now_is_away(status, answers):
    with pytest.raises(AwayError, match=f"it answers {status}"):
        asked(answers([(status, b"{}")]), "BCDFGH", {})


def test_a_no_is_told_in_the_pool_s_own_words_short_and_printable(answers):
    long = json.dumps({"error": "no\n" + "x" * 500}).encode()
    with pytest.raises(RefusedError, match="^no x{197}$") as error:
        asked(answers([(403, long)]), "BCDFGH", {})
    assert error.value.status == 403


@pytest.mark.parametrize("change", [{"split": 0}, {"low": "0"}, {"high": None}, {"measure": "m"}])
def test_terms_that_no_pool_gives_are_not_taken(change):
    right = {"split": 3, "question": "Ours?", "measure": "nats", "low": -1, "high": 1}
    assert terms(right) == right
    with pytest.raises(AwayError, match="no pool"):
        terms(right | change)
