"""Reports that were damaged or forged: a page, or one line that names the file."""

from __future__ import annotations

import json
import os
import random
import sys
from copy import deepcopy

import numpy as np
import onnx
import pytest
from models import balanced, norm_net, normal
from PIL import Image

from asr_onnx.cli.main import cli

MUTATIONS = 70  # of each kind of report
VALUES = (
    None, True, -1, 0, 7, 1e308, -1e308, 5e-324, 10**400, "", "x", "9" * 5000, [], {}, [[]],
    [None], {"x": 1}, {"": {}}, float("nan"), float("inf"),
)  # fmt: skip


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """A report of each kind as the commands write them, on labelled images, by name."""
    rng, path = np.random.default_rng(3), tmp_path_factory.mktemp("reports")
    x = normal(rng, 20, 3, 8, 8)
    onnx.save(balanced(norm_net(rng), x=x), path / "m.onnx")
    for number in range(12):
        image = path / "images" / f"{number % 5}" / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(image)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        for words in (
            ("repair", "m.onnx", "--calib", "images", "--data", "images", "--recipe", "asr",
             "--force", "--min-accuracy", "0", "--report", "repair.json"),
            ("compare", "m.onnx", "m.sparse.onnx", "--data", "images", "--report", "compare.json"),
            ("sweep", "m.onnx", "--calib", "images", "--data", "images", "-o", "out",
             "--recipes", "asr", "--sparsities", "0.3,0.6", "--patterns", "1:2"),
        ):  # fmt: skip
            cli.main([*words, "--providers", "cpu", "-q"], standalone_mode=False)
    (path / "out" / "sweep.json").rename(path / "sweep.json")
    return {n: json.loads((path / f"{n}.json").read_text()) for n in ("repair", "compare", "sweep")}


def places(value, parent=None, key=None):
    """All places of a JSON value: the container and the key or index in it."""
    if parent is not None:
        yield parent, key
    if isinstance(value, (dict, list)):
        for k in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[k], value, k)


def mutated(report, seed):
    """The report with one or two places changed; mostly near the top, where less is left whole."""
    chance, found = random.Random(seed), deepcopy(report)
    for _ in range(chance.choice((1, 1, 2))):
        every = list(places(found))
        near = [p for p in every if p[0] is found]
        container, key = chance.choice(near if chance.random() < 0.4 else every)
        old = container[key]
        how = chance.randrange(6)
        if how == 0:
            del container[key]
        elif how == 1 and isinstance(old, dict):
            container[key] = list(old.values())
        elif how == 2 and isinstance(old, list):
            container[key] = dict(enumerate(old))
        elif how == 3 and isinstance(container, list):
            container.append(chance.choice(VALUES))
        else:
            container[key] = chance.choice(VALUES)
    return found


def assert_one_line_or_a_page(folder, asr, text, kind="html"):
    page = folder / f"bad.{kind}"
    (folder / "bad.json").write_text(text)
    page.unlink(missing_ok=True)
    code, out, err = asr("render", "bad.json", "-q", "-o", page)
    assert out == "" and code in (0, 1)
    assert page.exists() == (code == 0)
    if code:
        assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 400
        assert "bad.json" in err and "unexpected" not in err
    else:
        assert err == ""
    return code


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["repair", "compare", "sweep"])
def test_a_changed_report_is_a_page_or_one_line(tmp_path, asr, monkeypatch, reports, kind):
    monkeypatch.chdir(tmp_path)
    codes = [
        assert_one_line_or_a_page(tmp_path, asr, json.dumps(mutated(reports[kind], seed)))
        for seed in range(MUTATIONS)
    ]
    assert codes.count(1) > MUTATIONS // 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["repair", "compare"])
def test_nor_does_markdown_or_junit_fail_otherwise(tmp_path, asr, monkeypatch, reports, kind):
    monkeypatch.chdir(tmp_path)
    for seed in range(MUTATIONS):
        text = json.dumps(mutated(reports[kind], seed))
        assert_one_line_or_a_page(tmp_path, asr, text, ("md", "xml")[seed % 2])


def test_a_sweep_has_no_gates_to_list(tmp_path, asr, monkeypatch, reports):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.json").write_text(json.dumps(reports["sweep"]))
    for suffix in (".md", ".xml"):
        code, out, err = asr("render", "s.json", "-o", f"s{suffix}")
        assert (code, out) == (2, "")
        assert f"this report can be .json or .html, not {suffix}" in err


@pytest.mark.parametrize("kind", ["repair", "compare", "sweep"])
def test_what_json_has_not_or_cannot_hold_is_refused(tmp_path, asr, monkeypatch, reports, kind):
    monkeypatch.chdir(tmp_path)
    whole = json.dumps(reports[kind])
    assert assert_one_line_or_a_page(tmp_path, asr, whole) == 0
    key = "sparsity" if kind == "repair" else "samples"
    number = f'"{key}": {json.dumps(reports[kind][key])}'
    deep = "[" * 100_000 + "]" * 100_000
    for value in ("NaN", "Infinity", "1e999", "9" * 5000, deep, '"x"', "[]", "{}"):
        text = whole.replace(number, f'"{key}": {value}')
        assert text != whole
        assert assert_one_line_or_a_page(tmp_path, asr, text) == 1
    for text in (whole[:-9], "", "\ufeff", "\x00", deep, f"[{whole}]", '"asr_onnx_report"', "null"):
        assert assert_one_line_or_a_page(tmp_path, asr, text) == 1
    for other in reports.values():
        if other is not reports[kind]:
            marker = next(k for k in reports[kind] if k.startswith("asr_onnx"))
            forged = {
                marker: reports[kind][marker],
                **{k: v for k, v in other.items() if "asr" not in k},
            }
            assert assert_one_line_or_a_page(tmp_path, asr, json.dumps(forged)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders")
def test_a_pipe_is_no_report(tmp_path, asr, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("r.json")
    code, _, err = asr("render", "r.json")
    assert code == 1 and "'r.json' cannot be read: it is a pipe" in err
