"""Files that are whole or not there, and libraries that keep still meanwhile."""

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A file beside its place, moved there at the end; after an error neither is there.

    FileNotFoundError where the folder is missing.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with beside(Path(folder, "a.txt")) as new:
    ...         _ = new.write_text("all of it")
    ...     os.listdir(folder)
    ['a.txt']
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} in")
    with tempfile.TemporaryDirectory(prefix=".kdlab-", dir=path.parent) as folder:
        new = Path(folder, path.name)
        yield new
        os.replace(new, path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what libraries say to their own developers: warnings, logs, lines, progress bars.

    >>> with quiet():
    ...     print("chatter")
    """
    nowhere = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
