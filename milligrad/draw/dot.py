"""A picture in DOT, the language of Graphviz: https://graphviz.org/doc/info/lang.html.

The text needs nothing; to lay it out takes Graphviz. Its colours are the light ones of our pages.
"""

from __future__ import annotations

import re

from milligrad.draw.formulas import partial
from milligrad.draw.model import Edge, Node, Picture, colour, legend, notation, strength
from milligrad.markup import LIGHT as COLOUR
from milligrad.markup import RIGHT_TO_LEFT, UNSEEN, elided, short_name, shown
from milligrad.markup import text as allowed

FONT = f'fontname="DejaVu Sans Mono,monospace", fontsize=11, fontcolor="{COLOUR["ink"]}"'
STYLE = {  # besides round or square: how a box is filled and drawn
    "leaf": ("paper", "filled"),
    "constant": ("paper", "filled,dashed"),
    "computed": ("panel", "filled"),
    "group": ("panel", "filled"),
    "cut": ("paper", "filled,dotted"),
    "module": ("paper", "filled,bold"),
}


def dot(picture: Picture, direction: str = "LR", precision: int = 4) -> str:
    """The whole graph: a box for each node, and an arrow for each edge with its local derivative."""
    label = quoted("\n".join(below(picture)))
    lines = [
        "digraph {",
        f'  graph [rankdir={direction}, label="{label}", {tooltip(picture.title)}, {FONT}]',
        f'  node [shape=box, color="{COLOUR["line"]}", {FONT}]',
        f'  edge [color="{COLOUR["line"]}", {FONT}]',
    ]
    largest = picture.largest
    lines += [f"  n{i} [{_of_node(node, largest, precision)}]" for i, node in enumerate(picture.nodes)]
    lines += [f"  n{e.source} -> n{e.target} [{_of_edge(e, picture, precision)}]" for e in picture.edges]
    return "\n".join([*lines, "}\n"])


BACKSLASH_IN_TOOLTIP = "\\\\\u200b"  # of no width
SPECIAL = re.compile(rf'[&"\\\x00-\x09\x0b-\x1f\ud800-\udfff\ufffe\uffff{UNSEEN}{RIGHT_TO_LEFT}]')


def quoted(s: str, backslash: str = "\\\\") -> str:
    r"""`s` for between quotes, shown as it is: nothing in it is an escape of Graphviz's (\N) or an entity (&lt;)."""
    if len(s) > 2_000:  # Graphviz reads 16,384 bytes of a string at a time: more need a line end, which does not count
        return "\\\n".join(quoted(s[i : i + 2_000], backslash) for i in range(0, len(s), 2_000))
    if SPECIAL.search(s):
        s = allowed(s).replace("\\", backslash).replace('"', '\\"').replace("\r", "")
    return s.replace("\n", "\\n")


def tooltip(s: str) -> str:
    r"""The attribute. Graphviz 2.43 reads its escapes twice, and takes \\N for \N; but not with nothing between."""
    return f'tooltip="{quoted(s, BACKSLASH_IN_TOOLTIP)}"'


def below(picture: Picture) -> list[str]:
    """What stands below the picture: its note, what its colours mean, and how the rest is to be read."""
    colours = ", ".join(f"{name}: {meaning}" for name, meaning in legend(picture).items())
    return [line for line in (picture.note, colours, *notation(picture)) if line]


def lines_of(node: Node, precision: int) -> list[str]:
    """What stands in the box of a node, from its name down."""
    lines = [short_name(node.name, 40)]
    if node.kind == "module":
        lines.append(f"{elided(node.op, 40)}({elided(node.formula, 60)})" if node.formula else elided(node.op, 40))
    elif node.formula:
        lines.append(elided(node.formula, 48))
    if node.data is not None:
        lines.append(f"data {shown(node.data, precision)}")
    if node.grad is not None:
        lines.append(f"grad {shown(node.grad, precision)}")
    return [*lines, *node.about]


def _of_node(node: Node, largest: float, precision: int) -> str:
    attributes = f'label="{quoted(chr(10).join(lines_of(node, precision)))}", {_style(node)}'
    if node.highlighted:
        attributes += f', color="{COLOUR["mark"]}", penwidth=3'
    elif node.grad:
        attributes += f', color="{COLOUR[colour(node.grad)]}", penwidth={1 + 2 * strength(node.grad, largest):.3g}'
    if node.place or len(node.name) > 40:
        attributes += ", " + tooltip("\n".join(filter(None, [node.name, node.formula, node.place])))
    return attributes


def _style(node: Node) -> str:
    fill, style = STYLE[node.kind]
    style += ",rounded" * node.is_given
    return f'style="{style}", fillcolor="{COLOUR[fill]}"' + ", peripheries=2" * (node.kind == "group")


def _of_edge(edge: Edge, picture: Picture, precision: int) -> str:
    attributes = f'label="{quoted(edge.text(precision))}"'
    if edge.contains:
        attributes += ", style=dashed, arrowhead=none"
    line = COLOUR[colour(edge.gradient, edge.mixed)]
    if edge.highlighted:
        line = f"{COLOUR['mark']}:{line}:{COLOUR['mark']}"  # parallel lines: its own between two of the marker's
    if edge.gradient or edge.highlighted:
        width = (1 + 3 * strength(edge.gradient, picture.largest)) / (1 + edge.highlighted)
        attributes += f', color="{line}", penwidth={width:.3g}'
    source, target = (short_name(picture.nodes[i].name, 40) for i in (edge.source, edge.target))
    told = [f"{partial(target, source, edge.which)} = {shown(edge.derivative, precision)}"] if edge.which else []
    if edge.gradient:
        what = f"{'|gradient|' if edge.mixed else 'gradient'} {'up to ' * bool(edge.label)}"
        told.append(f"{what}{shown(edge.gradient, precision)}")
    return attributes + f', tooltip="{quoted(chr(10).join(told))}"' * bool(told)
