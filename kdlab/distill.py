"""The loop: every student of a grid, trained through replicas, comes back as `Runs`."""

import itertools
import math
import os

import torch
from tqdm.auto import tqdm

from . import metrics, signals
from .divergences import FLOOR
from .lab import device
from .objectives import HardLabels, KDLoss
from .replicas import Replicas, Stepper
from .runs import Runs, name_of
from .tasks import Task

AXES = ("student", "objective", "batch", "epochs", "lr", "temperature", "alpha")
STACKED = ("lr", "temperature", "alpha")  # may differ between replicas of one stack; the others may not


def train(student, tasks, *, epochs=100, lr=1e-2, batch=32, seeds=1, objective=None, **options):
    """Train students on labels alone: a grid of one or more cells × units × seeds → `Runs`.

    student: a builder such as mlp(64). tasks: one `Task` or a list, one a unit. objective: `HardLabels()` by
    default, or `LabelSmoothing(0.1)`. The other arguments are those of `sweep`.

    >>> from kdlab import load, mlp
    >>> runs = train(mlp(16), load("digits"), epochs=2)
    >>> len(runs)
    1
    """
    return sweep(student, tasks, objective=objective or HardLabels(), epochs=epochs, lr=lr, batch=batch,
                 seeds=seeds, **options)


def distill(student, teacher, tasks, *, temperature=4.0, alpha=0.9, epochs=100, lr=1e-2, batch=32, seeds=1,
            **options):
    """Distil a teacher into students: alpha · T² · KL(teacher ‖ student) + (1 − alpha) · CE → `Runs`.

    teacher: `Runs` with one run a unit (each split has its own teacher), an nn.Module that teaches every
    unit, or a list of logits (N, C), one a task, for the rows of `on`. The other arguments are those of
    `sweep`. Source: Hinton, Vinyals, Dean 2015.

    >>> from kdlab import load, mlp
    >>> task = load("digits")
    >>> runs = distill(mlp(16), train(mlp(64), task, epochs=2), task, epochs=2)
    >>> runs.frame["temperature"].tolist()
    [4.0]
    """
    return sweep(student, tasks, teacher=teacher, temperature=temperature, alpha=alpha, epochs=epochs, lr=lr,
                 batch=batch, seeds=seeds, **options)


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
    tasks = [tasks] if isinstance(tasks, Task) else list(tasks)
    grid = {"student": student, "objective": objective, "batch": batch, "epochs": epochs, "lr": lr,
            "temperature": temperature, "alpha": alpha}
    grid = {k: list(v) if isinstance(v, (list, tuple)) else [v] for k, v in grid.items()}
    seeds = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    _check(grid, tasks, seeds, on, checkpoints, at_once)
    teaches = any(o.needs_teacher for o in grid["objective"])
    if teaches and teacher is None:
        raise ValueError("sweep: teacher must be given for an objective that distils; without one use train()")
    taught = _signal(teacher, tasks, on) if teaches else None
    seen = _signal(teacher, tasks, "validation", optional=True) if teaches else None
    runs, stacks = Runs(tasks), _stacks(grid, tasks, seeds, at_once)
    total = sum(stack["epochs"] * len(stack["rows"]) for stack in stacks)
    quiet = bool(os.environ.get("TQDM_DISABLE"))  # said outright: tqdm's notebook bar ignores the variable
    with tqdm(total=total, delay=2, leave=False, unit="epoch", desc="students", disable=quiet) as bar:
        for stack in stacks:
            try:
                _train_stack(runs, stack, tasks, taught, seen, on, start, checkpoints, options, bar)
            except KeyboardInterrupt:
                print(f"Interrupted: {len(runs)} of {sum(len(s['rows']) for s in stacks)} runs are kept, "
                      "each with the epoch it reached.")
                break
    return runs


def _check(grid, tasks, seeds, on, checkpoints, at_once):
    counts = grid | {"checkpoints": [checkpoints], "at_once": [1 if at_once is None else at_once]}
    for name in ("epochs", "batch", "checkpoints", "at_once"):
        for value in counts[name]:
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"sweep: {name} must be a whole number of at least 1, got {value!r}")
    for value in grid["lr"]:
        if not 0 < value < math.inf:
            raise ValueError(f"sweep: lr must be above 0 and finite, got {value!r}")
    for builder in grid["student"]:
        if isinstance(builder, torch.nn.Module) or not callable(builder):
            raise TypeError(f"sweep: student must be a builder (task → model) such as mlp(64), "
                            f"got {type(builder).__name__}; a trained model is not a builder")
    for objective in grid["objective"]:
        if not hasattr(objective, "needs_teacher"):
            raise TypeError(f"sweep: objective must be such as KDLoss or HardLabels(), got {objective!r}")
    for name in ("student", "objective"):
        told = [(name_of(v), getattr(v, "temperature", None), getattr(v, "alpha", None)) for v in grid[name]]
        if len(set(told)) < len(told):
            raise ValueError(f"sweep: {name} must hold values of different names, which is how the frame tells them "
                             f"apart, got {[t[0] for t in told]}; make them two sweeps")
    for value in itertools.product(grid["temperature"], grid["alpha"]):
        KDLoss(*value)  # raises for T ≤ 0 and alpha outside [0, 1]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"sweep: seeds must be distinct and at least one, got {seeds!r}")
    if on not in ("train", "transfer"):
        raise ValueError(f"sweep: on must be 'train' or 'transfer', got {on!r}")
    if not all(isinstance(task, Task) for task in tasks):
        raise TypeError(f"sweep: tasks must be one Task or a list of them, from load() or splits(), got {tasks}")
    units = [task.unit for task in tasks]
    if not units or len(set(units)) < len(units):
        raise ValueError(f"sweep: tasks must be at least one, each of another split, got {units}")
    shapes = {(tuple(getattr(t, on).x.shape), int((getattr(t, on).y >= 0).sum()), len(t.validation), len(t.classes))
              for t in tasks}
    if len(shapes) > 1:
        raise ValueError(f"sweep: tasks must agree in images, labels and classes, got {sorted(shapes)}")
    for task in tasks:
        y = getattr(task, on).y
        if bool(((y >= len(task.classes)) | ((y < 0) & (y != -100))).any()):
            raise ValueError(f"sweep: labels of {task.unit} must lie in [0, {len(task.classes)}) or be −100, "
                             f"got {int(y.min())} … {int(y.max())}")


def _signal(teacher, tasks, on, optional=False):
    """The teacher's logits for each task's rows, stacked: (U, N, C)."""
    if isinstance(teacher, Runs):
        found = [teacher.logits_of_unit(task, getattr(task, on).x) for task in tasks]
    elif isinstance(teacher, torch.nn.Module):
        found = [signals.logits(teacher, getattr(task, on).x) for task in tasks]
    elif optional:
        return None
    else:
        found = [teacher] if torch.is_tensor(teacher) and teacher.ndim == 2 else teacher
        if not isinstance(found, (list, tuple, torch.Tensor)) or not all(torch.is_tensor(z) for z in found):
            raise TypeError(f"sweep: teacher must be Runs, an nn.Module or logits, got {type(teacher).__name__}")
    if len(found) != len(tasks):
        raise ValueError(f"sweep: teacher must give logits for each of the {len(tasks)} tasks, got {len(found)}")
    for z, task in zip(found, tasks, strict=True):
        expected = (len(getattr(task, on)), len(task.classes))
        if tuple(z.shape) != expected:
            raise ValueError(f"sweep: teacher logits for {task.unit} must have shape {expected}, one row for each "
                             f"row of task.{on}, got {tuple(z.shape)}")
        if not torch.isfinite(z.amax(-1)).all():
            raise ValueError(f"sweep: teacher logits for {task.unit} hold NaN, +inf or a row of −inf; expected finite")
    return torch.stack([z.detach().to(device()).float().clamp_min(FLOOR) for z in found])


def _stacks(grid, tasks, seeds, at_once):
    """The grid as stacks of replicas: what can't differ inside a stack, and its rows."""
    stacks = []
    outer = [k for k in AXES if k not in STACKED]
    for values in itertools.product(*(grid[k] for k in outer)):
        cell = dict(zip(outer, values, strict=True))
        inner = {k: grid[k] for k in STACKED}
        if not cell["objective"].needs_teacher or not isinstance(cell["objective"], type):
            inner |= {"temperature": [math.nan], "alpha": [math.nan]}  # the objective brings its own, or none
        rows = [dict(zip(STACKED, v, strict=True)) | {"task": u, "seed": s}
                for v in itertools.product(*inner.values()) for u in range(len(tasks)) for s in seeds]
        size = at_once or _replicas_at_once(cell["student"], tasks[0])
        stacks += [cell | {"rows": rows[i:i + size]} for i in range(0, len(rows), size)]
    return stacks


def _replicas_at_once(student, task):
    """Convolutions on larger images gain nothing from stacking on a CPU: then one student after another."""
    convolves = any(isinstance(m, torch.nn.Conv2d) for m in _build(student, task, 0).modules())
    return 1 if convolves and math.prod(task.shape[1:]) > 256 and device().type == "cpu" else 128


def _build(student, task, seed):
    """The student of one seed, without touching the random state of whoever called."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return student(task).to(device())


def _train_stack(runs, stack, tasks, taught, seen, on, start, checkpoints, options, bar):
    """Train one stack and add its rows to `runs`, also those of an interrupted one."""
    rows, epochs, batch = stack["rows"], stack["epochs"], stack["batch"]
    models = [start.module(unit=tasks[r["task"]].unit, seed=r["seed"]) if start is not None
              else _build(stack["student"], tasks[r["task"]], r["seed"]) for r in rows]
    replicas = Replicas(models, [r["seed"] for r in rows])
    replicas.base.train()
    unit = torch.tensor([r["task"] for r in rows], device=device())
    x, y = (torch.cat([getattr(getattr(t, on), k) for t in tasks]) for k in "xy")
    objective = stack["objective"]
    # without a teacher, a row without a label has nothing to say
    x, y, z = (x, y, taught.flatten(0, 1)) if objective.needs_teacher else (x[y >= 0], y[y >= 0], None)
    n = len(y) // len(tasks)
    if isinstance(objective, type):
        T, alpha = ([torch.tensor([float(r[k]) for r in rows], device=device())[:, None, None] for k in STACKED[1:]])
        objective = objective(temperature=T, alpha=alpha)
    stepper = Stepper(replicas, [r["lr"] for r in rows], math.ceil(n / batch) * epochs, **options)
    marks = {math.ceil(epochs * (i + 1) / checkpoints) for i in range(checkpoints)}
    block = batch * max(1, 2**26 // (len(rows) * batch * x[0].numel()))  # at most 256 MB gathered at once
    recorded = -1
    try:
        for epoch in range(1, epochs + 1):
            order = replicas.orders_of_epoch(n) + (unit * n)[:, None]
            sums = {}
            for part in order.split(block, dim=1):
                shape, flat = part.shape, part.flatten()
                xs, ys = x.index_select(0, flat).view(*shape, *x.shape[1:]), y[flat].view(shape)
                zs = z.index_select(0, flat).view(*shape, -1) if z is not None else None
                for i in range(0, shape[1], batch):
                    at = slice(i, i + batch)
                    terms = stepper.step(xs[:, at], lambda logits, at=at, zs=zs, ys=ys: objective.rows(
                        logits, zs[:, at] if zs is not None else None, ys[:, at]))
                    if epoch in marks:
                        sums = {k: sums.get(k, 0) + v.sum(-1) for k, v in terms.items()}
            if epoch in marks:
                runs.record(stack, epoch, {k: v / n for k, v in sums.items()}, _validate(replicas, tasks, unit, seen))
                recorded = epoch
            bar.update(len(rows))
    except KeyboardInterrupt:
        reached = epochs * stepper.t / stepper.steps  # may end in a fraction
        if reached > recorded:
            runs.record(stack, reached, {}, _validate(replicas, tasks, unit, seen))
        raise
    finally:
        runs.keep(replicas)


def _validate(replicas, tasks, unit, seen):
    """Metrics of every replica on its own validation split: {name: (R,)}."""
    logits = replicas.evaluate(torch.stack([t.validation.x for t in tasks])[unit])
    labels = torch.stack([t.validation.y for t in tasks])[unit]
    found = {name: getattr(metrics, name)(logits, labels) for name in ("accuracy", "nll", "ece")}
    if seen is not None:
        found["agreement"] = metrics.agreement(logits, seen[unit])
    return found
