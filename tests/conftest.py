"""Settings all tests share."""

from __future__ import annotations

import sys

import browser
import numpy as np
import onnx
import pytest
from hypothesis import settings
from models import balanced, norm_net, normal
from PIL import Image

from asr_onnx import interrupts
from asr_onnx.cli import main as cli
from asr_onnx.execution import session

settings.register_profile("project", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("project")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark whatever opens the browser, so that no test can forget to."""
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.fixture(autouse=True)
def on_the_cpu(request, monkeypatch):
    """Let "auto" be the CPU, with or without a GPU; sessions are tested as they are."""
    if request.node.path.name != "test_session.py":
        monkeypatch.setattr(session, "_problem", lambda device: "tests run on the CPU")


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers in every run and for every test."""
    return np.random.default_rng(2605_21426)


@pytest.fixture
def folder(tmp_path, rng, monkeypatch):
    """A folder with a model, images and arrays, which is the current one."""
    model, images = norm_net(rng), []
    for number in range(12):
        path = tmp_path / "images" / f"class{number % 2}" / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        images.append(rng.integers(0, 256, (8, 8, 3), np.uint8))
        Image.fromarray(images[-1]).save(path)
    x = (np.stack(images).transpose(0, 3, 1, 2) / 255 - 0.45) / 0.225  # about as in ImageNet
    onnx.save(balanced(model, x=x.astype(np.float32)), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", normal(rng, 12, 3, 8, 8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asr(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.setattr(interrupts.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "warnoptions", ["error"])  # as pytest has them
    monkeypatch.setattr(interrupts, "_written", [])
    monkeypatch.setattr(interrupts, "_received", None)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["asr-onnx", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def chromium():
    """One browser for all tests that want one."""
    found = browser.start()
    yield found
    found.driver.quit()


@pytest.fixture
def show(chromium, tmp_path):
    """Open a page, a file or its text, as wide as a desk or as told, and return the browser."""

    def opened(page, width=browser.WIDTHS[-1]):
        if isinstance(page, str):
            page, text = tmp_path / "page.html", page
            page.write_text(text, encoding="utf-8")
        chromium.open(page, width)
        return chromium

    return opened
