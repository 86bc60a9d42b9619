"""Axes: where numbers stand in a chart, and the round numbers beside it.

An Axis knows numbers, a Frame knows places: it holds an axis for each direction and draws the lines and the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

from milligrad.charts.chart import LEADING, label
from milligrad.markup import CELL, element, shown, width

TICK = 11.0  # the size of the numbers
FAR = 50  # where the largest number is so many times the smallest, a linear axis would hide the small ones
LARGEST, LEAST = 1.7976931348623157e308, 5e-324


class Axis:
    """The numbers from lo to hi, linear or logarithmic, and the ticks among them with their labels."""

    def __init__(self, lo: float, hi: float, ticks: list[float], labels: list[str], log: bool = False) -> None:
        self.lo, self.hi, self.ticks, self.labels, self.log = lo, hi, ticks, labels, log

    def normalize(self, x: float) -> float:
        """How far from lo to hi a number is, from 0 to 1."""
        x, lo, hi = (math.log(v) if self.log else v / 2 for v in (x, self.lo, self.hi))  # v / 2: hi - lo is finite
        return (x - lo) / (hi - lo)

    def longest(self) -> float:
        """The width of the widest label."""
        return max((width(s) for s in self.labels), default=0) * CELL * TICK


def is_far(numbers: Iterable[float]) -> bool:
    """Whether numbers are to be shown on a logarithmic axis: all are above 0, and they differ by a factor of 50."""
    low, high = _ends(numbers)
    return low > 0 and high / FAR > low


def _ends(numbers: Iterable[float]) -> tuple[float, float]:
    numbers = list(numbers) or [0.0, 1.0]
    return min(numbers), max(numbers)


def values(numbers: Iterable[float], *, percent: bool = False) -> Axis:
    """The axis of what was measured: from the tick below the least to the tick above the largest."""
    lo, hi = _apart(*_ends(numbers))
    if percent and lo >= 0 and hi > 1 >= _ends(numbers)[1]:
        lo, hi = 0.8, 1.0  # there is no accuracy above 1
    ticks, step = _linear(lo, hi, 5)
    return Axis(ticks[0], ticks[-1], ticks, _labels(ticks, step, percent))


def span(numbers: Iterable[float], room: float, *, whole: bool = False) -> Axis:
    """The axis of where it was measured: from the least to the largest, with as many ticks as the room takes.

    whole:  ticks are whole numbers only, as epochs are.
    """
    lo, hi = _apart(*_ends(numbers))
    for most in range(8, 0, -1):
        ticks, step = _linear(lo, hi, most, least=1.0 if whole else 0.0)
        ticks = [x for x in ticks if lo <= x <= hi]
        axis = Axis(lo, hi, ticks, _labels(ticks, step, False))
        places = [axis.normalize(x) * room for x in ticks]
        if all(b - a > axis.longest() + 8 for a, b in pairwise(places)):
            break
    return axis


def logarithmic(numbers: Iterable[float]) -> Axis:
    """From a tick below the least number to one above the largest: 1, 2, 5, 10, 20 … or powers of ten."""
    lo, hi = _ends(numbers)
    first, last = math.floor(math.log10(lo)), math.ceil(math.log10(hi))
    for digits, step in ((("1", "2", "5"), 1), *((("1",), n) for n in range(1, 700))):
        all_ticks = [float(f"{d}e{e}") for e in range(first, last + step, step) for d in digits]
        all_ticks = [min(max(x, LEAST), LARGEST) for x in all_ticks]
        below = max(i for i, x in enumerate(all_ticks) if x <= lo)
        above = min(i for i, x in enumerate(all_ticks) if x >= hi)
        ticks = all_ticks[below : above + 1]
        if len(ticks) <= 7:
            break
    return Axis(ticks[0], ticks[-1], ticks, [shown(x) for x in ticks], log=True)


def _apart(lo: float, hi: float) -> tuple[float, float]:
    """Both ends, a tenth farther out where they are so close that nothing fits between them."""
    size = max(abs(lo), abs(hi))
    if hi / 2 - lo / 2 > 1e-9 * size and size > 1e-300:
        return lo, hi
    margin = size / 10 if size > 1e-300 else 1.0
    return max(lo - margin, -LARGEST), min(hi + margin, LARGEST)


def _linear(lo: float, hi: float, most: int, least: float = 0.0) -> tuple[list[float], float]:
    """Multiples of a step, 1, 2 or 5 times a power of ten, from below lo to above hi: about `most` of them."""
    power = math.floor(math.log10(hi / most - lo / most))
    for step in (float(f"{digit}e{e}") for e in range(power, power + 3) for digit in (1, 2, 5)):
        first, last = math.floor(lo / step), math.ceil(hi / step)
        if last - first <= most + 1 and step >= least:
            break
    ticks = [float(f"{k * step:.12g}") for k in range(first, last + 1)]
    return [min(max(x, -LARGEST), LARGEST) for x in ticks], step


def _labels(ticks: list[float], step: float, percent: bool) -> list[str]:
    """As many digits as it takes to tell neighbours apart."""
    places = -math.floor(math.log10(step))
    if percent:
        return [f"{x:.{max(places - 2, 0)}%}" for x in ticks]
    size = max((abs(x) for x in ticks), default=0.0)
    if step >= 1e-4 and size < 1e6:
        return [f"{x:.{max(places, 0)}f}".replace("-", "−") for x in ticks]
    return [shown(x, max(1, math.floor(math.log10(size or 1.0)) + places + 1)) for x in ticks]


def _side_by_side(labels: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Of labels, each with its place, those that do not lie on the one before."""
    kept: list[tuple[float, str]] = []
    end = -math.inf
    for x, s in labels:
        half = width(s) * CELL * TICK / 2
        if x - half > end:
            kept.append((x, s))
            end = x + half + 2
    return kept


class Frame:
    """The area that x and y span in a chart of a width: from `top` down, `height` high, between the labels."""

    def __init__(self, x: Axis, y: Axis, wide: float, top: float, height: float) -> None:
        self.x, self.y = x, y
        self.left, self.right = 8 + max(y.longest(), x.longest() / 2) + 6, wide - max(x.longest() / 2, 6) - 4
        self.top, self.bottom = top, top + height

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where in the chart a point stands."""
        across, up = self.x.normalize(x), self.y.normalize(y)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)

    def drawn(self, x_label: str = "") -> list[str]:
        """A line across for each tick of y, a short one for each of x, and their numbers."""
        across = [(self.at(self.x.lo, y)[1], s) for y, s in zip(self.y.ticks, self.y.labels)]
        below = [(self.at(x, self.y.lo)[0], s) for x, s in zip(self.x.ticks, self.x.labels)]
        lines = [f"M{self.left:.6g} {y:.6g}H{self.right:.6g}" for y, _ in across]
        lines += [f"M{x:.6g} {self.bottom:.6g}v5" for x, _ in below]
        numbers = [label(s, self.left - 6, y + 4, "tick y end") for y, s in across]
        below = _side_by_side(below)  # the room is narrower than thought where the numbers beside it are wide
        numbers += [label(s, x, self.bottom + 17, "tick x middle") for x, s in below]
        middle = (self.left + self.right) / 2
        name = [label(x_label, middle, self.bottom + 17 + LEADING, "label middle", 40)] * bool(x_label)
        return [element("path", class_="grid", d="".join(lines)), *numbers, *name]
