"""Examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re

import pytest

import asr_onnx

WALK = pkgutil.walk_packages(asr_onnx.__path__, "asr_onnx.")
LEFT_OUT = re.compile(r"__main__$|^asr_onnx\.integrations\.")  # need programs not installed here
MODULES = ["asr_onnx", *sorted(m.name for m in WALK if not LEFT_OUT.search(m.name))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    found = (doctest.DocTestFinder().find(importlib.import_module(m)) for m in MODULES)
    assert any(example.examples for tests in found for example in tests)
