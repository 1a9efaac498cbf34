"""Writing: refused before any work, or done whole, or not at all."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import bare_net, external_copy, files, normal, stored

from asr_onnx.errors import ModelError, UsageError
from asr_onnx.graph import saving as module
from asr_onnx.graph.model_file import apply, check_target, load
from asr_onnx.graph.records import Patch
from asr_onnx.graph.saving import save


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


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders")
def test_what_is_no_file_is_not_replaced_even_with_force(tmp_path):
    os.mkfifo(tmp_path / "out.onnx")
    with pytest.raises(UsageError, match="device"):
        check_target(tmp_path / "out.onnx", None, force=True)


def test_weights_that_were_not_loaded_are_not_looked_for_in_the_current_folder(
    rng, tmp_path, monkeypatch
):
    proto = onnx.load(external_copy(bare_net(rng), tmp_path), load_external_data=False)
    monkeypatch.chdir(tmp_path)  # where a file of that name is
    with pytest.raises(ModelError, match="still lies in an external file: load the model with"):
        save(proto, "out.onnx")


def test_a_damaged_target_is_overwritten(rng, tmp_path):
    target = external_copy(bare_net(rng), tmp_path, "m.onnx", "weightsXYZ")
    target.write_bytes(target.read_bytes().replace(b"weightsXYZ", b"weights\xff\xfe\xfd"))
    save(bare_net(rng), target)
    load(target)


def test_data_files_that_others_left_are_not_in_the_way(rng, tmp_path):
    (tmp_path / "out.onnx.data").write_bytes(b"precious")
    check_target(tmp_path / "out.onnx", None, force=False)
    save(bare_net(rng), tmp_path / "out.onnx", frozenset({"w1"}), force=False)
    assert (tmp_path / "out.onnx.data").read_bytes() == b"precious"


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
    for _ in range(2):  # the second finds its own data file
        loaded = load(path)
        save(loaded.proto, path, loaded.external)
        name, data = files(tmp_path)
        assert re.fullmatch(r"m\.onnx\.[0-9a-f]{8}\.data", data) and name == "m.onnx"
        np.testing.assert_array_equal(stored(load(path).proto)["w2"], stored(model)["w2"])


def test_data_that_another_model_reads_stay(rng, tmp_path):
    path = external_copy(bare_net(rng), tmp_path, "m.onnx", "m.onnx.data")
    (tmp_path / "copy.onnx").write_bytes(path.read_bytes())
    loaded = load(path)
    save(loaded.proto, path, loaded.external)
    load(tmp_path / "copy.onnx")


def test_written_files_have_the_mode_that_any_file_has(rng, tmp_path):
    save(bare_net(rng), tmp_path / "m.onnx", frozenset({"w1"}))
    (tmp_path / "any").touch()
    assert len({p.stat().st_mode for p in tmp_path.iterdir()}) == 1
    assert len(files(tmp_path)) == 3


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("kill", [False, True], ids=["an error", "a kill"])
def test_wherever_saving_ends_one_whole_model_is_there(rng, tmp_path, monkeypatch, step, kill):
    path = external_copy(bare_net(rng), tmp_path, "m.onnx", "m.onnx.data")
    loaded = load(path)
    old, new = stored(loaded.proto), normal(rng, 8, 3, 3, 3)
    steps, move = iter(range(9)), Path.replace

    def fail(self, target):
        if next(steps) == step:
            raise (KeyboardInterrupt if kill else OSError(5, "Input/output error"))
        return move(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt if kill else ModelError):
        save(apply(loaded.proto, Patch({"w1": new})), path, loaded.external)
    np.testing.assert_array_equal(stored(load(path).proto)["w1"], old["w1"])
    assert kill or files(tmp_path) == ["m.onnx", "m.onnx.data"]
    save(apply(loaded.proto, Patch({"w1": new})), path, loaded.external)
    np.testing.assert_array_equal(stored(load(path).proto)["w1"], new)
    assert len(files(tmp_path)) == 2


def test_data_that_cannot_be_taken_away_do_no_harm(rng, tmp_path, monkeypatch):
    path = external_copy(bare_net(rng), tmp_path, "m.onnx", "m.onnx.data")
    loaded = load(path)

    def fail(self, missing_ok=False):
        raise PermissionError(13, "in use")

    monkeypatch.setattr(Path, "unlink", fail)
    save(loaded.proto, path, loaded.external)
    assert len(files(tmp_path)) == 3
    load(path)


@pytest.mark.parametrize("links", [True, False])
def test_an_output_that_came_into_being_is_not_overwritten(rng, tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(module.os, "link", _no_links)
    model, path = bare_net(rng), tmp_path / "m.onnx"
    save(model, path, force=False)
    before = path.read_bytes()
    for number in (1, 2):
        kept = tmp_path / f"m.{number}.onnx"
        with pytest.raises(ModelError, match=rf"finished model is '.*{kept.name}'.* --force"):
            save(model, path, frozenset({"w1"}), force=False)
        np.testing.assert_array_equal(stored(load(kept).proto)["w1"], stored(model)["w1"])
    assert path.read_bytes() == before


def _no_links(*_):
    raise OSError(95, "Operation not supported")
