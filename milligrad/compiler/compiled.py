"""`compile`, which traces a function once for each shape of its arguments, and then runs the code for it.

Here is what a user sees. What a call runs is in `variant.py`, and how it was made, in `pipeline.py`.
"""

from __future__ import annotations

import inspect
import math
import os
import threading
from array import array
from collections.abc import Callable, Sequence
from functools import update_wrapper
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal

from milligrad.compiler.backends import Memory, check_dtype, choose
from milligrad.compiler.passes import counts
from milligrad.compiler.passes.short import LongScan, Short, Watch
from milligrad.compiler.pipeline import Clock, collector_paused
from milligrad.compiler.structure import NUMBER, Structure, flat, nested, of_key, size, structure, unpacked
from milligrad.compiler.trace import Trace, captured, needed
from milligrad.compiler.variant import Exactly, Variant
from milligrad.engine import (
    GradientWarning,
    Op,
    Reduction,
    Value,
    adjoints,
    enable_grad,
    is_grad_enabled,
    node,
    number,
    partials_as_values,
    tracer,
)
from milligrad.nn.reads import Reads, recorded
from milligrad.places import warn
from milligrad.transforms import global_name

if TYPE_CHECKING:
    from milligrad.compiler.c.lowered import Lowered

NUMBERS = frozenset("?bBhHiIlLqQnNfd")  # what a buffer may hold: struct's letters for numbers
FLOATS = frozenset([float])
VARIANTS = 64  # shapes of arguments whose code is kept; the one that was not used for longest goes first
VERSIONS = 4  # and of one shape, for different settings of what the function uses (train and eval)
LONG_ARGUMENT = 100_000  # numbers or rows of a list, from which on it is seen first whether a scan runs over it


def compile(
    f: Callable[..., Any],
    *,
    backend: Literal["auto", "python", "llvm"] = "auto",
    dtype: str = "float64",
    nonfinite: Literal["raise", "allow"] = "raise",
) -> Compiled:
    """`f`, a function of numbers and nested lists of them, as a function that runs compiled code.

    Numbers among the arguments (also Values: their numbers) are inputs of the code; anything else (bools, strings,
    None, objects) is fixed when it is traced. For each new shape of the arguments f is traced once, by a call with
    symbols in the place of numbers; what it does besides computing happens in that call only. (A `scan` of more than 64
    steps is compiled for all lengths: for that f is traced a few times, for a few steps each.) Values that f uses
    besides its arguments, such as a model's parameters, are looked up in each call; a module's `train()` or `eval()`
    is noticed, and so is whatever f read of a module once it has changed: another Parameter, a Dropout's `p`. Results
    are floats, nested as f nests them. Random numbers drawn from milligrad's generator (dropout) are drawn anew in
    each call.

    backend:    "python" needs nothing; "llvm" needs llvmlite; "auto" takes llvm if it is there, and says which, once.
    dtype:      "float64", or "float32" with llvm.
    nonfinite:  what to do with a result that is inf or NaN: "raise" a FloatingPointError, or "allow" it.

    Eager code raises an error where a number makes no sense (sqrt of -1, division by 0, overflow of exp). Compiled code
    goes on with NaN or inf there, by the rules of IEEE 754, and such a number matters only if a result depends on it:
    `where(x > 0, sqrt(x), 0)` is 0 at -1, and 1 / (1 + exp(1000)) is 0. A comparison with such a NaN is NaN, and so is
    what is chosen by it. NaNs among the arguments are numbers like any others. An operation on plain numbers alone is
    no part of the compiled code: it is computed in the trace, and refused there as Python refuses it.

    The code is kept in a folder of this user's cache, and a later process that traces the same program takes it from
    there, without a pass of the compiler; see `milligrad.compiler.cache` for where it is and who may use it.
    MILLIGRAD_CACHE in the environment names another folder, or is "off".

    Raises TraceError if f asks a traced value for its number; in a call FloatingPointError for a result that is not
    finite, unless that is allowed.
    """
    if not callable(f):
        raise TypeError(f"f: expected a function, got {type(f).__name__} {f!r:.60}")
    if nonfinite not in ("raise", "allow"):
        raise ValueError(f"nonfinite: expected 'raise' or 'allow', got {nonfinite!r}")
    return Compiled(f, choose(backend), dtype, nonfinite)


class Compiled:
    """A function that was compiled; see `compile`. Safe to call from several threads, which take turns."""

    def __init__(self, f: Callable[..., Any], backend: str, dtype: str, nonfinite: str = "raise") -> None:
        check_dtype(dtype, backend)
        self.backend, self.dtype, self.nonfinite = backend, dtype, nonfinite
        self._f = f
        self._variants: dict[Any, Sequence[Variant]] = {}
        self._programs: dict[Any, list[counts.Counted]] = {}  # those with a count, by the kind of use
        self._arity: tuple[int, float] | None = None  # how many arguments f must and can be given, once that is known
        self._last: Variant | None = None
        self._rows: tuple[Any, tuple[Variant, Exactly, int]] | None = None  # of which shape those of a buffer were last
        self._lock = threading.RLock()
        self._has_out = _has_argument(f, "out")
        update_wrapper(self, f, updated=())
        self.__name__: str = getattr(f, "__name__", type(f).__name__)

    @property
    def uncompiled(self) -> Callable[..., Any]:
        """The function that was compiled. The transforms differentiate it: `grad(compile(f))` is `grad(f)`."""
        return self._f

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """f(*args, **kwargs), as floats nested like the result of f. While another function is traced, it is f.

        A buffer of doubles as `out` (of floats for float32; array, memoryview, NumPy array) gets the results, one after
        the other, and is what is returned, unless f itself has an argument of that name.
        """
        if tracer():
            return self._f(*args, **kwargs)
        out = kwargs.pop("out", None) if kwargs and not self._has_out else None
        if out is not None:
            out = _Out(out, "f" if self.dtype == "float32" else "d")
        last = self._last
        with self._lock:
            if not kwargs and last is not None and last.pack is not None:
                results = last.quickly(args)
                if results is not None:
                    return out.take(results) if out else unpacked(last.returned, results)
            variant, numbers, exactly = self._variant("call", args, kwargs)
            results = variant(numbers, exactly)
            return out.take(results) if out else unpacked(variant.returned, results)

    def _plain(self, given: list[Any]) -> list[float]:
        """The numbers of the arguments, of which no gradient finds its way back through results that are floats."""
        if is_grad_enabled() and any(isinstance(x, Value) and x.requires_grad for x in given):
            name = self.__name__
            warn(
                f"an argument of {name} is a Value that requires a gradient, but what the compiled {name} returns are "
                f"plain numbers, through which no gradient passes: write {name}.value(…) for a Value with a backward, "
                "or v.data for the number",
                GradientWarning,
            )
        return [number(x) for x in given]

    def value(self, *args: Any, **kwargs: Any) -> Value:
        """The result, one number, as a Value whose backward fills the `grad` of the Values that f used.

        These are captured Values and Values among the arguments that require a gradient. The gradient is computed with
        the result, so that parameters may change before backward. It is a constant of its own: compile the gradient
        to differentiate it again. In `no_grad` the result is a constant.
        """
        if tracer():
            return self._f(*args, **kwargs)  # type: ignore[no-any-return]
        if not is_grad_enabled():
            variant, numbers, exactly = self._variant("value", args, kwargs)
            with self._lock:
                return Value(variant(numbers, exactly)[0], requires_grad=False)
        given = flat((args, kwargs))
        requires = tuple([isinstance(x, Value) and x.requires_grad for x in given])
        variant, numbers, exactly = self._variant("gradient", args, kwargs, requires)
        with self._lock:
            result, *gradient = variant(numbers, exactly)
        wrt = (*variant.learning, *[x for x, r in zip(given, requires) if r])
        return node(_gradient_op(self.__name__, gradient), wrt, result) if wrt else Value(result, requires_grad=False)

    def map(self, rows: Any) -> Any:
        """f of each row, in one loop of compiled code.

        rows: a list of rows, each the list of f's arguments: the result is the list of what f returns. Or any buffer
        of numbers (array('d'), memoryview, a NumPy array): of two dimensions, or flat, row after row; a row holds f's
        arguments, or, if f takes one argument and there are two dimensions, the numbers of the list that it takes
        (unless it is one number: then that). The result is a memoryview of doubles with a row for each row, or one
        number for each if f returns one. Numbers that are no doubles, or do not lie row after row, are copied.
        """
        if isinstance(rows, (list, tuple)):
            return self._map_list(rows)
        return self._map_buffer(rows)

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """The loops of f for arguments of this shape, to be written as C: `f.lower(x).c_source`, `.header`, `.save_c`.

        f is traced, as in a call, and nothing is computed: only the shapes of the arguments matter.
        """
        given: list[Any] = []
        arguments = structure((args, kwargs), given)
        return self._lowered(arguments)

    def _lowered(self, arguments: Structure) -> Lowered:
        from milligrad.compiler.c.lowered import Lowered

        with self._lock, collector_paused():
            zeros: list[Any] = [0.0] * size(arguments)
            try:
                trace, _, outputs, returned, _ = self._trace("call", arguments, zeros, Clock(), Watch())
            except LongScan as scan:
                counted = self._counted_exactly(scan.length, arguments, zeros)
                if counted:
                    trace, _, outputs, _, _ = counted[0].made.traced
                    returned = counted[0].program.returned(counted[0].variable)
                    return Lowered(self.__name__, self.dtype, self._f, trace, outputs, arguments, returned, counted)
                trace, _, outputs, returned, _ = self._trace("call", arguments, zeros, Clock())
            return Lowered(self.__name__, self.dtype, self._f, trace, outputs, arguments, returned)

    def _counted_exactly(
        self, length: int, arguments: Structure, zeros: list[Any]
    ) -> tuple[counts.Found, counts.Found | None] | None:
        """The program with a count, and its exact form if it needs one, as C has them; None if there is none."""
        from milligrad.compiler.c.lowered import is_doubtful

        found = self._counted(length, "call", arguments, zeros, False, Clock())
        if not found:
            return None
        trace, _, outputs, _, _ = found.made.traced
        if not is_doubtful(trace, needed(trace.tape, outputs), found.ops):
            return found, None
        exactly = self._counted(length, "call", arguments, zeros, "chain", Clock())
        same = exactly and [*map(id, exactly.made.captured)] == [*map(id, found.made.captured)]
        return (found, exactly) if same else None

    def save_c(
        self,
        path: str | os.PathLike[str],
        *,
        dtype: str | None = None,
        parameters: Literal["constants", "argument"] = "constants",
    ) -> None:
        """Write f as it was called last, for arguments of that shape, as a C file and its header; see `Lowered.c`.

        path:        ends in .c; the function in it is called as the file is, and the header has the same name.
        dtype:       "float64" for double, "float32" for float; by default as it was compiled.
        parameters:  the captured numbers: "constants" in the file, as they are now, or an "argument".

        Raises RuntimeError if it was not called yet: `f.lower(*example).save_c(path)` does without.
        """
        if self._last is None:
            raise RuntimeError(
                f"{self.__name__}: not called yet, so that the shapes of its arguments are not known: call it once, or "
                f"write {self.__name__}.lower(*example).save_c(path)"
            )
        last = self._last
        key = next(key for key, known in self._variants.items() if any([v is last for v in known]))
        self._lowered(of_key(key[1])).save_c(path, dtype=dtype, parameters=parameters)

    def explain(self, full: bool = False) -> str:
        """What was made of the code in the last call: nodes, loops, the times of the passes. It fits a screen.

        full: all loops, and the generated source, too.
        """
        if self._last is None:
            return f"{self.__name__}: not traced yet; call it once"
        return self._last.explain(self.__name__, full)

    @property
    def source(self) -> str:
        """The text that was generated in the last call: Python, or LLVM's IR. "" before the first call."""
        return self._last.code.source if self._last else ""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """A compiled function in a class is a method."""
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> Any:
        """Copies and pickles are of the function and the options, and are compiled anew where they are called.

        One that decorates a function of a module or a class is found there by its name.
        """
        return global_name(self) or (Compiled, (self._f, self.backend, self.dtype, self.nonfinite))

    def __repr__(self) -> str:
        traced = sum(map(len, self._variants.values()))
        return f"<compiled {self.__name__}: {self.backend}, {traced} traced>"

    # Variants: one for each shape of the arguments and each kind of use.

    def _variant(self, kind: str, args: Any, kwargs: Any, more: Any = ()) -> tuple[Variant, list[float], Exactly]:
        """The code for these arguments, their numbers, and what makes the exact code for them; see `Variant`."""
        given: list[Any] = []
        arguments = structure((args, kwargs), given)
        key = (kind, arguments.key, more)
        with self._lock:
            known = self._variants.get(key, ())
            variant = next((v for v in known if v.holds()), None)
            if variant is None:
                variant = self._traced(kind, arguments, given)
                known = [*known[1 - VERSIONS :], variant]
            if variant is not self._last:
                self._variants.pop(key, None)
                self._variants[key] = known  # the last one is the one that was used last
                if len(self._variants) > VARIANTS:
                    del self._variants[next(iter(self._variants))]
                self._last = variant
        if FLOATS.issuperset(map(type, given)):
            numbers = given
        else:
            numbers = [number(x) for x in given] if kind == "gradient" else self._plain(given)
        return variant, numbers, lambda: self._traced(kind, arguments, given, exact=True)

    def _traced(self, kind: str, arguments: Structure, given: list[Any], exact: bool = False) -> Variant:
        clock = Clock()
        with collector_paused():
            found = None
            try:
                if counts.longest(arguments) > LONG_ARGUMENT:  # a Symbol for each number may be for nothing
                    raise LongScan(counts.longest(arguments))
                traced = self._trace(kind, arguments, given, clock, Watch())
            except LongScan as scan:
                found = self._counted(scan.length, kind, arguments, given, exact, clock)
                traced = found.made.traced if found else self._trace(kind, arguments, given, clock)
            return Variant(arguments, *traced, kind, self.backend, self.dtype, self.nonfinite, exact, clock, found)

    def _counted(
        self, length: int, kind: str, arguments: Structure, given: list[Any], exact: bool | str, clock: Clock
    ) -> counts.Found | None:
        """The program whose count is a run-time number, for a scan of that length; None if there is none."""

        def traced(short: Short) -> counts.Traced:
            cut = short.shortened(arguments)
            some = short.first(arguments, given) if kind == "gradient" else [0.0] * size(cut)
            return counts.Traced(short, self._trace(kind, arguments, some, clock, short), exact, clock)

        return counts.find(length, traced, self._programs.setdefault((kind, exact), []))

    def _trace(
        self, kind: str, arguments: Structure, given: list[Any], clock: Clock, scans: Any = None
    ) -> tuple[Trace, Reads, list[Any], Structure, list[Value]]:
        """Run f on symbols: (the trace, what f read, its outputs, what they are nested in, what learns)."""
        with collector_paused(), clock("trace"):
            trace = Trace(scans, recomputes=True)
            symbols = trace.input("arguments", len(given))
            for symbol, x in zip(symbols, given):
                symbol.requires_grad = kind == "gradient" and isinstance(x, Value) and x.requires_grad
            outputs: list[Any] = []
            learning: list[Value] = []
            reads = Reads()
            with trace.ending(), trace.running(), enable_grad(), recorded(reads):
                short = scans if isinstance(scans, Short) else None
                if short:
                    short.begin(trace)
                args, kwargs = (short.nested if short else nested)(arguments, iter(symbols))
                result = self._f(*args, **kwargs)
                returned = structure(result, outputs, outputs=True)
                if kind in ("gradient", "value") and returned is not NUMBER:
                    raise TypeError(
                        f"{self.__name__}.value: expected a function that returns one number, "
                        f"got {type(result).__name__}"
                    )
                if kind == "gradient":
                    outputs, learning = _with_gradient(trace, outputs[0], symbols)
                    returned = structure(outputs, [], outputs=True)
        return trace, reads, outputs, returned, learning

    # map

    def _map_list(self, rows: Sequence[Any]) -> list[Any]:
        if not rows:
            return []
        numbers: list[Any] = []
        shapes = [structure(tuple(self._row(row, i)), numbers).key for i, row in enumerate(rows)]
        if shapes.count(shapes[0]) < len(shapes):
            i = next(i for i, own in enumerate(shapes) if own != shapes[0])
            raise ValueError(f"rows[{i}]: expected the shape of rows[0], {rows[0]!r:.60}, got {rows[i]!r:.60}")
        variant, _, exactly = self._variant("map", tuple(rows[0]), {})
        data = Memory(self.backend, self.dtype).new(self._plain(numbers))
        with self._lock:
            results = variant.rows(data, len(rows), exactly)
        m = variant.width
        flat_results = list(results)
        return [nested(variant.returned, iter(flat_results[i * m : (i + 1) * m])) for i in range(len(rows))]

    @staticmethod
    def _row(row: Any, i: int) -> Any:
        if not isinstance(row, (list, tuple)):
            raise TypeError(f"rows[{i}]: expected a list of arguments, got {type(row).__name__} {row!r:.60}")
        return row

    def _map_buffer(self, rows: Any) -> memoryview[float]:
        view = _buffer(rows)
        variant, exactly, width = self._of_width(
            view.ndim,
            view.shape[1] if view.ndim == 2 else None,  # type: ignore[index]
        )
        count, more = divmod(math.prod(view.shape or ()), width) if width else (len(view), 0)
        if more:
            raise ValueError(f"rows: expected {width} numbers for each row, got {len(view)} in all")
        data = _as_they_are(view) if view.format == Memory(self.backend, self.dtype).typecode else None
        if data is None:
            data = Memory(self.backend, self.dtype).new(_all_numbers(view))
        with self._lock:
            results = variant.rows(data, count, exactly)
        doubles = results if isinstance(results, memoryview) and results.format == "d" else array("d", results)
        flat_results: memoryview[float] = memoryview(doubles)
        scalar = variant.returned.kind == "number"
        if scalar or not len(flat_results):
            return flat_results
        return flat_results.cast("B").cast("d", (count, variant.width))

    def _of_width(self, ndim: int, width: int | None) -> tuple[Variant, Exactly, int]:
        """For rows of a buffer of that many dimensions: the code, the exact code, and how many numbers a row has."""
        key = ndim, width
        if self._rows is not None and self._rows[0] == key and self._rows[1][0] is self._last and self._last.holds():
            return self._rows[1]
        parameters, most = _positional(self._f) if self._arity is None else self._arity
        self._arity = parameters, most
        if width is None and not parameters:
            raise ValueError("rows: expected a buffer of two dimensions, since f takes any number of arguments")
        n = parameters if width is None else width
        row: tuple[Any, ...] = (0.0,) * n
        if width is not None and most == 1 and width != 1:
            row = ([0.0] * n,)
        variant, _, exactly = self._variant("map", row, {})
        self._rows = key, (variant, exactly, n)
        return variant, exactly, n


def _has_argument(f: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(f).parameters
    except (TypeError, ValueError):
        return False
    return name in parameters or any([p.kind is p.VAR_KEYWORD for p in parameters.values()])


class _Out:
    """The buffer that results go to. It raises TypeError or ValueError if it can't be one."""

    def __init__(self, buffer: Any, typecode: str) -> None:
        try:
            view = memoryview(buffer)
        except TypeError:
            raise TypeError(f"out: expected a buffer of numbers, got {type(buffer).__name__}") from None
        if view.format != typecode or view.readonly or not view.c_contiguous:
            flaws = ", read-only" * view.readonly + ", not contiguous" * (not view.c_contiguous)
            raise ValueError(
                f"out: expected a contiguous buffer of {typecode!r} to write to, got one of {view.format!r}{flaws}"
            )
        self.buffer = buffer
        self.view = view if view.ndim == 1 else view.cast("B").cast(typecode)  # type: ignore[call-overload]

    def take(self, results: Any) -> Any:
        """Put the results there."""
        if len(self.view) != len(results):
            raise ValueError(f"out: expected a buffer of {len(results)} numbers, got one of {len(self.view)}")
        self.view[:] = array(self.view.format, results) if isinstance(results, list) else results
        return self.buffer


def _buffer(rows: Any) -> memoryview:
    try:
        view = memoryview(rows)
    except TypeError:
        raise TypeError(f"rows: expected a list of rows or a buffer of numbers, got {type(rows).__name__}") from None
    if view.format not in NUMBERS or view.ndim not in (1, 2):
        raise TypeError(
            f"rows: expected a buffer of numbers of one or two dimensions, "
            f"got one of {view.ndim} dimensions in the format {view.format!r}"
        )
    return view


def _as_they_are(view: memoryview) -> Any:
    """The numbers of the buffer, row after row, where they lie; None if they do not lie so."""
    if not view.c_contiguous or not view.nbytes:
        return None
    return view if view.ndim == 1 else view.cast("B").cast(view.format)  # type: ignore[call-overload]


def _all_numbers(view: memoryview) -> list[float]:
    """A copy of the numbers of the buffer, row after row."""
    rows: Any = view.tolist()
    return [x for row in rows for x in row] if view.ndim == 2 else rows


def _positional(f: Callable[..., Any]) -> tuple[int, float]:
    """How many arguments f must, and how many it can be given by position."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return 0, math.inf
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    any_number = any([p.kind is p.VAR_POSITIONAL for p in parameters])
    return len([p for p in named if p.default is p.empty]), math.inf if any_number else len(named)


def _with_gradient(trace: Trace, loss: Any, symbols: list[Any]) -> tuple[list[Any], list[Value]]:
    """The loss, and its derivative by each captured Value and each argument that requires one; and the former."""
    leaves = captured(trace.tape, needed(trace.tape, [loss]), [loss])
    learning = [x for x in leaves if x.requires_grad]
    adjoint = adjoints([(loss, 1.0)], partials_as_values) if isinstance(loss, Value) and loss.requires_grad else {}
    return [loss, *[adjoint.get(x, 0.0) for x in [*learning, *symbols] if x.requires_grad]], learning


def _gradient_op(name: str, gradient: list[float]) -> Reduction:
    """The op of a compiled function: its partials are numbers that were computed with its value.

    Where they are asked for as Values, to be differentiated again, they are Values that refuse.
    """

    def refuse(z: Any, *inputs: Any) -> Any:
        raise RuntimeError(
            f"{name}.value: no second derivative, since the gradient of compiled code is a constant; "
            f"compile the gradient itself: compile(grad({name}))"
        )

    constant = Op(f"gradient of {name}", refuse, refuse, f"gradient of {name}", f"A derivative of {name}.")

    def partials(z: Any, *inputs: Any) -> Sequence[Any]:
        return [node(constant, inputs, g) for g in gradient] if isinstance(z, Value) else gradient

    def value(*inputs: float) -> float:
        raise TypeError(f"{name}: a compiled function is called by its own name")

    return Reduction(name, value, partials, f"{name}({{}})", f"The compiled function {name}.")
