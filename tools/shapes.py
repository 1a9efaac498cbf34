"""Networks of known shapes with random weights, to measure time and memory on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_CLASSES = 1000


class _Builder:
    """Nodes and weights of a network made up as it goes along."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, op: str, inputs: list[str], **attributes: object) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def weight(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def conv(self, x: str, cin: int, cout: int, k: int, stride: int = 1, groups: int = 1) -> str:
        """He-initialised, without a bias."""
        scale = np.sqrt(2 / (cin // groups * k * k))
        w = self.weight(self.rng.standard_normal((cout, cin // groups, k, k)) * scale)
        return self.add(
            "Conv",
            [x, w],
            pads=[k // 2] * 4,
            strides=[stride] * 2,
            kernel_shape=[k, k],
            group=groups,
        )

    def norm(self, x: str, channels: int) -> str:
        ones, zeros = np.ones(channels), np.zeros(channels)
        return self.add(
            "BatchNormalization", [x, *(self.weight(a) for a in (ones, zeros, zeros, ones))]
        )

    def pool(self, x: str) -> str:
        return self.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])

    def model(self, x: str, width: int, name: str, size: int = 224) -> onnx.ModelProto:
        """The network up to ``x``, with pooling and a linear head, for images of a ``size``."""
        x = self.add("Flatten", [self.add("GlobalAveragePool", [x])])
        head = self.weight(self.rng.standard_normal((_CLASSES, width)) * 0.02)
        x = self.add("Gemm", [x, head, self.weight(np.zeros(_CLASSES))], transB=1)
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, size, size])],
            [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["batch", _CLASSES])],
            self.weights,
        )
        opset = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8)


def resnet50(seed: int = 0) -> onnx.ModelProto:
    """He et al. 2015, arXiv 1512.03385, table 1."""
    b = _Builder(seed)
    x = b.pool(b.add("Relu", [b.norm(b.conv("input", 3, 64, 7, 2), 64)]))
    width = 64
    for planes, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(blocks):
            stride = first if number == 0 else 1
            y = b.add("Relu", [b.norm(b.conv(x, width, planes, 1), planes)])
            y = b.add("Relu", [b.norm(b.conv(y, planes, planes, 3, stride), planes)])
            y = b.norm(b.conv(y, planes, planes * 4, 1), planes * 4)
            if number == 0:
                x = b.norm(b.conv(x, width, planes * 4, 1, stride), planes * 4)
            width = planes * 4
            x = b.add("Relu", [b.add("Add", [y, x])])
    return b.model(x, width, "resnet50")


def mobilenetv2(seed: int = 0) -> onnx.ModelProto:
    """Sandler et al. 2018, arXiv 1801.04381, table 2: depthwise convolutions."""
    b = _Builder(seed)
    low, high = b.weight(np.array(0.0)), b.weight(np.array(6.0))

    def relu6(x: str) -> str:
        return b.add("Clip", [x, low, high])

    x, width = relu6(b.norm(b.conv("input", 3, 32, 3, 2), 32)), 32
    for expand, out, blocks, first in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for number in range(blocks):
            stride, wide, y = first if number == 0 else 1, width * expand, x
            if expand > 1:
                y = relu6(b.norm(b.conv(y, width, wide, 1), wide))
            y = relu6(b.norm(b.conv(y, wide, wide, 3, stride, groups=wide), wide))
            y = b.norm(b.conv(y, wide, out, 1), out)
            x = b.add("Add", [x, y]) if stride == 1 and width == out else y
            width = out
    return b.model(relu6(b.norm(b.conv(x, width, 1280, 1), 1280)), 1280, "mobilenetv2")


def densenet121(seed: int = 0) -> onnx.ModelProto:
    """Huang et al. 2016, arXiv 1608.06993, table 1: hundreds of tensors that live long."""
    b, growth = _Builder(seed), 32
    x, width = b.pool(b.add("Relu", [b.norm(b.conv("input", 3, 64, 7, 2), 64)])), 64
    for block, layers in enumerate((6, 12, 24, 16)):
        for _ in range(layers):
            y = b.conv(b.add("Relu", [b.norm(x, width)]), width, 4 * growth, 1)
            y = b.conv(b.add("Relu", [b.norm(y, 4 * growth)]), 4 * growth, growth, 3)
            x, width = b.add("Concat", [x, y], axis=1), width + growth
        x = b.add("Relu", [b.norm(x, width)])
        if block < 3:
            width //= 2
            x = b.conv(x, width * 2, width, 1)
            x = b.add("AveragePool", [x], kernel_shape=[2, 2], strides=[2, 2])
    return b.model(x, width, "densenet121")


def small_resnet(blocks: int, seed: int = 0) -> onnx.ModelProto:
    """He et al. 2015, section 4.2, for images of 32x32: 6 * ``blocks`` + 3 convolutions."""
    b = _Builder(seed)
    x, width = b.add("Relu", [b.norm(b.conv("input", 3, 16, 3), 16)]), 16
    for planes in (16, 32, 64):
        for number in range(blocks):
            stride = 2 if number == 0 and planes > 16 else 1
            y = b.add("Relu", [b.norm(b.conv(x, width, planes, 3, stride), planes)])
            y = b.norm(b.conv(y, planes, planes, 3), planes)
            if stride == 2:
                x = b.norm(b.conv(x, width, planes, 1, stride), planes)
            x, width = b.add("Relu", [b.add("Add", [y, x])]), planes
    return b.model(x, width, f"resnet{6 * blocks + 2}", size=32)


SHAPES: dict[str, Callable[[], onnx.ModelProto]] = {
    "resnet50": resnet50,
    "mobilenetv2": mobilenetv2,
    "densenet121": densenet121,
}
# Twice as deep the second: for how cost grows with depth.
SMALL: dict[str, Callable[[], onnx.ModelProto]] = {
    "resnet20": lambda: small_resnet(3),
    "resnet38": lambda: small_resnet(6),
}
