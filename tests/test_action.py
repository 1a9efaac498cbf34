"""The GitHub Action: its script does what it says, and action.yml gives it all it reads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import action
import pytest
from models import ROOT

ACTION = (ROOT / "action.yml").read_text(encoding="utf-8")


@pytest.fixture
def act(folder, asr, monkeypatch):
    """Run the script, the command line in this process: (exit code, stderr, summary, outputs)."""

    def run(words):
        code, _, err = asr(*words[1:])
        return code, err.splitlines()

    monkeypatch.setattr(action, "run", run)

    def call(**inputs):
        environment = environment_of(folder, inputs)
        code = action.main(environment)
        return code, *told(folder)

    return call


def environment_of(folder, inputs):
    """What GitHub and action.yml set."""
    (folder / "temp").mkdir()
    names = {"GITHUB_OUTPUT": "outputs", "GITHUB_STEP_SUMMARY": "summary", "RUNNER_TEMP": "temp"}
    given = {f"INPUT_{name.upper()}": value for name, value in inputs.items()}
    return {**given, **{variable: str(folder / name) for variable, name in names.items()}}


def told(folder):
    """The summary, and the outputs by name."""
    text = (folder / "outputs").read_text(encoding="utf-8")
    pairs = re.findall(r"^([\w-]+)<<(\S+)\n(.*?)\n\2$", text, re.M | re.S)
    summary = (folder / "summary").read_text(encoding="utf-8")
    return summary, {name: value for name, _, value in pairs}


INPUTS = {"model": "m.onnx", "calib": "images", "args": "--providers cpu --recipe asr --force"}


@pytest.mark.slow
def test_what_passes_is_written_and_told_of(folder):
    """As a process of its own, as GitHub runs it."""
    (folder / "json.py").write_text("raise SystemExit('of the user')")  # is not in the way
    environment = environment_of(
        folder, {**INPUTS, "sparsity": "50%", "max_error": "1e9", "output": "o.onnx"}
    )
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "action.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        encoding="utf-8",
    )
    summary, outputs = told(folder)
    assert (done.returncode, outputs["verdict"], outputs["exit-code"]) == (0, "passed", "0")
    assert outputs["model"] == "o.onnx" and (folder / "o.onnx").is_file()
    assert summary.startswith("## asr-onnx: passed, `o.onnx`\n") and "`--max-error`" in summary
    reports = {p.name for p in (folder / "temp").glob("asr-onnx-*/*")}
    assert reports == {"report.md", "report.json", "report.html", "report.xml"}
    (report,) = (folder / "temp").glob("*")
    assert outputs["report"] == str(report) and "::error" not in done.stdout
    content = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert content["options"]["sparsity"] == 0.5


def test_a_failed_gate_is_exit_code_3_and_the_summary_says_why(act, folder, capsys):
    code, summary, outputs = act(**INPUTS, max_error="1e-9")
    assert (code, outputs["verdict"], outputs["model"]) == (3, "rejected", "")
    assert not (folder / "m.sparse.onnx").exists()
    assert summary.startswith("## asr-onnx: rejected") and "is above --max-error 1e-09" in summary
    out = capsys.readouterr().out
    assert re.search(r"^::error title=asr-onnx::gate failed: .*; error: 1 quality gate", out, re.M)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"calib": ""}, "input 'calib' is missing"),
        ({"args": "'"}, "input 'args' is badly quoted"),
        ({"args": "--bogus"}, "--bogus"),
        ({"sparsity": "2"}, "sparsity 2 is outside"),
        ({"pattern": "$(touch gone)"}, "pattern '$(touch gone)' is not"),
        ({"sparsity": "0.5 --force"}, "'0.5 --force' is not a share"),
    ],
)
def test_bad_input_is_exit_code_2_with_its_reason(act, folder, capsys, inputs, message):
    code, summary, outputs = act(**{**INPUTS, **inputs})
    assert (code, outputs["verdict"], outputs["report"]) == (2, "error", "")
    assert message in summary and message in capsys.readouterr().out
    assert not (folder / "gone").exists()


def test_a_missing_model_is_exit_code_1(act):
    """And a name that looks like an option is a name."""
    code, summary, outputs = act(**{**INPUTS, "model": "--help"})
    assert (code, outputs["verdict"]) == (1, "error")
    assert "    error: model '--help' does not exist" in summary


def test_no_value_becomes_another_output():
    found = action.outputs({"a": "x\nb<<end\nc\nend", "d": ""})
    assert re.fullmatch(r"a<<(\S+)\nx\nb<<end\nc\nend\n\1\nd<<(\S+)\n\n\2\n", found)


def test_the_program_gives_no_commands_to_github(tmp_path, capfd):
    code = "import sys; print('::set-env::x'); print('error: y', file=sys.stderr); sys.exit(7)"
    assert action.run([sys.executable, "-c", code]) == (7, ["error: y"])
    first, inside, *_, last = capfd.readouterr().out.split("\n")[:-1]
    token = first.removeprefix("::stop-commands::")
    assert inside == "::set-env::x" and last == f"::{token}::"


def test_a_summary_that_github_would_drop_is_not_given(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "report.md").write_text("x" * (2 << 20))
    environment = {"GITHUB_STEP_SUMMARY": str(tmp_path / "s")}
    action.conclude(environment, 0, [], tmp_path / "r")
    assert (tmp_path / "s").read_text().startswith("The summary is too long")


def test_nothing_in_inputs_is_read_as_a_command():
    """No expression of GitHub's stands in what a shell reads."""
    for line in re.findall(r"run: (.*)", ACTION):
        assert "${{" not in line


def test_action_and_example_are_what_the_script_and_github_read():
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load(ACTION)
    steps = found["runs"]["steps"]
    (step,) = (s for s in steps if s.get("id") == "repair")
    passed = {k: v for k, v in step["env"].items() if k.startswith("INPUT_")}
    read = {*action.REQUIRED, *action.OPTIONS, "args"}
    assert passed == {
        f"INPUT_{n.upper().replace('-', '_')}": f"${{{{ inputs.{n} }}}}" for n in read
    }
    assert set(found["inputs"]) - read == {"artifact", "python-version", "package"}
    required = {n for n, about in found["inputs"].items() if about.get("required")}
    assert required == set(action.REQUIRED)
    for name, about in found["inputs"].items():
        assert about["description"] and (name in required or isinstance(about["default"], str))
        assert f"inputs.{name}" in ACTION
    told = {n: f"${{{{ steps.repair.outputs.{n} }}}}" for n in found["outputs"]}
    assert {n: about["value"] for n, about in found["outputs"].items()} == told
    assert set(told) == {"model", "report", "verdict", "exit-code"}
    assert all("shell" in s for s in steps if "run" in s)
    example = yaml.safe_load((ROOT / "examples/github/repair.yml").read_text(encoding="utf-8"))
    (used,) = (s["with"] for s in example["jobs"]["repair"]["steps"] if s.get("id") == "repair")
    assert required <= set(used) <= set(found["inputs"])
    assert all(isinstance(value, str) for value in used.values())


def test_without_a_report_nothing_passed(act):
    code, _, outputs = act(**{**INPUTS, "args": "--show-config"})
    assert (code, outputs["verdict"], outputs["report"]) == (0, "error", "")
