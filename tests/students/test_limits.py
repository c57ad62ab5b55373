"""How many tokens a model reads, against what it does with one more."""

import pytest
import torch
import transformers
from transformers import GPT2LMHeadModel
from writers import V, roberta, tiny

from kdlab.students.limits import positions

LEARNT = {  # a table of positions: with one token too many, torch raises an error of its own
    "GPT-2": lambda: tiny(GPT2LMHeadModel, max_position_embeddings=10),
    "BERT": lambda: tiny(transformers.BertLMHeadModel, max_position_embeddings=10, is_decoder=True),
    "RoBERTa": roberta,
    "XLM-R, as a classifier": lambda: roberta(transformers.XLMRobertaForSequenceClassification),
    "ELECTRA": lambda: tiny(
        transformers.ElectraForCausalLM, max_position_embeddings=10, is_decoder=True
    ),
    "DistilBERT": lambda: tiny(
        transformers.DistilBertModel, max_position_embeddings=10, dim=16, n_heads=2, n_layers=1
    ),
    "OPT": lambda: tiny(
        transformers.OPTForCausalLM, max_position_embeddings=10, ffn_dim=16, word_embed_proj_dim=16
    ),
}


@pytest.mark.parametrize("name", LEARNT)
def test_positions_are_as_many_tokens_as_the_table_takes(name):
    model = LEARNT[name]()
    assert positions(model) == 10
    with torch.no_grad():
        model(torch.full((1, 10), 5))
        with pytest.raises((IndexError, RuntimeError), match="index|size"):
            model(torch.full((1, 11), 5))


def test_positions_of_models_without_a_table():
    sizes = {
        "vocab_size": V,
        "d_model": 16,
        "hidden_size": 16,
        "n_heads": 2,
        "n_head": 2,
        "n_layers": 1,
        "n_layer": 1,
        "d_inner": 16,
    }
    for kind in (
        transformers.BloomForCausalLM,
        transformers.MptForCausalLM,
        transformers.XLNetLMHeadModel,
    ):
        assert positions(kind(kind.config_class(**sizes))) is None
    assert (
        positions(tiny()) == 32 and positions(torch.nn.Linear(2, 2)) is None
    )  # rotary: what its config says
