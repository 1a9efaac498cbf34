"""From picture to model input: colour order, size, scale, mean and deviation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from asr_onnx.arrays import AnyArray, FloatArray
from asr_onnx.data.pictures import RESAMPLING, Geometry, Size, size_text, with_channels
from asr_onnx.errors import CalibrationError, UsageError
from asr_onnx.graph.inputs import ModelInput

Auto = Literal["auto"]
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_GREY = {"mean": (0.449,), "std": (0.226,)}  # their averages
_NEUTRAL = {"mean": 0.0, "std": 1.0}
_MARGIN = 0.875  # the share of a resized image's side that ImageNet models are shown
_CHOICES = {
    "color": ("rgb", "bgr"),
    "layout": ("auto", "nchw", "nhwc"),
    "interpolation": tuple(RESAMPLING),
    "pad_at": ("center", "corner"),
}


@dataclass(frozen=True)
class Preprocess:
    """``(pixel * scale - mean) / std`` of a resized and cropped image, pixels being 0..255.

    ``mean`` and ``std`` have one value or one per channel, in the order the model gets them;
    ``None`` leaves the step out.  "auto" is ImageNet's values on a scale of 1 / 255, and nothing at
    all for a uint8 input.  ``resize`` is the shorter side, or (height, width) exactly; ``crop``
    is cut from the centre.  Automatic sizes: an image of the model's size stays as it is, others
    have the shorter side resized to size / 0.875 and are cropped to size.  With only one of the two
    given, an automatic crop is to the model's size, an automatic resize is none before a crop
    and to the model's exact size where ``crop`` is ``None``.  With ``pad``, a pixel value, images
    keep their aspect ratio and are fitted into ``resize`` (height, width), by default the model's
    size, ``pad_at`` its centre or its upper left corner, and the rest gets that value: a letterbox.
    "mean" is what becomes 0.

    Raises ``UsageError`` for invalid values.
    """

    mean: tuple[float, ...] | Auto | None = "auto"
    std: tuple[float, ...] | Auto | None = "auto"
    scale: float | Auto = "auto"
    color: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["auto", "nchw", "nhwc"] = "auto"
    resize: int | Size | Auto | None = "auto"
    crop: int | Size | Auto | None = "auto"
    interpolation: str = "bilinear"
    pad: float | Literal["mean"] | None = None
    pad_at: Literal["center", "corner"] = "center"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"{name} {getattr(self, name)!r} is not one of {', '.join(choices)}"
                )
        for name in ("mean", "std"):
            object.__setattr__(self, name, _channel_values(name, getattr(self, name)))
        for name in ("resize", "crop"):
            object.__setattr__(self, name, _size(name, getattr(self, name)))
        if not (
            self.pad in (None, "mean") or (_is_number(self.pad) and 0 <= float(self.pad) <= 255)
        ):
            raise UsageError(f"pad {self.pad!r} is not a pixel value, 0 to 255, nor mean")
        if self.pad is not None and self.crop not in ("auto", None):
            raise UsageError("pad fits images in whole: leave out crop")
        if self.scale != "auto" and not (_is_number(self.scale) and self.scale > 0):
            raise UsageError(f"scale {self.scale!r} is not a positive number")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocess:
        """The inverse of ``to_dict``; ``UsageError`` for a key that is no setting."""
        known = [f.name for f in fields(cls)]
        if unknown := [k for k in data if k not in known]:
            raise UsageError(
                f"preprocessing has no setting {', '.join(map(repr, unknown))}: "
                f"there are {', '.join(known)}"
            )
        return cls(**data)

    def resolve(self, input: ModelInput) -> ResolvedPreprocess:
        """Settle what depends on the model's image input.

        Raises ``CalibrationError`` when images cannot feed it, ``UsageError`` when the settings do
        not go with it.
        """
        if len(input.shape) != 4 or not (input.dtype.kind == "f" or input.dtype == np.uint8):
            raise CalibrationError(
                f"images cannot feed {input}: it is not a float or uint8 image, give arrays (.npy)"
            )
        layout = self.layout if self.layout != "auto" else _guess_layout(input)
        channels = input.shape[1 if layout == "nchw" else 3] or 3
        if channels not in (1, 3):
            raise CalibrationError(
                f"{input} has {channels} channels in {layout} layout, images have 1 or 3: "
                "give another layout, or arrays (.npy)"
            )
        height, width = input.shape[2:] if layout == "nchw" else input.shape[1:3]
        raw = input.dtype == np.uint8
        settled = replace(
            self,
            mean=self._settle("mean", input, channels),
            std=self._settle("std", input, channels),
            scale=(1.0 if raw else 1 / 255) if self.scale == "auto" else self.scale,
            layout=layout,
        )
        if raw and (settled.mean, settled.std, settled.scale) != (None, None, 1.0):
            raise UsageError(f"{input} takes pixels as they are: leave out mean, std and scale")
        size = None if height is None or width is None else (height, width)
        geometry = _geometry(self, size)
        if self.pad is not None and geometry.box is None:
            raise UsageError(f"{input} leaves its size open: give --resize H,W to pad to")
        return ResolvedPreprocess(
            settled, input, channels, (height, width), geometry, _tables(settled, input, channels)
        )

    def _settle(self, name: str, input: ModelInput, channels: int) -> tuple[float, ...] | None:
        values: tuple[float, ...] | Auto | None = getattr(self, name)
        if values == "auto":
            if input.dtype == np.uint8:
                return None
            if channels == 1:
                return _GREY[name]
            return _IMAGENET[name] if self.color == "rgb" else _IMAGENET[name][::-1]
        if values is not None and len(values) not in (1, channels):
            raise UsageError(
                f"{name} has {len(values)} values for the one channel of {input}: give 1"
            )
        return values


@dataclass(frozen=True, eq=False)
class ResolvedPreprocess:
    """``Preprocess`` settled for one model input.

    ``size`` is the input's height and width, ``tables`` (C, 256) the value fed for each pixel value
    of each fed channel: there are no more, and so each is rounded only once.
    """

    settings: Preprocess
    input: ModelInput
    channels: int
    size: tuple[int | None, int | None]
    geometry: Geometry
    tables: AnyArray

    def apply(self, image: Image.Image, name: str = "image") -> AnyArray:
        """The upright image as the model's (C, H, W) or (H, W, C), in its element type.

        Raises ``CalibrationError`` naming the image when it does not come to the model's size.
        """
        image = self.geometry.apply(with_channels(image, self.channels), name)
        rows, columns = self.geometry.frame((image.height, image.width))
        size = (image.height + sum(rows), image.width + sum(columns))
        if any(want not in (None, have) for want, have in zip(self.size, size, strict=True)):
            raise CalibrationError(
                f"image '{name}' comes to {size_text(size)}, but input '{self.input.name}' takes "
                f"{size_text(self.size)} (height x width): give --resize or --crop for that size"
            )
        pixels = np.asarray(image).reshape(image.height, image.width, self.channels)
        if self.settings.color == "bgr":
            pixels = pixels[..., ::-1]
        fed = [table[pixels[..., c]] for c, table in enumerate(self.tables)]
        if self.settings.pad is not None:
            edges = np.zeros(1)
            if self.settings.pad != "mean":
                edges = _values(self.settings, np.array([self.settings.pad]))[:, 0]
            fed = [
                np.pad(plane, (rows, columns), constant_values=edges[c % len(edges)])
                for c, plane in enumerate(fed)
            ]
        axis = 0 if self.settings.layout == "nchw" else -1
        return np.ascontiguousarray(np.stack(fed, axis))

    def describe(self) -> str:
        """One line saying what happens to an image."""
        s = self.settings
        color = s.color.upper() if self.channels == 3 else "grey"
        parts = [color, self.geometry.describe()]
        if s.pad is not None:
            parts.append("the rest the mean" if s.pad == "mean" else f"the rest {s.pad:g}")
        if s.scale != 1:
            known = s.scale == 1 / 255
            parts.append("pixels / 255" if known else f"pixels * {s.scale:g}")
        for name, values in (("mean", s.mean), ("std", s.std)):
            if isinstance(values, tuple):
                parts.append(f"{name} {' '.join(f'{v:g}' for v in values)}")
        return ", ".join([*parts, f"{s.layout.upper()} {self.input.dtype}"])


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(value)


def _channel_values(name: str, value: Any) -> tuple[float, ...] | Auto | None:
    if value is None:
        return None
    if isinstance(value, str) and value == "auto":
        return "auto"
    values = tuple(value) if isinstance(value, (tuple, list, np.ndarray)) else ()
    if len(values) not in (1, 3) or not all(map(_is_number, values)):
        raise UsageError(f"{name} {value!r} is not 1 or 3 numbers")
    if name == "std" and min(values) <= 0:
        raise UsageError(f"std {value!r} is not positive")
    return tuple(float(v) for v in values)


def _size(name: str, value: Any) -> int | Size | Auto | None:
    if value is None or value == "auto":
        return None if value is None else "auto"
    sides = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(sides) != 2 or not all(type(s) is int and s > 0 for s in sides):
        raise UsageError(f"{name} {value!r} is not a positive size, or height and width")
    return sides if isinstance(value, (tuple, list)) else sides[0]


def _guess_layout(input: ModelInput) -> Literal["nchw", "nhwc"]:
    _, second, _, last = input.shape
    return "nhwc" if last in (1, 3) and second not in (1, 3) else "nchw"


def _geometry(p: Preprocess, size: Size | None) -> Geometry:
    how = p.interpolation
    if p.pad is not None:
        box = size if p.resize in ("auto", None) else p.resize
        box = (box, box) if isinstance(box, int) else box
        box = None if isinstance(box, str) else box
        return Geometry(interpolation=how, box=box, centred=p.pad_at == "center")
    if p.resize == "auto" and p.crop == "auto":
        if size is None:
            return Geometry(interpolation=how)
        room = (round(size[0] / _MARGIN), round(size[1] / _MARGIN))
        return Geometry(room, True, size, size, how)
    crop = size if p.crop == "auto" else (p.crop, p.crop) if isinstance(p.crop, int) else p.crop
    if p.resize == "auto":
        return Geometry(size if crop is None else None, False, crop, None, how)
    if isinstance(p.resize, int):
        return Geometry((p.resize, p.resize), True, crop, None, how)
    return Geometry(p.resize, False, crop, None, how)


def _tables(p: Preprocess, input: ModelInput, channels: int) -> AnyArray:
    """Value fed for each channel and pixel value, (C, 256), in the model's element type."""
    values = _values(p, np.arange(256.0))
    with np.errstate(over="ignore"):
        tables = np.broadcast_to(values, (channels, 256)).astype(input.dtype)
    if not np.isfinite(tables).all():
        raise UsageError(f"mean, std and scale give values that {input} cannot hold")
    return tables


def _values(p: Preprocess, pixels: FloatArray) -> FloatArray:
    """What is fed for ``pixels`` (P,): (1 or C, P)."""
    mean, std = (np.array(v or (_NEUTRAL[n],)) for n, v in (("mean", p.mean), ("std", p.std)))
    scaled = pixels * float(p.scale)
    return np.asarray((scaled - mean[:, None].astype(float)) / std[:, None].astype(float))
