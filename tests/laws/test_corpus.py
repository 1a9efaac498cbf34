"""ONNX's own test models are repaired or refused, each with one line."""

from __future__ import annotations

import random
from pathlib import Path

import onnx
import pytest

if not Path("/proc/self/clear_refs").exists():
    pytest.skip("child processes are watched through /proc", allow_module_level=True)

import corpus

KNOWN = 21  # the newest operator set of the oldest ONNX Runtime that is supported


def is_known(data):
    model = onnx.load_model_from_string(data)
    return all(o.version <= KNOWN for o in model.opset_import if not o.domain)


@pytest.mark.slow
def test_no_step_with_a_sample_of_the_models_with_convolutions_crashes():
    models = [m for m in corpus.files() if b"Conv" in m[1] and is_known(m[1])]
    outcomes = list(corpus.run(random.Random(0).sample(models, 12), seconds=60))
    assert [(o.job[:2], o.fault) for o in outcomes if o.fault] == []
    assert sum(not o.value for o in outcomes) >= 24, "half of the steps are done"
