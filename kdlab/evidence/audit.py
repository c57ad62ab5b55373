"""What a student lost beside its teacher, and where: before it takes the teacher's place."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kdlab.base import arguments
from kdlab.evidence.metrics import ece, gaps

FEW = 10  # rows: of fewer nothing is said


@dataclass(frozen=True)
class Audit:
    """A student beside its teacher on the same N labelled rows, made by `audit`.

    teacher, student: the class that each names, (N,); sure: how sure the student is of it, (N,);
    labels (N,). groups: {name: (N,) bool}. calibration: {"teacher", "student": ECE in per cent};
    calibration_interval: {"teacher", "student": (low, high)}, see `calibrated`.

    >>> teacher, student = torch.eye(3)[[0, 1, 2, 0]], torch.eye(3)[[0, 1, 1, 0]]
    >>> found = audit(teacher, student, torch.tensor([0, 1, 2, 1]))
    >>> found.agreement, found.worse().tolist(), found.repeated()
    (0.75, [2], (1, 1))
    """

    teacher: Tensor
    student: Tensor
    sure: Tensor
    labels: Tensor
    groups: Mapping[str, Tensor]
    calibration: Mapping[str, float]
    calibration_interval: Mapping[str, tuple[float, float]]
    classes: Sequence[str]

    @property
    def agreement(self) -> float:
        """The share of rows on which both name the same class."""
        return float((self.teacher == self.student).double().mean())

    @property
    def agreement_interval(self) -> tuple[float, float]:
        """(low, high) of the share, Wilson's interval at 95 %."""
        return wilson(int((self.teacher == self.student).sum()), len(self.labels))

    def table(self) -> pd.DataFrame:
        """A row a group, first of all rows: how many, what each gets right (%), and the change.

        change: student minus teacher in points, low and high its interval. The intervals of the
        whole table hold together at 95 %: each is Agresti and Min's (2005) of matched proportions,
        half a row added to both kinds of disagreement, so that a group in which nothing changed is
        not taken for certain, at Šidák's level. lost, won: rows that only the teacher, only the
        student gets right. verdict: "worse", "better" or "cannot tell"; "too few" below ten rows.
        """
        right = {who: getattr(self, who) == self.labels for who in ("teacher", "student")}
        rows = []
        for name, here in {
            "all": torch.ones_like(self.labels, dtype=torch.bool),
            **self.groups,
        }.items():
            n = int(here.sum())
            lost = int((right["teacher"] & ~right["student"] & here).sum())
            won = int((right["student"] & ~right["teacher"] & here).sum())
            row: dict[str, Any] = {"group": name, "rows": n}
            for who in ("teacher", "student"):
                row[who] = 100 * float(right[who][here].double().mean()) if n else math.nan
            low, high = matched(lost, won, n, 1 + len(self.groups)) if n >= FEW else (math.nan,) * 2
            word = "worse" if high < 0 else "better" if low > 0 else "cannot tell"
            word = word if n >= FEW else "too few"
            row |= {"change": row["student"] - row["teacher"], "low": low, "high": high}
            rows.append(
                row | {"lost": lost, "won": won, "verdict": word if n >= FEW else "too few"}
            )
        return pd.DataFrame(rows).set_index("group")

    def worse(self, count: int | None = None) -> Tensor:
        """The rows that the teacher gets right and the student wrong, the surest mistakes first."""
        lost = ((self.teacher == self.labels) & (self.student != self.labels)).nonzero()[:, 0]
        return lost[self.sure[lost].argsort(descending=True, stable=True)][:count]

    def repeated(self) -> tuple[int, int]:
        """(of how many of the teacher's mistakes the student makes the very same, of how many)."""
        wrong = self.teacher != self.labels
        return int((wrong & (self.student == self.teacher)).sum()), int(wrong.sum())

    def told(self) -> list[str]:
        """What a report and a card both say: how alike they are, how calibrated, what is new."""
        again, wrong = self.repeated()
        low, high = self.agreement_interval
        errors = []
        for who in ("teacher", "student"):
            ends = self.calibration_interval[who]
            between = "" if math.isnan(ends[0]) else f" ({ends[0]:.1f} to {ends[1]:.1f})"
            errors.append(f"{who} {self.calibration[who]:.1f} %{between}")
        return [
            f"They agree on {100 * self.agreement:.1f} % ({100 * low:.1f} to {100 * high:.1f}).",
            f"Calibration error: {', '.join(errors)}.",
            f"The student repeats {again} of the teacher's {wrong} mistakes, and makes "
            f"{len(self.worse())} where the teacher is right.",
        ]


def audit(
    teacher_logits: Tensor,
    student_logits: Tensor,
    labels: Tensor,
    classes: Sequence[str] | None = None,
    slices: Mapping[str, Any] | None = None,
) -> Audit:
    """Look at a student beside the teacher whose place it is to take → `Audit`.

    teacher_logits, student_logits: (N, C) of the same rows, which neither was trained or chosen on.
    labels: (N,). classes: C names; by default 0 to C − 1. slices: {name: (N,) true where a row
    belongs}, beside the classes: where a mark is, where a text is long. The rows are the units: of
    one teacher and one student, so that nothing is said of others trained alike. Raises ValueError
    or TypeError for other shapes, labels that are no class, and logits that are not finite.

    >>> z = torch.eye(2)[[0, 1] * 10]
    >>> found = audit(z, z, torch.tensor([0, 1] * 10), slices={"first": [True] * 10 + [False] * 10})
    >>> found.table()["rows"].to_dict()
    {'all': 20, '0': 10, '1': 10, 'first': 10}
    """
    for key, logits in (("teacher_logits", teacher_logits), ("student_logits", student_logits)):
        arguments.logits("audit", key, logits, "(N, C)", least=2)
        if logits.ndim != 2 or not len(logits) or not logits.isfinite().all():
            raise ValueError(
                f"audit: {key} must be finite and (N, C), at least one row, got "
                f"{tuple(logits.shape)} with {int((~logits.isfinite()).sum())} that are not finite"
            )
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            "audit: student_logits must have the shape of teacher_logits, "
            f"{tuple(teacher_logits.shape)}, got {tuple(student_logits.shape)}"
        )
    n, count = teacher_logits.shape
    arguments.labels("audit", "labels", labels, (n,))
    teacher, student, labels = (x.detach().cpu() for x in (teacher_logits, student_logits, labels))
    if labels.min() < 0 or labels.max() >= count:
        raise ValueError(
            f"audit: labels must be classes, 0 to {count - 1}, got {labels.min()} to {labels.max()}"
        )
    given = range(count) if classes is None else classes
    names = [str(c) for c in arguments.listed("audit", "classes", given, "a list of names")]
    if len(names) != count or len(set(names)) < count:
        raise ValueError(f"audit: classes must be {count} different names, got {names}")
    groups = {name: labels == c for c, name in enumerate(names)}
    for name, mask in _slices(slices, n).items():
        if name in groups or name == "all":
            raise ValueError(
                f"audit: slices must be named unlike the classes and 'all', got {name}"
            )
        groups[name] = mask
    sure, guess = student.double().softmax(-1).max(-1)
    both = {"teacher": teacher, "student": student}
    return Audit(
        teacher.argmax(-1),
        guess,
        sure,
        labels,
        groups,
        {who: 100 * float(ece(logits, labels)) for who, logits in both.items()},
        {who: calibrated(logits, labels) for who, logits in both.items()},
        names,
    )


def _slices(slices, n):
    slices = {} if slices is None else slices
    arguments.instance("audit", "slices", slices, Mapping, "a dictionary {name: (N,) bool}")
    found = {}
    for name, mask in slices.items():
        try:
            mask = torch.as_tensor(mask).cpu()
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"audit: slices[{name!r}] must be (N,) of true or false") from None
        if mask.dtype != torch.bool or tuple(mask.shape) != (n,):
            raise ValueError(
                f"audit: slices[{name!r}] must be ({n},) of true or false, got {mask.dtype} "
                f"{tuple(mask.shape)}"
            )
        found[str(name)] = mask
    return found


def matched(lost: int, won: int, n: int, cells: int = 1) -> tuple[float, float]:
    """The interval of (won − lost) / n in points: Agresti and Min 2005, section 3.

        d = (won' − lost') / n',   d ± z · √(won' + lost' − (won' − lost')² / n') / n'

    with won' = won + ½, lost' = lost + ½, n' = n + 2. cells: of so many intervals, all hold at 95 %
    (Šidák 1967).

    >>> [round(end, 1) for end in matched(0, 0, 20)]
    [-8.9, 8.9]
    """
    z = NormalDist().inv_cdf((1 + 0.95 ** (1 / cells)) / 2)
    lost_, won_, n_ = lost + 0.5, won + 0.5, n + 2
    half = z * math.sqrt(won_ + lost_ - (won_ - lost_) ** 2 / n_) / n_
    d = (won_ - lost_) / n_
    return 100 * max(-1.0, d - half), 100 * min(1.0, d + half)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n rows: Wilson 1927.

        (p + z² / 2n ± z · √(p (1 − p) / n + z² / 4n²)) / (1 + z² / n),   p = hits / n

    >>> [round(end, 3) for end in wilson(20, 20)]
    [0.839, 1.0]
    """
    z, p = NormalDist().inv_cdf(0.975), hits / n
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    middle, whole = p + z**2 / (2 * n), 1 + z**2 / n
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


def calibrated(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """The 95 % interval of a calibration error in per cent, by a bootstrap over the rows.

        ECE ± the 95th percentile of Σ_b |g_b* − g_b|,   ECE = Σ_b |g_b|

    g_b is the mean over all rows of how sure those of bin b are, minus whether they are right; g*
    the same of N rows drawn anew, 500 times, seed 0. By the triangle inequality no ECE is farther
    from the measured one than its g_b are. The percentiles of ECE* itself don't do: a few rows make
    each bin look off, and draws of them twice so, until the interval leaves out the truth (always,
    where a model is calibrated) and sometimes the estimate. A bin of rows that are all right looks
    more certain than it is. NaN below ten rows. For drawing, gaps count to a hundredth.

    >>> z, labels = torch.tensor([[2.0, 0.0]] * 100), (torch.arange(100) % 8 == 0).long()
    >>> [round(end, 1) for end in calibrated(z, labels)], round(100 * ece(z, labels).item(), 1)
    ([0.0, 8.1], 1.1)
    """
    n, bins = len(labels), 15
    if n < FEW:
        return math.nan, math.nan
    gap, bin_of = (part.numpy() for part in gaps(logits, labels, bins))
    # rows of a bin whose gaps are alike are drawn together: as quick for a million of them
    cell = 201 * bin_of + np.rint(100 * gap).astype(int) + 100
    count, total = np.bincount(cell), np.bincount(cell, gap)
    there = count.nonzero()[0]
    place = np.zeros((len(there), bins))
    place[np.arange(len(there)), there // 201] = total[there] / count[there] / n
    drawn = np.random.default_rng(0).multinomial(n, count[there] / n, size=500)
    off = np.abs((drawn - count[there]) @ place).sum(1)
    half, found = float(np.quantile(off, 0.95)), float(ece(logits, labels, bins))
    return 100 * max(0.0, found - half), 100 * min(1.0, found + half)
