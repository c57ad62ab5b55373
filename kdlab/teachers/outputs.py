"""What a teacher gives: logits and hidden layers of all rows; ensembles; a control."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdlab.base import arguments
from kdlab.base.wrapped import evaluating
from kdlab.data.tasks import Task
from kdlab.losses.divergences import check_temperature, log_softmax
from kdlab.losses.hidden import tap


def logits(model: nn.Module, x: Tensor, batch: int = 4096) -> Tensor:
    """Logits of one model in eval mode, (N, ...) → (N, C) float; it is left as it was.

    >>> logits(torch.nn.Linear(3, 2), torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """
    return hidden(model, x, [], batch)["logits"]


def hidden(
    model: nn.Module, x: Tensor, layers: Sequence[str], batch: int = 4096
) -> dict[str, Tensor]:
    """Logits and the named hidden layers of one model: {"logits": (N, C), layer: (N, …)}.

    Computed in eval mode, as by `logits`. The model stays on its device, what it answers comes back
    on that of x.

    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    >>> found = hidden(model, torch.zeros(5, 3), ["0"])
    >>> {name: tuple(value.shape) for name, value in found.items()}
    {'logits': (5, 2), '0': (5, 4)}
    """
    parts, own = [], next(itertools.chain(model.parameters(), model.buffers(), [x])).device
    with evaluating(model):
        for part in x.split(batch):
            with tap(model, layers) as found:
                answer = model(part.to(own))
            parts.append({"logits": answer} | {k: found[k] for k in layers})
    return {k: torch.cat([part[k] for part in parts]).to(x.device) for k in parts[0]}


def each(runs: Any, tasks: Task | Sequence[Task], on: str = "train") -> list[Tensor]:
    """What every student of `runs` answers to its own split's rows: [(S, N, C)], one a task.

    Seeds come in order. Handed to `distill` as teacher, the i-th seed's student learns from the
    i-th of these.

    >>> from kdlab import load, mlp, train
    >>> task = load("digits")
    >>> [z.shape for z in each(train(mlp(4), task, epochs=1, seeds=2), [task])]
    [torch.Size([2, 1168, 10])]
    """
    if not (hasattr(runs, "frame") and hasattr(runs, "module")):
        raise TypeError(
            f"each: runs must be Runs, as from train or distill, got {type(runs).__name__}"
        )
    arguments.one_of("each", "on", on, ["train", "transfer", "validation", "test"])
    found = []
    for task in (
        [tasks]
        if isinstance(tasks, Task)
        else arguments.listed("each", "tasks", tasks, "a list of tasks")
    ):
        arguments.instance("each", "tasks", task, Task, "a list of tasks")
        seeds = sorted(runs.where(unit=task.unit).frame["seed"].unique().tolist())
        found.append(
            torch.stack(
                [logits(runs.module(unit=task.unit, seed=s), getattr(task, on).x) for s in seeds]
            )
        )
    return found


def ensemble(
    teacher_logits: Tensor, of: str = "probabilities", temperature: float | Tensor = 1.0
) -> Tensor:
    """Several teachers as one: the arithmetic or the geometric mean of their outputs.

        "probabilities": T · log(1/K · Σ_k softmax(z_k / T)),   "logits": 1/K · Σ_k z_k

    (K, …, C) → (…, C) logits. Softened by the same T, the first is the mean of the teachers'
    softened outputs; the second is their geometric mean at every T. Source: Hinton, Vinyals, Dean
    2015, section 2; You, Xu, Xu, Tao 2017, eq. 5.

    >>> z = torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]]])
    >>> ensemble(z, of="logits")
    tensor([[1., 1.]])
    """
    arguments.logits("ensemble", "teacher_logits", teacher_logits, "(K, …, C)", least=2)
    if not teacher_logits.is_floating_point() or not len(teacher_logits):
        raise ValueError(
            "ensemble: teacher_logits must hold floats of one teacher or more (K, …, C), "
            f"got {teacher_logits.dtype} {tuple(teacher_logits.shape)}"
        )
    arguments.one_of("ensemble", "of", of, ["probabilities", "logits"])
    temperature = check_temperature("ensemble", temperature)
    arguments.fits("ensemble", "temperature", temperature, teacher_logits.shape[1:])
    if of == "logits":
        return teacher_logits.mean(0)
    return temperature * (
        log_softmax(teacher_logits, temperature).logsumexp(0) - math.log(len(teacher_logits))
    )


def shuffle_wrong_classes(teacher_logits: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
    """Control: the teacher's logits with the wrong classes permuted within each row.

    teacher_logits (N, C), labels (N,) → (N, C). Each row keeps its label's logit, its set of values
    and so its entropy at every temperature; what is lost is which wrong class got how much. A gain
    that survives comes from soft, confident targets; a gain that is lost came from dark knowledge.
    Source: the permutation control of Furlanello et al. 2018 (DKPP), section 3.3.

    >>> z = torch.tensor([[5.0, 1.0, 2.0, 3.0]])
    >>> shuffle_wrong_classes(z, torch.tensor([0]))[0, 0].item()
    5.0
    """
    name = "shuffle_wrong_classes"
    arguments.logits(name, "teacher_logits", teacher_logits, "(N, C)", least=2)
    seed = arguments.whole(name, "seed", seed, most=2**63 - 1)
    if teacher_logits.ndim != 2:
        raise ValueError(
            f"{name}: teacher_logits must have the shape (N, C), got {tuple(teacher_logits.shape)}"
        )
    n, classes = teacher_logits.shape
    arguments.instance(name, "labels", labels, torch.Tensor, "an integer tensor (N,)")
    if tuple(labels.shape) != (n,):
        raise ValueError(
            f"{name}: labels must have the shape ({n},), a label a row of teacher_logits, "
            f"got {tuple(labels.shape)}"
        )
    arguments.labels(name, "labels", labels, (n,))
    bad = labels[(labels < 0) | (labels >= classes)]
    if bad.numel():
        raise ValueError(
            f"{name}: labels must lie in [0, {classes}), the classes of teacher_logits, "
            f"got {int(bad[0])}"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(n, classes, generator=generator).argsort(1).to(labels.device)
    # the label's class goes to the front of both orders, the others keep a random one
    wrong = order[order != labels[:, None]].view(n, classes - 1)
    plain = torch.arange(classes, device=labels.device).expand(n, -1)
    plain = plain[plain != labels[:, None]].view(n, classes - 1)
    return teacher_logits.scatter(1, plain, teacher_logits.gather(1, wrong))
