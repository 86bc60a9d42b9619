"""What is to be explained: the loss, what its Values are called and shown as, and what is known of them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from operator import itemgetter

from milligrad.draw.formulas import CELLS, formula, with_numbers
from milligrad.draw.model import by_layer
from milligrad.draw.naming import inputs_first, names_in, names_of
from milligrad.engine import Value, adjoints, partials_as_numbers, place
from milligrad.explain.document import SHOWN, few
from milligrad.markup import printable, shown
from milligrad.nn.module import Module
from milligrad.typing import Self

SAME = 1e-9  # the relative difference up to which two gradients are the same: far above rounding, far below a step
LINEAR = {"add", "sub", "neg", "identity", "sum", "mul", "div", "dot"}  # what may stand between weights and activation


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
        if self.loss.op is not None and not (self.loss.name or "").strip() and "loss" not in self.names.values():
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
        return f"{self.name(z)} = {formula(z, self.names, self.precision)}"

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
    def near(self) -> dict[Value, Value]:
        """The nearest trainable leaf that a Value is a sum with, or of products with: a bias, or else a weight."""
        near: dict[Value, tuple[int, Value]] = {}
        for z in filter(is_computed, self.order):
            inputs = [x for x in z.inputs if type(x) is not float]
            direct = [(1, x) for x in inputs if x.op is None and x.requires_grad]
            if z.op.name in LINEAR:  # type: ignore[union-attr]
                direct += [(near[x][0] + 1, near[x][1]) for x in inputs if x in near]
            if direct:
                near[z] = min(direct, key=itemgetter(0))
        return {z: leaf for z, (_, leaf) in near.items()}

    @cached_property
    def steepest(self) -> dict[Value, float]:
        """The largest |∂z/∂x| of each Value x, over all uses z of it."""
        steepest: dict[Value, float] = {}
        for z in filter(is_computed, self.order):
            for x, d in zip(z.inputs, derivatives_of(z)):
                if type(x) is not float:
                    steepest[x] = max(steepest.get(x, 0.0), abs(d))
        return steepest

    @cached_property
    def inner(self) -> set[Value]:
        """The Values that go through further parameters on their way to the loss: the others are answers."""
        inner: set[Value] = set()
        for z in filter(is_computed, reversed(self.order)):
            inputs = [x for x in z.inputs if type(x) is not float]
            if z in inner or any(x.op is None and x.requires_grad for x in inputs):
                inner.update(inputs)
        return inner

    def is_wanted(self, z: Value) -> bool:
        """Whether the loss is content with z: an answer that no inputs of derivative 0 could make better.

        Two other numbers are tried for each such input: all below what they are, and all above.
        """
        g = self.adjoint.get(z, 0.0)
        inputs = {x for x in z.inputs if type(x) is not float}
        if z in self.inner or (len(inputs) > 1 and not inputs.isdisjoint(self.inner)):
            return False
        if not g:
            return True
        still = {x for x, d in zip(z.inputs, derivatives_of(z)) if x in inputs and d == 0}
        try:
            others = [_moved(z, still, by) for by in (-2.0, 2.0)]
        except (TypeError, ValueError, ArithmeticError):  # compiled code, or outside the domain
            return False
        rises = [other - z.data if g > 0 else z.data - other for other in others]
        return min(rises) >= 0 < max(rises)

    @cached_property
    def groups(self) -> list[list[Value]]:
        """The Values by layer, as a folded picture shows them."""
        return by_layer(self.loss)


def is_computed(z: Value) -> bool:
    """Whether it remembers what it was computed of."""
    return z.op is not None and z.requires_grad


def _moved(z: Value, still: set[Value], by: float) -> float:
    """What z would be if these inputs were far from where they are, at least by so much."""
    numbers = [x.data + by * (1 + abs(x.data)) if x in still else x.real for x in z.inputs]
    return z.op.value(*numbers)  # type: ignore[union-attr, no-any-return]


def derivatives_of(z: Value) -> Sequence[float]:
    """∂z/∂x for each input x, NaN where there is none."""
    try:
        return partials_as_numbers(z)  # type: ignore[no-any-return]
    except (ValueError, ArithmeticError):
        return [math.nan] * len(z.inputs)


def close(x: float, y: float) -> bool:
    """Whether two gradients are the same but for rounding; NaN is the same as NaN."""
    return math.isclose(x, y, rel_tol=SAME) or (x != x and y != y)
