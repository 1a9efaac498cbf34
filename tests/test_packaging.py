"""What people install: the archives, the container's recipe, the citation, the release."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
import release
import yaml
from models import ROOT, files

from asr_onnx.provenance import __version__
from asr_onnx.reports.files import KINDS
from asr_onnx.samples import NAME, PARTS

MADE = (".git", ".venv*", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")


def can_build() -> bool:
    """Whether this environment has what builds; setuptools 77 is the first to know SPDX."""
    return bool(find_spec("build")) and int(version("setuptools").split(".")[0]) >= 77


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The wheel and the source distribution that it is made from, of a copy of the checkout.

    In the checkout itself an older build's leftovers would go in, and other tests see the new ones.
    """
    if not can_build():
        pytest.skip("the packages that build are not installed: make test installs them")
    place = tmp_path_factory.mktemp("archives")
    shutil.copytree(ROOT, place / "copy", ignore=shutil.ignore_patterns(*MADE), symlinks=True)
    (place / "copy" / NAME / "digits_resnet_bn.sparse.onnx").write_bytes(b"made by trying things")
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "out", "copy"]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = place.glob("out/*.whl")
    (source,) = place.glob("out/*.tar.gz")
    return wheel, source


def in_checkout(folder: str) -> set[str]:
    kept = files(ROOT / folder)
    return {f"{folder}/{n}" for n in kept if "__pycache__" not in n and not n.endswith(".pyc")}


def samples() -> set[str]:
    places = (path for part in PARTS for path in (ROOT / NAME).glob(part))
    return {p.relative_to(ROOT).as_posix() for p in places}


@pytest.mark.slow
def test_the_wheel_has_the_package_its_data_and_nothing_else(archives):
    with zipfile.ZipFile(archives[0]) as wheel:
        names = set(wheel.namelist())
        about = f"asr_onnx-{__version__}.dist-info"
        metadata = wheel.read(f"{about}/METADATA").decode()
        entry = wheel.read(f"{about}/entry_points.txt").decode()
    wanted = in_checkout("asr_onnx") | {f"asr_onnx/{n}" for n in samples()}
    assert {n for n in names if not n.startswith(f"{about}/")} == wanted
    assert "asr_onnx/py.typed" in names
    assert {"LICENSE", "sample_models/README.md"} <= {n.split("/licenses/")[-1] for n in names}
    assert {f"asr_onnx/reports/schemas/{k.name}-{k.version}.json" for k in KINDS.values()} <= names
    assert entry.split() == ["[console_scripts]", "asr-onnx", "=", "asr_onnx.__main__:main"]
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0 AND CC-BY-4.0\n" in metadata


@pytest.mark.slow
def test_the_source_distribution_is_enough_to_test_it(archives):
    with tarfile.open(archives[1]) as source:
        names = {m.name.partition("/")[2] for m in source.getmembers() if m.isfile()}
    folders = ("asr_onnx", "tests", "tools", "docs", "examples", ".github", ".ci")
    assert set().union(*map(in_checkout, folders), samples()) <= names
    assert {"Makefile", "README.md", "CHANGELOG.md", "LICENSE", "Dockerfile"} <= names
    assert f"{NAME}/digits_resnet_bn.sparse.onnx" not in names


@pytest.mark.slow
def test_the_wheel_alone_runs(archives, tmp_path):
    """Unpacked as pip does, away from the checkout, with the dependencies that are here."""
    site = tmp_path / "site"
    with zipfile.ZipFile(archives[0]) as wheel:
        wheel.extractall(site)
    environment = os.environ | {"PYTHONPATH": str(site)}

    def run(*words):
        return subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=True, timeout=120,
        ).stdout  # fmt: skip

    assert Path(run("-c", "import asr_onnx; print(asr_onnx.__file__)")).is_relative_to(site)
    assert run("-m", "asr_onnx", "--version").split()[-1] == __version__
    told = [line for line in run("-m", "asr_onnx", "demo").splitlines() if "  asr-onnx " in line]
    prune = shlex.split(told[0])
    run("-m", "asr_onnx", *prune[1:])
    assert (tmp_path / "asr-onnx-demo" / "digits_resnet_bn.pruned.onnx").is_file()
    model = "asr-onnx-demo/digits_resnet_bn.onnx"
    words = ("compare", model, model, "--data", "asr-onnx-demo/digits/test", "--num-samples", "20")
    run("-m", "asr_onnx", *words, "--no-latency", "--report", "r.html", "--report", "r.json")
    run("-m", "asr_onnx", "render", "r.json", "-o", "again.html")  # templates and schemas
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["samples"] == 20


PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")  # Python 3.10 reads no TOML


def test_the_version_stands_once():
    assert '\ndynamic = ["version"]\n' in PROJECT and '\nversion = "' not in PROJECT
    assert '\nversion = { attr = "asr_onnx.provenance.__version__" }\n' in PROJECT
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", __version__)
    assert release.version(ROOT) == __version__


def test_setup_puts_in_what_the_package_looks_for():
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert re.search(r"^PARTS = \((.*)\)$", text, re.M)[1] == str(list(PARTS))[1:-1].replace(
        "'", '"'
    )


INSTRUCTION = re.compile(r"^([A-Z]+) (.*)$", re.MULTILINE)


@pytest.fixture
def recipe():
    """The Dockerfile's instructions and their words."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    return INSTRUCTION.findall(text)


def test_the_container_runs_the_command_line_as_nobody_in_particular(recipe):
    last = recipe[max(n for n, (name, _) in enumerate(recipe) if name == "FROM") :]
    told = dict(last)
    assert json.loads(told["ENTRYPOINT"]) == ["asr-onnx"] and json.loads(told["CMD"]) == ["--help"]
    assert int(told["USER"]) > 0
    (made,) = (words for _, words in last if words.startswith("useradd"))
    assert f"--uid {told['USER']} " in made
    bases = [words.split()[0] for name, words in recipe if name == "FROM"]
    assert len(bases) == 2 and all(re.fullmatch(r"[a-z]+:\d[\w.-]+", b) for b in bases)
    pips = [words for name, words in recipe if name == "RUN" and "pip install" in words]
    assert pips and all("--no-cache-dir" in words for words in pips)


def test_what_the_container_copies_is_there_and_all_that_a_wheel_needs(recipe):
    copied = [w for n, words in recipe if n == "COPY" for w in words.split()[:-1]]
    assert all((ROOT / path).exists() for path in copied)
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied)
    assert "*" in lines
    (readme,) = re.findall(r'^readme = "(.*)"$', PROJECT, re.M)
    (licences,) = re.findall(r"^license-files = (.*)$", PROJECT, re.M)
    for path in (readme, *json.loads(licences)):
        assert any(fnmatch.fnmatch(path, pattern) for c in copied for pattern in (c, f"{c}/*")), (
            path
        )


def test_the_citation_is_of_this_version_and_names_the_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0" and cited["version"] == __version__
    assert all(cited[key] for key in ("title", "message", "authors", "license"))
    (paper,) = cited["references"]
    assert paper["url"].endswith("/2605.21426")
    assert [a["family-names"] for a in paper["authors"]] == ["Zhan", "Chen", "Hu"]
    assert {"type", "title", "authors"} <= paper.keys()


@pytest.mark.skipif(not find_spec("cffconvert"), reason="cffconvert is not installed")
def test_the_citation_is_valid():
    words = ["-m", "cffconvert", "--validate", "-i", str(ROOT / "CITATION.cff")]
    subprocess.run([sys.executable, *words], check=True, timeout=60)


def released(folder, number="1.2.3", day="2026-11-30", text="- News.", cited=None):
    (folder / "asr_onnx").mkdir(exist_ok=True)
    (folder / "asr_onnx" / "provenance.py").write_text(f'__version__ = "{number}"\n')
    (folder / "CITATION.cff").write_text(f"title: t\nversion: {cited or number}\n")
    changes = f"# Changelog\n\n## {number} ({day})\n\n{text}\n\n## 1.2.2 (2026-01-01)\n\n- Old.\n"
    (folder / "CHANGELOG.md").write_text(changes)
    return folder


def test_notes_are_those_of_the_version(tmp_path):
    assert release.notes(released(tmp_path), "v1.2.3") == "- News."
    assert release.notes(released(tmp_path, "1.3.0rc1"), "v1.3.0rc1") == "- News."
    assert release.notes(released(tmp_path, "1.2.2", text="- A.\n- B."), "v1.2.2") == "- Old."


@pytest.mark.parametrize(
    "tag, how, message",
    [
        ("v1.2.4", {}, "tag v1.2.4 is not v1.2.3"),
        ("1.2.3", {}, "is not v1.2.3"),
        ("v1.2.3", {"day": "unreleased"}, "as 'unreleased': write the date"),
        ("v1.2.3", {"text": ""}, "says nothing of 1.2.3"),
        ("v1.2.3", {"cited": "1.2.2"}, "CITATION.cff is not of version 1.2.3"),
    ],
)
def test_a_release_that_does_not_fit_is_refused(tmp_path, tag, how, message):
    with pytest.raises(click.ClickException, match=re.escape(message)):
        release.notes(released(tmp_path, **how), tag)


def test_a_release_is_published_only_by_the_job_that_may_and_after_its_wheel_was_tried():
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8"))
    assert flow[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads "on" as true
    jobs = flow["jobs"]
    assert flow["permissions"] == {"contents": "read"}
    granted = {n: j["permissions"] for n, j in jobs.items() if "permissions" in j}
    assert granted == {"pypi": {"id-token": "write"}, "github": {"contents": "write"}}
    assert jobs["pypi"]["environment"] == "pypi"
    assert jobs["pypi"]["needs"] == ["wheel", "sdist"] and jobs["github"]["needs"] == "pypi"
    publish = jobs["pypi"]["steps"][-1]["uses"]
    assert publish == "pypa/gh-action-pypi-publish@release/v1"
    ran = "\n".join(step.get("run", "") for step in jobs["build"]["steps"])
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert "make dist" in ran and "dist" in targets and "tools/release.py" in ran
