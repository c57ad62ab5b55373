"""Explorers of what a teacher says: its softened answers, and two peaks for a student that has one."""

import math
from functools import partial

import torch

from . import divergences, metrics, signals
from .distill import train
from .models import convnet, mlp
from .panel import Explorer, choice, entry, large, slider
from .plots import COLOURS, Picture
from .tasks import load

TEMPERATURES = [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0]


def read_logits(name, text):
    """The numbers of a typed line, (C,); ValueError that says what is wrong with it.

    >>> read_logits("teacher", "3, 1.5  -2")
    tensor([ 3.0000,  1.5000, -2.0000])
    """
    try:
        found = [float(part) for part in text.replace(",", " ").replace(";", " ").replace("−", "-").split()]
    except ValueError as error:
        raise ValueError(f"{name}: {text!r} must be numbers between commas, as in 3, 1, 0; {error}") from None
    if not 2 <= len(found) <= 20 or not all(map(math.isfinite, found)) or max(map(abs, found)) > 1e4:
        raise ValueError(f"{name}: {text!r} must be 2 to 20 numbers within ±10,000, one a class")
    return torch.tensor(found)


def temperature_explorer(task=None, teacher=None, student=None):
    """Three softmaxes beside each other: teacher at T, student at T, student at 1 against the label → `Explorer`.

    Of typed logits, or of a task's validation images; entropies in nats. teacher, student: trained modules for the
    images of `task`; where they are missing, small ones are trained on the digits (some seconds).
    Raises ValueError where one has diverged: its answers hold NaN.

    >>> temperature_explorer().move(source="typed logits", T=1.0).answer["lines"][0]  # doctest: +ELLIPSIS
    'Teacher: entropy ... nats at T = 1...'
    """
    task = load("digits", sizes=(1000, 437, 360)) if task is None else task
    if teacher is None:
        teacher = train(convnet(16, 32, dropout=0.5), task, epochs=12, batch=64).module()
    if student is None:
        student = train(mlp(16), task, epochs=20, batch=64).module()
    data, names = task.validation, task.classes
    rows = [int(r) for c in range(len(names)) for r in (data.y == c).nonzero()[:4, 0]]  # four of each class, in order
    answers = [signals.logits(model, data.x[rows]).float().cpu() for model in (teacher, student)]
    for key, answer in zip(("teacher", "student"), answers, strict=True):
        if not metrics.sound(answer):
            raise ValueError(f"temperature_explorer: {key} must give finite logits, got NaN or "
                             "+inf: it diverged; train it with a lower lr or clip=1.0")
    images, labels = data.x[rows].cpu(), data.y[rows].tolist()
    shown = [f"{names[y]}, number {i % 4 + 1}" for i, y in enumerate(labels)]

    def draw(source, image, T, typed, typed_student, scale):
        if source == "an image":
            z, s, label, classes = answers[0][image], answers[1][image], labels[image], names
        else:
            z, s = read_logits("teacher's logits", typed), read_logits("student's logits", typed_student)
            label, classes = 0, [chr(97 + c) for c in range(len(z))]
            if len(z) != len(s):
                raise ValueError(f"teacher and student must have one class each, got {len(z)} and {len(s)} logits")
        picture = images[image] if source == "an image" else None
        return _three_softmaxes(z, s, label, classes, T, scale, picture)

    return Explorer("Temperature: what the softmax does to an answer", [
        choice("source", "Logits from", ["an image", "typed logits"]),
        slider("T", "Temperature T", TEMPERATURES, 4.0),
        slider("image", "Image", range(len(rows)), min(17, len(rows) - 1), shown),
        choice("scale", "Axis", ["linear", "logarithmic"]),
        entry("typed", "Teacher's logits", "4, 2, 1, -1, -2"),
        entry("typed_student", "Student's logits", "2, 2, 0, 0, -1")], draw)


def _three_softmaxes(z, s, label, classes, T, scale, image):
    p, q, q1 = (divergences.log_softmax(v, t).exp() for v, t in ((z, T), (s, T), (s, 1.0)))
    figure, context = large(13, 5)
    with context:
        widths = [1, 1, 1] if image is None else [0.55, 1, 1, 1]
        grid = list(figure.subplots(1, len(widths), width_ratios=widths))
        if image is not None:
            ax = grid.pop(0)
            ax.imshow(image.permute(1, 2, 0).squeeze(-1).clamp(0, 1).numpy(), cmap="gray_r", vmin=0, vmax=1)
            ax.set_title(f"label: {classes[label]}")
            ax.axis("off")
        titles = f"teacher at T = {T:g}", f"student at T = {T:g}", "student at T = 1, label"
        for ax, title, share, colour in zip(grid, titles, (p, q, q1), [COLOURS[i] for i in (1, 0, 0)],
                                            strict=True):
            ax.bar(range(len(classes)), share.tolist(), color=colour)
            ax.set_xticks(range(len(classes)), classes)
            ax.set_title(title)
            ax.set_xlabel("class")
            ax.set_yscale("log" if scale == "logarithmic" else "linear")
            ax.set_ylim(*((1e-6, 1.5) if scale == "logarithmic" else (0, 1.05)))
        grid[2].bar([label], [1.0], fill=False, edgecolor="black", linewidth=2, linestyle="--")
        grid[0].set_ylabel("probability")
        for ax in grid[1:]:
            ax.tick_params(labelleft=False)
    kl, cross = float(divergences.forward_kl(s, z, T)), -float(divergences.log_softmax(s)[label])
    order = p.argsort(descending=True)[:4].tolist()
    h = [float(metrics.entropy(v, t)) for v, t in ((z, 1.0), (z, T), (s, T), (s, 1.0))]
    lines = [f"Teacher: entropy {h[0]:.3f} nats at T = 1, {h[1]:.3f} at T = {T:g} (uniform: {math.log(len(z)):.3f}).",
             f"Student: entropy {h[3]:.3f} nats at T = 1, {h[2]:.3f} at T = {T:g}.",
             f"Teacher at T = {T:g}: " + ", ".join(f"{classes[c]} {100 * p[c]:.2f} %" for c in order) + ".",
             f"Soft loss: KL = {kl:.4f} nats, times T² = {kl * T * T:.4f}. "
             f"Hard loss: cross-entropy = {cross:.4f} nats."]
    return Picture(figure, "The soft loss compares the first two, both at T; the hard loss compares the third, at 1, "
                   "with the label (dashed).", f"Three bar charts of probabilities over {len(z)} classes, with "
                   f"{scale} axis: teacher at T = {T:g}, student at T = {T:g}, student at T = 1 with the label's bar "
                   f"of height 1 over class {classes[label]}. The numbers follow as text."), lines


X = torch.linspace(-6, 6, 121)
STARTS = {"best of ten": (torch.linspace(-4, 4, 5).tolist(), [0.5, 3.0]), "broad, in the middle": ([0.0], [3.0]),
          "narrow, on the left": ([-3.0], [0.5]), "narrow, on the right": ([3.0], [0.5])}


def fit_bell(teacher_logits, divergence, start="best of ten", steps=200):
    """The one-peaked student that a divergence ends in: Adam from each start, the best kept → (middle, width).

    teacher_logits: (121,) over X, −6 to 6; divergence: of (student_logits, teacher_logits), with reduction="rows".

    >>> middle, width = fit_bell(-(X - 1) ** 2 / 2, divergences.forward_kl)
    >>> round(middle, 1), round(width, 1)
    (1.0, 1.0)
    """
    place = torch.cartesian_prod(*map(torch.tensor, STARTS[start])).reshape(-1, 2)
    middle, log_width = place[:, :1].clone().requires_grad_(), place[:, 1:].log().requires_grad_()
    optimiser, target = torch.optim.Adam([middle, log_width], lr=0.08), teacher_logits.expand(len(place), -1)
    for _ in range(steps):
        loss = divergence(_bell(middle, log_width.exp()), target, reduction="rows")
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
    best = int(loss.argmin())
    return float(middle[best].detach()), float(log_width[best].detach().exp())


def _bell(middle, width):
    return -(X - middle) ** 2 / (2 * width ** 2)


def peaks_explorer():
    """A teacher with two peaks and a student with one, fitted anew under four divergences → `Explorer`.

    >>> len(peaks_explorer().answer["lines"])
    4
    """

    def draw(distance, share, beta, skew, start):
        teacher = torch.logaddexp(math.log(share) - (X + distance / 2) ** 2 / 0.6,
                                  math.log(1 - share) - (X - distance / 2) ** 2 / 0.6)
        kinds = {"forward KL": divergences.forward_kl, "reverse KL": divergences.reverse_kl,
                 f"JSD, β = {beta:g}": partial(divergences.jsd, beta=beta),
                 f"skewed KL, {skew:g}": partial(divergences.skew_forward_kl, skew=skew)}
        p, lines = teacher.softmax(0), []
        top = float(p.max())
        figure, context = large(13, 4.6)
        with context:
            for i, (ax, (name, divergence)) in enumerate(zip(figure.subplots(1, 4, sharey=True), kinds.items(),
                                                             strict=True)):
                middle, width = fit_bell(teacher, divergence, start)
                q = _bell(middle, width).softmax(0)
                ax.fill_between(X.tolist(), p.tolist(), color="lightgrey", label="teacher")
                ax.plot(X.tolist(), q.tolist(), color=COLOURS[0], linewidth=3, label="student")
                top = max(top, float(q.max()))
                ax.set_title(name)
                ax.set_xlabel("word, in order")
                found = q[X < 0].sum(), q[p < 0.1 * p.max()].sum()
                lines.append(f"{name}: middle {_zero(middle, 1)}, width {width:.1f}; {100 * found[0]:.0f} % in the "
                             f"left half, {100 * found[1]:.0f} % on words that the teacher hardly says.")
                if i == 0:
                    ax.set_ylabel("probability")
                    ax.legend(loc="upper left")
            ax.set_ylim(0, 1.05 * top)
        return Picture(figure, f"One student for each divergence, fitted from: {start}. Hardly: below a tenth of the "
                       "teacher's top.", f"Four panels with the teacher's two grey peaks, {distance:g} apart, the left "
                       f"one with {100 * share:.0f} % of the mass, and over them one bell: the student under "
                       f"{', '.join(kinds)}. Where it stands follows as text."), lines

    shares = [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7]
    return Explorer("Two peaks, one student", [
        slider("distance", "Distance of the peaks", [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0], 5.0),
        slider("share", "Left peak's share", shares, 0.4, [f"{100 * s:.0f} %" for s in shares]),
        slider("beta", "β of the JSD", [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99], 0.5),
        slider("skew", "Skew", [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9], 0.1),
        choice("start", "Student starts", list(STARTS))], draw)


def _zero(x, digits):
    return f"{round(x, digits) + 0.0:.{digits}f}"  # + 0.0 turns −0.0 into 0.0
