"""What came out: a tidy frame of every run, the trained students, and the ways to read them."""

import copy
import json
import os
import warnings
from collections.abc import Callable, Sequence, ValuesView
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from kdlab.base import arguments
from kdlab.base.lab import device
from kdlab.data.tasks import Task
from kdlab.evidence import metrics
from kdlab.evidence.intervals import SHARES, Estimate
from kdlab.teachers import outputs
from kdlab.training import store
from kdlab.training.axes import name_of

CELL = ["student", "objective", "batch", "epochs", "lr", "temperature", "alpha"]
MEASURED = (*SHARES, "nll")  # on validation
# those of every frame, whatever was learnt
COLUMNS = (*CELL, "run", "unit", "seed", "epoch", "steps", "seconds", "diverged", *MEASURED)
COLUMNS += ("loss", "soft", "hard", "hidden")


def _diverged(frame):
    """Which rows are of a run that diverged; a frame made elsewhere knows of none."""
    return frame["diverged"].astype(bool) if "diverged" in frame else pd.Series(False, frame.index)


def _mean(values):
    """The mean, NaN where one of the values is: what is missing is never dropped."""
    return values.mean(skipna=False)


class Runs:
    """The runs of a grid: `frame` holds one row a run and checkpointed epoch.

    Its columns are cell, unit, seed, loss terms and validation metrics (accuracy, nll in nats, ece,
    agreement with the teacher, and what `sweep(metrics=[…])` asked for). len() counts runs. Made by
    `train`, `distill` and `sweep`; select with `where` and `best`, read with `summary`, `estimate`,
    `minus`, `curve`, draw with kd.plots, keep with `save` and `Runs.load`. metrics: names of the
    columns that functions of the reader's own measured, shares in [0, 1]. settings: names of the
    columns that tell cells apart by an objective's own settings, beside temperature and alpha.

    A run whose loss, validation logits or weights are not finite at its last epoch has diverged:
    the column `diverged` says so, its metrics are NaN, and no mean is taken over it or past it.
    The method `diverged` counts them.

    >>> from kdlab import load, mlp, train
    >>> train(mlp(8), load("digits"), epochs=1, lr=[1e-3, 1e-2], seeds=2)
    Runs(4 runs, 1 units; {'lr': [0.001, 0.01]})
    """

    def __init__(
        self,
        tasks: Any = (),
        frame: pd.DataFrame | None = None,
        students: Any = None,
        metrics: Sequence[str] = (),
        settings: Sequence[str] = (),
    ) -> None:
        listed = isinstance(tasks, (list, tuple, ValuesView))
        if not listed or not all(hasattr(task, "unit") for task in tasks):
            raise TypeError(
                f"Runs: tasks must be a list of tasks from load() or splits(), got {tasks!r}"
            )
        if frame is not None:
            arguments.instance("Runs", "frame", frame, pd.DataFrame, "a pandas DataFrame")
        if students is not None:
            arguments.instance("Runs", "students", students, dict, "a dictionary {run: student}")
        self.tasks = {task.unit: task for task in tasks}
        self.frame = pd.DataFrame() if frame is None else frame
        self.metrics = arguments.listed("Runs", "metrics", metrics, "a list of columns' names")
        self.settings = arguments.listed("Runs", "settings", settings, "a list of columns' names")
        # run → a function that makes its module
        self.students = {} if students is None else students
        self._pending: list[dict] = []

    def __len__(self):
        return self.frame["run"].nunique() if len(self.frame) else 0

    def __repr__(self):
        if not len(self):
            return "Runs(none)"
        varied = {k: self.frame[k].drop_duplicates().tolist() for k in self._varied()}
        fallen = int(_diverged(self.last()).sum())
        said = f", {fallen} diverged" if fallen else ""
        return f"Runs({len(self)} runs, {self.frame['unit'].nunique()} units{said}; {varied})"

    def _repr_html_(self):
        return self.summary().to_html(index=False) if len(self) else "Runs(none)"

    # --- filled by the loop ---

    def record(
        self,
        stack: Any,
        epoch: float,
        terms: dict[str, Tensor],
        found: dict[str, Tensor],
        steps: int = 0,
    ) -> None:
        """Add one checkpoint of a stack: terms, metrics and "diverged" are {name: (R,)}.

        epoch, steps: how many were taken.
        """
        cell = {
            "student": name_of(stack.student),
            "batch": stack.batch,
            "epochs": stack.epochs,
            "objective": name_of(stack.objective),
        }
        columns = {k: v.detach().cpu().double().tolist() for k, v in (terms | found).items()}
        columns["diverged"] = found["diverged"].tolist()
        first = len(self.students)
        for i, run in enumerate(stack.runs):
            place = {"run": first + i, "unit": list(self.tasks)[run.task], "seed": run.seed}
            own = {"lr": float(run.lr), **run.settings}
            self._pending.append(
                place
                | cell
                | own
                | {"epoch": epoch, "steps": steps}
                | {k: v[i] for k, v in columns.items()}
            )

    def keep(self, replicas: Any) -> None:
        """Keep the trained students of a stack, whose checkpoints were recorded before."""
        self.students |= {
            len(self.students) + i: partial(replicas.module, i) for i in range(len(replicas))
        }
        new = pd.DataFrame(self._pending)
        if len(new):  # of the run, as it ended: one that came back has not diverged
            new["diverged"] = new.groupby("run")["diverged"].transform("last")
        self.frame = pd.concat([self.frame, new], ignore_index=True)
        self._pending = []

    def none(self) -> "Runs":
        """No runs, of the same tasks and columns."""
        return Runs(self.tasks.values(), metrics=self.metrics, settings=self.settings)

    def join(self, others: "Runs") -> None:
        """Take over the runs of a stack that was trained beside; their numbers go on from here."""
        first = len(self.students)
        self.students |= {first + run: student for run, student in others.students.items()}
        new = others.frame.assign(run=others.frame["run"] + first) if len(others.frame) else None
        self.frame = pd.concat([self.frame, new], ignore_index=True)

    # --- selecting ---

    def where(self, **values: Any) -> "Runs":
        """The runs whose columns have these values, as in where(temperature=4, seed=0)."""
        frame = self.frame
        for key, value in values.items():
            if key not in frame:
                raise ValueError(
                    f"where: {key!r} is not a column; expected one of {list(frame.columns)}"
                )
            frame = frame[frame[key].isin(value if isinstance(value, (list, tuple)) else [value])]
        if frame.empty and values:
            key, value = next(iter(values.items()))
            raise ValueError(
                f"where: no run has {values}; {key} takes {self.frame[key].unique().tolist()}"
            )
        return self._of(frame)

    def best(self, metric: str | Callable = "accuracy", per: str | Sequence[str] = ()) -> "Runs":
        """The cell whose mean over units is best on validation, or the best for each of `per`.

        accuracy, agreement and functions: the largest; loss, nll and ece: the smallest. A cell with
        a diverged run is never chosen; a warning names those left out, and a ValueError says where
        none is left.
        """
        per = self._columns("best", "per", per)
        keys = [*per, *(k for k in self._cell() if k not in per)]
        values = self.values(metric)
        left = values[~self._in_diverged_cell(values, keys)]
        if len(left) < len(values):
            known = left.groupby(per, dropna=False).ngroups if per else len(left) > 0
            if known < (values.groupby(per, dropna=False).ngroups if per else 1):
                self._refuse_diverged("best")
            warnings.warn(f"best: left out cells with diverged runs: {self._said()}", stacklevel=2)
        score = left.groupby(keys, dropna=False)["value"].agg(_mean).dropna().reset_index()
        if score.empty:
            name = self._shown(metric)[0]
            raise ValueError(f"best: metric {name!r} is NaN in every cell; choose another")
        score["value"] *= 1 if self._larger_is_better(metric) else -1
        at = (
            score.groupby(per, dropna=False)["value"].idxmax() if per else [score["value"].idxmax()]
        )
        return self._of(self.frame.merge(score.loc[at, keys], on=keys))

    def _of(self, frame):
        students = {
            run: self.students[run] for run in dict.fromkeys(frame["run"]) if run in self.students
        }
        return self._with(frame.reset_index(drop=True), students)

    def _with(self, frame, students):
        return Runs(self.tasks.values(), frame, students, self.metrics, self.settings)

    def _own(self, metric):
        return callable(metric) or metric in self.metrics

    def _larger_is_better(self, metric):
        return metric in ("accuracy", "agreement") or self._own(metric)

    def _shown(self, metric):
        """A metric's name and the factor it is shown with: shares, as functions give, in %."""
        if self._own(metric):
            return (metric if isinstance(metric, str) else name_of(metric)).replace("_", " "), 100
        return metric, 100 if metric in SHARES else 1

    def _cell(self):
        """The columns that tell cells apart."""
        return [*CELL, *self.settings]

    def _varied(self):
        return [k for k in self._cell() if self.frame[k].nunique(dropna=False) > 1]

    def last(self) -> pd.DataFrame:
        """The frame's rows at the last epoch of each run."""
        if not len(self):
            raise ValueError("Runs: these runs are empty: no student has been trained")
        return self.frame.loc[self.frame.groupby("run")["epoch"].idxmax()].reset_index(drop=True)

    # --- diverged runs ---

    def diverged(self, by: str | list[str] | None = None) -> dict:
        """The cells that hold diverged runs, and how many: {cell: "3 of 16"}; {} without any.

        by: a column's name or a list of them, as in `estimates`; those that vary where it is None.

        >>> from kdlab import load, mlp, train
        >>> task = load("digits")
        >>> train(mlp(8), task, epochs=1, lr=[1e-2, 1e30], optimiser="sgd", seeds=2).diverged("lr")
        {1e+30: '2 of 2'}
        """
        keys = self._cell_names() if by is None else self._columns("diverged", "by", by)
        last = self.last()
        cells = _diverged(last).groupby([last[k] for k in keys], dropna=False)
        found = {cell: f"{int(part.sum())} of {len(part)}" for cell, part in cells if part.any()}
        return {cell if len(keys) > 1 else cell[0]: count for cell, count in found.items()}

    def _in_diverged_cell(self, last, keys):
        return _diverged(last).groupby([last[k] for k in keys], dropna=False).transform("any")

    def _said(self):
        """The cells that hold diverged runs in words, the first four of them."""
        keys, cells, told = self._cell_names(), self.diverged(), []
        for cell, count in list(cells.items())[:4]:
            named = zip(keys, cell if len(keys) > 1 else [cell], strict=True)
            told.append(", ".join(f"{key} {value}" for key, value in named) + f" ({count})")
        return "; ".join(told) + ("; …" if len(cells) > 4 else "")

    def _cell_names(self):
        return self._varied() or ["student", "lr"]

    def _refuse_diverged(self, name):
        """Raise the error of a reading that would be a mean over diverged runs, or past them."""
        fallen = _diverged(self.last())
        if fallen.any():
            raise ValueError(
                f"{name}: {int(fallen.sum())} of {len(fallen)} "
                f"runs diverged (a loss, logit or weight is not finite): {self._said()}; "
                "train with a lower lr or clip=1.0, or leave them out with where(diverged=False)"
            )

    def _columns(self, name, key, columns):
        """Names of columns as a list, or the error that says which there are."""
        found = [columns] if isinstance(columns, str) else columns
        known = list(self.frame)
        if not isinstance(found, (list, tuple)) or not all(c in known for c in found):
            raise ValueError(f"{name}: {key} must name columns of {known}, got {columns!r}")
        return list(found)

    # --- reading ---

    def values(self, metric: str | Callable = "accuracy", on: str = "validation") -> pd.DataFrame:
        """One number a run: the last rows of the frame with a column `value`, NaN if it diverged.

        metric: a column, or a function (logits (N, C), data) → a share in [0, 1]. on: "validation"
        or "test"; the test set is for the claim that closes an experiment, not for choosing. A
        function is not asked about logits that hold NaN or +inf: its value is NaN there.
        """
        if not isinstance(metric, str) and not callable(metric):
            raise TypeError(
                "values: metric must be a column's name or a function (logits, data) → a share, "
                f"got {type(metric).__name__}"
            )
        last = self.last()
        fallen = _diverged(last)
        if on == "validation" and isinstance(metric, str):
            told = last if fallen.all() else last[~fallen].dropna(axis=1, how="all")
            if metric not in told.select_dtypes("number"):
                raise ValueError(
                    f"values: metric {metric!r} was not recorded; "
                    f"expected one of {list(told.select_dtypes(float))}"
                )
            return last.assign(value=last[metric].mask(fallen))
        if on not in ("validation", "test", "train"):
            raise ValueError(f"values: on must be 'validation', 'test' or 'train', got {on!r}")
        if isinstance(metric, str) and metric not in ("accuracy", "nll", "ece"):
            raise ValueError(
                f"values: metric on {on} must be accuracy, nll, ece or a function, got {metric!r}"
            )
        score = getattr(metrics, metric) if isinstance(metric, str) else metric
        out = dict.fromkeys(last["run"], float("nan"))
        for run, unit in last.loc[~fallen, ["run", "unit"]].itertuples(index=False):
            student, data = self._student(run), getattr(self.tasks[unit], on)
            logits = outputs.logits(student, data.x)
            if metrics.sound(logits):
                out[run] = float(score(logits, data.clean if isinstance(metric, str) else data))
        return last.assign(value=last["run"].map(out))

    def estimate(
        self, metric: str | Callable = "accuracy", on: str = "validation", what: str | None = None
    ) -> Estimate:
        """The mean over units with its 95 % interval, as an `Estimate` (shares in %).

        Refuses runs of more than one cell: choose with `where` or `best` first. Refuses a cell with
        a diverged run.
        """
        return self._one_cell("estimate", metric, on, what)

    def _one_cell(self, name, metric, on, what=None):
        self._refuse_many(name)
        return self._estimate(self.values(metric, on), metric, on, what)

    def _refuse_many(self, name):
        """Raise the error for runs of more than one cell, or with one that diverged."""
        if self._varied():
            raise ValueError(
                f"{name}: these runs differ in {self._varied()}; "
                "choose one cell with where() or best()"
            )
        self._refuse_diverged(name)

    def _estimate(self, frame, metric, on, what=None):
        name, factor = self._shown(metric)
        measure = "%" if factor == 100 else "nats" if metric == "nll" else ""
        units = frame.groupby("unit")
        return Estimate(
            units["value"].agg(_mean) * factor,
            what or f"{name} on {on}",
            measure,
            int(units["seed"].nunique().min()),
        )

    def minus(
        self, other: "Runs", metric: str | Callable = "accuracy", on: str = "validation"
    ) -> "Estimate":
        """The difference to another arm, paired by unit (split with its teacher; seeds first).

        Refuses arms of more than one cell or with a diverged run, as `estimate` does.
        """
        arguments.instance("minus", "other", other, Runs, "Runs")
        return self._one_cell("minus", metric, on) - other._one_cell("minus", metric, on)

    def curve(
        self,
        metric: str | Callable = "accuracy",
        *,
        minus: "Runs | None" = None,
        over: str = "epochs",
    ) -> dict[float, Estimate]:
        """A learning curve, {epoch: Estimate}: one cell along its checkpoints, on validation.

        metric: a column, also of the training loss and its terms; or a function that
        `sweep(metrics=[…])` was given. minus: another arm; then the paired difference to it, unit
        by unit, at the checkpoints that both have. over: "epochs", or "steps" (batches seen), by
        which arms of different numbers of images compare. Left out is a checkpoint that an
        interrupt kept some of the runs from. Refuses runs of more than one cell or with a diverged
        run, as `estimate` does, and arms without a checkpoint in common.

        >>> from kdlab import load, mlp, splits, train
        >>> runs = train(mlp(8), splits("digits", 4), epochs=4, checkpoints=[1, 2])
        >>> list(runs.curve()), list(runs.curve("loss", over="steps"))
        ([1, 2, 4], [37, 74, 148])
        """
        arguments.one_of("curve", "over", over, ("epochs", "steps"))
        own = self._along(metric, over)
        if minus is None:
            return own
        arguments.instance("curve", "minus", minus, Runs, "Runs")
        other = minus._along(metric, over)
        shared = [at for at in own if at in other]
        if not shared:
            raise ValueError(
                f"curve: minus must be runs with a checkpoint at equal {over}, "
                f"got {list(own)} and {list(other)}; choose them by checkpoints=[…]"
            )
        return {at: own[at] - other[at] for at in shared}

    def _along(self, metric, over):
        """{epoch or steps: Estimate}, in their order."""
        self._refuse_many("curve")
        column, at = self._recorded(metric), {"epochs": "epoch", "steps": "steps"}[over]
        if at not in self.frame:
            raise ValueError("curve: over must be 'epochs' for these runs: no steps were recorded")
        validated = self._own(metric) or column in MEASURED
        what = f"{self._shown(metric)[0]} {'on validation' if validated else 'in training'}"
        found = {}
        for place, part in self.frame.assign(value=self.frame[column]).groupby(at):
            if len(part) == len(self) and part["value"].notna().any():
                found[int(place) if place == int(place) else place] = self._estimate(
                    part, metric, "validation", what
                )
        return found

    def _recorded(self, metric):
        """The name of a metric's column, or the error that says which there are."""
        column = metric if isinstance(metric, str) else name_of(metric)
        told = self.frame.drop(columns=[*self._cell(), "epoch"]).dropna(axis=1, how="all")
        known = list(told.select_dtypes(float))
        if column not in known:
            offer = f"; give it to sweep: metrics=[{column}]" if callable(metric) else ""
            raise ValueError(
                f"curve: metric must be one that was recorded, of {known}, got {column!r}{offer}"
            )
        return column

    def estimates(
        self,
        by: str | list[str],
        metric: str | Callable = "accuracy",
        on: str = "validation",
    ) -> dict[Any, Estimate]:
        """{cell: Estimate} for each combination of the columns `by` (a name or a list).

        They must tell the cells apart. Refuses where a cell holds a diverged run.
        """
        keys = self._columns("estimates", "by", by)
        cells = self.frame.groupby(by, dropna=False)
        others = [k for k in self._varied() if k not in keys]
        if others := [k for k in others if (cells[k].nunique(dropna=False) > 1).any()]:
            raise ValueError(
                f"estimates: by {by!r} would average over {others}; name them too, "
                "or choose with where()"
            )
        self._refuse_diverged("estimates")
        return {
            cell if isinstance(by, str) or len(by) > 1 else cell[0]: self._estimate(
                part, metric, on
            )
            for cell, part in self.values(metric, on).groupby(by, dropna=False)
        }

    def summary(self, metric: str | Callable = "accuracy", on: str = "validation") -> pd.DataFrame:
        """A frame, one row a cell: what varied, mean ± half of the 95 % interval, units, seeds.

        A cell with diverged runs says how many in place of a mean over the others, and counts them
        in a column `diverged`, which stands there only where some run did.
        """
        frame, varied = self.values(metric, on), self._varied()
        (name, factor), rows = self._shown(metric), []
        for cell, part in frame.groupby(varied, dropna=False) if varied else [((), frame)]:
            units, seeds = part["unit"].nunique(), int(part.groupby("unit")["seed"].nunique().min())
            fallen = int(_diverged(part).sum())
            text = (
                f"diverged: {fallen} of {len(part)}"
                if fallen
                else (
                    str(self._estimate(part, metric, on))
                    if units >= 4
                    else f"{factor * _mean(part['value']):.2f} (no interval: {units} of 4 units)"
                )
            )
            counts = {"units": units, "seeds": seeds, "diverged": fallen}
            rows.append(dict(zip(varied, cell, strict=True)) | {f"{name} on {on}": text} | counts)
        found = pd.DataFrame(rows)
        return found if found["diverged"].any() else found.drop(columns="diverged")

    # --- students, to use again and to keep ---

    def module(self, **values: Any) -> nn.Module:
        """The student of the one run with these values: an nn.Module of its own, in eval mode."""
        runs = self.where(**values) if values else self
        if len(runs) != 1:
            raise ValueError(f"module: {values} must name one run, got {len(runs)}")
        return runs._student(int(runs.frame["run"].iloc[0]))

    def _student(self, run):
        if run not in self.students:
            raise ValueError(
                "these runs hold no students; give their builders and tasks to Runs.load"
            )
        return self.students[run]()

    def logits_of_unit(self, task: Task, x: Tensor) -> Tensor:
        """What the unit's one run answers to x (N, …) → (N, C)."""
        return outputs.logits(self.module_of_unit(task), x)

    def module_of_unit(self, task: Task) -> nn.Module:
        """The student of the unit's one run: each split is taught by its own teacher."""
        runs = self.last().query("unit == @task.unit")["run"].tolist()
        if len(runs) != 1:
            raise ValueError(
                f"teacher: Runs must hold one run for {task.unit}, "
                f"got {len(runs)} (units {sorted(self.frame['unit'].unique())[:4]}); select "
                "with where(seed=0) or best(), or give each(runs, tasks) or an ensemble of it"
            )
        return self._student(runs[0])

    def map(self, change: Callable[[nn.Module], nn.Module]) -> "Runs":
        """The same runs, every student replaced by change(student); metrics are forgotten.

        >>> from kdlab import load, mlp, train
        >>> linear = train(mlp(8), load("digits"), epochs=1).map(lambda student: student[:2])
        >>> len(linear.module())
        2
        """
        forgotten = self.frame.assign(**{k: float("nan") for k in (*MEASURED, *self.metrics)})
        students = {
            run: partial(lambda s: change(s()).eval(), student)
            for run, student in self.students.items()
        }
        return self._with(forgotten, students)

    # --- keeping ---

    def save(self, directory: str | os.PathLike) -> Path:
        """Write frame.parquet, students.safetensors and card.json into `directory`; returns it.

        It is all or nothing. Refuses a directory that holds other files, and runs whose students
        are not here.
        """
        if len(self.students) < len(self):
            raise ValueError(
                f"save: {len(self)} runs but {len(self.students)} students are here, "
                "the others would be lost; load these runs with their builders first: "
                "Runs.load(..., students=[...])"
            )
        return store.save(
            directory,
            self.frame,
            {run: student() for run, student in self.students.items()},
            {"runs": len(self), "units": list(self.tasks), "metrics": self.metrics}
            | {"settings": self.settings},
        )

    @classmethod
    def load(cls, directory: str | os.PathLike, students: Any = (), tasks: Any = ()) -> "Runs":
        """What `save` wrote. students: the builders, to use the students again (with tasks)."""
        frame, state = store.load(directory)
        card = json.loads((Path(directory) / "card.json").read_text())
        own = {k: card.get(k, ()) for k in ("metrics", "settings")}
        runs = cls(tasks, frame, **own)
        builders = {name_of(b): b for b in students}
        # building draws weights, which are replaced at once
        with torch.random.fork_rng(devices=[]):
            for run, name, unit in runs.last()[["run", "student", "unit"]].itertuples(index=False):
                if name in builders and unit in runs.tasks:
                    module = builders[name](runs.tasks[unit])
                    module.load_state_dict(state[run])
                    runs.students[run] = partial(copy.deepcopy, module.to(device()).eval())
        return runs
