"""JUnit XML: the shape that readers want, the gates' outcomes, and names from anywhere."""

from __future__ import annotations

import re
from datetime import datetime
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_onnx.reports.junit import junit

NOW = datetime(2026, 1, 2, 3, 4, 5)
# What both schemas have: required attributes and children, in order.
SUITE = {"name", "package", "id", "tests", "failures", "errors", "skipped", "time", "timestamp",
         "hostname"}  # fmt: skip


def check(model="m.onnx", gate="--max-error", outcome="passed", **more):
    reason = "" if outcome == "passed" else "error 0.3 is above --max-error 0.2"
    found = {"model": model, "gate": gate, "what": "error", "value": 0.3, "bound": 0.2}
    return found | {"lower": False, "reason": reason, "outcome": outcome} | more


def content(*checks, **more):
    return {"versions": {"asr-onnx": "0.1.0", "onnx": "1.21"}, "checks": list(checks)} | more


def suites(found):
    """The suites of a report, each of the shape that the schemas ask for."""
    text = junit(found, NOW)
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n')
    root = ET.fromstring(text.encode())
    assert root.tag == "testsuites" and not root.attrib
    for number, suite in enumerate(root):
        assert (suite.tag, set(suite.attrib), suite.get("id")) == ("testsuite", SUITE, str(number))
        tags = [child.tag for child in suite]
        cases = tags.count("testcase")
        assert tags == ["properties", *["testcase"] * cases, "system-out", "system-err"]
        assert suite.get("timestamp") == "2026-01-02T03:04:05" and suite.get("name")
        assert re.fullmatch(r"\d+\.\d{3}", suite.get("time"))
        counts = {"tests": cases, "errors": 0}
        counts |= {name: len(suite.findall(f"testcase/{tag}"))
                   for name, tag in (("failures", "failure"), ("skipped", "skipped"))}  # fmt: skip
        assert {name: int(suite.get(name)) for name in counts} == counts
        for case in suite.iter("testcase"):
            assert set(case.attrib) == {"name", "classname", "time"} and len(case) <= 1
            assert all(set(f.attrib) == {"type", "message"} for f in case.iter("failure"))
        for held in suite.iter("property"):
            assert set(held.attrib) == {"name", "value"} and held.get("name")
    return list(root)


def test_a_suite_for_each_model_and_a_case_for_each_gate():
    first, second = suites(
        content(
            check("a", "--max-error"),
            check("a", "--min-metric f1=", "failed"),
            check("b", "--max-error", "waived"),
            models=[{"name": "a"}, {"name": "b"}],
            options={"sparsity": 0.5, "include": None},
            gates={"max_error": 0.2, "min_metric": []},
            data={"path": "x.npy"},
            device="cpu",
            seconds=1234.5678,
        )
    )
    assert (first.get("name"), first.get("time")) == ("a", "1234.568")
    passed, failed = first.iter("testcase")
    assert passed.get("name") == "--max-error" and not len(passed)
    assert failed.get("name") == "--min-metric f1"
    assert failed[0].get("message") == "error 0.3 is above --max-error 0.2"
    assert failed[0].text.endswith("error 0.3000, wanted at most 0.2")
    assert "--max-error: error 0.3000, wanted at most 0.2" in first.find("system-out").text
    (waived,) = second.iter("testcase")
    assert waived[0].tag == "skipped" and waived[0].get("message").startswith("waived: error 0.3")
    held = {p.get("name"): p.get("value") for p in first.iter("property")}
    assert held == {
        "version.asr-onnx": "0.1.0", "version.onnx": "1.21", "device": "cpu", "data.path": "x.npy",
        "option.sparsity": "0.5", "gate.max_error": "0.2",
    }  # fmt: skip


def test_without_gates_there_is_a_case_that_says_so():
    (suite,) = suites(content(models=[{"name": "a"}]))
    assert suite.find("testcase/skipped").get("message") == "no gate was set"


@pytest.mark.parametrize("value", [None, 0.25])
def test_what_was_not_measured_is_told_without_a_figure(value):
    (suite,) = suites(content(check(outcome="failed", value=value, bound=None)))
    assert suite.find("testcase/failure").text.endswith("error –" if value is None else "0.2500")


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_name_and_reason_is_sound_xml(name, reason):
    """Control characters, surrogates and non-characters, of which XML has none."""
    name, reason = f"{name}\x00\x1b\ud800\ufffe\uffff]]>", f"{reason}\r\n\x0b<&\"'\u202e"
    found = suites(content(check(name, outcome="failed", reason=reason), models=[{"name": name}]))
    (suite,) = found
    assert suite.get("name").endswith(r"\x00\x1b\ud800\ufffe\uffff]]>")
    assert suite.find("testcase/failure").get("message").endswith("\\r\\n\\x0b<&\"'\\u202e")


def test_a_model_without_a_name_has_one():
    (suite,) = suites(content(check(""), models=[{"name": ""}]))
    assert suite.get("name") == "model"
