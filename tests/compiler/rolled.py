"""Two slow and obvious interpreters, of rolled programs and of the steps that `in_registers` makes of them.

They know nothing of the printers and share no code with the passes. Numbers that were not stored, names that were not
given and entries that were not used are errors, as a number out of nowhere could be right by chance.

`traced` brings a function of lists of numbers so far; `forced` makes `compile` take this way for every function.
"""

from __future__ import annotations

import math
from itertools import islice

import pytest

from milligrad.compiler import ir, pipeline
from milligrad.compiler.passes import registers
from milligrad.compiler.passes.registers import in_registers
from milligrad.compiler.passes.roll import roll
from milligrad.compiler.passes.simplify import REFUSING, simplify
from milligrad.compiler.python.ieee import unrefusing
from milligrad.compiler.trace import Trace, captured, needed
from milligrad.engine import Value


def forced(monkeypatch):
    """Every function that `compile` compiles is a program in order, be it shorter or not."""
    for name, number in (("DEEP", 0), ("MANY", 0), ("SHARE", 10**9), ("MOST", 10**9)):
        monkeypatch.setattr(pipeline, name, number)


@pytest.fixture
def in_order(monkeypatch):
    forced(monkeypatch)


class Traced:
    """f of lists of Symbols: graph, rolled program, steps; and the numbers of its leaves for the lists.

    `lists` are lists of floats; those whose number is in `values` are given to f as Values, which it captures. Arrays
    of leaves are the lists that are not, in order, and one of all that is captured, if anything is.
    """

    def __init__(self, f, lists, values=()):
        trace = Trace()
        given = [[Value(x) for x in xs] if k in values else trace.input(f"x{k}", len(xs)) for k, xs in enumerate(lists)]
        for xs in trace.inputs.values():
            for x in xs:
                x.requires_grad = True
        with trace.running():
            outputs = f(*given)
        kept = captured(trace.tape, needed(trace.tape, outputs), outputs)
        sources = [*trace.inputs.values(), *([kept] if kept else [])]
        self.arrays = [list(map(float, lists[int(name[1:])])) for name in trace.inputs]
        self.arrays += [[v.data for v in kept]] if kept else []
        self.graph = simplify(trace.tape, outputs)
        self.rolled = roll(self.graph, {x: (k, i) for k, xs in enumerate(sources) for i, x in enumerate(xs)})
        self.steps = in_registers(self.rolled)

    def interpreted(self):
        """The outputs by both interpreters."""
        return outputs_of(self.rolled, self.arrays), outputs_of_steps(self.steps, self.rolled, self.arrays)


def traced(f, *lists, values=()):
    return Traced(f, lists, values)


def applied(op, xs):
    return (unrefusing(op) if op in REFUSING else op.value)(*xs)


# Rolled programs.


def outputs_of(program, arrays):
    """What the program computes of these arrays of leaves."""
    machine = Machine(program, arrays)
    machine.body(program.body, ())
    assert next(machine.constants, None) is None, "constants left over"
    assert next(machine.table, None) is None, "entries of the table left over"
    assert (len(machine.values), len(machine.outputs)) == (program.values, program.outputs)
    return machine.outputs


class Machine:
    """What a program has computed so far, and how many constants and entries it has used."""

    def __init__(self, program, arrays):
        self.arrays, self.values, self.outputs = arrays, [], []
        self.constants, self.table = iter(program.constants), iter(program.table)

    def body(self, body, indices):
        for x in body:
            if isinstance(x, ir.Loop):
                count = number(x.count, indices)
                assert count >= 1
                for i in range(count):
                    self.body(x.body, (*indices, i))
            else:
                self.statement(x, indices)

    def statement(self, x, indices):
        inputs = [self.operand(y, indices) for y in x.inputs]
        if x.op is None:
            self.outputs += inputs
            return
        self.values.append(applied(x.op, self.of_runs(x, indices) if x.runs else inputs))

    def of_runs(self, x, indices):
        """The inputs that the runs give: for `dot` all first factors, then all second ones."""
        terms = []
        for run_ in x.runs:
            length = number(run_.length, indices)
            assert length >= 1
            columns = [self.column(y, step, length, indices) for y, step in zip(run_.factors, run_.steps, strict=True)]
            terms += zip(*columns, strict=True)
        if x.op.name != "dot":
            return [x for (x,) in terms]
        return [xs[0] for xs in terms] + [xs[1] if len(xs) > 1 else 1.0 for xs in terms]

    def column(self, x, step, length, indices):
        if isinstance(x, ir.Next | ir.LookedUp):
            return [self.operand(x, indices) for _ in range(length)]
        return [self.operand(x, indices, step * k) for k in range(length)]

    def operand(self, x, indices, more=0):
        if isinstance(x, ir.Next):
            (z,) = islice(self.constants, 1)
            return z
        if isinstance(x, ir.LookedUp):
            (place,) = islice(self.table, 1)
            return self.at(self.values if x.array is None else self.arrays[x.array], place)
        if isinstance(x, ir.At):
            return self.at(self.arrays[x.array], number(x.place, indices) + more)
        distance = number(x.distance, indices) + more
        assert distance >= 1
        return self.at(self.values, len(self.values) - distance)

    @staticmethod
    def at(array, place):
        assert 0 <= place < len(array), f"place {place} of {len(array)}"
        return array[place]


def number(x, indices):
    """What an `Affine` place or count is in an iteration."""
    assert len(x.steps) == len(indices)
    return x.base + sum(i * step for i, step in zip(indices, x.steps))


# Steps.


def outputs_of_steps(steps, program, arrays):
    """What the steps compute of these arrays of leaves. Numbers that are not stored are not there."""
    machine = Registers(program, arrays)
    machine.steps(steps)
    assert all(machine.read.intersection(places) for places in machine.kept.values()), "stored, and never read"
    assert sorted(machine.outputs) == list(range(program.outputs))
    return [machine.outputs[i] for i in range(program.outputs)]


class Registers:
    """Names, and what was stored. Each name and each address is given one number in an iteration, before it is read."""

    def __init__(self, program, arrays):
        self.memory = {"constants": dict(enumerate(program.constants)), "values": {}}
        self.memory |= {k: dict(enumerate(xs)) for k, xs in enumerate(arrays)}
        self.kept, self.read = {}, set()  # of each step that stores, where; what was read from memory
        self.table, self.outputs = dict(enumerate(program.table)), {}
        self.names = {}  # of numbers
        self.variables = {}  # indices and counters

    def steps(self, steps):
        for x in steps:
            getattr(self, type(x).__name__)(x)

    def Load(self, x):
        self.names[x.name] = self.source(x.source)

    def Assign(self, x):
        if x.terms:
            terms = [term for run_ in x.terms for term in self.run(run_)]
            xs = [xs[0] for xs in terms]
            if x.op.name == "dot":
                xs += [xs[1] if len(xs) > 1 else 1.0 for xs in terms]
        else:
            xs = [self.source(y) for y in x.inputs]
        self.names[x.name] = applied(x.op, xs)
        if x.store is not None:
            place = self.number(x.store)
            assert place not in self.memory["values"], "an address is written once"
            self.memory["values"][place] = self.names[x.name]
            self.kept.setdefault(id(x), []).append(place)

    def run(self, x):
        length = self.number(x.length)
        assert length >= 1
        return zip(*[[self.source(y, k * step) for k in range(length)] for y, step in zip(x.factors, x.steps)])

    def Give(self, x):
        place = self.number(x.place)
        assert place not in self.outputs
        self.outputs[place] = self.source(x.source)

    def Let(self, x):
        self.variables[x.name] = self.number(x.start)

    def Set(self, x):
        assert x.name in self.variables
        self.variables[x.name] = self.number(x.to)

    def For(self, x):
        self.names |= {name: self.source(first) for name, (first, _) in x.carried.items()}
        before, count = set(self.names), self.number(x.count)
        assert count >= 1
        for i in range(count):
            self.variables[x.index] = i
            self.steps(x.body)
            self.names |= {name: self.names[after] for name, (_, after) in x.carried.items()}
            self.names = {name: z for name, z in self.names.items() if name in before}
        del self.variables[x.index]

    def source(self, x, more=0):
        if isinstance(x, float):
            return x
        if isinstance(x, registers.Name):
            return self.names[x.name]
        place = self.number(x.place) + more
        if isinstance(x, registers.Entry):
            place = self.table[place]
        if x.array == "values":
            self.read.add(place)
        return self.memory[x.array][place]

    def number(self, x):
        return x.constant + sum(k * self.variables[name] for name, k in x.terms)


def loops(body):
    """The loops of a program, as (count, number of statements in it without those of its own loops, its loops)."""
    return [
        (tuple(x.count), sum(isinstance(y, ir.Statement) for y in x.body), loops(x.body))
        for x in body
        if isinstance(x, ir.Loop)
    ]


def assert_close(found, expected, tolerance=1e-12):
    """Equal, relative to the largest number; where that is none, both are none."""
    assert len(found) == len(expected)
    scale = max(1.0, *[abs(x) for x in expected if math.isfinite(x)], 0.0)
    for x, y in zip(found, expected):
        assert x == y or abs(x - y) <= tolerance * scale or (x != x and y != y), (x, y)
