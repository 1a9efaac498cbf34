"""Remove what does nothing, exactly: the narrower model's outputs are those of the one given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from asr_onnx.arrays import Feeds, FloatArray, Outputs
from asr_onnx.displayed import Displayed
from asr_onnx.errors import AsrError, CalibrationError
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph.channels import Channels, find_channels
from asr_onnx.graph.cost import Cost, cost_of
from asr_onnx.graph.cut import Network
from asr_onnx.graph.fold import fold
from asr_onnx.graph.idle import bias_change, find_idle, passes_on, steady_atoms, values_of
from asr_onnx.graph.model_file import apply
from asr_onnx.graph.narrow import narrow, sparing
from asr_onnx.graph.records import Patch, Site
from asr_onnx.graph.shapes import Shapes
from asr_onnx.graph.sites import find_sites
from asr_onnx.options import OPS
from asr_onnx.pruning.channels import Width
from asr_onnx.repairing.self_check import SAME, require_same


@dataclass(frozen=True)
class Compacted(Displayed):
    """The narrower model, and what became of each product that makes fewer channels now.

    ``held``: channels that are the same for all data and stay, as no bias can do what they do.
    Costs are per sample, of the model before and of this one.
    """

    model: onnx.ModelProto
    widths: tuple[Width, ...]
    held: int
    cost_before: Cost
    cost: Cost

    @property
    def removed(self) -> int:
        """Channels that went, counted where they were made."""
        return sum(w.before - w.after for w in self.widths)


def compacted(
    model: onnx.ModelProto, feeds: Feeds, device: Device, of: str = "the data"
) -> Compacted:
    """The model without its idle channels; ``feeds`` tell what constant ones are, and check it.

    What a channel that is the same for all data adds to the products that read it goes into their
    biases.  Removing channels can leave others idle, so this goes on until none is.
    Raises ``ModelError`` when the model cannot be run, and if the result differed by more than
    rounding; ``CalibrationError`` when it makes NaN of the feeds, which are ``of`` some kind.
    """
    sizes = {name: array.shape for name, array in feeds.items()}
    narrower = model
    while True:
        sites = tuple(_makers(narrower).values())
        channels = find_channels(narrower, Shapes.of(narrower, sizes))
        gone, changes, held = _leaving(narrower, channels, sites, feeds, device)
        if not gone:
            break
        patch = Patch()
        for site in (s for s in sites if s.output in changes):
            patch |= fold(site, site.weight.value, changes[site.output])
        narrower = apply(narrower, patch)
        again = find_channels(narrower, channels.shapes)  # there are new biases
        assert again.groups == channels.groups, "no weight changes its shape"
        narrower = narrow(narrower, again, gone)
    if narrower is not model:
        expected = Runner(model, device, once=True).run(feeds)
        _require_numbers(expected, of)
        final = Runner(narrower, device, once=True).run(feeds)
        require_same(expected, final, "that of the model given", SAME, alike=True)
    before, after = _makers(model), _makers(narrower)
    widths = (
        Width((site.label,), site.channels, after[output].channels)
        for output, site in before.items()
        if after[output].channels != site.channels
    )
    costs = cost_of(model, sizes), cost_of(narrower, sizes)
    return Compacted(narrower, tuple(widths), held, *costs)


def idle_channels(model: onnx.ModelProto, feeds: Feeds, device: Device) -> int:
    """How many channels ``compacted`` would remove at the least, counted where they are made.

    0 where that cannot be told.
    """
    sizes = {name: array.shape for name, array in feeds.items()}
    try:
        sites = tuple(_makers(model).values())
        channels = find_channels(model, Shapes.of(model, sizes))
        gone, *_ = _leaving(model, channels, sites, feeds, device)
    except AsrError:  # a remark is no reason to lose the repair it is about
        return 0
    return sum(int(np.isin(ids, sorted(gone)).sum()) for ids in channels.outputs.values())


def _require_numbers(outputs: Outputs, of: str) -> None:
    for name, value in outputs.items():
        if np.asarray(value).dtype.kind == "f" and np.isnan(value).any():
            raise CalibrationError(
                f"output '{name}' of the model is NaN on {of}: give --calib, samples like those in "
                "use"
            )


def _makers(model: onnx.ModelProto) -> dict[str, Site]:
    """All products whose weight can be written, by their output."""
    return {s.output: s for s in find_sites(model, OPS).sites}


def _leaving(
    model: onnx.ModelProto,
    channels: Channels,
    sites: Sequence[Site],
    feeds: Feeds,
    device: Device,
) -> tuple[set[int], dict[str, FloatArray], int]:
    """Atoms that go, what that adds to the outputs of products, and how many are held."""
    known = _values(model, channels, sites, feeds, device)
    idle = find_idle(model, channels, sites, known)
    network = Network.of(model)
    free = {
        atom
        for atom, readers in idle.steady.items()
        if all(
            passes_on(network.topology.nodes[s.index], s, value)
            for s in readers
            for value in known[s.input][channels.tensors[s.input].ids == atom]
        )
    }
    gone = sparing(channels, free | idle.unread)
    changes: dict[str, FloatArray] = {}
    for site in {s.output: s for a in gone & free for s in idle.steady[a]}.values():
        # What it has no weights for may have any values.
        read = [a for a in gone & free if site.output in {s.output for s in idle.steady[a]}]
        going = np.isin(channels.tensors[site.input].ids, sorted(read))
        change = bias_change(site, np.where(going, known[site.input], 0.0))
        if change.any():
            changes[site.output] = change
    return gone, changes, len(idle.steady) - len(free)


def _values(
    model: onnx.ModelProto,
    channels: Channels,
    sites: Sequence[Site],
    feeds: Feeds,
    device: Device,
) -> dict[str, FloatArray]:
    """By tensor with steady atoms its channels' values, NaN where they vary."""
    wanted = sorted(t for t, atoms in steady_atoms(model, channels, sites).items() if atoms)
    if not wanted:
        return {}
    network = Network.of(model)
    segment = network.segment(network.topology.ancestors(wanted, set()), wanted, feeds)
    assert segment, "labelled tensors are computed"
    found = Runner(segment.model, device, wanted, weights=segment.weights, once=True).run(feeds)
    return {t: values_of(array, channels.tensors[t]) for t, array in found.items()}
