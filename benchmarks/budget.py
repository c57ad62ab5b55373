"""Is the budget right? Seconds that kdlab.budget foresees beside seconds that a step takes.

    python benchmarks/budget.py [--steps 6] [--rounds 5]

Three pairs of Llamas with random weights, of 1, 6 and 20 million parameters the student; a step is
8 texts of 128 tokens. `kdlab.evidence.budget.plan` foresees each run from FLOPs and from what the
machine reaches (FLOPs a second), which is measured by a student that trains on labels: once for
all, by that of the middle pair, and for each pair by its own student.

    labels    the student trains on labels
    asked     it trains on what its teacher says of each text
    reading   the teacher alone reads the texts, as it does once for a cache

The runs take turns, the median of the rounds. Writes results/budget.csv: measured seconds a step,
and their ratio to those foreseen, by one rate for all sizes and by the pair's own; rows of this
hardware."""

import kdlab as kd  # first: it sets how torch's threads wait

import argparse
import statistics
import time
from pathlib import Path

import torch
import transformers
from table import hardware, write

RESULTS = Path(__file__).parent / "results" / "budget.csv"
TEXTS, LENGTH, VOCABULARY = 8, 128, 4096
PAIRS = {  # (width, blocks) of teacher and student
    "small": ((256, 6), (128, 3)),
    "middle": ((512, 8), (256, 5)),
    "large": ((768, 12), (512, 5)),
}
MIDDLE = "middle"


def options(line=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(line)


def llama(width, blocks):
    """A Llama with weights at random."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=width,
        intermediate_size=8 * width // 3 // 32 * 32,
        num_hidden_layers=blocks,
        num_attention_heads=width // 64,
        vocab_size=VOCABULARY,
        tie_word_embeddings=True,
        max_position_embeddings=LENGTH,
    )
    return transformers.LlamaForCausalLM(config)


def runs(teacher, student, device):
    """{name: a function that takes one step}."""
    ids = torch.randint(VOCABULARY, (TEXTS, LENGTH), device=device)
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-4, fused=True)
    soft = kd.TokenLoss(alpha=1.0)

    def read():
        with torch.no_grad():
            return teacher(ids).logits

    def train(loss):
        optimiser.zero_grad()
        loss(*kd.next_token(student(ids).logits, ids)).backward()
        optimiser.step()

    def labels(logits, wanted):
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())

    def asked():
        its = read()[:, :-1]
        train(lambda logits, wanted: soft(logits, its, wanted))

    return {"labels": lambda: train(labels), "asked": asked, "reading": read}


def seconds(step, count, device):
    """Seconds a step, over so many."""
    began = time.perf_counter()
    for _ in range(count):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / count


def reached(student, took):
    """FLOPs a second of a student that trains on labels."""
    return 3 * kd.budget.size_of(student, LENGTH).forward * TEXTS * LENGTH / took


def foreseen(teacher, student, rate):
    """{run: seconds} of a step, by the plan for its tokens."""
    machine = kd.budget.Machine(rate=rate)
    table = kd.budget.plan(teacher, student, TEXTS * LENGTH, machine=machine, length=LENGTH)
    hours = table["hours"]
    found = {"labels": hours["labels alone"], "asked": hours["teacher asked anew"]}
    found["reading"] = found["asked"] - found["labels"]
    return {name: 3600 * value for name, value in found.items()}


def main(line=None):
    """Measure, and write the table."""
    asked = options(line)
    lab = kd.setup(seed=0)
    pairs = {
        name: [llama(*shape).to(lab.device) for shape in PAIRS[name]]
        for name in dict.fromkeys([MIDDLE, *asked.pairs])
    }
    every = {
        (name, run): step
        for name, pair in pairs.items()
        for run, step in runs(pair[0].eval(), pair[1].train(), lab.device).items()
    }
    took = {key: [] for key in every}
    for step in every.values():
        seconds(step, 1, lab.device)  # the first call pays for what later ones find ready
    for _ in range(asked.rounds):
        for key, step in every.items():
            took[key].append(seconds(step, asked.steps, lab.device))
    measured = {key: statistics.median(values) for key, values in took.items()}
    rates = {name: reached(pair[1], measured[name, "labels"]) for name, pair in pairs.items()}
    found = []
    for name in asked.pairs:
        teacher, student = pairs[name]
        own = foreseen(teacher, student, rates[name])
        for run, expected in foreseen(teacher, student, rates[MIDDLE]).items():
            row = {"pair": name, "run": run, "teacher": teacher.num_parameters()}
            row |= {"student": student.num_parameters(), "foreseen_s": f"{expected:.3g}"}
            row |= {"measured_s": f"{measured[name, run]:.3g}"}
            row["measured/foreseen"] = f"{measured[name, run] / expected:.2f}"
            row["by_own_rate"] = f"{measured[name, run] / own[run]:.2f}"
            found.append(row | {"gflop_s": round(rates[name] / 1e9)} | hardware(lab))
    write(asked.out, found)


if __name__ == "__main__":
    main()
