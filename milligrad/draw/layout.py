"""Where the boxes of a directed graph stand, and how its edges run between them: a layered layout.

The method is that of K. Sugiyama, S. Tagawa and M. Toda, "Methods for visual understanding of hierarchical system
structures" (1981), in four steps: layers, an order within each, places, routes. It knows sizes and edges, not what they
mean, and it draws nothing.

    layer    what stands side by side; edges lead from a lower layer to a higher
    along    the axis on which layers follow each other, from inputs to outputs; across: the other
    piece    what has a place in a layer: a node, the label of an edge, or a bend of an edge that passes through
    link     a part of an edge, from one layer to the next
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf

from milligrad.typing import TypeAlias

Point: TypeAlias = tuple[float, float]
Size: TypeAlias = tuple[float, float]
Layers: TypeAlias = Sequence[Sequence[int]]
Links: TypeAlias = Sequence[Sequence[int]]  # of each piece the pieces before it, or those after it

DIRECTIONS = ("LR", "TB", "RL", "BT")
SWEEPS, STALE = 24, 4  # sweeps at most, and how many in a row without fewer crossings end it
FEWEST, SORTED = 4, 150_000  # where all sweeps would place more pieces than that, there are fewer sweeps: 0.3 s
HEAD, STEEPNESS, FARTHEST = 12.0, 3.0, 64.0  # layers are as far apart as an edge's head and slope need, within reason
PORT_GAP = 11.0  # between the ends of two edges on a border


@dataclass(slots=True)
class Layout:
    """Centres of the nodes, routes of the edges from border to border, centres of their labels, and the whole size."""

    centres: list[Point]
    routes: list[list[Point]]
    labels: list[Point]
    width: float
    height: float


def check_direction(direction: str) -> None:
    """Raise ValueError for what is not one of DIRECTIONS."""
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: expected one of {', '.join(DIRECTIONS)}, got {direction!r:.60}")


def layered(
    sizes: Sequence[Size],
    edges: Sequence[tuple[int, int]],
    direction: str = "LR",
    labels: Sequence[Size] | None = None,
    layer_gap: float = 44.0,
    node_gap: float = 18.0,
) -> Layout:
    """A place for each node of the `sizes` (width, height), a route for each edge, room for each edge's label.

    Edges lead from a lower number to a higher one. `labels` are sizes, too; (0, 0) for none. No boxes overlap, of nodes
    or labels. The first point of a route is on the border of its source, the last on that of its target; it never turns
    back. Whatever leads from point to point within the rectangle between them, a line or a curve, meets no other box.
    Long edges of one source run together until they are near their targets, as on a circuit diagram.
    """
    check_direction(direction)
    if labels is not None and len(labels) != len(edges):
        raise ValueError(f"labels: expected one for each of {len(edges)} edges, got {len(labels)}")
    flat = direction in ("LR", "RL")  # then a width counts along
    turned = [s if flat else s[::-1] for s in sizes]
    rooms = [s if flat else s[::-1] for s in (labels or [(0.0, 0.0)] * len(edges))]
    pieces = _Pieces(turned, edges, rooms)
    order = reduce_crossings(pieces.layers(), pieces.before, pieces.after)
    across = _across(order, pieces, node_gap)
    start, end, routes = _routes(order, pieces, across, layer_gap)
    middle = [(start[k] + end[k]) / 2 for k in pieces.layer]
    length, breadth = end[-1] if end else 0.0, max([y + s[1] / 2 for y, s in zip(across, pieces.size)], default=0.0)

    def point(along: float, y: float) -> Point:
        along = along if direction in ("LR", "TB") else length - along
        return (along, y) if flat else (y, along)

    return Layout(
        [point(middle[i], across[i]) for i in range(len(sizes))],
        [[point(*p) for p in route] for route in routes],
        [point(middle[chain[-1]], across[chain[-1]]) for chain in pieces.chains],
        *((length, breadth) if flat else (breadth, length)),
    )


# ── Layers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def layers_of(n: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The layer of each of n nodes: as near to the inputs as can be, or to the outputs, if that makes edges shorter."""
    for x, z in edges:
        if not x < z:
            raise ValueError(f"edges: expected each from a lower number to a higher, got {(x, z)}")
    early = _near_inputs(n, edges)
    mirrored = _near_inputs(n, [(n - 1 - z, n - 1 - x) for x, z in edges])
    late = [max(mirrored) - k for k in reversed(mirrored)]
    return min(early, late, key=lambda layer: sum([layer[z] - layer[x] for x, z in edges]))


def _near_inputs(n: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The longest way to each node; then what has more readers than inputs moves up to its first reader."""
    before, after = _links(n, edges)
    layer = [0] * n
    for z in range(n):
        layer[z] = max([layer[x] + 1 for x in before[z]], default=0)
    for x in reversed(range(n)):
        if len(after[x]) > len(before[x]):
            layer[x] = min([layer[z] for z in after[x]]) - 1
    return layer


def _links(n: int, edges: Sequence[tuple[int, int]]) -> tuple[list[list[int]], list[list[int]]]:
    before: list[list[int]] = [[] for _ in range(n)]
    after: list[list[int]] = [[] for _ in range(n)]
    for x, z in edges:
        before[z].append(x)
        after[x].append(z)
    return before, after


class _Pieces:
    """Nodes, labels and bends. Even layers hold nodes, odd ones labels, just before the target; bends are in both."""

    def __init__(self, sizes: Sequence[Size], edges: Sequence[tuple[int, int]], labels: Sequence[Size]) -> None:
        self.nodes, self.edges = len(sizes), edges
        self.size = list(sizes)
        self.layer = [2 * k for k in layers_of(len(sizes), edges)] if sizes else []
        self.chains: list[list[int]] = []  # of each edge its bends, which it shares with others, and its label
        trunks: dict[int, list[int]] = {}  # of each source the bends of its longest edge
        links: list[tuple[int, int]] = []
        for (x, z), label in zip(edges, labels):
            trunk = trunks.setdefault(x, [])
            bends = self.layer[z] - self.layer[x] - 2
            while len(trunk) < bends:
                links.append((trunk[-1] if trunk else x, len(self.size)))
                trunk.append(self._piece(self.layer[x] + 1 + len(trunk), (0.0, 0.0)))
            chain = trunk[:bends]
            links += (chain[-1] if chain else x, len(self.size)), (len(self.size), z)
            self.chains.append([*chain, self._piece(self.layer[z] - 1, label)])
        self.before, self.after = _links(len(self.size), links)

    def _piece(self, layer: int, size: Size) -> int:
        self.size.append(size)
        self.layer.append(layer)
        return len(self.size) - 1

    def layers(self) -> list[list[int]]:
        """The pieces of each layer, in an order to begin with: as a walk meets them, back from the last output.

        Or on from the first input, if there are fewer of these: of a tree from the root no links cross, and what hangs
        on a node stays in the order of its numbers.
        """
        layers: list[list[int]] = [[] for _ in range(max(self.layer, default=-1) + 1)]
        seen: set[int] = set()
        outputs, inputs = ([z for z in range(self.nodes) if not links[z]] for links in (self.after, self.before))
        stack, links = (outputs, self.before) if len(outputs) <= len(inputs) else (inputs[::-1], self.after)
        while stack:
            z = stack.pop()
            if z not in seen:
                seen.add(z)
                layers[self.layer[z]].append(z)
                stack += reversed(links[z])
        return layers

    def branches(self, x: int) -> list[tuple[int, int]]:
        """The links from a bend to labels, if other edges go on from there."""
        labels = [z for z in self.after[x] if z >= self.nodes and self.after[z][0] < self.nodes]
        return [(x, z) for z in labels] if len(labels) < len(self.after[x]) else []

    def apart(self, x: int, z: int, gap: float) -> float:
        """How far the centres of two neighbours are apart, at the least: bends and labels need less than boxes."""
        return (self.size[x][1] + self.size[z][1]) / 2 + (gap if min(x, z) < self.nodes else 0.5 * gap)


# ── The order within the layers ──────────────────────────────────────────────────────────────────────────────────


def _falling(ends: Sequence[int]) -> int:
    """How many pairs of numbers fall (W. Barth, M. Jünger, P. Mutzel 2002, with a sorted list)."""
    met: list[int] = []
    count = 0
    for end in ends:
        if not met or met[-1] <= end:
            met.append(end)
        else:
            at = bisect_right(met, end)
            count += len(met) - at
            met.insert(at, end)
    return count


def reduce_crossings(layers: Layers, before: Links, after: Links) -> list[list[int]]:
    """The layers in an order in which few links cross: the best that sweeps to and fro have found."""
    order = _Order(layers, before, after)
    best, fewest, stale = [list(layer) for layer in order.layers], sum(order.crossed), 0
    for sweep in range(sweeps(len(after))):
        if not fewest or stale == STALE:
            break
        order.sweep(back=sweep % 2 == 1)
        order.transpose()
        stale += 1
        if (count := sum(order.crossed)) < fewest:
            best, fewest, stale = [list(layer) for layer in order.layers], count, 0
    return best


def sweeps(pieces: int) -> int:
    """How many sweeps there are at most: the first ones remove most of the crossings."""
    return min(SWEEPS, max(FEWEST, SORTED // max(1, pieces)))


class _Order:
    """The layers, the place of each piece in its own, and how many links cross on the way from each to the next."""

    def __init__(self, layers: Layers, before: Links, after: Links) -> None:
        self.layers, self.before, self.after = [list(layer) for layer in layers], before, after
        self.place = [0] * len(after)
        for layer in self.layers:
            self._put(layer)
        self._count()

    def _put(self, layer: Sequence[int]) -> None:
        for i, z in enumerate(layer):
            self.place[z] = i

    def _count(self) -> None:
        ends = [[end for x in layer for end in self._ends(x, self.after)] for layer in self.layers]
        self.crossed = [_falling(each) for each in ends]

    def _ends(self, x: int, links: Links) -> list[int]:
        """Where in the next layer, or that before, a piece is linked to, in order."""
        if len(links[x]) == 1:  # as of most: bends
            return [self.place[links[x][0]]]
        return sorted([self.place[z] for z in links[x]])

    def sweep(self, back: bool) -> None:
        """Sort each layer by where, on the average, that before it has what its pieces are linked to: the barycentre.

        What has no such link keeps its place.
        """
        place, towards = self.place, self.after if back else self.before
        for layer in self.layers[-2::-1] if back else self.layers[1:]:
            mean = {z: sum([place[x] for x in towards[z]]) / len(towards[z]) for z in layer if towards[z]}
            held = iter(sorted(mean, key=mean.__getitem__))
            layer[:] = [next(held) if z in mean else z for z in layer]
            self._put(layer)
        self._count()

    def transpose(self) -> None:
        """Neighbours change places wherever that removes crossings: once through all layers that have some."""
        for k, layer in enumerate(self.layers):
            sides = [(k - 1, self.before)] if k and self.crossed[k - 1] else []
            sides += [(k, self.after)] if self.crossed[k] else []
            if sides:
                self._transpose(layer, k)
                self._put(layer)

    def _transpose(self, layer: list[int], k: int) -> None:
        before, after = ([self._ends(x, links) for x in layer] for links in (self.before, self.after))
        for i in range(len(layer) - 1):
            behind, ahead = _inversions(before[i], before[i + 1]), _inversions(after[i], after[i + 1])
            if not behind and not ahead:
                continue
            behind -= _inversions(before[i + 1], before[i])
            ahead -= _inversions(after[i + 1], after[i])
            if behind + ahead > 0:
                layer[i : i + 2] = layer[i + 1], layer[i]
                before[i : i + 2] = before[i + 1], before[i]
                after[i : i + 2] = after[i + 1], after[i]
                self.crossed[k - 1] -= behind
                self.crossed[k] -= ahead


def _inversions(first: Sequence[int], second: Sequence[int]) -> int:
    """How many links of a piece cross one of the piece after it, by where they end. Both are sorted."""
    if not first or not second or first[-1] <= second[0]:
        return 0
    count = i = 0
    for end in first:
        while i < len(second) and second[i] < end:
            i += 1
        count += i
    return count


# ── Places across ────────────────────────────────────────────────────────────────────────────────────────────────


def _across(layers: Layers, pieces: _Pieces, gap: float) -> list[float]:
    """A place for each piece, in the order of its layer: long edges are straight, nodes face what they are linked to.

    By U. Brandes and B. Köpf, "Fast and simple horizontal coordinate assignment" (2001): each piece is aligned with the
    median of its links. That can be begun at either end and either side; of the four places, the middle two count.
    """
    if not pieces.size:
        return []
    bent = _across_long_edges(layers, pieces)
    four = []
    for rows, towards in ((layers, pieces.before), (layers[::-1], pieces.after)):
        for side in (1, -1):
            ordered = [row[::side] for row in rows]
            place = _compacted(ordered, _aligned(ordered, towards, bent), pieces, gap)
            four.append([side * y for y in place])
    narrowest = min(four, key=lambda place: max(place) - min(place))
    low, high = min(narrowest), max(narrowest)
    shifts = [high - max(place) if k % 2 else low - min(place) for k, place in enumerate(four)]
    place = [sum(sorted([y + s for y, s in zip(ys, shifts)])[1:3]) / 2 for ys in zip(*four)]
    for layer in layers[1::2]:
        _face(layer, place, pieces, gap)
    top = min([y - size[1] / 2 for y, size in zip(place, pieces.size)])
    return [y - top for y in place]


def _across_long_edges(layers: Layers, pieces: _Pieces) -> set[tuple[int, int]]:
    """The links that may not be straight: those that cross one between two bends (their algorithm 1), or leave it."""
    bent = {link for x in range(pieces.nodes, len(pieces.size)) for link in pieces.branches(x)}
    bent |= {link[::-1] for link in bent}
    for fixed, layer in pairwise(layers):
        place = {x: i for i, x in enumerate(fixed)}
        low = done = 0
        for i, z in enumerate(layer):
            inner = [place[x] for x in pieces.before[z] if min(x, z) >= pieces.nodes]
            if inner or i == len(layer) - 1:
                high = inner[0] if inner else len(fixed)
                links = [(x, y) for y in layer[done : i + 1] for x in pieces.before[y] if min(x, y) < pieces.nodes]
                crossing = [link for link in links if not low <= place[link[0]] <= high]
                bent.update(crossing, [link[::-1] for link in crossing])
                low, done = high, i + 1
    return bent


def _aligned(layers: Layers, towards: Links, bent: set[tuple[int, int]]) -> list[int]:
    """Of each piece the first of those that stand in one line with it (their algorithm 2)."""
    first = list(range(len(towards)))
    for fixed, layer in pairwise(layers):
        place = {x: i for i, x in enumerate(fixed)}
        last = -1
        for z in layer:
            near = sorted(towards[z], key=place.__getitem__)
            for x in near[(len(near) - 1) // 2 : len(near) // 2 + 1]:  # the median, or the two that are next to it
                if first[z] == z and last < place[x] and (x, z) not in bent:
                    first[z], last = first[x], place[x]
    return first


def _compacted(layers: Layers, first: Sequence[int], pieces: _Pieces, gap: float) -> list[float]:
    """The lines as near to the side as they can be; then each as near as it can be to what follows it.

    No two lines cross, so they have an order, and a line stands where the longest way through it leads.
    """
    following: dict[int, dict[int, float]] = {i: {} for i in first}
    waiting = dict.fromkeys(following, 0)
    for layer in layers:
        for x, z in pairwise(layer):
            nexts, after, apart = following[first[x]], first[z], pieces.apart(x, z, gap)
            waiting[after] += after not in nexts
            nexts[after] = max(nexts.get(after, 0.0), apart)
    order = [line for line, n in waiting.items() if not n]
    place = dict.fromkeys(following, 0.0)
    for line in order:  # which grows meanwhile
        for after, apart in following[line].items():
            place[after] = max(place[after], place[line] + apart)
            waiting[after] -= 1
            if not waiting[after]:
                order.append(after)
    for line in reversed(order):
        if following[line]:
            place[line] = min([place[after] - apart for after, apart in following[line].items()])
    return [place[i] for i in first]


def _face(layer: Sequence[int], place: list[float], pieces: _Pieces, gap: float) -> None:
    """Labels move in front of their source or target, whichever has fewer edges, as far as others leave them room.

    Bends stay, so that long edges are straight: the labels between two of them are spread between them.
    """
    steps = [pieces.apart(x, z, gap) for x, z in pairwise(layer)]
    bends = [-1, *[k for k, i in enumerate(layer) if pieces.after[i][0] >= pieces.nodes], len(layer)]
    for left, right in pairwise(bends):
        labels = layer[left + 1 : right]
        low = place[layer[left]] + steps[left] if labels and left >= 0 else -inf
        high = place[layer[right]] - steps[right - 1] if labels and right < len(layer) else inf
        wanted = []
        for i in labels:
            x, z = pieces.before[i][0], pieces.after[i][0]
            wanted.append(place[x if len(pieces.after[x]) <= len(pieces.before[z]) else z])
        for i, y in zip(labels, spread(wanted, steps[left + 1 : right - 1], low, high)):
            place[i] = y


def spread(wanted: Sequence[float], steps: Sequence[float], low: float = -inf, high: float = inf) -> list[float]:
    """The places from low to high that are nearest to the wanted ones, each at least a step after the one before.

    With the steps taken off, places need only not decrease: where they would, they share a mean. That is isotonic
    regression, least squares by pooling adjacent violators (R. Barlow, D. Bartholomew, J. Bremner, H. Brunk 1972).
    """
    offsets = list(accumulate(steps, initial=0.0))
    pools: list[tuple[float, int]] = []  # mean, how many
    for y, offset in zip(wanted, offsets):
        mean, n = y - offset, 1
        while pools and pools[-1][0] > mean:
            other, k = pools.pop()
            mean, n = (other * k + mean * n) / (k + n), k + n
        pools.append((mean, n))
    means = [min(max(mean, low), high - offsets[-1]) for mean, n in pools for _ in range(n)]
    return [mean + offset for mean, offset in zip(means, offsets)]


# ── Routes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _routes(
    layers: Layers, pieces: _Pieces, across: Sequence[float], gap: float
) -> tuple[list[float], list[float], list[list[Point]]]:
    """Where each layer starts and ends, along; and the routes: level within the layers, bent only between them."""
    place = {z: i for layer in layers for i, z in enumerate(layer)}
    leaving = _ports([(x, chain[0]) for (x, _), chain in zip(pieces.edges, pieces.chains)], pieces, across, place)
    entering = _ports([(z, chain[-1]) for (_, z), chain in zip(pieces.edges, pieces.chains)], pieces, across, place)
    levels = [[y0, *[across[i] for i in chain], y1] for chain, y0, y1 in zip(pieces.chains, leaving, entering)]
    start, end = _extents(layers, pieces, levels, gap)
    routes = []
    for (x, z), level in zip(pieces.edges, levels):
        k = pieces.layer[x]
        route = [(along, y) for i, y in enumerate(level, k) for along in (start[i], end[i])]
        route[0] = (start[k] + end[k] + pieces.size[x][0]) / 2, level[0]
        k = pieces.layer[z]
        route[-1] = (start[k] + end[k] - pieces.size[z][0]) / 2, level[-1]
        routes.append(_needed(route))
    return start, end, routes


def _ports(
    ends: Sequence[tuple[int, int]], pieces: _Pieces, across: Sequence[float], place: dict[int, int]
) -> list[float]:
    """Where on a node's border each edge begins, or ends: right before its first bend, or as near as there is room."""
    at: dict[int, list[int]] = {}
    for node, bend in dict.fromkeys(ends):
        at.setdefault(node, []).append(bend)
    ports = {}
    for node, bends in at.items():
        bends.sort(key=place.__getitem__)
        room, n = 0.8 * pieces.size[node][1], len(bends) - 1
        step = min(PORT_GAP, room / n) if n else 0.0
        low, high = across[node] - room / 2, across[node] + room / 2
        for bend, y in zip(bends, spread([across[bend] for bend in bends], [step] * n, low, high)):
            ports[node, bend] = y
    return [ports[end] for end in ends]


def _extents(
    layers: Layers, pieces: _Pieces, levels: Sequence[Sequence[float]], gap: float
) -> tuple[list[float], list[float]]:
    """Where each layer starts and ends, along. Where edges go far across, the layers stand farther apart."""
    farthest = [0.0] * len(layers)  # across, from each layer to the next
    for (x, _), level in zip(pieces.edges, levels):
        for k, (y0, y1) in enumerate(pairwise(level), pieces.layer[x]):
            farthest[k] = max(farthest[k], abs(y1 - y0))
    start, end, at = [], [], 0.0
    for layer, across in zip(layers, farthest):
        start.append(at)
        at += max([pieces.size[i][0] for i in layer], default=0.0)
        end.append(at)
        at += max(gap / 2, min(HEAD + across / STEEPNESS, FARTHEST))
    return start, end


def _needed(route: Sequence[Point]) -> list[Point]:
    """Each point once, rounding errors aside, and without those between two others on the same level."""
    once = [route[0], *[b for a, b in pairwise(route) if a[1] != b[1] or b[0] - a[0] > 1e-6]]
    inner = [b for a, b, c in zip(once, once[1:], once[2:]) if not a[1] == b[1] == c[1]]
    return [once[0], *inner, once[-1]]
