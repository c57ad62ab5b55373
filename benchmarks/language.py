"""The curves of lessons 09 to 11: what a student of a language model learns, over steps.

    python benchmarks/language.py kl         which divergence       → results/which_kl.csv
    python benchmarks/language.py writer     whose text             → results/whose_text.csv
    python benchmarks/language.py started    … after its labels     → results/whose_text_started.csv
    python benchmarks/language.py exposure   … after its own words  → results/exposure.csv
    python benchmarks/language.py unknown    a teacher out of place → results/unknown_text.csv
    python benchmarks/language.py source     what a teacher sells   → results/answers_bought.csv

Each takes half an hour on a CPU core, `source` twice that; with KDLAB_REPEAT=1 before it, it is
measured again on other windows, see again.py. docs_lm teaches docs_base six fields of docstrings
(of source code for `unknown`), a student and a text a field; for `started` it has learnt the
field's labels first, 50 steps at their rate in which_kl.csv, a number not tried. Each arm first
tries rates on the validation texts of three fields, and takes the one that is best at its best mark
in what the lesson asks about: how badly the student predicts (kl, unknown), how odd the teacher
finds what it writes (writer). An arm that at every rate writes odder text than before has no best
rate by that, and takes the one by which it predicts best. All that were tried stand in
results/rates.csv; where the best is an edge of the grid, the grid grows. With that rate the arm is
trained on all six fields and measured on test texts, once; `exposure` takes the rates of
whose_text.csv; an arm that the table has at that rate stays. For `source` rate and steps are both
chosen so, for each arm at each number of answers; with these it is measured on other windows of all
eight fields."""

import functools
import os
import sys
from pathlib import Path

import kdlab as kd  # first: it sets how torch's threads wait

import again
import pandas as pd
import torch
from rates import choose, note
from table import hardware

from kdlab.base.repeats import repetition
from kdlab.lessons import language
from kdlab.lessons.yours import reference

FURTHER = 100  # repetitions of `source` are drawn so far from the committed table's, which is 1
RATES, TRIED, TRIES = (1e-3, 3e-3, 1e-2), 3, (20, 50, 100)
MARKS = (0, 20, 50, 100, 200)
RESULTS = Path(__file__).parent / "results"
DIVERGENCES = {
    "forward KL": kd.forward_kl,
    "JSD": kd.jsd,
    "skewed reverse KL": kd.skew_reverse_kl,
    "reverse KL": kd.reverse_kl,
}
ANSWERS, STEPS = (8, 16, 32, 64), (2, 5, 10, 20, 40, 80, 160)  # a step takes 8 answers
SOURCES = (
    "its text",
    "top 5, renormalised",
    "top 5",
    "top 20",
    "all logits",
    "human text",
    "its text, no data",
    "all logits, no data",
)


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


def answers_to(arm, teacher, field, number):
    """As many answers as the dearest mark buys, to a field's beginnings or to nothing at all."""
    prompts = field["train"][: max(ANSWERS), : language.PROMPT]
    if "no data" in arm:
        prompts = torch.full_like(prompts[:, :1], teacher.config.bos_token_id)
    answers = language.bought(teacher, prompts, seed=number)
    ids, labels = answers["input_ids"], answers["labels"]
    if arm == "human text":  # a token for a token
        ids = field["train"][: len(ids), : ids.shape[1]]
        labels = torch.where(labels == -100, -100, ids)
    return ids, labels


def on_answers(arm, count, teacher, ids, labels):
    """The first `count` answers; what an arm knows beside the text is computed once."""
    ids, labels = ids[:count], labels[:count]
    k = int(arm.split("top ")[1].split(",")[0]) if "top" in arm else None
    known = said(teacher, ids).log_softmax(-1)
    top, best = known.topk(k or 1)
    if "renormalised" in arm:  # nothing is left for the rest
        top = top.log_softmax(-1)
    tail_kl = reference("11.2")

    def loss(student, step):
        rows, wanted, all_of, few, which = (
            language.batch(x, step) for x in (ids, labels, known, top, best)
        )
        if k is None:
            divergence = kd.forward_kl if "logits" in arm else None
            return learnt(student, rows, wanted, all_of, divergence)
        logits, wanted = kd.next_token(student(rows).logits, wanted)
        here = wanted != -100
        log_q = logits[here].log_softmax(-1)
        return tail_kl(log_q, which[:, :-1][here], few[:, :-1][here]).mean()

    return loss


def chosen(arm, texts, fields, teacher, base, where):
    """{answers: (rate, steps)} that predict three fields' validation texts best, in the mean."""
    found = {}
    for count in ANSWERS:
        marks = [step for step in STEPS if step <= (80 if count < 32 else 160)]  # soon known
        over_steps = {}

        def score(rates, count=count, marks=marks, over_steps=over_steps):
            for lr in rates:
                tries = [
                    language.teach(
                        base,
                        on_answers(arm, count, teacher, *texts[name]),
                        lr,
                        marks,
                        lambda model, name=name: language.nats(model, fields[name]["validation"]),
                    )
                    for name in texts
                ]
                over_steps[lr] = pd.DataFrame(tries).mean()
            return {lr: over_steps[lr].min() for lr in rates}

        lr, tried = choose(score, RATES)
        note("answers_bought", arm, count, tried, where)
        found[count] = lr, int(over_steps[lr].idxmin())
        print(arm, count, found[count], round(tried[lr], 3), flush=True)
    return found


def sources(lab, tokenizer, teacher, base):
    """Every arm at every number of answers, with its own rate and steps: three fields to
    choose them by, then all eight, other windows of them, to measure."""
    if k := repetition():
        kept = again.known("answers_bought").dropna(subset="answers")
        how = {
            arm: {int(r.answers): (r.lr, int(r.steps)) for r in rows.itertuples()}
            for arm, rows in kept.groupby("arm", sort=False)
        }
        rows = measured_sources(lab, how, tokenizer, teacher, base, drawn=FURTHER + k)
        os.environ["KDLAB_REPEAT"] = str(k)
        return again.add("answers_bought", _rounded(rows, hardware(lab)).to_dict("records"))
    fields = language.fields(tokenizer, count=TRIED)
    how = {}
    for arm in SOURCES:
        texts = {f: answers_to(arm, teacher, x, i) for i, (f, x) in enumerate(fields.items())}
        how[arm] = chosen(arm, texts, fields, teacher, base, hardware(lab))
    rows = measured_sources(lab, how, tokenizer, teacher, base, drawn=1)
    write("answers_bought", rows, hardware(lab))
    print(pd.DataFrame(rows).pivot_table("predicts", "arm", "answers").round(3).to_string())


def measured_sources(lab, how, tokenizer, teacher, base, drawn):
    """Rows of all eight fields; drawn: the repetition by which windows, answers and orders are."""
    os.environ["KDLAB_REPEAT"] = str(drawn)  # never those that were tried on
    frame, fields = [], language.fields(tokenizer, count=8)
    for arm, by_count in how.items():
        for number, (name, field) in enumerate(fields.items()):
            ids, labels = answers_to(arm, teacher, field, number)
            for count, (lr, steps) in by_count.items():
                loss = on_answers(arm, count, teacher, ids, labels)
                found = language.teach(
                    base, loss, lr, [steps], lambda m, f=field: language.nats(m, f["test"])
                )
                row = {"arm": arm, "answers": count, "field": name, "lr": lr, "steps": steps}
                tokens = int((labels[:count] != -100).sum())
                frame.append(row | {"tokens": tokens, "predicts": found[steps]})
        print(arm, flush=True)
    for arm, model in {"base": base, "teacher": teacher}.items():
        frame += [
            {"arm": arm, "field": f, "predicts": language.nats(model, x["test"])}
            for f, x in fields.items()
        ]
    return frame


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


def after_labels(base, field):
    """A copy of the base student that has learnt the field's labels."""
    kept = {}
    language.teach(base, on_field(None, None, field), 1e-3, [50], lambda m: kept.update(model=m))
    return kept["model"]


def begun(fields, base):
    """The fields, each with the student that learns it."""
    return {name: field | {"start": base} for name, field in fields.items()}


def over_fields(arm, lr, loss_on, fields, measure_of):
    """Rows of one arm at its rate: every field learnt, its test texts read at every mark."""
    return [
        {"arm": arm, "lr": lr, "field": field, "step": step} | values
        for field, texts in fields.items()
        for step, values in language.teach(
            texts["start"], loss_on(texts), lr, MARKS, measure_of(texts)
        ).items()
    ]


def run(lab, name, arms, fields, teacher, chosen_by, measured=language.measures):
    """Every arm {name: field → loss}, its rate tried and then used; a field's student begins as
    field["start"]."""
    frame, where = [], hardware(lab)

    def measure_of(texts):
        return measured(teacher, texts, "test")

    itself = [
        {"arm": "teacher", "field": field} | measure_of(texts)(teacher)
        for field, texts in fields.items()
    ]
    if repetition():
        rates = again.known(name).groupby("arm")["lr"].first()
        for arm, loss_on in arms.items():
            frame += over_fields(arm, rates[arm], loss_on, fields, measure_of)
            print(arm, flush=True)
        return again.add(name, _rounded(frame + itself, where).to_dict("records"))
    known = pd.read_csv(RESULTS / f"{name}.csv") if (RESULTS / f"{name}.csv").exists() else None
    for arm, loss_on in arms.items():

        @functools.cache
        def found_by(measure, lr, marks=TRIES, loss_on=loss_on):
            return tried(lr, loss_on, fields, teacher, measure, marks)

        by = chosen_by
        if by == "writes" and min(found_by(by, lr) for lr in RATES) > found_by(by, RATES[0], (0,)):
            by = "predicts"
        lr, found = choose(
            lambda rates, by=by, at=found_by: {lr: at(by, lr) for lr in rates}, RATES
        )
        note(name, arm, None, found, where)
        print(arm, by, lr, found, flush=True)
        kept = [] if known is None else _of(known, arm, lr, where)
        frame += kept or over_fields(arm, lr, loss_on, fields, measure_of)
    write(name, frame + itself, where)
    print(
        pd.DataFrame(frame + itself)
        .groupby(["arm", "step"], dropna=False)
        .mean(numeric_only=True)
        .round(2)
        .to_string()
    )


def exposure(arms, rates, fields, teacher):
    """Rows of every arm: how far its students are from their teacher after whose words."""
    rows = []
    for arm, loss_on in arms.items():
        rows += over_fields(
            arm, rates[arm], loss_on, fields, lambda texts: language.exposure(teacher, texts)
        )
        print(arm, flush=True)
    return rows


def _of(known, arm, lr, where):
    """The rows of an arm that were measured at this rate on this hardware."""
    here = known["hardware"] == where["hardware"]
    return known[here & (known["arm"] == arm) & (known["lr"] == lr)].to_dict("records")


def tried(lr, loss_on, fields, teacher, by, marks=TRIES):
    """What three fields' validation texts say of a rate, in the mean, at its best mark."""
    by_field = [
        language.teach(
            fields[field]["start"],
            loss_on(fields[field]),
            lr,
            marks,
            one_measure(by)(teacher, fields[field], "validation"),
        )
        for field in list(fields)[:TRIED]
    ]
    return min(sum(f[step][by] for f in by_field) / len(by_field) for step in marks)


def _rounded(rows, where):
    frame = pd.DataFrame(rows).assign(**where)
    return frame.round({column: 4 for column in frame if column != "lr"})


def write(name, rows, where):
    _rounded(rows, where).to_csv(RESULTS / f"{name}.csv", index=False, lineterminator="\n")


def of_code(teacher):
    """The arms of `unknown`: {name: field → loss}."""
    return {
        "labels": lambda field: on_field(None, None, field),
        "teacher as it is": lambda field: on_field(kd.forward_kl, teacher, field),
        "teacher tuned first": lambda field: on_field(kd.forward_kl, tuned(teacher, field), field),
    }


def of_divergences(teacher):
    """The arms of `kl`."""
    return {"labels": lambda field: on_field(None, None, field)} | {
        name: lambda field, divergence=divergence: on_field(divergence, teacher, field)
        for name, divergence in DIVERGENCES.items()
    }


def of_writers(teacher):
    """The arms of `writer`."""
    return {
        f"{writer}, {name}": lambda field, writer=writer, name=name: on_text_of(
            writer, DIVERGENCES[name], teacher, field
        )
        for name in ("forward KL", "reverse KL")
        for writer in ("data", "teacher", "student")
    }


def main(part):
    lab = kd.setup(seed=0)
    teacher, tokenizer = kd.language_model("docs_lm")
    base, _ = kd.language_model("docs_base")
    if part == "source":
        return sources(lab, tokenizer, teacher, base)
    make = language.source_code if part == "unknown" else language.fields
    fields, arms = begun(make(tokenizer), base), of_writers(teacher)
    if part == "unknown":
        how = of_code(teacher), fields, teacher, "predicts", one_measure("predicts")
        return run(lab, "unknown_text", *how)
    if part == "kl":
        return run(lab, "which_kl", of_divergences(teacher), fields, teacher, "predicts")
    if part == "exposure":
        rates = again.known("whose_text").groupby("arm")["lr"].first()
        rows = exposure(arms, rates, fields, teacher)
        if repetition():
            return again.add("exposure", _rounded(rows, hardware(lab)).to_dict("records"))
        return write("exposure", rows, hardware(lab))
    if part == "started":
        for field in fields.values():
            field["start"] = after_labels(base, field)
        arms = {arm: loss for arm, loss in arms.items() if "teacher" not in arm}
        return run(lab, "whose_text_started", arms, fields, teacher, "writes")
    return run(lab, "whose_text", arms, fields, teacher, "writes")


if __name__ == "__main__":
    main(sys.argv[1])
