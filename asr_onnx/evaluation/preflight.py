"""Are the calibration data what the model was trained on?  BatchNormalization remembers.

The running statistics of the first BatchNormalization are those of its convolution's output on the
training data, so data that are preprocessed otherwise do not fit them.  The limits below rest on a
public ResNet-20 and on seven small networks, each trained on CIFAR-10 with one preprocessing
(``FirstNorm.misfit``, nats per channel; 127 images or more):

- right: 0.005 to 0.05; CIFAR-10's mean and deviation for ImageNet's: up to 0.09, and harmless;
- another range, or no mean: 0.26 and more, mostly above 0.4; pixels 0..255 for 0..1: above 1000;
- the wrong colour order: 1.02 to 2.9 times the misfit of the right one, 0.017 to 0.06, which alone
  tells nothing.  But the right order's mean top confidence was 0.05 to 0.10 higher in all cases
  (ResNet-20: 0.99 to 0.94), and that difference over the same images has little noise.  Both
  together caught all of 730 draws of 256 images in the wrong order (of 64 images, 78 %), and
  none of as many in the right one.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx

from asr_onnx.arrays import AnyArray, Feeds, FloatArray
from asr_onnx.data.batches import Batches
from asr_onnx.evaluation.misfit import FirstNorm
from asr_onnx.evaluation.other_preprocessing import FedImages, FeedsList
from asr_onnx.evaluation.outputs import class_scores
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph.inputs import count_samples

MISFIT = 0.2  # the data do not fit: about four times the worst right preprocessing
GROSS = 1.0  # told even when nothing fits better
_BETTER = 3.0  # how many times smaller the misfit of what is recommended has to be
_SAME_FIT = 1.05  # the colour order fed may not fit better than this many times
_CLEARLY = 1.25  # ratio of misfits that tells colour orders where there is no confidence
_SIGMAS = 3.0  # of the confidence's difference between colour orders
_IMAGES = 256
_TOO_FEW = 16


def check_preprocessing(
    proto: onnx.ModelProto, calibration: Batches, device: Device | None = None
) -> str | None:
    """A warning when calibration data do not fit the model, which has to be the dense one.

    It gives the misfit, and that of another preprocessing of the same images which comes closer.
    ``None`` when the data fit, when no convolution is followed by a BatchNormalization, and when
    there are too few samples to tell.
    """
    device = device or Device()
    first_norm = FirstNorm.of(proto, device)
    if first_norm is None:
        return None
    feeds = _first(calibration)
    count = sum(count_samples(f, calibration.inputs) for f in feeds)
    if count < _TOO_FEW:
        return None
    misfit = first_norm.misfit(feeds)
    images = FedImages.of(calibration, feeds)
    if misfit > MISFIT:
        return _misfit_warning(first_norm, images, misfit, count)
    return _colour_warning(proto, first_norm, images, misfit, device) if images else None


def _first(calibration: Batches) -> FeedsList:
    feeds: list[dict[str, AnyArray]] = []
    count = 0
    for batch in calibration.batches:
        feeds.append(calibration.feeds(batch))
        count += len(batch.samples)
        if count >= _IMAGES:
            break
    return feeds


def _misfit_warning(
    first_norm: FirstNorm, images: FedImages | None, misfit: float, count: int
) -> str | None:
    text = (
        f"{count} calibration samples do not fit the statistics stored behind "
        f"'{first_norm.site.label}': misfit {misfit:.3g}, at most {MISFIT:g} is usual; "
    )
    candidates = [*images.others(), images.other_order()] if images else []
    scores = [(first_norm.misfit(c[1]), c[0]) for c in candidates if c]
    best, options = min(scores, default=(np.inf, ""))
    if best < misfit / _BETTER:
        return f"{text}{best:.3g} with {options} (and no other --mean, --std or --scale)"
    if misfit <= GROSS:
        return None
    return f"{text}no usual preprocessing fits: are they what the model was trained on?"


def _colour_warning(
    proto: onnx.ModelProto, first_norm: FirstNorm, images: FedImages, misfit: float, device: Device
) -> str | None:
    found = images.other_order()
    if not found:
        return None
    option, turned = found
    other = first_norm.misfit(turned)
    if other > misfit * _SAME_FIT:
        return None
    runner = Runner(proto, device)
    before, after = _confidence(runner, images.feeds), _confidence(runner, turned)
    misfits = f"misfit {other:.3g} instead of {misfit:.3g}"
    if before is None or after is None:
        if misfit < other * _CLEARLY:
            return None
        return f"the colour order may be wrong: {option} fits the model better ({misfits})"
    gain = after - before
    if gain.mean() <= _SIGMAS * gain.std() / np.sqrt(len(gain)):
        return None
    return (
        f"the colour order looks wrong: with {option} the model's confidence on {len(gain)} "
        f"samples is {after.mean():.3f} instead of {before.mean():.3f}, its first {misfits}"
    )


def _confidence(runner: Runner, batches: Iterable[Feeds]) -> FloatArray | None:
    """Each sample's top probability; ``None`` for a model without an output of classes."""
    found = []
    for feeds in batches:
        count = len(next(iter(feeds.values())))
        found_scores = (class_scores(o, count) for o in runner.run(feeds).values())
        scores = next((s for s in found_scores if s is not None), None)
        if scores is None:
            return None
        values = scores.astype(np.float64)
        if values.min() < 0 or not np.allclose(values.sum(1), 1, atol=1e-2):
            values = np.exp(values - values.max(1, keepdims=True))
            values /= values.sum(1, keepdims=True)
        found.append(values.max(1))
    return np.concatenate(found)
