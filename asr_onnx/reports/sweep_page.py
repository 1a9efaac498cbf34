"""The page of ``asr-onnx sweep``: what ``sweeps.results.to_dict`` gives, or JSON read back from it.

A cell is one recipe at one sparsity or pattern.  Its value is the top-1 accuracy, or without
labelled data the agreement with the dense model, or where that cannot be told the cosine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from asr_onnx.evaluation.gates import ROUNDING
from asr_onnx.reports.page import NONE, listed, number, render_page, share, tile
from asr_onnx.reports.sweep_chart import curves, is_narrower, measured, told
from asr_onnx.reports.sweep_tables import cost_cells, point

Content = Mapping[str, Any]
Cell = Mapping[str, Any]
Row = dict[str, object]

TOLERANCE = 0.01  # of the dense model's value: what the verdict takes for next to nothing
_PLACE = ("recipe", "sparsity", "pattern", "macs")  # options that tell a cell's place


def sweep_page(content: Content) -> str:
    """The page; cells that failed are told with their reason."""
    return render_page(
        "sweep.html.j2",
        content=content,
        model=PurePath(str(content["model"])).name,
        metric=content["metric"],
        verdict=verdict(content),
        tiles=tiles(content),
        notes=notes(content),
        charts=curves(content) if measured(content) else [],
        narrow=any(map(is_narrower, measured(content))),
        cells=cells(content),
        recipes=_recipes(content),
        options=options(content),
    )


def verdict(content: Content) -> str:
    """How far each recipe can go when next to nothing may be lost."""
    if not measured(content):
        return "No cell could be measured."
    level = _level(content)
    if content["metric"] == "accuracy":
        start = f"Losing at most one point of the dense model's top-1 accuracy of {share(level)}"
    elif content["metric"] == "cosine":
        start = f"Keeping a cosine of {told(content, level - TOLERANCE, 0)} with the dense outputs"
    else:
        start = f"Keeping the dense model's answer in at least {share(level - TOLERANCE, 0)}"
    found = []
    for recipe in _recipes(content):
        kept = _kept(content, recipe)
        places = [f"{point(c)} ({told(content, c['value'])})" for c in kept]
        reached = f"reaches {listed(places)}" if kept else "loses more from the start"
        found.append(f"{recipe} {reached}")
    return f"{start} on {content['samples']:,} samples, {'; '.join(found)}."


def _recipes(content: Content) -> list[str]:
    """Those with a cell that was measured, in the order of the cells."""
    return list(dict.fromkeys(str(c["recipe"]) for c in measured(content)))


def _level(content: Content) -> float:
    """The value of the dense model, which agrees with itself."""
    dense = content["dense"]["accuracy"]
    return float(dense["share"]) if content["metric"] == "accuracy" else 1.0


def _kept(content: Content, recipe: str) -> list[Cell]:
    """How far a recipe loses next to nothing.

    The highest sparsity and, of narrower models, the least work up to which it does, and patterns
    at which it does.
    """
    bound = _level(content) - TOLERANCE - ROUNDING
    own = [c for c in measured(content) if c["recipe"] == recipe]
    narrow = [c for c in own if is_narrower(c)]
    wide = [c for c in own if not is_narrower(c)]
    plain = sorted((c for c in wide if not c["pattern"]), key=lambda c: float(c["sparsity"]))
    less = sorted(narrow, key=lambda c: -float(c["macs_share"]))
    last = [_last(plain, bound), [c for c in wide if c["pattern"] and c["value"] >= bound]]
    return [c for found in (*last, _last(less, bound)) for c in found]


def _last(cells: Sequence[Cell], bound: float) -> list[Cell]:
    """The last cell before the first below the bound, if there is one."""
    kept: list[Cell] = []
    for cell in cells:
        if cell["value"] < bound:
            break
        kept = [cell]
    return kept


def tiles(content: Content) -> list[dict[str, str]]:
    """The dense model, what each recipe can do, the work; ``label``, ``value`` and ``note``."""
    found = []
    dense = content["dense"]["accuracy"]
    if dense:
        note = (
            f"{dense['correct']:,} of {dense['total']:,}; 95\u00a0% interval "
            f"{share(dense['low'])} to {share(dense['high'])}"
        )
        found.append(tile("Top-1, dense", share(dense["share"]), note))
    for recipe in _recipes(content):
        kept = _kept(content, recipe)
        lost = "0.01" if content["metric"] == "cosine" else "one point"
        note = f"at most {lost} lost" if kept else f"more than {lost} lost from the start"
        found.append(tile(f"Recipe {recipe}", ", ".join(map(point, kept)) or NONE, note))
    seconds = sum(c["seconds"] for c in measured(content))
    note = f"{seconds:,.0f} s of repair on {content['device']}"
    return [*found, tile("Cells", f"{len(content['cells']):,}", note)]


def notes(content: Content) -> list[str]:
    """What a reader should know before the numbers."""
    every = content["cells"]
    failed = [c for c in every if "error" in c]
    lines = [f"{len(failed)} of {len(every)} cells failed; the table says why."] if failed else []
    return lines + [
        f"{c['recipe']} at {point(c)} did worse than plain pruning: {c['worse_than_pruning']}."
        for c in measured(content)
        if c["worse_than_pruning"]
    ]


def cells(content: Content) -> list[Row]:
    """A row of words for each cell; one that failed has but its place and the ``reason``."""
    return [
        {"recipe": c["recipe"], "point": point(c), "reason": c.get("error"), **_numbers(content, c)}
        for c in content["cells"]
    ]


def _numbers(content: Content, cell: Cell) -> Row:
    if "error" in cell:
        return {}
    interval = f"{share(cell['low'])} to {share(cell['high'])}"
    return {
        "zeros": share(cell["zeros"], 2),
        "costs": cost_cells(cell),
        "value": told(content, cell["value"]),
        "interval": NONE if cell["low"] is None else interval,
        "pruned": told(content, cell["pruned"]["value"]),
        "agreement": share(cell["agreement"]),
        "cosine": number(cell["cosine"], 4),
        "error": number(cell["relative_error"]),
        "seconds": f"{cell['seconds']:,.1f}",
        "worse": bool(cell["worse_than_pruning"]),
    }


def options(content: Content) -> dict[str, list[object]]:
    """The value of each option for each recipe, as it was resolved, in the recipes' order."""
    first = {str(c["recipe"]): c["options"] for c in reversed(measured(content))}
    names = dict.fromkeys(n for given in first.values() for n in given if n not in _PLACE)
    return {n: [first[r].get(n) for r in _recipes(content)] for n in names}
