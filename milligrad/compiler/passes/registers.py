"""Which numbers of a rolled program stay in registers, and where all others stand, with every address written out.

An address is a `Linear` form of the variables around it: the indices of loops, and counters. Two equal forms are the
same address, and each address is written once, so what stands there is known without a look at memory:

    the number of a statement before this one, in the same iteration    its name
    … in the iteration before                                           a name that the loop hands on (`carried`)
    what no iteration of a loop changes                                 loaded once, before the loop

Only what is read in another way is stored at all.

    Load, Assign, Give    give a name to a number in memory; compute one; hand out an output
    For                   a loop: its index, how often, and the names that it hands on, with what they start from
    Let, Set              a counter where an iteration has no fixed size, as in triangular loops
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from milligrad.compiler import ir
from milligrad.compiler.ir import Affine, At, Back, LookedUp, Next, Rolled
from milligrad.engine import Op

VALUES, CONSTANTS, TABLE, OUTPUTS = "values", "constants", "table", "outputs"
COUNTERS = (VALUES, CONSTANTS, TABLE, OUTPUTS)
COUNT = "count"  # a variable of programs with a count, see counts.py and lengths.py: how many steps, or samples
PAIRS = "pairs"  # and how many pairs of them


class Linear(NamedTuple):
    """constant + Σ variable·coefficient, the variables in order of their names and no coefficient 0."""

    constant: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    def plus(self, other: Linear, times: int = 1) -> Linear:
        if not other.terms:
            return Linear(self.constant + times * other.constant, self.terms)
        sums = dict(self.terms)
        for name, k in other.terms:
            sums[name] = sums.get(name, 0) + times * k
        return Linear(self.constant + times * other.constant, tuple(sorted((n, k) for n, k in sums.items() if k)))

    def step(self, name: str) -> int:
        """The coefficient of that variable."""
        return next((k for other, k in self.terms if other == name), 0)

    def number(self, variables: dict[str, int]) -> int:
        """What it is for these variables."""
        return self.constant + sum([k * variables[name] for name, k in self.terms])


def variable(name: str, times: int = 1) -> Linear:
    return Linear(0, ((name, times),)) if times else Linear()


class Extents(NamedTuple):
    """What a program with a count has besides: its variable, and forms of it that tell how large arrays are."""

    variable: int | None
    values: Linear
    sizes: Mapping[Any, Linear]


def variables_for(n: int) -> dict[str, int]:
    """The variables of a program with a count."""
    return {COUNT: n, PAIRS: n * (n - 1) // 2}


class Name(NamedTuple):
    """A number that has a name: of a statement, a load, or one that a loop hands on."""

    name: str


class Cell(NamedTuple):
    """A number in memory: of the values, the constants, or the array of leaves with that number."""

    array: str | int
    place: Linear


class Entry(NamedTuple):
    """The number whose place stands at `place` in the table."""

    array: str | int
    place: Linear


Source: TypeAlias = "Name | Cell | Entry | float"


class Terms(NamedTuple):
    """`length` products of factors, each of which goes on by its step."""

    length: Linear
    factors: tuple[Source, ...]
    steps: tuple[int, ...]


@dataclass(slots=True)
class Load:
    name: str
    source: Source


@dataclass(slots=True)
class Assign:
    """name = op(inputs or terms); `store` is where it is kept, if anything reads it there."""

    name: str
    op: Op
    inputs: tuple[Source, ...]
    terms: tuple[Terms, ...]
    store: Linear | None


@dataclass(slots=True)
class Give:
    place: Linear
    source: Source


@dataclass(slots=True)
class Let:
    name: str
    start: Linear


@dataclass(slots=True)
class Set:
    name: str
    to: Linear


@dataclass(slots=True)
class For:
    index: str
    count: Linear
    body: list[Step] = field(default_factory=list)
    carried: dict[str, tuple[Source, str]] = field(default_factory=dict)  # name → what it starts from, what comes next


Step: TypeAlias = "Load | Assign | Give | Let | Set | For"


class Scope:
    """One body that is being written: of a loop, or of the program.

    steps:    what was written so far
    names:    of addresses of values and of cells, the names of the numbers there
    written:  of the addresses of its statements, those to come included, their names
    start:    the counters where the loop began
    """

    def __init__(self, loop: For | None, outer: Scope | None, start: dict[str, Linear], sizes: dict[str, Any]) -> None:
        self.loop, self.outer, self.start, self.sizes = loop, outer, start, sizes
        self.steps: list[Step] = loop.body if loop else []
        self.names: dict[Any, Name] = {}
        self.written: dict[Linear, str] = {}


def in_registers(program: Rolled) -> list[Step]:
    """The program with every address written out, and stores only where they are needed."""
    steps = _Writer(program).steps
    _write_equal_constants(steps, program)
    _drop_stores(steps, program)
    return steps


def _write_equal_constants(steps: list[Step], program: Rolled) -> None:
    """A constant that is the same number in all iterations is this number."""
    found: dict[Any, set[Any]] = {}
    for what, number, step, count in _runs(steps):
        if isinstance(what, Cell) and what.array == CONSTANTS:
            numbers = program.constants[number : number + count * step : step] if step else [program.constants[number]]
            found.setdefault(what, set()).update(map(repr, numbers))
    equal = {cell: float(*texts) for cell, texts in found.items() if len(texts) == 1}

    def told(x: Source) -> Source:
        return equal.get(x, x)

    for x in all_steps(steps):
        if isinstance(x, (Load, Give)):
            x.source = told(x.source)
        elif isinstance(x, Assign):
            x.inputs = tuple(map(told, x.inputs))
            x.terms = tuple([t._replace(factors=tuple(map(told, t.factors))) for t in x.terms])


class _Writer:
    def __init__(self, program: Rolled) -> None:
        self.program = program
        self.fresh = 0
        self.sizes: dict[int, dict[str, int | None]] = {}
        self.indices: list[str] = []
        counters = {c: Linear() for c in COUNTERS}
        top = Scope(None, None, counters, {})
        self._body(program.body, top, counters)
        self.steps = top.steps

    def _name(self, letter: str) -> str:
        self.fresh += 1
        return f"{letter}{self.fresh}"

    def _affine(self, x: Affine) -> Linear:
        z = Linear(x.base)
        for name, step in zip(self.indices, x.steps, strict=True):
            z = z.plus(variable(name, step))
        return z

    def _body(self, body: Any, scope: Scope, counters: dict[str, Linear]) -> dict[str, Linear]:
        """Write the body; it gives the counters at its end."""
        at = counters[VALUES]
        for x in body:  # the addresses of its own statements, as long as they are known before
            if isinstance(x, ir.Loop):
                size = self._sizes(x)[VALUES]
                if size is None:
                    break
                at = at.plus(self._affine(x.count), size)
            elif x.op is not None:
                scope.written[at] = self._name("z")
                at = at.plus(Linear(1))
        for x in body:
            write: Any = self._loop if isinstance(x, ir.Loop) else self._statement
            counters = write(x, scope, counters)
        return counters

    def _loop(self, x: ir.Loop, scope: Scope, counters: dict[str, Linear]) -> dict[str, Linear]:
        loop = For(self._name("i"), self._affine(x.count))
        sizes = self._sizes(x)
        inside, after = {}, {}
        running = {}
        for c in COUNTERS:
            size = sizes[c]
            if size is None:
                running[c] = self._name("n")
                scope.steps.append(Let(running[c], counters[c]))
                inside[c] = after[c] = variable(running[c])
            else:
                inside[c] = counters[c].plus(variable(loop.index, size))
                after[c] = counters[c].plus(loop.count, size)
        inner = Scope(loop, scope, counters, sizes)
        self.indices.append(loop.index)
        end = self._body(x.body, inner, inside)
        self.indices.pop()
        for c, name in running.items():
            loop.body.append(Set(name, end[c]))
        scope.steps.append(loop)
        self._leave(loop, inner, scope)
        return after

    @staticmethod
    def _leave(loop: For, inner: Scope, scope: Scope) -> None:
        """What the last iteration handed on is known by the same name after the loop."""
        if inner.sizes[VALUES] is None:
            return
        places = {name: place for place, name in inner.written.items()}
        for name, (_, comes) in loop.carried.items():
            place = places[comes]
            first = Linear(place.constant, tuple([t for t in place.terms if t[0] != loop.index]))
            last = first.plus(loop.count.plus(Linear(-1)), place.step(loop.index))
            scope.names[VALUES, last] = Name(name)

    def _sizes(self, x: ir.Loop) -> dict[str, int | None]:
        """By how much an iteration moves each counter; None if that is not always the same."""
        known = self.sizes.get(id(x))
        if known is None:
            known = dict.fromkeys(COUNTERS, 0)
            for y in x.body:
                one = self._moves(y)
                for c in COUNTERS:
                    a, b = known[c], one[c]
                    known[c] = None if a is None or b is None else a + b
            self.sizes[id(x)] = known
        return known

    def _moves(self, x: Any) -> dict[str, int | None]:
        if isinstance(x, ir.Loop):
            fixed = not any(x.count.steps)
            return {c: s and (s * x.count.base if fixed else None) for c, s in self._sizes(x).items()}
        moves: dict[str, int | None] = dict.fromkeys(COUNTERS, 0)
        moves[VALUES if x.op else OUTPUTS] = 1
        for kind, counter in ((Next, CONSTANTS), (LookedUp, TABLE)):
            n: int | None = sum([isinstance(y, kind) for y in x.inputs])
            for run in x.runs:
                own = sum([isinstance(y, kind) for y in run.factors])
                if own and any(run.length.steps):
                    n = None
                    break
                n = (n or 0) + own * run.length.base
            moves[counter] = n
        return moves

    def _statement(self, x: ir.Statement, scope: Scope, counters: dict[str, Linear]) -> dict[str, Linear]:
        counters = dict(counters)
        here = counters[VALUES]
        inputs = tuple([self._operand(y, scope, counters, here) for y in x.inputs])
        terms = []
        for run in x.runs:
            count = self._affine(run.length)
            single = count == Linear(1)
            factors = tuple([self._operand(y, scope, counters, here, None if single else count) for y in run.factors])
            steps = tuple(
                [1 if isinstance(y, (Next, LookedUp)) else -s if isinstance(y, Back) else s
                 for y, s in zip(run.factors, run.steps)]
            )  # fmt: skip
            terms.append(Terms(count, factors, steps))
        if x.op is None:
            scope.steps.append(Give(counters[OUTPUTS], inputs[0]))
            counters[OUTPUTS] = counters[OUTPUTS].plus(Linear(1))
            return counters
        name = scope.written.get(here) or self._name("z")
        scope.steps.append(Assign(name, x.op, inputs, tuple(terms), here))
        scope.names[VALUES, here] = Name(name)
        counters[VALUES] = here.plus(Linear(1))
        return counters

    def _operand(
        self, x: Any, scope: Scope, counters: dict[str, Linear], here: Linear, count: Linear | None = None
    ) -> Source:
        """Where the number is; of a run of `count` numbers, the first of them, always in memory."""
        if isinstance(x, Next):
            place = counters[CONSTANTS]
            counters[CONSTANTS] = place.plus(count or Linear(1))
            return Cell(CONSTANTS, place)
        if isinstance(x, LookedUp):
            place = counters[TABLE]
            counters[TABLE] = place.plus(count or Linear(1))
            return Entry(VALUES if x.array is None else x.array, place)
        if isinstance(x, At):
            cell = Cell(x.array, self._affine(x.place))
            return cell if count else self._loaded(cell, scope)
        assert isinstance(x, Back)
        place = here.plus(self._affine(x.distance), -1)
        return Cell(VALUES, place) if count else self._value(place, scope)

    def _value(self, place: Linear, scope: Scope) -> Source:
        """The number of that address."""
        outer: Scope | None = scope
        while outer is not None:
            name = outer.names.get((VALUES, place))
            if name:
                return name
            if outer.loop and place.step(outer.loop.index) and outer.sizes[VALUES] is not None:
                # what this iteration computes at the address that is read in the next one
                later = Linear(place.constant + place.step(outer.loop.index), place.terms)
                if later in outer.written:
                    return self._carried(place, outer, outer.written[later])
            outer = outer.outer
        return self._loaded(Cell(VALUES, place), scope)

    def _carried(self, place: Linear, scope: Scope, comes: str) -> Name:
        loop = scope.loop
        assert loop is not None and scope.outer is not None
        name = self._name("c")
        first = Linear(place.constant, tuple([t for t in place.terms if t[0] != loop.index]))
        loop.carried[name] = self._value(first, scope.outer), comes
        scope.names[VALUES, place] = Name(name)
        return Name(name)

    def _loaded(self, cell: Cell, scope: Scope) -> Source:
        """The cell, loaded in the outermost loop in which it is known."""
        target = scope
        while target.loop is not None and self._is_fixed(cell, target):
            assert target.outer is not None
            target = target.outer
        if target is scope:
            return cell
        known = target.names.get(cell)
        if known is None:
            known = target.names[cell] = Name(self._name("x"))
            target.steps.append(Load(known.name, cell))
        return known

    @staticmethod
    def _is_fixed(cell: Cell, scope: Scope) -> bool:
        """Whether no iteration of the loop changes the address, nor what stands there."""
        assert scope.loop is not None
        if cell.place.step(scope.loop.index) or any([name[0] == "n" for name, _ in cell.place.terms]):
            return False
        if cell.array != VALUES:
            return True
        ahead = cell.place.plus(scope.start[VALUES], -1)
        return not ahead.terms and ahead.constant < 0


def _drop_stores(steps: list[Step], program: Rolled) -> None:
    """Leave out the stores of what is never read from memory."""
    read = bytearray(program.values + 1)
    for what, number, step, count in _runs(steps):
        if isinstance(what, Cell):
            if what.array == VALUES:
                _mark(read, number, step, count)
        elif what.array == VALUES:
            for p in program.table[number : number + count * step : step] if step else [program.table[number]]:
                read[p] = 1
    kept = set()
    for what, number, step, count in _stores(steps):
        if id(what) not in kept and any(read[number : number + count * step : step] if step else [read[number]]):
            kept.add(id(what))
    for x in all_steps(steps):
        if isinstance(x, Assign) and id(x) not in kept:
            x.store = None


def _mark(read: bytearray, number: int, step: int, count: int) -> None:
    if step < 0:
        number, step = number + (count - 1) * step, -step
    if step == 0:
        read[number] = 1
    else:
        read[number : number + (count - 1) * step + 1 : step] = b"\1" * count


def all_steps(steps: list[Step]) -> Iterator[Step]:
    """The steps, and those within loops after the loop itself."""
    for x in steps:
        yield x
        if isinstance(x, For):
            yield from all_steps(x.body)


def sources_of(x: Step) -> list[Source]:
    """All that a step reads; of a loop, what it starts from is left out."""
    return [source for source, _, _ in _sources(x)]


def _sources(x: Step) -> Iterator[tuple[Source, Linear | None, int]]:
    """What a step reads: (the source, how many from there on, in which steps)."""
    if isinstance(x, (Load, Give)):
        yield x.source, None, 0
    elif isinstance(x, Assign):
        for y in x.inputs:
            yield y, None, 0
        for terms in x.terms:
            for y, step in zip(terms.factors, terms.steps):
                yield y, terms.length, step


Dims: TypeAlias = tuple[tuple[str, int], ...]  # loops that run in full: (index, how often)


def _iterations(steps: list[Step], variables: dict[str, int], dims: Dims = ()) -> Iterator[tuple[Step, Dims]]:
    """Each step with the variables at that time; loops in which nothing changes but indices are told by `dims`."""
    for x in steps:
        if isinstance(x, Let):
            variables[x.name] = x.start.number(variables)
        elif isinstance(x, Set):
            variables[x.name] = x.to.number(variables)
        elif not isinstance(x, For):
            yield x, dims
        else:
            yield x, dims
            count = x.count.number(variables)
            if dims or _is_even(x.body, {x.index}):
                yield from _iterations(x.body, variables, (*dims, (x.index, count)))
                continue
            for i in range(count):
                variables[x.index] = i
                yield from _iterations(x.body, variables)


def _is_even(body: list[Step], indices: set[str]) -> bool:
    """Whether all iterations are of one size: no counters, and no lengths that depend on the indices."""
    for x in body:
        lengths = [x.count] if isinstance(x, For) else [t.length for t in x.terms] if isinstance(x, Assign) else []
        if isinstance(x, (Let, Set)) or any([name in indices for length in lengths for name, _ in length.terms]):
            return False
        if isinstance(x, For) and not _is_even(x.body, indices | {x.index}):
            return False
    return True


def _spans(place: Linear, dims: Dims, variables: dict[str, int], step: int = 0, many: int = 1) -> Any:
    """All places of the form, in the fewest runs: (first, step, count). Of a run of `many` all are its own."""
    base, used = place.constant, [(step, many)] if step and many > 1 else []
    counts = dict(dims)
    for name, k in place.terms:
        if name in counts:
            used.append((k, counts[name]))
        else:
            base += k * variables[name]
    if not used:
        return [(base, 0, 1)]
    longest = max(used, key=lambda own: own[1])
    used.remove(longest)
    starts = [base]
    for k, count in used:
        starts = [start + k * i for start in starts for i in range(count)]
    return [(start, *longest) for start in starts]


def _runs(steps: list[Step]) -> Iterator[tuple[Any, int, int, int]]:
    """All that is read from memory: (the source, its first place, step, count)."""
    variables: dict[str, int] = {}
    for x, dims in _iterations(steps, variables):
        if isinstance(x, For):
            for source, _ in x.carried.values():
                if isinstance(source, (Cell, Entry)):
                    for span in _spans(source.place, dims, variables):
                        yield source, *span
            continue
        for source, many, step in _sources(x):
            if isinstance(source, (Cell, Entry)):
                for span in _spans(source.place, dims, variables, step, many.number(variables) if many else 1):
                    yield source, *span


def _stores(steps: list[Step]) -> Iterator[tuple[Any, int, int, int]]:
    variables: dict[str, int] = {}
    for x, dims in _iterations(steps, variables):
        if isinstance(x, Assign) and x.store is not None:
            for span in _spans(x.store, dims, variables):
                yield x, *span
