"""A student that its own base holds back: what it learns, what it forgets, what that takes.

    python benchmarks/own_base.py [--steps 0 20 60] [--fields 6]

The student is docs_base, which has read Python's reference alone, with LoRA (rank 8). It learns a
field of docstrings from its labels: alone, or for one half what the base says, the same model with
its adapter off (`kd.WithoutAdapter`), for which no second model is held. A step takes 8 texts of 64
tokens, at the rate that LoRA took in recipes.csv.

Writes results/own_base.csv: nats a token on a field's test texts, and on the topics of the
reference that were held out from the base (128 windows); bytes of a step; rows of this hardware. At
step 0 the student is its base."""

import kdlab as kd  # first: it sets how torch's threads wait

import argparse
import functools
import pydoc_data.topics
from pathlib import Path

from table import hardware, write

from kdlab.lessons import language, scale

RESULTS = Path(__file__).parent / "results" / "own_base.csv"
ARMS = {"labels alone": 0.0, "held by its own base": 0.5}  # alpha


def options(line=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 20, 60])
    parser.add_argument("--fields", type=int, default=6)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(line)


def held_out(tokenizer):
    """What the base had learnt to read, in texts that it has not: (128, 64) ids."""
    topics = [text for _, text in sorted(pydoc_data.topics.topics.items())]
    return kd.text.windows(tokenizer, topics[::10], language.LENGTH)[:128]  # data/make_docs_lm.py


def objective(alpha, rows):
    """loss(student, step) on a field's rows: labels, and for a share of alpha its own base."""
    loss = kd.TokenLoss(alpha=alpha)

    def of(student, step):
        ids = language.batch(rows, step)
        logits, labels = kd.next_token(student(ids).logits, ids)
        if alpha == 0:
            return loss(logits, logits.detach(), labels)
        return loss(logits, kd.WithoutAdapter(student)(ids).logits[:, :-1], labels)

    return of


def main(line=None):
    """Measure, and write the table."""
    asked = options(line)
    here = hardware(kd.setup(seed=0))
    base, tokenizer = kd.language_model("docs_base")
    new, _ = scale.recipes(base)["LoRA"]
    fields, read_before = language.fields(tokenizer, count=asked.fields), held_out(tokenizer)
    found = []
    for arm, alpha in ARMS.items():
        losses = {n: objective(alpha, rows["train"]) for n, rows in fields.items()}
        held = scale.memory(new(), functools.partial(losses[next(iter(fields))], step=0))
        for row in learnt(asked, new, losses, fields, read_before):
            found.append({"arm": arm} | row | held | here)
    write(asked.out, found)


def learnt(asked, new, losses, fields, read_before):
    """A row a field and number of steps."""
    for name in fields:

        def both(student, test=fields[name]["test"]):
            return {
                "nats": language.nats(student, test),
                "before": language.nats(student, read_before),
            }

        for steps, row in language.teach(new(), losses[name], asked.lr, asked.steps, both).items():
            yield {"field": name, "lr": asked.lr, "steps": steps} | row


if __name__ == "__main__":
    main()
