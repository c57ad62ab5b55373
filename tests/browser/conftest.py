"""A real browser for the tests: Debian's Chromium by Playwright, JupyterLab, Voilà and the site
started once a session."""

import contextlib
import functools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from pages import built
from servers import (
    DESK,
    PATIENCE,
    ROOT,
    TOKEN,
    folder_served,
    free_port,
    listening,
    own_jupyter,
    served,
)

CHROMIUM = Path("/usr/bin/chromium")
SCREENSHOTS = ROOT / "build" / "screenshots"


@pytest.fixture(scope="session")
def chromium():
    """The browser, or a skip that says what to install."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright: pip install playwright"
    )
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: on Debian, apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


FAILED = pytest.StashKey[bool]()
SCREEN = {"width": 1400, "height": 1000}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture(scope="module")
def readers(chromium):
    """A context for tests that only look, which keeps what their pages share, such as MathJax."""
    context = chromium.new_context(viewport=SCREEN)
    yield context
    context.close()


@pytest.fixture
def page(chromium, request):
    """A page that keeps a screenshot where the test fails, and fails it where it asked another
    machine for anything. It knows nothing of the pages before, but for the tests with `readers`."""
    shared = "readers" in request.fixturenames
    context = (
        request.getfixturevalue("readers") if shared else chromium.new_context(viewport=SCREEN)
    )
    page, asked, broke = context.new_page(), [], []
    page.set_default_timeout(PATIENCE)
    page.on("request", lambda r: asked.append(r.url))
    page.on("pageerror", lambda error: broke.append(str(error)))
    yield page
    elsewhere = [
        url
        for url in asked
        if not re.match(r"http://127\.0\.0\.1[:/]|ws://127\.0\.0\.1:|data:|blob:|file:///", url)
    ]
    if elsewhere or broke or request.node.stash.get(FAILED, False):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^\w.-]+", "_", request.node.name).strip("_")
        page.screenshot(path=str(SCREENSHOTS / f"{name}.png"))
    (page if shared else context).close()
    assert elsewhere == []
    assert broke == []


FIRST = "notebooks/00_start_here.ipynb"


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """JupyterLab by `make lab`'s own command, on a copy of the notebooks, which it has never seen
    and so doesn't trust; lesson 00 ends after its first figure and question. Its folder, and path →
    address, where None is what `make lab` opens."""
    if shutil.which("make") is None:
        pytest.skip("no make: on Debian, apt-get install make")
    directory, port = tmp_path_factory.mktemp("lab"), free_port()
    shutil.copytree(
        ROOT / "notebooks",
        directory / "notebooks",
        ignore=shutil.ignore_patterns(".ipynb_checkpoints"),
    )
    lesson = nbformat.read(directory / FIRST, 4)
    ends = next(i for i, c in enumerate(lesson.cells) if c.source.startswith("## Three lines"))
    lesson.cells = lesson.cells[:ends]
    nbformat.write(lesson, directory / FIRST)
    arguments = (
        f"--no-browser --port={port} --ServerApp.port_retries=0 --IdentityProvider.token={TOKEN}"
    )
    said = subprocess.run(
        ["make", "-s", "-n", "lab", f"LAB_ARGS={arguments}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.replace("\\\n", " ")
    command = shlex.split(next(line for line in said.splitlines() if "-m jupyterlab" in line))
    command[0] = sys.executable  # the interpreter of these tests, whichever that is
    own = own_jupyter(directory / "own")
    with served(command, own, r"is running at|http://127", cwd=directory):
        listening(port)
        base = f"http://127.0.0.1:{port}"
        yield (
            directory,
            lambda path=None: (
                f"{base}/lab/tree/{path}?reset&token={TOKEN}" if path else f"{base}/?token={TOKEN}"
            ),
        )


@pytest.fixture(scope="session")
def voila(tmp_path_factory):
    """`make demos`, by its own command: name of a demo → address; name None: the list of them."""
    pytest.importorskip("voila", reason="no Voilà: pip install voila")
    directory, port = tmp_path_factory.mktemp("voila"), free_port()
    command = [sys.executable, "tools/demos.py", f"--port={port}", f"--token={TOKEN}"]
    env = {k: v for k, v in own_jupyter(directory).items() if k != "TQDM_DISABLE"}  # as a user's
    with served(command, env, r"all:") as (_, said):
        base = re.search(r"http://\S+/", said[-1])[0]
        yield (
            lambda name=None, token=f"?token={TOKEN}": (
                base + (f"voila/render/{name}.ipynb" if name else "") + token
            )
        )


@pytest.fixture(scope="session")
def serve():
    """Serve a built folder on this machine: serve("website") → its address."""
    with contextlib.ExitStack() as servers:
        yield functools.cache(lambda tool: servers.enter_context(folder_served(built(tool))))


@pytest.fixture
def site(serve, page):
    """Open a page of the site, with its formulas set: site("index.html"). Whatever it asks for must
    be there."""
    missing = []
    page.on(
        "response",
        lambda r: missing.append(r.url) if r.status >= 400 and "favicon" not in r.url else None,
    )

    def go(address, viewport=DESK, scheme="light"):
        page.set_viewport_size(viewport)
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{serve('website')}/{address}")
        page.evaluate("window.MathJax?.startup?.promise")
        return page

    yield go
    assert missing == []
