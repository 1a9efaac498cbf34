"""Models without some channels do what they did with zeros for all weights that read these."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from masked_channels import unread
from models import run
from moving_networks import moving_networks

from asr_onnx.graph.channels import find_channels
from asr_onnx.graph.narrow import narrow, sparing
from asr_onnx.graph.shapes import Shapes

SLACK = {"float32": 1e-4, "float16": 3e-2}


def alike(one, other, dtype):
    for name, value in one.items():
        largest = np.abs(value, dtype=np.float64).max(initial=1e-3)
        if np.isfinite(largest):
            np.testing.assert_allclose(other[name], value, rtol=0, atol=SLACK[dtype] * largest)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(moving_networks(), st.randoms(use_true_random=False))
def test_without_channels_that_no_weight_reads_a_network_does_the_same(network, chance):
    model = network.model
    channels = find_channels(model, Shapes.of(model))
    free = [a for g in channels.groups if not g.reason for a in g.atoms]
    gone = sparing(channels, [a for a in free if chance.random() < 0.5])
    narrower = narrow(model, channels, gone)
    assert [o.SerializeToString() for o in narrower.graph.output] == [
        o.SerializeToString() for o in model.graph.output
    ]
    assert {n.name for n in narrower.graph.node} <= {n.name for n in model.graph.node}
    x = network.x[:4]
    alike(run(unread(model, channels, gone), x=x), run(narrower, x=x), str(x.dtype))
