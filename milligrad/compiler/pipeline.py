"""The passes, in order: from a trace to code.

    Task    what is to be compiled, and what the passes have made of it so far
    Pass    reads one part of it and makes the next one
    PASSES  all of them; the only place that says which one follows which

Before them stands the trace, of a function (`compiled.py`) or of a batch (`batch.py`), and after them what runs code
(`executable.py`). A program goes one of two ways: in the order of the trace, which is that of the loops that the user
wrote, or regrouped by level, which fills vectors where much stands side by side; see `goes_in_order`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, NamedTuple

from milligrad.compiler import backends, ir, kept
from milligrad.compiler.ir import Rolled
from milligrad.compiler.passes.apart import apart
from milligrad.compiler.passes.fuse import fuse
from milligrad.compiler.passes.overlay import overlay
from milligrad.compiler.passes.registers import Step, in_registers
from milligrad.compiler.passes.reroll import Layout, describe, reroll
from milligrad.compiler.passes.roll import roll_evenly, roll_within
from milligrad.compiler.passes.simplify import Graph, simplify
from milligrad.compiler.passes.split import after, alone, most, staged
from milligrad.compiler.program import Array, Program
from milligrad.compiler.trace import Tape, total

DEEP = 50  # groups of nodes side by side (of one level and op), from which on they may be loops in time
WIDE = 64  # nodes in such a group on the average, from which on groups are the better program: they fill vectors
MANY = 1_000  # groups that take too long to translate one by one
SHARE = 1 / 4  # statements for a number computed, at most: with more it is no loops
WIDTH = 120  # characters of a screen, in which `explain` tells of a loop
MOST = 1_500  # statements of such a program: what takes LLVM's optimisers some seconds


@dataclass(eq=False)
class Task:
    """What is to be compiled, and what the passes have made of it so far.

    tape, outputs:    the trace, and the numbers that count
    inputs, results:  the arrays that are handed in, of Symbols, and out, of positions among the outputs
    lasting:          arrays of Values that others share; the Values that are in none of them are `captures`
    update:           appends the loops that change them
    capacity:         for how many samples at a time, in so many threads
    exact:            code that raises nothing, and to which 0 times inf is 0 in the chain rule
    """

    tape: Tape
    outputs: Sequence[Any]
    inputs: Sequence[Layout]
    results: Sequence[Layout]
    backend: str
    dtype: str = "float64"
    exact: bool = False
    capacity: int = 1
    threads: int = 1
    lasting: Sequence[Layout] = ()
    update: Callable[[Program], None] | None = None

    first: Task | None = None  # what is computed before it, sample by sample; see `apart`
    graph: Graph = None  # type: ignore[assignment]
    captures: Layout = None  # type: ignore[assignment]
    rolled: Rolled | None = None
    steps: list[Step] | None = None
    program: Program = None  # type: ignore[assignment]
    code: Any = None

    def leaves(self) -> list[Layout]:
        """All that the graph starts from, but constants."""
        return [x for x in (*self.inputs, *self.lasting, self.captures) if x.numbers]


class Pass(NamedTuple):
    """A pass: its name, what it makes of what, the function, and for which tasks it is run."""

    name: str
    purpose: str
    run: Callable[[Task], None]
    applies: Callable[[Task], Any] = lambda task: True


def is_new(task: Task) -> bool:
    """Whether no pass has seen it."""
    return task.graph is None


def _simplify(task: Task) -> None:
    task.graph = simplify(task.tape, task.outputs, task.exact)
    known = {v for layout in task.lasting for v in layout.numbers}
    others = [v for v in task.graph.captured() if v not in known]
    task.captures = Layout(Array("captured", len(others), "leaf"), others)


def goes_in_order(task: Task) -> bool:
    """Whether the program may be shorter in the order of the trace: loops in time are."""
    if not is_plain(task):
        return False
    groups, wide = _groups(task.graph)
    return groups >= DEEP and (groups >= MANY or not wide or task.graph.again)


def is_plain(task: Task) -> bool:
    """Whether it ends with one array of results: no optimizer's loops follow, and nothing adds up over samples."""
    return len(task.results) == 1 and not task.update and total not in task.graph.op


def falls_apart(task: Task) -> bool:
    """Whether a part of it is to be made so that it does, and may go in order."""
    if is_plain(task):
        return False
    groups, wide = _groups(task.graph)
    return groups >= MANY and not wide


def _groups(graph: Graph) -> tuple[int, bool]:
    """How many groups of a level and an op there are, and whether many nodes stand side by side in one."""
    groups = len({*zip(graph.level, graph.op)})
    return groups, len(graph) > WIDE * groups


def _apart(task: Task) -> None:
    """A task of its own for what goes in the order of the trace, and this one goes on from there."""
    inputs = [x for x in task.inputs if x.array.per_sample]
    parts = apart(task.graph, [number for x in inputs for number in x.numbers])
    if not parts:
        return
    terms, sampled = len(parts.terms), bool(inputs)
    given, taken = (Array("terms", terms, role, sampled) for role in ("output", "input"))
    results, capacity = [Layout(given, range(terms))], most(task.capacity, task.threads)
    task.first = replace(task, graph=parts.first, results=results, update=None, capacity=capacity, threads=1)
    task.graph = parts.second
    task.inputs = [Layout(taken, parts.terms), *[x for x in task.inputs if not x.array.per_sample]]


def _roll(task: Task) -> None:
    graph, leaves = task.graph, task.leaves()
    places = {x: (k, i) for k, (_, xs) in enumerate(leaves) for i, x in enumerate(xs)}
    if graph.again:
        task.rolled = roll_evenly(graph, places)  # whose addresses stand in no tables, see overlay.py
    else:
        task.rolled = roll_within(graph, places, min(MOST, len(graph) * SHARE))
    rolled = task.rolled
    if rolled is not None:
        statements = len(list(rolled.statements()))
        task.program = Program([*[x.array for x in leaves], task.results[0].array], [])
        task.program.info.update(
            nodes=len(graph) - len(graph.source),
            shape=f"{statements:,} statements in {rolled.loops():,} loops, in order",
            lines=ir.describe(rolled.body),
        )


def _registers(task: Task) -> None:
    assert task.rolled is not None
    task.steps = in_registers(task.rolled)
    if task.graph.again:
        overlay(task.steps, task.rolled)


def _reroll(task: Task) -> None:
    task.program = reroll(task.graph, task.leaves(), task.results)


def _update(task: Task) -> None:
    assert task.update is not None
    task.update(task.program)


def _fuse(task: Task) -> None:
    task.program = fuse(task.program)


def _print(task: Task) -> None:
    def built(program: Program, capacity: int) -> Any:
        return backends.build(program, task.backend, capacity, task.dtype, task.exact)

    if task.threads > 1:
        task.code = staged(task.program, task.threads, task.capacity, built)
    elif task.rolled is None:
        task.code = built(task.program, task.capacity)
        if task.first:
            task.code = alone(task.program, task.code, task.inputs[0].array.per_sample)
    else:
        assert task.steps is not None
        task.code = backends.build_in_order(
            task.program, task.rolled, task.steps, task.backend, task.capacity, task.dtype, task.exact
        )


PASSES = [
    Pass("simplify", "tape → graph: what is needed, once; constants folded, sums of products", _simplify, is_new),
    Pass("apart", "graph → the terms of a sample, and what follows from their sums", _apart, falls_apart),
    Pass("roll", "graph → loops in the order of the trace", _roll, goes_in_order),
    Pass("registers", "those → steps: addresses written out, numbers in registers", _registers, lambda x: x.rolled),
    Pass("reroll", "graph → a loop for each group of a level", _reroll, lambda x: x.rolled is None),
    Pass("update", "these → with clipping and the optimizer's rule", _update, lambda x: x.update),
    Pass("fuse", "loops over the same indices → one", _fuse, lambda x: x.rolled is None and x.threads == 1),
    Pass("print", "loops or steps → code of a backend, in stages for threads", _print),
]


class Clock:
    """The seconds that each pass took."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = perf_counter()
        try:
            yield
        finally:
            self.times[name] = self.times.get(name, 0.0) + perf_counter() - start


@contextmanager
def collector_paused() -> Iterator[None]:
    """Without the cyclic garbage collector: the 10⁵ objects of a trace are no garbage, and it would walk them all."""
    paused = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if paused:
            gc.enable()


class Made(NamedTuple):
    """What came of a task: the program, its code, and the Values that it captures, with their array."""

    program: Program
    code: Any
    captures: Layout


def made(task: Task, clock: Clock) -> Made:
    """Run the passes."""
    with collector_paused():
        _run(task, clock)
        first = task.first
        if first:
            _run(first, clock)
            terms = first.results[0].array, task.inputs[0].array
            task.code = after(first.program, first.code, terms, task.code)
            shape, lines = _described(first.program)
            rest, more = _described(task.program)
            task.program.info.update(shape=f"{shape}; then {rest}", lines=[*lines, "then:", *more])
            task.program.info["nodes"] += first.program.info["nodes"]
    task.program.info["traced"] = len(task.tape)
    clock.times.pop("print")  # its parts are told by the code
    return Made(task.program, task.code, task.captures)


def _run(task: Task, clock: Clock) -> None:
    for each in PASSES:
        if each.applies(task):
            with clock(each.name):
                each.run(task)


def found_or_made(
    key: str, given: Sequence[Array], seen: kept.Seen, clock: Clock, task: Callable[[], Task],
    shared: Callable[[], Made | None] = lambda: None,
) -> Made:  # fmt: skip
    """What was kept of an earlier process under the key, or what is made now, which is kept then.

    That is what comes of the task, unless other code can be `shared`.
    """
    if not key:  # there is no cache, or an op that is not known
        clock.times.pop("cache", None)
        return shared() or made(task(), clock)
    with clock("cache"):
        known = kept.recall(key, given)
    if known:
        program, code, array, places = known
        return Made(program, code, Layout(array, seen.values_at(places)))
    result = shared() or made(task(), clock)
    program, code, (array, values) = result
    told(program, clock, code)
    with clock("cache"):
        kept.keep(key, (program, code, array, [seen[v] for v in values]), given)
    return result


def told(program: Program, clock: Clock, code: Any) -> dict[str, Any]:
    """What there is to tell of a program, which is kept with it: its shape, its loops, and the times of the passes."""
    info = program.info
    if code.times:  # it was made here
        info["shape"], info["lines"] = _described(program)
        passes = {name: t for name, t in clock.times.items() if name not in ("trace", "cache")}
        info["times"] = {**passes, **code.times}
    return info


def _described(program: Program) -> tuple[str, list[str]]:
    """The shape of a program, and its loops."""
    info = program.info
    if "lines" in info:
        return info["shape"], info["lines"]
    return f"{info['groups']:,} groups, {len(program.loops):,} loops", describe(program.loops)


def explained(what: str, program: Program, clock: Clock, code: Any, most: int = 0) -> list[str]:
    """Lines that tell of a program: nodes, the time of each pass, and at most so many loops, a screen wide; 0: all.

    The times are those of this process, and those of the one that the code was kept of.
    """
    info = told(program, clock, code)
    times, lines = info["times"], info["lines"]
    before = {name: t for name, t in times.items() if name not in clock.times and not code.times}
    lists = [{**clock.times, **({} if before else times)}, before]
    shown = [", ".join([f"{name}: {1000 * t:.1f} ms" for name, t in each.items()]) for each in lists if each]
    if most and len(lines) > most:
        lines = [*lines[: most - 1], f"… and {len(lines) - most + 1:,} more"]
    if most:
        lines = [line if len(line) <= WIDTH else f"{line[: WIDTH - 2]} …" for line in lines]
    nodes = f"{info['traced']:,} nodes traced, {info['nodes']:,} after simplify, {info['shape']}"
    return [what + nodes, "; taken from the cache, made in ".join(shown), *lines]
