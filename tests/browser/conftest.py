"""A real browser for the tests: Debian's Chromium by Playwright, JupyterLab and Voilà started once a session."""

import contextlib
import json
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = Path("/usr/bin/chromium")
SCREENSHOTS = ROOT / "build" / "screenshots"
TOKEN = "a-token-for-tests"
PATIENCE = 180_000  # milliseconds: a busy machine is no failure
# nbgrader's pages are of no use here and slow to start
QUICK = json.dumps({"ServerApp": {"jpserver_extensions": {f"nbgrader.server_extensions.{name}": False for name in (
    "assignment_list", "course_list", "formgrader", "validate_assignment")}}})


@pytest.fixture(scope="session")
def chromium():
    """The browser, or a skip that says what to install."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: on Debian, apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=[
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, request):
    """A page that keeps a screenshot, and fails the test where it asked another machine for anything."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1000})
    page, asked, broke = context.new_page(), [], []
    page.set_default_timeout(PATIENCE)
    page.on("request", lambda r: asked.append(r.url))
    page.on("pageerror", lambda error: broke.append(str(error)))
    yield page
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]+", "_", request.node.name).strip("_")
    page.screenshot(path=str(SCREENSHOTS / f"{name}.png"), full_page=True)
    context.close()
    assert [url for url in asked if not re.match(r"http://127\.0\.0\.1[:/]|ws://127\.0\.0\.1:|data:|blob:", url)] == []
    assert broke == []


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def own_jupyter(directory):
    """The environment of a Jupyter that knows nothing of this machine's user: no settings, no trusted notebooks."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "PYTEST"))}
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime",
              "IPYTHONDIR": "ipython", "JUPYTERLAB_WORKSPACES_DIR": "spaces", "JUPYTERLAB_SETTINGS_DIR": "settings"}
    for name, text in {"config/jupyter_server_config.json": QUICK, "settings/@jupyterlab/apputils-extension/"
                       "notification.jupyterlab-settings": '{"fetchNews": "false", "checkForUpdates": false}'}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    return env | {k: str(directory / v) for k, v in places.items()}


@contextlib.contextmanager
def served(command, env, ready, cwd=ROOT):
    """Start a server, wait for the line that matches `ready`, and give (process, what it said); end it after."""
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               encoding="utf-8", errors="replace", start_new_session=True)
    lines, said = queue.Queue(), []
    threading.Thread(target=lambda: [lines.put(line) for line in process.stdout], daemon=True).start()
    try:
        until = time.monotonic() + PATIENCE / 1000
        while not said or not re.search(ready, said[-1]):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"{command[1:4]} did not start:\n{''.join(said)}")
            with contextlib.suppress(queue.Empty):
                said.append(lines.get(timeout=0.2))
        yield process, said
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """JupyterLab on a copy of the notebooks, which it has never seen and so doesn't trust: path → address."""
    directory = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", directory / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1", f"--port={port}",
               "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", "--allow-root",
               f"--ServerApp.root_dir={directory}", "--LabApp.news_url=None"]
    with served(command, own_jupyter(directory / "own"), r"is running at|http://127"):
        yield lambda path: f"http://127.0.0.1:{port}/lab/tree/{path}?reset&token={TOKEN}"


@pytest.fixture(scope="session")
def voila(tmp_path_factory):
    """`make demos`, by its own command: name of a demo → address; name None: the list of them."""
    pytest.importorskip("voila", reason="no Voilà: pip install voila")
    directory, port = tmp_path_factory.mktemp("voila"), free_port()
    command = [sys.executable, "tools/demos.py", f"--port={port}", f"--token={TOKEN}"]
    with served(command, own_jupyter(directory), r"all:") as (_, said):
        base = re.search(r"http://\S+/", said[-1])[0]
        yield lambda name=None, token=f"?token={TOKEN}": base + (f"voila/render/{name}.ipynb" if name else "") + token
