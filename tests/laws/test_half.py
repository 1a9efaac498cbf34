"""``precision float16`` of a whole repair: the same masks, told of in the reports."""

import json

import numpy as np
import pytest
from models import build, normal, stored

from asr_onnx import ModelError, RepairOptions, UsageError, repair
from asr_onnx.evaluation.gates import Gates
from asr_onnx.repairing.verdict import judge
from asr_onnx.reports import repair_page, repair_tables


@pytest.fixture
def network(rng):
    """Two convolutions and a head, with activations of 1e5 between the first two."""
    weights = {"w": normal(rng, 8, 4, 3, 3), "v": normal(rng, 8, 8, 3, 3), "h": normal(rng, 8, 5)}
    return build(
        """net (float[N,4,8,8] x) => (float[N,5] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w)
            r = Relu (a)
            big = Mul (r, up)
            c = Mul (big, down)
            b = Conv <pads = [1, 1, 1, 1]> (c, v)
            s = Relu (b)
            p = GlobalAveragePool (s)
            f = Flatten (p)
            y = Gemm (f, h)
        }""",
        weights | {"up": np.float32(1e5), "down": np.float32(1e-5)},
    )


@pytest.mark.parametrize(
    "how",
    [
        {"sparsity": 0.5},
        {"pattern": "2:4", "recipe": "refit"},
        {"pattern": "channel", "recipe": "asr", "channel_multiple": 2},
        {"sparsity": 0.0, "recipe": "asr"},
    ],
)
def test_a_repair_in_float16_is_that_in_float32_rounded(network, rng, how):
    x = normal(rng, 40, 4, 8, 8)
    whole = repair(network, x, RepairOptions(**how))
    half = repair(network, x, RepairOptions(**how, precision="fp16"))
    for name, value in stored(whole.model).items():
        other = stored(half.model)[name]
        assert other.dtype == (np.float32 if name in ("up", "down") else np.float16)
        np.testing.assert_array_equal(other == 0, value == 0)
        np.testing.assert_allclose(other, value, rtol=1e-3, atol=1e-7)
    assert {s.name for s in half.kept_float32} == {"big", "c"}
    assert not whole.kept_float32 and whole.rounding is None
    assert 0 < half.rounding["y"] < 1e-2
    assert judge(half, Gates(), "m").passed


def test_reports_tell_what_stayed_float32(network, rng):
    options = RepairOptions(sparsity=0.5, recipe="asr", precision="float16")
    result = repair(network, normal(rng, 40, 4, 8, 8), options)
    content = json.loads(json.dumps(repair_tables.to_dict(result)))
    assert [s["name"] for s in content["kept_float32"]] == ["big", "c"]
    assert "big" in repair_page.render(content)
    lines = list(repair_tables.summary(result, judge(result, Gates(), "m"), None))
    assert any("float16: 2 nodes stay in float32" in line for line in lines)
    assert repair_tables.float32_table(result).row_count == 2


def test_fp16_is_another_word():
    assert RepairOptions(precision="fp16").to_dict()["precision"] == "float16"
    assert all(r.precision == "float16" for r in RepairOptions(precision="fp16").rungs)
    with pytest.raises(UsageError, match="float32, float16, int8"):
        RepairOptions(precision="half")
    with pytest.raises(UsageError, match="precision float16"):
        RepairOptions(float32_io=False)


def test_what_is_float16_already_is_refused(network, rng):
    x, options = normal(rng, 40, 4, 8, 8), RepairOptions(recipe="asr", precision="fp16")
    half = repair(network, x, options).model
    with pytest.raises(ModelError, match="float16 already"):
        repair(half, x, options)
