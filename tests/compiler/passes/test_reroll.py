"""Pass 3 on hand-made graphs: the loops that must come back are written out, with extents, places and strides."""

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import ops
from milligrad.compiler.passes.reroll import Affine, Layout, describe, nest, pieces, reroll
from milligrad.compiler.passes.simplify import simplify
from milligrad.compiler.program import Access, Apply, Array, Reduce, Ref, Segment, interpret
from milligrad.compiler.trace import Trace, total
from milligrad.engine import Value, grad
from tests.compiler.graphs import assert_close, eager, functions, interpreted, programs


class Rolled:
    """The program of f(**lists of the given sizes): its arrays by name, and its loops."""

    def __init__(self, f, outputs=None, per_sample=(), **sizes):
        trace = Trace()
        given_ = [trace.input(name, n) for name, n in sizes.items()]
        for xs in given_:
            for x in xs:
                x.requires_grad = True
        with trace.running():
            made = f(*given_)
        self.inputs = {name: Array(name, n, "input", name in per_sample) for name, n in sizes.items()}
        made = made if isinstance(made, dict) else {"z": made}
        flat = [x for xs in made.values() for x in xs]
        layouts, at = [], 0
        self.outputs = {name: Array(name, len(xs), "output", name in per_sample) for name, xs in made.items()}
        for array in self.outputs.values():
            layouts.append(Layout(array, range(at, at + array.size)))
            at += array.size
        graph = simplify(trace.tape, flat)
        self.program = reroll(graph, [Layout(self.inputs[k], xs) for k, xs in zip(sizes, given_)], layouts)
        self.loops = self.program.loops

    def __getitem__(self, name):
        return self.inputs.get(name) or self.outputs[name]

    def only_loop(self):
        (loop,) = self.loops
        return loop

    def __call__(self, **lists):
        """The outputs, as `interpret` finds them; of one output, its numbers."""
        memory = {self.inputs[name]: list(map(float, xs)) for name, xs in lists.items()}
        interpret(self.program, memory)
        found = [memory[a] for a in self.outputs.values()]
        return found[0] if len(found) == 1 else found


def store(loop):
    """Where the loop's only step is stored."""
    ((step, place),) = loop.stores
    assert step == 0
    return place


# Layers.


def rows(w, n):
    return [w[i : i + n] for i in range(0, len(w), n)]


def test_a_dense_layer_is_one_nest():
    r = Rolled(lambda w, x, b: [ops.dot(row, x) + bias for row, bias in zip(rows(w, 8), b)], w=40, x=8, b=5)
    loop = r.only_loop()
    dot = Segment((8,), (Access(r["w"], 0, (8, 1)), Access(r["x"], 0, (0, 1))))
    assert loop.dims == (5,) and not loop.per_sample
    assert loop.steps == [Reduce(ops.sum, (dot, Segment((), (Access(r["b"], 0, (1,)),))))]
    assert store(loop) == Access(r["z"], 0, (1,))
    assert r.program.info["groups"] == 1


def test_a_layer_written_as_sums_of_products_is_the_same_nest():
    def layer(w, x, b):
        return [sum(wi * xi for wi, xi in zip(row, x)) + bias for row, bias in zip(rows(w, 8), b)]

    r = Rolled(layer, w=40, x=8, b=5)
    assert r.only_loop().dims == (5,)
    assert [s.dims for s in r.only_loop().steps[0].segments] == [(8,), ()]


def test_the_gradient_of_the_weights_is_an_outer_product():
    r = Rolled(lambda d, x: [di * xi for di in d for xi in x], d=5, x=8)
    loop = r.only_loop()
    assert loop.dims == (5, 8)
    assert loop.steps == [Apply(ops.mul, (Access(r["d"], 0, (1, 0)), Access(r["x"], 0, (0, 1))))]
    assert store(loop) == Access(r["z"], 0, (8, 1))


def test_the_gradient_of_the_inputs_reads_the_weights_across():
    r = Rolled(lambda w, d: [ops.dot(column, d) for column in zip(*rows(w, 8))], w=40, d=5)
    loop = r.only_loop()
    assert loop.dims == (8,)
    assert loop.steps == [Reduce(ops.sum, (Segment((5,), (Access(r["w"], 0, (1, 8)), Access(r["d"], 0, (0, 1)))),))]


def test_a_loss_of_a_layer_and_its_gradients_level_by_level():
    def f(w, x):
        h = [ops.tanh(ops.dot(row, x)) for row in rows(w, 6)]
        loss = ops.sum([y * y for y in h])
        return {"loss": [loss], "gradient": grad(loss, w)}

    r = Rolled(f, w=24, x=6)
    assert [(loop.dims, loop.steps[0].op.name) for loop in r.loops] == [
        ((4,), "sum"),
        ((4,), "tanh"),
        ((4,), "mul"),  # h², for the loss and for tanh'
        ((4,), "add"),  # h + h: ∂loss/∂h
        ((), "sum"),
        ((4,), "sub"),  # 1 - h²
        ((4,), "mul"),
        ((4, 6), "mul"),
    ]
    assert store(r.loops[4]) == Access(r["loss"], 0, ())
    assert store(r.loops[7]) == Access(r["gradient"], 0, (6, 1))


def test_levels_come_one_after_the_other():
    r = Rolled(lambda x: [ops.exp(ops.sin(x[i])) * x[i] for i in range(6)], x=6)
    sin, exp, mul = r.loops
    names = [loop.steps[0].op.name for loop in r.loops]
    assert names == ["sin", "exp", "mul"]
    assert exp.steps == [Apply(ops.exp, (Access(store(sin).array, 0, (1,)),))]
    assert mul.steps == [Apply(ops.mul, (Access(r["x"], 0, (1,)), Access(store(exp).array, 0, (1,))))]


def test_q_dot_k_of_every_head_is_one_group():
    tokens, heads, width = 5, 2, 3
    model = heads * width

    def scores(q, k):
        def vector(x, t, h):
            return x[t * model + h * width : t * model + (h + 1) * width]

        return [
            ops.dot(vector(q, s, h), vector(k, t, h))
            for h in range(heads)
            for s in range(tokens)
            for t in range(tokens)
        ]

    r = Rolled(scores, q=tokens * model, k=tokens * model)
    loop = r.only_loop()
    assert loop.dims == (2, 5, 5)
    q, k = Access(r["q"], 0, (3, 6, 0, 1)), Access(r["k"], 0, (3, 0, 6, 1))
    assert loop.steps == [Reduce(ops.sum, (Segment((3,), (q, k)),))]
    assert store(loop) == Access(r["z"], 0, (25, 5, 1))


def test_a_convolution_is_a_nest_of_two_loops_in_two():
    def conv(x, w):
        return [
            ops.dot([x[(i + a) * 6 + j + b] for a in range(3) for b in range(2)], w) for i in range(4) for j in range(5)
        ]

    r = Rolled(conv, x=36, w=6)
    loop = r.only_loop()
    assert loop.dims == (4, 5)
    image, kernel = Access(r["x"], 0, (6, 1, 6, 1)), Access(r["w"], 0, (0, 0, 2, 1))
    assert loop.steps == [Reduce(ops.sum, (Segment((3, 2), (image, kernel)),))]


def test_sums_of_another_number_of_terms_are_other_groups():
    r = Rolled(lambda x: [ops.logsumexp(x[: t + 1]) for t in range(6)], x=6)
    first, last = r.loops[:5], r.loops[5]
    terms = [[segment.factors[0].base for segment in loop.steps[0].segments] for loop in first]
    assert terms == [[0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]]
    assert last.steps == [Apply(ops.identity, (Access(r["x"], 0, ()),))]
    assert r(x=[0.1, 0.4, -1, 2, 3, 0.5]) == pytest.approx(
        [math.log(sum(math.exp(v) for v in [0.1, 0.4, -1, 2, 3, 0.5][: t + 1])) for t in range(6)], rel=1e-14
    )


# Nests.


@pytest.mark.parametrize(
    "dims, strides",
    [
        ((), ()),
        ((7,), (1,)),
        ((7,), (-3,)),
        ((7,), (0,)),
        ((3, 4), (10, 1)),
        ((3, 4), (1, 10)),
        ((3, 4), (-10, 2)),
        ((3, 4), (0, 1)),
        ((3, 4), (1, 0)),
        ((2, 3, 4), (100, 0, -1)),
        ((2, 3, 4), (0, -7, 0)),
        ((2, 3, 4, 5), (1, 200, -30, 7)),
        ((4, 3, 2, 5), (0, 50, 1, 0)),
    ],
)
def test_the_nest_of_one_sequence_is_found_again(dims, strides):
    expected = places(1000, dims, strides)
    found, (found_strides,) = nest([expected])
    assert places(1000, found, found_strides) == expected
    assert len(found) <= len(dims)


def places(base, dims, strides):
    """base + Σ i_d·stride_d, innermost fastest."""
    found = [base]
    for n, stride in zip(dims, strides):
        found = [p + i * stride for p in found for i in range(n)]
    return found


def test_the_nest_is_the_one_that_all_sequences_share():
    a, b, c = places(0, (2, 3, 4), (12, 4, 1)), places(5, (2, 3, 4), (0, 1, 0)), places(0, (2, 3, 4), (50, 0, -2))
    assert nest([a]) == ((24,), [(1,)])
    assert nest([a, b]) == ((2, 3, 4), [(12, 4, 1), (0, 1, 0)])
    assert nest([a, c]) == ((2, 3, 4), [(12, 4, 1), (50, 0, -2)])
    assert nest([a, a]) == ((24,), [(1,), (1,)])


def test_a_run_that_does_not_repeat_is_no_nest():
    assert nest([[0, 1, 2, 3, 10, 11, 13, 14]]) is None
    assert nest([[0, 1, 2, 10, 11, 12, 20, 21]]) is None
    assert nest([[0, 1, 2, 10, 11, 12, 20, 22, 24]]) is None
    assert nest([[0, 1, 10, 11, 25, 26]]) is None


@given(
    st.lists(st.integers(1, 5), max_size=4),
    st.lists(
        st.tuples(st.integers(0, 9), st.lists(st.integers(-6, 6), min_size=4, max_size=4)), min_size=1, max_size=3
    ),
)
def test_every_affine_sequence_has_a_nest(dims, sequences):
    expected = [places(base, dims, strides) for base, strides in sequences]
    (piece,) = pieces(expected)
    assert (piece.start, piece.members) == (0, math.prod(dims)) == (0, math.prod(piece.dims))
    assert all(isinstance(access, Affine) for access in piece.accesses)
    assert [places(access.base, piece.dims, access.strides) for access in piece.accesses] == expected


@given(
    st.integers(1, 40).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 5), min_size=n, max_size=n), min_size=1, max_size=3)
    )
)
def test_pieces_put_together_are_the_sequences_whatever_they_are(sequences):
    found = [[] for _ in sequences]
    for piece in pieces(sequences):
        assert piece.members == math.prod(piece.dims) and piece.start == len(found[0])
        for numbers, access in zip(found, piece.accesses):
            numbers += places(access.base, piece.dims, access.strides) if isinstance(access, Affine) else access
    assert found == sequences


def test_pieces_cut_off_what_is_different_at_the_ends():
    found = pieces([[0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20]])
    assert [(p.start, p.members, p.dims, p.accesses) for p in found] == [
        (0, 2, (2,), [Affine(0, (0,))]),
        (2, 9, (9,), [Affine(1, (1,))]),
        (11, 1, (), [Affine(20, ())]),
    ]


def test_a_piece_is_a_nest_of_at_most_two_loops():
    found = pieces([[*places(0, (3, 4), (10, 1)), *places(100, (4, 3), (10, -1))]])
    assert [(p.start, p.members, p.dims, p.accesses) for p in found] == [
        (0, 12, (3, 4), [Affine(0, (10, 1))]),
        (12, 12, (4, 3), [Affine(100, (10, -1))]),
    ]


def test_so_few_members_are_a_piece_each():
    assert [p.accesses for p in pieces([[5, 7, 9], [1, 1, 4]], small=3)] == [
        [Affine(5, ()), Affine(1, ())],
        [Affine(7, ()), Affine(1, ())],
        [Affine(9, ()), Affine(4, ())],
    ]


def test_what_would_be_many_pieces_keeps_a_table():
    scattered = random.Random(0).sample(range(100), 40)
    (piece,) = pieces([list(range(7, 47)), scattered])
    assert piece.dims == (40,) and piece.accesses == [Affine(7, (1,)), scattered]


# Access.


def test_transposed_access():
    r = Rolled(lambda x: [ops.exp(x[j * 4 + i]) for i in range(4) for j in range(5)], x=20)
    loop = r.only_loop()
    assert loop.dims == (4, 5)
    assert loop.steps == [Apply(ops.exp, (Access(r["x"], 0, (1, 4)),))] and store(loop) == Access(r["z"], 0, (5, 1))


def test_reversed_and_strided_access():
    r = Rolled(lambda x: [x[9 - i] - x[2 * i] for i in range(5)], x=10)
    loop = r.only_loop()
    assert loop.dims == (5,)
    assert loop.steps == [Apply(ops.sub, (Access(r["x"], 9, (-1,)), Access(r["x"], 0, (2,))))]


def test_scattered_access_keeps_its_table():
    order = random.Random(1).sample(range(30), 24)
    r = Rolled(lambda x: [ops.sin(x[i]) for i in order], x=30)
    loop = r.only_loop()
    assert loop.dims == (24,) and loop.steps == [Apply(ops.sin, (Access(r["x"], table=tuple(order)),))]
    assert store(loop) == Access(r["z"], 0, (1,))


def test_sums_at_scattered_places_keep_a_table_of_all_terms():
    order = random.Random(1).sample(range(30), 24)
    r = Rolled(lambda x, y: [ops.dot(x[i : i + 3], y) for i in order], x=33, y=3)
    loop = r.only_loop()
    table = tuple(i + j for i in order for j in range(3))
    assert loop.dims == (24,)
    assert loop.steps == [Reduce(ops.sum, (Segment((3,), (Access(r["x"], table=table), Access(r["y"], 0, (0, 1)))),))]


def test_sums_of_scattered_terms_keep_a_table_of_all_terms():
    n = random.Random(2)
    order = [sorted(n.sample(range(30), 5)) for _ in range(10)]
    r = Rolled(lambda x: [ops.sum([x[i] for i in row]) for row in order], x=30)
    (segment,) = r.only_loop().steps[0].segments
    (terms,) = segment.factors
    assert r.only_loop().dims == (10,) and segment.dims == (5,)
    assert terms.table == tuple(i for row in order for i in row)
    xs = [math.sin(i) for i in range(30)]
    assert r(x=xs) == pytest.approx([sum(xs[i] for i in row) for row in order], rel=1e-13)


def test_a_ragged_triangle_is_right():
    """Row i has i + 1 terms: each length is a group of its own."""
    n = 7
    r = Rolled(lambda a, b: [ops.dot(a[: i + 1], b[n - 1 - i :]) for i in range(n)], a=n, b=n)
    a, b = [math.sin(i) for i in range(n)], [math.cos(i) for i in range(n)]
    assert r(a=a, b=b) == pytest.approx(
        [sum(a[j] * b[n - 1 - i + j] for j in range(i + 1)) for i in range(n)], rel=1e-13
    )
    reduces = [loop for loop in r.loops if isinstance(loop.steps[0], Reduce)]
    assert [sum(math.prod(s.dims) for s in loop.steps[0].segments) for loop in reduces] == [2, 3, 4, 5, 6, 7]


def test_rosenbrock_has_pieces_for_its_ends():
    """∂/∂x_i of Σ 100·(x_{i+1} - x_i²)² + (1 - x_i)² has one form at the first x, one at the last, one in between."""

    def rosenbrock(x):
        return ops.sum([100 * (y - x_ * x_) ** 2 + (1 - x_) ** 2 for x_, y in pairwise(x)])

    def both(x):
        z = rosenbrock(x)
        return {"z": [z], "g": grad(z, x)}

    n = 30
    r = Rolled(both, x=n)
    xs = [math.sin(i) for i in range(n)]
    (z,), g = r(x=xs)
    expected = [
        (200 * (xs[i] - xs[i - 1] ** 2) if i else 0.0)
        + (-400 * xs[i] * (xs[i + 1] - xs[i] ** 2) - 2 * (1 - xs[i]) if i < n - 1 else 0.0)
        for i in range(n)
    ]
    assert z == pytest.approx(sum(100 * (y - x * x) ** 2 + (1 - x) ** 2 for x, y in pairwise(xs)), rel=1e-13)
    assert g == pytest.approx(expected, rel=1e-12)
    stored = [store(loop) for loop in r.loops if store(loop).array is r["g"]]
    assert sorted((place.base, place.strides) for place in stored) == [(0, ()), (1, (1,)), (29, ())]
    assert len(r.loops) < 20


# Groups.


def test_one_constant_is_a_number_and_different_ones_are_an_array():
    r = Rolled(lambda x: {"same": [v * 3 for v in x], "other": [v * (i + 0.5) for i, v in enumerate(x)]}, x=6)
    same, other = (next(loop for loop in r.loops if store(loop).array is r[name]) for name in ("same", "other"))
    assert same.steps == [Apply(ops.mul, (Access(r["x"], 0, (1,)), 3.0))]
    ((mul,),) = (other.steps,)
    x, constants = mul.inputs
    assert x == Access(r["x"], 0, (1,)) and constants.base == 0 and constants.strides == (1,)
    assert constants.array.role == "constant" and constants.array.values == (0.5, 1.5, 2.5, 3.5, 4.5, 5.5)


def test_constants_within_sums():
    r = Rolled(lambda x: [ops.dot(x[i : i + 3], [1.5, 2.0, 3.0]) for i in range(0, 15, 3)], x=15)
    loop = r.only_loop()
    ((step,),) = (loop.steps,)
    (segment,) = step.segments
    x, c = segment.factors
    assert loop.dims == (5,) and segment.dims == (3,) and x == Access(r["x"], 0, (3, 1))
    assert [c.array.values[p] for p in places(c.base, (5, 3), c.strides)] == [1.5, 2.0, 3.0] * 5


def test_a_constant_term_is_a_segment_of_its_own():
    r = Rolled(lambda x: [ops.sum([*x[i : i + 3], 0.25]) for i in range(0, 15, 3)], x=15)
    segments = r.only_loop().steps[0].segments
    assert segments == (Segment((3,), (Access(r["x"], 0, (3, 1)),)), Segment((), (0.25,)))


def test_minus_zero_and_zero_are_two_constants():
    r = Rolled(lambda x: [ops.max([v, c]) for v, c in zip(x, [0.0, -0.0] * 4)], x=8)
    assert [math.copysign(1, z) for z in r(x=[-1.0] * 8)] == [1, -1] * 4


def test_powers_are_a_group_for_each_exponent():
    r = Rolled(lambda x: [v ** (3 if i < 6 else 0.3) for i, v in enumerate(x)], x=12)
    assert [loop.steps for loop in r.loops] == [
        [Apply(ops.power, (Access(r["x"], base, (1,)), exponent))]
        for exponent, base in sorted({3.0: 0, 0.3: 6}.items(), key=lambda e: e[1])
    ]


def test_commuting_inputs_are_one_group_in_any_order():
    r = Rolled(lambda x, y: [x[i] + y[i] if i % 2 else y[i] + x[i] for i in range(8)], x=8, y=8)
    assert r.only_loop().steps == [Apply(ops.add, (Access(r["x"], 0, (1,)), Access(r["y"], 0, (1,))))]


def test_differences_are_two_groups_if_they_go_both_ways():
    r = Rolled(lambda x, y: [x[i] - y[i] for i in range(5)] + [y[i] - x[i] for i in range(5)], x=5, y=5)
    x, y = Access(r["x"], 0, (1,)), Access(r["y"], 0, (1,))
    assert [(loop.dims, loop.steps) for loop in r.loops] == [
        ((5,), [Apply(ops.sub, (x, y))]),
        ((5,), [Apply(ops.sub, (y, x))]),
    ]


def test_a_small_group_is_unrolled():
    r = Rolled(lambda x: [ops.exp(v) for v in x], x=3)
    assert [(loop.dims, loop.steps) for loop in r.loops] == [
        ((), [Apply(ops.exp, (Access(r["x"], i, ()),))]) for i in range(3)
    ]
    assert [store(loop) for loop in r.loops] == [Access(r["z"], i, ()) for i in range(3)]
    assert len(Rolled(lambda x: [ops.exp(v) for v in x], x=4).loops) == 1


def test_few_terms_of_few_sums_are_unrolled():
    r = Rolled(lambda x: [ops.dot(x[:3], x[3:])], x=6)
    terms = tuple(Segment((), (Access(r["x"], i, ()), Access(r["x"], i + 3, ()))) for i in range(3))
    assert r.only_loop().dims == () and r.only_loop().steps == [Reduce(ops.sum, terms)]


def test_many_terms_of_one_sum_are_an_inner_loop():
    r = Rolled(lambda x: [ops.max(x)], x=17)
    assert r.only_loop().dims == ()
    assert r.only_loop().steps == [Reduce(ops.max, (Segment((17,), (Access(r["x"], 0, (1,)),)),))]


def test_a_repeated_input():
    r = Rolled(lambda x: [v * v for v in x], x=6)
    assert r.only_loop().steps == [Apply(ops.mul, (Access(r["x"], 0, (1,)), Access(r["x"], 0, (1,))))]
    s = Rolled(lambda x: [ops.dot(x, x)], x=20)
    x = Access(s["x"], 0, (1,))
    assert s.only_loop().steps == [Reduce(ops.sum, (Segment((20,), (x, x)),))]


def test_sums_with_terms_of_several_arrays_have_a_segment_for_each_pair():
    r = Rolled(
        lambda a, b, c: [ops.dot([*a[i : i + 2], b[i], c[i]], [*b[i : i + 2], c[i], 1.0]) for i in range(6)],
        a=7,
        b=7,
        c=6,
    )
    loop = r.only_loop()
    a, b, c = r["a"], r["b"], r["c"]
    assert loop.dims == (6,)
    assert loop.steps == [
        Reduce(
            ops.sum,
            (
                Segment((2,), (Access(a, 0, (1, 1)), Access(b, 0, (1, 1)))),
                Segment((), (Access(b, 0, (1,)), Access(c, 0, (1,)))),
                Segment((), (Access(c, 0, (1,)),)),
            ),
        )
    ]


def test_sums_with_several_patterns_are_a_group_for_each():
    def f(x):
        return [ops.sum([x[i], x[i + 1]]) * 0 + ops.logsumexp([x[i], x[i + 1 + (i >= 4)], x[9]]) for i in range(8)]

    xs = [math.sin(3 * i) for i in range(10)]
    r = Rolled(lambda x: [ops.logsumexp([x[i], x[i + 1 + (i >= 4)]]) for i in range(8)], x=10)
    assert [(loop.dims, loop.steps[0].segments) for loop in r.loops] == [
        ((4,), (Segment((2,), (Access(r["x"], 0, (1, 1)),)),)),
        ((4,), (Segment((2,), (Access(r["x"], 4, (1, 2)),)),)),
    ]
    assert Rolled(f, x=10)(x=xs) == pytest.approx([float(z) for z in f(xs)], rel=1e-13)


def test_sums_with_too_many_patterns_are_one_group_with_a_table():
    """x_i and x_{2i+1}: the second stands i + 1 places behind the first, in each sum another distance."""
    r = Rolled(lambda x: [ops.logsumexp([x[i], x[2 * i + 1]]) for i in range(10)], x=20)
    loop = r.only_loop()
    table = (0, 1, 1, 3, 2, 5, 3, 7, 4, 9, 5, 11, 6, 13, 7, 15, 8, 17, 9, 19)
    assert loop.dims == (10,)
    assert loop.steps == [Reduce(ops.logsumexp, (Segment((2,), (Access(r["x"], table=table),)),))]


# Outputs.


def test_outputs_are_computed_where_they_are_wanted():
    r = Rolled(lambda x: [ops.exp(x[5 - i]) for i in range(6)], x=6)
    loop = r.only_loop()
    assert loop.dims == (6,) and loop.steps == [Apply(ops.exp, (Access(r["x"], 5, (-1,)),))]
    assert store(loop) == Access(r["z"], 0, (1,))


def test_an_output_that_is_read_later_is_read_where_it_is():
    r = Rolled(lambda x: {"h": (h := [ops.exp(v) for v in x]), "z": [ops.sin(v) for v in h]}, x=6)
    assert [loop.steps[0] for loop in r.loops] == [
        Apply(ops.exp, (Access(r["x"], 0, (1,)),)),
        Apply(ops.sin, (Access(r["h"], 0, (1,)),)),
    ]
    assert r.program.arrays == [r["x"], r["h"], r["z"]]


def test_inputs_constants_and_repetitions_among_outputs_are_copied():
    def f(x):
        z = ops.exp(x[0])
        return [x[3], z, 2.5, z, x[2], x[1]]

    r = Rolled(f, x=4)
    e = math.exp(1)
    assert r(x=[1.0, 2.0, 3.0, 4.0]) == [4.0, e, 2.5, e, 3.0, 2.0]
    copies = [(loop.dims, loop.steps[0].inputs[0], store(loop)) for loop in r.loops if loop.steps[0].op is ops.identity]
    assert copies == [
        ((2,), Access(r["x"], 3, (-1,)), Access(r["z"], 0, (4,))),
        ((), Access(r["x"], 1, ()), Access(r["z"], 5, ())),
        ((), 2.5, Access(r["z"], 2, ())),
        ((), Access(r["z"], 1, ()), Access(r["z"], 3, ())),
    ]


def test_a_captured_value_is_an_array_of_the_callers():
    w = [Value(0.5 * i) for i in range(6)]
    trace = Trace()
    xs = trace.input("x", 6)
    with trace.running():
        outputs = [a * b for a, b in zip(w, xs)] + [w[2]]
    leaf, x, z = Array("w", 6, "leaf"), Array("x", 6, "input"), Array("z", 7, "output")
    program = reroll(simplify(trace.tape, outputs), [Layout(x, xs), Layout(leaf, w)], [Layout(z, range(7))])
    mul, copy = program.loops
    assert mul.steps == [Apply(ops.mul, (Access(x, 0, (1,)), Access(leaf, 0, (1,))))]
    assert copy.steps == [Apply(ops.identity, (Access(leaf, 2, ()),))] and store(copy) == Access(z, 6, ())


# Samples.


def test_what_depends_on_a_sample_has_a_row_for_each_and_the_rest_has_none():
    r = Rolled(lambda x, w: [a * ops.exp(b) for a, b in zip(x, w)], per_sample=("x", "z"), x=6, w=6)
    exp, mul = r.loops
    assert (exp.per_sample, mul.per_sample) == (False, True)
    assert not store(exp).array.per_sample
    assert mul.steps == [Apply(ops.mul, (Access(r["x"], 0, (1,)), Access(store(exp).array, 0, (1,))))]


def test_the_sum_over_samples_has_segments_over_samples_and_no_rows():
    def f(x, d):
        return [a.record(total, (a, b)) for b in d for a in x]

    r = Rolled(f, per_sample=("x", "d"), x=6, d=4)
    loop = r.only_loop()
    assert loop.dims == (4, 6) and not loop.per_sample
    factors = Access(r["x"], 0, (0, 1)), Access(r["d"], 0, (1, 0))
    assert loop.steps == [Reduce(ops.sum, (Segment((), factors, over_samples=True),))]
    memory = {r["x"]: [1.0, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 7], r["d"]: [1.0, 10, 100, 1000, 2, 3, 4, 5]}
    interpret(r.program, memory, n=2)
    assert memory[r["z"]][:6] == [1, 2, 3, 4, 5, 6 + 14] and memory[r["z"]][23] == 6000 + 35


def test_an_output_of_all_samples_that_depends_on_none_is_copied_to_each():
    r = Rolled(lambda x, w: [x[0] + w[0], ops.exp(w[0])], per_sample=("x", "z"), x=1, w=1)
    memory = {r["x"]: [1.0, 2.0, 3.0], r["w"]: [0.0]}
    interpret(r.program, memory, n=3)
    assert memory[r["z"]] == [1.0, 1.0, 2.0, 1.0, 3.0, 1.0]


def test_loops_in_words():
    r = Rolled(lambda w, x: [ops.tanh(ops.dot(row, x)) for row in rows(w, 8)], per_sample=("x", "z"), w=40, x=8)
    assert describe(r.loops) == [
        f"each sample, 5: sum of 8 → {store(r.loops[0]).array.name}",
        "each sample, 5: tanh → z",
    ]


# Any graph.


@settings(max_examples=80, deadline=None)
@given(functions(), st.sets(st.integers(0, 2)))
def test_rerolled_programs_compute_what_the_engine_computes(f, values):
    """Values, gradients and second derivatives; the lists whose number is in `values` are captured."""
    assert_close(interpreted(f.values, f.point, values)[0], eager(f.values, f.point))
    assert_close(interpreted(f.derivatives, f.point, values)[0], eager(f.derivatives, f.point))


@settings(max_examples=80, deadline=None)
@given(functions())
def test_each_iteration_is_one_node_and_no_step_needs_another(f):
    """Before fusion a loop has one step and stores it once, and every number of every array is written once."""
    (program, _, results), _ = programs(f.derivatives, f.point)
    written = {}
    for loop in program.loops:
        assert len(loop.steps) == len(loop.stores) == 1
        assert not any(isinstance(x, Ref) for x in getattr(loop.steps[0], "inputs", ()))
        place = store(loop)
        at = place.table or places(place.base, loop.dims, place.strides)
        assert written.setdefault(place.array, set()).isdisjoint(at) and len(set(at)) == len(at)
        written[place.array] |= set(at)
    assert all(at == set(range(array.size)) for array, at in written.items())
    assert results in written
