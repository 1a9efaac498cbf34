"""Patches: multiplied with the rows they are what ONNX Runtime computes, at every position."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from models import build, normal, run

from asr_onnx import patches as module
from asr_onnx.layout import to_rows
from asr_onnx.options import OPS
from asr_onnx.patches import patches
from asr_onnx.sites import find_sites


def graph(op, rank, attributes="", bias=True):
    shape = f"float[N{',?' * (rank - 1)}]"
    return f"g ({shape} x) => ({shape} y) {{ y = {op} <{attributes}> (x, w{', b' * bias}) }}"


def fitted(model, x, **how):
    """(what rows times patches give, the model's output), both (positions, C)."""
    (site,) = find_sites(model, OPS).sites
    y = run(model, x=x)["y"]
    rows, found, wanted = to_rows(site, site.weight.value), [], []
    carried = site.bias or site.carrier
    bias = carried.value.reshape(-1) if carried else 0
    for part in patches(site, model.graph.node[0], x, y, **how):
        product = part.columns @ rows.transpose(0, 2, 1)
        found.append(np.moveaxis(product, 0, 1).reshape(-1, site.channels) + bias)
        wanted.append(part.rows(y))
    assert all(part.dtype == np.float32 for part in found + wanted)
    return np.concatenate(found), np.concatenate(wanted)


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
    model = build(
        graph("Gemm", 2, attributes), {"w": normal(rng, *shape), "b": normal(rng, 1, 4)}
    )
    assert_exact(model, normal(rng, 5, 6))


@pytest.mark.parametrize("shape", [(5, 6), (5, 3, 6), (5, 2, 3, 6)])
def test_matmul_of_any_rank(rng, shape):
    model = build(
        f"""g (float[N{",?" * (len(shape) - 1)}] x) => (float[N{",?" * (len(shape) - 1)}] z) {{
            y = MatMul (x, w)
            z = Add (y, b)
        }}""",
        {"w": normal(rng, 6, 4), "b": normal(rng, 4)},
    )
    model.graph.output[0].name = "y"  # the product itself; the Add gives a carrier all the same
    model.graph.output.append(type(model.graph.output[0])(name="z"))
    x = normal(rng, *shape)
    found = find_sites(build_with_one_reader(rng, model), OPS).sites[0]
    y = x @ found.weight.value
    (part,) = patches(found, model.graph.node[0], x, y)
    product = part.columns[0] @ to_rows(found, found.weight.value)[0].T
    np.testing.assert_allclose(product, y.reshape(-1, 4), atol=1e-5)
    np.testing.assert_array_equal(part.rows(y), y.reshape(-1, 4))
