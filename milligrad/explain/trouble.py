"""What is wrong with a loss, where, why, and what to do about it: checks of its numbers, its units and its gradients.

A check looks for one kind of trouble and returns findings. The first cause comes first: where numbers are no numbers,
what follows from that is not reported as well. What counts as trouble is decided by the few numbers below, each with
its reason.

    adjoint   ∂loss/∂x: what `.grad` would be after one backward of this loss alone
    birth     where a number stopped being one: NaN or inf, made of numbers that were still all right
    unit      the activations that share their weights: one neuron, seen once for each sample of a batch
    layer     units, or parameters, that belong together: by the model's names, or else by their place in the graph
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from milligrad.draw.model import by_layer, count
from milligrad.engine import Value, adjoints, partials_as_numbers, place
from milligrad.explain.document import Block, Explanation, Finding, Paragraph, Table
from milligrad.explain.paths import paths
from milligrad.explain.subject import Subject, close, derivatives_of, is_computed
from milligrad.typing import Any

SHOWN = 5  # examples of one finding; the rest is counted
FLAT = 1e-3
"""A sigmoid or tanh with a smaller derivative is saturated: it passes less than a thousandth on. sigmoid(±6.9) and
tanh(±4.15) do; a layer at its start is far from there."""
MOST = 0.75
"""A relu that is 0 for a whole batch may be so by chance: deep in a network at its start all samples look alike, and
half of the units are off. It is trouble if such a share of a layer is."""
ENOUGH = 4
"""And so many samples are needed to say so."""
FAR = 10
"""It is trouble, too, if a unit's largest input is so many times as far below 0 as the inputs of its layer usually lie
from 0: it did not get there by chance."""
VANISHED = 1e-4
"""With so small a part of the largest layer's gradient, a layer learns 10,000 times more slowly by plain SGD. Ten layers
of tanh at their start lie between 1 and 0.001."""
EXPLODED = 1e3
"""With such a gradient a step at a learning rate of 0.001 changes every parameter by 1, or by as much as it is."""

CHECKED = (
    "NaN and inf, forward and backward; derivatives that do not exist; relus that are never on; saturated sigmoids and "
    "tanhs; vanished and exploded gradients; parameters without a gradient; gradients that were added up"
)


@dataclass
class Case:
    """The loss that is looked at, with its gradient as far as there is one.

    adjoint:  of each Value; empty if the loss is a constant, or backward would raise an error
    missing:  the Values that have no derivative, and why
    """

    subject: Subject
    adjoint: dict[Value, float] = field(default_factory=dict)
    missing: list[tuple[Value, str]] = field(default_factory=list)

    @classmethod
    def of(cls, subject: Subject) -> Case:
        missing = subject.without_derivative()
        differentiable = subject.loss.requires_grad and not missing
        adjoint = adjoints({subject.loss: 1.0}, partials_as_numbers) if differentiable else {}
        return cls(subject, adjoint, missing)

    def where(self, z: Value) -> str:
        """A Value with its numbers and its line."""
        return f"{self.subject.with_numbers(z)}{f', in {place(z)}' * bool(place(z))}"

    def listed(self, values: Sequence[Value]) -> list[str]:
        """The first few Values, and how many there are more."""
        return _few([self.where(z) for z in values[:SHOWN]], len(values))


def _few(lines: Iterable[str], n: int) -> list[str]:
    """The first lines, and how many more there are of n."""
    shown = [*lines][:SHOWN]
    return [*shown, *[f"and {n - len(shown):,} more like this"] * (n > len(shown))]


def explain_trouble(subject: Subject) -> Explanation:
    """All findings, and with a model a table of its parameters."""
    case = Case.of(subject)
    findings = sorted(_findings(case), key=lambda finding: not finding.trouble)
    blocks: list[Block] = [*findings]
    if not any(finding.trouble for finding in findings):
        blocks.insert(0, Paragraph(f"Looked for {CHECKED}."))
    if subject.model is not None and case.adjoint and all(map(math.isfinite, case.adjoint.values())):
        blocks += [Paragraph("The gradients of this loss, by parameter:"), _table(case)]
    lines = [place(x) for finding in findings if finding.trouble for x in finding.values if x.op is not None]
    if lines and not any(lines):
        blocks.append(Paragraph("The lines of your code are known if the loss is computed within: explain(lambda: …)."))
    return Explanation(f"{subject.value(subject.loss)}: {_verdict(findings)}", blocks, findings=findings)


def explain_failure(finding: Finding) -> Explanation:
    """Of a loss that could not be computed."""
    return Explanation("The loss could not be computed", [finding], total=math.nan, findings=[finding])


def _verdict(findings: Sequence[Finding]) -> str:
    n = sum(finding.trouble for finding in findings)
    return "no trouble found" if not n else "1 thing is wrong" if n == 1 else f"{n} things are wrong"


def _findings(case: Case) -> list[Finding]:
    """In the order of cause and effect: what comes of numbers that are none is not looked at."""
    changed = _changed(case)
    broken = _born(case) or _undefined(case) or _born_backward(case)
    found = [*changed, *broken]
    if not broken:
        units = _dead(case) + _saturated(case)
        found += units + _exploded(case) + _vanished(case)
        found += [] if any(finding.trouble for finding in units) else _zero(case)
    found += _unreached(case)
    return found if broken or changed else found + _accumulated(case)


# Numbers.


def _changed(case: Case) -> list[Finding]:
    """Values that would come out otherwise if they were computed now: an optimizer changed what they were made of."""
    stale = [z for z in case.subject.order if is_computed(z) and not _is_current(z)]
    if not stale:
        return []
    n = f"{len(stale):,} of {count(len(case.subject.order), 'Value')}"
    return [
        Finding(
            "changed",
            f"The numbers changed after the loss was computed: {n} would come out otherwise now",
            _few([f"{case.subject.made(z)} is still {case.subject.number(z.data)}" for z in stale[:SHOWN]], len(stale)),
            "Call explain before optimizer.step(), or compute the loss anew. What is said below of gradients mixes old "
            "numbers with new ones.",
            stale,
        )
    ]


def _is_current(z: Value) -> bool:
    try:
        data = z.op.value(*[x.real for x in z.inputs])  # type: ignore[union-attr]
    except TypeError:
        return True  # of compiled code, which is not a formula of its inputs
    except (ValueError, ArithmeticError):
        return False
    return data == z.data or (data != data and z.data != z.data)


def _born(case: Case) -> list[Finding]:
    """Where NaN and inf came in, or were computed of numbers; and how far they got."""
    bad = [z for z in case.subject.order if not math.isfinite(z.data)]
    if not bad:
        return []
    given = [x for x in bad if not is_computed(x)]
    leaves = [x for x in given if x.requires_grad]
    births = [z for z in bad if is_computed(z) and _is_birth(z)]
    if leaves or births:
        given = leaves  # a constant may have been detached from what became NaN, so it is no cause of its own
    elif math.isfinite(case.subject.loss.data) and all(map(math.isfinite, case.adjoint.values())):
        return []  # such as the -inf of a mask: nothing comes of it
    found = [_came_in(case, kind, [x for x in given if _kind(x) == kind]) for kind in ("inf", "nan")]
    found += [_made(case, kind, [z for z in births if _kind(z) == kind], bad) for kind in ("inf", "nan")]
    return [finding for finding in found if finding is not None]


def _kind(x: Value) -> str:
    return "nan" if x.data != x.data else "inf"


def _is_birth(z: Value) -> bool:
    """Whether the Values among its inputs were still numbers; of NaN, whether none was NaN: inf - inf is one, too."""
    inputs = [x.data for x in z.inputs if type(x) is not float]
    if z.data != z.data:
        return all(x == x for x in inputs)
    return all(map(math.isfinite, inputs)) and not _of_infinite_constant(z)


def _of_infinite_constant(z: Value) -> bool:
    """Whether z is infinite because it was given a number that is, on purpose: a mask is made so."""
    return any(type(x) is float and math.isinf(x) for x in z.inputs)


def _came_in(case: Case, kind: str, given: Sequence[Value]) -> Finding | None:
    if not given:
        return None
    word = "NaN" if kind == "nan" else "infinite"
    who = f"{case.subject.name(given[0])} was" if len(given) == 1 else f"{len(given):,} Values were"
    advice = "Nothing computed it: it came with the data."
    if given[0].requires_grad:
        advice = (
            "Nothing computed it: it came so, or an optimizer's step made it. Look at the steps before: a learning rate "
            "that is too large does that, and clip_grad_norm_ keeps a step small."
        )
    return Finding(kind, f"{who} {word} from the start", case.listed(given), advice, given)


def _made(case: Case, kind: str, births: Sequence[Value], bad: Sequence[Value]) -> Finding | None:
    if not births:
        return None
    ops = sorted({z.op.name for z in births if z.op})
    after = len(bad) - bad.index(births[0]) - len(births)
    spread = f" {count(after, 'Value')} of {len(case.subject.order):,} became NaN or infinite after it." * (after > 0)
    text = f"{'NaN' if kind == 'nan' else 'inf'} was born in {', '.join(ops)}"
    return Finding(kind, text, case.listed(births), _why(kind, births[0]) + spread, births)


def _why(kind: str, z: Value) -> str:
    """What makes of these inputs a number that is none."""
    if kind == "inf":
        return "The result is too large for a float, of which the largest is 1.8e308. Scale the inputs down."
    if any(type(x) is float and x != x for x in z.inputs):
        return "One of its inputs was given as NaN: look where the data comes from."
    if all(math.isfinite(x.real) for x in z.inputs):
        return "A part of it was too large for a float, and inf - inf is no number. Scale the inputs down."
    return "inf - inf, 0 · inf and inf / inf are no numbers: look where the inf came from."


def _undefined(case: Case) -> list[Finding]:
    if not case.missing:
        return []
    values = [z for z, _ in case.missing]
    lines = [f"{case.where(z)}: {why}" for z, why in case.missing[:SHOWN]]
    advice = (
        "backward() stops there with an error. Keep the input away from that point: add a small number, as in "
        "sqrt(x + 1e-12), or choose another branch with where()."
    )
    names = f"{case.subject.name(values[0])} has" if len(values) == 1 else f"{len(values):,} Values have"
    return [Finding("no derivative", f"{names} no derivative", _few(lines, len(values)), advice, values)]


def _born_backward(case: Case) -> list[Finding]:
    """The first adjoints, from the loss back, that are no numbers although all before were."""
    bad = {x for x, g in case.adjoint.items() if not math.isfinite(g)}
    if not bad:
        return []
    lines, values = [], []
    for z in reversed(case.subject.order):
        if not is_computed(z) or z in bad:
            continue
        for x, d in zip(z.inputs, derivatives_of(z)):
            if type(x) is not float and x in bad:
                g = case.adjoint.get(z, 0.0)
                step = f"∂{case.subject.name(z)}/∂{case.subject.name(x)} = {case.subject.number(d)}"
                comes = f"{case.subject.number(g)} came back to it"
                lines.append(
                    f"{case.where(z)}: {step}, and {comes}: {case.subject.number(g)} · {case.subject.factor(d)}"
                )
                values.append(z)
    kind = "nan gradient" if any(math.isnan(case.adjoint[x]) for x in bad) else "inf gradient"
    text = f"On the way back, {count(len(bad), 'gradient')} became {'NaN' if kind[0] == 'n' else 'infinite'}"
    advice = (
        "All numbers of the loss are finite, but a derivative times what came back is not: a product was too large for a "
        "float, or 0 · inf. Keep the inputs away from where the derivative is infinite, or scale the loss down."
    )
    return [Finding(kind, text, _few(lines, len(lines)), advice, values)]


# Units.


@dataclass
class Unit:
    """The Values that one activation computed with the same weights, one for each sample.

    name:   "unit 3 of layer 0" in a model, else the leaf that it is known by
    layer:  what it belongs to: the module's path, or a number without a meaning of its own
    """

    name: str
    layer: str | int
    nodes: list[Value] = field(default_factory=list)


def _units(case: Case, op: str) -> dict[str | int, list[Unit]]:
    """The units of an operation, by layer."""
    nodes = [z for z in case.subject.order if is_computed(z) and z.op.name == op]  # type: ignore[union-attr]
    if not nodes:
        return {}
    layer = {z: i for i, group in enumerate(by_layer(case.subject.loss)) for z in group}
    units: dict[object, Unit] = {}
    for z in nodes:
        leaf = _leaf_of(z)
        module, index = _place(case, leaf)
        key: object = (module, index) if module is not None else leaf or z
        if key not in units:
            name = f"unit {index} of {_layer_name(module)}" if module is not None else case.subject.name(leaf or z)
            units[key] = Unit(name, layer[z] if module is None else module)
        units[key].nodes.append(z)
    layers: dict[str | int, list[Unit]] = {}
    for unit in units.values():
        layers.setdefault(unit.layer, []).append(unit)
    return layers


BEFORE = {"add", "sub", "neg", "identity", "sum", "div"}  # what may stand between the weights and an activation


def _leaf_of(z: Value) -> Value | None:
    """The nearest trainable leaf that z's input is a sum with, or of products with: a bias, or else a weight."""
    queue = [x for x in z.inputs if isinstance(x, Value)]
    for y in queue:  # which grows meanwhile
        if not is_computed(y):
            continue
        assert y.op is not None
        for x in y.inputs:
            if type(x) is not float and x.op is None and x.requires_grad:
                return x  # type: ignore[no-any-return]
        if y.op.name in BEFORE:
            queue += [x for x in y.inputs if type(x) is not float]
    return None


def _place(case: Case, leaf: Value | None) -> tuple[str | None, str]:
    """The module and the unit that a parameter belongs to: "0.bias[3]" and "0.weight[3][1]" to unit 3 of module 0."""
    place = case.subject.places.get(leaf) if leaf is not None else None
    if place is None:
        return None, ""
    parameter, _, index = place.partition("[")
    return parameter.rpartition(".")[0], index.partition("]")[0]


def _layer_name(layer: str | int | None) -> str:
    return "one layer" if isinstance(layer, int) else f"layer {layer}" if layer else "the model"


def _dead(case: Case) -> list[Finding]:
    """Relu units that let nothing through for any sample, so that no gradient comes back to their weights."""
    found = []
    for layer, units in _units(case, "relu").items():
        samples = min(len(unit.nodes) for unit in units)
        dead = [unit for unit in units if all(z.data == 0 for z in unit.nodes)]
        if not dead or (samples < 2 and len(dead) < len(units)):
            continue
        usual = median(abs(_input(z)) for unit in units for z in unit.nodes)
        most = len(dead) >= MOST * len(units) and (samples >= ENOUGH or len(dead) == len(units))
        far = [unit for unit in dead if most or max(map(_input, unit.nodes)) < -FAR * usual]
        near = [unit for unit in dead if unit not in far]
        found += [_about_dead(case, layer, units, part, part is far) for part in (far, near) if part]
    return found


def _input(z: Value) -> float:
    return float(z.inputs[0].real)


def _about_dead(case: Case, layer: str | int, units: list[Unit], dead: list[Unit], trouble: bool) -> Finding:
    samples = max(len(unit.nodes) for unit in dead)
    number = case.subject.number
    lines = [
        f"{u.name}: its input lies between {number(min(map(_input, u.nodes)))} and {number(max(map(_input, u.nodes)))}"
        if len(u.nodes) > 1 else f"{u.name}: {case.where(u.nodes[0])}"
        for u in dead[:SHOWN]
    ]  # fmt: skip
    seen = f"all {samples:,} inputs" if samples > 1 else "its only input"
    text = (
        f"{len(dead):,} of {count(len(units), 'relu unit')} of {_layer_name(layer)} {'are' if len(dead) > 1 else 'is'}"
    )
    if trouble:
        text += f" dead: 0 for {seen}"
        advice = (
            "Where relu's input is not positive its derivative is 0: no gradient reaches the weights before it, and it stays "
            "off. A smaller learning rate, another start or LeakyReLU keep it from that."
        )
    else:
        text += f" off for {seen} seen here"
        advice = (
            "No gradient comes back through it. That may be by chance; if more samples never turn it on either, it is "
            "dead."
        )
    return Finding("dead relu", text, _few(lines, len(dead)), advice, [z for u in dead for z in u.nodes], trouble)


def _saturated(case: Case) -> list[Finding]:
    """Sigmoid and tanh units that are flat for each sample, or layers where half of all is."""
    found = []
    for op in ("sigmoid", "tanh"):
        for layer, units in _units(case, op).items():
            flat = _flat(case, [z for unit in units for z in unit.nodes])
            if not flat:
                continue
            n = sum(len(unit.nodes) for unit in units)
            whole = [unit for unit in units if len(unit.nodes) > 1 and flat.issuperset(unit.nodes)]
            if whole or 2 * len(flat) >= n > 1:
                found.append(_about_saturated(case, op, layer, n, flat, whole, len(units)))
    return found


def _flat(case: Case, nodes: list[Value]) -> set[Value]:
    """Those that lose the gradient: what comes back to them is not nothing, and the step after does not make up for it.

    The derivative of binary cross entropy does, by 1 / (p·(1 - p)); and where the answer is right, nothing comes back.
    """
    flat = {z for z in nodes if abs(partials_as_numbers(z)[0]) < FLAT}
    if not flat:
        return flat
    after = dict.fromkeys(flat, 0.0)
    for z in case.subject.order:
        if is_computed(z):
            for x, d in zip(z.inputs, derivatives_of(z)) if not flat.isdisjoint(_values(z.inputs)) else ():
                if x in flat:
                    after[x] = max(after[x], abs(d))
    back = sum(abs(case.adjoint.get(z, 0.0)) for z in nodes)
    return {z for z in flat if after[z] * abs(partials_as_numbers(z)[0]) < FLAT and back >= FLAT}


def _values(inputs: Iterable[object]) -> list[Value]:
    return [x for x in inputs if isinstance(x, Value)]


def _about_saturated(
    case: Case, op: str, layer: str | int, n: int, flat: set[Value], whole: list[Unit], units: int
) -> Finding:
    if whole:
        text = f"{len(whole):,} of {count(units, f'{op} unit')} of {_layer_name(layer)} saturated for every sample"
        nodes = [z for unit in whole for z in unit.nodes]
        lines = [f"{unit.name}: {case.where(unit.nodes[0])}" for unit in whole[:SHOWN]]
    else:
        nodes = [z for z in case.subject.order if z in flat]
        text = f"{len(flat):,} of {n:,} {op}s of {_layer_name(layer)} saturated"
        lines = [case.where(z) for z in nodes[:SHOWN]]
    d = max(abs(partials_as_numbers(z)[0]) for z in nodes)
    advice = (
        f"Their derivatives are at most {case.subject.number(d)}, so hardly any gradient comes back through them. Scale "
        "the inputs, start with smaller weights, or use another activation."
    )
    return Finding("saturated", text, _few(lines, len(whole) or len(nodes)), advice, nodes)


# Gradients.


@dataclass
class Layer:
    """Parameters that belong together, and the root mean squares of their numbers and of the gradients they get."""

    name: str
    values: list[Value]
    weight: float
    gradient: float


def _layers(case: Case) -> list[Layer]:
    """The parameters of the model that the loss reaches; without a model, the trainable leaves, by their use."""
    subject = case.subject
    if subject.model is not None:
        groups = [(path, parameter.values()) for path, parameter in subject.model.named_parameters()]
    else:
        leaves = [g for g in by_layer(subject.loss) if g[0].op is None and g[0].requires_grad]
        groups = [(subject.name(g[0]) + f" and {len(g) - 1:,} like it" * (len(g) > 1), g) for g in leaves]
    return [
        Layer(name, values, _rms([x.data for x in values]), _rms([case.adjoint[x] for x in reached]))
        for name, values in groups
        if (reached := [x for x in values if x in case.adjoint])
    ]


def _rms(xs: Sequence[float]) -> float:
    return math.hypot(*xs) / math.sqrt(len(xs))


def _exploded(case: Case) -> list[Finding]:
    layers = [a for a in _layers(case) if _is_exploded(a)]
    if not layers:
        return []
    worst = max(layers, key=lambda a: a.gradient)
    advice = (
        "A step of the optimizer throws the parameters far away. Scale inputs and targets to about 1, begin with smaller "
        "weights, lower the learning rate, or limit the step with clip_grad_norm_."
    )
    return [_about_gradient(case, "exploded", "The gradient is very large in", layers, worst, max, advice)]


def _is_exploded(layer: Layer) -> bool:
    return layer.gradient > EXPLODED * max(1.0, layer.weight)


def _vanished(case: Case) -> list[Finding]:
    """Layers whose gradient is tiny beside that of the others; which is 0 is another finding."""
    layers = _layers(case)
    largest = max((a.gradient for a in layers if not _is_exploded(a)), default=0.0)
    tiny = [a for a in layers if 0 < a.gradient < VANISHED * largest]
    if not tiny:
        return []
    worst = min(tiny, key=lambda a: a.gradient)
    advice = (
        "These parameters hardly learn. relu in place of sigmoid or tanh, a normalisation, fewer layers, or a sum past "
        "them (x + f(x)) keeps the gradient alive."
    )
    return [_about_gradient(case, "vanished", "The gradient vanishes in", tiny, worst, min, advice)]


def _about_gradient(
    case: Case,
    kind: str,
    what: str,
    layers: list[Layer],
    worst: Layer,
    extreme: Callable[..., Any],
    advice: str,
) -> Finding:
    """Which layers, and on the strongest path from the worst of them: which operation shrinks or swells it most."""
    subject = case.subject
    leaf = max(worst.values, key=lambda x: abs(case.adjoint.get(x, 0.0)))
    _, [path] = paths(leaf, subject.loss, 1)
    factors: dict[str, list[tuple[Value, float]]] = {}
    for z, d in zip(path.nodes[1:], path.derivatives):
        factors.setdefault(z.op.name, []).append((z, abs(d)))  # type: ignore[union-attr]
    steps = extreme(factors.values(), key=lambda pairs: sum(math.log(d) if d else -math.inf for _, d in pairs))
    z, d = extreme(steps, key=lambda pair: pair[1])
    op = z.op.name  # type: ignore[union-attr]
    lines = [f"{a.name}: {subject.number(a.gradient)} on average" for a in layers[:SHOWN]]
    product = subject.number(math.prod(d for _, d in steps))
    route = f"On the strongest path from {subject.name(leaf)} to the loss, {count(len(steps), 'step')} of {op} multipl"
    route += (
        f"{'ies' if len(steps) == 1 else 'y'} it by {product}; the {'largest' if extreme is max else 'smallest'} factor"
    )
    route += f" is {subject.number(d)}, of {case.where(z)}"
    text = (
        f"{what} {', '.join(a.name for a in layers[:3])}{f' and {len(layers) - 3:,} more' if len(layers) > 3 else ''}"
    )
    return Finding(kind, text, [*_few(lines, len(layers)), route], advice, [z])


def _zero(case: Case) -> list[Finding]:
    """What the loss reaches, but with a derivative of exactly 0."""
    layers = [a for a in _layers(case) if a.gradient == 0]
    if not layers:
        return []
    names = [f"{a.name}: {count(len(a.values), 'number')}" for a in layers]
    advice = (
        "Every path from there to the loss has a factor of 0: a relu that is off, a weight of 0, a clamp at its bound, "
        "a where() that chose the other. explain(loss, wrt=…) of one of them shows which."
    )
    text = f"{count(len(layers), 'parameter')} {'get' if len(layers) > 1 else 'gets'} a gradient of exactly 0"
    return [Finding("zero gradient", text, _few(names, len(layers)), advice, [x for a in layers for x in a.values])]


def _unreached(case: Case) -> list[Finding]:
    """Parameters that the loss was not computed of, or not in a way that can be differentiated; frozen ones apart."""
    subject = case.subject
    if not subject.loss.requires_grad:
        advice = (
            "It was computed of constants alone, of frozen parameters, within no_grad, or after detach() or float()."
        )
        return [Finding("constant", f"{subject.name(subject.loss)} is a constant: it has no gradient", (), advice)]
    if subject.model is None:
        return []
    behind = {*subject.order}
    lost, frozen = [], []
    for path, parameter in subject.model.named_parameters():
        values = parameter.values()
        if not any(x.requires_grad for x in values):
            frozen.append((path, values))
        elif behind.isdisjoint(values):
            lost.append((path, values))
    found = []
    if lost:
        advice = (
            "No path leads from them to the loss: forward does not use them, or a detach() or no_grad() cuts it off."
        )
        found.append(_named("unreached", "not reached by the loss", lost, advice))
    if frozen:
        found.append(_named("frozen", "frozen", frozen, "requires_grad is False: they do not learn.", trouble=False))
    return found


def _named(kind: str, what: str, named: list[tuple[str, list[Value]]], advice: str, trouble: bool = True) -> Finding:
    lines = [f"{path}: {count(len(values), 'number')}" for path, values in named]
    text = f"{count(len(named), 'parameter')} {'are' if len(named) > 1 else 'is'} {what}"
    return Finding(kind, text, _few(lines, len(named)), advice, [x for _, values in named for x in values], trouble)


def _accumulated(case: Case) -> list[Finding]:
    """Whether each leaf's `.grad` is what this loss gives; and if not, what else is in it."""
    runs = case.subject.loss.grad
    leaves = [x for x, g in case.adjoint.items() if x.op is None and x.requires_grad and x is not case.subject.loss]
    if not runs:
        return _not_run(case, [x for x in leaves if x.grad])
    if all(close(x.grad, runs * case.adjoint[x]) for x in leaves):
        if runs == 1:
            return []
        if runs < 2 or runs % 1:
            text = f"backward began with {case.subject.number(runs)}, not with 1, and so every gradient is that much larger"
            return [Finding("scaled", text, trouble=False)]
        advice = "Gradients add up. Call backward() once for each loss, and zero_grad() before it."
        text = f"The gradients were accumulated: backward() ran {runs:g} times on this loss"
        return [Finding("accumulated", text, _compared(case, leaves), advice, leaves)]
    return [_other_grads(case, leaves, runs)]


def _not_run(case: Case, held: list[Value]) -> list[Finding]:
    name = case.subject.name(case.subject.loss)
    if not held:
        return [Finding("no backward", f"{name}.backward() has not run yet: each .grad is 0", trouble=False)]
    text = f"{name}.backward() has not run yet, but {count(len(held), '.grad')} hold{'s' * (len(held) == 1)} a gradient"
    advice = "It is of an earlier loss: call zero_grad() before backward(), or they will add up."
    return [Finding("no backward", text, _few([_grad(case, x) for x in held[:SHOWN]], len(held)), advice, held, False)]


def _other_grads(case: Case, leaves: list[Value], runs: float) -> Finding:
    """Gradients that are not this loss's alone: all of them times one number, or with something added to them."""
    factors = [x.grad / g for x in leaves if (g := runs * case.adjoint[x])]
    factor = factors[0] if factors else math.nan
    common = all(math.isclose(x.grad, factor * runs * case.adjoint[x], rel_tol=1e-6) for x in leaves)
    lines = _compared(case, leaves)
    if common and not factor:
        return Finding("zeroed", "zero_grad() ran after backward(): each .grad is 0", trouble=False)
    if common and 0 < factor < 1:
        text = f"Each .grad is {case.subject.number(factor)} times what this loss gives: clipped or scaled"
        return Finding("scaled", text, lines, "", leaves, trouble=False)
    off = [x for x in leaves if not close(x.grad, runs * case.adjoint[x])]
    times = f"{case.subject.number(factor)} times" if common else "not"
    verb = "are" if len(off) > 1 else "is"
    text = f"The gradients were accumulated: {count(len(off), '.grad')} {verb} {times} what this loss gives"
    advice = (
        "Something is left of an earlier backward(): call zero_grad() before it, unless losses are meant to add up."
    )
    return Finding("accumulated", text, _compared(case, off), advice, off)


def _grad(case: Case, x: Value) -> str:
    return f"{case.subject.name(x)}.grad is {case.subject.number(x.grad)}"


def _compared(case: Case, leaves: Sequence[Value]) -> list[str]:
    number = case.subject.number
    return _few(
        [f"{_grad(case, x)}, and this loss gives {number(case.adjoint[x])}" for x in leaves[:SHOWN]], len(leaves)
    )


def _table(case: Case) -> Table:
    largest = max((a.gradient for a in _layers(case) if not _is_exploded(a)), default=0.0)
    rows = []
    for a in _layers(case):
        flag = (
            "exploded" if _is_exploded(a) else "zero" if not a.gradient
            else "vanished" if a.gradient < VANISHED * largest else ""
        )  # fmt: skip
        number = case.subject.number
        rows.append((a.name, f"{len(a.values):,}", number(a.weight), number(a.gradient), flag))
    return Table("gradients", ("parameter", "numbers", "weight (rms)", "gradient (rms)", ""), rows, right=(1, 2, 3))
