"""Machine code and its memory: text goes in, and what can be called comes out. What the text says, printers know.

Machine code is called with a table of pointers, one for each array of the program (its slot); to bind an array is to
put an address into the table. The calls go through ctypes, which lets other threads run meanwhile.
"""

from __future__ import annotations

import ctypes
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from functools import cache
from importlib import import_module
from itertools import chain, cycle
from typing import Any, NamedTuple

from milligrad.compiler import kept
from milligrad.compiler.llvm.instructions import DTYPES, Machine
from milligrad.compiler.program import Array

LINE, PAGE = 64, 4096  # bytes: of a cache line, and of a page
PLACES = cycle(range(0, PAGE - 9 * LINE, 9 * LINE))  # in a page, where one long buffer after the other begins
# What is written as loops runs as fast after these as after LLVM's level 1, which takes six times as long, half of it
# for what the indices of loops may be.
PASSES = ("simplify_cfg", "new_gvn", "instruction_combine")
HANDED_IN = ("input", "leaf", "state", "output")  # the roles of arrays whose memory is the caller's


def _llvm() -> Any:
    try:
        return import_module("llvmlite.binding")
    except ImportError:
        raise ImportError("the llvm backend needs llvmlite: pip install 'milligrad-autodiff[native]'") from None


@cache
def host() -> Machine:
    """The machine that this runs on. Raises ImportError if llvmlite is missing."""
    llvm = _llvm()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    has = features.get
    bits = 512 if has("avx512f") and has("avx512dq") and has("avx512vl") else 256 if has("avx") else 128
    names = {128: "_ZGVbN", 256: "_ZGVdN" if has("avx2") else "_ZGVcN", 512: "_ZGVeN"}
    functions = {width: name for width, name in names.items() if width <= bits} if _has_libmvec(llvm) else {}
    return Machine(llvm.get_host_cpu_name(), features.flatten(), bits, 32 if bits == 512 else 16, functions)


def _has_libmvec(llvm: Any) -> bool:
    """Whether there are glibc's vector functions: exp in a loop took 2.0 ns a number with them, 6.7 without."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        llvm.load_library_permanently("libmvec.so.1")
    except RuntimeError:
        return False
    return llvm.address_of_symbol("_ZGVbN2v_erf") is not None  # there since glibc 2.35, with all others asked for


def buffer(numbers: int, dtype: str = "float64") -> Any:
    """That many zeros, where a cache line starts, which array('d') does not care for.

    A vector register is as long as a cache line, and takes twice the time to load where it lies across two of them.
    And a processor tells stores from loads by their places in a page at first: a loop over parameters and momenta that
    lie at the same place, or a line further, takes up to half as long again. So each long buffer begins some lines
    further on in its page than the one before.
    """
    typecode, _, width = DTYPES[dtype]
    size = numbers * width
    within, place = (PAGE, next(PLACES)) if size >= PAGE else (LINE, 0)
    raw = bytearray(size + within + place)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(raw)) % within + place
    view: Any = memoryview(raw)[start : start + size]
    return view.cast(typecode)


ASKED = """
declare double @llvm.vector.reduce.fadd.v8f64(double, <8 x double>)

define double @finite(ptr %x, i64 %n) {
entry:
  %whole = and i64 %n, -8
  %any = icmp sgt i64 %whole, 0
  br i1 %any, label %loop, label %rest
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %sum = phi <8 x double> [ zeroinitializer, %entry ], [ %more, %loop ]
  %at = getelementptr double, ptr %x, i64 %i
  %v = load <8 x double>, ptr %at, align 8
  %zero = fmul <8 x double> %v, zeroinitializer
  %more = fadd <8 x double> %sum, %zero
  %next = add i64 %i, 8
  %again = icmp slt i64 %next, %whole
  br i1 %again, label %loop, label %rest
rest:
  %sums = phi <8 x double> [ zeroinitializer, %entry ], [ %more, %loop ]
  %total = call reassoc double @llvm.vector.reduce.fadd.v8f64(double 0.0, <8 x double> %sums)
  %left = icmp slt i64 %whole, %n
  br i1 %left, label %single, label %done
single:
  %j = phi i64 [ %whole, %rest ], [ %after, %single ]
  %one = phi double [ %total, %rest ], [ %two, %single ]
  %place = getelementptr double, ptr %x, i64 %j
  %u = load double, ptr %place, align 8
  %nought = fmul double %u, 0.0
  %two = fadd double %one, %nought
  %after = add i64 %j, 1
  %further = icmp slt i64 %after, %n
  br i1 %further, label %single, label %done
done:
  %all = phi double [ %total, %rest ], [ %two, %single ]
  ret double %all
}

declare i64 @llvm.umax.i64(i64, i64)

define i64 @largest(ptr %x, i64 %n) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %most = phi i64 [ 0, %entry ], [ %more, %loop ]
  %at = getelementptr i64, ptr %x, i64 %i
  %k = load i64, ptr %at
  %more = call i64 @llvm.umax.i64(i64 %most, i64 %k)
  %next = add i64 %i, 1
  %again = icmp slt i64 %next, %n
  br i1 %again, label %loop, label %done
done:
  ret i64 %more
}
"""
"""What is asked of a buffer: 0 times the sum of its doubles, and the largest of its whole numbers, without signs."""


@cache
def _asked() -> tuple[Any, Any, Any]:
    """`finite`, `largest`, and what holds their code."""
    key = kept.key("asked", "llvm", ASKED)
    code = kept.recall(key)
    if code is None:
        code = translated(ASKED, host())
        kept.keep(key, code)
    engine = loaded(code, host())
    functions: list[tuple[str, Any]] = [("finite", ctypes.c_double), ("largest", ctypes.c_uint64)]
    of = [
        ctypes.CFUNCTYPE(z, ctypes.c_void_p, ctypes.c_int64)(engine.get_function_address(name)) for name, z in functions
    ]
    return *of, engine


def finite(numbers: Any) -> bool:
    """Whether all of a buffer of doubles are finite: 0 times any of them is 0 then, and NaN otherwise."""
    n = len(numbers)
    return not n or _asked()[0](ctypes.addressof(ctypes.c_char.from_buffer(numbers)), n) == 0.0


def finite_in(numbers: Any) -> Callable[[], bool]:
    """What tells whether all of a buffer of doubles are finite, as often as it is asked; its address is found once."""
    function, *_ = _asked()
    pin = Pin(memoryview(numbers))
    address, n = ctypes.c_void_p(pin.address), ctypes.c_int64(len(numbers))

    def asked(pin: Pin = pin) -> bool:  # the memory stays as long as this does
        return bool(function(address, n) == 0.0)

    return asked


def _target(machine: Machine) -> Any:
    return (
        _llvm()
        .Target.from_default_triple()
        .create_target_machine(cpu=machine.cpu, features=machine.features, opt=2, jit=True)
    )


def translated(source: str, machine: Machine, optimize: bool = False, assembly: bool = False) -> Any:
    """The text as object code, or in the machine's assembly language, by LLVM's code generator.

    optimize:  run LLVM's optimisers before that, where the text leaves something to them.
    """
    llvm, target = _llvm(), _target(machine)
    module = llvm.parse_assembly(source)
    if optimize:
        passes = llvm.create_new_module_pass_manager()
        for name in PASSES:
            getattr(passes, f"add_{name}_pass")()
        passes.run(module, llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options()))
    return target.emit_assembly(module) if assembly else target.emit_object(module)


def loaded(code: bytes, machine: Machine) -> Any:
    """Object code in memory, linked: LLVM's engine, which knows the addresses of its functions."""
    llvm = _llvm()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target(machine))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


class Pin:
    """A buffer that stays where it is as long as this object lives, and its address. A read-only one is copied."""

    def __init__(self, view: memoryview, name: str = "", exactly: int = -1, least: int = 0, read: bool = False) -> None:
        numbers = view.nbytes // view.itemsize
        if numbers != exactly >= 0 or numbers < least:
            raise ValueError(f"{name}: expected {max(exactly, least)} numbers, got {numbers}")
        if view.readonly and not read:
            raise ValueError(f"{name}: expected a buffer that can be written to, got a read-only one")
        self.view = memoryview(bytearray(view)) if view.readonly else view
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.view)) if numbers else 0


def viewed(name: str, x: Any, typecode: str) -> memoryview:
    """The buffer's memory, which must be contiguous, and of that type."""
    try:
        view = memoryview(x)
    except TypeError:
        raise TypeError(f"{name}: expected a buffer, such as array({typecode!r}), got {type(x).__name__}") from None
    same = ("q", "l") if typecode == "q" and array("l").itemsize == 8 else (typecode,)
    if view.format.lstrip("@=<") not in same:
        raise ValueError(f"{name}: expected a buffer of {typecode!r}, got one of {view.format!r}")
    if not view.c_contiguous:
        raise ValueError(f"{name}: expected a contiguous buffer, got one with the strides {view.strides}")
    return view


class Machinery:
    """Machine code of a module's text, and what all that run it share: constants and index tables.

    code:  the object code, where it is known already
    """

    def __init__(
        self, source: str, layout: Any, dtype: str, machine: Machine, emitting: float, optimize: bool = False,
        code: bytes = b"",
    ) -> None:  # fmt: skip
        started = time.perf_counter()
        self.source, self.dtype, self.optimize, self._machine = source, dtype, optimize, machine
        self.code = code or translated(source, machine, optimize)
        self._engine = loaded(self.code, machine)
        self.times = {} if code else {"emit": emitting, "llvm": time.perf_counter() - started}
        self._hold(layout)
        address, pointer, number = self._engine.get_function_address, ctypes.c_void_p, ctypes.c_int64

        def function(name: str, *types: Any) -> Any:
            return ctypes.CFUNCTYPE(None, *types)(address(name))

        p, i = pointer, number
        self.run = function("run", p, i)
        self.rows = function("rows", p, i, i, p, i)
        self.epoch = function("epoch", p, p, i, i, i, p, i, p, i, p, p, ctypes.c_double)

    def _hold(self, layout: Any) -> None:
        self.layout, self.tables = layout, array("i", layout.tables)
        self.constants = {a: self._constant(a) for a in layout.slots if a.role == "constant"}

    def laid_out(self, layout: Any) -> Machinery:
        """The same code for arrays of other sizes, in the same slots."""
        other = copy(self)
        other._hold(layout)
        other.times = dict.fromkeys(self.times, 0.0)
        return other

    def assembly(self) -> str:
        return str(translated(self.source, self._machine, self.optimize, assembly=True))

    def _constant(self, a: Array) -> Pin:
        numbers = buffer(a.size, self.dtype)
        numbers[:] = memoryview(array(DTYPES[self.dtype][0], a.values))
        return Pin(numbers)


class Native:
    """A program as machine code, and the memory it runs on. `instance` makes another one of the same code.

    source:  LLVM's intermediate representation, as text
    times:   seconds that were spent in "emit" and "llvm"

    Two instances may run at the same time, one may not run twice.
    """

    kept_as = "native"  # see `kept.py`

    def __init__(self, machinery: Machinery) -> None:
        self._code, self.source, self.times = machinery, machinery.source, machinery.times
        layout = machinery.layout
        self._slots, self._capacity, self._run = layout.slots, layout.capacity, machinery.run
        self._table = (ctypes.c_void_p * (len(self._slots) + 1))()
        self._address = ctypes.addressof(self._table)
        self._pins: dict[Array, Pin] = {}
        self._gathered: dict[Array, Pin] = {}  # where `epoch` puts the rows of a batch
        self._unbound = {a for a in self._slots if a.role in HANDED_IN}
        for a in self._slots:
            if a not in self._unbound:
                self._point(a, machinery.constants.get(a) or self._own(a))
        self._table[layout.tables_slot] = machinery.tables.buffer_info()[0]

    def made_of(self) -> tuple[Any, ...]:
        """What `restored` makes the same of, in another process: see `kept.py`."""
        code, layout = self._code, self._code.layout
        slots = layout.slots, layout.tables_slot, [*layout.tables], layout.capacity
        return code.source, slots, code.dtype, code.optimize, code.code

    def instance(self) -> Native:
        """Another one of the same machine code, with memory of its own, still to be bound: one for each thread."""
        return Native(self._code)

    def laid_out(self, layout: Any) -> Native:
        """The same machine code for arrays of other sizes, in the same slots."""
        return Native(self._code.laid_out(layout))

    def optimized(self) -> str:
        """What LLVM made of it, in the machine's assembly language."""
        return self._code.assembly()

    def bind(self, memory: Mapping[Array, Any]) -> None:
        """Let the arrays be these buffers from now on: writable, contiguous, of the program's dtype, not to be resized.

        All arrays of the roles input, leaf, state and output need one before a call, and no two may overlap. A
        per_sample array has `capacity` rows. Raises ValueError for a buffer of another size or type, TypeError for
        what is no buffer; then nothing is changed.
        """
        pins = {a: self._pin(a, x, exactly=self._numbers(a)) for a, x in memory.items()}
        for a, pin in pins.items():
            self._point(a, pin)
        self._unbound.difference_update(pins)

    def __call__(self, n: int = 1) -> None:
        """Run the program for n samples, at most `capacity`."""
        if self._unbound or not 0 < n <= self._capacity:
            self._check(n, "n", self._unbound)
        self._run(self._address, n)

    def rows(self, data: Mapping[Array, Any], results: Mapping[Array, Any], count: int) -> None:
        """Run it for `count` rows of the per_sample inputs in `data`, and put the rows of outputs into `results`."""
        self._check(1, "n", self._unbound - {*data, *results})
        self._check_sampled([*data, *results])
        pins = {a: self._pin(a, x, exactly=count * a.size, read=True) for a, x in data.items()}
        pins |= {a: self._pin(a, x, exactly=count * a.size) for a, x in results.items()}
        moves = array("q", chain(*[(self._slots[a], self._row(a)) for a in pins]))
        if count:
            self._code.rows(self._table_with(pins), count, self._capacity, moves.buffer_info()[0], len(pins))

    def epoch(
        self,
        data: Mapping[Array, Any],
        order: Any,
        batch: int,
        start: int,
        stop: int,
        *,
        count: Array | None = None,
        step: Array | None = None,
        first_step: float = 1.0,
        totals: Mapping[Array, Any] | None = None,
    ) -> None:
        """Run it for batch after batch of the rows order[start:stop] of `data`, in one call of machine code.

        data:    for each per_sample input a buffer of all rows; `order`, an array('q'), tells which come next
        batch:   how many rows at a time, at most `capacity`; the last batch may be smaller
        count:   the input of one number that is told how many rows a batch has
        step:    the input of one number that is told the number of the batch, counted from `first_step`
        totals:  for outputs that are not per_sample, float64 buffers to which those of each batch are added
        """
        totals, told = totals or {}, {a for a in (count, step) if a}
        for a in chain(totals, told):
            self._check_known(a)
        self._check(batch, "batch", self._unbound - {*data, *told})
        self._check_sampled(data)
        numbers = viewed("order", order, "q")
        if not 0 <= start <= stop <= len(numbers):
            raise ValueError(f"start, stop: expected 0 <= start <= stop <= {len(numbers)}, got {start} and {stop}")
        if start == stop:
            return
        places = Pin(numbers, read=True)
        last = _asked()[1](places.address + 8 * start, stop - start)
        if last >= 1 << 63:
            raise ValueError(f"order: expected numbers of rows, got {min(numbers[start:stop])}")
        sources = {a: self._pin(a, x, least=(last + 1) * a.size, read=True) for a, x in data.items()}
        for a in {*data, *told} - self._gathered.keys():
            self._gathered[a] = self._own(a)
        targets = {a: self._gathered[a] for a in {*data, *told}}
        sums = {a: Pin(viewed(a.name, x, "d"), a.name, exactly=a.size) for a, x in totals.items()}
        gathers = [(self._slots[a], p.address, targets[a].address, self._row(a)) for a, p in sources.items()]
        adds = [(self._pins[a].address, p.address, a.size) for a, p in sums.items()]
        lists = [array("q", chain(*rows)) for rows in (gathers, adds)]
        spare = Pin(buffer(1))  # for what nobody wants to be told
        self._code.epoch(
            self._table_with(targets), places.address, start, stop, batch,
            lists[0].buffer_info()[0], len(gathers), lists[1].buffer_info()[0], len(adds),
            *[targets[a].address if a else spare.address for a in (count, step)], first_step,
        )  # fmt: skip

    # Memory.

    def _numbers(self, a: Array) -> int:
        return a.size * (self._capacity if a.per_sample else 1)

    def _row(self, a: Array) -> int:
        return a.size * DTYPES[self._code.dtype][2]

    def _own(self, a: Array) -> Pin:
        return Pin(buffer(self._numbers(a), self._code.dtype))

    def _pin(self, a: Array, x: Any, exactly: int = -1, least: int = 0, read: bool = False) -> Pin:
        self._check_known(a)
        return Pin(viewed(a.name, x, DTYPES[self._code.dtype][0]), a.name, exactly, least, read)

    def _point(self, a: Array, pin: Pin) -> None:
        self._pins[a] = pin
        self._table[self._slots[a]] = pin.address

    def _table_with(self, pins: Mapping[Array, Pin]) -> Any:
        """A copy of the table of pointers for one call, with these in it."""
        table = type(self._table).from_buffer_copy(self._table)
        for a, pin in pins.items():
            table[self._slots[a]] = pin.address
        return table

    def _check(self, n: int, name: str, unbound: set[Array]) -> None:
        if not 0 < n <= self._capacity:
            raise ValueError(f"{name}: expected 1 to {self._capacity} samples, got {n}")
        if unbound:
            names = ", ".join(sorted([a.name for a in unbound]))
            raise ValueError(f"memory: expected a buffer for each array, got none for {names}; bind it first")

    def _check_known(self, a: Array) -> None:
        if a not in self._slots:
            raise ValueError(f"{a.name}: expected an array of the program, got {a!r}")

    def _check_sampled(self, arrays: Iterable[Array]) -> None:
        for a in arrays:
            if not a.per_sample:
                raise ValueError(f"{a.name}: expected an array that has a row for each sample; bind this one")


class Slots(NamedTuple):
    """Where the arrays stand in the table of pointers, as the layouts of the printers tell it."""

    slots: dict[Array, int]
    tables_slot: int
    tables: list[int]
    capacity: int


def restored(source: str, slots: tuple[Any, ...], dtype: str, optimize: bool, code: bytes) -> Native:
    """The Native that was `made_of` that."""
    return Native(Machinery(source, Slots(*slots), dtype, host(), 0.0, optimize, code))
