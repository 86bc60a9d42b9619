"""The layered layout on random graphs: no overlaps, edges forward and between the boxes, few crossings."""

from itertools import accumulate, chain, combinations, combinations_with_replacement, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad.draw.layout import _Order, _Pieces, layered, layers_of, reduce_crossings, spread, sweeps

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
        assert len(set(route)) == len(route)
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
    # 0 → 1 → 3 → 4 is the long way; the leaf 2 is needed by 4 alone
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
    upper, lower, after = layers
    before = [[x for x in upper for y in after[x] if y == z] for z in range(len(after))]
    assert _Order([upper, lower], before, after).crossed == [brute(*layers), 0]


@given(two_layers())
def test_reducing_never_adds_crossings_and_keeps_the_pieces(layers):
    upper, lower, after = layers
    before = [[x for x in upper for y in after[x] if y == z] for z in range(len(after))]
    found = reduce_crossings([list(upper), list(lower)], before, after)
    assert [sorted(layer) for layer in found] == [sorted(upper), sorted(lower)]
    assert brute(*found, after) <= brute(*layers)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_a_tree_is_drawn_without_crossings(parents, random):
    children = list(range(6, 6 + len(parents)))
    after = [[c for c, p in zip(children, parents) if p == i] for i in range(6)] + [[] for _ in children]
    before = [[] for _ in range(6)] + [[p] for p in parents]
    random.shuffle(children)
    found = reduce_crossings([list(range(6)), children], before, after)
    assert brute(*found, after) == 0


def test_a_long_edge_is_straight_where_nothing_stands_in_its_way():
    sizes = [(30, 20)] * 5
    layout = layered(sizes, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)])
    ways = pairwise(layout.routes[4])
    level = sum(x1 - x0 for (x0, y0), (x1, y1) in ways if y0 == y1)
    assert level > 0.6 * layout.width
    assert len({y for _, y in layout.routes[4]}) <= 3  # where it leaves, its own level, and where it arrives


def test_a_chain_of_thousands_needs_no_recursion():
    n = 3_000
    layout = layered([(10, 10)] * n, [(i, i + 1) for i in range(n - 1)])
    assert len(layout.routes) == n - 1 and {y for _, y in layout.centres} == {5.0}


def test_a_part_that_is_computed_early_and_needed_late_stands_where_it_is_needed():
    # the long way is 0 → 1 → 2 → 3 → 7; 4 and 5 make 6, which 7 alone needs
    edges = [(0, 1), (1, 2), (2, 3), (3, 7), (4, 6), (5, 6), (6, 7)]
    assert layers_of(8, edges) == [0, 1, 2, 3, 2, 2, 3, 4]


def test_a_tree_of_parts_stands_as_near_to_its_root_as_it_can():
    assert layers_of(6, [(0, 1), (0, 2), (1, 3), (3, 4), (2, 5)]) == [0, 1, 1, 2, 3, 2]


@pytest.mark.parametrize("direction", ["left", "lr", "", None])
def test_an_unknown_direction_is_refused(direction):
    with pytest.raises(ValueError, match="direction: expected one of LR, TB, RL, BT, got"):
        layered([(1, 1)], [], direction)


def test_labels_are_one_for_each_edge():
    with pytest.raises(ValueError, match="labels: expected one for each of 1 edges, got 0"):
        layered([(1, 1)] * 2, [(0, 1)], labels=[])


@settings(deadline=None)
@given(graphs(), st.sampled_from(DIRECTIONS))
def test_no_route_passes_the_label_of_another_edge(graph, direction):
    sizes, edges, labels = graph
    layout = layered(sizes, edges, direction, labels)
    for i, route in enumerate(layout.routes):
        for a, b in pairwise(route):
            span = min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])
            for k, (centre, size) in enumerate(zip(layout.labels, labels)):
                assert i == k or not overlap(span, box(centre, size))


@settings(deadline=None)
@given(graphs(), st.sampled_from(DIRECTIONS))
def test_an_edge_passes_through_its_own_label(graph, direction):
    sizes, edges, labels = graph
    layout = layered(sizes, edges, direction, labels)
    axis = 0 if direction in ("LR", "RL") else 1
    for (x, y), route in zip(layout.labels, layout.routes):
        along, across = (x, y) if axis == 0 else (y, x)
        level = [a[1 - axis] for a, b in pairwise(route) if min(a[axis], b[axis]) <= along <= max(a[axis], b[axis])]
        assert min(abs(other - across) for other in level) < 1e-6


@settings(deadline=None)
@given(graphs())
def test_directions_are_mirror_images_and_layouts_repeat(graph):
    sizes, edges, labels = graph
    there, back = (layered(sizes, edges, d, labels) for d in ("LR", "RL"))
    assert there == layered(sizes, edges, "LR", labels)
    mirrored = [(there.width - x, y) for x, y in there.centres]
    assert list(chain(*mirrored)) == pytest.approx(list(chain(*back.centres)))
    turned = layered([s[::-1] for s in sizes], edges, "TB", [s[::-1] for s in labels])
    assert [c[::-1] for c in turned.centres] == there.centres and turned.height == there.width


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 4)), min_size=1, max_size=4), st.integers(-9, 9))
def test_spread_is_the_best_of_all_places_on_a_grid(wants, low):
    wanted, steps = [want for want, _ in wants], [step for _, step in wants][1:]
    high = low + sum(steps) + 3
    places = spread(wanted, steps, low, high)
    assert places[0] >= low - 1e-9 and places[-1] <= high + 1e-9
    assert all(b - a >= step - 1e-9 for a, b, step in zip(places, places[1:], steps))

    def cost(places):
        return sum((y - want) ** 2 for y, want in zip(places, wanted))

    slacks = combinations_with_replacement(range(4), len(wanted))  # how far each is from as low as it can be
    lowest = list(accumulate(steps, initial=low))
    assert cost(places) <= min(cost([y + s for y, s in zip(lowest, slack)]) for slack in slacks) + 1e-9


def test_what_is_used_a_thousand_times_leads_on_by_one_line():
    n = 1_000  # a recurrence: each step uses the one weight
    edges = [(i, i + 1) for i in range(1, n)] + [(0, i) for i in range(2, n + 1)]
    layout = layered([(10, 10)] * (n + 1), edges)
    levels = {y for route in layout.routes[n:] for (x0, y), (x1, y1) in pairwise(route) if y == y1 and x1 - x0 > 500}
    assert len(levels) == 1


def test_links_in_the_wrong_order_are_sorted_however_many():
    first, second = list(range(60)), list(range(60, 120))
    after = [[x + 60] for x in first] + [[]] * 60
    before = [[]] * 60 + [[x] for x in first]
    found = reduce_crossings([first, second[::-1]], before, after)
    assert brute(*found, after) == 0


def counted(order):
    return [brute(upper, lower, order.after) for upper, lower in pairwise(order.layers)]


@settings(deadline=None)
@given(graphs())
def test_crossings_are_counted_along_and_transposing_makes_them_fewer(graph):
    pieces = _Pieces(*graph)
    order = _Order(pieces.layers(), pieces.before, pieces.after)
    for sweep in range(3):
        order.sweep(back=sweep % 2 == 1)
        assert order.crossed[:-1] == counted(order)
        before = sum(order.crossed)
        order.transpose()
        assert order.crossed[:-1] == counted(order) and sum(order.crossed) <= before
        assert all(order.place[z] == i for layer in order.layers for i, z in enumerate(layer))


def test_a_graph_with_many_bends_gets_few_sweeps_which_remove_most_crossings(monkeypatch):
    edges = [edge for i in range(299) for edge in ((i, i + 1), (i // 2, i + 1))]
    pieces = _Pieces([(10, 10)] * 300, edges, [(0, 0)] * 598)
    sweep, placed = _Order.sweep, []
    monkeypatch.setattr(_Order, "sweep", lambda *args, **kw: placed.append(len(pieces.size)) or sweep(*args, **kw))
    layers = pieces.layers()
    found = reduce_crossings(layers, pieces.before, pieces.after)
    before, after = (sum(brute(a, b, pieces.after) for a, b in pairwise(rows)) for rows in (layers, found))
    assert 0 < sum(placed) <= 150_000 and after < before / 10
    assert sweeps(300) == sweeps(0) == 24


@pytest.mark.parametrize("edges", [[(0, 1), (0, 3), (2, 3)], [(i, 5) for i in range(5)], [(0, i) for i in range(1, 6)]])
def test_a_label_with_room_stands_on_the_level_of_an_end_of_its_edge(edges):
    layout = layered([(40, 30)] * (1 + max(z for _, z in edges)), edges, labels=[(30, 12)] * len(edges))
    for (x, z), (_, y) in zip(edges, layout.labels):
        assert min(abs(y - layout.centres[x][1]), abs(y - layout.centres[z][1])) < 1e-9
