"""Nests: the same loops as the program's, simplified; here a nest is run one number at a time to see that."""

import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milligrad import ops
from milligrad.compiler.llvm.nests import Constant, Layout, Place, anonymous, reduction, untabled
from milligrad.compiler.program import Access, Apply, Array, Loop, Program, Reduce, Ref, Segment

X, Y, Z = Array("x", 100, "input"), Array("y", 100, "input", True), Array("z", 100, "output")


def nest_of(loop, capacity=1, arrays=(X, Y, Z)):
    return Layout(Program([*arrays], [loop]), capacity).nest(loop)


def doubling(dims, access, strides, per_sample=False):
    return Loop(dims, [Apply(ops.mul, (access, 2.0))], [(0, Access(Z, 0, strides))], per_sample)


@given(st.data())
def test_what_untabled_gives_is_the_table(data):
    dims = tuple(data.draw(st.lists(st.integers(1, 4), max_size=4)))
    irregular = [data.draw(st.booleans()) for _ in dims]
    strides = [data.draw(st.integers(-5, 5)) for _ in dims]
    known: dict[tuple[int, ...], int] = {}
    rng, table = random.Random(data.draw(st.integers(0, 99))), []
    for i in product(*map(range, dims)):
        start = known.setdefault(tuple(x for x, odd in zip(i, irregular) if odd), rng.randrange(100))
        table.append(start + sum(x * s for x, s, odd in zip(i, strides, irregular) if not odd))
    found, base, entries, steps = untabled(table, dims)
    for k, i in enumerate(product(*map(range, dims))):
        entry = entries[sum(x * s for x, s in zip(i, steps))] if entries else 0
        assert table[k] == base + sum(x * s for x, s in zip(i, found)) + entry
    assert all(odd or step == 0 for odd, step in zip(irregular, steps))


def test_regular_rows_of_an_irregular_table_keep_one_entry_each():
    table = [10 * i + j for i in (4, 0, 2) for j in range(5)]
    assert untabled(table, (3, 5)) == ((0, 1), 0, (40, 0, 20), (1, 0))


def test_a_regular_table_is_none():
    assert untabled([7 + 3 * i - j for i in range(4) for j in range(6)], (4, 6)) == ((3, -1), 7, (), (0, 0))


def test_steady_dims_become_one():
    nest = nest_of(doubling((2, 3, 4), Access(X, 5, (12, 4, 1)), (12, 4, 1)))
    assert nest.extents == (24,)
    assert nest.places() == [Place(0, 5, (1,), -1, (0,)), Place(2, 0, (1,), -1, (0,))]


def test_dims_that_some_access_takes_otherwise_stay():
    assert nest_of(doubling((3, 4), Access(X, 0, (1, 3)), (4, 1))).extents == (3, 4)
    assert nest_of(doubling((2, 3, 4), Access(X, 0, (0, 4, 1)), (12, 4, 1))).extents == (2, 12)


def test_dims_of_one_iteration_go():
    assert nest_of(doubling((1, 5, 1), Access(X, 0, (7, 2, 9)), (0, 1, 0))).extents == (5,)


def test_samples_are_a_dim():
    nest = nest_of(doubling((5,), Access(Y, 3, (2,)), (1,), per_sample=True), capacity=8)
    assert nest.extents == (None, 5) and nest.sampled
    assert nest.places() == [Place(1, 3, (100, 2), -1, (0, 0)), Place(2, 0, (0, 1), -1, (0, 0))]
    alone = nest_of(doubling((5,), Access(Y, 3, (2,)), (1,), per_sample=True), capacity=1)
    assert alone.extents == (5,) and not alone.sampled


def test_samples_of_a_segment_are_its_first_dim():
    segment = Segment((4,), (Access(Y, 0, (1, 10)), Access(X, 0, (0, 1))), over_samples=True)
    nest = nest_of(Loop((3,), [Reduce(ops.sum, (segment,))], [(0, Access(Z, 0, (1,)))]), capacity=8)
    (part,) = nest.steps[0].parts
    assert part.extents == (None, 4)
    assert part.factors == (Place(1, 0, (1, 100, 10), -1, (0, 0, 0)), Place(0, 0, (0, 0, 1), -1, (0, 0, 0)))


def test_a_step_knows_the_dims_that_it_depends_on():
    steps = [
        Apply(ops.exp, (Access(X, 0, (1, 0)),)),
        Apply(ops.exp, (Access(X, 0, (0, 0)),)),
        Apply(ops.add, (Ref(0), Access(X, 0, (0, 2)))),
        Apply(ops.add, (Ref(0), Ref(1))),
    ]
    nest = nest_of(Loop((3, 5), steps, [(2, Access(Z, 0, (5, 1)))]))
    assert [set(step.dims) for step in nest.steps] == [{0}, set(), {0, 1}, {0}]


def test_alike_loops_are_equal_once_anonymous():
    table = tuple(random.Random(0).sample(range(50), 12))
    a = nest_of(Loop((12,), [Apply(ops.add, (Access(X, 9, (1,)), Access(Y, 0, (), table)))], [(0, Access(Z, 0, (1,)))]))
    b = nest_of(Loop((12,), [Apply(ops.add, (Access(Z, 4, (1,)), Access(X, 0, (), table)))], [(0, Access(Y, 3, (1,)))]))
    (one, given), (other, given_other) = anonymous(a, 3), anonymous(b, 3)
    assert one == other and hash(one) == hash(other)
    assert sorted(given) == [(0, 9), (1, 0), (2, 0), (3, 0)]
    assert sorted(given_other) == [(0, 0), (1, 3), (2, 4), (3, 0)]


def test_loops_of_different_zeros_are_not_equal():
    loops = [Loop((), [Apply(ops.mul, (Access(X), zero))], [(0, Access(Z))]) for zero in (0.0, -0.0)]
    a, b = (anonymous(nest_of(loop), 3)[0] for loop in loops)
    assert a != b and a.steps[0].inputs[1] == Constant("0x0.0p+0")


def test_a_dot_is_a_sum_of_products():
    xs = tuple(Access(X, k, ()) for k in range(4))
    assert reduction(Apply(ops.dot, xs)) == Reduce(ops.sum, (Segment((), (xs[0], xs[2])), Segment((), (xs[1], xs[3]))))
    assert reduction(Apply(ops.max, xs[:2])) == Reduce(ops.max, (Segment((), (xs[0],)), Segment((), (xs[1],))))


@pytest.mark.parametrize("step", [Apply(ops.exp, (Access(X),)), Reduce(ops.max, (Segment((), (Access(X),)),))])
def test_other_steps_stay(step):
    assert reduction(step) is step
