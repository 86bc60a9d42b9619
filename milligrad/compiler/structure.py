"""Arguments and results as flat numbers and the structure that they were nested in.

A structure is a list, a tuple, a dict or a record of structures, a number, or something else, which is kept as it is.
Lists of other kinds (arrays, ranges) count as lists. Records are named tuples and dataclasses; a frozen dataclass among
the arguments is a setting, and kept as it is.
"""

from __future__ import annotations

import weakref
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple, TypeAlias

from milligrad.engine import Value, number
from milligrad.nested import is_list, listed


class Structure(NamedTuple):
    """kind: "number", "numbers" (a list of n numbers), "list", "tuple", "dict", "record" or "fixed" (anything else).

    parts:  the structures within it; of "dict" with the keys in `keys`; of "record" a single one, the tuple or dict of
            its fields; of "numbers" n, of "fixed" the thing itself
    key:    equal for equal structures, and hashable; that of a "record" ends with its class
    """

    kind: str
    parts: Any
    key: Any


NUMBER = Structure("number", None, "n")
SEQUENCES = ("list", "tuple", "record")  # the kinds whose parts are a list of structures
_QUICK = {float, int}
FLOAT, LIST = frozenset([float]), frozenset([list])


def structure(x: Any, numbers: list[Any], outputs: bool = False, bools: bool = False) -> Structure:
    """The structure of x; its numbers (floats, ints, Values …; with `bools` True and False, too) go to `numbers`."""
    kind = type(x)
    if kind is float or isinstance(x, Value):
        numbers.append(x)
        return NUMBER
    if isinstance(x, dict):
        parts = [structure(part, numbers, outputs, bools) for part in x.values()]
        return Structure("dict", (list(x), parts), ("dict", tuple(x), tuple([p.key for p in parts])))
    fields = None if kind is list or kind is tuple else _fields(x, outputs)
    if fields is not None:
        inner = structure(fields, numbers, outputs, bools)
        return Structure("record", [inner], ("record", (inner.key,), kind))
    if is_list(x):
        x = listed(x)
        if type(x) is list and x and set(map(type, x)) <= _QUICK:
            numbers.extend(map(float, x))
            return Structure("numbers", len(x), len(x))
        parts = [structure(part, numbers, outputs, bools) for part in x]
        if parts and not isinstance(x, tuple) and all([part is NUMBER for part in parts]):
            return Structure("numbers", len(parts), len(parts))
        name = "tuple" if isinstance(x, tuple) else "list"
        return Structure(name, parts, (name, tuple([p.key for p in parts])))
    is_number = hasattr(kind, "__float__") and not isinstance(x, str)  # as NumPy's strings have one
    if ((bools or kind is not bool) and is_number) or kind is complex:
        numbers.append(number(x, "output" if outputs else "argument"))
        return NUMBER
    if hasattr(kind, "__next__") or (outputs and _holds_values(x)):
        what, instead = "result" if outputs else "argument", ": write list(…) of it" * hasattr(kind, "__iter__")
        raise TypeError(
            f"{what}: expected numbers, or lists, tuples, dicts and dataclasses of them, got {kind.__name__}{instead}"
        )
    return Structure("fixed", x, ("fixed", _hashable(x)))


def _fields(x: Any, outputs: bool) -> tuple[Any, ...] | dict[str, Any] | None:
    """What a record holds; None if x is none."""
    kind = type(x)
    if hasattr(kind, "_make") and isinstance(x, tuple):
        return tuple(x)
    if not hasattr(kind, "__dataclass_fields__") or callable(x) or (kind.__dataclass_params__.frozen and not outputs):
        return None
    return {name: getattr(x, name) for name in kind.__dataclass_fields__ if hasattr(x, name)}


def record(kind: Any, fields: Any) -> Any:
    """The record of that class with these fields, as they are: no code of the class runs."""
    if hasattr(kind, "_make"):
        return kind._make(fields)
    x = object.__new__(kind)
    for name, part in fields.items():
        object.__setattr__(x, name, part)
    return x


def _holds_values(x: Any) -> bool:
    """Whether there are Values in an object that is not taken apart: they would outlive their trace."""
    if isinstance(x, (str, bytes)) or callable(x):
        return False
    inside = x if hasattr(x, "__iter__") else getattr(x, "__dict__", {}).values()
    return any([isinstance(part, Value) for part in inside])


def _hashable(x: Any) -> Any:
    """What stands for x in a key: equal for equal things of one type, and without keeping alive what may die."""
    try:
        reference = weakref.ref(x)
    except TypeError:
        reference = None  # a string, None, a tuple …
    if type(x) is set:
        return set, frozenset(x)  # as it is now: it may change
    try:
        hash(x)
    except TypeError:
        return _Itself(x, reference)
    return type(x), x if reference is None else reference


class _Itself:
    """What stands for an object without a hash: it is equal to itself alone."""

    def __init__(self, x: Any, reference: Any) -> None:
        self.id, self.get = id(x), reference or (lambda: x)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Itself) and self.get() is other.get() is not None)

    def __hash__(self) -> int:
        return self.id


def nested(s: Structure, numbers: Iterator[Any]) -> Any:
    """`numbers` in the structure s."""
    if s.kind == "number":
        return next(numbers)
    if s.kind == "numbers":
        return list(islice(numbers, s.parts))
    if s.kind == "list":
        return [nested(part, numbers) for part in s.parts]
    if s.kind == "tuple":
        return tuple([nested(part, numbers) for part in s.parts])
    if s.kind == "dict":
        keys, parts = s.parts
        return {key: nested(part, numbers) for key, part in zip(keys, parts)}
    if s.kind == "record":
        return record(s.key[-1], nested(s.parts[0], numbers))
    return s.parts


# The quick way: arguments of the structure of the last call, floats in lists and buffers, are put straight into memory.

Put: TypeAlias = "Callable[[Any, Any], bool]"


def packer(s: Structure, typecode: str, at: int = 0) -> Put | None:
    """What puts the numbers of an x of the structure s into a buffer, from `at` on; None if there is no quick way.

    The function takes x and the buffer, and says whether x is of this structure and was put there. Buffers of the type
    `typecode` ("" for lists) count as lists of their numbers. All numbers have to be floats, but those of buffers.
    """
    if s.kind == "number":
        return partial(_put_number, at)
    if s.kind == "numbers":
        return partial(_put_numbers, at, s.parts, typecode)
    if s.kind not in ("list", "tuple"):
        return None
    kind: type = list if s.kind == "list" else tuple
    rows = {part.parts if part.kind == "numbers" else -1 for part in s.parts if kind is list}
    if len(rows) == 1 and -1 not in rows:
        return partial(_put_parts, at, kind, [], (len(s.parts), rows.pop()), typecode)
    puts: list[Put] = []
    start = at
    for part in s.parts:
        put = packer(part, typecode, at)
        if put is None:
            return None
        puts.append(put)
        at += size(part)
    return partial(_put_only, kind, *puts) if len(puts) == 1 else partial(_put_parts, start, kind, puts, None, typecode)


def _put_number(at: int, x: Any, buffer: Any) -> bool:
    if type(x) is not float:
        return False
    buffer[at] = x
    return True


def _put_numbers(at: int, n: int, typecode: str, x: Any, buffer: Any) -> bool:
    if type(x) is not list:
        return _put_buffer(at, (n,), typecode, x, buffer)
    if len(x) != n or not FLOAT.issuperset(map(type, x)):
        return False
    buffer[at : at + n] = array(typecode, x) if typecode else x
    return True


def _put_only(kind: Any, put: Put, x: Any, buffer: Any) -> bool:
    """What `_put_parts` does of one part: a function of one argument is called most often."""
    return type(x) is kind and len(x) == 1 and put(x[0], buffer)


def _put_parts(
    at: int, kind: Any, puts: list[Put], shape: tuple[int, ...] | None, typecode: str, x: Any, buffer: Any
) -> bool:
    if type(x) is not kind:
        return shape is not None and _put_buffer(at, shape, typecode, x, buffer)
    if shape is not None:
        m, n = shape
        same = len(x) == m and LIST.issuperset(map(type, x)) and {*map(len, x)} == {n}
        return same and _put_numbers(at, m * n, typecode, list(chain.from_iterable(x)), buffer)
    return len(x) == len(puts) and all([put(part, buffer) for put, part in zip(puts, x)])


def _put_buffer(at: int, shape: tuple[int, ...], typecode: str, x: Any, buffer: Any) -> bool:
    try:
        view = memoryview(x)
    except TypeError:
        return False
    if view.format != (typecode or "d") or view.shape != shape or not view.c_contiguous:
        return False
    if len(shape) > 1:
        view = view.cast("B").cast(view.format)  # type: ignore[call-overload]
    buffer[at : at + len(view)] = view if typecode else view.tolist()
    return True


def size(s: Structure) -> int:
    """How many numbers it has."""
    if s.kind in SEQUENCES:
        return sum(map(size, s.parts))
    if s.kind == "dict":
        return sum(map(size, s.parts[1]))
    return s.parts if s.kind == "numbers" else int(s.kind == "number")


def unpacked(s: Structure, numbers: Any) -> Any:
    """The numbers of a buffer or list in the structure s."""
    if s.kind == "number":
        return numbers[0]
    if s.kind == "numbers":
        return numbers.tolist() if type(numbers) is not list else numbers[:]
    return nested(s, iter(numbers if type(numbers) is list else numbers.tolist()))


def of_key(key: Any) -> Structure:
    """The structure with that key. Raises ReferenceError if something fixed in it does not live any more."""
    if key == "n":
        return NUMBER
    if isinstance(key, int):
        return Structure("numbers", key, key)
    kind, *rest = key
    if kind == "dict":
        return Structure(kind, (list(rest[0]), [of_key(part) for part in rest[1]]), key)
    if kind != "fixed":
        return Structure(kind, [of_key(part) for part in rest[0]], key)
    if isinstance(rest[0], _Itself):
        what, x = "thing", rest[0].get()
    else:
        of, x = rest[0]
        if of is type(None):
            return Structure(kind, None, key)
        what, x = of.__name__, x() if isinstance(x, weakref.ref) else set(x) if of is set else x
    if x is None:
        raise ReferenceError(f"a {what} among the arguments does not live any more")
    return Structure(kind, x, key)


def flat(x: Any) -> list[Any]:
    """The numbers of x, in order."""
    numbers: list[Any] = []
    structure(x, numbers)
    return numbers
