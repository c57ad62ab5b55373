"""What models wrote, side by side."""

import html
from typing import Any


class Texts:
    """What models wrote, side by side: {name: text}, with a caption; as plain text without it.

    >>> Texts({"teacher": "def f(x):"}, "One sample.")
    Texts: One sample. [teacher]
    """

    def __init__(self, texts: Any, caption: str) -> None:
        self.texts, self.caption = dict(texts), caption

    def __repr__(self):
        return f"Texts: {self.caption} [{', '.join(self.texts)}]"

    def _repr_html_(self):
        style = "text-align:left;vertical-align:top;white-space:pre-wrap"
        rows = "".join(
            f"<tr><th style='{style}'>{html.escape(name)}</th>"
            f"<td style='{style}'><samp>{html.escape(text)}</samp></td></tr>"
            for name, text in self.texts.items()
        )
        return f"<table>{rows}</table><p>{html.escape(self.caption)}</p>"
