"""Stacks side by side on a CPU's cores: the same numbers, nothing lost, no own code in threads."""

import itertools
import os
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import kdlab as kd
from kdlab.base import lab
from kdlab.training import abreast, sweep
from kdlab.training.stepper import Stepper

NET = kd.convnet(4, dropout=0.5)
SMALL = dict(sizes=(80, 40, 40))
HOW = dict(epochs=[2, 3], lr=[1e-2, 3e-3], batch=32, checkpoints=2, seeds=2)


@pytest.fixture(scope="module")
def tasks():
    return kd.splits("digits", 3, **SMALL)


def on(threads, monkeypatch):
    """Train on so many threads, also where the machine has fewer."""
    monkeypatch.setattr(abreast, "threads", lambda: threads)


def numbers(runs):
    """Without the time; sorted, since every stack records its own checkpoints."""
    frame = runs.frame.drop(columns="seconds")
    return frame.sort_values(["run", "epoch"], ignore_index=True)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_what_a_student_learns_does_not_depend_on_who_trains_beside_it(tasks, threads, monkeypatch):
    teacher = [torch.randn(80, 10, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    found = {}
    for n in (1, threads):
        on(n, monkeypatch)
        found[n] = kd.distill(NET, teacher, tasks, temperature=[1, 4], **HOW)
    one, several = found[1], found[threads]
    # equal but for the last digits: how many numbers a product sums at a time may differ
    pd.testing.assert_frame_equal(numbers(one), numbers(several), rtol=1e-4)
    assert len(one) == 48 and list(one.students) == list(several.students)
    for run in (0, 17, 47):
        for name, weight in one.module(run=run).named_parameters():
            other = several.module(run=run).get_parameter(name)
            torch.testing.assert_close(weight, other, rtol=1e-4, atol=1e-6)


def test_nothing_is_left_behind(tasks, monkeypatch):
    on(2, monkeypatch)
    before, state = (of_torch(), threading.active_count()), torch.random.get_rng_state()
    kd.train(NET, tasks, epochs=1)
    assert (of_torch(), threading.active_count()) == before
    assert torch.equal(torch.random.get_rng_state(), state)


def of_torch():
    """How many threads torch uses here, and in a thread that begins now."""
    with ThreadPoolExecutor(1) as pool:
        return torch.get_num_threads(), pool.submit(torch.get_num_threads).result()


def stopping(monkeypatch, stop, at=5, begun=1, past=0):
    """`stop` is called once: at the at-th step of all stacks, or later, when so many have begun and
    each of them is past so many steps."""
    step, count, steps, called = Stepper.step, itertools.count(), Counter(), []

    def stepping(self, *args):
        steps[id(self)] += 1
        ready = sum(taken > past for taken in list(steps.values())) >= begun
        if next(count) >= at and ready and not called:
            called.append(True)
            stop()
        return step(self, *args)

    monkeypatch.setattr(Stepper, "step", stepping)


def interrupted():
    raise KeyboardInterrupt


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def unnoticed():
    """Ctrl-C that wakes no waiting thread, as when it comes just before that begins to wait."""
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)


STOPS = {
    "in a thread": interrupted,
    "Ctrl-C": ctrl_c,
    "Ctrl-C, twice": lambda: (ctrl_c(), ctrl_c()),
}
if hasattr(signal, "pthread_kill"):
    STOPS["Ctrl-C, unnoticed"] = unnoticed


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_an_interrupt_keeps_what_each_has_reached(tasks, monkeypatch, capsys, stop):
    on(3, monkeypatch)
    stopping(monkeypatch, stop, begun=3, past=3)  # three steps an epoch: each has reached one
    runs = kd.train(NET, tasks, epochs=300, batch=32)
    assert capsys.readouterr().out.startswith("Interrupted: 3 of 3 runs are kept")
    reached = runs.last()["epoch"]
    assert (reached > 0).all() and (reached < 300).all() and threading.active_count() < 5
    for row in runs.last().itertuples():  # a row describes the student that was kept
        task = runs.tasks[row.unit]
        with torch.no_grad():
            z = runs.module(run=row.run)(task.validation.x)
        expected = nn.functional.cross_entropy(z, task.validation.y).item()
        assert row.nll == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("handler", [signal.default_int_handler, lambda *_: interrupted()])
def test_an_interrupt_is_told_though_all_are_done(tasks, monkeypatch, capsys, handler):
    on(3, monkeypatch)
    trained, done = sweep.train_stack, threading.Barrier(3, timeout=60)

    def training(*args):
        trained(*args)
        if done.wait() == 0:
            ctrl_c()

    monkeypatch.setattr(sweep, "train_stack", training)
    usual = signal.signal(signal.SIGINT, handler)
    try:
        runs = kd.train(NET, tasks, epochs=1)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, usual)
    assert capsys.readouterr().out.startswith("Interrupted: 3 of 3 runs are kept")
    assert (runs.last()["epoch"] == 1).all()


def test_an_interrupt_while_the_threads_begin_loses_no_run(tasks, monkeypatch, capsys):
    on(3, monkeypatch)
    submit, number, begun = ThreadPoolExecutor.submit, itertools.count(), threading.Event()
    stopping(monkeypatch, begun.set, at=0)

    def submitting(pool, *args):
        if next(number) == 1:
            assert begun.wait(60)  # the first trains, the others have not begun
            ctrl_c()
        return submit(pool, *args)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submitting)
    runs = kd.train(NET, tasks, epochs=300, batch=32)
    assert capsys.readouterr().out.startswith("Interrupted: 1 of 3 runs are kept")
    assert len(runs) == 1 and runs.last()["epoch"].item() < 300


def test_an_error_in_one_ends_all_and_is_raised(tasks, monkeypatch):
    def broken():
        raise RuntimeError("out of ink")

    on(3, monkeypatch)
    stopping(monkeypatch, broken)
    with pytest.raises(RuntimeError, match="out of ink"):
        kd.train(NET, tasks, epochs=10_000, batch=32)


def test_what_waits_for_a_thread_is_not_begun_after_an_interrupt(tasks, monkeypatch, capsys):
    on(2, monkeypatch)
    stopping(monkeypatch, interrupted, at=0)
    runs = kd.train(NET, tasks, epochs=[50, 60, 70])
    assert "of 9 runs are kept" in capsys.readouterr().out and len(runs) <= 4


MODES = {
    "autocast": lambda: torch.autocast("cpu"),
    "counting": lambda: FlopCounterMode(display=False),
    "a device": lambda: torch.device("cpu"),
    "inference": torch.inference_mode,
}


@pytest.mark.parametrize("mode", MODES)
def test_inside_a_mode_of_torch_work_stays_where_it_is(mode, monkeypatch):
    monkeypatch.setattr(lab, "FOUND", 2)
    assert abreast.threads() == 2
    with MODES[mode]():
        assert abreast.threads() == 1
    assert abreast.threads() == 2


class Own(nn.Sequential):
    """A reader's own architecture."""


def own(task):
    return Own(nn.Conv2d(1, 2, 3), nn.Flatten(1), nn.Linear(72, 10))


def squared(student_logits, teacher_logits):
    return (student_logits - teacher_logits).square().mean()


CASES = {
    "kdlab's own": ({}, [2]),
    "an architecture of the reader's": ({"student": own}, []),
    "few perceptrons": ({"student": kd.mlp(4)}, []),
    "many perceptrons": ({"student": kd.mlp(400), "seeds": 16}, [2]),
    "few networks of patches": ({"student": kd.patchnet(1)}, [2]),
    "many small perceptrons": ({"student": kd.mlp(4), "seeds": 16}, []),
    "two budgets of few": ({"student": kd.mlp(4), "epochs": [1, 2]}, []),
    "two budgets of many": ({"student": kd.mlp(400), "seeds": 8, "epochs": [1, 2]}, [2]),
    "many large perceptrons": ({"student": kd.mlp(2000), "seeds": 16}, []),
    "one of each": ({"student": [NET, kd.mlp(4)]}, [2]),
    "a loss of the reader's": ({"objective": kd.OwnLoss(squared)}, []),
    "an exercise's solution": ({"objective": kd.OwnLoss(kd.reference("03.2"))}, [2]),
    "a metric of the reader's": ({"metrics": [lambda logits, data: 0.5]}, []),
    "stacks by hand": ({"at_once": 2}, []),
}


@pytest.mark.parametrize("case", CASES)
def test_only_what_gains_and_is_kdlab_s_own_is_trained_side_by_side(tasks, case, monkeypatch):
    changed, expected = CASES[case]
    on(2, monkeypatch)
    asked, usual = [], abreast.abreast

    def noted(work, parts, bar, at_once):
        asked.append(at_once)
        return usual(work, parts, bar, at_once)

    monkeypatch.setattr(sweep.abreast, "abreast", noted)
    teacher = [torch.zeros(80, 10)] * 3
    options = {"student": NET, "tasks": tasks, "teacher": teacher, "epochs": 1} | changed
    kd.sweep(options.pop("student"), options.pop("tasks"), **options)
    assert asked == expected
