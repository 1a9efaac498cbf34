"""Which layers sparse INT8 kernels can take, why not the others, and pruning those alone."""

from __future__ import annotations

import argparse

import numpy as np
import onnx
import pytest
from models import build, copied, normal, stored
from polygraphy.tools.registry import TOOL_REGISTRY

from asr_onnx import ModelError, PruneOptions, RepairOptions, UsageError, inspect, prune, repair
from asr_onnx.pruning.eligibility import WIDE, OnlyEligible, eligibility
from asr_onnx.pruning.patterns import NM
from asr_onnx.reports import repair_page, repair_tables

INT8 = {"precision": "int8", "pattern": "2:4", "recipe": "asr"}


@pytest.fixture(scope="module")
def net():
    """Layers of all kinds: narrow, wide by their kernel, wide, grouped, depthwise; a head."""
    rng = np.random.default_rng(3)
    return build(
        """net (float[N,4,4,4] x) => (float[N,5] y) {
            c1 = Conv <pads = [1, 1, 1, 1]> (x, narrow)
            r1 = Relu (c1)
            c2 = Conv <pads = [1, 1, 1, 1]> (r1, kernel, b2)
            r2 = Relu (c2)
            c3 = Conv (r2, wide)
            a = Add (c3, r2)
            r3 = Relu (a)
            c4 = Conv <group = 2> (r3, grouped)
            r4 = Relu (c4)
            c5 = Conv <group = 256> (r4, depthwise)
            r5 = Relu (c5)
            p = GlobalAveragePool (r5)
            f = Flatten (p)
            y = Gemm <transB = 1> (f, head, hb)
        }""",
        {
            "narrow": normal(rng, 32, 4, 3, 3),
            "kernel": 0.1 * normal(rng, 256, 32, 3, 3),
            "b2": normal(rng, 256),
            "wide": 0.1 * normal(rng, 256, 256, 1, 1),
            "grouped": 0.1 * normal(rng, 256, 128, 1, 1),
            "depthwise": normal(rng, 256, 1, 3, 3),
            "head": normal(rng, 5, 256),
            "hb": normal(rng, 5),
        },
    )


@pytest.fixture(scope="module")
def quantised(net):
    """The same, 2:4 and with pairs for TensorRT."""
    return repair(net, data(), RepairOptions(**INT8)).model


def data():
    return normal(np.random.default_rng(4), 24, 4, 4, 4)


def answers(model):
    return {e.layer.node: e for e in eligibility(model)}


LASTING = {
    "c1": ("narrow (4×9 in, 32 out, below 256)",),
    "c2": (),
    "c3": (),
    "c4": ("2 groups",),
    "c5": ("depthwise",),
    "y": ("narrow (5 out, below 256)",),
}


def test_a_dense_model_says_which_layers_could_be(net):
    found = answers(net)
    assert {name: e.lasting for name, e in found.items()} == LASTING
    assert {name for name, e in found.items() if e.could} == {"c2", "c3"}
    assert not any(e.eligible for e in found.values())
    groups = 256 * 9 * 32 // 4
    assert found["c2"].missing == (
        f"not 2:4 in {groups:,} of {groups:,} groups of four", "float32, not int8",
    )  # fmt: skip


def test_a_pruned_model_lacks_the_integers_alone(net):
    found = answers(prune(net, PruneOptions(pattern="2:4")))
    assert {found[name].missing for name in ("c2", "c3")} == {("float32, not int8",)}
    assert found["c2"].layer.holds and not found["y"].layer.holds


def test_a_pruned_model_in_integers_is_eligible(quantised):
    found = answers(quantised)
    assert {name: e.lasting for name, e in found.items()} == LASTING
    assert {name for name, e in found.items() if e.eligible} == {"c2", "c3"}
    assert found["y"].missing[-1] == "int8 in, but not out"
    assert found["c3"].why == ""


def test_one_weight_too_many_is_seen(quantised):
    integers = np.array(stored(quantised)["wide_quantized"])
    assert integers.dtype == np.int8
    integers[0, :4] = 1
    (found,) = answers(copied(quantised, wide_quantized=integers))["c3"].missing
    assert found == "not 2:4 in 1 of 16,384 groups of four"


def test_integers_for_another_engine_are_no_use(net):
    made = repair(net, data(), RepairOptions(**INT8, engine="onnxruntime")).model
    assert answers(made)["c3"].missing == ("uint8: TensorRT takes symmetric int8",)


def test_half_precision_has_kernels_of_its_own(rng):
    model = build(
        "h (float16[N,256] x) => (float16[N,256] y) { y = MatMul (x, w) }",
        {"w": normal(rng, 256, 256, dtype="float16")},
    )
    (found,) = eligibility(prune_all(model))
    assert found.could
    assert found.missing == ("float16 (sparse kernels of half precision at most), not int8",)


def prune_all(model):
    weight = np.array(stored(model)["w"])
    weight[::2] = 0
    return copied(model, w=weight)


@pytest.mark.parametrize(
    "inputs, outputs, positions, could",
    [
        (WIDE, WIDE, 1, True),
        (WIDE - 4, WIDE, 1, False),
        (WIDE, WIDE - 4, 1, False),
        (32, WIDE, 3, True),  # "3x3 Conv effectively increases the C by 9x"
        (28, WIDE, 3, False),
        (WIDE + 2, WIDE, 1, False),
    ],
)
def test_channels_decide(inputs, outputs, positions, could):
    model = build(
        f"c (float[N,{inputs},4,4] x) => (float[N,{outputs},A,B] y) {{ y = Conv (x, w) }}",
        {"w": np.ones((outputs, inputs, positions, positions), np.float32)},
    )
    (found,) = eligibility(model)
    assert found.could is could
    (site,) = inspect(model).sites
    assert (OnlyEligible(NM(2, 4)).feasible(site) is None) is could


def test_transposed_convolutions_and_foreign_integers_are_not(rng):
    model = build(
        """t (float[N,256,2,2] x) => (int8[N,256,2,2] y) {
            a = ConvTranspose (x, w)
            k = QuantizeLinear (a, s, z)
            y = QLinearConv (k, s, z, q, s, z, s, z)
        }""",
        {"w": normal(rng, 256, 256, 1, 1), "q": np.ones((256, 256, 1, 1), np.int8)}
        | {"s": np.float32(0.1), "z": np.int8(0)},
    )
    found = answers(model)
    assert found["a"].lasting == ("ConvTranspose",)
    assert found["y"].lasting == ("QLinearConv: TensorRT reads integers from Q/DQ pairs",)


# Pruning those alone


def zeros(model):
    return {n: float(np.mean(w == 0)) for n, w in stored(model).items() if w.ndim > 1}


@pytest.mark.parametrize("how", ["prune", "repair"])
def test_the_others_stay_dense(net, how):
    if how == "prune":
        made = prune(net, PruneOptions(pattern="2:4", only_eligible=True))
    else:
        options = RepairOptions(pattern="2:4", only_eligible=True, recipe="asr")
        result = repair(net, data(), options)
        made = result.model
        why = {s.name: s.reason for s in result.skipped}
        assert why["narrow"] == (
            "narrow (4×9 in, 32 out, below 256): stays dense, as only-eligible asks"
        )
        assert set(why) == {"narrow", "grouped", "depthwise"}
        assert {s.name for s in result.sites if s.pruned} == {"kernel", "wide"}
        assert result.options.to_dict()["only_eligible"] is True
        assert result.options.to_dict()["pattern"] == "2:4"
    assert zeros(made) == {
        "narrow": 0, "kernel": 0.5, "wide": 0.5, "grouped": 0, "depthwise": 0, "head": 0,
    }  # fmt: skip


def test_nothing_left_is_one_line_with_the_reason(net):
    options = PruneOptions(pattern="2:4", only_eligible=True, include="narrow|grouped")
    with pytest.raises(UsageError, match=r"hold the pattern 2:4 \(narrow: narrow \(4×9 in.*only-"):
        prune(net, options)


@pytest.mark.parametrize("other", [{}, {"sparsity": 0.5}, {"pattern": "channel"}])
def test_it_goes_with_a_pattern(other):
    with pytest.raises(UsageError, match="only-eligible goes with an N:M pattern"):
        PruneOptions(only_eligible=True, **other)


# What inspect tells


def test_quantised_models_are_read_and_still_refused(net, quantised):
    found = inspect(quantised)
    assert not found.sites and not found.layers
    assert {p.node for p in found.quantised} == {"c1", "c2", "c3", "c4", "c5", "y"}
    assert found.macs["c3"] == inspect(net).macs["wide"] == 256 * 256 * 16
    for ask in (prune, lambda m: repair(m, data())):
        with pytest.raises(ModelError, match="prune and repair before quantisation"):
            ask(quantised)


def test_float_models_are_inspected_as_before(net):
    found = inspect(net)
    assert not found.quantised and not found.layers and len(found.sites) == 5
    empty = build("e (float[N,4] x) => (float[N,4] y) { y = Relu (x) }", {})
    for engine in (None, "tensorrt"):
        with pytest.raises(ModelError, match="no convolution that can be pruned"):
            inspect(empty, engine=engine)


def test_an_engine_is_asked_about_all_products(net, rng):
    assert len(inspect(net, engine="tensorrt").layers) == 6
    matrix = build("m (float[N,4] x) => (float[N,4] y) { y = MatMul (x, w) }",
                   {"w": normal(rng, 4, 4)})  # fmt: skip
    assert [e.layer.op for e in inspect(matrix, engine="tensorrt").layers] == ["MatMul"]
    with pytest.raises(UsageError, match="engine 'openvino' is not one of tensorrt"):
        inspect(net, engine="openvino")


def test_the_command_line_tells_it(net, quantised, tmp_path, asr):
    onnx.save(net, tmp_path / "m.onnx")
    onnx.save(quantised, tmp_path / "q.onnx")
    code, out, _ = asr("inspect", tmp_path / "q.onnx")
    assert code == 0 and "6 layers are quantised already" in out and "Left alone" not in out
    code, out, _ = asr("inspect", tmp_path / "m.onnx", "--engine", "tensorrt")
    assert code == 0 and "not yet: " in out and "no: depthwise" in out
    assert "0 of 6 layers can use sparse INT8 kernels of TensorRT; 2 more could" in out
    assert "polygraphy inspect sparsity" in out and "--int8" not in out
    code, out, _ = asr("inspect", tmp_path / "q.onnx", "--engine", "tensorrt")
    assert code == 0 and "2 of 6 layers can use sparse INT8 kernels of TensorRT\n" in out
    build_it = f"trtexec --onnx={tmp_path / 'q.onnx'} --saveEngine={tmp_path / 'q.plan'}"
    assert f"{build_it} --sparsity=enable --stronglyTyped" in out
    assert f"{build_it} --sparsity=enable --int8 --fp16" in out
    assert "polygraphy run" in out and "polygraphy inspect sparsity" not in out
    code, out, _ = asr("prune", tmp_path / "m.onnx", "--pattern", "2:4", "--only-eligible")
    assert code == 0 and f"{(256 * 32 * 9 + 256 * 256) // 2:,} of " in out
    code, _, err = asr("prune", tmp_path / "m.onnx", "--only-eligible")
    assert code == 2 and "only-eligible goes with an N:M pattern" in err


@pytest.mark.filterwarnings("ignore:SelectableGroups:DeprecationWarning")
def test_polygraphy_knows_the_options_that_are_printed(net, tmp_path, asr):
    onnx.save(net, tmp_path / "m.onnx")
    _, out, _ = asr("inspect", tmp_path / "m.onnx", "--engine", "tensorrt")
    (line,) = (w for w in out.splitlines() if "polygraphy run" in w)
    (tool,) = (t for t in TOOL_REGISTRY if t.name == "run")
    parsers = argparse.ArgumentParser().add_subparsers()
    tool.setup_parser(parsers)
    known = {flag for a in parsers.choices["run"]._actions for flag in a.option_strings}
    told = {word for word in line.split() if word.startswith("--")}
    assert told and told <= known


def test_reports_have_it_where_a_pattern_was_asked_for(net):
    how = {"recipe": "asr", "only_eligible": True, "pattern": "2:4"}
    result = repair(net, data(), RepairOptions(**how))
    content = repair_tables.to_dict(result, files={})
    rows = {row["node"]: row for row in content["sparse_kernels"]}
    assert rows["c2"]["could"] and rows["c2"]["holds"] and not rows["c2"]["eligible"]
    assert rows["c5"]["lasting"] == ["depthwise"]
    page = repair_page.render(content)
    assert "Sparse INT8 kernels of TensorRT" in page and "not yet: float32, not int8" in page
    del content["sparse_kernels"]  # as reports of before have it
    assert "Sparse INT8 kernels" not in repair_page.render(content)
    plain = repair(net, data(), RepairOptions(recipe="asr", sparsity=0.3))
    assert repair_tables.to_dict(plain)["sparse_kernels"] is None
