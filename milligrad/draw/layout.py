"""Where the boxes of a directed graph stand, and how its edges run between them: a layered layout.

The method is that of K. Sugiyama, S. Tagawa and M. Toda, "Methods for visual understanding of hierarchical system
structures" (1981), in four steps: layers, their order, places, routes. It knows sizes and edges, not what they mean,
and it draws nothing.

    layer    what stands side by side; edges lead from lower layers to higher ones
    along    the axis on which the layers follow each other, from inputs to outputs; across: the other
    piece    what has a place in a layer: a node, the label of an edge, or a bend of an edge that passes through
    link     a piece of an edge, from one layer to the next
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from milligrad.typing import TypeAlias

Point: TypeAlias = tuple[float, float]
Size: TypeAlias = tuple[float, float]
Links: TypeAlias = Sequence[Sequence[int]]  # of each piece the pieces before it, or those after it

DIRECTIONS = ("LR", "TB", "RL", "BT")
SWEEPS, STALE = 24, 4  # sweeps at most, and sweeps in a row without fewer crossings that end it
STEEPEST = 4.5  # an edge may go so much farther across than along; where it would, the layers stand farther apart,
FARTHEST = 110.0  # up to this
PORT_GAP = 11.0  # between the ends of two edges at a box


@dataclass(slots=True)
class Layout:
    """The nodes' centres, the edges' routes from border to border, the centres of their labels, and the whole size."""

    centres: list[Point]
    routes: list[list[Point]]
    labels: list[Point]
    width: float
    height: float


def layered(
    sizes: Sequence[Size],
    edges: Sequence[tuple[int, int]],
    direction: str = "LR",
    labels: Sequence[Size] | None = None,
    layer_gap: float = 44.0,
    node_gap: float = 20.0,
) -> Layout:
    """A place for each node of the `sizes` (width, height), a route for each edge, and room for each edge's label.

    Edges lead from a lower number to a higher one. `labels` are sizes, too, one for each edge; (0, 0) for none. No two
    boxes overlap, of nodes or labels. A route's first point is on the border of its source, its last on that of its
    target; it never turns back. What passes from point to point without leaving the range of their coordinates,
    straight or as a curve, meets no other node's box and no other edge's label. Long edges from one node run together
    until they are near their targets, as on a circuit diagram.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction: expected one of {', '.join(DIRECTIONS)}, got {direction!r:.60}")
    if labels is not None and len(labels) != len(edges):
        raise ValueError(f"labels: expected one for each of {len(edges)} edges, got {len(labels)}")
    flat = direction in ("LR", "RL")  # then a width counts along
    turned = [s if flat else s[::-1] for s in sizes]
    rooms = [s if flat else s[::-1] for s in (labels or [(0.0, 0.0)] * len(edges))]
    pieces = _Pieces(turned, edges, rooms)
    order = reduce_crossings(pieces.layers(), pieces.before, pieces.after)
    placed = _Placed(pieces, order, layer_gap, node_gap)

    def point(along: float, across: float) -> Point:
        along = along if direction in ("LR", "TB") else placed.length - along
        return (along, across) if flat else (across, along)

    return Layout(
        [point(*placed.centre(node)) for node in range(len(sizes))],
        [[point(*p) for p in placed.route(edge)] for edge in range(len(edges))],
        [point(*placed.centre(chain[-1])) for chain in pieces.chains],
        *((placed.length, placed.breadth) if flat else (placed.breadth, placed.length)),
    )


# ── Layers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def layers_of(n: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The layer of each of n nodes: as near to the inputs as can be, or to the outputs, if that makes edges shorter."""
    for x, z in edges:
        if not 0 <= x < z < n:
            raise ValueError(f"edges: expected each from a lower to a higher number below {n}, got {(x, z)}")
    early = _near_inputs(n, edges)
    late = _near_inputs(n, [(n - 1 - z, n - 1 - x) for x, z in edges])[::-1]
    late = [max(late, default=0) - k for k in late]
    return min(late, early, key=lambda layer: sum(layer[z] - layer[x] for x, z in edges))


def _near_inputs(n: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The longest way to each node; but what has more readers than inputs stands just before its first reader."""
    before, after = _links(n, edges)
    layer = [0] * n
    for z in range(n):
        layer[z] = max((layer[x] + 1 for x in before[z]), default=0)
    for x in reversed(range(n)):
        if len(after[x]) > len(before[x]):
            layer[x] = min(layer[z] for z in after[x]) - 1
    return layer


def _links(n: int, edges: Sequence[tuple[int, int]]) -> tuple[list[list[int]], list[list[int]]]:
    before: list[list[int]] = [[] for _ in range(n)]
    after: list[list[int]] = [[] for _ in range(n)]
    for x, z in edges:
        before[z].append(x)
        after[x].append(z)
    return before, after


class _Pieces:
    """Nodes, bends and labels. Even layers hold nodes, odd ones labels; bends are in both."""

    def __init__(self, sizes: Sequence[Size], edges: Sequence[tuple[int, int]], labels: Sequence[Size]) -> None:
        self.nodes, self.edges = len(sizes), edges
        self.size = list(sizes)
        self.layer = [2 * k for k in layers_of(len(sizes), edges)]
        self.chains: list[list[int]] = []  # of each edge its bends, which long edges of one source share, and its label
        trunks: dict[int, list[int]] = {}
        links: list[tuple[int, int]] = []
        for (x, z), label in zip(edges, labels):
            trunk = trunks.setdefault(x, [])
            for layer in range(self.layer[x] + 1 + len(trunk), self.layer[z] - 1):
                links.append((trunk[-1] if trunk else x, len(self.size)))
                trunk.append(self._piece(layer, (0.0, 0.0)))
            bends = trunk[: self.layer[z] - self.layer[x] - 2]
            links += [(bends[-1] if bends else x, len(self.size)), (len(self.size), z)]
            self.chains.append([*bends, self._piece(self.layer[z] - 1, label)])
        self.before, self.after = _links(len(self.size), links)

    def _piece(self, layer: int, size: Size) -> int:
        self.size.append(size)
        self.layer.append(layer)
        return len(self.size) - 1

    def layers(self) -> list[list[int]]:
        """The pieces of each layer, in an order to begin with: as a walk back from the outputs meets them."""
        layers: list[list[int]] = [[] for _ in range(max(self.layer, default=-1) + 1)]
        seen: set[int] = set()
        for output in reversed(range(self.nodes)):
            stack = [output]
            while stack:
                z = stack.pop()
                if z not in seen:
                    seen.add(z)
                    layers[self.layer[z]].append(z)
                    stack += reversed(self.before[z])
        return layers


# ── The order within the layers ──────────────────────────────────────────────────────────────────────────────────


def crossings(layer: Sequence[int], following: Sequence[int], after: Links) -> int:
    """How many pairs of links between two layers cross (by inserting, as in Barth, Jünger and Mutzel 2002)."""
    place = {z: i for i, z in enumerate(following)}
    met: list[int] = []
    count = 0
    for x in layer:
        ends = sorted([place[z] for z in after[x]])
        for end in ends:
            count += len(met) - bisect_right(met, end)
        for end in ends:
            insort(met, end)
    return count


def reduce_crossings(layers: Sequence[Sequence[int]], before: Links, after: Links) -> list[list[int]]:
    """The layers in the order with the fewest crossings that sweeps to and fro have found."""

    def total(layers: Sequence[Sequence[int]]) -> int:
        return sum(crossings(layer, following, after) for layer, following in pairwise(layers))

    order = [list(layer) for layer in layers]
    best, fewest, stale = [list(layer) for layer in layers], total(layers), 0
    for sweep in range(SWEEPS):
        if not fewest or stale == STALE:
            break
        if sweep % 2:
            _sweep(order[::-1], after)
        else:
            _sweep(order, before)
        _transpose(order, before, after)
        stale += 1
        if (count := total(order)) < fewest:
            best, fewest, stale = [list(layer) for layer in order], count, 0
    return best


def _sweep(layers: Sequence[list[int]], towards: Links) -> None:
    """Sort each layer by where, on the average, its pieces have their links to the one before: the barycentre."""
    for fixed, layer in pairwise(layers):
        place = {x: i for i, x in enumerate(fixed)}
        mean = {z: sum([place[x] for x in towards[z]]) / len(towards[z]) for z in layer if towards[z]}
        free = [z for z in layer if z not in mean]
        held = iter(sorted(mean, key=mean.__getitem__))
        layer[:] = [z if z in free else next(held) for z in layer] if free else held


def _transpose(layers: Sequence[list[int]], before: Links, after: Links) -> None:
    """Neighbours change places wherever that removes crossings: once through all layers."""
    for k, layer in enumerate(layers):
        sides = [_ends(layer, layers[k - 1], before)] if k else []
        sides += [_ends(layer, layers[k + 1], after)] if k + 1 < len(layers) else []
        for i in range(len(layer) - 1):
            x, y = layer[i : i + 2]
            if sum([_inversions(ends[x], ends[y]) - _inversions(ends[y], ends[x]) for ends in sides]) > 0:
                layer[i : i + 2] = y, x


def _ends(layer: Sequence[int], other: Sequence[int], links: Links) -> dict[int, list[int]]:
    place = {z: i for i, z in enumerate(other)}
    return {x: sorted([place[z] for z in links[x]]) for x in layer}


def _inversions(first: Sequence[int], second: Sequence[int]) -> int:
    """How many links that end at `first` cross one that ends at `second`, whose piece comes after. Both are sorted."""
    if not first or not second or first[-1] <= second[0]:
        return 0
    count = i = 0
    for end in first:
        while i < len(second) and second[i] < end:
            i += 1
        count += i
    return count


# ── Places across ────────────────────────────────────────────────────────────────────────────────────────────────


def _across(layers: Sequence[Sequence[int]], pieces: _Pieces, gap: float) -> list[float]:
    """A place for each piece, in the order of its layer: by U. Brandes and B. Köpf, "Fast and simple horizontal
    coordinate assignment" (2001).

    Each piece is aligned with the median of its links, and a long edge is one straight line. That can be done from
    either side and end; of the four places each piece has, it gets the mean of the middle two.
    """
    crossing = _across_long_edges(layers, pieces)
    four = []
    for rows, towards in ((layers, pieces.before), (layers[::-1], pieces.after)):
        for flip in (1, -1):
            ordered = [row[::flip] for row in rows]
            place = _compacted(ordered, _blocks(ordered, towards, crossing), pieces, gap)
            four.append(_together([flip * y for y in place], flip))
    narrowest = min(four, key=lambda place: max(place, default=0) - min(place, default=0))
    low, high = min(narrowest, default=0.0), max(narrowest, default=0.0)
    shifts = [low - min(p, default=0.0) if k % 2 == 0 else high - max(p, default=0.0) for k, p in enumerate(four)]
    return [sum(sorted(y + s for y, s in zip(ys, shifts))[1:3]) / 2 for ys in zip(*four)]


def _together(place: list[float], flip: int) -> list[float]:
    return place


def _across_long_edges(layers: Sequence[Sequence[int]], pieces: _Pieces) -> set[tuple[int, int]]:
    """The links that cross a link between two bends: they are not straightened at its cost (Brandes and Köpf, alg. 1)."""
    found: set[tuple[int, int]] = set()
    for layer, following in pairwise(layers):
        place = {x: i for i, x in enumerate(layer)}
        low = done = 0
        for i, z in enumerate(following):
            bend = next((x for x in pieces.before[z] if min(x, z) >= pieces.nodes), None)
            if bend is None and i < len(following) - 1:
                continue
            high = len(layer) if bend is None else place[bend]
            for y in following[done : i + 1]:
                for x in pieces.before[y]:
                    if not low <= place[x] <= high and min(x, y) < pieces.nodes:
                        found |= {(x, y), (y, x)}
            low, done = high, i + 1
    return found


def _blocks(layers: Sequence[Sequence[int]], towards: Links, crossing: set[tuple[int, int]]) -> list[int]:
    """Of each piece the first one of those that it is in line with (algorithm 2)."""
    first = list(range(len(towards)))
    for fixed, layer in pairwise(layers):
        place = {x: i for i, x in enumerate(fixed)}
        last = -1
        for z in layer:
            near = sorted(towards[z], key=place.__getitem__)
            for x in near[(len(near) - 1) // 2 : len(near) // 2 + 1]:  # the median, or both
                if first[z] == z and last < place[x] and (x, z) not in crossing:
                    first[z], last = first[x], place[x]
    return first


def _compacted(layers: Sequence[Sequence[int]], first: list[int], pieces: _Pieces, gap: float) -> list[float]:
    """The blocks as close together as they can be; then each as close to what follows it as it can be.

    The blocks are in an order, since none crosses another: the longest way to each is where it stands, at the least.
    """
    following: dict[int, list[tuple[int, float]]] = {i: [] for i in first}
    waits = dict.fromkeys(following, 0)
    for layer in layers:
        for x, z in pairwise(layer):
            following[first[x]].append((first[z], pieces.apart(x, z, gap)))
            waits[first[z]] += 1
    order = [i for i, n in waits.items() if not n]
    place = dict.fromkeys(following, 0.0)
    for i in order:  # which grows meanwhile
        for k, apart in following[i]:
            place[k] = max(place[k], place[i] + apart)
            waits[k] -= 1
            if not waits[k]:
                order.append(k)
    for i in reversed(order):
        if following[i]:
            place[i] = min([place[k] - apart for k, apart in following[i]])
    return [place[i] for i in first]
