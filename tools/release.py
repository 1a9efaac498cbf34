"""What a release has to be before it is published: its tag is its version, and it has notes.

    python tools/release.py v0.1.0 > notes.md

prints what CHANGELOG.md says of the version, for the release's page; exit code 1 and one line where
something does not fit.
"""

from __future__ import annotations

import re
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
_HEADING = re.compile(r"^## (\S+) \((.+)\)$", re.MULTILINE)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def version(root: Path) -> str:
    """The version of the package, where it is written down; nothing is imported for it."""
    text = (root / "asr_onnx" / "provenance.py").read_text(encoding="utf-8")
    (found,) = re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    return str(found)


def notes(root: Path, tag: str) -> str:
    """What is new in the version that ``tag`` names; ``ClickException`` for what does not fit."""
    number = version(root)
    if tag != f"v{number}":
        raise click.ClickException(f"tag {tag} is not v{number}, the version in provenance.py")
    cited = (root / "CITATION.cff").read_text(encoding="utf-8")
    if f"\nversion: {number}\n" not in cited:
        raise click.ClickException(f"CITATION.cff is not of version {number}")
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    parts = _HEADING.split(text)[1:]  # version, date, text, and so on
    found = {v: (day, body.strip()) for v, day, body in zip(*[iter(parts)] * 3, strict=True)}
    day, body = found.get(number, ("", ""))
    if not body:
        raise click.ClickException(f"CHANGELOG.md says nothing of {number}")
    if not _DATE.fullmatch(day):
        raise click.ClickException(f"CHANGELOG.md gives {number} as '{day}': write the date there")
    return body


@click.command()
@click.argument("tag")
def main(tag: str) -> None:
    """Print the notes of the release that TAG, such as v0.1.0, names."""
    click.echo(notes(ROOT, tag))


if __name__ == "__main__":
    main()
