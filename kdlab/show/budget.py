"""An explorer for planning: what a distillation costs before it is begun."""

from kdlab.evidence.budget import PUBLISHED, WAYS, Machine, plan, size_of
from kdlab.show.colours import BLUE, GREEN, MUTED, ORANGE
from kdlab.show.explorer import HEIGHT, Explorer, choice, on_stage, slider
from kdlab.show.picture import Picture
from kdlab.show.sheet import BOLD, EDGE, panel, rectangle, sheet, width_of

CARD = {"rate": 4e14, "bandwidth": 3.3e12}  # an H100 at 40 % of what is printed on its box
TOKENS = [1e7, 1e8, 1e9, 1e10, 1e11, 1e12]
WORDS = ["10 million", "100 million", "1 billion", "10 billion", "100 billion", "1 trillion"]
PARTS = {"teacher_flops": ("teacher", GREEN), "student_flops": ("student", BLUE)}


def budget_explorer() -> Explorer:
    """Hours, money and disk of four ways to train a student, by sizes, tokens, k and price.

    → `Explorer`. Hours are those of one card that reaches 400 TFLOP/s and reads 3.3 TB/s, an H100
    roughly; several cards take as many hours together, if they lose none by waiting. The numbers
    are `kdlab.evidence.budget.plan`'s, with what that leaves out.

    >>> explorer = budget_explorer()
    >>> explorer.move(tokens=1e10).answer["error"]
    ''
    """
    names = list(PUBLISHED)
    sizes = {name: size_of(name) for name in names}

    def draw(teacher, student, tokens, epochs, k, price):
        if sizes[student].parameters >= sizes[teacher].parameters:
            raise ValueError(f"student must be smaller than its teacher, got {student}")
        machine = Machine(**CARD, price=price)
        table = plan(sizes[teacher], sizes[student], tokens, epochs, k, machine)
        lines = _words(table)
        if sizes[teacher].vocabulary != sizes[student].vocabulary:
            lines.append(
                "These two have other vocabularies: their logits can't be compared place by place "
                "(lesson 11), and a teacher's text is what is left."
            )
        return _bars(table, teacher, student, tokens, epochs), lines

    handles = [
        choice("teacher", "Teacher", names[2:], names[-1]),
        choice("student", "Student", names[:-1], names[0]),
        slider("tokens", "Tokens of text", TOKENS, 1e9, WORDS),
        slider("epochs", "Epochs", [1, 2, 3, 5, 10], 3),
        slider("k", "Kept of an answer: k", [20, 64, 128, 256], 128),
        slider("price", "Dollars an hour", [1, 2, 3, 5, 8], 3),
    ]
    return Explorer("What will it cost?", handles, draw)


@on_stage
def _bars(table, teacher, student, tokens, epochs):
    figure, canvas = sheet(HEIGHT)
    said = f"{teacher} → {student}, {tokens:,.0f} tokens, {_times(epochs)}"
    canvas.text(EDGE, 34, said, fontsize=20, color=MUTED)
    left = 230
    _hours(panel(figure, left, 96, 430, HEIGHT - 170), table)
    for x, title in ((690, "money"), (800, "disk"), (900, "memory")):
        canvas.text(x, 84, title, fontsize=15, color=MUTED)
    for row, way in enumerate(table.index):
        y = 102 + (HEIGHT - 170) * (row + 0.6) / len(table)  # the height of its bar
        one = table.loc[way]
        canvas.text(690, y, _short(one["dollars"], "$"), fontsize=17, fontweight=BOLD)
        canvas.text(800, y, _bytes(one["disk"]) if one["disk"] else "–", fontsize=17)
        canvas.text(900, y, _bytes(one["memory"]), fontsize=17)
    x = left
    key = [*PARTS.values(), ("writing", ORANGE)]
    for words, colour in key:
        rectangle(canvas, x, 60, 14, 14, facecolor=colour)
        canvas.text(x + 20, 73, words, fontsize=15, color=MUTED)
        x += 44 + width_of(words, 15)
    return Picture(
        figure,
        "Hours of a card that reaches 400 TFLOP/s and reads 3.3 TB/s; memory of weights, gradients "
        "and Adam's means, and of a teacher that is asked. Recomputed activations, evaluation and "
        "waiting come on top.",
        "Four bars, one a way to train, of hours for teacher, student and writing; beside each its "
        "money, disk and memory, which are named in the text below.",
    )


def _hours(ax, table):
    """A bar for each way: the teacher's hours, the student's, and those of writing."""
    writing = table["hours"] - table[list(PARTS)].sum(axis=1) / CARD["rate"] / 3600
    for row, way in enumerate(table.index):
        at = 0.0
        for part, (_, colour) in PARTS.items():
            hours = table.loc[way, part] / CARD["rate"] / 3600
            ax.barh(-row, hours, left=at, color=colour, height=0.6)
            at += hours
        ax.barh(-row, writing[way], left=at, color=ORANGE, height=0.6)
    ax.set(xlabel="hours of one card", ylim=(0.6 - len(table), 0.6))
    ax.set_xlim(0, 1.05 * float(table["hours"].max()))
    ax.set_yticks([-row for row in range(len(table))], table.index)
    ax.locator_params(axis="x", nbins=5)
    ax.grid(False, axis="y")
    ax.grid(True, axis="x")


def _words(table):
    return [
        f"{way}: {_short(one['hours'], '')} hours, {_short(one['dollars'], '')} dollars, "
        f"{_bytes(one['disk'])} of disk, {_bytes(one['memory'])} of memory."
        for way, one in ((way, table.loc[way]) for way in WAYS)
    ]


def _times(epochs):
    return f"{epochs} epoch{'s' if epochs > 1 else ''}"


def _short(value, unit):
    """A number in three figures at most.

    >>> _short(1234567, "$"), _short(0.123, ""), _short(45.6, "$")
    ('$1.23 million', '0.12', '$46')
    """
    for size, word in ((1e9, " billion"), (1e6, " million")):
        if value >= size:
            return f"{unit}{value / size:.3g}{word}"
    return f"{unit}{value:,.0f}" if value >= 10 else f"{unit}{value:.2g}"


def _bytes(size):
    """Bytes with the unit that fits.

    >>> _bytes(518e9), _bytes(0)
    ('518 GB', '0 MB')
    """
    for unit, name in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size / 1e6:.3g} MB"
