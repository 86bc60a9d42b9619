"""Loops whose count is a run-time number: what a long `scan` compiles to.

A `scan` of T steps is traced for a few small numbers of steps n instead (see short.py). Each of these traces goes
through all passes, and becomes a program in order. If the programs differ in nothing but integers (counts, addresses,
sizes of arrays), and each of these is an affine function of n, then that is one program with a count; T is put in when
it runs. Why this may be concluded from small n is told in README.md. What cannot be shown raises `Unprovable`, and the
function is compiled for its length, as any other loop is.

All of this is decided by the traces, so that what came of it is kept for later processes by a digest of them (see
kept.py): these trace the same few steps, and run no pass.

    rest      of a program: what it is but for integers and constants
    variable  what integers are affine functions of: n, or n // 12 where twelve steps are needed for a whole pattern
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from milligrad.compiler import kept
from milligrad.compiler.ir import Rolled
from milligrad.compiler.passes.compact import _counters, _forms, _replace, _uses, compact
from milligrad.compiler.passes.overlay import overlay
from milligrad.compiler.passes.registers import (
    CONSTANTS,
    COUNT,
    PAIRS,
    VALUES,
    Assign,
    Cell,
    Extents,
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
    variable,
    variables_for,
)
from milligrad.compiler.passes.roll import roll_evenly
from milligrad.compiler.passes.short import LONG, NEAR, REPEATED, LongScan, Short, Unprovable
from milligrad.compiler.passes.simplify import simplify
from milligrad.compiler.program import Array, Program
from milligrad.compiler.structure import SEQUENCES, Structure
from milligrad.compiler.trace import captured, needed
from milligrad.engine import Op, number

TRIED = ((12, 1), (12, 12), (24, 1), (24, 12), (48, 1), (48, 12), (96, 1))  # steps of the shortest trace, and `every`
PARTS = (6, 9)  # of the shortest trace, where there are checkpoints
MOST = 100_000  # nodes traced, from which on no more is tried
QUICKLY = 8  # tries of `compact`
KEPT = 16  # programs that are kept for other lengths

Singly = frozenset[tuple[int, int]]


# A program of n steps.


@dataclass
class Made:
    """What the passes made of one trace.

    returned:  what the outputs are nested in
    learning:  the Values that learn
    captured:  the Values that it captured
    nodes:     of the trace, and after simplify
    sizes:     of each array of leaves how many numbers it has
    """

    short: Short
    returned: Structure
    learning: list[Any]
    captured: list[Any]
    nodes: tuple[int, int]
    steps: list[Step]
    rolled: Rolled
    sizes: dict[str, int]


class Traced:
    """A trace of n steps, whose middle ones are alike, and its program, which is made when it is asked for.

    captured:  the Values that it captured
    """

    def __init__(
        self, short: Short, traced: Any, exact: bool | str, clock: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        self.short, self.traced, self.exact, self._clock = short, traced, exact, clock
        trace, _, outputs, _, _ = traced
        with clock("count"):
            need = needed(trace.tape, outputs)
            if not short.parts:
                short.check(need)
            self.captured = captured(trace.tape, need, outputs)  # which the exact program has, too

    @property
    def kind(self) -> Any:
        """What is the same for all lengths for which a program is made."""
        return self.short.count, self.short.every, self.short.near, self.short.parts, self.traced[3].key

    @cached_property
    def made(self) -> Made:
        """Its program, in order and in registers."""
        with self._clock("count"):
            return self._made()

    def _made(self) -> Made:
        trace, _, outputs, _, learning = self.traced
        graph = simplify(trace.tape, outputs, self.exact)
        leaves = {
            "arguments": trace.inputs["arguments"], "random": trace.random,
            "known": self.short.known, "captured": self.captured,
        }  # fmt: skip
        leaves = {name: xs for name, xs in leaves.items() if xs}
        rolled = roll_evenly(graph, {x: (k, i) for k, xs in enumerate(leaves.values()) for i, x in enumerate(xs)})
        steps = in_registers(rolled)
        if graph.again:
            overlay(steps, rolled)
        forget_repetitions(steps, rolled)
        nodes = len(trace.tape), len(graph) - len(graph.source)
        sizes = {name: len(xs) for name, xs in leaves.items()}
        return Made(self.short, self.traced[3], learning, self.captured, nodes, steps, rolled, sizes)

    def mark(self, seen: kept.Seen) -> Any:
        """A digest of all that is concluded from; None if that is not kept."""
        trace, _, outputs, _, learning = self.traced
        inputs = trace.inputs["arguments"], trace.random, self.short.known
        mark = kept.fingerprint(trace.tape, outputs, seen, *inputs)
        own = self.short.count, self.short.every, self.short.near, self.short.parts
        return mark and (mark, own, [seen[v] for v in learning], [seen[v] for v in self.captured])


def squeezed(made: Made, arrays: Sequence[str]) -> Made:
    """The same program, in which these arrays hold only what is used."""
    rolled = replace(made.rolled)
    return replace(made, rolled=rolled, steps=compact(copied(made.steps), rolled, QUICKLY, arrays))


def copied(steps: list[Step]) -> list[Step]:
    return Rewritten(lambda x: x, lambda x: x, lambda x: None).steps(steps)


def forget_repetitions(steps: list[Step], rolled: Rolled) -> None:
    """Constants that are the same in all iterations of a loop around them stand there once."""
    known: dict[Any, Any] = {}
    differ = set()
    counters = _counters(steps)
    for x, slot, form, variables in _uses(CONSTANTS, steps, counters):
        at, many = form.place.number(variables), form.length.number(variables) if form.length else 1
        numbers = [repr(rolled.constants[at + k * form.step]) for k in range(many)]
        for name, _ in form.place.terms:
            others = tuple([variables[other] for other, _ in form.place.terms if other != name])
            if known.setdefault((id(x), slot, name, others), numbers) != numbers or name in counters:
                differ.add((id(x), slot, name))
    for x in all_steps(steps):
        forms = {}
        for slot, form in _forms(x, counters):
            if form.array == CONSTANTS and slot != ("counter",):
                kept = tuple([term for term in form.place.terms if (id(x), slot, term[0]) in differ])
                forms[slot] = Linear(form.place.constant, kept), form.step
        _replace(x, forms)


class Reading(NamedTuple):
    """A program as its integers, its constants, and all the rest, which is to be the same in all of them."""

    rest: list[Any]
    integers: list[int]
    floats: list[float]


def reading_of(made: Made, arrays: bool = True) -> Reading:
    """The program as it is read, with its arrays or but for their sizes, and the steps in them."""
    rest, integers, floats = reading = Reading([], [], [])

    def note(x: Any) -> None:
        rest.append("terms" if not arrays and type(x) is tuple and x[0] == "terms" else x)

    def linear(x: Linear) -> Linear:
        rest.append(tuple([name for name, _ in x.terms]))
        integers.extend([x.constant, *[k for _, k in x.terms]])
        return x

    def constant(x: float) -> Source:
        rest.append("float")
        floats.append(x)
        return x

    Rewritten(linear, constant, note).steps(made.steps)
    if arrays:
        rest.extend([("constants", len(made.rolled.constants)), ("arrays", *made.sizes)])
        floats.extend(made.rolled.constants)
        integers.extend([made.rolled.values, made.rolled.outputs, *made.sizes.values()])
    return reading


class Rewritten:
    """Steps with other addresses and constants, each put in by a function; `note` is told of all the rest."""

    def __init__(
        self, linear: Callable[[Linear], Linear], constant: Callable[[float], Source], note: Callable[[Any], object]
    ) -> None:
        self.linear, self.constant, self.note = linear, constant, note

    def steps(self, steps: list[Step]) -> list[Step]:
        return [self._step(x) for x in steps]

    def _step(self, x: Step) -> Step:
        self.note(type(x))
        if isinstance(x, Load):
            self.note(x.name)
            return Load(x.name, self._source(x.source))
        if isinstance(x, Give):
            return Give(self.linear(x.place), self._source(x.source))
        if isinstance(x, Let):
            self.note(x.name)
            return Let(x.name, self.linear(x.start))
        if isinstance(x, Set):
            self.note(x.name)
            return Set(x.name, self.linear(x.to))
        if isinstance(x, Assign):
            self.note((x.name, x.op, len(x.inputs), x.store is None))
            store = None if x.store is None else self.linear(x.store)
            return Assign(
                x.name,
                x.op,
                tuple([self._source(y) for y in x.inputs]),
                tuple([self._terms(y) for y in x.terms]),
                store,
            )
        count = self.linear(x.count)
        self.note((x.index, len(x.body), [(name, after) for name, (_, after) in x.carried.items()]))
        carried = {name: (self._source(first), after) for name, (first, after) in x.carried.items()}
        return For(x.index, count, self.steps(x.body), carried)

    def _terms(self, x: Terms) -> Terms:
        self.note(("terms", x.steps))
        length, factors = self.linear(x.length), tuple([self._source(y) for y in x.factors])
        steps = [0 if type(y) is float else step for y, step in zip(x.factors, x.steps)]  # be it in memory from now on
        return Terms(length, factors, tuple(steps))

    def _source(self, x: Source) -> Source:
        if isinstance(x, float):
            return self.constant(x)
        self.note(x if isinstance(x, Name) else (type(x), x.array))
        return x if isinstance(x, Name) else x._replace(place=self.linear(x.place))


# One program of them all.


class Form(NamedTuple):
    """An integer as a function of the variable, or a constant as one of n: at + by·n + pairs·n(n - 1)/2, or by/n."""

    at: float
    by: float
    over: bool = False
    pairs: float = 0

    def of(self, n: int) -> Any:
        return self.by / n if self.over else self.at + self.by * n + self.pairs * (n * (n - 1) // 2)

    def linear(self) -> Linear:
        """An integer as a form of the variables `count` and `pairs`."""
        return Linear(int(self.at)).plus(variable(COUNT, int(self.by))).plus(variable(PAIRS, int(self.pairs)))


@dataclass
class Counted:
    """A program with a count.

    reading:    of the program of fewest steps
    steps:      in which addresses and counts are forms of COUNT
    singly:     which runs are written term by term, see `_long_strides`
    squeezed:   which arrays hold only what is used
    forms:      of the constants in memory; None for those that are as they are told
    where:      which of the constants of the reading these are
    shared:     whether the code is the same for other lengths
    nodes:      of the shortest trace, and after simplify
    kind:       what is the same for all lengths for which it is the program
    returned:   the structure of the results, for each number of steps
    key:        that it is kept by; "" if it is not
    code:       that of the first length, whose machine code others share
    times:      that it took to make the code in an earlier process
    """

    kept_as = "counted"  # see kept.py

    reading: Reading
    steps: list[Step]
    values: Form
    outputs: Form
    sizes: dict[str, Form]
    singly: Singly
    squeezed: Sequence[str]
    forms: list[Form | None]
    where: list[int]
    shared: bool
    nodes: tuple[int, int]
    kind: Any = None
    returned: Callable[[int], Structure] = field(init=False)
    key: str = ""
    code: Any = None
    times: Mapping[str, float] = field(default_factory=dict)

    def made_of(self) -> tuple[Any, ...]:
        """What `restored` makes the same of, in another process: see kept.py."""
        forms = [self.values, self.outputs, *self.sizes.values()]
        numbers = [tuple(form) for form in forms], [form and tuple(form) for form in self.forms]
        rest = [*self.sizes], self.singly, self.squeezed, self.where, self.shared, self.nodes
        return (*self.reading, self.steps, *numbers, *rest)

    def constants(self, reading: Reading, length: int) -> list[float]:
        """The constants in memory, for a length for which a trace of few steps was read."""
        numbers = [reading.floats[k] for k in self.where]
        return [x if form is None else form.of(length) for x, form in zip(numbers, self.forms, strict=True)]

    def read(self, traced: Traced) -> Reading | None:
        """The program of few steps for another length, if this is its program with a count."""
        if not self.shared or traced.kind != self.kind:
            return None
        reading = reading_of(squeezed(_with_terms(traced.made, self.singly), self.squeezed))
        told = {k for k, form in zip(self.where, self.forms, strict=True) if form is None}
        same = [repr(x) == repr(y) or k in told for k, (x, y) in enumerate(zip(self.reading.floats, reading.floats))]
        alike = self.reading.rest == reading.rest and self.reading.integers == reading.integers and all(same)
        return reading if alike else None


def alike(made: Sequence[Made]) -> None:
    """Raise Unprovable if the programs differ in more than integers and constants."""
    first, *others = [reading_of(m, arrays=False).rest for m in made]
    if any([rest != first for rest in others]):
        raise Unprovable("the programs differ in more than counts and addresses", more=True)


def unified(made: Sequence[Made], other: Made | None) -> Counted:
    """The program that all are, and that is the first one for another length, `other`, if there is one."""
    singly = _long_strides(made)
    made, other = [_with_terms(m, singly) for m in made], other and _with_terms(other, singly)
    reason = Unprovable("")
    for arrays in ((VALUES, CONSTANTS), (CONSTANTS,)):
        try:
            return _unified([squeezed(m, arrays) for m in made], other and squeezed(other, arrays), singly, arrays)
        except Unprovable as error:
            reason = error
    raise reason


def _unified(made: Sequence[Made], other: Made | None, singly: Singly, arrays: Sequence[str]) -> Counted:
    first, counts = made[0], [m.short.count for m in made]
    variables = [m.short.variable(n) for m, n in zip(made, counts)]
    readings = [reading_of(m) for m in made]
    for m, reading in zip(made, readings):
        if reading.rest != readings[0].rest:
            raise Unprovable("the programs differ in more than counts and addresses", more=True)
        for mine, others in ((m.captured, first.captured), (m.learning, first.learning)):
            if [*map(id, mine)] != [*map(id, others)]:
                raise Unprovable("a Value for each step")
    integers = [_affine(variables, column) for column in zip(*[r.integers for r in readings], strict=True)]
    lying = reading_of(other) if other else None
    shared = lying is not None and lying.rest == readings[0].rest and lying.integers == readings[0].integers
    writer = _Writer(integers, readings, counts, lying if shared else None, len(first.rolled.constants))
    steps = writer.steps(first.steps)
    values, outputs, *sizes = integers[writer.at :]
    return Counted(
        readings[0], steps, values, outputs, dict(zip(first.sizes, sizes)), singly, arrays,
        writer.forms, writer.where, shared and not writer.mixed, first.nodes,
    )  # fmt: skip


def restored(
    rest: list[Any], integers: list[int], floats: list[float], steps: list[Step], numbers: Any, forms: Any,
    names: list[str], singly: Singly, squeezed: Sequence[str], where: list[int], shared: bool, nodes: tuple[int, int],
) -> Counted:  # fmt: skip
    """The Counted that was `made_of` that."""
    values, outputs, *sizes = [Form(*x) for x in numbers]
    known = [x and Form(*x) for x in forms]
    reading = Reading(rest, integers, floats)
    return Counted(
        reading, steps, values, outputs, dict(zip(names, sizes)), singly, squeezed, known, where, shared, nodes
    )


def _long_strides(made: Sequence[Made]) -> Singly:
    """Runs of fixed length whose step is not the same in all programs: (number of the statement, of the run)."""
    found = set()
    for i, xs in enumerate(zip(*[_statements(m.steps) for m in made])):
        for k, terms in enumerate(zip(*[x.terms for x in xs])):
            if len({t.steps for t in terms}) > 1 and {t.length.terms for t in terms} == {()}:
                found.add((i, k))
    return frozenset(found)


def _with_terms(made: Made, singly: Singly) -> Made:
    """The program with these runs written term by term."""
    if not singly:
        return made
    steps = copied(made.steps)
    for i, x in enumerate(_statements(steps)):
        parts = [_singly(terms) if (i, k) in singly else [terms] for k, terms in enumerate(x.terms)]
        x.terms = tuple([part for some in parts for part in some])
    return replace(made, steps=steps)


def _statements(steps: list[Step]) -> list[Assign]:
    return [x for x in all_steps(steps) if isinstance(x, Assign)]


def _singly(terms: Terms) -> list[Terms]:
    def factor(y: Source, step: int, k: int) -> Source:
        return y._replace(place=y.place.plus(Linear(k * step))) if isinstance(y, Cell) else y

    return [
        Terms(
            Linear(1),
            tuple([factor(y, step, k) for y, step in zip(terms.factors, terms.steps)]),
            (0,) * len(terms.steps),
        )
        for k in range(terms.length.constant)
    ]


def _affine(counts: Sequence[int], numbers: Sequence[int]) -> Form:
    by, more = divmod(numbers[1] - numbers[0], counts[1] - counts[0])
    form = Form(numbers[0] - by * counts[0], by)
    if more or any([form.of(n) != x for n, x in zip(counts, numbers)]):
        raise Unprovable("an address or a count that is no affine function of the number of steps", more=True)
    return form


def _form(counts: Sequence[int], numbers: Sequence[float]) -> Form | None:
    """A constant as a function of n; None if it is always the same."""
    if len({*map(repr, numbers)}) == 1:
        return None
    by = (numbers[1] - numbers[0]) / (counts[1] - counts[0])
    affine = Form(numbers[0] - by * counts[0], by)
    over = Form(0.0, numbers[0] * counts[0], over=True)
    for form in (affine, over):
        if all([abs(form.of(n) - x) <= 4e-16 * abs(x) for n, x in zip(counts, numbers)]):
            return form
    raise Unprovable("a constant that is not the same in all steps", more=True)


class WithCount(Rewritten):
    """Writes steps with a count: each integer of theirs is the next of these forms.

    A step along an index that depends on n is told by a counter of its own, which goes up by n in each iteration.
    """

    def __init__(self, integers: Sequence[Form], constant: Callable[[float], Source]) -> None:
        super().__init__(self._linear, constant, lambda x: None)
        self.integers, self.at = integers, 0
        self.products: set[str] = set()

    def _linear(self, x: Linear) -> Linear:
        at = self.at
        self.at += 1 + len(x.terms)
        constant, *steps = self.integers[at : self.at]
        z = constant.linear()
        for (name, _), step in zip(x.terms, steps):
            if step.pairs:
                raise Unprovable("steps that grow with the square of the count")
            z = z.plus(variable(name, int(step.at)))
            if step.by:
                self.products.add(name)
                z = z.plus(variable(f"{name}_{COUNT}", int(step.by)))
        return z

    def steps(self, steps: list[Step]) -> list[Step]:
        written: list[Step] = []
        for x in steps:
            z = self._step(x)
            if isinstance(z, For) and z.index in self.products:
                product = f"{z.index}_{COUNT}"
                written.append(Let(product, Linear()))
                z.body.append(Set(product, variable(product).plus(variable(COUNT))))
            written.append(z)
        return written


class _Writer(WithCount):
    """Writes the steps of the first program with a count."""

    def __init__(
        self, integers: list[Form], readings: list[Reading], counts: list[int], lying: Reading | None, constants: int
    ) -> None:
        super().__init__(integers, self._constant)
        self.counts = counts
        self.columns = list(zip(*[r.floats for r in readings], strict=True))
        self.lying, self.mixed = lying, False
        self.float = 0
        kept = len(self.columns) - constants
        self.forms: list[Form | None] = []
        self.where: list[int] = []
        for k in range(kept, len(self.columns)):
            self._keep(k)

    def _keep(self, k: int) -> int:
        """A place among the constants in memory."""
        form = _form(self.counts, self.columns[k])
        self.mixed |= form is not None and self._is_told(k)
        self.forms.append(form)
        self.where.append(k)
        return len(self.where) - 1

    def _constant(self, x: float) -> Source:
        k = self.float
        self.float += 1
        depends = self._is_told(k) or len({*map(repr, self.columns[k])}) > 1
        return Cell(CONSTANTS, Linear(self._keep(k))) if depends else x

    def _is_told(self, k: int) -> bool:
        """Whether a constant was another one when another length was told."""
        return self.lying is not None and repr(self.lying.floats[k]) != repr(self.columns[k][0])


def _returned(structures: Sequence[Structure], counts: Sequence[int]) -> Callable[[int], Structure]:
    """The structure of the results, for each number of steps."""
    first = structures[0]
    if all([s.key == first.key for s in structures]):
        return lambda n: first
    if {s.kind for s in structures} == {"numbers"}:
        form = _affine(counts, [s.parts for s in structures])

        def numbers(n: int) -> Structure:
            length = int(form.of(n))
            return Structure("numbers", length, length)

        return numbers
    if len({s.kind for s in structures}) > 1 or first.kind not in (*SEQUENCES, "dict"):
        raise Unprovable("results that are nested differently")
    columns = [s.parts[1] if first.kind == "dict" else s.parts for s in structures]
    length = _affine(counts, [*map(len, columns)])
    if length.by:
        rows = [_returned([parts[0] for parts in columns], counts)]
        if any([part.key != parts[0].key for parts in columns for part in parts]):
            raise Unprovable("results that are nested differently")
    else:
        rows = [_returned(parts, counts) for parts in zip(*columns, strict=True)]

    def parts(n: int) -> Structure:
        own = [row(n) for row in rows] * (int(length.of(n)) if length.by else 1)
        key = tuple([part.key for part in own])
        if first.kind == "dict":
            return Structure("dict", (first.parts[0], own), ("dict", tuple(first.parts[0]), key))
        return Structure(first.kind, own, (first.kind, key, *first.key[2:]))

    return parts


def _check(program: Counted, short: Short) -> None:
    """Whether it may be run for T: steps repeat for longer than they remember, addresses lie within arrays."""
    n, length = short.variable(short.count), short.variable(short.length)
    sizes = [int(form.of(length)) for form in program.sizes.values()]
    limits: dict[Any, int] = {**dict(enumerate(sizes)), VALUES: int(program.values.of(length))}
    limits[CONSTANTS] = len(program.where)

    def walk(steps: list[Step], last: dict[str, Linear | None], growing: frozenset[str]) -> None:
        for x in steps:
            for place, of in addresses_of(x):
                ends = ends_of(place, last, length)
                if ends and of in limits and not 0 <= ends[0] <= ends[1] < limits[of]:
                    raise Unprovable("an address that would lie outside of its array")
            lengths = [x.count] if isinstance(x, For) else [t.length for t in x.terms] if isinstance(x, Assign) else []
            if any([name in growing for length in lengths for name, _ in length.terms]):
                raise Unprovable("a loop that grows from step to step", more=True)
            if isinstance(x, For):
                names = {name for name, _ in x.count.terms}
                ends = ends_of(x.count, last, length)
                if ends is not None and ends[0] < 1:
                    raise Unprovable("a loop that would not run")
                grows = any([name == COUNT for name in names])
                if grows and not x.count.terms[1:] and x.count.number({COUNT: n}) < short.depth + REPEATED:
                    raise Unprovable("a loop that is too short to show what it remembers", more=True)
                inner = {**last, x.index: None if names - {COUNT} else x.count.plus(Linear(-1))}
                walk(x.body, inner, growing | {x.index} if grows else growing)

    walk(program.steps, {}, frozenset())


def addresses_of(x: Step) -> Iterator[tuple[Linear, Any]]:
    sources: list[Any] = []
    if isinstance(x, (Load, Give)):
        sources = [x.source]
    elif isinstance(x, For):
        sources = [first for first, _ in x.carried.values()]
    elif isinstance(x, Assign):
        sources = [*x.inputs]
        if x.store is not None:
            yield x.store, VALUES
        for terms in x.terms:
            for y, step in zip(terms.factors, terms.steps, strict=True):
                if isinstance(y, Cell):
                    yield y.place, y.array
                    yield y.place.plus(terms.length, step).plus(Linear(-step)), y.array
    yield from [(y.place, y.array) for y in sources if isinstance(y, Cell)]


def ends_of(place: Linear, last: dict[str, Linear | None], n: int) -> tuple[int, int] | None:
    """The smallest and the largest number that the form takes; None if that is not known."""
    low = high = place.constant
    steps: Counter[str] = Counter()
    fixed = variables_for(n)
    for name, k in place.terms:
        steps[name.removesuffix(f"_{COUNT}")] += k * n if name.endswith(f"_{COUNT}") else k
    for name, k in steps.items():
        final = Linear(fixed[name]) if name in fixed else last.get(name)
        if final is None:
            return None
        most = k * final.number(fixed)
        low += most if name in fixed else min(0, most)
        high += most if name in fixed else max(0, most)
    return low, high


def describe(steps: list[Step], length: int) -> list[str]:
    """A line for each loop, and for statements between loops: the ops, and how often."""
    lines: list[str] = []
    here: Counter[str] = Counter()

    def told() -> None:
        if here:
            lines.append(", ".join([name if n == 1 else f"{n} × {name}" for name, n in here.items()]))
            here.clear()

    for x in steps:
        if isinstance(x, For):
            told()
            known = {name for name, _ in x.count.terms} <= {COUNT, PAIRS}
            times = f"{x.count.number(variables_for(length)):,} times" if known else "some times"
            inner = describe(x.body, length)
            lines += [f"{times}: {inner[0]}"] if len(inner) == 1 else [f"{times}:", *[f"  {line}" for line in inner]]
        elif isinstance(x, Assign):
            here[x.op.name] += 1
        elif isinstance(x, Give):
            here["output"] += 1
    told()
    return lines


def known_numbers(short: Short) -> Sequence[Any]:
    """The plain numbers of all scans, for all steps."""
    if all([isinstance(x, float) for chunk in short.chunks for x in chunk[:1]]):
        try:
            return array("d", [x for chunk in short.chunks for x in chunk])
        except TypeError:
            pass
    return [x for chunk in short.chunks for x in chunk]


# What `compile` asks for.


class Found(NamedTuple):
    """The program with a count that a function is, and a trace of a few steps that tells its constants for a length."""

    program: Counted
    made: Traced
    reading: Reading

    @property
    def length(self) -> int:
        return self.made.short.length

    @property
    def variable(self) -> int:
        """What the program's variable is for this length."""
        return self.made.short.variable(self.length)

    def size(self, name: str) -> int:
        """How many numbers an array of leaves has."""
        form = self.program.sizes.get(name)
        return int(form.of(self.variable)) if form else 0

    @property
    def ops(self) -> list[Op]:
        """The ops of all its statements."""
        return [x.op for x in _statements(self.program.steps)]

    def known(self) -> list[float]:
        """The plain numbers that its scans start from, or run over."""
        return [number(x) for x in known_numbers(self.made.short)]

    def of_length(self) -> tuple[list[Step], Rolled, list[str]]:
        """The program for this length alone: its steps, what they run on, and the names of the arrays of leaves."""

        def told(x: Linear) -> Linear:
            return x.plus(variable(COUNT), -x.step(COUNT)).plus(Linear(self.variable * x.step(COUNT)))

        steps = Rewritten(told, lambda x: x, lambda x: None).steps(self.program.steps)
        return steps, self._rolled(), [*self.program.sizes]

    def _rolled(self) -> Rolled:
        """What is known of the program besides its steps."""
        counted, variable = self.program, self.variable
        outputs, values = int(counted.outputs.of(variable)), int(counted.values.of(variable))
        return Rolled([], counted.constants(self.reading, self.length), [], values, outputs)

    def build(
        self, arrays: Sequence[Array], backend: str, capacity: int, dtype: str, exact: bool
    ) -> tuple[Program, Any]:
        """(program, code) for these arrays: those of the leaves, in order, and the results."""
        counted, length, variable = self.program, self.length, self.variable
        rolled = self._rolled()
        forms = [*counted.sizes.values(), counted.outputs]
        extents = Extents(
            variable, counted.values.linear(), {a: f.linear() for a, f in zip(arrays, forms, strict=True)}
        )
        program = Program([*arrays], [])
        statements = len([x for x in all_steps(counted.steps) if isinstance(x, (Assign, Give))])
        loops = len([x for x in all_steps(counted.steps) if isinstance(x, For)])
        traced, nodes = counted.nodes
        program.info.update(
            traced=traced,
            nodes=nodes,
            shape=f"{statements:,} statements in {loops:,} loops, in order, for {length:,} steps of a scan",
            lines=describe(counted.steps, variable),
        )
        if backend == "python":
            from milligrad.compiler.python import in_order as print_python

            return program, print_python.build(program, rolled, counted.steps, capacity, exact, extents)
        from milligrad.compiler.llvm import in_order as print_llvm

        if counted.code is None:
            told = [(a.name, a.role, a.per_sample) for a in arrays]
            key = counted.key and kept.key("code with a count", backend, counted.key, told, capacity, dtype)
            known = kept.recall(key)
            if known is None:
                counted.code = print_llvm.build(program, rolled, counted.steps, capacity, dtype, extents)
                kept.keep(key, (counted.code, counted.code.times))
                return program, counted.code
            counted.code, counted.times = known
        if not counted.code.times:
            program.info["times"] = counted.times
        return program, print_llvm.of_length(counted.code, program, rolled, capacity, extents)


def longest(s: Structure) -> int:
    """The length of the longest list among the arguments."""
    if s.kind == "numbers":
        return int(s.parts)
    parts = s.parts[1] if s.kind == "dict" else s.parts if s.kind in SEQUENCES else ()
    first = parts[:1] if s.kind == "list" and len(parts) > LONG else parts
    return max([len(parts) if s.kind == "list" else 0, *map(longest, first)])


def find(length: int, traced: Callable[[Short], Traced], known: list[Counted], near: int = 0) -> Found | None:
    """The program with a count of a function that scans so many steps, one of the `known` or a new one; or None."""
    nodes = 0
    for n, every in TRIED:
        n += (length - n) % every
        counts = (n + every, n + 2 * every, 3 * n + 4 * every - 2 * (n % every))
        if counts[-1] >= length:
            return None
        try:
            first = traced(Short(length, n, every, near))
            nodes += 5 * len(first.traced[0].tape)
            found = _in_parts(first, traced, known) if first.short.checkpoints else None
            if found:
                return found
            return _found(first, traced, counts, known) if first.short.scans else None
        except LongScan as longer:
            return find(longer.length, traced, known, near)
        except Unprovable as reason:
            if reason.near and not near:
                return find(length, traced, known, NEAR)
            if not reason.more or nodes > MOST:
                return None
        except Exception:
            return None  # what is wrong is told by the trace of all steps
    return None


def _in_parts(plain: Traced, traced: Callable[[Short], Traced], known: list[Counted]) -> Found | None:
    """The same for scans with checkpoints, in which n counts parts; all steps have to be alike without them.

    None if there is none: then what a program without checkpoints remembers is less than a trace of all steps takes.
    """
    [size, *more] = plain.short.checkpoints
    length, near = plain.short.length, plain.short.near

    def in_parts(short: Short) -> Traced:
        alike = traced(Short(length, short.count, size, near, short.lie))
        short.parts, short.depth = True, alike.short.depth
        return traced(short)

    for parts in PARTS:
        n = parts * size + length % size
        counts = (n + size, n + 2 * size, n + 5 * size)
        if more or counts[-1] >= length:
            return None
        try:
            return _found(in_parts(Short(length, n, size, near)), in_parts, counts, known)
        except Unprovable as reason:
            if not reason.more:
                return None
    return None


def _found(first: Traced, traced: Callable[[Short], Traced], counts: Sequence[int], known: list[Counted]) -> Found:
    """The program that the first one shows, if those of other counts are like it."""
    short = first.short
    for program in known:
        reading = program.read(first)
        if reading:
            _check(program, short)
            return Found(program, first, reading)
    several = [first, *[traced(Short(short.length, n, short.every, short.near)) for n in counts]]
    program = _proved(several, _lying(traced, first))
    program.kind = first.kind
    program.returned = _returned([t.traced[3] for t in several], [t.short.variable(t.short.count) for t in several])
    _check(program, short)
    if program.shared:
        known[:] = [*known[1 - KEPT :], program]
    return Found(program, first, program.reading)


def _proved(several: Sequence[Traced], lying: Traced | None) -> Counted:
    """The program that these traces show: kept of an earlier process, or made now, and kept then."""
    seen = kept.Seen()
    marks = [t.mark(seen) if t else () for t in (*several, lying)]
    key = kept.key("count", "", several[0].exact, *marks)
    known = kept.recall(key)
    if known is None:
        try:
            known = _made_one(several, lying)
        except Unprovable as reason:
            known = str(reason), reason.more, reason.near
        kept.keep(key, known)
    if not isinstance(known, Counted):
        raise Unprovable(*known)
    known.key = key
    return known


def _made_one(several: Sequence[Traced], lying: Traced | None) -> Counted:
    """The program that these traces show, by all passes."""
    for t in several[1:]:
        alike([several[0].made, t.made])
    return unified([t.made for t in several], _made_or_none(lying) if lying else None)


def _made_or_none(lying: Traced) -> Made | None:
    """The program of that trace, if it has one."""
    try:
        return lying.made
    except (Exception, Unprovable):
        return None


def _lying(traced: Callable[[Short], Traced], first: Traced) -> Traced | None:
    """A trace of as few steps, had there been one more; None if the function refuses that."""
    short = first.short
    try:
        return traced(Short(short.length, short.count, short.every, short.near, lie=1))
    except (Exception, LongScan, Unprovable):
        return None
