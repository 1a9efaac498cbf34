"""Laws of what a path holds: which files are read, in which order, and the draw among them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from samples import FREE, VEC, X, picture, rows, samples

from asr_onnx.data.batches import Batches
from asr_onnx.data.openers import ImageSamples, left_out, open_samples, take
from asr_onnx.data.preprocess import Preprocess
from asr_onnx.errors import CalibrationError, UsageError


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
    picture(tmp_path / "a.png", 1, (4, 4))
    picture(tmp_path / "b.png", 1, (5, 6))
    with pytest.raises(CalibrationError) as caught:
        list(Batches(open_samples(tmp_path, [FREE]), [FREE], holdout=0))
    for part in ("'a.png' [3, 4, 4]", "'b.png' [3, 6, 5]", "--resize", "--crop"):
        assert part in str(caught.value)
    cured = Batches(open_samples(tmp_path, [FREE], Preprocess(crop=4)), [FREE])
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


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "BMP", "WEBP", "PNG", "JPEG"])
def test_every_format_that_is_named_is_read(tmp_path, kind):
    path = tmp_path / f"a.{ {'JPEG': 'jpg', 'TIFF': 'tif'}.get(kind, kind.lower()) }"
    Image.fromarray(np.full((6, 6, 3), 128, np.uint8)).save(path, kind)
    (feeds,) = Batches(open_samples(tmp_path, [FREE]), [FREE], holdout=0)
    assert feeds["x"].shape == (1, 3, 6, 6)


def test_nothing_else_is_opened_whatever_it_is_called(tmp_path):
    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(tmp_path / "a.eps", "EPS")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(CalibrationError, match=r"image '.*a.png' cannot be read"):
        Batches(open_samples(tmp_path, [FREE]), [FREE])


def test_files_that_are_no_data_are_counted(tmp_path):
    picture(tmp_path / "images" / "a.png", 1)
    assert left_out(tmp_path / "images") is None
    for name in ("b.txt", "c.txt", "d.heic"):
        (tmp_path / "images" / name).write_text("x")
    assert left_out(tmp_path / "images").startswith("3 files in '")
    assert left_out(tmp_path / "images").endswith("ignored: .heic, .txt")
