"""100 students at once, against the same 100 one after another: a plain tensor loop and the usual
DataLoader loop; and so ten small convolutional networks.

    python benchmarks/replicas.py [--epochs 3] [--rounds 3]

5 temperatures × 20 seeds, digits, 64-64-10, batch 32, Adam, cosine, alpha 0.9. All arms use the
same initial weights and data order, so that their students must agree; a step of the stack is one
step of 100 students. The plain loop is also run with one thread, which is the faster setting for a
model this small; 1,000 students are one stack on a GPU, and stacks side by side on a CPU. The
convolutional networks have 16 and 32 channels, and on a CPU a stack for each core; in them a
rounding of float32 grows from step to step, in either loop (in float64 the two agree to 2e-7, and
the tests compare in it). Seconds are from the first weight to the last, with validation in the
stack's. The arms take turns, and the quickest of several rounds counts; `spread` is the slowest
round's time over it. ratio: time a student over that in the stack of the same networks (of 100).
Writes results/replicas.csv, a row an arm for the hardware it ran on; other hardware's rows stay."""

import kdlab as kd  # before torch: it sets how OpenMP's threads wait

import argparse
import functools
import math
import time
from pathlib import Path

import torch
from table import hardware, write
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

TEMPERATURES, SEEDS, BATCH, RATE, ALPHA = [1.0, 2.0, 4.0, 8.0, 16.0], 20, 32, 1e-2, 0.9
MANY = 200  # seeds: a thousand students
SMALL, CONVOLVES = kd.mlp(64), kd.convnet(16, 32)
RESULTS = Path(__file__).parent / "results" / "replicas.csv"


def one_student(builder, task, T, seed, epochs, batches):
    """The usual loop for one student; batches(order) yields (x, y, teacher logits)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = builder(task).to(task.train.x.device)
    optimiser = torch.optim.Adam(student.parameters(), lr=RATE)
    generator, n, step = torch.Generator().manual_seed(seed), len(task.train), 0
    steps = epochs * math.ceil(n / BATCH)
    for _ in range(epochs):
        for x, y, z in batches(torch.randperm(n, generator=generator)):
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
    return student.eval()


def tensor_batches(task, z):
    def batches(order):
        for rows in order.to(z.device).split(BATCH):
            yield task.train.x[rows], task.train.y[rows], z[rows]

    return batches


def loader_batches(task, z):
    data = TensorDataset(task.train.x, task.train.y, z)
    return lambda order: DataLoader(data, batch_size=BATCH, sampler=order.tolist())


def one_after_another(task, make, z, epochs, threads, lab, builder=SMALL, seeds=SEEDS):
    """{(T, seed): student}, by a loop."""
    torch.set_num_threads(threads)
    batches = make(task, z)
    grid = [(T, seed) for T in TEMPERATURES for seed in range(seeds)]
    students = {key: one_student(builder, task, *key, epochs, batches) for key in grid}
    torch.set_num_threads(lab.threads)
    return students


def stacked(task, teacher, epochs, seeds=SEEDS, builder=SMALL):
    """The same students through kdlab: `Runs`."""
    return kd.sweep(
        builder,
        task,
        teacher=teacher,
        temperature=TEMPERATURES,
        alpha=ALPHA,
        epochs=epochs,
        lr=RATE,
        batch=BATCH,
        seeds=seeds,
    )


def arms(task, teacher, epochs, lab):
    """{name: (students, a function that trains them)}, those of a kind after their stack."""
    z = teacher.logits_of_unit(task, task.train.x)
    loop = functools.partial(one_after_another, task, z=z, epochs=epochs, lab=lab)
    count, many = (len(TEMPERATURES) * seeds for seeds in (SEEDS, MANY))
    few = {"builder": CONVOLVES, "seeds": 2}
    convolve = functools.partial(loop, make=tensor_batches, **few)
    convnets = {
        "convnets, stacked": (10, lambda: stacked(task, teacher, epochs, **few)),
        "convnets, plain loop": (10, lambda: convolve(threads=lab.threads)),
    }
    found = {
        "stacked": (count, lambda: stacked(task, teacher, epochs)),
        "stacked, 1,000": (many, lambda: stacked(task, teacher, epochs, MANY)),
        "plain loop": (count, lambda: loop(make=tensor_batches, threads=lab.threads)),
        "DataLoader loop": (count, lambda: loop(make=loader_batches, threads=lab.threads)),
    }
    if lab.device.type == "cpu":
        alone = functools.partial(loop, make=tensor_batches, threads=1)
        found |= {"plain loop, 1 thread": (count, alone)} | convnets
        return found | {"convnets, plain loop, 1 thread": (10, lambda: convolve(threads=1))}
    return found | convnets


def timed(train):
    """(seconds, what was trained)."""
    began = time.perf_counter()
    found = train()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, found


@torch.no_grad()
def gap(students, runs, x):
    """The largest difference of the loop's logits from the stack's."""
    if isinstance(students, kd.Runs):
        return 0.0
    return max(
        (student(x) - runs.module(temperature=T, seed=seed)(x)).abs().max().item()
        for (T, seed), student in students.items()
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    lab = kd.setup(seed=0)
    task = kd.load("digits")
    teacher = kd.train(kd.mlp(256), task, epochs=20)
    stacked(task, teacher, 1)  # warm up
    trained = arms(task, teacher, options.epochs, lab)
    times = {name: [] for name in trained}
    for _ in range(options.rounds):
        found = {name: timed(train) for name, (_, train) in trained.items()}
        for name, (seconds, _) in found.items():
            times[name].append(seconds)
    rows = []
    for name, (students, _) in trained.items():
        stack = "convnets, stacked" if name.startswith("convnets") else "stacked"
        base, runs = min(times[stack]) / trained[stack][0], found[stack][1]
        rows.append(
            hardware(lab)
            | {
                "arm": name,
                "students": students,
                "epochs": options.epochs,
                "seconds": f"{min(times[name]):.2f}",
                "ratio": f"{min(times[name]) / students / base:.3g}",
                "spread": f"{max(times[name]) / min(times[name]):.2f}",
                "largest_logit_difference": f"{gap(found[name][1], runs, task.validation.x):.1e}",
            }
        )
    write(RESULTS, rows)


if __name__ == "__main__":
    main()
