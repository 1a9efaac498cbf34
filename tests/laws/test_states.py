"""Recurrent models: a state whose batch lies second, and a number that is no sample's own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import normal, run

import asr_onnx
from asr_onnx import CalibrationError, CompareOptions, RepairOptions

WIDTH, LENGTH = 6, 40


def recurrent(rng, batch="N"):
    """As voice detectors are: convolutions, an LSTM, a state in and out, and a sampling rate."""
    size = batch if isinstance(batch, int) else f"{batch}"
    text = f"""
    <ir_version: 8, opset_import: ["": 17]>
    vad (float[{size},1,{LENGTH}] x, float[2,{size},{WIDTH}] state, int64 sr)
    => (float[{size},1] p, float[2,{size},{WIDTH}] new) {{
        a = Conv<kernel_shape=[5], strides=[2]> (x, w1, b1)
        b = Relu(a)
        c = Conv<kernel_shape=[3]> (b, w2, b2)
        d = Relu(c)
        t = Transpose<perm=[2,0,1]> (d)
        h0 = Slice(state, zero, one, zero)
        c0 = Slice(state, one, two, zero)
        y, h, cell = LSTM<hidden_size={WIDTH}> (t, wx, wh, bh, , h0, c0)
        new = Concat<axis=0> (h, cell)
        last = Squeeze(h, zero)
        z = MatMul(last, w3)
        rate = Cast<to=1> (sr)
        k = Div(rate, khz16)
        s = Mul(z, k)
        p = Sigmoid(s)
    }}"""
    model = onnx.parser.parse_model(text)
    arrays = {
        "w1": normal(rng, 16, 1, 5), "b1": normal(rng, 16), "w2": normal(rng, 16, 16, 3) / 5,
        "b2": normal(rng, 16), "wx": normal(rng, 1, 4 * WIDTH, 16) / 4,
        "wh": normal(rng, 1, 4 * WIDTH, WIDTH) / 4, "bh": normal(rng, 1, 8 * WIDTH),
        "w3": 3 * normal(rng, WIDTH, 1), "khz16": np.float32(16000),
        "zero": np.array([0]), "one": np.array([1]), "two": np.array([2]),
    }  # fmt: skip
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def feeds(rng, count=80):
    return {
        "x": normal(rng, count, 1, LENGTH),
        "state": normal(rng, 2, count, WIDTH),
        "sr": np.array(16000),
    }


def test_it_is_repaired_from_arrays_as_it_is_fed(rng):
    model, data, new = recurrent(rng), feeds(rng), feeds(rng, 200)
    for name in ("asr", "best"):
        found = asr_onnx.repair(model, data, asr_onnx.recipe(name, sparsity=0.5))
        assert found.repaired_outputs["p"].cosine > found.pruned_outputs["p"].cosine
        pruned = asr_onnx.prune(model, RepairOptions(0.5))
        wanted, bare, mended = (run(m, **new)["p"] for m in (model, pruned, found.model))
        assert np.square(mended - wanted).mean() < np.square(bare - wanted).mean()


def test_batches_of_a_loader_are_the_arrays_in_parts(rng):
    model, data = recurrent(rng), feeds(rng)
    parts = [
        {"x": data["x"][s], "state": data["state"][:, s], "sr": data["sr"]}
        for s in (slice(0, 30), slice(30, 80))
    ]
    whole, cut = (asr_onnx.repair(model, d, RepairOptions(0.5)).model for d in (data, parts))
    assert whole.SerializeToString() == cut.SerializeToString()


def test_a_script_feeds_it_from_the_command_line_and_it_is_compared(rng, tmp_path, asr):
    onnx.save(recurrent(rng), tmp_path / "m.onnx")
    np.savez(tmp_path / "data.npz", **feeds(rng))
    (tmp_path / "load.py").write_text(
        "import numpy as np\n"
        "def load_data():\n"
        f"    data = np.load({str(tmp_path / 'data.npz')!r})\n"
        "    for i in range(80):\n"
        "        one = slice(i, i + 1)\n"
        "        yield {'x': data['x'][one], 'state': data['state'][:, one], 'sr': data['sr']}\n"
    )
    words = ("--sparsity", "0.5", "--providers", "cpu", "-q", "--force")
    for source in (("--calib", "data.npz"), ("--data-loader-script", "load.py")):
        given = tuple(str(tmp_path / w) if w.startswith(("data.", "load.")) else w for w in source)
        code, _, err = asr("repair", str(tmp_path / "m.onnx"), *given, *words)
        assert code == 0, err
    found = asr_onnx.compare(
        tmp_path / "m.onnx", tmp_path / "m.sparse.onnx", feeds(rng), options=CompareOptions()
    )
    assert found.samples == 80 and found.models[0].outputs["p"].relative_error < 1
    assert found.models[0].latency.batch == 1


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_holds_for_the_state_too(rng, batch):
    model = recurrent(rng, batch)
    found = asr_onnx.repair(model, feeds(rng, 40), RepairOptions(0.5, recipe="asr"))
    assert found.held_out_images == 8


def test_what_has_no_batch_axis_has_to_be_the_same_in_a_batch(rng):
    model = recurrent(rng)
    parts = [feeds(rng, 10) | {"sr": np.array(rate)} for rate in (8000, 16000)]
    with pytest.raises(CalibrationError, match=r"'sr' has no batch axis, but differs .*batch-size"):
        asr_onnx.repair(model, parts, RepairOptions(0.5))
