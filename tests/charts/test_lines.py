"""Lines: the places of points, read by the ticks, are the numbers; gaps are gaps; matplotlib gets the same."""

import math
import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milligrad.charts import beside, lines
from milligrad.charts.lines import lines_on
from tests.charts.reading import assert_legible, centre, hover, inverse, of_class, parsed, shape, ticks, words
from tests.draw.graphs import NASTY

NUMBERS = st.floats(-1e6, 1e6) | st.none() | st.sampled_from([math.nan, math.inf, -math.inf])


def dots(group):
    """(x, y) in the picture of each mark of a series, and what it tells."""
    return [(centre(g[1]), hover(g)) for g in group if g.find("{http://www.w3.org/2000/svg}title") is not None]


def assert_same(corners, marks):
    assert len(corners) == len(marks)
    for corner, mark in zip(corners, marks):
        assert corner == pytest.approx(mark, abs=1.0)  # the middle of a triangle is not that of its box


def vertices(group):
    """The corners of a line, in pieces between its gaps."""
    d = "".join(path.get("d") for path in group if "curve" in path.get("class", ""))
    return [[tuple(map(float, p.split())) for p in piece.split("L")] for piece in d.split("M")[1:]]


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=12))
def test_points_stand_at_their_numbers_and_what_is_not_finite_leaves_a_gap(rows):
    series = dict(zip(["a", "b"], zip(*rows)))
    chart = lines(series, title="t")
    root = parsed(chart)
    assert_legible(chart)
    log = bool(words(root, "label")) and "logarithmic scale" in words(root, "label")
    y_of = inverse(ticks(root, "y"), log)
    places = ticks(root, "x")
    groups = of_class(root, "series")
    assert len(groups) == 2
    top, bottom = ticks(root, "y")[-1], ticks(root, "y")[0]
    for group, ys in zip(groups, series.values()):
        finite = [(i + 1, y) for i, y in enumerate(ys) if y is not None and math.isfinite(y)]
        found = dots(group)
        assert len(found) == len(finite)
        assert_same([p for piece in vertices(group) for p in piece], [p for p, _ in found])
        for ((px, py), about), (x, y) in zip(found, finite):
            near = abs(y_of(py + 0.8) - y_of(py - 0.8))
            assert y_of(py) == pytest.approx(y, abs=near)
            assert bottom[1] + 1 >= py >= top[1] - 1
            if len(places) > 1:
                assert inverse(places)(px) == pytest.approx(x, abs=0.05)
            told = float(re.search(r": (\S+)$", about)[1].replace("−", "-"))
            assert f"epoch {x}: " in about and told == pytest.approx(y, rel=1e-5)
        pieces = "".join("x" if y is not None and math.isfinite(y) else " " for y in ys).split()
        assert [len(piece) for piece in vertices(group)] == [len(piece) for piece in pieces]


def test_what_is_missing_is_counted_where_everybody_sees_it():
    series = {"a": [1.0, None, math.inf, 2.0], "b": [math.nan, 1.0, 1.0, 1.0]}
    assert words(parsed(lines(series, title="t")), "note") == ["not finite or missing: 3"]
    assert_legible(lines(series, title="t"))
    assert words(parsed(lines({"a": [1.0, 2.0]}, title="t")), "note") == []


def test_a_line_is_straight_between_its_points_in_the_order_of_the_epochs():
    [group] = of_class(parsed(lines({"a": [1.0, 3.0, 2.0]}, title="t")), "series")
    [corners] = vertices(group)
    assert_same(corners, [p for p, _ in dots(group)])
    xs = [x for x, _ in corners]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1]) and xs[0] < xs[1]
    ys = [y for _, y in corners]
    assert ys[0] - ys[1] == pytest.approx(2 * (ys[2] - ys[1]), rel=1e-4) and ys[1] < ys[0]  # up is less in SVG


def test_the_numbers_of_x_are_taken_where_they_are_given():
    root = parsed(lines({"a": [1.0, 2.0, 3.0]}, [0.0, 0.5, 2.0], title="t", x_label="time"))
    [group] = of_class(root, "series")
    x_of = inverse(ticks(root, "x"))
    assert [x_of(x) for (x, _), _ in dots(group)] == pytest.approx([0.0, 0.5, 2.0], abs=0.02)
    assert words(root, "label", "middle") == ["time"]
    assert hover(group[1]) == "a, time 0: 1"


def test_a_wide_range_is_logarithmic_and_says_so():
    chart = lines({"loss": [2.0, 0.5, 0.01]}, title="loss")
    root = parsed(chart)
    assert "logarithmic scale" in words(root, "label")
    heights = [y for (_, y), _ in dots(of_class(root, "series")[0])]
    steps = [heights[1] - heights[0], heights[2] - heights[1]]
    assert steps[1] / steps[0] == pytest.approx(math.log(50) / math.log(4), rel=1e-3)
    for numbers, percent in (([2.0, 0.5, 0.1], False), ([0.9, 0.01], True), ([3.0, 0.0], False)):
        root = parsed(lines({"a": numbers}, title="t", percent=percent))
        assert "logarithmic scale" not in words(root, "label")


def test_an_accuracy_is_in_percent():
    chart = lines({"accuracy": [0.5, 0.975]}, title="accuracy", percent=True)
    root = parsed(chart)
    assert words(root, "tick", "y")[-1] == "100%"
    assert dots(of_class(root, "series")[0])[1][1] == "accuracy, epoch 2: 97.50%"
    assert chart.about == "accuracy rises from 50.00% to 97.50% from epoch 1 to epoch 2."


@pytest.mark.parametrize(
    ("numbers", "about"),
    [
        ([2.31, 0.5, 0.12], "a falls from 2.31 to 0.12 from epoch 1 to epoch 3."),
        ([1.0, 1.0], "a goes from 1 to 1 from epoch 1 to epoch 2."),
        ([0.25], "a is 0.25 at epoch 1."),
        ([None, 2.0, math.nan], "a is 2 at epoch 2; no finite number at epoch 1, 3."),
        ([1.0, *[math.inf] * 7, 2.0], "a rises from 1 to 2 from epoch 1 to epoch 9; "
         "no finite number at epoch 2, 3, 4, 5, 6 and 2 more."),
        ([None, None], "a has no finite number."),
    ],
)  # fmt: skip
def test_words_say_how_it_went(numbers, about):
    assert lines({"a": numbers}, title="t").about == about


def test_series_are_told_apart_without_colour_and_by_their_names():
    root = parsed(lines({name: [1.0, 2.0 + i] for i, name in enumerate("abcde")}, title="t"))
    groups, keys = of_class(root, "series"), of_class(root, "key")
    looks = []
    for group, key in zip(groups, keys, strict=True):
        line, sample = of_class(group, "curve")[0], of_class(key, "curve")[0]
        hue = group.get("class").split()[1]
        assert line.get("stroke-dasharray") == sample.get("stroke-dasharray") and of_class(key, hue)
        shapes = [re.sub(r"[\d. −-]+", "", of_class(g, "dot")[0].get("d")) for g in (group, key)]
        assert shapes[0] == shapes[1]
        looks.append((line.get("stroke-dasharray"), shapes[0], hue))
    assert len({*looks}) == 5 and len({dash for dash, *_ in looks}) == 4 and len({hue for *_, hue in looks}) == 5
    assert [words(key)[0] for key in keys] == [*"abcde"]


def looks_of(group):
    dash = of_class(group, "curve")[0].get("stroke-dasharray")
    return group.get("class").split()[1], dash, shape(of_class(group, "dot")[0])


def test_twenty_series_are_told_apart_with_marks_and_without():
    root = parsed(lines({f"s{i}": [1.0, 2.0 + i] for i in range(20)}, title="t"))
    looks = [looks_of(group) for group in of_class(root, "series")]
    assert len({(hue, dash) for hue, dash, _ in looks}) == len({(hue, mark) for hue, _, mark in looks}) == 20


def test_twenty_series_are_told_apart_on_axes_of_matplotlib(ax):
    from matplotlib.colors import to_hex
    from matplotlib.lines import Line2D

    drawn = lines_on(ax, {f"s{i}": [1.0, 2.0 + i] for i in range(20)}, title="t")
    colours = [to_hex(line.get_color()) for line in drawn]
    assert len({*colours}) == 10
    for how in (Line2D.get_linestyle, Line2D.get_marker):
        assert len({*zip(colours, map(how, drawn))}) == 20


def test_the_key_stands_above_the_lines():
    root = parsed(lines({name * 30: [1.0, 2.0] for name in "abcdefgh"}, title="t"))
    lowest = max(float(key.get("transform").split()[1].rstrip(")")) for key in of_class(root, "key"))
    assert lowest + 8 < min(y for group in of_class(root, "series") for (_, y), _ in dots(group))


def test_one_epoch_is_a_dot_and_many_are_marked_only_where_they_stand_alone():
    [dot] = (of_class(parsed(lines({"a": [0.5]}, title="t")), "series")[0].iter("{http://www.w3.org/2000/svg}g"),)
    assert "unseen" not in [*dot][1][1].get("class")
    [group] = of_class(parsed(lines({"a": [1.0] * 50 + [None, 2.0, None]}, title="t")), "series")
    assert len(of_class(group, "dot")) == 51 and len(of_class(group, "unseen")) == 50
    assert not of_class(parsed(lines({"a": [1.0] * 40}, title="t")), "unseen")


def noise(n):
    random = Random(n)
    return [1 + random.random() for _ in range(n)]


def test_ten_thousand_epochs_are_a_small_file():
    chart = lines({"a": noise(10_000), "b": noise(10_000)[::-1]}, title="t")
    assert len(beside([chart, chart], "two of them").svg()) < 200_000
    assert len(lines({"a": [1.0, None] * 5_000}, title="t").svg()) < 50_000


@pytest.mark.parametrize("epoch", [1, 2, 777, 5_000, 9_999, 10_000])
@pytest.mark.parametrize("spike", [40.0, -40.0])
def test_a_spike_of_one_epoch_in_ten_thousand_is_drawn_and_told(epoch, spike):
    ys = noise(10_000)
    ys[epoch - 1] = spike
    root = parsed(lines({"a": ys}, title="t"))
    [group], y_of, x_of = of_class(root, "series"), inverse(ticks(root, "y")), inverse(ticks(root, "x"))
    [corners] = vertices(group)
    x, y = max(corners, key=lambda corner: abs(y_of(corner[1])))
    assert y_of(y) == pytest.approx(spike, abs=0.1) and x_of(x) == pytest.approx(epoch, abs=10)
    assert f"a, epoch {epoch}: {spike:.0f}".replace("-", "−") in [about for _, about in dots(group)]


@pytest.mark.parametrize("seed", range(5))
def test_of_many_points_none_lies_outside_of_what_is_drawn_at_its_pixel(seed):
    ys = [None if Random(seed + i).random() < 0.3 else y for i, y in enumerate(noise(1500))]
    root = parsed(lines({"a": ys}, title="t"))
    [group], y_of, x_of = of_class(root, "series"), inverse(ticks(root, "y")), inverse(ticks(root, "x"))
    corners = [(x_of(x), y_of(y)) for piece in vertices(group) for x, y in piece]
    pixel = x_of(1) - x_of(0)
    for epoch, y in enumerate(ys, 1):
        near = [b for a, b in corners if abs(a - epoch) <= 1.1 * pixel]
        assert y is None or min(near) - 0.01 <= y <= max(near) + 0.01


def test_a_gap_of_one_epoch_in_ten_thousand_breaks_the_line():
    [group] = of_class(parsed(lines({"a": [1.0] * 5_000 + [None] + [2.0] * 4_999}, title="t")), "series")
    left, right = vertices(group)
    assert left[0][1] == left[-1][1] > right[0][1] == right[-1][1]


@pytest.mark.parametrize(
    ("series", "x", "error", "message"),
    [
        ({}, None, ValueError, "series: expected at least one, got none"),
        ({"a": []}, None, ValueError, "x: expected at least one number"),
        ({"a": [1.0]}, [math.nan], ValueError, "x: expected at least one number, all of them finite"),
        ({"a": [1.0, 2.0], "b": [1.0]}, None, ValueError, "series: expected 2 numbers in 'b', one for each of x"),
        ({"a": [1.0, "2"]}, None, TypeError, r"a\[1\]: expected a number or None, got str '2'"),
        ({"a": [10**400]}, None, TypeError, r"a\[0\]: expected a number or None, got int 1000"),
    ],
)  # fmt: skip
def test_bad_input_is_explained(series, x, error, message):
    with pytest.raises(error, match=message):
        lines(series, x, title="t")


@pytest.fixture
def ax():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, ax = pyplot.subplots()
    yield ax
    figure.canvas.draw()
    pyplot.close(figure)


def test_axes_of_matplotlib_get_the_same_numbers_and_names(ax):
    drawn = lines_on(
        ax, {"loss": [2.0, None, 0.01], "val_loss": [1.0, 2.0, math.inf]}, [1, 2, 4], title="loss", first=2
    )
    assert ax.lines[:] == drawn
    assert [[*line.get_xdata()] for line in drawn] == [[1, 2, 4]] * 2
    assert [*drawn[0].get_ydata()] == pytest.approx([2.0, math.nan, 0.01], nan_ok=True)
    assert [*drawn[1].get_ydata()] == pytest.approx([1.0, 2.0, math.nan], nan_ok=True)
    assert [line.get_label() for line in drawn] == ["loss", "val_loss"]
    assert [line.get_color() for line in drawn] == ["C2", "C3"]
    assert [line.get_linestyle() for line in drawn] == ["-", "--"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("epoch", "loss", "log")


def test_axes_of_matplotlib_show_whole_epochs(ax):
    lines_on(ax, {"loss": [1.0, 0.5, 0.25]}, title="loss")
    assert {*ax.get_xticks()} >= {1.0, 2.0, 3.0} and all(x == int(x) for x in ax.get_xticks())
    ax.clear()
    lines_on(ax, {"loss": [1.0, 0.5, 0.25]}, [0.0, 0.25, 0.5], title="loss", x_label="time")
    assert any(x != int(x) for x in ax.get_xticks())


def test_axes_of_matplotlib_mark_each_of_40_points_and_of_more_those_that_stand_alone(ax):
    few, many, holes = (
        lines_on(ax, {"a": ys}, title="a")[0] for ys in ([1.0] * 40, [1.0] * 41, [1.0, None, *[2.0] * 40, None, 3.0])
    )
    assert few.get_marker() != "None" and few.get_markevery() == [*range(40)]
    assert many.get_marker() == "None"
    assert holes.get_marker() != "None" and holes.get_markevery() == [0, 43]


def test_axes_of_matplotlib_show_percent(ax):
    lines_on(ax, {"accuracy": [0.5, 1.0]}, title="accuracy", percent=True)
    ax.figure.canvas.draw()
    assert ax.yaxis.get_major_formatter()(0.5) == "50%" and ax.get_yscale() == "linear"
    for ends, told in (((0.9712, 0.9731), "50.000%"), ((0.0, 0.1), "50%"), ((0.2, 0.225), "50.0%")):
        ax.set_ylim(*ends)
        assert ax.yaxis.get_major_formatter()(0.5) == told


@pytest.mark.parametrize("name", ["$x^$", "_hidden", *NASTY])
def test_names_are_text_for_matplotlib_too(ax, name):
    if any(c in name for c in "🎉名\x07\ud800\t\r"):
        pytest.skip("matplotlib's own font has no sign for it")
    lines_on(ax, {name: [1.0, 2.0]}, title=name, x_label=name)
    ax.legend(handles=ax.lines)
