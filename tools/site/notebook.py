"""The tutorial as a page of the site: its cells are run by a kernel and shown with outputs."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from nbclient import NotebookClient
from nbformat import NotebookNode

SOURCE, PAGE = "tutorial.ipynb", "tutorial.md"
ROOT = Path(__file__).resolve().parents[2]
FORMATS = ("text/html", "image/svg+xml", "image/png", "text/plain")  # the best first
SECONDS = 120  # for a cell


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Run the notebook in a folder of its own; the notebook itself is there to be downloaded."""
    notebook = nbformat.read(Path(config.docs_dir) / SOURCE, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sample_models").symlink_to(ROOT / "sample_models")
        NotebookClient(
            notebook,
            timeout=SECONDS,
            resources={"metadata": {"path": folder}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        ).execute()
    files.append(File.generated(config, PAGE, content=rendered(notebook)))
    source = files.get_file_from_path(SOURCE)
    assert source, f"{SOURCE} is not in the documentation's folder"
    source.inclusion = InclusionLevel.INCLUDED
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead to the page where another one names the notebook."""
    if page.file.src_uri == PAGE:
        return markdown
    return markdown.replace(f"{SOURCE})", f"{PAGE})")


def rendered(notebook: NotebookNode) -> str:
    """Texts as they are, code in fences, outputs behind it."""
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        parts += filter(None, map(_output, cell.outputs))
    parts.append(f"This page as [a notebook]({SOURCE}).")
    return "\n\n".join(parts) + "\n"


def _output(output: NotebookNode) -> str:
    """What a cell printed or showed; nothing of what goes to stderr."""
    if output.output_type == "stream":
        return _plain(output.text) if output.name == "stdout" else ""
    kind = next(f for f in FORMATS if f in output.data)
    content = "".join(output.data[kind])
    if kind == "text/plain":
        return _plain(content)
    if kind == "image/png":
        return f'<img alt="" src="data:image/png;base64,{content.strip()}">'
    return f'<div class="output">\n{re.sub(chr(10) + "{2,}", chr(10), content.strip())}\n</div>'


def _plain(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```"
