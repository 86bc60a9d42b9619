"""What Values are called in every picture and explanation: by their own names, by a model's, or by their place."""

from __future__ import annotations

from collections.abc import Sequence

from milligrad.engine import Value
from milligrad.expected import check_is
from milligrad.nested import leaves
from milligrad.nn.module import Module
from milligrad.typing import Any


def inputs_first(*outputs: Value) -> list[Value]:
    """All Values behind the outputs, leaves and constants too, in the order in which they were made: inputs first."""
    ends = frozenset(outputs)
    found, stack = {*ends}, [*ends]
    while stack:
        z = stack.pop()
        if z.requires_grad or z in ends:
            new = {x for x in z.inputs if type(x) is not float} - found
            found |= new
            stack += new
    return sorted(found, key=lambda z: z.serial)


def names_of(order: Sequence[Value], model: Module | None = None, also: Sequence[Value] = ()) -> dict[Value, str]:
    """A name for each Value, no two alike: its own, that in `model` ("hidden.weight[0][1]"), or v1, v2, … in order.

    The numbers begin with what was given, and go on with what was computed: a program, too, is given its numbers first.
    What is `also` to be named changes no number, but has its own name even if another has the same.

    A name of blanks alone is none. Where several have one name of their own, the second is called "name #2", and so on.
    """
    if model is not None:
        check_is(model, Module, "model")
    of_model = names_in(model) if model is not None else {}
    names: dict[Value, str] = {}
    taken: set[str] = set()
    given: dict[str, int] = {}
    for z in (*also, *order):
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
    for z in (*sorted(order, key=lambda z: z.op is not None), *also):
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
