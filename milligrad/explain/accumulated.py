"""Whether each `.grad` holds what this loss gives, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence

from milligrad.engine import Value
from milligrad.explain.document import SHOWN, Finding, few
from milligrad.explain.subject import Subject, close
from milligrad.markup import count


def accumulated(subject: Subject) -> list[Finding]:
    """Whether each `.grad`, of the parameters if there is a model, is what this loss gives; if not, what is in it."""
    loss = subject.loss
    leaves = [x for x in subject.order if x.op is None and x is not loss and x in subject.adjoint]
    leaves = [x for x in leaves if x in subject.places] if subject.parameters else leaves
    if subject.fresh:
        return []
    off = [x for x in leaves if not close(x.grad, subject.adjoint[x])]
    if not loss.grad:
        return [_not_run(subject, [x for x in leaves if x.grad])]
    if not off:
        return []
    factor = _factor(subject, leaves)
    if all(math.isclose(x.grad, factor * subject.adjoint[x], rel_tol=1e-6) for x in leaves):
        return [_scaled(subject, factor, off, alone=len(leaves) == 1)]
    verb = "is" if len(off) == 1 else "are"
    if _are_limited(subject, leaves, off):
        text = f"{count(len(off), '.grad')} {verb} smaller than this loss gives: limited by clip_grad_value_, or zeroed"
        return [Finding("scaled", text, _compared(subject, off), "", off, trouble=False)]
    text = f"The gradients were accumulated: {count(len(off), '.grad')} {verb} not what this loss gives"
    return [Finding("accumulated", text, _compared(subject, off), ADDED, off)]


def _factor(subject: Subject, leaves: list[Value]) -> float:
    """How many times what the loss gives the largest gradient is: a whole number, if only rounding is between."""
    x = max(leaves, key=lambda x: abs(subject.adjoint[x]))
    factor = x.grad / (subject.adjoint[x] or math.nan)
    return float(round(factor)) if math.isfinite(factor) and close(factor, round(factor)) else factor


def _are_limited(subject: Subject, leaves: list[Value], off: list[Value]) -> bool:
    """Whether each that is not right is smaller: 0, or the largest size that any has."""
    limit = max(abs(x.grad) for x in leaves)
    ratios = [x.grad / (subject.adjoint[x] or math.nan) for x in off]
    return all(0 <= ratio < 1 and abs(x.grad) in (0, limit) for ratio, x in zip(ratios, off))


ADDED = (
    "Something else was added: an earlier backward(), if zero_grad() was not called before this one; or the rest of a "
    "larger loss, of which this is a part. That is as it should be if losses are to add up."
)


def _not_run(subject: Subject, held: list[Value]) -> Finding:
    """Nothing can be compared yet; but what is held already will be added to."""
    text = f"{subject.name(subject.loss)}.backward() has not run yet"
    if not held:
        return Finding("no backward", f"{text}: each .grad is 0", trouble=False)
    text += f", but {count(len(held), '.grad')} {'is' if len(held) == 1 else 'are'} not 0"
    lines = few([_grad(subject, x) for x in held[:SHOWN]], len(held))
    advice = "They are of an earlier loss: call zero_grad() before backward(), or they will add up."
    return Finding("no backward", text, lines, advice, held, trouble=False)


def _scaled(subject: Subject, factor: float, off: list[Value], alone: bool) -> Finding:
    """Of gradients that are all of this loss, times one number; or of a single one, of which one cannot know."""
    loss, name, times = subject.loss, subject.name(subject.loss), subject.apart(factor, 1.0)[0]
    lines = _compared(subject, off)
    begun = close(factor, loss.grad)  # as backward began with it: by its argument, or on what was computed of the loss
    if not factor:
        return Finding("zeroed", "zero_grad() ran after backward(): each .grad is 0", trouble=False)
    if begun and (factor < 0 or factor % 1):
        text = f"Each .grad is {times} times what {name} gives, as backward began with {name}.grad = {times}"
        return Finding("scaled", text, lines, "", off, trouble=False)
    if 0 < factor < 1:
        text = f"Each .grad is {times} times what {name} gives: scaled or clipped"
        advice = "If it was not, something is left of an earlier backward(): call zero_grad() before it." * alone
        return Finding("scaled", text, lines, advice, off, trouble=False)
    text = f"The gradients were accumulated: each .grad is {times} times what {name} gives"
    text += f", as if backward() ran {times} times" * begun
    return Finding("accumulated", text, lines, ADDED, off)


def _grad(subject: Subject, x: Value) -> str:
    return f"{subject.name(x)}.grad is {subject.number(x.grad)}"


def _compared(subject: Subject, leaves: Sequence[Value]) -> list[str]:
    pairs = [(subject.name(x), *subject.apart(x.grad, subject.adjoint[x])) for x in leaves[:SHOWN]]
    return few([f"{name}.grad is {has}; this loss gives {gives}" for name, has, gives in pairs], len(leaves))
