"""The jobs of a sweep: which models are measured together, and who does it, by joblib."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import replace
from itertools import groupby

from joblib import Parallel, delayed, effective_n_jobs

from asr_onnx.errors import AsrError, UsageError
from asr_onnx.execution.tensor_store import default_limit
from asr_onnx.parallel import Progress
from asr_onnx.sweeps.source import Opened, digest
from asr_onnx.sweeps.work import Done, Group, Task, do, do_anywhere


def count_workers(jobs: int | None) -> int:
    """How many jobs run at a time; ``None``: what the backend in use has, by itself one.

    Raises ``UsageError`` for 0.
    """
    if jobs == 0:
        raise UsageError("0 jobs do nothing: give at least 1, or -1 for one per processor")
    return max(int(effective_n_jobs(jobs)), 1)


def make_jobs(opened: Opened, tasks: Sequence[Task], most: int, workers: int) -> list[Group]:
    """Groups of at most ``most`` tasks, smaller where some of the ``workers`` would be idle.

    Cells go with cells of their recipe, other models together.  Several workers share the memory.
    """
    size = max(1, min(most, -(-len(tasks) // workers)))
    identity = digest(opened.identity)
    source = opened.source
    if workers > 1:
        limit = source.execution.memory_limit
        share = (default_limit() if limit is None else limit) // max(min(workers, len(tasks)), 1)
        execution = replace(source.execution, memory_limit=share)
        source = replace(source.absolute(), execution=execution)
    jobs = []
    for _, group in groupby(tasks, lambda t: t.options.recipe if t.kind == "cell" else ""):
        members = tuple(group)
        for start in range(0, len(members), size):
            jobs.append(Group(source, identity, members[start : start + size]))
    return jobs


def results(
    queue: Sequence[Group],
    opened: Opened,
    jobs: int | None,
    workers: int,
    progress: Progress | None = None,
) -> Generator[list[Done]]:
    """What comes of each job, in the order they end; a single worker is this process.

    ``progress`` is called with (done, total, what), counting the models of the queue.
    Raises ``AsrError`` when a worker dies or cannot open the source.
    """
    total, ended = sum(len(j.tasks) for j in queue), 0
    report = progress or _ignore
    for found in _here(queue, opened, report) if workers == 1 else _elsewhere(queue, jobs, workers):
        yield found
        ended += len(found)
        report(ended, total, "finished")


def _ignore(done: int, total: int, what: str) -> None:
    """Progress that nobody looks at."""


def _here(queue: Sequence[Group], opened: Opened, report: Progress) -> Iterator[list[Done]]:
    total, ended = sum(len(j.tasks) for j in queue), 0
    for job in queue:

        def within(step: int, steps: int, what: str, job: Group = job, ended: int = ended) -> None:
            report(ended, total, f"{job.label}: {what} ({step + 1}/{steps})")

        yield do(job, opened, within)
        ended += len(job.tasks)


def _elsewhere(queue: Sequence[Group], jobs: int | None, workers: int) -> Iterator[list[Done]]:
    calls = [delayed(do_anywhere)(job) for job in queue]
    # Jobs are long: one at a time for each worker, so that few are under way when this one dies.
    settings = {"n_jobs": jobs, "batch_size": 1, "pre_dispatch": "n_jobs"}
    try:
        try:
            pool = Parallel(**settings, return_as="generator_unordered")
        except ValueError:  # Ray's backend, say, gives nothing back before the last call has ended
            pool = Parallel(**settings)
            for start in range(0, len(calls), workers):
                yield from pool(calls[start : start + workers])
        else:
            with closing(pool(calls)) as found:
                yield from found
    except BrokenProcessPool:
        raise AsrError(
            "a worker process died, most likely for want of memory: give fewer --jobs, fewer "
            "--cells-per-walk or a --memory-limit; what is finished is kept"
        ) from None
