"""Filters that were written down are told from learned ones."""

from __future__ import annotations

import numpy as np
import pytest

from asr_onnx.maths.fixed_filters import fixed_filter


def fourier(taps=64, window=np.hanning):
    """A short-time Fourier transform's basis (2 F, taps, 1)."""
    grid = 2 * np.pi * np.outer(np.arange(taps // 2 + 1), np.arange(taps)) / taps
    return (np.vstack([np.cos(grid), -np.sin(grid)]) * window(taps))[:, :, None]


GAUSS = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
SOBEL = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]]) / 8
FIXED = {
    "sines": fourier(),
    "sines, plain": fourier(400, np.ones),
    "the same kernel": np.tile(GAUSS[None, :, :, None], (16, 1, 1, 1)),
    "bilinear": np.tile(np.outer([1, 3, 3, 1], [1, 3, 3, 1])[None, :, :, None] / 16, (3, 1, 1, 1)),
    "Sobel": np.stack([SOBEL, SOBEL.T])[..., None],
    "one blur": np.exp(-np.add.outer(np.arange(-3, 4) ** 2, np.arange(-3, 4) ** 2) / 5)[
        None, :, :, None
    ],
}


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_they_are_found(name, kind):
    assert fixed_filter(FIXED[name].astype(kind))


@pytest.mark.parametrize(
    "shape",
    [
        (16, 3, 3, 1),
        (64, 5, 5, 1),
        (1, 3, 3, 1),
        (8, 3, 3, 16),
        (32, 1, 1, 1),
        (96, 64, 1),
        (4, 9, 1),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_learned_ones_are_not(shape, seed):
    weight = np.random.default_rng(seed).normal(size=shape)
    assert not fixed_filter(weight)
    smooth = weight + 0.5 * np.roll(weight, 1, 1)
    assert not fixed_filter(smooth)
    weight[np.random.default_rng(seed).random(shape) < 0.5] = 0  # pruned already
    assert not fixed_filter(weight)


def test_a_kernel_of_many_input_channels_is_learned():
    assert not fixed_filter(np.tile(GAUSS[None, :, :, None], (16, 1, 1, 8)))
    assert not fixed_filter(np.zeros((8, 3, 3, 1)))
