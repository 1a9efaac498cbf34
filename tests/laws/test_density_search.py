"""Allocation search of single weights: the densities that repair best."""

from __future__ import annotations

import numpy as np
import pytest
from models import norm_net, normal, run

import asr_onnx
from asr_onnx import pipeline
from asr_onnx.maths.densities import SEARCHED
from asr_onnx.repairing.ladder import excess


def repaired(model, x, name, **more):
    more = {"recipe": "best", "sparsity": 0.8} | more
    return asr_onnx.repair(model, x, asr_onnx.RepairOptions(allocation=name, **more))


@pytest.fixture
def model(rng):
    return norm_net(rng)


@pytest.fixture
def x(rng):
    return normal(rng, 40, 3, 8, 8)


def error(result):
    return max(m.relative_error for m in result.repaired_outputs.values())


def test_the_best_of_the_allocations_is_taken(model, x):
    each = {name: repaired(model, x, name) for name in SEARCHED}
    found = repaired(model, x, "search")
    assert [way.by for way in found.allocated] == list(SEARCHED)
    (taken,) = (way for way in found.allocated if way.taken)
    assert error(found) == min(map(error, each.values())) == error(each[taken.by])
    models = found.model, each[taken.by].model
    np.testing.assert_array_equal(*(run(m, x=x[:4])["y"] for m in models))
    assert found.options.allocation == "search"


def test_an_allocation_that_repairs_better_than_the_predicted_one_is_found(rng, monkeypatch):
    """Where predicted errors mislead, another allocation takes their place."""
    from asr_onnx.repairing import weighing

    model, x = norm_net(rng), normal(rng, 40, 3, 8, 8)
    real = weighing.predict
    turned = lambda layer: 1e6 ** float(layer.label == "w1") * real(layer)  # noqa: E731
    monkeypatch.setattr(weighing, "predict", turned)
    by_error, found = (repaired(model, x, name, sparsity=0.7) for name in ("error", "search"))
    (taken,) = (way for way in found.allocated if way.taken)
    assert taken.by != "error"
    assert error(found) < error(by_error)


@pytest.mark.parametrize("more", [{"recipe": "asr"}, {"pattern": "2:4", "sparsity": None}])
def test_where_nothing_is_shared_out_there_is_nothing_to_search(rng, more):
    model, x = norm_net(rng), normal(rng, 40, 3, 8, 8)
    searched, plain = (repaired(model, x, name, **more) for name in ("search", "error"))
    assert searched.allocated == ()
    assert error(searched) == error(plain)


def test_where_nothing_is_left_to_share_out_one_repair_is_enough(rng):
    model, x = norm_net(rng), normal(rng, 40, 3, 8, 8)
    for how in ({"sparsity": 0.0}, {"pattern": "2:4", "sparsity": 0.5}):
        assert [way.by for way in repaired(model, x, "search", **how).allocated] == ["error"]


def test_weights_and_channels_of_one_model_are_weighed_apart(model, x):
    cells = [
        asr_onnx.recipe("best", sparsity=0.6, allocation="search"),
        asr_onnx.recipe("best", macs=0.6, pattern="channel", channel_multiple=1),
        asr_onnx.recipe("best", sparsity=0.8, allocation="search"),
    ]
    first, second, third = asr_onnx.repair_all(model, x, cells)
    assert (
        [way.by for way in first.allocated] == [way.by for way in third.allocated] == list(SEARCHED)
    )
    assert not first.widths and second.widths
    assert error(first) == error(asr_onnx.repair(model, x, cells[0]))


def test_integers_are_searched_with_their_own_errors(model, x):
    found = repaired(model, x, "search", precision="int8")
    assert [way.by for way in found.allocated] == list(SEARCHED)
    each = [repaired(model, x, name, precision="int8") for name in SEARCHED]
    assert error(found) == min(map(error, each))
    assert [way.excess for way in found.allocated] == [excess(e.repaired_outputs) for e in each]


def test_a_search_for_the_amount_searches_in_each_step(model, x, monkeypatch):
    searched, real = [], pipeline.search
    monkeypatch.setattr(pipeline, "search", lambda o, *rest: searched.append(o) or real(o, *rest))
    options = asr_onnx.recipe("best", allocation="search")
    found = asr_onnx.repair_auto(model, x, lambda result: error(result) < 0.5, options, steps=2)
    assert {o.sparsity for o in searched} == {t.points / 100 for t in found.trials.tried}
    assert found.result is not None and len(found.result.allocated) == len(SEARCHED)
