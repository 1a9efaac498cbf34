"""The command line where something is wrong: exit codes, one line, and nothing written."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from models import files, normal

from asr_onnx.cli import request

REPAIR = ("repair", "m.onnx", "--calib", "images", "-o", "out.onnx", "-q")


@pytest.mark.parametrize(
    "words, code, message",
    [
        (("--calib", "nowhere"), 1, "'nowhere' does not exist"),
        (("--calib", "empty"), 1, "'empty' has no samples"),
        (("--calib", "broken"), 1, "image 'broken/0.png' cannot be read"),
        (("--calib", "m.onnx"), 1, "neither a folder of images nor a .npy"),
        (("--calib", "shape.npy"), 1, "'shape.npy' has shape [12, 3, 9, 8]"),
        (("--calib", "nan.npy"), 1, "sample 11 of 'nan.npy' has NaN"),
        (("--calib", "integers.npy"), 1, "'integers.npy' is int64"),
        (("--sparsity", "1"), 2, "sparsity 1 is outside [0, 1)"),
        (("--sparsity", "-0.1"), 2, "sparsity -0.1 is outside [0, 1)"),
        (("--sparsity", "nan"), 2, "sparsity nan is outside [0, 1)"),
        (("--prior", "mode"), 2, "prior 'mode' is not one of"),
        (("--providers", "gpu"), 2, "provider 'gpu' is not one of"),
        (("--include", "("), 2, "not a regular expression"),
        (("--include", "nothing"), 2, "leave nothing to prune"),
        (("-o", "m.onnx"), 2, "is the input model itself"),
        (("-o", "images/../m.onnx"), 2, "is the input model itself"),
        (("-o", "x.npy"), 2, "'x.npy' exists already"),
        (("-o", "empty", "--force"), 2, "'empty' is a folder"),
        (("-o", "none/out.onnx"), 2, "folder 'none' of the output does not exist"),
        (("--report", "x.npy"), 2, "'x.npy' exists already"),
        (("--report", "none/r.json"), 2, "folder 'none' of the output does not exist"),
        (("--dense", "nowhere.onnx"), 1, "model 'nowhere.onnx' does not exist"),
        (("--bn-momentum", "2"), 2, "momentum 2 is outside"),
        (("--calib", "x.npy", "--resize", "64"), 2, "fed as they are"),
    ],
)  # fmt: skip
def test_one_line_of_error_and_nothing_written(folder, asr, rng, words, code, message):
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    x = normal(rng, 12, 3, 8, 8)
    np.save(folder / "shape.npy", normal(rng, 12, 3, 9, 8))
    np.save(folder / "integers.npy", x.astype(int))
    x[11, 2, 3, 4] = np.nan
    np.save(folder / "nan.npy", x)
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    found, out, err = asr(*REPAIR, *words)
    assert (found, out) == (code, "")
    assert message in err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("mend",),
        ("repair",),
        ("repair", "m.onnx"),
        (*REPAIR, "--method", "best"),
        (*REPAIR, "--bn-stats", "moving"),
        (*REPAIR, "--batch-size", "0"),
        (*REPAIR, "--holdout", "1"),
        (*REPAIR, "--memory-limit", "much"),
        (*REPAIR, "--mean", "a,b"),
        (*REPAIR, "--report", "out.onnx"),
        (*REPAIR, "--report", "images/../out.onnx"),
        (*REPAIR, "--dense", "m.onnx", "--sparsity", "0.5"),
        ("inspect", "m.onnx", "--sparsity", "0.5"),
    ],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2_and_nothing_is_written(folder, asr, words):
    before = files(folder)
    code, _, err = asr(*words)
    assert (code, files(folder)) == (2, before)
    assert "Usage:" in err or (err.startswith("error: ") and err.count("\n") == 1)
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["inspect", "prune", "repair"])
@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_what_is_no_model_is_exit_code_1(folder, asr, command, content):
    path = folder / "bad.onnx"
    path.write_bytes((folder / "m.onnx").read_bytes()[:-9] if content is None else content)
    words = ("--calib", "images") if command == "repair" else ()
    before = files(folder)
    code, out, err = asr(command, "bad.onnx", *words)
    assert (code, out, files(folder)) == (1, "", before)
    assert err.startswith("error: model 'bad.onnx' is not an ONNX") and err.count("\n") == 1


def test_a_model_without_convolutions_is_exit_code_1(folder, asr):
    onnx.save(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 17]> g (float[N,3] x) => (float[N,3] y) '
            "{ y = Relu (x) }"
        ),
        folder / "r.onnx",
    )
    for command in ("inspect", "prune"):
        code, _, err = asr(command, "r.onnx")
        assert (code, err.count("\n")) == (1, 1)
        assert "no convolution that can be pruned" in err


@pytest.mark.skipif(os.access("/", os.W_OK), reason="this user may write everywhere")
def test_a_folder_that_cannot_be_written(folder, asr):
    (folder / "locked").mkdir(mode=0o500)
    code, _, err = asr(*REPAIR, "-o", "locked/out.onnx")
    assert code == 2
    assert "cannot be written to" in err


def test_memory_that_runs_out_is_one_line(folder, asr, monkeypatch):
    def want(*_, **__):
        raise MemoryError

    monkeypatch.setattr(request, "repair_model", want)
    code, out, err = asr(*REPAIR)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: out of memory: give --memory-limit")


def test_a_surprise_is_one_line_unless_it_is_debugged(folder, asr, monkeypatch):
    def surprise(*_, **__):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(request, "repair_model", surprise)
    monkeypatch.delenv("ASR_ONNX_DEBUG", raising=False)
    code, out, err = asr(*REPAIR)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: unexpected RuntimeError: two lines")
    monkeypatch.setenv("ASR_ONNX_DEBUG", "1")
    with pytest.raises(RuntimeError):
        asr(*REPAIR)


@pytest.mark.parametrize("command, suffix", [("prune", ".pruned.onnx"), ("repair", ".sparse.onnx")])
def test_help_names_the_file_that_is_written(folder, asr, command, suffix):
    _, out, _ = asr(command, "--help")
    assert f"[default: MODEL with {suffix}]" in " ".join(out.split())
    data = () if command == "prune" else ("--calib", "x.npy", "--providers", "cpu")
    assert asr(command, "m.onnx", *data, "--sparsity", "0.3", "-q")[0] == 0
    assert (folder / f"m{suffix}").is_file()


@pytest.mark.parametrize(
    "given",
    [
        ("--sparsity", "0.9"), ("--pattern", "2:4"), ("--criterion", "magnitude"),
        ("--allocation", "mixed"), ("--include", "w"), ("--exclude", "b"), ("--row-scale", "auto"),
    ],
)  # fmt: skip
def test_what_chooses_a_mask_does_not_go_with_dense(folder, asr, given):
    code, _, err = asr("repair", "m.onnx", "--calib", "x.npy", "--dense", "m.onnx", *given)
    assert code == 2
    assert err.strip().endswith(f"--dense takes the mask from MODEL: leave out {given[0]}")
