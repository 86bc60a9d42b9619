"""What comes back to the parameters: too much, too little, nothing, or not only this loss's.

Parameters are judged by layer, with the gradient that this loss gives, whatever their `.grad` holds.

    adjoint  ∂loss/∂x: what `.grad` would be after one backward of this loss alone
    layer    parameters that belong together: one Parameter of the model, or else leaves that are used alike
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from milligrad.draw.model import count
from milligrad.engine import Value
from milligrad.explain.document import SHOWN, Finding, Table, few
from milligrad.explain.paths import paths
from milligrad.explain.subject import Subject, close
from milligrad.markup import printable
from milligrad.typing import Any

VANISHED = 1e-4
"""With so small a part of the largest layer's gradient, a layer learns 10,000 times more slowly by plain SGD. It
is reported only beside layers that learn: what is small everywhere is a matter of the learning rate."""
EXPLODED = 1e3
"""With such a gradient a step at a learning rate of 0.001 changes every parameter by 1, or, where they are larger, by
their own size."""

CANCELLED = 1e-6
"""Where the sum of all paths is such a small part of a single one, the parts cancel each other, as in a minimum."""


@dataclass
class Layer:
    """Parameters that belong together.

    weight, gradient:  root mean squares of their numbers, and of the adjoints of those that the loss reaches
    verdict:           "exploded", "vanished", "zero" or ""; "" too where large parts of a gradient cancel each other
    """

    name: str
    values: list[Value]
    weight: float
    gradient: float
    verdict: str = ""


def layers_of(subject: Subject) -> list[Layer]:
    """The parameters of the model that the loss reaches; without a model the trainable leaves, by their use."""
    adjoint = subject.adjoint
    if subject.model is not None:
        groups = [(printable(path, 60), p.values()) for path, p in subject.model.named_parameters()]
    else:
        leaves = [group for group in subject.groups if group[0].op is None and group[0].requires_grad]
        groups = [(subject.name(g[0]) + f" and {len(g) - 1:,} like it" * (len(g) > 1), g) for g in leaves]
    layers = [
        Layer(name, values, _rms([x.data for x in values]), _rms([adjoint[x] for x in reached]))
        for name, values in groups
        if (reached := [x for x in values if x in adjoint])
    ]
    for layer in layers:
        if layer.gradient > EXPLODED * max(1.0, layer.weight):
            layer.verdict = "exploded"
    largest = max((layer.gradient for layer in layers if not layer.verdict), default=0.0)
    for layer in layers:
        if not layer.verdict and layer.gradient < VANISHED * largest:
            layer.verdict = "vanished"
        if not layer.gradient:
            layer.verdict = "zero"
        if layer.verdict in ("zero", "vanished") and _cancels(subject, layer, VANISHED * largest):
            layer.verdict = ""
    return layers


def _cancels(subject: Subject, layer: Layer, little: float) -> bool:
    """Whether much comes back on a single path, and only the sum of all is so small: then the layer is at rest."""
    leaf = _strongest(subject, layer)
    _, [path] = paths(leaf, subject.loss, 1)
    return abs(path.product) > max(little, abs(subject.adjoint[leaf]) / CANCELLED)


def _strongest(subject: Subject, layer: Layer) -> Value:
    """The leaf with the largest gradient."""
    return max((x for x in layer.values if x in subject.adjoint), key=lambda x: abs(subject.adjoint[x]))


def _rms(xs: Sequence[float]) -> float:
    return math.hypot(*xs) / math.sqrt(len(xs))


def table(subject: Subject, layers: Sequence[Layer]) -> Table:
    """All layers, in the order of the model."""
    number = subject.number
    rows = [(a.name, f"{len(a.values):,}", number(a.weight), number(a.gradient), a.verdict) for a in layers]
    return Table(
        "gradients", ("parameter", "numbers", "weight (rms)", "gradient (rms)", "verdict"), rows, right=(1, 2, 3)
    )


def exploded(subject: Subject, layers: Sequence[Layer]) -> list[Finding]:
    """Layers that one step of an optimizer would throw far away."""
    advice = (
        "A step of the optimizer throws the parameters far away. Scale inputs and targets to about 1, begin with "
        "smaller weights, lower the learning rate, or limit the step with clip_grad_norm_."
    )
    return _about_gradients(subject, layers, "exploded", "The gradient explodes in", max, advice)


def vanished(subject: Subject, layers: Sequence[Layer]) -> list[Finding]:
    """Layers whose gradient is tiny beside that of the others."""
    advice = (
        "These parameters hardly learn. relu in place of sigmoid or tanh, a normalisation, fewer layers, or a sum past "
        "them (x + f(x)) keeps the gradient alive."
    )
    return _about_gradients(subject, layers, "vanished", "The gradient vanishes in", min, advice)


def _about_gradients(
    subject: Subject, layers: Sequence[Layer], kind: str, what: str, extreme: Callable[..., Any], advice: str
) -> list[Finding]:
    """One finding for the layers of this verdict; `extreme`, min or max, says what is worst."""
    bad = [layer for layer in layers if layer.verdict == kind]
    if not bad:
        return []
    worst = extreme(bad, key=lambda layer: layer.gradient)
    names = ", ".join(layer.name for layer in bad[:3]) + f" and {len(bad) - 3:,} more" * (len(bad) > 3)
    lines = [f"{a.name}: {subject.number(a.gradient)} (root mean square)" for a in bad[:SHOWN]]
    step, route = _where(subject, worst, extreme)
    return [Finding(kind, f"{what} {names}", [*few(lines, len(bad)), route], advice, [step])]


def _where(subject: Subject, layer: Layer, extreme: Callable[..., Any]) -> tuple[Value, str]:
    """Which operation shrinks or swells it most, on the strongest path from the layer's strongest leaf to the loss."""
    leaf = _strongest(subject, layer)
    _, [path] = paths(leaf, subject.loss, 1)
    steps: dict[str, list[tuple[float, Value]]] = {}
    for z, d in zip(path.nodes[1:], path.derivatives, strict=True):
        steps.setdefault(z.op.name, []).append((abs(d), z))  # type: ignore[union-attr]
    op = extreme(steps, key=lambda op: sum(math.log(d) if d else -math.inf for d, _ in steps[op]))
    d, z = extreme(steps[op], key=lambda step: step[0])
    product = subject.number(math.prod(d for d, _ in steps[op]))
    n, side = len(steps[op]), "largest" if extreme is max else "smallest"
    return z, (
        f"On the strongest path from {subject.name(leaf)} to the loss, {count(n, 'step')} of {op} "
        f"{'multiplies' if n == 1 else 'multiply'} it by {product}; the {side} is {subject.number(d)}, of "
        f"{subject.where(z)}"
    )


def zero(layers: Sequence[Layer]) -> list[Finding]:
    """What the loss reaches, but with a derivative of exactly 0."""
    bad = [(layer.name, layer.values) for layer in layers if layer.verdict == "zero"]
    advice = (
        "Every path from there to the loss has a factor of 0: a relu that is off, a weight of 0, a clamp at its bound, "
        "a where() that chose the other. explain(loss, wrt=…) of one of them shows which."
    )
    return _named("zero gradient", "reached, but the gradient is exactly 0", bad, advice)


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
    for path, parameter in subject.model.named_parameters() if subject.model is not None else ():
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


def _named(
    kind: str, what: str, named: list[tuple[str, list[Value]]], advice: str, trouble: bool = True
) -> list[Finding]:
    if not named:
        return []
    lines = [f"{printable(path, 60)}: {count(len(values), 'number')}" for path, values in named]
    text = f"{count(len(named), 'parameter')} {'are' if len(named) > 1 else 'is'} {what}"
    return [Finding(kind, text, few(lines, len(named)), advice, [x for _, values in named for x in values], trouble)]


def accumulated(subject: Subject) -> list[Finding]:
    """Whether each leaf's `.grad` is what this loss gives; and if not, what else is in it."""
    runs, name = subject.loss.grad, subject.name(subject.loss)
    leaves = [x for x in subject.adjoint if x.op is None and x is not subject.loss]
    if subject.fresh:
        return []
    if not runs:
        return [_not_run(subject, name, [x for x in leaves if x.grad])]
    expected = {x: runs * subject.adjoint[x] for x in leaves}
    if any(not close(x.grad, g) for x, g in expected.items()):
        return [_others(subject, expected)]
    if runs == 1:
        return []
    if runs < 2 or runs % 1:
        text = f"backward() began with {name}.grad = {subject.number(runs)}: every gradient is that many times as large"
        return [Finding("scaled", text, trouble=False)]
    text = f"The gradients were accumulated: backward() ran {runs:g} times on {name}"
    advice = "Gradients add up. Call backward() once for each loss, and zero_grad() before it."
    return [Finding("accumulated", text, _compared(subject, leaves), advice, leaves)]


def _not_run(subject: Subject, name: str, held: list[Value]) -> Finding:
    """Nothing can be compared yet; but what is held already will be added to."""
    text = f"{name}.backward() has not run yet"
    if not held:
        return Finding("no backward", f"{text}: each .grad is 0", trouble=False)
    text += f", but {count(len(held), '.grad')} {'is' if len(held) == 1 else 'are'} not 0"
    lines = few([_grad(subject, x) for x in held[:SHOWN]], len(held))
    advice = "They are of an earlier loss: call zero_grad() before backward(), or they will add up."
    return Finding("no backward", text, lines, advice, held, trouble=False)


def _others(subject: Subject, expected: dict[Value, float]) -> Finding:
    """Of gradients that are not this loss's alone: all of them times one number, or something was added to them."""
    factor = next((x.grad / g for x, g in expected.items() if g), math.nan)
    common = all(math.isclose(x.grad, factor * g, rel_tol=1e-6) for x, g in expected.items())
    off = [x for x, g in expected.items() if not close(x.grad, g)]
    if common and not factor:
        return Finding("zeroed", "zero_grad() ran after backward(): each .grad is 0", trouble=False)
    if common and 0 < factor < 1:
        text = f"Each .grad is {subject.number(factor)} times what this loss gives: clipped or scaled"
        return Finding("scaled", text, _compared(subject, off), "", off, trouble=False)
    times = f"{subject.number(factor)} times" if common else "not"
    verb = "is" if len(off) == 1 else "are"
    text = f"The gradients were accumulated: {count(len(off), '.grad')} {verb} {times} what this loss gives"
    advice = "Something is left of an earlier backward(): call zero_grad() before it, unless losses are to add up."
    return Finding("accumulated", text, _compared(subject, off), advice, off)


def _grad(subject: Subject, x: Value) -> str:
    return f"{subject.name(x)}.grad is {subject.number(x.grad)}"


def _compared(subject: Subject, leaves: Sequence[Value]) -> list[str]:
    gives = [f"{_grad(subject, x)}; this loss gives {subject.number(subject.adjoint[x])}" for x in leaves[:SHOWN]]
    return few(gives, len(leaves))
