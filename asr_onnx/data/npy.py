"""NumPy's formats read within bounds: what a header claims is checked against what is there."""

from __future__ import annotations

import io
import math
import zipfile
from typing import IO, BinaryIO

import numpy as np
from numpy.lib import format as npy

from asr_onnx.arrays import AnyArray
from asr_onnx.limits import most_unpacked, size_text

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def from_npz(file: BinaryIO) -> dict[str, AnyArray]:
    """The arrays of a .npz by name.

    Raises ``ValueError`` for a member that is no .npy of numbers and for an archive that would
    expand to too much, and whatever ``zipfile`` finds wrong.
    """
    packed = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        size, most = sum(m.file_size for m in members), most_unpacked(packed)
        if size > most:
            raise ValueError(f"it would expand to {size_text(size)}, more than {size_text(most)}")
        found = {}
        for member in members:
            with archive.open(member) as opened:
                found[member.filename.removesuffix(".npy")] = _from_npy(opened, member.file_size)
        return found


def from_bytes(data: bytes) -> AnyArray:
    """The array of a .npy, or the first of a .npz.  Raises as ``from_npz`` does."""
    file = io.BytesIO(data)
    if not zipfile.is_zipfile(file):
        file.seek(0)
        return _from_npy(file, len(data))
    found = from_npz(file)
    if not found:
        raise ValueError("an empty archive")
    return next(iter(found.values()))


def _from_npy(file: IO[bytes], size: int) -> AnyArray:
    version = npy.read_magic(file)
    if version not in _HEADERS:  # 3.0 is for names of fields that are not Latin
        raise ValueError(f"a .npy of format {version[0]}.{version[1]}")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("Python objects, no numbers")
    if math.prod(shape) * dtype.itemsize > size - file.tell():
        raise ValueError(f"its header claims the shape {list(shape)}, for which it is too short")
    file.seek(0)
    return np.asarray(npy.read_array(file, allow_pickle=False))
