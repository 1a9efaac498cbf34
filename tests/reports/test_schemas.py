"""Reports are what their JSON Schemas say, whichever command and options they come from."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import fields

import jsonschema
import numpy as np
import onnx
import pytest
from models import ROOT, balanced, build, norm_net, normal
from PIL import Image

from asr_onnx.cli.main import cli
from asr_onnx.data.texts import read_text
from asr_onnx.evaluation.gates import Gates
from asr_onnx.options import BN_STATS, ENGINES, OPS, PRECISIONS, RANGES, ROW_SCALES, RepairOptions
from asr_onnx.recipes import RECIPES
from asr_onnx.reports.files import KINDS, schema

METRIC = "def metric(dense, other):\n    return {'f1': 0.5, 'odd name=': 1}\n"
REPAIR = ("repair", "m.onnx", "--calib", "images", "--force", "--report", "r.json")
RUNS = {  # by what is special about it: the report, the exit code, what to type
    "scaled": ("r.json", 0, (*REPAIR, "--recipe", "asr")),
    "auto": ("r.json", 0, REPAIR),
    "refit": ("r.json", 0, (*REPAIR, "--recipe", "refit", "--holdout", "0")),
    "labels": (
        "r.json",
        0,
        (*REPAIR, "--data", "images", "--recipe", "asr", "--min-accuracy", "0"),
    ),
    "rejected": ("r.json", 3, (*REPAIR, "--recipe", "asr", "--min-cosine", "1", "--max-error=0")),
    "kept": ("r.json", 3, (*REPAIR, "--min-cosine", "1", "--recipe", "asr", "--keep-rejected")),
    "metric": (
        "r.json",
        0,
        (*REPAIR, "--recipe", "asr", "--metric-script", "metric.py", "--min-metric", "f1=0.4"),
    ),
    "searched": ("r.json", 0, (*REPAIR, "--recipe", "asr", "--sparsity", "auto",
                               "--auto-steps", "3", "--max-error", "0.5")),
    "searched in vain": ("r.json", 3, (*REPAIR, "--recipe", "asr", "--sparsity", "auto",
                                       "--auto-steps", "2", "--max-error", "0")),
    "searched on labels": ("r.json", None, (*REPAIR, "--recipe", "asr", "--sparsity", "auto",
                                            "--auto-steps", "2", "--data", "images",
                                            "--max-drop", "1")),
    "2:4": ("r.json", 0, (*REPAIR, "--pattern", "2:4", "--recipe", "asr")),
    "2:4 in some": ("r.json", 0, (*REPAIR, "--pattern", "1:2", "--sparsity", "0.1",
                                  "--recipe", "refit")),
    "channels": ("r.json", 0, (*REPAIR, "--pattern", "channel", "--channel-multiple", "1")),
    "int8": ("r.json", 0, (*REPAIR, "--precision", "int8", "--recipe", "asr")),
    "2:4 in int8": ("r.json", 0, (*REPAIR, "--precision", "int8", "--pattern", "1:2",
                                  "--for", "onnxruntime", "--recipe", "refit")),
    "float16": ("r.json", 0, (*REPAIR, "--precision", "fp16", "--recipe", "asr")),
    "quantize": ("r.json", 0, ("quantize", "m.onnx", "--calib", "images", "--force",
                               "--report", "r.json")),
    "no classes": ("r.json", 0, ("repair", "map.onnx", "--calib", "x.npy", "--recipe", "asr",
                                 "--force", "--report", "r.json")),
    "nothing to compare": ("r.json", 0, ("repair", "found.onnx", "--calib", "x.npy", "--force",
                                         "--report", "r.json")),
    "compared": ("r.json", 0, ("compare", "m.onnx", "n.onnx", "--data", "x.npy",
                               "--report", "r.json")),
    "compared on labels": ("r.json", 3, ("compare", "m.onnx", "n.onnx", "m.onnx", "--data",
                                         "images", "--max-drop", "0", "--min-accuracy", "1",
                                         "--metric-script", "metric.py", "--report", "r.json")),
    "compared, no classes": ("r.json", 0, ("compare", "map.onnx", "map.onnx", "--data", "x.npy",
                                           "--no-latency", "--report", "r.json")),
    "checked": ("r.json", 3, ("check", "m.onnx", "n.onnx", "--sparsity", "0.9",
                              "--report", "r.json")),
    "checked both ways": ("r.json", 3, ("check", "m.onnx", "n.onnx", "--sparsity", "0.2",
                                        "--pattern", "1:2", "--report", "r.json")),
    "not to be checked": ("r.json", 1, ("check", "n.onnx", "metric.py", "--pattern", "2:4",
                                        "--report", "r.json")),
    "swept": ("c/sweep.json", 0, ("sweep", "m.onnx", "--calib", "images", "--data", "images",
                                  "-o", "c", "--recipes", "asr", "--sparsities", "0.5",
                                  "--patterns", "1:2")),
    "swept, no classes": ("c/sweep.json", 0, ("sweep", "map.onnx", "--calib", "x.npy", "-o", "c",
                                              "--recipes", "asr", "--patterns", "channel")),
    "swept with failures": ("c/sweep.json", 1, ("sweep", "map.onnx", "--calib", "x.npy", "-o",
                                                "c", "--recipes", "asr,paper",
                                                "--sparsities", "0.5")),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a classifier, one that is worse, a model without classes, images and arrays."""
    rng, path = np.random.default_rng(3), tmp_path_factory.mktemp("schemas")
    x = normal(rng, 24, 3, 8, 8)
    dense = balanced(norm_net(rng), x=x)
    onnx.save(dense, path / "m.onnx")
    maps = build(
        "agraph (float[N,3,8,8] x) => (float[N,4,8,8] y)"
        "{ h = Conv <pads=[1,1,1,1]> (x, w) r = Relu(h) y = Conv <pads=[1,1,1,1]> (r, v) }",
        {"w": normal(rng, 32, 3, 3, 3), "v": normal(rng, 4, 32, 3, 3)},
    )
    onnx.save(maps, path / "map.onnx")
    found = build(
        "agraph (float[N,3,8,8] x) => (int64[4,K] y)"
        "{ h = Conv <pads=[1,1,1,1]> (x, w) r = Relu(h) s = Conv(r, v) p = Relu(s)"
        "  y = NonZero(p) }",
        {"w": normal(rng, 8, 3, 3, 3), "v": normal(rng, 4, 8, 3, 3)},
    )
    onnx.save(found, path / "found.onnx")
    np.save(path / "x.npy", x)
    for number in range(24):
        image = path / "images" / f"{number % 4}" / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(image)
    (path / "metric.py").write_text(METRIC)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        cli.main(
            ["prune", "m.onnx", "-o", "n.onnx", "--sparsity", "0.9", "-q"], standalone_mode=False
        )
    return path


def written(place, asr, monkeypatch, name):
    """The report of a run, and the key that says what kind it is."""
    report, code, words = RUNS[name]
    monkeypatch.chdir(place)
    (place / report).unlink(missing_ok=True)
    more = () if words[0] == "check" else ("--providers", "cpu")
    if words[0] in ("sweep", "check"):
        more += ("--force", "-q")
    found, _, err = asr(*words, *more)
    assert (place / report).is_file(), err
    assert code is None or found == code, err
    content = json.loads((place / report).read_text(encoding="utf-8"))
    (marker,) = KINDS.keys() & content.keys()
    return marker, content


def check(marker, content):
    jsonschema.Draft202012Validator(schema(marker)).validate(content)


def objects(value, path=()):
    """All schemas of objects within a schema, with where they stand."""
    if isinstance(value, dict):
        if value.get("type") in ("object", ["object", "null"]):
            yield path, value
        for key, inner in value.items():
            yield from objects(inner, (*path, key))


OPEN = ("files", "versions", "metrics", "figures")  # by names of anybody's
QUICK = ("checked", "labels", "compared on labels", "swept with failures")


@pytest.mark.parametrize("name", QUICK)
def test_reports_are_valid(place, asr, monkeypatch, name):
    marker, content = written(place, asr, monkeypatch, name)
    check(marker, content)
    check(marker, content | {"config": {"any": ["thing"]}, "added by a later version": 1})
    for broken in spoiled(content):
        with pytest.raises(jsonschema.ValidationError):
            check(marker, broken)


def spoiled(content):
    """The report with one thing wrong: gone, of another type, or one more in a record."""
    for key in schema(next(iter(KINDS.keys() & content.keys())))["required"]:
        yield {k: v for k, v in content.items() if k != key}
        yield content | {key: object}
    yield content | {"config": "a.toml"}
    for path, record in records(content):
        if path and "config" not in path and path[-1] not in OPEN:
            yield changed(content, path, record | {"unheard of": 1})
            for key in record:
                if path[-1] not in ("pruned", "repaired", "outputs") or "value" in record:
                    yield changed(content, path, {k: v for k, v in record.items() if k != key})


def records(value, path=()):
    if isinstance(value, dict):
        yield path, value
    for key in value if isinstance(value, dict) else range(len(value or ())):
        if isinstance(value[key], (dict, list)):
            yield from records(value[key], (*path, key))


def changed(content, path, record):
    found = inner = deepcopy(content)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = record
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in RUNS if n not in QUICK])
def test_reports_of_every_mode_are_valid(place, asr, monkeypatch, name):
    check(*written(place, asr, monkeypatch, name))


@pytest.mark.parametrize("marker", KINDS)
def test_schemas_are_strict_and_of_the_version(marker):
    found = schema(marker)
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["properties"][marker]["const"] == KINDS[marker].version
    assert found["$id"].endswith(f":{KINDS[marker].name}-{KINDS[marker].version}")
    for path, record in objects(found):
        if not path or path[-1] == "config":
            continue
        assert "additionalProperties" in record, path
        if "properties" in record:
            assert record["additionalProperties"] is False, path
            assert record["required"] == list(record["properties"]), path


def test_what_schemas_share_is_the_same():
    seen = {}
    for marker in KINDS:
        for name, found in schema(marker)["$defs"].items():
            assert seen.setdefault(name, found) == found, name


def test_schemas_know_all_options_and_choices():
    options = schema("asr_onnx_report")["$defs"]["options"]["properties"]
    assert options.keys() == {f.name for f in fields(RepairOptions)}
    choices = {"row_scale": ROW_SCALES, "recipe": RECIPES, "bn_stats": BN_STATS,
               "precision": PRECISIONS, "engine": ENGINES, "ranges": RANGES}  # fmt: skip
    assert {n: options[n]["enum"] for n in choices} == {n: list(c) for n, c in choices.items()}
    assert options["ops"]["items"]["enum"] == list(OPS)
    gates = schema("asr_onnx_report")["$defs"]["gates"]["properties"]
    assert gates.keys() == {f.name for f in fields(Gates)}


def test_every_key_is_documented():
    text = read_text(ROOT / "docs" / "reports.md", "the page")
    for marker, kind in KINDS.items():
        assert f'| `"{marker}": {kind.version}` | `{kind.name}-{kind.version}.json` |' in text
        part = text.split(f"\n## {kind.name.capitalize()}")[1].split("\n## ")[0]
        for key in schema(marker)["properties"]:
            assert f"`{key}`" in part, key
