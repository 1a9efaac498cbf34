"""The house rules that no linter knows; import-linter checks the direction of imports."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from importlib.metadata import requires
from importlib.util import find_spec

import pytest
from models import ROOT

PACKAGE = ROOT / "asr_onnx"
MODULES = {
    ".".join(p.relative_to(PACKAGE).with_suffix("").parts): ast.parse(p.read_text(encoding="utf-8"))
    for p in sorted(PACKAGE.rglob("*.py"))
}
LONGEST = 400  # lines


def imported(tree: ast.AST) -> set[str]:
    """Full names of all modules that are imported anywhere in a file."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ("asr_onnx." if node.level else "") + (node.module or "")
            found |= {module.rstrip("."), *(f"{module}.{a.name}" for a in node.names)}
    return found


def third_party(tree: ast.AST) -> set[str]:
    return {n.split(".")[0] for n in imported(tree)} - sys.stdlib_module_names - {"asr_onnx"}


@pytest.mark.parametrize("name", MODULES)
def test_files_stay_small_and_say_what_they_are_for(name):
    lines = (PACKAGE / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST
    assert ast.get_docstring(MODULES[name])


def test_every_third_party_import_is_declared():
    runtime = [r for r in requires("asr-onnx") or () if "extra ==" not in r]
    declared = {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in runtime}
    pyproject = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text("utf-8"))
    for extra, needed in pyproject["project"]["optional-dependencies"].items():
        if extra not in ("test", "lint"):  # what an extra is for is imported when it is used
            declared |= {re.match(r"[\w.-]+", r)[0].lower().removesuffix("-skinny") for r in needed}
    declared.add("ipython")  # there where it is used: in notebooks
    names = {"PIL": "pillow", "google": "onnx", "onnx_graphsurgeon": "onnx-graphsurgeon",
             "IPython": "ipython"}  # fmt: skip
    for module, tree in MODULES.items():
        used = {names.get(package, package) for package in third_party(tree)}
        # Each of these is for one program, and nothing else imports it.
        extra = {"olive"} if module.startswith("integrations.olive") else set()
        assert used <= declared | extra, module


def test_nothing_but_the_command_line_prints():
    for name, tree in MODULES.items():
        calls = {n.func.id for n in ast.walk(tree)
                 if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}  # fmt: skip
        assert "print" not in calls or name.startswith("cli."), name


TOOLS = {p.name: ast.parse(p.read_text(encoding="utf-8")) for p in (ROOT / "tools").glob("*.py")}


@pytest.mark.parametrize("name", TOOLS)
def test_what_tools_take_from_the_package_is_there(name):
    for node in ast.walk(TOOLS[name]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("asr_onnx"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or find_spec(f"{node.module}.{alias.name}")
