"""The terminal, on which every text is shown as it is."""

from typing import Any

from rich.console import Console
from rich.text import Text

from colotride.markdown import printable


class Terminal(Console):
    """A console that takes nothing in a text for markup, and obeys no control characters.

    Names come from file systems, tables and models of others: "[red]" in a path is part of the path.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        super().__init__(stderr=stderr, markup=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A text as rich shows it; a style comes with `Text`, or with the style of a row."""
        return super().render_str("\n".join(printable(line) for line in text.split("\n")), **options)
