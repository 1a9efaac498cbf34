"""What importing the package does: little, and names stay what they are."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest
from models import files

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


def child(code, folder, **environment):
    """Run Python code with an empty home; what it prints."""
    homes = {"HOME": folder, "XDG_CACHE_HOME": folder / ".cache", "XDG_CONFIG_HOME": folder / ".c"}
    kept = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {k: str(v) for k, v in homes.items()} | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.parametrize("name", ["asr_onnx", "asr_onnx.cli.main", "asr_onnx.execution.session"])
def test_nothing_is_written_into_the_home_folder(tmp_path, name):
    child(f"import {name}, onnxruntime; onnxruntime.SessionOptions()", tmp_path)
    assert files(tmp_path) == []


def test_a_user_may_want_the_telemetry_of_onnx_runtime(tmp_path):
    code = "import asr_onnx, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert child(code, tmp_path) == "1\n"
    assert child(code, tmp_path, ORT_DISABLE_TELEMETRY="0") == "0\n"
