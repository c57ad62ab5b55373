"""Is the budget right? Seconds that kdlab.budget foresees beside seconds that a run takes.

    python benchmarks/budget.py [--rounds 3]

Three pairs of Llamas with random weights, of 1, 5 and 18 million parameters the student. What the
machine reaches is measured with each pair, on 8 texts of 128 tokens: the student trains on labels,
the teacher reads, the student writes 16 tokens. From that `kdlab.budget.plan` foresees runs on
8 texts of 256 tokens, each of its four ways:

    labels alone          the student trains on labels
    teacher asked anew    it trains on what its teacher says of each text
    teacher on disk       the teacher's 128 likeliest tokens are kept, and learnt in three epochs
    on-policy             the student writes the texts, the teacher reads them, the student trains

The runs take turns, the median of the rounds. Writes results/budget.csv: seconds foreseen and
measured, their ratio, and what was reached; rows of this hardware."""

import kdlab as kd  # first: it sets how torch's threads wait

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
import transformers
from table import hardware, write

RESULTS = Path(__file__).parent / "results" / "budget.csv"
TEXTS, LENGTH, VOCABULARY, K, EPOCHS = 8, 256, 4096, 128, 3
PROBE, WRITTEN = 128, 16  # tokens of a text, and written, where the machine is measured
PAIRS = {  # (width, blocks) of teacher and student
    "small": ((256, 6), (128, 3)),
    "middle": ((512, 8), (256, 5)),
    "large": ((768, 12), (512, 5)),
}


def options(line=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
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


class Pair:
    """A teacher and a student, and what they do with texts, ids (8, L)."""

    def __init__(self, teacher, student, device):
        self.teacher, self.student = (llama(*shape).to(device) for shape in (teacher, student))
        self.teacher.eval(), self.student.train()
        self.optimiser = torch.optim.AdamW(self.student.parameters(), lr=1e-4, fused=True)
        self.soft, self.kept = kd.TokenLoss(alpha=1.0), kd.TopKLoss(alpha=1.0)
        self.device = device

    def texts(self, length):
        return torch.randint(VOCABULARY, (TEXTS, length), device=self.device)

    def train(self, ids, loss):
        self.optimiser.zero_grad()
        loss(*kd.next_token(self.student(ids).logits, ids)).backward()
        self.optimiser.step()

    def labels(self, ids):
        self.train(
            ids, lambda z, y: torch.nn.functional.cross_entropy(z.flatten(0, 1), y.flatten())
        )

    def read(self, ids):
        with torch.no_grad():
            return self.teacher(ids).logits

    def asked(self, ids):
        its = self.read(ids)[:, :-1]
        self.train(ids, lambda z, y: self.soft(z, its, y))

    def on_disk(self, ids):
        rows = [{"id": i, "input_ids": row} for i, row in enumerate(ids.tolist())]
        with tempfile.TemporaryDirectory() as folder:
            signals = kd.signals.from_teacher(Path(folder, "kept"), self.teacher, rows, k=K)
            collate = kd.SignalCollator(signals)
            for _ in range(EPOCHS):
                its = kd.signals.unpacked(collate(rows)["teacher_logits"][:, :-1].to(ids.device))
                self.train(ids, lambda z, y, its=its: self.kept(z, its, y))

    def written(self, prompts, count):
        return kd.completions(self.student, prompts, count, eos=(), batch=TEXTS)["input_ids"]

    def on_policy(self, ids):
        self.asked(self.written(ids[:, :1], ids.shape[1] - 1))


def seconds(function, *given):
    """Seconds that a call takes."""
    began = time.perf_counter()
    function(*given)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def medians(functions, rounds):
    """{name: median seconds} of functions that take turns; {name: (function, *arguments)}."""
    for function, *given in functions.values():
        function(*given)  # the first call pays for what later ones find ready
    took = [{name: seconds(*call) for name, call in functions.items()} for _ in range(rounds)]
    return {name: statistics.median(one[name] for one in took) for name in functions}


def reached(pair, rounds):
    """The `Machine` as this pair finds it, on short texts."""
    ids = pair.texts(PROBE)
    probes = {"labels": (pair.labels, ids), "read": (pair.read, ids)}
    probes["written"] = (pair.written, ids[:, :1], WRITTEN)
    took = medians(probes, 2 * rounds)
    teacher, student = (
        kd.budget.size_of(model, PROBE).forward for model in (pair.teacher, pair.student)
    )
    rate = 3 * student * ids.numel() / took["labels"]
    step = took["written"] / WRITTEN - TEXTS * student / rate
    return kd.budget.Machine(
        rate=rate, reading=teacher * ids.numel() / took["read"], start=max(step, 0.0)
    )


def foreseen(pair, machine):
    """{way: seconds} for the texts that are measured."""
    models = pair.teacher, pair.student
    how = {"k": K, "machine": machine, "length": LENGTH, "batch": TEXTS}
    once, often = (
        kd.budget.plan(*models, TEXTS * LENGTH, epochs=epochs, **how)["hours"] * 3600
        for epochs in (1, EPOCHS)
    )
    return once.to_dict() | {"teacher on disk": often["teacher on disk"]}


def main(line=None):
    """Measure, and write the table."""
    asked, found = options(line), []
    lab = kd.setup(seed=0)
    for name in asked.pairs:
        pair = Pair(*PAIRS[name], lab.device)
        machine, ids = reached(pair, asked.rounds), pair.texts(LENGTH)
        expected = foreseen(pair, machine)
        ways = dict(
            zip(expected, (pair.labels, pair.asked, pair.on_disk, pair.on_policy), strict=True)
        )
        took = medians({way: (function, ids) for way, function in ways.items()}, asked.rounds)
        for way, measured in took.items():
            row = {"pair": name, "way": way, "teacher": pair.teacher.num_parameters()}
            row |= {"student": pair.student.num_parameters()}
            row |= {"foreseen_s": f"{expected[way]:.3g}", "measured_s": f"{measured:.3g}"}
            row["measured/foreseen"] = f"{measured / expected[way]:.2f}"
            row |= {"gflop_s": round(machine.rate / 1e9), "reading": round(machine.reading / 1e9)}
            row["start_ms"] = f"{1000 * machine.start:.1f}"
            found.append(row | hardware(lab))
            print(row)
    write(asked.out, found)


if __name__ == "__main__":
    main()
