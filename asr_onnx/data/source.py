"""Data as the command line names it: one of several sources, and what is done to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import onnx

from asr_onnx.data.arrays import ArraySamples
from asr_onnx.data.batches import Batches
from asr_onnx.data.foreign import from_json, from_script
from asr_onnx.data.openers import IMAGES, ImageSamples, Samples, left_out, open_samples
from asr_onnx.data.preprocess import Preprocess
from asr_onnx.data.preprocess_files import (
    FILE_NAME,
    PRESETS,
    combine,
    find_beside,
    load_preprocess,
)
from asr_onnx.declare import fill, flag, option
from asr_onnx.errors import UsageError
from asr_onnx.graph.input_shapes import parse_input_shapes, with_shapes
from asr_onnx.graph.inputs import ModelInput, model_inputs

_LOADERS = ("data_loader_script", "load_inputs")
_IMAGES_ONLY = ("mean", "std", "scale", "color", "layout", "resize", "crop")

Numbers = tuple[float, ...] | str  # "none" leaves a step out
Size = int | tuple[int, int] | str


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """What is done to images; ``None``: what a file says, or the default of ``Preprocess``."""

    preprocess: str | None = option(
        None,
        f"{', '.join(PRESETS)}, a Hugging Face {FILE_NAME}, or a timm data config; the options "
        f"below win.  [default: MODEL's .preprocess.json or {FILE_NAME} next to it]",
        kind="text",
        metavar="FILE|PRESET",
        names_file=tuple(PRESETS),
    )
    mean: Numbers | None = option(
        None, "Per channel, after --scale.  [default: ImageNet's]", kind="numbers"
    )
    std: Numbers | None = option(
        None, "Per channel, after --scale.  [default: ImageNet's]", kind="numbers"
    )
    scale: float | None = option(None, "Factor on pixels 0..255.  [default: 1/255]", kind="number")
    color: str | None = option(None, "[default: rgb]", kind="text", choices=("rgb", "bgr"))
    layout: str | None = option(
        None, "[default: auto]", kind="text", choices=("auto", "nchw", "nhwc")
    )
    resize: Size | None = option(
        None, "Shorter side, H,W, or none.  [default: to fit]", kind="size"
    )
    crop: Size | None = option(
        None, "Centre crop: side, H,W, or none.  [default: to fit]", kind="size"
    )
    pad: str | None = option(
        None,
        "Keep the aspect ratio and fill up with a pixel value, 0 to 255, or the mean, around the "
        "image or below and to the right of it (corner).  [default: no]",
        kind="text",
        metavar="VALUE[:center|corner]",
    )

    def __post_init__(self) -> None:
        fill(self)

    def choose(self, model: Path, images: bool) -> tuple[Preprocess, str | None]:
        """Options first, then ``preprocess``, then for ``images`` a file next to the model.

        The second value is a line that tells of such a file.
        """
        given = {n: v for n in _IMAGES_ONLY if (v := getattr(self, n)) is not None}
        given = {n: None if v == "none" else v for n, v in given.items()}
        if self.pad is not None:
            given |= _parse_pad(self.pad)
        if self.preprocess:
            return load_preprocess(self.preprocess, given), None
        found = find_beside(model) if images else None
        if found is None:
            return combine({}, given), None
        note = f"preprocessing taken from '{found}' next to the model"
        return load_preprocess(found, given), f"{note} (--preprocess chooses another)"

    def without_images(self: Any) -> Any:
        """The same record without what is about images."""
        return replace(self, **{f.name: None for f in fields(ImageOptions)})


@dataclass(frozen=True, kw_only=True)
class InputOptions(ImageOptions):
    """Data that may be something else than images."""

    data_loader_script: str | None = option(
        None,
        "Instead of a folder: a Python function that yields {input name: array}, as Polygraphy's.  "
        "[default function: load_data]",
        kind="text",
        metavar="FILE.py[:FUNC]",
        names_file=(),
    )
    load_inputs: tuple[Path, ...] = option(
        (),
        "Instead of a folder: inputs saved by Polygraphy, JSON or a folder of it; repeatable.",
        kind="path",
        multiple=True,
    )
    input_shapes: tuple[str, ...] = option(
        (),
        "Sizes for dimensions the model leaves open, x:1x3x224x224 or x:[1,3,224,224]; the first "
        "sets the batch size; repeatable.",
        kind="text",
        metavar="NAME:DIMS",
        multiple=True,
    )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by input name; raises ``UsageError`` for what is none."""
        return parse_input_shapes(self.input_shapes)

    def source(self, folder: Path | None, name: str) -> str:
        """The source of data in words, for reports; ``folder`` is that given by option ``name``.

        Raises ``UsageError`` unless just one source is given.
        """
        values = {name: folder, **{flag(n): getattr(self, n) for n in _LOADERS}}
        given = {n: v for n, v in values.items() if v}
        if len(given) != 1:
            raise UsageError(
                f"data: give one of {', '.join(values)}, not {' and '.join(given) or 'nothing'}"
            )
        (value,) = given.values()
        return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)

    def load(self, inputs: Sequence[ModelInput], limit: int | None) -> ArraySamples:
        """What the script or the saved inputs give, fed as it is.

        Of a script no more than needed for ``limit`` samples is read.  Raises ``UsageError`` for
        preprocessing, and what ``from_script`` and ``from_json`` raise.
        """
        if self.without_images() != self:
            name = next(flag(n) for n in _LOADERS if getattr(self, n))
            raise UsageError(f"{name} is fed as it is: leave out the preprocessing")
        if self.data_loader_script:
            return from_script(self.data_loader_script, inputs, limit)
        return from_json(self.load_inputs, inputs)


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions(InputOptions):
    """Calibration data: a folder or another source, and how it is cut into batches."""

    calib: Path | None = option(
        None,
        "Folder of images (class folders are fine), .npy, .npz, a folder of those, or ONNX test "
        "data (test_data_set_*).",
        kind="path",
    )
    num_samples: int = option(512, "Samples drawn.", kind="positive")
    batch_size: int = option(32, "Samples run at a time.", kind="positive")
    seed: int = option(0, "Of the draw.", kind="natural")
    holdout: float = option(
        0.2,
        "Share of the samples that is not solved on but used to check the result.",
        kind="share",
    )

    def check(self) -> None:
        """Raise ``UsageError`` unless just one source is given."""
        self.source(self.calib, "--calib")

    def beside(self, data: Path | None) -> CalibrationOptions:
        """The same without preprocessing that is meant for the images of ``data`` alone."""
        mine = self.calib is not None and holds_images(self.calib)
        found: CalibrationOptions = self
        if data is not None and holds_images(data) and not mine:
            found = self.without_images()
        return found


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Labelled data.  Raises ``UsageError`` for labels of no data."""

    data: Path | None = option(
        None,
        "Labelled data to tell the accuracy on, before and after: as --calib, but not used for the "
        "repair.",
        kind="path",
    )
    labels: Path | None = option(
        None,
        "CSV or JSON of file -> label (an index, or a name among --classes); or labels in the "
        "order of the samples, .npy of indices or a JSON list.  [default: the class folders]",
        kind="path",
    )
    classes: Path | None = option(
        None,
        "Names of the class folders in the order of their labels, one per line, or a JSON list.",
        kind="path",
    )

    def __post_init__(self) -> None:
        fill(self)
        for name in ("labels", "classes"):
            if getattr(self, name) and not self.data:
                raise UsageError(f"{flag(name)} is about labelled data: give --data, too")


@dataclass(frozen=True)
class DataSource:
    """Calibration data, where they come from, what is done to them; ``notes`` are worth knowing."""

    batches: Batches
    path: str
    preprocessing: str
    notes: tuple[str, ...] = ()


def open_data(proto: onnx.ModelProto, model: Path, options: CalibrationOptions) -> DataSource:
    """The calibration data that ``options`` name, for the model read from the file ``model``.

    Raises ``UsageError`` unless just one source is given, and whatever that source raises.
    """
    path = options.source(options.calib, "--calib")
    inputs = with_shapes(model_inputs(proto), options.shapes)
    note = None
    samples: Samples
    if options.calib:
        preprocess, note = options.choose(model, images=holds_images(options.calib))
        samples = open_samples(options.calib, inputs, preprocess)
    else:
        samples = options.load(inputs, options.num_samples)
    batches = Batches(
        samples,
        inputs,
        batch_size=options.batch_size,
        num_samples=options.num_samples,
        seed=options.seed,
        holdout=options.holdout,
    )
    ignored = left_out(options.calib) if options.calib else None
    return DataSource(batches, path, describe(samples), tuple(filter(None, (note, ignored))))


def _parse_pad(text: str) -> dict[str, Any]:
    """``114`` or ``114:corner`` as settings of ``Preprocess``."""
    value, _, place = text.partition(":")
    try:
        pad = value if value == "mean" else float(value)
        return {"pad": pad, "pad_at": place or "center"}
    except ValueError:
        raise UsageError(f"pad '{text}' is not VALUE[:center|corner], such as 114") from None


def describe(samples: Samples) -> str:
    """What is done to the samples, in words; samples of other kinds may ``describe`` it."""
    if isinstance(samples, ImageSamples):
        return samples.preprocess.describe()
    own = getattr(samples, "describe", None)
    return str(own()) if own else "arrays as they are"


def holds_images(path: Path) -> bool:
    """Whether the path is a folder with images somewhere in it."""
    return path.is_dir() and any(p.suffix.lower() in IMAGES for p in path.rglob("*"))
