"""Pictures of lesson 09: a sentence word by word, two peaks, which divergence over steps, what its
students write, a teacher out of place, and where the memory goes."""

import pandas as pd

from kdlab.evidence.intervals import Estimate
from kdlab.lessons import tables
from kdlab.show import plots
from kdlab.show.colours import BLUE, FAINT, GREY, INK, MUTED
from kdlab.show.curves import Curve, curves
from kdlab.show.picture import Picture
from kdlab.show.sheet import BOLD, EDGE, WIDTH, on_sheet, panel, sheet

ROLES = {  # of the arms of benchmarks/language.py
    "labels": "rival",
    "forward KL": "student",
    "JSD": "also",
    "skewed reverse KL": "also",
    "reverse KL": "control",
    "teacher as it is": "student",
    "teacher tuned first": "also",
}
UNITS = "fields, with one teacher and one base student"
MEASURES = {  # of kdlab.lessons.language.measures: what, unit
    "predicts": ("loss on unread text", "nats"),
    "writes": ("its teacher's loss on what it writes", "nats"),
    "distinct": ("distinct pairs", "%"),
}
SIGNS = "<s> begins and ends a text; ⏎ is a new line."


def by_field(found, what, unit="", table=None):
    """{field: value} → `Estimate`. table: the one that the values were read off."""
    units = UNITS if table is None else tables.over(table, UNITS)
    return Estimate(pd.Series(found), what, unit, 1, units)


def measured(found, measure, table=None):
    """{field: value} of one of MEASURES, or of that "at 0.8" → `Estimate`."""
    return by_field(found, *MEASURES[measure.removesuffix(" at 0.8")], table)


def word_by_word(models):
    """Each token of a sentence, and what the models expected there.

    models: {name: [(token, {word: probability})]}."""
    return plots.tokens(
        models,
        "A docstring that neither model has read. In colour the token that came and how likely it "
        f"was held, in grey the likeliest others. {SIGNS}",
        "Two rows of columns. The teacher has many of the tokens that came among its first words, "
        "with others of the same kind; the student hardly any.",
        title="A token came. The teacher also says what could have come.",
        top=4,
    )


def after(models, field):
    """The same sentence, read by students of one field; models as in `word_by_word`."""
    return plots.tokens(
        models,
        f"The first sentence again, read by students of the field {field}.",
        "Rows of columns, one for each student, with four words and bars under each token.",
        title="The first docstring again, after training",
        top=4,
    )


@on_sheet
def two_peaks(x, teacher, bells, whose):
    """The teacher's two peaks, and the bell that each divergence ends in. All (V,) logits."""
    figure, canvas = sheet(250)
    wide = (WIDTH - 2 * EDGE - 30) / len(bells)
    top = 1.05 * max(float(z.softmax(-1).max()) for z in (teacher, *bells.values()))
    for i, (name, bell) in enumerate(bells.items()):
        left = EDGE + i * (wide + 30)
        canvas.text(left, 30, name, fontsize=15, fontweight=BOLD, color=INK)
        ax = panel(figure, left, 46, wide, 150, xlim=(float(x[0]), float(x[-1])))
        ax.fill_between(x, teacher.softmax(-1), color=FAINT)
        ax.plot(x, bell.softmax(-1), color=BLUE, linewidth=2.8)
        ax.set(yticks=[], xticks=[], ylim=(0, top))
    canvas.text(WIDTH / 2, 232, f"{len(x)} tokens in a row", color=MUTED, ha="center")
    return Picture(
        figure,
        f"Grey: the teacher's probabilities. Blue: the student's, the best of nine starts. {whose}",
        "Under the forward KL a low broad bell covers both peaks and the valley between; under the "
        "reverse KL a narrow one stands on the taller peak alone.",
    )


def over_fields(table, arm, step, measure):
    """One arm at one step, a value a field → `Estimate`, in nats (or %)."""
    rows = table[(table["arm"] == arm) & ((table["step"] == step) | table["step"].isna())]
    return measured(rows.set_index("field")[measure], measure, table)


def above_untaught(table, arm, step):
    """How much odder a student writes than the untaught one drawn cooler, at equal variety.

    table: rows of results/which_kl.csv or whose_text.csv, in which every arm begins untaught. Over
    fields: the height above a straight line that falls as the untaught student's means do from 1 to
    0.8, through each field's own text at 0.8."""
    first = table["arm"].iloc[0]
    warm, cool = (
        {m: over_fields(table, first, 0, f"{m}{drawn}") for m in ("writes", "distinct")}
        for drawn in ("", " at 0.8")
    )
    rise, run = (warm[m].mean - cool[m].mean for m in ("writes", "distinct"))
    odder, varied = (
        (over_fields(table, arm, step, m) - cool[m]).values for m in ("writes", "distinct")
    )
    return by_field(odder - varied * rise / run, "difference at equal variety", "nats", table)


def _over_steps(table, measure):
    steps = sorted(table["step"].dropna().unique())
    return [
        Curve(arm, {int(s): over_fields(table, arm, s, measure) for s in steps}, ROLES[arm])
        for arm in ROLES
        if (table["arm"] == arm).any()
    ]


PREDICTS = "How badly it predicts unread text"
WRITES = "How odd the teacher finds what it writes"


def over_steps(table, mine, whose):
    """The main figure: prediction and writing over steps, an arm a line.

    table: rows of benchmarks/results/which_kl.csv. mine: {measure: {step: Estimate}} of the
    reader's students on the forward KL."""
    found = {PREDICTS: "predicts", WRITES: "writes"}
    return curves(
        {title: _over_steps(table, measure) for title, measure in found.items()},
        x="steps",
        y="nats a token (lower is better)",
        share=False,
        height=380,
        ceiling={
            title: ("teacher", over_fields(table, "teacher", None, measure))
            for title, measure in found.items()
        },
        dots={title: mine[measure] for title, measure in found.items()},
        caption="Means over six fields; bands are 95 % intervals, from benchmarks/language.py, "
        "each arm at its best rate. Diamonds: your students on the forward KL, with the interval "
        f"over their fields. {whose}",
        alt="Left: by the forward KL loss falls most, by the reverse KL least, and labels rise "
        "again. Right: the reverse KL stays lowest, the labels rise highest.",
    )


def sounds(texts, table, step):
    """What each student writes, shaded by the teacher. texts: {name: [(token, probability)]}.

    table: rows of results/which_kl.csv, for the mean over its fields at that step."""
    means = {name: over_fields(table, name, step, "writes").mean for name in texts}
    return plots.tokens(
        {f"{name}: {means[name]:.1f} nats": text for name, text in texts.items()},
        "One beginning of an unread docstring (grey), continued by each at temperature 1. Dark is "
        f"what the teacher finds unlikely. Above each its nats a token after {step} steps, a mean "
        f"over the table's six fields, 32 texts each. {SIGNS}",
        "Four short texts side by side. The students' have many dark tokens, the teacher's few.",
        title="What they write, read by the teacher",
    )


def unknown_text(table, mine, whose):
    """Prediction of unread source code over steps; the teacher itself as a line.

    table: rows of benchmarks/results/unknown_text.csv. mine: {step: Estimate} of the reader's
    students on labels."""
    return curves(
        {"The text is code": _over_steps(table, "predicts")},
        x="steps",
        y="nats a token on unread code",
        height=320,
        ceiling=("the teacher itself", over_fields(table, "teacher", None, "predicts")),
        dots={"The text is code": mine},
        caption="Six fields' source code; bands are 95 % intervals, from benchmarks/language.py. "
        f"Diamonds: your students on labels. {whose}",
    )


TAUGHT = {  # arms of benchmarks/real_lm.py, and what stands in the lesson's table
    "the teacher": "the teacher itself",
    "the teacher tuned": "the teacher itself, tuned",
    "labels": "students: labels",
    "teacher as it is": "students: teacher as it is",
    "teacher tuned first": "students: teacher tuned first",
    "mixture": "students: half labels, half tuned teacher",
}


def three_splits(table, steps):
    """Rows of results/real_lm.csv → lines of means over three splits with 95 % intervals."""
    t = 4.303  # Student's, of two degrees of freedom
    lines = [f"{'':<43}" + "".join(f"{f'{s} steps':<14}" for s in steps).rstrip()]
    for arm, name in TAUGHT.items():
        rows = table[table["arm"] == arm]
        at = [rows[rows["step"] == s] for s in steps] if rows["step"].notna().all() else [rows]
        nats = [part["nats"] for part in at]
        told = [f"{n.mean():.2f} ± {t * n.std() / len(n) ** 0.5:.2f}" for n in nats]
        lines.append(f"{name:<43}" + "".join(f"{each:<14}" for each in told).rstrip())
    return "\n".join(lines)


WAYS = {"kdlab": "kdlab, in chunks", "full logits, TokenLoss": "full logits", "TRL": "TRL"}


@on_sheet
def memory(table):
    """Peak of memory of one loss, a bar a way to compute it. table: rows of results/fused.csv."""
    peak = table.set_index("arm")["peak_MB"]
    where = table["hardware"].iloc[0]
    table = table[table["arm"].isin(WAYS)].replace({"arm": WAYS}).sort_values("peak_MB")
    tall, top, widest = 30, 44, table["peak_MB"].max()
    figure, canvas = sheet(top + tall * len(table) + 20)
    ax = panel(figure, EDGE + 260, top, WIDTH - 2 * EDGE - 330, tall * len(table))
    ax.set(ylim=(len(table) - 0.5, -0.5), yticks=[])
    ax.grid(False)
    for i, row in enumerate(table.itertuples()):
        ours = row.arm.startswith("kdlab")
        ax.barh(i, row.peak_MB, color=BLUE if ours else GREY, height=0.6)
        ax.text(row.peak_MB + widest / 80, i, f"{row.peak_MB:,.0f} MB", va="center", color=INK)
        canvas.text(EDGE, top + tall * (i + 0.5) + 5, row.arm, color=INK)
    ax.set_xticks([])
    canvas.text(EDGE, 28, "Memory at the peak", fontsize=15, fontweight=BOLD, color=INK)
    return Picture(
        figure,
        "One loss and its gradient at 1,024 positions, with a vocabulary of 32,768, measured by "
        f"benchmarks/fused.py on {where}. Liger, which also works in chunks, takes "
        f"{peak['Liger, compiled']:,.0f} MB compiled and {peak['Liger, not compiled']:,.0f} not.",
        "; ".join(f"{row.arm}: {row.peak_MB:.0f} MB" for row in table.itertuples()) + ".",
    )
