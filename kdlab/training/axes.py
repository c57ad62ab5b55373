"""The axes of a sweep: what each may hold, and the stacks of students that they span."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from kdlab.base import arguments
from kdlab.base.lab import device
from kdlab.losses.kd import KDLoss
from kdlab.losses.protocol import Objective
from kdlab.training import backprop

SETTINGS = ("temperature", "alpha")  # of an objective: columns of every frame
# the axes that are no settings of an objective
PLAIN = ("student", "objective", "batch", "epochs", "lr")
STACKED = 128  # replicas in one stack
PERCEPTRONS = 400_000  # weights of theirs at the least, where a stack has a thread of its own


def name_of(value):
    """What a builder, an objective or a metric is called in the frame."""
    return getattr(value, "__name__", type(value).__name__)


@dataclass(frozen=True)
class Run:
    """One student to be trained: its cell within the stack, its task's place, and its seed."""

    lr: float
    settings: dict[str, float]  # the objective's, by name; NaN where it has none
    task: int
    seed: int
    nth_seed: int


@dataclass(frozen=True)
class Stack:
    """What is trained together, as replicas of one architecture with one budget."""

    student: Any
    objective: Objective
    batch: int
    epochs: int
    runs: list[Run]
    shorter: tuple[int, ...] = ()  # budgets that these students pass on their way


def one_way(epochs: list[int], schedule: str = "cosine", **options: Any) -> bool:
    """Whether the shorter of several budgets are part of the longest: at a constant rate they are.

    >>> one_way([10, 40], "constant"), one_way([10, 40])
    (True, False)
    """
    return schedule == "constant" and len(set(epochs)) == len(epochs)


def _builder(value):
    if isinstance(value, torch.nn.Module) or not callable(value):
        raise TypeError(
            "sweep: student must be a builder (task → model) such as mlp(64), "
            f"got {type(value).__name__}; a trained model is not a builder"
        )
    return value


def _objective(value):
    if isinstance(value, type) and issubclass(value, Objective):
        try:
            return value()
        except TypeError as error:
            raise TypeError(
                f"sweep: objective must be an instance of {value.__name__}: {error}"
            ) from error
    if not isinstance(value, Objective):
        own = f"; a loss of your own is kd.OwnLoss({name_of(value)})" if callable(value) else ""
        raise TypeError(
            f"sweep: objective must be such as KDLoss() or HardLabels(), got {value!r}{own}"
        )
    return value


def _setting(name, value):
    """A number that KDLoss takes; None keeps the objective's own."""
    if getattr(value, "ndim", 0):
        raise TypeError(
            f"sweep: {name} must be a number or a list of them, got the shape {tuple(value.shape)}"
        )
    return value if value is None else float(getattr(KDLoss(**{name: value}), name))


def _own_setting(name, value):
    """A number for a setting that `swept` names; None keeps the objective's own."""
    return value if value is None else float(arguments.number("sweep", name, value))


AXES: dict[str, Callable[[Any], Any]] = {
    "student": _builder,
    "objective": _objective,
    "batch": partial(arguments.whole, "sweep", "batch", least=1),
    "epochs": partial(arguments.whole, "sweep", "epochs", least=1),
    "lr": partial(arguments.number, "sweep", "lr", above=0),
    "temperature": partial(_setting, "temperature"),
    "alpha": partial(_setting, "alpha"),
}


def grid(**given: Any) -> dict[str, list]:
    """Each axis as the list of its values, checked; the error names the axis.

    Axes that are not those of every sweep are settings that an objective names in `swept`.

    >>> grid(lr=[0.1, 0.2], batch=32)
    {'lr': [0.1, 0.2], 'batch': [32]}
    """
    found = {name: listed(name, value) for name, value in given.items()}
    _check_names("student", [(name_of(v),) for v in found.get("student", ())])
    cells = []
    for objective in found.get("objective", ()):
        _check_settings(objective, found)
        values = _settings_of(objective, found).values()
        own = itertools.product([name_of(objective)], *values)
        cells.append([tuple(map(str, cell)) for cell in own])  # as text, one NaN is like another
    _check_names("objective", [cell for own in cells for cell in own], [own[0] for own in cells])
    return found


def listed(name: str, value: Any) -> list:
    """One axis as the list of its values, checked.

    >>> listed("lr", 0.1)
    [0.1]
    """
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if not values:
        raise ValueError(f"sweep: {name} must hold at least one value, got none")
    values = [AXES.get(name, partial(_own_setting, name))(v) for v in values]
    if name not in ("student", "objective"):  # which are told apart by their names
        _check_once(name, values)
    return values


def _check_once(name, values, whose=""):
    """Raise the error for a value that comes twice: its runs would be the same in one cell."""
    if len(set(values)) < len(values):
        raise ValueError(f"sweep: {name} must hold each value once, got {values}{whose}")


def _settings(grid):
    """The names of its axes that are settings of an objective."""
    return [name for name in grid if name not in PLAIN]


def _settings_of(objective, grid):
    """The values of each setting for this objective, its own in place of None: {name: […]}."""
    found = {}
    for name in _settings(grid):
        found[name] = [_value(objective, name) if v is None else v for v in grid[name]]
        _check_once(name, found[name], f" for {objective!r}")
    return found


def _value(objective, name):
    """An objective's own value of a setting, a number; NaN where it has none."""
    value = objective.setting(name)
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's own of a tensor of several
        raise TypeError(
            f"sweep: objective must hold one number as {name}, got {value!r:.60} of {objective!r}"
        ) from error


def _check_settings(objective, grid):
    """Raise the error for a setting that the objective does not take, or not with this value."""
    for name in _settings(grid):
        if grid[name] == [None]:
            continue
        if name not in objective.swept:
            takes = f"takes {list(objective.swept)}" if objective.swept else "takes none"
            raise ValueError(
                f"sweep: {name} must be left out for an objective without it, "
                f"got {grid[name]} for {objective!r}, which {takes}"
            )
        for value in filter(lambda v: v is not None, grid[name]):
            objective.check_setting(name, value)


def _check_names(name, told, shown=None):
    if len(set(told)) < len(told):
        raise ValueError(
            f"sweep: {name} must hold values of different names, which is how the frame tells them "
            f"apart, got {[t[0] for t in shown or told]}; make them two sweeps"
        )


def stacks(
    grid: dict[str, list],
    tasks: list,
    seeds: list[int],
    at_once: int | None,
    cohort: int = 1,
    threads: int = 1,
    nested: bool = False,
) -> Iterator[Stack]:
    """The grid as stacks of students, where it pays one for each thread; peers are never parted.

    nested: train the longest budget alone, and keep what the students are at the shorter ones.
    """
    budgets = sorted(grid["epochs"])[-1:] if nested else grid["epochs"]
    shorter = tuple(sorted(grid["epochs"])[:-1]) if nested else ()
    outer = (*(grid[k] for k in ("student", "objective", "batch")), budgets)
    for student, objective, batch, epochs in itertools.product(*outer):
        settings = _settings_of(objective, grid)
        runs = [
            Run(lr, dict(zip(settings, values, strict=True)), task, seed, nth)
            for lr, *values in itertools.product(grid["lr"], *settings.values())
            for task in range(len(tasks))
            for nth, seed in enumerate(seeds)
        ]
        size = at_once or _replicas_at_once(student, tasks[0])
        share = math.ceil(len(runs) / threads)
        if threads > 1 and worth_a_thread(student, tasks[0], share):
            size = min(size, share)
        size = max(cohort, size - size % cohort)
        for i in range(0, len(runs), size):
            part = runs[i : i + size]
            taken = {k: _a_replica(part, k) for k in settings if k in objective.swept}
            settled = objective.with_settings(**taken)
            yield Stack(student, settled, batch, epochs, part, shorter)


def worth_a_thread(student, task, students):
    """Whether so many students of this architecture gain by a thread of their own.

    A step of few small perceptrons is mostly Python's work, which threads don't share. A `PatchNet`
    meets each weight at every patch, so its steps are long.
    """
    module = build(student, task, 0)
    weights = sum(p.numel() for p in module.parameters())
    short = isinstance(module, torch.nn.Sequential) and backprop.perceptron(module)
    return not short or students * weights >= PERCEPTRONS


def _a_replica(runs, name):
    """A setting's value for each replica, (R, 1, 1)."""
    values = [run.settings[name] for run in runs]
    return torch.tensor(values, device=device())[:, None, None]


def _replicas_at_once(student, task):
    """How many students of this architecture make a stack here."""
    module, here = build(student, task, 0), device().type
    convolves = any(isinstance(m, torch.nn.Conv2d) for m in module.modules())
    if convolves and here == "cpu" and math.prod(task.shape[1:]) > backprop.SMALL_IMAGE:
        return 1  # convolutions on larger images gain nothing from stacking: one after another
    if convolves or here != "cuda":
        return STACKED
    return stack_on_a_gpu(sum(p.numel() for p in module.parameters()))


def stack_on_a_gpu(parameters):
    """Perceptrons in one stack: a step of a thousand takes little longer than one of a hundred.

    Weights, gradients, two moments and two copies for recording are to stay within 4 GiB.

    >>> stack_on_a_gpu(5_000), stack_on_a_gpu(2_000_000)
    (1024, 89)
    """
    return max(1, min(1024, 2**32 // (6 * 4 * parameters)))


def build(student, task, seed):
    """The student of one seed, without touching the random state of whoever called."""
    with torch.random.fork_rng(devices=[]):
        if torch.cuda.is_available():
            torch.manual_seed(seed)
        else:
            # manual_seed also notes a traceback for a GPU that may come: 1.5 ms for each student
            torch.default_generator.manual_seed(seed)
        return student(task).to(device())
