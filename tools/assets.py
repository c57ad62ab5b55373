"""Where MathJax and reveal.js lie: pages must show without a network, so both come from installed
packages.

MathJax 3.2 is Apache 2.0, from sphinx-mathjax-offline; reveal.js 5 is MIT, from sphinx-revealjs. Of
both packages only these files are used."""

import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

MATHJAX = "sphinx-mathjax-offline", "sphinx-mathjax-offline/static/mathjax"
REVEAL = "sphinx-revealjs", "sphinx_revealjs/_static/revealjs"


def folder(package, inside):
    """The folder `inside` an installed package. Exits where the package is missing or has moved
    it."""
    try:
        found = Path(distribution(package).locate_file(inside))
    except PackageNotFoundError:
        sys.exit(f'{package} is not installed: pip install -c constraints.txt -e ".[site]"')
    if not found.is_dir():
        sys.exit(
            f"{package} {distribution(package).version} has no {inside}; constraints.txt names a"
            " version that has"
        )
    return found


def mathjax(target):
    """Copy MathJax, one file with its glyphs inside, into the folder `target`."""
    target.mkdir(parents=True)
    shutil.copyfile(folder(*MATHJAX) / "tex-svg.js", target / "tex-svg.js")


def reveal(target):
    """Copy reveal.js with the theme and the plug-in that the slides use, and its licence, into the
    folder `target`."""
    source = folder(*REVEAL)
    for name in [
        "LICENSE",
        "dist/reveal.js",
        "dist/reveal.css",
        "dist/reset.css",
        "plugin/notes/notes.js",
    ]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def replace(new, old):
    """Put the finished folder `new` in the place of `old`: a reader sees the one or the other,
    never half a site."""
    aside = old.with_name(old.name + ".old")
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():
        old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)
