"""Random functions with long scans: do compiled programs with a count give the numbers that the eager engine gives?

    python tests/compiler/random_scans.py [--minutes 10] [--seed 0] [--backends python,llvm,c]

A function is Python code, written by chance: steps of a few numbers that are handed on, computed, shifted, reset or
chosen; one or two scans, over arguments, captured numbers, parts of them, or what another scan gave, some with
checkpoints; and a result made of what came out at the end, in the middle, or of all steps. `failure` compares two
lengths with the eager engine, value and gradient. The run prints every function that fails, how many had a program with
a count, and exits with 1 if any failed.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import milligrad as mg
from milligrad import Value, value_and_grad
from milligrad.engine import number
from milligrad.transforms import grad, hvp, jvp
from tests.compiler.in_c import compiled_by


class Writer:
    """Text by chance."""

    def __init__(self, r: random.Random) -> None:
        self.r = r
        self.size = r.choice((1, 2, 3, 3, 5, 9))

    def one(self, *choices):
        chosen = self.r.choice(choices)
        return chosen() if callable(chosen) else chosen

    def atom(self):
        c = f"c[{self.r.randrange(self.size)}]"
        return self.one(c, c, c, "x", "x", f"p[{self.r.randrange(3)}]", f"p[{self.r.randrange(3)}]", "w",
                        repr(round(self.r.uniform(-2, 2), 2)), "1.0", "0.0")  # fmt: skip

    def expression(self, depth=2):
        if depth == 0 or self.r.random() < 0.15:
            return self.atom()
        e = lambda: self.expression(depth - 1)  # noqa: E731
        return self.one(
            lambda: f"({e()} + {e()})", lambda: f"({e()} - {e()})", lambda: f"({e()} * {e()})",
            lambda: f"({e()} * {e()})", lambda: f"(-{e()})", lambda: f"mg.sin({e()})", lambda: f"mg.tanh({e()})",
            lambda: f"({e()} / (1.5 + mg.tanh({e()})))", lambda: f"mg.maximum({e()}, {e()})",
            lambda: f"mg.where({self.atom()} < {self.atom()} + 0.0 * p[0], {e()}, {e()})",
            "mg.dot(c, c[::-1])", lambda: f"mg.logsumexp([{e()}, {e()}])", lambda: f"{self.atom()} ** 2",
        )  # fmt: skip

    def slot(self, i):
        """What becomes of a number of the carry."""
        n = self.size
        return self.one(
            lambda: f"mg.tanh({self.expression()})", lambda: f"mg.tanh({self.expression()})",
            lambda: f"0.5 * mg.sin({self.expression()})", lambda: f"0.9 * c[{i}] + 0.1 * {self.atom()}",
            f"c[{i}]", f"c[{(i + 1) % n}]", f"c[{self.r.randrange(n)}]", f"c[{(i + 1) % n}] * 0.9",
            "x", "w", "1.0", "0.0", f"c[{i}] + 0.01",
        )  # fmt: skip

    def step(self, name):
        y = self.one("None", "c[0]", "new[0]", "x * c[0]", "(c[0], new[-1])", self.expression, "1.0")
        slots = ", ".join([self.slot(i) for i in range(self.size)])
        return [f"    def {name}(c, x):", f"        new = [{slots}]", f"        return new, {y}"]

    def start(self):
        number = lambda: self.one("0.0", "1", "0.5", "p[0]", "p[2]", "w", "xs[0]")  # noqa: E731
        return f"[{', '.join([number() for _ in range(self.size)])}]"

    def text(self):
        over = self.one("xs", "xs", "data", "xs[1:]", "xs[:-1]", "xs[::-1]", "data[::-1]", "range(T)")
        k = self.one("", "", ", checkpoint=3", ", checkpoint=8")
        lines = ["def f(p, xs):", *self.step("first"), f"    c, ys = scan(first, {self.start()}, {over}{k})"]
        if self.r.random() < 0.3:
            after = self.one("xs", "ys if ys is not None and type(ys) is not tuple else xs", "xs[:-1]")
            lines += [*self.step("second"), f"    c, ys = scan(second, {self.one('c', self.start)}, {after}{k})"]
        return "\n".join([*lines, f"    return result(c, ys, {self.r.randrange(8)}, p)"])


def result(c, ys, kind, p):
    """One number of what a scan gave."""
    if type(ys) is tuple:
        ys = ys[kind % 2]
    z = [c[0], mg.dot(c, c), mg.sum(c) * p[1]][kind % 3]
    if ys is None:
        return z
    return [
        lambda: z, lambda: z + mg.mean(ys), lambda: z * sum(ys), lambda: ys[-1] - ys[0] * 2, lambda: z + mg.sum(ys[3:]),
        lambda: mg.logsumexp(ys), lambda: z + sum(ys) / len(ys), lambda: z + mg.max(ys),
    ][kind]()  # fmt: skip


TRANSFORMS = [
    value_and_grad,
    lambda f: value_and_grad(f, argnums=(0, 1)),
    lambda f: grad(f, argnums=1),
    lambda f: lambda p, xs: jvp(lambda p: f(p, xs), (p,), ([1.0, -0.5, 0.25],)),
    lambda f: lambda p, xs: jvp(lambda xs: f(p, xs), (xs,), (xs,)),
    lambda f: grad(lambda p, xs: mg.dot(grad(f)(p, xs), [1.0, -0.5, 0.25])),
    lambda f: lambda p, xs: hvp(lambda p: f(p, xs), p, [0.5, 1.0, -1.0]),
]


class Example:
    def __init__(self, seed: int) -> None:
        r = random.Random(seed)
        self.text = Writer(r).text()
        self.point = [round(r.uniform(-1, 1), 2) for _ in range(3)]
        self.lengths = r.choice(((70, 71), (90, 131), (128, 160), (300, 301)))
        self.numbers = [round(r.uniform(-1, 1), 3) for _ in range(self.lengths[-1])]
        self.w = Value(0.7)
        self.transform = r.choice(TRANSFORMS)

    def function(self, length):
        """The function, for a length that it knows of."""
        names = {"mg": mg, "scan": mg.scan, "w": self.w, "result": result, "T": length, "data": self.numbers[:length]}
        exec(self.text, names)
        return names["f"]


def flat(x):
    return [z for part in x for z in flat(part)] if isinstance(x, (list, tuple)) else [number(x)]


def failure(example: Example, backend: str) -> tuple[str | None, bool]:
    """What is wrong, if anything; and whether there was a program with a count."""
    counted = False
    length_matters = "T" in example.text or "data" in example.text
    for n in example.lengths:
        f = example.transform(example.function(n))
        if n == example.lengths[0] or length_matters:
            g = compiled_by(backend, f)
        args = example.point, example.numbers[:n]
        try:
            expected = flat(f(*args))
        except (ArithmeticError, ValueError, TypeError):
            return None, counted
        if not all(map(math.isfinite, expected)) or max(map(abs, expected)) > 1e12:
            return None, counted
        try:
            got = flat(g(*args))
        except Exception:
            return traceback.format_exc(), counted
        counted |= "steps of a scan" in getattr(g, "explain", str)()
        wrong = [(x, y) for x, y in zip(got, expected, strict=True) if abs(x - y) > 1e-8 * max(1.0, abs(y))]
        if wrong:
            return f"{n} steps: {wrong[:3]}", counted
    return None, counted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backends", default="python,llvm")
    options = parser.parse_args()
    stop, seed, failed, counted = time.monotonic() + 60 * options.minutes, options.seed, 0, 0
    while time.monotonic() < stop:
        example = Example(seed)
        for backend in options.backends.split(","):
            wrong, has_count = failure(example, backend)
            counted += has_count
            if wrong:
                failed += 1
                print(f"seed {seed}, {backend}: {wrong}\n{example.text}\n{example.point}\n", flush=True)
        seed += 1
    print(f"{seed - options.seed} functions, {counted} programs with a count, {failed} failures")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
