"""Random programs on lists of numbers: what the compiler's property tests feed to it. Not a test itself.

A `Function` is data: each of its steps makes a list of numbers from numbers of the lists before it. It runs on floats,
Values and Symbols alike, so that one example serves the eager engine, every pass and every backend:

    @given(functions())
    def test_…(f):
        compile(f.values)(*f.point)             == f.values(*f.point)
        compile(value_and_grad(f.total))(…)     f.total is one number, and depends on all inputs, twice

The rows of a step are what a user's loops would read: affine in up to four loops (with strides that are negative, zero
or wrap around), the same place again and again, ragged, drawn without any pattern, a running sum. Some lists are never
read, constants stand among the inputs, and outputs come in any order, more than once, or are inputs or constants.

At `point` every step is defined, its numbers are at most `LARGEST`, and no comparison stands at its corner: there a
sum in another order could change the derivative.
"""

from __future__ import annotations

import builtins
import math
import random
from dataclasses import dataclass
from itertools import pairwise, product

from hypothesis import strategies as st

from milligrad import ops
from milligrad.compiler.passes.fuse import fuse
from milligrad.compiler.passes.reroll import Layout, reroll
from milligrad.compiler.passes.simplify import simplify
from milligrad.compiler.program import Array, interpret
from milligrad.compiler.trace import Trace, captured, needed
from milligrad.engine import Value, grad, number

LARGEST = 4.0
CORNER = 1e-6  # numbers that are compared differ by at least so much


def _loop(*xy):
    """Σ x·y as a user writes it: one product and one addition at a time."""
    n, z = len(xy) // 2, 0.0
    for x, y in zip(xy[:n], xy[n:]):
        z = z + x * y
    return z


def _less_first(*xs):
    z = xs[0]
    for x in xs[1:]:
        z = z - x
    return z


ONE = {  # of one number
    "negative": lambda x: -x,
    "itself": lambda x: +x,
    "half": lambda x: 0.5 * x,
    "1 - x": lambda x: 1 - x,
    "x - 0.3": lambda x: x - 0.3,
    "square": lambda x: x**2,
    "cube": lambda x: x**3,
    "x + x": lambda x: x + x,
    "x * x": lambda x: x * x,
    "power": lambda x: (1 + x * x) ** 0.7,
    "reciprocal": lambda x: (2 + ops.sin(x)) ** -1,
    "exponential": lambda x: 2.0 ** ops.sin(x),
    "exp": lambda x: ops.exp(-x * x),
    "expm1": lambda x: ops.expm1(ops.tanh(x)),
    "log": lambda x: ops.log(1.5 + ops.cos(x)),
    "log1p": lambda x: ops.log1p(x * x),
    "sqrt": lambda x: ops.sqrt(1 + x * x),
    "sin": ops.sin,
    "cos": ops.cos,
    "tan": lambda x: ops.tan(0.5 * ops.tanh(x)),
    "asin": lambda x: ops.asin(0.9 * ops.sin(x)),
    "acos": lambda x: ops.acos(0.9 * ops.sin(x)),
    "atan": ops.atan,
    "sinh": lambda x: ops.sinh(ops.tanh(x)),
    "cosh": lambda x: ops.cosh(ops.tanh(x)),
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "softplus": ops.softplus,
    "erf": ops.erf,
    "erfc": ops.erfc,
    "log_normal_cdf": lambda x: ops.log_normal_cdf(5 * x),
    "log1mexp": lambda x: ops.log1mexp(0.2 + x * x),
    "log_sigmoid": ops.log_sigmoid,
    "normal_cdf": ops.normal_cdf,
    "relu": ops.relu,
    "abs": ops.abs,
    "clamp": lambda x: ops.clamp(x, -0.5, 0.8),
}
TWO = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / (2 + ops.sin(y)),
    "1 - z²": lambda x, y: (1 - x * x) * y,
    "pow": lambda x, y: (1 + x * x) ** ops.sin(y),
    "bce": lambda x, y: ops.bce(ops.sigmoid(x), ops.sigmoid(y)),
    "xlogy": lambda x, y: ops.xlogy(x, 1 + y * y),
    "logaddexp": ops.logaddexp,
    "maximum": ops.maximum,
    "where": lambda x, y: ops.where(x < y, x * y, x - y),
}
MANY = {
    "sum": lambda *xs: ops.sum(xs),
    "sum()": lambda *xs: builtins.sum(xs),
    "mean": lambda *xs: ops.mean(xs),
    "x - y - …": _less_first,
    "prod": lambda *xs: ops.prod(xs),
    "logsumexp": lambda *xs: ops.logsumexp(xs),
    "max": lambda *xs: ops.max(xs),
    "min": lambda *xs: ops.min(xs),
}
PAIRS = {  # Σ x·y, in four ways; the arguments are all x, then all y
    "dot": lambda *xy: ops.dot(xy[: len(xy) // 2], xy[len(xy) // 2 :]),
    "chain": lambda *xy: ops.chain(xy[: len(xy) // 2], xy[len(xy) // 2 :]),
    "loop": _loop,
    "sum of products": lambda *xy: builtins.sum(x * y for x, y in zip(xy[: len(xy) // 2], xy[len(xy) // 2 :])),
    "sum of differences": lambda *xy: ops.sum([(x - y) * x for x, y in zip(xy[: len(xy) // 2], xy[len(xy) // 2 :])]),
}
OTHERS = {"scaled": lambda x, c: x * c, "running sum": lambda z, x: 0.5 * z + x}
FUNCTIONS = ONE | TWO | MANY | PAIRS | OTHERS
CORNERS = {"relu": [0.0], "abs": [0.0], "clamp": [-0.5, 0.8]}


@dataclass(frozen=True)
class Function:
    """A function of lists of numbers, and a point at which it is smooth.

    steps:    (name of a function, rows): a new list, with one number for each row. A row holds its arguments: numbers,
              or (list, place), where `list` may be the new one.
    outputs:  what is returned, as a row
    point:    the lists of numbers to call it with
    """

    steps: tuple
    outputs: tuple
    point: tuple

    def values(self, *lists):
        """The outputs, as a list."""
        return _row(self.outputs, self._lists(lists))

    def total(self, *lists):
        """One number that depends on every output, and on every input at least quadratically."""
        inputs = [x for xs in lists for x in xs]
        weights = [math.cos(3 * i) for i in range(len(self.outputs))]
        return ops.dot(weights, self.values(*lists)) + 0.1 * ops.dot(inputs, inputs)

    def derivatives(self, *lists):
        """The total, its gradient by all inputs, and its hessian times a fixed vector, as one list."""
        inputs = [x for xs in lists for x in xs]
        z = self.total(*lists)
        gradient = grad(z, inputs)
        direction = [math.sin(1 + 2 * i) for i in range(len(inputs))]
        return [z, *gradient, *grad(ops.dot(gradient, direction), inputs)]

    def _lists(self, lists):
        made = [list(xs) for xs in lists]
        for name, rows in self.steps:
            f = FUNCTIONS[name]
            made.append([])
            for row in rows:
                made[-1].append(f(*_row(row, made)))
        return made


def _row(row, lists):
    return [x if isinstance(x, float) else lists[x[0]][x[1]] for x in row]


# How a step reads.

EXTENTS = st.sampled_from([(), (2,), (5,), (12,), (3, 4), (4, 3), (2, 7), (6, 5)])


@st.composite
def _places(draw, lists, rows, columns):
    """For each iteration of the loops `rows` a list of places, one for each iteration of `columns`, in one list."""
    k = draw(st.integers(0, len(lists) - 1))
    n = len(lists[k])
    kind = draw(st.sampled_from(["affine", "affine", "affine", "affine", "scattered", "constant"]))
    r = random.Random(draw(st.integers(0, 9)))
    if kind == "constant":
        same = draw(st.booleans())
        numbers = [r.choice([-1.5, -1.0, 0.0, 0.5, 1.0, 2.0]) for _ in range(1 if same else math.prod(columns))]
        return [[numbers[j % len(numbers)] for j in range(math.prod(columns))] for _ in range(math.prod(rows))]
    if kind == "scattered":
        return [[(k, r.randrange(n)) for _ in range(math.prod(columns))] for _ in range(math.prod(rows))]
    dims = [*rows, *columns]
    base = draw(st.integers(0, n - 1))
    natural = [math.prod(dims[d + 1 :]) for d in range(len(dims))]
    strides = [draw(st.sampled_from([s, s, 0, 1, -1, 2, n // 2, 7])) for s in natural]

    def at(i):
        return k, (base + builtins.sum(j * s for j, s in zip(i, strides))) % n

    return [[at((*i, *j)) for j in product(*map(range, columns))] for i in product(*map(range, rows))]


@st.composite
def _step(draw, lists):
    """(name, rows) of a step on these lists."""
    shape = draw(st.sampled_from(["one", "two", "many", "pairs", "pairs", "ragged", "running", "ends"]))
    rows = draw(EXTENTS)
    if shape == "one":
        return draw(st.sampled_from(list(ONE))), draw(_places(lists, rows, [1]))
    if shape == "two":
        x, y = draw(_places(lists, rows, [1])), draw(_places(lists, rows, [1]))
        return draw(st.sampled_from(list(TWO))), [a + b for a, b in zip(x, y)]
    if shape == "many":
        return draw(st.sampled_from(list(MANY))), draw(_places(lists, rows, draw(EXTENTS)))
    if shape == "pairs":
        columns = draw(EXTENTS)
        x, y = draw(_places(lists, rows, columns)), draw(_places(lists, rows, columns))
        return draw(st.sampled_from(list(PAIRS))), [a + b for a, b in zip(x, y)]
    if shape == "ragged":
        table = draw(_places(lists, rows, [max(1, math.prod(rows))]))
        return draw(st.sampled_from(list(MANY))), [row[: i + 1] for i, row in enumerate(table)]
    xs = [row[0] for row in draw(_places(lists, [draw(st.integers(2, 8))], [1]))]
    if shape == "running":
        return "running sum", [[(len(lists), i - 1) if i else 0.0, x] for i, x in enumerate(xs)]
    return "sum", [[x for x in xs[max(i - 1, 0) : i + 2]] for i in range(len(xs))]


def _at_a_corner(name, rows, lists):
    """Whether a comparison in the step is between numbers that are nearly the same, but not the same number."""
    if name in CORNERS:
        return any(abs(x - corner) < CORNER for row in rows for x in _row(row, lists) for corner in CORNERS[name])
    if name not in ("maximum", "where", "max", "min"):
        return False
    for row in rows:
        distinct = list(dict.fromkeys(row))
        xs = sorted(_row(distinct, lists))
        if name == "where" and len(distinct) < len(row):
            continue
        if any(y - x < CORNER for x, y in pairwise(xs)):
            return True
    return False


@st.composite
def functions(draw, most_steps=6):
    """Functions of up to three lists, in up to `most_steps` steps: a few to a thousand nodes."""
    numbers = st.integers(-2000, 2000).map(lambda x: x / 1000 + 1 / 7000)
    r = random.Random(draw(st.integers(0, 10**6)))
    lengths = draw(st.lists(st.sampled_from([1, 3, 7, 12, 24, 30]), min_size=1, max_size=3))
    point = [[r.uniform(-2, 2) for _ in range(n)] for n in lengths]
    point[0][0] = draw(numbers)
    lists, steps = [list(xs) for xs in point], []

    def add(name, rows):
        steps.append((name, tuple(map(tuple, rows))))
        lists.append([])
        for row in rows:
            lists[-1].append(float(FUNCTIONS[name](*_row(row, lists))))

    for _ in range(draw(st.integers(min(2, most_steps), most_steps))):
        name, rows = draw(_step(lists))
        if _at_a_corner(name, rows, lists):
            name = "tanh" if name in ONE else "mul" if name in TWO else "sum"
        add(name, rows)
        largest = max(map(abs, lists[-1]))
        if largest > LARGEST:
            scale = 2.0 ** -math.ceil(math.log2(largest / LARGEST))
            add("scaled", [[(len(lists) - 1, i), scale] for i in range(len(lists[-1]))])
    chosen = draw(st.sets(st.integers(0, len(lists) - 1), max_size=2)) | {len(lists) - 1}
    outputs = [(k, i) for k in sorted(chosen) for i in range(len(lists[k]))]
    order = draw(st.sampled_from(["as they are", "backwards", "shuffled", "twice", "with a constant"]))
    if order == "backwards":
        outputs.reverse()
    elif order == "shuffled":
        r.shuffle(outputs)
    elif order == "twice":
        outputs += outputs[::2]
    elif order == "with a constant":
        outputs.insert(len(outputs) // 2, 2.5)
    return Function(tuple(steps), tuple(outputs), tuple(map(tuple, point)))


# Through the passes.


def programs(f, lists, values=()):
    """[(a program, its memory, its results)] of f(*lists), after reroll and after fuse.

    `lists` are lists of floats, of which f gets the Symbols; those whose number is in `values` it gets as Values.
    """
    trace = Trace()
    given = [[Value(x) for x in xs] if k in values else trace.input(f"x{k}", len(xs)) for k, xs in enumerate(lists)]
    for xs in trace.inputs.values():
        for x in xs:
            x.requires_grad = True
    with trace.running():
        outputs = f(*given)
    inputs = [Array(name, len(xs), "input") for name, xs in trace.inputs.items()]
    layouts = [Layout(array, xs) for array, xs in zip(inputs, trace.inputs.values())]
    kept = captured(trace.tape, needed(trace.tape, outputs), outputs)
    leaf = Array("captured", len(kept), "leaf")
    results = Array("results", len(outputs), "output")
    graph = simplify(trace.tape, outputs)
    program = reroll(graph, [*layouts, Layout(leaf, kept)], [Layout(results, range(len(outputs)))])
    memory = {array: list(lists[int(array.name[1:])]) for array in inputs} | {leaf: [v.data for v in kept]}
    return [(p, memory, results) for p in (program, fuse(program))]


def interpreted(f, lists, values=()):
    """f(*lists) as `interpret` finds it after reroll, and after fuse."""
    found = []
    for program, memory, results in programs(f, lists, values):
        memory = {array: list(numbers) for array, numbers in memory.items()}
        interpret(program, memory)
        found.append(memory[results])
    return found


def eager(f, lists):
    """f(*lists) on the eager engine, as floats."""
    return [number(x) for x in f(*[[Value(x) for x in xs] for xs in lists])]


def assert_close(xs, ys, tolerance=1e-9):
    """Equal to `tolerance`, relative to the largest number of the list (at least 1)."""
    assert len(xs) == len(ys)
    scale = max(1.0, *map(abs, ys))
    wrong = [(i, x, y) for i, (x, y) in enumerate(zip(xs, ys)) if not abs(x - y) <= tolerance * scale]
    assert not wrong, f"{len(wrong)} of {len(ys)} differ, first (place, got, expected) = {wrong[0]}"
