"""Settings all tests share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("project", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("project")


@pytest.fixture
def rng() -> np.random.Generator:
    """The same numbers in every run and for every test."""
    return np.random.default_rng(2605_21426)
