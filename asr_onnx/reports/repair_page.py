"""The page of ``asr-onnx repair``: what ``repair_tables.to_dict`` gives, or JSON read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from asr_onnx.maths.intervals import wilson
from asr_onnx.repairing.result import larger
from asr_onnx.reports import amount_search, engine_tables
from asr_onnx.reports.costs import HEADS, told
from asr_onnx.reports.costs import times_text as times
from asr_onnx.reports.matches import Match, cells, error_of, one_answer
from asr_onnx.reports.page import Report, given, number, ratio, render_page, sentence, share, tile
from asr_onnx.reports.repair_charts import charts

COSTS = {n: HEADS[n] for n in ("macs", "parameters", "activation_bytes", "effective_macs")}
_METRICS = 2  # of the user's that have a tile


def render(report: Report, thumbnails: Mapping[int, str] | None = None) -> str:
    """The page of what ``repair_tables.to_dict`` gives, or JSON read back from it.

    ``thumbnails`` are data URIs by sample index; without them the samples' names have to do.
    """
    return render_page(
        "report.html.j2",
        report=report,
        model=PurePath(model_path(report)).name,
        verdict=verdict(report) + (" The model is rejected." if report.get("failures") else ""),
        tiles=tiles(report),
        notes=notes(report),
        where=checked_on(report),
        cells=cells,
        gates=given(report.get("gates")),
        amounts=amount_search,
        charts=charts(report),
        costs=costs(report),
        cost_heads=list(COSTS.values()),
        kernels=engine_tables,
        samples=samples(report, thumbnails or {}),
    )


def model_path(report: Report) -> str:
    """The model's file as it was named on the command line."""
    return str(report.get("model") or next(iter(report.get("files") or {}), "model"))


def main_output(report: Report) -> str | None:
    """The output to judge by: the samples' class output, else the first with an agreement."""
    repaired: Mapping[str, Any] = report["outputs"]["repaired"]
    named = (report.get("samples") or {}).get("output")
    if named in repaired:
        return str(named)
    classes = (name for name, match in repaired.items() if match["agreement"] is not None)
    return next(classes, next(iter(repaired), None))


def checked_on(report: Report) -> str:
    """Which images the numbers are of, in words."""
    images = report["images"]
    if images["held_out"]:
        return f"{images['held_out']:,} held-out images"
    return f"{images['solve']:,} calibration images (none held out)"


def verdict(report: Report) -> str:
    """The result in one sentence."""
    zeros, where, output = share(report["sparsity"], 2), checked_on(report), main_output(report)
    if output is None:
        return f"Pruned to {zeros} zeros and repaired; the model has no outputs to compare."
    pruned, repaired = (report["outputs"][m][output] for m in ("pruned", "repaired"))
    if repaired["cosine"] is None:
        return (
            f"With {zeros} zeros; the outputs of the repaired model cannot be compared in numbers."
        )
    what = f"output '{output}'" if len(report["outputs"]["repaired"]) > 1 else "output"
    text = (
        f"With {zeros} zeros, the repaired model's {what} differs from the dense model's by "
        f"{ratio(repaired['relative_error'])} of its spread on {where}; merely pruned, by "
        f"{ratio(pruned['relative_error'])}."
    )
    if repaired["agreement"] is not None and pruned["agreement"] is not None:
        what = where
        if not _is_class_output(report, output):  # a map of classes, a text
            what = f"{repaired['answers']:,} positions in {where}"
        text += (
            f" It gives the dense model's answer on {share(repaired['agreement'])} of {what}; "
            f"merely pruned, on {share(pruned['agreement'])}."
        )
    if repaired["one_answer"]:
        text += " The dense model's answer is the same on all of them: there is none to agree on."
    return text + (" The repair made it worse." if _is_worse(report, output) else "")


def _is_worse(report: Report, output: str) -> bool:
    """Whether the repair took an output away from the dense model's."""
    before, after = (error_of(report["outputs"][m][output]) for m in ("pruned", "repaired"))
    rounding = (report.get("float16_rounding") or {}).get(output) or 0.0
    return after is not None and before is not None and larger(before, after - rounding)


def tiles(report: Report) -> list[dict[str, str]]:
    """The summary's numbers: ``label``, ``value`` and a ``note``."""
    images, found = report["images"], []
    output = main_output(report)
    if output is not None:
        pruned, repaired = (report["outputs"][m][output] for m in ("pruned", "repaired"))
        errors = [cells(m)[0] for m in (repaired, pruned)]
        note = f"in units of the dense output's spread; merely pruned {errors[1]}"
        found.append(tile("Error, repaired", errors[0], note))
        for name, match in (("repaired", repaired), ("pruned", pruned)):
            found.append(_likeness(name, match, _is_class_output(report, output)))
    metrics = report.get("metrics") or {"repaired": {}}
    for name, value in list(metrics["repaired"].items())[:_METRICS]:
        note = f"metric of the script; merely pruned {number(metrics['pruned'].get(name))}"
        found.append(tile(f"{name}, repaired", number(value), note))
    spared = report.get("spared", ())
    weights = sum(s["weights"] for s in report["sites"] if s["pruned"] or s["name"] in spared)
    which = f"pruned sites and {len(spared)} left dense" if spared else "pruned sites"
    return [
        *found,
        tile("Zeros", share(report["sparsity"], 2), f"of {weights:,} weights in {which}"),
        *_work(report),
        tile("Images", f"{images['solve'] + images['held_out']:,}",
              f"{images['solve']:,} solved on, {images['held_out']:,} held out"),
        tile("Time", f"{report['seconds']:,.1f} s", f"on {report['device']}"),
    ]  # fmt: skip


def _work(report: Report) -> list[dict[str, str]]:
    """A tile for multiply-accumulates, where they are known."""
    cost = report.get("cost")
    if not cost or cost["after"]["macs"] is None:
        return []
    before, after, ratios = cost["before"], cost["after"], cost["ratios"]
    note = f"as before; with other weights than zeros {told('macs', after['effective_macs'])}"
    if after["macs"] != before["macs"]:
        note = (
            f"{times(ratios['macs'])} of {told('macs', before['macs'])} before; parameters "
            f"{times(ratios['parameters'])} of {told('parameters', before['parameters'])}"
        )
    return [tile("MACs per sample", told("macs", after["macs"]), note)]


def costs(report: Report) -> dict[str, list[str]]:
    """Rows of words by model, under ``COSTS``: before, repaired and the ratio."""
    cost = report.get("cost")
    if not cost:
        return {}
    found = {
        name: [told(n, cost[key][n]) for n in COSTS]
        for name, key in (("before", "before"), ("repaired", "after"))
    }
    return found | {"× before": [times(cost["ratios"][n]) for n in COSTS]}


def _likeness(model: str, match: Match, one_each: bool) -> dict[str, str]:
    """A tile for agreement, or where there is none for the cosine."""
    if match["agreement"] is None:
        return tile(f"Cosine, {model}", number(match["cosine"]), "similarity to the dense output")
    note = "same answer as the dense model"
    if one_each and match["samples"]:
        right = round(match["agreement"] * match["samples"])
        low, high = wilson(right, match["samples"])
        note = f"{right} of {match['samples']}; 95\u00a0% interval {share(low)} to {share(high)}"
    return tile(f"Agreement, {model}", share(match["agreement"]), note)


def _is_class_output(report: Report, output: str | None) -> bool:
    """Whether each sample has one class there, not one per position."""
    return output is not None and (report.get("samples") or {}).get("output") == output


def notes(report: Report) -> list[str]:
    """What a reader should know before the numbers: the run's warnings, and dead sites."""
    found = [f"Rejected: {f['model']}: {f['reason']}." for f in report.get("failures") or ()]
    if "output" in report and report["output"] is None:
        kept = report.get("rejected")
        found.append(f"The model is kept as {kept}." if kept else "No model was written.")
    found += [str(w) for w in report.get("warnings") or ()]
    found += [sentence(line) for line in one_answer(report["outputs"]["repaired"])]
    if not report["images"]["held_out"]:
        found.append("No images were held out: the model is judged on the images it was fitted to.")
    dead = [(n, s) for n, s in enumerate(report["sites"], 1) if s["zeros"] == s["weights"]]
    if dead:
        named = ", ".join(f"{n} ({s['node'] or s['name']})" for n, s in dead[:5])
        more = f" and {len(dead) - 5} more" if len(dead) > 5 else ""
        other = " or --criterion obs" if report["options"].get("criterion") != "obs" else ""
        found.append(
            f"{len(dead)} of {len(report['sites'])} sites have no weight left and give a constant: "
            f"{named}{more}. Less sparsity{other} may avoid this."
        )
    return found


def samples(report: Report, thumbnails: Mapping[int, str]) -> dict[str, Any] | None:
    """The report's samples with their pictures; ``None`` where there is nothing to show."""
    known = report.get("samples")
    if not known or not (known["output"] or thumbnails):
        return None
    groups = {
        key: [{**s, "picture": thumbnails.get(s["index"])} for s in known[key]]
        for key in ("shown", "differing")
    }
    return {**known, **groups}
