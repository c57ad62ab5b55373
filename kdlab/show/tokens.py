"""Tokens as text: shaded by how likely a model finds them, or each with what it expected."""

import numbers
from typing import Any

from kdlab.base import arguments
from kdlab.show.colours import HAIR, INK, MUTED
from kdlab.show.picture import Picture
from kdlab.show.sheet import (
    BOLD,
    EDGE,
    WIDTH,
    heading,
    on_sheet,
    percent,
    rectangle,
    sheet,
    width_of,
)

# (at least, colour, ink, words): a token's probability in four shades
BANDS = [
    (0.1, "white", INK, "10 % or more"),
    (0.01, "#fbe3d4", INK, "1 to 10 %"),
    (0.001, "#f0a574", INK, "0.1 to 1 %"),
    (0.0, "#9c3c00", "white", "below 0.1 %"),
]
SIZE, LINE, LETTER = 13.0, 23, 13.0 * 0.602  # pixels: text, a line of it, a letter
CAME, OTHERS = "#e39a6c", "#dde2e8"
GAP, BETWEEN, TOP = 28, 18, 5  # pixels between panels, between texts; words expected a token
COLUMN, ROW = 104, 18  # a token with its words, a word
INVISIBLE = {"\n": "⏎", "\t": "→", "\r": "␍"}


@on_sheet
def tokens(
    sequence: Any, caption: str, alt: str, title: str | None = None, top: int = TOP
) -> Picture:
    """Tokens as text, shaded by a probability, or in columns with the words expected → `Picture`.

    sequence: [(token, probability)], text in which what a model finds unlikely is dark; or
    [(token, {word: probability})], each token above the `top` likeliest words, its own one in
    colour. Several by name, {name: sequence}, stand side by side, or one below another; shaded,
    each may be a list of texts, [sequence, …], which begin in line with the other panels' texts.
    None as a probability: a token that was given, such as a prompt's.

    >>> tokens([("The", None), (" sky", 0.2), (" was", 0.6)], "A sentence.", "Three tokens.")
    Figure: A sentence. [Three tokens.]
    >>> tokens([(" was", {" was": 0.6, " is": 0.3})], "A guess.", "was 60 %, is 30 %.")
    Figure: A guess. [was 60 %, is 30 %.]
    """
    panels = sequence if isinstance(sequence, dict) else {"": sequence}
    arguments.whole("tokens", "top", top, least=1)
    panels = {name: _texts(name, given) for name, given in panels.items()}
    if not panels or not all(text for texts in panels.values() for text in texts or [None]):
        raise ValueError("tokens: sequence must hold a token at least")
    if len({len(texts) for texts in panels.values()}) > 1:
        told = ", ".join(f"{name!r}: {len(texts)}" for name, texts in panels.items())
        raise ValueError(f"tokens: sequence must hold as many texts in every panel, got {told}")
    every = [p for texts in panels.values() for text in texts for _, p in text if p is not None]
    kinds = {isinstance(p, dict) for p in every}
    if len(kinds) > 1:
        raise TypeError("tokens: sequence must hold probabilities or {word: probability}, not both")
    if kinds != {True}:
        return Picture(_shaded(panels, title), caption, alt)
    if any(len(texts) > 1 for texts in panels.values()):
        raise ValueError("tokens: sequence must hold one text a panel where words are expected")
    figure = _expected({name: texts[0] for name, texts in panels.items()}, title, top)
    return Picture(figure, caption, alt)


def _texts(name, given):
    """A panel's texts: one, or a list of them."""
    found = arguments.listed("tokens", f"sequence {name!r}" if name else "sequence", given)
    return [_checked(name, text) for text in (found if _several(found) else [found])]


def _several(found):
    """Whether it is a list of texts; a pair may be a list too, and begins with a token."""
    return bool(found) and all(
        isinstance(text, list) and not (text and isinstance(text[0], str)) for text in found
    )


def _checked(name, given):
    found = arguments.listed("tokens", f"sequence {name!r}" if name else "sequence", given)
    for pair in found:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], str):
            raise TypeError(f"tokens: sequence must hold (token, probability), got {pair!r}")
        for p in pair[1].values() if isinstance(pair[1], dict) else [pair[1]]:
            right = p is None or isinstance(p, numbers.Real) or hasattr(p, "item")
            if not right or (p is not None and not 0 <= float(p) <= 1 + 1e-6):
                raise ValueError(f"tokens: a probability must lie in [0, 1], got {p!r}")
    return [tuple(pair) for pair in found]


def _visible(token):
    """The token as letters that a page can hold: a model may write bytes that are no text.

    >>> _visible("a\\n\\x02b")
    'a⏎·b'
    """
    kept = (letter.isprintable() and letter != "\ufffd" for letter in token)
    return "".join(
        letter if seen else INVISIBLE.get(letter, "·")
        for letter, seen in zip(token, kept, strict=True)
    )


def _shaded(panels, title):
    wide = (WIDTH - 2 * EDGE - GAP * (len(panels) - 1)) / len(panels)
    columns = int(wide / LETTER)
    lines = {name: [_lines(text, columns) for text in texts] for name, texts in panels.items()}
    first = 84 if any(panels) else 60
    first -= 0 if title else 32
    tall = [max(map(len, texts)) for texts in zip(*lines.values(), strict=True)]
    tops = [first + LINE * sum(tall[:k]) + BETWEEN * k for k in range(len(tall) + 1)]
    figure, canvas = sheet(tops[-1] - BETWEEN + 14)
    key = [(colour, words) for _, colour, _, words in BANDS]
    heading(canvas, title, key)
    for i, (name, found) in enumerate(lines.items()):
        x = EDGE + i * (wide + GAP)
        canvas.text(x, first, name, fontsize=14, fontweight=BOLD)
        for top, text in zip(tops, found, strict=False):
            for row, line in enumerate(text):
                for start, words, p in line:
                    _token(canvas, x + LETTER * start, top + 26 + LINE * row, words, p)
    for top in tops[1:-1]:
        y = top + 26 - LINE + 4 - BETWEEN / 2
        canvas.plot([EDGE, WIDTH - EDGE], [y, y], color=HAIR, linewidth=1)
    return figure


def _token(canvas, x, y, words, p):
    _, colour, ink, _ = next(band for band in BANDS if p is None or p >= band[0])
    if colour != "white":
        wide = LETTER * len(words)
        rectangle(
            canvas, x, y - 16, wide, LINE - 2, facecolor=colour, edgecolor="white", linewidth=1
        )
    if words.strip():
        shift = len(words) - len(words.lstrip(" "))  # SVG drops spaces at a text's beginning
        look = {"family": "monospace", "fontsize": SIZE, "color": MUTED if p is None else ink}
        canvas.text(x + LETTER * shift, y, words.strip(" "), **look)


def _lines(given, columns):
    """[[(column, text, probability)]]: tokens set on lines, a long one broken, a new line begun
    after a line break."""
    lines = [[]]
    column = 0
    for token, p in given:
        p = None if p is None else float(p)
        words = _visible(token)
        if column and column + len(words) > columns:
            lines.append([])
            column, words = 0, words.lstrip(" ") or words
        for start in range(0, len(words), columns):
            if start:
                lines.append([])
                column = 0
            part = words[start : start + columns]
            lines[-1].append((column, part, p))
            column += len(part)
        if token.endswith("\n"):
            lines.append([])
            column = 0
    return lines if lines[-1] else lines[:-1]


def _expected(panels, title, top):
    across = int((WIDTH - 2 * EDGE) // COLUMN)
    step = (WIDTH - 2 * EDGE) / across
    row = 46 + ROW * (top + 1)
    tops, y = {}, 84 if title else 52
    for name, given in panels.items():
        tops[name] = y + (24 if name else 0)
        y = tops[name] + row * -(-len(given) // across) + 6
    figure, canvas = sheet(y)
    heading(canvas, title, [(CAME, "the word that came"), (OTHERS, "what else was expected")])
    for name, given in panels.items():
        canvas.text(EDGE, tops[name] - 22, name, fontsize=14, fontweight=BOLD)
        for i, (token, words) in enumerate(given):
            down, along = divmod(i, across)
            x = EDGE + along * step
            _column(canvas, x, tops[name] + down * row, step - 12, token, words or {}, top)
    return figure


def _column(canvas, x, y, wide, token, words, top):
    """A token, and below it the likeliest words as bars; its own comes last where it is not one."""
    canvas.text(x, y + 12, _fit(token, wide, 15, BOLD), fontsize=15, fontweight=BOLD)
    canvas.plot([x, x + wide], [y + 20, y + 20], color=HAIR, linewidth=1.5)
    likely = sorted(words.items(), key=lambda pair: -float(pair[1]))[:top]
    if token in words and token not in dict(likely):
        likely.append((token, words[token]))
    for i, (word, p) in enumerate(likely):
        foot, came = y + 37 + ROW * i + (4 if i == top else 0), word == token
        rectangle(
            canvas,
            x,
            foot - 12,
            max(wide * float(p), 1.5),
            15,
            facecolor=CAME if came else OTHERS,
        )
        share = percent(float(p)) if came else ""
        room = wide - 6 - (width_of(share, 12, BOLD) + 6 if share else 0)
        look = {"fontsize": 12, "fontweight": BOLD if came else "normal", "color": INK}
        canvas.text(x + 4, foot, _fit(word, room, 12, look["fontweight"]), **look)
        on_the_bar = wide * float(p) > wide - 2 - width_of(share, 12, BOLD)
        dark = INK if on_the_bar else "#9c3c00"
        look = {"fontsize": 12, "fontweight": BOLD, "color": dark, "ha": "right"}
        canvas.text(x + wide - 2, foot, share, **look)


def _fit(token, wide, size, weight):
    """A token's letters without its blank, cut where it is too wide; a blank alone is shown."""
    words = _visible(token).strip() or "␣"
    while len(words) > 2 and width_of(words, size, weight) > wide:
        words = words[:-2] + "…"
    return words
