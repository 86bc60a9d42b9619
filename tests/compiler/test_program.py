"""`interpret`, the judge of passes and emitters, on programs small enough to run by hand; and reading a program."""

import math

import pytest

from milligrad import ops
from milligrad.compiler.program import (
    Access,
    Apply,
    Array,
    Loop,
    Program,
    Reduce,
    Ref,
    Segment,
    accesses,
    interpret,
    size,
)


def run(loop, memory, n=1):
    """The memory after one loop: name → numbers."""
    arrays = dict.fromkeys([*memory, *[place.array for _, place in loop.stores], *[x.array for x in accesses(loop)]])
    memory = {a: list(numbers) for a, numbers in memory.items()}
    interpret(Program(list(arrays), [loop]), memory, n)
    return {a.name: numbers for a, numbers in memory.items()}


def test_an_access_is_base_and_strides_outermost_first():
    x, z = Array("x", 12, "input"), Array("z", 6, "output")
    read, write = Access(x, 11, (-4, -1)), Access(z, 0, (3, 1))
    loop = Loop((2, 3), [Apply(ops.neg, (read,))], [(0, write)])
    assert run(loop, {x: range(12)})["z"] == [-11, -10, -9, -7, -6, -5]


def test_a_table_counts_the_iterations_of_all_loops_around_it():
    x, z = Array("x", 4, "input"), Array("z", 2, "output")
    terms = Segment((3,), (Access(x, table=(3, 3, 0, 1, 2, 2)),))
    loop = Loop((2,), [Reduce(ops.sum, (terms,))], [(0, Access(z, 1, (-1,)))])
    assert run(loop, {x: [1.0, 10.0, 100.0, 1000.0]})["z"] == [210.0, 2001.0]


def test_a_store_with_a_table_scatters():
    x, z = Array("x", 3, "input"), Array("z", 5, "output")
    loop = Loop((3,), [Apply(ops.identity, (Access(x, 0, (1,)),))], [(0, Access(z, table=(4, 0, 2)))])
    z_after = run(loop, {x: [1.0, 2.0, 3.0]})["z"]
    assert [z_after[i] for i in (0, 2, 4)] == [2.0, 3.0, 1.0] and math.isnan(z_after[1]) and math.isnan(z_after[3])


def test_steps_refer_to_earlier_steps_and_constants():
    x, z, y = Array("x", 2, "input"), Array("z", 2, "output"), Array("y", 1, "constant", values=(10.0,))
    steps = [
        Apply(ops.mul, (Access(x, 0, (1,)), Access(y, 0, (0,)))),
        Apply(ops.sub, (Ref(0), 0.5)),
        Reduce(ops.max, (Segment((), (Ref(0),)), Segment((), (Ref(1),)), Segment((2,), (Access(x, 0, (0, 1)),)))),
    ]
    loop = Loop((2,), steps, [(1, Access(z, 0, (1,)))])
    assert run(loop, {x: [1.0, -2.0]})["z"] == [9.5, -20.5]
    assert run(Loop((2,), steps, [(2, Access(z, 0, (1,)))]), {x: [1.0, -2.0]})["z"] == [10.0, 1.0]


def test_a_sum_runs_over_all_its_segments_and_multiplies_two_factors():
    w, x, b, z = Array("w", 6, "leaf"), Array("x", 3, "input"), Array("b", 2, "leaf"), Array("z", 2, "output")
    dot = Segment((3,), (Access(w, 0, (3, 1)), Access(x, 0, (0, 1))))
    loop = Loop((2,), [Reduce(ops.sum, (dot, Segment((), (Access(b, 0, (1,)),))))], [(0, Access(z, 0, (1,)))])
    assert run(loop, {w: [1, 2, 3, 4, 5, 6], x: [1, 10, 100], b: [0.5, 0.25]})["z"] == [321.5, 654.25]


def test_a_sample_has_its_own_row():
    x, w, z = Array("x", 2, "input", True), Array("w", 2, "leaf"), Array("z", 2, "output", True)
    step = Apply(ops.mul, (Access(x, 1, (-1,)), Access(w, 0, (1,))))
    loop = Loop((2,), [step], [(0, Access(z, 0, (1,)))], per_sample=True)
    assert run(loop, {x: [1, 2, 3, 4, 5, 6], w: [10, 100]}, n=3)["z"] == [20, 100, 40, 300, 60, 500]


def test_over_samples_adds_the_rows_of_all_samples():
    d, x, g = Array("d", 2, "input", True), Array("x", 2, "input", True), Array("g", 4, "output")
    outer = Segment((), (Access(d, 0, (1, 0)), Access(x, 0, (0, 1))), over_samples=True)
    once = Segment((), (1000.0,))
    loop = Loop((2, 2), [Reduce(ops.sum, (outer, once))], [(0, Access(g, 0, (2, 1)))])
    memory = {d: [1, 2, 10, 20], x: [3, 4, 5, 6]}
    assert run(loop, memory, n=2)["g"] == [1053, 1064, 1106, 1128]
    assert run(loop, memory, n=1)["g"] == [1003, 1004, 1006, 1008]


def test_what_is_the_same_for_all_samples_counts_once_for_each_over_samples():
    w, g = Array("w", 1, "leaf"), Array("g", 1, "output")
    loop = Loop((), [Reduce(ops.sum, (Segment((), (Access(w), 2.0), over_samples=True),))], [(0, Access(g))])
    assert run(loop, {w: [0.5]}, n=7)["g"] == [7.0]


def test_a_loop_may_change_in_place_what_it_has_read_and_later_loops_see_it():
    p, v, z = Array("p", 2, "leaf"), Array("v", 2, "state"), Array("z", 2, "output")
    each = (1,)
    update = Loop(
        (2,),
        [Apply(ops.add, (Access(v, 0, each), 1.0)), Apply(ops.sub, (Access(p, 0, each), Ref(0)))],
        [(0, Access(v, 0, each)), (1, Access(p, 0, each))],
    )
    copy = Loop((2,), [Apply(ops.identity, (Access(p, 0, each),))], [(0, Access(z, 0, each))])
    memory = {p: [5.0, 6.0], v: [0.0, 10.0]}
    interpret(Program([p, v, z], [update, copy]), memory)
    assert memory == {p: [4.0, -5.0], v: [1.0, 11.0], z: [4.0, -5.0]}


@pytest.mark.parametrize("access", [(2, ()), (0, (-1,)), (1, (1,))])
def test_a_place_outside_an_array_is_no_number(access):
    x, z = Array("x", 2, "input"), Array("z", 2, "output")
    loop = Loop(
        (2,) * len(access[1]), [Apply(ops.neg, (Access(x, *access),))], [(0, Access(z, 0, (1,) * len(access[1])))]
    )
    with pytest.raises(AssertionError):
        run(loop, {x: [1.0, 2.0]})


def test_reading_a_program():
    x, z = Array("x", 2, "input", True), Array("z", 3, "value")
    terms = Segment((4,), (Access(x, 0, (0,)), 2.0, Access(z, 0, (0,))))
    loop = Loop((), [Apply(ops.add, (Access(x), 1.0)), Reduce(ops.sum, (terms, Segment((), (Ref(0),))))], [])
    program = Program([x, z], [loop])
    assert list(accesses(loop)) == [Access(x), Access(x, 0, (0,)), Access(z, 0, (0,))]
    assert program.array("z") is z and size((2, 3, 4)) == 24 and size(()) == 1
    assert repr(x) == "x[n, 2]" and repr(z) == "z[3]"
