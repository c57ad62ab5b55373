"""What a language model can read: its positions, its ids, and the model inside wrappers."""

from torch import nn

from kdlab.base.arguments import instance
from kdlab.base.wrapped import inside


def positions(model):
    """How many tokens of a text a model can tell the places of; None where nothing limits them.

    model: of `transformers`, also inside DDP, torch.compile or an adapter of peft. It is what the
    configuration calls max_position_embeddings, for rotary positions too; RoBERTa and its like keep
    the first padding_idx + 1 of them for padding, so that 514 place 512 tokens.

    >>> from transformers import RobertaConfig, RobertaModel
    >>> sizes = dict(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    >>> positions(RobertaModel(RobertaConfig(max_position_embeddings=514, pad_token_id=1, **sizes)))
    512
    """
    config = getattr(inside(model), "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()  # of a model that sees, the part that reads
    found = getattr(config, "max_position_embeddings", None)
    if not isinstance(found, int) or found < 1:  # XLNet's −1: no limit
        return None
    return found - reserved_positions(model)


def reserved_positions(model):
    """The positions kept for padding, before those of tokens: RoBERTa's padding_idx + 1."""
    tables = [
        module
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding)
    ]
    return max((t.padding_idx + 1 for t in tables if t.padding_idx is not None), default=0)


def unwrapped(name, model):
    """The model inside DDP and torch.compile; an adapter of peft stays, it is part of the model."""
    from transformers import PreTrainedModel

    instance(name, "model", model, nn.Module, "a causal language model of transformers")
    while not isinstance(model, PreTrainedModel):
        parts = model._modules
        if not {"module", "_orig_mod"} & parts.keys():
            break
        model = parts.get("_orig_mod", parts.get("module"))
    if not hasattr(model, "generate"):
        raise TypeError(
            f"{name}: model must be a causal language model of transformers, "
            f"got {type(model).__name__}"
        )
    return model


def check_ids(name, model, rows):
    """Raise the error for an id that is no token of the model."""
    tokens = model.get_input_embeddings().num_embeddings
    for i, row in enumerate(rows):
        if len(row) and (row.min() < 0 or row.max() >= tokens):
            raise ValueError(
                f"{name}[{i}] must hold ids below {tokens}, got {row.min()} to {row.max()}"
            )
