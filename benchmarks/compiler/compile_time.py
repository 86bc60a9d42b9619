"""How long the compiler itself takes, and how much memory: from scalar code to loops, and from there to running code.

The networks are user-written: a neuron is `sum(w * x for …)` over single Values, a node for each product and each sum,
and each node of the forward pass has its part in the backward pass. Three questions:

    passes   784-128-10: trace, simplify, reroll (with fuse) of loss and gradient, in seconds and megabytes
    scaling  784-n-10 from 10⁴ to 10⁶ nodes: the seconds of these passes for each node
    running  64-32-10: from calling `compile` to having the first loss and gradient, on both backends, in a process
             where nothing was compiled before ("first") and again with another network of the same kind ("again")

Every figure is the median over processes of their own; the memory is the most that a process ever held.
Needs `pip install llvmlite==0.50.0` for the llvm backend.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import time
from typing import Any

from contest import bounded, chosen, machine, parser, show

from milligrad import Value
from milligrad import functional as F

PASSES = ("trace", "simplify", "reroll", "fuse")
SIZES = (4, 13, 42, 130, 420)  # hidden neurons: from 10⁴ to 10⁶ nodes
_random = random.Random(0)


def layer(n_in: int, n_out: int) -> list[tuple[list[Value], Value]]:
    bound = n_in**-0.5
    return [([Value(_random.uniform(-bound, bound)) for _ in range(n_in)], Value(0.0)) for _ in range(n_out)]


def outputs(neurons: list[tuple[list[Value], Value]], xs: list[Any]) -> list[Any]:
    return [sum((w * x for w, x in zip(weights, xs)), bias) for weights, bias in neurons]


def network(n_in: int, n_hidden: int, n_out: int = 10) -> Any:
    """The loss of one sample, as a function of the sample and its class."""
    hidden, output = layer(n_in, n_hidden), layer(n_hidden, n_out)

    def loss(xs: list[Any], y: Any) -> Any:
        return F.cross_entropy(outputs(output, [z.relu() for z in outputs(hidden, xs)]), y)

    return loss


def compiled_once(n_in: int, n_hidden: int, backend: Any) -> dict[str, Any]:
    """What `compile` says of its work on loss and gradient, and the time from calling it to having them."""
    from milligrad import compile

    loss, x = network(n_in, n_hidden), [_random.random() for _ in range(n_in)]
    start = time.perf_counter()
    f = compile(loss, backend=backend)
    z = f.value(x, 3)
    z.backward()
    total = time.perf_counter() - start
    eager = loss(x, 3)
    if not abs(z.data - eager.data) <= 1e-12 * abs(eager.data):
        sys.exit(f"compiled {z.data!r}, eager {eager.data!r}: the compiled code does not compute the same")
    text = f.explain().split("\n\n")[0]
    nodes = re.search(r"([\d,]+) nodes traced, ([\d,]+) after simplify, ([\d,]+) groups, ([\d,]+) loops", text)
    if nodes is None:
        sys.exit(f"explain() no longer says how many nodes were traced:\n{text}")
    counts = [int(n.replace(",", "")) for n in nodes.groups()]
    times = {name: float(ms) / 1e3 for name, ms in re.findall(r"(\w+): ([\d.]+) ms", text)}
    return {"counts": counts, "times": times, "total": total}


def serve(n_in: int, n_hidden: int, backend: str) -> None:
    """In a process of its own: print the first and the second compilation, and the memory, as JSON."""
    import resource

    first = compiled_once(n_in, n_hidden, backend)
    unit = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    again = compiled_once(n_in, n_hidden, backend) if n_in == 64 else None
    print(json.dumps({**first, "memory": memory, "again": again}))


def in_processes(n_in: int, n_hidden: int, backend: str, rounds: int) -> list[dict[str, Any]]:
    command = [sys.executable, __file__, "--serve", f"{n_in},{n_hidden},{backend}"]
    return [
        json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout) for _ in range(rounds)
    ]


def passes_of(run: dict[str, Any]) -> float:
    times: dict[str, float] = run["times"]
    return sum(times[name] for name in PASSES if name in times)


def passes(rounds: int) -> None:
    runs = in_processes(784, 128, "python", rounds)
    traced, simplified, groups, loops = runs[0]["counts"]
    print(f"\n784-128-10, user-written: {traced:,} nodes, {simplified:,} simplified, {groups} groups, {loops} loops")
    print("; ".join(f"{name} {show(statistics.median(r['times'][name] for r in runs))}" for name in runs[0]["times"]))
    print("\n| what | measured | goal | reached |\n| --- | --- | --- | --- |")
    print(bounded(", ".join(PASSES), statistics.median(map(passes_of, runs)), 4.0, show))
    print(bounded("most memory", statistics.median(r["memory"] for r in runs), 600, "{:.0f} MB".format))


def scaling(rounds: int) -> None:
    print("\n| network | nodes | time | time per node | memory |\n| --- | --- | --- | --- | --- |")
    per_node = []
    for n_hidden in SIZES:
        runs = in_processes(784, n_hidden, "python", rounds)
        nodes, taken = runs[0]["counts"][0], statistics.median(map(passes_of, runs))
        per_node.append(taken / nodes)
        memory = statistics.median(r["memory"] for r in runs)
        print(f"| 784-{n_hidden}-10 | {nodes:,} | {show(taken)} | {show(taken / nodes)} | {memory:.0f} MB |")
    print(f"\nthe dearest node takes {max(per_node) / min(per_node):.2f} × the time of the cheapest (flat would be 1)")


def running(rounds: int) -> None:
    print("\n| 64-32-10, to the first loss and gradient | measured | goal | reached |\n| --- | --- | --- | --- |")
    for backend, goal in (("llvm", 0.4), ("python", 0.1)):
        runs = in_processes(64, 32, backend, rounds)
        print(bounded(f"{backend}, first", statistics.median(r["total"] for r in runs), goal, show))
        print(bounded(f"{backend}, again", statistics.median(r["again"]["total"] for r in runs), goal, show))


QUESTIONS = {"passes": passes, "scaling": scaling, "running": running}


def main() -> None:
    arguments = parser(__doc__, rounds=5)
    arguments.add_argument("--serve", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        n_in, n_hidden, backend = options.serve.split(",")
        serve(int(n_in), int(n_hidden), backend)
        return
    print(machine("llvmlite"))
    for name in chosen(QUESTIONS, options):
        QUESTIONS[name](options.rounds)


if __name__ == "__main__":
    main()
