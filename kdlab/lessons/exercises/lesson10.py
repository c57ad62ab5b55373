"""Lesson 10: the sampler, which tokens are learnt, the loss of a step on a student's own text."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

import kdlab as kd
from kdlab.lessons.exercises import Exercise, Question

# --- 10.1 write ---


@torch.no_grad()
def write(model, prompts, steps, generator):
    """(B, L) ids → (B, L + steps) ids: each new token is drawn from the model's softmax."""
    ids = prompts
    for _ in range(steps):
        p = torch.softmax(model(ids).logits[:, -1], dim=-1)
        ids = torch.cat([ids, torch.multinomial(p, 1, generator=generator)], dim=1)
    return ids


WORDS = 7


class _Sure(nn.Module):
    """A model without doubt: next comes the sum of all ids so far plus one, modulo WORDS."""

    def forward(self, input_ids):
        follows = (input_ids.cumsum(1) + 1) % WORDS
        return SimpleNamespace(logits=60.0 * F.one_hot(follows, WORDS))


SHARES = torch.tensor([0.6, 0.3, 0.1, 0, 0, 0, 0])


class _Unsure(_Sure):
    """A model that always wavers in the same way at its last position, and is sure before it."""

    def forward(self, input_ids):
        found = super().forward(input_ids)
        found.logits[:, -1] = SHARES.clamp_min(1e-9).log()
        return found


def _write(attempt):
    prompts = torch.tensor([[1, 2, 0], [3, 0, 5]])
    if wrong := _written_surely(attempt, prompts):
        return wrong
    many = torch.zeros(3000, 2, dtype=torch.long)
    before = torch.get_rng_state()
    try:
        found = attempt(_Unsure(), many, 1, torch.Generator().manual_seed(0))[:, -1]
    except RuntimeError as error:
        if "probability tensor" not in str(error):
            raise
        return "logits are no probabilities, some are below 0: multinomial draws from a softmax"
    if not torch.equal(before, torch.get_rng_state()):
        return "the draws come from torch's global state: hand the generator on to multinomial"
    if len(set(found.tolist())) == 1:
        return (
            "every row got the same token: draw one for each row, "
            "and draw it, the likeliest one (argmax) is no sample"
        )
    share = found.bincount(minlength=WORDS) / len(found)
    if (share - SHARES).abs().max() < 0.04:
        again, other = (
            attempt(_Unsure(), many, 1, torch.Generator().manual_seed(seed))[:, -1]
            for seed in (0, 1)
        )
        if not torch.equal(found, again) or torch.equal(found, other):
            return "the same generator must give the same text, another one another: use it"
        return ""
    told = ", ".join(f"{100 * s:.0f} %" for s in share[:3].tolist())
    if share[0] > SHARES[0] + 0.04:
        return (
            f"too sure: of 60, 30 and 10 % the draws make {told}; logits go into one softmax, "
            "at temperature 1"
        )
    return f"of 60, 30 and 10 % the draws make {told}: draw from the softmax of the logits"


def _written_surely(attempt, prompts):
    """What is wrong with the text of a model that leaves nothing to chance."""
    found = attempt(_Sure(), prompts, 4, torch.Generator().manual_seed(0))
    if not torch.is_tensor(found):
        return f"expected ids (B, L + steps), got {type(found).__name__}"
    right = write(_Sure(), prompts, 4, torch.Generator().manual_seed(0))
    if found.shape == (2, 4):
        return "give the prompts back too, what is new behind them: (B, L + steps)"
    if found.shape != right.shape:
        return (
            f"expected ids of shape (2, 7) for 2 prompts of 3 and 4 steps, got {tuple(found.shape)}"
        )
    if found.is_floating_point():
        return "ids are whole numbers: append the token that was drawn, not its probability"
    if not torch.equal(found[:, :3], prompts):
        return "the prompts have changed: they stay in front as they were"
    if torch.equal(found, right):
        return ""
    first = (prompts[:, 0] + 1) % WORDS, (prompts[:, :2].sum(1) + 1) % WORDS
    if any(torch.equal(found[:, 3], wrong) for wrong in first):
        return (
            "the first new token answers an earlier position: the last one's logits, "
            "logits[:, -1], say what comes next"
        )
    if torch.equal(found[:, 3], right[:, 3]):
        return (
            "the first new token is right, the next is not: "
            "the model must read each token, behind all before it, before it draws another"
        )
    if not torch.equal(found, attempt(_Sure(), prompts, 4, torch.Generator().manual_seed(1))):
        return (
            "too flat: this model leaves nothing to chance, and the text is another one each "
            "time; is a softmax taken twice, or over the wrong axis?"
        )
    return f"the model is sure of {right[0, 3:].tolist()}, got {found[0, 3:].tolist()}"


# --- 10.2 labels_of ---


def labels_of(ids, prompt_length, eos=None):
    """(B, L) ids → (B, L) labels: the id where a token is learnt, −100 elsewhere, not shifted."""
    labels = ids.clone()
    labels[:, :prompt_length] = -100
    if eos is not None:
        ends = (ids[:, prompt_length:] == eos).long()
        behind = ends.cumsum(1) - ends > 0  # an end-of-text token stands before it
        labels[:, prompt_length:][behind] = -100
    return labels


def _labels(attempt):
    ids = torch.tensor([[5, 6, 7, 8, 2, 2, 2], [5, 2, 7, 8, 9, 3, 4], [5, 6, 7, 2, 8, 2, 2]])
    for eos, wanted in (
        (
            None,
            [
                [-100, -100, -100, 8, 2, 2, 2],
                [-100, -100, -100, 8, 9, 3, 4],
                [-100, -100, -100, 2, 8, 2, 2],
            ],
        ),
        (
            2,
            [
                [-100, -100, -100, 8, 2, -100, -100],
                [-100, -100, -100, 8, 9, 3, 4],
                [-100, -100, -100, 2, -100, -100, -100],
            ],
        ),
    ):
        given, right = ids.clone(), torch.tensor(wanted)
        found = attempt(given, 3, eos)
        if not torch.is_tensor(found) or found.shape != ids.shape:
            came = tuple(found.shape) if torch.is_tensor(found) else type(found).__name__
            return f"expected labels of the ids' shape, (3, 7), got {came}"
        if not torch.equal(given, ids):
            return "the ids themselves were changed, and the models still have to read them: clone"
        if torch.equal(found, right):
            continue
        return _mislabelled(found, ids, right, eos)
    return ""


def _mislabelled(found, ids, right, eos):
    """The sentence for labels that are wrong, of prompts of three."""
    told = f"(prompts of 3, eos={eos}: expected {right[0].tolist()}, got {found[0].tolist()})"
    if found.dtype == torch.bool or set(found.unique().tolist()) <= {0, 1}:
        return "that is a mask: labels hold the id itself where a token is learnt"
    if torch.equal(found[:, :-1], right[:, 1:]):
        return f"already shifted: that is next_token's business, here label i is token i {told}"
    if (found[:, :3] == 0).all():
        return f"0 is a token like any other: what is not learnt has the label −100 {told}"
    if (found[:, :3] != -100).any():
        return f"the prompt is not to be learnt: the student did not write it {told}"
    if (found[:, 3] == -100).all():
        return f"the first token that the student wrote is learnt too {told}"
    if eos is not None and found[0, 4] == -100:
        return f"the first end-of-text token was written by the student and counts {told}"
    if eos is not None and (found[0, 5] != -100 or found[2, 4] != -100):
        return f"what stands behind the first end-of-text token is padding, −100 {told}"
    if eos is not None and (found[1, 3:] == -100).any():
        return f"an end-of-text token inside the prompt ends nothing {told}"
    return f"not the labels that were wanted {told}"


# --- 10.3 on_policy_loss ---


def on_policy_loss(student, teacher, ids, labels, divergence):
    """The divergence, a mean over the tokens to be learnt: ids, labels (B, L) → a scalar."""
    answers, labels = kd.next_token(student(ids).logits, labels)
    with torch.no_grad():
        right = teacher(ids).logits[:, :-1]
    return divergence(answers, right, mask=labels != -100)


class _Model(nn.Module):
    """Logits that depend on a token and the one before it."""

    def __init__(self, seed):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(2 * torch.randn(2, WORDS, WORDS, generator=draw))

    def forward(self, input_ids):
        before = torch.roll(input_ids, 1, 1)
        return SimpleNamespace(logits=self.weight[0][input_ids] + self.weight[1][before])


def _loss_slips(z, t, ids, labels, divergence):
    """{what is wrong: the value that it gives}."""
    counts = labels[:, 1:] != -100
    rows = divergence(z[:, :-1], t[:, :-1], reduction="rows")
    log_q = z[:, :-1].log_softmax(-1)
    return {
        "no shift: position i of the logits answers for token i + 1": divergence(
            z, t, mask=labels != -100
        ),
        "shifted the wrong way: leave out the last position's logits and the first label": (
            divergence(z[:, 1:], t[:, 1:], mask=labels[:, :-1] != -100)
        ),
        "a mean over all positions: only what the student wrote is learnt": rows.mean(),
        "a sum: take the mean over the tokens that are learnt": (rows * counts).sum(),
        "summed, then divided by all positions: divide by the number that are learnt": (
            rows * counts
        ).mean(),
        "a mean of each text's mean: short texts would weigh as much as long ones": (
            ((rows * counts).sum(1) / counts.sum(1)).mean()
        ),
        "student and teacher are swapped: the student's logits come first": divergence(
            t[:, :-1], z[:, :-1], mask=counts
        ),
        "always the forward KL: use the argument `divergence`": kd.forward_kl(
            z[:, :-1], t[:, :-1], mask=counts
        ),
        "always the reverse KL: use the argument `divergence`": kd.reverse_kl(
            z[:, :-1], t[:, :-1], mask=counts
        ),
        "that is the cross-entropy with the text: the teacher's answers are to be learnt": (
            F.nll_loss(log_q[counts], ids[:, 1:][counts])
        ),
        "probabilities in the place of logits: the divergence takes the softmax itself": divergence(
            z[:, :-1].softmax(-1), t[:, :-1].softmax(-1), mask=counts
        ),
    }


def _skewed(student_logits, teacher_logits, **options):
    """A divergence that is neither KL, nor the same with its arguments swapped."""
    return kd.jsd(student_logits, teacher_logits, 0.1, **options)


def _loss(attempt):
    draw = torch.Generator().manual_seed(4)
    ids = torch.randint(WORDS, (3, 8), generator=draw)
    labels = labels_of(ids, 3)
    labels[0, 5:] = -100  # a text that ended
    for divergence in (_skewed, kd.reverse_kl):
        student, teacher = _Model(1), _Model(2)
        value = attempt(student, teacher, ids, labels, divergence)
        if not torch.is_tensor(value):
            return (
                f"expected a scalar tensor, got {type(value).__name__}: without it nothing learns"
            )
        if value.numel() != 1:
            return f"expected one number for the batch, got shape {tuple(value.shape)}"
        z, t = student(ids).logits.detach(), teacher(ids).logits.detach()
        right, given = on_policy_loss(student, teacher, ids, labels, divergence), value.detach()
        if not torch.isclose(given, right, rtol=1e-4):
            slips = _loss_slips(z, t, ids, labels, divergence)
            named = (s for s, wrong in slips.items() if torch.isclose(given, wrong, rtol=1e-4))
            return next(named, f"expected {right.item():.5f}, got {given.item():.5f}")
        reaches = [
            value.requires_grad
            and torch.autograd.grad(value, m.weight, retain_graph=True, allow_unused=True)[0]
            is not None
            for m in (student, teacher)
        ]
        if not reaches[0]:
            return "no gradient reaches the student: it learns nothing"
        if reaches[1]:
            return "a gradient reaches the teacher: ask it under torch.no_grad()"
    return ""


# --- wrong answers, for the tests ---


def _sampler(pick, draw=None, read=lambda ids: ids, join=None):
    """`write` with one thing wrong."""

    def attempt(model, prompts, steps, generator):
        ids = prompts
        for _ in range(steps):
            logits = pick(model(read(ids)).logits)
            new = (draw or _draw)(logits, generator)
            ids = torch.cat([ids, new], dim=1) if join is None else join(ids, new)
        return ids

    return attempt


def _last(logits):
    return logits[:, -1]


def _draw(logits, generator):
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)


def _one_for_all(logits, generator):
    return (
        _draw(logits[:1], generator).expand(len(logits), 1)
        if len(logits) > 2
        else _draw(logits, generator)
    )


def _at_once(model, prompts, steps, generator):
    """All new tokens from the prompt's logits, none of them read again."""
    p = model(prompts).logits[:, -1].softmax(-1)
    return torch.cat([prompts, torch.multinomial(p, steps, True, generator=generator)], 1)


def _unmasked(change):
    """`on_policy_loss` with one thing wrong: change(student's, teacher's logits, labels, KL)."""

    def attempt(student, teacher, ids, labels, divergence):
        with torch.no_grad():
            t = teacher(ids).logits
        return change(student(ids).logits, t, labels, divergence)

    return attempt


def _masked_rows(reduce):
    def change(z, t, labels, divergence):
        counts = labels[:, 1:] != -100
        return reduce(divergence(z[:, :-1], t[:, :-1], reduction="rows"), counts)

    return _unmasked(change)


def _labels_like(change):
    def attempt(ids, prompt_length, eos=None):
        return change(labels_of(ids, prompt_length, eos), ids, prompt_length, eos)

    return attempt


def _in_place(ids, prompt_length, eos=None):
    ids[:, :prompt_length] = -100
    return ids


def _teacher_learns(student, teacher, ids, labels, divergence):
    z, y = kd.next_token(student(ids).logits, labels)
    return divergence(z, teacher(ids).logits[:, :-1], mask=y != -100)


def _student_frozen(student, teacher, ids, labels, divergence):
    with torch.no_grad():
        return on_policy_loss(student, teacher, ids, labels, divergence)


def _text_learnt(student, teacher, ids, labels, divergence):
    z, y = kd.next_token(student(ids).logits, labels)
    return F.cross_entropy(z.flatten(0, 1), y.flatten())


EXERCISES = (
    Exercise(
        "10.1",
        _write,
        (
            "model(ids).logits is (B, L, V); the last position, logits[:, -1], says what comes "
            "next. Its softmax is what to draw from.",
            "torch.multinomial(p, 1, generator=generator) draws a token a row, (B, 1); "
            "torch.cat([ids, new], dim=1) appends it. Then the model reads all of it again.",
        ),
        write,
        {
            "argmax": _sampler(_last, lambda z, g: z.argmax(-1, keepdim=True)),
            "same token": _sampler(_last, _one_for_all),
            "earlier position": _sampler(lambda z: z[:, -2]),
            "answers an earlier": _sampler(lambda z: z[:, 0]),
            "must read each token": _at_once,
            "behind all before it": _sampler(_last, read=lambda ids: ids[:, -3:]),
            "no probabilities": _sampler(_last, lambda z, g: torch.multinomial(z, 1, generator=g)),
            "too sure": _sampler(_last, lambda z, g: _draw(2 * z, g)),
            "wrong axis": _sampler(
                _last, lambda z, g: torch.multinomial(z.softmax(0), 1, generator=g)
            ),
            "too flat": _sampler(_last, lambda z, g: _draw(z.softmax(-1), g)),
            "global state": _sampler(_last, lambda z, g: _draw(z, None)),
            "whole numbers": lambda m, ids, n, g: write(m, ids, n, g).float(),
            "give the prompts back": lambda m, ids, n, g: write(m, ids, n, g)[:, ids.shape[1] :],
            "got (2, 4, 7)": lambda m, ids, n, g: torch.zeros(2, n, WORDS),
            "stay in front": _sampler(_last, join=lambda ids, new: torch.cat([new, ids], 1)),
            "got list": lambda m, ids, n, g: write(m, ids, n, g).tolist(),
            "the same generator": lambda m, ids, n, g: write(
                m, ids, n, torch.Generator().manual_seed(0)
            ),
        },
    ),
    Exercise(
        "10.2",
        _labels,
        (
            "Start from ids.clone() and set labels[:, :prompt_length] to −100. Without eos that "
            "is all.",
            "ends = ids[:, prompt_length:] == eos; a token is padding where the running count of "
            "ends before it, ends.cumsum(1) − ends, is above 0.",
        ),
        labels_of,
        {
            "did not write it": lambda ids, n, eos=None: ids.clone(),
            "still have to read": _in_place,
            "already shifted": _labels_like(lambda y, ids, n, eos: torch.roll(y, -1, 1)),
            "like any other": _labels_like(lambda y, ids, n, eos: y.masked_fill(y == -100, 0)),
            "a mask": _labels_like(lambda y, ids, n, eos: y != -100),
            "wrote is learnt too": lambda ids, n, eos=None: labels_of(ids, n + 1, eos),
            "counts": _labels_like(
                lambda y, ids, n, eos: y if eos is None else y.masked_fill(ids == eos, -100)
            ),
            "is padding": lambda ids, n, eos=None: labels_of(ids, n),
            "ends nothing": _labels_like(
                lambda y, ids, n, eos: (
                    y
                    if eos is None
                    else y.masked_fill((ids == eos).cumsum(1) - (ids == eos).long() > 0, -100)
                )
            ),
            "the ids' shape": lambda ids, n, eos=None: labels_of(ids, n, eos)[:, n:],
        },
    ),
    Exercise(
        "10.3",
        _loss,
        (
            "kd.next_token(student(ids).logits, labels) puts each position beside the token that "
            "it predicts; the teacher's logits lose their last position too.",
            "Ask the teacher under torch.no_grad(); then "
            "divergence(student_logits, teacher_logits, mask=labels != -100).",
        ),
        on_policy_loss,
        {
            "no shift": _unmasked(lambda z, t, y, d: d(z, t, mask=y != -100)),
            "the wrong way": _unmasked(
                lambda z, t, y, d: d(z[:, 1:], t[:, 1:], mask=y[:, :-1] != -100)
            ),
            "over all positions": _masked_rows(lambda rows, counts: rows.mean()),
            "a sum": _masked_rows(lambda rows, counts: (rows * counts).sum()),
            "divided by all": _masked_rows(lambda rows, counts: (rows * counts).mean()),
            "each text's mean": _masked_rows(
                lambda rows, counts: ((rows * counts).sum(1) / counts.sum(1)).mean()
            ),
            "swapped": _unmasked(lambda z, t, y, d: d(t[:, :-1], z[:, :-1], mask=y[:, 1:] != -100)),
            "always the forward": lambda s, t, ids, y, d: on_policy_loss(
                s, t, ids, y, kd.forward_kl
            ),
            "always the reverse": lambda s, t, ids, y, d: on_policy_loss(
                s, t, ids, y, kd.reverse_kl
            ),
            "cross-entropy": _text_learnt,
            "takes the softmax itself": _unmasked(
                lambda z, t, y, d: d(
                    z[:, :-1].softmax(-1), t[:, :-1].softmax(-1), mask=y[:, 1:] != -100
                )
            ),
            "reaches the teacher": _teacher_learns,
            "reaches the student": _student_frozen,
            "got float": lambda *given: on_policy_loss(*given).item(),
            "one number": _masked_rows(lambda rows, counts: (rows * counts).sum(1)),
        },
    ),
)

QUESTIONS = {
    "10.a": Question(
        "On-policy distillation, as it is mostly done, changes two things at once: the student "
        "learns from its own text instead of the data's, and by the reverse KL instead of the "
        "forward. Which of the two decides more about how likely its teacher finds what it then "
        "writes?",
        ("whose text it is", "which KL it is", "neither does anything without the other"),
        1,
        "The reverse KL punishes what the teacher would hardly say, whoever wrote the words "
        "before it.",
    ),
    "10.b": Question(
        "By the forward KL, three students learn from the data's text, from their teacher's and "
        "from their own, the last two written anew at every step. After 200 steps, which of them "
        "writes what the teacher finds likeliest?",
        (
            "the data's student",
            "the student of the teacher's text",
            "the student of its own text",
            "six fields can't tell them apart",
        ),
        3,
        "Who writes the text that is learnt from decides little here; on other windows the "
        "teacher's was a little ahead. By the reverse KL it begins to.",
    ),
    "10.c": Question(
        "A step's gradient can use only the drawn tokens, or all 1,024 at each place. The mean is "
        "the same. How much larger is the first one's variance, from batch to batch?",
        ("about twice", "some ten times", "about a thousand times"),
        1,
        "One token of a thousand is blamed or praised, with all the luck of its draw. But many "
        "tokens of a batch are averaged, and the text itself varies for both.",
    ),
}
