"""Laws of batches: how samples are cut into them, and what may be made into them."""

from __future__ import annotations

import numpy as np
import pytest
from samples import FREE, VEC, X, picture, rows, samples

from asr_onnx.data.arrays import ArraySamples
from asr_onnx.data.batches import Batches, as_batches
from asr_onnx.data.openers import open_samples, take
from asr_onnx.data.preprocess import Preprocess
from asr_onnx.errors import CalibrationError, ModelError, UsageError
from asr_onnx.graph.inputs import ModelInput


@pytest.mark.parametrize("count", [1, 2, 3, 10, 33])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("size", [1, 4, 50])
def test_batches_partition_the_selection(count, share, size):
    made = Batches(samples(count), [X], size, holdout=share, seed=5)
    solve = [i for b in made.batches if not b.held_out for i in b.samples]
    held = [i for b in made.batches if b.held_out for i in b.samples]
    assert tuple(solve + held) == take(samples(count), count, 5)
    expected = min(max(round(share * count), 1), count - 1) if share and count > 1 else 0
    assert (made.num_solve, made.num_held_out) == (count - expected, expected)
    assert [b.index for b in made.batches] == list(range(len(made)))
    flags = [b.held_out for b in made.batches]
    assert flags == sorted(flags)
    assert all(0 < len(b.samples) <= size for b in made.batches)


def test_default_settings():
    made = Batches(samples(600), [X])
    assert (made.batch_size, made.num_solve, made.num_held_out) == (32, 410, 102)
    assert made.batches[0].samples == take(samples(600), 512, 0)[:32]


def test_feeds_are_the_batches_samples_on_every_pass():
    made = Batches(samples(11, (X, VEC)), [X, VEC], 4, num_samples=9, seed=2)
    for _ in range(2):
        fed = list(made)
        assert len(fed) == len(made.batches)
        for batch, feeds in zip(made.batches, fed, strict=True):
            assert list(feeds) == ["x", "v"]
            for name, shape in (("x", (3, 4, 4)), ("v", (2,))):
                expected = np.stack([rows(11, shape)[i] for i in batch.samples])
                assert np.array_equal(feeds[name], expected)
                assert feeds[name].flags.c_contiguous and feeds[name].dtype == np.float32
    assert made.num_solve + made.num_held_out == 9


def test_fixed_batch_size_wins_and_drops_what_it_cannot_fill():
    fixed = ModelInput("x", np.dtype("float32"), (4, 3, 4, 4))
    made = Batches(samples(23), [fixed], batch_size=7, holdout=0.4)
    assert made.fixed_batch == made.batch_size == 4
    assert all(len(b.samples) == 4 for b in made.batches)
    assert (made.num_solve, made.num_held_out) == (12, 8)  # of 14 and 9
    assert Batches(samples(3), [X]).fixed_batch is None
    single = ModelInput("x", np.dtype("float32"), (1, 3, 4, 4))
    assert len(Batches(samples(7), [single])) == 7


def test_too_few_samples_for_the_fixed_batch_says_how_many_suffice():
    fixed = ModelInput("x", np.dtype("float32"), (8, 3, 4, 4))
    with pytest.raises(CalibrationError, match=r"9 calibration samples.*fixed to 8.*takes 10 "):
        Batches(samples(9), [fixed], holdout=0.2)
    assert Batches(samples(10), [fixed], holdout=0.2).num_solve == 8
    other = ModelInput("v", np.dtype("float32"), (2, 2))
    with pytest.raises(ModelError, match=r"8 \('x'\) and 2 \('v'\)"):
        Batches(samples(20, (fixed, other)), [fixed, other])


def test_impossible_settings():
    with pytest.raises(UsageError, match="batch size 0"):
        Batches(samples(4), [X], batch_size=0)
    with pytest.raises(UsageError, match="held-out share 1 "):
        Batches(samples(4), [X], holdout=1)


class Custom:
    """Samples of one's own: a list of dicts."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]

    def name(self, index):
        return f"item {index}"


def test_custom_samples_are_checked():
    good, bad = rows(1)[0], rows(1)[0].copy()
    assert np.array_equal(next(iter(as_batches(Custom({"x": good}), [X])))["x"], good[None])
    bad[0, 1, 2] = np.inf
    for item, message in [
        ({"x": bad}, "'item 0' has NaN or Inf for input 'x'"),
        ({"y": good}, "'item 0' has nothing for input 'x'"),
        ({"x": good.astype(np.float64)}, "'item 0' is float64"),
        ({"x": good[:2]}, r"'item 0'.*\[2, 4, 4\].*\[3, 4, 4\]"),
    ]:
        with pytest.raises(CalibrationError, match=message):
            Batches(Custom(item), [X])
    with pytest.raises(CalibrationError, match="no samples"):
        Batches(Custom(), [X])


def test_as_batches_takes_every_form(tmp_path):
    data = rows(6)
    np.save(tmp_path / "a.npy", data)
    forms = [
        data,
        {"x": data},
        [{"x": data[:4]}, {"x": data[4:]}],
        ({"x": data[i : i + 2]} for i in range(0, 6, 2)),
        tmp_path / "a.npy",
        str(tmp_path / "a.npy"),
        ArraySamples.from_data(data, [X]),
    ]
    expected = [f["x"] for f in Batches(samples(6), [X], 4, seed=3, holdout=0.5)]
    for form in forms:
        made = as_batches(form, [X], batch_size=4, seed=3, holdout=0.5)
        for _ in range(2):
            for fed, want in zip(made, expected, strict=True):
                assert np.array_equal(fed["x"], want)
    assert as_batches(made, [X]) is made


def test_a_generator_may_reuse_its_array():
    def stream():
        buffer = np.empty((1, 3, 4, 4), np.float32)
        for value in range(4):
            buffer[:] = value
            yield {"x": buffer}

    made = as_batches(stream(), [X], holdout=0, batch_size=1)
    assert sorted(float(f["x"][0, 0, 0, 0]) for f in made) == [0, 1, 2, 3]


def test_as_batches_preprocesses_images(tmp_path):
    picture(tmp_path / "a.png", 200, (9, 9))
    made = as_batches(tmp_path, [X], Preprocess(None, None, 1.0))
    assert np.array_equal(next(iter(made))["x"], np.full((1, 3, 4, 4), 200, np.float32))


def test_as_batches_refuses_other_data():
    with pytest.raises(UsageError, match="type int"):
        as_batches(3, [X])
    with pytest.raises(CalibrationError, match="batch 1 is a list"):
        as_batches([{"x": rows(1)}, [1]], [X])
    with pytest.raises(CalibrationError, match=r"'batch 1' has shape \[1, 3, 4\]"):
        as_batches([{"x": rows(1)}, {"x": rows(1, (3, 4))}], [X])
    with pytest.raises(CalibrationError, match="holds no samples"):
        as_batches([], [X])
    with pytest.raises(UsageError, match="leave out the preprocessing"):
        as_batches(rows(2), [X], Preprocess(crop=4))


def test_sizes_may_vary_from_batch_to_batch(tmp_path):
    for number, size in enumerate([(4, 4), (5, 6), (8, 3)]):
        picture(tmp_path / f"{number}.png", 1, size)
    found = Batches(open_samples(tmp_path, [FREE]), [FREE], batch_size=1, holdout=0)
    assert sorted(f["x"].shape for f in found) == [(1, 3, 3, 8), (1, 3, 4, 4), (1, 3, 6, 5)]
