"""What README.md and docs/ tell people to type works: commands, options, Python.

The commands are run as they stand there, on a small model and some images of digits.  Those of
docs/ and what else they hold is looked at in test_docs.py.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import onnx
import pytest
from models import ROOT
from reader import prepare

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    p.relative_to(ROOT / "docs").as_posix(): p.read_text(encoding="utf-8")
    for p in sorted(ROOT.glob("docs/**/*.md"))
}
PAGES["README.md"] = README
COMMANDS = [
    line.strip() for line in re.findall(r"^    asr-onnx (.*?)(?:\s#.*)?$", README, re.MULTILINE)
]
EXAMPLES = {
    f"{name}-{number}": code
    for name, text in PAGES.items()
    for number, code in enumerate(re.findall(r"^```python.*?\n(.*?)^```", text, re.M | re.S), 1)
}
WRITTEN = {  # what a command writes when it is not told where to
    "inspect": (),
    "compact": ("{0}.compact.onnx",),
    "prune": ("{0}.pruned.onnx",),
    "repair": ("{0}.sparse.onnx",),
    "quantize": ("{0}.int8.onnx",),
    "compare": (),
    "check": (),
    "sweep": (),
    "render": ("{0}.html",),
    "demo": ("asr-onnx-demo",),
}
OPTION = r"(?<![\w-])--[a-z][a-z0-9-]*"


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """The folder of somebody who reads README.md: a model, and images in class folders."""
    monkeypatch.chdir(tmp_path)
    return prepare(tmp_path)


@pytest.fixture
def commands(asr):
    """The names of all commands."""
    code, text, _ = asr("--help")
    assert code == 0
    return re.findall(r"^  (\w+)  ", text.split("Commands:")[1], re.MULTILINE)


def options(text):
    """The options that a help text declares, not those it talks about."""
    found = re.findall(rf"^  (?:-\w, )?({OPTION})(?: / ({OPTION}))?", text, re.MULTILINE)
    return {name for names in found for name in names if name}


@cache
def options_of_tool(path):
    words = [sys.executable, str(ROOT / path), "--help"]
    return options(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
def test_commands_work_one_after_the_other(reader, asr, commands):
    """From the first to the last, in one folder, as somebody types them."""
    assert set(commands) == {c.split()[0] for c in COMMANDS}, "a command is not shown"
    for command in COMMANDS:
        words = shlex.split(command)
        code, out, err = asr(*words)
        assert code == 0, (command, err)
        assert out and "error: " not in err
        places = [words[n + 1] for n, w in enumerate(words) if w in ("-o", "--report")]
        if "-o" not in words:
            places += [
                name.format(Path(words[1] if words[1:] else "").stem) for name in WRITTEN[words[0]]
            ]
        for name in places:
            assert (reader / name).exists(), (command, name)
            if name.endswith(".onnx"):
                onnx.checker.check_model(str(reader / name))
    for kind in ("json", "csv", "svg", "html"):
        assert (reader / "curve" / f"sweep.{kind}").is_file()


def test_every_command_is_shown(commands):
    assert {c.split()[0] for c in COMMANDS} == set(commands)


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n.startswith("README")])
def test_python_works_as_it_stands(reader, name, capsys):
    before = {p.name for p in reader.iterdir()}
    exec(compile(EXAMPLES[name], name, "exec"), {})
    (output,) = {p.name for p in reader.iterdir()} - before
    assert f'"{output}"' in EXAMPLES[name]
    onnx.checker.check_model(reader / output)
    assert capsys.readouterr().out


@pytest.mark.parametrize("name", EXAMPLES)
def test_python_is_python(name):
    compile(EXAMPLES[name], name, "exec")


@pytest.fixture
def known(asr, commands):
    """Options of all commands; and what the help texts themselves talk about."""
    helps = [asr(*words)[1] for words in (["--help"], *([c, "--help"] for c in commands))]
    unbroken = re.sub(r"-\n\s+", "-", "".join(helps))
    return set().union(*map(options, helps)), set(re.findall(OPTION, unbroken))


@pytest.mark.slow
def test_every_option_that_is_told_of_is_known(known):
    """Those of tools/ to the tool they are told of with; those of other programs are theirs."""
    declared, told = known
    assert told <= declared
    for name, text in PAGES.items():
        for line in text.splitlines():
            line = re.split(r"dask worker|olive run|trtexec|polygraphy|docker|pip install", line)[0]
            tool, found = re.search(r"python (tools/\w+\.py)", line), re.findall(OPTION, line)
            assert set(found) <= (options_of_tool(tool[1]) if tool else declared), (name, line)
