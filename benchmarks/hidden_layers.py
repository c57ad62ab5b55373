"""What a student gains by the teacher's logits and by its hidden layers, over the number of images
and the budget; writes results/hidden_layers.csv, the bands of lesson 06.

    python benchmarks/hidden_layers.py        about three quarters of an hour on two CPU cores

It goes on where it stopped; --again begins anew.

Every arm takes the weight (logits: the temperature) that is best on validation, for each number of
images and budget by itself. A row holds the accuracy of one split, on validation and on test, and
which of the arm's settings was taken. Controls: label smoothing, and (400 steps) the layers of a
teacher that was never trained. There, with a hundred images, similarity is also tried between other
layers."""

import argparse
import itertools
from pathlib import Path

import kdlab as kd  # first: it sets how torch's threads wait

import pandas as pd
from kdlab.losses import features

RESULTS = Path(__file__).parent / "results" / "hidden_layers.csv"
SIZES, STUDENT = (1000, 437, 360), kd.convnet(4, 8)
LABELS_A_CLASS = (5, 10, 30, 90)
STEPS = (100, 400, 1600)
LATE = ("3", "3")  # layer names, the student's first
WEIGHTS = {
    features.fitnets: (1, 10, 100, 1000),
    features.attention_transfer: (1, 10, 100, 1000),
    features.similarity: (1e3, 1e4, 1e5, 1e6),
    features.rkd_distance: (10, 100, 1000, 10_000),
}


def hidden(distance, pair=LATE, base=None):
    return [kd.HiddenLoss(distance, [pair], w, base) for w in WEIGHTS[distance]]


ALONE = {
    "labels": [kd.HardLabels()],
    "label smoothing": [kd.LabelSmoothing(s) for s in (0.1, 0.2, 0.4)],
}
TAUGHT = {
    "logits": [kd.KDLoss(T, 0.9) for T in (2, 4, 8)],
    "FitNets": hidden(features.fitnets),
    "attention": hidden(features.attention_transfer),
    "similarity": hidden(features.similarity),
    "relational": hidden(features.rkd_distance),
    "logits + attention": hidden(features.attention_transfer, base=kd.KDLoss(8, 0.9)),
}
UNTRAINED = {
    "FitNets, untrained teacher": hidden(features.fitnets),
    "similarity, untrained teacher": hidden(features.similarity),
}
ELSEWHERE = {
    f"similarity, {s} from {t}": hidden(features.similarity, (s, t))
    for s, t in (("1", "1"), ("1", "3"), ("3", "1"))
}


def best_of(objectives, tasks, teacher, **how):
    """(which of the objectives is best on validation, its runs)."""
    tried = [kd.sweep(STUDENT, tasks, teacher=teacher, objective=o, **how) for o in objectives]
    best = max(tried, key=lambda runs: runs.estimate().mean)
    return tried.index(best), best


def rows_of(setting, runs, **place):
    for part in ("validation", "test"):
        for unit, value in runs.estimate(on=part).values.items():
            yield place | dict(setting=setting, part=part, unit=unit, accuracy=round(value, 4))


def measured(path):
    """The rows that stand there, and of which (images, steps)."""
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    return rows, {(row["images"], row["steps"]) for row in rows}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    if options.again:
        options.out.unlink(missing_ok=True)
    rows, done = measured(options.out)
    kd.setup(seed=0)
    whole = kd.splits("digits", options.splits, sizes=SIZES)
    teacher = kd.convnet(16, 32, dropout=0.5)
    taught = kd.train(teacher, whole, epochs=20, lr=1e-2, batch=64)
    untrained = kd.train(teacher, whole, epochs=1, lr=1e-9, batch=64)
    if not rows:
        rows = list(rows_of(0, taught, images=SIZES[0], steps=0, arm="teacher"))
    for each, steps in itertools.product(LABELS_A_CLASS, STEPS):
        if (10 * each, steps) in done:
            continue
        tasks = kd.splits("digits", options.splits, sizes=SIZES, labels_per_class=each)
        batch = min(50, 5 * each)
        how = dict(epochs=round(steps * batch / (10 * each)), lr=1e-2, batch=batch)
        arms = [(arm, objectives, None) for arm, objectives in ALONE.items()]
        arms += [(arm, objectives, taught) for arm, objectives in TAUGHT.items()]
        if steps == 400:
            arms += [(arm, objectives, untrained) for arm, objectives in UNTRAINED.items()]
        if steps == 400 and each == 10:
            arms += [(arm, objectives, taught) for arm, objectives in ELSEWHERE.items()]
        for arm, objectives, its_teacher in arms:
            found = best_of(objectives, tasks, its_teacher, **how)
            rows += rows_of(*found, images=10 * each, steps=steps, arm=arm)
        pd.DataFrame(rows).to_csv(options.out, index=False)
        print(10 * each, "images,", steps, "steps", flush=True)


if __name__ == "__main__":
    main()
