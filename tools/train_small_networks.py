"""Train small networks without shortcuts on a folder of images, to measure repairs on.

Weak networks have no room to spare and nothing leads around a broken layer: what a repair loses
shows here first. Class folders are named ``<label>_<name>``. Run it from the repository root::

    pip install -r tools/requirements-train.txt
    python tools/train_small_networks.py --train train/ --test test/ --out build/small
    python tools/measure.py recipes --model build/small/plain.onnx --calib train/ --test test/
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # asr-onnx's default


def stack(widths: tuple[int, ...], activation: type[nn.Module], classes: int) -> nn.Sequential:
    """3x3 convolutions with BatchNormalization, halving the image where the width grows."""
    layers: list[nn.Module] = []
    before = 3
    for number, width in enumerate(widths):
        stride = 2 if number and width > before else 1
        layers += [nn.Conv2d(before, width, 3, stride, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(width), activation()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def separable(widths: tuple[int, ...], classes: int) -> nn.Sequential:
    """Depthwise 3x3 and 1x1 convolutions with Hardswish in turn, as in mobile networks."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1, bias=False)]
    layers += [nn.BatchNorm2d(widths[0]), nn.Hardswish()]
    before = widths[0]
    for width in widths[1:]:
        stride = 2 if width > before else 1
        layers += [nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False)]
        layers += [nn.BatchNorm2d(before), nn.Hardswish()]
        layers += [nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width), nn.Hardswish()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def networks(classes: int) -> dict[str, nn.Module]:
    """The networks by name: 78 thousand weights, 16 convolutions, and depthwise ones."""
    return {
        "plain": stack((16, 32, 32, 64, 64), nn.ReLU, classes),
        "leaky": stack((16,) * 4 + (32,) * 6 + (64,) * 6, nn.LeakyReLU, classes),
        "separable": separable((24, 48, 48, 96, 96, 96, 128), classes),
    }


def load(folder: Path) -> tuple[Tensor, Tensor]:
    """Images [N, 3, H, W] as the network takes them, and labels [N]."""
    paths = sorted(folder.glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(p).convert("RGB")) for p in paths])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255.0
    shape = (1, 3, 1, 1)
    x = (x - torch.tensor(MEAN).reshape(shape)) / torch.tensor(STD).reshape(shape)
    return x, torch.tensor([int(p.parent.name.split("_")[0]) for p in paths])


def augment(x: Tensor) -> Tensor:
    """Mirror half of the images, and shift each by up to 3 pixels."""
    x = torch.where((torch.rand(len(x)) < 0.5)[:, None, None, None], x.flip(3), x)
    theta = torch.eye(2, 3).repeat(len(x), 1, 1)
    theta[:, :, 2] = (torch.rand(len(x), 2) * 2 - 1) * (2 * 3 / x.shape[3])
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def train(model: nn.Module, x: Tensor, labels: Tensor, epochs: int, batch: int = 64) -> None:
    """SGD under a one-cycle learning rate."""
    optimizer = torch.optim.SGD(
        model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    steps = len(x) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, epochs=epochs, steps_per_epoch=steps, pct_start=0.2
    )
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(x))[: steps * batch].split(batch):
            loss = F.cross_entropy(model(augment(x[chosen])), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    """Top-1 in inference mode."""
    model.eval()
    return (torch.cat([model(p) for p in x.split(250)]).argmax(1) == labels).float().mean().item()


def main() -> None:
    """Train and export each network."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--train", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/small"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--only", nargs="*", help="names of networks")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    (x, labels), (test, expected) = load(args.train), load(args.test)
    for name in args.only or networks(10):
        torch.manual_seed(0)
        model = networks(int(labels.max()) + 1)[name]
        train(model, x, labels, args.epochs)
        weights = sum(p.numel() for p in model.parameters())
        print(f"{name}: {weights} weights, top-1 {accuracy(model, test, expected):.4f}", flush=True)
        torch.onnx.export(
            model,
            (test[:2],),
            args.out / f"{name}.onnx",
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            dynamo=True,
        )


if __name__ == "__main__":
    main()
