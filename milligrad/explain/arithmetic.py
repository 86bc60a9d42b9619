"""Where the arithmetic of a loss breaks: NaN and inf, forward and backward, and derivatives that do not exist.

Only the first NaNs and infinities are listed; those that were computed from them are counted.

    birth   where a number stopped being one: NaN or inf, made of numbers that were still all right
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from milligrad.draw.formulas import ordinals, partial
from milligrad.engine import Reduction, Value, is_current
from milligrad.explain.document import SHOWN, Finding, few
from milligrad.explain.flow import derivatives_of, is_computed
from milligrad.explain.subject import Subject
from milligrad.markup import count, printable
from milligrad.ops import LOG_EPSILON, log


def changed(subject: Subject) -> list[Finding]:
    """Values that would come out otherwise if they were computed now: an optimizer changed what they were made of."""
    stale = [z for z in subject.order if is_computed(z) and not is_current(z)]
    if not stale:
        return []
    n = f"{len(stale):,} of {count(len(subject.order), 'Value')}"
    return [
        Finding(
            "changed",
            f"The numbers changed after the loss was computed: {n} would come out otherwise now",
            few([f"{subject.made(z)} is still {subject.number(z.data)}" for z in stale[:SHOWN]], len(stale)),
            "Call explain before optimizer.step(), or compute the loss anew. What is said below of gradients mixes old "
            "numbers with new ones, and whether they were added up cannot be told.",
            stale,
        )
    ]


def born(subject: Subject) -> list[Finding]:
    """Where NaN and inf came in, or were computed of numbers; and how far they got."""
    bad = [z for z in subject.order if not math.isfinite(z.data)]
    if not bad:
        return []
    given = [x for x in bad if not is_computed(x)]
    leaves = [x for x in given if x.requires_grad]
    births = [z for z in bad if is_computed(z) and _is_birth(z)]
    if math.isfinite(subject.loss.data) and all(map(math.isfinite, subject.adjoint.values())):
        births = [z for z in births if all(type(x) is not float or math.isfinite(x) for x in z.inputs)]
        given = []  # what was given as infinite did no harm: a mask is made so
    elif leaves or births:
        given = leaves  # a constant may have been detached from what became NaN, so it is no cause of its own
    found = [_came_in(subject, kind, [x for x in given if _kind(x) == kind], bad) for kind in ("inf", "nan")]
    found += [_made(subject, kind, [z for z in births if _kind(z) == kind], bad) for kind in ("inf", "nan")]
    return [finding for finding in found if finding is not None]


def _kind(x: Value) -> str:
    return "nan" if x.data != x.data else "inf"


def _is_birth(z: Value) -> bool:
    """Whether the Values among its inputs were still numbers; of NaN, whether none was NaN: inf - inf is one, too."""
    inputs = [x.data for x in z.inputs if type(x) is not float]
    return all(x == x for x in inputs) if z.data != z.data else all(map(math.isfinite, inputs))


def _came_in(subject: Subject, kind: str, given: Sequence[Value], bad: Sequence[Value]) -> Finding | None:
    if not given:
        return None
    word = "NaN" if kind == "nan" else "infinite"
    who = f"{subject.name(given[0])} was" if len(given) == 1 else f"{len(given):,} Values were"
    advice = "Nothing computed it: it came with the data."
    if given[0].requires_grad:
        advice = (
            "Nothing computed it: it came so, or an optimizer's step made it. Look at the steps before: a learning "
            "rate that is too large does that, and clip_grad_norm_ keeps a step small."
        )
    return Finding(kind, f"{who} {word} already", subject.listed(given), advice + _spread(subject, given, bad), given)


def _made(subject: Subject, kind: str, births: Sequence[Value], bad: Sequence[Value]) -> Finding | None:
    if not births:
        return None
    ops = sorted({z.op.name for z in births if z.op})
    text = f"{'NaN' if kind == 'nan' else 'inf'} was born in {', '.join(ops)}"
    why = _why(subject, kind, births[0]) + _spread(subject, births, bad)
    return Finding(kind, text, subject.listed(births), why, births)


def _spread(subject: Subject, first: Sequence[Value], bad: Sequence[Value]) -> str:
    """How many Values after the first ones are no numbers, either."""
    n = len(bad) - [x is first[0] for x in bad].index(True) - len(first)
    return f" {n:,} of {count(len(subject.order), 'Value')} became NaN or infinite after that." * (n > 0)


def _why(subject: Subject, kind: str, z: Value) -> str:
    """What makes of these inputs a number that is none."""
    given = [i for i, x in enumerate(z.inputs) if type(x) is float and not math.isfinite(x)]
    if given and (kind == "inf" or any(math.isnan(z.inputs[i]) for i in given)):
        return f"{_which(subject, z, given)} was given so: look where the data comes from."
    if kind == "inf":
        divided = z.op.name in ("div", "power")  # type: ignore[union-attr]
        advice = "Keep the divisor away from 0, and powers low." if divided else "Scale the inputs down."
        return f"The result is too large for a float, of which the largest is 1.8e308. {advice}"
    infinite = [i for i, x in enumerate(z.inputs) if math.isinf(x.real)]
    if not infinite:
        return "A part of it was too large for a float, and inf - inf is no number. Scale the inputs down."
    return (
        f"inf - inf, 0 · inf and inf / inf are no numbers: look where the inf came from. "
        f"{_which(subject, z, infinite)} is infinite."
    )


def logs_of_zero(subject: Subject) -> list[Finding]:
    """Each log that met an exact 0, for which it takes LOG_EPSILON: trouble if the loss depends on it."""
    met = [z for z in subject.order if is_computed(z) and z.op is log and not z.inputs[0].real]
    matter = [z for z in met if subject.adjoint.get(z, math.nan)]
    harmless = [z for z in met if not subject.adjoint.get(z, math.nan)]
    return [_about_logs(subject, logs, trouble) for logs, trouble in ((matter, True), (harmless, False)) if logs]


def _about_logs(subject: Subject, logs: Sequence[Value], trouble: bool) -> Finding:
    number = subject.number
    least, value, slope = map(number, (LOG_EPSILON, math.log(LOG_EPSILON), 1 / LOG_EPSILON))
    text = f"{count(len(logs), 'log')} met an exact 0"
    advice = (
        f"log(0) is taken for log({least}) = {value}, with the derivative {slope}: the result is not what the formula "
        "says. "
    )
    advice += (
        "If a probability became 0, compute its logarithm without it: by log_softmax, log_sigmoid or logsumexp, or by "
        "a loss that takes logits."
        if trouble
        else "The loss does not move with it: it is multiplied by 0, or where() chose the other one."
    )
    return Finding("log of 0", text, subject.listed(logs), advice, logs, trouble)


def unused(subject: Subject) -> list[Finding]:
    """Parameters of the model that are no numbers, though this loss is not computed of them."""
    used = {*subject.order}
    bad = [x for x in subject.places if x not in used and not math.isfinite(x.data)]
    if not bad:
        return []
    who = f"{subject.places[bad[0]]} is" if len(bad) == 1 else f"{count(len(bad), 'number')} of the model are"
    lines = few([f"{subject.places[x]} = {subject.number(x.data)}" for x in bad[:SHOWN]], len(bad))
    advice = "This loss is not computed of it. An optimizer's step made it, or it came so."
    return [Finding(_kind(bad[0]), f"{printable(who, 60)} NaN or infinite", lines, advice, bad)]


def _which(subject: Subject, z: Value, found: Sequence[int]) -> str:
    """Such as "Element [12] of its list (v7 = inf and 3 more)": where the first of these inputs stands."""
    x = z.inputs[found[0]]
    told = subject.number(x) if type(x) is float else subject.value(x)
    return f"{_place_among(z, found[0])} ({told}{f' and {len(found) - 1:,} more' * (len(found) > 1)})"


def _place_among(z: Value, i: int) -> str:
    """Where the input of a number stands: "Element [3] of its second list", or "Its input [0]"."""
    if not isinstance(z.op, Reduction):
        return f"Its input [{i}]"
    which, i = divmod(i, len(z.inputs) // z.op.lists)
    return f"Element [{i}] of its {('first ', 'second ')[which] * (z.op.lists > 1)}list"


def undefined(subject: Subject) -> list[Finding]:
    """Where backward would raise an error."""
    if not subject.missing:
        return []
    values = [z for z, _ in subject.missing]
    lines = [f"{subject.where(z)}: {why}" for z, why in subject.missing[:SHOWN]]
    who = f"{subject.name(values[0])} has" if len(values) == 1 else f"{len(values):,} Values have"
    advice = (
        "backward() stops there with an error. Keep the input away from that point: add a small number, as in "
        "sqrt(x + 1e-12), or choose another branch with where()."
    )
    return [Finding("no derivative", f"{who} no derivative", few(lines, len(values)), advice, values)]


def born_backward(subject: Subject) -> list[Finding]:
    """The first adjoints, from the loss back, that are no numbers although all before were."""
    bad = {x for x, g in subject.adjoint.items() if not math.isfinite(g)}
    if not any(not is_computed(x) for x in bad):
        return []  # on the way a 0 took away what was infinite
    values, lines = [], []
    for z in reversed(subject.order):
        if not is_computed(z) or z in bad:
            continue
        for x, d, which in zip(z.inputs, derivatives_of(z), ordinals(z.inputs)):
            if type(x) is not float and x in bad:
                values.append(z)
                lines.append(_step_back(subject, z, x, d, which))
    is_nan = any(math.isnan(subject.adjoint[x]) for x in bad)
    text = f"On the way back {count(len(bad), 'gradient')} became {'NaN' if is_nan else 'infinite'}"
    advice = (
        "All numbers of the loss are finite, but derivatives times what came back are not: a product or a sum of them "
        "was too large for a float, or inf - inf. Keep the inputs away from where a derivative is infinite, or scale "
        "the loss down. where() keeps such a derivative away in the branch that is not taken."
    )
    return [Finding("nan gradient" if is_nan else "inf gradient", text, few(lines, len(lines)), advice, values)]


def _step_back(subject: Subject, z: Value, x: Value, derivative: float, which: str) -> str:
    name, number = subject.name, subject.number
    came = f"{number(subject.adjoint.get(z, 0.0))}, which came back to {name(z)}"
    return f"{subject.where(z)}: {partial(name(z), name(x), which)} = {number(derivative)} times {came}"
