"""What one iteration of an outermost loop has stored and nobody needs any more, the next one stores over.

Every number computed has an address of its own, so that a program that computes numbers again, to remember fewer, would
gain nothing by it. Here a store in an outermost loop takes the same places in all of its iterations, as long as each
read still finds its number: that is looked at for each of them, as in compact.py, which then leaves out what is free.
"""

from __future__ import annotations

from milligrad.compiler.ir import Rolled
from milligrad.compiler.passes.compact import Form, Key, _counters, _moved, _replace, _uses, compact
from milligrad.compiler.passes.registers import TABLE, VALUES, For, Step, all_steps

STORE = ("store",)
Reads = list[tuple[Key, dict[str, int], range | list[int]]]


def overlay(steps: list[Step], program: Rolled) -> list[Step]:
    """The same steps, which are changed, as is the size of the program's array of values."""
    if next(_uses(TABLE, steps, {}, of=VALUES), None):
        return steps  # a table knows addresses, wherever they are
    counters = _counters(steps)
    places = _Places(steps, program, counters)
    while True:
        new = places.new()
        lost = places.lost(new)
        if lost:
            places.keep(lost)
            continue
        fits, wrong = _moved(VALUES, new, steps, counters)
        if wrong is None:
            break
        if not places.fit(wrong, new):
            return steps
    for x in all_steps(steps):
        _replace(x, {slot: fit.form() for (i, slot), fit in fits.items() if i == id(x)})
    program.values = max(new[:-1], default=-1) + 1
    return compact(steps, program, arrays=(VALUES,))


class _Places:
    """Where each number is put.

    stored:   of an address: which slot stores it
    back:     and how far it moves back, to where that of the first iteration is; and all that move go behind the others
    lasting:  the slots whose numbers stay where they are
    shift:    of slots before a loop, which are read by it: how far they move on, to where those of its iterations are
    """

    def __init__(self, steps: list[Step], program: Rolled, counters: dict[str, str]) -> None:
        self.size = program.values
        loops = [x for x in steps if isinstance(x, For) and any([isinstance(y, For) for y in x.body])]
        self.outer = {id(x): loop.index for loop in loops for x in all_steps(loop.body)}
        self.reads: Reads = []
        self.forms: dict[Key, Form] = {}
        self.stored: dict[int, Key] = {}
        self.back: dict[int, int] = {}
        for x, slot, form, variables in _uses(VALUES, steps, counters):
            key = id(x), slot
            self.forms[key] = form
            addresses = _addresses(form, variables)
            self.reads.append((key, {**variables}, addresses))
            if slot == STORE:
                self.stored[addresses[0]] = key
                index = self.outer.get(id(x))
                self.back[addresses[0]] = form.place.step(index) * variables[index] if index else 0
        self.lasting = {key for key in self.stored.values() if key[0] not in self.outer}
        self.shift: dict[Key, int] = {}

    def new(self) -> list[int]:
        """The new place of each address, and of what would come after them."""
        new = [*range(self.size + 1)]
        for at, key in self.stored.items():
            new[at] += self.shift.get(key, 0) if key in self.lasting else self.size - self.back[at]
        return new

    def lost(self, new: list[int]) -> set[Key]:
        """The slots of which a number would be read after another one was stored in its new place."""
        found: dict[int, int] = {}  # what stands at a place
        lost = set()
        stored = self.stored
        for (_, slot), _, addresses in self.reads:
            if slot == STORE:
                found[new[addresses[0]]] = addresses[0]
            else:
                for at in addresses:
                    if at in stored and found.get(new[at]) != at:
                        lost |= {stored[at], stored[found.get(new[at], at)]}
        return lost

    def keep(self, slots: set[Key]) -> bool:
        """These stay where they are; whether any of them did not."""
        more = bool(slots - self.lasting) or any([slot in self.shift for slot in slots])
        self.lasting |= slots
        for slot in slots & self.shift.keys():
            self.shift[slot] = 0
        return more

    def fit(self, wrong: Key, new: list[int]) -> bool:
        """Move something so that what is read there has a form; whether there was anything."""
        index = self.outer.get(wrong[0], "")
        step = self.forms[wrong].place.step(index)
        read = [
            (at, step * variables.get(index, 0)) for key, variables, some in self.reads if key == wrong for at in some
        ]
        read = [(at, moved) for at, moved in read if at in self.stored]
        slots = {self.stored[at] for at, _ in read}
        still = {x for x in slots & self.lasting if not self.shift.get(x)}
        by = {new[at] - at + moved for at, moved in read if self.stored[at] not in still}
        wanted = {(self.stored[at], more - moved) for at, moved in read for more in by if self.stored[at] in still}
        if len(by) == 1 and len(wanted) == len(still) > 0 and not still & self.shift.keys():
            self.shift.update(wanted)
            return True
        return self.keep(slots)


def _addresses(form: Form, variables: dict[str, int]) -> range | list[int]:
    at, length = form.place.number(variables), form.length.number(variables) if form.length else 1
    return range(at, at + length * form.step, form.step) if form.step else [at]
