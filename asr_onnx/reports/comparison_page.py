"""The page of ``asr-onnx compare``: what ``comparison_tables.to_dict`` gives, or JSON read back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asr_onnx.declare import flag
from asr_onnx.reports.comparison_charts import charts, time_unit
from asr_onnx.reports.costs import (
    FIGURES,
    bytes_text,
    count_text,
    figures,
    times_text,
)
from asr_onnx.reports.matches import cells, one_answer, worst_error
from asr_onnx.reports.page import (
    NONE,
    given,
    listed,
    number,
    ratio,
    render_page,
    sentence,
    share,
    tile,
    value,
)

Content = Mapping[str, Any]
Model = Mapping[str, Any]
Row = dict[str, object]

_TILES = 6  # models beyond which a tile for each is too many
_NAMES = 4  # names beyond which a sentence counts them
_SAME = "not distinguishable from it"


def comparison_page(content: Content) -> str:
    """The page; it has neither accuracies nor times where the comparison has none."""
    return render_page(
        "comparison.html.j2",
        content=content,
        verdict=verdict(content),
        tiles=tiles(content),
        failures=[f"Gate failed: {f['model']}: {f['reason']}." for f in content["failures"]],
        notes=[sentence(line) for line in one_answer(content["models"][0]["outputs"])],
        cells=cells,
        charts=charts(content),
        metrics=metrics(content),
        accuracies=accuracies(content) if content["labels"] else [],
        costs=costs(content),
        figures=[head for head, _ in FIGURES.values()],
        zeros=zeros(content),
        options=options(content),
    )


def verdict(content: Content) -> str:
    """Whether the gates are passed, and what the paired tests say; without labels, who is close."""
    judged = _tested(content) if content["labels"] else _closest(content)
    return " ".join(filter(None, (_passed(content), judged)))


def _passed(content: Content) -> str:
    gates = ", ".join(f"{name} {value(bound)}" for name, bound in _gates(content).items())
    if not gates:
        return ""
    names = [str(m["name"]) for m in content["models"]]
    blamed = {f["model"] for f in content["failures"]}
    failed = [n for n in names if n in blamed]
    judged = failed or names
    verb = "fail" if failed else "pass"
    if len(judged) == 1:
        verb += "s" if failed else "es"
    return f"{_named(judged, len(names))} {verb} the gates ({gates})."


def _tested(content: Content) -> str:
    """Models by what the paired test against the dense one says."""
    groups: dict[str, list[str]] = {_SAME: []}
    for m in content["models"]:
        test = m["against_dense"]
        better = test["second_only"] > test["first_only"]
        word = f"significantly {'better' if better else 'worse'}" if test["significant"] else _SAME
        groups.setdefault(word, []).append(f"{m['name']} ({share(m['top1']['share'])})")
    parts = (
        f"{_named(names, len(content['models']))} {'is' if len(names) == 1 else 'are'} {word}"
        for word, names in groups.items()
        if names
    )
    return (
        f"On {content['samples']:,} samples the dense model's top-1 accuracy is "
        f"{share(content['dense']['top1']['share'])}; {'; '.join(parts)}."
    )


def _closest(content: Content) -> str:
    """The model most like the dense one: by its answers, without any by its worst output."""
    models, on = content["models"], f"on {content['samples']:,} samples"
    best = max(models, key=_likeness)
    error = worst_error(best["outputs"])
    if best["agreement"] is not None:
        how = f"the dense model's answer in {share(best['agreement'])} of cases"
    elif error is not None:
        how = f"outputs that differ from the dense model's by {ratio(error)} of their spread"
    else:
        return f"The outputs cannot be compared in numbers {on}."
    if len(models) == 1:
        return f"{best['name']} has {how} {on}."
    return f"{best['name']} is the closest to the dense model of {len(models)}: it has {how} {on}."


def _named(names: Sequence[str], total: int) -> str:
    if len(names) > _NAMES:
        return f"all {total} models" if len(names) == total else f"{len(names)} of {total} models"
    return listed(names)


def tiles(content: Content) -> list[dict[str, str]]:
    """A number for each model, or of many for the best one; ``label``, ``value`` and ``note``."""
    note = "labelled" if content["labels"] else "without labels"
    found = [tile("Samples", f"{content['samples']:,}", f"{note}; on {content['device']}")]
    if content["labels"]:
        shown = _few(content["models"], lambda m: float(m["top1"]["share"]))
        for label, m in (("dense", content["dense"]), *((m["name"], m) for m in shown)):
            top1 = m["top1"]
            note = f"{top1['correct']:,} of {top1['total']:,}; 95\u00a0% interval {_interval(top1)}"
            found.append(tile(f"Top-1, {label}", share(top1["share"]), note))
        return found
    for m in _few(content["models"], _likeness):
        if m["agreement"] is not None:
            note = "same answer as the dense model"
            found.append(tile(f"Agreement, {m['name']}", share(m["agreement"]), note))
        else:
            note = "of the output with the largest, in units of the dense one's spread"
            error = worst_error(m["outputs"])
            text = NONE if error is None else ratio(error)
            found.append(tile(f"Error, {m['name']}", text, note))
    return found


def _likeness(model: Model) -> float:
    """How like the dense model: by agreement; without one by error, and less than any with one."""
    error = worst_error(model["outputs"])
    unlike = -math.inf if error is None else -1 - error
    return unlike if model["agreement"] is None else float(model["agreement"])


def _few(models: Sequence[Model], merit: Callable[[Model], float]) -> Sequence[Model]:
    return models if len(models) <= _TILES else [max(models, key=merit)]


def accuracies(content: Content) -> list[Row]:
    """A row of words for each model, the dense one first."""
    return [
        {
            "name": m["name"],
            "dense": m is content["dense"],
            "shares": [
                (share(a["share"]), _interval(a)) for a in (m["top1"], m["topk"]) if a is not None
            ],
            "alone": _alone(m["against_dense"]),
            "against_dense": _test(m["against_dense"]),
            "against_previous": _test(m["against_previous"]),
        }
        for m in (content["dense"], *content["models"])
    ]


def _interval(accuracy: Mapping[str, Any]) -> str:
    return f"{share(accuracy['low'])} to {share(accuracy['high'])}"


def _alone(test: Mapping[str, Any] | None) -> str:
    return NONE if test is None else f"{test['first_only']:,} / {test['second_only']:,}"


def _test(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return NONE
    p = f"p = {test['p_value']:.2g}" if test["p_value"] >= 1e-300 else "p < 1e-300"
    if not test["significant"]:
        return f"not distinguishable, {p}"
    return f"{'better' if test['second_only'] > test['first_only'] else 'worse'}, {p}"


def metrics(content: Content) -> list[Row]:
    """A row for each model with the values of the user's metric; the dense one's names first."""
    names = list(content["dense"]["metrics"] or ())
    return [
        {
            "name": m["name"],
            "dense": m is content["dense"],
            "values": {n: (m["metrics"] or {}).get(n) for n in names},
        }
        for m in (content["dense"], *content["models"])
        if names
    ]


def costs(content: Content) -> list[Row]:
    """A row of words for each model: figures with what they are to the dense model's, and time."""
    models = (content["dense"], *content["models"])
    unit = time_unit(content) if all(m["latency"] for m in models) else None
    return [
        {"name": m["name"], "dense": m is content["dense"], "pairs": _pairs(m), **_time(m, unit)}
        for m in models
    ]


def _pairs(model: Model) -> list[tuple[str, str]]:
    found = figures(model)
    return [
        (told(found[name]), times_text(model["ratios"][name]))
        for name, (_, told) in FIGURES.items()
    ]


def zeros(content: Content) -> list[Row]:
    """A row of words for each model: zeros, dead channels, and what they may save."""
    found = []
    for m in (content["dense"], *content["models"]):
        f = m["footprint"]
        row = {
            "zeros": f"{f['zeros']:,} of {f['weights']:,}" if f["weights"] else NONE,
            "zero_share": share(f["zero_share"]),
            "dead": f"{f['dead']:,} of {f['channels']:,}" if f["channels"] else NONE,
            "compressed": bytes_text(f["compressed"]),
            "effective_macs": count_text(m["cost"]["effective_macs"]),
            "ratio": times_text(m["ratios"]["effective_macs"]),
        }
        found.append({"name": m["name"], "dense": m is content["dense"], **row})
    return found


def _time(model: Model, unit: tuple[str, float] | None) -> Row:
    if unit is None:
        return {}
    name, seconds = unit
    time = model["latency"]
    low, median, high = (number(time[key] / seconds) for key in ("low", "median", "high"))
    return {
        "time": f"{median} {name}",
        "quartiles": f"{low} to {high} {name}",
        "ratio": times_text(time["ratio"]),
    }


def options(content: Content) -> dict[str, object]:
    """What the comparison was asked for, as it was resolved."""
    names = ("device", "samples", "labels", "class_output", "topk")
    return {name.replace("_", " "): content[name] for name in names} | _gates(content)


def _gates(content: Content) -> dict[str, object]:
    """The gates that are set, by option."""
    return {flag(name): bound for name, bound in given(content["gates"]).items()}
