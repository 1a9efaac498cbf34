"""Filters that were never learned stay as they are, unless they are named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import build, normal, stored

import asr_onnx
from asr_onnx import UsageError, recipe

BLUR = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16


def blurred(rng):
    """Anti-aliasing between two convolutions."""
    return build(
        """g (float[N,3,12,12] x) => (float[N,4,5,5] y) {
            a = Conv<pads=[1,1,1,1]> (x, w1)
            b = Relu(a)
            c = Conv<group=8, strides=[2,2]> (b, blur)
            y = Conv<pads=[1,1,1,1]> (c, w2)
        }""",
        {
            "w1": normal(rng, 8, 3, 3, 3),
            "blur": np.tile(BLUR, (8, 1, 1, 1)),
            "w2": normal(rng, 4, 8, 3, 3),
        },
    )


@pytest.mark.parametrize("name", ["asr", "refit", "best"])
def test_a_blur_stays_as_it_is_and_is_named(rng, name):
    model, x = blurred(rng), normal(rng, 80, 3, 12, 12)
    found = asr_onnx.repair(model, x, recipe(name, sparsity=0.5))
    before, after = stored(model), stored(found.model)
    np.testing.assert_array_equal(after["blur"], before["blur"])
    total = after["w1"].size + after["w2"].size
    assert sum(int((after[n] == 0).sum()) for n in ("w1", "w2")) == round(0.5 * total)
    assert [(s.op, "fixed filter" in s.reason) for s in found.skipped] == [("Conv", True)]
    assert {s.name for s in asr_onnx.inspect(model).sites} == {"w1", "w2"}
    assert stored(asr_onnx.prune(model, recipe("asr", sparsity=0.5)))["blur"].all()


def test_to_name_one_is_to_prune_it(rng):
    model = blurred(rng)
    pruned = stored(asr_onnx.prune(model, recipe("asr", sparsity=0.5, include="blur")))
    assert (pruned["blur"] == 0).sum() == 36 and pruned["w1"].all()


def test_with_nothing_else_it_says_so(rng):
    model = blurred(rng)
    with pytest.raises(UsageError, match="all that could be pruned are fixed filters: name some"):
        asr_onnx.prune(model, recipe("asr", sparsity=0.5, exclude="w"))


def test_inspect_lists_it(rng, tmp_path, asr):
    onnx.save(blurred(rng), tmp_path / "m.onnx")
    code, out, _ = asr("inspect", str(tmp_path / "m.onnx"))
    assert code == 0
    assert "2 sites" in out and "fixed filter" in " ".join(out.split())
