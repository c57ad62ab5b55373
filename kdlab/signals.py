"""What a teacher gives: logits and hidden layers for every training row, computed once; ensembles; a control."""

import math

import torch

from .divergences import check_temperature, log_softmax
from .features import tap


def logits(model, x, batch=4096):
    """Logits of one model in eval mode, (N, ...) → (N, C) float; its mode and weights are left as they were.

    >>> logits(torch.nn.Linear(3, 2), torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """
    return hidden(model, x, [], batch)["logits"]


@torch.no_grad()
def hidden(model, x, layers, batch=4096):
    """Logits and the named hidden layers of one model in eval mode: {"logits": (N, C), layer: (N, …)}, as `logits`.

    >>> found = hidden(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)), torch.zeros(5, 3), ["0"])
    >>> {name: tuple(value.shape) for name, value in found.items()}
    {'logits': (5, 2), '0': (5, 4)}
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    parts = []
    try:
        for part in x.split(batch):
            with tap(model, layers) as found:
                answer = model(part)
            parts.append({"logits": answer.detach()} | {k: found[k].detach() for k in layers})
    finally:
        for module, training in modes.items():
            module.training = training
    return {k: torch.cat([part[k] for part in parts]) for k in parts[0]}


def each(runs, tasks, on="train"):
    """What every student of `runs` answers to its own split's rows: a list of (S, N, C), one a task, seeds in order.

    Handed to `distill` as teacher, the i-th seed's student learns from the i-th of these.

    >>> from kdlab import load, mlp, train
    >>> task = load("digits")
    >>> [z.shape for z in each(train(mlp(4), task, epochs=1, seeds=2), [task])]
    [torch.Size([2, 1168, 10])]
    """
    found = []
    for task in tasks:
        seeds = sorted(runs.where(unit=task.unit).frame["seed"].unique().tolist())
        found.append(torch.stack([logits(runs.module(unit=task.unit, seed=s), getattr(task, on).x) for s in seeds]))
    return found


def ensemble(teacher_logits, of="probabilities", temperature=1.0):
    """Several teachers as one, (K, …, C) → (…, C) logits: the arithmetic or the geometric mean of their outputs.

        "probabilities": T · log(1/K · Σ_k softmax(z_k / T)),   "logits": 1/K · Σ_k z_k

    Softened by the same T, the first is the mean of the teachers' softened outputs; the second is their geometric
    mean at every T. Source: Hinton, Vinyals, Dean 2015, section 2; You, Xu, Xu, Tao 2017, eq. 5.

    >>> z = torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]]])
    >>> ensemble(z, of="logits")
    tensor([[1., 1.]])
    """
    if not torch.is_tensor(teacher_logits) or teacher_logits.ndim < 2:
        got = tuple(teacher_logits.shape) if torch.is_tensor(teacher_logits) else type(teacher_logits).__name__
        raise ValueError(f"ensemble: teacher_logits must be a tensor (K, …, C), got {got}")
    if of not in ("probabilities", "logits"):
        raise ValueError(f"ensemble: of must be 'probabilities' or 'logits', got {of!r}")
    check_temperature("ensemble", temperature)
    if of == "logits":
        return teacher_logits.mean(0)
    return temperature * (log_softmax(teacher_logits, temperature).logsumexp(0) - math.log(len(teacher_logits)))


def shuffle_wrong_classes(teacher_logits, labels, seed=0):
    """Control: the teacher's logits with the wrong classes permuted within each row.

    teacher_logits (N, C), labels (N,) → (N, C). Each row keeps its label's logit, its set of values and so
    its entropy at every temperature; what is lost is which wrong class got how much. A gain that survives
    comes from soft, confident targets; a gain that is lost came from dark knowledge.
    Source: the permutation control of Furlanello et al. 2018 (DKPP), section 3.3.

    >>> z = torch.tensor([[5.0, 1.0, 2.0, 3.0]])
    >>> shuffle_wrong_classes(z, torch.tensor([0]))[0, 0].item()
    5.0
    """
    n, classes = teacher_logits.shape
    if tuple(labels.shape) != (n,):
        raise ValueError(f"shuffle_wrong_classes: labels must have shape ({n},), got {tuple(labels.shape)}")
    bad = labels[(labels < 0) | (labels >= classes)]
    if bad.numel():
        raise ValueError(f"shuffle_wrong_classes: labels must lie in [0, {classes}), got {int(bad[0])}")
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(n, classes, generator=generator).argsort(1).to(labels.device)
    # the label's class goes to the front of both orders, the others keep a random one
    wrong = order[order != labels[:, None]].view(n, classes - 1)
    plain = torch.arange(classes, device=labels.device).expand(n, -1)
    plain = plain[plain != labels[:, None]].view(n, classes - 1)
    return teacher_logits.scatter(1, plain, teacher_logits.gather(1, wrong))
