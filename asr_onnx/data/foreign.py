"""Calibration data that other tools take: scripts, JSON, ONNX test data, calibration readers.

All of it is feeds by input name, fed as it is.  Each source is read once and kept in memory.

Formats: Polygraphy's ``--data-loader-script`` and ``--load-inputs`` (``polygraphy/json/serde.py``),
the test data of ONNX's backend tests (``onnx/backend/test``), ONNX Runtime's
``CalibrationDataReader``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from asr_onnx.arrays import AnyArray
from asr_onnx.data.arrays import ArraySamples
from asr_onnx.data.npy import from_bytes
from asr_onnx.data.scripts import Script
from asr_onnx.data.texts import parse_json, read_text
from asr_onnx.errors import CalibrationError
from asr_onnx.graph.inputs import ModelInput
from asr_onnx.graph.stored import problem
from asr_onnx.limits import PROTOBUF, SAVED_INPUTS, check_file

_MARKER = "polygraphy_class"
_SET = "test_data_set_*"


@runtime_checkable
class DataReader(Protocol):
    """ONNX Runtime's ``CalibrationDataReader``, or what is called like it."""

    def get_next(self) -> Any:
        """The next feeds by input name, ``None`` at the end."""


def from_reader(reader: DataReader, inputs: Sequence[ModelInput]) -> ArraySamples:
    """All that is left in a reader; it is not rewound, so it can be given only once.

    Raises ``CalibrationError`` when nothing is left or feeds do not fit the model.
    """
    batches = list(_copied(iter(reader.get_next, None)))
    if not batches:
        raise CalibrationError("the calibration reader has nothing (left) to give: make a new one")
    return ArraySamples.from_batches(batches, inputs)


def _copied(batches: Iterable[Any]) -> Iterator[Any]:
    """Readers and generators may fill the same arrays again and again."""
    for feeds in batches:
        is_feeds = hasattr(feeds, "items")
        yield {k: np.array(v) for k, v in feeds.items()} if is_feeds else feeds


def from_script(spec: str, inputs: Sequence[ModelInput], limit: int | None = None) -> ArraySamples:
    """What ``file.py[:function]`` yields (``load_data`` by default): dicts of input name -> array.

    Reading stops once there are ``limit`` samples, so that a script may go on for ever.
    Raises ``CalibrationError`` naming the script, and the line in it where an exception came from.
    """
    script = Script(spec, "load_data", "data loader script")
    batches = script.guarded(lambda: _some(script.function(), limit))
    if not batches:
        raise CalibrationError(f"{script.what}: {script.name}() yields nothing")
    return ArraySamples.from_batches(batches, inputs)


def _some(batches: Iterable[Any], limit: int | None) -> list[Any]:
    kept: list[Any] = []
    samples = 0
    for feeds in _copied(batches):
        kept.append(feeds)
        first = next(iter(feeds.values()), None) if isinstance(feeds, dict) else None
        samples += len(first) if first is not None and first.ndim else 1
        if limit is not None and samples >= limit:
            break
    return kept


def from_json(paths: Sequence[str | Path], inputs: Sequence[ModelInput]) -> ArraySamples:
    """Inputs that Polygraphy saved: JSON files of feeds or lists of feeds, and folders of these.

    Raises ``CalibrationError`` naming the file that is no such thing.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise CalibrationError(f"inputs '{path}' do not exist")
        found = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not found:
            raise CalibrationError(f"folder '{path}' has no .json files to load inputs from")
        files += found
    return ArraySamples.from_batches([feeds for f in files for feeds in _json_feeds(f)], inputs)


def _json_feeds(path: Path) -> list[Any]:
    what = f"inputs '{path}'"
    expected = "expected feeds (input name -> array) or a list of them, as Polygraphy saves them"
    try:
        data = parse_json(read_text(path, what, most=SAVED_INPUTS), what, object_hook=_decoded)
    except CalibrationError:
        raise
    except Exception as error:  # a damaged array trips NumPy and zipfile in many ways
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CalibrationError(f"{what} cannot be read ({reason}): {expected}") from None
    feeds = data if isinstance(data, list) else [data]
    if not feeds or not all(map(_are_feeds, feeds)):
        raise CalibrationError(f"inputs '{path}': {expected}")
    return feeds


def _are_feeds(item: Any) -> bool:
    values = item.values() if isinstance(item, dict) else ()
    return bool(values) and all(isinstance(v, np.ndarray) for v in values)


def _decoded(item: dict[str, Any]) -> Any:
    kind = item.get(_MARKER)
    if kind is None:
        return item
    if kind != "ndarray":
        raise ValueError(f"a {kind} is no NumPy array")
    try:
        payload = base64.b64decode(item["array"], validate=True)
    except ValueError:
        payload = item["array"].encode("latin-1")  # Polygraphy's old encoding
    return from_bytes(payload)  # a .npz is older still


def data_sets(folder: Path) -> list[Path]:
    """The ``test_data_set_*`` folders that a folder is or holds, with an ``input_0.pb`` each."""
    folders = [folder, *sorted(folder.glob(_SET), key=lambda p: (len(p.name), p.name))]
    return [f for f in folders if (f / "input_0.pb").is_file()]


def from_test_data(folder: Path, inputs: Sequence[ModelInput]) -> ArraySamples:
    """ONNX test data: ``input_0.pb`` is the first input's batch, and so on, in each set.

    Raises ``CalibrationError`` naming a file that is missing or holds no tensor.
    """
    sets = data_sets(folder)
    if not sets:
        raise CalibrationError(f"'{folder}' has no {_SET} folders with input_0.pb")
    return ArraySamples.from_batches([_test_feeds(f, inputs) for f in sets], inputs)


def _test_feeds(folder: Path, inputs: Sequence[ModelInput]) -> dict[str, AnyArray]:
    tensors = [_tensor(folder / f"input_{n}.pb") for n in range(len(inputs))]
    names = [i.name for i in inputs]
    # The number tells the input; a name, if there is one, tells better.
    named = sorted(t.name for t in tensors) == sorted(names)
    return {
        t.name if named else name: numpy_helper.to_array(t)
        for t, name in zip(tensors, names, strict=True)
    }


def _tensor(path: Path) -> onnx.TensorProto:
    check_file(path, f"'{path}'", CalibrationError, PROTOBUF)
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
        if found := problem(tensor):
            raise ValueError(f"what is there {found}")
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ValueError("its data lie in another file")
        numpy_helper.to_array(tensor)
    except FileNotFoundError:
        raise CalibrationError(f"'{path}' is missing: the model has as many inputs") from None
    except Exception as error:  # protobuf and NumPy have no common one
        reason = (str(error).splitlines() or [""])[0]
        raise CalibrationError(f"'{path}' holds no tensor ({reason})") from None
    return tensor
