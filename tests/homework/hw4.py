"""Homework 4: right answers written in other ways, and wrong ones with the checks that must fail on
each."""

LOGITS = "def ensemble_of_logits(z, T=1.0):\n    return torch.softmax(z.mean(0) / T, -1)\n"
PROBABILITIES = (
    "def ensemble_of_probabilities(z, T=1.0):\n    return torch.softmax(z / T, -1).mean(0)\n"
)

PART = """
def members_that_part(K, C):
    p = torch.full((K, C), 1e-8)
    p[:, :2] = torch.tensor({sure})
    p[0, :3] = torch.tensor({veto})
    return p.log()
"""

DECOMPOSITION = """
def decomposition(z, y):
    pairs = [(i, j) for i in range(len(z)) for j in range(i)]
    apart = [(z[i].argmax(-1) != z[j].argmax(-1)).float().mean().item() for i, j in pairs]
    disagreement = sum(apart) / len(pairs)
    members = sum(F.cross_entropy(one, y).item() for one in z) / len(z)
    ensemble = F.nll_loss(kd.ensemble(z).log_softmax(-1), y).item()
    diversity = members - ensemble
    {changed}
    return dict(disagreement=disagreement, members=members, ensemble=ensemble, diversity=diversity)
"""

UPDATE = """
@torch.no_grad()
def ema_update(teacher, student, decay):
    for a, b in zip(teacher.parameters(), student.parameters()):
        {parameters}
    for a, b in zip(teacher.buffers(), student.buffers()):
        {buffers}
"""
MOVE, COPY = "a.lerp_(b, 1 - decay)", "a.copy_(b)"

MUTUAL = """
def mutual_terms(z, y):
    own, peers = [], []
    for r in range(len(z)):
        others = [z[k]{detached} for k in range(len(z)) if {whom}]
        own.append({own})
        peers.append(sum({divergence} for other in others){share})
    return {{"own": torch.stack(own), "peers": torch.stack(peers)}}
"""


def decomposition(changed=""):
    """The code of an answer to question 3, with a line of its own before it returns."""
    return DECOMPOSITION.format(changed=changed)


def update(parameters=MOVE, buffers=COPY):
    """The code of an answer to question 4."""
    return UPDATE.format(parameters=parameters, buffers=buffers)


def mutual(
    detached=".detach()",
    whom="k != r",
    own="F.cross_entropy(z[r], y)",
    divergence="kd.forward_kl(z[r], other)",
    share=" / len(others)",
):
    """The code of an answer to question 5."""
    return MUTUAL.format(detached=detached, whom=whom, own=own, divergence=divergence, share=share)


GAIN = """
def ensemble_gain(z, tasks):
    gains = [{gain} for a, t in zip(z, tasks)]
    return kd.Estimate(pd.Series(gains, index=[t.unit for t in tasks]), "gain", "points", len(z[0]))

gain = ensemble_gain(z, tasks)
prediction = "within one point"
low, high = gain.interval()
verdict = {verdict}
"""
RIGHT = (
    "100 * (kd.accuracy(a.softmax(-1).mean(0), t.validation.y) - kd.accuracy(a,"
    " t.validation.y).mean()).item()"
)
READ = (
    '"no difference" if -1 <= low and high <= 1 else "helps" if low > 0 else '
    '"hurts" if high < 0 else "cannot tell"'
)
UNPAIRED = """
def ensemble_gain(z, tasks):
    found = {f"{t.unit} {i}": 100 * (kd.accuracy(kd.ensemble(a), t.validation.y)
                                     - kd.accuracy(one, t.validation.y)).item()
             for a, t in zip(z, tasks) for i, one in enumerate(a)}
    return kd.Estimate(pd.Series(found), "gain", "points", 1)

gain = ensemble_gain(z, tasks)
prediction = "within one point"
verdict = gain.verdict(delta=1.0)
"""

ALTERNATIVES = {
    "hw4-q1": [
        (
            "def ensemble_of_logits(z, T=1.0):\n    return torch.exp(torch.log_softmax(sum(z) /"
            " len(z) / T, dim=-1))\ndef ensemble_of_probabilities(z, T=1.0):\n    return"
            " sum(F.softmax(one / T, -1) for one in z) / len(z)\n"
        ),
        (
            "def ensemble_of_logits(z, T=1.0):\n    return torch.softmax(kd.ensemble(z,"
            " of='logits') / T, -1)\ndef ensemble_of_probabilities(z, T=1.0):\n    return"
            " torch.softmax(kd.ensemble(z, temperature=T) / T, -1)\n"
        ),
    ],
    "hw4-q2": [
        PART.format(sure=[0.92, 0.08], veto=[1e-9, 0.6, 0.4]),
        (
            "def members_that_part(K, C):\n    z = torch.zeros(K, C)\n    z[:, 2:] = -25\n    z[:,"
            " 0] = 2.5\n    z[0, 0], z[0, 2] = -25, 0.5\n    return z\n"
        ),
    ],
    "hw4-q3": [
        decomposition(),
        (
            "def decomposition(z, y):\n    log_p = z.double().log_softmax(-1).gather(-1,"
            " y.expand(len(z), -1)[..., None])\n    out = {'members': -log_p.mean().item()}\n   "
            " out['ensemble'] = -(torch.logsumexp(log_p, 0) - np.log(len(z))).mean().item()\n   "
            " out['diversity'] = out['members'] - out['ensemble']\n    named = z.argmax(-1)\n    i,"
            " j = torch.triu_indices(len(z), len(z), 1)\n    out['disagreement'] = (named[i] !="
            " named[j]).double().mean().item()\n    return out\nimport numpy as np\n"
        ),
    ],
    "hw4-q4": [
        update(),
        (
            "def ema_update(teacher, student, decay):\n    averaged = {k for k, _ in"
            " teacher.named_parameters()}\n    new = {k: v.clone() for k, v in"
            " student.state_dict().items()}\n    for k, v in teacher.state_dict().items():\n       "
            " if k in averaged:\n            new[k] = decay * v + (1 - decay) * new[k]\n   "
            " teacher.load_state_dict(new)\n"
        ),
    ],
    "hw4-q5": [
        mutual(),
        (
            "def mutual_terms(z, y):\n    K = len(z)\n    own = F.cross_entropy(z.flatten(0, 1),"
            " y.repeat(K), reduction='none').view(K, -1).mean(1)\n    log_q = z.log_softmax(-1)\n  "
            "  peers = [0] * K\n    for r in range(K):\n        for k in set(range(K)) - {r}:\n    "
            "        p = z[k].detach().softmax(-1)\n            peers[r] = peers[r] +"
            " F.kl_div(log_q[r], p, reduction='batchmean') / (K - 1)\n    return dict(own=own,"
            " peers=torch.stack(peers))\n"
        ),
    ],
    "hw4-q6": [
        GAIN.format(gain=RIGHT, verdict=READ),
        (
            "def ensemble_gain(z, tasks):\n    out = {}\n    for logits, task in zip(z, tasks):\n  "
            "      y = task.validation.y.cpu()\n        p = logits.cpu().softmax(-1)\n        right"
            " = [(one.argmax(-1) == y).double().mean().item() * 100 for one in [*p, p.sum(0)]]\n   "
            "     out[task.unit] = right[-1] - sum(right[:-1]) / len(p)\n    return"
            " kd.Estimate(pd.Series(out), 'gain of the ensemble', 'points', len(p))\ngain ="
            " ensemble_gain(z, tasks)\nprediction, verdict = OPTIONS[2], gain.verdict(1)\n"
        ),
    ],
}

MUTANTS = [
    (
        "hw4-q1",
        "T is not used for logits",
        "def ensemble_of_logits(z, T=1.0):\n    return torch.softmax(z.mean(0), -1)\n"
        + PROBABILITIES,
        {"hw4-q1-logits"},
    ),
    (
        "hw4-q1",
        "averaged first, softened then",
        LOGITS
        + "def ensemble_of_probabilities(z, T=1.0):\n    p = torch.softmax(z, -1).mean(0) ** (1 /"
        " T)\n    return p / p.sum(-1, keepdim=True)\n",
        {"hw4-q1-softened"},
    ),
    (
        "hw4-q1",
        "softmax over the third axis",
        LOGITS
        + "def ensemble_of_probabilities(z, T=1.0):\n    return torch.softmax(z / T, 2).mean(0)\n",
        {"hw4-q1-axes"},
    ),
    (
        "hw4-q1",
        "the sum of the logits",
        "def ensemble_of_logits(z, T=1.0):\n    return torch.softmax(z.sum(0) / T, -1)\n"
        + PROBABILITIES,
        {"hw4-q1-logits", "hw4-q1-axes"},
    ),
    (
        "hw4-q1",
        "both are the mean of logits",
        LOGITS + "ensemble_of_probabilities = ensemble_of_logits\n",
        {"hw4-q1-softened", "hw4-q1-axes"},
    ),
    (
        "hw4-q2",
        "all agree",
        "def members_that_part(K, C):\n    return 5 * torch.eye(C)[:1].repeat(K, 1)\n",
        {"hw4-q2-part"},
    ),
    (
        "hw4-q2",
        "they part by a hair",
        (
            "def members_that_part(K, C):\n    p = torch.full((K, C), 1e-9)\n    p[:, :3] = 1 / 3\n"
            "    p[0, :3], p[1, :3] = torch.tensor([[0.28, 0.37, 0.35], [0.42, 0.325, 0.255]])\n   "
            " return p.log()\n"
        ),
        {"hw4-q2-clear"},
    ),
    (
        "hw4-q3",
        "a member compared with itself as well",
        decomposition("disagreement *= (len(z) - 1) / len(z)"),
        {"hw4-q3-disagreement"},
    ),
    (
        "hw4-q3",
        "compared with the first member only",
        decomposition("disagreement = (z[1:].argmax(-1) != z[0].argmax(-1)).float().mean().item()"),
        {"hw4-q3-disagreement"},
    ),
    (
        "hw4-q3",
        "the members' likelihoods summed",
        decomposition("members *= len(z); diversity = members - ensemble"),
        {"hw4-q3-members", "hw4-q3-diversity"},
    ),
    (
        "hw4-q3",
        "the best member in place of the mean",
        decomposition(
            "members = max(F.cross_entropy(one, y).item() for one in z); diversity = members -"
            " ensemble if (z != z[0]).any() else 0.0"
        ),
        {"hw4-q3-members"},
    ),
    (
        "hw4-q3",
        "the ensemble of logits",
        decomposition(
            "ensemble = F.cross_entropy(z.mean(0), y).item(); diversity = members - ensemble"
        ),
        {"hw4-q3-ensemble", "hw4-q3-stable"},
    ),
    (
        "hw4-q3",
        "the ensemble of logits, unless they are large",
        decomposition(
            "ensemble = F.cross_entropy(z.mean(0), y).item(); diversity = members - ensemble\n   "
            " if z.abs().max() > 100: ensemble = F.nll_loss(kd.ensemble(z).log_softmax(-1),"
            " y).item()"
        ),
        {"hw4-q3-ensemble"},
    ),
    (
        "hw4-q3",
        "ensemble minus members",
        decomposition("diversity = -diversity"),
        {"hw4-q3-diversity"},
    ),
    (
        "hw4-q3",
        "the logarithm of a probability that is 0",
        decomposition(
            "ensemble = -z.softmax(-1).mean(0)[torch.arange(len(y)), y].log().mean().item()\n"
            "    diversity = members - ensemble"
        ),
        {"hw4-q3-stable"},
    ),
    (
        "hw4-q4",
        "decay is the student's share",
        update(parameters="a.lerp_(b, decay)"),
        {"hw4-q4-parameters"},
    ),
    ("hw4-q4", "buffers left out", update(buffers="pass"), {"hw4-q4-buffers"}),
    (
        "hw4-q4",
        "buffers averaged",
        update(buffers="a.copy_(decay * a + (1 - decay) * b)"),
        {"hw4-q4-buffers"},
    ),
    ("hw4-q4", "buffers shared", update(buffers="a.data = b.data"), {"hw4-q4-apart"}),
    (
        "hw4-q4",
        "gradients recorded",
        update()
        .replace("@torch.no_grad()\n", "")
        .replace(MOVE, "a.mul_(decay).add_((1 - decay) * b)"),
        {"hw4-q4-apart"},
    ),
    (
        "hw4-q5",
        "the cross-entropy summed",
        mutual(own="F.cross_entropy(z[r], y, reduction='sum')"),
        {"hw4-q5-own"},
    ),
    (
        "hw4-q5",
        "KL(own ‖ other)",
        mutual(divergence="kd.reverse_kl(z[r], other)"),
        {"hw4-q5-direction"},
    ),
    ("hw4-q5", "summed over the others", mutual(share=""), {"hw4-q5-cohort"}),
    (
        "hw4-q5",
        "the student is its own peer",
        mutual(whom="True"),
        {"hw4-q5-direction", "hw4-q5-cohort"},
    ),
    ("hw4-q5", "peers get gradients", mutual(detached=""), {"hw4-q5-detached"}),
    (
        "hw4-q5",
        "cross-entropy called KL",
        mutual(divergence="F.cross_entropy(z[r], other.softmax(-1))"),
        {"hw4-q5-direction", "hw4-q5-cohort"},
    ),
    (
        "hw4-q5",
        "kl_div divided by the classes too",
        mutual(divergence="F.kl_div(z[r].log_softmax(-1), other.softmax(-1), reduction='mean')"),
        {"hw4-q5-direction", "hw4-q5-cohort"},
    ),
    (
        "hw4-q6",
        "compared with the best member",
        GAIN.format(gain=RIGHT.replace("mean()).item", "max()).item"), verdict=READ),
        {"hw4-q6-measured"},
    ),
    (
        "hw4-q6",
        "shares in place of points",
        GAIN.format(gain=RIGHT[6:], verdict=READ),
        {"hw4-q6-measured"},
    ),
    ("hw4-q6", "every member is a unit", UNPAIRED, {"hw4-q6-units"}),
    (
        "hw4-q6",
        "a verdict that the interval does not bear out",
        GAIN.format(gain=RIGHT, verdict='"hurts"'),
        {"hw4-q6-verdict"},
    ),
    (
        "hw4-q6",
        "no prediction",
        GAIN.format(gain=RIGHT, verdict=READ).replace('"within one point"', "..."),
        {"hw4-q6-verdict"},
    ),
]
