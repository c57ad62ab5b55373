"""The site's live pages in a real browser: their students are kdlab's own, number for number; they
answer to a keyboard, on a phone, and from a folder."""

import base64
import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from pages import built
from servers import DESK

import kdlab as kd
from kdlab.show import peaks

pytest.importorskip(
    "sphinx", reason="the site's packages are not installed: pip install -e '.[site]'"
)
QUICK = "train.html#steps=60"
SIZES = (1000, 437, 360)
NARROW = {"width": 360, "height": 740}
COUNT = 2  # splits that are compared
# pairs trained in the page itself, without its workers: the weights as kdlab names them
TRAINED = """([settings, kind, count]) => {
    const random = kdlabRandom(), kernels = kdlabKernels(kind);
    const network = kdlabNetwork(random, kernels);
    const experiment = kdlabExperiment(random, network), data = experiment.unpacked(kdlabData);
    const splits = experiment.taught(data, data.splits.slice(0, count));
    const pairs = experiment.pairs(data, splits, settings);
    return {kind: kernels.name, pairs: pairs.map((pair, i) => ({
        accuracies: experiment.measured(experiment.advance(pair, pair.epochs)),
        steps: pair.arms[0].student.t, labels: [...pair.labels], logits: [...splits[i].answers],
        weights: pair.arms.map(({student}) => network.weights(student)),
    }))};
}"""
SETTINGS = {
    "50 images, 50 steps, half labels": dict(perClass=5, noise=0.0, T=4, alpha=0.5, epochs=25),
    "40 % wrong labels": dict(perClass=10, noise=0.4, T=8, alpha=0.9, epochs=13),
    "all images, no labels, T = 1": dict(perClass=None, noise=0.1, T=1, alpha=1.0, epochs=2),
}


def exported():
    """What the site carries, read back."""
    script = (built("website") / "_static" / "live" / "data.js").read_text(encoding="utf-8")
    return json.loads(script.removeprefix("const kdlabData = ").rstrip().removesuffix(";"))


def teacher(layers):
    """A split's teacher as a module, of the numbers in the page."""
    parts = []
    for layer in layers:
        whole = np.frombuffer(base64.b64decode(layer["numbers"]), "<i2")
        numbers = torch.tensor(whole * layer["scale"]).float().view(-1, layer["outputs"])
        linear = torch.nn.Linear(len(numbers) - 1, layer["outputs"])
        with torch.no_grad():
            linear.weight.copy_(numbers[:-1].T)
            linear.bias.copy_(numbers[-1])
        parts += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(torch.nn.Flatten(), *parts[:-1]).eval()


def same_in_kdlab(settings):
    """(tasks, teachers' logits for all their images, runs) of the page's experiment."""
    tasks = kd.splits(
        "digits",
        COUNT,
        sizes=SIZES,
        labels_per_class=settings["perClass"],
        noise=settings["noise"],
    )
    models = [teacher(split["teacher"]) for split in exported()["splits"][:COUNT]]
    runs = kd.sweep(
        kd.mlp(64),
        tasks,
        teacher=[kd.outputs.logits(m, t.train.x) for m, t in zip(models, tasks, strict=True)],
        temperature=float(settings["T"]),
        alpha=[0.0, settings["alpha"]],
        epochs=settings["epochs"],
    )
    said = [kd.outputs.logits(m, t.transfer.x) for m, t in zip(models, tasks, strict=True)]
    return tasks, said, runs


@pytest.mark.parametrize("name", SETTINGS)
def test_the_page_s_students_are_kdlab_s(site, name):
    settings = SETTINGS[name]
    page = site(QUICK)
    tasks, said, runs = same_in_kdlab(settings)
    for kind in ("WebAssembly", "JavaScript"):
        found = page.evaluate(TRAINED, [settings, kind, COUNT])
        assert found["kind"] == kind
        compare(found["pairs"], tasks, said, runs, settings)


def compare(pairs, tasks, said, runs, settings):
    """Labels, teachers and both students of each split."""
    for task, logits, pair in zip(tasks, said, pairs, strict=True):
        assert pair["labels"] == task.train.y.tolist()
        np.testing.assert_allclose(pair["logits"], logits.flatten(), atol=1e-3)
        assert pair["steps"] == settings["epochs"] * -(-len(task.train) // 32) >= 50
        for arm, alpha in enumerate([0.0, settings["alpha"]]):
            student = runs.module(unit=task.unit, alpha=alpha)
            for key, weight in student.state_dict().items():
                own = torch.tensor(pair["weights"][arm][key]).view_as(weight)
                torch.testing.assert_close(own, weight, rtol=0, atol=1e-4)
            own = 100 * runs.where(unit=task.unit, alpha=alpha).last()["accuracy"].item()
            assert pair["accuracies"][arm] == pytest.approx(own, abs=0.5)  # a digit or two on a tie


def test_the_page_s_estimates_and_verdicts_are_kdlab_s(site):
    page, data = site(QUICK), exported()
    rng = np.random.default_rng(0)
    count = len(data["splits"])
    for mean, spread in [(3, 2), (-3, 2), (0.2, 0.1), (-0.2, 0.1), (0, 0.3), (0.1, 3)]:
        values = rng.normal(mean, spread, count)
        told = page.evaluate(
            """values => {
                const {estimate, verdict} = kdlabEstimate(kdlabData.t, kdlabData.delta);
                const found = estimate(values);
                return [found.mean, found.half, verdict(found)];
            }""",
            values.tolist(),
        )
        ours = kd.Estimate(pd.Series(values), "gain", "points")
        assert told == [pytest.approx(ours.mean), pytest.approx(ours.half_width()), ours.verdict()]


def answer(page, before=""):
    """The page's sentence, once it is another than before."""
    page.wait_for_function(
        """before => {
            const said = document.querySelector('#kdlab-result').innerText;
            return said && said !== before;
        }""",
        arg=before,
    )
    return page.locator("#kdlab-result").inner_text()


def test_it_trains_at_once_and_again_when_a_key_moves_a_handle(site):
    page = site(QUICK)
    first = answer(page)
    assert re.search(r"^Taught − labels alone: [+−]\d+\.\d ± \d\.\d points", first)
    assert "After 60 steps" in first
    for _ in range(80):  # from the top of the page to the first handle
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "kdlab-T":
            break
    page.keyboard.press("ArrowRight")
    assert answer(page, first) != first
    assert "T=8" in page.url
    handle = page.get_by_role("slider", name="Temperature T")
    assert handle.get_attribute("aria-valuetext") == "8"
    assert page.get_by_text("What the teacher says at T = 8").is_visible()
    assert page.locator("#kdlab-curves svg").get_attribute("aria-label").startswith("Accuracy over")
    assert page.locator("#kdlab-error").inner_text() == ""


def test_an_address_is_a_setting_and_only_the_last_one_is_answered(site):
    page = site("train.html#T=2&alpha=0&noise=0.4&perClass=null&steps=60")
    said = answer(page)
    assert "+" not in said and " 0.0 ± 0.0 points of accuracy: no difference" in said
    assert page.get_by_role("slider", name="Wrong labels").get_attribute("aria-valuetext") == "40 %"
    steps = page.get_by_role("slider", name="Training steps")
    # 960, 480, 240, 120 in one breath: nobody waits for the first three
    steps.evaluate("""handle => [4, 3, 2, 1].forEach(value => {
        handle.value = value;
        handle.dispatchEvent(new Event("input", {bubbles: true}));
    })""")
    assert "After 128 steps" in answer(page, said)  # four passes over 1,000 images


@pytest.mark.parametrize("address", [QUICK, "temperature.html", "peaks.html"])
def test_a_narrow_phone_shows_it_without_sideways_scrolling(site, address):
    page = site(address, NARROW)
    page.locator(".kdlab-view svg").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
    cut = page.evaluate("""() => [...document.querySelectorAll('.kdlab-live :is(svg, text, label)')]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
        .map(e => e.outerHTML.slice(0, 90))""")
    assert cut == []


def test_a_button_names_a_setting_and_another_goes_back(site):
    page = site("train.html#T=8")
    first = answer(page)
    page.get_by_role("button", name="short training").click()
    short = answer(page, first)
    assert "After 60 steps" in short and "T=4" in page.url  # a button says all of a setting
    page.get_by_role("button", name="as it was").click()
    assert "After 240 steps" in answer(page, short)


LOGITS = {"teacher": [4.0, 2.0, 1.0, -1.0, -2.0], "student": [2.0, 2.0, 0.0, 0.0, -1.0]}


@pytest.mark.parametrize("T", [1, 8])
def test_typed_logits_have_kdlab_s_losses(site, T):
    z, s = (torch.tensor([values]) for values in LOGITS.values())
    soft = kd.forward_kl(s, z, float(T)).item()
    hard = torch.nn.functional.cross_entropy(s, torch.tensor([0])).item()
    said = answer(site(f"temperature.html#source=typed+logits&T={T}"))
    assert f"KL = {soft:.4f} nats, times T² = {soft * T * T:.4f}" in said
    assert f"cross-entropy = {hard:.4f} nats" in said
    p = (z / T).softmax(-1)[0]
    assert f"{-(p * p.log()).sum():.3f}{' nats' if T == 1 else ''} at T = {T}" in said
    assert f"Teacher at T = {T}: a {100 * p[0]:.2f} %, b {100 * p[1]:.2f} %" in said


def test_an_image_has_its_teacher_s_answer(site):
    data = kd.load("digits", sizes=SIZES).validation
    row = (data.y == 3).nonzero()[1, 0]  # the second 3
    logits = kd.outputs.logits(teacher(exported()["splits"][0]["teacher"]), data.x[row][None])
    p = 100 * (logits / 4).softmax(-1)[0]
    said = answer(site("temperature.html#image=13"))
    first, second = p.topk(2).indices.tolist()
    assert f"Teacher at T = 4: {first} {p[first]:.2f} %, {second} {p[second]:.2f} %" in said


def test_what_is_no_logit_is_named_and_a_key_moves_the_temperature(site):
    page = site("temperature.html#source=typed+logits")
    before = answer(page)
    typed = page.get_by_role("textbox", name="Teacher's logits")
    typed.fill("2, x")
    typed.press("Enter")
    page.get_by_text("“2, x” must be numbers between commas").wait_for()
    typed.fill("2, 1")
    typed.press("Enter")
    page.get_by_text("one class each, not 2 and 5").wait_for()
    typed.fill("20, 0, 0, 0, 0")
    typed.press("Enter")
    changed = answer(page, before)
    assert page.locator("#kdlab-error").inner_text() == ""
    page.get_by_role("slider", name="Temperature T").press("End")
    assert "Teacher at T = 20: a 40.46 %" in answer(page, changed)


def test_the_bells_are_those_that_kdlab_fits(site):
    kinds = [("forward KL", None), ("reverse KL", None), ("JSD", 0.9), ("skewed KL", 0.1)]
    # of ten starts, which is best may hang on a last digit: then only the end is the same
    starts = {"best of ten": [160], "narrow, on the left": peaks.MARKS}
    cases = [
        [distance, share, kind, weight, start]
        for (distance, share), start in zip([(5.0, 0.4), (6.0, 0.7)], starts, strict=True)
        for kind, weight in kinds
    ]
    found = site("peaks.html").evaluate(
        """cases => cases.map(([distance, share, kind, weight, start]) => {
            const {teacher, fit} = kdlabPeaks();
            return fit(teacher(distance, share), kind, weight, start);
        })""",
        cases,
    )
    for told, (distance, share, kind, weight, start) in zip(found, cases, strict=True):
        target = peaks.teacher_bells(distance, share)
        ours = peaks.fit_bell(target, peaks.DIVERGENCES[kind](weight), start)
        for mark in starts[start]:
            np.testing.assert_allclose(told[str(mark)], ours[mark], atol=2e-2)


def test_a_key_moves_the_peaks(site):
    page = site("peaks.html")
    first = answer(page)
    assert first.startswith("forward KL: middle 0.6, width 2.8; 41 % in the left half")
    page.get_by_role("slider", name="Distance of the peaks").press("Home")
    assert answer(page, first).startswith("forward KL: middle 0.1")
    assert "distance=1" in page.url


def test_a_folder_is_enough(page):
    """Opened as a file, a page may load no module, and no data by a request."""
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size(DESK)
    page.goto((built("website") / "train.html").as_uri() + "#steps=60")
    assert "After 60 steps" in answer(page)
    assert not [url for url in asked if not url.startswith(("file:", "blob:", "data:"))]
    page.goto("about:blank")


def test_a_browser_without_workers_says_so(site, page):
    page.add_init_script("delete window.Worker")
    site("train.html")
    page.get_by_text("This browser can't train in the background").wait_for()
    assert page.locator("#kdlab-result").inner_text() == ""


def test_a_page_without_its_data_says_so(serve, chromium):
    page = chromium.new_page()
    page.route("**/data.js", lambda route: route.abort())
    page.goto(f"{serve('website')}/train.html")
    page.get_by_text("This page could not go on").wait_for()
    page.close()
