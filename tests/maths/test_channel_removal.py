"""Removing channels costs what a re-fit of all that is left loses."""

from __future__ import annotations

import numpy as np
import pytest

from asr_onnx.maths.channel_removal import Removal, by_scores, eliminate, measured, readers
from asr_onnx.maths.least_squares import refit, ridge
from asr_onnx.maths.second_moments import GramSums


def layer(rng, groups=1, rows=4, k=12, positions=3000):
    x = rng.normal(size=(groups, positions, k)) @ rng.normal(size=(groups, k, k))
    w = rng.normal(size=(groups, rows, k))
    y = np.moveaxis(x @ w.transpose(0, 2, 1), 0, 1).reshape(positions, -1)
    sums = GramSums()
    sums.update(x.astype(np.float32), y.astype(np.float32))
    return sums.result(), w


def places(atoms, size):
    return [np.arange(a, atoms * size, atoms) for a in range(atoms)]


def test_the_cost_is_the_error_that_a_refit_leaves(rng):
    gram, w = layer(rng, groups=2)
    importance = rng.uniform(0.5, 2, (2, 4))
    at = places(4, 3)
    (found,) = readers(gram, w, importance, [at], total=2.0)
    removal = eliminate([found])
    d = ridge(gram)
    for gone in range(1, 4):
        mask = np.ones(w.shape, bool)
        mask[:, :, np.concatenate([at[a] for a in removal.order[:gone]])] = False
        fitted = refit(gram, w, mask)
        # The ridge is part of what elimination minimises.
        lost = gram.error(fitted) - gram.error(w) + (d * (fitted - w) ** 2).sum(axis=2)
        wanted = (lost * importance**2).sum() / 2.0
        assert removal.errors[gone].sum() == pytest.approx(wanted, rel=1e-3)
    assert not removal.errors[0].any()
    assert sorted(removal.order.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("part", [range(4), range(3)])  # all that the layer reads, or less
def test_what_makes_up_for_atoms_is_what_a_refit_finds(rng, part):
    gram, w = layer(rng, groups=2)
    at = [places(4, 3)[a] for a in part]
    (found,) = readers(gram, w, rng.uniform(0, 2, (2, 4)), [at], total=1.0)
    gone = np.array([2, 0])
    mask = np.ones(w.shape, bool)
    mask[:, :, np.concatenate([at[a] for a in gone])] = False
    rows = w + found.change(gone)
    assert not rows[~mask].any()
    np.testing.assert_allclose(rows, refit(gram, w, mask), atol=1e-3 * abs(w).max())


def test_what_was_measured_counts_and_between_it_is_interpolated():
    removal = Removal(np.array([3, 0, 1, 2]), np.ones((5, 2)))
    found = measured(removal, [1, 3], [0.2, 0.1])  # noise: more gone is not better
    assert found.order is removal.order
    np.testing.assert_allclose(found.errors[:, 0], [0, 0.2, 0.2, 0.2, 1])
    assert measured(removal, [1, 3], [0.2, np.inf]).errors.max() == 1
    np.testing.assert_allclose(measured(removal, [2], [0.5]).errors[1, 0], 0.25)


def test_an_atom_that_nobody_needs_goes_first_and_free(rng):
    gram, w = layer(rng)
    at = places(6, 2)
    w[:, :, at[3]] = 0.0
    (found,) = readers(gram, w, np.ones((1, 4)), [at], total=1.0)
    removal = eliminate([found])
    assert removal.order[0] == 3
    assert removal.costs[1] == pytest.approx(0, abs=1e-6)
    assert (np.diff(removal.costs) >= -1e-9).all()


def test_what_one_reader_needs_stays_although_another_does_not(rng):
    gram, w = layer(rng)
    at, needless = places(6, 2), w.copy()
    needless[:, :, at[3]] = 0.0
    both = [readers(gram, rows, np.ones((1, 4)), [at], total=1.0)[0] for rows in (needless, 9 * w)]
    assert eliminate(both).order[0] == eliminate(both[1:]).order[0]


def test_groups_of_one_layer_share_its_inverse_and_nothing_else(rng):
    gram, w = layer(rng)
    first, second = [np.array([0, 1]), np.array([2, 3])], [np.array([5]), np.array([7]), [9, 11]]
    second = [np.asarray(a) for a in second]  # atoms of one and of two positions
    together = readers(gram, w, np.ones((1, 4)), [first, second], total=1.0)
    for found, at in zip(together, (first, second), strict=True):
        (alone,) = readers(gram, w, np.ones((1, 4)), [at], total=1.0)
        np.testing.assert_array_equal(eliminate([found]).costs, eliminate([alone]).costs)


def test_a_constant_loses_nothing(rng):
    gram, w = layer(rng)
    (found,) = readers(gram, w, np.ones((1, 4)), [places(4, 3)], total=0.0)
    assert not eliminate([found]).costs.any()


def test_scores_alone_give_shares():
    removal = by_scores([np.array([3.0, 1.0, 4.0]), np.array([0.0, 2.0, 2.0])])
    assert removal.order.tolist() == [0, 1]
    np.testing.assert_allclose(removal.errors, [[0, 0], [3 / 8, 0], [4 / 8, 2 / 4]])


def test_a_reader_that_loses_all_costs_more_than_many_that_lose_little():
    lost = Removal(np.arange(1), np.array([[0.0], [1.0]]))
    little = Removal(np.arange(1), np.array([[0.0] * 8, [0.1] * 8]))
    assert lost.costs[1] > 10 * little.costs[1] > 0


def test_of_what_must_not_go_altogether_the_last_stays():
    errors = np.arange(6.0)[:, None] / 10
    removal = Removal(np.array([3, 0, 4, 1, 2]), errors)
    assert removal.sparing([]).order.size == 5
    spared = removal.sparing([np.array([0, 3]), np.array([3, 0]), np.array([2])])
    assert spared.order.tolist() == [3, 4, 1]
    np.testing.assert_array_equal(spared.errors, errors[[0, 1, 3, 4]])
