"""Read, check, patch and write ONNX files.  The only module that writes models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto, external_data_helper, numpy_helper

from asr_onnx.arrays import AnyArray
from asr_onnx.errors import ModelError, UsageError
from asr_onnx.files import check_folder, move, staging
from asr_onnx.graph.records import Patch
from asr_onnx.graph.stored import nbytes, tensors
from asr_onnx.graph.validate import check_graph, check_names, check_stored
from asr_onnx.interrupts import shielded
from asr_onnx.limits import PROTOBUF, check_file

_VALUE_FIELDS = (
    "raw_data",
    "float_data",
    "int32_data",
    "double_data",
    "external_data",
    "data_location",
)


@dataclass(frozen=True)
class LoadedModel:
    """A model with all weights in memory; ``external`` names those that lay in a data file."""

    proto: onnx.ModelProto
    external: frozenset[str] = frozenset()
    path: Path | None = None


def load(path: str | Path) -> LoadedModel:
    """Read a model and its external data (through symbolic links, as model hubs' caches have them).

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
    check_names(proto, path)
    check_stored(proto, path)
    external = [t for t in tensors(proto) if t.data_location == TensorProto.EXTERNAL]
    for tensor in external:
        _read_external(tensor, path)
    check_graph(proto, path)
    return LoadedModel(proto, frozenset(t.name for t in external if t.name), path)


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
        found |= dict.fromkeys(sorted(path.parent / p.replace("\\", "/") for p in places))
    return list(found)


def check_in_memory(proto: onnx.ModelProto) -> None:
    """Refuse a proto whose weights still lie in a file, and what is none; raises ``ModelError``."""
    if not isinstance(proto, onnx.ModelProto):
        raise ModelError(
            f"a {type(proto).__name__} is no ModelProto: give asr_onnx.load(path).proto"
        )
    for tensor in tensors(proto):
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ModelError(
                f"tensor '{tensor.name}' still lies in an external file: load the model with "
                "asr_onnx.load or onnx.load"
            )


def _read_external(tensor: TensorProto, model: Path) -> None:
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
    try:
        with path.open("rb") as file:
            file.seek(info.offset or 0)
            data = file.read(min(wanted, info.length or wanted))
    except OSError as error:
        raise ModelError(
            f"external data '{path}' of model '{model}' cannot be read ({error.strerror}): "
            "keep it next to the model"
        ) from None
    except (OverflowError, ValueError):  # an offset beyond what files may have
        data = b""
    if len(data) < wanted:
        raise ModelError(
            f"external data '{path}' is truncated: tensor '{tensor.name}' is incomplete"
        )
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
    taken = {t for n in proto.graph.node for t in [*n.input, *n.output]} | set(holders)
    by_output = {n.output[0]: n for n in result.graph.node if n.output}
    for output, bias in patch.biases.items():
        name = _fresh(f"{output}_bias", taken)
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


def _set_value(tensor: TensorProto, name: str, value: AnyArray) -> None:
    old = numpy_helper.to_array(tensor)
    if old.shape != value.shape or old.dtype != value.dtype:
        raise ModelError(
            f"tensor '{name}' is {old.dtype}{list(old.shape)} and cannot become "
            f"{value.dtype}{list(value.shape)}"
        )
    if np.array_equal(old, value):
        return  # unchanged values keep their bytes, whatever field they lie in
    _finite(name, value)
    for field in _VALUE_FIELDS:
        tensor.ClearField(field)
    tensor.raw_data = numpy_helper.from_array(value).raw_data


def _finite(name: str, value: AnyArray) -> None:
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise ModelError(
            f"repaired tensor '{name}' does not fit into {value.dtype}: nothing is written"
        )


def _fresh(name: str, taken: set[str]) -> str:
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
    if target.is_dir():
        raise UsageError(f"output '{target}' is a folder: name a file")
    if not target.parent.is_dir():
        raise UsageError(f"folder '{target.parent}' of the output does not exist")
    check_folder(target.parent)
    data = target.with_name(target.name + ".data")
    if data.exists() and not force:  # it may be another model's
        raise UsageError(f"'{data}' exists already: give another -o, or --force to overwrite")


def save(
    proto: onnx.ModelProto, target: str | Path, external: frozenset[str] = frozenset()
) -> None:
    """Write the model whole or not at all; tensors in ``external`` go to ``<target>.data``.

    Raises ``ModelError`` when the folder cannot be written or the model exceeds protobuf's 2 GiB.
    """
    target = Path(target)
    data_name = target.name + ".data"
    staged = proto
    if external:
        staged = onnx.ModelProto()
        staged.CopyFrom(proto)
        for tensor in tensors(staged):
            if tensor.name in external and tensor.HasField("raw_data"):
                external_data_helper.set_external_data(tensor, data_name)
    try:
        with staging(target.parent) as folder:
            onnx.save_model(staged, folder / target.name, format="protobuf")
            with shielded():
                if (folder / data_name).exists():
                    (folder / data_name).replace(target.parent / data_name)
                move(folder / target.name, target)
    except OSError as error:
        raise ModelError(f"output '{target}' cannot be written: {error.strerror}") from None
    except (ValueError, EncodeError):
        raise ModelError(
            f"output '{target}' would exceed protobuf's 2 GiB: save the input with external data"
        ) from None
