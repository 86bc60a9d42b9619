"""What a picture of a graph shows, as data: its nodes, its edges and a note. Made of a Value's history here.

How it is shown (text, DOT, Mermaid, SVG, a page) is the business of a writer each; they read this and no Values.

    order   the Values of a graph, inputs first: a Value's place in it is its number
    name    what the user called a Value; without one it is v1, v2, … in order
    edge    from an input to what was computed of it, with ∂target/∂source
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from milligrad.engine import Value, partials_as_numbers, topological_order
from milligrad.typing import Any


@dataclass(slots=True)
class Node:
    """A Value; or a group of them (`count` > 1), or a layer.

    name:     what it is called everywhere: "speed", or "v3" if the user gave no name. Untrusted text of any length.
    kind:     "leaf", "constant" (requires no gradient), "computed", "group" (folded), "cut" (not shown further), "module"
    op:       the row that made it: "mul"; "" for a leaf. For a module its class.
    formula:  how it was made: "speed * v2"; "" for a leaf. For a module what its repr shows in parentheses.
    data, grad: numbers; None where there is no single one
    about:    lines of further text, shown as they are: "2,080 parameters"
    place:    where the user's code made it ("file.py:12: y = x * w"), if that was recorded
    """

    name: str
    kind: str = "leaf"
    op: str = ""
    formula: str = ""
    data: float | None = None
    grad: float | None = None
    count: int = 1
    about: tuple[str, ...] = ()
    place: str = ""
    highlighted: bool = False


@dataclass(slots=True)
class Edge:
    """From nodes[source] to nodes[target].

    derivative:  ∂target/∂source, None where there is no single one (or it does not exist)
    gradient:    target.grad · derivative: what came back along this edge; its size gives colour and width
    label:       further text: "× 32" edges that were folded into one
    contains:    the target is a part of the source (a module and its child): nothing flows
    """

    source: int
    target: int
    derivative: float | None = None
    gradient: float | None = None
    label: str = ""
    contains: bool = False
    highlighted: bool = False


@dataclass(slots=True)
class Picture:
    """Nodes, inputs before what is computed of them, and the edges between them.

    title:      one line: what it is of
    note:       what is not shown, or shown folded, and why; "" if everything is shown
    largest:    the largest |grad| and |gradient| of all that is finite: the scale of colours and widths
    """

    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    title: str = ""
    note: str = ""
    largest: float = 0.0


def strength(gradient: float | None, largest: float) -> float:
    """The size of a gradient from 0 to 1, by its logarithm: 1 is the largest, 0 is none or less than a millionth."""
    if gradient is None or gradient != gradient or not gradient or not largest:
        return 0.0
    if math.isinf(gradient):
        return 1.0
    return min(1.0, max(0.0, 1 + math.log10(abs(gradient) / largest) / 6))
