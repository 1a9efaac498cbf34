"""Live tensors in memory up to a limit, beyond it in a temporary file."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil

from asr_onnx.arrays import AnyArray
from asr_onnx.errors import AsrError

_CGROUP = Path("/sys/fs/cgroup/memory.max")
_SMALLEST_SPILL = 1 << 14  # bytes; less is not worth a trip to the disk


def default_limit() -> int:
    """Half of the memory that is free now, in bytes; a container's limit counts."""
    free = psutil.virtual_memory().available
    if _CGROUP.is_file() and (text := _CGROUP.read_text().strip()).isdecimal():
        free = min(free, int(text) - psutil.Process().memory_info().rss)
    return max(int(free) // 2, 1 << 28)


@dataclass(frozen=True)
class _Slot:
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    nbytes: int


class TensorStore:
    """A dictionary of arrays that holds at most ``limit`` bytes in memory.

    A context manager, usable from several threads.  What does not fit goes to one unnamed
    temporary file, which the operating system removes even when the process is killed; its gaps
    are used again by size.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._arrays: dict[Hashable, AnyArray] = {}
        self._slots: dict[Hashable, _Slot] = {}
        self._gaps: dict[int, list[int]] = {}
        self._end = 0
        self._file: Any = None
        self._lock = threading.RLock()
        self.in_memory = 0

    def __enter__(self) -> TensorStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._arrays.clear()
        self._slots.clear()
        if self._file:
            with suppress(OSError):  # of a full disk, where what was written last is still to go
                self._file.close()

    @property
    def on_disk(self) -> int:
        """Bytes of the arrays that were spilled and are still there."""
        return sum(s.nbytes for s in self._slots.values())

    def put(self, key: Hashable, array: AnyArray) -> None:
        """Keep ``array`` under ``key``, replacing what was there.

        Raises ``AsrError`` when the temporary folder is full, or cannot be written to.
        """
        with self._lock:
            self.drop(key)
            if array.nbytes >= _SMALLEST_SPILL and self.in_memory + array.nbytes > self.limit:
                self._spill(key, array)
            else:
                self._arrays[key] = array
                self.in_memory += array.nbytes

    def __contains__(self, key: Hashable) -> bool:
        return key in self._arrays or key in self._slots

    def __getitem__(self, key: Hashable) -> AnyArray:
        """The array; treat it as read-only."""
        with self._lock:
            slot = self._slots.get(key)
            return self._read(slot.offset, slot.shape, slot.dtype) if slot else self._arrays[key]

    def part(self, key: Hashable, rows: slice) -> AnyArray:
        """Consecutive rows of the array, and no others are read; treat them as read-only."""
        with self._lock:
            slot = self._slots.get(key)
            if slot is None:
                return self._arrays[key][rows]
            start, stop, _ = rows.indices(slot.shape[0])
            offset = slot.offset + start * (slot.nbytes // slot.shape[0])
            return self._read(offset, (stop - start, *slot.shape[1:]), slot.dtype)

    def _read(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> AnyArray:
        array = np.empty(shape, dtype)
        self._file.seek(offset)
        self._file.readinto(array.reshape(-1).view(np.uint8))
        return array

    def shape(self, key: Hashable) -> tuple[int, ...] | None:
        """The array's shape, or ``None`` when it is not there."""
        with self._lock:
            found = self._slots.get(key) or self._arrays.get(key)
            return None if found is None else found.shape

    def drop(self, key: Hashable) -> None:
        """Forget the array, if it is there."""
        with self._lock:
            if slot := self._slots.pop(key, None):
                self._gaps.setdefault(slot.nbytes, []).append(slot.offset)
            elif key in self._arrays:
                self.in_memory -= self._arrays.pop(key).nbytes

    def _spill(self, key: Hashable, array: AnyArray) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="asr-onnx-")  # noqa: SIM115
            self._write(key, array)
        except OSError as error:
            raise self._refusal(error, array.nbytes) from None

    def _write(self, key: Hashable, array: AnyArray) -> None:
        if gaps := self._gaps.get(array.nbytes):
            offset = gaps.pop()
        else:
            offset, self._end = self._end, self._end + array.nbytes
        self._file.seek(offset)
        self._file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
        self._file.flush()  # here it can be told what failed
        self._slots[key] = _Slot(offset, array.shape, array.dtype, array.nbytes)

    def _refusal(self, error: OSError, more: int) -> AsrError:
        place = f"'{tempfile.tempdir}'" if tempfile.tempdir else "none found"
        needed = -(-(self.on_disk + more) // 2**20)
        return AsrError(
            f"the temporary folder ({place}) is full or cannot be written to ({error.strerror}); "
            f"{needed:,} MiB at least are needed there: set TMPDIR to a folder with more room, "
            "give a larger --memory-limit or a smaller --num-samples"
        )
