"""C code against the same function, eager: compiled by the system's cc, with every warning an error."""

from __future__ import annotations

import ctypes
import math
import re
import shutil
import subprocess
import threading
from itertools import product
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings

import milligrad as mg
from milligrad import Value, compile, nn, ops, value_and_grad
from milligrad.compiler.c.lowered import TAKEN, identifier
from milligrad.compiler.spelling import SPELLINGS
from milligrad.compiler.structure import flat
from milligrad.engine import Op
from tests.compiler.graphs import assert_close, functions
from tests.compiler.graphs import eager as of_values
from tests.compiler.in_c import CC, HAS_CC, TYPES, compiled_by, loaded, sizes
from tests.compiler.random_programs import Example

needs_cc = pytest.mark.skipif(not HAS_CC, reason="there is no C compiler")
EPSILON = {"float64": 1e-12, "float32": 2e-5}


def close(x, y, tolerance):
    if math.isnan(y) or math.isinf(y):
        return math.isnan(x) if math.isnan(y) else x == y
    return abs(x - y) <= tolerance * max(1.0, abs(y))


def agree(got, want, tolerance=1e-12):
    assert len(got) == len(want)
    for k, (x, y) in enumerate(zip(got, want, strict=True)):
        assert close(x, y, tolerance), f"result {k}: {x} instead of {y}"


def learning(x):
    return [learning(part) for part in x] if isinstance(x, list) else Value(x)


def eager(f, x):
    """The value of f, and its gradient: by backward, which no compiler has seen."""
    v = learning(x)
    z = f(v)
    z.backward()
    return [z.data, *[p.grad for p in flat(v)]]


# ── Ops ──────────────────────────────────────────────────────────────────────────────────────────────────────────

POINTS = [0.0, -0.0, 0.3, -0.3, 0.5, 1.0, -1.0, 2.0, 2.5, -7.5, 20.0, -40.0, 800.0, 1e-9, -1e4]
POINTS += [math.inf, -math.inf, math.nan]
INPUTS = {"clamp": 3, "where": 3} | dict.fromkeys(
    ["add", "sub", "mul", "div", "power", "exponential", "pow", "bce", "xlogy", "less", "less_equal", "equal"], 2
)
FOLDED = ["sum", "prod", "max", "min", "logsumexp"]


def expected(row, xs, dtype):
    """The row's value; None where it raises, since the number is not defined there."""
    try:
        return TYPES[dtype](row.value(*xs)).value
    except (ValueError, ArithmeticError):
        return None


@needs_cc
@pytest.mark.parametrize("dtype", TYPES)
def test_every_op_of_few_inputs(dtype, tmp_path):
    names = [*SPELLINGS]

    def all_ops(*xs):
        return [xs[0].record(ops.TABLE[name], xs[: INPUTS.get(name, 1)]) for name in names]

    call = loaded(compile(all_ops).lower(0.0, 0.0, 0.0), tmp_path, dtype=dtype)
    points = [TYPES[dtype](x).value for x in POINTS]
    for xs in product(points, points, [0.3, -1.0, 1.0, math.nan]):
        for name, got in zip(names, call(xs), strict=True):
            own = xs[: INPUTS.get(name, 1)]
            want = expected(ops.TABLE[name], own, dtype)
            if want is None:
                assert not math.isfinite(got), f"{name}{own}: {got} instead of NaN or inf"
            else:
                scale = max(1.0, abs(own[1])) if name == "bce" else 1.0  # two logarithms may cancel
                assert close(got, want, EPSILON[dtype] * scale), f"{name}{own}: {got} instead of {want}"


@needs_cc
@pytest.mark.parametrize("dtype", TYPES)
def test_powers_of_constants(dtype, tmp_path):
    exponents = [-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0]
    call = loaded(compile(lambda x: [x**y for y in exponents]).lower(0.0), tmp_path, dtype=dtype)
    for x in [TYPES[dtype](x).value for x in POINTS]:
        for y, got in zip(exponents, call([x]), strict=True):
            want = expected(ops.power, (x, y), dtype)
            assert not math.isfinite(got) if want is None else close(got, want, EPSILON[dtype]), (x, y, got, want)
            assert want != 0 or math.copysign(1, got) == math.copysign(1, want)


@needs_cc
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 9, 30])
def test_every_op_of_many_inputs(dtype, n, tmp_path):
    rng = Random(n)

    def folds(xs, ys):
        return [mg.dot(xs, ys), *[getattr(mg, name)(xs) for name in FOLDED], *[mg.logsumexp([x, 0.5, *ys]) for x in xs]]

    call = loaded(compile(folds).lower([0.0] * n, [0.0] * n), tmp_path, dtype=dtype)
    specials = [[], [math.nan], [math.inf], [-math.inf], [math.inf, math.nan], [math.inf, -math.inf], [80.0, -80.0]]
    for special in [*specials, [-math.inf] * n, [3.5] * n]:
        xs = [*special, *[rng.gauss(0, 1) for _ in range(n)]][:n]
        xs, ys = ([TYPES[dtype](x).value for x in zs] for zs in (xs, [rng.gauss(0, 1) for _ in range(n)]))
        agree(call([*xs, *ys]), folds(xs, ys), EPSILON[dtype])


# ── Programs ─────────────────────────────────────────────────────────────────────────────────────────────────────

R = Random(1)


def numbers(*dims):
    return [numbers(*dims[1:]) for _ in range(dims[0])] if dims else R.uniform(-1, 1)


def product_of(rows, xs):
    return [sum(a * b for a, b in zip(row, xs, strict=True)) for row in rows]


def pendulum(p):
    x, v = 1.0, 0.0
    for _ in range(200):
        v = v + 0.01 * (-p[0] * mg.sin(x) - p[1] * v)
        x = x + 0.01 * v
    return (x - 0.3) ** 2


XS = numbers(6, 3)


def lstm(w):
    h, c = [0.0] * 4, [0.0] * 4
    for x in XS:
        g = product_of(w, x + h + [1.0])
        c = [mg.sigmoid(g[4 + k]) * c[k] + mg.sigmoid(g[k]) * mg.tanh(g[8 + k]) for k in range(4)]
        h = [mg.sigmoid(g[12 + k]) * mg.tanh(c[k]) for k in range(4)]
    return sum(a * a for a in h)


TIMES = sorted(R.uniform(0, 3) for _ in range(9))


def cholesky(p):
    n, (length, scale, noise) = len(TIMES), map(mg.exp, p)
    low = [[0.0] * n for _ in range(n)]
    log_det, zs = 0.0, []
    for i in range(n):
        for j in range(i + 1):
            d = TIMES[i] - TIMES[j]
            t = scale * mg.exp(-d * d / (2 * length * length)) + (noise if i == j else 0.0)
            for k in range(j):
                t = t - low[i][k] * low[j][k]
            low[i][j] = mg.sqrt(t) if i == j else t / low[j][j]
        log_det = log_det + mg.log(low[i][i])
        zs.append((math.sin(TIMES[i]) - sum(low[i][k] * zs[k] for k in range(i))) / low[i][i])
    return sum(z * z for z in zs) / 2 + log_det


IMAGE = numbers(8, 8)


def convolution(p):
    kernels, weights = p
    out = [
        mg.relu(sum(kernel[a][b] * IMAGE[i + a][j + b] for a in range(3) for b in range(3)))
        for kernel in kernels
        for i in range(6)
        for j in range(6)
    ]
    logits = product_of(weights, out)
    return mg.logsumexp(logits) - logits[1]


SENTENCE = numbers(6, 4)


def attention(p):
    q, k, v = ([product_of(w, x) for x in SENTENCE] for w in p)
    loss = 0.0
    for t in range(6):
        s = [sum(a * b for a, b in zip(q[t], k[u], strict=True)) / 2 for u in range(t + 1)]
        w = [mg.exp(a - mg.logsumexp(s)) for a in s]
        loss = loss + sum(sum(w[u] * v[u][d] for u in range(t + 1)) ** 2 for d in range(4))
    return loss


OBSERVED = [R.randrange(5) for _ in range(40)]


def hidden_markov(p):
    moves, emits = p
    a = [emits[j][OBSERVED[0]] for j in range(3)]
    for o in OBSERVED[1:]:
        a = [mg.logsumexp([a[i] + moves[i][j] for i in range(3)]) + emits[j][o] for j in range(3)]
    return mg.logsumexp(a)


def norm(xs):
    return mg.sqrt(sum(mg.where(x > 0.5, lambda x=x: mg.log(x), x * x) for x in xs))


PROGRAMS = {
    pendulum: [9.81, 0.1],
    lstm: numbers(16, 8),
    cholesky: [0.1, 0.2, -2.0],
    convolution: [numbers(2, 3, 3), numbers(3, 72)],
    attention: numbers(3, 4, 4),
    hidden_markov: [numbers(3, 3), numbers(3, 5)],
    norm: [0.9, -0.5, 0.3, -1.5],
}


@needs_cc
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("f", PROGRAMS, ids=lambda f: f.__name__)
def test_values_and_gradients(f, dtype, tmp_path):
    x = PROGRAMS[f]
    call = loaded(compile(value_and_grad(f), backend="python").lower(x), tmp_path, f.__name__, dtype)
    want = eager(f, x)
    agree(call(flat(x)), want, EPSILON[dtype])
    agree(call(flat(x)), want, EPSILON[dtype])  # nothing is kept
    others = [0.9 * y + 0.01 for y in flat(x)]
    it = iter(others)

    def like(part):
        return [like(y) for y in part] if isinstance(part, list) else next(it)

    agree(call(others), eager(f, like(x)), EPSILON[dtype])


@needs_cc
def test_zero_times_what_is_no_number_is_zero_in_a_derivative(tmp_path):
    def f(x, y):
        return mg.where(x > 0, mg.sqrt(x), 0.0) * y + mg.where(y < 700, mg.exp(y), 1.0)

    g = compile(value_and_grad(f, argnums=(0, 1)), backend="python")
    call = loaded(g.lower(1.0, 1.0), tmp_path)
    for x, y in ((4.0, 1.0), (-1.0, 2.0), (2.0, 1000.0), (-3.0, 1e5)):
        agree(call([x, y]), flat(list(g(x, y))))
    assert call([-1.0, 2.0])[1] == 0.0 and not any(map(math.isnan, call([-1.0, 1000.0])))


@needs_cc
@pytest.mark.parametrize("seed", range(8))
def test_loops_with_tables_triangles_and_peeled_iterations(seed, tmp_path):
    """Little is needed of work and constants, and all that is read of them is there."""
    rng = Random(seed)
    n = rng.randint(5, 12)
    order = [rng.randrange(n) for _ in range(30)]
    data = [rng.uniform(-1, 1) for _ in range(30)]

    def f(x):
        state = list(x)
        for k, (i, y) in enumerate(zip(order, data, strict=True)):
            state[i] = mg.tanh(state[i] * y + state[i - 1]) + (x[0] if k % 7 == seed % 7 else 0.0)
        low = [[0.0] * n for _ in range(n)]
        for i in range(n):
            for j in range(i + 1):
                low[i][j] = mg.sin(state[i] * state[j] + sum(low[i][k] * low[j][k] for k in range(j)))
        return sum(mg.dot(row, row) for row in low)

    x = [rng.uniform(-1, 1) for _ in range(n)]
    call = loaded(compile(value_and_grad(f), backend="python").lower(x), tmp_path)
    agree(call(x), eager(f, x), 1e-10)


@needs_cc
def test_it_is_called_from_a_c_program_with_its_header_and_from_cpp(tmp_path):
    def pair(x, ys):
        """Two numbers."""
        return {"sum": x + sum(ys), "product": x * ys[0]}

    f = compile(pair, backend="python")
    f(1.0, [2.0, 3.0])
    f.save_c(tmp_path / "my-model.c", dtype="float32")
    main = """
#include <stdio.h>
#include "my-model.h"
int main(void)
{
    const float arguments[MY_MODEL_ARGUMENTS] = {1.5f, 2.0f, 3.25f};
    float results[MY_MODEL_RESULTS], work[MY_MODEL_WORK];
    my_model(arguments, results, work);
    printf("%g %g\\n", results[0], results[1]);
    return 0;
}
"""
    for compiler, ending in (("cc", "c"), ("c++", "cc")):
        if shutil.which(compiler) is None:
            continue
        (tmp_path / f"main.{ending}").write_text(main)
        options = CC[2:] if ending == "cc" else CC[1:]
        subprocess.run([*CC, "-c", "-o", "model.o", "my-model.c"], cwd=tmp_path, check=True)
        subprocess.run([compiler, *options, "-o", "main", f"main.{ending}", "model.o", "-lm"], cwd=tmp_path, check=True)
        told = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout
        assert told == "6.75 3\n"


@needs_cc
def test_random_programs(tmp_path):
    """Values and gradients of 20 of them, at points of zeros, too, as Python's exact code has them."""
    examples = [Example(seed) for seed in range(1000, 1020)]
    programs = [value_and_grad(example.functions()[0]) for example in examples]
    lowered = [compile(f, backend="python").lower(e.points[0]) for f, e in zip(programs, examples, strict=True)]
    files = [x.c(f"f{k}") for k, x in enumerate(lowered)]
    for k, (source, _) in enumerate(files):
        (tmp_path / f"f{k}.c").write_text(source)
    sources = [f"f{k}.c" for k in range(len(files))]
    subprocess.run([*CC, "-shared", "-fPIC", "-o", "all.so", *sources, "-lm"], cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "all.so"))
    for k, (example, f, (_, header)) in enumerate(zip(examples, programs, files, strict=True)):
        size = sizes(header)
        for x in example.points:
            want = flat(list(compile(f, backend="python", nonfinite="allow")(x)))
            results, work = (ctypes.c_double * size["RESULTS"])(), (ctypes.c_double * size["WORK"])()
            getattr(library, f"f{k}")((ctypes.c_double * len(x))(*x), results, work)
            largest = max([abs(y) for y in want if math.isfinite(y)], default=0.0)
            agree(list(results), want, 1e-9 * max(1.0, largest))


@needs_cc
@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
@given(functions())
def test_any_function(f):
    assert_close(compiled_by("c", f.values)(*f.point), of_values(f.values, f.point))


@needs_cc
@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
@given(functions(most_steps=4))
def test_any_gradient(f):
    found = compiled_by("c", value_and_grad(f.total, argnums=tuple(range(len(f.point)))))(*f.point)
    assert_close(found, of_values(f.derivatives, f.point)[: 1 + sum(map(len, f.point))])


# ── What is captured, and what is told ───────────────────────────────────────────────────────────────────────────


@needs_cc
@pytest.mark.parametrize("dtype", TYPES)
def test_parameters_are_constants_as_they_are_now_or_an_argument(dtype, tmp_path):
    mg.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    f, x = compile(model, backend="python"), [0.1, -0.2, 0.3]
    f(x)
    model[0].weight[1][2].data = 2.0
    want = [z.data for z in model(x)]
    agree(loaded(f.lower(x), tmp_path, dtype=dtype)(x), want, EPSILON[dtype])
    f.save_c(tmp_path / "kept.c")
    assert "2.0" in (tmp_path / "kept.c").read_text()

    lowered = f.lower(x)
    call = loaded(lowered, tmp_path, dtype=dtype, parameters="argument")
    source, header = lowered.c(parameters="argument")
    for text in (source, header):
        told = re.findall(r"^ +parameters\[(\d+) \.\. (\d+)\] +(\S+)$", text, re.MULTILINE)
        assert told == [
            ("0", "14", "0.weight[5][3]"), ("15", "19", "0.bias[5]"),
            ("20", "29", "2.weight[2][5]"), ("30", "31", "2.bias[2]"),
        ]  # fmt: skip
    agree(call(x, [v.data for v in model.values()]), want, EPSILON[dtype])
    model[2].bias[0].data = -1.0
    agree(call(x, [v.data for v in model.values()]), [z.data for z in model(x)], EPSILON[dtype])


def test_captured_values_are_told_by_their_names():
    rate, loose = Value(2.0, name="rate"), [Value(1.0), Value(3.0)]
    text = compile(lambda x: rate * x + loose[0] / loose[1]).lower(1.0).c(parameters="argument").header
    assert "parameters[0]            rate\n" in text and "parameters[1 .. 2]" in text
    assert "#define LAMBDA_PARAMETERS 3\n" in text and "const double *parameters, double *results" in text


def test_the_comment_tells_shapes_and_what_is_fixed():
    def f(x, rows, *more, mode="a", table):
        """Units: x in metres. */ /* ?? \\ é"""
        return {"z": x * rows[0][0], "list": [rows, (x, more[0])], "w": table["a"]}

    source = (
        compile(f).lower(1.0, [[1.0, 2.0], [3.0, 4.0]], [5.0], mode="b", table={"a": 1.0, "b": [[1.0], 2.0]}).c_source
    )
    comment = source[: source.index("#include")]
    for line in (
        "arguments[0]             x\n", "arguments[1 .. 4]        rows[2][2]\n",
        "arguments[5]             more[0][1]\n",
        "mode = 'b', which is fixed\n", "arguments[6]             table['a']\n",
        "arguments[7]             table['b'][0][1]\n",
        "arguments[8]             table['b'][1]\n", "results[0]               result['z']\n",
        "results[1 .. 4]          result['list'][0][2][2]\n", "results[5]               result['list'][1][0]\n",
        "Units: x in metres.", "void f(const double *arguments, double *results, double *work);\n",
    ):  # fmt: skip
        assert line in comment, line
    assert comment.count("*/") == comment.count("/*") == 1 and comment.isascii()


@needs_cc
def test_functions_without_arguments_results_or_names(tmp_path):
    v = Value(3.0)
    agree(loaded(compile(lambda: [v * v, 1.0]).lower(), tmp_path, "none")([]), [9.0, 1.0])
    agree(
        loaded(compile(lambda x: [x, x, 0.1, math.inf]).lower(1.0), tmp_path, "same")([4.0]), [4.0, 4.0, 0.1, math.inf]
    )
    agree(loaded(compile(lambda x: []).lower(1.0), tmp_path, "nothing")([4.0]), [])


@needs_cc
@pytest.mark.parametrize("dtype", TYPES)
def test_numbers_of_any_size_are_written_to_the_bit(dtype, tmp_path):
    constants = [
        0.1,
        -0.0,
        1e-320,
        5e-324,
        1e-40,
        1e22,
        123456789.0,
        1.7e308,
        3.4e38,
        -math.inf,
        math.nan,
        1 / 3,
        7e-46,
    ]
    call = loaded(compile(lambda x: [*constants, *[x * c for c in constants]]).lower(1.0), tmp_path, dtype=dtype)
    want = [TYPES[dtype](c).value for c in constants]
    got = call([1.0])
    assert list(map(repr, got)) == list(map(repr, want * 2))


def test_names():
    assert identifier("model") == "model" and identifier("my-model.v2") == "my_model_v2"
    assert identifier("<lambda>") == "lambda" and identifier("2d") == "f_2d" and identifier("é") == "f"
    for word in ("exp", "main", "double", "class", "results", "sigmoid", "y0"):
        assert word in TAKEN and identifier(word) == f"{word}_"


@needs_cc
def test_every_name_that_is_taken_makes_another_one_that_compiles(tmp_path):
    lowered = compile(lambda x: mg.exp(x) + mg.sigmoid(x)).lower(1.0)
    for name in ("exp", "sigmoid", "main", "double", "work", "constants", "abs", "NAN", "expl", "printf", "memset"):
        agree(loaded(lowered, tmp_path, name)([0.5]), [math.exp(0.5) + 1 / (1 + math.exp(-0.5))])


@needs_cc
@pytest.mark.parametrize("dtype", TYPES)
def test_functions_stand_after_those_that_they_call(dtype, tmp_path):
    """In whichever order a program calls them."""
    some = [mg.softplus, mg.sigmoid, mg.log_sigmoid, lambda x: mg.maximum(x, 0.1), lambda x: mg.minimum(x, 0.2)]
    for k, chosen in enumerate([some, some[::-1]]):
        call = loaded(compile(lambda x: [f(x) for f in chosen]).lower(1.0), tmp_path, f"f{k}", dtype)  # noqa: B023
        agree(call([0.3]), [f(0.3) for f in chosen], EPSILON[dtype])


@needs_cc
def test_numbers_that_a_program_with_a_count_does_not_read_are_no_array(tmp_path):
    """What a scan starts from may be known, and never be read."""
    xs = [0.01 * k for k in range(100)]

    def f(xs):
        return mg.scan(lambda c, x: ((mg.sqrt(1.0 + x * x), 1.0), None), (0.3, 0.7), xs)[0][0]

    for of in (f, value_and_grad(f)):
        lowered = compile(of, backend="python").lower(xs)
        assert not lowered.c_source.count("known")
        agree(loaded(lowered, tmp_path)(xs), flat(of(xs)))


@needs_cc
def test_no_name_is_one_that_the_language_or_its_library_knows(tmp_path):
    names = sorted({identifier(word) for word in TAKEN})
    lines = ["#include <math.h>", "#include <stdint.h>", *[f"void {name}(const double *arguments);" for name in names]]
    (tmp_path / "f.c").write_text("\n".join([*lines, ""]))
    subprocess.run([*CC, "-fsyntax-only", tmp_path / "f.c"], check=True)


@needs_cc
def test_numbers_that_a_long_scan_starts_from_and_never_reads_are_not_in_the_file(tmp_path):
    def f(x):
        (a, b), _ = mg.scan(lambda c, _: ((c[1], x[0] * 0.5), None), (x[1], 1.0), length=70)
        return a + b

    agree(loaded(compile(f).lower([0.3, 2.0]), tmp_path)([0.3, 2.0]), [0.3])


@needs_cc
def test_threads_call_it_at_once(tmp_path):
    lowered = compile(value_and_grad(pendulum), backend="python").lower([9.81, 0.1])
    call = loaded(lowered, tmp_path)
    library = ctypes.CDLL(str(tmp_path / "f_float64_constants.so"))
    n, points = sizes(lowered.header)["WORK"], [[9.0 + 0.1 * k, 0.1] for k in range(4)]
    want, got = [call(p) for p in points], {}

    def run(k):
        out, work = (ctypes.c_double * 3)(), (ctypes.c_double * n)()
        for _ in range(50):
            library.f((ctypes.c_double * 2)(*points[k]), out, work)
        got[k] = list(out)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[k] for k in range(4)] == want


# ── The API, and what is refused ─────────────────────────────────────────────────────────────────────────────────


@needs_cc
@pytest.mark.parametrize("kind", ["call", "value", "map", "buffer"])
def test_save_c_writes_what_was_called_last(kind, tmp_path):
    def f(x, y):
        return x * y + mg.sin(x)

    g = compile(f, backend="python")
    if kind == "call":
        g(1.0, [2.0][0])
    elif kind == "value":
        g.value(Value(1.0), 2.0)
    else:
        g.map([[1.0, 2.0]] if kind == "map" else memoryview(bytearray(16)).cast("d"))
    g.save_c(tmp_path / "f.c")
    assert (tmp_path / "f.c").read_text() == g.lower(1.0, 2.0).c_source
    assert (tmp_path / "f.h").read_text() == g.lower(1.0, 2.0).header


def test_save_c_knows_arguments_that_are_no_numbers(tmp_path):
    model = nn.Linear(2, 1)
    f = compile(lambda m, x, mode, options: m(x)[0] * options["scale"] if mode else x[0], backend="python")
    f(model, [1.0, 2.0], True, {"scale": 2.0, "unused": None})
    f.save_c(str(tmp_path / "a.c"))
    assert "weight[1][2]" in (tmp_path / "a.c").read_text()
    del model
    with pytest.raises(ReferenceError, match="a Linear among the arguments does not live any more"):
        f.save_c(tmp_path / "b.c")
    assert not (tmp_path / "b.c").exists()


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"path": "model.txt"}, ValueError, r"path: expected a name that ends in \.c, got 'model\.txt'"),
        ({"path": "model.h"}, ValueError, r"path: expected a name that ends in \.c"),
        ({"path": 3}, TypeError, "path: expected the name of a file, got int 3"),
        ({"path": "m.c", "dtype": "int8"}, ValueError, "dtype: expected 'float64' or 'float32', got 'int8'"),
        (
            {"path": "m.c", "parameters": "file"},
            ValueError,
            "parameters: expected 'constants' or 'argument', got 'file'",
        ),
    ],
)
def test_bad_options_are_refused_and_nothing_is_written(options, error, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    f = compile(lambda x: x + 1, backend="python")
    f(1.0)
    for saving in (f, f.lower(1.0)):
        with pytest.raises(error, match=complaint):
            saving.save_c(**options)
    assert not [*tmp_path.iterdir()]
    with pytest.raises(TypeError, match="name: expected a string, got int 3"):
        f.lower(1.0).c(3)


def test_save_c_needs_a_call():
    with pytest.raises(RuntimeError, match=r"pendulum: not called yet.*pendulum\.lower\(\*example\)\.save_c"):
        compile(pendulum).save_c("model.c")


def test_random_numbers_are_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    with pytest.raises(ValueError, match=r"Sequential: draws random numbers, .* as arguments, or call eval\(\)"):
        compile(model).lower([1.0, 2.0])
    assert "void" in compile(model.eval()).lower([1.0, 2.0]).c_source


def test_an_op_of_your_own_is_refused_by_its_name():
    cube = Op("cube", lambda x: x**3, lambda z, x: (3 * x * x,), "cube({})", "x cubed.")
    with pytest.raises(NotImplementedError, match="C code has no op 'cube'"):
        _ = compile(lambda x: cube(x), backend="python").lower(1.0).c_source


def test_lower_computes_nothing_and_leaves_the_compiled_function_as_it_was():
    f = compile(lambda x: 1 / x, backend="python")
    assert "1.0 / " in f.lower(0.0).c_source
    assert f.source == "" and repr(f).endswith("0 traced>") and repr(f.lower(1.0)).startswith("<lowered <lambda>: ")


# ── Training ─────────────────────────────────────────────────────────────────────────────────────────────────────────

OPTIMIZERS = {
    "sgd": lambda ps: mg.SGD(ps, lr=0.1),
    "momentum": lambda ps: mg.SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda ps: mg.Adam(ps, lr=0.05),
    "groups": lambda ps: mg.AdamW([{"params": ps[:1]}, {"params": ps[1:], "lr": 0.3}], lr=0.05),
}
CLIPPING = {"sgd": {"clip_grad_norm": 0.5}, "adam": {"clip_grad_value": 0.1}}


@needs_cc
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_trainers_step_in_c_learns_as_the_trainer_does(name, tmp_path):
    mg.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model[0].bias[1].requires_grad = name != "adam"
    optimizer = OPTIMIZERS[name]([*model.parameters()])
    trainer = mg.Trainer(model, nn.CrossEntropyLoss(), optimizer, "eager", **CLIPPING.get(name, {}))
    xs, ys = [[R.gauss(0, 1) for _ in range(3)] for _ in range(8)], [0, 1, 1, 0, 1, 0, 0, 1]
    trainer.save_c(tmp_path / "train.c", xs[:4], ys[:4])
    subprocess.run([*CC, "-shared", "-fPIC", "-o", "train.so", "train.c", "-lm"], cwd=tmp_path, check=True)
    size = sizes((tmp_path / "train.h").read_text())
    results, work = (ctypes.c_double * size["RESULTS"])(), (ctypes.c_double * size["WORK"])()
    parameters = [v.data for v in model.values()]
    n, rates = len(parameters), [float(group["lr"]) for group in optimizer.param_groups]
    assert size["PARAMETERS"] == n
    state = [0.0] * (size["RESULTS"] - 1 - n)
    for step in range(6):
        batch = slice(4 * (step % 2), 4 * (step % 2) + 4)
        given = [*flat(xs[batch]), *map(float, ys[batch]), *rates, step + 1.0, *state]
        assert len(given) == size["ARGUMENTS"]
        ctypes.CDLL(str(tmp_path / "train.so")).train(
            (ctypes.c_double * len(given))(*given), (ctypes.c_double * n)(*parameters), results, work
        )
        loss, parameters, state = results[0], results[1 : n + 1], results[n + 1 :]
        history = trainer.fit(xs[batch], ys[batch], epochs=1, batch_size=4, shuffle=False)
        assert loss == pytest.approx(history.loss[-1], rel=1e-10)
        agree(parameters, [v.data for v in model.values()], 1e-10)


def test_a_trainer_saves_no_step_of_a_model_that_draws(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    trainer = mg.Trainer(model, nn.CrossEntropyLoss(), mg.SGD(model.parameters(), lr=0.1), "eager")
    with pytest.raises(ValueError, match="train: draws random numbers"):
        trainer.save_c(tmp_path / "train.c", [[1.0, 2.0]], [0])
    with pytest.raises(ValueError, match=r"path: expected a name that ends in \.c"):
        mg.Trainer(model[0], nn.CrossEntropyLoss(), mg.SGD(model[0].parameters(), lr=0.1)).save_c(
            "t", [[1.0, 2.0]], [0]
        )
    assert not [*tmp_path.iterdir()]
