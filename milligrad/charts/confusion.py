"""A confusion matrix with a count in each cell, so coloured that mistakes are seen beside what is right."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from milligrad.charts.axes import TICK
from milligrad.charts.chart import LEADING, SIZE, TOP, Chart, heading, label, room_for, with_tooltip
from milligrad.expected import items, numbers, strings
from milligrad.markup import CELL, element, elided, width

FAINTEST, DEEPEST = 0.15, 0.5  # of a cell's colour: a single mistake is seen, and a count legible, in light and in dark
LONGEST = 24  # cells of a name beside a row or above a column
SHORT = 6  # cells of names that stand upright above their columns: if one is longer, all are turned
MARGIN = 8.0


def confusion_matrix(counts: Sequence[Sequence[int]], names: Sequence[str] | None = None, *, title: str) -> Chart:
    """Row i, column j: how often class i was read as class j. Names are 0, 1, 2 … if not given.

    What was read right is green, a mistake purple: the deeper, the larger its share of the row. One mistake in a
    hundred is seen, too: the depth begins well above nothing and grows with the square root of the share. Raises
    ValueError if the rows are not as long as there are rows, a count is below 0, infinite or NaN, or names are missing;
    and TypeError for what is no number or no name.
    """
    _check(counts)
    n = len(counts)
    names = [str(i) for i in range(n)] if names is None else strings(names, "names")
    if len(names) != n:
        raise ValueError(f"names: expected {n}, one for each row of counts, got {len(names)}")
    short = _short(names)
    digits, longest = max(len(str(count)) for row in counts for count in row), max(map(width, short))
    turned = longest > SHORT
    side = max(30.0, (digits + 1) * CELL * SIZE, 0.0 if turned else (longest + 1) * CELL * SIZE)
    left = MARGIN + 2 * CELL * SIZE + 10 + longest * CELL * SIZE + 6
    top = TOP + LEADING + (longest * CELL * TICK + 6 if turned else LEADING)
    wide = max(left + n * side + MARGIN, room_for(title))
    middle = left + n * side / 2
    parts = [heading(title, wide), label("read as", middle, TOP + 10, "label middle")]
    parts.append(label("is", MARGIN, top + n * side / 2 + 4, "label"))
    for i, row in enumerate(counts):
        total = sum(row) or 1
        parts.append(label(short[i], left - 6, top + (i + 0.5) * side + 4, "tick end"))
        parts.append(_head(short[i], left + (i + 0.5) * side, top - 6, turned))
        for j, count in enumerate(row):
            about = f"is {elided(names[i], 60)}, read as {elided(names[j], 60)}: {count} of {sum(row)}"
            parts.append(_cell(count, count / total, i == j, left + j * side, top + i * side, side, about))
    return Chart(title, _told(counts, names), wide, top + n * side + MARGIN, parts)


def _short(names: Sequence[str]) -> list[str]:
    """The names as they stand beside the matrix: with their numbers where else two would look the same."""
    short = [elided(name, LONGEST) for name in names]
    return short if len({*short}) == len(short) else [elided(f"{i} {name}", LONGEST) for i, name in enumerate(names)]


def _head(name: str, x: float, y: float, turned: bool) -> str:
    """A name above the middle of its column, or turned a quarter so that it is read upwards."""
    place = f"translate({x:.6g} {y:.6g})"
    if turned:
        return element("g", label(name, 0, 4, "tick head"), transform=f"{place} rotate(-90)")
    return element("g", label(name, 0, 0, "tick head middle"), transform=place)


def _check(counts: Sequence[Sequence[int]]) -> None:
    rows = [numbers(row, f"counts[{i}]") for i, row in enumerate(items(counts, "counts", "rows"))]
    if not rows or any(len(row) != len(rows) for row in rows):
        raise ValueError(f"counts: expected n rows of n numbers, got rows of {[*map(len, rows)]!r:.60}")
    for i, row in enumerate(rows):
        for j, count in enumerate(row):
            if not 0 <= count < inf:
                raise ValueError(f"counts[{i}][{j}]: expected a finite number >= 0, got {count:g}")


def _cell(count: int, share: float, right: bool, x: float, y: float, side: float, about: str) -> str:
    depth = FAINTEST + (DEEPEST - FAINTEST) * share**0.5 if count else 0.0
    box = element("rect", class_="cell", x=x, y=y, width=side, height=side, fill_opacity=depth)
    number = label(str(count) if count else "·", x + side / 2, y + side / 2 + 4, "middle" if count else "label middle")
    return with_tooltip(about, box, number, class_=f"count hue{0 if right else 1}")


def _told(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """In words: how many were read right, and the most frequent mistakes."""
    total, right = sum(map(sum, counts)), sum(row[i] for i, row in enumerate(counts))
    wrong = [(count, i, j) for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count]
    worst = sorted(wrong, key=lambda mistake: -mistake[0])[:3]
    told = f"{right} of {total} were read right."
    if worst:
        often = [f"{elided(names[i], 30)} as {elided(names[j], 30)}, {_times(count)}" for count, i, j in worst]
        told += f" The most frequent mistakes: {'; '.join(often)}."
    return told


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
