"""Draws the pictures of the README again: `python docs/pictures.py`. The screenshot needs Playwright and Chromium."""

import shutil
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS.parent / "examples")]

from decision_boundaries import PROBLEMS, boundary, learn  # noqa: E402

from milligrad import Value, draw, step_through  # noqa: E402
from milligrad.charts import beside  # noqa: E402


def neuron():
    """The small example of the README."""
    x, w, b = Value(0.5, name="x"), Value(-1.2, name="w"), Value(0.3, name="b")
    y = (x * w + b).tanh()
    y.name = "y"
    y.backward()
    return y, draw(y, highlight=w)


def lesson(path):
    """A screenshot of the page that plays it, in the middle of the backward pass."""
    from playwright.sync_api import sync_playwright

    y, _ = neuron()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder, "lesson.html")
        step_through(y, page)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 940, "height": 650}, device_scale_factor=1.5)
        tab.goto(page.as_uri())
        for _ in range(7):
            tab.keyboard.press("ArrowRight")
        tab.screenshot(path=path)
        browser.close()


def boundaries():
    """The three pictures of the example, in a row."""
    charts = [boundary(learn(data, epochs=60), data, name) for name, data in PROBLEMS.items()]
    return beside(charts, "What a network says all over the plane: moons, circles and spiral")


if __name__ == "__main__":
    boundaries().save(DOCS / "boundaries.svg")
    neuron()[1].save(DOCS / "neuron.svg")
    lesson(DOCS / "lesson.png")
