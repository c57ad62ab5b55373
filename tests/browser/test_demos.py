"""Each demo in a real browser: JupyterLab and Voilà, moved by keyboard; and a still picture where
nothing runs."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import psutil
import pytest
from servers import PATIENCE, ROOT, TOKEN, free_port, own_jupyter, served

# the controls of each demo by role and accessible name; the first is the one that is moved
CONTROLS = {
    "1_temperature": {
        "Temperature T": "slider",
        "Image": "slider",
        "Logits from": "combobox",
        "Axis": "combobox",
        "Teacher's logits": "textbox",
        "Student's logits": "textbox",
    },
    "2_distillation_race": {
        "Temperature T": "slider",
        "α, weight of the teacher": "slider",
        "Labels a class": "slider",
        "Wrong labels": "slider",
        "The teacher saw": "combobox",
    },
    "3_hidden_layers": {
        "Image": "slider",
        "Layer": "combobox",
        "Hints by": "combobox",
        "Show": "combobox",
    },
    "4_two_peaks": {
        "Distance of the peaks": "slider",
        "Left peak's share": "slider",
        "β of the JSD": "slider",
        "Skew": "slider",
        "Student starts": "combobox",
        "Steps": "slider",
    },
    "5_choose_a_student": {
        "Budget: size": "slider",
        "Budget: latency": "slider",
        "Pick": "combobox",
    },
    "6_class_as_experiment": {
        "Laptops that have sent": "slider",
        "True difference": "slider",
        "Spread between splits": "slider",
        "Class": "slider",
    },
}
DEMOS = sorted(path.stem for path in (ROOT / "notebooks" / "demos").glob("*.ipynb"))


def explorer(page):
    """The explorer on the page, once it shows its picture."""
    found = page.locator(".kdlab-explorer")
    found.locator("img").wait_for()
    return found


def state(found):
    """What the explorer shows: (picture, alt text, numbers, error)."""
    return (
        found.locator("img").get_attribute("src"),
        found.locator("img").get_attribute("alt"),
        found.locator(".kdlab-numbers").inner_text(),
        found.locator(".kdlab-error").inner_text(),
    )


def settled(page):
    """Wait until the picture is that of the controls as they stand."""
    page.wait_for_function("document.querySelector('.kdlab-status').textContent === ''")


def press(page, control, *keys):
    """Give keys to a control that has the focus, then wait for the answer; what was shown before
    and after."""
    found = explorer(page)
    before = state(found)
    control.focus()
    for key in keys:
        page.keyboard.press(key)
    settled(page)
    return before, state(found)


def check_reacts(page, demo):
    """Every control has its name; the first, moved by a key, gives a new picture, alt text and
    numbers."""
    found, controls = explorer(page), CONTROLS[demo]
    assert found.locator("input, select").count() == len(controls)
    for name, role in controls.items():
        assert found.get_by_role(role, name=name, exact=True).count() == 1, name
    name, role = next(iter(controls.items()))
    control = found.get_by_role(role, name=name, exact=True)
    spoken = control.get_attribute("aria-valuetext")
    before, after = press(page, control, "ArrowRight")
    assert after[0] != before[0] and after[0].startswith("data:image/svg+xml;base64,")
    assert after[2] != before[2] and after[3] == ""
    assert control.get_attribute("aria-valuetext") != spoken
    assert (
        page.evaluate("document.activeElement.type") == "range"
    )  # no other cell was chosen by the key
    assert found.locator("[aria-live=polite]").count() == 1


# what stands on the screen: the page's words with the height of their letters, and the picture's
SCREEN = """() => {
    const seen = [...document.querySelectorAll('.kdlab-explorer *')].filter(e => {
        const box = e.getBoundingClientRect();
        return box.width > 2 && box.height > 2 && e.children.length === 0 && e.innerText?.trim();
    }).map(e => [e.innerText, parseFloat(getComputedStyle(e).fontSize)]);
    const image = document.querySelector('.kdlab-view img'), box = image.getBoundingClientRect();
    const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
    const drawn = new DOMParser().parseFromString(atob(image.src.split(',')[1]), 'image/svg+xml');
    const unit = scale * image.naturalWidth / drawn.documentElement.viewBox.baseVal.width;
    const letters = [...drawn.querySelectorAll('text')]
        .map(t => unit * parseFloat(t.style.fontSize));
    const area = scale * scale * image.naturalWidth * image.naturalHeight;
    return {seen, letters, share: area / innerWidth / innerHeight,
        page: [document.documentElement.scrollWidth, document.documentElement.scrollHeight]};
}"""
# a window takes its new size some frames later, and what fills it later still
ALL_THERE = """([wide, high]) => {
    const stage = document.querySelector('.kdlab-explorer').getBoundingClientRect();
    return innerWidth === wide && innerHeight === high && stage.width === wide
        && stage.height === high && [...document.querySelectorAll('.kdlab-view, form')]
        .every(e => e.getBoundingClientRect().top >= 0 && e.getBoundingClientRect().bottom <= high);
}"""
# [each change of the picture's source, or of what is said about it, in order]
WATCH = """() => {
    const view = document.querySelector('.kdlab-view'), said = view.querySelector('.kdlab-status');
    window.seen = [];
    new MutationObserver(all => all.forEach(m =>
        window.seen.push(m.attributeName === 'src' ? 'picture' : said.innerText))
    ).observe(view, {subtree: true, childList: true, attributeFilter: ['src']});
    document.addEventListener('input', () => window.seen.push('moved'), true);
    document.addEventListener('input', () => window.seen.push(
        [said.innerText, getComputedStyle(view.querySelector('img')).opacity]));
}"""


def check_fills_the_screen(page, size):
    """One screen, two thirds of it the figure, no letter below 20 pixels at 720 lines."""
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.wait_for_function(ALL_THERE, arg=list(size))
    found, least = page.evaluate(SCREEN), 20 * size[1] / 720
    assert found["page"] == list(size)
    assert found["share"] >= 2 / 3
    assert min(found["letters"]) >= least
    assert [words for words, letters in found["seen"] if letters < least] == []


def check_says_that_it_computes(page, demo):
    """A moved handle: at once, still in its own event, the old picture is pale under large words;
    then comes the new one, and they go."""
    page.evaluate(WATCH)
    name, role = next(iter(CONTROLS[demo].items()))
    press(page, explorer(page).get_by_role(role, name=name, exact=True), "ArrowLeft")
    seen = page.evaluate("window.seen")
    words, opacity = next(s for s in seen if isinstance(s, list))
    assert seen[0] == "moved" and "computing" in words and name in words and float(opacity) < 0.4
    assert "picture" in seen and seen.index([words, opacity]) < seen.index("picture")
    assert (
        page.evaluate("getComputedStyle(document.querySelector('.kdlab-view img')).opacity") == "1"
    )


def check_the_notes_are_the_speakers(page):
    """They are not on the screen; a key opens them, with the numbers as they stand."""
    assert not page.get_by_text("Ask before.").is_visible()
    with page.expect_popup() as opened:
        page.keyboard.press("n")
    notes = opened.value
    notes.get_by_text("Ask before.").wait_for()
    now = page.locator(".kdlab-numbers p").first.text_content()
    assert now in notes.locator("body").inner_text()
    notes.close()


def check_the_last_value_wins_and_errors_are_text(page):
    """Of demo 1: many values at once, then one that is none, then one that is."""
    found = explorer(page)
    T = found.get_by_role("slider", name="Temperature T", exact=True)
    _, after = press(page, T, "Home", *["ArrowRight"] * 7, "End")
    assert "at T = 20" in after[2] and "T = 20" in after[1]
    found.get_by_role("combobox", name="Logits from").select_option("typed logits")
    typed = found.get_by_role("textbox", name="Teacher's logits")
    typed.fill("2, x")
    before, wrong = press(page, typed, "Enter")
    assert "'2, x' must be numbers" in wrong[3]
    assert "at T = 20" in wrong[2] and wrong[0].startswith("data:image/svg+xml")
    typed.fill("20, 0, 0, 0, 0")
    _, mended = press(page, typed, "Enter")
    assert mended[3] == "" and mended[0] != wrong[0] and "Teacher at T = 20: a 40.4" in mended[2]


def check_names_no_cdn(text):
    """The page as the server sends it loads nothing from elsewhere."""
    assert (
        re.findall(
            r"(?:src|href)=[\"']?(?:https?:)?//[^\"' >]+|(?:url|import)\([\"']?https?:[^)]+",
            text,
        )
        == []
    )
    assert re.findall(r"cdnjs|cdn\.|unpkg|jsdelivr|googleapis", text) == []


def test_all_demos_are_here():
    assert list(CONTROLS) == DEMOS


@pytest.mark.parametrize("demo", DEMOS)
def test_what_is_committed_of_a_demo_is_a_picture_with_its_words(demo):
    notebook = nbformat.read(ROOT / "notebooks" / "demos" / f"{demo}.ipynb", as_version=4)
    shown = [
        out.data for cell in notebook.cells for out in cell.get("outputs", ()) if "data" in out
    ]
    (html,) = [data["text/html"] for data in shown if "<figure" in data.get("text/html", "")]
    assert len(re.search(r'<img[^>]* alt="([^"]*)"', html)[1]) > 40
    assert html.count("<samp") >= 2  # the numbers


# one of them: the front end is the same, and Voilà's pages below are of all
def test_in_jupyterlab_it_is_its_picture_until_it_is_run(page, lab):
    _, address = lab
    page.goto(address(f"notebooks/demos/{DEMOS[0]}.ipynb"))
    # untrusted, and never run
    image = page.locator(".jp-OutputArea figure img")
    image.wait_for()
    assert image.evaluate("i => i.complete && i.naturalWidth") > 500
    assert len(image.get_attribute("alt")) > 40
    assert page.locator(".jp-OutputArea samp").count() >= 2  # the numbers
    assert page.locator(".kdlab-explorer").count() == 0
    page.get_by_text("| Idle").wait_for()  # what is run before the kernel is there is lost
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    check_reacts(page, DEMOS[0])


@pytest.mark.parametrize("demo", DEMOS)
def test_on_a_projector(page, voila, demo):
    errors = []
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.set_viewport_size({"width": 1280, "height": 720})
    check_names_no_cdn(page.goto(voila(demo)).text())
    check_reacts(page, demo)
    check_says_that_it_computes(page, demo)
    for size in ((1920, 1080), (1280, 720)):
        check_fills_the_screen(page, size)
    check_the_notes_are_the_speakers(page)
    if demo == "1_temperature":
        check_the_last_value_wins_and_errors_are_text(page)
    assert errors == []
    assert (
        page.locator("[data-mime-type*=stderr], .jp-RenderedText[data-mime-type*=error]").count()
        == 0
    )


def test_voila_lists_the_demos(page, voila):
    check_names_no_cdn(page.goto(voila()).text())
    assert page.get_by_role("link").count() == len(DEMOS)


def test_without_the_token_nothing_is_shown(page, voila):
    for address in (
        voila(token=""),
        voila(DEMOS[0], token=""),
        voila(DEMOS[0], token="?token=wrong"),
    ):
        page.goto(address)
        assert "/login" in page.url
        assert page.locator(".kdlab-explorer, .jp-OutputArea, main ol a").count() == 0


def ended(kernel):
    """Whether this process ends, or has ended, within a while."""
    until = time.monotonic() + PATIENCE / 1000
    while psutil.pid_exists(kernel) and time.monotonic() < until:
        time.sleep(0.2)
    return not psutil.pid_exists(kernel)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_taken_port_a_page_that_is_left_and_ctrl_c(page, tmp_path):
    """The server moves on to another port; a page that is left ends its kernel and no other, a
    stranger's page ends none; Ctrl-C ends the server with its kernels."""
    pytest.importorskip("voila")
    lines = ["import os, ipywidgets", "print('PID', os.getpid(), 'END')"]
    lines.append("ipywidgets.Label('a control')")
    cell = nbformat.v4.new_code_cell("\n".join(lines))
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "1_a.ipynb")
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        command = [
            sys.executable,
            "tools/demos.py",
            f"--port={port}",
            f"--token={TOKEN}",
            f"--directory={tmp_path}",
        ]
        with served(command, own_jupyter(tmp_path / "own"), r"all:") as (process, said):
            base = re.search(r"http://127\.0\.0\.1:(\d+)/", said[-1])
            assert int(base[1]) != port
            shown = f"{base[0]}voila/render/1_a.ipynb?token={TOKEN}"
            with urllib.request.urlopen(shown) as answer:
                other = int(re.search(r"PID (\d+) END", answer.read().decode())[1])
            page.goto(shown)
            page.locator(".jupyter-widgets").wait_for()  # by now the page knows its kernel
            told = page.get_by_text("PID").inner_text()
            kernel = int(re.search(r"PID (\d+) END", told)[1])
            assert psutil.pid_exists(kernel) and psutil.pid_exists(other)
            request = urllib.request.Request(
                f"{base[0]}voila/api/shutdown/some-kernel",
                method="POST",
                headers={"Origin": "http://elsewhere.example", "Authorization": f"token {TOKEN}"},
            )
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(request)
            page.goto("about:blank")
            assert ended(kernel) and psutil.pid_exists(other)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
            assert not psutil.pid_exists(other)


def test_a_folder_without_demos_is_said(tmp_path):
    found = subprocess.run(
        [sys.executable, "tools/demos.py", f"--directory={tmp_path}"],
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    assert found.returncode == 1 and "no notebook in" in found.stderr
