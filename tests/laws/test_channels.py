"""Repairs that make a network narrower."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from models import bare_net, norm_net, normal, run
from moving_networks import moving_networks

import asr_onnx
from asr_onnx import as_batches
from asr_onnx.errors import UsageError
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.graph.shapes import Shapes, macs
from asr_onnx.pruning.criteria import Criterion

REFUSALS = (
    r"no channel of the model|no more than|can be pruned|is not finite|does not fit|"
    r"include and exclude|fixed filters"
)


def products(model):
    """Multiply-accumulates for one sample of the size these tests use."""
    (entry,) = model_inputs(model)
    return sum(macs(model, Shapes.of(model, {entry.name: (1, *SIZE)})).values())


SIZE = (3, 8, 8)


def net(rng, make=norm_net):
    model = make(rng)
    x = normal(rng, 40, *SIZE)
    return model, x


def like(model):
    """What stays: names of nodes, inputs and outputs with their types."""
    graph = model.graph
    return [n.name for n in graph.node], [
        v.SerializeToString() for v in (*graph.input, *graph.output)
    ]


@pytest.mark.parametrize("recipe", ["asr", "refit", "best", "auto"])
@pytest.mark.parametrize("make", [bare_net, norm_net])
def test_the_model_gets_narrower_and_nothing_else(rng, make, recipe):
    model, x = net(rng, make)
    options = asr_onnx.recipe(recipe, pattern="channel", macs=0.6, channel_multiple=1)
    result = asr_onnx.repair(model, x, options)
    onnx.checker.check_model(result.model, full_check=True)
    assert like(result.model) == like(model)
    assert products(result.model) <= 0.6 * products(model)
    stored = {t.name: list(t.dims) for t in result.model.graph.initializer}
    before = {t.name: list(t.dims) for t in model.graph.initializer}
    assert any(stored[n] != dims for n, dims in before.items())
    assert sum(w.after for w in result.widths) < sum(w.before for w in result.widths)
    (name,) = (o.name for o in model.graph.output)
    found = run(result.model, x=x)[name]
    assert found.shape == run(model, x=x)[name].shape


def test_a_repair_is_better_than_removal_alone(rng):
    model, x = net(rng)
    (name,) = (o.name for o in model.graph.output)
    dense = run(model, x=x)[name]

    def error(narrower):
        return float(np.square(run(narrower, x=x)[name] - dense).sum())

    options = {"pattern": "channel", "sparsity": 0.3, "channel_multiple": 1}
    pruned = asr_onnx.prune(model, asr_onnx.PruneOptions(**options))
    data = as_batches(x, model_inputs(model), holdout=0.0)
    repaired = {
        r: error(asr_onnx.repair(model, data, asr_onnx.recipe(r, **options)).model)
        for r in ("refit", "best")
    }
    assert error(pruned) > repaired["refit"]
    assert error(pruned) > repaired["best"]


def test_all_that_is_asked_to_stay_does(rng):
    model, x = net(rng)
    options = {"pattern": "channel", "macs": 1.0}
    same = asr_onnx.repair(model, x, asr_onnx.recipe("best", **options))
    assert [
        t.dims
        for t in same.model.graph.initializer
        if t.name in {i.name for i in model.graph.initializer}
    ] == [t.dims for t in model.graph.initializer]
    with pytest.raises(UsageError, match="no channel of the model can be removed"):
        asr_onnx.repair(model, x, asr_onnx.recipe("best", pattern="channel", exclude="."))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"macs": 0.5}, "macs go with the pattern channel"),
        ({"pattern": "channel", "macs": 0.5, "sparsity": 0.5}, "exclude each other"),
        ({"pattern": "channel", "macs": 0.0}, "outside"),
        ({"pattern": "channel", "channel_multiple": 0}, "not positive"),
    ],
)
def test_what_does_not_go_together_is_refused(options, reason):
    with pytest.raises(UsageError, match=reason):
        asr_onnx.RepairOptions(**options)


def test_a_search_of_ones_own_that_would_not_be_asked_is_refused():
    criterion = Criterion(search=lambda gram, rows, importance, project: project(abs(rows)))
    assert asr_onnx.RepairOptions(criterion=criterion).choice is criterion
    with pytest.raises(UsageError, match="weighs channels by obs"):
        asr_onnx.RepairOptions(criterion=criterion, pattern="channel")


def test_a_budget_out_of_reach_is_refused_before_anything_is_solved(rng):
    model, x = net(rng)
    with pytest.raises(UsageError, match=r"no more than [\d.]+ % can go"):
        asr_onnx.repair(model, x, asr_onnx.recipe("best", pattern="channel", macs=0.01))


def test_a_narrower_model_can_be_pruned_again(rng):
    """Channels first, then two of four of what is left, against the narrower model."""
    model, x = net(rng)
    options = asr_onnx.recipe("best", pattern="channel", macs=0.7, channel_multiple=4)
    narrower = asr_onnx.repair(model, x, options).model
    result = asr_onnx.repair(narrower, x, asr_onnx.recipe("best", pattern="2:4"))
    assert like(result.model) == like(model)
    assert any(s.zeros for s in result.sites)


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
@given(moving_networks(), st.sampled_from(["asr", "best"]))
def test_networks_that_move_their_channels_about_get_narrower(network, recipe):
    model = network.model
    data = as_batches(network.x, model_inputs(model), holdout=0.0, batch_size=4)
    options = asr_onnx.recipe(recipe, pattern="channel", sparsity=0.2, channel_multiple=1)
    try:
        result = asr_onnx.repair(model, data, options)
    except asr_onnx.AsrError as error:
        assert re.search(REFUSALS, str(error)), error
        assume(False)
    assert [o.SerializeToString() for o in result.model.graph.output] == [
        o.SerializeToString() for o in model.graph.output
    ]
    before, after = run(model, x=network.x[:4]), run(result.model, x=network.x[:4])
    assert {n: a.shape for n, a in before.items()} == {n: a.shape for n, a in after.items()}
    kept = sum(w.after for w in result.widths)
    assert kept < sum(w.before for w in result.widths)
