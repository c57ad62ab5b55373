"""A replica equals the same student trained alone, in float64, against the usual loop in
plain_loop.py."""

import copy
import math

import pytest
import torch
from plain_loop import alone, built, own_dropout
from torch import nn

from kdlab import KDLoss, convnet, load, mlp
from kdlab.students.builders import Dropout
from kdlab.training.replicas import Replicas, threads_for
from kdlab.training.stepper import Stepper

SEEDS, LR, T, ALPHA = [3, 5, 8], [1e-2, 1e-2, 3e-3], [1.0, 4.0, 20.0], [0.0, 0.5, 1.0]
N, BATCH, EPOCHS = 50, 16, 3  # the last batch of an epoch has 2 rows


@pytest.fixture(scope="module")
def task():
    return load("digits", sizes=(N, 40, 40))


@pytest.fixture(scope="module")
def data(task):
    """x, y and a teacher's logits z, in float64."""
    z = 3 * torch.randn(N, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return task.train.x.double(), task.train.y, z


def weights(replicas):
    """All weights of every replica, (R, P)."""
    return torch.cat([v.flatten(1) for v in replicas.parameters.values()], 1)


def normed(task):
    """A student with batch norm: buffers that belong to each replica."""
    return nn.Sequential(
        nn.Flatten(1),
        nn.Linear(64, 12, bias=False),
        nn.BatchNorm1d(12),
        nn.ReLU(),
        nn.Linear(12, 10),
    )


def everything(task):
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        Dropout(0.2),
        nn.Flatten(1),
        nn.Linear(108, 12),
        nn.ReLU(),
        Dropout(0.5),
        nn.Linear(12, 10),
    )


def trained(student, task, data, lr=LR, **options):
    """The students of SEEDS as one stack, each with its own lr, T and alpha."""
    x, y, z = data
    replicas = Replicas([built(student, task, seed).double() for seed in SEEDS], SEEDS)
    stepper = Stepper(replicas, lr, EPOCHS * math.ceil(N / BATCH), **options)
    loss = KDLoss(*(torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (T, ALPHA)))
    for _ in range(EPOCHS):
        for rows in replicas.orders_of_epoch(N).split(BATCH, dim=1):
            stepper.step(x[rows], lambda logits, rows=rows: loss.rows(logits, z[rows], y[rows]))
    return replicas


def one_relu(task):
    """An MLP that uses one ReLU twice, as many do."""
    relu = nn.ReLU()
    return nn.Sequential(
        nn.Flatten(1), nn.Linear(64, 12), relu, nn.Linear(12, 9), relu, nn.Linear(9, 10)
    )


def half_frozen(task):
    model = mlp(12)(task)
    model[1].requires_grad_(False)
    return model


def row_by_row(task):
    """A linear layer along the image's last axis, before it is flattened."""
    return nn.Sequential(nn.Linear(8, 3), nn.ReLU(), nn.Flatten(1), nn.Linear(24, 10))


@pytest.mark.parametrize(
    "student",
    [
        mlp(12),
        convnet(3, 4),
        mlp(12, 8, dropout=0.4),
        normed,
        everything,
        mlp(),
        one_relu,
        half_frozen,
        row_by_row,
    ],
    ids=lambda build: build.__name__,
)
@pytest.mark.parametrize(
    "stacked, single",
    [
        ({}, {}),
        (
            {"optimiser": "adamw", "weight_decay": 0.1},
            {"optimiser": torch.optim.AdamW, "weight_decay": 0.1},
        ),
        (
            {"optimiser": "sgd", "momentum": 0.9, "clip": 0.5, "schedule": "constant"},
            {"optimiser": torch.optim.SGD, "momentum": 0.9, "clip": 0.5, "schedule": "constant"},
        ),
    ],
    ids=["adam", "adamw", "sgd"],
)
def test_a_replica_equals_the_student_trained_alone(student, stacked, single, task, data):
    replicas = trained(student, task, data, **stacked)
    x, y, z = data
    for r, seed in enumerate(SEEDS):
        model = own_dropout(built(student, task, seed).double(), seed)
        before = copy.deepcopy(model.state_dict())
        alone(
            model,
            x,
            y,
            z,
            seed=seed,
            T=T[r],
            alpha=ALPHA[r],
            lr=LR[r],
            batch=BATCH,
            epochs=EPOCHS,
            **single,
        )
        found = replicas.module(r).state_dict()
        assert found.keys() == before.keys()
        for name, value in model.state_dict().items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-10)
            frozen = (
                name in dict(model.named_parameters())
                and not model.get_parameter(name).requires_grad
            )
            assert torch.equal(value, before[name]) == frozen, name


def test_clipping_bites_and_is_each_replicas_own(task, data):
    with_clip, without = (trained(mlp(12), task, data, clip=c) for c in (1e-3, None))
    for r in range(3):
        a, b = (
            nn.utils.parameters_to_vector(replicas.module(r).parameters())
            for replicas in (with_clip, without)
        )
        assert (a - b).abs().max() > 1e-4


def test_replicas_differ_in_weights_order_and_masks(task):
    replicas = Replicas([built(mlp(30, dropout=0.5), task, s) for s in (0, 1)], [0, 1])
    assert not torch.equal(*(replicas.module(r)[1].weight for r in (0, 1)))
    assert not torch.equal(*replicas.orders_of_epoch(N))
    same = Replicas([built(mlp(30, dropout=0.5), task, 0)] * 2, [0, 1])
    a, b = same.forward(task.train.x.expand(2, -1, -1, -1, -1))
    assert not torch.allclose(a, b)


def test_an_order_is_a_permutation_and_changes_every_epoch():
    replicas = Replicas([nn.Linear(2, 2)] * 3, [0, 1, 2])
    first, second = replicas.orders_of_epoch(20), replicas.orders_of_epoch(20)
    assert torch.equal(first.sort(1).values, torch.arange(20).expand(3, 20))
    assert not (first == second).all(1).any()


@pytest.mark.parametrize("student", [normed, mlp(12, dropout=0.4)], ids=["batch norm", "dropout"])
def test_evaluation_is_eval_mode_and_students_train_on_afterwards(student, task):
    modules = [built(student, task, s) for s in SEEDS]
    replicas, x = Replicas(modules, SEEDS), task.validation.x
    buffers = {k: v.clone() for k, v in replicas.buffers.items()}
    found = replicas.evaluate(x.expand(3, *x.shape), batch=17)
    for r, module in enumerate(modules):
        torch.testing.assert_close(found[r], module.eval()(x))
    assert all(m.training for m in replicas.base.modules()) and not found.requires_grad
    assert all(torch.equal(v, buffers[k]) for k, v in replicas.buffers.items())


def test_students_are_back_in_train_mode_when_evaluation_fails(task):
    replicas = Replicas([built(mlp(12, dropout=0.5), task, 0)], [0])
    with pytest.raises(RuntimeError):
        replicas.evaluate(torch.zeros(1, 5, 99))
    assert all(m.training for m in replicas.base.modules())


@pytest.mark.parametrize("student", [mlp(4, dropout=0.5), everything], ids=["mlp", "everything"])
def test_the_shared_random_state_is_not_drawn_from(student, task, data):
    modules = [built(student, task, s).double() for s in SEEDS]
    state = torch.get_rng_state()
    replicas = Replicas(modules, SEEDS)
    replicas.forward(data[0].expand(3, *data[0].shape))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_module_is_a_copy_in_eval_mode(task):
    original = built(normed, task, 0)
    replicas = Replicas([original, built(normed, task, 1)], [0, 1])
    module = replicas.module(0)
    assert not any(m.training for m in module.modules())
    with torch.no_grad():
        for value in [*module.parameters(), module[2].running_mean]:
            value += 1
    torch.testing.assert_close(replicas.module(0).state_dict(), original.state_dict())
    assert original.training  # and the modules that were handed in are left alone


def test_training_leaves_the_modules_handed_in_alone(task, data):
    modules = [built(normed, task, s).double() for s in SEEDS]
    before = copy.deepcopy([m.state_dict() for m in modules])
    replicas = Replicas(modules, SEEDS)
    x, y, _ = data
    loss = nn.CrossEntropyLoss(reduction="none")
    Stepper(replicas, LR, 1).step(
        x.expand(3, *x.shape),
        lambda logits: {"loss": loss(logits.flatten(0, 1), y.repeat(3)).view(3, -1)},
    )
    assert not torch.equal(replicas.module(0)[1].weight, modules[0][1].weight)
    for module, state in zip(modules, before, strict=True):
        torch.testing.assert_close(module.state_dict(), state, rtol=0, atol=0)


def tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    "modules, words",
    [
        (
            lambda: [tied(), tied()],
            r"must not tie weights, got \['1.weight'\] tied to another parameter",
        ),
        (
            lambda: [nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))],
            "module '1' is torch's dropout; use kdlab.students.builders.Drop",
        ),
        (lambda: [nn.Sequential(nn.Dropout2d(0.5))], "module '0' is torch's dropout"),
        (
            lambda: [nn.Linear(4, 4), nn.Linear(4, 5)],
            r"same names and shapes, got .*\(4, 4\).* and .*\(5, 4\)",
        ),
        (
            lambda: [nn.Linear(4, 4), nn.Linear(4, 4, bias=False)],
            r"same names and shapes, got .*'bias'.* and ",
        ),
    ],
)
def test_what_cannot_be_stacked_is_refused(modules, words):
    modules = modules()
    with pytest.raises(ValueError, match=f"^Replicas: .*{words}"):
        Replicas(modules, range(len(modules)))


def test_a_small_stack_trains_on_one_thread_and_gives_the_others_back():
    replicas = Replicas([mlp(4)(load("digits"))], seeds=[0])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt), threads_for(replicas):
            assert torch.get_num_threads() == 1
            raise KeyboardInterrupt
        assert torch.get_num_threads() == 2
        for other in (
            convnet(2)(load("digits")),
            mlp(2000)(load("digits")),
        ):  # left to vmap, or large
            with threads_for(Replicas([other], seeds=[0])):
                assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
