"""The course as a static site in build/site: python tools/website.py [--build DIR]

Lessons, demos and the students' homework are shown as they were executed; nothing of them is run,
nothing is fetched. The live pages' teachers are trained, which takes some seconds. Sphinx's
warnings are errors. The site is built in a folder of its own and put in its place when it is
whole."""

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

import assets
import gallery
import reference
from runner import ROOT, read, write

NOTEBOOKS = [
    "[0-9][0-9]_*.ipynb",
    "instructor_guide.ipynb",
    "demos/*.ipynb",
    "homework/student/*/*.ipynb",
]
# pages with thumbnails of notebooks, and where on the page
GALLERIES = {
    "index.md": "[0-9][0-9]_*.ipynb",
    "demos.md": "demos/*.ipynb",
    "homework.md": "homework/student/*/*.ipynb",
}
HERE = "<!-- thumbnails -->"
CLAIMS = ROOT / "benchmarks" / "results" / "claims.csv"
# the API's pages are those of this working copy, whatever is installed
sys.path.insert(0, str(ROOT))
VIEW = "application/vnd.jupyter.widget-view+json"
# a notebook's link to a page of docs/, which the site has beside its notebooks' folder
TO_DOCS = re.compile(r"\]\(((?:\.\./)+)docs/(?=\w+\.md)")
STILL = "<p><em>A control: open the notebook in JupyterLab to move it.</em></p>"


def still(notebook):
    """The notebook with controls as the pictures that they carry, for a page has no kernel behind
    it, and with its links to docs/ as they work in the site."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.setdefault("language_info", {"name": "python", "pygments_lexer": "ipython3"})
    for cell in (cell for cell in notebook.cells if cell.cell_type == "markdown"):
        cell.source = TO_DOCS.sub(r"](\1", cell.source)
    for output in (out for cell in notebook.cells for out in cell.get("outputs", [])):
        data = output.get("data", {})
        if data.pop(VIEW, None) and not {"text/html", "image/png"} & set(data):
            data["text/html"] = STILL
    return notebook


def listed(text, folder):
    """A page with the patterns in its lists of pages replaced by the pages there are: Sphinx warns
    of an empty one.

    text: Markdown, in which a pattern is a line of its own. folder: the page's own.
    """

    def pages(pattern):
        found = [
            path.relative_to(folder).with_suffix("").as_posix()
            for path in folder.glob(f"{pattern[0]}.*")
        ]
        return "\n".join(sorted(found))

    return re.sub(r"^[\w/]*[*\[][\w/*\[\]-]*$", pages, text, flags=re.MULTILINE)


def linked(text, folder):
    """A page of docs/ with its links (../notebooks/…, as they work in the repository) as they work
    in `folder`.

    What the repository has and the site has not, a folder or a program, stays as words without a
    link."""

    def there(match):
        words, address = match.groups()
        inside = address.removeprefix("../")
        known = inside == address or (folder / inside.partition("#")[0]).is_file()
        return f"[{words}]({inside})" if known else words

    return re.sub(r"(?<!!)\[([^\]\n]+)\]\(([^)\s]+)\)", there, text)


def stage(folder):
    """Lay out what Sphinx reads in the empty `folder`: docs/, notebooks without controls, the API,
    MathJax, what the live pages compute with."""
    shutil.copytree(
        ROOT / "docs", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
    )
    for path in sorted(
        path for pattern in NOTEBOOKS for path in (ROOT / "notebooks").glob(pattern)
    ):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        write(still(read(path)), copy)
    (folder / "answers.md").write_text(gallery.answers(), encoding="utf-8")
    names = [path.stem for path in (ROOT / "notebooks").glob(NOTEBOOKS[0])]
    (folder / "ledger.md").write_text(gallery.ledger(CLAIMS, names), encoding="utf-8")
    for name, pattern in GALLERIES.items():
        page = folder / name
        made = gallery.cards((ROOT / "notebooks").glob(pattern), folder, ROOT)
        page.write_text(page.read_text(encoding="utf-8").replace(HERE, made), encoding="utf-8")
    reference.pages(folder / "api")
    assets.mathjax(folder / "_static" / "mathjax")
    import page_data  # of this working copy's package too

    live = folder / "_static" / "live"  # the pages that compute in the browser
    shutil.copyfile(ROOT / "kdlab" / "show" / "explorer.css", live / "explorer.css")
    page_data.write(live / "data.js")
    for page in folder.glob("*.md"):
        page.write_text(
            linked(listed(page.read_text(encoding="utf-8"), folder), folder), encoding="utf-8"
        )


def build(site):
    """Build the site into the folder `site`, in place of an earlier one. True where it was
    whole."""
    site.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="site-", dir=site.parent) as scratch:
        source, new = Path(scratch, "source"), Path(scratch, "site")
        source.mkdir()
        stage(source)
        # once stage has found, or missed, the packages of the extra
        from sphinx.cmd.build import build_main

        status = build_main(
            [
                "-q",
                "-W",
                "--keep-going",
                "-b",
                "html",
                "-d",
                f"{scratch}/doctrees",
                str(source),
                str(new),
            ]
        )
        if status:
            return False
        for template in (new / "_static").glob("*macros.html"):  # the themes' own, no pages
            template.unlink()
        assets.replace(new, site)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    site = parser.parse_args().build.resolve() / "site"
    if not build(site):
        return (
            f"The site could not be built (the warnings are above); {site.name}/ stays as it was."
        )
    print(f"{sum(1 for _ in site.rglob('*.html'))} pages; open {site / 'index.html'}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; the site stays as it was.")
