"""Numbers whose way is not remembered: it is computed again where a derivative asks for it.

A graph remembers each number on the way, which for a long loop is more than there is memory for. A part of it can be
forgotten, but for what went in; its derivatives take a second run of it. (A. Griewank, "Achieving logarithmic growth of
temporal and spatial complexity in reverse automatic differentiation", 1992; PyTorch calls it checkpointing.)

    part      a function of a list of numbers that returns a list of numbers
    fresh     the Values that stand for what went in while a part runs
    captured  the Values that a part uses besides; they were there before it ran

In a trace of the compiler a run is part of the tape, and so is the second one, between the chain rule's steps before
and after it. There all numbers that a part gives have their derivatives together, from one run. What holds the runs
apart is `anew`: what was computed from one of its nodes is never taken for the same number of another run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from milligrad.engine import (
    Op,
    Value,
    adjoints,
    enable_grad,
    next_serial,
    node,
    number,
    partials_as_numbers,
    partials_as_values,
    tracer,
)
from milligrad.random import drawn_by, generator
from milligrad.typing import Any

Part = Callable[[list[Any]], Sequence[Any]]


def recomputed(part: Part, inputs: Sequence[Any], recent: list[Any] | None = None) -> list[Any]:
    """part(inputs), of which each number that learns remembers the inputs and what else the part used, and no more.

    recent:  shared by several parts, of which that run last is kept, so that its outputs need one run together
    """
    if tracer():
        return _TracedRun(part, inputs).outputs()
    return _Run(part, inputs, [] if recent is None else recent).outputs()


class _Run:
    """One use of a part: the inputs, those of them that learn, and the Values that it captured."""

    def __init__(self, part: Part, inputs: Sequence[Any], recent: list[Any]) -> None:
        self.part, self.recent = part, recent
        self.learning = [i for i, x in enumerate(inputs) if _learns(x)]
        self.numbers = [number(x) if i in {*self.learning} else x for i, x in enumerate(inputs)]
        self.given = [inputs[i] for i in self.learning]
        self.captured: list[Value] = []
        self.drawn: Any = None  # the state of the random numbers before, if the part draws any

    def outputs(self) -> list[Any]:
        state, start = generator().getstate(), next_serial()
        _, results = self._run(self._fresh(self.numbers))
        self.drawn = state if generator().getstate() != state else None
        used = [*results, *[x for z in _made_since(start, results) for x in z.inputs]]
        self.captured = [x for x in dict.fromkeys(filter(_learns, used)) if x.serial < start]
        parents = (*self.given, *self.captured)
        return [node(self._op(j), parents, z.data) if _learns(z) else z for j, z in enumerate(results)]

    def _fresh(self, inputs: Sequence[Any]) -> list[Any]:
        """The inputs, with new Values in the place of those that learn."""
        fresh = [*inputs]
        for i in self.learning:
            fresh[i] = Value(inputs[i])
        return fresh

    def _run(self, inputs: list[Any]) -> tuple[list[Value], Sequence[Any]]:
        """(those of the inputs that learn, what the part makes of them all)."""
        with enable_grad():
            return [inputs[i] for i in self.learning], self.part(inputs)

    def _op(self, j: int) -> Op:
        """That of the output number j."""

        def partials(z: Any, *inputs: Any) -> Sequence[Any]:
            if isinstance(z, Value):
                return recomputed(lambda xs: self._derivatives(j, xs, partials_as_values), inputs)
            return self._derivatives(j, inputs, partials_as_numbers)

        def value(*inputs: float) -> float:
            raise TypeError("a part of a scan is computed by the scan")

        return Op("scan", value, partials, "scan({})", "A number that a part of a scan came to.")

    def _derivatives(self, j: int, inputs: Sequence[Any], partials: Any) -> list[Any]:
        """Those of the output j by all that it depends on, where these are the inputs."""
        start, fresh, results = self._again([*inputs][: len(self.learning)], partials is partials_as_numbers)
        asked, z = [*fresh, *self.captured], results[j]
        adjoint = adjoints([(z, 1.0)], partials, wanted=asked, order=_made_since(start, [z]))
        return [adjoint.get(x, 0.0) for x in asked]

    def _again(self, given: list[Any], as_numbers: bool) -> tuple[int, list[Value], Sequence[Any]]:
        """(when it started, fresh, results) of another run, with the same random numbers.

        Of inputs that are Values, and are to be differentiated by, it runs on these; of numbers on new Values.
        """
        inputs = [*self.numbers]
        for i, x in zip(self.learning, given):
            inputs[i] = x
        if as_numbers and self.recent and self.recent[0] is self and self.recent[1] == inputs:
            return self.recent[2]  # type: ignore[no-any-return]
        state, start = generator().getstate(), next_serial()
        if self.drawn is not None:
            generator().setstate(self.drawn)
        try:
            ran = start, *self._run(self._fresh(inputs) if as_numbers else inputs)
        finally:
            if self.drawn is not None:
                generator().setstate(state)
        if as_numbers:
            self.recent[:] = self, inputs, ran
        return ran


class _TracedRun:
    """One use of a part in a trace.

    Each number that it gives is a node `given` of what was computed and of one node `used`, of all that learns and went
    in. The chain rule brings the adjoints of the first ones together there, and goes on with those of the inputs.
    """

    def __init__(self, part: Part, inputs: Sequence[Any]) -> None:
        self.part, self.inputs, self.trace = part, inputs, tracer()
        self.drawn: list[Any] = []
        self.captured: list[Value] = []
        self.adjoints: dict[int, Any] = {}  # of the numbers given, by which they are

    def outputs(self) -> list[Any]:
        before = len(self.trace.random)
        fresh, start, results = self._run(self.inputs)
        self.drawn = self.trace.random[before:]
        own = {x.serial for x in fresh if isinstance(x, Value)}
        read = [*results, *[x for z in _made_since(start, results) for x in z.inputs]]
        learning = {x.serial: x for x in read if _learns(x) and x.serial < start}
        self.captured = [x for serial, x in learning.items() if serial not in own]
        record = self.trace.record
        sources = [*filter(_learns, self.inputs), *self.captured]
        joint = [self._known(record(used, tuple(sources)), -1)] if sources else []
        self.joint = joint
        return [
            self._known(record(given, (z, *joint) if _learns(z) else (z,)), j) if isinstance(z, Value) else z
            for j, z in enumerate(results)
        ]

    def _known(self, z: Any, j: int) -> Any:
        self.trace.runs[z.serial] = self, j
        return z

    def _run(self, inputs: Sequence[Any]) -> tuple[list[Any], int, Sequence[Any]]:
        """(what stands for the inputs, when it started, what the part makes of them)."""
        with enable_grad():
            fresh = [self.trace.record(anew, (x,)) if isinstance(x, Value) else x for x in inputs]
            return fresh, next_serial(), self.part([*fresh])

    def pull(self, j: int, g: Any) -> list[tuple[Any, Any]]:
        """What the chain rule does where it comes to the number j, or to all of them, which is -1."""
        if j >= 0:
            self.adjoints[j] = g
            return [(x, 1.0) for x in self.joint]
        adjoints, self.adjoints = self.adjoints, {}
        n, asked = len(self.inputs), [*filter(_learns, self.inputs), *self.captured]

        def derivatives(xs: list[Any]) -> list[Any]:
            return self._derivatives(xs[:n], dict(zip(adjoints, xs[n:])))

        found = recomputed(derivatives, [*self.inputs, *adjoints.values()])
        return [(x, d) for x, d in zip(asked, found) if not (type(d) is float and d == 0.0)]

    def _derivatives(self, inputs: Sequence[Any], gs: Mapping[int, Any]) -> list[Any]:
        """Those by all that learns, of another run on these inputs, with the same random numbers."""
        if self.drawn:
            with drawn_by(iter(self.drawn).__next__):
                fresh, start, results = self._run(inputs)
        else:
            fresh, start, results = self._run(inputs)
        asked = [x for x, own in zip(fresh, self.inputs) if _learns(own)] + self.captured
        seeds: dict[int, tuple[Any, Any]] = {}
        for j, g in gs.items():
            z = results[j]
            seeds[z.serial] = z, seeds[z.serial][1] + g if z.serial in seeds else g
        adjoint = adjoints(seeds.values(), partials_as_values, wanted=asked, order=_made_since(start, results))
        return [adjoint.get(x, 0.0) for x in asked]


def _pull(z: Any, g: Any) -> list[tuple[Any, Any]]:
    run, j = tracer().runs[z.serial]
    return run.pull(j, g)  # type: ignore[no-any-return]


anew = Op("anew", lambda x: x, lambda z, x: (1.0,), "{}", "x, from which nothing was computed before.")
given = Op("given", lambda x, *_: x, lambda z, x, *more: (1.0, *[0.0 for _ in more]), "{}", "What a part came to.")
used = Op("used", lambda *xs: 0.0, lambda z, *xs: (0.0,) * len(xs), "used({})", "All that a part depends on.")
given.pull = used.pull = _pull
PARTS = (anew, given, used)


def _made_since(start: int, outputs: Sequence[Any]) -> list[Value]:
    """The Values that the outputs were computed from, as far as they were made since then; the last made first."""
    order = [*{z for z in outputs if _learns(z) and z.op is not None and z.serial > start}]
    seen = {*order}
    for z in order:
        for x in z.inputs:
            if _learns(x) and x.op is not None and x.serial > start and x not in seen:
                seen.add(x)
                order.append(x)
    return sorted(order, key=lambda z: -z.serial)


def _learns(x: Any) -> bool:
    return isinstance(x, Value) and x.requires_grad
