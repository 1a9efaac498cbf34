"""Does a model still hold its mask?  Of the weights in the file alone; nothing is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from asr_onnx.errors import UsageError
from asr_onnx.graph.float_weights import with_float_weights
from asr_onnx.graph.model_file import check_readable
from asr_onnx.graph.records import Site, Skipped
from asr_onnx.graph.rows import to_rows
from asr_onnx.graph.sites import find_sites
from asr_onnx.pruning.choose import left_dense, prunable
from asr_onnx.pruning.eligibility import OnlyEligible
from asr_onnx.pruning.patterns import NM, Channel, Pattern, Unstructured, parse
from asr_onnx.pruning.sparing import check_share

NEITHER = "nothing to check: give a pattern N:M, such as 2:4, or a sparsity, such as 0.5"


@dataclass(frozen=True)
class MaskedSite:
    """Zeros of a site's weight; ``crowded`` of its ``groups`` have more weights than may stay.

    There are groups only where an N:M pattern is asked for.
    """

    name: str
    op: str
    weights: int
    zeros: int
    groups: int = 0
    crowded: int = 0

    @property
    def share(self) -> float:
        """Of zeros."""
        return self.zeros / self.weights


@dataclass(frozen=True)
class MaskCheck:
    """What the zeros of a model's prunable sites say about a ``pattern``, a ``sparsity``, or both.

    With both some sites may break the pattern, being dense: the zeros of the others have to be
    enough.  ``left`` are the nodes that are no such sites, with the reason.
    """

    pattern: NM | None
    sparsity: float | None
    sites: tuple[MaskedSite, ...]
    left: tuple[Skipped, ...]

    @property
    def weights(self) -> int:
        return sum(s.weights for s in self.sites)

    @property
    def zeros(self) -> int:
        return sum(s.zeros for s in self.sites)

    @property
    def share(self) -> float:
        """Of zeros in all sites together."""
        return self.zeros / self.weights

    @property
    def counted(self) -> int:
        """The zeros that a sparsity is judged by: with a pattern those of sites that hold it."""
        return sum(s.zeros for s in self.sites if not s.crowded)

    @property
    def wanted(self) -> int:
        """The number of zeros a sparsity asks for, counted as ``prune`` does; 0 without one."""
        least = 1 if self.pattern else 0
        return 0 if self.sparsity is None else max(least, round(self.sparsity * self.weights))

    @property
    def crowded(self) -> tuple[MaskedSite, ...]:
        """The sites that break the pattern, the worst first."""
        broken = (s for s in self.sites if s.crowded)
        return tuple(sorted(broken, key=lambda s: -s.crowded / s.groups))

    @property
    def passed(self) -> bool:
        """Whether the mask holds."""
        if self.sparsity is None:
            return not self.crowded
        return self.counted >= self.wanted


def check(
    proto: onnx.ModelProto,
    *,
    pattern: Pattern | Channel | str | None = None,
    sparsity: float | None = None,
    ops: Sequence[str] = ("Conv",),
    include: str | None = None,
    exclude: str | None = None,
    only_eligible: bool = False,
) -> MaskCheck:
    """Whether the prunable weights of a model hold an N:M ``pattern``, or have enough zeros.

    With both, whether the sites that hold it have enough zeros for all of them: others may be
    dense.  The rest says what is prunable, as in ``PruneOptions``.  Weights may be integers behind
    a DequantizeLinear: what counts is whether they are their zero point.

    Raises ``UsageError`` where there is nothing to check, ``ModelError`` for a model in which
    nothing can be pruned.
    """
    check_readable(proto)
    given = parse(pattern) if isinstance(pattern, str) else pattern
    if isinstance(given, Channel):
        raise UsageError("nothing to check: whole channels that are gone leave no mask in the file")
    if isinstance(given, OnlyEligible):
        given, only_eligible = given.pattern, True
    if not isinstance(given, NM | Unstructured | None) or (
        not isinstance(given, NM) and sparsity is None
    ):
        raise UsageError(NEITHER)
    if sparsity is not None:
        check_share(given or Unstructured(), sparsity)
    nm = given if isinstance(given, NM) else None
    structure: Pattern = OnlyEligible(nm) if nm and only_eligible else nm or Unstructured()
    survey = find_sites(with_float_weights(proto), ops)
    sites = prunable(survey.sites, ops, structure, include, exclude)
    chosen = {s.name for s in sites}
    others = tuple(_left([s for s in survey.sites if s.name not in chosen], structure, include))
    return MaskCheck(
        nm,
        sparsity,
        tuple(_masked(s, nm) for s in sites),
        survey.skipped + others,
    )


def _masked(site: Site, pattern: NM | None) -> MaskedSite:
    kept = to_rows(site, site.weight.value) != 0
    zeros = int(kept.size - np.count_nonzero(kept))
    if pattern is None:
        return MaskedSite(site.label, site.op, kept.size, zeros)
    counts = kept.reshape(-1, pattern.group).sum(axis=1)
    crowded = int(np.count_nonzero(counts > pattern.kept))
    return MaskedSite(site.label, site.op, kept.size, zeros, len(counts), crowded)


def _left(sites: Sequence[Site], pattern: Pattern, include: str | None) -> Iterator[Skipped]:
    """Sites that are not checked, with the reason."""
    told = {s.name: s for s in left_dense(sites, pattern, include)}
    for site in sites:
        yield told.get(site.label) or Skipped(site.label, site.op, "include and exclude leave it")
