"""Results as rows, and as data frames where there is pandas."""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import replace

import numpy as np
import pytest
from models import balanced, norm_net, normal

import asr_onnx
from asr_onnx import MissingError, RepairOptions
from asr_onnx.extras import require
from asr_onnx.pruning.channels import Width
from asr_onnx.reports.frames import rows
from asr_onnx.sweeps.results import SweepResult, to_csv


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(1)
    return balanced(norm_net(rng), x=normal(rng, 20, 3, 8, 8))


@pytest.fixture(scope="module")
def repaired(model):
    x = normal(np.random.default_rng(2), 20, 3, 8, 8)
    return asr_onnx.repair(model, x, RepairOptions(0.6, method="asr"))


@pytest.fixture(scope="module")
def compared(model, repaired):
    x, labels = normal(np.random.default_rng(3), 12, 3, 8, 8), np.arange(12) % 3
    return asr_onnx.compare(model, {"r": repaired.model}, x, labels)


SWEEP = SweepResult(
    metric="accuracy",
    cells=[
        {"recipe": "asr", "sparsity": 0.5, "value": 0.8, "accuracy": {"correct": 8, "total": 10},
         "pruned": {"value": 0.5, "accuracy": {"correct": 5}}},
        {"recipe": "asr", "sparsity": 0.9, "error": "it is, well, impossible"},
    ],
)  # fmt: skip


def test_a_repair_has_a_row_for_each_site(repaired):
    found = rows(repaired)
    assert [r["name"] for r in found] == [s.name for s in repaired.sites]
    first, site = found[0], repaired.sites[0]
    assert first["density"] == site.density
    assert first["error_repaired"] == site.error_repaired
    assert first["gamma_median"] == np.median(site.gamma)
    assert first["channels"] == len(site.gamma)


def test_a_comparison_has_a_row_for_each_model_with_intervals_and_costs(compared):
    dense, other = rows(compared)
    assert (dense["name"], other["name"]) == ("dense", "r")
    top1 = compared.models[0].top1
    assert (other["top1_low"], other["top1_share"], other["top1_high"]) == (
        top1.low, top1.share, top1.high,
    )  # fmt: skip
    assert other["cost_macs"] == compared.models[0].cost.macs
    assert other["outputs_y_cosine"] == compared.models[0].outputs["y"].cosine
    assert other["ratios_effective_macs"] < 1 == dense["ratios_effective_macs"]
    assert "against_dense_p_value" in other and "against_dense" not in dense


def test_a_sweep_has_the_rows_of_its_csv():
    table = list(csv.DictReader(io.StringIO(to_csv(SWEEP))))
    found = rows(SWEEP)
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in found] == table
    assert found[0]["pruned_accuracy_correct"] == 5
    assert found[1]["error"] == "it is, well, impossible"


def test_an_inspection_has_a_row_for_each_site(model):
    found = asr_onnx.inspect(model)
    assert [r["macs"] for r in rows(found)] == [found.macs[s.name] for s in found.sites]
    assert sum(r["weights"] for r in rows(found)) == found.weights


def test_compacting_has_a_row_for_each_width(model):
    found = replace(asr_onnx.compact(model), widths=(Width(("a", "b"), 8, 5),))
    assert rows(found) == [{"producers": ("a", "b"), "before": 8, "after": 5}]


def test_a_search_has_a_row_for_each_amount(model):
    x = normal(np.random.default_rng(2), 20, 3, 8, 8)
    found = asr_onnx.repair_auto(model, x, lambda r: r.sparsity < 0.6, RepairOptions(), steps=2)
    told = rows(found)
    assert [r["removed"] for r in told] == [t.points / 100 for t in found.trials.tried]
    assert [r["taken"] for r in told].count(True) == bool(not found.failures)


def test_what_is_no_result_is_refused():
    with pytest.raises(TypeError, match="a list is no result"):
        rows([])


def test_without_pandas_one_line_says_what_to_install(repaired, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingError, match=r"pip install asr-onnx\[pandas\]$"):
        repaired.to_dataframe()


def test_what_an_extra_lacks_itself_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_extra.py").write_text("import nothing_of_that_name")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        require("broken_extra", "x", "this")


def test_data_frames_hold_the_rows(repaired, compared, model):
    pytest.importorskip("pandas")
    for result in (repaired, compared, SWEEP, asr_onnx.inspect(model)):
        table, expected = result.to_dataframe(), rows(result)
        assert len(table) == len(expected)
        assert list(table.columns) == list(dict.fromkeys(n for row in expected for n in row))
    table = repaired.to_dataframe().set_index("name")
    assert table.dtypes["error_repaired"] == np.float64
    assert table["weights"].sum() == sum(s.weights for s in repaired.sites)
    models = compared.to_dataframe()
    assert models.query("top1_share >= top1_low")["name"].tolist() == ["dense", "r"]
    assert models["against_dense_p_value"].isna().tolist() == [True, False]
