"""Token ids as people hold them: lists, arrays, padded batches; read by rows, padded again."""

from functools import partial

import torch
from torch.nn.utils.rnn import pad_sequence

padded = partial(pad_sequence, batch_first=True)


def token_rows(what, batch, *needed):
    """[(ids, real, labels)] of a batch, each (L,): by default all is real, and no label counts."""
    names = ("input_ids", "attention_mask", "labels")
    if not hasattr(batch, "keys"):
        raise TypeError(f"{what} must be a dictionary of {names}, got {type(batch).__name__}")
    columns = [batch.get(key) for key in names]
    if missing := [key for key in ("input_ids", *needed) if batch.get(key) is None]:
        raise ValueError(f"{what} must hold {' and '.join(missing)}, got {sorted(map(str, batch))}")
    rows = id_tensors(what, columns[0])
    others = [
        [torch.full_like(row, fill) for row in rows] if given is None else id_tensors(what, given)
        for given, fill in zip(columns[1:], (1, -100), strict=True)
    ]
    shapes = [[tuple(row.shape) for row in column] for column in (rows, *others)]
    if shapes[1:] != [shapes[0]] * 2 or any(len(shape) != 1 for shape in shapes[0]):
        raise ValueError(
            f"{what} must hold columns of one shape (B, L), "
            f"got the rows {dict(zip(names, shapes, strict=True))}"
        )
    return [(ids, real.bool(), labels) for ids, real, labels in zip(rows, *others, strict=True)]


def id_tensors(what, rows):
    """Sequences of whole numbers as tensors."""
    single = torch.is_tensor(rows) and not rows.ndim
    if isinstance(rows, str) or not hasattr(rows, "__iter__") or single:
        raise TypeError(f"{what} must be sequences of token ids, got {type(rows).__name__}")
    found = []
    for i, row in enumerate(rows):
        try:
            found.append(torch.as_tensor(row))
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise TypeError(
                f"{what}[{i}] must be a sequence of token ids, got {row!r:.60}"
            ) from None
    return found


def padded_batch(ids, labels, pad, device):
    """Rows of ids and labels as a batch padded on the right."""
    found = {
        "input_ids": padded(ids, padding_value=pad),
        "labels": padded(labels, padding_value=-100),
        "attention_mask": padded(list(map(torch.ones_like, ids))),
    }
    return {k: v.to(device) for k, v in found.items()}
