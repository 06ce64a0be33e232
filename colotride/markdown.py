"""Markdown that shows a name as it is, whatever the name contains."""

import re
from collections.abc import Sequence

_MARKUP = re.compile(r"([\\`*_\[\]#|~])")


def escape(text: str) -> str:
    """A text that Markdown, and the HTML made from it, shows literally, on one line.

    Characters that print nothing (control characters, line breaks) become U+FFFD.
    """
    visible = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKUP.sub(r"\\\1", visible)


def printable(text: str) -> str:
    """A text without control characters, which a terminal would obey instead of showing them."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A Markdown table; every head and every cell is escaped.

    Args:
        heads: of the columns.
        rows: each as long as `heads`.
        left: how many columns are aligned to the left; the others are aligned to the right.
    """
    rule = ["---"] * left + ["---:"] * (len(heads) - left)
    lines = [[escape(cell) for cell in heads], rule, *([escape(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
