"""Where the boxes of a directed graph stand, and how its edges run between them: a layered layout.

The method is that of K. Sugiyama, S. Tagawa and M. Toda, "Methods for visual understanding of hierarchical system
structures" (1981): layers, chains of bends, an order within each layer, places. It knows sizes and edges, not what they
mean, and it draws nothing.

    layer    nodes that stand side by side; edges lead from a lower layer to a higher
    along    the axis on which layers follow each other, from inputs to the output; across: the other
    piece    what has a place in a layer: a node, or a bend of an edge that passes through; its label is a bend, too
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

Point = tuple[float, float]
Size = tuple[float, float]

STRAIGHT = {0: 1.0, 1: 2.0, 2: 8.0}  # how stiff a link is, by its ends that are bends (Gansner et al. 1993, section 4)


@dataclass(slots=True)
class Layout:
    """centres of the nodes, routes of the edges from border to border, centres of their labels, and the whole size."""

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
    layer_gap: float = 34.0,
    node_gap: float = 14.0,
) -> Layout:
    """A place for each node of the `sizes` (width, height), a route for each edge, room for each edge's label.

    Edges lead from a lower number to a higher one. `labels` are sizes, too; (0, 0) for none. Boxes do not overlap,
    edges never turn back, and pass between the boxes; the first point of a route is on the border of its source, the
    last on that of its target.
    """
    flat = direction in ("LR", "RL")  # then a width counts along
    turned = [s if flat else s[::-1] for s in sizes]
    wanted = [s if flat else s[::-1] for s in (labels or [(0.0, 0.0)] * len(edges))]
    pieces = _Pieces(turned, edges, wanted)
    order = reduce_crossings(pieces.layers(), pieces.before, pieces.after)
    across = _places(order, pieces, node_gap)
    start, end = _extents(order, pieces, layer_gap)
    length = end[-1] if end else 0.0
    breadth = max((y + pieces.size[i][1] / 2 for i, y in enumerate(across)), default=0.0)

    def point(along: float, y: float) -> Point:
        along = along if direction in ("LR", "TB") else length - along
        return (along, y) if flat else (y, along)

    middle = [(start[layer] + end[layer]) / 2 for layer in pieces.layer]
    routes, spots = _routes(pieces, order, across, start, end, middle)
    return Layout(
        [point(middle[i], across[i]) for i in range(len(sizes))],
        [[point(*p) for p in route] for route in routes],
        [point(*p) for p in spots],
        *((length, breadth) if flat else (breadth, length)),
    )


def layers_of(n: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The longest way that leads to each node; then what has fewer inputs than readers moves up to its first reader."""
    before: list[list[int]] = [[] for _ in range(n)]
    after: list[list[int]] = [[] for _ in range(n)]
    for x, z in edges:
        if not x < z:
            raise ValueError(f"edges: expected each from a lower number to a higher, got {(x, z)}")
        before[z].append(x)
        after[x].append(z)
    layer = [0] * n
    for z in range(n):
        layer[z] = max((layer[x] + 1 for x in before[z]), default=0)
    for x in reversed(range(n)):
        if len(before[x]) < len(after[x]):
            layer[x] = min(layer[z] for z in after[x]) - 1
    return layer


class _Pieces:
    """Nodes and bends. Layers of nodes are even, and between two of them is one where labels stand."""

    def __init__(self, sizes: Sequence[Size], edges: Sequence[tuple[int, int]], labels: Sequence[Size]) -> None:
        self.nodes = len(sizes)
        self.size = list(sizes)
        self.layer = [2 * k for k in layers_of(len(sizes), edges)]
        self.ends = list(edges)
        self.chains: list[list[int]] = []  # of each edge its bends, the label's first
        self.links: list[tuple[int, int]] = []
        for (x, z), label in zip(edges, labels):
            chain: list[int] = []
            for k in range(self.layer[x] + 1, self.layer[z]):
                self.size.append((0.0, 0.0) if chain else label)
                chain.append(len(self.layer))
                self.layer.append(k)
            self.chains.append(chain)
            self.links.extend(pairwise([x, *chain, z]))
        self.before: list[list[int]] = [[] for _ in self.size]
        self.after: list[list[int]] = [[] for _ in self.size]
        for x, z in self.links:
            self.before[z].append(x)
            self.after[x].append(z)

    def layers(self) -> list[list[int]]:
        """The pieces of each layer, in an order to begin with: as a walk back from the outputs meets them."""
        found: list[list[int]] = [[] for _ in range(max(self.layer, default=-1) + 1)]
        seen: set[int] = set()
        stack = [z for z in range(len(self.size)) if not self.after[z]]
        while stack:
            z = stack.pop()
            if z not in seen:
                seen.add(z)
                found[self.layer[z]].append(z)
                stack.extend(reversed(self.before[z]))
        return found


# ── The order within the layers ──────────────────────────────────────────────────────────────────────────────────


def crossings(upper: Sequence[int], lower: Sequence[int], after: Sequence[Sequence[int]]) -> int:
    """How many pairs of links between two layers cross (Barth, Jünger and Mutzel 2002, with a sorted list)."""
    place = {z: i for i, z in enumerate(lower)}
    met: list[int] = []
    count = 0
    for x in upper:
        ends = sorted(place[z] for z in after[x])
        count += sum(len(met) - bisect_right(met, end) for end in ends)
        for end in ends:
            insort(met, end)
    return count


def reduce_crossings(
    layers: list[list[int]], before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]
) -> list[list[int]]:
    """The layers with their pieces in an order in which few links cross: the best that sweeps to and fro have found."""

    def total(layers: list[list[int]]) -> int:
        return sum(crossings(upper, lower, after) for upper, lower in pairwise(layers))

    layers = [list(layer) for layer in layers]
    best, fewest, stale = [list(layer) for layer in layers], total(layers), 0
    for sweep in range(24 if sum(map(len, layers)) < 1500 else 8):
        if not fewest or stale > 5:
            break
        down = sweep % 2 == 0
        _sweep(layers if down else layers[::-1], before if down else after)
        count = total(layers)
        stale += 1
        if count < fewest:
            best, fewest, stale = [list(layer) for layer in layers], count, 0
    return _transposed(best, before, after) if fewest else best


def _sweep(layers: list[list[int]], towards: Sequence[Sequence[int]]) -> None:
    """Sort each layer by where, on the average, that before it has what the pieces are linked to (the barycentre)."""
    for fixed, layer in pairwise(layers):
        place = {x: i for i, x in enumerate(fixed)}
        scale = len(fixed) / max(len(layer), 1)
        centre = {
            z: sum(place[x] for x in towards[z]) / len(towards[z]) if towards[z] else i * scale
            for i, z in enumerate(layer)
        }
        layer.sort(key=centre.__getitem__)


def _transposed(
    layers: list[list[int]], before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Neighbours change places where that removes crossings, until nowhere it does (at most four rounds)."""
    for _ in range(4):
        better = False
        for k, layer in enumerate(layers):
            sides = [
                _ends(layer, layers[other], links)
                for other, links in ((k - 1, before), (k + 1, after))
                if 0 <= other < len(layers)
            ]
            for i in range(len(layer) - 1):
                a, b = layer[i], layer[i + 1]
                if sum(_inversions(s[a], s[b]) - _inversions(s[b], s[a]) for s in sides) > 0:
                    layer[i], layer[i + 1] = b, a
                    better = True
        if not better:
            break
    return layers


def _ends(layer: list[int], other: list[int], links: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """Where in the other layer each piece is linked to, in order."""
    place = {x: i for i, x in enumerate(other)}
    return {z: sorted(place[x] for x in links[z]) for z in layer}


def _inversions(left: list[int], right: list[int]) -> int:
    """How many links of `left`, which stands before `right`, cross one of `right`. Both are sorted."""
    count = i = 0
    for end in left:
        while i < len(right) and right[i] < end:
            i += 1
        count += i
    return count


# ── Places ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _places(order: list[list[int]], pieces: _Pieces, gap: float) -> list[float]:
    """Where each piece stands across: as near to what it is linked to as the order and the sizes allow.

    Layer by layer, to and fro, the weighted squares of the distances are made least. Long edges weigh more.
    """
    place = [0.0] * len(pieces.size)
    offsets = []
    for layer in order:
        offset, at = [0.0] * bool(layer), 0.0
        for a, b in pairwise(layer):
            at += (pieces.size[a][1] + pieces.size[b][1]) / 2 + gap
            offset.append(at)
        offsets.append(offset)
        for z, y in zip(layer, offset):
            place[z] = y - at / 2
    near: list[list[tuple[int, float]]] = [[] for _ in place]
    for x, z in pieces.links:
        stiff = STRAIGHT[(x >= pieces.nodes) + (z >= pieces.nodes)]
        near[x].append((z, stiff))
        near[z].append((x, stiff))
    for k in range(24 if len(place) < 1500 else 12):
        for layer, offset in list(zip(order, offsets))[:: 1 if k % 2 else -1]:
            _settle(layer, offset, place, near)
    top = min((y - pieces.size[i][1] / 2 for i, y in enumerate(place)), default=0.0)
    return [y - top for y in place]


def _settle(layer: list[int], offset: list[float], place: list[float], near: list[list[tuple[int, float]]]) -> None:
    """Least squares in a given order: isotonic regression by pooling adjacent violators (Barlow et al. 1972).

    With what must stand before a piece taken off, places need only not decrease; where they would, they share a mean.
    """
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for z, room in zip(layer, offset):
        weight = sum(stiff for _, stiff in near[z]) or 1.0
        wanted = sum(stiff * place[x] for x, stiff in near[z]) / weight if near[z] else place[z]
        pool = wanted - room, weight, 1
        while pools and pools[-1][0] > pool[0]:
            mean, w, n = pools.pop()
            w, pool = w + pool[1], (mean * w + pool[0] * pool[1], 0.0, n + pool[2])
            pool = pool[0] / w, w, pool[2]
        pools.append(pool)
    settled = [mean for mean, _, n in pools for _ in range(n)]
    for z, room, y in zip(layer, offset, settled):
        place[z] = y + room


def _extents(order: list[list[int]], pieces: _Pieces, gap: float) -> tuple[list[float], list[float]]:
    """Where each layer begins and ends, along. A layer between two of nodes is as long as its longest label."""
    start, end, at = [], [], 0.0
    for layer in order:
        start.append(at)
        at += max((pieces.size[i][0] for i in layer), default=0.0)
        end.append(at)
        at += gap / 2
    return start, end


def _routes(
    pieces: _Pieces,
    order: list[list[int]],
    across: list[float],
    start: list[float],
    end: list[float],
    middle: list[float],
) -> tuple[list[list[Point]], list[Point]]:
    """Flat through the layers, where boxes stand, and bent only between them, where none does."""
    rank = {z: i for layer in order for i, z in enumerate(layer)}
    leaving = _ports(pieces, across, rank, [(x, chain[0]) for (x, _), chain in zip(pieces.ends, pieces.chains)])
    entering = _ports(pieces, across, rank, [(z, chain[-1]) for (_, z), chain in zip(pieces.ends, pieces.chains)])
    routes, spots = [], []
    for (x, z), chain, y0, y1 in zip(pieces.ends, pieces.chains, leaving, entering):
        route = [(middle[x] + pieces.size[x][0] / 2, y0), (end[pieces.layer[x]], y0)]
        for i in chain:
            route += [(start[pieces.layer[i]], across[i]), (end[pieces.layer[i]], across[i])]
        route += [(start[pieces.layer[z]], y1), (middle[z] - pieces.size[z][0] / 2, y1)]
        routes.append([p for i, p in enumerate(route) if not i or p != route[i - 1]])
        spots.append((middle[chain[0]], across[chain[0]]))
    return routes, spots


def _ports(pieces: _Pieces, across: list[float], rank: dict[int, int], ends: list[tuple[int, int]]) -> list[float]:
    """Where on a node's border each edge begins (or ends): side by side, in the order of what they lead to."""
    at: dict[int, list[tuple[int, int]]] = {}
    for e, (node, bend) in enumerate(ends):
        at.setdefault(node, []).append((rank[bend], e))
    ports = [0.0] * len(ends)
    for node, found in at.items():
        step = min(16.0, 0.8 * pieces.size[node][1] / len(found))
        for i, (_, e) in enumerate(sorted(found)):
            ports[e] = across[node] + (i - (len(found) - 1) / 2) * step
    return ports
