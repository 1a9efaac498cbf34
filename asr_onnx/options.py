"""The options of a run and their named sets, recipes: frozen, checked at birth, in every report.

An option is declared once, and its choices are the table it chooses from; see ``declare``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from asr_onnx.declare import fill, flag, one_of, option
from asr_onnx.errors import UsageError
from asr_onnx.graph.operators import OPERATORS
from asr_onnx.maths.clipping import RANGES
from asr_onnx.maths.densities import BY_ERROR, DENSITIES, SEARCH, SEARCHED, Density
from asr_onnx.maths.scale_rules import PRIORS, SCALE_RULES, ScaleRule, parse_prior
from asr_onnx.provenance import plain
from asr_onnx.pruning.choose import ROW_SCALES, compiled
from asr_onnx.pruning.criteria import CRITERIA, Criterion, Score, criterion_of
from asr_onnx.pruning.eligibility import OnlyEligible
from asr_onnx.pruning.patterns import NM, PATTERNS, Channel, Pattern, Unstructured, parse
from asr_onnx.pruning.sparing import check_share
from asr_onnx.recipes import AUTO, HOW, LADDER, RECIPES, describe

BN_STATS = ("dense", "cumulative", "ema")
OPS = tuple(OPERATORS)
FLOAT32, FLOAT16, INT8 = "float32", "float16", "int8"
PRECISIONS = (FLOAT32, FLOAT16, INT8)
ENGINES = ("tensorrt", "onnxruntime")
GIVEN = "given"  # the criterion of a model that is pruned already: its zeros are the mask
SPARSITY = 0.9
MACS = 0.7
# What chooses a mask, and so says nothing about a model that is pruned already.
MASK_OPTIONS = (
    "sparsity", "macs", "channel_multiple", "pattern", "only_eligible", "criterion", "allocation",
    "include", "exclude", "row_scale",
)  # fmt: skip


@dataclass(frozen=True)
class PruneOptions:
    """Which weights are zeroed; see ``asr_onnx.pruning``.

    ``sparsity`` and ``pattern``, a text or a ``Pattern``, are ``None`` where they are not given:
    ``zeros`` is the share that follows.  With an N:M pattern it settles how many layers have that.
    ``ops`` are the operators whose weights may be zeroed.
    """

    sparsity: float | None = option(
        None,
        "Share of the weights to zero, 0.8 or 80%; with --pattern N:M layers that lose most by it "
        f"stay dense.  [default: {SPARSITY:g}, or all that the pattern can]",
        kind="percent",
    )
    pattern: Pattern | Channel | str | None = option(
        None,
        "N of every M weights along the input channels stay, e.g. 2:4, in all layers or as many as "
        "--sparsity needs; or channel: whole channels go, and the model becomes narrower.",
        kind="text",
        records=(Pattern, Channel),
        metavar="|".join(n for n in PATTERNS if n != "unstructured"),
    )
    macs: float | None = option(
        None,
        "Share of the multiply-accumulates that stays with --pattern channel, 0.5 or 50%, instead "
        f"of --sparsity.  [default: {MACS:g}]",
        kind="percent",
    )
    channel_multiple: int = option(
        8, "Of --pattern channel: what stays is a multiple of it, as engines block channels."
    )
    only_eligible: bool = option(
        False,
        "Of --pattern N:M: layers that are grouped or too narrow for sparse kernels to be faster "
        "stay dense; see inspect --engine.",
        off="--all-layers",
    )
    ops: tuple[str, ...] = option(
        ("Conv",), f"Operators to prune, of {','.join(OPS)}.", kind="words"
    )
    include: str | None = option(
        None,
        "Prune only weights or nodes that match; the others, and linear heads, may be repaired.",
        kind="text",
        metavar="REGEX",
    )
    exclude: str | None = option(
        None,
        "Leave weights or nodes that match as they are: neither pruned nor repaired.",
        kind="text",
        metavar="REGEX",
    )
    row_scale: str = option(
        "auto",
        "Divide weights by their output channel's norm before comparing them; auto: when "
        "BatchNormalization was folded at export.",
        choices=ROW_SCALES,
    )

    def __post_init__(self) -> None:
        fill(self)
        object.__setattr__(self, "ops", tuple(self.ops))
        if isinstance(self.pattern, str):
            object.__setattr__(self, "pattern", parse(self.pattern))
        if self.sparsity is not None:
            check_share(self.structure, self.sparsity)
        if self.macs is not None and not self.narrows:
            raise UsageError("macs go with the pattern channel: add it, or give a sparsity")
        if self.macs is not None and self.sparsity is not None:
            raise UsageError("macs and sparsity exclude each other: leave one out")
        if self.macs is not None and not 0 < self.macs <= 1:
            raise UsageError(f"macs {self.macs:g} is outside (0, 1]")
        if self.only_eligible and not isinstance(self.pattern, NM):
            raise UsageError("only-eligible goes with an N:M pattern: add one, such as 2:4")
        if self.channel_multiple < 1:
            raise UsageError(f"channel multiple {self.channel_multiple} is not positive")
        for op in self.ops:
            one_of("operator", op, OPS)
        if not self.ops:
            raise UsageError(f"no operator to prune: choose from {', '.join(OPS)}")
        for name in ("include", "exclude"):
            compiled(name, getattr(self, name))

    @property
    def structure(self) -> Pattern:
        """The pattern within a layer; without one, and where channels go, any weight may."""
        assert not isinstance(self.pattern, str), "parsed at birth"
        if self.only_eligible and isinstance(self.pattern, NM):
            return OnlyEligible(self.pattern)
        return Unstructured() if isinstance(self.pattern, Channel | None) else self.pattern

    @property
    def narrows(self) -> bool:
        """Whether whole channels go."""
        return isinstance(self.pattern, Channel)

    @property
    def macs_left(self) -> float | None:
        """The share of the multiply-accumulates to reach; ``None`` where a sparsity is, or none."""
        if not self.narrows or self.sparsity is not None:
            return None
        return MACS if self.macs is None else self.macs

    @property
    def zeros(self) -> float | None:
        """The sparsity to reach; ``None`` where something else settles it."""
        if not self.chooses_mask or self.macs_left:
            return None
        default = SPARSITY if self.structure.density is None else None
        return default if self.sparsity is None else self.sparsity

    @property
    def amount(self) -> str:
        """The pattern and the sparsity that were asked for, for people."""
        share = "" if self.zeros is None else f"{100 * self.zeros:g} %"
        if self.macs_left:
            share = f"{100 * self.macs_left:g} % of the multiply-accumulates:"
        return " ".join(filter(None, (share, str(self.pattern or "")))) or "as given"

    @property
    def chooses_mask(self) -> bool:
        """Whether a mask is chosen, and not that of a model which is pruned already."""
        return True

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values, for reports."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values |= {"sparsity": self.zeros, "macs": self.macs_left}
        return {name: _plain(value) for name, value in values.items()}


@dataclass(frozen=True)
class RepairOptions(PruneOptions):
    """How the pruned network is repaired; see ``asr_onnx.repair``.

    ``criterion``, ``allocation`` and ``method`` may be functions like those in the tables that
    their names choose from: ``pruning.criteria``, ``maths.densities``, ``maths.scale_rules``.
    What a recipe sets is filled in here: another recipe takes new options, not
    ``dataclasses.replace``.
    """

    recipe: str = option(
        AUTO,
        "A set of other options, each of which still wins by itself.  "
        + "  ".join(f"{name}: {describe(name)}." for name in RECIPES)
        + "  [default: auto, or asr where other options say how to repair]",
        choices=RECIPES,
    )
    criterion: str | Score | Criterion = option(
        "magnitude",
        "  ".join(f"{name}: {criterion.help}." for name, criterion in CRITERIA.items()),
        choices=CRITERIA,
        also=(GIVEN,),
        functions=True,
        records=(Criterion,),
    )
    allocation: str | Density = option(
        None,
        "Under --criterion obs: densities of layers, widths of groups of channels, or what an N:M "
        "pattern spares; error: so that layers lose least, as predicted from one pass of the dense "
        f"network; search: what repairs best: of {', '.join(SEARCHED)} for single weights, of what "
        f"layers and outputs lose for channels.  [default: {BY_ERROR}; {SEARCH} for channels]",
        kind="str",
        choices=DENSITIES,
        functions=True,
    )
    reconstruct: bool = option(
        False, "Re-fit the surviving weights to the dense output.", off="--no-reconstruct"
    )
    method: str | ScaleRule = option("asr", "Scale rule.", choices=SCALE_RULES, functions=True)
    prior: str = option(
        "correlation",
        f"How far to trust a channel's gain: {', '.join(PRIORS)} or fixed:V.",
    )
    one_shot: bool = option(
        False, "Measure every layer before any is repaired.", off="--sequential"
    )
    keep_first: bool = option(False, "Leave the first layer unrepaired.", off="--repair-first")
    bn_stats: str = option(
        "dense",
        "Keep the dense BatchNormalization statistics, or re-estimate them afterwards.",
        choices=BN_STATS,
    )
    bn_momentum: float = option(0.1, "Of --bn-stats ema.")
    bn_batch_size: int = option(128, "Of a re-estimation.")
    bn_batches: int = option(20, "Of --bn-stats ema.")

    precision: str = option(
        FLOAT32,
        "What weights and activations are in the model that is written; float16, or fp16: but for "
        "operators that need float32 on the data; int8: in pairs of "
        "QuantizeLinear and DequantizeLinear, BatchNormalization folded.",
        choices=PRECISIONS,
        words={"fp16": FLOAT16},
    )
    float32_io: bool = option(
        True,
        "Of --precision float16: what the model's inputs and outputs are.",
        off="--float16-io",
    )
    engine: str = option(
        "tensorrt",
        "The engine that --precision int8 is for.",
        choices=ENGINES,
        flag="--for",
    )
    ranges: str = option(
        "mse",
        "Of --precision int8: how far activations reach before they are cut off; mse: with the "
        "least squared error.",
        choices=RANGES,
    )

    _given: ClassVar[Mapping[str, Any]]  # the fields that were given; of each record its own

    def __post_init__(self) -> None:
        spelt_out = any(getattr(self, name) is not None for name in HOW)
        recipe = ("asr" if spelt_out else AUTO) if self.recipe is None else self.recipe
        given = {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        object.__setattr__(self, "_given", given)
        one_of("recipe", recipe, RECIPES)
        object.__setattr__(self, "recipe", recipe)
        fill(self, RECIPES[recipe])
        super().__post_init__()
        if "allocation" not in given:
            object.__setattr__(self, "allocation", SEARCH if self.narrows else BY_ERROR)
        parse_prior(self.prior)
        searches = self.chooses_mask and self.choice.search is not None
        if self.one_shot and (self.reconstruct or searches):
            raise UsageError("one-shot statistics go with scaling: leave out reconstruct and obs")
        if self.weighs_channels and self.choice.search is not CRITERIA["obs"].search:
            raise UsageError(
                f"pattern {self.pattern} weighs channels by obs: a search of single weights of "
                "your own finds none"
            )
        if self.quantizes:
            self._check_quantized()
        if not self.float32_io and not self.halves:
            raise UsageError("float16 inputs and outputs go with precision float16: add it")
        if not 0 < self.bn_momentum <= 1:
            raise UsageError(f"momentum {self.bn_momentum:g} is outside (0, 1]")
        if self.bn_batch_size < 2 or self.bn_batches < 1:
            raise UsageError("re-estimation needs at least one batch of two images")

    def _check_quantized(self) -> None:
        if self.narrows:
            raise UsageError(
                "precision int8 and the pattern channel go one after the other: quantize what "
                "repair with --pattern channel writes"
            )
        if self.one_shot or self.keep_first or self.bn_stats != "dense":
            raise UsageError(
                "precision int8 repairs layer by layer, with BatchNormalization "
                "folded: leave out one-shot, keep-first and bn-stats"
            )

    @property
    def quantizes(self) -> bool:
        """Whether integers take the place of float32."""
        return self.precision == INT8

    @property
    def halves(self) -> bool:
        """Whether float16 takes the place of float32, where it can."""
        return self.precision == FLOAT16

    @property
    def rungs(self) -> tuple[RepairOptions, ...]:
        """What is tried in turn, each with the options that were given; one, but for auto."""
        if self.recipe != AUTO:
            return (self,)
        given: dict[str, Any] = {**self._given}
        names: Sequence[str] = LADDER
        if self.one_shot:  # statistics that nothing else goes with
            names = LADDER[:1]
        elif self.quantizes:  # scaling makes up for little of what rounding does
            names = LADDER[1:]
        found: dict[Any, RepairOptions] = {}
        for name in names:
            rung = RepairOptions(**given | {"recipe": name})
            found.setdefault(str(rung.to_dict() | {"recipe": ""}), rung)
        return tuple(found.values())

    @property
    def choice(self) -> Criterion:
        """What chooses the masks, where they are chosen."""
        return criterion_of(self.criterion)

    @property
    def chooses_mask(self) -> bool:
        return self.criterion != GIVEN

    @property
    def allocates_by_error(self) -> bool:
        """Whether densities, or what stays dense, follow from a pass of the dense network."""
        searches = self.zeros is not None and self.choice.search is not None
        return searches and not self.narrows and self.allocation in (BY_ERROR, SEARCH)

    @property
    def searches_allocation(self) -> bool:
        """Whether it takes repairs to settle how much goes from where."""
        shares = self.weighs_channels or self.allocates_by_error
        return shares and self.allocation == SEARCH

    @property
    def weighs_channels(self) -> bool:
        """Whether the channels that go follow from what a pass of the dense network tells."""
        return self.narrows and self.chooses_mask and self.choice.search is not None

    def in_int8(self) -> RepairOptions:
        """The same with integers."""
        return RepairOptions(**{**self._given, "recipe": self.recipe, "precision": INT8})

    def for_given_mask(self) -> RepairOptions:
        """The same for a model that is pruned already, whose zeros are the mask.

        Raises ``UsageError`` for options that choose a mask.
        """
        plain = replace(RepairOptions(recipe=self.recipe), criterion=self.criterion)
        if self.chooses_mask:
            plain = RepairOptions(recipe=self.recipe)
        mine = {n: getattr(self, n) for n in (*MASK_OPTIONS, "precision")}
        other = [n for n in choosing(mine) if mine[n] != getattr(plain, n)]
        if chosen := [n for n in other if n in self._given]:
            raise UsageError(
                "a model that is pruned already brings its mask along: leave out "
                f"{', '.join(flag(n).lstrip('-') for n in chosen)}"
            )
        return RepairOptions(**{**self._given, "recipe": self.recipe, "criterion": GIVEN})


def choosing(settings: Mapping[str, Any]) -> list[str]:
    """Names of the settings that choose a mask; what int8 leaves out is no matter of the mask."""
    names = [n for n in MASK_OPTIONS if n != "exclude" or settings.get("precision") != INT8]
    return [n for n in names if settings.get(n) is not None]


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: a pattern by its text, a function by its name."""
    if isinstance(value, Pattern | Channel):
        return str(value)
    if callable(value) or isinstance(value, Criterion):
        return getattr(value, "__name__", type(value).__name__)
    return plain(value)


def recipe(name: str, /, **overrides: Any) -> RepairOptions:
    """The options of a recipe, with others in their place where given and not ``None``.

    >>> recipe("best", sparsity=0.8).criterion
    'obs'

    Raises ``UsageError`` for an unknown recipe or option value.
    """
    if unknown := overrides.keys() - {f.name for f in fields(RepairOptions)}:
        raise UsageError(f"a recipe has no option {', '.join(map(repr, sorted(unknown)))}")
    one_of("recipe", name, RECIPES)
    return RepairOptions(recipe=name, **{k: v for k, v in overrides.items() if v is not None})
