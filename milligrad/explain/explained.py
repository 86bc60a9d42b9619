"""`milligrad.explain`: what it is asked about is checked, and computed if it is a function; then others explain it.

A loss that can't be computed, because its arithmetic fails, is explained here.
"""

from __future__ import annotations

from collections.abc import Callable

from milligrad.engine import Value, check_history, record_lines
from milligrad.expected import check_is, size
from milligrad.explain.document import SHOWN, Explanation, Finding, few
from milligrad.explain.paths import explain_paths
from milligrad.explain.subject import Subject
from milligrad.explain.trouble import explain_trouble
from milligrad.markup import shown
from milligrad.nn.module import Module
from milligrad.places import shown as shown_line
from milligrad.places import users_line_of
from milligrad.typing import Any


def explained(
    loss: Value | Callable[[], Value], *, wrt: Value | None, model: Module | None, max_paths: int, precision: int
) -> Explanation:
    """The Explanation of a loss; `milligrad.explain` says what the options mean."""
    size(max_paths, "max_paths")
    size(precision, "precision")
    if model is not None:
        check_is(model, Module, "model")
    if wrt is not None:
        check_is(wrt, Value, "wrt")
    fresh = False
    if not isinstance(loss, Value):
        try:
            loss = _computed(loss)
        except (ValueError, ArithmeticError) as error:
            if not _is_of_arithmetic(error):
                raise
            failure = _failure(error, model, precision)
            return Explanation("The loss could not be computed", [failure], findings=[failure])
        fresh = not loss.grad  # it may only return what has been computed before
    if wrt is None:
        return explain_trouble(Subject(loss, model, precision, fresh=fresh))
    if not wrt.requires_grad:
        raise ValueError(f"wrt: expected a Value that requires a gradient, got {wrt!r:.200}")
    check_history(loss)
    return explain_paths(Subject(loss, model, precision, [wrt], fresh), wrt, max_paths)


def _computed(f: Any) -> Value:
    if not callable(f):
        raise TypeError(f"loss: expected a Value or a function that returns one, got {type(f).__name__} {f!r:.60}")
    with record_lines():
        loss = f()
    if not isinstance(loss, Value):
        raise TypeError(
            f"loss: expected a function that returns a Value; it returned {type(loss).__name__} {loss!r:.60}"
        )
    return loss


# Of a function whose arithmetic failed.


def _is_of_arithmetic(error: Exception) -> bool:
    """Whether a number made no sense, rather than an argument: a ValueError means that where an operation raised it."""
    return isinstance(error, ArithmeticError) or hasattr(error, "op")


def _failure(error: Exception, model: Module | None, precision: int) -> Finding:
    """The operation that raised the error, its inputs, and how these were computed."""
    line, kind = users_line_of(error), type(error).__name__
    where = [shown_line(line)] if line else []
    if not hasattr(error, "op"):  # plain numbers, which remember nothing
        return Finding("error", f"{kind}: {error}", where)
    op, inputs = error.op, error.inputs  # type: ignore[attr-defined]
    values = [*dict.fromkeys(x for x in inputs if isinstance(x, Value))]
    if values:
        subject = Subject(values[0], model, precision, values[1:])
        where += few([f"its input {subject.where(x)}" for x in values[:SHOWN]], len(values))
    numbers = ", ".join(shown(x.real, precision) for x in inputs[:SHOWN]) + ", …" * (len(inputs) > SHOWN)
    advice = "Keep its input where the result is a number: with clamp(), a small number added, or another formula."
    reason = str(error).rpartition(": ")[2].replace("math range error", "the result is too large for a float")
    return Finding("error", f"{op.name} of {numbers} raised {kind}: {reason}", where, advice, values)
