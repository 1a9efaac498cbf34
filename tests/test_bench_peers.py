"""The parts of ``tools/bench_peers.py`` that judge, measure and print; the peers are not run."""

import sys
from dataclasses import replace
from pathlib import Path

import bench_peers
import numpy as np
import onnx
import pytest
from bench_peers import Result, command, figure, in_groups, integers, kept, measured, reason, table
from models import ROOT
from onnx import TensorProto, helper, numpy_helper

ALL_CELLS = list(bench_peers.CELLS)


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(str(bench_peers.FOLDER))
    import common

    yield common
    del sys.modules["common"]


def chain(*weights):
    """Convolutions one behind the other, of images of 4x4."""
    nodes = [helper.make_node("Conv", [f"t{i}", f"w{i}"], [f"t{i + 1}"], name=f"conv{i}")
             for i in range(len(weights))]  # fmt: skip
    shape = [None, weights[0].shape[1], 4, 4]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("t0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"t{len(weights)}", TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(w.astype(np.float32), f"w{i}") for i, w in enumerate(weights)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_groups_run_along_the_input_channels():
    weight = np.ones((2, 8, 3, 3))
    weight[:, [0, 3, 4, 5]] = 0
    assert in_groups(weight)
    weight[1, 3, 2, 2] = 1  # of the same group as channels 1 and 2
    assert not in_groups(weight)
    rows = np.ones((2, 16, 4))
    rows[:, :, :2] = 0  # two of four as they lie in memory, along the kernel
    assert not in_groups(rows.reshape(2, 16, 2, 2))


def test_zeros_are_counted_over_all_convolutions():
    dense = chain(np.ones((4, 4, 1, 1)), np.ones((4, 4, 1, 1)))
    half = np.ones((4, 4, 1, 1))
    half[:2] = 0
    assert kept(dense, chain(half, half), "50") == ("50.0% zeros", "")
    told, wrong = kept(dense, chain(half, np.ones((4, 4, 1, 1))), "50")
    assert told == wrong == "25.0% zeros"


def test_a_file_without_the_pattern_is_told_of():
    ones, grouped = np.ones((4, 4, 1, 1)), np.ones((4, 4, 1, 1))
    grouped[:, :2] = 0
    narrow = np.ones((4, 3, 1, 1))  # no groups of four: stays as it is
    dense = chain(narrow, ones)
    assert kept(dense, chain(narrow, grouped), "2of4")[1] == ""
    assert kept(dense, chain(narrow, ones), "2of4")[1] == "2:4 in 0 of 1 layers"


def test_channels_are_fewer_and_the_work_is_what_was_asked_for():
    dense = chain(np.ones((8, 4, 1, 1)), np.ones((4, 8, 1, 1)))
    narrow = chain(np.ones((4, 4, 1, 1)), np.ones((4, 4, 1, 1)))
    told, wrong = kept(dense, narrow, "channel")
    assert told == "50.0% of the MACs, 2 of 2 layers narrower"
    assert not wrong
    assert kept(dense, dense, "channel")[1] == "100.0% of the MACs, 0 of 2 layers narrower"


def test_integers_are_found_behind_their_pair():
    model = chain(np.ones((4, 4, 1, 1)), np.ones((4, 4, 1, 1)))
    assert integers(model) == (2, 0)
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.ones((4, 4, 1, 1), np.int8), "q"))
    graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "s"))
    graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "s"], ["d"]))
    graph.node[1].input[1] = "d"
    assert integers(model) == (2, 1)
    assert kept(model, model, "int8") == ("1 of 2 layers", "int8 in 1 of 2 layers")


@pytest.mark.parametrize("peer", bench_peers.PEERS)
def test_every_peer_has_a_runner_that_takes_nothing_of_the_package(peer):
    if peer != "asr_onnx":
        text = (bench_peers.FOLDER / f"with_{peer}.py").read_text(encoding="utf-8")
        assert "import common" in text
        assert "asr_onnx" not in text


def test_what_is_run_here_is_the_command_line(asr):
    files = (Path("a.onnx"), Path("calibration.npz"), Path("b.onnx"))
    shown = {w for c in ("repair", "quantize") for w in asr(c, "--help")[1].split()}
    for setting, cells in bench_peers.PEERS["asr_onnx"].settings.items():
        for cell in cells:
            words = command(Path(sys.executable), "asr_onnx", setting, cell, files)
            assert {w for w in words if w.startswith("--")} <= shown


def test_a_command_is_measured(tmp_path):
    code = "x = bytearray(200 << 20); [i for i in range(10**6)]"
    found = measured([sys.executable, "-c", code], tmp_path / "log", 60)
    assert not found["fault"]
    assert found["peak"] > 200 << 20
    assert found["cpu"] > 0


def test_the_reason_of_a_failure_is_its_last_line(tmp_path):
    code = "print('working'); raise ValueError('a | b')"
    found = measured([sys.executable, "-c", code], tmp_path / "log", 60)
    assert found["fault"] == "ValueError: a / b"
    found = measured([sys.executable, "-c", "raise SystemExit(5)"], tmp_path / "log", 60)
    assert found["fault"] == "exit 5"
    assert len(reason("x" * 500)) <= 120


def test_what_does_not_end_is_ended(tmp_path):
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert measured(words, tmp_path / "log", 0.2)["fault"] == "no end within 0.2 s"


RESULT = Result("net", "onnxsim", "SparseGPT", "90", correct=850, total=1000, low=0.826, high=0.871,
                wall=12.3, cpu=20.1, peak=300 << 20, holds="90.0% zeros")  # fmt: skip


def test_a_figure_has_its_interval_and_what_is_wrong():
    assert figure(RESULT) == "85.0 (83–87)"
    assert figure(replace(RESULT, wrong="80.0% zeros")) == "85.0 (83–87), but 80.0% zeros"
    assert figure(replace(RESULT, fault="no way")) == "failed: no way"


def test_the_table_has_a_row_for_each_setting_and_all_columns():
    failed = replace(RESULT, cell="2of4", fault="no way", wall=900.0)
    other = replace(RESULT, cell="50", wall=3.0)
    lines = list(table({"net": "91.6 (90–93)"}, [RESULT, failed, other], ALL_CELLS))
    assert len({line.count("|") for line in lines}) == 1
    shown = ["85.0 (83–87)", "not run", "not run", "85.0 (83–87)", "not run"]
    assert f"| net | onnxsim | SparseGPT | {' | '.join(shown)} |" in lines[-1]
    assert "| – | – |" in lines[-1]  # channels and int8, which SparseGPT does not do
    assert lines[-1].endswith("| 20 | 3–12 | 300 |")  # of what was done
    assert "failed: no way" in lines[-1]
    assert "91.6 (90–93)" in lines[2]


def test_the_runners_count_work_as_the_package_does(common):
    model = onnx.load(ROOT / "sample_models" / "digits_resnet_bn.onnx")
    assert common.macs(model) == bench_peers.multiplies(model)


def test_the_least_is_found(common):
    def prune(share):
        keep = round(100 * (1 - share))
        return chain(np.ones((keep, 4, 1, 1)), np.ones((4, keep, 1, 1)))

    dense = common.macs(prune(0))
    assert common.macs(common.least(prune, dense, 0.5)) == dense // 2


def test_calibration_inputs_come_in_batches(common, tmp_path):
    path = tmp_path / "c.npz"
    np.savez(path, a=np.arange(5), b=np.arange(5) + 10)
    found = common.batches(path, 2)
    assert [len(b["a"]) for b in found] == [2, 2, 1]
    assert found[2]["b"].tolist() == [14]
    reader = common.Reader(found)
    assert [len(reader.get_next()["a"]) for _ in found] == [2, 2, 1]
    assert reader.get_next() is None
    reader.rewind()
    assert reader.get_next() is found[0]


def test_a_run_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    digits = ROOT / "sample_models"
    model, calib, test = (
        digits / n for n in ("digits_resnet_bn.onnx", "digits/calib", "digits/test")
    )
    done = []

    def instead(words, log, limit):
        done.append(words)
        Path(words[words.index("--output") + 1]).write_bytes(model.read_bytes())
        return {"fault": "", "wall": 1.0, "cpu": 1.0, "peak": 1 << 20}

    monkeypatch.setattr(bench_peers, "measured", instead)
    bench = bench_peers.Bench(model, calib, test, tmp_path, 8)
    assert bench.cell("asr_onnx", "asr", "50", 0) is None
    first = bench.cell("asr_onnx", "asr", "50", 60)
    assert (first.correct, first.total, first.wrong) == (500, 500, "0.0% zeros")
    assert bench.cell("asr_onnx", "asr", "50", 60) == first
    assert len(done) == 1
    words = ["--model", model, "--calib", calib, "--test", test, "--work", tmp_path]
    words += ["--num-samples", 8, "--limit", 0, "--peers", "asr_onnx", "--settings", "asr"]
    bench_peers.main([*map(str, words), "--only", "50", "--only", "70"], standalone_mode=False)
    last = capsys.readouterr().out.splitlines()[-1]
    assert "| asr_onnx | asr | 100.0 (99–100), but 0.0% zeros | not run |" in last
