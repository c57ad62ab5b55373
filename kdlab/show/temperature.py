"""What temperature does to one image's answer, with handles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kdlab.base.arguments import instance
from kdlab.data.tasks import Task, load
from kdlab.evidence import metrics
from kdlab.losses import divergences
from kdlab.show.colours import INK, MUTED
from kdlab.show.explorer import HEIGHT, TEXT, Explorer, choice, entry, on_stage, slider
from kdlab.show.plots import Picture
from kdlab.show.sheet import BOLD, ROLES, WIDTH, panel, sheet
from kdlab.show.sheet import image as sharp
from kdlab.students.builders import convnet, mlp
from kdlab.teachers import outputs
from kdlab.training.sweep import train

TOP = 72  # of the panels, in pixels of the sheet
TEMPERATURES = [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0]


def read_logits(name, text):
    """The numbers of a typed line, (C,); ValueError that says what is wrong with it.

    >>> read_logits("teacher", "3, 1.5  -2")
    tensor([ 3.0000,  1.5000, -2.0000])
    """
    try:
        found = [
            float(part)
            for part in text.replace(",", " ").replace(";", " ").replace("−", "-").split()
        ]
    except ValueError as error:
        raise ValueError(
            f"{name}: {text!r} must be numbers between commas, as in 3, 1, 0; {error}"
        ) from None
    if (
        not 2 <= len(found) <= 20
        or not all(map(math.isfinite, found))
        or max(map(abs, found)) > 1e4
    ):
        raise ValueError(f"{name}: {text!r} must be 2 to 20 numbers within ±10,000, one a class")
    return torch.tensor(found)


def temperature_explorer(task: Any = None, teacher: Any = None, student: Any = None) -> Explorer:
    """Three softmaxes: teacher and student at T, student at 1 and the label → `Explorer`.

    Of typed logits, or of a task's validation images; entropies in nats. teacher, student: trained
    modules for the images of `task`; where they are missing, small ones are trained on the digits
    (some seconds). Raises ValueError where one has diverged: its answers hold NaN.

    >>> explorer = temperature_explorer().move(source="typed logits", T=1.0)
    >>> explorer.answer["lines"][0]  # doctest: +ELLIPSIS
    'Teacher: entropy ... nats at T = 1...'
    """
    task, models = _models(task, teacher, student)
    data, names = task.validation, task.classes
    # four of each class, in order
    rows = [int(r) for c in range(len(names)) for r in (data.y == c).nonzero()[:4, 0]]
    answers = [_answers(key, model, data.x[rows]) for key, model in models.items()]
    images, labels = data.x[rows].cpu(), data.y[rows].tolist()
    shown = [f"{names[y]}, number {i % 4 + 1}" for i, y in enumerate(labels)]

    def draw(source, image, T, typed, typed_student, scale):
        if source == "an image":
            z, s, label, classes = answers[0][image], answers[1][image], labels[image], names
        else:
            z, s = (
                read_logits("teacher's logits", typed),
                read_logits("student's logits", typed_student),
            )
            label, classes = 0, [chr(97 + c) for c in range(len(z))]
            if len(z) != len(s):
                raise ValueError(
                    "teacher and student must have one class each, "
                    f"got {len(z)} and {len(s)} logits"
                )
        picture = images[image] if source == "an image" else None
        return _three_softmaxes(Answers(z, s, label, classes, T), scale, picture)

    return Explorer(
        "Temperature: what the softmax does to an answer",
        [
            choice("source", "Logits from", ["an image", "typed logits"]),
            slider("T", "Temperature T", TEMPERATURES, 4.0),
            slider("image", "Image", range(len(rows)), min(17, len(rows) - 1), shown),
            choice("scale", "Axis", ["linear", "logarithmic"]),
            entry("typed", "Teacher's logits", "4, 2, 1, -1, -2"),
            entry("typed_student", "Student's logits", "2, 2, 0, 0, -1"),
        ],
        draw,
    )


def _models(task, teacher, student):
    """The task and {"teacher": module, "student": module}; small ones where none was given."""
    own = "an nn.Module, or None for one of its own"
    for key, model in (("teacher", teacher), ("student", student)):
        instance("temperature_explorer", key, model, (torch.nn.Module, type(None)), own)
    task = load("digits", sizes=(1000, 437, 360)) if task is None else task
    instance("temperature_explorer", "task", task, Task, "a Task, from load()")
    if teacher is None:
        teacher = train(convnet(16, 32, dropout=0.5), task, epochs=12, batch=64).module()
    if student is None:
        student = train(mlp(16), task, epochs=20, batch=64).module()
    return task, {"teacher": teacher, "student": student}


def _answers(key, model, x):
    """A model's logits for x; ValueError for one that diverged."""
    answer = outputs.logits(model, x).float().cpu()
    if not metrics.sound(answer):
        raise ValueError(
            f"temperature_explorer: {key} must give finite logits, "
            "got NaN or +inf: it diverged; train it with a lower lr or clip=1.0"
        )
    return answer


@dataclass(frozen=True)
class Answers:
    """Logits (C,) of a teacher and of a student, the label, the classes' names, and T."""

    teacher: torch.Tensor
    student: torch.Tensor
    label: int
    classes: Sequence[str]
    T: float

    @property
    def losses(self):
        """The soft loss without T², and the hard loss."""
        soft = float(divergences.forward_kl(self.student, self.teacher, self.T))
        return soft, -float(divergences.log_softmax(self.student)[self.label])


@on_stage
def _three_softmaxes(answers, scale, image):
    """Teacher and student at T, the student at 1 beside the label; then the numbers."""
    z, s, T = answers.teacher, answers.student, answers.T
    label, classes = answers.label, answers.classes
    shares = [divergences.log_softmax(v, t).exp() for v, t in ((z, T), (s, T), (s, 1.0))]
    figure, canvas = sheet(HEIGHT)
    long = max(map(len, classes)) > 2
    bottom = HEIGHT - (180 if long else 102)
    if image is not None:
        pixels = image.permute(1, 2, 0).squeeze(-1).clamp(0, 1).numpy()
        sharp(canvas, pixels, 24, TOP, 128)
        canvas.text(24, TOP + 156, f"label: {classes[label]}", fontweight=BOLD)
    start = 70 if image is None else 216
    step = (WIDTH - 24 - start) / 3
    names = f"teacher at T = {T:g}", f"student at T = {T:g}", "student at T = 1"
    for i, (name, share) in enumerate(zip(names, shares, strict=True)):
        colour = ROLES["student" if i else "teacher"]["color"]
        x = start + i * step
        canvas.text(x, 28, name, color=colour, fontsize=TEXT + 2, fontweight=BOLD)
        canvas.text(x, 52, f"entropy {metrics.entropy(share.log()):.2f} nats", color=MUTED)
        ax = panel(figure, x, TOP, step - 26, bottom - TOP)
        ax.bar(range(len(classes)), share.tolist(), color=colour, width=0.75)
        ax.set_xticks(range(len(classes)), classes, rotation=90 if long else 0)
        ax.set_yscale("log" if scale == "logarithmic" else "linear")
        ax.set_ylim(*((1e-6, 1.5) if scale == "logarithmic" else (0, 1.04)))
        ax.tick_params(labelleft=i == 0)
    frame = dict(fill=False, edgecolor=INK, linewidth=2.5, linestyle="--", width=0.75)
    ax.bar([label], [1.0], **frame)
    soft, hard = answers.losses
    ends = [start + i * step for i in range(4)]
    _bracket(canvas, ends[0], ends[2] - 26, f"soft loss: T² × KL = {soft * T * T:.3f} nats")
    _bracket(canvas, ends[2], ends[3] - 26, f"hard loss: {hard:.3f} nats")
    picture = Picture(
        figure,
        "The soft loss compares the first two, both at T; "
        "the hard loss compares the third, at 1, with the label (dashed).",
        f"Three bar charts of probabilities over {len(z)} classes, with {scale} axis: "
        f"teacher at T = {T:g}, student at T = {T:g}, student at T = 1 with the label's bar "
        f"of height 1 over class {classes[label]}. The numbers follow as text.",
    )
    return picture, _words(answers, shares[0])


def _bracket(canvas, left, right, words):
    """What a loss compares: a bracket below the panels, with words."""
    y = HEIGHT - 54
    canvas.plot([left, left, right, right], [y - 8, y, y, y - 8], color=MUTED, linewidth=2)
    canvas.text((left + right) / 2, y + 28, words, ha="center", fontweight=BOLD)


def _words(answers, p):
    """Entropies, the teacher's likeliest classes, and the two losses; p: the teacher's at T."""
    z, s, T = answers.teacher, answers.student, answers.T
    kl, cross = answers.losses
    order = p.argsort(descending=True)[:4].tolist()
    h = [float(metrics.entropy(v, t)) for v, t in ((z, 1.0), (z, T), (s, T), (s, 1.0))]
    likely = ", ".join(f"{answers.classes[c]} {100 * p[c]:.2f} %" for c in order)
    return [
        f"Teacher: entropy {h[0]:.3f} nats at T = 1, "
        f"{h[1]:.3f} at T = {T:g} (uniform: {math.log(len(z)):.3f}).",
        f"Student: entropy {h[3]:.3f} nats at T = 1, {h[2]:.3f} at T = {T:g}.",
        f"Teacher at T = {T:g}: {likely}.",
        f"Soft loss: KL = {kl:.4f} nats, times T² = {kl * T * T:.4f}. "
        f"Hard loss: cross-entropy = {cross:.4f} nats.",
    ]
