"""Where 2:4 can pay in TensorRT: which layers its sparse INT8 kernels could take, and why not.

What the sources say, with versions and dates, is in docs/engines.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from asr_onnx.arrays import FloatArray, Mask
from asr_onnx.declare import fill, option
from asr_onnx.graph.operators import OPERATORS
from asr_onnx.graph.product_layers import FOUR, ProductLayer, product_layers
from asr_onnx.graph.records import Site
from asr_onnx.graph.rows import kernel_size
from asr_onnx.pruning.patterns import NM

ENGINES = ("tensorrt",)  # that have sparse kernels a layer could be eligible for

# Input and output channels from which sparse kernels are faster: "if C and K are large enough
# (>256)", where a "3x3 Conv effectively increases the C by 9x" (NVIDIA/TensorRT #3849, 2024-05).
WIDE = 256


@dataclass(frozen=True)
class EngineOptions:
    """What a model is looked at for."""

    engine: str | None = option(
        None,
        "Tell of each product whether this engine's sparse INT8 kernels can take it, why not, and "
        "the commands that build and check.",
        kind="text",
        choices=ENGINES,
    )

    def __post_init__(self) -> None:
        fill(self)


@dataclass(frozen=True)
class Eligibility:
    """A layer, why it cannot be eligible (``lasting``), and what it still lacks (``missing``)."""

    layer: ProductLayer
    lasting: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def eligible(self) -> bool:
        """Whether it can use sparse INT8 kernels as it is."""
        return not self.lasting and not self.missing

    @property
    def could(self) -> bool:
        """Whether it can, or could with 2:4 and in INT8."""
        return not self.lasting

    @property
    def why(self) -> str:
        """All that speaks against it, as a phrase; empty if it is eligible."""
        return "; ".join((*self.lasting, *self.missing))


def eligibility(model: onnx.ModelProto) -> tuple[Eligibility, ...]:
    """Of all products with a constant weight, in execution order."""
    return eligibility_of(product_layers(model))


def eligibility_of(layers: Sequence[ProductLayer]) -> tuple[Eligibility, ...]:
    """Of the layers, in their order."""
    return tuple(_of(layer) for layer in layers)


def _of(layer: ProductLayer) -> Eligibility:
    lasting = _shape(layer.op, layer.groups, layer.inputs, layer.positions, layer.channels)
    missing = []
    if layer.crowded:
        missing.append(f"not 2:4 in {layer.crowded:,} of {layer.fours:,} groups of four")
    if precision := _precision(layer):
        missing.append(precision)
    return Eligibility(layer, lasting, tuple(missing))


def _shape(op: str, groups: int, inputs: int, positions: int, channels: int) -> tuple[str, ...]:
    """What no pruning and no rounding changes."""
    if op not in OPERATORS:
        return (f"{op}: TensorRT reads integers from Q/DQ pairs",)
    if op == "ConvTranspose":
        return (op,)
    if groups > 1:
        return ("depthwise" if inputs == 1 else f"{groups} groups",)
    found = []
    if inputs % FOUR:
        found.append(f"{inputs} input channels, no multiple of {FOUR}")
    times = f"×{positions}" if positions > 1 else ""
    ends = {f"{inputs}{times} in": inputs * positions, f"{channels} out": channels}
    if narrow := [end for end, width in ends.items() if width < WIDE]:
        found.append(f"narrow ({', '.join(narrow)}, below {WIDE})")
    return tuple(found)


def _precision(layer: ProductLayer) -> str:
    """What the layer lacks to be INT8 inside, in front and behind; empty if nothing."""
    kinds = (layer.stored, layer.reads, layer.makes)
    if not any(kinds[1:]) and not layer.quantised:
        half = " (sparse kernels of half precision at most)" if layer.stored == "float16" else ""
        return f"{layer.stored}{half}, not int8"
    if other := next((k for k in kinds if k not in ("", "int8") and not k.startswith("float")), ""):
        return f"{other}: TensorRT takes symmetric int8"
    if not layer.quantised:
        return f"its weight is {layer.stored}"
    if not layer.reads:
        return "its input is not int8"
    return "" if layer.makes else "int8 in, but not out"


@dataclass(frozen=True)
class OnlyEligible:
    """An N:M pattern for layers alone that are wide enough for it to pay; the others stay dense."""

    pattern: NM

    def __str__(self) -> str:
        return str(self.pattern)

    @property
    def density(self) -> float:
        return self.pattern.density

    def feasible(self, site: Site) -> str | None:
        positions = kernel_size(site)
        inputs = site.weight.value.size // site.channels // positions
        why = _shape(site.op, site.groups, inputs, positions, site.channels)
        if why:
            return f"{'; '.join(why)}: stays dense, as only-eligible asks"
        return self.pattern.feasible(site)

    def mask(self, scores: FloatArray, keep: int) -> Mask:
        return self.pattern.mask(scores, keep)
