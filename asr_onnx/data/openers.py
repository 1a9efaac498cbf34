"""Calibration samples from image files, and what lies behind a path given as calibration data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from asr_onnx.arrays import AnyArray
from asr_onnx.data.arrays import ArraySamples
from asr_onnx.data.foreign import data_sets, from_test_data
from asr_onnx.data.pictures import SUFFIXES, read_image
from asr_onnx.data.preprocess import Preprocess, ResolvedPreprocess
from asr_onnx.errors import CalibrationError, UsageError
from asr_onnx.graph.inputs import ModelInput

IMAGES = SUFFIXES
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


class Place:
    """A path given as data, and the files that a folder holds, ordered by relative path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def files(self) -> list[Path]:
        """All files under a folder that are not hidden; of a file, itself."""
        if not self.path.is_dir():
            return [self.path]
        return sorted(_files(self.path), key=lambda p: p.relative_to(self.path).as_posix())

    def of(self, suffixes: Sequence[str]) -> list[Path]:
        """Those with one of the suffixes."""
        return [p for p in self.files if p.suffix.lower() in suffixes]


@dataclass(frozen=True)
class Opener:
    """One kind of data: whether a place holds it, and how it is opened.

    ``preprocesses`` is false for what is fed as it is.
    """

    matches: Callable[[Place], bool]
    open: Callable[[Place, Sequence[ModelInput], Preprocess], Samples]
    preprocesses: bool = False


def _open_images(
    place: Place, inputs: Sequence[ModelInput], preprocess: Preprocess
) -> ImageSamples:
    images, arrays, path = place.of(IMAGES), place.of(ARRAYS), place.path
    if arrays:
        raise CalibrationError(
            f"calibration folder '{path}' mixes images ('{images[0].relative_to(path)}') and "
            f"arrays ('{arrays[0].relative_to(path)}'): give a folder with one kind"
        )
    if len(inputs) != 1:
        names = ", ".join(f"'{i.name}'" for i in inputs)
        raise CalibrationError(
            f"calibration folder '{path}' has images, but the model has {len(inputs)} inputs "
            f"({names}): give a .npz with an array for each"
        )
    return ImageSamples(images, preprocess.resolve(inputs[0]), path)


# The first that matches opens a path; put a kind of data of your own in front.
OPENERS: list[Opener] = [
    Opener(  # ONNX test data: test_data_set_0/input_0.pb
        lambda place: place.path.is_dir() and bool(data_sets(place.path)),
        lambda place, inputs, _: from_test_data(place.path, inputs),
    ),
    Opener(
        lambda place: place.path.is_dir() and bool(place.of(IMAGES)),
        _open_images,
        preprocesses=True,
    ),
    Opener(
        lambda place: bool(place.of(ARRAYS)),
        lambda place, inputs, _: ArraySamples.from_files(
            place.of(ARRAYS), inputs, place.path if place.path.is_dir() else None
        ),
    ),
]


def open_samples(
    path: str | Path, inputs: Sequence[ModelInput], preprocess: Preprocess | None = None
) -> Samples:
    """A folder of images, a .npy, a .npz, or a folder of these, ordered by relative path.

    A folder of ONNX test data (``test_data_set_0/input_0.pb``) will do, too, and whatever is in
    ``OPENERS``.  Folders may be nested; hidden files are ignored.  Raises ``CalibrationError``
    naming what is missing, empty, mixed or does not fit the model, ``UsageError`` for preprocessing
    of arrays.
    """
    place = Place(Path(path))
    if not place.path.exists():
        raise CalibrationError(f"calibration data '{path}' does not exist")
    for opener in OPENERS:
        if opener.matches(place):
            if not opener.preprocesses:
                check_no_preprocess(f"arrays ('{path}')", preprocess)
            return opener.open(place, inputs, preprocess or Preprocess())
    if place.path.is_dir():
        suffixes = ", ".join((*IMAGES, *ARRAYS))
        raise CalibrationError(f"calibration folder '{path}' has no samples: put {suffixes} in it")
    raise CalibrationError(
        f"calibration data '{path}' is neither a folder of images nor a .npy or .npz file"
    )


def left_out(path: Path) -> str | None:
    """A line that tells which files of a folder are not used as data; ``None`` where all are."""
    place = Place(path)
    if not path.is_dir() or data_sets(path):
        return None
    others = Counter(
        p.suffix.lower() or p.name for p in place.files if p not in place.of((*IMAGES, *ARRAYS))
    )
    if not others:
        return None
    count = others.total()
    kinds = ", ".join(sorted(others))
    return f"{count} file{'s' * (count > 1)} in '{path}' ignored: {kinds}"


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
