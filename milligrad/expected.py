"""What is expected of an argument: anything else is refused by its name, before anything is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from operator import index

from milligrad import engine
from milligrad.nested import Nested, Shape, flatten, leaves, shape
from milligrad.typing import Any, TypeVar

T = TypeVar("T")


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


def finite(x: Any, name: str) -> float:
    """A number as a float that is neither infinite nor NaN."""
    z = engine.number(x, name)
    if not math.isfinite(z):
        raise ValueError(f"{name}: expected a finite number, got {z}")
    return z


def saved(check: Callable[[Any, str], T], x: Any, name: str) -> T:
    """`check(x, name)` of an entry of a saved state; whatever it finds wrong with it is a ValueError that names it."""
    try:
        return check(x, name)
    except RecursionError:
        raise ValueError(f"{name}: expected nothing nested so deeply, got {type(x).__name__}") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(str(error) if str(error).startswith(name) else f"{name}: {error}") from error


def loaded(load: Callable[[Any], None], state: Any, name: str) -> None:
    """Load a part of a saved state by the `load_state_dict` of what it belongs to, whatever errors that raises."""
    saved(lambda state, _: load(state), state, name)


def entries(x: Any, names: Iterable[str], name: str) -> dict[str, Any]:
    """`x`, which must be a dict with these keys and no others; else a ValueError."""
    names = list(names)
    if not isinstance(x, dict) or x.keys() != {*names}:
        got = f"one of {', '.join(map(str, x)) or 'nothing':.200}" if isinstance(x, dict) else type(x).__name__
        raise ValueError(f"{name}: expected a dict of {', '.join(names)}, got {got}")
    return x


def array(xs: Nested, own: Shape, name: str) -> list[float]:
    """The finite numbers of `xs`, which has this shape, in one flat list."""
    if shape(xs, name) != own:
        raise ValueError(f"{name}: expected numbers of shape {own}, got shape {shape(xs, name)}")
    try:
        return [finite(x, name) for x in flatten(xs)]
    except (TypeError, ValueError, OverflowError):
        return [finite(x, path) for path, x in leaves(xs, name)]  # the same error, with the place in the list


def string(s: Any, name: str) -> str:
    if not isinstance(s, str):
        raise _refusal(s, name, "a string")
    return s


def strings(xs: Any, name: str) -> list[str]:
    return [string(s, f"{name}[{i}]") for i, s in enumerate(items(xs, name, "strings"))]


def _refusal(x: Any, name: str, what: str) -> TypeError:
    return TypeError(f"{name}: expected {what}, got {type(x).__name__} {x!r:.60}")
