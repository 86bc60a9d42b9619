"""How long pictures and explanations take: `python benchmarks/draw.py` prints the tables of README.md.

A time is from the Value to the finished text, with the making of the picture in it; medians over the rounds. For scale,
Graphviz's `dot -Tsvg` gets the same graph as our own SVG, if it is installed.
"""

from __future__ import annotations

import argparse
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.engine import processor  # noqa: E402
from milligrad import Linear, ReLU, Sequential, Tanh, Value, manual_seed, sum  # noqa: E402
from milligrad.draw import draw  # noqa: E402
from milligrad.draw.naming import inputs_first  # noqa: E402
from milligrad.explain import explain  # noqa: E402

LARGE_GOAL = 3.0  # seconds for text or DOT of 100,000 nodes
SMALL_GOAL = 1.0  # and for the SVG of 300
PATIENCE = 30  # seconds that Graphviz gets for one picture


def long_chain(n: int = 50_000) -> Value:
    """z = z · w + 1.5, over and over: two nodes and three edges a step."""
    w = z = Value(0.5, "w")
    for _ in range(n):
        z = z * w + 1.5
    z.backward()
    return z


def many_leaves(n: int = 99_000) -> Value:
    """A chain of products and differences with 1,000 leaves, whose names are longer than there is room for."""
    leaves = [Value(random.random(), f"encoder_feed_forward.weight[{i // 10}][{i % 10}]") for i in range(1_000)]
    z = Value(1.0)
    for i in range(n):
        x = leaves[i % 1_000]
        z = z - x if i % 2 else z * x
    z.backward()
    return z


def wide_network() -> Value:
    """The loss of a 784-128-10 network on one sample: as many nodes as it has weights, and some."""
    model = Sequential(Linear(784, 128), ReLU(), Linear(128, 10))
    loss = sum([z * z for z in model([random.random() for _ in range(784)])])
    loss.backward()
    return loss


def saturated_layers(depth: int = 400) -> Value:
    """What a network of 400 layers answers to a batch, when its weights are much too large."""
    model = Sequential(*[layer for _ in range(depth) for layer in (Linear(3, 3), Tanh())])
    for parameter in model.parameters():
        for x in parameter.values():
            x.data *= 30
    inputs = [[random.gauss(0, 1) for _ in range(3)] for _ in range(32)]
    loss = sum([y * y for row in model(inputs) for y in row])
    loss.backward()
    return loss


def small_network() -> Value:
    """The loss of a 2-12-12-1 network on one sample: each node of a layer is used by all of the next."""
    model = Sequential(Linear(2, 12), Tanh(), Linear(12, 12), Tanh(), Linear(12, 1))
    loss = (model([0.5, -0.5])[0] - 1.0) ** 2
    loss.backward()
    return loss


def tree(depth: int = 7) -> Value:
    """A sum of sums: every node has two inputs of its own."""
    row = [Value(random.uniform(-1, 1)) for _ in range(2**depth)]
    while len(row) > 1:
        row = [x + y for x, y in zip(row[::2], row[1::2])]
    row[0].backward()
    return row[0]


def long_edges(n: int = 299) -> Value:
    """Each node is made of the one before it and of one half as far from the beginning: edges pass many layers."""
    chain = [Value(0.5)]
    for i in range(n):
        chain.append(chain[-1] * chain[i // 2])
    chain[-1].backward()
    return chain[-1]


LARGE = {
    "a long chain": long_chain,
    "a chain of 1,000 leaves": many_leaves,
    "784-128-10, one sample": wide_network,
}
SMALL = {
    "2-12-12-1, one sample": small_network,
    "a binary tree": tree,
    "a chain, w used in each step": lambda: long_chain(149),
    "a chain with long edges": long_edges,
}


def median(f: Callable[[], object], rounds: int) -> float:
    """Seconds that f takes."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def large_graphs(rounds: int) -> None:
    print("| graph | shown | nodes | edges | text | bytes | DOT | bytes | must take at most |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, build in LARGE.items():
        z = build()
        for shown, most in ("all", None), ("folded or cut", 300):
            graph = draw(z, max_nodes=most)
            size = f"{len(graph.picture.nodes):,} | {len(graph.picture.edges):,}"
            columns = []
            for write in (str, type(graph).dot):
                seconds = median(lambda: write(draw(z, max_nodes=most)), rounds)  # noqa: B023
                columns.append(f"{seconds:.2f} s | {len(write(graph).encode()):,}")
            print(f"| {name} | {shown} | {size} | {' | '.join(columns)} | {LARGE_GOAL:g} s |")


def small_graphs(rounds: int) -> None:
    print("\n| graph | nodes | edges | SVG | bytes | must take at most | Graphviz's SVG | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, build in SMALL.items():
        z = build()
        graph = draw(z)
        ours = median(lambda: draw(z).svg(), rounds)  # noqa: B023
        row = [name, f"{len(graph.picture.nodes):,}", f"{len(graph.picture.edges):,}", f"{ours:.2f} s"]
        row += [f"{len(graph.svg().encode()):,}", f"{SMALL_GOAL:g} s", *graphvizs(graph.dot(), ours, rounds)]
        print(f"| {' | '.join(row)} |")


def graphvizs(source: str, ours: float, rounds: int) -> list[str]:
    """The seconds of Graphviz, and how many times as long ours takes."""
    if shutil.which("dot") is None:
        return ["not installed", ""]

    def run() -> object:
        return subprocess.run(
            ["dot", "-Tsvg"], input=source.encode(), check=True, capture_output=True, timeout=PATIENCE
        )

    try:
        seconds = median(run, rounds)
    except subprocess.TimeoutExpired:
        return [f"over {PATIENCE} s", ""]
    return [f"{seconds:.2f} s", f"{ours / seconds:.2f}"]


def explanations(rounds: int) -> None:
    """Of large graphs: what is wrong with them, and the largest paths from their first leaf."""
    print("\n| graph | Values | explain(loss) | explain(loss, wrt=leaf) |")
    print("| --- | --- | --- | --- |")
    for name, build in {**LARGE, "400 saturated layers": saturated_layers}.items():
        z = build()
        order = inputs_first(z)
        leaf = next(x for x in order if x.op is None and x.requires_grad)
        trouble = median(lambda: str(explain(z)), rounds)  # noqa: B023
        paths = median(lambda: str(explain(z, wrt=leaf)), rounds)  # noqa: B023
        print(f"| {name} | {len(order):,} | {trouble:.2f} s | {paths:.2f} s |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    random.seed(0)
    manual_seed(0)
    print(f"{processor()}; {platform.system()}; CPython {platform.python_version()}\n")
    large_graphs(rounds)
    small_graphs(rounds)
    explanations(rounds)


if __name__ == "__main__":
    main()
