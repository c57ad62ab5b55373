"""Exercises of lesson 00: an estimate from eight splits, and its verdict in words."""

import numpy as np

from kdlab.lessons.exercises import Exercise, Question

# --- 00.1: the mean and half of its interval ---


def estimate(differences, t):
    """The mean of the differences, and half of its 95 % interval: t · s / √n."""
    n = len(differences)
    mean = sum(differences) / n
    s = (sum((d - mean) ** 2 for d in differences) / (n - 1)) ** 0.5
    return mean, t * s / n**0.5


# gains in points such as the lesson's, an n and a t of their own each
GAINS = (
    ((7.1, 9.4, 13.0, 9.8, 5.3, 8.5, 10.1, 7.8), 2.365),
    ((-1.2, 0.4, 2.2, -0.9, -0.6), 2.776),
)


def _spread(d, ddof=1):
    return float(np.std(d, ddof=ddof))


# a word of the sentence: (what the learner did, the sentence)
ESTIMATES = {
    "n − 1": (
        lambda d, t: (d.mean(), t * _spread(d, 0) / len(d) ** 0.5),
        "the spread is a little too small: divide its squares by n − 1 (np.std takes n unless "
        "you give it ddof=1)",
    ),
    "square root of n": (
        lambda d, t: (d.mean(), t * _spread(d)),
        "this is how far one split lies from the mean; the mean of n splits is surer: divide by "
        "the square root of n",
    ),
    "divided by n,": (
        lambda d, t: (d.mean(), t * _spread(d) / len(d)),
        "the spread is divided by n, which is too much: its square root is what the mean gains",
    ),
    "lacks t": (
        lambda d, t: (d.mean(), _spread(d) / len(d) ** 0.5),
        "this is the standard error: it lacks t, which widens it to 95 %",
    ),
    "1.96": (
        lambda d, t: (d.mean(), 1.96 * _spread(d) / len(d) ** 0.5),
        "1.96 is for very many splits; for few, use the t that is given",
    ),
    "before the root": (
        lambda d, t: (d.mean(), t * _spread(d) ** 2 / len(d) ** 0.5),
        "s² is the variance, the spread before the root is taken: use s",
    ),
    "both sides": (
        lambda d, t: (d.mean(), 2 * t * _spread(d) / len(d) ** 0.5),
        "this is the whole interval, both sides together: return half of it",
    ),
    "(low, high)": (
        lambda d, t: (
            d.mean() - t * _spread(d) / len(d) ** 0.5,
            d.mean() + t * _spread(d) / len(d) ** 0.5,
        ),
        "these are its ends, (low, high): return the mean and half of the width",
    ),
    "other way round": (
        lambda d, t: (t * _spread(d) / len(d) ** 0.5, d.mean()),
        "the two are right, the other way round: the mean comes first",
    ),
    "median": (
        lambda d, t: (np.median(d), t * _spread(d) / len(d) ** 0.5),
        "the first number is the median; the interval belongs to the mean",
    ),
    "sign": (
        lambda d, t: (abs(d).mean(), t * _spread(abs(d)) / len(d) ** 0.5),
        "a difference keeps its sign: a split that lost counts against the others",
    ),
    "extremes": (
        lambda d, t: (d.mean(), float(np.ptp(d)) / 2),
        "this reaches from one of the two extremes to the other, and grows with every split; the "
        "interval of the mean shrinks",
    ),
}


def _in_place(differences, t):
    answer = estimate(differences, t)
    differences -= answer[0]
    return answer


def _estimating(attempt):
    given = [(np.array(gains), t) for gains, t in GAINS]
    answers = [_two_numbers(attempt(d, t)) for d, t in given]
    if None in answers:
        return "the answer is two numbers: return mean, half_width"
    if any((d != np.array(gains)).any() for (d, _), (gains, _) in zip(given, GAINS, strict=True)):
        return "the differences themselves were changed, in place: work on new numbers"
    if _alike(answers, estimate):
        return ""
    for mistaken, sentence in ESTIMATES.values():
        if _alike(answers, mistaken):
            return sentence
    means = [np.mean(gains) for gains, _ in GAINS]
    if not np.allclose([a[0] for a in answers], means, rtol=1e-4):
        return f"the mean of {list(GAINS[0][0])} is {means[0]:.3f}, got {answers[0][0]:.3f}"
    return (
        f"the mean is right; half of the interval is t · s / √n, here "
        f"{estimate(*GAINS[0])[1]:.3f}, got {answers[0][1]:.3f}"
    )


def _two_numbers(answer):
    try:
        found = tuple(float(number) for number in answer)
    except (TypeError, ValueError):
        return None
    return found if len(found) == 2 else None


def _alike(answers, function):
    known = [function(np.array(gains), t) for gains, t in GAINS]
    return np.allclose(answers, known, rtol=1e-4, atol=1e-6)


# --- 00.2: the verdict ---


def verdict(low, high, delta):
    """What an interval lets one say, in words."""
    small = -delta <= low and high <= delta
    if low > 0:
        return "helps a little" if small else "helps"
    if high < 0:
        return "hurts a little" if small else "hurts"
    return "no difference" if small else "cannot tell"


INTERVALS = (  # (low, high, delta), every case on both sides, and a second delta
    (0.9, 2.0, 0.5),
    (0.2, 1.1, 0.5),
    (0.1, 0.4, 0.5),
    (-2.0, -0.9, 0.5),
    (-1.1, -0.2, 0.5),
    (-0.4, -0.1, 0.5),
    (-0.2, 0.3, 0.5),
    (-1.0, 2.0, 0.5),
    (-0.9, 0.2, 0.5),
    (-0.2, 0.9, 0.5),
    (0.1, 0.4, 0.05),
    (-0.4, -0.1, 0.05),
    (-0.2, 0.3, 0.05),
    (-0.03, 0.04, 0.05),
)


def _reversed(low, high, delta):
    return verdict(-high, -low, delta)


def _two_words(low, high, delta):
    if low > 0 or high < 0:
        return verdict(low, high, delta)
    return "no difference"


def _always_unsure(low, high, delta):
    if low > 0 or high < 0:
        return verdict(low, high, delta)
    return "cannot tell"


def _small_first(low, high, delta):
    if -delta <= low and high <= delta:
        return "no difference"
    return verdict(low, high, delta)


def _never_little(low, high, delta):
    return verdict(low, high, delta).removesuffix(" a little")


def _by_the_mean(low, high, delta):
    middle = (low + high) / 2
    if abs(middle) <= delta:
        return "no difference"
    return "helps" if middle > 0 else "hurts"


def _beyond_delta(low, high, delta):
    if low > delta:
        return "helps"
    if high < -delta:
        return "hurts"
    return "no difference" if -delta <= low and high <= delta else "cannot tell"


def _either_end(low, high, delta):
    small = -delta <= low or high <= delta
    if low > 0 or high < 0:
        return ("helps" if low > 0 else "hurts") + (" a little" if small else "")
    return "no difference" if small else "cannot tell"


def _one_end(low, high, delta):
    if low > 0 or high < 0:
        return verdict(low, high, delta)
    return "no difference" if high <= delta else "cannot tell"


def _half_a_point(low, high, delta):
    return verdict(low, high, 0.5)


def _wrong_end(low, high, delta):
    small = -delta <= low and high <= delta
    if high > 0:
        return "helps a little" if small else "helps"
    return "hurts a little" if small else "hurts"


def _by_its_width(low, high, delta):
    if low > 0 or high < 0:
        return verdict(low, high, delta)
    return "no difference" if high - low <= delta else "cannot tell"


def _no_last_return(low, high, delta):
    found = verdict(low, high, delta)
    return None if found == "cannot tell" else found


VERDICTS = {
    "the other way round": (
        _reversed,
        "helps and hurts are the other way round: a gain above 0 helps",
    ),
    "not shown": (
        _two_words,
        "an interval around 0 that reaches beyond ±δ may hide a gain that matters: that there is "
        "no difference is not shown",
    ),
    "was shown to be small": (
        _always_unsure,
        "an interval around 0 that lies inside ±δ says a lot: the difference was shown to be small",
    ),
    "first at the sign": (
        _small_first,
        "look first at the sign: an interval above 0 shows a gain, even where it lies inside ±δ",
    ),
    "a little": (
        _never_little,
        "an interval on one side of 0 that lies inside ±δ is called by its sign, with the words "
        "“a little”",
    ),
    "middle": (
        _by_the_mean,
        "this looks at the middle alone; the ends of the interval say how sure it is",
    ),
    "compared with 0": (
        _beyond_delta,
        "for “helps” the lower end is compared with 0; δ only decides on “a little”",
    ),
    "both ends": (_either_end, "inside ±δ means both ends: join the two conditions by “and”"),
    "below −δ": (_one_end, "look at the lower end too: an interval that reaches below −δ is wide"),
    "as it is given": (_half_a_point, "use delta as it is given: it is not always 0.5"),
    "whole interval": (
        _wrong_end,
        "it helps only where the whole interval lies above 0: ask that of the lower end",
    ),
    "width": (_by_its_width, "inside ±δ is about where the ends lie, not about the width"),
}


def _judging(attempt):
    answers = [attempt(*case) for case in INTERVALS]
    truth = [verdict(*case) for case in INTERVALS]
    if answers == truth:
        return ""
    for mistaken, sentence in VERDICTS.values():
        if answers == [mistaken(*case) for case in INTERVALS]:
            return sentence
    case, got, right = next(
        (c, a, t) for c, a, t in zip(INTERVALS, answers, truth, strict=True) if a != t
    )
    if got not in truth:
        return f"the words are {', '.join(dict.fromkeys(truth))}; got {got!r}"
    return f"for {_told(case)} the verdict is “{right}”, got “{got}”"


def _told(case):
    return "low = {:g}, high = {:g}, delta = {:g}".format(*case)


EXERCISES = (
    Exercise(
        "00.1",
        _estimating,
        (
            "np.mean(differences) is the first number; n is len(differences).",
            "np.std(differences, ddof=1) is s: it divides by n − 1.",
        ),
        estimate,
        {word: mistaken for word, (mistaken, _) in ESTIMATES.items()}
        | {
            "two numbers": lambda d, t: d.mean(),
            "in place": _in_place,
            "the mean of": lambda d, t: (d.sum(), t),
            "mean is right": lambda d, t: (d.mean(), t),
        },
    ),
    Exercise(
        "00.2",
        _judging,
        (
            "Ask first where 0 is: below the interval (low > 0), above it (high < 0), or in it.",
            "Inside ±δ: -delta <= low and high <= delta.",
        ),
        verdict,
        {word: mistaken for word, (mistaken, _) in VERDICTS.items()}
        | {
            "lacks a return": _no_last_return,
            "the words are": lambda *case: verdict(*case).title(),
            "the verdict is": lambda low, high, delta: "helps",
        },
    ),
)


QUESTIONS = {
    "00.a": Question(
        (
            "The teacher learned from 1,000 labelled digits. A student that is given only 100 of "
            "those labels reads nearly nine in ten new digits. Taught by the teacher's answers to "
            "all 1,000 images instead, how will it read?"
        ),
        ("no better", "a point better", "more than five points better"),
        2,
        (
            "It comes to within a point or two of its teacher: the answers carry what the teacher "
            "learned from 1,000 labels."
        ),
    ),
    "00.b": Question(
        (
            "The taught student saw 900 more images than the other. Let the teacher speak about "
            "the same 100 images only: how much of the gain is left?"
        ),
        ("nothing", "about a tenth", "more than half"),
        2,
        (
            "About two thirds. On each image the teacher says more than the label does: ten "
            "numbers for one, from a model that has seen 1,000 labels."
        ),
    ),
}
