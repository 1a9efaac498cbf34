"""A pattern and a sparsity: the pattern in as few layers as it takes, the costly ones dense."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import build, copied, normal, stored

from asr_onnx import (
    Gates,
    PruneOptions,
    RepairOptions,
    UsageError,
    check,
    pipeline,
    prune,
    recipe,
    repair,
    repair_all,
    repair_auto,
)
from asr_onnx.graph.sites import find_sites
from asr_onnx.pruning.eligibility import OnlyEligible
from asr_onnx.pruning.patterns import NM
from asr_onnx.pruning.sparing import Sparing, energy_lost, enough
from asr_onnx.reports import repair_page, repair_tables
from asr_onnx.sweeps import automatic

LAYERS = ("w1", "w2", "w3", "w4")
WHY = "costs most for what it saves: stays dense, as the sparsity allows"

amounts = st.lists(
    st.tuples(st.floats(0, 10), st.integers(1, 50)), min_size=1, max_size=7
)  # of each layer: what it costs, what it saves


def spiky(weight, share):
    """The weight with all but two of every four inputs made ``share`` as large."""
    small = weight.copy()
    small[:, 1::2] *= share
    return small


@pytest.fixture(scope="module")
def net():
    """Four convolutions that can be 2:4: by magnitude it costs w1 most and w4 least."""
    rng = np.random.default_rng(7)
    weights = {n: 0.2 * normal(rng, 16, 16, 3, 3) for n in LAYERS}
    shares = dict(zip(LAYERS, (1.0, 0.3, 0.1, 0.01), strict=True))
    return build(
        """net (float[N,3,6,6] x) => (float[N,5] y) {
            c0 = Conv <pads = [1, 1, 1, 1]> (x, w0)
            r0 = Relu (c0)
            c1 = Conv <pads = [1, 1, 1, 1]> (r0, w1)
            r1 = Relu (c1)
            c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2)
            r2 = Relu (c2)
            c3 = Conv <pads = [1, 1, 1, 1]> (r2, w3)
            r3 = Relu (c3)
            c4 = Conv <pads = [1, 1, 1, 1]> (r3, w4)
            r4 = Relu (c4)
            p = GlobalAveragePool (r4)
            f = Flatten (p)
            y = Gemm <transB = 1> (f, head, hb)
        }""",
        {"w0": normal(rng, 16, 3, 3, 3), "head": normal(rng, 5, 16), "hb": normal(rng, 5)}
        | {n: spiky(w, shares[n]) for n, w in weights.items()},
    )


@pytest.fixture(scope="module")
def data():
    return normal(np.random.default_rng(8), 48, 3, 6, 6)


def pruned(model):
    """Which layers are exactly 2:4; the others have no zero."""
    found = set()
    for name in ("w0", *LAYERS, "head"):
        weight = stored(model)[name]
        if (weight == 0).any():
            groups = np.moveaxis(weight, 1, -1).reshape(-1, 4)
            np.testing.assert_array_equal((groups != 0).sum(1), 2)
            found.add(name)
    return found


# Which layers


@given(amounts, st.floats(0.01, 1))
def test_enough_is_saved_and_no_layer_could_be_given_back(layers, share):
    costs = {str(n): c for n, (c, _) in enumerate(layers)}
    saved = {str(n): s for n, (_, s) in enumerate(layers)}
    wanted = max(1, round(share * sum(saved.values())))
    taken = enough(costs, saved, wanted)
    total = sum(saved[n] for n in taken)
    assert total >= wanted
    assert all(total - saved[n] < wanted for n in taken)
    assert enough(costs, saved, sum(saved.values())) == set(saved)


@given(st.permutations(range(6)), st.integers(1, 6))
def test_of_equal_layers_the_cheapest_are_taken(costs, count):
    by_name = {str(n): c for n, c in enumerate(costs)}
    found = enough(by_name, dict.fromkeys(by_name, 10), 10 * count)
    assert sorted(costs[int(n)] for n in found) == list(range(count))


@given(amounts, st.integers(1, 100))
def test_it_costs_no_more_than_the_best_ratios_one_after_the_other(layers, wanted):
    costs = {str(n): c for n, (c, _) in enumerate(layers)}
    saved = {str(n): s for n, (_, s) in enumerate(layers)}
    ratios = sorted(saved, key=lambda n: costs[n] / saved[n])
    reached = list(itertools.accumulate(saved[n] for n in ratios))
    count = next((n for n, total in enumerate(reached, 1) if total >= wanted), len(ratios))
    found = sum(costs[n] for n in enough(costs, saved, wanted))
    assert found <= sum(costs[n] for n in ratios[:count]) * (1 + 1e-9)


def test_the_last_is_no_larger_than_it_has_to_be():
    costs, saved = {"a": 1, "b": 1, "small": 0.9}, {"a": 40, "b": 40, "small": 10}
    assert enough(costs, saved, 45) == {"a", "small"}
    assert enough(costs, saved, 51) == {"a", "b"}


def test_ties_go_by_the_order_and_what_saves_nothing_is_not_taken():
    assert enough({"b": 1, "a": 1}, {"b": 5, "a": 5}, 5) == {"b"}
    assert enough({"a": 0, "b": 1}, {"a": 0, "b": 5}, 9) == {"b"}


def test_what_is_lost_is_the_share_of_squares_that_goes(net):
    sites = [s for s in find_sites(net, ("Conv",)).sites if s.name in LAYERS]
    found = energy_lost(sites, NM(2, 4), np.abs, "keep")
    for name in LAYERS:
        groups = np.sort(np.moveaxis(stored(net)[name], 1, -1).reshape(-1, 4) ** 2)
        assert found[name] == pytest.approx(groups[:, :2].sum() / groups.sum(), rel=1e-5)
    assert list(found) == sorted(found, key=lambda n: -found[n])
    flat = energy_lost(sites, NM(2, 4), np.zeros_like)
    assert set(flat.values()) == {0.0}
    unscaled = energy_lost(sites, NM(2, 4), lambda rows: np.abs(rows) * 1e30, "normalize")
    assert unscaled == pytest.approx(energy_lost(sites, NM(2, 4), np.abs, "normalize"), rel=1e-4)
    assert unscaled["w2"] != found["w2"]  # rows count alike


# Pruning alone


@pytest.mark.parametrize(
    ("sparsity", "layers"),
    [(0.01, "4"), (0.125, "4"), (0.13, "34"), (0.25, "34"), (0.3, "234"), (0.5, "1234")],
)
def test_as_many_layers_as_it_takes_get_the_pattern_the_cheapest_first(net, sparsity, layers):
    made = prune(net, PruneOptions(sparsity, "2:4"))
    assert pruned(made) == {f"w{n}" for n in layers}
    if sparsity == 0.5:
        whole = prune(net, PruneOptions(pattern="2:4"))
        assert made.SerializeToString() == whole.SerializeToString()
    found = check(made, pattern="2:4", sparsity=sparsity)
    assert found.passed and len(found.crowded) == 4 - len(layers)
    for share, message in ((0.51, "leaves at most 50 % zeros"), (0.0, "prunes nothing")):
        with pytest.raises(UsageError, match=message):
            check(made, pattern="2:4", sparsity=share)


def test_the_share_is_of_what_is_named(net):
    made = prune(net, PruneOptions(0.25, "2:4", include="w1|w2"))
    assert pruned(made) == {"w2"}
    made = prune(net, PruneOptions(0.2, "2:4", exclude="w4|w3"))
    assert pruned(made) == {"w2"}


def test_a_score_of_ones_own_says_what_is_lost(net):
    how = RepairOptions(0.1, "2:4", criterion=lambda rows: 1 / (1e-3 + np.abs(rows)))
    made = prune(net, how)
    assert pruned(made) == {"w4"}  # the least even, whichever weights stay
    kept = stored(made)["w4"]
    assert abs(kept[kept != 0]).max() < abs(stored(net)["w4"]).max()


@pytest.mark.parametrize(
    ("sparsity", "pattern", "message"),
    [
        (0.51, "2:4", "pattern 2:4 leaves at most 50 % zeros: ask for less, or leave the sparsity"),
        (0.3, "4:5", "pattern 4:5 leaves at most 20 % zeros"),
        (0.0, "2:4", "pattern 2:4 with a sparsity of 0 prunes nothing"),
        (1.0, "2:4", "outside"),
    ],
)
def test_a_share_that_there_is_not_is_refused_in_one_line(sparsity, pattern, message):
    with pytest.raises(UsageError) as caught:
        PruneOptions(sparsity, pattern)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_most_there_is_may_be_asked_for():
    for kept, group in ((4, 5), (1, 3), (7, 10)):
        pattern = NM(kept, group)
        assert PruneOptions((group - kept) / group, pattern).zeros == (group - kept) / group
        options = RepairOptions(pattern=pattern)
        assert automatic._most(options) == 100 * (group - kept) // group


# Repairs


@pytest.mark.parametrize("name", ["asr", "refit", "best"])
def test_a_repair_leaves_costly_layers_dense_and_says_so(net, data, name):
    result = repair(net, data, recipe(name, pattern="2:4", sparsity=0.2))
    assert len(pruned(result.model)) == 2 and {"w1"} <= set(result.spared)
    assert result.sparsity == 0.25
    assert {s.name for s in result.sites if s.pruned} == pruned(result.model)
    why = {s.name: s.reason for s in result.skipped}
    assert {n for n, reason in why.items() if reason == WHY} == set(result.spared)
    options = result.options
    assert (options.amount, options.zeros) == ("20 % 2:4", 0.2)
    content = repair_tables.to_dict(result, files={})
    assert content["options"]["sparsity"] == 0.2 and content["options"]["pattern"] == "2:4"
    assert content["spared"] == list(result.spared) and content["sparsity"] == 0.25
    assert {"name": "w1", "op": "Conv", "reason": WHY} in content["skipped"]
    page = repair_page.render(content)
    assert "weights in pruned sites and 2 left dense" in page
    del content["spared"]  # as reports of before have it
    assert "weights in pruned sites</" in repair_page.render(content)


def test_layers_are_spared_by_the_predicted_errors_where_the_masks_are_searched_for(net, data):
    """Every other input of w1 is next to nothing, so that it loses little, large as weights are."""
    sizes = np.where(np.arange(16) % 2, 0.01, 1).astype(np.float32)[:, None, None, None]
    faint = copied(net, w0=sizes * stored(net)["w0"])
    how = {"pattern": "2:4", "sparsity": 0.2, "include": "w1|w2"}
    assert pruned(repair(faint, data, recipe("best", **how)).model) == {"w1"}
    for other in (recipe("best", allocation="mixed", **how), recipe("asr", **how)):
        assert pruned(repair(faint, data, other).model) == {"w2"}


def test_repairs_of_different_shares_go_side_by_side(net, data):
    cells = [recipe("best", pattern="2:4", sparsity=s) for s in (0.1, 0.4)]
    cells += [recipe("best", sparsity=0.4), recipe("best", pattern="2:4")]
    together = repair_all(net, data, cells)
    for cell, found in zip(cells, together, strict=True):
        alone = repair(net, data, cell)
        assert found.model.SerializeToString() == alone.model.SerializeToString()
        assert found.spared == alone.spared
    assert [len(r.spared) for r in together] == [3, 0, 0, 0]


def test_it_goes_with_only_eligible_int8_and_float16(net, data, monkeypatch):
    monkeypatch.setattr("asr_onnx.pruning.eligibility.WIDE", 16)
    options = PruneOptions(0.2, "2:4", only_eligible=True)
    assert isinstance(options.structure, OnlyEligible)
    assert pruned(prune(net, options)) == {"w3", "w4"}
    for precision in ("int8", "float16"):
        how = recipe("refit", pattern="2:4", sparsity=0.2, precision=precision)
        result = repair(net, data, how)
        assert result.spared == ("w1", "w2")
        assert check(result.model, pattern="2:4", sparsity=0.2).passed


def test_a_given_mask_is_told_nothing_of_it(net, data):
    made = prune(net, PruneOptions(0.2, "2:4"))
    result = repair(made, data, recipe("refit"), dense=net)
    assert pruned(result.model) == {"w3", "w4"} and result.spared == ()
    with pytest.raises(UsageError, match="leave out sparsity, pattern"):
        repair(made, data, recipe("refit", pattern="2:4", sparsity=0.2), dense=net)


def test_a_pattern_of_ones_own_is_asked_for_its_reason_first(net):
    (site, *_) = find_sites(net, ("Conv",)).sites
    assert "no multiple of 4" in Sparing(NM(2, 4), frozenset(["w0"])).feasible(site)
    assert Sparing(NM(1, 3), frozenset(["w0"])).feasible(site) == WHY
    assert Sparing(NM(1, 3), frozenset(["w1"])).feasible(site) is None


# How many


@pytest.mark.parametrize("limit", [0.12, 0.3, 0.6])
def test_as_many_as_pass_are_found(net, data, limit):
    found = repair_auto(net, data, lambda r: r.sparsity <= limit, recipe("asr", pattern="2:4"))
    points = [t.points for t in found.trials.tried]
    assert points[0] == 50 and max(points) == 50
    if limit == 0.12:  # one layer is more
        assert found.failures and found.trials.chosen.points == 1
        return
    assert found.trials.closed and not found.failures
    assert len(pruned(found.result.model)) == int(min(limit, 0.5) * 8)
    assert found.result.options.sparsity == found.trials.chosen.points / 100


def test_layers_are_weighed_once_for_all_shares(net, data, monkeypatch):
    weighed = []

    def counted(*args):
        weighed.append(args)
        return weigh(*args)

    weigh = pipeline.weighed_for
    monkeypatch.setattr(pipeline, "weighed_for", counted)
    options = recipe("best", pattern="2:4")
    found = repair_auto(net, data, Gates(min_cosine=0.99), options, steps=3)
    assert len(weighed) == 1
    share = found.trials.chosen.points / 100
    alone = repair(net, data, recipe("best", pattern="2:4", sparsity=share))
    assert found.result.model.SerializeToString() == alone.model.SerializeToString()


# The command line


def test_the_command_line_takes_both(net, data, tmp_path, asr, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(net, "m.onnx")
    np.save("x.npy", data)
    both = ("--pattern", "2:4", "--sparsity", "20%")
    code, out, err = asr("prune", "m.onnx", *both, "-o", "p.onnx")
    assert code == 0, err
    assert "2,304 of " in out and pruned(onnx.load("p.onnx")) == {"w3", "w4"}
    code, out, err = asr("repair", "m.onnx", "--calib", "x.npy", *both, "--recipe", "asr", "-o",
                         "r.onnx", "--report", "r.json")  # fmt: skip
    assert code == 0, err
    assert asr("repair", "--from-report", "r.json", "-o", "s.onnx", "-q")[0] == 0
    assert (tmp_path / "r.onnx").read_bytes() == (tmp_path / "s.onnx").read_bytes()
    assert "25.00% zeros" in out and "2 of 4 layers that can have 2:4 stay dense" in out
    code, out, err = asr("check", "p.onnx", "r.onnx", *both)
    assert (code, err) == (0, "")
    assert "p.onnx: 2:4 in 2 of 4 sites, 25.00% of 9,216 weights are zero; 1 left alone" in out
    code, out, err = asr("check", "p.onnx", "--pattern", "2:4", "--sparsity", "0.3")
    assert code == 3
    assert err.splitlines()[0] == (
        "p.onnx: 2,304 of 9,216 weights are zero where 2:4 holds (25.00%), 2,765 were asked for: "
        "it holds in 2 of 4 sites"
    )
    code, _, err = asr("prune", "m.onnx", "--pattern", "2:4", "--sparsity", "0.6")
    assert code == 2 and err.startswith("error: pattern 2:4 leaves at most 50 % zeros: ask for")
    assert err.count("\n") == 1
    auto = ("--pattern", "2:4", "--sparsity", "auto", "--min-cosine", "0.5")
    code, out, err = asr("repair", "m.onnx", "--calib", "x.npy", *auto, "-o", "a.onnx")
    assert code == 0 and "sparsity auto took " in out


def test_a_layer_that_lost_its_pattern_is_noticed(net):
    made = prune(net, PruneOptions(0.25, "2:4"))
    weight = stored(made)["w4"].copy()
    weight[0, :4, 0, 0] = 1
    found = check(copied(made, w4=weight), pattern="2:4", sparsity=0.25)
    assert not found.passed and found.counted == 1152 < found.zeros


def test_which_layers_get_a_pattern_is_searched_for_too(net, monkeypatch):
    """Where predictions mislead, magnitudes say better what stays dense."""
    from asr_onnx.repairing import weighing

    real = weighing.predict
    monkeypatch.setattr(
        weighing, "predict", lambda layer: 1e6 ** float(layer.label in LAYERS[2:]) * real(layer)
    )
    x, how = normal(np.random.default_rng(3), 40, 3, 6, 6), {"pattern": "2:4", "sparsity": 0.25}

    def repaired(name):
        return repair(net, x, recipe("best", allocation=name, **how))

    def error(result):
        return result.repaired_outputs["y"].relative_error

    each = {name: repaired(name) for name in ("error", "mixed")}
    found = repaired("search")
    assert each["error"].spared == LAYERS[2:] and each["mixed"].spared == LAYERS[:2]
    assert {way.by for way in found.allocated} == set(each)
    assert error(found) == error(each["mixed"]) < error(each["error"])
    assert found.spared == LAYERS[:2]
