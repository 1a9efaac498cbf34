"""Patches: multiplied with the rows they are what ONNX Runtime computes, at every position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from models import build, normal, run, tap

from asr_onnx import ModelError
from asr_onnx.graph.im2col import patches
from asr_onnx.graph.rows import to_rows
from asr_onnx.graph.sites import find_sites
from asr_onnx.options import OPS


def graph(op, rank, attributes="", bias=True):
    shape = f"float[N{',?' * (rank - 1)}]"
    return f"g ({shape} x) => ({shape} y) {{ y = {op} <{attributes}> (x, w{', b' * bias}) }}"


def fitted(model, x, **how):
    """(what rows times patches give, the model's output), both (positions, C)."""
    (site,) = find_sites(model, OPS).sites
    y = run(model, x=x)["y"]
    rows = to_rows(site, site.weight.value)
    carried = site.bias or site.carrier
    bias = carried.value.reshape(-1) if carried else 0
    part = patches(site, model.graph.node[0], x, y, **how)
    product = part.columns @ rows.transpose(0, 2, 1)
    found, wanted = np.moveaxis(product, 0, 1).reshape(-1, site.channels) + bias, part.rows(y)
    assert found.dtype == wanted.dtype == np.float32
    return found, wanted


def assert_exact(model, x):
    found, wanted = fitted(model, x)
    (site,) = find_sites(model, OPS).sites
    y = run(model, x=x)["y"]
    everywhere = np.moveaxis(y, site.axis, -1).reshape(-1, site.channels)
    np.testing.assert_array_equal(wanted, everywhere)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@settings(max_examples=60)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), dims=st.integers(1, 3))
def test_convolutions(data, seed, dims):
    def some(low, high):
        return data.draw(st.lists(st.integers(low, high), min_size=dims, max_size=dims))

    rng = np.random.default_rng(seed)
    kernel, strides, dilations, size = some(1, 3), some(1, 3), some(1, 2), some(4, 7)
    groups, inputs, outputs = data.draw(st.sampled_from([(1, 3, 2), (2, 2, 3), (4, 1, 1)]))
    auto = data.draw(st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    pads = some(0, 2) + some(0, 2)
    if auto.startswith("SAME"):  # ONNX Runtime refuses the two together
        dilations = [1] * dims
    assume(all((k - 1) * d < n for k, d, n in zip(kernel, dilations, size, strict=True)))
    attributes = f"group = {groups}, strides = {strides}, dilations = {dilations}, "
    attributes += f"pads = {pads}" if auto == "NOTSET" else f'auto_pad = "{auto}"'
    bias = data.draw(st.booleans())
    model = build(
        graph("Conv", dims + 2, attributes, bias),
        {"w": normal(rng, groups * outputs, inputs, *kernel), "b": normal(rng, groups * outputs)},
    )
    assert_exact(model, normal(rng, 2, groups * inputs, *size))


@settings(max_examples=60)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), dims=st.integers(1, 2))
def test_transposed_convolutions(data, seed, dims):
    def some(low, high):
        return data.draw(st.lists(st.integers(low, high), min_size=dims, max_size=dims))

    rng = np.random.default_rng(seed)
    kernel, strides, dilations, size = some(1, 3), some(1, 3), some(1, 2), some(3, 5)
    groups, inputs, outputs = data.draw(st.sampled_from([(1, 3, 2), (2, 2, 3), (4, 1, 1)]))
    pads = some(0, 2) + some(0, 2)
    more = [data.draw(st.integers(0, s - 1)) for s in strides]  # output padding, below the stride
    for axis, total in enumerate(np.add(pads[:dims], pads[dims:])):
        span = dilations[axis] * (kernel[axis] - 1) + 1
        assume((size[axis] - 1) * strides[axis] + span + more[axis] - total > 0)
    model = build(
        graph(
            "ConvTranspose",
            dims + 2,
            f"group = {groups}, strides = {strides}, dilations = {dilations}, pads = {pads}, "
            f"output_padding = {more}",
        ),
        {"w": normal(rng, groups * inputs, outputs, *kernel), "b": normal(rng, groups * outputs)},
    )
    assert_exact(model, normal(rng, 2, groups * inputs, *size))


@pytest.mark.parametrize("attributes, shape", [("transB = 1", (4, 6)), ("transB = 0", (6, 4))])
def test_gemm(rng, attributes, shape):
    model = build(graph("Gemm", 2, attributes), {"w": normal(rng, *shape), "b": normal(rng, 1, 4)})
    assert_exact(model, normal(rng, 5, 6))


@pytest.mark.parametrize("shape", [(5, 6), (5, 3, 6), (5, 2, 3, 6)])
def test_matmul_of_any_rank(rng, shape):
    rank = f"float[N{',?' * (len(shape) - 1)}]"
    model = build(
        f"g ({rank} x) => ({rank} z) {{ y = MatMul (x, w) z = Add (y, b) }}",
        {"w": normal(rng, 6, 4), "b": normal(rng, 4)},
    )
    (site,) = find_sites(model, OPS).sites
    x = normal(rng, *shape)
    y = run(tap(model, "y"), x=x)["y"]
    part = patches(site, model.graph.node[0], x, y)
    np.testing.assert_allclose(
        part.columns[0] @ to_rows(site, site.weight.value)[0].T, y.reshape(-1, 4), atol=1e-5
    )
    np.testing.assert_array_equal(part.rows(y), y.reshape(-1, 4))


def conv_model(rng):
    attributes = "group = 2, strides = [2, 1], pads = [1, 0, 2, 1]"
    return build(graph("Conv", 4, attributes), {"w": normal(rng, 6, 2, 3, 3), "b": normal(rng, 6)})


def transposed_model(rng):
    attributes = "group = 2, strides = [2, 1], pads = [1, 0, 2, 1]"
    return build(
        graph("ConvTranspose", 4, attributes), {"w": normal(rng, 4, 3, 3, 3), "b": normal(rng, 6)}
    )


MODELS = [conv_model, transposed_model]


def cut(model, x, **how):
    (site,) = find_sites(model, OPS).sites
    return patches(site, model.graph.node[0], x, run(model, x=x)["y"], **how)


@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize("share", [0.3, 0.01])
def test_a_part_of_the_positions_fits_the_same_part_of_the_output(rng, net, share):
    model, x = net(rng), normal(rng, 5, 4, 9, 8)
    found, wanted = fitted(model, x, share=share, seed=3)
    positions = run(model, x=x)["y"][0, 0].size
    assert len(wanted) == 5 * max(1, round(share * positions))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("net", MODELS)
def test_the_positions_are_some_of_all_without_repetition(rng, net):
    model, x = net(rng), normal(rng, 3, 4, 9, 8)
    whole, part = cut(model, x), cut(model, x, share=0.4, seed=1)
    positions = whole.index.shape[1]
    np.testing.assert_array_equal(whole.index, np.tile(np.arange(positions), (3, 1)))
    assert all(len(set(i)) == len(i) and set(i) <= set(range(positions)) for i in part.index)
    assert (part.index[0] != part.index[1]).any(), "every sample at the same positions"
    columns = whole.columns.reshape(2, 3, positions, -1)
    for sample, index in enumerate(part.index):
        found = part.columns.reshape(2, 3, len(index), -1)[:, sample]
        np.testing.assert_array_equal(found, columns[:, sample, index])


def test_the_seed_decides_and_nothing_else(rng):
    model, x = conv_model(rng), normal(rng, 4, 4, 9, 8)
    one, same, other = (cut(model, x, share=0.3, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.index, same.index)
    np.testing.assert_array_equal(one.columns, same.columns)
    assert (one.index != other.index).any()


def test_a_sample_has_the_same_patches_whatever_samples_it_comes_with(rng):
    model, x = conv_model(rng), normal(rng, 5, 4, 9, 8)
    whole = cut(model, x, share=0.5, seed=4)
    parts = [cut(model, x[:2], share=0.5, seed=4), cut(model, x[2:], share=0.5, seed=6)]
    np.testing.assert_array_equal(np.concatenate([p.index for p in parts]), whole.index)
    np.testing.assert_array_equal(np.concatenate([p.columns for p in parts], 1), whole.columns)


def test_a_transposed_convolution_whose_padding_is_unknown_is_refused(rng):
    model = build(
        graph("ConvTranspose", 3, 'auto_pad = "SAME_UPPER"', bias=False),
        {"w": normal(rng, 2, 3, 3)},
    )
    with pytest.raises(ModelError, match="padding depends on its input's size"):
        find_sites(model, OPS)
