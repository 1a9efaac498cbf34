"""Calibration data as other tools have it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader

from asr_onnx.data.batches import as_batches
from asr_onnx.data.foreign import from_json, from_reader, from_script, from_test_data
from asr_onnx.errors import CalibrationError
from asr_onnx.graph.inputs import ModelInput

F32 = np.dtype("float32")
X, Y = ModelInput("x", F32, (None, 3)), ModelInput("y", np.dtype("int64"), (None, 2))


def batches(count: int = 3, size: int = 2) -> list[dict[str, np.ndarray]]:
    """Batches for two inputs, whose numbers tell them apart."""
    numbers = np.arange(count * size, dtype=np.float32).reshape(count, size, 1)
    return [
        {"x": n + np.zeros(3, np.float32), "y": n.astype(np.int64) + np.zeros(2, np.int64)}
        for n in numbers
    ]


def content(samples) -> list[tuple[float, int]]:
    """The first number of both inputs of every sample."""
    return [(float(samples[n]["x"][0]), int(samples[n]["y"][0])) for n in range(len(samples))]


EXPECTED = [(float(n), n) for n in range(6)]


class Reader(CalibrationDataReader):
    """One-shot, without ``rewind``, filling the same arrays every time."""

    def __init__(self) -> None:
        self.left = batches()
        self.buffer = {k: np.empty_like(v) for k, v in self.left[0].items()}

    def get_next(self):
        if not self.left:
            return None
        for name, value in self.left.pop(0).items():
            self.buffer[name][...] = value
        return self.buffer


class DuckReader:
    """What has the method, but not the base class."""

    def __init__(self) -> None:
        self.get_next = Reader().get_next


def write(folder: Path, text: str, name: str = "load.py") -> Path:
    path = folder / name
    path.write_text(dedent(text))
    return path


SCRIPT = """
    import numpy as np
    from neighbour import COUNT

    def load_data():
        x, y = np.empty((2, 3), np.float32), np.empty((2, 2), np.int64)
        for n in range(COUNT):
            x[0], x[1], y[0], y[1] = 2 * n, 2 * n + 1, 2 * n, 2 * n + 1
            yield {"x": x, "y": y}

    def reverse():
        return list({k: v.copy() for k, v in b.items()} for b in load_data())[::-1]

    class Functor:
        def __call__(self):
            return load_data()

    def endless():
        while True:
            yield from load_data()
"""


def test_scripts_by_function_and_functor(tmp_path):
    path = write(tmp_path, SCRIPT)
    write(tmp_path, "COUNT = 3", "neighbour.py")
    assert content(from_script(str(path), [X, Y])) == EXPECTED
    assert content(from_script(f"{path}:Functor", [X, Y])) == EXPECTED
    assert content(from_script(f"{path}:reverse", [X, Y]))[:2] == EXPECTED[4:]
    assert len(from_script(f"{path}:endless", [X, Y], limit=7)) == 8


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def load_data():\n    yield {}\n    1 / 0\n", "line 3: ZeroDivisionError: division"),
        ("import json\ndef load_data():\n    return json.loads('{')", "line 3: JSONDecodeError"),
        ("x = 1\nimport no_such_module_at_all", "line 2: ModuleNotFoundError"),
        ("x = 1\ndef load_data(:", "line 2: SyntaxError"),
        ("raise SystemExit('no data')", "line 1: SystemExit: no data"),
        ("def other(): pass", "no function 'load_data'"),
        ("def load_data(): return 5", "TypeError: 'int' object is not iterable"),
        ("def load_data(): return []", "yields nothing"),
    ],
)
def test_what_goes_wrong_in_a_script_is_one_line(tmp_path, text, told):
    path = write(tmp_path, text)
    with pytest.raises(CalibrationError) as error:
        from_script(str(path), [X])
    assert str(path) in str(error.value) and told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_script_and_wrong_feeds_are_told(tmp_path):
    with pytest.raises(CalibrationError, match="does not exist"):
        from_script(str(tmp_path / "no.py"), [X])
    path = write(tmp_path, "import numpy as np\ndef load_data(): yield {'x': np.ones((1, 4))}")
    with pytest.raises(CalibrationError, match=r"\[1, 4\], but input 'x' takes \[\?, 3\]"):
        from_script(str(path), [X])


def test_inputs_saved_by_polygraphy(tmp_path):
    serde = pytest.importorskip("polygraphy.json")
    one, many = tmp_path / "one.json", tmp_path / "many.json"
    serde.save_json(batches()[:2], str(many))
    serde.save_json(batches()[2], str(one))
    assert content(from_json([many, one], [X, Y])) == EXPECTED
    folder = tmp_path / "saved"
    folder.mkdir()
    for n, feeds in enumerate(batches()):
        serde.save_json(feeds, str(folder / f"{n:010}.json"))
    assert content(from_json([folder], [X, Y])) == EXPECTED


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "5",
        "[]",
        "[1]",
        "{}",
        '{"x": [1, 2, 3]}',
        '{"x": {"array": "AAAA", "polygraphy_class": "ndarray"}}',
        '{"x": {"array": 5, "polygraphy_class": "ndarray"}}',
        '{"x": {"polygraphy_class": "ndarray"}}',
        '{"x": {"tensor": "AAAA", "polygraphy_class": "Tensor"}}',
        '{"lst": [], "polygraphy_class": "RunResults"}',
    ],
)
def test_other_json_is_refused_by_name(tmp_path, text):
    path = write(tmp_path, text, "inputs.json")
    with pytest.raises(CalibrationError, match=r"inputs\.json"):
        from_json([path], [X])


def test_missing_and_empty_json_folders_are_told(tmp_path):
    with pytest.raises(CalibrationError, match="do not exist"):
        from_json([tmp_path / "no.json"], [X])
    with pytest.raises(CalibrationError, match=r"no \.json"):
        from_json([tmp_path], [X])


def save_set(folder: Path, feeds: dict[str, np.ndarray], named: bool = True) -> None:
    folder.mkdir()
    for n, (name, value) in enumerate(feeds.items()):
        tensor = numpy_helper.from_array(value, name if named else "")
        (folder / f"input_{n}.pb").write_bytes(tensor.SerializeToString())


@pytest.mark.parametrize("named", [True, False])
def test_onnx_test_data_by_its_folder_and_its_parent(tmp_path, named):
    for n, feeds in enumerate(batches()):
        save_set(tmp_path / f"test_data_set_{n}", feeds, named)
    assert content(from_test_data(tmp_path, [X, Y])) == EXPECTED
    assert content(from_test_data(tmp_path / "test_data_set_1", [X, Y])) == EXPECTED[2:4]


def test_names_in_test_data_win_over_numbers(tmp_path):
    save_set(tmp_path / "test_data_set_0", dict(reversed(batches()[0].items())))
    assert content(from_test_data(tmp_path, [X, Y])) == EXPECTED[:2]


def test_the_tenth_set_comes_after_the_second(tmp_path):
    for n, feeds in enumerate(batches(count=11, size=1)):
        save_set(tmp_path / f"test_data_set_{n}", feeds)
    assert [n for _, n in content(from_test_data(tmp_path, [X, Y]))] == list(range(11))


def test_broken_test_data_are_told_by_name(tmp_path):
    folder = tmp_path / "test_data_set_0"
    save_set(folder, {"x": batches()[0]["x"]})
    with pytest.raises(CalibrationError, match=r"input_1\.pb' is missing"):
        from_test_data(tmp_path, [X, Y])
    (folder / "input_1.pb").write_bytes(b"\xff\xff\xff")
    with pytest.raises(CalibrationError, match=r"input_1\.pb' holds no tensor"):
        from_test_data(tmp_path, [X, Y])
    with pytest.raises(CalibrationError, match="no test_data_set"):
        from_test_data(tmp_path / "nothing", [X])


@pytest.mark.parametrize("kind", [Reader, DuckReader])
def test_a_calibration_reader_is_read_once_and_kept(kind):
    reader = kind()
    samples = from_reader(reader, [X, Y])
    assert content(samples) == content(samples) == EXPECTED
    with pytest.raises(CalibrationError, match="nothing"):
        from_reader(reader, [X, Y])


@pytest.mark.parametrize("kind", [Reader, DuckReader])
def test_readers_and_test_data_are_calibration_data(tmp_path, kind):
    calibration = as_batches(kind(), (X, Y), holdout=0.5)
    assert (calibration.num_solve, calibration.num_held_out) == (3, 3)
    for n, feeds in enumerate(batches()):
        save_set(tmp_path / f"test_data_set_{n}", feeds)
    assert content(as_batches(tmp_path, (X, Y)).samples) == EXPECTED
