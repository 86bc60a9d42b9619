"""A chart shows itself, is saved, stands beside others, and takes whatever names there are as text."""

import os
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from milligrad.charts import Chart, beside, confusion_matrix, decision_regions, grid, images, lines
from milligrad.charts.chart import CORNERS, HUES, PALETTE, STYLE, hue, legend, mark
from milligrad.markup import DARK, LIGHT
from tests.charts.reading import TAGS, S, assert_legible, centre, of_class, parsed, texts_within, words
from tests.draw.graphs import NASTY
from tests.page import Page

POINTS = [(0.0, 0.0), (1.0, 2.0)]


def of_every_kind(name):
    """A chart of each kind, with `name` wherever a user's text stands."""
    return [
        lines({name: [1.0, None, 3.0], "other": [1.0, 200.0, 3.0]}, title=name, x_label=name or "epoch"),
        confusion_matrix([[3, 1], [0, 2]], [name, "other"], title=name),
        images([[0.0, 1.0]], (1, 2), [[name, "second line"]], title=name),
        decision_regions(POINTS, [0, 1], [[0.3, 0.7]] * len(grid(POINTS)), title=name, names=[name, "other"]),
    ]


@pytest.mark.parametrize("name", NASTY)
def test_whatever_a_name_contains_it_is_text_that_fits(name, tmp_path):
    plain = [[e.tag for e in parsed(chart).iter()] for chart in of_every_kind("plain")]
    for chart, tags in zip(of_every_kind(name), plain):
        root = parsed(chart)
        assert [e.tag for e in root.iter()] == tags
        assert_legible(chart)
        whole = "".join(c if c in "\n\t" or (c >= " " and not "\ud800" <= c <= "\udfff") else "\ufffd" for c in name)
        if "\r" not in name:
            assert (root.find(f"{S}title").text or "") == whole
        page = Page(chart.html())
        assert not page.texts("script") and len(page.texts("svg")) == 1
        for suffix in (".svg", ".html"):
            chart.save(tmp_path / f"chart{suffix}")
        assert len(repr(chart)) <= 208 and "\n" not in repr(chart)


def test_an_svg_says_in_words_what_is_to_be_seen():
    for chart in of_every_kind("loss"):
        root = parsed(chart)
        assert [e.tag for e in root][:3] == [f"{S}title", f"{S}desc", f"{S}style"]
        assert root.get("role") == "img" and root.find(f"{S}desc").text == chart.about != ""
        assert root.find(f"{S}title").text == chart.title == "loss"
        assert root.get("viewBox") == f"0 0 {chart.width:.6g} {chart.height:.6g}"
        assert chart._repr_svg_() == chart.svg()
        assert repr(chart).startswith("<Chart loss: ")


def test_charts_on_one_page_do_not_clash():
    root = parsed(beside(of_every_kind("loss"), "all"))
    assert not [e for e in root.iter() if e.get("id")]
    for rule in re.findall(r"([^{}]+)\{[^{}]*\}", STYLE):
        assert all(one.strip().startswith((".milligrad-chart", "@media")) for one in rule.split(",")), rule
    names = {*re.findall(r"var\(--(\w+)\)", STYLE)} - {"hue"}
    assert names <= LIGHT.keys() == DARK.keys()


def test_series_and_classes_have_no_colour_that_tells_a_sign():
    assert not {"blue", "orange", "red"} & {*PALETTE}
    assert len({LIGHT[name] for name in PALETTE}) == len({DARK[name] for name in PALETTE}) == HUES == 5


def test_charts_beside_each_other_are_one_and_keep_apart():
    charts = of_every_kind("loss")
    row = beside(charts, "all of them")
    assert_legible(row)
    groups = [g for g in parsed(row) if g.tag == f"{S}g"]
    lefts = [float(re.match(r"translate\((\S+) 0\)", g.get("transform"))[1]) for g in groups]
    for left, after, chart in zip(lefts, [*lefts[1:], row.width + 16], charts):
        assert after == pytest.approx(left + chart.width + 16)
    assert row.height == max(chart.height for chart in charts) and row.title == "all of them"
    assert all(f"{chart.title}: {chart.about}" in row.about for chart in charts)
    with pytest.raises(ValueError, match="charts: expected at least one Chart"):
        beside([], "none")


@pytest.mark.parametrize("suffix", [".svg", ".html", ".SVG"])
@pytest.mark.parametrize("kind", [str, Path])
def test_the_name_of_the_file_says_the_format(tmp_path, suffix, kind):
    chart = of_every_kind("loss")[0]
    file = tmp_path / f"my chart{suffix}"
    assert chart.save(kind(file)) is None
    assert file.read_text(encoding="utf-8") == (chart.html() if suffix == ".html" else chart.svg())
    assert os.listdir(tmp_path) == [file.name]


@pytest.mark.parametrize("path", ["chart.png", "chart", ".svg", "x.svg.txt", ""])
def test_other_names_are_refused(tmp_path, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"path: expected a name that ends in \.svg, \.html, got"):
        of_every_kind("loss")[0].save(path)
    assert os.listdir(tmp_path) == []


def test_a_page_scrolls_its_chart_by_the_keyboard_and_says_it_in_words():
    chart = of_every_kind("loss")[1]
    page = Page(chart.html())
    [figure] = [attributes for tag, attributes, _ in page.elements if tag == "figure"]
    assert figure == {"tabindex": "0", "role": "group", "aria-label": "loss"}
    assert page.texts("h1") == ["loss"] and chart.about in page.texts("p")


def test_every_mark_has_a_shape_of_its_own_about_its_centre():
    shapes = [mark(kind, 30.0, 20.0, 4.0) for kind in range(len(CORNERS))]
    assert len({*shapes}) == len(CORNERS) and mark(len(CORNERS), 30.0, 20.0, 4.0) == shapes[0]
    assert len({(hue(kind), mark(kind, 30.0, 20.0, 4.0)) for kind in range(30)}) == 30
    for d in shapes:
        assert centre(ET.Element("path", d=d)) == pytest.approx((30.0, 20.0), abs=1.1)


def test_a_chart_is_wide_enough_for_its_title_up_to_the_width_of_most():
    for n in (1, 10, 24, 35, 42):
        for chart in of_every_kind("x" * n):
            assert words(parsed(chart), "heading") == ["x" * n] and chart.width <= 356
            assert_legible(chart)
    for chart in of_every_kind("x" * 43):
        assert words(parsed(chart), "heading")[0].endswith("x…")


def test_a_legend_that_is_too_long_for_a_row_takes_more():
    parts, y = legend([("", name * 20) for name in "abcdefg"], 356.0, 34.0)
    chart = Chart("t", "a", 356.0, y, parts)
    assert_legible(chart)
    rows = {top for _, (_, top, _, _) in texts_within(parsed(chart))}
    assert len(rows) == 7 and y == 34.0 + 7 * 16
    assert words(parsed(chart), "label") == [name * 20 for name in "abcdefg"]


def test_no_element_of_another_kind_occurs():
    assert {e.tag.removeprefix(S) for chart in of_every_kind("x") for e in parsed(chart).iter()} == TAGS
    assert of_class(parsed(of_every_kind("x")[0]), "curve")
