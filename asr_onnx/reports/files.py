"""Write a report to the files asked for, in the format of each one's suffix."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from asr_onnx.data.batches import Batches
from asr_onnx.data.texts import parse_json, read_text
from asr_onnx.errors import AsrError, UsageError
from asr_onnx.files import write_text
from asr_onnx.graph import model_file
from asr_onnx.provenance import dumps
from asr_onnx.reports import comparison_markdown, junit, mask_markdown, repair_markdown, repair_page
from asr_onnx.reports.comparison_page import comparison_page
from asr_onnx.reports.sweep_page import sweep_page
from asr_onnx.reports.thumbnails import thumbnails

SUFFIXES = (".json", ".html", ".md", ".xml")
_TOLD = 200  # characters of what went wrong


@dataclass(frozen=True)
class Kind:
    """One kind of report: its name, its format's version, and how that is made.

    ``markdown`` and ``junit`` are there where it has gates, ``render`` where it has a page.
    """

    name: str
    version: int
    render: Callable[[Mapping[str, Any], Batches | None], str] | None = None
    markdown: Callable[[Mapping[str, Any]], str] | None = None
    junit: Callable[[Mapping[str, Any]], str] | None = None


def _repair_page(content: Mapping[str, Any], batches: Batches | None) -> str:
    known = content.get("samples") or {}
    wanted = [s["index"] for key in ("shown", "differing") for s in known.get(key, ())]
    return repair_page.render(content, thumbnails(batches, wanted) if batches else {})


# By the key that holds the version of the format.
KINDS: dict[str, Kind] = {
    "asr_onnx_report": Kind("repair", 3, _repair_page, repair_markdown.markdown, junit.junit),
    "asr_onnx_comparison": Kind(
        "comparison",
        4,
        lambda content, _: comparison_page(content),
        comparison_markdown.markdown,
        junit.junit,
    ),
    "asr_onnx_sweep": Kind("sweep", 2, lambda content, _: sweep_page(content)),
    "asr_onnx_check": Kind("check", 1, markdown=mask_markdown.markdown, junit=junit.junit),
}
_HAVE = {".html": "render", ".md": "markdown", ".xml": "junit"}  # what makes it of a kind


@cache
def schema(marker: str) -> dict[str, Any]:
    """The JSON Schema of a kind of report, by its key in ``KINDS``; see docs/reports.md."""
    kind = KINDS[marker]
    path = Path(__file__).parent / "schemas" / f"{kind.name}-{kind.version}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def check_reports(
    paths: Sequence[Path],
    target: Path | None,
    force: bool,
    what: str = "the output",
    kind: str | None = None,
) -> None:
    """Refuse, before any work, what cannot be written or has no known format (``UsageError``).

    ``target`` is another file that is written, ``what`` names it in the message.  ``kind``, a key
    of ``KINDS``, is what is reported, where it does not have all formats.
    """
    taken = {target.resolve(): what} if target else {}
    for path in paths:
        if path.resolve() in taken:
            raise UsageError(f"--report '{path}' and {taken[path.resolve()]} are one file")
        taken[path.resolve()] = "another report"
        model_file.check_target(path, None, force)
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"--report '{path}': the name has to end in {_listed(SUFFIXES)}")
        if kind and path.suffix.lower() not in suffixes(KINDS[kind]):
            raise UsageError(
                f"--report '{path}': this report can be {_listed(suffixes(KINDS[kind]))}, not "
                f"{path.suffix.lower()}"
            )


def write_reports(
    paths: Sequence[Path], content: Mapping[str, Any], batches: Batches | None = None
) -> None:
    """Write what a command's ``to_dict`` gives to each path; sample pictures come from the data.

    Raises ``AsrError`` naming the paths that cannot be written, when all others are.
    """
    failed = []
    for path in paths:
        try:
            write_text(path, text_of(content, path.suffix.lower(), batches))
        except AsrError as error:
            failed.append(str(error))
    if failed:
        raise AsrError("; ".join(failed))


def text_of(content: Mapping[str, Any], suffix: str, batches: Batches | None = None) -> str:
    """A report, whichever command's it is, in the format of a suffix that it has.

    Sample pictures of a page come from ``batches``.
    """
    kind = KINDS[kind_of(content)]
    if suffix == ".html" and kind.render:
        return kind.render(content, batches)
    if suffix == ".md" and kind.markdown:
        return kind.markdown(content)
    if suffix == ".xml" and kind.junit:
        return kind.junit(content)
    return dumps(content)


def kind_of(content: Mapping[str, Any]) -> str:
    """The key of ``KINDS`` of a report."""
    (marker,) = (m for m in KINDS if m in content)
    return marker


def suffixes(kind: Kind) -> list[str]:
    """The suffixes of a kind of report."""
    return [s for s in SUFFIXES if s == ".json" or getattr(kind, _HAVE[s]) is not None]


def _listed(words: Sequence[str]) -> str:
    """``a, b or c``"""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Make a page of a report from elsewhere: whatever fails, its content is to blame.

    Raises ``AsrError`` that names the report.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # of numbers out of all proportion
            yield
    except AsrError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {str(error)[:_TOLD]}"
        raise AsrError(f"report '{path}' is damaged ({what}): write it again") from None


def read_report(path: Path) -> dict[str, Any]:
    """A JSON report read back; ``AsrError`` for what is none, and for numbers that JSON has not."""
    what = f"report '{path}'"
    text = read_text(path, what, AsrError)
    try:
        content = parse_json(text, what, AsrError, parse_constant=_number, parse_float=_number)
    except OverflowError as error:
        raise AsrError(f"{what} is damaged: it has the number {error}") from None
    for marker, kind in KINDS.items():
        if not isinstance(content, dict) or marker not in content:
            continue
        if content[marker] != kind.version:
            raise AsrError(f"'{path}' is a report of another version of asr-onnx: write it again")
        if content.keys() >= set(schema(marker)["required"]):
            return content
    raise AsrError(f"'{path}' is no JSON report of asr-onnx repair, compare, sweep or check")


def _number(text: str) -> float:
    """A number of a report; ``OverflowError`` for NaN and what is infinite or rounded to it."""
    number = float(text)
    if not math.isfinite(number):
        raise OverflowError(text[:_TOLD])
    return number
