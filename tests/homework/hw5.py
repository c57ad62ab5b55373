"""Homework 5: right answers written in other ways, and wrong ones with the checks that must fail on
each."""

ROWS = """
def log_probs(z):
    return torch.log_softmax(torch.where(torch.isneginf(z), torch.full_like(z, -1e30), z), -1)

def kl(a, b):
    return (a.exp() * (a - b)).sum(-1)

def forward_rows(student_logits, teacher_logits):
    q, p = log_probs(student_logits), log_probs(teacher_logits)
    return {forward}

def reverse_rows(student_logits, teacher_logits):
    q, p = log_probs(student_logits), log_probs(teacher_logits)
    return {reverse}

def jsd_rows(student_logits, teacher_logits, beta):
    q, p = log_probs(student_logits), log_probs(teacher_logits)
    m = {m}
    return {jsd}
"""
MEAN = """
def token_mean(rows, labels):
    rows, labels = {shift}
    counts = {counts}
    {end}
"""
TOP = """
def tail_rows(student_logits, teacher_logits, k):
    q, p = torch.log_softmax(student_logits, -1), torch.log_softmax(teacher_logits, -1)
    order = {order}.argsort(-1, descending=True)
    q, p = q.gather(-1, order), p.gather(-1, order)
    kept = (p[..., :k].exp() * (p[..., :k] - q[..., :k])).sum(-1)
    p_rest, q_rest = {rest}
    return kept{bucket}

def renormalised_rows(student_logits, teacher_logits, k):
    top = torch.log_softmax(teacher_logits, -1).topk(k)
    q = torch.log_softmax(student_logits, -1).gather(-1, top.indices)
    p = {renormalised}
    return (p * (p.log() - q)).sum(-1)
"""
WRITE = """
def write(teacher, prompt, steps, eos, generator, T=1.0):
    ids, labels, open_ = prompt.clone(), {prompt_labels}, torch.ones(len(prompt), dtype=torch.bool)
    for _ in range(steps):
        z = teacher({read})[:, {position}]
        new = {draw}
        ids = torch.cat([ids, new], 1)
        {before}
        labels = torch.cat([labels, torch.where(open_[:, None], new, -100)], 1)
        {after}
    return ids, labels
"""
SAMPLED = """
def sampled_rows(student_logits, teacher_logits, drawn, baseline=True):
    q, p = torch.log_softmax(student_logits, -1), torch.log_softmax(teacher_logits, -1)
    of_y, its = (x.gather(-1, drawn[:, None])[:, 0] for x in (q, p))
    kl = (q.exp() * (q - p)).sum(-1).detach()
    r = {reward}
    b = {b} if baseline else 0.0
    return {loss}
"""
CLOSE = "open_ = open_ & (new[:, 0] != eos)"
MULTINOMIAL = "torch.multinomial((z / T).softmax(-1), 1, generator=generator)"


def rows(
    forward="kl(p, q)",
    reverse="kl(q, p)",
    m="torch.logaddexp(p + math.log(beta), q + math.log(1 - beta))",
    jsd="beta * kl(p, m) + (1 - beta) * kl(q, m)",
):
    """The code of an answer to question 1."""
    return ROWS.format(forward=forward, reverse=reverse, m=m, jsd=jsd)


def mean(
    shift="rows[:, :-1], labels[:, 1:]",
    counts="labels != -100",
    end="return rows[counts].mean() if counts.any() else rows.new_zeros((), requires_grad=True)",
):
    """The code of an answer to question 2."""
    return MEAN.format(shift=shift, counts=counts, end=end)


def top(
    order="p",
    rest="p[..., k:].logsumexp(-1), q[..., k:].logsumexp(-1)",
    bucket=" + p_rest.exp() * (p_rest - q_rest)",
    renormalised="top.values.exp() / top.values.exp().sum(-1, keepdim=True)",
):
    """The code of an answer to question 3."""
    return TOP.format(order=order, rest=rest, bucket=bucket, renormalised=renormalised)


def write(
    prompt_labels="torch.full_like(prompt, -100)",
    read="ids",
    position="-1",
    draw=MULTINOMIAL,
    before="pass",
    after=CLOSE,
):
    """The code of an answer to question 4."""
    return WRITE.format(
        prompt_labels=prompt_labels,
        read=read,
        position=position,
        draw=draw,
        before=before,
        after=after,
    )


def sampled(reward="(its - of_y).detach()", b="-kl", loss="-(r - b) * of_y"):
    """The code of an answer to question 5."""
    return SAMPLED.format(reward=reward, b=b, loss=loss)


def answer(name, arguments, witness, mended):
    """The code of an answer to a bug of question 6 and up: a witness and the mended function."""
    return (
        f"def {name}_witness():\n    return {witness}\n\ndef {name}_mended({arguments}):\n   "
        f" {mended}\n"
    )


def bug(number, name, arguments, witnesses, mends, blind, wrong):
    """(alternatives, mutants) of a bug: witnesses and mends that are right, a blind witness, and
    wrong mends."""
    q = f"hw5-q{number}"
    good = [answer(name, arguments, *pair) for pair in zip(witnesses, mends, strict=True)]
    mutants = [
        (
            q,
            "a witness on which the function is right",
            answer(name, arguments, blind, mends[0]),
            {f"{q}-shown"},
        )
    ]
    mutants += [
        (q, what, answer(name, arguments, witnesses[0], code), {f"{q}-mended"})
        for what, code in wrong.items()
    ]
    return {q: good}, mutants


BUGS = [
    bug(
        6,
        "accumulated",
        "parts",
        [
            "[(torch.zeros(9), torch.ones(9).bool()), (torch.ones(9), torch.arange(9) == 0)]",
            (
                "[(torch.tensor([4.0, 9.0]), torch.tensor([True, False])), (torch.zeros(3),"
                " torch.ones(3).bool())]"
            ),
        ],
        [
            (
                "rows, counts = (torch.cat(x) for x in zip(*parts))\n    return rows[counts].mean()"
                " if counts.any() else 0.0"
            ),
            (
                "n = sum(c.sum() for _, c in parts)\n    return sum(torch.where(c, r, 0.0).sum()"
                " for r, c in parts) / n.clamp_min(1)"
            ),
        ],
        "[(torch.ones(4), torch.ones(4).bool()), (2 * torch.ones(4), torch.ones(4).bool())]",
        {
            "left as it was": "return accumulated_loss(parts)",
            "divided by all tokens": (
                "rows, counts = (torch.cat(x) for x in zip(*parts))\n    return (rows * "
                "counts).mean()"
            ),
            "0 / 0 where nothing counts": (
                "rows, counts = (torch.cat(x) for x in zip(*parts))\n    return rows[counts].mean()"
            ),
        },
    ),
    bug(
        7,
        "entropy",
        "logits",
        ["torch.zeros(1, 1, 3)", "10 * torch.eye(3)[None, :2].double()"],
        [
            "return kd.entropy(logits).mean()",
            "return torch.distributions.Categorical(logits=logits).entropy().mean()",
        ],
        "torch.zeros(2, 3, 3)",
        {
            "the softmax over the batch": (
                "p = logits.log_softmax(0)\n    return -(p.exp() * p).sum(-1).mean()"
            ),
            "the sum over positions": (
                "p = logits.log_softmax(-1)\n    return -(p.exp() * p).sum(-1).sum(1).mean()"
            ),
            "right when logits are all the same": (
                "return torch.tensor(float(logits.shape[-1])).log()"
            ),
        },
    ),
    bug(
        8,
        "ends",
        "student_logits, teacher_logits, beta",
        [
            "(torch.tensor([[3.0, 0.0]]), torch.zeros(1, 2), 1)",
            "(torch.zeros(2, 3), 2 * torch.eye(3)[:2], 0)",
        ],
        [
            "return kd.jsd(student_logits, teacher_logits, beta=beta)",
            (
                "q, p = student_logits.softmax(-1), teacher_logits.softmax(-1)\n    if beta in (0,"
                " 1):\n        a, b = (p, q) if beta == 0 else (q, p)\n        return"
                " F.kl_div(b.log(), a, reduction='batchmean')\n    return"
                " generalised_jsd(student_logits, teacher_logits, beta)"
            ),
        ],
        "(torch.zeros(1, 2), torch.tensor([[2.0, 0.0]]), 0.5)",
        {
            "the two KLs exchanged": (
                "if beta in (0, 1):\n        return (kd.reverse_kl if beta == 0 else"
                " kd.forward_kl)(student_logits, teacher_logits)\n    return"
                " generalised_jsd(student_logits, teacher_logits, beta)"
            ),
            "beta kept off the ends": (
                "return generalised_jsd(student_logits, teacher_logits, min(max(beta, 1e-3), 1 -"
                " 1e-3))"
            ),
        },
    ),
    bug(
        9,
        "accuracy",
        "logits, ids",
        [
            "(F.one_hot(torch.arange(5), 5)[None].double(), torch.arange(5)[None])",
            "(F.one_hot(torch.tensor([[1, 2, 3, 0]]), 4).float(), torch.tensor([[0, 1, 2, 3]]))",
        ],
        [
            (
                "z, y = kd.next_token(logits, ids)\n    return kd.accuracy(z.flatten(0, 1),"
                " y.flatten())"
            ),
            "return (logits.argmax(-1).roll(1, 1) == ids)[:, 1:].float().mean()",
        ],
        "(torch.eye(4)[None, :1].repeat(1, 3, 1), torch.zeros(1, 3, dtype=torch.long))",
        {
            "shifted the other way": (
                "return (logits[:, 1:].argmax(-1) == ids[:, :-1]).double().mean()"
            ),
            "divided by all tokens": (
                "return (logits[:, :-1].argmax(-1) == ids[:, 1:]).double().sum() / ids.numel()"
            ),
        },
    ),
    bug(
        10,
        "padding",
        "rows, attention_mask",
        [
            "torch.full((2, 4), 2.0), torch.tensor([[1, 0, 0, 0]] * 2)",
            "torch.ones(1, 2), torch.tensor([[1, 0]])",
        ],
        [
            "return torch.where(attention_mask > 0, rows, 0.0).sum() / attention_mask.sum()",
            "return kd.divergences.reduce_rows('padding', rows, attention_mask > 0)",
        ],
        "torch.ones(1, 3), torch.ones(1, 3)",
        {
            "left as it was": "return padded_loss(rows, attention_mask)",
            "padding counts": "return rows.mean()",
            "a mean of the texts' means": (
                "m = attention_mask\n    return ((rows * m).sum(-1) / m.sum(-1)).mean()"
            ),
        },
    ),
]

ALTERNATIVES = {
    "hw5-q1": [
        rows(),
        (
            "def forward_rows(a, b):\n    return kd.forward_kl(a, b, reduction='rows')\n"
            "def reverse_rows(a, b):\n    return kd.reverse_kl(a, b, reduction='rows')\n"
            "def jsd_rows(a, b, beta):\n    return kd.jsd(a, b, beta, reduction='rows')\n"
        ),
    ],
    "hw5-q2": [
        mean(),
        mean(
            end="n = max(1, int(counts.sum()))\n    return rows.masked_fill(~counts, 0).sum() / n"
        ),
    ],
    "hw5-q3": [
        top(),
        (
            "def tail_rows(s, t, k):\n    return kd.sparse.top_k(t, k).forward_kl(s,"
            " reduction='rows')\ndef renormalised_rows(s, t, k):\n    return kd.sparse.top_k(t,"
            " k).forward_kl(s, cut='renormalise', reduction='rows')\n"
        ),
    ],
    "hw5-q4": [
        write(),
        write(
            draw=(
                "(z / T - torch.empty_like(z).exponential_(generator=generator).log())"
                ".argmax(-1, keepdim=True)"
            )
        ),
    ],
    "hw5-q5": [
        sampled(),
        sampled(loss="-(r - b) * (of_y - of_y.detach()).exp() + b"),
        # the baseline of the least variance: rewards weighed by the length of their gradients
        sampled(
            b=(
                "(lambda w: (w * (p - q)).sum(-1) / w.sum(-1))((q.exp() *"
                " (torch.eye(4) - q.exp()[:, None]).pow(2).sum(-1)).detach()).detach()"
            )
        ),
        (
            "def sampled_rows(s, t, drawn, baseline=True):\n    how = 'place' if baseline else"
            " 'none'\n    return kd.SampledReverseKL(how).soft(s, t, drawn)\n"
        ),
        (
            "def sampled_rows(s, t, drawn, baseline=True):\n    q, p ="
            " (torch.distributions.Categorical(logits=z) for z in (s, t))\n    with"
            " torch.no_grad():\n        cost = q.log_prob(drawn) - p.log_prob(drawn)\n       "
            " if baseline:\n            cost -= torch.distributions.kl_divergence(q, p)\n   "
            " return cost * q.log_prob(drawn)\n"
        ),
    ],
} | {q: code for found, _ in BUGS for q, code in found.items()}

MUTANTS = [
    (
        "hw5-q1",
        "cross-entropy called KL",
        rows(forward="-(p.exp() * q).sum(-1)"),
        {"hw5-q1-forward"},
    ),
    ("hw5-q1", "teacher and student exchanged", rows(forward="kl(q, p)"), {"hw5-q1-forward"}),
    ("hw5-q1", "both are the forward KL", rows(reverse="kl(p, q)"), {"hw5-q1-reverse"}),
    (
        "hw5-q1",
        "beta weighs the student",
        rows(m="torch.logaddexp(p + math.log(1 - beta), q + math.log(beta))"),
        {"hw5-q1-jsd"},
    ),
    ("hw5-q1", "logarithms mixed", rows(m="beta * p + (1 - beta) * q"), {"hw5-q1-jsd"}),
    (
        "hw5-q1",
        "0 times infinity",
        rows().replace("torch.where(torch.isneginf(z), torch.full_like(z, -1e30), z)", "z"),
        {"hw5-q1-ruled-out"},
    ),
    (
        "hw5-q1",
        "NaN replaced in the value, not in the gradient",
        rows()
        .replace("torch.where(torch.isneginf(z), torch.full_like(z, -1e30), z)", "z")
        .replace("(a.exp() * (a - b)).sum(-1)", "(a.exp() * (a - b)).nan_to_num().sum(-1)"),
        {"hw5-q1-ruled-out"},
    ),
    ("hw5-q2", "no shift", mean(shift="rows, labels"), {"hw5-q2-shift"}),
    (
        "hw5-q2",
        "the prompt counts",
        mean(counts="(labels != -100).flip(-1).cumsum(-1).flip(-1) > 0"),
        {"hw5-q2-mask"},
    ),
    (
        "hw5-q2",
        "a mean of the texts' means",
        mean(
            end=(
                "n = counts.sum(-1)\n    per = torch.where(counts, rows, 0.0).sum(-1) /"
                " n.clamp_min(1)\n    return per.sum() / (n > 0).sum().clamp_min(1)"
            )
        ),
        {"hw5-q2-mean"},
    ),
    (
        "hw5-q2",
        "0 times NaN",
        mean(end="return (rows * counts).sum() / counts.sum().clamp_min(1)"),
        {"hw5-q2-garbage"},
    ),
    (
        "hw5-q2",
        "0 / 0 where nothing counts",
        mean(end="return rows[counts].mean()"),
        {"hw5-q2-garbage"},
    ),
    (
        "hw5-q2",
        "divided by all positions",
        mean(end="return torch.where(counts, rows, 0.0).mean()"),
        {"hw5-q2-mask", "hw5-q2-mean", "hw5-q2-garbage"},
    ),
    ("hw5-q3", "no bucket", top(bucket=""), {"hw5-q3-tail"}),
    ("hw5-q3", "the student's own likeliest words", top(order="q"), {"hw5-q3-tail"}),
    (
        "hw5-q3",
        "the student renormalised too",
        top().replace(
            "q = torch.log_softmax(student_logits, -1).gather(-1, top.indices)",
            "q = student_logits.gather(-1, top.indices).log_softmax(-1)",
        ),
        {"hw5-q3-renormalised"},
    ),
    ("hw5-q3", "not renormalised", top(renormalised="top.values.exp()"), {"hw5-q3-renormalised"}),
    (
        "hw5-q3",
        "1 minus the others",
        top(rest="(1 - p[..., :k].exp().sum(-1)).log(), (1 - q[..., :k].exp().sum(-1)).log()"),
        {"hw5-q3-stable"},
    ),
    ("hw5-q4", "the likeliest word", write(draw="z.argmax(-1, keepdim=True)"), {"hw5-q4-law"}),
    ("hw5-q4", "T multiplied", write(draw=MULTINOMIAL.replace("/", "*")), {"hw5-q4-law"}),
    (
        "hw5-q4",
        "another source of randomness",
        write(draw="torch.multinomial((z / T).softmax(-1), 1)"),
        {"hw5-q4-law"},
    ),
    ("hw5-q4", "the first position's logits", write(position="0"), {"hw5-q4-context"}),
    ("hw5-q4", "only the prompt is read", write(read="prompt"), {"hw5-q4-context"}),
    ("hw5-q4", "only the last token is read", write(read="ids[:, -1:]"), {"hw5-q4-context"}),
    ("hw5-q4", "the prompt is learnt", write(prompt_labels="prompt.clone()"), {"hw5-q4-labels"}),
    ("hw5-q4", "the end is not learnt", write(before=CLOSE, after="pass"), {"hw5-q4-labels"}),
    ("hw5-q4", "what follows the end is learnt", write(after="pass"), {"hw5-q4-labels"}),
    ("hw5-q5", "the wrong sign", sampled(loss="(r - b) * of_y"), {"hw5-q5-mean"}),
    (
        "hw5-q5",
        "the reward is no constant",
        sampled(reward="its - of_y"),
        {"hw5-q5-mean", "hw5-q5-baseline"},
    ),
    (
        "hw5-q5",
        "the reward itself is differentiated",
        sampled(reward="its - of_y", loss="-(r - b)"),
        {"hw5-q5-mean", "hw5-q5-baseline"},
    ),
    (
        "hw5-q5",
        "the forward KL",
        sampled(reward="(its - of_y).exp().detach()"),
        {"hw5-q5-mean", "hw5-q5-baseline"},
    ),
    (
        "hw5-q5",
        "the likelihood of its own words",
        sampled(reward="torch.ones(2)"),
        {"hw5-q5-mean", "hw5-q5-baseline"},
    ),
    (
        "hw5-q5",
        "all words weighed",
        sampled(loss="kd.reverse_kl(student_logits, teacher_logits, reduction='rows')"),
        {"hw5-q5-mean", "hw5-q5-baseline"},
    ),
    (
        "hw5-q5",
        "the likeliest word",
        sampled().replace("drawn[:, None]", "q.argmax(-1)[:, None]"),
        {"hw5-q5-mean", "hw5-q5-baseline"},
    ),
    ("hw5-q5", "no baseline", sampled(b="0.0"), {"hw5-q5-baseline"}),
    ("hw5-q5", "its own reward is in the baseline", sampled(b="r.mean()"), {"hw5-q5-baseline"}),
    ("hw5-q5", "the baseline is the reward", sampled(b="r"), {"hw5-q5-baseline"}),
    (
        "hw5-q5",
        "the baseline has a gradient",
        sampled(b="-(q.exp() * (q - p)).sum(-1)"),
        {"hw5-q5-baseline"},
    ),
    ("hw5-q5", "the baseline's sign", sampled(b="kl"), {"hw5-q5-baseline"}),
    *(mutant for _, found in BUGS for mutant in found),
]
