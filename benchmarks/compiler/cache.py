"""What the cache saves: the first call of a process that compiles, against that of one that finds the code kept.

Each program runs in fresh processes, the first of them with an empty folder as MILLIGRAD_CACHE, and must compute the
same numbers to the bit. A call is everything from calling to having the numbers: trace, passes, LLVM, or the files;
imports are told beside it. Of what remains with the cache most is the trace, which is made in each process, and its
digest; where it is much, as where several batches are traced to prove what a batch is, a tenth is out of reach.

Needs `pip install llvmlite==0.50.0`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from compile_time import network
from contest import bounded, chosen, machine, parser, show
from digits_online import XS, YS, our_model
from in_order import flat, runge_kutta

from milligrad import SGD, CrossEntropyLoss, Linear, Sequential, Trainer, compile, manual_seed, nn, sin, value_and_grad

GOAL = 0.1
Calls = tuple[Callable[[], Any], Callable[[], list[float]]]  # the first call, and the numbers after it
_random = random.Random(0)


def in_time(backend: str) -> Calls:
    """2,000 Runge-Kutta steps of a pendulum, with their gradient."""

    def f(p: Any) -> Any:
        state = [1.0, 0.0]
        for _ in range(2_000):
            state = runge_kutta(lambda s: [s[1], -p[0] * sin(s[0]) - p[1] * s[1]], state, 0.001)
        return (state[0] - 0.3) ** 2

    g = compile(value_and_grad(f), backend=backend)  # type: ignore[arg-type]
    return lambda: g([9.81, 0.1]), lambda: flat(g([9.81, 0.1]))


def scalars(backend: str) -> Calls:
    """The loss of 64-32-10, sums written out, with its gradient."""
    loss, x = network(64, 32), [_random.random() for _ in range(64)]
    f = compile(loss, backend=backend)  # type: ignore[arg-type]
    return lambda: f.value(x, 3), lambda: [f.value(x, 3).data]


def fitted(model: Any, backend: str, x: Any, y: Any, batch_size: int) -> Calls:
    trainer = Trainer(model, CrossEntropyLoss(), SGD(model.parameters(), lr=0.01, momentum=0.9), backend=backend)

    def fit() -> None:
        trainer.fit(x, y, batch_size=batch_size, shuffle=False, progress=False)

    return fit, lambda: [v.data for v in model.values()]


def digits(backend: str) -> Calls:
    """`Trainer` with 64-32-10, batches of 16 digits, an epoch."""
    return fitted(our_model(), backend, XS, YS, 16)


def large(backend: str) -> Calls:
    """`Trainer` with 784-128-10, two batches of 32."""
    manual_seed(0)
    x = [[_random.random() for _ in range(784)] for _ in range(64)]
    return fitted(Sequential(Linear(784, 128), nn.ReLU(), Linear(128, 10)), backend, x, [i % 10 for i in range(64)], 32)


def lenet(backend: str) -> Calls:
    """`Trainer` with a LeNet of 28 × 28 pixels, two batches of 16."""
    manual_seed(0)
    maps = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    rows = [nn.Flatten(), Linear(400, 120), nn.ReLU(), Linear(120, 84), nn.ReLU(), Linear(84, 10)]
    x = [[[[_random.random() for _ in range(28)] for _ in range(28)]] for _ in range(32)]
    return fitted(Sequential(*maps, *rows), backend, x, [i % 10 for i in range(32)], 16)


def gpt(backend: str) -> Calls:
    """`Trainer` with the GPT of examples/names_gpt.py, 100 names of all lengths, one a step."""
    from names_gpt import Milligrad, batches

    ours = Milligrad(batches(None, 100), backend)
    return lambda: ours.train(1), lambda: [v.data for v in ours.trainer.model.values()]


PROGRAMS = {f.__name__: f for f in (in_time, scalars, digits, large, lenet, gpt)}


def serve(name: str, backend: str) -> None:
    """In a process of its own: print the seconds of the imports and of the first call, and the numbers."""
    start = time.perf_counter()
    import milligrad.compiler.fit  # noqa: F401
    from milligrad.compiler.llvm.native import host

    if backend == "llvm":
        host()  # which imports llvmlite
    imported = time.perf_counter()
    call, numbers = PROGRAMS[name](backend)
    made = time.perf_counter()
    call()
    print(json.dumps([imported - start, time.perf_counter() - made, numbers()]))


def in_a_process(name: str, backend: str, folder: str) -> tuple[float, float, list[float]]:
    command = [sys.executable, __file__, "--serve", f"{name},{backend}"]
    environment = {**os.environ, "MILLIGRAD_CACHE": folder}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    imports, call, numbers = json.loads(done.stdout.splitlines()[-1])
    return imports, call, numbers


def main() -> None:
    arguments = parser(__doc__, rounds=3)
    arguments.add_argument("--backend", default="llvm")
    arguments.add_argument("--serve", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        serve(*options.serve.split(","))
        return
    print(machine("llvmlite"))
    print("\n| program | imports | first call: compiled | found | found against compiled | goal | reached |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    missed = []
    for name in chosen(PROGRAMS, options):
        ratios, seconds = [], []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory() as folder:
                runs = [in_a_process(name, options.backend, path) for path in (f"{folder}/cache", f"{folder}/cache")]
            if runs[0][2] != runs[1][2]:
                sys.exit(f"{name}: what was found does not compute the same")
            seconds.append([runs[1][0], runs[0][1], runs[1][1]])
            ratios.append(runs[1][1] / runs[0][1])
        ratio = statistics.median(ratios)
        told = " | ".join(show(statistics.median(column)) for column in zip(*seconds))
        print(bounded(f"{name} | {told}", ratio, GOAL, lambda x: f"{x:.3f} × its time"), flush=True)
        if ratio > GOAL:
            missed.append(f"{name} ({ratio:.2f})")
    print(f"\nmissed: {', '.join(missed) or 'nothing'}")


if __name__ == "__main__":
    main()
