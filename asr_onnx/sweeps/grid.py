"""Repair a model at many sparsities and by several recipes; what is finished is not done again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, fields
from itertools import chain
from pathlib import Path
from typing import Any

from asr_onnx.errors import AsrError, UsageError
from asr_onnx.evaluation.preflight import check_preprocessing
from asr_onnx.options import RepairOptions, recipe
from asr_onnx.sweeps.folder import SweepFolder
from asr_onnx.sweeps.jobs import count_workers, make_jobs, results
from asr_onnx.sweeps.results import to_dict, write_results
from asr_onnx.sweeps.source import Opened, Source, digest, open_source
from asr_onnx.sweeps.work import Progress, Task, prune_options

SPARSITIES = (0.5, 0.7, 0.9)
RECIPES = ("asr", "best")
CELLS_PER_WALK = 4

_NO_RESULT = ("memory_limit", "providers")  # options that change no result; the device is told
_PATHS = ("calib", "data", "labels", "classes")
_COMMON = ("ops", "include", "exclude", "row_scale", "providers", "memory_limit")


def sweep(
    model: str | Path,
    calib: str | Path | None,
    output: str | Path,
    *,
    sparsities: Iterable[float] = (),
    patterns: Iterable[str] = (),
    recipes: Iterable[str] = RECIPES,
    data: str | Path | None = None,
    jobs: int | None = None,
    cells_per_walk: int = CELLS_PER_WALK,
    force: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """The accuracy-sparsity curve of the model in a file: ``recipes`` x (``sparsities``, patterns).

    ``calib`` and the labelled ``data`` are paths.  ``settings`` are the command's other options by
    name: those of ``Source``, and ops, include, exclude, row_scale, providers and memory_limit
    (bytes, of all jobs together).  Without sparsities and patterns there are ``SPARSITIES``.
    The missing cells of a recipe go together, at most ``cells_per_walk`` of them, and such groups
    in parallel, ``jobs`` at a time, by whatever backend ``joblib.parallel_config`` names.
    ``output`` is a folder; everything finished is kept there, and taken from there the next time.
    ``progress`` is called with (done, total, what), ``tell`` with a line worth knowing.

    Returns what is written to sweep.json, see docs/sweep.md; a cell that failed has an ``error``
    there.  Raises ``AsrError`` for what spoils all of them, ``UsageError`` for options.
    """
    common = {name: _listed(settings.pop(name, None)) for name in _COMMON}
    cells = grid(recipes, sparsities, patterns, **common)
    given = {"calib": calib, "data": data, "providers": common["providers"], **settings}
    if unknown := given.keys() - {f.name for f in fields(Source)}:
        raise UsageError(f"a sweep has no option {', '.join(map(repr, sorted(unknown)))}")
    given = {k: _listed(v) for k, v in given.items() if v is not None}
    given |= {k: Path(given[k]) for k in _PATHS if k in given}
    given["load_inputs"] = tuple(map(Path, given.get("load_inputs", ())))
    source = Source(Path(model), **given)
    return run(source, cells, Path(output), jobs, cells_per_walk, force, progress, tell)


def _listed(value: Any) -> Any:
    """Lists as tuples, which are never changed and can be compared."""
    return tuple(value) if isinstance(value, list) else value


def grid(
    recipes: Iterable[str], sparsities: Iterable[float], patterns: Iterable[str], **common: Any
) -> tuple[RepairOptions, ...]:
    """The cells, recipe by recipe, each once; ``common`` options are given to all.

    Raises ``UsageError`` for values that cannot be meant, and when there are no cells.
    """
    sparsities, patterns, recipes = tuple(sparsities), tuple(patterns), tuple(recipes)
    if not recipes:
        raise UsageError("no recipes to sweep: give some, such as asr,best")
    points: list[dict[str, Any]] = [{"sparsity": float(s)} for s in sparsities]
    points += [{"pattern": p} for p in patterns]
    points = points or [{"sparsity": s} for s in SPARSITIES]
    cells = (recipe(name, **point, **common) for name in recipes for point in points)
    return tuple(dict.fromkeys(cells))


def run(
    source: Source,
    cells: Sequence[RepairOptions],
    output: Path,
    jobs: int | None = None,
    cells_per_walk: int = CELLS_PER_WALK,
    force: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """``sweep`` of a grid of cells."""
    if cells_per_walk < 1:
        raise UsageError(f"{cells_per_walk} cells per walk are too few")
    workers = count_workers(jobs)
    folder = SweepFolder(output, force)
    opened = open_source(source)
    tasks = plan(opened, cells)
    found = {t.key: record for t in tasks if (record := folder.read(t.key)) is not None}
    missing = [t for t in tasks if t.key not in found]
    if tell:
        for line in _news(opened, sum(t.kind == "cell" for t in missing), len(cells)):
            tell(line)
    folder.create()
    failed: dict[str, str] = {}
    queue = make_jobs(opened, missing, cells_per_walk, workers)
    with closing(results(queue, opened, jobs, workers, progress)) as ended:
        for done in chain.from_iterable(ended):
            if done.record is not None:
                folder.write(done.task.key, done.record)
                found[done.task.key] = done.record
            elif done.task.kind == "dense":  # then no model can be judged on these data
                raise AsrError(done.failed)
            else:
                failed[done.task.key] = done.failed
    told = to_dict(opened, tasks, found, failed)
    write_results(folder.path, told)
    return told


def _news(opened: Opened, missing: int, cells: int) -> Iterator[str]:
    """What is worth knowing before the work; data are looked at only if there is some."""
    if opened.note:
        yield opened.note
    data = opened.calibration
    yield f"calibration: {data.num_solve + data.num_held_out} samples, {opened.preprocessing}"
    yield f"{cells - missing} of {cells} cells were finished before"
    warning = check_preprocessing(opened.proto, data, opened.device) if missing else None
    if warning:
        yield f"warning: {warning}"


def plan(opened: Opened, cells: Sequence[RepairOptions]) -> list[Task]:
    """All that is to be measured: the dense model, each pruned one once, the cells."""
    identity = opened.identity
    without = {**identity, "calibration": None}  # accuracy of the dense model is on other data
    tasks = [Task(f"dense-{digest(without)}", "dense", cells[0])] if opened.labelled else []
    pruned: dict[str, Task] = {}
    repaired = []
    for cell in cells:
        base = asdict(prune_options(cell))
        key = f"pruned-{digest([identity, base])}"
        pruned.setdefault(key, Task(key, "pruned", cell))
        options = {k: v for k, v in cell.to_dict().items() if k not in _NO_RESULT}
        repaired.append(Task(f"cell-{digest([identity, options])}", "cell", cell))
    return [*tasks, *pruned.values(), *repaired]
