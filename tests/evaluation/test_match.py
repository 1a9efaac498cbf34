"""How alike outputs are: laws of the error, the cosine and the agreement, whatever the layout."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from models import normal

from asr_onnx.evaluation.match import MatchAccumulator, compare_output, compare_outputs

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6)
SEEDS = st.integers(0, 2**32 - 1)
LAYOUTS = {  # shape, and the axis of the channels
    "yolo": ((12, 7, 40), 1),
    "transposed": ((12, 40, 7), 2),
    "nhwc": ((12, 9, 10, 3), 3),
    "nchw": ((12, 3, 9, 10), 1),
    "text": ((12, 20, 6), 2),
}


def pair(seed, shape, noise=0.3):
    """An array and one like it."""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal(shape)
    return y, y + noise * rng.standard_normal(shape)


def figures(*args, **settings):
    match = compare_output(*args, **settings)
    return match.relative_error, match.cosine


@given(SEEDS, SHAPES, st.sampled_from(["f4", "f8", "f2", "i8", "u1", "?"]))
def test_equal_outputs_have_no_error_and_cosine_1(seed, shape, kind):
    y = (100 * np.random.default_rng(seed).random(shape)).astype(kind)
    assert figures(y, y) == (0, 1)


@given(SEEDS, st.sampled_from([*LAYOUTS.values(), ((12, 5), 1), ((12,), 0)]),
       st.floats(-1e4, 1e4), st.floats(0, 1e4))  # fmt: skip
def test_an_output_that_ignores_its_input_scores_nothing(seed, layout, mean, pattern):
    """Whatever its size or mean, and with a large pattern per position (a grid of anchors) that
    both outputs have."""
    rng = np.random.default_rng(seed)
    shape, _ = layout
    grid = mean + pattern * rng.standard_normal(shape[1:])
    dense = grid + rng.standard_normal(shape)
    error, cosine = figures(dense, np.broadcast_to(dense.mean(axis=0), shape))
    assert error == pytest.approx(1, abs=1e-4)
    assert cosine == 0
    off = np.broadcast_to(grid + rng.standard_normal(shape[1:]), shape)
    error, cosine = figures(dense, off)
    assert error > 1 - 1e-4 and cosine == 0
    many = len(shape) > 2
    assert not many or error <= 2 + 1e-9  # a group that is lost counts once, not a million times


@pytest.mark.parametrize("value", [0.0, 1.0, -1e6])
def test_one_number_for_everything_is_lost(rng, value):
    dense = normal(rng, 30, 5, 7)
    error, cosine = figures(dense, np.full_like(dense, value))
    assert error >= 0.99 and cosine == 0


@given(SEEDS, st.sampled_from(list(LAYOUTS)), st.floats(1e-3, 1e3))
def test_the_unit_of_a_channel_is_nothing_to_the_figures(seed, layout, unit):
    """Boxes in pixels beside scores; the channels are on the shortest axis, wherever that is."""
    shape, axis = LAYOUTS[layout]
    dense, other = pair(seed, shape)
    scale = np.ones(shape[axis])
    scale[:2] = unit
    scale = scale.reshape([-1 if n == axis else 1 for n in range(len(shape))])
    assert figures(scale * dense, scale * other) == pytest.approx(figures(dense, other))


@given(SEEDS, st.floats(1e-3, 1e3))
def test_large_boxes_do_not_hide_lost_scores(seed, unit):
    """As pixels they are a thousand times what scores are: half of the groups are lost."""
    dense, _ = pair(seed, (12, 8, 30))
    other = dense.copy()
    other[:, 4:] = dense[:, 4:].mean(axis=0)
    scale = np.where(np.arange(8) < 4, unit, 1.0)[None, :, None]
    error, cosine = figures(scale * dense, scale * other)
    assert error == pytest.approx(math.sqrt(0.5))
    assert cosine == pytest.approx(0.5)


@given(SEEDS, st.sampled_from([*LAYOUTS.values(), ((12, 5), 1), ((12,), 0)]), st.data())
def test_batches_in_any_split_give_the_same(seed, layout, data):
    shape, _ = layout
    dense, other = pair(seed, shape)
    cuts = sorted(data.draw(st.sets(st.integers(1, shape[0] - 1))))
    axis = 1 if len(shape) > 1 else None
    match = MatchAccumulator(axis)
    for a, b in zip(np.split(dense, cuts), np.split(other, cuts), strict=True):
        match.update(a, b)
    found, wanted = match.result(), compare_output(dense, other, axis)
    assert (found.samples, found.answers) == (wanted.samples, wanted.answers)
    assert found.agreement == wanted.agreement
    assert (found.relative_error, found.cosine) == pytest.approx(
        (wanted.relative_error, wanted.cosine)
    )


@given(SEEDS, st.integers(4, 40))
def test_of_a_number_for_each_sample_the_cosine_is_the_correlation(seed, count):
    dense, other = pair(seed, (count,), noise=2)
    wanted = np.corrcoef(dense, other)[0, 1]
    for shape in ((count,), (count, 1), (count, 1, 1)):
        found = compare_output(100 + dense.reshape(shape), other.reshape(shape) - 7)
        assert found.cosine == pytest.approx(wanted)


@given(SEEDS, st.integers(1, 3), st.sampled_from([(5,), (7, 30), (3, 9, 10)]))
def test_of_few_samples_the_spread_is_that_over_positions(seed, count, inner):
    """Their own mean would make one sample a constant."""
    dense, other = pair(seed, (count, *inner))
    error, cosine = figures(dense, other)
    assert 0 < error < 1 and 0 < cosine < 1
    assert figures(dense, np.zeros_like(dense))[1] == 0


def test_a_single_number_is_compared_in_units_of_itself():
    assert figures(np.array(2.0), np.array(1.0)) == (0.5, 0)
    assert figures(np.array(2.0), np.array(2.0)) == (0, 1)


def test_relative_error_and_cosine_in_numbers(rng):
    """(N, C) is one group: all of its elements are on one scale."""
    y, noise = normal(rng, 50, 7).astype(np.float64), normal(rng, 50, 7).astype(np.float64)
    deviation = y - y.mean(axis=0)
    wanted = np.linalg.norm(noise) / np.linalg.norm(deviation)
    match = compare_output(y, y + noise)
    assert match.relative_error == pytest.approx(wanted)
    other = y + noise
    centred = other - other.mean(axis=0)
    wanted = (deviation * centred).sum() / np.linalg.norm(deviation) / np.linalg.norm(centred)
    assert match.cosine == pytest.approx(wanted)
    assert compare_output(y, 2 * y).cosine == pytest.approx(1)
    assert compare_output(y, -y).cosine == pytest.approx(-1)


def test_zeros_match_zeros_and_nothing_else():
    zero, one = np.zeros((2, 3)), np.ones((2, 3))
    assert figures(zero, zero) == (0, 1)
    assert figures(zero, one) == (math.inf, 0)
    assert figures(one, zero) == (1, 0)


def test_shapes_may_differ_from_batch_to_batch(rng):
    """As the number of detections does; both models have the same."""
    match = MatchAccumulator()
    kept = []
    for count in (9, 20, 3, 14):
        dense, other = pair(int(rng.integers(99)), (8, 7, count))
        kept.append((dense, other))
        match.update(dense, other)
    found = match.result()
    assert found.samples == 32
    assert 0 < found.relative_error < 0.5 and 0.9 < found.cosine < 1
    match.update(*(y[:, :, :2] + 1e3 for y in kept[0]))
    assert math.isfinite(match.result().relative_error)


def test_lists_that_are_longer_than_the_dense_models_are_not_compared(rng):
    match = MatchAccumulator()
    match.update(normal(rng, 5, 6), normal(rng, 5, 6), 2)
    match.update(normal(rng, 4, 6), normal(rng, 3, 6), 2)
    found = match.result()
    assert found.samples == 4 and found.agreement is None
    assert math.isnan(found.relative_error) and math.isnan(found.cosine)


def test_text_is_not_compared():
    found = compare_output(np.array(["a", "b"]), np.array(["a", "b"]))
    assert math.isnan(found.relative_error) and math.isnan(found.cosine)
    found = compare_output(np.array([1.0, 2.0]), np.array(["a", "b"]))
    assert math.isnan(found.relative_error)


@pytest.mark.parametrize("kind", ["i8", "u1", "?"])
def test_numbers_of_any_kind_are_compared(rng, kind):
    dense = rng.integers(0, 2, (40, 3)).astype(kind)
    other = dense.copy()
    other[::7] = 1 - dense[::7].astype(int)
    error, cosine = figures(dense, other)
    assert 0.3 < error < 1.2 and 0.3 < cosine < 0.95


@given(SEEDS, st.sampled_from([np.nan, np.inf, -np.inf]), st.sampled_from(list(LAYOUTS)))
def test_what_is_no_number_never_looks_good(seed, value, layout):
    shape, axis = LAYOUTS[layout]
    dense, _ = pair(seed, shape)
    other = dense.copy()
    other.flat[seed % other.size] = value
    assert figures(dense, other, class_axis=axis) == (math.inf, 0)
    assert figures(other, dense) == (math.inf, 0)
    # What the dense model has, too, says nothing: -inf masks a score.
    assert figures(other, other) == (0, 1)
    assert 0 < figures(other, np.where(np.isfinite(other), other + 0.1, other))[0] < 0.2


def test_nan_is_no_answer(rng):
    dense = np.eye(4)
    other = np.full((4, 4), np.nan)
    assert compare_output(dense, other).agreement == 0
    other[1:] = dense[1:]
    assert compare_output(dense, other).agreement == 0.75
    assert compare_output(other, other).agreement == 1


@pytest.mark.parametrize("shape", [(6, 0), (0, 7), (6, 0, 4), (6, 4, 0), (0,)])
def test_nothing_equals_nothing(shape):
    match = compare_output(np.zeros(shape), np.zeros(shape), samples=6)
    assert (match.samples, match.relative_error, match.cosine) == (6, 0, 1)
    assert match.agreement is None and not match.one_answer


# Agreement.


def test_agreement_is_the_share_of_equal_classes():
    dense = np.eye(4, dtype=np.float32)
    match = compare_output(dense, dense[[0, 1, 3, 2]])
    assert (match.agreement, match.answers) == (0.5, 4)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 0), (6, 3, 5), (6, 3, 4, 4), (6, 4, 4, 3)])
def test_where_classes_are_not_known_to_lie_there_is_no_agreement(rng, shape):
    match = compare_output(normal(rng, *shape), normal(rng, *shape))
    assert match.agreement is None and not match.has_classes


@pytest.mark.parametrize("axis", [0, 3, -3, -4, 9])
def test_an_axis_that_is_the_batchs_or_none_has_no_classes(rng, axis):
    y = normal(rng, 6, 3, 5)
    assert compare_output(y, y, axis).agreement is None


def test_a_list_of_detections_has_no_classes_though_it_looks_like_it(rng):
    """(K, 6), K boxes on 4 images."""
    y = normal(rng, 20, 6)
    assert compare_output(y, y, samples=4).agreement is None
    assert compare_output(y, y, samples=20).agreement == 1


def one_hot(classes, count):
    return np.eye(count, dtype=np.float32)[classes]


@pytest.mark.parametrize("layout", ["NTC", "TNC", "NCT"])
def test_positions_of_a_text_without_the_blank(layout):
    """Half of what is read is wrong, and nine in ten positions are blank."""
    text = np.zeros((8, 20), int)
    text[:, 3], text[:, 11] = 1, 2
    read = text.copy()
    read[:, 11] = 0
    places = {"NTC": (0, 1, 2), "TNC": (1, 0, 2), "NCT": (0, 2, 1)}[layout]
    dense, other = (one_hot(t, 5).transpose(places) for t in (text, read))
    match = compare_output(dense, other, places.index(2), samples=8)
    assert (match.agreement, match.answers, match.samples) == (0.5, 16, 8)
    silent = compare_output(dense, np.zeros_like(dense), places.index(2), samples=8)
    assert silent.agreement == 0
    # What is read where the dense model reads nothing does not count; the error has it.
    noisy = text.copy()
    noisy[:, :3] = 4
    match = compare_output(dense, one_hot(noisy, 5).transpose(places), places.index(2), samples=8)
    assert match.agreement == 1 and match.relative_error > 0.5


@pytest.mark.parametrize("axis", [1, 3])
def test_pixels_of_a_map_without_the_background(rng, axis):
    classes = np.zeros((4, 9, 10), int)
    classes[:, 2:4, 2:4] = rng.integers(1, 3, (4, 2, 2))
    other = classes.copy()
    other[:, 2, 2] = 0
    dense, other = (np.moveaxis(one_hot(c, 3), -1, axis) for c in (classes, other))
    match = compare_output(dense, other, axis)
    assert (match.agreement, match.answers) == (0.75, 16)


def test_a_class_for_each_sample_counts_though_one_is_frequent():
    """There the most frequent class is a class, no background."""
    classes = np.array([0] * 8 + [1, 2])
    dense, other = one_hot(classes, 3), one_hot(np.zeros(10, int), 3)
    for shape in ((10, 3), (10, 3, 1, 1)):
        match = compare_output(dense.reshape(shape), other.reshape(shape))
        assert (match.agreement, match.answers) == (0.8, 10)
    match = compare_output(dense[:, None], other[:, None], 2)  # a text of one letter
    assert (match.agreement, match.answers) == (0.8, 10)


@pytest.mark.parametrize("shape, axis", [((6, 3), None), ((6, 5, 3), 2), ((6, 3, 2, 2), 1)])
def test_where_the_dense_model_has_one_answer_for_everything_none_is_counted(rng, shape, axis):
    dense = normal(rng, *shape)
    np.moveaxis(dense, axis or 1, 0)[1] += 100
    match = compare_output(dense, dense, axis)
    assert (match.agreement, match.answers) == (None, 0)
    assert match.one_answer and match.has_classes


def test_a_sequence_by_its_steps_is_compared_sample_by_sample(rng):
    """(T, N, C), with another N in the last batch, is what (N, T, C) is."""
    dense, other = (y.astype(np.float64) for y in (normal(rng, 9, 11, 4), normal(rng, 9, 11, 4)))
    match = MatchAccumulator(2)
    for part in (slice(0, 5), slice(5, 10), slice(10, 11)):
        match.update(dense[:, part], other[:, part], len(range(11)[part]))
    found = match.result()
    wanted = compare_output(dense.swapaxes(0, 1), other.swapaxes(0, 1), 2)
    assert (found.samples, found.agreement, found.answers) == (
        wanted.samples, wanted.agreement, wanted.answers,
    )  # fmt: skip
    assert (found.relative_error, found.cosine) == pytest.approx(
        (wanted.relative_error, wanted.cosine)
    )


def test_outputs_are_matched_by_name(rng):
    y = normal(rng, 4, 3)
    dense = [{"y": y}, {"y": y[:2]}]
    other = [{"y": y, "z": y}, {"y": y[:2], "z": y}]
    found = compare_outputs(dense, other, [4, 2])
    assert found.keys() == {"y"}
    assert (found["y"].samples, found["y"].relative_error) == (6, 0)
    (match,) = compare_outputs([{"y": np.ones((4, 3))}], [{"y": np.ones((4, 2))}], [4]).values()
    assert math.isnan(match.relative_error)


def test_a_first_batch_with_nothing_in_it_changes_nothing(rng):
    dense, other = normal(rng, 6, 9, 4), normal(rng, 6, 9, 4)
    wanted = MatchAccumulator()
    wanted.update(dense[:, :3], other[:, :3])
    wanted.update(dense[:, 3:], other[:, 3:])
    found = MatchAccumulator()
    found.update(dense[:, :0], other[:, :0])
    found.update(dense[:, :3], other[:, :3])
    found.update(dense[:, 3:], other[:, 3:])
    assert found.result().relative_error > 0
    assert math.isfinite(found.result().cosine)
