"""Repair a model at many sparsities and by several recipes; what is finished is not done again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from numbers import Real
from pathlib import Path
from typing import Any

from asr_onnx.data.enough import check_enough
from asr_onnx.declare import fields_of, fill, option
from asr_onnx.errors import AsrError, UsageError
from asr_onnx.evaluation.preflight import check_preprocessing
from asr_onnx.machine import Execution
from asr_onnx.options import PruneOptions, RepairOptions, recipe
from asr_onnx.parallel import Progress
from asr_onnx.recipes import RECIPES as KNOWN
from asr_onnx.sweeps.folder import SweepFolder
from asr_onnx.sweeps.jobs import count_workers, make_jobs, results
from asr_onnx.sweeps.results import SweepResult, to_dict, write_results
from asr_onnx.sweeps.source import Opened, Source, digest, open_source
from asr_onnx.sweeps.work import Task, prune_options

SPARSITIES = (0.5, 0.7, 0.9)
RECIPES = ("asr", "best")

SITES = ("ops", "include", "exclude", "row_scale")  # the options on sites, common to all cells

_PATHS = ("calib", "data", "labels", "classes")


@dataclass(frozen=True, kw_only=True)
class GridOptions:
    """The cells, ``recipes`` x (``sparsities``, ``patterns``, ``macs``), and how they are shared.

    Raises ``UsageError`` for invalid values.
    """

    sparsities: tuple[float, ...] = option(
        (),
        "Shares of the weights to zero, separated by commas.  "
        f"[default: {','.join(map(str, SPARSITIES))}, without --patterns and --macs]",
        kind="numbers",
    )
    patterns: tuple[str, ...] = option(
        (), "Patterns, separated by commas, e.g. 2:4,channel.", kind="words"
    )
    macs: tuple[float, ...] = option(
        (),
        "Shares of the multiply-accumulates that stay as channels go, separated by commas.",
        kind="numbers",
    )
    recipes: tuple[str, ...] = option(
        RECIPES, f"Of {', '.join(KNOWN)}; see repair --help.", kind="words"
    )
    cells_per_walk: int = option(
        4,
        "Cells of a recipe that are repaired together.  More share more of the work, take more "
        "memory, and are lost together when the sweep is interrupted.",
        kind="positive",
    )
    jobs: int | None = option(
        None,
        "Groups of cells at work at a time, each in a process of its own.  [default: 1]",
        kind="positive",
    )

    def __post_init__(self) -> None:
        fill(self)
        for name in ("sparsities", "macs"):
            given: Any = getattr(self, name)
            if isinstance(given, str):
                raise UsageError(f"{name} '{given}' is not numbers")
            object.__setattr__(self, name, (given,) if isinstance(given, Real) else given)
        for name in ("sparsities", "patterns", "macs", "recipes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.recipes:
            raise UsageError("no recipes to sweep: give some, such as asr,best")
        if self.cells_per_walk < 1:
            raise UsageError(f"{self.cells_per_walk} cells per walk are too few")

    def cells(self, common: PruneOptions) -> tuple[RepairOptions, ...]:
        """The cells, recipe by recipe, each once; ``common`` says which sites are pruned."""
        shared = {n: getattr(common, n) for n in SITES}
        points: list[dict[str, Any]] = [{"sparsity": float(s)} for s in self.sparsities]
        points += [{"pattern": p} for p in self.patterns if not (self.macs and p == "channel")]
        points += [{"pattern": "channel", "macs": float(m)} for m in self.macs]
        points = points or [{"sparsity": s} for s in SPARSITIES]
        cells = (recipe(name, **point, **shared) for name in self.recipes for point in points)
        return tuple(dict.fromkeys(cells))


def sweep(
    model: str | Path,
    calib: str | Path | None,
    output: str | Path,
    *,
    force: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    **settings: Any,
) -> SweepResult:
    """The accuracy-sparsity curve of the model in a file: recipes x (sparsities, patterns, macs).

    ``settings`` are the command's other options by name: those of ``GridOptions``, ``Source``,
    ``Execution`` (memory is that of all jobs together) and of ``PruneOptions`` which sites are
    pruned.  The missing cells of a recipe go together, at most ``cells_per_walk`` of them, and such
    groups in parallel, ``jobs`` at a time, by whatever backend ``joblib.parallel_config`` names.
    ``output`` is a folder; everything finished is kept there, and taken from there the next time.
    ``progress`` is called with (done, total, what), ``tell`` with a line worth knowing.

    Returns what is written to sweep.json, see docs/sweep.md; a cell that failed has an ``error``
    there.  Raises ``AsrError`` for what spoils all of them, ``UsageError`` for options.
    """
    given = {"calib": calib, **settings}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if v is not None}
    given |= {k: Path(given[k]) for k in _PATHS if k in given}
    given["load_inputs"] = tuple(map(Path, given.get("load_inputs", ())))
    names = {k: fields_of(k) for k in (GridOptions, Execution, Source)} | {PruneOptions: SITES}
    own = {k: {n: given[n] for n in chosen if n in given} for k, chosen in names.items()}
    if unknown := given.keys() - {n for values in own.values() for n in values}:
        raise UsageError(f"a sweep has no option {', '.join(map(repr, sorted(unknown)))}")
    source = Source(model=Path(model), execution=Execution(**own[Execution]), **own[Source])
    grid, common = GridOptions(**own[GridOptions]), PruneOptions(**own[PruneOptions])
    return run(source, grid, common, Path(output), force, progress, tell)


def run(
    source: Source,
    grid: GridOptions,
    common: PruneOptions,
    output: Path,
    force: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    config: Mapping[str, Any] | None = None,
) -> SweepResult:
    """``sweep`` of what the records say; ``config`` tells where they come from, for sweep.json."""
    cells = grid.cells(common)
    workers = count_workers(grid.jobs)
    folder = SweepFolder(output, force)
    opened = open_source(source)
    tasks = tasks_of(opened, cells)
    found = {t.key: record for t in tasks if (record := folder.read(t.key)) is not None}
    missing = [t for t in tasks if t.key not in found]
    if tell:
        for line in _news(opened, sum(t.kind == "cell" for t in missing), len(cells)):
            tell(line)
    folder.create()
    failed: dict[str, str] = {}
    queue = make_jobs(opened, missing, grid.cells_per_walk, workers)
    with closing(results(queue, opened, grid.jobs, workers, progress)) as ended:
        for done in chain.from_iterable(ended):
            if done.record is not None:
                folder.write(done.task.key, done.record)
                found[done.task.key] = done.record
            elif done.task.kind == "dense":  # then no model can be judged on these data
                raise AsrError(done.failed)
            else:
                failed[done.task.key] = done.failed
    content = to_dict(opened, tasks, found, failed)
    if config is not None:
        content["config"] = config
    write_results(folder.path, content)
    return content


def _news(opened: Opened, missing: int, cells: int) -> Iterator[str]:
    """What is worth knowing before the work; data are looked at only if there is some."""
    yield from opened.notes
    data = opened.batches
    yield f"calibration: {data.num_solve + data.num_held_out} samples, {opened.preprocessing}"
    yield f"{cells - missing} of {cells} cells were finished before"
    if missing:
        misfit = check_preprocessing(opened.proto, data, opened.device)
        for warning in filter(None, (*check_enough(data, force=True), misfit)):
            yield f"warning: {warning}"


def tasks_of(opened: Opened, cells: Sequence[RepairOptions]) -> list[Task]:
    """All that is to be measured: the dense model, each pruned one once, the cells."""
    identity = opened.identity
    without = {**identity, "calibration": None}  # accuracy of the dense model is on other data
    tasks = [Task(f"dense-{digest(without)}", "dense", cells[0])] if opened.labelled else []
    pruned: dict[str, Task] = {}
    repaired = []
    for cell in cells:
        base = prune_options(cell).to_dict()
        key = f"pruned-{digest([identity, base])}"
        pruned.setdefault(key, Task(key, "pruned", cell))
        key = f"cell-{digest([identity, cell.to_dict()])}"
        repaired.append(Task(key, "cell", cell))
    return [*tasks, *pruned.values(), *repaired]
