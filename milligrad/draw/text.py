"""A picture as a tree of text, for terminals: the output on top, below each node its inputs, further to the right.

A node of which several others are computed is shown with its inputs once, and elsewhere as a reference to that line.
Trees deeper than DEPTH are shown in pieces, so that no line begins far to the right, however long a chain is: what
would stand deeper is referred to and begins a tree of its own at the margin, after the present one. Modules have their
children below them.
"""

from __future__ import annotations

from collections import deque

from milligrad.draw.formulas import partial
from milligrad.draw.model import Edge, Node, Picture
from milligrad.markup import printable, short_name, shown, width
from milligrad.typing import TypeAlias

DEPTH = 12  # of a tree, in levels: no line begins behind column 39
WIDEST = 60  # cells of the first column up to which the others are aligned
Line: TypeAlias = tuple[str, int, str, str, str, str]  # what comes first, its width in cells, and the other columns


def text(picture: Picture, precision: int = 4) -> str:
    """The tree, and below it the picture's note. A line: a node and its formula, data, grad, and ∂target/∂node."""
    lines = _aligned(_lines(picture, precision))
    return "\n".join([*lines, *(["", picture.note] if picture.note else [])])


def _lines(picture: Picture, precision: int) -> list[Line]:
    """All lines, top down, by a walk that keeps what is still to come on a stack."""
    nodes, below = picture.nodes, _below(picture)
    names = [short_name(node.name, 40 if node.count > 1 else 24) for node in nodes]
    cells_of = [width(name) for name in names]
    lines: list[Line] = []
    done: set[int] = set()
    roots = deque([top(picture)])
    while roots:
        root = roots.popleft()
        if root in done:
            continue
        if lines:
            lines.append(("", 0, "", "", "", ""))
        stack: list[tuple[int, Edge | None, str, str]] = [(root, None, "", "")]
        while stack:
            i, edge, lead, indent = stack.pop()
            derivative = "" if edge is None else _of_edge(edge, nodes, names, precision)
            if i in done or (below[i] and len(indent) > 3 * DEPTH):
                if i not in done:
                    roots.append(i)
                sign, where = ("↑", "above") if i in done else ("↓", "below")
                label, cells = f"{sign} {names[i]}, {where}", 9 + cells_of[i]
                data = grad = place = ""
            else:
                done.add(i)
                label, place = _label(nodes[i], names[i]), printable(nodes[i].place, 80)
                cells = width(label)
                data, grad = _numbers(nodes[i], precision)
                for k, (child, way) in enumerate(reversed(below[i])):
                    branch, further = ("├─ ", "│  ") if k else ("└─ ", "   ")
                    stack.append((child, way, indent + branch, indent + further))
            lines.append((lead + label, len(lead) + cells, data, grad, derivative, place))
    return lines


def top(picture: Picture) -> int:
    """The module that contains the others, or else the output."""
    return 0 if picture.nodes[0].kind == "module" else len(picture.nodes) - 1


def _below(picture: Picture) -> list[list[tuple[int, Edge]]]:
    """What hangs on each node: its inputs; on a module its children, though an edge may lead there from a sibling."""
    below: list[list[tuple[int, Edge]]] = [[] for _ in picture.nodes]
    if picture.nodes[0].kind != "module":
        for edge in picture.edges:
            below[edge.target].append((edge.source, edge))
        return below
    parent: dict[int, int] = {}
    for edge in picture.edges:
        parent[edge.target] = edge.source if edge.contains else parent[edge.source]
        below[parent[edge.target]].append((edge.target, edge))
    return below


def _label(node: Node, name: str) -> str:
    """`y = x * w`, `x`, or `0: Linear(in_features=2)`."""
    if node.kind == "module":
        name = f"{name}: {printable(node.op, 40)}({printable(node.formula, 80)})"
    elif node.formula:
        name = f"{name} = {printable(node.formula, 60)}"
    elif node.kind == "constant":
        name = f"{name} (constant)"
    return f"{name} ◄" if node.highlighted else name


def _numbers(node: Node, precision: int) -> tuple[str, str]:
    """data and grad, or what is said of many."""
    if node.data is None:
        return "".join(node.about[:1]), ", ".join(node.about[1:])
    return f"data {shown(node.data, precision)}", "" if node.grad is None else f"grad {shown(node.grad, precision)}"


def _of_edge(edge: Edge, nodes: list[Node], names: list[str], precision: int) -> str:
    if edge.label or edge.derivative is None:
        return edge.label
    source = "…" if nodes[edge.source].kind == "cut" else names[edge.source]
    return f"{partial(names[edge.target], source, edge.which)} = {shown(edge.derivative, precision)}"


def _aligned(lines: list[Line]) -> list[str]:
    """Each column begins where the widest entry of the one before it ends, unless the first is very wide."""
    first = min(WIDEST, max(cells for _, cells, *_ in lines))
    wide, wider = max(len(line[2]) for line in lines), max(len(line[3]) for line in lines)
    return [
        f"{label}{' ' * (first - cells)}   {data:{wide}}   {grad:{wider}}   {derivative}   {place}".rstrip()
        for label, cells, data, grad, derivative, place in lines
    ]
