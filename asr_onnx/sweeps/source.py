"""What a sweep measures: model and data, named so that another process can open them, too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from asr_onnx import __version__
from asr_onnx.data.batches import Calibration, Samples
from asr_onnx.data.openers import ImageSamples
from asr_onnx.data.source import for_calibration, open_data
from asr_onnx.errors import ModelError, UsageError
from asr_onnx.evaluation.gates import worst_agreement
from asr_onnx.evaluation.labelled import LabelledData
from asr_onnx.evaluation.outputs import compare_outputs
from asr_onnx.execution.session import Device, Runner, choose_device
from asr_onnx.graph import model_file as models
from asr_onnx.provenance import sha256


@dataclass(frozen=True)
class Source:
    """The model's file and the data, as plain values named like the command line's options.

    ``calib`` or one of the two after it are calibration data, ``data`` is labelled.
    """

    model: Path
    calib: Path | None = None
    data_loader_script: str | None = None
    load_inputs: tuple[Path, ...] = ()
    input_shapes: tuple[str, ...] = ()
    num_samples: int = 512
    batch_size: int = 32
    seed: int = 0
    holdout: float = 0.2
    preprocess: str | None = None
    mean: tuple[float, ...] | str | None = None
    std: tuple[float, ...] | str | None = None
    scale: float | None = None
    color: str | None = None
    layout: str | None = None
    resize: int | tuple[int, int] | str | None = None
    crop: int | tuple[int, int] | str | None = None
    data: Path | None = None
    labels: Path | None = None
    classes: Path | None = None
    providers: str = "auto"

    def __post_init__(self) -> None:
        for name in ("labels", "classes"):
            if getattr(self, name) and not self.data:
                raise UsageError(f"--{name} is about labelled data: give --data, too")

    @property
    def settings(self) -> dict[str, Any]:
        """The values by name, as ``open_data`` takes them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

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


@dataclass(frozen=True, eq=False)
class Opened:
    """A source's live objects; ``files`` are the hashes of the model's files by path.

    ``labelled`` is ``None`` without labelled data.  ``identity`` is everything that a result
    depends on besides its options, as JSON can hold it; ``note`` tells of a choice that was made.
    """

    source: Source
    proto: onnx.ModelProto
    files: Mapping[str, str]
    calibration: Calibration
    calib: str
    preprocessing: str
    note: str | None
    labelled: LabelledData | None
    device: Device
    identity: Mapping[str, Any]

    @property
    def checked(self) -> int:
        """Number of calibration samples that agreement is told of."""
        return self.calibration.num_held_out or self.calibration.num_solve


def open_source(source: Source) -> Opened:
    """Open model and data, and see that there will be something to draw a curve of.

    Raises whatever opening them raises, ``ModelError`` when there are neither labelled data nor
    classes to agree on.
    """
    proto = models.load(source.model).proto
    files = sha256(models.files(source.model))
    device = choose_device(source.providers)
    settings = source.settings
    labelled = LabelledData.of(proto, source.model, settings, device)
    opened = open_data(proto, source.model, for_calibration(settings))
    if labelled is None:
        _check_classes(proto, opened.calibration, device)
    identity = {
        "versions": {
            "asr-onnx": __version__,
            "onnxruntime": ort.__version__,
            "numpy": np.__version__,
        },
        "device": str(device),
        "model": sorted(files.values()),
        "calibration": _calibration_identity(opened.calibration),
        "data": _labelled_identity(labelled) if labelled else None,
    }
    return Opened(
        source, proto, files, opened.calibration, opened.path, opened.preprocessing, opened.note,
        labelled, device, identity,
    )  # fmt: skip


def _check_classes(proto: onnx.ModelProto, calibration: Calibration, device: Device) -> None:
    batch = calibration.batches[0]
    outputs = Runner(proto, device).run(calibration.feeds(batch))
    if worst_agreement(compare_outputs(outputs, outputs), len(batch.samples))[1] is None:
        raise ModelError(
            "no output of the model has classes along axis 1, so there is neither accuracy nor "
            "agreement to draw a curve of: repair tells how far outputs are off"
        )


def digest(facts: object) -> str:
    """A short name for facts that JSON can hold; other facts, another name."""
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _calibration_identity(calibration: Calibration) -> dict[str, Any]:
    chosen = (i for b in calibration.batches for i in b.samples)
    return {
        "inputs": [str(i) for i in calibration.inputs],
        "seed": calibration.seed,
        "batches": [[len(b.samples), b.held_out] for b in calibration.batches],
        "samples": _samples_digest(calibration.samples, chosen),
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
