"""Find the loops again of what runs side by side: level by level, whatever order it was written in.

    level    of a leaf 0; of any other node, 1 more than the largest of its inputs. Nodes of one level are independent.
    group    nodes of one level with the same op whose inputs come from the same arrays, in an order in which the
             places of their inputs ascend: one nest of loops
    nest     loops over indices i_d in which a sequence of places is affine: base + Σ i_d·stride_d. It is found from
             the inside: take the run of equal steps, check that it repeats, keep the runs' heads, repeat.
    pattern  the places of a sum's terms, relative to the first one

Whatever is not affine is cut into a few pieces that are, and else keeps its places in a table: always right, and
still a loop. Nothing is computed here, and no code is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from milligrad import ops
from milligrad.compiler.passes.simplify import ONE, Graph, Inputs
from milligrad.compiler.program import SHORT, Access, Apply, Array, Loop, Operand, Program, Reduce, Segment
from milligrad.compiler.trace import total
from milligrad.engine import Op, Reduction

Places = list[int]

CONSTANT = 1 << 60  # "the array" of a constant: larger than any array's number, so that constants come second
NOTHING = CONSTANT + 1  # of the factor 1, which is left out
MOST_PIECES = 16  # a group is cut into at most as many nests
SMALL = 3  # so few members are no loop: as single numbers they can be fused with all others
UNROLLED = 16  # and so few terms of such sums no inner loop
MOST_PATTERNS = 8  # and sums of one kind into at most as many groups, before they get a table


class Layout(NamedTuple):
    """Which numbers an array holds: of leaves the sources (Symbols, Values), else positions among the outputs."""

    array: Array
    numbers: Sequence[Any]


def reroll(graph: Graph, leaves: Sequence[Layout], outputs: Sequence[Layout]) -> Program:
    """The loops that compute `outputs` from `leaves`."""
    return Reroller(graph, leaves, outputs).program()


class Reroller:
    """The state of the pass: where each node is.

    array, place:  of each node, the number of its array in `arrays` and its index there
    wanted:        nodes that are outputs → (array, place) where the reader wants them
    """

    def __init__(self, graph: Graph, leaves: Sequence[Layout], outputs: Sequence[Layout]) -> None:
        self.graph = graph
        self.arrays: list[Array] = []
        self.loops: list[Loop] = []
        self.groups = 0
        n = len(graph)
        self.array, self.place = [CONSTANT] * n, [0] * n
        self.varies = bytearray(n)
        self._rank_constants()
        self._place_leaves(leaves)
        self.copies: list[tuple[int, int, int]] = []  # (node, output array, place): what another place holds already
        self.wanted: dict[int, tuple[int, int]] = {}
        self._levels = self._by_level()
        self._place_outputs(outputs)

    def program(self) -> Program:
        """The program, level by level."""
        for nodes in self._levels:
            self._roll(nodes)
        self._copy()
        return Program(self.arrays, self.loops, {"nodes": len(self.graph), "groups": self.groups})

    def new(self, array: Array) -> int:
        """The number of a new array."""
        self.arrays.append(array)
        return len(self.arrays) - 1

    def _place_leaves(self, leaves: Sequence[Layout]) -> None:
        where = {}
        for array, numbers in leaves:
            k = self.new(array)
            where.update({x.serial: (k, i) for i, x in enumerate(numbers)})
        for node, x in self.graph.source.items():
            if type(x) is not float:
                self.array[node], self.place[node] = where[x.serial]
                self.varies[node] = self.arrays[self.array[node]].per_sample

    def _rank_constants(self) -> None:
        """The place of a constant is its rank, so that members of a group stand in the order of their constants."""
        known = [(i, x) for i, x in self.graph.source.items() if type(x) is float]
        known.sort(key=lambda pair: (pair[1] != pair[1], pair[1]))
        self.constants = [x for _, x in known]
        for rank, (i, _) in enumerate(known):
            self.place[i] = rank

    def _by_level(self) -> list[list[int]]:
        """The nodes of each level from 1 on; on the way, which vary from sample to sample."""
        varies, levels = self.varies, defaultdict(list)
        for i, (op, inputs, level) in enumerate(zip(self.graph.op, self.graph.inputs, self.graph.level)):
            if op is not None:
                levels[level].append(i)
                varies[i] = op is not total and any([varies[x] for x in inputs])
        return [levels[k] for k in sorted(levels)]

    def _place_outputs(self, outputs: Sequence[Layout]) -> None:
        """Compute what is read at one place there at once; everything else is copied there in the end."""
        for array, positions in outputs:
            k = self.new(array)
            for place, position in enumerate(positions):
                node = self.graph.outputs[position]
                if (
                    self.graph.op[node] is None
                    or node in self.wanted
                    or bool(self.varies[node]) is not array.per_sample
                ):
                    self.copies.append((node, k, place))
                else:
                    self.wanted[node] = k, place

    # One level.

    def _roll(self, nodes: list[int]) -> None:
        classes: dict[Any, list[Member]] = defaultdict(list)
        for i in nodes:
            op, inputs = self.graph.op[i], self.graph.inputs[i]
            assert op is not None
            out = self.wanted[i][0] if i in self.wanted else -1
            if op is total or isinstance(op, Reduction):
                arrays, places = self._terms(op, inputs)
            else:
                arrays, places = self._operands(op, inputs)
            classes[op, out, self.varies[i], arrays].append((i, places))
        values: dict[Any, int] = {}
        # Of an op the large groups first: the odd ones at a loop's ends, which follow, leave its numbers side by side.
        rank = {op: k for k, (op, *_) in reversed([*enumerate(classes)])}
        for (op, out, varies, arrays), members in sorted(classes.items(), key=lambda c: (rank[c[0][0]], -len(c[1]))):
            groups = _by_pattern(arrays, members) if op is total or isinstance(op, Reduction) else [members]
            for group in groups:
                self._group(op, out, bool(varies), arrays, group, values)

    def _operands(self, op: Op, inputs: Inputs) -> tuple[Any, Places]:
        """The arrays and the places of the inputs. Of commuting inputs the one in the lower array comes first."""
        array, place = self.array, self.place
        if len(inputs) == 2:
            x, y = inputs
            a, b, p, q = array[x], array[y], place[x], place[y]
            if op in COMMUTING and (b, q) < (a, p):
                a, b, p, q = b, a, q, p
            if a < CONSTANT and b < CONSTANT:
                return (a, b), [p, q]
            return (a, b) if op not in BY_CONSTANT else (a, b, p if a >= CONSTANT else q), [p, q]
        return tuple([array[x] for x in inputs]), [place[x] for x in inputs]

    def _terms(self, op: Op, inputs: Inputs) -> tuple[Any, Places]:
        """The runs of terms with factors from the same arrays, (array, array, count), and the places of all terms.

        A long sum, or one over samples, has them in the order of the arrays, so that more sums are alike.
        """
        array, place = self.array, self.place
        if op is ops.dot or op is total:
            n = len(inputs) // 2
            terms = [
                (a, b, p, q) if a < b or (a == b and p <= q) else (b, a, q, p)
                for a, b, p, q in [
                    (array[x], array[y] if y != ONE else NOTHING, place[x], place[y])
                    for x, y in zip(inputs[:n], inputs[n:])
                ]
            ]
        else:
            terms = [(array[x], NOTHING, place[x], 0) for x in inputs]
        if op is total or (getattr(op, "symmetric", False) and len(terms) > SHORT):
            terms.sort()
        runs: list[list[int]] = []
        before = None
        for a, b, _, _ in terms:
            if (a, b) == before:
                runs[-1][2] += 1
            else:
                before = (a, b)
                runs.append([a, b, 1])
        return tuple(map(tuple, runs)), [x for term in terms for x in term[2:]]

    def _group(
        self, op: Op, out: int, varies: bool, arrays: Any, members: list[Member], values: dict[Any, int]
    ) -> None:
        """Loops for the members of one group; their places are in the order of those of their inputs, or as wanted."""
        self.groups += 1
        if out >= 0:
            members.sort(key=lambda member: self.wanted[member[0]][1])
            places = [self.wanted[i][1] for i, _ in members]
        else:
            members.sort(key=_inputs_places)
            if (op, varies) not in values:
                name = f"{op.name}{len(self.arrays)}"
                values[op, varies] = self.new(Array(name, 0, "value", varies))
            out = values[op, varies]
            start = self.arrays[out].size
            self.arrays[out].size += len(members)
            places = list(range(start, start + len(members)))
        for (i, _), p in zip(members, places):
            self.array[i], self.place[i] = out, p
        if op is total or isinstance(op, Reduction):
            self._reduce(op, out, places, varies, arrays, members)
        else:
            self._apply(op, out, places, varies, arrays, members)

    def _apply(self, op: Op, out: int, places: Places, varies: bool, arrays: Any, members: list[Member]) -> None:
        columns = [list(column) for column in zip(*[p for _, p in members])]
        operands = [self._sequence(a, column) for a, column in zip(arrays, columns)]
        sequences = [x.places for x in operands if isinstance(x, Sequence_)]
        for piece in pieces([places, *sequences], SMALL):
            at = iter(piece.accesses[1:])
            inputs = tuple(self._access(x, next(at)) if isinstance(x, Sequence_) else x for x in operands)
            store = self._access(Sequence_(self.arrays[out], places), piece.accesses[0])
            self.loops.append(Loop(piece.dims, [Apply(op, inputs)], [(0, store)], varies))

    def _reduce(self, op: Op, out: int, places: Places, varies: bool, arrays: Any, members: list[Member]) -> None:
        """A sum, or another op of many inputs: a segment for each piece of each run of terms."""
        segments: list[tuple[Piece, list[Any]]] = []  # (the nest within the sum, its factors with the places of heads)
        single = all([count == 1 for _, _, count in arrays])
        shared = single or len({_pattern(arrays, p) for _, p in members}) == 1
        start = 0
        few = len(members) <= SMALL and sum([count for _, _, count in arrays]) <= UNROLLED
        for a, b, count in arrays:
            columns = []
            for side, array in ((0, a), (1, b)):
                if array != NOTHING:
                    table = [p[2 * start + side : 2 * (start + count) : 2] for _, p in members]
                    columns.append((array, table))
            segments += self._segments(columns, count, shared, few)
            start += count
        heads = [x.places for _, factors in segments for x in factors if isinstance(x, Heads)]
        n = len(members)
        for piece in pieces([places, *heads], SMALL if few else 1):
            at = iter(piece.accesses[1:])
            made = []
            for within, factors in segments:
                fs = tuple(self._factor(x, within, piece, at, n) for x in factors)
                made.append(Segment(within.dims, fs, op is total))
            store = self._access(Sequence_(self.arrays[out], places), piece.accesses[0])
            row = ops.sum if op is total or op is ops.dot else op
            self.loops.append(Loop(piece.dims, [Reduce(row, tuple(made))], [(0, store)], varies))

    def _segments(
        self, columns: list[tuple[int, list[Places]]], count: int, shared: bool, few: bool
    ) -> list[tuple[Piece, list[Any]]]:
        """One run of terms as pieces that are affine in all factors; without a shared pattern, with tables.

        A few terms are a piece each, so that they can be fused with what computes them.
        """
        if not shared:
            whole = Piece(0, count, (count,) if count > 1 else (), [])
            return [(whole, [self._ragged(array, table) for array, table in columns])]
        made = []
        sequences = [[p - row[0] for p in row] for array, table in columns if array != CONSTANT for row in table[:1]]
        sequences = sequences or [list(range(count))]
        for within in pieces(sequences, UNROLLED if few else 1):
            at = iter(within.accesses)
            factors: list[Any] = []
            for array, table in columns:
                rows = [row[within.start : within.start + within.members] for row in table]
                if array == CONSTANT:
                    factors.append(self._ragged(array, rows))
                    continue
                access = next(at)
                if isinstance(access, Affine):
                    factors.append(Heads(self.arrays[array], [row[0] for row in rows], access.strides))
                else:
                    factors.append(self._ragged(array, rows))
            made.append((within, factors))
        return made

    def _ragged(self, array: int, table: list[Places]) -> Any:
        """A factor whose places are told one by one; a float if it is one constant."""
        flat = [p for row in table for p in row]
        if array == CONSTANT:
            numbers = [self.constants[p] for p in flat]
            if len({repr(x) for x in numbers}) == 1:
                return numbers[0]
            return Ragged(self._constants(numbers), list(range(len(numbers))), len(table[0]))
        return Ragged(self.arrays[array], flat, len(table[0]))

    def _factor(self, x: Any, within: Piece, piece: Piece, at: Iterator[Any], n: int) -> Operand:
        if isinstance(x, Heads):
            head = next(at)
            if isinstance(head, Affine):
                return Access(x.array, head.base, head.strides + x.strides)
            heads = x.places[piece.start : piece.start + piece.members]
            offsets = _offsets(within.dims, x.strides)
            return Access(x.array, table=tuple([p + o for p in heads for o in offsets]))
        if isinstance(x, Ragged):
            part = x.places[piece.start * x.width : (piece.start + piece.members) * x.width]
            found = _affine_in(part, piece.dims + within.dims)
            return Access(x.array, found.base, found.strides) if found else Access(x.array, table=tuple(part))
        return float(x)

    # Places as operands.

    def _sequence(self, array: int, column: Places) -> Any:
        """An operand of a group: the places in an array; constants get an array, or are one float."""
        if array < CONSTANT:
            return Sequence_(self.arrays[array], column)
        numbers = [self.constants[p] for p in column]
        if len({repr(x) for x in numbers}) == 1:
            return numbers[0]
        return Sequence_(self._constants(numbers), list(range(len(numbers))))

    def _constants(self, numbers: list[float]) -> Array:
        array = Array(f"constants{len(self.arrays)}", len(numbers), "constant", False, tuple(numbers))
        self.new(array)
        return array

    @staticmethod
    def _access(x: Sequence_, found: Any) -> Any:
        if isinstance(found, Affine):
            if x.array.role == "constant" and not found.strides:
                return x.array.values[found.base]
            return Access(x.array, found.base, found.strides)
        return Access(x.array, table=tuple(found))

    def _copy(self) -> None:
        """What is read at more than one place, and leaves and constants that are outputs."""
        classes: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
        for node, out, place in self.copies:
            array = self.array[node]
            classes[array, out].append((place, node))
        for (array, out), pairs in classes.items():
            self.groups += 1
            pairs.sort()
            places = [place for place, _ in pairs]
            x = self._sequence(array, [self.place[node] for _, node in pairs])
            operands = [x.places] if isinstance(x, Sequence_) else []
            for piece in pieces([places, *operands]):
                inputs = (self._access(x, piece.accesses[1]),) if operands else (x,)
                store = self._access(Sequence_(self.arrays[out], places), piece.accesses[0])
                varies = self.arrays[out].per_sample
                self.loops.append(Loop(piece.dims, [Apply(ops.identity, inputs)], [(0, store)], varies))


Member = tuple[int, Places]  # a node, and the places of its inputs (of terms: first factor, second factor, …)
COMMUTING = {ops.add, ops.mul, ops.equal}
BY_CONSTANT = {ops.power, ops.exponential, ops.pow}  # worth a loop for each constant: x³ is not computed like x^0.3


@dataclass(slots=True)
class Sequence_:
    """The places of one input of each member of a group."""

    array: Array
    places: Places


@dataclass(slots=True)
class Heads:
    """A factor of a sum: the place of the first term of each member, and the strides from there."""

    array: Array
    places: Places
    strides: tuple[int, ...]


@dataclass(slots=True)
class Ragged:
    """A factor of a sum: the places of all its terms, `width` for each member."""

    array: Array
    places: Places
    width: int


def _inputs_places(member: Member) -> Places:
    return member[1]


def _pattern(arrays: Any, places: Places) -> tuple[int, ...]:
    """The places of the terms relative to the first of their run."""
    pattern: list[int] = []
    start = 0
    for a, b, count in arrays:
        for side, array in ((0, a), (1, b)):
            if array < CONSTANT:
                head = places[2 * start + side]
                pattern += [p - head for p in places[2 * start + side : 2 * (start + count) : 2]]
        start += count
    return tuple(pattern)


def _by_pattern(arrays: Any, members: list[Member]) -> list[list[Member]]:
    """The members by the pattern of their terms, unless hardly two are alike."""
    if all([count == 1 for _, _, count in arrays]):
        return [members]
    patterns: dict[tuple[int, ...], list[Member]] = defaultdict(list)
    for member in members:
        patterns[_pattern(arrays, member[1])].append(member)
    return list(patterns.values()) if len(patterns) <= MOST_PATTERNS else [members]


# Nests.


class Affine(NamedTuple):
    """base + Σ i_d·strides_d"""

    base: int
    strides: tuple[int, ...]


class Piece(NamedTuple):
    """Some members of a group, from number `start` on, as a nest of loops.

    accesses: for each sequence of places an Affine, or, if it is not affine in this nest, its places.
    """

    start: int
    members: int
    dims: tuple[int, ...]
    accesses: list[Any]


def pieces(sequences: list[Places], small: int = 1) -> list[Piece]:
    """Sequences of one length n as nests: one that is affine in all of them, or a few, or one with tables.

    Up to `small` members are a piece each.
    """
    n = len(sequences[0])
    if n <= small:
        return [_piece([[s[i]] for s in sequences], i, 1, (), [()] * len(sequences)) for i in range(n)]
    whole = nest(sequences)
    if whole:
        return [_piece(sequences, 0, n, *whole)]
    cuts = list(_cut(sequences, min(MOST_PIECES, max(2, n // 4))))
    if cuts:
        return [
            _piece([s[a:b] for s in sequences], a, b - a, *(nest([s[a:b] for s in sequences]) or ())) for a, b in cuts
        ]
    return [_with_tables(sequences)]


def _piece(sequences: list[Places], start: int, n: int, dims: tuple[int, ...], strides: Any) -> Piece:
    return Piece(start, n, dims, [Affine(s[0], st) for s, st in zip(sequences, strides)])


def nest(sequences: list[Places]) -> tuple[tuple[int, ...], list[tuple[int, ...]]] | None:
    """(extents, strides of each sequence) of the nest of loops in which all sequences are affine, or None."""
    n = len(sequences[0])
    if n == 1:
        return (), [() for _ in sequences]
    longest = min([run(s) for s in sequences])
    for r in [longest] if longest == n else _divisors(longest, n):
        steps = [s[1] - s[0] for s in sequences]
        heads = [s[::r] for s in sequences]
        if all([_repeats(s, h, d, r) for s, h, d in zip(sequences, heads, steps)]):
            outer = nest(heads)
            if outer:
                dims, strides = outer
                return (*dims, r), [(*st, d) for st, d in zip(strides, steps)]
    return None


def run(s: Places) -> int:
    """How many numbers from the start on have equal steps."""
    n, d = len(s), s[1] - s[0]
    if (s.count(s[0]) == n) if d == 0 else (s[-1] == s[0] + d * (n - 1) and s == list(range(s[0], s[-1] + d, d))):
        return n
    k = 2
    while k < n and s[k] - s[k - 1] == d:
        k += 1
    return k


def _divisors(longest: int, n: int) -> list[int]:
    """The lengths of runs to try: at most `longest`, a part of it and of n, largest first."""
    return [r for r in range(longest, 1, -1) if longest % r == 0 and n % r == 0]


def _repeats(s: Places, heads: Places, d: int, r: int) -> bool:
    steps = range(0, d * r, d) if d else (0,) * r
    return s == [h + step for h in heads for step in steps]


def _cut(sequences: list[Places], most: int) -> list[tuple[int, int]]:
    """Greedy cuts (start, end) into nests of two loops; nothing if that takes more than `most`."""
    n, start = len(sequences[0]), 0
    cuts: list[tuple[int, int]] = []
    while start < n:
        if len(cuts) == most:
            return []
        end = start + _prefix([s[start:] for s in sequences])
        cuts.append((start, end))
        start = end
    return cuts


def _prefix(sequences: list[Places]) -> int:
    """How many members from the start on form a nest of at most two loops."""
    n = len(sequences[0])
    if n == 1:
        return 1
    r = min([run(s) for s in sequences])
    steps = [s[1] - s[0] for s in sequences]
    blocks = 1
    while (blocks + 1) * r <= n and all(
        [
            s[blocks * r : (blocks + 1) * r] == [s[0] + blocks * (s[r] - s[0]) + j * d for j in range(r)]
            for s, d in zip(sequences, steps)
        ]
    ):
        blocks += 1
    return blocks * r


def _with_tables(sequences: list[Places]) -> Piece:
    """One loop; the sequences that are affine in it are, the others keep their places."""
    n = len(sequences[0])
    accesses = [Affine(s[0], (s[1] - s[0],)) if run(s) == n else s for s in sequences]
    return Piece(0, n, (n,), accesses)


def _offsets(dims: tuple[int, ...], strides: tuple[int, ...]) -> Places:
    """Σ i_d·stride_d for all iterations, innermost fastest."""
    offsets = [0]
    for n, stride in zip(dims, strides):
        offsets = [o + i * stride for o in offsets for i in range(n)]
    return offsets


def _affine_in(places: Places, dims: tuple[int, ...]) -> Affine | None:
    """`places` as an affine sequence in the nest `dims`, if it is one."""
    strides, block = [], len(places)
    for n in dims:
        block //= n
        strides.append(places[block] - places[0] if n > 1 else 0)
    found = Affine(places[0], tuple(strides))
    return found if places == [places[0] + o for o in _offsets(dims, found.strides)] else None


def describe(loops: Iterable[Loop]) -> list[str]:
    """A line for each loop: its extents and what it computes."""
    lines = []
    for loop in loops:
        where = "each sample, " if loop.per_sample else ""
        extents = "×".join(map(str, loop.dims)) or "1"
        names = ", ".join(
            step.op.name if isinstance(step, Apply) else f"{step.op.name} of {sum(_size(s) for s in step.segments)}"
            for step in loop.steps
        )
        stores = ", ".join(place.array.name for _, place in loop.stores)
        lines.append(f"{where}{extents}: {names} → {stores}")
    return lines


def _size(segment: Segment) -> int:
    n = 1
    for extent in segment.dims:
        n *= extent
    return n
