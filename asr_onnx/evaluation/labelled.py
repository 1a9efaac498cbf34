"""Labelled data: the top-1 accuracy of a dense model and of models made of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from asr_onnx.data.batches import Batches
from asr_onnx.data.labels import find_labels
from asr_onnx.data.openers import Samples, open_samples
from asr_onnx.data.part import Part
from asr_onnx.data.preprocess import Preprocess
from asr_onnx.data.source import CalibrationOptions, LabelOptions, holds_images
from asr_onnx.errors import CalibrationError
from asr_onnx.evaluation.comparison import CompareOptions, Comparison, compare
from asr_onnx.evaluation.lineup import line_up
from asr_onnx.evaluation.outputs import class_scores
from asr_onnx.execution.session import Device
from asr_onnx.graph.input_shapes import with_shapes
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.machine import Execution
from asr_onnx.maths.intervals import Accuracy, Hits, accuracy, top_hits
from asr_onnx.parallel import Progress


class LabelledData:
    """Labelled ``samples``, and what ``compare`` says the ``dense`` model's class output is.

    ``data`` are samples, or what ``open_samples`` takes, ``labels`` and ``classes`` are what
    ``find_labels`` takes, ``shapes`` what ``with_shapes`` does.

    Raises whatever these raise, and ``CalibrationError`` where accuracy cannot be told: better now
    than after the repair.
    """

    def __init__(
        self,
        dense: onnx.ModelProto,
        data: Path | Samples,
        labels: object = None,
        classes: Path | None = None,
        preprocess: Preprocess | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        batch_size: int = 32,
        device: Device | None = None,
    ) -> None:
        self._dense, self._shapes, self._batch_size = dense, shapes or {}, batch_size
        self._device = device or Device()
        inputs = with_shapes(model_inputs(dense), self._shapes)
        what = "labelled data given" if isinstance(data, Samples) else f"'{data}'"
        self.samples = data if isinstance(data, Samples) else open_samples(data, inputs, preprocess)
        self._compare = partial(
            compare,
            dense,
            data=self.samples,
            labels=labels,
            classes=classes,
            input_shapes=self._shapes,
            execution=Execution(providers=str(self._device)),
        )
        how = CompareOptions(batch_size=batch_size, latency=False)
        probe = self._compare({"dense": dense}, options=replace(how, num_samples=1))
        found = find_labels(labels, self.samples, classes)
        if found is None or probe.labels is None or probe.class_output is None:
            raise CalibrationError(
                f"{what} tells no accuracy: it takes class folders or --labels, and an output "
                "[samples, classes] of the model"
            )
        self.labels, self.output, self._how = found, probe.class_output, how
        self.preprocessing = probe.preprocessing

    @classmethod
    def of(
        cls,
        dense: onnx.ModelProto,
        model: Path,
        labels: LabelOptions,
        how: CalibrationOptions,
        device: Device,
    ) -> LabelledData | None:
        """What the options name; ``None`` without ``--data``.

        ``how`` tells what is done to images; ``model`` is the file the model was read from:
        preprocessing may lie next to it.
        """
        if labels.data is None:
            return None
        images = holds_images(labels.data)
        return cls(
            dense,
            labels.data,
            labels.labels,
            labels.classes,
            how.choose(model, images=True)[0] if images else None,
            how.shapes,
            how.batch_size,
            device,
        )

    def compare(
        self, models: Mapping[str, onnx.ModelProto], progress: Progress | None = None
    ) -> Comparison:
        """The models and the dense one on all of the data."""
        return self._compare(models, options=self._how, progress=progress)

    def top1(
        self, models: Mapping[str, onnx.ModelProto], progress: Progress | None = None
    ) -> dict[str, Accuracy]:
        """Accuracy on all of the data of each model; see ``hits``."""
        return {name: accuracy(h) for name, h in self.hits(models, progress=progress).items()}

    def hits(
        self,
        models: Mapping[str, onnx.ModelProto],
        indices: Sequence[int] | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Hits]:
        """Where each model is right, side by side, on the samples at ``indices``, or on all.

        Raises ``ModelError`` for a model that does not fit the dense one, ``CalibrationError`` for
        a sample that cannot be used.
        """
        lineup = line_up(self._dense, models, self._device, self._shapes)
        lineup = replace(lineup, entries=lineup.entries[1:])
        chosen = range(len(self.samples)) if indices is None else indices
        data = Batches(
            self.samples if indices is None else Part(self.samples, indices),
            lineup.inputs,
            batch_size=lineup.batch or self._batch_size,
            num_samples=sys.maxsize,
            holdout=0.0,
        )
        found = {entry.name: np.zeros(len(chosen), np.bool_) for entry in lineup.entries}
        labels = self.labels.values[np.asarray(chosen)]
        for batch in data.batches:
            if progress:
                progress(batch.index, len(data), "batches of the labelled data")
            places = list(batch.samples)
            results = lineup.run(data.feeds(batch))
            for entry, outputs in zip(lineup.entries, results, strict=True):
                scores = class_scores(outputs[self.output], len(places))
                assert scores is not None, "a lineup's models have the same outputs"
                found[entry.name][places] = top_hits(scores, labels[places], 1)
        return found
