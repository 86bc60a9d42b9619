"""The page of a picture in a real browser."""

import pytest

from milligrad import Linear, Sequential, Tanh, draw
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
    assert fits(page) and page.locator("script").count() == 0
    assert page.locator(".node").count() == 5
