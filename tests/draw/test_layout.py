"""The layered layout on random graphs: no overlaps, edges forward and between the boxes, few crossings."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad.draw.layout import crossings, layered, layers_of, reduce_crossings

DIRECTIONS = ("LR", "TB", "RL", "BT")


@st.composite
def graphs(draw):
    n = draw(st.integers(0, 14))
    length = st.integers(10, 120)
    sizes = [(draw(length), draw(length)) for _ in range(n)]
    pair = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda e: e[0] != e[1]).map(sorted)
    edges = draw(st.lists(pair.map(tuple), max_size=2 * n)) if n > 1 else []
    labels = [(draw(st.integers(0, 60)), draw(st.integers(0, 16))) for _ in edges]
    return sizes, edges, labels


def box(centre, size):
    return centre[0] - size[0] / 2, centre[1] - size[1] / 2, centre[0] + size[0] / 2, centre[1] + size[1] / 2


def overlap(a, b, slack=1e-6):
    return a[0] < b[2] - slack and b[0] < a[2] - slack and a[1] < b[3] - slack and b[1] < a[3] - slack


@settings(deadline=None)
@given(graphs(), st.sampled_from(DIRECTIONS))
def test_neither_boxes_nor_labels_overlap_and_all_stand_within_the_size(graph, direction):
    sizes, edges, labels = graph
    layout = layered(sizes, edges, direction, labels)
    boxes = [box(c, s) for c, s in zip(layout.centres, sizes, strict=True)]
    boxes += [box(c, s) for c, s in zip(layout.labels, labels, strict=True)]
    assert not [pair for pair in combinations(boxes, 2) if overlap(*pair)]
    for left, top, right, bottom in boxes:
        assert left >= -1e-6 and top >= -1e-6
        assert right <= layout.width + 1e-6 and bottom <= layout.height + 1e-6


@settings(deadline=None)
@given(graphs(), st.sampled_from(DIRECTIONS))
def test_edges_run_forward_from_border_to_border_and_through_no_other_box(graph, direction):
    sizes, edges, labels = graph
    layout = layered(sizes, edges, direction, labels)
    axis, sign = {"LR": (0, 1), "RL": (0, -1), "TB": (1, 1), "BT": (1, -1)}[direction]
    boxes = [box(c, s) for c, s in zip(layout.centres, sizes)]
    for (x, z), route in zip(edges, layout.routes, strict=True):
        assert all(sign * (b[axis] - a[axis]) > -1e-6 for a, b in pairwise(route))
        ends = (x, route[0], sign), (z, route[-1], -sign)
        for i, point, side in ends:
            assert point[axis] == pytest.approx(layout.centres[i][axis] + side * sizes[i][axis] / 2)
            assert abs(point[1 - axis] - layout.centres[i][1 - axis]) <= sizes[i][1 - axis] / 2
        for a, b in pairwise(route):
            span = min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])
            for i, other in enumerate(boxes):
                assert not overlap(span, other) or span[2] == span[0] == 0, (x, z, i)


@given(graphs())
def test_each_edge_leads_to_a_higher_layer(graph):
    sizes, edges, _ = graph
    layer = layers_of(len(sizes), edges)
    assert all(layer[x] < layer[z] for x, z in edges)
    assert all(k >= 0 for k in layer)


def test_a_leaf_stands_just_before_its_first_reader():
    # 0 → 1 → 2 → 3, and 4 … no: numbers grow along edges, so the late leaf is 2
    assert layers_of(5, [(0, 1), (1, 3), (2, 4), (3, 4)]) == [0, 1, 2, 2, 3]


def test_an_edge_that_does_not_lead_to_a_higher_number_is_refused():
    with pytest.raises(ValueError, match=r"edges: expected each from a lower number to a higher, got \(2, 1\)"):
        layered([(1, 1)] * 3, [(0, 1), (2, 1)])


def test_parallel_edges_are_told_apart():
    layout = layered([(40, 40), (40, 40)], [(0, 1), (0, 1)], labels=[(20, 10)] * 2)
    first, second = layout.routes
    assert not set(first) & set(second) and layout.labels[0] != layout.labels[1]


def brute(upper, lower, after):
    links = [(i, lower.index(z)) for i, x in enumerate(upper) for z in after[x]]
    return sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in combinations(links, 2))


@st.composite
def two_layers(draw):
    n, m = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    upper, lower = draw(st.permutations(range(n))), draw(st.permutations(range(n, n + m)))
    after = [draw(st.lists(st.integers(n, n + m - 1), max_size=4)) for _ in range(n)] + [[]] * m
    return upper, lower, after


@given(two_layers())
def test_crossings_are_counted_as_by_comparing_each_pair_of_links(layers):
    assert crossings(*layers) == brute(*layers)


@given(two_layers())
def test_reducing_never_adds_crossings_and_keeps_the_pieces(layers):
    upper, lower, after = layers
    before = [[x for x in upper for y in after[x] if y == z] for z in range(len(after))]
    found = reduce_crossings([list(upper), list(lower)], before, after)
    assert [sorted(layer) for layer in found] == [sorted(upper), sorted(lower)]
    assert crossings(*found, after) <= crossings(*layers)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_a_tree_is_drawn_without_crossings(parents, random):
    children = list(range(6, 6 + len(parents)))
    after = [[c for c, p in zip(children, parents) if p == i] for i in range(6)] + [[] for _ in children]
    before = [[] for _ in range(6)] + [[p] for p in parents]
    random.shuffle(children)
    found = reduce_crossings([list(range(6)), children], before, after)
    assert crossings(*found, after) == 0


def test_a_long_edge_is_straight_where_nothing_stands_in_its_way():
    sizes = [(30, 20)] * 5
    layout = layered(sizes, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)])
    bends = layout.routes[4][3:-3]
    assert max(y for _, y in bends) - min(y for _, y in bends) < 1.0


def test_a_chain_of_thousands_needs_no_recursion():
    n = 3_000
    layout = layered([(10, 10)] * n, [(i, i + 1) for i in range(n - 1)])
    assert len(layout.routes) == n - 1 and {y for _, y in layout.centres} == {5.0}
