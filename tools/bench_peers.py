"""Accuracy, cost and patterns of what other tools make of the same ONNX files, beside asr-onnx.

    python tools/bench_peers.py --model a.onnx --calib train/ --test test/ --work peers/

Each tool is installed from PyPI into an environment of its own in the work folder and runs in a
process of its own (``tools/peers/``), on the same calibration inputs.  Every file it writes is
scored here, by ONNX Runtime on the CPU.  What is done already is not done again; labels are the
numbers that begin the names of the test folders.  Linux.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnxruntime

import asr_onnx
from asr_onnx.data.batches import Batches
from asr_onnx.data.openers import ImageSamples, open_samples
from asr_onnx.graph.inputs import model_inputs
from asr_onnx.graph.shapes import Shapes, macs
from asr_onnx.graph.sites import find_sites, survey_of
from asr_onnx.maths.intervals import accuracy

FOLDER = Path(__file__).parent / "peers"
CELLS = {
    **{s: f"{s} %" for s in ("50", "70", "80", "90", "95")},
    "2of4": "2:4",
    "channel": "half the MACs",
    "int8": "int8",
}
ZEROS = tuple(c for c in CELLS if c.isdigit())
MASKS = (*ZEROS, "2of4")
SLACK = 0.005  # of a share of zeros or of the work: rows and channels are whole


@dataclass(frozen=True)
class Peer:
    """What is installed (nothing: it is here already), and the cells of each of its settings."""

    requires: tuple[str, ...]
    settings: dict[str, tuple[str, ...]]


CALIBRATED = {
    f"{method}, {bits} bits": ("int8",)
    for method in ("MinMax", "Entropy", "Percentile")
    for bits in (7, 8)
}
PEERS = {
    "asr_onnx": Peer(
        (),
        {
            "asr": MASKS,
            "refit": MASKS,
            "best": (*MASKS, "channel"),
            "auto": MASKS,
            "quantize": ("int8",),
        },
    ),
    "onnxsim": Peer(
        ("onnxsim==0.8.1", "onnxruntime==1.32.0"),
        {
            "magnitude": (*MASKS, "channel"),
            "global magnitude": ZEROS,
            "Wanda": (*MASKS, "channel"),
            "Wanda + bias correction": (*MASKS, "channel"),
            "SparseGPT": MASKS,
            "Wanda + fine-tuning 0.02": (*MASKS, "channel"),
            "static": ("int8",),
            "static + bias correction": ("int8",),
            "full QDQ, 7 bits": ("int8",),
        },
    ),
    "polygraphy": Peer(
        ("polygraphy==0.53.6", "onnx==1.23.2", "onnx-graphsurgeon==0.6.1", "onnxruntime==1.32.0"),
        {"surgeon prune": ("2of4",)},
    ),
    "onnxruntime": Peer(("onnxruntime==1.32.0", "onnx==1.23.2", "sympy"), CALIBRATED),
    "neural_compressor": Peer(
        # prettytable, scipy and pkg_resources are used and not declared
        ("onnx-neural-compressor==1.0", "prettytable", "scipy", "setuptools<80"),
        {s: c for s, c in CALIBRATED.items() if not s.startswith("Percentile")},
    ),
    "nncf": Peer(
        ("nncf==3.4.0", "onnx==1.23.2", "onnxruntime==1.32.0"),
        {
            f"{fast}bias correction, {bits} bits": ("int8",)
            for fast in ("fast ", "")
            for bits in (7, 8)
        },
    ),
}


@dataclass(frozen=True)
class Result:
    """One cell: its accuracy and cost, or why there is none (``fault``)."""

    model: str
    peer: str
    setting: str
    cell: str
    fault: str = ""
    correct: int = 0
    total: int = 0
    low: float = 0.0
    high: float = 0.0
    wall: float = 0.0  # seconds
    cpu: float = 0.0  # seconds of all cores, user and system
    peak: int = 0  # bytes
    wrong: str = ""  # what was asked for and is not so
    holds: str = ""  # what was measured of it


def interpreter(name: str, work: Path) -> Path:
    """The Python of a peer's environment, which is made if it is not there."""
    peer = PEERS[name]
    if not peer.requires:
        return Path(sys.executable)
    python = work / "environments" / name / "bin" / "python"
    done = python.parent.parent / "complete"
    if not done.exists():
        click.echo(f"installing {name}", err=True)
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *peer.requires], check=True)
        done.touch()
    return python


def command(python: Path, peer: str, setting: str, cell: str, files: Sequence[Path]) -> list[str]:
    """What to run for a cell; ``files`` are model, calibration inputs and output."""
    words = [str(python)]
    if peer != "asr_onnx":
        return [*words, str(FOLDER / f"with_{peer}.py"), *map(str, files), cell, setting]
    model, calibration, output = map(str, files)
    words += ["-m", "asr_onnx", "quantize" if setting == "quantize" else "repair", model]
    words += ["--calib", calibration, "--output", output, "--force", "--quiet"]
    if cell == "int8":
        return [*words, "--for", "onnxruntime"]
    words += ["--recipe", setting]
    if cell == "channel":
        return [*words, "--pattern", "channel", "--macs", "0.5"]
    return [*words, *(["--pattern", "2:4"] if cell == "2of4" else ["--sparsity", f"{cell}%"])]


def measured(words: Sequence[str], log: Path, limit: float) -> dict[str, Any]:
    """Wall and CPU seconds, peak memory of the largest process, and the fault, of a command."""
    start = time.perf_counter()
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    with log.open("wb") as file:
        child = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=environment)
        fault = ""
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            if not fault and time.perf_counter() - start > limit:
                child.kill()
                fault = f"no end within {limit:g} s"
            time.sleep(0.02)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode and not fault:
        fault = reason(log.read_text(encoding="utf-8", errors="replace")) or (
            f"exit {child.returncode}"
        )
    return {
        "fault": fault,
        "wall": time.perf_counter() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * 1024,
    }


def reason(log: str) -> str:
    """The last line that says something, in short and fit for a cell of a table."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1].replace("|", "/")[:120] if lines else ""


def kept(dense: onnx.ModelProto, result: onnx.ModelProto, cell: str) -> tuple[str, str]:
    """What was measured of the zeros, groups, channels or integers asked for; and what is wrong."""
    sites = [s.weight.value for s in survey_of(result).sites]
    if cell == "int8":
        convolutions, integer = integers(result)
        told = f"{integer} of {convolutions} layers"
        return told, "" if integer == convolutions else f"int8 in {told}"
    if cell == "channel":
        was = [s.weight.value.shape for s in find_sites(dense).sites]
        narrower = sum(w.shape != old for w, old in zip(sites, was, strict=True))
        share = multiplies(result) / multiplies(dense)
        told = f"{share:.1%} of the MACs, {narrower} of {len(was)} layers narrower"
        return told, "" if narrower and share <= 0.5 + SLACK else told
    zeros = sum(np.count_nonzero(w == 0) for w in sites) / sum(w.size for w in sites)
    if cell == "2of4":
        eligible = [w for w in sites if w.shape[1] % 4 == 0]
        good = sum(in_groups(w) for w in eligible)
        told = f"{good} of {len(eligible)} layers, {zeros:.1%} zeros"
        return told, "" if good == len(eligible) else f"2:4 in {good} of {len(eligible)} layers"
    told = f"{zeros:.1%} zeros"
    return told, "" if zeros >= int(cell) / 100 - SLACK else told


def in_groups(weight: np.ndarray) -> bool:
    """Whether two of every four weights along the input channels are zero at least."""
    groups = weight.reshape(weight.shape[0], -1, 4, *weight.shape[2:])
    return bool((np.count_nonzero(groups, axis=2) <= 2).all())


def integers(model: onnx.ModelProto) -> tuple[int, int]:
    """How many convolutions there are, and how many of them read an 8-bit weight."""
    kinds = {i.name: i.data_type for i in model.graph.initializer}
    behind = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    weights = [n.input[1] for n in model.graph.node if n.op_type == "Conv"]
    weights += [n.input[3] for n in model.graph.node if n.op_type == "QLinearConv"]
    eight = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    return len(weights), sum(kinds.get(behind.get(w, w)) in eight for w in weights)


def multiplies(model: onnx.ModelProto) -> int:
    """Multiply-accumulates for one sample."""
    return sum(n or 0 for n in macs(model, Shapes.of(model)).values())


class Bench:
    """A model with its data, and what the tools made of it, in a folder."""

    def __init__(self, model: Path, calib: Path, test: Path, work: Path, samples: int) -> None:
        self.path, self._environments = model, work
        self.dense = asr_onnx.load(model).proto
        inputs = model_inputs(self.dense)
        self._folder = work / f"{model.stem}-{samples}"  # other data, other results
        self._folder.mkdir(parents=True, exist_ok=True)
        self._calibration = self._folder / "calibration.npz"
        if not self._calibration.exists():
            drawn = list(Batches(open_samples(calib, inputs), inputs, num_samples=samples))
            arrays = {i.name: np.concatenate([d[i.name] for d in drawn]) for i in inputs}
            np.savez(self._calibration, **arrays)
        labelled = open_samples(test, inputs)
        assert isinstance(labelled, ImageSamples)
        everything, self._input = range(len(labelled)), inputs[0].name
        self._labels = np.array([int(labelled.class_folder(i).split("_")[0]) for i in everything])
        self._images = np.stack([labelled[i][self._input] for i in everything])

    def score(self, path: Path) -> dict[str, Any]:
        """Right answers, and the interval of their share, in ONNX Runtime as it is by default."""
        how = onnxruntime.SessionOptions()
        how.log_severity_level = 3  # nothing of initializers that nobody reads
        session = onnxruntime.InferenceSession(path, how, providers=["CPUExecutionProvider"])
        answers = [
            session.run(None, {self._input: self._images[i : i + 64]})[0].argmax(1)
            for i in range(0, len(self._images), 64)
        ]
        return asdict(accuracy(np.concatenate(answers) == self._labels))

    def cell(self, peer: str, setting: str, cell: str, limit: float) -> Result | None:
        """The result of a cell, which is measured if it was not before; not with a limit of 0."""
        name = f"{peer}-{setting}-{cell}".replace(" ", "_").replace(",", "")
        record = self._folder / f"{name}.json"
        if not record.exists():
            if not limit:
                return None
            output = self._folder / f"{name}.onnx"
            files = (self.path.resolve(), self._calibration.resolve(), output.resolve())
            words = command(interpreter(peer, self._environments), peer, setting, cell, files)
            found = measured(words, self._folder / f"{name}.log", limit)
            if not found["fault"]:
                result = asr_onnx.load(output).proto
                holds, wrong = kept(self.dense, result, cell)
                found |= {**self.score(output), "holds": holds, "wrong": wrong}
            record.write_text(
                json.dumps(asdict(Result(self.path.stem, peer, setting, cell, **found)), indent=1)
            )
        return Result(**json.loads(record.read_text()))


def figure(result: Result) -> str:
    """A cell of the table: top-1 in percent, its interval, and what is wrong with the file."""
    if result.fault:
        return f"failed: {result.fault}"
    share = 100 * result.correct / result.total
    text = f"{share:.1f} ({100 * result.low:.0f}–{100 * result.high:.0f})"
    return f"{text}, but {result.wrong}" if result.wrong else text


def table(dense: dict[str, str], results: Sequence[Result], cells: Sequence[str]) -> Iterator[str]:
    """The lines of the Markdown table; ``dense`` has the figure of each model."""
    heads = ["model", "tool", "settings", *(CELLS[c] for c in cells)]
    yield "| " + " | ".join([*heads, "CPU s", "wall s", "MiB"]) + " |"
    yield "|---|---|---|" + "---:|" * (len(cells) + 3)
    for model, figures in dense.items():
        yield f"| {model} | dense | {figures} |" + " |" * (len(cells) + 3)
        own = [r for r in results if r.model == model]
        for peer, setting in dict.fromkeys((r.peer, r.setting) for r in own):
            row = {r.cell: r for r in own if (r.peer, r.setting) == (peer, setting)}
            done = [r for r in row.values() if not r.fault] or list(row.values())
            spent = [
                span([r.cpu for r in done]),
                span([r.wall for r in done]),
                f"{max(r.peak for r in done) / 2**20:.0f}",
            ]
            offered = PEERS[peer].settings[setting]
            found = [
                figure(row[c]) if c in row else "not run" if c in offered else "–" for c in cells
            ]
            yield "| " + " | ".join([model, peer, setting, *found, *spent]) + " |"


def span(values: Sequence[float]) -> str:
    """The least and the most, or one number if they look the same."""
    low, high = (f"{v:.0f}" for v in (min(values), max(values)))
    return low if low == high else f"{low}–{high}"


@click.command()
@click.option("--model", "models", multiple=True, required=True, type=click.Path(path_type=Path))
@click.option("--calib", required=True, type=click.Path(path_type=Path))
@click.option("--test", required=True, type=click.Path(path_type=Path))
@click.option("--work", required=True, type=click.Path(path_type=Path), help="Kept between runs.")
@click.option("--peers", multiple=True, type=click.Choice(list(PEERS)), default=list(PEERS))
@click.option("--only", multiple=True, type=click.Choice(list(CELLS)), default=list(CELLS))
@click.option("--settings", default="", help="Those whose name begins so.")
@click.option("--num-samples", default=512, show_default=True, help="Calibration samples.")
@click.option("--limit", default=1800.0, show_default=True, help="Seconds for a cell; 0: show.")
def main(
    models: tuple[Path, ...],
    calib: Path,
    test: Path,
    work: Path,
    peers: tuple[str, ...],
    only: tuple[str, ...],
    settings: str,
    num_samples: int,
    limit: float,
) -> None:
    """Print the table of all tools for each model."""
    dense: dict[str, str] = {}
    results: list[Result] = []
    for path in models:
        bench = Bench(path, calib, test, work, num_samples)
        own = bench.score(path)
        dense[path.stem] = figure(Result(path.stem, "", "", "", **own))
        for peer in peers:
            for setting, cells in PEERS[peer].settings.items():
                for cell in (c for c in cells if c in only and setting.startswith(settings)):
                    found = bench.cell(peer, setting, cell, limit)
                    if found:
                        results.append(found)
                        told = f"{path.stem} {peer} {setting} {cell}: {figure(found)}"
                        click.echo(told, err=True)
    for line in table(dense, results, [c for c in CELLS if c in only]):
        click.echo(line)


if __name__ == "__main__":
    main()
