"""Units that pass nothing on: dead relus, saturated sigmoids and tanhs.

One batch cannot prove that a unit is dead, so what may be chance is noted, and only what can hardly be is trouble.

    unit    the activations that share their weights: one neuron, seen once for each sample of a batch
    layer   the units that belong together: by the model's names, or else by their place in the graph
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import compress
from operator import not_
from statistics import median

from milligrad.engine import Value, partials_as_numbers
from milligrad.explain.document import SHOWN, Finding, few
from milligrad.explain.flow import FLAT, is_computed
from milligrad.explain.subject import Subject
from milligrad.markup import count

SHARE = 0.75
"""A relu that is 0 for a whole batch may be so by chance: deep in a network at its start all samples look alike, and
half of the units are off. It is trouble if such a share of a layer is,"""
CHANCE = 0.005
"""and if so many are in fewer starts than this. At its start a unit is off for n samples in about 0.5/√n of them: so
it is with up to 16 points of two moons, as a test measures."""
FAR = 10
"""It is trouble, too, if a unit's largest input is so many times as far below 0 as the inputs of the others usually lie
from 0, or if all are off, from their middle: it did not get there by chance."""
SATURATING = "sigmoid", "tanh"


@dataclass(eq=False)
class Unit:
    """The Values that one activation computed with the same weights, one for each sample.

    layer:   what it belongs to: the module's path, or a number without a meaning; −1 if no weights come before it
    index:   where the parameter that it is known by stands in the module; () without a model
    name:    "unit 3 of layer 0" in a model, else by the leaf that it is known by
    """

    layer: str | int
    index: tuple[int, ...] = ()
    name: str = ""
    nodes: list[Value] = field(default_factory=list)


def _units(subject: Subject, op: str) -> dict[str | int, list[Unit]]:
    """The units of an operation, by layer."""
    units: dict[Value, Unit] = {}
    for z in [z for z in subject.order if is_computed(z) and z.op.name == op]:  # type: ignore[union-attr]
        leaf, _ = subject.flow.sums.get(z.inputs[0], (z, z))
        if leaf not in units:
            layer, index = _place(subject, leaf) or (-1 if leaf is z else subject.layer[z], ())
            units[leaf] = Unit(layer, index, f"the unit of {subject.name(leaf)}")
        units[leaf].nodes.append(z)
    layers: dict[str | int, list[Unit]] = {}
    for unit in sorted(units.values(), key=lambda unit: unit.index):
        layers.setdefault(unit.layer, []).append(unit)
    for module, inside in layers.items():
        if isinstance(module, str):
            _number(module, inside)
    return layers


def _place(subject: Subject, leaf: Value) -> tuple[str, tuple[int, ...]] | None:
    """The module that a parameter belongs to, and where in it: "0.weight[3][1]" is in module 0 at (3, 1)."""
    place = subject.places.get(leaf)
    if place is None:
        return None
    parameter, *index = place.replace("]", "").split("[")
    return parameter.rpartition(".")[0], tuple(map(int, index))


def _number(module: str, units: list[Unit]) -> None:
    """Name the units of a layer by the index that tells them apart: the first, or of weights [in][out] the second."""
    columns = [*zip(*[unit.index for unit in units])]
    numbers = next((column for column in columns if len({*column}) == len(units)), None)
    for i, unit in enumerate(units):
        unit.name = f"unit {numbers[i] if numbers else i} of {_layer_name(module)}"


def _layer_name(layer: str | int) -> str:
    if isinstance(layer, int):
        return "one layer" if layer >= 0 else "what is computed"
    return f"layer {layer}" if layer else "the model"


def dead(subject: Subject) -> list[Finding]:
    """Relu units that let nothing through for any sample, so that no gradient comes back to their weights."""
    found = []
    for layer, units in _units(subject, "relu").items():
        samples = min(len(unit.nodes) for unit in units)
        off = [unit for unit in units if all(z.data == 0 for z in unit.nodes)]
        content, whole = all(map(subject.flow.is_content, _nodes(off))), len(off) == len(units)
        if off and content and whole and (samples > 1 or not _are_units(units)):
            found.append(_about_satisfied(subject, layer, units))
        elif off and (not content or whole or samples > 1):
            usual = _usual(units, off)
            widespread = len(off) >= SHARE * len(units) and _by_chance(len(off), len(units), samples) < CHANCE
            certain = [widespread or (samples > 1 and _largest_input(unit) < -FAR * usual) for unit in off]
            surely = [*compress(off, certain)]
            perhaps = [*compress(off, map(not_, certain))]
            found += [_about_dead(subject, layer, surely, len(units))] if surely else []
            found += [_about_off(subject, layer, perhaps, len(units))] if perhaps else []
    return found


def _are_units(units: list[Unit]) -> bool:
    """Whether a parameter goes into what is activated: that of a hinge loss is made of an answer."""
    before = {x for z in _nodes(units) for x in z.inputs[0].inputs}
    return any(type(x) is not float and x.op is None and x.requires_grad for x in before)


def _usual(units: list[Unit], off: list[Unit]) -> float:
    """How far from 0 the inputs of the units lie that are on; if none is, how far from the middle of their unit's."""
    if len(off) == len(units):
        return median((_largest_input(unit) - min(map(_input, unit.nodes))) / 2 for unit in units)
    return median(abs(_input(z)) for unit in {*units} - {*off} for z in unit.nodes)


def _by_chance(k: int, n: int, samples: int) -> float:
    """How likely it is at the start that k or more of n units are off for all samples."""
    p = 0.5 / math.sqrt(samples)
    ways = [math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(k, n + 1)]  # logarithms
    return math.fsum(math.exp(way + i * math.log(p) + (n - i) * math.log1p(-p)) for i, way in enumerate(ways, k))


def _input(z: Value) -> float:
    return float(z.inputs[0].real) + 0.0  # of -0.0, 0.0


def _largest_input(unit: Unit) -> float:
    return max(map(_input, unit.nodes))


def _about_dead(subject: Subject, layer: str | int, units: list[Unit], n: int) -> Finding:
    samples = len(units[0].nodes)
    seen = f"all {samples:,} inputs" if samples > 1 else "the only input"
    text = f"{_so_many(units, n, 'relu', layer)} dead: relu gives 0 for {seen}"
    advice = (
        "Where relu's input is not positive its derivative is 0: no gradient reaches the weights before it, and it "
        "stays off. A smaller learning rate, another start or LeakyReLU keep it from that."
    )
    return Finding("dead relu", text, _inputs(subject, units), advice, _nodes(units))


def _about_off(subject: Subject, layer: str | int, units: list[Unit], n: int) -> Finding:
    samples, text = len(units[0].nodes), f"{_so_many(units, n, 'relu', layer)} off for "
    lines = _inputs(subject, units) if samples > 1 or len(units) == n else ()
    if samples == 1:
        text += "the only input"
        advice = "No gradient comes back through them. " * bool(lines)
        advice += "With one input that is usual. Which units are dead shows in the loss of a batch."
    else:
        text += f"all {samples:,} inputs"
        advice = (
            "No gradient comes back through a unit that is off. That may be chance; one that nothing turns on is dead."
        )
    return Finding("off", text, lines, advice, _nodes(units), trouble=False)


def _about_satisfied(subject: Subject, layer: str | int, units: list[Unit]) -> Finding:
    nodes = _nodes(units)
    advice = "No gradient comes back, and the loss would gain nothing if one were on. "
    if _are_units(units):
        text = f"{_so_many(units, len(units), 'relu', layer)} off for all {len(units[0].nodes):,} inputs"
        advice += "If another loss would, they are dead."
    else:
        text = f"{count(len(nodes), 'relu')} of the loss {'is' if len(nodes) == 1 else 'are'} off"
        advice += "That is right for a hinge loss: every sample is on its side of the margin."
    return Finding("off", text, _inputs(subject, units), advice, nodes, trouble=False)


def _inputs(subject: Subject, units: list[Unit]) -> list[str]:
    number = subject.number
    lines = [
        f"{unit.name}: its input lies between {number(min(map(_input, unit.nodes)))} and {number(_largest_input(unit))}"
        if len(unit.nodes) > 1 else f"{unit.name}: {subject.where(unit.nodes[0])}"
        for unit in units[:SHOWN]
    ]  # fmt: skip
    return few(lines, len(units))


def _nodes(units: list[Unit]) -> list[Value]:
    return [z for unit in units for z in unit.nodes]


def _so_many(units: list[Unit], n: int, op: str, layer: str | int) -> str:
    """Such as "2 of 4 relu units of layer 0 are"."""
    return f"{len(units):,} of {count(n, f'{op} unit')} of {_layer_name(layer)} {'is' if len(units) == 1 else 'are'}"


def saturated(subject: Subject) -> list[Finding]:
    """Sigmoid and tanh units that are flat for each sample, layers of which half is, and answers that are wrong so."""
    found = []
    for op in SATURATING:
        for layer, units in _units(subject, op).items():
            nodes = _nodes(units)
            flat = {z for z in nodes if _keeps_gradient(subject, z)}
            whole = [unit for unit in units if len(unit.nodes) > 1 and flat.issuperset(unit.nodes)]
            values = _nodes(whole) or [z for z in nodes if z in flat]
            if whole:
                text = f"{_so_many(whole, len(units), op, layer)} saturated for every input"
                lines = [f"{unit.name}: {subject.where(unit.nodes[0])}" for unit in whole[:SHOWN]]
                found.append(_about_saturated(subject, text, few(lines, len(whole)), values))
            elif values and (2 * len(flat) >= len(nodes) or not flat <= subject.flow.inner):
                verb = "is" if len(flat) == 1 else "are"
                text = f"{len(flat):,} of {count(len(nodes), op)} of {_layer_name(layer)} {verb} saturated"
                trouble = 2 * len(flat) >= len(nodes) or _keep_all(subject, flat)
                found.append(_about_saturated(subject, text, subject.listed(values), values, trouble))
    return found


def _keeps_gradient(subject: Subject, z: Value) -> bool:
    """Whether it has hardly any derivative; and if it is an answer, the loss wants another and can't make up for that.

    But where much comes back past it, as in silu(x) = x·sigmoid(x), it keeps nothing from the weights.
    """
    d = abs(partials_as_numbers(z)[0])
    if d >= FLAT:
        return False
    _, weighted = subject.flow.sums.get(z.inputs[0], (z, z.inputs[0]))
    g = abs(subject.adjoint.get(z, 0.0))
    came = subject.flow.came_back
    if came.get(weighted, 0.0) > FLAT * g or came.get(z.inputs[0], 0.0) > 2 * max(g, came.get(z, 0.0)) * d:
        return False
    return z in subject.flow.inner or (not subject.flow.is_content(z) and subject.alike(z) * g * d < FLAT)


def _keep_all(subject: Subject, flat: set[Value]) -> bool:
    """Whether hardly anything comes back to any leaf of what came to them."""
    return subject.flow.largest < FLAT * max([abs(subject.adjoint.get(z, 0.0)) for z in flat])


def _about_saturated(
    subject: Subject, text: str, lines: list[str], nodes: list[Value], trouble: bool = True
) -> Finding:
    d = max(abs(partials_as_numbers(z)[0]) for z in nodes)
    slope = f"at most {subject.number(d)} there, so hardly any" if d else "0 there, so no"
    advice = (
        f"The derivative is {slope} gradient comes back. Scale the inputs, start with smaller weights, or use another "
        "activation."
    )
    return Finding("saturated", text, lines, advice, nodes, trouble)
