"""A confusion matrix: each count in its cell, coloured so that mistakes are seen, and legible."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milligrad.charts import confusion_matrix
from milligrad.charts.chart import PALETTE
from milligrad.charts.confusion import DEEPEST
from milligrad.markup import DARK, LIGHT
from tests.charts.reading import assert_legible, hover, of_class, parsed, texts_within, words

COUNTS = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 10**6), min_size=n, max_size=n), min_size=n, max_size=n)
)


def cells(chart):
    """(left, top), count, hue and depth of each cell, row by row."""
    found = []
    for g in of_class(parsed(chart), "count"):
        box = of_class(g, "cell")[0]
        count = words(g)[0]
        place = float(box.get("x")), float(box.get("y"))
        found.append(
            (place, 0 if count == "·" else int(count), g.get("class").split()[1], float(box.get("fill-opacity")))
        )
    return found


@given(COUNTS)
def test_every_count_stands_in_its_row_and_column(counts):
    chart = confusion_matrix(counts, title="t")
    assert_legible(chart)
    n, found = len(counts), cells(chart)
    assert [count for _, count, *_ in found] == [count for row in counts for count in row]
    xs, ys = sorted({x for (x, _), *_ in found}), sorted({y for (_, y), *_ in found})
    assert [place for place, *_ in found] == [(x, y) for y in ys for x in xs] and len(xs) == len(ys) == n
    for k, (_, count, hue, depth) in enumerate(found):
        i, j = divmod(k, n)
        assert hue == ("hue0" if i == j else "hue1")
        assert (depth == 0.0) == (count == 0) and (not count or 0.14 < depth <= DEEPEST)
    right = sum(row[i] for i, row in enumerate(counts))
    assert chart.about.startswith(f"{right} of {sum(map(sum, counts))} were read right.")


def test_the_deeper_the_larger_the_share_of_the_row_and_one_in_a_hundred_is_seen():
    depths = {count: depth for _, count, _, depth in cells(confusion_matrix([[99, 1], [50, 150]], title="t"))}
    assert 0 < depths[1] < depths[50] < depths[150] < depths[99]
    assert depths[1] - 0.15 == pytest.approx((depths[99] - 0.15) * (1 / 99) ** 0.5, rel=1e-4)


def test_a_cell_tells_its_row_and_column_and_the_axes_are_named():
    root = parsed(confusion_matrix([[3, 1], [0, 2]], ["cat", "dog"], title="Pets"))
    assert [hover(g) for g in of_class(root, "count")] == [
        "is cat, read as cat: 3 of 4",
        "is cat, read as dog: 1 of 4",
        "is dog, read as cat: 0 of 2",
        "is dog, read as dog: 2 of 2",
    ]
    assert words(root, "label")[:2] == ["read as", "is"] and words(root, "heading") == ["Pets"]
    assert words(root, "tick", "end") == words(root, "tick", "middle") == ["cat", "dog"]
    rows = [float(t.get("y")) for t in of_class(root, "tick", "end")]
    assert rows == [float(of_class(g, "cell")[0].get("y")) + 19 for g in of_class(root, "count")[::2]]


def heads(chart):
    """(name, the middle of it) of each column, and whether they are read upwards."""
    root = parsed(chart)
    names = [e.text for e in of_class(root, "head")]
    boxes = [box for name, box in texts_within(root) if name in names and box[3] < cells(chart)[0][0][1]]
    longest = max(range(len(names)), key=lambda i: len(names[i]))
    left, top, right, bottom = boxes[longest]
    return names, [(box[0] + box[2]) / 2 for box in boxes], bottom - top > 40 > right - left


@pytest.mark.parametrize(
    ("names", "shown", "turned"),
    [
        ([f"class {i} long name" for i in range(10)], [f"class {i} long name" for i in range(10)], True),
        ([f"class{i}" for i in range(10)], [f"class{i}" for i in range(10)], False),
        ([str(i) for i in range(30)], [str(i) for i in range(30)], False),
        (
            [f"a class with the number {i}" for i in range(9)],
            [f"{i} a class with the numb…" for i in range(9)],
            True,
        ),
        (["same", "same", "other"], ["0 same", "1 same", "2 other"], True),
        (["one that is long, to its very end", "b"], ["one that is long, to it…", "b"], True),
    ],
)
def test_long_names_are_turned_and_no_two_look_the_same(names, shown, turned):
    n = len(names)
    chart = confusion_matrix([[100 * (i == j) for j in range(n)] for i in range(n)], names, title="t")
    assert_legible(chart)
    found, middles, upwards = heads(chart)
    assert found == words(parsed(chart), "tick", "end") == shown and upwards == turned
    side = float(of_class(parsed(chart), "cell")[0].get("width"))
    lefts = [place[0] for place, *_ in cells(chart)[:n]]
    assert middles == pytest.approx([left + side / 2 for left in lefts], abs=1.0)


def test_the_most_frequent_mistakes_come_first_in_words():
    about = confusion_matrix([[9, 1, 0], [4, 9, 2], [0, 3, 9]], title="t").about
    assert about == (
        "27 of 37 were read right. The most frequent mistakes: 1 as 0, 4 times; 2 as 1, 3 times; 1 as 2, 2 times."
    )
    once = confusion_matrix([[9, 1], [2, 9]], title="t").about
    assert once == "18 of 21 were read right. The most frequent mistakes: 1 as 0, 2 times; 0 as 1, once."
    assert confusion_matrix([[9]], title="t").about == "9 of 9 were read right."
    assert confusion_matrix([[0, 0], [0, 0]], title="t").about == "0 of 0 were read right."


def luminance(colour):
    """WCAG 2, relative luminance."""
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("hue", PALETTE[:2])
def test_a_count_is_legible_on_the_deepest_colour(theme, hue):
    paper, ink, colour = ([int(c, 16) / 255 for c in re.findall("..", theme[k][1:])] for k in ("paper", "ink", hue))
    under = [DEEPEST * c + (1 - DEEPEST) * p for c, p in zip(colour, paper)]
    bright, dim = sorted([luminance(under), luminance(ink)], reverse=True)
    assert (bright + 0.05) / (dim + 0.05) >= 4.5


@pytest.mark.parametrize(
    ("counts", "names", "message"),
    [
        ([], None, "counts: expected n rows of n numbers"),
        ([[1, 2]], None, r"counts: expected n rows of n numbers, got rows of \[2\]"),
        ([[1]], ["a", "b"], "names: expected 1, one for each row of counts, got 2"),
    ],
)
def test_bad_input_is_explained(counts, names, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(counts, names, title="t")
