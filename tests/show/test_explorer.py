"""Explorers: the newest value wins, errors are text, and a page without a kernel shows picture and
numbers."""

import asyncio
import base64
import math
import re
import subprocess
import sys
from functools import partial
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from test_notebooks import MACHINE_PATH, Figures
from test_sanitize import mask

import kdlab as kd
from kdlab import Estimate
from kdlab.losses import divergences
from kdlab.show import explorer as widgets
from kdlab.show import hidden_layers as layers
from kdlab.show import peaks, plots
from kdlab.show import race as races
from kdlab.show import student_choice as tradeoff
from kdlab.show import temperature as explorers

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


# --- temperature ---


def test_the_numbers_of_the_temperature_explorer_are_right():
    task = kd.load("digits", sizes=(40, 40, 40))
    explorer = kd.temperature_explorer(task, kd.mlp(2)(task), kd.mlp(2)(task))
    explorer.move(source="typed logits", typed="2, 1, 0", typed_student="0 0; 0", T=2.0)
    z = np.array([2, 1, 0])

    def soft(v):
        return np.exp(v) / np.exp(v).sum()

    def entropy(p):
        return -(p * np.log(p)).sum()

    p = soft(z / 2)
    kl = (p * np.log(p * 3)).sum()
    said = explorer.answer["lines"]
    assert (
        f"entropy {entropy(soft(z)):.3f} nats at T = 1, {entropy(p):.3f} at T = 2 (uniform: 1.099)"
        in said[0]
    )
    assert (
        f"KL = {kl:.4f} nats, times T² = {4 * kl:.4f}. Hard loss: cross-entropy = {math.log(3):.4f}"
        in said[3]
    )


@pytest.mark.parametrize(
    "typed", ["", "1", "a, b", "1, nan", "1, inf", "1e9, 0", ", ".join("1" * 21)]
)
def test_wrong_logits_are_refused_with_the_reason(typed):
    with pytest.raises(ValueError, match="teacher: .* must be"):
        explorers.read_logits("teacher", typed)


def test_logits_may_be_typed_in_many_ways():
    assert explorers.read_logits("teacher", " 1;−2 3.5,\t1e2 ").tolist() == [1, -2, 3.5, 100]


# --- peaks, race, choice ---


def test_a_bell_finds_a_bell_under_every_divergence():
    target = -((peaks.X + 1.5) ** 2) / (2 * 0.8**2)
    for divergence in (
        divergences.forward_kl,
        divergences.reverse_kl,
        divergences.jsd,
        divergences.skew_forward_kl,
    ):
        middle, width = peaks.fit_bell(target, divergence)[160]
        assert abs(middle + 1.5) < 0.05 and abs(width - 0.8) < 0.05


def test_a_bell_is_shown_where_it_stands_after_so_many_steps():
    target = -((peaks.X - 2) ** 2) / 2
    way = peaks.fit_bell(target, divergences.forward_kl, "narrow, on the left")
    assert way[0] == pytest.approx((-3.0, 0.5))
    middles = [middle for middle, _ in way.values()]
    assert middles == sorted(middles) and list(way) == list(peaks.MARKS)
    early = peaks.fit_bell(target, divergences.forward_kl, "narrow, on the left", (5,))
    assert early == {5: way[5]}  # a mark on the way is where a shorter fit ends
    explorer = kd.peaks_explorer().move(start="narrow, on the left", steps=0)
    assert all("middle -3.0, width 0.5" in line for line in explorer.answer["lines"])
    assert "after 0 steps" in explorer.answer["caption"]


def test_the_race_pairs_the_arms_and_says_who_taught():
    race = kd.distillation_race(count=4, steps=60)
    gain = [line for line in race.answer["lines"] if line.startswith("taught − labels alone")]
    assert len(gain) == 1 and re.search(r"[+-]\d+\.\d+ ± \d", gain[0])
    assert any(line.startswith("16 students in ") for line in race.answer["lines"])
    assert races.SAME in race.move(saw=races.SAME).answer["caption"]


def estimates(**means):
    spread = np.array([-0.1, 0.0, 0.0, 0.1])
    return {
        name: Estimate(pd.Series(mean + spread), "accuracy", "%") for name, mean in means.items()
    }


@pytest.mark.parametrize(
    "size, latency, rule, expected",
    [
        (100, 100, tradeoff.BEST, "large"),
        (20, 100, tradeoff.BEST, "middle"),
        (5, 100, tradeoff.BEST, "small"),
        (4, 100, tradeoff.BEST, None),
        (100, 50, tradeoff.BEST, "middle"),
        (100, 9, tradeoff.BEST, None),
    ],
)
def test_the_budget_buys(size, latency, rule, expected):
    sizes, slow = (
        {"small": 5, "middle": 20, "large": 90},
        estimates(small=10.0, middle=50.0, large=100.0),
    )
    accuracy = estimates(small=90.0, middle=95.0, large=97.0)
    assert tradeoff.pick(accuracy, sizes, slow, size, latency, rule)[0] == expected


def test_the_smallest_not_surely_worse_is_told_by_paired_differences():
    sizes, slow = (
        {"small": 5, "middle": 20, "large": 90},
        estimates(small=1.0, middle=1.0, large=1.0),
    )
    accuracy = estimates(small=90.0, large=97.0)
    accuracy["middle"] = Estimate(
        accuracy["large"].values + [0.2, -0.3, 0.1, -0.2], "accuracy", "%"
    )
    assert tradeoff.pick(accuracy, sizes, slow, 100, 100, tradeoff.SMALLEST)[0] == "middle"
    accuracy["middle"] = Estimate(
        accuracy["large"].values - 0.01, "accuracy", "%"
    )  # a hair, but surely
    assert tradeoff.pick(accuracy, sizes, slow, 100, 100, tradeoff.SMALLEST)[0] == "large"


def test_the_table_beforehand_is_what_distilling_anew_gives():
    table = pd.read_csv(tradeoff.MEASURED)
    first = table[table["unit"] == "digits/0"].set_index("student")["accuracy"]
    assert table.groupby("student").size().eq(6).all() and set(first.index) == set(
        tradeoff.BUILDERS
    )
    task = kd.splits("digits", 1, sizes=tradeoff.SIZES)
    teacher = kd.train(tradeoff.BUILDERS[tradeoff.TEACHER], task, epochs=12, batch=64)
    student = kd.distill(kd.mlp(16), teacher, task, epochs=25, batch=64)
    for name, runs in ((tradeoff.TEACHER, teacher), ("mlp 16", student)):
        assert abs(runs.last()["accuracy"].iloc[0] - first[name]) < 0.02


def test_the_learners_beforehand_are_what_training_anew_gives():
    tasks, teachers, kept = layers.learners(layers.COUNT, layers.EPOCHS)
    _, anew, student = layers.train_learners(layers.COUNT, layers.EPOCHS)
    similar = kept("similarity"), student("similarity")
    for before, now in ((teachers, anew), similar):
        difference = before.last()["accuracy"] - now.last()["accuracy"]
        assert len(before) == 4 and difference.abs().max() < 0.02
    found = [layers.alikeness(tasks, runs, anew)["layer 3", "layer 3"].mean for runs in similar]
    assert abs(found[0] - found[1]) < 0.01
    for hints in layers.HINTS:
        assert (
            kept(hints).last()["objective"].str.contains(layers.HINTS[hints][0].__name__).all()
        ), hints


def test_a_repetition_shows_networks_that_have_not_seen_its_images(monkeypatch):
    trained = []
    monkeypatch.setattr(layers, "train_learners", lambda *given: trained.append(given))
    monkeypatch.setenv("KDLAB_REPEAT", "1")
    layers.learners(layers.COUNT, layers.EPOCHS)
    assert trained == [(layers.COUNT, layers.EPOCHS)]


class Ticking(torch.nn.Module):
    """Each call takes `seconds` of a clock of our own; the first of every five is held up."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds, self.calls = clock, seconds, 0

    def forward(self, x):
        self.calls += 1  # the first one only warms up
        self.clock[0] += 100.0 if self.calls % 5 == 2 else self.seconds
        return x


def test_a_call_that_was_held_up_changes_no_latency(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(tradeoff, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    reference, student = Ticking(clock, 2.0), Ticking(clock, 1.0)
    found = tradeoff.latency_ratios({"s": student}, reference, torch.zeros(1, 4), 6, calls=5)
    assert found["s"].values.tolist() == [50.0] * 6
    assert student.calls == reference.calls == 1 + 6 * 5


def test_a_larger_model_takes_longer_than_a_smaller_one():
    small, large = (
        torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(n)]) for n in (1, 30)
    )
    found = tradeoff.latency_ratios({"small": small, "large": large}, large, torch.zeros(1, 64))
    assert found["small"].mean < 60 < found["large"].mean


def test_kdlab_is_imported_without_the_widgets():
    code = "import kdlab, sys; sys.exit('anywidget' in sys.modules or 'ipywidgets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
