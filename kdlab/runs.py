"""What came out: a tidy frame of every run, the trained students, and the ways to read them."""

import copy
from functools import partial

import pandas as pd
import torch

from . import metrics, plots, signals, store
from .intervals import SHARES, Estimate
from .lab import device

CELL = ["student", "objective", "batch", "epochs", "lr", "temperature", "alpha"]


def name_of(value):
    """What a builder, an objective or a metric is called in the frame."""
    return getattr(value, "__name__", type(value).__name__)


def _shown(metric):
    """A metric's name and the factor it is shown with: shares in per cent, and functions give shares."""
    name = metric if isinstance(metric, str) else name_of(metric).replace("_", " ")
    return name, 100 if metric in SHARES or name != metric else 1


class Runs:
    """The runs of a grid. `frame` holds one row a run and checkpointed epoch: cell, unit, seed, loss terms and
    validation metrics (accuracy, nll in nats, ece, agreement with the teacher). len() counts runs.

    Made by `train`, `distill` and `sweep`; select with `where` and `best`, read with `summary`, `estimate`,
    `minus` and `plot`, keep with `save` and `Runs.load`.

    >>> from kdlab import load, mlp, train
    >>> train(mlp(8), load("digits"), epochs=1, lr=[1e-3, 1e-2], seeds=2)
    Runs(4 runs, 1 units; {'lr': [0.001, 0.01]})
    """

    def __init__(self, tasks=(), frame=None, students=None):
        self.tasks = {task.unit: task for task in tasks}
        self.frame = pd.DataFrame() if frame is None else frame
        self.students = {} if students is None else students  # run → a function that makes its module
        self._pending = []

    def __len__(self):
        return self.frame["run"].nunique() if len(self.frame) else 0

    def __repr__(self):
        if not len(self):
            return "Runs(none)"
        varied = {k: self.frame[k].drop_duplicates().tolist() for k in self._varied()}
        return f"Runs({len(self)} runs, {self.frame['unit'].nunique()} units; {varied})"

    def _repr_html_(self):
        return self.summary().to_html(index=False) if len(self) else "Runs(none)"

    # --- filled by distill.py ---

    def record(self, stack, epoch, terms, found):
        """Add one checkpoint of a stack: terms and metrics are {name: (R,)}."""
        objective = stack["objective"]
        cell = {"student": name_of(stack["student"]), "batch": stack["batch"], "epochs": stack["epochs"],
                "objective": name_of(objective)}
        columns = {k: v.detach().cpu().double().tolist() for k, v in (terms | found).items()}
        fixed = {k: float(getattr(objective, k)) for k in ("temperature", "alpha") if hasattr(objective, k)}
        first = len(self.students)
        for i, row in enumerate(stack["rows"]):
            place = {"run": first + i, "unit": list(self.tasks)[row["task"]], "seed": row["seed"]}
            own = {k: float(row[k]) for k in ("lr", "temperature", "alpha")} | fixed
            self._pending.append(place | cell | own | {"epoch": epoch} | {k: v[i] for k, v in columns.items()})

    def keep(self, replicas):
        """Keep the trained students of a stack, whose checkpoints were recorded before."""
        self.students |= {len(self.students) + i: partial(replicas.module, i) for i in range(len(replicas))}
        self.frame = pd.concat([self.frame, pd.DataFrame(self._pending)], ignore_index=True)
        self._pending = []

    # --- selecting ---

    def where(self, **values):
        """The runs whose columns have these values, for example where(temperature=4) or where(seed=0)."""
        frame = self.frame
        for key, value in values.items():
            if key not in frame:
                raise ValueError(f"where: {key!r} is not a column; expected one of {list(frame.columns)}")
            frame = frame[frame[key].isin(value if isinstance(value, (list, tuple)) else [value])]
        if frame.empty:
            key, value = next(iter(values.items()))
            raise ValueError(f"where: no run has {values}; {key} takes {self.frame[key].unique().tolist()}")
        return self._of(frame)

    def best(self, metric="accuracy", per=()):
        """The cell that is best on validation (mean over units), or the best for each value of the columns `per`.

        accuracy, agreement and functions: the largest; loss, nll and ece: the smallest.
        """
        per = [per] if isinstance(per, str) else list(per)
        keys = [*per, *(k for k in CELL if k not in per)]
        score = self.values(metric).groupby(keys, dropna=False)["value"].mean().dropna().reset_index()
        score["value"] *= 1 if metric in ("accuracy", "agreement") or callable(metric) else -1
        at = score.groupby(per, dropna=False)["value"].idxmax() if per else [score["value"].idxmax()]
        return self._of(self.frame.merge(score.loc[at, keys], on=keys))

    def _of(self, frame):
        students = {run: self.students[run] for run in dict.fromkeys(frame["run"]) if run in self.students}
        return Runs(self.tasks.values(), frame.reset_index(drop=True), students)

    def _varied(self):
        return [k for k in CELL if self.frame[k].nunique(dropna=False) > 1]

    def last(self):
        """The frame's rows at the last epoch of each run."""
        if not len(self):
            raise ValueError("these runs are empty: no student has been trained")
        return self.frame.loc[self.frame.groupby("run")["epoch"].idxmax()].reset_index(drop=True)

    # --- reading ---

    def values(self, metric="accuracy", on="validation"):
        """One number a run: the last rows of the frame with a column `value`.

        metric: a column, or a function (logits (N, C), data) → a share in [0, 1]. on: "validation" or "test"; the test
        set is for the claim that closes an experiment, not for choosing.
        """
        last = self.last()
        if on == "validation" and isinstance(metric, str):
            if metric not in last or last[metric].isna().all():
                raise ValueError(f"values: metric {metric!r} was not recorded; expected one of "
                                 f"{list(last.dropna(axis=1, how='all').select_dtypes(float))}")
            return last.assign(value=last[metric])
        if on not in ("validation", "test", "train"):
            raise ValueError(f"values: on must be 'validation', 'test' or 'train', got {on!r}")
        if isinstance(metric, str) and metric not in ("accuracy", "nll", "ece"):
            raise ValueError(f"values: metric on {on} must be accuracy, nll, ece or a function, got {metric!r}")
        score = getattr(metrics, metric) if isinstance(metric, str) else metric
        out = {}
        for run, unit in zip(last["run"], last["unit"], strict=True):
            student, data = self._student(run), getattr(self.tasks[unit], on)
            logits = signals.logits(student, data.x)
            out[run] = float(score(logits, data.clean) if isinstance(metric, str) else score(logits, data))
        return last.assign(value=last["run"].map(out))

    def estimate(self, metric="accuracy", on="validation", what=None):
        """The mean over units with its 95 % interval, as an `Estimate` (accuracy, ece, agreement in %).

        Refuses runs of more than one cell: choose with `where` or `best` first.
        """
        if self._varied():
            raise ValueError(f"estimate: these runs differ in {self._varied()}; choose one cell with where() or best()")
        return self._estimate(self.values(metric, on), metric, on, what)

    def _estimate(self, frame, metric, on, what=None):
        name, factor = _shown(metric)
        measure = "%" if factor == 100 else "nats" if metric == "nll" else ""
        units = frame.groupby("unit")
        return Estimate(units["value"].mean() * factor, what or f"{name} on {on}", measure,
                        int(units["seed"].nunique().min()))

    def minus(self, other, metric="accuracy", on="validation"):
        """The difference to another arm, paired by unit (split with its teacher; seeds averaged first)."""
        return self.estimate(metric, on) - other.estimate(metric, on)

    def estimates(self, by, metric="accuracy", on="validation"):
        """{cell: Estimate} for each combination of the columns `by` (a name or a list), which must tell cells apart."""
        cells = self.frame.groupby(by, dropna=False)
        if others := [k for k in self._varied() if k not in by and (cells[k].nunique(dropna=False) > 1).any()]:
            raise ValueError(f"estimates: by {by!r} would average over {others}; name them too, or choose with where()")
        return {cell if isinstance(by, str) or len(by) > 1 else cell[0]: self._estimate(part, metric, on)
                for cell, part in self.values(metric, on).groupby(by, dropna=False)}

    def summary(self, metric="accuracy", on="validation"):
        """A frame, one row a cell: what varied, mean ± half of the 95 % interval over units, units, seeds."""
        frame, varied = self.values(metric, on), self._varied()
        (name, factor), rows = _shown(metric), []
        for cell, part in frame.groupby(varied, dropna=False) if varied else [((), frame)]:
            units, seeds = part["unit"].nunique(), int(part.groupby("unit")["seed"].nunique().min())
            text = (str(self._estimate(part, metric, on)) if units >= 4
                    else f"{factor * part['value'].mean():.2f} (no interval: {units} of 4 units)")
            rows.append(dict(zip(varied, cell, strict=True)) | {f"{name} on {on}": text, "units": units,
                                                                 "seeds": seeds})
        return pd.DataFrame(rows)

    def plot(self, x, metric="accuracy", **options):
        """The metric over the column x with intervals, as a figure: kdlab.plots.curve of these runs."""
        return plots.curve(self, x, metric, **options)

    # --- students, to use again and to keep ---

    def module(self, **values):
        """The student of the one run with these column values, as an nn.Module in eval mode with its own weights."""
        runs = self.where(**values) if values else self
        if len(runs) != 1:
            raise ValueError(f"module: {values} must name one run, got {len(runs)}")
        return runs._student(int(runs.frame["run"].iloc[0]))

    def _student(self, run):
        if run not in self.students:
            raise ValueError("these runs hold no students; give their builders and tasks to Runs.load")
        return self.students[run]()

    def logits_of_unit(self, task, x):
        """What the unit's one run answers to x (N, …) → (N, C)."""
        return signals.logits(self.module_of_unit(task), x)

    def module_of_unit(self, task):
        """The student of the unit's one run: each split is taught by its own teacher."""
        runs = self.last().query("unit == @task.unit")["run"].tolist()
        if len(runs) != 1:
            raise ValueError(f"teacher: Runs must hold one run for {task.unit}, got {len(runs)} "
                             f"(units {sorted(self.frame['unit'].unique())[:4]}); select with where(seed=0) or best(), "
                             "or give each(runs, tasks) or an ensemble of it")
        return self._student(runs[0])

    def map(self, change):
        """The same runs with every student replaced by change(student), an nn.Module; their metrics are forgotten.

        >>> from kdlab import load, mlp, train
        >>> linear = train(mlp(8), load("digits"), epochs=1).map(lambda student: student[:2])
        >>> len(linear.module())
        2
        """
        forgotten = self.frame.assign(**{k: float("nan") for k in (*SHARES, "nll")})
        students = {run: partial(lambda s: change(s()).eval(), student) for run, student in self.students.items()}
        return Runs(self.tasks.values(), forgotten, students)

    # --- keeping ---

    def save(self, directory):
        """Write frame.parquet, students.safetensors and card.json into `directory`, all or nothing; returns it.

        Refuses a directory that holds other files, and runs whose students are not here.
        """
        if len(self.students) < len(self):
            raise ValueError(f"save: {len(self)} runs but {len(self.students)} students are here, the others would be "
                             "lost; load these runs with their builders first: Runs.load(..., students=[...])")
        return store.save(directory, self.frame, {run: student() for run, student in self.students.items()},
                          {"runs": len(self), "units": list(self.tasks)})

    @classmethod
    def load(cls, directory, students=(), tasks=()):
        """Read what `save` wrote. students: the builders, needed only to use the students again (with tasks)."""
        frame, state = store.load(directory)
        runs, builders = cls(tasks, frame), {name_of(b): b for b in students}
        with torch.random.fork_rng(devices=[]):  # building draws weights, which are replaced at once
            for run, name, unit in runs.last()[["run", "student", "unit"]].itertuples(index=False):
                if name in builders and unit in runs.tasks:
                    module = builders[name](runs.tasks[unit])
                    module.load_state_dict(state[run])
                    runs.students[run] = partial(copy.deepcopy, module.to(device()).eval())
        return runs
