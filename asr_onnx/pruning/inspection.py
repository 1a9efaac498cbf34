"""What would be pruned and repaired, and what not and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from asr_onnx.displayed import Displayed
from asr_onnx.errors import ModelError
from asr_onnx.graph.channels import find_channels
from asr_onnx.graph.cost import Cost, cost
from asr_onnx.graph.inputs import samples_in
from asr_onnx.graph.product_layers import ProductLayer, has_integers, product_layers
from asr_onnx.graph.records import Site, Skipped
from asr_onnx.graph.shapes import Shapes, macs
from asr_onnx.graph.sites import Survey, nothing_in
from asr_onnx.graph.wiring import Topology
from asr_onnx.pruning.channels import reasons
from asr_onnx.pruning.choose import fixed, left_dense, rows_are_rescaled
from asr_onnx.pruning.eligibility import Eligibility, eligibility_of
from asr_onnx.pruning.patterns import Pattern, Unstructured


@dataclass(frozen=True)
class ChannelGroup:
    """``count`` channels that the same nodes make; ``atoms``: how many can go one by one.

    ``why`` they all stay, empty if they need not.
    """

    made_by: tuple[str, ...]
    read_by: tuple[str, ...]
    count: int
    atoms: int
    why: str


@dataclass(frozen=True)
class Inspection(Displayed):
    """The sites of a model, the nodes left alone, and whether BatchNormalization was folded.

    ``quantised`` are the products whose weights are integers already.  ``cost`` is the whole
    model's, ``macs`` each site's by its name and each such product's by its output, all for one
    sample.  Where channels are asked about, ``groups`` are those that products make; where an
    engine is, ``layers`` are all products, and whether its sparse kernels can take them.
    """

    sites: tuple[Site, ...]
    skipped: tuple[Skipped, ...]
    folded: bool
    cost: Cost
    macs: Mapping[str, int | None]
    groups: tuple[ChannelGroup, ...] = ()
    quantised: tuple[ProductLayer, ...] = ()
    layers: tuple[Eligibility, ...] = ()

    @property
    def weights(self) -> int:
        """Number of weights that can be pruned."""
        return sum(s.weight.value.size for s in self.sites)

    @property
    def zeros(self) -> int:
        """How many of them are zero already."""
        return sum(s.zeros for s in self.sites)


def look_at(
    survey: Survey,
    model: onnx.ModelProto,
    sizes: Mapping[str, Sequence[int | None]] | None = None,
    structure: Pattern | None = None,
    repaired: Sequence[Site] = (),
    ops: Sequence[str] = (),
    engine: str | None = None,
) -> Inspection:
    """What the sites of a model say about pruning it; ``sizes`` of inputs as in ``Shapes.of``.

    ``structure``: what masks would have.  ``ops`` are the operators looked at; where channels that
    they make would go, ``repaired`` are the sites that could be repaired.  ``engine``: whose sparse
    kernels may take the products.
    Raises ``ModelError`` for a model in which there is nothing to look at.
    """
    products = product_layers(model) if engine or has_integers(model) else ()
    layers = eligibility_of(products) if engine else ()
    quantised = tuple(p for p in products if p.quantised)
    if not survey.sites and not quantised and not layers:
        raise ModelError(nothing_in(survey, ops))
    learned = tuple(s for s in survey.sites if not fixed(s))
    left = left_dense(survey.sites, structure or Unstructured())
    folded = rows_are_rescaled(survey.sites)
    try:
        shapes, samples = Shapes.of(model, sizes), samples_in(model, sizes)
    except ModelError:  # nothing can be fed, but there is something to be told
        shapes, samples = Shapes({}, {}), 1
    each = macs(model, shapes)
    told = {s.name: each.get(s.output) for s in learned}
    told |= {p.output: each.get(p.output) for p in products}
    per_sample = {n: None if count is None else round(count / samples) for n, count in told.items()}
    whole = cost(model, shapes, samples)
    groups = tuple(_groups(model, repaired, shapes, ops)) if repaired else ()
    skipped = survey.skipped + left
    return Inspection(learned, skipped, folded, whole, per_sample, groups, quantised, layers)


def _groups(
    model: onnx.ModelProto, sites: Sequence[Site], shapes: Shapes, ops: Sequence[str]
) -> Iterator[ChannelGroup]:
    channels = find_channels(model, shapes)
    by_output = {s.output: s for s in sites}
    topology = Topology(model.graph)

    def names(outputs: Sequence[str]) -> tuple[str, ...]:
        nodes = (topology.nodes[topology.producer[t]] for t in outputs)
        return tuple(n.name or t for n, t in zip(nodes, outputs, strict=True))

    for group, why in reasons(channels, by_output, ops):
        if group.producers:
            made = channels.outputs[group.producers[0]]
            count = int(np.isin(made, group.atoms).sum())
            readers = names((*group.depthwise, *group.consumers))
            yield ChannelGroup(names(group.producers), readers, count, len(group.atoms), why)
