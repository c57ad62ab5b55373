"""A question before the experiment: its answer leaves Python only once an option is chosen."""

import html
from collections.abc import Mapping
from typing import Any

from kdlab.base import arguments
from kdlab.base.extras import needs
from kdlab.lessons.checks import lessons
from kdlab.lessons.exercises import Question
from kdlab.show.cards import SHEET
from kdlab.show.colours import FAINT, MUTED

with needs("course", asked="predict", why="buttons need"):
    import anywidget
    import traitlets

BOX = f"{SHEET}padding:.9em 1.1em;margin:.5em 0"
HOW = (
    "Choose before you read on. With a kernel these are buttons; the answers of all lessons "
    "stand on one page of the course's site."
)
SCRIPT = """
function render({ model, el }) {
  const make = (tag, style, text = "") =>
    Object.assign(document.createElement(tag), { style, textContent: text });
  const box = make("div", model.get("box"));
  const ask = make("p", "margin:0 0 .7em;font-size:1.12em");
  const row = make("div", "display:flex;flex-wrap:wrap;gap:.5em");
  const said = make("p", "margin:0");
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", model.get("question"));
  // JupyterLab would take Enter to go into the cell; Ctrl-S, to save, stays its own
  const saves = (event) => (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s";
  const keys = (event) => row.contains(event.target) &&
    event.target.toggleAttribute("data-lm-suppress-shortcuts", !saves(event));
  window.addEventListener("keydown", keys, true);
  said.setAttribute("role", "status");
  ask.append(make("b", "", "Predict. "), model.get("question"));
  const buttons = model.get("options").map((words, i) => {
    const button = make("button", "", words);
    button.type = "button";
    button.onclick = () => {
      if (model.get("chosen") >= 0) return; // the first guess stands
      model.set("chosen", i);
      model.save_changes();
    };
    row.append(button);
    return button;
  });
  const show = () => {
    const chosen = model.get("chosen"), found = model.get("found");
    const known = "answer" in found;
    buttons.forEach((button, i) => {
      const right = known && i === found.answer, mine = i === chosen;
      button.style = "font:inherit;padding:.35em 1em;border-radius:.5em;color:#1f2937;" +
        "cursor:" + (chosen < 0 ? "pointer" : "default") + ";" +
        "border:2px solid " + (right ? "#0072B2" : mine ? "#5b6472" : "#d3d9e0") + ";" +
        "background:" + (right ? "#dcebf6" : "#fff") + ";" +
        "font-weight:" + (right || mine ? 650 : 400);
      button.textContent =
        (right ? "✓ " : "") + model.get("options")[i] + (mine ? " (your guess)" : "");
      // a button that is disabled loses the focus, and with it a reader who has no mouse
      button.setAttribute("aria-disabled", chosen >= 0);
    });
    const answer = known && model.get("options")[found.answer];
    said.style.marginTop = chosen < 0 ? "0" : ".7em";
    said.textContent = chosen < 0 ? "" :
      !known ? "Noted. The answer comes as soon as Python is free." :
      (found.answer === chosen ? "Right: " : "It is: ") + answer + ". " + found.because;
  };
  model.on("change:chosen change:found", show);
  show();
  box.append(ask, row, said);
  el.append(box);
  return () => window.removeEventListener("keydown", keys, true);
}
export default { render };
"""


class Buttons(anywidget.AnyWidget):
    """The question as buttons; without a kernel, and as text, the question alone."""

    _esm = SCRIPT
    box = traitlets.Unicode(BOX).tag(sync=True)
    question = traitlets.Unicode().tag(sync=True)
    options = traitlets.List().tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)
    found = traitlets.Dict().tag(sync=True)

    def __init__(self, asked):
        super().__init__(question=asked.text, options=list(asked.options))
        self._asked = asked

    @traitlets.observe("chosen")
    def _choose(self, change):
        if change["new"] >= 0:
            self.found = {"answer": self._asked.answer, "because": self._asked.because}

    def __repr__(self):
        return "\n".join([f"Predict: {self.question}", *(f"  · {o}" for o in self.options), HOW])

    def _repr_mimebundle_(self, **kwargs):
        live = super()._repr_mimebundle_(**kwargs)
        data, metadata = live if isinstance(live, tuple) else (live or {}, {})
        options = "".join(
            f'<span style="display:inline-block;border:2px solid {FAINT};border-radius:.5em;'
            f'padding:.3em 1em;margin:0 .5em .4em 0">{html.escape(option)}</span>'
            for option in self.options
        )
        page = (
            f'<div class="kdlab-predict" style="{BOX}"><p style="margin:0 0 .7em;font-size:1.12em">'
            f"<b>Predict.</b> {html.escape(self.question)}</p><div>{options}</div>"
            f'<div style="font-size:.9em;color:{MUTED}">{HOW}</div></div>'
        )
        return data | {"text/html": page, "text/plain": repr(self)}, metadata


def questions() -> Mapping[str, Question]:
    """All questions of the course by name, "LL.a" the first of lesson LL.

    >>> questions()["03.a"].answer in range(9)
    True
    """
    return {
        name: question
        for lesson in lessons()
        for name, question in getattr(lesson, "QUESTIONS", {}).items()
    }


def predict(name: str) -> Any:
    """The question called "LL.a", as buttons; a guess shows the answer.

    It stands in no notebook, so a page that is only read does not give it away; the site has one
    page with all of them.

    >>> predict("03.a")
    Predict: ...
    """
    known = questions()
    return Buttons(known[arguments.one_of("predict", "name", name, sorted(known))])
