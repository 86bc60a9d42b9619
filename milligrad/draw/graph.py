"""Graph: a picture that shows itself in a notebook, prints as a tree of text, and is saved to a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from milligrad import markup
from milligrad.draw.dot import dot
from milligrad.draw.layout import check_direction
from milligrad.draw.mermaid import mermaid
from milligrad.draw.model import Picture, picture_of_module, picture_of_value
from milligrad.draw.text import text, top
from milligrad.engine import Value
from milligrad.expected import size
from milligrad.files import save
from milligrad.markup import count
from milligrad.nn.module import Module

OWN = Path(__file__)  # its page has the style of graph.css and the script of graph.js


def drawn(
    x: Value | Module,
    *,
    model: Module | None,
    direction: str,
    precision: int,
    max_nodes: int | None,
    highlight: Value | Iterable[Value] | None,
) -> Graph:
    """The Graph of a Value or of a Module; `milligrad.draw` says what the options mean."""
    if not isinstance(x, Value | Module):
        raise TypeError(f"x: expected a Value or a Module, got {type(x).__name__} {x!r:.60}")
    if isinstance(x, Value):
        picture = picture_of_value(x, model=model, max_nodes=max_nodes, highlight=highlight, precision=precision)
    elif model is not None or highlight is not None:
        raise ValueError(f"{'model' if model is not None else 'highlight'}: expected None in a picture of a Module")
    else:
        picture = picture_of_module(x, max_nodes=max_nodes)
    return Graph(picture, direction, precision)


class Graph:
    """A picture, and the direction and the number of digits it is shown with.

    direction:  where the output is: "LR" right, "RL" left, "TB" below, "BT" above
    precision:  significant digits
    """

    def __init__(self, picture: Picture, direction: str = "LR", precision: int = 4) -> None:
        check_direction(direction)
        self.picture, self.direction, self.precision = picture, direction, size(precision, "precision")

    def __str__(self) -> str:
        return text(self.picture, self.precision)

    def __repr__(self) -> str:
        nodes, edges = count(len(self.picture.nodes), "node"), count(len(self.picture.edges), "edge")
        return f"<Graph {self.picture.title}: {nodes}, {edges}>"

    def dot(self) -> str:
        """The text that Graphviz reads."""
        return dot(self.picture, self.direction, self.precision)

    def mermaid(self) -> str:
        """The text that Mermaid reads."""
        return mermaid(self.picture, self.direction, self.precision)

    def svg(self) -> str:
        """The picture as SVG."""
        from milligrad.draw.svg import svg

        return svg(self.picture, self.direction, self.precision)

    def html(self) -> str:
        """A page with the picture as SVG and, for screen readers and for copying, as text.

        A picture that is wider than the window is made as small as to fit; a button shows it in full size, and what it
        is of: the output, or the module that contains the others.
        """
        title = markup.elided(self.picture.title, 120)
        tree = markup.element("pre", markup.text(self), tabindex=0)
        figure = {"tabindex": 0, "role": "group", "aria_label": "The picture", "data_first": f"n{top(self.picture)}"}
        return markup.page(
            title,
            markup.element("h1", markup.text(title)),
            *[markup.element("p", markup.text(self.picture.note))] * bool(self.picture.note),
            markup.element("button", "100 %", type="button", hidden="hidden"),
            markup.element("figure", self.svg(), **figure),
            markup.element("details", markup.element("summary", "The same as text"), tree),
            style=OWN.with_suffix(".css").read_text(encoding="utf-8"),
            script=OWN.with_suffix(".js").read_text(encoding="utf-8"),
        )

    def png(self) -> bytes:
        """The picture as Graphviz draws it. Raises FileNotFoundError if Graphviz is not installed."""
        import subprocess

        try:
            done = subprocess.run(["dot", "-Tpng"], input=self.dot().encode(), capture_output=True)
        except FileNotFoundError:
            raise FileNotFoundError(NO_GRAPHVIZ) from None
        if done.returncode:
            raise RuntimeError(f"Graphviz could not draw it: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def _repr_svg_(self) -> str:
        """What a notebook shows: ids are those of this picture alone, since others stand on the same page."""
        from milligrad.draw.svg import svg

        return svg(self.picture, self.direction, self.precision, f"graph{id(self):x}-")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture in the format that the name ends in: .svg, .html, .dot or .gv, .mmd (Mermaid), .png.

        Only .png needs something: Graphviz. The file is written in one step: there is never half of it.
        """
        save(
            path,
            {
                ".svg": self.svg,
                ".html": self.html,
                ".dot": self.dot,
                ".gv": self.dot,
                ".mmd": self.mermaid,
                ".png": self.png,
            },
        )


NO_GRAPHVIZ = """\
A .png is drawn by Graphviz, whose program dot is not there. One of these installs it:
    apt-get install graphviz
    brew install graphviz
    winget install graphviz
Or save a .svg, which needs nothing."""
