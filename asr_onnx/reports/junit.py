"""JUnit XML of a report's gates: a suite for each model, a case for each gate.

There is no one schema of it.  What is written is valid by that of Apache Ant
(windyroad/JUnit-Schema) and that of Jenkins (xunit-plugin, junit-10.xsd).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any
from xml.etree import ElementTree as ET

from asr_onnx.reports.gate_markdown import Check, bound, figure
from asr_onnx.reports.page import given, value
from asr_onnx.reports.printable import printable

Content = Mapping[str, Any]
_PACKAGE = "asr_onnx"
_NO_XML = re.compile("[\ufffe\uffff]")  # that XML 1.0 cannot hold, besides what is not printable
_TOLD = ("model", "device", "preprocessing", "samples", "labels")


def junit(content: Content, now: datetime | None = None) -> str:
    """The gates of a report, whichever command's it is; ``now`` is when they were judged."""
    found: dict[str, list[Check]] = {name: [] for name in _models(content)}
    for check in content["checks"]:
        found.setdefault(check["model"], []).append(check)
    stamp = (now or datetime.now(timezone.utc)).strftime("%Y-%m-%dT%H:%M:%S")
    root = ET.Element("testsuites")
    for number, (model, checks) in enumerate(found.items()):
        root.append(_suite(number, model or "model", checks, content, stamp))
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode", short_empty_elements=False)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _models(content: Content) -> list[str]:
    return [str(m["name"]) for m in content.get("models", ())]


def _suite(
    number: int, model: str, checks: Sequence[Check], content: Content, stamp: str
) -> ET.Element:
    seconds = f"{float(content.get('seconds', 0)):.3f}"
    outcomes = [c["outcome"] for c in checks] or ["skipped"]
    skipped = len(outcomes) - outcomes.count("passed") - outcomes.count("failed")
    suite = _element(
        "testsuite",
        name=model,
        package=_PACKAGE,
        id=number,
        tests=len(outcomes),
        failures=outcomes.count("failed"),
        errors=0,
        skipped=skipped,
        time=seconds,
        timestamp=stamp,
        hostname="localhost",
    )
    properties = ET.SubElement(suite, "properties")
    for name, held in _properties(content):
        properties.append(_element("property", name=name, value=held))
    suite.extend(_case(model, c) for c in checks)
    if not checks:  # some readers take a suite without cases for a mistake
        case = _element("testcase", name="gates", classname=f"{_PACKAGE}.{model}", time="0")
        case.append(_element("skipped", message="no gate was set"))
        suite.append(case)
    lines = [f"{c['gate']}: {_told(c)}" for c in checks]
    ET.SubElement(suite, "system-out").text = "\n".join(map(_held, lines))
    ET.SubElement(suite, "system-err").text = ""
    return suite


def _case(model: str, check: Check) -> ET.Element:
    name = check["gate"].rstrip("=")  # without the bound: readers know a case again by its name
    case = _element("testcase", name=name, classname=f"{_PACKAGE}.{model}", time="0")
    if check["outcome"] == "failed":
        failure = _element("failure", type=check["gate"], message=check["reason"])
        failure.text = f"{_held(check['reason'])}\n{_held(_told(check))}"
        case.append(failure)
    elif check["outcome"] == "waived":
        case.append(_element("skipped", message=f"waived: {check['reason']}"))
    return case


def _told(check: Check) -> str:
    """``accuracy 0.91, wanted at least 0.9``"""
    wanted = bound(check)
    return f"{check['what']} {figure(check)}" + (f", wanted {wanted}" if wanted else "")


def _properties(content: Content) -> Iterator[tuple[str, str]]:
    """Versions, and what decides about the figures."""
    for name, held in content["versions"].items():
        yield f"version.{name}", str(held)
    for name in _TOLD:
        if isinstance(content.get(name), str | int):
            yield name, str(content[name])
    for name, held in given(content.get("images")).items():
        yield f"images.{name}", value(held)
    for name, held in given(content.get("data")).items():
        yield f"data.{name}", value(held)
    for name, held in given(content.get("options")).items():
        yield f"option.{name}", value(held)
    for name, held in given(content.get("gates")).items():
        yield f"gate.{name}", value(held)


def _element(tag: str, **attributes: object) -> ET.Element:
    return ET.Element(tag, {name: _held(x) for name, x in attributes.items()})


def _held(x: object) -> str:
    """What XML can hold of a text, on one line."""
    found = printable(str(x))
    return _NO_XML.sub(lambda odd: odd[0].encode("unicode_escape").decode("ascii"), found)
