"""Batches samples from image files, and what lies behind a path given as calibration data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from asr_onnx.arrays import AnyArray
from asr_onnx.data.arrays import ArraySamples
from asr_onnx.data.foreign import data_sets, from_test_data
from asr_onnx.data.pictures import read_image
from asr_onnx.data.preprocess import Preprocess, ResolvedPreprocess
from asr_onnx.errors import CalibrationError, UsageError
from asr_onnx.graph.inputs import ModelInput

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
ARRAYS = (".npy", ".npz")


@runtime_checkable
class Samples(Protocol):
    """A sequence of samples; each maps every input's name to an array without batch axis."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, AnyArray]: ...

    def name(self, index: int) -> str:
        """What to call a sample when talking to people."""


class ImageSamples:
    """Image files, decoded when asked for.

    ``paths`` are the files and ``root`` the folder they are named after; their order is kept.
    """

    def __init__(
        self, paths: Sequence[Path], preprocess: ResolvedPreprocess, root: Path | None = None
    ) -> None:
        self.paths = tuple(paths)
        self.root = root
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, AnyArray]:
        """One image, preprocessed; ``CalibrationError`` naming the file when it is unusable."""
        path = self.paths[index]
        return {self.preprocess.input.name: self.preprocess.apply(read_image(path), str(path))}

    def name(self, index: int) -> str:
        """The file's path under the root."""
        return self._relative(index).as_posix()

    def class_folder(self, index: int) -> str:
        """Name of the top folder under the root that the file lies in; empty if it lies in none."""
        parts = self._relative(index).parts
        return parts[0] if self.root and len(parts) > 1 else ""

    def _relative(self, index: int) -> Path:
        return self.paths[index].relative_to(self.root) if self.root else self.paths[index]


def open_samples(
    path: str | Path, inputs: Sequence[ModelInput], preprocess: Preprocess | None = None
) -> ImageSamples | ArraySamples:
    """A folder of images, a .npy, a .npz, or a folder of these, ordered by relative path.

    A folder of ONNX test data (``test_data_set_0/input_0.pb``) will do, too.  Folders may be
    nested; hidden files are ignored.  Raises ``CalibrationError`` naming what is missing, empty,
    mixed or does not fit the model, ``UsageError`` for preprocessing of arrays.
    """
    path = Path(path)
    if not path.exists():
        raise CalibrationError(f"calibration data '{path}' does not exist")
    if not path.is_dir():
        if path.suffix.lower() not in ARRAYS:
            raise CalibrationError(
                f"calibration data '{path}' is neither a folder of images nor a .npy or .npz file"
            )
        check_no_preprocess(f"arrays ('{path}')", preprocess)
        return ArraySamples.from_files([path], inputs)
    if data_sets(path):
        check_no_preprocess(f"arrays ('{path}')", preprocess)
        return from_test_data(path, inputs)
    found = sorted(_files(path), key=lambda p: p.relative_to(path).as_posix())
    images = [p for p in found if p.suffix.lower() in IMAGES]
    arrays = [p for p in found if p.suffix.lower() in ARRAYS]
    if images and arrays:
        raise CalibrationError(
            f"calibration folder '{path}' mixes images ('{images[0].relative_to(path)}') and "
            f"arrays ('{arrays[0].relative_to(path)}'): give a folder with one kind"
        )
    if arrays:
        check_no_preprocess(f"arrays ('{path}')", preprocess)
        return ArraySamples.from_files(arrays, inputs, path)
    if not images:
        raise CalibrationError(
            f"calibration folder '{path}' has no samples: put {', '.join((*IMAGES, *ARRAYS))} in it"
        )
    if len(inputs) != 1:
        names = ", ".join(f"'{i.name}'" for i in inputs)
        raise CalibrationError(
            f"calibration folder '{path}' has images, but the model has {len(inputs)} inputs "
            f"({names}): give a .npz with an array for each"
        )
    return ImageSamples(images, (preprocess or Preprocess()).resolve(inputs[0]), path)


def take(samples: Samples, count: int, seed: int) -> tuple[int, ...]:
    """Indices of ``count`` samples (of all, when there are fewer) in a random order from ``seed``.

    Raises ``UsageError`` for less than one sample or a negative seed.
    """
    if count < 1:
        raise UsageError(f"number of samples {count} is not positive")
    if seed < 0:
        raise UsageError(f"seed {seed} is negative")
    return tuple(np.random.default_rng(seed).permutation(len(samples))[:count].tolist())


def check_no_preprocess(what: str, preprocess: Preprocess | None) -> None:
    """``UsageError`` when someone expects other data than image files to be preprocessed."""
    if preprocess not in (None, Preprocess()):
        raise UsageError(
            f"{what} are fed as they are: leave out the preprocessing, or give image files"
        )


def _files(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All files that are not hidden, through symbolic links too, but never in circles."""
    real = folder.resolve()
    if real in above:
        return
    try:
        entries = [e for e in folder.iterdir() if not e.name.startswith(".")]
    except OSError as error:
        raise CalibrationError(f"folder '{folder}' cannot be read: {error.strerror}") from None
    for entry in entries:
        if entry.is_dir():
            yield from _files(entry, above | {real})
        else:
            yield entry
