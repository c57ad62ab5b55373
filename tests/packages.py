"""The wheel and the sdist, built once a test run."""

import functools
import os
import sys
from pathlib import Path

from filelock import FileLock
from pages import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import release


@functools.cache
def built():
    """(wheel, sdist); all the processes of a test run share them: the first builds."""
    folder = Path(os.environ["KDLAB_BUILT"]) / "dist"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            scratch = folder.with_name("dist.new")
            release.build(scratch)
            scratch.rename(folder)
    wheel, sdist = sorted(path for path in folder.iterdir() if path.is_file())
    return wheel, sdist
