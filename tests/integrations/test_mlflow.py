"""Results in MLflow, kept in a data base of the test's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import balanced, norm_net, normal, stored

import asr_onnx
from asr_onnx import AsrError, MissingError, RepairOptions
from asr_onnx.integrations.mlflow import log_result

OPTIONS = RepairOptions(0.6, method="asr", exclude="w" * 7000)
X = normal(np.random.default_rng(2), 20, 3, 8, 8)


@pytest.fixture(scope="module")
def model():
    return balanced(norm_net(np.random.default_rng(1)), x=X)


@pytest.fixture(scope="module")
def repaired(model):
    return asr_onnx.repair(model, X, OPTIONS)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """MLflow with a data base and a folder for artifacts."""
    pytest.importorskip("sqlalchemy", reason="MLflow's data base needs sqlalchemy and alembic")
    mlflow = pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'runs.db'}")
    mlflow.create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment("tests")
    return mlflow


@pytest.fixture
def mlflow(base):
    yield base
    while base.active_run():
        base.end_run()


# Those of libraries below MLflow are not ours.
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


def artifacts(mlflow, run):
    return {a.path for a in mlflow.MlflowClient().list_artifacts(run)}


def model_of(mlflow, run):
    (found,) = mlflow.get_run(run).outputs.model_outputs
    return mlflow.onnx.load_model(f"models:/{found.model_id}")


@pytest.mark.slow
def test_a_repair_has_a_run_of_its_own(mlflow, repaired):
    before = repaired.model.SerializeToString()
    run = log_result(repaired)
    assert mlflow.active_run() is None
    found = mlflow.get_run(run)
    assert found.info.status == "FINISHED"
    assert found.data.params["sparsity"] == "0.6"
    assert found.data.params["method"] == "asr"
    assert found.data.params["exclude"].startswith("www")
    assert len(found.data.params["exclude"]) <= 500
    match = repaired.repaired_outputs["y"]
    told = found.data.metrics
    assert told["relative_error"] == pytest.approx(match.relative_error)
    assert told["cosine"] == pytest.approx(match.cosine)
    assert told["agreement"] == match.agreement
    assert told["sparsity"] == repaired.sparsity
    assert told["effective_macs"] == repaired.cost.effective_macs
    assert told["macs_ratio"] == 1
    assert artifacts(mlflow, run) == {"report.json", "report.html"}
    report = mlflow.artifacts.load_dict(f"runs:/{run}/report.json")
    assert report["sparsity"] == repaired.sparsity
    assert "Output variance" in mlflow.artifacts.load_text(f"runs:/{run}/report.html")
    assert model_of(mlflow, run) == repaired.model
    assert repaired.model.SerializeToString() == before


@pytest.mark.slow
def test_a_run_that_is_there_is_used_and_stays_open(mlflow, repaired, model):
    compared = asr_onnx.compare(model, {"a/b": repaired.model, "a:b": model}, X, np.arange(20) % 3)
    with mlflow.start_run() as run:
        assert log_result(repaired, model_name=None, report=False) == run.info.run_id
        assert log_result(compared, prefix="compared/") == run.info.run_id
        assert mlflow.active_run()
    found = mlflow.get_run(run.info.run_id)
    first, second = compared.models
    for name, told in (("dense", compared.dense), ("a_b", first), ("a_b_2", second)):
        assert found.data.metrics[f"compared/{name}/top1_share"] == told.top1.share
        assert found.data.metrics[f"compared/{name}/top1_low"] == pytest.approx(told.top1.low)
        assert found.data.metrics[f"compared/{name}/cost_macs"] == told.cost.macs
    assert found.data.params["compared/samples"] == "20"
    assert artifacts(mlflow, run.info.run_id) == {
        "compared_report.json",
        "compared_report.html",
    }
    assert not found.outputs.model_outputs


@pytest.mark.slow
def test_a_search_tells_what_was_tried(mlflow, model):
    found = asr_onnx.repair_auto(model, X, lambda r: r.sparsity < 0.6, RepairOptions(), steps=2)
    run = log_result(found, model_name=None)
    told = mlflow.get_run(run).data
    assert told.metrics["search/tried"] == len(found.trials.tried)
    assert told.params["search_amount"] == "sparsity"
    report = json.loads(mlflow.artifacts.load_text(f"runs:/{run}/report.json"))
    assert len(report["search"]["tried"]) == len(found.trials.tried)


@pytest.mark.slow
def test_what_mlflow_refuses_is_one_line_with_the_cure(mlflow, repaired, model):
    other = asr_onnx.repair(model, X, RepairOptions(0.5, method="asr"))
    with mlflow.start_run():
        log_result(repaired, model_name=None, report=False)
        with pytest.raises(AsrError, match=r"sparsity.*start another run, or give a prefix") as e:
            log_result(other, model_name=None, report=False)
        assert "\n" not in str(e.value)


@pytest.mark.slow
def test_weights_in_files_are_logged_as_files(mlflow, repaired):
    names = frozenset(t.name for t in repaired.model.graph.initializer)
    run = log_result(repaired, report=False, external=names)
    folder = mlflow.artifacts.download_artifacts(f"runs:/{run}/model")
    assert len(list(Path(folder).iterdir())) == 2
    assert stored(onnx.load(f"{folder}/model.onnx")).keys() == names
    for name, value in stored(onnx.load(f"{folder}/model.onnx")).items():
        np.testing.assert_array_equal(value, stored(repaired.model)[name])


def test_what_is_no_result_is_refused(mlflow):
    with pytest.raises(AsrError, match="a dict is not logged: give a RepairResult"):
        log_result({})


def test_without_mlflow_one_line_says_what_to_install(repaired, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingError, match=r"pip install asr-onnx\[mlflow\]$"):
        log_result(repaired)


def test_names_are_what_mlflow_takes():
    from asr_onnx.integrations.mlflow import _distinct, _named

    told = _named({"a/../b": 1, "a:b": 2, "a?b": 3, "": 4, "x" * 300: 5, "x" * 301: 6}, "")
    assert list(told)[:4] == ["a/_/b", "a_b", "a_b_2", "_"]
    assert [len(n) for n in list(told)[4:]] == [250, 250]
    assert _distinct(["a", "a", "a_2"]) == ["a", "a_2", "a_2_2"]
    validation = pytest.importorskip("mlflow.utils.validation")
    for name in told:
        validation._validate_metric_name(name)
        validation._validate_param_name(name)
