"""What sweeps are tried on."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import copied, norm_net, normal, run, stored


@pytest.fixture
def cases(tmp_path, monkeypatch):
    """A model, 40 samples to calibrate on and 60 that it labels, in the current folder."""
    rng = np.random.default_rng(7)
    model = norm_net(rng)
    x = normal(rng, 60, 3, 8, 8)
    centred = stored(model)["fb"] - run(model, x=x)["y"].mean(0)  # else one class wins everywhere
    model = copied(model, fb=centred)
    monkeypatch.chdir(tmp_path)
    onnx.save(model, "m.onnx")
    np.save("c.npy", normal(rng, 40, 3, 8, 8))
    np.save("t.npy", x)
    np.save("l.npy", run(model, x=x)["y"].argmax(1))
    return model
