"""Markdown, as GitHub and GitLab show it: of text and names from anywhere, nothing acts there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from asr_onnx.reports.printable import printable

MOST = 50  # rows of a table; summaries of CI have a limit, and JSON has all
_PLAIN = re.compile(r"(?!.*www\.)[\w./:=,()'+-]+(?: [\w./:=,()'+-]+)*", re.ASCII | re.IGNORECASE)
_ACTING = re.compile(r"[\\`*_{}\[\]<>#!|&~$^]")
# What begins a mention, a reference, an emoji code or a link: a space of no width keeps it off.
_LINKING = re.compile(r"([@#:])(?=\w)|(www)(?=\.)", re.IGNORECASE)


def text(words: object) -> str:
    """Words on one line that mean nothing to Markdown.

    >>> text("*a* <b> | c")
    '&#42;a&#42; &#60;b&#62; &#124; c'
    """
    line = " ".join(printable(str(words)).split())
    parts = _LINKING.split(line)
    # Of the parts every third is text, and what is between them one of the two that link.
    return "".join(
        _escaped(part or "") + ("&#8203;" if number % 3 and part else "")
        for number, part in enumerate(parts)
    )


def code(name: object) -> str:
    """A name as it is, for a table, too: in backticks, or where it would end them as entities.

    >>> code("conv1.weight"), code("a|b")
    ('`conv1.weight`', '<code>a&#124;b</code>')
    """
    shown = printable(str(name))
    if _PLAIN.fullmatch(shown):
        return f"`{shown}`"
    return f"<code>{re.sub(r'[^0-9A-Za-z]', _entity, shown)}</code>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table, its cells Markdown already; the first ``left`` columns are not figures.

    Of more than ``MOST`` rows the first ones.
    """
    rows = list(rows)
    marks = [":--" if n < left else "--:" for n in range(len(heads))]
    lines = [_row(heads), _row(marks), *map(_row, rows[:MOST]), ""]
    more = len(rows) - MOST
    return lines if more <= 0 else [*lines, f"and {more:,} more: the JSON report has them all", ""]


def section(title: str, *parts: Iterable[str]) -> list[str]:
    """Lines under a heading."""
    return [f"### {title}", "", *(line for part in parts for line in part)]


def paragraphs(lines: Iterable[str]) -> list[str]:
    """Sentences of text, a paragraph each."""
    return [part for line in lines for part in (text(line), "")]


def document(*parts: Iterable[str]) -> str:
    """All lines as one text."""
    return "\n".join(line for part in parts for line in part).rstrip("\n") + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(part: str) -> str:
    return _ACTING.sub(_entity, part)


def _entity(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};"
