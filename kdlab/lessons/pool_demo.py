"""A pool before the class comes: simulated laptops send one by one, on a screen with handles."""

import functools
import tempfile
from itertools import groupby
from pathlib import Path

from kdlab.evidence.intervals import DELTA
from kdlab.lessons.pool_book import COUNTS, Book, Sent, Terms
from kdlab.lessons.pool_reading import LEAST, dots, predictions
from kdlab.lessons.pool_simulate import MEAN, SPREAD, results
from kdlab.show.colours import BLUE, FAINT, GREEN, GREY, HAIR, INK, LIGHT, MUTED, TINT, VERMILLION
from kdlab.show.explorer import HEIGHT, Explorer, on_stage, slider
from kdlab.show.plots import Picture
from kdlab.show.sheet import BOLD, EDGE, ROLES, panel, rectangle, sheet

LAPTOPS = 30
TERMS = Terms("Does the teacher help?", simulated=True)
LEFT, TOP, ACROSS, HIGH = 62, 44, 600, 290  # pixels of the sheet, as in `panel`
SIDE = 716  # where the words at the right begin
NONE = f"no verdict below {LEAST} splits"
HUES = {"helps": BLUE, "hurts": VERMILLION, "no difference": GREEN, "cannot tell": GREY}


def pool_explorer() -> Explorer:
    """Simulated laptops send to a pool: dots arrive, the interval shrinks → `Explorer`.

    No student is trained: the differences are drawn, from the mean and the spread that are chosen.

    >>> explorer = pool_explorer().move(sent=LAPTOPS)
    >>> explorer.answer["lines"][0]
    '30 of 30 laptops have sent: 27 splits count, 6 results do not.'
    """
    means, spreads = [-1.0, 0.0, 0.4, 0.8, MEAN, 2.0, 3.0], [0.5, 1.2, SPREAD, 4.0]
    handles = [
        slider("sent", "Laptops that have sent", range(LAPTOPS + 1), 12),
        slider("mean", "True difference", means, MEAN, [f"{m:+.1f} points" for m in means]),
        slider(
            "spread", "Spread between splits", spreads, SPREAD, [f"{s} points" for s in spreads]
        ),
        slider("group", "Class", range(1, 11), 1),
    ]
    return Explorer("The class is the experiment (simulated)", handles, _arrived)


@functools.lru_cache(32)
def simulated(mean, spread, group):
    """[the entries of a laptop] as a pool judges them, for each laptop in turn.

    >>> len(simulated(MEAN, SPREAD, 1))
    30
    """
    with tempfile.TemporaryDirectory(prefix="kdlab-") as folder:
        book, found = Book(Path(folder), TERMS), []
        for number in range(LAPTOPS):
            split = book.join(f"{number}")
            what = results(number, split, mean, spread, group)
            found.append([book.enter(Sent(f"{number}", split, d, "points", p)) for d, p in what])
    return found


def _arrived(sent, mean, spread, group):
    everyone = simulated(mean, spread, group)
    entries = [entry for laptop in everyone[:sent] for entry in laptop]
    whole = dots([entry for laptop in everyone for entry in laptop], TERMS)
    seen = dots(entries, TERMS)
    return _drawn(seen, whole, predictions(entries), mean), _words(sent, entries, seen)


@on_stage
def _drawn(seen, whole, foreseen, mean):
    figure, canvas = sheet(HEIGHT)
    canvas.text(EDGE, 26, "difference in points, a dot a laptop", color=MUTED)
    canvas.text(LEFT + ACROSS, 26, "dashed: the true one", color=GREEN, ha="right")
    ax = panel(figure, LEFT, TOP, ACROSS, HIGH)
    _funnel(ax, seen, whole, mean)
    ax.tick_params(labelbottom=False)
    _strip(canvas, seen, len(whole))
    canvas.text(SIDE, 26, "simulated laptops", color=VERMILLION)
    verdict, said = _told(seen)
    _side(canvas, verdict, said, len(seen), foreseen)
    return Picture(
        figure,
        "Simulated: the differences are drawn, no student was trained. Band and bar: the 95 % "
        "interval after each dot; grey: too small to care about; dashed: the true difference. "
        "Below, the verdict after each dot.",
        f"{len(seen)} dots in the order they came, with an interval that narrows around their "
        f"mean. Verdict: {verdict}. {said}".strip(),
    )


def _funnel(ax, seen, whole, mean):
    """Dots, and mean and interval after each; the axes are those of the whole class."""
    delta, count = DELTA[TERMS.measure], len(whole)
    reach = [d["difference"] for d in whole] + [-2 * delta, 2 * delta, mean]
    room = 0.08 * (max(reach) - min(reach))
    ax.axhspan(-delta, delta, color=HAIR, lw=0)
    ax.axhline(0, color=INK, lw=2)
    ax.axhline(mean, **ROLES["teacher"])
    known = [(i, d) for i, d in enumerate(seen, start=1) if d["low"] is not None]
    if known:
        x, last = [i for i, _ in known], known[-1][1]
        low, high, middle = ([d[key] for _, d in known] for key in ("low", "high", "mean"))
        ax.fill_between(x, low, high, color=TINT, lw=0)
        ax.plot(x, middle, color=BLUE, lw=3)
        end = count + 1.3
        ax.plot([end, end], [last["low"], last["high"]], color=BLUE, lw=9, solid_capstyle="butt")
        ax.plot(end, last["mean"], "o", color=BLUE, markersize=16, markeredgecolor="white")
    values = [d["difference"] for d in seen]
    look = dict(markersize=13, markeredgecolor="white", ls="")
    ax.plot(range(1, len(seen) + 1), values, "o", color=LIGHT, **look)
    ax.set(xlim=(0.3, count + 2), ylim=(min(reach) - room, max(reach) + room), xticks=[])
    ax.locator_params(axis="y", nbins=6)


def _strip(canvas, seen, count):
    """The verdict after each dot as a row of colours, named where there is room."""
    step, top, taken = ACROSS / (count + 1.7), TOP + HIGH + 14, []
    for verdict, first, last in sorted(_spans(seen), key=lambda span: span[0] == "cannot tell"):
        left, wide = LEFT + (first - 0.8) * step, 10.5 * len(verdict)
        rectangle(canvas, left, top, (last - first + 1) * step - 2, 18, facecolor=_hue(verdict))
        left = min(left, SIDE - 20 - wide)
        if all(left + wide <= other or left >= end for other, end in taken):
            canvas.text(left, top + 42, verdict, color=_hue(verdict), fontweight=BOLD)
            taken.append((left, left + wide))
    canvas.text(LEFT, HEIGHT - 10, "in the order they came →", color=MUTED)


def _spans(seen):
    """[(verdict, from this dot, to this one)], from the first dot that has a verdict."""
    known = [(i, d["verdict"]) for i, d in enumerate(seen, start=1) if d["verdict"]]
    found = []
    for verdict, group in groupby(known, key=lambda pair: pair[1]):
        places = [i for i, _ in group]
        found.append((verdict, places[0], places[-1]))
    return found


def _hue(verdict):
    return HUES[verdict.removesuffix(" a little")]


def _told(seen):
    """(verdict, mean and half width in words) after the last dot."""
    if len(seen) < LEAST:
        return NONE, ""
    last = seen[-1]
    half = (last["high"] - last["low"]) / 2
    return last["verdict"], f"{last['mean']:+.2f} ± {half:.2f} points"


def _side(canvas, verdict, said, count, foreseen):
    """The verdict in large letters, and what the class had predicted."""
    none = verdict == NONE
    size, hue = (17, MUTED) if none else (30, _hue(verdict))
    canvas.text(
        SIDE, 78, "no verdict yet" if none else verdict, fontsize=size, color=hue, fontweight=BOLD
    )
    canvas.text(SIDE, 114, said, fontsize=20, fontweight=BOLD)
    canvas.text(SIDE, 146, f"{count} split{'s' * (count != 1)}", color=MUTED)
    canvas.text(SIDE, 206, "they predicted", color=MUTED)
    most = max(1, *foreseen.values())
    for row, (name, votes) in enumerate(foreseen.items()):
        y = 238 + 62 * row
        canvas.text(SIDE, y, name)
        canvas.text(SIDE + 240, y, f"{votes}", ha="right")
        rectangle(canvas, SIDE, y + 9, 240, 14, facecolor=HAIR)
        rectangle(canvas, SIDE, y + 9, 240 * votes / most, 14, facecolor=FAINT if none else GREY)


def _words(sent, entries, seen):
    apart = [e for e in entries if e.status != COUNTS]
    verdict, said = _told(seen)
    spans = [f"{name} from {first}" for name, first, _ in _spans(seen)]
    votes = ", ".join(f"{name} {count}" for name, count in predictions(entries).items())
    return [
        f"{sent} of {LAPTOPS} laptops have sent: {len(seen)} splits count, "
        f"{len(apart)} results do not.",
        f"{said}; verdict: {verdict}" if said else f"{verdict}".capitalize(),
        f"Verdicts as the dots came: {', '.join(spans) or 'none yet'}.",
        f"Predicted: {votes}.",
        *[f"Does not count, split {e.sent.split}: {e.status}, {e.reason}." for e in apart],
    ]
