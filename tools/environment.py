"""Make .venv and install kdlab into it with the locked versions: python3 tools/environment.py
[extras]

By uv where it is installed, which takes seconds, else by pip. A stamp is written last: .venv/.ready
where tests can run, .venv/.lab where lessons can. A set-up that was interrupted leaves
.venv/.unfinished behind and is begun anew; one that failed in good order (no network, say) leaves
the environment as it was."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LESSONS, TESTS = "course,api,serve", "test,teach,site"
STAMPS = {LESSONS: [".lab"], TESTS: [".lab", ".ready"]}  # who can test can learn


def check_interpreter():
    """Say clearly what the interpreter lacks, before anything is written."""
    if sys.version_info < (3, 11):  # noqa: UP036  (this file is started by whatever python3 is)
        sys.exit(
            f"kdlab needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. "
            "Name another: make PYTHON=python3.12 ..."
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        sys.exit(
            f"{sys.executable} can't make virtual environments: its module venv or ensurepip is"
            " missing.\nOn Debian and Ubuntu: sudo apt-get install python3-venv"
        )


def quieten(prefix):
    """JupyterLab's defaults under this prefix: no news, no question about it, no grader's menu
    before a learner."""
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    wanted = {
        "share/jupyter/lab/settings/overrides.json": {
            "@jupyterlab/apputils-extension:notification": quiet
        },
        "etc/jupyter/labconfig/page_config.json": {
            "disabledExtensions": {"@jupyter/nbgrader": True}
        },
    }
    for name, settings in wanted.items():
        path = Path(prefix) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))


def create(uv):
    """The environment, with pip in it also where uv makes it."""
    if uv:
        command = [uv, "venv", "-q", "--seed", "--allow-existing", "--python", sys.executable]
        if subprocess.run([*command, str(VENV)]).returncode == 0:
            return
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)


def install(uv, extras):
    """The exit status of installing kdlab with its extras, by pip where uv can't (it has settings
    of its own, and may not know where this machine's packages come from)."""
    what = ["-q", "-c", "constraints.txt", "-e", f".[{extras}]"]
    if uv:
        command = [uv, "pip", "install", "--python", str(PYTHON), *what]
        if subprocess.run(command, cwd=ROOT).returncode == 0:
            return 0
        print("uv could not; trying pip ...", flush=True)
    return subprocess.run([str(PYTHON), "-m", "pip", "install", *what], cwd=ROOT).returncode


def main(extras=TESTS):
    check_interpreter()
    uv, unfinished = shutil.which("uv"), VENV / ".unfinished"
    stamps = [VENV / name for name in STAMPS.get(extras, STAMPS[TESTS])]
    if unfinished.exists():
        print("The last set-up was interrupted: beginning anew.", flush=True)
        shutil.rmtree(VENV)
    print("Setting up .venv (3 to 5 minutes and 2 GB the first time) ...", flush=True)
    VENV.mkdir(exist_ok=True)
    unfinished.touch()
    for stamp in stamps:
        stamp.unlink(missing_ok=True)
    if not PYTHON.exists():
        create(uv)
    status = install(uv, extras)
    unfinished.unlink()
    if status:
        sys.exit(
            "The packages could not be installed (the message is above); the same command tries"
            " again."
        )
    quieten(VENV)
    for stamp in stamps:
        stamp.touch()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except subprocess.CalledProcessError:
        sys.exit("The virtual environment could not be made (the message is above).")
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the next run begins anew.")
