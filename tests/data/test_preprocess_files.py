"""Presets and files of preprocessing: what each comes to on pixels, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asr_onnx.data.preprocess import Preprocess
from asr_onnx.data.preprocess_files import PRESETS, find_beside, load_preprocess
from asr_onnx.errors import UsageError
from asr_onnx.graph.inputs import ModelInput

PIXEL = np.array([10, 100, 250], np.uint8)
NORM = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
VIT = NORM | {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 6}}
MEAN, STD = np.array(NORM["image_mean"]), np.array(NORM["image_std"])
TIMM = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 8, 8]}


def write(folder: Path, data: object, name: str = "preprocessor_config.json") -> Path:
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def fed(how: Preprocess, channels: int = 3, side: int | None = None) -> np.ndarray:
    """What becomes of a picture of one colour, (C,)."""
    input = ModelInput("x", np.dtype("float64"), (None, channels, side, side))
    image = Image.fromarray(np.broadcast_to(PIXEL, (24, 24, 3)).copy())
    return how.resolve(input).apply(image)[:, 0, 0]


def geometry(how: Preprocess) -> tuple[object, object, str]:
    return how.resize, how.crop, how.interpolation


def test_presets_on_pixels():
    expected = {
        "imagenet": (PIXEL / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        "cifar10": (PIXEL / 255 - [0.4914, 0.4822, 0.4465]) / [0.2470, 0.2435, 0.2616],
        "minus-one-one": PIXEL / 127.5 - 1,
        "raw": PIXEL,
        "tf": PIXEL / 127.5 - 1,
        "caffe": PIXEL[::-1] - [104, 117, 123],
        "yolo": PIXEL / 255,
        "paddleocr": PIXEL[::-1] / 127.5 - 1,
        "mtcnn": (PIXEL - 127.5) / 128,
    }
    assert expected.keys() == PRESETS.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(fed(load_preprocess(name), side=24), values, atol=1e-12)
        # Another colour order takes the means along.
        order = "rgb" if name in ("caffe", "paddleocr") else "bgr"
        turned = fed(load_preprocess(name, {"color": order}), side=24)
        np.testing.assert_allclose(turned, values[::-1], atol=1e-12)


@pytest.mark.parametrize("name", ["imagenet", "minus-one-one", "raw"])
def test_presets_for_grey_images(name):
    assert np.isfinite(fed(load_preprocess(name), channels=1)).all()


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({}, (PIXEL / 255 - MEAN) / STD),
        ({"rescale_factor": 0.5}, (PIXEL / 2 - MEAN) / STD),
        ({"do_rescale": False}, (PIXEL - MEAN) / STD),
        ({"do_rescale": False, "rescale_offset": True}, (PIXEL - MEAN) / STD),
        ({"do_normalize": False}, PIXEL / 255),
        ({"do_normalize": False, "do_rescale": False}, PIXEL),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, (PIXEL / 127.5 - 1 - MEAN) / STD),
        ({"include_top": True}, (PIXEL / 255 - MEAN) / STD**2),
        ({"do_flip_channel_order": True}, ((PIXEL / 255 - MEAN) / STD)[::-1]),
        ({"image_mean": 0.5, "image_std": 0.5}, (PIXEL / 255 - 0.5) / 0.5),
    ],
)
def test_hugging_face_values(tmp_path, change, values):
    how = load_preprocess(write(tmp_path, VIT | change))
    np.testing.assert_allclose(fed(how), values, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, ((8, 6), None, "bilinear")),
        ({"resample": 3}, ((8, 6), None, "bicubic")),
        ({"do_resize": False}, (None, None, "bilinear")),
        ({"size": {"shortest_edge": 9}}, (9, None, "bilinear")),
        ({"size": 8}, ((8, 8), None, "bilinear")),
        (
            {"size": {"shortest_edge": 9}, "do_center_crop": True, "crop_size": 7},
            (9, (7, 7), "bilinear"),
        ),
        (
            {"do_center_crop": True, "crop_size": {"height": 6, "width": 5}, "resample": 0},
            ((8, 6), (6, 5), "nearest"),
        ),
        ({"do_center_crop": False, "crop_size": 7}, ((8, 6), None, "bilinear")),
        ({"crop_size": None, "do_center_crop": None}, ((8, 6), None, "bilinear")),
        # A feature extractor of CLIP's meant the shorter side by a number.
        (
            {"image_processor_type": None, "feature_extractor_type": "CLIPFeatureExtractor"}
            | {"size": 9, "do_center_crop": True, "crop_size": 7},
            (9, (7, 7), "bilinear"),
        ),
        # transformers: below 384 resize to size / crop_pct and crop, from 384 on squash.
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}}
            | {"crop_pct": 0.95},
            (235, (224, 224), "bilinear"),
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}},
            (256, (224, 224), "bilinear"),
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
            ((384, 384), None, "bilinear"),
        ),
        (
            {"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": 224}}
            | {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
            (256, (224, 224), "bilinear"),
        ),
    ],
)
def test_hugging_face_sizes(tmp_path, change, expected):
    assert geometry(load_preprocess(write(tmp_path, VIT | change))) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, (9, (8, 8), "bicubic")),
        ({"crop_pct": 0.5, "interpolation": "bilinear"}, (16, (8, 8), "bilinear")),
        ({"crop_pct": 1.0, "crop_mode": "squash"}, ((8, 8), (8, 8), "bicubic")),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_timm(tmp_path, change, expected, nested):
    data = TIMM | change
    data = {"architecture": "resnet18", "pretrained_cfg": data} if nested else data
    how = load_preprocess(write(tmp_path, data))
    assert geometry(how) == expected
    np.testing.assert_allclose(fed(how), (PIXEL / 255 - MEAN) / STD, atol=1e-12)


def test_own_settings_come_back(tmp_path):
    settings = Preprocess(mean=(1.0, 2.0, 3.0), std=None, scale=1.0, color="bgr", crop=(3, 4))
    assert load_preprocess(write(tmp_path, settings.to_dict())) == settings


def test_options_win_over_the_file(tmp_path):
    path = write(tmp_path, VIT)
    how = load_preprocess(path, {"scale": 1.0, "mean": (7.0,), "resize": 5})
    assert (how.scale, how.mean, how.resize, how.std) == (1.0, (7.0,), 5, tuple(STD))
    # Given both, a size that is not understood does not matter.
    odd = write(tmp_path, VIT | {"size": {"longest_edge": 5}}, "odd.json")
    assert geometry(load_preprocess(odd, {"resize": 5, "crop": None}))[:2] == (5, None)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("{", "no JSON"),
        ([1], "expected a Hugging Face"),
        ({}, "expected a Hugging Face"),
        ({"sampling_rate": 16000}, "sampling_rate: expected"),
        (VIT | {"input_size": [3, 8, 8]}, "of Hugging Face and of timm"),
        (VIT | {"size": {"longest_edge": 5}}, "give --resize and --crop"),
        (VIT | {"image_processor_type": "NewImageProcessor", "size": 8}, "shorter side or both"),
        (VIT | {"do_pad": True, "size": {"shortest_edge": 8, "longest_edge": 13}}, "on the batch"),
        (VIT | {"resample": 5}, "resample 5"),
        (VIT | {"image_std": None}, "no image_std"),
        (VIT | {"image_mean": ["a"]}, "numbers were expected"),
        (VIT | {"image_std": [0, 1, 1]}, "not positive"),
        (VIT | {"size": {"height": "x", "width": 3}}, "invalid literal"),
        (TIMM | {"crop_mode": "border"}, "'border'"),
        (TIMM | {"input_size": [3, 8, 16]}, "crop_mode"),
        (TIMM | {"input_size": 8}, "input_size 8"),
        (TIMM | {"interpolation": "random"}, "'random'"),
        (TIMM | {"crop_pct": 0}, "zero"),
        ({"mean": "auto", "crop": "wide"}, "'wide'"),
    ],
)
def test_files_that_are_not_certain_are_refused_by_name(tmp_path, data, told):
    path = write(tmp_path, data)
    with pytest.raises(UsageError, match=told) as error:
        load_preprocess(path)
    assert str(path) in str(error.value)


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(UsageError, match="imagenet, cifar10, minus-one-one, raw"):
        load_preprocess("imagnet")


def test_files_are_found_next_to_the_model_the_own_one_first(tmp_path):
    model = tmp_path / "net.v2.onnx"
    assert find_beside(model) is None
    shared = write(tmp_path, VIT)
    assert find_beside(model) == shared
    write(tmp_path, VIT, "other.preprocess.json")
    assert find_beside(model) == shared
    write(tmp_path, VIT, "net.v2.preprocess.json")
    assert find_beside(model) == tmp_path / "net.v2.preprocess.json"


@pytest.mark.parametrize(
    "size",
    [
        {"size": {"height": 16, "width": 24}},
        {"pad_size": {"height": 16, "width": 24}, "size": {"shortest_edge": 9}},
    ],
)
def test_a_processor_that_pads_fills_up_with_zeros_after_normalising(tmp_path, rng, size):
    how = load_preprocess(write(tmp_path, {**NORM, "do_pad": True, "do_normalize": True, **size}))
    image = Image.fromarray(rng.integers(0, 256, (10, 10, 3), np.uint8))
    found = how.resolve(ModelInput("x", np.dtype("float32"), (None, 3, 16, 24))).apply(image)
    assert not found[:, :, 16:].any()
    small = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR), np.float64) / 255
    wanted = ((small - MEAN) / STD).transpose(2, 0, 1)
    np.testing.assert_allclose(found[:, :, :16], wanted, rtol=1e-4, atol=1e-5)


def test_a_square_is_padded_to_and_pixels_are_not_normalised(tmp_path):
    data = {"do_pad": True, "do_normalize": False, "do_rescale": True, "size": {"longest_edge": 20}}
    how = load_preprocess(write(tmp_path, data))
    assert (how.resize, how.pad, how.pad_at) == ((20, 20), 0.0, "corner")
