"""Lesson 11: what answers with their steps teach, all of them or the right ones; writes
results/reasons.csv.

    python benchmarks/reasons.py        about ten minutes on a CPU core

2,000 questions of kdlab.data.sums, a network with labels and, as a second task, the steps that a
program wrote which slips in three steps of ten. A unit is a split of the questions with answers
bought for it alone. Every arm takes the best of three learning rates by the mean over the twelve
splits' validation questions; then test is read, once."""

import random
from pathlib import Path

import kdlab as kd  # first: it sets how torch's threads wait

import pandas as pd
from table import hardware

from kdlab.lessons import reasons
from kdlab.lessons.yours import reference

SPLITS, ANSWERS, RATES = 12, (1, 2, 4, 8), [3e-3, 1e-2, 3e-2]
RESULTS = Path(__file__).parent / "results" / "reasons.csv"


def arms(purchase):
    """{(arm, answers a question): pairs to learn, or None} of the purchase with that number."""
    questions, answers, label = reasons.bought(max(ANSWERS), seed=purchase)
    found = {("labels alone", 0): None, ("no slips", 1): reasons.right()}
    for count in ANSWERS:
        several = [said[:count] for said in answers]
        for arm, right in (
            ("all answers", lambda question, answer: True),
            ("the right ones", lambda q, answer: kd.last_number(answer) == label[q]),
        ):
            found[arm, count] = reference("11.3")(questions, several, right)
        # the control of quantity: as many answers as are right, taken blindly
        draw = random.Random(purchase)
        kept, every = len(found["the right ones", count]), found["all answers", count]
        found["as many, unchecked", count] = draw.sample(every, kept)
    return found


def main():
    where, found = hardware(kd.setup(seed=0)), {}
    for number, task in enumerate(reasons.splits(SPLITS)):
        for arm, pairs in arms(number).items():
            found.setdefault(arm, []).append(reasons.taught(pairs, [task], RATES))
        print(f"split {number + 1} of {SPLITS}", flush=True)
    frame = []
    for (arm, count), runs in found.items():
        validation = {
            lr: sum(one.where(lr=lr).values()["value"].mean() for one in runs) / len(runs)
            for lr in RATES
        }
        lr = max(validation, key=validation.get)
        print(arm, count, {lr: round(100 * mean, 2) for lr, mean in validation.items()})
        for one in runs:
            ((unit, value),) = one.where(lr=lr).values(on="test")[["unit", "value"]].to_numpy()
            row = {"arm": arm, "answers": count, "lr": lr, "split": unit}
            frame.append(row | {"accuracy": round(100 * value, 3)} | where)
    pd.DataFrame(frame).to_csv(RESULTS, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
