"""A function's code for one shape of its arguments, and one kind of use: what a call of a compiled function runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from milligrad.compiler import kept
from milligrad.compiler.backends import Memory
from milligrad.compiler.executable import SCREEN, Executable, drawn
from milligrad.compiler.passes import counts
from milligrad.compiler.passes.reroll import Layout
from milligrad.compiler.pipeline import Clock, Made, Task, found_or_made
from milligrad.compiler.program import Array
from milligrad.compiler.structure import NUMBER, Structure, packer, size
from milligrad.compiler.trace import Trace
from milligrad.engine import Value
from milligrad.nn.reads import Reads

BLOCK = 256  # rows that `map` computes at a time: their intermediate numbers stay in the cache

Exactly: TypeAlias = "Callable[[], Variant]"


@dataclass
class Variant:
    """The code for one shape of the arguments, and the memory that it works on.

    Where it finds no number, or one that is not finite, `exact` code says whether the result depends on that: it is
    slower, knows no error, and 0 times inf is 0 in its chain rule (see `simplify.Builder`). It is made when needed.
    """

    arguments: Structure
    trace: Trace
    reads: Reads
    outputs: list[Any]
    returned: Structure
    learning: list[Value]
    kind: str
    backend: str
    dtype: str
    nonfinite: str
    exact: bool
    clock: Clock
    found: counts.Found | None = None
    _exactly: Variant | None = None

    def __post_init__(self) -> None:
        self._memory = Memory(self.backend, self.dtype)
        self._executable = self._of_count(self.found) if self.found else self._of_shape()
        self.code, self.captured = self._executable.code, self._executable.captured
        self._requires = [v.requires_grad for v in self.captured]
        self.trace, self.found = None, None  # type: ignore[assignment]  # 10⁵ objects that no call needs
        self.outputs = []
        is_quick = self.kind == "call" and not self._draws and "arguments" in self._inputs
        self.pack = packer(self.arguments.parts[0], self._memory.typecode) if is_quick else None
        if self.pack:
            buffers = self._executable.buffers
            self._given, self._got = buffers[self._inputs["arguments"]], buffers[self._results]
            self._is_finite = self._memory.finite_in(self._got)
        self.arguments = NUMBER  # what was passed is not kept

    def _arrays(self, arguments: int, draws: int) -> list[Array]:
        """The arrays that a call fills, if there is anything to fill them with, and that of the results."""
        per_row, self._draws = self.kind == "map", draws
        sizes = {"arguments": arguments, "random": draws}
        self._inputs = {name: Array(name, n, "input", per_row) for name, n in sizes.items() if n}
        self.width = size(self.returned)
        self._results = Array("results", self.width, "output", per_row)
        self._capacity = BLOCK if per_row else 1
        return [*self._inputs.values(), self._results]

    def _of_shape(self) -> Executable:
        """The code of all that was traced: what is kept of an earlier process, or new code, which is kept then."""
        trace, outputs, seen = self.trace, self.outputs, kept.Seen()
        symbols = {"arguments": trace.inputs["arguments"], "random": trace.random}
        arrays = self._arrays(*map(len, symbols.values()))
        inputs = [Layout(a, symbols[name]) for name, a in self._inputs.items()]

        def task() -> Task:
            results = [Layout(self._results, range(self.width))]
            return Task(
                trace.tape, outputs, inputs, results, self.backend, self.dtype, self.exact, self._capacity
            )  # fmt: skip

        with self.clock("cache"):
            mark = kept.fingerprint(trace.tape, outputs, seen, *[x.numbers for x in inputs])
            key = kept.key("function", self.backend, mark, self._capacity, self.dtype, self.exact)
        made = found_or_made(key, arrays, seen, self.clock, task)
        return Executable(made, self.clock, self._memory, arrays)

    def _of_count(self, found: counts.Found) -> Executable:
        """The code of a program with a count, of which a few steps were traced."""
        self.returned = found.program.returned(found.variable)
        arrays = self._arrays(found.size("arguments"), found.size("random"))
        captures = Layout(Array("captured", len(found.made.captured), "leaf"), found.made.captured)
        known = {}
        if found.size("known"):
            known[Array("known", found.size("known"), "leaf")] = counts.known_numbers(found.made.short)
        leaves = [*self._inputs.values(), *known, *[captures.array] * bool(captures.numbers)]
        program, code = found.build([*leaves, self._results], self.backend, self._capacity, self.dtype, self.exact)
        return Executable(Made(program, code, captures), self.clock, self._memory, arrays, known=known)

    def quickly(self, args: Any) -> Any:
        """The results, if the arguments are what they were last time but for the numbers; else None.

        None, too, if a result is not finite.
        """
        assert self.pack is not None
        if not self.pack(args, self._given) or not self.holds():
            return None
        try:
            self._executable.run()
        except (ArithmeticError, ValueError):
            return None
        return self._got if self._is_finite() else None

    def holds(self) -> bool:
        """Whether what the function asked for in the trace is still so; for a gradient, also what learns."""
        same = self.kind != "gradient" or [v.requires_grad for v in self.captured] == self._requires
        return same and self.reads.hold_still()

    def _made_exactly(self, exactly: Exactly) -> Variant:
        """The code to run where this one found no number, or one that is not finite; see `simplify.Builder`."""
        if self._exactly is None:
            self._exactly = exactly()
        return self._exactly

    def __call__(self, numbers: list[float], exactly: Exactly) -> Any:
        """The results, one after the other."""
        draws = drawn(self._draws)
        results = self._of(numbers, draws)
        if results is None or not self._memory.finite(results):
            results = self._made_exactly(exactly)._of(numbers, draws)
            bad = [i for i, x in enumerate(results) if not math.isfinite(x)]
            if bad and self.nonfinite == "raise":
                raise _not_finite(
                    f"{_which('result', bad)} of {self.width}" if self.width > 1 else "the result", results[bad[0]]
                )
        return results

    def _of(self, numbers: list[float], draws: list[float]) -> Any:
        """The results for these numbers, or None if there is no number for one of the steps."""
        given = {"arguments": numbers, "random": draws}
        try:
            self._executable({a: given[name] for name, a in self._inputs.items()})
        except (ArithmeticError, ValueError):
            return None
        return self._executable.buffers[self._results]

    def rows(self, data: Any, count: int, exactly: Exactly) -> Any:
        """The results of `count` rows of arguments, in one flat buffer."""
        draws = self._memory.new(drawn(self._draws * count)) if self._draws else ()
        results = self._rows(data, draws, count)
        if results is None or not self._memory.finite(results):
            results = self._mended(results, data, draws, count, self._made_exactly(exactly))
        return results

    def _rows(self, data: Any, draws: Any, count: int) -> Any:
        given = {"arguments": data if self.backend == "llvm" else list(data), "random": draws}
        try:
            return self._executable.rows({a: given[name] for name, a in self._inputs.items()}, self._results, count)
        except (ArithmeticError, ValueError):
            return None

    def _mended(self, results: Any, data: Any, draws: Any, count: int, exactly: Variant) -> Any:
        """The results with those rows computed exactly that were not finite; or all, if there are none."""
        n, m, k = (len(data) // count if count else 0), self.width, self._draws
        bad = range(count) if results is None else self._bad_rows(results)
        some = self._memory.new([x for i in bad for x in data[i * n : (i + 1) * n]])
        some_drawn = self._memory.new([x for i in bad for x in draws[i * k : (i + 1) * k]])
        exact = exactly._rows(some, some_drawn, len(bad))
        if results is None:
            results = exact
        else:
            for at, i in enumerate(bad):
                results[i * m : (i + 1) * m] = exact[at * m : (at + 1) * m]
        still = self._bad_rows(results)
        if still and self.nonfinite == "raise":
            first = next(x for x in results[still[0] * m : (still[0] + 1) * m] if not math.isfinite(x))
            raise _not_finite(f"the result of {_which('row', still)}", first)
        return results

    def _bad_rows(self, results: Any) -> list[int]:
        return list(dict.fromkeys(i // self.width for i, x in enumerate(results) if not math.isfinite(x)))

    def explain(self, name: str, full: bool) -> str:
        """See `Compiled.explain`."""
        first, *lines = self._executable.explain("", 0 if full else SCREEN)
        lines = [f"{name}, {self.backend} backend, {self.dtype}", *[f"  {line}" for line in [first, *lines]]]
        return "\n".join([*lines, "", self.code.source] if full else lines)


def _which(what: str, places: list[int]) -> str:
    """`row 3`, or `rows 3, 5 and 8`."""
    *most, last = map(str, places)
    return f"{what}s {', '.join(most)} and {last}" if most else f"{what} {last}"


def _not_finite(what: str, x: float) -> FloatingPointError:
    verb = "are" if what.startswith("results") else "is"
    return FloatingPointError(
        f"{what} {verb} not finite ({x}). If a number makes no sense on the way (log of -1, division by 0), the "
        "function itself, without compile, says where; inf and NaN that came in, or that sums and products grew to, "
        "it lets pass. compile(…, nonfinite='allow') returns them"
    )
