"""Write ONNX files.  The only module that does.

The data file has a name of its own for each content, and the model is put in place last: whenever
the work ends, the old model with its data or the new one with its own is there.
"""

from __future__ import annotations

import hashlib
import itertools
import mmap
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError

from asr_onnx.errors import ModelError, OutputTakenError
from asr_onnx.files import staging
from asr_onnx.graph.model_file import check_readable, files
from asr_onnx.graph.stored import nbytes, tensors
from asr_onnx.graph.tensor_values import LARGE, held, is_in_file, opened, refer
from asr_onnx.interrupts import shielded, wrote

_PAGE = 4096  # large tensors begin at one, so that they can be mapped
_WORD = 64


def save(
    proto: onnx.ModelProto,
    target: str | Path,
    external: frozenset[str] = frozenset(),
    force: bool = True,
) -> None:
    """Write the model whole or not at all.

    Tensors in ``external``, and those that are not in memory, go to ``<target>.<hash>.data``; the
    data of the model that is overwritten go.  Without ``force`` nothing is overwritten: when the
    target came into being meanwhile, the model is written beside it.

    Raises ``OutputTakenError`` for that, ``ModelError`` when the folder cannot be written, when the
    model exceeds protobuf's 2 GiB, and for weights in a file that it cannot name.
    """
    target = Path(target)
    check_readable(proto)
    try:
        with staging(target.parent) as folder:
            staged, data = _staged(proto, external, folder, target.name)
            onnx.save_model(staged, folder / target.name, format="protobuf")
            with shielded():
                _into_place(folder, target, data, force)
                wrote(target)
    except OSError as error:
        raise ModelError(f"output '{target}' cannot be written: {error.strerror}") from None
    except (ValueError, EncodeError):
        raise ModelError(
            f"output '{target}' would exceed protobuf's 2 GiB: save the input with external data"
        ) from None


def _staged(
    proto: onnx.ModelProto, external: frozenset[str], folder: Path, name: str
) -> tuple[onnx.ModelProto, str | None]:
    """The model as it is written, and the name of its data file, which lies in ``folder``."""

    def moves(tensor: onnx.TensorProto) -> bool:
        return is_in_file(tensor) or (tensor.name in external and tensor.HasField("raw_data"))

    if not any(map(moves, tensors(proto))):
        return proto, None
    staged = onnx.ModelProto()
    staged.CopyFrom(proto)
    moving = list(filter(moves, tensors(staged)))
    digest, offsets = hashlib.sha256(), []
    with (folder / "data").open("wb") as file:
        for tensor in moving:
            file.write(bytes(-file.tell() % (_PAGE if nbytes(tensor) >= LARGE else _WORD)))
            offsets.append(file.tell())
            data = _bytes(tensor)
            digest.update(data)
            file.write(data)
    data_name = f"{name}.{digest.hexdigest()[:8]}.data"
    (folder / "data").rename(folder / data_name)
    for tensor, offset in zip(moving, offsets, strict=True):
        refer(tensor, data_name, offset)
    return staged, data_name


def _bytes(tensor: onnx.TensorProto) -> memoryview:
    if not is_in_file(tensor):
        return memoryview(tensor.raw_data)
    return opened(held(tensor)).reshape(-1).view(np.uint8).data


def _into_place(folder: Path, target: Path, data: str | None, force: bool) -> None:
    """Move the staged files to the target, the model last; take away what has been replaced."""
    parent, model = target.parent, folder / target.name
    old = _own_data(target) if force else set()
    fresh = data is not None and not (parent / data).exists()
    if data is not None:
        (folder / data).replace(parent / data)
    try:
        if force:
            model.replace(target)
        elif not _put(model, target):
            _keep_beside(model, target)
    except OSError:
        if data is not None and fresh:
            (parent / data).unlink(missing_ok=True)
        raise
    for path in old - {parent / (data or "")}:
        with suppress(OSError):  # what is left over does no harm
            if not _is_read_elsewhere(path, target):
                path.unlink()


def _put(model: Path, target: Path) -> bool:
    """Move a file to a name that is free; whether it was."""
    try:
        os.link(model, target)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        try:
            target.open("xb").close()
        except FileExistsError:
            return False
        model.replace(target)
    return True


def _keep_beside(model: Path, target: Path) -> None:
    for number in itertools.count(1):
        kept = target.with_name(f"{target.stem}.{number}{target.suffix}")
        if _put(model, kept):
            wrote(kept)
            raise OutputTakenError(
                f"output '{target}' was written by someone else meanwhile and is left alone: the "
                f"finished model is '{kept}'; give another -o, or --force to overwrite",
                kept,
            )


def _own_data(target: Path) -> set[Path]:
    """Data files in the target's folder that bear its name and that it refers to."""
    try:
        found = files(target)[1:]
    except (OSError, DecodeError, ValueError):
        return set()  # it is not there, or no model
    names = {p.name for p in found if p.parent == target.parent}
    own = {n for n in names if n.startswith(f"{target.name}.") and n.endswith(".data")}
    return {target.parent / n for n in own}


def _is_read_elsewhere(data: Path, target: Path) -> bool:
    """Whether another model in the folder has the data file's name in it."""
    for other in target.parent.glob("*.onnx"):
        if other.samefile(target) or not other.stat().st_size:
            continue
        with other.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if text.find(os.fsencode(data.name)) >= 0:
                return True
    return False
