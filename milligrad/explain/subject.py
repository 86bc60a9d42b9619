"""What is to be explained: the loss, what its Values are called and shown as. Nothing is judged here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

from milligrad.draw.formulas import CELLS, digits_for, formula, with_numbers
from milligrad.draw.model import by_layer
from milligrad.draw.naming import inputs_first, names_in, names_of
from milligrad.engine import Value, adjoints, careful_adjoints, partials_as_numbers, place
from milligrad.explain.document import SHOWN, few
from milligrad.explain.flow import Flow, is_computed
from milligrad.markup import short_name, shown
from milligrad.nn.module import Module

SAME = 1e-9
"""The relative difference up to which two gradients are the same: far above rounding, far below a step."""


class Subject:
    """A loss, the Values behind it (inputs first), and how they are shown: as text of the user's names and numbers.

    loss, order:   the loss, and all that it was computed from, each Value after its inputs
    fresh:         whether it was computed only to be explained, so that no backward of it can have run
    parameters:    those of the model, by their paths: none without a model
    places:        where each of their Values stands: "hidden.weight[0][1]"
    """

    def __init__(
        self, loss: Value, model: Module | None, precision: int, also: Sequence[Value] = (), fresh: bool = False
    ) -> None:
        self.loss, self.precision, self.fresh = loss, precision, fresh
        self.order = inputs_first(loss)
        self.parameters = dict(model.named_parameters()) if model is not None else {}
        self.places = names_in(model) if model is not None else {}
        behind = {*self.order}
        self.names = names_of(self.order, model, [x for x in inputs_first(*also) if x not in behind])

    def name(self, x: Value) -> str:
        """What x is called, at most CELLS of it."""
        return short_name(self.names[x], CELLS)

    def number(self, x: float) -> str:
        """A number with as many digits as were asked for."""
        return shown(x, self.precision)

    def apart(self, x: float, y: float) -> tuple[str, str]:
        """Two numbers, with as many digits as it takes to tell them apart."""
        digits = digits_for(lambda digits: shown(x, digits) != shown(y, digits), self.precision)
        return shown(x, digits), shown(y, digits)

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
        """The Values that have no derivative, and why, if backward would raise an error for one of them."""
        missing: list[tuple[Value, str]] = []
        if not self.loss.requires_grad:
            return missing
        known, _ = careful_adjoints({self.loss: 1.0})  # NaN where a derivative is missing
        if all(g == g for x, g in known.items() if not is_computed(x)):
            return missing
        for z in filter(is_computed, self.order):
            if not known.get(z, 0.0):
                continue  # what comes back to it is 0, and so is what it passes on
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
        return adjoints([(self.loss, 1.0)], partials_as_numbers)

    @cached_property
    def flow(self) -> Flow:
        """What comes back from the loss, and from where."""
        return Flow(self)

    @cached_property
    def layer(self) -> dict[Value, int]:
        """The number of the group that each Value is in."""
        return {z: i for i, group in enumerate(self.groups) for z in group}

    def alike(self, z: Value) -> int:
        """How many Values are in its group."""
        return len(self.groups[self.layer[z]])

    @cached_property
    def groups(self) -> list[list[Value]]:
        """The Values by layer, as a folded picture shows them."""
        return by_layer(self.loss)


def close(x: float, y: float) -> bool:
    """Whether two gradients are the same but for rounding; NaN is the same as NaN."""
    return math.isclose(x, y, rel_tol=SAME) or (x != x and y != y)
