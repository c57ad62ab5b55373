"""Language models so small that loops can follow them, prompts for them, and their batches."""

import torch
import transformers
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2LMHeadModel, LlamaForCausalLM

V = 11
SIZES = {
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.5,
}
token = st.integers(0, V - 1)
texts = st.lists(token, min_size=1, max_size=6)
PROMPTS = [[3, 1, 4, 1, 5, 9, 2], [6], [10, 0], [2, 7, 1, 8]]


def tiny(kind=LlamaForCausalLM, seed=0, **options):
    torch.manual_seed(seed)
    return kind(kind.config_class(**SIZES | options)).double().eval()


def gpt2(dropout=0.0):
    """Its positions are learnt and absolute, so that padding on the left moves them."""
    return tiny(
        GPT2LMHeadModel, **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    )


def padded(prompts, side, pad=7, responses=None):
    """A batch as a trainer hands it over; without responses its labels are the text itself."""

    def column(rows, fill):
        return pad_sequence([torch.tensor(row) for row in rows], True, fill, side)

    rows = [p + r for p, r in zip(prompts, responses or [[]] * len(prompts), strict=True)]
    labels = (
        [[-100] * len(p) + r for p, r in zip(prompts, responses, strict=True)]
        if responses
        else rows
    )
    return {
        "input_ids": column(rows, pad),
        "labels": column(labels, -100),
        "attention_mask": column([[1] * len(row) for row in rows], 0),
    }


def roberta(kind=transformers.RobertaForCausalLM, room=10):
    return tiny(kind, max_position_embeddings=room + 2, pad_token_id=1, is_decoder=True)
