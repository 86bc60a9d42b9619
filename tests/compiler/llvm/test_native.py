"""Memory and calls of native code: what is bound where, rows, epochs, instances, and bad buffers."""

import ctypes
import itertools
import math
import random
import sys
import threading
from array import array

import pytest

from milligrad import ops
from milligrad.compiler.llvm import native
from milligrad.compiler.program import Access, Apply, Array, Loop, Program, Reduce, Ref, Segment

pytest.importorskip("llvmlite")
from milligrad.compiler.llvm.vectors import build

CODES = {"float64": "d", "float32": "f"}


def regression(width):
    """A step of gradient descent for the slope of y = Σ w·x; it adds up losses, and keeps count of the steps."""
    x, y = Array("x", width, "input", True), Array("y", 1, "input", True)
    w, seen = Array("w", width, "leaf"), Array("seen", 1, "state")
    count, step = Array("count", 1, "input"), Array("step", 1, "input")
    e, z = Array("e", 1, "value", True), Array("z", 1, "output", True)
    loss, told = Array("loss", 1, "output"), Array("told", 2, "output")
    loops = [
        Loop(
            (),
            [
                Reduce(ops.sum, (Segment((width,), (Access(w, 0, (1,)), Access(x, 0, (1,)))),)),
                Apply(ops.sub, (Ref(0), Access(y))),
            ],
            [(0, Access(z)), (1, Access(e))],
            True,
        ),
        Loop((), [Reduce(ops.sum, (Segment((), (Access(e), Access(e)), True),))], [(0, Access(loss))]),
        Loop((), [Apply(ops.identity, (Access(count),)), Apply(ops.identity, (Access(step),))],
             [(0, Access(told)), (1, Access(told, 1, ()))]),
        Loop((), [Apply(ops.add, (Access(seen), Access(count)))], [(0, Access(seen))]),
        Loop(
            (width,),
            [
                Reduce(ops.sum, (Segment((), (Access(x, 0, (1,)), Access(e, 0, (0,))), True),)),
                Apply(ops.mul, (Ref(0), 0.01)),
                Apply(ops.div, (Ref(1), Access(count, 0, (0,)))),
                Apply(ops.sub, (Access(w, 0, (1,)), Ref(2))),
            ],
            [(3, Access(w, 0, (1,)))],
        ),
    ]  # fmt: skip
    return Program([x, y, w, seen, count, step, e, z, loss, told], loops)


def by_hand(w, xs, ys, order, batch):
    """The same in Python: the losses of the batches and the slope at the end."""
    losses = []
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        errors = [sum(a * b for a, b in zip(w, xs[k])) - ys[k] for k in rows]
        losses.append(sum(e * e for e in errors))
        w = [a - 0.01 * sum(e * xs[k][j] for e, k in zip(errors, rows)) / len(rows) for j, a in enumerate(w)]
    return losses, w


def bound(program, dtype="float64", capacity=1, without=()):
    buffers = {
        a: native.buffer(a.size * (capacity if a.per_sample else 1), dtype)
        for a in program.arrays
        if a.role in native.HANDED_IN and a.name not in without
    }
    return {a.name: a for a in program.arrays}, buffers


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize(("batch", "capacity"), [(1, 1), (1, 4), (4, 4), (5, 8), (40, 64)])
def test_an_epoch_is_its_batches(dtype, batch, capacity):
    rng, width, rows = random.Random(0), 11, 23
    xs = [[rng.uniform(-1, 1) for _ in range(width)] for _ in range(rows)]
    ys = [sum(x) + rng.gauss(0, 0.1) for x in xs]
    program = regression(width)
    names, buffers = bound(program, dtype, capacity, without=("x", "y", "count", "step"))
    code = build(program, capacity, dtype)
    code.bind(buffers)
    order = array("q", rng.sample(range(rows), 20))
    data = {
        names["x"]: array(CODES[dtype], [v for x in xs for v in x]),
        names["y"]: array(CODES[dtype], ys),
    }
    totals = array("d", [100.0])
    told = array("d", [0.0, 0.0])
    code.epoch(
        data, order, batch, 3, 20, count=names["count"], step=names["step"], first_step=7.0,
        totals={names["loss"]: totals, names["told"]: told},
    )  # fmt: skip
    losses, w = by_hand([0.0] * width, xs, ys, list(order[3:]), batch)
    steps = math.ceil(17 / batch)
    assert totals[0] == pytest.approx(100 + sum(losses), rel=1e-12 if dtype == "float64" else 1e-5)
    assert list(buffers[names["w"]]) == pytest.approx(w, rel=1e-11 if dtype == "float64" else 1e-4)
    assert buffers[names["seen"]][0] == 17
    assert list(told) == [17, sum(range(7, 7 + steps))]


@pytest.mark.parametrize("capacity", [1, 4, 16])
@pytest.mark.parametrize("count", [0, 1, 4, 23])
def test_rows(count, capacity):
    rng, width = random.Random(1), 5
    program = regression(width)
    names, buffers = bound(program, capacity=capacity, without=("x", "y", "z"))
    code = build(Program(program.arrays, program.loops[:1]), capacity)
    code.bind(buffers)
    buffers[names["w"]][:] = array("d", [1, 2, 3, 4, 5])
    x = array("d", [rng.uniform(-1, 1) for _ in range(width * count)])
    z = array("d", [math.nan] * count)
    code.rows({names["x"]: bytes_like(x), names["y"]: array("d", [0.0] * count)}, {names["z"]: z}, count)
    wanted = [sum((j + 1) * x[k * width + j] for j in range(width)) for k in range(count)]
    assert list(z) == pytest.approx(wanted, rel=1e-13)


def bytes_like(x):
    """The same numbers in memory that can't be written to."""
    return memoryview(x.tobytes()).cast("d")


def test_calls_see_what_is_in_the_buffers_now():
    x, z = Array("x", 3, "input"), Array("z", 3, "output")
    code = build(Program([x, z], [Loop((3,), [Apply(ops.exp, (Access(x, 0, (1,)),))], [(0, Access(z, 0, (1,)))])]))
    given, taken = array("d", [0, 1, 2]), (ctypes.c_double * 3)()
    code.bind({x: given, z: taken})
    code()
    assert list(taken) == pytest.approx([1, math.e, math.e**2])
    given[0] = 5.0
    code()
    assert taken[0] == pytest.approx(math.exp(5))
    code.bind({x: array("d", [1, 1, 1])})
    code()
    assert list(taken) == pytest.approx([math.e] * 3)


def test_a_bound_buffer_can_not_move_away():
    x, z = Array("x", 1, "input"), Array("z", 1, "output")
    code = build(Program([x, z], [Loop((), [Apply(ops.exp, (Access(x),))], [(0, Access(z))])]))
    given = array("d", [0.0])
    code.bind({x: given, z: array("d", [0.0])})
    with pytest.raises(BufferError):
        given.append(1.0)


def long_program(size=20_000):
    x, y, z = Array("x", 1, "input"), Array("y", size, "value"), Array("z", 1, "output")
    c = Array("c", size, "constant", values=tuple(k / size for k in range(size)))
    fill = Loop((size,), [Apply(ops.mul, (Access(x, 0, (0,)), Access(c, 0, (1,))))], [(0, Access(y, 0, (1,)))])
    total = Loop((), [Reduce(ops.sum, (Segment((size,), (Access(y, 0, (1,)),)),))], [(0, Access(z))])
    return Program([x, y, c, z], [fill, total])


def test_instances_run_at_the_same_time_on_memory_of_their_own():
    program = long_program()
    x, z = program.array("x"), program.array("z")
    first = build(program)
    codes = [first, first.instance(), first.instance()]
    wrong = []

    def work(code, number):
        given, taken = array("d", [number]), array("d", [0.0])
        code.bind({x: given, z: taken})
        for _ in range(300):
            code()
            if not math.isclose(taken[0], number * 19_999 / 2, rel_tol=1e-12):
                wrong.append((number, taken[0]))

    threads = [threading.Thread(target=work, args=(code, float(k + 1))) for k, code in enumerate(codes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("dtype", CODES)
def test_buffers_start_where_a_cache_line_does(dtype):
    for n in (1, 3, 100):
        b = native.buffer(n, dtype)
        assert ctypes.addressof(ctypes.c_char.from_buffer(b)) % 64 == 0
        assert b.format == CODES[dtype] and list(b) == [0.0] * n


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def small():
    program = regression(3)
    names, buffers = bound(program, capacity=4)
    return build(program, 4), names, buffers


@pytest.mark.parametrize(
    ("buffer", "error", "message"),
    [
        (array("d", [0.0] * 2), ValueError, "w: expected 3 numbers, got 2"),
        (array("f", [0.0] * 3), ValueError, "w: expected a buffer of 'd', got one of 'f'"),
        (bytes(24), ValueError, "w: expected a buffer of 'd'"),
        (memoryview(bytes(24)).cast("d"), ValueError, "w: expected a buffer that can be written to"),
        (memoryview(array("d", [0.0] * 6))[::2], ValueError, "w: expected a contiguous buffer"),
        ([0.0, 0.0, 0.0], TypeError, "w: expected a buffer, such as array\\('d'\\), got list"),
        (None, TypeError, "w: expected a buffer"),
    ],
)
def test_bad_buffers(buffer, error, message):
    code, names, buffers = small()
    with pytest.raises(error, match=message):
        code.bind({**buffers, names["w"]: buffer})
    with pytest.raises(ValueError, match="memory: expected a buffer for each array, got none for count, loss"):
        code()


def test_arrays_of_other_programs_are_refused():
    code, _, buffers = small()
    with pytest.raises(ValueError, match="stranger: expected an array of the program"):
        code.bind({**buffers, Array("stranger", 1, "input"): array("d", [0.0])})


def test_missing_arrays_are_named():
    code, names, buffers = small()
    del buffers[names["w"]], buffers[names["step"]]
    code.bind(buffers)
    with pytest.raises(ValueError, match="got none for step, w; bind it first"):
        code()
    with pytest.raises(ValueError, match="got none for step, w"):
        code.rows({}, {}, 1)
    with pytest.raises(ValueError, match="got none for w;"):
        code.epoch({}, array("q", [0]), 1, 0, 1, step=names["step"])


@pytest.mark.parametrize("n", [0, -1, 5])
def test_bad_numbers_of_samples(n):
    code, _, buffers = small()
    code.bind(buffers)
    with pytest.raises(ValueError, match=f"n: expected 1 to 4 samples, got {n}"):
        code(n)
    with pytest.raises(ValueError, match=f"batch: expected 1 to 4 samples, got {n}"):
        code.epoch({}, array("q", [0]), n, 0, 1)


def test_bad_epochs():
    code, names, buffers = small()
    code.bind(buffers)
    x, y = array("d", [0.0] * 15), array("d", [0.0] * 5)
    data = {names["x"]: x, names["y"]: y}
    for order, message in (
        (array("q", [0, 5]), "x: expected 18 numbers, got 15"),
        (array("q", [0, -1]), "order: expected numbers of rows, got -1"),
        (array("d", [0, 1]), "order: expected a buffer of 'q', got one of 'd'"),
    ):
        with pytest.raises(ValueError, match=message):
            code.epoch(data, order, 2, 0, 2)
    with pytest.raises(ValueError, match="start, stop: expected 0 <= start <= stop <= 1, got 0 and 2"):
        code.epoch(data, array("q", [0]), 2, 0, 2)
    with pytest.raises(ValueError, match="count: expected an array that has a row for each sample"):
        code.epoch({names["count"]: array("d", [0.0])}, array("q", [0]), 1, 0, 1)
    with pytest.raises(ValueError, match="loss: expected 1 numbers, got 2"):
        code.epoch(data, array("q", [0]), 1, 0, 1, totals={names["loss"]: array("d", [0.0, 0.0])})
    with pytest.raises(ValueError, match="stranger: expected an array of the program"):
        code.epoch(data, array("q", [0]), 1, 0, 1, count=Array("stranger", 1, "input"))
    before = list(buffers[names["w"]])
    code.epoch(data, array("q", []), 1, 0, 0)
    assert list(buffers[names["w"]]) == before and buffers[names["seen"]][0] == 0


def test_rows_of_another_length():
    code, names, buffers = small()
    code.bind(buffers)
    with pytest.raises(ValueError, match="x: expected 6 numbers, got 5"):
        code.rows({names["x"]: array("d", [0.0] * 5)}, {}, 2)
    with pytest.raises(ValueError, match="z: expected a buffer that can be written to"):
        code.rows({names["x"]: array("d", [0.0] * 6)}, {names["z"]: bytes_like(array("d", [0.0, 0.0]))}, 2)


def test_without_llvmlite_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    native.host.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'milligrad-autodiff\[native\]'"):
        build(regression(1))


@pytest.mark.parametrize("n", [*range(1, 20), 64, 71])
def test_one_number_that_is_not_finite_is_found_wherever_it_stands(n):
    numbers = array("d", [1.7e308 * (-1) ** (i // 2) for i in range(n)])  # sums of them overflow
    asked = native.finite_in(numbers)
    assert asked() and native.finite(numbers)
    for i in range(n):
        for bad in (math.nan, math.inf, -math.inf):
            kept, numbers[i] = numbers[i], bad
            assert not asked() and not native.finite(numbers)
            numbers[i] = kept
    assert asked() and native.finite(numbers)


def test_a_buffer_that_is_asked_about_again_stays_where_it_is():
    numbers = array("d", [1.0] * 9)
    asked = native.finite_in(numbers)
    with pytest.raises(BufferError):
        numbers.append(1.0)
    del numbers
    assert asked() and native.finite(array("d"))


def test_long_buffers_begin_at_different_places_of_a_page_and_all_at_a_cache_line():
    sizes = [600, 3, 600, 600, 512, 1, *[1000] * 20]
    buffers = [native.buffer(n) for n in sizes]
    places = [ctypes.addressof(ctypes.c_char.from_buffer(b)) % 4096 for b in buffers]
    assert not any(place % 64 for place in places)
    long = [place for n, place in zip(sizes, places) if n >= 512]
    for a, b in itertools.pairwise(long):
        assert 512 <= (b - a) % 4096 <= 4096 - 512, "a store would be taken for what a later load needs"
    assert not any(any(b) for b in buffers)
