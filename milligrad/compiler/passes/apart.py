"""A program in two: what is computed sample by sample, and what follows from it for all of them.

The loss of a batch is a sum over its samples, and so are its derivatives: whatever is computed for a sample ends in
terms of such sums (`total`). So the first program gives the terms of a sample, and may go in the order of the trace;
the second one adds them up, and goes on as an optimizer wants it. What has no samples is taken apart at its outputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from milligrad import ops
from milligrad.compiler.passes.simplify import ONE, Builder, Graph
from milligrad.compiler.trace import Trace, total
from milligrad.engine import Value


class Parts(NamedTuple):
    """The graph of the terms, that of the outputs by the terms, and the Symbols that stand for the terms there."""

    first: Graph
    second: Graph
    terms: list[Any]


def apart(graph: Graph, varying: Iterable[Value]) -> Parts | None:
    """The graph in two parts, `varying` being the inputs of a sample; None if it can't be taken apart."""
    of_a_sample = {x.serial for x in varying}
    sums = [i for i, op in enumerate(graph.op) if op is total]
    cuts = sums or [i for i in dict.fromkeys(graph.outputs) if graph.op[i] is not None]
    terms = Trace().input("terms", len(cuts))
    first, after = Builder(), Builder()
    number = _copy(graph, graph.outputs, dict(zip(cuts, terms)), after)
    after.outputs = [_known(number[i]) for i in graph.outputs]
    needed = {x.serial for x in after.source.values() if type(x) is not float}
    if (of_a_sample and not sums) or of_a_sample & needed:
        return None  # there are samples and no sums, or a number of a sample is needed after these
    wanted = [x for i in cuts for x in (graph.inputs[i] if sums else (i,))]
    number = _copy(graph, wanted, {}, first)
    if sums and any([number[i] is not None for i in sums]):
        return None  # a sum over the samples is needed for one of them
    for i in cuts:
        inputs = tuple([_known(number[x]) for x in graph.inputs[i]])
        first.outputs.append(first.node(ops.dot, inputs) if sums else _known(number[i]))
    return Parts(first, after, terms)


def _copy(graph: Graph, outputs: list[int], given: dict[int, Any], new: Builder) -> list[int | None]:
    """Add what the outputs need to `new`, the given nodes as inputs; of each node its number there.

    Where such a node is a sum over samples, its input is a term of it.
    """
    need = bytearray(len(graph))
    for i in outputs:
        need[i] = 1
    for i in range(len(graph) - 1, -1, -1):
        if need[i] and i not in given:
            for x in graph.inputs[i]:
                need[x] = 1
    number: list[int | None] = [None] * len(graph)
    for i, op in enumerate(graph.op):
        if not need[i]:
            continue
        if i in given:
            leaf = new.leaf(given[i])
            number[i] = new.node(total, (leaf, ONE)) if op is total else leaf
        elif op is None:
            number[i] = new.leaf(graph.source[i])
        else:
            number[i] = new.node(op, tuple([_known(number[x]) for x in graph.inputs[i]]))
    return number


def _known(x: int | None) -> int:
    assert x is not None
    return x
