"""Laws of arrays as calibration data: what is fed, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from samples import VEC, X, rows

from asr_onnx.data.arrays import ArraySamples
from asr_onnx.data.batches import Batches
from asr_onnx.data.openers import open_samples
from asr_onnx.data.preprocess import Preprocess
from asr_onnx.errors import CalibrationError, UsageError
from asr_onnx.graph.inputs import ModelInput


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_arrays_are_fed_as_they_are_in_the_models_type(tmp_path, dtype):
    data = np.random.default_rng(1).normal(size=(5, 3, 4, 4)).astype(dtype)
    np.save(tmp_path / "a.npy", data)
    np.savez(tmp_path / "a.npz", anything=data)
    for found in (
        open_samples(tmp_path / "a.npy", [X]),
        open_samples(tmp_path / "a.npz", [X]),
        ArraySamples.from_data(data, [X]),
    ):
        assert len(found) == 5
        fed = np.stack([s["x"] for s in found])
        assert fed.dtype == np.float32 and np.array_equal(fed, data.astype(np.float32))
    assert open_samples(tmp_path / "a.npy", [X]).name(3) == f"{tmp_path / 'a.npy'}[3]"


def test_npz_keys_are_input_names(tmp_path):
    np.savez(tmp_path / "two.npz", v=rows(3, (2,)), x=rows(3))
    found = open_samples(tmp_path / "two.npz", [X, VEC])
    assert found[2]["v"].tolist() == [2, 2] and found[2]["x"].shape == (3, 4, 4)
    np.savez(tmp_path / "odd.npz", w=rows(3, (2,)), x=rows(3))
    with pytest.raises(CalibrationError, match=r"odd\.npz.*'w', 'x'.*'x', 'v'"):
        open_samples(tmp_path / "odd.npz", [X, VEC])
    np.savez(tmp_path / "uneven.npz", v=rows(3, (2,)), x=rows(4))
    with pytest.raises(CalibrationError, match=r"uneven\.npz.*'x' \[4, 3, 4, 4\].*'v' \[3, 2\]"):
        open_samples(tmp_path / "uneven.npz", [X, VEC])
    with pytest.raises(CalibrationError, match=r"'array' has shape \[3, 4, 4\]"):
        ArraySamples.from_data(rows(3)[0], [X])
    with pytest.raises(CalibrationError, match=r"one array.*'x', 'v'"):
        ArraySamples.from_data(rows(3), [X, VEC])


def test_integer_models_take_integers_that_fit():
    ids = ModelInput("ids", np.dtype("uint8"), (None, 2))
    fed = ArraySamples.from_data(np.array([[1, 255]]), [ids])[0]["ids"]
    assert fed.dtype == np.uint8 and fed.tolist() == [1, 255]
    with pytest.raises(CalibrationError, match=r"sample 1 of 'array'.*uint8 cannot hold.*'ids'"):
        ArraySamples.from_data(np.array([[1, 2], [3, 256]]), [ids])[1]
    with pytest.raises(CalibrationError, match=r"'array' is float64.*'ids'"):
        ArraySamples.from_data(np.ones((1, 2)), [ids])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (rows(2, dtype="uint8"), "'a.npy' is uint8.*'x'.*preprocess them to float or give image"),
        (rows(2) > 0, "'a.npy' is bool.*'x'"),
        (rows(2, (3, 4)), r"'a.npy' has shape \[2, 3, 4\].*'x' takes \[\?, 3, 4, 4\]"),
        (rows(2, (3, 4, 5)), r"'a.npy' has shape \[2, 3, 4, 5\].*'x' takes \[\?, 3, 4, 4\]"),
        (rows(2)[0], r"'a.npy' has shape \[3, 4, 4\].*'x' takes \[\?, 3, 4, 4\]"),
        (np.float32(3), r"'a.npy' has shape \[\].*'x' takes \[\?, 3, 4, 4\]"),
        (rows(0), "'a.npy' holds no samples"),
        (np.array([{}, None]), "'a.npy' cannot be read"),
    ],
)
def test_arrays_that_do_not_fit_name_file_and_input(tmp_path, monkeypatch, array, message):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", array, allow_pickle=True)
    with pytest.raises(CalibrationError, match=message):
        open_samples("a.npy", [X])


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_damaged_array_files_are_named(tmp_path, suffix):
    path = tmp_path / f"bad.{suffix}"
    np.save(path, rows(9)) if suffix == "npy" else np.savez(path, rows(9))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:3], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(CalibrationError, match=rf"bad\.{suffix}' cannot be read"):
            open_samples(path, [X])


def test_object_arrays_in_npz_are_refused(tmp_path):
    np.savez(tmp_path / "o.npz", x=np.array([{}]))
    with pytest.raises(CalibrationError, match=r"o\.npz' cannot be read.*Python objects"):
        open_samples(tmp_path / "o.npz", [X])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_values_name_file_and_sample(tmp_path, value):
    data = rows(4)
    data[2, 0, 0, 0] = value
    np.save(tmp_path / "n.npy", data)
    found = open_samples(tmp_path / "n.npy", [X])
    assert np.array_equal(found[1]["x"], data[1])
    with pytest.raises(CalibrationError, match=r"sample 2 of '.*n\.npy' has NaN or Inf"):
        found[2]
    with pytest.raises(CalibrationError, match=r"n\.npy"):
        list(Batches(found, [X]))


def test_values_too_large_for_half_precision():
    half = ModelInput("x", np.dtype("float16"), (None, 1))
    with pytest.raises(
        CalibrationError, match="sample 1 of 'array' has values that float16 cannot"
    ):
        ArraySamples.from_data(np.array([[1.0], [1e6]]), [half])[1]


def test_folder_of_arrays_mixes_lone_samples_and_batches(tmp_path):
    data = rows(9)
    np.save(tmp_path / "b.npy", data[1:4])
    np.save(tmp_path / "a.npy", data[0])
    np.savez(tmp_path / "c.npz", data[4])
    (tmp_path / "d").mkdir()
    np.savez(tmp_path / "d" / "e.NPZ", data[5:9])
    (tmp_path / "d" / "e.NPZ.npz").rename(tmp_path / "d" / "e.NPZ")
    found = open_samples(tmp_path, [X])
    assert np.array_equal(np.stack([s["x"] for s in found]), data)
    names = [found.name(i) for i in range(len(found))]
    assert names[:5] == ["a.npy", "b.npy[0]", "b.npy[1]", "b.npy[2]", "c.npz"]
    assert names[5:] == [f"d/e.NPZ[{i}]" for i in range(4)]


def test_many_files_stay_closed(tmp_path):
    resource = pytest.importorskip("resource")
    for i in range(40):
        np.save(tmp_path / f"{i:02}.npy", rows(1)[0] + np.float32(i))
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (30, old[1]))
    try:
        values = [s["x"][0, 0, 0] for s in open_samples(tmp_path, [X])]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)
    assert values == list(range(40))


def test_arrays_refuse_preprocessing(tmp_path):
    np.save(tmp_path / "a.npy", rows(2))
    assert len(open_samples(tmp_path / "a.npy", [X], Preprocess())) == 2
    for path in (tmp_path, tmp_path / "a.npy"):
        with pytest.raises(UsageError, match=f"{re.escape(str(path))}.*leave out the preproc"):
            open_samples(path, [X], Preprocess(crop=4))
