"""Ranges of activations, measured a batch at a time."""

from __future__ import annotations

import numpy as np
import pytest
from models import bare_net, norm_net, normal, run, tap

from asr_onnx import CalibrationError, ModelError, as_batches
from asr_onnx.execution.session import Device
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.maths.clipping import Grid, whole
from asr_onnx.quantizing import ranges as module
from asr_onnx.quantizing.ranges import ranges

GRID = Grid(-127, 127, symmetric=True)


def measured(model, x, tensors, rule=whole, **more):
    batches = as_batches(x, model_inputs(model), **more)
    return ranges(model, tensors, batches, Device(), rule, GRID), batches


def test_the_ends_are_those_of_the_samples_solved_on(rng):
    model, x = norm_net(rng), normal(rng, 40, 3, 8, 8)
    found, batches = measured(model, x, ("x", "r1", "a"), batch_size=7)
    solved = [i for b in batches.batches if not b.held_out for i in b.samples]
    values = run(tap(model, "r1", "a"), x=x[solved]) | {"x": x[solved]}
    for name, (low, high) in found.items():
        assert high == pytest.approx(max(float(values[name].max()), 0.0), rel=1e-5)
        assert low == pytest.approx(min(float(values[name].min()), 0.0), rel=1e-5)


def test_how_many_come_in_one_run_makes_no_difference(rng, monkeypatch):
    model, x = bare_net(rng), normal(rng, 40, 3, 8, 8)
    together, _ = measured(model, x, ("x", "r1", "r2", "f"))
    monkeypatch.setattr(module, "_TOGETHER", 1)
    assert measured(model, x, ("x", "r1", "r2", "f"))[0] == together


def test_the_rule_sees_how_often_values_came(rng):
    model, x = bare_net(rng), normal(rng, 40, 3, 8, 8)
    seen = {}

    def rule(histogram, grid):
        seen[histogram.counts.sum()] = grid
        return histogram.low, histogram.high

    _, batches = measured(model, x, ("x",), rule)
    assert seen == {batches.num_solve * 3 * 8 * 8: GRID}


def test_activations_that_are_not_finite_are_named(rng):
    model, x = bare_net(rng), normal(rng, 10, 3, 8, 8)
    with pytest.raises(CalibrationError, match="activation 'r1' is not finite"):
        measured(model, np.clip(x, -3, 3) * np.float32(1e38), ("x", "r1"))


def test_int8_takes_the_place_of_float32_only(rng):
    with pytest.raises(ModelError, match="activation 'r1' is float16: int8 takes"):
        measured(bare_net(rng, "float16"), normal(rng, 9, 3, 8, 8, dtype="float16"), ("r1",))
