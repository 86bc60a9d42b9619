"""The same numbers from fewer nodes.

What no output needs is left out, what is known is computed, equal subexpressions are one node, and sums whose parts
are used once, with their products, become one sum of products Σ aₖ·bₖ. Nothing changes a result by more than the
rounding of a sum in another order. It knows rules of arithmetic, no derivatives, and nothing of loops.

In a Graph, nodes are numbers, each larger than those of its inputs. A sum of products is a node of the op `dot` (of
`total`, if it adds up over samples as well), with the inputs (*a, *b); the factor of a term without one is the
constant 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from milligrad import ops
from milligrad.compiler.trace import COMPARISONS, Symbol, Tape, needed, total
from milligrad.engine import MANY, Op, Value
from milligrad.recompute import anew, given

Inputs = tuple[int, ...]
ONE, ZERO, MINUS_ONE, TWO = range(4)  # the nodes of these constants, in every graph


class Graph:
    """Nodes 0, 1, …: `op[i]` of the nodes `inputs[i]`; the op of a leaf is None.

    source:   of a leaf, what it is: a float (a constant), a Value (captured) or a Symbol (an input)
    outputs:  the nodes asked for
    exact:    whether 0 times anything is 0 in the chain rule, see `Builder`
    again:    whether numbers are computed again that could have been remembered, see recompute.py
    """

    exact: bool | str = False
    again: bool = False

    def __init__(self) -> None:
        self.op: list[Op | None] = []
        self.inputs: list[Inputs] = []
        self.source: dict[int, Any] = {}
        self.outputs: list[int] = []

    def __len__(self) -> int:
        return len(self.op)

    def constant(self, i: int) -> float | None:
        """The number of the node i if it is a constant."""
        x = self.source.get(i)
        return x if type(x) is float else None

    def captured(self) -> list[Value]:
        """The Values it was computed from, in the order in which the trace met them."""
        return [x for x in self.source.values() if isinstance(x, Value) and not x.symbolic]

    @cached_property
    def level(self) -> list[int]:
        """Of each node the level: 0 of a leaf, or 1 more than that of its deepest input. Read it at the end."""
        level: list[int] = []
        for inputs in self.inputs:
            level.append(1 + max([level[x] for x in inputs]) if inputs else 0)
        return level


# Rows that eager code may refuse to compute, for numbers that have no result or one too large for a float: compiled
# code goes on with NaN or inf, and refuses results that depend on it.
REFUSING = frozenset([
    ops.div, ops.power, ops.exponential, ops.pow, ops.exp, ops.expm1, ops.log, ops.log1p, ops.sqrt, ops.sin, ops.cos,
    ops.tan, ops.asin, ops.acos, ops.sinh, ops.cosh, ops.bce, ops.xlogy, ops.log1mexp,
])  # fmt: skip


class Builder(Graph):
    """A Graph in the making, in which no two nodes are the same.

    exact:  whether a product of the chain rule is 0 if a factor is 0 even where the other is inf or NaN. It takes time,
            so a program is only made this way once the other one has come to a result that is no number. "chain" keeps
            such sums of products as nodes of the op `chain`, for backends that have it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[Any, int] = {}
        for x in (1.0, 0.0, -1.0, 2.0):
            self.leaf(x)

    def leaf(self, x: Any) -> int:
        """The node of a float, a Value or an input Symbol."""
        key = (math.copysign(1.0, x), x if x == x else "nan") if type(x) is float else x.serial
        i = self._known.get(key)
        if i is None:
            i = self._known[key] = self._add(None, ())
            self.source[i] = x
        return i

    def node(self, op: Op, inputs: Inputs) -> int:
        """The node of `op` of `inputs`: a new one, or one that is the same number."""
        simpler = RULES.get(op)
        if simpler:
            i = simpler(self, inputs)
            if i is not None:
                return i
        key = op, inputs
        i = self._known.get(key)
        if i is None:
            i = self._known[key] = self._folded(op, inputs)
        return i

    def _folded(self, op: Op, inputs: Inputs) -> int:
        if all(map(self.source.__contains__, inputs)) and op is not total:
            xs = [self.constant(i) for i in inputs]
            if None not in xs:
                try:
                    return self.leaf(op.value(*xs))
                except (ValueError, ArithmeticError):
                    pass  # no number: left to the call, which reports it
        return self._add(op, inputs)

    def again_of(self, op: Op, x: int) -> int:
        """A node for x that is none of before; see `joined`."""
        self.again = True
        return x if self.constant(x) is not None else self._add(op, (x,))

    def _add(self, op: Op | None, inputs: Inputs) -> int:
        self.op.append(op)
        self.inputs.append(inputs)
        return len(self.op) - 1


class Reader(Builder):
    """What makes a Graph of a tape.

    A comparison would hide a NaN that should not be there: NaN < 1 is false, and what was chosen by it a number. So
    where a NaN may have arisen on the way (from a row that refuses), a comparison with NaN is NaN, and so is a choice
    by such a comparison. NaNs that were handed in are numbers like any others, as in eager code. Comparisons of the
    chain rule hide nothing if the loss is an output: what they compare is in the loss, which is NaN then, or does not
    matter.

    Few programs compare, so that nodes are asked for their doubts only then.
    """

    def __init__(self, exact: bool | str) -> None:
        super().__init__()
        self.exact = exact
        self.in_doubt: set[int] = set()  # the leaves that are
        self._doubtful = bytearray()  # of the nodes up to the last that was asked for

    def read_choice(self, op: Op, inputs: Inputs) -> int:
        """The node of `op` of `inputs`, one of `CHOICES`. (The rules make no comparisons, and no choices by them.)"""
        i, node = self.node(op, inputs), self.node
        asked = inputs[:1] if op is ops.select else inputs
        told = {x for y in asked if self.op[y] in EXTREMES for x in self.inputs[y]}  # if they are NaN, so is y
        for x in asked:
            if x not in told and self.doubtful(x):  # NaN, if that is
                i = node(ops.select, (node(ops.equal, (x, x)), i, self.leaf(math.nan)))
                self.doubtful(i)
                self._doubtful[i] = 1
        return i

    def doubtful(self, x: int) -> int:
        """Whether the node x may be a NaN that eager code would have refused."""
        doubts, ops = self._doubtful, self.op[len(self._doubtful) : x + 1]
        if 1 not in doubts and SAFE.issuperset(ops) and not self.in_doubt:
            doubts.extend(bytes(len(ops)))
        else:
            for i, (op, inputs) in enumerate(zip(ops, self.inputs[len(doubts) : x + 1]), len(doubts)):
                passed_on = op not in COMPARISONS and any([doubts[x] for x in inputs])
                doubts.append(op not in SAFE or i in self.in_doubt or passed_on)
        return doubts[x]

    def strong_product(self, x: int, y: int) -> int:
        """x · y, or 0 if one of them is 0."""
        node = self.node
        i = node(ops.mul, (x, y))
        for factor in (x, y):
            if self.constant(factor) is None or self.constant(factor) == 0.0:
                i = node(ops.select, (node(ops.equal, (factor, ZERO)), ZERO, i))
        return i


EXTREMES = (ops.max, ops.min)
CHOICES = frozenset([*COMPARISONS, ops.select])
SAFE = frozenset([*ops.TABLE.values(), total, anew, given, None]) - REFUSING  # a row of the user's own may refuse, too


# Rules: (builder, inputs) → a node that is the same number, or None.


def _add(b: Builder, xy: Inputs) -> int | None:
    x, y = xy
    if x == ZERO:
        return y
    if y == ZERO:
        return x
    return b.node(ops.add, (y, x)) if y < x else None


def _sub(b: Builder, xy: Inputs) -> int | None:
    x, y = xy
    if y == ZERO:
        return x
    return b.node(ops.neg, (y,)) if x == ZERO else None


def _mul(b: Builder, xy: Inputs) -> int | None:
    x, y = xy
    if y < x:
        return b.node(ops.mul, (y, x))
    for one, other in ((x, y), (y, x)):
        if one == ONE:
            return other
        if one == MINUS_ONE:
            return b.node(ops.neg, (other,))
    return None


def _neg(b: Builder, xs: Inputs) -> int | None:
    return b.inputs[xs[0]][0] if b.op[xs[0]] is ops.neg else None


def _div(b: Builder, xy: Inputs) -> int | None:
    return xy[0] if xy[1] == ONE else None


def _power(b: Builder, xy: Inputs) -> int | None:
    x, y = xy
    if y == ZERO:
        return ONE
    if y == ONE:
        return x
    return b.node(ops.mul, (x, x)) if y == TWO else None


def _select(b: Builder, cxy: Inputs) -> int | None:
    c, x, y = cxy
    known = b.constant(c)
    return (x if x == y else None) if known is None else x if known else y


def _products(op: Op) -> Callable[[Builder, Inputs], int | None]:
    """Σ a·b: as an addition or a product if that is all it is; with a constant as the second factor."""

    def simpler(b: Builder, xy: Inputs) -> int | None:
        n = len(xy) // 2
        if n == 1 and op is ops.dot:
            return b.node(ops.mul, xy)
        if n == 0:
            return ZERO
        if op is ops.dot and xy[n] == MINUS_ONE and set(xy[n:]) == {MINUS_ONE}:
            return b.node(ops.neg, (b.node(ops.dot, (*xy[:n], *[ONE] * n)),))
        if op is ops.dot and n == 2 and xy[2] == xy[3] == ONE:
            return b.node(ops.add, xy[:2])
        return None

    return simpler


def _chain(b: Any, xy: Inputs) -> Any:
    """What the chain rule adds up: a sum of products, in which a product with 0 is 0 if that is asked for."""
    n = len(xy) // 2
    if b.exact == "chain":
        return _products_of_doubt(b, xy)
    return b.node(ops.sum, tuple([b.strong_product(x, y) for x, y in zip(xy[:n], xy[n:])]))


def _products_of_doubt(b: Builder, xy: Inputs) -> int | None:
    """None, if there is a product with 0 that could be no number; without those that are 0 for sure."""
    n = len(xy) // 2
    pairs = [(x, y) for x, y in zip(xy[:n], xy[n:]) if b.constant(x) != 0.0 != b.constant(y)]
    xs, ys = zip(*pairs) if pairs else ((), ())
    if all([any([math.isfinite(b.constant(x) or math.inf) for x in pair]) for pair in pairs]):
        return b.node(ops.dot, (*xs, *ys))
    return b.node(ops.chain, (*xs, *ys)) if len(pairs) < n else None


def _total(b: Any, xy: Inputs) -> Any:
    n = len(xy) // 2
    if b.exact and set(xy[n:]) != {ONE}:
        return b.node(total, (*[b.strong_product(x, y) for x, y in zip(xy[:n], xy[n:])], *[ONE] * n))
    return _products(total)(b, xy)


def _sum(b: Builder, xs: Inputs) -> int | None:
    return b.node(ops.dot, (*xs, *[ONE] * len(xs)))


def _of_one(b: Builder, xs: Inputs) -> int | None:
    return xs[0] if len(xs) == 1 else None


RULES: dict[Op, Callable[[Builder, Inputs], int | None]] = {
    ops.identity: lambda b, xs: xs[0],
    ops.add: _add,
    ops.sub: _sub,
    ops.mul: _mul,
    ops.neg: _neg,
    ops.div: _div,
    ops.power: _power,
    ops.select: _select,
    ops.sum: _sum,
    ops.dot: _products(ops.dot),
    ops.chain: _chain,
    total: _total,
    ops.prod: _of_one,
    ops.max: _of_one,
    ops.min: _of_one,
    ops.logsumexp: _of_one,
    anew: lambda b, xs: b.again_of(anew, xs[0]),
    given: lambda b, xs: b.again_of(given, xs[0]),
}


def simplify(tape: Tape, outputs: Sequence[Any], exact: bool | str = False) -> Graph:
    """The graph of `outputs` (Symbols of the tape, Values or floats), simplified; for `exact` see `Builder`."""
    graph = flattened(shared(tape, outputs, exact))
    return joined(graph) if graph.again else graph


def shared(tape: Tape, outputs: Sequence[Any], exact: bool | str = False) -> Graph:
    """The nodes that the outputs need, each once, in the order in which they were traced."""
    builder = Reader(exact)
    need = needed(tape, list(outputs))
    number: list[int] = []  # of each Symbol of the tape its node
    leaf, node, choice, plain = builder.leaf, builder.node, builder.read_choice, not exact
    for z, is_needed in zip(tape, need):
        op = z.op
        if not is_needed:
            number.append(-1)
        elif op is None:
            number.append(leaf(z))
            if z.number in tape.doubtful:
                builder.in_doubt.add(number[-1])
        else:
            xs = z.x if z.y is MANY else (z.x, z.y)
            inputs = tuple([number[x.number] if type(x) is Symbol else leaf(x) for x in xs])
            if op is ops.chain and plain:
                op = ops.dot if len(inputs) > 2 else ops.mul
            number.append((choice if op in CHOICES and z.number < tape.forward else node)(op, inputs))
    builder.outputs = [number[z.number] if isinstance(z, Symbol) else leaf(z) for z in outputs]
    return builder


def uses(graph: Graph) -> list[int]:
    """How many times each node is an output, or an input of a node that is used."""
    count = [0] * len(graph)
    for i in graph.outputs:
        count[i] += 1
    for i in range(len(graph) - 1, -1, -1):
        if count[i]:
            for x in graph.inputs[i]:
                count[x] += 1
    return count


OFTEN, FEW = 12, 4  # so many terms, in more than so many different steps, follow none
SUMS = (ops.add, ops.dot)  # what becomes part of a sum that it is a term of


def flattened(graph: Graph) -> Graph:
    """The graph with sums of sums and products, where those are used once, as one sum of products; nothing unused."""
    count = uses(graph)
    part_of_a_sum = _absorbed(graph, count)
    builder = Builder()
    builder.exact = "chain" if graph.exact == "chain" else False
    number = [ONE] * len(graph)
    place = number.__getitem__
    for i in _live(graph, count, part_of_a_sum):
        op = graph.op[i]
        if op is None:
            number[i] = builder.leaf(graph.source[i])
        elif op in SUMS or op is total:
            xs, ys = _terms(graph, i, part_of_a_sum)
            sum_op = total if op is total else ops.dot
            number[i] = builder.node(sum_op, (*map(place, xs), *map(place, ys)))
        else:
            number[i] = builder.node(op, tuple(map(place, graph.inputs[i])))
    builder.outputs = [number[i] for i in graph.outputs]
    return builder


def joined(graph: Graph) -> Graph:
    """The graph without the nodes that held others apart: what they hold apart stays so.

    What a part has given is a number of its own, so that nothing else of the part has to be remembered.
    """
    new, number = Graph(), list[int]()
    new.exact, new.again = graph.exact, True
    for i, (op, inputs) in enumerate(zip(graph.op, graph.inputs)):
        if op is anew or (op is given and graph.op[inputs[0]] is None):
            number.append(number[inputs[0]])
            continue
        number.append(len(new))
        if op is None:
            new.source[len(new)] = graph.source[i]
        new.op.append(ops.identity if op is given else op)
        new.inputs.append(tuple([number[x] for x in inputs]))
    new.outputs = [number[i] for i in graph.outputs]
    return new


def _live(graph: Graph, count: list[int], part_of_a_sum: bytearray) -> Iterable[int]:
    """The nodes that remain, inputs first."""
    return [i for i in range(len(graph)) if count[i] and not part_of_a_sum[i]]


def _pairs(graph: Graph, i: int) -> tuple[Inputs, Inputs]:
    """The terms of a sum: first factors, second factors."""
    inputs = graph.inputs[i]
    if graph.op[i] is ops.add:
        return inputs, (ONE,) * len(inputs)
    n = len(inputs) // 2
    return inputs[:n], inputs[n:]


def _absorbed(graph: Graph, count: list[int]) -> bytearray:
    """The sums and products that are used once, as a term of a sum."""
    absorbed = bytearray(len(graph))
    others: dict[Any, int] = defaultdict(int)  # terms of additions that are used more than once
    op = graph.op
    for i in range(len(graph)):
        if count[i] and (op[i] in SUMS or op[i] is total):
            for x, y in zip(*_pairs(graph, i)):
                term = x if y == ONE else y if x == ONE else ONE
                if op[term] in SUMS or op[term] is ops.mul:
                    if count[term] == 1:
                        absorbed[term] = 1
                    elif op[i] is ops.add:
                        others[_likeness(graph, i, term)] += 1
    if any([n >= OFTEN for n in others.values()]):
        _stay(graph, count, absorbed, {likeness for likeness, n in others.items() if n >= OFTEN})
    return absorbed


def _stay(graph: Graph, count: list[int], absorbed: bytearray, mixed: set[Any]) -> None:
    """Let all terms that are alike stay what they are where those that have to follow no steps.

    The likelihood of labels uses the scores of the true ones once more: sums of other lengths in every iteration would
    be no loop.
    """
    alike: dict[Any, list[int]] = {likeness: [] for likeness in mixed}
    for i, op in enumerate(graph.op):
        if op is ops.add and count[i]:
            for x in graph.inputs[i]:
                likeness = _likeness(graph, i, x)
                if likeness in mixed:
                    alike[likeness].append(x)
    for terms in alike.values():
        stay = [k for k, x in enumerate(terms) if not absorbed[x]]
        if len({b - a for a, b in pairwise(stay)}) > FEW:
            for x in terms:
                absorbed[x] = 0


def _likeness(graph: Graph, i: int, x: int) -> Any:
    """What is equal for terms x of additions i that are alike: the ops of both, and of what goes into them."""
    op, inputs = graph.op, graph.inputs
    return op[x], len(inputs[x]), *[op[z] for z in inputs[x][:2]], *[op[z] for z in inputs[i]]


def _rank(graph: Graph, x: int, absorbed: bytearray) -> int:
    """Of two that are added, a sum comes first, since c + (a + b) is a + b + c; a product last, among its like."""
    return 1 if not absorbed[x] else 0 if graph.op[x] in SUMS else 2


def _terms(graph: Graph, i: int, absorbed: bytearray) -> tuple[Sequence[int], Sequence[int]]:
    """All terms of the sum i, those of the sums within it included, in order."""
    firsts, seconds = _pairs(graph, i)
    if ONE not in firsts and not any(map(absorbed.__getitem__, firsts)):
        return firsts, seconds
    xs: list[int] = []
    ys: list[int] = []
    stack = [(i, ONE)]
    while stack:
        x, y = stack.pop()
        if y == ONE and (x == i or absorbed[x]):
            if graph.op[x] is ops.mul:
                a, b = graph.inputs[x]
                xs.append(a)
                ys.append(b)
            else:
                pairs = [(b, ONE) if a == ONE else (a, b) for a, b in zip(*_pairs(graph, x))]
                first, *_, last = [_rank(graph, a, absorbed) for a, _ in pairs] if graph.op[x] is ops.add else (0, 0)
                if first <= last:
                    pairs.reverse()
                stack.extend(pairs)
        else:
            xs.append(x)
            ys.append(y)
    return xs, ys
