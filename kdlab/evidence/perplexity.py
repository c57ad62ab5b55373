"""Two numbers for what a language model writes and predicts: distinct n-grams and perplexity."""

import math
from collections.abc import Iterable
from numbers import Integral

import torch
from torch import Tensor, nn

from kdlab.base.arguments import instance, listed, whole
from kdlab.base.lab import threads_for
from kdlab.base.wrapped import evaluating
from kdlab.data.token_rows import padded, token_rows
from kdlab.losses.kd import cross_entropy_rows, next_token
from kdlab.students.limits import check_ids, positions, unwrapped


def distinct(sequences: Iterable, n: int) -> float:
    """Share of the n-grams, over all sequences, that differ: 1 where none comes twice.

        |{n-grams}| / Σ n-grams

    sequences: lists of tokens or 1-D tensors of ids. Raises ValueError where no sequence holds n
    tokens. Source: Li et al. 2016, who divide by the number of tokens instead.

    >>> distinct([[1, 2, 1, 2]], 2)  # (1, 2) twice, (2, 1) once
    0.6666666666666666
    """
    whole("distinct", "n", n, least=1)

    def plain(value):
        value = value.tolist() if torch.is_tensor(value) and value.ndim else value
        return listed("distinct", "sequences", value, "lists of tokens or 1-D tensors of ids")

    rows = [plain(row) for row in plain(sequences)]
    for token in (token for row in rows for token in row):
        instance("distinct", "sequences", token, (str, Integral), "lists of words or ids")
    grams = [tuple(row[i : i + n]) for row in rows for i in range(len(row) - n + 1)]
    if not grams:
        raise ValueError(
            f"distinct: sequences must hold one of at least n = {n} tokens, "
            f"got {len(rows)} shorter ones"
        )
    return len(set(grams)) / len(grams)


def perplexity(model: nn.Module, batch: dict[str, Tensor]) -> float:
    """How many tokens a language model wavers between: exp of its mean nats a token that counts.

        exp( −1/N · Σ log q(y_i | y_<i) )

    batch: {"input_ids", "attention_mask", "labels"}, each (B, L), padded on either side; without a
    mask all of it is real. A token counts where it is real, not a row's first, and its label is not
    −100. The model answers in eval mode, with its mode restored. Raises ValueError where no token
    counts, where a text is longer than the model's `positions`, and where it holds an unknown id.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = dict(hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
    >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes))
    >>> _ = torch.nn.init.zeros_(model.lm_head.weight)
    >>> ids = torch.tensor([[1, 2, 3]])
    >>> batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    >>> round(perplexity(model, batch), 3)
    16.0
    """
    rows = [
        (ids[real].cpu(), labels[real].cpu())
        for ids, real, labels in token_rows("perplexity: batch", batch, "labels")
    ]
    if not any((labels[1:] != -100).any() for _, labels in rows):
        raise ValueError(
            "perplexity: batch must hold a token that counts, got labels that are all −100"
        )
    model = unwrapped("perplexity", model)
    longest, room = max(len(ids) for ids, _ in rows), positions(model)
    if room is not None and longest > room:
        raise ValueError(
            f"perplexity: batch must hold texts of at most {room} tokens, the model's positions, "
            f"got one of {longest}"
        )
    check_ids("perplexity: batch", model, [ids for ids, _ in rows])
    # padded on the right, a row starts at position 0 and its tokens see no padding
    home = next(model.parameters()).device
    ids, labels = (
        padded(list(column), padding_value=fill).to(home)
        for column, fill in zip(zip(*rows, strict=True), (0, -100), strict=True)
    )
    with evaluating(model), threads_for(model):
        logits, labels = next_token(model(input_ids=ids).logits, labels)
    return math.exp(cross_entropy_rows(logits, labels).sum().item() / int((labels != -100).sum()))
