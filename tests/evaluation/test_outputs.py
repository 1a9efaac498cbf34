"""Outputs of a model: batches, classes, and how reports hold what was found of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from models import build, norm_net, normal, run
from rich.console import Console

from asr_onnx import CompareOptions, RepairOptions, compare, repair
from asr_onnx.evaluation.outputs import batch_axis, class_scores, stack
from asr_onnx.provenance import dumps
from asr_onnx.reports import repair_tables

OPTIONS = RepairOptions(0.6, method="asr")


def test_stacking_batches():
    assert stack([np.ones((2, 3)), np.ones((1, 3))]).shape == (3, 3)
    assert stack([np.array(1.0), np.array(2.0)]).tolist() == [1, 2]
    assert stack([np.ones((2, 3)), np.ones((2, 5))]).shape == (16,)


@pytest.mark.parametrize(
    "shape, wanted",
    [((4, 3), 0), ((9, 4, 3), 1), ((4, 4, 3), 0), ((9, 4), None), ((9, 3, 4), None), ((), None)],
)
def test_the_axis_of_the_batch(shape, wanted):
    """An (L, N, H) state or a (T, N, C) text has it second; a list (K, 4) has none."""
    assert batch_axis(shape, 4) == wanted


def test_a_report_is_json_and_says_what_was_done(rng):
    model = norm_net(rng)
    result = repair(model, normal(rng, 20, 3, 8, 8), OPTIONS)
    found = json.loads(dumps(repair_tables.to_dict(result, files={"a": "b"})))
    assert found["files"] == {"a": "b"}
    assert found["options"]["sparsity"] == 0.6
    assert found["images"] == {"solve": 16, "held_out": 4}
    assert [s["name"] for s in found["sites"]] == ["w1", "w2"]
    assert [len(s["gamma"]) for s in found["sites"]] == [8, 8]
    assert sum(s["zeros"] for s in found["sites"]) == round(0.6 * 792)
    assert found["outputs"]["repaired"]["y"]["samples"] == 4
    assert found["versions"]["numpy"] == np.__version__


def test_a_report_holds_no_infinity(rng):
    model = build(
        """net (float[N,3,8,8] x) => (float[N,4,8,8] y, float[N,4,8,8] c, int64[4,M] z) {
            c = Conv (x, w)
            t = Relu (c)
            z = NonZero (t)
            d = Conv (x, w2)
            a = Sub (c, d)
            b = Mul (a, big)
            y = Relu (b)
        }""",
        {"w": (w := normal(rng, 4, 3, 1, 1)), "w2": w, "big": np.float32(1e9)},
    )
    result = repair(model, normal(rng, 20, 3, 8, 8), replace(OPTIONS, exclude="w2"))
    assert result.pruned_outputs["y"].relative_error == math.inf
    assert math.isnan(result.pruned_outputs["z"].cosine)
    outputs = json.loads(dumps(repair_tables.to_dict(result)))["outputs"]
    assert outputs["pruned"]["y"]["relative_error"] is None
    assert outputs["pruned"]["z"]["cosine"] is None


def test_tables_name_every_site_and_output(rng):
    result = repair(norm_net(rng), normal(rng, 20, 3, 8, 8), OPTIONS)
    console = Console(width=120, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(repair_tables.site_table(result))
        console.print(repair_tables.output_table(result))
    for word in ("w1", "w2", "all pruned sites", "pruned", "repaired", "4 held-out images"):
        assert word in captured.get()


@pytest.mark.parametrize(
    "shape, wanted",
    [
        ((4, 3), (4, 3)), ((4, 3, 1, 1), (4, 3)), ((4, 1), None), ((4,), None), ((5, 3), None),
        ((4, 3, 2), None), ((), None),
    ],
)  # fmt: skip
def test_a_class_for_each_sample(shape, wanted):
    found = class_scores(np.zeros(shape, np.float32), 4)
    assert (None if found is None else found.shape) == wanted


def test_classes_in_an_output_of_a_convolution_are_classes_everywhere(rng):
    """(N, C, 1, 1): in the samples of a repair as in a comparison."""
    model = build(
        "g (float[N,3,4,4] x) => (float[N,5,1,1] y) "
        "{ c = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (c) p = GlobalAveragePool (r) "
        "y = Conv (p, v) }",
        {"w": normal(rng, 6, 3, 3, 3), "v": normal(rng, 5, 6, 1, 1)},
    )
    x = normal(rng, 24, 3, 4, 4)
    result = repair(model, x, OPTIONS)
    labels = run(model, x=x)["y"].reshape(24, 5).argmax(1)
    found = compare(model, [result.model], x, labels, CompareOptions(latency=False))
    assert result.answers.output == found.class_output == "y"
    assert found.dense.top1.share == 1
