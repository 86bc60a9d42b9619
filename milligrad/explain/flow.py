"""What comes back from the loss: how much if there were no signs, through which weights, and from which answers.

The gradient alone does not say why it is small. In a minimum its parts cancel each other, or the loss is content with
the answers; elsewhere something kept it.

    answer   a Value that no parameters come after: what a network says, and all that a loss makes of it
    flat     of a derivative so small that hardly anything comes back
    content  is the loss with a flat answer that could not be much better
    stuck    is a flat answer that the loss wants otherwise
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import cached_property
from operator import itemgetter

from milligrad.engine import Value, partials_as_numbers
from milligrad.typing import TYPE_CHECKING

if TYPE_CHECKING:
    from milligrad.explain.subject import Subject

FLAT = 1e-3
"""What has a smaller derivative passes less than a thousandth back. sigmoid(±6.91) and tanh(±4.15) do."""
GAIN = 1e-3
"""An answer is wrong if another would make the loss of its sample so much smaller."""
TRIED = -2.0, -0.25, 0.25, 2.0  # what would an answer be with inputs so many times 1 + |x| away?
CANCELLED = 1e-3
"""Where the sum of what came back is such a small part of its parts, they cancel each other, as in a minimum."""
LINEAR = {"add", "sub", "neg", "identity", "sum", "mul", "div", "dot"}  # what may stand between weights and activation


class Flow:
    """Of the Values behind the loss of a subject: see above."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    @cached_property
    def largest(self) -> float:
        """The largest |∂loss/∂x| of a leaf x."""
        return max([abs(g) for x, g in self.subject.adjoint.items() if x.op is None], default=0.0)

    @cached_property
    def sums(self) -> dict[Value, tuple[Value, Value]]:
        """Of each Value that is linear in a trainable leaf: the nearest, a bias or else a weight, and what uses that.

        A parameter of a single number may be shared by many units, as a temperature is: it is the last choice.
        """
        shared = {x for p in self.subject.parameters.values() if p.numel() == 1 for x in p.values()}
        found: dict[Value, tuple[bool, int, Value, Value]] = {}
        for z in filter(is_computed, self.subject.order):
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
        for z in filter(is_computed, reversed(self.subject.order)):
            inputs = [x for x in z.inputs if type(x) is not float]
            if z in inner or any(x.op is None and x.requires_grad for x in inputs):
                inner.update(inputs)
        return inner

    def is_content(self, z: Value) -> bool:
        """Whether the loss is content with z: an answer that, where it is flat, no inputs could make much better."""
        return z in self.answers and 0 <= self._gain(z) < GAIN

    @cached_property
    def is_stuck(self) -> bool:
        """Whether the loss wants an answer otherwise that is too flat for it to say so."""
        return any(self._gain(z) >= GAIN for z in self.answers)

    def _gain(self, z: Value) -> float:
        """How much smaller the loss of a sample would be with another answer, beyond what its slope promises.

        Other numbers are tried for all inputs where z is flat: near and far, below and above. What the loss would gain
        is told by its slope, times how many answers there are like z: in a mean each has so small a part. Where z is
        not flat, or is so because it is constant or has a small factor, the gain is -1.
        """
        flat = {x: d for x, d in zip(z.inputs, derivatives_of(z)) if type(x) is not float and abs(d) < FLAT}
        gains = []
        for by in TRIED if flat else ():
            with suppress(TypeError, ValueError, ArithmeticError):  # compiled code, or outside the domain
                change = _moved(z, flat, by) - z.data
                promised = math.fsum(d * by * (1 + abs(x.data)) for x, d in flat.items())
                if abs(change - promised) > abs(change) / 100:
                    gains.append(self.subject.adjoint.get(z, 0.0) * -change)
        return max(0.0, *gains) * self.subject.alike(z) if gains else -1.0

    @cached_property
    def answers(self) -> set[Value]:
        """The Values that no parameters come after, nor go into, unless they are the only input."""
        answers = set()
        for z in filter(is_computed, self.subject.order):
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
        came = {self.subject.loss: 1.0}
        for z in filter(is_computed, reversed(self.subject.order)):
            g, parts = abs(self.subject.adjoint.get(z, 0.0)), came.get(z, 0.0)
            g = parts if g < CANCELLED * parts else g
            derivatives = [abs(d) if d == d else 0.0 for d in derivatives_of(z)] if g else ()
            least = float(self.is_content(z))
            for x, d in zip(z.inputs, derivatives):
                if type(x) is not float and x.requires_grad:
                    came[x] = came.get(x, 0.0) + g * max(d, least)
        return came


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
