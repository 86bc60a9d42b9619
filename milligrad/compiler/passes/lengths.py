"""One program for batches of all lengths, where the loss is no sum over the samples: a batch normalization, pairs.

Such a loss is a program for each length. But its loops are those of the user, and run over the samples: the programs of
10, 11 and 12 samples are the same but for integers (counts, addresses), and each integer is a form of the number n of
samples, at + by·n + pairs·n(n - 1)/2. That is a program for any n, or might be one: it is concluded from three lengths,
and nothing rests on that. Before it runs for n samples, the loss is traced for n, and the program is followed through
the graph of this trace, statement by statement: see `Follower`. What differs is compiled for its length.

    constants, table   what stands there for n samples is not concluded at all: it is what the graph of n says
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

from milligrad.compiler.ir import Rolled
from milligrad.compiler.passes.compact import compact
from milligrad.compiler.passes.counts import (
    QUICKLY,
    Form,
    Rewritten,
    WithCount,
    addresses_of,
    copied,
    ends_of,
    forget_repetitions,
)
from milligrad.compiler.passes.registers import (
    CONSTANTS,
    COUNT,
    PAIRS,
    VALUES,
    Assign,
    Cell,
    Entry,
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
from milligrad.engine import Reduction

OWN = 2  # lengths that have programs of their own: most trainings meet a size, and that of the last batch of an epoch
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

    def has_fixed_constants(self) -> bool:
        """Whether there are equally many for each length, and no table."""
        return self.table == Form(0, 0) and not self.constants.by and not self.constants.pairs

    def runs_for(self, n: int) -> bool:
        """Whether it is sure that every loop runs for n samples, and all addresses are within their arrays."""
        limits: dict[Any, int] = {k: int(form.of(n)) for k, form in enumerate(self.sizes.values())}
        limits |= {VALUES: int(self.values.of(n)), CONSTANTS: int(self.constants.of(n))}

        def within(place: Linear, last: dict[str, Linear | None], least: int, most: float) -> bool:
            ends = ends_of(place, last, n)
            return ends is not None and least <= ends[0] <= ends[1] < most

        def walk(steps: list[Step], last: dict[str, Linear | None]) -> bool:
            for x in steps:
                if not all([within(place, last, 0, limits[of]) for place, of in addresses_of(x)]):
                    return False
                if isinstance(x, Give) and not within(x.place, last, 0, self.outputs.of(n)):
                    return False
                if isinstance(x, Assign) and not all([within(t.length, last, 1, math.inf) for t in x.terms]):
                    return False
                if isinstance(x, For):
                    inner = {**last, x.index: x.count.plus(Linear(-1))}
                    if not (is_told(x.count) and within(x.count, last, 1, math.inf) and walk(x.body, inner)):
                        return False
            return True

        return walk(self.steps, {})

    def with_constants(self, n: int, constants: Sequence[float]) -> Rolled:
        """What it runs on for n samples, if that is known."""
        return Rolled([], [*constants], [], int(self.values.of(n)), int(self.outputs.of(n)))

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


def is_told(x: Linear) -> bool:
    """Whether it is a number that n alone tells."""
    return {name for name, _ in x.terms} <= {COUNT, PAIRS}


class Product(NamedTuple):
    """A constant: a factor times powers of others, which are (which, exponent)."""

    factor: float
    powers: tuple[tuple[int, int], ...]

    def of(self, others: Sequence[float]) -> float:
        return self.factor * math.prod([others[k] ** e for k, e in self.powers])


def products(constants: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> list[Product]:
    """The constants of a gradient by those of its loss, both given for a few lengths. Raises Unprovable for others."""
    singles = [((k, e),) for k in range(len(others[0])) for e in (1, -1)]
    powers = [(), *singles, *[(*a, *b) for a, b in combinations_with_replacement(singles, 2)]]
    return [_product(column, powers, others) for column in zip(*constants, strict=True)]


def _product(numbers: Sequence[float], powers: Sequence[Any], others: Sequence[Sequence[float]]) -> Product:
    for each in powers:
        if all([row[k] for row in others for k, _ in each]):
            found = Product(1.0, each)
            factor = numbers[0] / found.of(others[0])
            if all([abs(factor * found.of(row) - x) <= 1e-15 * abs(x) for x, row in zip(numbers, others)]):
                return Product(factor, each)
    raise Unprovable("a constant that those of the loss do not tell")


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
        for node, source in graph.source.items():
            if type(source) is not float:
                if source not in places:
                    raise Unprovable("a leaf that other lengths do not have")
                k, i = self.place[node] = places[source]
                self.arrays[k][i] = node
        self.memory: list[Any] = [None] * values
        self.constants: list[Any] = [None] * constants
        self.table: list[Any] = [None] * table
        self.given: list[Any] = [None] * outputs
        self.nodes = [i for i, op in enumerate(graph.op) if op is not None]
        self.at = self.part = 0  # the next node, and how many of its terms are added up already
        self.terms: dict[int, list[tuple[int, ...]]] = {}
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
        n, variables = x.constant, self.variables
        for name, k in x.terms:
            n += k * variables[name]
        return n

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

    def _read(self, x: Source) -> Any:
        """What the program finds there: a node, a Part, a Hole, or a float."""
        if type(x) is Name:
            return self.names[x.name]
        return self._run(x, 1, 0)[0]

    def _run(self, x: Source, n: int, step: int) -> Sequence[Any]:
        """What it finds in a run of n numbers, in steps."""
        if type(x) is float:
            return [x] * n
        if type(x) is Name:
            return [self.names[x.name]] * n
        assert isinstance(x, (Cell, Entry))
        at = self._number(x.place)
        places = range(at, at + n * step, step) if step else [at] * n
        array = self.array_of(x)
        self._demand(min(at, places[-1]) >= 0 and max(at, places[-1]) < len(array))
        if type(x) is Entry or x.array == CONSTANTS:
            return [Hole(x.array, k) for k in places]
        return [array[k] for k in places]

    def array_of(self, x: Cell | Entry) -> list[Any]:
        """What a cell or an entry is looked up in."""
        if type(x) is Entry:
            return self.table
        if type(x.array) is int:
            return self.arrays[x.array]
        return self.memory if x.array == VALUES else self.constants

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
            result = self._reduced(x, op, node)
        else:
            self._are(tuple(map(self._read, x.inputs)), inputs)
        self.at += not self.part
        self.names[x.name] = result
        if x.store is not None:
            at = self._number(x.store)
            self._demand(0 <= at < len(self.memory) and self.memory[at] is None)
            self.memory[at] = result
            if type(result) is int:
                self.place[result] = VALUES, at

    def _are(self, found: tuple[Any, ...], nodes: tuple[int, ...]) -> None:
        """Demand that what was found are those nodes."""
        if found != nodes or float in map(type, found):
            self._demand(len(found) == len(nodes))
            for x, node in zip(found, nodes):
                self._same(x, node)

    def _reduced(self, x: Assign, op: Reduction, node: int) -> Any:
        """All terms of a node, or some of those that are left."""
        terms = self.terms.get(node) or self.terms.setdefault(node, self._terms(op, self.graph.inputs[node]))
        found = self._found(x.terms)
        if self.part:
            self._demand(found[:1] == [(Part(node, self.part),)])
            found = found[1:]
        start, self.part = self.part, self.part + len(found)
        self._demand(self.part <= len(terms) and found)
        own = terms[start : self.part]
        if own != found:
            for mine, its in zip(found, own):
                self._are(mine, its)
        if self.part < len(terms):
            self._demand(op in SUMS)
            return Part(node, self.part)
        self.part = 0
        return node

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
            found += zip(*[self._run(y, n, step) for y, step in zip(t.factors, t.steps)])
        return found


class Part(NamedTuple):
    """The first terms of a node, added up."""

    node: int
    terms: int
