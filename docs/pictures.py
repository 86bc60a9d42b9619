"""Draws the pictures of the README again: `python docs/pictures.py`."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS.parent / "examples")]

from decision_boundaries import PROBLEMS, boundary, learn  # noqa: E402

from milligrad import Value, draw  # noqa: E402
from milligrad.charts import beside  # noqa: E402


def neuron():
    """The small example of the README."""
    x, w, b = Value(0.5, name="x"), Value(-1.2, name="w"), Value(0.3, name="b")
    y = (x * w + b).tanh()
    y.name = "y"
    y.backward()
    return draw(y, highlight=w)


def boundaries():
    """The three pictures of the example, in a row."""
    charts = [boundary(learn(data, epochs=60), data, name) for name, data in PROBLEMS.items()]
    return beside(charts, "What a network says all over the plane: moons, circles and spiral")


if __name__ == "__main__":
    boundaries().save(DOCS / "boundaries.svg")
    neuron().save(DOCS / "neuron.svg")
