"""Lesson 11: what answers with their steps teach, all of them or the right ones; writes
results/reasons.csv.

    python benchmarks/reasons.py        about ten minutes on a CPU core

2,000 questions of kdlab.data.sums, a network with labels and, as a second task, the steps that a
program wrote which slips in three steps of ten. Every arm takes the best of four learning rates
by the mean over twelve splits' validation questions; then test is read, once."""

from pathlib import Path

import kdlab as kd  # first: it sets how torch's threads wait

import pandas as pd
from table import hardware

from kdlab.lessons import reasons
from kdlab.lessons.yours import reference

SPLITS, ANSWERS, RATES = 12, (1, 2, 4, 8), (1e-3, 3e-3, 1e-2, 3e-2)
RESULTS = Path(__file__).parent / "results" / "reasons.csv"


def arms():
    """{(arm, answers a question): pairs to learn, or None}."""
    questions, answers, label = reasons.bought(max(ANSWERS))
    found = {("labels alone", 0): None}
    for count in ANSWERS:
        several = [said[:count] for said in answers]
        for arm, right in (
            ("all answers", lambda question, answer: True),
            ("the right ones", lambda q, answer: kd.last_number(answer) == label[q]),
        ):
            found[arm, count] = reference("11.3")(questions, several, right)
    return found | {("no slips", 1): reasons.right()}


def main():
    where, frame = hardware(kd.setup(seed=0)), []
    for (arm, count), pairs in arms().items():
        tried = {lr: reasons.taught(pairs, SPLITS, lr) for lr in RATES}
        lr = max(tried, key=lambda lr: tried[lr].estimate().mean)
        for unit, value in tried[lr].estimate(on="test").values.items():
            row = {"arm": arm, "answers": count, "lr": lr, "split": unit}
            frame.append(row | {"accuracy": round(value, 3)} | where)
        print(
            arm,
            count,
            {lr: round(runs.estimate().mean, 2) for lr, runs in tried.items()},
            flush=True,
        )
        pd.DataFrame(frame).to_csv(RESULTS, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
