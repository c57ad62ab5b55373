"""Rows of tokens as batches: padded on either side; packed documents laid out one by one."""

from typing import Any

import torch
from torch import Tensor

from kdlab.base.arguments import one_of, text, whole

LABELS = ("label", "label_ids")  # what data sets call `labels`
PACKING = (
    "position_ids",
    "seq_idx",
    "cu_seq_lens_q",
    "cu_seq_lens_k",
    "max_length_q",
    "max_length_k",
)


class Collator:
    """Rows of any lengths → one batch of tensors, padded; labels are neither made nor changed.

    tokenizer: gives `pad` (its padding token, else its end of text) and `side`; without it they are
    0 and "right". label: what the labels are called. Called with rows {"input_ids": L ids, …}
    → {"input_ids", "attention_mask", …}, (B, L) of the longest row. Labels (`label` and `label_ids`
    are taken for `labels`), one a token, are padded by −100: a prompt stays −100, and an end of
    text stays a label though its id may be the padding's. One label a row stays (B,), several
    (B, C). Columns with one entry a token are padded by 0, others stacked, texts left out. Raises
    ValueError or TypeError, with the row's number, where a value is missing, a label is a text, or
    rows differ in their columns or shapes.

    >>> batch = Collator(side="left")([{"input_ids": [5, 6, 2], "labels": [-100, 6, 2]},
    ...                                {"input_ids": [7, 2], "labels": [7, 2]}])
    >>> batch["labels"], batch["attention_mask"]
    (tensor([[-100,    6,    2],
            [-100,    7,    2]]), tensor([[1, 1, 1],
            [0, 1, 1]]))
    """

    def __init__(
        self,
        tokenizer: Any = None,
        side: str | None = None,
        pad: int | None = None,
        label: str = "labels",
    ) -> None:
        self.tokenizer, self.label = tokenizer, text("Collator", "label", label)
        if isinstance(tokenizer, (str, type)):  # would be passed over in silence
            raise TypeError(
                "Collator: tokenizer must be one, as kd.language_model gives, or None, "
                f"got {tokenizer!r}"
            )
        side = getattr(tokenizer, "padding_side", "right") if side is None else side
        self.side = one_of("Collator", "side", side, ["left", "right"])
        known = [
            pad,
            getattr(tokenizer, "pad_token_id", None),
            getattr(tokenizer, "eos_token_id", None),
            0,
        ]
        self.pad = whole("Collator", "pad", next(i for i in known if i is not None))

    def __call__(self, rows: list) -> dict[str, Tensor]:
        rows = [_renamed(i, row, self.label) for i, row in enumerate(rows)]
        if not rows:
            raise ValueError("Collator: rows must hold at least one row, got none")
        for i, row in enumerate(rows):
            if row.keys() != rows[0].keys():
                raise ValueError(
                    "Collator: rows must have the same columns, "
                    f"got {sorted(rows[0])} in row 0 and {sorted(row)} in row {i}"
                )
        columns = {
            name: [_tensor(i, name, row[name]) for i, row in enumerate(rows)] for name in rows[0]
        }
        if "input_ids" not in columns:
            return {name: _stacked(name, values) for name, values in columns.items()}
        columns.setdefault("attention_mask", [torch.ones_like(ids) for ids in columns["input_ids"]])
        lengths = [ids.shape for ids in columns["input_ids"]]
        batch = {}
        for name, values in columns.items():
            a_token_each = all(
                v.shape[:1] == length for v, length in zip(values, lengths, strict=True)
            )
            fill = self.pad if name == "input_ids" else -100 if name == self.label else 0
            batch[name] = self._padded(values, fill) if a_token_each else _stacked(name, values)
        return batch

    def _padded(self, values, fill):
        from torch.nn.utils.rnn import pad_sequence

        return pad_sequence(values, batch_first=True, padding_value=fill, padding_side=self.side)


def _renamed(i, row, label):
    """The row with its label under that name, without its texts."""
    if not hasattr(row, "keys"):
        raise TypeError(f"Collator: rows must be dictionaries, got {type(row).__name__} as row {i}")
    row = {label if name in LABELS else name: value for name, value in row.items()}
    if isinstance(row.get(label), str):
        raise TypeError(
            f"Collator: {label} must be numbers, got the text {row[label]!r} in row {i}; "
            "number the classes first, as in dataset.class_encode_column('label')"
        )
    return {name: value for name, value in row.items() if not isinstance(value, str)}


def _tensor(i, name, value):
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"Collator: {name} must be numbers in every row, got {value!r:.60} in row {i}"
        ) from None


def _stacked(name, values):
    shapes = [tuple(v.shape) for v in values]
    if other := [i for i, shape in enumerate(shapes) if shape != shapes[0]]:
        raise ValueError(
            f"Collator: {name} must be one entry a token of input_ids, or of one shape in every "
            f"row, got {shapes[0]} in row 0 and {shapes[other[0]]} in row {other[0]}"
        )
    return torch.stack(values)


def unpacked(batch, label="labels"):
    """A batch of packed rows, one document a row → (batch, back); back is None if none was packed.

    Packed rows are recognised by `position_ids` that begin anew, by `seq_idx` or `cu_seq_lens_q`,
    as transformers' `DataCollatorWithFlattening` writes them. Whether a model keeps packed
    documents apart depends on its architecture, its attention and its cache; one document a row,
    padded on the right, every model reads alike. back(x): values a token (documents, length, …) in
    the packed layout (B, L, …) again.

    >>> batch, back = unpacked({"input_ids": torch.tensor([[5, 6, 7, 8, 9]]),
    ...                         "position_ids": torch.tensor([[0, 1, 0, 1, 2]])})
    >>> batch["input_ids"], back(batch["input_ids"])
    (tensor([[5, 6, 0],
            [7, 8, 9]]), tensor([[5, 6, 7, 8, 9]]))
    """
    ids, mask = batch.get("input_ids"), batch.get("attention_mask")
    if ids is None or ids.ndim != 2 or (mask is not None and mask.shape != ids.shape):
        return batch, None
    starts = _starts(batch, ids)
    if starts is None:
        return batch, None
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    starts = real & (starts | (real.cumsum(1) == 1))
    if int(starts.sum(1).max()) < 2:
        return batch, None
    document = starts[real].cumsum(0) - 1
    lengths = document.bincount()
    keep = torch.arange(int(lengths.max()), device=ids.device) < lengths[:, None]
    row = real.nonzero()[starts[real], 0]  # of each document

    def spread(values, fill):
        out = values.new_full((*keep.shape, *values.shape[2:]), fill)
        out[keep] = values[real]
        return out

    def back(values):
        out = values.new_zeros((*real.shape, *values.shape[2:]))
        out[real] = values[keep]
        return out

    found = {"attention_mask": keep.long()}
    for name, values in batch.items():
        if torch.is_tensor(values) and values.shape[:2] == ids.shape and name not in PACKING:
            found.setdefault(name, spread(values, -100 if name == label else 0))
        elif torch.is_tensor(values) and values.shape[:1] == ids.shape[:1] and name not in PACKING:
            found[name] = values[row]
    return found, back


def padded_right(batch):
    """A batch with its padding behind the texts → (batch, back); back is None if it was so.

    Behind a text padding changes nothing: a causal model never sees it, and positions count from
    the first token. In front of it, each architecture must be told of it in its own way, and some
    answer NaN. back(x): values a token (B, L, …) in the given layout again.

    >>> batch, back = padded_right({"input_ids": torch.tensor([[0, 5, 6]]),
    ...                             "attention_mask": torch.tensor([[0, 1, 1]])})
    >>> batch["input_ids"], back(batch["input_ids"])
    (tensor([[5, 6, 0]]), tensor([[0, 5, 6]]))
    """
    mask = batch.get("attention_mask")
    if mask is None or mask.ndim != 2 or not (mask[:, 1:] > mask[:, :-1]).any():
        return batch, None
    order = mask.bool().int().argsort(dim=1, descending=True, stable=True)

    def moved(values, order):
        return values.gather(
            1, order.view(*order.shape, *[1] * (values.ndim - 2)).expand(values.shape)
        )

    a_token_each = {k for k, v in batch.items() if torch.is_tensor(v) and v.shape[:2] == mask.shape}
    found = {k: moved(v, order) if k in a_token_each else v for k, v in batch.items()}
    return found, lambda values: moved(values, order.argsort(dim=1))


def laid_out(batch, label="labels"):
    """A batch as every model reads it alike: a document a row, padding right → (batch, back).

    back(x): values a token in the given layout again. See `unpacked` and `padded_right`.

    >>> batch = {"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.tensor([[1, 1]])}
    >>> laid_out(batch)[0] is batch
    True
    """
    batch, packed_again = unpacked(batch, label)
    batch, left_again = padded_right(batch)
    backs = [back for back in (left_again, packed_again) if back is not None]

    def back(values):
        for step in backs:
            values = step(values)
        return values

    return batch, back


def _starts(batch, ids):
    """True at the tokens that begin a document, (B, L); None where the batch says nothing of it."""
    positions, number, bounds = (batch.get(k) for k in ("position_ids", "seq_idx", "cu_seq_lens_q"))
    if positions is not None and positions.shape == ids.shape:
        return torch.diff(positions, dim=1, prepend=positions[:, :1]) != 1
    if number is not None and number.shape == ids.shape:
        return torch.diff(number, dim=1, prepend=number[:, :1] - 1) != 0
    if bounds is not None and len(ids) == 1:
        starts = torch.zeros_like(ids, dtype=torch.bool)
        starts[0, torch.as_tensor(bounds, device=ids.device)[:-1].long()] = True
        return starts
    return None
