"""What importing the package does: little, and names stay what they are."""

from __future__ import annotations

import importlib
import subprocess
import sys

import asr_onnx

HEAVY = ("scipy", "rich", "joblib", "PIL", "onnx_graphsurgeon", "matplotlib", "onnxruntime", "onnx")


def test_importing_the_package_imports_no_other():
    code = f"import asr_onnx, sys; print([m for m in {HEAVY} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_every_public_name_is_there():
    for name in asr_onnx.__all__:
        assert getattr(asr_onnx, name).__name__ == name
    assert set(asr_onnx.__all__) <= set(dir(asr_onnx))


def test_a_function_is_no_module():
    for name in ("repair", "prune", "inspect", "compare", "sweep", "recipe", "load", "save"):
        assert callable(getattr(asr_onnx, name))
        try:
            importlib.import_module(f"asr_onnx.{name}")
        except ModuleNotFoundError:
            continue
        raise AssertionError(f"importing asr_onnx.{name} would hide the function")
