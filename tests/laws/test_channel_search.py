"""Allocation search: which channels go is settled by what the outputs lose."""

from __future__ import annotations

import numpy as np
import pytest
from models import build, norm_net, normal, run

import asr_onnx
from asr_onnx.repairing.allocation_search import LAYERS, OUTPUTS

CHANNELS = {"pattern": "channel", "channel_multiple": 1}


BRANCH = """
  {0}c = Conv <pads = [1, 1, 1, 1]> (x, {0}1)
  {0}r = Relu ({0}c)
  {0}o = Conv <pads = [1, 1, 1, 1]> ({0}r, {0}2)
"""


def net(rng, *branches, end="", kind="float[N,8,8,8]"):
    """Branches of equal size, and what becomes of them in the ``end``."""
    weights = {f"{b}{i}": normal(rng, 8, n, 3, 3) for b in branches for i, n in ((1, 3), (2, 8))}
    nodes = "".join(BRANCH.format(b) for b in branches) + end
    graph = f"net (float[N,3,8,8] x) => ({kind} y) {{ {nodes} }}"
    return build(graph, weights | {"little": np.float32(1e-3)})


@pytest.fixture
def whisper(rng):
    """Two branches that lose alike, one of which hardly reaches the output."""
    return net(rng, "a", "b", end="bl = Mul (bo, little)  y = Add (ao, bl)")


def narrowed(model, x, macs, **more):
    return asr_onnx.repair(model, x, asr_onnx.recipe("best", macs=macs, **CHANNELS, **more))


def test_what_hardly_reaches_the_output_goes_first(rng, whisper):
    x = normal(rng, 40, 3, 8, 8)
    by_layers, searched = (narrowed(whisper, x, 0.7, allocation=a) for a in ("error", "search"))
    loud, quiet = (w.after for w in searched.widths)
    assert loud > 2 * quiet
    errors = [r.repaired_outputs["y"].relative_error for r in (by_layers, searched)]
    assert errors[1] < 0.2 * errors[0]
    assert {w.by: w.taken for w in searched.allocated} == {LAYERS: False, OUTPUTS: True}
    assert by_layers.allocated == ()


def test_it_is_the_default_of_channels_and_keeps_the_better(rng):
    model, x = norm_net(rng), normal(rng, 40, 3, 8, 8)
    found = narrowed(model, x, 0.6)
    assert found.options.allocation == "search"
    (taken,) = (way for way in found.allocated if way.taken)
    assert taken.excess == min(way.excess for way in found.allocated)
    again = narrowed(model, x, 0.6, allocation="search").model
    np.testing.assert_array_equal(*(run(m, x=x[:4])["y"] for m in (found.model, again)))


def test_where_both_remove_the_same_one_repair_is_enough(rng):
    alone = net(rng, "a", end="y = Relu (ao)")
    found = narrowed(alone, normal(rng, 40, 3, 8, 8), 0.5)
    assert [w.by for w in found.allocated] == [LAYERS]


def test_several_ratios_and_a_search_for_one_share_what_was_weighed(rng, monkeypatch):
    from asr_onnx import pipeline

    weighed = []
    real = pipeline.weigh
    monkeypatch.setattr(pipeline, "weigh", lambda *a, **k: weighed.append(1) or real(*a, **k))
    cells = [asr_onnx.recipe("best", macs=m, **CHANNELS) for m in (0.5, 0.7)]
    results = asr_onnx.repair_all(norm_net(rng), normal(rng, 40, 3, 8, 8), cells)
    assert [len(r.allocated) > 0 for r in results] == [True, True]
    assert len(weighed) == 1


def test_outputs_that_cannot_be_compared_leave_it_to_the_layers(rng):
    places = net(rng, "a", "b", end="s = Add (ao, bo)  y = NonZero (s)", kind="int64[4,K]")
    found = narrowed(places, normal(rng, 40, 3, 8, 8), 0.7)
    assert found.allocated[0].by == LAYERS and found.allocated[0].taken
