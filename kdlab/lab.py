"""Where we run: the device, the scale, and where data and models are found."""

import contextlib
import importlib.metadata
import os
import random
import socket
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .arguments import whole

HUB_IDS = {"mnist": "ylecun/mnist"}  # short names of this course → hub ids


@dataclass(frozen=True)
class Lab:
    """What `setup` chose: device, dtype, threads, scale ("quick" or "full") and seed."""

    device: torch.device
    dtype: torch.dtype
    threads: int
    scale: str
    seed: int

    def __str__(self):
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        kind = str(self.dtype).removeprefix("torch.")
        return f"kdlab on {name} · {self.threads} threads · {kind} weights · scale {self.scale} · seed {self.seed}"


_lab = None


def _best_device():
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def setup(seed=0):
    """Choose where to run, make it repeatable, and say so in one line.

    CUDA before MPS before CPU; the scale is "full" on a GPU and "quick" on a CPU, unless the
    environment variable KDLAB_SCALE says otherwise. Seeds Python, NumPy and torch and asks torch for
    deterministic algorithms. Returns a `Lab`.

    >>> setup(seed=1).seed
    kdlab on ... seed 1
    1
    """
    global _lab
    seed = whole("setup", "seed", seed, most=2**32 - 1)  # the most that NumPy takes
    device = torch.device(_best_device())
    scale = os.environ.get("KDLAB_SCALE") or ("quick" if device.type == "cpu" else "full")
    if scale not in ("quick", "full"):
        raise ValueError(f"setup: KDLAB_SCALE must be 'quick' or 'full', got {scale!r}")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs a tenth of each step
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    _lab = Lab(device, torch.float32, torch.get_num_threads(), scale, seed)
    print(_lab)
    return _lab


def device():
    """The device that `setup` chose; the CPU before it was called.

    >>> isinstance(device(), torch.device)
    True
    """
    return _lab.device if _lab else torch.device("cpu")


@contextlib.contextmanager
def threads_for(model):
    """On a CPU, one thread while a small model works: waking a second one costs more than it saves.

    Small is under two million parameters: a transformer of half a million trains 1.4 times as fast, writes twice so.

    >>> with threads_for(torch.nn.Linear(2, 2)):
    ...     torch.get_num_threads()
    1
    """
    before, parameters = torch.get_num_threads(), list(model.parameters())
    small = all(p.device.type == "cpu" for p in parameters) and sum(p.numel() for p in parameters) < 2_000_000
    torch.set_num_threads(1 if small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def locate(name, variable="KDLAB_DATA"):
    """Find a data set or model: (where, tried), `where` a directory, a hub id in the local cache, or None.

    Order: a directory called `name`; the directory `name` (or its last part) under the environment
    variable; the local hub cache. What remains, the hub itself, is left to the caller.

    >>> locate("no/such/thing")[0] is None
    True
    """
    tried = [f"directory {name}"]
    if Path(name).is_dir():
        return Path(name), tried
    hub_id = HUB_IDS.get(name, name)
    root = os.environ.get(variable)
    tried.append(f"{variable}={root}" if root else f"{variable} (not set)")
    for part in dict.fromkeys([name, hub_id, Path(name).name]) if root else []:
        if (Path(root) / part).is_dir():
            return Path(root) / part, tried
    tried.append(f"hub cache, id {hub_id}")
    from huggingface_hub import constants

    kind = "models" if variable == "KDLAB_MODELS" else "datasets"
    if (Path(constants.HF_HUB_CACHE) / f"{kind}--{hub_id.replace('/', '--')}" / "snapshots").is_dir():
        return hub_id, tried
    return None, tried


def hub_reachable(timeout=2.0):
    """True when a connection to the Hugging Face hub opens within `timeout` seconds.

    >>> hub_reachable(timeout=1e-9)
    False
    """
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return False
    try:
        socket.create_connection(("huggingface.co", 443), timeout).close()
        return True
    except OSError:
        return False


def course_files():
    """The folder that holds the course's notebooks/ and data/: the repository, or the copy that an installation brings.

    >>> (course_files() / "data" / "teachers").is_dir()
    True
    """
    package = Path(__file__).parent
    return package / "course" if (package / "course").is_dir() else package.parent


def doctor():
    """Print versions, device, memory and reachable data with advice; True when the course can run.

    The same as `python -m kdlab doctor`, whose exit status is 0 when the course can run.

    >>> healthy = doctor()
    ok       torch ...
    The course can...
    """
    import psutil

    healthy = True

    def line(ok, what, text):
        print(f"{'ok     ' if ok else 'missing'}  {what:<14} {text}")

    for package, needed in [("torch", True), ("transformers", True), ("scikit-learn", True), ("matplotlib", True),
                            ("jupyterlab", True), ("ipywidgets", True), ("datasets", True), ("nbval", False)]:
        try:
            line(True, package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            healthy = healthy and not needed
            line(False, package, f"pip install {package}" + ("" if needed else "  (for tests alone)"))
    where = _best_device()
    line(True, "device", torch.cuda.get_device_name() if where == "cuda" else where)
    line(True, "threads", f"{torch.get_num_threads()} (waiting: {os.environ.get('OMP_WAIT_POLICY', 'unset')})")
    free = psutil.virtual_memory().available / 2**30
    healthy = healthy and free >= 1
    advice = "" if free >= 1 else "; the lessons need 1 GiB: close something"
    line(free >= 1, "memory", f"{free:.1f} GiB free{advice}")
    line(True, "digits", "embedded (scikit-learn)")
    online = hub_reachable()
    for name, variable in [("mnist", "KDLAB_DATA")]:
        found, _ = locate(name, variable)
        text = f"{found}" if found else f"from the hub when first asked for ({HUB_IDS[name]})" if online else (
            f"optional: set {variable} to a directory that holds {name}/, or connect once")
        line(bool(found) or online, name, text)
    for name, lessons in [("topics_lm", "02"), ("docs_bert", "06"), ("docs_lm", "07, 08"), ("docs_base", "07, 08")]:
        there = (course_files() / "data" / "teachers" / name / "model.safetensors").is_file()
        line(there, name, "comes with the course" if there else f"for lesson {lessons}: get the course again")
    models = os.environ.get("KDLAB_MODELS")
    line(True, "models", f"from {models}" if models else "from the course and the hub (KDLAB_MODELS is not set)")
    line(online, "hub", "reachable" if online else "not reachable (optional: every lesson runs offline)")
    print("The course can run." if healthy else "The course can't run yet: mend the required lines above.")
    return healthy
