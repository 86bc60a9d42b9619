"""Python source text as code that runs on lists: what the two printers of this folder give back."""

from __future__ import annotations

import linecache
import math
import operator
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import chain, count, product, repeat
from time import perf_counter
from typing import Any

from milligrad.compiler.program import Array, Loop, Program, Reduce
from milligrad.ops import added

SERIAL = count(1)  # of the sources, for their file names
HELPERS = {
    "sum": added, "mul": operator.mul, "chain": chain, "repeat": repeat, "product": product, "log": math.log,
    "pow": math.pow, "inf": math.inf, "nan": math.nan,
}  # fmt: skip


class Code:
    """A program that can run: its source, and the lists that it runs on.

    Numbers are floats; whatever else does arithmetic with floats is taken, too. What Python's arithmetic raises
    (ValueError, ZeroDivisionError, OverflowError) passes through. Leaves and states are written back at the end of a
    call, so they are as they were before if it raises.

    source:  the text, which is also in `linecache`: tracebacks show it and debuggers step into it
    times:   seconds taken to "emit" the text and to "compile" it
    """

    kept_as = "python"  # see `kept.py`

    def __init__(self, program: Program, capacity: int, source: str, names: dict[str, Any], emit: float) -> None:
        start = perf_counter()
        self._names = {name: x for name, x in names.items() if HELPERS.get(name) is not x}
        filename = f"<milligrad {next(SERIAL)}>"
        linecache.cache[filename] = len(source), None, source.splitlines(keepends=True), filename
        weakref.finalize(self, linecache.cache.pop, filename, None)
        exec(compile(source, filename, "exec"), names)
        self.source, self.times = source, {"emit": emit, "compile": perf_counter() - start}
        self._run: Callable[..., None] = names["run"]
        self._capacity, self._sums_samples = capacity, sums_samples(program)
        self._arrays = program.arrays
        self._bound = [a for a in program.arrays if is_bound(a)]
        self._rows = [a for a in self._bound if is_row_input(a)]
        self._memory: dict[Array, list[float]] = {}

    def made_of(self) -> tuple[Any, ...]:
        """What `restored` makes the same of, in another process: see `kept.py`."""
        return self._arrays, self._capacity, self._sums_samples, self.source, self._names

    def instance(self) -> Code:
        """Another one of the same code, still to be bound."""
        return copy(self)

    def bind(self, memory: Mapping[Array, list[float]]) -> None:
        """Take the lists to run on: one for each array of the role input, leaf, state or output.

        It has `size` numbers, or `size` for each sample. Results are written into it. Raises ValueError if a list is
        missing or has a wrong length.
        """
        for a in self._bound:
            if a not in memory:
                raise ValueError(f"bind: expected a list for each array, got none for {a!r}")
            if _is_wrong(a, len(memory[a])):
                many = " for each sample" if a.per_sample else ""
                raise ValueError(f"bind: expected {a.size} numbers{many} for {a.name}, got {len(memory[a])}")
        self._memory = {a: memory[a] for a in self._bound}

    def __call__(self, n: int = 1) -> None:
        """Run once for n samples, which stand in the first n rows of the per-sample lists."""
        self._fits(n)
        self._start([(n, *[split(self._memory[a][: n * a.size], a.size) for a in self._rows])], self._memory)

    def rows(self, data: Mapping[Array, Sequence[float]], results: Mapping[Array, list[float]], count: int) -> None:
        """Run over `count` rows of the per-sample inputs in `data`, and write those of the per-sample outputs.

        Both are flat lists of `count` rows. A program that adds up over samples does so in blocks of `capacity` rows;
        any other takes all rows at once.
        """
        for what, arrays in (("data", data), ("results", results)):
            for a, xs in arrays.items():
                if len(xs) != count * a.size:
                    raise ValueError(f"rows: expected {count} rows of {a.size} in {what} of {a.name}, got {len(xs)}")
        block = self._capacity if self._sums_samples else max(count, 1)
        for at in range(0, count, block):
            n = min(block, count - at)
            inputs = [split(data[a][at * a.size : (at + n) * a.size], a.size) for a in self._rows]
            outputs = {a: [math.nan] * (n * a.size) for a in self._bound if a.per_sample and a.role == "output"}
            outputs |= {a: out[at * a.size : (at + n) * a.size] for a, out in results.items()}
            self._start([(n, *inputs)], {**self._memory, **outputs})
            for a, out in results.items():
                out[at * a.size : (at + n) * a.size] = outputs[a]

    def epoch(
        self,
        data: Mapping[Array, Sequence[Sequence[float]]],
        order: Sequence[int],
        batch: int,
        start: int,
        stop: int,
        *,
        count: Array | None = None,
        step: Array | None = None,
        first_step: float = 1.0,
        totals: Mapping[Array, list[float]] = {},
    ) -> None:
        """Run for the rows order[start:stop] of `data`, in batches of `batch`; the last one may be smaller.

        data:    for each per-sample input its rows, each a list
        count:   an input of one number that is set to how many rows the batch has
        step:    an input of one number that is set to first_step, first_step + 1, …
        totals:  for an output that is not per-sample, a list to which it is added after each batch
        """
        self._fits(max(min(batch, stop - start), 1))
        tables = [data[a] for a in self._rows]
        counts = [self._memory[count]] if count else []
        steps = [self._memory[step]] if step else []
        sums = [(total, self._memory[a]) for a, total in totals.items()]

        def batches() -> Iterator[tuple[Any, ...]]:
            for k, at in enumerate(range(start, stop, batch)):
                picked = order[at : min(at + batch, stop)]
                n = len(picked)
                for xs in counts:
                    xs[0] = float(n)
                for xs in steps:
                    xs[0] = first_step + k
                yield n, *[[table[i] for i in picked] for table in tables]
                for total, output in sums:
                    total[:] = map(operator.add, total, output)

        self._start(batches(), self._memory)

    def _start(self, batches: Iterable[tuple[Any, ...]], memory: Mapping[Array, list[float]]) -> None:
        self._run(batches, *[memory[a] for a in self._bound])

    def _fits(self, n: int) -> None:
        """Raises ValueError unless n samples can be run at once on the lists that are bound."""
        if self._bound and not self._memory:
            raise ValueError("bind the lists to run on before running")
        if not 1 <= n <= self._capacity:
            raise ValueError(f"expected 1 to {self._capacity} samples at once, got {n}")
        for a, xs in self._memory.items():
            if a.per_sample and a not in self._rows and len(xs) < n * a.size:
                raise ValueError(f"expected {n} rows of {a.size} numbers for {a.name}, got {len(xs)} numbers")


def restored(arrays: list[Array], capacity: int, sums_samples: bool, source: str, names: dict[str, Any]) -> Code:
    """The Code that was `made_of` that."""
    code = Code(Program(arrays, []), capacity, source, {**HELPERS, **names}, 0.0)
    code._sums_samples, code.times = sums_samples, {}
    return code


def is_bound(a: Array) -> bool:
    return a.role not in ("constant", "value")


def is_row_input(a: Array) -> bool:
    return a.per_sample and a.role == "input"


def _is_wrong(a: Array, length: int) -> bool:
    return length % max(a.size, 1) != 0 or length < a.size if a.per_sample else length != a.size


def split(xs: Sequence[float], width: int) -> list[Sequence[float]]:
    return [xs[k : k + width] for k in range(0, len(xs), width)]


def sums_samples(program: Program) -> bool:
    return any(map(adds_up_samples, program.loops))


def adds_up_samples(loop: Loop) -> bool:
    """Whether some sum of the loop is one over samples."""
    return any(s.over_samples for step in loop.steps if isinstance(step, Reduce) for s in step.segments)
