"""A recorded step against the step itself; on a CPU with a stand-in for CUDA's graph, which runs
what it recorded."""

import functools

import pytest
import torch
from objectives import Counting

import kdlab as kd
from kdlab.teachers.live import Live
from kdlab.training import capture, loop
from kdlab.training.capture import Captured
from kdlab.training.replicas import Replicas
from kdlab.training.stepper import Stepper
from kdlab.training.taught import Kept, Nobody

N, BATCH, STEPS, R = 20, 8, 9, 3
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Recorded:
    """CUDA's graph as far as a CPU can tell: recording runs nothing, a replay fills the same
    tensors."""

    freed = 0

    def __init__(self, generators):
        self.function = None

    def warm_up(self, function):
        for _ in range(capture.WARM_UP):
            function()

    def record(self, function):
        self.function, self.terms = function, {"loss": torch.zeros(R, BATCH)}
        return self.terms

    def replay(self):
        self.terms["loss"] = self.function()["loss"]

    def free(self):
        Recorded.freed += 1


class Refuses(Recorded):
    def record(self, function):
        function()
        raise RuntimeError("operation not permitted when stream is capturing")


def students(build, **options):
    task = kd.load("digits")
    modules = []
    for seed in range(R):
        torch.manual_seed(seed)
        modules.append(build(task))
    replicas = Replicas(modules, list(range(R)))
    replicas.base.train()
    return task, replicas, Stepper(replicas, [1e-2, 1e-2, 3e-3], 2 * STEPS, **options)


def trained(build, teach, wrap, **options):
    """The weights after two epochs of an uneven last batch, and the step that made them."""
    task, replicas, stepper = students(build, **options)
    x, y = task.train.x[:N], task.train.y[:N]
    teacher = teach(replicas, task)
    at_given_rates = functools.partial(loop.step, stepper.update, kd.KDLoss().rows, teacher, x, y)
    one_step = wrap(at_given_rates, stepper, teacher)
    for _ in range(3):
        loop.epoch(one_step, replicas.orders_of_epoch(N), BATCH)
    return stepper.state() | teacher.state(), one_step


def eager(at_given_rates, stepper, teacher):
    def one_step(rows):
        stepper.schedule_rates()
        return at_given_rates(rows)

    return one_step


def recorded(graph):
    def wrap(at_given_rates, stepper, teacher):
        def state():
            return stepper.state() | teacher.state()

        masks = stepper.replicas.masks
        return Captured(at_given_rates, state, masks, stepper.schedule_rates, graph)

    return wrap


def kept(replicas, task):
    draw = torch.Generator().manual_seed(5)
    answers = torch.randn(N, 10, generator=draw)
    return Kept({"logits": answers}, torch.zeros(R, 1, dtype=torch.long))


def average(replicas, task):
    return kd.EMA(0.5).begin(replicas)


BUILDS = {
    "perceptron": kd.mlp(8),
    "dropout": kd.mlp(8, dropout=0.3),
    "convolutions": kd.convnet(4, 8),
}
each_build = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)


@pytest.mark.parametrize("graph", [Recorded, Refuses])
@pytest.mark.parametrize("teach", [kept, average])
@pytest.mark.parametrize(
    "options", [{}, {"optimiser": "sgd", "momentum": 0.9}, {"clip": 0.1}], ids=str
)
@each_build
def test_recorded_or_refused_the_weights_are_those_of_the_plain_steps(build, options, teach, graph):
    expected, _ = trained(build, teach, eager, **options)
    found, one_step = trained(build, teach, recorded(graph), **options)
    assert (one_step.why is None) == (graph is Recorded)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)


def test_each_length_of_batch_is_recorded_once_and_freed():
    Recorded.freed = 0
    _, one_step = trained(kd.mlp(8), kept, recorded(Recorded))
    assert sorted(one_step.recorded) == [(R, N % BATCH), (R, BATCH)]
    one_step.free()
    assert Recorded.freed == 2 and not one_step.recorded


def test_nobody_has_no_state_and_that_of_an_unknown_teacher_is_unknown():
    assert Nobody().state() == {} and Live().state() is None


class Own(Live):
    """A teacher of the reader's own, whose state nobody knows."""


@pytest.mark.parametrize(
    "on_gpu, objective, teacher, options, recorded",
    [
        (True, kd.KDLoss(), Nobody(), {}, True),
        (True, kd.KDLoss(), Nobody(), {"optimiser": "sgd", "momentum": 0.9}, True),
        (False, kd.KDLoss(), Nobody(), {}, False),
        (True, Counting(), Nobody(), {}, False),
        (True, kd.KDLoss(), Own(), {}, False),
        (
            True,
            kd.KDLoss(),
            Nobody(),
            {"optimiser": "sgd", "momentum": 0.9, "dampening": 0.5},
            False,
        ),
    ],
)
def test_only_what_is_the_same_at_every_step_is_recorded(
    on_gpu, objective, teacher, options, recorded
):
    task, _, stepper = students(kd.mlp(8), **options)
    stepper.on_gpu = on_gpu
    one_step = loop.one_step_of(stepper, objective, teacher, task.train.x, task.train.y)
    assert isinstance(one_step, Captured) == recorded


@needs_cuda
@each_build
def test_on_a_gpu_a_recorded_sweep_is_the_plain_one(build, monkeypatch):
    task = kd.load("digits")
    lab = kd.setup(seed=0)
    assert lab.device.type == "cuda"
    teacher = kd.train(kd.mlp(32), task, epochs=2)

    def weights():
        runs = kd.sweep(build, task, teacher=teacher, temperature=[1, 4], epochs=3, seeds=2)
        each = [runs.module(temperature=T, seed=seed) for T in (1, 4) for seed in (0, 1)]
        return [value for module in each for value in module.state_dict().values()]

    found = weights()
    monkeypatch.setattr(kd.KDLoss, "may_be_recorded", False)
    for a, b in zip(found, weights(), strict=True):
        torch.testing.assert_close(a, b)
