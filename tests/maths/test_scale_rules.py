"""Scale rules against a direct transcription of arXiv 2605.21426, section 3."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asr_onnx.errors import UsageError
from asr_onnx.maths.moments import Moments, PairedMoments
from asr_onnx.maths.scale_rules import PRIORS, SCALE_RULES, parse_prior, scale

PRIOR_NAMES = ("correlation", "median", "mean", "fixed:0.3")
variances = hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(1e-3, 1e3))


def moments(var_dense, var_pruned, rho):
    """Paired moments with zero means and the given correlations."""
    d, p = np.asarray(var_dense, float), np.asarray(var_pruned, float)
    zero = np.zeros_like(d)
    return PairedMoments(Moments(100, zero, d), Moments(100, zero, p), rho * np.sqrt(d * p))


def random_moments(rng, channels=16):
    d, p = rng.uniform(0.5, 3, channels), rng.uniform(0.01, 2, channels)
    return moments(d, p, rng.uniform(0, 1, channels))


def transcribed_lam(m, prior):
    v = m.pruned.var
    return {"median": np.median(v), "mean": np.mean(v), "fixed:0.3": 0.3}[prior]


@pytest.mark.parametrize("prior", ["median", "mean", "fixed:0.3"])
def test_asr_is_steps_1_to_4(rng, prior):
    m = random_moments(rng)
    raw = np.sqrt(m.dense.var / m.pruned.var)
    lam = transcribed_lam(m, prior)
    s = m.pruned.var / (m.pruned.var + lam)
    found = scale(m, "asr", prior)
    np.testing.assert_allclose(found.reliability, s, rtol=1e-12)
    np.testing.assert_allclose(found.gamma, s * raw + 1 - s, rtol=1e-9)


def test_the_correlation_prior_trusts_the_root_of_the_correlation(rng):
    m = random_moments(rng)
    s = np.sqrt(m.covariance / np.sqrt(m.dense.var * m.pruned.var))
    found = scale(m, "asr", "correlation")
    np.testing.assert_allclose(found.reliability, s, rtol=1e-12)
    raw = np.sqrt(m.dense.var / m.pruned.var)
    np.testing.assert_allclose(found.gamma, s * raw + 1 - s, rtol=1e-9)


def test_channelwise_is_the_raw_gain(rng):
    m = random_moments(rng)
    found = scale(m, "channelwise")
    np.testing.assert_allclose(found.gamma, np.sqrt(m.dense.var / m.pruned.var), rtol=1e-9)
    assert (found.reliability == 1).all()


def test_layerwise_is_one_scalar(rng):
    m = random_moments(rng)
    wanted = np.sqrt(m.dense.var.mean() / m.pruned.var.mean())
    np.testing.assert_allclose(scale(m, "layerwise").gamma, np.full(16, wanted), rtol=1e-9)


def test_none_changes_nothing(rng):
    assert (scale(random_moments(rng), "none").gamma == 1).all()


def test_more_than_half_dead_leaves_the_layer_alone_under_the_median():
    m = moments([1.0, 1, 1, 1, 1], [0, 0, 0, 1e-4, 0.5], 0.9)
    found = scale(m, "asr", "median")
    assert (found.gamma == 1).all()
    assert (found.reliability == 0).all()


def test_a_fully_dead_layer_is_left_alone_by_every_rule():
    m = moments([1.0, 2.0], [0.0, 0.0], 0.0)
    for method in SCALE_RULES:
        for prior in PRIOR_NAMES:
            assert (scale(m, method, prior).gamma == 1).all(), (method, prior)


@pytest.mark.parametrize("prior", PRIOR_NAMES)
@pytest.mark.parametrize("method", ["asr", "channelwise"])
def test_a_dead_channel_gets_1_and_disturbs_no_other(rng, method, prior):
    m = moments(rng.uniform(1, 2, 6), [0.1, 0.2, 0, 0.4, 0.5, 0.6], np.full(6, 0.7))
    gamma = scale(m, method, prior).gamma
    assert gamma[2] == 1
    assert (np.delete(gamma, 2) > 1).all()


@pytest.mark.parametrize("method", SCALE_RULES)
@pytest.mark.parametrize("prior", PRIOR_NAMES)
@given(v=variances)
def test_equal_networks_need_no_scale(v, method, prior):
    gamma = scale(moments(v, v, 1.0), method, prior).gamma
    np.testing.assert_allclose(gamma, 1, rtol=1e-6)


@pytest.mark.parametrize("prior", PRIOR_NAMES)
@given(data=st.data())
def test_gamma_lies_between_1_and_the_raw_gain(data, prior):
    d = data.draw(variances)
    p = data.draw(hnp.arrays(np.float64, d.shape, elements=st.floats(1e-3, 1e3)))
    rho = data.draw(hnp.arrays(np.float64, d.shape, elements=st.floats(0, 1)))
    m = moments(d, p, rho)
    gamma, raw = scale(m, "asr", prior).gamma, scale(m, "channelwise").gamma
    assert (gamma >= np.minimum(raw, 1) * (1 - 1e-9)).all()
    assert (gamma <= np.maximum(raw, 1) * (1 + 1e-9)).all()


@pytest.mark.parametrize("prior", ["correlation", "median", "mean"])
def test_units_of_the_data_do_not_matter(rng, prior):
    m = random_moments(rng)
    for unit in (1e-8, 1e8):
        other = moments(m.dense.var * unit, m.pruned.var * unit, m.correlation)
        for method in SCALE_RULES:
            np.testing.assert_allclose(
                scale(other, method, prior).gamma, scale(m, method, prior).gamma, rtol=1e-9
            )


def test_priors_that_can_be_parsed():
    assert [parse_prior(name) for name in PRIORS] == list(PRIORS.values())
    m = moments(np.ones(3), np.full(3, 0.1), 1.0)
    for text, wanted in (("fixed:0.1", 0.5), ("fixed:1e-3", 0.1 / 0.101)):
        np.testing.assert_allclose(parse_prior(text)(m), wanted)


BAD_VALUES = ["", ":", ":x", ":0", ":-1", ":nan", ":inf", ":1:2"]


@pytest.mark.parametrize(
    "text", ["", "mode", "Median", "median:2", *(f"fixed{v}" for v in BAD_VALUES)]
)
def test_priors_that_cannot(text):
    with pytest.raises(UsageError, match="not one of correlation, median, mean, fixed:V"):
        parse_prior(text)


def test_an_unknown_method_is_refused(rng):
    with pytest.raises(UsageError, match="method 'best' is not one of asr"):
        scale(random_moments(rng), "best")
