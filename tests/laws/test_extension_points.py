"""What can be added from outside, by a few lines each, and used in a repair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from models import norm_net, normal, stored

import asr_onnx
from asr_onnx.data.openers import OPENERS, Opener
from asr_onnx.maths.densities import DENSITIES
from asr_onnx.maths.scale_rules import SCALE_RULES, ChannelScale
from asr_onnx.options import RepairOptions
from asr_onnx.pruning.criteria import CRITERIA, Criterion
from asr_onnx.pruning.patterns import PATTERNS

CONVS = ("w1", "w2")


def zeros(model):
    return {n: stored(model)[n] == 0 for n in CONVS}


def smallest_last(rows):
    """A criterion that keeps what magnitude would drop."""
    return -np.abs(rows)


def wanda(gram, rows, importance, project):
    """Sun et al. 2023, arXiv 2306.11695: weights by the norms of the inputs that they meet."""
    norms = np.sqrt(np.diagonal(gram.inputs, axis1=1, axis2=2) + gram.mean_x**2)
    return project(np.abs(rows) * norms[:, None, :])


def test_a_criterion_that_scores_weights(rng, monkeypatch):
    model, x = norm_net(rng), normal(rng, 24, 3, 8, 8)
    monkeypatch.setitem(CRITERIA, "largest", Criterion(score=smallest_last))
    named = asr_onnx.repair(model, x, RepairOptions(0.5, criterion="largest"))
    given = asr_onnx.repair(model, x, RepairOptions(0.5, criterion=smallest_last))
    usual = asr_onnx.repair(model, x, RepairOptions(0.5, recipe="asr"))
    assert named.model.SerializeToString() == given.model.SerializeToString()
    assert given.options.to_dict()["criterion"] == "smallest_last"
    both = [zeros(r.model) for r in (named, usual)]
    assert all((a ^ b).all() for a, b in zip(both[0].values(), both[1].values(), strict=True))


def test_a_criterion_that_searches_in_the_data(rng, monkeypatch):
    model, x = norm_net(rng), normal(rng, 24, 3, 8, 8)
    monkeypatch.setitem(CRITERIA, "wanda", Criterion(search=wanda))
    result = asr_onnx.repair(model, x, RepairOptions(0.5, criterion="wanda", reconstruct=True))
    assert result.sparsity == pytest.approx(0.5, abs=1e-3)
    given = RepairOptions(0.5, criterion=Criterion(search=wanda), reconstruct=True)
    alike = asr_onnx.repair(model, x, given)
    assert alike.model.SerializeToString() == result.model.SerializeToString()
    pattern = asr_onnx.repair(model, x, RepairOptions(pattern="1:4", criterion="wanda"))
    groups = np.moveaxis(zeros(pattern.model)["w2"], 1, -1).reshape(-1, 4)
    assert (groups.sum(1) == 3).all()


@dataclass(frozen=True)
class Kernels:
    """Whole kernels go: of each output channel the half of its inputs with the lowest scores."""

    density: float = 0.5

    def __str__(self):
        return "kernels"

    def feasible(self, site):
        return "has an odd number of inputs" if site.weight.value.shape[1] % 2 else None

    def mask(self, scores, keep):
        inputs = 8
        totals = scores.reshape(*scores.shape[:2], -1, inputs).sum(2, keepdims=True)
        order = np.argsort(np.argsort(-totals, axis=-1, kind="stable"), axis=-1)
        shape = (*scores.shape[:2], scores.shape[2] // inputs, inputs)
        return np.broadcast_to(order < inputs // 2, shape).reshape(scores.shape)


@pytest.mark.parametrize("recipe", ["asr", "best"])
def test_a_pattern(rng, monkeypatch, recipe):
    model, x = norm_net(rng), normal(rng, 24, 3, 8, 8)
    monkeypatch.setitem(PATTERNS, "kernels", lambda text: Kernels() if text == "kernels" else None)
    named = asr_onnx.repair(model, x, asr_onnx.recipe(recipe, pattern="kernels"))
    given = asr_onnx.repair(model, x, asr_onnx.recipe(recipe, pattern=Kernels()))
    assert named.model.SerializeToString() == given.model.SerializeToString()
    assert given.options.to_dict()["pattern"] == "kernels"
    gone = zeros(given.model)["w2"].all(axis=(2, 3))  # (C, Cin)
    assert (gone.sum(1) == 4).all() and zeros(given.model)["w2"].sum() == 4 * 8 * 9
    assert [s.reason for s in given.skipped] == ["has an odd number of inputs"]
    assert not zeros(given.model)["w1"].any()


@dataclass(frozen=True)
class Rows:
    """Whole output channels go, as many as the sparsity asks for."""

    density: None = None

    def __str__(self):
        return "rows"

    def feasible(self, site):
        return None

    def mask(self, scores, keep):
        totals = scores.sum(axis=2, keepdims=True)
        count = max(1, round(keep / scores.shape[2]))
        order = np.argsort(np.argsort(-totals.reshape(-1), kind="stable"))
        return np.broadcast_to((order < count).reshape(totals.shape), scores.shape)


@pytest.mark.parametrize("recipe", ["asr", "best"])
def test_a_pattern_that_leaves_open_how_many_stay(rng, recipe):
    model, x = norm_net(rng), normal(rng, 24, 3, 8, 8)
    result = asr_onnx.repair(model, x, asr_onnx.recipe(recipe, pattern=Rows(), sparsity=0.5))
    assert 0.3 < result.sparsity < 0.7
    for gone in zeros(result.model).values():
        by_channel = gone.reshape(len(gone), -1)
        assert (by_channel.all(1) | ~by_channel.any(1)).all()
    assert result.options.to_dict()["sparsity"] == 0.5
    assert result.options.amount == "50 % rows"


def test_unstructured_is_a_pattern_like_any_other(rng):
    model, x = norm_net(rng), normal(rng, 24, 3, 8, 8)
    plain, named = (
        asr_onnx.repair(model, x, RepairOptions(0.6, pattern=p)).model.SerializeToString()
        for p in (None, "unstructured")
    )
    assert plain == named


@pytest.mark.parametrize(
    "given, message",
    [
        ({"criterion": lambda rows: rows * np.nan}, r"scores of 'w1' have NaN"),
        ({"criterion": lambda rows: rows[0]}, r"scores of 'w1' have shape \[8, 27\]"),
        ({"criterion": "obs", "allocation": lambda w, s: [1.0]}, r"allocation gives \[1.\], not 2"),
        ({"criterion": "obs", "allocation": lambda w, s: [1.0, np.nan]}, "allocation gives"),
        ({"method": lambda m, prior: 2}, "the scale rule gives 2, not a ChannelScale of 8 gammas"),
    ],
)
def test_what_a_function_gives_is_checked(rng, given, message):
    model, x = norm_net(rng), normal(rng, 24, 3, 8, 8)
    with pytest.raises(asr_onnx.UsageError, match=message):
        asr_onnx.repair(model, x, RepairOptions(0.5, **given))


@pytest.mark.parametrize("fields", [{}, {"score": abs, "search": wanda}])
def test_a_criterion_is_one_or_the_other(fields):
    with pytest.raises(asr_onnx.UsageError, match="either a score or a search"):
        Criterion(**fields)


def test_a_density(rng, monkeypatch):
    model, x = norm_net(rng), normal(rng, 24, 3, 8, 8)

    def last_only(weights, sparsity):
        return np.array([1.0 if n == "w2" else 1e-9 for n in weights])

    monkeypatch.setitem(DENSITIES, "last", last_only)
    for how in ("last", last_only):
        options = RepairOptions(0.9, criterion="obs", allocation=how)
        found = zeros(asr_onnx.repair(model, x, options).model)
        assert found["w1"].all() and not found["w2"].all()


def test_a_scale_rule(rng, monkeypatch):
    model, x = norm_net(rng), normal(rng, 24, 3, 8, 8)

    def double(moments, prior):
        ones = np.ones_like(moments.dense.var)
        return ChannelScale(2 * ones, ones)

    monkeypatch.setitem(SCALE_RULES, "double", double)
    for how in ("double", double):
        result = asr_onnx.repair(model, x, RepairOptions(0.5, method=how))
        assert all((s.gamma == 2).all() for s in result.sites)


def test_a_kind_of_data(rng, monkeypatch, tmp_path):
    model, x = norm_net(rng), normal(rng, 24, 3, 8, 8)
    np.savetxt(tmp_path / "x.csv", x.reshape(24, -1))

    def read(place, inputs, preprocess):
        array = np.loadtxt(place.path, dtype=np.float32).reshape(-1, *inputs[0].shape[1:])
        return asr_onnx.as_batches(array, inputs).samples

    monkeypatch.setattr(
        "asr_onnx.data.openers.OPENERS",
        [Opener(lambda place: place.path.suffix == ".csv", read), *OPENERS],
    )
    result = asr_onnx.repair(model, tmp_path / "x.csv", RepairOptions(0.5, recipe="asr"))
    assert result.solve_images + result.held_out_images == 24
