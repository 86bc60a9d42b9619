"""Lines: series of numbers over epochs, as SVG or on axes of matplotlib that were handed in.

A number that is missing, NaN or infinite leaves a gap. Series differ in colour, in dashes and in their marks.
matplotlib itself is never imported: its Axes object has all that is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby, pairwise

from milligrad.charts.axes import Frame, is_far, logarithmic, span, values
from milligrad.charts.chart import LEADING, TOP, WIDTH, Chart, heading, hue, label, legend, mark, with_tooltip
from milligrad.expected import items, number, string
from milligrad.markup import element, elided, shown
from milligrad.typing import Any

DASHES = ("none", "6 4", "2 3", "9 3 2 3")
HEIGHT = 180.0
MANY = 40  # points: more of them are not marked, but still tell about themselves when pointed at
FINE, COARSE = 1.0, 2.0  # of so much width a line takes two points, and two are marked: 10,000 epochs are a small file


def lines(
    series: Mapping[str, Sequence[float | None]],
    x: Sequence[float] | None = None,
    *,
    title: str,
    x_label: str = "epoch",
    percent: bool = False,
) -> Chart:
    """Each series by its name over the numbers x (None: 1, 2, 3 …).

    The axis is logarithmic if all numbers are above 0 and the largest is more than 50 times the smallest, but never
    with `percent`. Of points closer than pixels the lowest and the highest are drawn. Raises ValueError if there is no
    series, or one that is empty or not as long as x; and TypeError for what is no number, or no string for a name.
    """
    xs, columns = checked(series, x)
    string(x_label, "x_label")
    log, numbers = _is_log(columns, percent), _finite(columns)
    keys, top = legend([(_sample(i), name) for i, name in enumerate(columns)], WIDTH, TOP + 8)
    top += LEADING + 4 if log else 0
    axis = logarithmic(numbers) if log else values(numbers, percent=percent)
    frame = Frame(span(xs, WIDTH - 80, whole=_is_whole(xs)), axis, WIDTH, top, HEIGHT)
    curves = [_curve(frame, i, name, xs, ys, x_label, percent) for i, (name, ys) in enumerate(columns.items())]
    gaps = sum(ys.count(None) for ys in columns.values())
    return Chart(
        title,
        " ".join(_told(name, xs, ys, x_label, percent) for name, ys in columns.items()),
        WIDTH,
        frame.bottom + (3.5 if gaps else 2.5) * LEADING,
        [
            heading(title, WIDTH),
            *keys,
            *[label("logarithmic scale", 8, top - 13, "label")] * log,
            *frame.drawn(x_label),
            *curves,
            *[label(f"not finite or missing: {gaps}", 8, frame.bottom + 3.2 * LEADING, "note")] * bool(gaps),
        ],
    )


def lines_on(
    ax: Any,
    series: Mapping[str, Sequence[float | None]],
    x: Sequence[float] | None = None,
    *,
    title: str,
    x_label: str = "epoch",
    percent: bool = False,
    first: int = 0,
) -> list[Any]:
    """The same on an Axes of matplotlib; returns its lines. `first` is the number of the first colour.

    Where its numbers stand on the right it gets no label: in a figure of pyplot that would be cut off.
    """
    xs, columns = checked(series, x)
    drawn = []
    for i, (name, ys) in enumerate(columns.items()):
        style: dict[str, Any] = {"color": f"C{first + i}", "linestyle": ("-", "--", ":", "-.")[i % 4], "markersize": 3}
        if marked := [k for k in range(len(ys)) if len(ys) <= MANY or _is_alone(ys, k)]:
            style |= {"marker": "os^DvP"[(first + i) % 6], "markevery": marked}
        drawn += ax.plot(xs, [math.nan if y is None else y for y in ys], label=_plain(name), **style)
    if _is_log(columns, percent):
        ax.set_yscale("log")
    if _is_whole(xs):
        ax.locator_params(axis="x", integer=True, min_n_ticks=1)
    if percent:
        ax.yaxis.set_major_formatter(partial(_percent, ax.yaxis))
    ax.set_xlabel(_plain(x_label))
    if not _is_right(ax):
        ax.set_ylabel(_plain(title))
    return drawn


def _is_alone(ys: Sequence[float | None], k: int) -> bool:
    """Whether a number has a gap, or nothing, on both sides: no line leads to it."""
    return all(not 0 <= i < len(ys) or ys[i] is None for i in (k - 1, k + 1))


def _percent(axis: Any, y: float, _: int | None = None) -> str:
    """A share with as many digits as its axis of matplotlib takes to tell its ticks apart."""
    ticks = axis.get_majorticklocs()
    near = min((b - a for a, b in pairwise(ticks)), default=1.0) / 100
    places = next((n for n in range(10) if all(abs(round(x, n + 2) - x) < near for x in ticks)), 10)
    return f"{y:.{places}%}"


def _is_right(ax: Any) -> bool:
    return bool(ax.yaxis.get_label_position() == "right")


def legend_on(axes: Sequence[Any]) -> None:
    """One legend of all lines of an Axes and its twins, on the last of them, where it covers the least of the lines.

    "best" would look at the lines of its own Axes alone.
    """
    drawn = [line for ax in axes for line in ax.lines if not line.get_label().startswith("_child")]  # it has no name
    names = [line.get_label() + " (right)" * (len(axes) > 1 and _is_right(line.axes)) for line in drawn]
    for ax in axes:
        ax.autoscale_view()  # else it would wait until all is drawn
        if ax.get_legend():
            ax.get_legend().remove()
    paths = [line.get_path().transformed(line.get_transform()) for line in drawn]

    def covered(place: int) -> int:
        box = axes[-1].legend(drawn, names, loc=place).get_window_extent()
        return sum(box.count_contains(path.vertices) + path.intersects_bbox(box, filled=False) for path in paths)

    best = min(range(1, 11), key=covered)  # of all places that matplotlib has within the Axes
    axes[-1].legend(drawn, names, loc=best)


def _plain(s: str) -> str:
    """A text that matplotlib does not take for a formula."""
    return s.replace("$", r"\$")


def checked(
    series: Mapping[str, Sequence[float | None]], x: Sequence[float] | None
) -> tuple[list[float], dict[str, list[float | None]]]:
    """The numbers of x and of each series, None for those that are not finite."""
    if not isinstance(series, Mapping):
        raise TypeError(f"series: expected a dict of numbers by name, got {type(series).__name__} {series!r:.60}")
    if not series:
        raise ValueError("series: expected at least one, got none")
    columns = {string(name, "a name in series"): _numbers(ys, name) for name, ys in series.items()}
    n = len(next(iter(columns.values()))) if x is None else len(items(x, "x", "numbers"))
    xs = list(range(1, n + 1)) if x is None else _numbers(x, "x")
    if not n or None in xs:
        raise ValueError(f"x: expected at least one number, all of them finite, got {xs!r:.60}")
    for name, ys in columns.items():
        if len(ys) != n:
            raise ValueError(f"series: expected {n} numbers in {name!r:.60}, one for each of x, got {len(ys)}")
    return xs, columns  # type: ignore[return-value]


def _numbers(ys: Any, name: str) -> list[float | None]:
    return [_number(y, f"{name}[{i}]") for i, y in enumerate(items(ys, name, "numbers"))]


def _number(y: Any, name: str) -> float | None:
    z = math.nan if y is None else number(y, name, "a number or None")
    return z if math.isfinite(z) else None


def _finite(columns: Mapping[str, Sequence[float | None]]) -> list[float]:
    return [y for ys in columns.values() for y in ys if y is not None]


def _is_log(columns: Mapping[str, Sequence[float | None]], percent: bool) -> bool:
    numbers = _finite(columns)
    return bool(numbers) and not percent and is_far(numbers)


def _is_whole(xs: Sequence[float]) -> bool:
    return all(x == int(x) for x in xs)


def _sample(i: int) -> str:
    line = element("path", class_="curve", d="M0 0H24", stroke_dasharray=DASHES[i % len(DASHES)])
    return element("g", line, element("path", class_="dot", d=mark(i, 12, 0, 3.5)), class_=hue(i))


def _curve(
    frame: Frame, i: int, name: str, xs: list[float], ys: list[float | None], x_label: str, percent: bool
) -> str:
    """The line, broken at its gaps, and a mark on each number: what stands alone is always seen."""
    across = [frame.at(x, frame.y.lo)[0] for x in xs]
    kept, marked = _extremes(across, ys, FINE), {*_extremes(across, ys, COARSE)}
    d, dots = [], []
    for before, k, after in zip([None, *kept], kept, [*kept[1:], None]):
        if (y := ys[k]) is None:
            continue
        starts, ends = (other is None or ys[other] is None for other in (before, after))
        place = frame.at(xs[k], y)
        d.append(f"{'M' if starts else 'L'}{place[0]:.5g} {place[1]:.5g}")
        if k in marked or (starts and ends):
            seen = "dot" if len(xs) <= MANY or (starts and ends) else "dot unseen"
            about = f"{elided(name, 60)}, {x_label} {shown(xs[k], 6)}: {_shown(y, percent, 6)}"
            dots.append(with_tooltip(about, element("path", class_=seen, d=mark(i, *place, 3.5))))
    line = element("path", class_="curve", d="".join(d), stroke_dasharray=DASHES[i % len(DASHES)])
    return element("g", *[line] * bool(d), *dots, class_=f"series {hue(i)}")


def _extremes(across: Sequence[float], ys: Sequence[float | None], wide: float) -> list[int]:
    """Which numbers are the least and the largest of all in a strip so wide; and both ends, and the gaps in a strip."""
    kept = {0, len(ys) - 1}
    for _, strip in groupby(range(len(ys)), lambda k: across[k] // wide):
        numbers = {k: ys[k] for k in strip}
        finite = {k: y for k, y in numbers.items() if y is not None}
        gaps = [k for k in numbers if k not in finite]
        kept |= {*gaps[:1], *gaps[-1:]}
        if finite:
            kept |= {min(finite, key=finite.__getitem__), max(finite, key=finite.__getitem__)}
    return sorted(kept)


def _shown(y: float, percent: bool, precision: int = 4) -> str:
    return f"{y:.2%}" if percent else shown(y, precision)


def _told(name: str, xs: list[float], ys: list[float | None], x_label: str, percent: bool) -> str:
    """In words what a line shows: "loss falls from 2.31 to 0.12 from epoch 1 to epoch 15."."""
    points = [(x, y) for x, y in zip(xs, ys) if y is not None]
    gaps = [shown(x, 6) for x, y in zip(xs, ys) if y is None]
    name = elided(name, 60)
    if not points:
        return f"{name} has no finite number."
    (x0, y0), (x1, y1) = points[0], points[-1]
    course = "falls" if y1 < y0 else "rises" if y1 > y0 else "goes"
    told = f"{name} {course} from {_shown(y0, percent)} to {_shown(y1, percent)}"
    told += f" from {x_label} {shown(x0, 6)} to {x_label} {shown(x1, 6)}"
    if len(points) == 1:
        told = f"{name} is {_shown(y0, percent)} at {x_label} {shown(x0, 6)}"
    if gaps:
        more = f" and {len(gaps) - 5} more" * (len(gaps) > 5)
        told += f"; no finite number at {x_label} {', '.join(gaps[:5])}{more}"
    return told + "."
