"""One bell for two peaks: what each divergence makes of it, with handles."""

import functools
import math
from functools import partial

import torch

from kdlab.base.lab import threads_for
from kdlab.losses import divergences
from kdlab.show.colours import INK, MUTED
from kdlab.show.explorer import HEIGHT, TEXT, Explorer, choice, on_stage, slider
from kdlab.show.plots import Picture
from kdlab.show.sheet import BOLD, EDGE, ROLES, WIDTH, panel, sheet

X = torch.linspace(-6, 6, 121)
MARKS = (0, 5, 10, 20, 40, 80, 160)  # steps after which the student is shown
# by the weight that a handle gives, where there is one
DIVERGENCES = {
    "forward KL": lambda _: divergences.forward_kl,
    "reverse KL": lambda _: divergences.reverse_kl,
    "JSD": lambda beta: partial(divergences.jsd, beta=beta),
    "skewed KL": lambda skew: partial(divergences.skew_forward_kl, skew=skew),
}
STARTS = {
    "best of ten": (torch.linspace(-4, 4, 5).tolist(), [0.5, 3.0]),
    "broad, in the middle": ([0.0], [3.0]),
    "narrow, on the left": ([-3.0], [0.5]),
    "narrow, on the right": ([3.0], [0.5]),
}


def fit_bell(teacher_logits, divergence, start="best of ten", marks=MARKS):
    """The one-peaked student of a divergence, on its way: {step of marks: (middle, width)}.

    Adam from each start; shown is the one that ends best.

    teacher_logits: (121,) over X, −6 to 6; divergence: of (student_logits, teacher_logits), with
    reduction="rows".

    >>> middle, width = fit_bell(-(X - 1) ** 2 / 2, divergences.forward_kl)[160]
    >>> round(middle, 1), round(width, 1)
    (1.0, 1.0)
    """
    place = torch.cartesian_prod(*map(torch.tensor, STARTS[start])).reshape(-1, 2)
    middle, log_width = place[:, :1].clone().requires_grad_(), place[:, 1:].log().requires_grad_()
    optimiser = torch.optim.Adam([middle, log_width], lr=0.1)
    target, found = teacher_logits.expand(len(place), -1), {}
    for step in range(max(marks) + 1):
        loss = divergence(_bell(middle, log_width.exp()), target, reduction="rows")
        if step in marks:
            found[step] = torch.cat([middle, log_width.exp()], -1).detach().clone()
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
    best = int(loss.argmin())
    return {step: tuple(bells[best].tolist()) for step, bells in found.items()}


def _bell(middle, width):
    return -((X - middle) ** 2) / (2 * width**2)


def peaks_explorer() -> Explorer:
    """A teacher with two peaks, a student with one, under four divergences → `Explorer`.

    >>> len(peaks_explorer().answer["lines"])
    4
    """

    shares = [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7]
    return Explorer(
        "Two peaks, one student",
        [
            slider(
                "distance",
                "Distance of the peaks",
                [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0],
                5.0,
            ),
            slider("share", "Left peak's share", shares, 0.4, [f"{100 * s:.0f} %" for s in shares]),
            slider(
                "beta", "β of the JSD", [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99], 0.5
            ),
            slider("skew", "Skew", [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9], 0.1),
            choice("start", "Student starts", list(STARTS)),
            slider("steps", "Steps", list(MARKS), MARKS[-1]),
        ],
        _draw,
    )


@functools.lru_cache(500)
def _fitted(kind, weight, distance, share, start):
    """One student on its way; a handle that it doesn't hear of leaves it as it was."""
    with threads_for(torch.nn.Identity()):  # rows this short only wait for a second thread
        return fit_bell(teacher_bells(distance, share), DIVERGENCES[kind](weight), start)


def teacher_bells(distance, share):
    """Log-probabilities (121,) of two bells."""
    return torch.logaddexp(
        math.log(share) - (X + distance / 2) ** 2 / 0.6,
        math.log(1 - share) - (X - distance / 2) ** 2 / 0.6,
    ).log_softmax(0)


@on_stage
def _draw(distance, share, beta, skew, start, steps):
    weights = {"forward KL": None, "reverse KL": None, "JSD": beta, "skewed KL": skew}
    names = ["forward KL", "reverse KL", f"JSD, β = {beta:g}", f"skewed KL, {skew:g}"]
    p, lines = teacher_bells(distance, share).exp(), []
    figure, canvas = sheet(HEIGHT)
    found = [_fitted(k, w, distance, share, start)[steps] for k, w in weights.items()]
    bells = [_bell(torch.tensor(m), torch.tensor(w)).softmax(0) for m, w in found]
    top, step = max(float(d.max()) for d in (p, *bells)), (WIDTH - EDGE) / 4
    for i, (name, q, (middle, width)) in enumerate(zip(names, bells, found, strict=True)):
        x = EDGE + i * step
        canvas.text(x, 36, name, fontsize=TEXT + 4, fontweight=BOLD)
        _two_bells(panel(figure, x, 56, step - EDGE, HEIGHT - 160), p, q, top)
        left, hardly = float(q[X < 0].sum()), float(q[p < 0.1 * p.max()].sum())
        words = f"left half: {100 * left:.0f} %", f"hardly said: {100 * hardly:.0f} %"
        for row, text in enumerate(words):
            canvas.text(x, HEIGHT - 74 + 26 * row, text, color=INK)
        lines.append(
            f"{name}: middle {_zero(middle, 1)}, width {width:.1f}; "
            f"{100 * left:.0f} % in the left half, "
            f"{100 * hardly:.0f} % on words that the teacher hardly says."
        )
    _key(canvas)
    return (
        Picture(
            figure,
            f"One student for each divergence after {steps} steps, from: {start}. Left to right: "
            "words, in order. Hardly said: below a tenth of the teacher's top.",
            f"Four panels with the teacher's two peaks as a green ground, {distance:g} apart, "
            f"the left one with {100 * share:.0f} % of the mass, and over them one bell: "
            f"the student under {', '.join(names)}. Where it stands follows as text.",
        ),
        lines,
    )


def _two_bells(ax, p, q, top):
    """The teacher's peaks as a ground, the student's bell over them; top: of all panels."""
    ax.fill_between(X.tolist(), p.tolist(), color=ROLES["teacher"]["color"], alpha=0.3, lw=0)
    ax.plot(X.tolist(), q.tolist(), color=ROLES["student"]["color"], linewidth=4)
    ax.set(ylim=(0, 1.05 * top), xlim=(-6, 6), xticks=[], yticks=[])
    ax.axhline(0, color=MUTED, linewidth=2)


def _key(canvas):
    """Who is who, at the foot."""
    for x, who, words in ((EDGE, "teacher", "the teacher"), (EDGE + 160, "student", "the student")):
        canvas.text(x, HEIGHT - 12, words, color=ROLES[who]["color"], fontweight=BOLD)


def _zero(x, digits):
    return f"{round(x, digits) + 0.0:.{digits}f}"  # + 0.0 turns −0.0 into 0.0
