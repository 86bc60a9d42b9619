"""`compile` against the function itself: arguments, results, map, value, transforms, threads, and what it refuses."""

import copy
import gc
import importlib.util
import math
import pickle
import random
import re
import sys
import threading
import weakref
from array import array
from collections import namedtuple
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise

import pytest

import milligrad as mg
from milligrad import TraceError, Value, nn, no_grad, ops, optim, transforms
from milligrad.compiler import backends
from milligrad.compiler.compiled import compile
from milligrad.engine import number

BACKENDS = [
    "python",
    pytest.param("llvm", marks=pytest.mark.skipif(not backends.has_llvmlite(), reason="needs llvmlite")),
]
SHARED = {}  # programs that several tests use: LLVM takes 20 to 200 ms for one


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def shared(f, backend):
    """`compile(f)`, the same for all tests that ask for it."""
    return SHARED.setdefault((f, backend), compile(f, backend=backend))


def about(x):
    return pytest.approx(x, rel=1e-12, abs=1e-13)


def agree(found, expected):
    """The same nesting, and the same numbers to 1e-12; all numbers floats."""
    if isinstance(expected, dict):
        assert type(found) is dict and list(found) == list(expected)
        agree(list(found.values()), list(expected.values()))
    elif isinstance(expected, (list, tuple)):
        assert type(found) is type(expected) and len(found) == len(expected)
        for x, y in zip(found, expected):
            agree(x, y)
    elif isinstance(expected, (bool, str)) or expected is None:
        assert found is expected
    else:
        assert type(found) is float and found == about(number(expected))


class Half:
    """A number of a kind of its own."""

    def __float__(self):
        return 0.5


def product_and_sum(x, y):
    return x * y, x + y


def rosenbrock(xs):
    return sum(100 * (y - x**2) ** 2 + (1 - x) ** 2 for x, y in pairwise(xs))


def wave(x, y):
    return x**3 * ops.sin(y) + ops.exp(-x * y)


# ── Arguments and results ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "numbers", [(1.5, -2.0), (3, 4), (Value(0.5, requires_grad=False), 2), (Half(), Half()), (True + 1, 10**20)]
)
def test_any_number_is_an_argument(backend, numbers):
    agree(shared(product_and_sum, backend)(*numbers), product_and_sum(*map(number, numbers)))


def test_arguments_nest_and_so_do_results(backend):
    def f(x, pair, table, scale=1.0, **more):
        return {
            "sum": [ops.sum(row) * scale for row in table],
            "pair": (pair[1], [pair[0] * more["named"]["a"]]),
            "x": x,
        }

    def arguments(r):
        u = r.random
        return (u(), (u(), u())), dict(table=[[u(), u()], [u()], []], scale=u(), named={"a": u(), "b": (u(), [])})

    g = compile(f, backend=backend)
    for seed in range(3):
        args, kwargs = arguments(random.Random(seed))
        agree(g(*args, **kwargs), f(*args, **kwargs))
    assert repr(g) == f"<compiled f: {backend}, 1 traced>"


def test_arrays_ranges_and_tuples_are_lists(backend):
    def f(xs):
        return ops.dot(xs, xs)

    g = shared(f, backend)
    for xs in (
        [1.0, 2.0, 3.0],
        (1, 2, 3),
        array("d", [1, 2, 3]),
        range(1, 4),
        [Value(1.0, requires_grad=False), 2, Half()],
    ):
        assert g(xs) == about(sum(number(x) ** 2 for x in xs))
    assert repr(g).endswith("2 traced>")  # a tuple may be treated in another way


P = Value(3.0)
RESULTS = {
    "a float": lambda x: 2.5,
    "an int": lambda x: 7,
    "the argument": lambda x: x,
    "a parameter": lambda x: P,
    "of parameters alone": lambda x: P * P,
    "the same twice": lambda x: (x * P, x, x * P, [x]),
    "constants among others": lambda x: [1, x, 2.0, -x, 1],
    "nothing": lambda x: None,
    "no number": lambda x: ("text", None, True),
    "empty": lambda x: ([], (), {}),
    "a dict": lambda x: {"a": x, "b": {"c": 2 * x}},
    "a comparison": lambda x: (ops.where(x > 0, 1.0, 0.0), x > 5.0),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_what_the_function_returns_with_floats_for_numbers(backend, name):
    f = RESULTS[name]
    expected = f(1.5) if name != "a comparison" else (1.0, 0.0)
    agree(compile(f, backend=backend)(1.5), expected)


def test_what_is_no_number_is_fixed_and_traced_for_each_value(backend):
    calls = []

    def f(x, flag, kind=None):
        calls.append((flag, kind))
        return (2 * x if flag else -x) + {"a": 1, None: 0}[kind]

    g = compile(f, backend=backend)
    for flag, kind in [(True, "a"), (False, "a"), (True, None), (True, "a"), (False, "a")]:
        assert g(3.0, flag, kind) == f(3.0, flag, kind)
    assert len(calls) == 3 + 5


def test_without_arguments_and_without_parameters(backend):
    assert compile(lambda: 5, backend=backend)() == 5.0
    p = Value(2.0)
    f = compile(lambda: p * p, backend=backend)
    assert f() == 4.0
    p.data = 3.0
    assert f() == 9.0


def test_a_new_shape_is_a_new_trace_and_nothing_else_is(backend):
    calls = []

    def f(xs, y):
        calls.append(len(xs))
        return ops.sum(xs) * y

    g = compile(f, backend=backend)
    for n in (1, 2, 1, 3, 2, 1):
        for k in range(3):
            assert g([float(k + i) for i in range(n)], 2) == 2 * sum(k + i for i in range(n))
    assert calls == [1, 2, 3]


def test_it_bears_the_name_of_the_function_and_is_a_method_where_that_is_one(backend):
    def f(x):
        """What it is."""
        return x

    g = compile(f, backend=backend)
    assert g.__name__ == "f" and g.__doc__ == "What it is." and g.__wrapped__ is g.uncompiled is f
    assert repr(g) == f"<compiled f: {backend}, 0 traced>"
    assert repr(compile(nn.Linear(1, 1), backend=backend)) == f"<compiled Linear: {backend}, 0 traced>"
    assert repr(compile(partial(f, 1.0), backend=backend)) == f"<compiled partial: {backend}, 0 traced>"

    class Scaled:
        factor = 3.0

        @partial(compile, backend=backend)
        def times(self, x):
            return self.factor * x

    assert Scaled().times(2.0) == 6.0


def test_explain_and_source_show_what_was_made_of_the_code(backend):
    g = compile(rosenbrock, backend=backend)
    assert g.source == "" and g.explain() == "rosenbrock: not traced yet; call it once"
    g([0.1 * i for i in range(8)])
    text = g.explain()
    head, counts, times = text.splitlines()[:3]
    assert head == f"rosenbrock, {backend} backend, float64"
    assert "nodes traced" in counts and "groups" in counts and counts.endswith("loops")
    assert all(f"{name}: " in times for name in ("trace", "simplify", "reroll", "fuse", "emit"))
    assert ("def run" in g.source) is (backend == "python")
    assert g.source not in text and g.explain(full=True) == f"{text}\n\n{g.source}"


def test_explain_fits_a_screen(backend):
    def f(x):
        y = list(x)
        for _ in range(10):
            for i in range(1, len(y) - 1):
                y[i] = 0.5 * y[i] + 0.25 * (y[i - 1] + y[i + 1])
            y[0], y[-1] = y[-1], y[0]
        return ops.sum([i * z for i, z in enumerate(y)])

    g = compile(transforms.value_and_grad(f), backend=backend)
    g([1.0, 2.0, 3.0, 4.0, 5.0])
    short, full = g.explain().splitlines(), g.explain(full=True).splitlines()
    assert len(short) <= 33 and max(map(len, short)) <= 122 < max(map(len, full))


def test_a_python_program_can_be_stepped_into():
    import linecache

    g = compile(rosenbrock, backend="python")
    g([1.0, 2.0, 3.0])
    assert any(
        "def run" in "".join(lines) for _, _, lines, _ in filter(lambda x: len(x) == 4, linecache.cache.values())
    )


# ── What is captured, and when it is traced again ────────────────────────────────────────────────────────────────


def test_captured_parameters_stay_live(backend):
    p, frozen, unused = Value(2.0), Value(3.0, requires_grad=False), Value(math.nan)
    f = compile(
        lambda x: (p * x, frozen + x, p * frozen, abs(p), ops.where(p > frozen, p, frozen), unused.name),
        backend=backend,
    )
    for a, b in [(2.0, 3.0), (-5.0, 7.0), (8.0, 1.0)]:
        p.data, frozen.data = a, b
        assert f(10.0) == (10 * a, b + 10, a * b, abs(a), max(a, b), None)


def test_a_value_that_was_computed_before_keeps_its_number(backend):
    p = Value(2.0)
    double = 2 * p
    f = compile(lambda x: double * x, backend=backend)
    assert f(1.0) == 4.0
    p.data = 5.0
    assert f(1.0) == 4.0 == (double * 1.0).data
    f.value(3.0).backward()
    assert p.grad == 6.0


def test_a_detached_parameter_is_live_and_has_no_gradient(backend):
    p = Value(2.0)
    f = compile(lambda x: p.detach() * p * x, backend=backend)
    f.value(1.0)
    p.data = 5.0
    z = f.value(2.0)
    z.backward()
    assert z.data == 50.0 and p.grad == 10.0


def test_train_and_eval_are_noticed_and_each_is_traced_once(backend):
    calls = []
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5))

    def f(x):
        calls.append(None)
        return model(x)

    g = compile(f, backend=backend)
    for _ in range(2):
        model.train()
        assert 0.0 in [x for _ in range(20) for x in g([1.0, 2.0])]
        model.eval()
        agree(g([1.0, 2.0]), [x.data for x in model([1.0, 2.0])])
    assert len(calls) == 2


def test_a_function_that_sets_the_mode_itself_is_traced_once(backend):
    calls = []
    model = nn.Dropout(0.5)

    def f(x):
        calls.append(None)
        z = model.eval()(x)
        model.train()
        return z

    g = compile(f, backend=backend)
    assert [g([1.0]), g([2.0]), g([3.0])] == [[1.0], [2.0], [3.0]] and len(calls) == 1


def test_random_numbers_are_drawn_anew_and_are_those_of_the_eager_engine(backend):
    layer = nn.Dropout(0.4)
    g = compile(layer, backend=backend)
    xs = [float(i + 1) for i in range(12)]
    mg.manual_seed(5)
    found = [g(xs) for _ in range(3)]
    mg.manual_seed(5)
    agree(found, [layer(xs) for _ in range(3)])
    assert found[0] != found[1]


def test_map_draws_for_each_row(backend):
    layer = nn.Dropout(0.5)
    g = compile(lambda *xs: layer(list(xs)), backend=backend)
    mg.manual_seed(6)
    found = g.map([[1.0, 2.0, 3.0]] * 5)
    mg.manual_seed(6)
    agree(found, [layer([1.0, 2.0, 3.0]) for _ in range(5)])


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_question_for_a_number_passes_through_and_leaves_nothing_behind(backend):
    def f(x):
        return 1.0 if x > 0 else 2.0

    g = compile(f, backend=backend)
    for _ in range(2):
        with pytest.raises(TraceError, match="where"):
            g(1.0)
    assert gc.isenabled() and type(Value(1.0) * Value(2.0)) is Value
    assert repr(g).endswith("0 traced>")


def test_what_the_function_raises_passes_through(backend):
    g = compile(lambda x: {}[x.name], backend=backend)
    with pytest.raises(KeyError):
        g(1.0)
    with pytest.raises(TypeError, match="positional argument"):
        compile(wave, backend=backend)(1.0)
    with pytest.raises(TypeError, match="argument: expected a real number or a Value, got complex 2j"):
        compile(wave, backend=backend)(1.0, 2j)


NOT_FINITE = {
    "overflow": (lambda x: ops.exp(x), 1000.0),
    "outside the domain": (lambda x: ops.log(x), -1.0),
    "division": (lambda x: 1 / x, 0.0),
    "infinite argument": (lambda x: 2 * x, math.inf),
    "opposite infinities": (lambda x: (x, -x), math.inf),
    "not a number": (lambda x: [x, 1.0], math.nan),
}


@pytest.mark.parametrize("name", NOT_FINITE)
def test_a_result_that_is_not_finite_says_to_call_the_function_itself(backend, name):
    f, x = NOT_FINITE[name]
    g = compile(f, backend=backend)
    with pytest.raises(FloatingPointError, match=r"not finite .*the function itself, without compile, says where"):
        g(x)
    g(0.5)
    with pytest.raises(FloatingPointError, match=r"the result of rows 3 and 5 is not finite"):
        g.map([[0.5], [1.5], [2.5], [x], [0.25], [x]])
    with pytest.raises(FloatingPointError, match=r"the result of row 300 is not finite"):
        g.map(array("d", [0.5] * 300 + [x] + [0.5] * 300))


def test_results_whose_sum_overflows_are_finite(backend):
    assert compile(lambda x: (x, x, x), backend=backend)(1.7e308) == (1.7e308,) * 3


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"backend": "numba"}, ValueError, r"backend: expected 'auto', 'python' or 'llvm', got 'numba'"),
        ({"dtype": "float16"}, ValueError, r"dtype: expected 'float64' or 'float32', got 'float16'"),
        ({"dtype": "float32"}, ValueError, r"dtype: 'float32' needs backend='llvm', got backend='python'"),
    ],
)
def test_options_are_checked(options, error, match):
    with pytest.raises(error, match=match):
        compile(wave, **{"backend": "python", **options})


def test_only_functions_are_compiled():
    with pytest.raises(TypeError, match="f: expected a function, got int 5"):
        compile(5, backend="python")


@pytest.fixture
def llvmlite(monkeypatch):
    """A function that says whether llvmlite is installed."""

    def install(there):
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *more: there if name == "llvmlite" else find(name, *more)
        )
        backends._auto.cache_clear()
        backends.has_llvmlite.cache_clear()

    yield install
    monkeypatch.undo()
    backends._auto.cache_clear()
    backends.has_llvmlite.cache_clear()


def test_llvm_without_llvmlite_says_what_to_install(llvmlite):
    llvmlite(None)
    with pytest.raises(ImportError, match=r"pip install 'milligrad-autodiff\[native\]'"):
        compile(wave, backend="llvm")


@pytest.mark.parametrize(("there", "taken"), [(None, "python"), (object(), "llvm")])
def test_auto_says_once_what_it_took(llvmlite, capsys, there, taken):
    llvmlite(there)
    assert compile(wave).backend == compile(rosenbrock).backend == taken
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and f"the {taken} backend" in output.err
    assert ("pip install" in output.err) is (taken == "python")


# ── map ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [0, 1, 3, 256, 600])
def test_map_is_the_function_of_each_row(backend, count):
    g = shared(wave, backend)
    r = random.Random(count)
    rows = [[r.uniform(-1, 1), r.uniform(-1, 1)] for _ in range(count)]
    expected = [wave(*row) for row in rows]
    assert g.map(rows) == about(expected) and g.map([tuple(row) for row in rows]) == about(expected)
    flat = array("d", [x for row in rows for x in row])
    found = g.map(flat)
    assert isinstance(found, memoryview) and found.format == "d" and list(found) == about(expected)


def test_map_nests_as_the_function_does(backend):
    g = compile(lambda x, pair: {"a": x * pair[0], "b": (pair[1], 3)}, backend=backend)
    agree(
        g.map([[2.0, (3.0, 4)], [Value(5.0, requires_grad=False), (6, 7)]]),
        [{"a": 6.0, "b": (4.0, 3)}, {"a": 30.0, "b": (7.0, 3)}],
    )


def test_map_of_results_that_are_constant_or_empty(backend):
    assert compile(lambda x: 3, backend=backend).map([[1.0], [2.0]]) == [3.0, 3.0]
    assert compile(lambda x: (P, 2), backend=backend).map([[1.0]] * 2) == [(P.data, 2.0)] * 2
    assert compile(lambda x: (), backend=backend).map([[1.0]] * 2) == [(), ()]
    assert list(compile(lambda x: (), backend=backend).map(array("d", [1.0, 2.0]))) == []
    assert compile(lambda: 1, backend=backend).map([[], []]) == [1.0, 1.0]


def two_dimensions(numbers, columns, typecode="d"):
    flat = memoryview(array(typecode, numbers))
    return flat.cast("B").cast(typecode, (len(numbers) // columns, columns))


def test_a_buffer_of_two_dimensions_holds_a_row_in_each_row(backend):
    g = shared(product_and_sum, backend)
    found = g.map(two_dimensions([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2))
    assert found.shape == (3, 2) and found.tolist() == [[2.0, 3.0], [12.0, 7.0], [30.0, 11.0]]
    assert g.map(array("d", [1.0, 2.0, 3.0, 4.0])).tolist() == [[2.0, 3.0], [12.0, 7.0]]
    assert g.map(two_dimensions([1, 2, 3, 4], 2, "f")).tolist() == [[2.0, 3.0], [12.0, 7.0]]
    assert g.map(two_dimensions([1, 2, 3, 4], 2, "i")).tolist() == [[2.0, 3.0], [12.0, 7.0]]
    assert g.map(bytes([1, 2, 3, 4])).tolist() == [[2.0, 3.0], [12.0, 7.0]]


def test_a_row_is_the_list_that_a_function_of_one_list_takes(backend):
    g = shared(rosenbrock, backend)
    rows = [[0.5, 1.5, -1.0], [1.0, 2.0, 3.0]]
    expected = [rosenbrock(row) for row in rows]
    assert list(g.map(two_dimensions([*chain(*rows)], 3))) == about(expected)
    assert g.map([[row] for row in rows]) == about(expected)
    gradient = compile(transforms.grad(rosenbrock), backend=backend)
    found = gradient.map(two_dimensions([*chain(*rows)], 3))
    assert found.tolist() == [about(transforms.grad(rosenbrock)(row)) for row in rows]


def test_a_row_is_as_many_arguments_as_the_function_can_take(backend):
    rows = two_dimensions([1.0, 2.0, 3.0, 4.0], 2)
    assert list(compile(lambda x, y=0.5: x * y, backend=backend).map(rows)) == [2.0, 12.0]
    assert list(compile(lambda x, *more: x * more[0], backend=backend).map(rows)) == [2.0, 12.0]


def test_a_row_of_one_number_is_that_number(backend):
    g = compile(lambda x: x * x, backend=backend)
    assert list(g.map(two_dimensions([1.0, 2.0, 3.0], 1))) == [1.0, 4.0, 9.0] == list(g.map(array("d", [1, 2, 3])))


def test_numbers_that_lie_apart_or_backwards_are_copied(backend):
    g = compile(lambda x: x * x, backend=backend)
    assert list(g.map(memoryview(array("d", range(6)))[::2])) == [0.0, 4.0, 16.0]
    assert list(g.map(memoryview(array("f", range(3)))[::-1])) == [4.0, 1.0, 0.0]


def test_a_buffer_is_read_and_never_changed_and_may_be_read_only(backend):
    g = compile(lambda x: x + 1, backend=backend)
    rows = array("d", [1.0, 2.0])
    assert list(g.map(rows)) == [2.0, 3.0] and list(rows) == [1.0, 2.0]
    assert list(g.map(memoryview(rows).toreadonly())) == [2.0, 3.0]


def test_numpy_is_a_buffer_like_any_other(backend):
    np = pytest.importorskip("numpy")
    g, rows = shared(product_and_sum, backend), np.arange(12.0).reshape(6, 2)
    expected = np.stack([rows[:, 0] * rows[:, 1], rows.sum(1)], 1)
    columns = np.asfortranarray(rows)
    for x in (rows, rows.astype("f"), rows.astype(int), rows.astype("u1"), columns, np.repeat(rows, 2, 0)[::2]):
        assert np.array_equal(np.asarray(g.map(x)), expected)
    assert g.map(np.zeros((0, 2))).tolist() == []
    assert g(np.float32(2.0), np.int64(3)) == (6.0, 5.0)
    assert shared(rosenbrock, backend)(np.arange(4.0)) == about(rosenbrock([0.0, 1.0, 2.0, 3.0]))
    with pytest.raises(TypeError, match=r"rows: expected a buffer of numbers .* in the format 'Zd'"):
        g.map(rows.astype(complex))


@pytest.mark.parametrize(
    ("f", "rows", "error", "match"),
    [
        (wave, 5, TypeError, "rows: expected a list of rows or a buffer of numbers, got int"),
        (wave, "ab", TypeError, "rows: expected a list of rows or a buffer of numbers, got str"),
        (wave, [1.0, 2.0], TypeError, r"rows\[0\]: expected a list of arguments, got float 1.0"),
        (wave, [[1.0, 2.0], 3.0], TypeError, r"rows\[1\]: expected a list of arguments, got float 3.0"),
        (
            wave,
            [[1.0, 2.0], [1.0]],
            ValueError,
            r"rows\[1\]: expected the shape of rows\[0\], \[1.0, 2.0\], got \[1.0\]",
        ),
        (wave, [[1.0]], TypeError, "missing 1 required positional argument"),
        (wave, array("d", [1, 2, 3]), ValueError, "rows: expected 2 numbers for each row, got 3 in all"),
        (wave, two_dimensions([1, 2, 3], 3), TypeError, "takes 2 positional arguments but 3"),
        (lambda *xs: sum(xs), array("d", [1]), ValueError, "a buffer of two dimensions, since f takes any number"),
        (
            wave,
            memoryview(bytes(8)).cast("B", (2, 2, 2)),
            TypeError,
            "rows: expected a buffer of numbers of one or two dimensions, got one of 3",
        ),
    ],
)
def test_map_refuses(backend, f, rows, error, match):
    with pytest.raises(error, match=match):
        compile(f, backend=backend).map(rows)


# ── value, and backward ──────────────────────────────────────────────────────────────────────────────────────────


def test_backward_fills_the_gradients_of_parameters_and_of_values_among_the_arguments(backend):
    p, q = Value(3.0), Value(-1.5)
    f = lambda x, y: p * x * y[0] + ops.sin(q * p) + y[1]  # noqa: E731
    g = compile(f, backend=backend)
    for x, y in [(0.5, [2.0, 3.0]), (Value(0.7), [Value(1.1), 3.0]), (0.7, [2.0, Value(0.1)]), (p, [q, p])]:
        results = []
        for h in (f, g.value):
            leaves = [v for v in (x, *y, p, q) if isinstance(v, Value)]
            for v in leaves:
                v.zero_grad()
            z = 2 * h(x, y) + 1
            z.backward()
            z.backward()
            results.append([z.data, *[v.grad for v in leaves]])
        assert results[0] == about(results[1])
    assert repr(g).endswith("4 traced>")  # one for each set of arguments that require a gradient


def test_which_of_the_arguments_require_a_gradient_is_told_apart(backend):
    g = compile(lambda x, y: x * x * y, backend=backend)
    a, b, constant = Value(2.0), Value(3.0), Value(5.0, requires_grad=False)
    g.value(a, 3.0).backward()
    g.value(2.0, b).backward()
    g.value(a, constant).backward()
    assert (a.grad, b.grad, constant.grad) == (12.0 + 20.0, 4.0, 0.0)


def test_the_gradient_is_of_the_moment_of_the_call(backend):
    p = Value(3.0)
    z = compile(lambda x: p * p * x, backend=backend).value(2.0)
    p.data = 100.0
    z.backward()
    assert z.data == 18.0 and p.grad == 12.0


def test_freezing_after_the_first_call_is_noticed(backend):
    model = nn.Linear(2, 1)
    g = compile(lambda x: model(x)[0], backend=backend)
    g.value([1.0, 2.0]).backward()
    assert model.weight.grad == [[1.0, 2.0]] and model.bias.grad == [1.0]
    model.zero_grad()
    model.weight.requires_grad_(False)
    g.value([1.0, 2.0]).backward()
    assert model.weight.grad == [[0.0, 0.0]] and model.bias.grad == [1.0]
    model.requires_grad_(False)
    assert not g.value([1.0, 2.0]).requires_grad
    model.zero_grad()
    model.requires_grad_(True)
    g.value([1.0, 2.0]).backward()
    assert model.weight.grad == [[1.0, 2.0]] and model.bias.grad == [1.0]


def test_thawing_after_the_first_call_is_noticed(backend):
    p, q = Value(2.0, requires_grad=False), Value(3.0)
    g = compile(lambda x: p * q * x, backend=backend)
    g.value(1.0).backward()
    assert (p.grad, q.grad) == (0.0, 2.0)
    p.requires_grad = True
    g.value(1.0).backward()
    assert (p.grad, q.grad) == (3.0, 4.0)


def test_what_only_derivatives_depend_on_is_live_too(backend):
    p = Value(2.0)
    g = compile(lambda x: abs(p) + p**3 + ops.max([p, x]) + 0 * x, backend=backend)
    g.value(0.0)
    for x in (2.0, -3.0):
        p.data, p.grad = x, 0.0
        g.value(0.0).backward()
        assert p.grad == math.copysign(1, x) + 3 * x * x + (x > 0)


def test_in_no_grad_and_of_constants_the_value_is_a_constant(backend):
    p = Value(3.0)
    g = compile(lambda x: p * x, backend=backend)
    with no_grad():
        z = g.value(2.0)
    assert z.data == 6.0 and not z.requires_grad and z.inputs == ()
    constant = compile(lambda x: 2 * x, backend=backend).value(4.0)
    assert constant.data == 8.0 and not constant.requires_grad
    assert compile(lambda x: 2, backend=backend).value(Value(4.0)).data == 2.0


@pytest.mark.parametrize(("result", "kind"), [((1.0,), "tuple"), ([], "list"), ({}, "dict"), (None, "NoneType")])
def test_value_is_of_functions_that_return_one_number(backend, result, kind):
    with pytest.raises(TypeError, match=rf"<lambda>.value: expected a function that returns one number, got {kind}"):
        compile(lambda x: result, backend=backend).value(1.0)
    with no_grad(), pytest.raises(TypeError, match="returns one number"):
        compile(lambda x: result, backend=backend).value(1.0)


def test_the_gradient_as_values_refuses_to_be_differentiated_again(backend):
    x = Value(2.0)
    z = shared(wave, backend).value(x, 1.0)
    first = mg.grad(z, x)
    v = Value(2.0)
    assert first.data == about(mg.grad(wave(v, 1.0), v).data)
    with pytest.raises(RuntimeError, match=r"compile\(grad\(wave\)\)"):
        mg.grad(first, x)


def test_it_drops_into_an_eager_loop_with_an_optimizer(backend):
    r = random.Random(3)
    data = [([r.gauss(0, 1) for _ in range(3)], r.randrange(2)) for _ in range(20)]

    def train(wrap):
        mg.manual_seed(1)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        loss_fn = nn.CrossEntropyLoss()
        loss = wrap(lambda x, y: loss_fn(model(x), y))
        optimizer = optim.Adam(model.parameters(), lr=0.05)
        losses = []
        for x, y in data:
            optimizer.zero_grad()
            z = loss(x, y)
            z.backward()
            optimizer.step()
            losses.append(z.data)
        return losses + [v.data for p in model.parameters() for v in p.values()]

    assert train(lambda f: compile(f, backend=backend).value) == pytest.approx(train(lambda f: f), rel=1e-11, abs=1e-12)


# ── Transforms ───────────────────────────────────────────────────────────────────────────────────────────────────

TRANSFORMED = {
    "grad": (transforms.grad(rosenbrock), [[0.5, 1.5, -1.0]]),
    "value_and_grad": (transforms.value_and_grad(wave, argnums=(0, 1)), [0.7, 1.1]),
    "the last argument": (transforms.grad(wave, argnums=-1), [0.7, 1.1]),
    "jacobian": (transforms.jacobian(lambda xs: [xs[0] * xs[1], ops.exp(xs[1]), 3.0]), [[0.7, 1.1]]),
    "hessian": (transforms.hessian(rosenbrock), [[0.5, 1.5, -1.0]]),
    "hessian of several": (transforms.hessian(wave, argnums=(0, 1)), [0.7, 1.1]),
    "grad of grad": (transforms.grad(transforms.grad(wave)), [0.7, 1.1]),
    "grad of grad of grad": (transforms.grad(transforms.grad(transforms.grad(wave), 1)), [0.7, 1.1]),
    "jvp": (lambda x, v: transforms.jvp(rosenbrock, (x,), (v,)), [[0.5, 1.5, -1.0], [1.0, -2.0, 0.5]]),
    "hvp": (lambda x, v: transforms.hvp(rosenbrock, x, v), [[0.5, 1.5, -1.0], [1.0, -2.0, 0.5]]),
    "of captured": (transforms.value_and_grad(lambda x: P * x * x + P), [0.7]),
    "of a number that was known": (lambda x: transforms.grad(wave)(2.0, x), [1.1]),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transforms_compile(backend, name):
    f, args = TRANSFORMED[name]
    expected = f(*args)
    agree(compile(f, backend=backend)(*args), expected)


def test_what_is_compiled_can_be_compiled_and_transformed_again(backend):
    g = shared(wave, backend)
    x, y = 0.7, 1.1
    assert compile(g, backend=backend)(x, y) == about(wave(x, y))
    assert compile(lambda a: g(a, y) + g.value(a, y), backend=backend)(x) == about(2 * wave(x, y))
    first = transforms.grad(wave)(x, y)
    assert transforms.grad(g)(x, y) == about(first)
    assert transforms.value_and_grad(g)(x, y)[1] == about(first)
    assert compile(transforms.grad(g), backend=backend)(x, y) == about(first)
    assert transforms.hessian(g)(x, y) == about(transforms.hessian(wave)(x, y))
    assert transforms.jvp(g, (x, y), (1.0, 0.0))[1] == about(first)
    assert g(Value(x, requires_grad=False), y) == about(wave(x, y))


def test_the_gradient_by_a_parameter_inside_a_function(backend):
    p = Value(2.0)
    g = compile(lambda x: mg.grad(p**3 * x, p), backend=backend)
    for a in (2.0, 5.0):
        p.data = a
        assert g(4.0) == about(12 * a * a)


# ── Threads ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_threads_take_turns(backend, request):
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)  # else most calls would be over before another thread has its turn
    p = Value(0.5)
    g = compile(lambda xs: p * rosenbrock(xs), backend=backend)
    wrong, start = [], threading.Barrier(8)

    def work(seed):
        r = random.Random(seed)
        start.wait()
        for _ in range(20):
            xs = [r.uniform(-1, 1) for _ in range(r.choice((2, 3)))]
            expected = 0.5 * rosenbrock(xs)
            found = [g(xs), g.map([[xs], [xs]])[1], g.value(xs).data, (Value(2.0) * Value(3.0)).data]
            if found != about([expected, expected, expected, 6.0]):
                wrong.append((xs, found, expected))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ── float32 ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_float32_rounds_and_nothing_else():
    pytest.importorskip("llvmlite")
    g = compile(wave, backend="llvm", dtype="float32")
    found, expected = g(0.7, 1.1), wave(0.7, 1.1)
    assert found != expected and found == pytest.approx(expected, rel=1e-6)
    assert g.explain().startswith("wave, llvm backend, float32")
    rows = array("f", [0.1, 0.2, 0.3, 0.4])
    assert list(g.map(rows)) == pytest.approx([wave(*rows[:2]), wave(*rows[2:])], rel=1e-6)
    assert g.map([[0.1, 0.2]]) == pytest.approx([wave(0.1, 0.2)], rel=1e-6)
    x = Value(0.7)
    g.value(x, 1.1).backward()
    assert x.grad == pytest.approx(transforms.grad(wave)(0.7, 1.1), rel=1e-6)
    with pytest.raises(FloatingPointError):
        g(1e30, 1.0)


def test_a_captured_value_is_never_baked_in_as_a_condition_or_a_number():
    w = Value(1.0)
    chosen = compile(lambda x: ops.where(w, x, 2 * x), backend="python")
    assert chosen(3.0) == 3.0
    w.data = 0.0
    assert chosen(3.0) == 6.0
    for f in (lambda x: x * float(w), lambda x: x * math.exp(w), lambda x: x if w else 2 * x, lambda x: x * int(w)):
        with pytest.raises(TraceError, match=r"test_compiled\.py"):
            compile(f, backend="python")(2.0)


# ── Copies and pickles ───────────────────────────────────────────────────────────────────────────────────────────


@partial(compile, backend="python")
def decorated(x):
    return x * x


COPIES = (copy.copy, copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f)))


@pytest.mark.parametrize("copied", COPIES)
def test_a_compiled_function_is_copied_as_the_function_and_its_options(copied, backend):
    f = compile(ops.sqrt, backend=backend, nonfinite="allow")
    f(4.0)
    g = copied(f)
    assert g is not f and (g(9.0), g.backend, g.nonfinite) == (3.0, backend, "allow") and math.isnan(g(-1.0))
    assert copied(decorated) is decorated and copied([decorated])[0](3.0) == 9.0


def test_a_module_with_a_compiled_function_is_copied_and_so_is_a_compiled_module(backend):
    model = nn.Linear(1, 1)
    model.f = compile(ops.sqrt, backend=backend)
    assert copy.deepcopy(model).f(4.0) == pickle.loads(pickle.dumps(model)).f(4.0) == 2.0
    f = compile(nn.Linear(1, 1), backend=backend)
    g = copy.deepcopy(f)
    assert f([2.0]) == g([2.0])
    f.uncompiled.bias[0].data += 1.0
    assert f([2.0])[0] == about(g([2.0])[0] + 1.0)


# ── Attributes of modules ────────────────────────────────────────────────────────────────────────────────────────


class Power:
    def __init__(self, y):
        self.y = y

    def of(self, x):
        return x**self.y


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
        self.scale, self.options, self.factors, self.act, self.calls = 2.0, {"by": 1.0}, [1.0], ops.tanh, 0
        self.power = Power(2)
        self.raised = self.power.of

    def forward(self, x):
        self.calls += 1
        return self.act(self.layers([self.scale * self.options["by"] * self.factors[0] * self.raised(x)])[0])


CHANGES = {
    "a number": lambda m: setattr(m, "scale", 5.0),
    "in a dict": lambda m: m.options.update(by=2.0),
    "in a list": lambda m: m.factors.__setitem__(0, 3.0),
    "a function": lambda m: setattr(m, "act", ops.sigmoid),
    "of an object": lambda m: setattr(m.power, "y", 3),
    "a Parameter": lambda m: setattr(m.layers[1], "weight", nn.Parameter([[0.5, -2.0]])),
    "no Parameter": lambda m: setattr(m.layers[1], "bias", None),
    "a layer": lambda m: m.layers.__setitem__(0, nn.Linear(1, 2)),
    "another layer": lambda m: m.layers.append(nn.Linear(1, 1)),
    "one layer less": lambda m: m.layers.pop(0) and m.layers.insert(0, nn.Linear(1, 2)),
    "behind its back": lambda m: m.layers._modules.update({"0": nn.Linear(1, 2)}),
    "deleted": lambda m: delattr(m, "scale") or setattr(m, "scale", 0.5),
    "numbers": lambda m: m.load_state_dict({**Scaled().state_dict()}),
}


def test_what_is_read_of_a_module_counts_in_each_call(backend):
    for name, change in CHANGES.items():
        model = Scaled()
        f = compile(model, backend=backend)
        g = compile(transforms.grad(model), backend=backend)
        before = f(0.3), f(0.3)
        change(model)
        found, expected = f(0.3), model(0.3).data
        assert found == about(expected) and found != before[0], name
        assert f.map([[0.3]])[0] == about(expected) and f.value(0.3).data == about(expected), name
        assert g(0.3) == about(number(transforms.grad(model)(0.3))), name
        assert before[0] == before[1] and len(f._variants) == 3, name


def test_modules_among_the_arguments_are_not_kept(backend):
    f = compile(lambda model, x: model(x), backend=backend)
    alive = []
    for k in range(3):
        model = Scaled()
        for model.scale in (1.0, 1.0 + k, 4.0):
            assert f(model, 0.3) == about(model(0.3).data)
        alive += [weakref.ref(model), weakref.ref(model.layers), weakref.ref(model.layers[0])]
    del model
    gc.collect()
    assert not any(module() for module in alive)


def test_a_module_that_is_made_in_the_function_is_traced_once(backend):
    f = compile(lambda p: nn.HuberLoss(delta=0.5)([p], [2.0]), backend=backend)
    f(1.0)
    [[variant]] = f._variants.values()
    assert (f(1.0), f(2.5)) == (0.375, 0.125) and list(f._variants.values()) == [[variant]]


# ── Arguments of one structure again, and buffers ────────────────────────────────────────────────────────────────


def weighted(x, rows, y):
    """A sum in which each number counts in another way, so that none can be taken for another."""
    total = 2.0 * y
    for i, a in enumerate([*x, *chain.from_iterable(rows)]):
        total = total + (i + 1) * a * a
    return total


AGAIN = {  # after a call with floats: the same structure, or another one, in other types
    "floats": lambda: ([1.0, 2.0], [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]], 9.0),
    "whole numbers": lambda: ([1, 2], [[3, 4, 5], [6.5, 7, 8]], 9),
    "one whole number": lambda: ([1.5, 2], [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]], 9.0),
    "constants": lambda: ([Value(1.5, requires_grad=False), 2.0], [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]], 9.0),
    "a buffer": lambda: (array("d", [1.5, 2.5]), [[3.0, 4.0, 5.0], array("d", [6.0, 7.0, 8.0])], 9.0),
    "floats of 32 bits": lambda: (array("f", [1.5, 2.5]), [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]], 9.0),
    "bytes": lambda: (array("b", [1, 2]), [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]], 9.0),
    "two dimensions": lambda: (
        [1.0, 2.0],
        memoryview(array("d", [3.0, 4.0, 5.0, 6.0, 7.0, 8.0])).cast("B").cast("d", (2, 3)),
        9.0,
    ),
    "other two dimensions": lambda: (
        [1.0, 2.0],
        memoryview(array("d", [3.0, 4.0, 5.0, 6.0, 7.0, 8.0])).cast("B").cast("d", (3, 2)),
        9.0,
    ),
    "every second": lambda: (memoryview(array("d", [1.5, 0.0, 2.5, 0.0]))[::2], [[3.0] * 3, [6.0] * 3], 9.0),
    "tuples": lambda: ((1.5, 2.0), ((3.0, 4.0, 5.0), (6.0, 7.0, 8.0)), 9.0),
    "a longer list": lambda: ([1.0, 2.0, 2.5], [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]], 9.0),
    "a shorter row": lambda: ([1.0, 2.0], [[3.0, 4.0, 5.0], [6.0, 7.0]], 9.0),
    "another nesting": lambda: ([1.0, 2.0], [[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], 9.0),
}


def listed(x):
    return (
        x.tolist() if isinstance(x, (array, memoryview)) else [*map(listed, x)] if isinstance(x, (list, tuple)) else x
    )


@pytest.mark.parametrize("name", AGAIN)
def test_arguments_of_a_known_structure_are_taken_in_every_type(backend, name):
    f = shared(weighted, backend)
    f([0.5, -1.5], [[2.0, 3.0, 4.0], [0.1, 0.2, 0.3]], 1.0)
    args = AGAIN[name]()
    expected = weighted(*[listed(x) for x in args])
    expected = expected.data if isinstance(expected, Value) else expected
    assert f(*args) == pytest.approx(expected, rel=1e-14)
    assert f(*args) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("wrong", ["x", None, [1.0, "x"], [[1.0], 2.0]])
def test_what_is_no_number_is_told_after_a_good_call_as_before(backend, wrong):
    f = compile(lambda x: [a * a for a in x], backend=backend)
    with pytest.raises((TypeError, ValueError)) as first:
        f(wrong)
    f([1.0, 2.0])
    with pytest.raises(first.type) as second:
        f(wrong)
    assert str(second.value) == str(first.value)


def test_a_buffer_takes_the_results(backend):
    f = compile(lambda x: {"square": [a * a for a in x], "first": x[0]}, backend=backend)
    out = array("d", [0.0] * 4)
    for x in ([1.0, 2.0, 3.0], [2.0, 3.0, 4.0], array("d", [5.0, 6.0, 7.0])):
        assert f(x, out=out) is out
        assert out.tolist() == [*[a * a for a in x], x[0]]
    assert f([1.0, 2.0, 3.0]) == {"square": [1.0, 4.0, 9.0], "first": 1.0}
    assert out.tolist() == [25.0, 36.0, 49.0, 5.0]


@pytest.mark.parametrize(
    ("out", "error", "words"),
    [
        ([0.0] * 2, TypeError, "out: expected a buffer of numbers, got list"),
        (array("f", [0.0] * 2), ValueError, "buffer of 'd' to write to, got one of 'f'"),
        (bytes(16), ValueError, "got one of 'B', read-only"),
        (memoryview(array("d", [0.0] * 4))[::2], ValueError, "got one of 'd', not contiguous"),
        (array("d", [0.0] * 3), ValueError, "out: expected a buffer of 2 numbers, got one of 3"),
    ],
)
def test_a_buffer_that_can_take_no_results_is_told(backend, out, error, words):
    f = compile(lambda x: [x, x + 1.0], backend=backend)
    before = bytes(memoryview(out).tobytes()) if not isinstance(out, list) else None
    for _ in range(2):
        with pytest.raises(error, match=words):
            f(1.0, out=out)
        f(2.0)
    assert before is None or memoryview(out).tobytes() == before


def test_an_argument_named_out_is_the_functions_own(backend):
    f = compile(lambda x, out: x * out, backend=backend)
    assert f(2.0, out=3.0) == f(2.0, 3.0) == 6.0
    assert compile(lambda **kwargs: kwargs["out"] * 2.0, backend=backend)(out=3.0) == 6.0


def test_captured_numbers_and_modes_count_in_every_quick_call(backend):
    w = Value(2.0)
    layer = nn.Dropout(0.5)
    f = compile(lambda x: w * layer([x, x])[0], backend=backend)
    layer.eval()
    assert [f(3.0), f(3.0)] == [6.0, 6.0]
    w.data = 5.0
    assert f(3.0) == 15.0
    layer.train()
    assert {f(3.0) for _ in range(40)} == {0.0, 30.0}


def test_a_result_that_is_not_finite_is_told_also_in_quick_calls(backend):
    f = compile(lambda x: [1.0 / a for a in x], backend=backend)
    assert f([1.0, 2.0]) == [1.0, 0.5]
    for _ in range(2):
        with pytest.raises(FloatingPointError, match="result 1 of 2"):
            f([1.0, 0.0])
        assert f([4.0, 2.0]) == [0.25, 0.5]


class Late(nn.Module):
    scale = 2.0

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter([1.0])

    def forward(self, x):
        y = self.w[0] * x * self.scale
        if hasattr(self, "shift"):
            y = y + self.shift
        return y * getattr(self, "temperature", 1.0)


def test_an_attribute_that_was_not_there_counts_once_it_is(backend):
    model = Late()
    f = compile(model, backend=backend)
    assert f(1.5) == 3.0 == f(1.5)
    model.temperature = 5.0
    assert f(1.5) == 15.0
    model.shift = 1.0
    assert f(1.5) == 20.0
    del model.temperature
    assert f(1.5) == 4.0


def test_an_attribute_of_the_class_counts_in_each_call(backend):
    model = Late()
    f = compile(model, backend=backend)
    assert f(1.5) == 3.0
    try:
        Late.scale = 4.0
        assert f(1.5) == 6.0
    finally:
        Late.scale = 2.0
    assert f(1.5) == 3.0
    model.scale = 10.0
    assert f(1.5) == 15.0


@pytest.mark.parametrize(
    "make, use",
    [
        (lambda: nn.Sequential(nn.Linear(1, 1), nn.Tanh()), lambda m, x: m([x])[0]),
        (lambda: nn.ModuleList([nn.Linear(1, 1)]), lambda m, x: m[0]([x])[0]),
        (lambda: nn.ModuleDict({"a": nn.Linear(1, 1)}), lambda m, x: m["a"]([x])[0]),
    ],
)
def test_a_module_of_modules_is_an_argument_like_any_module(make, use, backend):
    model = make()
    f = compile(lambda x, m: use(m, x), backend=backend)
    assert f(2.0, model) == pytest.approx(use(model, 2.0).data, rel=1e-12)


@dataclass
class Pendulum:
    angle: float
    speed: float


def test_a_dataclass_is_numbers_with_names_which_may_change(backend):
    def step(p, dt):
        return Pendulum(p.angle + dt * p.speed, p.speed - dt * mg.sin(p.angle))

    f, p = compile(step, backend=backend), Pendulum(0.5, 0.25)
    assert f(p, 0.5) == Pendulum(0.625, 0.25 - 0.5 * math.sin(0.5))
    p.angle = 1.0
    assert f(p, 0.5) == Pendulum(1.125, 0.25 - 0.5 * math.sin(1.0))
    assert re.search(r"arguments\[1\] +p\.speed", f.lower(p, 0.5).header)


def test_a_long_scan_runs_over_the_lists_of_a_named_tuple():
    Drive = namedtuple("Drive", "force rest")

    def f(drive):
        last, ys = mg.scan(lambda c, x: (0.5 * c + x, c), drive.rest, drive.force)
        return Drive(ys, last)

    for n in (3, 70, 90):
        drive = Drive([0.1 * i for i in range(n)], 1.0)
        got = compile(f, backend="python")(drive)
        assert type(got) is Drive and [*got.force, got.rest] == about([*f(drive).force, f(drive).rest])


def test_a_string_among_numbers_is_told_as_what_it_is():
    f = compile(lambda xs: [x * xs[0] for x in xs], backend="python")
    with pytest.raises(TypeError, match=r"expected a real number or a Value, got str 'a'"):
        f([1.0, 2.0, "a"])


def test_an_array_without_dimensions_is_refused_by_name(backend):
    np = pytest.importorskip("numpy")
    f = compile(lambda x, ys: x * ys[0], backend=backend)
    assert f(np.float32(2.0), np.array([3])) == 6.0
    for args in [(np.array(2.0), [1.0]), (np.array(1j), [1.0]), (1.0, [np.array(3)])]:
        with pytest.raises(TypeError, match="argument: expected a real number or a Value, got ndarray"):
            f(*args)
