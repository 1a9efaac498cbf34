"""Calibration data as the command line names it: one of several sources, and what is done to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from asr_onnx.calibration import Calibration, ImageSamples, Samples, open_samples
from asr_onnx.errors import UsageError
from asr_onnx.input_shapes import parse_input_shapes, with_shapes
from asr_onnx.inputs import ModelInput, model_inputs
from asr_onnx.loaders import from_json, from_script
from asr_onnx.preprocess import Preprocess
from asr_onnx.preprocess_files import combine, find_beside, load_preprocess
from asr_onnx.samples import IMAGES

_SOURCES = {
    "calib": "--calib",
    "data_loader_script": "--data-loader-script",
    "load_inputs": "--load-inputs",
}
_PREPROCESS = ("mean", "std", "scale", "color", "layout", "resize", "crop")
_CALIBRATION = ("batch_size", "num_samples", "seed", "holdout")


@dataclass(frozen=True)
class DataSource:
    """Calibration data, where they come from, what is done to them; ``note`` tells of a choice."""

    calibration: Calibration
    path: str
    preprocessing: str
    note: str | None = None


def source_problem(settings: Mapping[str, Any]) -> str | None:
    """What to say unless just one source of data is given."""
    given = [_SOURCES[n] for n in _given(settings)]
    if len(given) == 1:
        return None
    known = ", ".join(_SOURCES.values())
    return f"calibration data: give one of {known}, not {' and '.join(given) or 'nothing'}"


def open_data(proto: onnx.ModelProto, model: Path, settings: Mapping[str, Any]) -> DataSource:
    """The data the options in ``settings`` name, for the model read from the file ``model``.

    ``settings`` has the options by parameter name; those left out are ``None`` or empty.
    Raises ``UsageError`` unless just one source is given, and whatever that source raises.
    """
    if problem := source_problem(settings):
        raise UsageError(problem)
    source = _given(settings)[0]
    inputs = with_shapes(model_inputs(proto), parse_input_shapes(settings["input_shapes"]))
    value = settings[source]
    path = ", ".join(map(str, value)) if source == "load_inputs" else str(value)
    preprocess, note = choose_preprocess(
        model, settings, images=source == "calib" and holds_images(value)
    )
    samples: Samples
    if source == "calib":
        samples = open_samples(value, inputs, preprocess)
    else:
        if preprocess != Preprocess():
            raise UsageError(f"{_SOURCES[source]} is fed as it is: leave out the preprocessing")
        samples = _loaded(source, value, inputs, settings["num_samples"])
    how = "arrays as they are"
    if isinstance(samples, ImageSamples):
        how = samples.preprocess.describe()
    calibration = Calibration(samples, inputs, **{n: settings[n] for n in _CALIBRATION})
    return DataSource(calibration, path, how, note)


def _given(settings: Mapping[str, Any]) -> list[str]:
    return [name for name in _SOURCES if settings[name]]


def _loaded(kind: str, value: Any, inputs: tuple[ModelInput, ...], limit: int) -> Samples:
    if kind == "data_loader_script":
        return from_script(value, inputs, limit)
    return from_json(value, inputs)


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
