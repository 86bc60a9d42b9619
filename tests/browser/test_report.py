"""The page about a training run in a real browser."""

import pytest

from milligrad import History
from milligrad.__main__ import main
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


@pytest.mark.parametrize("name", NASTY)
def test_names_of_columns_are_text(visit, tmp_path, name):
    history = History(["epoch", "loss", name])
    history.epochs = [{"epoch": i, "loss": 1 / i, name: i} for i in (1, 2, 3)]
    history.plot(name).save(tmp_path / "chart.html")
    page = visit(tmp_path / "chart.html", "phone")
    assert fits(page) and page.locator("script").count() == 0
    assert page.locator(".series").count() == 1
