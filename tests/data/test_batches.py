"""Laws of calibration data: what is read, in which order, and how it is cut into batches."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from asr_onnx.data.batches import (
    ArraySamples,
    Batches,
    ImageSamples,
    ModelInput,
    as_batches,
    model_inputs,
    open_samples,
    take,
)
from asr_onnx.data.openers import left_out
from asr_onnx.data.preprocess import Preprocess
from asr_onnx.errors import CalibrationError, ModelError, UsageError

X = ModelInput("x", np.dtype("float32"), (None, 3, 4, 4))
VEC = ModelInput("v", np.dtype("float32"), (None, 2))


def rows(count: int, shape: tuple[int, ...] = (3, 4, 4), dtype: str = "float32") -> np.ndarray:
    """Samples that know their number: all elements of sample i are i."""
    ramp = np.arange(count).reshape(-1, *[1] * len(shape))
    return np.broadcast_to(ramp, (count, *shape)).astype(dtype)


def samples(count: int, inputs: tuple[ModelInput, ...] = (X,)) -> ArraySamples:
    return ArraySamples.from_data({i.name: rows(count, i.shape[1:]) for i in inputs}, inputs)


def picture(path, value: int, size: tuple[int, int] = (4, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value,) * 3).save(path)


# --- model inputs


def graph(*inputs: onnx.ValueInfoProto, initializers: tuple[onnx.TensorProto, ...] = ()):
    return helper.make_model(helper.make_graph([], "g", list(inputs), [], list(initializers)))


def test_model_inputs_leave_out_initializers_and_free_dimensions():
    weight = onnx.numpy_helper.from_array(np.zeros(3, np.float32), "w")
    proto = graph(
        helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", 1, None, 0]),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [3]),
        helper.make_tensor_value_info("n", TensorProto.INT64, [2]),
        initializers=(weight,),
    )
    assert model_inputs(proto) == (
        ModelInput("x", np.dtype("float16"), (None, 1, None, None)),
        ModelInput("n", np.dtype("int64"), (2,)),
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [1]),
            "'s' is not a tensor",
        ),
        (helper.make_tensor_value_info("u", TensorProto.UNDEFINED, [1]), "'u' is not a tensor"),
        (helper.make_tensor_value_info("t", TensorProto.FLOAT, None), "'t' has no known rank"),
        (
            helper.make_tensor_value_info("c", TensorProto.FLOAT, []),
            "'c' has no known rank or no b",
        ),
        (helper.make_tensor_value_info("b", TensorProto.BFLOAT16, [1]), "'b' is BFLOAT16"),
        (helper.make_tensor_value_info("z", TensorProto.STRING, [1]), "'z' is STRING"),
    ],
)
def test_inputs_that_cannot_be_fed(value, message):
    with pytest.raises(ModelError, match=message):
        model_inputs(graph(value))


def test_model_without_inputs():
    with pytest.raises(ModelError, match="no inputs"):
        model_inputs(graph())


# --- selection


def test_take_is_a_seeded_prefix():
    some, everything = take(samples(10), 4, 3), take(samples(10), 99, 3)
    assert everything[:4] == some
    assert sorted(everything) == list(range(10))
    assert take(samples(10), 99, 3) == everything != take(samples(10), 99, 4)
    assert all(type(i) is int for i in some)
    with pytest.raises(UsageError, match="number of samples 0"):
        take(samples(10), 0, 0)
    with pytest.raises(UsageError, match="seed -1"):
        take(samples(10), 1, -1)


# --- batches


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


# --- arrays


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
    with pytest.raises(CalibrationError, match=r"o\.npz' cannot be read.*allow_pickle"):
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


# --- images


def test_image_folder_order_names_and_classes(tmp_path):
    for value, name in enumerate(
        ["B.png", "a/x.PNG", "a/y.jpg", "b/deep/z.webp", "c.bmp", "d.jpeg"]
    ):
        picture(tmp_path / name, value)
    picture(tmp_path / ".hidden.png", 99)
    picture(tmp_path / ".cache" / "x.png", 99)
    (tmp_path / "notes.txt").write_text("ignored")
    found = open_samples(tmp_path, [X], Preprocess(None, None, 1.0))
    assert isinstance(found, ImageSamples)
    expected = ["B.png", "a/x.PNG", "a/y.jpg", "b/deep/z.webp", "c.bmp", "d.jpeg"]
    assert [found.name(i) for i in range(len(found))] == expected
    assert [p.relative_to(tmp_path).as_posix() for p in found.paths] == expected
    assert [found.class_folder(i) for i in range(6)] == ["", "a", "a", "b", "", ""]
    assert [found[i]["x"].mean() for i in (0, 1, 4)] == [0, 1, 4]


def test_linked_class_folders_are_followed_but_not_in_circles(tmp_path):
    picture(tmp_path / "elsewhere" / "a.png", 1)
    root = tmp_path / "root"
    root.mkdir()
    (root / "class").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (root / "self").symlink_to(root)
    found = open_samples(root, [X])
    assert [found.name(i) for i in range(len(found))] == ["class/a.png"]


def test_unreadable_folder_is_named(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    with pytest.raises(CalibrationError, match=f"'{tmp_path}' cannot be read: Permission denied"):
        open_samples(tmp_path, [X])


def test_unreadable_image_is_named_when_it_is_read(tmp_path):
    picture(tmp_path / "a.png", 1)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    found = open_samples(tmp_path, [X])
    assert found[0]["x"].shape == (3, 4, 4)
    with pytest.raises(CalibrationError, match=r"b\.png' cannot be read"):
        found[1]


def test_images_of_different_sizes_name_two_and_the_cure(tmp_path):
    free = ModelInput("x", np.dtype("float32"), (None, 3, None, None))
    picture(tmp_path / "a.png", 1, (4, 4))
    picture(tmp_path / "b.png", 1, (5, 6))
    with pytest.raises(CalibrationError) as caught:
        list(Batches(open_samples(tmp_path, [free]), [free], holdout=0))
    for part in ("'a.png' [3, 4, 4]", "'b.png' [3, 6, 5]", "--resize", "--crop"):
        assert part in str(caught.value)
    cured = Batches(open_samples(tmp_path, [free], Preprocess(crop=4)), [free])
    assert [f["x"].shape for f in cured] == [(1, 3, 4, 4)] * 2


def test_paths_without_usable_data_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    picture(tmp_path / "mixed" / "a.png", 1)
    np.save(tmp_path / "mixed" / "b.npy", rows(1))
    for name, message in [
        ("missing", "missing' does not exist"),
        ("empty", "empty' has no samples: put .png"),
        ("notes.txt", "notes.txt' is neither"),
        ("mixed", r"mixed' mixes images \('a.png'\) and arrays \('b.npy'\)"),
    ]:
        with pytest.raises(CalibrationError, match=message):
            open_samples(tmp_path / name, [X])


def test_images_need_a_single_input(tmp_path):
    picture(tmp_path / "a.png", 1)
    with pytest.raises(CalibrationError, match=r"2 inputs \('x', 'v'\)"):
        open_samples(tmp_path, [X, VEC])


# --- the Python API


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
    free = ModelInput("x", np.dtype("float32"), (None, 3, None, None))
    for number, size in enumerate([(4, 4), (5, 6), (8, 3)]):
        picture(tmp_path / f"{number}.png", 1, size)
    found = Batches(open_samples(tmp_path, [free]), [free], batch_size=1, holdout=0)
    assert sorted(f["x"].shape for f in found) == [(1, 3, 3, 8), (1, 3, 4, 4), (1, 3, 6, 5)]


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "BMP", "WEBP", "PNG", "JPEG"])
def test_every_format_that_is_named_is_read(tmp_path, kind):
    free = ModelInput("x", np.dtype("float32"), (None, 3, None, None))
    path = tmp_path / f"a.{ {'JPEG': 'jpg', 'TIFF': 'tif'}.get(kind, kind.lower()) }"
    Image.fromarray(np.full((6, 6, 3), 128, np.uint8)).save(path, kind)
    (feeds,) = Batches(open_samples(tmp_path, [free]), [free], holdout=0)
    assert feeds["x"].shape == (1, 3, 6, 6)


def test_nothing_else_is_opened_whatever_it_is_called(tmp_path):
    free = ModelInput("x", np.dtype("float32"), (None, 3, None, None))
    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(tmp_path / "a.eps", "EPS")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(CalibrationError, match=r"image '.*a.png' cannot be read"):
        Batches(open_samples(tmp_path, [free]), [free])


def test_files_that_are_no_data_are_counted(tmp_path):
    picture(tmp_path / "images" / "a.png", 1)
    assert left_out(tmp_path / "images") is None
    for name in ("b.txt", "c.txt", "d.heic"):
        (tmp_path / "images" / name).write_text("x")
    assert left_out(tmp_path / "images").startswith("3 files in '")
    assert left_out(tmp_path / "images").endswith("ignored: .heic, .txt")
