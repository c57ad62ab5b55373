"""Hinton, Vinyals and Dean's MNIST results (2015, section 3), measured again, with intervals.

    KDLAB_DATA=<directory with mnist/, in the hub's layout> python benchmarks/hinton_mnist.py
    [--quick]

Three splits of the 60,000 training images into 55,000 and 5,000 for every choice (T, bias); each
has its own teacher (784-1200-1200-10, dropout, max-norm, ±2 pixels of jitter) and, an arm, two
students of other seeds (784-800-800-10, no regularisation), all of an arm trained at once. Errors
are counted out of the 10,000 test images, which are read once. The 95 % intervals resample test
images, teachers and students. A run that is killed goes on from the last epoch it finished
(.cache/). Writes results/hinton_mnist.csv and results/hinton_mnist.png."""

import kdlab as kd  # before torch: it sets how OpenMP's threads wait

import argparse
import math
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from kdlab.training.axes import build
from kdlab.students.builders import Dropout
from kdlab.training.replicas import Replicas
from kdlab.training.stepper import Stepper

HERE = Path(__file__).parent
PAPER = {
    "teacher": 67,
    "labels": 146,
    "T = 20": 74,
    "T by validation": None,
    "labels, 60 epochs": None,
    "T = 20, 60 epochs": None,
    "no 3s": 206,
    "no 3s, on threes": 133,
    "no 3s, bias": 109,
    "no 3s, bias, on threes": 14,
    "only 7s and 8s": 4730,
    "only 7s and 8s, bias": 1320,
}
SIZES = {"teacher": (1200, 1200), "student": (800, 800), "narrow": (30, 30)}
TEMPERATURES, NARROW = (4.0, 8.0, 20.0), (1.0, 1.5, 2.0, 2.5, 4.0, 8.0, 20.0)


def regularised(task):
    """The teacher: dropout of 0.2 on the pixels and 0.25 on the hidden units."""
    first, *others = kd.mlp(*SIZES["teacher"], dropout=0.25)(task)
    return nn.Sequential(first, Dropout(0.2), *others)


def shifted(x, generator):
    """Each image (R, B, 1, 28, 28) moved by up to 2 pixels each way, zeros moving in."""
    R, B = x.shape[:2]
    padded = nn.functional.pad(x.view(R * B, 28, 28), (2, 2, 2, 2)).view(R * B, -1)
    move = torch.randint(0, 5, (2, R * B, 1), generator=generator).to(x.device)
    pixel = torch.arange(784, device=x.device)
    return padded.gather(1, (pixel // 28 + move[0]) * 32 + pixel % 28 + move[1]).view_as(x)


@torch.no_grad()
def bound_norms(parameters, limit):
    """Max-norm: no unit's incoming weights are longer than `limit` (Srivastava et al. 2014)."""
    for name, w in parameters.items():
        if name.endswith("weight"):
            w.mul_((limit / w.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp_max(1))


class Bench:
    """Where checkpoints lie, and how much processor time every arm took."""

    def __init__(self, cache):
        self.cache, self.seconds = Path(cache), {}
        self.cache.mkdir(parents=True, exist_ok=True)

    def fit(
        self,
        name,
        models,
        units,
        seeds,
        x,
        objective,
        y,
        z=None,
        epochs=20,
        lr=1e-3,
        batch=256,
        jittered=False,
        max_norm=None,
    ):
        """R models trained at once, r on x[units[r]] of x (U, N, 1, 28, 28); goes on from its
        checkpoint → Replicas."""
        replicas, N, unit = (
            Replicas(models, seeds),
            x.shape[1],
            torch.tensor(units, device=x.device),
        )
        settings = repr(
            (
                models[0],
                units,
                seeds,
                N,
                type(objective).__name__,
                epochs,
                lr,
                batch,
                jittered,
                max_norm,
            )
        )
        stepper = Stepper(replicas, [lr] * len(seeds), math.ceil(N / batch) * epochs)
        jitter, path, first, spent = (
            torch.Generator().manual_seed(seeds[0]),
            self.cache / f"{name}.pt",
            0,
            0.0,
        )
        if path.exists():
            state = torch.load(path, weights_only=True, map_location=x.device)
            if state["settings"] != settings:
                raise ValueError(
                    f"fit: {path} is of another run, {state['settings']}; expected {settings}."
                    " Remove it, or give another --cache"
                )
            for k, v in state["parameters"].items():
                replicas.parameters[k].copy_(v)
            stepper.optimiser.load_state_dict(state["optimiser"])
            for g, kept in zip(
                [jitter, *replicas.orders, *replicas.masks], state["generators"], strict=True
            ):
                g.set_state(kept.cpu())
            stepper.t, first, spent = state["t"], state["epoch"], state["seconds"]
        flat, began = x.flatten(0, 1), time.process_time() - spent
        replicas.base.train()
        for epoch in range(first, epochs):
            order = replicas.orders_of_epoch(N) + (unit * N)[:, None]
            for rows in order.split(batch, 1):
                pixels = flat[rows]
                if jittered:
                    pixels = shifted(pixels, jitter)
                stepper.step(
                    pixels,
                    lambda logits, rows=rows: objective.rows(
                        logits, None if z is None else z.flatten(0, 1)[rows], y.flatten()[rows]
                    ),
                )
                if max_norm:
                    bound_norms(replicas.parameters, max_norm)
            spent = time.process_time() - began
            generators = [g.get_state() for g in (jitter, *replicas.orders, *replicas.masks)]
            torch.save(
                {
                    "parameters": replicas.parameters,
                    "optimiser": stepper.optimiser.state_dict(),
                    "t": stepper.t,
                    "epoch": epoch + 1,
                    "seconds": spent,
                    "generators": generators,
                    "settings": settings,
                },
                path.with_suffix(".new"),
            )
            os.replace(path.with_suffix(".new"), path)
            print(f"{name}: epoch {epoch + 1} of {epochs}, {spent:.0f} s", flush=True)
        self.seconds[name] = spent
        return replicas


def answers(replicas, x, units=None):
    """Logits of every replica, on x (N, …) for all or on its own unit's x (U, N, …) → (R, N,
    10)."""
    pick = (lambda r: x) if units is None else (lambda r: x[units[r]])
    return torch.stack(
        [kd.outputs.logits(replicas.module(r), pick(r), batch=1024) for r in range(len(replicas))]
    )


def bias_of(logits, labels, classes, grid):
    """The number that, added to the logits of `classes`, makes the fewest errors on these
    (validation) rows."""

    def errors(b):
        return int((shift(logits, classes, b).argmax(-1) != labels).sum())

    return min(grid, key=errors)


def shift(logits, classes, b):
    """The logits with b added to some classes: the bias of the last layer, changed."""
    out = logits.clone()
    out[..., classes] += b
    return out


def resample(arms, draws=2000, seed=0):
    """Bootstrap means: {arm: wrong (teachers, seeds, images)} → {arm: (draws,)}, each draw the same
    for every arm.

    Images, teachers, and students within a teacher are drawn with replacement (Efron and Tibshirani
    1993)."""
    rng, found = np.random.default_rng(seed), {name: [] for name in arms}
    for _ in range(draws):
        images = {}
        teachers = rng.integers(0, 3, 3)
        for name, wrong in arms.items():
            _, seeds, n = wrong.shape
            if n not in images:
                images[n] = rng.multinomial(n, np.full(n, 1 / n)).astype(np.float32)
            counts = wrong.reshape(-1, n) @ images[n]
            picked = rng.integers(0, seeds, (3, seeds))
            found[name].append(counts.reshape(3, seeds)[teachers[:, None], picked].mean())
    return {name: np.array(values) for name, values in found.items()}


def measure(bench, tasks, epochs, teacher_epochs, seeds):
    """Train every arm and count: ({arm: wrong (3, seeds, 10,000)}, facts about the arms for the
    table)."""
    x, y = (torch.stack([getattr(t.train, k) for t in tasks]) for k in "xy")
    vx, vy = (torch.stack([getattr(t.validation, k) for t in tasks]) for k in "xy")
    test, truth = tasks[0].test.x, tasks[0].test.y
    arms, facts = {}, {}
    three = range(3)
    teacher = bench.fit(
        "teacher",
        [build(regularised, tasks[u], u) for u in three],
        [0, 1, 2],
        [0, 1, 2],
        x,
        kd.HardLabels(),
        y,
        epochs=teacher_epochs,
        lr=4e-3,
        jittered=True,
        max_norm=2.0,
    )
    z = answers(teacher, x, three)

    def students(name, temperatures, which=seeds, size="student", rows=None, epochs=epochs):
        """Students on labels (temperatures None) or distilled: their logits (T, 3, S, N, 10) on
        validation and test."""
        cells = [(T, u, s) for T in temperatures or [None] for u in three for s in which]
        T = (
            None
            if temperatures is None
            else torch.tensor([c[0] for c in cells], device=x.device)[:, None, None]
        )
        objective = kd.HardLabels() if T is None else kd.KDLoss(T, alpha=0.9)
        keep = torch.ones_like(y, dtype=torch.bool) if rows is None else rows

        def kept(v):
            return torch.stack([v[u][keep[u]] for u in three])

        units, own = [c[1] for c in cells], [3 * c[2] + c[1] for c in cells]
        models = [
            build(kd.mlp(*SIZES[size]), tasks[u], seed) for u, seed in zip(units, own, strict=True)
        ]
        trained = bench.fit(
            name,
            models,
            units,
            own,
            kept(x),
            objective,
            kept(y),
            kept(z) if temperatures else None,
            epochs,
        )
        shape = (len(temperatures or [None]), 3, len(which), -1, 10)
        facts[name] = {
            "epochs": epochs,
            "students": len(which),
            "cpu_seconds": round(bench.seconds[name]),
        }
        return answers(trained, vx, units).view(shape), answers(trained, test).view(shape)

    def wrong(logits, labels):
        return (logits.argmax(-1) != labels).float().cpu().numpy()

    arms["teacher"] = wrong(answers(teacher, test), truth)[:, None]
    facts["teacher"] = {
        "epochs": teacher_epochs,
        "students": 1,
        "cpu_seconds": round(bench.seconds["teacher"]),
    }
    arms["labels"] = wrong(students("labels", None)[1][0], truth)
    at_20 = students("T = 20", [20.0])
    arms["T = 20"] = wrong(at_20[1][0], truth)
    others = students("other T, seed 0", list(TEMPERATURES[:-1]), seeds[:1])
    tried = torch.cat([others[0], at_20[0][:, :, :1]])  # (3, 3, 1, N, 10) on validation
    best = TEMPERATURES[int((tried.argmax(-1) != vy[None, :, None]).sum((1, 2, 3)).argmin())]
    name = "T by validation"
    if best == 20:
        arms[name], facts[name] = arms["T = 20"], facts["T = 20"]
    else:
        at_best = torch.cat(
            [others[1][TEMPERATURES.index(best)], students(name, [best], seeds[1:])[1][0]], 1
        )
        arms[name] = wrong(at_best, truth)
    facts[name] = facts[name] | {"temperature": best, "students": len(seeds)}
    # does patience close it?
    for name, temperatures in (("labels, 60 epochs", None), ("T = 20, 60 epochs", [20.0])):
        arms[name] = wrong(students(name, temperatures, seeds[:1], epochs=2 * epochs)[1][0], truth)
    for name, absent, classes, grid, more in (
        ("no 3s", [3], [3], np.arange(0, 12, 0.25), 1),
        (
            "only 7s and 8s",
            [c for c in range(10) if c not in (7, 8)],
            [7, 8],
            np.arange(-24, 0.1, 0.25),
            3,
        ),
    ):
        rows = ~torch.isin(y, torch.tensor(absent, device=y.device))
        on_validation, on_test = (
            v[0] for v in students(name, [20.0], rows=rows, epochs=epochs * more)
        )
        biases = [
            [bias_of(on_validation[u, s], vy[u], classes, grid) for s in range(len(seeds))]
            for u in three
        ]
        moved = torch.stack(
            [
                torch.stack(
                    [shift(on_test[u, s], classes, biases[u][s]) for s in range(len(seeds))]
                )
                for u in three
            ]
        )
        for label, logits in ((name, on_test), (f"{name}, bias", moved)):
            arms[label] = wrong(logits, truth)
            facts[label] = facts[name] | {
                "bias": float(np.mean(biases)) if "bias" in label else 0.0
            }
            if absent == [3]:
                arms[f"{label}, on threes"] = arms[label][..., (truth == 3).cpu().numpy()]
                facts[f"{label}, on threes"] = facts[label]
    on_validation, on_test = students("narrow", list(NARROW), seeds, "narrow")
    for T, held_out, found in zip(
        NARROW, wrong(on_validation, vy[:, None]), wrong(on_test, truth), strict=True
    ):
        arms[f"30 units, T = {T:g}"] = found
        facts[f"30 units, T = {T:g}"] = facts["narrow"] | {
            "temperature": T,
            "validation": 1e4 * held_out.mean(),
        }
    return arms, facts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a tenth of nothing: tries the machinery, not the claim",
    )
    parser.add_argument("--cache", default=HERE / ".cache" / "hinton_mnist", type=Path)
    parser.add_argument("--results", default=HERE / "results", type=Path)
    options = parser.parse_args()
    lab = kd.setup(seed=0)
    sizes = (2000, 500, 1000) if options.quick else (55000, 5000, 10000)
    bench = Bench(options.cache / ("quick" if options.quick else "full"))
    tasks = kd.splits("mnist", 3, sizes=sizes)
    arms, facts = measure(
        bench,
        tasks,
        epochs=1 if options.quick else 30,
        teacher_epochs=1 if options.quick else 60,
        seeds=[0, 1],
    )
    draws = resample(arms)
    rows = [
        {
            "arm": name,
            "paper": PAPER.get(name),
            "ours": wrong.sum(-1).mean(),
            "low": np.quantile(draws[name], 0.025),
            "high": np.quantile(draws[name], 0.975),
            "teachers": 3,
        }
        | facts[name]
        for name, wrong in arms.items()
    ]
    for name, end in (("labels", "T = 20"), ("labels, 60 epochs", "T = 20, 60 epochs")):
        share = 100 * (draws[name] - draws[end]) / (draws[name] - draws["teacher"])
        count = {k: arms[k].sum(-1).mean() for k in (name, end, "teacher")}
        rows.append(
            {
                "arm": f"share of the gap closed by {end}, %",
                "paper": 91.1 if end == "T = 20" else None,
                "ours": 100 * (count[name] - count[end]) / (count[name] - count["teacher"]),
                "teachers": 3,
                "low": np.quantile(share, 0.025),
                "high": np.quantile(share, 0.975),
            }
        )
    hardware = (
        torch.cuda.get_device_name() if lab.device.type == "cuda" else f"CPU, {lab.threads} threads"
    )
    table = (
        pd.DataFrame(rows)
        .astype({k: float for k in ("ours", "low", "high", "validation")})
        .round(1)
    )
    table = table.assign(hardware=hardware, torch=torch.__version__.split("+")[0])
    options.results.mkdir(exist_ok=True, parents=True)
    path = options.results / "hinton_mnist.csv"
    kept = pd.read_csv(path).query("hardware != @hardware") if path.exists() else None
    pd.concat([kept, table]).to_csv(path, index=False)
    (options.results / "hinton_mnist.png").write_bytes(kd.plots.beside_paper(table).png)
    print(table.drop(columns=["hardware", "torch"]).to_string(index=False))


if __name__ == "__main__":
    main()
