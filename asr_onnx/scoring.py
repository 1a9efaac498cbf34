"""Top-1 accuracy of a dense model and of models made of it, each model run only once."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from asr_onnx.calibration import Calibration, model_inputs, open_samples
from asr_onnx.compare import Progress, compare
from asr_onnx.errors import CalibrationError
from asr_onnx.input_shapes import with_shapes
from asr_onnx.labels import find_labels
from asr_onnx.lineup import line_up
from asr_onnx.preprocess import Preprocess
from asr_onnx.sessions import Device
from asr_onnx.statistics import Accuracy, Hits, accuracy, top_hits


class Scorer:
    """Labelled data, and what ``compare`` says the ``dense`` model's class output is.

    ``path`` is what ``open_samples`` takes, ``labels`` and ``classes`` are what ``find_labels``
    does, ``shapes`` what ``with_shapes`` does.

    Raises whatever these raise, and ``CalibrationError`` where accuracy cannot be told.
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
        device: Device | None = None,
    ) -> None:
        self._dense, self._shapes, self._batch_size = dense, shapes or {}, batch_size
        self._device = device or Device()
        self.samples = open_samples(
            path, with_shapes(model_inputs(dense), self._shapes), preprocess
        )
        probe = compare(
            dense,
            {"dense": dense},
            self.samples,
            labels,
            classes=classes,
            input_shapes=self._shapes,
            num_samples=1,
            batch_size=batch_size,
            providers=str(self._device),
            latency=False,
        )
        found = find_labels(labels, self.samples, classes)
        if found is None or probe.labels is None or probe.class_output is None:
            raise CalibrationError(
                f"'{path}' tells no accuracy: it takes class folders or --labels, and an output "
                "[samples, classes] of the model"
            )
        self.labels, self.output = found, probe.class_output
        self.preprocessing = probe.preprocessing

    def top1(
        self, models: Mapping[str, onnx.ModelProto], progress: Progress | None = None
    ) -> dict[str, Accuracy]:
        """Accuracy on all of the data of each model, side by side; the names are for errors, too.

        Raises ``ModelError`` for a model that does not fit the dense one, ``CalibrationError`` for
        a sample that cannot be used.
        """
        lineup = line_up(self._dense, models, self._device, self._shapes)
        lineup = replace(lineup, entries=lineup.entries[1:])
        data = Calibration(
            self.samples,
            lineup.inputs,
            batch_size=lineup.batch or self._batch_size,
            num_samples=sys.maxsize,
            holdout=0.0,
        )
        hits: dict[str, list[Hits]] = {entry.name: [] for entry in lineup.entries}
        for batch in data.batches:
            if progress:
                progress(batch.index, len(data), "batches of the labelled data")
            labels = self.labels.values[list(batch.samples)]
            results = lineup.run(data.feeds(batch))
            for entry, outputs in zip(lineup.entries, results, strict=True):
                scores = outputs[self.output]
                hits[entry.name].append(top_hits(scores.reshape(len(scores), -1), labels, 1))
        return {name: accuracy(np.concatenate(parts)) for name, parts in hits.items()}
