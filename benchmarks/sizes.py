"""How small may a language model be? Students of five sizes, on labels and on a teacher's answers.

    python benchmarks/sizes.py [--steps 150 600] [--seeds 4] [--texts docstrings]

Each student starts from nothing, with the shape of docs_lm made narrower or wider, and reads the
same texts: by their labels, or by the top 20 of docs_lm's answers from disk (kdlab.signals), alpha
1. The rate is chosen for each size, arm and number of steps on validation texts, with a first seed
of its own; then every seed draws its own weights and order, and test texts are read once for each
number of steps. docs_lm has learnt these training texts, and none of the test texts. Its own
nats are the row "teacher".

Half an hour on two cores. Writes results/sizes.csv: nats a token on test texts, rows of this
hardware, a size and arm as it is done."""

import kdlab as kd  # first: it sets how torch's threads wait

import argparse
import tempfile
from pathlib import Path

import torch
from table import hardware, write

from kdlab.lessons import language

RESULTS = Path(__file__).parent / "results" / "sizes.csv"
TEACHER, LENGTH, BATCH, K = "docs_lm", 64, 8, 20
SHAPES = {  # width: blocks; four heads each
    16: 2,
    32: 2,
    64: 3,
    96: 4,
    160: 5,
}
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
ARMS = "labels", "teacher"


def options(line=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[150, 600])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--widths", type=int, nargs="+", default=list(SHAPES))
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--texts", default="docstrings", help="as of kd.plain_text")
    parser.add_argument("--rows", type=int, default=None, help="training texts, at most")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(line)


def new_student(config, width, seed):
    """A student with the teacher's shape but for width and blocks, and weights of its own."""
    torch.manual_seed(seed)
    own = config.to_dict() | {
        "hidden_size": width,
        "intermediate_size": width * config.intermediate_size // config.hidden_size,
        "num_hidden_layers": SHAPES[width],
        "head_dim": width // config.num_attention_heads,
    }
    return type(kd.language_model(TEACHER)[0])(type(config).from_dict(own))


def losses(signals, rows, seed):
    """{arm: loss(student, step)}, the same texts in the same order for both."""
    collate, soft = kd.SignalCollator(signals), kd.TopKLoss(alpha=1.0)
    numbers = torch.arange(len(rows))

    def texts(step):
        which = language.batch(numbers, step + 10_000 * seed, BATCH).tolist()
        return collate([{"id": i, "input_ids": rows[i].tolist()} for i in which])

    def labels(student, step):
        ids = texts(step)["input_ids"]
        logits, wanted = kd.next_token(student(ids).logits, ids)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())

    def teacher(student, step):
        batch = texts(step)
        logits, wanted = kd.next_token(student(batch["input_ids"]).logits, batch["input_ids"])
        return soft(logits, kd.signals.unpacked(batch["teacher_logits"][:, :-1]), wanted)

    return dict(zip(ARMS, (labels, teacher), strict=True))


def main(line=None):
    """Measure, and write the table."""
    asked = options(line)
    teacher, tokenizer = kd.language_model(TEACHER)
    texts = kd.plain_text(asked.texts)
    parts = {
        part: kd.text.windows(tokenizer, list(texts[part]), LENGTH) for part in ("train", "test")
    }
    mixed = parts["train"][torch.randperm(len(parts["train"]), generator=torch.manual_seed(0))]
    rows = mixed[128:][: asked.rows]
    parts = {"train": rows, "validation": mixed[:128], "test": parts["test"][:256]}
    found = [
        {
            "width": teacher.config.hidden_size,
            "parameters": teacher.num_parameters(),
            "arm": "its teacher",
            "seed": "",
            "lr": "",
            "steps": "",
            "nats": language.nats(teacher, parts["test"]),
        }
    ]
    here = {"texts": asked.texts} | hardware(kd.setup(seed=0))
    with tempfile.TemporaryDirectory() as folder:
        known = [{"id": i, "input_ids": row.tolist()} for i, row in enumerate(rows)]
        signals = kd.signals.from_teacher(folder, teacher, known, k=K, batch=64)
        for width in asked.widths:
            for arm in ARMS:
                found += measured(asked, teacher.config, width, arm, signals, parts)
                # an interrupted call has lost no size that it finished
                write(asked.out, [row | here for row in found], ("texts", "hardware"), show=False)


def measured(asked, config, width, arm, signals, parts):
    """The rows of one size and arm: every seed at every number of steps, at its best rate."""

    def run(seed, rate, steps, on):
        student = new_student(config, width, seed)
        loss = losses(signals, parts["train"], seed)[arm]
        return language.teach(student, loss, rate, steps, lambda one: language.nats(one, on))

    unread = {rate: run(0, rate, asked.steps, parts["validation"]) for rate in asked.rates}
    best = {n: min(unread, key=lambda rate: unread[rate][n]) for n in asked.steps}
    size = {"width": width, "parameters": new_student(config, width, 0).num_parameters()}
    found = []
    for seed in range(1, asked.seeds + 1):
        for rate in sorted(set(best.values())):
            at = run(seed, rate, [n for n in asked.steps if best[n] == rate], parts["test"])
            row = size | {"arm": arm, "seed": seed, "lr": rate}
            found += [row | {"steps": n, "nats": at[n]} for n in at]
    return found


if __name__ == "__main__":
    main()
