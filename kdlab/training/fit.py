"""One student, trained in silence by `DistillationTrainer` as the lessons set it."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.data import IterableDataset

from kdlab.base.arguments import instance, number, whole
from kdlab.base.lab import device, threads_for
from kdlab.base.wrapped import takes
from kdlab.data.rows import LABELS
from kdlab.losses.protocol import Objective

HALF = (torch.float16, torch.bfloat16)
MARKS = 50  # lines of the history


def fit(
    student: nn.Module,
    data: Any,
    *,
    teacher: nn.Module | str | None = None,
    objective: Objective | None = None,
    hidden: nn.Module | None = None,
    on_policy: Callable | None = None,
    collator: Callable | None = None,
    epochs: float = 1,
    steps: int = -1,
    batch: int = 8,
    lr: float = 2e-3,
    seed: int = 0,
) -> pd.DataFrame:
    """Train a transformers model on data, in place; the history of its losses comes back.

    AdamW without weight decay, a tenth of the steps to warm up, then a cosine to 0, gradients
    clipped at norm 1. data: rows of a causal LM or a classifier, a list of dicts, a
    `datasets.Dataset` or another data set with a length and rows by number, or one to iterate over,
    which needs steps. epochs over it (a share of one too), or steps, −1 where the epochs count.
    collator: makes a batch of rows, by default kdlab's `Collator`. seed: the order of the data and
    dropout. teacher, objective, hidden, on_policy: those of `DistillationTrainer`. The student
    trains where it lies, and is left in eval mode. One in half precision is made float32, in which
    small steps count, and stays so; on a GPU with bfloat16 it is then computed under autocast.

    Returns a DataFrame, a row for each of about fifty marks on the way: step, epoch, loss and its
    terms soft, hard and hidden, each a mean since the mark before, NaN where not computed. Nothing
    is printed or saved: for long runs, checkpoints and several processes use the Trainer itself. A
    single step is taken at the full rate. Raises TypeError or ValueError for an argument of another
    kind, and where nothing would be learnt: without rows, without a label that counts, without
    weights that learn.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = dict(vocab_size=16, hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
    >>> model = LlamaForCausalLM(LlamaConfig(**sizes))
    >>> from kdlab import HardLabels
    >>> rows = [{"input_ids": [1, 5, 2], "labels": [1, 5, 2]}] * 8
    >>> fit(model, rows, objective=HardLabels(), steps=2)["step"].tolist()
    [1, 2]
    """
    from transformers.trainer_callback import PrinterCallback
    from transformers.utils import logging

    from kdlab.training.trainer import DistillationTrainer

    pace = Pace(epochs, steps, batch, lr, seed)
    _check_arguments(student, collator, pace)
    _check_data(student, data, collator, steps)
    total = steps if steps > 0 else math.ceil(epochs * math.ceil(len(data) / batch))
    half = any(p.requires_grad and p.dtype in HALF for p in student.parameters())
    student = student.float() if half else student
    said = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with tempfile.TemporaryDirectory() as folder, threads_for(student):
            trainer = DistillationTrainer(
                student,
                _settings(folder, pace, total, half),
                teacher=teacher,
                objective=objective,
                hidden=hidden,
                on_policy=on_policy,
                train_dataset=data,
                data_collator=collator,
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
    finally:
        logging.set_verbosity(said)
    _check_learnt(student, trainer, lr)
    student.eval()
    told = pd.DataFrame([line for line in trainer.state.log_history if "loss" in line])
    return told[["step", "epoch", "loss", "soft", "hard", "hidden"]]


@dataclass(frozen=True)
class Pace:
    """How long, in what batches, how fast and in what order a student is trained: as for `fit`."""

    epochs: float
    steps: int
    batch: int
    lr: float
    seed: int


def _settings(folder, pace, total, half):
    """The Trainer's arguments; total: the steps to come."""
    from transformers import TrainingArguments

    on_gpu = device().type == "cuda"
    return TrainingArguments(
        folder,
        num_train_epochs=pace.epochs,
        max_steps=pace.steps,
        per_device_train_batch_size=pace.batch,
        learning_rate=pace.lr,
        lr_scheduler_type="cosine",
        warmup_steps=0.1 if total > 1 else 0,  # the first step of a warm-up has the rate 0
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=pace.seed,
        report_to="none",
        save_strategy="no",
        logging_steps=max(1, total // MARKS),
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        use_cpu=device().type == "cpu",
        dataloader_pin_memory=False,
        bf16=half and on_gpu and torch.cuda.is_bf16_supported(),
    )


def _check_arguments(student, collator, pace):
    """The errors that need no data."""
    instance("fit", "student", student, torch.nn.Module, "an nn.Module")
    if not any(p.requires_grad for p in student.parameters()):
        raise ValueError("fit: student must have weights that learn (requires_grad), got none")
    if collator is not None and (isinstance(collator, type) or not callable(collator)):
        raise TypeError(
            f"fit: collator must be a function from rows to a batch, or None, got {collator!r:.60}"
        )
    number("fit", "epochs", pace.epochs, above=0)
    if whole("fit", "steps", pace.steps, least=-1) == 0:
        raise ValueError(
            "fit: steps must be a whole number of at least 1, or -1 to go by epochs, got 0"
        )
    whole("fit", "batch", pace.batch, least=1)
    number("fit", "lr", pace.lr, above=0)
    whole("fit", "seed", pace.seed, most=2**32 - 1)  # the most that NumPy takes


def _check_learnt(student, trainer, lr):
    """The errors for a student that diverged, and for one that had nothing to learn from."""
    if not all(bool(p.isfinite().all()) for p in student.parameters()):
        raise ValueError(
            "fit: student has diverged, its weights hold NaN or infinity; expected a lower lr, got"
            f" {lr}"
        )
    if not trainer.counted:
        raise ValueError(
            "fit: data must hold a row with a label that counts (not −100, nor a "
            "text's first token), got none, so nothing was learnt"
        )


def _check_data(student, data, collator, steps):
    """The errors for no data set, an empty one, and one whose rows say nothing to the student."""
    if isinstance(data, IterableDataset):
        if steps < 1:
            raise ValueError(
                "fit: steps must be a whole number of at least 1 for data without a "
                f"length, got {steps}"
            )
        first = iter(data)
        # what can be read only once is left alone
        if first is not iter(data) and next(first, None) is None:
            raise ValueError("fit: data must hold at least one row, got none")
        return
    by_number = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    if (
        not by_number
        or hasattr(data, "keys")
        or isinstance(data, (str, bytes))
        or torch.is_tensor(data)
    ):
        raise TypeError(
            "fit: data must be a list of dictionaries, a datasets.Dataset or another "
            f"data set with a length and rows by number, got {type(data).__name__}"
        )
    if not len(data):
        raise ValueError("fit: data must hold at least one row, got none")
    if collator is not None:
        return
    row, names = data[0], takes(student)
    if not hasattr(row, "keys"):
        raise TypeError(
            f"fit: data must hold dictionaries as rows, got {type(row).__name__} as row 0"
        )
    read = names and names - {"labels", *LABELS}
    if read is not None and not read & set(row.keys()):
        raise ValueError(
            "fit: data must hold rows with something that the student's forward takes "
            f"(such as input_ids), got the columns {list(row.keys())} in row 0"
        )
