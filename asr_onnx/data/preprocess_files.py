"""Preprocessing people already have: presets, Hugging Face and timm files, this tool's own JSON.

Every reader turns a file into settings of ``Preprocess``.  A file is refused, with its name and the
cure, where its meaning is not certain: a wrong guess would spoil the repair in silence.

Sources: transformers' image processors (``image_processing_*.py``, ``get_size_dict``), timm's
``data/config.py`` (``resolve_data_config``) and ``data/transforms_factory.py``
(``transforms_imagenet_eval``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from asr_onnx.data.pictures import RESAMPLING
from asr_onnx.data.preprocess import Preprocess
from asr_onnx.data.texts import parse_json, read_text
from asr_onnx.errors import UsageError

Settings = Mapping[str, Any]

PRESETS: Mapping[str, Settings] = {
    # torchvision's and timm's ImageNet values; of one channel, their averages.
    "imagenet": {"mean": "auto", "std": "auto", "scale": 1 / 255},
    # Mean and deviation over all pixels of CIFAR-10's training images (Krizhevsky 2009).  The
    # deviations 0.2023 0.1994 0.2010 seen elsewhere are averages of each image's own.
    "cifar10": {
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2470, 0.2435, 0.2616),
        "scale": 1 / 255,
    },
    "minus-one-one": {"mean": (0.5,), "std": (0.5,), "scale": 1 / 255},  # pixels / 127.5 - 1
    "raw": {"mean": None, "std": None, "scale": 1.0},
    # keras.applications.imagenet_utils.preprocess_input, mode "tf": pixels / 127.5 - 1.
    "tf": {"mean": (0.5,), "std": (0.5,), "scale": 1 / 255},
    # Caffe's mean pixel of ImageNet, BGR (BVLC's reference models; OpenCV's dnn samples).
    "caffe": {"color": "bgr", "mean": (104.0, 117.0, 123.0), "std": None, "scale": 1.0},
    # ultralytics.data.augment.LetterBox: grey 114, centred; pixels / 255.
    "yolo": {"mean": None, "std": None, "scale": 1 / 255, "pad": 114.0},
    # PaddleOCR's RecResizeImg: BGR, (pixels / 255 - 0.5) / 0.5, zeros to the right of the text.
    "paddleocr": {
        "color": "bgr", "mean": (0.5,), "std": (0.5,), "scale": 1 / 255, "pad": 127.5,
        "pad_at": "corner",
    },
    # facenet-pytorch's fixed_image_standardization: (pixels - 127.5) / 128.
    "mtcnn": {"mean": (127.5,), "std": (128.0,), "scale": 1.0},
}  # fmt: skip
FILE_NAME = "preprocessor_config.json"

_EXPECTED = (
    f"a Hugging Face {FILE_NAME}, a timm data config or a file of "
    f"{', '.join(f.name for f in fields(Preprocess))}"
)
_GEOMETRY_CURE = "give --resize and --crop"
# Pillow's numbers, as transformers stores them.
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
_HF_KEYS = {"image_mean", "image_std", "rescale_factor", "do_normalize", "do_rescale", "do_resize"}
_TIMM_KEYS = {"input_size", "crop_pct", "crop_mode"}
# What an old feature extractor meant by ``"size": 224``: the shorter side, or both.
_SHORTER = ("CLIP", "ConvNext", "Levit", "MobileNet", "MobileViT", "PoolFormer", "Bit", "Regnet")
_SQUARE = ("ViT", "DeiT", "Beit", "Segformer", "EfficientNet", "Swin")
_ODD_SIZES = ("do_thumbnail", "do_align_long_axis", "keep_aspect_ratio", "size_divisor")


def load_preprocess(source: str | Path, given: Settings | None = None) -> Preprocess:
    """The preprocessing of a preset or a file; settings ``given`` win over those read.

    Raises ``UsageError`` naming the file and what was expected of it.
    """
    given = given or {}
    if str(source) in PRESETS:
        return combine(PRESETS[str(source)], given)
    path = Path(source)
    if not path.is_file():
        raise UsageError(
            f"preprocessing '{source}' is neither a file nor one of {', '.join(PRESETS)}"
        )
    what = f"preprocessing file '{path}'"
    data = parse_json(read_text(path, what, UsageError), what, UsageError)
    try:
        return combine(read_settings(data, given), given)
    except (UsageError, ArithmeticError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{what}: {error}") from None


def find_beside(model: Path) -> Path | None:
    """``<model stem>.preprocess.json`` or else ``preprocessor_config.json`` next to a model."""
    names = (f"{model.stem}.preprocess.json", FILE_NAME)
    return next((p for n in names if (p := model.with_name(n)).is_file()), None)


def combine(settings: Settings, given: Settings) -> Preprocess:
    """``settings`` overruled by those ``given``.

    Read means and deviations follow their channels when another colour order is given.
    """
    merged = {**settings, **given}
    if merged.get("color", "rgb") != settings.get("color", "rgb"):
        for name in ("mean", "std"):
            if name not in given and isinstance(merged.get(name), (list, tuple)):
                merged[name] = merged[name][::-1]
    return Preprocess.from_dict(merged)


def read_settings(data: Any, given: Collection[str] = ()) -> dict[str, Any]:
    """Settings of ``Preprocess`` from a file's content.

    Sizes are not looked at when both ``resize`` and ``crop`` are ``given``.
    Raises ``UsageError`` (without the file's name) when the content is unknown or ambiguous.
    """
    if isinstance(data, dict):
        for name in ("pretrained_cfg", "image_processor"):  # timm, transformers 5
            if isinstance(data.get(name), dict):
                return read_settings(data[name], given)
    if not isinstance(data, dict) or not data:
        raise UsageError(f"expected {_EXPECTED}")
    known = {k: v for k, v in data.items() if v is not None}
    sized = not {"resize", "crop"} <= set(given)
    hf, timm = bool(known.keys() & _HF_KEYS), bool(known.keys() & _TIMM_KEYS - {"crop_pct"})
    if hf and timm:
        raise UsageError(f"has keys of Hugging Face and of timm: expected {_EXPECTED}")
    if hf:
        return _hugging_face(known) | (_hugging_face_size(known) if sized else {})
    if timm or "crop_pct" in known:
        return _timm(known) | (_timm_size(known) if sized else {})
    if data.keys() <= {f.name for f in fields(Preprocess)}:
        return dict(data)
    raise UsageError(f"has keys {', '.join(sorted(map(str, data))[:8])}: expected {_EXPECTED}")


def _hugging_face(data: dict[str, Any]) -> dict[str, Any]:
    # Feature extractors, older than do_rescale, always divided by 255.
    scale = float(data.get("rescale_factor", 1 / 255)) if data.get("do_rescale", True) else 1.0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    if data.get("do_normalize", "image_mean" in data):
        try:
            mean, std = _numbers(data["image_mean"]), _numbers(data["image_std"])
        except KeyError as error:
            raise UsageError(f"has do_normalize, but no {error.args[0]}") from None
        if data.get("include_top"):  # EfficientNet divides by the deviation twice
            std = tuple(s * s for s in std)
    if data.get("rescale_offset") and data.get("do_rescale", True):  # ... - 1 before normalising
        mean = tuple(m + 1 for m in mean or (0.0,))
    bgr = bool(data.get("do_flip_channel_order"))
    return {
        "mean": mean[::-1] if mean and bgr else mean,
        "std": std[::-1] if std and bgr else std,
        "scale": scale,
        "color": "bgr" if bgr else "rgb",
    }


def _numbers(value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        raise UsageError(f"has {value!r} where numbers were expected")
    return tuple(float(v) for v in values)


def _hugging_face_size(data: dict[str, Any]) -> dict[str, Any]:
    if odd := [k for k in _ODD_SIZES if data.get(k)]:
        raise UsageError(f"sizes images by {odd[0]}, which is not supported: {_GEOMETRY_CURE}")
    kind = str(data.get("image_processor_type") or data.get("feature_extractor_type") or "")
    if data.get("do_pad"):
        return _hugging_face_padded(data)
    resize: Any = None
    crop: Any = None
    if data.get("do_center_crop", "crop_size" in data):
        crop = _side(data.get("crop_size", data.get("size")), "crop_size", "square")
    if data.get("do_resize", "size" in data):
        resize = _side(data.get("size"), "size", kind)
        if isinstance(resize, int) and kind.startswith("ConvNext") and resize >= 384:
            resize = (resize, resize)  # "warping (no cropping) when evaluated at 384 or larger"
        elif isinstance(resize, int) and kind.startswith("Levit"):
            resize = int(256 / 224 * resize)
        elif "crop_pct" in data or kind.startswith("ConvNext"):
            side = resize if isinstance(resize, int) else resize[0]
            if resize not in (side, (side, side)):
                raise UsageError(f"has crop_pct for sides that differ: {_GEOMETRY_CURE}")
            crop = crop or (side, side)
            resize = int(side / float(data.get("crop_pct", 224 / 256)))
    return {"resize": resize, "crop": crop, "interpolation": _interpolation(data)}


def _interpolation(data: dict[str, Any]) -> str:
    how = data.get("resample", 2)
    if how not in _RESAMPLE:
        raise UsageError(f"has resample {how!r}, which is not one of {sorted(_RESAMPLE)}")
    return _RESAMPLE[how]


def _hugging_face_padded(data: dict[str, Any]) -> dict[str, Any]:
    """Fitted into a size and filled up with zeros below and to the right, after normalising.

    So do DetrImageProcessor and its relatives.  A size that follows the largest image of a batch
    is none.
    """
    size = data.get("pad_size") or data.get("size")
    sides = size if isinstance(size, dict) else {}
    edge = sides.get("longest_edge") if sides.keys() == {"longest_edge"} else None
    if edge is None and sides.keys() != {"height", "width"}:
        raise UsageError(
            f"pads images (do_pad) to a size that depends on the batch, size {size!r}: give --pad "
            "mean:corner with --resize H,W"
        )
    box = (int(edge), int(edge)) if edge else (int(sides["height"]), int(sides["width"]))
    return {
        "resize": box,
        "crop": None,
        "pad": "mean" if data.get("do_normalize", "image_mean" in data) else 0.0,
        "pad_at": "corner",
        "interpolation": _interpolation(data),
    }


def _side(value: Any, name: str, kind: str) -> int | tuple[int, int]:
    """The shorter side, or height and width."""
    if isinstance(value, dict):
        value = {k: v for k, v in value.items() if v is not None}
        if value.keys() == {"height", "width"}:
            return int(value["height"]), int(value["width"])
        if value.keys() == {"shortest_edge"}:
            return int(value["shortest_edge"])
    elif isinstance(value, list) and len(value) == 2:
        return int(value[0]), int(value[1])
    elif isinstance(value, int) and (kind == "square" or kind.startswith(_SQUARE)):
        return value, value
    elif isinstance(value, int) and kind.startswith(_SHORTER):
        return value
    elif isinstance(value, int):
        raise UsageError(
            f"has {name} {value}, which may be the shorter side or both: {_GEOMETRY_CURE}"
        )
    raise UsageError(
        f"has {name} {value!r}, expected height and width or shortest_edge: {_GEOMETRY_CURE}"
    )


def _timm(data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"scale": 1 / 255}
    for name in ("mean", "std"):
        found[name] = _numbers(data[name]) if name in data else "auto"
    return found


def _timm_size(data: dict[str, Any]) -> dict[str, Any]:
    size = data.get("input_size", [3, 224, 224])
    if not (isinstance(size, list) and len(size) == 3 and all(type(s) is int for s in size)):
        raise UsageError(f"has input_size {size!r}, expected [channels, height, width]")
    crop = (size[1], size[2])
    share = float(data.get("crop_pct", 0.875))
    room = tuple(math.floor(s / share) for s in crop)
    mode, how = data.get("crop_mode", "center"), data.get("interpolation", "bicubic")
    if how not in RESAMPLING:
        raise UsageError(f"has interpolation {how!r}, which is not one of {', '.join(RESAMPLING)}")
    if mode == "squash":
        return {"resize": room, "crop": crop, "interpolation": how}
    if mode != "center" or room[0] != room[1]:
        raise UsageError(f"has crop_mode {mode!r} to {crop}, unsupported: {_GEOMETRY_CURE}")
    return {"resize": room[0], "crop": crop, "interpolation": how}
