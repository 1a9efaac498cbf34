"""What a pattern with a sparsity promises, on networks that chance has wired."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from networks import networks

import asr_onnx
from asr_onnx import as_batches
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.graph.rows import to_rows
from asr_onnx.graph.sites import find_sites
from asr_onnx.pruning.choose import prunable
from asr_onnx.pruning.patterns import NM

SLOW = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
REFUSALS = r"can be pruned|no site can hold the pattern|fixed filters|is not finite|does not fit"


@SLOW
@given(
    networks(),
    st.sampled_from([(2, 4), (1, 4), (1, 2)]),
    st.floats(0.01, 1),
    st.sampled_from(["prune", "asr", "best"]),
)
def test_there_are_zeros_enough_and_only_in_layers_that_have_the_pattern(network, nm, share, how):
    pattern = NM(*nm)
    sparsity = share * (1 - pattern.density)
    model = network.model
    try:
        if how == "prune":
            made = asr_onnx.prune(model, asr_onnx.PruneOptions(sparsity, pattern))
        else:
            data = as_batches(network.x, model_inputs(model), holdout=0.0, batch_size=4)
            options = asr_onnx.recipe(how, sparsity=sparsity, pattern=pattern)
            made = asr_onnx.repair(model, data, options).model
    except asr_onnx.AsrError as error:
        assert re.search(REFUSALS, str(error))
        assume(False)
    before = prunable(find_sites(model, ("Conv",)).sites, ("Conv",), pattern)
    after = {s.name: s for s in find_sites(made, ("Conv",)).sites}
    zeros, taken, weights = 0, [], 0
    for site in before:
        old, new = (to_rows(s, s.weight.value) for s in (site, after[site.name]))
        weights += new.size
        kept = (new != 0).reshape(-1, pattern.group).sum(1)
        if ((new == 0) & (old != 0)).any():
            assert (kept <= pattern.kept).all()  # exactly, but for zeros that were there
            taken.append(np.count_nonzero(new == 0))
        zeros += np.count_nonzero(new == 0)
    assert zeros >= round(sparsity * weights)
    assert taken and sum(taken) - min(taken) < max(1, round(sparsity * weights))
    assert asr_onnx.check(made, pattern=pattern, sparsity=sparsity).passed
