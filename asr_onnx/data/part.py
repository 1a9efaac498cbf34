"""Some of the samples that there are, as samples."""

from __future__ import annotations

from collections.abc import Sequence

from asr_onnx.arrays import AnyArray
from asr_onnx.data.openers import Samples


class Part:
    """The samples at ``indices`` of ``whole``, in that order."""

    def __init__(self, whole: Samples, indices: Sequence[int]) -> None:
        self._whole, self._indices = whole, tuple(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, AnyArray]:
        return self._whole[self._indices[index]]

    def name(self, index: int) -> str:
        """As the whole calls it."""
        return self._whole.name(self._indices[index])
