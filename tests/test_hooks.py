"""The pre-commit hook: what others get by naming this repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from textwrap import indent

import pytest
from models import ROOT

HOOKS = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")


def test_the_hook_calls_the_command_on_models(asr):
    entry = re.search(r"entry: asr-onnx (\w+)", HOOKS)[1]
    assert asr(entry, "--help")[0] == 0
    files = re.compile(re.search(r"files: (\S+)", HOOKS)[1])
    assert files.search("models/a.onnx") and not files.search("a.onnx.data")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("pre-commit"), reason="pre-commit is not installed")
def test_pre_commit_lets_a_model_pass_or_not(folder, asr):
    """With the hook's own words, but in this environment: another would have to be downloaded."""
    assert asr("prune", "m.onnx", "--pattern", "2:4", "-o", "p.onnx", "-q")[0] == 0
    hook = HOOKS.replace("language: python", "language: system")
    hook = hook.replace("entry: asr-onnx", f"entry: {sys.executable} -m asr_onnx")
    (folder / ".pre-commit-config.yaml").write_text(
        "repos:\n  - repo: local\n    hooks:\n"
        + indent(f"{hook}  args: [--pattern, '2:4']\n", "      ")
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PRE_COMMIT_HOME": str(folder / "home")}

    def run(*words):
        return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)

    run("git", "init", "-q")
    run("git", "add", "p.onnx", ".pre-commit-config.yaml")
    passed = run("pre-commit", "run", "--all-files")
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert "Passed" in passed.stdout
    run("git", "add", "m.onnx")
    failed = run("pre-commit", "run", "--all-files")
    assert failed.returncode == 1 and "breaks 2:4" in failed.stdout
