"""Lesson 06: the hook that reads a layer, FitNets' hint, and which images are alike."""

import torch
from torch import nn
from torch.nn import functional as F

from kdlab.lessons.exercises import Exercise, Question

# --- 06.1 layer_of ---


def layer_of(model, name, x):
    """What the layer called `name` gives while model(x) runs; the hook is taken off again."""
    kept = []
    hook = model.get_submodule(name).register_forward_hook(
        lambda module, inputs, output: kept.append(output)
    )
    try:
        model(x)
    finally:
        hook.remove()
    return kept[0]


class _Noting(nn.Sequential):
    """Counts its runs."""

    runs = 0

    def forward(self, x):
        self.runs += 1
        return super().forward(x)


def _layer(attempt):
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 3, 3, stride=2), nn.Tanh()
    model, x = _Noting(*layers), torch.rand(2, 1, 8, 8)
    at = {str(i): model[: i + 1](x) for i in range(4)}
    model.runs = 0
    found = attempt(model, "1", x)
    if any(module._forward_hooks for module in model.modules()):
        return "the hook is still there: every later run would call it; hook.remove()"
    if isinstance(found, (list, tuple, dict)):
        return f"expected the layer's output, a tensor, got a {type(found).__name__} around it"
    if not torch.is_tensor(found):
        return f"expected the layer's output, a tensor, got {type(found).__name__}"
    if not model.runs:
        return "the model was never run: it is model(x) that calls the hook"
    if found.shape == at["3"].shape and torch.equal(found, at["3"]):
        return "that is what the whole model answers; the layer called `name` is asked for"
    if torch.equal(found, at["0"]):
        return "that is what goes into the layer: a hook gets (module, inputs, output)"
    if torch.equal(found, at["1"]) and not found.requires_grad:
        return "cut off from the student: no gradient would flow back; leave out detach and no_grad"
    if not (found.shape == at["1"].shape and torch.equal(found, at["1"])):
        return "that is not what layer 1 gives: look it up by its name, model.get_submodule(name)"
    if not torch.equal(attempt(model, "2", x), at["2"]):
        return "right for layer 1 only: use the argument `name`"
    try:
        attempt(model, "1", torch.rand(2, 5, 8, 8))  # five channels: the model raises
    except RuntimeError:
        pass
    if any(module._forward_hooks for module in model.modules()):
        return "where model(x) raises, the hook stays: remove it in a `finally`"
    return ""


def _fault(value, right, student, slips):
    """What is wrong with a loss's value: no scalar, a known slip, another number, no gradient."""
    if not torch.is_tensor(value):
        return f"expected a scalar tensor, got {type(value).__name__}: without it nothing learns"
    if value.numel() != 1:
        return f"expected one number for the batch, got shape {tuple(value.shape)}"
    given = value.detach()
    for sentence, wrong in slips.items():
        if torch.isclose(given, wrong.detach(), rtol=1e-4):
            return sentence
    if not torch.isclose(given, right.detach(), rtol=1e-4):
        return f"expected {right.item():.5f}, got {given.item():.5f}"
    if not value.requires_grad:
        return "no gradient: the student learns nothing from it"
    if torch.autograd.grad(value, student, allow_unused=True)[0] is None:
        return "no gradient reaches the student: it is the teacher that would move"
    return ""


# --- 06.2 hint ---


def hint(student, teacher):
    """The mean squared difference of two layers of one shape, (B, …): a scalar."""
    return (student - teacher).square().mean()


def _two_layers(*shape):
    random = torch.Generator().manual_seed(0)
    teacher = torch.randn(*shape, generator=random).relu()
    student = torch.randn(*shape, generator=random).relu()
    return student.requires_grad_(), teacher.requires_grad_()


def _hint(attempt):
    student, teacher = _two_layers(4, 3, 2, 2)
    gap = (student - teacher).detach()
    slips = {
        "a sum: it grows with the batch and the layer; take the mean": gap.square().sum(),
        "summed over each image's layer: take the mean over everything": gap.square().sum()
        / len(gap),
        "half of it: the paper's ½, which this course leaves out": gap.square().mean() / 2,
        "absolute differences: square them": gap.abs().mean(),
        "a root too many": gap.square().mean().sqrt(),
        "nothing is squared: differences of both signs cancel": gap.mean(),
        "that is the squared mean: square first": gap.mean().square(),
        "the sign is turned: this would drive them apart": -gap.square().mean(),
        "each layer was brought to length 1: hints compare the values themselves": (
            F.normalize(student.flatten(1), dim=1) - F.normalize(teacher.flatten(1), dim=1)
        )
        .square()
        .mean(),
    }
    return _fault(attempt(student, teacher), hint(student, teacher), student, slips)


# --- 06.3 similarity ---


def similarity(student, teacher):
    """Mean squared difference of the two (B, B) pictures of which images are alike: a scalar."""

    def alike(layer):
        rows = layer.flatten(1)
        return F.normalize(rows @ rows.T, dim=1)

    return (alike(student) - alike(teacher)).square().mean()


def _grams(layer, normalised=True):
    rows = layer.detach().flatten(1)
    return F.normalize(rows @ rows.T, dim=1) if normalised else rows @ rows.T


def _similarity(attempt):
    student, _ = _two_layers(6, 3, 2, 2)
    _, teacher = _two_layers(6, 5, 4, 4)

    def unit(layer):
        rows = F.normalize(layer.detach().flatten(1), dim=1)
        return rows @ rows.T

    gap = _grams(student) - _grams(teacher)
    slips = {
        "a sum over all pairs: divide by B², take the mean": gap.square().sum(),
        "a sum over each row: take the mean over all B² pairs": gap.square().sum(-1).mean(),
        "the rows of the matrix are not of length 1, so the larger layer decides": (
            _grams(student, False) - _grams(teacher, False)
        )
        .square()
        .mean(),
        "the images were brought to length 1 before the product (cosines); it is the rows of "
        "the product that are": (unit(student) - unit(teacher)).square().mean(),
        "the rows add up to 1 (softmax or a sum) instead of having length 1": (
            _grams(student, False).softmax(-1) - _grams(teacher, False).softmax(-1)
        )
        .square()
        .mean(),
        "absolute differences: square them": gap.abs().mean(),
        "a root too many": gap.square().mean().sqrt(),
        "nothing is squared: differences of both signs cancel": gap.mean(),
        "the sign is turned: this would drive them apart": -gap.square().mean(),
    }
    return _fault(attempt(student, teacher), similarity(student, teacher), student, slips)


# --- wrong answers, for the tests ---


def _kept(change=lambda found: found, removed=True, of=1, run=True):
    """A hook with one thing wrong."""

    def attempt(model, name, x):
        kept = []
        hook = model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output: kept.append((inputs[0], output)[of])
        )
        if run:
            model(x)
        if removed:
            hook.remove()
        return change(kept)

    return attempt


def _unrun(model, name, x):
    return model.get_submodule(name)(x.repeat(1, 2, 1, 1))


def _mean(change):
    return lambda s, t: change(s - t)


EXERCISES = (
    Exercise(
        "06.1",
        _layer,
        (
            "layer = model.get_submodule(name); hook = layer.register_forward_hook(f), where "
            "f(module, inputs, output) keeps the output.",
            "Run model(x) inside try, and hook.remove() inside finally; then give the output back.",
        ),
        layer_of,
        {
            "still there": _kept(lambda kept: kept[0], removed=False),
            "around it": _kept(),
            "never run": _unrun,
            "whole model": lambda model, name, x: model(x),
            "goes into": _kept(lambda kept: kept[0], of=0),
            "cut off": _kept(lambda kept: kept[0].detach()),
            "not what layer 1 gives": lambda model, name, x: layer_of(model, "2", x),
            "layer 1 only": lambda model, name, x: layer_of(model, "1", x),
            "finally": _kept(lambda kept: kept[0]),
            "got str": lambda model, name, x: name,
        },
    ),
    Exercise(
        "06.2",
        _hint,
        ("The difference, squared, and its mean.", "(student - teacher).square().mean()"),
        hint,
        {
            "grows with the batch": _mean(lambda gap: gap.square().sum()),
            "each image's layer": _mean(lambda gap: gap.square().flatten(1).sum(1).mean()),
            "half of it": _mean(lambda gap: gap.square().mean() / 2),
            "absolute": _mean(lambda gap: gap.abs().mean()),
            "root": _mean(lambda gap: gap.square().mean().sqrt()),
            "nothing is squared": _mean(lambda gap: gap.mean()),
            "square first": _mean(lambda gap: gap.mean().square()),
            "sign": _mean(lambda gap: -gap.square().mean()),
            "length 1": lambda s, t: hint(
                F.normalize(s.flatten(1), dim=1), F.normalize(t.flatten(1), dim=1)
            ),
            "no gradient": lambda s, t: hint(s.detach(), t.detach()),
            "the teacher that would move": lambda s, t: hint(s.detach(), t),
            "one number": _mean(lambda gap: gap.square().flatten(1).mean(1)),
            "got float": lambda s, t: hint(s, t).item(),
        },
    ),
    Exercise(
        "06.3",
        _similarity,
        (
            "Flatten each image's layer to a row, (B, D); rows @ rows.T compares every two images.",
            "F.normalize(…, dim=1) gives each row of that matrix length 1. Do it for both layers; "
            "then the mean of the squared differences.",
        ),
        similarity,
        {
            "divide by B²": lambda s, t: 36 * similarity(s, t),
            "each row": lambda s, t: 6 * similarity(s, t),
            "larger layer decides": lambda s, t: (
                (s.flatten(1) @ s.flatten(1).T - t.flatten(1) @ t.flatten(1).T).square().mean()
            ),
            "cosines": lambda s, t: (
                (
                    F.normalize(s.flatten(1), dim=1) @ F.normalize(s.flatten(1), dim=1).T
                    - F.normalize(t.flatten(1), dim=1) @ F.normalize(t.flatten(1), dim=1).T
                )
                .square()
                .mean()
            ),
            "add up to 1": lambda s, t: (
                (
                    (s.flatten(1) @ s.flatten(1).T).softmax(-1)
                    - (t.flatten(1) @ t.flatten(1).T).softmax(-1)
                )
                .square()
                .mean()
            ),
            "root": lambda s, t: similarity(s, t).sqrt(),
            "sign": lambda s, t: -similarity(s, t),
            "no gradient": lambda s, t: similarity(s.detach(), t),
            "got float": lambda s, t: similarity(s, t).item(),
            "one number": lambda s, t: (_grams(s) - _grams(t)).square().mean(-1),
        },
    ),
)

QUESTIONS = {
    "06.a": Question(
        "A hundred images. Besides the labels the student may copy one thing of its teacher's. "
        "Which helps most?",
        (
            "the logits",
            "the values of a hidden layer",
            "where a hidden layer is active",
            "which images it finds alike",
        ),
        0,
        "Ten logits an image, and they are all about the answer. Why more numbers teach "
        "less, the lesson asks further down.",
    ),
    "06.b": Question(
        "Layer 3 of the teacher and the plain pixels of the same images: how alike are they by "
        "CKA, on a scale from 0 to 1?",
        ("about 0.1", "about 0.5", "about 0.9"),
        2,
        "The layer is computed from the pixels, and much of what makes two images alike is the "
        "same in both. A measure of likeness needs such a floor beside it.",
    ),
}
