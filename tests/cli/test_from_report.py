"""``--from-report``: a run is done again by what its report says, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import asr_onnx
from asr_onnx.cli import from_report, resolved

REPAIR = ("repair", "m.onnx", "--calib", "x.npy", "--force", "--providers", "cpu")


@pytest.fixture
def report(folder, asr):
    """A report of a repair whose options are from a file and the command line, and its text."""
    Path("asr-onnx.toml").write_text("[all]\nnum-samples = 10\nseed = 5\n", encoding="utf-8")
    words = ("--sparsity", "70%", "--criterion", "obs", "--holdout", "0.3", "--report", "r.json")
    assert asr(*REPAIR, *words)[0] == 0
    Path("asr-onnx.toml").write_text("[all]\nseed = 6\nforce = true\n", encoding="utf-8")
    return Path("r.json")


def changed(path, **config):
    content = json.loads(path.read_text(encoding="utf-8"))
    content["config"] |= config
    path.write_text(json.dumps(content), encoding="utf-8")


def test_the_same_model_comes_of_it(report, asr):
    config = json.loads(report.read_text(encoding="utf-8"))["config"]
    assert config["command"] == "repair" and config["arguments"] == ["m.onnx"]
    assert config["options"] == {
        "calib": "x.npy", "sparsity": 0.7, "criterion": "obs", "holdout": 0.3, "num-samples": 10,
        "seed": 5, "providers": "cpu", "force": True, "report": ["r.json"],
    }  # fmt: skip
    assert config["defaults"]["batch-size"] == 32 and "seed" not in config["defaults"]
    code, _, err = asr("repair", "--from-report", report)
    assert code == 2 and "'m.sparse.onnx' exists already" in err
    report.rename("old.json")
    code, _, err = asr(
        "repair", "--from-report", "old.json", "-o", "o.onnx", "--force", "--report", "n.json"
    )
    assert code == 0 and "warning: '" not in err and not report.exists()
    assert err.startswith("options from 'old.json': calib, sparsity, num-samples")
    assert Path("o.onnx").read_bytes() == Path("m.sparse.onnx").read_bytes()
    again = json.loads(Path("n.json").read_text(encoding="utf-8"))["config"]
    assert again["options"] == {**config["options"], "output": "o.onnx", "report": ["n.json"]}


def test_the_command_line_wins(report, asr):
    code, out, err = asr("repair", "--from-report", report, "--pattern", "2:4", "--show-config")
    assert code == 0
    assert "# sparsity =" in out and 'pattern = "2:4" # command line' in out
    assert "holdout = 0.3 # r.json holdout" in out
    code, _, err = asr("repair", "none.onnx", "--from-report", report, "--pattern", "2:4")
    assert code == 1 and "--pattern leaves out sparsity of 'r.json'" in err and "none.onnx" in err
    code, _, err = asr("repair", "--from-report", report, "--config", "asr-onnx.toml")
    assert code == 2 and "exclude each other" in err


def test_what_is_not_as_it_was_is_told(report, asr, monkeypatch):
    Path("m.onnx").write_bytes(Path("m.onnx").read_bytes() + b"\x32\x00")  # an empty domain, say
    monkeypatch.setattr(from_report, "versions", lambda: {"numpy": "0.1"})
    changed(report, defaults={"batch-size": 31, "seed": 4, "none": 1})
    _, _, err = asr("repair", "--from-report", report)
    assert "warning: 'm.onnx' is not what report 'r.json' is of: the result will be another" in err
    assert "warning: --batch-size was 31 in report 'r.json' by default, and is 32 now" in err
    assert "(here 0.1)" in err and "--seed was" not in err
    assert "warning" not in asr("repair", "--from-report", report, "-q")[2]


def test_a_model_that_was_moved_is_the_same_model(report, asr):
    Path("m.onnx").rename("moved.onnx")
    _, _, err = asr("repair", "moved.onnx", "--from-report", report)
    assert "warning: '" not in err


BAD = [
    ({"command": "quantize"}, "is of asr-onnx quantize: give it to that command"),
    ({"command": 3}, "is damaged"),
    ({"arguments": "m.onnx"}, "is damaged"),
    ({"arguments": [3]}, "is damaged"),
    ({"arguments": ["a\0b"]}, "is damaged"),
    ({"arguments": ["a", "b"]}, "unexpected extra argument"),
    ({"arguments": []}, "Missing argument 'MODEL'"),
    ({"options": [1]}, "is damaged"),
    ({"options": {"x" * 9999: 1}}, "repair has no option 'xxx"),
    ({"options": {"sparsity": {"a": 1}}}, "sparsity: is to be a number or a text"),
    ({"options": {"seed": None}}, "seed: is to be a whole number"),
    ({"options": {"seed": 1 << 300}}, "seed: is too large a number"),
    ({"options": {"reconstruct": "yes"}}, "reconstruct: is to be true or false"),
    ({"options": {"min-metric": "f1=1"}}, "min-metric: is repeatable"),
    ({"options": {"max-error": "nan"}}, "max-error: is no number"),
    (
        {"options": {"calib": "x.npy", "labels": "l.csv"}},
        "labelled data: give --data, too (labels of 'r.json')",
    ),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_is_wrong_in_a_report_is_one_line(report, asr, number):
    config, told = BAD[number]
    changed(report, **config)
    code, _, err = asr("repair", "--from-report", report, "-q")
    assert code in (1, 2) and told in err and "unexpected " not in err.replace(told, "")
    assert err.startswith("Usage: ") or (err.startswith("error: ") and err.count("\n") == 1)


def test_a_report_of_before_and_what_is_none(report, asr):
    content = json.loads(report.read_text(encoding="utf-8"))
    for without in (
        {**content, "config": None},
        {k: v for k, v in content.items() if k != "config"},
    ):
        report.write_text(json.dumps(without), encoding="utf-8")
        code, _, err = asr("repair", "--from-report", report)
        assert code == 2 and "has no config: an older asr-onnx wrote it" in err
    report.write_text("{}", encoding="utf-8")
    assert "is no JSON report" in asr("repair", "--from-report", report)[2]
    assert asr("repair", "--from-report", "none.json")[0] == 1


def test_infinity_is_an_option_like_others(report, asr):
    words = ("--max-error", "inf", "-o", "o.onnx", "--report", "i.json")
    assert asr(*REPAIR, "--num-samples", "10", *words)[0] == 0
    config = json.loads(Path("i.json").read_text(encoding="utf-8"))["config"]
    assert config["options"]["max-error"] == "inf"
    out = asr("repair", "--from-report", "i.json", "--show-config")[1]
    assert "max-error = inf # i.json max-error\n" in out


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_a_comparison_is_repeated(folder, asr):
    assert asr("prune", "m.onnx", "-q")[0] == 0
    words = ("--data", "x.npy", "--no-labels", "--no-latency", "--report", "c.json", "-q")
    assert asr("compare", "m.onnx", "m.pruned.onnx", "m.onnx", *words)[0] == 0
    code, out, err = asr("compare", "--from-report", "c.json", "--report", "d.json")
    assert code == 0 and "m.pruned.onnx" in out and "warning" not in err
    old, new = read("c.json"), read("d.json")
    assert old["models"] == new["models"]
    assert old["config"]["arguments"] == ["m.onnx", "m.pruned.onnx", "m.onnx"]
    assert "Missing argument" in asr("compare", "m.onnx", "--from-report", "c.json")[2]


@pytest.mark.slow
def test_a_quantization_is_repeated(folder, asr):
    words = ("--calib", "x.npy", "-q", "--providers", "cpu", "--force", "--report", "q.json")
    assert asr("quantize", "m.onnx", *words)[0] == 0
    words = ("--from-report", "q.json", "-o", "o.onnx", "--force", "-q")
    assert asr("quantize", *words) == (0, "", "")
    assert Path("o.onnx").read_bytes() == Path("m.int8.onnx").read_bytes()


@pytest.mark.slow
def test_a_sweep_is_repeated(folder, asr):
    words = ("--calib", "x.npy", "--sparsities", "0.5", "--recipes", "asr", "-o", "out", "-q")
    assert asr("sweep", "m.onnx", *words)[0] == 0
    assert asr("sweep", "--from-report", "out/sweep.json", "-o", "two", "-q")[0] == 0
    old, new = read("out/sweep.json"), read("two/sweep.json")
    assert old["cells"][0]["value"] == new["cells"][0]["value"]
    assert old["config"]["options"]["sparsities"] == [0.5]


def test_without_a_command_there_is_no_config(folder):
    assert resolved.resolved() is None
    found = asr_onnx.sweep(
        "m.onnx", "x.npy", "out", sparsities=(0.5,), recipes=("asr",), num_samples=12
    )
    assert "config" not in found


def test_a_name_that_reads_like_a_number_is_a_name(report, asr):
    content = json.loads(report.read_text(encoding="utf-8"))["config"]["options"]
    changed(report, options={**content, "calib": "inf"})
    code, out, _ = asr("repair", "--from-report", report, "--show-config")
    assert code == 0 and 'calib = "inf"' in out


def test_another_dense_model_is_the_one_that_is_compared(folder, asr):
    assert asr("prune", "m.onnx", "--sparsity", "0.5", "-o", "p.onnx")[0] == 0
    words = ("--dense", "m.onnx", "--calib", "x.npy", "--force", "--report", "r.json")
    assert asr("repair", "p.onnx", *words)[0] == 0
    Path("copy.onnx").write_bytes(Path("m.onnx").read_bytes())
    Path("m.onnx").unlink()
    Path("m.onnx").write_bytes(Path("p.onnx").read_bytes())
    again = ("repair", "--from-report", "r.json", "-o", "o.onnx", "--force")
    assert "warning: 'm.onnx' is not what" in asr(*again)[2]
    code, _, err = asr(*again, "--dense", "copy.onnx")
    assert code == 0 and "warning: '" not in err
