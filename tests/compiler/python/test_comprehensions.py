"""The Python backend against `interpret`: every row of the table, every shape of access, random programs, epochs."""

import linecache
import math
import random
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import ops
from milligrad.compiler.program import Access, Apply, Array, Loop, Program, Reduce, Ref, Segment, interpret, size
from milligrad.compiler.python.comprehensions import build
from milligrad.engine import Reduction

LASTING = ("input", "leaf", "state", "output")
EDGES = [0.0, -0.0, 1.0, -1.0, 0.3, -2.5, 2.0, 700.0, -800.0, 1e-300, 1e308, math.inf, -math.inf, math.nan]


def same(x, y):
    """Equal to a few roundings; NaNs are equal."""
    return x == y or (x != x and y != y) or math.isclose(x, y, rel_tol=1e-11, abs_tol=1e-11)


def all_same(xs, ys):
    return len(xs) == len(ys) and all(map(same, xs, ys))


def numbers(program, n=1, seed=0):
    """Lists for the arrays that a caller binds, with random numbers."""
    r = random.Random(seed)
    rows = {a: n if a.per_sample else 1 for a in program.arrays if a.role in LASTING}
    return {a: [r.choice((-1, 1)) * r.uniform(0.2, 2) for _ in range(a.size * k)] for a, k in rows.items()}


def check(program, n=1, capacity=None, seed=0, memory=None):
    """Run it, and compare every list that the caller sees with `interpret`."""
    code = build(program, n if capacity is None else capacity)
    memory = memory or numbers(program, n, seed)
    expected = {a: xs[:] for a, xs in memory.items()}
    interpret(program, expected, n)
    code.bind(memory)
    code(n)
    for a, xs in memory.items():
        if a.role != "output" or any(place.array is a for loop in program.loops for _, place in loop.stores):
            assert all_same(xs, expected[a]), f"{a}: {xs} instead of {expected[a]}\n{code.source}"
    return code


def one_loop(dims, steps, stores, *arrays, per_sample=False):
    return Program([*arrays], [Loop(dims, steps, stores, per_sample)])


def of(array, *strides):
    return Access(array, 0, strides)


def dot(*segments):
    """A sum over segments, each (dims, factor, …) with True at the end if it is over samples."""
    return Reduce(
        ops.sum, tuple(Segment(s[0], tuple(x for x in s[1:] if x is not True), s[-1] is True) for s in segments)
    )


def outcome(f, *xs):
    try:
        return f(*xs)
    except (ValueError, ArithmeticError) as error:
        return type(error)


# Every row.


def inputs_of(row):
    """The edges, and pairs and triples of them, for a row of so many inputs."""
    if isinstance(row, Reduction):
        return []
    many = {"where": 3, "clamp": 3}.get(row.name) or row.form.count("{}")
    r = random.Random(1)
    return [(x,) for x in EDGES] if many == 1 else [tuple(r.choices(EDGES, k=many)) for _ in range(300)]


@pytest.mark.parametrize("row", [row for row in ops.TABLE.values() if not isinstance(row, Reduction)])
@pytest.mark.parametrize("kind", ["array", "field", "literal"])
def test_a_row_is_its_value_at_every_edge(row, kind):
    for xs in inputs_of(row):
        given_, result = Array("x", len(xs), "input"), Array("z", 2 if kind == "array" else 1, "output")
        places = [Access(given_, k, (0,) if kind == "array" else ()) for k in range(len(xs))]
        if kind == "literal":  # all inputs but the first are known
            places[1:] = xs[1:]
        loop = Loop((2,) if kind == "array" else (), [Apply(row, tuple(places))], [])
        loop.stores.append((0, Access(result, 0, (1,) if kind == "array" else ())))
        memory = {given_: [*xs], result: [0.0] * result.size}
        code = build(Program([given_, result], [loop]))
        code.bind(memory)
        expected, got = outcome(row.value, *xs), outcome(code)
        if isinstance(expected, type):
            assert got is expected, (row, xs, code.source)
        else:
            assert got is None and repr(memory[result][0]) == repr(float(expected)), (row, xs, code.source)


@pytest.mark.parametrize("row", [ops.sum, ops.prod, ops.max, ops.min, ops.logsumexp])
@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_reduction_is_its_value_at_every_edge(row, length):
    r = random.Random(2)
    for _ in range(60):
        xs = r.choices(EDGES, k=length)
        x, z = Array("x", length, "input"), Array("z", 1, "output")
        for segments in (
            (Segment((length,), (Access(x, 0, (1,)),)),),
            tuple(Segment((), (Access(x, k),)) for k in range(length)),
            (*[Segment((), (Access(x, k),)) for k in range(length - 1)], Segment((), (xs[-1],))),
        ):
            code = build(one_loop((), [Reduce(row, segments)], [(0, Access(z))], x, z))
            memory = {x: xs[:], z: [0.0]}
            code.bind(memory)
            expected, got = outcome(row.value, *xs), outcome(code)
            assert got is (expected if isinstance(expected, type) else None)
            assert isinstance(expected, type) or same(memory[z][0], expected), (row, xs, code.source)


@pytest.mark.parametrize("places", [(0, 1, 2, 3, 4), (9, 7, 5, 3, 1), (5, 0, 1, 2, 3, 8), (0, 1, 3, 6, 7, 9), (2,) * 5])
def test_inputs_one_by_one(places):
    x, z = Array("x", 10, "input"), Array("z", 2, "output")
    steps = [
        Reduce(ops.sum, tuple(Segment((), (Access(x, k), Access(x, 9 - k))) for k in places)),
        Reduce(ops.max, tuple(Segment((), (Access(x, k),)) for k in places)),
    ]
    check(one_loop((), steps, [(0, Access(z, 0)), (1, Access(z, 1))], x, z))


@pytest.mark.parametrize("row", [ops.sum, ops.max])
def test_thousands_of_inputs_one_by_one(row):
    r = random.Random(7)
    x, z = Array("x", 10, "input"), Array("z", 9, "output")
    inputs = [Access(x, r.randrange(10), (0,)) if r.random() < 0.9 else r.uniform(-1, 1) for _ in range(5000)]
    segments = [Segment((), (x, 0.5) if row is ops.sum and k % 3 else (x,)) for k, x in enumerate(inputs)]
    segments.insert(2500, Segment((8,), (Access(x, 0, (0, 1)),)))
    segments.append(Segment((), (Access(x, 0, (1,)),)))
    check(one_loop((9,), [Reduce(row, tuple(segments))], [(0, of(z, 1))], x, z))


def test_of_no_inputs():
    z = Array("z", 2, "output")
    steps = [Reduce(ops.sum, ()), Reduce(ops.prod, ())]
    check(one_loop((), steps, [(0, Access(z, 0)), (1, Access(z, 1))], z))


def test_both_sides_of_a_where_are_computed():
    x, z = Array("x", 3, "input"), Array("z", 3, "output")
    steps = [
        Apply(ops.less, (0.0, Access(x, 0, (1,)))),
        Apply(ops.div, (1.0, Access(x, 0, (1,)))),
        Apply(ops.select, (Ref(0), Ref(1), 0.0)),
    ]
    program = one_loop((3,), steps, [(2, Access(z, 0, (1,)))], x, z)
    check(program)
    code = build(program)
    code.bind({x: [1.0, 0.0, 2.0], z: [0.0] * 3})
    with pytest.raises(ZeroDivisionError):
        code()


# Every shape of access.


def product_sum(dims, segment, a, b, base=(0, 0), more=()):
    """Σ a·b over the segment, with the strides a and b, for each iteration; the places that they reach are made."""

    def array(name, strides, base):
        spans = [k * (extent - 1) for k, extent in zip(strides, dims + segment, strict=True)]
        low = min(0, base + sum(s for s in spans if s < 0))
        reached, pitch = base - low + sum(s for s in spans if s > 0) + 1, max(1, *map(abs, strides))
        return Access(Array(name, -(-reached // pitch) * pitch, "leaf"), base - low, strides)  # whole rows

    x, y, z = array("W", a, base[0]), array("x", b, base[1]), Array("z", size(dims), "output")
    natural = tuple(size(dims[d + 1 :]) for d in range(len(dims)))
    steps = [Reduce(ops.sum, (Segment(segment, (x, y)), *more))]
    return one_loop(dims, steps, [(0, Access(z, 0, natural))], x.array, y.array, z)


SHAPES = {
    "rows": ((9,), (10,), (10, 1), (0, 1)),
    "columns": ((9,), (10,), (1, 9), (0, 1)),
    "reversed": ((9,), (10,), (10, -1), (0, 1)),
    "all reversed": ((9,), (10,), (-10, -1), (1, -1)),
    "every other": ((9,), (10,), (20, 2), (0, 3)),
    "same for all": ((9,), (10,), (0, 1), (0, 1)),
    "stride 0 in the segment": ((9,), (10,), (1, 0), (0, 1)),
    "nothing varies": ((9,), (10,), (0, 0), (0, 0)),
    "convolution": ((8, 8), (3, 3), (0, 0, 3, 1), (10, 1, 10, 1)),
    "convolution in one dimension": ((8,), (5,), (0, 1), (1, 1)),
    "image turned": ((8, 8), (3, 3), (0, 0, 3, 1), (-10, 1, -10, 1)),
    "matrix product": ((9, 8), (7,), (7, 0, 1), (0, 1, 8)),
    "matrix product, transposed": ((9, 8), (7,), (7, 0, 1), (0, 7, 1)),
    "short inner loop": ((20, 2), (5,), (5, 0, 1), (0, 5, 1)),
    "short rows": ((9,), (2,), (2, 1), (0, 1)),
    "extents of 1": ((1, 9, 1), (1, 5, 1), (3, 5, 7, 9, 1, 2), (0, 0, 0, 0, 1, 0)),
    "three deep": ((3, 4, 8), (5,), (160, 40, 5, 1), (0, 5, 0, 1)),
    "one run in two": ((9,), (4, 5), (20, 5, 1), (0, 5, 1)),
    "no dims": ((), (12,), (1,), (-1,)),
    "long columns of rows": ((12,), (6,), (1, 12), (0, 2)),
    "parts of rows": ((3, 9), (4,), (20, 1, 1), (0, 0, 1)),
    "windows that reach into the next row": ((3, 9), (14,), (20, 1, 1), (0, 0, 1)),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("base", [(0, 0), (3, 2)])
def test_shapes_of_a_sum_of_products(shape, base):
    check(product_sum(*shape, base))


@pytest.mark.parametrize("dims", [(), (9,), (4, 9)])
def test_segments_add_up_in_order(dims):
    c = Array("c", 4, "leaf")
    more = (
        Segment((), (2.0, Access(c, 1, (0,) * len(dims)))),
        Segment((4,), (Access(c, 0, (*(0,) * len(dims), 1)),)),
        Segment((4,), (3.0, Access(c, 3, (*(0,) * len(dims), -1)))),
        Segment((3, 0), (1.0,)),
        Segment((4,), (1.5,)),
        Segment((2,), (0.5, 0.25)),
    )
    strides = (*(size(dims[d + 1 :]) * 5 for d in range(len(dims))), 1)
    program = product_sum(dims, (5,), strides, (*(0,) * len(dims), 1), more=more)
    program.arrays.append(c)
    check(program)


@pytest.mark.parametrize("dims", [(9,), (3, 9), (9, 2)])
@pytest.mark.parametrize("varies", ["everywhere", "inner", "outer", "segment", "nowhere"])
@pytest.mark.parametrize("length", [5, 3])
def test_tables(dims, varies, length):
    r = random.Random(3)
    x, y, z = Array("x", 30, "input"), Array("y", 30, "leaf"), Array("z", size(dims), "output")
    m, n = size(dims), dims[-1]
    natural = tuple(size(dims[d + 1 :]) for d in range(len(dims)))
    line = r.choices(range(30), k=length)

    def cell(k):
        if varies == "segment":
            return line
        seed = {"everywhere": k, "inner": k % n, "outer": k // n, "nowhere": 0}[varies]
        return random.Random(seed).choices(range(30), k=length)

    cells = [cell(k) for k in range(m)]
    singles = tuple(c[0] for c in cells)
    rows = tuple(k for c in cells for k in c)
    steps = [
        Apply(ops.mul, (Access(x, table=singles), Access(x, 0, natural))),
        Reduce(ops.sum, (Segment((length,), (Access(y, table=rows), Access(x, 0, (*[0] * len(dims), 1)))),)),
        Apply(ops.add, (Ref(0), Ref(1))),
        Reduce(ops.max, (Segment((length,), (Access(y, table=rows),)), Segment((), (Ref(2),)))),
    ]
    order = list(range(m))
    r.shuffle(order)
    check(one_loop(dims, steps, [(3, Access(z, table=tuple(order)))], x, y, z))


@pytest.mark.parametrize(
    "base, strides", [(0, (9, 1)), (2, (11, 1)), (0, (1, 4)), (8, (9, -1)), (35, (-9, -1)), (1, (20, 2))]
)
def test_places_of_results(base, strides):
    x, z, w = Array("x", 36, "input"), Array("z", 100, "value"), Array("w", 100, "output")
    negate = Loop((4, 9), [Apply(ops.neg, (Access(x, 0, (9, 1)),))], [(0, Access(z, base, strides))])
    again = Loop((4, 9), [Apply(ops.mul, (Access(z, base, strides), 3.0))], [(0, Access(w, base, strides))])
    check(Program([x, z, w], [negate, again]))


def test_rows_longer_than_the_loop_that_writes_them():
    x, z, w = Array("x", 96, "input"), Array("z", 96, "value"), Array("w", 3, "output")
    first = Loop((3, 4, 8), [Apply(ops.neg, (Access(x, 0, (32, 8, 1)),))], [(0, Access(z, 0, (32, 8, 1)))])
    second = Loop((3,), [dot(((32,), of(z, 32, 1), of(x, 0, 1)))], [(0, of(w, 1))])
    check(Program([x, z, w], [first, second]))


def test_one_result_for_all_and_several_results():
    x, y, z = Array("x", 5, "input"), Array("y", 12, "output"), Array("z", 24, "output")
    steps = [Apply(ops.add, (Access(x, 1, (0, 0)), 1.0)), Apply(ops.mul, (Access(x, 2, (1, 0)), Ref(0)))]
    stores = [(0, Access(y, 0, (4, 1))), (1, Access(z, 0, (4, 1))), (0, Access(z, 12, (4, 1)))]
    check(one_loop((3, 4), steps, stores, x, y, z))


def test_results_wanted_twice_and_many_of_them():
    x, z = Array("x", 12, "input"), Array("z", 96, "output")
    steps = [Apply(ops.mul, (Access(x, 0, (1,)), 0.5))]
    for k in range(1, 60):
        steps.append(Apply((ops.add, ops.tanh, ops.mul)[k % 3], (Ref(k - 1), Ref(k // 2))[: 2 - (k % 3 == 1)]))
    check(one_loop((12,), steps, [(59, Access(z, 0, (1,)))], x, z))
    check(one_loop((12,), steps, [(7 * k, Access(z, 12 * k, (1,))) for k in range(8)], x, z))
    single = [Apply(s.op, tuple(Access(x, 3) if isinstance(i, Access) else i for i in s.inputs)) for s in steps]
    check(one_loop((), single, [(59, Access(z, 5)), (7, Access(z, 6))], x, z))


def test_a_long_chain_of_steps():
    x, z = Array("x", 1, "input"), Array("z", 1, "output")
    steps = [Apply(ops.add, (Access(x), 1.0))]
    steps += [Apply(ops.mul if k % 2 else ops.sub, (0.5, Ref(k))) for k in range(2000)]
    check(one_loop((), steps, [(2000, Access(z))], x, z))


def test_constants_have_every_home():
    r = random.Random(4)
    c = [Array(f"c{k}", n, "constant", values=tuple(r.choices(EDGES[:7], k=n))) for k, n in enumerate((1, 3, 40, 40))]
    x, z = Array("x", 8, "input"), Array("z", 5, "output")
    steps = [
        Reduce(ops.sum, (Segment((8,), (Access(c[2], 0, (8, 1)), Access(x, 0, (0, 1)))),)),
        Apply(ops.mul, (Access(c[0], 0, (0,)), Ref(0))),
        Apply(ops.sub, (Ref(1), Access(c[1], 2, (0,)))),
        Apply(ops.add, (Ref(2), Access(c[3], 7, (-1,)))),
    ]
    check(one_loop((5,), steps, [(3, Access(z, 0, (1,)))], *c, x, z))


# Leaves and states in place.


def test_leaves_and_states_change_in_place():
    w, v, g, z = Array("w", 60, "leaf"), Array("v", 60, "state"), Array("g", 5, "input"), Array("z", 5, "output")
    x = Array("x", 12, "input")
    at = (12, 1)
    dot = Loop(
        (5,), [Reduce(ops.sum, (Segment((12,), (Access(w, 0, at), Access(x, 0, (0, 1)))),))], [(0, Access(z, 0, (1,)))]
    )
    update = Loop(
        (5, 12),
        [
            Apply(ops.mul, (Access(g, 0, (1, 0)), Access(x, 0, (0, 1)))),
            Apply(ops.mul, (0.9, Access(v, 0, at))),
            Apply(ops.add, (Ref(0), Ref(1))),
            Apply(ops.mul, (0.1, Ref(2))),
            Apply(ops.sub, (Access(w, 0, at), Ref(3))),
        ],
        [(2, Access(v, 0, at)), (4, Access(w, 0, at))],
    )
    check(Program([w, v, g, x, z], [dot, update]))


@pytest.mark.parametrize("dims", [(6,), (12,), (2, 3)])
def test_a_result_is_stored_after_the_old_number_was_read(dims):
    w, v = Array("w", size(dims), "leaf"), Array("v", size(dims), "leaf")
    at = tuple(size(dims[d + 1 :]) for d in range(len(dims)))
    steps = [Apply(ops.mul, (2.0, Access(w, 0, at))), Apply(ops.sub, (Access(w, 0, at), Access(v, 0, at)))]
    check(one_loop(dims, steps, [(0, Access(w, 0, at)), (1, Access(v, 0, at))], w, v))


def test_single_numbers_change_places():
    for n in (2, 100):
        w = Array("w", n, "leaf")
        steps = [Apply(ops.identity, (Access(w, 0),)), Apply(ops.neg, (Access(w, 1),))]
        check(one_loop((), steps, [(0, Access(w, 1)), (1, Access(w, 0))], w))


@pytest.mark.parametrize("dims", [(12,), (3, 12)])
def test_an_early_step_that_is_computed_late_reads_the_old_number(dims):
    w, z = Array("w", size(dims), "leaf"), Array("z", size(dims), "output")
    at = tuple(size(dims[d + 1 :]) for d in range(len(dims)))
    steps = [Apply(ops.mul, (2.0, Access(w, 0, at))), Apply(ops.neg, (Access(w, 0, at),)), Apply(ops.tanh, (Ref(0),))]
    check(one_loop(dims, steps, [(1, Access(w, 0, at)), (2, Access(z, 0, at))], w, z))


def test_numbers_change_places_without_being_changed():
    w = Array("w", 2, "leaf")
    steps = [Apply(ops.identity, (Access(w, 0),)), Apply(ops.identity, (Access(w, 1),))]
    check(one_loop((), steps, [(0, Access(w, 1)), (1, Access(w, 0))], w))


@pytest.mark.parametrize("dims", [(12,), (3, 12)])
def test_two_arrays_with_one_result_change_apart(dims):
    x, w, z = Array("x", 36, "input"), Array("w", size(dims), "leaf"), Array("z", size(dims), "output")
    at = tuple(size(dims[d + 1 :]) for d in range(len(dims)))
    first = Loop(dims, [Apply(ops.neg, (Access(x, 0, at),))], [(0, Access(w, 0, at)), (0, Access(z, 0, at))])
    second = Loop((5,), [Apply(ops.mul, (2.0, Access(w, 2, (1,))))], [(0, Access(w, 2, (1,)))])
    check(Program([x, w, z], [first, second]))


@pytest.mark.parametrize("dims", [(12,), (3, 12)])
def test_of_what_is_stored_in_one_place_the_last_stays(dims):
    x, z = Array("x", 36, "input"), Array("z", 3, "output")
    at = tuple(size(dims[d + 1 :]) for d in range(len(dims)))
    place = Access(z, 1 if len(dims) == 1 else 0, (*[1] * (len(dims) - 1), 0))
    check(Program([x, z], [Loop(dims, [Apply(ops.neg, (Access(x, 0, at),))], [(0, place)])]))


def test_lists_are_as_they_were_if_python_raises():
    w, x = Array("w", 12, "leaf"), Array("x", 12, "input")
    steps = [Apply(ops.div, (Access(w, 0, (1,)), Access(x, 0, (1,))))]
    first = Loop((12,), [Apply(ops.mul, (2.0, Access(w, 0, (1,))))], [(0, Access(w, 0, (1,)))])
    code = build(Program([w, x], [first, Loop((12,), steps, [(0, Access(w, 0, (1,)))])]))
    memory = {w: [1.0] * 12, x: [0.0] * 12}
    code.bind(memory)
    with pytest.raises(ZeroDivisionError):
        code()
    assert memory[w] == [1.0] * 12


# Samples.


def network(dims=(12, 9, 4)):
    """A training step: two layers, their gradients summed over the samples, a state, and outputs of both kinds."""
    m, n, k = dims
    x, y = Array("x", m, "input", True), Array("y", k, "input", True)
    w, u, v = Array("W", n * m, "leaf"), Array("U", k * n, "leaf"), Array("V", n * m, "state")
    count, step = Array("count", 1, "input"), Array("step", 1, "input")
    h, e, d = Array("h", n, "value", True), Array("e", k, "output", True), Array("d", n, "value", True)
    loss = Array("loss", 1, "output")
    wx, uh, at = (m, 1), (n, 1), (1,)
    loops = [
        Loop((n,), [dot(((m,), of(w, *wx), of(x, 0, 1))), Apply(ops.tanh, (Ref(0),))], [(1, of(h, *at))], True),
        Loop(
            (k,),
            [dot(((n,), of(u, *uh), of(h, 0, 1))), Apply(ops.sub, (Ref(0), of(y, *at)))],
            [(1, of(e, *at))],
            True,
        ),
        Loop(
            (n,),
            [
                dot(((k,), of(u, 1, n), of(e, 0, 1))),
                Apply(ops.mul, (of(h, *at), of(h, *at))),
                Apply(ops.sub, (1.0, Ref(1))),
                Apply(ops.mul, (Ref(0), Ref(2))),
            ],
            [(3, of(d, *at))],
            True,
        ),
        Loop(
            (),
            [dot(((k,), of(e, *at), of(e, *at), True), ((), of(step), of(count))), Apply(ops.div, (Ref(0), of(count)))],
            [(1, of(loss))],
        ),
        Loop(
            (n, m),
            [
                dot(((), of(d, 1, 0), of(x, 0, 1), True)),
                Apply(ops.mul, (0.9, of(v, *wx))),
                Apply(ops.add, (Ref(0), Ref(1))),
                Apply(ops.mul, (-0.01, Ref(2))),
                Apply(ops.add, (of(w, *wx), Ref(3))),
            ],
            [(2, of(v, *wx)), (4, of(w, *wx))],
        ),
        Loop(
            (k, n),
            [
                dot(((), of(e, 1, 0), of(h, 0, 1), True), ((), 0.1, True)),
                Apply(ops.mul, (-0.01, Ref(0))),
                Apply(ops.add, (of(u, *uh), Ref(1))),
            ],
            [(2, of(u, *uh))],
        ),
    ]
    return Program([x, y, w, u, v, count, step, h, e, d, loss], loops)


@pytest.mark.parametrize("n, capacity", [(1, 1), (1, 4), (3, 4), (4, 4)])
def test_samples(n, capacity):
    program = network()
    memory = numbers(program, capacity)
    memory[program.array("e")][:] = [math.nan] * len(memory[program.array("e")])
    before = {a: xs[:] for a, xs in memory.items()}
    code = build(program, capacity)
    code.bind(memory)
    code(n)
    interpret(program, before, n)
    for a in memory:
        assert all_same(memory[a], before[a]), a


@pytest.mark.parametrize("segment", [(), (4,), (2, 3)])
@pytest.mark.parametrize("dims", [(), (3,), (2, 9)])
def test_sums_over_samples(dims, segment):
    """Of per-sample arrays and others, over places and samples at once; h is first made for each sample."""
    x, w = Array("x", 60, "input", True), Array("w", 60, "leaf")
    h, z = Array("h", 60, "value", True), Array("z", size(dims), "output")
    natural = tuple(size(dims[d + 1 :]) for d in range(len(dims)))
    strides = (*natural, *(tuple(size(segment[d + 1 :]) * 2 for d in range(len(segment)))))
    flat = (0,) * len(dims) + strides[len(dims) :]
    table = tuple(random.Random(5).choices(range(60), k=size(dims) * size(segment)))
    steps = [
        Reduce(
            ops.sum,
            (
                Segment(segment, (Access(x, 1, strides), Access(h, 0, strides)), True),
                Segment(segment, (Access(w, 2, strides), Access(h, 0, flat)), True),
                Segment(segment, (Access(h, table=table), 2.0), True),
                Segment(segment, (Access(w, 0, strides),), True),
            ),
        )
    ]
    first = Loop((60,), [Apply(ops.mul, (Access(x, 0, (1,)), Access(w, 59, (-1,))))], [(0, Access(h, 0, (1,)))], True)
    program = Program([x, w, h, z], [first, Loop(dims, steps, [(0, Access(z, 0, natural))])])
    check(program, 3)
    check(program, 1, 1)
    check(program, 1, 5)


def test_samples_in_two_phases():
    """Normalized over the batch: what a sample computed first is needed again later."""
    x, h, p = Array("x", 3, "input", True), Array("h", 3, "value", True), Array("p", 1, "value", True)
    mean, z, w = Array("mean", 3, "value"), Array("z", 6, "output", True), Array("w", 2, "leaf", True)
    q, t, u = Array("q", 7, "value", True), Array("t", 1, "value"), Array("u", 1, "output", True)
    last = Array("last", 1, "output")
    at = (1,)
    loops = [
        Loop((3,), [Apply(ops.exp, (Access(x, 0, at),))], [(0, Access(h, 0, at))], True),
        Loop((), [Reduce(ops.sum, (Segment((3,), (Access(h, 0, at),)),))], [(0, Access(p))], True),
        Loop((), [Apply(ops.add, (Access(w, 0), Access(p)))], [(0, Access(w, 1))], True),
        Loop(
            (3,),
            [Reduce(ops.sum, (Segment((), (Access(h, 0, at), Access(p, 0, (0,))), True),))],
            [(0, Access(mean, 0, at))],
        ),
        Loop((3,), [Apply(ops.sub, (Access(h, 0, at), Access(mean, 0, at)))], [(0, Access(z, 0, at))], True),
        Loop((3,), [Apply(ops.mul, (Access(w, 1, (0,)), Access(p, 0, (0,))))], [(0, Access(z, 3, at))], True),
        Loop((3,), [Apply(ops.neg, (Access(h, 2, (-1,)),))], [(0, Access(q, 0, at))], True),
        Loop((3,), [Apply(ops.neg, (Access(x, 0, at),))], [(0, Access(q, 3, at))], True),
        Loop((), [Reduce(ops.sum, (Segment((6,), (Access(q, 0, at),), True),))], [(0, Access(t))]),
        Loop((), [Apply(ops.add, (Access(t), Access(h, 1)))], [(0, Access(q, 6))], True),
        Loop(
            (),
            [Reduce(ops.sum, (Segment((7,), (Access(q, 0, at),)), Segment((), (Access(t),))))],
            [(0, Access(u))],
            True,
        ),
        Loop((), [dot(((7,), of(q, 1), of(q, 1), True), ((), of(u), True))], [(0, of(last))]),
    ]
    program = Program([x, h, p, mean, z, w, q, t, u, last], loops)
    check(program, 4)
    check(program, 1)
    check(program, 1, 4)


def test_rows():
    x, w, z = Array("x", 2, "input", True), Array("w", 2, "leaf"), Array("z", 1, "output", True)
    steps = [Reduce(ops.sum, (Segment((2,), (Access(x, 0, (1,)), Access(w, 0, (1,)))),)), Apply(ops.tanh, (Ref(0),))]
    code = build(one_loop((), steps, [(1, Access(z))], x, w, z, per_sample=True))
    code.bind({x: [0.0, 0.0], w: [0.5, -2.0], z: [0.0]})
    data = [k / 7 for k in range(14)]
    results = [0.0] * 7
    code.rows({x: data}, {z: results}, 7)
    assert all_same(results, [math.tanh(0.5 * a - 2.0 * b) for a, b in zip(data[::2], data[1::2], strict=True)])
    code.rows({x: []}, {z: []}, 0)
    with pytest.raises(ValueError, match="expected 7 rows of 2 in data of x, got 13"):
        code.rows({x: data[1:]}, {z: results}, 7)
    with pytest.raises(ValueError, match="expected 7 rows of 1 in results of z, got 3"):
        code.rows({x: data}, {z: results[:3]}, 7)


def test_rows_of_a_program_that_sums_go_in_blocks():
    x, total, z = Array("x", 1, "input", True), Array("total", 1, "value"), Array("z", 1, "output", True)
    sums = Loop((), [Reduce(ops.sum, (Segment((), (Access(x),), True),))], [(0, Access(total))])
    share = Loop((), [Apply(ops.div, (Access(x), Access(total)))], [(0, Access(z))], True)
    code = build(Program([x, total, z], [sums, share]), 2)
    code.bind({x: [0.0] * 2, z: [0.0] * 2})
    results = [0.0] * 5
    code.rows({x: [1.0, 3.0, 2.0, 6.0, 5.0]}, {z: results}, 5)
    assert results == [0.25, 0.75, 0.25, 0.75, 1.0]


@pytest.mark.parametrize("batch", [1, 3])
def test_epoch(batch):
    program = network()
    r = random.Random(6)
    x, y, loss = program.array("x"), program.array("y"), program.array("loss")
    data = {a: [[r.uniform(-1, 1) for _ in range(a.size)] for _ in range(10)] for a in (x, y)}
    order = r.sample(range(10), 10)
    code = build(program, batch)
    memory = numbers(program, batch)
    expected = {a: xs[:] for a, xs in memory.items() if not a.per_sample}
    totals, expected_total = [100.0], 100.0
    code.bind(memory)
    code.epoch(data, order, batch, 2, 9, count=program.array("count"), step=program.array("step"), first_step=5.0,
               totals={loss: totals})  # fmt: skip
    for k, at in enumerate(range(2, 9, batch)):
        picked = order[at : min(at + batch, 9)]
        call = {a: [v for i in picked for v in data[a][i]] for a in (x, y)}
        call |= {a: xs for a, xs in expected.items() if a.role in ("leaf", "state")}
        call |= {program.array("count"): [float(len(picked))], program.array("step"): [5.0 + k]}
        interpret(program, call, len(picked))
        expected_total += call[loss][0]
    for a in program.arrays:
        if a.role in ("leaf", "state"):
            assert all_same(memory[a], expected[a]), a
    assert same(totals[0], expected_total)
    before = memory[program.array("W")][:]
    code.epoch(data, order, batch, 4, 4)
    assert memory[program.array("W")] == before


# Random programs.

TOTAL = [ops.add, ops.sub, ops.mul, ops.neg, ops.identity, ops.relu, ops.tanh, ops.abs, ops.less, ops.equal, ops.select,
         ops.clip, ops.softplus, ops.sigmoid, ops.less_equal, ops.atan]  # fmt: skip
INPUTS = {"where": 3, "clamp": 3}


@st.composite
def programs(draw):
    """Arrays, and loops that read what is there and write new arrays, or leaves in place."""

    def chance(percent):
        return draw(st.integers(0, 99)) < percent

    def some(xs):
        return draw(st.sampled_from(xs))

    arrays = [Array("x", 24, "input", True), Array("a", 30, "input"), Array("w", 24, "leaf"), Array("b", 1, "leaf"),
              Array("c", 12, "constant", values=tuple(k / 5 - 1 for k in range(12)))]  # fmt: skip
    written: list[Array] = []
    loops: list[Loop] = []

    def access(array, dims):
        if chance(25):
            return Access(array, table=tuple(draw(st.lists(st.integers(0, array.size - 1), min_size=m, max_size=m)))) \
                if (m := size(dims)) <= 60 else Access(array, 0, (0,) * len(dims))  # fmt: skip
        strides, low, high = [], 0, 0
        for d in range(len(dims)):
            stride = some([0, 1, -1, 2, size(dims[d + 1 :]), some([3, -4, 6])])
            span = stride * (dims[d] - 1)
            if high - low + abs(span) >= array.size:
                stride = span = 0
            strides.append(stride)
            low, high = min(low, low + span), max(high, high + span)
        return Access(array, draw(st.integers(-low, array.size - 1 - high)), tuple(strides))

    def operand(there, dims, k):
        if k and chance(50):
            return Ref(draw(st.integers(max(0, k - 4), k - 1)))
        return draw(st.floats(-2, 2)) if chance(10) else access(some(there), dims)

    def segment(there, dims, k, row, per_sample):
        over = row is ops.sum and not per_sample and chance(40)
        inner = draw(st.lists(st.integers(1, 5), max_size=2))
        usable = there + [a for a in arrays if a.per_sample and a not in there and over]
        factors = [operand(usable, (*dims, *inner), k) for _ in range(2 if row is ops.sum and chance(60) else 1)]
        return Segment((*inner,), (*factors,), over)

    def store(array, dims):
        """A different place for each iteration."""
        kind = some(["natural", "natural", "padded", "turned", "reversed", "table"])
        natural = tuple(size(dims[d + 1 :]) for d in range(len(dims)))
        if kind == "padded":
            return Access(array, 1, tuple(2 * k for k in natural))
        if kind == "turned":
            return Access(array, 0, tuple(size(dims[:d]) for d in range(len(dims))))
        if kind == "reversed":
            return Access(array, size(dims) - 1, tuple(-k for k in natural))
        if kind == "table":
            return Access(array, table=tuple(draw(st.permutations(range(array.size)))[: size(dims)]))
        return Access(array, 0, natural)

    for number in range(draw(st.integers(1, 4))):
        dims = (*draw(st.lists(st.sampled_from([1, 2, 3, 4, 8, 9]), max_size=2)),)
        per_sample = chance(50)
        there = [a for a in arrays if per_sample or not a.per_sample]
        leaf = arrays[2]
        in_place = not per_sample and chance(25) and size(dims) <= leaf.size
        place = Access(leaf, 0, tuple(size(dims[d + 1 :]) for d in range(len(dims))))
        there = [a for a in there if a is not leaf or not in_place]
        steps: list[Apply | Reduce] = [Apply(ops.mul, (0.5, place))] if in_place else []
        for k in range(len(steps), draw(st.integers(1, 7)) + len(steps)):
            if chance(35):
                row = some([ops.sum, ops.sum, ops.max, ops.min, ops.prod])
                parts = draw(st.integers(1, 3))
                steps.append(Reduce(row, tuple(segment(there, dims, k, row, per_sample) for _ in range(parts))))
            else:
                row = some(TOTAL)
                many = INPUTS.get(row.name) or row.form.count("{}")
                steps.append(Apply(row, tuple(operand(there, dims, k) for _ in range(many))))
        stores = [(draw(st.integers(0, len(steps) - 1)), place)] if in_place else []
        for k in {len(steps) - 1, *draw(st.lists(st.integers(0, len(steps) - 1), max_size=2))}:
            role = some(["value", "output"])
            natural = chance(50)
            length = size(dims) if natural else 2 * size(dims) + 3
            array = Array(f"z{number}{k}", length, role, per_sample)
            at = (
                Access(array, 0, tuple(size(dims[d + 1 :]) for d in range(len(dims))))
                if natural
                else store(array, dims)
            )
            stores.append((k, at))
            written.append(array)
        loops.append(Loop(dims, steps, stores, per_sample))
        arrays += [place.array for _, place in stores if place.array not in arrays]
    return Program(arrays, loops)


@settings(max_examples=150, deadline=None)
@given(programs(), st.integers(0, 10**6))
def test_random_programs(program, seed):
    for n, capacity in ((1, 1), (1, 3), (3, 3)):
        memory = numbers(program, n, seed)
        for a in memory:
            if a.role == "output":  # whatever is not written stays unknown
                memory[a] = [math.nan] * len(memory[a])
        check(program, n, capacity, memory=memory)


# The code object.


def quotient():
    x, z = Array("x", 9, "input"), Array("z", 9, "output")
    return one_loop((9,), [Apply(ops.div, (1.0, Access(x, 0, (1,))))], [(0, Access(z, 0, (1,)))], x, z), x, z


def test_a_traceback_shows_the_line():
    program, x, z = quotient()
    code = build(program)
    code.bind({x: [0.0] * 9, z: [0.0] * 9})
    with pytest.raises(ZeroDivisionError) as caught:
        code()
    assert "z = [1.0 / x_i for x_i in x]" in "".join(traceback.format_exception(caught.value))
    assert set(code.times) == {"emit", "compile"} and all(t >= 0 for t in code.times.values())


def test_the_source_leaves_linecache_with_the_code():
    def sources():
        return {name for name in linecache.cache if name.startswith("<milligrad")}

    before = sources()
    code = build(quotient()[0])
    (name,) = sources() - before
    linecache.checkcache()
    assert "".join(linecache.getlines(name)) == code.source
    del code
    assert sources() == before


def test_the_source_is_what_one_would_write():
    source = build(network()).source
    assert "h = [tanh(sum(map(mul, W_i, x))) for W_i in W]" in source
    assert "for U_i, h_i in zip(zip(*U), h)]" in source
    assert "V_i = [d_i * x_j + 0.9 * V_ij for x_j, V_ij in zip(x, V[i])]" in source
    assert "W[i] = [W_ij + -0.01 * V_ij for V_ij, W_ij in zip(V_i, W[i])]" in source


def test_names_that_mean_something_else():
    names = ["for", "sum", "x y", "1", "i", "n", "x", "x", "x_list", "mul", "W_i", "t1"]
    arrays = [Array(name, 9, "input") for name in names]
    z = Array("exp", 9, "output")
    steps = [Apply(ops.exp, (Access(arrays[0], 0, (1,)),))]
    steps += [Apply(ops.add, (Ref(k), Access(a, 0, (1,)))) for k, a in enumerate(arrays[1:])]
    steps.append(Reduce(ops.sum, (Segment((9,), (Access(arrays[1], 0, (0, 1)), Access(arrays[9], 0, (0, 1)))),)))
    steps.append(Apply(ops.add, (Ref(len(steps) - 2), Ref(len(steps) - 1))))
    check(one_loop((9,), steps, [(len(steps) - 1, Access(z, 0, (1,)))], *arrays, z))


def test_what_cannot_be_bound_or_run():
    program, x, z = quotient()
    code = build(program)
    with pytest.raises(ValueError, match="bind the lists"):
        code()
    with pytest.raises(ValueError, match="got none for z"):
        code.bind({x: [0.0] * 9})
    with pytest.raises(ValueError, match="expected 9 numbers for x, got 8"):
        code.bind({x: [0.0] * 8, z: [0.0] * 9})
    code.bind({x: [1.0] * 9, z: [0.0] * 9})
    with pytest.raises(ValueError, match="expected 1 to 1 samples at once, got 2"):
        code(2)
    training = network()
    memory = numbers(training, 2)
    code = build(training, 4)
    code.bind(memory)
    code(2)
    with pytest.raises(ValueError, match="expected 3 rows"):
        code(3)
    memory[training.array("e")].pop()
    with pytest.raises(ValueError, match="expected 4 numbers for each sample for e, got 7"):
        code.bind(memory)


def test_samples_must_be_meant():
    x, y, z = Array("x", 9, "input", True), Array("y", 9, "input"), Array("z", 9, "output")
    at = Access(z, 0, (1,))
    with pytest.raises(ValueError, match="used in a loop that is not"):
        build(one_loop((9,), [Apply(ops.neg, (Access(x, 0, (1,)),))], [(0, at)], x, z))
    with pytest.raises(ValueError, match="written in a loop that is"):
        build(one_loop((9,), [Apply(ops.neg, (Access(y, 0, (1,)),))], [(0, at)], y, z, per_sample=True))
    over = Reduce(ops.sum, (Segment((), (Access(x, 0, (1,)),), True),))
    e = Array("e", 9, "output", True)
    with pytest.raises(ValueError, match="over samples"):
        build(one_loop((9,), [over], [(0, Access(e, 0, (1,)))], x, e, per_sample=True))
