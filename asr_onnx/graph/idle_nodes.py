"""Take out of a graph what nothing reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx

from asr_onnx.graph.wiring import reads


def without_idle(graph: onnx.GraphProto) -> None:
    """Take out nodes and initializers that lead to no output; the graph is changed."""
    while True:
        read = {t for n in graph.node for t in reads(n)} | {o.name for o in graph.output}
        nodes = [n for n in graph.node if read.intersection(n.output)]
        if len(nodes) == len(graph.node):
            break
        replace(graph.node, nodes)
    gone = {t.name for t in graph.initializer} - read
    replace(graph.initializer, [t for t in graph.initializer if t.name not in gone])
    replace(graph.input, [i for i in graph.input if i.name not in gone])


def replace(field: Any, values: Iterable[Any]) -> None:
    """Let a repeated field hold other values, which may be its own."""
    kept = list(values)
    del field[:]
    field.extend(kept)
