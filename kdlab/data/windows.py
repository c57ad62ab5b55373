"""Texts cut into rows of one length, as language models are trained."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def windows(tokenizer: Any, texts: Sequence[str], length: int = 128) -> Tensor:
    """Texts as rows of ids without padding, as language models are trained: [str] → (N, length).

    What fills no row at the end is left out. Each text begins with the tokenizer's
    beginning-of-text token, which so ends the one before.
    Raises TypeError for a single text, ValueError where the texts don't fill one window.

    >>> from kdlab.students.pretrained import language_model
    >>> windows(language_model("docs_lm")[1], ["Return the sum."] * 9, length=16).shape
    torch.Size([3, 16])
    """
    if isinstance(texts, str):
        raise TypeError(f"windows: texts must be a list of texts, got one: {texts[:20]!r}")
    if not isinstance(length, int) or length < 1:
        raise ValueError(f"windows: length must be a whole number of at least 1, got {length!r}")
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    # not verbose: a text longer than the model reads is cut below, and no reason for a warning
    how = {"add_special_tokens": False, "verbose": False}
    rows = tokenizer(list(texts), **how)["input_ids"] if len(texts) else []
    found = [i for ids in rows for i in [*start, *ids]]
    if len(found) < length:
        raise ValueError(f"windows: texts must hold at least {length} tokens, got {len(found)}")
    return torch.tensor(found[: len(found) // length * length]).view(-1, length)
