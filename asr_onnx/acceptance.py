"""Whether a repaired model may be written: quality gates, and no worse than plain pruning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from asr_onnx.calibration import open_samples
from asr_onnx.compare import Comparison, Progress, compare
from asr_onnx.comparison_report import to_dict
from asr_onnx.errors import CalibrationError
from asr_onnx.gates import Gates, Measured, failures, worst_agreement
from asr_onnx.input_shapes import with_shapes
from asr_onnx.inputs import model_inputs
from asr_onnx.preprocess import Preprocess
from asr_onnx.result import RepairResult, is_worse

_OF_COMPARISON = ("samples", "preprocessing", "labels", "class_output", "topk", "dense")


class LabelledData:
    """Labelled data to tell the accuracy of ``dense`` and of models made of it.

    ``path`` is what ``open_samples`` takes, ``labels`` and ``classes`` are what ``find_labels``
    does, ``shapes`` what ``with_shapes`` does.

    Raises whatever these raise, and ``CalibrationError`` where accuracy cannot be told: better now
    than after the repair.
    """

    def __init__(
        self,
        dense: onnx.ModelProto,
        path: Path,
        labels: Path | None = None,
        classes: Path | None = None,
        preprocess: Preprocess | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        batch_size: int = 32,
        providers: str = "auto",
    ) -> None:
        self.path = path
        self._compare = partial(
            compare,
            dense,
            data=open_samples(path, with_shapes(model_inputs(dense), shapes or {}), preprocess),
            labels=labels,
            classes=classes,
            input_shapes=shapes,
            batch_size=batch_size,
            providers=providers,
            latency=False,
        )
        if self._compare({"dense": dense}, num_samples=1).labels is None:
            raise CalibrationError(
                f"'{path}' tells no accuracy: it takes class folders or --labels, and an output "
                "[samples, classes] of the model"
            )

    def accuracy(
        self, model: onnx.ModelProto, name: str, progress: Progress | None = None
    ) -> Comparison:
        """The model, called ``name``, and the dense one on all of the data."""
        return self._compare({name: model}, progress=progress)


@dataclass(frozen=True)
class Judgement:
    """What speaks against a repaired model.

    ``failed`` has a line for each of ``gates`` that it fails.  ``worse`` is a phrase on how it is
    worse than plain pruning, empty where it is not or may be.
    """

    gates: Gates
    failed: tuple[str, ...] = ()
    worse: str = ""

    @property
    def passed(self) -> bool:
        return not (self.failed or self.worse)

    @property
    def failures(self) -> list[str]:
        """Everything that speaks against the model, one line each."""
        return [*self.failed, *self._worse()]

    def refusal(self, kept: Path | None) -> str:
        """One line for a model that did not pass and was written to ``kept``, if at all."""
        count = len(self.failed)
        gates = [f"{count} quality gate{'s' * (count > 1)} failed"] if count else []
        done = f"the model is kept as '{kept}'" if kept else "no model is written"
        cure = "; give more or better calibration images, less sparsity, or --force"
        return f"{', and '.join([*gates, *self._worse()])}: {done}{'' if count else cure}"

    def _worse(self) -> list[str]:
        text = f"repair did worse than plain pruning on held-out images ({self.worse})"
        return [text] if self.worse else []


def judge(
    result: RepairResult,
    gates: Gates,
    name: str,
    accuracy: Comparison | None = None,
    allow_worse: bool = False,
) -> Judgement:
    """Hold a repaired model, called ``name``, against ``gates`` and against plain pruning.

    Agreement is that on the images held out, accuracy that of ``accuracy``'s only model.
    ``allow_worse`` is about plain pruning; no gate is waived.
    """
    output, agreement = worst_agreement(
        result.repaired_outputs, result.held_out_images or result.solve_images
    )
    measured = Measured(agreement, output=output)
    if accuracy and accuracy.models[0].top1 and accuracy.dense.top1:
        top1, dense = accuracy.models[0].top1.share, accuracy.dense.top1.share
        measured = replace(measured, accuracy=top1, dense_accuracy=dense)
    failed = failures(gates, measured, name)
    worse = "" if allow_worse else is_worse(result.pruned_outputs, result.repaired_outputs)
    return Judgement(gates, tuple(failed), worse)


def told(
    judgement: Judgement, accuracy: Comparison | None = None, data: Path | None = None
) -> dict[str, Any]:
    """Gates, failures and accuracy as JSON can hold them, for the report."""
    found: dict[str, Any] = {
        "gates": asdict(judgement.gates),
        "failures": judgement.failures,
        "accuracy": None,
    }
    if accuracy:
        content = to_dict(accuracy, judgement.gates)
        found["accuracy"] = {
            "data": str(data),
            **{key: content[key] for key in _OF_COMPARISON},
            "repaired": content["models"][0],
        }
    return found
