"""The folder of a sweep: one small file per finished model, named by all that determines it.

An automatic amount keeps what it tried in the same way, and in the same folder if that is asked.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asr_onnx.data.texts import parse_json, read_text
from asr_onnx.errors import AsrError, CalibrationError, UsageError
from asr_onnx.files import check_folder, write_text

_CELLS = "cells"
_MARK = "README.txt"
_ABOUT = """\
Finished cells of `asr-onnx sweep`, and what `asr-onnx repair --sparsity auto` tried, one file each,
named by a hash of the model, the data and the options.  Started again, both take from here what
they need and do only the rest.
Files that are not needed any more do no harm; this folder may be deleted.
"""


class SweepFolder:
    """Records by name in ``path``; nothing is written before ``create``.

    Raises ``UsageError`` for a path that cannot be used, and without ``force`` for a folder with
    anything in it but a sweep.  ``option`` is what named it.
    """

    def __init__(self, path: Path, force: bool = False, option: str = "-o") -> None:
        self.path = path
        self._cells = path / _CELLS
        if path.exists() and not path.is_dir():
            raise UsageError(f"output '{path}' is no folder: name another")
        above = path if path.is_dir() else path.parent
        if not above.is_dir():
            raise UsageError(f"folder '{above}' of the output does not exist")
        check_folder(above)
        if path.is_dir() and any(path.iterdir()) and not (force or self._is_sweep()):
            raise UsageError(
                f"folder '{path}' has other things than a sweep in it: give another {option}, or "
                "--force"
            )

    def _is_sweep(self) -> bool:
        return (self._cells / _MARK).is_file()

    def create(self) -> None:
        """Make the folder, if it is not there; raises ``AsrError`` naming it when that fails."""
        try:
            self._cells.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AsrError(f"folder '{self._cells}' cannot be made: {error.strerror}") from None
        if not self._is_sweep():
            write_text(self._cells / _MARK, _ABOUT)

    def read(self, name: str) -> dict[str, Any] | None:
        """The record called ``name``; ``None`` where there is none, or a file that is damaged."""
        path = self._cells / f"{name}.json"
        try:
            content = parse_json(read_text(path, str(path)), str(path))
        except CalibrationError:
            return None
        if not isinstance(content, dict) or content.get("name") != name:
            return None
        record = content.get("record")
        return record if isinstance(record, dict) else None

    def write(self, name: str, record: dict[str, Any]) -> None:
        """Keep a record, whole or not at all; raises ``AsrError`` when it cannot be written."""
        content = {"asr_onnx_cell": 1, "name": name, "record": record}
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        write_text(self._cells / f"{name}.json", text)
