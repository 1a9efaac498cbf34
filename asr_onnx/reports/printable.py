"""Text from models and files on its way to a terminal or a page: nothing in it acts there."""

from __future__ import annotations

import re

# Control characters but tab and newline, surrogates, and what turns the direction of text around.
_ACTING = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text on one line, with escapes for what a terminal would obey: ``\\x1b[31m``."""
    return without_controls(text).replace("\t", "\\t").replace("\n", "\\n")


def without_controls(text: str) -> str:
    """The same for a text of several lines."""
    return _ACTING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
