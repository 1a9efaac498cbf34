"""Calibration data against BatchNormalization: silent when right, telling what is wrong else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from models import EVALUATION, ROOT, build, copied, norm_net, run, tap

from asr_onnx.data.arrays import ArraySamples
from asr_onnx.data.batches import Batches
from asr_onnx.data.openers import open_samples
from asr_onnx.data.preprocess import Preprocess
from asr_onnx.data.preprocess_files import load_preprocess
from asr_onnx.evaluation.preflight import check_preprocessing
from asr_onnx.execution.session import Device
from asr_onnx.graph.inputs import model_inputs

RESNET = EVALUATION / "models" / "resnet20_bn.onnx"
CIFAR = EVALUATION / "cifar10" / "train"
needs_data = pytest.mark.skipif(not RESNET.exists(), reason="no evaluation data")
COLOUR = np.array([[200.0, 40.0, 20.0], [30.0, 10.0, 60.0]])  # mean and deviation of the pixels


def check(model: onnx.ModelProto | Path, data: object, **settings: object) -> str | None:
    proto = onnx.load(model) if isinstance(model, Path) else model
    inputs = model_inputs(proto)
    if isinstance(data, Path):
        preset = settings.pop("preset", None)
        how = load_preprocess(preset, settings) if preset else Preprocess(**settings)
        samples = open_samples(data, inputs, how)
    else:
        samples = ArraySamples.from_data(data, inputs)
    return check_preprocessing(proto, Batches(samples, inputs, seed=3), Device())


def pixels(rng: np.random.Generator, count: int = 96) -> np.ndarray:
    """Reddish pictures, (N, 3, 8, 8)."""
    mean, std = COLOUR[:, :, None, None]
    return np.clip(rng.normal(mean, std, (count, 3, 8, 8)), 0, 255).astype(np.float32)


def trained(rng: np.random.Generator, x: np.ndarray) -> onnx.ModelProto:
    """A network whose first BatchNormalization has seen ``x``, and which is sure of red things."""
    model = norm_net(rng)
    c1 = run(tap(model, "c1"), x=x)["c1"].astype(np.float64)
    m1, v1 = c1.mean((0, 2, 3)), c1.var((0, 2, 3))
    return copied(model, m1=m1.astype(np.float32), v1=v1.astype(np.float32))


@needs_data
@pytest.mark.parametrize("settings", [{}, {"preset": "imagenet"}, {"preset": "cifar10"}])
def test_right_preprocessing_of_a_real_network_is_silent(settings):
    assert check(RESNET, CIFAR, **settings) is None


@needs_data
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"color": "bgr"}, "--color rgb"),
        ({"scale": 1.0}, "--preprocess imagenet"),
        ({"preset": "raw"}, "--preprocess imagenet"),
        ({"preset": "minus-one-one"}, "--preprocess imagenet"),
        ({"mean": None, "std": None}, "--preprocess imagenet"),
    ],
)
def test_mistakes_with_a_real_network_are_told(settings, told):
    warning = check(RESNET, CIFAR, **settings)
    assert warning is not None and told in warning


def test_sample_model_is_silent_by_default_and_tells_a_wrong_range():
    model = ROOT / "sample_models" / "digits_resnet_bn.onnx"
    data = ROOT / "sample_models" / "digits" / "calib"
    assert check(model, data) is None
    warning = check(model, data, preset="raw")
    assert warning is not None and "--preprocess imagenet" in warning
    assert check(ROOT / "sample_models" / "digits_resnet_folded.onnx", data, preset="raw") is None


@pytest.mark.parametrize("preset", ["imagenet", "minus-one-one", "raw"])
def test_arrays_that_were_not_preprocessed_are_told_the_preset(rng, preset):
    x = pixels(rng)
    how = load_preprocess(preset).resolve(model_inputs(norm_net(rng))[0]).settings
    mean, std = (np.reshape(v, (-1, 1, 1)) for v in (how.mean or 0.0, how.std or 1.0))
    fed = ((x * how.scale - mean) / std).astype(np.float32)
    model = trained(rng, fed)
    assert check(model, fed) is None
    warning = check(model, x / 255)
    assert warning is not None and f"--preprocess {preset}" in warning


def test_data_that_nothing_explains_are_told_without_a_cure(rng):
    x = pixels(rng)
    noise = 40 * rng.standard_normal(x.shape).astype(np.float32) - 300
    warning = check(trained(rng, x / 255), noise)
    assert warning is not None and "no usual preprocessing fits" in warning


def test_too_few_samples_and_folded_models_say_nothing(rng):
    x = pixels(rng)
    model = trained(rng, x / 255)
    assert check(model, x) is not None
    assert check(model, x[:8]) is None
    bare = build(
        "bare (float[N,3,8,8] x) => (float[N,4,6,6] y) { y = Conv (x, w) }",
        {"w": np.ones((4, 3, 3, 3), np.float32)},
    )
    assert check(bare, x) is None


@pytest.mark.parametrize("classes", [True, False])
def test_swapped_colours_are_told_by_confidence_or_else_by_the_fit(rng, classes):
    """A network that knows slightly red pictures, and is sure of what is red."""
    mean = np.float32([0.15, 0.0, -0.15]).reshape(3, 1, 1)
    x = mean + 0.5 * rng.standard_normal((96, 3, 8, 8)).astype(np.float32)
    weights = {
        "w": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
        "s": np.float32([4, 4, 4]),
        "b": np.float32([4, 0, 0]),
        "m": x.mean((0, 2, 3)),
        "v": x.var((0, 2, 3)),
    }
    shape, head = "float[N,3,8,8]", "y = Relu (n)"
    if classes:
        shape, head = "float[N,3]", "p = GlobalAveragePool (n) y = Flatten (p)"
    model = build(
        f"""net (float[N,3,8,8] x) => ({shape} y) {{
            c = Conv (x, w)
            n = BatchNormalization (c, s, b, m, v)
            {head}
        }}""",
        weights,
    )
    assert check(model, x) is None
    warning = check(model, np.ascontiguousarray(x[:, ::-1]))
    assert warning is not None and "colour" in warning
    assert ("confidence" in warning) == classes
