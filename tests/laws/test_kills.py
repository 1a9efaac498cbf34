"""A run that is killed at any moment leaves the old model or the new one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from models import ROOT, bare_net, external_copy, normal, stored

from asr_onnx.graph.model_file import load

pytestmark = pytest.mark.slow

OLD, NEW = "0.3", "0.7"  # sparsities
REPAIR = ("repair", "m.onnx", "--calib", "x.npy", "--providers", "cpu", "--force", "-q",
          "--recipe", "refit", "-o", "out.onnx", "--sparsity")  # fmt: skip

# For each folder that it reads a process runs the command there, says where it is, and takes its
# time to put files into their places.  They are forked, for imports take longer than all the rest.
RUNS = """
import os, pathlib, signal, sys, time
import asr_onnx.pipeline, onnx
from asr_onnx.cli import main

def slow(source, target, replace=os.replace):
    time.sleep(0.06)
    replace(source, target)
    time.sleep(0.06)

def save(*words, save=onnx.save_model, **settings):
    print("saving", flush=True)
    save(*words, **settings)

os.replace, onnx.save_model = slow, save
pathlib.Path.replace = lambda path, target: slow(path, target)
for line in sys.stdin:
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    signal.alarm(60)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(line.strip())
    os.dup2(os.open("told", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    print("child", os.getpid(), flush=True)
    print("working", flush=True)
    sys.exit(main.main())
"""


@pytest.fixture
def settled(tmp_path, rng, monkeypatch, asr):
    """A folder with a model of two files, and what is in the old and in the new output."""
    monkeypatch.chdir(tmp_path)
    external_copy(bare_net(rng), tmp_path)
    np.save("x.npy", normal(rng, 96, 3, 8, 8))
    values = []
    for sparsity in (NEW, OLD):
        assert asr(*REPAIR, sparsity)[0] == 0
        values.append(found())
    assert not same(*values)
    return tmp_path, values


def found():
    """The values in the output; raises for one that cannot be loaded."""
    return stored(load("out.onnx").proto)


def same(one, other):
    return one.keys() == other.keys() and all((one[n] == other[n]).all() for n in one)


@pytest.fixture(scope="module")
def runs():
    """What starts the runs."""
    with subprocess.Popen(
        [sys.executable, "-c", RUNS, *REPAIR, NEW],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def hit(runs, folder, number, phase, seconds):
    """Start a run over the old output, and send a signal so long after it has come to a phase."""

    def told():
        line = runs.stdout.readline().strip()
        assert line
        return line

    print(folder, file=runs.stdin, flush=True)
    word, child = told().split()
    assert word == "child"
    while (line := told()) != phase:
        assert line == "working"
    time.sleep(seconds)
    os.kill(int(child), number)
    while (line := told()) == "saving":
        pass
    assert int(line) != -signal.SIGALRM, "it hangs"
    return int(line), (folder / "told").read_text()


def moments(count):
    """Moments of both phases, the same in every run."""
    chance = random.Random(7)
    longest = {"working": 0.3, "saving": 0.22}  # seconds
    return [
        (phase, chance.uniform(0, most)) for _ in range(count) for phase, most in longest.items()
    ]


def test_a_killed_run_leaves_the_old_model_or_the_new_one(settled, runs, asr):
    folder, (new, old) = settled
    codes = []
    for phase, seconds in moments(12):
        codes.append(hit(runs, folder, signal.SIGKILL, phase, seconds)[0])
        assert same(found(), old) or same(found(), new), (phase, seconds)
        assert asr(*REPAIR, NEW)[0] == 0
        assert same(found(), new)
        assert not list(folder.glob(".asr-onnx-*"))
        assert asr(*REPAIR, OLD)[0] == 0
    assert codes.count(-signal.SIGKILL) >= 20


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_what_it_leaves(settled, runs, asr, number, code):
    folder, (new, old) = settled
    for phase, seconds in moments(4):
        ended, told = hit(runs, folder, number, phase, seconds)
        now = found()
        assert not list(folder.glob(".asr-onnx-*"))
        if ended:
            assert (ended, told.count("\n")) == (code, 1), told
            assert same(now, new if "'out.onnx'" in told else old), told
        else:
            assert told == "" and same(now, new)
        assert asr(*REPAIR, OLD)[0] == 0
