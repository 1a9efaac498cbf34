"""Fields declared with ``declare.option``, on the page of the API: their help is their text."""

from __future__ import annotations

import importlib
import re
from dataclasses import fields, is_dataclass
from typing import Any

import griffe

from asr_onnx.declare import declared


class Options(griffe.Extension):
    """Give attributes of records the help and the default that they were declared with."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Look through all classes of the package."""
        for module in _modules(pkg):
            for record in module.classes.values():
                if not record.is_alias:
                    _tell(record)


def _modules(module: griffe.Module) -> list[griffe.Module]:
    below = [m for m in module.modules.values() if not m.is_alias]
    return [module, *(found for m in below for found in _modules(m))]


def _tell(record: griffe.Class) -> None:
    attributes = {n: a for n, a in record.attributes.items() if "option(" in str(a.value)}
    if not attributes:
        return
    kind = getattr(importlib.import_module(record.module.path), record.name)
    assert is_dataclass(kind), f"{record.path} declares options and is no dataclass"
    for field in fields(kind):
        about = declared(field)
        if about is None or field.name not in attributes:
            continue
        attribute, default = attributes[field.name], about["default"]
        words = re.sub(r"(?<![\w-])--[a-z][a-z0-9-]*", r"``\g<0>``", about["help"])
        if about.get("choices"):
            words += f"  One of {', '.join(f'``{c}``' for c in about['choices'])}."
        attribute.docstring = griffe.Docstring(words, parent=attribute)
        attribute.value = repr(default)
