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

# A run that tells where it is, and takes its time to put files into their places.
RUN = """
import os, pathlib, sys, time
import onnx
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
print("working", flush=True)
main.main()
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


def hit(number, phase, seconds):
    """Start a run over the old output, and send a signal so long after it has come to a phase."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, *REPAIR, NEW],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while process.stdout.readline().strip() != phase:
        assert process.poll() is None
    time.sleep(seconds)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    return process.returncode, told


def moments(count):
    """Moments of both phases, the same in every run."""
    chance = random.Random(7)
    longest = {"working": 0.3, "saving": 0.22}  # seconds
    return [
        (phase, chance.uniform(0, most)) for _ in range(count) for phase, most in longest.items()
    ]


@pytest.mark.xfail(reason="the old model's data file is replaced before the model itself")
def test_a_killed_run_leaves_the_old_model_or_the_new_one(settled, asr):
    folder, (new, old) = settled
    codes = []
    for phase, seconds in moments(12):
        codes.append(hit(signal.SIGKILL, phase, seconds)[0])
        assert same(found(), old) or same(found(), new), (phase, seconds)
        assert asr(*REPAIR, NEW)[0] == 0
        assert same(found(), new)
        assert not list(folder.glob(".asr-onnx-*"))
        assert asr(*REPAIR, OLD)[0] == 0
    assert codes.count(-signal.SIGKILL) >= 20


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_what_it_leaves(settled, asr, number, code):
    folder, (new, old) = settled
    for phase, seconds in moments(4):
        ended, told = hit(number, phase, seconds)
        now = found()
        assert not list(folder.glob(".asr-onnx-*"))
        if ended:
            assert (ended, told.count("\n")) == (code, 1), told
            assert same(now, new if "'out.onnx'" in told else old), told
        else:
            assert told == "" and same(now, new)
        assert asr(*REPAIR, OLD)[0] == 0
