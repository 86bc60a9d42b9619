"""One program for batches of all lengths, where the loss is no sum over the samples: a batch normalization, pairs.

Such a loss is a program for each length. But its loops are those of the user, and run over the samples: the programs of
10, 11 and 12 samples are the same but for integers (counts, addresses), and each integer is a form of the number n of
samples, at + by·n + pairs·n(n - 1)/2. That is a program for any n, or might be one: it is concluded from three lengths,
and nothing rests on that. Before it runs for n samples, the loss is traced for n, and the program is followed through
the graph of this trace, statement by statement: see `Follower`. What differs is compiled for its length.

    constants, table   what stands there for n samples is not concluded at all: it is what the graph of n says
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from milligrad.compiler.ir import Rolled
from milligrad.compiler.passes.compact import compact
from milligrad.compiler.passes.counts import QUICKLY, Form, Rewritten, WithCount, copied, forget_repetitions
from milligrad.compiler.passes.registers import (
    CONSTANTS,
    VALUES,
    Assign,
    Cell,
    For,
    Give,
    Let,
    Linear,
    Load,
    Name,
    Set,
    Source,
    Step,
    Terms,
    all_steps,
    in_registers,
    variables_for,
)
from milligrad.compiler.passes.roll import PRODUCTS, SUMS, roll_alike
from milligrad.compiler.passes.short import Unprovable
from milligrad.compiler.passes.simplify import ONE, Graph
from milligrad.compiler.program import SHORT
from milligrad.engine import Reduction

TRIED = ((10, 11, 12), (16, 17, 18))  # samples: sums of up to eight terms are other statements
MOST = 100_000  # nodes of three traces, from which on the program for one length is the better one


class OfLength(NamedTuple):
    """The graph of a batch of n samples, and its leaves: the arrays in their order, each with what stands there."""

    n: int
    graph: Graph
    leaves: Mapping[str, Sequence[Any]]

    def places(self) -> dict[Any, tuple[int, int]]:
        """Of each leaf the number of its array, and the place there."""
        return {x: (k, i) for k, xs in enumerate(self.leaves.values()) for i, x in enumerate(xs)}


@dataclass
class AnyLength:
    """The program: its steps, in which integers are forms of COUNT and PAIRS, and how large arrays are."""

    steps: list[Step]
    sizes: dict[str, Form]
    values: Form
    outputs: Form
    constants: Form
    table: Form

    def statements(self) -> int:
        """How many statements are written."""
        return len([x for x in all_steps(self.steps) if isinstance(x, (Assign, Give))])

    def loops(self) -> int:
        """How many loops are written."""
        return len([x for x in all_steps(self.steps) if isinstance(x, For)])

    def of(self, batch: OfLength) -> Rolled:
        """What it runs on for that batch. Raises Unprovable if it is not the program of its graph."""
        n = batch.n
        sizes = [int(x.of(n)) for x in (self.values, self.outputs, self.constants, self.table)]
        if {name: len(xs) for name, xs in batch.leaves.items()} != {a: f.of(n) for a, f in self.sizes.items()}:
            raise Unprovable("arrays of other sizes")
        return Follower(batch, sizes).followed(self.steps)


def for_any_length(batches: Sequence[OfLength]) -> AnyLength:
    """The program that those of all these batches are. Raises Unprovable if there is none."""
    several = roll_alike([(batch.graph, batch.places()) for batch in batches])
    made = []
    for rolled in several:
        steps = in_registers(rolled)
        forget_repetitions(steps, rolled)
        made.append((steps, rolled))
    reason = Unprovable("")
    for arrays in ((VALUES, CONSTANTS), (CONSTANTS,), ()):
        squeezed = []
        for steps, rolled in made:
            own = replace(rolled, table=[*rolled.table])
            squeezed.append((compact(copied(steps), own, QUICKLY, arrays), own))
        try:
            return _unified(batches, squeezed)
        except Unprovable as error:
            reason = error
    raise reason


def _unified(batches: Sequence[OfLength], made: Sequence[tuple[list[Step], Rolled]]) -> AnyLength:
    readings = [_reading(steps) for steps, _ in made]
    rest = readings[0][0]
    if any([own != rest for own, _, _ in readings]):
        raise Unprovable("the programs differ in more than counts and addresses", more=True)
    counts = [batch.n for batch in batches]
    sizes = [[len(xs) for xs in batch.leaves.values()] for batch in batches]
    ends = [[r.values, r.outputs, len(r.constants), len(r.table)] for _, r in made]
    rows = [[*integers, *own, *more] for (_, integers, _), own, more in zip(readings, ends, sizes)]
    forms = [_quadratic(counts, column) for column in zip(*rows, strict=True)]
    at = len(readings[0][1])
    values, outputs, constants, table = forms[at : at + 4]
    columns = iter(zip(*[floats for _, _, floats in readings], strict=True))
    varying = 0

    def constant(x: float) -> Source:
        nonlocal varying
        if len({*map(repr, next(columns))}) == 1:
            return x
        varying += 1
        return Cell(CONSTANTS, constants.linear().plus(Linear(varying - 1)))

    steps = WithCount(forms[:at], constant).steps(made[0][0])
    names = dict(zip(batches[0].leaves, forms[at + 4 :]))
    return AnyLength(steps, names, values, outputs, constants._replace(at=constants.at + varying), table)


def _reading(steps: list[Step]) -> tuple[list[Any], list[int], list[float]]:
    """(all but its integers and constants, these, those)."""
    rest: list[Any] = []
    integers: list[int] = []
    floats: list[float] = []

    def linear(x: Linear) -> Linear:
        rest.append(tuple([name for name, _ in x.terms]))
        integers.extend([x.constant, *[k for _, k in x.terms]])
        return x

    def constant(x: float) -> Source:
        rest.append("float")
        floats.append(x)
        return x

    Rewritten(linear, constant, rest.append).steps(steps)
    return rest, integers, floats


def _quadratic(counts: Sequence[int], numbers: Sequence[int]) -> Form:
    """The form of n that gives these numbers for three n in a row."""
    n, (x, y, z) = counts[0], numbers
    pairs = z - 2 * y + x
    by = y - x - pairs * n
    return Form(x - by * n - pairs * (n * (n - 1) // 2), by, pairs=pairs)


class Hole(NamedTuple):
    """A number that only the graph tells: a constant, or the entry of the table for an array."""

    array: str | int
    place: int


class Follower:
    """Follows a program through the graph of a trace.

    Both are in the order of the trace, so the k-th number that the program computes has to be the k-th node: the same
    op, of the same nodes. Then it computes the graph, whatever it was concluded from; that every loop runs, and every
    number is read where it was stored, is seen on the way. A long sum may be added up by several statements; what they
    have added so far is Part.

    A number is known as its node. Of constants and of the table's entries it is found out what they have to be.
    """

    def __init__(self, batch: OfLength, sizes: Sequence[int]) -> None:
        values, outputs, constants, table = sizes
        self.graph = graph = batch.graph
        places = batch.places()
        self.arrays: list[list[Any]] = [[None] * len(xs) for xs in batch.leaves.values()]
        self.place: dict[int, tuple[str | int, int]] = {}  # of a node, where it stands
        self.kind: dict[int, Any] = {}  # of a leaf, as `roll` tells it, by which the terms of a sum are in order
        for node, source in graph.source.items():
            if type(source) is float:
                self.kind[node] = "c"
            else:
                if source not in places:
                    raise Unprovable("a leaf that other lengths do not have")
                k, i = self.place[node] = places[source]
                self.arrays[k][i], self.kind[node] = node, (k,)
        self.memory: list[Any] = [None] * values
        self.constants: list[Any] = [None] * constants
        self.table: list[Any] = [None] * table
        self.given: list[Any] = [None] * outputs
        self.nodes = [i for i, op in enumerate(graph.op) if op is not None]
        self.at = self.part = 0  # the next node, and how many of its terms are added up already
        self.names: dict[str, Any] = {}
        self.variables = variables_for(batch.n)

    def followed(self, steps: list[Step]) -> Rolled:
        """What the program runs on."""
        self._steps(steps)
        self._demand(self.at == len(self.nodes) and not self.part and None not in self.given)
        constants = [0.0 if x is None else x for x in self.constants]
        table = [x or 0 for x in self.table]
        return Rolled([], constants, table, len(self.memory), len(self.given))

    @staticmethod
    def _demand(holds: Any) -> None:
        if not holds:
            raise Unprovable("the program of other lengths computes something else")

    def _number(self, x: Linear) -> int:
        return x.number(self.variables) if x.terms else x.constant

    def _steps(self, steps: list[Step]) -> None:
        for x in steps:
            if isinstance(x, Assign):
                self._assign(x)
            elif isinstance(x, Load):
                self.names[x.name] = self._loaded(x.source)
            elif isinstance(x, Let):
                self.variables[x.name] = self._number(x.start)
            elif isinstance(x, Set):
                self.variables[x.name] = self._number(x.to)
            elif isinstance(x, Give):
                k = self._number(x.place)
                self._demand(0 <= k < len(self.given) and self.given[k] is None)
                self.given[k] = self._same(self._read(x.source), self.graph.outputs[k])
            else:
                self._for(x)

    def _for(self, x: For) -> None:
        count = self._number(x.count)
        self._demand(count >= 1)
        self.names.update([(name, self._loaded(first)) for name, (first, _) in x.carried.items()])
        for i in range(count):
            self.variables[x.index] = i
            self._steps(x.body)
            self.names.update([(name, self.names[after]) for name, (_, after) in x.carried.items()])

    def _read(self, x: Source, more: int = 0) -> Any:
        """What the program finds there: a node, a Part, a Hole, or a float."""
        if isinstance(x, float):
            return x
        if isinstance(x, Name):
            return self.names[x.name]
        at = self._number(x.place) + more
        if not isinstance(x, Cell):
            self._demand(0 <= at < len(self.table))
            return Hole(x.array, at)
        array: Any = self.memory if x.array == VALUES else self.constants if x.array == CONSTANTS else None
        array = self.arrays[x.array] if array is None else array  # type: ignore[index]
        self._demand(0 <= at < len(array))
        if x.array == CONSTANTS:
            return Hole(CONSTANTS, at)
        self._demand(array[at] is not None)
        return array[at]

    def _loaded(self, x: Source) -> Any:
        """The same, for later: what the table tells of numbers computed is told of those computed by now."""
        found = self._read(x)
        self._demand(type(found) is not Hole or found.array != VALUES)
        return found

    def _same(self, found: Any, node: int) -> int:
        """Demand that what was found is that node."""
        if type(found) is int:
            self._demand(found == node)
        elif type(found) is float:
            self._demand(repr(self.graph.constant(node)) == repr(found))
        else:
            self._demand(type(found) is Hole)
            self._fill(found, node)
        return node

    def _fill(self, hole: Hole, node: int) -> None:
        """What has to stand there."""
        if hole.array == CONSTANTS:
            numbers, x = self.constants, self.graph.constant(node)
            self._demand(x is not None)
        else:
            array, x = self.place.get(node, ("", None))
            numbers = self.table
            self._demand(array == hole.array)
        if numbers[hole.place] is None:
            numbers[hole.place] = x
        self._demand(repr(numbers[hole.place]) == repr(x))

    def _assign(self, x: Assign) -> None:
        self._demand(self.at < len(self.nodes))
        node = self.nodes[self.at]
        op, inputs = self.graph.op[node], self.graph.inputs[node]
        self._demand(op is x.op)
        result: Any = node
        if isinstance(op, Reduction):
            result = self._reduced(x, node)
        else:
            self._demand(len(inputs) == len(x.inputs))
            for y, i in zip(x.inputs, inputs):
                self._same(self._read(y), i)
        self.at += not self.part
        self.names[x.name] = result
        if x.store is not None:
            at = self._number(x.store)
            self._demand(0 <= at < len(self.memory) and self.memory[at] is None)
            self.memory[at] = result
            if type(result) is int:
                self.place[result] = VALUES, at

    def _reduced(self, x: Assign, node: int) -> Any:
        """All terms of a node, or some of those that are left."""
        op = self.graph.op[node]
        assert isinstance(op, Reduction)
        terms, found = self._terms(op, self.graph.inputs[node]), self._found(x.terms)
        if self.part:
            self._demand(found[:1] == [(Part(node, self.part),)])
            found = found[1:]
        start, self.part = self.part, self.part + len(found)
        self._demand(self.part <= len(terms) and found)
        own = terms[start : self.part]
        if op.symmetric and len(terms) > SHORT and [*map(self._kinds, own)] != [*map(self._kinds, found)]:
            own = sorted(own, key=self._kinds)  # which is how `roll` reads what it puts into tables
        for mine, its in zip(found, own):
            self._demand(len(mine) == len(its))
            for y, i in zip(mine, its):
                self._same(y, i)
        if self.part < len(terms):
            self._demand(op in SUMS)
            return Part(node, self.part)
        self.part = 0
        return node

    def _kinds(self, term: Sequence[Any]) -> str:
        """Of each factor the array where it stands, as `roll` tells it."""
        return str(tuple([self._kind(x) for x in term]))

    def _kind(self, x: Any) -> Any:
        if type(x) is int:
            return self.kind.get(x, "v")
        if type(x) is Hole and x.array != CONSTANTS:
            return "v" if x.array == VALUES else (x.array,)
        return "c"

    @staticmethod
    def _terms(op: Reduction, inputs: Sequence[int]) -> list[tuple[int, ...]]:
        """The terms of a node of many inputs, each without a factor 1."""
        if op not in PRODUCTS:
            return [(i,) for i in inputs]
        half = len(inputs) // 2
        pairs = zip(inputs[:half], inputs[half:])
        return [(a, b) if a != ONE != b else (a if b == ONE else b,) for a, b in pairs]

    def _found(self, terms: Sequence[Terms]) -> list[tuple[Any, ...]]:
        """The terms as the program adds them up."""
        found: list[tuple[Any, ...]] = []
        for t in terms:
            n = self._number(t.length)
            self._demand(n >= 1)
            columns = [[self._read(y, k * step) for k in range(n)] for y, step in zip(t.factors, t.steps)]
            found += zip(*columns)
        return found


class Part(NamedTuple):
    """The first terms of a node, added up."""

    node: int
    terms: int
