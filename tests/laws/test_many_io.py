"""Models of several inputs and outputs are repaired and compared, whatever feeds them."""

from __future__ import annotations

import json
import math

import numpy as np
import onnx
import pytest
from models import balanced, batches, detector, feeds_for, run, stored, two_inputs
from onnxruntime.quantization import CalibrationDataReader

import asr_onnx
from asr_onnx import CalibrationError, CompareOptions, Figures, Gates, RepairOptions

OPTIONS = RepairOptions(0.5, method="asr")
QUICK = {"options": CompareOptions(latency=False)}
SETTINGS = ("--sparsity", "0.5", "--providers", "cpu", "--batch-size", "8", "-q")
MODELS = {"detector": detector, "two_inputs": two_inputs}


def zeros(model) -> int:
    """Zeros in the convolutions' weights."""
    names = {n.input[1] for n in model.graph.node if n.op_type == "Conv"}
    return sum(int((v == 0).sum()) for n, v in stored(model).items() if n in names)


@pytest.mark.parametrize("kind", MODELS)
def test_every_output_is_repaired_and_compared(rng, kind):
    model = MODELS[kind](rng)
    feeds = feeds_for(model, rng)
    model = balanced(model, **feeds) if kind == "two_inputs" else model
    result = asr_onnx.repair(model, feeds, OPTIONS)
    assert result.sparsity == pytest.approx(0.5, abs=1e-3)
    assert zeros(result.model) == sum(s.zeros for s in result.sites)
    dense, repaired = (run(m, **feeds) for m in (model, result.model))
    numbers = [n for n in dense if n != "found"]
    for name in numbers:
        assert repaired[name].shape == dense[name].shape
        error = result.repaired_outputs[name].relative_error
        assert error < result.pruned_outputs[name].relative_error
    plain = asr_onnx.prune(model, OPTIONS)
    found = asr_onnx.compare(
        model, {"same": model, "repaired": result.model, "pruned": plain}, feeds, **QUICK
    )
    same, mended, pruned = found.models
    assert same.outputs.keys() == mended.outputs.keys() == dense.keys()
    for name, match in same.outputs.items():
        assert (match.cosine, match.relative_error) == (1, 0), name
        assert match.agreement in (None, 1)
    for name in numbers:
        assert 0 < mended.outputs[name].relative_error < pruned.outputs[name].relative_error
        assert mended.outputs[name].cosine > pruned.outputs[name].cosine
    # Where classes lie is known of an output (N, C) alone.
    known = {n for n, m in mended.outputs.items() if m.agreement is not None}
    assert known == ({"y"} if kind == "two_inputs" else set())
    assert mended.agreement == (mended.outputs["y"].agreement if known else None)


@pytest.mark.parametrize("kind", MODELS)
def test_a_repair_of_nothing_changes_no_output(rng, kind):
    model = MODELS[kind](rng)
    feeds = feeds_for(model, rng)
    result = asr_onnx.repair(model, feeds, RepairOptions(0.0, method="asr"))
    dense, repaired = (run(m, **feeds) for m in (model, result.model))
    for name, value in dense.items():
        np.testing.assert_allclose(repaired[name], value, atol=1e-5 * abs(value).max())


def test_as_many_detections_as_there_are_do_not_count_for_agreement(rng):
    """One list of detections is longer than the other: no arg-max, and no gate can look at it."""
    model = detector(rng)
    feeds = feeds_for(model, rng)
    pruned = asr_onnx.prune(model, RepairOptions(0.8, recipe="asr"))
    assert run(model, **feeds)["found"].shape != run(pruned, **feeds)["found"].shape
    figures = Figures(class_axis=("scores:1", "boxes:-1", "found:1"))
    found = asr_onnx.compare(model, [pruned], feeds, figures=figures, **QUICK)
    outputs = found.models[0].outputs
    assert outputs["found"].agreement is None and math.isnan(outputs["found"].cosine)
    worst = min(("boxes", "scores"), key=lambda n: outputs[n].agreement)
    assert found.models[0].agreement == outputs[worst].agreement < 1
    (failure,) = found.failures(Gates(min_agreement=1.0))
    assert f"(output '{worst}')" in failure.reason


class Reader(CalibrationDataReader):
    """One batch after the other, once."""

    def __init__(self, batches) -> None:
        self.left = iter(batches)

    def get_next(self):
        return next(self.left, None)


@pytest.mark.parametrize(
    "of", [batches, lambda f: iter(batches(f)), lambda f: Reader(batches(f))],
    ids=["batches", "an iterator", "a reader"],
)  # fmt: skip
def test_whatever_yields_feeds_is_as_good_as_arrays(rng, of):
    model = two_inputs(rng)
    feeds = feeds_for(model, rng)
    model = balanced(model, **feeds)
    wanted, found = (asr_onnx.repair(model, d, OPTIONS) for d in (feeds, of(feeds)))
    assert found.model == wanted.model
    labels = run(model, **feeds)["y"].argmax(1)
    assert len(set(labels)) > 1
    wanted, found = (
        asr_onnx.compare(model, [found.model], d, labels, **QUICK) for d in (feeds, of(feeds))
    )
    assert found == wanted
    assert found.dense.top1.share == 1 and found.class_output == "y"
    assert found.models[0].top1.share == found.models[0].outputs["y"].agreement


def test_shapes_of_two_inputs_from_python(rng):
    model = two_inputs(rng)
    feeds = feeds_for(model, rng, 7)
    model = balanced(model, **feeds)
    shapes = {"image": (4, 3, 8, 8), "gain": (4, 6)}
    found = asr_onnx.compare(model, [model], feeds, input_shapes=shapes, **QUICK)
    assert (found.samples, found.models[0].agreement) == (7, 1)
    with pytest.raises(CalibrationError, match="nothing for 'array"):
        asr_onnx.compare(model, [model], feeds, {"a.png": 1}, **QUICK)


AXES = ("--class-axis", "boxes:2", "--class-axis", "scores:1")


def test_the_command_line_takes_a_detector(folder, rng, asr):
    model = detector(rng)
    onnx.save(model, "m.onnx")
    np.save("d.npy", feeds_for(model, rng)["x"])
    words = ("--calib", "d.npy", *SETTINGS, *AXES, "--recipe", "asr")
    assert asr("repair", "m.onnx", *words, "--report", "r.json") == (0, "", "")
    outputs = json.loads((folder / "r.json").read_text())["outputs"]["repaired"]
    shares = {n: outputs[n]["agreement"] for n in ("boxes", "scores")}
    worst = min(shares, key=shares.__getitem__)
    for bound, code in ((shares[worst], 0), (shares[worst] + 0.001, 3)):
        gate = ("--min-agreement", str(bound), "-o", f"{code}.onnx")
        found, _, err = asr("repair", "m.onnx", *words, *gate)
        assert (found, (folder / f"{code}.onnx").is_file()) == (code, not code)
        assert (f"(output '{worst}')" in err) == bool(code)
    compare = ("compare", "m.onnx", "0.onnx", "--data", "d.npy", "--providers", "cpu")
    code, out, _ = asr(*compare, "--no-latency", "--json", "-")
    content = json.loads(out)
    assert (code, content["class_output"], content["labels"]) == (0, None, None)
    found = content["models"][0]["outputs"]
    assert found.keys() == {"boxes", "scores", "found"}
    assert all(0 < found[n]["relative_error"] < 1 for n in shares)
