"""A picture as SVG: boxes in layers, and edges whose colour and width tell the size of the gradient.

It reads a Picture and places it with layout.py; it knows no Values. Colours are custom properties, so that the picture
follows the reader's light or dark; every rule holds within the picture alone, however many stand on one page.
"""

from __future__ import annotations

import math
import textwrap
from itertools import pairwise

from milligrad.draw.formulas import partial
from milligrad.draw.layout import Layout, Point, layered
from milligrad.draw.model import Edge, Node, Picture, colour, legend, notation, strength
from milligrad.markup import CELL, FONT, colours, element, elided, short_name, shown, text, width

SIZE = 12.0  # of the letters
LEADING = 16.0  # from line to line
MARGIN = 16.0
WIDEST = 30  # cells of a line in a box
LABEL = 10.5  # the letters of a local derivative
UNDER = 14.0  # how far an edge begins under its source's box: more than a round corner leaves free
LAST = "\u2fff"  # of the letters that monospaced fonts have, or another font has no wider
ROUND, SQUARE = 12.0, 2.0  # corners of boxes: the round ones as Graphviz has them
STACK = 6.0  # how far the boxes of a group stand out behind one another

SELECTOR = ".milligrad-graph"  # every rule begins with it: the rules of an SVG hold for the whole page it stands in
RULES = {
    "": f"background: var(--paper); font: {SIZE}px {FONT}; fill: var(--ink); --gradient: var(--line)",
    **{f" .{name}": f"--gradient: var(--{name})" for name in ("line", "blue", "orange", "red", "ink", "mark")},
    " .edge.highlighted": "--gradient: var(--mark)",
    " .box": "fill: var(--paper); stroke: var(--line); stroke-width: 1.2",
    " .computed .box": "fill: var(--panel)",
    " .group .box": "fill: var(--panel)",
    " .constant .box": "stroke-dasharray: 4 3",
    " .cut .box": "stroke-dasharray: 4 3",
    " .module .box": "stroke: var(--muted); stroke-width: 1.8",
    " .highlighted .box": "stroke: var(--mark); stroke-width: 2.5",
    " .tint": "fill: var(--gradient)",
    " .name": "font-weight: bold",
    " .formula": "fill-opacity: 0.75",
    " .about": "fill-opacity: 0.75",
    " .edge path": "fill: none; stroke: var(--gradient); stroke-linecap: round",
    " .contains path": "stroke-dasharray: 5 4",
    " .edge polygon": "fill: var(--gradient)",
    " .edge text": f"font-size: {LABEL}px; fill: var(--muted); text-anchor: middle",
    " .edge.highlighted text": "fill: var(--mark); font-weight: bold",
    " .under": "fill: var(--paper)",
    " .legend text": "fill: var(--muted)",
    " .legend rect": "fill: var(--gradient)",
    " .notation": "fill: var(--muted)",
    " .note": "fill: var(--muted)",
}
STYLE = colours(SELECTOR) + "".join(f"{SELECTOR}{what} {{ {how}; }}\n" for what, how in RULES.items())


def svg(picture: Picture, direction: str = "LR", precision: int = 4, prefix: str = "", least: int = 0) -> str:
    """The whole picture. Node 3 of it is the group with the id "n3", edge 5 that with "e5", after the `prefix`.

    A box is so wide that at `least` so many letters fit in.
    """
    lines = [lines_of(node, precision) for node in picture.nodes]
    labels = [edge.text(precision) for edge in picture.edges]
    rooms = [label_size(label) for label in labels]
    sizes = [box_size(node, rows, least) for node, rows in zip(picture.nodes, lines)]
    layout = layered(
        sizes,
        [(edge.source, edge.target) for edge in picture.edges],
        direction,
        rooms,
    )
    edges = [
        _edge(edge, label, room, layout, i, direction, picture, prefix)
        for i, (edge, label, room) in enumerate(zip(picture.edges, labels, rooms))
    ]
    nodes = [
        _node(node, rows, sizes[i], layout.centres[i], i, picture, prefix)
        for i, (node, rows) in enumerate(zip(picture.nodes, lines))
    ]
    signs = legend(picture)
    cells = max(60, int(layout.width / (CELL * SIZE)))
    notes = [("notation", line) for line in textwrap.wrap(" ".join(notation(picture)), cells)]
    notes += [("note", line) for line in textwrap.wrap(picture.note, cells)]
    below = _legend(signs, layout.height + 1.5 * LEADING) if signs else []
    below += [
        element("text", text(line), class_=kind, x=0, y=layout.height + LEADING * (i + 1.5 + bool(signs)))
        for i, (kind, line) in enumerate(notes)
    ]
    widest = max([width(line) for _, line in notes] + [sum(len(meaning) + 4 for meaning in signs.values())])
    rows_below = len(notes) + bool(signs)
    size = (
        max(layout.width, widest * CELL * SIZE) + 2 * MARGIN,
        layout.height + 2 * MARGIN + LEADING * (rows_below + bool(rows_below) / 2),
    )
    weakest_first = sorted(range(len(edges)), key=lambda i: _prominence(picture.edges[i], picture))
    return element(
        "svg",
        element("title", text(picture.title)),
        element("desc", text(picture.note)) if picture.note else "",
        element("style", text(STYLE)),
        element("g", *[edges[i] for i in weakest_first], *nodes, *below, transform=f"translate({MARGIN:g} {MARGIN:g})"),
        xmlns="http://www.w3.org/2000/svg",
        class_="milligrad-graph",
        role="img",
        viewBox=f"0 0 {size[0]:.6g} {size[1]:.6g}",
        width=size[0],
        height=size[1],
    )


def _legend(meanings: dict[str, str], y: float) -> list[str]:
    """A line that says what the colours mean."""
    parts, x = [], 0.0
    for kind, meaning in meanings.items():
        parts.append(element("rect", class_=kind, x=x, y=y - 6, width=12, height=4, rx=2))
        parts.append(element("text", meaning, x=x + 18, y=y))
        x += (len(meaning) + 4) * CELL * SIZE
    return [element("g", *parts, class_="legend")]


def _prominence(edge: Edge, picture: Picture) -> tuple[bool, float]:
    """What is drawn later lies above: strong edges above weak ones that they share a way with."""
    return edge.highlighted, strength(edge.gradient, picture.largest)


def label_size(label: str) -> tuple[float, float]:
    return (width(label) * CELL * LABEL + 8, LABEL + 5) if label else (0.0, 0.0)


def lines_of(node: Node, precision: int) -> list[tuple[str, str]]:
    """What stands in the box: (its class, the line)."""
    lines = [("name", node.name)]
    if node.kind == "module":
        lines.append(("formula", f"{node.op}({node.formula})" if node.formula else node.op))
    elif node.formula:
        lines.append(("formula", node.formula))
    elif node.kind == "constant":
        lines.append(("formula", "constant"))
    if node.data is not None:
        lines.append(("data", f"data {shown(node.data, precision)}"))
    if node.grad is not None:
        lines.append(("grad", f"grad {shown(node.grad, precision)}"))
    lines += [("about", line) for line in node.about]
    return [(kind, (short_name if kind == "name" else elided)(line, WIDEST)) for kind, line in lines]


def box_size(node: Node, lines: list[tuple[str, str]], least: int = 0) -> tuple[float, float]:
    """Room for the lines. The name is bold, which in some fonts is wider."""
    cells = max(least, *[width(line) * (1.08 if kind == "name" else 1.0) for kind, line in lines])
    behind = STACK if node.kind == "group" else 0.0
    return max(56.0, cells * CELL * SIZE + 20) + behind, len(lines) * LEADING + 14 + behind


def _node(
    node: Node,
    lines: list[tuple[str, str]],
    size: tuple[float, float],
    centre: Point,
    i: int,
    picture: Picture,
    prefix: str,
) -> str:
    behind = STACK if node.kind == "group" else 0.0
    w, h = (side - behind for side in size)
    x, y = -(w + behind) / 2, (behind - h) / 2  # those behind a group's box stand out above it, to the right
    box = {"x": x, "y": y, "width": w, "height": h, "rx": ROUND if node.is_given else SQUARE}
    tint = 0.3 * strength(node.grad, picture.largest)
    trouble = any(x is not None and not math.isfinite(x) for x in (node.data, node.grad))
    kind = f"node {node.kind} {'red' if trouble else colour(node.grad)}{' highlighted' * node.highlighted}"
    stack = [element("rect", **{**box, "x": x + d, "y": y - d}, class_="box") for d in (behind, behind / 2) if behind]
    rows = [_row(*line, x + w / 2, y + 7 + (k + 0.75) * LEADING) for k, line in enumerate(lines)]
    numbers = [f"{what} {x!r}" for what, x in (("data", node.data), ("grad", node.grad)) if x is not None]
    told = [node.name, node.op * (node.kind == "module"), node.formula, *numbers, *node.about, node.place]
    return element(
        "g",
        element("title", text("\n".join(line for line in dict.fromkeys(told) if line))),
        *stack,
        element("rect", class_="box", **box),
        *[element("rect", class_="tint", fill_opacity=0.35 if trouble else tint, **box)] * bool(trouble or tint),
        *rows,
        class_=kind,
        id=f"{prefix}n{i}",
        transform=f"translate({centre[0]:.6g} {centre[1]:.6g})",
    )


def _row(kind: str, line: str, x: float, y: float) -> str:
    """A line in a box. If it has letters that may be wider than those of FONT, it is made as wide as it has room for.

    Such are those of old and of mathematical alphabets: FONT does not have them, and another font is taken.
    """
    wide = any(c > LAST and width(c) == 1 for c in line)
    fit = {"textLength": width(line) * CELL * SIZE, "lengthAdjust": "spacingAndGlyphs"} if wide else {}
    return element("text", text(line), class_=kind, x=x, y=y, text_anchor="middle", **fit)


def _edge(
    edge: Edge,
    label: str,
    room: tuple[float, float],
    layout: Layout,
    i: int,
    direction: str,
    picture: Picture,
    prefix: str,
) -> str:
    size = strength(edge.gradient, picture.largest)
    (x, y), (w, h) = layout.labels[i], room
    head = 0.0 if edge.contains else 7 + 3 * size
    way = _curve(_visible(layout.routes[i], direction, head), direction)
    kind = "contains" if edge.contains else colour(edge.gradient, edge.mixed)
    return element(
        "g",
        element("title", text(_told(edge, picture))),
        element("path", d=way, stroke_width=1 + 3 * size),
        element("polygon", points=_arrow(layout.routes[i][-1], direction, head)) if head else "",
        *[
            element("rect", class_="under", x=x - w / 2, y=y - h / 2, width=w, height=h),
            element("text", text(label), x=x, y=y + 3.5),
        ]
        * bool(label),
        class_=f"edge {kind}{' highlighted' * edge.highlighted}",
        id=f"{prefix}e{i}",
    )


def _told(edge: Edge, picture: Picture) -> str:
    source, target = (short_name(picture.nodes[i].name, 60) for i in (edge.source, edge.target))
    lines = [f"{source} → {target}"]
    if edge.derivative is not None:
        lines.append(f"{partial(target, source, edge.which)} = {edge.derivative!r}")
    if edge.gradient is not None:
        what = "|gradient|" if edge.mixed else "gradient along it:"
        lines.append(f"{what} {'up to ' * bool(edge.label)}{edge.gradient!r}")
    return "\n".join([*lines, edge.label] if edge.label else lines)


def _curve(route: list[Point], direction: str) -> str:
    """Through the points, flat at each of them."""
    parts = [f"M{route[0][0]:.6g} {route[0][1]:.6g}"]
    for (x0, y0), (x1, y1) in pairwise(route):
        if direction in ("LR", "RL"):
            a, b = ((x0 + x1) / 2, y0), ((x0 + x1) / 2, y1)
        else:
            a, b = (x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2)
        straight = y0 == y1 if direction in ("LR", "RL") else x0 == x1
        points = [(x1, y1)] if straight else [a, b, (x1, y1)]
        parts.append(("L" if straight else "C") + " ".join(f"{x:.6g} {y:.6g}" for x, y in points))
    return "".join(parts)


FORWARD = {"LR": (1, 0), "RL": (-1, 0), "TB": (0, 1), "BT": (0, -1)}


def _visible(route: list[Point], direction: str, head: float) -> list[Point]:
    """The route from under its source's box, whose corners are round, to where its head begins."""
    (x0, y0), (x1, y1), (ax, ay) = route[0], route[-1], FORWARD[direction]
    end = (x1 - ax * (head - 1), y1 - ay * (head - 1)) if head else route[-1]
    return [(x0 - ax * UNDER, y0 - ay * UNDER), *route[:-1], end]


def _arrow(tip: Point, direction: str, head: float) -> str:
    (x, y), (ax, ay) = tip, FORWARD[direction]
    back, half = (x - ax * head, y - ay * head), 0.42 * head
    corners = [tip, (back[0] - ay * half, back[1] + ax * half), (back[0] + ay * half, back[1] - ax * half)]
    return " ".join(f"{px:.6g},{py:.6g}" for px, py in corners)
