"""Draws the pictures of the README again: `python docs/pictures.py`."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from milligrad import Value, draw  # noqa: E402


def neuron():
    """The small example of the README."""
    x, w, b = Value(0.5, name="x"), Value(-1.2, name="w"), Value(0.3, name="b")
    y = (x * w + b).tanh()
    y.name = "y"
    y.backward()
    return draw(y, highlight=w)


if __name__ == "__main__":
    neuron().save(DOCS / "neuron.svg")
