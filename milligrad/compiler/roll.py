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

from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from milligrad import ops
from milligrad.compiler.ir import Affine, At, Back, LookedUp, Loop, Next, Operand, Rolled, Run, Statement
from milligrad.compiler.simplify import ONE, Graph
from milligrad.engine import Op, Reduction

FURTHEST = 40  # so many places back equal blocks are looked for
LONGEST = 3_000  # statements and loops in the body of a loop
MANY_RUNS = 6  # so many runs in one sum are added term by term
RUN = 4  # the fewest inputs that are a run: short accidental ones would break patterns
TRIES = 3

Places = tuple[int, ...]
Instruction = tuple[int, Places]  # (number of the key, places)


def roll(graph: Graph, leaves: Mapping[Any, tuple[int, int]]) -> Rolled:
    """The program of the graph; `leaves` are the array and the place in it of each leaf that is no constant."""
    tables: frozenset[Any] = frozenset()
    best = None
    for _ in range(TRIES):
        stack = _Stack()
        reader = _Reader(graph, leaves, tables, stack)
        found = len(reader.statements_of())
        if best is None or found < best[0]:
            best = found, reader
        more = irregular(reader)
        if more <= tables:
            break
        tables |= more
    assert best is not None
    return best[1].program()


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
        self.last[k].append(len(self.stack))
        self.stack.append((k, places))

    def _replace(self, n: int, body: Places, steps: Places, places: Places) -> None:
        """The upper n instructions are a loop."""
        for _ in range(n):
            self.last[self.stack.pop()[0]].pop()
        k = self.intern(("loop", body, steps))
        self.loops[k] = body, steps
        self._push(k, places)

    def _goes_on(self) -> bool:
        """Whether the top was one more iteration of the nearest loop below it."""
        stack, n = self.stack, len(self.stack)
        for b in range(1, min(LONGEST, n - 1) + 1):
            loop = self.loops.get(stack[n - 1 - b][0])
            if loop is None:
                continue
            body, steps = loop
            if len(body) == b and body[-1] == stack[-1][0] and tuple([k for k, _ in stack[n - b :]]) == body:
                count, *first = stack[n - 1 - b][1]
                if _all([p for _, places in stack[n - b :] for p in places], first, steps, count):
                    self._replace(b + 1, body, steps, (count + 1, *first))
                    return True
            return False
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

    def __init__(self, graph: Graph, leaves: Mapping[Any, tuple[int, int]], tables: frozenset[Any], to: _Stack) -> None:
        self.graph, self.leaves, self.tables, self.stack = graph, leaves, tables, to
        self.constants: list[float] = []
        self.table: list[int] = []
        self.address: dict[int, int] = {}
        self.values = 0  # how many numbers have been computed
        self.seen: dict[Any, list[Places]] = defaultdict(list)  # of each signature the places
        for i, (op, inputs) in enumerate(zip(graph.op, graph.inputs)):
            if op is not None:
                self._read(op, inputs)
                self.address[i] = self.values - 1
        for i in graph.outputs:
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

    def _reduction(self, op: Op, inputs: Places) -> None:
        columns = [inputs[: len(inputs) // 2], inputs[len(inputs) // 2 :]] if op in (ops.dot, ops.chain) else [inputs]
        terms = []
        for factors in zip(*columns):
            if len(factors) == 2 and factors[0] == ONE:
                factors = factors[::-1]
            terms.append([self._where(x) for x in factors if x != ONE] or [self._where(ONE)])
        lengths, k = [], 0
        while k < len(terms):
            lengths.append(self._run(terms, k, [kind for kind, _ in terms[k]]))
            k += lengths[-1][0]
        if len(lengths) > MANY_RUNS and op in (ops.dot, ops.sum, ops.chain):
            self._sum(op, columns)
            return
        runs: list[Any] = []
        told, k = [], 0
        while k < len(terms):
            kinds = [kind for kind, _ in terms[k]]
            count, steps = lengths[len(runs)]
            signature = op, len(runs), tuple(kinds), steps
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

    That is so where many statements are left of one signature, and its places go on in many different steps.
    """
    written: dict[Any, int] = defaultdict(int)
    for k in reader.statements_of():
        written[_signature(reader.stack.key_of[k])] += 1
    found = set()
    for signature, places in reader.seen.items():
        n = len(places)
        if n < 12:
            continue
        many = written[_signature_of_seen(signature)]
        if many <= 6 or many * 8 < n:
            continue
        kinds = signature[2] if len(signature) == 4 else signature[1]
        for j, kind in enumerate(kinds):
            if kind != "c" and len({y[j] - x[j] for x, y in pairwise(places)}) > 8:
                found.add((signature, j))
    return frozenset(found)


def _signature(key: Any) -> Any:
    return key[0]


def _signature_of_seen(signature: Any) -> Any:
    return signature[0]
