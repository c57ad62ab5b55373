"""What a teacher says of every learnt token, on disk once, joined to the rows by their ids.

Signals are rows of the teacher's k likeliest tokens (`kdlab.teachers.sparse.TopK`) or of k drawn
from it, one for each token of a text that is learnt, in a cache. A teacher that one can run fills
it, or the answers of one behind an API. `kdlab.teachers.signals_taught` teaches them.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdlab.base.arguments import instance, listed, number, text, whole
from kdlab.base.wrapped import evaluating
from kdlab.data.rows import Collator
from kdlab.losses.divergences import FLOOR, log_softmax
from kdlab.students.limits import positions
from kdlab.teachers.api import Answer, to_ids, to_top_k
from kdlab.teachers.cache import Cache, build, fingerprint_model, fingerprint_tensors
from kdlab.teachers.cache_files import digest
from kdlab.teachers.sparse import TopK, counted, sample, top_k

SHORT = 2**16  # a vocabulary up to here: an id takes two bytes


def from_teacher(
    path: str | os.PathLike,
    teacher: nn.Module,
    rows: Iterable,
    k: int = 20,
    temperature: float = 1.0,
    id: str = "id",
    label: str = "labels",
    batch: int = 8,
    shard: int = 1024,
    sampled: bool = False,
    seed: int = 0,
) -> Cache:
    """Run a language model over texts once, and keep its k likeliest tokens of each learnt place.

    path: a new directory, or one where the same was begun. rows: dictionaries or a
    `datasets.Dataset`, {id: a string or number of its own, "input_ids": L ids, label: L ids, −100
    where nothing is learnt}; where no label is there, or all are −100, every token but the first
    has a signal. batch: texts that the teacher reads at a time. Log-probabilities are those of
    softmax(logits / temperature), in half precision: 4 k + 6 bytes a token for a vocabulary of up
    to 65,536, else 6 k + 6. → `Cache`, for a `SignalCollator`. Errors as of
    `kdlab.teachers.cache.build`: other rows, another teacher, k or temperature are not mixed up.
    Several processes that call it share the work.

    sampled: k tokens drawn with replacement from the teacher instead, each kept once with its share
    of the draws. On average over draws the forward KL then teaches what the whole vocabulary would,
    as the k likeliest do not; `TopKLoss` takes no other divergence with them. seed: a row's draws
    depend on it and on the row's id alone, not on the batch (but for the rounding of the teacher's
    numbers there). Source: Anshumann et al. 2025, arXiv:2503.16870.

    >>> import tempfile
    >>> from kdlab import language_model
    >>> teacher, tokenizer = language_model("docs_lm")
    >>> rows = [{"id": "a", "input_ids": tokenizer("Return the number")["input_ids"]}]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     signals = from_teacher(folder, teacher, rows, k=5)
    ...     signals[["a"]]["log_probs"][0].shape
    torch.Size([2, 5])
    """
    name = "from_teacher"
    instance(name, "teacher", teacher, nn.Module, "a language model")
    text(name, "id", id)
    text(name, "label", label)
    whole(name, "batch", batch, least=1)
    temperature = float(number(name, "temperature", temperature, above=0))
    found = _texts(name, teacher, rows, id, label)
    texts = {str(i): torch.cat(parts) for i, parts in enumerate(found.values())}
    instance(name, "sampled", sampled, bool)
    # caches of the k likeliest are as they were before there were draws
    drawn = {"kind": "draws from a teacher", "sampled": True, "seed": whole(name, "seed", seed)}
    about = {
        "kind": "top k of a teacher",
        "teacher": fingerprint_model(teacher),
        "rows": fingerprint_tensors(texts),
        "k": whole(name, "k", k, least=1),
        "temperature": temperature,
    } | (drawn if sampled else {})

    def keep(key, logits):
        if sampled:
            return _drawn(logits, k, temperature, [seed, key])
        return top_k(logits, k, temperature)

    return build(path, list(found), _asking(teacher, found, batch, keep), about, shard)


def from_answers(
    path: str | os.PathLike,
    answers: Mapping[str | int, Answer],
    tokenizer: Any,
    shard: int = 1024,
) -> Cache:
    """Keep what a teacher behind an API told of the tokens of its answers.

    answers: {id: an `Answer` of `APITeacher` with its top log-probabilities}. tokenizer: the
    student's, with the teacher's vocabulary (`kdlab.to_ids`). Where an answer came to its end and
    the server does not list the token that ended it, that is kept too, as certain. An answer that
    was refused, or is empty, is an error: leave it out. The rest as `from_teacher`; the rows beside
    it are those of `answered`.

    >>> import tempfile
    >>> from tokenizers import Tokenizer, models
    >>> from transformers import PreTrainedTokenizerFast
    >>> words = Tokenizer(models.WordLevel({"no": 0, "yes": 1, "?": 2, ".": 3}))
    >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=".")
    >>> answer = Answer("yes", ["yes"], [-0.1], [{"yes": -0.1, "no": -2.5}], "stop")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     signals = from_answers(folder, {"a": answer}, tokenizer)
    ...     signals[["a"]]["tokens"]
    [tensor([1, 3], dtype=torch.int32)]
    """
    name = "from_answers"
    instance(name, "answers", answers, Mapping, "a dictionary {id: Answer}")
    if not answers:
        raise ValueError(f"{name}: answers must hold at least one, got none")
    for key, answer in answers.items():
        instance(name, f"answers[{key!r}]", answer, Answer, "an Answer of APITeacher")
        if not answer.top:
            raise ValueError(
                f"{name}: answers[{key!r}] must hold log-probabilities, got none: it is "
                f"{answer.text!r:.40} and ended by {answer.finish!r}; ask with top_logprobs=20, "
                "and leave out what was refused"
            )
    few = min((len(row) for answer in answers.values() for row in answer.top), default=1)
    about = {
        "kind": "top k of answers",
        "answers": hashlib.sha256(
            json.dumps([[a.tokens, a.top, a.finish] for a in answers.values()]).encode()
        ).hexdigest()[:16],
        "k": few,
        "temperature": 1.0,
    }

    width = max(tokenizer.get_vocab().values()) + 1

    def produce(ids):
        return _stored([_told(answers[key], tokenizer, few) for key in ids], width)

    return build(path, list(answers), produce, about, shard)


def answered(
    prompts: Mapping[str | int, Any],
    answers: Mapping[str | int, Answer],
    tokenizer: Any,
    id: str = "id",
) -> list[dict[str, Any]]:
    """Prompts and the answers to them as rows to train on, {id, "input_ids", "labels"}.

    prompts: {id: a text, or its ids}, as the teacher read them: a conversation by
    `tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)`.
    answers: {id: Answer}, of the same ids. The answer's own tokens are learnt, not those of its
    text cut anew, and the end of text where it came to its end.

    >>> from kdlab import language_model
    >>> _, tokenizer = language_model("docs_lm")
    >>> answer = Answer(" the", ["Ġthe"], [-0.1], [{"Ġthe": -0.1}], "stop")
    >>> row, = answered({7: "Return"}, {7: answer}, tokenizer)
    >>> row["id"], tokenizer.decode(row["input_ids"])
    (7, 'Return the<s>')
    """
    for key, value in (("prompts", prompts), ("answers", answers)):
        instance("answered", key, value, Mapping, "a dictionary by id")
    if lacking := [key for key in answers if key not in prompts]:
        raise ValueError(f"answered: prompts must hold every id of answers, got none of {lacking}")
    rows = []
    for key, answer in answers.items():
        instance("answered", f"answers[{key!r}]", answer, Answer, "an Answer of APITeacher")
        prompt = prompts[key]
        start = tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else list(prompt)
        said = _said(answer, tokenizer).tolist()
        rows.append({id: key, "input_ids": [*start, *said], "labels": [-100] * len(start) + said})
    return rows


def packed(kept: TopK) -> Tensor:
    """A teacher's k tokens of a row as one tensor of whole numbers, (..., 2 k + 1).

    Ids, then log-probabilities and the tail, the bits of float32 as they are: what casts a batch to
    half precision leaves whole numbers alone.

    >>> kept = top_k(torch.tensor([[2.0, 1.0, 0.0]]), 2)
    >>> torch.equal(unpacked(packed(kept)).log_probs, kept.log_probs)
    True
    """
    numbers = torch.cat([kept.log_probs, kept.tail[..., None]], -1).float()
    return torch.cat([kept.indices.int(), numbers.contiguous().view(torch.int32)], -1)


def unpacked(numbers: Tensor, temperature: float = 1.0, sampled: bool = False) -> TopK:
    """The inverse of `packed`; temperature and sampled are those of the signals."""
    k = numbers.shape[-1] // 2
    log_p = numbers[..., k:].contiguous().view(torch.float32)
    return TopK(numbers[..., :k], log_p[..., :-1], log_p[..., -1], temperature, sampled)


def read_rows(
    name: str, rows: Iterable, id: str, label: str
) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """(id, ids (L,), which are learnt (L,)) of each row; from its second token on they count."""
    for i, row in enumerate(rows):
        if not hasattr(row, "keys") or id not in row or "input_ids" not in row:
            came = sorted(row) if hasattr(row, "keys") else type(row).__name__
            raise ValueError(
                f"{name}: rows must hold {id!r} and 'input_ids', got {came} in row {i}"
            )
        ids = torch.as_tensor(row["input_ids"]).long()
        labels = row.get(label)
        labels = ids if labels is None else torch.as_tensor(labels)
        if ids.ndim != 1 or labels.shape != ids.shape or len(ids) < 2:
            raise ValueError(
                f"{name}: rows must hold a text of two tokens or more and a label for each, got "
                f"{tuple(ids.shape)} ids and {tuple(labels.shape)} labels in row {i}"
            )
        learnt = labels != -100
        learnt = learnt if learnt.any() else torch.ones_like(learnt)
        yield row[id], ids, learnt


def _drawn(logits, k, temperature, source):
    """k draws a row (n, V) as a `TopK`; the same for the same source, a JSON value."""
    if k > (V := logits.shape[-1]):
        raise ValueError(f"from_teacher: k must be a whole number from 1 to V = {V}, got {k}")
    generator = torch.Generator(logits.device).manual_seed(int(digest(source)[:15], 16))
    return counted(sample(logits, k, temperature, generator=generator), V)


def _texts(name, teacher, rows, id, label):
    """{id: (ids (L,), which are learnt (L,))} of all rows, which the teacher can read."""
    rows = listed(name, "rows", rows, "dictionaries, a row each")
    if not rows:
        raise ValueError(f"{name}: rows must hold at least one text, got none")
    found = {key: (ids, learnt) for key, ids, learnt in read_rows(name, rows, id, label)}
    if len(found) < len(rows):
        raise ValueError(f"{name}: rows must have ids of their own, got one twice in {id!r}")
    longest = max(len(ids) for ids, _ in found.values())
    if (room := positions(teacher)) is not None and longest > room:
        raise ValueError(
            f"{name}: rows must fit the teacher's {room} positions, got a text of {longest} tokens"
        )
    return found


def _asking(teacher, found, batch, keep):
    """What a cache is filled with: ids → what keep(id, logits) leaves of the teacher's answers."""
    home = next(teacher.parameters()).device

    def produce(ids):
        said = []
        with evaluating(teacher):
            for first in range(0, len(ids), batch):
                keys = ids[first : first + batch]
                some = [found[key] for key in keys]
                asked = Collator(side="right")([{"input_ids": x} for x, _ in some])
                answer = teacher(**{key: x.to(home) for key, x in asked.items()}).logits
                for key, (x, learnt), logits in zip(keys, some, answer, strict=True):
                    learning = logits[: len(x) - 1][learnt[1:].to(home)]
                    said.append((x[1:][learnt[1:]], keep(key, learning)))
        return _stored(said, answer.shape[-1])

    return produce


def _stored(said, width):
    """[(tokens, TopK)], one a text, as the cache keeps them: ragged, in half precision."""
    kind = torch.uint16 if width <= SHORT else torch.int32
    return {
        "tokens": [tokens.int() for tokens, _ in said],
        "indices": [kept.indices.cpu().to(kind) for _, kept in said],
        "log_probs": [kept.log_probs.cpu().half() for _, kept in said],
        "tail": [kept.tail.cpu().half() for _, kept in said],
    }


def restored(one: Mapping[str, Tensor], temperature: float, sampled: bool = False) -> TopK:
    """A text's rows in the cache as a `TopK` (n, k), of sum 1 again: half precision rounds."""
    log_p = torch.cat([one["log_probs"], one["tail"][:, None]], -1).float().clamp_min(FLOOR)
    log_p = log_softmax(log_p)
    return TopK(one["indices"].int(), log_p[:, :-1], log_p[:, -1], temperature, sampled)


def _said(answer, tokenizer):
    """The ids of an answer, with the end of text where it came to its end."""
    ids = to_ids(answer.tokens, tokenizer)
    if answer.finish != "stop":
        return ids
    if (end := getattr(tokenizer, "eos_token_id", None)) is None:
        raise ValueError("answered: tokenizer must have an end of text (eos_token), got none")
    # some servers list the token that ended it, most do not
    return ids if len(ids) and ids[-1] == end else torch.cat([ids, ids.new_tensor([end])])


def _told(answer, tokenizer, k):
    """(tokens, TopK) of an answer; an end that the server did not list is certain."""
    tokens, (indices, log_probs, tail) = _said(answer, tokenizer), to_top_k(answer, tokenizer)
    tail = torch.cat([log_probs[:, k:], tail[:, None]], -1).logsumexp(-1)
    indices, log_probs = indices[:, :k], log_probs[:, :k]
    if len(tokens) > len(indices):
        end = int(tokens[-1])
        others = [i for i in range(k) if i != end][: k - 1]  # any, as their probability is 0
        indices = torch.cat([indices, torch.tensor([[end, *others]])])
        log_probs = torch.cat([log_probs, torch.tensor([[0.0] + [FLOOR] * (k - 1)])])
        tail = torch.cat([tail, torch.tensor([FLOOR])])
    return tokens, TopK(indices, log_probs, tail)
