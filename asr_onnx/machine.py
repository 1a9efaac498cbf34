"""Where networks run, and with how much memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from asr_onnx.declare import fill, option
from asr_onnx.errors import UsageError


@dataclass(frozen=True)
class Execution:
    """Where and with how much memory networks run; no result depends on it but for rounding.

    ``memory_limit`` in bytes; ``None``: half of the free memory.
    """

    providers: str = option("auto", "auto, cpu, cuda or cuda:N.")
    memory_limit: int | None = option(
        None,
        "For live tensors, e.g. 2GiB; beyond it they go to disk.  [default: half of the free "
        "memory]",
        kind="bytes",
    )

    def __post_init__(self) -> None:
        fill(self)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.providers):
            raise UsageError(f"provider '{self.providers}' is not one of auto, cpu, cuda, cuda:N")
        if self.memory_limit is not None and self.memory_limit < 0:
            raise UsageError(f"memory limit {self.memory_limit} is negative")
