"""What a picture of a graph shows, as data: its nodes, its edges and a note. Made of a Value's history, or of a Module.

How it is shown (text, DOT, Mermaid, SVG, a page) is the business of a writer each; they read this and no Values.

    order   the Values of a graph in the order in which they were made; see `naming.inputs_first`
    name    what the user called a Value; without one it is v1, v2, … in order, first what was given
    edge    from an input to what was computed of it, with ∂target/∂source
    group   the Values that one node stands for: a single one, unless the graph is too large to show each
    level   of a computed Value: one more than that of its deepest input; leaves and constants have 0
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise, repeat
from operator import attrgetter

from milligrad.draw.formulas import formula, ordinals
from milligrad.draw.naming import inputs_first, names_of
from milligrad.engine import Reduction, Value, is_current, partials_as_numbers, place
from milligrad.expected import check_is, size
from milligrad.markup import count, short_name, shown
from milligrad.nn.containers import Sequential
from milligrad.nn.module import Module
from milligrad.typing import Any


@dataclass(slots=True)
class Node:
    """A Value; or a group of them (`count` > 1), or a layer.

    name:     what it is called everywhere: "speed", or "v3" if the user gave no name. Untrusted text of any length.
    kind:     "leaf", "constant" (requires no gradient), "computed", "group" (folded), "cut" (stands for all that is not
              shown), "module"
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

    @property
    def is_given(self) -> bool:
        """Whether nothing computed it: then its box is round, in whatever form."""
        return self.kind in ("leaf", "constant") or (self.kind == "group" and not self.op)


@dataclass(slots=True)
class Edge:
    """From nodes[source] to nodes[target].

    derivative:  ∂target/∂source, None where there is no single one (or it does not exist)
    gradient:    target.grad · derivative: what came back along this edge; its sign gives colour, its size width
    label:       further text: "× 32" edges that were folded into one, whose gradient is the largest of theirs
    contains:    the target is a part of the source (a module and its child): nothing flows
    mixed:       those that were folded have gradients of both signs: the gradient is the size of the largest
    which:       of a source that goes into the target more than once, through which place this edge leads: "2nd"
    """

    source: int
    target: int
    derivative: float | None = None
    gradient: float | None = None
    label: str = ""
    contains: bool = False
    highlighted: bool = False
    mixed: bool = False
    which: str = ""

    def text(self, precision: int) -> str:
        """What stands on it: its derivative, or the further text."""
        return self.label or shown(self.derivative, precision)


@dataclass(slots=True)
class Picture:
    """Nodes, inputs before what is computed of them, and the edges between them.

    title:      one line: what it is of
    note:       what is not shown, or shown folded, and why; how many formulas no longer hold; else ""
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
    decades = math.log10(abs(gradient)) - math.log10(largest)  # their quotient could be too small for a float
    return min(1.0, max(0.0, 1 + decades / 6))


def colour(gradient: float | None, mixed: bool = False) -> str:
    """The name of the colour that tells the sign of a gradient, whether it is one, and whether it has a sign."""
    if not gradient:
        return "line"
    if not math.isfinite(gradient):
        return "red"
    return "ink" if mixed else "blue" if gradient > 0 else "orange"


MEANINGS = {
    "blue": "positive gradient",
    "orange": "negative gradient",
    "ink": "gradients of both signs",
    "red": "NaN or infinite",
    "mark": "highlighted",
}


def legend(picture: Picture) -> dict[str, str]:
    """What the colours mean, of those that occur."""
    occur = {colour(edge.gradient, edge.mixed) for edge in picture.edges} | {colour(x.grad) for x in picture.nodes}
    occur |= {"mark"} if any(node.highlighted for node in picture.nodes) else set()
    return {name: meaning for name, meaning in MEANINGS.items() if name in occur}


def notation(picture: Picture) -> list[str]:
    """In sentences: what stands on the edges, and what a box says by its form; nothing where nothing was computed."""
    told = []
    if any(edge.derivative is not None for edge in picture.edges):
        told.append("The number on an edge is the local derivative ∂target/∂source, by way of that edge alone.")
    if any(edge.label for edge in picture.edges):
        told.append("× 9: nine edges in one.")
    return [*told, "Round boxes were given, square ones computed."] if told else []


# Of a Value.


def picture_of_value(
    output: Value,
    *,
    model: Module | None = None,
    max_nodes: int | None = 300,
    highlight: Value | Iterable[Value] | None = None,
    precision: int = 4,
    gradient: Callable[[Value], float] = attrgetter("grad"),
) -> Picture:
    """The graph that `output` was computed by. Its Values are called as they are in `model`, if one is given.

    A graph of more than `max_nodes` Values is folded by layer; if that does not suffice, what is nearest to the output
    is shown, and one node stands for the rest. None shows all. `highlight` marks all paths from a Value to the output,
    or the Values of a list and the edges from each to the next. Raises ValueError for what is not in the graph.
    `gradient` is what is shown as that of a Value: its `.grad`.
    """
    check_is(output, Value, "output")
    size(precision, "precision")
    if max_nodes is not None:
        size(max_nodes, "max_nodes", least=2)
    graph = _Graph(output, model, precision, gradient)
    graph.highlight(highlight)
    if max_nodes is None or len(graph.order) <= max_nodes:
        return graph.picture([[z] for z in graph.order])
    folded = graph.by_layer()
    if len(folded) <= max_nodes:
        return graph.picture(folded, "folded by layer: those of one level and operation are one node")
    nearest = graph.nearest(max_nodes - 1)
    return graph.picture([[z] for z in nearest], f"shown to a depth: the {len(nearest):,} nearest to the output")


Group = list[Value]


def by_layer(output: Value) -> list[Group]:
    """The Values behind `output` as a folded picture groups them: see `_Graph.by_layer`."""
    return _Graph(output).by_layer()


class _Graph:
    """The Values behind an output, and the ways to show them."""

    def __init__(
        self,
        output: Value,
        model: Module | None = None,
        precision: int = 4,
        gradient: Callable[[Value], float] = attrgetter("grad"),
    ) -> None:
        self.gradient = gradient
        self.order = inputs_first(output)
        self.output, self.precision = output, precision
        self.names = names_of(self.order, model)
        self.parameters = {x: path for path, p in model.named_parameters() for x in p.values()} if model else {}
        self.marked: set[Value] = set()
        self.marked_edges: set[tuple[Value, Value]] = set()

    def inputs(self, z: Value) -> tuple[Any, ...]:
        """What z was computed of, as far as the graph goes."""
        return z.inputs if self.is_computed(z) else ()

    def is_computed(self, z: Value) -> bool:
        """Whether the graph goes on behind z: it ends at leaves, and at constants, whatever they were computed of."""
        return z.op is not None and (z.requires_grad or z is self.output)

    # What stands out.

    def highlight(self, highlight: Value | Iterable[Value] | None) -> None:
        """Mark all paths from a Value to the output, or one along the Values of a list."""
        if highlight is None:
            return
        if not isinstance(highlight, Value | Iterable):
            raise TypeError(
                f"highlight: expected a Value or a list of Values, got {type(highlight).__name__} {highlight!r:.60}"
            )
        path = [highlight] if isinstance(highlight, Value) else list(highlight)
        for x in path:
            check_is(x, Value, "highlight")
            if x not in self.names:
                raise ValueError(f"highlight: expected Values of the graph of {self.output!r}, got {x!r}")
        self.marked.update(path)
        if isinstance(highlight, Value):
            self._mark_what_follows()
        else:
            self.marked_edges.update(pairwise(path))
            self.marked_edges.update(pairwise(reversed(path)))  # the list may begin at either end

    def _mark_what_follows(self) -> None:
        for z in self.order:
            for x in self.inputs(z):
                if x in self.marked:
                    self.marked.add(z)
                    self.marked_edges.add((x, z))

    # Which Values share a node, where there are too many.

    def by_layer(self) -> list[Group]:
        """One group for the Values of each level and operation, and for the leaves that these use in the same way.

        Groups of the same operation that follow one another, as in many sums x₁ + x₂ + … written out, are one, too.
        Parameters of a model are grouped as the model has them. Lower levels come first.
        """
        level = self._levels(set())
        alike = Counter([(level[z], z.op) for z in self.order])
        many = {z for z in self.order if alike[level[z], z.op] > 1 and self.is_computed(z)}
        level = self._levels(many)
        keys: dict[Value, Any] = {}
        uses: dict[Value, set[Any]] = {}
        for z in self.order:
            if inputs := self.inputs(z):
                keys[z] = level[z], z.op if z in many else z
                lists = z.op.lists if isinstance(z.op, Reduction) else len(inputs)
                for i, x in enumerate(inputs):
                    if x in uses:
                        uses[x].add((keys[z], i * lists // len(inputs)))  # a dot uses its x otherwise than its y
            else:
                uses[z] = set()
        for x, use in uses.items():
            keys[x] = 0, (x.requires_grad, self.parameters.get(x) or frozenset(use))
        groups: dict[Any, Group] = {}
        for z in sorted(self.order, key=level.__getitem__):
            groups.setdefault(keys[z], []).append(z)
        return list(groups.values())

    def _levels(self, many: set[Value]) -> dict[Value, int]:
        """The level of each Value. Among `many`, an operation on a result of the same operation stays on its level."""
        level: dict[Value, int] = {}
        for z in self.order:
            below = [
                level[x] + (x.op is not z.op or z not in many or x not in many)
                for x in self.inputs(z)
                if type(x) is not float
            ]
            level[z] = max(below, default=0)
        return level

    def nearest(self, n: int) -> list[Value]:
        """The n Values that are the fewest steps from the output, in order."""
        near = {self.output}
        queue = [self.output]
        for z in queue:  # which grows meanwhile
            for x in self.inputs(z):
                if type(x) is not float and x not in near:
                    if len(near) == n:
                        return [z for z in self.order if z in near]
                    near.add(x)
                    queue.append(x)
        return self.order

    # What is shown.

    def picture(self, groups: list[Group], note: str = "") -> Picture:
        """A node for each group, and before them one for all Values that are in none of them."""
        rest = len(self.order) - sum(map(len, groups))
        nodes = [Node(f"{count(rest, 'more Value')} behind", "cut", count=rest)] if rest else []
        number = dict.fromkeys(self.order, 0)
        for group in groups:
            for z in group:
                number[z] = len(nodes)
            nodes.append(self._node(group[0]) if len(group) == 1 else self._group(group))
        for x in self.marked:
            nodes[number[x]].highlighted = True
        edges = [edge for group in groups for z in group for edge in self._edges(z, number)]
        title = f"{short_name(self.names[self.output], 40)} = {shown(self.output.data, self.precision)}"
        title += f", computed by a graph of {count(len(self.order), 'Value')}"
        if note:
            edges = _folded(edges, nodes)
            note = f"{count(len(self.order), 'Value')}, {note}. max_nodes=None shows each."
        return Picture(nodes, edges, title, " ".join(filter(None, [note, self._changed()])), _largest(nodes, edges))

    def _changed(self) -> str:
        """How many formulas do not hold any more; "" if all do."""
        n = sum(not is_current(z) for z in self.order if self.is_computed(z))
        if not n:
            return ""
        what = "is not what its formula says" if n == 1 else "are not what their formulas say"
        return f"{n:,} of {count(len(self.order), 'Value')} {what}: numbers changed after the graph was computed."

    def _node(self, z: Value) -> Node:
        name = self.names[z]
        if self.is_computed(z):
            made = formula(z, self.names, self.precision)
            return Node(name, "computed", z.op.name, made, z.data, self.gradient(z), place=place(z))  # type: ignore[union-attr]
        if z.requires_grad:
            return Node(name, "leaf", data=z.data, grad=self.gradient(z))
        return Node(name, "constant", data=z.data)  # it has no gradient: none is ever sent to it

    def _edges(self, z: Value, number: dict[Value, int]) -> Iterator[Edge]:
        if not self.is_computed(z):
            return
        try:
            derivatives = partials_as_numbers(z)
        except (ValueError, ArithmeticError):  # it does not exist
            derivatives = repeat(None)
        target, g, marked = number[z], self.gradient(z), self.marked_edges
        for x, d, which in zip(z.inputs, derivatives, ordinals(z.inputs)):
            if type(x) is not float and (source := number[x]) != target:
                gradient = g * d if d is not None and x.requires_grad else None
                yield Edge(source, target, d, gradient, highlighted=(x, z) in marked, which=which)

    def _group(self, group: Group) -> Node:
        """A node for Values of one kind, with the range of their numbers and gradients."""
        z, n = group[0], len(group)
        op = z.op.name if self.is_computed(z) else ""  # type: ignore[union-attr]
        name = f"{n:,} × {op or ('leaf' if z.requires_grad else 'constant')}"
        if z in self.parameters:
            name = f"{self.parameters[z]}, {name}"
        about = _range([z.data for z in group], self.precision)
        if z.requires_grad:
            about += _sizes([self.gradient(z) for z in group], self.precision)
        return Node(name, "group", op, count=n, about=tuple(about))


def _range(xs: list[float], precision: int) -> list[str]:
    """From the least to the largest; and how many are no numbers."""
    numbers = [x for x in xs if x == x]
    least, most = (shown(f(numbers, default=math.nan), precision) for f in (min, max))
    data = f"data {least} … {most}" if least != most else f"data {most}"
    return [data, *_how_many("data is NaN", xs, math.isnan)]


def _sizes(gradients: list[float], precision: int) -> list[str]:
    """The largest |grad|; and how many are 0, or no numbers."""
    if not any(gradients):
        return ["grad is 0"]
    most = max((abs(g) for g in gradients if g == g), default=math.nan)
    zeros = _how_many("grad is 0", gradients, lambda g: g == 0)
    return [f"|grad| up to {shown(most, precision)}", *zeros, *_how_many("grad is NaN", gradients, math.isnan)]


def _how_many(what: str, xs: list[float], holds: Callable[[float], bool]) -> list[str]:
    n = sum(map(holds, xs))
    return [f"{what} in {n:,} of {len(xs):,}"] if n else []


def _folded(edges: list[Edge], nodes: list[Node]) -> list[Edge]:
    """One edge in place of all from or to a node that stands for many, with the gradient of them that is largest."""
    bundles: dict[Any, list[Edge]] = {}
    for i, edge in enumerate(edges):
        ends = edge.source, edge.target
        single = nodes[edge.source].count == nodes[edge.target].count == 1
        bundles.setdefault((*ends, i) if single else ends, []).append(edge)
    return [_bundle(bundle) if len(bundle) > 1 else bundle[0] for bundle in bundles.values()]


def _bundle(edges: list[Edge]) -> Edge:
    gradients = [edge.gradient for edge in edges if edge.gradient is not None]
    mixed = min(gradients, default=0.0) < 0 < max(gradients, default=0.0)
    sizes = [abs(g) for g in gradients] if mixed else gradients
    largest = math.nan if any(map(math.isnan, sizes)) else max(sizes, key=abs, default=None)
    highlighted = any(edge.highlighted for edge in edges)
    return Edge(edges[0].source, edges[0].target, None, largest, f"× {len(edges):,}", False, highlighted, mixed)


def _largest(nodes: list[Node], edges: list[Edge]) -> float:
    sizes = [abs(node.grad) for node in nodes if node.grad is not None]
    sizes += [abs(edge.gradient) for edge in edges if edge.gradient is not None]
    return max(filter(math.isfinite, sizes), default=0.0)


# Of a Module.


def picture_of_module(module: Module, *, max_nodes: int | None = 300) -> Picture:
    """The modules in `module`, with how many parameters each has, whichever module they stand in.

    A Sequential's children follow one another, since each gets the output of the last. What flows between the children
    of other modules, their `forward` alone knows: they only hang on it. Of more than `max_nodes` modules, those
    nearest to the top are shown; None shows all.
    """
    check_is(module, Module, "module")
    most = math.inf if max_nodes is None else size(max_nodes, "max_nodes")
    picture = Picture(title=f"{type(module).__name__}: {_parameters(module)}")
    queue = [("", module)]
    first_at: dict[int, str] = {}  # where a module or a Parameter stands first, by its id
    for number, (path, part) in enumerate(queue):  # which grows meanwhile
        node = Node(path or "model", "module", type(part).__name__, part.extra_repr())
        picture.nodes.append(node)
        if (first := first_at.setdefault(id(part), path)) != path:
            node.about = (f"the same module as {first or 'model'}",)
            continue
        children = [(f"{path}.{name}" if path else name, m) for name, m in part._modules.items() if m is not None]
        room = int(min(most - len(queue), len(children)))
        hidden = {id(m) for _, child in children[room:] for m in child.modules()}
        node.about = (
            *_about_parameters(path, part, first_at),
            *[f"{count(len(hidden), 'more module')} inside"] * bool(hidden),
        )
        picture.edges += _to_children(part, number, range(len(queue), len(queue) + room))
        queue += children[:room]
        if hidden:
            picture.note = f"Only the {most:,} modules nearest to the top are shown. max_nodes=None shows each."
    return picture


def _to_children(module: Module, number: int, children: range) -> list[Edge]:
    if type(module).forward is Sequential.forward:
        return [Edge(i - 1, i) if i > children[0] else Edge(number, i, contains=True) for i in children]
    return [Edge(number, i, contains=True) for i in children]


def _about_parameters(path: str, module: Module, first_at: dict[Any, str]) -> Iterator[str]:
    """How many, and which of its own stand in another module, too."""
    if any(module.parameters()):
        yield _parameters(module)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            own = f"{path}.{name}" if path else name
            if (first := first_at.setdefault(id(parameter), own)) != own:
                yield f"{name} is {first}"


def _parameters(module: Module) -> str:
    """How many numbers it learns, each counted once however often it is used."""
    values = {x for parameter in module.parameters() for x in parameter.values()}
    frozen = sum(not x.requires_grad for x in values)
    note = ", frozen" if frozen == len(values) else f", {frozen:,} of them frozen"
    return count(len(values), "parameter") + note * bool(frozen)
