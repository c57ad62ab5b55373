"""What this machine has and lacks for the course, line by line."""

import importlib.metadata
import os

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from kdlab.base.extras import install_line

# what the lessons import, by the extra that brings it; "": the core
PACKAGES = {
    "": ["torch", "transformers", "datasets"],
    "course": ["scikit-learn", "scipy", "matplotlib", "jupyterlab", "ipywidgets", "anywidget"],
    "api": ["openai"],
    "serve": ["fastapi", "uvicorn"],
    "test": ["nbval"],
}
# what can be done without: lesson 11 asks a server, and that alone needs two of them
OPTIONAL = {"api": "for lesson 11", "serve": "for lesson 11", "test": "for tests alone"}

MODELS = {"topics_lm": "02", "docs_bert": "06", "docs_lm": "07, 08", "docs_base": "07, 08"}


def _advice(extra):
    """How to get what is missing, and what for."""
    how = install_line(extra) if extra else "pip install kdlab"
    return how + (f"  ({OPTIONAL[extra]})" if extra in OPTIONAL else "")


def _needed(package):
    """The versions that kdlab needs, as in pyproject.toml; all, where that isn't known."""
    try:
        wanted = map(Requirement, importlib.metadata.requires("kdlab") or [])
    except importlib.metadata.PackageNotFoundError:
        wanted = []
    return next((w.specifier for w in wanted if w.name == package), SpecifierSet())


def _found(package, extra):
    """(whether it is there and new enough, what to say)."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False, _advice(extra)
    needed = _needed(package)
    if needed.contains(version, prereleases=True):
        return True, version
    return False, f"{version} is too old, {needed} is needed: {_advice(extra)}"


def doctor() -> bool:
    """Print versions, device, memory and reachable data with advice; True when the course can run.

    The same as `kdlab doctor`, whose exit status is 0 when the course can run.

    >>> healthy = doctor()
    ok       torch ...
    The course can...
    """
    packages, memory = _packages(), _machine()
    _reachable()
    healthy = packages and memory
    print(
        "The course can run."
        if healthy
        else "The course can't run yet: mend the required lines above."
    )
    return healthy


def _line(ok, what, text):
    print(f"{'ok     ' if ok else 'missing'}  {what:<14} {text}")


def _packages():
    """A line for each package; True where all that the course needs is there."""
    healthy = True
    for extra, packages in PACKAGES.items():
        for package in packages:
            ok, words = _found(package, extra)
            healthy = healthy and (ok or extra in OPTIONAL)
            _line(ok, package, words)
    return healthy


def _machine():
    """Device, threads and memory; True where there is enough of it."""
    try:
        import psutil
        import torch

        from kdlab.base.lab import best_device
    except ImportError as missing:
        _line(False, "device", f"not known: {missing}")
        return False
    where = best_device()
    _line(True, "device", torch.cuda.get_device_name() if where == "cuda" else where)
    waiting = os.environ.get("OMP_WAIT_POLICY", "unset")
    _line(True, "threads", f"{torch.get_num_threads()} (waiting: {waiting})")
    free = psutil.virtual_memory().available / 2**30
    advice = "" if free >= 1 else "; the lessons need 1 GiB: close something"
    _line(free >= 1, "memory", f"{free:.1f} GiB free{advice}")
    return free >= 1


def _reachable():
    """Data, models and the hub; nothing of it is required."""
    try:
        from kdlab.base.places import HUB_IDS, course_files, hub_reachable, locate
    except ImportError as missing:
        _line(False, "data", f"not looked for: {missing}")
        return
    _line(True, "digits", "embedded (scikit-learn)")
    online = hub_reachable()
    found, _ = locate("mnist", "KDLAB_DATA")
    how = "optional: set KDLAB_DATA to a directory that holds mnist/, or connect once"
    if online:
        how = f"from the hub when first asked for ({HUB_IDS['mnist']})"
    _line(bool(found) or online, "mnist", str(found) if found else how)
    for name, lessons in MODELS.items():
        there = (course_files() / "data" / "teachers" / name / "model.safetensors").is_file()
        lost = f"for lesson {lessons}: get the course again"
        _line(there, name, "comes with the course" if there else lost)
    models = os.environ.get("KDLAB_MODELS")
    own = "from the course and the hub (KDLAB_MODELS is not set)"
    _line(True, "models", f"from {models}" if models else own)
    offline = "not reachable (optional: every lesson runs offline)"
    _line(online, "hub", "reachable" if online else offline)
