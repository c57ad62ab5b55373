"""What is to be trained: the arguments of a sweep checked, its teacher's answers, its cells as stacks of replicas."""

import inspect
import itertools
import math

import torch

from . import arguments, signals
from .divergences import FLOOR
from .exits import DeepToShallow, Exits
from .lab import device
from .objectives import KDLoss
from .replicas import OPTIMISERS
from .runs import Runs, name_of
from .tasks import Task

AXES = ("student", "objective", "batch", "epochs", "lr", "temperature", "alpha")
STACKED = ("lr", "temperature", "alpha")  # may differ between replicas of one stack; the others may not


def listed_tasks(tasks):
    """One task or several as a list; a TypeError for what is neither."""
    return [tasks] if isinstance(tasks, Task) else arguments.listed(
        "sweep", "tasks", tasks, "one Task or a list of them, from load() or splits()")


def listed_seeds(seeds):
    """How many seeds, or which, as a list of whole numbers."""
    if isinstance(seeds, (int, float)) or seeds is None:
        return list(range(arguments.whole("sweep", "seeds", seeds)))
    listed = arguments.listed("sweep", "seeds", seeds, "a whole number or a list of them")
    return [arguments.whole("sweep", "seeds", seed) for seed in listed]


def check_options(start=None, optimiser="adam", schedule="cosine", clip=None, **options):
    """Raise the error for how a student is trained: what goes on to the optimiser must be its own."""
    if not (start is None or isinstance(start, Runs)):
        raise TypeError(f"sweep: start must be Runs, or None, got {type(start).__name__}")
    arguments.one_of("sweep", "optimiser", optimiser, OPTIMISERS)
    arguments.one_of("sweep", "schedule", schedule, ("cosine", "constant"))
    if clip is not None:
        arguments.number("sweep", "clip", clip, above=0)
    known = set(inspect.signature(OPTIMISERS[optimiser]).parameters) - {"params", "lr", "fused"}
    if unknown := sorted(set(options) - known):
        raise TypeError(f"sweep: {unknown} are no arguments of sweep or of {optimiser}, which takes {sorted(known)}")


def check(grid, tasks, seeds, on, checkpoints, at_once, cohort=1):
    """Raise the error that names the argument of `sweep`, what came and what was expected."""
    for name, values in grid.items():
        if not values:
            raise ValueError(f"sweep: {name} must hold at least one value, got none")
    counts = grid | {"checkpoints": [checkpoints], "at_once": [1 if at_once is None else at_once]}
    for name in ("epochs", "batch", "checkpoints", "at_once"):
        for value in counts[name]:
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"sweep: {name} must be a whole number of at least 1, got {value!r}")
    for value in grid["lr"]:
        arguments.number("sweep", "lr", value, above=0)
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
    for name in ("temperature", "alpha"):
        if wrong := [value for value in grid[name] if getattr(value, "ndim", 0)]:
            raise TypeError(f"sweep: {name} must be a number or a list of them, got the shape {tuple(wrong[0].shape)}")
    for value in itertools.product(grid["temperature"], grid["alpha"]):
        KDLoss(*value)  # raises for T ≤ 0 and alpha outside [0, 1]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"sweep: seeds must be distinct and at least one, got {seeds!r}")
    if len(seeds) % cohort:
        raise ValueError(f"sweep: seeds must be a multiple of {cohort} for peers in groups of {cohort}, "
                         f"got {len(seeds)}")
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
    for builder in grid["student"]:
        exits = isinstance(build(builder, tasks[0], 0), Exits)
        for objective in grid["objective"]:
            if isinstance(objective, DeepToShallow) != exits:
                raise TypeError(f"sweep: objective for {name_of(builder)} must be {'' if exits else 'other than '}Deep"
                                f"ToShallow, got {name_of(objective)}; networks with exits and that loss go together")


def signal(teacher, tasks, on, seeds=1, layers=(), optional=False):
    """What the teacher says of each task's rows: {"logits": (U, N, C), or (U, S, N, C) by seed; layer: (U, N, …)}."""
    if torch.is_tensor(teacher) and not teacher.ndim:
        raise TypeError("sweep: teacher must be Runs, an nn.Module or logits (N, C), got a tensor without axes")
    if isinstance(teacher, (Runs, torch.nn.Module)):
        models = [teacher.module_of_unit(task) if isinstance(teacher, Runs) else teacher for task in tasks]
        answers = [signals.hidden(m, getattr(t, on).x, layers) for m, t in zip(models, tasks, strict=True)]
        found = [a["logits"] for a in answers]
    elif optional:
        return {}
    elif layers:
        raise TypeError(f"sweep: teacher must be Runs or an nn.Module, which have hidden layers, for an objective that "
                        f"asks for {list(layers)}, got {type(teacher).__name__}")
    else:
        answers = []
        found = [teacher] if torch.is_tensor(teacher) and teacher.ndim == 2 else teacher
        if not isinstance(found, (list, tuple, torch.Tensor)) or not all(torch.is_tensor(z) for z in found):
            raise TypeError(f"sweep: teacher must be Runs, an nn.Module or logits, got {type(teacher).__name__}")
    if len(found) != len(tasks):
        raise ValueError(f"sweep: teacher must give logits for each of the {len(tasks)} tasks, got {len(found)}")
    for z, task in zip(found, tasks, strict=True):
        expected = (len(getattr(task, on)), len(task.classes))
        if tuple(z.shape) not in (expected, (seeds, *expected)):
            raise ValueError(f"sweep: teacher logits for {task.unit} must have shape {expected}, one row for each row "
                             f"of task.{on}, or {(seeds, *expected)}, one teacher a seed, got {tuple(z.shape)}")
        if not torch.isfinite(z.amax(-1)).all():
            raise ValueError(f"sweep: teacher logits for {task.unit} hold NaN, +inf or a row of −inf; expected finite")
    if len({z.ndim for z in found}) > 1:
        raise ValueError("sweep: teacher must give each task one teacher, or each task one a seed, got logits of "
                         f"shapes {[tuple(z.shape) for z in found]}")
    logits = torch.stack([z.detach().to(device()).float().clamp_min(FLOOR) for z in found])
    return {"logits": logits} | {k: torch.stack([a[k] for a in answers]) for k in layers}


def stacks(grid, tasks, seeds, at_once, cohort=1):
    """The grid as stacks of replicas: what can't differ inside a stack, and its rows, never parting a cohort."""
    stacks = []
    outer = [k for k in AXES if k not in STACKED]
    for values in itertools.product(*(grid[k] for k in outer)):
        cell = dict(zip(outer, values, strict=True))
        inner = {k: grid[k] for k in STACKED}
        if not cell["objective"].needs_teacher or not isinstance(cell["objective"], type):
            inner |= {"temperature": [math.nan], "alpha": [math.nan]}  # the objective brings its own, or none
        rows = [dict(zip(STACKED, v, strict=True)) | {"task": u, "seed": s, "nth": i}
                for v in itertools.product(*inner.values()) for u in range(len(tasks)) for i, s in enumerate(seeds)]
        size = at_once or _replicas_at_once(cell["student"], tasks[0])
        size = max(cohort, size - size % cohort)
        stacks += [cell | {"rows": rows[i:i + size]} for i in range(0, len(rows), size)]
    return stacks


def _replicas_at_once(student, task):
    """Convolutions on larger images gain nothing from stacking on a CPU: then one student after another."""
    convolves = any(isinstance(m, torch.nn.Conv2d) for m in build(student, task, 0).modules())
    return 1 if convolves and math.prod(task.shape[1:]) > 256 and device().type == "cpu" else 128


def build(student, task, seed):
    """The student of one seed, without touching the random state of whoever called."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return student(task).to(device())
