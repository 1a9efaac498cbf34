"""Image files to upright 8-bit pictures of one size."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from asr_onnx.errors import CalibrationError
from asr_onnx.limits import PIXELS, check_file

Size = tuple[int, int]  # height, width

# What is ever opened, by suffix.  The decoder goes by a file's content: an EPS called x.png would
# otherwise start Ghostscript.
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF")

# What it complains of is an error here; without a handler it would be printed besides.
logging.getLogger("PIL").addHandler(logging.NullHandler())

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


def read_image(path: Path) -> Image.Image:
    """Decode a PNG, JPEG, BMP, WEBP, TIFF or GIF (the first frame) and turn it upright.

    Raises ``CalibrationError`` naming the file when it is missing, damaged, no image or too large.
    """
    check_file(path, f"image '{path}'", CalibrationError)
    try:
        with warnings.catch_warnings():  # Pillow warns of what is refused below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=_FORMATS)
        with image:
            if problem := _too_large((image.height, image.width)):
                raise ValueError(problem)
            return ImageOps.exif_transpose(image)
    except Exception as error:  # decoders raise whatever they trip over
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CalibrationError(
            f"image '{path}' cannot be read ({reason}): replace or remove it"
        ) from None


def with_channels(image: Image.Image, channels: int) -> Image.Image:
    """The image as 8-bit RGB (3 channels) or grey (1); alpha is dropped, 16 bits become 8."""
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255 instead of scaling; "I" is how it has 16-bit PNGs.
        deep = np.asarray(image).clip(0, 65535).astype(np.int32)
        image = Image.fromarray(((deep + 128) // 257).astype(np.uint8))  # rounds: 257 is odd
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode != "RGB":
        image = image.convert("RGB")
    return image if channels == 3 else image.convert("L")


@dataclass(frozen=True)
class Geometry:
    """How pictures come to their size: resize, then centre crop, ``keep`` excepted from both.

    With ``cover`` the aspect ratio is kept and the picture just covers ``resize``; without, it gets
    exactly that size.  ``None`` leaves a step out.  With ``box`` a picture is made to fit into that
    size, its aspect ratio kept (a letterbox); what is missing is for ``frame`` to say.
    """

    resize: Size | None = None
    cover: bool = True
    crop: Size | None = None
    keep: Size | None = None
    interpolation: str = "bilinear"
    box: Size | None = None
    centred: bool = True  # in the box; else in its upper left corner

    def apply(self, image: Image.Image, name: str = "image") -> Image.Image:
        """The picture at its new size; ``CalibrationError`` when it is smaller than the crop."""
        size = (image.height, image.width)
        if size == self.keep:
            return image
        if self.box is not None:
            return self._resized(image, _fit(size, self.box), name)
        if self.resize is not None:
            size = _cover(size, self.resize) if self.cover else self.resize
            image = self._resized(image, size, name)
        if self.crop is None or size == self.crop:
            return image
        if size[0] < self.crop[0] or size[1] < self.crop[1]:
            raise CalibrationError(
                f"image '{name}' is {size_text(size)}, smaller than the crop "
                f"{size_text(self.crop)} (height x width): give another --resize or --crop"
            )
        top, left = (round((have - want) / 2) for have, want in zip(size, self.crop, strict=True))
        return image.crop((left, top, left + self.crop[1], top + self.crop[0]))

    def _resized(self, image: Image.Image, size: Size, name: str) -> Image.Image:
        for wanted in (size, self.box or size):
            if problem := _too_large(wanted):
                raise CalibrationError(
                    f"image '{name}' cannot be resized ({problem}): give another --resize, or "
                    "remove it"
                )
        if size == (image.height, image.width):
            return image
        return image.resize(size[::-1], RESAMPLING[self.interpolation])

    def frame(self, size: Size) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows above and below, columns left and right that a picture lacks of its box."""
        if self.box is None:
            return (0, 0), (0, 0)
        lacks = [want - have for want, have in zip(self.box, size, strict=True)]
        before = [n // 2 if self.centred else 0 for n in lacks]
        rows, columns = ((b, n - b) for b, n in zip(before, lacks, strict=True))
        return rows, columns

    def describe(self) -> str:
        """The steps, as a phrase."""
        steps = []
        if self.box is not None:
            where = "centred" if self.centred else "in the upper left corner"
            steps.append(f"fitted into {size_text(self.box)} ({self.interpolation}), {where}")
        if self.resize is not None and self.cover and self.resize[0] == self.resize[1]:
            steps.append(f"shorter side to {self.resize[0]} ({self.interpolation})")
        elif self.resize is not None:
            verb = "cover" if self.cover else "resize to"
            steps.append(f"{verb} {size_text(self.resize)} ({self.interpolation})")
        if self.crop is not None:
            steps.append(f"centre crop {size_text(self.crop)}")
        text = " + ".join(steps) or "size as it is"
        return f"{text} unless {size_text(self.keep)} already" if self.keep else text


def size_text(size: tuple[int | None, int | None]) -> str:
    """A size for people, height first: ``224x224``."""
    return "x".join("?" if s is None else str(s) for s in size)


def _too_large(size: Size) -> str:
    """Why a picture of that size is refused, empty where it is not."""
    if size[0] * size[1] <= PIXELS:
        return ""
    return f"{size_text(size)} pixels are more than {PIXELS // 1_000_000} million"


def _fit(size: Size, box: Size) -> Size:
    """The largest size of the same aspect ratio within ``box``, rounded."""
    (height, width), (bh, bw) = size, box
    ratio = min(bh / height, bw / width)
    return max(1, min(bh, round(height * ratio))), max(1, min(bw, round(width * ratio)))


def _cover(size: Size, target: Size) -> Size:
    """The smallest size of the same aspect ratio that covers ``target``, rounded down."""
    (height, width), (th, tw) = size, target
    if height * tw <= width * th:
        return th, width * th // height
    return height * tw // width, tw
