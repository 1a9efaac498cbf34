"""Take out of a graph what nothing reads any more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx

from asr_onnx.graph.wiring import reads


def tensors_read(graph: onnx.GraphProto) -> set[str]:
    """What a node of the graph reads, or is its output."""
    return {t for n in graph.node for t in reads(n)} | {o.name for o in graph.output}


def without_idle(graph: onnx.GraphProto, before: set[str]) -> None:
    """Take out nodes and initializers read ``before`` the graph was changed, and not any more.

    What nothing has read before either is none of our business.
    """
    while True:
        read = tensors_read(graph)
        gone = before - read
        nodes = [n for n in graph.node if read & set(n.output) or not gone & set(n.output)]
        if len(nodes) == len(graph.node):
            break
        replace(graph.node, nodes)
    replace(graph.initializer, [t for t in graph.initializer if t.name not in gone])
    replace(graph.input, [i for i in graph.input if i.name not in gone])


def replace(field: Any, values: Iterable[Any]) -> None:
    """Let a repeated field hold other values, which may be its own."""
    kept = list(values)
    del field[:]
    field.extend(kept)
