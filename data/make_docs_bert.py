"""Train the encoder of lesson 08 on text that every Python carries, and write its card.

    python data/make_docs_bert.py        about five minutes on two CPU cores

docs_bert: a BERT of width 128 and 4 layers with 2,048 lower-case word pieces. First masked language
modelling (30 % of the tokens; Devlin et al. 2019) on the language reference and the standard
library's docstrings, then the question of `kdlab.load_text`: which of eight fields is a docstring
from? One docstring in five (`kdlab.data.text.held_out`) and every tenth topic are held out from
both. Writes data/teachers/docs_bert in the hub's layout."""

import argparse
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import teaching  # before torch: it sets how torch's threads wait

import torch
from tokenizers import BertWordPieceTokenizer
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizerFast,
    DataCollatorForLanguageModeling,
)

from kdlab.data import text

VOCABULARY, BATCH, LENGTH = 2048, 32, 64
MASKED, CLASSIFIED = (2000, 1e-3), (1100, 4e-4)  # steps, learning rate
ADAMW = {"warm_up": 0.1, "weight_decay": 0.01, "betas": (0.9, 0.98)}


def pieces(tokenizer, texts):
    """The texts in pieces of LENGTH tokens, each between [CLS] and [SEP]."""
    size, found = LENGTH - 2, []
    for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]:
        found += [
            [tokenizer.cls_token_id, *ids[i : i + size], tokenizer.sep_token_id]
            for i in range(0, len(ids), size)
            if len(ids[i : i + size]) > 3
        ]
    return found


def padded(rows):
    """Rows of ids as one batch: {"input_ids", "attention_mask"} (B, L); [PAD] is 0."""
    ids = pad_sequence([torch.tensor(r[:LENGTH]) for r in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


@torch.no_grad()
def accuracy(model, rows, labels):
    """Share of right answers, in per cent."""
    right = sum(
        (model(**padded(rows[i : i + 64])).logits.argmax(-1) == labels[i : i + 64]).sum().item()
        for i in range(0, len(rows), 64)
    )
    return 100 * right / len(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=teaching.TEACHERS)
    parser.add_argument(
        "--masked", type=int, default=MASKED[0], help="steps of masked language modelling"
    )
    options = parser.parse_args()
    corpus = teaching.topics()[0] + text.plain_text("docstrings")["train"]
    made = BertWordPieceTokenizer(lowercase=True)
    made.train_from_iterator(corpus, vocab_size=VOCABULARY, min_frequency=2, show_progress=False)
    tokenizer = BertTokenizerFast(tokenizer_object=made._tokenizer, model_max_length=128)
    torch.manual_seed(0)
    names = list(text.FIELDS)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=128,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(names)),
        label2id={k: i for i, k in enumerate(names)},
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3)
    rows = pieces(tokenizer, corpus)

    def masked():
        batch = padded([rows[i] for i in torch.randint(len(rows), (BATCH,))])
        ids, labels = collator.torch_mask_tokens(batch["input_ids"])
        return batch | {"input_ids": ids, "labels": labels}

    reader = BertForMaskedLM(config)
    if options.masked:
        teaching.train(reader, masked, options.masked, MASKED[1], **ADAMW)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.1
    model = BertForSequenceClassification(config)
    model.bert.load_state_dict(reader.bert.state_dict(), strict=False)
    known = text.load_text("docstrings", sizes=(4100, 300, 1100))
    docs = {
        k: (tokenizer(list(part["text"]))["input_ids"], torch.tensor(part["label"]))
        for k, part in known.items()
    }

    def labelled():
        at = torch.randint(len(docs["train"][0]), (BATCH,))
        return padded([docs["train"][0][i] for i in at]) | {"labels": docs["train"][1][at]}

    teaching.train(model, labelled, *CLASSIFIED, **ADAMW)
    print(f"validation {accuracy(model, *docs['validation']):.1f} %")
    score = accuracy(model, *docs["test"])
    teaching.keep(
        options.out / "docs_bert",
        model,
        tokenizer,
        f"""# docs_bert

A BERT of {model.num_parameters():,} parameters (width 128, 4 layers, {VOCABULARY:,} lower-case \
word pieces) that says
which of eight fields of the standard library a docstring is from. Trained by \
`python data/make_docs_bert.py`: masked
language modelling on the language reference and the docstrings of Python \
{platform.python_version()}, then 4,100
labelled docstrings. One docstring in five and every tenth topic are held out.

- held-out accuracy: {score:.1f} % (1,100 docstrings, the first {LENGTH} tokens of each)
- sha256 of model.safetensors: DIGEST
- text: the Python documentation and standard library (PSF licence); weights: MIT
""",
    )


if __name__ == "__main__":
    main()
