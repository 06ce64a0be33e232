"""Names that people give, checked in one place: they become folders, files, metrics and headings."""

import re
from typing import Annotated

from pydantic import AfterValidator

LONGEST = 200
"""Bytes of UTF-8. File systems allow 255, and some files carry more than the name."""

_NAME = re.compile(r"\w([\w .:+@-]*[\w+-])?")


def check_name(name: str) -> str:
    """The name itself, where it can be that of a folder, a file and a metric.

    Raises:
        ValueError: it is empty, too long, or has characters that mean something else in a path, in Markdown, in HTML
            or on a terminal.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("should be letters, digits and, between them, spaces or any of .:+@_-, without a folder")
    return _checked_length(name)


def check_label(label: str) -> str:
    """The text itself, where it can be shown on one line; whoever shows it escapes it.

    Raises:
        ValueError: it is empty, too long, or has characters that print nothing.
    """
    if not label.strip() or not label.isprintable():
        raise ValueError("should be text of one line without control characters")
    return _checked_length(label)


def _checked_length(text: str) -> str:
    length = len(text.encode())
    if length > LONGEST:
        raise ValueError(f"should be at most {LONGEST} bytes long, and has {length}")
    return text


Name = Annotated[str, AfterValidator(check_name)]
"""Of a search, or of what a plugin registers."""

Label = Annotated[str, AfterValidator(check_label)]
"""Of a model, in reports and tables."""
