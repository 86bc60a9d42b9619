"""The eager engine against micrograd and PyTorch: `python benchmarks/engine.py` prints the table of README.md.

Needs `pip install micrograd==0.1.0 torch==2.13.0`. A figure is the mean over a second of steps, with garbage collection
on; contenders take turns, and the table shows medians over the rounds. Times are of each contender alone in a fresh
process. Ratios are medians of the ratios round by round, and are given twice: alone, and with all contenders together
in one process, as in a program that has PyTorch loaded. There Python's garbage collector has more to look through; an
engine that leaves cycles behind waits for it more often. PyTorch runs on one thread in float64, and on whole tensors,
as it is meant to be used.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.setrecursionlimit(100_000)  # micrograd's backward recurses
random.seed(0)

LR = 0.01
X = [random.random() for _ in range(64)]
TARGET = [random.random() for _ in range(10)]
START = [random.uniform(-1, 1) for _ in range(1_000)]

Step = Callable[[], object]


def squared_error(outputs):
    return sum((z - t) ** 2 for z, t in zip(outputs, TARGET))


def neuron(weights, bias, xs):
    """A neuron as a user writes it, and as micrograd's own `Neuron` has it."""
    return sum((w * x for w, x in zip(weights, xs)), bias)


def descend(parameters, loss_of) -> Step:
    """A training step with the update written out; the same code for both engines."""

    def step():
        loss = loss_of()
        for p in parameters:
            p.grad = 0.0
        loss.backward()
        for p in parameters:
            p.data -= LR * p.grad

    return step


def written_out(Value) -> Step:
    """A 64-32-10 network on single Values, as a user writes it."""
    hidden = [([Value(random.uniform(-0.1, 0.1)) for _ in range(64)], Value(0.0)) for _ in range(32)]
    output = [([Value(random.uniform(-0.1, 0.1)) for _ in range(32)], Value(0.0)) for _ in range(10)]
    parameters = [p for weights, bias in hidden + output for p in (*weights, bias)]

    def loss():
        h = [neuron(weights, bias, X).relu() for weights, bias in hidden]
        return squared_error([neuron(weights, bias, h) for weights, bias in output])

    return descend(parameters, loss)


def rosenbrock(xs):
    return sum(100 * (b - a**2) ** 2 + (1 - a) ** 2 for a, b in pairwise(xs))


def rosenbrock_of(Value) -> Step:
    """Value and gradient of a function of 1,000 variables; the same code for both engines."""
    xs = [Value(x) for x in START]

    def step():
        for x in xs:
            x.grad = 0.0
        rosenbrock(xs).backward()

    return step


def milligrad_written_out() -> Step:
    from milligrad import Value

    return written_out(Value)


def milligrad_linear() -> Step:
    from milligrad import Linear, ReLU, Sequential

    model = Sequential(Linear(64, 32), ReLU(), Linear(32, 10))
    parameters = [p for parameter in model.parameters() for p in parameter.values()]
    return descend(parameters, lambda: squared_error(model(X)))


def milligrad_linear_and_sgd() -> Step:
    from milligrad import SGD, Linear, ReLU, Sequential

    model = Sequential(Linear(64, 32), ReLU(), Linear(32, 10))
    optimizer = SGD(model.parameters(), lr=LR)

    def step():
        loss = squared_error(model(X))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def milligrad_rosenbrock() -> Step:
    from milligrad import Value

    return rosenbrock_of(Value)


def micrograd_mlp() -> Step:
    from micrograd.nn import MLP

    model = MLP(64, [32, 10])
    return descend(model.parameters(), lambda: squared_error(model(X)))


def micrograd_rosenbrock() -> Step:
    from micrograd.engine import Value

    return rosenbrock_of(Value)


def torch_linear() -> Step:
    import torch

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    x, target = torch.tensor(X), torch.tensor(TARGET)

    def step():
        loss = ((model(x) - target) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def torch_rosenbrock() -> Step:
    import torch

    torch.set_num_threads(1)
    x = torch.tensor(START, dtype=torch.float64, requires_grad=True)

    def step():
        x.grad = None
        (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum().backward()

    return step


WORKS = {
    "64-32-10 training step, user-written sum(w*x)": (milligrad_written_out, micrograd_mlp, torch_linear, 5),
    "the same with Linear": (milligrad_linear, micrograd_mlp, torch_linear, 30),
    "the same with Linear and SGD": (milligrad_linear_and_sgd, micrograd_mlp, torch_linear, 30),
    "Rosenbrock of 1,000 variables, value and gradient": (
        milligrad_rosenbrock,
        micrograd_rosenbrock,
        torch_rosenbrock,
        8,
    ),
}
CONTENDERS = {f.__name__: f for work in WORKS.values() for f in work[:3]}


def seconds_per_step(step: Step) -> float:
    """The mean over as many steps as fit into a second, after a few to warm up."""
    for _ in range(3):
        step()
    n, start = 0, time.perf_counter()
    while time.perf_counter() - start < 1.0:
        step()
        n += 1
    return (time.perf_counter() - start) / n


def in_a_process(contender: Callable[[], Step]) -> float:
    """seconds_per_step of a contender, in a fresh interpreter."""
    command = [sys.executable, __file__, "--contender", contender.__name__]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def bytes_per_node(n: int = 100_000) -> tuple[float, float]:
    """What a node of a chain of n additions takes, before and after backward."""
    import tracemalloc

    from milligrad import Value

    x = Value(0.0)
    tracemalloc.start()
    z = x
    for _ in range(n):
        z = z + 1.5
    built = tracemalloc.get_traced_memory()[0] / n
    z.backward()
    after = tracemalloc.get_traced_memory()[0] / n
    tracemalloc.stop()
    return built, after


def import_seconds(rounds: int = 21) -> float:
    """The median of how much longer `import milligrad` takes than `pass`, in processes that take turns."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def run(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)
        return time.perf_counter() - start

    run("import milligrad")  # writes the bytecode
    return statistics.median(run("import milligrad") - run("pass") for _ in range(rounds))


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {os.cpu_count()} cores" if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contender", choices=CONTENDERS, help="print one contender's seconds per step")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if options.contender:
        print(seconds_per_step(CONTENDERS[options.contender]()))
        return

    flags = sysconfig.get_config_var("CONFIG_ARGS") or ""
    optimized = "with" if "--enable-optimizations" in flags else "without"
    print(f"{processor()}; {platform.system()}; CPython {platform.python_version()} {optimized} PGO\n")
    alone = {f: [] for f in CONTENDERS.values()}
    for _ in range(options.rounds):
        for f, seconds in alone.items():
            seconds.append(in_a_process(f))
    steps = {f: f() for f in CONTENDERS.values()}
    together = {f: [] for f in steps}
    for _ in range(options.rounds):
        for f, seconds in together.items():
            seconds.append(seconds_per_step(steps[f]))
    print("| work | milligrad | micrograd | PyTorch | × micrograd, alone | × micrograd, together | must reach |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, (ours, theirs, torch, goal) in WORKS.items():
        times = " | ".join(f"{statistics.median(alone[f]) * 1e3:.3g} ms" for f in (ours, theirs, torch))
        ratios = [statistics.median(b / a for a, b in zip(way[ours], way[theirs])) for way in (alone, together)]
        print(f"| {name} | {times} | {ratios[0]:.1f} × | {ratios[1]:.1f} × | {goal} × |")
    built, after = bytes_per_node()
    print(f"\nbytes a node in a long chain: {built:.0f}, after backward {after:.0f} (must be at most 200)")
    print(f"import milligrad: {import_seconds() * 1e3:.1f} ms more than pass (must be at most 30 ms)")


if __name__ == "__main__":
    main()
