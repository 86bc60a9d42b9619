"""The backends: which one is meant, its memory, and how its code is made of a program."""

from __future__ import annotations

import importlib.util
import math
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from milligrad.compiler.ir import Rolled
from milligrad.compiler.passes.registers import Step
from milligrad.compiler.program import Array, Program


def choose(backend: str) -> str:
    """The backend that `backend` means: "python" or "llvm". For "auto" it says so, once.

    Raises ValueError for any other name, ImportError if llvmlite is asked for and is not installed.
    """
    if backend not in ("auto", "python", "llvm"):
        raise ValueError(f"backend: expected 'auto', 'python' or 'llvm', got {backend!r}")
    if backend == "auto":
        return _auto()
    if backend == "llvm" and not has_llvmlite():
        raise ImportError("backend 'llvm' needs llvmlite: pip install 'milligrad-autodiff[native]'")
    return backend


@cache
def has_llvmlite() -> bool:
    return importlib.util.find_spec("llvmlite") is not None


@cache
def _auto() -> str:
    chosen = "llvm" if has_llvmlite() else "python"
    hint = "" if chosen == "llvm" else "; pip install 'milligrad-autodiff[native]' for native code"
    print(f"milligrad: compiling with the {chosen} backend{hint}", file=sys.stderr)
    return chosen


def check_dtype(dtype: str, backend: str) -> None:
    """Raise ValueError for a dtype that the backend does not have."""
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype: expected 'float64' or 'float32', got {dtype!r}")
    if dtype == "float32" and backend != "llvm":
        raise ValueError(f"dtype: 'float32' needs backend='llvm', got backend={backend!r}")


def build(program: Program, backend: str, capacity: int = 1, dtype: str = "float64", exact: bool = False) -> Any:
    """The code of `program`, whose loops run side by side; `exact` code raises nothing."""
    if backend == "llvm":
        from milligrad.compiler.llvm import vectors

        return vectors.build(program, capacity, dtype)
    from milligrad.compiler.python import comprehensions

    return comprehensions.build(program, capacity, ieee=exact)


def build_in_order(
    program: Program, rolled: Rolled, steps: list[Step], backend: str, capacity: int, dtype: str, exact: bool
) -> Any:
    """The code of a program whose loops run in the order of the trace; `program` holds its arrays."""
    if backend == "llvm":
        from milligrad.compiler.llvm import in_order as native

        return native.build(program, rolled, steps, capacity, dtype)
    from milligrad.compiler.python import in_order

    return in_order.build(program, rolled, steps, capacity, exact)


class Memory:
    """Buffers of the kind that a backend takes: lists for python, arrays of doubles or floats for llvm."""

    def __init__(self, backend: str, dtype: str = "float64") -> None:
        self.typecode = "" if backend == "python" else "d" if dtype == "float64" else "f"

    def new(self, numbers: Sequence[float]) -> Any:
        """A buffer of these numbers."""
        return array(self.typecode, numbers) if self.typecode else list(numbers)

    def zeros(self, n: int) -> Any:
        """A buffer of n zeros. A native one starts where a cache line does, as vectors like it."""
        if not self.typecode:
            return [0.0] * n
        from milligrad.compiler.llvm.native import buffer

        return buffer(n, "float64" if self.typecode == "d" else "float32")

    def finite(self, numbers: Any) -> bool:
        """Whether all numbers of a buffer are finite."""
        if self.typecode == "d" and len(numbers) > 32:
            from milligrad.compiler.llvm.native import finite

            return finite(numbers)
        return math.isfinite(sum(numbers)) or all(map(math.isfinite, numbers))

    def finite_in(self, numbers: Any) -> Callable[[], bool]:
        """The same of a buffer that stays where it is, to be asked after each call."""
        if self.typecode == "d" and len(numbers) > 32:
            from milligrad.compiler.llvm.native import finite_in

            return finite_in(numbers)
        return partial(self.finite, numbers)

    def fill(self, buffer: Any, numbers: Sequence[float]) -> None:
        """Put the numbers into the buffer."""
        buffer[:] = array(self.typecode, numbers) if self.typecode else numbers

    def bind(self, code: Any, program: Program, buffers: Mapping[Array, Any]) -> None:
        """Give the code its buffers. Those of rows are handed in by each call; lists are of one row until then."""
        handed = [a for a in program.arrays if a.role in ("input", "leaf", "state", "output")]
        missing = {a: self.zeros(a.size) for a in handed if a not in buffers and not self.typecode}
        code.bind({**missing, **{a: buffers[a] for a in handed if a in buffers}})
