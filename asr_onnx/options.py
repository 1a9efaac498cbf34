"""The options of a run: one frozen record, checked at birth, stored in every report."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from asr_onnx.allocation import ALLOCATIONS
from asr_onnx.errors import UsageError
from asr_onnx.masks import check_sparsity, parse_pattern
from asr_onnx.shrinkage import METHODS, parse_prior

BN_STATS = ("dense", "cumulative", "ema")
OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CRITERIA = ("magnitude", "obs")
ROW_SCALES = ("auto", "keep", "normalize")


def one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ``UsageError`` when ``value`` is not among ``allowed``."""
    if value not in allowed:
        raise UsageError(f"{what} '{value}' is none of {', '.join(allowed)}")


@dataclass(frozen=True)
class PruneOptions:
    """Which weights are zeroed; see ``asr_onnx.pruning``.

    ``pattern`` N:M replaces ``sparsity``; ``ops`` are the operators whose weights may be zeroed.
    """

    sparsity: float = 0.9
    include: str | None = None
    exclude: str | None = None
    row_scale: str = "auto"
    pattern: str | None = None
    ops: tuple[str, ...] = ("Conv",)

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        if self.pattern:
            parse_pattern(self.pattern)
        for op in self.ops:
            one_of("operator", op, OPS)
        if not self.ops:
            raise UsageError(f"no operator to prune: choose from {', '.join(OPS)}")
        one_of("row scale", self.row_scale, ROW_SCALES)


@dataclass(frozen=True)
class RepairOptions(PruneOptions):
    """How the pruned network is repaired; see ``asr_onnx.repair``."""

    criterion: str = "magnitude"
    allocation: str = "mixed"
    reconstruct: bool = False
    method: str = "asr"
    prior: str = "correlation"
    one_shot: bool = False  # measure every layer before any is repaired
    keep_first: bool = False  # do not repair the first site
    bn_stats: str = "dense"
    bn_momentum: float = 0.1
    bn_batch_size: int = 128
    bn_batches: int = 20
    providers: str = "auto"
    memory_limit: int | None = None  # bytes; None: half of the free memory
    recipe: str = "asr"  # the name these options go by, see ``asr_onnx.recipes``

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("criterion", self.criterion, CRITERIA)
        one_of("allocation", self.allocation, ALLOCATIONS)
        one_of("method", self.method, METHODS)
        one_of("BatchNormalization statistics", self.bn_stats, BN_STATS)
        parse_prior(self.prior)
        if self.one_shot and (self.reconstruct or self.criterion == "obs"):
            raise UsageError("one-shot statistics go with scaling: leave out reconstruct and obs")
        if not 0 < self.bn_momentum <= 1:
            raise UsageError(f"momentum {self.bn_momentum:g} is outside (0, 1]")
        if self.bn_batch_size < 2 or self.bn_batches < 1:
            raise UsageError("re-estimation needs at least one batch of two images")

    def to_dict(self) -> dict[str, object]:
        """The options as plain values, for reports."""
        return asdict(self)
