"""The tensor store: a limit that holds, arrays that come back as they went in."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_onnx.errors import AsrError
from asr_onnx.execution import tensor_store as module
from asr_onnx.execution.tensor_store import TensorStore, default_limit

KIB = 1 << 10


@pytest.fixture
def spill_all(monkeypatch):
    """Let even the smallest array be spilled."""
    monkeypatch.setattr(module, "_SMALLEST_SPILL", 0)


def block(rng, kib=32):
    return rng.integers(0, 255, kib * KIB, np.uint8)


def assert_same(found, wanted):
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.linspace(-9, 9, 60, dtype=np.float16).reshape(3, 4, 5),
        np.arange(-5, 7, dtype=np.int64).reshape(3, 4),
        np.array([True, False, True]),
        np.array(3.25, np.float32),
        np.zeros((0, 4), np.float32),
        np.arange(60.0).reshape(3, 4, 5).transpose(2, 0, 1),
        np.arange(60, dtype=np.float32).reshape(6, 10)[::2, ::-3],
        np.array([np.nan, -0.0, np.inf], np.float32),
    ],
    ids=["float16", "int64", "bool", "0-d", "empty", "transposed", "strided", "not finite"],
)
def test_spilled_arrays_come_back_bit_for_bit(array, spill_all):
    with TensorStore(0) as store:
        store.put("other", np.ones(5))
        store.put("key", array)
        assert store.in_memory == 0
        assert_same(store["key"], np.ascontiguousarray(array).reshape(array.shape))


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_a_part_is_those_rows_wherever_the_array_lies(rng, limit):
    array = rng.normal(size=(40, 8, 16)).astype(np.float32)
    with TensorStore(limit) as store:
        store.put("a", array)
        assert bool(store.on_disk) == (limit == 0)
        for rows in (slice(None), slice(0, 7), slice(13, 14), slice(30, 99)):
            assert_same(store.part("a", rows), array[rows])


def test_the_limit_holds(rng):
    with TensorStore(100 * KIB) as store:
        for key in range(10):
            store.put(key, block(rng))
            assert store.in_memory <= 100 * KIB
        assert store.in_memory == 96 * KIB
        assert store.on_disk == 7 * 32 * KIB


def test_an_unlimited_store_needs_no_file(rng):
    with TensorStore(1 << 40) as store:
        for key in range(10):
            store.put(key, block(rng))
        assert store.on_disk == 0
        assert store._file is None


def test_what_is_not_worth_a_trip_to_the_disk_stays(rng):
    with TensorStore(0) as store:
        store.put("small", block(rng, 1))
        store.put("large", block(rng))
        assert (store.in_memory, store.on_disk) == (KIB, 32 * KIB)


def test_dropping_makes_room_in_memory_again(rng):
    with TensorStore(40 * KIB) as store:
        store.put("a", block(rng))
        store.put("b", block(rng))
        store.drop("a")
        assert (store.in_memory, store.on_disk) == (0, 32 * KIB)
        store.put("c", block(rng))
        assert (store.in_memory, store.on_disk) == (32 * KIB, 32 * KIB)


def test_a_replaced_array_counts_once(rng):
    with TensorStore(40 * KIB) as store:
        for _ in range(5):
            newest = block(rng)
            store.put("a", newest)
        assert (store.in_memory, store.on_disk) == (32 * KIB, 0)
        assert_same(store["a"], newest)


def test_gaps_in_the_file_are_used_again(rng):
    with TensorStore(0) as store:
        for number in range(50):
            store.put(number, block(rng))
            store.drop(number - 2)
        assert store._file.seek(0, 2) <= 3 * 32 * KIB
        assert store.on_disk == 2 * 32 * KIB


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40), st.booleans()), max_size=40),
    st.integers(0, 200),
)
def test_a_store_is_a_dictionary(steps, limit):
    rng = np.random.default_rng(0)
    wanted = {}
    with TensorStore(limit * KIB) as store:
        for key, kib, keep in steps:
            if keep:
                wanted[key] = block(rng, kib)
                store.put(key, wanted[key])
            else:
                wanted.pop(key, None)
                store.drop(key)
            assert all((k in store) == (k in wanted) for k in range(6))
            for name, array in wanted.items():
                assert_same(store[name], array)
        assert store.in_memory + store.on_disk == sum(a.nbytes for a in wanted.values())


def test_what_is_not_there_raises():
    with TensorStore(0) as store, pytest.raises(KeyError):
        store["nothing"]


def test_the_file_is_closed_at_the_end(rng):
    with TensorStore(0) as store:
        store.put("a", block(rng))
        file = store._file
        assert not file.closed
    assert file.closed
    assert "a" not in store


def test_the_file_is_closed_after_an_exception(rng):
    store = TensorStore(0)
    with pytest.raises(ZeroDivisionError), store:
        store.put("a", block(rng))
        file = store._file
        raise ZeroDivisionError
    assert file.closed


def test_no_name_is_left_in_the_temporary_folder(rng, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with TensorStore(0) as store:
        store.put("a", block(rng))
    assert not list(tmp_path.iterdir())


def test_a_short_write_loses_nothing(rng, monkeypatch, tmp_path):
    """Raw files may write less than asked for: 2 GiB at a time on Linux."""

    class Slow(io.FileIO):
        def write(self, data):
            return super().write(memoryview(data)[:1000])

        def readinto(self, buffer):
            return super().readinto(memoryview(buffer)[:1000])

    def open_slow(buffering=-1, **_):
        raw = Slow(tmp_path / "spill", "w+")
        return io.BufferedRandom(raw) if buffering else raw

    monkeypatch.setattr(module.tempfile, "TemporaryFile", open_slow)
    array = block(rng)
    with TensorStore(0) as store:
        store.put("a", array)
        assert_same(store["a"], array)


@pytest.mark.parametrize("buffered", [False, True])
def test_a_full_disk_is_told_with_what_was_needed_and_the_cures(rng, monkeypatch, buffered):
    """/dev/full takes nothing, whether it is told at once or when the buffer goes."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    opened = functools.partial(io.open, "/dev/full", "r+b", *([] if buffered else [0]))
    monkeypatch.setattr(module.tempfile, "TemporaryFile", lambda prefix: opened())
    monkeypatch.setattr(module, "_SMALLEST_SPILL", 0)
    monkeypatch.setattr(module.tempfile, "tempdir", "/spill")
    with pytest.raises(AsrError) as told, TensorStore(0) as store:
        store.put("small", block(rng, 1))
    for words in ("'/spill'", "No space left", "1 MiB", "TMPDIR", "--memory-limit"):
        assert words in str(told.value)


def test_no_temporary_folder_at_all_is_told_likewise(rng, monkeypatch):
    def none(prefix):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(module.tempfile, "TemporaryFile", none)
    with pytest.raises(AsrError, match="No usable temporary directory"), TensorStore(0) as store:
        store.put("a", block(rng))


def test_the_default_limit_is_at_most_half_of_what_is_free(monkeypatch, tmp_path):
    class Memory:
        available = 8 << 30

    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: Memory)
    monkeypatch.setattr(module, "_CGROUP", tmp_path / "none")
    assert default_limit() == 4 << 30
    monkeypatch.setattr(module, "_CGROUP", tmp_path / "memory.max")
    (tmp_path / "memory.max").write_text("max\n")
    assert default_limit() == 4 << 30
    (tmp_path / "memory.max").write_text(str(3 << 30))
    assert 1 << 28 <= default_limit() < 3 << 29
