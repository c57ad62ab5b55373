"""One bell for two peaks: what each divergence makes of it, with handles."""

import math
from functools import partial

import torch

from kdlab.losses import divergences
from kdlab.show.explorer import Explorer, choice, large, slider
from kdlab.show.plots import COLOURS, Picture

X = torch.linspace(-6, 6, 121)
STARTS = {
    "best of ten": (torch.linspace(-4, 4, 5).tolist(), [0.5, 3.0]),
    "broad, in the middle": ([0.0], [3.0]),
    "narrow, on the left": ([-3.0], [0.5]),
    "narrow, on the right": ([3.0], [0.5]),
}


def fit_bell(teacher_logits, divergence, start="best of ten", steps=200):
    """The one-peaked student that a divergence ends in → (middle, width).

    Adam from each start, the best kept.

    teacher_logits: (121,) over X, −6 to 6; divergence: of (student_logits, teacher_logits), with
    reduction="rows".

    >>> middle, width = fit_bell(-(X - 1) ** 2 / 2, divergences.forward_kl)
    >>> round(middle, 1), round(width, 1)
    (1.0, 1.0)
    """
    place = torch.cartesian_prod(*map(torch.tensor, STARTS[start])).reshape(-1, 2)
    middle, log_width = place[:, :1].clone().requires_grad_(), place[:, 1:].log().requires_grad_()
    optimiser, target = (
        torch.optim.Adam([middle, log_width], lr=0.08),
        teacher_logits.expand(len(place), -1),
    )
    for _ in range(steps):
        loss = divergence(_bell(middle, log_width.exp()), target, reduction="rows")
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
    best = int(loss.argmin())
    return float(middle[best].detach()), float(log_width[best].detach().exp())


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
        ],
        _draw,
    )


def _draw(distance, share, beta, skew, start):
    teacher = torch.logaddexp(
        math.log(share) - (X + distance / 2) ** 2 / 0.6,
        math.log(1 - share) - (X - distance / 2) ** 2 / 0.6,
    )
    kinds = {
        "forward KL": divergences.forward_kl,
        "reverse KL": divergences.reverse_kl,
        f"JSD, β = {beta:g}": partial(divergences.jsd, beta=beta),
        f"skewed KL, {skew:g}": partial(divergences.skew_forward_kl, skew=skew),
    }
    p, lines = teacher.softmax(0), []
    top = float(p.max())
    figure, context = large(13, 4.6)
    with context:
        for i, (ax, (name, divergence)) in enumerate(
            zip(figure.subplots(1, 4, sharey=True), kinds.items(), strict=True)
        ):
            middle, width = fit_bell(teacher, divergence, start)
            q = _bell(middle, width).softmax(0)
            ax.fill_between(X.tolist(), p.tolist(), color="lightgrey", label="teacher")
            ax.plot(X.tolist(), q.tolist(), color=COLOURS[0], linewidth=3, label="student")
            top = max(top, float(q.max()))
            ax.set_title(name)
            ax.set_xlabel("word, in order")
            found = q[X < 0].sum(), q[p < 0.1 * p.max()].sum()
            lines.append(
                f"{name}: middle {_zero(middle, 1)}, width {width:.1f}; "
                f"{100 * found[0]:.0f} % in the left half, "
                f"{100 * found[1]:.0f} % on words that the teacher hardly says."
            )
            if i == 0:
                ax.set_ylabel("probability")
                ax.legend(loc="upper left")
        ax.set_ylim(0, 1.05 * top)
    return (
        Picture(
            figure,
            f"One student for each divergence, fitted from: {start}. "
            "Hardly: below a tenth of the teacher's top.",
            f"Four panels with the teacher's two grey peaks, {distance:g} apart, "
            f"the left one with {100 * share:.0f} % of the mass, and over them one bell: "
            f"the student under {', '.join(kinds)}. Where it stands follows as text.",
        ),
        lines,
    )


def _zero(x, digits):
    return f"{round(x, digits) + 0.0:.{digits}f}"  # + 0.0 turns −0.0 into 0.0
