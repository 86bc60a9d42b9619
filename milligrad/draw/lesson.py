"""A page that plays how a Value and its gradients are computed, node by node: the forward pass, then the backward pass.

All steps stand in the page as a list, so that it can be read without a script, and printed. lesson.js shows one of them
at a time, and sets the picture to what is known by then; lesson.css is how that looks. The derivatives are those of the
table, as formulas.py writes them down.

    step    what one press of "Next" shows
    change  what a step changes in the picture: (the number of a node, "data" or "grad", what stands in its box then)
    g       the gradients so far, as backward adds them up; each Value's `.grad` is left alone
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from milligrad.draw.formulas import (
    CELLS,
    derivatives,
    digits_for,
    formula,
    ordinals,
    partial,
    rounded,
    with_numbers,
)
from milligrad.draw.layout import check_direction
from milligrad.draw.model import Picture, picture_of_value
from milligrad.draw.naming import inputs_first, names_of
from milligrad.draw.svg import svg
from milligrad.engine import (
    Op,
    Reduction,
    Value,
    adjoints,
    check_history,
    is_current,
    partials_as_numbers,
    place,
    topological_order,
)
from milligrad.expected import check_is, size
from milligrad.markup import element, left_to_right, page, printable, short_name, shown, text
from milligrad.nn.module import Module
from milligrad.typing import TypeAlias

UNKNOWN = "data ?"
TOO_LARGE = "The picture is too large for a sheet of paper. draw() folds a large graph by layer."
SPEEDS = ("0.5", "1", "2", "4")
KEYS = {
    "Space": "play or pause",
    "←  →": "a step back, a step on",
    "Home  End": "the first step, the last step",
    "+  −": "faster, slower",
    "Tab, Enter": "go to a node of the picture, and to the step that computes it or passes its gradient on",
    "Esc": "hide what is said of a node",
}
Change: TypeAlias = tuple[int, str, str]


def lesson(output: Value, *, model: Module | None, direction: str, precision: int, max_nodes: int | None) -> str:
    """The page as HTML; `milligrad.draw.step_through` says what the options mean."""
    check_is(output, Value, "value")
    size(precision, "precision")
    check_direction(direction)
    if model is not None:
        check_is(model, Module, "model")
    most = math.inf if max_nodes is None else size(max_nodes, "max_nodes")
    check_history(output)
    order = inputs_first(output)
    if len(order) > most:
        raise ValueError(
            f"value: expected a graph of at most max_nodes = {most:,} Values to step through, got {len(order):,}; "
            "draw folds a larger one, and max_nodes=None plays it all the same"
        )
    names = names_of(order, model)
    _check_is_current(output, names, precision)
    g = adjoints([(output, 1.0)], partials_as_numbers)
    picture = picture_of_value(
        output, model=model, max_nodes=None, precision=precision, gradient=lambda z: 0.0 + g.get(z, 0.0)
    )
    steps = _Steps(order, names, picture, precision)
    return _page(picture, steps, direction, precision)


def _check_is_current(output: Value, names: dict[Value, str], precision: int) -> None:
    """Raise ValueError if a step would say what is not so."""
    for z in inputs_first(output):
        if z.op is not None and not is_current(z):
            equation = f"{short_name(names[z], CELLS)} = {formula(z, names, precision)}"
            raise ValueError(
                f"value: expected a graph whose formulas hold, but {equation} is still {shown(z.data, precision)}: "
                "numbers changed since. Compute value anew, or call step_through before optimizer.step()"
            )


@dataclass(slots=True)
class Step:
    """phase: "Given", "Forward", "Backward" or "Result"; body: HTML; node: whose turn it is; edges: those looked at."""

    phase: str
    title: str
    body: list[str]
    node: int | None = None
    edges: list[int] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


class _Steps:
    """The steps of a graph. Nodes and edges have the numbers that they have in its picture."""

    def __init__(self, order: list[Value], names: dict[Value, str], picture: Picture, precision: int) -> None:
        self.order, self.output, self.names, self.precision = order, order[-1], names, precision
        self.number = {z: i for i, z in enumerate(order)}
        self.backward = topological_order([self.output])  # as backward goes: sums are those of its order, to the bit
        self.computed = sorted(self.backward, key=self.number.__getitem__)
        self.edges: dict[Value, list[int]] = {z: [] for z in self.computed}
        for i, edge in enumerate(picture.edges):
            self.edges[order[edge.target]].append(i)
        self.g: dict[Value, float] = {}
        self.all = [self._given(), *map(self._forward, self.computed), self._seed()]
        self.all += [*map(self._backward, self.backward), self._result()]

    def name(self, z: Value) -> str:
        return short_name(self.names[z], CELLS)

    def _shown(self, x: float) -> str:
        return shown(x, self.precision)

    def _change(self, z: Value, what: str, x: float) -> Change:
        return self.number[z], what, f"{what} {self._shown(x)}"

    def _given(self) -> Step:
        """What nothing computed; all else is unknown, and no gradient has come yet."""
        given = [z for z in self.order if z not in self.edges]
        changes = [(self.number[z], "data", UNKNOWN) for z in self.computed]
        changes += [self._change(z, "data", z.data) for z in given]
        changes += [self._change(z, "grad", 0.0) for z in self.order if z.requires_grad]
        body = [_formulas([f"{self.name(z)} = {self._shown(z.data)}"] for z in given)]
        return Step("Given", "The numbers to begin with", body, changes=changes)

    def _forward(self, z: Value) -> Step:
        name, data = self.name(z), self._shown(z.data)
        made, numbers = formula(z, self.names, self.precision), with_numbers(z, self.precision)
        body = [_formulas([[f"{name} = {made}", f"= {numbers}", f"= {data}"]])]
        if "(" in z.op.form:  # type: ignore[union-attr]  # of an operator everybody knows what it does
            body.append(_sentence(self._meaning(z)))
        if where := place(z):
            body.append(element("p", text(where), class_="place"))
        return Step(
            "Forward", f"{name} is computed", body, self.number[z], self.edges[z], [self._change(z, "data", z.data)]
        )

    def _meaning(self, z: Value) -> str:
        """The sentence of its row of the table, and what of the graph the row's x and y are here."""
        op: Op = z.op  # type: ignore[assignment]
        if isinstance(op, Reduction):
            inputs = ["each input"] if op.lists == 1 else ["the first list", "the second"]
        else:
            inputs = [self._shown(x) if type(x) is float else self.name(x) for x in z.inputs]
        said = {letter[0] for letter in re.findall(r"\b[xy][₁₂]?\b", op.__doc__ or "")}
        here = [f"{letter} is {own}" for letter, own in zip("xy", inputs) if letter in said and letter != own]
        return f"{op.name}: {op.__doc__}" + f" Here {' and '.join(here)}." * bool(here)

    def _seed(self) -> Step:
        z, name = self.output, self.name(self.output)
        self.g[z] = 1.0
        body = [
            _formulas([[f"∂{name}/∂{name} = 1", f"{name}.grad += 1"]]),
            _sentence(f"∂{name}/∂{name} is 1. From here on the chain rule goes backwards."),
        ]
        return Step(
            "Backward", f"The gradient of {name} itself", body, self.number[z], [], [self._change(z, "grad", 1.0)]
        )

    def _backward(self, z: Value) -> Step:
        """z's gradient is complete; each of its inputs gets that times ∂z/∂x. The chain rule, as `engine` has it."""
        name, g = self.name(z), self.g[z]
        rows, changes = [], []
        for x, which, d in zip(z.inputs, ordinals(z.inputs), derivatives(z, self.names, self.precision)):
            if type(x) is float or not x.requires_grad:
                continue
            own = self.name(x)
            forms = dict.fromkeys([d.formula, d.numbers, self._shown(d.value)])
            rows.append([f"{partial(name, own, which)} = {' = '.join(forms)}", *self._add(x, g, d.value)])
            changes.append(self._change(x, "grad", self.g[x]))
        body = [
            _sentence(f"{name}.grad = {self._shown(g)} is complete. Each input gets it times the local derivative."),
            _formulas(rows),
        ]
        return Step("Backward", f"{name} passes its gradient on", body, self.number[z], self.edges[z], changes)

    def _add(self, x: Value, g: float, derivative: float) -> list[str]:
        """Add g · derivative to the gradient of x. What is said of it has as many digits as it takes to be true."""
        before = self.g.get(x, 0.0)
        after = self.g[x] = before + g * derivative

        def holds(digits: int) -> bool:
            a, b, c = (rounded(number, digits) for number in (before, g, derivative))
            return self._shown(a + b * c) == self._shown(after)

        digits = digits_for(holds, self.precision)
        a, b, c = (shown(number, digits) for number in (before, g, derivative))
        name = self.name(x)
        return [f"{name}.grad += {b} · {c}", f"{name}.grad: {a} → {self._shown(after)}"]

    def _result(self) -> Step:
        leaves = [x for x in self.order if x not in self.edges and x.requires_grad]
        name = self.name(self.output)
        body = [
            _formulas([f"∂{name}/∂{self.name(x)} = {self._shown(self.g[x])}"] for x in leaves),
            _sentence(f"{name}.backward() adds these to each .grad."),
        ]
        return Step("Result", f"How {name} changes with what was given", body)


def _formulas(rows: Iterable[list[str]]) -> str:
    """A row for each input, of formulas that may stand in one line or below one another."""
    items = [element("li", *[element("code", text(part)) for part in row]) for row in rows]
    return element("ul", *items, class_="formulas")


def _sentence(s: str) -> str:
    return element("p", text(s))


# ── The page ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _page(picture: Picture, steps: _Steps, direction: str, precision: int) -> str:
    title = f"How {steps.name(steps.output)} = {shown(steps.output.data, precision)} and its gradients are computed"
    own = Path(__file__)
    widest = precision + len("grad −.e−300")  # what a box must hold at any step
    return page(
        title,
        element("h1", text(title)),
        _controls(len(steps.all)),
        element("p", "", id="status", class_="unseen", role="status"),
        element("ol", *_items(steps.all), id="steps", tabindex=0, aria_label="The steps"),
        element("figure", svg(picture, direction, precision, least=widest), id="graph"),
        element("p", TOO_LARGE, class_="instead"),
        element("div", "", id="tip", role="tooltip", hidden=""),
        element("details", element("summary", "Keys"), _keys(), class_="keys"),
        element("script", _data(picture, steps), type="application/json", id="lesson"),
        style=own.with_name("lesson.css").read_text(encoding="utf-8"),
        script=own.with_name("lesson.js").read_text(encoding="utf-8"),
    )


def _controls(n: int) -> str:
    buttons = [
        element("button", name, id=name.lower(), type="button", title=what)
        for name, what in {
            "First": "the first step (Home)",
            "Back": "a step back (←)",
            "Play": "play or pause (Space)",
            "Next": "a step on (→)",
            "Last": "the last step (End)",
        }.items()
    ]
    speeds = [
        element("option", f"{speed} ×", value=speed, **{"selected": ""} if speed == "1" else {}) for speed in SPEEDS
    ]
    position = element("input", id="position", type="range", min=0, max=n - 1, value=0, aria_label="Step")
    return element(
        "div",
        *buttons,
        element("label", "Speed ", element("select", *speeds, id="speed")),
        element("span", position, element("span", f"1 of {n}", id="count"), class_="position"),
        class_="controls",
        role="group",
        aria_label="Playback",
    )


def _items(steps: list[Step]) -> Iterator[str]:
    """Each step as an item of the list; of the passes, which of how many it is."""
    total = {phase: sum(step.phase == phase for step in steps) for phase in ("Forward", "Backward")}
    done = dict.fromkeys(total, 0)
    for step in steps:
        phase = step.phase
        if phase in total:
            done[phase] += 1
            phase = f"{phase}, {done[phase]} of {total[phase]}"
        yield element("li", element("p", phase, class_="phase"), element("h2", text(step.title)), *step.body)


def _keys() -> str:
    rows = [element("dt", text(keys)) + element("dd", text(what)) for keys, what in KEYS.items()]
    return element("dl", *rows)


def _data(picture: Picture, steps: _Steps) -> str:
    """What the script needs, as JSON. No "<" stands in it, so that nothing in it can end the element."""
    told = [
        [node.name, *filter(None, [node.formula, with_numbers(z, steps.precision), node.place])]
        for node, z in zip(picture.nodes, steps.order)
    ]
    kinds = ["constant" if node.kind == "constant" else "" for node in picture.nodes]
    data = {
        "unknown": UNKNOWN,
        "nodes": [
            {"told": [left_to_right(printable(line, 300)) for line in lines], "kind": kind}
            for lines, kind in zip(told, kinds)
        ],
        "steps": [
            {"phase": step.phase, "node": step.node, "edges": step.edges, "changes": step.changes} for step in steps.all
        ],
    }
    return json.dumps(data).replace("<", "\\u003c")
