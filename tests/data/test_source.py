"""Which data the options name, and which preprocessing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from models import ROOT, bare_net
from PIL import Image

from asr_onnx.cli.main import cli
from asr_onnx.data.source import CalibrationOptions, DataSource, open_data
from asr_onnx.errors import UsageError

SIZES = {"batch_size": 4, "num_samples": 8, "seed": 0, "holdout": 0.25}


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Eight images and a loader script of as many samples."""
    (tmp_path / "images").mkdir()
    for n in range(8):
        image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        image.save(tmp_path / "images" / f"{n}.png")
    (tmp_path / "load.py").write_text(
        "import numpy as np\n"
        "def load_data():\n"
        "    while True:\n"
        "        yield {'x': np.random.default_rng(0).normal(size=(1, 3, 8, 8))}\n"
    )
    return tmp_path


def opened(folder: Path, rng: np.random.Generator, **settings: object) -> DataSource:
    return open_data(bare_net(rng), folder / "net.onnx", CalibrationOptions(**SIZES | settings))


@pytest.mark.parametrize(
    "given", [[], ["calib", "data_loader_script"], ["data_loader_script", "load_inputs"]]
)
def test_just_one_source_is_taken(folder, rng, given):
    values = {"calib": folder, "data_loader_script": "load.py", "load_inputs": (folder,)}
    with pytest.raises(UsageError, match="give one of --calib, --data-loader-script, --load-in"):
        opened(folder, rng, **{n: values[n] for n in given})


def test_a_file_next_to_the_model_is_taken_for_images_and_told(folder, rng):
    plain = opened(folder, rng, calib=folder / "images")
    assert plain.notes == () and "mean 0.485 0.456 0.406" in plain.preprocessing
    path = folder / "net.preprocess.json"
    path.write_text(json.dumps({"mean": [0.25, 0.5, 0.75], "std": None}))
    found = opened(folder, rng, calib=folder / "images")
    assert str(path) in found.notes[0]
    assert "mean 0.25 0.5 0.75" in found.preprocessing
    options = opened(folder, rng, calib=folder / "images", mean=(0.125,), std="none")
    assert "mean 0.125," in options.preprocessing
    chosen = opened(folder, rng, calib=folder / "images", preprocess="raw")
    assert chosen.notes == () and "mean" not in chosen.preprocessing
    # Arrays are fed as they are, whatever lies next to the model.
    script = opened(folder, rng, data_loader_script=str(folder / "load.py"))
    assert (script.notes, script.preprocessing) == ((), "arrays as they are")
    assert script.batches.num_solve + script.batches.num_held_out == 8


def test_preprocessing_of_a_script_is_refused(folder, rng):
    with pytest.raises(UsageError, match="fed as it is"):
        opened(folder, rng, data_loader_script=str(folder / "load.py"), preprocess="raw")


def test_input_shapes_set_the_batch_size(folder, rng):
    found = opened(folder, rng, calib=folder / "images", input_shapes=("x:3x3x8x8",))
    assert found.batches.batch_size == 3
    with pytest.raises(UsageError, match="only dimensions shown as"):
        opened(folder, rng, calib=folder / "images", input_shapes=("x:3x3x9x9",))


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "mistaken"), [("raw", True), ("imagenet", False)])
def test_a_mistake_is_warned_of_on_stderr_and_in_the_report(tmp_path, preset, mistaken, capfd):
    samples, report = ROOT / "sample_models", tmp_path / "report.json"
    model, images = samples / "digits_resnet_bn.onnx", samples / "digits" / "calib"
    options = f"--num-samples 64 --preprocess {preset} --providers cpu".split()
    files = ["--calib", str(images), "-o", str(tmp_path / "out.onnx"), "--report", str(report)]
    cli.main(["repair", str(model), *files, *options], standalone_mode=False)
    warnings, told = json.loads(report.read_text())["warnings"], capfd.readouterr().err
    told = " ".join(told.split())
    assert len(warnings) == told.count("misfit") == mistaken
    # Fed like that, the model takes all digits for one.
    assert told.count("one and the same answer") == mistaken
    assert all(f"warning: {w}" in told and "--preprocess imagenet" in w for w in warnings)
