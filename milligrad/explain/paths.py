"""Every path from a Value to the loss, with the product of the local derivatives along it: the chain rule, taken apart.

The sum of the products is the gradient. There can be exponentially many paths, so they are counted without being
walked, and only the largest are: whoever knows, for every Value, the largest product from the source to it, goes along
the best path at once, and needs only to remember the detours that were passed on the way.

    step     from an input to what was computed of it, with the local derivative, and the number of the input
    steps    those of each Value that lie on a path, inputs first; the first Value is the source
    size     of a product: how it ranks among others, without overflow
    choices  a path, from the output back to the source: which of its steps each Value was reached by
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, groupby
from operator import itemgetter
from typing import NamedTuple

from milligrad.draw.formulas import derivatives, digits_for, ordinals, partial, rounded
from milligrad.engine import Value, adjoints, place, topological_order
from milligrad.explain.arithmetic import changed
from milligrad.explain.document import SHOWN, Block, Explanation, Paragraph, Table
from milligrad.explain.flow import derivatives_of
from milligrad.explain.subject import Subject, close
from milligrad.markup import shown
from milligrad.typing import TypeAlias

Steps: TypeAlias = dict[Value, list[tuple[Value, float, int]]]
Size: TypeAlias = tuple[int, int, float]
Choices: TypeAlias = list[tuple[Value, int]]

LONG = 10  # a path of so many Values is not shown whole
ENDS = 3  # but so many of them at each end
NOTHING = 0, 0, 0.0  # the size of a product of no factors: 1
MOST = 10**10_000  # paths are not counted further: a number for each Value could have as many bits as there are Values
LISTED = 24  # more steps than that are not explained one by one


@dataclass(frozen=True, slots=True)
class Path:
    """From the source to the output.

    nodes:        the Values on it
    derivatives:  of each by the one before
    product:      of the derivatives
    places:       through which of its inputs each was reached, by number: y = x * x is reached through 0 and through 1
    """

    nodes: tuple[Value, ...]
    derivatives: tuple[float, ...]
    product: float
    places: tuple[int, ...] = ()


def paths(source: Value, output: Value, most: int) -> tuple[int, list[Path]]:
    """How many paths lead from source to output, and at most `most` of them: NaN first, then the largest |product|.

    Values that are used twice by one operation, as in x * x, lie on two paths.
    """
    steps = _steps(source, output)
    if output not in steps:
        return 0, []
    return _count(steps, output), _largest(steps, output, most)


def _steps(source: Value, output: Value) -> Steps:
    steps: Steps = {source: []}
    for z in reversed(topological_order([output])):
        if any(type(x) is not float and x in steps for x in z.inputs):
            pairs = zip(z.inputs, derivatives_of(z), strict=True)
            steps[z] = [(x, float(d), i) for i, (x, d) in enumerate(pairs) if type(x) is not float and x in steps]
    return steps


def _count(steps: Steps, output: Value) -> int:
    """Exactly, up to MOST. A number is dropped when it has been handed on, since it can have thousands of digits."""
    to_output = {output: 1}
    n = 0
    for z in reversed(steps):
        n = min(to_output.pop(z, 0), MOST)
        for x, _, _ in steps[z]:
            to_output[x] = to_output.get(x, 0) + n
    return n  # of the source, which is the last


# Sizes: they add up along a path as logarithms do, and compare from left to right.


def _size(derivative: float) -> Size:
    """How often it is NaN, how often infinite rather than 0, and the logarithm of what is neither."""
    if derivative != derivative:
        return 1, 0, 0.0
    if not derivative or math.isinf(derivative):
        return 0, 1 if derivative else -1, 0.0
    return 0, 0, math.log(abs(derivative))


def _plus(a: Size, b: Size) -> Size:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _best(steps: Steps) -> dict[Value, tuple[Size, int]]:
    """For each Value the largest size of a path from the source to it, and by which of its steps."""
    best: dict[Value, tuple[Size, int]] = {}
    for z, into in steps.items():
        sizes = [_plus(best[x][0], _size(d)) for x, d, _ in into] or [NOTHING]
        k = max(range(len(sizes)), key=sizes.__getitem__)
        best[z] = sizes[k], k
    return best


class Detour(NamedTuple):
    """Where a path was left: at its choice number n, for another one.

    rank:    the size of the best path that begins so, negative: a heap has the least on top
    serial:  keeps equals in the order in which they were found
    size:    of the product from the output to the end of `choice`
    """

    rank: Size
    serial: int
    path: Choices
    n: int
    choice: tuple[Value, int]
    size: Size


def _largest(steps: Steps, output: Value, most: int) -> list[Path]:
    """The best path, then the best of all detours from paths that were found, and so on.

    A detour keeps the beginning of a path, takes another step there, and goes on along the best way. Each path is a
    detour from exactly one other, so none comes twice. Of one path at most `most` detours can be among the largest.
    (D. Eppstein 1998, "Finding the k shortest paths", has the idea; logarithms of factors are the lengths.)
    """
    best = _best(steps)
    found: list[Path] = []
    detours: list[Detour] = []
    serial = count()
    choices: Choices = []
    z, size = output, NOTHING
    while True:
        passed = []
        while into := steps[z]:
            k = best[z][1]
            for i, (x, d, _) in enumerate(into):
                if i != k:
                    so_far = _plus(size, _size(d))
                    passed.append((_plus(so_far, best[x][0]), len(choices), (z, i), so_far))
            choices.append((z, k))
            z, d, _ = into[k]
            size = _plus(size, _size(d))
        found.append(_path(steps, choices))
        for rank, n, choice, so_far in heapq.nlargest(most - len(found), passed, key=itemgetter(0)):
            heapq.heappush(detours, Detour(_negative(rank), next(serial), choices, n, choice, so_far))
        if not detours or len(found) == most:
            return sorted(found, key=lambda path: (path.product == path.product, -abs(path.product)))
        detour = heapq.heappop(detours)
        choices, size = [*detour.path[: detour.n], detour.choice], detour.size
        z = steps[detour.choice[0]][detour.choice[1]][0]


def _negative(size: Size) -> Size:
    return -size[0], -size[1], -size[2]


def _path(steps: Steps, choices: Choices) -> Path:
    if not choices:
        source = next(iter(steps))
        return Path((source,), (), 1.0)
    taken = [steps[z][k] for z, k in choices]
    product = _product([d for _, d, _ in taken])  # from the output back, as the adjoint is computed
    nodes, derivatives, places = zip(*reversed(taken))
    return Path((*nodes, choices[0][0]), derivatives, product, places)


def _product(derivatives: Sequence[float]) -> float:
    """As the chain rule multiplies: 0 if one of them is 0, also where another one does not exist."""
    product = math.prod(derivatives, start=1.0)
    return 0.0 if product != product and 0.0 in derivatives else product


# As an explanation.


def explain_paths(subject: Subject, wrt: Value, max_paths: int) -> Explanation:
    """All paths from wrt to the loss, their sum, and what `.grad` says."""
    loss = subject.loss
    n, largest = paths(wrt, loss, max_paths)
    adjoint = adjoints([(loss, 1.0)], derivatives_of) if subject.missing else subject.adjoint
    total = adjoint.get(wrt, 0.0) + 0.0  # of -0.0, 0.0
    y, x = subject.name(loss), subject.name(wrt)
    derivative = f"∂{y}/∂{x}"
    value = f"{derivative} = {subject.number(total)}" if total == total else f"{derivative} is no number"
    title = f"{value}: how {subject.value(loss)} moves with {subject.value(wrt)}"
    stale = changed(subject)
    blocks: list[Block]
    if not n:
        text = (
            f"No path leads from {x} to {y}: {y} was not computed of {x}, or only through constants (detach, no_grad)."
        )
        blocks = [*stale, Paragraph(text), *_about_grad(subject, wrt, total)]
        return Explanation(title, blocks, total=total, findings=stale)
    blocks = [*stale, Paragraph(_headline(n, largest, x, y)), _table(subject, n, largest, total)]
    on_path = _steps(wrt, loss) if subject.missing else {}
    for z, why in sorted(subject.missing, key=lambda missing: missing[0] not in on_path)[:SHOWN]:
        what = f"{derivative} does not exist" if z in on_path and total != total else f"{x}.grad cannot be had"
        blocks.append(Paragraph(f"{what}: {subject.where(z)} has {why}, and backward() stops there."))
    blocks += [*_step_by_step(subject, largest), *_about_grad(subject, wrt, total)]
    return Explanation(title, blocks, paths=largest, total=total, findings=stale)


def _headline(n: int, largest: list[Path], x: str, y: str) -> str:
    if n == 1:
        return f"One path leads from {x} to {y}. Its local derivatives, multiplied:"
    shown = "the largest first" if n == len(largest) else f"these {len(largest):,} are the largest"
    return f"{_many(n)} paths lead from {x} to {y}; {shown}. Along each, the local derivatives are multiplied:"


def _table(subject: Subject, n: int, largest: list[Path], total: float) -> Table:
    """A row for each path, or for all that look alike; the first column adds up to the last row, as far as it is shown.

    They look alike if they differ in what is left out of them.
    """
    alike = [[*same] for _, same in groupby(largest, key=lambda path: _row(subject, path, subject.precision))]
    products = [_sum([path.product for path in paths]) for paths in alike]
    if more := n - len(largest):
        products.append(total - _sum(products))

    def adds_up(digits: int) -> bool:
        return subject.number(_sum([rounded(p, digits) for p in products])) == subject.number(total)

    digits = digits_for(adds_up, subject.precision)
    numbers = [shown(p, digits) for p in products]
    rows = [(number, *_together(_row(subject, p[0], digits), len(p))) for number, p in zip(numbers, alike)]
    if more:
        rows.append((numbers[-1], f"{_many(more)} more path{'s, together' * (more > 1)}", ""))
    if n > 1:
        how = "" if adds_up(digits) else ", as floats add it up"
        rows.append((subject.number(total), f"the sum of all{how}", ""))
    return Table("paths", ("product", "path", "local derivatives"), rows, right=(0,))


def _sum(products: Sequence[float]) -> float:
    """Exact, but for what is too large for a float."""
    try:
        return math.fsum(products)
    except (ValueError, OverflowError):
        return math.nan


def _row(subject: Subject, path: Path, digits: int) -> tuple[str, str]:
    """The path, and its local derivatives with so many digits that their product has these when it is shown."""

    def holds(own: int) -> bool:
        return shown(_product([rounded(d, own) for d in _factors(path)]), digits) == shown(path.product, digits)

    return _nodes(subject, path), _derivatives(path, digits_for(holds, digits))


def _together(row: tuple[str, str], n: int) -> tuple[str, str]:
    """One row for n paths that look alike."""
    nodes, derivatives = row
    return (f"{nodes}, {n:,} such paths together", f"each {derivatives}") if n > 1 else row


def _many(n: int) -> str:
    """A number of paths, exactly, unless nobody could read it."""
    if n > 10**30:
        return f"{'about' if n < MOST - 10**6 else 'more than'} 10^{math.log10(n):,.0f}"
    return f"{n:,}"


def _nodes(subject: Subject, path: Path) -> str:
    if len(path.nodes) < LONG:
        places = _told_places(subject, path)
        return " → ".join(map(subject.name, path.nodes)) + f", through {' and '.join(places)}" * bool(places)
    first, last = (" → ".join(map(subject.name, part)) for part in (path.nodes[:ENDS], path.nodes[-ENDS:]))
    return f"{first} → … {len(path.nodes) - 2 * ENDS:,} more … → {last}"


def _told_places(subject: Subject, path: Path) -> list[str]:
    """Such as "the 2nd x", of each Value on the path that goes more than once into the next one."""
    which = [ordinals(z.inputs)[i] for z, i in zip(path.nodes[1:], path.places)]
    return [f"the {nth} {subject.name(x)}" for x, nth in zip(path.nodes, which) if nth]


def _factors(path: Path) -> Sequence[float]:
    """What is shown of its derivatives: of a long path those in the middle as one, their product."""
    if len(path.nodes) < LONG:
        return path.derivatives
    first, inner, last = path.derivatives[:ENDS], path.derivatives[ENDS:-ENDS], path.derivatives[-ENDS:]
    return (*first, math.prod(inner), *last)


def _derivatives(path: Path, digits: int) -> str:
    """`−0.5 · 1 · −2`"""
    factors = [shown(d, digits) for d in _factors(path)]
    if len(path.nodes) >= LONG:
        factors[ENDS] = f"({len(path.derivatives) - 2 * ENDS:,} more: {factors[ENDS]})"
    return " · ".join(factors)


def _step_by_step(subject: Subject, largest: list[Path]) -> list[Block]:
    """What each step on the paths is, in the order of computing; unless there are too many to read."""
    steps: dict[Value, dict[int, float]] = {}  # a step on many paths is told once
    for path in largest:
        for z, i, d in zip(path.nodes[1:], path.places, path.derivatives, strict=True):
            steps.setdefault(z, {})[i] = d
    if not 0 < sum(map(len, steps.values())) <= LISTED:
        return []
    rows: list[tuple[str, str, str]] = []
    for z in filter(steps.__contains__, subject.order):
        what, where, formulas, which = subject.made(z), place(z), _formulas(subject, z), ordinals(z.inputs)
        for i, d in sorted(steps[z].items()):
            forms = dict.fromkeys([*formulas.get(i, ()), subject.number(d)])
            derivative = partial(subject.name(z), subject.name(z.inputs[i]), which[i])
            rows.append((what, f"{derivative} = {' = '.join(forms)}", where))
            what = where = ""  # said once
    columns = 3 if any(row[2] for row in rows) else 2
    head = ("what was computed", "local derivative", "where")
    return [Paragraph("Step by step:"), Table("steps", head[:columns], [row[:columns] for row in rows])]


def _formulas(subject: Subject, z: Value) -> dict[int, list[str]]:
    """The derivatives of z in names and in numbers: `1 - y * y`, `1 - 0.8 * 0.8`; none if it has none."""
    try:
        told = derivatives(z, subject.names, subject.precision)
    except (ValueError, ArithmeticError):
        return {}
    return {i: [d.formula, d.numbers] for i, d in enumerate(told)}


def _about_grad(subject: Subject, wrt: Value, total: float) -> list[Block]:
    """Whether `wrt.grad` is what the paths add up to, and if not, why; of a fresh loss there is nothing to say."""
    return [] if subject.fresh else [Paragraph(_compared(subject, wrt, total))]


def _compared(subject: Subject, wrt: Value, total: float) -> str:
    x, y = subject.name(wrt), subject.name(subject.loss)
    runs, expected = subject.loss.grad, subject.loss.grad * total
    if close(wrt.grad, total) and (runs or total):
        return f"{x}.grad is {subject.number(wrt.grad)}, too."
    grad = f"{x}.grad is {subject.apart(wrt.grad, total)[0]}"
    if total != total:
        return f"{grad}."
    if not runs and not wrt.grad:
        return f"{grad}: {y}.backward() has not run yet, or gradients were zeroed since."
    if runs > 1 and runs % 1 == 0 and close(wrt.grad, expected):
        return (
            f"{grad}, {runs:g} times as much, as {y}.grad is {runs:g}: {y}.backward() ran {runs:g} times, and "
            f"gradients add up; or backward() ran on what was computed of {y}."
        )
    if runs and close(wrt.grad, expected):
        return f"{grad}: backward began with {y}.grad = {subject.number(runs)}."
    return f"{grad}, which is not from {y} alone: gradients add up until zero_grad(), or were changed since."
