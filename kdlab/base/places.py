"""Where data and models are found: a directory, a variable, the hub's cache, the course itself."""

import os
import socket
import sys
from pathlib import Path

from kdlab.base import plain_arguments as arguments

HUB_IDS = {  # short names of this course → hub ids
    "mnist": "ylecun/mnist",
    "smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct",
}
HALF = "half of "  # before a language model's name: every second block of it


def locate(
    name: str | os.PathLike, variable: str = "KDLAB_DATA"
) -> tuple[Path | str | None, list[str]]:
    """Find a data set or model: (where, tried); where is a directory, a cached hub id or None.

    Order: a directory called `name`; the directory `name` (or its last part) under the environment
    variable; the local hub cache. What remains, the hub itself, is left to the caller.

    >>> locate("no/such/thing")[0] is None
    True
    """
    name = arguments.place("locate", "name", name)
    variable = arguments.text("locate", "variable", variable)
    tried = [f"directory {name}"]
    if Path(name).is_dir():
        return Path(name), tried
    name = str(name)
    hub_id = HUB_IDS.get(name, name)
    root = os.environ.get(variable)
    tried.append(f"{variable}={root}" if root else f"{variable} (not set)")
    if root:
        for part in dict.fromkeys([name, hub_id, Path(name).name]):
            if (Path(root) / part).is_dir():
                return Path(root) / part, tried
    tried.append(f"hub cache, id {hub_id}")
    from huggingface_hub import constants

    kind = "models" if variable == "KDLAB_MODELS" else "datasets"
    if (
        Path(constants.HF_HUB_CACHE) / f"{kind}--{hub_id.replace('/', '--')}" / "snapshots"
    ).is_dir():
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


def course_files() -> Path:
    """The folder with notebooks/ and data/: the repository, or an installation's own copy.

    >>> (course_files() / "data" / "teachers").is_dir()
    True
    """
    package = Path(__file__).parent.parent
    return package / "course" if (package / "course").is_dir() else package.parent


def cache_folder() -> Path:
    """Where kdlab keeps what it may need again: KDLAB_CACHE, or the user's own cache folder.

    >>> cache_folder().name
    'kdlab'
    """
    if told := os.environ.get("KDLAB_CACHE"):
        return Path(told)
    home = Path.home()
    if sys.platform == "win32":
        own = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        own = home / "Library" / "Caches"
    else:
        own = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return own / "kdlab"
