"""Random small CNNs, drawn by Hypothesis: what exporters write, wired in all the ways they may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from models import Array
from numpy.typing import ArrayLike
from onnx import helper, numpy_helper

WIDEST = 16  # channels, after a few Concats


@dataclass(frozen=True)
class Map:
    """A feature map (N, channels, *size) and the tensor's name."""

    name: str
    channels: int
    size: tuple[int, ...]


@dataclass(frozen=True)
class Network:
    """A model with one input ``x``, and samples for it."""

    model: onnx.ModelProto
    x: Array

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """The nodes, for Hypothesis; weights would fill screens."""
        nodes = (onnx.helper.printable_node(node) for node in self.model.graph.node)
        printer.text("\n".join([f"x: {self.x.dtype}{list(self.x.shape)}", *nodes]))


@st.composite
def networks(draw: Callable[..., Any]) -> Network:
    """Three to eight layers on images of 4 channels and 5 to 9 steps along 1, 2 or 3 axes."""
    return Writer(draw).network()


class Writer:
    """Nodes and initializers of a network made up as it goes along."""

    most_steps = 6
    most_outputs = 2  # besides the last map

    def __init__(self, draw: Callable[..., Any]) -> None:
        self._draw = draw
        self._rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self._dtype = np.dtype(draw(st.sampled_from(["float32", "float32", "float16"])))
        self._numbers = count()
        self._nodes: list[onnx.NodeProto] = []
        self._stored: dict[str, Array] = {}
        self._weights: dict[tuple[int, ...], str] = {}  # of convolutions by shape, to be shared
        self._biases: dict[int, str] = {}  # by channels, to be shared
        self._norms: dict[int, list[str]] = {}  # parameters by channels, to be shared
        dims = draw(st.integers(1, 3))
        size = tuple(draw(st.integers(5, 9 if dims < 3 else 6)) for _ in range(dims))
        self._maps = [Map("x", 4, size)]

    def network(self) -> Network:
        steps = st.sampled_from([*[self.conv] * 4, *self.others()])
        self.conv()
        for step in self._draw(st.lists(steps, min_size=1, max_size=self.most_steps)):
            step()
        self.finish()
        x, last = self._maps[0], self._maps[-1]
        more = self._draw(st.lists(st.sampled_from(self._maps[1:]), max_size=self.most_outputs))
        shapes = {t.name: (t.channels, *t.size) for t in (last, *more)}
        if self._chance(2):
            shapes |= self.head(last)
        kind = helper.np_dtype_to_tensor_dtype(self._dtype)
        batch, count, opset = (
            self._draw(st.sampled_from(choices)) for choices in (["N", 4], [8, 16], [14, 17, 20])
        )
        graph = helper.make_graph(
            self._nodes,
            "random",
            [helper.make_tensor_value_info("x", kind, [batch, x.channels, *x.size])],
            [helper.make_tensor_value_info(n, kind, [batch, *s]) for n, s in shapes.items()],
            [self._tensor(name, value) for name, value in self._stored.items()],
            doc_string="a graph",
        )
        header = {"opset_imports": [helper.make_opsetid("", opset)], "ir_version": 8}
        model = helper.make_model(graph, **header)
        helper.set_model_props(model, {"author": "chance"})
        samples = self._rng.normal(0.3, 1, (count, x.channels, *x.size))
        return Network(model, samples.astype(self._dtype))

    def others(self) -> list[Callable[[], None]]:
        """What may stand between convolutions."""
        return [self.norm, self.act, self.add, self.concat, self.pool, self.branch, self.up]

    def finish(self) -> None:
        """What stands behind all steps."""

    # Layers

    def conv(self) -> None:
        x = self._pick()
        groups = self._draw(
            st.sampled_from([g for g in (1, 1, 2, x.channels) if x.channels % g == 0])
        )
        channels = groups * self._draw(st.integers(1, max(1, 8 // groups)))
        kernel = [self._draw(st.integers(1, 3)) for _ in x.size]
        dilations = [self._draw(st.integers(1, 2)) for _ in x.size]
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        padded = any(span > n for span, n in zip(spans, x.size, strict=True)) or self._chance(2)
        pads = [span // 2 * padded for span in spans]
        strides = [self._draw(st.integers(1, 2)) for _ in x.size]
        size = tuple(
            (n + 2 * p - span) // s + 1
            for n, p, span, s in zip(x.size, pads, spans, strides, strict=True)
        )
        inputs = [x.name, self._weight((channels, x.channels // groups, *kernel))]
        inputs += self._bias(channels)
        window = {"dilations": dilations, "strides": strides, "pads": pads * 2, "group": groups}
        self._push("Conv", inputs, channels, size, **window)
        behind = [[], [self.norm], [self.act], [self.norm, self.act]]
        for layer in self._draw(st.sampled_from(behind)):
            layer(self._maps[-1])

    def up(self) -> None:
        """A transposed convolution that doubles the size."""
        x = self._pick(lambda t: max(t.size) < 6)
        if max(x.size) >= 6:
            return
        groups = self._draw(st.sampled_from([g for g in (1, 2) if x.channels % g == 0]))
        size, wide = tuple(2 * n for n in x.size), self._draw(st.integers(1, 4))
        inputs = [x.name, self._weight((x.channels, wide, *[2] * len(size)))]
        inputs += self._bias(groups * wide)
        strides = [2] * len(size)
        self._push("ConvTranspose", inputs, groups * wide, size, strides=strides, group=groups)

    def norm(self, x: Map | None = None) -> None:
        x, rng = x or self._pick(), self._rng
        names = self._norms.get(x.channels)
        if names is None or not self._chance(4):
            values = [rng.uniform(0.5, 1.5, x.channels), rng.normal(size=x.channels)]
            values += [rng.normal(size=x.channels), rng.uniform(0.5, 2, x.channels)]
            names = self._norms[x.channels] = [self._constant(v) for v in values]
        self._push("BatchNormalization", [x.name, *names], x.channels, x.size, epsilon=1e-3)

    def act(self, x: Map | None = None) -> None:
        x = x or self._pick()
        op = self._draw(st.sampled_from(["Relu", "LeakyRelu", "HardSwish", "Clip", "SiLU", "Tanh"]))
        if op == "SiLU":
            gate = self._node("Sigmoid", [x.name])
            self._push("Mul", [x.name, gate], x.channels, x.size)
        else:
            more = [self._constant(0.0), self._constant(6.0)] if op == "Clip" else []
            self._push(op, [x.name, *more], x.channels, x.size)

    def add(self) -> None:
        x = self._pick()
        y = self._pick(lambda t: (t.channels, t.size) == (x.channels, x.size))
        self._push("Add", [x.name, y.name], x.channels, x.size)

    def concat(self) -> None:
        x = self._pick()
        y = self._pick(lambda t: t.size == x.size)
        if x.channels + y.channels <= WIDEST:
            self._push("Concat", [x.name, y.name], x.channels + y.channels, x.size, axis=1)

    def pool(self) -> None:
        x, op = self._pick(), self._draw(st.sampled_from(["MaxPool", "AveragePool"]))
        size = tuple(-(-n // 2) for n in x.size)
        shape = {"kernel_shape": [3] * len(size), "strides": [2] * len(size)}
        self._push(op, [x.name], x.channels, size, pads=[1] * 2 * len(size), **shape)

    def branch(self) -> None:
        """An ``If`` with a convolution in one of its bodies."""
        x, (then, other) = self._pick(), (self._fresh(), self._fresh())
        weight = self._constant(self._normal(x.channels, x.channels, *[1] * len(x.size)))
        bodies = {
            f"{side}_branch": helper.make_graph(
                [node], side, [], [helper.make_empty_tensor_value_info(node.output[0])]
            )
            for side, node in (
                ("then", helper.make_node("Conv", [x.name, weight], [then])),
                ("else", helper.make_node("Identity", [x.name], [other])),
            )
        }
        condition = self._store(np.bool_(self._chance(2)))
        self._push("If", [condition], x.channels, x.size, **bodies)

    def head(self, x: Map) -> dict[str, tuple[int, ...]]:
        """Logits of the map; their name and shape."""
        pooled = self._chance(2)
        width = x.channels * (1 if pooled else int(np.prod(x.size)))
        flat = self._node(
            "Flatten", [self._node("GlobalAveragePool", [x.name]) if pooled else x.name]
        )
        weight, bias = self._normal(width, 5), self._normal(5)
        if self._chance(2):
            product = self._node("MatMul", [flat, self._store(weight)])
            return {self._node("Add", [product, self._store(bias)]): (5,)}
        turned = self._chance(2)
        stored = self._store(weight.T if turned else weight)
        return {self._node("Gemm", [flat, stored, self._store(bias)], transB=int(turned)): (5,)}

    # Constants

    def _weight(self, shape: tuple[int, ...]) -> str:
        """A weight of a convolution, stored in one of the ways exporters store them."""
        value = self._normal(*shape)
        kinds = ["plain", "Constant", "Identity", "Transpose", "Reshape", "shared"]
        kinds += ["Cast"] if self._dtype == np.float16 else []
        kind = self._draw(st.sampled_from(kinds))
        if kind == "shared" and shape in self._weights:
            return self._weights[shape]
        if kind == "Constant":
            name = self._node("Constant", [], value=numpy_helper.from_array(value))
        elif kind == "Identity":
            name = self._node("Identity", [self._store(value)])
        elif kind == "Transpose":
            name = self._node("Transpose", [self._store(np.ascontiguousarray(value.T))])
        elif kind == "Reshape":
            flat, to = self._store(value.ravel()), self._store(np.array(shape, np.int64))
            name = self._node("Reshape", [flat, to])
        elif kind == "Cast":
            kind = helper.np_dtype_to_tensor_dtype(self._dtype)
            name = self._node("Cast", [self._store(value.astype(np.float32))], to=kind)
        else:
            name = self._store(value)
        self._weights[shape] = name
        return name

    def _bias(self, channels: int) -> list[str]:
        """The third input of a convolution, if it has one."""
        kind = self._draw(st.sampled_from(["none", "own", "shared", "left out"]))
        if kind in ("none", "left out"):
            return [""] if kind == "left out" else []
        if kind == "own" or channels not in self._biases:
            self._biases[channels] = self._constant(0.3 * self._rng.standard_normal(channels))
        return [self._biases[channels]]

    def _constant(self, value: ArrayLike) -> str:
        """A small parameter of the network's element type, as an initializer or a ``Constant``."""
        array = np.asarray(value, self._dtype)
        if self._chance(4):
            return self._node("Constant", [], value=numpy_helper.from_array(array))
        return self._store(array)

    def _normal(self, *shape: int) -> Array:
        """Weights that keep the scale of what goes through them."""
        fan_in = int(np.prod(shape[1:])) or 1
        return (self._rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(self._dtype)

    def _store(self, value: ArrayLike) -> str:
        name = f"p{len(self._stored)}"
        self._stored[name] = np.asarray(value)
        return name

    def _tensor(self, name: str, value: Array) -> onnx.TensorProto:
        """The initializer; its numbers in the typed field or as raw bytes."""
        if value.dtype == np.float32 and self._chance(3):
            return helper.make_tensor(name, onnx.TensorProto.FLOAT, value.shape, value.ravel())
        return numpy_helper.from_array(value, name)

    # Wiring

    def _chance(self, sides: int) -> bool:
        return self._draw(st.integers(0, sides - 1)) == 1

    def _pick(self, wanted: Callable[[Map], bool] = lambda _: True) -> Map:
        """A map, the newest more often than others."""
        found = [t for t in self._maps if wanted(t)] or self._maps
        return found[-1] if self._chance(2) else self._draw(st.sampled_from(found))

    def _fresh(self) -> str:
        return f"t{next(self._numbers)}"

    def _node(self, op: str, inputs: list[str], **attributes: object) -> str:
        output = self._fresh()
        name = self._draw(st.sampled_from(["", f"{op}/{output}"]))
        self._nodes.append(helper.make_node(op, inputs, [output], name, **attributes))
        return output

    def _push(
        self, op: str, inputs: list[str], channels: int, size: tuple[int, ...], **more: object
    ) -> None:
        self._maps.append(Map(self._node(op, inputs, **more), channels, size))
