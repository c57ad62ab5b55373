"""What of a batch is learnt: its labels, and which of its tokens or rows count."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from kdlab.losses.kd import SquaredError
from kdlab.losses.protocol import Objective


@dataclass
class Targets:
    """Reads the labels of batches for one student and one objective.

    label: the batches' column. causal: a language model, whose labels are its tokens. problem: what
    a classifier's head is for, in transformers' words; None where the labels decide.
    """

    label: str
    objective: Objective
    causal: bool
    problem: str | None

    def __call__(self, batch):
        """The labels, −100 (NaN) where there is none, and what counts: (B,), or (B, L)."""
        labels = batch.get(self.label)
        if labels is None and self.objective.needs_labels:
            raise ValueError(
                f"DistillationTrainer: train_dataset: batches must hold {self.label} for an "
                "objective that needs them (with alpha=1 the teacher is enough), got "
                f"{sorted(batch)}"
            )
        if self.causal:
            return self._tokens(batch, labels)
        values = (v for k, v in batch.items() if torch.is_tensor(v) and k != "teacher_logits")
        first = next(values)
        if isinstance(self.objective, SquaredError):
            return self._numbers(first, labels)
        return self._classes(batch, first, labels)

    def _tokens(self, batch, labels):
        ids, mask = batch.get("input_ids"), batch.get("attention_mask")
        real = torch.ones_like(ids if labels is None else labels).bool()
        real = mask.bool() if mask is not None and mask.shape == real.shape else real
        if not self.objective.needs_labels and ids is not None:
            # a text without labels: the teacher has something to say of every token
            labels = torch.full_like(ids, -100) if labels is None else labels
            labels = torch.where(real & (labels == -100).all(1, keepdim=True), ids, labels)
        # no token counts that nothing real stands before: a first one, also behind padding
        labels = labels.masked_fill(~F.pad(real[:, :-1], (1, 0)), -100)
        return labels, labels != -100

    def _numbers(self, first, labels):
        if labels is None:
            labels = first.new_full(first.shape[:1], torch.nan, dtype=torch.float)
        labels = labels if labels.is_floating_point() else labels.float()
        labels = labels.reshape(len(labels), -1)
        if self.objective.needs_labels:
            return labels, ~labels.isnan().any(1)
        return labels, torch.ones_like(labels[:, 0], dtype=torch.bool)

    def _classes(self, batch, first, labels):
        if labels is None:
            labels = first.new_full(first.shape[:1], -100, dtype=torch.long)
        if labels.is_floating_point() and labels.ndim < 2:
            raise ValueError(
                f"DistillationTrainer: {self.label}: labels must be whole numbers for a head of "
                f"classes, got {labels.dtype}; a head of numbers has "
                "config.problem_type='regression'"
            )
        several = self._several(labels)
        if several and not ((labels == 0) | (labels == 1) | (labels == -100)).all():
            raise ValueError(
                f"DistillationTrainer: {self.label}: labels must be 0 or 1 (or −100: none) for a "
                f"head of several labels, got {labels.min():g} to {labels.max():g}"
            )
        labels = labels.long()
        known = (labels != -100).any(-1) if several else labels != -100
        if self.objective.needs_labels:
            return labels, known
        if several or labels.ndim == 1:
            return labels, torch.ones_like(known)
        real = batch.get("attention_mask", torch.ones_like(labels)).bool()
        return labels, known | (real & ~known.any(1, keepdim=True))

    def _several(self, labels):
        """True for a head of several labels at once, each yes or no, as transformers tells it."""
        if self.problem is None:
            return labels.is_floating_point()
        return self.problem == "multi_label_classification"
