"""Let the README's badges open this repository: python tools/badges.py OWNER/NAME [--branch main]

A copy does not know where it is hosted, so its badges lead to a page that says how to open it
elsewhere. Given its name on GitHub, they open a Binder, Codespaces and Colab at once."""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
HOW = "docs/instructor_guide.md#without-a-clone"  # where a badge leads that has no address
BEGIN, END = "<!-- badges: tools/badges.py -->\n", "\n<!-- /badges -->"
FIRST = "notebooks/00_start_here.ipynb"
PLACES = {
    "a Binder": "https://mybinder.org/v2/gh/{name}/{branch}?labpath=" + FIRST.replace("/", "%2F"),
    "Codespaces": "https://codespaces.new/{name}/tree/{branch}",
    "Colab": "https://colab.research.google.com/github/{name}/blob/{branch}/" + FIRST,
}


def badges(name="", branch="main"):
    """Three badges in Markdown; without a name they lead to the page that says how.

    >>> print(badges("ada/kdlab").splitlines()[1])
    [![open in Codespaces](docs/_static/badges/codespaces.svg)](https://codespaces.new/ada/kdlab/tree/main)
    """
    if name and not re.fullmatch(r"[A-Za-z0-9][\w-]*/[\w.-]+", name, re.ASCII):
        raise ValueError(f"badges: expected OWNER/NAME, as on GitHub, got {name!r}")
    if not re.fullmatch(r"[\w][\w./-]*", branch, re.ASCII):
        raise ValueError(f"badges: expected the name of a branch, got {branch!r}")
    lines = []
    for place, address in PLACES.items():
        picture = f"docs/_static/badges/{place.split()[-1].lower()}.svg"
        to = address.format(name=name, branch=branch) if name else HOW
        lines.append(f"[![open in {place}]({picture})]({to})")
    return "\n".join(lines)


def put(text, made):
    """The README's text with these badges between their marks."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + made + END + rest.split(END, 1)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", default="", help="OWNER/NAME; none: no address again")
    parser.add_argument("--branch", default="main")
    options = parser.parse_args()
    try:
        made = badges(options.name, options.branch)
    except ValueError as error:
        return str(error)
    README.write_text(put(README.read_text(encoding="utf-8"), made), encoding="utf-8")
    print(made)


if __name__ == "__main__":
    sys.exit(main())
