"""What docs/python.md shows works, from the first block to the last, in a reader's folder."""

from __future__ import annotations

import re
import shutil

import onnx
import pytest
from models import ROOT

SAMPLES = ROOT / "sample_models"
TEXT = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
MLFLOW = re.search(r"^    import mlflow\n.*?(?=^\S)", TEXT, re.M | re.S)[0]


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A folder with a model, and images in class folders."""
    shutil.copy(SAMPLES / "digits_resnet_bn.onnx", tmp_path / "model.onnx")
    for name, images in (("images", "calib"), ("test", "test")):
        for source in (SAMPLES / "digits" / images).iterdir():
            (tmp_path / name / source.name).mkdir(parents=True)
            for image in sorted(source.iterdir())[:3]:
                shutil.copy(image, tmp_path / name / source.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_blocks_work_one_after_the_other(reader, capsys):
    names: dict[str, object] = {}
    for number, block in enumerate(BLOCKS, 1):
        exec(compile(block, f"block {number}", "exec"), names)
        assert "print" not in block or capsys.readouterr().out, block
    onnx.checker.check_model(reader / "model.sparse.onnx")
    assert names["page"].startswith('<div class="asr-onnx"')
    assert (reader / "curve" / "sweep.csv").is_file()


def test_mlflow_is_python():
    compile(re.sub("^    ", "", MLFLOW, flags=re.M), "mlflow", "exec")
