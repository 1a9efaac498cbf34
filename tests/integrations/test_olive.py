"""The Olive pass: what it writes is what the command line and the Python API write.

``make test-integrations`` runs these in an environment that has Olive.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
from models import ROOT, external_copy, run, stored

import asr_onnx
from asr_onnx import RepairOptions, as_batches, load, repair
from asr_onnx.cli.repair import repair as command

if find_spec("olive") is None:
    pytest.skip("Olive is not installed: make test-integrations", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # of Olive, torch and transformers

EXAMPLES = ROOT / "examples" / "olive"
QUICK = {"recipe": "refit", "sparsity": 0.5}
NOT_OF_RECORDS = {
    "model", "output", "reports", "keep_rejected", "force", "quiet", "verbose", "dense", "work_dir",
    "config", "no_config", "show_config", "from_report",
}  # fmt: skip
DATA = """
import numpy as np
from olive.data.registry import Registry
from torch.utils.data import Dataset

class Arrays(Dataset):
    def __init__(self, x, labels):
        self.x, self.labels = np.load(x), np.load(labels)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index]}, self.labels[index]

@Registry.register_dataset()
def arrays(x, labels):
    return Arrays(x, labels)
"""


@pytest.fixture
def olive(folder, monkeypatch):
    """Run a workflow on the folder's model with the pass of these settings; where the model is."""
    monkeypatch.setenv("OLIVE_DISABLE_TELEMETRY", "1")
    from olive.workflows import run as run_workflow

    from asr_onnx.integrations.olive import package

    def workflow(*behind, model="m.onnx", data_configs=(), **settings):
        passes = [{"type": "AsrRepair", "recipe": "refit"} | settings, *behind]
        run_workflow(
            {
                "input_model": {"type": "OnnxModel", "model_path": model},
                "data_configs": list(data_configs),
                "passes": {f"pass{n}": p for n, p in enumerate(passes)},
                "output_dir": str(folder / "out"),
                "cache_dir": str(folder / "cache"),
            },
            package_config=package(),
        )
        return folder / "out" / "model.onnx"

    return workflow


@pytest.fixture
def of_olive(folder, rng):
    """A data config with the folder's x.npy, and labels of which all but one are the model's."""
    model = load("m.onnx").proto
    x = np.concatenate([np.load("x.npy")] * 4) + rng.normal(0, 0.1, (48, 3, 8, 8))
    np.save("x.npy", x.astype(np.float32))
    labels = run(model, x=np.load("x.npy"))["y"].argmax(1)
    labels[0] = (labels[0] + 1) % 4
    np.save("labels.npy", labels)
    (folder / "data.py").write_text(DATA)
    return {
        "name": "mine",
        "user_script": str(folder / "data.py"),
        "load_dataset_config": {"type": "arrays", "x": "x.npy", "labels": "labels.npy"},
        "dataloader_config": {"batch_size": 5},
    }


@pytest.mark.slow
def test_the_example_writes_what_the_command_line_writes(tmp_path, asr, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OLIVE_DISABLE_TELEMETRY", "1")
    config = json.loads((EXAMPLES / "repair.json").read_text())
    asked = dict(config["passes"]["repair"])
    assert asked.pop("type") == "AsrRepair"
    fewer = {"num_samples": 64, "recipe": "asr", "sparsity": 0.5}  # half a minute otherwise
    config["passes"]["repair"] |= fewer
    config |= {"output_dir": str(tmp_path / "out"), "cache_dir": str(tmp_path / "cache")}
    (tmp_path / "run.json").write_text(json.dumps(config))
    words = [
        "run",
        "--config",
        tmp_path / "run.json",
        "--package-config",
        EXAMPLES / "package.json",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "olive", *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    options = [w for n, v in (asked | fewer).items() for w in (f"--{n.replace('_', '-')}", v)]
    model, target = config["input_model"]["model_path"], tmp_path / "model.onnx"
    code, _, err = asr("repair", model, "-o", target, *options)
    assert code == 0, err
    assert (tmp_path / "out" / "model.onnx").read_bytes() == target.read_bytes()


def test_every_option_of_the_command_line_is_declared():
    from asr_onnx.integrations.olive_options import parameters

    found = parameters()
    assert {p.name for p in command.params} - NOT_OF_RECORDS <= found.keys()
    assert {"data_config", "labelled_data_config", "save_as_external_data"} <= found.keys()
    assert all(p.description and p.type_ is not None for p in found.values())
    assert not any("--" in p.description for p in found.values())
    assert found["num_samples"].default_value == 512
    assert found["calib"].category == "path" and found["seed"].category == "none"
    assert (found["sparsity"].default_value, found["criterion"].default_value) == (None, None)
    assert found["recipe"].search_defaults.get_support() == ["asr", "refit", "best"]


def searched(**settings):
    """What a search may choose."""
    from olive.hardware import DEFAULT_CPU_ACCELERATOR

    from asr_onnx.integrations.olive import AsrRepair

    _, fixed, found = AsrRepair.get_config_params(DEFAULT_CPU_ACCELERATOR, settings)
    return fixed, {name: choice.get_support() for name, choice in found.items()}


def test_what_is_searched_for_is_what_is_left_open():
    _, found = searched(calib="images")
    assert found == {"sparsity": [0.5, 0.6, 0.7, 0.8, 0.9], "recipe": ["asr", "refit", "best"]}
    fixed, found = searched(calib="images", recipe="asr", sparsity=[0.7, 0.75])
    assert (fixed["recipe"], found) == ("asr", {"sparsity": [0.7, 0.75]})
    _, found = searched(calib="images", pattern="2:4", recipe="best")
    assert found == {}


def test_what_a_search_puts_together_wrongly_is_left_out():
    from olive.hardware import DEFAULT_CPU_ACCELERATOR

    from asr_onnx.integrations.olive import AsrRepair

    settings = {"calib": "images", "one_shot": True}
    for recipe, fits in (("asr", True), ("refit", False)):
        config = AsrRepair.generate_config(
            DEFAULT_CPU_ACCELERATOR, settings, {"sparsity": 0.5, "recipe": recipe}
        )
        assert AsrRepair.validate_config(config, DEFAULT_CPU_ACCELERATOR) is fits


def test_all_kinds_of_options_reach_the_repair(olive, asr):
    settings = {"ops": ["Conv", "Gemm"], "mean": [0.4, 0.5, 0.6], "std": 0.25, "resize": [9, 10],
                "crop": 8, "pad": None, "holdout": 0.25, "class_axis": ["y:1"], "seed": 3,
                "reconstruct": False, "recipe": None, "criterion": "obs"}  # fmt: skip
    written = olive(calib="images", sparsity=0.6, **settings)
    code, _, err = asr(
        "repair", "m.onnx", "--calib", "images", "--sparsity", 0.6, "--ops", "Conv,Gemm",
        "--mean", "0.4,0.5,0.6", "--std", 0.25, "--resize", "9,10", "--crop", 8, "--holdout", 0.25,
        "--class-axis", "y:1", "--seed", 3, "--no-reconstruct", "--criterion", "obs",
        "-o", "cli.onnx",
    )  # fmt: skip
    assert code == 0, err
    assert written.read_bytes() == (written.parents[1] / "cli.onnx").read_bytes()


def test_an_amount_may_be_found(olive, asr):
    gates = {"max_error": 0.9, "auto_steps": 2}
    written = olive(calib="x.npy", sparsity="auto", **gates)
    code, _, err = asr("repair", "m.onnx", "--calib", "x.npy", "--sparsity", "auto", "--recipe",
                       "refit", "--max-error", 0.9, "--auto-steps", 2, "-o", "c.onnx")  # fmt: skip
    assert code == 0, err
    assert written.read_bytes() == (written.parents[1] / "c.onnx").read_bytes()


@pytest.mark.parametrize("count", [512, 20])
def test_a_data_config_gives_what_the_python_api_is_given(olive, of_olive, count):
    settings = {"batch_size": 8, "holdout": 0.25, "seed": 5}
    written = olive(
        data_configs=[of_olive], data_config="mine", num_samples=count, **QUICK, **settings
    )
    proto, first = load("m.onnx").proto, np.load("x.npy")[:count]
    inputs = asr_onnx.graph.inputs.model_inputs(proto)
    batches = as_batches(first, inputs, num_samples=count, **settings)
    expected = repair(proto, batches, RepairOptions(**QUICK)).model
    assert written.read_bytes() == expected.SerializeToString()


def test_labels_come_from_a_data_config_too(olive, of_olive):
    settings = {"data_configs": [of_olive], "calib": "x.npy", "labelled_data_config": "mine"}
    settings |= {"recipe": "asr", "sparsity": 0.01}
    assert olive(min_accuracy=0.9, **settings).is_file()
    with pytest.raises(ValueError, match=r"accuracy 0\.9\d* is below min_accuracy 1"):
        olive(min_accuracy=1, **settings)


def test_a_gate_that_fails_ends_the_run_each_time(olive, folder):
    for _ in range(2):  # and is not kept in the cache
        with pytest.raises(ValueError, match=r"error \(output 'y'\) .* is above max_error 1e-05$"):
            olive(calib="x.npy", max_error=1e-5, **QUICK)
    assert not list(folder.rglob("model.onnx"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": "much"}, "sparsity 'much' is not a number"),
        ({"recipe": "bset"}, "recipe 'bset' is not one of auto, asr, refit, best, paper"),
        ({"min_agrement": 0.9}, "AsrRepair has no option 'min_agrement'"),
        ({"calib": None}, "no calibration data: give data_config or calib"),
        ({"calib": "nowhere"}, "calibration data '.*nowhere' does not exist"),
        ({"data_config": {"name": "a"}}, "data_config is calibration data already: leave out"),
        ({"max_drop": 0.1}, "max_drop needs labelled data: give data or labelled_data_config"),
        ({"pattern": "2:4", "sparsity": 0.6}, "pattern 2:4 leaves at most 50 % zeros"),
        ({"ranges": "min-max"}, "ranges goes with precision int8: give that, too"),
        ({"sparsity": "auto"}, "sparsity auto needs a quality gate"),
        ({"min_metric": ["f1=0.9"]}, "min_metric is about metric_script: give that, too"),
        ({"mean": [0.5]}, "leave out the preprocessing"),
    ],
)
def test_bad_options_are_told_of_in_one_line(olive, settings, message):
    with pytest.raises(ValueError, match=message) as raised:
        olive(**{"calib": "x.npy"} | settings)
    assert "\n" not in str(raised.value)


def test_external_data_stay_as_the_command_line_leaves_them(olive, folder, asr):
    external_copy(load("m.onnx").proto, folder / "e", "m.onnx", "m.onnx.data")
    written = olive(model="e/m.onnx", calib="x.npy", **QUICK)
    (folder / "cli").mkdir()
    target = folder / "cli" / "model.onnx"
    code, _, err = asr("repair", "e/m.onnx", "--calib", "x.npy", "--recipe", "refit",
                       "--sparsity", 0.5, "-o", target)  # fmt: skip
    assert code == 0, err
    for path in target.parent.iterdir():
        assert (written.parent / path.name).read_bytes() == path.read_bytes()
    assert len(list(target.parent.iterdir())) == 2


def test_external_data_as_olive_wants_them(olive):
    plain = stored(onnx.load(olive(calib="x.npy", **QUICK)))
    written = olive(
        calib="x.npy", **QUICK, save_as_external_data=True, external_data_name="w", size_threshold=0
    )
    proto = onnx.load(written, load_external_data=False)
    assert all(t.external_data[0].value == "w" for t in proto.graph.initializer)
    assert stored(onnx.load(written)).keys() == plain.keys()
    for name, value in stored(onnx.load(written)).items():
        assert np.array_equal(value, plain[name])


def test_another_pass_goes_on_with_the_repaired_model(olive):
    fixed = {"type": "DynamicToFixedShape", "dim_param": ["N"], "dim_value": [1]}
    plain = stored(onnx.load(olive(calib="x.npy", **QUICK)))
    written = olive(fixed, calib="x.npy", **QUICK)
    shape = onnx.load(written).graph.input[0].type.tensor_type.shape
    assert [d.dim_value for d in shape.dim] == [1, 3, 8, 8]
    assert all(np.array_equal(v, plain[n]) for n, v in stored(onnx.load(written)).items())


def test_the_examples_name_passes_and_options_that_there_are(tmp_path):
    from asr_onnx.integrations.olive import package, write_package
    from asr_onnx.integrations.olive_options import Asked

    write_package(tmp_path / "package.json")
    assert json.loads((tmp_path / "package.json").read_text()) == package()
    known = json.loads((EXAMPLES / "package.json").read_text())["passes"]
    assert known["AsrRepair"] == package()["passes"]["AsrRepair"]
    assert {n: p["module_path"] for n, p in known.items()}.items() <= {
        n: p["module_path"] for n, p in package()["passes"].items()
    }.items()
    for path in EXAMPLES.glob("repair*.json"):
        passes = json.loads(path.read_text())["passes"]
        assert {p["type"] for p in passes.values()} <= known.keys()
        settings = dict(passes["repair"])
        assert settings.pop("type") == "AsrRepair"
        Asked.of(settings)
