"""How much of a channel's lost scale to give back: statistics in, one factor per channel out.

Source: Zhan, Chen, Hu, "Adaptive Signal Resuscitation", arXiv 2605.21426, section 3, except where
another source is named.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asr_onnx.arrays import FloatArray
from asr_onnx.errors import UsageError
from asr_onnx.maths.moments import PairedMoments

METHODS = ("asr", "layerwise", "channelwise", "none")
PRIORS = ("correlation", "median", "mean", "fixed:V")

_EPS = 1e-12  # relative to the layer's dense variance: units of the data do not matter


@dataclass(frozen=True)
class ChannelScale:
    """The repaired channel is ``mu_d + gamma * (y_p - mu_p)``.

    ``gamma`` (C,) dense std / pruned std; ``reliability`` (C,) in [0, 1], the share of the raw
    correction that was trusted.
    """

    gamma: FloatArray
    reliability: FloatArray


def parse_prior(text: str) -> tuple[str, float | None]:
    """``"median"`` -> ``("median", None)``, ``"fixed:0.1"`` -> ``("fixed", 0.1)``.

    Raises ``UsageError`` for anything else.
    """
    if text in ("correlation", "median", "mean"):
        return text, None
    name, _, value = text.partition(":")
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if name != "fixed" or not 0 < number < np.inf:
        raise UsageError(f"prior '{text}' is none of correlation, median, mean, fixed:V (V > 0)")
    return name, number


def raw_gain(m: PairedMoments) -> FloatArray:
    """``g = sqrt(v_d / (v_p + eps))`` (step 1); 1 for a channel dead in the pruned network."""
    eps = _EPS * float(m.dense.var.mean()) or _EPS
    alive = m.pruned.var > eps
    return np.where(alive, np.sqrt(m.dense.var / (np.where(alive, m.pruned.var, 1.0) + eps)), 1.0)


def reliability(m: PairedMoments, prior: str) -> FloatArray:
    """How far each channel's raw gain can be trusted, in [0, 1] (step 3).

    ``median``, ``mean`` and ``fixed:V`` compare the pruned variance with a constant of the layer,
    ``s = v_p / (v_p + lam)``; ``correlation`` measures it: ``s = sqrt(rho)`` with ``rho`` the
    correlation of the pruned with the dense channel over the calibration set.  The raw gain ``g``
    keeps the variance, ``rho * g`` has the least squared error, and the root is the way between
    that was best or level at every sparsity measured (docs/measurements.md).

    A layer with more than half of its channels dead has ``lam = 0`` under ``median``: it is left
    as it is, because every surviving channel would otherwise be amplified unchecked.
    """
    kind, value = parse_prior(prior)
    if kind == "correlation":
        return np.asarray(np.sqrt(m.correlation))
    v = m.pruned.var
    lam = float(value or (np.median(v) if kind == "median" else np.mean(v)))
    if not lam > 0:
        return np.zeros_like(v)
    return np.asarray(v / (v + lam))


def scale(m: PairedMoments, method: str = "asr", prior: str = "correlation") -> ChannelScale:
    """The factor per channel by ``method``.

    * ``asr``: ``gamma = s * g + 1 - s`` (step 4)
    * ``channelwise``: the raw gain ``g``
    * ``layerwise``: one ``sqrt(mean v_d / (mean v_p + eps))`` for the layer
    * ``none``: 1

    Raises ``UsageError`` for an unknown method or prior.
    """
    ones = np.ones_like(m.dense.var)
    if method == "asr":
        s = reliability(m, prior)
        return ChannelScale(s * raw_gain(m) + 1 - s, s)
    if method == "channelwise":
        return ChannelScale(raw_gain(m), ones)
    if method == "layerwise":
        d, p = float(m.dense.var.mean()), float(m.pruned.var.mean())
        return ChannelScale(ones * (np.sqrt(d / p) if p > _EPS * d else 1.0), ones)
    if method == "none":
        return ChannelScale(ones, 0 * ones)
    raise UsageError(f"method '{method}' is none of {', '.join(METHODS)}")
