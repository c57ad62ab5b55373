"""The usual training loop, one student at a time, written out with torch's own losses and
optimisers.

The reference for replicas, `train`, `distill` and `sweep`: it shares no code with them.
"""

import math

import torch
import torch.nn.functional as F


class OwnDropout(torch.nn.Module):
    """Dropout whose mask comes from this student's own generator: kept where a uniform number is at
    least p."""

    def __init__(self, p, generator):
        super().__init__()
        self.p, self.generator = p, generator

    def forward(self, x):
        if not self.training:
            return x
        kept = torch.rand(x.shape, generator=self.generator) >= self.p
        return x * kept / (1 - self.p)


def own_dropout(model, seed):
    """The Sequential with each dropout layer drawing from one generator of this seed."""
    generator = torch.Generator().manual_seed(seed)
    layers = [OwnDropout(m.p, generator) if type(m).__name__ == "Dropout" else m for m in model]
    return torch.nn.Sequential(*layers)


def built(student, task, seed):
    """The builder's model with the initial weights of this seed."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = student(task)
    torch.set_rng_state(state)
    return model


def alone(
    model,
    x,
    y,
    z=None,
    *,
    seed,
    T=4.0,
    alpha=0.9,
    lr=1e-2,
    epochs=3,
    batch=16,
    optimiser=torch.optim.Adam,
    schedule="cosine",
    clip=None,
    smoothing=0.0,
    **options,
):
    """Train one model on x (N, ...), y (N,), z (N, C) or None; returns the mean loss of a row in
    the last epoch.

    Rows labelled −100 have only the soft term. The loss is the mean over the rows of a batch.
    """
    order = torch.Generator().manual_seed(seed)
    optimiser = optimiser(model.parameters(), lr=lr, **options)
    steps, step = epochs * math.ceil(len(y) / batch), 0
    model.train()
    for _ in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(y), generator=order).split(batch):
            for group in optimiser.param_groups:  # half a cosine from lr to 0
                group["lr"] = (
                    lr * math.cos(math.pi * step / (2 * steps)) ** 2 if schedule == "cosine" else lr
                )
            logits = model(x[rows])
            hard = F.cross_entropy(
                logits, y[rows], ignore_index=-100, label_smoothing=smoothing, reduction="sum"
            )
            loss = hard / len(rows)
            if z is not None:
                soft = F.kl_div(
                    F.log_softmax(logits / T, -1), F.softmax(z[rows] / T, -1), reduction="batchmean"
                )
                loss = alpha * T * T * soft + (1 - alpha) * loss
            optimiser.zero_grad()
            loss.backward()
            if clip is not None:
                grads = [p.grad for p in model.parameters() if p.grad is not None]
                norm = sum(g.pow(2).sum() for g in grads).sqrt().item()
                for g in grads:
                    g *= min(1.0, clip / norm)
            optimiser.step()
            total += loss.item() * len(rows)
            step += 1
    return total / len(y)


def batches(n, seed, epochs=3, batch=16):
    """The row numbers of each step, in the order of this seed."""
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        yield from torch.randperm(n, generator=order).split(batch)


def blend(logits, guide, y, T=4.0, alpha=0.9):
    """The mean over rows of alpha · T² · KL + (1 − alpha) · cross-entropy; rows labelled −100 have
    no second term."""
    soft = F.kl_div(F.log_softmax(logits / T, -1), F.softmax(guide / T, -1), reduction="batchmean")
    return alpha * T * T * soft + (1 - alpha) * F.cross_entropy(logits, y, reduction="sum") / len(y)


def step(optimiser, loss):
    """One step down this loss."""
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def layers(model, x):
    """The logits of a Sequential and what each of its layers gives: {name: (B, …)}."""
    found = {}
    for name, layer in model.named_children():
        x = found[name] = layer(x)
    return x, found


def logits_of(model, x):
    """What a model answers in eval mode."""
    with torch.no_grad():
        return model.eval()(x)


def first_class(logits, data):
    """A metric of a reader's own: the share of rows that are called the first class."""
    return (logits.argmax(1) == 0).float().mean()
