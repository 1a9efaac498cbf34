"""Train the sample model and write it, with its sample images, to ``sample_models/``.

A small CIFAR-style ResNet learns scikit-learn's bundled handwritten digits, upsampled to 32x32.
It is exported twice: with its BatchNormalization nodes kept, and with them folded into the
convolutions. Run it from the repository root::

    pip install -r tools/requirements-train.txt
    python tools/train_sample_model.py
"""

from __future__ import annotations

import argparse
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx.reference import ReferenceEvaluator
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

IMAGE_SIZE = 32
TEST_COUNT = 500
CALIB_COUNT = 512
# asr-onnx's default for one-channel models: the mean of the ImageNet RGB constants.
PIXEL_MEAN = 0.449
PIXEL_STD = 0.226


@dataclass(frozen=True)
class Split:
    """Indices into ``load_digits``; ``calib`` is a subset of ``train``."""

    train: np.ndarray
    calib: np.ndarray
    test: np.ndarray


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, projected where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's activation."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class DigitsResNet(nn.Module):
    """CIFAR-style ResNet with 6 * ``blocks`` + 2 layers for one-channel images."""

    def __init__(
        self, blocks: int = 3, widths: tuple[int, ...] = (16, 32, 64), classes: int = 10
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        layers: list[nn.Module] = []
        channels = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(BasicBlock(channels, width, stride))
                channels = width
        self.blocks = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a batch."""
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def load_images() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits as uint8 [n, 32, 32] (0..16 scaled to 0..255) and their labels."""
    digits = load_digits()
    grey = torch.from_numpy(digits.images).float().unsqueeze(1) * (255.0 / 16.0)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    grey = F.interpolate(grey, size=size, mode="bilinear", align_corners=False)
    # Rounding before training makes the network see exactly the pixels the PNG files hold.
    return grey.round().to(torch.uint8).squeeze(1).numpy(), digits.target.astype(np.int64)


def split_indices(labels: np.ndarray, seed: int) -> Split:
    """Split stratified by label into training and test; draw calibration from training."""
    everything = np.arange(len(labels))
    train, test = train_test_split(
        everything, test_size=TEST_COUNT, stratify=labels, random_state=seed
    )
    _, calib = train_test_split(
        train, test_size=CALIB_COUNT, stratify=labels[train], random_state=seed
    )
    return Split(np.sort(train), np.sort(calib), np.sort(test))


def write_images(folder: Path, images: np.ndarray, labels: np.ndarray, indices: np.ndarray) -> None:
    """Write the chosen images as ``folder/<label>/<index in load_digits>.png``."""
    if folder.exists():
        shutil.rmtree(folder)  # images of an earlier split must not linger
    for index in indices:
        path = folder / str(labels[index]) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[index]).save(path, optimize=True)


def to_unit(images: np.ndarray) -> Tensor:
    """Turn uint8 [n, 32, 32] into float [n, 1, 32, 32] in 0..1."""
    return torch.from_numpy(images).float().unsqueeze(1) / 255.0


def normalise(x: Tensor) -> Tensor:
    """Apply the pixel normalisation of one-channel models."""
    return (x - PIXEL_MEAN) / PIXEL_STD


def augment(x: Tensor) -> Tensor:
    """Rotate by up to 10 degrees, scale by up to 10 % and shift by up to 2 pixels."""
    count = x.shape[0]
    angle = (torch.rand(count) * 2 - 1) * math.radians(10)
    scale = 1 + (torch.rand(count) * 2 - 1) * 0.1
    # affine_grid spans -1..1 over the image, so one pixel is 2 / IMAGE_SIZE.
    shift = (torch.rand(count, 2) * 2 - 1) * (2 * 2 / IMAGE_SIZE)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    theta = torch.stack(
        [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1
    )
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    # Zero padding is the digits' own background: this runs before the normalisation.
    return F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return top-1 accuracy in inference mode."""
    model.eval()
    logits = torch.cat([model(normalise(part)) for part in images.split(250)])
    return (logits.argmax(1) == labels).float().mean().item()


def train(model: nn.Module, images: Tensor, labels: Tensor, args: argparse.Namespace) -> None:
    """Train with SGD under a one-cycle learning rate."""
    optimizer = torch.optim.SGD(
        model.parameters(), args.lr, momentum=0.9, weight_decay=args.weight_decay, nesterov=True
    )
    # A last batch of a few images would disturb the BatchNorm statistics, so it is dropped.
    steps = len(images) // args.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.lr, epochs=args.epochs, steps_per_epoch=steps, pct_start=0.2
    )
    for epoch in range(args.epochs):
        model.train()
        total = 0.0
        order = torch.randperm(len(images))
        for step in range(steps):
            chosen = order[step * args.batch_size : (step + 1) * args.batch_size]
            loss = F.cross_entropy(model(normalise(augment(images[chosen]))), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1:3d}/{args.epochs}  loss {total / steps:.4f}", flush=True)


def export_with_batchnorm(model: nn.Module, example: Tensor, path: Path) -> None:
    """Export with Conv and BatchNormalization kept apart."""
    model.eval()
    # The TorchScript exporter fuses Conv and BatchNorm in its EVAL mode. PRESERVE skips that
    # and, as the model is in eval mode, still exports BatchNorm for inference.
    torch.onnx.export(
        model,
        (example,),
        path,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        dynamo=False,
    )


def export_folded(model: nn.Module, example: Tensor, path: Path) -> None:
    """Export with PyTorch's default exporter, which folds BatchNorm into Conv."""
    model.eval()
    torch.onnx.export(
        model,
        (example,),
        path,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        dynamo=True,
    )


def inline_identities(graph: onnx.GraphProto) -> None:
    """Replace each Identity of an initializer by an initializer of its own.

    The TorchScript exporter merges equal tensors. The biases of the two BatchNorms that meet in
    a projected shortcut are equal, as they start equal and always get the same gradient.
    """
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    aliases = [
        node for node in graph.node if node.op_type == "Identity" and node.input[0] in initializers
    ]
    for node in aliases:
        copy = graph.initializer.add()
        copy.CopyFrom(initializers[node.input[0]])
        copy.name = node.output[0]
        graph.node.remove(node)


def drop_stack_traces(graph: onnx.GraphProto) -> None:
    """Remove the exporter's stack traces, which name paths of the exporting machine."""
    for node in graph.node:
        kept = [entry for entry in node.metadata_props if not entry.key.endswith("stack_trace")]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)


def tidy(path: Path) -> None:
    """Bring an exported file into the form in which it is kept in the repository."""
    model = onnx.load(path)
    inline_identities(model.graph)
    drop_stack_traces(model.graph)
    onnx.save(model, path)


@torch.no_grad()
def check_export(path: Path, model: nn.Module, images: Tensor, keeps_batchnorm: bool) -> None:
    """Fail unless the file is valid, has the expected nodes and computes what the model does."""
    exported = onnx.load(path)
    onnx.checker.check_model(exported, full_check=True)
    batchnorms = [node for node in exported.graph.node if node.op_type == "BatchNormalization"]
    if bool(batchnorms) != keeps_batchnorm:
        raise RuntimeError(f"{path}: {len(batchnorms)} BatchNormalization nodes")
    for node in batchnorms:
        if any(item.name == "training_mode" and item.i for item in node.attribute):
            raise RuntimeError(f"{path}: {node.name} is in training mode")
    model.eval()
    inputs = normalise(images)
    expected = model(inputs).numpy()
    (actual,) = ReferenceEvaluator(exported).run(None, {"input": inputs.numpy()})
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3, err_msg=str(path))


def export_models(model: nn.Module, images: Tensor, out: Path) -> None:
    """Write and check both ONNX files; ``images`` serve as example and for the check."""
    example = normalise(images)
    kept, folded = out / "digits_resnet_bn.onnx", out / "digits_resnet_folded.onnx"
    export_with_batchnorm(model, example, kept)
    export_folded(model, example, folded)
    for path in (kept, folded):
        tidy(path)
        check_export(path, model, images, keeps_batchnorm=path == kept)
        print(f"{path}  {path.stat().st_size} bytes")


def parse_args() -> argparse.Namespace:
    """Return the command line options; the defaults made the files in the repository."""
    parser = argparse.ArgumentParser(description="Train and export the sample model.")
    parser.add_argument("--out", type=Path, default=Path("sample_models"), help="output folder")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1, help="peak learning rate")
    parser.add_argument("--weight-decay", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    # Sums are split by thread, so another count gives slightly different weights.
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Train, write the images, export both models and check them."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    images, labels = load_images()
    split = split_indices(labels, args.seed)
    write_images(args.out / "digits" / "calib", images, labels, split.calib)
    write_images(args.out / "digits" / "test", images, labels, split.test)

    pixels, targets = to_unit(images), torch.from_numpy(labels)
    model = DigitsResNet()
    print(f"{sum(p.numel() for p in model.parameters())} parameters")
    start = time.perf_counter()
    train(model, pixels[split.train], targets[split.train], args)
    print(f"trained in {time.perf_counter() - start:.0f} s")
    for name, part in (("training", split.train), ("test", split.test)):
        print(f"{name} accuracy {accuracy(model, pixels[part], targets[part]):.4f}")
    export_models(model, pixels[split.test[:8]], args.out)


if __name__ == "__main__":
    main()
