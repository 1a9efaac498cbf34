"""Files beside the documentation: two of them are pages of the site, others only named there."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ("CHANGELOG.md", "CONTRIBUTING.md")
PAGES = {"README.md": "index.md"} | {name: name.lower() for name in TEXTS}
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make a page of each, with links as seen from the documentation's folder."""
    for name in TEXTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        inside = re.sub(r"\]\(docs/", "](", text)
        files.append(File.generated(config, name.lower(), content=inside))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead from files of the repository to their pages; a site has no others, they are named."""
    folder = PurePosixPath("docs", page.file.src_uri).parent

    def led(link: re.Match[str]) -> str:
        text, target, anchor = link.groups()
        path = normpath(str(folder / target))
        if path.startswith("docs/") or not (ROOT / path).exists():
            return link[0]
        if path in PAGES:
            kept = anchor if anchor and path in TEXTS else ""
            return f"[{text}]({relpath(f'docs/{PAGES[path]}', folder)}{kept})"
        return text if path in text else f"{text} (`{path}`)"

    return LINK.sub(led, markdown)
