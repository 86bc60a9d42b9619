"""Loops in time, value and gradient: milligrad (llvm) against the C that it writes itself, and against JAX.

Each program is the plain Python of its field: an integrator, a filter, a recurrence. It is compiled, and called by
`map` for 100 rows, so that the call around the numbers does not count; the C comes from `save_c`, is compiled by
`gcc -O3 -march=native -ffast-math`, and called 100 times in a loop of C. JAX gets 2,000 Runge-Kutta steps as a
`lax.scan`, jitted. All must agree with the eager engine before anything is timed, and times are of one value with its
gradient.

Needs gcc, and `pip install llvmlite==0.50.0 jax==0.10.2`.
"""

from __future__ import annotations

import ctypes
import random
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from contest import (
    Contender,
    Goal,
    agree,
    bounded,
    chosen,
    library,
    machine,
    parser,
    peer,
    per_call,
    ratios,
    report,
    show,
    take_turns,
)

from milligrad import Value, compile, cos, exp, log, logsumexp, sin, value_and_grad

ROWS = 100
_random = random.Random(0)
Program = tuple[Callable[..., Any], list[float]]  # a function of a list of numbers, and a point


def pendulum() -> Program:
    """1,000 steps of Euler's method; how far it ends from where it should."""

    def f(p: Any) -> Any:
        x, v = 1.0, 0.0
        for _ in range(1_000):
            v = v - 0.001 * (p[0] * sin(x) + p[1] * v)
            x = x + 0.001 * v
        return (x - 0.3) ** 2

    return f, [9.81, 0.1]


def runge_kutta(rates: Callable[..., list[Any]], state: list[Any], h: float) -> list[Any]:
    """One step of the classical method."""

    def moved(by: list[Any], h: float) -> list[Any]:
        return [x + h * k for x, k in zip(state, by)]

    k1 = rates(state)
    k2 = rates(moved(k1, h / 2))
    k3 = rates(moved(k2, h / 2))
    k4 = rates(moved(k3, h))
    return [x + h / 6 * (a + 2 * b + 2 * c + d) for x, a, b, c, d in zip(state, k1, k2, k3, k4)]


def predator_and_prey() -> Program:
    """300 steps of Lotka and Volterra's equations, fitted to counts."""
    counts = [(1 + _random.random(), 1 + _random.random()) for _ in range(300)]

    def f(p: Any) -> Any:
        state, loss = [1.0, 1.0], 0.0
        for seen in counts:
            state = runge_kutta(
                lambda s: [p[0] * s[0] - p[1] * s[0] * s[1], p[2] * s[0] * s[1] - p[3] * s[1]], state, 0.01
            )
            loss = loss + sum((x - y) ** 2 for x, y in zip(state, seen))
        return loss

    return f, [1.1, 0.4, 0.1, 0.4]


def double_pendulum() -> Program:
    """100 steps of two coupled pendulums."""

    def rates(s: list[Any], p: Any) -> list[Any]:
        a, b, u, v = s
        d = a - b
        below = 2 - cos(d) * cos(d)
        du = (p[0] * (sin(b) * cos(d) - 2 * sin(a)) - (u * u * cos(d) + v * v * p[1]) * sin(d)) / below
        dv = (2 * p[0] * (sin(a) * cos(d) - sin(b)) + (2 * u * u + v * v * cos(d)) * sin(d)) / below
        return [u, v, du, dv]

    def f(p: Any) -> Any:
        state = [1.0, 0.5, 0.0, 0.0]
        for _ in range(100):
            state = runge_kutta(lambda s: rates(s, p), state, 0.01)
        return state[0] * state[0] + state[1]

    return f, [9.81, 1.0]


def kalman_filter() -> Program:
    """The likelihood of 300 observations of a random walk."""
    observations = [_random.gauss(0, 1) for _ in range(300)]

    def f(p: Any) -> Any:
        drift, noise = exp(p[0]), exp(p[1])
        mean, variance, loss = 0.0, 1.0, 0.0
        for y in observations:
            variance = variance * p[2] * p[2] + drift
            mean = mean * p[2]
            total = variance + noise
            gain, error = variance / total, y - mean
            mean = mean + gain * error
            variance = (1 - gain) * variance
            loss = loss + 0.5 * (log(total) + error * error / total)
        return loss

    return f, [-1.0, -1.0, 0.9]


def garch() -> Program:
    """The likelihood of 500 returns whose variance depends on the last return and the last variance."""
    returns = [_random.gauss(0, 1) for _ in range(500)]

    def f(p: Any) -> Any:
        variance, loss = 1.0, 0.0
        for before, now in pairwise(returns):
            variance = p[0] + p[1] * before * before + p[2] * variance
            loss = loss + 0.5 * (log(variance) + now * now / variance)
        return loss

    return f, [0.1, 0.1, 0.8]


def hidden_markov() -> Program:
    """The likelihood of 60 symbols, by the forward algorithm with four states; symbols are looked up in a table."""
    states, symbols = 4, 5
    seen = [_random.randrange(symbols) for _ in range(60)]

    def f(p: Any) -> Any:
        moves = [p[i * states : (i + 1) * states] for i in range(states)]
        shows = [p[states * states + i * symbols :][:symbols] for i in range(states)]
        forward = [row[seen[0]] for row in shows]
        for symbol in seen[1:]:
            forward = [
                logsumexp([forward[i] + moves[i][j] for i in range(states)]) + shows[j][symbol] for j in range(states)
            ]
        return logsumexp(forward)

    return f, [_random.random() for _ in range(states * (states + symbols))]


PROGRAMS = [pendulum, predator_and_prey, double_pendulum, kalman_filter, garch, hidden_markov]


def flat(result: Any) -> list[float]:
    value, gradient = result
    return [value, *gradient]


def eagerly(f: Callable[..., Any], x: list[float]) -> list[float]:
    p = [Value(a) for a in x]
    z = f(p)
    z.backward()
    return [z.data, *[a.grad for a in p]]


LOOP = """
#include "program.h"
#include "program.c"
void many(const double *x, double *z, long n, long width) {
    static double work[PROGRAM_WORK];
    for (long i = 0; i < n; i++) program(x, z + i * width, work);
}
"""


def in_c(g: Any, x: list[float]) -> tuple[Callable[[], object], list[float]]:
    """The C that is written for it, run ROWS times in a call; and what it computes."""
    with tempfile.TemporaryDirectory() as folder:
        g.save_c(Path(folder, "program.c"))
        Path(folder, "loop.c").write_text(LOOP, encoding="utf-8")
        many = library(str(Path(folder, "loop.c"))).many
    width = len(x) + 1
    inputs, results = array("d", x), array("d", [0.0] * (width * ROWS))
    many.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_long]
    addresses = inputs.buffer_info()[0], results.buffer_info()[0]

    def run() -> object:
        many(*addresses, ROWS, width)
        return inputs, results  # which have to live as long

    run()
    return run, results[-width:].tolist()


def by_map(g: Any, x: list[float]) -> tuple[Callable[[], object], list[float]]:
    points = memoryview(array("d", x * ROWS)).cast("B").cast("d", (ROWS, len(x)))
    return lambda: g.map(points), g.map(points).tolist()[-1]


def in_time(rounds: int) -> None:
    """The table of the programs: what it takes to compile them, and to run them beside C."""
    rows, kept = [], []
    for make in PROGRAMS:
        f, x = make()
        expected = eagerly(f, x)
        started = time.perf_counter()
        g = compile(value_and_grad(f), backend="llvm")
        g(x)
        first = time.perf_counter() - started
        nodes = int(g.explain().split(" nodes traced")[0].split()[-1].replace(",", ""))
        ours, numbers = by_map(g, x)
        agree(f"{make.__name__}, llvm and eager", numbers, expected, 1e-9)
        theirs, numbers = in_c(g, x)
        agree(f"{make.__name__}, C and eager", numbers, expected, 1e-9)
        contenders: dict[str, Contender] = {"llvm": per_call(ours, units=ROWS), "C": per_call(theirs, units=ROWS)}
        times = take_turns(contenders, rounds)
        rows.append((make.__name__, nodes, first, *[statistics.median(times[name]) for name in ("llvm", "C")]))
        kept.append(statistics.median(ratios(times, Goal("llvm", "C", 1.2, "its time"))))
    print("\n### Value and gradient of loops in time\n")
    print("| program | nodes | to running code | a node | llvm | C | llvm against C |\n|---|---|---|---|---|---|---|")
    for (name, nodes, first, llvm, c), ratio in zip(rows, kept):
        print(
            f"| {name.replace('_', ' ')} | {nodes:,} | {show(first)} | {show(first / nodes)} | {show(llvm)} "
            f"| {show(c)} | {ratio:.2f} × its time |"
        )
    print("\n| what | got | must reach | reached |\n|---|---|---|---|")
    print(bounded("llvm against C, median over all", statistics.median(kept), 1.2, lambda x: f"{x:.2f} × its time"))
    print(bounded("the dearest node, to running code", max(row[2] / row[1] for row in rows), 25e-6, show))


def pendulum_in_jax(steps: int, x: list[float]) -> tuple[Callable[[], object], list[float]]:
    jax = peer("jax")
    jax.config.update("jax_enable_x64", True)
    np = jax.numpy

    def f(p: Any) -> Any:
        def rates(s: Any) -> Any:
            return np.array([s[1], -p[0] * np.sin(s[0]) - p[1] * s[1]])

        def step(s: Any, _: Any) -> Any:
            h = 0.001
            k1 = rates(s)
            k2 = rates(s + h / 2 * k1)
            k3 = rates(s + h / 2 * k2)
            k4 = rates(s + h * k3)
            return s + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

        s, _ = jax.lax.scan(step, np.array([1.0, 0.0]), None, length=steps)
        return (s[0] - 0.3) ** 2

    g = jax.jit(jax.value_and_grad(f))
    point = np.array(x)
    value, gradient = g(point)
    return lambda: g(point)[1].block_until_ready(), [float(value), *map(float, gradient)]


def against_jax(rounds: int, steps: int = 2_000) -> None:
    """A pendulum by Runge and Kutta's method."""

    def f(p: Any) -> Any:
        state = [1.0, 0.0]
        for _ in range(steps):
            state = runge_kutta(lambda s: [s[1], -p[0] * sin(s[0]) - p[1] * s[1]], state, 0.001)
        return (state[0] - 0.3) ** 2

    x = [9.81, 0.1]
    started = time.perf_counter()
    g = compile(value_and_grad(f), backend="llvm")
    g(x)
    first = time.perf_counter() - started
    out = array("d", [0.0] * 3)
    started = time.perf_counter()
    theirs, numbers = pendulum_in_jax(steps, x)
    first_of_jax = time.perf_counter() - started
    agree("2,000 steps, llvm and JAX", flat(g(x)), numbers, 1e-9)
    contenders: dict[str, Contender] = {"milligrad": per_call(lambda: g(x, out=out)), "JAX scan": per_call(theirs)}
    times = take_turns(contenders, rounds)
    report(f"{steps:,} steps of a pendulum", times, [Goal("milligrad", "JAX scan", 1.0, "its time")], "gradient")
    print(f"\nto running code: milligrad {show(first)} (at most 4 s), JAX {show(first_of_jax)}")


def main() -> None:
    options = parser(__doc__, rounds=5).parse_args()
    names = chosen(["C", "JAX"], options)
    print(machine("llvmlite", "jax"), end="\n\n")
    if "C" in names:
        in_time(options.rounds)
    if "JAX" in names:
        against_jax(options.rounds)


if __name__ == "__main__":
    main()
