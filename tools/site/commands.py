"""Pages of the command line for the documentation site: one for each command, made from click."""

from __future__ import annotations

import html
import inspect
import re
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from asr_onnx.cli.main import cli

INDEX = "cli/index.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put a page for each command behind the one on all of them."""
    (section,) = (s for s in _lists(config.nav) if INDEX in s)
    section.extend({name: f"cli/{name}.md"} for name in cli.commands)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make the pages."""
    for name, command in cli.commands.items():
        files.append(File.generated(config, f"cli/{name}.md", content=page(name, command)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """List the commands on the page on all of them."""
    if page.file.src_uri != INDEX:
        return markdown
    rows = (f"| [{n}]({n}.md) | {_first(_text(c.help))} |" for n, c in cli.commands.items())
    return "\n".join([markdown, "## Commands", "", "| command | |", "|---|---|", *rows, ""])


def page(name: str, command: click.Command) -> str:
    """What ``--help`` says of a command, options group by group."""
    context = click.Context(
        command, info_name=name, parent=click.Context(cli, info_name="asr-onnx")
    )
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f"# asr-onnx {name}", "", _text(command.help), ""]
    lines += ["```text", f"asr-onnx {name} {usage}", "```", ""]
    groups: dict[str, list[str]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record:
            title = getattr(parameter, "group", "") or "Help"
            groups.setdefault(title, []).extend(_option(*record))
    for title, rows in groups.items():
        lines += [f"## {title}", "", *rows]
    return "\n".join(lines)


def _option(flags: str, told: str) -> list[str]:
    """An option as a definition: its names, and what it does."""
    found = re.search(r"--[a-z0-9-]+", flags)
    anchor = f' id="{found[0].removeprefix("--")}"' if found else ""
    name = f'<p class="option"{anchor}><code>{html.escape(flags)}</code></p>'
    return [name, "", _text(told), "{ .told }", ""]


def _text(text: str | None) -> str:
    """A help text as Markdown: nothing in it is markup; options are code."""
    plain = inspect.cleandoc(text or "").replace("\b", "")
    escaped = re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", plain)
    return re.sub(r"(?<![\w-])--[a-z][a-z0-9-]*", r"`\g<0>`", escaped)


def _first(text: str) -> str:
    """The first sentence."""
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0].replace("\n", " ")


def _lists(nav: Any) -> list[list[Any]]:
    """All lists of a navigation, from the outermost on."""
    if isinstance(nav, dict):
        return [found for value in nav.values() for found in _lists(value)]
    if isinstance(nav, list):
        return [nav, *(found for item in nav for found in _lists(item))]
    return []
