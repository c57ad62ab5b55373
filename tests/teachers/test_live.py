"""Teachers that learn while they teach, against hand-written loops: a moving average, and mutual
learning."""

import itertools

import numpy as np
import pytest
import torch
from plain_loop import alone, batches, blend, built, logits_of, own_dropout, step
from scipy.special import logsumexp, softmax

from kdlab import EMA, HardLabels, KDLoss, Peers, convnet, distill, mlp, splits, sweep, train

SMALL = {"sizes": (50, 40, 40)}  # batches of 16 leave a last one of 2
QUICK = {"epochs": 3, "batch": 16, "lr": 2e-2, "schedule": "constant"}


@pytest.fixture(scope="module")
def tasks():
    return splits("digits", 2, **SMALL)


def share(hits):
    return pytest.approx(hits.double().mean().item(), abs=1e-6)


def same_weights(model, reference):
    # float32, many steps: the order of sums differs between processors
    torch.testing.assert_close(model.state_dict(), reference.state_dict(), rtol=1e-3, atol=1e-4)


def weights(runs):
    return [runs.module(run=run).state_dict() for run in runs.frame["run"].unique()]


def by_average(student, task, seed, decay, T, alpha):
    """A student taught by the moving average of its weights → (student, average)."""
    model, average = (own_dropout(built(student, task, seed), seed) for _ in range(2))
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2)
    for rows in batches(50, seed):
        x, y = task.train.x[rows], task.train.y[rows]
        step(optimiser, blend(model.train()(x), logits_of(average, x), y, T, alpha))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.copy_(decay * slow + (1 - decay) * fast)
    return model, average


@pytest.mark.parametrize(
    "student", [mlp(12), mlp(12, 8, dropout=0.4), convnet(3, dropout=0.4)], ids=lambda b: b.__name__
)
def test_a_moving_average_teaches_its_student(student, tasks):
    runs = distill(
        student, EMA(0.8), tasks, temperature=[1.0, 3.0], alpha=0.7, seeds=[4, 9], **QUICK
    )
    assert len(runs) == 8
    for row in runs.frame.itertuples():
        task = tasks[int(row.unit[-1])]
        model, average = by_average(student, task, row.seed, 0.8, row.temperature, 0.7)
        same_weights(runs.module(run=row.run), model)
        own, guide = (logits_of(m, task.validation.x).argmax(1) for m in (model, average))
        assert row.teacher_accuracy == share(guide == task.validation.y)
        assert row.agreement == share(guide == own) and row.accuracy == share(
            own == task.validation.y
        )


def test_without_memory_the_teacher_is_the_student_as_it_stands(tasks):
    """KL(p ‖ p) is 0 and so is its gradient: what is left is a step on the labels, of half the
    length."""
    options = QUICK | {"optimiser": "sgd", "seeds": 2}
    runs = distill(mlp(12), EMA(0.0), tasks, alpha=0.5, **options | {"lr": 0.2})
    torch.testing.assert_close(
        weights(runs), weights(train(mlp(12), tasks, **options | {"lr": 0.1}))
    )
    assert (runs.frame["agreement"] == 1).all() and runs.frame["soft"].abs().max() < 1e-6
    assert runs.frame["teacher_accuracy"].equals(runs.frame["accuracy"].rename("teacher_accuracy"))


@pytest.mark.parametrize("decay", [1.0, 1, -0.1, 7, float("nan")])
def test_an_average_that_never_moves_is_refused(decay):
    with pytest.raises(
        ValueError,
        match=rf"^EMA: decay must be a finite number at least 0 and below 1, got {decay!r}",
    ):
        EMA(decay)


def mutual(models, task, order, T, alpha):
    """Students that see the same batches and move at once, each towards the mean of the others'
    probabilities."""
    optimisers = [torch.optim.Adam(m.parameters(), lr=2e-2) for m in models]
    for rows in batches(50, order):
        x, y = task.train.x[rows], task.train.y[rows]
        logits = [m.train()(x) for m in models]
        p = [z.detach().softmax(-1) for z in logits]
        for i, optimiser in enumerate(optimisers):
            others = torch.stack([p[j] for j in range(len(p)) if j != i]).mean(0)
            step(optimiser, blend(logits[i], others.log(), y, T, alpha))


@pytest.mark.parametrize("student", [mlp(12, dropout=0.4), convnet(3)], ids=lambda b: b.__name__)
@pytest.mark.parametrize(
    "count, seeds, at_once",
    [
        (2, [4, 9, 2, 7], None),
        (2, [4, 9, 2, 7], 1),
        (2, [4, 9, 2, 7], 3),
        (3, [5, 1, 8], None),
        (3, [5, 1, 8], 4),
    ],
)
def test_peers_teach_each_other_in_groups_of_one_split_and_cell(
    student, count, seeds, at_once, tasks
):
    runs = distill(
        student,
        Peers(count),
        tasks,
        temperature=[1.0, 3.0],
        alpha=0.7,
        seeds=seeds,
        at_once=at_once,
        **QUICK,
    )
    assert len(runs) == 4 * len(seeds)
    groups = [seeds[i : i + count] for i in range(0, len(seeds), count)]
    for task, T, group in itertools.product(tasks, [1.0, 3.0], groups):
        models = [own_dropout(built(student, task, seed), seed) for seed in group]
        mutual(models, task, group[0], T, 0.7)
        p = [logits_of(m, task.validation.x).softmax(-1) for m in models]
        for i, seed in enumerate(group):
            run = runs.where(unit=task.unit, temperature=T, seed=seed)
            same_weights(run.module(), models[i])
            guide = torch.stack([p[j] for j in range(count) if j != i]).mean(0).argmax(-1)
            row = next(run.frame.itertuples())
            assert row.teacher_accuracy == share(guide == task.validation.y)
            assert row.agreement == share(guide == p[i].argmax(-1))


@pytest.mark.parametrize("count", [2, 3, 4])
def test_each_peer_hears_the_log_of_the_mean_of_the_others(count):
    z = 3 * torch.randn(
        2 * count, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    found, q = Peers(count).answer(None, None, z.requires_grad_()), softmax(z.detach().numpy(), -1)
    for r in range(2 * count):
        others = [j for j in range(2 * count) if j // count == r // count and j != r]
        np.testing.assert_allclose(found[r], np.log(np.mean(q[others], 0)), atol=1e-6)
    assert not found.requires_grad


def test_a_class_that_the_others_rule_out_stays_finite():
    z = torch.tensor([[[0.0, -torch.inf, 1.0]], [[2.0, 0.0, -torch.inf]], [[1e4, -1e4, 3e38]]])
    found = Peers(3).answer(None, None, z)
    q = z.double().numpy() - logsumexp(z.double().numpy(), -1, keepdims=True)
    for r in range(3):
        expected = logsumexp(np.delete(q, r, 0), 0) - np.log(2)
        np.testing.assert_allclose(found[r], np.maximum(expected, -1e30), rtol=1e-6)
    student = torch.tensor([[[1e4, -1e4, 0.0]]] * 3, requires_grad=True)
    loss = KDLoss(1.0, 0.5).rows(student, found, torch.tensor([[0]] * 3))["loss"]
    (gradient,) = torch.autograd.grad(loss.sum(), student)
    assert torch.isfinite(loss).all() and torch.isfinite(gradient).all()


@pytest.mark.parametrize("count", [1, 0, -2, 2.0, "2", None, True])
def test_peers_come_at_least_by_twos(count):
    with pytest.raises(
        ValueError, match=rf"^Peers: count must be a whole number of at least 2, got {count!r}"
    ):
        Peers(count)


def test_seeds_must_make_whole_groups(tasks):
    for count, seeds in [(2, 3), (3, [0, 4])]:
        words = (
            f"seeds must be a multiple of {count} for peers in groups of {count}, got"
            f" {3 if seeds == 3 else 2}$"
        )
        with pytest.raises(ValueError, match=words):
            distill(mlp(4), Peers(count), tasks, seeds=seeds)


@pytest.mark.parametrize("teacher", [EMA(0.8), Peers(2)], ids=["ema", "peers"])
def test_a_teacher_used_twice_starts_afresh(teacher, tasks):
    before = dict(vars(teacher))
    first, second = (
        weights(distill(mlp(6), teacher, tasks, seeds=2, at_once=2, **QUICK)) for _ in range(2)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert vars(teacher) == before


@pytest.mark.parametrize("teacher", [EMA(0.8), Peers(2)], ids=["ema", "peers"])
def test_with_alpha_0_the_labels_alone_teach(teacher, tasks):
    runs = distill(mlp(12), teacher, tasks, alpha=[0.0, 0.6], seeds=[4, 9], **QUICK)
    for task, seed in itertools.product(tasks, [4, 9]):
        reference = built(mlp(12), task, seed)
        order = (
            4 if isinstance(teacher, Peers) else seed
        )  # peers see the batches of the first of them
        alone(reference, task.train.x, task.train.y, seed=order, lr=2e-2, schedule="constant")
        same_weights(runs.where(unit=task.unit, seed=seed, alpha=0.0).module(), reference)
    parts = [
        distill(mlp(12), teacher, tasks, alpha=alpha, seeds=[4, 9], **QUICK) for alpha in (0.0, 0.6)
    ]
    torch.testing.assert_close(
        weights(runs), weights(parts[0]) + weights(parts[1]), rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("teacher", [EMA(0.8), Peers(2)], ids=["ema", "peers"])
def test_an_objective_without_a_teacher_hears_none(teacher, tasks):
    runs = sweep(
        mlp(6), tasks, teacher=teacher, objective=[HardLabels(), KDLoss(3.0, 0.7)], seeds=2, **QUICK
    )
    labels, taught = (runs.where(objective=name) for name in ("HardLabels", "KDLoss"))
    torch.testing.assert_close(
        weights(labels), weights(train(mlp(6), tasks, seeds=2, **QUICK)), rtol=1e-3, atol=1e-6
    )
    alike = distill(mlp(6), teacher, tasks, temperature=3.0, alpha=0.7, seeds=2, **QUICK)
    torch.testing.assert_close(weights(taught), weights(alike), rtol=1e-3, atol=1e-6)
    assert labels.frame["agreement"].isna().all() and taught.frame["agreement"].notna().all()
