"""Which layer to learn from, and by which distance, trained while one looks."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from kdlab.base import arguments
from kdlab.base.repeats import fresh
from kdlab.data.tasks import splits
from kdlab.evidence.intervals import Estimate
from kdlab.losses import features
from kdlab.losses.hidden import HiddenLoss
from kdlab.show.colours import INK, MUTED
from kdlab.show.explorer import HEIGHT, Explorer, choice, on_stage, slider
from kdlab.show.plots import Picture
from kdlab.show.sheet import BOLD, EDGE, WIDTH, panel, sheet
from kdlab.students.builders import convnet
from kdlab.teachers import outputs
from kdlab.training.runs import Runs
from kdlab.training.sweep import sweep, train

SIZES = (1000, 437, 360)  # of the digits; multiples that every split shares
COUNT, EPOCHS = 4, 60
TEACHER, STUDENT = convnet(16, 32, dropout=0.5), convnet(4, 8)
TRAINED = Path(__file__).parent / "hidden_layers"  # by `keep`
LAYERS = {"layer 1": "1", "layer 3": "3"}
HINTS: dict[str, tuple[Any, float]] = {
    "similarity": (features.similarity, 1e4),
    "attention maps": (features.attention_transfer, 100.0),
    "values (FitNets)": (features.fitnets, 100.0),
}


def hidden_layers_explorer(count: int = COUNT, epochs: int = EPOCHS) -> Explorer:
    """Teacher and student looking at one image, before and after hints → `Explorer`.

    Between their layers stands CKA. The students learn a hundred labels of the digits: before,
    labels alone; after, also the teacher's layer 3. As called without arguments they were trained
    beforehand (`python tools/demos.py --measure`); with other numbers they are trained when asked
    for.

    >>> explorer = hidden_layers_explorer(epochs=2)
    >>> explorer.move(layer="layer 1", image=3).answer["error"]
    ''
    """
    arguments.whole("hidden_layers_explorer", "count", count, least=4)
    arguments.whole("hidden_layers_explorer", "epochs", epochs, least=1)
    tasks, teachers, student = learners(count, epochs)
    data = tasks[0].validation
    rows = [int(r) for c in range(10) for r in (data.y == c).nonzero()[:3, 0]]
    alike = functools.cache(lambda name: alikeness(tasks, student(name), teachers))

    def draw(image, layer, show, hints):
        x = data.x[rows[image]][None]
        accuracy = {"before": student("before").estimate(), "after": student(hints).estimate()}
        sides = {
            "teacher": teachers,
            "student before": student("before"),
            "student after": student(hints),
        }
        maps = {
            name: _hidden(runs, tasks[0], x)[LAYERS[layer]][0].cpu() for name, runs in sides.items()
        }
        cells = {"before": alike("before"), "after": alike(hints)}
        label = tasks[0].classes[data.y[rows[image]]]
        seen = Seen(x[0].cpu(), label, layer, maps, cells, accuracy)
        return _side_by_side(seen, show, hints)

    shown = [f"{tasks[0].classes[data.y[r]]}, number {i % 3 + 1}" for i, r in enumerate(rows)]
    return Explorer(
        "Hidden layers side by side",
        [
            slider("image", "Image", range(len(rows)), 12, shown),
            choice("layer", "Layer", list(LAYERS), "layer 3"),
            choice("hints", "Hints by", list(HINTS)),
            choice("show", "Show", ["attention map", "four channels"]),
        ],
        draw,
    )


def _hidden(runs, task, x):
    return outputs.hidden(runs.module_of_unit(task), x, list(LAYERS.values()))


def alikeness(tasks, students, teachers):
    """CKA of each layer of the students with each of the teachers: {(layer, layer): Estimate}."""
    named = {v: k for k, v in LAYERS.items()} | {"logits": "logits"}
    found = {(s, t): {} for s in named for t in named}
    for task in tasks:
        mine, theirs = (_hidden(runs, task, task.validation.x) for runs in (students, teachers))
        for s, t in found:
            found[s, t][task.unit] = float(features.cka(mine[s], theirs[t]))
    return {(named[s], named[t]): Estimate(pd.Series(v), "CKA") for (s, t), v in found.items()}


def learners(count, epochs):
    """Tasks, their teachers, and the students of a hint; `TRAINED` where its numbers are asked."""
    if (count, epochs) != (COUNT, EPOCHS) or fresh(0):  # a repetition has splits of its own
        return train_learners(count, epochs)
    tasks = splits("digits", count, sizes=SIZES)

    @functools.cache
    def kept(name):
        return Runs.load(_place(name), students=[TEACHER, STUDENT], tasks=tasks)

    return tasks, kept("teacher"), kept


def train_learners(count, epochs):
    """Tasks, their teachers, and {hints: students} as a function; hints "before": labels alone."""
    tasks = splits("digits", count, sizes=SIZES)
    few = splits("digits", count, sizes=SIZES, labels_per_class=10)
    teachers = train(TEACHER, tasks, epochs=8, batch=64)
    budget = dict(epochs=epochs, batch=25)

    @functools.cache
    def student(hints):
        if hints == "before":
            return train(STUDENT, few, **budget)
        distance, weight = HINTS[hints]
        objective = HiddenLoss(distance, [("3", "3")], weight)
        return sweep(STUDENT, few, teacher=teachers, **budget, objective=objective)

    return tasks, teachers, student


def keep():
    """Train the explorer's learners anew and keep them: half a minute."""
    _, teachers, student = train_learners(COUNT, EPOCHS)
    teachers.save(_place("teacher"))
    for name in ("before", *HINTS):
        student(name).save(_place(name))


def _place(name):
    return TRAINED / name.split()[0]


@dataclass(frozen=True)
class Seen:
    """One image in a layer of every network, and how the students compare before and after hints.

    maps: {network: (C, h, w)}; cells: {"before", "after": {(layer, layer): Estimate}} of CKA;
    accuracy: {"before", "after": Estimate}."""

    image: torch.Tensor
    label: str
    layer: str
    maps: dict[str, torch.Tensor]
    cells: dict[str, dict]
    accuracy: dict[str, Estimate]


@on_stage
def _side_by_side(seen, show, hints):
    """Above, one image in every network; below, how alike their layers are; then the numbers."""
    figure, canvas = sheet(HEIGHT)
    size, step = 156, (WIDTH - EDGE) / 4
    pixels = {"the image": seen.image.permute(1, 2, 0).squeeze(-1).numpy()}
    pixels |= {name: _shown(layer_of, show).numpy() for name, layer_of in seen.maps.items()}
    for i, (name, shown) in enumerate(pixels.items()):
        left, ink = EDGE + i * step, name == "the image"
        right = seen.accuracy.get(name.removeprefix("student "))
        words = f"{name}, {right.mean:.0f} %" if right else name
        canvas.text(left, 26, words, color=MUTED if ink else INK, fontweight=BOLD)
        ax = panel(figure, left, 40, size, size)
        ax.imshow(shown, cmap="gray_r" if ink else "cividis", interpolation="none")
        ax.axis("off")
    for i, (name, found) in enumerate(seen.cells.items()):
        left = 116 + i * 478
        canvas.text(left - 92, 238, "student ↓", color=MUTED)
        canvas.text(left, 238, f"likeness (CKA) {name} hints", color=INK, fontweight=BOLD)
        canvas.text(left + 362, 238, "teacher →", color=MUTED, ha="right")
        _grid(panel(figure, left, 252, 362, 132), found)
    count = len(seen.cells["after"]["layer 3", "layer 3"].values)
    picture = Picture(
        figure,
        f"Above: {seen.layer} of the first split's networks, one image, beside the students' "
        "mean accuracy. Below: likeness of all "
        "layers, the student's in rows, the teacher's in columns, "
        f"mean ± half of a 95 % interval over {count} splits. "
        f"Hints: {hints}, layer 3.",
        f"Above, an image of a {seen.label} and the {show} of {seen.layer} in the teacher, "
        "the student before hints and the student after them. "
        "Below, two grids of nine CKA values, before and after. The numbers follow as text.",
    )
    return picture, _words(seen)


def _shown(layer, show):
    """A layer (C, h, w) as one picture: where it looks, or its four strongest channels."""
    strength = layer.square()
    if show == "attention map":
        return strength.sum(0)
    strongest = strength.sum((1, 2)).argsort(descending=True)[:4]
    # NaN around each map: the gap between them
    a, b, c, d = torch.nn.functional.pad(layer[strongest], (1, 1, 1, 1), value=torch.nan)
    return torch.cat([torch.cat([a, b], 1), torch.cat([c, d], 1)])


def _grid(ax, found):
    """CKA of each layer of the student with each of the teacher."""
    keys = list(dict.fromkeys(s for s, _ in found))
    shades = [[found[s, t].mean for t in keys] for s in keys]
    ax.imshow(shades, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (s, t), e in found.items():
        ax.text(
            keys.index(t),
            keys.index(s),
            f"{e.mean:.2f} ±{e.half_width():.2f}",
            ha="center",
            va="center",
            color="white" if e.mean > 0.6 else "black",
        )
    ax.set_xticks(range(3), keys)
    ax.set_yticks(range(3), keys)
    ax.grid(False)
    ax.spines[:].set_visible(False)


def _words(seen):
    """The numbers below the picture."""
    accuracy = seen.accuracy
    own = {name: found["layer 3", "layer 3"] for name, found in seen.cells.items()}
    change, gain = own["after"] - own["before"], accuracy["after"] - accuracy["before"]
    where = {
        name: torch.nn.functional.normalize(m.square().sum(0).flatten(), dim=0)
        for name, m in seen.maps.items()
    }
    near = [float(where["teacher"] @ where[f"student {name}"]) for name in ("before", "after")]
    return [
        f"{seen.layer}, this {seen.label}: cosine of the student's map with the teacher's "
        f"{near[0]:.3f} before, {near[1]:.3f} after",
        f"CKA of layer 3 with layer 3: {own['before']} before, {own['after']} after; "
        f"change {change}",
        f"accuracy on validation: {accuracy['before']} before, {accuracy['after']} after; "
        f"change {gain}, verdict: {gain.verdict()}",
    ]
