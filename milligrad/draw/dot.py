"""A picture in DOT, the language of Graphviz: https://graphviz.org/doc/info/lang.html.

The text needs nothing; to lay it out takes Graphviz. Its colours are the light ones of our pages.
"""

from __future__ import annotations

import math
import re

from milligrad.draw.model import Edge, Node, Picture, strength
from milligrad.markup import COLOURS, elided, shown
from milligrad.markup import text as allowed

COLOUR: dict[str, str] = dict(re.findall(r"--(\w+): (#\w+)", COLOURS.partition("@media")[0]))
FONT = f'fontname="DejaVu Sans Mono,monospace", fontsize=11, fontcolor="{COLOUR["ink"]}"'
STYLE = {
    "leaf": f'style=filled, fillcolor="{COLOUR["panel"]}"',
    "constant": f'style="filled,dashed", fillcolor="{COLOUR["panel"]}"',
    "computed": "style=rounded",
    "group": "peripheries=2",
    "cut": "style=dotted",
    "module": "style=rounded",
}


def dot(picture: Picture, direction: str = "LR", precision: int = 4) -> str:
    """The whole graph: a box for each node, and an arrow for each edge with its local derivative."""
    lines = [
        "digraph {",
        f'  graph [rankdir={direction}, label="{quoted(picture.note)}", tooltip="{quoted(picture.title)}", {FONT}]',
        f'  node [shape=box, color="{COLOUR["line"]}", {FONT}]',
        f'  edge [color="{COLOUR["line"]}", {FONT}]',
    ]
    largest = picture.largest
    lines += [f"  n{i} [{_of_node(node, largest, precision)}]" for i, node in enumerate(picture.nodes)]
    lines += [f"  n{e.source} -> n{e.target} [{_of_edge(e, largest, precision)}]" for e in picture.edges]
    return "\n".join([*lines, "}\n"])


SPECIAL = re.compile('[&"\\\\\x00-\x1f\ud800-\udfff\ufffe\uffff]')


def quoted(s: str) -> str:
    r"""`s` for between quotes, so that it is shown as it is: not as one of Graphviz's escapes (\N) or entities (&lt;)."""
    if not SPECIAL.search(s):
        return s
    return allowed(s).replace("\\", "\\\\").replace('"', '\\"').replace("\r", "").replace("\n", "\\n")


def colour(gradient: float | None) -> str:
    """The name of the colour that tells the sign of a gradient, and whether it is one."""
    if not gradient:
        return "line"
    return "red" if not math.isfinite(gradient) else "blue" if gradient > 0 else "orange"


def lines_of(node: Node, precision: int) -> list[str]:
    """What stands in the box of a node, from its name down."""
    lines = [elided(node.name, 40)]
    if node.kind == "module":
        lines += [node.op] if not node.formula else [f"{node.op}({elided(node.formula, 60)})"]
    elif node.formula:
        lines.append(elided(node.formula, 48))
    if node.data is not None:
        lines.append(f"data {shown(node.data, precision)}")
    if node.grad is not None:
        lines.append(f"grad {shown(node.grad, precision)}")
    return [*lines, *node.about]


def _of_node(node: Node, largest: float, precision: int) -> str:
    attributes = f'label="{quoted(chr(10).join(lines_of(node, precision)))}", {STYLE[node.kind]}'
    if node.highlighted:
        attributes += f', color="{COLOUR["mark"]}", penwidth=3'
    elif node.grad:
        attributes += f', color="{COLOUR[colour(node.grad)]}", penwidth={1 + 2 * strength(node.grad, largest):.3g}'
    whole = f"{node.name} = {node.formula}" if node.formula else node.name
    if node.place or len(whole) > 40:
        attributes += f', tooltip="{quoted(f"{whole}{chr(10)}{node.place}".strip())}"'
    return attributes


def _of_edge(edge: Edge, largest: float, precision: int) -> str:
    attributes = f'label="{edge.label or shown(edge.derivative, precision)}"'
    if edge.contains:
        attributes += ", style=dashed, arrowhead=none"
    line = COLOUR[colour(edge.gradient)]
    if edge.gradient:
        width = 1 + 3 * strength(edge.gradient, largest)
        attributes += f', color="{line}", penwidth={width:.3g}, tooltip="gradient {shown(edge.gradient, precision)}"'
    if edge.highlighted:  # a line of its colour between two of the marker's
        attributes += f', color="{COLOUR["mark"]}:{line}:{COLOUR["mark"]}"'
    return attributes
