"""`scan` of 1,000,000 Euler steps of a pendulum: the first gradient, the second, and what compiling takes.

Compiled, the count of a long scan is a number that is known in a call only, so that compiling takes as long for a
thousand steps as for a million. The result for 1,000 steps must agree with the eager engine before anything is timed,
and that for 1,000,000 with a loop on plain floats, its gradient by finite differences.

Needs `pip install llvmlite==0.50.0`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from contest import agree, bounded, machine, parser, show

from milligrad import compile, scan, sin, value_and_grad

POINT = [9.81, 0.1]
STEPS = 1_000_000
H = 1e-5


def pendulum(steps: int) -> Callable[[Any], Any]:
    """How far it ends from where it should, after ten seconds."""
    h = 10 / steps

    def f(p: Any) -> Any:
        def step(state: Any, _: None) -> Any:
            angle, speed = state
            speed = speed - h * (p[0] * sin(angle) + p[1] * speed)
            return (angle + h * speed, speed), None

        (angle, _), _ = scan(step, (1.0, 0.0), length=steps)
        return (angle - 0.3) ** 2

    return f


def flat(result: Any) -> list[float]:
    value, gradient = result
    return [value, *gradient]


def differences(f: Callable[[Any], Any], x: list[float]) -> list[float]:
    """The value and the gradient by central differences, on plain floats."""

    def moved(i: int, by: float) -> float:
        return float(f([a + by * (k == i) for k, a in enumerate(x)]))

    return [moved(-1, 0.0), *[(moved(i, H) - moved(i, -H)) / (2 * H) for i in range(len(x))]]


def timed(f: Callable[[], object]) -> float:
    started = time.perf_counter()
    f()
    return time.perf_counter() - started


def first_and_second(steps: int, rounds: int) -> tuple[float, float]:
    """What the first call takes, which compiles, and the next ones: medians over the rounds."""
    first, second = [], []
    for _ in range(rounds):
        g = compile(value_and_grad(pendulum(steps)), backend="llvm")
        first.append(timed(lambda: g(POINT)))  # noqa: B023
        second.append(timed(lambda: g(POINT)))  # noqa: B023
    return statistics.median(first), statistics.median(second)


def main() -> None:
    options = parser(__doc__, rounds=5).parse_args()
    print(machine("llvmlite"), end="\n\n")
    short = pendulum(1_000)
    agree(
        "1,000 steps, llvm and eager",
        flat(compile(value_and_grad(short), backend="llvm")(POINT)), flat(value_and_grad(short)(POINT)), 1e-9,
    )  # fmt: skip
    long = pendulum(STEPS)
    agree(
        "1,000,000 steps, llvm and differences",
        flat(compile(value_and_grad(long), backend="llvm")(POINT)), differences(long, POINT), 1e-4,
    )  # fmt: skip
    few, many = (first_and_second(steps, options.rounds) for steps in (1_000, STEPS))
    compiled = [first - second for first, second in (few, many)]
    print("| `scan` of 1,000,000 Euler steps, llvm | got | must reach | reached |\n|---|---|---|---|")
    print(bounded("the first gradient", many[0], 1.0, show))
    print(bounded("the second", many[1], 0.2, show))
    print(bounded("to compile it, against 1,000 steps", compiled[1] / compiled[0], 1.5, lambda x: f"{x:.2f} ×"))
    print(f"\nto compile: {show(compiled[0])} for 1,000 steps, {show(compiled[1])} for 1,000,000")


if __name__ == "__main__":
    main()
