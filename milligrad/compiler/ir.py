"""What `roll` makes of a graph: loops and statements, in the order in which they run.

    Statement   computes one number from others: an op of the table, of operands
    Loop        runs its body, statements and loops, `count` times; an iteration may read what earlier ones computed
    Operand     a number that is known, or where a number is

Every number that a program computes has an address of its own in one array of values: the k-th number computed, in the
order of running, is at address k. So a statement needs no place for its result, and "7 back" means the number that was
computed seven numbers before, wherever that is. The constants, the tables' entries and the outputs that statements use
are laid out in the order in which they are used, too: each statement takes the next.

What an operand says of its place is `Affine`: base + Σ index·step over the loops around it, outermost first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

from milligrad.engine import Op


class Affine(NamedTuple):
    """base + Σ index·step over the loops around it, outermost first."""

    base: int
    steps: tuple[int, ...] = ()


class Back(NamedTuple):
    """The number computed so many numbers before."""

    distance: Affine


class At(NamedTuple):
    """A number of the leaves, of the array with that number."""

    array: int
    place: Affine


class LookedUp(NamedTuple):
    """A number whose place stands in the table's next entry: in the array of leaves with that number, or an address."""

    array: int | None


class Next(NamedTuple):
    """The next constant."""


Operand: TypeAlias = "Back | At | LookedUp | Next | float"


class Run(NamedTuple):
    """Inputs of an op of many inputs: `length` products of `factors`, each of which goes on by its step."""

    length: Affine
    factors: tuple[Operand, ...]
    steps: tuple[int, ...]


@dataclass(eq=False, slots=True)
class Statement:
    """One number computed: `op` of the inputs, or of all that the runs give. Without an op it is the next output."""

    op: Op | None
    inputs: tuple[Operand, ...] = ()
    runs: tuple[Run, ...] = ()


@dataclass(eq=False, slots=True)
class Loop:
    """`count` iterations of the body, one after the other; at least one."""

    count: Affine
    body: list[Statement | Loop]


def describe(body: Sequence[Statement | Loop]) -> list[str]:
    """A line for each loop, and for statements between loops: the ops, and how often."""
    lines: list[str] = []
    for is_loop, group in groupby(body, lambda x: isinstance(x, Loop)):
        if is_loop:
            for loop in group:
                assert isinstance(loop, Loop)
                grows = any(loop.count.steps)
                times = f"{loop.count.base:,} and more times" if grows else f"{loop.count.base:,} times"
                inner = describe(loop.body)
                lines += [f"{times}: {inner[0]}"] if len(inner) == 1 else [f"{times}:", *[f"  {x}" for x in inner]]
        else:
            ops = Counter(x.op.name if x.op else "output" for x in group if isinstance(x, Statement))
            lines.append(", ".join([name if n == 1 else f"{n} × {name}" for name, n in ops.items()]))
    return lines


@dataclass(eq=False, slots=True)
class Rolled:
    """A program: what to run, and what it runs on.

    constants, table:  in the order in which they are used
    values, outputs:   how many numbers are computed, and handed out
    """

    body: list[Statement | Loop]
    constants: list[float] = field(default_factory=list)
    table: list[int] = field(default_factory=list)
    values: int = 0
    outputs: int = 0

    def loops(self) -> int:
        """How many loops are written."""
        found, stack = 0, [*self.body]
        while stack:
            x = stack.pop()
            if isinstance(x, Loop):
                found += 1
                stack += x.body
        return found

    def statements(self) -> Iterator[Statement]:
        """All statements, each once."""
        stack: list[Any] = [*reversed(self.body)]
        while stack:
            x = stack.pop()
            if isinstance(x, Loop):
                stack += reversed(x.body)
            else:
                yield x
