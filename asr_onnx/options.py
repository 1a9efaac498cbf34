"""The options of a run and their named sets, recipes: frozen, checked at birth, in every report.

An option is declared once, with its default, its choices and its help; the command line is made
from the declarations.  An option left out (``None``) is the recipe's, else the default.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from asr_onnx.errors import UsageError
from asr_onnx.maths.densities import ALLOCATIONS
from asr_onnx.maths.masks import check_sparsity, parse_pattern
from asr_onnx.maths.scale_rules import METHODS, parse_prior

BN_STATS = ("dense", "cumulative", "ema")
OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CRITERIA = ("magnitude", "obs")
GIVEN = "given"  # the criterion of a model that is pruned already: its zeros are the mask
ROW_SCALES = ("auto", "keep", "normalize")
SPARSITY = 0.9
# What chooses a mask, and so says nothing about a model that is pruned already.
MASK_OPTIONS = (
    "sparsity", "pattern", "criterion", "allocation", "include", "exclude", "row_scale",
)  # fmt: skip

RECIPES: Mapping[str, Mapping[str, Any]] = {
    # Global magnitude and scaling: arXiv 2605.21426 made sound by a dense reference.
    "asr": {},
    # The strongest combination measured, see docs/measurements.md.
    "best": {"criterion": "obs", "reconstruct": True},
    # The paper's protocol: one-shot statistics, its prior, an unconverged re-estimation afterwards.
    "paper": {"prior": "median", "bn_stats": "ema", "one_shot": True, "keep_first": True},
}


def option(default: Any) -> Any:
    """A field whose value is the recipe's when left out, and ``default`` when that has none."""
    return field(default=None, metadata={"default": default})


def one_of(what: str, value: str, allowed: Collection[str]) -> None:
    """Raise ``UsageError`` when ``value`` is not among ``allowed``."""
    if value not in allowed:
        raise UsageError(f"{what} '{value}' is none of {', '.join(allowed)}")


@dataclass(frozen=True)
class PruneOptions:
    """Which weights are zeroed; see ``asr_onnx.pruning``.

    ``pattern`` N:M goes instead of ``sparsity``, which is ``None`` then; ``ops`` are the operators
    whose weights may be zeroed.
    """

    sparsity: float | None = None
    include: str | None = None
    exclude: str | None = None
    row_scale: str = "auto"
    pattern: str | None = None
    ops: tuple[str, ...] = ("Conv",)

    def __post_init__(self) -> None:
        if self.pattern and self.sparsity is not None:
            raise UsageError("pattern and sparsity exclude each other: leave one out")
        if self.pattern:
            parse_pattern(self.pattern)
        elif self.sparsity is None and self.chooses_mask:
            object.__setattr__(self, "sparsity", SPARSITY)
        if self.sparsity is not None:
            check_sparsity(self.sparsity)
        for op in self.ops:
            one_of("operator", op, OPS)
        if not self.ops:
            raise UsageError(f"no operator to prune: choose from {', '.join(OPS)}")
        one_of("row scale", self.row_scale, ROW_SCALES)

    @property
    def amount(self) -> str:
        """The pattern or the sparsity that was asked for, for people."""
        if self.pattern or self.sparsity is None:
            return self.pattern or "as given"
        return f"{100 * self.sparsity:g} %"

    @property
    def chooses_mask(self) -> bool:
        """Whether a mask is chosen, and not that of a model which is pruned already."""
        return True


@dataclass(frozen=True)
class RepairOptions(PruneOptions):
    """How the pruned network is repaired; see ``asr_onnx.repair``.

    ``one_shot``: measure every layer before any is repaired; ``keep_first``: do not repair the
    first site; ``memory_limit`` in bytes, ``None``: half of the free memory.
    """

    recipe: str = "asr"
    criterion: str = option("magnitude")
    allocation: str = option("mixed")
    reconstruct: bool = option(False)
    method: str = option("asr")
    prior: str = option("correlation")
    one_shot: bool = option(False)
    keep_first: bool = option(False)
    bn_stats: str = option("dense")
    bn_momentum: float = option(0.1)
    bn_batch_size: int = option(128)
    bn_batches: int = option(20)
    providers: str = "auto"
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        one_of("recipe", self.recipe, RECIPES)
        for f in fields(self):
            if getattr(self, f.name) is None and "default" in f.metadata:
                value = RECIPES[self.recipe].get(f.name, f.metadata["default"])
                object.__setattr__(self, f.name, value)
        super().__post_init__()
        one_of("criterion", self.criterion, (*CRITERIA, GIVEN))
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

    @property
    def chooses_mask(self) -> bool:
        return self.criterion != GIVEN

    def for_given_mask(self) -> RepairOptions:
        """The same for a model that is pruned already, whose zeros are the mask.

        Raises ``UsageError`` for options that choose a mask.
        """
        plain = RepairOptions(recipe=self.recipe)
        chosen = [n for n in MASK_OPTIONS if getattr(self, n) not in (None, getattr(plain, n))]
        if chosen and self.chooses_mask:
            raise UsageError(
                "a model that is pruned already brings its mask along: leave out "
                f"{', '.join(n.replace('_', '-') for n in chosen)}"
            )
        return replace(self, criterion=GIVEN, sparsity=None)

    def to_dict(self) -> dict[str, object]:
        """The options as plain values, for reports."""
        return asdict(self)


def recipe(name: str, /, **overrides: Any) -> RepairOptions:
    """The options of a recipe, with others in their place where given and not ``None``.

    >>> recipe("best", sparsity=0.8).criterion
    'obs'

    Raises ``UsageError`` for an unknown recipe or option value.
    """
    return RepairOptions(recipe=name, **{k: v for k, v in overrides.items() if v is not None})


def describe(name: str) -> str:
    """A recipe as the command-line options that spell it out."""
    words = []
    for option_name, value in RECIPES[name].items():
        flag = "--" + option_name.replace("_", "-")
        words.append(flag if value is True else f"{flag} {value}")
    return " ".join(words) or "the defaults"


def stronger(options: RepairOptions) -> str:
    """One line about what ``best`` would do beyond these options; empty when they are as strong."""
    missing = []
    if options.criterion not in (RECIPES["best"]["criterion"], GIVEN):
        missing.append("choose the masks layer by layer from second moments")
    if not options.reconstruct:
        missing.append("re-fit the surviving weights by least squares")
    return f"--recipe best would also {' and '.join(missing)}" if missing else ""
