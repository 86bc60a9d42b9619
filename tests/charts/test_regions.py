"""Regions: the ground, read back cell by cell, is what was answered there; points stand at their numbers."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad.charts import decision_regions, grid
from milligrad.charts.regions import CELLS, DEEPEST, FAINTEST
from tests.charts.reading import (
    assert_legible,
    dots,
    frame_of,
    ground,
    hatching,
    inverse,
    of_class,
    parsed,
    shape,
    ticks,
    words,
)

POINTS = [(-1.0, 0.0), (3.0, 1.0), (0.5, 4.0), (1.0, 2.0)]


def rule(point):
    """Three probabilities that anybody can compute again."""
    x, y = point
    z = [math.sin(2 * x), math.cos(y), 0.5 * x * y]
    total = math.fsum(map(math.exp, z))
    return [math.exp(v) / total for v in z]


def test_the_ground_is_what_was_answered_at_each_place():
    at = grid(POINTS)
    root = parsed(decision_regions(POINTS, [0, 1, 2, 0], [rule(p) for p in at], title="t"))
    x_of, y_of = (inverse(ticks(root, axis)) for axis in "xy")
    left, top, across, down = frame_of(root)
    cells = ground(root)
    for (i, j), (kind, opacity) in cells.items():
        x, y = x_of(left + (j + 0.5) * across), y_of(top + (i + 0.5) * down)
        assert (x, y) == pytest.approx(at[(CELLS - 1 - i) * CELLS + j], abs=0.02)
        answer = rule(at[(CELLS - 1 - i) * CELLS + j])
        assert answer[kind] == max(answer)
        level = min(int(4 * (max(answer) - 1 / 3) / (2 / 3)), 3)
        assert opacity == pytest.approx(FAINTEST + (DEEPEST - FAINTEST) * level / 3, rel=1e-5)
    assert len({*cells.values()}) > 5


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=1, max_size=8))
def test_the_places_are_even_and_reach_around_the_points(points):
    at = grid(points)
    assert len(at) == CELLS**2 and at[0][0] < at[1][0] and at[0][1] == at[1][1] < at[CELLS][1]
    for k in (0, 1):
        found = sorted({p[k] for p in at})
        assert len(found) == CELLS
        least, most = min(p[k] for p in points), max(p[k] for p in points)
        margin = 0.15 * (most - least) or 1.0
        half = (found[1] - found[0]) / 2
        assert found[0] - half == pytest.approx(least - margin, abs=1e-6)
        assert found[-1] + half == pytest.approx(most + margin, abs=1e-6)


def test_points_stand_at_their_numbers_with_the_mark_of_their_class():
    labels = [0, 1, 2, 0]
    chart = decision_regions(POINTS, labels, [rule(p) for p in grid(POINTS)], title="t", names=["red", "green", "blue"])
    assert_legible(chart)
    root = parsed(chart)
    x_of, y_of = (inverse(ticks(root, axis)) for axis in "xy")
    found = sorted((x_of(x), y_of(y), kind, about) for kind, (x, y), about in dots(root))
    for (x, y, kind, about), (point, label) in zip(found, sorted(zip(POINTS, labels)), strict=True):
        assert (x, y) == pytest.approx(point, abs=0.04) and kind == label
        assert about.startswith(["red", "green", "blue"][kind] + " at (")
    shapes = [re.sub(r"[\d. −-]+", "", g[0][1].get("d")) for g in of_class(root, "dot") if g.tag.endswith("}g")]
    keys = [re.sub(r"[\d. −-]+", "", of_class(key, "dot")[0].get("d")) for key in of_class(root, "key")]
    assert shapes == keys and len({*shapes}) >= 2
    assert [words(key)[0] for key in of_class(root, "key")] == ["red", "green", "blue"]


@given(st.lists(st.integers(0, 1), min_size=4, max_size=4))
def test_words_count_the_points_in_the_region_of_their_own(labels):
    probabilities = [[0.9, 0.1] if x < 1.5 else [0.2, 0.8] for x, _ in grid(POINTS)]
    right = sum((x >= 1.5) == label for (x, _), label in zip(POINTS, labels))
    about = decision_regions(POINTS, labels, probabilities, title="t").about
    assert about == f"4 points of 2 classes; {right} of them lie in the region of their own."


def test_a_single_point_of_a_single_class_is_a_picture():
    chart = decision_regions([(1.0, 1.0)], [0], [[1.0]] * CELLS**2, title="t")
    assert_legible(chart)
    assert {*ground(parsed(chart)).values()} == {(0, DEEPEST)}


def test_twenty_classes_are_told_apart_on_the_ground_by_their_points_and_in_the_legend():
    answers = [[float(k == (i % CELLS) * 20 // CELLS) for k in range(20)] for i in range(CELLS**2)]
    points = [(float(k), 1.0) for k in range(20)]
    chart = decision_regions(points, range(20), answers, title="t")
    assert_legible(chart)
    root = parsed(chart)
    cells, strokes = ground(root), hatching(root)
    looks = [set() for _ in range(20)]
    for (i, j), (hue, _) in cells.items():
        looks[j * 20 // CELLS].add(f"hue{hue}")
        looks[j * 20 // CELLS] |= strokes[i, j]
    assert len({frozenset(look) for look in looks}) == 20
    for k, look in enumerate(looks):  # the strokes have the colour of their class and lie nowhere else
        assert {s if isinstance(s, str) else s[1] for s in look} == {f"hue{k % 5}"}
    shapes = [(g.get("class"), shape(g[0][1])) for g in of_class(root, "dot") if len(g)]
    assert len({*shapes}) == 20
    keys = of_class(root, "key")
    for k, key in enumerate(keys):
        ways = {re.sub(r"M\d+ \d+", "", d) for path in of_class(key, "hatch") for d in path.get("d").split("M")[1:]}
        ways = {way[way.index("l") :] for way in ways}
        assert ways == {s[0] for s in looks[k] if not isinstance(s, str)}


@pytest.mark.parametrize("wrong", [[math.nan] * 3, [0.1, math.nan, 0.9], [math.inf, 0.0, 0.0]])
def test_where_the_answer_is_no_number_a_cell_is_of_its_own_kind_and_the_legend_says_so(wrong):
    at = grid(POINTS)
    chart = decision_regions(POINTS, [0] * 4, [wrong if x < 0 else [0.8, 0.2, 0.0] for x, _ in at], title="t")
    assert_legible(chart)
    root = parsed(chart)
    for (i, j), tone in ground(root).items():
        x, _ = at[(CELLS - 1 - i) * CELLS + j]
        assert tone == (None, 1.0) if x < 0 else tone[0] == 0
    assert [words(key)[0] for key in of_class(root, "key")] == ["class 0", "class 1", "class 2", "no number"]
    unknown = sum(x < 0 for x, _ in at)
    assert chart.about == (
        "4 points of 3 classes; 3 of them lie in the region of their own. "
        f"At {unknown:,} of 4,096 places the answer is no number."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": [], "labels": []}, "points: expected at least one, each of two finite numbers"),
        ({"points": [(1.0, 2.0), (0.0, float("nan"))] * 2}, "points: expected at least one, each of two finite"),
        ({"points": [(1.0, 2.0, 3.0)] * 4}, "points: expected at least one, each of two finite numbers"),
        ({"labels": [0]}, "labels: expected 4, one for each point, got 1"),
        ({"labels": [0, 1, 2, 0]}, r"labels\[2\]: expected a class from 0 to 1, got 2"),
        ({"probabilities": [[1.0, 0.0]]}, "probabilities: expected 4096, one for each place of the grid, got 1"),
        ({"names": ["a"]}, "names: expected 2, one for each probability of an answer, got 1"),
    ],
)
def test_bad_input_is_explained(change, message):
    arguments = {
        "points": POINTS,
        "labels": [0, 1, 1, 0],
        "probabilities": [[0.5, 0.5]] * CELLS**2,
        "names": None,
        **change,
    }
    with pytest.raises(ValueError, match=message):
        decision_regions(**arguments, title="t")
