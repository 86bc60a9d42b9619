"""What is to be explained: the loss, and what its Values are called and shown as. Nothing is judged here.

A loss that is given as a function is computed here; if its arithmetic fails, that is what there is to explain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

from milligrad.draw.formulas import CELLS, formula, with_numbers
from milligrad.draw.model import by_layer
from milligrad.draw.naming import inputs_first, names_in, names_of
from milligrad.engine import Value, adjoints, partials_as_numbers, place, record_lines
from milligrad.explain.document import SHOWN, Explanation, Finding, few
from milligrad.markup import printable, shown
from milligrad.nn.layers import size
from milligrad.nn.module import Module
from milligrad.places import shown as shown_line
from milligrad.places import users_line_of
from milligrad.typing import Any, Self

SAME = 1e-9  # the relative difference up to which two gradients are the same: far above rounding, far below a step


def explained(
    loss: Value | Callable[[], Value], *, wrt: Value | None, model: Module | None, max_paths: int, precision: int
) -> Explanation:
    """The Explanation of a loss; `milligrad.explain` says what the options mean."""
    from milligrad.explain.paths import explain_paths
    from milligrad.explain.trouble import explain_failure, explain_trouble

    size(max_paths, "max_paths")
    size(precision, "precision")
    _check(model, Module | None, "model")
    _check(wrt, Value | None, "wrt")
    fresh = not isinstance(loss, Value)
    if not isinstance(loss, Value):
        try:
            loss = _computed(loss)
        except (ValueError, ArithmeticError) as error:
            if not _is_of_arithmetic(error):
                raise
            return explain_failure(_failure(error, precision))
    if wrt is None:
        return explain_trouble(Subject(loss, model, precision, fresh=fresh).with_loss_named())
    if not wrt.requires_grad:
        raise ValueError(f"wrt: expected a Value that requires a gradient, got {wrt!r:.200}")
    if not loss.requires_grad:
        raise RuntimeError(f"no gradient of {loss!r:.200}: it is a constant, or computed from constants or in no_grad")
    return explain_paths(Subject(loss, model, precision, wrt, fresh).with_loss_named(), wrt, max_paths)


def _check(x: object, kind: Any, name: str) -> None:
    if not isinstance(x, kind):
        what = "a Value" if name == "wrt" else "a Module"
        raise TypeError(f"{name}: expected {what} or None, got {type(x).__name__} {x!r:.60}")


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


def _failure(error: Exception, precision: int) -> Finding:
    """The operation that raised the error, its inputs, and how these were computed."""
    line, kind = users_line_of(error), type(error).__name__
    where = [shown_line(line)] if line else []
    if not hasattr(error, "op"):  # plain numbers, which remember nothing
        return Finding("error", f"{kind}: {error}", where)
    op, inputs = error.op, error.inputs  # type: ignore[attr-defined]
    values = [x for x in inputs if isinstance(x, Value)]
    where += few([f"its input {Subject(x, None, precision).where(x)}" for x in values[:SHOWN]], len(values))
    numbers = ", ".join(shown(x.real, precision) for x in inputs[:SHOWN]) + ", …" * (len(inputs) > SHOWN)
    advice = "Keep the input away from there: with clamp(), a small number that is added, or another formula."
    reason = str(error).rpartition(": ")[2]
    return Finding("error", f"{op.name} of {numbers} raised {kind}: {reason}", where, advice, values)


# Of a loss.


class Subject:
    """A loss, the Values behind it (inputs first), and how they are shown: as text of the user's names and numbers.

    loss, order:   the loss, and all that it was computed from, each Value after its inputs
    fresh:         whether it was computed only to be explained, so that no backward of it can have run
    places:        where each Value stands in the model: "hidden.weight[0][1]"
    """

    def __init__(
        self, loss: Value, model: Module | None, precision: int, also: Value | None = None, fresh: bool = False
    ) -> None:
        self.loss, self.model, self.precision, self.fresh = loss, model, precision, fresh
        self.order = inputs_first(loss)
        self.places = names_in(model) if model is not None else {}
        known = self.order if also is None or also in {*self.order} else [also, *self.order]
        self.names = names_of(known, model)

    def with_loss_named(self) -> Self:
        """The same, where the loss is called so if it was computed and has no name of its own."""
        if self.loss.op is not None and self.loss.name is None and "loss" not in self.names.values():
            self.names[self.loss] = "loss"
        return self

    def name(self, x: Value) -> str:
        """What x is called, at most CELLS of it."""
        return printable(self.names[x], CELLS)

    def number(self, x: float) -> str:
        """A number with as many digits as were asked for."""
        return shown(x, self.precision)

    def value(self, x: Value) -> str:
        """`w = 0.5`"""
        return f"{self.name(x)} = {self.number(x.data)}"

    def made(self, z: Value) -> str:
        """`v1 = x * w`"""
        return f"{self.name(z)} = {formula(z, self.names)}"

    def equation(self, z: Value) -> str:
        """`v1 = x * w = 0.5 * (−1.2) = −0.6`; of a leaf its number."""
        if z.op is None:
            return self.value(z)
        return f"{self.made(z)} = {with_numbers(z, self.precision)} = {self.number(z.data)}"

    def where(self, z: Value) -> str:
        """The same, and the line that computed it, if it was recorded."""
        return f"{self.equation(z)}{f', in {place(z)}' * bool(place(z))}"

    def listed(self, values: Sequence[Value]) -> list[str]:
        """Where the first few Values were computed, and how many there are more."""
        return few([self.where(z) for z in values[:SHOWN]], len(values))

    @cached_property
    def missing(self) -> list[tuple[Value, str]]:
        """The Values that have no derivative, and why."""
        missing = []
        for z in filter(is_computed, self.order):
            try:
                partials_as_numbers(z)
            except (ValueError, ArithmeticError) as error:
                missing.append((z, str(error).rpartition(": ")[2]))
        return missing

    @cached_property
    def adjoint(self) -> dict[Value, float]:
        """∂loss/∂x of each Value x; empty if the loss is a constant, or backward would raise an error."""
        if self.missing or not self.loss.requires_grad:
            return {}
        return adjoints({self.loss: 1.0}, partials_as_numbers)

    @cached_property
    def groups(self) -> list[list[Value]]:
        """The Values by layer, as a folded picture shows them."""
        return by_layer(self.loss)


def is_computed(z: Value) -> bool:
    """Whether it remembers what it was computed of."""
    return z.op is not None and z.requires_grad


def derivatives_of(z: Value) -> Sequence[float]:
    """∂z/∂x for each input x, NaN where there is none."""
    try:
        return partials_as_numbers(z)  # type: ignore[no-any-return]
    except (ValueError, ArithmeticError):
        return [math.nan] * len(z.inputs)


def close(x: float, y: float) -> bool:
    """Whether two gradients are the same but for rounding; NaN is the same as NaN."""
    return math.isclose(x, y, rel_tol=SAME) or (x != x and y != y)


def many(n: int) -> str:
    """A number of things, exactly, unless nobody could read it."""
    return f"{n:,}" if n < 10**30 else f"about 10^{math.log10(n):.0f}"
