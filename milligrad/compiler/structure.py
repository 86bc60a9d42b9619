"""Arguments and results as flat numbers and the structure that they were nested in.

A structure is a list, a tuple or a dict of structures, a number, or something else, which is kept as it is. Lists of
other kinds (arrays, ranges) count as lists.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

from milligrad.engine import Value, number
from milligrad.nested import is_list


class Structure(NamedTuple):
    """kind: "number", "numbers" (a list of n numbers), "list", "tuple", "dict" or "fixed" (anything else).

    parts:  the structures within it; of "dict" with the keys in `keys`; of "numbers" n, of "fixed" the thing itself
    key:    equal for equal structures, and hashable
    """

    kind: str
    parts: Any
    key: Any


NUMBER = Structure("number", None, "n")
_QUICK = {float, int}


def structure(x: Any, numbers: list[Any], outputs: bool = False, bools: bool = False) -> Structure:
    """The structure of x; its numbers (floats, ints, Values …; with `bools` True and False, too) go to `numbers`."""
    kind = type(x)
    if kind is float or isinstance(x, Value):
        numbers.append(x)
        return NUMBER
    if kind is list and x and set(map(type, x)) <= _QUICK:
        numbers.extend(map(float, x))
        return Structure("numbers", len(x), len(x))
    if isinstance(x, dict):
        parts = [structure(part, numbers, outputs, bools) for part in x.values()]
        return Structure("dict", (list(x), parts), ("dict", tuple(x), tuple([p.key for p in parts])))
    if is_list(x):
        parts = [structure(part, numbers, outputs, bools) for part in x]
        if parts and not isinstance(x, tuple) and all([part is NUMBER for part in parts]):
            return Structure("numbers", len(parts), len(parts))
        name = "tuple" if isinstance(x, tuple) else "list"
        return Structure(name, parts, (name, tuple([p.key for p in parts])))
    if ((bools or kind is not bool) and hasattr(kind, "__float__")) or kind is complex:
        numbers.append(number(x, "output" if outputs else "argument"))
        return NUMBER
    return Structure("fixed", x, ("fixed", _hashable(x)))


def _hashable(x: Any) -> Any:
    """What stands for x in a key: equal for equal things of one type, and without keeping alive what may die."""
    try:
        reference = weakref.ref(x)
    except TypeError:
        reference = None  # a string, None, a tuple …
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
        return [next(numbers) for _ in range(s.parts)]
    if s.kind == "list":
        return [nested(part, numbers) for part in s.parts]
    if s.kind == "tuple":
        return tuple([nested(part, numbers) for part in s.parts])
    if s.kind == "dict":
        keys, parts = s.parts
        return {key: nested(part, numbers) for key, part in zip(keys, parts)}
    return s.parts


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
        what, x = of.__name__, x() if isinstance(x, weakref.ref) else x
    if x is None:
        raise ReferenceError(f"a {what} among the arguments does not live any more")
    return Structure(kind, x, key)


def size(s: Structure) -> int:
    """How many numbers a structure has."""
    if s.kind in ("number", "numbers"):
        return 1 if s.kind == "number" else int(s.parts)
    return 0 if s.kind == "fixed" else sum([size(part) for part in (s.parts[1] if s.kind == "dict" else s.parts)])


def flat(x: Any) -> list[Any]:
    """The numbers of x, in order."""
    numbers: list[Any] = []
    structure(x, numbers)
    return numbers
