"""Questions, answers bought and small language models that learn to write them, for the last part
of lesson 11, shared with its benchmark."""

import random
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import transformers
from torch import nn

import kdlab as kd
from kdlab.base.lab import device
from kdlab.base.repeats import fresh
from kdlab.data import sums
from kdlab.lessons import language

SLIPS = 0.3  # of ten steps three are wrong
COUNT, VALIDATION, TEST = 2000, 300, 500  # questions of a split
BATCH, NEW = 32, 40  # texts a step, tokens that an answer may take
WIDTH, BLOCKS, HEADS = 64, 2, 4


# --- the questions, and what is bought ---


def bought(answers: int, seed: int = 0) -> tuple[list[str], list[list[str]], dict[str, str]]:
    """Every question, so many answers to each by someone who slips, and {question: its label}.

    >>> questions, answers, label = bought(2)
    >>> len(questions), answers[1234][1], label[questions[1234]]
    (10000, '1 + 2 ends in 3. 3 · 3 ends in 9. 9 + 4 ends in 3. The answer is 3.', '3')
    """
    x = torch.from_numpy(sums.pools()[0]["train"][0])
    told = sums.text(x)
    said = sums.slipping(x, SLIPS, answers, fresh(seed))
    return told["input"], said, dict(zip(told["input"], told["label"], strict=True))


def right(form: str = "steps, then the answer") -> list[tuple[str, str]]:
    """(question, what a student is to write) of every question, without a slip.

    form: "steps, then the answer", "the answer, then steps", or "the answer".

    >>> right("the answer, then steps")[1234][1]
    'The answer is 3. 1 + 2 ends in 3. 3 · 3 ends in 9. 9 + 4 ends in 3.'
    """
    told = sums.text(torch.from_numpy(sums.pools()[0]["train"][0]))
    found = []
    for question, rationale in zip(told["input"], told["rationale"], strict=True):
        steps, answer = rationale.split(" The ")
        written = {
            "steps, then the answer": rationale,
            "the answer, then steps": f"The {answer} {steps}",
            "the answer": f"The {answer}",
        }
        found.append((question, written[form]))
    return found


def split(questions: Sequence[str], number: int) -> dict[str, list[str]]:
    """{"train": 2,000 of the questions, "validation": 300, "test": 500}, others for each number.

    >>> {part: len(some) for part, some in split(bought(1)[0], 0).items()}
    {'train': 2000, 'validation': 300, 'test': 500}
    """
    mixed = random.Random(fresh(number)).sample(list(questions), COUNT + VALIDATION + TEST)
    held = COUNT + VALIDATION
    return {"train": mixed[:COUNT], "validation": mixed[COUNT:held], "test": mixed[held:]}


# --- students that write ---


def tokenizer() -> Any:
    """The words, digits and signs of these texts, a token each, 28 in all.

    >>> tokenizer().tokenize("The answer is 12.")
    ['The', 'answer', 'is', '1', '2', '.']
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    texts = " ".join(right()[i][j] for i in range(0, 10000, 1111) for j in (0, 1))
    words = sorted(set(re.findall(r"\d|[^\W\d]+|[^\w\s]", texts)))
    known = ["<s>", "<unk>", *words]
    cut = Tokenizer(models.WordLevel({w: i for i, w in enumerate(known)}, known[1]))
    cut.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<s>")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=cut, **special)


def student(tokenizer: Any, seed: int = 0) -> nn.Module:
    """A language model that knows nothing yet: two blocks, 64 wide.

    >>> student(tokenizer()).num_parameters()
    108608
    """
    torch.manual_seed(fresh(seed))
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        **ends,
    )
    return transformers.LlamaForCausalLM(config).to(device())


def taught(
    pairs: Iterable[tuple[str, str]],
    tokenizer: Any,
    lr: float,
    marks: Iterable[int],
    measure: Callable[[nn.Module], Any],
    seed: int = 0,
) -> dict[int, Any]:
    """A student that learns to write answers to questions, as text → {step: measure(student)}.

    pairs: (question, answer), answers of one form. Labels stand on the answer and its end. Raises
    ValueError for fewer than a step's 32 pairs, and for texts of several lengths.
    """
    texts = [{"prompt": question, "completion": f" {answer}"} for question, answer in pairs]
    rows = kd.to_rows(texts, tokenizer)
    lengths = sorted({len(row["input_ids"]) for row in rows})
    if len(lengths) > 1:
        raise ValueError(
            "taught: pairs must be of one form, so that all are as long, "
            f"got {lengths[0]} to {lengths[-1]} tokens"
        )
    ids, labels = (torch.stack([row[k] for row in rows]) for k in ("input_ids", "labels"))

    def loss(model, step):
        which = language.batch(torch.arange(len(ids)), step, BATCH)
        some, wanted = (rows[which].to(device()) for rows in (ids, labels))
        logits, wanted = kd.next_token(model(some).logits, wanted)
        return nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())

    return language.teach(student(tokenizer, seed), loss, lr, marks, measure)


def writes(model: nn.Module, tokenizer: Any, questions: Sequence[str], new: int = NEW) -> list[str]:
    """What a student answers, token by token the likeliest, at most `new` of them."""
    asked = tokenizer(list(questions))["input_ids"]
    found = kd.completions(model, asked, new, temperature=0, batch=len(asked))
    return [
        tokenizer.decode(ids[labels >= 0], skip_special_tokens=True)
        for ids, labels in zip(found["input_ids"], found["labels"], strict=True)
    ]


def answer(text: str) -> str | None:
    """What a text calls its answer, wherever it stands; None where it names none.

    >>> answer("The answer is 3. 1 + 2 ends in 3.")
    '3'
    """
    found = re.search(r"answer is (\d)", text)
    return found and found[1]


def right_of(
    model: nn.Module, tokenizer: Any, questions: Sequence[str], label: dict, new: int = NEW
) -> float:
    """How many per cent of the questions a student answers rightly.

    >>> words = tokenizer()
    >>> right_of(student(words), words, bought(1)[0][:10], bought(1)[2])
    0.0
    """
    named = [f"The answer is {label[q]}" for q in questions]
    found = kd.exact_match(writes(model, tokenizer, questions, new), named, extract=answer)
    return 100 * float(found.double().mean())
