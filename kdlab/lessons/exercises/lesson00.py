"""Exercises of lesson 00: read an interval, run an experiment of your own."""

from kdlab.evidence.intervals import Estimate
from kdlab.lessons.exercises import Exercise, Question


def _reading(answer):
    if answer not in ("A", "B", "C", "D"):
        return 'the answer is one of the letters "A", "B", "C" and "D"'
    return {
        "A": "the interval of A reaches below 0: a loss is as compatible with the data as a gain",
        "B": "",
        "C": "C has one split: seeds say nothing of how the next split would come out",
        "D": "D is a mean without an interval: nothing says how far it would move on new splits",
    }[answer]


def _own_gain(gain):
    if not isinstance(gain, Estimate):
        return (
            "the answer is what yours.minus(distilled) returns, an Estimate; "
            f"got {type(gain).__name__}"
        )
    if gain.measure != "points":
        return (
            "this is one arm alone: "
            "subtract the other with minus, so that the pairs share their split"
        )
    if "accuracy" not in gain.what:
        return "compare accuracies: minus uses them unless you name another metric"
    if (gain.values == 0).all():
        return "the two arms are the same students: change the temperature of yours"
    if gain.mean > 4:
        return "a gain this large is one over direct: the question is about distilled, at T = 4"
    return ""


EXERCISES = (
    Exercise(
        "00.1",
        _reading,
        (
            "Cross out every result that shows no interval.",
            (
                "Of the rest: was the split repeated or only the seed? "
                "And on which side of 0 is the whole interval?"
            ),
        ),
        'attempt = "B"',
        {"below 0": 'attempt = "A"', "one split": 'attempt = "C"', "letters": "attempt = 2"},
    ),
    Exercise(
        "00.2",
        _own_gain,
        (
            "Copy the line that distils and change temperature=4 to another number above 0.",
            "The answer is yours.minus(distilled), with your new runs in the place of yours.",
        ),
        """
yours = kd.distill(kd.mlp(64), teachers, tasks, on="transfer", temperature=1, alpha=1.0, \
epochs=30, seeds=2)
attempt = yours.minus(distilled)
""",
        {
            "Estimate": "attempt = 12.0",
            "subtract": (
                "attempt = kd.Estimate(pd.Series({u: 9.0 for u in 'abcd'}), "
                "'accuracy on validation', '%')"
            ),
            "same students": (
                "attempt = kd.Estimate(pd.Series({u: 0.0 for u in 'abcd'}), "
                "'difference in accuracy', 'points')"
            ),
            "over direct": (
                "attempt = kd.Estimate(pd.Series({u: 9.0 for u in 'abcd'}), "
                "'difference in accuracy', 'points')"
            ),
        },
    ),
)


QUESTIONS = {
    "00.a": Question(
        (
            "Trained on its 100 labels, the student reads nearly nine in ten new digits. What "
            "will it gain from the teacher's answers on all 1,000 images?"
        ),
        ("nothing it could not learn from the labels", "one point", "more than five points"),
        2,
        (
            "The answers carry what 1,000 labels taught it. How much of the gain comes through "
            "softness, and how much through 900 more images, lesson 04 takes apart."
        ),
    ),
}
