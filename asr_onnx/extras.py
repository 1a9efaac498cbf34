"""Packages that only some need: each is an extra of this one, and imported when it is used."""

from __future__ import annotations

import importlib
from typing import Any

from asr_onnx.errors import MissingError


def require(package: str, extra: str, what: str) -> Any:
    """Import a package that ``what`` needs; ``MissingError`` says what to install without it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.split(".")[0]:
            raise  # it is there, and what it needs itself is not
        raise MissingError(
            f"{what} needs {package}, which is not installed: pip install asr-onnx[{extra}]"
        ) from None
