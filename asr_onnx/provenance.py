"""Where a result comes from: versions and hashes of what made it; and JSON that holds it."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Inputs:
    """Hashes of files as they were before the work, by path as given, and their size and time."""

    hashes: Mapping[str, str]
    stamps: Mapping[Path, tuple[int, int] | None]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Inputs:
        """Raises ``AsrError`` naming a file that cannot be read."""
        paths = list(paths)
        stamps = {p: _stamp(p) for p in paths}
        return cls(sha256(paths), stamps)

    def changed(self) -> Iterator[str]:
        """A sentence for each file that is another now."""
        for path, stamp in self.stamps.items():
            if _stamp(path) != stamp:
                yield (
                    f"'{path}' was changed during the run: the result is of the file as it was "
                    "before, and so is its hash in the report"
                )


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


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
