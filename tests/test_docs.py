"""What README.md and docs/ hold: commands that are run, or marked as illustrations; links; lists.

Commands in a block of bash, or of no language, are run page by page in the folder of a reader
(see ``reader``); so that a page can show a script or a settings file, blocks with a title are
written there under that name.  What has ``$`` in front, as all that is typed in a block of
``console`` has, is an illustration, and so is any block behind ``<!-- illustration -->``.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import onnx
import pytest
from models import ROOT
from reader import prepare

import asr_onnx

TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*ROOT.glob("*.md"), *sorted(ROOT.glob("docs/**/*.md")))
}
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
ILLUSTRATION = "<!-- illustration -->"
TYPED = re.compile(r"\s*(\$ )?(asr-onnx |python tools/)")
GATE = re.compile(r"--(min|max)-[a-z]+")
BLOCK = re.compile(
    rf"^(?P<mark>{ILLUSTRATION}\n+)?(?P<indent> *)```(?P<kind>\w*)(?P<rest>[^\n]*)\n"
    r"(?P<code>.*?)^(?P=indent)```$"
    r"|(?<=\n\n)(?P<plain>(?: {4}[^\n]*\n|\n(?= {4}))+)",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """Code on a page; ``title``: the file that it is."""

    kind: str
    title: str
    code: str
    illustration: bool

    @property
    def lines(self) -> list[str]:
        """What is typed, illustrations included."""
        return [x.strip() for x in self.code.replace("\\\n", " ").splitlines() if TYPED.match(x)]

    @property
    def commands(self) -> list[list[str]]:
        """What is run of it, in words."""
        if self.illustration or self.kind not in ("", "bash"):
            return []
        typed = (x for x in self.lines if x.startswith("asr-onnx "))
        return [shlex.split(x, comments=True)[1:] for x in typed]


def blocks(text: str) -> Iterator[Block]:
    for found in BLOCK.finditer(text):
        title = re.search(r'title="([^"]+)"', found["rest"] or "")
        yield Block(
            found["kind"] or "",
            title[1] if title else "",
            found["code"] or found["plain"] or "",
            bool(found["mark"]) or found["kind"] == "console",
        )


RUN = [
    name for name in TEXTS if name != "README.md" and any(b.commands for b in blocks(TEXTS[name]))
]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_commands_of_a_page_work_one_after_the_other(name, tmp_path, monkeypatch, asr):
    """A gate may fail, on so few images; nothing else may."""
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    for block in blocks(TEXTS[name]):
        if block.title:
            (tmp_path / block.title).write_text(block.code, encoding="utf-8")
        for words in block.commands:
            code, out, err = asr(*words)
            gated = code == 3 and GATE.search(" ".join(words))
            assert code == 0 or gated, (words, err)
            assert out and (gated or "error: " not in err), words
            for target in (words[n + 1] for n, w in enumerate(words) if w == "-o"):
                assert gated or (tmp_path / target).exists(), words
                if target.endswith(".onnx") and not gated:
                    onnx.checker.check_model(str(tmp_path / target))


@pytest.mark.parametrize("name", TEXTS)
def test_a_command_is_run_or_an_illustration(name):
    for block in blocks(TEXTS[name]):
        if block.kind == "console":
            assert all(x.startswith("$ ") for x in block.lines), block.lines
        if not block.illustration:
            bare = [x for x in block.lines if not x.startswith("$ ")]
            assert len(bare) == len(block.commands), f"neither run nor illustrations: {bare}"


@pytest.mark.parametrize("name", TEXTS)
def test_no_command_hides_from_the_search_for_blocks(name):
    found = {x for b in blocks(TEXTS[name]) for x in b.code.replace("\\\n", " ").splitlines()}
    fenced = re.sub(r"\\\n", " ", TEXTS[name]).splitlines()
    hidden = [x for x in fenced if re.match(r"( {4,}|\s*\$ )\s*(asr-onnx|python tools/)", x)]
    assert [x for x in hidden if x not in found] == []


def anchors(text: str) -> set[str]:
    """Those of headings, as GitHub and MkDocs make them."""
    heads = re.findall(r"^#+ (.*)$", text, re.M)
    plain = (re.sub(r"[^\w\- ]", "", h.lower().replace("`", "")).strip() for h in heads)
    return {h.replace(" ", "-") for h in plain}


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if re.match(r"https?:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), link
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path.read_text(encoding="utf-8")), link


def test_each_page_is_in_the_navigation():
    """And each entry is a page, or made by a hook."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^ +- (?:.*: )?([\w/-]+\.md)\b", settings, re.M)
    made = {"tutorial.md", "contributing.md", "changelog.md"}
    pages = {name.removeprefix("docs/") for name in TEXTS if name.startswith("docs/")}
    assert sorted(set(listed) - made) == sorted(pages)


def test_the_api_page_has_each_public_name():
    found = re.findall(r"^::: asr_onnx\.([\w.]+)\.(\w+)$", TEXTS["docs/api.md"], re.M)
    assert {name: module for module, name in found} == asr_onnx._HOME
    assert len(found) == len(asr_onnx.__all__)


@pytest.fixture
def cells():
    """The tutorial's cells that are code."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [c for c in cells if c["cell_type"] == "code"]


def test_the_notebook_is_stored_without_outputs(cells):
    assert cells and not any(c["outputs"] or c["execution_count"] for c in cells)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(cells, tmp_path, monkeypatch, capsys):
    """In this process; make docs runs it in a kernel."""
    (tmp_path / "sample_models").symlink_to(ROOT / "sample_models")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    onnx.checker.check_model(str(tmp_path / "digits.sparse.onnx"))
    assert names["best"].sparsity > 0.79
    assert "80.0% zeros" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes_commands_and_options_as_the_docs_say(tmp_path):
    (line,) = re.findall(r"^\$ (eval .*bash_source.*?) +#", TEXTS["docs/install.md"], re.M)
    program = tmp_path / "asr-onnx"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom asr_onnx.__main__ import main\n"
        "sys.argv[0] = 'asr-onnx'\nmain()\n"
    )
    program.chmod(0o755)
    script = f"""{line}
for words in "re" "repair --spars"; do
  COMP_WORDS=(asr-onnx $words) COMP_CWORD=$(set -- $words; echo $#) COMPREPLY=()
  _asr_onnx_completion asr-onnx
  echo "${{COMPREPLY[@]}}"
done"""
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    commands, option = done.stdout.splitlines()
    assert set(commands.split()) == {"repair", "render"}
    assert option == "--sparsity"
