"""What a notebook shows of a result: the report's words, figures and charts, the tables short."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import singledispatch
from pathlib import PurePath
from typing import Any

from rich.table import Table

from asr_onnx.evaluation.comparison import Comparison
from asr_onnx.evaluation.gates import Gates
from asr_onnx.pruning.inspection import Inspection
from asr_onnx.repairing.compacting import Compacted
from asr_onnx.repairing.result import RepairResult
from asr_onnx.repairing.trials import AutoResult
from asr_onnx.reports import (
    amount_search,
    compact_tables,
    comparison_charts,
    comparison_page,
    comparison_tables,
    engine_tables,
    inspection_tables,
    repair_charts,
    repair_page,
    repair_tables,
    sweep_page,
    sweep_tables,
)
from asr_onnx.reports.costs import change, told
from asr_onnx.reports.page import sentence, tile
from asr_onnx.reports.svg import Chart
from asr_onnx.reports.sweep_chart import curves, measured

_MANY_SITES = 400  # beyond which charts of them are too large for a notebook
_MANY_MODELS = 12


@dataclass(frozen=True)
class View:
    """What is shown, from top to bottom; of the tables the first is open, the others are folded.

    ``failed``: the notes say why the result is not good enough.
    """

    kicker: str
    verdict: str
    tiles: Sequence[Mapping[str, str]] = ()
    notes: Sequence[str] = ()
    failed: bool = False
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()


@singledispatch
def view(result: object) -> View:
    """What is shown of a result; ``TypeError`` for what is none."""
    raise TypeError(f"a {type(result).__name__} is no result")


@view.register
def _(result: RepairResult) -> View:
    report = repair_tables.to_dict(result)
    drawn = []
    if 0 < len(result.sites) <= _MANY_SITES:
        drawn = [repair_charts.variance(report), repair_charts.density(report)]
    found = [
        repair_tables.output_table(result),
        repair_tables.metric_table(result),
        repair_tables.worst_sites(result, all_by="to_dataframe()"),
        repair_tables.float32_table(result),
    ]
    return View(
        f"asr-onnx repair, recipe {result.options.recipe}",
        repair_page.verdict(report),
        repair_page.tiles(report),
        repair_page.notes(report),
        tables=[table for table in found if table],
        charts=drawn,
    )


@view.register
def _(result: AutoResult) -> View:
    search = result.trials.to_dict()
    base = view(result.result)
    failures = [sentence(f"{f.reason}.") for f in result.failures]
    remarks = [sentence(f"{line}.") for line in amount_search.notes(search)]
    return replace(
        base,
        kicker=f"{base.kicker}, {search['amount']} auto",
        verdict=f"{sentence(amount_search.headline(search))}. {base.verdict}",
        notes=[*failures, *remarks, *base.notes],
        failed=bool(failures),
        tables=[_tried(search), *base.tables],
    )


def _tried(search: Mapping[str, Any]) -> Table:
    table = Table(title="What was tried")
    table.add_column("removed", justify="right")
    table.add_column("recipe")
    table.add_column("outcome")
    names = amount_search.gates(search)
    for name in names:
        table.add_column(f"{name}, searched on", justify="right")
        table.add_column("judged on", justify="right")
    table.add_column("time", justify="right")
    for row in amount_search.rows(search):
        figures = zip(row["searched"], row["judged"], strict=True)
        table.add_row(
            row["removed"],
            row["recipe"],
            row["outcome"] + (", taken" if row["taken"] else ""),
            *(figure for pair in figures for figure in pair),
            row["seconds"],
        )
    return table


@view.register
def _(result: Comparison) -> View:
    content = comparison_tables.to_dict(result, Gates())
    drawn = comparison_charts.charts(content) if len(result.models) <= _MANY_MODELS else []
    kept = ("accuracy", "agreement", "error", "cost")
    return View(
        f"asr-onnx compare, against {result.dense.name}",
        comparison_page.verdict(content),
        comparison_page.tiles(content),
        [sentence(line) for line in comparison_tables.remarks(result)],
        tables=comparison_tables.tables(result),
        charts=[c for c in drawn if c.key in kept],
    )


@view.register
def _(result: Inspection) -> View:
    counts = f"{len(result.sites):,} sites can be pruned and repaired"
    folded = "folded or absent" if result.folded else "kept"
    lines = [inspection_tables.already(result)] if result.quantised else []
    share = f"{result.zeros:,} of them zero"
    tiles = [
        tile("Sites", f"{len(result.sites):,}", f"{len(result.skipped):,} nodes left alone"),
        tile("Weights", told("parameters", result.weights), share),
    ]
    if result.cost.macs is not None:
        tiles.append(tile("MACs per sample", told("macs", result.cost.macs), "of the whole model"))
    tables = inspection_tables.tables(result)
    if result.layers:
        macs = [result.macs[e.layer.output] for e in result.layers]
        rows = engine_tables.rows(result.layers)
        lines.append(engine_tables.summary(rows))
        tables = [engine_tables.table(rows, macs), *tables]
    whole = sentence(inspection_tables.whole(result))
    verdict = f"{counts}; BatchNormalization {folded}. {whole}."
    notes = [sentence(f"{line}.") for line in lines]
    return View("asr-onnx inspect", verdict, tiles, notes, tables=tables)


@view.register
def _(result: Compacted) -> View:
    costs = {"before": asdict(result.cost_before), "after": asdict(result.cost)}
    verdict = f"{result.removed:,} channels removed; the outputs stay as they were."
    if result.widths:
        verdict += f" {sentence(change(costs))}."
    before, after = costs["before"], costs["after"]
    tiles = [
        tile(head, told(name, after[name]), f"before: {told(name, before[name])}")
        for name, head in (("macs", "MACs per sample"), ("parameters", "Parameters"))
    ]
    notes = [compact_tables.held(result)] if result.held else []
    table = [compact_tables.table(result)] if result.widths else []
    return View("asr-onnx compact", verdict, tiles, notes, tables=table)


@view.register
def _(result: dict) -> View:  # type: ignore[type-arg]
    """Of a sweep: what sweep.json holds."""
    return View(
        f"asr-onnx sweep of {PurePath(str(result['model'])).name}",
        sweep_page.verdict(result),
        sweep_page.tiles(result),
        sweep_page.notes(result),
        tables=[sweep_tables.table(result)],
        charts=curves(result) if measured(result) else [],
    )
