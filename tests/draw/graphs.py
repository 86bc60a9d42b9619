"""Random graphs whose nodes and edges are known from how they were built, not from walking them. Not a test itself."""

from __future__ import annotations

import math
import unicodedata
from collections import deque
from dataclasses import dataclass, field

from hypothesis import strategies as st

from milligrad import Value, dot, sum
from milligrad.draw.model import Edge, Node, Picture

NASTY = [
    "<script>alert(1)</script>",
    'say "x"',
    "back\\slash\\",
    "\\N \\G \\l",
    "&lt;b&gt; & ü",
    "two\nlines\r\nand\ttabs",
    "🎉 名前",
    "e\u0301",
    "%%{init: {'theme': 'dark'}}%% #35; `a` $$x$$ fa:fa-car",
    "]]> --> <!-- ",
    "end",
    "bell\x07 \x1b[31m red",
    "lone \ud800",
]
"""Names that a writer may take for something else than a name."""

WHOLE = "👩\u200d💻 ❤\ufe0f می\u200cخواهم"
"""A name that falls apart without its joiners and selectors."""
WHOLE_SHOWN = "👩\u200d💻 ❤\ufe0f \u200eمی\u200cخواهم\u200e"
"""The same where its word from right to left is kept from turning anything else around."""

SEEN = {*"\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2", *"\u200c\u200d"}
UNSEEN = "".join(c for c in map(chr, range(0x10000)) if unicodedata.category(c) == "Cf" and c not in SEEN)
"""Signs that show nothing, or turn text around: Unicode's "format" but for signs of Arabic and Syriac, and joiners."""


@dataclass
class Built:
    """A graph as it was built: its Values in the order of computing, and all edges of those the output depends on."""

    values: list[Value]
    edges: list[tuple[int, int, float]] = field(default_factory=list)  # input, result, local derivative

    @property
    def output(self) -> Value:
        return self.values[-1]

    def reached(self) -> set[int]:
        """What the output depends on."""
        last = len(self.values) - 1
        reached = {last}
        for source, target, _ in sorted(self.edges, key=lambda edge: -edge[1]):
            if target in reached:
                reached.add(source)
        return reached

    def distances(self) -> dict[int, int]:
        """How many edges lie between each and the output."""
        last = len(self.values) - 1
        distances = {last: 0}
        queue = deque([last])
        while queue:
            target = queue.popleft()
            for source, z, _ in self.edges:
                if z == target and source not in distances:
                    distances[source] = distances[target] + 1
                    queue.append(source)
        return distances


@st.composite
def graphs(draw, most=25):
    """Leaves, constants, and what is computed of them by operations of one, two and many inputs, some twice the same."""
    n = draw(st.integers(1, 4))
    frozen = [False] + [draw(st.booleans()) for _ in range(n - 1)]
    built = Built([Value(draw(st.integers(-8, 8)) / 4, requires_grad=not f) for f in frozen])
    live = {0}  # a result of constants alone is a new leaf: nothing of it is remembered
    for _ in range(draw(st.integers(0, most))):
        values = built.values
        kind = draw(st.sampled_from(["add", "mul", "scaled", "tanh", "sum", "dot"]))
        i, *others = [
            draw(st.sampled_from(sorted(live))),
            *draw(st.lists(st.integers(0, len(values) - 1), min_size=3, max_size=3)),
        ]
        j, k, m = others
        x, y = values[i], values[j]
        # fmt: off
        z, edges = {
            "add":    lambda: (x + y,             [(i, 1.0), (j, 1.0)]),
            "mul":    lambda: (x * y,             [(i, y.data), (j, x.data)]),
            "scaled": lambda: (x * 0.25 - 1.0,    None),
            "tanh":   lambda: (x.tanh(),          [(i, 1 - math.tanh(x.data) ** 2)]),
            "sum":    lambda: (sum([x, y, 2.0, values[k]]), [(i, 1.0), (j, 1.0), (k, 1.0)]),
            "dot":    lambda: (dot([x, values[k]], [y, values[m]]),
                               [(i, y.data), (k, values[m].data), (j, x.data), (m, values[k].data)]),
        }[kind]()
        # fmt: on
        if abs(z.data) > 1e6:
            continue
        if edges is None:
            values.append(z.x)  # 0.25 · x
            built.edges.append((i, len(values) - 1, 0.25))
            live.add(len(values) - 1)
            edges = [(len(values) - 1, 1.0)]
        values.append(z)
        live.add(len(values) - 1)
        built.edges += [(source, len(values) - 1, d) for source, d in edges]
    if len(built.values) == n:
        del built.values[1:]
    return built


def small() -> Value:
    """y = tanh(x · w + b) · x after backward, with b a constant; the inner results have no names."""
    x, w, b = Value(2.0, "x"), Value(-0.5, "w"), Value(1.5, "b", requires_grad=False)
    y = (x * w + b).tanh() * x
    y.name = "y"
    y.backward()
    return y


def named(name: str) -> Picture:
    """A picture of every kind of node, each with `name` wherever a user's text stands, and of every kind of edge."""
    kinds = ["leaf", "constant", "computed", "group", "cut"]
    nodes = [
        Node(name, kind, op="mul", formula=name * (kind == "computed"), data=1.5, grad=-2.0, place=name)
        for kind in kinds
    ]
    nodes[3] = Node(f"{name}, 32 × leaf", "group", count=32, about=("data −1 … 2", "|grad| up to 3"))
    nodes[4].highlighted = True
    edges = [
        Edge(0, 2, 3.0, -6.0),
        Edge(0, 2, 3.0, math.nan),
        Edge(1, 2, None, None),
        Edge(2, 4, -1.0, 2.0, highlighted=True),
        Edge(3, 4, None, 0.0, "× 32"),
    ]
    return Picture(nodes, edges, name, f"note: {name[:100]}", 6.0)
