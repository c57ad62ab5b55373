"""Pictures of lesson 07: images made of patches, accuracy over members and over generations, and
which views a network has learnt."""

import torch

from kdlab.data.multiview import strengths
from kdlab.show import plots
from kdlab.show.colours import BLUE, GREY, INK, MUTED, ORANGE, VERMILLION
from kdlab.show.curves import Curve, curves
from kdlab.show.picture import Picture
from kdlab.show.sheet import BOLD, EDGE, WIDTH, heading, image, on_sheet, panel, sheet, wrapped

LIMITS = ((80, 101), (93.5, 100))  # per cent, of patches and of digits
FRAMES = (BLUE, ORANGE)  # of a class's first and second view


def pattern(patch):
    """A patch (64,) as a picture (8, 8) in [0, 1]; a view's numbers are ± 1/4."""
    return (0.5 + 2 * patch.reshape(8, 8)).clip(0, 1)


def two_minds(data, members, views):
    """A class, two networks that know one view of it each, and three images.

    data: held-out images; members: logits (K, N, C) on them; views (C, 2, 64) → (class, [two
    networks], [rows: both views shown, the first alone, the second alone])."""
    x, y, members = data.x.cpu(), data.y.cpu(), members.cpu()
    shown = strengths(x, views)[torch.arange(len(y)), y] > 0.65  # (N, 2)
    hit = (members.argmax(-1) == y).double()

    def alone(c):
        return [(y == c) & shown[:, v] & ~shown[:, 1 - v] for v in (0, 1)]

    def lead(c):  # of each network, with the first view over the second
        first, second = (hit[:, rows].mean(1) for rows in alone(c))
        return first - second

    c = max(range(len(views)), key=lambda c: float(lead(c).max() - lead(c).min()))
    one, other = int(lead(c).argmax()), int(lead(c).argmin())
    first, second = alone(c)
    rows = (
        (y == c) & shown.all(1) & (hit[[one, other]].sum(0) == 2),
        first & (hit[one] > hit[other]),
        second & (hit[other] > hit[one]),
    )
    return c, [one, other], [int(row.nonzero()[0, 0]) for row in rows]


@on_sheet
def patches(data, members, views):
    """Three images of one class, patch by patch, and what two networks answer."""
    c, pair, rows = two_minds(data, members, torch.as_tensor(views))
    figure, canvas = sheet(430)
    heading(canvas, f"Three images of class {c}, and what two networks say")
    own, tile, gap = views[c], 42, 5
    for v, colour in enumerate(FRAMES):
        x = EDGE + 250 + v * 260
        image(canvas, pattern(own[v]), x, 56, tile, frame=colour, thick=3)
        canvas.text(x + tile + 10, 82, ("its first view", "its second view")[v], color=MUTED)
    canvas.text(EDGE, 82, f"Class {c} is told by two views:", color=INK)
    left = EDGE + 11 * (tile + gap) + 26
    for k, network in enumerate(("network 1", "network 2")):
        canvas.text(left + k * 210, 136, network, color=INK, fontweight=BOLD)
    says = ("shows both views", "shows the first alone", "shows the second alone")
    for i, row in enumerate(rows):
        top = 152 + i * 90
        canvas.text(EDGE, top - 8, says[i], color=MUTED)
        for p, patch in enumerate(data.x[row, 0].cpu()):
            share = [float(patch @ torch.as_tensor(v)) / 4 for v in own]
            v = max(range(2), key=share.__getitem__)
            look = {"frame": FRAMES[v], "thick": 3} if share[v] > 0.65 else {}
            image(canvas, pattern(patch.numpy()), EDGE + p * (tile + gap), top, tile, **look)
        for k, network in enumerate(pair):
            answer = (members[network, row] / 4).softmax(-1)
            bars = panel(figure, left + k * 210, top - 12, 180, 56, ylim=(0, 1))
            bars.bar(
                range(10),
                answer.tolist(),
                width=0.8,
                color=[INK if j == c else GREY for j in range(10)],
            )
            bars.set(xticks=range(10), yticks=[])
            bars.grid(False)
    return Picture(
        figure,
        "Validation images as their eleven patches, in the random order that the networks get. "
        "Coloured frames: the class's own views. The other patches hold faint views of other "
        "classes, or noise. Bars: answers at T = 4, dark for the true class.",
        "Three rows of striped patches. Both networks are right about the first image, which "
        "shows both views; of the other two each is right about one.",
    )


def over_members(found, single, whose):
    """The main figure. found {title: {"ensemble"|"student": {K: Estimate}}}; single {title: …}."""
    panels = {}
    for title, arms in found.items():
        at = sorted(arms["ensemble"])
        panels[title] = [
            Curve("the ensemble", arms["ensemble"], "teacher"),
            Curve("its student, one network", arms["student"]),
            Curve("one network, labels", dict.fromkeys(at, single[title]), "rival"),
        ]
    return curves(
        panels,
        x="networks in the ensemble (log)",
        y="validation accuracy (%)",
        log=True,
        ticks={"x": [1, 2, 4, 8]},
        limits=dict(zip(panels, LIMITS, strict=True)),
        share=False,
        height=330,
        caption="Left, images of patches; right, handwritten digits. The student learnt from the "
        "ensemble of 2 or of 8. One network, labels: the mean of eight on labels alone. "
        f"Bands are 95 % intervals over {_units(single)}; the two accuracy axes differ. {whose}",
    )


def _units(found):
    """In words, over what the intervals are: found {title: Estimate}, worlds first, then splits."""
    worlds, splits = (len(e.values) for e in found.values())
    return f"{worlds} worlds on the left and {splits} splits on the right"


def over_generations(found, flat, whose):
    """found {title: {name: {generation: Estimate}}}; flat {title: {name: Estimate}} to compare."""
    roles = {"taught by the one before": "student", "wrong classes shuffled": "control"}
    panels, first = {}, {title: next(iter(arms.values()))[0] for title, arms in found.items()}
    for title, arms in found.items():
        last = max(max(at) for at in arms.values())
        panels[title] = [Curve(name, at, roles[name]) for name, at in arms.items()]
        panels[title] += [Curve(name, {0: e, last: e}, "rival") for name, e in flat[title].items()]
    return curves(
        panels,
        x="generation (0: labels)",
        y="validation accuracy (%)",
        limits=dict(zip(panels, LIMITS, strict=True)),
        share=False,
        height=330,
        caption="Each generation learns from the one before, from new first weights. Dotted, on "
        "the left: the first student again, its teacher's wrong classes shuffled. Dashed: rivals "
        "without a teacher, which have no generations. Bands are 95 % intervals over "
        f"{_units(first)}; the two accuracy axes differ. {whose}",
    )


@on_sheet
def views_learnt(views, said, known):
    """Every view of one world, alone in an empty image: known in a blue frame, unknown faint.

    views (10, 2, 64); said {name: (20,) classes that a network names}; known {name: Estimate}."""
    figure, canvas = sheet(150)
    tile, step = 20, (WIDTH - 2 * EDGE) / len(said)
    truth = torch.arange(len(views)).repeat_interleave(2)
    for i, (name, answers) in enumerate(said.items()):
        left, right = EDGE + i * step, answers == truth
        canvas.text(left, 30, name, fontsize=15, fontweight=BOLD)
        canvas.text(left, 52, f"knows {int(right.sum())} of {len(truth)}", color=MUTED)
        mean = f"all worlds: {known[name].mean:.1f} ± {known[name].half_width():.1f}"
        canvas.text(left, 130, mean, color=MUTED)
        for k, view in enumerate(views.reshape(-1, 64)):
            x, y = left + k // 2 * (tile + 2), 64 + k % 2 * (tile + 4)
            if right[k]:
                image(canvas, pattern(view), x, y, tile, frame=BLUE, thick=1.5)
            else:
                image(canvas, 0.15 * pattern(view), x, y, tile)
                canvas.text(x + tile / 2, y + 15, "✗", color=VERMILLION, ha="center")
    return Picture(
        figure,
        "The twenty views of one world, a column a class with its two views, each shown alone to "
        "one network of each kind. Blue frames: known, as the network names the class. Crosses: "
        "not known. Below: how many are known on average, with 95 % intervals over "
        f"{len(next(iter(known.values())).values)} worlds, three networks in each.",
        "Four grids of twenty striped tiles. "
        + "; ".join(f"{name}: {int((a == truth).sum())} known" for name, a in said.items())
        + ".",
    )


def on_digits(gains):
    """Everything without a better teacher, on handwritten digits: {name: Estimate}."""
    return plots.intervals(
        {wrapped(name, 24): gain for name, gain in gains.items()},
        zero=0,
        label="points over one network on labels, validation",
        caption="Handwritten digits, 1,000 labels: validation accuracy minus that of one network "
        "on labels alone. Label smoothing has no teacher. Dots are means, bars 95 % intervals "
        f"over {len(next(iter(gains.values())).values)} splits.",
        alt="Self-distillation and the ensemble's student lie a little below zero, peers at zero; "
        "the moving average and label smoothing gain about a point.",
    )
