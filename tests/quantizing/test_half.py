"""Half precision: what needs float32 on the data keeps it, and nothing else changes."""

import numpy as np
import onnx
import pytest
from models import build, copied, external_copy, normal, run, stored
from onnx import TensorProto, helper

from asr_onnx import ModelError, load
from asr_onnx.data.batches import as_batches
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.graph.saving import save
from asr_onnx.quantizing import half
from asr_onnx.quantizing.half import halved, require_float32
from asr_onnx.repairing.job import run_checked

DEVICE = Device()


def convert(model, x, **options):
    """``halved``, checked to be a model that ONNX and ONNX Runtime take."""
    batches = as_batches({"x": x}, model_inputs(model))
    result = halved(model, batches, DEVICE, run_checked(model, batches, DEVICE), **options)
    if not any(t.data_location == TensorProto.EXTERNAL for t in result.model.graph.initializer):
        onnx.checker.check_model(result.model, full_check=True)
    return result


def reasons(result):
    return {s.name: s.reason for s in result.kept}


def close(model, other, x):
    """Whether outputs differ by no more than rounding."""
    mine, theirs = run(model, x=x), run(other, x=x)
    for name, value in mine.items():
        np.testing.assert_allclose(value, theirs[name], rtol=2e-2, atol=1e-2 * np.abs(value).max())


def large_inside(rng):
    """Activations of 1e5 and more between two products; blank node names."""
    weights = {
        "w": normal(rng, 4, 3, 3, 3),
        "up": np.array([1e5], np.float32),
        "down": np.array([1e-5], np.float32),
        "v": normal(rng, 4, 4),
    }
    return build(
        """net (float[N,3,8,8] x) => (float[N,4] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w)
            r = Relu (a)
            big = Mul (r, up)
            e = Relu (big)
            b = Mul (e, down)
            c = Add (b, r)
            p = GlobalAveragePool (c)
            f = Flatten (p)
            y = Gemm (f, v)
        }""",
        weights,
    )


@pytest.fixture
def x(rng):
    return normal(rng, 12, 3, 8, 8)


def test_large_activations_stay_float32_and_are_told_of(rng, x):
    model = large_inside(rng)
    result = convert(model, x)
    assert set(reasons(result)) == {"big", "e", "b"}
    assert "'big' reaches" in reasons(result)["big"]
    close(model, result.model, x)
    # No cast to float16 lies between them, where infinity would come from.
    nodes = {n.output[0]: n for n in result.model.graph.node}
    assert nodes["e"].input[0] == "big" and nodes["b"].input[0] == "e"


def test_names_are_as_they_were(rng, x):
    model = large_inside(rng)
    model.graph.node[0].name = "stem"
    before = model.SerializeToString()
    result = convert(model, x).model
    assert model.SerializeToString() == before
    theirs = {n.output[0]: n for n in result.graph.node if n.op_type != "Cast"}
    for node in model.graph.node[:-1]:
        assert theirs[node.output[0]].name == node.name
    assert [o.name for o in result.graph.output] == ["y"]
    assert {t.name for t in result.graph.initializer} == set(stored(model))


def test_inputs_and_outputs_stay_float32_unless_told_otherwise(rng, x):
    model = large_inside(rng)
    for float32_io, kind in ((True, TensorProto.FLOAT), (False, TensorProto.FLOAT16)):
        result = convert(model, x, float32_io=float32_io).model
        ends = [*result.graph.input, *result.graph.output]
        assert {v.type.tensor_type.elem_type for v in ends} == {kind}
        close(model, result, x)


def test_outputs_that_do_not_fit_keep_their_type(rng, x):
    weights = {"w": normal(rng, 4, 3, 1, 1), "k": np.array([1e6], np.float32)}
    model = build(
        "net (float[N,3,8,8] x) => (float[N,4,8,8] y) { a = Conv (x, w) y = Mul (a, k) }", weights
    )
    result = convert(model, x)
    assert list(reasons(result)) == ["y"]
    assert np.abs(run(result.model, x=x)["y"]).max() > 1e5
    close(model, result.model, x)
    with pytest.raises(ModelError, match="keep float32 inputs and outputs"):
        convert(model, x, float32_io=False)


def test_zeros_stay_and_no_other_weight_becomes_one(rng, x):
    model = large_inside(rng)
    w = stored(model)["w"].copy()
    w[0] = 0
    w[1, 0, 0] = [1e-9, -1e-12, 1e-30]
    model = copied(model, w=w)
    result = convert(model, x)
    after = stored(result.model)["w"]
    assert after.dtype == np.float16
    np.testing.assert_array_equal(after == 0, w == 0)
    np.testing.assert_array_equal(np.signbit(after), np.signbit(w))
    assert result.tiny == 3


def test_weights_too_large_or_too_small_stay(rng, x):
    weights = {"w": normal(rng, 4, 3, 1, 1) * 1e-7, "v": normal(rng, 4, 4, 1, 1) * 1e5}
    model = build(
        """net (float[N,3,8,8] x) => (float[N,4,8,8] y) {
            a = Conv (x, w)
            b = Conv (a, v)
            c = Relu (b)
            y = Mul (c, c)
        }""",
        weights,
    )
    found = reasons(convert(model, x))
    assert "small" in found["a"] and "'v' reaches" in found["b"]
    assert set(found) == {"a", "b"}


def test_divisors_and_sums_stay(rng, x):
    model = build(
        """net (float[N,3,8,8] x) => (float[N,3,1,1] y, float[N,3,8,8] z) {
            a = Mul (x, tiny)
            b = Abs (a)
            s = Sqrt (b)
            e = Add (s, eps)
            z = Div (a, e)
            big = Mul (x, k)
            y = GlobalAveragePool (big)
        }""",
        {
            "tiny": np.array([1e-8], np.float32),
            "eps": np.array([1e-6], np.float32),
            "k": np.array([1e3], np.float32),
        },
    )
    found = reasons(convert(model, np.abs(x)))
    assert {"b", "s", "e", "z"} <= set(found) and "divisor" in found["z"]
    assert "adds up to" in found["y"]
    assert "big" not in found


def test_constants_read_by_both_are_there_twice(rng, x):
    constants = "k = Constant <value_float = 0.3333333> ()"
    model = build(
        f"""net (float[N,3,8,8] x) => (float[N,3,8,8] y) {{
            {constants}
            a = Mul (x, k)
            big = Mul (a, up)
            c = Mul (big, k)
            d = Mul (c, w)
            e = Mul (d, down)
            y = Mul (e, w)
        }}""",
        {"up": np.float32(1e6), "down": np.float32(1e-6), "w": normal(rng, 3, 1, 1)},
    )
    result = convert(model, x)
    assert set(reasons(result)) == {"big", "c", "d", "e"}
    kinds = {n: v.dtype for n, v in stored(result.model).items()}
    assert kinds["w"] == np.float32 and kinds["w_float16"] == np.float16
    close(model, result.model, x)


def test_scales_of_a_resize_are_exact(rng):
    model = build(
        """net (float[N,3,H,W] x) => (float[N,3,P,Q] y) {
            s = Constant <value = float[4] {1.0, 1.0, 1.3334, 1.3334}> ()
            a = Mul (x, k)
            y = Resize <mode = "nearest"> (a, , s)
        }""",
        {"k": np.float32(2)},
    )
    x = normal(rng, 8, 3, 30, 30)
    result = convert(model, x)
    assert not result.kept
    assert run(result.model, x=x)["y"].shape == run(model, x=x)["y"].shape


def test_what_computes_sizes_stays(rng, x):
    model = build(
        """net (float[N,3,H,W] x) => (float[A] y) {
            s = Shape (x)
            f = Cast <to = 1> (s)
            g = Mul (f, k)
            i = Cast <to = 7> (g)
            n = ReduceProd <keepdims = 1> (i)
            a = Mul (x, k)
            y = Reshape (a, n)
        }""",
        {"k": np.float32(1)},
    )
    result = convert(model, x)
    assert {"f", "g", "i"} <= set(reasons(result)) and "a" not in reasons(result)
    close(model, result.model, x)


def test_bodies_and_what_they_capture_stay(rng, x):
    model = build(
        """net (float[N,3,8,8] x) => (float[N,3,8,8] y) {
            a = Mul (x, k)
            m = ReduceMax <keepdims = 0> (a)
            c = Greater (m, k)
            b = If (c) <
                then_branch = one () => (float[N,3,8,8] t) { t = Mul (a, k) },
                else_branch = two () => (float[N,3,8,8] f) { f = Identity (a) }
            >
            y = Relu (b)
        }""",
        {"k": np.float32(0.37)},
    )
    result = convert(model, x)
    assert set(reasons(result)) == {"a", "b"}
    close(model, result.model, x)


def test_weights_in_files_stay_there(rng, tmp_path, x):
    weights = {"w": normal(rng, 256, 3, 3, 3), "v": normal(rng, 256, 256, 1, 1) / 16}
    graph = """net (float[N,3,8,8] x) => (float[N,256,6,6] y) {
        a = Conv (x, w)
        y = Conv (a, v)
    }"""
    model = load(external_copy(build(graph, weights), tmp_path), in_place=True)
    result = convert(model.proto, x)
    assert [t.data_location for t in result.model.graph.initializer if t.name == "v"] == [1]
    save(result.model, tmp_path / "half.onnx", model.external)
    again = load(tmp_path / "half.onnx").proto
    assert {v.dtype for v in stored(again).values()} == {np.dtype(np.float16)}
    close(build(graph, weights), again, x)


def test_initializers_listed_as_inputs(rng, x):
    model = large_inside(rng)
    model.ir_version = 3
    for name, value in stored(model).items():
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
        model.graph.input.append(info)
    result = convert(model, x)
    kinds = {v.name: v.type.tensor_type.elem_type for v in result.model.graph.input}
    assert kinds["x"] == TensorProto.FLOAT and kinds["w"] == TensorProto.FLOAT16
    close(model, result.model, x)


def test_what_is_excluded_stays(rng, x):
    result = convert(large_inside(rng), x, exclude="^w$")
    assert reasons(result)["a"] == "is excluded"
    assert stored(result.model)["w"].dtype == np.float32


def test_a_node_to_blame_is_found_by_trying(rng, x):
    """A difference of numbers that are alike: every range is harmless, rounding is not."""
    model = build(
        """net (float[N,3,8,8] x) => (float[N,3,8,8] y) {
            a = Add (x, k)
            b = Sub (a, k)
            c = Relu (b)
            y = Mul (c, c)
        }""",
        {"k": np.float32(1000)},
    )
    result = convert(model, x)
    assert "found by trying" in reasons(result)["a"]
    close(model, result.model, x)


def test_where_too_much_is_to_blame_the_model_is_refused(rng, x, monkeypatch):
    monkeypatch.setattr(half, "_MOST", 0)
    model = build(
        "net (float[N,3,8,8] x) => (float[N,3,8,8] y) { a = Add (x, k) y = Sub (a, k) }",
        {"k": np.float32(1000)},
    )
    with pytest.raises(ModelError, match="keep precision float32"):
        convert(model, x)


def test_models_in_float16_are_refused(rng, x):
    result = convert(large_inside(rng), x)
    require_float32(large_inside(rng))
    with pytest.raises(ModelError, match="float16 already"):
        require_float32(result.model)


def test_float32_feeds_do_for_float16_inputs(rng, x):
    result = convert(large_inside(rng), x, float32_io=False).model
    assert Runner(result, DEVICE).run({"x": x})["y"].dtype == np.float16
