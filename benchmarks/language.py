"""The curves of lessons 09 and 10: what a student of a language model learns, over steps.

    python benchmarks/language.py kl         which divergence       → results/which_kl.csv
    python benchmarks/language.py writer     whose text             → results/whose_text.csv
    python benchmarks/language.py unknown    a teacher out of place → results/unknown_text.csv

Each takes some twenty minutes on a CPU core. docs_lm teaches docs_base six fields of docstrings
(of source code for `unknown`), a student and a text a field. Each arm first tries three rates on
the validation texts of three fields, and takes the one that is best at its best mark in what the
lesson asks about: how badly the student predicts (kl, unknown), how odd the teacher finds what it
writes (writer). With that rate it is trained on all six fields and measured on test texts, once."""

import sys
from pathlib import Path

import kdlab as kd  # first: it sets how torch's threads wait

import pandas as pd
import torch
from table import hardware

from kdlab.lessons import language

RATES, TRIED, TRIES = (1e-3, 3e-3, 1e-2), 3, (20, 50, 100)
MARKS = (0, 20, 50, 100, 200)
RESULTS = Path(__file__).parent / "results"
DIVERGENCES = {
    "forward KL": kd.forward_kl,
    "JSD": kd.jsd,
    "skewed reverse KL": kd.skew_reverse_kl,
    "reverse KL": kd.reverse_kl,
}


def learnt(student, ids, labels, answers, divergence):
    """The mean divergence, or cross-entropy where it is None, over the tokens to be learnt."""
    logits, labels = kd.next_token(student(ids).logits, labels)
    if divergence is None:
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    return divergence(logits, answers[:, :-1], mask=labels != -100)


@torch.no_grad()
def said(teacher, ids):
    return torch.cat([teacher(part).logits for part in ids.split(32)])


def on_field(divergence, teacher, field):
    """The field's windows, all tokens learnt; the teacher has answered once for all."""
    answers = None if divergence is None else said(teacher, field["train"])

    def loss(student, step):
        ids = language.batch(field["train"], step)
        known = None if answers is None else language.batch(answers, step)
        return learnt(student, ids, ids, known, divergence)

    return loss


def on_text_of(writer, divergence, teacher, field):
    """Beginnings of 16 tokens, and the 32 that the data, the teacher or the student write."""
    if writer == "teacher":  # all of it at once: it does not depend on the student
        rows = [language.batch(field["train"], step) for step in range(max(MARKS))]
        pool = language.written(teacher, torch.cat(rows), seed=1)["input_ids"]

    def loss(student, step):
        rows = language.batch(field["train"], step)
        if writer == "teacher":
            ids = pool[step * language.BATCH : (step + 1) * language.BATCH]
        elif writer == "student":
            ids = language.written(student, rows, seed=step)["input_ids"]
        else:
            ids = rows[:, : language.PROMPT + language.GO_ON]
        labels = ids.clone()
        labels[:, : language.PROMPT] = -100
        return learnt(student, ids, labels, said(teacher, ids), divergence)

    return loss


def tuned(teacher, field):
    """A copy of the teacher that has read the field's own text: 40 steps on its labels."""
    kept = {}
    language.teach(teacher, on_field(None, None, field), 2e-3, [40], lambda m: kept.update(model=m))
    return kept["model"]


def one_measure(name):
    """As `language.measures`, of one number alone."""

    def measured(teacher, field, on):
        if name == "predicts":
            return lambda student: {name: language.nats(student, field[on])}
        return lambda student: {name: language.oddity(teacher, student, field[on][:32])[0]}

    return measured


def run(lab, name, arms, fields, teacher, base, chosen_by, measured=language.measures):
    """Every arm {name: field → loss}, its rate tried and then used; the table grows with each."""
    frame, tries, where = [], [], hardware(lab)
    for arm, loss_on in arms.items():
        for lr in RATES:
            for field in list(fields)[:TRIED]:
                found = language.teach(
                    base,
                    loss_on(fields[field]),
                    lr,
                    TRIES,
                    one_measure(chosen_by)(teacher, fields[field], "validation"),
                )
                tries += [
                    {"arm": arm, "lr": lr, "field": field, "step": step} | values
                    for step, values in found.items()
                ]
        over_fields = pd.DataFrame(tries).query("arm == @arm").groupby(["lr", "step"])[chosen_by]
        by_rate = over_fields.mean().groupby("lr").min()
        lr = by_rate.idxmin()
        print(arm, by_rate.round(3).to_dict(), flush=True)
        for field, texts in fields.items():
            found = language.teach(
                base, loss_on(texts), lr, MARKS, measured(teacher, texts, "test")
            )
            frame += [
                {"arm": arm, "lr": lr, "field": field, "step": step} | values
                for step, values in found.items()
            ]
        write(name, frame, where)
    rows = [
        {"arm": "teacher", "field": field} | measured(teacher, texts, "test")(teacher)
        for field, texts in fields.items()
    ]
    write(name, frame + rows, where)
    print(
        pd.DataFrame(frame + rows)
        .groupby(["arm", "step"], dropna=False)
        .mean(numeric_only=True)
        .round(2)
        .to_string()
    )


def write(name, rows, where):
    frame = pd.DataFrame(rows).round(4).assign(**where)
    frame.to_csv(RESULTS / f"{name}.csv", index=False, lineterminator="\n")


def main(part):
    lab = kd.setup(seed=0)
    teacher, tokenizer = kd.language_model("docs_lm")
    base, _ = kd.language_model("docs_base")
    if part == "unknown":
        fields = language.source_code(tokenizer)
        arms = {
            "labels": lambda field: on_field(None, None, field),
            "teacher as it is": lambda field: on_field(kd.forward_kl, teacher, field),
            "teacher tuned first": lambda field: on_field(
                kd.forward_kl, tuned(teacher, field), field
            ),
        }
        return run(
            lab, "unknown_text", arms, fields, teacher, base, "predicts", one_measure("predicts")
        )
    fields = language.fields(tokenizer)
    if part == "kl":
        arms = {"labels": lambda field: on_field(None, None, field)} | {
            name: lambda field, divergence=divergence: on_field(divergence, teacher, field)
            for name, divergence in DIVERGENCES.items()
        }
        return run(lab, "which_kl", arms, fields, teacher, base, "predicts")
    arms = {
        f"{writer}, {name}": lambda field, writer=writer, name=name: on_text_of(
            writer, DIVERGENCES[name], teacher, field
        )
        for name in ("forward KL", "reverse KL")
        for writer in ("data", "teacher", "student")
    }
    return run(lab, "whose_text", arms, fields, teacher, base, "writes")


if __name__ == "__main__":
    main(sys.argv[1])
