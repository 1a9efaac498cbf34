"""The images a network was fed, preprocessed in other ways people commonly mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asr_onnx.arrays import AnyArray
from asr_onnx.data.batches import Batches
from asr_onnx.data.openers import ImageSamples
from asr_onnx.data.preprocess import Preprocess, ResolvedPreprocess
from asr_onnx.data.preprocess_files import PRESETS, Settings, combine
from asr_onnx.errors import AsrError
from asr_onnx.graph.inputs import ModelInput

FeedsList = Sequence[dict[str, AnyArray]]

# Options by the settings they give; means are Caffe's, in RGB order.
_USUAL: tuple[tuple[str, Settings], ...] = (
    *((f"--preprocess {name}", settings) for name, settings in PRESETS.items()),
    ("--mean none --std none", {"mean": None, "std": None, "scale": 1 / 255}),
    (
        "--scale 1 --mean {mean} --std none",
        {"mean": (123.68, 116.779, 103.939), "std": None, "scale": 1.0},
    ),
)


@dataclass(frozen=True)
class FedImages:
    """Batches with one image input.

    ``known``: ``used`` is what was done to images; otherwise it is a guess about arrays.
    """

    feeds: FeedsList
    input: ModelInput
    used: ResolvedPreprocess
    known: bool

    @classmethod
    def of(cls, calibration: Batches, feeds: FeedsList) -> FedImages | None:
        """``None`` when no input, or more than one, takes images."""
        if isinstance(calibration.samples, ImageSamples):
            used = calibration.samples.preprocess
            return cls(feeds, used.input, used, known=True)
        found = []
        for i in calibration.inputs:
            try:
                found.append(cls(feeds, i, Preprocess().resolve(i), known=False))
            except AsrError:
                continue  # it takes something else
        return found[0] if len(found) == 1 else None

    def other_order(self) -> tuple[str, FeedsList] | None:
        """The colours in the other order, each with its mean and deviation, and how to get that.

        ``None`` for grey images.
        """
        if self.used.channels != 3:
            return None
        color = "rgb" if self.used.settings.color == "bgr" else "bgr"
        text = f"--color {color}" if self.known else "the colour channels reversed"
        return text, self._with([np.flip(a, self._axis) for a in self._arrays()])

    def others(self) -> Iterator[tuple[str, FeedsList]]:
        """Every usual preprocessing of the same pixels in both colour orders, and its options."""
        pixels = self._pixels()
        for text, settings in _USUAL if pixels else ():
            for color in ("rgb", "bgr") if self.used.channels == 3 else ("rgb",):
                given = {"color": color, "layout": self.used.settings.layout}
                try:
                    how = combine(settings, given).resolve(self.input).settings
                except AsrError:
                    continue  # three means for one channel
                mean = ",".join(f"{m:g}" for m in how.mean or ())
                told = text.format(mean=mean)
                if color != self.used.settings.color:
                    told += f" --color {color}"
                yield told, self._with([self._preprocessed(p, how) for p in pixels or ()])

    @property
    def _axis(self) -> int:
        return 1 if self.used.settings.layout == "nchw" else 3

    def _arrays(self) -> list[AnyArray]:
        return [f[self.input.name] for f in self.feeds]

    def _with(self, arrays: Sequence[AnyArray]) -> FeedsList:
        return [
            {**f, self.input.name: np.ascontiguousarray(a, self.input.dtype)}
            for f, a in zip(self.feeds, arrays, strict=True)
        ]

    def _pixels(self) -> list[AnyArray] | None:
        """RGB pixels 0..255; of arrays a guess, ``None`` where none can be made."""
        if self.input.dtype.kind != "f":
            return None
        if self.known:
            return [self._undone(a) for a in self._arrays()]
        arrays = [a.astype(np.float32) for a in self._arrays()]
        low, high = min(float(a.min()) for a in arrays), max(float(a.max()) for a in arrays)
        if low < 0 or high > 255:
            return None
        return [a * 255 for a in arrays] if high <= 1 else arrays

    def _undone(self, array: AnyArray) -> AnyArray:
        s = self.used.settings
        mean, std = self._constants(s)
        pixels = np.rint((array.astype(np.float32) * std + mean) / np.float32(s.scale))
        return np.flip(pixels, self._axis) if s.color == "bgr" else pixels

    def _preprocessed(self, pixels: AnyArray, how: Preprocess) -> AnyArray:
        mean, std = self._constants(how)
        ordered = np.flip(pixels, self._axis) if how.color == "bgr" else pixels
        return np.asarray((ordered * np.float32(how.scale) - mean) / std)

    def _constants(self, how: Preprocess) -> tuple[AnyArray, AnyArray]:
        shape = (-1, 1, 1) if self._axis == 1 else (-1,)
        values = (how.mean or (0.0,), how.std or (1.0,))
        mean, std = (np.array(v, np.float32).reshape(shape) for v in values)
        return mean, std
