"""Pictures of lesson 06: ten numbers or hundreds, where a layer is active, which images it finds
alike, what each signal brings, and how alike layers become."""

import torch

from kdlab.evidence.intervals import Estimate
from kdlab.show import plots
from kdlab.show.colours import BLUE, FAINT, GREY, INK, MUTED
from kdlab.show.curves import Curve, curves
from kdlab.show.picture import Picture
from kdlab.show.sheet import BOLD, EDGE, WIDTH, heading, image, on_sheet, panel, pictured, sheet
from kdlab.show.strips import strip

ACTIVE = "cividis"  # of maps and pictures that are no images
TITLES = {"FitNets": "hint (FitNets)"}  # of panels that do not bear their arm's name
PANELS = ("logits", "FitNets", "similarity", "attention", "relational", "logits + attention")


@on_sheet
def ten_or_many(images, answers, layer, right):
    """A few images, a teacher's answer to each as ten bars, and one of its hidden layers.

    images (N, 1, H, W), answers (N, C) probabilities, layer (N, D, h, w), right (N,)."""
    found, tall = pictured("ten_or_many", "images", images), 118
    figure, canvas = sheet(76 + tall * len(found))
    wide, room, across = layer.shape[1] // 2, 10, 470
    cell = (WIDTH - EDGE - across) / wide
    numbers = layer[0].numel()
    heading(canvas, "What could be copied")
    for x, words in (
        (EDGE, "an image"),
        (EDGE + 130, f"its teacher's answer: {answers.shape[1]} numbers"),
        (across, f"one hidden layer of its teacher: {numbers} numbers"),
    ):
        canvas.text(x, 62, words, color=MUTED)
    for i, pixels in enumerate(found):
        top = 76 + i * tall
        image(canvas, pixels, EDGE, top, 92)
        _ten_bars(panel(figure, EDGE + 130, top + 6, 250, 70, ylim=(0, 1)), answers[i], right[i])
        most = float(layer[i].flatten().quantile(0.98)) or 1.0
        for k, channel in enumerate(layer[i]):
            row, column = divmod(k, wide)
            x, y = across + column * cell, top + row * (cell + room) + 14
            canvas.imshow(
                channel.cpu().numpy(),
                cmap=ACTIVE,
                vmin=0,
                vmax=most,
                interpolation="none",
                aspect="auto",
                extent=(x, x + cell - 3, y + cell - 3, y),
            )
    return Picture(
        figure,
        "Validation images, their teacher's answer at T = 4, dark for the true class, and all "
        f"{layer.shape[1]} channels of its last hidden layer, of {layer.shape[2]} × "
        f"{layer.shape[3]} places each, bright where it is active.",
        f"Three digits. Beside each ten bars, and {layer.shape[1]} small maps that differ from "
        "channel to channel.",
    )


def _ten_bars(ax, probabilities, right):
    """One answer, the true class dark."""
    ink = [INK if c == right else GREY for c in range(len(probabilities))]
    ax.bar(range(len(ink)), probabilities.tolist(), color=ink, width=0.8)
    ax.set(xticks=range(len(ink)), yticks=[])
    ax.grid(False)


@on_sheet
def where_active(images, layers, whose):
    """Images above, and below each where layer 3 of every model is active.

    layers: {name: (N, C, h, w)}; the sum of the squared channels, each map by its own largest."""
    found = pictured("where_active", "images", images)
    size, left = 84, EDGE + 190
    step = min(106, (WIDTH - EDGE - left) / len(found))
    figure, canvas = sheet(24 + (len(layers) + 1) * (size + 12))
    for i, pixels in enumerate(found):
        image(canvas, pixels, left + i * step, 18, size)
    for row, (name, layer) in enumerate(layers.items(), start=1):
        top = 18 + row * (size + 12)
        canvas.text(EDGE, top + size / 2 + 5, name, color=INK, fontweight=BOLD)
        for i, active in enumerate(layer.detach().square().sum(1).cpu()):
            x = left + i * step
            look = {"cmap": ACTIVE, "vmin": 0, "interpolation": "none", "aspect": "auto"}
            canvas.imshow(active.numpy(), extent=(x, x + size, top + size, top), **look)
    return Picture(
        figure,
        "Validation images, and where layer 3 is active: the sum of its squared channels at each "
        "of its 4 × 4 places, bright for much. Each map has a scale of its own. The students are "
        f"those of one split. {whose}",
        "Rows of coarse maps below the digits. After training by similarity the student's are "
        "brighter at the teacher's places than before.",
    )


@on_sheet
def which_alike(layers, classes):
    """For each layer {name: (N, …)} a picture (N, N) of which images it finds alike.

    classes: (N,), in order; lines stand between them."""
    figure, canvas = sheet(350)
    step = (WIDTH - 2 * EDGE) / len(layers)
    size = min(270, step - 24)
    change = [i for i in range(1, len(classes)) if classes[i] != classes[i - 1]]
    middles = [
        (start + end - 1) / 2
        for start, end in zip([0, *change], [*change, len(classes)], strict=True)
    ]
    for i, (name, layer) in enumerate(layers.items()):
        left = EDGE + 14 + i * step
        canvas.text(left, 32, name, fontsize=15, fontweight=BOLD)
        ax = panel(figure, left, 46, size, size)
        rows = layer.detach().flatten(1)
        alike = torch.nn.functional.normalize(rows @ rows.T, dim=1)
        ax.imshow(alike.cpu().numpy(), cmap=ACTIVE, interpolation="none")
        for at in change:
            ax.axvline(at - 0.5, color="white", linewidth=0.5)
            ax.axhline(at - 0.5, color="white", linewidth=0.5)
        names = [int(classes[int(m)]) for m in middles]
        ax.set_xticks(middles, names)
        ax.set_yticks(middles, names)
        ax.grid(False)
    return Picture(
        figure,
        "Which of 40 validation images are alike: QQᵀ with its rows at length 1, bright for alike. "
        "Each row and each column is an image, four a class, with the class beside them. Each "
        "picture has a scale of its own.",
        "Three square pictures. The teacher has bright blocks along the diagonal, one a class; the "
        "pixels and the untrained student show them faintly.",
    )


def over_images(table, live, whose):
    """The main figure: what each signal brings over labels alone, over the number of images.

    table: the rows of benchmarks/results/hidden_layers.csv. live: {an arm: Estimate}, of
    the reader's own students on 100 images after 400 steps."""
    at = sorted(set(table.images[table.steps > 0]))

    def over(arm, steps):
        return {n: gain(table, arm, n, steps) for n in at}

    panels = {
        TITLES.get(arm, arm): [
            Curve("1,600 steps", over(arm, 1600)),
            Curve("400 steps", over(arm, 400), "also"),
            Curve("100 steps", over(arm, 100), "also"),
            Curve("no teacher, label smoothing", over("label smoothing", 400), "control"),
        ]
        for arm in PANELS
    }
    return curves(
        panels,
        x="training images (log)",
        y="points over labels alone",
        log=True,
        ticks={"x": at},
        height=280,
        dots={TITLES.get(arm, arm): {100: found} for arm, found in live.items()},
        caption="Validation accuracy minus that of labels alone, same images and steps, on the "
        f"digits; bands are 95 % intervals over {table.unit.nunique()} splits, from "
        "benchmarks/hidden_layers.py. Dotted: label smoothing, 400 steps, the same in all panels. "
        "Diamonds: the students trained just now, on 100 images for 400 steps, with their "
        f"intervals. {whose}",
    )


def gain(table, arm, images, steps, over="labels", part="validation"):
    """Accuracy of one arm minus another's, paired by split → `Estimate`, in points."""
    rows = table[(table.images == images) & (table.steps == steps) & (table.part == part)]
    values = rows.pivot(index="unit", columns="arm", values="accuracy")
    return Estimate(values[arm] - values[over], "accuracy", "points", 1)


@on_sheet
def likeness(alike, accuracy, whose):
    """How alike each student's layer is to its teacher's, beside how well it reads.

    alike {name: Estimate of CKA}, accuracy {name: Estimate}, of those that read at all."""
    tall, top, splits = 34, 54, len(next(iter(alike.values())).values)
    figure, canvas = sheet(top + tall * len(alike) + 56)
    sides = (
        (EDGE + 230, "likeness of layer 3 to the teacher's (CKA)", alike, (0, 1)),
        (EDGE + 620, "validation accuracy (%)", accuracy, None),
    )
    for left, words, found, limits in sides:
        ax = panel(figure, left, top, 310, tall * len(alike))
        ax.set_ylim(len(alike) - 0.5, -0.5)
        if limits:
            ax.set_xlim(limits)
        ax.set_yticks([])
        ax.grid(axis="x", color=FAINT, linewidth=0.7)
        ax.grid(False, axis="y")
        canvas.text(left, top - 14, words, color=MUTED)
        if found is alike:
            for i, e in enumerate(found.values()):
                canvas.text(left + 318, top + tall * (i + 0.5) + 5, f"{e.mean:.2f}", color=INK)
        for i, name in enumerate(alike):
            if name in found:
                e = found[name]
                ax.plot(e.interval(), [i, i], color=BLUE, linewidth=4, solid_capstyle="round")
                ax.plot(e.mean, i, "o", color=BLUE, markersize=9, markeredgecolor="white")
    for i, name in enumerate(alike):
        canvas.text(EDGE, top + tall * (i + 0.5) + 5, name, color=INK, fontweight=BOLD)
    return Picture(
        figure,
        "Left: how alike layer 3 of the students and of their teachers are, on validation images, "
        "and three to compare with. Right: how well those read that were taught. Dots are means, "
        f"bars 95 % intervals over {splits} splits, hidden where they are shorter than a dot. "
        f"{whose}",
        "Left, noise is hardly alike, the pixels and the untrained student are, and the student "
        "taught by similarity most of all. Right, the student taught by logits reads best.",
    )


def where_attached(table, images=100, steps=400):
    """Similarity between other layers, and to a teacher that was never trained."""
    arms = {
        "similarity": "layer 3 from layer 3",
        "similarity, 1 from 1": "layer 1 from layer 1",
        "similarity, 1 from 3": "layer 1 from layer 3",
        "similarity, 3 from 1": "layer 3 from layer 1",
        "similarity, untrained teacher": "layer 3 from layer 3,\nteacher untrained",
    }
    return plots.intervals(
        {words: gain(table, arm, images, steps) for arm, words in arms.items()},
        zero=0,
        label="points over labels alone, validation",
        caption="What similarity brings, by which layer learns from which: the student's is named "
        f"first, then the teacher's. {images} images and {steps} steps, each at its best "
        f"weight. Dots are means, bars 95 % intervals over {table.unit.nunique()} splits, from "
        "benchmarks/hidden_layers.py.",
        alt="Five intervals. The student's layer 3 taught by layer 3 gains most, the untrained "
        "teacher gains nothing.",
    )


def changed(data, said):
    """The first nine validation images that labels alone misread, as each student calls them."""
    missed = (said["labels"].argmax(-1) != data.y).nonzero()[:9, 0]
    return strip(
        data.x[missed],
        {"what it is": data.y[missed]}
        | {f"by {name}": logits[missed].argmax(-1) for name, logits in said.items()},
        data.y[missed],
        "The first nine validation images of one split that the student on labels alone misreads. "
        "Below: what each is, and what the students call it, a row for what taught them.",
        "Nine digits. The student taught by logits reads most of them, those taught by a hidden "
        "layer few.",
    )
