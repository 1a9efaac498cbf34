"""asr-onnx demo: a whole folder or nothing, and commands that work."""

from __future__ import annotations

import shlex
import shutil

import pytest
from models import ROOT, files

from asr_onnx import samples
from asr_onnx.cli import demo
from asr_onnx.errors import AsrError
from asr_onnx.samples import NAME, PARTS, copy_samples, sample_folder


def test_the_samples_are_those_of_the_checkout_and_their_licence_goes_along(
    tmp_path, asr, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, err = asr("demo")
    assert (code, err) == (0, "")
    copied = tmp_path / "asr-onnx-demo"
    assert {n.split("/")[0] for n in files(copied)} == {p.split("/")[0] for p in PARTS}
    assert len(files(copied)) == 3 + 512 + 500
    for name in files(copied):
        assert (copied / name).read_bytes() == (ROOT / NAME / name).read_bytes()
    assert "CC BY 4.0" in (copied / "README.md").read_text(encoding="utf-8")
    told = [line.split("asr-onnx ", 1)[1] for line in out.splitlines() if "  asr-onnx " in line]
    assert [shlex.split(t)[0] for t in told] == ["prune", "repair", "compare"]
    assert all((tmp_path / shlex.split(t)[1]).is_file() for t in told)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["asr-onnx-demo"]


def few(tmp_path, monkeypatch):
    """A package that brings samples of its own: four images of each class, to be quick."""
    package = tmp_path / "installed"
    for part in PARTS:
        for path in sorted((ROOT / NAME).glob(part)):
            target = package / NAME / path.relative_to(ROOT / NAME)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix != ".png" or len(list(target.parent.iterdir())) < 4:
                shutil.copy(path, target)
    monkeypatch.setattr(samples, "__file__", str(package / "samples.py"))
    return package


def test_an_installed_package_brings_them_along(tmp_path, monkeypatch):
    package = few(tmp_path, monkeypatch)
    assert sample_folder() == package / NAME
    copy_samples(tmp_path / "new")
    assert files(tmp_path / "new") == files(package / NAME)
    shutil.rmtree(package / NAME)
    with pytest.raises(AsrError, match=r"sample models are not in '.*installed': install"):
        copy_samples(tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_what_is_told_works(tmp_path, asr, monkeypatch):
    few(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    code, out, err = asr("demo", "a folder", "--run")
    assert code == 0, err
    made = {"repair.html", *(f"digits_resnet_bn.{how}.onnx" for how in ("pruned", "sparse"))}
    assert made <= set(files(tmp_path / "a folder"))
    assert "$ asr-onnx repair 'a folder/digits_resnet_bn.onnx'" in out
    assert "digits_resnet_bn.sparse.onnx against digits_resnet_bn.onnx" in out


def test_commands_that_are_run_overwrite_only_when_that_was_asked(tmp_path, asr, monkeypatch):
    few(tmp_path, monkeypatch)
    ran = []
    monkeypatch.setattr(demo, "_run", lambda context, words: ran.append(words))
    assert asr("demo", tmp_path / "new", "--run", "-q") == (0, "", "")
    assert all(words[-1] == "-q" and "--force" not in words for words in ran)
    ran.clear()
    assert asr("demo", tmp_path / "new", "--run")[0] == 2 and not ran
    assert asr("demo", tmp_path / "new", "--run", "--force")[0] == 0
    assert [("--force" in words) for words in ran] == [True, True, False]


def test_a_folder_with_other_things_is_left_as_it_is(tmp_path, asr, monkeypatch):
    few(tmp_path, monkeypatch)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("mine")
    (mine / "other").write_text("mine, too")
    code, out, err = asr("demo", mine)
    assert (code, out) == (2, "") and err.count("\n") == 1 and "--force" in err
    assert files(mine) == ["README.md", "other"]
    assert asr("demo", mine, "--force", "-q") == (0, "", "")
    assert (mine / "other").read_text() == "mine, too"
    assert (mine / "README.md").read_bytes() == (ROOT / NAME / "README.md").read_bytes()
    assert not [p for p in mine.iterdir() if p.name.startswith(".")]


def test_an_empty_folder_is_as_good_as_none(tmp_path, asr, monkeypatch):
    few(tmp_path, monkeypatch)
    (tmp_path / "empty").mkdir()
    assert asr("demo", tmp_path / "empty", "-q") == (0, "", "")
    assert "README.md" in files(tmp_path / "empty")


@pytest.mark.parametrize(
    "target, message", [("none/x", "none' of the output does not exist"), ("file", "is no folder")]
)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path, asr, monkeypatch, target, message):
    (tmp_path / "file").write_text("mine")
    code, out, err = asr("demo", tmp_path / target)
    assert (code, out) == (2, "") and err.count("\n") == 1 and message in err
    assert files(tmp_path) == ["file"]


def test_a_copy_that_fails_leaves_nothing(tmp_path, asr, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(samples.shutil, "copyfile", full)
    code, _, err = asr("demo", tmp_path / "new")
    assert code == 1 and err.count("\n") == 1 and "No space left on device" in err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_looks_like_an_option_is_told_as_a_path(tmp_path, asr, monkeypatch):
    few(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    code, out, err = asr("demo", "--", "-x")
    assert (code, err) == (0, "")
    assert "asr-onnx prune ./-x/digits_resnet_bn.onnx --sparsity" in out
    assert " -x/" not in out.split("Try:")[1]
