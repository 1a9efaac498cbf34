"""The cells of a sweep, and how they are shared out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from asr_onnx import Execution, PruneOptions, UsageError
from asr_onnx.sweeps.grid import GridOptions, tasks_of
from asr_onnx.sweeps.jobs import make_jobs
from asr_onnx.sweeps.source import Source, open_source


def cells(recipes, sparsities, patterns, macs=(), **common):
    grid = GridOptions(recipes=recipes, sparsities=sparsities, patterns=patterns, macs=macs)
    return grid.cells(PruneOptions(**common))


def test_a_grid_has_each_cell_once():
    ops = ("Conv", "Gemm")
    found = cells(["best", "asr", "best"], [0.5, 0.50, 0], ["2:4", "2:4"], ops=ops)
    points = [(c.recipe, str(c.pattern) if c.pattern else c.sparsity) for c in found]
    assert points == [(recipe, point) for recipe in ("best", "asr") for point in (0.5, 0.0, "2:4")]
    assert {c.ops for c in found} == {ops}
    assert [c.sparsity for c in cells(["asr"], [], [])] == [0.5, 0.7, 0.9]
    assert [str(c.pattern) for c in cells(["asr"], [], ["2:4"])] == ["2:4"]


def test_shares_of_the_work_are_cells_of_the_pattern_channel():
    found = cells(["asr"], [0.5], ["2:4", "channel"], macs=[0.7, 0.5])
    amounts = ["50 %", "2:4", *(f"{n} % of the multiply-accumulates: channel" for n in (70, 50))]
    assert [c.amount for c in found] == amounts
    assert [c.macs_left for c in cells(["asr"], [], [], macs=0.5)] == [0.5]
    assert [c.macs_left for c in cells(["asr"], [], ["channel"])] == [0.7]
    with pytest.raises(UsageError, match="macs 'half' is not numbers"):
        cells(["asr"], [], [], macs="half")
    with pytest.raises(UsageError, match="outside"):
        cells(["asr"], [], [], macs=[1.5])


def test_jobs_hold_one_recipe_and_keep_all_workers_busy(cases):
    opened = open_source(Source(model=Path("m.onnx"), calib=Path("c.npy"), data=Path("t.npy"),
                                labels=Path("l.npy"), holdout=0.5, batch_size=10))  # fmt: skip
    tasks = tasks_of(opened, cells(["asr", "best"], [0.5, 0.6, 0.7, 0.8, 0.9], ["2:4"]))

    def sizes(most, workers):
        jobs = make_jobs(opened, tasks, most, workers)
        assert [t.key for j in jobs for t in j.tasks] == [t.key for t in tasks]
        assert all(len({t.options.recipe for t in j.tasks if t.kind == "cell"}) <= 1 for j in jobs)
        return [len(j.tasks) for j in jobs]

    assert sizes(4, 1) == [4, 3, 4, 2, 4, 2]
    assert sizes(100, 1) == [7, 6, 6]
    assert sizes(100, 10) == [2, 2, 2, 1, 2, 2, 2, 2, 2, 2]
    assert sizes(100, 1000) == [1] * 19
    assert all(j.source.model.is_absolute() for j in make_jobs(opened, tasks, 4, 2))
    limited = replace(opened.source, execution=Execution(memory_limit=1 << 30))
    shares = make_jobs(replace(opened, source=limited), tasks, 4, 2)
    assert {j.source.execution.memory_limit for j in shares} == {1 << 29}
