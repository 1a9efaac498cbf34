"""Which channels go: the groups a network can lose some of, how wide each stays, and the masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
import onnx

from asr_onnx.arrays import FloatArray, IntArray, Mask
from asr_onnx.errors import UsageError
from asr_onnx.graph.channels import Channels, Group, find_channels
from asr_onnx.graph.records import Site, Skipped
from asr_onnx.graph.rows import from_rows, to_rows
from asr_onnx.graph.shapes import Shapes, macs
from asr_onnx.maths.channel_removal import Removal, by_scores
from asr_onnx.maths.widths import Costs, allocate
from asr_onnx.pruning.choose import excluded, fixed, named, rows_are_rescaled, site_scores
from asr_onnx.pruning.criteria import Score


@dataclass(frozen=True)
class Width:
    """A group before and after: the nodes that make it, its channels, and how many are left."""

    producers: tuple[str, ...]
    before: int
    after: int


@dataclass(frozen=True)
class Narrowing:
    """What of a model may become narrower, and what the rest of the run needs to know of it.

    ``sites`` by their output; ``groups`` are those of the ``channels`` that may lose some, and
    ``skipped`` says why others do not.  ``costs`` are multiply-accumulates for one sample, ``None``
    where sizes are open, and ``weights`` the numbers of weights.
    """

    channels: Channels
    sites: Mapping[str, Site]
    groups: tuple[Group, ...]
    skipped: tuple[Skipped, ...]
    costs: Costs | None
    weights: Costs

    @classmethod
    def of(
        cls,
        model: onnx.ModelProto,
        sites: Sequence[Site],
        sizes: Mapping[str, Sequence[int]],
        ops: Sequence[str],
        include: str | None = None,
        exclude: str | None = None,
    ) -> Narrowing:
        """Of a model whose ``sites`` can be repaired, for inputs of some ``sizes`` by name.

        Channels that the operators ``ops`` make, and that nothing left out by ``include`` and
        ``exclude`` makes or reads; see ``choose.prunable``.  Raises ``UsageError`` if none may go.
        """
        shapes = Shapes.of(model, sizes)
        channels = find_channels(model, shapes)
        by_output = {s.output: s for s in sites}
        groups, skipped = [], []
        for group, why in reasons(channels, by_output, ops, include, exclude):
            if not why:
                groups.append(group)
            elif group.producers:
                labels = (by_output[p].label if p in by_output else p for p in group.producers)
                skipped.append(Skipped(", ".join(labels), "channels", why))
        if not groups:
            reason = f" ({skipped[0].name}: {skipped[0].reason})" if skipped else ""
            raise UsageError(f"no channel of the model can be removed{reason}")
        products = macs(model, shapes)
        told = {name: m for name, m in products.items() if m is not None}
        sizes_of = {name: s.weight.value.size for name, s in by_output.items()}
        return cls(
            channels,
            by_output,
            tuple(groups),
            tuple(skipped),
            _costs(told, channels, groups) if len(told) == len(products) else None,
            _costs(sizes_of, channels, groups),
        )

    def places(self, site: Site, group: Group) -> list[IntArray]:
        """Where each of a group's atoms lies among the K of a site's rows."""
        ids = self.channels.inputs[site.output]
        inputs = ids.size // site.groups
        k = to_rows(site, site.weight.value).shape[2]
        position = np.arange(0, k, inputs)[:, None]
        return [(position + np.flatnonzero(ids[:inputs] == a)).reshape(-1) for a in group.atoms]

    def read_by(self, site: Site) -> list[tuple[int, list[IntArray]]]:
        """The groups that a site reads, by their number, with their atoms' places in it."""
        reading = ((n, g) for n, g in enumerate(self.groups) if site.output in g.consumers)
        return [(n, self.places(site, g)) for n, g in reading]

    def by_score(self, score: Score, row_scale: str) -> list[Removal]:
        """Removals of each group by the squares of single weights' scores."""
        sites = list(self.sites.values())
        normalize = rows_are_rescaled(sites) if row_scale == "auto" else row_scale == "normalize"
        found: list[list[FloatArray]] = [[] for _ in self.groups]
        for site in sites:
            reads = self.read_by(site)
            if not reads:
                continue
            scores = to_rows(site, np.square(site_scores(site, score, normalize)))
            each = np.asarray(scores.sum(axis=(0, 1)), np.float64)  # (K,)
            for number, places in reads:
                atoms = np.array([each[at].sum() for at in places])
                found[number].append(np.append(atoms, max(0.0, each.sum() - atoms.sum())))
        return [by_scores(scores) for scores in found]

    def gone(
        self,
        removals: Sequence[Removal],
        macs_left: float | None,
        sparsity: float | None,
        multiple: int,
    ) -> frozenset[int]:
        """The atoms that go, for a share of multiply-accumulates that stays, or of weights that go.

        Raises ``UsageError`` where that cannot be reached, or sizes are open.
        """
        costs, share = self.weights, 1 - (sparsity or 0.0)
        if macs_left is not None:
            if self.costs is None:
                raise UsageError(
                    "multiply-accumulates cannot be told for inputs of open size: give a sparsity "
                    "instead of macs, or export the model with fixed sizes"
                )
            costs, share = self.costs, macs_left
        sizes = np.array([len(g.atoms) for g in self.groups])
        spared = zip(removals, self._parts(), strict=True)
        orders = [removal.sparing(parts) for removal, parts in spared]
        losses = [
            np.append(r.costs, np.full(size - r.order.size, np.inf))
            for r, size in zip(orders, sizes, strict=True)
        ]
        steps = [self._step(g, multiple) for g in self.groups]
        kept = allocate(losses, costs, share * costs(sizes), steps)
        return frozenset(
            g.atoms[i]
            for g, r, n in zip(self.groups, orders, sizes - kept, strict=True)
            for i in r.order[:n].tolist()
        )

    def _parts(self) -> list[list[IntArray]]:
        """Of each group the parts of which one atom has to stay: the whole of a tensor elsewhere.

        A slice of a wide tensor, for one, whose channels are all of a group but not all it has.
        """
        owner = {a: (n, i) for n, g in enumerate(self.groups) for i, a in enumerate(g.atoms)}
        parts: list[list[IntArray]] = [[] for _ in self.groups]
        for labels in self.channels.tensors.values():
            atoms = np.unique(labels.ids).tolist()
            if not all(a in owner for a in atoms):
                continue  # one stays anyway
            number = owner[atoms[0]][0]
            part = [i for n, i in (owner[a] for a in atoms) if n == number]
            parts[number].append(np.array(part))
        return parts

    def _step(self, group: Group, multiple: int) -> int:
        """Atoms whose channels are a multiple of ``multiple`` in each node that makes them."""
        ids = self.channels.outputs[group.producers[0]]
        each = int(np.count_nonzero(ids == group.atoms[0]))
        return multiple // gcd(multiple, max(each, 1))

    def stays(self, site: Site, gone: frozenset[int]) -> Mask:
        """Which of a site's output channels (C,) are not among the atoms that go."""
        name = site.output
        made = self.channels.outputs.get(name, self.channels.depthwise.get(name))
        whole = np.ones(site.channels, bool)
        return whole if made is None else np.asarray(~np.isin(made, sorted(gone)))

    def masks(self, gone: frozenset[int]) -> dict[str, Mask]:
        """Masks by site name, in the weight's shape, of those sites that make or read the atoms."""
        atoms = np.array(sorted(gone), np.int64)
        found = {}
        for output, site in self.sites.items():
            mask = np.ones(to_rows(site, site.weight.value).shape, bool)
            read = self.channels.inputs.get(output)
            mask[~self.stays(site, gone).reshape(mask.shape[:2])] = False
            if read is not None:
                inputs = read.size // site.groups
                dropped = np.isin(read[:inputs], atoms)
                mask.reshape(*mask.shape[:2], -1, inputs)[..., dropped] = False
            if not mask.all():
                found[site.name] = from_rows(site, mask)
        return found

    def widths(self, gone: frozenset[int]) -> tuple[Width, ...]:
        """What becomes of each group."""
        return tuple(
            Width(
                tuple(self.sites[p].label for p in g.producers),
                len(g.atoms),
                len(g.atoms) - len(gone.intersection(g.atoms)),
            )
            for g in self.groups
        )


def reasons(
    channels: Channels,
    sites: Mapping[str, Site],
    ops: Sequence[str],
    include: str | None = None,
    exclude: str | None = None,
) -> list[tuple[Group, str]]:
    """All groups, and why each stays whole under some options; empty if it need not.

    ``sites``, by their output, are those that can be repaired.
    """
    return [(g, g.reason or _kept(g, sites, ops, include, exclude)) for g in channels.groups]


def _kept(
    group: Group,
    sites: Mapping[str, Site],
    ops: Sequence[str],
    include: str | None,
    exclude: str | None,
) -> str:
    """Why a group stays whole under some options; empty if it need not."""
    if not group.producers:
        return "no weight makes them"
    if not group.consumers:
        return "no weight reads them"
    for name in (*group.producers, *group.consumers, *group.depthwise):
        if name in sites and excluded(sites[name], exclude):
            return f"'{sites[name].label}' is excluded"
        if name not in sites and name not in group.depthwise:
            return f"'{name}' cannot be repaired"
    for name in group.producers:
        site = sites[name]
        if site.op not in ops or not named("include", include, site):
            return f"'{site.label}' is not to be pruned"
        if include is None and (why := fixed(site)):
            return f"'{site.label}' {why}"
    return ""


def _costs(products: Mapping[str, int], channels: Channels, groups: Sequence[Group]) -> Costs:
    """What products cost, by the atoms that stay; those without a constant weight always do."""

    def counted(ids: IntArray | None) -> FloatArray:
        """Channels for each atom of the groups and, last, those of no group."""
        if ids is None:
            return np.array([0.0] * len(groups) + [1.0])
        each = [float(np.isin(ids, g.atoms).sum()) for g in groups]
        shares = [n / len(g.atoms) for n, g in zip(each, groups, strict=True)]
        return np.array([*shares, ids.size - sum(each)])

    reads, makes, unit = [], [], []
    for name, cost in products.items():
        read = channels.inputs.get(name)
        made = channels.outputs.get(name, channels.depthwise.get(name))
        reads.append(counted(read))
        makes.append(counted(made))
        unit.append(
            cost / ((1 if read is None else read.size) * (1 if made is None else made.size))
        )
    return Costs(np.array(unit), np.array(reads), np.array(makes))
