"""The loop: students of one stack, epoch by epoch, batch by batch."""

import functools
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdlab.base.lab import device
from kdlab.base.repeats import fresh
from kdlab.evidence import metrics
from kdlab.losses.slopes import with_slope
from kdlab.training.axes import build, name_of
from kdlab.training.budgets import Budgets
from kdlab.training.capture import Captured
from kdlab.training.replicas import Replicas, threads_for
from kdlab.training.stepper import Stepper
from kdlab.training.taught import Kept, Nobody, take

SEEDED = threading.Lock()  # first weights come from torch's own generator, which all threads share


def epoch(one_step, order, batch):
    """One pass of every student over its own order of the rows: the terms, summed over them, (R,).

    one_step(rows) → terms, as `step` without its first arguments; order (R, N): row numbers.
    """
    sums = {}
    for rows in order.split(batch, dim=1):  # (R, B): each replica its own
        sums = {name: sums.get(name, 0) + term.sum(-1) for name, term in one_step(rows).items()}
    return sums


def step(update, compare, teacher, x, y, rows):
    """One batch: the students answer, the teacher answers, the loss compares, the students move.

    update: that of a `Stepper`; compare: an objective's `rows`; x (N, …), y (N,): the data;
    teacher: see taught.Teacher.
    """
    x, y = take(x, rows), take(y, rows)

    def loss(answer):
        return _one_a_row(compare(answer, teacher.answer(rows, x, answer), y), rows)

    terms = update(x, loss)
    teacher.after_step()
    return terms


def _one_a_row(terms, rows):
    """The terms; or the error where the loss would mix the students of a stack."""
    if (came := terms["loss"].shape) != rows.shape:
        raise ValueError(
            f"sweep: objective must give one loss a row, the shape {tuple(rows.shape)}, got "
            f"{tuple(came)}; a setting in swept is a tensor (R, 1, 1), which "
            "kdlab.losses.kd.per_row makes (R, 1) beside rows (R, B)"
        )
    return terms


@dataclass(frozen=True)
class Begun:
    """A stack before its first epoch: its students, who teaches them, and one step of theirs.

    unit (R,): whose task each student learns; rows, pixels: of a task, and of one input."""

    students: Replicas
    teacher: Any
    stepper: Stepper
    one_step: Callable
    unit: Tensor
    rows: int
    pixels: int

    def order(self):
        """The rows of the next epoch, (R, rows), each student's in its own order."""
        order = _same_in_a_cohort(self.students.orders_of_epoch(self.rows), self.teacher.cohort)
        return order + (self.unit * self.rows)[:, None]


def _begin(stack, experiment):
    x, y = experiment.rows(stack.objective)
    n, pixels = len(y) // len(experiment.tasks), x[0].numel()
    answers = experiment.answers(stack.objective)
    seeds = [fresh(run.seed) for run in stack.runs]
    with SEEDED:
        modules = _students(stack, experiment, x, answers)
    students = Replicas(modules, seeds)
    teacher = _teacher(stack, experiment, students, answers, n)
    steps, rates = math.ceil(n / stack.batch) * stack.epochs, [run.lr for run in stack.runs]
    stepper = Stepper(students, rates, steps, pixels=pixels, **experiment.options)
    one_step = one_step_of(stepper, stack.objective, teacher, x, y)
    return Begun(students, teacher, stepper, one_step, _places(stack)[0], n, pixels)


def _places(stack):
    """Each student's task, and which of that task's seeds it has: (R,) twice."""
    places = torch.tensor([(run.task, run.nth_seed) for run in stack.runs], device=device())
    return places.T


def train_stack(runs, stack, experiment, bar):
    """Train one stack and add its rows to `runs`, also those of an interrupted one."""
    begun = _begin(stack, experiment)
    students, stepper = begun.students, begun.stepper
    kept, began = Budgets(runs, stack, experiment.checkpoints), time.perf_counter()
    students.base.train()
    try:
        for number in range(1, stack.epochs + 1):
            order = begun.order()
            with threads_for(students, begun.pixels):
                terms = epoch(begun.one_step, order, stack.batch)
            if kept.wants(number):
                spent = (time.perf_counter() - began) / len(students)
                found = validate(students, experiment, begun.unit, begun.teacher)
                found["diverged"] |= ~terms["loss"].isfinite()
                means = {name: total / begun.rows for name, total in terms.items()}
                means["seconds"] = torch.full((len(students),), spent)
                kept.record(number, means, found, stepper.t)
            kept.keep_shorter(number, students)
            bar.update(len(students))
    except KeyboardInterrupt:
        reached = stack.epochs * stepper.t / stepper.steps  # may end in a fraction
        if reached > kept.recorded:
            found = validate(students, experiment, begun.unit, begun.teacher)
            kept.record_interrupted(reached, found, stepper.t)
        raise
    finally:
        if isinstance(begun.one_step, Captured):
            begun.one_step.free()
        kept.close(students)


def one_step_of(stepper, objective, teacher, x, y):
    """One step as a function of its rows; on a GPU recorded, where all that it does is known."""
    students = stepper.replicas
    if not stepper.on_gpu:  # there, launches are recorded, and autograd costs nothing
        compare = (with_slope(objective) if stepper.chain else None) or objective.rows
        return functools.partial(step, stepper.step, compare, teacher, x, y)
    # damped momentum begins otherwise than it goes on: its first step is not one to replay
    damped = stepper.optimiser.defaults.get("dampening")
    if teacher.state() is None or not objective.may_be_recorded or damped:
        return functools.partial(step, stepper.step, objective.rows, teacher, x, y)

    def state():
        return stepper.state() | teacher.state()

    at_given_rates = functools.partial(step, stepper.update, objective.rows, teacher, x, y)
    return Captured(at_given_rates, state, students.masks, stepper.schedule_rates)


def _students(stack, experiment, x, answers):
    """The stack's modules: built from seeds, or gone on with; prepared by the objective."""
    first = {name: table[:1] for name, table in answers.items()}
    modules = []
    for run in stack.runs:
        task = experiment.tasks[run.task]
        if experiment.start is None:
            module = build(stack.student, task, fresh(run.seed))
        else:
            module = experiment.start.module(unit=task.unit, seed=run.seed)
        modules.append(stack.objective.prepare(module, x[:1], first, fresh(run.seed)))
    return modules


def _teacher(stack, experiment, students, answers, n):
    """Who teaches this stack: nobody, one that learns beside it, or answers that were kept.

    n: rows of a task."""
    if not stack.objective.needs_teacher:
        return Nobody()
    if experiment.live:
        return experiment.live.begin(students)
    unit, nth = _places(stack)
    # a unit: one, or one for each seed
    teachers = len(answers["logits"]) // (n * len(experiment.tasks))
    shift = (unit * (teachers - 1) + nth * (teachers > 1))[:, None] * n
    return Kept(answers, shift, layers=bool(stack.objective.layers))


def _same_in_a_cohort(order, cohort):
    """Peers see the batches of their first, (R, N) → (R, N)."""
    return order if cohort == 1 else order[torch.arange(len(order)) // cohort * cohort]


def validate(students, experiment, unit, teacher):
    """Metrics of every replica on its own validation split, and if it diverged: {name: (R,)}."""
    x, labels = (
        torch.stack([getattr(task.validation, k) for task in experiment.tasks])[unit] for k in "xy"
    )
    logits = students.evaluate(x)
    found = {name: getattr(metrics, name)(logits, labels) for name in ("accuracy", "nll", "ece")}
    seen = None
    if experiment.live and not isinstance(teacher, Nobody):
        seen = teacher.answer(None, x, logits)
    elif experiment.on_validation is not None:
        seen = experiment.on_validation[unit]
    if seen is not None:
        found["agreement"] = metrics.agreement(logits, seen)
        found["teacher_accuracy"] = metrics.accuracy(seen, labels)
    sound = metrics.sound(logits)
    for metric in experiment.metrics:
        found[name_of(metric)] = _measured(metric, logits, sound, experiment.tasks, unit)
    found["diverged"] = ~(sound & _finite_weights(students))
    return found


def _measured(metric, logits, sound, tasks, unit):
    """The reader's metric of each replica, (R,); NaN where the logits can't be judged."""
    values = [math.nan] * len(logits)
    for r in sound.nonzero().flatten().tolist():
        value = metric(logits[r], tasks[int(unit[r])].validation)
        try:
            values[r] = float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"sweep: metrics must return a share, one number, got {value!r:.60} from "
                f"{name_of(metric)}"
            ) from error
    return torch.tensor(values, device=logits.device)


def _finite_weights(students):
    """True for each replica whose learnt weights are all finite, (R,).

    Logits alone would miss those of a hidden unit that rests, or of a word that is not used.
    """
    learnt = [name for name, p in students.base.named_parameters() if p.requires_grad]
    finite = [students.parameters[k].flatten(1).isfinite().all(1) for k in learnt]
    return torch.stack(finite).all(0)
