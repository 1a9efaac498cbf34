"""Writing: refused before any work, or done whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import bare_net, external_copy, files, stored

from asr_onnx.errors import ModelError, UsageError
from asr_onnx.graph import model_file as module
from asr_onnx.graph.model_file import check_target, load, save


def test_targets(rng, tmp_path):
    source, free = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(bare_net(rng), source)
    check_target(free, source, force=False)
    check_target(source, source, force=True)
    for target, message in (
        (source, "is the input model itself"),
        (tmp_path / "." / "in.onnx", "is the input model itself"),
        (tmp_path / "none" / "out.onnx", "folder .* does not exist"),
    ):
        with pytest.raises(UsageError, match=message):
            check_target(target, source, force=False)
    with pytest.raises(UsageError, match="exists already"):
        check_target(source, None, force=False)
    with pytest.raises(UsageError, match="is a folder"):
        check_target(tmp_path, source, force=True)


def test_another_models_data_file_is_not_overwritten(tmp_path):
    (tmp_path / "out.onnx.data").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"out.onnx.data' exists already"):
        check_target(tmp_path / "out.onnx", None, force=False)
    check_target(tmp_path / "out.onnx", None, force=True)


@pytest.mark.skipif(os.access("/", os.W_OK), reason="this user may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot be written"):
        check_target(tmp_path / "out.onnx", None, force=False)


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("too big")])
def test_a_failing_save_leaves_the_old_file_and_no_other(
    rng, tmp_path, monkeypatch, error, external
):
    path = external_copy(bare_net(rng), tmp_path, "m.onnx", "m.onnx.data")
    loaded = load(path)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}

    def fail(proto, target, **_):
        Path(target).write_bytes(b"half a model")
        raise error

    monkeypatch.setattr(module.onnx, "save_model", fail)
    with pytest.raises(ModelError, match=r"m.onnx' (cannot be written: No space|would exceed)"):
        save(loaded.proto, path, loaded.external if external else frozenset())
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]


def test_saving_leaves_no_temporary_folder(rng, tmp_path):
    save(bare_net(rng), tmp_path / "o.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["o.onnx"]


def test_a_model_is_saved_over_its_own_external_data(rng, tmp_path):
    model = bare_net(rng)
    path = external_copy(model, tmp_path, "m.onnx", "m.onnx.data")
    loaded = load(path)
    save(loaded.proto, path, loaded.external)
    assert files(tmp_path) == ["m.onnx", "m.onnx.data"]
    np.testing.assert_array_equal(stored(load(path).proto)["w2"], stored(model)["w2"])
