"""What the site's live pages need, from the package: images, splits, teachers, as one script."""

import kdlab as kd  # before torch: it sets how OpenMP's threads wait

import base64
import json

import numpy as np
import torch
from scipy import stats

SIZES = (1000, 437, 360)  # images for training, validation and test, as in lesson 00
SPLITS = 16  # each with its own teacher and two students
TEACHER, EPOCHS = kd.mlp(256, dropout=0.5), 20
LABELS = [3, 5, 10, 20, 30, 50]  # of a class; None: all


def packed(numbers, kind):
    """Numbers of a kind as text: base64 of little-endian bytes.

    >>> packed([1, 2], "u1")
    'AQI='
    """
    return base64.b64encode(np.asarray(numbers).astype(f"<{kind}").tobytes()).decode()


def rounded(layer):
    """A linear layer as the page reads it: (inputs + 1, outputs), the biases last, in 16 bits of
    the largest number. The layer keeps the rounded numbers: page and package compute with the same.
    """
    numbers = torch.cat([layer.weight.detach().T, layer.bias.detach()[None]]).double()
    scale = float(numbers.abs().max()) / 32767
    whole = (numbers / scale).round()
    with torch.no_grad():
        layer.weight.copy_((whole * scale)[:-1].T)
        layer.bias.copy_((whole * scale)[-1])
    return {"outputs": layer.out_features, "scale": scale, "numbers": packed(whole, "i2")}


def teachers(tasks):
    """One teacher a task, which saw all its labels, as modules."""
    runs = kd.train(TEACHER, tasks, epochs=EPOCHS, lr=1e-2, batch=64)
    return [runs.module_of_unit(task).cpu() for task in tasks]


def rows_of(data, known):
    """Where the images of a `Data` stand in the whole set; two that are alike are as good."""
    return [known[image.numpy().tobytes()] for image in data.x.cpu()]


def split(task, teacher, known):
    """A task as the page reads it: row numbers, and its teacher's layers."""
    layers = [rounded(layer) for layer in teacher if isinstance(layer, torch.nn.Linear)]
    found = kd.outputs.logits(teacher, task.validation.x.cpu()).argmax(-1)
    return {
        "seed": task.seed,
        "train": packed(rows_of(task.transfer, known), "u2"),
        "validation": packed(rows_of(task.validation, known), "u2"),
        "teacher": layers,
        "accuracy": 100 * float((found == task.validation.y.cpu()).double().mean()),
    }


def exported(count=SPLITS):
    """(what the page reads, the tasks, their teachers)."""
    tasks = kd.splits("digits", count, sizes=SIZES)
    every = {}
    for part in (tasks[0].transfer, tasks[0].validation, tasks[0].test):
        for image, label in zip(part.x.cpu(), part.clean.cpu(), strict=True):
            every.setdefault(image.numpy().tobytes(), (image, int(label)))
    known = {key: row for row, key in enumerate(every)}
    modules = teachers(tasks)
    data = {
        "pixels": packed(torch.stack([image for image, _ in every.values()]) * 16, "u1"),
        "labels": packed([label for _, label in every.values()], "u1"),
        "perClass": [*LABELS, None],
        "delta": kd.DELTA["points"],
        "t": float(stats.t.ppf(0.975, count - 1)),
        "splits": [split(t, m, known) for t, m in zip(tasks, modules, strict=True)],
    }
    return data, tasks, modules


def write(path):
    """The export as a script that sets a name, which a page opened as a file can load too."""
    data, _, _ = exported()
    path.write_text(f"const kdlabData = {json.dumps(data)};\n", encoding="utf-8")
