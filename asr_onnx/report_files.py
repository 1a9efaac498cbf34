"""Write a report to the files asked for, in the format of each one's suffix."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asr_onnx import html, report
from asr_onnx import model as models
from asr_onnx.calibration import Calibration
from asr_onnx.errors import AsrError, UsageError
from asr_onnx.files import write_text
from asr_onnx.thumbnails import thumbnails

SUFFIXES = (".json", ".html")
_NEEDED = {"versions", "options", "device", "seconds", "images", "sparsity", "outputs", "sites"}


def check_reports(paths: Sequence[Path], target: Path, force: bool) -> None:
    """Refuse, before any work, what cannot be written or has no known format (``UsageError``)."""
    taken = {target.resolve()}
    for path in paths:
        if path.resolve() in taken:
            what = "the output" if path.resolve() == target.resolve() else "another report"
            raise UsageError(f"--report '{path}' and {what} are one file")
        taken.add(path.resolve())
        models.check_target(path, None, force)
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"--report '{path}': the name has to end in {' or '.join(SUFFIXES)}")


def write_reports(
    paths: Sequence[Path], content: Mapping[str, Any], calibration: Calibration | None = None
) -> None:
    """Write the dict of ``report.to_dict`` to each path; sample pictures come from the data.

    Raises ``AsrError`` naming the path that cannot be written.
    """
    for path in paths:
        if path.suffix.lower() == ".json":
            text = report.dumps(content)
        else:
            known = content.get("samples") or {}
            wanted = [s["index"] for key in ("shown", "differing") for s in known.get(key, ())]
            text = html.render(content, thumbnails(calibration, wanted) if calibration else {})
        write_text(path, text)


def read_report(path: Path) -> dict[str, Any]:
    """A JSON report read back; ``AsrError`` for what is none."""
    content: object = None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AsrError(f"report '{path}' cannot be read: {error.strerror}") from None
    except ValueError:
        pass
    if not isinstance(content, dict) or content.get("asr_onnx_report") != 1:
        content = {}
    if not content.keys() >= _NEEDED:
        raise AsrError(f"'{path}' is no JSON report of asr-onnx repair")
    return content
