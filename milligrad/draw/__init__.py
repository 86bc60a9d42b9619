"""Pictures of a graph: as text, DOT, Mermaid, SVG, HTML and PNG; and as a lesson that plays it step by step.

The two functions stand here, so that `import milligrad` is quick; the rest is imported when they are first called.
"""

from __future__ import annotations

from collections.abc import Sequence

from milligrad.engine import Value
from milligrad.typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from milligrad.draw.graph import Graph
    from milligrad.nn.module import Module

__all__ = ["draw", "step_through"]


def draw(
    x: Value | Module,
    *,
    model: Module | None = None,
    direction: str = "LR",
    precision: int = 4,
    max_nodes: int | None = 300,
    highlight: Value | Sequence[Value] | None = None,
) -> Graph:
    """A picture of what `x` was computed from; of a Module, its layers and how many parameters each has.

    A notebook shows it; `print` gives a tree of text; `.save("x.svg")` writes a file, also .html, .dot, .mmd and .png.
    Each node shows its name (its own, or v1, v2, … in the order of computing), its operation, its number and its
    `.grad`; each edge the local derivative ∂target/∂source. Colour and width tell the size of the gradient that came
    back along it: draw after `backward`.

    model:      a Module whose parameters' names to show: "hidden.weight[0][1]".
    direction:  where the output is, as in Graphviz: "LR" right, "RL" left, "TB" below, "BT" above.
    precision:  significant digits of the numbers.
    max_nodes:  a graph of more nodes is folded, Values of one layer and operation into one node; if that is not enough
                it is shown to a depth. The picture says so. None shows everything.
    highlight:  a Value: all paths from it to x stand out. A list of Values: the path along them does.

    Raises TypeError for what is neither a Value nor a Module, ValueError for a bad option or a Value to highlight that
    is not part of the graph.
    """
    from milligrad.draw.graph import drawn

    return drawn(x, model=model, direction=direction, precision=precision, max_nodes=max_nodes, highlight=highlight)


def step_through(
    value: Value,
    path: str | os.PathLike[str],
    *,
    model: Module | None = None,
    title: str | None = None,
    direction: str = "LR",
    precision: int = 4,
    max_nodes: int = 300,
) -> None:
    """Write a lesson: one HTML file that plays how `value` was computed, and then its backward pass, node by node.

    It opens by a double click and needs no network and no server. The gradients in it start from 0; those stored in
    the Values are neither used nor changed. The options are those of `draw`. Raises TypeError for what is no Value,
    ValueError for a path that does not end in .html, and for a graph of more than `max_nodes` nodes, which nobody
    would step through.
    """
    from milligrad.draw.lesson import write

    write(value, path, model=model, title=title, direction=direction, precision=precision, max_nodes=max_nodes)
