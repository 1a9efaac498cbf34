"""Staging: what is unfinished goes, also what a killed run has left; nothing of a live one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from models import ROOT

from asr_onnx import files as module
from asr_onnx.errors import AsrError
from asr_onnx.files import staging, write_text

STAGE = """
import sys, time, pathlib
from asr_onnx.files import staging
with staging(pathlib.Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x")
    print(folder.name, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that stages in the folder; it and the name of its staging folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", STAGE, tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process, tmp_path / process.stdout.readline().strip()
    process.kill()
    process.communicate()


def test_the_folder_of_a_killed_run_goes_with_the_next_and_that_of_a_live_one_stays(
    other, tmp_path
):
    process, folder = other
    write_text(tmp_path / "a.txt", "a")
    assert (folder / "half").is_file()
    process.send_signal(signal.SIGKILL)
    process.wait()
    write_text(tmp_path / "b.txt", "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("name", [".asr-onnx-abcdefgh", ".asr-onnx-0123456789ab-abcdefgh"])
@pytest.mark.parametrize("hours", [23, 25])
def test_a_folder_of_another_machine_or_boot_goes_when_a_day_old(tmp_path, name, hours):
    (tmp_path / name).mkdir()
    then = time.time() - hours * 3600
    os.utime(tmp_path / name, (then, then))
    write_text(tmp_path / "a.txt", "a")
    assert (tmp_path / name).exists() == (hours == 23)


def test_without_locks_a_day_has_to_pass(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_lock", lambda folder, wait: None)
    with staging(tmp_path) as folder:
        write_text(tmp_path / "a.txt", "a")
        assert folder.is_dir()
        os.utime(folder, (0, 0))
        write_text(tmp_path / "a.txt", "b")
        assert not folder.is_dir()


def test_what_only_looks_like_a_staging_folder_stays(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / ".asr-onnx-link").symlink_to(tmp_path / "precious")
    (tmp_path / ".asr-onnx-file").write_text("x")
    os.utime(tmp_path / ".asr-onnx-file", (0, 0))
    os.utime(tmp_path / "precious", (0, 0))
    write_text(tmp_path / "a.txt", "a")
    assert len(list(tmp_path.iterdir())) == 4


def test_a_folder_taken_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    lock, taken = module._lock, []

    def late(folder, wait):
        if not taken:
            taken.append(folder)
            folder.rmdir()
        return lock(folder, wait)

    monkeypatch.setattr(module, "_lock", late)
    with staging(tmp_path) as folder:
        assert folder.is_dir() and folder != taken[0]


def test_a_failing_write_leaves_the_old_text(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(AsrError, match=r"a.txt' cannot be written: Is a directory"):
        write_text(tmp_path / "a.txt", "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
