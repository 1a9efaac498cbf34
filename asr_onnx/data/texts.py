"""Text, JSON and TOML files, whoever wrote them, read within bounds."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from asr_onnx.errors import AsrError, CalibrationError
from asr_onnx.limits import TEXT, check_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TOLD = 200  # characters of what went wrong
_PARTS = 16  # of a dotted key of TOML: the parser's time goes with their square
# Strings, closed or not, and comments of TOML.
_QUOTED = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"""|\Z)|\'\'\'.*?(?:\'\'\'|\Z)|'
    r'"(?:\\[^\n]|[^"\\\n])*"?|\'[^\'\n]*\'?|#[^\n]*',
    re.DOTALL,
)


def read_text(
    path: Path, what: str, error: type[AsrError] = CalibrationError, most: int = TEXT
) -> str:
    """The text of a UTF-8 file of ``most`` bytes at most; raises ``error``, ``what`` first."""
    check_file(path, what, error, most)
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as reason:
        raise error(f"{what} cannot be read: {reason.strerror}") from None
    except UnicodeDecodeError:
        raise error(f"{what} cannot be read: it is no text in UTF-8") from None


def parse_json(text: str, what: str, error: type[AsrError] = CalibrationError, **hooks: Any) -> Any:
    """The content of JSON; raises ``error`` beginning with ``what``.  ``hooks``: ``json.loads``."""
    try:
        return json.loads(text, **hooks)
    except ValueError as reason:
        raise error(f"{what} cannot be read: no JSON ({reason})") from None
    except RecursionError:
        raise error(f"{what} cannot be read: JSON nested too deeply") from None


def parse_toml(text: str, what: str, error: type[AsrError] = CalibrationError) -> dict[str, Any]:
    """The content of TOML; raises ``error`` beginning with ``what``."""
    pieces = re.split(r"[,=\[\]{}\n]", _QUOTED.sub("", text))
    if any(piece.count(".") >= _PARTS for piece in pieces):
        raise error(f"{what} cannot be read: it has a key of more than {_PARTS} parts")
    try:
        return tomllib.loads(text)
    except ValueError as reason:
        raise error(f"{what} cannot be read: no TOML ({str(reason)[:_TOLD]})") from None
    except RecursionError:
        raise error(f"{what} cannot be read: TOML nested too deeply") from None
