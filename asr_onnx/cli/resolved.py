"""The options of a command as they are in the end, and where each comes from: for reports, as TOML.

Only what was given is an option there; the others are told of as defaults, because giving an option
its default is not always the same as leaving it out: ``--criterion magnitude`` settles the recipe.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import click

from asr_onnx.cli.config import Layer
from asr_onnx.cli.parameters import GroupedOption, options_of, plain_value
from asr_onnx.recipes import RECIPES

_GIVEN = "command line"


def resolved() -> dict[str, Any] | None:
    """The running command, its arguments and options as JSON can hold them; for reports.

    ``None`` where no command runs.
    """
    ctx = click.get_current_context(silent=True)
    if ctx is None:
        return None
    arguments: list[str] = []
    for parameter in ctx.command.params:
        if isinstance(parameter, click.Argument):
            value = _json(ctx.params[str(parameter.name)])
            arguments += value if isinstance(value, list) else [value]
    options = options_of(ctx.command)
    given = {k: o for k, o in options.items() if _is_given(ctx, o)}
    return {
        "command": ctx.command.name,
        "arguments": arguments,
        "options": {k: _json(ctx.params[str(o.name)]) for k, o in given.items()},
        "defaults": defaults({k: o for k, o in options.items() if k not in given}),
    }


def _json(value: Any) -> Any:
    """A parsed value for a report: JSON has no infinity, its name stands for it."""
    value = plain_value(value)
    if isinstance(value, list):
        return [_json(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _is_given(ctx: click.Context, option: GroupedOption) -> bool:
    source = ctx.get_parameter_source(str(option.name))
    if source is None:  # of a command that another one calls
        return ctx.params.get(str(option.name)) not in (None, (), False)
    return source is not click.core.ParameterSource.DEFAULT


def defaults(options: Mapping[str, GroupedOption]) -> dict[str, Any]:
    """The values of options that are not given, where each is one value."""
    return {
        k: plain_value(o.settled)
        for k, o in options.items()
        if o.settled is not None and o.settled != ()
    }


def to_toml(ctx: click.Context, given: Mapping[str, Any], layer: Layer | None) -> str:
    """The options of ``ctx.command`` as a file of options; ``given`` are those as parsed.

    What is not given is in comments.  A value that is not in ``layer`` is of the command line.
    """
    import tomlkit  # only here, and it takes a while

    document, table = tomlkit.document(), tomlkit.table()
    name = str(ctx.command.name)
    document.add(tomlkit.comment(f"asr-onnx {name}: what is not set here has its default."))
    recipe = RECIPES.get(str(given.get("recipe")), {})
    title = None
    for key, option in options_of(ctx.command).items():
        if option.group != title:
            title = option.group
            table.add(tomlkit.nl())
            table.add(tomlkit.comment(f"{title}"))
        parameter = str(option.name)
        if parameter in given:
            item = tomlkit.item(plain_value(given[parameter]))
            table.add(key, item.comment(_source(parameter, layer)))
            continue
        table.add(tomlkit.comment(_unset(key, option, recipe, str(given.get("recipe")))))
    document.add(name, table)
    return tomlkit.dumps(document)


def _source(name: str, layer: Layer | None) -> str:
    if layer is None or name not in layer.values:
        return _GIVEN
    return _one_line(f"{layer.source} {layer.places.get(name, '')}".strip())


def _unset(key: str, option: GroupedOption, recipe: Mapping[str, Any], named: str) -> str:
    """An option that is not given, and what it is then."""
    import tomlkit

    name = str(option.name)
    if name in recipe:
        return f"{key} = {tomlkit.item(recipe[name]).as_string()}  # recipe {named}"
    told = re.search(r"\[default: (.*)\]", option.help or "", re.DOTALL)
    if option.settled is not None and option.settled != ():
        return f"{key} = {tomlkit.item(plain_value(option.settled)).as_string()}  # default"
    return f"{key} =  # default: {_one_line(told[1])}" if told else f"{key} =  # not given"


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def lines_about(layer: Layer, dropped: Mapping[str, str], ctx: click.Context) -> Iterator[str]:
    """What was taken from elsewhere, and what was not, for people; a line each."""
    names = {str(o.name): k for k, o in options_of(ctx.command).items()}
    if layer.values:
        keys = [k for n, k in names.items() if n in layer.values]
        yield f"options from '{layer.source}': {', '.join(keys)}"
    for name, by in dropped.items():
        yield f"--{names[by]} leaves out {layer.places[name]} of '{layer.source}'"
