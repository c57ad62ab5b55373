"""A picture with handles: controls, a picture and its numbers; alive in a kernel, else still."""

import asyncio
import base64
import functools
import html
import threading
from pathlib import Path

from kdlab.base.extras import needs
from kdlab.show.plots import plt
from kdlab.show.sheet import BOLD, SHEET

with needs("course", asked="Explorer", why="pictures with handles need"):
    import anywidget
    import traitlets

HERE = Path(__file__).parent
# seconds: messages that came while a picture was computed are all read before the next one begins
PAUSE = 0.02
LENGTH = 300  # characters of an entry
HEIGHT, TEXT = 436, 16  # of a sheet for a screen of 16 to 9, which leaves a quarter for the handles
STAGE = SHEET | {
    "font.size": TEXT,
    "axes.titlesize": TEXT + 1,
    "axes.titleweight": BOLD,
    "axes.titlelocation": "left",
}


def slider(name, label, options, start, shown=None):
    """A slider over listed values: what an `Explorer` takes as a control.

    name: the keyword its value is given to `draw` as; shown: what is written for each option.

    >>> slider("T", "Temperature T", [1, 2, 4], start=4)["shown"]
    ['1', '2', '4']
    """
    return _listed("slider", name, label, options, start, shown)


def choice(name, label, options, start=None, shown=None):
    """A list to choose one option from; the first, where `start` names no other.

    >>> choice("show", "Show", ["layer 1", "layer 3"])["start"]
    'layer 1'
    """
    options = list(options)
    return _listed(
        "choice", name, label, options, options[0] if start is None and options else start, shown
    )


def entry(name, label, start):
    """A line to type in; it counts when Enter is pressed or the line is left.

    >>> entry("logits", "Logits", "3, 1, 0")["kind"]
    'entry'
    """
    return {"kind": "entry", "name": name, "label": label, "start": start, "length": LENGTH}


def _listed(kind, name, label, options, start, shown):
    options = list(options)
    shown = (
        [f"{o:g}" if isinstance(o, float) else str(o) for o in options]
        if shown is None
        else list(shown)
    )
    if not options or len(set(options)) < len(options) or len(shown) != len(options):
        raise ValueError(
            f"{kind}: options must be distinct, at least one, each with its shown text, "
            f"got {options} and {shown}"
        )
    if start not in options:
        raise ValueError(f"{kind}: start must be one of the options {options}, got {start!r}")
    return {
        "kind": kind,
        "name": name,
        "label": label,
        "start": start,
        "options": options,
        "shown": shown,
    }


def on_stage(draw):
    """A function that draws for a projector: no text below `TEXT`, 20 pixels where 1,280 are seen.

    >>> @on_stage
    ... def size():
    ...     return plt.rcParams["font.size"]
    >>> size()
    16.0
    """

    @functools.wraps(draw)
    def styled(*args, **options):
        with plt.rc_context(STAGE):
            return draw(*args, **options)

    return styled


class Explorer(anywidget.AnyWidget):
    """Controls, a picture that follows them, and its numbers as text.

    title: shown above. controls: from `slider`, `choice` and `entry`. draw: a function of the
    controls' values by name → (`plots.Picture`, lines of text). Of values that come while a picture
    is computed the last one wins; an error in `draw` is shown as text, beside the last picture. As
    an output the explorer also holds its picture and text, so that a page without a kernel shows
    them. Raises what `draw` raises at the start values.

    >>> from kdlab import plots
    >>> def draw(T):
    ...     figure, ax = plots.axes()
    ...     return plots.Picture(figure, "A caption.", "An empty plot."), [f"T is {T}"]
    >>> explorer = Explorer("Example", [slider("T", "Temperature T", [1, 2, 4], 2)], draw)
    >>> explorer.move(T=4).answer["lines"]
    ['T is 4']
    >>> explorer
    Explorer: Example (Temperature T: 4). A caption. [An empty plot.]
    """

    _esm = HERE / "explorer.js"
    _css = HERE / "explorer.css"
    title = traitlets.Unicode().tag(sync=True)
    controls: traitlets.List = traitlets.List().tag(sync=True)
    values = traitlets.Dict().tag(sync=True)
    # picture and text in one message, so that they change together
    answer = traitlets.Dict().tag(sync=True)

    def __init__(self, title, controls, draw):
        names = [c["name"] for c in controls]
        if len(set(names)) < len(names):
            raise ValueError(f"Explorer: controls must have names of their own, got {names}")
        values = {c["name"]: c["start"] for c in controls}
        self._picture, lines = draw(**values)
        super().__init__(
            title=title,
            controls=list(controls),
            values=values,
            answer=_answer(values, self._picture, lines),
        )
        # JupyterLab hands messages to a thread beside the cells'
        self._draw, self._lock = draw, threading.RLock()
        self._asked = self._drawn = 0
        self.observe(self._changed, "values")

    def move(self, **values):
        """Set controls by name, draw at once and return the explorer.

        >>> from kdlab import peaks_explorer
        >>> peaks_explorer().move(distance=3.0).values["distance"]
        3.0
        """
        if unknown := [name for name in values if name not in self.values]:
            raise ValueError(
                f"move: {unknown} are not controls; expected names of {list(self.values)}"
            )
        self.values = self.values | values
        self._settle()
        return self

    def _changed(self, change):
        self._asked += 1
        try:
            loop, asked = asyncio.get_running_loop(), self._asked
        except RuntimeError:  # no kernel around: nothing else could call
            return self._settle()
        loop.call_later(PAUSE, lambda: asked == self._asked and self._settle())

    def _settle(self):
        """Draw what was asked for last, unless it is drawn already."""
        with self._lock:
            asked, values = self._asked, dict(self.values)
            if self._drawn == asked:
                return
            try:
                self._check(values)
                self._picture, lines = self._draw(**values)
                found = _answer(values, self._picture, lines)
            except (Exception, KeyboardInterrupt) as error:
                words = str(error) or type(error).__name__
                found = self.answer | {"values": values, "error": f"Not drawn: {words}"}
            self._drawn = asked
            self.answer = found

    def _check(self, values):
        """What a browser sends may be anything."""
        if set(values) != {c["name"] for c in self.controls}:
            raise ValueError(
                f"the values must be those of {[c['name'] for c in self.controls]}, "
                f"got {list(values)}"
            )
        for c in self.controls:
            value = values[c["name"]]
            if c["kind"] == "entry" and not (isinstance(value, str) and len(value) <= LENGTH):
                raise ValueError(f"{c['label']} must be text of at most {LENGTH} characters")
            if c["kind"] != "entry" and (isinstance(value, bool) or value not in c["options"]):
                raise ValueError(
                    f"{c['label']} must be one of {', '.join(c['shown'])}, got {value!r}"
                )

    def _settings(self):
        def said(c):
            value = self.answer["values"].get(c["name"])
            return (
                c["shown"][c["options"].index(value)]
                if c.get("options") and value in c["options"]
                else value
            )

        return ", ".join(f"{c['label']}: {said(c)}" for c in self.controls)

    def __repr__(self):
        return (
            f"Explorer: {self.title} ({self._settings()}). "
            f"{self.answer['caption']} [{self.answer['alt']}]"
        )

    def _repr_mimebundle_(self, **kwargs):
        self._settle()
        live, words = super()._repr_mimebundle_(**kwargs), html.escape
        data, metadata = live if isinstance(live, tuple) else (live or {}, {})
        still = self._picture._repr_mimebundle_()
        # <samp>: what a computation put out, which may differ in its last digits on another machine
        page = (
            f"<h4>{words(self.title)}</h4>{still['text/html']}"
            f"<p>{words(self._settings())}</p><p>"
            + "<br>".join(f"<samp>{words(line)}</samp>" for line in self.answer["lines"])
            + "</p><p><em>A still picture: run the cell to get the controls.</em></p>"
        )
        shown = {"text/html": page, "image/png": still["image/png"], "text/plain": repr(self)}
        return data | shown, metadata


def _answer(values, picture, lines):
    src = f"data:image/svg+xml;base64,{base64.b64encode(picture.svg).decode()}"
    return {
        "values": values,
        "src": src,
        "alt": picture.alt,
        "caption": picture.caption,
        "lines": list(lines),
        "error": "",
    }
