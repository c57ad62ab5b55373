"""A student that learns from hidden layers, against a hand-written loop with its own projectors and
distances."""

import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from plain_loop import batches, blend, built, layers, own_dropout, step
from torch import nn

from kdlab import (
    EMA,
    HardLabels,
    HiddenLoss,
    KDLoss,
    Peers,
    Runs,
    convnet,
    distill,
    load,
    mlp,
    splits,
    sweep,
    train,
)
from kdlab.losses.features import attention_transfer, fitnets, rkd_angle, rkd_distance, similarity
from kdlab.losses.hidden import Tapped
from kdlab.students.builders import Dropout

SMALL = {"sizes": (50, 40, 40)}  # batches of 16 leave a last one of 2
QUICK = {"epochs": 3, "batch": 16, "lr": 2e-2, "schedule": "constant"}


@pytest.fixture(scope="module")
def tasks():
    return splits("digits", 2, **SMALL)


@pytest.fixture(scope="module")
def flat(tasks):
    """Runs with one multi-layer perceptron a unit, with dropout: in train mode it would answer
    otherwise."""
    return train(mlp(16, dropout=0.5), tasks, epochs=4, lr=3e-2)


@pytest.fixture(scope="module")
def maps(tasks):
    return train(convnet(4, 6, dropout=0.5), tasks, epochs=2)


def weights(runs):
    return [runs.module(run=run).state_dict() for run in runs.frame["run"].unique()]


def squared(s, t):
    return (s - t).pow(2).mean()  # every row has as many numbers


def attention(s, t):
    return (
        (F.normalize(s.pow(2).sum(1).flatten(1)) - F.normalize(t.pow(2).sum(1).flatten(1)))
        .norm(dim=1)
        .mean()
    )


def alike(s, t):
    g_s, g_t = (F.normalize(q.flatten(1) @ q.flatten(1).T) for q in (s, t))
    return (g_s - g_t).pow(2).sum() / len(s) ** 2


def wide(s, t):
    return nn.Linear(s.shape[1], t.shape[1])


def mix(s, t):
    return nn.Conv2d(s.shape[1], t.shape[1], 1)


def halved(s, t):
    return nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(s.shape[1], t.shape[1], 1))


# student, teacher, loss, the same distance by hand, its projector by hand, T and alpha of the loss
# on the logits
CASES = {
    "fitnets": (
        mlp(12, dropout=0.4),
        "flat",
        HiddenLoss(fitnets, [("2", "2")], 0.5),
        squared,
        wide,
        (1, 0),
    ),
    "fitnets, two pairs": (
        mlp(12, 8),
        "flat",
        HiddenLoss(fitnets, [["4", "2"], ["2", "2"]]),
        squared,
        wide,
        (1, 0),
    ),
    "fitnets, maps": (
        convnet(3),
        "maps",
        HiddenLoss(fitnets, [("1", "1")], 2),
        squared,
        mix,
        (1, 0),
    ),
    "fitnets, smaller maps": (
        convnet(3),
        "maps",
        HiddenLoss(fitnets, [("0", "3")]),
        squared,
        halved,
        (1, 0),
    ),
    "fitnets, no projector": (
        mlp(16),
        "flat",
        HiddenLoss(fitnets, [("2", "2")], project=False),
        squared,
        None,
        (1, 0),
    ),
    "attention": (
        convnet(3, dropout=0.4),
        "maps",
        HiddenLoss(attention_transfer, [("1", "1")], 3.0),
        attention,
        None,
        (1, 0),
    ),
    "similarity": (
        mlp(12),
        "maps",
        HiddenLoss(similarity, [("2", "3")], 50.0),
        alike,
        None,
        (1, 0),
    ),
    "similarity, projected": (
        mlp(12),
        "flat",
        HiddenLoss(similarity, [("2", "2")], 50.0, project=True),
        alike,
        wide,
        (1, 0),
    ),
    "with logits": (
        convnet(3),
        "flat",
        HiddenLoss(similarity, [("1", "2"), ("0", "1")], 20.0, KDLoss(3.0, 0.7)),
        alike,
        None,
        (3.0, 0.7),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_layers_teach_as_in_the_usual_loop(name, tasks, request):
    student, kind, loss, distance, bridge, (T, alpha) = CASES[name]
    teacher = request.getfixturevalue(kind)
    before = weights(teacher)
    runs = distill(student, teacher, tasks, objective=loss, seeds=[4, 9], **QUICK)
    torch.testing.assert_close(weights(teacher), before, rtol=0, atol=0)
    for task, seed in itertools.product(tasks, [4, 9]):
        guide = teacher.module(unit=task.unit)
        with torch.no_grad():
            z, there = layers(guide, task.train.x)
        model = own_dropout(built(student, task, seed), seed)
        _, here = layers(model.eval(), task.train.x[:1])
        torch.manual_seed(seed)
        bridges = nn.ModuleList(
            bridge(here[s], there[t]) if bridge else nn.Identity() for s, t in loss.pairs
        )
        optimiser = torch.optim.Adam([*model.parameters(), *bridges.parameters()], lr=2e-2)
        model.train()
        for rows in batches(50, seed):
            logits, here = layers(model, task.train.x[rows])
            far = sum(
                distance(b(here[s]), there[t][rows])
                for b, (s, t) in zip(bridges, loss.pairs, strict=True)
            )
            step(
                optimiser, blend(logits, z[rows], task.train.y[rows], T, alpha) + loss.weight * far
            )
        found = runs.module(unit=task.unit, seed=seed)
        torch.testing.assert_close(found.state_dict(), model.state_dict(), rtol=1e-3, atol=2e-5)
        assert type(found) is nn.Sequential and not any(m.training for m in found.modules())


@pytest.mark.parametrize(
    "distance", [rkd_distance, rkd_angle, partial(attention_transfer, variant="code")]
)
def test_other_distances_and_instances_go_through_replicas(distance, tasks, maps):
    runs = distill(
        convnet(3),
        maps,
        tasks,
        objective=HiddenLoss(distance, [("1", "1")], 10.0),
        seeds=2,
        **QUICK,
    )
    alone = distill(
        convnet(3),
        maps,
        tasks,
        objective=HiddenLoss(distance, [("1", "1")], 10.0),
        seeds=2,
        at_once=1,
        **QUICK,
    )
    torch.testing.assert_close(weights(runs), weights(alone), rtol=1e-3, atol=1e-5)
    assert (runs.frame["loss"] - runs.frame["hard"] - 10 * runs.frame["hidden"]).abs().max() < 1e-4


@pytest.mark.parametrize(
    "base", [None, HardLabels(), KDLoss(3.0, 0.7)], ids=["default", "labels", "logits"]
)
def test_with_weight_0_only_the_base_teaches(base, tasks, flat):
    runs = distill(
        mlp(12), flat, tasks, objective=HiddenLoss(fitnets, [("2", "2")], 0, base), seeds=2, **QUICK
    )
    plain = sweep(mlp(12), tasks, teacher=flat, objective=base or HardLabels(), seeds=2, **QUICK)
    torch.testing.assert_close(weights(runs), weights(plain), rtol=1e-3, atol=1e-5)


def test_unlabelled_rows_teach_by_their_layers_alone(flat):
    few = load("digits", labels_per_class=2, **SMALL)
    x, y, guide = few.transfer.x, few.transfer.y, flat.module(unit="digits/0")
    runs = distill(
        mlp(12),
        guide,
        few,
        objective=HiddenLoss(similarity, [("2", "2")], 50.0),
        on="transfer",
        **QUICK,
    )
    model = built(mlp(12), few, 0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2)
    for rows in batches(50, 0):
        logits, here = layers(model, x[rows])
        with torch.no_grad():
            z, there = layers(guide, x[rows])
        step(optimiser, blend(logits, z, y[rows], 1, 0) + 50 * alike(here["2"], there["2"]))
    assert (y == -100).sum() == 30
    torch.testing.assert_close(runs.module().state_dict(), model.state_dict(), rtol=1e-3, atol=2e-5)


class Nested(nn.Module):
    """A student with a part called student, as Tapped has one."""

    def __init__(self):
        super().__init__()
        self.student, self.last = (
            nn.Sequential(nn.Flatten(1), nn.Linear(64, 8), nn.ReLU()),
            nn.Linear(8, 10),
        )

    def forward(self, x):
        return self.last(self.student(x))


@pytest.mark.parametrize(
    "student, layer",
    [(mlp(12), "2"), (lambda task: Nested(), "student.1")],
    ids=["mlp", "nested"],
)
def test_the_projector_is_thrown_away(student, layer, tasks, flat, tmp_path):
    runs = distill(student, flat, tasks, objective=HiddenLoss(fitnets, [(layer, "2")]), **QUICK)
    assert set(runs.module(unit="digits/0").state_dict()) == set(student(tasks[0]).state_dict())
    again = Runs.load(runs.save(tmp_path / "kept"), [student], tasks)
    torch.testing.assert_close(weights(again), weights(runs), rtol=0, atol=0)
    for goes_on in (
        {"objective": HiddenLoss(fitnets, [(layer, "2")])},
        {},
    ):  # from its weights, at a rate near 0
        more = distill(student, flat, tasks, start=again, **QUICK | {"lr": 1e-9}, **goes_on)
        torch.testing.assert_close(weights(more), weights(runs), rtol=0, atol=1e-6)


def test_no_hook_is_left_also_after_an_exception(tasks, flat, monkeypatch):
    handles, errors, register, calls = [], [], nn.Module.register_forward_hook, itertools.count()

    def watched(self, *args, **kwargs):
        handles.append(register(self, *args, **kwargs))
        return handles[-1]

    def fails(student, teacher):
        if next(calls) == 3:
            raise RuntimeError("in the middle")
        return squared(student, teacher)

    class Breaks(nn.Linear):
        def forward(self, x):
            if next(calls) == 5:
                raise RuntimeError("in the middle")
            return super().forward(x)

    def breaks(task):
        return nn.Sequential(nn.Flatten(1), nn.Linear(64, 16), nn.ReLU(), Breaks(16, 10))

    monkeypatch.setattr(nn.Module, "register_forward_hook", watched)
    runs = distill(mlp(16), flat, tasks, objective=HiddenLoss(similarity, [("2", "2")]), **QUICK)
    guide = nn.Sequential(*flat.module(unit="digits/0"))
    assert not any(
        m._forward_hooks for model in (runs.module(unit="digits/0"), guide) for m in model.modules()
    )
    for student, distance in ((mlp(16), fails), (breaks, similarity)):
        with pytest.raises(RuntimeError, match="in the middle") as caught:
            distill(
                student,
                guide,
                tasks,
                objective=HiddenLoss(distance, [("2", "2")], project=False),
                **QUICK,
            )
        calls, errors = (
            itertools.count(),
            [*errors, caught],
        )  # an error holds the modules that it met
    assert len(handles) > 20 and not any(h.id in (h.hooks_dict_ref() or ()) for h in handles)


def test_a_tapped_student_answers_as_itself():
    model = nn.Sequential(nn.Linear(4, 6), Dropout(0.5), nn.ReLU(), nn.Linear(6, 3))
    tapped, x = Tapped(model, ["2", "0"], nn.ModuleDict({"1": nn.Linear(6, 2)})), torch.randn(5, 4)
    torch.testing.assert_close(tapped.eval()(x), model(x))
    model[1].noise = torch.rand(5, 6)
    logits, (first, second) = tapped.train()(x)
    expected, found = layers(model, x)
    torch.testing.assert_close((logits, first), (expected, found["2"]))
    torch.testing.assert_close(second, tapped.projectors["1"](found["0"]))


def test_arms_stand_in_one_frame(tasks, flat):
    arms = [
        HardLabels(),
        KDLoss(4, 0.9),
        HiddenLoss(fitnets, [("2", "2")]),
        HiddenLoss(similarity, [("2", "2")]),
        HiddenLoss(fitnets, [("2", "2")], base=KDLoss(2.0, 0.5)),
    ]
    runs = sweep(mlp(12), tasks, teacher=flat, objective=arms, **QUICK)
    cells = (
        runs.frame[["objective", "temperature", "alpha"]]
        .fillna(-1)
        .drop_duplicates()
        .values.tolist()
    )
    assert cells == [
        ["HardLabels", -1, -1],
        ["KDLoss", 4, 0.9],
        ["fitnets", -1, -1],
        ["similarity", -1, -1],
        ["fitnets + KDLoss", 2, 0.5],
    ]
    assert runs.frame["agreement"].notna().all()
    for arm, (name, _, _) in zip(arms, cells, strict=True):  # none changes another
        one = sweep(mlp(12), tasks, teacher=flat, objective=arm, **QUICK)
        torch.testing.assert_close(
            weights(runs.where(objective=name)), weights(one), rtol=1e-3, atol=1e-6
        )


HINT = {"objective": HiddenLoss(fitnets, [("2", "2")])}


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (
            {"objective": HiddenLoss(fitnets, [("9", "2")])},
            ValueError,
            r"\['9'\] are not in the model.*'0', '1', '2', '3'\]",
        ),
        (
            {"objective": HiddenLoss(fitnets, [("2", "9")])},
            ValueError,
            r"\['9'\] are not in the model.*'2', '3', '4'\]",
        ),
        (
            {"objective": HiddenLoss(fitnets, [("3", "4"), ("2", "2")], project=False)},
            ValueError,
            (
                r"pair \('2', '2'\) does not fit\. .*\(2, 12\) and teacher \(2, 16\).*; or"
                r" HiddenLoss\(\.\.\., project=True\)$"
            ),
        ),
        (
            {"objective": HiddenLoss(fitnets, [("2", "2"), ("0", "1")]), "student": convnet(3)},
            ValueError,
            (
                r"^HiddenLoss: pair \('0', '1'\) does not fit\. projector: student_shape \(3, 8,"
                r" 8\) .*(?<!project=True\))$"
            ),
        ),
        (
            {"objective": [HiddenLoss(fitnets, [("2", "2")], w) for w in (1, 2)]},
            ValueError,
            (
                r"objective must hold values of different names.* got \['fitnets', 'fitnets'\];"
                r" make them two sweeps"
            ),
        ),
        (
            {"teacher": [torch.zeros(50, 10)] * 2},
            TypeError,
            (
                r"teacher must be Runs or an nn.Module, which have hidden layers, .* asks for"
                r" \['2'\], got list"
            ),
        ),
        (
            {"teacher": EMA()},
            TypeError,
            r"teacher must be Runs or an nn.Module, which have hidden layers, .* got EMA",
        ),
        (
            {"teacher": Peers(), "seeds": 2},
            TypeError,
            "teacher must be Runs or an nn.Module, .* got Peers",
        ),
        ({"teacher": None}, ValueError, "teacher must be given for an objective that distils"),
    ],
)
def test_what_does_not_fit_is_told(arguments, error, words, tasks, flat):
    given = {"student": mlp(12), "teacher": flat, **HINT, **QUICK} | arguments
    with pytest.raises(error, match=words):
        sweep(given.pop("student"), tasks, **given)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (
            ("fitnets", [("1", "1")]),
            TypeError,
            "distance must be a function such as features.fitnets, got 'fitnets'",
        ),
        *[
            ((fitnets, pairs), ValueError, "pairs must be layer names by twos, as in .* got ")
            for pairs in ([], ["12"], [("1",)], [("1", "2", "3")])
        ],
        *[
            (
                (fitnets, [("1", "1")], weight),
                ValueError,
                f"weight must be a finite number at least 0, got {weight!r}",
            )
            for weight in (-1, float("inf"), float("nan"), "1")
        ],
    ],
)
def test_a_loss_is_checked_when_it_is_made(arguments, error, words):
    with pytest.raises(error, match=f"^HiddenLoss: {words}"):
        HiddenLoss(*arguments)


@pytest.mark.parametrize(
    "key, value",
    [
        ("base", KDLoss),
        ("base", 1.0),
        ("base", "kd"),
        ("project", 1),
        ("project", "yes"),
        ("pairs", [(1, 3)]),
        ("pairs", [(["1"], "3")]),
    ],
)
def test_a_wrong_part_is_named_before_anything_is_trained(key, value):
    with pytest.raises((TypeError, ValueError), match=f"^HiddenLoss: {key} must be"):
        HiddenLoss(**{"distance": fitnets, "pairs": [("1", "1")], key: value})


def test_pairs_may_come_as_anything_that_yields_them():
    assert HiddenLoss(fitnets, zip("12", "34", strict=True)).pairs == [("1", "3"), ("2", "4")]


# --- a distance of the reader's own ---


def own_similarity(student, teacher):
    assert student.ndim == teacher.ndim == 4, "one student at a time"
    alike = [F.normalize(z.flatten(1) @ z.flatten(1).T, dim=1) for z in (student, teacher)]
    return (alike[0] - alike[1]).square().mean()


@pytest.mark.parametrize(
    ("own", "library", "options"),
    [
        (own_similarity, similarity, {}),
        (lambda s, t: (s - t).square().mean(), fitnets, {"project": True}),
        (F.mse_loss, fitnets, {"project": True}),
        (partial(F.mse_loss, reduction="mean"), fitnets, {"project": True}),
        (lambda s, t, reduction="mean": (s - t).square().mean(), fitnets, {"project": True}),
    ],
)
def test_a_distance_of_ones_own_teaches_as_the_library_does(own, library, options, tasks, maps):
    def taught(distance, **more):
        objective = HiddenLoss(distance, [("1", "1")], 50.0, **more)
        runs = sweep(convnet(3, 6), tasks, teacher=maps, objective=objective, seeds=2, **QUICK)
        return torch.stack([runs.module(unit=t.unit, seed=1)(t.test.x) for t in tasks])

    torch.testing.assert_close(taught(own, **options), taught(library), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("own", "error", "words"),
    [
        (lambda s, t: (s - t).square().mean((1, 2, 3)), TypeError, r"mean over the batch, got \(2"),
        (lambda s, t: 3.0, TypeError, "scalar tensor, the mean over the batch, got float"),
        (lambda s, t: None, TypeError, "got NoneType"),
        (lambda s, t: F.mse_loss(s.detach(), t), ValueError, "whose gradient reaches the student"),
    ],
)
def test_a_distance_of_ones_own_must_give_one_number(own, error, words, tasks, maps):
    objective = HiddenLoss(own, [("1", "1")], project=True)
    with pytest.raises(error, match=f"^HiddenLoss: distance must return a .*{words}"):
        sweep(convnet(3, 6), tasks, teacher=maps, objective=objective, **QUICK)


@pytest.mark.parametrize("own", [lambda s, t: (s - t).square().mean(), torch.dist])
def test_shapes_that_ones_own_distance_cannot_compare_are_offered_a_projector(own, tasks, maps):
    objective = HiddenLoss(own, [("1", "1")])
    with pytest.raises(ValueError, match=r"pair \('1', '1'\) does not fit.*project=True"):
        sweep(convnet(3, 6), tasks, teacher=maps, objective=objective, **QUICK)
