"""Explorers that train: a race of students retrained live, hidden layers side by side, a student to choose."""

import functools
import time

import pandas as pd
import torch

from . import features, signals
from .distill import sweep, train
from .hidden import HiddenLoss
from .intervals import Estimate
from .models import convnet, mlp
from .panel import Explorer, choice, large, slider
from .plots import COLOURS, Picture
from .tasks import splits

SIZES = (1000, 437, 360)  # of the digits; multiples that every split shares
SAME, EXPERT = "the student's own labels", "all labels, all clean"


def distillation_race(data="digits", count=8, steps=300):
    """Labels alone against a teacher: 32 students, retrained as one stacked model for each setting → `Explorer`.

    data: a name for `load`; count: splits, each with its own teacher. Half of the students have alpha 0, which is
    labels alone; all have the same images, labels, initial weights and number of steps.

    >>> race = distillation_race(count=4, steps=20)
    >>> race.move(labels=10, noise=0.4).answer["error"]
    ''
    """
    sizes = SIZES if data == "digits" else (1000, 1000, 2000)
    found = functools.lru_cache(32)(functools.partial(splits, data, count, sizes=sizes))

    @functools.lru_cache(32)
    def teachers(labels, noise):
        tasks = found(labels_per_class=labels or None, noise=noise)
        return train(mlp(256, dropout=0.5), tasks, epochs=max(1, round(250 * 64 / len(tasks[0].train))), batch=64)

    def draw(T, alpha, labels, noise, saw):
        tasks = found(labels_per_class=labels or None, noise=noise)
        began = time.perf_counter()
        taught_by = teachers(labels, noise) if saw == SAME else teachers(0, 0.0)
        rows = len(tasks[0].train)
        epochs = max(1, round(steps / -(-rows // 32)))
        runs = sweep(mlp(64), tasks, teacher=taught_by, temperature=T, alpha=[0.0, alpha], epochs=epochs, batch=32,
                     seeds=max(1, 16 // count), checkpoints=min(6, epochs))
        spent = time.perf_counter() - began
        return _race(runs, alpha, epochs, rows, f"T = {T:g}, α = {alpha:g}, the teacher saw {saw}", spent)

    noises = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    return Explorer("Distillation race: a teacher against labels alone", [
        slider("T", "Temperature T", [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0], 4.0),
        slider("alpha", "α, weight of the teacher", [0.1, 0.25, 0.5, 0.75, 0.9, 1.0], 0.9),
        slider("labels", "Labels a class", [3, 5, 10, 20, 30, 50, 0], 10, ["3", "5", "10", "20", "30", "50", "all"]),
        slider("noise", "Wrong labels", noises, 0.0, [f"{100 * n:.0f} %" for n in noises]),
        choice("saw", "The teacher saw", [EXPERT, SAME])], draw)


def _race(runs, alpha, epochs, rows, setting, spent):
    gain = runs.where(alpha=alpha).minus(runs.where(alpha=0.0))  # says it where students diverged
    points = runs.frame.groupby(["alpha", "epoch", "unit"])["accuracy"]
    unit = points.agg(lambda seeds: seeds.mean(skipna=False)) * 100
    arms = {"labels alone": (0.0, COLOURS[0]), "taught": (alpha, COLOURS[1])}
    figure, context = large(13, 5.2)
    with context:
        left, right = figure.subplots(1, 2, width_ratios=[2, 1])
        for i, (name, (a, colour)) in enumerate(arms.items()):
            points = {e: Estimate(unit[a, e], "accuracy", "%") for e in unit[a].index.unique("epoch")}
            left.errorbar([e * (1 + 0.01 * i) for e in points], [p.mean for p in points.values()], label=name,
                          color=colour, marker="o", yerr=[p.half_width() for p in points.values()], capsize=5,
                          linewidth=3)
        left.set_xlabel(f"epochs of {rows} labelled images")
        left.set_ylabel("accuracy on validation (%)")
        left.legend(loc="lower right")
        right.axvline(0, color="grey")
        right.errorbar(gain.mean, 0, xerr=gain.half_width(), fmt="o", color=COLOURS[1], capsize=8, markersize=12)
        reach = max(2.0, 1.2 * max(map(abs, gain.interval())))
        right.locator_params(axis="x", nbins=5)
        right.set(xlim=(-reach, reach), ylim=(-1, 1), yticks=[], xlabel="taught − labels alone (points)")
        right.set_title(f"verdict: {gain.verdict()}")
    count = runs.frame["unit"].nunique()
    lines = [f"{name}: {runs.where(alpha=a).estimate()}" for name, (a, _) in arms.items()]
    lines += [f"teacher: {_teachers(runs)}", f"taught − labels alone: {gain}; verdict: {gain.verdict()}",
              f"{len(runs)} students in {spent:.1f} s"]
    return Picture(figure, f"{setting}. Means over {count} splits, each with its own teacher; bars are 95 % intervals. "
                   "One setting looked at among many: a surprise deserves another look with fresh splits.",
                   f"Left: accuracy over {epochs} epochs for students on labels alone and students taught at {setting}"
                   ", with error bars. Right: their final difference with its interval beside zero. The numbers follow "
                   "as text."), lines


def _teachers(runs):
    mean = runs.last().groupby("unit")["teacher_accuracy"].mean() * 100
    return Estimate(mean, "accuracy", "%")


LAYERS = {"layer 1": "1", "layer 3": "3"}
HINTS = {"similarity": (features.similarity, 1e4), "attention maps": (features.attention_transfer, 100.0),
         "values (FitNets)": (features.fitnets, 100.0)}


def hidden_layers_explorer(count=4, epochs=60):
    """Teacher and student looking at one image, before and after hints, with CKA between their layers → `Explorer`.

    The students learn a hundred labels of the digits: before, labels alone; after, also the teacher's layer 3.

    >>> explorer = hidden_layers_explorer(epochs=2)
    >>> explorer.move(layer="layer 1", image=3).answer["error"]
    ''
    """
    tasks = splits("digits", count, sizes=SIZES)
    few = splits("digits", count, sizes=SIZES, labels_per_class=10)
    teachers = train(convnet(16, 32, dropout=0.5), tasks, epochs=10, batch=64)
    budget = dict(epochs=epochs, batch=25)
    students = {"before": train(convnet(4, 8), few, **budget)}
    students |= {name: sweep(convnet(4, 8), few, teacher=teachers, **budget,
                             objective=HiddenLoss(distance, [("3", "3")], weight))
                 for name, (distance, weight) in HINTS.items()}
    data = tasks[0].validation
    rows = [int(r) for c in range(10) for r in (data.y == c).nonzero()[:3, 0]]
    named = {"logits": "logits", **{v: k for k, v in LAYERS.items()}}

    def hidden(runs, task, x):
        return signals.hidden(runs.module_of_unit(task), x, list(LAYERS.values()))

    @functools.cache
    def alike(name):
        found = {(s, t): {} for s in ("1", "3", "logits") for t in ("1", "3", "logits")}
        for task in tasks:
            mine, theirs = (hidden(runs, task, task.validation.x) for runs in (students[name], teachers))
            for s, t in found:
                found[s, t][task.unit] = float(features.cka(mine[s], theirs[t]))
        return {(named[s], named[t]): Estimate(pd.Series(v), "CKA") for (s, t), v in found.items()}

    def draw(image, layer, show, hints):
        x = data.x[rows[image]][None]
        accuracy = {k: students[v].estimate() for k, v in (("before", "before"), ("after", hints))}
        sides = {"teacher": teachers, "student before": students["before"], "student after": students[hints]}
        maps = {name: hidden(runs, tasks[0], x)[LAYERS[layer]][0].cpu() for name, runs in sides.items()}
        cells = {"before": alike("before"), "after": alike(hints)}
        return _side_by_side(x[0].cpu(), maps, cells, tasks[0].classes[data.y[rows[image]]], layer, show, hints,
                             accuracy)

    shown = [f"{tasks[0].classes[data.y[r]]}, number {i % 3 + 1}" for i, r in enumerate(rows)]
    return Explorer("Hidden layers side by side", [
        slider("image", "Image", range(len(rows)), 12, shown),
        choice("layer", "Layer", list(LAYERS), "layer 3"),
        choice("hints", "Hints by", list(HINTS)),
        choice("show", "Show", ["attention map", "four channels"])], draw)


def _side_by_side(image, maps, cells, label, layer, show, hints, accuracy):
    figure, context = large(13, 7.2)
    with context:
        top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.25])
        for ax, (name, layer_of) in zip(top.subplots(1, 4), [("image", image), *maps.items()], strict=True):
            if name == "image":
                ax.imshow(image.permute(1, 2, 0).squeeze(-1), cmap="gray_r", vmin=0, vmax=1)
            else:
                strongest = layer_of.square().sum((1, 2)).argsort(descending=True)[:4]
                a, b, c, d = torch.nn.functional.pad(layer_of[strongest], (1, 1, 1, 1), value=torch.nan)  # a gap
                ax.imshow(layer_of.square().sum(0) if show == "attention map"
                          else torch.cat([torch.cat([a, b], 1), torch.cat([c, d], 1)]), cmap="cividis")
            ax.set_title(name)
            ax.axis("off")
        for ax, (name, found) in zip(bottom.subplots(1, 2), cells.items(), strict=True):
            keys = list(dict.fromkeys(s for s, _ in found))
            ax.imshow([[found[s, t].mean for t in keys] for s in keys], cmap="Blues", vmin=0, vmax=1, aspect="auto")
            for (s, t), e in found.items():
                ax.text(keys.index(t), keys.index(s), f"{e.mean:.2f} ±{e.half_width():.2f}", ha="center", va="center",
                        color="white" if e.mean > 0.6 else "black")
            ax.set_xticks(range(3), keys)
            ax.set_yticks(range(3), keys)
            ax.set(title=f"CKA {name} hints", xlabel="teacher", ylabel="student")
            ax.spines[:].set_visible(False)
            ax.tick_params(length=0)
    own = {name: found["layer 3", "layer 3"] for name, found in cells.items()}
    change, gain = own["after"] - own["before"], accuracy["after"] - accuracy["before"]
    where = {name: torch.nn.functional.normalize(m.square().sum(0).flatten(), dim=0) for name, m in maps.items()}
    near = [float(where["teacher"] @ where[f"student {name}"]) for name in ("before", "after")]
    lines = [f"{layer}, this {label}: cosine of the student's map with the teacher's {near[0]:.3f} before, "
             f"{near[1]:.3f} after",
             f"CKA of layer 3 with layer 3: {own['before']} before, {own['after']} after; change {change}",
             f"accuracy on validation: {accuracy['before']} before, {accuracy['after']} after; change {gain}, "
             f"verdict: {gain.verdict()}"]
    return Picture(figure, f"Above: {layer} of the first split's networks, one image. Below: likeness of all layers, "
                   f"mean ± half of a 95 % interval over {len(own['after'].values)} splits. Hints: {hints}, layer 3.",
                   f"Above, an image of a {label} and the {show} of {layer} in the teacher, the student before hints "
                   "and the student after them. Below, two grids of nine CKA values, before and after. The numbers "
                   "follow as text."), lines
