"""Run the user's function on Symbols, and keep what it computed as a graph.

A Symbol is a Value without a number: arithmetic, the table's rows and the chain rule work on it as on any Value, and
only record. Symbols are numbered in the order in which they are made, so a trace is a list in which each comes after
its inputs. A Value that was there before the trace (a parameter) is an input like an argument: its identity is in the
graph, and its number is looked up in each call.

Nothing is simplified here, and nothing is known of loops.

    tape    all Symbols of a trace, in the order in which they were made
    number  the position of a Symbol on its tape
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from milligrad import ops, places, random
from milligrad.engine import (
    MANY,
    Answer,
    Op,
    TraceError,
    Value,
    is_grad_enabled,
    next_serial,
    operand,
    traced_by,
    tracer,
)


class Tape(list["Symbol"]):
    """All Symbols of a trace, in the order in which they were made.

    forward:   how many there were before the chain rule went back from a loss that is an output, too
    doubtful:  the numbers of inputs that may be NaN where eager code would have raised an error
    """

    forward: int = sys.maxsize
    doubtful: frozenset[int] = frozenset()

    def end(self) -> None:
        """From now on nothing can be computed from its Symbols."""
        self.__class__ = _EndedTape


class _EndedTape(Tape):
    def append(self, z: Symbol) -> None:
        raise _kept(z)


def _kept(z: Symbol, kept: Sequence[Symbol] = ()) -> TraceError:
    """What to say of a node that was made with a Symbol of another trace, or is itself one."""
    kept = kept or [
        x for x in inputs_of(z) if type(x) is Symbol and (x.tape is not z.tape or type(x.tape) is _EndedTape)
    ]
    return TraceError(
        f"{_users_line()}A traced number was kept when its trace ended, and is an input of "
        f"`{z.op.name if z.op else 'input'}` here: {', '.join(map(repr, kept[:3]))}. Return it from the function "
        "instead of keeping it in an attribute, a cache or a global."
    )


_new = object.__new__

total = Op(
    "total",
    lambda *xy: ops.dot.value(*xy),
    lambda z, *xy: xy[len(xy) // 2 :] + xy[: len(xy) // 2],
    "total({})",
    "x₁·y₁ + x₂·y₂ + … over all samples; the inputs are all x, then all y.",
)
"""The sum over the samples of a batch. It is no row of the table: only the compiler knows of samples."""


_OUR_FILES: set[str] = set()  # from which a Symbol was asked for its hash, which happens 10⁵ times in a trace


class Symbol(Value):
    """A Value without a number: it knows how it was made, and that is all.

    To ask it for its number is a TraceError, which names the line that asked and says what to write instead.
    """

    __slots__ = ("number", "tape")
    symbolic = True
    # A name given in the traced code is forgotten: to keep it would cost a store for each of 10⁵ Symbols.
    name = property(lambda z: None, lambda z, name: None)

    number: int
    tape: Tape

    def __init__(self, tape: Tape, requires_grad: bool = False) -> None:
        self.op, self.x, self.y = None, (), MANY
        self.requires_grad = requires_grad
        self.tape, self.number, self.serial = tape, len(tape), next_serial()
        tape.append(self)

    def record(self, op: Op, inputs: tuple[Any, ...]) -> Symbol:
        """The Symbol of `op` of `inputs`."""
        z = _new(Symbol)
        z.op = op
        if len(inputs) == 2:
            z.x, z.y = inputs
        else:
            z.x, z.y = inputs, MANY
        z.requires_grad = False
        for x in inputs:
            if type(x) is not float and x.requires_grad:
                z.requires_grad = is_grad_enabled()
                break
        tape = z.tape = self.tape
        z.number, z.serial = len(tape), next_serial()
        tape.append(z)
        return z

    def detach(self) -> Symbol:
        """The same number as a constant."""
        z = self.record(ops.identity, (self,))
        z.requires_grad = False
        return z

    def __lt__(self, y: Any) -> Any:
        return self.record(ops.less, (self, operand(y)))

    def __le__(self, y: Any) -> Any:
        return self.record(ops.less_equal, (self, operand(y)))

    def __gt__(self, y: Any) -> Any:
        return self.record(ops.less, (operand(y), self))

    def __ge__(self, y: Any) -> Any:
        return self.record(ops.less_equal, (operand(y), self))

    def __eq__(self, y: object) -> Any:
        return self._equals(y)

    def __ne__(self, y: object) -> Any:
        same = self._equals(y)
        return same if same is NotImplemented else ~same

    def _equals(self, y: Any) -> Any:
        try:
            return self.record(ops.equal, (self, operand(y)))
        except TypeError:
            return NotImplemented

    # Comparisons are 1 or 0, and so is what these make of them: again comparisons.

    def __and__(self, y: Any) -> Any:
        return _equal(self + y, 2.0) if _are_answers(self, y) else NotImplemented

    def __or__(self, y: Any) -> Any:
        return self + y > 0.0 if _are_answers(self, y) else NotImplemented

    def __xor__(self, y: Any) -> Any:
        return _equal(self + y, 1.0) if _are_answers(self, y) else NotImplemented

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> Any:
        if not _are_answers(self):
            raise TypeError("bad operand for unary ~: expected a comparison, or comparisons joined by & and |")
        return _equal(self, 0.0)

    def __hash__(self) -> int:
        """Its identity, for milligrad's own code: to yours a number that is not known yet can be no key."""
        file = sys._getframe(1).f_code.co_filename
        if file not in _OUR_FILES:
            if places.is_ours(file):
                _OUR_FILES.add(file)
            elif tracer():
                _refuse(
                    "a key of a dict or a member of a set",
                    "where(x == y, a, b) for a choice by number, or F.embedding(i, table)",
                )
        return id(self)

    @property
    def data(self) -> float:
        _refuse(".data", "arithmetic with the value itself")

    @data.setter
    def data(self, x: Any) -> None:
        refuse_to_set(".data")

    real = data

    @property
    def grad(self) -> float:
        _refuse(".grad", "milligrad.grad(output, inputs), or compile(value_and_grad(f))")

    @grad.setter
    def grad(self, x: float) -> None:
        refuse_to_set(".grad")

    def backward(self, gradient: Any = 1.0) -> None:
        _refuse("backward()", "compile(value_and_grad(f)), or f = compile(loss) and f.value(…).backward()")

    def item(self) -> float:
        _refuse("item()", "the value itself, returned from the function")

    def __bool__(self) -> bool:
        _refuse(
            "if, while, and, or, not, in, max, min, sorted or a < b < c",
            "where(condition, a, b), maximum(x, y), minimum(x, y) or clamp(x, lo, hi); & | ~ for and, or, not; for a "
            "while loop scan(f, carry, length=n) with as many steps as it may take, and where(done, carry, new) in f",
        )

    def __float__(self) -> float:
        _refuse(
            "float() or a function of the math module",
            "milligrad's own exp, log, sqrt …, or arithmetic with the value itself",
        )

    def __int__(self) -> int:
        _refuse("int()", "arithmetic with the value itself")

    def __index__(self) -> int:
        _refuse(
            "an index, range() or repetition",
            "F.embedding(i, table) or F.one_hot for a choice by number, scan(f, carry, xs) for a loop over a list; or "
            "fix it before: compile(partial(f, n=3))",
        )

    def __round__(self, ndigits: int | None = None) -> float:
        _refuse("round()", "arithmetic with the value itself")

    def __trunc__(self) -> int:
        _refuse("math.trunc()", "arithmetic with the value itself")

    def __floordiv__(self, y: Any) -> Any:
        _refuse("//, % or divmod()", "arithmetic that has a derivative: x / y")

    __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = __floordiv__

    def __format__(self, spec: str) -> str:
        return repr(self) if not spec else _refuse("a format", "its repr")

    def __repr__(self) -> str:
        return f"Symbol({self.op.name if self.op else 'input'})"

    def __reduce__(self) -> Any:
        raise TraceError(
            f"{_users_line()}a Symbol can't be copied or pickled: it is a traced value, which has its number in a call "
            "only. Write the value itself"
        )


def _are_answers(*xs: Any) -> bool:
    return all((type(x) is Symbol and x.op in COMPARISONS) or isinstance(x, (bool, Answer)) for x in xs)


def _equal(x: Any, y: float) -> Any:
    return x.record(ops.equal, (x, y))


COMPARISONS = (ops.less, ops.less_equal, ops.equal)


def _refuse(question: str, instead: str) -> NoReturn:
    raise TraceError(
        f"{_users_line()}{question} asks a traced value for its number, which it has in a call only. Write {instead}."
    )


def refuse_to_set(what: str) -> NoReturn:
    raise TraceError(f"{_users_line()}a traced function can't set {what}: it would be set in the trace alone")


def _users_line() -> str:
    """The file, number and text of the innermost line outside milligrad."""
    if (line := places.users_line()) is None:
        return ""
    path, number = line
    text = places.text(line)
    return f"{path}, line {number}{f': `{text}`' * bool(text)}\n"


def _no_operand(op: Op, x: Any) -> Any:
    """What an operator answers to what is no number. Of a string Python would make a repetition, and ask how often."""
    if op is ops.mul and isinstance(x, (str, bytes)):
        raise TypeError(
            f"unsupported operand for *: expected a real number or a Value, got {type(x).__name__} {x!r:.60}"
        )
    return NotImplemented


def _infix(op: Op, of_constant_y: Op | None = None, of_constant_x: Op | None = None) -> tuple[Any, Any]:
    """The methods behind an operator, as `engine.infix`, for Symbols. They are `record`, written out for two inputs."""
    op_for_y, op_for_x = of_constant_y or op, of_constant_x or op

    def forward(x: Symbol, y: Any) -> Any:
        if type(y) is not float and type(y) is not Symbol and type(y) is not Value:
            try:
                y = operand(y)
            except TypeError:
                return _no_operand(op, y)
        constant = type(y) is float
        z = _new(Symbol)
        z.op = op_for_y if constant else op
        z.x = x
        z.y = y
        z.requires_grad = (x.requires_grad or (not constant and y.requires_grad)) and is_grad_enabled()
        tape = z.tape = x.tape
        z.number, z.serial = len(tape), next_serial()
        tape.append(z)
        return z

    def reflected(y: Symbol, x: Any) -> Any:
        try:
            x = operand(x)
        except TypeError:
            return _no_operand(op, x)
        return y.record(op_for_x if type(x) is float else op, (x, y))

    return forward, reflected


Symbol.__add__, Symbol.__radd__ = _infix(ops.add)  # type: ignore[method-assign]
Symbol.__sub__, Symbol.__rsub__ = _infix(ops.sub)  # type: ignore[method-assign]
Symbol.__mul__, Symbol.__rmul__ = _infix(ops.mul)  # type: ignore[method-assign]
Symbol.__truediv__, Symbol.__rtruediv__ = _infix(ops.div)  # type: ignore[method-assign]
Symbol.__pow__, Symbol.__rpow__ = _infix(ops.pow, ops.power, ops.exponential)  # type: ignore[method-assign]


class Trace:
    """A graph in the making: its tape, and the Symbols that stand for numbers handed in.

    inputs:    an array of Symbols for each name
    random:    the Symbols that stand for numbers drawn from milligrad's generator, in the order of drawing
    modules:   the modules that were called
    counts:    what a `scan` asks whether it is to be cut, see counts.py
    runs:      of nodes that have their derivatives together: whose they are, see `recompute.py`. None where all numbers
               are remembered
    """

    def __init__(self, counts: Any = None, recomputes: bool = False) -> None:
        self.tape = Tape()
        self.counts = counts
        self.runs: dict[int, Any] | None = {} if recomputes else None
        self.inputs: dict[str, list[Symbol]] = {}
        self.random: list[Symbol] = []
        self.modules: dict[Any, None] = {}
        self._first = _new(Symbol)  # on no tape itself
        self._first.tape = self.tape

    def record(self, op: Op, inputs: tuple[Any, ...]) -> Symbol:
        """The Symbol of `op` of `inputs`; the engine asks for it where there are Values alone, such as parameters."""
        return self._first.record(op, inputs)

    def derived(self, derivatives: Iterable[tuple[Value, Any]]) -> None:
        """The chain rule made these."""
        if self.counts is not None:
            self.counts.derived(derivatives)

    def input(self, name: str, n: int) -> list[Symbol]:
        """n new Symbols, the array `name`."""
        self.inputs[name] = [Symbol(self.tape) for _ in range(n)]
        return self.inputs[name]

    def draw(self) -> Symbol:
        """A Symbol for a random number, drawn anew in each call."""
        self.random.append(Symbol(self.tape))
        return self.random[-1]

    @contextmanager
    def ending(self) -> Iterator[None]:
        """At its end, in whichever way, the trace is at an end, too: its Symbols are of no use any more."""
        try:
            yield
        finally:
            self.tape.end()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it, what is computed, from Values alone too, is recorded here, and numbers drawn are Symbols.

        At its end it warns of what would go unnoticed: numbers of Python's `random` or NumPy's, which are drawn in the
        trace only, and Symbols that a module keeps.
        """
        before = _states_of_other_generators()
        with traced_by(self), random.drawn_by(self.draw):
            yield
        if _states_of_other_generators() != before:
            places.warn(
                "a traced function drew from Python's random or NumPy's: the same numbers are used in every call. Draw "
                "from milligrad.random.uniform() or generator(), which is drawn anew, or pass the numbers as arguments",
                UserWarning,
            )
        for module in self.modules:
            for name, x in vars(module).items():
                if name != "_parameters" and self._keeps(x):  # they hold no Symbols, and are many
                    places.warn(
                        f"{type(module).__name__}.{name} keeps a traced number, which is none once the trace has "
                        "ended: to use it in a later call is an error. Return it from the function instead",
                        UserWarning,
                    )

    def _keeps(self, x: Any) -> bool:
        """Whether x is a Symbol of this trace, or a container with one in it."""
        if isinstance(x, dict):
            return any(map(self._keeps, x.values()))
        if isinstance(x, (list, tuple, set)):
            return any(map(self._keeps, x))
        return type(x) is Symbol and x.tape is self.tape


def _states_of_other_generators() -> Any:
    """Of Python's random numbers, and of NumPy's, where they have been imported."""
    import random as pythons  # here, since it takes long, and milligrad is quick to import

    numpys = sys.modules.get("numpy.random")
    return pythons.getstate(), numpys and str(numpys.get_state())


def inputs_of(z: Symbol) -> tuple[Any, ...]:
    """What z was computed from: Symbols, Values and floats."""
    return z.x if z.y is MANY else (z.x, z.y)


def needed(tape: Tape, outputs: list[Any]) -> bytearray:
    """For each Symbol of the tape, whether an output was computed from it."""
    need = bytearray(len(tape))
    for z in outputs:
        if isinstance(z, Symbol):
            if z.tape is not tape:
                raise _kept(z, [z])
            need[z.number] = 1
    for i in range(len(tape) - 1, -1, -1):
        if need[i]:
            z = tape[i]
            for x in z.x if z.y is MANY else (z.x, z.y):
                if type(x) is Symbol:
                    if x.tape is not tape:
                        raise _kept(z)
                    need[x.number] = 1
    return need


def captured(tape: Tape, need: bytearray, outputs: list[Any]) -> list[Value]:
    """The Values that the outputs depend on, each once, in the order in which the trace met them."""
    found: dict[Value, None] = {}
    for z in tape:
        if need[z.number]:
            for x in z.x if z.y is MANY else (z.x, z.y):
                if type(x) is not Symbol and type(x) is not float:
                    found[x] = None
    found.update((z, None) for z in outputs if isinstance(z, Value) and not z.symbolic)
    return list(found)
