"""Six ways to train the same student: what each holds in memory, what it learns, what it moves.

    python benchmarks/recipes.py [--steps 20 60] [--fields 6] [--recipes LoRA ...]

The student is two of docs_lm's four blocks, its teacher docs_lm, the texts a field of docstrings; a
step takes 8 texts of 64 tokens, alpha 1. All weights in float32, with bfloat16 autocast, with
gradient checkpointing, LoRA (rank 8) without and with it, and all three: the recipes of
`kdlab.lessons.scale.recipes`. Each tries five rates on the validation texts of the first three
fields at the last step, and takes the one that is best in the mean; with it a student a field is
trained, and its test texts are read.

Writes results/recipes.csv: bytes of a step, nats a token on test texts, how many numbers are
trained and how many weights have moved, in per cent of the student's; a recipe's rows of this
hardware take the place of earlier ones."""

import kdlab as kd  # first: it sets how torch's threads wait

import argparse
import functools
import statistics
from pathlib import Path

import torch
from table import hardware, write

from kdlab.lessons import language, scale

RESULTS = Path(__file__).parent / "results" / "recipes.csv"
RATES, TRIED = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), 3


def options(line=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 60])
    parser.add_argument("--fields", type=int, default=6)
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--recipes", nargs="+", help="those to measure; all where not given")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(line)


def objective(teacher, context, rows):
    """loss(student, step) on a field's rows, the student's part in the recipe's context."""
    loss = kd.TokenLoss(alpha=1.0)

    def of(student, step):
        ids = language.batch(rows, step)
        with context():
            logits, labels = kd.next_token(student(ids).logits, ids)
        with torch.no_grad():
            its = teacher(ids).logits[:, :-1]
        return loss(logits.float(), its, labels)

    return of


def main(line=None):
    """Measure, and write the table."""
    asked = options(line)
    here = hardware(kd.setup(seed=0))
    teacher, tokenizer = kd.language_model("docs_lm")
    base = kd.student_from(teacher, layers=[0, 3])
    fields, known = language.fields(tokenizer, count=asked.fields), scale.recipes(base)
    for recipe in asked.recipes or known:
        new, context = known[recipe]
        losses = {n: objective(teacher, context, rows["train"]) for n, rows in fields.items()}
        first = functools.partial(losses[next(iter(fields))], step=0)
        held = scale.memory(new(), first)
        taught = learnt(asked, base, new, losses, fields)
        found = [{"recipe": recipe} | row | held | here for row in taught]
        write(asked.out, found, same=("hardware", "recipe"))


def learnt(asked, base, new, losses, fields):
    """A row a field and number of steps, at the rate that is best on validation texts."""
    last, before = max(asked.steps), base.state_dict()

    def run(name, rate, steps, on):
        def measure(student):
            return language.nats(student, fields[name][on]), scale.moved(before, student)

        return language.teach(new(), losses[name], rate, steps, measure)

    def tried(rate):
        names = list(fields)[:TRIED]
        return statistics.mean(run(n, rate, [last], "validation")[last][0] for n in names)

    best = min(asked.rates, key=tried)
    trained = sum(p.numel() for p in new().parameters() if p.requires_grad)
    share = 100 * trained / base.num_parameters()
    for name in fields:
        for steps, (nats, moved) in run(name, best, asked.steps, "test").items():
            row = {"field": name, "lr": best, "steps": steps, "nats": nats}
            yield row | {"trained": share, "moved": moved}


if __name__ == "__main__":
    main()
