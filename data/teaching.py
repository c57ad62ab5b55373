"""What the scripts of data/ share: the language reference, a tokenizer, one training loop, a folder
with its card."""

import hashlib
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import kdlab  # noqa: F401  before torch: it sets how torch's threads wait

import pydoc_data.topics
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEACHERS = Path(__file__).parent / "teachers"
LENGTH = 128  # tokens of a window


def topics():
    """(training texts, held-out texts): the language reference in alphabetical order, every tenth
    topic held out."""
    found = [pydoc_data.topics.topics[k] for k in sorted(pydoc_data.topics.topics)]
    return [t for i, t in enumerate(found) if i % 10], found[::10]


def byte_level(corpus, size):
    """A byte-level BPE tokenizer of `size` tokens; "<s>" begins every text and so ends the one
    before."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=["<s>"],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>")


def drawn(row, count=16):
    """A batch of windows drawn from a row of ids, as a causal language model takes it."""
    x = torch.stack([row[i : i + LENGTH] for i in torch.randint(len(row) - LENGTH, (count,))])
    return {"input_ids": x, "labels": x}


def train(model, batch, steps, rate, warm_up=0.05, **options):
    """The model, in eval mode, after steps of AdamW on what batch() gives, up to `rate` and down;
    options: AdamW's."""
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=rate, **options)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=steps, pct_start=warm_up
    )
    for step in range(steps):
        loss = model(**batch()).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step}: {loss.item():.3f} nats", flush=True)
    return model.eval()


@torch.no_grad()
def nats(model, row):
    """Mean nats a token, in windows of LENGTH tokens."""
    x = row[: len(row) // LENGTH * LENGTH].view(-1, LENGTH)
    return sum(model(part, labels=part).loss.item() * len(part) for part in x.split(32)) / len(x)


def keep(folder, model, tokenizer, card):
    """Write a model in the hub's layout with its card, in which DIGEST stands for the sha256 of its
    weights."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    card = card.replace(
        "DIGEST", hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(card)
