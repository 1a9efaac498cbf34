"""Weights that stay in their file: the same results, without having all of them in memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from models import ROOT, bare_net, build, external_copy, files, norm_net, normal, run, stored

from asr_onnx import ModelError, PruneOptions, RepairOptions, prune, recipe, repair
from asr_onnx.execution import session
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph import tensor_values as module
from asr_onnx.graph.model_file import load
from asr_onnx.graph.saving import save
from asr_onnx.graph.tensor_values import Scratch, is_in_file


@pytest.fixture
def all_large(monkeypatch):
    """Whatever can stay in a file does."""
    monkeypatch.setattr(module, "LARGE", 1)


REPAIRS = {
    "asr": recipe("asr", sparsity=0.6),
    "best": recipe("best", sparsity=0.6),
    "paper": recipe("paper", sparsity=0.6),
    "2:4": RepairOptions(pattern="2:4", criterion="obs", ops=("Conv", "Gemm")),
}


@pytest.mark.parametrize("options", REPAIRS.values(), ids=REPAIRS)
def test_a_repair_in_place_is_the_repair_in_memory(rng, tmp_path, all_large, options):
    path, x = external_copy(norm_net(rng), tmp_path), normal(rng, 40, 3, 8, 8)
    wanted = repair(load(path).proto, x, options)
    loaded = load(path, in_place=True)
    found = repair(loaded.proto, x, options)
    assert all(map(is_in_file, loaded.proto.graph.initializer))
    assert {t.name for t in found.model.graph.initializer if is_in_file(t)} >= {"w1", "w2", "fw"}
    for name, model in (("a.onnx", wanted.model), ("b.onnx", found.model)):
        save(model, tmp_path / name, loaded.external)
    a, b = (stored(load(tmp_path / name).proto) for name in ("a.onnx", "b.onnx"))
    for name, value in a.items():
        np.testing.assert_array_equal(b[name], value)
    onnx.checker.check_model(str(tmp_path / "b.onnx"))


def test_pruning_in_place_is_pruning_in_memory(rng, tmp_path, all_large):
    path = external_copy(bare_net(rng), tmp_path)
    wanted = stored(prune(load(path).proto, PruneOptions(0.7)))
    save(prune(load(path, in_place=True).proto, PruneOptions(0.7)), path)  # over its own data
    for name, value in stored(load(path).proto).items():
        np.testing.assert_array_equal(value, wanted[name])


def test_small_tensors_are_read_at_once(rng, tmp_path):
    path = external_copy(bare_net(rng), tmp_path)
    assert not any(map(is_in_file, load(path, in_place=True).proto.graph.initializer))


def test_pruning_in_place_never_has_all_weights_in_memory(rng, tmp_path):
    nodes = "".join(f"t{n + 1} = Conv <pads = [1, 1, 1, 1]> (t{n}, w{n}) " for n in range(20))
    weights = {f"w{n}": normal(rng, 128, 128, 3, 3) for n in range(20)}
    model = build(f"net (float[N,128,4,4] t0) => (float[N,128,4,4] t20) {{ {nodes} }}", weights)
    path = external_copy(model, tmp_path)
    prune(load(path).proto)  # what comes but once
    tracemalloc.start()
    loaded = load(path, in_place=True)
    save(prune(loaded.proto), tmp_path / "out.onnx", loaded.external)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < sum(w.nbytes for w in weights.values())


def test_a_session_gets_large_weights_in_place(rng, monkeypatch, all_large):
    model, x = norm_net(rng), normal(rng, 4, 3, 8, 8)
    sources, real = [], session.ort.InferenceSession

    def spy(source, *rest, **more):
        sources.append(source)
        return real(source, *rest, **more)

    monkeypatch.setattr(session.ort, "InferenceSession", spy)
    found = run(model, x=x)["y"]
    monkeypatch.setattr(module, "LARGE", 1 << 30)
    np.testing.assert_array_equal(found, run(model, x=x)["y"])
    assert len(sources[1]) - len(sources[0]) > stored(model)["w2"].nbytes


def test_a_session_takes_bfloat16_in_place(rng, monkeypatch, all_large):
    bfloat16 = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
    model = build(
        "net (float[N,3] x) => (float[N,3] y) { v = Cast <to = 1> (w) y = Add (x, v) }",
        {"w": normal(rng, 3).astype(bfloat16)},
    )
    x = normal(rng, 2, 3)
    found = run(model, x=x)["y"]
    monkeypatch.setattr(module, "LARGE", 1 << 30)
    np.testing.assert_array_equal(found, run(model, x=x)["y"])


def test_weights_at_an_odd_place_are_read(rng, tmp_path, all_large):
    path = external_copy(bare_net(rng), tmp_path)
    raw = onnx.load(path, load_external_data=False)
    for tensor in raw.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "offset":
                entry.value = str(int(entry.value) + 1)
    path.write_bytes(raw.SerializeToString())
    data = tmp_path / "weights.bin"
    data.write_bytes(b"\0" + data.read_bytes())
    x = normal(rng, 2, 3, 8, 8)
    placed = Runner(load(path, in_place=True).proto, Device()).run({"x": x})["y"]
    np.testing.assert_array_equal(placed, run(load(path).proto, x=x)["y"])


def test_no_room_for_new_weights_is_told_with_the_cure(rng, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with closing(Scratch()) as scratch, monkeypatch.context() as patched:
        patched.setattr(scratch, "_file", SimpleNamespace(seek=lambda *_: 0, write=fail))
        with pytest.raises(ModelError, match=r"No space left on device.*TMPDIR"):
            scratch.put(np.ones(9))
        patched.undo()


@pytest.mark.skipif(sys.platform == "win32", reason="no locks: it goes when a day old")
def test_what_a_killed_run_left_in_the_temporary_folder_goes_with_the_next(tmp_path, monkeypatch):
    code = "import os; from asr_onnx.graph.tensor_values import scratch; scratch(); os._exit(9)"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=60).returncode == 9
    assert len(files(tmp_path)) == 1
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with closing(Scratch()) as scratch:
        found = scratch.put(np.ones(9))
        assert files(tmp_path) == [str(Path(found.path).relative_to(tmp_path))]
    assert list(tmp_path.iterdir()) == []


def test_weights_whose_file_is_gone_are_told_with_the_cure(rng, tmp_path, all_large):
    path = tmp_path / "m.onnx"
    save(bare_net(rng), path, frozenset({"w1"}))
    loaded = load(path, in_place=True)
    pruned = prune(loaded.proto, PruneOptions(sparsity=0.5))
    save(pruned, path, loaded.external)  # takes the data away that it replaces
    save(pruned, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=r"weights in '.*m.onnx.*data' are gone: .*load"):
        save(loaded.proto, tmp_path / "again.onnx")
    with pytest.raises(ModelError, match="are gone"):
        Runner(loaded.proto, Device())
