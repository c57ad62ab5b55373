"""Train the language models of lessons 09 and 11 on text that every Python carries, and write their
cards.

    python data/make_docs_lm.py        about ten minutes on two CPU cores

docs_lm, the teacher: a Llama of width 96 and 4 layers, which has read the language reference
(pydoc_data.topics) and the docstrings of the standard library, as `kdlab.data.text.docstrings`
gives them; byte-level BPE with 1,024 tokens. docs_base, the base student: width 48 and 2 layers,
which has read the language reference alone. One docstring in five (`kdlab.data.text.held_out`) and
every tenth topic are held out from both. Writes data/teachers in the hub's layout."""

import argparse
import platform
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import teaching  # before torch: it sets how torch's threads wait

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kdlab.data import text

VOCABULARY = 1024
SIZES = {"docs_lm": (96, 4, 2000), "docs_base": (48, 2, 700)}  # width, layers, steps


def texts():
    """{"topics", "docstrings": (training texts, held-out texts)}."""
    docs = text.plain_text("docstrings")
    return {"topics": teaching.topics(), "docstrings": (docs["train"], docs["test"])}


def ids(tokenizer, corpus):
    """The texts as one row of ids, each begun by "<s>"."""
    return torch.tensor([i for t in corpus for i in [0, *tokenizer(t)["input_ids"]]])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=teaching.TEACHERS)
    out, found = parser.parse_args().out, texts()
    tokenizer = teaching.byte_level(found["topics"][0] + found["docstrings"][0], VOCABULARY)
    read = {"docs_lm": found["topics"][0] + found["docstrings"][0], "docs_base": found["topics"][0]}
    for name, (width, layers, steps) in SIZES.items():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=width,
                intermediate_size=width * 8 // 3,
                num_hidden_layers=layers,
                num_attention_heads=4,
                max_position_embeddings=512,
                bos_token_id=0,
                eos_token_id=0,
                tie_word_embeddings=True,
            )
        )
        teaching.train(
            model,
            partial(teaching.drawn, ids(tokenizer, read[name])),
            steps,
            rate=3e-3,
            weight_decay=0.1,
        )
        scores = {k: teaching.nats(model, ids(tokenizer, part[1])) for k, part in found.items()}
        what = "the language reference" + (
            " and the library's docstrings" if name == "docs_lm" else ""
        )
        teaching.keep(
            out / name,
            model,
            tokenizer,
            f"""# {name}

A Llama of {model.num_parameters():,} parameters (width {width}, {layers} layers, \
{VOCABULARY:,} byte-level BPE tokens)
that has read {what} of Python {platform.python_version()}, trained by \
`python data/make_docs_lm.py`.
One docstring in five and every tenth topic are held out.

- held-out docstrings: {scores["docstrings"]:.2f} nats a token (windows of {teaching.LENGTH} tokens)
- held-out topics: {scores["topics"]:.2f} nats a token
- sha256 of model.safetensors: DIGEST
- text: the Python documentation and standard library (PSF licence); weights: MIT
""",
        )


if __name__ == "__main__":
    main()
