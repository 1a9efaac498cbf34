"""The sample models and their images: where they lie, and a copy of them to try things on."""

from __future__ import annotations

import shutil
from pathlib import Path

from asr_onnx.errors import AsrError, UsageError
from asr_onnx.files import check_folder, move, staging
from asr_onnx.interrupts import shielded, wrote

NAME = "sample_models"
MODEL = "digits_resnet_bn.onnx"
CALIB, TEST = Path("digits", "calib"), Path("digits", "test")
PARTS = ("README.md", MODEL, "digits_resnet_folded.onnx", "digits/*/*/*.png")  # also in setup.py


def sample_folder() -> Path:
    """Where the samples lie: in the package when it was installed, beside it in a checkout.

    Raises ``AsrError`` where they are in neither.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / NAME, package.parent / NAME):
        if (folder / MODEL).is_file():
            return folder
    raise AsrError(f"the sample models are not in '{package}': install asr-onnx again")


def copy_samples(target: Path, force: bool = False) -> None:
    """Copy the samples into a new folder, or with ``force`` into one that has other files.

    Files of the same names are then replaced and all others stay.  A new folder comes into being
    whole.  Raises ``UsageError`` for a ``target`` that cannot be used, ``AsrError`` when writing
    fails.
    """
    if target.exists() and not target.is_dir():
        raise UsageError(f"output '{target}' is no folder: name another")
    above = target if target.is_dir() else target.parent
    if not above.is_dir():
        raise UsageError(f"folder '{above}' of the output does not exist")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise UsageError(
            f"folder '{target}' has something in it: name another, or --force to put the samples "
            "beside it"
        )
    check_folder(above)
    source = sample_folder()
    try:
        with staging(above) as folder:
            staged = folder / NAME
            for path in (p for part in PARTS for p in sorted(source.glob(part))):
                place = staged / path.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)  # without its mode, which may be read-only
            _place(staged, target)
    except OSError as error:
        raise AsrError(f"the samples cannot be written to '{target}': {error.strerror}") from None


def _place(staged: Path, target: Path) -> None:
    if not target.is_dir():
        move(staged, target)
        return
    with shielded():
        for path in sorted(p for p in staged.rglob("*") if p.is_file()):
            place = target / path.relative_to(staged)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.replace(place)
        wrote(target)
