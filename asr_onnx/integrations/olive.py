"""A pass for Microsoft Olive: prune a network, and repair what that broke.

Olive finds it by a package config, which ``package`` gives; see docs/guides/olive.md.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from olive.common.config_utils import validate_config
from olive.common.utils import format_data
from olive.data.config import DataConfig
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.onnx.common import model_proto_to_olive_model
from olive.passes.pass_config import PassConfigParam

from asr_onnx.arrays import AnyArray
from asr_onnx.data.arrays import ArraySamples
from asr_onnx.data.batches import Batches
from asr_onnx.data.enough import check_enough
from asr_onnx.data.source import open_data
from asr_onnx.errors import AsrError, CalibrationError, QualityError
from asr_onnx.evaluation.labelled import LabelledData
from asr_onnx.evaluation.preflight import check_preprocessing
from asr_onnx.execution.session import Device, choose_device
from asr_onnx.graph.input_shapes import with_shapes
from asr_onnx.graph.inputs import ModelInput, count_samples, model_inputs
from asr_onnx.graph.model_file import LoadedModel, files, load
from asr_onnx.graph.saving import save
from asr_onnx.integrations.olive_options import (
    CALIBRATION,
    LABELLED,
    Asked,
    parameters,
    spelled,
)
from asr_onnx.pipeline import repair
from asr_onnx.repairing.gate_judge import GateJudge
from asr_onnx.repairing.result import RepairResult
from asr_onnx.repairing.verdict import Judgement, judge
from asr_onnx.reports import repair_tables
from asr_onnx.sweeps.automatic import repair_auto

log = logging.getLogger("olive.asr_onnx")  # below Olive's own, whose level and place it takes


class RepairFailed(AsrError, ValueError):
    """What ends the pass, in one line.

    A ``ValueError`` ends a run of Olive's with an exit code, and is not kept in its cache; in a
    search it ends the one candidate.
    """


class AsrRepair(Pass):
    """Zero the smallest weights of an ONNX CNN and repair what that broke, without training."""

    @classmethod
    def _default_config(cls, accelerator_spec: Any) -> dict[str, PassConfigParam]:
        return parameters()

    @classmethod
    def get_config_params(
        cls,
        accelerator_spec: Any,
        config: dict[str, Any] | None = None,
        disable_search: bool | None = False,
    ) -> Any:
        """As ``Pass`` does it, after a check of what is given; Olive only warns of unknown names.

        Raises ``RepairFailed`` for options that are invalid.
        """
        _asked(config if isinstance(config, dict | None) else config.model_dump())
        return super().get_config_params(accelerator_spec, config, disable_search)

    @classmethod
    def validate_config(cls, config: Any, accelerator_spec: Any) -> bool:
        """Whether the options go together; those that a search put together may not."""
        try:
            Asked.of(config.model_dump())
        except AsrError as error:
            log.warning(spelled(str(error)))
            return False
        return True

    def _run_for_config(self, model: Any, config: Any, output_model_path: str) -> ONNXModelHandler:
        if not isinstance(model, ONNXModelHandler):
            raise RepairFailed(
                f"AsrRepair takes an ONNX model, not a {type(model).__name__}: put a pass that "
                "exports it, such as OnnxConversion, in front"
            )
        settings = config.model_dump()
        target = Path(resolve_onnx_path(output_model_path))
        try:
            loaded = load(model.model_path, in_place=True)
            result = _repaired(model, loaded, settings, target.name)
            return _written(result, loaded, settings, target)
        except AsrError as error:
            raise RepairFailed(spelled(str(error))) from None


def package() -> dict[str, Any]:
    """Olive's own package config, of the Olive that is installed, with this pass in it."""
    path = Path(OlivePackageConfig.get_default_config_path())
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    found["passes"]["AsrRepair"] = {
        "module_path": f"{AsrRepair.__module__}.{AsrRepair.__name__}",
        "supported_providers": ["*"],
        "supported_accelerators": ["*"],
        "supported_precisions": ["*"],
        "dataset": "dataset_required",
        "module_dependencies": ["asr-onnx"],
    }
    return found


def write_package(path: str | Path) -> None:
    """Write ``package`` as JSON, for ``olive run --package-config``."""
    Path(path).write_text(json.dumps(package(), indent=4) + "\n", encoding="utf-8")


def _asked(config: Mapping[str, Any] | None) -> Asked:
    """What the config asks for; raises ``RepairFailed``."""
    try:
        return Asked.of(config or {})
    except AsrError as error:
        raise RepairFailed(spelled(str(error))) from None


def _repaired(
    model: ONNXModelHandler, loaded: LoadedModel, settings: Mapping[str, Any], name: str
) -> RepairResult:
    """The repair that the settings ask for, called ``name``; what the command line would do.

    Raises ``QualityError`` for a model that fails a gate, or is worse than plain pruning.
    """
    asked, proto = Asked.of(settings), loaded.proto
    device = choose_device(asked.execution.providers)
    batches = _batches(model, proto, asked, settings)
    warnings = check_enough(batches, asked.allow_worse)
    labelled = _labelled(model, proto, asked, settings, device)
    if misfit := check_preprocessing(proto, batches, device):
        warnings.append(misfit)
    for line in warnings:
        log.warning(spelled(line))

    def judged(found: RepairResult) -> Judgement:
        ask = labelled and asked.gates.label_gates
        accuracy = labelled.compare({name: found.model}) if labelled and ask else None
        return judge(found, asked.gates, name, accuracy, asked.allow_worse)

    failures: tuple[Any, ...] = ()
    if asked.amount:
        judging = GateJudge(
            asked.gates, proto, batches, labelled, asked.figures, device, name, batches.seed,
            asked.allow_worse,
        )  # fmt: skip
        search = repair_auto(
            proto, batches, judging, asked.options, amount=asked.amount,
            steps=asked.automatic.auto_steps, figures=asked.figures, execution=asked.execution,
        )  # fmt: skip
        result, failures = search.result, tuple(search.failures)
    else:
        result = repair(
            proto, batches, asked.options, figures=asked.figures, execution=asked.execution,
            accept=lambda found: judged(found).passed,
        )  # fmt: skip
    judgement = judged(result).also(failures)
    if not judgement.passed:
        reasons = "; ".join(map(str, judgement.failures))
        raise QualityError(f"no model is written: {reasons}")
    for line in repair_tables.summary(result, judgement, Path(name)):
        log.info(spelled(line))
    for line in repair_tables.remarks(result):
        log.warning(spelled(line))
    return result


def _batches(
    model: ONNXModelHandler, proto: onnx.ModelProto, asked: Asked, settings: Mapping[str, Any]
) -> Batches:
    """The calibration data: those of the command line's options, or of a data config."""
    how, config = asked.calibration.beside(asked.labels.data), settings.get(CALIBRATION)
    if config is None:
        source = open_data(proto, Path(model.model_path), how)
        for note in (f"calibration data: {source.preprocessing}", *source.notes):
            log.info(spelled(note))
        return source.batches
    inputs, feeds, samples = with_shapes(model_inputs(proto), how.shapes), [], 0
    for batch, _ in _of_olive(config, model):
        feeds.append(batch)
        samples += _count(batch, inputs)
        if samples >= how.num_samples:  # the data may be those of a whole training set
            break
    return Batches(
        ArraySamples.from_batches(feeds, inputs),
        inputs,
        batch_size=how.batch_size,
        num_samples=how.num_samples,
        seed=how.seed,
        holdout=how.holdout,
    )


def _labelled(
    model: ONNXModelHandler,
    proto: onnx.ModelProto,
    asked: Asked,
    settings: Mapping[str, Any],
    device: Device,
) -> LabelledData | None:
    """The labelled data, if there are any."""
    how, config = asked.calibration, settings.get(LABELLED)
    if config is None:
        return LabelledData.of(proto, Path(model.model_path), asked.labels, how, device)
    inputs = with_shapes(model_inputs(proto), how.shapes)
    found = list(_of_olive(config, model))
    if not found or any(labels is None for _, labels in found):
        raise CalibrationError(f"{LABELLED} gives no labels: batches are (inputs, labels)")
    labels = np.concatenate([np.atleast_1d(np.asarray(labels)) for _, labels in found])
    samples = ArraySamples.from_batches([feeds for feeds, _ in found], inputs)
    return LabelledData(
        proto, samples, labels, shapes=how.shapes, batch_size=how.batch_size, device=device
    )


def _of_olive(config: Any, model: ONNXModelHandler) -> Iterator[tuple[dict[str, AnyArray], Any]]:
    """Batches of a data config by input name, each with its labels, or ``None``.

    Olive's own passes take a batch that is a list or a tuple for (inputs, labels), too.
    """
    loader = validate_config(config, DataConfig).to_data_container().create_dataloader()
    for batch in loader:
        inputs, labels = batch, None
        if isinstance(batch, list | tuple):
            inputs, labels = batch[0], batch[1] if len(batch) > 1 else None
        yield format_data(inputs, model.io_config), labels


def _count(feeds: Mapping[str, AnyArray], inputs: tuple[ModelInput, ...]) -> int:
    """Samples in a batch; none in one that does not fit, which is told of later."""
    whole = all(i.name in feeds and feeds[i.name].ndim for i in inputs)
    return count_samples(dict(feeds), inputs) if whole else 0


def _written(
    result: RepairResult, loaded: LoadedModel, settings: Mapping[str, Any], target: Path
) -> ONNXModelHandler:
    """Write the model, as the command line does it unless Olive's options want external data."""
    if settings["save_as_external_data"]:
        with tempfile.TemporaryDirectory(prefix="asr-onnx-") as folder:
            save(result.model, Path(folder) / target.name, loaded.external)
            whole = onnx.load(Path(folder) / target.name)
        return model_proto_to_olive_model(whole, str(target), dict(settings))
    save(result.model, target, loaded.external, force=True)
    if len(files(target)) == 1:
        return ONNXModelHandler(model_path=str(target))
    return ONNXModelHandler(model_path=str(target.parent), onnx_file_name=target.name)
