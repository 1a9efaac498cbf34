"""Read, check and patch ONNX files; ``saving`` writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, external_data_helper, numpy_helper

from asr_onnx.arrays import AnyArray
from asr_onnx.errors import ModelError, UsageError
from asr_onnx.files import check_folder
from asr_onnx.graph.records import Patch
from asr_onnx.graph.stored import nbytes, tensors
from asr_onnx.graph.tensor_values import (
    VALUE_FIELDS,
    Held,
    InFile,
    held,
    is_in_file,
    is_large,
    opened,
    refer,
)
from asr_onnx.graph.validate import check_graph, check_names, check_stored
from asr_onnx.graph.wiring import subgraphs
from asr_onnx.limits import PROTOBUF, check_file


@dataclass(frozen=True)
class LoadedModel:
    """A model; ``external`` names the weights that lay in a data file, and may lie there still."""

    proto: onnx.ModelProto
    external: frozenset[str] = frozenset()
    path: Path | None = None


def load(path: str | Path, in_place: bool = False) -> LoadedModel:
    """Read a model and its external data (through symbolic links, as model hubs' caches have them).

    With ``in_place`` large initializers stay in the data file until they are used; all functions
    here take such a model, and return one.
    Raises ``ModelError`` naming the file when it is missing, not ONNX, truncated, or lacks its
    external data.
    """
    path = Path(path)
    check_file(path, f"model '{path}'", ModelError, PROTOBUF)
    try:
        proto = onnx.load_model(path, format="protobuf", load_external_data=False)
    except FileNotFoundError:
        raise ModelError(f"model '{path}' does not exist") from None
    except OSError as error:
        raise ModelError(f"model '{path}' cannot be read: {error.strerror}") from None
    except DecodeError:
        raise ModelError(f"model '{path}' is not an ONNX file, or it is truncated") from None
    if not proto.graph.node or not proto.opset_import:
        raise ModelError(f"model '{path}' is not an ONNX model: it has no nodes or no opset")
    if not 0 < proto.ir_version <= onnx.IR_VERSION:
        raise ModelError(
            f"model '{path}' has IR version {proto.ir_version}, and the onnx installed here knows "
            f"1 to {onnx.IR_VERSION}: update onnx, or export with an IR version it knows"
        )
    check_names(proto, path)
    check_stored(proto, path)
    external = frozenset(t.name for t in tensors(proto) if is_in_file(t) and t.name)
    initializers = len(proto.graph.initializer) if in_place else 0
    for number, tensor in enumerate(tensors(proto)):  # initializers first
        if is_in_file(tensor):
            _read_external(tensor, path, number < initializers and is_large(tensor))
    check_graph(proto, path)
    return LoadedModel(proto, external, path)


def files(*paths: Path) -> list[Path]:
    """The files models consist of: their own, and those of their external data, each once."""
    found: dict[Path, None] = {}
    for path in paths:
        found[path] = None
        proto = onnx.load_model(path, format="protobuf", load_external_data=False)
        places = {
            entry.value
            for tensor in tensors(proto)
            if tensor.data_location == TensorProto.EXTERNAL
            for entry in tensor.external_data
            if entry.key == "location"
        }
        found |= dict.fromkeys(
            sorted(path.parent / os.fsdecode(p).replace("\\", "/") for p in places)
        )
    return list(found)


def check_readable(proto: onnx.ModelProto) -> None:
    """Refuse a proto whose weights lie in a file it cannot name, and what is none.

    Raises ``ModelError``.
    """
    if not isinstance(proto, onnx.ModelProto):
        raise ModelError(
            f"a {type(proto).__name__} is no ModelProto: give asr_onnx.load(path).proto"
        )
    for tensor in tensors(proto):
        if is_in_file(tensor) and not _is_placed(tensor):
            raise ModelError(
                f"tensor '{tensor.name}' still lies in an external file: load the model with "
                "asr_onnx.load or onnx.load"
            )


def _is_placed(tensor: TensorProto) -> bool:
    """Whether an external tensor says by itself where it lies."""
    places = (e.value for e in tensor.external_data if e.key == "location")
    return any(Path(p).is_absolute() for p in places)


def _read_external(tensor: TensorProto, model: Path, in_place: bool) -> None:
    try:
        info = external_data_helper.ExternalDataInfo(tensor)
    except ValueError as error:
        raise ModelError(f"model '{model}': tensor '{tensor.name}' is damaged: {error}") from None
    relative = PurePosixPath(info.location.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or ":" in str(relative):
        raise ModelError(
            f"model '{model}': tensor '{tensor.name}' points outside the model's folder "
            f"('{info.location}'): refused"
        )
    path, wanted = model.parent / relative, nbytes(tensor)
    offset, length = info.offset or 0, min(wanted, info.length or wanted)
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(offset)
            data = b"" if in_place else file.read(length)
    except OSError as error:
        raise ModelError(
            f"external data '{path}' of model '{model}' cannot be read ({error.strerror}): "
            "keep it next to the model"
        ) from None
    except (OverflowError, ValueError):  # an offset beyond what files may have
        size, data = 0, b""
    if (min(length, size - offset) if in_place else len(data)) < wanted:
        raise ModelError(
            f"external data '{path}' is truncated: tensor '{tensor.name}' is incomplete"
        )
    if in_place:
        refer(tensor, str(path.resolve()), offset)
        return
    tensor.raw_data = data
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")


def apply(proto: onnx.ModelProto, patch: Patch) -> onnx.ModelProto:
    """A copy of the model with the patch's values; everything else stays byte for byte.

    Raises ``ModelError`` when a value would change a stored shape or dtype, or is not finite.
    """
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    holders = {t.name: t for t in result.graph.initializer}
    for node in result.graph.node:
        if node.op_type == "Constant" and node.output[0] in patch.values:
            holders[node.output[0]] = next(a.t for a in node.attribute if a.name == "value")
    for name, value in patch.values.items():
        _set_value(holders[name], name, value)
    taken = set(_names(proto.graph))
    by_output = {n.output[0]: n for n in result.graph.node if n.output}
    for output, bias in patch.biases.items():
        name = fresh(f"{output}_bias", taken)
        node = by_output[output]
        node.input.extend([""] * (3 - len(node.input)))
        node.input[2] = name
        result.graph.initializer.append(numpy_helper.from_array(bias, name))
        _finite(name, bias)
        if any(i.name in holders for i in result.graph.input):  # IR 3 lists initializers as inputs
            result.graph.input.append(
                onnx.helper.make_tensor_value_info(
                    name, onnx.helper.np_dtype_to_tensor_dtype(bias.dtype), bias.shape
                )
            )
    return result


def _set_value(tensor: TensorProto, name: str, held_value: Held) -> None:
    old, value = opened(held(tensor)), opened(held_value)
    if old.shape != value.shape or old.dtype != value.dtype:
        raise ModelError(
            f"tensor '{name}' is {old.dtype}{list(old.shape)} and cannot become "
            f"{value.dtype}{list(value.shape)}"
        )
    if np.array_equal(old, value):
        return  # unchanged values keep their bytes, whatever field they lie in
    _finite(name, value)
    if isinstance(held_value, InFile):
        held_value.refer(tensor)
        return
    for field in VALUE_FIELDS:
        tensor.ClearField(field)
    tensor.raw_data = numpy_helper.from_array(value).raw_data


def _finite(name: str, value: AnyArray) -> None:
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise ModelError(
            f"repaired tensor '{name}' does not fit into {value.dtype}: nothing is written"
        )


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of all tensors, those within bodies included."""
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        yield from (v.name for v in values)
    for node in graph.node:
        yield from (*node.input, *node.output)
        for body in subgraphs(node):
            yield from _names(body)


def fresh(name: str, taken: set[str]) -> str:
    """The name, or one like it that is not ``taken``; taken from now on."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def check_target(target: Path, source: Path | None, force: bool) -> None:
    """Refuse, before any work, to overwrite without ``force``; raises ``UsageError``."""
    if target.exists() and not force:
        same = source is not None and source.exists() and target.samefile(source)
        what = "is the input model itself" if same else "exists already"
        raise UsageError(f"output '{target}' {what}: give another -o, or --force to overwrite")
    if target.exists() and not target.is_file():
        raise UsageError(f"output '{target}' is a folder or a device: name a file")
    if not target.parent.is_dir():
        raise UsageError(f"folder '{target.parent}' of the output does not exist")
    check_folder(target.parent)
