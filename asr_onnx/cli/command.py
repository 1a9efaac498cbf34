"""A command with grouped help that takes options from its command line, a file or a report."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from asr_onnx.cli import config
from asr_onnx.cli.config import Layer
from asr_onnx.cli.conflicts import without_conflicts
from asr_onnx.cli.from_report import Run, run_of
from asr_onnx.cli.parameters import GroupedOption, options_of
from asr_onnx.cli.resolved import lines_about, to_toml
from asr_onnx.cli.terminal import complain
from asr_onnx.errors import UsageError

_GROUP = "Configuration"
_LAYER = "asr_onnx.layer"  # where a context keeps what is not of the command line


class GroupedCommand(click.Command):
    """A command whose ``--help`` lists its options group by group, in the order of their making.

    ``repeats``: reports tell its options and arguments, and ``--from-report`` takes them.
    """

    def __init__(self, *args: Any, repeats: bool = False, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params += _options(repeats)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            shown = parameter.get_help_record(ctx)
            if shown is not None and isinstance(parameter, click.Option):
                title = getattr(parameter, "group", "") or "Help"
                groups.setdefault(title, []).append(shown)
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with what a file or a report says in place of defaults."""
        words, arguments = self._words(ctx, args)
        helps = self.get_help_option(ctx)
        if ctx.resilient_parsing or (helps and helps.name in words):
            return super().parse_args(ctx, args)
        run = _repeated(ctx, words, arguments)
        layer = run.layer if run else _from_file(ctx, words)
        dropped: dict[str, str] = {}
        if layer:
            known = {str(o.name) for o in options_of(self).values()}
            dropped = without_conflicts(words, layer.values, known)
            layer = layer.without({*dropped, *words})
            ctx.default_map = dict(layer.values)
        if words.get("show_config"):
            click.echo(to_toml(ctx, self._given(ctx, words), layer), nl=False)
            ctx.exit()
        if run and not arguments:
            args = [*args, "--", *run.arguments]
        rest = super().parse_args(ctx, args)
        if layer and not ctx.params.get("quiet"):
            for line in (*lines_about(layer, dropped, ctx), *(run.notes if run else ())):
                complain(line)
        ctx.meta[_LAYER] = layer
        return rest

    def _words(self, ctx: click.Context, args: list[str]) -> tuple[dict[str, Any], list[str]]:
        """Words of the options that the command line gives, by parameter; and the arguments."""
        found, _, _ = self.make_parser(ctx).parse_args(args=[*args])
        given = {n: v for n, v in found.items() if isinstance(v, str | bool | list | tuple)}
        arguments: list[str] = []
        for parameter in self.params:
            if isinstance(parameter, click.Argument):
                value: Any = given.pop(str(parameter.name), ())
                arguments += [value] if isinstance(value, str) else value
        return given, arguments

    def _given(self, ctx: click.Context, words: dict[str, Any]) -> dict[str, Any]:
        """The options that were given, parsed, by parameter; none is missed."""
        found = {}
        for option in options_of(self).values():
            value, source = option.consume_value(ctx, words)
            if source is not click.core.ParameterSource.DEFAULT:
                found[str(option.name)] = option.type_cast_value(ctx, value)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """As click does; an error about options of a file says where they stand."""
        layer = ctx.meta.get(_LAYER)
        try:
            return super().invoke(ctx)
        except (UsageError, click.UsageError) as error:
            if layer is None:
                raise
            text = error.message if isinstance(error, click.UsageError) else str(error)
            told = [layer.places[n] for n in layer.values if _names(self, n, text)]
            if not told:
                raise
            text = f"{text} ({' and '.join(told)} of '{layer.source}')"
            if isinstance(error, click.UsageError):
                raise click.UsageError(text, error.ctx) from None
            raise UsageError(text) from None


def _options(repeats: bool) -> list[GroupedOption]:
    """Options about options, which no command sees."""
    file = click.Path(path_type=Path)
    settings: dict[str, Any] = {"group": _GROUP, "expose_value": False}
    found = [
        GroupedOption(
            ["--config"],
            type=file,
            help=f"File of options.  [default: {config.VARIABLE}, or {config.NAME} or "
            f"{config.PYPROJECT} here or in a folder above]",
            **settings,
        ),
        GroupedOption(["--no-config"], is_flag=True, help="Take options from no file.", **settings),
        GroupedOption(
            ["--show-config"],
            is_flag=True,
            help="Print the options as a file of them, and where each is from, and do nothing.",
            **settings,
        ),
    ]
    if repeats:
        found.append(
            GroupedOption(
                ["--from-report"],
                type=file,
                help="Options and arguments of the run that a JSON report is of, but for what is "
                "given here; no file of options is read.",
                **settings,
            )
        )
    return found


def _repeated(ctx: click.Context, words: dict[str, Any], arguments: list[str]) -> Run | None:
    """The run that is to be repeated, if any."""
    report = words.get("from_report")
    if report is None:
        return None
    if words.get("config"):
        raise click.UsageError("--from-report and --config exclude each other: leave one out")
    return run_of(Path(report), ctx, arguments, words.get("dense"))


def _from_file(ctx: click.Context, words: dict[str, Any]) -> Layer | None:
    """What the file of options says, if there is one."""
    path = words.get("config")
    if words.get("no_config"):
        if path:
            raise click.UsageError("--config and --no-config exclude each other: leave one out")
        return None
    path = path or os.environ.get(config.VARIABLE)
    file = config.read(Path(path)) if path else config.find()
    if file is None:
        return None
    parent = ctx.parent.command if ctx.parent else None
    commands = dict(parent.commands) if isinstance(parent, click.Group) else {}
    commands[str(ctx.command.name)] = ctx.command
    return config.layer_of(file, str(ctx.command.name), commands, ctx)


def _names(command: click.Command, name: str, text: str) -> bool:
    """Whether a message names an option, as a flag or by the field that declares it."""
    option = next(o for o in options_of(command).values() if o.name == name)
    flags = "|".join(map(re.escape, (*option.opts, *option.secondary_opts)))
    field = re.escape(name.removesuffix("s")).replace("_", "[-_ ]") + "s?"
    return re.search(rf"(?<![\w-])(?:{flags}|{field})(?![\w-])", text) is not None


def command(**settings: Any) -> Callable[[Callable[..., Any]], GroupedCommand]:
    """Make a function a command with grouped help."""
    return click.command(cls=GroupedCommand, **settings)
