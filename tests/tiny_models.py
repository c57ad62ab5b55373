"""Tiny random models of transformers, with weights large enough to tell blocks apart; and
tokenizers."""

import copy
import json
from pathlib import Path

import torch
import transformers as hf
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

V, H = 40, 12
SIZES = dict(
    vocab_size=V,
    hidden_size=H,
    num_attention_heads=3,
    intermediate_size=16,
    max_position_embeddings=24,
    num_hidden_layers=4,
    initializer_range=0.3,
)
SLIDING = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
FAMILIES = {
    "BERT": (hf.BertForSequenceClassification, hf.BertConfig(**SIZES), "bert.encoder.layer"),
    "RoBERTa": (
        hf.RobertaForSequenceClassification,
        hf.RobertaConfig(**SIZES),
        "roberta.encoder.layer",
    ),
    "ELECTRA": (hf.ElectraModel, hf.ElectraConfig(embedding_size=8, **SIZES), "encoder.layer"),
    "DistilBERT": (
        hf.DistilBertForSequenceClassification,
        hf.DistilBertConfig(
            vocab_size=V,
            dim=H,
            n_heads=3,
            hidden_dim=16,
            n_layers=4,
            max_position_embeddings=24,
            initializer_range=0.3,
        ),
        "distilbert.transformer.layer",
    ),
    "Llama": (
        hf.LlamaForCausalLM,
        hf.LlamaConfig(tie_word_embeddings=True, head_dim=4, **SIZES),
        "model.layers",
    ),
    "Qwen2": (
        hf.Qwen2ForCausalLM,
        hf.Qwen2Config(
            sliding_window=3,
            use_sliding_window=True,
            layer_types=SLIDING,
            **SIZES | dict(num_key_value_heads=1),
        ),
        "model.layers",
    ),
}
DECODERS = {  # for losses on layers alone
    "GPT-2": (
        hf.GPT2LMHeadModel,
        hf.GPT2Config(
            vocab_size=V, n_embd=H, n_head=3, n_layer=4, n_positions=24, initializer_range=0.3
        ),
        "transformer.h",
    ),
    "Llama": FAMILIES["Llama"],
    "Qwen2": FAMILIES["Qwen2"],
}
ENCODERS = ["BERT", "RoBERTa", "ELECTRA", "DistilBERT"]
# smaller still: for tests that build many, in float64
TWO_LAYERS = dict(
    vocab_size=32,
    hidden_size=8,
    num_attention_heads=2,
    num_hidden_layers=2,
    intermediate_size=16,
    initializer_range=0.4,
)
TWO_LAYERS_GPT2 = dict(
    vocab_size=32,
    n_embd=8,
    n_head=2,
    n_layer=2,
    initializer_range=0.4,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
)
OPT = (
    hf.OPTForCausalLM,
    hf.OPTConfig(
        vocab_size=32,
        hidden_size=8,
        num_attention_heads=2,
        num_hidden_layers=2,
        ffn_dim=16,
        word_embed_proj_dim=8,
        dropout=0.0,
        init_std=0.4,
    ),
)
BLOOM = (
    hf.BloomForCausalLM,
    hf.BloomConfig(vocab_size=32, hidden_size=8, n_head=2, n_layer=2, initializer_range=0.4),
)


def build(family, seed=0, **changes):
    kind, config, _ = (FAMILIES | DECODERS)[family]
    config = copy.deepcopy(config)
    for key, value in changes.items():
        setattr(config, key, value)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(config).eval()


# 5: no token that a tokenizer would keep for itself, such as padding
IDS = torch.randint(5, V, (3, 9), generator=torch.Generator().manual_seed(1))

FILE = Path(__file__).parents[1] / "data" / "teachers" / "topics_lm" / "tokenizer.json"


def fast(model):
    return PreTrainedTokenizerFast(
        tokenizer_object=model if isinstance(model, Tokenizer) else Tokenizer(model)
    )


def tokenizer(change=lambda t: None, edit=lambda model: None, **special):
    """The committed tokenizer, after an edit of its JSON or a change of the object."""
    content = json.loads(FILE.read_text())
    edit(content["model"])
    made = Tokenizer.from_str(json.dumps(content))
    change(made)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, **{"bos_token": "<s>", "eos_token": "<s>"} | special
    )
