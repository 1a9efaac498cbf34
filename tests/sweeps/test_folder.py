"""The folder of a sweep: what lies in it is read within bounds."""

from __future__ import annotations

import os
import sys

import pytest

from asr_onnx.sweeps.folder import SweepFolder


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders")
def test_a_pipe_in_place_of_a_cell_is_not_waited_for(tmp_path):
    folder = SweepFolder(tmp_path)
    folder.create()
    os.mkfifo(tmp_path / "cells" / "cell.json")
    assert folder.read("cell") is None
