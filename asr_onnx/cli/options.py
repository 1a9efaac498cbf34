"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from asr_onnx.cli.types import NUMBERS, SIZE, WORDS
from asr_onnx.data.preprocess_files import FILE_NAME, PRESETS
from asr_onnx.maths.densities import ALLOCATIONS
from asr_onnx.maths.scale_rules import METHODS
from asr_onnx.options import BN_STATS, CRITERIA, OPS, RECIPES, ROW_SCALES, describe

F = TypeVar("F", bound=Callable[..., Any])

MODEL = click.argument("model", type=click.Path(path_type=Path))

PROVIDERS = click.option(
    "--providers", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)


def group(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order of the help text."""

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def pick(kind: type[Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given and are fields of the record ``kind``."""
    names = {f.name for f in fields(kind)}
    return {k: v for k, v in settings.items() if k in names and v is not None}


def loader_options(folder: str) -> Callable[[F], F]:
    """Data that are not images, instead of the option called ``folder``."""
    return group(
        click.option(
            "--data-loader-script",
            metavar="FILE.py[:FUNC]",
            help=f"Instead of {folder}: a Python function that yields {{input name: array}}, as "
            "Polygraphy's.  [default function: load_data]",
        ),
        click.option(
            "--load-inputs",
            multiple=True,
            type=click.Path(path_type=Path),
            help=f"Instead of {folder}: inputs saved by Polygraphy, JSON or a folder of it; "
            "repeatable.",
        ),
        click.option(
            "--input-shapes",
            multiple=True,
            metavar="NAME:DIMS",
            help="Sizes for dimensions the model leaves open, x:1x3x224x224 or x:[1,3,224,224]; "
            "the first sets the batch size; repeatable.",
        ),
    )


solver_options = group(
    click.option(
        "--recipe",
        type=click.Choice(list(RECIPES)),
        default="asr",
        show_default=True,
        help="A set of the options below, each of which still wins by itself.  "
        + "  ".join(f"{name}: {describe(name)}." for name in RECIPES),
    ),
    click.option(
        "--criterion",
        type=click.Choice(CRITERIA),
        help="magnitude: one threshold for all weights.  obs: layer by layer, by what a weight "
        "costs the layer's output.  [default: magnitude]",
    ),
    click.option(
        "--allocation",
        type=click.Choice(ALLOCATIONS),
        help="Density of each layer under --criterion obs.  [default: mixed]",
    ),
    click.option(
        "--reconstruct/--no-reconstruct",
        default=None,
        help="Re-fit the surviving weights to the dense output.  [default: no]",
    ),
    click.option("--method", type=click.Choice(METHODS), help="Scale rule.  [default: asr]"),
    click.option(
        "--prior",
        help="How far to trust a channel's gain: correlation, median, mean or fixed:V.  "
        "[default: correlation]",
    ),
    click.option(
        "--one-shot/--sequential",
        default=None,
        help="Measure every layer before any is repaired.  [default: sequential]",
    ),
    click.option(
        "--keep-first/--repair-first",
        default=None,
        help="Leave the first layer unrepaired.  [default: repair]",
    ),
    click.option(
        "--bn-stats",
        type=click.Choice(BN_STATS),
        help="Keep the dense BatchNormalization statistics, or re-estimate them afterwards.  "
        "[default: dense]",
    ),
    click.option("--bn-momentum", type=float, help="[default: 0.1]"),
    click.option("--bn-batch-size", type=int, help="[default: 128]"),
    click.option("--bn-batches", type=int, help="[default: 20]"),
)
site_options = group(
    click.option(
        "--ops", type=WORDS, help=f"Operators to prune, of {','.join(OPS)}.  [default: Conv]"
    ),
    click.option("--include", metavar="REGEX", help="Prune only weights or nodes that match."),
    click.option("--exclude", metavar="REGEX", help="Do not prune weights or nodes that match."),
    click.option(
        "--row-scale",
        type=click.Choice(ROW_SCALES),
        help="Divide weights by their output channel's norm before comparing them; auto: when "
        "BatchNormalization was folded at export.  [default: auto]",
    ),
)
prune_options = group(
    click.option(
        "--pattern",
        metavar="N:M",
        help="N of every M weights along the input channels stay, e.g. 2:4, instead of --sparsity.",
    ),
    site_options,
)


def output_options(suffix: str) -> Callable[[F], F]:
    """Where to write; by default next to the model, with ``suffix``."""
    return group(
        click.option(
            "-o",
            "--output",
            type=click.Path(path_type=Path),
            help=f"File to write.  [default: MODEL with {suffix}]",
        ),
        click.option("--force", is_flag=True, help="Overwrite files that exist."),
        click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
    )


preprocess_options = group(
    click.option(
        "--preprocess",
        metavar="FILE|PRESET",
        help=f"{', '.join(PRESETS)}, a Hugging Face {FILE_NAME}, or a timm data config; the "
        f"options below win.  [default: MODEL's .preprocess.json or {FILE_NAME} next to it]",
    ),
    click.option("--mean", type=NUMBERS, help="Per channel, after --scale.  [default: ImageNet's]"),
    click.option("--std", type=NUMBERS, help="Per channel, after --scale.  [default: ImageNet's]"),
    click.option("--scale", type=float, help="Factor on pixels 0..255.  [default: 1/255]"),
    click.option("--color", type=click.Choice(["rgb", "bgr"]), help="[default: rgb]"),
    click.option("--layout", type=click.Choice(["auto", "nchw", "nhwc"]), help="[default: auto]"),
    click.option("--resize", type=SIZE, help="Shorter side, H,W, or none.  [default: to fit]"),
    click.option("--crop", type=SIZE, help="Centre crop: side, H,W, or none.  [default: to fit]"),
)
label_options = group(
    click.option(
        "--labels",
        type=click.Path(path_type=Path),
        help="CSV or JSON of file -> label (an index, or a name among --classes); or labels in the "
        "order of the samples, .npy of indices or a JSON list.  [default: the class folders]",
    ),
    click.option(
        "--classes",
        type=click.Path(path_type=Path),
        help="Names of the class folders in the order of their labels, one per line, or a JSON "
        "list.",
    ),
)
gate_options = group(
    click.option(
        "--min-agreement",
        type=float,
        help="Gate: fail when the arg-max is the dense model's less often than this share, e.g. "
        "0.95, at any output.",
    ),
    click.option(
        "--min-accuracy", type=float, help="Gate: fail below this top-1 accuracy, e.g. 0.9."
    ),
    click.option(
        "--max-drop", type=float, help="Gate: fail when top-1 is lower by more, e.g. 0.01."
    ),
)
data_options = group(
    click.option(
        "--calib",
        type=click.Path(path_type=Path),
        help="Folder of images (class folders are fine), .npy, .npz, a folder of those, or ONNX "
        "test data (test_data_set_*).",
    ),
    loader_options("--calib"),
    click.option("--num-samples", type=click.IntRange(1), default=512, show_default=True),
    click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
    click.option(
        "--holdout",
        type=click.FloatRange(0, 1, max_open=True),
        default=0.2,
        show_default=True,
        help="Share of the samples that is not solved on but used to check the result.",
    ),
    preprocess_options,
)
