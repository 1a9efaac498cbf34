"""Quality gates: a bound that is met passes, all else is one line each."""

from __future__ import annotations

import math

import pytest

from asr_onnx import UsageError
from asr_onnx.evaluation.gates import Gates, Measured, failures, worst_agreement
from asr_onnx.evaluation.outputs import OutputMatch

ALL = Gates(min_agreement=0.95, min_accuracy=0.9, max_drop=0.01)


def test_what_just_meets_its_bounds_passes():
    # 0.91 - 0.90 is a little more than 0.01 in floating point.
    assert 0.91 - 0.9 > 0.01
    assert failures(ALL, Measured(0.95, 0.9, 0.91), "m") == []


def test_no_gates_no_failures():
    assert failures(Gates(), Measured(0.0, 0.0, 1.0), "m") == []


@pytest.mark.parametrize(
    "measured, option",
    [
        (Measured(0.9499, 0.95, 0.95), "--min-agreement"),
        (Measured(1.0, 0.8999, 0.9), "--min-accuracy"),
        (Measured(1.0, 0.95, 0.9601), "--max-drop"),
    ],
)
def test_what_is_just_beyond_one_bound_fails_that_gate_alone(measured, option):
    (failure,) = failures(ALL, measured, "m.onnx")
    assert (failure.model, failure.gate) == ("m.onnx", option)
    assert option in failure.reason and str(failure) == f"m.onnx: {failure.reason}"


def test_every_failed_gate_has_a_line():
    found = failures(ALL, Measured(0.1, 0.2, 0.9), "m")
    assert [f.gate for f in found] == ["--min-agreement", "--min-accuracy", "--max-drop"]
    assert "0.7000 is above --max-drop 0.01" in found[2].reason


def test_a_better_model_passes_a_drop_of_zero():
    assert failures(Gates(max_drop=0.0), Measured(None, 0.95, 0.9), "m") == []


@pytest.mark.parametrize("value", [None, math.nan])
def test_what_cannot_be_measured_fails(value):
    assert len(failures(ALL, Measured(value, value, value), "m")) == 3


@pytest.mark.parametrize("name", ["min_agreement", "min_accuracy", "max_drop"])
@pytest.mark.parametrize("value", [-0.1, 1.1, 95, math.nan])
def test_a_bound_is_a_share(name, value):
    with pytest.raises(UsageError, match="--" + name.replace("_", "-")):
        Gates(**{name: value})


def match(agreement, samples=10):
    return OutputMatch(samples, agreement, 1.0, 0.0)


@pytest.mark.parametrize(
    "outputs, wanted",
    [
        ({"y": match(0.9)}, ("y", 0.9)),
        ({"y": match(0.9), "z": match(0.7), "a": match(1.0)}, ("z", 0.7)),
        ({"embedding": match(None), "y": match(0.9)}, ("y", 0.9)),
        ({"detections": match(0.1, samples=37), "y": match(0.9)}, ("y", 0.9)),
        ({"embedding": match(None), "detections": match(0.1, samples=37)}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_agreement_is_that_of_the_worst_output_with_classes(outputs, wanted):
    assert worst_agreement(outputs, 10) == wanted


def test_the_output_a_gate_fails_at_is_named():
    (failure,) = failures(ALL, Measured(0.5, 0.9, 0.9, output="mask"), "m")
    assert str(failure) == (
        "m: agreement with the dense model (output 'mask') 0.5000 is below --min-agreement 0.95"
    )
