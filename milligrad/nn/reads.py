"""Reads: which attributes of modules a computation asked for, and whether they still are what they were.

What was found out by running a model once (its compiled code, the shape of what it returns) holds as long as the
attributes that it read are the same: a Dropout's `p`, a loss's `reduction`, `training`, a weight that is another
Parameter, a number in a list or in an object that is an attribute. What functions read beside modules (globals, what
they close over) is not seen. The numbers of Values may change: they are no part of it.

    token   plain data that is equal for equal attributes: what an attribute is, or the id of what can't be compared
    kept    the objects whose ids stand in tokens: as long as they are kept, no other object gets these ids

Modules are not kept: one that is gone can't have changed, and whatever held it holds something else now.
"""

from __future__ import annotations

from _thread import RLock, get_ident
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial, reduce
from itertools import chain
from operator import is_
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from weakref import ref

from milligrad.engine import Value
from milligrad.nn.module import Module, Parameter, assignments
from milligrad.typing import Any

PLAIN = frozenset({int, bool, str, bytes, complex, type(None)})
BY_ID = (Value, type, FunctionType, BuiltinFunctionType, ModuleType)
FIXED: Any = (*PLAIN, float, Parameter, Module, *BY_ID)  # nothing within them changes, or it does not count

_absent = object()
_recording: dict[int, Reads] = {}  # thread → what records in it
_hook = RLock()  # around the hook in Module, which all threads share


class Reads:
    """Attributes that were read while they were `recorded`."""

    def __init__(self) -> None:
        self._was: dict[tuple[int, str], tuple[Any, Any]] = {}  # (id of owner, attribute) → (its owner, token)
        self._kept: list[Any] = []
        self._loose: list[tuple[Any, str, Any]] = []  # what may change without an assignment to a module
        self._held: int | None = None  # how many assignments there had been when all were the same

    def add(self, owner: Any, name: str, now: Any) -> None:
        """The attribute, which is `now`, is one of them."""
        known = self._was.get((id(owner), name))
        if known is None or known[0]() is not owner:  # but one that is gone, whose id it has now
            self._was[id(owner), name] = ref(owner), token(now, self._kept)

    def hold(self) -> bool:
        """Whether all are what they were when they were read first."""
        return all([_is(owner, name, was) for (_, name), (owner, was) in self._was.items()])

    def hold_still(self) -> bool:
        """The same for who asks before each call: most attributes change by an assignment to a Module alone."""
        now = assignments()
        if now == self._held:
            return all([_is(*loose) for loose in self._loose])
        if not self.hold():
            return False
        entries = [(owner, name, was) for (_, name), (owner, was) in self._was.items()]
        self._held, self._loose = now, [x for x in entries if _is_loose(getattr(x[0](), x[1], None))]
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
        self._was = {key: (owner, was) for key, (owner, was) in self._was.items() if _is(owner, key[1], was)}


def _is(owner: ref[Any], name: str, was: Any) -> bool:
    now = owner()
    return now is None or bool(token(getattr(now, name, _absent), []) == was)


def _is_loose(x: Any) -> bool:
    """Whether something within x may change without an assignment to a Module."""
    return not isinstance(x.__self__ if isinstance(x, MethodType) else x, FIXED)


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
    try:
        value = object.__getattribute__(module, name)
    except AttributeError:
        value = module.__getattr__(name)
    reads = _recording.get(get_ident())
    if reads is not None and not name.startswith("__") and (name == "training" or not _is_property(module, name)):
        reads.add(module, name, value)
    return value


def _is_property(module: Module, name: str) -> bool:
    return isinstance(getattr(type(module), name, None), property)


class _Values:
    """The Values of a Parameter, which are compared by identity: a thousand in 10 µs."""

    def __init__(self, values: list[Value]) -> None:
        self.values = values

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, _Values) and len(other.values) == len(self.values)
        return same and all(map(is_, self.values, other.values))  # type: ignore[attr-defined]


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
    if isinstance(x, BY_ID) or id(x) in around:
        kept.append(x)
        return id(x)
    if kind is Parameter:
        flat: Any = reduce(lambda rows, _: chain.from_iterable(rows), x.shape[1:], x)
        return _Values(list(flat))
    inner = (*around, id(x))
    if isinstance(x, (list, tuple, deque)):
        if x and {*map(type, x)} == {float}:
            return kind, array("d", x).tobytes()
        return kind, tuple([token(y, kept, inner) for y in x])
    if isinstance(x, dict):
        return kind, tuple([(token(k, kept, inner), token(y, kept, inner)) for k, y in x.items()])
    if isinstance(x, (set, frozenset)):
        return kind, frozenset([token(y, kept, inner) for y in x])
    if isinstance(x, partial):
        return kind, token((x.func, x.args, x.keywords), kept, inner)
    if hasattr(x, "tobytes") or kind is bytearray:
        return kind, x.tobytes() if hasattr(x, "tobytes") else bytes(x)
    kept.append(x)
    return id(x), tuple([(name, token(y, kept, inner)) for name, y in _attributes(x)])


def _attributes(x: Any) -> list[tuple[str, Any]]:
    """The attributes of an object of another kind, by name."""
    names = [name for kind in type(x).__mro__ for name in _slots(kind)]
    return [*getattr(x, "__dict__", {}).items(), *[(name, getattr(x, name, None)) for name in names]]


def _slots(kind: type) -> list[str]:
    own = vars(kind).get("__slots__", ())
    return [name for name in ([own] if isinstance(own, str) else own) if not name.startswith("__")]
