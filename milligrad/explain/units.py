"""Units that pass nothing on: dead relus, saturated sigmoids and tanhs.

One batch cannot prove that a unit is dead, so what may be chance is noted, and only what can hardly be is trouble.

    unit    the activations that share their weights: one neuron, seen once for each sample of a batch
    layer   the units that belong together: by the model's names, or else by their place in the graph
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from milligrad.draw.model import count
from milligrad.engine import Value, partials_as_numbers
from milligrad.explain.document import SHOWN, Finding, few
from milligrad.explain.subject import Subject, is_computed

FLAT = 1e-3
"""A sigmoid or tanh with a smaller derivative is saturated: it passes less than a thousandth on. sigmoid(±6.91) and
tanh(±4.15) do."""
SHARE = 0.75
"""A relu that is 0 for a whole batch may be so by chance: deep in a network at its start all samples look alike, and
half of the units are off. It is trouble if such a share of a layer is."""
ENOUGH = 4
"""And so many samples are needed to say so."""
GAIN = 1e-3
"""An answer that is saturated is wrong if the other end of its range would make the loss of its sample so much smaller.
(Of a mean over n answers each has one nth.)"""
FAR = 10
"""It is trouble, too, if a unit's largest input is so many times as far below 0 as the inputs of its layer usually lie
from 0: it did not get there by chance."""
RANGE = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}


@dataclass(eq=False)
class Unit:
    """The Values that one activation computed with the same weights, one for each sample.

    name:   "unit 3 of layer 0" in a model, else the leaf that it is known by
    layer:  what it belongs to: the module's path, or a number without a meaning of its own
    index:  its place in the layer, if a model says so
    """

    name: str
    layer: str | int
    index: int = 0
    nodes: list[Value] = field(default_factory=list)


def _units(subject: Subject, op: str) -> dict[str | int, list[Unit]]:
    """The units of an operation, by layer."""
    nodes = [z for z in subject.order if is_computed(z) and z.op.name == op]  # type: ignore[union-attr]
    if not nodes:
        return {}
    layer = {z: i for i, group in enumerate(subject.groups) for z in group}
    leaves = subject.near
    units: dict[Value, Unit] = {}
    for z in nodes:
        leaf = leaves.get(z.inputs[0], z)
        if leaf not in units:
            module, index = _place(subject, leaf)
            if module is None:
                units[leaf] = Unit(f"the unit of {subject.name(leaf)}", layer[z])
            else:
                units[leaf] = Unit(f"unit {index} of {_layer_name(module)}", module, int(index))
        units[leaf].nodes.append(z)
    layers: dict[str | int, list[Unit]] = {}
    for unit in sorted(units.values(), key=lambda unit: unit.index):
        layers.setdefault(unit.layer, []).append(unit)
    return layers


def _place(subject: Subject, leaf: Value) -> tuple[str | None, str]:
    """The module and the unit that a parameter belongs to: "0.bias[3]" and "0.weight[3][1]" to unit 3 of module 0."""
    place = subject.places.get(leaf)
    if place is None:
        return None, ""
    parameter, _, index = place.partition("[")
    return parameter.rpartition(".")[0], index.partition("]")[0]


def _layer_name(layer: str | int) -> str:
    return "one layer" if isinstance(layer, int) else f"layer {layer}" if layer else "the model"


def dead(subject: Subject) -> list[Finding]:
    """Relu units that let nothing through for any sample, so that no gradient comes back to their weights."""
    found = []
    for layer, units in _units(subject, "relu").items():
        samples = min(len(unit.nodes) for unit in units)
        off = [unit for unit in units if all(z.data == 0 for z in unit.nodes)]
        whole = len(off) == len(units) > 1
        wanted = len(off) == len(units) and all(map(subject.is_wanted, _nodes(units)))
        if wanted:
            found.append(_about_satisfied(subject, layer, units))
        elif samples == 1 and off and not whole:
            found.append(_about_one_sample(layer, off, len(units)))
        elif off:
            usual = median(abs(_input(z)) for unit in units for z in unit.nodes)
            widespread = whole or (len(off) >= SHARE * len(units) and samples >= ENOUGH)
            surely = [unit for unit in off if widespread or _largest_input(unit) < -FAR * usual]
            perhaps = [unit for unit in off if unit not in surely]
            found += [_about_dead(subject, layer, surely, len(units))] if surely else []
            found += [_about_off(subject, layer, perhaps, len(units))] if perhaps else []
    return found


def _input(z: Value) -> float:
    return float(z.inputs[0].real)


def _largest_input(unit: Unit) -> float:
    return max(map(_input, unit.nodes))


def _about_dead(subject: Subject, layer: str | int, units: list[Unit], n: int) -> Finding:
    samples = len(units[0].nodes)
    seen = f"all {samples:,} samples" if samples > 1 else "the only sample"
    text = f"{_so_many(units, n, 'relu', layer)} dead: relu gives 0 for {seen} of this loss"
    advice = (
        "Where relu's input is not positive its derivative is 0: no gradient reaches the weights before it, and it "
        "stays off. A smaller learning rate, another start or LeakyReLU keep it from that."
    )
    return Finding("dead relu", text, _inputs(subject, units), advice, _nodes(units))


def _about_off(subject: Subject, layer: str | int, units: list[Unit], n: int) -> Finding:
    text = f"{_so_many(units, n, 'relu', layer)} off for all {len(units[0].nodes):,} samples of this loss"
    advice = "No gradient comes back through it from them. That may be chance; if others never turn it on, it is dead."
    return Finding("off", text, _inputs(subject, units), advice, _nodes(units), trouble=False)


def _about_one_sample(layer: str | int, units: list[Unit], n: int) -> Finding:
    text = f"{_so_many(units, n, 'relu', layer)} off for the only sample of this loss"
    advice = "That is usual. Which units are dead shows in the loss of a batch."
    return Finding("off", text, (), advice, _nodes(units), trouble=False)


def _about_satisfied(subject: Subject, layer: str | int, units: list[Unit]) -> Finding:
    nodes = _nodes(units)
    text = (
        f"{count(len(nodes), 'relu')} of {_layer_name(layer)} {'is' if len(nodes) == 1 else 'are'} off, as in a minimum"
    )
    advice = (
        "No gradient comes back through them, and the loss is as small as they can make it. That is right for a hinge "
        "loss: every sample is on its side of the margin. If they are units of a network, they are dead."
    )
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
    """Sigmoid and tanh units that are flat for each sample, or layers of which half is."""
    found = []
    for op in RANGE:
        for layer, units in _units(subject, op).items():
            nodes = _nodes(units)
            flat = _flat(subject, nodes)
            whole = [unit for unit in units if len(unit.nodes) > 1 and flat.issuperset(unit.nodes)]
            if whole:
                text = f"{_so_many(whole, len(units), op, layer)} saturated for every sample"
                lines = [f"{unit.name}: {subject.where(unit.nodes[0])}" for unit in whole[:SHOWN]]
                found.append(_about_saturated(subject, text, few(lines, len(whole)), _nodes(whole)))
            elif 2 * len(flat) >= len(nodes) > 1:
                text = f"{len(flat):,} of {len(nodes):,} {op}s of {_layer_name(layer)} are saturated"
                values = [z for z in nodes if z in flat]
                found.append(_about_saturated(subject, text, subject.listed(values), values))
    return found


def _flat(subject: Subject, nodes: list[Value]) -> set[Value]:
    """Those with hardly any derivative; of a network's answers only those that the loss wants elsewhere."""
    flat = {z for z in nodes if abs(partials_as_numbers(z)[0]) < FLAT}
    if not flat:
        return flat
    answers = flat - subject.inner
    return (flat - answers) | {
        z for z in answers if len(nodes) * _gain(subject, z) >= GAIN and not _is_made_up_for(subject, z)
    }


def _gain(subject: Subject, z: Value) -> float:
    """How much smaller the loss would be, by its slope, with z at the end of its range that the loss wants it at."""
    least, most = RANGE[z.op.name]  # type: ignore[union-attr]
    g = subject.adjoint.get(z, 0.0)
    return g * (z.data - least) if g > 0 else -g * (most - z.data)


def _is_made_up_for(subject: Subject, z: Value) -> bool:
    """Whether the next step is as steep as z is flat: binary cross entropy divides by p·(1 - p)."""
    return bool(subject.steepest.get(z, 0.0) * abs(partials_as_numbers(z)[0]) >= FLAT)


def _about_saturated(subject: Subject, text: str, lines: list[str], nodes: list[Value]) -> Finding:
    d = max(abs(partials_as_numbers(z)[0]) for z in nodes)
    advice = (
        f"The derivative is at most {subject.number(d)} there, so hardly any gradient comes back. Scale the inputs, "
        "start with smaller weights, or use another activation."
    )
    return Finding("saturated", text, lines, advice, nodes)
