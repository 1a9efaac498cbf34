"""What a metric of the user's is given, and which class axes hold."""

from __future__ import annotations

import numpy as np
import pytest
from models import build, copied, normal, run

import asr_onnx
from asr_onnx import CalibrationError, CompareOptions, Figures, RepairOptions, UsageError
from asr_onnx.graph.inputs import model_inputs

KEEP = """
import numpy as np
calls = []
def metric(dense_outputs, outputs):
    calls.append((dense_outputs, outputs))
    return {"n": len(calls)}
"""


def keeping(tmp_path):
    """A metric that keeps what it is given: the figures, and where it is."""
    path = tmp_path / "keep.py"
    path.write_text(KEEP)
    figures = Figures(metric_script=str(path))
    return figures, figures.metric._script.function.__globals__["calls"]


@pytest.fixture
def model(rng):
    graph = """g (float[N,3,6,6] x) => (float[N,4,4,4] y, float[16,N,4] t, int64[M,4] found) {
        y = Conv (x, w)
        f = Reshape (y, shape)
        t = Transpose <perm = [2, 0, 1]> (f)
        r = Relu (y)
        n = NonZero (r)
        found = Transpose <perm = [1, 0]> (n)
    }"""
    weights = {"w": normal(rng, 4, 3, 3, 3), "shape": np.array([0, 4, -1], np.int64)}
    return build(graph, weights)


@pytest.mark.parametrize("batch_size", [4, 64])
def test_a_metric_gets_all_samples_in_order(model, rng, tmp_path, batch_size):
    x = normal(rng, 10, 3, 6, 6)
    figures, calls = keeping(tmp_path)
    options = CompareOptions(latency=False, batch_size=batch_size)
    other = copied(model, w=np.ones((4, 3, 3, 3), np.float32))
    found = asr_onnx.compare(model, [other], x, options=options, figures=figures)
    assert [m.metrics for m in (found.dense, *found.models)] == [{"n": 1}, {"n": 2}]
    order = asr_onnx.as_batches(x, model_inputs(model), num_samples=10,
                                holdout=0).batches[0].samples  # fmt: skip
    dense, outputs = calls[1]
    wanted = run(model, x=x[list(order)])
    np.testing.assert_allclose(dense["y"], wanted["y"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dense["t"], wanted["t"], rtol=1e-4, atol=1e-4)
    assert dense["t"].shape == (16, 10, 4)
    # Lists belong to no sample: they come batch by batch.
    assert len(dense["found"]) == -(-10 // batch_size)
    assert sum(map(len, dense["found"])) == len(wanted["found"])
    np.testing.assert_allclose(
        outputs["y"], run(other, x=x[list(order)])["y"], rtol=1e-4, atol=1e-4
    )


def test_what_a_metric_does_to_its_arrays_changes_no_figure(model, rng, tmp_path):
    x = normal(rng, 20, 3, 6, 6)
    path = tmp_path / "harm.py"
    path.write_text(
        "def metric(a, b):\n"
        "    for y in (a, b):\n"
        "        y['y'] *= 0\n"
        "        y['found'][0][:] = 0\n"
        "    return {'n': 1}\n"
    )
    figures = Figures(metric_script=str(path))
    options = RepairOptions(0.5, method="asr")
    plain, harmed = (asr_onnx.repair(model, x, options, figures=f) for f in (None, figures))
    for name in ("y", "t"):
        assert plain.repaired_outputs[name] == harmed.repaired_outputs[name]
        assert plain.pruned_outputs[name] == harmed.pruned_outputs[name]
    assert plain.answers == harmed.answers
    assert harmed.metrics == {"pruned": {"n": 1}, "repaired": {"n": 1}}


def test_a_repair_and_a_comparison_of_its_data_give_one_metric(model, rng, tmp_path):
    path = tmp_path / "m.py"
    path.write_text("def metric(a, b):\n    return {'near': -abs(a['t'] - b['t']).mean()}\n")
    figures = Figures(metric_script=str(path))
    x = normal(rng, 20, 3, 6, 6)
    data = asr_onnx.as_batches(x, model_inputs(model), holdout=0.0)
    result = asr_onnx.repair(model, data, RepairOptions(0.5, method="asr"), figures=figures)
    assert result.metrics["repaired"]["near"] != result.metrics["pruned"]["near"]
    options = CompareOptions(latency=False)
    found = asr_onnx.compare(model, [result.model], x, options=options, figures=figures)
    assert found.models[0].metrics == pytest.approx(result.metrics["repaired"], rel=1e-3)
    assert found.dense.metrics == {"near": 0}


def test_declared_axes_win(model):
    assert Figures().axes(model) == {}
    assert Figures(class_axis=("t:-1", "y:1")).axes(model) == {"t": -1, "y": 1}
    soft = build("g (float[N,3] x) => (float[N,3] y) { y = Softmax <axis = 1> (x) }", {})
    assert Figures().axes(soft) == {"y": 1}
    assert Figures(class_axis=("y:-1",)).axes(soft) == {"y": -1}


def test_an_output_may_have_a_colon_in_its_name(model):
    named = copied(model)
    named.graph.output[0].name = named.graph.node[0].output[0] = "y:0"
    assert Figures(class_axis=("y:0:1",)).axes(named) == {"y:0": 1}


@pytest.mark.parametrize("axis", ["z:1", "y:4", "y:-4", "t:3"])
def test_axes_the_model_has_not_are_refused_before_any_work(model, rng, axis):
    figures = Figures(class_axis=(axis,))
    with pytest.raises(UsageError, match=f"--class-axis {axis}: "):
        figures.axes(model)
    with pytest.raises(UsageError, match=r"'y', 't', 'found'|axes, of which 0"):
        asr_onnx.repair(model, normal(rng, 20, 3, 6, 6), figures=figures)


def test_a_script_that_is_gone_is_told_of():
    with pytest.raises(CalibrationError, match=r"metric script 'none\.py' does not exist"):
        _ = Figures(metric_script="none.py").metric
