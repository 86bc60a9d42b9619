"""Nested lists as arrays: their shape, and walking them.

A vector is a list of numbers, a matrix a list of vectors, and so on. Everything here works on plain lists of
anything; nothing here knows what a Value is. Ragged nesting is an error wherever a shape is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from milligrad.typing import Any

Nested = Any  # a number, or a list of Nested: a recursive type that would make every signature unreadable
Shape = tuple[int, ...]
NUMBERS = frozenset("bBhHiIlLqQnNefd")  # the formats of buffers of numbers


def is_list(x: object) -> bool:
    """Whether `x` holds further elements (list, tuple, range, array …) rather than being one number.

    An array without dimensions, such as `numpy.array(2.0)`, holds none.
    """
    kind = type(x)
    if kind is list or kind is tuple:
        return True
    return _is_list_type(kind) and getattr(x, "shape", None) != ()  # type: ignore[arg-type]


@lru_cache(maxsize=256)
def _is_list_type(kind: type) -> bool:
    names = {name for base in kind.__mro__ for name in vars(base)}  # of its own: the class of an Enum has a length, too
    holds = {"__len__", "__getitem__"} <= names and not issubclass(kind, (str, bytes, dict))
    return holds and "__call__" not in names  # which a Module with layers has


def listed(x: Any) -> Any:
    """x, or if it is a buffer of floats or whole numbers, the list of them, nested as deep as it has dimensions."""
    if type(x) is list or type(x) is tuple:
        return x
    try:
        view = memoryview(x)
        return view.tolist() if view.format in NUMBERS else x
    except (TypeError, ValueError, NotImplementedError):
        return x


def _nests(x: Iterable[Any]) -> bool:
    """Whether lists stand among the elements of the list `x`. It looks at each type once, so it is quick."""
    return any(map(_is_list_type, set(map(type, x))))


def shape(x: Nested, name: str = "x") -> Shape:
    """The lengths at each depth, as `array.shape`; () for a number. A ragged nesting raises ValueError."""
    if not is_list(x):
        return ()
    if not is_list(x[0] if len(x) else None):
        if any(map(is_list, x)):
            raise ValueError(f"{name} is ragged: numbers and lists stand side by side in it")
        return (len(x),)
    rows = {shape(row, name) for row in x}
    if len(rows) > 1:
        raise ValueError(f"{name} is ragged: it has rows of shapes {', '.join(map(str, sorted(rows)))}")
    return (len(x), *rows.pop())


def flatten(x: Nested) -> list[Any]:
    """All numbers of `x`, in order, in one flat list."""
    if not is_list(x):
        return [x]
    return [item for row in x for item in flatten(row)] if _nests(x) else list(x)


def unflatten(flat: Iterable[Any], shape: Shape) -> Nested:
    """`flat` as nested lists of `shape`: the inverse of `flatten`."""
    return _unflatten(iter(flat), shape)


def _unflatten(items: Iterator[Any], shape: Shape) -> Nested:
    return [_unflatten(items, shape[1:]) for _ in range(shape[0])] if shape else next(items)


def full(shape: Shape, value: object) -> Nested:
    """Nested lists of `shape`, each element `value`."""
    return [full(shape[1:], value) for _ in range(shape[0])] if shape else value


def elementwise(f: Callable[..., Any], x: Nested, *others: Nested) -> Nested:
    """`f` of each number of `x` (and of the numbers in the same places of `others`), nested as `x` is nested.

    The caller has checked that all have one shape; a length that differs raises ValueError.
    """
    if not is_list(x):
        return f(x, *others)
    if others:
        z = [elementwise(f, *rows) for rows in zip(x, *others, strict=True)]
    else:
        z = [elementwise(f, row) for row in x] if _nests(x) else [f(item) for item in x]
    return x.like(z) if getattr(type(x), "stands_for_more", False) else z


def broadcast(x: Nested, to: Shape, name: str = "x") -> Nested:
    """`x` repeated to the shape `to`, by the rule of PyTorch and NumPy: lengths are compared from the last one,
    and a length of 1 or a missing one is repeated. Anything else raises ValueError."""
    own = shape(x, name)
    padded = (1,) * (len(to) - len(own)) + own
    if len(own) > len(to) or any(n not in (1, m) for n, m in zip(padded, to)):
        raise ValueError(f"{name} of shape {own} does not broadcast to the shape {to}")

    return _repeat(x, own, to)


def _repeat(x: Nested, own: Shape, to: Shape) -> Nested:
    if not to:
        return x
    if len(own) < len(to):
        return [_repeat(x, own, to[1:]) for _ in range(to[0])]
    rows = x if own[0] == to[0] else [x[0]] * to[0]
    return [_repeat(row, own[1:], to[1:]) for row in rows]


def along(f: Callable[[list[Any]], list[Any]], x: Nested, dim: int = -1) -> Nested:
    """`f` of each list of numbers that runs along the dimension `dim` of `x`; `f` returns a list."""
    n = len(shape(x))
    if not -n <= dim < n:
        raise IndexError(f"dim is {dim}, but x has {n} dimension{'s' * (n != 1)}")
    return _along(f, x, dim % n, n)


def _along(f: Callable[[list[Any]], list[Any]], x: Nested, dim: int, ndim: int) -> Nested:
    if dim > 0:
        return [_along(f, row, dim - 1, ndim - 1) for row in x]
    if ndim == 1:
        return f(x)
    return transpose([_along(f, column, 0, ndim - 1) for column in transpose(x)])


def transpose(x: Nested) -> list[list[Any]]:
    """The first two dimensions of `x` swapped."""
    return [list(column) for column in zip(*x, strict=True)]


def leaves(x: Nested, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each number of `x` with the index that leads to it: ("[0][2]", 3.0)."""
    if is_list(x):
        for i, row in enumerate(x):
            yield from leaves(row, f"{path}[{i}]")
    else:
        yield path, x
