"""What a teacher gives: logits and layers, without a trace on it; several as one; the control that
breaks them."""

import copy

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import nn

from kdlab import each, ensemble, entropy, mlp, shuffle_wrong_classes, splits, train
from kdlab.students.builders import Dropout
from kdlab.teachers import outputs as signals


def teacher():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), Dropout(0.5), nn.ReLU(), nn.Linear(8, 3)
    )


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_logits_are_the_forward_pass_in_eval_mode(batch):
    model, x = teacher(), torch.randn(20, 4)
    w1, b1, gain, bias, w2, b2 = model.parameters()  # fresh batch norm: mean 0, variance 1
    hidden = ((x @ w1.T + b1) / (1 + model[1].eps) ** 0.5 * gain + bias).clamp_min(0)
    z = signals.logits(model, x, batch=batch)
    torch.testing.assert_close(z, (hidden @ w2.T + b2).detach())
    assert not z.requires_grad


@pytest.mark.parametrize("fails", [False, True])
def test_the_teacher_is_left_as_it_was(fails):
    model = teacher().train()
    model[1].eval()  # a layer that its owner put in eval mode stays there
    modes = [module.training for module in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    if fails:
        with pytest.raises(RuntimeError):
            signals.logits(model, torch.zeros(5, 99))
    else:
        signals.logits(model, torch.randn(20, 4))
    assert (
        [module.training for module in model.modules()] == modes
        and True in modes
        and False in modes
    )
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("batch", [1, 7, 100])
@pytest.mark.parametrize("names", [["3", "1"], ["4"], []])
def test_hidden_layers_are_those_of_the_forward_pass_in_eval_mode(batch, names):
    model, x = teacher().train(), torch.randn(20, 4)
    plain, expected = copy.deepcopy(model).eval(), {}
    for name in names:
        plain[int(name)].register_forward_hook(
            lambda m, args, out, name=name: expected.update({name: out.detach()})
        )
    expected["logits"] = plain(x).detach()
    found = signals.hidden(model, x, names, batch=batch)
    assert list(found) == ["logits", *names] and not any(z.requires_grad for z in found.values())
    for name in found:
        torch.testing.assert_close(found[name], expected[name])
    assert all(m.training and not m._forward_hooks for m in model.modules())


@pytest.mark.parametrize(
    "names, x, error",
    [(["9"], torch.zeros(5, 4), ValueError), (["1"], torch.zeros(5, 99), RuntimeError)],
)
def test_a_failing_pass_leaves_no_hook_and_no_mode(names, x, error):
    model = teacher().train()
    model[1].eval()
    with pytest.raises(error):
        signals.hidden(model, x, names)
    assert [m.training for m in model.modules()] == [True, True, False, True, True, True]
    assert not any(m._forward_hooks for m in model.modules())


def test_each_student_answers_to_its_own_split_in_the_order_of_the_seeds():
    tasks = splits("digits", 2, labels_per_class=2, sizes=(50, 40, 40))
    runs = train(mlp(4), tasks, seeds=[9, 2, 5], epochs=1)
    for on, rows in (("train", 20), ("transfer", 50), ("validation", 40)):
        found = each(runs, tasks[::-1], on)
        assert [tuple(z.shape) for z in found] == [(3, rows, 10)] * 2
        for z, task in zip(found, tasks[::-1], strict=True):
            for i, seed in enumerate([2, 5, 9]):
                with torch.no_grad():
                    answer = runs.module(unit=task.unit, seed=seed)(getattr(task, on).x)
                torch.testing.assert_close(z[i], answer)
    torch.testing.assert_close(each(runs, tasks), each(runs, tasks, "train"), rtol=0, atol=0)


def test_students_of_several_cells_or_of_another_split_are_refused():
    task, other = splits("digits", 2, sizes=(50, 40, 40))
    runs = train(mlp(4), task, lr=[1e-2, 1e-3], epochs=1)
    with pytest.raises(ValueError, match="must name one run, got 2"):
        each(runs, [task])
    with pytest.raises(ValueError, match="where: no run has .*digits/1"):
        each(runs.where(lr=1e-2), [other])


def votes(teachers=3):
    return 3 * torch.randn(
        teachers, 2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )


@pytest.mark.parametrize("T", [1.0, 4.0])
def test_an_ensemble_of_probabilities_is_their_softened_mean(T):
    z = votes()
    found, mean = ensemble(z, temperature=T), special.softmax(z.numpy() / T, -1).mean(0)
    np.testing.assert_allclose(found, T * np.log(mean), rtol=1e-12)
    np.testing.assert_allclose(special.softmax(found.numpy() / T, -1), mean, rtol=1e-12)


@pytest.mark.parametrize("T", [1.0, 4.0])
def test_an_ensemble_of_logits_is_the_geometric_mean_at_every_temperature(T):
    z = votes()
    product = stats.gmean(special.softmax(z.numpy() / T, -1), axis=0)
    expected = product / product.sum(-1, keepdims=True)
    np.testing.assert_allclose(
        special.softmax(ensemble(z, of="logits").numpy() / T, -1), expected, rtol=1e-12
    )


@pytest.mark.parametrize("of", ["probabilities", "logits"])
@pytest.mark.parametrize("T", [1.0, 4.0])
def test_one_teacher_alone_is_itself_up_to_a_shift(of, T):
    z = votes(1)
    gap = ensemble(z, of, T) - z[0]
    torch.testing.assert_close(gap, gap[..., :1].expand_as(gap))


def test_a_class_is_out_where_all_rule_it_out():
    z = torch.tensor([[0.0, -torch.inf, -torch.inf], [0.0, 0.0, -torch.inf]])
    np.testing.assert_allclose(ensemble(z).exp(), [0.75, 0.25, 0.0], atol=1e-7)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (([[1.0, 2.0]],), r"teacher_logits must be a tensor of numbers \(K, …, C\), got list"),
        ((torch.zeros(3),), r"teacher_logits must have the shape \(K, …, C\), got \(3,\)"),
        (
            (torch.zeros(2, 3), "votes"),
            r"of must be one of \['probabilities', 'logits'\], got 'votes'",
        ),
        ((torch.zeros(2, 3), "probabilities", 0.0), "temperature must be above 0"),
    ],
)
def test_what_is_no_ensemble_is_refused(arguments, words):
    with pytest.raises((TypeError, ValueError), match=f"^ensemble: {words}"):
        ensemble(*arguments)


def rows(n=3000, classes=6):
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, classes, generator=g), torch.randint(classes, (n,), generator=g)


def test_shuffling_keeps_the_label_and_the_set_of_values():
    z, y = rows()
    shuffled = shuffle_wrong_classes(z, y)
    at = torch.arange(len(y))
    assert torch.equal(shuffled[at, y], z[at, y])
    assert torch.equal(shuffled.sort(-1).values, z.sort(-1).values)
    for T in (1, 4):
        torch.testing.assert_close(entropy(shuffled, T), entropy(z, T))


def test_shuffling_sends_each_wrong_class_anywhere_alike():
    y = torch.zeros(6000, dtype=torch.long)
    z = torch.arange(6.0).expand(6000, 6)  # always the same runner-up: class 5
    shuffled = shuffle_wrong_classes(z, y)
    for value in (1, 3, 5):
        places = (shuffled == value).long().argmax(-1).bincount(minlength=6)[1:]
        assert stats.chisquare(places.numpy()).pvalue > 1e-4
    assert torch.equal(z, torch.arange(6.0).expand(6000, 6))  # the input is untouched


def test_shuffling_is_fixed_by_its_seed():
    z, y = rows()
    assert torch.equal(shuffle_wrong_classes(z, y, seed=3), shuffle_wrong_classes(z, y, seed=3))
    assert not torch.equal(shuffle_wrong_classes(z, y, seed=3), shuffle_wrong_classes(z, y, seed=4))


@pytest.mark.parametrize(
    "labels, words",
    [
        (
            torch.zeros(3, dtype=torch.long),
            r"labels must have the shape \(5,\), a label a row .*, got \(3,\)",
        ),
        (
            torch.full((5,), -100),
            r"labels must lie in \[0, 4\), the classes of teacher_logits, got -100",
        ),
        (torch.full((5,), 4), r"labels must lie in \[0, 4\), the classes of teacher_logits, got 4"),
    ],
)
def test_bad_labels_are_named(labels, words):
    with pytest.raises(ValueError, match=f"^shuffle_wrong_classes: {words}"):
        shuffle_wrong_classes(torch.zeros(5, 4), labels)


def test_one_task_is_a_list_of_one():
    task = splits("digits", 1, labels_per_class=2, sizes=(50, 40, 40))[0]
    runs = train(mlp(4), task, epochs=1)
    with torch.no_grad():
        expected = runs.module()(task.test.x)
    torch.testing.assert_close(each(runs, task, "test")[0][0], expected)


@pytest.mark.parametrize("z", [torch.zeros(0, 3, 4), torch.zeros(2, 3, dtype=torch.long)])
def test_an_ensemble_needs_a_teacher_and_its_floats(z):
    with pytest.raises(
        ValueError, match="^ensemble: teacher_logits must hold floats of one teacher or more"
    ):
        ensemble(z)


@pytest.mark.parametrize(
    "labels", [torch.full((5,), 0.5), torch.ones(5, dtype=torch.bool), [0] * 5]
)
def test_labels_that_are_no_whole_numbers_are_named(labels):
    with pytest.raises(TypeError, match="^shuffle_wrong_classes: labels must be"):
        shuffle_wrong_classes(torch.zeros(5, 4), labels)


def test_a_seed_of_numpy_is_a_seed():
    z, y = rows()
    assert torch.equal(shuffle_wrong_classes(z, y, np.int64(3)), shuffle_wrong_classes(z, y, 3))
