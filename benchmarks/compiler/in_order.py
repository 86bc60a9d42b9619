"""Loops in time, value and gradient: milligrad (llvm) against the C that it writes itself, and against JAX.

The programs are those of programs.py: the plain Python of their fields. Each is compiled, and called by `map` for 100
rows, so that the call around the numbers does not count; the C comes from `save_c`, is compiled by
`gcc -O3 -march=native -ffast-math`, and called 100 times in a loop of C. The likelihood of a Gaussian process of 60
observations is compared with loops of C that were written by hand. JAX gets 2,000 Runge-Kutta steps as a `lax.scan`,
jitted. All must agree with the eager engine before anything is timed, and times are of one value with its gradient.

Needs gcc, and `pip install llvmlite==0.50.0 jax==0.10.2`.
"""

from __future__ import annotations

import ctypes
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable
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
from programs import PROGRAMS, gaussian_process, made, observations, runge_kutta

from milligrad import Value, compile, sin, value_and_grad

ROWS = 100


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


def compiled(f: Any, x: list[float], backend: Any) -> tuple[Any, int, float]:
    """The compiled gradient, how many nodes were traced, and the seconds to the first result."""
    started = time.perf_counter()
    g = compile(value_and_grad(f), backend=backend)
    g(x)
    first = time.perf_counter() - started
    return g, int(g.explain().split(" nodes traced")[0].split()[-1].replace(",", "")), first


def in_time(rounds: int) -> None:
    """The table of the programs: what it takes to compile them, and to run them beside C."""
    compiled(lambda p: p[0] * p[0], [1.0], "llvm")  # LLVM itself is loaded, once
    rows, kept = [], []
    for make in PROGRAMS:
        f, x = made(make)
        expected = eagerly(f, x)
        g, nodes, first = compiled(f, x, "llvm")
        in_python, _, first_in_python = compiled(f, x, "python")
        agree(f"{make.__name__}, python and eager", flat(in_python(x)), expected, 1e-9)
        ours, numbers = by_map(g, x)
        agree(f"{make.__name__}, llvm and eager", numbers, expected, 1e-9)
        theirs, numbers = in_c(g, x)
        agree(f"{make.__name__}, C and eager", numbers, expected, 1e-9)
        contenders: dict[str, Contender] = {"llvm": per_call(ours, units=ROWS), "C": per_call(theirs, units=ROWS)}
        times = take_turns(contenders, rounds)
        ratio = statistics.median(ratios(times, Goal("llvm", "C", 1.2, "its time")))
        kept.append(ratio)
        medians = [statistics.median(times[name]) for name in ("llvm", "C")]
        rows.append((make.__name__, nodes, first, first / nodes, first_in_python / nodes, *medians, ratio))
    print("\n### Value and gradient of loops in time\n")
    print("| program | nodes | to running llvm | a node | python: a node | llvm | C | llvm against C |")
    print("|---|---|---|---|---|---|---|---|")
    for name, nodes, *times_, ratio in rows:
        print(f"| {name.replace('_', ' ')} | {nodes:,} | {' | '.join(map(show, times_))} | {ratio:.2f} × its time |")
    print("\n| what | got | must reach | reached |\n|---|---|---|---|")
    print(bounded("llvm against C, median over all", statistics.median(kept), 1.2, lambda x: f"{x:.2f} × its time"))
    for name, nodes, first, native, plain, *_ in rows:
        for what, got, most in (("llvm", native, 25e-6), ("python", plain, 15e-6)):
            if got > most:
                print(bounded(f"{name.replace('_', ' ')}: a node to running {what} code", got, most, show))
        if nodes < 5_000 and first > 0.3:
            print(bounded(f"{name.replace('_', ' ')}: to running llvm code", first, 0.3, show))


def factorized(rounds: int, n: int = 60) -> None:
    """The likelihood of a Gaussian process against loops of C that were written by hand."""
    f, x = made(lambda: gaussian_process(n))
    g, _, first = compiled(f, x, "llvm")
    xs, ys = observations(n)
    by_hand = library("gaussian_process.c").gaussian_process
    by_hand.argtypes = [*[ctypes.c_void_p] * 5, ctypes.c_long]
    buffers = [array("d", numbers) for numbers in (x, [0.0] * 4, xs, ys, [0.0] * (3 * n * n + 2 * n))]
    addresses = [b.buffer_info()[0] for b in buffers]
    by_hand(*addresses, n)
    agree(f"likelihood of {n} observations, llvm and C by hand", flat(g(x)), buffers[1], 1e-9)
    ours, _ = by_map(g, x)
    contenders: dict[str, Contender] = {
        "milligrad": per_call(ours, units=ROWS),
        "C by hand": per_call(lambda: by_hand(*addresses, n)),
    }
    goal = Goal("milligrad", "C by hand", 1.5, "its time")
    report(f"Cholesky's factorization, n = {n}", take_turns(contenders, rounds), [goal], "gradient")
    print("\n| what | got | must reach | reached |\n|---|---|---|---|")
    print(bounded("to running code", first, 3.0, show))


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
    names = chosen(["C", "Cholesky", "JAX"], options)
    print(machine("llvmlite", "jax"), end="\n\n")
    if "C" in names:
        in_time(options.rounds)
    if "Cholesky" in names:
        factorized(options.rounds)
    if "JAX" in names:
        against_jax(options.rounds)


if __name__ == "__main__":
    main()
