"""The command line where all is well: what it writes and what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import onnx
import pytest
from models import ROOT, build, external_copy, files, norm_net, normal, run, stored

import asr_onnx
from asr_onnx import __version__
from asr_onnx.cli import prune as commands
from asr_onnx.graph.model_file import load
from asr_onnx.graph.sites import find_sites

SETTINGS = ("--sparsity", "0.6", "--method", "asr", "--providers", "cpu", "--batch-size", "4")


def test_repair_writes_the_model_and_tells_about_it(folder, asr):
    code, out, _ = asr("repair", "m.onnx", "--calib", "images", *SETTINGS)
    assert code == 0
    assert "m.sparse.onnx" in out and "w1" in out and "repaired" in out
    assert [f for f in files(folder) if f.endswith(".onnx")] == ["m.onnx", "m.sparse.onnx"]
    found = stored(load("m.sparse.onnx").proto)
    assert sum(int((found[n] == 0).sum()) for n in ("w1", "w2")) == round(0.6 * 792)


def test_the_same_command_writes_the_same_bytes(folder, asr):
    for name in ("a.onnx", "b.onnx"):
        assert asr("repair", "m.onnx", "--calib", "images", "-o", name, *SETTINGS)[0] == 0
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()


@pytest.mark.parametrize("calib", ["images", "x.npy"])
def test_quiet_is_silent(folder, asr, calib):
    assert asr("repair", "m.onnx", "--calib", calib, "-q", *SETTINGS) == (0, "", "")
    assert asr("prune", "m.onnx", "-q") == (0, "", "")


def test_the_report_is_json_with_everything_needed_to_do_it_again(folder, asr):
    words = ("--calib", "images", "--report", "r.json", "--seed", "3", "--holdout", "0.25")
    assert asr("repair", "m.onnx", *words, *SETTINGS)[0] == 0
    report = json.loads((folder / "r.json").read_text())
    assert report["versions"]["onnx"] == onnx.__version__
    assert report["options"]["sparsity"] == 0.6
    assert report["data"] | {"seed": 3, "holdout": 0.25, "path": "images"} == report["data"]
    assert report["images"] == {"solve": 9, "held_out": 3}
    assert report["device"] == "cpu"
    assert report["files"].keys() == {"m.onnx", "m.sparse.onnx"}
    assert len(report["sites"]) == 2
    assert report["outputs"]["repaired"]["y"]["samples"] == 3
    assert "mean" in report["preprocessing"]


def test_prune_then_repair_is_repair(folder, asr):
    assert asr("prune", "m.onnx", "--sparsity", "0.6", "-o", "p.onnx")[0] == 0
    rest = ("--method", "asr", "--providers", "cpu", "--calib", "x.npy")
    assert asr("repair", "p.onnx", "--dense", "m.onnx", "-o", "a.onnx", *rest)[0] == 0
    assert asr("repair", "m.onnx", "--sparsity", "0.6", "-o", "b.onnx", *rest)[0] == 0
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()


def test_prune_tells_the_count(folder, asr):
    code, out, _ = asr("prune", "m.onnx", "--sparsity", "0.5")
    assert (code, out.split(" weights")[0]) == (0, "396 of 792")
    assert (folder / "m.pruned.onnx").is_file()


def test_prune_tells_how_many_weights_are_left_where_channels_go(folder, asr):
    words = ("--pattern", "channel", "--macs", "60%", "--channel-multiple", "2")
    code, out, _ = asr("prune", "m.onnx", *words)
    left, before = (int(n) for n in out.split(" weights")[0].split(" of "))
    weights = find_sites(onnx.load(folder / "m.pruned.onnx")).sites
    assert (code, before) == (0, 792)
    assert left == sum(s.weight.value.size for s in weights) < before


def test_repair_tells_how_many_channels_went(folder, asr):
    words = ("--pattern", "channel", "--macs", "0.6", "--channel-multiple", "2", "--calib", "x.npy")
    code, out, _ = asr("repair", "m.onnx", *words, "--force", "--report", "r.json")
    report = json.loads((folder / "r.json").read_text())
    (group,) = report["channels"]
    assert code == 0
    assert f"{group['before'] - group['after']} of {group['before']} channels removed" in out
    assert (report["options"]["pattern"], report["options"]["macs"]) == ("channel", 0.6)
    assert report["options"]["sparsity"] is None
    made = {t.name: t.dims for t in onnx.load(folder / "m.sparse.onnx").graph.initializer}
    assert made["w1"][0] == group["after"] < group["before"]


def test_inspect_lists_sites_and_writes_nothing(folder, asr):
    before = files(folder)
    code, out, err = asr("inspect", "m.onnx")
    assert (code, err, files(folder)) == (0, "", before)
    for word in ("w1", "w2", "8×3×3×3", "BatchNormalization", "2 sites, 792 weights, 0 of them"):
        assert word in out


def test_inspect_lists_the_channels_that_go_together(folder, asr):
    assert "Channels" not in asr("inspect", "m.onnx")[1]
    code, out, _ = asr("inspect", "m.onnx", "--pattern", "channel")
    rows = [line.split() for line in out[out.index("Channels") :].splitlines()]
    assert code == 0 and any("8" in row and "c1," in row for row in rows), out


def test_inspect_says_why_channels_stay(folder, asr, rng):
    net = build(
        "g (float[N,3,4,4] x) => (float[N,4,4,4] y) { a = Conv (x, w) s = Softmax <axis = 1> (a) "
        "y = Conv (s, v) }",
        {"w": normal(rng, 6, 3, 1, 1), "v": normal(rng, 4, 6, 1, 1)},
    )
    found = asr_onnx.inspect(net, pattern="channel")
    assert [(g.made_by, g.read_by, g.count, g.why) for g in found.groups] == [
        (("a",), (), 6, "Softmax 's' works across them"),
        (("y",), (), 4, "they are an output of the model"),
    ]


def test_compact_removes_what_pruning_left_idle(folder, asr):
    net = onnx.load("m.onnx")
    stored = {t.name: t for t in net.graph.initializer}
    w2 = onnx.numpy_helper.to_array(stored["w2"]).copy()
    w2[:, [1, 4]], fw = 0, onnx.numpy_helper.to_array(stored["fw"]).copy()
    fw[:, [1, 4]] = 0
    stored["w2"].CopyFrom(onnx.numpy_helper.from_array(w2, "w2"))
    stored["fw"].CopyFrom(onnx.numpy_helper.from_array(fw, "fw"))
    onnx.save(net, "idle.onnx")
    code, out, err = asr("compact", "idle.onnx")
    assert (code, err) == (0, "") and "4 channels removed: idle.compact.onnx" in out
    made = {t.name: list(t.dims) for t in onnx.load("idle.compact.onnx").graph.initializer}
    assert made["w1"][0] == made["w2"][1] == 6
    assert asr("compact", "idle.onnx")[0] == 2  # nothing is overwritten
    words = ("compact", "idle.onnx", "-o", "data.onnx", "-q")
    assert asr(*words, "--calib", "x.npy") == (0, "", "")
    assert (folder / "data.onnx").read_bytes() == (folder / "idle.compact.onnx").read_bytes()


def test_inspect_tells_what_the_model_costs(folder, asr, rng):
    """``w1`` 8×3×3×3 and ``w2`` 8×8×3×3 at 64 places, and a head of 40."""
    _, out, _ = asr("inspect", "m.onnx")
    assert "13.8 k" in out and "36.9 k" in out
    words = "901 parameters, 50.7 k multiply-accumulates (MACs), 6.0 KiB of activations at a time"
    assert f"the whole model, per sample: {words}" in " ".join(out.split())
    net = build(
        "open (float[N,3,H,W] x) => (float[N,4,H,W] y) { y = Conv <pads = [1,1,1,1]> (x, w) }",
        {"w": normal(rng, 4, 3, 3, 3)},
    )
    onnx.save(net, "open.onnx")
    code, out, _ = asr("inspect", "open.onnx")
    assert code == 0 and "unknown multiply-accumulates" in out and "activations" not in out
    code, out, _ = asr("inspect", "open.onnx", "--input-shapes", "x:2x3x6x5")
    assert code == 0 and out.count("3.2 k") == 2
    code, out, err = asr("inspect", "open.onnx", "--input-shapes", "z:2x3x6x5")
    assert (code, out) == (2, "") and "name 'z'" in err


def test_inspect_tells_of_models_that_cannot_be_fed(folder, asr):
    net = onnx.load("m.onnx")
    words = onnx.helper.make_tensor_value_info("words", onnx.TensorProto.STRING, [1])
    net.graph.input.append(words)
    onnx.save(net, "odd.onnx")
    code, out, _ = asr("inspect", "odd.onnx")
    assert code == 0 and "901 parameters, unknown multiply-accumulates" in " ".join(out.split())


def test_external_data_and_in_place_with_force(folder, asr, rng):
    model = norm_net(rng)
    external_copy(model, folder, "e.onnx", "e.onnx.data")
    assert asr("repair", "e.onnx", "--calib", "x.npy", "-o", "e.onnx", "--force", *SETTINGS)[0] == 0
    (data,) = (f for f in files(folder) if f.endswith(".data"))
    assert data != "e.onnx.data"
    loaded = load("e.onnx")
    assert loaded.external >= {"w1", "w2"}
    assert run(loaded.proto, x=normal(rng, 2, 3, 8, 8))["y"].shape == (2, 5)


def test_an_output_that_came_meanwhile_is_left_alone(folder, asr, monkeypatch):
    real = commands.prune_model

    def slow(*given):
        (folder / "p.onnx").write_text("theirs")
        return real(*given)

    monkeypatch.setattr(commands, "prune_model", slow)
    code, _, err = asr("prune", "m.onnx", "-o", "p.onnx")
    assert code == 1 and "p.1.onnx" in err and "--force" in err
    assert (folder / "p.onnx").read_text() == "theirs"
    assert (stored(load("p.1.onnx").proto)["w2"] == 0).any()


REPAIR = ("repair", "m.onnx", "--calib", "images", "-o", "out.onnx", "-q")


def in_a_process(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "asr_onnx", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.slow
def test_as_a_module_in_a_process_of_its_own(folder):
    done = in_a_process("--version")
    assert (done.returncode, done.stdout.strip().split()[-1]) == (0, __version__)
    done = in_a_process(*REPAIR, *SETTINGS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = in_a_process(*REPAIR, *SETTINGS)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: output 'out.onnx' exists already")
    done = in_a_process("inspect", "none.onnx")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: model 'none.onnx' does not exist\n"


@pytest.mark.slow
def test_what_libraries_warn_developers_of_is_not_shown(folder):
    (folder / "loader.py").write_text(
        """import numpy as np
def load_data():
    np.sqrt(np.float32(-1))
    yield {"x": np.load("x.npy")}
"""
    )
    words = ("repair", "m.onnx", "--data-loader-script", "loader.py", "-q", *SETTINGS)
    assert "RuntimeWarning" in in_a_process(*words, PYTHONWARNINGS="default").stderr
    done = in_a_process(*words, "-o", "other.onnx")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_terminal_without_arrows_is_no_reason_to_fail(folder):
    done = in_a_process("prune", "m.onnx", PYTHONIOENCODING="cp1252")
    assert (done.returncode, done.stderr) == (0, "")
    assert "weights are zero ? m.pruned.onnx" in done.stdout


def test_a_sparsity_in_percent_is_that_share(folder, asr):
    assert asr("prune", "m.onnx", "--sparsity", "50%", "-o", "a.onnx", "-q")[0] == 0
    assert asr("prune", "m.onnx", "--sparsity", "0.5", "-o", "b.onnx", "-q")[0] == 0
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()
    code, _, err = asr("prune", "m.onnx", "--sparsity", "half", "--force")
    assert code == 2 and "'half' is not a share such as 0.8 or 80%" in err


def test_what_a_folder_holds_besides_data_is_told(folder, asr):
    (folder / "images" / "notes.txt").write_text("x")
    code, _, err = asr("repair", "m.onnx", "--calib", "images", *SETTINGS)
    assert code == 0 and "1 file in 'images' ignored: .txt" in err
