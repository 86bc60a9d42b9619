"""The page of an explanation in a real browser."""

import pytest

from milligrad import BCELoss, Linear, ReLU, Sequential, Sigmoid, Value, explain, manual_seed
from tests.browser.conftest import fits, violations
from tests.draw.graphs import NASTY


def of_paths():
    x, w = Value(0.5, "x"), Value(-1.2, "w")
    y = (x * w + w * w).tanh() * w
    y.backward()
    return explain(y, wrt=w)


def of_trouble():
    manual_seed(0)
    model = Sequential(Linear(2, 4), ReLU(), Linear(4, 1), Sigmoid())
    model[0].bias.copy_([-50.0] * 4)
    return explain(lambda: BCELoss()([p for (p,) in model([[0.0, 1.0], [1.0, 0.0]])], [0, 1]), model=model)


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("made", [of_paths, of_trouble])
def test_it_keeps_to_the_guidelines_for_accessible_pages(visit, tmp_path, size, scheme, made):
    made().save(tmp_path / "explanation.html")
    page = visit(tmp_path / "explanation.html", size, color_scheme=scheme)
    assert fits(page) and violations(page) == []
    assert page.locator("table, section").count() > 0


@pytest.mark.parametrize("name", NASTY)
def test_names_are_text(visit, tmp_path, name):
    x = Value(2.0, name)
    z = x * x
    z.name = name
    explain(z, wrt=x).save(tmp_path / "explanation.html")
    page = visit(tmp_path / "explanation.html", "phone")
    assert fits(page) and page.locator("script").count() == 0
    assert page.locator("table").count() == 2
