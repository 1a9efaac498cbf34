"""Inspect, prune and repair every model of ONNX's own backend tests: what is refused, what crashes.

Models are those in the installed package's files and those that its operators' tests make; of the
latter the inputs behind the first become initializers, as in an exported network.  Each step runs
in a child process.  Exit code 1 when anything but an ``AsrError`` came out of one.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import numpy as np
import onnx
import onnx.backend.test
from isolated import Outcome, calls
from onnx import numpy_helper
from rich.console import Console
from rich.table import Table

import asr_onnx
from asr_onnx.graph.inputs import ModelInput, model_inputs
from asr_onnx.graph.model_file import check_readable
from asr_onnx.options import OPS

STEPS = ("inspect", "prune", "asr", "refit")
SECONDS = 120
Model = tuple[str, bytes]


def files() -> Iterator[Model]:
    """The models that the package has as files, by their path in it."""
    root = Path(onnx.backend.test.__file__).parent / "data"
    for path in sorted(root.rglob("*.onnx")):
        yield path.relative_to(root).as_posix().removesuffix("/model.onnx"), path.read_bytes()


def operators() -> Iterator[Model]:
    """The models of the operators' tests, as they are and with initializers; takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tests' own
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases("")
    for case in cases:
        model = case.model
        yield f"{case.name}", model.SerializeToString()
        feeds, _ = case.data_sets[0]
        values = dict(zip((i.name for i in model.graph.input), feeds, strict=False))
        fixed = [n for n, v in list(values.items())[1:] if isinstance(v, np.ndarray)]
        if fixed:
            model.graph.initializer.extend(numpy_helper.from_array(values[n], n) for n in fixed)
            for value in [i for i in model.graph.input if i.name in fixed]:
                model.graph.input.remove(value)
            yield f"{case.name} (frozen)", model.SerializeToString()


def attempt(job: tuple[str, str, bytes]) -> str:
    """Take one step with a model; why it was refused, or nothing."""
    _, step, data = job
    np.seterr(all="ignore")
    try:
        proto = onnx.load_model_from_string(data)
        if step == "inspect":
            asr_onnx.inspect(proto, OPS)
        elif step == "prune":
            asr_onnx.prune(proto, asr_onnx.PruneOptions(0.5, ops=OPS, include="."))
        else:
            check_readable(proto)
            options = asr_onnx.recipe(step, sparsity=0.5, ops=OPS, include=".")
            execution = asr_onnx.Execution(providers="cpu")
            asr_onnx.repair(proto, samples(model_inputs(proto)), options, execution=execution)
    except asr_onnx.AsrError as error:
        return f"{type(error).__name__}: {generalised(str(error))}"
    return ""


def samples(inputs: tuple[ModelInput, ...], count: int = 3) -> dict[str, np.ndarray]:
    """A few random samples, in whole batches of as many as the model insists on."""
    rng = np.random.default_rng(0)
    found = {}
    for i in inputs:
        shape = [5 if size is None else size for size in i.shape]
        if i.batch_axis is not None:
            shape[i.batch_axis] = count * (i.batch or 1)
        values = rng.standard_normal(shape) if i.dtype.kind == "f" else rng.integers(0, 2, shape)
        found[i.name] = values.astype(i.dtype)
    return found


def generalised(line: str) -> str:
    """A message without what is particular to one model."""
    return re.sub(r"-?\d[\d.,e+-]*", "#", re.sub(r"'[^']*'|\[[^]]*\]", "*", line))[:150]


def run(models: Iterable[Model], seconds: float = SECONDS) -> Iterator[Outcome]:
    """What each step with each model came to; the job of an outcome is (name, step, bytes)."""
    jobs = ((name, step, data) for name, data in models for step in STEPS)
    return calls(attempt, jobs, seconds)


@click.command()
@click.option("--only", default="", metavar="REGEX", help="Models whose name matches.")
@click.option("--operators/--no-operators", "with_operators", default=True, show_default=True)
def main(only: str, with_operators: bool) -> None:
    """Print how many steps succeeded, were refused and why, and crashed."""
    models = [*files(), *(operators() if with_operators else ())]
    models = [m for m in models if re.search(only, m[0])]
    refused: dict[str, Counter[str]] = {}
    done, crashed = Counter[str](), []
    for outcome in run(models):
        name, step, _ = outcome.job
        if outcome.fault:
            crashed.append((name, step, outcome.fault.strip().splitlines()[-1]))
        elif outcome.value:
            refused.setdefault(outcome.value, Counter())[step] += 1
        else:
            done[step] += 1
    table = Table("outcome", *STEPS, title=f"{len(models):,} models of onnx {onnx.__version__}")
    table.add_row("done", *(f"{done[s]:,}" for s in STEPS))
    for reason, counts in sorted(refused.items(), key=lambda r: -r[1].total()):
        table.add_row(reason, *(f"{counts[s]:,}" if counts[s] else "" for s in STEPS))
    for name, step, line in crashed:
        table.add_row(f"[red]{name}: {line}", *("crashed" if s == step else "" for s in STEPS))
    Console(width=160).print(table)
    sys.exit(1 if crashed else 0)


if __name__ == "__main__":
    main()
