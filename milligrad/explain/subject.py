"""What is to be explained: the loss, what its Values are called and shown as, and what is known of them all."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import cached_property
from operator import itemgetter

from milligrad.draw.formulas import CELLS, formula, with_numbers
from milligrad.draw.model import by_layer
from milligrad.draw.naming import inputs_first, names_in, names_of
from milligrad.engine import Value, adjoints, partials_as_numbers, place
from milligrad.explain.document import SHOWN, few
from milligrad.markup import short_name, shown
from milligrad.nn.module import Module
from milligrad.typing import Self

SAME = 1e-9
"""The relative difference up to which two gradients are the same: far above rounding, far below a step."""
FLAT = 1e-3
"""What has a smaller derivative passes less than a thousandth back. sigmoid(±6.91) and tanh(±4.15) do."""
GAIN = 1e-3
"""An answer is wrong if another would make the loss of its sample so much smaller."""
TRIED = -2.0, -1.0, -0.25, 0.25, 1.0, 2.0  # what would an answer be with inputs so many times 1 + |x| away?
CANCELLED = 1e-3
"""Where the sum of what came back is such a small part of its parts, they cancel each other, as in a minimum."""
LINEAR = {"add", "sub", "neg", "identity", "sum", "mul", "div", "dot"}  # what may stand between weights and activation


class Subject:
    """A loss, the Values behind it (inputs first), and how they are shown: as text of the user's names and numbers.

    loss, order:   the loss, and all that it was computed from, each Value after its inputs
    fresh:         whether it was computed only to be explained, so that no backward of it can have run
    parameters:    those of the model, by their paths: none without a model
    places:        where each of their Values stands: "hidden.weight[0][1]"
    """

    def __init__(
        self, loss: Value, model: Module | None, precision: int, also: Value | None = None, fresh: bool = False
    ) -> None:
        self.loss, self.model, self.precision, self.fresh = loss, model, precision, fresh
        self.order = inputs_first(loss)
        self.parameters = dict(model.named_parameters()) if model is not None else {}
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
        return short_name(self.names[x], CELLS)

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
    def largest(self) -> float:
        """The largest |∂loss/∂x| of a leaf x."""
        return max([abs(g) for x, g in self.adjoint.items() if x.op is None], default=0.0)

    @cached_property
    def sums(self) -> dict[Value, tuple[Value, Value]]:
        """Of each Value that is linear in a trainable leaf: the nearest, a bias or else a weight, and what uses that.

        A parameter of a single number may be shared by many units, as a temperature is: it is the last choice.
        """
        shared = {x for p in self.parameters.values() if p.numel() == 1 for x in p.values()}
        found: dict[Value, tuple[bool, int, Value, Value]] = {}
        for z in filter(is_computed, self.order):
            inputs = [x for x in z.inputs if type(x) is not float]
            leaves = [(x in shared, 1, x, z) for x in inputs if x.op is None and x.requires_grad]
            if z.op.name in LINEAR:  # type: ignore[union-attr]
                nearer = [found[x] for x in inputs if x in found]
                leaves += [(shared, distance + 1, x, y) for shared, distance, x, y in nearer]
            if leaves:
                found[z] = min(leaves, key=itemgetter(0, 1))
        return {z: (leaf, y) for z, (_, _, leaf, y) in found.items()}

    @cached_property
    def inner(self) -> set[Value]:
        """The Values that go through further parameters on their way to the loss: the others are answers."""
        inner: set[Value] = set()
        for z in filter(is_computed, reversed(self.order)):
            inputs = [x for x in z.inputs if type(x) is not float]
            if z in inner or any(x.op is None and x.requires_grad for x in inputs):
                inner.update(inputs)
        return inner

    def is_content(self, z: Value) -> bool:
        """Whether the loss is content with z: an answer that, where it is flat, no inputs could make much better."""
        return z in self.answers and (not self.adjoint.get(z) or 0 <= self._gain(z) < GAIN)

    @cached_property
    def is_stuck(self) -> bool:
        """Whether the loss wants an answer otherwise that is too flat for it to say so."""
        return any(
            self.adjoint.get(z) and min(map(abs, derivatives_of(z))) < FLAT and self._gain(z) >= GAIN
            for z in self.answers
        )

    def _gain(self, z: Value) -> float:
        """How much smaller the loss of a sample would be with another answer, beyond what its slope promises.

        Other numbers are tried for all inputs where z is flat: near and far, below and above. What the loss would gain
        is told by its slope, times how many answers there are like z: in a mean each has so small a part. Where z is
        flat because it is constant, or has a small factor, the gain is -1.
        """
        flat = {x: d for x, d in zip(z.inputs, derivatives_of(z)) if type(x) is not float and abs(d) < FLAT}
        gains = []
        for by in TRIED:
            with suppress(TypeError, ValueError, ArithmeticError):  # compiled code, or outside the domain
                change = _moved(z, flat, by) - z.data
                promised = math.fsum(d * by * (1 + abs(x.data)) for x, d in flat.items())
                if abs(change - promised) > abs(change) / 100:
                    gains.append(self.adjoint[z] * -change)
        return max(0.0, *gains) * self.alike(z) if gains else -1.0

    @cached_property
    def answers(self) -> set[Value]:
        """The Values that no parameters come after, nor go into, unless they are the only input."""
        answers = set()
        for z in filter(is_computed, self.order):
            inputs = {x for x in z.inputs if type(x) is not float}
            if z not in self.inner and (len(inputs) == 1 or inputs.isdisjoint(self.inner)):
                answers.add(z)
        return answers

    @cached_property
    def came_back(self) -> dict[Value, float]:
        """Σ |g · ∂z/∂x| over each use z of a Value x: what came back to it, were there no signs.

        Where the sum with signs is as good as 0, its parts are handed on in its place. Where an answer is flat and the
        loss is content with it, all is handed on.
        """
        came = {self.loss: 1.0}
        for z in filter(is_computed, reversed(self.order)):
            g, parts = abs(self.adjoint.get(z, 0.0)), came.get(z, 0.0)
            g = parts if g < CANCELLED * parts else g
            derivatives = [abs(d) for d in partials_as_numbers(z)] if g else ()
            least = float(any(d < FLAT for d in derivatives) and self.is_content(z))
            for x, d in zip(z.inputs, derivatives):
                if type(x) is not float and x.requires_grad:
                    came[x] = came.get(x, 0.0) + g * max(d, least)
        return came

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


def is_computed(z: Value) -> bool:
    """Whether it remembers what it was computed of."""
    return z.op is not None and z.requires_grad


def _moved(z: Value, some: Collection[Value], by: float) -> float:
    """What z would be with some of its inputs elsewhere."""
    numbers = [x.data + by * (1 + abs(x.data)) if x in some else x.real for x in z.inputs]
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
