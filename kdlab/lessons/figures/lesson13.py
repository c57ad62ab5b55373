"""Pictures of lesson 13: whose arithmetic it is, what answers take on disk, workers that are one,
and what fills the memory."""

from kdlab.evidence.intervals import Estimate
from kdlab.show import plots
from kdlab.show.colours import BLUE, GREEN, GREY, INK, LIGHT, MUTED, ORANGE
from kdlab.show.curves import Curve, curves

PARTS = {"weights": GREY, "Adam's means": LIGHT, "gradients and in between": ORANGE}
LEGEND = {"gradients and in between": "gradients and intermediate results"}


def first_screen(tokens):
    """One text, token by token: tokens [(token, {word: probability})]."""
    return plots.tokens(
        tokens,
        "A text that a student learns from. Orange: the token that comes, with the probability "
        "that the teacher gave it. Grey: the likeliest of the 1,024 tokens that it weighs there.",
        "A row of columns, one for each token of a sentence, each with four words and bars.",
        title="What a teacher is asked for: its answer at each token of each text",
        top=4,
    )


@plots.style(small=True)
def whose_work(pairs):
    """Whose arithmetic an epoch is. pairs: {words: (the teacher's FLOPs, the student's)}."""
    figure, ax = plots.axes(figsize=(10, 0.5 * len(pairs) + 0.4), small=True)
    figure.get_layout_engine().set(w_pad=0.2, h_pad=0.14)
    names = list(pairs)[::-1]
    for row, name in enumerate(names):
        teacher, student = pairs[name]
        share = 100 * teacher / (teacher + student)
        ax.barh(row, share, color=GREEN, height=0.62)
        ax.barh(row, 100 - share, left=share, color=BLUE, height=0.62)
        ax.text(1.5, row, f"teacher {share:.0f} %", color="white", va="center", fontweight="bold")
        ax.text(101, row, f"student {100 - share:.0f} %", color=BLUE, va="center")
    ax.set_yticks(range(len(names)), names)
    ax.set(xlim=(0, 115), xticks=[])
    ax.tick_params(left=False)
    ax.spines[["bottom", "left"]].set_visible(False)
    return plots.Picture(
        figure,
        "Share of all operations of an epoch in which the teacher answers every text, as torch "
        "counts them. Texts of 64 tokens (ours) and of 1,024 (13 B).",
        "A bar for each pair. "
        + "; ".join(f"{n}: teacher {100 * t / (t + s):.0f} %" for n, (t, s) in pairs.items())
        + ".",
    )


def by_epochs(pairs, counted, whose):
    """What the teacher adds. pairs: {words: {"asked anew" or "kept": {epochs: times}}}, in the
    student's own training; counted: {words: {epochs: times}}, torch's count for kept answers."""
    roles = {"asked anew": "rival", "kept on disk": "student"}
    panels = {
        words: [Curve(way, at, roles[way]) for way, at in ways.items()]
        + [Curve("kept, counted", counted[words], "control")]
        for words, ways in pairs.items()
    }
    return curves(
        panels,
        x="epochs",
        y="all work ÷ the student's own",
        share=False,
        limits={
            words: (0, 1.1 * max(max(c.values.values()) for c in g)) for words, g in panels.items()
        },
        height=330,
        caption="1 is the student's training alone. Lines: 2 N and 6 N for each token; dotted: "
        f"what torch counts, with attention. Mind the two scales. {whose}",
        alt="Two panels over epochs. Asked anew, the teacher's work stays as it is; kept, it falls "
        "as one over the epochs.",
    )


def on_disk(mine, measured, everything, whose):
    """Bytes a token over k. mine: {k: bytes}; measured: {k: bytes on disk}; everything: bytes of
    all logits in half precision."""
    return curves(
        {"": [Curve("k and the rest", mine, "also")]},
        x="k: tokens kept of each answer",
        y="bytes on disk for a token of text",
        ticks={"x": sorted(mine)},
        ceiling=("all logits", everything),
        height=320,
        dots={"": measured},
        caption="A vocabulary of 1,024 tokens. Diamonds: measured by benchmarks/cache.py on "
        f"120,000 tokens, all files counted. All logits: in half precision. {whose}",
        alt="The bytes rise with k; what was measured lies on the line.",
    )


def taught(found, teacher):
    """How far each arm is behind the teacher in memory. found: {arm: {step: Estimate}}; teacher:
    (the nats of the students it taught in memory, and its own)."""
    roles = dict(zip(found, ("rival", "control", "student"), strict=True))
    student, its = teacher
    return curves(
        {"": [Curve(arm, at, roles[arm]) for arm, at in found.items()]},
        x="steps",
        y="nats behind those taught from memory",
        ticks={"x": list(next(iter(found.values())))},
        height=340,
        caption="On validation texts, field by field; bands are 95 % intervals over "
        f"{len(its.values)} fields, each with a student of its own. In the end those taught from "
        f"memory read with {student}, the teacher itself with {its}.",
        alt="Students on labels fall further and further behind. Those taught from disk stay close "
        "to zero, by drawn tokens closer than by the top 20.",
    )


def by_size(table, live):
    """How well students of several sizes read, by labels and by a teacher.

    table: rows of benchmarks/results/sizes.csv. live: {parameters: nats} of the student taught
    here, at the fewest steps."""
    its = table[table["arm"] == "its teacher"].iloc[0]
    panels, roles = {}, {"labels": "rival", "teacher": "student"}
    names = {"labels": "on labels", "teacher": "taught"}
    for steps in sorted(table["steps"].dropna().unique().astype(int)):
        own = table[table["steps"] == steps]
        panels[f"{steps} steps"] = [
            Curve(names[arm], _over_sizes(own[own["arm"] == arm]), role)
            for arm, role in roles.items()
        ]
    first, seeds = next(iter(panels)), table["seed"].nunique()
    return curves(
        panels,
        x="parameters (thousands, log scale)",
        y="nats a token on unread text (lower is better)",
        log=True,
        ticks={"x": [round(x) for x in panels[first][0].values]},
        ceiling=("teacher", float(its["nats"])),
        height=360,
        dots={first: {n / 1000: nats for n, nats in live.items()}},
        caption="Students that start from nothing, on labels or taught by the top 20 of a teacher "
        f"of {its['parameters'] / 1000:,.0f} thousand parameters, each at its best rate; bands are "
        f"95 % intervals over {seeds} students, each with its own weights and order of texts, from "
        "benchmarks/sizes.py. Diamond: one that the teacher taught here; a band is for the mean, "
        "so one student may lie outside.",
        alt="Two panels over the size of the student. After the fewer steps all sizes read about "
        "alike, better by the teacher than by labels. After the more steps the curve by labels is "
        "flat for the larger ones, while the one by the teacher falls on.",
    )


def _over_sizes(rows):
    """{thousands of parameters: Estimate over seeds}."""
    return {
        n / 1000: Estimate(own.set_index("seed")["nats"], "unread text", "nats", 1, "students")
        for n, own in rows.groupby("parameters")
    }


def workers(found, whose):
    """How far two workers are from one. found: {how they merge: {step: Estimate}}, in per cent."""
    roles = dict(zip(found, ("rival", "student"), strict=True))
    draws = len(next(iter(found["averaged"].values())).values)
    return curves(
        {"": [Curve(name, at, roles[name]) for name, at in found.items()]},
        x="steps",
        y="distance to one worker (% of its way)",
        height=320,
        caption="How far the weights are from those of a single worker that has all the texts, in "
        "per cent of how far that one has come, by plain SGD; bands are 95 % intervals over "
        f"{draws} draws of texts. {whose}",
        alt="Averaged, the two workers are two thirds of the way off at the first step and half of "
        "it at the tenth. Merged by tokens, they lie on the zero line.",
    )


def two_processes(one, two):
    """Losses of each step, in one process and in two."""
    lines = {"one process": (one, "also"), "two processes": (two, "rival")}
    return curves(
        {
            "": [
                Curve(name, dict(enumerate(losses, 1)), role)
                for name, (losses, role) in lines.items()
            ]
        },
        x="steps",
        y="training loss (nats a token)",
        height=300,
        caption="The same student, texts and seed. Eight texts a step: in one process, or four in "
        "each of two.",
        alt="The two curves are one.",
    )


@plots.style(small=True)
def memory(held, table):
    """What a step holds, what is learnt, and how much of the model takes part.

    held: {recipe: {part: bytes}}; table: benchmarks/results/recipes.csv."""
    figure, (left, middle, right) = plots.axes(
        1, 3, figsize=(10, 2.9), sharey=True, width_ratios=[3, 2, 1.2], small=True
    )
    figure.get_layout_engine().set(w_pad=0.2, h_pad=0.12)
    steps = int(table["steps"].max())
    late, names = table[table["steps"] == steps], list(held)[::-1]
    first = late[late["recipe"] == names[-1]].set_index("field")
    for row, name in enumerate(names):
        own = late[late["recipe"] == name].set_index("field")
        _filled(left, row, held[name])
        worse = Estimate(own["nats"] - first["nats"], "worse", "nats", 1, "fields")
        middle.plot(worse.interval(), [row, row], color=BLUE, linewidth=3)
        middle.plot(worse.mean, row, "o", color=BLUE, markersize=8)
        for x, share in ((0, own["trained"].mean()), (0.6, own["moved"].mean())):
            right.text(x, row, f"{share:.0f} %", va="center", color=INK)
    titles = "memory of a step (MB)", "worse than the first (nats)", "trained"
    for ax, title in zip((left, middle, right), titles, strict=True):
        ax.set_title(title, loc="left")
        ax.tick_params(left=False)
    left.set_yticks(range(len(names)), names)
    above = {"xycoords": "axes fraction", "xytext": (0, 6), "textcoords": "offset points"}
    right.annotate("moved", (0.6, 1), color=MUTED, **above)
    most = max(sum(parts.values()) for parts in held.values()) / 1e6
    left.set(xlim=(0, 1.18 * most), ylim=(-0.6, len(names) - 0.3))
    middle.grid(True, axis="x")
    right.set(xticks=[], xlim=(0, 1))
    right.spines[["bottom", "left"]].set_visible(False)
    figure.legend(loc="outside lower left", ncols=3, frameon=False)
    return plots.Picture(
        figure,
        "A student of two of the teacher's four blocks, 8 texts of 64 tokens a step. Left: here. "
        f"Middle and right: after {steps} steps, from benchmarks/recipes.py; lines are 95 % "
        f"intervals over {len(first)} fields, on unread text. Trained: numbers that learn; moved: "
        "weights that are others afterwards, LoRA's merged in; both in per cent of all weights.",
        f"Stacked bars for {len(held)} recipes: checkpointing takes less than all weights, LoRA "
        "has next to no means of Adam; together they take least. Beside them how well each reads, "
        "how many numbers it trains, and how many weights move.",
    )


def _filled(ax, row, parts):
    """What a step holds as one bar: parts {name: bytes}; the first row's go into the legend."""
    at = 0.0
    for part, colour in PARTS.items():
        size, label = parts[part] / 1e6, None if row else LEGEND.get(part, part)
        ax.barh(row, size, left=at, color=colour, height=0.6, label=label)
        at += size
    ax.text(at + 0.3, row, f"{at:.1f}", va="center", color=MUTED)
