"""What is wrong with a loss: all checks, the first cause first, as one Explanation.

Where numbers are no numbers, what follows from that is not reported as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from milligrad.draw.model import count
from milligrad.engine import place
from milligrad.explain.arithmetic import born, born_backward, changed, undefined
from milligrad.explain.document import Block, Explanation, Finding, Paragraph
from milligrad.explain.gradients import Layer, accumulated, exploded, layers_of, table, unreached, vanished, zero
from milligrad.explain.subject import Subject
from milligrad.explain.units import dead, saturated

CHECKED = (
    "NaN and inf, forward and backward; derivatives that do not exist; relus that are never on; saturated sigmoids and "
    "tanhs; vanished and exploded gradients; parameters without a gradient; gradients that were added up"
)


def explain_trouble(subject: Subject) -> Explanation:
    """All findings, and with a model a table of its parameters."""
    broken = born(subject) or undefined(subject) or born_backward(subject)
    layers = [] if broken else layers_of(subject)
    findings = _findings(subject, broken, layers)
    blocks: list[Block] = [*findings]
    if not any(finding.trouble for finding in findings):
        blocks.insert(0, Paragraph(f"Looked for {CHECKED}."))
    if subject.model is not None and layers:
        blocks += [Paragraph("The gradients of this loss, by parameter:"), table(subject, layers)]
    lines = [place(x) for finding in findings if finding.trouble for x in finding.values if x.op is not None]
    if lines and not any(lines):
        blocks.append(Paragraph("The lines of your code are known if the loss is computed within: explain(lambda: …)."))
    return Explanation(f"{subject.value(subject.loss)}: {_verdict(findings)}", blocks, findings=findings)


def _findings(subject: Subject, broken: list[Finding], layers: list[Layer]) -> list[Finding]:
    """Trouble first, in the order of cause and effect; then what need not be wrong."""
    stale = changed(subject)
    found = [*stale, *broken]
    if not broken:
        units = dead(subject) + saturated(subject)
        found += units + exploded(subject, layers) + vanished(subject, layers)
        found += [] if any(finding.trouble for finding in units) else zero(layers)
    found += unreached(subject)
    found += [] if broken or stale or not subject.loss.requires_grad else accumulated(subject)
    return sorted(found, key=lambda finding: not finding.trouble)


def _verdict(findings: Sequence[Finding]) -> str:
    n = sum(finding.trouble for finding in findings)
    verdict = "no trouble found" if not n else "1 thing is wrong" if n == 1 else f"{n} things are wrong"
    unsure = sum(not finding.trouble and bool(finding.where and finding.advice) for finding in findings)
    return verdict + f", {count(unsure, 'thing')} to look at" * bool(unsure)
