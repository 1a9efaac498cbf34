"""Markdown of ``asr-onnx compare``: what ``comparison_tables.to_dict`` gives, or JSON read back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from asr_onnx.reports import comparison_page as page
from asr_onnx.reports.costs import CAPTION as OF_COSTS
from asr_onnx.reports.costs import FIGURES, SPARSE
from asr_onnx.reports.gate_markdown import counted, gates
from asr_onnx.reports.markdown import code, document, paragraphs, section, table, text
from asr_onnx.reports.matches import CAPTION, HEADS, cells, one_answer
from asr_onnx.reports.page import NONE, number, sentence

Content = Mapping[str, Any]


def markdown(content: Content) -> str:
    """The verdict and the gates, then accuracy, outputs and cost."""
    failed, checks = content["failures"], content["checks"]
    word = "failed" if failed else "passed" if checks else "no gate set"
    return document(
        [f"## asr-onnx compare: {word}", ""],
        [f"**{counted(checks)}.** {text(page.verdict(content))}", ""]
        if checks
        else paragraphs([page.verdict(content)]),
        gates(checks),
        paragraphs(map(sentence, one_answer(content["models"][0]["outputs"]))),
        accuracy(content) if content["labels"] else [],
        _metrics(content),
        _outputs(content),
        _costs(content),
        about(content),
    )


def accuracy(content: Content) -> list[str]:
    """Accuracies with intervals and paired tests; of the models of a comparison, or a repair's."""
    shares = ["top-1", "95 % interval"]
    shares += [f"top-{content['topk']}", "95 % interval"] if content["topk"] else []
    told: list[dict[str, Any]] = page.accuracies(content)
    rows = [
        (
            _named(row),
            *_cells(row["shares"]),
            text(row["against_dense"]),
            text(row["against_previous"]),
        )
        for row in told
    ]
    heads = ("model", *shares, "against dense", "against the model above")
    of = f"labels: {content['labels']}; scores: output '{content['class_output']}'"
    title = f"Accuracy on {content['samples']:,} samples"
    return section(title, table(heads, rows), paragraphs([of]))


def about(content: Content) -> list[str]:
    """What the figures are of, and versions, on a line."""
    known = content["versions"]
    told = [f"{name} {known[name]}" for name in _PACKAGES if name in known]
    told += [f"on {content['device']}"] if "device" in content else []
    return [f"<sub>{text(', '.join(told))}</sub>"]


_PACKAGES = ("asr-onnx", "onnx", "onnxruntime", "onnxruntime-gpu", "python")


def _named(row: Mapping[str, Any]) -> str:
    return code(row["name"]) + (" (dense)" if row["dense"] else "")


def _metrics(content: Content) -> list[str]:
    told: list[dict[str, Any]] = page.metrics(content)
    if not told:
        return []
    heads = ("model", *map(code, told[0]["values"]))
    rows = ((_named(row), *(number(x, 4) for x in row["values"].values())) for row in told)
    return section("Metrics of the script", table(heads, rows), paragraphs(["Higher is better."]))


def _outputs(content: Content) -> list[str]:
    rows = (
        (code(m["name"]), code(name), *cells(match))
        for m in content["models"]
        for name, match in m["outputs"].items()
    )
    title = f"Outputs against the dense model's, {content['samples']:,} samples"
    return section(title, table(("model", "output", *HEADS), rows, left=2), paragraphs([CAPTION]))


def _costs(content: Content) -> list[str]:
    timed = all(m["latency"] for m in (content["dense"], *content["models"]))
    heads = ["model"]
    for head, _ in FIGURES.values():
        heads += [head, "× dense"]
    heads += ["time", "× dense"] if timed else []
    rows = [(_named(r), *_cells(r["pairs"]), *_time(r)) for r in map(dict, page.costs(content))]
    zeros = [
        (
            _named(r),
            *(str(r[n]) for n in ("zero_share", "dead", "compressed", "effective_macs", "ratio")),
        )
        for r in page.zeros(content)
    ]
    columns = ("model", "zeros", "dead channels", "zipped", "non-zero MACs", "× dense")
    return section(
        "Size and speed",
        table(heads, rows),
        table(columns, zeros),
        paragraphs([f"{OF_COSTS}; {SPARSE}"]),
    )


def _cells(pairs: Any) -> Iterable[str]:
    return (cell for pair in pairs for cell in pair)


def _time(row: Mapping[str, Any]) -> Iterable[str]:
    return (str(row["time"]), str(row["ratio"] or NONE)) if "time" in row else ()
