"""Pictures of lesson 10: what a student writes as its teacher finds it, who writes × which KL over
steps, likelier against plainer, and one token's push on all."""

from kdlab.lessons.figures.lesson09 import SIGNS, above_untaught, by_field, measured
from kdlab.show import plots
from kdlab.show.colours import BLUE, GREEN, GREY, INK, MUTED
from kdlab.show.curves import Curve, curves
from kdlab.show.picture import Picture
from kdlab.show.sheet import BOLD, EDGE, WIDTH, heading, on_sheet, panel, sheet, wrapped

KLS = ("forward KL", "reverse KL")
WRITERS = {"data": "control", "teacher": "rival", "student": "student"}  # writer: role
NAMES = {"data": "the data", "teacher": "the teacher, anew", "student": "the student"}
LOOKS = {  # of `plainer`: the colour says who writes, the mark by which KL
    "before": (INK, "^"),
    "data, forward KL": (GREY, "o"),
    "data, reverse KL": (GREY, "s"),
    "student, forward KL": (BLUE, "o"),
    "student, reverse KL": (BLUE, "s"),
    "teacher": (GREEN, "D"),
}


def estimate(table, arm, measure, step=None):
    """One cell of benchmarks/results/whose_text.csv, over fields → `Estimate`.

    arm: "before" is the untaught student, with which every arm begins."""
    if arm == "before":
        arm, step = table["arm"].iloc[0], 0
    rows = table[table["arm"] == arm]
    rows = rows if step is None else rows[rows["step"] == step]
    return measured(rows.set_index("field")[measure], measure, table)


def exposed(table, step):
    """Lines of results/exposure.csv: each arm's distance to its teacher, after whose words.

    Means over fields with their intervals; before: the untaught student, with which all begin."""
    columns = ("after the data's words", "after its own")
    lines = [f"{'':<22}" + "".join(f"{name:<24}" for name in columns).rstrip()]
    for arm in ("before", *table["arm"].unique()):
        first, at = (table["arm"].iloc[0], 0) if arm == "before" else (arm, step)
        rows = table[(table["arm"] == first) & (table["step"] == at)].set_index("field")
        found = [by_field(rows[name], "reverse KL", "nats", table) for name in columns]
        lines.append(f"{arm:<22}" + "".join(f"{str(e):<24}" for e in found).rstrip())
    return "\n".join(lines)


def first_screen(texts):
    """texts {field: [(token, the teacher's probability, None of what was given)]}."""
    return plots.tokens(
        texts,
        "Grey: the beginning of a docstring that the student has not read. Then what it writes, "
        "drawn at temperature 1, each token shaded by its probability under the teacher. "
        f"{SIGNS}",
        "Three short texts side by side. After the grey beginning many tokens are dark.",
        title="The student goes on by itself. How likely does its teacher find each token?",
    )


def before_and_after(panels, shares, whose):
    """panels {name: [text, …]}, each as in first_screen; shares {name: Estimate}: of the tokens of
    many texts to which the teacher gives less than 0.1 %."""
    told = "; ".join(f"{name}: {share}" for name, share in shares.items())
    return plots.tokens(
        {f"{name}: {shares[name].mean:.0f} % hardly said": texts for name, texts in panels.items()},
        "Beginnings from three fields, each with its own student. Hardly said: tokens to which the "
        "teacher gives less than 0.1 %, in 32 texts a field, a mean over the fields. "
        f"{told}. {SIGNS} {whose}",
        "Three columns of texts. The student's have fewer dark tokens after training than before, "
        "the teacher's own have the fewest.",
        title="What the teacher would hardly say: before, after, and in its own text",
    )


ROWS = {  # of the main figure: what each row shows, of the "{KL}" in its two panels
    "predicts": "loss on unread text",
    "writes": "what it writes, to its teacher",
    "differs": "the same, minus the data's",
}


def over_steps(table, live, whose):
    """The main figure: who writes × which KL, over steps, how it predicts and how it writes.

    table: the rows of benchmarks/results/whose_text.csv. live: {a panel's arm: {step: {"predicts":
    Estimate, "writes": …}}}, of the reader's own students."""
    steps = sorted(set(table["step"].dropna()))
    panels, dots, ceiling, limits = {}, {}, {}, {}

    def value(row, writer, kl, step):
        if row != "differs":
            return estimate(table, f"{writer}, {kl}", row, step)
        its, datas = (estimate(table, f"{w}, {kl}", "writes", step) for w in (writer, "data"))
        return its - datas

    for row, words in ROWS.items():
        titles = {f"{kl.capitalize().replace('kl', 'KL')}: {words}": kl for kl in KLS}
        for title, kl in titles.items():
            panels[title] = [
                Curve(NAMES[writer], {s: value(row, writer, kl, s) for s in steps}, role)
                for writer, role in WRITERS.items()
            ]
            if row != "differs":
                dots[title] = {s: found[row] for s, found in live.get(kl, {}).items() if s}
                ceiling[title] = ("its teacher", estimate(table, "teacher", row))
        drawn = [e for t in titles for curve in panels[t] for e in curve.values.values()]
        drawn += [e for t in titles for e in (*dots.get(t, {}).values(), *ceiling.get(t, ())[1:])]
        ends = [end for e in drawn for end in e.interval()]
        limits |= dict.fromkeys(titles, (min(ends) - 0.05, max(ends) + 0.05))
    return curves(
        panels,
        x="steps from the base student",
        y="nats a token (lower is better)",
        ticks={"x": steps},
        columns=2,
        height=290,
        ceiling=ceiling,
        limits=limits,
        dots=dots,
        caption="Who writes the text that is learnt from, by either KL: how badly the student "
        "predicts unread text, and how unlikely its teacher finds what it writes. Last row: the "
        "same minus that of the data's student, field by field. Bands are 95 % intervals over six "
        "fields, on test texts, from benchmarks/language.py. Diamonds: the students trained just "
        "now, on the data by the forward KL and on own text by the reverse. Rates were chosen on "
        "validation texts: by the reverse KL for the writing; by the forward KL, after which it is "
        f"odder at any rate, for the predictions, as in lesson 09. {whose}",
    )


@on_sheet
def plainer(table, step):
    """Likelier text against more varied text: each student drawn at temperature 1 and at 0.8."""
    figure, canvas = sheet(392)
    heading(canvas, f"After {step} steps, each drawn at temperature 1 and at 0.8")
    ax = panel(figure, EDGE + 56, 78, 560, 252)
    ax.grid(True, axis="both")
    for arm in LOOKS:
        _at_both(ax, table, arm, step)
    canvas.text(EDGE, 66, "the teacher's nats a token (lower: likelier)", color=MUTED)
    canvas.text(
        EDGE + 336, 386, "distinct pairs of tokens (%): more varied →", color=MUTED, ha="center"
    )
    x = EDGE + 660
    for k, (arm, (colour, mark)) in enumerate(LOOKS.items()):
        y = 100 + 36 * k
        canvas.plot(x, y, mark, color=colour, markersize=9)
        words = arm.replace("student,", "own text,").replace("data,", "the data,")
        canvas.text(
            x + 16, y + 5, words.replace("teacher", "its teacher"), color=INK, fontweight=BOLD
        )
    canvas.text(x - 4, 318, "filled: drawn at 1; hollow: at 0.8", color=MUTED)
    above = {arm: above_untaught(table, arm, step) for arm in LOOKS if "reverse" in arm}
    return Picture(
        figure,
        f"Students after {step} steps, and their teacher, drawn at temperature 1 (filled) and 0.8 "
        "(hollow); not drawn are those of the teacher's text. Before: the untaught student. Thin "
        "bars are 95 % intervals over six fields. At equal variety, above the untaught student's "
        f"line: the data, reverse KL {above['data, reverse KL']}; own text, reverse KL "
        f"{above['student, reverse KL']}.",
        "Dots joined in pairs. Drawn at 0.8 every writer moves down and to the left: likelier to "
        "the teacher, and less varied. At temperature 1 the reverse KL on the data lies above the "
        "untaught student's line, on own text below it, and the teacher far below.",
    )


def _at_both(ax, table, arm, step):
    """A writer's two dots, drawn at temperature 1 and at 0.8, with their intervals, joined."""
    colour, mark = LOOKS[arm]
    at, points = None if arm in ("teacher", "before") else step, []
    for drawn in ("", " at 0.8"):
        x = estimate(table, arm, f"distinct{drawn}", at)
        y = estimate(table, arm, f"writes{drawn}", at)
        look = {"color": colour, "alpha": 0.45, "linewidth": 2, "zorder": 2}
        ax.plot(x.interval(), [y.mean] * 2, **look)
        ax.plot([x.mean] * 2, y.interval(), **look)
        points.append((x.mean, y.mean))
    xs, ys = zip(*points, strict=True)
    dashes = "solid" if arm == "before" else (0, (2, 2))
    ax.plot(xs, ys, color=colour, linewidth=1.5, linestyle=dashes, zorder=2)
    for (x, y), face in zip(points, (colour, "white"), strict=True):
        ax.plot(x, y, mark, markersize=9, color=colour, markerfacecolor=face, zorder=4)


@on_sheet
def pushes(words, chances, drawn, full):
    """What a step would do to each logit, by the token that happened to be drawn.

    words: V strings; chances {"student": (V,), "teacher": (V,)}; drawn {name: (V, V)}, row y the
    push where y was drawn; full (V,), the push where all are weighed."""
    count, tall, left = len(words), 136, EDGE + 128
    figure, canvas = sheet(104 + tall * len(drawn))
    heading(canvas, "One token is drawn. How are all four logits pushed?")
    wide = (WIDTH - EDGE - left) / (count + 2)
    highest = 1.1 * max(float(rows.abs().max()) for rows in drawn.values())
    for column, head in enumerate(
        [*(f"drawn: {w}" for w in words), "mean of draws", "all weighed"]
    ):
        x = left + column * wide
        canvas.text(x, 68, head, fontweight=BOLD, color=INK)
        if column < count:
            q, p = (100 * float(chances[who][column]) for who in ("student", "teacher"))
            canvas.text(x, 87, f"{q:.0f} % (teacher {p:.0f} %)", color=MUTED, fontsize=11.5)
    for row, (name, rows) in enumerate(drawn.items()):
        top = 100 + row * tall
        canvas.text(EDGE, top + 50, wrapped(name, 14), color=INK, va="center", linespacing=1.3)
        mean = (chances["student"][:, None] * rows).sum(0)
        for column, push in enumerate([*rows, mean, full]):
            ax = panel(figure, left + column * wide, top, wide - 22, 96, ylim=(-highest, highest))
            ax.axhline(0, color=GREY, linewidth=1)
            ax.bar(range(count), push.tolist(), width=0.7, color=MUTED)
            ax.set(xticks=range(count), yticks=[])
            ax.set_xticklabels(words, fontsize=11)
            ax.grid(False)
    return Picture(
        figure,
        "A vocabulary of four; per cent: how often the student draws a token, and how likely its "
        "teacher finds it. Bars: minus the gradient of the reverse KL by the student's logits. All "
        "bars to one scale. The mean counts each draw as often as it comes.",
        "Two rows of bars. Each drawn token pushes the logits in another way; in both rows the "
        "mean of the draws is the same as the push in which all tokens are weighed.",
    )
