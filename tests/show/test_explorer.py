"""Explorers: the newest value wins, errors are text, and a page without a kernel shows picture and
numbers."""

import asyncio
import base64
import re
import subprocess
import sys
from functools import partial
from xml.etree import ElementTree

import pytest
from test_notebooks import MACHINE_PATH, Figures
from test_sanitize import mask

import kdlab as kd
from kdlab.show import explorer as widgets
from kdlab.show import hidden_layers as layers
from kdlab.show import peaks, plots
from kdlab.show import race as races

PNG = b"\x89PNG\r\n\x1a\n"


def example(draw=None, controls=None):
    """An explorer that draws an empty plot, and the list of the values it drew."""
    drawn = []

    def empty(**values):
        drawn.append(values)
        figure, _ = plots.axes(figsize=(2, 1))
        return plots.Picture(figure, f"Caption <{values}>.", "An empty plot."), [
            f"drawn {len(drawn)} <b>"
        ]

    controls = controls or [
        widgets.slider("T", "Temperature T", [1.0, 2.0, 4.0], 2.0),
        widgets.entry("z", "Logits", "1"),
    ]
    return widgets.Explorer("Example", controls, draw or empty), drawn


def from_browser(explorer, **values):
    """What a moved control does: the widget's state is set by a message, not by `move`."""
    explorer.set_state({"values": explorer.values | values})


def drawing(explorer):
    """The picture that a browser is sent, as SVG."""
    return base64.b64decode(explorer.answer["src"].removeprefix("data:image/svg+xml;base64,"))


def test_moving_a_control_gives_a_new_picture_and_text():
    explorer, drawn = example()
    first = explorer.answer
    from_browser(explorer, T=4.0)
    assert drawn == [{"T": 2.0, "z": "1"}, {"T": 4.0, "z": "1"}]
    assert (
        explorer.answer["values"] == {"T": 4.0, "z": "1"}
        and explorer.answer["lines"] != first["lines"]
    )
    assert ElementTree.fromstring(drawing(explorer)).tag.endswith("svg")


def test_of_values_that_come_while_it_computes_the_last_one_wins_and_those_between_are_not_drawn():
    explorer, drawn = example()

    async def moved():
        for T in (4.0, 1.0, 2.0, 4.0):
            from_browser(explorer, T=T)
        await asyncio.sleep(0.5)
        from_browser(explorer, T=1.0)
        from_browser(explorer, z="2")
        await asyncio.sleep(0.5)

    asyncio.run(moved())
    assert [v["T"] for v in drawn] == [2.0, 4.0, 1.0]
    assert explorer.answer["values"] == {"T": 1.0, "z": "2"}


def test_a_picture_that_is_asked_for_before_it_is_drawn_is_drawn_at_once():
    explorer, drawn = example()

    async def moved():
        from_browser(explorer, T=4.0)
        assert explorer.move(T=1.0).answer["values"]["T"] == 1.0
        from_browser(explorer, T=2.0)
        assert "T: 2," in explorer._repr_mimebundle_()[0]["text/plain"]
        await asyncio.sleep(0.5)

    asyncio.run(moved())
    assert [v["T"] for v in drawn] == [2.0, 1.0, 2.0]


@pytest.mark.parametrize(
    "raised", [ValueError("no such thing"), KeyboardInterrupt(), ZeroDivisionError()]
)
def test_an_error_is_text_beside_the_last_picture_and_the_next_value_is_drawn(raised):
    def draw(T, z):
        if T == 4.0:
            raise raised
        return plots.Picture(plots.axes()[0], "Caption.", "Alt."), ["fine"]

    explorer, _ = example(draw)
    before = explorer.answer
    from_browser(explorer, T=4.0)
    assert (str(raised) or type(raised).__name__) in explorer.answer["error"]
    assert explorer.answer["src"] == before["src"] and explorer.answer["values"]["T"] == 4.0
    from_browser(explorer, T=1.0)
    assert explorer.answer["error"] == "" and explorer.answer["lines"] == ["fine"]


@pytest.mark.parametrize(
    "values, word",
    [
        ({"T": 3.0}, "must be one of 1, 2, 4"),
        ({"T": None}, "must be one of"),
        ({"T": True}, "must be one of"),
        ({"T": [1.0]}, "must be one of"),
        ({"z": "9" * 301}, "at most 300"),
        ({"z": 7}, "must be text"),
        ({"other": 1}, "the values must be those of"),
    ],
)
def test_what_a_browser_sends_is_checked(values, word):
    explorer, drawn = example()
    from_browser(explorer, **values)
    assert word in explorer.answer["error"] and len(drawn) == 1
    assert repr(explorer)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="start must be one of"):
        widgets.slider("T", "T", [1, 2], 3)
    with pytest.raises(ValueError, match="options must be distinct"):
        widgets.choice("T", "T", [1, 1])
    with pytest.raises(ValueError, match="options must be distinct"):
        widgets.choice("T", "T", [])
    with pytest.raises(ValueError, match="names of their own"):
        example(controls=[widgets.entry("z", "a", ""), widgets.entry("z", "b", "")])
    with pytest.raises(ValueError, match="'t' are not controls|not controls"):
        example()[0].move(t=1)
    with pytest.raises(ZeroDivisionError):  # at the start nothing is there to be shown beside it
        example(lambda T, z: 1 / 0)


def test_without_a_kernel_picture_words_and_numbers_are_there():
    explorer, _ = example()
    data, _ = explorer._repr_mimebundle_()
    found = Figures(data["text/html"])
    assert found.good == 1 and not found.silent
    assert base64.b64decode(data["image/png"]).startswith(PNG)
    assert "<samp>drawn 1 &lt;b&gt;</samp>" in data["text/html"] and "<b>" not in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/plain"].startswith("Explorer: Example (Temperature T: 2, Logits: 1). Caption")


EXPLORERS = {
    "choice": lambda: kd.choose_student_explorer(),
    "temperature": lambda: kd.temperature_explorer(),
    "peaks": lambda: kd.peaks_explorer(),
    "race": lambda: kd.distillation_race(count=4, steps=10),
    "hidden": lambda: kd.hidden_layers_explorer(epochs=1),
}


def few_steps(fit, *given):
    """A fit of two steps, told for every mark."""
    return dict.fromkeys(peaks.MARKS, fit(*given, marks=(0, 2))[2])


@pytest.fixture
def hurried(monkeypatch):
    """Drawn as ever, but hardly fitted or trained."""
    monkeypatch.setattr(peaks, "fit_bell", partial(few_steps, peaks.fit_bell))
    for module in (races, layers):
        train = partial(lambda real, *args, **o: real(*args, **o | {"epochs": 1}), module.train)
        monkeypatch.setattr(module, "train", train)


def assert_legible(svg):
    """At 1280 × 720, as wide as the screen: no letter below 20 pixels, two thirds of it filled."""
    wide, high = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    letters = [float(size) for size in re.findall(r"font(?:-size)?: [^;]*?([\d.]+)px", svg)]
    assert len(letters) > 5 and min(letters) * 1256 / wide >= 20
    assert 1256 * 1256 * high / wide >= 2 / 3 * 1280 * 720


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_control_of_an_explorer_can_be_moved_to_its_ends(name, hurried):
    explorer = EXPLORERS[name]()
    for control in explorer.controls:
        for value in dict.fromkeys(
            [control["options"][0], control["options"][-1]] if "options" in control else []
        ):
            lines = explorer.move(**{control["name"]: value}).answer
            assert lines["error"] == "", (control["label"], value)
            assert len(lines["alt"]) > 40 and lines["lines"]
    assert_legible(drawing(explorer).decode())


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: kd.distillation_race(count=3), "distillation_race: count must be"),
        (lambda: kd.distillation_race(steps=0), "distillation_race: steps must be"),
        (lambda: kd.distillation_race(data=3), "distillation_race: data must be"),
        (lambda: kd.hidden_layers_explorer(count=3), "hidden_layers_explorer: count must be"),
        (lambda: kd.hidden_layers_explorer(epochs=0.5), "hidden_layers_explorer: epochs must be"),
        (lambda: kd.temperature_explorer(task="digits"), "temperature_explorer: task must be"),
        (lambda: kd.temperature_explorer(teacher=3), "temperature_explorer: teacher must be"),
        (lambda: kd.temperature_explorer(student="mlp"), "temperature_explorer: student must be"),
        (lambda: kd.choose_student_explorer({}), "choose_student_explorer: runs must be"),
        (lambda: kd.choose_student_explorer({"a": 3}), "choose_student_explorer: runs must be"),
        (
            lambda: kd.choose_student_explorer({"a": kd.Runs()}),
            "choose_student_explorer: teachers must be",
        ),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_trained(make, words):
    with pytest.raises((TypeError, ValueError), match=f"^{words}"):
        make()


def test_what_is_committed_is_the_same_on_every_machine(hurried):
    explorer = kd.peaks_explorer()
    page = explorer._repr_mimebundle_()[0]["text/html"]
    changed = re.sub(r"middle [\d.]+", "middle 9.9", page)
    assert changed != page and mask(changed) == mask(page)
    assert not MACHINE_PATH.search(re.sub(r"base64,[\w+/=]+", "", page))


def test_kdlab_is_imported_without_the_widgets():
    code = "import kdlab, sys; sys.exit('anywidget' in sys.modules or 'ipywidgets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
