"""Value: a number that remembers how it was made, and the one walk that differentiates it.

The engine knows what an operation *is* (`Op`: a value and its partial derivatives) but not a single one of them;
they are the rows of the table in `ops.py`. It knows nothing of networks. Deep graphs are walked by loops, never
by recursion, and a graph holds no reference cycle, so it is freed the moment it is dropped.

Names, here and in every other file:

    x, y      inputs of an operation: a Value, or a plain float for a constant
    z         its output
    partials  ∂z/∂x, one for each input
    adjoint   ∂output/∂z: how the output at the end of the graph moves with z
    g         the adjoint that comes in from the output's side
"""

from __future__ import annotations

import operator
import sys
from _thread import allocate_lock
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import wraps
from itertools import chain, count
from types import MethodType

from milligrad.nested import Nested, elementwise, flatten, leaves
from milligrad.places import shown as shown_line
from milligrad.places import users_line, warn
from milligrad.typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, overload

Number: TypeAlias = "Value | float"
Method: TypeAlias = Callable[["Value", Any], Any]
P = ParamSpec("P")
R = TypeVar("R")
NAN = float("nan")


class Op:
    """One operation: a row of the table.

    name:      what it is called: `log`
    value:     floats → float
    partials:  (z, *inputs) → one partial derivative per input. Written with arithmetic and rows of the table, so
               that it runs on floats (the backward pass), on Values (a gradient that can be differentiated again)
               and on whatever else does arithmetic. A comparison counts as 0 or 1: `(x > 0) - (x < 0)`.
    form:      how it is printed: "log({})"
    domain:    where it is defined: a condition on its inputs, which it calls x and y; "" for everywhere
    sentence:  what it is, in words; its docstring

    pull:      None for every row; or (z, g) → (input, what the chain rule adds to its adjoint) for each input, of an op
               of which several nodes have their derivatives together, see recompute.py

    A row is called like the function it is: of floats it gives a float, of Values a Value. Any real number is
    welcome in the place of a float; anything else raises TypeError. A number outside the domain raises what
    Python's own arithmetic raises: ValueError, ZeroDivisionError or OverflowError.
    """

    pull: Callable[[Any, Any], Iterable[tuple[Any, Any]]] | None = None

    def __init__(
        self,
        name: str,
        value: Callable[..., float],
        partials: Callable[..., Sequence[Any]],
        form: str,
        sentence: str,
        domain: str = "",
    ) -> None:
        self.name, self.value, self.partials = name, value, partials
        self.form, self.domain, self.__doc__ = form, domain, sentence
        self.__name__ = self.__qualname__ = name

    @overload
    def __call__(self, *inputs: float) -> float: ...  # type: ignore[overload-overlap]  # a float is a Number, too
    @overload
    def __call__(self, *inputs: Number) -> Value: ...
    def __call__(self, *inputs: Number) -> Number:
        return apply(self, inputs)

    def __get__(self, instance: Any, owner: type) -> Any:
        """A row that is an attribute of Value is a method of it: `v.exp()` is `exp(v)`."""
        return self if instance is None else MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    # A row is known by its identity: copies are the row itself, and so is what a row of the table is unpickled to.

    def __copy__(self) -> Op:
        return self

    def __deepcopy__(self, memo: Any) -> Op:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (row, (self.name,)) if TABLE.get(self.name) is self else super().__reduce_ex__(protocol)


TABLE: dict[str, Op] = {}
"""The rows of ops.py by their names."""


def row(name: str) -> Op:
    """The row of that name."""
    return TABLE[name]


class Reduction(Op):
    """An operation of any number of inputs. It is called with a list of them, `sum(xs)`, or with two, `dot(xs, ys)`.

    lists:      how many lists it takes, all of one length
    symmetric:  whether the order of the inputs (of two lists, of the pairs) makes no difference, so that the compiler
                may change it
    """

    def __init__(self, *row: Any, lists: int = 1, symmetric: bool = False) -> None:
        super().__init__(*row)
        self.lists, self.symmetric = lists, symmetric

    def __call__(self, *lists: Iterable[Number]) -> Any:  # type: ignore[override]
        if len(lists) != self.lists:
            raise TypeError(
                f"{self.name}: expected {self.lists} list{'s' * (self.lists > 1)}, got {len(lists)} arguments"
            )
        columns = [numbers(xs, self.name) for xs in lists]
        if len({*map(len, columns)}) > 1:
            raise ValueError(
                f"{self.name}: expected lists of one length, got {' and '.join(str(len(c)) for c in columns)}"
            )
        return apply(self, tuple(chain(*columns)))


def numbers(xs: Iterable[Number], name: str) -> tuple[Number, ...]:
    """The list `xs`, whatever kind of list it is. Anything else raises TypeError."""
    try:
        return tuple(xs)
    except TypeError:
        raise TypeError(f"{name}: expected a list of numbers or Values, got {type(xs).__name__} {xs!r:.60}") from None


def number(x: object, name: str = "x") -> float:
    """`x` as a float; of a Value its number, without its history.

    A string, None, a complex number or a container raises TypeError, which calls it `name`.
    """
    kind = type(x)
    if kind is float:
        return x  # type: ignore[return-value]
    if isinstance(x, Value):
        return x.data
    known = kind is int or kind is bool
    # NumPy's arrays and strings have a `__float__`, too; the class of an Enum, but none of its members, has a length.
    if not known and (not hasattr(kind, "__float__") or hasattr(x, "__len__") or _is_complex(x)):
        raise TypeError(f"{name}: expected a real number or a Value, got {kind.__name__} {x!r:.60}")
    try:
        return float(x)  # type: ignore[arg-type]
    except OverflowError:
        raise OverflowError(
            f"{name}: expected a number that a float can hold, got {kind.__name__} of {x!r:.30}…"
        ) from None


def _is_complex(x: object) -> bool:
    """NumPy's complex numbers have a `__float__`, too, which drops the imaginary part."""
    if getattr(getattr(x, "dtype", None), "kind", "") == "c":
        return True
    from numbers import Complex, Real  # here, since few need it and it takes a millisecond

    return isinstance(x, Complex) and not isinstance(x, Real)


def operand(x: object) -> Number:
    """`x` as an input of an operation: a Value as it is, any other real number as a float."""
    return x if isinstance(x, Value) else number(x, "operand")


def apply(op: Op, inputs: tuple[Any, ...]) -> Number:
    """`op` of `inputs`: a float of floats, and a Value as soon as one of them is a Value."""
    constant = True
    for x in inputs:
        if type(x) is not float:
            if type(x) is not Value and (not isinstance(x, Value) or x.symbolic):
                return _apply_to_others(op, inputs)
            constant = False
    if _modes and not constant and (trace := tracer()):
        return trace.record(op, inputs)  # type: ignore[no-any-return]
    try:
        data = op.value(*[x if type(x) is float else x._data for x in inputs])
    except (ValueError, ArithmeticError) as error:
        raise _explained(error, op, inputs) from None
    except TypeError:
        _check_data(inputs)
        raise
    return data if constant else node(op, inputs, data)


def _check_data(inputs: Iterable[Number]) -> None:
    """Raise TypeError for the first of the Values whose data somebody set to something else than a number."""
    for x in inputs:
        if isinstance(x, Value) and isinstance(x._data, Value):
            raise TypeError(
                f"data{f' of {x.name}' * bool(x.name)}: expected a number, got {x._data!r:.60}; set .data to its .data"
            )
        if isinstance(x, Value):
            number(x._data, f"data of {x.name}" if x.name else "data")


def _apply_to_others(op: Op, inputs: tuple[Any, ...]) -> Number:
    """`op` of inputs that are ints or the like, or among which is a Value without a number: it only records."""
    if not all([kind is float or issubclass(kind, Value) for kind in {*map(type, inputs)}]):
        inputs = tuple(map(operand, inputs))
    for x in inputs:
        if isinstance(x, Value) and x.symbolic:
            return x.record(op, inputs)
    return apply(op, inputs)


def _explained(error: Exception, op: Op, inputs: Sequence[Number], reason: str = "") -> Exception:
    """The same kind of error, with the operation, the numbers it was given, their names, and the reason.

    Whoever catches it finds the operation and its inputs in the error's attributes `op` and `inputs`, too.
    """
    shown = [f"{x.name} = {x._data}" if isinstance(x, Value) and x.name else str(x.real) for x in inputs[:8]]
    if not inputs:
        return type(error)(f"{op.name}: expected at least one number, got an empty list")
    if not reason:
        reason = f"expected {op.domain}" if op.domain and not isinstance(error, OverflowError) else str(error.args[-1])
    explained = type(error)(f"{op.name} of {', '.join(shown)}{', …' * (len(inputs) > 8)}: {reason}")
    vars(explained).update(op=op, inputs=inputs)
    return explained


class TraceError(TypeError):
    """A value that is being traced, and has no number yet, was asked for its number. The message says what to write."""


class GradientWarning(UserWarning):
    """A Value that requires a gradient was turned into a plain number: no gradient passes through that number."""


class Answer(int):
    """What a comparison of Values says: 1 or 0, printed True or False. It knows `&`, `|`, `^` and `~` ("not")."""

    __slots__ = ()

    def __and__(self, y: Any) -> Any:
        return _answer(self and y) if _is_truth(y) else NotImplemented

    def __or__(self, y: Any) -> Any:
        return _answer(self or y) if _is_truth(y) else NotImplemented

    def __xor__(self, y: Any) -> Any:
        return _answer(bool(self) is not bool(y)) if _is_truth(y) else NotImplemented

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> Any:
        return _answer(not self)

    def __repr__(self) -> str:
        return "True" if self else "False"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(bool(self), spec)

    def __reduce__(self) -> Any:
        return bool, (int(self),)


def _is_truth(x: object) -> bool:
    return isinstance(x, int) or getattr(x, "dtype", None) == "bool"  # NumPy's


FALSE, TRUE = Answer(0), Answer(1)


def _answer(true: object) -> Answer:
    return TRUE if true else FALSE


MANY = object()
_new = object.__new__
next_serial = count(1).__next__
_serial = operator.attrgetter("serial")
_modes: set[int] = set()  # one for each unusual mode that some thread or task is in: most often none, so quick to ask


class _On:
    """That a mode is on. It ends with the last context that knows of it, also where a thread ended within the mode."""

    def __init__(self, trace: Any = None) -> None:
        self.trace = trace
        _modes.add(id(self))

    def __del__(self) -> None:
        _modes.discard(id(self))


_no_grad: ContextVar[_On | None] = ContextVar("no_grad", default=None)
_lines: ContextVar[_On | None] = ContextVar("lines", default=None)
_tracer: ContextVar[_On | None] = ContextVar("trace", default=None)  # the compiler's trace that is running


def node(op: Op, inputs: tuple[Any, ...], data: float) -> Value:
    """A new Value `data`. It remembers `op` and `inputs` if one of them requires a gradient, unless in `no_grad`.

    While the compiler traces, it is what the trace makes of them: a Value without a number.
    """
    if _modes and (trace := tracer()):
        return trace.record(op, inputs)  # type: ignore[no-any-return]
    if type(data) is not float:
        _check_data(inputs)
    if not _modes or is_grad_enabled():
        for x in inputs:
            if type(x) is not float and x.requires_grad:
                z = _remember(op, *inputs, data) if len(inputs) == 2 else _remember(op, inputs, MANY, data)
                if _modes and _lines.get():
                    z.line = users_line()
                return z
    return Value(data, requires_grad=False)


def _remember(op: Op, x: Any, y: Any, data: float) -> Value:
    z = _new(Value)
    z._data = data
    z._grad = 0.0
    z.op = op
    z.x = x
    z.y = y
    z.requires_grad = True
    z.name = None
    z.serial = next_serial()
    return z


def infix(op: Op, of_constant_y: Op | None = None, of_constant_x: Op | None = None) -> tuple[Method, Method]:
    """The methods behind an operator: `x ∘ y` for a Value x, and reflected for a number x and a Value y.

    They are `apply`, written out for two inputs: most of what a scalar engine does is arithmetic, and this form takes
    a third of the time; calling `_remember` alone would take 3 % of a training step. Numbers may have a row of
    their own. What is unusual (no history to keep, a value that fails and is to be explained) is left to `node` and
    `apply`.
    """
    value, op_for_y, op_for_x = op.value, of_constant_y or op, of_constant_x or op

    def forward(x: Value, y: Any) -> Any:
        if type(y) is not float and type(y) is not Value:
            try:
                y = float(y) if type(y) is int else operand(y)
            except TypeError:
                return _not_ours(y)
        constant = type(y) is float
        try:
            data = value(x._data, y if constant else y._data)
        except (ValueError, ArithmeticError, TypeError):
            return apply(op_for_y if constant else op, (x, y))
        if not _modes and type(data) is float and (x.requires_grad or (not constant and y.requires_grad)):
            z = _new(Value)  # as `_remember` does
            z._data = data
            z._grad = 0.0
            z.op = op_for_y if constant else op
            z.x = x
            z.y = y
            z.requires_grad = True
            z.name = None
            z.serial = next_serial()
            return z
        return node(op_for_y if constant else op, (x, y), data)

    def reflected(y: Value, x: Any) -> Any:
        if type(x) is not float:
            try:
                x = float(x) if type(x) is int else number(x, "operand")
            except TypeError:
                return _not_ours(x)
        try:
            data = value(x, y._data)
        except (ValueError, ArithmeticError, TypeError):
            return apply(op_for_x, (x, y))
        if not _modes and type(data) is float and y.requires_grad:
            return _remember(op_for_x, x, y, data)
        return node(op_for_x, (x, y), data)

    return forward, reflected


def _not_ours(x: object) -> Any:
    """NotImplemented, by which Python asks the other operand's class; but no class of Python's own knows a Value."""
    if type(x).__module__ == "builtins":
        raise  # the TypeError that says what was expected
    return NotImplemented


def _compare(relation: Callable[[Any, Any], bool]) -> Callable[[Value, Any], Any]:
    def method(x: Value, y: Any) -> Any:
        if _modes and tracer():
            return relation(+x, y)  # of a Value without a number, as `node` makes it
        if not isinstance(y, (float, int)):
            try:
                y = number(y, "operand")
            except TypeError:
                return NotImplemented
        return TRUE if relation(x._data, y) else FALSE

    return method


class Value:
    """A number that remembers how it was made, so that it can be differentiated.

    data:           the number, a float. Anything real enters as a float (a Value without its history); other types
                    raise TypeError.
    name:           shown in pictures and in error messages.
    requires_grad:  False makes it a constant: nothing computed from constants alone is remembered.
    grad:           ∂output/∂self, added up by `backward` of that output; 0.0 before.
    op, inputs:     the operation that made it, and of what; None and () for a leaf, which nothing made. The slots x
                    and y hold two inputs as they are, since a tuple for each node would be a second object for the
                    garbage collector to look at. Of any other number of inputs, x is the tuple, and y is `MANY`.
    serial:         its number among all Values, in the order in which they were made; pictures follow it.
    line:           the file and the line that computed it, within `record_lines`; else the slot is empty, which takes
                    no time and 8 bytes.

    `==`, `!=`, `<`, `<=`, `>` and `>=` compare by number, with numbers and with Values; answers know `&`, `|` and `~`.
    `hash` goes by identity, as that of PyTorch's tensors: a Value in a set or as a key of a dictionary is found by
    itself alone, whatever its number. `float(v)`, `int(v)` and functions of the `math` module take the number out, and
    no gradient passes through it; if one would have, they say so with a GradientWarning.

    `backward` uses the numbers that the inputs hold when it runs: change `.data` after it, not before.
    """

    __slots__ = ("_data", "_grad", "op", "x", "y", "requires_grad", "name", "serial", "line")
    __array_ufunc__ = None  # NumPy's numbers and arrays leave arithmetic with a Value to the Value
    symbolic = False  # whether it has no number, as the compiler's Symbol, and only records what is computed from it
    sum_of_products: Callable[[Sequence[Any], Sequence[Any]], Any]  # the table's `dot`, set by ops.py

    _data: float
    _grad: float
    op: Op | None
    x: Any
    y: Any
    requires_grad: bool
    name: str | None
    serial: int
    line: tuple[str, int] | None

    def __init__(self, data: Any, name: str | None = None, requires_grad: bool = True) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name: expected a string or None, got {type(name).__name__} {name!r:.60}")
        if isinstance(data, Value) and data.requires_grad and is_grad_enabled():
            warn(
                "Value(v) takes the number of v alone, which requires a gradient, and no gradient passes through it: "
                "write v itself, or v.detach() for its number",
                GradientWarning,
            )
        self._data = number(data, "data")
        self._grad = 0.0
        self.op = None
        self.x, self.y = (), MANY
        self.requires_grad = bool(requires_grad)
        self.name = name
        self.serial = next_serial()

    # The rest of the arithmetic is the table's: ops.py sets `Value.__add__, Value.__radd__ = infix(add)`, `Value.exp
    # = exp` and so on. Here it is only declared, for type checkers.
    if TYPE_CHECKING:

        @property
        def data(self) -> float: ...
        @data.setter
        def data(self, x: float) -> None: ...

        real = data

        @property
        def grad(self) -> float: ...
        @grad.setter
        def grad(self, x: float) -> None: ...

        # fmt: off
        def __add__(self, y: Any) -> Value: ...
        def __radd__(self, y: Any) -> Value: ...
        def __sub__(self, y: Any) -> Value: ...
        def __rsub__(self, y: Any) -> Value: ...
        def __mul__(self, y: Any) -> Value: ...
        def __rmul__(self, y: Any) -> Value: ...
        def __truediv__(self, y: Any) -> Value: ...
        def __rtruediv__(self, y: Any) -> Value: ...
        def __pow__(self, y: Any) -> Value: ...
        def __rpow__(self, y: Any) -> Value: ...
        def __neg__(self) -> Value: ...
        def __pos__(self) -> Value: ...
        def __abs__(self) -> Value: ...
        def exp(self) -> Value: ...
        def expm1(self) -> Value: ...
        def log(self) -> Value: ...
        def log1p(self) -> Value: ...
        def sqrt(self) -> Value: ...
        def sin(self) -> Value: ...
        def cos(self) -> Value: ...
        def tan(self) -> Value: ...
        def asin(self) -> Value: ...
        def acos(self) -> Value: ...
        def atan(self) -> Value: ...
        def sinh(self) -> Value: ...
        def cosh(self) -> Value: ...
        def tanh(self) -> Value: ...
        def sigmoid(self) -> Value: ...
        def relu(self) -> Value: ...
        def softplus(self) -> Value: ...
        def erf(self) -> Value: ...
        def erfc(self) -> Value: ...
        def abs(self) -> Value: ...
        def maximum(self, y: Any) -> Value: ...
        def minimum(self, y: Any) -> Value: ...
        def clamp(self, min: Any = None, max: Any = None) -> Value: ...
        def where(self, condition: Any, y: Any) -> Value: ...
        # fmt: on

    __eq__, __ne__ = _compare(operator.eq), _compare(operator.ne)
    __lt__, __le__ = _compare(operator.lt), _compare(operator.le)
    __gt__, __ge__ = _compare(operator.gt), _compare(operator.ge)
    __hash__ = object.__hash__

    def __float__(self) -> float:
        if _modes and tracer():
            return float(+self)  # of a Value without a number, which refuses
        if self.requires_grad and is_grad_enabled():
            warn(
                "a Value that requires a gradient became a plain number here, through which no gradient passes: write "
                "v.data if the number is what you want, milligrad.exp instead of math.exp (likewise sin, log, sqrt …) "
                "if it is to be differentiated",
                GradientWarning,
            )
        return self._data

    def __int__(self) -> int:
        return int(float(self))

    def __bool__(self) -> bool:
        return bool(+self) if _modes and tracer() else self._data != 0.0

    def __round__(self, ndigits: int | None = None) -> float:
        return round(float(self), ndigits)

    def __format__(self, spec: str) -> str:
        return format(self.data, spec) if spec else repr(self)

    def __repr__(self) -> str:
        name = f", name={self.name!r}" if self.name is not None else ""
        constant = "" if self.requires_grad else ", requires_grad=False"
        return f"Value(data={self._data}, grad={self._grad}{name}{constant})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are of leaves: a copy of a graph would have to copy all that it was computed from."""
        if self.inputs:
            raise TypeError(f"a Value computed from others ({self.op}) can't be copied or pickled: detach() it first")
        return type(self), (self.data, self.name, self.requires_grad), (None, {"_grad": self._grad})

    def record(self, op: Op, inputs: tuple[Any, ...]) -> Value:
        """What `op` of `inputs`, of which self is one, is to a Value without a number; see `symbolic`."""
        raise NotImplementedError(f"{type(self).__name__} has a number")

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What it was computed from: Values, and floats for constants."""
        return self.x if self.y is MANY else (self.x, self.y)

    @property
    def is_leaf(self) -> bool:
        """Whether it was given rather than computed (or computed from constants alone, so that nothing is left)."""
        return self.op is None

    def item(self) -> float:
        """The number: `data`."""
        return self.data

    def detach(self) -> Value:
        """A constant of the same number and name, without the history."""
        if _modes and tracer():
            return (+self).detach()
        return Value(self._data, self.name, requires_grad=False)

    def zero_grad(self) -> None:
        """Forget the gradient: `grad` is 0.0 again."""
        self.grad = 0.0

    def backward(self, gradient: Any = 1.0) -> None:
        """Add ∂self/∂x · `gradient` to the `grad` of every Value x that self was computed from, and of itself.

        Gradients add up over calls; `zero_grad` starts afresh. Raises RuntimeError if self requires no gradient,
        and what Python's arithmetic raises where a derivative does not exist (sqrt at 0); then no `grad` changes.
        """
        g = number(gradient, "gradient")
        check_history(self)
        for x, adjoint in adjoints([(self, g)], partials_as_numbers).items():
            x._grad += adjoint


# `data` and `grad` are the slots `_data` and `_grad`; so is `real`, the name that Python's floats have for the number
# itself. While the compiler traces, they ask first: a number that is read then would be that of this one call in every
# call.


def _asking(name: str) -> property:
    def read(x: Value) -> Any:
        if tracer():
            getattr(+x, name)  # of a Value without a number, which refuses
        return getattr(x, f"_{name}")

    def change(x: Value, number: Any) -> None:
        if tracer():
            setattr(+x, name, number)  # likewise
        setattr(x, f"_{name}", number)

    return property(read, change)


SLOTS = {"data": Value.__dict__["_data"], "real": Value.__dict__["_data"], "grad": Value.__dict__["_grad"]}
ASKING = {"data": _asking("data"), "real": _asking("data"), "grad": _asking("grad")}
_traces: list[Any] = []  # those that are running, in all threads
_lock = allocate_lock()
_changes = 0
CHANGES = 300 if sys.version_info >= (3, 13) else 10**9
"""How often the class may be changed to and fro: from Python 3.13 on, a class changed 1,000 times is slow for ever.
After that it goes on asking, which only those notice who read `data` themselves."""


def _ask(trace: Any, on: bool) -> None:
    """`trace` begins, or ends."""
    global _changes
    with _lock:
        (_traces.append if on else _traces.remove)(trace)
        wanted = ASKING if _traces or _changes > CHANGES else SLOTS
        if Value.__dict__["data"] is not wanted["data"]:
            _become(wanted)
            _changes += 1


def _become(attributes: dict[str, Any]) -> None:
    for name, attribute in attributes.items():
        setattr(Value, name, attribute)


_become(SLOTS)


def is_grad_enabled() -> bool:
    """Whether computations are remembered here: not within `no_grad`."""
    return not (_modes and _no_grad.get())


def tracer() -> Any:
    """The trace of the compiler that is running, or None."""
    return mode.trace if _modes and (mode := _tracer.get()) else None


@contextmanager
def traced_by(trace: Any) -> Iterator[None]:
    """Within it `trace` records what is computed."""
    before = _tracer.get()
    _tracer.set(_On(trace))
    _ask(trace, True)
    try:
        yield
    finally:
        _ask(trace, False)
        _tracer.set(before)


class Mode:
    """`with` it, or in a function it decorates, a mode of the engine is on or off, in this thread and asyncio task.

    It does not reach into generators: a decorated generator function runs its steps after the decorator has ended.
    """

    def __init__(self, mode: ContextVar[_On | None], on: bool) -> None:
        self.mode, self.on = mode, on
        self._outer: list[_On | None] = []  # what to go back to, for each time it was entered

    def __enter__(self) -> None:
        self._outer.append(self.mode.get())
        self.mode.set(_On() if self.on else None)

    def __exit__(self, *error: object) -> None:
        self.mode.set(self._outer.pop())

    def __call__(self, f: Callable[P, R]) -> Callable[P, R]:
        @wraps(f)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            with Mode(self.mode, self.on):  # one for each call: f may run in many threads
                return f(*args, **kwargs)

        return wrapped


def no_grad() -> Mode:
    """Within it (`with no_grad():`, or `@no_grad()` on a function) nothing is remembered: results are constants."""
    return Mode(_no_grad, True)


def enable_grad() -> Mode:
    """Within it computations are remembered, even inside `no_grad`."""
    return Mode(_no_grad, False)


def record_lines() -> Mode:
    """Within it (`with record_lines():`) each Value that is computed remembers the line of yours that computed it.

    The line is the innermost one outside milligrad; pictures tell it. It takes longer: the calls are looked through for
    each operation.
    """
    return Mode(_lines, True)


def place(z: Value) -> str:
    """The line that computed z, as text: `model.py:12: y = x * w`. "" if none was recorded, see `record_lines`."""
    line = getattr(z, "line", None)
    return "" if line is None else shown_line(line)


def is_current(z: Value) -> bool:
    """Whether z is what its operation makes of its inputs as they are now: an optimizer may have changed them since."""
    try:
        data = z.op.value(*_numbers_of(z))  # type: ignore[union-attr]
    except TypeError:
        return True  # of compiled code, which is not a formula of its inputs
    except (ValueError, ArithmeticError):
        return False
    return data == z._data or (data != data and z._data != z._data)


def _numbers_of(z: Value) -> list[float]:
    """The numbers of the inputs of z."""
    return [x if type(x) is float else x._data for x in z.inputs]


def check_history(output: Value) -> None:
    """Raise RuntimeError if `output` was computed from nothing that requires a gradient."""
    if not output.requires_grad:
        raise RuntimeError(f"no gradient of {output!r}: it is a constant, or computed from constants or in no_grad")


def topological_order(outputs: Iterable[Number]) -> list[Value]:
    """The Values computed on the way to `outputs`, the last made first; leaves are left out.

    The one walk behind backward, grad, and every other reader of a graph. A Value is made after its inputs, so that
    each comes before what it was computed from; and a loop that computed them is gone through from its end.
    """
    order = [*{z for z in outputs if isinstance(z, Value) and z.op is not None}]
    if tracer():
        _walk_by_serial(order)
    else:
        seen = {*order}
        for z in order:
            for x in z.x if z.y is MANY else (z.x, z.y):
                if type(x) is not float and x.op is not None and x.requires_grad and x not in seen:
                    seen.add(x)
                    order.append(x)
    order.sort(key=_serial, reverse=True)
    return order


def _walk_by_serial(order: list[Value]) -> None:
    """The same loop for Values without a number, whose hash takes longer than their serial number's."""
    seen = {z.serial for z in order}
    for z in order:
        for x in z.inputs:
            if type(x) is not float and x.op is not None and x.requires_grad and x.serial not in seen:
                seen.add(x.serial)
                order.append(x)


# The chain rule, and its one exception. What comes in is multiplied by the partial derivative and passed on; but a
# factor that is exactly 0 makes the product exactly 0, whatever the other factor is, and even where it does not exist:
# sqrt at 0 behind `where` or times 0 is no trouble. (Enzyme and ChainRules.jl call such a 0 a strong zero.) A
# derivative that does not exist is an error only where something asks for it that it reaches.


def adjoints(
    outputs: Iterable[tuple[Value, Any]],
    partials: Callable[[Value], Sequence[Any]],
    total: Callable[[Value, list[Any], list[Any]], Any] | None = None,
    wanted: Iterable[Value] | None = None,
    order: list[Value] | None = None,
) -> dict[Value, Any]:
    """The chain rule: the adjoint of every Value that the `outputs`, each given with its own, were computed from.

    The adjoint of x is the sum of g · ∂z/∂x over each z that x is an input of, outputs first. They are kept apart
    from `.grad`, so that a second backward over the same graph starts from nothing. With `partials_as_numbers` the
    adjoints are numbers; with `partials_as_values` they are Values, and can be differentiated again. Then
    `total(x, gs, ds)` adds up the products, as one node for each x. What has no adjoint has the adjoint 0. If some are
    `wanted`, it is theirs alone. With an `order`, a part of the topological one, it goes through these Values alone.

    Raises what Python's arithmetic raised for a partial derivative if the adjoint of a `wanted` Value depends on it; of
    a leaf, if none is wanted in particular.
    """
    seeds = dict(outputs)
    if order is None:
        order = topological_order(seeds)
    if partials is partials_as_numbers:
        adjoint, missing = _adjoints_as_numbers(seeds, order)
        if wanted is not None:
            adjoint = {x: adjoint[x] for x in wanted if x in adjoint}
    else:
        found, missing = _adjoints_as_values(seeds, order, partials, total)
        adjoint = dict(found.values() if wanted is None else [found[x.serial] for x in wanted if x.serial in found])
    if missing is not None or partials is not partials_as_numbers:
        numbers = [_known(g) for x, g in adjoint.items() if wanted is not None or x.op is None]
        if any(x != x for x in numbers):
            check_derivatives(seeds, missing)
    return adjoint


def check_derivatives(outputs: Iterable[Number], missing: Value | None = None) -> None:
    """Raise the error of `missing`, which has no derivative, or of what had none when `outputs` were differentiated."""
    order = [] if missing is not None else topological_order(outputs)
    found = [x.x[0] for z in order for x in (z, *z.inputs) if isinstance(x, Value) and x.op is NONE]
    for z in [missing, *found]:
        if z is not None:
            partials_as_numbers(z)


NONE = Op("none", lambda x: NAN, lambda z, x: (NAN,), "no derivative of {}", "The derivative of what has none.")


def _known(x: Any) -> float | None:
    """The number of a float or a Value; None if it is a Value without one."""
    return x if not isinstance(x, Value) else None if x.symbolic else x._data


def _adjoints_as_values(
    seeds: dict[Value, Any],
    order: list[Value],
    partials: Callable[[Value], Sequence[Any]],
    total: Callable[[Value, list[Any], list[Any]], Any] | None,
) -> tuple[dict[int, tuple[Value, Any]], Value | None]:
    """Each Value with its adjoint by its serial number, since the hash of a Value without a number takes long."""
    total = total or _total
    missing: Value | None = None
    adjoint: dict[int, tuple[Value, Any]] = {}
    terms: dict[int, tuple[Value, list[Any], list[Any]]] = {z.serial: (z, [g], [1.0]) for z, g in seeds.items()}
    for z in order:
        if z.serial not in terms:  # nothing but zeros came in
            continue
        g = total(*terms.pop(z.serial))
        adjoint[z.serial] = z, g
        if z.op.pull is not None:  # type: ignore[union-attr]
            for x, d in z.op.pull(z, g):  # type: ignore[union-attr]
                _, gs, others = terms.setdefault(x.serial, (x, [], []))
                gs.append(d)
                others.append(1.0)
            continue
        inputs = z.x if z.y is MANY else (z.x, z.y)
        try:
            ds = partials(z)
        except (ValueError, ArithmeticError):
            if _known(g) != 0.0:
                missing = z if missing is None else missing
            ds = (node(NONE, (z,), NAN),) * len(inputs)  # 0 times it is 0, but how that moves with g is not known
        if type(ds) is not tuple or len(ds) != len(inputs):
            ds = [d for _, d in _one_each(z, ds)]
        for x, d in zip(inputs, ds):
            if type(x) is not float and x.requires_grad and not (type(d) is float and d == 0.0):
                if x.serial in terms:
                    _, gs, others = terms[x.serial]
                    gs.append(g)
                    others.append(d)
                else:
                    terms[x.serial] = x, [g], [d]
    adjoint.update({serial: (x, total(x, gs, ds)) for serial, (x, gs, ds) in terms.items()})
    derived(adjoint.values())
    return adjoint, missing


def derived(derivatives: Iterable[tuple[Value, Any]]) -> None:
    """Tell the trace that is running, if one is, which derivatives were made: (of what, the derivative)."""
    if _modes and (trace := tracer()):
        trace.derived(derivatives)


def _total(x: Value, gs: list[Any], ds: list[Any]) -> Any:
    return sum_of_products(gs, ds)


def sum_of_products(gs: list[Any], ds: list[Any]) -> Any:
    """Σ g·d, in which a factor of 0 makes a product 0; with no node for a factor of 1."""
    if len(gs) == 1:
        g, d = gs[0], ds[0]
        if type(d) is float and d - d == 0.0 != d:  # an ordinary product, since no factor but 0 makes this one 0
            return g if d == 1.0 else g * d
        if type(g) is float and g - g == 0.0 != g:
            return d if g == 1.0 else d * g
    inputs = (*gs, *ds)
    if _modes and any([type(x) is not float and x.symbolic for x in inputs]):
        return node(Value.sum_of_products, inputs, 0.0)  # type: ignore[arg-type]  # what a trace records, at once
    return Value.sum_of_products(gs, ds)


def partials_as_values(z: Value) -> Any:
    """∂z/∂x for each input x, as Values computed from z and its inputs."""
    return z.op.partials(z, *z.inputs)  # type: ignore[union-attr]


def partials_as_numbers(z: Value) -> Any:
    """∂z/∂x for each input x, as numbers."""
    try:
        return z.op.partials(z._data, *_numbers_of(z))  # type: ignore[union-attr]
    except (ValueError, ArithmeticError) as error:
        raise _no_derivative(error, z) from None


def _no_derivative(error: Exception, z: Value) -> Exception:
    return _explained(error, z.op, z.inputs, f"no finite derivative ({error})")  # type: ignore[arg-type]


def _one_each(z: Value, ds: Any) -> list[tuple[Any, Any]]:
    """The inputs of z, each with its partial derivative."""
    try:
        return list(zip(z.inputs, ds, strict=True))
    except (TypeError, ValueError):
        raise _not_one_each(z, ds) from None


def _partial(z: Value, d: Any) -> float:
    """d, a partial derivative of z, as a float; an error that names the operation if it is no number."""
    return d if type(d) is float else number(d, f"{z.op.name}: partial derivative")  # type: ignore[union-attr]


def _not_one_each(z: Value, ds: Any) -> TypeError:
    return TypeError(
        f"{z.op.name}: expected partials that return a sequence with one derivative for each of the "  # type: ignore[union-attr]
        f"{len(z.inputs)} inputs, got {ds!r:.60}"
    )


def _adjoints_as_numbers(seeds: dict[Value, float], order: list[Value]) -> tuple[dict[Value, float], Value | None]:
    """The same for numbers: without a thought of zeros, and once more with it if some number came out as none.

    0 times inf or NaN is NaN, and stays so in sums and products: if no adjoint is NaN, there was no such product.
    """
    with suppress(TypeError, ValueError, ArithmeticError):
        adjoint = _plain_adjoints(seeds, order)
        total = sum(adjoint.values())
        if total == total:
            return adjoint, None
    return careful_adjoints(seeds, order)


def _plain_adjoints(seeds: dict[Value, float], order: list[Value]) -> dict[Value, float]:
    """The loop that backward waits for, written out for the nodes of two inputs, which most are.

    A call with a star takes three times as long as one without.
    """
    adjoint = dict(seeds)
    for z in order:
        g, partials, x, y = adjoint[z], z.op.partials, z.x, z.y  # type: ignore[union-attr]
        if y is MANY:
            for x, d in zip(z.x, partials(z._data, *[x if type(x) is float else x._data for x in z.x]), strict=True):
                if type(x) is not float and x.requires_grad:
                    adjoint[x] = adjoint[x] + g * d if x in adjoint else g * d
            continue
        dx, dy = partials(z._data, x if type(x) is float else x._data, y if type(y) is float else y._data)
        if type(x) is not float and x.requires_grad:
            adjoint[x] = adjoint[x] + g * dx if x in adjoint else g * dx
        if type(y) is not float and y.requires_grad:
            adjoint[y] = adjoint[y] + g * dy if y in adjoint else g * dy
    return adjoint


def careful_adjoints(
    seeds: dict[Value, float], order: Iterable[Value] | None = None
) -> tuple[dict[Value, float], Value | None]:
    """The adjoints, in which a factor of 0 makes a product 0, and the first Value without a derivative (NaN is it)."""
    missing: Value | None = None
    adjoint = dict(seeds)
    for z in topological_order(seeds) if order is None else order:
        g, ds = adjoint[z], (0.0,) * len(z.inputs)
        if g != 0.0:
            try:
                ds = partials_as_numbers(z)
            except (ValueError, ArithmeticError):
                missing, ds = z if missing is None else missing, (NAN,) * len(z.inputs)
        for x, d in _one_each(z, ds):
            if type(x) is not float and x.requires_grad:
                gd = g * d if (d := _partial(z, d)) else 0.0
                adjoint[x] = adjoint[x] + gd if x in adjoint else gd
        if z.op is NONE and missing is None:
            missing = z.x[0]
    return adjoint, missing


def grad(output: Value, inputs: Nested = None, gradient: Number = 1.0, create_graph: bool = True) -> Nested:
    """∂output/∂x · `gradient` for each Value x of `inputs` (one Value, or a nested list of them), nested alike.

    The gradients are Values that can be differentiated again (one that depends on nothing, such as relu's, has the
    derivative 0); with `create_graph=False` they are constants, which takes less time. No `.grad` changes. An x that
    the output does not depend on has gradient 0. Raises RuntimeError if the output requires no gradient, TypeError for
    what is no Value, ValueError for a constant among `inputs`.
    """
    if not isinstance(output, Value):
        hint = ": of a function write milligrad.transforms.grad(f)(x), of a Value grad(output, inputs)"
        got = f"{type(output).__name__} {output!r:.60}{hint if callable(output) else ''}"
        raise TypeError(f"output: expected a Value, got {got}")
    if inputs is None:
        raise TypeError("inputs: expected Values: write grad(output, inputs)")
    check_history(output)
    for path, x in leaves(inputs, "inputs"):
        if not isinstance(x, Value):
            raise TypeError(f"{path}: expected a Value, got {type(x).__name__} {x!r:.60}")
        if not x.requires_grad:
            raise ValueError(f"{path}: expected a Value that requires a gradient, got {x!r}")
    with Mode(_no_grad, not create_graph):
        if create_graph:
            adjoint = adjoints([(output, operand(gradient))], partials_as_values, wanted=flatten(inputs))
        else:
            adjoint = adjoints([(output, number(gradient, "gradient"))], partials_as_numbers, wanted=flatten(inputs))

    def as_value(x: Value) -> Value:
        g = adjoint.get(x, 0.0)
        return g if isinstance(g, Value) else Value(g, requires_grad=create_graph)

    return elementwise(as_value, inputs)
