"""Find the loops of a graph in the order in which they were written: in parallel, nested, and in time.

A graph is a list of instructions. An instruction has a key and places: the key is what must be equal from one iteration
of a loop to the next, the op and what kind of inputs it has; the places are what may go up in equal steps. Put the
instructions onto a stack, one by one, and look at its top after each:

    - if it continues the loop below it, it is one more iteration of this loop. What that would be is known before it
      comes: see `_expect`;
    - if three equal blocks with equal steps lie on top, they are a loop: an instruction like any other, whose key is
      its body and its steps, and whose places are how often it runs and where its first iteration is.

That is all. Loops in loops and triangular loops follow, since a loop may be part of a block, and how often it runs is a
place. (A. Ketterlin and P. Clauss, "Prediction and trace compression of data access addresses through nested loop
recognition", CGO 2008.) Whatever is found runs in the order of the graph, so that nothing has to be proved.

Where places follow no steps, as an index looked up in data does, they are put into a table, whose entries are used one
after the other, and then they are no places any more: see `irregular`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any

from milligrad import ops
from milligrad.compiler.ir import Affine, At, Back, LookedUp, Loop, Next, Operand, Rolled, Run, Statement
from milligrad.compiler.passes.simplify import ONE, Graph
from milligrad.compiler.program import SHORT
from milligrad.engine import Op, Reduction

FURTHEST = 40  # so many places back equal blocks are looked for
LONGEST = 3_000  # statements and loops in the body of a loop
SOME_RUNS = 3  # in one reduction, from which on a table tells places, if there is one at all
MANY_RUNS = 40  # so many runs in one sum are added term by term
FEW_RUNS = 8  # and so many where lengths must not matter
RUN = 4  # the fewest inputs that are a run: short accidental ones would break patterns
TRIES = 3
SUMS = (ops.sum, ops.dot, ops.chain)
PRODUCTS = (ops.dot, ops.chain)
COMPACT = 64  # numbers computed by a statement, from which on tables would gain nothing
OFTEN, FEW = 12, 8  # see `irregular`

Places = tuple[int, ...]
Instruction = tuple[int, Places]  # (number of the key, places)
NONE: Instruction = (-1, ())
NEVER: frozenset[int] = frozenset()


def roll(graph: Graph, leaves: Mapping[Any, tuple[int, int]]) -> Rolled:
    """The program of the graph; `leaves` are the array and the place in it of each leaf that is no constant."""
    program = roll_within(graph, leaves, math.inf)
    assert program is not None
    return program


def roll_evenly(graph: Graph, leaves: Mapping[Any, tuple[int, int]]) -> Rolled:
    """The same program, in which nothing depends on how long a sum is: without tables, sums of runs term by term."""
    return _Reader(graph, leaves, frozenset(), math.inf, FEW_RUNS).program()


def roll_within(graph: Graph, leaves: Mapping[Any, tuple[int, int]], most: float) -> Rolled | None:
    """The same, or None if it has more than `most` statements; then the time that it takes is limited, too."""
    tables: frozenset[Any] = frozenset()
    best: tuple[int, _Reader] | None = None
    for _ in range(TRIES):
        reader = _Reader(graph, leaves, tables, most)
        found = len(reader.statements_of())
        if reader.is_whole and found <= most and (best is None or found < best[0]):
            best = found, reader
        if found * COMPACT < reader.values:
            break
        more = irregular(reader)
        if more <= tables:
            break
        tables |= more
    return best and best[1].program()


def roll_alike(several: Sequence[tuple[Graph, Mapping[Any, tuple[int, int]]]]) -> list[Rolled]:
    """The programs of graphs that were made of more and more samples, with as many statements in each, if possible.

    What is written more often where there are more samples follows no steps: it is told by a table.
    """
    tables: frozenset[Any] = frozenset()
    while True:
        readers = [_Reader(graph, leaves, tables, math.inf) for graph, leaves in several]
        more = growing(readers)
        if more <= tables:
            return [reader.program() for reader in readers]
        tables |= more


class _Stack:
    """The instructions so far, with the loops found in them.

    keys:   of each key its number; `key_of` is the other way round
    loops:  of the key of a loop: the keys of its body, and the steps of all their places
    parts:  of the same: (key, where among the places its own start and end, their steps) of each part of the body

    The loop on top most likely goes on: `expected` is the next instruction if it does, `ahead` are those after it, and
    `pending` are those that came so far.
    """

    def __init__(self) -> None:
        self.keys: dict[Any, int] = {}
        self.key_of: list[Any] = []
        self.loops: dict[int, tuple[Places, Places]] = {}
        self.stack: list[Instruction] = []
        self.last: dict[int, list[int]] = defaultdict(list)  # where on the stack a key is
        self.parts: dict[int, list[tuple[int, int, int, Places]]] = {}
        self.ahead: Iterator[Instruction] = iter(())
        self.expected: Instruction | None = None
        self.pending: list[Instruction] = []

    def intern(self, key: Any) -> int:
        k = self.keys.get(key)
        if k is None:
            k = self.keys[key] = len(self.key_of)
            self.key_of.append(key)
        return k

    def put(self, key: Any, places: Places) -> None:
        """One more instruction; loops are found as far as there are any."""
        self._take((self.intern(key), places))

    def _take(self, instruction: Instruction) -> None:
        while self.pending and instruction != self.expected:
            self._give_up()
        if instruction != self.expected:
            self.expected = None
            self._push(*instruction)
            if self._fold():
                self._expect()
            return
        self.pending.append(instruction)
        self.expected = next(self.ahead, None)
        if self.expected is None:
            k, (count, *first) = self.stack[-1]
            self.stack[-1] = k, (count + 1, *first)
            self._fold()
            self._expect()

    def _give_up(self) -> None:
        """The iteration that was expected does not come to its end: what came of it are instructions like any other."""
        pending, self.pending, self.expected = self.pending, [], None
        for instruction in pending:
            self._take(instruction)

    def settle(self) -> None:
        """Nothing more is expected."""
        while self.pending:
            self._give_up()

    def _fold(self) -> bool:
        """Whether there was a loop to be found on top; then it may be part of another one."""
        found = False
        while self._begins():
            found = True
        return found

    def _expect(self) -> None:
        """One more iteration of the loop on top: it need not be looked for, nor do the loops in it."""
        k, (count, *first) = self.stack[-1]
        self.pending = []
        self.ahead = self._iteration(k, first, count)
        self.expected = next(self.ahead)

    def _iteration(self, k: int, first: Sequence[int], i: int) -> Iterator[Instruction]:
        """The instructions of the i-th iteration of a loop."""
        for k_of_part, start, end, steps in self.parts[k]:
            places = tuple([p + i * s for p, s in zip(first[start:end], steps)])
            if k_of_part not in self.loops:
                yield k_of_part, places
            elif places[0] < 1:
                yield NONE  # a loop runs once at least
            else:
                for j in range(places[0]):
                    yield from self._iteration(k_of_part, places[1:], j)

    def _push(self, k: int, places: Places) -> None:
        self.last[k].append(len(self.stack))
        self.stack.append((k, places))

    def _replace(self, n: int, body: Places, steps: Places, places: Places) -> None:
        """The upper n instructions are a loop."""
        k = self.intern(("loop", body, steps))
        if k not in self.loops:
            ends = [0, *accumulate([len(own) for _, own in self.stack[-len(body) :]])]
            self.loops[k] = body, steps
            self.parts[k] = [(x, a, b, steps[a:b]) for x, a, b in zip(body, ends, ends[1:])]
        for _ in range(n):
            self.last[self.stack.pop()[0]].pop()
        self._push(k, places)

    def _begins(self) -> bool:
        """Whether three equal blocks with equal steps lay on top."""
        stack, n, top = self.stack, len(self.stack), self.stack[-1][0]
        for at in reversed(self.last[top][-FURTHEST - 1 : -1]):
            b = n - 1 - at
            if b > LONGEST or 3 * b > n:
                return False
            if stack[n - 1 - 2 * b][0] != top:
                continue
            if b > 1 and not stack[n - 2][0] == stack[at - 1][0] == stack[n - 2 - 2 * b][0]:
                continue
            if not _in_step(stack[n - 1 - 2 * b][1], stack[at][1], stack[-1][1]):
                continue
            x, y, z = stack[n - 3 * b : n - 2 * b], stack[n - 2 * b : n - b], stack[n - b :]
            if [k for k, _ in x] == [k for k, _ in y] == [k for k, _ in z]:
                first, second, third = ([p for _, places in block for p in places] for block in (x, y, z))
                if _in_step(first, second, third):
                    steps = tuple([q - p for p, q in zip(first, second)])
                    self._replace(3 * b, tuple([k for k, _ in x]), steps, (3, *first))
                    return True
        return False


def _in_step(x: Sequence[int], y: Sequence[int], z: Sequence[int]) -> bool:
    """Whether these places go on in equal steps."""
    return all([c - b == b - a for a, b, c in zip(x, y, z)])


class _Reader:
    """Makes instructions of the nodes of a graph.

    A key is (op, kinds of the inputs), with kinds
        "v"         a number computed before: its place says how many numbers back
        (k,)        of the array k of the leaves: its place is that in the array
        "c"         the next constant
        ("t", k)    where the next entry of the table says: in the array k, or at an address (None)
    or for an op of many inputs (op, runs), with the kinds and the steps of each run; its places are count and place of
    each run.
    """

    def __init__(
        self, graph: Graph, leaves: Mapping[Any, tuple[int, int]], tables: frozenset[Any], most: float,
        many: int = MANY_RUNS,
    ) -> None:  # fmt: skip
        self.graph, self.leaves, self.stack, self.many = graph, leaves, _Stack(), many
        self.tables: dict[Any, set[int]] = {}
        for signature, j in tables:
            self.tables.setdefault(signature, set()).add(j)
        self.constants: list[float] = []
        self.table: list[int] = []
        self.address = [-1] * len(graph)  # of the numbers computed
        self.values = 0  # how many these are
        self.known: dict[int, tuple[Any, Any]] = {}  # of leaves what `_where` says
        self.seen: dict[Any, list[Places]] = defaultdict(list)  # of each signature the places
        for i, (op, inputs) in enumerate(zip(graph.op, graph.inputs)):
            if op is not None:
                if isinstance(op, Reduction):
                    self._reduction(op, inputs)
                else:
                    self._plain(op, inputs)
                self.address[i] = self.values - 1
                if len(self.stack.stack) > 3 * most:  # of which three blocks may still become one
                    break
        self.stack.settle()
        self.is_whole = len(self.stack.stack) <= 3 * most
        for i in graph.outputs if self.is_whole else ():
            self._plain(None, (i,))
        self.stack.settle()

    def _plain(self, op: Op | None, inputs: Places) -> None:
        """A statement of an op that takes so many inputs."""
        kinds, places = zip(*map(self._where, inputs))
        signature = op, kinds
        self.seen[signature].append(places)
        tabled = self.tables.get(signature, NEVER)
        if tabled or "c" in kinds:
            kinds, places = self._told(kinds, [places], tabled)
        self._put((op, kinds), places)

    def _told(self, kinds: Any, terms: Sequence[Any], tabled: Container[int] = NEVER) -> tuple[Any, Places]:
        """Kinds and places of terms of those kinds, without what the constants tell, and the table of the `tabled`."""
        own, told = [*kinds], []
        for j, kind in enumerate(kinds):
            if kind == "c":
                self.constants += [places[j] for places in terms]
            elif j in tabled:
                own[j] = self._entries(kind, [places[j] for places in terms])
            else:
                told.append(terms[0][j])
        return tuple(own), tuple(told)

    def _put(self, key: Any, places: Places) -> None:
        self.stack.put(key, places)
        self.values += key[0] is not None

    def _entries(self, kind: Any, places: list[int]) -> Any:
        """One more entry of the table for each of the places; it gives the kind of what stands there."""
        if kind == "v":
            self.table += [self.values - place for place in places]
            return "t", None
        self.table += places
        return "t", kind[0]

    def _where(self, x: int) -> tuple[Any, Any]:
        """The kind of an input, and its place, or what constant it is."""
        address = self.address[x]
        return ("v", self.values - address) if address >= 0 else self._leaf(x)

    def _term(self, factors: Places) -> tuple[Any, Any]:
        """(kinds, places) of the factors of a term but 1."""
        x, y = factors[0], factors[-1]
        if len(factors) == 2 and x != ONE != y:
            kinds, places = zip(self._where(x), self._where(y))
            return kinds, places
        kind, place = self._where(x if y == ONE else y)
        return (kind,), (place,)

    def _leaf(self, x: int) -> tuple[Any, Any]:
        known = self.known.get(x)
        if known is None:
            source = self.graph.source[x]
            if type(source) is float:
                known = "c", source
            else:
                array, place = self.leaves[source]
                known = (array,), place
            self.known[x] = known
        return known

    def _reduction(self, op: Reduction, inputs: Places) -> None:
        columns = [inputs[: len(inputs) // 2], inputs[len(inputs) // 2 :]] if op in PRODUCTS else [inputs]
        terms = list(map(self._term, zip(*columns)))
        lengths, k = [], 0
        while k < len(terms):
            lengths.append(self._run(terms, k))
            k += lengths[-1][0]
        if self.tables and len(lengths) > SOME_RUNS:
            self._gather(op, terms)
            return
        if len(lengths) > self.many and op in SUMS:
            self._sum(op, columns)
            return
        runs: list[Any] = []
        told: list[int] = []
        k = 0
        for count, steps in lengths:
            kinds, places = terms[k]
            signature = op, kinds, len(runs), steps
            self.seen[signature].append(places)
            tabled = self.tables.get(signature, NEVER)
            if tabled or "c" in kinds:
                kinds, places = self._told(kinds, [own for _, own in terms[k : k + count]], tabled)
            told += (count, *places)
            runs.append((kinds, steps))
            k += count
        self._put((op, "runs", tuple(runs)), tuple(told))

    def _gather(self, op: Reduction, terms: list[tuple[Any, Any]]) -> None:
        """Terms that are no runs, all of one kind told by a table: how many they are is a place then."""
        if op.symmetric and len(terms) > SHORT:
            terms.sort(key=lambda term: str(term[0]))
        runs, told = [], []
        for kinds, same in groupby(terms, lambda term: term[0]):
            group = [places for _, places in same]
            told.append(len(group))
            entries, _ = self._told(kinds, group, range(len(kinds)))
            runs.append((entries, (0,) * len(kinds)))
        self._put((op, "runs", tuple(runs)), tuple(told))

    def _sum(self, op: Op, columns: list[Places]) -> None:
        """A sum of terms that are no runs, added one by one: what is alike in them is found as loops are."""
        for j, factors in enumerate(zip(*columns)):
            so_far = [(("v",), (0,))] if j else []
            kinds, places = self._term(factors)
            kinds, places = self._told(kinds, [places])
            key = (*so_far, (kinds, (0,) * len(kinds)))
            places = (1, 1, 1, *places) if j else (1, *places)
            self._put((ops.chain if op is ops.chain else ops.dot, "runs", key), places)

    def _run(self, terms: list[tuple[Any, Any]], k: int) -> tuple[int, Places]:
        """How many terms from k on go on in equal steps, and which: at least RUN, or 1."""
        n, end, steps = len(terms), k + 1, None
        kinds, last = terms[k]
        if n - k >= RUN:
            while end < n and terms[end][0] == kinds:
                places = terms[end][1]
                new = tuple([0 if kind == "c" else p - q for kind, p, q in zip(kinds, places, last)])
                if steps is not None and new != steps:
                    break
                steps, last = new, places
                end += 1
        return (end - k, steps) if end - k >= RUN and steps is not None else (1, (0,) * len(kinds))

    # What was found.

    def statements_of(self) -> list[int]:
        """The keys of all statements of the program, as often as they are written."""
        found, todo = [], [k for k, _ in self.stack.stack]
        while todo:
            k = todo.pop()
            loop = self.stack.loops.get(k)
            if loop:
                todo += loop[0]
            else:
                found.append(k)
        return found

    def program(self) -> Rolled:
        """The instructions as loops and statements."""
        body = [self._instruction(k, list(places), []) for k, places in self.stack.stack]
        return Rolled(body, self.constants, self.table, self.values, len(self.graph.outputs))

    def _instruction(self, k: int, places: list[int], steps: list[list[int]]) -> Statement | Loop:
        """What the key k is; its places are taken from the front of `places`, and their steps from those of `steps`."""

        def place() -> Affine:
            return Affine(places.pop(0), tuple([own.pop(0) for own in steps]))

        loop = self.stack.loops.get(k)
        if loop:
            body, own = loop
            count, inner = place(), [*steps, [*own]]
            return Loop(count, [self._instruction(x, places, inner) for x in body])
        op, kinds, *rest = self.stack.key_of[k]

        def operand(kind: Any) -> Operand:
            if kind == "c":
                return Next()
            if kind == "v":
                return Back(place())
            return LookedUp(kind[1]) if kind[0] == "t" else At(kind[0], place())

        if kinds != "runs":
            return Statement(op, tuple([operand(kind) for kind in kinds]))
        runs = []
        for kinds_of_run, run_steps in rest[0]:
            count = place()
            runs.append(Run(count, tuple([operand(kind) for kind in kinds_of_run]), run_steps))
        return Statement(op, (), tuple(runs))


def irregular(reader: _Reader) -> frozenset[Any]:
    """The operands that are to be told by a table: those whose places break up loops.

    They are those of signatures that many statements are left of, measured by how often they are computed, and whose
    places go on in many different steps: nested loops have few.
    """
    written = Counter([x for k in reader.statements_of() for x in signatures(reader.stack.key_of[k])])
    found = set()
    for signature, places in reader.seen.items():
        if len(places) >= OFTEN and written[signature] > FEW and written[signature] * 16 >= len(places):
            for j, kind in enumerate(signature[1]):
                if kind != "c" and len({y[j] - x[j] for x, y in pairwise(places)}) > FEW:
                    found.add((signature, j))
    return frozenset(found)


def growing(readers: Sequence[_Reader]) -> frozenset[Any]:
    """The operands of signatures that not all of the programs have equally often, but for those in equal steps."""
    counts = [Counter([x for k in r.statements_of() for x in signatures(r.stack.key_of[k])]) for r in readers]
    found = set()
    for signature in set().union(*counts):
        if len({count[signature] for count in counts}) > 1:
            places = [reader.seen.get(signature, ()) for reader in readers]
            for j, kind in enumerate(signature[1]):
                steps = [{y[j] - x[j] for x, y in pairwise(own)} for own in places]
                if kind != "c" and (not all(places) or max(map(len, steps)) > 1):
                    found.add((signature, j))
    return frozenset(found)


def signatures(key: Any) -> list[Any]:
    """What a statement with that key was read as: of each run (op, kinds, its number, steps), or else (op, kinds)."""
    op, _, *runs = key
    return [(op, kinds, i, steps) for i, (kinds, steps) in enumerate(runs[0])] if runs else [key]
