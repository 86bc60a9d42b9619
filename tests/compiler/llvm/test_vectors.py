"""The native backend against `interpret`, which runs a program one number at a time, and its ops against the table."""

from __future__ import annotations

import ctypes
import math
import random
from array import array
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import ops
from milligrad.compiler.llvm.nests import FOLDED
from milligrad.compiler.program import Access, Apply, Array, Loop, Program, Reduce, Ref, Segment, interpret
from milligrad.compiler.spelling import SPELLINGS

pytest.importorskip("llvmlite")
from milligrad.compiler.llvm import native
from milligrad.compiler.llvm import vectors as emit_llvm

TYPECODES = {"float64": "d", "float32": "f"}
EPSILON = {"float64": 1e-12, "float32": 1e-5}


def close(x, y, tolerance):
    if math.isnan(y) or math.isinf(y):
        return math.isnan(x) if math.isnan(y) else x == y
    return abs(x - y) <= tolerance * max(1.0, abs(y))


def agree(program, n=1, capacity=1, dtype="float64", seed=0, inputs=None, tolerance=None):
    """Run it both ways on the same random numbers, or `inputs`; all arrays that last must be equal at the end."""
    rng, code = random.Random(seed), TYPECODES[dtype]
    tolerance = tolerance or EPSILON[dtype]
    compiled, buffers = emit_llvm.build(program, capacity, dtype), {}
    for a in program.arrays:
        rows = capacity if a.per_sample else 1
        if a.role == "output":
            buffers[a] = array(code, [math.nan] * (a.size * rows))
        elif a.role not in ("value", "constant"):
            numbers = (inputs or {}).get(a.name) or [rng.uniform(0.5, 1.5) for _ in range(a.size * rows)]
            buffers[a] = array(code, numbers)
    memory = {a: list(buffer) for a, buffer in buffers.items() if a.role != "output"}
    compiled.bind(buffers)
    compiled(n)
    interpret(program, memory, n)
    for a, buffer in buffers.items():
        numbers = a.size * (n if a.per_sample else 1)
        for k, (x, y) in enumerate(zip(buffer[:numbers], memory[a][:numbers], strict=True)):
            assert close(x, y, tolerance), f"{a.name}[{k}]: {x} instead of {y}"
    return compiled


def array_of(name, size, role="input", per_sample=False):
    return Array(name, size, role, per_sample)


@pytest.fixture(params=[128, 256, 512, "no vector functions"])
def machine(request, monkeypatch):
    """Other machines, as far as this one can stand in for them."""
    real = native.host()
    bits = real.bits if isinstance(request.param, str) else request.param
    if bits > real.bits:
        pytest.skip(f"this machine has no vectors of {bits} bits")
    functions = {} if isinstance(request.param, str) else {b: f for b, f in real.functions.items() if b <= bits}
    other = real._replace(bits=bits, registers=32 if bits == 512 else 16, functions=functions)
    monkeypatch.setattr(emit_llvm, "host", lambda: other)
    return other


# ── Ops ──────────────────────────────────────────────────────────────────────────────────────────────────────────

POINTS = [0.0, -0.0, 0.3, -0.3, 0.5, 1.0, -1.0, 2.0, 2.5, -7.5, 20.0, -40.0, 800.0, -800.0, 1e-9, 1e4, -1e4]
POINTS += [math.inf, -math.inf, math.nan]
INPUTS = {"clamp": 3, "where": 3} | dict.fromkeys(
    ["add", "sub", "mul", "div", "power", "exponential", "pow", "bce", "xlogy", "less", "less_equal", "equal"], 2
)


def expected(row, xs, dtype):
    """The row's value; None where it raises, since the number is not defined there."""
    try:
        z = row.value(*xs)
    except (ValueError, ArithmeticError):
        return None
    return ctypes.c_float(z).value if dtype == "float32" else float(z)


def check_row(name, dtype, dims):
    """The row at all combinations of the points: `dims` of them at once."""
    row, k = ops.TABLE[name], INPUTS.get(name, 1)
    points = POINTS if k < 3 else [*POINTS[::2], math.nan]
    points = [ctypes.c_float(x).value if dtype == "float32" else x for x in points]
    combinations = list(product(points, repeat=k))
    combinations += combinations[: -len(combinations) % dims]
    xs = [array_of(f"x{i}", dims) for i in range(k)]
    z = array_of("z", dims, "output")
    stride = (1,) if dims > 1 else ()
    loop = Loop(
        (dims,) if dims > 1 else (), [Apply(row, tuple(Access(x, 0, stride) for x in xs))], [(0, Access(z, 0, stride))]
    )
    code = emit_llvm.build(Program([*xs, z], [loop]), dtype=dtype)
    buffers = {a: array(TYPECODES[dtype], [0.0] * dims) for a in [*xs, z]}
    code.bind(buffers)
    for first in range(0, len(combinations), dims):
        block = combinations[first : first + dims]
        for i, x in enumerate(xs):
            buffers[x][:] = array(TYPECODES[dtype], [c[i] for c in block])
        code()
        for c, got in zip(block, buffers[z], strict=True):
            want = expected(row, c, dtype)
            if want is None:
                assert not math.isfinite(got), f"{name}{c}: {got} instead of NaN or inf"
            else:
                scale = max(1.0, abs(c[1])) if name == "bce" else 1.0  # y·ln x and (1 - y)·ln(1 - x) may cancel
                assert close(got, want, EPSILON[dtype] * scale), f"{name}{c}: {got} instead of {want}"


@pytest.mark.parametrize("dtype", TYPECODES)
@pytest.mark.parametrize("name", SPELLINGS)
def test_op_of_single_numbers_and_of_vectors(name, dtype):
    check_row(name, dtype, 1)
    check_row(name, dtype, 37)


@pytest.mark.parametrize("name", ["exp", "pow", "log", "tanh", "sigmoid", "erfc", "log_normal_cdf", "clamp", "where"])
def test_op_on_other_machines(name, machine):
    check_row(name, "float64", 37)


@pytest.mark.parametrize("y", [-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0])
def test_power_of_a_constant(y):
    x, z = array_of("x", 16), array_of("z", 16, "output")
    loop = Loop((16,), [Apply(ops.power, (Access(x, 0, (1,)), y))], [(0, Access(z, 0, (1,)))])
    code = emit_llvm.build(Program([x, z], [loop]))
    points = [p for p in POINTS if not math.isinf(p)][:16]
    out = array("d", [0.0] * 16)
    code.bind({x: array("d", points), z: out})
    code()
    for p, got in zip(points, out, strict=True):
        want = expected(ops.power, (p, y), "float64")
        assert not math.isfinite(got) if want is None else close(got, want, 1e-12), (p, y, got, want)
        assert want != 0 or math.copysign(1, got) == math.copysign(1, want), (p, y, got, want)


def test_zeros_of_both_signs_are_different_constants():
    x = array_of("x", 1)
    a, b = array_of("a", 1, "output"), array_of("b", 1, "output")
    loops = [Loop((), [Apply(ops.mul, (Access(x), zero))], [(0, Access(z))]) for zero, z in ((0.0, a), (-0.0, b))]
    code = emit_llvm.build(Program([x, a, b], loops))
    out = {a: array("d", [9.0]), b: array("d", [9.0])}
    code.bind({x: array("d", [3.0]), **out})
    code()
    assert math.copysign(1, out[a][0]) == 1 and math.copysign(1, out[b][0]) == -1


# ── Reduce ───────────────────────────────────────────────────────────────────────────────────────────────────────


def reduction(op, rows, columns, strides, per_sample=False):
    """op over the columns, for each row of a matrix."""
    x, z = array_of("x", rows * columns, per_sample=per_sample), array_of("z", rows, "output", per_sample)
    step = Reduce(ops.TABLE[op], (Segment((columns,), (Access(x, 0, strides),)),))
    return Program([x, z], [Loop((rows,), [step], [(0, Access(z, 0, (1,)))], per_sample)])


@pytest.mark.parametrize("op", sorted(FOLDED))
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 7, 8, 9, 33, 100])
@pytest.mark.parametrize("rows", [1, 3, 8, 21])
def test_reduce_by_rows_and_by_columns(op, columns, rows):
    agree(reduction(op, rows, columns, (columns, 1)))
    agree(reduction(op, rows, columns, (1, rows)))


@pytest.mark.parametrize("op", sorted(FOLDED))
def test_reduce_on_other_machines(op, machine):
    for n, columns in ((1, 33), (5, 12)):
        agree(reduction(op, 21, columns, (columns, 1), n > 1), n, 6 if n > 1 else 1)
        agree(reduction(op, 21, columns, (1, 21), n > 1), n, 6 if n > 1 else 1)


@pytest.mark.parametrize("op", ["max", "min", "sum", "logsumexp"])
@pytest.mark.parametrize("columns", [2, 4, 20])
@pytest.mark.parametrize("transposed", [False, True])
def test_reduce_of_nan_and_infinities(op, columns, transposed):
    rng = random.Random(columns)
    special = [[math.nan], [math.inf], [-math.inf], [math.inf, math.nan], [math.inf, -math.inf], [1e4], [-1e4, 1e4]]
    rows = [[rng.gauss(0, 1) for _ in range(columns)] for _ in special] + [[-math.inf] * columns, [3.5] * columns]
    for row, numbers in zip(rows, special):
        for i, x in zip(rng.sample(range(columns), len(numbers)), numbers):
            row[i] = x
    matrix = list(zip(*rows)) if transposed else rows
    strides = (1, len(rows)) if transposed else (columns, 1)
    agree(reduction(op, len(rows), columns, strides), inputs={"x": [x for row in matrix for x in row]}, tolerance=1e-11)


def test_logsumexp_is_exact_where_one_stands_above_the_rest():
    code = emit_llvm.build(reduction("logsumexp", 1, 3, (3, 1)))
    x, z = code._slots
    out = array("d", [0.0])
    code.bind({x: array("d", [0.0, -50.0, -60.0]), z: out})
    code()
    assert out[0] == pytest.approx(math.exp(-50) + math.exp(-60), rel=1e-12, abs=0)


def test_sum_of_several_segments_and_products():
    w, x, b, z = array_of("w", 6 * 50, "leaf"), array_of("x", 50), array_of("b", 6, "leaf"), array_of("z", 6, "output")
    segments = (
        Segment((50,), (Access(w, 0, (50, 1)), Access(x, 0, (0, 1)))),
        Segment((), (Access(b, 0, (1,)),)),
        Segment((3, 5), (Access(w, 7, (1, 2, 3)), 0.5)),
        Segment((), (Access(b, 5, (-1,)), Access(x, 3, (2,)))),
        Segment((), (2.5,)),
    )
    agree(Program([w, x, b, z], [Loop((6,), [Reduce(ops.sum, segments)], [(0, Access(z, 0, (1,)))])]))


def test_ops_of_any_number_of_inputs_as_apply():
    x, z = array_of("x", 6), array_of("z", 6, "output")
    xs = tuple(Access(x, k, ()) for k in range(6))
    names = [*sorted(FOLDED), "dot"]
    steps = [Apply(ops.TABLE[name], xs) for name in names]
    agree(Program([x, z], [Loop((), steps, [(k, Access(z, k, ())) for k in range(6)])]))


def test_sum_of_nothing_is_zero():
    z = array_of("z", 1, "output")
    agree(Program([z], [Loop((), [Reduce(ops.sum, ())], [(0, Access(z))])]))


# ── Accesses ─────────────────────────────────────────────────────────────────────────────────────────────────────


def copying(dims, access, strides, per_sample=False, size=None):
    """A loop that doubles what `access` reads into an array of its own."""
    z = array_of("z", size or math.prod(dims), "output", per_sample)
    loop = Loop(dims, [Apply(ops.mul, (access, 2.0))], [(0, Access(z, 0, strides))], per_sample)
    return Program([access.array, z], [loop])


@pytest.mark.parametrize(
    ("base", "strides"),
    [(0, (11, 1)), (0, (1, 3)), (32, (-11, -1)), (10, (11, -1)), (5, (0, 0)), (1, (0, 2)), (2, (9, 0))],
)
def test_strides(base, strides):
    agree(copying((3, 11), Access(array_of("x", 40), base, strides), (11, 1)))
    agree(copying((3, 11), Access(array_of("x", 40), base, strides), (1, 3)))


@pytest.mark.parametrize("per_sample", [False, True])
def test_tables(per_sample):
    rng = random.Random(3)
    table = tuple(rng.randrange(50) for _ in range(3 * 19))
    rows = tuple(10 * i + j for i in (4, 0, 2) for j in range(19))  # irregular by rows, regular in them
    for entries in (table, rows):
        access = Access(array_of("x", 70, per_sample=per_sample), 0, (), entries)
        agree(copying((3, 19), access, (19, 1), per_sample), *((5, 6) if per_sample else (1, 1)))


def test_scatter_by_a_table():
    x, z = array_of("x", 20), array_of("z", 20, "output")
    order = random.Random(0).sample(range(20), 20)
    loop = Loop((20,), [Apply(ops.exp, (Access(x, 0, (1,)),))], [(0, Access(z, 0, (), tuple(order)))])
    agree(Program([x, z], [loop]))


def test_constants_and_several_stores():
    c = Array("c", 9, "constant", values=tuple(0.1 * k for k in range(9)))
    x, y, z = array_of("x", 9), array_of("y", 9, "value"), array_of("z", 27, "output")
    first = Loop(
        (9,),
        [Apply(ops.add, (Access(x, 0, (1,)), Access(c, 8, (-1,)))), Apply(ops.mul, (Ref(0), Ref(0)))],
        [(0, Access(y, 0, (1,))), (1, Access(z, 0, (3,))), (0, Access(z, 1, (3,)))],
    )
    second = Loop((9,), [Apply(ops.sub, (Access(y, 0, (1,)), Access(c, 0, (1,))))], [(0, Access(z, 2, (3,)))])
    agree(Program([c, x, y, z], [first, second]))


def test_leaf_changed_in_place():
    p, v = array_of("p", 24, "leaf"), array_of("v", 24, "state")
    g, lr = array_of("g", 24), array_of("lr", 1)
    here = (6, 1)
    steps = [
        Apply(ops.mul, (Access(v, 0, here), 0.9)),
        Apply(ops.add, (Ref(0), Access(g, 0, (1, 4)))),
        Apply(ops.mul, (Ref(1), Access(lr, 0, (0, 0)))),
        Apply(ops.sub, (Access(p, 0, here), Ref(2))),
    ]
    agree(Program([p, v, g, lr], [Loop((4, 6), steps, [(1, Access(v, 0, here)), (3, Access(p, 0, here))])]))


# ── Samples ──────────────────────────────────────────────────────────────────────────────────────────────────────


def network(inputs, hidden, outputs):
    """A training step of a network, written as the passes do it: sums over samples go into the update of a leaf."""
    x, y = array_of("x", inputs, per_sample=True), array_of("y", outputs, per_sample=True)
    w1, b1 = array_of("w1", hidden * inputs, "leaf"), array_of("b1", hidden, "leaf")
    w2, v1 = array_of("w2", outputs * hidden, "leaf"), array_of("v1", hidden * inputs, "state")
    lr, count = array_of("lr", 1), array_of("count", 1)
    h, z, d, dh, each = (
        Array(name, size, "value", True)
        for name, size in (("h", hidden), ("z", outputs), ("d", outputs), ("dh", hidden), ("each", 1))
    )
    loss = array_of("loss", 1, "output")
    first, one = (1,), Access
    loops = [
        Loop(
            (hidden,),
            [
                Reduce(
                    ops.sum,
                    (
                        Segment((inputs,), (one(w1, 0, (inputs, 1)), one(x, 0, (0, 1)))),
                        Segment((), (one(b1, 0, first),)),
                    ),
                ),
                Apply(ops.tanh, (Ref(0),)),
            ],
            [(1, one(h, 0, first))],
            True,
        ),
        Loop(
            (outputs,),
            [Reduce(ops.sum, (Segment((hidden,), (one(w2, 0, (hidden, 1)), one(h, 0, (0, 1)))),))],
            [(0, one(z, 0, first))],
            True,
        ),
        Loop(
            (),
            [
                Reduce(ops.logsumexp, (Segment((outputs,), (one(z, 0, first),)),)),
                Reduce(ops.sum, (Segment((outputs,), (one(z, 0, first), one(y, 0, first))),)),
                Apply(ops.sub, (Ref(0), Ref(1))),
            ],
            [(2, one(each))],
            True,
        ),
        Loop(
            (outputs,),
            [
                Reduce(ops.logsumexp, (Segment((outputs,), (one(z, 0, (0, 1)),)),)),
                Apply(ops.sub, (one(z, 0, first), Ref(0))),
                Apply(ops.exp, (Ref(1),)),
                Apply(ops.sub, (Ref(2), one(y, 0, first))),
                Apply(ops.div, (Ref(3), one(count, 0, (0,)))),
            ],
            [(4, one(d, 0, first))],
            True,
        ),
        Loop(
            (hidden,),
            [
                Reduce(ops.sum, (Segment((outputs,), (one(w2, 0, (1, hidden)), one(d, 0, (0, 1)))),)),
                Apply(ops.mul, (Ref(0), one(h, 0, first))),
            ],
            [(1, one(dh, 0, first))],
            True,
        ),
        Loop((), [Reduce(ops.sum, (Segment((), (one(each),), True),))], [(0, one(loss))]),
        Loop(
            (hidden, inputs),
            [
                Reduce(ops.sum, (Segment((), (one(dh, 0, (1, 0)), one(x, 0, (0, 1))), True),)),
                Apply(ops.mul, (one(v1, 0, (inputs, 1)), 0.9)),
                Apply(ops.add, (Ref(1), Ref(0))),
                Apply(ops.mul, (Ref(2), one(lr, 0, (0, 0)))),
                Apply(ops.sub, (one(w1, 0, (inputs, 1)), Ref(3))),
            ],
            [(2, one(v1, 0, (inputs, 1))), (4, one(w1, 0, (inputs, 1)))],
        ),
        Loop(
            (hidden,),
            [
                Reduce(ops.sum, (Segment((), (one(dh, 0, first),), True),)),
                Apply(ops.sub, (one(b1, 0, first), Ref(0))),
            ],
            [(1, one(b1, 0, first))],
        ),
    ]
    return Program([x, y, w1, b1, w2, v1, lr, count, h, z, d, dh, each, loss], loops)


@pytest.mark.parametrize("shape", [(5, 3, 2), (64, 32, 10), (13, 17, 9), (1, 1, 1)])
@pytest.mark.parametrize(("n", "capacity"), [(1, 1), (1, 2), (4, 4), (7, 32), (32, 32), (13, 13)])
@pytest.mark.parametrize("dtype", TYPECODES)
def test_training_step(shape, n, capacity, dtype):
    agree(network(*shape), n, capacity, dtype, tolerance={"float64": 1e-12, "float32": 1e-3}[dtype])


def test_training_step_on_other_machines(machine):
    agree(network(13, 17, 9), 7, 8)


@pytest.mark.parametrize(("n", "capacity"), [(1, 2), (8, 8), (21, 32), (31, 31)])
def test_samples_side_by_side(n, capacity):
    """A function of a few numbers per sample: the samples themselves go in lanes."""
    x, out = array_of("x", 3, per_sample=True), array_of("out", 2, "output", True)
    a, b, c = (Access(x, k, ()) for k in range(3))
    steps = [
        Apply(ops.mul, (a, b)), Apply(ops.exp, (Ref(0),)), Apply(ops.add, (Ref(1), c)), Apply(ops.log, (Ref(2),)),
    ]  # fmt: skip
    agree(Program([x, out], [Loop((), steps, [(3, Access(out, 0, ())), (1, Access(out, 1, ()))], True)]), n, capacity)


# ── Any program ──────────────────────────────────────────────────────────────────────────────────────────────────

EXTENTS = st.sampled_from([1, 2, 3, 4, 5, 8, 9, 17])
UNARY = [ops.sqrt, ops.log1p, ops.atan, ops.relu, ops.abs, ops.identity, ops.tanh]
BINARY = [ops.add, ops.mul, ops.div]  # of positive numbers: nothing cancels, so that rounding stays small


class Builder:
    """Draws a program: loops over arrays that are there, each into an array of its own."""

    def __init__(self, draw):
        self.draw = draw
        self.arrays, self.readable, self.loops = [], [], []

    def add(self, size, role, per_sample):
        a = Array(f"a{len(self.arrays)}", size, role, per_sample)
        self.arrays.append(a)
        return a

    def access(self, dims, samples):
        """Any array (of samples only where there are some), by strides if they fit, else by a table, or a new array."""
        old = [a for a in self.readable if samples or not a.per_sample]
        strides = tuple(self.draw(st.sampled_from([0, 1, 1, -1, 2, 3, 7])) for _ in dims)
        if self.draw(st.booleans()):  # as if they ran over a matrix
            strides = tuple(math.prod(dims[d + 1 :]) for d in range(len(dims)))
        low = sum(min(0, s * (e - 1)) for s, e in zip(strides, dims))
        span = sum(abs(s) * (e - 1) for s, e in zip(strides, dims)) + 1
        if not old or self.draw(st.booleans()):
            a = self.add(span + self.draw(st.integers(0, 3)), self.draw(st.sampled_from(["input", "leaf"])), samples)
            self.readable.append(a)
        else:
            a = self.draw(st.sampled_from(old))
        if span <= a.size and self.draw(st.integers(0, 3)):
            return Access(a, -low + self.draw(st.integers(0, a.size - span)), strides)
        rng = random.Random(self.draw(st.integers(0, 9)))
        return Access(a, 0, (), tuple(rng.randrange(a.size) for _ in range(math.prod(dims))))

    def operand(self, steps, dims, samples):
        kind = self.draw(st.integers(0, 5))
        if steps and kind < 2:
            return Ref(self.draw(st.integers(0, len(steps) - 1)))
        return 0.75 if kind == 2 else self.access(dims, samples)

    def step(self, steps, dims, per_sample):
        if self.draw(st.booleans()):
            op = self.draw(st.sampled_from(UNARY + BINARY))
            n = 2 if op in BINARY else 1
            return Apply(op, tuple(self.operand(steps, dims, per_sample) for _ in range(n)))
        op = ops.TABLE[self.draw(st.sampled_from(["sum", "sum", "sum", "max", "min", "logsumexp"]))]
        segments = []
        for _ in range(self.draw(st.integers(1, 3))):
            own = tuple(self.draw(st.lists(EXTENTS, max_size=2)))
            over = op is ops.sum and not per_sample and self.draw(st.booleans())
            n = self.draw(st.integers(1, 2)) if op is ops.sum else 1
            factors = tuple(self.operand(steps, dims + own, per_sample or over) for _ in range(n))
            factors = tuple(x if isinstance(x, Access) else self.operand(steps, dims + own, False) for x in factors)
            segments.append(Segment(own, factors, over))
        return Reduce(op, tuple(segments))

    def loop(self):
        dims = tuple(self.draw(st.lists(EXTENTS, max_size=3)))
        per_sample, steps = self.draw(st.booleans()), []
        for _ in range(self.draw(st.integers(1, 4))):
            steps.append(self.step(steps, dims, per_sample))
        order = self.draw(st.permutations(range(len(dims))))
        strides, k = [0] * len(dims), 1
        for d in order:
            strides[d], k = k, k * dims[d]
        z = self.add(k, self.draw(st.sampled_from(["output", "value"])), per_sample)
        self.readable.append(z)
        self.loops.append(Loop(dims, steps, [(len(steps) - 1, Access(z, 0, tuple(strides)))], per_sample))

    def program(self):
        for _ in range(self.draw(st.integers(1, 4))):
            self.loop()
        return Program(self.arrays, self.loops)


@st.composite
def programs(draw):
    return Builder(draw).program()


@settings(deadline=None, max_examples=150)
@given(programs(), st.sampled_from([(1, 1), (1, 2), (3, 4), (8, 8), (11, 12)]), st.sampled_from(["float64", "float32"]))
def test_any_program(program, samples, dtype):
    agree(program, *samples, dtype, tolerance={"float64": 1e-11, "float32": 1e-3}[dtype])


# ── The text ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_loops_that_do_the_same_share_a_function():
    x, y, z = array_of("x", 8), array_of("y", 8, "value"), array_of("z", 8, "output")
    loops = [
        Loop((8,), [Apply(ops.exp, (Access(a, 0, (1,)),))], [(0, Access(b, 0, (1,)))]) for a, b in ((x, y), (y, z))
    ]
    code = agree(Program([x, y, z], loops))
    assert code.source.count("define internal") == 1 and code.source.count("call void @loop0") == 2


def test_what_does_not_change_is_computed_outside_of_the_loop():
    x, s, z = array_of("x", 800), array_of("s", 1), array_of("z", 800, "output")
    steps = [Apply(ops.sqrt, (Access(s, 0, (0,)),)), Apply(ops.mul, (Access(x, 0, (1,)), Ref(0)))]
    code = agree(Program([x, s, z], [Loop((800,), steps, [(1, Access(z, 0, (1,)))])]))
    function = code.source[: code.source.index("\n}")]
    assert "llvm.sqrt" in function and function.index("llvm.sqrt") < function.index("phi")


def test_explanations():
    code = agree(reduction("sum", 4, 100, (100, 1)))
    assert "define" in code.source and "ret" in code.optimized()
    assert set(code.times) == {"emit", "llvm"} and min(code.times.values()) > 0


@pytest.mark.parametrize("arguments", [{"dtype": "float16"}, {"capacity": 0}])
def test_build_errors(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        emit_llvm.build(Program([], []), **arguments)
