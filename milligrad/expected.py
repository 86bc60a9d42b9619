"""What is expected of an argument: anything else is refused by its name, before anything is done."""

from __future__ import annotations

from operator import index

from milligrad import engine
from milligrad.typing import Any


def check_is(x: object, kind: type, name: str) -> None:
    """Raise TypeError for an argument of another kind."""
    if not isinstance(x, kind):
        raise _refusal(x, name, f"a {kind.__name__}")


def size(n: Any, name: str, least: int = 1) -> int:
    """`n` as an int, if it is a whole number of at least `least`; else a ValueError that names the argument."""
    if isinstance(n, bool) or not hasattr(n, "__index__") or n.__index__() < least:
        raise ValueError(f"{name}: expected a whole number >= {least}, got {n!r:.60}")
    return int(n.__index__())


def items(xs: Any, name: str, what: str) -> Any:
    """Whatever has a length and a first one."""
    if not hasattr(xs, "__len__") or not hasattr(xs, "__getitem__"):
        raise _refusal(xs, name, f"a sequence of {what}")
    return xs


def number(x: Any, name: str, what: str = "a number") -> float:
    """A number as a float: it may be infinite, or NaN."""
    try:
        return engine.number(x)
    except (TypeError, OverflowError):
        raise _refusal(x, name, what) from None


def numbers(xs: Any, name: str) -> list[float]:
    return [number(x, f"{name}[{i}]") for i, x in enumerate(items(xs, name, "numbers"))]


def whole(x: Any, name: str) -> int:
    try:
        return index(x)
    except TypeError:
        raise _refusal(x, name, "a whole number") from None


def string(s: Any, name: str) -> str:
    if not isinstance(s, str):
        raise _refusal(s, name, "a string")
    return s


def strings(xs: Any, name: str) -> list[str]:
    return [string(s, f"{name}[{i}]") for i, s in enumerate(items(xs, name, "strings"))]


def _refusal(x: Any, name: str, what: str) -> TypeError:
    return TypeError(f"{name}: expected {what}, got {type(x).__name__} {x!r:.60}")
