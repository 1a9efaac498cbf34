"""Options from a file: found, checked, overruled by the command line, shown as a file again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from models import ROOT

from asr_onnx.cli import config
from asr_onnx.cli.conflicts import RULES
from asr_onnx.cli.main import cli
from asr_onnx.cli.parameters import options_of
from asr_onnx.data.texts import parse_toml

FILE = Path("asr-onnx.toml")
KNOWN = {name: options_of(c) for name, c in cli.commands.items()}


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(config.VARIABLE, raising=False)


@pytest.fixture
def shown(asr):
    """What --show-config says of a command: its table, and the text."""

    def call(command, *words):
        code, out, err = asr(command, *words, "--show-config")
        assert (code, err) == (0, "")
        return parse_toml(out, "shown")[command], out

    return call


def write(text, path=FILE):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_run_takes_its_options_from_the_file(folder, asr):
    write('[all]\ncalib = "x.npy"\nforce = true\n[prune]\nsparsity = "60%"\n[repair]\nseed = 3\n')
    code, out, err = asr("prune", "m.onnx")
    assert code == 0 and out.startswith("475 of 792 weights")
    assert err == "options from 'asr-onnx.toml': force, sparsity\n"
    by_file = Path("m.pruned.onnx").read_bytes()
    assert asr("prune", "m.onnx", "--no-config", "--sparsity", ".6", "-o", "o.onnx")[2] == ""
    assert Path("o.onnx").read_bytes() == by_file
    assert asr("prune", "m.onnx", "--sparsity", "0.3")[2] == "options from 'asr-onnx.toml': force\n"
    assert Path("m.pruned.onnx").read_bytes() != by_file
    assert asr("prune", "m.onnx", "-q") == (0, "", "")


def test_values_of_every_kind(folder, shown):
    write(
        """[repair]
        num-samples = 256
        sparsity = 0.8
        min-accuracy = 1
        min-metric = ["f1=0.9", "map=0.5"]
        reconstruct = true
        float32-io = false
        only-eligible = false
        mean = [0.5, 0.25, 1]
        std = 0.5
        resize = [224, 320]
        crop = "none"
        memory-limit = "2GiB"
        ops = ["Conv", "Gemm"]
        precision = "fp16"
        for = "onnxruntime"
        include = "späße|\\\\d"
        report = ["r.json"]
        """
    )
    table, text = shown("repair")
    assert table == {
        "num-samples": 256, "sparsity": 0.8, "min-accuracy": 1.0, "reconstruct": True,
        "min-metric": ["f1=0.9", "map=0.5"], "float32-io": False, "only-eligible": False,
        "mean": [0.5, 0.25, 1.0], "std": [0.5], "resize": [224, 320], "crop": "none",
        "memory-limit": 2 << 30, "ops": ["Conv", "Gemm"], "precision": "float16",
        "for": "onnxruntime", "include": "späße|\\d", "report": ["r.json"],
    }  # fmt: skip
    assert "num-samples = 256 # asr-onnx.toml [repair] num-samples\n" in text
    assert "# seed = 0  # default\n" in text and "# macs =  # default: 0.7\n" in text


def test_what_is_nearer_wins(folder, shown):
    write("[all]\nseed = 1\nbatch-size = 4\nnum-samples = 9\n[repair]\nseed = 2\nbatch-size = 5\n")
    table, text = shown("repair", "--seed", "3")
    assert table == {"seed": 3, "batch-size": 5, "num-samples": 9}
    assert "seed = 3 # command line" in text and "9 # asr-onnx.toml [all] num-samples" in text
    assert shown("compare")[0] == {"seed": 1, "batch-size": 4, "num-samples": 9}
    assert shown("prune")[0] == {}


@pytest.mark.parametrize("command", KNOWN)
def test_what_is_shown_is_a_file_that_says_the_same(folder, asr, shown, command):
    write('[all]\nseed = 7\nmean = [0.1]\nquiet = true\nops = "Conv,Gemm"\noutput = "a b/ü.onnx"\n')
    table, text = shown(command)
    write(text, Path("again.toml"))
    again, text = shown(command, "--config", "again.toml")
    assert again == table and table.keys() <= KNOWN[command].keys()
    for option in KNOWN[command]:
        assert f"\n{option} = " in text or f"\n# {option} = " in text


def test_a_recipe_is_shown_in_its_parts(folder, shown):
    table, text = shown("repair", "--recipe", "best")
    assert table == {"recipe": "best"}
    assert '# criterion = "obs"  # recipe best\n' in text
    assert "# reconstruct = true  # recipe best\n" in text


def test_shown_texts_stay_what_they_are(folder, shown):
    odd = "a\"b'c\\d\n[x]\t\x01#é\U0001f600"
    table, text = shown("repair", "--include", odd)
    assert table["include"] == odd
    write(text)
    assert shown("repair")[0]["include"] == odd


def test_the_nearest_file_is_taken(folder, shown, monkeypatch):
    write("[repair]\nseed = 1\n")
    write("[tool.asr-onnx.repair]\nseed = 2\n[tool.other]\n", Path("a/pyproject.toml"))
    write('[project]\nname = "asr-onnx-user"\n', Path("a/b/pyproject.toml"))
    Path("a/b/c/.git").mkdir(parents=True)
    Path("a/b/c/d").mkdir()
    write("[repair]\nseed = 4\n", Path("a/b/both/asr-onnx.toml"))
    write("[tool.asr-onnx.repair]\nseed = 5\n", Path("a/b/both/pyproject.toml"))
    for place, seed, source in (
        (".", 1, "asr-onnx.toml [repair]"),
        ("a", 2, "pyproject.toml [tool.asr-onnx.repair]"),
        ("b", 2, "../pyproject.toml [tool.asr-onnx.repair]"),
        ("both", 4, "asr-onnx.toml [repair]"),
    ):
        monkeypatch.chdir(place)
        table, text = shown("repair")
        assert table == {"seed": seed} and f"# {source} seed" in text.replace(os.sep, "/")
    monkeypatch.chdir("../c/d")  # a repository of its own
    assert shown("repair")[0] == {}


def test_another_file_or_none(folder, asr, shown, monkeypatch):
    write("[repair]\nseed = 1\n")
    write("[repair]\nseed = 2\n", Path("other.toml"))
    write("[tool.asr-onnx.repair]\nseed = 3\n", Path("sub/pyproject.toml"))
    assert shown("repair", "--config", "other.toml")[0] == {"seed": 2}
    assert shown("repair", "--config", "sub/pyproject.toml")[0] == {"seed": 3}
    assert shown("repair", "--no-config")[0] == {}
    monkeypatch.setenv(config.VARIABLE, "other.toml")
    assert shown("repair")[0] == {"seed": 2}
    assert shown("repair", "--config", "asr-onnx.toml")[0] == {"seed": 1}
    assert shown("repair", "--no-config")[0] == {}
    code, _, err = asr("repair", "m.onnx", "--config", "x.toml", "--no-config")
    assert code == 2 and "exclude each other" in err
    code, _, err = asr("repair", "m.onnx", "--config", "none.toml")
    assert code == 2 and err.startswith("error: none.toml") and err.count("\n") == 1
    write("[tool.x]\n", Path("pyproject.toml"))
    code, _, err = asr("repair", "m.onnx", "--config", "pyproject.toml")
    assert (code, err) == (2, "error: pyproject.toml has no table [tool.asr-onnx]\n")


def test_paths_are_relative_to_the_file(folder, shown, monkeypatch):
    write(
        """[repair]
        calib = "data/images"
        load-inputs = ["a.json", "/b.json"]
        preprocess = "imagenet"
        metric-script = "tools/m.py:f"
        include = "a/b"
        [compare]
        json = "-"
        preprocess = "p.json"
        data-loader-script = "load.py"
        """
    )
    Path("deep/er").mkdir(parents=True)
    monkeypatch.chdir("deep/er")
    found = shown("repair")[0]
    plain = {k: str(v).replace("\\\\", "/").replace("\\", "/") for k, v in found.items()}
    assert plain == {
        "calib": "../../data/images", "load-inputs": "['../../a.json', '/b.json']",
        "preprocess": "imagenet", "metric-script": "../../tools/m.py:f", "include": "a/b",
    }  # fmt: skip
    plain = {k: v.replace("\\", "/") for k, v in shown("compare")[0].items()}
    assert plain == {
        "json": "-", "preprocess": "../../p.json", "data-loader-script": "../../load.py"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words", "left", "told"),
    [
        ('pattern = "2:4"\nonly-eligible = true', "--sparsity .5", {"sparsity": 0.5}, "pattern"),
        ("sparsity = 0.5", "--pattern 2:4", {"pattern": "2:4"}, "sparsity"),
        ("macs = 0.5", "--pattern 2:4 --sparsity .3", {"pattern": "2:4", "sparsity": 0.3}, "macs"),
        ('pattern = "channel"\nmacs = 0.5', "--sparsity .5",
         {"pattern": "channel", "sparsity": 0.5}, "macs"),
        ('pattern = "channel"\nsparsity = 0.5', "--macs .5",
         {"pattern": "channel", "macs": 0.5}, "sparsity"),
        ('sparsity = "auto"\nauto-steps = 3', "--sparsity .5", {"sparsity": 0.5}, "auto-steps"),
        ('criterion = "obs"\nseed = 1', "--dense d.onnx", {"dense": "d.onnx", "seed": 1}, "criter"),
        ('dense = "d.onnx"', "--sparsity .5", {"sparsity": 0.5}, "dense"),
        ('calib = "a"\nmean = 0.5', "--load-inputs f.json", {"load-inputs": ["f.json"]}, "calib"),
        ('load-inputs = ["a"]', "--calib c", {"calib": "c"}, "load-inputs"),
        ('precision = "int8"\nranges = "mse"', "--precision fp16", {"precision": "float16"},
         "ranges"),
    ],
)  # fmt: skip
def test_the_command_line_drops_what_it_excludes(folder, asr, shown, text, words, left, told):
    write(f"[repair]\n{text}\n")
    assert shown("repair", *words.split())[0] == left
    _, _, err = asr("repair", "none.onnx", *words.split())
    given = words.split()[0]
    assert f"{given} leaves out [repair] {told}" in err


def test_a_pattern_and_a_sparsity_that_stand_together_stay_together(folder, shown):
    write('[repair]\npattern = "2:4"\nsparsity = 0.3\nonly-eligible = true\n')
    both = {"pattern": "2:4", "sparsity": 0.3, "only-eligible": True}
    assert shown("repair")[0] == both
    near = shown("repair", "--sparsity", "0.4", "--pattern", "1:4")[0]
    assert near == both | {"pattern": "1:4", "sparsity": 0.4}
    assert shown("repair", "--sparsity", "0.4")[0] == {"sparsity": 0.4}


def test_a_table_drops_what_it_excludes_of_all(folder, shown):
    write('[all]\nsparsity = 0.5\nexclude = "x"\n[repair]\npattern = "2:4"\n[quantize]\n'
          'dense = "d.onnx"\n')  # fmt: skip
    assert shown("repair")[0] == {"pattern": "2:4", "exclude": "x"}
    assert shown("prune")[0] == {"sparsity": 0.5, "exclude": "x"}
    assert shown("quantize")[0] == {"dense": "d.onnx", "exclude": "x"}  # it may stay float32


def test_rules_are_about_options_there_are():
    names = {o.name for options in KNOWN.values() for o in options.values()}
    assert {n for rule in RULES for n in (*rule.given, *rule.dropped)} <= names


def test_the_example_of_the_documentation_is_valid(folder, shown):
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    write(text.split("```toml\n")[1].split("```")[0])
    assert shown("repair")[0] == {
        "calib": "images", "num-samples": 256, "mean": [0.5] * 3, "std": [0.5] * 3,
        "sparsity": 0.8, "reconstruct": True, "data": "test", "min-accuracy": 0.9,
        "metric-script": "metric.py", "min-metric": ["f1=0.9"],
    }  # fmt: skip
    assert shown("compare")[0]["latency"] is False
    assert shown("sweep")[0]["recipes"] == ["asr", "best"]


def test_a_folder_that_is_gone_has_no_file(folder, asr, monkeypatch):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(config.Path, "cwd", gone)
    assert asr("prune", folder / "m.onnx", "-o", folder / "o.onnx")[0] == 0


def test_errors_of_values_taken_together_say_where_they_stand(folder, asr):
    write('[repair]\ncalib = "x.npy"\npattern = "2:4"\nsparsity = 0.6\n')
    code, _, err = asr("repair", "m.onnx", "-q")
    assert code == 2
    assert err == (
        "error: pattern 2:4 leaves at most 50 % zeros: ask for less, or leave the sparsity out "
        "([repair] sparsity and [repair] pattern of 'asr-onnx.toml')\n"
    ) or err == (
        "error: pattern 2:4 leaves at most 50 % zeros: ask for less, or leave the sparsity out "
        "([repair] pattern and [repair] sparsity of 'asr-onnx.toml')\n"
    )
    write('[repair]\ncalib = "x.npy"\nlabels = "l.csv"\n')
    code, _, err = asr("repair", "m.onnx", "-q")
    assert code == 2 and err.endswith("([repair] labels of 'asr-onnx.toml')\n")


BAD = {
    "[repar]\n": "[repar] is no command: did you mean [repair]?",
    "[xyz]\n": "[xyz] is no command: there are all, repair",
    "sparsity = 1\n": "sparsity is in no table of a command: put it into [all]",
    "repair = 3\n": "repair is in no table",
    "[[repair]]\nseed = 1\n": "repair is in no table",
    "[repair]\nsparsty = 0.5\n": "[repair] sparsty: repair has no such option: did you mean spars",
    "[repair]\nnum_samples = 5\n": "did you mean num-samples?",
    "[repair]\nno-reconstruct = true\n": "write reconstruct = false or true",
    "[all]\nq = true\n": "[all] q: no command has such option",
    "[repair]\nconfig = 'x'\n": "[repair] config: repair has no such option",
    "[repair]\nfrom-report = 'x'\n": "repair has no such option",
    "[repair]\nmodel = 'x'\n": "repair has no such option",
    "[repair]\n'' = 1\n": "repair has no such option",
    "[repair]\n-- = 1\n": "repair has no such option",
    "[repair]\nsparsity = true\n": "sparsity: is to be a number",
    "[repair]\nsparsity = '8o%'\n": "sparsity: '8o%' is not a share such as 0.8 or 80%",
    "[repair]\nsparsity = 1979-05-27\n": "not of type date",
    "[repair]\nsparsity = [0.5]\n": "not an array",
    "[repair]\nsparsity.x = 1\n": "not a table",
    "[repair.sparsity]\n": "not a table",
    "[repair]\nseed = true\n": "seed: is to be a whole number, not true or false",
    "[repair]\nseed = '3'\n": "seed: is to be a whole number, not a text",
    "[repair]\nseed = 3.0\n": "seed: is to be a whole number",
    "[repair]\nseed = -1\n": "seed: -1 is not in the range",
    f"[repair]\nseed = {1 << 300}\n": "seed: is too large a number",
    f"[repair]\nseed = 0x{'f' * 9000}\n": "seed: is too large a number",
    f"[repair]\nseed = {'9' * 9000}\n": "no TOML",
    "[repair]\nreconstruct = 1\n": "reconstruct: is to be true or false",
    "[repair]\nreconstruct = 'yes'\n": "reconstruct: is to be true or false, not a text",
    "[repair]\nquiet = 'yes'\n": "quiet: is to be true or false",
    "[repair]\nmin-metric = 'f1=1'\n": "is repeatable: give an array of values, not a text",
    "[repair]\nmin-metric = [1]\n": "min-metric: is to be a text",
    "[repair]\nmin-metric = [['a']]\n": "min-metric: is to be a text, not an array",
    "[repair]\nmean = ['a']\n": "one of its items is something else",
    "[repair]\nmean = [true]\n": "one of its items is something else",
    "[repair]\nops = [1]\n": "one of its items is something else",
    "[repair]\nresize = [1.5, 2]\n": "resize: '1.5,2' is not a size",
    "[repair]\nholdout = 2\n": "holdout: 2.0 is not in the range",
    "[repair]\nholdout = nan\n": "holdout: is no number",
    "[repair]\nrecipe = 'bst'\n": "recipe: 'bst' is not one of",
    "[repair]\ncalib = 3\n": "calib: is to be a text",
    "[repair]\ncalib = 'a\\u0000b'\n".replace("'", '"'): "calib: holds a zero byte",
    "[repair]\nseed = 1\nseed = 1\n": "no TOML",
    "[repair]\n[repair]\n": "no TOML",
    "[repair\n": "no TOML",
    "a=" + "[" * 5000: "TOML nested too deeply",
    "a=" + "{a=" * 5000: "TOML nested too deeply",
    "a." * 40_000 + "a=1": "a key of more than 16 parts",
    '"a" . ' * 40_000 + "a=1": "a key of more than 16 parts",
    "[" + "a." * 40_000 + "a]": "a key of more than 16 parts",
    'x=""" " """\n' + "a." * 40_000 + "a=1": "a key of more than 16 parts",
    "[" + "é" * 5000 + "]": "no TOML",
    "['" + "é" * 5000 + "']": "is no command",
    "[repair]\n" + "x" * 500_000 + " = 1": "repair has no such option",
    '"' + '\\"' * 200_000: "no TOML",
    '"""' + '\\"""' * 100_000: "no TOML",
    "#" * (1 << 20) + "\n": "more than 1 MiB",
}  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_is_wrong_in_a_file_is_one_line(folder, asr, number):
    text, told = list(BAD.items())[number]
    write(text)
    code, out, err = asr("repair", "m.onnx", "--calib", "x.npy")
    assert (code, out) == (2, "") and err.startswith("error: asr-onnx.toml"), err
    assert told in err and err.count("\n") == 1 and len(err) < 400


def test_a_wrong_table_of_another_command_is_told_of(folder, asr):
    write("[sweep]\nseed = 'x'\n")
    assert "[sweep] seed: is to be a whole number" in asr("prune", "m.onnx")[2]


def test_no_text_and_no_file(folder, asr):
    FILE.write_bytes(b"\xff\xfe[repair]")
    assert "no text in UTF-8" in asr("prune", "m.onnx")[2]
    FILE.unlink()
    FILE.mkdir()
    code, _, err = asr("prune", "m.onnx")
    assert code == 2 and err.startswith("error: asr-onnx.toml") and "--no-config" in err
    assert asr("prune", "--help")[0] == 0 and asr("prune", "m.onnx", "--no-config")[0] == 0
    FILE.rmdir()
    FILE.write_bytes(b"\xef\xbb\xbf[prune]\r\nforce = true\r\n")  # as Windows writes it
    assert asr("prune", "m.onnx")[0] == 0
    Path("pyproject.toml").mkdir()
    FILE.unlink()
    assert asr("prune", "m.onnx", "-o", "o.onnx")[0] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes and owners")
def test_pipes_links_and_files_of_others(folder, asr, monkeypatch):
    os.mkfifo(FILE)
    assert "is a pipe" in asr("prune", "m.onnx")[2]
    FILE.unlink()
    FILE.symlink_to("nowhere")
    assert "No such file" in asr("prune", "m.onnx")[2]
    FILE.unlink()
    write("[prune]\nforce = true\n")
    monkeypatch.setattr(os, "geteuid", lambda: FILE.stat().st_uid + 1)
    monkeypatch.setattr(config, "_ROOT", -1)
    code, _, err = asr("prune", "m.onnx")
    assert code == 2 and "belongs to another user" in err
    assert asr("prune", "m.onnx", "--config", FILE)[0] == 0


def test_a_broken_pyproject_without_our_table_is_none_of_our_business(folder, asr):
    write("[tool.ruff\n", Path("pyproject.toml"))
    assert asr("prune", "m.onnx")[2] == ""
    write("[tool.asr-onnx\n", Path("pyproject.toml"))
    assert asr("prune", "m.onnx")[2].startswith("error: pyproject.toml (--no-config does without)")
    write("tool = 3 # asr-onnx\n", Path("pyproject.toml"))
    assert "exists already" in asr("prune", "m.onnx")[2]
    write("tool.asr-onnx = 3\n", Path("pyproject.toml"))
    assert "is to be a table" in asr("prune", "m.onnx")[2]
    write("[tool.asr-onnx]\nseed = 3\n", Path("pyproject.toml"))
    assert "put it into [tool.asr-onnx.all]" in asr("prune", "m.onnx")[2]
