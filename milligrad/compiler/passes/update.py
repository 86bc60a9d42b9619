"""The optimizer's step as loops: its rule is traced for one number and looped over all numbers of each parameter.

What the rule computes from the learning rate and the number of steps alone (Adam's corrections) is computed once for
all parameters for which these are equal. Clipping stands before the rule, as `clip_grad_norm_` and `clip_grad_value_`
would. It knows an optimizer's groups, slots and rule, and not a single rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from milligrad import ops
from milligrad.compiler import kept
from milligrad.compiler.passes.fuse import fuse
from milligrad.compiler.passes.reroll import Layout, reroll
from milligrad.compiler.passes.simplify import simplify
from milligrad.compiler.program import Access, Array, Dims, Loop, Operand, Program, Reduce, Segment, mapped
from milligrad.compiler.trace import Trace
from milligrad.engine import Value, enable_grad, number
from milligrad.nn.reads import token


@dataclass(eq=False)
class Parameters:
    """The numbers of one parameter that learn, and what the optimizer remembers of them.

    group:  the number of its group among the optimizer's: the group itself may be replaced by another dict
    """

    group: int
    slot: Any
    positions: list[int]  # of these numbers in the slot
    values: list[Value]
    array: Array
    state: dict[str, Array]

    def options(self, optimizer: Any) -> dict[str, Any]:
        """The options of its group, as they are now."""
        return optimizer._options(optimizer.param_groups[self.group])  # type: ignore[no-any-return]


def arrangement(optimizer: Any) -> Any:
    """What the code of an update depends on: parameters, options but for lr, what is frozen, who shares a step."""
    pairs = _slots(optimizer)
    options = [token({**optimizer._options(group), "lr": None}, []) for group in optimizer.param_groups]
    return [
        (id(slot), options[group], kind, [v.requires_grad for v in slot.values])
        for (group, slot), kind in zip(pairs, _kinds(pairs))
    ]


def learning(optimizer: Any) -> list[Parameters]:
    """The parameters of the optimizer of which some number learns."""
    pairs = [(group, slot) for group, slot in _slots(optimizer) if any(v.requires_grad for v in slot.values)]
    made = []
    for i, (group, slot) in enumerate(pairs):
        positions = [k for k, v in enumerate(slot.values) if v.requires_grad]
        n, names = len(positions), optimizer.initial_state(**optimizer._options(optimizer.param_groups[group]))
        state = {name: Array(f"p{i}.{name}", n, "state") for name in names}
        values = [slot.values[k] for k in positions]
        made.append(Parameters(group, slot, positions, values, Array(f"p{i}", n, "leaf"), state))
    return made


def _slots(optimizer: Any) -> list[tuple[int, Any]]:
    """Each slot, after the number of its group."""
    return [(group, slot) for group, (_, slots) in enumerate(optimizer._pairs()) for slot in slots]


def _kinds(pairs: list[tuple[int, Any]]) -> list[int]:
    """For each slot a number, equal for those of one group that have made equally many steps."""
    known: dict[Any, int] = {}
    return [known.setdefault((group, slot.step), len(known)) for group, slot in pairs]


@dataclass
class Rule:
    """The loops of one step for one number, as if a parameter's numbers were samples.

    inputs:   the arrays that stand for p, its gradients and its state; shared those for lr, steps, t and the norm
    results:  the arrays that stand for the new p and state
    places:   what the arrays of values that all parameters share became in the program
    """

    program: Program
    inputs: list[Array]
    shared: list[Array]
    results: list[Array]
    places: dict[Array, Array] = field(default_factory=dict)


class Update:
    """The loops that change the parameters.

    hyper:  the array of learning rate and steps made before, of each kind of parameters; see `hyperparameters`
    """

    def __init__(self, optimizer: Any, parameters: list[Parameters], norm: float | None, value: float | None) -> None:
        self.optimizer, self.parameters, self.norm, self.value = optimizer, parameters, norm, value
        self.kinds = _kinds([(p.group, p.slot) for p in parameters])
        self.hyper = Array("hyper", 2 * len(set(self.kinds)), "input")

    def hyperparameters(self) -> list[float]:
        """The numbers of the array `hyper`."""
        rates = [number(group["lr"], "lr") for group in self.optimizer.param_groups]
        numbers = {k: (rates[p.group], float(p.slot.step)) for p, k in zip(self.parameters, self.kinds)}
        return [x for k in sorted(numbers) for x in numbers[k]]

    def append_to(self, program: Program, grads: list[list[Array]], step: Array) -> None:
        """Append clipping and update to the program, in place.

        grads: for each parameter the arrays whose sum is its gradient. step: the array of the number of this step.
        """
        known = set(program.arrays)

        def declare(*arrays: Array) -> None:
            program.arrays.extend(a for a in arrays if a not in known)
            known.update(arrays)

        declare(self.hyper, step)
        for p, row in zip(self.parameters, grads):
            declare(p.array, *p.state.values(), *row)
        norm = None
        if self.norm is not None:
            grads = [row if len(row) == 1 else [_summed(program, declare, row)] for row in grads]
            norm = _squared_norm(program, declare, [row[0] for row in grads])
        rules: dict[int, Rule] = {}
        for i, (p, kind, row) in enumerate(zip(self.parameters, self.kinds, grads)):
            first = kind not in rules
            rule = rules[kind] = rules[kind] if not first else self._rule(p, len(row))
            shared = [Access(self.hyper, 2 * kind), Access(self.hyper, 2 * kind + 1), Access(step)]
            if norm:
                shared.append(Access(norm))
            place = dict(zip(rule.inputs, [p.array, *row, *p.state.values()]))
            place.update(zip(rule.results, [p.array, *p.state.values()]))
            for array in rule.program.arrays:
                if array.role == "value" and (first or array.per_sample):
                    new = Array(f"{array.name}.{i}", p.array.size if array.per_sample else 1, "value")
                    declare(new)
                    (place if array.per_sample else rule.places)[array] = new
            place.update(rule.places)
            loops = [loop for loop in rule.program.loops if first or loop.per_sample]
            program.loops += [
                _over_numbers(loop, place, dict(zip(rule.shared, shared)), p.array.size) for loop in loops
            ]

    def mark(self) -> Any:
        """What tells its loops from those of others, each gradient being one array; None if there is no telling."""
        marks: dict[int, Any] = {}
        for p, kind in zip(self.parameters, self.kinds):
            if kind not in marks:
                trace, each, alike, new = self._traced_rule(p, 1)
                marks[kind] = kept.fingerprint(trace.tape, new, kept.Seen(), each, alike)
        return None if None in marks.values() else (self.kinds, self.norm is None, marks)

    def _rule(self, p: Parameters, gradients: int) -> Rule:
        """The rule, of the clipped sum of some gradients, traced and rerolled for one number."""
        trace, each, alike, new = self._traced_rule(p, gradients)
        inputs = [Array(f"each{k}", 1, "input", True) for k in range(len(each))]
        shared = [Array(f"shared{k}", 1, "input") for k in range(len(alike))]
        results = [Array(f"new{k}", 1, "output", True) for k in range(len(new))]
        leaves = [Layout(a, [s]) for a, s in zip([*inputs, *shared], [*each, *alike])]
        made = reroll(simplify(trace.tape, new), leaves, [Layout(a, [k]) for k, a in enumerate(results)])
        return Rule(fuse(made), inputs, shared, results)

    def _traced_rule(self, p: Parameters, gradients: int) -> tuple[Trace, list[Any], list[Any], list[Any]]:
        """(The trace, the inputs of each number, those of all alike, the new numbers.)"""
        trace = Trace()
        x, *others = each = trace.input("each", 1 + gradients + len(p.state))
        lr, before, t, *squared = alike = trace.input("shared", 3 if self.norm is None else 4)
        gs, state = others[:gradients], others[gradients:]
        trace.tape.doubtful = frozenset([g.number for g in gs])
        with enable_grad():
            g = sum(gs[1:], gs[0])
            if self.norm is not None:
                alone = sum([q.array.size for q in self.parameters]) == 1  # the norm of one number is exact at any size
                norm = ops.abs(g) if alone else ops.sqrt(squared[0])
                g = g * ops.minimum(self.norm / (norm + 1e-6), 1.0)
            if self.value is not None:
                g = ops.clamp(g, -self.value, self.value)
            options = {**p.options(self.optimizer), "lr": lr}
            new = self.optimizer.rule(before + t, **options)(x, g, *state)
        return trace, each, alike, [*new]


def _summed(program: Program, declare: Callable[..., None], row: list[Array]) -> Array:
    """The sum of some arrays, as one."""
    g = Array(f"{row[0].name}_sum", row[0].size, "value")
    declare(g)
    terms = tuple([Segment((), (Access(x, 0, (1,)),)) for x in row])
    program.loops.append(Loop((g.size,), [Reduce(ops.sum, terms)], [(0, Access(g, 0, (1,)))]))
    return g


def _squared_norm(program: Program, declare: Callable[..., None], grads: list[Array]) -> Array:
    """Σ g² of all gradients: beyond the floats inf, as in `clip_grad_norm_` and in PyTorch."""
    norm = Array("squared_norm", 1, "value")
    declare(norm)
    squares = tuple([Segment((g.size,), (Access(g, 0, (1,)), Access(g, 0, (1,)))) for g in grads])
    program.loops.append(Loop((), [Reduce(ops.sum, squares)], [(0, Access(norm))]))
    return norm


def _over_numbers(loop: Loop, place: dict[Array, Array], shared: dict[Array, Access], n: int) -> Loop:
    """A loop over samples of one number each as a loop over the n numbers of a parameter."""
    each = loop.per_sample
    dims: Dims = (n,) if each else ()

    def moved(x: Operand, _: Dims = ()) -> Operand:
        if not isinstance(x, Access):
            return x
        if x.array in shared:
            return Access(shared[x.array].array, shared[x.array].base, (0,) * len(dims))
        return Access(place[x.array], 0, ((1,) if x.array.per_sample else (0,)) if each else ())

    steps = [mapped(s, moved, dims) for s in loop.steps]
    return Loop(dims, steps, [(k, moved(a)) for k, a in loop.stores])  # type: ignore[misc]
