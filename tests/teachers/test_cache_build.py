"""kdlab.teachers.cache_build: many builders do the work of one, each shard once, whoever dies."""

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from kdlab.teachers import cache, cache_build, cache_files
from kdlab.teachers.cache import Cache, build
from tests.caches import ABOUT, IDS, Teacher, fail, files

SHARDS = [IDS[:3], IDS[3:6], IDS[6:9], IDS[9:]]
fork = multiprocessing.get_context("fork")


def builds(path, teacher, out, number):
    """Build and write down what was computed and what is found."""
    rows = build(path, IDS, teacher, ABOUT, shard=3)[IDS]["number"].tolist()
    (out / str(number)).write_text(json.dumps([teacher.calls, rows]))


def started(start, path, teachers, out):
    """A builder for each teacher, at work."""
    out.mkdir()
    workers = [start(target=builds, args=(path, t, out, n)) for n, t in enumerate(teachers)]
    for worker in workers:
        worker.start()
    return workers


def ended(workers, out):
    """What each computed and found."""
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive() and getattr(worker, "exitcode", 0) == 0
    return [json.loads((out / str(n)).read_text()) for n in range(len(workers))]


@pytest.mark.parametrize("kind, count", [("processes", 2), ("threads", 2), ("threads", 4)])
def test_builders_share_the_shards_and_all_find_the_same(kind, count, made, tmp_path):
    here = fork if kind == "processes" else threading
    start = here.Process if kind == "processes" else here.Thread
    all_at_work = here.Barrier(count)
    path, out = tmp_path / "both", tmp_path / "out"
    teachers = [Teacher(0, lambda: all_at_work.wait(60)) for _ in range(count)]
    told = ended(started(start, path, teachers, out), out)
    assert all(calls for calls, _ in told)
    assert sorted(part for calls, _ in told for part in calls) == SHARDS
    assert [rows for _, rows in told] == [list(range(10))] * count
    assert files(path) == files(made)  # and no lock is left


@pytest.mark.parametrize(
    "dies",
    [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(7), lambda: fail(OSError())],
    ids=["killed", "exits", "fails"],
)
def test_who_waits_makes_the_shard_of_a_builder_that_died(dies, made, tmp_path):
    path, out = tmp_path / "killed", tmp_path / "out"
    out.mkdir()
    at_work, go, others_done = fork.Event(), fork.Event(), fork.Event()
    mortal = Teacher(0, lambda: (at_work.set(), go.wait(60), dies()))
    first = fork.Process(target=builds, args=(path, mortal, out, 1))
    first.start()
    assert at_work.wait(60)
    heir = Teacher(2, others_done.set)
    second = fork.Process(target=builds, args=(path, heir, out, 2))
    second.start()
    assert others_done.wait(60)
    second.join(0.3)
    assert second.is_alive()  # it waits for the first shard, and does not make it a second time
    go.set()
    first.join(60)
    second.join(60)
    assert first.exitcode != 0 and second.exitcode == 0
    assert json.loads((out / "2").read_text()) == [[*SHARDS[1:], SHARDS[0]], list(range(10))]
    assert files(path) == files(made)


def test_a_half_file_of_a_builder_at_work_is_left_alone(made, tmp_path, monkeypatch):
    path, real = tmp_path / "both", os.fsync
    half, go, syncs = threading.Event(), threading.Event(), []

    def fsync(fd):
        if threading.current_thread() is first:
            syncs.append(fd)
            if len(syncs) == 2:  # its manifest, then its shard
                half.set()
                go.wait(60)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    first = threading.Thread(target=build, args=(path, IDS, Teacher(), ABOUT, 3))
    first.start()
    assert half.wait(60)
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(build, path, IDS, teacher := Teacher(2, done.set), ABOUT, 3)
        assert done.wait(60)
        time.sleep(0.1)
        assert (path / "shard-00000.safetensors.partial").exists()
        go.set()
        assert second.result(60)[IDS]["number"].tolist() == list(range(10))
    first.join(60)
    assert teacher.calls == SHARDS[1:] and files(path) == files(made)


def test_a_reader_beside_builders_finds_a_whole_cache_or_the_words_for_none(tmp_path, monkeypatch):
    ids, path, over, seen = list(range(100)), tmp_path / "c", threading.Event(), Counter()

    def slowly(file, mode):
        opened = open(file, mode)
        if "w" in mode:
            time.sleep(0.003)  # it is empty for a moment
        return opened

    monkeypatch.setattr(cache_files, "open", slowly, raising=False)

    def look():
        while not over.is_set():
            try:
                rows = Cache(path, ABOUT)[ids]["x"].tolist()
            except FileNotFoundError as error:
                assert "manifest.json is missing" in str(error)
                seen["none"] += 1
            except ValueError as error:
                assert "is unfinished" in str(error)
                seen["unfinished"] += 1
            else:
                assert rows == ids
                return

    def produce(part):
        time.sleep(0.001)
        return {"x": torch.tensor(part)}

    with ThreadPoolExecutor(3) as pool:
        reader = pool.submit(look)
        for builder in [pool.submit(build, path, ids, produce, ABOUT, 5) for _ in range(2)]:
            builder.result(60)
        reader.result(60)
    assert seen["unfinished"]


@pytest.mark.parametrize("errors", [1, 100], ids=["once", "from then on"])
def test_a_full_disk_while_two_build(errors, made, tmp_path, monkeypatch):
    path, real, lock, syncs = tmp_path / "full", os.fsync, threading.Lock(), []
    both = threading.Barrier(2)

    def fsync(fd):
        with lock:
            syncs.append(fd)
            number = len(syncs)
        if 4 <= number < 4 + errors:  # the manifest, two shards, then whatever comes
            fail(OSError(28, "No space left on device"))
        real(fd)

    def one(teacher):
        try:
            return build(path, IDS, teacher, ABOUT, shard=3)[IDS]["number"].tolist()
        except OSError as error:
            return error.errno

    teachers = [Teacher(0, lambda: both.wait(60)) for _ in range(2)]
    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(os, "fsync", fsync)
        found = list(pool.map(one, teachers))
    there = files(path)
    assert {name for name in there if "shard" not in name} == {"manifest.json"}
    held = json.loads(there["manifest.json"])["shards"]
    for record in held:
        assert there[record["file"]] == files(made)[record["file"]]
    if errors == 1:
        assert sorted(found, key=str) == [28, list(range(10))]
        assert len(held) == 4
    else:
        assert found == [28, 28] and len(held) < 4
    build(path, IDS, teacher := Teacher(), ABOUT, shard=3)
    assert len(teacher.calls) == 4 - len(held) and files(path) == files(made)


def test_a_truncated_shard_is_made_again_by_one_of_two(made, monkeypatch):
    before, real = files(made), cache.fill
    both, first_done = threading.Barrier(2), threading.Event()

    def fill(path, ids, produce, plan, damaged):
        assert damaged == ["shard-00001.safetensors"]
        if both.wait(60) == 0:
            real(path, ids, produce, plan, damaged)
            first_done.set()
        else:  # it saw the damage too, and comes when that is repaired
            first_done.wait(60)
            real(path, ids, produce, plan, damaged)

    monkeypatch.setattr(cache, "fill", fill)
    (made / "shard-00001.safetensors").write_bytes(before["shard-00001.safetensors"][:-1])
    teachers = [Teacher(), Teacher()]
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda t: build(made, IDS, t, ABOUT, shard=3), teachers):
            assert found[IDS]["number"].tolist() == list(range(10))
    assert sorted(len(t.calls) for t in teachers) == [0, 1]
    assert files(made) == before


def test_builders_whose_rows_differ_are_told(tmp_path):
    both = threading.Barrier(2)

    def one(kind):
        calls = []

        def produce(ids):
            if not calls:
                both.wait(60)
            calls.append(ids)
            return {"x": torch.zeros(len(ids), dtype=kind)}

        try:
            return build(tmp_path / "c", IDS, produce, ABOUT, shard=3)[IDS]["x"].dtype == kind
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(one, [torch.float, torch.half]))
    assert found.count(True) == 1
    [words] = [said for said in found if said is not True]
    assert words.startswith("build: produce must return the same rows each time, {'x': ['float")


@pytest.mark.parametrize("early", [True, False], ids=["before its manifest", "after its manifest"])
@pytest.mark.parametrize(
    "change, words",
    [
        ({"about": ABOUT | {"temperature": 4.0}}, "temperature is 2.0 there, 4.0 here"),
        ({"ids": IDS[::-1]}, r"\['ids'\] must be those of"),
        ({"shard": 4}, r"\['shard'\] must be those of"),
    ],
    ids=["about", "ids", "shard"],
)
def test_a_second_builder_of_another_plan_is_refused_and_changes_nothing(
    change, words, early, made, tmp_path, monkeypatch
):
    begun, go, asked, waiting = threading.Event(), threading.Event(), [], threading.Event()
    path, write = tmp_path / "both", cache_build.write_manifest

    def lock(file):
        asked.append(file)
        if len(asked) == 3:  # the first has asked twice: whether it can, and to begin
            waiting.set()
        return FileLock(file)

    monkeypatch.setattr(cache_build, "FileLock", lock)
    if early:  # the first one has the lock and has written nothing yet
        monkeypatch.setattr(
            cache_build, "write_manifest", lambda *plan: (begun.set(), go.wait(60), write(*plan))
        )
    teacher = Teacher() if early else Teacher(1, lambda: (begun.set(), go.wait(60)))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(build, path, IDS, teacher, ABOUT, 3)
        assert begun.wait(60)
        plan = {"ids": IDS, "about": ABOUT, "shard": 3, "produce": Teacher(0, pytest.fail)} | change
        second = pool.submit(build, path, **plan)
        if early:
            assert waiting.wait(60)
            go.set()
        with pytest.raises(ValueError, match=words):  # where the manifest is there, at once
            second.result(60)
        go.set()
        first.result(60)
    assert files(path) == files(made)


@settings(max_examples=25)
@given(
    st.lists(st.none() | st.integers(0, 3), min_size=2, max_size=4).filter(lambda f: None in f),
    st.integers(1, 10),
    st.integers(1, 4),
    st.booleans(),
)
def test_builders_at_once_compute_each_shard_once_though_some_fail(failing, count, shard, begun):
    lock, computed, ids = threading.Lock(), [], list(range(count))

    def teacher(fails):
        calls = []

        def produce(part):
            calls.append(part)
            if fails == len(calls) - 1:
                raise ArithmeticError("in the row")
            time.sleep(0.001)
            with lock:
                computed.extend(part)
            return {"x": torch.tensor(part) * 2}

        return produce

    def one(fails):
        try:
            return build(Path(folder) / "c", ids, teacher(fails), ABOUT, shard)[ids]["x"].tolist()
        except ArithmeticError:
            return None

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if begun:
            one(1)
        with ThreadPoolExecutor(len(failing)) as pool:
            found = list(pool.map(one, failing))
        left = {p.name for p in (Path(folder) / "c").iterdir()}
    assert sorted(computed) == ids
    assert all(
        rows == [2 * i for i in ids]
        for rows, fails in zip(found, failing, strict=True)
        if fails is None or rows is not None
    )
    shards = {f"shard-{n:05d}.safetensors" for n in range(-(-count // shard))}
    assert left == {"manifest.json", *shards}


def test_a_finished_cache_is_opened_without_a_lock(made, monkeypatch):
    monkeypatch.setattr(cache_build, "FileLock", lambda path: pytest.fail("a lock was asked for"))
    for folder in (made, shutil.copytree(made, made.parent / "copy")):
        (folder / ".lock").touch()  # left by a process that was killed at the very end
        found = build(folder, IDS, Teacher(0, pytest.fail), ABOUT, shard=3)
        assert found[IDS]["number"].tolist() == list(range(10))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_finished_cache_in_a_folder_that_is_read_only_is_opened(made):
    made.chmod(0o500)
    try:
        held = build(made, IDS, Teacher(0, pytest.fail), ABOUT, shard=3)
        assert held[["s4"]]["number"].tolist() == [4]
    finally:
        made.chmod(0o700)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied"),
        OSError(95, "Not supported"),
        OSError(30, "Read-only file system"),
        OSError(37, "No locks available"),
    ],
)
def test_a_lock_that_can_not_be_made_is_told_and_no_hindrance(error, made, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_build.FileLock, "acquire", lambda *_, **__: fail(error))
    words = rf"can't be locked \(.*{error.strerror}\); let one process build"
    with pytest.warns(UserWarning, match=words):
        build(tmp_path / "new", IDS, Teacher(), ABOUT, shard=3)
    assert files(tmp_path / "new") == files(made)


def test_a_lock_left_in_an_empty_folder_is_no_other_file(made, tmp_path):
    path = tmp_path / "begun"  # a process was killed before it wrote its manifest
    path.mkdir()
    (path / ".lock").touch()
    build(path, IDS, Teacher(), ABOUT, shard=3)
    assert files(path) == files(made)
