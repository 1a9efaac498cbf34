"""What is written when something goes wrong between the beginning and the end of a run."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from models import external_copy, files, norm_net

from asr_onnx import files as staging_files
from asr_onnx.cli import compare as compare_command
from asr_onnx.cli import request
from asr_onnx.provenance import sha256

REPAIR = ("repair", "m.onnx", "--calib", "x.npy", "--providers", "cpu", "-o", "out.onnx")


def during(monkeypatch, command, name, change):
    """Let ``change`` happen while the command works."""
    work = getattr(command, name)

    def changing(*words, **settings):
        found = work(*words, **settings)
        change()
        return found

    monkeypatch.setattr(command, name, changing)


@pytest.mark.parametrize("name", ["r.json", "c.html"])
@pytest.mark.parametrize("words", [REPAIR, ("compare", "m.onnx", "m.onnx", "--data", "x.npy")])
def test_a_place_where_nothing_can_be_written_is_refused_before_the_work(
    folder, asr, monkeypatch, name, words
):
    """As root may open folders for writing that are not to be written to, it is tried."""

    def refuse(prefix, dir):
        raise OSError(errno.EROFS, "Read-only file system")

    (folder / "there").mkdir()
    before = files(folder)
    made = staging_files.tempfile.mkdtemp
    monkeypatch.setattr(
        staging_files.tempfile,
        "mkdtemp",
        lambda prefix, dir: (refuse if dir.name == "there" else made)(prefix=prefix, dir=dir),
    )
    code, out, err = asr(*words, "--report", f"there/{name}")
    assert (code, out, files(folder)) == (2, "", before)
    assert "folder 'there' of the output cannot be written to: Read-only file system" in err


def test_reports_name_the_place_of_a_model_whose_output_was_taken(folder, asr, monkeypatch):
    def take():
        (folder / "out.onnx").write_text("theirs")

    during(monkeypatch, request, "repair_model", take)
    code, out, err = asr(*REPAIR, "--report", "r.json", "--report", "r.html")
    report = json.loads((folder / "r.json").read_text())
    assert code == 1 and "finished model is 'out.1.onnx'" in err and "out.1.onnx" in out
    assert (
        report["output"] == "out.1.onnx"
        and report["files"].items() >= sha256([Path("out.1.onnx")]).items()
    )
    assert (folder / "r.html").exists() and (folder / "out.onnx").read_text() == "theirs"


def test_a_report_that_fails_in_the_end_names_itself_and_the_model(folder, asr, monkeypatch):
    (folder / "gone").mkdir()
    during(monkeypatch, request, "repair_model", lambda: shutil.rmtree(folder / "gone"))
    reports = ("--report", "gone/r.json", "--report", "r.json")
    code, out, err = asr(*REPAIR, *reports)
    line = err.splitlines()[-1]
    assert (code, "passed: out.onnx" in out) == (1, True)
    assert line.startswith("error: 'gone/r.json' cannot be written: No such file or directory")
    assert line.endswith("the model is written: 'out.onnx'")
    assert (folder / "out.onnx").is_file() and json.loads((folder / "r.json").read_text())


def test_a_full_disk_is_told_with_what_is_written(folder, asr, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", lambda path, text, encoding: full(path, text))
    code, _, err = asr(*REPAIR, "-q", "--report", "r.html")
    assert (code, err.count("\n")) == (1, 1)
    assert "'r.html' cannot be written: No space left on device; the model is written" in err
    assert not list(folder.glob("*.html"))


@pytest.mark.parametrize("name", ["e.onnx", "weights.bin"])
def test_the_report_has_the_hash_of_the_model_that_was_read(folder, asr, rng, monkeypatch, name):
    external_copy(norm_net(rng), folder, "e.onnx")
    read = sha256([Path("e.onnx"), Path("weights.bin")])
    for command, work, words in (
        (request, "repair_model", ("repair", "e.onnx", "--calib", "x.npy")),
        (compare_command, "compare_models", ("compare", "e.onnx", "m.onnx", "--data", "x.npy")),
    ):
        old = (folder / name).read_bytes()
        during(monkeypatch, command, work, lambda: (folder / name).write_bytes(b"another"))
        report = f"{words[0]}.json"
        code, _, err = asr(*words, "--providers", "cpu", "--report", report)
        assert code == 0, err
        assert f"warning: '{name}' was changed during the run" in err
        found = json.loads((folder / report).read_text())
        assert found["files"].items() >= read.items()
        (folder / name).write_bytes(old)


def test_a_report_is_there_although_nobody_reads_what_is_printed(folder):
    """As with ``asr-onnx repair ... | head``, which closes the pipe after some lines."""
    words = [sys.executable, "-m", "asr_onnx", "repair", "m.onnx", "--calib", "x.npy"]
    words += ["--providers", "cpu", "--recipe", "asr", "--report", "r.json", "--force"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        told = process.stderr.read().decode()
    assert "Traceback" not in told
    assert json.loads(Path("r.json").read_text())["output"] == "m.sparse.onnx"
