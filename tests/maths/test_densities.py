"""How many weights each layer keeps: exact in total, sensible for each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import build, normal

from asr_onnx.graph.rows import channels_first
from asr_onnx.graph.sites import find_sites
from asr_onnx.maths.densities import BY_ERROR, DENSITIES, SEARCH, allocate
from asr_onnx.options import OPS

SHAPES = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 12), st.integers(1, 12)),
        st.tuples(st.integers(1, 12), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3)),
    ),
    min_size=1,
    max_size=6,
)


BY_WEIGHTS = [how for how in DENSITIES if how not in (BY_ERROR, SEARCH)]


def layers(rng, shapes):
    return {f"w{i}": normal(rng, *s) * rng.uniform(0.01, 10) for i, s in enumerate(shapes)}


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    shapes=SHAPES,
    sparsity=st.floats(0, 1, exclude_max=True),
    how=st.sampled_from(BY_WEIGHTS),
)
def test_the_total_is_exact_and_no_layer_keeps_more_than_it_has(seed, shapes, sparsity, how):
    weights = layers(np.random.default_rng(seed), shapes)
    counts = allocate(weights, sparsity, how)
    total = sum(w.size for w in weights.values())
    assert list(counts) == list(weights)
    assert sum(counts.values()) == total - round(sparsity * total)
    assert all(0 <= counts[n] <= w.size for n, w in weights.items())


@pytest.mark.parametrize("how", BY_WEIGHTS)
def test_sparsity_0_keeps_everything(rng, how):
    weights = layers(rng, [(8, 3, 3, 3), (16, 8, 1, 1), (10, 16)])
    assert allocate(weights, 0.0, how) == {n: w.size for n, w in weights.items()}


@settings(max_examples=50)
@given(
    seed=st.integers(0, 2**32 - 1),
    shapes=SHAPES,
    sparsity=st.floats(0, 0.99),
    how=st.sampled_from(["global", "mixed"]),
)
def test_rescaled_output_channels_change_nothing(seed, shapes, sparsity, how):
    rng = np.random.default_rng(seed)
    weights = layers(rng, shapes)
    scaled = {
        n: w * 2.0 ** rng.integers(-8, 8, (len(w), *[1] * (w.ndim - 1))) for n, w in weights.items()
    }
    assert allocate(scaled, sparsity, how) == allocate(weights, sparsity, how)


def test_uniform_is_the_same_density_everywhere(rng):
    weights = layers(rng, [(8, 3, 3, 3), (16, 8, 1, 1), (10, 16)])
    for name, count in allocate(weights, 0.7, "uniform").items():
        assert abs(count - 0.3 * weights[name].size) < 1


def test_erk_keeps_small_layers_denser(rng):
    weights = layers(rng, [(8, 3, 3, 3), (64, 64, 3, 3), (256, 64, 1, 1)])
    density = {n: c / weights[n].size for n, c in allocate(weights, 0.7, "erk").items()}
    for name in ("w1", "w2"):  # below 1, proportional to the sum of the dimensions over the size
        shape = weights[name].shape
        density[name] /= sum(shape) / np.prod(shape)
    assert density["w0"] == 1
    assert density["w1"] == pytest.approx(density["w2"], rel=1e-3)


def test_global_follows_the_shape_of_a_layers_weights_and_mixed_half_of_the_way(rng):
    weights = {"flat": np.sign(normal(rng, 20, 50)), "peaked": normal(rng, 20, 50) ** 5}
    found = {how: allocate(weights, 0.7, how) for how in ("uniform", "mixed", "global")}
    assert found["global"]["flat"] > found["mixed"]["flat"] > found["uniform"]["flat"]
    ratio = {how: c["flat"] / c["peaked"] for how, c in found.items()}
    assert ratio["mixed"] == pytest.approx(np.sqrt(ratio["global"]), rel=0.02)


@pytest.mark.parametrize("how", ["global", "mixed"])
def test_output_channels_are_found_in_every_layout(rng, how):
    """Rescaling an output channel changes no count, whichever axis of the weight it lies on."""
    weights = {
        "w1": normal(rng, 6, 4, 3) ** 3,
        "w2": normal(rng, 8, 5),
        "w3": normal(rng, 8, 6) ** 3,
        "k": np.zeros(6, np.float32),
    }
    factors = {"w1": 4.0 ** np.arange(-2, 2).reshape(4, 1), "w2": 4.0 ** np.arange(-2, 3)}
    factors["w3"] = 4.0 ** np.arange(-3, 3)

    def counts(weights):
        model = build(
            """g (float[N,6,8] x, float[N,8] z) => (float[N,4,10] a, float[N,5] b, float[N,6] c) {
                a = ConvTranspose (x, w1)
                b = Gemm (z, w2)
                p = MatMul (z, w3)
                c = Add (p, k)
            }""",
            weights,
        )
        sites = find_sites(model, OPS).sites
        return allocate({s.name: channels_first(s) for s in sites}, 0.6, how)

    scaled = {n: (w * factors.get(n, 1)).astype(np.float32) for n, w in weights.items()}
    found = counts(weights)
    assert sum(found.values()) == 160 - 96
    assert counts(scaled) == found
