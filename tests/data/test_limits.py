"""Data that would take all memory, or never end, are refused before they are read."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import onnx
import pytest
from PIL import Image

from asr_onnx import limits
from asr_onnx.data.foreign import from_json, from_test_data
from asr_onnx.data.labels import find_labels
from asr_onnx.data.npy import from_npz
from asr_onnx.data.openers import ImageSamples, open_samples
from asr_onnx.data.pictures import Geometry, read_image, with_channels
from asr_onnx.data.preprocess_files import load_preprocess
from asr_onnx.errors import AsrError, CalibrationError, UsageError
from asr_onnx.graph.inputs import ModelInput

X = ModelInput("x", np.dtype("float32"), (None, 3, 8, 8))


@pytest.fixture
def frugal():
    """Fails a test that asks Python for more than 100 MiB."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * limits.MIB


def png(width, height, depth=8):
    """A grey picture of zeros."""

    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    packer = zlib.compressobj(9)
    row = bytes(1 + width * depth // 8)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def npy_header(shape, dtype="<f4"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


@pytest.mark.parametrize("width, height", [(13000, 13000), (9500, 9500), (80_000_001, 1)])
def test_images_of_too_many_pixels_are_refused(tmp_path, frugal, width, height):
    data = png(8, 8, 16)
    size = struct.pack(">II", width, height)
    head = data[12:16] + size + data[24:29]
    path = tmp_path / "a.png"
    path.write_bytes(data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:])
    with pytest.raises(CalibrationError, match=r"a\.png' cannot be read .*more than 80 million"):
        read_image(path)


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(resize=(256, 256), crop=(224, 224)),
        Geometry(resize=(10**5, 10**5), cover=False),
        Geometry(box=(10**5, 10**5)),
    ],
)
def test_images_that_would_become_too_large_are_refused(tmp_path, frugal, geometry):
    (tmp_path / "thin.png").write_bytes(png(400_000, 1))
    image = read_image(tmp_path / "thin.png")
    with pytest.raises(CalibrationError, match=r"'thin\.png' cannot be resized.*80 million"):
        geometry.apply(image, "thin.png")


def test_sixteen_bits_become_eight_by_rounding():
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    eight = np.asarray(with_channels(Image.fromarray(deep), 1))
    assert np.array_equal(eight, np.rint(deep / 257))


def bomb(path, members):
    """A .npz whose members hold what is given; zeros follow to the size told."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (head, size) in members.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(head)
                for _ in range(size // limits.MIB):
                    file.write(bytes(limits.MIB))
    return path


def test_archives_that_expand_to_gigabytes_are_refused(tmp_path, frugal, monkeypatch):
    monkeypatch.setattr(limits, "UNPACKED", 30 * limits.MIB)
    shape = (40 * limits.MIB // 768, 3, 8, 8)
    path = bomb(tmp_path / "b.npz", {"x.npy": (npy_header(shape), 40 * limits.MIB)})
    with pytest.raises(CalibrationError, match=r"b\.npz' cannot be read .*expand to 40 MiB"):
        open_samples(path, [X])


def test_what_is_stored_may_be_as_large_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "UNPACKED", 100)
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3, 8, 8), np.float32))
    assert len(open_samples(tmp_path / "x.npz", [X])) == 2


@pytest.mark.parametrize("shape", [(10**12,), (2**62, 4), (10**6, 3, 8, 8)])
def test_headers_that_claim_more_than_there_is_are_refused(tmp_path, frugal, shape):
    lie = npy_header(shape) + bytes(64)
    bomb(tmp_path / "x.npz", {"x.npy": (lie, 0)})
    (tmp_path / "x.npy").write_bytes(lie)
    text = base64.b64encode(lie).decode()
    zipped = base64.b64encode((tmp_path / "x.npz").read_bytes()).decode()
    for number, array in enumerate((text, zipped)):
        feeds = {"x": {"polygraphy_class": "ndarray", "array": array}}
        (tmp_path / f"{number}.json").write_text(json.dumps(feeds))
    for name in ("x.npz", "x.npy"):
        with pytest.raises(CalibrationError, match=f"'.*{name}' cannot be read"):
            open_samples(tmp_path / name, [X])
    for name in ("0.json", "1.json"):
        with pytest.raises(CalibrationError, match=f"'.*{name}' cannot be read"):
            from_json([tmp_path / name], [X])
    with pytest.raises(CalibrationError, match=r"x\.npy' cannot be read"):
        find_labels(tmp_path / "x.npy", open_images(tmp_path))


@pytest.mark.parametrize(
    "tensor, told",
    [
        (onnx.TensorProto(dims=[10**6, 10**6], data_type=1), "GiB"),
        (onnx.TensorProto(dims=[-1], data_type=1), "negative"),
        (onnx.TensorProto(dims=[4], data_type=1, raw_data=b"123"), "3 bytes"),
        (onnx.TensorProto(dims=[4], data_type=77), "data type 77"),
        (onnx.TensorProto(dims=[4], data_type=1, data_location=1), "another file"),
    ],
)
def test_test_data_that_are_not_whole_are_refused(tmp_path, frugal, tensor, told):
    (tmp_path / "input_0.pb").write_bytes(tensor.SerializeToString())
    with pytest.raises(CalibrationError, match=f"input_0.pb' holds no tensor.*{told}"):
        from_test_data(tmp_path, [X])


def open_images(folder):
    (folder / "images").mkdir(exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "images" / "a.png")
    return open_samples(folder / "images", [X])


READERS = {
    "a.png": lambda path, images: read_image(path),
    "a.npy": lambda path, images: open_samples(path, [X]),
    "a.npz": lambda path, images: open_samples(path, [X]),
    "inputs.json": lambda path, images: from_json([path], [X]),
    "labels.csv": lambda path, images: find_labels(path, images),
    "labels.npy": lambda path, images: find_labels(path, images),
    "classes.txt": lambda path, images: find_labels([0], images, path),
    "p.json": lambda path, images: load_preprocess(path),
}


@pytest.mark.parametrize("name", READERS)
def test_pipes_are_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(AsrError, match=name):
        READERS[name](tmp_path / name, open_images(tmp_path))


@pytest.mark.parametrize("name", ["inputs.json", "labels.csv", "classes.txt", "p.json"])
def test_texts_of_gigabytes_are_refused_unread(tmp_path, frugal, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate(5 * limits.GIB)  # takes no room on the disk
    with pytest.raises(AsrError, match=f"{name}' cannot be read: it has more than"):
        READERS[name](tmp_path / name, open_images(tmp_path))


@pytest.mark.parametrize("name", ["inputs.json", "labels.json", "classes.json", "p.json"])
@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"pretrained_cfg":' * 900 + b"1" + b"}" * 900])
def test_json_nested_too_deeply_is_refused(tmp_path, name, text):
    (tmp_path / name).write_bytes(text)
    readers = {
        **READERS,
        "labels.json": READERS["labels.csv"],
        "classes.json": READERS["classes.txt"],
    }
    with pytest.raises(AsrError, match=name):
        readers[name](tmp_path / name, open_images(tmp_path))


@pytest.mark.parametrize(
    "name, text, told",
    [
        ("l.json", "[99999999999999999999]", "neither an index"),
        ("l.json", '{"a.png": 99999999999999999999}', "neither an index"),
        ("l.json", '["99999999999999999999"]', "is the name '99999"),
        ("l.json", '["' + "9" * 5000 + '"]', "is the name '99999"),
        ("l.csv", "a.png,99999999999999999999", "is the name '99999"),
        ("l.csv", "a.png," + "1" * 200_000, "no CSV"),
        ("l.csv", "", "nothing for"),
        ("l.json", "", "no JSON"),
        ("l.npy", "", "cannot be read"),
    ],
)
def test_labels_no_integer_holds_and_fields_no_reader_takes_are_refused(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(CalibrationError, match=rf"{name}'.*{told}") as error:
        find_labels(tmp_path / name, open_images(tmp_path))
    assert len(str(error.value)) < 400


def test_a_folder_with_a_longer_number_goes_by_its_position(tmp_path):
    for folder in ("20261125004200123456789", "20261125004200123456790"):
        path = tmp_path / folder / "a.png"
        path.parent.mkdir()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    samples = open_samples(tmp_path, [X])
    assert isinstance(samples, ImageSamples)
    assert find_labels(None, samples).values.tolist() == [0, 1]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
@pytest.mark.parametrize("key", ["mean", "std", "scale", "pad", "image_mean", "crop_pct"])
def test_numbers_that_are_none_are_refused_in_preprocessing(tmp_path, key, number):
    value = number if key in ("scale", "pad", "crop_pct") else f"[{number}]"
    rest = ', "image_std": [1], "do_normalize": true' if key == "image_mean" else ""
    path = tmp_path / "p.json"
    path.write_text(f'{{"{key}": {value}{rest}}}')
    with pytest.raises(UsageError, match=r"p\.json'"):
        load_preprocess(path)


def test_a_broken_archive_within_saved_inputs_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros((2, 3, 8, 8), np.float32))
    array = base64.b64encode(buffer.getvalue()[:-30] + bytes(30)).decode()
    feeds = {"x": {"polygraphy_class": "ndarray", "array": array}}
    (tmp_path / "i.json").write_text(json.dumps(feeds))
    with pytest.raises(CalibrationError, match=r"i\.json' cannot be read"):
        from_json([tmp_path / "i.json"], [X])


def test_an_archive_reads_as_numpy_reads_it(rng):
    arrays = {"x": rng.normal(size=(2, 3)), "y": np.arange(3), "z": np.asfortranarray(np.eye(3))}
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, **arrays)
        found = from_npz(buffer)
        assert found.keys() == arrays.keys()
        assert all(np.array_equal(found[k], v) for k, v in arrays.items())
