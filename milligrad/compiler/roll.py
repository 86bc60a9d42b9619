"""Find the loops of a graph in the order in which they were written: in parallel, nested, and in time.

A graph is a list of instructions. An instruction has a key and places: the key is what must be equal from one iteration
of a loop to the next, the op and what kind of inputs it has; the places are what may go up in equal steps. Put the
instructions onto a stack, one by one, and look at its top after each:

    - if it continues the loop below it, it is one more iteration of this loop;
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
from collections.abc import Mapping
from itertools import groupby, pairwise
from typing import Any

from milligrad import ops
from milligrad.compiler.ir import Affine, At, Back, LookedUp, Loop, Next, Operand, Rolled, Run, Statement
from milligrad.compiler.program import SHORT
from milligrad.compiler.simplify import ONE, Graph
from milligrad.engine import Op, Reduction

FURTHEST = 40  # so many places back equal blocks are looked for
NEAREST = 4  # loops below the top, of which it may be one more iteration
LONGEST = 3_000  # statements and loops in the body of a loop
SOME_RUNS = 3  # in one reduction, from which on a table tells places, if there is one at all
MANY_RUNS = 40  # so many runs in one sum are added term by term
FEW_RUNS = 8  # and so many where lengths must not matter
RUN = 4  # the fewest inputs that are a run: short accidental ones would break patterns
TRIES = 3
COMPACT = 64  # numbers computed by a statement, from which on tables would gain nothing
OFTEN, FEW = 12, 8  # see `irregular`

Places = tuple[int, ...]
Instruction = tuple[int, Places]  # (number of the key, places)


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


class _Stack:
    """The instructions so far, with the loops found in them.

    keys:   of each key its number; `key_of` is the other way round
    loops:  of the key of a loop: the keys of its body, and the steps of all their places
    """

    def __init__(self) -> None:
        self.keys: dict[Any, int] = {}
        self.key_of: list[Any] = []
        self.loops: dict[int, tuple[Places, Places]] = {}
        self.stack: list[Instruction] = []
        self.last: dict[int, list[int]] = defaultdict(list)  # where on the stack a key is
        self.places_of_loops: list[int] = []  # and where loops are

    def intern(self, key: Any) -> int:
        k = self.keys.get(key)
        if k is None:
            k = self.keys[key] = len(self.key_of)
            self.key_of.append(key)
        return k

    def put(self, key: Any, places: Places) -> None:
        """One more instruction; loops are found as far as there are any."""
        self._push(self.intern(key), places)
        while self._goes_on() or self._begins():
            pass

    def _push(self, k: int, places: Places) -> None:
        n = len(self.stack)
        self.last[k].append(n)
        if k in self.loops:
            self.places_of_loops.append(n)
        self.stack.append((k, places))

    def _replace(self, n: int, body: Places, steps: Places, places: Places) -> None:
        """The upper n instructions are a loop."""
        for _ in range(n):
            self.last[self.stack.pop()[0]].pop()
        while self.places_of_loops and self.places_of_loops[-1] >= len(self.stack):
            self.places_of_loops.pop()
        k = self.intern(("loop", body, steps))
        self.loops[k] = body, steps
        self._push(k, places)

    def _goes_on(self) -> bool:
        """Whether the top was one more iteration of a loop below it: the nearest one, or one with loops in its body."""
        stack, n = self.stack, len(self.stack)
        for at in self.places_of_loops[: -NEAREST - 1 : -1]:
            key, (count, *first) = stack[at]
            body, steps = self.loops[key]
            if len(body) != n - 1 - at or body[-1] != stack[-1][0] or tuple([k for k, _ in stack[at + 1 :]]) != body:
                continue
            if _all([p for _, places in stack[at + 1 :] for p in places], first, steps, count):
                self._replace(n - at, body, steps, (count + 1, *first))
                return True
        return False

    def _begins(self) -> bool:
        """Whether three equal blocks with equal steps lay on top."""
        stack, n, top = self.stack, len(self.stack), self.stack[-1][0]
        for at in reversed(self.last[top][-FURTHEST - 1 : -1]):
            b = n - 1 - at
            if b > LONGEST or 3 * b > n:
                return False
            if stack[n - 1 - 2 * b][0] != top:
                continue
            if b > 1 and not stack[n - 2][0] == stack[n - 2 - b][0] == stack[n - 2 - 2 * b][0]:
                continue
            if b > 2 and not stack[n - b][0] == stack[n - 2 * b][0] == stack[n - 3 * b][0]:
                continue
            x, y, z = stack[n - 3 * b : n - 2 * b], stack[n - 2 * b : n - b], stack[n - b :]
            if [k for k, _ in x] == [k for k, _ in y] == [k for k, _ in z]:
                first, second, third = ([p for _, places in block for p in places] for block in (x, y, z))
                steps = tuple([q - p for p, q in zip(first, second)])
                if _all(third, second, steps, 1):
                    self._replace(3 * b, tuple([k for k, _ in x]), steps, (3, *first))
                    return True
        return False


def _all(places: Any, first: Any, steps: Any, count: int) -> bool:
    """Whether all places are `count` steps after the first ones."""
    return all([p == q + count * s for p, q, s in zip(places, first, steps)])


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
        self.graph, self.leaves, self.tables, self.stack, self.many = graph, leaves, tables, _Stack(), many
        self.constants: list[float] = []
        self.table: list[int] = []
        self.address: dict[int, int] = {}
        self.values = 0  # how many numbers have been computed
        self.seen: dict[Any, list[Places]] = defaultdict(list)  # of each signature the places
        for i, (op, inputs) in enumerate(zip(graph.op, graph.inputs)):
            if op is not None:
                self._read(op, inputs)
                self.address[i] = self.values - 1
                if len(self.stack.stack) > 3 * most:  # of which three blocks may still become one
                    break
        self.is_whole = len(self.stack.stack) <= 3 * most
        for i in graph.outputs if self.is_whole else ():
            self._read(None, (i,))

    def _read(self, op: Op | None, inputs: Places) -> None:
        if isinstance(op, Reduction):
            self._reduction(op, inputs)
            return
        kinds, places = [], []
        for x in inputs:
            kind, place = self._where(x)
            kinds.append(kind)
            places.append(place)
        signature = op, tuple(kinds)
        self.seen[signature].append(tuple(places))
        told = []
        for j, (kind, place) in enumerate(zip(kinds, places)):
            if kind == "c":
                self.constants.append(place)
            elif (signature, j) in self.tables:
                kinds[j] = self._entry(kind, place)
            else:
                told.append(place)
        self._put((op, tuple(kinds)), tuple(told))

    def _put(self, key: Any, places: Places) -> None:
        self.stack.put(key, places)
        self.values += key[0] is not None

    def _entry(self, kind: Any, place: int) -> Any:
        """One more entry of the table."""
        if kind == "v":
            self.table.append(self.values - place)
            return "t", None
        self.table.append(place)
        return "t", kind[0]

    def _where(self, x: int) -> tuple[Any, Any]:
        """The kind of an input, and its place, or what constant it is."""
        if x in self.address:
            return "v", self.values - self.address[x]
        source = self.graph.source[x]
        if type(source) is float:
            return "c", source
        array, place = self.leaves[source]
        return (array,), place

    def _reduction(self, op: Reduction, inputs: Places) -> None:
        columns = [inputs[: len(inputs) // 2], inputs[len(inputs) // 2 :]] if op in (ops.dot, ops.chain) else [inputs]
        terms = []
        for factors in zip(*columns):
            terms.append([self._where(x) for x in factors if x != ONE] or [self._where(ONE)])
        lengths, k = [], 0
        while k < len(terms):
            lengths.append(self._run(terms, k, [kind for kind, _ in terms[k]]))
            k += lengths[-1][0]
        if self.tables and len(lengths) > SOME_RUNS:
            self._gather(op, terms)
            return
        if len(lengths) > self.many and op in (ops.dot, ops.sum, ops.chain):
            self._sum(op, columns)
            return
        runs: list[Any] = []
        told, k = [], 0
        while k < len(terms):
            kinds = [kind for kind, _ in terms[k]]
            count, steps = lengths[len(runs)]
            signature = op, tuple(kinds), len(runs), steps
            self.seen[signature].append(tuple([place for _, place in terms[k]]))
            told.append(count)
            for j, kind in enumerate(kinds):
                if kind == "c":
                    self.constants += [term[j][1] for term in terms[k : k + count]]
                elif (signature, j) in self.tables:
                    for term in terms[k : k + count]:
                        kinds[j] = self._entry(kind, term[j][1])
                else:
                    told.append(terms[k][j][1])
            runs.append((tuple(kinds), steps))
            k += count
        self._put((op, "runs", tuple(runs)), tuple(told))

    def _gather(self, op: Reduction, terms: list[list[tuple[Any, Any]]]) -> None:
        """Terms that are no runs, all of one kind told by a table: how many they are is a place then."""

        def kinds_of(term: list[tuple[Any, Any]]) -> Any:
            return tuple([kind for kind, _ in term])

        if op.symmetric and len(terms) > SHORT:
            terms.sort(key=lambda term: str(kinds_of(term)))
        runs, told = [], []
        for kinds, same in groupby(terms, kinds_of):
            group = list(same)
            told.append(len(group))
            entries = []
            for j, kind in enumerate(kinds):
                if kind == "c":
                    self.constants += [term[j][1] for term in group]
                    entries.append(kind)
                else:
                    entries += [self._entry(kind, term[j][1]) for term in group][:1]
            runs.append((tuple(entries), (0,) * len(kinds)))
        self._put((op, "runs", tuple(runs)), tuple(told))

    def _sum(self, op: Op, columns: list[Places]) -> None:
        """A sum of terms that are no runs, added one by one: what is alike in them is found as loops are."""
        for j, factors in enumerate(zip(*columns)):
            so_far = [(("v",), (0,))] if j else []
            kinds: list[Any] = []
            told = []
            for x in sorted(factors, key=lambda x: x == ONE):
                if x != ONE or not kinds:
                    kind, place = self._where(x)
                    kinds.append(kind)
                    if kind == "c":
                        self.constants.append(place)
                    else:
                        told.append(place)
            key = (*so_far, (tuple(kinds), (0,) * len(kinds)))
            places = (1, 1, 1, *told) if j else (1, *told)
            self._put((ops.chain if op is ops.chain else ops.dot, "runs", key), places)

    def _run(self, terms: Any, k: int, kinds: list[Any]) -> tuple[int, Places]:
        """How many terms from k on go on in equal steps, and which: at least RUN, or 1."""
        n, end, steps = len(terms), k + 1, None
        while end < n and [kind for kind, _ in terms[end]] == kinds:
            new = tuple([0 if kind == "c" else p - q for (kind, p), (_, q) in zip(terms[end], terms[end - 1])])
            if steps is not None and new != steps:
                break
            steps = new
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

    They are those of ops that many statements are left of, measured by how often they are computed, and whose places go
    on in many different steps: nested loops have few.
    """
    written = Counter([reader.stack.key_of[k][0] for k in reader.statements_of()])
    found = set()
    for signature, places in reader.seen.items():
        op, kinds, *_ = signature
        if len(places) >= OFTEN and written[op] > FEW and written[op] * 8 >= len(places):
            for j, kind in enumerate(kinds):
                if kind != "c" and len({y[j] - x[j] for x, y in pairwise(places)}) > FEW:
                    found.add((signature, j))
    return frozenset(found)
