"""Servers for the browser tests: Jupyter's, which know nothing of this machine's user, and one for
a built site; sizes of screens."""

import contextlib
import functools
import http.server
import json
import os
import queue
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-for-tests"
PHONE, DESK, PROJECTOR = (
    {"width": w, "height": h} for w, h in [(375, 800), (1280, 900), (1280, 720)]
)
PATIENCE = 180_000  # milliseconds: a busy machine is no failure
# nbgrader's pages are of no use here and slow to start
QUICK = json.dumps(
    {
        "ServerApp": {
            "jpserver_extensions": {
                f"nbgrader.server_extensions.{name}": False
                for name in ("assignment_list", "course_list", "formgrader", "validate_assignment")
            }
        }
    }
)


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listening(port):
    """Wait until somebody answers there: an address may be said before."""
    until = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    pytest.fail(f"nobody listens on port {port}")


def own_jupyter(directory):
    """The environment of a Jupyter that knows nothing of this machine's user: no settings, no
    trusted notebooks."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "PYTEST"))}
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
        "JUPYTERLAB_WORKSPACES_DIR": "spaces",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
    }
    for name, text in {
        "config/jupyter_server_config.json": QUICK,
        "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings": (
            '{"fetchNews": "false", "checkForUpdates": false}'
        ),
    }.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    return env | {k: str(directory / v) for k, v in places.items()}


@contextlib.contextmanager
def served(command, env, ready, cwd=ROOT):
    """Start a server, wait for the line that matches `ready`, and give (process, what it said); end
    it after."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    lines, said = queue.Queue(), []
    threading.Thread(
        target=lambda: [lines.put(line) for line in process.stdout], daemon=True
    ).start()
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


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextlib.contextmanager
def folder_served(folder):
    """Serve the files of a folder on this machine, and give the address."""
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
