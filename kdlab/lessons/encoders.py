"""Texts, students and a step that lesson 08 shares with the benchmark of its curves."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import kdlab as kd
from kdlab.base.lab import device
from kdlab.base.repeats import fresh
from kdlab.base.wrapped import evaluating
from kdlab.lessons.language import batch
from kdlab.losses.encoders import Encoder, EncoderLoss

LENGTH, BATCH = 24, 16  # tokens of a text, texts of a step
OWN = 4000  # labelled texts for a teacher of other data
PARTS = ("query", "key", "value")


def classifier(name: str, data: str) -> tuple[nn.Module, Any]:
    """A teacher and its tokenizer; for other data than its own, with a new head, trained on them.

    Then 4,000 labelled texts of the data are needed."""
    teacher, tokenizer = kd.text_classifier(name)
    if data == "docstrings" and teacher.config.num_labels == len(kd.text.FIELDS):
        return teacher, tokenizer
    texts = kd.load_text(data, 99, (OWN, 0, 1))["train"]
    classes = len(texts.features["label"].names)
    teacher, _ = kd.text_classifier(name, num_labels=classes, ignore_mismatched_sizes=True)
    rows = encoded(tokenizer, texts)
    kd.fit(
        teacher,
        [{k: rows[k][i].cpu() for k in (*inputs(rows), "labels")} for i in range(len(texts))],
        objective=kd.HardLabels(),
        epochs=3,
        batch=32,
        lr=4e-4,
    )
    return teacher, tokenizer


def encoded(tokenizer: Any, part: Any) -> dict[str, Any]:
    """Texts with labels as one batch: input_ids and attention_mask (N, 24), labels (N,), texts.

    >>> _, tokenizer = kd.text_classifier("docs_bert")
    >>> rows = encoded(tokenizer, {"text": ["Parse the address."], "label": [1]})
    >>> rows["input_ids"].shape, rows["attention_mask"].sum().item() < 24
    (torch.Size([1, 24]), True)
    """
    texts = list(part["text"])
    cut = [" ".join(text.split()[:LENGTH]) for text in texts]
    found = tokenizer(cut, truncation=True, max_length=LENGTH, padding="max_length")
    rows = {k: torch.tensor(found[k], device=device()) for k in ("input_ids", "attention_mask")}
    return rows | {"labels": torch.tensor(part["label"], device=device()), "texts": texts}


def sample(tokenizer: Any, number: int, data: str = "docstrings", labels: int = 500) -> dict:
    """{"train", "test": 800 texts, "held": those after them}, each as `encoded`; "names" of fields.

    A repetition draws other texts to learn from; the test texts are those of every sample."""
    held = 300 if data == "docstrings" else 0
    texts = kd.load_text(data, seed=fresh(number), sizes=(labels, 0, 800 + held))
    rows = encoded(tokenizer, texts["test"])
    return {
        "train": encoded(tokenizer, texts["train"]),
        "test": {k: v[:800] for k, v in rows.items()},
        "held": {k: v[800:] for k, v in rows.items()},
        "names": texts["test"].features["label"].names,
    }


def inputs(rows: dict[str, Any]) -> dict[str, Tensor]:
    """What a model reads of `encoded` rows."""
    return {k: rows[k] for k in ("input_ids", "attention_mask")}


def answers(model: nn.Module, rows: dict[str, Any]) -> Tensor:
    """A model's logits on rows, (N, C), without dropout; its mode is left as it was."""
    with evaluating(model):
        return model(**inputs(rows)).logits


def accuracy(model: nn.Module, rows: dict[str, Any]) -> float:
    """The share of rows that a model answers rightly, in %, without dropout."""
    return 100 * (answers(model, rows).argmax(-1) == rows["labels"]).float().mean().item()


def narrow(
    teacher: nn.Module, seed: int, blocks: int | None = None, width: int | None = None
) -> nn.Module:
    """The teacher made smaller, with random weights drawn by the seed: half as deep and as wide.

    blocks, width: how deep and how wide it is instead; feed-forward layers keep their proportion.
    """
    config: Any = copy.deepcopy(teacher.config)
    width = config.hidden_size // 2 if width is None else width
    # DistilBERT's has another name
    inner = "intermediate_size" if hasattr(config, "intermediate_size") else "hidden_dim"
    setattr(config, inner, getattr(config, inner) * width // config.hidden_size)
    config.num_hidden_layers = config.num_hidden_layers // 2 if blocks is None else blocks
    config.hidden_size = width
    torch.manual_seed(fresh(seed))
    return type(teacher)(config).to(device())


class Pair(nn.Module):
    """A student and a loss on its layers whose projectors learn with it.

    Called as the student is. Gives, beside the logits, nothing: `lesson` reads the layers.
    """

    def __init__(self, student: nn.Module, hidden: EncoderLoss, teacher: nn.Module, seed: int = 0):
        super().__init__()
        hidden.prepare(student, teacher, seed=fresh(seed))
        self.student, self.hidden = student, hidden

    def forward(self, **batch):
        return self.student(**batch)


class Relating(EncoderLoss):
    """MiniLM's loss of two functions: queries to keys and values to values, in the last blocks.

    relate(a, b, mask, heads): (B, L, H) twice → log-probabilities (B, heads, L, L).
    apart(student, teacher, mask): two of these → one number a text, (B,).
    """

    def __init__(self, relate: Callable, apart: Callable) -> None:
        super().__init__()
        self.relate, self.apart = relate, apart

    def fit(self, student: Encoder, teacher: Encoder) -> list:
        """Queries, keys and values of both last blocks."""
        self.heads = teacher.heads
        return [[(part, -1) for part in PARTS]] * 2

    def rows(self, student: dict, teacher: dict, mask: Tensor) -> Tensor:
        """The loss a text, (B,)."""

        def related(side, a, b):
            return self.relate(side[a, -1], side[b, -1], mask, self.heads)

        pairs = (("query", "key"), ("value", "value"))
        found = [self.apart(related(student, *p), related(teacher, *p), mask) for p in pairs]
        return found[0] + found[1]


def lesson(
    rows: dict[str, Any],
    objective: Any,
    teacher: nn.Module | None = None,
    layers: EncoderLoss | None = None,
) -> Callable[[nn.Module, int], Tensor]:
    """A step's loss, for `kdlab.lessons.language.teach`: objective on 16 rows, and on layers.

    The teacher answers once for all rows. layers: that of the `Pair` which is taught; then the
    teacher's layers are kept too.
    """
    kept: dict[str, Tensor] = {}
    said = None
    if teacher is not None and layers is not None:
        with layers.collect(teacher, "teacher") as seen:
            said = answers(teacher, rows)
        kept = {name: layer.detach() for name, layer in seen.items()}
    elif teacher is not None:
        said = answers(teacher, rows)
    numbers = torch.arange(len(rows["labels"]))

    def loss(model, step):
        at = batch(numbers, step, BATCH).to(rows["labels"].device)
        longest = int(rows["attention_mask"][at].sum(-1).max())
        asked = {key: value[at, :longest] for key, value in inputs(rows).items()}
        its = None if said is None else said[at]
        given = {"labels": rows["labels"][at], "teacher_logits": its}
        if layers is None:
            return objective(student_logits=model(**asked).logits, **given)
        with model.hidden.collect(model.student, "student") as mine:
            logits = model(**asked).logits
        theirs = {name: layer[at, :longest] for name, layer in kept.items()}
        apart = model.hidden(mine, theirs, asked["attention_mask"]).mean()
        return objective(student_logits=logits, **given) + apart

    return loss


def epochs(rows: dict[str, Any], count: float) -> int:
    """The steps that so many epochs take."""
    return round(count * (len(rows["labels"]) // BATCH))


def rests_on(model: nn.Module, tokenizer: Any, text: str) -> tuple[list, Tensor]:
    """([(word, share)], the probabilities of all classes) for one text.

    The share is what the answer's probability loses when the word is left out; negative where it
    gains."""
    words = text.split()[:LENGTH]
    without = [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
    rows = encoded(tokenizer, {"text": [text, *without], "label": [0] * (len(words) + 1)})
    shares = answers(model, rows).softmax(-1).cpu()
    said = shares[0].argmax()
    lost = (shares[0, said] - shares[1:, said]).tolist()
    return list(zip(words, lost, strict=True)), shares[0]


def bag_of_words(train: dict[str, Any], test: dict[str, Any], tokenizer: Any) -> float:
    """The accuracy (%) of TF-IDF and ridge: no teacher, no order, the tokens that students see."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline

    def read(rows):
        return tokenizer.batch_decode(rows["input_ids"].tolist(), skip_special_tokens=True)

    model = make_pipeline(TfidfVectorizer(), RidgeClassifier())
    model.fit(read(train), train["labels"].tolist())
    return 100 * model.score(read(test), test["labels"].tolist())


def spaced(count: int, depth: int) -> Sequence[int]:
    """Which blocks to keep: evenly spaced from the first on.

    >>> [spaced(count, 4) for count in (4, 3, 2, 1)]
    [[0, 1, 2, 3], [0, 1, 2], [0, 2], [0]]
    """
    return [i * depth // count for i in range(count)]
