"""Thirty laptops that are none."""

import subprocess
import sys
import threading

import pytest
from laptops import state

from kdlab.lessons import pool_simulate as simulate
from kdlab.lessons.pool_book import Book

pytestmark = pytest.mark.usefixtures("own_cache")


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


def test_a_split_s_numbers_are_the_same_each_time_and_another_group_s_are_others():
    first, again = (simulate.results(0, split=4, group=group) for group in (1, 1))
    assert first == again != simulate.results(0, split=4, group=2)


def test_laptops_end_when_the_pool_does(monkeypatch):
    started, over = [], threading.Event()

    def sleeps(address, code, number, folder):
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        return started[-1]

    monkeypatch.setattr(simulate, "start", sleeps)
    over.set()
    simulate.crowd("http://127.0.0.1:1", "BCDFGH", 5, over)
    assert len(started) == 1 and started[0].poll() not in (None, 0)
