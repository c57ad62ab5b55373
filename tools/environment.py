"""Make .venv and install kdlab into it with the locked versions: python3 tools/environment.py [extras]

The stamp .venv/.ready is written last. A set-up that was interrupted leaves .venv/.unfinished behind and is begun
anew; one that failed in good order (no network, say) leaves the environment as it was.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def check_interpreter():
    """Say clearly what the interpreter lacks, before anything is written."""
    if sys.version_info < (3, 11):  # noqa: UP036  (this file is started by whatever python3 is)
        sys.exit(f"kdlab needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. "
                 "Name another: make PYTHON=python3.12 ...")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        sys.exit(f"{sys.executable} can't make virtual environments: its module venv or ensurepip is missing.\n"
                 "On Debian and Ubuntu: sudo apt-get install python3-venv")


def quieten(prefix):
    """JupyterLab's defaults under this prefix: no news, no question about it, no grader's menu before a learner."""
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    wanted = {"share/jupyter/lab/settings/overrides.json": {"@jupyterlab/apputils-extension:notification": quiet},
              "etc/jupyter/labconfig/page_config.json": {"disabledExtensions": {"@jupyter/nbgrader": True}}}
    for name, settings in wanted.items():
        path = Path(prefix) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))


def main(extras="test,teach,site"):
    check_interpreter()
    ready, unfinished = VENV / ".ready", VENV / ".unfinished"
    if unfinished.exists():
        print("The last set-up was interrupted: beginning anew.", flush=True)
        shutil.rmtree(VENV)
    print("Setting up .venv (3 to 5 minutes and 2 GB the first time) ...", flush=True)
    VENV.mkdir(exist_ok=True)
    unfinished.touch()
    ready.unlink(missing_ok=True)
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    install = [str(PYTHON), "-m", "pip", "install", "-q", "-c", "constraints.txt", "-e", f".[{extras}]"]
    status = subprocess.run(install, cwd=ROOT).returncode
    unfinished.unlink()
    if status:
        sys.exit("The packages could not be installed (pip's message is above); the same command tries again.")
    quieten(VENV)
    ready.touch()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except subprocess.CalledProcessError:
        sys.exit("The virtual environment could not be made (the message is above).")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the next run begins anew.")
