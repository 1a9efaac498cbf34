"""Small pictures of calibration samples, as data URIs for HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from asr_onnx.arrays import AnyArray
from asr_onnx.data.batches import Batches
from asr_onnx.data.openers import ImageSamples
from asr_onnx.data.pictures import read_image, with_channels
from asr_onnx.errors import AsrError

SIDE = 112  # pixels of the longer side at most


def thumbnails(calibration: Batches, indices: Iterable[int]) -> dict[int, str]:
    """Data URIs by sample index; samples that are no pictures, or gone by now, are left out."""
    found = {}
    for index in indices:
        try:
            image = _picture(calibration, index)
        except (AsrError, OSError):
            continue
        if image is not None:
            found[index] = data_uri(image)
    return found


def data_uri(image: Image.Image) -> str:
    """The picture as an embedded PNG, made smaller if it is large."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def from_array(array: AnyArray) -> Image.Image | None:
    """A float or integer array (C, H, W), (H, W, C) or (H, W) spread over black to white.

    ``None`` for what is no picture: C is 1 or 3.
    """
    if array.dtype.kind not in "fiu" or array.ndim not in (2, 3) or not array.size:
        return None
    if array.ndim == 3 and array.shape[0] in (1, 3):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 3 and array.shape[2] != 3:
        return None
    values = np.asarray(array, np.float64)
    low, high = values.min(), values.max()
    scaled = (values - low) * (255 / (high - low) if high > low else 0.0)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _picture(calibration: Batches, index: int) -> Image.Image | None:
    """As the model is shown it, but in the file's own colours."""
    samples = calibration.samples
    if isinstance(samples, ImageSamples):
        path: Path = samples.paths[index]
        image = samples.preprocess.geometry.apply(read_image(path), str(path))
        return with_channels(image, samples.preprocess.channels)
    return from_array(samples[index][calibration.inputs[0].name])
