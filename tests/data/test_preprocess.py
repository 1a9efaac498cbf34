"""Laws of image preprocessing, on small pictures whose result is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asr_onnx.data.pictures import read_image
from asr_onnx.data.preprocess import Preprocess
from asr_onnx.errors import CalibrationError, UsageError
from asr_onnx.graph.inputs import ModelInput

RNG = np.random.default_rng(7)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
RAW = {"mean": None, "std": None, "scale": 1.0}


def model_input(*shape: int | None, dtype: str = "float32") -> ModelInput:
    return ModelInput("x", np.dtype(dtype), (None, *shape))


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels)[: 3 if channels > 1 else 2]
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def pixels(image: Image.Image, channels: int = 3, **settings: object) -> np.ndarray:
    """What a model of free size without normalisation is fed, (C, H, W)."""
    chosen = Preprocess(**{**RAW, **settings})
    return chosen.resolve(model_input(channels, None, None)).apply(image)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_imagenet_values_are_rounded_once(dtype):
    picture = noise(8, 6)
    fed = Preprocess().resolve(model_input(3, 8, 6, dtype=dtype)).apply(Image.fromarray(picture))
    exact = (picture * (1 / 255) - MEAN) / STD
    assert fed.dtype == dtype and fed.flags.c_contiguous
    assert np.array_equal(fed, exact.transpose(2, 0, 1).astype(dtype))


def test_one_channel_is_grey_with_averaged_values():
    picture = noise(5, 5)
    fed = Preprocess().resolve(model_input(1, 5, 5)).apply(Image.fromarray(picture))
    grey = np.asarray(Image.fromarray(picture).convert("L"))
    assert np.array_equal(fed, ((grey * (1 / 255) - 0.449) / 0.226).astype(np.float32)[None])
    assert np.isclose(MEAN.mean(), 0.449) and np.isclose(STD.mean(), 0.226)


def test_grey_picture_for_rgb_model_repeats_its_channel():
    picture = noise(4, 4, 1)
    assert np.array_equal(pixels(Image.fromarray(picture)), np.stack([picture] * 3))


def test_one_value_is_broadcast():
    one = Preprocess(mean=(0.5,), std=[0.25]).resolve(model_input(3, 4, 4))
    three = Preprocess(mean=(0.5,) * 3, std=(0.25,) * 3).resolve(model_input(3, 4, 4))
    assert one.tables.shape == (3, 256)
    assert np.array_equal(one.tables, three.tables)
    assert one.tables[0, 255] == 2.0


def test_bgr_reverses_channels_and_default_values_but_keeps_given_order():
    image = Image.fromarray(noise(4, 5))
    target = model_input(3, 4, 5)
    rgb = Preprocess().resolve(target).apply(image)
    assert np.array_equal(Preprocess(color="bgr").resolve(target).apply(image), rgb[::-1])
    caffe = Preprocess((1.0, 2.0, 3.0), None, 1.0, "bgr").resolve(target).apply(image)
    expected = np.asarray(image)[..., ::-1].transpose(2, 0, 1) - np.reshape([1, 2, 3], (3, 1, 1))
    assert np.array_equal(caffe, expected)


@pytest.mark.parametrize(("layout", "settled"), [("auto", "nhwc"), ("nhwc", "nhwc")])
def test_channels_last(layout, settled):
    image = Image.fromarray(noise(4, 6))
    last = Preprocess(layout=layout).resolve(model_input(4, 6, 3))
    fed = last.apply(image)
    assert last.settings.layout == settled and fed.flags.c_contiguous
    first = Preprocess().resolve(model_input(3, 4, 6)).apply(image)
    assert np.array_equal(fed, first.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("shape", "layout", "channels"),
    [
        ((3, 9, 9), "nchw", 3),
        ((1, 9, 9), "nchw", 1),
        ((9, 9, 3), "nhwc", 3),
        ((9, 9, 1), "nhwc", 1),
        ((3, 9, 3), "nchw", 3),
        ((1, 9, 1), "nchw", 1),
        ((None, 9, 9), "nchw", 3),
        ((None, None, 3), "nhwc", 3),
        ((None, None, None), "nchw", 3),
    ],
)
def test_layout_and_channels_follow_the_models_shape(shape, layout, channels):
    resolved = Preprocess().resolve(model_input(*shape))
    assert (resolved.settings.layout, resolved.channels) == (layout, channels)


def test_uint8_model_gets_the_pixels():
    picture = noise(4, 4)
    resolved = Preprocess().resolve(model_input(3, 4, 4, dtype="uint8"))
    fed = resolved.apply(Image.fromarray(picture))
    assert fed.dtype == np.uint8
    assert np.array_equal(fed, picture.transpose(2, 0, 1))
    with pytest.raises(UsageError, match=r"'x'.*leave out mean, std and scale"):
        Preprocess(mean=(0.5,)).resolve(model_input(3, 4, 4, dtype="uint8"))


def test_image_of_the_models_size_is_used_as_it_is():
    picture = noise(32, 32)
    fed = Preprocess(**RAW).resolve(model_input(3, 32, 32)).apply(Image.fromarray(picture))
    assert np.array_equal(fed, picture.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("size", "resized", "box"),  # width, height; box is left, top, right, bottom
    [((500, 375), (341, 256), (58, 16, 282, 240)), ((60, 90), (256, 384), (16, 80, 240, 304))],
)
def test_automatic_size_is_shorter_side_over_0875_and_centre_crop(size, resized, box):
    image = Image.fromarray(noise(size[1], size[0]))
    fed = Preprocess(**RAW).resolve(model_input(3, 224, 224)).apply(image)
    expected = image.resize(resized, Image.Resampling.BILINEAR).crop(box)
    assert np.array_equal(fed, np.asarray(expected).transpose(2, 0, 1))


def test_automatic_size_of_an_oblong_input_covers_it():
    resolved = Preprocess().resolve(model_input(3, 14, 28))
    for size in [(10, 10), (100, 10), (10, 100), (15, 29)]:
        assert resolved.apply(Image.new("RGB", size)).shape == (3, 14, 28)
    assert "cover 16x32" in resolved.describe()


def test_given_sizes():
    image = Image.fromarray(noise(20, 30))
    cut = np.asarray(image).transpose(2, 0, 1)
    assert np.array_equal(pixels(image, crop=10), cut[:, 5:15, 10:20])
    assert np.array_equal(pixels(image, crop=(4, 6)), cut[:, 8:12, 12:18])
    assert np.array_equal(pixels(image, crop=(20, 6)), cut[:, :, 12:18])
    assert np.array_equal(pixels(image, crop=(4, 30)), cut[:, 8:12])
    assert np.array_equal(pixels(image), cut)
    assert pixels(image, resize=10).shape == (3, 10, 15)
    assert pixels(image, resize=(7, 9)).shape == (3, 7, 9)
    assert pixels(image, resize=10, crop=8).shape == (3, 8, 8)


def test_one_size_given_and_the_models_known():
    image = Image.fromarray(noise(20, 30))
    target = model_input(3, 8, 8)

    def fed(**settings: object) -> np.ndarray:
        return Preprocess(**RAW, **settings).resolve(target).apply(image)

    small = image.resize((15, 10), Image.Resampling.BILINEAR).crop((4, 1, 12, 9))
    assert np.array_equal(fed(resize=10), np.asarray(small).transpose(2, 0, 1))
    centre = np.asarray(image)[6:14, 11:19].transpose(2, 0, 1)
    assert np.array_equal(fed(resize=None), centre)
    assert np.array_equal(fed(crop=8), centre)
    squeezed = image.resize((8, 8), Image.Resampling.BILINEAR)
    assert np.array_equal(fed(crop=None), np.asarray(squeezed).transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "nearest", "lanczos", "box"])
def test_interpolation_is_pillows(name):
    image = Image.fromarray(noise(20, 20))
    expected = image.resize((9, 7), Image.Resampling[name.upper()])
    fed = pixels(image, resize=(7, 9), interpolation=name)
    assert np.array_equal(fed, np.asarray(expected).transpose(2, 0, 1))


def test_wrong_size_names_image_sizes_and_cure():
    with pytest.raises(CalibrationError, match=r"'a\.png'.*10x12.*8x8.*--resize.*--crop"):
        Preprocess(resize=(10, 12), crop=None).resolve(model_input(3, 8, 8)).apply(
            Image.new("RGB", (9, 9)), "a.png"
        )
    for width, height in [(7, 6), (7, 8), (8, 7), (20, 7), (7, 20)]:
        message = rf"'a\.png' is {height}x{width}.*8x8.*--resize"
        with pytest.raises(CalibrationError, match=message):
            resolved = Preprocess(crop=8).resolve(model_input(3, 8, 8))
            resolved.apply(Image.new("RGB", (width, height)), "a.png")
    half_known = Preprocess().resolve(model_input(3, 8, None))
    assert half_known.apply(Image.new("RGB", (5, 8))).shape == (3, 8, 5)
    with pytest.raises(CalibrationError, match=r"'b'.*6x5.*8x\?"):
        half_known.apply(Image.new("RGB", (5, 6)), "b")


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    deep = np.array([[0, 128, 129], [257 * 100, 257 * 200, 65535]], np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    expected = [[0, 0, 1], [100, 200, 255]]
    image = read_image(tmp_path / "deep.png")
    assert image.mode.startswith("I")
    assert np.array_equal(pixels(image, 1)[0], expected)
    wide = deep + 70000 * (deep == 65535) - 300 * (deep == 0)
    assert np.array_equal(pixels(Image.fromarray(wide.astype(np.int32)), 1)[0], expected)


@pytest.mark.filterwarnings("error")
def test_alpha_palette_bilevel_and_cmyk():
    solid = noise(6, 6)
    alpha = Image.fromarray(np.dstack([solid, noise(6, 6, 1)]))
    assert np.array_equal(pixels(alpha), solid.transpose(2, 0, 1))
    palette = Image.fromarray(solid).quantize(16)
    palette.info["transparency"] = bytes(range(16))
    expected = np.asarray(palette.convert("RGBA"))[..., :3].transpose(2, 0, 1)
    assert np.array_equal(pixels(palette), expected)
    bits = noise(6, 6, 1) > 127
    assert np.array_equal(pixels(Image.fromarray(bits), 1)[0], bits * 255)
    cmyk = Image.fromarray(solid).convert("CMYK")
    assert np.array_equal(pixels(cmyk), solid.transpose(2, 0, 1))


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, -1), (3, 2), (8, 1)])
def test_exif_orientation_is_applied(tmp_path, orientation, turns):
    picture = noise(4, 6)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    fed = pixels(read_image(tmp_path / "turned.png"))
    assert np.array_equal(fed, np.rot90(picture, turns).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": (1.0, 2.0)}, "mean.*1 or 3 numbers"),
        ({"mean": "none"}, "mean 'none'.*1 or 3 numbers"),
        ({"mean": 0.5}, "mean 0.5.*1 or 3 numbers"),
        ({"mean": (float("nan"),)}, "mean.*1 or 3 numbers"),
        ({"std": (0.0,)}, "std.*not positive"),
        ({"scale": -1.0}, "scale -1.0"),
        ({"scale": 0.0}, "scale 0.0"),
        ({"scale": float("inf")}, "scale inf"),
        ({"scale": "big"}, "scale 'big'"),
        ({"color": "hsv"}, "color 'hsv'.*rgb, bgr"),
        ({"layout": "chw"}, "layout 'chw'.*nhwc"),
        ({"interpolation": "best"}, "interpolation 'best'.*bicubic"),
        ({"resize": 0}, "resize 0"),
        ({"resize": (1, 2, 3)}, r"resize \(1, 2, 3\)"),
        ({"crop": "small"}, "crop 'small'"),
        ({"crop": (True, 2)}, "crop"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        Preprocess(**settings)


def test_settings_that_do_not_go_with_the_model():
    with pytest.raises(UsageError, match=r"mean has 3 values.*'x'"):
        Preprocess(mean=(0.1, 0.2, 0.3)).resolve(model_input(1, 4, 4))
    with pytest.raises(UsageError, match=r"'x'.*cannot hold"):
        Preprocess(std=(1e-6,)).resolve(model_input(3, 4, 4, dtype="float16"))
    with pytest.raises(CalibrationError, match=r"'x'.*4 channels"):
        Preprocess().resolve(model_input(4, 8, 8))
    with pytest.raises(CalibrationError, match=r"'x'.*8 channels in nchw"):
        Preprocess(layout="nchw").resolve(model_input(8, 8, 3))
    with pytest.raises(CalibrationError, match=r"'x' \(float32 \[\?, 10\]\)"):
        Preprocess().resolve(model_input(10))
    with pytest.raises(CalibrationError, match=r"'x' \(int64"):
        Preprocess().resolve(model_input(3, 8, 8, dtype="int64"))


@pytest.mark.parametrize(
    "settings",
    [
        Preprocess(),
        Preprocess((0.5,), None, 1.0, "bgr", "nhwc", 40, (32, 30), "bicubic"),
        Preprocess(mean=None, resize=None, crop=None),
    ],
)
def test_json_round_trip(settings):
    assert Preprocess.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_settled_settings_settle_to_themselves():
    target = model_input(24, 24, 3)
    first = Preprocess(color="bgr").resolve(target)
    again = Preprocess.from_dict(json.loads(json.dumps(first.settings.to_dict()))).resolve(target)
    assert again.settings == first.settings and again.geometry == first.geometry
    assert np.array_equal(again.tables, first.tables)


def test_unknown_key_is_named():
    with pytest.raises(UsageError, match=r"'men'.*mean"):
        Preprocess.from_dict({"men": [0.5]})


def test_description():
    assert Preprocess().resolve(model_input(3, 32, 32)).describe() == (
        "RGB, shorter side to 37 (bilinear) + centre crop 32x32 unless 32x32 already, "
        "pixels / 255, mean 0.485 0.456 0.406, std 0.229 0.224 0.225, NCHW float32"
    )
    raw = Preprocess(resize=(9, 8)).resolve(model_input(None, None, 1, dtype="uint8"))
    assert raw.describe() == "grey, resize to 9x8 (bilinear), NHWC uint8"
    bare = Preprocess(None, None, 0.5, "bgr", crop=7).resolve(model_input(3, None, None))
    assert bare.describe() == "BGR, centre crop 7x7, pixels * 0.5, NCHW float32"
    free = Preprocess(None, None, 1.0).resolve(model_input(3, None, None))
    assert free.describe() == "RGB, size as it is, NCHW float32"


def test_unreadable_image_is_named(tmp_path):
    Image.fromarray(noise(64, 64)).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    for name in ["cut.png", "text.png", "missing.png"]:
        with pytest.raises(CalibrationError, match=f"{name}' cannot be read"):
            read_image(Path(tmp_path / name))


def letterboxed(image, size, value, corner, mean=0.0, std=1.0, scale=1.0):
    """By hand: fitted, then put into a box full of ``value``; (H, W, 3)."""
    height, width = size
    ratio = min(height / image.height, width / image.width)
    inner = round(image.height * ratio), round(image.width * ratio)
    small = np.asarray(image.resize(inner[::-1], Image.Resampling.BILINEAR), np.float64)
    box = np.full((height, width, 3), float(value))
    top, left = (0, 0) if corner else ((height - inner[0]) // 2, (width - inner[1]) // 2)
    box[top : top + inner[0], left : left + inner[1]] = small
    return (box * scale - mean) / std


@pytest.mark.parametrize("size", [(10, 20), (20, 10), (7, 7), (40, 13)])
@pytest.mark.parametrize("corner", [False, True])
def test_a_letterbox_is_that_made_by_hand(rng, size, corner):
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
    wanted = ModelInput("x", np.dtype("float32"), (None, 3, 16, 24))
    how = Preprocess(
        pad=114, pad_at="corner" if corner else "center", mean=(0.5,), std=(0.25,), scale=1 / 255
    )
    found = how.resolve(wanted).apply(image)
    by_hand = letterboxed(image, (16, 24), 114, corner, 0.5, 0.25, 1 / 255)
    np.testing.assert_allclose(found.transpose(1, 2, 0), by_hand, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"pad": -1}, "pad -1 is not a pixel value, 0 to 255, nor mean"),
        ({"pad": "grey"}, "pad 'grey' is not a pixel value"),
        ({"pad": 0, "crop": 8}, "leave out crop"),
        ({"pad": 0, "pad_at": "left"}, "pad_at 'left' is not one of center, corner"),
    ],
)
def test_padding_that_is_invalid(settings, message):
    with pytest.raises(UsageError, match=message):
        Preprocess(**settings)


def test_a_letterbox_needs_a_size():
    open_size = ModelInput("x", np.dtype("float32"), (None, 3, None, None))
    with pytest.raises(UsageError, match="give --resize H,W to pad to"):
        Preprocess(pad=0).resolve(open_size)
    assert Preprocess(pad=0, resize=(8, 12)).resolve(open_size).geometry.box == (8, 12)
