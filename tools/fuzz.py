"""Damage models, data, settings and reports at random, and hold the command line to its word.

The word: a command ends soon and in little memory, and says what is wrong in one line.  A case is
made of its kind, the seed and its number alone; what breaks the law is kept as a folder with the
damaged files and the command.  Exit code 1 when anything did.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import onnx
from corpus import generalised
from isolated import Outcome, calls
from PIL import Image
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from models import bare_net, external_copy, norm_net
from mutations import mutated_bytes, mutated_model, mutated_text

from asr_onnx.cli import main as cli

SECONDS, MEGABYTES = 20, 500  # of one command
KEPT = 3  # findings of a sort
PICTURES = ("png", "jpg", "bmp", "gif", "tiff", "webp")
PREPROCESS = {
    "crop_size": {"height": 8, "width": 8}, "do_normalize": True, "do_rescale": True,
    "do_resize": True, "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "ViTImageProcessor",
    "image_std": [0.5, 0.5, 0.5], "resample": 2, "rescale_factor": 0.00392156862745098,
    "size": {"height": 8, "width": 8},
}  # fmt: skip
REPAIR = ["--sparsity", "0.5", "--force", "--providers", "cpu", "-o", "out.onnx"]
Words = list[str]
Rng = np.random.Generator


def prepare(folder: Path) -> None:
    """Valid inputs of every kind, in the folder, which is the current one."""
    rng = np.random.default_rng(0)
    onnx.save(norm_net(rng), "norm.onnx")
    onnx.save(bare_net(rng), "bare.onnx")
    external_copy(norm_net(rng), folder, "external.onnx")
    x = rng.standard_normal((9, 3, 8, 8)).astype(np.float32)
    np.save("x.npy", x)
    np.savez("x.npz", x=x)
    labels = {}
    for number, kind in enumerate(PICTURES * 2):
        path = Path("images") / f"{number}.{kind}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 10, 3), np.uint8)).save(path)
        labels[path.name] = number % 5
    Path("labels.json").write_text(json.dumps(labels))
    Path("labels.csv").write_text("".join(f"{name},{label}\n" for name, label in labels.items()))
    Path("preprocessor_config.json").write_text(json.dumps(PREPROCESS))
    compare = ["compare", "norm.onnx", "norm.onnx", "--data", "images", "--no-latency"]
    reports = {
        "repair.json": ["repair", "norm.onnx", "--calib", "images", *REPAIR],
        "compare.json": [*compare, "--labels", "labels.csv", "--providers", "cpu"],
    }
    for name, words in reports.items():
        code, said = command([*words, "--report", name])
        if code:
            raise click.ClickException(f"the inputs cannot be made: {said}")
    sweep = ["sweep", "norm.onnx", "--calib", "images", "--data", "images", "--labels"]
    sweep += ["labels.csv", "--sparsities", "0.5,0.7", "--recipes", "asr", "--providers", "cpu"]
    if command([*sweep, "-o", "curve"])[0] == 0:
        Path("curve/sweep.json").replace("sweep.json")
    shutil.rmtree("curve", ignore_errors=True)


def damaged_model(rng: Rng) -> Words:
    path = Path(pick(rng, ["norm.onnx", "bare.onnx"]))
    path.write_bytes(mutated_bytes(rng, path.read_bytes()))
    return with_model(rng, path)


def damaged_structure(rng: Rng) -> Words:
    path = Path(pick(rng, ["norm.onnx", "bare.onnx"]))
    path.write_bytes(mutated_model(rng, onnx.load(path)).SerializeToString())
    return with_model(rng, path)


def damaged_external(rng: Rng) -> Words:
    path = Path("external.onnx")
    if rng.random() < 0.3:
        data = Path("weights.bin")
        data.write_bytes(mutated_bytes(rng, data.read_bytes()))
    else:
        proto = onnx.load(path, load_external_data=False)
        entry = pick(rng, pick(rng, proto.graph.initializer).external_data)
        entry.value = mutated_text(rng, entry.value.encode()).decode(errors="ignore")
        path.write_bytes(proto.SerializeToString())
    return with_model(rng, path)


def damaged_image(rng: Rng) -> Words:
    path = pick(rng, sorted(Path("images").iterdir()))
    path.write_bytes(mutated_bytes(rng, path.read_bytes()))
    return ["repair", "norm.onnx", "--calib", "images", *REPAIR]


def damaged_array(rng: Rng) -> Words:
    path = Path(pick(rng, ["x.npy", "x.npz"]))
    data = path.read_bytes()
    header = data[:128] if rng.random() < 0.5 else data  # what says how much is to come
    path.write_bytes(mutated_bytes(rng, header) + data[len(header) :])
    return ["repair", "norm.onnx", "--calib", path.name, *REPAIR]


def damaged_config(rng: Rng) -> Words:
    path = Path(pick(rng, ["preprocessor_config.json", "labels.json", "labels.csv"]))
    path.write_bytes(mutated_text(rng, path.read_bytes()))
    if path.name.startswith("labels"):
        words = ["compare", "norm.onnx", "bare.onnx", "--data", "images", "--no-latency"]
        return [*words, "--labels", path.name, "--providers", "cpu"]
    return ["repair", "norm.onnx", "--calib", "images", "--preprocess", path.name, *REPAIR]


def damaged_report(rng: Rng) -> Words:
    names = ["repair.json", "compare.json", "sweep.json"]
    path = Path(pick(rng, [n for n in names if Path(n).exists()]))
    path.write_bytes(mutated_text(rng, path.read_bytes()))
    return ["render", path.name, "--force", "-o", "page.html"]


KINDS: dict[str, Callable[[Rng], Words]] = {
    "model": damaged_model,
    "structure": damaged_structure,
    "external": damaged_external,
    "image": damaged_image,
    "array": damaged_array,
    "config": damaged_config,
    "report": damaged_report,
}


def pick(rng: Rng, items):
    return items[int(rng.integers(len(items)))]


def with_model(rng: Rng, path: Path) -> Words:
    """A command that reads the model."""
    repair = ["repair", path.name, "--calib", "x.npy", "--recipe", pick(rng, ["asr", "refit"])]
    prune = ["prune", path.name, "--sparsity", "0.5", "--force", "-o", "out.onnx"]
    return pick(rng, [["inspect", path.name], prune, [*repair, *REPAIR], [*repair, *REPAIR]])


def command(words: Words) -> tuple[int, str]:
    """Run ``asr-onnx`` in this process: its exit code and standard error."""
    sys.argv, errors = ["asr-onnx", *words], io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0), errors.getvalue()
    return 0, errors.getvalue()


def damage(kind: str, seed: int, number: int) -> Words:
    """Damage the valid inputs in the current folder; the command that meets what was damaged."""
    return KINDS[kind](np.random.default_rng([seed, number, *kind.encode()]))


@contextlib.contextmanager
def copy_of(base: str, folder: Path) -> Iterator[None]:
    """A copy of the valid inputs as current folder."""
    shutil.copytree(base, folder, dirs_exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def attempt(job: tuple[str, str, int, int]) -> tuple[int, str]:
    """Exit code of the case, and what is wrong with how it ended: nothing, if it kept the law."""
    base, *case = job
    with tempfile.TemporaryDirectory() as folder, copy_of(base, Path(folder)):
        words = damage(*case)
        with warnings.catch_warnings(record=True) as warned:
            code, said = command(words)
    lines = said.splitlines()
    final = next((line for line in reversed(lines) if line.strip()), "")
    if "Traceback" in said or "unexpected " in final:
        return code, final
    if code not in (0, 1, 2, 3):
        return code, f"exit code {code}: {final}"
    if code and (sum(line.startswith("error: ") for line in lines) != 1 or final != lines[-1]):
        return code, f"no line that says error: {final}"
    return code, f"Python warns: {warned[0].message}" if warned else ""


def complaint(outcome: Outcome) -> str:
    """What is wrong with a case, in a line; empty when it kept the law."""
    if outcome.fault:
        return outcome.fault.strip().splitlines()[-1]
    if outcome.memory > MEGABYTES << 20:
        return f"memory: {outcome.memory >> 20} MiB"
    return outcome.value[1]


def keep(base: str, outcome: Outcome, folder: Path) -> None:
    """Write the damaged files, the command and what it came to."""
    _, kind, seed, number = outcome.job
    with copy_of(base, folder):
        words = damage(kind, seed, number)
        lines = [f"asr-onnx {' '.join(words)}", complaint(outcome), outcome.fault]
        again = f"--kind {kind} --seed {seed} --case {number}"
        Path("finding.txt").write_text("\n".join([f"tools/fuzz.py {again}", *lines]) + "\n")


def jobs(base: str, kinds: Sequence[str], seed: int, until: float) -> Iterator[tuple]:
    number = 0
    while time.monotonic() < until:
        yield from ((base, kind, seed, number) for kind in kinds)
        number += 1


@click.command()
@click.option("--minutes", default=1.0, show_default=True, help="For all kinds together.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="[default: all]"
)
@click.option("--case", type=int, help="Only this one, of each kind.")
@click.option(
    "--findings", default="build/fuzz", show_default=True, type=click.Path(path_type=Path)
)
def main(
    minutes: float, seed: int, kinds: tuple[str, ...], case: int | None, findings: Path
) -> None:
    """Print how many cases there were, and what broke the law."""
    kinds = kinds or tuple(KINDS)
    findings = findings.resolve()
    ended, sorts = {kind: Counter[str]() for kind in kinds}, Counter[tuple[str, str]]()
    most, slowest = dict.fromkeys(kinds, 0), dict.fromkeys(kinds, 0.0)
    with tempfile.TemporaryDirectory() as base:
        with copy_of(base, Path(base)):
            prepare(Path(base))
        todo = jobs(base, kinds, seed, time.monotonic() + 60 * minutes)
        if case is not None:
            todo = iter([(base, kind, seed, case) for kind in kinds])
        for outcome in calls(attempt, todo, SECONDS):
            _, kind, _, number = outcome.job
            line = complaint(outcome)
            ended[kind]["cases"] += 1
            ended[kind]["findings" if line else "done" if not outcome.value[0] else "refused"] += 1
            most[kind] = max(most[kind], outcome.memory)
            slowest[kind] = max(slowest[kind], outcome.seconds)
            sort = kind, generalised(line)
            sorts[sort] += bool(line)
            if line and sorts[sort] <= KEPT:
                keep(base, outcome, findings / f"{kind}-{seed}-{number}")
    columns = ("cases", "done", "refused", "findings")
    table = Table("kind", *columns, "most MiB", "slowest s")
    for kind in kinds:
        counts = [f"{ended[kind][c]:,}" for c in columns]
        table.add_row(kind, *counts, f"{most[kind] >> 20:,}", f"{slowest[kind]:.1f}")
    console = Console()
    console.print(table)
    for (kind, line), count in (+sorts).most_common():
        console.print(f"{count} × {kind}: {line}", markup=False, highlight=False)
    sys.exit(1 if +sorts else 0)


if __name__ == "__main__":
    main()
