"""Where a result comes from: versions and hashes of what made it; and JSON that holds it."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from asr_onnx.errors import AsrError

__version__ = "0.1.0"

_PACKAGES = ("asr-onnx", "onnx", "onnx-graphsurgeon", "onnxruntime-gpu", "onnxruntime", "numpy")
_CHUNK = 1 << 20  # bytes read at a time


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages a result depends on."""
    import importlib.metadata  # slow, and this module is the first to be imported

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def sha256(paths: Iterable[Path]) -> dict[str, str]:
    """Hashes of files by path as given; raises ``AsrError`` naming one that cannot be read."""
    found = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                digest = hashlib.sha256()
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise AsrError(f"'{path}' cannot be read: {error.strerror}") from None
        found[str(path)] = digest.hexdigest()
    return found


def plain(value: Any) -> Any:
    """What JSON can hold: it has no infinity and no NaN, they become ``None``."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dumps(report: Mapping[str, Any]) -> str:
    """The report as text, ready to be written."""
    return json.dumps(report, indent=1, allow_nan=False) + "\n"
