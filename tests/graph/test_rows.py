"""Rows of weights: every layout there and back, and which weight lands in which row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import build, normal

from asr_onnx.graph.rows import from_rows, kernel_size, per_channel, to_rows
from asr_onnx.graph.sites import find_sites
from asr_onnx.options import OPS


def any_rank(rank):
    return f"float[N{',?' * (rank - 1)}]"


def convolution(op, weight, groups):
    """The site of a convolution with this weight."""
    rank = any_rank(weight.ndim)
    graph = f"g ({rank} x) => ({rank} y) {{ y = {op} <group = {groups}> (x, w) }}"
    return find_sites(build(graph, {"w": weight}), OPS).sites[0]


def matrix(op, weight, transposed=False):
    """The site of a linear layer with this weight."""
    if op == "Gemm":
        body = f"y = Gemm <transB = {int(transposed)}> (x, w)"
    else:
        body = "p = MatMul (x, w) y = Add (p, b)"
    weights = {"w": weight, "b": np.zeros(weight.shape[1], np.float32)}
    return find_sites(
        build(f"g (float[N,?] x) => (float[N,?] y) {{ {body} }}", weights), OPS
    ).sites[0]


@given(
    seed=st.integers(0, 2**32 - 1),
    op=st.sampled_from(["Conv", "ConvTranspose"]),
    groups=st.integers(1, 3),
    inputs=st.integers(1, 3),
    outputs=st.integers(1, 3),
    kernel=st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
def test_there_and_back_for_convolutions(seed, op, groups, inputs, outputs, kernel):
    rng = np.random.default_rng(seed)
    if op == "Conv":
        weight = normal(rng, groups * outputs, inputs, *kernel)
    else:
        weight = normal(rng, groups * inputs, outputs, *kernel)
    site = convolution(op, weight, groups)
    rows = to_rows(site, weight)
    assert rows.shape == (groups, outputs, inputs * np.prod(kernel))
    assert kernel_size(site) == np.prod(kernel)
    assert site.channels == groups * outputs
    back = from_rows(site, rows)
    np.testing.assert_array_equal(back, weight)
    assert back.dtype == weight.dtype
    assert back.flags.c_contiguous


@pytest.mark.parametrize("op, transposed", [("Gemm", False), ("Gemm", True), ("MatMul", False)])
def test_there_and_back_for_matrices(rng, op, transposed):
    weight = normal(rng, 5, 3)
    site = matrix(op, weight, transposed)
    rows = to_rows(site, weight)
    assert rows.shape == ((1, 5, 3) if transposed else (1, 3, 5))
    assert kernel_size(site) == 1
    np.testing.assert_array_equal(rows[0], weight if transposed else weight.T)
    np.testing.assert_array_equal(from_rows(site, rows), weight)


def test_a_depthwise_convolution_has_one_row_per_group(rng):
    weight = normal(rng, 6, 1, 3, 3)
    rows = to_rows(convolution("Conv", weight, 6), weight)
    np.testing.assert_array_equal(rows, weight.reshape(6, 1, 9))


def test_neighbours_in_a_row_are_input_channels_at_one_place_of_the_kernel(rng):
    """N:M patterns count along the input channels."""
    weight = normal(rng, 4, 8, 3, 2)
    rows = to_rows(convolution("Conv", weight, 1), weight)
    np.testing.assert_array_equal(rows[0, 3, :8], weight[3, :, 0, 0])
    np.testing.assert_array_equal(rows[0, 3, 8:16], weight[3, :, 0, 1])
    weight = normal(rng, 8, 4, 3, 2)
    rows = to_rows(convolution("ConvTranspose", weight, 2), weight)
    np.testing.assert_array_equal(rows[1, 3, :4], weight[4:, 3, 2, 1])


def test_masks_take_the_same_way(rng):
    weight = normal(rng, 6, 2, 3, dtype="float32")
    site = convolution("ConvTranspose", weight, 3)
    mask = rng.random(weight.shape) < 0.5
    kept = from_rows(site, to_rows(site, mask) * to_rows(site, weight))
    np.testing.assert_array_equal(kept, weight * mask)
    assert from_rows(site, to_rows(site, mask)).dtype == bool


@pytest.mark.parametrize("axis, shape", [(1, (3, 1, 1)), (-1, (3,)), (3, (3,)), (-3, (3, 1, 1))])
def test_values_per_channel_broadcast_along_their_axis(axis, shape):
    assert per_channel(np.arange(3), 4, axis).shape == shape
