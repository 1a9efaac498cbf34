"""The options of a run: one frozen record, checked at birth, stored in every report."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from asr_onnx.errors import UsageError
from asr_onnx.masks import check_sparsity
from asr_onnx.shrinkage import METHODS, parse_prior

BN_STATS = ("dense", "cumulative", "ema")
ROW_SCALES = ("auto", "keep", "normalize")


def one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ``UsageError`` when ``value`` is not among ``allowed``."""
    if value not in allowed:
        raise UsageError(f"{what} '{value}' is none of {', '.join(allowed)}")


@dataclass(frozen=True)
class PruneOptions:
    """Which weights are zeroed; see ``asr_onnx.pruning``."""

    sparsity: float = 0.9
    include: str | None = None
    exclude: str | None = None
    row_scale: str = "auto"

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        one_of("row scale", self.row_scale, ROW_SCALES)


@dataclass(frozen=True)
class RepairOptions(PruneOptions):
    """How the pruned network is repaired; see ``asr_onnx.repair``."""

    method: str = "asr"
    prior: str = "correlation"
    bn_stats: str = "dense"
    bn_momentum: float = 0.1
    bn_batch_size: int = 128
    bn_batches: int = 20
    providers: str = "auto"
    memory_limit: int | None = None  # bytes; None: half of the free memory

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("method", self.method, METHODS)
        one_of("BatchNormalization statistics", self.bn_stats, BN_STATS)
        parse_prior(self.prior)
        if not 0 < self.bn_momentum <= 1:
            raise UsageError(f"momentum {self.bn_momentum:g} is outside (0, 1]")
        if self.bn_batch_size < 2 or self.bn_batches < 1:
            raise UsageError("re-estimation needs at least one batch of two images")

    def to_dict(self) -> dict[str, object]:
        """The options as plain values, for reports."""
        return asdict(self)
