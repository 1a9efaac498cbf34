"""Chunks: the same samples together however they are batched."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asr_onnx.execution.chunks import chunks


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    size=st.integers(1, 12),
)
def test_chunks_do_not_depend_on_the_batches(sizes, size):
    data = np.arange(sum(sizes))
    batches = np.split(data, np.cumsum(sizes)[:-1])
    found = chunks([(n, len(b), "like") for n, b in enumerate(batches)], size)
    together = [c.of(lambda n, samples: batches[n][samples]) for c in found]
    np.testing.assert_array_equal(np.concatenate(together), data)
    assert [len(c) for c in together[:-1]] == [size] * (len(found) - 1)
    assert [c.first for c in found] == [c[0] for c in together]


def test_samples_of_another_shape_begin_a_new_chunk():
    found = chunks([(0, 2, (3, 4)), (1, 2, (3, 4)), (2, 1, (3, 5)), (3, 3, (3, 4))], 3)
    assert [(c.first, [p.batch for p in c.pieces]) for c in found] == [
        (0, [0, 1]),
        (3, [1]),
        (4, [2]),
        (5, [3]),
    ]
