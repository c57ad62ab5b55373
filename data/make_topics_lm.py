"""Train the small language model of lesson 02 on text that every Python carries, and write its card.

    python data/make_topics_lm.py        about two minutes on two CPU cores

Text: pydoc_data.topics (the Python language reference as shown by help()), every tenth topic held out. A Llama of
width 96 and 3 layers, byte-level BPE with 512 tokens. Writes data/teachers/topics_lm in the hub's layout.
"""

import hashlib
import os
import platform
import shutil
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pydoc_data.topics

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent / "teachers" / "topics_lm"
STEPS, BATCH, LENGTH, RATE = 800, 16, 128, 3e-3


def text():
    """(training text, held-out text): the topics in alphabetical order, every tenth held out."""
    topics = [pydoc_data.topics.topics[k] for k in sorted(pydoc_data.topics.topics)]
    return "\n\n".join(t for i, t in enumerate(topics) if i % 10), "\n\n".join(topics[::10])


def main():
    torch.manual_seed(0)
    train, held_out = text()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=["<s>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator([train], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>")
    ids, held = (torch.tensor(tokenizer.encode(t).ids) for t in (train, held_out))
    model = LlamaForCausalLM(LlamaConfig(vocab_size=512, hidden_size=96, intermediate_size=256, num_hidden_layers=3,
                                         num_attention_heads=6, max_position_embeddings=256, bos_token_id=0,
                                         eos_token_id=0, tie_word_embeddings=True))
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS, pct_start=0.05)
    for step in range(STEPS):
        at = torch.randint(len(ids) - LENGTH, (BATCH,))
        x = torch.stack([ids[i:i + LENGTH] for i in at])
        loss = model(x, labels=x).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step}: {loss.item():.3f} nats")
    model.eval()
    x = held[: len(held) // LENGTH * LENGTH].view(-1, LENGTH)
    with torch.no_grad():
        score = sum(model(part, labels=part).loss.item() * len(part) for part in x.split(32)) / len(x)
    shutil.rmtree(HERE, ignore_errors=True)
    model.save_pretrained(HERE)
    fast.save_pretrained(HERE)
    digest = hashlib.sha256((HERE / "model.safetensors").read_bytes()).hexdigest()
    (HERE / "README.md").write_text(f"""# topics_lm

A Llama of {model.num_parameters():,} parameters (width 96, 3 layers, 512 byte-level BPE tokens), trained on the
text of `pydoc_data.topics` from Python {platform.python_version()} (every tenth topic held out) by
`python data/make_topics_lm.py`.

- held-out loss: {score:.2f} nats a token (windows of {LENGTH} tokens)
- sha256 of model.safetensors: {digest}
- text: the Python documentation (PSF licence); weights: MIT
""")
    print(f"held out: {score:.3f} nats")


if __name__ == "__main__":
    main()
