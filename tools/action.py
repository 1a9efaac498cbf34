"""What the GitHub Action does: ``asr-onnx repair`` with the inputs, its summary and outputs.

Inputs are environment variables (``INPUT_MODEL``); each becomes one word of the command line, so
that nothing in them is read as a command or as another option.  Run by ``action.yml``; it needs no
more than Python and the package, and works outside GitHub, too: what there is no file for is not
written.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

REQUIRED = ("model", "calib")
OPTIONS = (
    "calib", "output", "sparsity", "pattern", "recipe", "data", "max-drop", "min-accuracy",
    "min-agreement", "min-cosine", "max-error",
)  # fmt: skip
FORMATS = ("md", "json", "html", "xml")
VERDICTS = {0: "passed", 3: "rejected"}
MOST = 1000 << 10  # bytes of a summary; GitHub drops those above 1 MiB


def given(environment: Mapping[str, str], name: str) -> str:
    """The value of an input, empty where there is none."""
    return environment.get(f"INPUT_{name.upper().replace('-', '_')}", "").strip()


def command(environment: Mapping[str, str], folder: Path) -> list[str]:
    """The words of ``asr-onnx repair``, with reports into ``folder``.

    Raises ``ValueError`` for an input that is missing, and for ``args`` that are badly quoted.
    """
    for name in REQUIRED:
        if not given(environment, name):
            raise ValueError(f"input '{name}' is missing: give it under 'with'")
    # Not "python -m", which would look for modules in the folder it is called from first.
    program = shutil.which("asr-onnx", path=sysconfig.get_path("scripts")) or "asr-onnx"
    words = [program, "repair"]
    words += [f"--{n}={given(environment, n)}" for n in OPTIONS if given(environment, n)]
    words += [f"--report={folder / f'report.{kind}'}" for kind in FORMATS]
    try:
        words += shlex.split(given(environment, "args"))
    except ValueError as error:
        raise ValueError(f"input 'args' is badly quoted: {error}") from None
    return [*words, "--", given(environment, "model")]


def run(words: list[str]) -> tuple[int, list[str]]:
    """Exit code, and lines of stderr; both streams are shown as they come.

    GitHub takes lines that begin with ``::`` for commands: not those of the program.
    """
    token = uuid.uuid4().hex
    print(f"::stop-commands::{token}", flush=True)
    told = []
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    try:
        with subprocess.Popen(
            words, stderr=subprocess.PIPE, env=environment, encoding="utf-8", errors="replace"
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                sys.stderr.write(line)
                told.append(line.rstrip("\n"))
    finally:
        sys.stderr.flush()
        print(f"\n::{token}::", flush=True)
    return process.returncode, told


def append(environment: Mapping[str, str], variable: str, text: str) -> None:
    """Add to the file that GitHub names in the environment, if it does."""
    if path := environment.get(variable):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


def outputs(values: Mapping[str, str]) -> str:
    """Lines for ``GITHUB_OUTPUT``; no value can end early and begin another."""
    found = []
    for name, value in values.items():
        end = f"end-{uuid.uuid4().hex}"
        found.append(f"{name}<<{end}\n{value}\n{end}\n")
    return "".join(found)


def failure(code: int, lines: list[str]) -> str:
    """A summary of a run without a report; what it said stands in an indented block."""
    block = "".join(f"    {line}\n" for line in lines[-20:])
    return f"## asr-onnx: error, exit code {code}\n\n{block}\n"


def conclude(environment: Mapping[str, str], code: int, told: list[str], folder: Path) -> None:
    """Write summary and outputs, and an annotation with the reason unless the model passed."""
    report, model = folder / "report.md", ""
    lines = [line for line in told if line.lower().startswith(("gate failed: ", "error: "))]
    summary = (
        report.read_text(encoding="utf-8") if report.exists() else failure(code, lines or told)
    )
    if len(summary.encode()) > MOST:
        summary = "The summary is too long to be shown: see report.md among the artifacts.\n"
    append(environment, "GITHUB_STEP_SUMMARY", summary + "\n")
    reported = (folder / "report.json").exists()
    if reported:
        content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        model = content.get("output") or content.get("rejected") or ""
    values = {
        "model": model,
        "report": str(folder) if any(folder.iterdir()) else "",
        # without a report nothing was judged: "args" may ask for no more than help
        "verdict": VERDICTS.get(code, "error") if reported else "error",
        "exit-code": str(code),
    }
    append(environment, "GITHUB_OUTPUT", outputs(values))
    if code:
        reason = "; ".join(lines) or f"asr-onnx repair ended with exit code {code}"
        escaped = reason.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        print(f"::error title=asr-onnx::{escaped}", flush=True)


def main(environment: Mapping[str, str]) -> int:
    """Repair, tell, and give back the exit code of ``asr-onnx repair``."""
    temporary = environment.get("RUNNER_TEMP") or tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="asr-onnx-", dir=temporary))
    try:
        words = command(environment, folder)
    except ValueError as error:
        code, told = 2, [f"error: {error}"]
        print(told[0], file=sys.stderr)
    else:
        code, told = run(words)
    conclude(environment, code, told, folder)
    return code


if __name__ == "__main__":
    sys.exit(main(os.environ))
