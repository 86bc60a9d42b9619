"""A program in stages for several threads: run stage by stage on parts of a batch, it computes what it did."""

import random
from itertools import pairwise

import pytest

from milligrad import ops
from milligrad.compiler.passes.split import stages
from milligrad.compiler.program import Access, Apply, Array, Loop, Program, Reduce, Segment, interpret

N = 7  # samples


def over_samples(dims, place, *segments):
    return Loop(dims, [Reduce(ops.sum, tuple(Segment(d, fs, True) for d, fs in segments))], [(0, place)])


def standardized():
    """x (n, 3) → z = w·x - its mean over the samples, Σ z² of each column; then w ← w - 0.1·Σ z·x."""
    x, w = Array("x", 3, "input", True), Array("w", 3, "leaf")
    n, unused = Array("n", 1, "input"), Array("unused", 1, "input")
    y, z = Array("y", 3, "value", True), Array("z", 3, "value", True)
    total, mean, constant = (Array(name, 3, "value") for name in ("total", "mean", "constant"))
    squares, g, out = Array("squares", 3, "output"), Array("g", 3, "value"), Array("out", 3, "output", True)

    def at(a):
        return Access(a, 0, (1,))

    def one(op, result, *inputs, per_sample=False):
        return Loop((3,), [Apply(op, inputs)], [(0, at(result))], per_sample)

    loops = [
        one(ops.mul, constant, at(w), 2.0),
        one(ops.mul, y, at(x), at(constant), per_sample=True),
        over_samples((3,), at(total), ((), (at(y), 1.0))),
        one(ops.div, mean, at(total), Access(n, 0, (0,))),
        one(ops.sub, z, at(y), at(mean), per_sample=True),
        over_samples((3,), at(squares), ((), (at(z), at(z)))),
        over_samples((3,), at(g), ((), (at(z), at(x))), ((2,), (at(y)._replace(strides=(1, 0)), 0.5))),
        one(ops.add, out, at(z), at(total), per_sample=True),
        one(ops.mul, g, at(g), -0.1),
        one(ops.add, w, at(w), at(g)),
    ]
    return Program([x, w, n, unused, y, z, total, mean, constant, squares, g, out], loops, {}), N


def run_in_parts(program, threads, memory, n):
    """What threads would do, one after the other; memory is changed as `interpret` changes it."""
    made = stages(program, threads)
    cuts = [n * t // threads for t in range(threads + 1)]
    common = {a: xs for a, xs in memory.items() if not a.per_sample}
    common.update({a: [0.0] * a.size for (a,) in made.passed if not a.per_sample})
    own = [{a: xs[b * a.size : c * a.size] for a, xs in memory.items() if a.per_sample} for b, c in pairwise(cuts)]
    for t, (b, c) in enumerate(pairwise(cuts)):
        own[t].update({a: [0.0] * (a.size * (c - b)) for (a,) in made.passed if a.per_sample})
        own[t].update({a: [0.0] * a.size for a in made.shares})
        common.update({each[t]: own[t][a] for a, each in made.shares.items()})
    for stage, in_parts in made.programs:
        for t, (b, c) in enumerate(pairwise(cuts)):
            if in_parts:
                both = {**common, **own[t]}
                interpret(stage, both, c - b)
                own[t].update({a: both[a] for a in stage.arrays if a.per_sample and a.role == "output"})
            elif t == 0:
                interpret(stage, common, 1)
    for a in program.arrays:
        if a.role == "output" and a.per_sample:
            memory[a] = [x for mine in own for x in mine[a]]
    memory.update({a: common[a] for a in program.arrays if a in common})


@pytest.mark.parametrize("threads", [1, 2, 3, N, N + 2])
def test_stage_by_stage_it_computes_what_the_whole_computes(threads):
    results = []
    for split in (False, True):
        program, n = standardized()
        r = random.Random(5)
        memory = {
            a: [r.uniform(-1, 1) for _ in range(a.size * (n if a.per_sample else 1))]
            for a in program.arrays
            if a.role in ("input", "leaf")
        }
        memory[program.array("n")] = [float(n)]
        memory[program.array("squares")] = [0.0] * 3
        if split:
            run_in_parts(program, threads, memory, n)
        else:
            interpret(program, memory, n)
        results.append([memory[program.array(name)] for name in ("w", "squares", "out")])
    for found, expected in zip(*results):
        assert found == pytest.approx(expected, rel=1e-13, abs=1e-14)


def test_what_is_done_once_and_what_in_parts():
    program, _ = standardized()
    made = stages(program, 2)
    assert [in_parts for _, in_parts in made.programs] == [False, True, False, True, False]
    first, forward, mean, backward, update = [{a.name for a in stage.arrays} for stage, _ in made.programs]
    assert first == {"w", "constant"}
    assert forward == {"x", "constant", "y", "share0"}
    assert mean == {"share0_0", "share0_1", "total", "n", "mean"}
    assert backward == {"x", "y", "mean", "z", "total", "share1", "share2", "out"}
    assert {"w", "squares", "share1_0", "share1_1", "share2_0", "share2_1"} <= update
    assert {a.name for (a,) in made.passed} == {"constant", "y", "total", "mean"}


def test_a_number_is_changed_only_after_all_that_read_it():
    program, _ = standardized()
    w, z, late = program.array("w"), program.array("z"), Array("late", 3, "output", True)

    def at(a):
        return Access(a, 0, (1,))

    read = Loop((3,), [Apply(ops.mul, (at(w), at(z)))], [(0, at(late))], True)
    change = Loop((3,), [Apply(ops.add, (at(w), at(program.array("total"))))], [(0, at(w))])  # in stage 2 it could be
    program.loops[-2:] = [read, change]
    program.arrays.append(late)
    made = stages(program, 2)
    written = [{p.array for loop in stage.loops for _, p in loop.stores} for stage, _ in made.programs]
    assert [w in arrays for arrays in written] == [False, False, False, False, True]
    assert [late in arrays for arrays in written] == [False, False, False, True, False]
