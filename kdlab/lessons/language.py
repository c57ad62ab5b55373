"""Texts, a loop and measures that lessons 09 to 11 share with the benchmark of their curves."""

import ast
import copy
import math
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import kdlab as kd
from kdlab.base import arguments
from kdlab.base.lab import device, threads_for
from kdlab.base.repeats import fresh
from kdlab.base.wrapped import evaluating
from kdlab.data.docstrings import trees_kept
from kdlab.students.limits import positions

BATCH, WARM_UP = 8, 10  # rows a step, steps until the rate is whole
LENGTH = 64  # tokens of a window
PROMPT, GO_ON = 16, 32  # tokens: a beginning, and what is written after it


def fields(tokenizer: Any, data: str = "docstrings", count: int = 6) -> dict[str, dict]:
    """{field: {"train": (96, 64) ids, "validation": (64, 64), "test": (at most 128, 64)}}.

    A field's own texts are mixed before they are divided, the same way for every caller.

    >>> found = fields(kd.language_model("docs_lm")[1], count=1)
    >>> {part: len(rows) for part, rows in found["windows"].items()}
    {'train': 96, 'validation': 64, 'test': 128}
    """
    found = {}
    for name, texts in kd.text.small_texts(data, count).items():
        own, test = (kd.text.windows(tokenizer, texts[k], LENGTH) for k in ("train", "test"))
        own = _mixed(own)
        found[name] = _parts(own, test if fresh(0) == 0 else _mixed(test))
    return found


def batch(rows: Tensor, step: int, size: int = BATCH) -> Tensor:
    """The rows of a step, (size, L): all rows in a new order, then all again, by its number alone.

    Raises ValueError where there are fewer rows than a step takes.

    >>> torch.cat([batch(torch.arange(4), step, size=2) for step in (0, 1)]).sort()[0]
    tensor([0, 1, 2, 3])
    """
    if len(rows) < size:
        raise ValueError(f"batch: rows must hold at least {size}, a step's, got {len(rows)}")
    around, start = divmod(step * size, len(rows) // size * size)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(fresh(around)))
    return rows[order[start : start + size]]


def teach(
    base: nn.Module,
    loss: Callable[[nn.Module, int], Tensor],
    lr: float,
    marks: Iterable[int],
    measure: Callable[[nn.Module], Any],
) -> dict[int, Any]:
    """A copy of base, trained at a constant rate on loss(student, step); {mark: measure(student)}.

    AdamW without weight decay, the first ten steps below the rate, gradients clipped at norm 1.
    Without a cosine every mark is what a run of so many steps would have given. A mark is a number
    of steps taken. measure sees the student in eval mode. A base in half precision, in which small
    steps round away, is trained as float32.
    """
    marks, student, found = set(marks), copy.deepcopy(base).float().train(), {}
    optimiser = torch.optim.AdamW(student.parameters(), lr=lr, weight_decay=0.0)
    with threads_for(student):
        for step in range(max(marks) + 1):
            if step in marks:
                found[step] = measure(student.eval())
                student.train()
            if step == max(marks):
                break
            for group in optimiser.param_groups:
                group["lr"] = lr * min(1.0, (step + 1) / WARM_UP)
            optimiser.zero_grad()
            loss(student, step).backward()
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimiser.step()
    return found


def nats(model: nn.Module, rows: Tensor) -> float:
    """How badly a model predicts a text, in nats a token: rows (N, L) of ids."""
    return math.log(kd.perplexity(model, {"input_ids": rows, "labels": rows}))


def knows(teacher: nn.Module, base: nn.Module, fields: dict[str, dict]) -> bool:
    """Whether a teacher reads texts better than its student would after learning their labels.

    The first thing to measure on texts of one's own, and it is printed: nats a token on the first
    field's validation texts, of the teacher and of the student at the best of 20 and 50 steps on
    labels at two rates.
    """
    name, field = next(iter(fields.items()))

    def loss(student, step):
        ids = batch(field["train"], step)
        logits, labels = kd.next_token(student(ids).logits, ids)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    def unread(model):
        return nats(model, field["validation"])

    by_labels = min(
        least for lr in (1e-3, 3e-3) for least in teach(base, loss, lr, (20, 50), unread).values()
    )
    its = unread(teacher)
    told = f"{name}: the teacher reads it with {its:.2f} nats a token, the student after labels "
    told += f"with {by_labels:.2f}."
    if its < by_labels:
        print(told, "The teacher has something to teach.")
    else:
        print(
            told,
            "It does not know these texts, and holds the student back: what this lesson claims of "
            "a teacher that does is not to be expected. Train the teacher on them first, or name "
            "another by KDLAB_LM.",
        )
    return its < by_labels


def written(model: nn.Module, rows: Tensor, temperature: float = 1.0, seed: int = 0) -> dict:
    """What a model writes after the first PROMPT tokens of each row, GO_ON tokens, as a batch."""
    return kd.completions(
        model,
        rows[:, :PROMPT],
        GO_ON,
        temperature=temperature,
        eos=(),
        seed=fresh(seed),
        batch=len(rows),
    )


def bought(model: nn.Module, prompts: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """What a model answers to prompts (N, L), as a batch {"input_ids", "labels", …}.

    An answer stops at its end-of-text token, which is part of it, or after LENGTH − PROMPT tokens.
    labels: −100 on what was asked and on padding.
    """
    return kd.completions(
        model, prompts, LENGTH - PROMPT, seed=fresh(seed), batch=min(64, len(prompts))
    )


def expected(model: nn.Module, tokenizer: Any, text: str, top: int = 4) -> list[tuple]:
    """Each token of a text with what a model expected there: [(token, {word: probability})]."""
    ids, read = _read(tokenizer, text, next(model.parameters()).device)
    with evaluating(model):
        shares = model(read).logits[0, :-1].softmax(-1).cpu()
    found = []
    for token, row in zip(ids, shares, strict=True):
        words = {tokenizer.decode([i]): float(row[i]) for i in row.topk(top)[1].tolist()}
        found.append((tokenizer.decode([token]), words | {tokenizer.decode([token]): row[token]}))
    return found


def how_sure(
    model: nn.Module,
    tokenizer: Any,
    sentence: str,
    ks: Sequence[int] = (1, 5, 20, 100),
) -> dict[str, float]:
    """How much a model leaves open, a token of a sentence: {"entropy", "nats", "top 1", …}.

        entropy = mean of −Σ_v p(v) log p(v),   nats = mean of −log p(the token that came)

    Both in nats, over the sentence's L tokens, each after those before it, the first after the
    beginning of a text; p (L, V) = softmax of the logits there. Where a model is as right as it is
    sure, the two are alike over many texts. top k, for each k of ks: the mean share (%) of p on its
    k likeliest tokens, which is what a teacher's k kept log-probabilities hold.

    TypeError or ValueError for a sentence that is no text, holds no token or more than the model
    has positions for, and for a k outside [1, V]. Source: Shannon 1948, section 6 (entropy).

    >>> teacher, tokenizer = kd.language_model("docs_lm")
    >>> found = how_sure(teacher, tokenizer, "Return true if the object is a class")
    >>> {name: round(value, 1) for name, value in found.items()}
    {'entropy': 3.4, 'nats': 2.1, 'top 1': 29.6, 'top 5': 51.6, 'top 20': 72.7, 'top 100': 93.7}
    """
    sentence = arguments.text("how_sure", "sentence", sentence)
    ids, read = _read(tokenizer, sentence, next(model.parameters()).device)
    if not ids:
        raise ValueError(f"how_sure: sentence must hold at least one token, got {sentence!r}")
    most = positions(model)
    if most is not None and read.shape[1] > most:
        raise ValueError(
            f"how_sure: sentence must hold at most {most - 1} tokens, which with its beginning are "
            f"the model's positions, got {len(ids)}"
        )
    with evaluating(model):
        log_p = model(read).logits[0, :-1].float().log_softmax(-1)  # (L, V)
    ks = [
        arguments.whole("how_sure", "ks", k, least=1, most=log_p.shape[1])
        for k in arguments.listed("how_sure", "ks", ks, "a list of whole numbers")
    ]
    p = log_p.exp()
    mass = p.sort(descending=True)[0].cumsum(-1).mean(0)  # (V,): of the 1, 2, … likeliest
    return {
        "entropy": torch.special.entr(p).sum(-1).mean().item(),
        "nats": -log_p.gather(1, read[0, 1:, None]).mean().item(),
    } | {f"top {k}": 100 * mass[k - 1].item() for k in ks}


def _read(tokenizer, text, home):
    """A text's ids, and what a model reads of it: (1, L + 1) ids, its beginning first."""
    ids, start = tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.bos_token_id
    start = tokenizer.eos_token_id if start is None else start  # some, as Qwen's, have no other
    return ids, torch.tensor([[start, *ids]], device=home)


def sold(answer: Any, tokenizer: Any, top: int = 4) -> list[tuple]:
    """An API's answer for `kd.plots.tokens`: each token with what it tells: [(token, {word: p})].

    top: of the likeliest words that were told of each place, so many; the token that came beside.
    """

    def word(piece):
        return tokenizer.decode(kd.to_ids([piece], tokenizer))

    found = []
    for piece, log_p, likely in zip(answer.tokens, answer.log_probs, answer.top, strict=True):
        words = {word(other): math.exp(lp) for other, lp in list(likely.items())[:top]}
        found.append((word(piece), words | {word(piece): math.exp(log_p)}))
    return found


def shaded(teacher: nn.Module, tokenizer: Any, ids: Tensor) -> list[tuple]:
    """One written text, (L,), for `kd.plots.tokens`: the teacher's probability of each token.

    None for the beginning that was given, PROMPT tokens."""
    with evaluating(teacher):
        home = next(teacher.parameters()).device
        shares = teacher(ids[None].to(home)).logits[0, :-1].softmax(-1)
    found = shares.cpu().gather(-1, ids[1:, None].cpu())[:, 0].tolist()
    given = [None] * PROMPT + found[PROMPT - 1 :]
    return [(tokenizer.decode([token]), p) for token, p in zip(ids.tolist(), given, strict=True)]


def oddity(teacher: nn.Module, student: nn.Module, rows: Tensor, temperature: float = 1.0) -> tuple:
    """The teacher's nats a token of what a student writes after rows' beginnings, and that text."""
    text = written(student, rows, temperature)
    return math.log(kd.perplexity(teacher, text)), text["input_ids"][:, PROMPT:]


def measures(teacher: nn.Module, field: dict[str, Tensor], on: str = "test") -> Callable:
    """A function of a student → {"predicts", "writes", "distinct", …} on a field's unread texts.

    predicts: its nats a token. writes: the teacher's nats a token of what the student writes after
    32 beginnings. distinct: the share of different pairs of tokens in it (%). The last two also
    "at 0.8", the temperature at which it then writes.
    """

    def measure(student):
        found = {"predicts": nats(student, field[on])}
        for temperature, name in ((1.0, ""), (0.8, " at 0.8")):
            odd, text = oddity(teacher, student, field[on][:32], temperature)
            found |= {f"writes{name}": odd, f"distinct{name}": 100 * kd.distinct(text, 2)}
        return found

    return measure


def exposure(teacher: nn.Module, field: dict[str, Tensor], on: str = "test") -> Callable:
    """A function of a student → {"after the data's words", "after its own"}, in nats a token.

    How far it is from its teacher at the next token: KL(student ‖ teacher), a mean over the GO_ON
    tokens after 64 of the field's beginnings, as the data goes on or as the student does. After
    Arora and others 2022, who compare a model's errors behind its own words and behind the data's.
    """

    def apart(student, ids):
        labels = ids.clone()
        labels[:, :PROMPT] = -100
        with evaluating(student):
            logits, labels = kd.next_token(student(ids).logits, labels)
        with evaluating(teacher):
            its = teacher(ids).logits[:, :-1]
        return kd.reverse_kl(logits, its, mask=labels != -100).item()

    def measure(student):
        rows = field[on][:64]
        return {
            "after the data's words": apart(student, rows[:, : PROMPT + GO_ON]),
            "after its own": apart(student, written(student, rows, seed=1)["input_ids"]),
        }

    return measure


def source_code(tokenizer: Any, count: int = 6) -> dict[str, dict]:
    """As `fields`, of the same modules' source code without its docstrings and comments.

    docs_lm and docs_base have read what Python's authors say about their functions, and of the
    functions themselves next to nothing.
    """
    root, found = Path(sysconfig.get_paths()["stdlib"]), {}
    for name in list(kd.text.FIELDS)[:count]:
        modules = kd.text.FIELDS[name].split()
        files = [p for m in modules for p in (root / f"{m}.py", *sorted((root / m).rglob("*.py")))]
        with trees_kept():
            texts = [
                _functions(path.read_text(encoding="utf-8")) for path in files if path.is_file()
            ]
        rows = kd.text.windows(tokenizer, [text for text in texts if text], LENGTH)
        rows = _mixed(rows)
        found[name] = _parts(rows, rows[160:])
    return found


def _mixed(rows):
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(fresh(0)))]


def _parts(own, test):
    """What a field is divided into, where the models are."""
    parts = {"train": own[:96], "validation": own[96:160], "test": test[:128]}
    return {part: rows.to(device()) for part, rows in parts.items()}


def _functions(source):
    """The functions of a module as code alone: ast.unparse leaves comments out."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.parse(source).body if isinstance(node, (*kinds, ast.ClassDef))]
    for node in (inner for outer in found for inner in ast.walk(outer)):
        if isinstance(node, (*kinds, ast.ClassDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return "\n\n".join(map(ast.unparse, found))
