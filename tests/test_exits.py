"""A network that teaches its own exits, against a hand-written loop; exits as models of their own; `Runs.map`."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from plain_loop import batches, blend, built, layers, own_dropout, step
from torch import nn

from kdlab import DeepToShallow, Runs, convnet, mlp, splits, train, with_exits
from kdlab.exits import Exits

SMALL = {"sizes": (50, 40, 40)}  # batches of 16 leave a last one of 2
QUICK = {"epochs": 3, "batch": 16, "lr": 1e-2, "schedule": "constant"}
DEEP = with_exits(convnet(3, 4, dropout=0.4), "1", "3")


@pytest.fixture(scope="module")
def tasks():
    return splits("digits", 2, **SMALL)


@pytest.fixture(scope="module")
def runs(tasks):
    return train(DEEP, tasks, objective=DeepToShallow(3.0, 0.6), seeds=[4, 9], **QUICK)


def quarters(layer):
    """The means of the four quarters of each map, (B, C, h, w) → (B, 4C); vectors as they are."""
    if layer.ndim == 2:
        return layer
    h, w = (n // 2 for n in layer.shape[2:])
    parts = [layer[:, :, i * h:(i + 1) * h, j * w:(j + 1) * w].mean((2, 3)) for i in (0, 1) for j in (0, 1)]
    return torch.stack(parts, -1).flatten(1)


def by_hand(student, task, seed, T, alpha):
    """The network trained with its exits, each a layer (a map's quarters averaged) and a linear map; T None: labels."""
    model = built(student, task, seed)
    body, heads = own_dropout(model.body, seed).train(), [head[-1] for head in model.heads]
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for rows in batches(50, seed):
        x, y = task.train.x[rows], task.train.y[rows]
        logits, found = layers(body, x)
        exits = [head(quarters(found[k])) for k, head in zip(model.layers, heads, strict=True)]
        if T is None:
            loss = sum(F.cross_entropy(z, y) for z in [logits, *exits])
        else:
            loss = F.cross_entropy(logits, y) + sum(blend(z, logits.detach(), y, T, alpha) for z in exits)
        step(optimiser, loss)
    return model


def same_weights(model, reference):
    torch.testing.assert_close(model.state_dict(), reference.state_dict(), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("student", [DEEP, with_exits(mlp(12, 8, dropout=0.4), "3")], ids=lambda b: b.__name__)
@pytest.mark.parametrize("T, alpha", [(3.0, 0.6), (1.0, 1.0), (None, 0.0)])
def test_the_deepest_classifier_teaches_the_exits(student, T, alpha, tasks):
    runs = train(student, tasks, objective=DeepToShallow(T or 3.0, alpha), seeds=[4, 9], **QUICK)
    for task, seed in itertools.product(tasks, [4, 9]):
        reference = by_hand(student, task, seed, T, alpha)
        run = runs.where(unit=task.unit, seed=seed)
        same_weights(run.module(), reference)
        with torch.no_grad():
            right = reference.eval().body(task.validation.x).argmax(-1) == task.validation.y
        assert run.frame["accuracy"].item() == pytest.approx(right.double().mean().item(), abs=1e-6)
        assert run.frame[["temperature", "alpha"]].values.tolist() == [[T or 3.0, alpha]]


def test_no_gradient_flows_from_an_exit_into_its_teacher():
    deep, near, far = (torch.randn(2, 3, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(3))
    y, T = torch.tensor([2, 0]), 2.0
    terms = DeepToShallow(T, 1.0).rows((deep, [near, far]), None, y)
    grads = torch.autograd.grad(terms["loss"].sum(), (deep, near, far))
    torch.testing.assert_close(grads[0], deep.softmax(-1) - F.one_hot(y, 3))  # of the cross-entropy alone
    for z, grad in ((near, grads[1]), (far, grads[2])):
        torch.testing.assert_close(grad, T * ((z / T).softmax(-1) - (deep / T).softmax(-1)))
    torch.testing.assert_close(terms["hard"], F.cross_entropy(deep, y, reduction="none"))


class Refuses(nn.Module):
    def forward(self, x):
        raise AssertionError("a later layer runs")


def test_an_exit_is_a_model_of_its_own(runs, tasks):
    model, x = runs.module(unit="digits/0", seed=4), tasks[0].validation.x
    with torch.no_grad():
        expected, found = layers(model.body, x)
        for i, (name, logits) in enumerate(zip(["1", "3"], model.all(x)[:2], strict=True)):
            torch.testing.assert_close(logits, model.heads[i][-1](quarters(found[name])))
            shallow = model.shallow(i)
            torch.testing.assert_close(shallow(x), logits)
            until = int(name) + 1
            assert len(shallow) == until + 1
        torch.testing.assert_close(model.all(x)[2], expected)
        torch.testing.assert_close(model(x), expected)
        body = nn.Sequential(*model.body[:2], *[Refuses() for _ in model.body[2:]])
        model.body = body
        assert model.shallow(0)(x).shape == (40, 10)
        with pytest.raises(AssertionError, match="a later layer runs"):
            model.shallow(1)(x)


def test_in_training_it_gives_all_its_logits():
    model = with_exits(mlp(6, 5), "2", "4")(splits("digits", 1, **SMALL)[0])
    assert model.training and model.body.training
    logits, exits = model(torch.zeros(7, 1, 8, 8))
    assert [tuple(z.shape) for z in (logits, *exits)] == [(7, 10)] * 3
    assert [tuple(head[1].weight.shape) for head in model.heads] == [(10, 6), (10, 5)]


def test_runs_of_exits_are_kept_and_can_be_cut_short(runs, tasks, tmp_path):
    again = Runs.load(runs.save(tmp_path / "kept"), [DEEP], tasks)
    assert len(again) == 4
    for run in range(4):
        a, b = again.module(run=run), runs.module(run=run)
        assert isinstance(a, Exits)
        torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=0, atol=0)
    shallow = again.map(lambda model: model.shallow(0))
    assert len(shallow) == 4 and repr(shallow) == repr(runs)
    expected = {}
    for run, unit in zip(runs.frame["run"], runs.frame["unit"], strict=True):
        data = tasks[int(unit[-1])].test
        with torch.no_grad():
            logits = runs.module(run=run).all(data.x)[0]
        torch.testing.assert_close(shallow.module(run=run)(data.x), logits)
        assert not any(m.training for m in shallow.module(run=run).modules())
        expected[run] = (logits.argmax(1) == data.clean).double().mean().item()
    values = shallow.values(on="test").set_index("run")["value"]
    assert values.to_dict() == pytest.approx(expected, abs=1e-6)
    assert values.to_dict() != pytest.approx(runs.values(on="test").set_index("run")["value"].to_dict(), abs=1e-6)


@pytest.mark.parametrize("metric", ["accuracy", "nll", "ece", "agreement"])
def test_changed_students_have_forgotten_their_metrics(metric, runs):
    before = runs.frame.copy()
    changed = runs.map(lambda model: model.shallow(1))
    with pytest.raises(ValueError, match=f"metric '{metric}' was not recorded; expected one of ") as caught:
        changed.values(metric)
    assert "'lr'" in str(caught.value) and f"'{metric}'" not in str(caught.value).split("expected one of")[1]
    assert runs.frame.equals(before) and runs.values("accuracy")["value"].notna().all()
    right = changed.values(lambda logits, data: (logits.argmax(1) == data.y).double().mean())["value"]
    assert right.between(0, 1).all()  # a function of the logits reads them afresh


@pytest.mark.parametrize("builder, words", [
    (with_exits(convnet(3), "9"), r"layers \['9'\] must be parts of an nn.Sequential, got Sequential with .*'0', '1'"),
    (with_exits(lambda task: nn.Sequential(nn.Sequential(nn.Flatten(1), nn.Linear(64, 10))), "0.1"), r"\['0.1'\]"),
    (with_exits(lambda task: nn.Linear(64, 10), "weight"), r"layers \['weight'\] must be .* got Linear")])
def test_an_exit_stands_on_a_part_of_the_network(builder, words, tasks):
    builder.__name__ = "a network with exits"
    with pytest.raises(ValueError, match=f"^with_exits: .*{words}"):
        train(builder, tasks, objective=DeepToShallow(), **QUICK)


def test_a_network_without_exits_is_told(tasks):
    with pytest.raises(TypeError, match="^sweep: objective for .* must be other than DeepToShallow, got Deep"):
        train(mlp(4), tasks, objective=DeepToShallow(), **QUICK)


@pytest.mark.parametrize("arguments", [{"temperature": 0}, {"alpha": 1.5}, {"alpha": -0.1}])
def test_out_of_range_is_refused(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must "):
        DeepToShallow(**arguments)


def test_exits_on_another_loss_are_refused(tasks):
    with pytest.raises(TypeError, match="^sweep: objective for convnet 3-4 .* must be DeepToShallow, got HardLabels"):
        train(DEEP, tasks, **QUICK)
