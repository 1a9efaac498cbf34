"""Which channels go: on networks whose groups are known."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import bare_net, norm_net, normal

from asr_onnx.errors import UsageError
from asr_onnx.graph.sites import find_sites, with_heads
from asr_onnx.maths.channel_removal import Removal
from asr_onnx.pruning.channels import Narrowing

SIZES = {"x": (1, 3, 8, 8)}


def narrowing(model, sizes=SIZES, ops=("Conv",), **chosen):
    return Narrowing.of(model, with_heads(model, find_sites(model).sites), sizes, ops, **chosen)


def in_order(found):
    """Removals that take atoms as they come."""
    return [
        Removal(np.arange(n), np.linspace(0, 0.5, n + 1)[:, None])
        for n in (len(g.atoms) for g in found.groups)
    ]


def test_a_shortcut_ties_what_it_adds(rng):
    found = narrowing(norm_net(rng))
    assert [len(g.atoms) for g in found.groups] == [8]
    assert len(narrowing(bare_net(rng)).groups) == 2


def test_costs_are_those_of_the_network(rng):
    found = narrowing(bare_net(rng))
    positions = 8 * 8, 4 * 4

    def wanted(a, b):
        return positions[0] * 27 * a + positions[1] * 9 * a * b + 5 * b

    assert found.costs is not None
    for kept in ((8, 6), (4, 6), (3, 1)):
        assert found.costs(np.array(kept)) == pytest.approx(wanted(*kept))
    assert found.weights(np.array([4, 6])) == pytest.approx(27 * 4 + 9 * 24 + 5 * 6)


def test_masks_zero_what_makes_and_what_reads_a_channel(rng):
    model = bare_net(rng)
    found = narrowing(model)
    first, second = found.groups
    gone = frozenset((*first.atoms[:3], *second.atoms[4:]))
    masks = found.masks(gone)
    lost = [i for i, a in enumerate(first.atoms) if a in gone]
    lost_too = [i for i, a in enumerate(second.atoms) if a in gone]
    assert not masks["w1"][lost].any() and not masks["w2"][:, lost].any()
    assert not masks["w2"][lost_too].any() and not masks["fw"][:, lost_too].any()
    rest = np.delete(np.delete(masks["w2"], lost_too, axis=0), lost, axis=1)
    assert rest.all() and np.delete(masks["w1"], lost, axis=0).all()
    assert [w.after for w in found.widths(gone)] == [8 - len(lost), 6 - len(lost_too)]


def test_what_stays_is_a_multiple(rng):
    found = narrowing(bare_net(rng))
    gone = found.gone(in_order(found), 0.6, None, 4)
    assert all(w.after in (w.before, 4) for w in found.widths(gone))


@pytest.mark.parametrize(
    ("chosen", "left"),
    [({"include": "w1"}, ["w1"]), ({"exclude": "fw"}, ["w1"]), ({"include": "w2"}, ["w2"])],
)
def test_what_is_left_out_keeps_its_channels(rng, chosen, left):
    model = bare_net(rng)
    found = narrowing(model, **chosen)
    assert [found.sites[p].name for g in found.groups for p in g.producers] == left
    assert any(s.op == "channels" for s in found.skipped)


def test_nothing_to_remove_is_said_with_the_reason(rng):
    with pytest.raises(UsageError, match=r"no channel .* \(.*is not to be pruned\)"):
        narrowing(bare_net(rng), ops=("Gemm",))


def test_open_sizes_allow_a_sparsity_and_no_macs(rng):
    model = bare_net(rng)
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "size"
    found = narrowing(model, sizes={})
    assert found.gone(in_order(found), None, 0.3, 1)
    with pytest.raises(UsageError, match="open size"):
        found.gone(in_order(found), 0.5, None, 1)


def test_scores_of_readers_settle_what_goes_first(rng):
    model = bare_net(rng)
    found = narrowing(model)
    site = next(s for s in found.sites.values() if s.name == "w2")
    removal = found.by_score(np.abs, "keep")[0]
    norms = np.square(site.weight.value).sum(axis=(0, 2, 3))
    np.testing.assert_array_equal(removal.order, np.argsort(norms))
    assert removal.errors[-1] == pytest.approx(1)


def test_a_slice_of_a_group_never_loses_all_its_channels(rng):
    graph = onnx.parser.parse_graph(
        """g (float[N, 3, 8, 8] x) => (float[N, 5, 8, 8] y, float[N, 5, 8, 8] z)
        <float[8, 3, 1, 1] w1, float[5, 8, 1, 1] w2, float[5, 3, 1, 1] w3,
         int64[1] start = {2}, int64[1] end = {5}, int64[1] axis = {1}>
        {
            wide = Conv(x, w1)
            part = Slice(wide, start, end, axis)
            y = Conv(wide, w2)
            z = Conv(part, w3)
        }"""
    )
    for tensor in list(graph.initializer):
        if tensor.name.startswith("w"):
            graph.initializer.remove(tensor)
    shapes = {"w1": (8, 3, 1, 1), "w2": (5, 8, 1, 1), "w3": (5, 3, 1, 1)}
    graph.initializer.extend(
        onnx.numpy_helper.from_array(normal(rng, *shape), name) for name, shape in shapes.items()
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    found = narrowing(model)
    (group,) = found.groups
    order = np.array([3, 2, 4, 0, 1, 5, 6, 7])  # the slice first
    removals = [Removal(order, np.linspace(0, 0.5, 9)[:, None])]
    gone = found.gone(removals, 0.5, None, 1)
    assert [group.atoms.index(a) for a in sorted(gone)] == [0, 1, 2, 3]
    with pytest.raises(UsageError, match="no more than"):
        found.gone([Removal(order, np.linspace(0, 0.5, 9)[:, None])], 0.01, None, 1)
