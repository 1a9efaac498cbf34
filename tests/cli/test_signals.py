"""SIGINT and SIGTERM at any moment: one line, an exit code, no staging folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from models import ROOT, files

from asr_onnx import interrupts
from asr_onnx.cli import request

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
REPAIR = ("repair", "m.onnx", "--calib", "x.npy", "--providers", "cpu", "-o", "out.onnx")


def start(*command):
    return subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def came(number, hidden=None):
    """What stands for a function during which a signal comes; ``hidden`` is raised instead."""

    def call(*_, **__):
        try:
            interrupts._raise(number, None)
        except interrupts.Interrupted:
            raise hidden or interrupts.Interrupted from None

    return call


@pytest.mark.parametrize("hidden", [None, ImportError("no"), KeyboardInterrupt()])
def test_an_interrupt_is_one_line_and_exit_code_130(folder, asr, monkeypatch, hidden):
    monkeypatch.setattr(request, "repair_model", came(signal.SIGINT, hidden))
    code, out, err = asr(*REPAIR, "-q")
    assert (code, out, err.lstrip()) == (130, "", "interrupted: nothing was written\n")


def test_an_interrupt_after_the_model_is_written_says_so(folder, asr, monkeypatch):
    monkeypatch.setattr(request, "write_reports", came(signal.SIGTERM))
    code, _, err = asr(*REPAIR, "-q", "--report", "r.json")
    assert (code, err) == (143, "interrupted: written before: 'out.onnx'\n")


# A package that is imported on the way, stands for all that take long.
SLOW = """
import time
print("here", flush=True)
try:
    time.sleep(60)
except BaseException:
    raise ImportError
"""
RUN = "import sys; sys.path.insert(0, '.'); from asr_onnx.__main__ import main; main()"


@pytest.mark.parametrize("number", CODES)
def test_while_packages_are_imported(folder, number):
    (folder / "scipy.py").write_text(SLOW)
    process = start(
        "-c",
        "import sys; sys.path.insert(0, '.'); import asr_onnx.__main__ as m; m.main()",
        "inspect",
        "m.onnx",
    )
    assert process.stdout.readline() == "here\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (CODES[number], "interrupted: nothing was written\n")


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
def test_at_any_moment(folder, rng, number):
    before = files(folder)
    for delay in rng.uniform(0.15, 1.6, 8):
        process = start("-m", "asr_onnx", *REPAIR, "-q", "--force")
        time.sleep(delay)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert not list(folder.glob(".asr-onnx-*"))
        if process.returncode:
            assert (process.returncode, out, err.count("\n")) == (CODES[number], "", 1), err
            assert err.startswith("interrupted: ")
            assert ("nothing" in err) == (not (folder / "out.onnx").exists())
        (folder / "out.onnx").unlink(missing_ok=True)
    assert files(folder) == before
