"""Trained networks as exporters write them; skipped where the evaluation cases are not at hand."""

from __future__ import annotations

import numpy as np
import pytest
from models import EVALUATION, normal, run

from asr_onnx import RepairOptions, inspect, load, repair

pytestmark = pytest.mark.skipif(not EVALUATION.is_dir(), reason="evaluation cases are not here")


def test_the_dynamo_export_of_resnet20_has_19_sites_with_their_norms():
    found = inspect(load(EVALUATION / "models" / "resnet20_bn_dynamo.onnx").proto)
    assert len(found.sites) == 19
    assert all(s.norm and s.norm.mean.storage and s.norm.var.storage for s in found.sites)
    assert sum(s.shortcut is not None for s in found.sites) >= 9
    assert not found.skipped and not found.folded


def test_the_dynamo_export_of_resnet20_survives_a_repair_of_nothing(rng):
    model = load(EVALUATION / "models" / "resnet20_bn_dynamo.onnx").proto
    x = normal(rng, 24, 3, 32, 32)
    result = repair(model, x, RepairOptions(0.0, method="asr"))
    found, wanted = (run(m, input=x) for m in (result.model, model))
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=2e-4 * abs(value).max())
