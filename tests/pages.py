"""The site and the slides, built once a test run and without a network; what a page loads and links
to."""

import functools
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock

ROOT = Path(__file__).parent.parent
LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "embed": "src",
    "audio": "src",
    "video": "src",
    "object": "data",
    "use": "href",
}
LINKED = {
    "stylesheet",
    "icon",
    "preload",
    "modulepreload",
    "preconnect",
    "dns-prefetch",
    "prefetch",
    "manifest",
}
IN_STYLE = re.compile(r"(?:url\(\s*|@import\s+)[\"']?((?:https?:)?//[^\"')\s]+)")
IN_SCRIPT = re.compile(
    r"(?:\bimport\b|\bfrom\b|\bfetch\(|\bimport\(|\.src\s*=)\s*[\"'`]((?:https?:)?//[^\"'`]+)"
)


@functools.cache
def built(tool):
    """The folder that tools/{tool}.py built, with nothing but the loopback to reach.

    All the processes of a test run share it: the first builds, the others wait.
    """
    folder = Path(os.environ["KDLAB_BUILT"]) / tool
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _build(tool, folder)
    (made,) = folder.iterdir()  # and no scratch folder beside it
    return made


def _build(tool, folder):
    command = [sys.executable, "tools/offline.py", sys.executable, f"tools/{tool}.py", "--build"]
    done = subprocess.run(
        [*command, folder],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:]


class Page(HTMLParser):
    """What a page loads (scripts, pictures, styles, fonts), links to, and names as anchors; its
    figures and words."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.anchors, self.figures, self.words = [], [], {""}, [], []
        self.inside = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.inside = tag if tag in ("style", "script") else None
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag in LOADS and found.get(LOADS[tag]):
            self.loads.append(found[LOADS[tag]])
        if tag == "link" and LINKED & set((found.get("rel") or "").split()):
            self.loads.append(found["href"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"] or "")
        if tag == "img":
            self.figures.append(found.get("alt") or "")
            self.loads += [
                part.split()[0] for part in (found.get("srcset") or "").split(",") if part.strip()
            ]
        self.loads += IN_STYLE.findall(found.get("style") or "")

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "style":
            self.loads += IN_STYLE.findall(data)
        elif self.inside == "script":
            self.loads += IN_SCRIPT.findall(data)
        else:
            self.words.append(data)


@functools.cache
def page(path):
    return Page(path.read_text(encoding="utf-8"))


def from_elsewhere(folder):
    """["page: address"] of everything that a page or a style sheet in `folder` would fetch from
    another server."""
    found = [
        f"{path.name}: {address}"
        for path in sorted(folder.rglob("*.html"))
        for address in page(path).loads
        if urlsplit(address).netloc
    ]
    return found + [
        f"{path.name}: {address}"
        for path in sorted(folder.rglob("*.css"))
        for address in IN_STYLE.findall(path.read_text(encoding="utf-8"))
    ]


@functools.cache
def leads_to(folder, place, address):
    """The file in `folder` that an address on a page in `place` leads to, or None. The same few
    addresses stand beside every page."""
    target = (place / address).resolve()
    target = target / "index.html" if target.is_dir() else target
    return target if target.is_file() and target.is_relative_to(folder.resolve()) else None


def broken(folder):
    """["page: address"] of every link or file that leads nowhere; addresses elsewhere are checked
    for their form."""
    found = []
    for path in sorted(folder.rglob("*.html")):
        for address in [*page(path).links, *page(path).loads]:
            parts = urlsplit(address)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                good = parts.scheme in ("http", "https") and re.fullmatch(
                    r"[\w.-]+(:\w+)?", parts.netloc
                )
            else:
                target = leads_to(folder, path.parent, unquote(parts.path)) if parts.path else path
                good = target is not None
                if good and target.suffix == ".html":
                    good = unquote(parts.fragment) in page(target).anchors
            found += [] if good else [f"{path.relative_to(folder)}: {address}"]
    return found
