"""The promises of a repair, on networks that chance has wired."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from models import copied, run, tap
from networks import Network, networks

import asr_onnx
from asr_onnx import as_batches
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.graph.sites import find_sites
from asr_onnx.options import OPS

SLOW = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
AMOUNTS = [{"sparsity": 0.3}, {"sparsity": 0.8}, {"sparsity": 0.6, "ops": OPS}, {"pattern": "2:4"}]
TOLERANCE = {"float32": 1e-4, "float16": 2e-2}  # relative to the largest value
# What is said of networks that have nothing to prune, or in which a float16 overflows.
REFUSALS = r"can be pruned|no site can hold the pattern|fixed filters|is not finite|does not fit"


def repaired(network: Network, **options: object) -> asr_onnx.RepairResult:
    """The network repaired on all its samples; networks that cannot be are not looked at."""
    data = as_batches(network.x, model_inputs(network.model), holdout=0.0, batch_size=4)
    try:
        return asr_onnx.repair(network.model, data, asr_onnx.RepairOptions(**options))
    except asr_onnx.AsrError as error:
        assert re.search(REFUSALS, str(error))
        assume(False)


def assert_close(found, wanted, largest, dtype):
    atol = TOLERANCE[str(dtype)] * max(float(abs(largest).max()), 1e-3)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)


def outputs(model, x, *more):
    """Outputs of the model, and further tensors, in batches of 4."""
    tapped = tap(model, *(m for m in more if m not in {o.name for o in model.graph.output}))
    parts = [run(tapped, x=x[i : i + 4]) for i in range(0, len(x), 4)]
    return {n: np.concatenate([np.atleast_1d(p[n]) for p in parts]) for n in parts[0]}


def weights(model, names):
    """The values of constants as their readers see them, from ONNX Runtime."""
    alone, needed = copied(model), set(names)
    graph = alone.graph
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
        else:
            graph.node.remove(node)
    del graph.input[:], graph.output[:]
    return run(tap(alone, *names))


def stored_behind(model, tensor):
    """The initializers and ``Constant`` nodes that a constant is made of."""
    by_output = {o: n for n in model.graph.node for o in n.output}
    node = by_output.get(tensor)
    if node is None or not node.input:
        return {tensor}
    return set().union(*(stored_behind(model, t) for t in node.input))


def may_change(model, names):
    """Stored tensors that the repair of the sites with these weights may write."""
    places = set()
    for node in model.graph.node:
        if len(node.input) > 1 and node.input[1] in names:
            behind = [n for n in model.graph.node if node.output[0] in n.input]
            read = [*node.input[1:], *(n.input[3] for n in behind if len(n.input) == 5)]
            if node.op_type == "MatMul":
                read += [t for n in behind for t in n.input if t != node.output[0]]
            places |= set().union(*(stored_behind(model, t) for t in read))
    return places


def constants(model):
    found = {t.name: t for t in model.graph.initializer}
    nodes = (n for n in model.graph.node if n.op_type == "Constant")
    return found | {n.output[0]: n.attribute[0].t for n in nodes}


def assert_only_parameters_differ(before, after, names):
    """All else, node list, names, opset and metadata, is the same byte for byte."""
    undone, old = copied(after), constants(before)
    added = {t.name for t in after.graph.initializer} - old.keys()
    for tensor in [t for t in undone.graph.initializer if t.name in added]:
        undone.graph.initializer.remove(tensor)
    for node, dense in zip(undone.graph.node, before.graph.node, strict=True):
        if len(node.input) == 3 and node.input[2] in added:
            assert node.input[1] in names
            del node.input[:]
            node.input.extend(dense.input)
    changed = {n for n, t in constants(undone).items() if t != old[n]}
    assert changed <= may_change(before, names)
    for name in changed:
        constants(undone)[name].CopyFrom(old[name])
    assert undone.SerializeToString() == before.SerializeToString()


def assert_zeros(result, pattern=None, sparsity=None, ops=None):
    """As many as were asked for, and of a pattern in each group of input channels."""
    chosen = [s for s in result.sites if s.pruned]
    found = weights(result.model, [s.name for s in chosen])
    zeros = sum(int((v == 0).sum()) for v in found.values())
    assert zeros == sum(s.zeros for s in chosen)
    if pattern is None:
        assert zeros == round(sparsity * sum(v.size for v in found.values()))
        return
    for value in found.values():
        blocks = np.moveaxis(value, 1, -1).reshape(-1, 4)
        assert ((blocks == 0).sum(axis=1) == 2).all()


def end_of(model, site):
    """The tensor behind a site whose means are restored."""
    if site.op == "MatMul":
        return next(n.output[0] for n in model.graph.node if site.output in n.input)
    return site.norm.output if site.norm else site.output


def assert_the_laws_hold(network, recipe, amount):
    model, x = network.model, network.x
    onnx.checker.check_model(model, full_check=True)
    result = repaired(network, recipe=recipe, **amount)
    onnx.checker.check_model(result.model, full_check=True)
    assert_zeros(result, **amount)
    assert_only_parameters_differ(model, result.model, {s.name for s in result.sites})
    again = repaired(network, recipe=recipe, **amount)
    assert again.model.SerializeToString() == result.model.SerializeToString()
    if recipe != "asr":
        return
    if "sparsity" in amount:
        pruned = asr_onnx.prune(model, asr_onnx.PruneOptions(**amount))
        names = [s.name for s in result.sites]
        zeros = [{n: v == 0 for n, v in weights(m, names).items()} for m in (result.model, pruned)]
        np.testing.assert_equal(*zeros)
    ends = [end_of(model, s) for s in find_sites(model, result.options.ops).sites]
    dense, found = outputs(model, x, *ends), outputs(result.model, x, *ends)
    for end in ends:
        axes = (0, *range(2, dense[end].ndim))  # channels are the last of two axes, too
        wanted, mean = (v[end].mean(axes, dtype=np.float64) for v in (dense, found))
        assert_close(mean, wanted, dense[end], x.dtype)


@settings(SLOW, max_examples=30)
@given(networks(), st.sampled_from(["asr", "refit", "best"]))
def test_without_pruning_nothing_changes_beyond_rounding(network, recipe):
    result = repaired(network, recipe=recipe, sparsity=0.0)
    wanted, found = (outputs(m, network.x) for m in (network.model, result.model))
    for name, value in wanted.items():
        assert_close(found[name], value, value, network.x.dtype)


@pytest.mark.slow
@settings(SLOW, max_examples=500)
@given(networks(), st.sampled_from(["asr", "refit", "best"]), st.sampled_from(AMOUNTS))
def test_the_laws_hold_on_many_networks(network, recipe, amount):
    assert_the_laws_hold(network, recipe, amount)
