"""N:M patterns: every group keeps to them, and Polygraphy's checker sees it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from models import build, copied, norm_weights, normal, stored
from polygraphy.tools.sparse import SparsityPruner

from asr_onnx import PruneOptions, RepairOptions, UsageError, prune, repair

PATTERNS = [(2, 4), (1, 4), (4, 8)]


def net(rng):
    """An ordinary, a depthwise, a grouped and a narrow convolution, and a head."""
    return build(
        """net (float[N,3,6,6] x) => (float[N,8] y) {
            c1 = Conv <pads = [1, 1, 1, 1]> (x, narrow)
            r1 = Relu (c1)
            c2 = Conv <pads = [1, 1, 1, 1]> (r1, plain)
            n2 = BatchNormalization (c2, s, b, m, v)
            r2 = Relu (n2)
            c3 = Conv <group = 16, pads = [1, 1, 1, 1]> (r2, depthwise)
            c4 = Conv <group = 2> (c3, grouped, k)
            a = Add (c4, r1)
            p = GlobalAveragePool (a)
            f = Flatten (p)
            y = Gemm <transB = 1> (f, head, hb)
        }""",
        {
            "narrow": normal(rng, 16, 3, 3, 3),
            "plain": normal(rng, 16, 16, 3, 3),
            "depthwise": normal(rng, 16, 1, 3, 3),
            "grouped": normal(rng, 16, 8, 1, 1),
            "k": normal(rng, 16),
            "head": normal(rng, 8, 16),
            "hb": normal(rng, 8),
        }
        | norm_weights(rng, 16),
    )


def groups(weight, size):
    """Groups of neighbours along the input channels, (count, size); axis 1 of Conv and Gemm'."""
    return np.moveaxis(weight, 1, -1).reshape(-1, size)


def options(pattern, **more):
    return RepairOptions(**{"pattern": pattern} | more)


@pytest.mark.parametrize("kept, size", PATTERNS)
@pytest.mark.parametrize("criterion", ["magnitude", "obs"])
@pytest.mark.parametrize("reconstruct", [False, True])
def test_every_group_keeps_to_the_pattern(rng, kept, size, criterion, reconstruct):
    model, x = net(rng), normal(rng, 24, 3, 6, 6)
    how = options(f"{kept}:{size}", criterion=criterion, reconstruct=reconstruct)
    result = repair(model, x, how)
    found = stored(result.model)
    for name in ("plain", "grouped"):
        np.testing.assert_array_equal((groups(found[name], size) != 0).sum(axis=1), kept)
    for name in ("narrow", "depthwise", "head"):  # cannot hold it, or are not asked to
        assert found[name].all()
    assert {s.name for s in result.sites if s.pruned} == {"plain", "grouped"}
    assert result.sparsity == 1 - kept / size


@pytest.mark.parametrize("kept, size", PATTERNS)
def test_magnitude_keeps_the_largest_of_each_group_as_they_are(rng, kept, size):
    model = net(rng)
    found = stored(prune(model, PruneOptions(pattern=f"{kept}:{size}")))
    for name in ("plain", "grouped"):
        old, new = groups(stored(model)[name], size), groups(found[name], size)
        for before, after in zip(old, new, strict=True):
            largest = np.sort(np.argsort(-abs(before))[:kept])
            np.testing.assert_array_equal(np.flatnonzero(after), largest)
            np.testing.assert_array_equal(after[largest], before[largest])


def test_a_pattern_takes_the_place_of_a_sparsity():
    assert PruneOptions(pattern="2:4").sparsity is None
    assert PruneOptions(pattern="2:4").zeros is None


def test_linear_layers_hold_patterns_along_their_inputs(rng):
    model = build(
        """g (float[N,8] x) => (float[N,6] y) {
            a = Gemm (x, w1, b1)
            b = Gemm <transB = 1> (a, w2)
            c = MatMul (b, w3)
            y = Add (c, b3)
        }""",
        {"w1": normal(rng, 8, 12), "w2": normal(rng, 8, 12), "w3": normal(rng, 8, 6)}
        | {"b1": normal(rng, 12), "b3": normal(rng, 6)},
    )
    how = options("2:4", ops=("Gemm", "MatMul"), criterion="obs", reconstruct=True)
    found = stored(repair(model, normal(rng, 64, 8), how).model)
    for name, weight in (("w1", found["w1"].T), ("w2", found["w2"]), ("w3", found["w3"].T)):
        np.testing.assert_array_equal((weight.reshape(-1, 4) != 0).sum(axis=1), 2, name)


@pytest.mark.parametrize("ask", [prune, lambda m, o: repair(m, np.ones((4, 3, 6, 6), "f4"), o)])
def test_a_pattern_no_layer_can_hold_is_refused(rng, ask):
    with pytest.raises(UsageError, match="no site can hold the pattern 3:5"):
        ask(net(rng), options("3:5"))


def checked(model) -> set[str]:
    """The weights Polygraphy finds 2:4 sparse."""
    checker = SparsityPruner(copied(model))
    checker.check()
    return checker.sparse_tensors


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning:polygraphy")
@pytest.mark.parametrize("criterion", ["magnitude", "obs"])
def test_polygraphy_finds_what_was_pruned_sparse(rng, criterion):
    model = net(rng)
    assert checked(model) == set()
    how = options("2:4", criterion=criterion, reconstruct=True)
    assert checked(repair(model, normal(rng, 24, 3, 6, 6), how).model) == {"plain", "grouped"}
    half = prune(model, PruneOptions(sparsity=0.5))
    assert checked(half) == set(), "half of the weights, but of no pattern"


def test_polygraphys_command_line_says_so(rng, tmp_path):
    model = net(rng)
    onnx.save(model, tmp_path / "dense.onnx")
    how = options("2:4", criterion="obs", reconstruct=True)
    onnx.save(repair(model, normal(rng, 24, 3, 6, 6), how).model, tmp_path / "sparse.onnx")

    def inspected(name):
        words = [sys.executable, "-c", "from polygraphy.tools import main; main()"]
        found = subprocess.run(
            [*words, "inspect", "sparsity", str(tmp_path / name)],
            capture_output=True,
            text=True,
            check=True,
        )
        return found.stdout + found.stderr

    sparse, dense = inspected("sparse.onnx"), inspected("dense.onnx")
    for name in ("plain", "grouped"):
        assert f"Found sparse tensor: {name}" in sparse
        assert f"Found non-sparse tensor: {name}" in dense
    assert "Found sparse tensor" not in dense
