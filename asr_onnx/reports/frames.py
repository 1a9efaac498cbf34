"""Results as rows of plain values, and as data frames; columns are named as in the JSON reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from asr_onnx.evaluation.comparison import Comparison
from asr_onnx.evaluation.gates import Gates
from asr_onnx.extras import require
from asr_onnx.pruning.inspection import Inspection
from asr_onnx.repairing.compacting import Compacted
from asr_onnx.repairing.result import RepairResult
from asr_onnx.repairing.trials import AutoResult
from asr_onnx.reports import comparison_tables, sweep_rows

if TYPE_CHECKING:
    import pandas

Row = dict[str, Any]

_OF_CHANNELS = ("gamma", "reliability")  # of a site: a number for each channel


def frame(result: object) -> pandas.DataFrame:
    """A data frame of ``rows``; raises ``MissingError`` without pandas."""
    found = rows(result)
    pandas = require("pandas", "pandas", "to_dataframe()")
    return pandas.DataFrame(found)


@singledispatch
def rows(result: object) -> list[Row]:
    """A row for each thing a result tells of; ``TypeError`` for what is none."""
    raise TypeError(f"a {type(result).__name__} is no result")


@rows.register
def _(result: RepairResult) -> list[Row]:
    """A row for each site; of what there is for each channel the median."""
    found = []
    for site in result.sites:
        values = asdict(site)
        channels = {name: np.asarray(values.pop(name), np.float64) for name in _OF_CHANNELS}
        values |= {"density": site.density, "density_before": site.density_before}
        values["channels"] = len(site.gamma)
        values |= {f"{name}_median": _median(of) for name, of in channels.items()}
        found.append(values)
    return found


def _median(values: np.ndarray[Any, Any]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


@rows.register
def _(result: Comparison) -> list[Row]:
    """A row for each model, the dense one first; nested names are joined: ``top1_low``."""
    content = comparison_tables.to_dict(result, Gates())
    models = [content["dense"], *content["models"]]
    absent = {n for m in models for n, value in m.items() if isinstance(value, Mapping)}
    return [flat({n: v for n, v in m.items() if v is not None or n not in absent}) for m in models]


def flat(values: Mapping[str, Any], prefix: str = "") -> Row:
    """Nested values by their joined names."""
    found: Row = {}
    for name, value in values.items():
        joined = f"{prefix}{name}"
        found |= flat(value, f"{joined}_") if isinstance(value, Mapping) else {joined: value}
    return found


@rows.register
def _(result: Inspection) -> list[Row]:
    """A row for each site."""
    return [
        {
            "name": site.name,
            "node": site.node,
            "op": site.op,
            "shape": tuple(site.weight.value.shape),
            "groups": site.groups,
            "channels": site.channels,
            "weights": site.weight.value.size,
            "zeros": site.zeros,
            "macs": result.macs[site.name],
        }
        for site in result.sites
    ]


@rows.register
def _(result: Compacted) -> list[Row]:
    """A row for each group of channels that became narrower."""
    return [asdict(width) for width in result.widths]


@rows.register
def _(result: AutoResult) -> list[Row]:
    """A row for each amount that was tried, in order."""
    search = result.trials.to_dict()
    found = []
    for trial in search["tried"]:
        looked = {where: trial.pop(where) or {} for where in ("searched", "judged")}
        trial["taken"] = trial["removed"] == search["chosen"]
        for where, seen in looked.items():
            for gate, figure in seen.get("figures", {}).items():
                trial[f"{where}_{gate.lstrip('-').replace('-', '_')}"] = figure
        found.append(trial)
    return found


@rows.register
def _(result: dict) -> list[Row]:  # type: ignore[type-arg]
    """A row for each cell of a sweep, as in sweep.csv."""
    return sweep_rows.rows(result)
