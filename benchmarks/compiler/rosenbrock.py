"""Rosenbrock's function of 1,000 variables, its value and gradient: milligrad (llvm) against CasADi SX and XAD.

milligrad is timed on a list, as one calls it, on a buffer of doubles with another one as `out=`, and on a buffer
through `map`: one row, and 100 rows in one call. CasADi runs its SX program on buffers (`Function.buffer`), its
quickest call; XAD records its tape anew for each point, as its users do. All must agree to 1e-12 before anything is
timed, and times are of one evaluation.

Needs `pip install llvmlite==0.50.0 casadi==3.8.2 xad==1.5.2`.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from contest import Contender, Goal, agree, chosen, machine, parser, peer, per_call, report, take_turns

N = 1_000
_random = random.Random(0)
X = [_random.uniform(-1, 1) for _ in range(N)]


def rosenbrock(xs: Sequence[Any]) -> Any:
    return sum(100 * (b - a**2) ** 2 + (1 - a) ** 2 for a, b in pairwise(xs))


def by_hand(xs: Sequence[float]) -> list[float]:
    """Value and gradient, differentiated with pencil and paper."""
    g = [0.0] * len(xs)
    for i, (a, b) in enumerate(pairwise(xs)):
        g[i] += -400 * a * (b - a**2) - 2 * (1 - a)
        g[i + 1] += 200 * (b - a**2)
    return [rosenbrock(xs), *g]


Contestant = tuple[Callable[[], object], Callable[[], list[float]]]  # an evaluation; the result of one, flat


def compiled() -> Any:
    from milligrad import compile, value_and_grad

    return compile(value_and_grad(rosenbrock), backend="llvm")


def milligrad_list() -> Contestant:
    g = compiled()

    def result() -> list[float]:
        value, gradient = g(X)
        return [value, *gradient]

    return lambda: g(X), result


def milligrad_map(rows: int) -> Contestant:
    g, points = compiled(), memoryview(array("d", X * rows)).cast("B").cast("d", (rows, N))
    return lambda: g.map(points), lambda: g.map(points).tolist()[-1]


def milligrad_out() -> Contestant:
    g, point, out = compiled(), array("d", X), array("d", [0.0] * (N + 1))
    return lambda: g(point, out=out), lambda: g(point, out=out).tolist()


def casadi_buffers() -> Contestant:
    casadi = peer("casadi")
    x = casadi.SX.sym("x", N)
    f = rosenbrock(casadi.vertsplit(x))
    function = casadi.Function("rosenbrock", [x], [f, casadi.gradient(f, x)])
    inputs, value, gradient = array("d", X), array("d", [0.0]), array("d", [0.0] * N)
    memory, trigger = function.buffer()
    memory.set_arg(0, memoryview(inputs))
    memory.set_res(0, memoryview(value))
    memory.set_res(1, memoryview(gradient))

    def result() -> list[float]:
        trigger()
        return [*value, *gradient]

    KEPT.extend([function, memory, inputs, value, gradient])
    return trigger, result


def xad_tape() -> Contestant:
    xad = peer("xad.adj_1st")

    def result() -> list[float]:
        with xad.Tape() as tape:
            xs = [xad.Real(x) for x in X]
            for x in xs:
                tape.registerInput(x)
            tape.newRecording()
            f = rosenbrock(xs)
            tape.registerOutput(f)
            f.derivative = 1.0
            tape.computeAdjoints()
            return [f.value, *[x.derivative for x in xs]]

    return result, result


KEPT: list[object] = []  # what CasADi's trigger works on, and does not keep alive
MAKERS: dict[str, Callable[[], Contestant]] = {
    "milligrad list": milligrad_list,
    "milligrad out=": milligrad_out,
    "milligrad map of 1 row": lambda: milligrad_map(1),
    "milligrad map of 100 rows": lambda: milligrad_map(100),
    "CasADi SX": casadi_buffers,
    "XAD": xad_tape,
}
GOALS = [
    Goal("milligrad list", "CasADi SX", None),  # 2,001 conversions between list and buffer, which CasADi is spared
    *(Goal(f"milligrad {way}", "CasADi SX", 10) for way in ("out=", "map of 1 row", "map of 100 rows")),
    *(Goal(f"milligrad {way}", "XAD", 500) for way in ("list", "map of 1 row", "map of 100 rows")),
]


def main() -> None:
    options = parser(__doc__, rounds=11).parse_args()
    names = chosen(MAKERS, options)
    print(machine("llvmlite", "casadi", "xad"), end="\n\n")
    contenders: dict[str, Contender] = {}
    for name in names:
        evaluate, result = MAKERS[name]()
        agree(f"{name} and the derivatives by hand", result(), by_hand(X), 1e-12)
        contenders[name] = per_call(evaluate, units=100 if "100 rows" in name else 1)
    report(
        f"Rosenbrock of {N:,} variables, value and gradient",
        take_turns(contenders, options.rounds),
        GOALS,
        "evaluation",
    )


if __name__ == "__main__":
    main()
