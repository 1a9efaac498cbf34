"""Functions out of a user's Python file: whatever goes wrong in it is one line that names it."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from asr_onnx.errors import CalibrationError


class Script:
    """The function ``file.py:function``, by default ``default``; ``what`` is its part in messages.

    A class is made an object of, which is called.  Raises ``CalibrationError`` naming the script
    and the line in it where an exception came from.
    """

    def __init__(self, spec: str, default: str, what: str) -> None:
        head, colon, tail = spec.rpartition(":")
        # A colon may also belong to a drive, C:\load.py.
        named = bool(colon) and tail.isidentifier()
        self.path, self.name = (Path(head), tail) if named else (Path(spec), default)
        self.what = f"{what} '{self.path}'"
        if not self.path.is_file():
            raise CalibrationError(f"{self.what} does not exist")
        found = self.guarded(lambda: getattr(_imported(self.path), self.name, None))
        if not callable(found):
            raise CalibrationError(f"{self.what} has no function '{self.name}'")
        self.function = self.guarded(found) if isinstance(found, type) else found

    def guarded(self, call: Callable[[], Any]) -> Any:
        """The call's result; whatever the user's code raises, as one line."""
        try:
            return call()
        except (Exception, SystemExit) as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = self.path.resolve()
            lines = [f.lineno for f in frames if Path(f.filename).resolve() == own]
            text = str(error)
            if isinstance(error, SyntaxError) and Path(error.filename or "").resolve() == own:
                lines.append(error.lineno)
                text = error.msg
            where = f", line {lines[-1]}" if lines else ""
            reason = (text.splitlines() or [""])[0]
            raise CalibrationError(
                f"{self.what}{where}: {type(error).__name__}: {reason}"
            ) from error


def _imported(path: Path) -> ModuleType:
    name = f"asr_onnx_script_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("it is no .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)  # as if it were run: modules next to it can be imported
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module
