"""Loops that become one, and those that must not: hand-made programs with the result written out, and random ones.

A loop is made here by `loop(dims, op, inputs, place)`. Programs are compared by what `interpret` computes, to the bit.
"""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import ops
from milligrad.compiler.passes import fuse as fusing
from milligrad.compiler.passes.fuse import common, fuse, refined, region, sunk
from milligrad.compiler.passes.reroll import Layout, reroll
from milligrad.compiler.passes.simplify import simplify
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
)
from milligrad.compiler.trace import Trace
from tests.compiler.graphs import assert_close, eager, functions, programs

EACH = (1,)  # the strides of a loop over all numbers of an array


def loop(dims, op, inputs, place, per_sample=False):
    """A loop of one step. Inputs are operands of an Apply, or the segments of a Reduce."""
    step = Reduce(op, tuple(inputs)) if isinstance(inputs[0], Segment) else Apply(op, tuple(inputs))
    return Loop(dims, [step], [(0, place)], per_sample)


def arrays(text, **roles):
    """Arrays by `name:size`; their role is `value` unless told. `name*` is per_sample."""
    made = []
    for word in text.split():
        name, n = word.split(":")
        made.append(Array(name.strip("*"), int(n), roles.get(name.strip("*"), "value"), "*" in name))
    return made


def fused(*loops):
    """The fused program of these loops."""
    used = [x.array for lp in loops for x in [*accesses(lp), *[place for _, place in lp.stores]]]
    return fuse(Program(list(dict.fromkeys(used)), list(loops)))


def same_results(program, other, n=1, seed=0):
    """Both programs leave the same numbers, to the bit, in all arrays that last."""
    r = random.Random(seed)
    lasting = [a for a in program.arrays if a.role in ("input", "leaf", "state")]
    memory = {a: [r.uniform(-1, 1) for _ in range(a.size * (n if a.per_sample else 1))] for a in lasting}
    left = []
    for p in (program, other):
        memory_ = {a: list(xs) for a, xs in memory.items()}
        interpret(p, memory_, n)
        left.append({a: list(map(repr, xs)) for a, xs in memory_.items() if a.role not in ("value", "constant")})
    return left[0] == left[1]


def check(*loops, n=1):
    """The fused loops, after a look whether they leave the same numbers."""
    used = [x.array for lp in loops for x in [*accesses(lp), *[place for _, place in lp.stores]]]
    program = Program(list(dict.fromkeys(used)), list(loops))
    after = fuse(program)
    assert same_results(program, after, n)
    return after.loops


# What becomes one loop.


def test_a_chain_of_elementwise_loops_is_one_and_stores_its_end_only():
    x, a, b, z = arrays("x:6 a:6 b:6 z:6", x="input", z="output")
    (one,) = check(
        loop((6,), ops.sin, [Access(x, 0, EACH)], Access(a, 0, EACH)),
        loop((6,), ops.exp, [Access(a, 0, EACH)], Access(b, 0, EACH)),
        loop((6,), ops.mul, [Access(x, 0, EACH), Access(b, 0, EACH)], Access(z, 5, (-1,))),
    )
    assert one.dims == (6,)
    assert one.steps == [
        Apply(ops.sin, (Access(x, 0, EACH),)),
        Apply(ops.exp, (Ref(0),)),
        Apply(ops.mul, (Access(x, 0, EACH), Ref(1))),
    ]
    assert one.stores == [(2, Access(z, 5, (-1,)))]


def test_a_layer_and_its_activation_are_one_loop_for_each_sample():
    w, x, a, z = arrays("w:40 x*:8 a*:5 z*:5", w="leaf", x="input", z="output")
    dot = Segment((8,), (Access(w, 0, (8, 1)), Access(x, 0, (0, 1))))
    (one,) = check(
        loop((5,), ops.sum, [dot], Access(a, 0, EACH), True),
        loop((5,), ops.tanh, [Access(a, 0, EACH)], Access(z, 0, EACH), True),
        n=3,
    )
    assert one.per_sample and one.steps == [Reduce(ops.sum, (dot,)), Apply(ops.tanh, (Ref(0),))]
    assert one.stores == [(1, Access(z, 0, EACH))]


def test_what_is_stored_and_read_by_others_is_stored_still():
    x, a, z, t = arrays("x:6 a:6 z:6 t:6", x="input", z="output", t="output")
    first, second = check(
        loop((6,), ops.sin, [Access(x, 0, EACH)], Access(a, 0, EACH)),
        loop((6,), ops.exp, [Access(a, 0, EACH)], Access(z, 0, EACH)),
        loop((6,), ops.cos, [Access(a, 5, (-1,))], Access(t, 0, EACH)),
    )
    assert first.stores == [(0, Access(a, 0, EACH)), (1, Access(z, 0, EACH))]
    assert second.steps == [Apply(ops.cos, (Access(a, 5, (-1,)),))]


def test_a_gradient_and_the_update_of_all_numbers_share_the_finer_nest():
    d, x, g, p = arrays("d:32 x:64 g:2048 p:2048", d="input", x="input", p="leaf")
    (one,) = check(
        loop((32, 64), ops.mul, [Access(d, 0, (1, 0)), Access(x, 0, (0, 1))], Access(g, 0, (64, 1))),
        loop((2048,), ops.sub, [Access(p, 0, EACH), Access(g, 0, EACH)], Access(p, 0, EACH)),
    )
    assert one.dims == (32, 64)
    assert one.steps == [
        Apply(ops.mul, (Access(d, 0, (1, 0)), Access(x, 0, (0, 1)))),
        Apply(ops.sub, (Access(p, 0, (64, 1)), Ref(0))),
    ]
    assert one.stores == [(1, Access(p, 0, (64, 1)))]


def test_the_same_the_other_way_round():
    x, g, z, d = arrays("x:2048 g:2048 z:2048 d:32", x="input", z="output", d="input")
    (one,) = check(
        loop((2048,), ops.exp, [Access(x, 0, EACH)], Access(g, 0, EACH)),
        loop((32, 64), ops.mul, [Access(g, 0, (64, 1)), Access(d, 0, (1, 0))], Access(z, 0, (64, 1))),
    )
    assert one.dims == (32, 64)
    assert one.steps == [Apply(ops.exp, (Access(x, 0, (64, 1)),)), Apply(ops.mul, (Ref(0), Access(d, 0, (1, 0))))]


def test_single_numbers_are_one_loop_though_they_share_nothing():
    x, y = arrays("x:4 y:4", x="input", y="output")
    (one,) = check(*[loop((), ops.exp, [Access(x, i, ())], Access(y, 3 - i, ())) for i in range(4)])
    assert one.dims == () and len(one.steps) == 4
    assert {(one.steps[k].inputs[0].base, place.base) for k, place in one.stores} == {(0, 3), (1, 2), (2, 1), (3, 0)}


def test_a_loop_has_no_more_steps_than_a_compiler_likes(monkeypatch):
    monkeypatch.setattr(fusing, "LARGEST", 3)
    x, y = arrays("x:8 y:8", x="input", y="output")
    loops = check(*[loop((), ops.exp, [Access(x, i, ())], Access(y, i, ())) for i in range(8)])
    assert [len(lp.steps) for lp in loops] == [3, 3, 2]


def test_a_loop_moves_over_those_that_have_nothing_to_do_with_it():
    x, a, b, z, t = arrays("x:6 a:6 b:3 z:6 t:3", x="input", z="output", t="output")
    loops = check(
        loop((6,), ops.sin, [Access(x, 0, EACH)], Access(a, 0, EACH)),
        loop((3,), ops.cos, [Access(x, 0, (2,))], Access(b, 0, EACH)),
        loop((6,), ops.exp, [Access(a, 0, EACH)], Access(z, 0, EACH)),
        loop((3,), ops.exp, [Access(b, 0, EACH)], Access(t, 0, EACH)),
    )
    assert sorted([step.op.name for step in lp.steps] for lp in loops) == [["cos", "exp"], ["sin", "exp"]]


def test_steps_of_both_loops_keep_their_references():
    x, a, z = arrays("x:6 a:6 z:6", x="input", z="output")
    first = Loop(
        (6,),
        [Apply(ops.sin, (Access(x, 0, EACH),)), Apply(ops.exp, (Ref(0),))],
        [(1, Access(a, 0, EACH))],
    )
    second = Loop(
        (6,),
        [
            Apply(ops.cos, (Access(a, 0, EACH),)),
            Reduce(ops.sum, (Segment((), (Ref(0), Access(a, 0, EACH))), Segment((), (0.5,)))),
        ],
        [(1, Access(z, 0, EACH))],
    )
    (one,) = check(first, second)
    assert one.steps == [
        Apply(ops.sin, (Access(x, 0, EACH),)),
        Apply(ops.exp, (Ref(0),)),
        Apply(ops.cos, (Ref(1),)),
        Reduce(ops.sum, (Segment((), (Ref(2), Ref(1))), Segment((), (0.5,)))),
    ]
    assert one.stores == [(3, Access(z, 0, EACH))]


# What must stay apart.


@pytest.mark.parametrize(
    "read",
    [
        Access(Array("", 0, ""), 5, (-1,)),
        Access(Array("", 0, ""), 0, (0,)),
        Access(Array("", 0, ""), table=(0, 2, 1, 3, 4, 5)),
    ],
    ids=["reversed", "the first", "a table"],
)
def test_what_another_iteration_has_computed_is_waited_for(read):
    x, a, z = arrays("x:6 a:6 z:6", x="input", z="output")
    loops = check(
        loop((6,), ops.sin, [Access(x, 0, EACH)], Access(a, 0, EACH)),
        loop((6,), ops.add, [Access(a, 0, EACH), read._replace(array=a)], Access(z, 0, EACH)),
    )
    assert [len(lp.steps) for lp in loops] == [1, 1]


def test_a_sum_over_all_iterations_is_waited_for():
    x, a, s, z = arrays("x:6 a:6 s:6 z:6", x="input", z="output")
    total = Segment((6,), (Access(a, 0, (0, 1)),))
    loops = check(
        loop((6,), ops.exp, [Access(x, 0, EACH)], Access(a, 0, EACH)),
        loop((6,), ops.sum, [total], Access(s, 0, EACH)),
        loop((6,), ops.div, [Access(a, 0, EACH), Access(s, 0, EACH)], Access(z, 0, EACH)),
    )
    assert [[step.op.name for step in lp.steps] for lp in loops] == [["exp"], ["sum", "div"]]


def test_neighbours_are_waited_for():
    """x[i+1] of what the same loop would have to have computed one iteration later."""
    x, a, z = arrays("x:7 a:7 z:6", x="input", z="output")
    loops = check(
        loop((7,), ops.exp, [Access(x, 0, EACH)], Access(a, 0, EACH)),
        loop((6,), ops.sub, [Access(a, 1, EACH), Access(a, 0, EACH)], Access(z, 0, EACH)),
    )
    assert [lp.dims for lp in loops] == [(7,), (6,)]


def test_other_extents_and_transposed_nests_stay_apart():
    x, a, z = arrays("x:12 a:12 z:12", x="input", z="output")
    exp = loop((12,), ops.exp, [Access(x, 0, EACH)], Access(a, 0, EACH))
    transposed = loop((3, 4), ops.sin, [Access(a, 0, (1, 3))], Access(z, 0, (4, 1)))
    assert [lp.dims for lp in check(exp, transposed)] == [(12,), (3, 4)]
    ends = loop((11,), ops.sin, [Access(a, 0, EACH)], Access(z, 0, EACH))
    assert [lp.dims for lp in check(exp, ends)] == [(12,), (11,)]


def test_loops_of_each_sample_and_of_none_stay_apart():
    x, w, a, g = arrays("x*:4 w:4 a*:4 g:4", x="input", w="leaf", g="output")
    loops = check(
        loop((4,), ops.mul, [Access(x, 0, EACH), Access(w, 0, EACH)], Access(a, 0, EACH), True),
        loop((4,), ops.sum, [Segment((), (Access(a, 0, EACH),), over_samples=True)], Access(g, 0, EACH)),
        n=3,
    )
    assert [lp.per_sample for lp in loops] == [True, False]


def test_an_update_in_place_waits_for_all_who_read_the_old_number():
    p, x, z = arrays("p:6 x:6 z:6", p="leaf", x="input", z="output")
    update = loop((6,), ops.sub, [Access(p, 0, EACH), Access(x, 0, EACH)], Access(p, 0, EACH))
    backwards = loop((6,), ops.mul, [Access(p, 5, (-1,)), Access(x, 0, EACH)], Access(z, 0, EACH))
    assert [lp.stores[0][1].array for lp in check(backwards, update)] == [z, p]
    assert [lp.stores[0][1].array for lp in check(update, backwards)] == [p, z]


def test_an_update_may_join_who_reads_the_old_number_in_the_same_iteration():
    p, x, g, z = arrays("p:6 x:6 g:6 z:6", p="leaf", x="input", z="output")
    (one,) = check(
        loop((6,), ops.mul, [Access(p, 0, EACH), Access(x, 0, EACH)], Access(g, 0, EACH)),
        loop((6,), ops.sub, [Access(p, 0, EACH), Access(g, 0, EACH)], Access(p, 0, EACH)),
        loop((6,), ops.exp, [Access(p, 0, EACH)], Access(z, 0, EACH)),
    )
    assert one.steps == [
        Apply(ops.mul, (Access(p, 0, EACH), Access(x, 0, EACH))),
        Apply(ops.sub, (Access(p, 0, EACH), Ref(0))),
        Apply(ops.exp, (Ref(1),)),
    ]


def test_an_update_does_not_join_a_sum_over_the_old_numbers():
    p, x, g = arrays("p:6 x:6 g:6", p="leaf", x="input")
    loops = check(
        loop((6,), ops.sum, [Segment((6,), (Access(p, 0, (0, 1)), Access(x, 0, (1, 0))))], Access(g, 0, EACH)),
        loop((6,), ops.sub, [Access(p, 0, EACH), Access(g, 0, EACH)], Access(p, 0, EACH)),
    )
    assert len(loops) == 2


def test_an_update_moves_over_no_one_who_reads_the_old_numbers():
    """The gradient sinks down to the update instead, as far as nobody in between needs it."""
    p, x, g, z = arrays("p:6 x:6 g:6 z:6", p="leaf", x="input", z="output")
    gradient = loop((6,), ops.exp, [Access(x, 0, EACH)], Access(g, 0, EACH))
    reader = loop(
        (6,), ops.sum, [Segment((6,), (Access(p, 0, (0, 1)),)), Segment((), (Access(x, 0, EACH),))], Access(z, 0, EACH)
    )
    update = loop((6,), ops.sub, [Access(p, 0, EACH), Access(g, 0, EACH)], Access(p, 0, EACH))
    first, second = check(gradient, reader, update)
    assert first.stores[0][1].array is z and [step.op.name for step in second.steps] == ["exp", "sub"]
    both = loop((6,), ops.sum, [Segment((6,), (Access(p, 0, (0, 1)), Access(g, 0, (0, 1))))], Access(z, 0, EACH))
    assert [len(lp.steps) for lp in check(gradient, both, update)] == [1, 1, 1]


def test_nothing_sinks_over_an_update_of_what_it_reads():
    p, x, g, z, q = arrays("p:6 x:6 g:6 z:6 q:6", p="leaf", x="input", z="output", q="leaf")
    loops = check(
        loop((6,), ops.exp, [Access(p, 5, (-1,))], Access(g, 0, EACH)),
        loop((6,), ops.sub, [Access(p, 0, EACH), Access(x, 0, EACH)], Access(p, 0, EACH)),
        loop(
            (6,),
            ops.sum,
            [Segment((6,), (Access(p, 0, (0, 1)),)), Segment((), (Access(q, 0, EACH),))],
            Access(z, 0, EACH),
        ),
        loop((6,), ops.sub, [Access(q, 0, EACH), Access(g, 0, EACH)], Access(q, 0, EACH)),
    )
    assert loops[0].steps == [Apply(ops.exp, (Access(p, 5, (-1,)),))]


# The order.


def test_each_loop_comes_as_late_as_it_can():
    x, g1, g2, h, p1, p2 = arrays("x:6 g1:6 g2:6 h:6 p1:6 p2:6", x="input", p1="leaf", p2="leaf")
    make_g1 = loop((6,), ops.sin, [Access(x, 0, EACH)], Access(g1, 0, EACH))
    make_h = loop((6,), ops.exp, [Access(x, 0, EACH)], Access(h, 0, EACH))
    make_g2 = loop((6,), ops.cos, [Access(h, 0, EACH)], Access(g2, 0, EACH))
    update1 = loop((6,), ops.sub, [Access(p1, 0, EACH), Access(g1, 0, EACH)], Access(p1, 0, EACH))
    update2 = loop((6,), ops.sub, [Access(p2, 0, EACH), Access(g2, 0, EACH)], Access(p2, 0, EACH))
    assert sunk([make_g1, make_h, make_g2, update1, update2]) == [make_h, make_g2, update2, make_g1, update1]


def test_nothing_comes_later_than_who_overwrites_what_it_reads_or_reads_what_it_writes():
    p, x, z, t = arrays("p:6 x:6 z:6 t:6", p="leaf", x="input", z="output", t="output")
    reads_p = loop((6,), ops.exp, [Access(p, 0, EACH)], Access(z, 0, EACH))
    update = loop((6,), ops.sub, [Access(p, 0, EACH), Access(x, 0, EACH)], Access(p, 0, EACH))
    reads_new_p = loop((6,), ops.sin, [Access(p, 0, EACH)], Access(t, 0, EACH))
    assert sunk([reads_p, update, reads_new_p]) == [reads_p, update, reads_new_p]
    assert sunk([reads_p, reads_new_p, update])[2] is update
    assert sunk([update, reads_p, reads_new_p])[0] is update


# Arrays.


def test_parts_of_an_array_that_nobody_reads_together_are_arrays_of_their_own():
    """Two groups of one level lie in one array; as two arrays, one of them can disappear."""
    x, a, z, t = arrays("x:12 a:12 z:6 t:6", x="input", z="output", t="output")
    program = fused(
        loop((6,), ops.sin, [Access(x, 0, EACH)], Access(a, 0, EACH)),
        loop((6,), ops.sin, [Access(x, 11, (-1,))], Access(a, 6, EACH)),
        loop((6,), ops.exp, [Access(a, 0, EACH)], Access(z, 0, EACH)),
        loop((6,), ops.exp, [Access(a, 11, (-1,))], Access(t, 0, EACH)),
    )
    values = [array for array in program.arrays if array.role == "value"]
    assert [array.size for array in values] == [6]
    assert sorted(len(lp.steps) for lp in program.loops) == [1, 1, 2]
    (part,) = values
    assert any(Access(part, 5, (-1,)) in step.inputs for lp in program.loops for step in lp.steps)


def test_an_array_that_one_access_reads_across_stays_whole():
    x, a, z = arrays("x:12 a:12 z:12", x="input", z="output")
    program = fused(
        loop((6,), ops.sin, [Access(x, 0, EACH)], Access(a, 0, EACH)),
        loop((6,), ops.cos, [Access(x, 6, EACH)], Access(a, 6, EACH)),
        loop((12,), ops.exp, [Access(a, 0, EACH)], Access(z, 0, EACH)),
    )
    assert [array.size for array in program.arrays if array.role == "value"] == [12] and len(program.loops) == 3


def test_interleaved_parts_stay_in_one_array():
    x, a, z, t = arrays("x:12 a:12 z:6 t:6", x="input", z="output", t="output")
    loops = check(
        loop((6,), ops.sin, [Access(x, 0, EACH)], Access(a, 0, (2,))),
        loop((6,), ops.cos, [Access(x, 6, EACH)], Access(a, 1, (2,))),
        loop((6,), ops.exp, [Access(a, 11, (-2,))], Access(z, 0, EACH)),
        loop((6,), ops.exp, [Access(a, 10, (-2,))], Access(t, 0, EACH)),
    )
    assert {place.array for lp in loops for _, place in lp.stores} == {a, z, t}


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ([2 * i + 1 for i in range(9)], [(9,)]),  # in equal steps
        ([*range(8)], [()] * 8),  # short: each may be computed where it is used
        ([*range(9), 11, 12], [(9,), (), ()]),
        ([3] * 9, [(9,)]),
        ([0, 2, 1, 5, 3, 8, 4, 9, 6, 7], [()] * 10),
    ],
)
def test_a_long_sum_of_terms_that_stayed_where_they_were_is_a_loop_again(terms, expected):
    x, w, z = arrays("x:20 w:20 z:3", x="input", w="leaf", z="output")
    dims, place = (3,), Access(z, 0, EACH)
    segments = [Segment((), (Access(x, k, (0,)), Access(w, k, EACH))) for k in terms]
    program = Program([x, w, z], [loop(dims, ops.sum, segments, place)])
    program_fused = fuse(program)
    (step,) = program_fused.loops[0].steps
    assert [s.dims for s in step.segments] == expected
    assert same_results(program, program_fused)


def test_lasting_arrays_stay_even_if_nobody_reads_them():
    x, y, z, a = arrays("x:6 y:6 z:6 a:6", x="input", y="input", z="output")
    loops = [
        loop((6,), ops.sin, [Access(x, 0, EACH)], Access(a, 0, EACH)),
        loop((6,), ops.exp, [Access(a, 0, EACH)], Access(z, 0, EACH)),
    ]
    assert fuse(Program([x, y, z, a], loops)).arrays == [x, y, z]


def test_the_places_an_access_means():
    x = Array("x", 100, "input")
    assert region(Access(x, 50, (10, -3)), (3, 5)) == (38, 70)
    assert region(Access(x, 7, ()), ()) == (7, 7)
    assert region(Access(x, 7, (0,)), (9,)) == (7, 7)
    assert region(Access(x, table=(5, 2, 9)), (3,)) == (2, 9)


# The same iterations, cut up differently.


@pytest.mark.parametrize(
    "a, b, expected",
    [
        ((), (), ()),
        ((), (1,), ()),
        ((6,), (6,), (6,)),
        ((2048,), (32, 64), (32, 64)),
        ((32, 64), (2048,), (32, 64)),
        ((4, 6), (8, 3), (4, 2, 3)),
        ((2, 3, 4), (24,), (2, 3, 4)),
        ((2, 12), (6, 4), (2, 3, 4)),
        ((1, 5), (5,), (5,)),
        ((4, 6), (6, 4), None),
        ((4, 6), (12, 2), (4, 3, 2)),
        ((6,), (7,), None),
        ((2, 9), (3, 6), None),
    ],
)
def test_the_coarsest_nest_that_both_are(a, b, expected):
    assert common(a, b) == expected
    assert common(b, a) == expected


def test_a_refined_loop_does_the_same():
    x, w, z = arrays("x:48 w:96 z:24", x="input", w="leaf", z="output")
    terms = Segment((2,), (Access(x, 0, (12, 2, 1)), Access(w, 95, (-24, -4, -2))))
    coarse = Loop(
        (4, 6),
        [Reduce(ops.sum, (terms,)), Apply(ops.add, (Ref(0), Access(x, table=tuple(range(47, 23, -1)))))],
        [(1, Access(z, 23, (-6, -1)))],
    )
    fine = refined(coarse, (2, 2, 3, 2))
    assert fine.dims == (2, 2, 3, 2)
    assert fine.steps[0].segments[0] == Segment(
        (2,), (Access(x, 0, (24, 12, 4, 2, 1)), Access(w, 95, (-48, -24, -8, -4, -2)))
    )
    assert fine.stores == [(1, Access(z, 23, (-12, -6, -2, -1)))]
    assert same_results(Program([x, w, z], [coarse]), Program([x, w, z], [fine]))


# Any program.


def tidy(program):
    """No loop without a store, no step that nobody asks for, no array of values that is not written and read."""
    read = {x.array for lp in program.loops for x in accesses(lp)}
    written = {place.array for lp in program.loops for _, place in lp.stores}
    for lp in program.loops:
        asked = {k for k, _ in lp.stores}
        for step in lp.steps:
            operands = step.inputs if isinstance(step, Apply) else [x for s in step.segments for x in s.factors]
            asked |= {x.step for x in operands if isinstance(x, Ref)}
        assert lp.stores and asked == set(range(len(lp.steps)))
    for array in program.arrays:
        assert array.role != "value" or (array in read and array in written)


@settings(max_examples=80, deadline=None)
@given(functions(), st.sets(st.integers(0, 2)))
def test_fused_programs_compute_the_same_to_the_bit(f, values):
    for g in (f.values, f.derivatives):
        (before, memory, results), (after, _, _) = programs(g, f.point, values)
        found = []
        for program in (before, after):
            memory_ = {array: list(numbers) for array, numbers in memory.items()}
            interpret(program, memory_)
            found.append(memory_[results])
        assert found[0] == found[1] and len(after.loops) <= len(before.loops)
        assert_close(found[1], eager(g, f.point))
        tidy(after)


@settings(max_examples=60, deadline=None)
@given(functions(), st.integers(0, 10**6))
def test_programs_for_samples_compute_what_one_call_for_each_computes(f, seed):
    """The first list is another one for each of three samples; so are the results."""
    trace = Trace()
    given_ = [trace.input(f"x{k}", len(xs)) for k, xs in enumerate(f.point)]
    outputs = f.values(*given_)
    inputs = [Array(name, len(xs), "input", name == "x0") for name, xs in trace.inputs.items()]
    z = Array("z", len(outputs), "output", True)
    program = reroll(
        simplify(trace.tape, outputs),
        [Layout(array, xs) for array, xs in zip(inputs, given_)],
        [Layout(z, range(len(outputs)))],
    )
    r = random.Random(seed)
    samples = [[x + 1e-8 * r.random() for x in f.point[0]] for _ in range(3)]
    expected = [x for sample in samples for x in eager(f.values, [sample, *f.point[1:]])]
    for p in (program, fuse(program)):
        memory = {array: list(xs) for array, xs in zip(inputs, f.point)} | {
            inputs[0]: [x for xs in samples for x in xs]
        }
        interpret(p, memory, 3)
        assert_close(memory[z], expected)


@st.composite
def updating_programs(draw):
    """Loops over twelve numbers that read lasting arrays, change them in place, and write values: all that may hurt."""
    p, q, x, z = arrays("p:12 q:12 x:12 z:60", p="leaf", q="state", x="input", z="output")
    values, loops, free = [], [], list(range(0, 60, 12))
    for k in range(draw(st.integers(2, 8))):
        dims = draw(st.sampled_from([(12,), (12,), (12,), (3, 4), (4, 3), (2, 6)]))
        whole = (dims[1], 1) if len(dims) == 2 else (1,)
        ways = {
            (12,): [(0, (1,)), (0, (1,)), (0, (1,)), (11, (-1,)), (3, (0,))],
            (3, 4): [(0, (4, 1)), (0, (4, 1)), (0, (1, 3)), (11, (-4, -1)), (2, (1, 0))],
            (4, 3): [(0, (3, 1)), (0, (3, 1)), (0, (1, 4)), (9, (-3, 1)), (0, (0, 1))],
            (2, 6): [(0, (6, 1)), (0, (6, 1)), (0, (1, 2)), (5, (6, -1)), (1, (0, 2))],
        }[dims]

        def read(forbidden=None, ways=ways):
            array = draw(st.sampled_from([a for a in [p, q, x, *values, *values] if a is not forbidden]))
            return Access(array, *draw(st.sampled_from(ways)))

        kind = draw(st.sampled_from(["value", "value", "update", "update", "output", "sum"]))
        if kind == "update":
            target = draw(st.sampled_from([p, q]))
            place = Access(target, 0, whole)
            loops.append(loop(dims, ops.sub, [place, read(target)], place))
        elif kind == "sum":
            array = draw(st.sampled_from([p, q, x, *values]))
            values.append(Array(f"v{k}", 12, "value"))
            across = Segment((12,), (Access(array, 0, (0,) * len(dims) + (1,)),))
            loops.append(loop(dims, ops.sum, [across, Segment((), (read(),))], Access(values[-1], 0, whole)))
        elif kind == "output" and free:
            loops.append(loop(dims, ops.add, [read(), read()], Access(z, free.pop(), whole)))
        else:
            reads = [read(), read()]
            values.append(Array(f"v{k}", 12, "value"))
            loops.append(loop(dims, ops.mul, reads, Access(values[-1], *draw(st.sampled_from(ways[:4])))))
    return Program([p, q, x, z, *values], loops)


@settings(max_examples=400, deadline=None)
@given(updating_programs())
def test_programs_that_change_numbers_in_place_do_the_same_fused(program):
    assert same_results(program, fuse(program))


def test_a_loop_that_grows_is_not_read_anew(monkeypatch):
    """Twice as many statements one after the other take twice as many steps to read, not four times."""
    read = []
    monkeypatch.setattr(fusing, "accesses", lambda loop: read.append(len(loop.steps)) or accesses(loop))

    def steps_read(n):
        read.clear()
        arrays = [Array("x", 1, "input"), *[Array(f"v{k}", 1, "value") for k in range(n)], Array("z", 1, "output")]
        chain = [loop((), ops.sin, [Access(x, 0, ())], Access(z, 0, ())) for x, z in pairwise(arrays)]
        assert len(fuse(Program(arrays, chain)).loops) == 1
        return sum(read)

    assert steps_read(200) < 2.1 * steps_read(100)
