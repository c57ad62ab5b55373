"""The curves of lesson 08: what a cut or a narrow student keeps, over epochs; writes
results/encoders.csv.

    python benchmarks/encoders.py        half an hour on a busy CPU core
    KDLAB_REPEAT=1 python benchmarks/encoders.py        again on other samples, see again.py

It goes on where it stopped; delete the table to begin anew.

Samples of 500 docstrings, one teacher. Each arm takes the best of its learning rates: sample 100,
which the lesson does not use, scored at the arm's best mark on 300 held-out texts that are not
among the 800 test texts (the training pool would not do, the teacher has seen its labels). Where
the best is an edge of the grid, the grid grows. Then the arm learns samples 5 to 10 and is measured
on the test texts along the way. The rate is constant after ten steps of warm-up, so that every mark
is a run of its own length. The first marks are students that were not trained."""

from pathlib import Path

import kdlab as kd  # first: it sets how torch's threads wait

import again
import pandas as pd
import torch
from rates import choose, note
from table import hardware

from kdlab.base.repeats import fresh, repetition
from kdlab.lessons import encoders, language

SAMPLES, TRIED = range(5, 11), 100
COPY, DRAWN, LONG = (0, 1, 2, 4), (1, 2, 4, 8, 16), (1, 2, 4, 8, 16, 24)  # marks, in epochs
LABELS, SOFT = kd.HardLabels(), kd.KDLoss(temperature=2, alpha=0.9)
HALF = 2, 64  # blocks, and half the teacher's width
COPIED, FRESH, LAYERS = (1e-4, 5e-4), (1e-3, 3e-3), (2e-3, 8e-3)
LAST = [(0, 3)], [(0, 1), (1, 3)]  # layer maps of one block and of two, ending in the last
ARMS = {  # student, signal: blocks or (blocks, width), objective, hidden, rates, marks
    ("half as wide", "layer map"): (HALF, SOFT, lambda: kd.LayerMap(LAST[1]), LAYERS, LONG),
    ("half as wide", "relations"): (HALF, SOFT, kd.Relations, LAYERS, LONG),
    ("half as wide", "logits"): (HALF, SOFT, None, FRESH, DRAWN),
    ("1 block", "logits"): (1, SOFT, None, COPIED, COPY),
    ("1 block", "labels"): (1, LABELS, None, COPIED, COPY),
    ("2 blocks", "logits"): (2, SOFT, None, COPIED, COPY),
    ("2 blocks", "labels"): (2, LABELS, None, COPIED, COPY),
    ("half as wide", "labels"): (HALF, LABELS, None, FRESH, DRAWN),
    ("3 blocks", "logits"): (3, SOFT, None, COPIED, COPY),
    ("3 blocks", "labels"): (3, LABELS, None, COPIED, COPY),
    # depth against width: as many parameters as one copied block, and nothing copied
    ("1 block, drawn", "layer map"): ((1, 128), SOFT, lambda: kd.LayerMap(LAST[0]), LAYERS, LONG),
    ("2 blocks, drawn", "layer map"): ((2, 104), SOFT, lambda: kd.LayerMap(LAST[1]), LAYERS, LONG),
}
RESULTS = Path(__file__).parent / "results" / "encoders.csv"


def taught(teacher, arm, number, texts, lr, on):
    """{epochs: accuracy} of one student."""
    count, objective, hidden, _, at = ARMS[arm]
    if isinstance(count, tuple):
        student = encoders.narrow(teacher, number, *count)
    else:
        student = kd.student_from(
            teacher, layers=encoders.spaced(count, teacher.config.num_hidden_layers)
        )
    if hidden is not None:
        student = encoders.Pair(student, hidden(), teacher, number)
    loss = encoders.lesson(
        texts["train"],
        objective,
        None if objective is LABELS else teacher,
        student.hidden if hidden is not None else None,
    )
    torch.manual_seed(fresh(number))  # dropout
    marks = {encoders.epochs(texts["train"], e): e for e in at}
    found = language.teach(
        student, loss, lr, marks, lambda model: encoders.accuracy(model, texts[on])
    )
    return {marks[step]: value for step, value in found.items()}


def once_more(where):
    """Other samples, every arm at its rate in the committed table."""
    teacher, tokenizer = kd.text_classifier("docs_bert")
    rates = again.known("encoders").query("part == 'test'").groupby(["student", "signal"])["lr"]
    rates, rows = rates.first(), []
    for n in SAMPLES:
        texts = encoders.sample(tokenizer, n)
        train, test = texts["train"], texts["test"]
        found = {
            ("bag of words", "labels"): {None: encoders.bag_of_words(train, test, tokenizer)},
            ("teacher", "itself"): {None: encoders.accuracy(teacher, test)},
        } | {arm: taught(teacher, arm, n, texts, rates[arm], "test") for arm in ARMS}
        rows += [
            dict(student=arm[0], signal=arm[1], part="test", sample=n, lr=rates.get(arm), epochs=e)
            | {"accuracy": round(value, 3)}
            | where
            for arm, at in found.items()
            for e, value in at.items()
        ]
    print("written:", again.add("encoders", rows).name)


class Table:
    """results/encoders.csv while it grows: what it holds is not measured again."""

    def __init__(self, where):
        self.where = where
        self.rows = pd.read_csv(RESULTS).to_dict("records") if RESULTS.exists() else []

    def known(self, arm, part, number, lr, measure):
        """{epochs: accuracy} of an arm on a sample, from the table or measured and noted there."""
        at = dict(student=arm[0], signal=arm[1], part=part, sample=number)
        found = {
            row["epochs"]: row["accuracy"]
            for row in self.rows
            if all(row[k] == v for k, v in at.items()) and lr in (None, row["lr"])
        }
        if not found:
            found = measure()
            self.rows += [
                at | {"lr": lr, "epochs": e, "accuracy": round(value, 3)} | self.where
                for e, value in found.items()
            ]
            self.save()
        return found

    def keep(self, arm, lr):
        """Of an arm's rows on test texts, those at this rate alone."""
        tested = (*arm, "test")
        self.rows = [
            row
            for row in self.rows
            if (row["student"], row["signal"], row["part"]) != tested or row["lr"] == lr
        ]
        self.save()

    def save(self):
        pd.DataFrame(self.rows).to_csv(RESULTS, index=False, lineterminator="\n")


def untaught(table, teacher, tokenizer, draws):
    """Rows of the bag of words and of the teacher itself."""
    for n in SAMPLES:
        train, test = draws[n]["train"], draws[n]["test"]
        table.known(
            *(("bag of words", "labels"), "test", n, None),
            lambda train=train, test=test: {None: encoders.bag_of_words(train, test, tokenizer)},
        )
        table.known(
            *(("teacher", "itself"), "test", n, None),
            lambda test=test: {None: encoders.accuracy(teacher, test)},
        )


def main():
    lab = kd.setup()
    where = hardware(lab)
    if repetition():
        return once_more(where)
    table = Table(where)
    teacher, tokenizer = kd.text_classifier("docs_bert")
    draws = {n: encoders.sample(tokenizer, n) for n in (TRIED, *SAMPLES)}
    untaught(table, teacher, tokenizer, draws)
    for arm, (*_, rates, _) in ARMS.items():

        def taught_on(n, part, lr, arm=arm):
            on, texts = "held" if part == "held out" else "test", draws[n]
            return table.known(arm, part, n, lr, lambda: taught(teacher, arm, n, texts, lr, on))

        def score(rates, taught_on=taught_on):
            tried = {lr: taught_on(TRIED, "held out", lr) for lr in rates}
            return {lr: -max(v for e, v in found.items() if e) for lr, found in tried.items()}

        lr, found = choose(score, rates)
        note("encoders", ", ".join(arm), None, found, where)
        for n in SAMPLES:
            taught_on(n, "test", lr)
        print(*arm, lr, found, flush=True)
        table.keep(arm, lr)


if __name__ == "__main__":
    main()
