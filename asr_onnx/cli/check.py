"""``asr-onnx check``: does a model still hold the mask it was pruned to?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asr_onnx.cli.options import FILE, FORCE, QUIET, REPORT, command, group, of, option, record
from asr_onnx.cli.resolved import resolved
from asr_onnx.cli.terminal import Terminal, complain
from asr_onnx.declare import fields_of
from asr_onnx.errors import AsrError, QualityError, UsageError
from asr_onnx.files import write_text
from asr_onnx.graph import model_file
from asr_onnx.options import PruneOptions
from asr_onnx.provenance import dumps, sha256
from asr_onnx.pruning.mask_check import NEITHER, MaskCheck
from asr_onnx.pruning.mask_check import check as check_model
from asr_onnx.reports import mask_tables
from asr_onnx.reports.files import check_reports, write_reports

KIND = "asr_onnx_check"


@command()
@click.argument("models", type=FILE, nargs=-1, required=True, metavar="MODEL...")
@group(
    "What has to hold",
    of(
        PruneOptions,
        "pattern",
        "sparsity",
        pattern="At most N of every M weights along the input channels are not zero, e.g. 2:4.",
        sparsity="Share of the weights that is zero at least, 0.8 or 80%; with --pattern in layers "
        "that hold it, and others may be dense.",
    ),
)
@group(
    "Where",
    of(
        PruneOptions,
        "only_eligible",
        "ops",
        "include",
        "exclude",
        ops="Operators to look at.",
        include="Look at weights or nodes that match only.",
        exclude="Leave out weights or nodes that match.",
    ),
)
@group(
    "Output",
    REPORT,
    option("--json", "json_path", type=FILE, help="The same as --report FILE.json; - is stdout."),
    FORCE,
    QUIET,
)
def check(
    models: tuple[Path, ...],
    json_path: Path | None,
    reports: tuple[Path, ...],
    force: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """See that each MODEL still holds the mask it was pruned to; fast, as nothing is run.

    Options say what is prunable, as those of prune and repair did.  Exit code 3: a mask is broken.
    """
    options = record(PruneOptions, settings)
    if settings["pattern"] is None and settings["sparsity"] is None:
        raise click.UsageError(NEITHER)
    if options.narrows:
        raise click.UsageError("--pattern channel: channels that are gone leave nothing to check")
    to_stdout = str(json_path) == "-"
    if json_path and not to_stdout:
        model_file.check_target(json_path, None, force)
        if any(json_path.resolve() == path.resolve() for path in models):
            raise UsageError(f"--json '{json_path}' is a model that is read: name another file")
    check_reports(reports, None if to_stdout else json_path, force, "that of --json", KIND)
    found = {str(path): _checked(path, options) for path in models}
    out = Terminal(stderr=to_stdout, quiet=quiet)
    for name, result in found.items():
        if isinstance(result, MaskCheck) and result.passed:
            out.say(f"{name}: {mask_tables.passed(result)}")
    if json_path or reports:
        content = _content(found, options)
        if to_stdout:
            click.echo(dumps(content), nl=False)
        elif json_path:
            write_text(json_path, dumps(content))
        write_reports(reports, content)
    _conclude(found)


def _checked(path: Path, options: PruneOptions) -> MaskCheck | AsrError:
    """What is found in a model, or why it cannot be checked: the others are looked at all the same.

    Raises ``UsageError`` for what no model can be checked for.
    """
    try:
        return check_model(
            model_file.load(path, in_place=True).proto,
            pattern=options.structure,
            sparsity=options.sparsity,
            ops=options.ops,
            include=options.include,
            exclude=options.exclude,
        )
    except AsrError as error:
        return error


def _content(found: mask_tables.Checked, options: PruneOptions) -> dict[str, Any]:
    known = options.to_dict() | {"sparsity": options.sparsity}
    names = [
        n for n in fields_of(PruneOptions) if n not in ("macs", "channel_multiple", "row_scale")
    ]
    read = [Path(n) for n, r in found.items() if isinstance(r, MaskCheck)]
    files = sha256(model_file.files(*read))
    return mask_tables.to_dict(found, {n: known[n] for n in names}, files=files, config=resolved())


def _conclude(found: mask_tables.Checked) -> None:
    """Tell what is wrong, a line each, and raise the error that it amounts to."""
    broken, errors = 0, []
    for name, result in found.items():
        if isinstance(result, AsrError):
            errors.append(result)
            if len(found) > 1:
                complain(f"{name}: {result}")
        elif not result.passed:
            broken += 1
            for line in mask_tables.violations(result):
                complain(f"{name}: {line}")
    if errors and len(found) == 1:
        raise errors[0]
    if errors:
        kind = UsageError if all(isinstance(e, UsageError) for e in errors) else AsrError
        raise kind(f"{len(errors)} of {len(found)} models cannot be checked")
    if broken:
        raise QualityError(f"{broken} of {len(found)} models do not hold their mask")
