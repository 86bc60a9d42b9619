"""What is kept of compiled code for later processes: the key that it is found by, and the code as plain data.

The key is a digest of all that the passes read, taken before they run: of a tape the ops, their inputs, its constants
and its outputs; the options; the backend with its versions and the processor; the source of the compiler itself. (So
the numbers of parameters and of arguments, which are looked up in each call, are no part of it.) A tape with an op of
the user's own has no key: what that computes is code that nobody has read. What is found by its key is the code that
the passes would have made, so that all of them can be left out: a trace is all that is left to make. Whoever lets a
pass read something else adds it to the key.

The code is pickled by a table of the few kinds of objects that it consists of. Nothing else is unpickled, and no
function called but those of the table.

    seen    the Values that tapes use, numbered in the order in which they are met
    given   arrays that the caller of the code has already; those of the code are these, and not copies
"""

from __future__ import annotations

import marshal
import os
import pickle
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from hashlib import blake2b
from io import BytesIO
from itertools import chain, count
from operator import itemgetter
from types import BuiltinFunctionType, FunctionType
from typing import Any

from milligrad.compiler.cache import folder, load, store
from milligrad.compiler.passes.registers import Assign, Cell, Entry, For, Give, Let, Linear, Load, Name, Set, Terms
from milligrad.compiler.program import Array, Program
from milligrad.compiler.python.ieee import unrefusing
from milligrad.compiler.trace import Symbol, Tape, total
from milligrad.engine import MANY, TABLE, Op, Value, number
from milligrad.recompute import PARTS

COMPILES = ("compiler", "engine.py", "ops.py")  # the files, and the files of folders, that code depends on


# ── Keys ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Seen(dict[Value, int]):
    """Numbers below 0 for Values, in the order in which they are first asked for; odd ones are of those that learn."""

    def __missing__(self, v: Value) -> int:
        self[v] = n = -2 * len(self) - 2 + v.requires_grad
        return n

    def values_at(self, numbers: Iterable[int]) -> list[Value]:
        """The Values with these numbers."""
        known = [*self]
        return [known[-n // 2 - 1 + n % 2] for n in numbers]

    def placed(self, values: Iterable[Value]) -> bytes:
        """A digest of where the Values seen stand among these."""
        places = dict(zip(values, count()))
        return blake2b(marshal.dumps([places.get(v) for v in self], 2)).digest()


def fingerprint(tape: Tape, outputs: Sequence[Any], seen: Seen, *inputs: Sequence[Symbol]) -> bytes | None:
    """A digest of the tape, of its outputs and of where its inputs stand; None without a cache or for unknown ops.

    150,000 nodes take about 70 ms.
    """
    if not folder():
        return None
    ops = [z.op for z in tape]
    kinds: dict[Op | None, int] = {}
    codes = [kinds.setdefault(op, len(kinds)) for op in ops]
    if not all([op is None or op is total or TABLE.get(op.name) is op or op in PARTS for op in kinds]):
        return None
    inputs_of_each = [z.x if z.y is MANY else (z.x, z.y) for z in tape]
    lengths = [*map(len, inputs_of_each)]
    read = [*chain(*inputs_of_each), *[x if isinstance(x, Value) else number(x, "output") for x in outputs]]
    # Whole numbers stand for Symbols, negative ones for Values, and floats for themselves.
    numbers = [x.number if type(x) is Symbol else x if type(x) is float else seen[x] for x in read]
    names = [op.name.encode() if op else b"" for op in kinds]
    given = [[x.number for x in symbols] for symbols in inputs]
    doubts = [min(tape.forward, len(tape)), *sorted(tape.doubtful)]
    whole = names, codes, lengths, numbers, given, [z.requires_grad for z in tape], doubts
    return blake2b(marshal.dumps(whole, 2)).digest()  # version 2 is the same for equal data, and tells 0.0 from -0.0


def key(what: str, backend: str, *parts: Any) -> str:
    """The key of that part of the compiler, for a backend, of parts that `repr` tells completely; "" if one is None."""
    if None in parts:
        return ""
    return blake2b(repr((what, _surroundings(backend), parts)).encode(), digest_size=32).hexdigest()


@cache
def _surroundings(backend: str) -> Any:
    """What code depends on besides the program: versions, the processor, and the compiler's own source."""
    from milligrad import __version__

    python = sys.implementation.name, sys.version_info[:3], platform.machine(), sys.platform, sys.byteorder
    return __version__, _source(), python, _of_llvm() if backend == "llvm" else None


def _of_llvm() -> Any:
    import llvmlite  # type: ignore[import-untyped]
    from llvmlite import binding

    from milligrad.compiler.llvm.native import host

    return llvmlite.__version__, binding.llvm_version_info, binding.get_default_triple(), host()


def _source() -> str:
    """A digest of the files that make code, which takes 2 ms; "" where there are none to read, as in an archive."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    digest = blake2b()
    try:
        for name in COMPILES:
            path = os.path.join(here, name)
            within = [os.path.join(folder, x) for folder, _, files in os.walk(path) for x in files]
            for file in sorted([x for x in within if x.endswith(".py")]) or [path]:
                with open(file, "rb") as stream:
                    digest.update(os.path.relpath(file, here).encode() + b"\0" + stream.read())
    except OSError:
        return ""
    return digest.hexdigest()


# ── Code as plain data ─────────────────────────────────────────────────────────────────────────────────────────────


def recall(key: str, given: Sequence[Array] = ()) -> Any:
    """What was kept for that key; None if there is nothing."""
    data = load(key) if key else None
    if not data:
        return None
    try:
        return _Reader(data, given).load()
    except Exception:  # of whatever kind: the file is none that `keep` has written
        return None


def keep(key: str, thing: Any, given: Sequence[Array] = ()) -> None:
    """Keep it: code, programs and arrays, in tuples, lists and dicts, with numbers and texts."""
    if key and folder():
        file = BytesIO()
        _Writer(file, given).dump(thing)
        store(key, file.getvalue())


def once(key: str, make: Callable[[], Any]) -> Any:
    """What was kept for that key, or what `make` makes, which is kept then."""
    found = recall(key)
    if found is None:
        found = make()
        keep(key, found)
    return found


def array_given(k: int) -> Array:
    """The array number k of those that the caller has; `_Reader` knows them."""
    raise NotImplementedError


def native(*made: Any) -> Any:
    """Machine code."""
    from milligrad.compiler.llvm.native import restored

    return restored(*made)


def python(*made: Any) -> Any:
    """Python code."""
    from milligrad.compiler.python.code import restored

    return restored(*made)


def staged(*made: Any) -> Any:
    """The code of a program in stages for threads."""
    from milligrad.compiler.passes.split import restored

    return restored(*made)


def counted(*made: Any) -> Any:
    """A program with a count."""
    from milligrad.compiler.passes.counts import restored

    return restored(*made)


def op_of(name: str) -> Op:
    """The row of that name."""
    return TABLE[name]


def value_of(name: str) -> Callable[..., float]:
    """The value of the row of that name."""
    return TABLE[name].value


def unrefusing_of(name: str) -> Callable[..., float]:
    """The same, which raises nothing."""
    return unrefusing(TABLE[name])


class _Writer(pickle.Pickler):
    def __init__(self, file: BytesIO, given: Sequence[Array]) -> None:
        super().__init__(file, protocol=5)
        self._given = {a: k for k, a in enumerate(given)}

    def reducer_override(self, x: Any) -> Any:
        if isinstance(x, Array):
            k = self._given.get(x)
            return (Array, (x.name, x.size, x.role, x.per_sample, x.values)) if k is None else (array_given, (k,))
        if isinstance(x, Program):
            return Program, (x.arrays, [], x.info)
        if isinstance(x, Op):
            return op_of, (x.name,)
        if hasattr(x, "made_of"):
            return _TABLE[x.kept_as], x.made_of()
        if isinstance(x, (FunctionType, BuiltinFunctionType)) and getattr(x, "__name__", "") not in _TABLE:
            op = getattr(x, "op", None)
            return (value_of, (_names()[x],)) if op is None else (unrefusing_of, (op.name,))
        return NotImplemented


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes, given: Sequence[Array]) -> None:
        super().__init__(BytesIO(data))
        self._given = given

    def find_class(self, module: str, name: str) -> Any:
        if name == array_given.__name__:
            return self._given.__getitem__
        if name not in _TABLE:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of code")
        return _TABLE[name]


@cache
def _names() -> dict[Callable[..., float], str]:
    return {row.value: name for name, row in TABLE.items()}


STEPS = (Assign, Cell, Entry, For, Give, Let, Linear, Load, Name, Set, Terms)  # what programs with a count consist of
_TABLE: dict[str, Any] = {
    x.__name__: x
    for x in (
        Array, Program, array_given, native, python, staged, counted, op_of, value_of, unrefusing_of, itemgetter, *STEPS
    )
}  # fmt: skip
