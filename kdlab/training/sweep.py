"""Experiments: train on labels, distil, sweep a grid; every student comes back as `Runs`."""

import inspect
import numbers
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from kdlab.base import arguments
from kdlab.base.origin import origin
from kdlab.data.tasks import Task
from kdlab.losses.kd import HardLabels, KDLoss
from kdlab.losses.protocol import Objective
from kdlab.students.builders import Builder
from kdlab.teachers import outputs
from kdlab.teachers.live import Live
from kdlab.training import abreast, axes, backprop, taught
from kdlab.training.loop import train_stack
from kdlab.training.replicas import small
from kdlab.training.runs import COLUMNS, Runs
from kdlab.training.stepper import OPTIMISERS


def train(
    student: Builder | list[Builder],
    tasks: Task | Sequence[Task],
    *,
    epochs: int | list[int] = 100,
    lr: float | list[float] = 1e-2,
    batch: int | list[int] = 32,
    seeds: int | Sequence[int] = 1,
    objective: Objective | list[Objective] | None = None,
    **options: Any,
) -> Runs:
    """Train students on labels alone: a grid of one or more cells × units × seeds → `Runs`.

    student: a builder such as mlp(64). tasks: one `Task` or a list, one a unit. objective:
    `HardLabels()` by default, or `LabelSmoothing(0.1)`. The other arguments are those of `sweep`.

    >>> from kdlab import load, mlp
    >>> runs = train(mlp(16), load("digits"), epochs=2)
    >>> len(runs)
    1
    """
    objective = HardLabels() if objective is None else objective
    if options.get("teacher") is not None and not _needing(objective):
        raise ValueError(
            f"train: teacher must be left out for {objective!r}, which needs none, "
            f"got {type(options['teacher']).__name__}; to learn from it use distill()"
        )
    return sweep(
        student,
        tasks,
        objective=objective,
        epochs=epochs,
        lr=lr,
        batch=batch,
        seeds=seeds,
        **options,
    )


def distill(
    student: Builder | list[Builder],
    teacher: Any,
    tasks: Task | Sequence[Task],
    *,
    temperature: float | list[float] | None = None,
    alpha: float | list[float] | None = None,
    epochs: int | list[int] = 100,
    lr: float | list[float] = 1e-2,
    batch: int | list[int] = 32,
    seeds: int | Sequence[int] = 1,
    **options: Any,
) -> Runs:
    """Distil a teacher into students: a grid of cells × units × seeds → `Runs`.

    What each minimises is `KDLoss` (kdlab/losses/kd.py); how it learns stands in
    kdlab/training/loop.py, and tests/plain_loop.py is the same for one student without kdlab.

    teacher: `Runs` with one run a unit (each split has its own teacher), an nn.Module that teaches
    every unit, a teacher that learns too (`EMA`, `Peers`), or a list of logits, one a task, for the
    rows of `on`: (N, C), or (S, N, C) with a teacher for each seed. temperature and alpha: 4 and
    0.9, KDLoss's own, where they are left out. The other arguments are those of `sweep`. Source:
    Hinton, Vinyals, Dean 2015.

    >>> from kdlab import load, mlp
    >>> task = load("digits")
    >>> runs = distill(mlp(16), train(mlp(64), task, epochs=2), task, epochs=2)
    >>> runs.frame["temperature"].tolist()
    [4.0]
    """
    if "objective" in options and not _needing(options["objective"]):
        raise ValueError(
            "distill: objective must be one that needs a teacher, "
            f"got {options['objective']!r}; without a teacher use train()"
        )
    return sweep(
        student,
        tasks,
        teacher=teacher,
        temperature=temperature,
        alpha=alpha,
        epochs=epochs,
        lr=lr,
        batch=batch,
        seeds=seeds,
        **options,
    )


def generations(
    student: Builder,
    tasks: Task | Sequence[Task],
    count: int = 3,
    *,
    seeds: int = 1,
    temperature: float | None = None,
    alpha: float | None = None,
    **options: Any,
) -> list[Runs]:
    """Born-again networks: a model distilled into its like, in turn → [`Runs`, …].

    Generation 0 learns from labels; then each seed's student teaches one with other initial
    weights. seeds: how many; generation g takes the seeds g · seeds and up. The other arguments are
    those of `train` and `distill`. Source: Furlanello, Lipton, Tschannen, Itti, Anandkumar 2018,
    section 3.

    >>> from kdlab import load, mlp
    >>> first, second = generations(mlp(8), load("digits"), count=2, epochs=1)
    >>> second.frame["seed"].tolist()
    [1]
    """
    for name, value in (("count", count), ("seeds", seeds)):
        arguments.whole("generations", name, value, least=1)
    for name in ("teacher", "objective"):
        if name in options:
            raise ValueError(
                f"generations: {name} must be left out, as the first students learn from labels "
                f"and each later one from the one before, got {options[name]!r:.60}"
            )
    tasks = listed_tasks(tasks)
    born = [train(student, tasks, seeds=seeds, **options)]
    for g in range(1, count):
        teacher = outputs.each(born[-1], tasks, on=options.get("on", "train"))
        born.append(
            distill(
                student,
                teacher,
                tasks,
                temperature=temperature,
                alpha=alpha,
                seeds=range(g * seeds, (g + 1) * seeds),
                **options,
            )
        )
    return born


def sweep(
    student: Builder | list[Builder],
    tasks: Task | Sequence[Task],
    *,
    teacher: Any = None,
    objective: Objective | type[Objective] | list = KDLoss,
    temperature: float | list[float] | None = None,
    alpha: float | list[float] | None = None,
    epochs: int | list[int] = 100,
    lr: float | list[float] = 1e-2,
    batch: int | list[int] = 32,
    seeds: int | Sequence[int] = 1,
    on: str = "train",
    start: Runs | None = None,
    checkpoints: int | Sequence[int] = 1,
    metrics: Sequence[Callable] = (),
    at_once: int | None = None,
    **options: Any,
) -> Runs:
    """Every combination of the arguments that are lists, × units × seeds → `Runs`.

    They are trained as stacks of replicas.

    student, objective, temperature, alpha, epochs, lr, batch: a value or a list of values, one axis
    each. teacher: as for `distill`; beside objectives that need none it says nothing, so that they
    compare under the same arguments. objective: an instance, or its class. temperature, alpha, and
    any other setting that it names in its `swept`, such as beta of `DKDLoss`: take the place of the
    objective's own; an error for one that has no such setting. seeds: how many, or a list of them;
    a seed fixes a student's initial weights, data order and dropout. on: "train", or "transfer" for
    every training image, labelled or not. start: `Runs` whose students go on from their weights,
    matched by unit and seed. checkpoints: rows a run in the frame, evenly spaced, or the epochs of
    a list, such as [1, 2, 5, 10], and the last. metrics: functions (logits (N, C), data) → a share
    in [0, 1], measured on validation at each checkpoint: a column of the function's name. at_once:
    replicas a stack, chosen by itself when None. options: optimiser ("adam", "adamw", "sgd"),
    schedule ("cosine", "constant"), clip, momentum, weight_decay. Returns `Runs`; an interrupt
    (Ctrl-C, ■) returns what is finished so far. Raises TypeError or ValueError where an argument is
    out of range, the teacher is a student, or its rows don't line up with the data.

    >>> from kdlab import load, mlp
    >>> task = load("digits")
    >>> teacher = train(mlp(64), task, epochs=1)
    >>> runs = sweep(mlp(8), task, teacher=teacher, temperature=[1, 4], epochs=1, seeds=2)
    >>> len(runs)
    4
    """
    tasks, seeds = listed_tasks(tasks), listed_seeds(seeds)
    live = teacher if isinstance(teacher, Live) else None
    objectives = axes.listed("objective", objective)
    settings = _own_settings(objectives)
    grid = axes.grid(
        student=student,
        objective=objectives,
        batch=batch,
        epochs=epochs,
        lr=lr,
        temperature=temperature,
        alpha=alpha,
        **{name: options.pop(name, None) for name in settings},
    )
    checkpoints = _listed_checkpoints(checkpoints, max(grid["epochs"]))
    metrics = _listed_metrics(metrics, settings)
    at_once = None if at_once is None else arguments.whole("sweep", "at_once", at_once, least=1)
    _check_options(start, **options)
    _check_seeds(seeds, live.cohort if live else 1)
    _check_tasks(tasks, on)
    _check_teacher(grid, teacher, tasks[0])
    experiment = Experiment(
        tasks,
        on,
        start,
        checkpoints,
        options,
        live,
        metrics,
        settings,
        *_what_the_teacher_says(grid["objective"], teacher, live, tasks, on, len(seeds)),
    )
    return _run(experiment, *_stacks(experiment, grid, seeds, at_once))


def _needing(objective):
    """Those of one or several objectives that need a teacher."""
    return [o for o in axes.listed("objective", objective) if o.needs_teacher]


def _stacks(experiment, grid, seeds, at_once):
    """The stacks of the grid, and how many threads train them."""
    live, tasks = experiment.live, experiment.tasks
    threads = abreast.threads() if _side_by_side(experiment, grid, at_once) else 1
    nested = not live and axes.one_way(grid["epochs"], **experiment.options)
    cohort = live.cohort if live else 1
    stacks = list(axes.stacks(grid, tasks, seeds, at_once, cohort, threads, nested))
    if threads > 1:
        worth = sum(axes.worth_a_thread(s.student, tasks[0], len(s.runs)) for s in stacks)
        threads = max(1, min(threads, worth))
    return stacks, threads


def _side_by_side(experiment, grid, at_once):
    """Whether several stacks may be trained at once: no code of the reader's runs in them, and one
    stack leaves a core idle, which a large perceptron's does not."""
    if at_once or experiment.live or experiment.metrics:
        return False
    modules = [axes.build(student, experiment.tasks[0], 0) for student in grid["student"]]
    owners = {origin(part) for m in modules for part in m.modules()}
    return (
        owners <= {"kdlab", "torch"}
        and all(objective.may_run_abreast for objective in grid["objective"])
        and not any(backprop.perceptron(m) and not small(m) for m in modules)
    )


def _run(experiment, stacks, threads):
    """Train all stacks, one after another or side by side; an interrupt keeps what there is."""
    runs = _no_runs(experiment)
    total = sum(stack.epochs * len(stack.runs) for stack in stacks)
    # said outright: tqdm's notebook bar ignores the variable
    quiet = bool(os.environ.get("TQDM_DISABLE"))
    with tqdm(
        total=total, delay=2, leave=False, unit="epoch", desc="students", disable=quiet
    ) as bar:
        try:
            if threads == 1:
                for stack in stacks:
                    train_stack(runs, stack, experiment, bar)
            else:
                _train_abreast(runs, stacks, experiment, bar, threads)
        except KeyboardInterrupt:
            wanted = sum(len(s.runs) * (1 + len(s.shorter)) for s in stacks)
            print(
                f"Interrupted: {len(runs)} of {wanted} runs are kept, "
                "each with the epoch it reached."
            )
    return runs


def _no_runs(experiment):
    metrics = [axes.name_of(m) for m in experiment.metrics]
    return Runs(experiment.tasks, metrics=metrics, settings=experiment.settings)


def _train_abreast(runs, stacks, experiment, bar, threads):
    """The same side by side: each stack fills Runs of its own, which are joined in order."""
    parts = [(_no_runs(experiment), stack) for stack in stacks]

    def work(part, bar):
        train_stack(*part, experiment, bar)

    raised = abreast.abreast(work, parts, bar, threads)
    for own, _ in parts:
        runs.join(own)
    for error in sorted(filter(None, raised), key=lambda e: isinstance(e, KeyboardInterrupt)):
        raise error


@dataclass(frozen=True)
class Experiment:
    """What all stacks of a sweep share: the data, who teaches, and how a student is trained.

    settings: those of the objectives that have a column of their own, beside temperature and alpha.
    taught: the teacher's answers to the rows, by task, see `taught.answers_of`; {} of one that
    learns too, and without a teacher. on_validation: its answers there (U, N, C), or None."""

    tasks: list[Task]
    on: str
    start: Runs | None
    checkpoints: int | list[int]
    options: dict[str, Any]
    live: Live | None
    metrics: list[Callable]
    settings: list[str]
    taught: dict[str, Tensor]
    on_validation: Tensor | None

    def rows(self, objective):
        """The rows of all tasks, x (U · N, …) and y (U · N,)."""
        x, y = (
            torch.cat([getattr(getattr(task, self.on), k) for task in self.tasks]) for k in "xy"
        )
        if objective.needs_teacher:
            return x, y
        return x[y >= 0], y[y >= 0]  # without a teacher, a row without a label has nothing to say

    def answers(self, objective):
        """Its answers to these rows: {"logits": (U · N, C), or (U · S · N, C); layer: …}."""
        if not objective.needs_teacher or self.live:
            return {}
        return {
            k: self.taught[k].flatten(0, -2 if k == "logits" else 1)
            for k in ("logits", *objective.layers)
        }


def _what_the_teacher_says(objectives, teacher, live, tasks, on, seeds):
    """The teacher's answers to the rows and on validation, as `Experiment` keeps them."""
    layers = list(dict.fromkeys(k for o in objectives for k in o.layers))
    if not any(o.needs_teacher for o in objectives) or (live and not layers):
        return {}, None  # a live teacher has no hidden layers to give: answers_of says so
    answers = taught.answers_of(teacher, tasks, on, seeds, layers)
    seen = taught.answers_of(teacher, tasks, "validation") if taught.has_layers(teacher) else {}
    return answers, seen.get("logits")


def _own_settings(objectives):
    """What the objectives name in `swept` beside temperature and alpha: arguments and columns."""
    taken = {*COLUMNS, *inspect.signature(sweep).parameters}.union(*map(_taken_by, OPTIMISERS))
    for objective in objectives:
        if clash := [k for k in objective.swept if k in taken and k not in axes.SETTINGS]:
            raise ValueError(
                "sweep: objective must name settings in swept that are no arguments of sweep or an "
                f"optimiser and no columns of the frame, got {clash} of {objective!r}"
            )
    named = dict.fromkeys(k for objective in objectives for k in objective.swept)
    return [k for k in named if k not in axes.SETTINGS]


def _taken_by(optimiser):
    """What an optimiser takes of a sweep's further options."""
    return set(inspect.signature(OPTIMISERS[optimiser]).parameters) - {"params", "lr", "fused"}


def listed_tasks(tasks):
    """One task or several as a list; a TypeError for what is neither."""
    return (
        [tasks]
        if isinstance(tasks, Task)
        else arguments.listed(
            "sweep", "tasks", tasks, "one Task or a list of them, from load() or splits()"
        )
    )


def listed_seeds(seeds):
    """How many seeds, or which, as a list of whole numbers."""
    if isinstance(seeds, (int, float)) or seeds is None:
        return list(range(arguments.whole("sweep", "seeds", seeds)))
    listed = arguments.listed("sweep", "seeds", seeds, "a whole number or a list of them")
    return [arguments.whole("sweep", "seeds", seed) for seed in listed]


def _listed_checkpoints(checkpoints, epochs):
    """How many checkpoints a run has, or the epochs of a list of them."""
    if isinstance(checkpoints, numbers.Number) or checkpoints is None:
        return arguments.whole("sweep", "checkpoints", checkpoints, least=1)
    words = "a whole number or a list of epochs"
    found = arguments.listed("sweep", "checkpoints", checkpoints, words)
    if not found:
        raise ValueError("sweep: checkpoints must hold at least one epoch, got none")
    return [arguments.whole("sweep", "checkpoints", c, least=1, most=epochs) for c in found]


def _listed_metrics(metrics, settings):
    """The reader's metrics; their names must be columns that are free."""
    words = "a list of functions (logits, data) → a share"
    found = arguments.listed("sweep", "metrics", metrics, words)
    if any(isinstance(metric, type) or not callable(metric) for metric in found):
        raise TypeError(f"sweep: metrics must be {words}, got {metrics!r:.60}")
    names = [axes.name_of(metric) for metric in found]
    if len(set(names)) < len(names) or set(names) & {*COLUMNS, *settings}:
        raise ValueError(
            f"sweep: metrics must have names of their own, which no other column has, got {names}"
        )
    return found


def _check_options(start=None, optimiser="adam", schedule="cosine", clip=None, **options):
    """How a student is trained: what goes on to the optimiser must be its own."""
    if not (start is None or isinstance(start, Runs)):
        raise TypeError(f"sweep: start must be Runs, or None, got {type(start).__name__}")
    arguments.one_of("sweep", "optimiser", optimiser, OPTIMISERS)
    arguments.one_of("sweep", "schedule", schedule, ("cosine", "constant"))
    if clip is not None:
        arguments.number("sweep", "clip", clip, above=0)
    known = _taken_by(optimiser)
    if unknown := sorted(set(options) - known):
        raise TypeError(
            f"sweep: {unknown} are no arguments of sweep, no settings that the objective names in "
            f"swept, and none of {optimiser}, which takes {sorted(known)}"
        )


def _check_seeds(seeds, cohort):
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"sweep: seeds must be distinct and at least one, got {seeds!r}")
    if len(seeds) % cohort:
        raise ValueError(
            f"sweep: seeds must be a multiple of {cohort} for peers in groups of {cohort}, "
            f"got {len(seeds)}"
        )


def _check_tasks(tasks, on):
    if on not in ("train", "transfer"):
        raise ValueError(f"sweep: on must be 'train' or 'transfer', got {on!r}")
    if not all(isinstance(task, Task) for task in tasks):
        raise TypeError(
            f"sweep: tasks must be one Task or a list of them, from load() or splits(), got {tasks}"
        )
    units = [task.unit for task in tasks]
    if not units or len(set(units)) < len(units):
        raise ValueError(f"sweep: tasks must be at least one, each of another split, got {units}")
    shapes = {
        (
            tuple(getattr(t, on).x.shape),
            int((getattr(t, on).y >= 0).sum()),
            len(t.validation),
            len(t.classes),
        )
        for t in tasks
    }
    if len(shapes) > 1:
        raise ValueError(
            f"sweep: tasks must agree in images, labels and classes, got {sorted(shapes)}"
        )
    for task in tasks:
        y = getattr(task, on).y
        if bool(((y >= len(task.classes)) | ((y < 0) & (y != -100))).any()):
            raise ValueError(
                f"sweep: labels of {task.unit} must lie in [0, {len(task.classes)}) or be −100, "
                f"got {int(y.min())} … {int(y.max())}"
            )


def _check_teacher(grid, teacher, task):
    if teacher is not None and not isinstance(teacher, Live):
        taught.check_kind(teacher)
    if isinstance(teacher, torch.nn.Module):
        if any(axes.build(builder, task, 0) is teacher for builder in grid["student"]):
            raise ValueError(
                "sweep: student must be another model than the teacher, got a builder that returns "
                "the teacher itself; expected one that builds a new model"
            )
    if teacher is None and any(o.needs_teacher for o in grid["objective"]):
        raise ValueError(
            "sweep: teacher must be given for an objective that distils; without one use train()"
        )
