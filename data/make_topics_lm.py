"""Train the small language model of lesson 03 on text that every Python carries, and write its
card.

    python data/make_topics_lm.py        about two minutes on two CPU cores

Text: pydoc_data.topics (the Python language reference as shown by help()), every tenth topic held
out. A Llama of width 96 and 3 layers, byte-level BPE with 512 tokens. Writes
data/teachers/topics_lm in the hub's layout."""

import argparse
import platform
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import teaching  # before torch: it sets how torch's threads wait

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def text():
    """(training text, held-out text)."""
    return tuple("\n\n".join(part) for part in teaching.topics())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=teaching.TEACHERS)
    out = parser.parse_args().out
    torch.manual_seed(0)
    tokenizer = teaching.byte_level(text()[:1], 512)
    ids, held = (torch.tensor(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in text())
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512,
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=6,
            max_position_embeddings=256,
            bos_token_id=0,
            eos_token_id=0,
            tie_word_embeddings=True,
        )
    )
    teaching.train(model, partial(teaching.drawn, ids), steps=800, rate=3e-3, weight_decay=0.1)
    teaching.keep(
        out / "topics_lm",
        model,
        tokenizer,
        f"""# topics_lm

A Llama of {model.num_parameters():,} parameters (width 96, 3 layers, 512 byte-level BPE \
tokens), trained on the
text of `pydoc_data.topics` from Python {platform.python_version()} (every tenth topic held out) by
`python data/make_topics_lm.py`.

- held-out loss: {teaching.nats(model, held):.2f} nats a token (windows of {teaching.LENGTH} tokens)
- sha256 of model.safetensors: DIGEST
- text: the Python documentation (PSF licence); weights: MIT
""",
    )


if __name__ == "__main__":
    main()
