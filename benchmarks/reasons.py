"""Lesson 11: what answers with their steps teach, all of them or the right ones; writes
results/reasons.csv.

    python benchmarks/reasons.py                       forty minutes on a CPU core
    python benchmarks/reasons.py "chosen questions"    these arms alone; the others' rows stay

2,000 questions of kdlab.data.sums, a network with labels and, as a second task, the steps that a
program wrote which slips in three steps of ten. A unit is a split of the questions with answers
bought for it alone. Chosen questions: the right answers, where each purchase goes to a question
with the fewest right ones yet, and as many are made. Every arm takes the best of three learning
rates by the mean over the twelve splits' validation questions; then test is read, once."""

import heapq
import random
import sys
from pathlib import Path

import kdlab as kd  # first: it sets how torch's threads wait

import pandas as pd
from table import hardware

from kdlab.lessons import reasons
from kdlab.lessons.yours import reference

SPLITS, ANSWERS, RATES = 12, (1, 2, 4, 8), [3e-3, 1e-2, 3e-2]
MOST = 60  # answers that a question may cost where it is asked again and again
RESULTS = Path(__file__).parent / "results" / "reasons.csv"


def arms(purchase):
    """{(arm, answers a question): pairs to learn, or None} of the purchase with that number."""
    questions, answers, label = reasons.bought(MOST, seed=purchase)
    found = {("labels alone", 0): None, ("no slips", 1): reasons.right()}

    def right(question, answer):
        return kd.last_number(answer) == label[question]

    for count in ANSWERS:
        several = [said[:count] for said in answers]
        for arm, kept_if in (
            ("all answers", lambda question, answer: True),
            ("the right ones", right),
        ):
            found[arm, count] = reference("11.3")(questions, several, kept_if)
        # the control of quantity: as many answers as are right, taken blindly
        draw = random.Random(purchase)
        kept, every = len(found["the right ones", count]), found["all answers", count]
        found["as many, unchecked", count] = draw.sample(every, kept)
        found["chosen questions", count] = chosen(questions, answers, right, count)
    return found


def chosen(questions, answers, right, count):
    """The right answers of as many purchases, each made where there are fewest right ones yet."""
    waiting = [(0, 0, i) for i in range(len(questions))]  # right ones, asked how often, which
    kept = []
    for _ in range(count * len(questions)):
        have, asked, i = heapq.heappop(waiting)
        answer = answers[i][asked]
        if right(questions[i], answer):
            kept.append((questions[i], answer))
            have += 1
        heapq.heappush(waiting, (have, asked + 1, i))
    return kept


def main(asked):
    where, found = hardware(kd.setup(seed=0)), {}
    for number, task in enumerate(reasons.splits(SPLITS)):
        for arm, pairs in arms(number).items():
            if not asked or arm[0] in asked:
                found.setdefault(arm, []).append(reasons.taught(pairs, [task], RATES))
        print(f"split {number + 1} of {SPLITS}", flush=True)
    frame = pd.read_csv(RESULTS).query("arm not in @asked").to_dict("records") if asked else []
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
    main(sys.argv[1:])
