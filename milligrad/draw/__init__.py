"""Pictures of a graph: as text, DOT, Mermaid, SVG, HTML and PNG; and a page that plays how it is computed.

The functions stand here, so that `import milligrad` is quick; the rest is imported when one is first called.
"""

from __future__ import annotations

from collections.abc import Sequence

from milligrad.engine import Value
from milligrad.typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

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
    Each node shows its name, its operation, its number and its `.grad`; each edge the local derivative ∂target/∂source;
    of a source that goes into the target twice, as in x * x, one edge that through the 1st x, and one through the 2nd.
    Colour and width tell the size of the gradient that came back along it: draw after `backward`, and before
    `optimizer.step()`: once numbers have changed, formulas of them do not hold any more, and a note says how many.

    Who has no name of its own is called v1, v2, … on every page: first what was given, then what was computed, in the
    order in which it was made.

    model:      a Module whose parameters' names to show: "hidden.weight[0][1]".
    direction:  where the output is, as in Graphviz: "LR" right, "RL" left, "TB" below, "BT" above.
    precision:  significant digits of the numbers; a constant in a formula has at least 6.
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
    path: str | PathLike[str],
    *,
    model: Module | None = None,
    direction: str = "LR",
    precision: int = 4,
    max_nodes: int | None = 300,
) -> None:
    """Write a page that plays how `value` was computed, and then the backward pass, node by node: "lesson.html".

    Each step shows its formula with the numbers put in, and what it adds to which gradient. The page plays by itself or
    step by step, with the mouse, by touch or by keys; printed, it lists all steps, below the picture if that can be
    read on one sheet. It is one file that needs no other and no network. Its gradients begin at 0 and are those of one
    `value.backward()`; no `.grad` is read or changed.

    model:      a Module whose parameters' names to show.
    direction:  where the output is: "LR" right, "RL" left, "TB" below, "BT" above.
    precision:  significant digits of the numbers; a constant in a formula has at least 6, and an equation has as
                many more as it takes to be true.
    max_nodes:  of how many Values the graph may be at most; None for any number.

    Raises TypeError for what is no Value, RuntimeError for one that requires no gradient, ValueError for a graph that
    is too large or whose numbers changed since it was computed (call it before `optimizer.step()`), for a bad option,
    and for a path that does not end in .html; and what Python's arithmetic raises where a derivative does not exist.
    Then no file is written.
    """
    from milligrad.draw.lesson import lesson
    from milligrad.files import save

    def page() -> str:
        return lesson(value, model=model, direction=direction, precision=precision, max_nodes=max_nodes)

    save(path, {".html": page})
