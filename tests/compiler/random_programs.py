"""Random programs: do all ways to compute and to differentiate them give the same numbers?

    python tests/compiler/random_programs.py [--minutes 10] [--seed 0] [--backends python,llvm,c] [--order]

A program is Python code, written by chance: a function g of a list of numbers, which uses captured Values w besides
it, in loops over one index, two and triangles, time stepping, permutations, lists changed in place, helper functions,
conditions, reductions of slices, constants 0 and 1, branches on indices. Its result is nested in lists, tuples and
dicts; f is a weighted sum of it. `failure` compares plain floats with `math` alone, the eager engine, compiled code,
every way to differentiate, and finite differences, at a random point and at one of many 0s, 1s and equal numbers. The
run prints every program that fails, and exits with 1. With `--order` every program keeps the order of its loops,
which short ones do not do otherwise.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import math
import random
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import milligrad as mg
from milligrad import Value, compile, ops
from milligrad.compiler import pipeline
from milligrad.engine import topological_order
from milligrad.transforms import grad, hvp, jacobian, jvp, value_and_grad
from tests.compiler.in_c import compiled_by

LARGEST = 300  # nodes: compiling takes longer than all else

# ── Writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Writer:
    """Statements and expressions by chance. x is the input, y and z are lists like it, s is a number; n of each."""

    def __init__(self, r: random.Random, n: int) -> None:
        self.r, self.n = r, n

    def one(self, *choices):
        """One of the texts, or of the functions that write one; only the chosen one is called."""
        chosen = self.r.choice(choices)
        return chosen() if callable(chosen) else chosen

    def constant(self):
        return self.one("0.0", "1.0", "1", "0", "-1.0", "2.0", "0.5", repr(round(self.r.uniform(-2, 2), 2)))

    def index(self, names):
        """An index of a list, by the loops' variables where there are some."""
        name = self.r.choice([*names, str(self.r.randrange(self.n))])
        return self.one(name, name, name, f"-1 - {name}", f"P[{name}]", f"({name} + 1) % n", f"n - 1 - {name}")

    def atom(self, names):
        list_ = self.r.choice("xxyyz")
        element = f"{list_}[{self.index(names)}]"
        return self.one(element, element, element, element, f"w[{self.r.randrange(3)}]", "s", self.constant)

    def slice(self, names):
        """A list that is not empty."""
        a, k = self.r.choice("xyz"), self.r.randrange(1, self.n)
        i = self.r.choice([*names, "1"])
        return self.one(
            a, f"{a}[: {i} + 1]", f"{a}[{i}:]", f"{a}[::-1]", f"{a}[::2]", f"{a}[:{k}]", f"[{a}[p] for p in P]",
            f"{a}[{k}:] + {a}[:{k}]", f"[{self.atom(names)}, {self.atom(names)}]", f"[v * v for v in {a}]",
        )  # fmt: skip

    def condition(self, names):
        """A comparison that starts with what is never a plain number, as Python's ~ of a bool is another thing."""
        sure = self.one(f"x[{self.index(names)}]", f"w[{self.r.randrange(3)}]")
        compared = lambda: f"({sure} {self.one('<', '<=', '>', '>=', '==')} {self.atom(names)})"  # noqa: E731
        return self.one(
            compared, compared, f"(~{compared()})", f"({compared()} & {compared()})", f"({compared()} | {compared()})",
        )  # fmt: skip

    def expression(self, names, depth=2):
        if depth == 0 or self.r.random() < 0.1:
            return self.atom(names)
        e = lambda: self.expression(names, depth - 1)  # noqa: E731
        a = self.atom(names)
        return self.one(
            lambda: f"({e()} + {e()})", lambda: f"({e()} - {e()})", lambda: f"({e()} * {e()})",
            lambda: f"({e()} * {e()})", lambda: f"({e()} / (1.5 + tanh({e()})))", lambda: f"({e()} / {e()})",
            lambda: f"{a} * {a}", lambda: f"({a} - {a})", lambda: f"{a} / (1 + {a} * {a})", lambda: f"(0 * {e()})",
            lambda: f"({e()} * 1)", lambda: f"({e()} + 0)", lambda: f"(-{e()})",
            lambda: f"{self.one('sin', 'cos', 'tanh', 'sigmoid', 'atan', 'softplus', 'relu', 'abs', 'erf')}({e()})",
            lambda: f"exp(-abs({e()}))", lambda: f"sqrt({e()} ** 2 + {self.one('1', '0.25', '0')})",
            lambda: f"{self.one('sqrt', 'log', 'exp', 'log1p', 'expm1')}({e()})",
            lambda: f"log(1.0 + {a} ** 2)",
            lambda: f"({e()}) ** {self.one('2', '3', '2.0', '1', '0', '-1', '0.5', '1.5')}",
            lambda: f"where({self.condition(names)}, {e()}, {e()})",
            lambda: f"{self.one('maximum', 'minimum')}({e()}, {e()})",
            lambda: f"clamp({e()}, -1.0, {self.one('0.0', '1.5')})",
            lambda: f"{self.one('max', 'min', 'sum', 'logsumexp', 'prod', 'mean')}({self.slice(names)})",
            lambda: (lambda v: f"dot({v}, {self.one(v, v + '[::-1]')})")(self.slice(names)),
            lambda: f"helper({e()}, {e()})", lambda: f"rate({e()})",
        )  # fmt: skip

    def small(self, names):
        """An expression that loops may take again and again."""
        e = self.expression(names, self.r.choice((1, 2, 2, 3)))
        return self.one(f"tanh({e})", f"0.5 * sin({e})", f"0.3 * ({e})", e)

    def target(self, names):
        return f"{self.r.choice('yz')}[{self.r.choice([*names, str(self.r.randrange(self.n))])}]"

    def update(self, names):
        """One statement inside the loops over `names`, or outside of them."""
        a, i, j = self.target(names), self.index(names), self.index(names)
        return self.one(
            lambda: f"{a} = {self.small(names)}", lambda: f"{a} = {self.small(names)}",
            lambda: f"{a} += {self.small(names)}", lambda: f"{a} -= {self.small(names)}",
            lambda: f"{a} *= {self.small(names)}", lambda: f"s = {self.small(names)}",
            lambda: f"s += {self.small(names)}",
            lambda: f"y[{i}], y[{j}] = y[{j}], y[{i}]", lambda: f"unused = {self.small(names)}",
            lambda: f"y[{i}], z[{j}] = z[{j}], {self.small(names)}",
            lambda: f"{a} = 0.9 * {a} + 0.1 * {self.atom(names)}",
        )  # fmt: skip

    def guarded(self, names):
        """A statement, perhaps for some of the indices only; lines."""
        i = self.r.choice(names)
        if self.r.random() < 0.6:
            return [self.update(names)]
        test = self.one(
            f"{i} % 2", f"{i} == 0", f"{i} > 1", f"{i} == n - 1", f"{names[0]} != {names[-1]}", f"P[{i}] > {i}"
        )
        other = ["else:", f"    {self.update(names)}"]
        return [f"if {test}:", f"    {self.update(names)}", *self.r.choice([[], other])]

    def statement(self):
        """Lines."""
        loops = {
            "for i in range(n)": "i", "for i in reversed(range(n))": "i", "for i in P": "i",
            "for i in range(1, n)": "i",
            "for i in range(0, n, 2)": "i", "for i in range(2); for j in range(n)": "ij",
            "for i in range(n); for j in range(i)": "ij", "for i in range(n); for j in range(i + 1)": "ij",
            "for i in range(n); for j in range(i + 1, n)": "ij", "for i in range(2); for j in P[i:]": "ij",
        }  # fmt: skip
        if self.r.random() < 0.25:
            return self.known()
        if self.r.random() < 0.2:
            return [self.update([])]
        loop = self.r.choice(list(loops))
        heads, names = loop.split("; "), list(loops[loop])
        body = [line for _ in range(self.r.choice((1, 1, 2))) for line in self.guarded(names)]
        lines = [f"{'    ' * k}{head}:" for k, head in enumerate(heads)]
        lines += ["    " * len(heads) + line for line in body]
        if len(heads) == 2 and self.r.random() < 0.3:
            lines += ["    " + self.update(["i"])]
        return lines

    def known(self):
        """What programs of this kind are made of; lines."""
        a, c = self.r.choice("xyz"), self.constant()
        return self.one(
            ["for i in range(1, n):", f"    y[i] = y[i - 1] + {a}[i]"],
            ["for i in range(1, n):", f"    z[i] = 0.8 * z[i - 1] + 0.2 * {a}[i]"],
            ["for i in range(2, n):", f"    y[i] = {c} * y[i - 1] - 0.5 * y[i - 2] + {a}[i]"],
            ["for t in range(4):", "    y = [v + 0.1 * rate(v) for v in y]"],
            ["for t in range(3):", "    k1 = rate(s)", "    k2 = rate(s + 0.05 * k1)", "    k3 = rate(s + 0.05 * k2)",
             "    k4 = rate(s + 0.1 * k3)", "    s = s + 0.1 / 6 * (k1 + 2 * k2 + 2 * k3 + k4)"],
            ["for t in range(3):", "    inner = [0.6 * y[i] + 0.2 * (y[i - 1] + y[i + 1]) for i in range(1, n - 1)]",
             "    y = [y[0], *inner, y[n - 1]]"],
            ["L = [[0.0] * n for _ in range(n)]", "for i in range(n):", "    for j in range(i + 1):",
             f"        t = {a}[i] * {a}[j] + (1.0 if i == j else 0.0)", "        for k in range(j):",
             "            t = t - L[i][k] * L[j][k]", "        L[i][j] = sqrt(t) if i == j else t / L[j][j]",
             "z = [L[n - 1][k] for k in range(n)]"],
            ["for i in range(n):", "    for j in range(i):", f"        s = s + ({a}[i] - {a}[j]) ** 2"],
            ["for i in range(n):", "    for j in range(i):", f"        y[i] = y[i] - 0.3 * {a}[j] * y[j]"],
            [f"y = [{a}[p] for p in P]"], [f"z = [sum({a}[: i + 1]) for i in range(n)]"], ["y, z = z, y"],
            [f"m = max({a})", f"e = [exp(v - m) for v in {a}]", "z = [v / sum(e) for v in e]"],
            [f"z = [dot([v * u for u in {a}], x) for v in y]"], ["y = y[1:] + y[:1]"], ["z = [*map(helper, y, x)]"],
        )  # fmt: skip

    def result(self):
        return self.one(
            *["(y, [s, z])"] * 5, "s", "y", "[y, s]", "(s, z)", "{'y': y, 's': [s, (z[0],)]}", "[s, s, y[0]]",
            "[[a * b for a in y[:2]] for b in z]",
            "(sum(y), {'z': z})", "[x[0], y[-1], s]", "sum(y) * s", "[1.0, s, max(z)]",
        )  # fmt: skip


class Example:
    """A random program: its text, the captured numbers, and two points."""

    def __init__(self, seed: int) -> None:
        r = random.Random(seed)
        n = r.choice((2, 3, 3, 4, 4, 5))
        writer = Writer(r, n)
        lines = [line for _ in range(r.choice((2, 3, 4, 6, 8))) for line in writer.statement()]
        helper, rate = writer.one(*HELPERS), writer.one(*RATES)
        self.text = "\n".join(
            [f"def helper(a, b): return {helper}", f"def rate(a): return {rate}", "def g(x):",
             f"    n, P = {n}, {r.sample(range(n), n)}", "    y, z, s = list(x), [0.5 * v for v in x], 0.0"]
            + ["    " + line for line in lines] + [f"    return {writer.result()}"]
        )  # fmt: skip
        self.w = [round(r.uniform(-1.5, 1.5), 3) for _ in range(3)]
        self.points = [
            [round(r.uniform(-1.5, 1.5), 3) for _ in range(n)],
            [r.choice((0.0, 0.0, 0.0, 1.0, -1.0, 0.5)) for _ in range(n)],
        ]
        self.direction = [round(r.uniform(-1, 1), 2) for _ in range(n)]
        self.seed = seed

    def __str__(self) -> str:
        return f"seed {self.seed}, w = {self.w}, points {self.points}\n{self.text}"

    def functions(self, plain: bool = False):
        """(f, g, w): of Values, or of floats alone."""
        w = self.w if plain else [Value(v) for v in self.w]
        names = {**(PLAIN if plain else vars(ops)), "w": w}
        names["power"] = power
        tree = ast.fix_missing_locations(Plainly(plain).visit(ast.parse(self.text)))
        exec(builtins.compile(tree, __file__, "exec"), names)
        g = names["g"]

        def f(x):
            total = 0.0
            for k, v in enumerate(numbers(g(x))):
                total = total + (1.0 + 0.1 * k) * v
            return total

        return f, g, w


class Plainly(ast.NodeTransformer):
    """Two things that are otherwise for Python's floats: the powers that are complex, and ~ of a bool."""

    def __init__(self, plain: bool) -> None:
        self.plain = plain

    def visit_UnaryOp(self, node):
        self.generic_visit(node)
        return ast.UnaryOp(ast.Not(), node.operand) if self.plain and isinstance(node.op, ast.Invert) else node

    def visit_BinOp(self, node):
        self.generic_visit(node)
        return (
            ast.Call(ast.Name("power", ast.Load()), [node.left, node.right], [])
            if isinstance(node.op, ast.Pow)
            else node
        )


def power(x, y):
    return math.pow(x, y) if isinstance(x, int | float) else x**y


HELPERS = ("a * b + w[0]", "maximum(a, 0.5 * b)", "a - b * b", "tanh(a) * b", "a")
RATES = ("-a", "w[1] * a * (1 - a)", "sin(a) - w[2] * a", "-0.5 * a ** 3", "0.0 * a + w[0]")


def numbers(nested) -> list:
    """All numbers of nested lists, tuples and dicts, in order."""
    if isinstance(nested, dict):
        nested = list(nested.values())
    return [v for part in nested for v in numbers(part)] if isinstance(nested, list | tuple) else [nested]


def _logsumexp(xs):
    m = max(xs)
    return m + math.log(math.fsum(math.exp(x - m) for x in xs))


PLAIN = {
    **{k: f for k, f in vars(math).items() if not k.startswith("_")},
    "log": lambda x: math.log(x or 1e-8), "abs": abs, "max": max, "min": min, "maximum": max, "minimum": min,
    "sum": math.fsum, "mean": lambda xs: math.fsum(xs) / len(xs), "logsumexp": _logsumexp,
    "dot": lambda xs, ys: math.fsum(x * y for x, y in zip(xs, ys)), "clamp": lambda x, a, b: min(max(x, a), b),
    "where": lambda c, x, y: x if c else y, "relu": lambda x: x if x > 0 else 0.0,
    "sigmoid": lambda x: 0.5 + 0.5 * math.tanh(x / 2),
    "softplus": lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
}  # fmt: skip

# ── Computing ────────────────────────────────────────────────────────────────────────────────────────────────────

Refusal = (ValueError, ArithmeticError)


def backward(f, x, v, w):
    """By the gradient's field, of the captured Values too."""
    return _walked(f, x, w)


def from_value(backend):
    return lambda f, x, v, w: _walked(compile(f, backend=backend).value, x, w)


def _walked(f, x, w):
    xs = [Value(a) for a in x]
    for a in w:
        a.grad = 0.0
    y = f(xs)
    if isinstance(y, Value) and y.requires_grad:
        y.backward()
    return [a.grad for a in xs]


def by_grad(create_graph):
    def of(f, x, v, w):
        xs = [Value(a) for a in x]
        y = f(xs)
        if not (isinstance(y, Value) and y.requires_grad):
            return [0.0] * len(x)
        return [g.data for g in mg.grad(y, xs, create_graph=create_graph)]

    return of


FIRST = {  # ways to the gradient
    "backward": backward,
    "grad with a graph": by_grad(True),
    "grad without": by_grad(False),
    "transforms.grad": lambda f, x, v, w: grad(f)(x),
    "jacobian": lambda f, x, v, w: jacobian(f)(x),
    "jvp": lambda f, x, v, w: [jvp(f, (x,), ([float(i == k) for i in range(len(x))],))[1] for k in range(len(x))],
}


def compiled_ways(backend, f, v):
    """The ways to the gradient, and the one to the hessian times v."""
    both, forwards = compiled_by(backend, value_and_grad(f)), compiled_by(backend, lambda x: FIRST["jvp"](f, x, v, ()))
    second = compiled_by(backend, lambda x: hvp(f, x, v))
    first = {
        f"{backend} value_and_grad": lambda f, x, v, w: numbers(both(x))[1:],
        f"{backend} jvp": lambda f, x, v, w: forwards(x),
    }
    if backend != "c":
        first[f"{backend} value().backward"] = from_value(backend)
    return first, {f"{backend} hvp": lambda f, x, v, w: second(x)}


SECOND = {  # ways to the hessian times a vector
    "hvp": lambda f, x, v, w: hvp(f, x, v),
    "grad of grad": lambda f, x, v, w: grad(lambda x: ops.dot(grad(f)(x), v))(x),
}


def attempt(way, *args):
    """The numbers as floats, or the error."""
    try:
        return [a.data if isinstance(a, Value) else float(a) for a in numbers(way(*args))]
    except Refusal as error:
        frames = traceback.walk_tb(error.__traceback__)
        raised_by_program = any(f.f_code.co_filename == __file__ and f.f_code.co_name == "g" for f, _ in frames)
        return _OfConstants(str(error)) if raised_by_program else error


class _OfConstants(ArithmeticError):
    """The program itself raised an error: as it is traced, that is one of what it computes of plain numbers."""


# ── Judging ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Difference(Exception):
    """Two ways that should agree do not."""


def sound(found) -> bool:
    return not isinstance(found, Exception) and all(map(math.isfinite, found))


def agree(found, expected, what: str, lenient: bool = False, tolerance: float = 1e-8) -> None:
    """Raise Difference unless both are refused or both are the same numbers; `lenient`: or eager alone refuses."""
    if not sound(expected):
        if sound(found) and not lenient:
            raise Difference(f"{what}: {found} where eager has {expected!r}")
        return
    if isinstance(found, Exception):
        raise Difference(f"{what}: {type(found).__name__}: {found} for {expected}")
    scale = max(1.0, *map(abs, expected))
    if len(found) != len(expected) or not all(abs(a - b) <= tolerance * scale for a, b in zip(found, expected)):
        raise Difference(f"{what}: {found} for {expected}")


def differences(f, x) -> list[float] | None:
    """The gradient by central differences of a function of floats, if two steps agree about it."""

    def by(h):
        shifted = lambda k, d: [a + d * (i == k) for i, a in enumerate(x)]  # noqa: E731
        return [(f(shifted(k, h)) - f(shifted(k, -h))) / (2 * h) for k in range(len(x))]

    try:
        coarse, fine = by(1e-4), by(5e-5)
    except Refusal:
        return None
    return fine if all(abs(a - b) <= 1e-5 * max(1.0, abs(b)) for a, b in zip(coarse, fine)) else None


def failure(example: Example, backends: list[str]) -> str:
    """What is wrong: "" if nothing is, "large", "refused" if there is no number at any point."""
    f, g, w = example.functions()
    plain, plain_g, _ = example.functions(plain=True)
    verdict = "refused"
    compiled = {b: compiled_by(b, g) for b in backends}
    allowing = {b: compiled_by(b, g, nonfinite="allow") for b in backends}
    ways = {b: compiled_ways(b, f, example.direction) for b in backends}
    for smooth, x in zip((True, False), example.points):
        try:
            y = g([Value(a) for a in x])
            if len(topological_order([v for v in numbers(y) if isinstance(v, Value)])) > LARGEST:
                return "large"
            value = [v.data if isinstance(v, Value) else float(v) for v in numbers(y)]
        except Refusal as error:
            value = error
        if sound(value) and max(map(abs, value)) > 1e6:
            return "large"
        try:
            agree(attempt(plain_g, x), value, f"plain floats at {x}")
            for b in backends:
                found = attempt(compiled[b], x)
                agree(found, value, f"{b} at {x}", lenient=True)
                if isinstance(found, Exception) and not isinstance(found, FloatingPointError | _OfConstants):
                    raise Difference(f"{b} at {x}: {found!r}, which is no FloatingPointError")
                found = attempt(allowing[b], x)
                if isinstance(found, Exception) and not isinstance(found, _OfConstants):
                    raise Difference(f"{b} that allows, at {x}: {found!r}")
            if sound(value):
                _check_derivatives(f, plain, x, w, example.direction, ways, smooth)
                verdict = ""
        except Difference as difference:
            return f"FAILED: {difference}"
        except Exception as error:
            return f"FAILED: {type(error).__name__}: {error}"
    return verdict


def _check_derivatives(f, plain, x, w, v, ways, smooth) -> None:
    """What cancels before a root of 0 has no derivative backwards, and forwards 0, since 0 times anything is 0."""
    expected = attempt(backward, f, x, v, w)
    of_w = [a.grad for a in w]
    if sound(expected) and max(map(abs, expected)) > 1e6:
        return
    forwards = expected if sound(expected) else attempt(FIRST["jvp"], f, x, v, w)
    for name, way in FIRST.items():
        agree(attempt(way, f, x, v, w), forwards if name == "jvp" else expected, f"{name} at {x}")
    for b, (first, _) in ways.items():
        for name, way in first.items():
            agree(attempt(way, f, x, v, w), forwards if name.endswith("jvp") else expected, f"{name} at {x}")
        if sound(expected) and b != "c":
            agree([a.grad for a in w], of_w, f"{b} value().backward, of w, at {x}")
    if smooth and sound(forwards) and (slopes := differences(plain, x)):
        agree(slopes, forwards, f"finite differences at {x}", tolerance=1e-4)
    if not sound(expected):
        return
    second = attempt(SECOND["hvp"], f, x, v, w)
    if sound(second) and max(map(abs, second)) > 1e6:
        return
    agree(attempt(SECOND["grad of grad"], f, x, v, w), second, f"grad of grad at {x}")
    for _, seconds in ways.values():
        for name, way in seconds.items():
            agree(attempt(way, f, x, v, w), second, f"{name} at {x}")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--minutes", type=float, default=1.0)
    options.add_argument("--seed", type=int, default=0, help="where to start")
    options.add_argument("--backends", default="python,llvm")
    options.add_argument("--order", action="store_true", help="compile every program with its loops in order")
    given = options.parse_args()
    if given.order:
        pipeline.DEEP = pipeline.MANY = 0
        pipeline.SHARE = 10**9
        pipeline.MOST = 10**9
    stop, seed = time.monotonic() + 60 * given.minutes, given.seed
    count = {"": 0, "refused": 0, "large": 0, "FAILED": 0}
    while time.monotonic() < stop:
        example = Example(seed)
        verdict = failure(example, given.backends.split(","))
        count[verdict.partition(":")[0]] += 1
        if verdict.startswith("FAILED"):
            print(f"{verdict}\n{example}\n", flush=True)
        seed += 1
    print(
        f"seeds {given.seed} to {seed - 1}: {count['']} alike, {count['refused']} without a number, "
        f"{count['large']} too large, {count['FAILED']} failed"
    )
    return 1 if count["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
