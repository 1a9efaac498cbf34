"""Files beside the documentation that are pages of the site, too: CHANGELOG.md, CONTRIBUTING.md."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ("CHANGELOG.md", "CONTRIBUTING.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make a page of each, with links as seen from the documentation's folder."""
    for name in TEXTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        inside = re.sub(r"\]\(docs/", "](", text)
        files.append(File.generated(config, name.lower(), content=inside))
    return files
