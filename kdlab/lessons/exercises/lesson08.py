"""Lesson 08: the blocks of a student, and MiniLM's relations with their divergence."""

import copy

import torch
from torch import nn

from kdlab.lessons.exercises import Exercise, Question

# --- 08.1 cut ---


def cut(teacher, blocks):
    """A copy of the teacher with these of its blocks alone, ready to be read."""
    student = copy.deepcopy(teacher)
    base = student.base_model
    encoder = base.encoder if hasattr(base, "encoder") else base.transformer  # DistilBERT's
    encoder.layer = nn.ModuleList(encoder.layer[i] for i in blocks)
    student.config.num_hidden_layers = len(blocks)
    return student.eval()


def _tiny():
    """A classifier as the lesson's, with four blocks."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes = dict(hidden_size=8, intermediate_size=8, num_attention_heads=2, num_hidden_layers=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertForSequenceClassification(BertConfig(vocab_size=16, num_labels=3, **sizes))


def _first(module):
    return next(module.parameters()).detach()


def _same(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=False)
    return all(x.shape == y.shape and torch.equal(x, y) for x, y in pairs)


def _origin(blocks, originals):
    """Of each block, the number of the teacher's that it equals, or None."""
    return [next((i for i, o in enumerate(originals) if _same(b, o)), None) for b in blocks]


def _which(found, asked):
    """What is wrong with the blocks that were taken, as numbers."""
    if None in found:
        return "a block has new weights: it must be a copy of the teacher's"
    if len(found) != len(asked):
        return f"the student has {len(found)} blocks, {len(asked)} were asked for"
    if found == asked:
        return ""
    if found == asked[::-1]:
        return "the blocks are in the wrong order: the first of `blocks` reads first"
    if found == [0, 1]:
        return "the first blocks were taken, whatever `blocks` says"
    if found == [2, 3]:
        return "the last blocks were taken, whatever `blocks` says"
    if len(set(found)) == 1:
        return "one block stands there twice"
    if found == [i - 1 for i in asked]:
        return "blocks count from 0: block 1 is the second one"
    return f"blocks {found} were taken, {asked} were asked for"


def _cut(attempt):
    teacher, asked = _tiny().train(), [1, 3]
    before = copy.deepcopy(teacher)
    found = attempt(teacher, asked)
    if not isinstance(found, nn.Module):
        return f"expected a model, got {type(found).__name__}"
    if len(teacher.base_model.encoder.layer) != 4:
        return "the teacher lost its blocks: cut a copy, copy.deepcopy(teacher)"
    if not _same(teacher, before) or teacher.config.num_hidden_layers != 4:
        return "the teacher has changed: work on a copy of it, its config too"
    mine = {p.data_ptr() for p in found.parameters()}
    if mine & {p.data_ptr() for p in teacher.parameters()}:
        return "student and teacher share weights: training the one would change the other"
    if not hasattr(found, "classifier"):
        return "its head is missing: the whole classifier is copied, not the encoder alone"
    if wrong := _which(_origin(found.base_model.encoder.layer, before.bert.encoder.layer), asked):
        return wrong
    if not _same(found.base_model.embeddings, before.bert.embeddings):
        return "the embeddings have new weights: copy the teacher's"
    if not (
        _same(found.classifier, before.classifier) and _same(found.bert.pooler, before.bert.pooler)
    ):
        return "the head has new weights: copy the teacher's pooler and classifier"
    if found.config.num_hidden_layers != 2:
        return f"its config still says {found.config.num_hidden_layers} blocks: num_hidden_layers"
    if not all(p.requires_grad for p in found.parameters()):
        return "some of its weights can't learn: leave requires_grad alone"
    if found.training:
        return "it is in train mode and would be read with dropout: end with .eval()"
    return ""


# --- 08.2 relate ---


def relate(a, b, mask, heads):
    """Which token relates to which: log-softmax of A Bᵀ / √d a head, (B, heads, L, L)."""
    a, b = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (a, b))
    scores = a @ b.mT / a.shape[-1] ** 0.5
    return scores.masked_fill(~mask.bool()[:, None, None], -1e9).log_softmax(-1)


MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])


def _tokens(width=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(2, 5, width, generator=draw) for _ in range(2)]


def _heads(x, heads=2):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _log(scores, mask=MASK, dim=-1):
    return scores.masked_fill(~mask.bool()[:, None, None], -1e9).log_softmax(dim)


def _variants():
    """{what is wrong: what it gives}."""
    a, b = _tokens()
    p, q = _heads(a), _heads(b)
    scores = p @ q.mT
    split = [x.reshape(2, 2, 5, 3) for x in (a, b)]
    rows = scores.masked_fill(~MASK.bool()[:, None, :, None], -1e9)
    return {
        "padding takes part: mask the tokens that are related to": (scores / 3**0.5).log_softmax(
            -1
        ),
        "the mask lies on the tokens that relate (rows); it belongs on those they relate to": (
            rows / 3**0.5
        ).log_softmax(-1),
        "divide the scores by √d first": _log(scores),
        "the root is missing: divide by √d, not by d": _log(scores / 3),
        "d is the width of one head, not of all": _log(scores / 6**0.5),
        "multiplied by √d: divide": _log(scores * 3**0.5),
        "heads cut the width, not the tokens: unflatten(-1, (heads, -1)), then transpose(1, 2)": (
            _log(split[0] @ split[1].mT / 3**0.5)
        ),
        "these are probabilities: give their logarithms, log_softmax": _log(scores / 3**0.5).exp(),
        "these are scores: the log-softmax over the last axis is missing": scores / 3**0.5,
        "softmax over the wrong axis: each row, the last axis, adds up to 1": _log(
            scores / 3**0.5, dim=-2
        ),
        "a and b are swapped: rows belong to a": _log(q @ p.mT / 3**0.5),
        "b is not used: that is a with itself": _log(p @ p.mT / 3**0.5),
        "a is not used: that is b with itself": _log(q @ q.mT / 3**0.5),
    }


def _close(found, right):
    """Equal where a token is related to a real one, and for real rows."""
    real = (MASK[:, None, :, None] * MASK[:, None, None]).bool().expand_as(right)
    return torch.allclose(found[real].float(), right[real], atol=1e-4)


def _relate(attempt):
    a, b = (x.requires_grad_() for x in _tokens())
    found, right = attempt(a, b, MASK, 2), relate(a, b, MASK, 2)
    if not torch.is_tensor(found):
        return f"expected a tensor, got {type(found).__name__}"
    if found.shape != right.shape:
        return f"expected (B, heads, L, L) = (2, 2, 5, 5), got {tuple(found.shape)}"
    if torch.isinf(found.detach()).any():
        return "−inf stands there, and 0 · −inf in a KL is NaN: fill with −1e9"
    if torch.isnan(found.detach()).any():
        return "NaN stands there"
    for sentence, wrong in _variants().items():
        if torch.allclose(found.detach(), wrong, atol=1e-4):
            return sentence
    if not _close(found.detach(), right):
        one, other = right[0, 0, 0, 1], found[0, 0, 0, 1]
        return f"expected {one:.4f} for the first two tokens, got {other:.4f}"
    if found[1, 0, 0, 2:].exp().max() > 1e-6:
        return "padding takes part: its probability must be 0"
    if not found.requires_grad:
        return "no gradient: the student learns nothing from it"
    return (
        "" if _close(attempt(a, b, MASK.bool(), 2), right) else "wrong for a mask of True and False"
    )


# --- 08.3 relation_kl ---


def relation_kl(student, teacher, mask):
    """KL(teacher ‖ student) of log-probabilities, a mean over heads and real tokens: (B,)."""
    apart = (teacher.exp() * (teacher - student)).sum(-1)
    real = mask[:, None].expand_as(apart)
    return (apart * real).sum((1, 2)) / real.sum((1, 2))


def _relations():
    student, teacher = (relate(*_tokens(seed=seed), MASK, 2) for seed in (1, 2))
    return student.requires_grad_(), teacher


def _mean(rows):
    """Over heads and real tokens, a text."""
    real = MASK[:, None].expand_as(rows)
    return (rows * real).sum((1, 2)) / real.sum((1, 2))


def _relation_slips(q, t, right):
    """{what is wrong: the values that it gives}; q, t: the student's and teacher's logarithms."""
    rows = (t.exp() * (t - q)).sum(-1)
    square = (t.exp() - q.exp()).square()
    return {
        "swapped: the teacher's probabilities weigh, KL(teacher ‖ student)": _mean(
            (q.exp() * (q - t)).sum(-1)
        ),
        "that is the cross-entropy, which is not 0 where both agree; subtract the teacher's": _mean(
            -(t.exp() * q).sum(-1)
        ),
        "the sign is turned: this would drive them apart": -right,
        "padded tokens count in the mean: leave their rows out": rows.mean((1, 2)),
        "padded rows are left out of the sum but counted in the mean": (
            (rows * MASK[:, None]).sum((1, 2)) / (2 * 5)
        ),
        "a sum over the tokens: take the mean": (rows * MASK[:, None]).sum((1, 2)) / 2,
        "a sum over the heads: take the mean": _mean(rows) * 2,
        "a sum over heads and tokens: take the mean": (rows * MASK[:, None]).sum((1, 2)),
        "a mean over the last axis: a KL is a sum there": right / 5,
        "the weights are logarithms: teacher.exp()": _mean((t * (t - q)).sum(-1)),
        "squared differences of probabilities: a KL is asked for": _mean(square.sum(-1)),
    }


def _relation_kl(attempt):
    s, t = _relations()
    found, right = attempt(s, t, MASK), relation_kl(s, t, MASK).detach()
    if not torch.is_tensor(found):
        return f"expected a tensor, got {type(found).__name__}"
    if found.numel() == 1:
        return "one number for the whole batch: give one a text, (B,)"
    if found.shape != (2,):
        return f"expected one number a text, shape (2,), got {tuple(found.shape)}"
    if not found.isfinite().all():
        return "not finite"
    for sentence, wrong in _relation_slips(s.detach(), t, right).items():
        if torch.allclose(found.detach(), wrong, rtol=1e-4):
            return sentence
    if not torch.allclose(found.detach(), right, rtol=1e-4):
        return f"expected {right[0]:.4f} for the first text, got {found[0]:.4f}"
    if not found.requires_grad:
        return "no gradient: the student learns nothing from it"
    if not torch.allclose(attempt(s, t, MASK.bool()), right, rtol=1e-4):
        return "wrong for a mask of True and False"
    return ""


# --- wrong answers, for the tests ---


def _with(change):
    """The right student with one thing changed."""

    def attempt(teacher, blocks):
        student = cut(teacher, blocks)
        return change(student, teacher) or student

    return attempt


def _taking(choose):
    def attempt(teacher, blocks):
        return cut(teacher, choose(blocks))

    return attempt


def _in_place(teacher, blocks):
    teacher.base_model.encoder.layer = nn.ModuleList(
        teacher.base_model.encoder.layer[i] for i in blocks
    )
    return teacher.eval()


def _shared(teacher, blocks):
    student = cut(teacher, blocks)
    student.classifier = teacher.classifier
    return student


def _new(name):
    """A part drawn anew."""

    def change(student, teacher):
        part = student.get_submodule(name)
        for weights in part.parameters():
            weights.data = torch.randn_like(weights)

    return change


def _old_config(student, teacher):
    student.config.num_hidden_layers = 4


def _teacher_s_config(student, teacher):
    teacher.config.num_hidden_layers = 2


def _frozen(student, teacher):
    student.base_model.embeddings.requires_grad_(False)


def _gives(sentence):
    """An attempt at 08.2 that errs as `_variants` says."""
    index = next(i for i, told in enumerate(_variants()) if sentence in told)

    def attempt(a, b, mask, heads):
        return list(_variants().values())[index]

    return attempt


def _kl(rows=lambda s, t: (t.exp() * (t - s)).sum(-1), mean=_mean):
    return lambda s, t, mask: mean(rows(s, t))


EXERCISES = (
    Exercise(
        "08.1",
        _cut,
        (
            "student = copy.deepcopy(teacher); its blocks are student.base_model.encoder.layer, "
            "a list that you may replace by nn.ModuleList(…).",
            "Set student.config.num_hidden_layers too, and give back student.eval().",
        ),
        cut,
        {
            "lost its blocks": _in_place,
            "share weights": _shared,
            "teacher has changed": _with(_teacher_s_config),
            "first blocks": _taking(lambda blocks: range(len(blocks))),
            "last blocks": _taking(lambda blocks: [-2, -1]),
            "wrong order": _taking(lambda blocks: blocks[::-1]),
            "twice": _taking(lambda blocks: [blocks[0]] * 2),
            "count from 0": _taking(lambda blocks: [i - 1 for i in blocks]),
            "4 blocks": _taking(lambda blocks: range(4)),
            "a block has new weights": _with(_new("bert.encoder.layer.1")),
            "embeddings have new": _with(_new("bert.embeddings")),
            "head has new": _with(_new("classifier")),
            "head is missing": lambda teacher, blocks: cut(teacher, blocks).bert,
            "config still says": _with(_old_config),
            "can't learn": _with(_frozen),
            "train mode": _with(lambda student, teacher: student.train()),
            "got list": lambda teacher, blocks: [teacher.bert.encoder.layer[i] for i in blocks],
        },
    ),
    Exercise(
        "08.2",
        _relate,
        (
            "x.unflatten(-1, (heads, -1)).transpose(1, 2) is (B, heads, L, d); scores are "
            "a @ b.mT / d ** 0.5.",
            "scores.masked_fill(mask[:, None, None] == 0, -1e9), then log_softmax(-1).",
        ),
        relate,
        {
            "padding takes part": _gives("padding takes part"),
            "belongs on those": _gives("belongs on those"),
            "divide the scores": _gives("divide the scores"),
            "root is missing": _gives("root is missing"),
            "width of one head": _gives("width of one head"),
            "multiplied": _gives("multiplied"),
            "not the tokens": _gives("not the tokens"),
            "probabilities": _gives("probabilities"),
            "these are scores": _gives("these are scores"),
            "wrong axis": _gives("wrong axis"),
            "swapped": _gives("swapped"),
            "a with itself": _gives("a with itself"),
            "b with itself": _gives("b with itself"),
            "−inf": lambda a, b, mask, heads: (
                (_heads(a) @ _heads(b).mT / 3**0.5)
                .masked_fill(~mask.bool()[:, None, None], -torch.inf)
                .log_softmax(-1)
            ),
            "expected (B, heads": lambda a, b, mask, heads: (a @ b.mT).log_softmax(-1),
            "no gradient": lambda a, b, mask, heads: relate(a, b, mask, heads).detach(),
            "got int": lambda a, b, mask, heads: 0,
        },
    ),
    Exercise(
        "08.3",
        _relation_kl,
        (
            "(teacher.exp() * (teacher - student)).sum(-1) is a KL for each head and token.",
            "Multiply by the mask, (B, 1, L), add up over heads and tokens, and divide by how many "
            "of them counted.",
        ),
        relation_kl,
        {
            "swapped": _kl(lambda s, t: (s.exp() * (s - t)).sum(-1)),
            "cross-entropy": _kl(lambda s, t: -(t.exp() * s).sum(-1)),
            "sign": _kl(lambda s, t: (t.exp() * (s - t)).sum(-1)),
            "padded tokens count": _kl(mean=lambda rows: rows.mean((1, 2))),
            "counted in the mean": _kl(mean=lambda rows: (rows * MASK[:, None]).mean((1, 2))),
            "sum over the tokens": _kl(
                mean=lambda rows: (rows * MASK[:, None]).mean(1).sum(-1),
            ),
            "sum over the heads": _kl(
                mean=lambda rows: (rows.sum(1) * MASK).sum(-1) / MASK.sum(-1),
            ),
            "heads and tokens": _kl(mean=lambda rows: (rows * MASK[:, None]).sum((1, 2))),
            "last axis": _kl(lambda s, t: (t.exp() * (t - s)).mean(-1)),
            "logarithms": _kl(lambda s, t: (t * (t - s)).sum(-1)),
            "squared": _kl(lambda s, t: (t.exp() - s.exp()).square().sum(-1)),
            "whole batch": lambda s, t, mask: relation_kl(s, t, mask).mean(),
            "one number a text": _kl(mean=lambda rows: rows.mean(-1)),
            "not finite": lambda s, t, mask: relation_kl(s, t, mask) / 0,
            "no gradient": lambda s, t, mask: relation_kl(s.detach(), t, mask),
            "got float": lambda s, t, mask: relation_kl(s, t, mask).sum().item(),
        },
    ),
)

QUESTIONS = {
    "08.a": Question(
        "The teacher answers three in four docstrings rightly. Two of its four blocks are "
        "thrown away, and nothing is trained. How many of 100 does it still get?",
        ("about 20", "about 45", "about 70"),
        2,
        "Each block adds a little to what the tokens already say, so a block that is missing takes "
        "little away. With a single block left the fall is deep.",
    ),
    "08.b": Question(
        "A narrow student with random weights learns 500 texts from the teacher's hidden layers. "
        "A bag of words learns the same 500 without any teacher. Who answers more test texts "
        "rightly?",
        ("the student", "the bag of words", "it depends on how long the student is trained"),
        2,
        "For the first epochs the bag is far ahead, and with the layer map the student passes it "
        "later. A comparison at one budget would have told you the one or the other.",
    ),
}
