"""What a repair tells on a terminal of 80 columns: the verdict first, then the worst sites."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import bare_net, build, copied, norm_net, normal, stored
from rich.console import Console

from asr_onnx import Gates, RepairOptions, recipe, repair
from asr_onnx.graph.cost import cost_of
from asr_onnx.provenance import dumps
from asr_onnx.repairing.result import Rung
from asr_onnx.repairing.verdict import judge
from asr_onnx.reports import repair_page, repair_tables

DEPTH = 14


def deep(rng):
    nodes = [f"t{i + 1} = Conv<pads=[1,1,1,1]> (t{i}, w{i})" for i in range(DEPTH)]
    text = "\n".join(nodes)
    ends = f"(float[N,4,6,6] t0) => (float[N,4,6,6] t{DEPTH})"
    weights = {f"w{i}": normal(rng, 4, 4, 3, 3) / 4 for i in range(DEPTH)}
    return build(f"deep {ends} {{ {text} }}", weights)


def printed(*content):
    console = Console(width=80, no_color=True)
    with console.capture() as captured:
        for item in content:
            console.print(item)
    return captured.get()


def test_the_verdict_comes_first_in_lines_that_fit(rng):
    result = repair(norm_net(rng), normal(rng, 40, 3, 8, 8), RepairOptions(0.6))
    for gates, verdict in ((Gates(), "passed: m.onnx"), (Gates(max_error=0.0), "rejected: ")):
        judgement = judge(result, gates, "m.onnx")
        lines = list(repair_tables.summary(result, judgement, Path("m.onnx")))
        assert lines[0].startswith(verdict)
        assert len(lines) <= 10 and max(map(len, lines)) <= 80
        assert any("32 samples solved on, 8 held out" in line for line in lines)
        assert any("recipe auto took" in line for line in lines)
    assert "--max-error" in lines[1]


def test_what_the_model_costs_is_told_before_and_after(rng):
    """As it is where weights are zeroed, and less where the result has become narrower."""
    net = bare_net(rng)
    result = repair(net, normal(rng, 40, 3, 8, 8), recipe("asr", sparsity=0.5))
    assert result.cost_before == cost_of(net)
    told = repair_tables.to_dict(result)["cost"]
    assert told["ratios"]["macs"] == 1
    assert told["after"]["parameters"] == told["before"]["parameters"] + 8  # a bias
    left = (
        64 * 27 * 8
        + 16 * 72 * 6
        - sum(
            places * (s.weights - round(s.density * s.weights))
            for places, s in zip((64, 16), result.sites, strict=True)
        )
    )
    assert told["after"]["effective_macs"] == left + 30
    line = f"MACs 20.8 k as before, non-zero MACs {(left + 30) / 1e3:.1f} k, parameters 697"
    assert line in repair_tables.summary(result, passed(result), None)
    w = stored(result.model)
    (bias,) = (n for n in w if n not in stored(net))
    cut = {"w1": w["w1"][:5], bias: w[bias][:5], "w2": w["w2"][:, :5]}
    narrow = replace(result, model=copied(result.model, **cut))
    lines = list(repair_tables.summary(narrow, passed(narrow), None))
    assert "MACs 20.8 k → 13.0 k (× 0.63), parameters 689 → 451 (× 0.65)" in lines
    content = json.loads(dumps(repair_tables.to_dict(narrow, model="m.onnx")))
    assert content["cost"]["after"]["macs"] == 64 * 27 * 5 + 16 * 45 * 6 + 30
    rows = repair_page.costs(content)
    assert rows["before"][:3] == ["20.8 k", "689", "4.0 KiB"]
    assert rows["× before"][:3] == ["0.63", "0.65", "0.62"]
    tiles = {t["label"]: t for t in repair_page.tiles(content)}
    assert tiles["MACs per sample"]["value"] == "13.0 k"
    assert "0.63 of 20.8 k before; parameters 0.65 of 689" in tiles["MACs per sample"]["note"]
    assert repair_page.costs({**content, "cost": None}) == {}


def passed(result):
    return judge(result, Gates(), "m.onnx")


def test_the_next_rung_has_a_price_where_one_is_left(rng):
    result = repair(norm_net(rng), normal(rng, 40, 3, 8, 8), recipe("asr", sparsity=0.5))
    assert list(repair_tables.rungs(result)) == []
    rung = Rung("asr", 0.5, accepted=True, taken=True, seconds=10.0)
    told = " ".join(repair_tables.rungs(replace(result, rungs=(rung,))))
    assert "took asr, good enough" in told and "--recipe best would take about 80 s" in told
    failed = replace(rung, accepted=False, taken=False)
    best = Rung("best", 1.5, accepted=False, taken=True, seconds=50.0)
    told = " ".join(repair_tables.rungs(replace(result, rungs=(failed, best))))
    assert "not good enough" in told and "asr 0.50 (fails a gate)" in told
    assert "would take" not in told


def test_ten_sites_are_told_of_the_worst_first_and_all_when_asked(rng):
    result = repair(deep(rng), normal(rng, 30, 4, 6, 6), recipe("asr", sparsity=0.5))
    text = printed(repair_tables.worst_sites(result))
    assert max(map(len, text.splitlines())) <= 80
    worst = sorted(result.sites, key=lambda s: s.error_repaired, reverse=True)
    places = [text.find(f" {s.name} ") for s in worst[:10]]
    assert -1 not in places and places == sorted(places)
    assert all(f" {s.name} " not in text for s in worst[10:])
    assert f"10 worst of {DEPTH} sites" in text and "-v: 4 more" in text
    assert all(f" w{i} " in printed(repair_tables.site_table(result)) for i in range(DEPTH))


@pytest.mark.parametrize("words, sites", [((), 10), (("-v",), DEPTH)])
def test_the_command_line_tells_so(rng, tmp_path, asr, words, sites):
    onnx.save(deep(rng), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", normal(rng, 30, 4, 6, 6))
    given = ("--calib", str(tmp_path / "x.npy"), "--sparsity", "0.5", "--recipe", "asr", *words)
    code, out, _ = asr("repair", str(tmp_path / "m.onnx"), *given, "--providers", "cpu", "--force")
    assert code == 0
    assert sum(f" w{i} " in out for i in range(DEPTH)) == sites
    assert out.index("passed:") < out.index("Against the dense model")
