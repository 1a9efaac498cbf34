"""Enough data: too few are refused, few are warned of, and what is the same is named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from models import bare_net, normal

from asr_onnx import CalibrationError, as_batches
from asr_onnx.data.enough import FEW, FEWEST, check_enough
from asr_onnx.graph.inputs import model_inputs


def batches(rng, x):
    return as_batches(x, model_inputs(bare_net(rng)))


@pytest.mark.parametrize("count", [1, 3, FEWEST - 1])
def test_too_few_are_refused_unless_forced(rng, count):
    found = batches(rng, normal(rng, count, 3, 8, 8))
    with pytest.raises(CalibrationError, match=rf"^{count} calibration samples? are too few .* 8"):
        check_enough(found)
    assert len(check_enough(found, force=True)) == 1


def test_few_are_warned_of_and_many_are_not(rng):
    (line,) = check_enough(batches(rng, normal(rng, FEWEST, 3, 8, 8)))
    assert line.startswith(f"only {FEWEST} calibration samples: with {FEW} or more")
    assert check_enough(batches(rng, normal(rng, FEW, 3, 8, 8))) == []


def test_the_same_samples_are_named(rng):
    x = normal(rng, FEW, 3, 8, 8)
    x[7] = x[21]
    (line,) = check_enough(batches(rng, x))
    assert line.startswith(f"1 of {FEW} calibration samples are the same as another")
    assert "'array[7]'" in line and "'array[21]'" in line


def test_blank_samples_are_named(rng):
    x = normal(rng, FEW, 3, 8, 8)
    x[5] = 0
    (line,) = check_enough(batches(rng, x))
    assert line == (f"1 of {FEW} calibration samples have one value everywhere, such as 'array[5]'")


def test_nothing_but_one_sample_again_and_again_is_refused(rng):
    x = np.repeat(normal(rng, 1, 3, 8, 8), FEW, axis=0)
    with pytest.raises(CalibrationError, match="all 64 calibration samples are the same as"):
        check_enough(batches(rng, x))
    assert check_enough(batches(rng, x), force=True)


def test_the_command_line_refuses_three_images(folder, asr):
    np.save("three.npy", np.load("x.npy")[:3])
    words = ("repair", "m.onnx", "--calib", "three.npy", "--providers", "cpu", "-o", "o.onnx")
    code, out, err = asr(*words)
    assert (code, out) == (1, "") and not (folder / "o.onnx").exists()
    assert "error: 3 calibration samples are too few to repair on" in err
    code, _, err = asr(*words, "--force", "--sparsity", "0.3")
    assert code == 0 and "warning: only 3 calibration samples" in err


def test_the_report_warns_of_few_samples(folder, asr):
    words = ("repair", "m.onnx", "--calib", "x.npy", "--providers", "cpu", "--sparsity", "0.3")
    assert asr(*words, "-q", "--report", "r.json", "--report", "r.html")[0] == 0
    (warning,) = json.loads((folder / "r.json").read_text(encoding="utf-8"))["warnings"]
    assert warning.startswith("only 12 calibration samples")
    assert "only 12 calibration samples" in (folder / "r.html").read_text(encoding="utf-8")
