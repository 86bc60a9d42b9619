"""Black-Scholes: the price of a call and its 5 Greeks for a million rows, milligrad (llvm) against JAX on the CPU.

The Greeks are the derivatives of the price by each of its arguments: delta, its mirror image by the strike, rho, vega
and theta. milligrad maps over one buffer, row after row, and the same formula in JAX goes through
`jit(vmap(value_and_grad(…)))` in float64: over rows, and over a column for each argument, which suits it better. JAX
runs in processes of its own, on all cores and held to one; its arrays are on the device already, and it is waited for.

Needs `pip install llvmlite==0.50.0 jax==0.10.2`.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
from array import array
from collections.abc import Callable
from typing import Any

from contest import Contender, Goal, Worker, agree, chosen, machine, parser, peer, per_call, report, serve, take_turns

WIDTH, SAMPLE = 5, 1_000  # arguments of the price; rows that are compared
ALL_ARGUMENTS = tuple(range(WIDTH))


def call_price(f: Any) -> Callable[..., Any]:
    """The price as a function of spot, strike, rate, volatility and time, with the log, exp, sqrt and erf of `f`."""

    def normal(x: Any) -> Any:
        return 0.5 * (1.0 + f.erf(x * math.sqrt(0.5)))

    def price(spot: Any, strike: Any, rate: Any, volatility: Any, time: Any) -> Any:
        spread = volatility * f.sqrt(time)
        d1 = (f.log(spot / strike) + (rate + 0.5 * volatility * volatility) * time) / spread
        return spot * normal(d1) - strike * f.exp(-rate * time) * normal(d1 - spread)

    return price


def points(n: int) -> array[float]:
    """n rows of arguments in one flat array."""
    uniform = random.Random(0).uniform
    ranges = [(80.0, 120.0), (80.0, 120.0), (0.0, 0.05), (0.1, 0.5), (0.1, 2.0)]
    return array("d", [uniform(low, high) for _ in range(n) for low, high in ranges])


def by_hand(row: list[float]) -> list[float]:
    """Price and Greeks by the formulas of the textbooks (J. Hull, Options, Futures, and Other Derivatives, ch. 19)."""
    s, k, r, v, t = row
    spread, discount = v * math.sqrt(t), math.exp(-r * t)
    d1 = (math.log(s / k) + (r + v * v / 2) * t) / spread
    n1, n2 = (math.erfc(-d / math.sqrt(2)) / 2 for d in (d1, d1 - spread))
    density = math.exp(-d1 * d1 / 2) / math.sqrt(2 * math.pi)
    theta = s * density * v / (2 * math.sqrt(t)) + r * k * discount * n2
    return [s * n1 - k * discount * n2, n1, -discount * n2, k * t * discount * n2, s * density * math.sqrt(t), theta]


def milligrad(n: int) -> tuple[Callable[[], Any], Callable[[], list[float]]]:
    """The map, and the first rows of its result."""
    from milligrad import compile, ops, value_and_grad

    rows = memoryview(points(n)).cast("B").cast("d", (n, WIDTH))
    g = compile(value_and_grad(call_price(ops), argnums=ALL_ARGUMENTS), backend="llvm")
    return lambda: g.map(rows), lambda: [x for row in g.map(rows)[:SAMPLE].tolist() for x in row]


def jax_map(n: int, columns: bool) -> tuple[Callable[[], Any], Callable[[], list[float]]]:
    jax = peer("jax")
    jax.config.update("jax_enable_x64", True)
    jnp, special = jax.numpy, peer("jax.scipy.special")
    functions = argparse.Namespace(log=jnp.log, exp=jnp.exp, sqrt=jnp.sqrt, erf=special.erf)
    g = jax.value_and_grad(call_price(functions), argnums=ALL_ARGUMENTS)
    rows = jnp.frombuffer(points(n), dtype="float64").reshape(n, WIDTH)

    def of_row(row: Any) -> Any:
        value, greeks = g(*row)
        return jnp.stack([value, *greeks])

    mapped = jax.jit(jax.vmap(g if columns else of_row))
    arguments = [jax.block_until_ready(rows[:, i] + 0.0) for i in ALL_ARGUMENTS] if columns else [rows]

    def work() -> Any:
        return jax.block_until_ready(mapped(*arguments))

    def result() -> list[float]:
        z = work()
        table = jnp.stack([z[0], *z[1]], axis=1) if columns else z
        return [float(x) for x in table[:SAMPLE].ravel()]

    return work, result


def in_a_process(name: str, options: argparse.Namespace) -> Worker:
    """A JAX contender; "one core" holds its process to one, besides asking XLA for a single thread."""
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" if "one core" in name else ""
    environment = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return Worker(__file__, "--rows", str(options.rows), "--serve", name, environment=environment)


def serve_jax(name: str, n: int) -> None:
    if "one core" in name and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    work, result = jax_map(n, columns="columns" in name)
    serve(" ".join(map(repr, result())), per_call(work, at_least=0.3))


JAX = [f"JAX {form} on {cores}" for cores in ("one core", "all cores") for form in ("columns", "rows")]
GOALS = [Goal("milligrad", name, 1.0 if "all" in name else None) for name in JAX]


def main() -> None:
    arguments = parser(__doc__, rounds=9)
    arguments.add_argument("--rows", type=int, default=1_000_000, help="how many rows (1,000,000)")
    arguments.add_argument("--serve", choices=JAX, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        serve_jax(options.serve, options.rows)
        return
    names = chosen(["milligrad", *JAX], options)
    print(machine("llvmlite", "jax", "jaxlib"), end="\n\n")
    head = points(SAMPLE)
    expected = [z for i in range(0, len(head), WIDTH) for z in by_hand(list(head[i : i + WIDTH]))]
    contenders: dict[str, Contender] = {}
    for name in names:
        if name == "milligrad":
            work, result = milligrad(options.rows)
            got, contenders[name] = result(), per_call(work, at_least=0.3)
        else:
            contenders[name] = worker = in_a_process(name, options)
            got = [float(x) for x in worker.greeting.split()]
        agree(f"{name} and the textbook", got, expected, 1e-10)
    times = take_turns(contenders, options.rounds)
    report(f"Black-Scholes, price and 5 Greeks, {options.rows:,} rows", times, GOALS, "map")
    if "milligrad" in times:
        print(f"\nmilligrad: {statistics.median(times['milligrad']) / options.rows * 1e9:.3g} ns a row")


if __name__ == "__main__":
    main()
