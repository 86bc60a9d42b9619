"""The page about a training run in a real browser."""

import re

import pytest

from milligrad import History
from milligrad.__main__ import main
from milligrad.charts import beside, confusion_matrix, images, lines
from tests.browser.conftest import fits, violations
from tests.draw.graphs import NASTY


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Of real runs, short ones: the digits have all sections, xor has a decision boundary."""
    folder = tmp_path_factory.mktemp("reports")
    main(["digits", "--epochs", "1", "--hidden", "8", "--report", str(folder / "digits.html")])
    main(["xor", "--epochs", "30", "--report", str(folder / "xor.html")])
    return folder


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["digits", "xor"])
def test_it_keeps_to_the_guidelines_for_accessible_pages(visit, reports, size, scheme, name):
    page = visit(reports / f"{name}.html", size, color_scheme=scheme)
    assert fits(page) and violations(page) == []
    assert all(page.locator("h2").nth(i).is_visible() for i in range(page.locator("h2").count()))


def test_the_pictures_of_digits_are_drawn(visit, reports):
    page = visit(reports / "digits.html")
    loaded = page.evaluate("Promise.all([...document.querySelectorAll('image')].map(i => i.decode().then(() => 1)))")
    assert len(loaded) > 8  # the weights of 8 hidden numbers, and digits that were misread


PAPER = {"width": 718, "height": 1047}  # of an A4 page with the margins that browsers leave


def in_columns(page, height):
    """Breaks a page that is to be printed into columns as high as a sheet: a browser breaks these by the same rules."""
    page.emulate_media(media="print")
    page.set_viewport_size({**PAPER, "height": height})
    sheet = f"height: {height}px; columns: {PAPER['width']}px; column-fill: auto"
    page.add_style_tag(content=f"body {{ padding: 0 }} main {{ {sheet} }}")


@pytest.mark.parametrize("height", [1047, *range(600, 1000, 25)])
def test_on_paper_no_heading_and_no_sentence_stands_alone_at_the_foot_of_a_page(visit, reports, height):
    page = visit(reports / "digits.html", bypass_csp=True)
    in_columns(page, height)
    sheets = page.evaluate(
        """[...document.querySelectorAll("section:has(figure)")].map(section => ["h2", "p", "figure"].flatMap(tag =>
        [...section.querySelector(tag).getClientRects()].map(box => Math.floor(box.x / 718))))"""
    )
    assert len(sheets) == 3 and all(len({*sheet}) == 1 for sheet in sheets)
    assert max(max(sheet) for sheet in sheets) > 0


@pytest.mark.parametrize(
    "chart",
    [
        confusion_matrix([[1] * 30] * 30, title="wide"),
        beside([lines({"loss": [2.0, 1.0]}, title="loss")] * 4, "wide"),
        images([[0.0, 1.0]] * 100, (1, 2), [["one"]] * 100, title="high", across=2),
        lines({"loss": [2.0, 1.0]}, title="small"),
    ],
    ids=["matrix", "beside", "high", "small"],
)
def test_a_chart_is_printed_whole_on_one_page(visit, tmp_path, chart):
    chart.save(tmp_path / "chart.html")
    page = visit(tmp_path / "chart.html")
    assert len(re.findall(rb"/Type /Page\b", page.pdf(format="A4"))) == 1
    page.emulate_media(media="print")
    page.set_viewport_size(PAPER)
    box, figure = (page.locator(what).bounding_box() for what in ("main svg", "figure"))
    assert box["x"] + box["width"] <= figure["x"] + figure["width"] <= 718
    assert box["width"] == pytest.approx(min(chart.width, figure["width"]), abs=1) or chart.title == "high"


@pytest.mark.parametrize("name", NASTY)
def test_names_of_columns_are_text(visit, tmp_path, name):
    history = History(["epoch", "loss", name])
    history.epochs = [{"epoch": i, "loss": 1 / i, name: i} for i in (1, 2, 3)]
    history.plot(name).save(tmp_path / "chart.html")
    page = visit(tmp_path / "chart.html", "phone")
    assert fits(page) and page.locator("script").count() == 0
    assert page.locator(".series").count() == 1
