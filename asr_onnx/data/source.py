"""Data as the command line names it: one of several sources, and what is done to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from asr_onnx.data.arrays import ArraySamples
from asr_onnx.data.batches import Calibration, ImageSamples, Samples, open_samples
from asr_onnx.data.foreign import from_json, from_script
from asr_onnx.data.openers import IMAGES
from asr_onnx.data.preprocess import Preprocess
from asr_onnx.data.preprocess_files import combine, find_beside, load_preprocess
from asr_onnx.errors import UsageError
from asr_onnx.graph.input_shapes import parse_input_shapes, with_shapes
from asr_onnx.graph.inputs import ModelInput, model_inputs

_LOADERS = ("data_loader_script", "load_inputs")
_PREPROCESS = ("mean", "std", "scale", "color", "layout", "resize", "crop")
_CALIBRATION = ("batch_size", "num_samples", "seed", "holdout")


@dataclass(frozen=True)
class DataSource:
    """Calibration data, where they come from, what is done to them; ``note`` tells of a choice."""

    calibration: Calibration
    path: str
    preprocessing: str
    note: str | None = None


def source_problem(settings: Mapping[str, Any], folder: str = "calib") -> str | None:
    """What to say unless just one source of data is given; ``folder`` is the option for a path."""
    names = (folder, *_LOADERS)
    given = [_option(n) for n in names if settings[n]]
    if len(given) == 1:
        return None
    known = ", ".join(map(_option, names))
    return f"data: give one of {known}, not {' and '.join(given) or 'nothing'}"


def source_path(settings: Mapping[str, Any], folder: str = "calib") -> str:
    """The path or paths given as the source of data, for reports."""
    value = next(settings[n] for n in (folder, *_LOADERS) if settings[n])
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def open_data(proto: onnx.ModelProto, model: Path, settings: Mapping[str, Any]) -> DataSource:
    """The data the options in ``settings`` name, for the model read from the file ``model``.

    ``settings`` has the options by parameter name; those left out are ``None`` or empty.
    Raises ``UsageError`` unless just one source is given, and whatever that source raises.
    """
    if problem := source_problem(settings):
        raise UsageError(problem)
    inputs = with_shapes(model_inputs(proto), parse_input_shapes(settings["input_shapes"]))
    path, note, how = settings["calib"], None, "arrays as they are"
    samples: Samples
    if path:
        preprocess, note = choose_preprocess(model, settings, images=holds_images(path))
        samples = open_samples(path, inputs, preprocess)
    else:
        samples = load_samples(settings, inputs, settings["num_samples"])
    if isinstance(samples, ImageSamples):
        how = samples.preprocess.describe()
    calibration = Calibration(samples, inputs, **{n: settings[n] for n in _CALIBRATION})
    return DataSource(calibration, source_path(settings), how, note)


def load_samples(
    settings: Mapping[str, Any], inputs: Sequence[ModelInput], limit: int | None
) -> ArraySamples:
    """What the script or the saved inputs in ``settings`` give, fed as it is.

    Of a script no more than needed for ``limit`` samples is read.  Raises ``UsageError`` for
    preprocessing, and what ``from_script`` and ``from_json`` raise.
    """
    name = next(n for n in _LOADERS if settings[n])
    if without_preprocess(settings) != settings:
        raise UsageError(f"{_option(name)} is fed as it is: leave out the preprocessing")
    if name == "data_loader_script":
        return from_script(settings[name], inputs, limit)
    return from_json(settings[name], inputs)


def without_preprocess(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that are about images."""
    return {**settings, **dict.fromkeys(("preprocess", *_PREPROCESS))}


def for_calibration(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings, without preprocessing that is meant for the images of ``data`` alone."""
    calib, data = settings["calib"], settings["data"]
    for_data = data and holds_images(data) and not (calib and holds_images(calib))
    return without_preprocess(settings) if for_data else settings


def choose_preprocess(
    model: Path, settings: Mapping[str, Any], images: bool
) -> tuple[Preprocess, str | None]:
    """Options first, then ``--preprocess``, then for ``images`` a file next to the model."""
    given = {n: settings[n] for n in _PREPROCESS if settings[n] is not None}
    given = {n: None if v == "none" else v for n, v in given.items()}
    if settings["preprocess"]:
        return load_preprocess(settings["preprocess"], given), None
    found = find_beside(model) if images else None
    if found is None:
        return combine({}, given), None
    note = f"preprocessing taken from '{found}' next to the model (--preprocess chooses another)"
    return load_preprocess(found, given), note


def holds_images(path: Path) -> bool:
    """Whether the path is a folder with images somewhere in it."""
    return path.is_dir() and any(p.suffix.lower() in IMAGES for p in path.rglob("*"))


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
