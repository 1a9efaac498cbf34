"""What is written to the terminal: text as it is, never markup, emoji codes or escape sequences."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console
from rich.text import Text

from asr_onnx.reports.printable import printable


class Terminal(Console):
    """A console for names of whatever content, in tables, too."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, *args: Any, **settings: Any) -> Text:
        """As rich does, of the text without control characters."""
        return super().render_str(printable(text), *args, **settings)

    def say(self, text: str) -> None:
        """Print a line that is broken by the terminal alone."""
        self.print(text, soft_wrap=True)


def complain(line: str) -> None:
    """Write a line to stderr, also of a quiet command."""
    click.echo(printable(" ".join(line.split())), err=True)
