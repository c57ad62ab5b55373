"""Imported before nbformat, which then starts in a fraction of a second, not in three.

nbformat brings jsonschema, and that would compile a grammar of international addresses, which the
schema of notebooks never asks for."""

import sys

sys.modules.setdefault("rfc3987_syntax", None)  # as where it is not installed
