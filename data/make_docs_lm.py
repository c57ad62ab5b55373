"""Train the language models of lessons 07 and 08 on text that every Python carries, and write their cards.

    python data/make_docs_lm.py        about ten minutes on two CPU cores

docs_lm, the teacher: a Llama of width 96 and 4 layers, which has read the language reference (pydoc_data.topics) and
the docstrings of the standard library, as `kdlab.text.docstrings` gives them; byte-level BPE with 1,024 tokens.
docs_base, the base student: width 48 and 2 layers, which has read the language reference alone. One docstring in five
(`kdlab.text.held_out`) and every tenth topic are held out from both. Writes data/teachers in the hub's layout.
"""

import argparse
import hashlib
import platform
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from kdlab import text  # before torch: it sets how torch's threads wait

import pydoc_data.topics
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEACHERS = Path(__file__).parent / "teachers"
VOCABULARY, BATCH, LENGTH, RATE = 1024, 16, 128, 3e-3
SIZES = {"docs_lm": (96, 4, 2000), "docs_base": (48, 2, 700)}  # width, layers, steps


def texts():
    """{"topics", "docstrings": (training texts, held-out texts)}."""
    topics = [pydoc_data.topics.topics[k] for k in sorted(pydoc_data.topics.topics)]
    docs = text.plain_text("docstrings")
    return {"topics": ([t for i, t in enumerate(topics) if i % 10], topics[::10]),
            "docstrings": (docs["train"], docs["test"])}


def make_tokenizer(corpus):
    """A byte-level BPE tokenizer; "<s>" begins every text and so ends the one before."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>")


def ids(tokenizer, corpus):
    """The texts as one row of ids, each begun by "<s>"."""
    return torch.tensor([i for t in corpus for i in [0, *tokenizer(t)["input_ids"]]])


@torch.no_grad()
def nats(model, row):
    """Mean nats a token, in windows of LENGTH tokens."""
    x = row[: len(row) // LENGTH * LENGTH].view(-1, LENGTH)
    return sum(model(part, labels=part).loss.item() * len(part) for part in x.split(32)) / len(x)


def train(row, width, layers, steps):
    """A Llama trained from scratch on windows drawn from a row of ids."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=width * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=4, max_position_embeddings=512, bos_token_id=0, eos_token_id=0, tie_word_embeddings=True))
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.05)
    for step in range(steps):
        x = torch.stack([row[i:i + LENGTH] for i in torch.randint(len(row) - LENGTH, (BATCH,))])
        loss = model(x, labels=x).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step}: {loss.item():.3f} nats", flush=True)
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=TEACHERS)
    out = parser.parse_args().out
    found = texts()
    tokenizer = make_tokenizer(found["topics"][0] + found["docstrings"][0])
    read = {"docs_lm": found["topics"][0] + found["docstrings"][0], "docs_base": found["topics"][0]}
    held = {name: ids(tokenizer, part[1]) for name, part in found.items()}
    for name, (width, layers, steps) in SIZES.items():
        model = train(ids(tokenizer, read[name]), width, layers, steps)
        scores = {k: nats(model, row) for k, row in held.items()}
        shutil.rmtree(out / name, ignore_errors=True)
        model.save_pretrained(out / name)
        tokenizer.save_pretrained(out / name)
        digest = hashlib.sha256((out / name / "model.safetensors").read_bytes()).hexdigest()
        what = "the language reference" + (" and the library's docstrings" if name == "docs_lm" else "")
        (out / name / "README.md").write_text(f"""# {name}

A Llama of {model.num_parameters():,} parameters (width {width}, {layers} layers, {VOCABULARY:,} byte-level BPE tokens)
that has read {what} of Python {platform.python_version()}, trained by `python data/make_docs_lm.py`.
One docstring in five and every tenth topic are held out.

- held-out docstrings: {scores["docstrings"]:.2f} nats a token (windows of {LENGTH} tokens)
- held-out topics: {scores["topics"]:.2f} nats a token
- sha256 of model.safetensors: {digest}
- text: the Python documentation and standard library (PSF licence); weights: MIT
""", encoding="utf-8")
        print(name, scores, flush=True)


if __name__ == "__main__":
    main()
