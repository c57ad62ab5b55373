"""Signals on disk as the teacher of a training: no teacher is in memory then.

A `SignalCollator` puts what is kept (`kdlab.teachers.signals`) beside the texts of a batch, and a
`TopKLoss` teaches it."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from kdlab.base.arguments import instance, text
from kdlab.data.rows import Collator
from kdlab.losses.divergences import forward_kl, reduce_rows
from kdlab.losses.kd import TokenLoss, check_labels
from kdlab.teachers.cache import Cache
from kdlab.teachers.signals import packed, read_rows, restored, unpacked
from kdlab.teachers.sparse import TopK


class SignalCollator:
    """Rows with an id → a batch with the teacher's signals in it, for `DistillationTrainer`.

    signals: a `Cache` of `from_teacher` or `from_answers`. collator: what makes the batch, by
    default a `Collator`; it pads columns with one entry a token, as that does. id: the column that
    names a row. In the batch, "teacher_logits" (B, L, 2 k + 1) are the signals as `TopKLoss` reads
    them. Raises ValueError for an id without signals, and for a row whose learnt tokens are not
    those that the signals were made for.

    >>> import tempfile
    >>> from kdlab import language_model, signals
    >>> teacher, tokenizer = language_model("docs_lm")
    >>> rows = [{"id": "a", "input_ids": tokenizer("Return the number")["input_ids"]}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     collate = SignalCollator(signals.from_teacher(folder, teacher, rows, k=5))
    ...     batch = collate([row | {"labels": row["input_ids"]} for row in rows])
    >>> {name: tuple(value.shape) for name, value in batch.items()}
    {'input_ids': (1, 3), 'labels': (1, 3), 'teacher_logits': (1, 3, 11), 'attention_mask': (1, 3)}
    """

    def __init__(
        self,
        signals: Cache,
        collator: Callable | None = None,
        id: str = "id",
        label: str = "labels",
    ) -> None:
        self.signals = instance(
            "SignalCollator", "signals", signals, Cache, "as kd.signals.from_teacher gives"
        )
        held = signals.about
        if "temperature" not in held or "tokens" not in signals.names:
            raise ValueError(
                "SignalCollator: signals must be a cache of kd.signals.from_teacher or "
                f"from_answers, got one of {sorted(held)}"
            )
        self.id = text("SignalCollator", "id", id)
        self.label = text("SignalCollator", "label", label)
        if collator is not None and not callable(collator):
            raise TypeError(
                f"SignalCollator: collator must be a function of rows or None, got {collator!r:.60}"
            )
        self.collator = Collator(label=label) if collator is None else collator
        self.tokenizer = getattr(self.collator, "tokenizer", None)
        self.temperature = held["temperature"]
        self.sampled = held.get("sampled", False)

    def __call__(self, rows: list) -> dict[str, Tensor]:
        rows = [dict(row) for row in rows]
        if lacking := [i for i, row in enumerate(rows) if self.id not in row]:
            raise ValueError(
                f"SignalCollator: rows must hold an id, {self.id!r}, got none in row {lacking[0]}"
            )
        ids = [row.pop(self.id) for row in rows]
        ids = [key.item() if hasattr(key, "item") else key for key in ids]
        found = self.signals[ids]
        for place, row in enumerate(rows):
            one = {name: parts[place] for name, parts in found.items()}
            row["teacher_logits"] = self._beside(ids[place], row, one)
        batch = self.collator(rows)
        if "teacher_logits" not in batch:  # as one that lays texts end to end
            raise ValueError(
                "SignalCollator: collator must keep columns with one entry a token, as kd.Collator "
                f"does, got {sorted(batch)} from {type(self.collator).__name__}"
            )
        return batch

    def _beside(self, key, row, one):
        """The signals of a text at the places that answer for its learnt tokens, (L, 2 k + 1)."""
        [(_, ids, learnt)] = read_rows("SignalCollator", [row | {"id": key}], "id", self.label)
        wanted = ids[1:][learnt[1:]]
        if wanted.tolist() != one["tokens"].tolist():
            raise ValueError(
                f"SignalCollator: the learnt tokens of row {key!r} must be the "
                f"{len(one['tokens'])} that its signals were made for, got {len(wanted)}"
                + (" others" if len(wanted) == len(one["tokens"]) else "")
            )
        kept = packed(restored(one, self.temperature))
        out = kept.new_zeros(len(ids), kept.shape[-1])
        out[:-1][learnt[1:]] = kept
        return out


class TopKLoss(TokenLoss):
    """A divergence from the teacher's k likeliest tokens and the rest, and the text's next token.

        alpha · T² · D(p, q) + (1 − alpha) · CE(next token, q_1)

    D is over k + 1 outcomes, each token that the teacher tells and "something else" (`TopK`), so at
    most what it is over the whole vocabulary. divergence: a function of kdlab.losses.divergences,
    options its own; of draws (`sampled`) the forward KL alone, the only one whose gradient is then
    right on average. temperature: the T that the signals were made at; scale "T2" or "none".
    For a `DistillationTrainer` whose data_collator is a `SignalCollator`. Called by hand with
    student_logits (..., V), a `TopK` of the same rows, and labels (...), already shifted.

    >>> import torch
    >>> from kdlab.teachers.sparse import top_k
    >>> teacher = top_k(torch.tensor([[2.0, 1.0, 0.0, 0.0]]), 2)
    >>> loss = TopKLoss()
    >>> round(loss(torch.tensor([[2.0, 1.0, 0.0, 0.0]]), teacher, torch.tensor([0])).item(), 6)
    0.0
    """

    one_vocabulary = False  # k and the rest face V logits

    @property
    def takes_draws(self) -> bool:
        """Whether its gradient is linear in the teacher's probabilities, so right in the mean."""
        return self.divergence is forward_kl

    def soft(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The divergence a row, over k + 1 outcomes; teacher_logits as `packed` gives them."""
        kept = unpacked(teacher_logits, self.temperature)
        student, teacher = kept.buckets(student_logits, mask)
        return self.divergence(student, teacher, mask=mask, reduction="rows", **self.options)

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Any,
        labels: Tensor,
        mask: Tensor | None = None,
        reduction: str = "mean",
    ) -> Tensor:
        """The mean over the rows that count, or with reduction="rows" one value a row."""
        name = type(self).__name__
        instance(name, "teacher_logits", teacher_logits, TopK, "a TopK, as kd.sparse.top_k gives")
        if teacher_logits.temperature != self.temperature:
            raise ValueError(
                f"{name}: teacher_logits must be made at the temperature {self.temperature}, got "
                f"{teacher_logits.temperature}"
            )
        if teacher_logits.sampled and not self.takes_draws:
            raise ValueError(
                f"{name}: divergence must be forward_kl where the teacher's tokens were drawn, got "
                f"{getattr(self.divergence, '__name__', self.divergence)}"
            )
        *rows, width = student_logits.shape
        labels = check_labels(name, labels, rows, width, mask)
        terms = self.rows(student_logits, packed(teacher_logits), labels)
        return reduce_rows(name, terms["loss"], labels >= 0, reduction)
