"""Reads: which attributes of modules a computation asked for, and whether they still are what they were.

What was found out by running a model once (its compiled code, the shape of what it returns) holds as long as the
attributes that it read are the same: a Dropout's `p`, a loss's `reduction`, `training`, a weight that is another
Parameter, a number in a list or in an object that is an attribute. What functions read beside modules (globals, what
they close over) is not seen. The numbers of Values may change: they are no part of it.

    token   plain data that is equal for equal attributes: what an attribute is, or the id of what can't be compared
    kept    the objects whose ids stand in tokens: as long as they are kept, no other object gets these ids
    same    a quick test of an attribute now and then: where it says so, the tokens are equal, too

Modules are not kept: one that is gone can't have changed, and whatever held it holds something else now.
"""

from __future__ import annotations

from _thread import RLock, get_ident
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial, reduce
from itertools import chain
from operator import is_
from types import BuiltinFunctionType, FunctionType, MappingProxyType, MethodType, ModuleType
from weakref import ref

from milligrad.engine import Value
from milligrad.nn.module import Module, Parameter, assignments
from milligrad.typing import Any, TypeAlias

PLAIN = frozenset({int, bool, str, bytes, complex, type(None)})
BY_ID = (Value, type, FunctionType, BuiltinFunctionType, ModuleType)
FIXED: Any = (*PLAIN, float, Parameter, Module, *BY_ID)  # nothing within them changes, or it does not count

_Was: TypeAlias = "tuple[ref[Any], str, Callable[[Any], bool], Any]"  # owner, name, same, token


class _Absent:
    """What an attribute is that is not there."""


_recording: dict[int, Reads] = {}  # thread → what records in it
_hook = RLock()  # around the hook in Module, which all threads share


class Reads:
    """Attributes that were read while they were `recorded`."""

    def __init__(self) -> None:
        self._was: dict[tuple[int, str], _Was] = {}  # (id of owner, attribute) → what it was
        self._kept: list[Any] = []
        self._loose: list[_Was] = []  # what may change without an assignment to a module
        self._held: int | None = None  # how many assignments there had been when all were the same

    def add(self, owner: Any, name: str, now: Any) -> None:
        """The attribute, which is `now`, is one of them."""
        known = self._was.get((id(owner), name))
        if known is None or known[0]() is not owner:  # but one that is gone, whose id it has now
            self._was[id(owner), name] = ref(owner), name, _same(now), token(now, self._kept)

    def hold(self) -> bool:
        """Whether all are what they were when they were read first."""
        return all([_is(*was) for was in self._was.values()])

    def hold_still(self) -> bool:
        """The same for who asks before each call: most attributes change by an assignment to a Module alone."""
        now = assignments()
        if now == self._held:
            return all([_is(*loose) for loose in self._loose])
        if not self.hold():
            return False
        self._held, self._loose = now, [x for x in self._was.values() if _is_loose(x[0](), x[1])]
        return True

    def clear(self) -> None:
        """Forget all."""
        self._was, self._kept, self._loose, self._held = {}, [], [], None

    def forget(self, name: str, owners: Iterable[Any]) -> None:
        """Leave out the attribute of these owners: whoever asks keeps an eye on it himself."""
        for owner in owners:
            self._was.pop((id(owner), name), None)

    def forget_changed(self) -> None:
        """Leave out what changed while it was recorded: a computation that counts its calls depends on no count."""
        self._was = {key: was for key, was in self._was.items() if _is(*was)}


def _is(owner: ref[Any], name: str, same: Callable[[Any], bool], was: Any) -> bool:
    owned = owner()
    if owned is None:
        return True
    now = getattr(owned, name, _Absent)
    return same(now) or bool(token(now, []) == was)


def _is_loose(owner: Any, name: str) -> bool:
    """Whether it may change without an assignment to a Module: an attribute of a class, or something within one."""
    x = getattr(owner, name, None)
    if not isinstance(x.__self__ if isinstance(x, MethodType) else x, FIXED) or _is_open(x):
        return True
    return not callable(x) and any([name in vars(kind) for kind in type(owner).__mro__]) and name not in vars(owner)


def _same(x: Any) -> Callable[[Any], bool]:
    """The quick test for an attribute that is x: 36 attributes in 10 µs, where their tokens take 45."""
    if type(x) is MethodType and isinstance(x.__self__, Module):  # a new object each time that one asks for it
        return _Method(x).is_that
    if isinstance(x, Module):
        owner = ref(x)
        return lambda now: now is not None and now is owner()
    if type(x) is Parameter:
        return _Values(x).are_in
    is_plain = type(x) in PLAIN or type(x) is float or (isinstance(x, BY_ID) and not _is_open(x))
    return partial(is_, x) if is_plain else _never_sure


class _Method:
    """A method of a module, which is not kept."""

    def __init__(self, method: MethodType) -> None:
        self.function, self.owner = method.__func__, ref(method.__self__)

    def is_that(self, now: Any) -> bool:
        return type(now) is MethodType and now.__func__ is self.function and now.__self__ is self.owner()


def _never_sure(now: Any) -> bool:
    return False  # what can change and stay the same object


@contextmanager
def recorded(reads: Reads) -> Iterator[None]:
    """Within it, what this thread reads of any Module is one of `reads`."""
    thread = get_ident()
    with _hook:
        outer = _recording.get(thread)
        _recording[thread] = reads
        Module.__getattribute__ = _read  # type: ignore  # only now: it takes ten times as long
    try:
        yield
    finally:
        with _hook:
            del _recording[thread]
            reads.forget_changed()
            if outer is not None:
                _recording[thread] = outer
            if not _recording:
                del Module.__getattribute__


def _read(module: Module, name: str) -> Any:
    """What Module's `__getattribute__` is meanwhile. A property reads other attributes, which are what counts."""
    reads = _recording.get(get_ident())
    try:
        value = object.__getattribute__(module, name)
    except AttributeError:
        try:
            value = module.__getattr__(name)
        except AttributeError:
            if reads is not None and not name.startswith("__"):
                reads.add(module, name, _Absent)
            raise
    if reads is not None and not name.startswith("__") and not _is_property(module, name):
        reads.add(module, name, value)
    return value


def _is_property(module: Module, name: str) -> bool:
    return isinstance(getattr(type(module), name, None), property)


class _Values:
    """The Values of a Parameter, which are compared by identity: a thousand in 20 µs."""

    def __init__(self, parameter: Parameter) -> None:
        self.values = list(_flat(parameter))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Values) and _are_same(self.values, other.values)

    def are_in(self, now: Any) -> bool:
        return type(now) is Parameter and _are_same(self.values, list(_flat(now)))


def _flat(parameter: Parameter) -> Iterable[Any]:
    flat: Iterable[Any] = parameter
    return reduce(lambda rows, _: chain.from_iterable(rows), parameter.shape[1:], flat)


def _are_same(xs: list[Value], ys: list[Value]) -> bool:
    return len(xs) == len(ys) and all(map(is_, xs, ys))


def token(x: Any, kept: list[Any], around: tuple[int, ...] = ()) -> Any:
    """The token of x. What stands in `around`, the ids of the objects around it, is not looked into again."""
    kind = type(x)
    if kind in PLAIN:
        return kind, x
    if kind is float:
        return x.hex()  # which tells -0.0 from 0.0, and NaN is NaN
    if kind is MethodType:
        return id(x.__func__), token(x.__self__, kept, around)
    if isinstance(x, Value) and x.symbolic:
        return None  # of a trace, which ends
    if isinstance(x, Module):
        return ref(x)
    if (isinstance(x, BY_ID) and not _is_open(x)) or id(x) in around:
        kept.append(x)
        return id(x)
    if kind is Parameter:
        return _Values(x)
    inner = (*around, id(x))
    if isinstance(x, (list, tuple, deque)):
        if x and {*map(type, x)} == {float}:
            return kind, array("d", x).tobytes()
        return kind, tuple([token(y, kept, inner) for y in x])
    if isinstance(x, (dict, MappingProxyType)):
        return kind, tuple([(token(k, kept, inner), token(y, kept, inner)) for k, y in x.items()])
    if isinstance(x, (set, frozenset)):
        return kind, frozenset([token(y, kept, inner) for y in x])
    if isinstance(x, partial):
        return kind, token((x.func, x.args, x.keywords), kept, inner)
    if kind is bytearray:
        return kind, bytes(x)
    if hasattr(x, "tobytes") and not getattr(getattr(x, "dtype", None), "hasobject", False):
        return kind, x.tobytes()
    if hasattr(x, "tolist"):
        return kind, token(x.tolist(), kept, inner)
    kept.append(x)
    return id(x), tuple([(name, token(y, kept, inner)) for name, y in _attributes(x)])


def _attributes(x: Any) -> list[tuple[str, Any]]:
    """The attributes of an object of another kind, or of a class, by name; those of its class are its own, too."""
    if isinstance(x, type):
        return _data_of(x)
    names = [name for kind in type(x).__mro__ for name in _slots(kind)]
    slots = [(name, getattr(x, name, None)) for name in names]
    return [*_data_of(type(x)), *getattr(x, "__dict__", {}).items(), *slots]


def _data_of(kind: type) -> list[tuple[str, Any]]:
    """What a class says itself: its attributes but for functions, properties and Python's own."""
    named = [pair for base in kind.__mro__ if base.__module__ != "builtins" for pair in vars(base).items()]
    return [(name, x) for name, x in named if not (name.startswith("__") or callable(x) or hasattr(x, "__get__"))]


def _is_open(x: Any) -> bool:
    """Whether it is a function or a class with attributes that may change."""
    return bool(vars(x)) if isinstance(x, FunctionType) else isinstance(x, type) and bool(_data_of(x))


def _slots(kind: type) -> list[str]:
    own = vars(kind).get("__slots__", ())
    return [name for name in ([own] if isinstance(own, str) else own) if not name.startswith("__")]
