"""How much of a channel's lost scale to give back: statistics in, one factor per channel out.

Source: Zhan, Chen, Hu, "Adaptive Signal Resuscitation", arXiv 2605.21426, section 3, except where
another source is named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from asr_onnx.arrays import FloatArray
from asr_onnx.errors import UsageError
from asr_onnx.maths.moments import PairedMoments

_EPS = 1e-12  # relative to the layer's dense variance: units of the data do not matter


@dataclass(frozen=True)
class ChannelScale:
    """The repaired channel is ``mu_d + gamma * (y_p - mu_p)``, or ``gamma * y_p`` if not centred.

    ``gamma`` (C,) dense std / pruned std; ``reliability`` (C,) in [0, 1], the share of the raw
    correction that was trusted.
    """

    gamma: FloatArray
    reliability: FloatArray
    centred: bool = True


def raw_gain(m: PairedMoments) -> FloatArray:
    """``g = sqrt(v_d / (v_p + eps))`` (step 1); 1 for a channel dead in the pruned network."""
    eps = _EPS * float(m.dense.var.mean()) or _EPS
    alive = m.pruned.var > eps
    return np.where(alive, np.sqrt(m.dense.var / (np.where(alive, m.pruned.var, 1.0) + eps)), 1.0)


# How far each channel's raw gain can be trusted, in [0, 1] (step 3): moments -> (C,).
Prior = Callable[[PairedMoments], FloatArray]


def by_correlation(m: PairedMoments) -> FloatArray:
    """``s = sqrt(rho)``, ``rho`` the correlation of the pruned with the dense channel: measured.

    The raw gain ``g`` keeps the variance, ``rho * g`` has the least squared error, and the root is
    the way between that was best or level at every sparsity measured (docs/measurements.md).
    """
    return np.asarray(np.sqrt(m.correlation))


def by_variance(m: PairedMoments, level: float) -> FloatArray:
    """``s = v_p / (v_p + lam)``: the pruned variance against a constant ``lam`` of the layer.

    Nothing is trusted at ``lam = 0``: every surviving channel would be amplified unchecked.
    """
    v = m.pruned.var
    return np.asarray(v / (v + level)) if level > 0 else np.zeros_like(v)


def by_median(m: PairedMoments) -> FloatArray:
    """``lam`` is the layer's median variance: 0 when more than half of the channels are dead."""
    return by_variance(m, float(np.median(m.pruned.var)))


def by_mean(m: PairedMoments) -> FloatArray:
    """``lam`` is the layer's mean variance."""
    return by_variance(m, float(np.mean(m.pruned.var)))


PRIORS: dict[str, Prior] = {
    "correlation": by_correlation,
    "median": by_median,
    "mean": by_mean,
}
_FIXED = "fixed:"  # and a number: ``lam`` itself


def parse_prior(text: str) -> Prior:
    """A prior by its name, or ``fixed:0.1``; raises ``UsageError`` for anything else."""
    if text in PRIORS:
        return PRIORS[text]
    try:
        level = float(text.removeprefix(_FIXED))
    except ValueError:
        level = -1.0
    if not text.startswith(_FIXED) or not 0 < level < np.inf:
        known = ", ".join([*PRIORS, f"{_FIXED}V (V > 0)"])
        raise UsageError(f"prior '{text}' is not one of {known}")
    return partial(by_variance, level=level)


# Moments and prior -> the factor per channel.
ScaleRule = Callable[[PairedMoments, Prior], ChannelScale]


def shrunk(m: PairedMoments, prior: Prior) -> ChannelScale:
    """``gamma = s * g + 1 - s`` (step 4)."""
    s = prior(m)
    return ChannelScale(s * raw_gain(m) + 1 - s, s)


def channelwise(m: PairedMoments, prior: Prior) -> ChannelScale:
    """The raw gain ``g``."""
    return ChannelScale(raw_gain(m), np.ones_like(m.dense.var))


def layerwise(m: PairedMoments, prior: Prior) -> ChannelScale:
    """One ``sqrt(mean v_d / (mean v_p + eps))`` for the layer."""
    ones = np.ones_like(m.dense.var)
    d, p = float(m.dense.var.mean()), float(m.pruned.var.mean())
    return ChannelScale(ones * (np.sqrt(d / p) if p > _EPS * d else 1.0), ones)


def none(m: PairedMoments, prior: Prior) -> ChannelScale:
    """The layer as pruned."""
    ones = np.ones_like(m.dense.var)
    return ChannelScale(ones, 0 * ones, centred=False)


SCALE_RULES: dict[str, ScaleRule] = {
    "asr": shrunk,
    "layerwise": layerwise,
    "channelwise": channelwise,
    "none": none,
}


def scale(
    m: PairedMoments, method: str | ScaleRule = "asr", prior: str = "correlation"
) -> ChannelScale:
    """The factor per channel by one of ``SCALE_RULES``, or by a function like them.

    Raises ``UsageError`` for an unknown method or prior.
    """
    if not callable(method) and method not in SCALE_RULES:
        raise UsageError(f"method '{method}' is not one of {', '.join(SCALE_RULES)}")
    found = (method if callable(method) else SCALE_RULES[method])(m, parse_prior(prior))
    shape = m.dense.var.shape
    if not isinstance(found, ChannelScale) or np.shape(found.gamma) != shape:
        raise UsageError(f"the scale rule gives {found!r}, not a ChannelScale of {shape[0]} gammas")
    return found
