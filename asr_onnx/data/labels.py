"""Labels of samples: from class folders, from a file of file names and labels, or in order."""

from __future__ import annotations

import csv
import os
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_onnx.data.openers import ImageSamples, Samples
from asr_onnx.data.texts import parse_json, read_text
from asr_onnx.errors import CalibrationError, UsageError
from asr_onnx.limits import check_file

_SAME = "give --classes or --labels (compare: or --no-labels)"
_IN_ORDER = "arrays have no file names, so give their labels in order, as .npy or a JSON list"


@dataclass(frozen=True)
class Labels:
    """``values`` (N,), the class index of every sample, and in words where they come from.

    ``folders`` is set when an index is a folder's position, which is right only if no class lacks
    a folder: the number of folders.
    """

    values: NDArray[np.int64]
    source: str
    folders: int | None = None

    def check(self, classes: int, samples: Samples, output: str) -> None:
        """Raise ``CalibrationError`` unless these can be labels of an output with ``classes``."""
        if self.folders not in (None, classes):
            raise CalibrationError(
                f"there are {self.folders} class folders, but output '{output}' has {classes} "
                f"classes, so that a folder's position is not its label: {_SAME}"
            )
        wrong = np.flatnonzero((self.values < 0) | (self.values >= classes))
        if wrong.size:
            index = int(wrong[0])
            raise CalibrationError(
                f"label {self.values[index]} of '{samples.name(index)}' is not one of the "
                f"{classes} classes of output '{output}': {_SAME}"
            )


def find_labels(source: object, samples: Samples, classes: object = None) -> Labels | None:
    """Labels of all ``samples``, or ``None`` where there are none.

    ``source`` is ``None`` (the class folders, if the samples lie in such), ``False`` (no labels), a
    CSV, JSON or .npy file, a mapping from sample name to label, or N labels in the order of the
    samples: an array of integers, or a list, which may hold names, too.
    ``classes`` are the names of the classes, in the order of their indices, or a file of them.
    Raises ``CalibrationError`` naming the sample or file, ``UsageError`` for another source.
    """
    if source is False:
        return None
    names = None if classes is None else _class_names(classes)
    if source is None:
        return folder_labels(samples, names)
    if isinstance(source, (str, os.PathLike)):
        path, what = Path(source), f"labels '{os.fspath(source)}'"
        read = _read(path, what)
    else:
        read, what = source, "labels given"
    if isinstance(read, Mapping):
        return _named_labels(read, samples, names, what)
    if isinstance(read, list):
        labels = [_index(v, names, f"{what}: label {i}") for i, v in enumerate(read)]
        read = np.array(labels, np.int64)
    values = np.asarray(read)
    if values.dtype.kind not in "iu":
        raise UsageError(f"{what} are {values.dtype}: give integers, or a mapping from file names")
    if values.shape != (len(samples),):
        raise CalibrationError(
            f"{what} have shape {list(values.shape)}, but there are {len(samples)} samples"
        )
    return Labels(values.astype(np.int64), what)


def folder_labels(samples: Samples, classes: Mapping[str, int] | None = None) -> Labels | None:
    """Labels by the top folder each image lies in; ``None`` for samples that lie in no folders.

    A folder's label is its index among ``classes``; without these the integer its name starts with
    (``0_airplane``, ``7``) if all folders have one and no two the same, else its position in sorted
    order.  A single folder without an integer is no class.
    Raises ``CalibrationError`` for a folder that is no class and an image outside of folders.
    """
    if not isinstance(samples, ImageSamples):
        return None
    lie_in = [samples.class_folder(i) for i in range(len(samples))]
    if not any(lie_in):
        return None
    if not all(lie_in):
        outside = samples.name(lie_in.index(""))
        raise CalibrationError(f"image '{outside}' lies in no class folder, others do: {_SAME}")
    index, source, by_position = _folder_indices(sorted(set(lie_in)), classes)
    if not index:
        return None
    values = np.array([index[f] for f in lie_in], np.int64)
    return Labels(values, source, len(index) if by_position else None)


def _folder_indices(
    folders: Sequence[str], classes: Mapping[str, int] | None
) -> tuple[dict[str, int], str, bool]:
    """Index of each folder, where it comes from, and whether it is its position."""
    if classes is not None:
        if unknown := [f for f in folders if f not in classes]:
            raise CalibrationError(f"class folder '{unknown[0]}' is not among the classes given")
        return (
            {f: classes[f] for f in folders},
            "class folders, indexed by the classes given",
            False,
        )
    found = [re.match(r"\d{1,18}(?!\d)", f) for f in folders]
    numbers = [int(m[0]) for m in found if m]
    if len(set(numbers)) == len(folders):
        text = "class folders, by the integer that starts their names"
        return dict(zip(folders, numbers, strict=True)), text, False
    if len(folders) == 1:
        return {}, "", False
    return {f: i for i, f in enumerate(folders)}, "class folders, by position in sorted order", True


def _class_names(classes: object) -> dict[str, int]:
    """Index by class name; a line's first word names the class too, as WordNet ids do."""
    what, entries = "classes given", classes
    if isinstance(classes, (str, os.PathLike)):
        path, what = Path(classes), f"classes '{os.fspath(classes)}'"
        text = read_text(path, what)
        entries = parse_json(text, what) if path.suffix.lower() == ".json" else text.splitlines()
    if not isinstance(entries, Sequence) or not all(isinstance(e, str) for e in entries):
        raise CalibrationError(f"{what} are no list of names")
    names = [e.strip() for e in entries]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise CalibrationError(f"{what} are empty")
    if "" in names:
        raise CalibrationError(f"{what}: entry {names.index('')} is empty")
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise CalibrationError(f"{what}: '{twice}' is there twice")
    words = Counter(n.split()[0] for n in names)
    first = {n.split()[0]: i for i, n in enumerate(names) if words[n.split()[0]] == 1}
    return {**first, **{n: i for i, n in enumerate(names)}}


def _named_labels(
    read: Mapping[Any, Any], samples: Samples, classes: Mapping[str, int] | None, what: str
) -> Labels:
    by_path = {PurePosixPath(str(k).replace("\\", "/")).as_posix(): v for k, v in read.items()}
    names = [samples.name(i) for i in range(len(samples))]
    bases = Counter(PurePosixPath(n).name for n in names)
    values = np.empty(len(names), np.int64)
    for index, name in enumerate(names):
        base = PurePosixPath(name).name
        key = name if name in by_path or bases[base] > 1 else base
        if key not in by_path:
            cure = "" if isinstance(samples, ImageSamples) else f": {_IN_ORDER}"
            raise CalibrationError(f"{what}: nothing for '{name}'{cure}")
        values[index] = _index(by_path[key], classes, f"{what}: label of '{name}'")
    return Labels(values, what)


def _index(label: Any, classes: Mapping[str, int] | None, what: str) -> int:
    if isinstance(label, str):
        text = label.strip()
        if classes is not None and text in classes:
            return classes[text]
        if re.fullmatch(r"[+-]?\d{1,18}", text):
            return int(text)
        cure = "give --classes" if classes is None else "which is not among the classes given"
        raise CalibrationError(f"{what} is the name '{text[:80]}': {cure}")
    is_index = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
    if is_index and -(10**18) < int(label) < 10**18:
        return int(label)
    raise CalibrationError(f"{what} is {reprlib.repr(label)}, neither an index nor a name")


def _read(path: Path, what: str) -> Any:
    """A mapping from file name to label; for .npy an array, or a list from JSON."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        check_file(path, what, CalibrationError)
        try:
            return np.lib.format.open_memmap(path, mode="r")
        except Exception as error:  # a damaged file trips NumPy in many ways
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise CalibrationError(f"{what} cannot be read: {reason}") from None
    text = read_text(path, what)
    if suffix == ".json":
        read = parse_json(text, what)
        if not isinstance(read, (dict, list)):
            raise CalibrationError(f"{what} are no JSON object of file -> label, nor a list")
        return read
    lines = text.splitlines()
    rows = csv.reader(lines) if suffix == ".csv" else (line.rsplit(None, 1) for line in lines)
    try:
        return _pairs(rows, what)
    except csv.Error as error:
        raise CalibrationError(f"{what} cannot be read: no CSV ({error})") from None


def _pairs(rows: Iterable[Sequence[str]], what: str) -> dict[str, str]:
    """File -> label of the rows; a header does no harm, as no sample has its name."""
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        if not row:
            continue
        if len(row) != 2:
            raise CalibrationError(
                f"{what}: line {number} has {len(row)} columns, not two, file and label"
            )
        name, label = (c.strip() for c in row)
        if found.setdefault(name, label) != label:
            raise CalibrationError(f"{what}: '{name}' has the labels '{found[name]}' and '{label}'")
    return found
