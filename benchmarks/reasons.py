"""Lesson 11: small language models that write their steps, or the answer alone; writes
results/reasons.csv.

    python benchmarks/reasons.py                                an hour and a quarter, one core
    python benchmarks/reasons.py "the right ones, of four"      these arms alone; the others stay
    KDLAB_REPEAT=1 python benchmarks/reasons.py                 again on other splits, see again.py

Questions of kdlab.data.sums, 2,000 to learn from. The teacher is a program: one that never slips,
for three forms of the text, or one that slips in three steps of ten, whose four answers a question
are learnt all, or the right ones, or as many taken blindly. A unit is a split of the questions with
answers bought for it alone. Each arm takes the rate that is best, at its best mark up to 600 steps,
on validation questions of splits that are not measured: of one where the teacher is right, in the
mean of three where it slips, since there one split says little. Where the best is an edge of the
grid, the grid grows (results/rates.csv). Then six splits are learnt and their test questions asked,
once a mark."""

import functools
import random
import sys
from pathlib import Path

import kdlab as kd  # first: it sets how torch's threads wait

import again
from rates import choose, note
from table import hardware, write

from kdlab.base.repeats import fresh, repetition
from kdlab.lessons import reasons
from kdlab.lessons.yours import reference

SPLITS, TRIED, BOUGHT = range(1, 7), (100, 101, 102), 4
RATES, TRIES, MARKS = (3e-4, 1e-3, 3e-3), (150, 300, 600), (150, 300, 600, 1200)
FORMS = "the answer", "the answer, then steps", "steps, then the answer"
SLIPPED = "all answers, of four", "the right ones, of four", "as many, unchecked"
RESULTS = Path(__file__).parent / "results" / "reasons.csv"


@functools.cache
def purchase(number):
    return reasons.bought(BOUGHT, seed=number)


def pairs_of(arm, number):
    """(question, answer) of a split, as an arm learns them."""
    questions, said, label = purchase(number)
    own = set(reasons.split(questions, number)["train"])
    if arm in FORMS:
        return [pair for pair in reasons.right(arm) if pair[0] in own]

    def learnt(kept_if):
        pairs = reference("11.3")(questions, said, kept_if)
        return [pair for pair in pairs if pair[0] in own]

    every, kept = learnt(lambda *_: True), learnt(lambda q, a: kd.last_number(a) == label[q])
    of = {"all answers, of four": every, "the right ones, of four": kept}
    # the control of quantity: as many answers as are right
    return of.get(arm) or random.Random(fresh(number)).sample(every, len(kept))


def measured(arm, number, lr, part, tokenizer, marks):
    """{step: per cent of right answers} of one student."""
    questions, _, label = purchase(number)
    asked = reasons.split(questions, number)[part]
    return reasons.taught(
        pairs_of(arm, number),
        tokenizer,
        lr,
        marks,
        lambda model: reasons.right_of(model, tokenizer, asked, label),
        seed=number,
    )


def over_splits(arm, lr, tokenizer, where):
    """Rows of one arm: six splits learnt, their test questions asked at every mark."""
    return [
        {"arm": arm, "lr": lr, "split": number, "steps": step, "right": round(value, 2)} | where
        for number in SPLITS
        for step, value in measured(arm, number, lr, "test", tokenizer, MARKS).items()
    ]


def main(asked):
    where, tokenizer = hardware(kd.setup(seed=0)), reasons.tokenizer()
    if repetition():
        rates = again.known("reasons").groupby("arm")["lr"].first()
        rows = [over_splits(arm, rates[arm], tokenizer, where) for arm in (*FORMS, *SLIPPED)]
        return again.add("reasons", sum(rows, []))
    for arm in asked or (*FORMS, *SLIPPED):
        tried = TRIED if arm in SLIPPED else TRIED[:1]

        def wrong(rates, arm=arm, tried=tried):
            """Per cent of wrong answers, in the mean over the splits, at its best mark."""
            found = {}
            for lr in rates:
                ats = [measured(arm, n, lr, "validation", tokenizer, TRIES) for n in tried]
                found[lr] = min(100 - sum(at[step] for at in ats) / len(ats) for step in TRIES)
            return found

        lr, found = choose(wrong, RATES)
        note("reasons", arm, None, found, where)
        print(arm, lr, found, flush=True)
        write(RESULTS, over_splits(arm, lr, tokenizer, where), same=("arm", "hardware"), show=False)


if __name__ == "__main__":
    main(sys.argv[1:])
