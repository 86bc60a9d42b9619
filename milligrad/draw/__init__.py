"""Pictures of a graph: as text, DOT, Mermaid, SVG, HTML and PNG.

The function stands here, so that `import milligrad` is quick; the rest is imported when it is first called.
"""

from __future__ import annotations

from collections.abc import Sequence

from milligrad.engine import Value
from milligrad.typing import TYPE_CHECKING

if TYPE_CHECKING:
    from milligrad.draw.graph import Graph
    from milligrad.nn.module import Module

__all__ = ["draw"]


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
