"""Write small files whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

from asr_onnx.errors import AsrError


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``; raises ``AsrError`` naming the path when that fails."""
    try:
        with tempfile.TemporaryDirectory(prefix=".asr-onnx-", dir=path.parent) as folder:
            staged = Path(folder) / path.name
            staged.write_text(text, encoding="utf-8")
            staged.replace(path)
    except OSError as error:
        raise AsrError(f"'{path}' cannot be written: {error.strerror}") from None
