"""Regions: what a model says all over a plane, as a coloured ground behind the points that it was taught with.

`grid` says where to ask, the caller asks a model there, and `decision_regions` draws its probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import isfinite

from milligrad.charts.axes import Frame, span
from milligrad.charts.chart import HUES, LEADING, TOP, Chart, heading, hue, legend, mark, room_for, with_tooltip
from milligrad.expected import items, numbers, strings, whole
from milligrad.markup import element, elided, shown
from milligrad.typing import TypeAlias

CELLS = 64  # in a row and in a column
MARGIN = 0.15  # how much farther than the points the plane reaches, on each side
LEVELS = 4  # how many depths of colour tell how sure an answer is
FAINTEST, DEEPEST = 0.1, 0.42
EVERY = 3  # cells from one stroke of a hatching to the next
SIDE = 300.0
Point: TypeAlias = "Sequence[float]"
Tone: TypeAlias = "tuple[int | None, int]"  # a class, None where the answer is no number, and how sure it is


def grid(points: Sequence[Point]) -> list[list[float]]:
    """The middles of 64 × 64 cells on and a little around the points: the lowest row first, each from left to right."""
    (x0, x1), (y0, y1) = _window(points)
    middles = [(i + 0.5) / CELLS for i in range(CELLS)]
    return [[x0 + a * (x1 - x0), y0 + b * (y1 - y0)] for b in middles for a in middles]


def decision_regions(
    points: Sequence[Point],
    labels: Sequence[int],
    probabilities: Sequence[Sequence[float]],
    *,
    title: str,
    names: Sequence[str] | None = None,
) -> Chart:
    """The points, each with the mark of its class, over what is most probable at each place of the `grid`.

    points: n × 2; labels: n; probabilities: 4,096 × classes, each row adding up to 1: the surer, the deeper the colour.
    Twenty classes look different: there are five colours, plain, hatched to one side, to the other, and to both.
    Where one of a row is NaN or infinite there is no answer: the place is red, and the legend says "no number".
    Raises ValueError for a number of labels, probabilities or names that does not fit, for a label that is
    no class, and for a point that is not finite; and TypeError for what is no number, no class or no name.
    """
    horizontal, vertical = _window(points)
    answers = _answers(probabilities)
    classes = len(answers[0])
    labels = _labels(labels, len(points), classes)
    names = [f"class {i}" for i in range(classes)] if names is None else strings(names, "names")
    if len(names) != classes:
        raise ValueError(f"names: expected {classes}, one for each probability of an answer, got {len(names)}")
    tones = [_tone(answer) for answer in answers]
    unknown = sum(best is None for best, _ in tones)
    samples = [(_sample(i), name) for i, name in enumerate(names)]
    samples += [(_swatch("nan", 1.0), "no number")] * bool(unknown)
    wide = max(SIDE, room_for(title))
    keys, top = legend(samples, SIDE, TOP + 8)
    frame = Frame(span(horizontal, SIDE - 60), span(vertical, SIDE - 60), SIDE, top, SIDE - 60)
    right = sum(tones[_cell(point, horizontal, vertical)][0] == i for point, i in zip(points, labels))
    about = f"{len(points)} points of {classes} classes; {right} of them lie in the region of their own."
    if unknown:
        about += f" At {unknown:,} of {CELLS * CELLS:,} places the answer is no number."
    return Chart(
        title,
        about,
        wide,
        frame.bottom + 1.5 * LEADING,
        [
            heading(title, wide),
            *keys,
            *frame.drawn(),
            *_ground(tones, frame),
            *_dots(points, labels, names, frame),
        ],
    )


def _answers(probabilities: Sequence[Sequence[float]]) -> list[list[float]]:
    n = len(items(probabilities, "probabilities", "rows"))
    if n != CELLS * CELLS:
        raise ValueError(f"probabilities: expected {CELLS * CELLS}, one for each place of the grid, got {n}")
    answers = [numbers(row, f"probabilities[{i}]") for i, row in enumerate(probabilities)]
    for i, answer in enumerate(answers):
        if len(answer) != len(answers[0]) or not answer:
            expected = f"{len(answers[0])} numbers, as in the first row" if answers[0] else "at least one number"
            raise ValueError(f"probabilities[{i}]: expected {expected}, got {len(answer)}")
    return answers


def _labels(labels: Sequence[int], points: int, classes: int) -> list[int]:
    if len(items(labels, "labels", "whole numbers")) != points:
        raise ValueError(f"labels: expected {points}, one for each point, got {len(labels)}")
    whole_labels = [whole(k, f"labels[{i}]") for i, k in enumerate(labels)]
    for i, k in enumerate(whole_labels):
        if k not in range(classes):
            raise ValueError(f"labels[{i}]: expected a class from 0 to {classes - 1}, got {k!r:.60}")
    return whole_labels


def _window(points: Sequence[Point]) -> tuple[tuple[float, float], tuple[float, float]]:
    """From where to where the plane reaches, in x and in y."""
    places = [numbers(point, f"points[{i}]") for i, point in enumerate(items(points, "points", "points"))]
    if not places or any(len(place) != 2 or not all(map(isfinite, place)) for place in places):
        raise ValueError(f"points: expected at least one, each of two finite numbers, got {points!r:.60}")
    low, high = [min(c) for c in zip(*places)], [max(c) for c in zip(*places)]
    margins = [MARGIN * (b - a) or 1.0 for a, b in zip(low, high)]
    x, y = ((a - margin, b + margin) for a, b, margin in zip(low, high, margins))
    return x, y


def _cell(point: Point, *window: tuple[float, float]) -> int:
    """The number of the place that is nearest to a point."""
    column, row = (int((v - lo) / (hi - lo) * CELLS) for v, (lo, hi) in zip(point, window))
    return row * CELLS + column


def _tone(answer: Sequence[float]) -> Tone:
    """The class that an answer speaks for, and how sure it is: from 0, no surer than chance, to LEVELS - 1."""
    if not all(map(isfinite, answer)):
        return None, 0
    best, chance = max(range(len(answer)), key=answer.__getitem__), 1 / len(answer)
    sure = (answer[best] - chance) / (1 - chance) if chance < 1 else 1.0
    return best, min(max(int(LEVELS * sure), 0), LEVELS - 1)


def _ground(tones: Sequence[Tone], frame: Frame) -> list[str]:
    """One path for all cells of the same class and depth, each a run of neighbours in a row."""
    runs: dict[Tone, list[str]] = {}
    for i in range(CELLS):
        x = 0
        for tone, cells in groupby(tones[i * CELLS : (i + 1) * CELLS]):
            n = len([*cells])
            runs.setdefault(tone, []).append(f"M{x} {CELLS - 1 - i}h{n}v1h-{n}z")
            x += n
    paths = [
        element(
            "path",
            class_=f"region {'nan' if best is None else hue(best)}",
            fill_opacity=1.0 if best is None else FAINTEST + (DEEPEST - FAINTEST) * level / (LEVELS - 1),
            d="".join(d),
        )
        for (best, level), d in runs.items()
    ]
    across, down = (frame.right - frame.left) / CELLS, (frame.bottom - frame.top) / CELLS
    place = f"translate({frame.left:.6g} {frame.top:.6g}) scale({across:.6g} {down:.6g})"
    return [element("g", *paths, *_hatching(tones), transform=place, shape_rendering="crispEdges")]


def _hatching(tones: Sequence[Tone]) -> list[str]:
    """One path for all strokes of the same class."""
    strokes: dict[int, list[str]] = {}
    for k, (best, _) in enumerate(tones):
        if best is not None and (d := _hatch(best, k % CELLS, CELLS - 1 - k // CELLS)):
            strokes.setdefault(best, []).append(d)
    return [
        element("path", class_=f"hatch {hue(best)}", d="".join(d), shape_rendering="auto")  # slanting: not crisp
        for best, d in strokes.items()
    ]


def _hatch(kind: int, x: int, y: int) -> str:
    """The strokes through a cell: none for the first five classes, then rising ones, falling ones, and both."""
    turn = kind // HUES % 4
    rising = f"M{x} {y + 1}l1-1" if turn & 1 and (x + y) % EVERY == 0 else ""
    falling = f"M{x} {y}l1 1" if turn & 2 and (x - y) % EVERY == 0 else ""
    return rising + falling


def _dots(points: Sequence[Point], labels: Sequence[int], names: Sequence[str], frame: Frame) -> list[str]:
    groups: dict[int, list[str]] = {}
    for (x, y), i in zip(points, labels):
        about = f"{elided(names[i], 30)} at ({shown(x, 3)}, {shown(y, 3)})"
        groups.setdefault(i, []).append(with_tooltip(about, element("path", d=mark(i, *frame.at(x, y), 3.2))))
    return [element("g", *dots, class_=f"dot {hue(i)}") for i, dots in sorted(groups.items())]


def _sample(i: int) -> str:
    strokes = "".join(_hatch(i, x, y) for y in range(4) for x in range(6))
    hatching = element("path", class_="hatch", d=strokes, transform="translate(0 -7) scale(4 3.5)")
    dot = element("path", class_="dot", d=mark(i, 12, 0, 3.5))
    return _swatch(hue(i), DEEPEST, *[hatching] * bool(strokes), dot)


def _swatch(colour: str, opacity: float, *marks: str) -> str:
    ground = element("rect", class_="region", fill_opacity=opacity, x=0, y=-7, width=24, height=14)
    return element("g", ground, *marks, class_=colour)
