"""What a teacher gives: its logits, without leaving a trace on it; and the control that breaks them."""

import pytest
import torch
from scipy import stats
from torch import nn

from kdlab import entropy, shuffle_wrong_classes, signals
from kdlab.models import Dropout


def teacher():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), Dropout(0.5), nn.ReLU(), nn.Linear(8, 3))


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
    assert [module.training for module in model.modules()] == modes and True in modes and False in modes
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


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


@pytest.mark.parametrize("labels, words", [
    (torch.zeros(3, dtype=torch.long), r"labels must have shape \(5,\), got \(3,\)"),
    (torch.full((5,), -100), r"labels must lie in \[0, 4\), got -100"),
    (torch.full((5,), 4), r"labels must lie in \[0, 4\), got 4"),
])
def test_bad_labels_are_named(labels, words):
    with pytest.raises(ValueError, match=f"^shuffle_wrong_classes: {words}"):
        shuffle_wrong_classes(torch.zeros(5, 4), labels)
