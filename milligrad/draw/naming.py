"""What Values are called in every picture and explanation: by their own names, by a model's, or by their place."""

from __future__ import annotations

from milligrad.engine import Value, topological_order
from milligrad.expected import check_is
from milligrad.nested import leaves
from milligrad.nn.module import Module
from milligrad.typing import Any


def inputs_first(output: Value) -> list[Value]:
    """All Values behind `output`, leaves and constants too, each after its inputs; `output` is the last."""
    order: list[Value] = []
    seen: set[Value] = set()
    for z in reversed(topological_order([output])):
        for x in z.inputs:
            if type(x) is not float and x not in seen and (x.op is None or not x.requires_grad):
                seen.add(x)
                order.append(x)
        seen.add(z)
        order.append(z)
    return order or [output]


def names_of(order: list[Value], model: Module | None = None) -> dict[Value, str]:
    """A name for each Value, no two alike: its own, that in `model` ("hidden.weight[0][1]"), or v1, v2, … in order.

    A name of blanks alone is none. Where several have one name of their own, the second is called "name #2", and so on.
    """
    if model is not None:
        check_is(model, Module, "model")
    of_model = names_in(model) if model is not None else {}
    names: dict[Value, str] = {}
    taken: set[str] = set()
    given: dict[str, int] = {}
    for z in order:
        name = z.name if z.name and not z.name.isspace() else of_model.get(z)
        if name is None:
            continue
        count = given[name] = given.get(name, 0) + 1
        unique = name if count == 1 else f"{name} #{count}"
        while unique in taken:
            count = given[name] = count + 1
            unique = f"{name} #{count}"
        taken.add(unique)
        names[z] = unique
    number = 0
    for z in order:
        if z not in names:
            number += 1
            while f"v{number}" in taken:
                number += 1
            names[z] = f"v{number}"
    return names


def names_in(model: Module) -> dict[Value, str]:
    """The place of each parameter: "hidden.weight[0][1]"."""
    names: dict[Value, Any] = {}
    for path, parameter in model.named_parameters():
        for place, x in leaves(parameter, path):
            names.setdefault(x, place)
    return names
