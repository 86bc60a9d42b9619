"""A `scan` of a few steps in the place of a long one, while a function is traced: what it sees, and what is found out.

The function gets lists that tell the true length, of which only a few entries are there: the first, some in the middle,
the last. A scan over them, or of as many steps, runs as often as there are entries. What a trace of so few steps shows
of all of them, counts.py tells. Here it is seen to that a step is the same wherever it stands: plain numbers that a
scan starts from or runs over are inputs, so that none of them is computed with in the trace, and what goes from step to
step, but for the numbers, has to be the same in the middle.

    T, length   how many steps a scan has
    n, count    how many of them are traced
    near        of a length: within a few of T, as that of xs[1:] is. It is cut by as many steps
    told        the length that the traced code sees: the true one
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dis import opname
from itertools import islice, pairwise
from typing import Any

from milligrad import ops, places
from milligrad.compiler.structure import SEQUENCES, Structure, nested, record, size, structure
from milligrad.compiler.trace import Symbol, Trace
from milligrad.engine import Value
from milligrad.scan import columns, form, in_parts, numbers_of, rows, stacked, steps, with_columns, with_numbers

LONG = 64  # steps, up to which a scan is a plain loop
PLAIN = 500  # steps, up to which one of another length is a plain loop within each trace
NEAR = 5  # so much shorter or longer are lists that take part
REPEATED = 3  # steps in the middle that have to be the same


class LongScan(BaseException):
    """A scan of so many steps was met. It ends the trace, and no `except Exception` of the traced code is meant."""

    def __init__(self, length: int) -> None:
        self.length = length


class Unprovable(BaseException):
    """Why a program of few steps does not show what one of all steps is.

    more:  whether one of more steps may
    near:  whether one may in which lists of nearly as many entries are cut, too
    """

    def __init__(self, reason: str, more: bool = False, near: bool = False) -> None:
        super().__init__(reason)
        self.more, self.near = more, near


class Watch:
    """What looks out for long scans in a trace of all steps."""

    def are_of(self, length: int, xs: Any) -> bool:
        if length > LONG:
            raise LongScan(length)
        return False

    def derived(self, derivatives: Iterable[tuple[Value, Any]]) -> None:
        """Of no interest."""


class Cut:
    """A list of `told` entries of which `items` stand for all: the first ones, some in the middle, the last ones.

    Asked for its length it tells the true one. Its entries are found near its ends alone. milligrad's own functions run
    over its items, since they treat all alike; other code might not, so that nothing but Python's `sum` may. It passes
    for a list; what it does not know of lists is an error, and then the function is compiled for its length.
    """

    __class__ = property(lambda self: list)
    stands_for_more = True  # which `elementwise` asks

    def __init__(self, items: Sequence[Any], told: int) -> None:
        self.items, self.told = items, told

    def __len__(self) -> int:
        return self.told

    def like(self, items: list[Any]) -> Cut:
        """A list of as many entries."""
        return Cut(items, self.told)

    def __getitem__(self, i: Any) -> Any:
        if not isinstance(i, slice):
            at = range(self.told)[i]  # or an IndexError
            return self.items[self._place(at)]
        if i.step not in (None, 1, -1):
            raise Unprovable("a slice of what a scan runs over, in steps")
        chosen = range(self.told)[i]
        items = [self.items[k] for k in self._places(chosen)]
        whole = len(items) == len(chosen)
        return items if whole else Cut(items, len(chosen))

    def _place(self, at: int) -> int:
        n, half = len(self.items), len(self.items) // 2
        if at >= half and self.told - at > half:
            raise Unprovable("an entry in the middle of what a scan runs over", more=True)
        return at if at < half else n - (self.told - at)

    def _places(self, chosen: range) -> range:
        if not chosen:
            return range(0)
        first, last = self._place(chosen[0]), self._place(chosen[-1])
        return range(first, last + chosen.step, chosen.step)

    def __iter__(self) -> Iterator[Any]:
        ours = places.is_ours(sys._getframe(1).f_code.co_filename)
        return iter(self.items) if ours else self._added_up()

    def _added_up(self) -> Iterator[Any]:
        """The items, for a call that adds them up, one after the other, and does nothing else."""
        total = None
        for x in self.items:
            frame = sys._getframe(1)
            if "CALL" not in opname[frame.f_code.co_code[frame.f_lasti]] or type(x) is not Symbol:
                break
            at = len(x.tape)
            yield x
            made = x.tape[at:]
            if len(made) != 1 or not _is_sum(made[0], x, total):
                break
            [total] = made
        else:
            return
        raise Unprovable("a loop over what a scan runs over, or gave, outside of it")


def _is_sum(z: Symbol, x: Symbol, y: Symbol | None) -> bool:
    """Whether z is the sum of x and y, or of x and anything if y is None."""
    return z.op is ops.add and (z.x is x or z.y is x) and (y is None or z.x is y or z.y is y)


class Short:
    """A trace of n steps for T, and what it finds out.

    lie:    what is added to each length that is told: to see whether the code depends on it
    every:  n and T leave the same rest when divided by it, as where three steps in a row are found to be one iteration;
            the variable of the program is n // every
    known:  the Symbols of plain numbers that scans start from, or run over: they are inputs here, so that a step is the
            same wherever it stands; `chunks` are these numbers for all T steps
    near:   how much shorter or longer lists are that are cut, too
    parts:  whether scans with checkpoints run in parts, of `every` steps. That steps are alike is seen where they do
            not
    depth:  how many steps a number of the carry is handed on as it is, at most
    checkpoints:  how many steps the parts of the scans have, if there are any
    """

    def __init__(
        self, length: int, count: int, every: int = 1, near: int = 0, lie: int = 0, parts: bool = False
    ) -> None:
        self.length, self.count, self.every, self.near, self.lie, self.parts = length, count, every, near, lie, parts
        self.checkpoints: set[int] = set()
        self.known: list[Symbol] = []
        self.chunks: list[Sequence[Any]] = []
        self.scans: list[_States] = []
        self.derivatives: list[list[tuple[int, Any]]] = []
        self.depth = 0
        self._within = False  # a scan
        self._trace: Trace | None = None

    def variable(self, steps: int) -> int:
        """The variable of the program for so many steps."""
        return steps // self.every

    # Of arguments.

    def is_near(self, length: int) -> bool:
        return length > LONG and abs(length - self.length) <= self.near

    def cut(self, length: int) -> int:
        """How many entries stand for so many."""
        return self.count + length - self.length

    def shortened(self, s: Structure) -> Structure:
        """The structure of the arguments, with lists of the scan's length cut."""
        if s.kind == "numbers":
            return Structure("numbers", self.cut(s.parts), self.cut(s.parts)) if self.is_near(s.parts) else s
        if s.kind == "dict":
            parts = [self.shortened(part) for part in s.parts[1]]
            return Structure("dict", (s.parts[0], parts), ("dict", tuple(s.parts[0]), tuple([p.key for p in parts])))
        if s.kind not in SEQUENCES:
            return s
        some = s.parts
        if s.kind == "list" and self.is_near(len(some)):
            if len({part.key for part in some}) > 1:
                raise Unprovable("the entries of a list that a scan may run over are nested differently")
            some = some[: self.cut(len(some))]
        parts = [self.shortened(part) for part in some]
        return Structure(s.kind, parts, (s.kind, tuple([p.key for p in parts]), *s.key[2:]))

    def first(self, s: Structure, given: Sequence[Any], at: int = 0) -> list[Any]:
        """The numbers that stand for all."""
        if s.kind == "numbers":
            return self._some(given[at : at + s.parts], s.parts, 1)
        if s.kind == "list" and self.is_near(len(s.parts)):
            width = size(s.parts[0])
            self._some(given[at : at + width * len(s.parts)], len(s.parts), width)
        parts = s.parts[1] if s.kind == "dict" else s.parts if s.kind in SEQUENCES else ()
        if s.kind == "list" and self.is_near(len(parts)):
            parts = parts[: self.cut(len(parts))]
        if s.kind == "number":
            return [given[at]]
        found = []
        for part in parts:
            found += self.first(part, given, at)
            at += size(part)
        return found

    def _some(self, given: Sequence[Any], length: int, width: int) -> list[Any]:
        if not self.is_near(length):
            return [*given]
        learning = [isinstance(x, Value) and x.requires_grad for x in given]
        if any(learning) and not all(learning):
            raise Unprovable("some of the numbers that a scan may run over are Values that learn, and others are not")
        return [*given[: self.cut(length) * width]]

    def nested(self, s: Structure, symbols: Iterator[Any]) -> Any:
        """The arguments as the function gets them."""
        if s.kind == "numbers" and self.is_near(s.parts):
            return Cut(list(islice(symbols, self.cut(s.parts))), s.parts + self.lie)
        if s.kind == "list":
            near = self.is_near(len(s.parts))
            some = s.parts[: self.cut(len(s.parts))] if near else s.parts
            items = [self.nested(part, symbols) for part in some]
            return Cut(items, len(s.parts) + self.lie) if near else items
        if s.kind == "tuple":
            return tuple([self.nested(part, symbols) for part in s.parts])
        if s.kind == "dict":
            return {key: self.nested(part, symbols) for key, part in zip(*s.parts)}
        if s.kind == "record":
            return record(s.key[-1], self.nested(s.parts[0], symbols))
        return nested(s, symbols)

    # Of scans.

    def are_of(self, length: int, xs: Any) -> bool:
        """Whether a scan of that length is to be cut."""
        length = self._true(length, xs)
        if length > self.length + self.near:
            raise LongScan(length)
        if self.is_near(length):
            return True
        if self._is_over_cut(xs):
            raise Unprovable("a scan over a part of what a scan runs over", near=True)
        if length > PLAIN:
            raise Unprovable("long scans of several lengths")
        return False

    @staticmethod
    def _is_over_cut(xs: Any) -> bool:
        return any([type(column) is Cut for _, column in columns(xs, "xs")])

    def _true(self, length: int, xs: Any) -> int:
        """The length of a scan, without the lie where that was told."""
        return length - self.lie if self._is_over_cut(xs) else length

    def begin(self, trace: Trace) -> None:
        """The trace begins."""
        self._trace = trace

    def scan(self, f: Any, carry: Any, xs: Any, length: int, checkpoint: int | None) -> tuple[Any, Any]:
        """`milligrad.scan` of n steps, which have to be alike."""
        if self._within:
            raise Unprovable("a scan in a scan of as many steps")
        n = self.cut(self._true(length, xs))
        carry = with_numbers(self._run_time, carry)
        own = list(rows(with_columns(lambda xs: self._column(xs, n), xs), n))
        assert self._trace is not None
        if checkpoint:
            self.checkpoints.add(checkpoint)
        if checkpoint and self.parts:
            last, ys = in_parts(f, carry, own, checkpoint)
            return last, stacked(ys, lambda column: Cut(column, length))
        states = _States(self._trace.tape, own)
        ys = []
        self._within = True
        for x in states.watch(own):
            [(carry, y)] = steps(f, carry, [x])
            states.add(carry)
            ys.append(y)
        self._within = False
        states.starts.append(len(states.tape))
        self.scans.append(states)
        self.depth = max(self.depth, states.depth())
        forms = [form(y, "y") for y in ys]
        if forms.count(forms[0]) < n:
            raise Unprovable("ys that are nested differently")
        return carry, stacked(ys, lambda column: Cut(column, length))

    def derived(self, derivatives: Iterable[tuple[Value, Any]]) -> None:
        """The chain rule made these: (of what, which)."""
        self.derivatives.append([(z.number, g) for z, g in derivatives if type(z) is Symbol])

    def check(self, need: bytearray) -> None:
        """Raise Unprovable if the outputs do not depend in the same way on each of the steps in the middle.

        A number may go through a chain of others, from step to step, before it comes to something else: a delay, a wave
        on a grid, and their derivatives. A few steps do not show where such a chain ends. So for all that a step
        computes, and all derivatives by it, this compares whether they are there, and whether an output needs them.
        """
        label: dict[int, tuple[int, int, Any]] = {}  # of a Symbol's number: (scan, step, what it is in the step)
        found: dict[tuple[int, Any], dict[int, Any]] = {}  # (scan, what) → step → whether it is needed
        for s, states in enumerate(self.scans):
            for symbol, (i, j) in states.row_of.values():
                found.setdefault((s, ("x", j)), {})[i] = type(symbol) is Symbol and need[symbol.number]
                if type(symbol) is Symbol:
                    label.setdefault(symbol.number, (s, i, ("x", j)))
            for i, (start, stop) in enumerate(pairwise(states.starts)):
                for number in range(start, stop):
                    label[number] = s, i, number - start
                    found.setdefault((s, number - start), {})[i] = need[number]
        for k, derivatives in enumerate(self.derivatives):
            for number, g in derivatives:
                if number in label:
                    s, i, what = label[number]
                    known = type(g) is Symbol
                    found.setdefault((s, (k, what)), {})[i] = need[g.number] if known else repr(g)
                    if known:
                        label.setdefault(g.number, (s, i, (k, what)))
        for (s, _), of_step in found.items():
            if len({of_step.get(i) for i in self.scans[s].middle(self.depth)}) > 1:
                raise Unprovable("the outputs do not depend on all steps in the same way", more=True)

    def _run_time(self, x: Any) -> Any:
        """A number that a scan starts from; a plain one as an input."""
        return x if isinstance(x, Value) else self._inputs([float(x)], 1)[0]

    def _inputs(self, numbers: Sequence[Any], n: int) -> list[Symbol]:
        assert self._trace is not None
        made = [Symbol(self._trace.tape) for _ in range(n)]
        self.known += made
        self.chunks.append(numbers)
        return made

    def _column(self, xs: Any, n: int) -> list[Any]:
        """The entries of the first n steps; plain numbers, and Values that are constants, as inputs."""
        if isinstance(xs, Cut):
            return [*xs.items]
        numbers: list[Any] = []
        s = structure(xs, numbers)
        width = 1
        if s.kind != "numbers":
            if len({part.key for part in s.parts}) > 1:
                raise Unprovable("xs whose entries are nested differently")
            width = size(s.parts[0])
        if {*map(type, numbers)} != {float} and any([_learns(x) for x in numbers]):
            raise Unprovable("a list of Values that learn, or were computed, as xs", near=True)
        symbols = iter(self._inputs(numbers, n * width))
        return [with_numbers(lambda x: next(symbols), x) for x in islice(rows(xs, len(xs)), n)]


class _States:
    """What a step of a scan gets, but for the numbers: what it records can depend on nothing else.

    If two steps in a row get the same, and f does the same for the same, all that follow get the same, too.
    """

    def __init__(self, tape: Any, rows: list[Any]) -> None:
        self.tape, self.rows = tape, rows
        self.starts: list[int] = []
        self.states: list[Any] = []
        self.row_of: dict[int, tuple[Any, tuple[int, int]]] = {}  # of an id: what it is of, its step and place there
        self.ages = [0]
        for i, x in enumerate(rows):
            for j, symbol in enumerate(numbers_of(x)):
                self.row_of[id(symbol)] = symbol, (i, j)

    def watch(self, rows: list[Any]) -> Iterator[Any]:
        for x in rows:
            self.starts.append(len(self.tape))
            yield x

    def add(self, carry: Any) -> None:
        """The carry after the step that was begun last."""
        row = self.rows[len(self.starts) - 1]
        self.states.append(([self._kind(x) for x in numbers_of(carry)], [self._of_row(x) for x in numbers_of(row)]))

    def _kind(self, x: Any) -> Any:
        now = len(self.starts) - 1
        if id(x) in self.row_of:
            _, (i, j) = self.row_of[id(x)]
            self.ages.append(now - i)
            return "x", now - i, j, self._of_row(x)
        if type(x) is not Symbol:
            return ("value", id(x)) if isinstance(x, Value) else repr(x)
        step = bisect_right(self.starts, x.number) - 1
        if step < 0:
            return "before", x.number
        self.ages.append(now - step)
        return now - step, x.number - self.starts[step], x.requires_grad

    @staticmethod
    def _of_row(x: Any) -> Any:
        return x.requires_grad if type(x) is Symbol else ("value", id(x)) if isinstance(x, Value) else repr(x)

    def depth(self) -> int:
        """How many steps a number of the carry is handed on. Raises Unprovable if the steps in the middle differ."""
        if any([self.states[i] != self.states[self.middle(0)[0]] for i in self.middle(0)]):
            raise Unprovable("what goes from step to step is not the same in all steps", more=True)
        return max(self.ages)

    def middle(self, depth: int) -> range:
        """Steps in the middle, more than a number is handed on."""
        n = len(self.states)
        some = range(n // 2 - 1, n // 2 - 1 + REPEATED + depth)
        if some[-1] >= n - 1:
            raise Unprovable("too few steps for what they remember", more=True)
        return some


def _learns(x: Any) -> bool:
    return isinstance(x, Value) and (x.symbolic or x.requires_grad)
