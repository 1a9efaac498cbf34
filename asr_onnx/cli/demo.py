"""``asr-onnx demo``: a model and images to try the other commands on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from asr_onnx.cli.options import FILE, QUIET, command, group, option
from asr_onnx.cli.terminal import Terminal
from asr_onnx.samples import CALIB, MODEL, TEST, copy_samples

FOLDER = Path("asr-onnx-demo")
_SPARSITY = "0.9"


@command()
@click.argument("folder", type=FILE, default=FOLDER, metavar="[DIR]")
@group(
    "Output",
    option("--run", "runs", is_flag=True, help="Run the commands, too; about a minute."),
    option("--force", is_flag=True, help="Use a folder that has other things in it."),
    QUIET,
)
@click.pass_context
def demo(context: click.Context, folder: Path, runs: bool, force: bool, quiet: bool) -> None:
    """Copy a small classifier with its images into DIR, and tell what to type next.

    DIR is asr-onnx-demo unless it is given.  Its README.md says what the model and the images are.
    """
    copy_samples(folder, force)
    out = Terminal(quiet=quiet)
    out.say(f"→ {folder}: a classifier of digits, images to calibrate on and images to test on")
    if not runs:
        out.say("Try:")
    for words in commands(folder):
        out.say(f"{'$' if runs else ' '} asr-onnx {shlex.join(words)}")
        if runs:
            more = ["--force"] * (force and words[0] != "compare") + ["-q"] * quiet
            _run(context, [*words, *more])


def commands(folder: Path) -> Iterator[list[str]]:
    """What to type next, as words: break the model, repair it, and see what it is worth."""
    before = "./" if str(folder).startswith("-") else ""  # or it would be an option
    model, calib, test = (f"{before}{folder / part}" for part in (MODEL, CALIB, TEST))
    pruned, sparse = (f"{model.removesuffix('.onnx')}.{how}.onnx" for how in ("pruned", "sparse"))
    report = ["--report", f"{before}{folder / 'repair.html'}"]
    gate = ["--data", test, "--max-drop", "0.05"]
    yield ["prune", model, "--sparsity", _SPARSITY]
    yield ["repair", model, "--calib", calib, "--sparsity", _SPARSITY, *gate, *report]
    yield ["compare", model, pruned, sparse, "--data", test]


def _run(context: click.Context, words: list[str]) -> None:
    """Run one command of the command line that this one is of."""
    group = context.find_root().command
    assert isinstance(group, click.Group)
    group.main(words, prog_name="asr-onnx", standalone_mode=False)
