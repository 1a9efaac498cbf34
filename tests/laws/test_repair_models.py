"""The repair on many kinds of graphs: kernels, element types, inputs, outputs, batch sizes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import bare_net, build, copied, norm_net, norm_weights, normal, run, stored, tap
from onnx import numpy_helper

from asr_onnx import CalibrationError, ModelError, RepairOptions, recipe, repair
from asr_onnx.data.batches import as_batches
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.graph.model_file import load


def options(sparsity=0.5, **more):
    return RepairOptions(**{"sparsity": sparsity, "method": "asr"} | more)


def all_of(model, x, **settings):
    return as_batches(x, model_inputs(model), holdout=0.0, **settings)


def assert_means_restored(model, repaired, feeds, tensors, rtol=2e-5):
    """The law of the repair, whatever the rank of the activation."""
    dense, found = (run(tap(m, *tensors), **feeds) for m in (model, repaired))
    for name in tensors:
        axes = tuple(i for i in range(dense[name].ndim) if i != 1)
        wanted = dense[name].mean(axes, dtype=np.float64)
        np.testing.assert_allclose(
            found[name].mean(axes, dtype=np.float64), wanted, atol=rtol * abs(dense[name]).max()
        )


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    dims=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 8]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
    norm=st.booleans(),
)
def test_every_kind_of_convolution(seed, dims, groups, kernel, stride, dilation, bias, norm):
    rng = np.random.default_rng(seed)
    size, rank = ",".join(["9"] * dims), ",".join("?" * (dims + 2))
    attributes = f"group = {groups}, strides = {[stride] * dims}, dilations = {[dilation] * dims}"
    normed = "o = BatchNormalization (c, s, b, m, v)" if norm else "o = Identity (c)"
    model = build(
        f"""net (float[N,8,{size}] x) => (float[{rank}] y) {{
            c = Conv <{attributes}> (x, w{", k" if bias else ""})
            {normed}
            r = Relu (o)
            y = Conv (r, u)
        }}""",
        {"w": normal(rng, 8, 8 // groups, *[kernel] * dims), "k": normal(rng, 8)}
        | {"u": normal(rng, 3, 8, *[1] * dims)}
        | norm_weights(rng, 8),
    )
    x = normal(rng, 12, 8, *[9] * dims) + 1
    result = repair(model, all_of(model, x), options())
    assert_means_restored(model, result.model, {"x": x}, ["o", "y"])
    assert sum(s.zeros for s in result.sites) == round(0.5 * sum(s.weights for s in result.sites))


@pytest.mark.parametrize("net, tensors", [(bare_net, ["c1", "c2"]), (norm_net, ["n1", "n2"])])
def test_float16(rng, net, tensors):
    model, x = net(rng, "float16"), normal(rng, 24, 3, 8, 8, dtype="float16")
    result = repair(model, all_of(model, x), options())
    assert {v.dtype for v in stored(result.model).values()} == {np.dtype("float16")}
    assert_means_restored(model, result.model, {"x": x}, tensors, 1e-3)


def test_a_fixed_batch_size_is_kept_to(rng):
    model, x = bare_net(rng, batch="8"), normal(rng, 37, 3, 8, 8)
    result = repair(model, as_batches(x, model_inputs(model), batch_size=3), options())
    assert (result.solve_images, result.held_out_images) == (24, 0)
    with pytest.raises(CalibrationError, match="batch size is fixed to 8"):
        repair(model, x[:5], options())


def test_two_inputs_and_two_outputs(rng):
    model = build(
        """net (float[N,3,8,8] x, float[N,4] z) => (float[N,4,8,8] a, float[N,6,6,6] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w1)
            s = Reshape (z, shape)
            g = Mul (a, s)
            y = Conv (g, w2)
        }""",
        {
            "w1": normal(rng, 4, 3, 3, 3),
            "w2": normal(rng, 6, 4, 3, 3),
            "shape": np.array([-1, 4, 1, 1]),
        },
    )
    feeds = {"x": normal(rng, 20, 3, 8, 8), "z": normal(rng, 20, 4)}
    result = repair(model, all_of(model, feeds), options())
    assert result.repaired_outputs.keys() == {"a", "y"}
    assert_means_restored(model, result.model, feeds, ["a", "y"])


@pytest.mark.parametrize(
    "kind, last",
    [
        ("float[N,3,8,8]", "y = Identity (x)"),
        ("float[]", "y = ReduceMean <keepdims = 0> (c)"),
        ("bool[N,4,8,8]", "t = Abs (c) z = Mul (zero, t) y = Less (t, z)"),
        ("float[4]", "y = Neg (k)"),
        ("int64[4]", "y = Shape (c)"),
        ("int64[4,M]", "a = Abs (c) b = Cast <to = 9> (a) y = NonZero (b)"),
    ],
    ids=["the input", "a scalar", "booleans", "a constant", "a shape", "as many as there are"],
)
def test_outputs_that_are_no_logits(rng, kind, last):
    model = build(
        f"net (float[N,3,8,8] x) => (float[N,4,8,8] c, {kind} y) {{ c = Conv (x, w) {last} }}",
        {"w": normal(rng, 4, 3, 1, 1), "k": normal(rng, 4), "zero": np.float32(0)},
    )
    x = normal(rng, 20, 3, 8, 8) + 1
    result = repair(model, all_of(model, x), options())
    assert result.repaired_outputs["y"].relative_error < 1e-5


def headed(rng, head):
    """A convolution, and nodes that make ``y`` of its (N, 4) means ``m``."""
    return build(
        f"""net (float[N,4,6,6] x) => (float[N,4] y) {{
            c = Conv (x, w)
            p = GlobalAveragePool (c)
            m = Flatten (p)
            {head}
        }}""",
        {"w": normal(rng, 4, 4, 3, 3), "mask": np.float32([0, 0, -np.inf, 0])},
    )


@pytest.mark.parametrize("head", ["y = Log (m)", "r = Relu (m) y = Log (r)"])
def test_a_dense_output_that_is_not_finite_is_refused_by_name(rng, head):
    model = headed(rng, head)
    with pytest.raises(CalibrationError, match="output 'y' of the dense model is NaN or infinite"):
        repair(model, all_of(model, normal(rng, 24, 4, 6, 6)), options())


def test_infinity_that_stays_where_it_is_does_no_harm(rng):
    model = headed(rng, "y = Add (m, mask)")
    result = repair(model, all_of(model, normal(rng, 24, 4, 6, 6)), options())
    assert result.repaired_outputs["y"].relative_error < 1


def test_as_many_detections_as_there_are(rng):
    """Outputs whose number depends on the values cannot be compared, and that is all."""
    model = build(
        """net (float[N,3,8,8] x) => (float[N,4,8,8] c, int64[4,M] y) {
            c = Conv (x, w)
            r = Relu (c)
            y = NonZero (r)
        }""",
        {"w": normal(rng, 4, 3, 1, 1)},
    )
    found = repair(model, normal(rng, 20, 3, 8, 8), options()).repaired_outputs
    assert found["c"].relative_error < 1
    assert np.isnan(found["y"].relative_error)
    assert found["y"].agreement is None


def test_outputs_that_are_no_numbers(rng):
    model = build(
        """net (float[N,4,8,8] x) => (float[N,4,8,8] c, string[2] t, seq(float[N,4,8,8]) s) {
            c = Conv (x, w)
            t = Identity (names)
            s = SequenceConstruct (c, x)
        }""",
        {"w": normal(rng, 4, 4, 1, 1)},
    )
    names = onnx.helper.make_tensor("names", onnx.TensorProto.STRING, [2], [b"cat", b"dog"])
    model.graph.initializer.append(names)
    found = repair(model, normal(rng, 20, 4, 8, 8), options()).repaired_outputs
    assert found["c"].relative_error < 1
    assert found["s"].relative_error < 1
    assert np.isnan(found["t"].relative_error)


def test_a_sequence_across_a_convolution_is_refused_by_name(rng):
    model = build(
        """net (float[N,4,8,8] x) => (float[N,4,8,8] y) {
            s = SequenceConstruct (x, x)
            a = SequenceAt (s, zero)
            c = Conv (a, w)
            b = SequenceAt (s, zero)
            y = Mul (b, c)
        }""",
        {"w": normal(rng, 4, 4, 1, 1), "zero": np.int64(0)},
    )
    with pytest.raises(ModelError, match="'s' is a sequence that lives on beyond a convolution"):
        repair(model, normal(rng, 20, 4, 8, 8), options())


def test_activations_that_change_shape_from_batch_to_batch(rng):
    model = build(
        "net (float[N,3,H,W] x) => (float[N,4,H,W] y) { c = Conv (x, w) y = Relu (c) }",
        {"w": normal(rng, 4, 3, 1, 1)},
    )
    x = normal(rng, 10, 3, 7, 9)
    result = repair(model, all_of(model, x, batch_size=4), options())
    assert_means_restored(model, result.model, {"x": x}, ["c"])


def test_a_control_flow_body_that_captures_activations(rng):
    model = build(
        """net (float[N,3,8,8] x) => (float[N,4,8,8] y) {
            c1 = Conv (x, w1)
            m = ReduceMean <keepdims = 0> (x)
            q = Less (m, zero)
            r = If (q) <
                then_branch = t () => (float[?,?,?,?] u) { u = Relu (c1) },
                else_branch = e () => (float[?,?,?,?] u) { u = Sigmoid (c1) }>
            y = Conv (r, w2)
        }""",
        {"w1": normal(rng, 4, 3, 1, 1), "w2": normal(rng, 4, 4, 1, 1), "zero": np.float32(0)},
    )
    x = normal(rng, 16, 3, 8, 8)
    result = repair(model, all_of(model, x, batch_size=16), options())
    assert_means_restored(model, result.model, {"x": x}, ["c1", "y"])


@pytest.mark.parametrize("more", [{}, {"reconstruct": True, "criterion": "obs"}])
def test_nodes_in_any_order_are_repaired_as_if_sorted_and_stay_where_they_are(rng, tmp_path, more):
    model, x = norm_net(rng), normal(rng, 24, 3, 8, 8)
    shuffled = copied(model)
    nodes = [model.graph.node[i] for i in rng.permutation(len(model.graph.node))]
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(nodes)
    onnx.save(shuffled, tmp_path / "m.onnx")
    loaded = load(tmp_path / "m.onnx").proto
    found, wanted = (repair(m, all_of(m, x), options(**more)).model for m in (loaded, model))
    assert list(found.graph.node) == nodes
    for name, value in stored(wanted).items():
        np.testing.assert_array_equal(stored(found)[name], value)


def test_a_local_function_in_the_graph(rng):
    model = build(
        "net (float[N,3,8,8] x) => (float[N,4,8,8] y) { c = Conv (x, w) y = local.twice (c) }",
        {"w": normal(rng, 4, 3, 1, 1)},
        rest='<domain: "local", opset_import: ["" : 17]> twice (a) => (b) { b = Add (a, a) }',
    )
    x = normal(rng, 16, 3, 8, 8)
    result = repair(model, all_of(model, x), options())
    assert_means_restored(model, result.model, {"x": x}, ["c", "y"])


def test_a_model_before_ir_4(rng):
    model = build(
        "net (float[N,3,8,8] x, float[4,3,1,1] w) => (float[N,4,8,8] y) { y = Conv (x, w) }",
        {"w": normal(rng, 4, 3, 1, 1)},
        ir=3,
        opset=9,
    )
    result = repair(model, normal(rng, 16, 3, 8, 8), options())
    assert [i.name for i in result.model.graph.input] == ["x", "w", "y_bias"]


@pytest.mark.parametrize("bn_stats", ["dense", "cumulative"])
def test_batch_normalization_before_ir_4(rng, bn_stats):
    model, x = norm_net(rng), normal(rng, 16, 3, 8, 8)
    wanted = repair(model, x, options(bn_stats=bn_stats)).model
    model.ir_version = 3
    for t in model.graph.initializer:
        listed = onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims)
        model.graph.input.append(listed)
    found = repair(model, x, options(bn_stats=bn_stats)).model
    onnx.checker.check_model(found)
    for name, value in stored(wanted).items():
        np.testing.assert_array_equal(stored(found)[name], value)


def sparse(name, dense):
    """A tensor as a sparse initializer."""
    at = np.flatnonzero(dense)
    values = numpy_helper.from_array(dense.ravel()[at], name)
    return onnx.helper.make_sparse_tensor(values, numpy_helper.from_array(at), dense.shape)


def test_sparse_initializers_are_kept_and_read(rng):
    model = build(
        """net (float[N,3,8,8] x) => (float[N,4,8,8] y) {
            c = Conv (x, w1)
            n = Neg (s)
            a = Add (c, n)
            y = Conv (a, w2)
        }""",
        {"w1": normal(rng, 4, 3, 1, 1), "w2": normal(rng, 4, 4, 1, 1)},
    )
    model.graph.sparse_initializer.append(sparse("s", np.float32([0, 2, 0, 3]).reshape(4, 1, 1)))
    x = normal(rng, 16, 3, 8, 8)
    result = repair(model, all_of(model, x), options())
    assert_means_restored(model, result.model, {"x": x}, ["c", "y"])
    assert result.model.graph.sparse_initializer == model.graph.sparse_initializer


def test_a_sparse_weight_is_left_alone_and_the_reason_told(rng):
    model = build(
        "net (float[N,3,8,8] x) => (float[N,4,8,8] y) { c = Conv (x, w1) y = Conv (c, w2) }",
        {"w1": normal(rng, 4, 3, 1, 1)},
    )
    model.graph.sparse_initializer.append(sparse("w2", np.float32(np.eye(4)).reshape(4, 4, 1, 1)))
    (skipped,) = repair(model, normal(rng, 16, 3, 8, 8), options()).skipped
    assert skipped.reason == "weight 'w2' is stored sparse: make it dense"


def cast_net(rng, input="float", stored="float32"):
    """Two convolutions in float32, whatever is fed and stored."""
    return build(
        f"""net ({input}[N,3,8,8] x) => (float[N,8,8,8] y) {{
            f = Cast <to = 1> (x)
            v = Cast <to = 1> (w)
            c = Conv <pads = [1, 1, 1, 1]> (f, v)
            r = Relu (c)
            y = Conv <pads = [1, 1, 1, 1]> (r, u)
        }}""",
        {"w": normal(rng, 8, 3, 3, 3).astype(stored), "u": normal(rng, 8, 8, 3, 3)},
    )


@pytest.mark.parametrize("how", ["asr", "best"])
@pytest.mark.parametrize("input", ["float16", "double"])
@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_inputs_and_weights_of_every_float_type(rng, how, input, kind):
    model = cast_net(rng, input, kind)
    dtype = {"double": "float64"}.get(input, input)
    result = repair(model, normal(rng, 40, 3, 8, 8, dtype=dtype), recipe(how, sparsity=0.5))
    assert stored(result.model)["w"].dtype == kind
    assert result.sparsity == pytest.approx(0.5, abs=2e-3)
    after, before = (
        o["y"].relative_error for o in (result.repaired_outputs, result.pruned_outputs)
    )
    assert after < (1.05 if how == "asr" else 0.9) * before


def test_double_layers_are_repaired_in_double(rng):
    model = build(
        """net (double[N,12] x) => (double[N,5] y) {
            h = Gemm <transB = 1> (x, w, b)
            r = Relu (h)
            y = Gemm <transB = 1> (r, u, c)
        }""",
        {
            "w": normal(rng, 16, 12, dtype="float64"),
            "b": normal(rng, 16, dtype="float64"),
            "u": normal(rng, 5, 16, dtype="float64"),
            "c": normal(rng, 5, dtype="float64"),
        },
    )
    x = normal(rng, 64, 12, dtype="float64")
    result = repair(model, all_of(model, x), recipe("asr", sparsity=0.5, ops=("Gemm",)))
    assert {v.dtype for v in stored(result.model).values()} == {np.dtype("float64")}
    dense, found = (run(tap(m, "h"), x=x)["h"].mean(0) for m in (model, result.model))
    np.testing.assert_allclose(found, dense, atol=1e-6)


def test_double_convolutions_are_refused_with_the_type_and_the_cure(rng):
    model, x = bare_net(rng, "float64"), normal(rng, 16, 3, 8, 8, dtype="float64")
    with pytest.raises(ModelError, match=r"'w1' is double: export the model in float32"):
        repair(model, x, options())


def test_bfloat16_is_refused_with_the_type_and_the_cure(rng):
    bfloat16 = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
    model = cast_net(rng, stored=bfloat16)
    (skipped,) = repair(model, normal(rng, 16, 3, 8, 8), options()).skipped
    assert skipped.reason == "weight 'v' is stored as bfloat16: export it in float32 or float16"
    fed = cast_net(rng, "bfloat16")
    with pytest.raises(ModelError, match=r"'x' is BFLOAT16, .* export the model with inputs of"):
        repair(fed, normal(rng, 16, 3, 8, 8), options())


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_weight_that_outgrows_float16_is_refused(rng):
    model = build(
        "net (float16[N,8,8,8] x) => (float16[N,4,8,8] y) { y = Conv (x, w) }",
        {"w": rng.uniform(4e4, 6e4, (4, 8, 1, 1)).astype("float16")},
    )
    x = normal(rng, 16, 8, 8, 8, dtype="float16") * np.float16(1e-3)
    with pytest.raises(ModelError, match="'w' does not fit into float16: nothing is written"):
        repair(model, x, options(0.6, method="channelwise"))
