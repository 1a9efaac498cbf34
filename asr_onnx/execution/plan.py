"""Cut a graph at its sites, so that every node is run once.

A *stage* is some nodes, and the sites they lead to; a *step* is a stage with one site.  The last
has none and leads to the graph's outputs.  Between stages only *live* tensors exist: computed, and
still needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asr_onnx.graph.records import Site
from asr_onnx.graph.wiring import Topology

_COPIES = 4  # of the weights in an open session: masked, packed, and so for two networks
_METADATA = ("Shape", "Size")


@dataclass(frozen=True)
class Stage:
    """Nodes to run, tensors read from and left to other stages, tensors not needed after.

    ``nodes`` lead to ``sites``, which are not among them.  ``steps`` are the stages of one site
    each that a longer one is made of.
    """

    nodes: tuple[int, ...]
    feeds: tuple[str, ...]
    keeps: tuple[str, ...]
    drops: tuple[str, ...]
    sites: tuple[Site, ...]
    steps: tuple[Stage, ...] = ()

    @classmethod
    def of(cls, steps: Sequence[Stage]) -> Stage:
        """Consecutive steps in one."""
        nodes = {i for s in steps for i in s.nodes}
        sites = [site for s in steps for site in s.sites]
        made = {t for s in steps for t in s.keeps} | {site.output for site in sites}
        dropped = {t for s in steps for t in s.drops}
        fed = {t for s in steps for t in s.feeds} - made
        feeds, keeps, drops = (tuple(sorted(p)) for p in (fed, made - dropped, dropped))
        return cls(tuple(sorted(nodes)), feeds, keeps, drops, tuple(sites), tuple(steps))

    @property
    def site(self) -> Site | None:
        """A step's site."""
        return self.sites[0] if self.sites else None


def stages(
    steps: Sequence[Stage], sizes: Mapping[str, int], limit: int, streams: int = 1
) -> list[Stage]:
    """The steps that have a site in stages as long as what they leave in memory allows.

    ``sizes`` in bytes, of every tensor that is kept; one that is not there counts as too large.
    Within ``limit`` bytes fit the outputs and weights of a stage's sites, what the network that
    runs the stage leaves to the next, and what ``streams`` others keep from step to step.
    """
    found: list[list[Stage]] = []
    kept: set[str] = set()
    widest = held = 0

    def size(tensor: str) -> int:
        return sizes.get(tensor, limit + 1)

    for step in steps:
        site = step.site
        if site is None:
            continue
        kept = (kept | {*step.keeps, site.output}) - {*step.drops}
        live = sum(size(t) for t in kept)
        own = size(site.output) + _COPIES * site.weight.value.nbytes
        widest, held = max(widest, live), held + own
        if found and held + live + streams * widest <= limit:
            found[-1].append(step)
        else:
            found.append([step])
            widest, held = live, own
    return [Stage.of(group) for group in found]


def plan(topology: Topology, sites: Sequence[Site]) -> list[Stage]:
    """The steps from the graph's inputs to its outputs, one per site and one for the rest."""
    done = set(topology.inputs)
    outputs_of_sites = {s.output for s in sites}
    groups: list[tuple[Site | None, list[int], set[str]]] = []
    for site in [*sorted(sites, key=lambda s: s.index), None]:
        nodes = topology.ancestors([site.input] if site else topology.outputs, done)
        if site and site.shortcut:
            early = topology.ancestors([site.input, site.shortcut], done)
            if not outputs_of_sites & {t for i in early for t in topology.nodes[i].output}:
                nodes = early  # the shortcut needs no unexecuted site: have it at hand
        made = {t for i in nodes for t in topology.nodes[i].output if t}
        # Reading a shape now is free; later it would keep a whole activation alive.
        for index, node in enumerate(topology.nodes):
            ready = node.op_type in _METADATA and index not in nodes and node.output[0] not in done
            if ready and (node.input[0] in made or node.input[0] in done) and site:
                nodes.append(index)
                made.update(node.output)
        nodes.sort()
        done |= {t for t in made if not topology.is_constant(t)}
        read = {t for i in nodes for t in topology.reads(i)}
        if site:
            read.add(site.input)
            done.add(site.output)
            made.add(site.output)
        groups.append((site, nodes, read))
    return _with_lifetimes(topology, groups)


def _with_lifetimes(
    topology: Topology, groups: list[tuple[Site | None, list[int], set[str]]]
) -> list[Stage]:
    last_read: dict[str, int] = {}
    for number, (_, _, read) in enumerate(groups):
        last_read.update(dict.fromkeys(read, number))
    last_read.update(dict.fromkeys(topology.outputs, len(groups)))
    live = set(topology.inputs)
    steps = []
    for number, (site, nodes, read) in enumerate(groups):
        made = {
            t for i in nodes for t in topology.nodes[i].output if t and not topology.is_constant(t)
        }
        feeds = read & live - made
        keeps = {t for t in made if site and last_read.get(t, -1) > number}
        live |= keeps | ({site.input, site.output} if site else set())
        drops = {t for t in live if last_read.get(t, -1) <= number}
        live -= drops
        fed, left, gone = (tuple(sorted(s)) for s in (feeds, keeps, drops))
        steps.append(Stage(tuple(nodes), fed, left, gone, (site,) if site else ()))
    return steps
