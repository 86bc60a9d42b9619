"""scan: a loop in time as one call, `carry, ys = scan(f, carry, xs)`, with the meaning it has in JAX.

    for x in xs:
        carry, y = f(carry, x)

An integrator, a filter or a recurrence is such a loop: a state that goes from step to step, and what is seen on the
way. Run as it is, it is no more than that loop, so every way to differentiate goes through it. Compiled, a long one
becomes a loop whose count is known in a call only, so that a million steps compile as quickly as a hundred.

    carry   what goes from step to step: numbers, nested in lists, tuples and dicts
    xs, ys  one entry for each step. Lists are arrays, whose first axis is time; tuples and dicts hold several of them
    form    what numbers are nested in, and no number itself
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat

from milligrad import expected
from milligrad.engine import Value, is_grad_enabled, number, tracer
from milligrad.nested import is_list, listed
from milligrad.recompute import recomputed
from milligrad.typing import Any

NUMBER, NOTHING = "a number", "None"
Step = Callable[[Any, Any], tuple[Any, Any]]


def scan(
    f: Step, carry: Any, xs: Any = None, length: int | None = None, *, checkpoint: int | None = None
) -> tuple[Any, Any]:
    """(the last carry, the ys of all steps), where each step is `carry, y = f(carry, x)`.

    f:       takes the carry and the step's x, and returns the next carry, nested as the one before, and the step's y
    carry:   a number, None, or lists, tuples and dicts of them
    xs:      a list with an entry for each step (or a buffer, such as a NumPy array), or tuples and dicts of such lists,
             all of one length: then x is the tuple or dict of their entries. Without xs, x is None, and `length` says
             how many steps there are
    ys:      nested the other way round: where y is a number or a list, the list of all; where it is a tuple or dict,
             that of lists; None where it is None

    checkpoint: of so many steps in a row only the first carry is remembered, and the steps are run again when a
             derivative goes through them. The graph of T steps then takes the memory of T / checkpoint + checkpoint
             steps, and a backward pass the time of one more run; but each y that learns takes a walk of its own back
             through its part, so that losses are better added up in the carry. In a function that is compiled, all
             have one walk together; a Trainer that compiles takes no notice of it, and forward derivatives (jvp) gain
             nothing. A long scan is then traced for a few times k steps, so that a k of some hundreds compiles in
             seconds

    f is called once for each step, in order; it should do the same in all of them: `compile` takes a long loop for what
    its first steps are. So a loop `for i in range(n)` that uses i is `scan(f, carry, range(n))`; one that ends at a
    condition goes on to the last step with `where(done, carry, new)`, so that nothing changes any more.

    Raises ValueError for lists of several lengths, a `length` that is not theirs, or a carry or y that is nested
    otherwise than the one before; TypeError for what is no number.
    """
    if not callable(f):
        raise TypeError(f"f: expected a function of a carry and an x, got {type(f).__name__} {f!r:.60}")
    n = steps_of(xs, length)
    form(carry, "carry")
    if checkpoint is not None:
        checkpoint = expected.size(checkpoint, "checkpoint")
    counts = getattr(tracer(), "counts", None)
    if counts is not None and counts.are_of(n, xs):
        some = checkpoint if forgets() else None
        return counts.scan(f, carry, xs, n, some)  # type: ignore[no-any-return]  # a few steps, which stand for all
    if checkpoint and forgets():
        last, ys = in_parts(f, carry, [*rows(xs, n)], checkpoint)
        return last, stacked(ys)
    last, ys = carry, []
    for last, y in steps(f, carry, rows(xs, n)):  # noqa: B007
        ys.append(y)
    return last, stacked(ys)


def forgets() -> bool:
    """Whether there is a graph of which parts may be forgotten: derivatives may follow, and no batch is traced."""
    trace = tracer()
    return is_grad_enabled() and (not trace or trace.runs is not None)


def in_parts(f: Step, carry: Any, xs: list[Any], size: int) -> tuple[Any, list[Any]]:
    """The scan in parts of so many steps, of which what goes in is remembered: (the last carry, the y of each step)."""
    ys: list[Any] = []
    recent: list[Any] = []
    for at in range(0, len(xs), size):
        part, made = _part(f, carry, xs[at : at + size], at)
        outputs = recomputed(part, numbers_of((carry, xs[at : at + size])), recent)
        carry, more = _filled(made[0], outputs)
        if ys and form(more[0], "y") != form(ys[0], "y"):
            raise _differs("y", "all nested as the first one", form(ys[0], "y"), form(more[0], "y"), at)
        ys += more
    return carry, ys


def _part(f: Step, carry: Any, xs: list[Any], at: int) -> tuple[Callable[[list[Any]], list[Any]], list[Any]]:
    """These steps as a function of all numbers that go in, and where it puts the form of what comes out."""
    given, made = with_numbers(lambda x: 0.0, (carry, xs)), list[Any]()

    def part(numbers: list[Any]) -> list[Any]:
        last, rows = _filled(given, numbers)
        ys = []
        for last, y in steps(f, last, rows, at):  # noqa: B007, B020
            ys.append(y)
        made[:] = [with_numbers(lambda x: 0.0, (last, ys))]
        return numbers_of((last, ys))

    return part, made


def steps(f: Step, carry: Any, xs: Iterable[Any], at: int = 0) -> Iterator[tuple[Any, Any]]:
    """The carry and the y after each step, of which the first one is the step number `at`."""
    of_carry, of_y = form(carry, "carry"), None
    for i, x in enumerate(xs, at):
        carry, y = _pair(f(carry, x))
        if form(carry, "carry") != of_carry:
            raise _differs("carry", "the next one nested as the one before", of_carry, form(carry, "carry"), i)
        if i > at and form(y, "y") != of_y:
            raise _differs("y", "all nested as the first one", of_y, form(y, "y"), i)
        of_y = of_y or form(y, "y")
        yield carry, y


def _differs(name: str, what: str, wanted: Any, got: Any, step: int) -> ValueError:
    return ValueError(f"{name}: expected {what}, {spelled(wanted)}, got {spelled(got)} from f in step {step}")


def _pair(result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"f: expected a function that returns (carry, y), got {type(result).__name__} {result!r:.60}")
    carry, y = result
    return carry, y


# Forms: what numbers are nested in.


def form(x: Any, name: str) -> Any:
    """The form of x, which is equal for what is nested alike."""
    kind = type(x)
    if kind is float or kind is int or isinstance(x, Value):
        return NUMBER
    if x is None:
        return NOTHING
    if isinstance(x, dict):
        return {key: form(part, f"{name}[{key!r}]") for key, part in x.items()}
    if is_list(x):
        parts = [form(part, f"{name}[{i}]") for i, part in enumerate(listed(x))]
        return tuple(parts) if isinstance(x, tuple) else parts
    number(x, name)
    return NUMBER


def spelled(form: Any) -> str:
    """The form as text: `(a number, [3 numbers])`."""
    if isinstance(form, str):
        return form
    if isinstance(form, dict):
        return f"{{{', '.join([f'{key!r}: {spelled(part)}' for key, part in form.items()])}}}"
    if isinstance(form, list):
        alike = len(form) > 1 and all([part == NUMBER for part in form])
        return f"[{len(form)} numbers]" if alike else f"[{', '.join(map(spelled, form))}]"
    return f"({', '.join(map(spelled, form))}{',' * (len(form) == 1)})"


# Along the first axis.


def steps_of(xs: Any, length: Any) -> int:
    """How many steps there are. Raises ValueError where that is not said, or said in several ways."""
    lengths = {name: len(column) for name, column in columns(xs, "xs")}
    n = None if length is None else expected.size(length, "length", least=0)
    if len({*lengths.values()}) > 1:
        told = ", ".join([f"{n} of {name}" for name, n in lengths.items()])
        raise ValueError(f"xs: expected lists of one length, one entry for each step, got {told}")
    if not lengths and n is None:
        raise ValueError("scan: expected xs or length, which say how many steps there are, got neither")
    own = next(iter(lengths.values()), n)
    if n is not None and n != own:
        raise ValueError(f"length: expected {own}, the length of xs, got {n}")
    return own  # type: ignore[return-value]


def columns(xs: Any, name: str) -> Iterator[tuple[str, Any]]:
    """All lists of xs, with their names."""
    if isinstance(xs, dict):
        for key, part in xs.items():
            yield from columns(part, f"{name}[{key!r}]")
    elif isinstance(xs, tuple):
        for i, part in enumerate(xs):
            yield from columns(part, f"{name}[{i}]")
    elif xs is not None:
        if not is_list(xs):
            raise TypeError(
                f"{name}: expected a list with an entry for each step, or tuples and dicts of such lists, "
                f"got {type(xs).__name__} {xs!r:.60}"
            )
        yield name, xs


def rows(xs: Any, n: int) -> Iterator[Any]:
    """The x of each step."""
    if xs is None:
        return repeat(None, n)
    if isinstance(xs, dict):
        return (dict(zip(xs, row)) for row in zip(*[rows(part, n) for part in xs.values()])) if xs else repeat(xs, n)
    if isinstance(xs, tuple):
        return (_tuple_like(xs, row) for row in zip(*[rows(part, n) for part in xs])) if xs else repeat(xs, n)
    return iter(listed(xs))


def stacked(ys: list[Any], column: Callable[[list[Any]], Any] = list) -> Any:
    """The ys of all steps along a first axis, each list of them made by `column`."""
    first = ys[0] if ys else 0.0
    if first is None:
        return None
    if isinstance(first, dict):
        return {key: stacked([y[key] for y in ys], column) for key in first}
    if isinstance(first, tuple):
        return _tuple_like(first, [stacked([y[i] for y in ys], column) for i in range(len(first))])
    return column(ys)


def numbers_of(x: Any) -> list[Any]:
    """All numbers of x."""
    found: list[Any] = []
    with_numbers(found.append, x)
    return found


def _filled(x: Any, numbers: Iterable[Any]) -> Any:
    """x with these numbers in the place of its own."""
    left = iter(numbers)
    return with_numbers(lambda _: next(left), x)


def with_columns(column: Callable[[Any], Any], xs: Any) -> Any:
    """xs with another list in the place of each of its lists."""
    if isinstance(xs, dict):
        return {key: with_columns(column, part) for key, part in xs.items()}
    if isinstance(xs, tuple):
        return _tuple_like(xs, [with_columns(column, part) for part in xs])
    return None if xs is None else column(xs)


def with_numbers(f: Callable[[Any], Any], x: Any) -> Any:
    """x with f of each of its numbers."""
    if isinstance(x, dict):
        return {key: with_numbers(f, part) for key, part in x.items()}
    if isinstance(x, tuple):
        return _tuple_like(x, [with_numbers(f, part) for part in x])
    if is_list(x):
        return [with_numbers(f, part) for part in listed(x)]
    return None if x is None else f(x)


def _tuple_like(x: Any, parts: Any) -> Any:
    """The parts as a tuple, of the names that x has if it is a named one."""
    return type(x)._make(parts) if hasattr(type(x), "_make") else tuple(parts)
