"""How small may a language model be? Students of five sizes, on labels and on a teacher's answers.

    python benchmarks/sizes.py [--steps 150 600] [--seeds 4] [--texts docstrings]

Each student starts from nothing, with the shape of docs_lm made narrower or wider, and reads the
same texts: by their labels, or by the top 20 of docs_lm's answers from disk (kdlab.signals), alpha
1. The rate is chosen for each size, arm and number of steps on validation texts, with a first seed
of its own; where the best is an edge of the grid, the grid grows (results/rates.csv). Then every
seed draws its own weights and order, and test texts are read once for each number of steps. docs_lm
has learnt these training texts, and none of the test texts. Its own nats are the row "its teacher".

Three quarters of an hour on two cores. Writes results/sizes.csv: nats a token on test texts, rows
of this hardware, a size and arm as it is done. A width that is measured again replaces its rows."""

import kdlab as kd  # first: it sets how torch's threads wait

import argparse
import functools
import tempfile
from pathlib import Path

from rates import choose, note
from table import hardware, write

from kdlab.lessons import language, sizes

RESULTS = Path(__file__).parent / "results" / "sizes.csv"
TEACHER = "docs_lm"
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
ARMS = "labels", "teacher"


def options(line=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[150, 600])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--widths", type=int, nargs="+", default=list(sizes.BLOCKS))
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--texts", default="docstrings", help="as of kd.plain_text")
    parser.add_argument("--rows", type=int, default=None, help="training texts, at most")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(line)


def main(line=None):
    """Measure, and write the table."""
    asked = options(line)
    teacher, tokenizer = kd.language_model(TEACHER)
    parts = sizes.texts(tokenizer, asked.texts)
    parts["train"] = parts["train"][: asked.rows]
    its = {"width": teacher.config.hidden_size, "parameters": teacher.num_parameters()}
    its |= {"arm": "its teacher", "nats": language.nats(teacher, parts["test"])}
    lab = kd.setup(seed=0)
    here = {"texts": asked.texts} | hardware(lab)
    same = ("width", "arm", "texts", "hardware")
    write(asked.out, [its | dict.fromkeys(("seed", "lr", "steps"), "") | here], same, show=False)
    with tempfile.TemporaryDirectory() as folder:
        rows = parts["train"]
        signals = sizes.ask(folder, teacher, rows, range(len(rows)))
        for width in asked.widths:
            for arm in ARMS:
                found = measured(asked, teacher.config, width, arm, signals, parts, hardware(lab))
                write(asked.out, [row | here for row in found], same, show=False)


def measured(asked, config, width, arm, signals, parts, here):
    """The rows of one size and arm: every seed at every number of steps, at its best rate."""
    rows = parts["train"]

    def run(seed, rate, steps, on):
        labels = arm == "labels"
        loss = sizes.by_labels(rows, seed) if labels else sizes.by_signals(signals, rows, seed)
        student = sizes.narrower(config, width, seed)
        return language.teach(student, loss, rate, steps, lambda one: language.nats(one, on))

    @functools.cache
    def unread(rate):
        return run(0, rate, asked.steps, parts["validation"])

    best = {}
    for n in asked.steps:
        best[n], tried = choose(lambda rates, n=n: {r: unread(r)[n] for r in rates}, asked.rates)
        if asked.out == RESULTS:
            note("sizes", f"{arm}, {width} wide, {n} steps", None, tried, here)
    size = {"width": width, "parameters": kd.parameters(sizes.narrower(config, width))}
    found = []
    for seed in range(1, asked.seeds + 1):
        for rate in sorted(set(best.values())):
            at = run(seed, rate, [n for n in asked.steps if best[n] == rate], parts["test"])
            row = size | {"arm": arm, "seed": seed, "lr": rate}
            found += [row | {"steps": n, "nats": at[n]} for n in at]
    return found


if __name__ == "__main__":
    main()
