"""What a sweep measures: model and data, named so that another process can open them, too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort

from asr_onnx.arrays import Outputs
from asr_onnx.data.batches import Batches
from asr_onnx.data.openers import ImageSamples, Samples
from asr_onnx.data.source import CalibrationOptions, LabelOptions, open_data
from asr_onnx.errors import ModelError
from asr_onnx.evaluation.gates import worst_agreement, worst_cosine
from asr_onnx.evaluation.labelled import LabelledData
from asr_onnx.evaluation.match import OutputMatch, compare_outputs
from asr_onnx.execution.session import Device, choose_device
from asr_onnx.graph import model_file
from asr_onnx.graph.class_axes import class_axes
from asr_onnx.machine import Execution
from asr_onnx.provenance import __version__, sha256
from asr_onnx.repairing.job import run_checked


@dataclass(frozen=True, kw_only=True)
class Source(CalibrationOptions, LabelOptions):
    """The model's file, the data and the device, as plain values: another process can open them."""

    model: Path
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        CalibrationOptions.__post_init__(self)
        LabelOptions.__post_init__(self)

    def absolute(self) -> Source:
        """The same with absolute paths, for a process whose current folder is another."""
        names = ("model", "calib", "data", "labels", "classes")
        paths = {n: p.absolute() for n in names if (p := getattr(self, n))}
        script, how = self.data_loader_script, self.preprocess
        return replace(
            self,
            **paths,
            load_inputs=tuple(p.absolute() for p in self.load_inputs),
            data_loader_script=str(Path(script).absolute()) if script else None,
            preprocess=str(Path(how).absolute()) if how and Path(how).is_file() else how,
        )


Metric = Literal["accuracy", "agreement", "cosine"]


@dataclass(frozen=True, eq=False)
class Opened:
    """A source's live objects; ``files`` are the hashes of the model's files by path.

    ``metric`` is what the curve is of.  ``labelled`` is ``None`` without labelled data.
    ``identity`` is everything that a result depends on besides its options, as JSON can hold it;
    ``notes`` are worth knowing.
    """

    source: Source
    proto: onnx.ModelProto
    files: Mapping[str, str]
    batches: Batches
    calib: str
    preprocessing: str
    notes: tuple[str, ...]
    labelled: LabelledData | None
    device: Device
    metric: Metric
    identity: Mapping[str, Any]

    @property
    def checked(self) -> int:
        """Number of calibration samples that outputs are compared on."""
        return self.batches.num_held_out or self.batches.num_solve


def open_source(source: Source) -> Opened:
    """Open model and data, and see what there will be to draw a curve of.

    Raises whatever opening them raises, ``ModelError`` when there are neither labelled data nor
    outputs in numbers.
    """
    proto = model_file.load(source.model).proto
    files = sha256(model_file.files(source.model))
    device = choose_device(source.execution.providers)
    labelled = LabelledData.of(proto, source.model, source, source, device)
    opened = open_data(proto, source.model, source.beside(source.data))
    metric: Metric = "accuracy" if labelled else _metric(proto, opened.batches, device)
    return Opened(
        source, proto, files, opened.batches, opened.path, opened.preprocessing, opened.notes,
        labelled, device, metric, identity(files, opened.batches, labelled, device),
    )  # fmt: skip


def identity(
    files: Mapping[str, str], batches: Batches, labelled: LabelledData | None, device: Device
) -> dict[str, Any]:
    """Everything a result depends on besides its options; ``files`` are the model's, hashed."""
    return {
        "versions": {
            "asr-onnx": __version__,
            "onnxruntime": ort.__version__,
            "numpy": np.__version__,
        },
        "device": str(device),
        "model": sorted(files.values()),
        "calibration": _calibration_identity(batches),
        "data": _labelled_identity(labelled) if labelled else None,
    }


def _metric(proto: onnx.ModelProto, batches: Batches, device: Device) -> Metric:
    """Agreement where the dense model's answers differ, else how alike outputs are."""
    outputs = run_checked(proto, batches, device)
    found = compare(proto, batches, outputs, outputs)
    if worst_agreement(found)[1] is not None:
        return "agreement"
    if worst_cosine(found)[1] is None:
        raise ModelError(
            "no output of the model is in numbers: there is nothing to draw a curve of"
        )
    return "cosine"


def compare(
    proto: onnx.ModelProto, batches: Batches, dense: Sequence[Outputs], other: Sequence[Outputs]
) -> dict[str, OutputMatch]:
    """Outputs for the batches that results are checked on against the dense model's."""
    sizes = [len(b.samples) for b in batches.checked]
    return compare_outputs(dense, other, sizes, class_axes(proto))


def digest(facts: object) -> str:
    """A short name for facts that JSON can hold; other facts, another name."""
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _calibration_identity(batches: Batches) -> dict[str, Any]:
    chosen = (i for b in batches.batches for i in b.samples)
    return {
        "inputs": [str(i) for i in batches.inputs],
        "seed": batches.seed,
        "batches": [[len(b.samples), b.held_out] for b in batches.batches],
        "samples": _samples_digest(batches.samples, chosen),
    }


def _labelled_identity(labelled: LabelledData) -> dict[str, Any]:
    return {
        "output": labelled.output,
        "labels": digest(labelled.labels.values.tolist()),
        "samples": _samples_digest(labelled.samples, range(len(labelled.samples))),
    }


def _samples_digest(samples: Samples, indices: Iterable[int]) -> str:
    """Hash of what is fed: image files and what is done to them, or the arrays themselves."""
    found = hashlib.sha256()
    if isinstance(samples, ImageSamples):
        how = asdict(samples.preprocess.settings), samples.preprocess.describe()
        found.update(json.dumps(how, default=str, sort_keys=True).encode())
        for index in indices:
            (content,) = sha256([samples.paths[index]]).values()
            found.update(f"\n{samples.name(index)} {content}".encode())
        return found.hexdigest()
    for index in indices:
        for name, array in sorted(samples[index].items()):
            found.update(f"\n{name} {array.dtype} {array.shape} ".encode())
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
