"""Text and JSON files, whoever wrote them, read within bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asr_onnx.errors import AsrError, CalibrationError
from asr_onnx.limits import TEXT, check_file


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
