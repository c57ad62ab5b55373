"""Pages of the site that are made from the notebooks: thumbnails of what there is, and answers."""

import base64
import html
import io
import re

from PIL import Image
from runner import read

from kdlab.lessons.predict import questions

WIDTH = 480  # of a thumbnail, in pixels: twice what it is shown at
FOR = re.compile(r"\*\*(?:You (?:will )?practise|You will be able to)\*\*:? ([^.]+)\.")


def first_picture(notebook):
    """The first picture of a notebook as PNG bytes, or None."""
    for cell in notebook.cells:
        for out in cell.get("outputs", []):
            if data := out.get("data", {}).get("image/png"):
                return base64.b64decode(data)
    return None


def thumbnail(png, path):
    """Write the picture small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((WIDTH, WIDTH))
    picture.save(path)


def titled(notebook):
    """(title, what it is for): the first heading in two, or with what one practises there."""
    text = "\n".join(cell.source for cell in notebook.cells[:4] if cell.cell_type == "markdown")
    title = re.search(r"^# (.*)", text, re.MULTILINE)[1]
    practised = FOR.search(text)
    head, _, rest = title.partition(": ")
    aim = rest or (practised[1] if practised else "")
    return head, aim[:1].upper() + aim[1:]


def cards(paths, folder, root):
    """HTML: for each notebook its picture, title and aim, leading to its page.

    folder: of the site's sources, where the thumbnails go. root: of the repository.
    """
    found = []
    for path in sorted(paths):
        notebook, inside = read(path), path.relative_to(root).with_suffix("")
        png, (title, aim) = first_picture(notebook), titled(notebook)
        image = ""
        if png:
            thumbnail(png, folder / "_static" / "thumbnails" / f"{path.stem}.png")
            image = f'<img alt="" src="_static/thumbnails/{path.stem}.png" loading="lazy">'
        found.append(
            f'<a class="card" href="{inside.as_posix()}.html">{image}'
            f"<strong>{_plain(title)}</strong><span>{_plain(aim)}</span></a>"
        )
    return f'<div class="kdlab-gallery">{"".join(found)}</div>'


def _plain(words):
    return html.escape(re.sub(r"[`*]", "", words))


def answers():
    """Markdown: every question of the course with its answer, lesson by lesson."""
    lines, lesson = (
        [
            "# Answers to the predictions",
            "",
            "Each lesson asks before it shows. In JupyterLab a guess brings the answer; here all "
            "stand, for print and for readers without scripts. Guess first.",
        ],
        None,
    )
    for name, asked in sorted(questions().items()):
        if name[:2] != lesson:
            lesson = name[:2]
            lines += ["", f"## Lesson {lesson}"]
        options = " · ".join(asked.options)
        lines += ["", f"**{name}** {asked.text} *{options}*", ""]
        lines += [f"**{asked.right}.** {asked.because}"]
    return "\n".join(lines) + "\n"
