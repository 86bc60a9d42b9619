"""Code with the memory that it works on: everything that is compiled runs as an Executable."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from milligrad.compiler.backends import Memory
from milligrad.compiler.passes.split import Staged, Threads
from milligrad.compiler.pipeline import Clock, Made, explained
from milligrad.compiler.program import Array
from milligrad.engine import Value, number
from milligrad.random import plain

SCREEN = 30  # lines of loops that `explain` shows


class Executable:
    """Code, its buffers, and the numbers of Values that it uses, which are looked up in each call.

    made:     what came of the passes
    arrays:   what is handed in and out. It has buffers for them, but for those with a row for each sample, which each
              call brings along
    state:    buffers that it shares with others: parameters, what an optimizer remembers
    known:    arrays of plain numbers and Values besides the captured ones
    threads:  how many run it, each on its part of the samples, of which there are `capacity` at most
    """

    def __init__(
        self, made: Made, clock: Clock, memory: Memory, arrays: Sequence[Array], state: Mapping[Array, Any] = {},
        known: Mapping[Array, Sequence[Any]] = {}, threads: int = 1, capacity: int = 1,
    ) -> None:  # fmt: skip
        self.program, code, (captures, self.captured) = made
        self.clock, self.memory = clock, memory
        own = [a for a in (*arrays, captures, *known) if not a.per_sample]
        self.buffers = {**{a: memory.zeros(a.size) for a in own}, **state}
        self._captures, self._known = captures, dict(known)
        self._fill_known()
        self._known = {a: xs for a, xs in known.items() if any([isinstance(x, Value) for x in xs])}
        self.split = Threads(code, threads, capacity, self.buffers, memory) if isinstance(code, Staged) else None
        self.code: Any = self.split or code
        if not self.split:
            memory.bind(code, self.program, self.buffers)

    def look_up(self) -> None:
        """Put the numbers of Values into memory, as they are now."""
        if self._known:
            self._fill_known()
        if self.captured:
            self.memory.fill(self.buffers[self._captures], [v.data for v in self.captured])

    def _fill_known(self) -> None:
        for a, numbers in self._known.items():
            self.memory.fill(self.buffers[a], [number(x) for x in numbers])

    def __call__(self, given: Mapping[Array, Sequence[float]]) -> None:
        """Run once, on these numbers."""
        for a, numbers in given.items():
            if a.size:
                self.memory.fill(self.buffers[a], numbers)
        self.run()

    def run(self) -> None:
        """Run on what is in the buffers. Python's code raises an error where there is no number."""
        if self.captured or self._known:
            self.look_up()
        self.code()

    def rows(self, data: Mapping[Array, Any], result: Array, count: int) -> Any:
        """The results of `count` rows, one after the other. `data` are flat buffers of the arrays that have rows."""
        self.look_up()
        results = self.memory.zeros(count * result.size)
        self.code.rows({a: rows for a, rows in data.items() if a in self.program.arrays}, {result: results}, count)
        return results

    def epoch(
        self, data: Mapping[Array, Any], order: Sequence[int], batch: int, count: Array, step: Array, first_step: int,
        totals: Array,
    ) -> list[float]:  # fmt: skip
        """What adds up in the array `totals` over the batches of the samples order[0], order[1], ….

        The arrays `count` and `step` get how many samples a batch has, and which step this is.
        """
        self.look_up()
        positions = order if isinstance(order, array) else array("q", order)
        if self.split:
            return self._epoch_in_parts(data, positions, batch, count, step, first_step, totals)
        arrays = self.program.arrays
        data = {a: rows for a, rows in data.items() if a in arrays}
        sums = Memory("llvm").zeros(totals.size) if self.memory.typecode else [0.0] * totals.size
        self.code.epoch(
            data, positions, batch, 0, len(order),
            count=count if count in arrays else None, step=step if step in arrays else None,
            first_step=float(first_step), totals={totals: sums},
        )  # fmt: skip
        return list(sums)

    def _epoch_in_parts(
        self, data: Any, positions: Any, batch: int, count: Array, step: Array, first_step: int, totals: Array
    ) -> list[float]:
        sums, buffers = [0.0] * totals.size, self.buffers
        for k, start in enumerate(range(0, len(positions), batch)):
            stop = min(start + batch, len(positions))
            self.memory.fill(buffers[count], [float(stop - start)])
            self.memory.fill(buffers[step], [float(first_step + k)])
            self.code.run(data, positions, start, stop)
            sums = [total + x for total, x in zip(sums, buffers[totals])]
        return sums

    def explain(self, what: str, most: int = 0) -> list[str]:
        """Lines that tell of the program; see `pipeline.explained`."""
        return explained(what, self.program, self.clock, self.code, most)


def drawn(count: int) -> list[float]:
    """So many random numbers, as eager code would draw them. (The generator is left alone if there are none.)"""
    if not count:
        return []
    draw = plain()
    return [draw() for _ in range(count)]
