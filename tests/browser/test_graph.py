"""The page of a picture in a real browser."""

import re

import pytest

from milligrad import Linear, Sequential, Tanh, Value, draw
from milligrad.draw.graph import Graph
from tests.browser.conftest import fits, violations
from tests.draw.graphs import NASTY, named, small


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["graph", "model", "folded"])
def test_it_keeps_to_the_guidelines_for_accessible_pages(visit, tmp_path, size, scheme, kind):
    model = Sequential(Linear(2, 12), Tanh(), Linear(12, 1))
    graph = {
        "graph": lambda: draw(small()),
        "model": lambda: draw(model),
        "folded": lambda: draw(model([0.5, -0.5])[0], max_nodes=20),
    }[kind]()
    graph.save(tmp_path / "graph.html")
    page = visit(tmp_path / "graph.html", size, color_scheme=scheme)
    page.get_by_text("The same as text").click()
    assert page.locator("pre").is_visible()
    assert fits(page) and violations(page) == []


@pytest.mark.parametrize("name", NASTY)
def test_names_are_text(visit, tmp_path, name):
    Graph(named(name)).save(tmp_path / "graph.html")
    page = visit(tmp_path / "graph.html", "phone")
    assert fits(page) and page.locator("script").count() == 1
    assert page.locator(".node").count() == 5


@pytest.mark.parametrize(
    "name", ["𝕏" * 50, "𝒘" * 20 + "_1", "𒐫" * 9, "﷽", "𓀀𓁐", "漢字" * 9, "🎉" * 9, "w" * 50, "W" * 50]
)
def test_whatever_letters_a_name_has_it_stays_in_its_box(visit, tmp_path, name):
    x = Value(1.0, name)
    draw(x * x).save(tmp_path / "graph.html")
    page = visit(tmp_path / "graph.html")
    for node in page.locator(".node").all():
        room = node.locator(".box").evaluate("(box) => box.getBBox().width")
        lines = [line.evaluate("(line) => line.getBBox().width") for line in node.locator("text").all()]
        assert max(lines) < room


def wide(kind):
    """A picture that is wider than any window, and the node that it is of."""
    model = Sequential(*[layer for _ in range(6) for layer in (Linear(2, 2), Tanh())])
    if kind == "model":
        return draw(model), 0
    graph = draw(model([0.5, -0.5])[0])
    return graph, len(graph.picture.nodes) - 1


def is_seen(page, selector):
    return page.locator(selector).evaluate(
        """node => {
          const [a, b] = [node, node.closest("figure")].map((each) => each.getBoundingClientRect());
          return a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
        }"""
    )


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("kind", ["graph", "model"])
def test_a_wide_picture_fits_the_window_until_its_full_size_is_asked_for(visit, tmp_path, size, kind):
    graph, first = wide(kind)
    graph.save(tmp_path / "graph.html")
    page = visit(tmp_path / "graph.html", size)
    svg, button = page.locator("figure svg"), page.get_by_role("button")
    natural, window = float(svg.get_attribute("width")), page.evaluate("innerWidth")
    assert natural > window and svg.bounding_box()["width"] <= window and button.text_content() == "100 %"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert svg.bounding_box()["width"] == pytest.approx(natural, abs=1) and button.text_content() == "Fit"
    assert is_seen(page, f"#n{first}") and fits(page) and violations(page) == []
    page.keyboard.press("Space")
    assert svg.bounding_box()["width"] <= window and button.text_content() == "100 %"


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_without_a_script_it_fits_the_window(visit, tmp_path, size):
    wide("graph")[0].save(tmp_path / "graph.html")
    page = visit(tmp_path / "graph.html", size, java_script_enabled=False)
    assert page.locator("figure svg").bounding_box()["width"] <= page.viewport_size["width"]
    assert not page.get_by_role("button").is_visible()


def test_a_picture_that_fits_has_no_button(visit, tmp_path):
    draw(small()).save(tmp_path / "graph.html")
    page = visit(tmp_path / "graph.html")
    assert not page.get_by_role("button").is_visible()
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_role("button").wait_for()


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("direction", ["LR", "TB"])
def test_paper_has_the_whole_picture_on_one_page(visit, tmp_path, direction, full):
    graph = wide("graph")[0]
    Graph(graph.picture, direction).save(tmp_path / "graph.html")
    page = visit(tmp_path / "graph.html")
    if full and page.get_by_role("button").is_visible():
        page.get_by_role("button").click()
    printed = page.pdf(format="A4")
    assert len(re.findall(rb"/Type /Page\b", printed)) == 1
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 700, "height": 1000})
    box = page.locator("figure svg").bounding_box()
    assert box["width"] <= 700 and box["y"] + box["height"] <= 1000
    assert page.locator("figure").evaluate("(figure) => getComputedStyle(figure).overflow") == "visible"
