"""What is wrong with a loss: all checks, the first cause first, as one Explanation.

Where numbers are no numbers, what follows from that is not reported as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from milligrad.engine import place
from milligrad.explain.accumulated import accumulated
from milligrad.explain.arithmetic import born, born_backward, changed, logs_of_zero, undefined, unused
from milligrad.explain.document import SHOWN, Block, Explanation, Finding, Paragraph, few
from milligrad.explain.gradients import (
    ParameterGroup,
    exploded,
    outside,
    parameter_groups,
    stationary,
    table,
    unreached,
    vanished,
    zero,
)
from milligrad.explain.subject import Subject
from milligrad.explain.units import dead, saturated
from milligrad.markup import count

LAYERS = 4  # of a deep network so many are told one by one
CHECKED = (
    "NaN and inf, forward and backward; derivatives that do not exist; logarithms of 0; relus that are never on; "
    "saturated sigmoids and tanhs; vanished and exploded gradients of parameters; parameters without a gradient"
)


def explain_trouble(subject: Subject) -> Explanation:
    """All findings, and with a model a table of its parameters."""
    broken = born(subject) or undefined(subject)
    broken += born_backward(subject) if math.isfinite(subject.loss.data) else []
    groups = [] if broken else parameter_groups(subject)
    findings = _findings(subject, broken, groups)
    blocks: list[Block] = [*findings]
    if not any(finding.trouble for finding in findings):
        added = "" if subject.fresh else "; gradients that were added up"
        blocks.insert(0, Paragraph(f"Looked for {CHECKED}{added}."))
    if subject.parameters and groups:
        blocks += [Paragraph("The gradients of this loss, by parameter:"), table(subject, groups)]
    lines = [place(x) for finding in findings if finding.trouble for x in finding.values if x.op is not None]
    if lines and not any(lines):
        blocks.append(Paragraph("The lines of your code are known if the loss is computed within: explain(lambda: …)."))
    title = (
        f"{'The loss ' * (not (subject.loss.name or '').strip())}{subject.value(subject.loss)}: {_verdict(findings)}"
    )
    return Explanation(title, blocks, findings=findings)


def _findings(subject: Subject, broken: list[Finding], groups: list[ParameterGroup]) -> list[Finding]:
    """Trouble first, in the order of cause and effect; then what need not be wrong."""
    stale = changed(subject)
    found = [*stale, *broken, *logs_of_zero(subject)]
    if not broken:
        units = _first_layers(dead(subject)) + _first_layers(saturated(subject))
        found += units + exploded(subject, groups) + vanished(subject, groups)
        found += stationary(groups)
        found += zero(subject, groups, [finding for finding in units if finding.trouble])
    found += unused(subject) + unreached(subject) + outside(subject)
    found += [] if broken or stale or not subject.loss.requires_grad else accumulated(subject)
    return sorted(found, key=lambda finding: not finding.trouble)


def _first_layers(findings: Sequence[Finding]) -> list[Finding]:
    """The same, but of a deep network only a few layers one by one; the notes likewise."""
    found: list[Finding] = []
    for trouble in (True, False):
        alike = [finding for finding in findings if finding.trouble is trouble]
        found += alike[:LAYERS]
        if more := alike[LAYERS:]:
            lines = few([finding.text for finding in more[:SHOWN]], len(more))
            values = [z for finding in more for z in finding.values]
            text = f"The same in {count(len(more), 'more layer')}"
            found.append(Finding(more[0].kind, text, lines, "", values, trouble))
    return found


def _verdict(findings: Sequence[Finding]) -> str:
    n = sum(finding.trouble for finding in findings)
    verdict = "no trouble found" if not n else "1 thing is wrong" if n == 1 else f"{n} things are wrong"
    unsure = sum(not finding.trouble and bool(finding.where and finding.advice) for finding in findings)
    return verdict + f", {count(unsure, 'thing')} to look at" * bool(unsure)
