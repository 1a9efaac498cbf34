"""Progress for those who call functions: on a terminal, in a notebook, in a log."""

from __future__ import annotations

import io
import sys
from types import ModuleType

import pytest
from rich.console import Console

from asr_onnx import progress_bar
from asr_onnx.reports.progress import ProgressBar

NAME = "<b>[red]x[/red]</b>\x1b[1m"


def test_plain_lines_where_there_is_no_terminal(capsys):
    with progress_bar() as progress:
        for done in range(40):
            progress(done, 40, NAME)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 10
    assert lines[0] == r"0/40 <b>[red]x[/red]</b>\x1b[1m"


def test_a_bar_on_a_terminal_goes_and_leaves_the_cursor():
    file = io.StringIO()
    with ProgressBar(Console(file=file, force_terminal=True, width=100)) as progress:
        progress(3, 7, NAME)
        assert r"<b>[red]x[/red]</b>\x1b[1m" in file.getvalue() and "3/7" in file.getvalue()
    text = file.getvalue()
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")
    assert text.rstrip().endswith("\x1b[2K") or "\x1b[2K" in text[text.rfind("3/7") :]


def test_it_ends_when_it_is_let_go_of():
    file = io.StringIO()
    progress = ProgressBar(Console(file=file, force_terminal=True, width=100))
    progress(3, 7, "x")
    before = len(file.getvalue())
    del progress
    assert "\x1b[2K" in file.getvalue()[before:]


@pytest.fixture
def notebook(monkeypatch):
    """A stand-in for IPython; the pictures it was told to show."""
    shown = []

    class Handle:
        def update(self, picture):
            shown.append(picture)

    module = ModuleType("IPython.display")
    module.HTML = str
    module.display = lambda picture, display_id: Handle()
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown


def test_one_picture_in_a_notebook(notebook):
    with ProgressBar(Console(file=io.StringIO(), force_jupyter=True)) as progress:
        for done in range(1000):
            progress(done, 1000, NAME)
    first, *middle, last = notebook
    assert first.startswith('<progress value="0" max="1000"></progress> 0/1000 &lt;b&gt;[red]')
    assert "\x1b" not in first and "<b>" not in first
    assert len(middle) < 100
    assert last.startswith('<progress value="1" max="1"></progress> done in ')


def test_an_error_is_passed_on():
    with pytest.raises(ValueError, match="mine"), ProgressBar(Console(file=io.StringIO())):
        raise ValueError("mine")
