"""Leave out of a program's arrays what it never reads: of values, constants and the table.

In a rolled program each number computed has an address, though most stay in registers. Here those that are stored move
together: the new place of a number is how many of those before it are used. A form of the indices can be kept for an
address if the new places follow one, too; each is looked up in every iteration, so that nothing has to be proved.
Where one does not, as where the first iterations store less than all others, more is kept than is used.

    form    an address in a step: of what it reads, or stores, or what it sets a counter to
    slot    where in the step the form stands
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from milligrad.compiler.ir import Rolled
from milligrad.compiler.passes.registers import (
    CONSTANTS,
    TABLE,
    VALUES,
    Assign,
    Cell,
    Entry,
    For,
    Give,
    Let,
    Linear,
    Load,
    Set,
    Step,
    all_steps,
)

TRIES = 100

Slot = tuple[Any, ...]
Key = tuple[int, Slot]  # of a step and a slot in it


class Form(NamedTuple):
    """An address of an array; of a run of `length` numbers the first, and how far the next one is."""

    array: str
    place: Linear
    length: Linear | None = None
    step: int = 0


def compact(
    steps: list[Step], program: Rolled, tries: int = TRIES, arrays: Sequence[str] = (VALUES, CONSTANTS, TABLE)
) -> list[Step]:
    """The same steps; they and the arrays of the program are changed."""
    counters = _counters(steps)
    sizes = {VALUES: program.values, CONSTANTS: len(program.constants), TABLE: len(program.table)}
    for array in arrays:
        used = _used(array, sizes[array], steps, counters)
        before, forms = _new_places(array, used, steps, counters, tries)
        for x in all_steps(steps):
            _replace(x, {slot: forms[id(x), slot] for slot, _ in _forms(x, counters) if (id(x), slot) in forms})
        if array == VALUES:
            _move_entries(steps, program, before)
            program.values = before[-1]
        elif array == CONSTANTS:
            program.constants = [x for x, keep in zip(program.constants, used, strict=True) if keep]
        else:
            program.table = [x for x, keep in zip(program.table, used, strict=True) if keep]
    return steps


def _new_places(
    array: str, used: bytearray, steps: list[Step], counters: dict[str, str], tries: int
) -> tuple[list[int], dict[Key, tuple[Linear, int]]]:
    """(how many are used before each place, the new form of each slot). More is used where there would be none."""
    for _ in range(tries):
        before = [0, *accumulate(used)]
        fits, wrong = _moved(array, before, steps, counters)
        if wrong is None:
            return before, {key: fit.form() for key, fit in fits.items()}
        _even_out(used, wrong, array, steps, counters)
    used[:] = b"\1" * len(used)  # all stay where they are
    before = [0, *accumulate(used)]
    fits, wrong = _moved(array, before, steps, counters)
    assert wrong is None
    return before, {key: fit.form() for key, fit in fits.items()}


def _even_out(used: bytearray, wrong: Key, array: str, steps: list[Step], counters: dict[str, str]) -> None:
    """Use as many places from one iteration to the next, along each index of that form."""
    ranges: dict[tuple[int, int], list[int]] = {}  # (address at index 0, step) → indices
    for x, slot, form, variables in _uses(array, steps, counters):
        if (id(x), slot) == wrong:
            at = form.place.number(variables)
            for name, step in form.place.terms:
                if name not in counters:
                    ranges.setdefault((at - step * variables[name], step), []).append(variables[name])
            if form.length:
                ranges.setdefault((at, form.step), []).extend([0, form.length.number(variables) - 1])
    for (base, step), indices in ranges.items():
        lowest, highest = sorted([base + step * min(indices), base + step * max(indices)])
        for first in range(lowest, min(lowest + abs(step), highest)):
            some = slice(first, highest, abs(step))
            if any(used[some]):
                used[some] = b"\1" * len(range(first, highest, abs(step)))


def _used(array: str, n: int, steps: list[Step], counters: dict[str, str]) -> bytearray:
    """For each place of the array whether it is used: of the values, whether it is stored."""
    used = bytearray(n)
    for _, slot, form, variables in _uses(array, steps, counters):
        if slot == ("counter",) or (array == VALUES and slot != ("store",)):
            continue
        at, length = form.place.number(variables), form.length.number(variables) if form.length else 1
        for k in range(length):
            used[at + k * form.step] = 1
    return used


def _moved(
    array: str, before: list[int], steps: list[Step], counters: dict[str, str]
) -> tuple[dict[Key, _Fit], Key | None]:
    """(the new form of each slot, the first one that has none)."""
    found: dict[Key, _Fit] = {}
    for x, slot, form, variables in _uses(array, steps, counters):
        key = id(x), slot
        fit = found.get(key)
        if fit is None:
            fit = found[key] = _Fit(form, counters)
        if not fit.holds(before, variables):
            return found, key
    return found, None


class _Fit:
    """A form in the making: the coefficients of the indices are told by the first time that one alone has changed."""

    def __init__(self, old: Form, counters: dict[str, str]) -> None:
        self.old = old
        self.counters = [(name, k) for name, k in old.place.terms if name in counters]
        self.names = [name for name, _ in old.place.terms if name not in counters]
        self.first: list[int] | None = None
        self.base = 0
        self.steps: dict[str, int] = {}
        self.step: int | None = None

    def holds(self, before: list[int], variables: dict[str, int]) -> bool:
        """Whether the new place of this iteration is that of the form so far."""
        old = self.old
        at = old.place.number(variables)
        new = before[at] - sum([k * before[variables[name]] for name, k in self.counters])
        now = [variables[name] for name in self.names]
        if self.first is None:
            self.first, self.base = now, new
        want = self.base
        unknown = None
        for name, i, i0 in zip(self.names, now, self.first, strict=True):
            if i != i0:
                if name in self.steps:
                    want += (i - i0) * self.steps[name]
                elif unknown is None:
                    unknown = name, i - i0
                else:
                    return False
        if unknown:
            name, moved = unknown
            self.steps[name], more = divmod(new - want, moved)
            if more:
                return False
        elif new != want:
            return False
        return old.length is None or self._run_holds(before, at, old.length.number(variables))

    def _run_holds(self, before: list[int], at: int, length: int) -> bool:
        step = self.old.step
        for k in range(1, length):
            new = before[at + k * step] - before[at + (k - 1) * step]
            if self.step is None:
                self.step = new
            elif new != self.step:
                return False
        return True

    def form(self) -> tuple[Linear, int]:
        assert self.first is not None
        terms = [(name, self.steps.get(name, 0)) for name in self.names]
        base = self.base - sum([k * i for (_, k), i in zip(terms, self.first, strict=True)])
        kept = sorted([(name, k) for name, k in [*terms, *self.counters] if k])
        return Linear(base, tuple(kept)), self.step or 0


def _move_entries(steps: list[Step], program: Rolled, before: list[int]) -> None:
    """The addresses in the table, as far as they are of values."""
    moved: set[int] = set()
    for _, _, form, variables in _uses(TABLE, steps, {}, of=VALUES):
        at, length = form.place.number(variables), form.length.number(variables) if form.length else 1
        moved.update(range(at, at + length * form.step, form.step) if form.step else [at])
    for k in moved:
        program.table[k] = before[program.table[k]]


# Which addresses there are.


def _counters(steps: list[Step]) -> dict[str, str]:
    """Of each counter which array it counts."""
    known: dict[str, str] = {}
    moves = [(x.name, x.start if isinstance(x, Let) else x.to) for x in all_steps(steps) if isinstance(x, (Let, Set))]
    names = {name for name, _ in moves}
    for x in all_steps(steps):
        for _, form in _forms(x, {}):
            known.update((name, form.array) for name, _ in form.place.terms if name in names)
    more = True
    while more:
        more = False
        for name, place in moves:
            joined = {name, *[other for other, _ in place.terms if other in names]}
            arrays = {known[other] for other in joined & known.keys()}
            if arrays and not joined <= known.keys():
                known.update(dict.fromkeys(joined, *arrays))
                more = True
    return known


def _forms(x: Step, counters: dict[str, str], of: Any = None) -> Iterator[tuple[Slot, Form]]:
    """All forms of a step: (slot, form); of the table, if asked for, those alone whose entries are `of` that array."""
    sources: list[tuple[Slot, Any, Linear | None, int]] = []
    if isinstance(x, (Load, Give)):
        sources.append((("source",), x.source, None, 0))
    elif isinstance(x, For):
        sources += [(("carried", name), first, None, 0) for name, (first, _) in x.carried.items()]
    elif isinstance(x, Assign):
        sources += [(("input", j), y, None, 0) for j, y in enumerate(x.inputs)]
        sources += [
            (("term", t, j), y, terms.length, step)
            for t, terms in enumerate(x.terms)
            for j, (y, step) in enumerate(zip(terms.factors, terms.steps, strict=True))
        ]
        if x.store is not None:
            yield ("store",), Form(VALUES, x.store)
    elif x.name in counters:
        yield ("counter",), Form(counters[x.name], x.start if isinstance(x, Let) else x.to)
    for slot, y, length, step in sources:
        if isinstance(y, Entry):
            if of in (None, y.array):
                yield slot, Form(TABLE, y.place, length, step)
        elif isinstance(y, Cell) and isinstance(y.array, str):
            yield slot, Form(y.array, y.place, length, step)


def _uses(
    array: str, steps: list[Step], counters: dict[str, str], of: Any = None
) -> Iterator[tuple[Step, Slot, Form, dict[str, int]]]:
    """Each form of the array in each iteration, with the variables at that time."""
    variables: dict[str, int] = {}
    own = {id(x): [(slot, f) for slot, f in _forms(x, counters, of) if f.array == array] for x in all_steps(steps)}

    def walk(steps: list[Step]) -> Iterator[tuple[Step, Slot, Form, dict[str, int]]]:
        for x in steps:
            for slot, form in own[id(x)]:
                yield x, slot, form, variables
            if isinstance(x, Let):
                variables[x.name] = x.start.number(variables)
            elif isinstance(x, Set):
                variables[x.name] = x.to.number(variables)
            elif isinstance(x, For):
                for i in range(x.count.number(variables)):
                    variables[x.index] = i
                    yield from walk(x.body)

    return walk(steps)


def _replace(x: Step, forms: dict[Slot, tuple[Linear, int]]) -> None:
    """Put other forms in those slots of the step."""
    if not forms:
        return

    def put(slot: Slot, y: Any) -> Any:
        return y._replace(place=forms[slot][0]) if slot in forms else y

    if isinstance(x, (Load, Give)):
        x.source = put(("source",), x.source)
    elif isinstance(x, Let):
        x.start = forms[("counter",)][0]
    elif isinstance(x, Set):
        x.to = forms[("counter",)][0]
    elif isinstance(x, For):
        x.carried = {name: (put(("carried", name), y), z) for name, (y, z) in x.carried.items()}
    else:
        x.inputs = tuple([put(("input", j), y) for j, y in enumerate(x.inputs)])
        x.terms = tuple([
            terms._replace(
                factors=tuple([put(("term", t, j), y) for j, y in enumerate(terms.factors)]),
                steps=tuple([
                    forms["term", t, j][1] if ("term", t, j) in forms else step for j, step in enumerate(terms.steps)
                ]),
            )
            for t, terms in enumerate(x.terms)
        ])  # fmt: skip
        if ("store",) in forms:
            x.store = forms[("store",)][0]
