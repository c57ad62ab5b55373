"""The pictures of lesson 03, temperature."""

import torch

from kdlab.losses.softmax import log_softmax
from kdlab.show import plots
from kdlab.show.curves import Curve

SHOWN = (9, 8, 5, 2, 7, 1)  # classes on the first screen
AS_IS, SCALED = "without T²", "times T²"


def _softened(logits, T):
    return log_softmax(logits, T).exp()


def _splits(found):
    """How many splits stand behind the estimates of {x: Estimate}."""
    return len(next(iter(found.values())).values)


def first_screen(data, logits, T=4):
    """Of six classes the training image whose second guess is the middle one, at T = 1 and T."""
    p = _softened(logits, T)
    others = p.scatter(-1, data.y[:, None], 0.0)
    known = [c for c in dict.fromkeys((*SHOWN, *range(p.shape[-1]))) if (data.y == c).any()][:6]
    rows = []
    for c in known:
        (of_class,) = (data.y == c).nonzero(as_tuple=True)
        order = of_class[others[of_class].amax(-1).argsort()]
        rows.append(order[len(order) // 2])
    rows = torch.stack(rows)
    return plots.images_with_bars(
        data.x[rows],
        {"T = 1": _softened(logits[rows], 1), f"T = {T}": p[rows]},
        data.y[rows],
        "Six of the images that the teacher learnt from; of each class, the one whose second guess "
        "is of middling size. Under each two answers of ten bars, one a class. They add up to "
        "100 %, on a linear scale; the number is the share of the second guess.",
        "Six digits, under each two rows of bars. At T = 1 the right class has all of it; at T = 4 "
        "a second class and others stand beside it.",
        marked=others[rows].argmax(-1).tolist(),
        title="The teacher is right, and sure. Softened, it says more.",
        key=("the right class, all that a label says", "the second guess", "the other classes"),
    )


def one_image(image, right, answers, whose):
    """One image's answer at several T. answers: {T: (C,)}."""
    p = answers[max(answers)].clone()
    p[right] = 0
    return plots.bars(
        {f"T = {T}": found for T, found in answers.items()},
        "One training image and the teacher's answer, a bar a class; per cent on the three "
        f"largest. Dark: the right class. In colour: the likeliest wrong one. {whose}",
        "Bars at rising temperatures: first one full bar, then smaller ones beside it, in the end "
        "ten of nearly equal height. Their order stays.",
        image=image,
        right=right,
        marked=int(p.argmax()),
        height=250,
    )


def softness(entropies, most, whose):
    """The entropy of the teacher's answers over T. entropies: {name: {T: Estimate}}."""
    first = next(iter(entropies.values()))
    return plots.curves(
        {
            "How unsure are the teacher's answers?": [
                *(Curve(name, found, "teacher") for name, found in entropies.items()),
                Curve("all classes alike", dict.fromkeys(first, most), "control"),
            ]
        },
        x="temperature T (log scale)",
        y="entropy (nats)",
        log=True,
        height=300,
        caption="Mean entropy on training images and on validation images, new to the teacher. "
        f"At T = {min(first)}, on training images: {first[min(first)]}. "
        f"The 95 % intervals over {_splits(first)} splits are narrower than the dots. {whose}",
    )


def lecture_curves(lecture, lecture_trained, taught, whose):
    """Loss and accuracy of students on two losses. Each: {"loss": …, "accuracy (%)": …}."""
    highest = 1.05 * max(e.interval()[1] for e in taught["loss"].values())
    start = lecture["loss"][min(lecture["loss"])].mean
    return plots.learning(
        {
            "teacher and student, both at T": taught,
            "student at T and at 1, begun after training": lecture_trained,
            "student at T and at 1": lecture,
        },
        caption=f"Left: training loss, T = 4; the grey one begins at {start:.1g}, too low for this "
        "scale. Right: validation accuracy; guessing gets 10 %, and at epoch 0 the trained student "
        "has not met this loss yet. Bands are 95 % intervals over "
        f"{_splits(lecture['loss'])} splits. {whose}",
        alt="Two panels over epochs. All losses fall towards zero. Accuracy rises to nearly all "
        "with the teacher; it stays at a tenth without one; a trained student loses most of what "
        "it knew within an epoch.",
        roles={
            "teacher and student, both at T": "student",
            "student at T and at 1, begun after training": "rival",
            "student at T and at 1": "control",
        },
        limits={"loss": (0, highest), "accuracy (%)": (0, 104)},
        height=300,
    )


def gains(arms, teachers, epochs, metric):
    """({name: {T: gain over labels}}, the teacher's gain) of one panel, paired by split.

    arms: {"long", "short", "mixed", "labels", "even": Runs}; epochs: (short, long)."""
    short, long = (arms["labels"].where(epochs=e) for e in epochs)

    def along(runs, labels):
        at = sorted(runs.frame["temperature"].unique())
        return {T: runs.where(temperature=T).minus(labels, metric) for T in at}

    student = along(arms["long"], long)
    found = {
        "student": student,
        "shorter training": along(arms["short"], short),
        "wrong classes shuffled": along(arms["mixed"], long),
        "label smoothing": dict.fromkeys(student, arms["even"].minus(long, metric)),
    }
    return found, teachers.minus(long, metric)


def over_temperature(panels, whose):
    """The main figure. panels: {title: ({name: {T: Estimate}}, its teacher's Estimate)}."""
    roles = ("student", "also", "control", "rival")
    (last,) = [arms["student"] for arms, _ in list(panels.values())[-1:]]
    return plots.curves(
        {
            title: [
                Curve(name, values, role)
                for (name, values), role in zip(arms.items(), roles, strict=True)
            ]
            for title, (arms, _) in panels.items()
        },
        x="temperature T (log scale)",
        y="gain over labels (points)",
        log=True,
        share=False,
        height=380,
        ceiling={title: ("its teacher", teacher) for title, (_, teacher) in panels.items()},
        caption="On validation, each minus labels alone after as many epochs, on three scales; the "
        "names stand for all panels. Left: accuracy on 3s alone. Bands are 95 % intervals over "
        f"{_splits(last)} splits. Label smoothing knows no T. In the first panel it and the "
        "shuffled control lie on the zero line. Shorter training: 20, 100 and 20 epochs instead of "
        f"40, 250 and 40. With all images, T = 4 − T = 1: {last[4] - last[1]}. {whose}",
    )


def what_changed(data, answers, count=9):
    """The first images on which two students differ. answers: {name: logits (N, C)}."""
    told = {name: logits.argmax(-1) for name, logits in answers.items()}
    first, second = told.values()
    rows = (first != second).nonzero().flatten()[:count]
    return plots.strip(
        data.x[rows],
        {name: found[rows] for name, found in told.items()},
        data.y[rows],
        f"The first {count} validation images of one split on which the two students differ; "
        "each was shown the same 100 training images.",
        "A row of digits with two rows of answers under it, right ones ticked, wrong ones crossed.",
        title="The same 100 images, the same teacher: what T changed",
    )


def pull(panels, whose):
    """The teacher's gradient beside the label's. panels: {title: {name: {T: Estimate}}}."""
    roles = {SCALED: "student", AS_IS: "control"}
    splits = _splits(next(iter(next(iter(panels.values())).values())))
    return plots.curves(
        {
            title: [Curve(name, values, roles[name]) for name, values in arms.items()]
            for title, arms in panels.items()
        },
        x="temperature T (log scale)",
        y="length of the teacher's gradient ÷ label's",
        log=True,
        share=False,
        height=300,
        caption="Gradients by the logits; lengths are means over all training images. At 1 both "
        "pull equally hard. Mind the two scales: the right one goes three times as far. Bands "
        f"are 95 % intervals over {splits} splits. {whose}",
    )


def forgotten(gains, alphas):
    """What a forgotten T² does at alpha = 0.5. gains, alphas: {name: {T: Estimate or number}}."""
    roles = ("student", "control")

    def lines(arms):
        found = zip(arms.items(), roles, strict=True)
        return [Curve(name, values, role) for (name, values), role in found]

    return plots.curves(
        {"The alpha it amounts to": lines(alphas), "Gain over labels (points)": lines(gains)},
        x="temperature T (log scale)",
        y="",
        log=True,
        share=False,
        height=300,
        limits={"The alpha it amounts to": (0, 0.6)},
        caption="Students with 100 images, alpha = 0.5. Left: arithmetic, by the formula above. "
        "Right: validation accuracy after 250 epochs, at three T; bands are 95 % intervals over "
        f"{_splits(next(iter(gains.values())))} splits.",
        alt="Left: with T² alpha stays one half; without it, it falls towards zero as T grows. "
        "Right: the gain with T² keeps rising with T; without T² it stays below.",
    )


def optimisers(panels):
    """Learning curves with T² and without. panels: {optimiser: {name: {epoch: Estimate}}}."""
    roles = ("student", "control", "rival")
    splits = _splits(next(iter(next(iter(panels.values())).values())))
    return plots.curves(
        {
            title: [
                Curve(name, values, role)
                for (name, values), role in zip(arms.items(), roles, strict=False)
            ]
            for title, arms in panels.items()
        },
        x="epoch",
        y="accuracy (%)",
        height=300,
        caption="T = 4, alpha = 1, 100 images, on validation; bands are 95 % intervals over "
        f"{splits} splits. Where two names meet in a point, one curve lies upon the other.",
    )


def by_size(panels, best):
    """Gains over T by the student's size. best: for each panel the Runs that validation picks."""
    splits = _splits(next(iter(next(iter(panels.values())).values())))
    picked = [f"{runs.frame['temperature'].iloc[0]:g}" for runs in best]
    return plots.curves(
        {
            f"{title}: validation picks T = {T}": [
                Curve(name, values, role)
                for (name, values), role in zip(arms.items(), ("student", "also"), strict=True)
            ]
            for (title, arms), T in zip(panels.items(), picked, strict=True)
        },
        x="temperature T (log scale)",
        y="gain over labels (points)",
        log=True,
        share=False,
        height=320,
        caption=f"All 1,000 images, on validation; bands are 95 % intervals over {splits} splits. "
        "Validation picks the T with the best mean accuracy after the longer training. Mind the "
        "scales: tens of points on the left, halves of one on the right.",
        alt="Two panels of gains over T. With 4 hidden units the gain is negative at the highest "
        "T; with 64 it stays near zero.",
    )


def sampled(texts):
    """What a model writes at several temperatures. texts: {name: [(token, probability)]}."""
    return plots.tokens(
        texts,
        "One model, one prompt (grey), four sampling temperatures. Dark is what the model itself, "
        "at T = 1, finds unlikely; ⏎ ends a line, and · is a byte that is no text.",
        "Four short texts. At T = 0.5 hardly a token is dark; at 1 some are; at 2 and 4 nearly all "
        "are, and the words make no sense.",
        title="The other temperature: what is written",
    )
