"""A picture in Mermaid, which GitHub, GitLab and many editors show: https://mermaid.js.org/syntax/flowchart.html.

By default Mermaid draws at most 500 edges and 50,000 characters; its settings maxEdges and maxTextSize are for whoever
shows the picture, not for the picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from milligrad.draw.dot import below, lines_of
from milligrad.draw.model import Edge, Picture, colour, strength
from milligrad.markup import LIGHT as COLOUR
from milligrad.markup import NO_PRINT, left_to_right

ROUND = "rx:12px,ry:12px"
CLASSES = {
    "leaf": f"fill:{COLOUR['paper']},{ROUND}",
    "constant": f"fill:{COLOUR['paper']},stroke-dasharray:2 3,{ROUND}",
    "computed": f"fill:{COLOUR['panel']}",
    "group": f"fill:{COLOUR['panel']},stroke-width:3px",
    "cut": f"fill:{COLOUR['paper']},stroke-dasharray:4 4",
    "module": f"fill:{COLOUR['paper']}",
    "given": ROUND,
    "note": "fill:none,stroke:none",
    **{name: f"stroke:{COLOUR[name]}" for name in ("line", "blue", "orange", "red")},
    "mark": f"stroke:{COLOUR['mark']},stroke-width:4px",
}


def mermaid(picture: Picture, direction: str = "LR", precision: int = 4) -> str:
    """The whole graph as a flowchart; what stands below it is a node of its own."""
    lines = [f"flowchart {direction}"]
    for i, node in enumerate(picture.nodes):
        label = "<br/>".join(map(quoted, lines_of(node, precision)))
        lines.append(f'  n{i}["{label}"]')
    for edge in picture.edges:
        arrow = "-.-" if edge.contains else "-->"
        label = quoted(edge.text(precision))
        lines.append(f"  n{edge.source} {arrow}" + f'|"{label}"|' * bool(label) + f" n{edge.target}")
    if notes := below(picture):
        lines += [f'  note["{"<br/>".join(map(quoted, notes))}"]']
    return "\n".join([*lines, *_classes(picture), *_link_styles(picture), ""])


def _classes(picture: Picture) -> Iterator[str]:
    """The styles of the nodes, and which nodes have them: of a node's two, the later one wins."""
    members: dict[str, list[str]] = {name: [] for name in CLASSES}
    members["note"] += ["note"] * bool(below(picture))
    for i, node in enumerate(picture.nodes):
        members[node.kind].append(f"n{i}")
        members["given"] += [f"n{i}"] * (node.is_given and node.kind == "group")
        members["mark" if node.highlighted else colour(node.grad)].append(f"n{i}")
    for name, nodes in members.items():
        if nodes:
            yield f"  classDef {name} {CLASSES[name]},color:{COLOUR['ink']}"
            yield f"  class {','.join(nodes)} {name}"


def _link_styles(picture: Picture) -> list[str]:
    """One line for each style, with the numbers of all edges that have it."""
    alike: dict[str, list[str]] = {}
    for i, edge in enumerate(picture.edges):
        alike.setdefault(_style(edge, picture.largest), []).append(str(i))
    return [f"  linkStyle {','.join(numbers)} {style}" for style, numbers in alike.items()]


def _style(edge: Edge, largest: float) -> str:
    width = 1 + round(6 * strength(edge.gradient, largest)) / 2  # in halves of a pixel, so that there are few styles
    line = "mark" if edge.highlighted else colour(edge.gradient, edge.mixed)
    return f"stroke:{COLOUR[line]},stroke-width:{width:g}px"


def quoted(s: str) -> str:
    """`s` for between quotes, shown as it is: all but letters, digits and a few harmless signs become #their code;.

    In Mermaid's labels also %% { } ` * $ : / and more can mean something, in one version or another.
    """
    return re.sub(r"[^\w .,()+=−…∂×·]", _code, left_to_right(NO_PRINT.sub("\ufffd", s)))


def _code(match: re.Match[str]) -> str:
    c = match[0]
    if c == "$":
        return "#36;#8203;"  # with a space of no width: $$ begins a formula even when written as codes
    return "#quot;" if c == '"' else f"#{ord(c)};"
