"""What comes back to the parameters: too much, too little, or nothing.

Parameters are judged by group, with the gradient that this loss gives, whatever their `.grad` holds.

    adjoint  ∂loss/∂x: what `.grad` would be after one backward of this loss alone
    group    parameters that belong together: one Parameter of the model, or else leaves that are used alike
    stop     a step back to a Value where nothing comes through: its derivative is 0
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from milligrad.engine import Value
from milligrad.explain.document import SHOWN, Finding, Table, few
from milligrad.explain.flow import CANCELLED, derivatives_of, is_computed
from milligrad.explain.paths import paths
from milligrad.explain.subject import Subject
from milligrad.markup import count, short_name
from milligrad.typing import Any

VANISHED = 1e-4
"""With so small a part of the largest group's gradient, or of 1, a group learns 10,000 times more slowly by plain SGD.
It is reported only beside groups that learn: what is small everywhere is a matter of the learning rate."""
FADED = 1e-12
"""But no learning rate makes up for so little."""
EXPLODED = 1e3
"""With such a gradient a step at a learning rate of 0.001 changes every parameter by 1, or, where they are larger, by
their own size."""
HEAVY = 100
"""Larger weights are no excuse: they come from exploded gradients."""
HUGE = 1e6
"""No network has such weights unless a step threw them there."""
LITTLE = "zero", "vanished"
ROWS = 60  # of the table; of more the first and the last


@dataclass
class ParameterGroup:
    """Parameters that belong together.

    weight, gradient:  root mean squares of their numbers, and of the adjoints of those that the loss reaches
    sensitivity:       how much the loss moves with them: the gradient, times the weight where that is above 1
    verdict:           "exploded", "huge", "vanished", "zero", "stationary" or ""
    """

    name: str
    values: list[Value]
    weight: float
    gradient: float
    verdict: str = ""

    @property
    def sensitivity(self) -> float:
        return self.gradient * max(1.0, self.weight)


def parameter_groups(subject: Subject) -> list[ParameterGroup]:
    """The parameters of the model that the loss reaches; without a model the trainable leaves, by their use."""
    adjoint = subject.adjoint
    if subject.parameters:
        named = [(short_name(path, 60), p.values()) for path, p in subject.parameters.items()]
    else:
        leaves = [group for group in subject.groups if group[0].op is None and group[0].requires_grad]
        named = [(subject.name(g[0]) + f" and {len(g) - 1:,} like it" * (len(g) > 1), g) for g in leaves]
    groups = [
        ParameterGroup(name, values, _rms([x.data for x in values]), _rms([adjoint[x] for x in reached]))
        for name, values in named
        if (reached := [x for x in values if x in adjoint])
    ]
    little = _little(groups)
    for group in groups:
        group.verdict = _verdict(subject, group, little)
    if any(group.verdict not in LITTLE for group in groups) or not subject.flow.is_stuck:
        _tell_stationary(subject, [group for group in groups if group.verdict in LITTLE], little)
    return groups


def _verdict(subject: Subject, group: ParameterGroup, little: float) -> str:
    if group.gradient > EXPLODED * min(max(1.0, group.weight), HEAVY):
        return "exploded"
    if subject.parameters and group.weight > HUGE:
        return "huge"
    if not group.gradient:
        return "zero"
    return "vanished" if group.sensitivity < little else ""


def _little(groups: Sequence[ParameterGroup]) -> float:
    """What moves the loss less has vanished: by far less than the strongest does, unless even that has faded."""
    largest = max((group.sensitivity for group in groups), default=0.0)
    return FADED if 0 < largest < FADED else VANISHED * min(1.0, largest)


def _tell_stationary(subject: Subject, groups: Sequence[ParameterGroup], little: float) -> None:
    """Where much came back, and only the sum of all is so small, nothing is wrong: the loss wants no other number."""
    for group in groups:
        if _came_back(subject, group) > max(little, group.gradient / CANCELLED):
            group.verdict = "stationary"


def _came_back(subject: Subject, group: ParameterGroup) -> float:
    return _rms([subject.flow.came_back.get(x, 0.0) for x in group.values if x in subject.adjoint])


def _strongest(subject: Subject, group: ParameterGroup) -> Value:
    """The leaf with the largest gradient."""
    return max((x for x in group.values if x in subject.adjoint), key=lambda x: abs(subject.adjoint[x]))


def _rms(xs: Sequence[float]) -> float:
    return math.hypot(*xs) / math.sqrt(len(xs))


def table(subject: Subject, groups: Sequence[ParameterGroup]) -> Table:
    """All groups, in the order of the model."""
    number = subject.number
    rows = [(a.name, f"{len(a.values):,}", number(a.weight), number(a.gradient), a.verdict) for a in groups]
    if len(rows) > ROWS:
        rows[ROWS // 2 : -ROWS // 2] = [(f"… {len(rows) - ROWS:,} more …", "", "", "", "")]
    return Table(
        "gradients", ("parameter", "numbers", "weight (rms)", "gradient (rms)", "verdict"), rows, right=(1, 2, 3)
    )


def exploded(subject: Subject, groups: Sequence[ParameterGroup]) -> list[Finding]:
    """Groups that one step of an optimizer would throw far away, and those that one has thrown."""
    advice = (
        "A step of the optimizer throws the parameters far away. Scale inputs, targets and what parameters measure to "
        "about 1, begin with smaller weights, lower the learning rate, or limit the step with clip_grad_norm_."
    )
    found = _about_gradients(subject, groups, "exploded", "The gradient explodes in", max, advice)
    huge = [group for group in groups if group.verdict == "huge"]
    if huge:
        lines = few([f"{a.name}: {subject.number(a.weight)} (root mean square)" for a in huge[:SHOWN]], len(huge))
        advice = "A step was too large. Begin anew, with a smaller learning rate or with clip_grad_norm_."
        values = [x for group in huge for x in group.values]
        found.append(Finding("huge weight", f"The numbers of {_names(huge)} are huge", lines, advice, values))
    return found


def vanished(subject: Subject, groups: Sequence[ParameterGroup]) -> list[Finding]:
    """Groups whose gradient is tiny beside that of the others."""
    advice = (
        "These parameters hardly learn. relu in place of sigmoid or tanh, a normalisation, fewer layers, or a sum past "
        "them (x + f(x)) keeps the gradient alive."
    )
    found = _about_gradients(subject, groups, "vanished", "The gradient vanishes in", min, advice)
    return found or _small(subject, groups)


def _small(subject: Subject, groups: Sequence[ParameterGroup]) -> list[Finding]:
    """A note where all gradients are small, and not because the loss is content."""
    largest = max(groups, key=lambda group: group.sensitivity, default=None)
    if largest is None or not 0 < largest.sensitivity < VANISHED or _came_back(subject, largest) >= VANISHED:
        return []
    step, route = _where(subject, largest, min)
    text = f"All gradients are small: the largest is {subject.number(largest.gradient)}, of {largest.name}"
    advice = "A larger learning rate, or Adam, makes up for that. Or let more come back: see where it becomes so small."
    return [Finding("small", text, [route], advice, [step], trouble=False)]


def _about_gradients(
    subject: Subject,
    groups: Sequence[ParameterGroup],
    kind: str,
    what: str,
    extreme: Callable[..., Any],
    advice: str,
) -> list[Finding]:
    """One finding for the groups of this verdict; `extreme`, min or max, says what is worst."""
    bad = [group for group in groups if group.verdict == kind]
    if not bad:
        return []
    worst = extreme(bad, key=lambda group: group.gradient)
    lines = [f"{a.name}: {subject.number(a.gradient)} (root mean square)" for a in bad[:SHOWN]]
    step, route = _where(subject, worst, extreme)
    return [Finding(kind, f"{what} {_names(bad)}", [*few(lines, len(bad)), route], advice, [step])]


def _names(groups: Sequence[ParameterGroup]) -> str:
    return ", ".join(group.name for group in groups[:3]) + f" and {len(groups) - 3:,} more" * (len(groups) > 3)


def _where(subject: Subject, group: ParameterGroup, extreme: Callable[..., Any]) -> tuple[Value, str]:
    """Which operation shrinks or swells it most, on the strongest path from the group's strongest leaf to the loss."""
    leaf = _strongest(subject, group)
    _, [path] = paths(leaf, subject.loss, 1)
    steps: dict[str, list[tuple[float, Value]]] = {}
    for z, d in zip(path.nodes[1:], path.derivatives, strict=True):
        steps.setdefault(z.op.name, []).append((abs(d), z))  # type: ignore[union-attr]
    op = extreme(steps, key=lambda op: sum(math.log(d) if d else -math.inf for d, _ in steps[op]))
    d, z = extreme(steps[op], key=lambda step: step[0])
    product = subject.number(math.prod(d for d, _ in steps[op]))
    n, side = len(steps[op]), "largest" if extreme is max else "smallest"
    which = f"; the {side} is {subject.number(d)}, of" if n > 1 else ":"
    return z, (
        f"On the strongest path from {subject.name(leaf)} to the loss, {count(n, 'step')} of {op} "
        f"{'multiplies' if n == 1 else 'multiply'} it by {product}{which} {subject.where(z)}"
    )


def zero(subject: Subject, groups: Sequence[ParameterGroup], units: Sequence[Finding]) -> list[Finding]:
    """What the loss reaches, but with a derivative of exactly 0; and which steps back make it 0.

    What comes of `units` that were found already is no other trouble.
    """
    new = _without_gradient(subject, {z for finding in units for z in finding.values})
    bad = [(a.name, a.values) for a in groups if a.verdict == "zero" and not new.isdisjoint(a.values)]
    advice = (
        "Nothing comes back through a relu that is off, a factor of 0, a sigmoid or tanh at the end of its range, a "
        "clamp at its bound, or a where() that chose the other one."
    )
    stops = _stops(subject, [x for _, values in bad for x in values])
    first = {subject.layer[z]: (z, x) for z, x in reversed(stops)}  # of each layer one
    lines = few([_stop(subject, z, x) for z, x in [*first.values()][: -SHOWN - 1 : -1]], len(stops))
    if any(_slope(z, x) for z, x in stops):
        advice = "The factors on the way are so small, or so many, that their product is too small for a float."
    return _named("zero gradient", "reached, but the gradient is exactly 0", bad, advice, lines)


def _without_gradient(subject: Subject, known: set[Value]) -> set[Value]:
    """What a step of derivative 0 keeps from the loss; but not where that is a step of what is known, or with it."""
    found: set[Value] = set()
    for z in filter(is_computed, reversed(subject.order)):
        g = subject.adjoint.get(z, 0.0)
        if z in found or (g and z not in known and known.isdisjoint(z.inputs)):
            found.update(x for x, d in zip(z.inputs, derivatives_of(z)) if type(x) is not float and not g * d)
    return found


def _stops(subject: Subject, leaves: Sequence[Value]) -> list[tuple[Value, Value]]:
    """The steps back on which what comes from the loss to these leaves becomes 0."""
    behind = {*leaves}
    stops: dict[tuple[Value, Value], None] = {}  # an ordered set
    for z in filter(is_computed, subject.order):
        inputs = [(x, d) for x, d in zip(z.inputs, derivatives_of(z)) if type(x) is not float and x in behind]
        g = subject.adjoint.get(z, 0.0)
        if inputs and not g:
            behind.add(z)
        stops.update(dict.fromkeys((z, x) for x, d in inputs if g and not g * d))
    return [*stops]


def _slope(z: Value, x: Value) -> float:
    return math.fsum(d for y, d in zip(z.inputs, derivatives_of(z)) if y is x)


def _stop(subject: Subject, z: Value, x: Value) -> str:
    d, number = _slope(z, x), subject.number
    times = f", times {number(subject.adjoint[z])} too small for a float" if d else ""
    return f"∂{subject.name(z)}/∂{subject.name(x)} is {number(d)}{times}, of {subject.where(z)}"


def stationary(groups: Sequence[ParameterGroup]) -> list[Finding]:
    """Groups that the loss would leave as they are."""
    resting = [group for group in groups if group.verdict == "stationary"]
    if not resting:
        return []
    text = f"The gradient of {_names(resting)} is as good as 0, as in a minimum"
    advice = "Much came back, but its parts cancel each other, or the loss is content with the answers they lead to."
    values = [x for group in resting for x in group.values]
    return [Finding("stationary", text, (), advice, values, trouble=False)]


def unreached(subject: Subject) -> list[Finding]:
    """Parameters that the loss was not computed of, or not in a way that can be differentiated; frozen ones apart."""
    if not subject.loss.requires_grad:
        text = f"{subject.name(subject.loss)} is a constant: it has no gradient"
        advice = (
            "It was computed of constants or frozen parameters alone, within no_grad, or after detach() or float()."
        )
        return [Finding("constant", text, (), advice)]
    behind = {*subject.order}
    lost, frozen = [], []
    for path, parameter in subject.parameters.items():
        values = parameter.values()
        if not any(x.requires_grad for x in values):
            frozen.append((path, values))
        elif behind.isdisjoint(values):
            lost.append((path, values))
    cut = "No path leads from there to the loss: forward does not use it, or a detach() or no_grad() cuts it off."
    return [
        *_named("unreached", "not reached by the loss", lost, cut),
        *_named("frozen", "frozen", frozen, "requires_grad is False: it does not learn.", trouble=False),
    ]


def outside(subject: Subject) -> list[Finding]:
    """Leaves that learn, but that no Parameter of the model holds."""
    if not subject.parameters:
        return []
    used: dict[Value, Value] = {}
    for z in filter(is_computed, subject.order):
        for x in z.inputs:
            if type(x) is not float and x.op is None and x.requires_grad and x not in subject.places:
                used.setdefault(x, z)
    if not used:
        return []
    n, values = len(used), [*used]
    text = f"{count(n, 'Value')} that the loss depends on {'are' if n > 1 else 'is'} in no Parameter of the model"
    lines = few([f"{subject.value(x)}, used in {subject.where(used[x])}" for x in values[:SHOWN]], n)
    advice = (
        "model.parameters() does not have what requires a gradient here, so no optimizer of the model trains it. If it "
        "is to learn, make it a Parameter that is an attribute of a Module (layers in a list belong into a ModuleList, "
        "in a dict into a ModuleDict); if it is data, use floats or requires_grad=False."
    )
    return [Finding("not in the model", text, lines, advice, values, trouble=False)]


def _named(
    kind: str,
    what: str,
    named: list[tuple[str, list[Value]]],
    advice: str,
    more: Sequence[str] = (),
    trouble: bool = True,
) -> list[Finding]:
    if not named:
        return []
    lines = few([f"{short_name(path, 60)}: {count(len(values), 'number')}" for path, values in named], len(named))
    text = f"{count(len(named), 'parameter')} {'are' if len(named) > 1 else 'is'} {what}"
    return [Finding(kind, text, [*lines, *more], advice, [x for _, values in named for x in values], trouble)]
