"""Text to learn from: the standard library's docstrings, by field, or any set, by name.

Where it comes from and how it is cut lives in files of their own and is offered here, as `kd.text`.
"""

from kdlab.data.docstrings import FIELDS as FIELDS
from kdlab.data.docstrings import docstrings as docstrings
from kdlab.data.docstrings import held_out as held_out
from kdlab.data.labelled_text import load_text as load_text
from kdlab.data.plain_text import plain_text as plain_text
from kdlab.data.plain_text import small_texts as small_texts
from kdlab.data.windows import windows as windows

__all__ = [
    "FIELDS",
    "docstrings",
    "held_out",
    "load_text",
    "plain_text",
    "small_texts",
    "windows",
]
