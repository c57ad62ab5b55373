"""100 students at once, against the same 100 one after another: a plain tensor loop and the usual
DataLoader loop.

    python benchmarks/replicas.py [--epochs 3]

5 temperatures × 20 seeds, digits, 64-64-10, batch 32, Adam, cosine, alpha 0.9. All arms use the
same initial weights and data order, so that their students must agree; a step of the stack is one
step of 100 students. The plain loop is also run with one thread, which is the faster setting for a
model this small. Writes results/replicas.csv, a row an arm for the hardware it ran on; other
hardware's rows stay."""

import kdlab as kd  # before torch: it sets how OpenMP's threads wait

import argparse
import csv
import math
import platform
import statistics
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from kdlab.training.stepper import Stepper

TEMPERATURES, SEEDS, BATCH, RATE, ALPHA = [1.0, 2.0, 4.0, 8.0, 16.0], 20, 32, 1e-2, 0.9
RESULTS = Path(__file__).parent / "results" / "replicas.csv"


def one_student(task, teacher_logits, T, seed, epochs, batches, times):
    """The usual loop for one student; batches(order) yields (x, y, teacher logits)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = kd.mlp(64)(task).to(task.train.x.device)
    optimiser = torch.optim.Adam(student.parameters(), lr=RATE)
    generator, n, step = torch.Generator().manual_seed(seed), len(task.train), 0
    steps = epochs * math.ceil(n / BATCH)
    for _ in range(epochs):
        for x, y, z in batches(torch.randperm(n, generator=generator)):
            began = time.perf_counter()
            logits = student(x)
            soft = F.kl_div(
                F.log_softmax(logits / T, -1),
                F.log_softmax(z / T, -1),
                log_target=True,
                reduction="batchmean",
            )
            loss = ALPHA * T * T * soft + (1 - ALPHA) * F.cross_entropy(logits, y)
            optimiser.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
            times.append(time.perf_counter() - began)
    return student.eval()


def tensor_batches(task, z):
    def batches(order):
        for rows in order.to(z.device).split(BATCH):
            yield task.train.x[rows], task.train.y[rows], z[rows]

    return batches


def loader_batches(task, z):
    data = TensorDataset(task.train.x, task.train.y, z)
    return lambda order: DataLoader(data, batch_size=BATCH, sampler=order.tolist())


def stacked(task, teacher, epochs, times):
    """The same students through kdlab; times the steps of the stack."""
    plain = Stepper.step

    def timed(self, *arguments):
        began = time.perf_counter()
        terms = plain(self, *arguments)
        times.append(time.perf_counter() - began)
        return terms

    Stepper.step = timed
    try:
        return kd.sweep(
            kd.mlp(64),
            task,
            teacher=teacher,
            temperature=TEMPERATURES,
            alpha=ALPHA,
            epochs=epochs,
            lr=RATE,
            batch=BATCH,
            seeds=SEEDS,
        )
    finally:
        Stepper.step = plain


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    epochs = parser.parse_args().epochs
    lab = kd.setup(seed=0)
    hardware = (
        torch.cuda.get_device_name() if lab.device.type == "cuda" else f"CPU, {lab.threads} threads"
    )
    task = kd.load("digits")
    teacher = kd.train(kd.mlp(256), task, epochs=20)
    z = teacher.logits_of_unit(task, task.train.x)
    stacked(task, teacher, 1, [])  # warm up
    times = []
    began = time.perf_counter()
    runs = stacked(task, teacher, epochs, times)
    base = time.perf_counter() - began
    arms = [("stacked", base, times, 0.0)]
    one_cpu = lab.device.type == "cpu"
    for name, make, threads in (
        [("plain loop", tensor_batches, lab.threads)]
        + ([("plain loop, 1 thread", tensor_batches, 1)] if one_cpu else [])
        + [("DataLoader loop", loader_batches, lab.threads)]
    ):
        torch.set_num_threads(threads)
        times, gap = [], 0.0
        batches = make(task, z)
        began = time.perf_counter()
        students = {
            (T, s): one_student(task, z, T, s, epochs, batches, times)
            for T in TEMPERATURES
            for s in range(SEEDS)
        }
        seconds = time.perf_counter() - began
        torch.set_num_threads(lab.threads)
        for (T, seed), student in students.items():
            other = runs.module(temperature=T, seed=seed)
            with torch.no_grad():
                gap = max(
                    gap, (student(task.validation.x) - other(task.validation.x)).abs().max().item()
                )
        arms.append((name, seconds, times, gap))
    keep = []
    if RESULTS.exists():
        keep = [row for row in csv.DictReader(RESULTS.open()) if row["hardware"] != hardware]
    rows = [
        {
            "hardware": hardware,
            "machine": platform.machine(),
            "torch": torch.__version__.split("+")[0],
            "arm": name,
            "students": 100,
            "epochs": epochs,
            "seconds": f"{seconds:.2f}",
            "step_min_ms": f"{1e3 * min(t):.3f}",
            "step_median_ms": f"{1e3 * statistics.median(t):.3f}",
            "ratio": f"{seconds / base:.1f}",
            "largest_logit_difference": f"{gap:.1e}",
        }
        for name, seconds, t, gap in arms
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(keep + rows)
    for row in rows:
        print(
            "  ".join(
                f"{k} {v}" for k, v in row.items() if k not in ("hardware", "machine", "torch")
            )
        )


if __name__ == "__main__":
    main()
