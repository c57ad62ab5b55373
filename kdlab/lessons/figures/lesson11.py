"""Pictures of lesson 11: what an address sends back, whether students stop, what answers are worth
over the number bought, and what the right ones are worth over all."""

from kdlab.evidence.intervals import Estimate
from kdlab.lessons import tables
from kdlab.lessons.figures.lesson09 import SIGNS, by_field
from kdlab.show import plots
from kdlab.show.curves import Curve, curves

TEXTS = {  # arms of benchmarks/language.py: name in the figure, role
    "human text": ("by people", "control"),
    "its text": ("by the teacher", "student"),
    "its text, no data": ("unasked", "also"),
}
BESIDE = {
    "all logits": ("all logits", "also"),
    "top 20": ("top 20", "student"),
    "top 5": ("top 5", "also"),
    "top 5, renormalised": ("top 5, scaled up to 1", "control"),
}
TEXT, ADDS = "Text: gained over the base student", "Likeliest tokens: gained over its text"
FORM, KEPT = "What is written", "What is kept of four answers"
FORMS = {  # arms of benchmarks/reasons.py
    "steps, then the answer": ("steps first", "student"),
    "the answer, then steps": ("answer first", "also"),
    "the answer": ("answer alone", "control"),
}
KEPTS = {
    "the right ones, of four": ("the right ones", "student"),
    "all answers, of four": ("all of them", "also"),
    "as many, unchecked": ("as many, unchecked", "control"),
}
SPLITS = "splits of the questions, each with answers of its own"


def sent_back(prompt, tokens):
    """One answer, token by token: tokens [(token, {word: probability})]."""
    return plots.tokens(
        tokens,
        f"Drawn at temperature 1 after “{prompt}”. In colour the token that came, in grey the "
        f"likeliest of the twenty that are told of each place. A student gets no more. {SIGNS}",
        "A row of columns, one for each token that was sent back, each with four words and bars.",
        title="What an API sends back: tokens, and the few likeliest of each place",
        top=4,
    )


def gain(table, arm, answers=None):
    """Nats a token below the base student's on test texts, over fields → `Estimate`."""
    rows = table[table["arm"] == arm]
    rows = rows if answers is None else rows[rows["answers"] == answers]
    base = table[table["arm"] == "base"].set_index("field")["predicts"]
    more = base - rows.set_index("field")["predicts"]
    return by_field(more, "gain on unread text", "nats", table)


def stops(found, teacher, whose):
    """Share of answers that come to an end, over steps: found {arm: {step: Estimate}}."""
    roles = {"the end learnt": "student", "the end left out": "control"}
    return curves(
        {"": [Curve(arm, at, roles[arm]) for arm, at in found.items()]},
        x="steps on the teacher's answers",
        y="answers that end within 48 tokens (%)",
        ceiling=("its teacher", teacher),
        limits=(0, 60),
        height=300,
        caption="64 answers a field to unread beginnings, drawn at temperature 1; bands are 95 % "
        f"intervals over your fields; the lines below compare field by field. {whose}",
        alt="With the end learnt the share rises towards the teacher's; without it, it stays where "
        "it was.",
    )


def by_answers(table, live, whose):
    """The main figure: what text teaches, and what comes beside it adds, over answers bought.

    table: rows of benchmarks/results/answers_bought.csv. live: {answers: Estimate}, what the top 20
    added for the reader's students."""
    counts = [int(n) for n in sorted(table["answers"].dropna().unique())]

    def lines(arms, less=None):
        found = []
        for arm, (name, role) in arms.items():
            values = {n: gain(table, arm, n) for n in counts}
            if less:  # field by field
                values = {n: value - gain(table, less, n) for n, value in values.items()}
            found.append(Curve(name, values, role))
        return found

    return curves(
        {TEXT: lines(TEXTS), ADDS: lines(BESIDE, "its text")},
        x="answers bought, of at most 48 tokens",
        y="nats a token on unread text",
        log=True,
        ticks={"x": counts},
        height=400,
        dots={ADDS: live},
        caption="On test texts, field by field. Left, by people: as many tokens of the field's own "
        "text; unasked: answers to nothing. Right: the teacher's likeliest tokens are learnt in "
        "place of the token that came. Means over eight fields; bands are 95 % intervals, from "
        "benchmarks/language.py. Each dot has its own best rate and stops at its own best step, by "
        f"three fields' validation texts. Diamond: your students on their fields. {whose}",
        alt="Left: all three rise with the number of answers, text by people the most. Right: all "
        "logits add most, then the top 20; the top 5 add less, and scaled up to 1 next to nothing.",
    )


def right(table, arm, steps):
    """One cell of benchmarks/results/reasons.csv → `Estimate`, over splits."""
    rows = table[(table["arm"] == arm) & (table["steps"] == steps)]
    units = tables.over(table, SPLITS)
    return Estimate(rows.set_index("split")["right"], "right answers on test", "%", 1, units)


def by_steps(table, mine, whose):
    """Right answers over training: by the form of the text, and by what is kept of the answers.

    table: rows of benchmarks/results/reasons.csv. mine: {step: per cent} of the reader's student,
    which learns the right ones."""

    def line(arm, name, role):
        marks = sorted(table.loc[table["arm"] == arm, "steps"].unique())
        return Curve(name, {int(n): right(table, arm, n) for n in marks}, role)

    lines = {
        panel: [line(arm, name, role) for arm, (name, role) in arms.items()]
        for panel, arms in {FORM: FORMS, KEPT: KEPTS}.items()
    }
    return curves(
        lines,
        x="steps of training",
        y="right answers on test (%)",
        limits=(0, 100),
        height=360,
        dots={KEPT: mine},
        caption="A language model of 109 thousand parameters that begins with nothing and learns "
        "2,000 questions, 32 a step. Left: a teacher that never slips, and what of its answer is "
        "written. Right: one that slips in three steps of ten, four answers a question. As many, "
        "unchecked: a random draw, as large as the right ones. Means over six splits, each with "
        "answers of its own; bands are 95 % intervals, from benchmarks/reasons.py, each arm at its "
        f"best rate by validation. Diamonds: your student, on the right ones. {whose}",
        alt="Left: written first, the steps bring the share of right answers from a tenth to all; "
        "behind the answer they bring four tenths, and with the answer alone it stays at a tenth. "
        "Right: the right ones are learnt sooner; in the end all three come close, all of them "
        "with a wide band.",
    )
