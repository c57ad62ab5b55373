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
import itertools
import math
import os
import time
from pathlib import Path
from typing import NamedTuple

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
THREE = range(3)  # the splits, each with a teacher of its own


class Unseen(NamedTuple):
    """Classes that a student is never shown, and the bias that is to make up for it."""

    absent: list  # left out of the training images
    classes: list  # whose logits the bias is added to
    grid: np.ndarray  # the biases to choose from
    longer: int  # times the epochs of the others


UNSEEN = {
    "no 3s": Unseen([3], [3], np.arange(0, 12, 0.25), longer=1),
    # a fifth of the images are left, and so of the steps in an epoch
    "only 7s and 8s": Unseen([0, 1, 2, 3, 4, 5, 6, 9], [7, 8], np.arange(-24, 0.1, 0.25), longer=3),
}


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


class Checkpoint:
    """The file that a training goes on from when it was killed."""

    def __init__(self, path, settings, replicas, stepper, jitter):
        self.path, self.settings = path, settings
        self.replicas, self.stepper = replicas, stepper
        # all that draw at random: each must go on where it was, or the rest is another run
        self.generators = [jitter, *replicas.orders, *replicas.masks]

    def restore(self):
        """Put all back as it was written → (epochs done, seconds spent), (0, 0.0) for a new run."""
        if not self.path.exists():
            return 0, 0.0
        state = torch.load(self.path, weights_only=True, map_location=self.replicas.device)
        if state["settings"] != self.settings:
            raise ValueError(
                f"fit: {self.path} is of another run, {state['settings']}; expected"
                f" {self.settings}. Remove it, or give another --cache"
            )
        for k, v in state["parameters"].items():
            self.replicas.parameters[k].copy_(v)
        self.stepper.optimiser.load_state_dict(state["optimiser"])
        for g, kept in zip(self.generators, state["generators"], strict=True):
            g.set_state(kept.cpu())
        self.stepper.t = state["t"]
        return state["epoch"], state["seconds"]

    def write(self, epoch, seconds):
        """All as it is after so many epochs."""
        state = {
            "parameters": self.replicas.parameters,
            "optimiser": self.stepper.optimiser.state_dict(),
            "t": self.stepper.t,
            "epoch": epoch,
            "seconds": seconds,
            "generators": [g.get_state() for g in self.generators],
            "settings": self.settings,
        }
        # beside it, then in its place: a kill while it is written leaves the last one whole
        torch.save(state, self.path.with_suffix(".new"))
        os.replace(self.path.with_suffix(".new"), self.path)


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
        replicas, N, kind = Replicas(models, seeds), x.shape[1], type(objective).__name__
        stepper = Stepper(replicas, [lr] * len(seeds), math.ceil(N / batch) * epochs)
        jitter = torch.Generator().manual_seed(seeds[0])
        settings = (models[0], units, seeds, N, kind, epochs, lr, batch, jittered, max_norm)
        path = self.cache / f"{name}.pt"
        checkpoint = Checkpoint(path, repr(settings), replicas, stepper, jitter)
        first, spent = checkpoint.restore()

        def step(rows):
            """One step of every model, on its own rows of `data`."""
            pixels, labels, taught = (None if v is None else v[rows] for v in data)
            if jittered:
                pixels = shifted(pixels, jitter)
            stepper.step(pixels, lambda logits: objective.rows(logits, taught, labels))
            if max_norm:
                bound_norms(replicas.parameters, max_norm)

        # the units' rows one after another, so that one index finds each model's in its own unit's
        data = [None if v is None else v.flatten(0, 1) for v in (x, y, z)]
        begins = torch.tensor(units, device=x.device)[:, None] * N
        began = time.process_time() - spent
        replicas.base.train()
        for epoch in range(first + 1, epochs + 1):
            for rows in (replicas.orders_of_epoch(N) + begins).split(batch, 1):
                step(rows)
            spent = time.process_time() - began
            checkpoint.write(epoch, spent)
            print(f"{name}: epoch {epoch} of {epochs}, {spent:.0f} s", flush=True)
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


def misses(logits, labels):
    """1 for each answer that is not the label, 0 for the others."""
    return (logits.argmax(-1) != labels).float().cpu().numpy()


def objective_at(temperatures, device):
    """The labels where `temperatures` is None; else a teacher, a temperature for each replica."""
    if temperatures is None:
        return kd.HardLabels()
    return kd.KDLoss(torch.tensor(temperatures, device=device)[:, None, None], alpha=0.9)


class Study:
    """The arms, each trained and counted by a method: `arms` {name: wrong (3, S, 10,000)}, `facts`
    {name: what else the table says of it}."""

    def __init__(self, bench, tasks, epochs, seeds):
        self.bench, self.tasks, self.epochs, self.seeds = bench, tasks, epochs, seeds
        self.x, self.y = (torch.stack([getattr(t.train, k) for t in tasks]) for k in "xy")
        self.vx, self.vy = (torch.stack([getattr(t.validation, k) for t in tasks]) for k in "xy")
        self.test, self.truth = tasks[0].test.x, tasks[0].test.y
        self.z = None  # until `teach`: what the teachers say of the training images
        self.arms, self.facts = {}, {}

    def note(self, name, epochs, students):
        """The facts that every arm has."""
        seconds = round(self.bench.seconds[name])
        self.facts[name] = {"epochs": epochs, "students": students, "cpu_seconds": seconds}

    def teach(self, epochs):
        """Train the teachers: an arm of their own, and `z` for the students."""
        models = [build(regularised, self.tasks[u], u) for u in THREE]
        how = {"epochs": epochs, "lr": 4e-3, "jittered": True, "max_norm": 2.0}
        seeds = units = list(THREE)
        teacher = self.bench.fit(
            "teacher", models, units, seeds, self.x, kd.HardLabels(), self.y, **how
        )
        self.z = answers(teacher, self.x, THREE)
        self.arms["teacher"] = misses(answers(teacher, self.test), self.truth)[:, None]
        self.note("teacher", epochs, 1)

    def students(self, name, temperatures, seeds=None, size="student", rows=None, longer=1):
        """Students on labels (temperatures None) or distilled: their logits (T, 3, S, N, 10) on
        validation and test.

        seeds: the study's unless told. rows: which training images are kept, (3, N); all of them
        unless told. longer: times the study's epochs."""
        seeds, epochs = self.seeds if seeds is None else seeds, self.epochs * longer
        shape = (len(temperatures or [None]), 3, len(seeds), -1, 10)
        cells = list(itertools.product(temperatures or [None], THREE, seeds))
        units, own = [u for _, u, _ in cells], [3 * s + u for _, u, s in cells]
        models = [
            build(kd.mlp(*SIZES[size]), self.tasks[u], seed)
            for u, seed in zip(units, own, strict=True)
        ]
        each = None if temperatures is None else [T for T, _, _ in cells]
        objective = objective_at(each, self.x.device)
        x, y, z = (self.kept(v, rows) for v in (self.x, self.y, self.z))
        taught = None if temperatures is None else z
        trained = self.bench.fit(name, models, units, own, x, objective, y, taught, epochs)
        self.note(name, epochs, len(seeds))
        return answers(trained, self.vx, units).view(shape), answers(trained, self.test).view(shape)

    def kept(self, values, rows):
        """Of each unit's values (3, N, …) those of the rows that are kept."""
        return values if rows is None else torch.stack([values[u][rows[u]] for u in THREE])

    def count(self, name, temperatures, **how):
        """An arm of one temperature, or of labels alone → its students' logits, see `students`."""
        found = self.students(name, temperatures, **how)
        self.arms[name] = misses(found[1][0], self.truth)
        return found

    def choose_temperature(self, at_20):
        """The arm of the temperature with the fewest errors on validation, by students of the first
        seed alone: the other seeds are trained at that temperature only.

        at_20: what `count` found of T = 20, the last of TEMPERATURES."""
        others = self.students("other T, seed 0", list(TEMPERATURES[:-1]), self.seeds[:1])
        tried = torch.cat([others[0], at_20[0][:, :, :1]])  # (3, 3, 1, N, 10) on validation
        errors = (tried.argmax(-1) != self.vy[None, :, None]).sum((1, 2, 3))
        best, name = TEMPERATURES[int(errors.argmin())], "T by validation"
        if best == 20:  # its students of every seed are there
            self.arms[name], self.facts[name] = self.arms["T = 20"], self.facts["T = 20"]
        else:
            of_first_seed = others[1][TEMPERATURES.index(best)]
            of_others = self.students(name, [best], self.seeds[1:])[1][0]
            self.arms[name] = misses(torch.cat([of_first_seed, of_others], 1), self.truth)
        self.facts[name] = self.facts[name] | {"temperature": best, "students": len(self.seeds)}

    def leave_out(self, name, unseen):
        """Two arms of students that never saw some classes: as they are, and with the bias that is
        best on validation; and how both do on threes, where those are what was left out."""
        rows = ~torch.isin(self.y, torch.tensor(unseen.absent, device=self.y.device))
        held_out, found = (
            v[0] for v in self.students(name, [20.0], rows=rows, longer=unseen.longer)
        )
        biases, moved = self.with_biases(held_out, found, unseen)
        for label, logits, bias in (
            (name, found, 0.0),
            (f"{name}, bias", moved, float(np.mean(biases))),
        ):
            self.arms[label] = misses(logits, self.truth)
            self.facts[label] = self.facts[name] | {"bias": bias}
            if unseen.absent == [3]:
                threes = (self.truth == 3).cpu().numpy()
                self.arms[f"{label}, on threes"] = self.arms[label][..., threes]
                self.facts[f"{label}, on threes"] = self.facts[label]

    def with_biases(self, held_out, found, unseen):
        """(every student's own bias, chosen by its logits `held_out` on validation; its logits
        `found` on test, moved by it)."""
        each = range(len(self.seeds))
        biases = [
            [bias_of(held_out[u, s], self.vy[u], unseen.classes, unseen.grid) for s in each]
            for u in THREE
        ]
        moved = [
            torch.stack([shift(found[u, s], unseen.classes, biases[u][s]) for s in each])
            for u in THREE
        ]
        return biases, torch.stack(moved)

    def narrow(self):
        """Students of 30 units a layer, an arm for each temperature."""
        held_out, found = self.students("narrow", list(NARROW), size="narrow")
        held_out, found = misses(held_out, self.vy[:, None]), misses(found, self.truth)
        for T, on_validation, on_test in zip(NARROW, held_out, found, strict=True):
            self.arms[f"30 units, T = {T:g}"] = on_test
            own = {"temperature": T, "validation": 1e4 * on_validation.mean()}
            self.facts[f"30 units, T = {T:g}"] = self.facts["narrow"] | own


def measure(bench, tasks, epochs, teacher_epochs, seeds):
    """Train every arm and count: ({arm: wrong (3, seeds, 10,000)}, facts about the arms for the
    table)."""
    study = Study(bench, tasks, epochs, seeds)
    study.teach(teacher_epochs)
    study.count("labels", None)
    at_20 = study.count("T = 20", [20.0])
    study.choose_temperature(at_20)
    # does patience close it?
    study.count("labels, 60 epochs", None, seeds=seeds[:1], longer=2)
    study.count("T = 20, 60 epochs", [20.0], seeds=seeds[:1], longer=2)
    for name, unseen in UNSEEN.items():
        study.leave_out(name, unseen)
    study.narrow()
    return study.arms, study.facts


def interval(draws):
    """The 95 % interval of bootstrap draws, as columns of the table."""
    return {"low": np.quantile(draws, 0.025), "high": np.quantile(draws, 0.975)}


def rows_of_arms(arms, facts, draws):
    """A row of the table for each arm: its errors, and the facts about it."""
    return [
        {"arm": name, "paper": PAPER.get(name), "ours": wrong.sum(-1).mean()}
        | interval(draws[name])
        | {"teachers": 3}
        | facts[name]
        for name, wrong in arms.items()
    ]


def row_of_gap(arms, draws, start, end):
    """How much of the way from an arm's errors to its teacher's another arm goes."""

    def share(errors):
        return 100 * (errors[start] - errors[end]) / (errors[start] - errors["teacher"])

    count = {name: arms[name].sum(-1).mean() for name in (start, end, "teacher")}
    return {
        "arm": f"share of the gap closed by {end}, %",
        "paper": 91.1 if end == "T = 20" else None,
        "ours": share(count),
        "teachers": 3,
    } | interval(share(draws))


def table_of(rows, lab):
    """The rows as a table, with the hardware they were measured on."""
    on_gpu = lab.device.type == "cuda"
    hardware = torch.cuda.get_device_name() if on_gpu else f"CPU, {lab.threads} threads"
    numbers = ("ours", "low", "high", "validation")
    table = pd.DataFrame(rows).astype(dict.fromkeys(numbers, float)).round(1)
    return table.assign(hardware=hardware, torch=torch.__version__.split("+")[0])


def save(table, results):
    """Write the table and its picture; rows that other hardware measured stay."""
    results.mkdir(exist_ok=True, parents=True)
    path, others = results / "hinton_mnist.csv", None
    if path.exists():
        before = pd.read_csv(path)
        others = before[before["hardware"] != table["hardware"].iloc[0]]
    pd.concat([others, table]).to_csv(path, index=False)
    (results / "hinton_mnist.png").write_bytes(kd.plots.beside_paper(table).png)


def asked():
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a tenth of nothing: tries the machinery, not the claim",
    )
    parser.add_argument("--cache", default=HERE / ".cache" / "hinton_mnist", type=Path)
    parser.add_argument("--results", default=HERE / "results", type=Path)
    return parser.parse_args()


def main():
    options = asked()
    lab = kd.setup(seed=0)
    sizes = (2000, 500, 1000) if options.quick else (55000, 5000, 10000)
    epochs, teacher_epochs = (1, 1) if options.quick else (30, 60)
    bench = Bench(options.cache / ("quick" if options.quick else "full"))
    tasks = kd.splits("mnist", 3, sizes=sizes)
    arms, facts = measure(bench, tasks, epochs, teacher_epochs, seeds=[0, 1])
    draws = resample(arms)
    rows = rows_of_arms(arms, facts, draws) + [
        row_of_gap(arms, draws, "labels", "T = 20"),
        row_of_gap(arms, draws, "labels, 60 epochs", "T = 20, 60 epochs"),
    ]
    table = table_of(rows, lab)
    save(table, options.results)
    print(table.drop(columns=["hardware", "torch"]).to_string(index=False))


if __name__ == "__main__":
    main()
