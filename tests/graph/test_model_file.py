"""Model files: what can be read is read, what is patched differs in the patch alone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import bare_net, build, external_copy, files, norm_net, normal, run, stored
from onnx import TensorProto, numpy_helper

from asr_onnx.errors import ModelError
from asr_onnx.graph.model_file import apply, check_readable, load
from asr_onnx.graph.records import Patch
from asr_onnx.graph.saving import save


def described(rng):
    """A model with everything in it that a careless rewrite loses."""
    model = norm_net(rng)
    model.producer_name, model.model_version, model.doc_string = "tests", 7, "what it is"
    model.metadata_props.add(key="classes", value="a,b")
    model.graph.doc_string = "the graph"
    model.graph.node[0].doc_string = "the stem"
    for number, node in enumerate(model.graph.node):
        node.name = f"node/{number}"
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("c1", 1, ["N", 8, 8, 8]))
    return model


def test_a_round_trip_changes_no_byte(rng, tmp_path):
    model = described(rng)
    onnx.save(model, tmp_path / "in.onnx")
    save(load(tmp_path / "in.onnx").proto, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()


def test_a_patched_model_differs_in_the_patched_values_alone(rng, tmp_path):
    model = described(rng)
    new = normal(rng, 8, 3, 3, 3)
    save(apply(model, Patch({"w1": new})), tmp_path / "out.onnx")
    back = load(tmp_path / "out.onnx").proto
    np.testing.assert_array_equal(stored(back)["w1"], new)
    for proto in (model, back):
        proto.graph.initializer[0].ClearField("raw_data")
    assert model.graph.initializer[0].name == "w1"
    assert back.SerializeToString() == model.SerializeToString()


def test_values_in_typed_fields_are_patched_and_kept(rng):
    model = bare_net(rng)
    half = onnx.helper.make_tensor("h", TensorProto.FLOAT16, [3], [1.0, 2.0, 3.0])
    floats = onnx.helper.make_tensor("f", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    model.graph.initializer.extend([half, floats])
    same = Patch({"h": np.float16([1, 2, 3]), "f": np.float32([1, 2, 3])})
    assert apply(model, same).SerializeToString() == model.SerializeToString()
    other = {"h": np.float16([4, 5, 6]), "f": np.float32([7, 8, 9])}
    after = stored(apply(model, Patch(other)))
    for name, value in other.items():
        np.testing.assert_array_equal(after[name], value)


def test_apply_does_not_touch_its_argument(rng):
    model = described(rng)
    before = model.SerializeToString()
    apply(model, Patch({"w1": normal(rng, 8, 3, 3, 3)}, {"c1": normal(rng, 8)}))
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    "value, message",
    [
        (np.ones((3, 8, 3, 3), np.float32), "cannot become"),
        (np.ones((8, 3, 3, 3), np.float64), "cannot become"),
        (np.full((8, 3, 3, 3), np.inf, np.float32), "does not fit into float32"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(rng, value, message):
    with pytest.raises(ModelError, match=f"'w1'.*{message}"):
        apply(bare_net(rng), Patch({"w1": value}))


def test_float16_weights_stay_float16(rng, tmp_path):
    model = bare_net(rng, "float16")
    new = normal(rng, 8, 3, 3, 3, dtype="float16")
    save(apply(model, Patch({"w1": new}, {"c1": normal(rng, 8, dtype="float16")})), tmp_path / "o")
    values = stored(load(tmp_path / "o").proto)
    assert {v.dtype for v in values.values()} == {np.dtype("float16")}
    np.testing.assert_array_equal(values["w1"], new)


def test_external_data_stays_external(rng, tmp_path):
    model = norm_net(rng)
    loaded = load(external_copy(model, tmp_path / "in"))
    assert loaded.external == {t.name for t in model.graph.initializer}
    (tmp_path / "out").mkdir()
    new = normal(rng, 8, 3, 3, 3)
    save(apply(loaded.proto, Patch({"w1": new})), tmp_path / "out" / "o.onnx", loaded.external)
    assert [Path(f).suffix for f in files(tmp_path / "out")] == [".onnx", ".data"]
    written = onnx.load(tmp_path / "out" / "o.onnx", load_external_data=False)
    assert all(t.data_location == TensorProto.EXTERNAL for t in written.graph.initializer)
    values = stored(load(tmp_path / "out" / "o.onnx").proto)
    for name, value in stored(model).items():
        np.testing.assert_array_equal(values[name], new if name == "w1" else value)
    x = normal(rng, 2, 3, 8, 8)
    in_memory = run(load(tmp_path / "out" / "o.onnx").proto, x=x)["y"]
    np.testing.assert_array_equal(in_memory, run(onnx.load(tmp_path / "out" / "o.onnx"), x=x)["y"])


def test_external_data_in_bodies_and_attributes_is_read_too(rng, tmp_path):
    model = build(
        """net (float[3] x, bool q) => (float[3] y) {
            k = Constant <value = float[3] {1.0, 2.0, 3.0}> ()
            a = Add (x, k)
            y = If (q) <then_branch = t () => (float[3] u) { u = Add (a, b) },
                        else_branch = e () => (float[3] u) { u = Identity (a) }>
        }""",
        {},
    )
    inner = next(a.g for a in model.graph.node[2].attribute if a.name == "then_branch")
    inner.initializer.append(numpy_helper.from_array(np.float32([4, 5, 6]), "b"))
    x = {"x": np.float32([1, 1, 1]), "q": np.array(True)}
    wanted = run(model, **x)["y"]
    onnx.save_model(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="d", size_threshold=0,
        convert_attribute=True,
    )  # fmt: skip
    raw = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    with pytest.raises(ModelError, match="still lies in an external file"):
        check_readable(raw)
    loaded = load(tmp_path / "m.onnx")
    check_readable(loaded.proto)
    np.testing.assert_array_equal(run(loaded.proto, **x)["y"], wanted)
    (tmp_path / "d").unlink()
    save(loaded.proto, tmp_path / "o.onnx", loaded.external)
    np.testing.assert_array_equal(run(load(tmp_path / "o.onnx").proto, **x)["y"], wanted)


def test_symbolic_links_as_hub_caches_have_them(rng, tmp_path):
    model = bare_net(rng)
    external_copy(model, tmp_path / "blobs", data="d.bin")
    (tmp_path / "snapshot").mkdir()
    for name in ("m.onnx", "d.bin"):
        (tmp_path / "blobs" / name).rename(tmp_path / "blobs" / f"hash-of-{name}")
        (tmp_path / "snapshot" / name).symlink_to(tmp_path / "blobs" / f"hash-of-{name}")
    values = stored(load(tmp_path / "snapshot" / "m.onnx").proto)
    for name, value in stored(model).items():
        np.testing.assert_array_equal(values[name], value)


def entry(tensor, key, value):
    for item in tensor.external_data:
        if item.key == key:
            item.value = value


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("location", "../weights.bin", "outside the model's folder"),
        ("location", "/etc/hostname", "outside the model's folder"),
        ("location", "a/../../weights.bin", "outside the model's folder"),
        ("location", "..\\weights.bin", "outside the model's folder"),
        ("location", "C:\\weights.bin", "outside the model's folder"),
        ("location", "nothing.bin", "cannot be read .*keep it next to the model"),
        ("location", "", "cannot be read"),
        ("length", "8", "truncated: tensor 'w1' is incomplete"),
        ("offset", "100000", "truncated: tensor 'w1' is incomplete"),
        ("offset", f"{2**63}", "truncated: tensor 'w1' is incomplete"),
        ("offset", "-4", "tensor 'w1' is damaged"),
        ("length", "many", "tensor 'w1' is damaged"),
    ],
)
def test_external_data_that_cannot_be_trusted_is_refused(rng, tmp_path, key, value, message):
    path = external_copy(bare_net(rng), tmp_path / "in")
    raw = onnx.load(path, load_external_data=False)
    entry(raw.graph.initializer[0], key, value)
    path.write_bytes(raw.SerializeToString())
    (tmp_path / "weights.bin").write_bytes(b"\0" * 10**5)
    with pytest.raises(ModelError, match=message):
        load(path)


def test_a_truncated_data_file_is_refused(rng, tmp_path):
    path = external_copy(bare_net(rng), tmp_path)
    os.truncate(tmp_path / "weights.bin", 500)
    with pytest.raises(ModelError, match=r"weights.bin' is truncated: tensor 'w1'"):
        load(path)


@pytest.mark.parametrize("name", ["m.onnx", "m.json", "m.textproto", "m"])
@pytest.mark.parametrize(
    "content", [b"", b"not a model\n", b"{", bytes(range(256)), b"\x08\x08"],
    ids=["empty", "text", "brace", "binary", "a version and no graph"],
)  # fmt: skip
def test_a_file_that_is_no_model_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"model '.*{name}' is not an ONNX"):
        load(tmp_path / name)


def test_a_truncated_model_is_refused(rng, tmp_path):
    whole = norm_net(rng).SerializeToString()
    for size in (len(whole) // 2, len(whole) - 3):
        (tmp_path / "m.onnx").write_bytes(whole[:size])
        with pytest.raises(ModelError, match="not an ONNX"):
            load(tmp_path / "m.onnx")


@pytest.mark.parametrize("version", [0, onnx.IR_VERSION + 1])
def test_an_ir_version_that_onnx_refuses_is_refused_by_name(rng, tmp_path, version):
    model = bare_net(rng)
    model.ir_version = version
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=f"IR version {version}, .* export with an IR version"):
        load(tmp_path / "m.onnx")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        load(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        load(tmp_path)
