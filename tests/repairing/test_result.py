"""When a repair did worse than plain pruning: by the error of outputs, whatever their layout."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_onnx.evaluation.match import OutputMatch
from asr_onnx.repairing.result import is_worse, larger


def outputs(**errors):
    return {name: OutputMatch(10, None, 0.5, error) for name, error in errors.items()}


@given(st.floats(0.01, 1))
def test_giving_variance_back_is_no_harm(correlation):
    """What zeroed weights leave of a channel is a least squares fit where inputs are independent:
    the scale that recipe asr puts on it costs error, and no more than is allowed."""
    s = math.sqrt(correlation)
    gain = s / correlation + 1 - s
    rest = correlation**2  # the pruned channel's variance, and its covariance with the dense one
    before, after = math.sqrt(1 - rest), math.sqrt(1 + gain * gain * rest - 2 * gain * rest)
    assert not larger(before, after)


@given(st.floats(0.1, 10))
def test_an_error_that_grows_by_a_fifth_is_harm(before):
    assert larger(before, 1.2 * before)
    assert not larger(before, before)
    assert not larger(before, 0.5 * before)


def test_a_single_output_that_is_worse_is_named():
    assert is_worse(outputs(a=0.5, b=0.5), outputs(a=0.4, b=0.5)) == ""
    found = is_worse(outputs(a=0.5, b=0.3), outputs(a=0.1, b=0.6))
    assert found == "'b' is off by 0.600 of its spread, not 0.300"


@pytest.mark.parametrize(
    "before, after, worse",
    [(0.5, math.inf, True), (math.inf, math.inf, False), (math.inf, 0.5, False),
     (math.nan, math.nan, False), (0.0, 0.004, False), (0.0, 0.006, True)],
)  # fmt: skip
def test_what_is_lost_or_cannot_be_compared(before, after, worse):
    """NaN is for lists of several lengths: nothing to tell by."""
    assert bool(is_worse(outputs(y=before), outputs(y=after))) == worse
