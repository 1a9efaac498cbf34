"""Polygraphy's ``surgeon prune``: 2:4 by magnitude, without repair."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import common


def run(model: Path, calibration: Path, output: Path, cell: str, variant: str) -> None:
    """Write the pruned model."""
    code = "from polygraphy.tools import main; main()"
    words = ["surgeon", "prune", str(model), "-o", str(output)]
    subprocess.run([sys.executable, "-c", code, *words], check=True)


if __name__ == "__main__":
    common.main(run)
