"""The loop: every student of a grid, trained through replicas, comes back as `Runs`."""

import math
import os
import time

import torch
from tqdm.auto import tqdm

from . import grid as plan
from . import metrics, signals
from .lab import device
from .live import Live
from .objectives import HardLabels, KDLoss
from .replicas import Replicas, Stepper, threads_for
from .runs import Runs


def train(student, tasks, *, epochs=100, lr=1e-2, batch=32, seeds=1, objective=None, **options):
    """Train students on labels alone: a grid of one or more cells × units × seeds → `Runs`.

    student: a builder such as mlp(64). tasks: one `Task` or a list, one a unit. objective: `HardLabels()` by
    default, or `LabelSmoothing(0.1)`. The other arguments are those of `sweep`.

    >>> from kdlab import load, mlp
    >>> runs = train(mlp(16), load("digits"), epochs=2)
    >>> len(runs)
    1
    """
    objective = HardLabels() if objective is None else objective
    return sweep(student, tasks, objective=objective, epochs=epochs, lr=lr, batch=batch,
                 seeds=seeds, **options)


def distill(student, teacher, tasks, *, temperature=4.0, alpha=0.9, epochs=100, lr=1e-2, batch=32, seeds=1,
            **options):
    """Distil a teacher into students: alpha · T² · KL(teacher ‖ student) + (1 − alpha) · CE → `Runs`.

    teacher: `Runs` with one run a unit (each split has its own teacher), an nn.Module that teaches every
    unit, a teacher that learns too (`EMA`, `Peers`), or a list of logits, one a task, for the rows of `on`:
    (N, C), or (S, N, C) with a teacher for each seed. The other arguments are those of `sweep`.
    Source: Hinton, Vinyals, Dean 2015.

    >>> from kdlab import load, mlp
    >>> task = load("digits")
    >>> runs = distill(mlp(16), train(mlp(64), task, epochs=2), task, epochs=2)
    >>> runs.frame["temperature"].tolist()
    [4.0]
    """
    return sweep(student, tasks, teacher=teacher, temperature=temperature, alpha=alpha, epochs=epochs, lr=lr,
                 batch=batch, seeds=seeds, **options)


def generations(student, tasks, count=3, *, seeds=1, temperature=4.0, alpha=0.9, **options):
    """Born-again networks: a model, distilled into its like, which is distilled in turn → [`Runs`, …].

    Generation 0 learns from labels; then each seed's student teaches one with other initial weights. seeds: how
    many; generation g takes the seeds g · seeds and up. The other arguments are those of `train` and `distill`.
    Source: Furlanello, Lipton, Tschannen, Itti, Anandkumar 2018, section 3.

    >>> from kdlab import load, mlp
    >>> first, second = generations(mlp(8), load("digits"), count=2, epochs=1)
    >>> second.frame["seed"].tolist()
    [1]
    """
    for name, value in (("count", count), ("seeds", seeds)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"generations: {name} must be a whole number of at least 1, got {value!r}")
    tasks = plan.listed_tasks(tasks)
    born = [train(student, tasks, seeds=seeds, **options)]
    for g in range(1, count):
        teacher = signals.each(born[-1], tasks, on=options.get("on", "train"))
        born.append(distill(student, teacher, tasks, temperature=temperature, alpha=alpha,
                            seeds=range(g * seeds, (g + 1) * seeds), **options))
    return born


def sweep(student, tasks, *, teacher=None, objective=KDLoss, temperature=4.0, alpha=0.9, epochs=100, lr=1e-2,
          batch=32, seeds=1, on="train", start=None, checkpoints=1, at_once=None, **options):
    """Every combination of the arguments that are lists, × units × seeds, trained as stacks of replicas.

    student, objective, temperature, alpha, epochs, lr, batch: a value or a list of values, one axis each.
    objective: an instance, or a class that is called with temperature= and alpha=.
    seeds: how many, or a list of them; a seed fixes a student's initial weights, data order and dropout.
    on: "train", or "transfer" for every training image, labelled or not. start: `Runs` whose students go
    on from their weights, matched by unit and seed. checkpoints: rows a run in the frame, evenly spaced.
    at_once: replicas a stack, chosen by itself when None. options: optimiser ("adam", "adamw", "sgd"),
    schedule ("cosine", "constant"), clip, momentum, weight_decay.
    Returns `Runs`; an interrupt (Ctrl-C, ■) returns what is finished so far. Raises TypeError or ValueError
    where an argument is out of range, the teacher is a student, or its rows don't line up with the data.

    >>> from kdlab import load, mlp
    >>> task = load("digits")
    >>> runs = sweep(mlp(8), task, teacher=train(mlp(64), task, epochs=1), temperature=[1, 4], epochs=1, seeds=2)
    >>> len(runs)
    4
    """
    tasks, seeds = plan.listed_tasks(tasks), plan.listed_seeds(seeds)
    grid = {"student": student, "objective": objective, "batch": batch, "epochs": epochs, "lr": lr,
            "temperature": temperature, "alpha": alpha}
    grid = {k: list(v) if isinstance(v, (list, tuple)) else [v] for k, v in grid.items()}
    live = teacher if isinstance(teacher, Live) else None
    plan.check_options(start, **options)
    plan.check(grid, tasks, seeds, on, checkpoints, at_once, live.cohort if live else 1)
    if any(plan.build(b, tasks[0], 0) is teacher for b in grid["student"] if isinstance(teacher, torch.nn.Module)):
        raise ValueError("sweep: student must be another model than the teacher, got a builder that returns the "
                         "teacher itself; expected one that builds a new model")
    teaches = any(o.needs_teacher for o in grid["objective"])
    if teaches and teacher is None:
        raise ValueError("sweep: teacher must be given for an objective that distils; without one use train()")
    taught, seen = {}, {}
    layers = list(dict.fromkeys(k for o in grid["objective"] for k in getattr(o, "layers", ())))
    if teaches and (layers or not live):  # a live teacher has no hidden layers to give: signal says so
        taught = plan.signal(teacher, tasks, on, len(seeds), layers)
        seen = plan.signal(teacher, tasks, "validation", optional=True)
    runs, stacks = Runs(tasks), plan.stacks(grid, tasks, seeds, at_once, live.cohort if live else 1)
    total = sum(stack["epochs"] * len(stack["rows"]) for stack in stacks)
    quiet = bool(os.environ.get("TQDM_DISABLE"))  # said outright: tqdm's notebook bar ignores the variable
    with tqdm(total=total, delay=2, leave=False, unit="epoch", desc="students", disable=quiet) as bar:
        for stack in stacks:
            try:
                _train_stack(runs, stack, tasks, taught, seen, live, on, start, checkpoints, options, bar)
            except KeyboardInterrupt:
                print(f"Interrupted: {len(runs)} of {sum(len(s['rows']) for s in stacks)} runs are kept, "
                      "each with the epoch it reached.")
                break
    return runs


def _train_stack(runs, stack, tasks, taught, seen, live, on, start, checkpoints, options, bar):
    """Train one stack and add its rows to `runs`, also those of an interrupted one."""
    rows, epochs, batch, objective = (stack[k] for k in ("rows", "epochs", "batch", "objective"))
    models = [start.module(unit=tasks[r["task"]].unit, seed=r["seed"]) if start is not None
              else plan.build(stack["student"], tasks[r["task"]], r["seed"]) for r in rows]
    x, y = (torch.cat([getattr(getattr(t, on), k) for t in tasks]) for k in "xy")
    z, layers = {}, getattr(objective, "layers", ())
    if not objective.needs_teacher:
        x, y = x[y >= 0], y[y >= 0]  # without a teacher, a row without a label has nothing to say
    elif not live:
        z = {k: taught[k].flatten(0, -2 if k == "logits" else 1) for k in ("logits", *layers)}
    if hasattr(objective, "prepare"):
        models = [objective.prepare(m, x[:1], {k: v[:1] for k, v in z.items()}, r["seed"])
                  for m, r in zip(models, rows, strict=True)]
    if isinstance(objective, type):
        objective = objective(**{k: torch.tensor([float(r[k]) for r in rows], device=device())[:, None, None]
                                 for k in ("temperature", "alpha")})
    replicas = Replicas(models, [r["seed"] for r in rows])
    replicas.base.train()
    live = live.begin(replicas) if live and objective.needs_teacher else None
    n, (unit, nth) = len(y) // len(tasks), torch.tensor([(r["task"], r["nth"]) for r in rows], device=device()).T
    teachers = len(z["logits"]) // len(y) if z else 1  # a unit: one, or one for each seed
    shift = (unit * (teachers - 1) + nth * (teachers > 1))[:, None] * n  # from a row of x to its row of z
    stepper = Stepper(replicas, [r["lr"] for r in rows], math.ceil(n / batch) * epochs, **options)
    marks = {math.ceil(epochs * (i + 1) / checkpoints) for i in range(checkpoints)}
    recorded, began = -1, time.perf_counter()
    try:
        for epoch in range(1, epochs + 1):
            order = replicas.orders_of_epoch(n)
            if live:  # peers see the batches of their first
                order = order[torch.arange(len(rows)) // live.cohort * live.cohort]
            with threads_for(replicas):
                terms = _epoch(stepper, objective, order + (unit * n)[:, None], x, y, z, shift, live, batch,
                               logged=epoch in marks)
            if epoch in marks:
                spent = torch.full((len(rows),), (time.perf_counter() - began) / len(rows))
                found = _validate(replicas, tasks, unit, seen, live)
                found["diverged"] |= ~terms["loss"].isfinite()
                terms = {k: v / n for k, v in terms.items()} | {"seconds": spent}
                runs.record(stack, epoch, terms, found)
                recorded = epoch
            bar.update(len(rows))
    except KeyboardInterrupt:
        reached = epochs * stepper.t / stepper.steps  # may end in a fraction
        if reached > recorded:
            runs.record(stack, reached, {}, _validate(replicas, tasks, unit, seen, live))
        raise
    finally:
        runs.keep(replicas)


def _epoch(stepper, objective, order, x, y, z, shift, live, batch, logged):
    """One pass over the row numbers `order` (R, N) of x, y and the teacher's z; where logged, the terms' sums (R,)."""
    size = x[0].numel() + sum(v[0].numel() for v in z.values())
    block = batch * max(1, 2**21 // (len(order) * batch * size))  # gathered at once: 8 MB, which stay in cache
    sums = {}
    for part in order.split(block, dim=1):
        shape, flat, there = part.shape, part.flatten(), (part + shift).flatten()
        xs, ys = x.index_select(0, flat).view(*shape, *x.shape[1:]), y[flat].view(shape)
        zs = {k: v.index_select(0, there).view(*shape, *v.shape[1:]) for k, v in z.items()}
        for i in range(0, shape[1], batch):
            def loss_of(answer, at=slice(i, i + batch), xs=xs, ys=ys, zs=zs):
                teacher = {k: v[:, at] for k, v in zs.items()}
                if live:
                    teacher = {"logits": live.logits(xs[:, at], answer)}
                return objective.rows(answer, teacher if hasattr(objective, "layers") else teacher.get("logits"),
                                      ys[:, at])

            terms = stepper.step(xs[:, i:i + batch], loss_of)
            if live:
                live.after_step()
            if logged:
                sums = {k: sums.get(k, 0) + v.sum(-1) for k, v in terms.items()}
    return sums


def _validate(replicas, tasks, unit, seen, live):
    """Metrics of every replica on its own validation split, and if it diverged: {name: (R,)}."""
    x, labels = (torch.stack([getattr(t.validation, k) for t in tasks])[unit] for k in "xy")
    logits = replicas.evaluate(x)
    found = {name: getattr(metrics, name)(logits, labels) for name in ("accuracy", "nll", "ece")}
    teacher = live.logits(x, logits) if live else seen["logits"][unit] if seen else None
    if teacher is not None:
        found["agreement"] = metrics.agreement(logits, teacher)
        found["teacher_accuracy"] = metrics.accuracy(teacher, labels)
    found["diverged"] = ~(metrics.sound(logits) & _finite_weights(replicas))
    return found


def _finite_weights(replicas):
    """True for each replica whose learnt weights are all finite, (R,).

    Logits alone would miss those of a hidden unit that rests, or of a word that is not used.
    """
    learnt = [name for name, p in replicas.base.named_parameters() if p.requires_grad]
    return torch.stack([replicas.parameters[k].flatten().view(len(replicas), -1).isfinite().all(1)
                        for k in learnt]).all(0)
