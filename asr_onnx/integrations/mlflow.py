"""Results in MLflow: options, figures, the model and the reports of a result in a run."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import singledispatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from asr_onnx.errors import AsrError
from asr_onnx.evaluation.comparison import Comparison
from asr_onnx.evaluation.gates import Gates
from asr_onnx.extras import require
from asr_onnx.graph.saving import save
from asr_onnx.graph.stored import nbytes, tensors
from asr_onnx.graph.tensor_values import is_in_file
from asr_onnx.repairing.result import RepairResult
from asr_onnx.repairing.trials import AutoResult
from asr_onnx.reports import comparison_tables, frames, repair_tables
from asr_onnx.reports.files import write_reports
from asr_onnx.reports.page import given, value

_KEY = 250  # characters of a name that MLflow takes
_VALUE = 500  # of a parameter: the least that a release or a server allows
_BATCH = 100  # parameters at a time
_LARGE = 2**30  # bytes of weights: one file holds no more than twice as many

Figures = dict[str, float]
_OF_COMPARISON = ("device", "samples", "labels", "class_output", "topk", "preprocessing")


def log_result(
    result: RepairResult | AutoResult | Comparison,
    *,
    model_name: str | None = "model",
    report: bool = True,
    prefix: str = "",
    external: frozenset[str] = frozenset(),
) -> str:
    """Log a result to the active run, or to one of its own; returns the run's id.

    Parameters are the options, metrics the figures of the JSON report.  The repaired model goes
    under ``model_name``, ``None`` for none, as an MLflow model; one whose weights lie in files or
    that is too large for one, as the files that ``save`` writes, with the weights in ``external``
    in a data file.  ``report``: ``report.json`` and ``report.html``, too.  ``prefix`` is put before
    all names, for several results in one run.

    Raises ``MissingError`` without MLflow, ``AsrError`` for what MLflow refuses.
    """
    mlflow = require("mlflow", "mlflow", "log_result")
    told = _told(result)
    given_run = mlflow.active_run()
    with _in_one_line(mlflow), nullcontext(given_run) if given_run else mlflow.start_run() as run:
        options = _named(given(told.parameters), prefix)
        for some in _batches({name: _cut(value(x)) for name, x in options.items()}):
            mlflow.log_params(some)
        mlflow.log_metrics(
            _named({n: float(x) for n, x in told.metrics.items() if _is_figure(x)}, prefix)
        )
        if report:
            _log_reports(mlflow, told.report, prefix)
        if told.model is not None and model_name is not None:
            _log_model(mlflow, told.model, _one(f"{prefix}{model_name}"), external)
        return str(run.info.run_id)


@dataclass(frozen=True)
class _Told:
    """What of a result is logged."""

    parameters: Mapping[str, Any]
    metrics: Mapping[str, Any]
    report: Mapping[str, Any]
    model: onnx.ModelProto | None = None


@singledispatch
def _told(result: object) -> _Told:
    raise AsrError(
        f"a {type(result).__name__} is not logged: give a RepairResult, AutoResult or Comparison"
    )


@_told.register
def _(result: RepairResult) -> _Told:
    return _of_repair(result, repair_tables.to_dict(result))


@_told.register
def _(result: AutoResult) -> _Told:
    search = result.trials.to_dict()
    told = _of_repair(result.result, repair_tables.to_dict(result.result, search=search))
    more = {f"search/{name}": search[name] for name in ("chosen", "failed", "seconds")}
    tried = {"search/tried": len(search["tried"]), "search/failures": len(result.failures)}
    return _Told(
        {**told.parameters, "search_amount": search["amount"]},
        {**told.metrics, **more, **tried},
        told.report,
        told.model,
    )


def _of_repair(result: RepairResult, report: Mapping[str, Any]) -> _Told:
    """Figures of the worst output by their names, those of each of several by its name, too."""
    metrics = {name: report[name] for name in ("sparsity", "seconds")}
    metrics |= {f"images_{name}": count for name, count in report["images"].items()}
    for model, matches in report["outputs"].items():
        of = "" if model == "repaired" else f"{model}_"
        for name, worst in (("relative_error", max), ("cosine", min), ("agreement", min)):
            known = [m[name] for m in matches.values() if m[name] is not None]
            metrics[f"{of}{name}"] = worst(known) if known else None
        if len(matches) > 1:
            metrics |= {
                f"{model}/{_clean(output)}/{name}": match[name]
                for output, match in matches.items()
                for name in ("relative_error", "cosine", "agreement")
            }
    for name, found in ((report["metrics"] or {}).get("repaired") or {}).items():
        metrics[f"metric/{_clean(name)}"] = found
    cost = report["cost"] or {"after": {}, "ratios": {}}
    metrics |= cost["after"]
    metrics |= {f"{name}_ratio": ratio for name, ratio in cost["ratios"].items()}
    return _Told(report["options"], metrics, report, result.model)


@_told.register
def _(result: Comparison) -> _Told:
    """The numbers of the data frame, by model."""
    report = comparison_tables.to_dict(result, Gates())
    rows = frames.rows(result)
    names = _distinct(_clean(row["name"]) for row in rows)
    metrics = {
        f"{model}/{_clean(name)}": x
        for model, row in zip(names, rows, strict=True)
        for name, x in row.items()
    }
    parameters = {name: report[name] for name in _OF_COMPARISON}
    return _Told({**parameters, "dense": result.dense.name}, metrics, report)


def _is_figure(x: object) -> bool:
    return isinstance(x, (bool, int, float)) and math.isfinite(x)


def _clean(name: object) -> str:
    """A name of the characters MLflow takes everywhere, and no path of its own."""
    return re.sub(r"[^A-Za-z0-9_. -]", "_", str(name)).strip(". ") or "_"


def _named(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Values by the names they have in MLflow, each once."""
    joined = ("/".join(map(_clean, f"{prefix}{name}".split("/"))) for name in values)
    return dict(zip(_distinct(joined), values.values(), strict=True))


def _distinct(names: Iterable[str]) -> list[str]:
    """Names not too long, and those that would be one with a number behind."""
    found: dict[str, None] = {}
    for name in names:
        number, fresh = 1, name[:_KEY]
        while fresh in found:
            number += 1
            end = f"_{number}"
            fresh = name[: _KEY - len(end)] + end
        found[fresh] = None
    return list(found)


def _batches(values: Mapping[str, str]) -> Iterator[dict[str, str]]:
    items = list(values.items())
    yield from (dict(items[n : n + _BATCH]) for n in range(0, len(items), _BATCH))


def _one(name: str) -> str:
    """A name for a file or a model, which is no path."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _cut(text: str) -> str:
    return text if len(text) <= _VALUE else f"{text[: _VALUE - 1]}…"


def _log_reports(mlflow: Any, content: Mapping[str, Any], prefix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{_one(prefix)}report.{kind}" for kind in ("json", "html")]
        write_reports(paths, content)
        mlflow.log_artifacts(folder)


def _log_model(mlflow: Any, model: onnx.ModelProto, name: str, external: frozenset[str]) -> None:
    """As an MLflow model where it is one file, else as its files."""
    weights = list(tensors(model))
    if external or any(map(is_in_file, weights)) or sum(map(nbytes, weights)) > _LARGE:
        with tempfile.TemporaryDirectory() as folder:
            save(model, Path(folder) / "model.onnx", external)
            mlflow.log_artifacts(folder, artifact_path=name)
        return
    flavor = require("mlflow.onnx", "mlflow", "log_result with a model")
    flavor.log_model(
        model,
        name=name,
        save_as_external_data=False,  # else it would take the weights out of the model
        pip_requirements=[f"onnx=={version('onnx')}", "onnxruntime"],  # else it runs it to find out
    )


@contextmanager
def _in_one_line(mlflow: Any) -> Iterator[None]:
    """What MLflow refuses as an ``AsrError``."""
    try:
        yield
    except mlflow.exceptions.MlflowException as error:
        lines = str(error).split("\n")
        cure = "start another run, or give a prefix" if "param" in lines[0].lower() else ""
        raise AsrError("; ".join(filter(None, (f"MLflow: {lines[0][:300]}", cure)))) from error
