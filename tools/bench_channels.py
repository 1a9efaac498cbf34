"""What channel removal saves on networks of known shapes, and that compacting changes nothing.

Random weights: times and sizes mean something, errors do not.  Models run in turn, so that a busy
machine slows all of them.
"""

from __future__ import annotations

import time

import click
import numpy as np
import onnx
from rich.console import Console
from rich.table import Table
from shapes import SHAPES

import asr_onnx
from asr_onnx.evaluation.latency import measure
from asr_onnx.execution.session import Device, Runner
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.graph.model_file import apply
from asr_onnx.graph.sites import find_sites
from asr_onnx.pruning.channels import Narrowing
from asr_onnx.pruning.choose import mask_patch


def masked(
    proto: onnx.ModelProto, sizes: dict[str, tuple[int, ...]], share: float
) -> onnx.ModelProto:
    """The model with zeros for all weights of channels that could go, a ``share`` of each group."""
    sites = find_sites(proto, ("Conv", "Gemm")).sites
    narrowing = Narrowing.of(proto, sites, sizes, ("Conv",))
    gone = frozenset(a for g in narrowing.groups for a in g.atoms[: int(share * len(g.atoms))])
    return apply(proto, mask_patch(sites, narrowing.masks(gone)))


def difference(one: Runner, other: Runner, feeds: dict[str, np.ndarray]) -> float:
    """Largest relative error of the other's outputs."""
    a, b = one.run(feeds), other.run(feeds)
    return max(float(np.linalg.norm(a[n] - b[n]) / np.linalg.norm(a[n])) for n in a)


@click.command()
@click.option("--shape", "shapes", multiple=True, type=click.Choice([*SHAPES]))
@click.option("--macs", default=0.5, show_default=True)
@click.option("--images", default=32, show_default=True)
@click.option("--batch-size", default=8, show_default=True, help="Of the runs that are timed.")
@click.option("--recipe", default="best", show_default=True)
def main(shapes: tuple[str, ...], macs: float, images: int, batch_size: int, recipe: str) -> None:
    """Remove channels from each shape, compact a masked copy, and time what comes of it."""
    table = Table(title=f"Recipe {recipe}, {macs:g} of the multiply-accumulates, {images} images")
    columns = ("shape", "repair", "MACs", "parameters", "latency", "reliable", "compact - masked")
    for name in columns:
        table.add_column(name, justify="right")
    for shape in shapes or ("resnet50", "mobilenetv2"):
        proto = SHAPES[shape]()
        (entry,) = model_inputs(proto)
        x = np.random.default_rng(0).standard_normal((images, *entry.shape[1:]), dtype=np.float32)
        start = time.perf_counter()
        options = asr_onnx.recipe(recipe, pattern="channel", macs=macs)
        result = asr_onnx.repair(proto, x, options, execution=asr_onnx.Execution(providers="cpu"))
        seconds = time.perf_counter() - start
        onnx.checker.check_model(result.model, full_check=True)
        feeds = {entry.name: x[:batch_size]}
        runners = [Runner(m, Device()) for m in (proto, result.model)]
        latency = measure(runners, feeds, batch_size)[1]
        zeros = masked(proto, {entry.name: feeds[entry.name].shape}, 1 - macs)
        compact = asr_onnx.compact(zeros, x[:batch_size])
        assert compact.removed, "channels that nothing reads go"
        pair = [Runner(m, Device()) for m in (zeros, compact.model)]
        before, after = result.cost_before, result.cost
        assert before and before.macs and after.macs
        table.add_row(
            shape,
            f"{seconds:.0f} s",
            f"{after.macs / before.macs:.2f}",
            f"{after.parameters / before.parameters:.2f}",
            f"{latency.ratio:.2f}",
            "yes" if latency.reliable else "no",
            f"{difference(*pair, feeds):.0e}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
