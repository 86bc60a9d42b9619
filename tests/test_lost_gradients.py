"""A gradient is not lost without a word: conversions to plain numbers, and what is asked of a traced number."""

import array
import asyncio
import copy
import importlib.util
import math
import pickle
import random
import struct
import threading
import warnings

import pytest

import milligrad as mg
from milligrad import Value, nn, no_grad, where
from milligrad.engine import GradientWarning, Op, Reduction, TraceError
from milligrad.ops import TABLE
from milligrad.random import generator
from milligrad.transforms import grad

BACKENDS = ["python"] + ["llvm"] * (importlib.util.find_spec("llvmlite") is not None)
each_backend = pytest.mark.parametrize("backend", BACKENDS)

# ── Plain numbers ────────────────────────────────────────────────────────────────────────────────────────────────

CONVERSIONS = {
    "float": float,
    "int": int,
    "round": round,
    "complex": complex,
    "floor": math.floor,
    "math": math.exp,
    "fsum": lambda v: math.fsum([v, 1.0]),
    "array": lambda v: array.array("d", [v]),
    "struct": lambda v: struct.pack("d", v),
    "percent": lambda v: "%.2f" % v,  # noqa: UP031
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_a_value_that_becomes_a_plain_number_warns_in_the_users_line(name):
    convert = CONVERSIONS[name]
    with pytest.warns(GradientWarning, match=r"write v\.data .* milligrad\.exp instead of math\.exp") as caught:
        convert(Value(2.0))
    assert [w.filename for w in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convert(Value(2.0, requires_grad=False))
        with no_grad():
            convert(Value(2.0))


def test_transforms_of_pythons_functions_warn_and_so_do_partials():
    with pytest.warns(GradientWarning) as caught:
        assert grad(math.sin)(1.0) == 0.0
    assert caught[0].filename == __file__
    with pytest.warns(GradientWarning):
        assert grad(lambda x: x * math.exp(x))(1.0) == math.e
    row = Op("gauss", lambda x: math.exp(-x * x), lambda z, x: (-2 * x * math.exp(-x * x),), "gauss({})", "e^-x².")
    with pytest.warns(GradientWarning):
        mg.hessian(row)(1.0)


def test_the_warning_comes_once_a_line():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        globals().pop("__warningregistry__", None)
        for _ in range(3):
            float(Value(1.0))
    assert len(caught) == 1


@each_backend
def test_values_given_to_compiled_code_warn_and_are_told_of_value(backend):
    f = mg.compile(lambda x: x * x, backend=backend)
    w = Value(3.0)
    for call in (lambda: f(w) * w, lambda: f.map([[w], [2.0]])):
        with pytest.warns(GradientWarning, match=r"write .*\.value\(…\)") as caught:
            call()
        assert caught[0].filename == __file__
    (f.value(w) * w).backward()
    assert w.grad == 27.0


# ── Equality ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_equality_compares_numbers():
    x, y = Value(3.0), Value(3.0)
    assert x == y and x == 3 and x != 4 and (x != y) == 0 and x in [1.0, y] and [x, 2.0].count(3.0) == 1
    assert x != "3" and x != None and x != [3.0]  # noqa: E711
    nan = Value(math.nan)
    assert nan != nan and (nan == nan) == 0 and not nan < 1
    assert Value(2.0**53) != 2**53 + 1 and Value(1.0) < 10**400 and Value(1.0) != 10**400
    assert len({x, y, x}) == 2 and {x: 1}.get(y) is None and hash(x) != hash(y)


def test_a_limit_is_taken_by_an_if():
    sinc = lambda x: 1.0 if x == 0 else mg.sin(x) / x  # noqa: E731
    assert sinc(Value(0.0)) == 1.0 and sinc(Value(1.0)) == math.sin(1.0)


JOINED = {
    "and": lambda x, y: (x > 0) & (y > 0),
    "or": lambda x, y: (x > 0) | (y > 0),
    "xor": lambda x, y: (x > 0) ^ (y > 0),
    "not": lambda x, y: ~(x > y),
    "equal": lambda x, y: x == y,
    "different": lambda x, y: x != y,
    "deep": lambda x, y: ~((x > 0) & ~(y >= x)) | ((x == 2) ^ (y != 2)),
    "with bools": lambda x, y: ((x > 0) & True) | (False | (y > 0)),
}


@pytest.mark.parametrize("name", JOINED)
def test_comparisons_are_joined_eagerly_and_traced(name):
    f = JOINED[name]
    points = [(a, b) for a in (-1.0, 0.0, 1.0, 2.0) for b in (-1.0, 0.0, 1.0, 2.0)]
    logic = {
        "and": lambda x, y: x > 0 and y > 0,
        "or": lambda x, y: x > 0 or y > 0,
        "xor": lambda x, y: (x > 0) != (y > 0),
        "not": lambda x, y: not x > y,
        "equal": lambda x, y: x == y,
        "different": lambda x, y: x != y,
        "deep": lambda x, y: not (x > 0 and not y >= x) or ((x == 2) != (y != 2)),
        "with bools": lambda x, y: x > 0 or y > 0,
    }[name]
    expected = [10.0 if logic(x, y) else 20.0 for x, y in points]
    assert [where(f(Value(x), Value(y)), 10.0, 20.0) for x, y in points] == expected
    w = Value(0.0)
    for backend in BACKENDS:
        g = mg.compile(lambda x, y: where(f(x, y), 10.0, 20.0), backend=backend)
        assert g.map([list(point) for point in points]) == expected
        h = mg.compile(lambda y: where(f(w, y), 10.0, 20.0), backend=backend)
        found = []
        for w.data, y in points:
            found.append(h(y))
        assert found == expected


def test_the_answer_of_a_comparison_is_one_or_zero():
    answer = Value(1.0) < 2
    assert answer and answer == 1 and repr(answer) == str(answer) == f"{answer}" == "True" and answer + answer == 2
    assert repr(~answer) == "False" and not ~answer and pickle.loads(pickle.dumps(answer)) is True


# ── What a traced number is not asked ────────────────────────────────────────────────────────────────────────────

W, P, Q = Value(2.0), nn.Parameter([1.0, 2.0]), Value(5.0)
STATE = random.Random(1).getstate()
TRACED = {
    "if equal": lambda x, y: x if x == y else 2 * y,
    "if different": lambda x, y: x if x != y else 2 * y,
    "list": lambda x, y: x if y in [x] else y,
    "count": lambda x, y: x * [y, 1.0].count(x),
    "index": lambda x, y: [y, x].index(x),
    "set": lambda x, y: len({x, y}) * x,
    "in a set": lambda x, y: x if x in {1.0} else y,
    "key": lambda x, y: {1.0: 5.0}.get(x, 0.0) * y,
    "dict": lambda x, y: {x: 1.0}[x] * y,
    "captured data": lambda x, y: x * W.data,
    "captured gradient": lambda x, y: x * W.grad,
    "captured gradients": lambda x, y: x * P.grad[0],
    "captured item": lambda x, y: x * W.item(),
    "captured real": lambda x, y: x * W.real,
    "captured round": lambda x, y: x * round(W),
    "captured float": lambda x, y: x * float(W),
    "captured bool": lambda x, y: x if W else y,
    "captured equal": lambda x, y: x if W == 2 else y,
    "captured format": lambda x, y: x * float(f"{W:.3f}"),
    "a copy": lambda x, y: x * copy.deepcopy(W),
    "a pickle": lambda x, y: x * pickle.loads(pickle.dumps(P))[0],
    "parameter data": lambda x, y: x * P.data[0],
    "state_dict": lambda x, y: x * nn.Linear(1, 1).state_dict()["weight"][0][0],
    "set data": lambda x, y: setattr(Q, "data", 3.0) or x,
    "gauss": lambda x, y: x * generator().gauss(0.0, 1.0),
    "choice": lambda x, y: x * generator().choice([1.0, 2.0]),
    "randrange": lambda x, y: x * generator().randrange(5),
    "new weights": lambda x, y: nn.Linear(1, 1)([x])[0],
    "seed": lambda x, y: mg.manual_seed(1) or x * generator().random(),
    "state": lambda x, y: generator().setstate(STATE) or x * generator().random(),
    "floor": lambda x, y: x // y,
    "remainder": lambda x, y: 3.5 % y,
    "divmod": lambda x, y: divmod(7, y)[1],
    "trunc": lambda x, y: math.trunc(x),
    "copied": lambda x, y: copy.copy(x),
    "copied deep": lambda x, y: copy.deepcopy([x])[0],
    "pickled": lambda x, y: pickle.loads(pickle.dumps(x)),
    "zero_grad": lambda x, y: x.zero_grad() or x,
}


@pytest.mark.parametrize("name", TRACED)
def test_what_would_be_the_number_of_one_call_is_refused(name):
    with pytest.raises(TraceError) as caught:
        mg.compile(TRACED[name], backend="python")(3.0, 3.0)
    assert __file__ in str(caught.value)
    assert Q.data == 5.0 and W.data == 2.0 and P.data == [1.0, 2.0]


@each_backend
def test_uniform_numbers_of_the_generator_are_new_in_each_call(backend):
    f = mg.compile(lambda x: x + generator().uniform(2.0, 3.0), backend=backend)
    mg.manual_seed(0)
    expected = [1.0 + generator().uniform(2.0, 3.0) for _ in range(4)]
    mg.manual_seed(0)
    assert [f(1.0) for _ in range(4)] == pytest.approx(expected, rel=1e-15)


def test_pythons_own_random_warns():
    with pytest.warns(UserWarning, match="drew from Python's random or NumPy's") as caught:
        mg.compile(lambda x: x * random.random(), backend="python")(1.0)
    assert caught[0].filename == __file__


@each_backend
def test_a_traced_number_that_outlives_its_trace_says_so_at_its_next_use(backend):
    kept = []

    def f(x):
        kept.append(x * 2)
        return x + kept[0]

    g = mg.compile(f, backend=backend)
    assert g(1.0) == 3.0
    uses = [lambda: kept[0] + 1, lambda: mg.exp(kept[0]), lambda: kept[0] < 1]
    for use in uses:
        with pytest.raises(TraceError, match=r"kept when its trace ended.*Symbol\(mul\)"):
            use()
    g = mg.compile(f, backend=backend)  # another trace meets the number of the first
    with pytest.raises(TraceError):
        g(1.0)


@each_backend
def test_a_number_kept_from_a_trace_that_failed_says_so_too(backend):
    kept = []

    def f(x):
        kept.append(x)
        return sum(kept[-2:]) * x

    assert mg.compile(f, backend=backend)(2.0) == 4.0
    for _ in range(4):
        with pytest.raises(TraceError, match="kept when its trace ended"):
            mg.compile(f, backend=backend)(2.0)


def test_a_module_that_keeps_one_is_told_by_the_name_of_its_attribute():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.running = {"mean": [0.0]}

        def forward(self, x):
            self.running = {"mean": [0.9 * self.running["mean"][0] + 0.1 * x]}
            return x - self.running["mean"][0]

    with pytest.warns(UserWarning, match=r"Mean\.running keeps a traced number"):
        mg.compile(Mean(), backend="python")(1.0)


# ── Rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def act(model):
    model.act = mg.tanh
    return model


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_rows_copy_and_pickle_to_themselves(row):
    assert copy.copy(row) is row and copy.deepcopy([row])[0] is row
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(row, protocol)) is row


def twice(x):
    return 2 * x


def twos(z, *xs):
    return (2.0,) * len(xs)


def twice_all(*xs):
    return 2 * sum(xs)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_users_own_operation_is_pickled_by_its_functions(protocol):
    doubled = Op("doubled", twice, twos, "doubled({})", "2x.")
    total = Reduction("total2", twice_all, twos, "total2({})", "2x + 2y + …", symmetric=True)
    f, g = pickle.loads(pickle.dumps((doubled, total), protocol))
    x = Value(3.0)
    (f(x) + g([x, 1.0, x])).backward()
    assert x.grad == 6.0 and type(f) is Op and vars(g) == vars(total) and f.__doc__ == "2x."


def test_a_module_with_a_row_is_copied_and_pickled():
    model = act(nn.Linear(1, 1))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.act is mg.tanh


@each_backend
def test_a_users_reduction_keeps_the_order_of_its_inputs(backend):
    value, partials = lambda *xs: sum(k * x for k, x in enumerate(xs, 1)), lambda z, *xs: [*range(1, len(xs) + 1)]
    fold = Reduction("fold", value, partials, "fold({})", "x₁ + 2·x₂ + 3·x₃ + …")
    f = lambda a, b, c: fold([c, a, b])  # noqa: E731
    if backend == "python":
        assert mg.compile(f, backend=backend)(1.0, 10.0, 100.0) == 100 + 2 * 1 + 3 * 10
    assert f(1.0, 10.0, 100.0) == 132.0 and copy.deepcopy(fold) is fold


# ── Modes, subclasses, objects ───────────────────────────────────────────────────────────────────────────────────


def test_a_thread_that_ends_in_no_grad_does_not_pass_it_on():
    found = []
    for _ in range(20):
        for work in (lambda: no_grad().__enter__(), lambda: found.append((Value(2.0) * 3).requires_grad)):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
    assert found == [True] * 20
    assert (Value(2.0) * 3).requires_grad


def test_tasks_do_not_share_no_grad():
    async def without():
        with no_grad():
            await asyncio.sleep(0)
            assert not (Value(2.0) * 3).requires_grad
            await asyncio.sleep(0)

    async def within():
        for _ in range(4):
            assert (Value(2.0) * 3).requires_grad
            await asyncio.sleep(0)

    async def both():
        await asyncio.gather(without(), within(), without())

    thread = threading.Thread(target=lambda: found.append(asyncio.run(both())))  # where no other loop runs
    found = []
    thread.start()
    thread.join()
    assert found == [None]


class Metres(Value):
    __slots__ = ("unit",)


@each_backend
def test_a_subclass_of_value_computes(backend):
    x = Metres(3.0)
    y = mg.exp(x * 2) + mg.dot([x, x], [1.0, x]) - 2 / x + (x > 1)
    y.backward()
    assert x.grad == pytest.approx(2 * math.exp(6) + 1 + 6 + 2 / 9, rel=1e-14)
    x.grad = 0.0
    g = mg.compile(lambda: mg.exp(x * 2) + mg.dot([x, x], [1.0, x]) - 2 / x, backend=backend)
    g.value().backward()
    assert x.grad == pytest.approx(2 * math.exp(6) + 1 + 6 + 2 / 9, rel=1e-14)
    assert type(copy.copy(x)) is Metres


@each_backend
def test_the_code_for_objects_is_bounded_and_keeps_none_alive(backend):
    import gc
    import weakref

    class Scale:
        def __init__(self, by):
            self.by = by

    f = mg.compile(lambda scale, x: scale.by * x, backend=backend)
    alive = []
    for k in range(70):
        scale = Scale(k)
        assert f(scale, 2.0) == 2.0 * k == f(scale, 2.0)
        alive.append(weakref.ref(scale))
    del scale
    gc.collect()
    assert not any(ref() for ref in alive)
    assert len(f._variants) <= 64


@pytest.mark.parametrize("partial", [None, "a", [1.0]])
def test_a_partial_that_is_no_number_names_its_op(partial):
    row = Op("mine", lambda x: 2 * x, lambda z, x: (partial,), "mine({})", "Twice x.")
    for derive in (lambda z, x: z.backward(), lambda z, x: mg.grad(z, x, create_graph=False)):
        with pytest.raises(TypeError, match=r"^mine: partial derivative: expected a real number or a Value, got"):
            derive(row(x := Value(1.0)), x)
        assert x.grad == 0.0


def test_a_partial_that_is_no_sequence_names_its_op():
    for partials in (lambda z, x: 2.0, lambda z, x: (1.0, 2.0), lambda z, x: None):
        row = Op("mine", lambda x: 2 * x, partials, "mine({})", "Twice x.")
        with pytest.raises(TypeError, match=r"^mine: expected partials that return a sequence with one derivative"):
            row(Value(1.0)).backward()
        with pytest.raises(TypeError, match=r"^mine: expected partials"):
            mg.grad(row(x := Value(1.0)), x)
    row = Op("mine", lambda x, y: x, lambda z, x, y: 1.0, "mine({}, {})", "x.")
    with pytest.raises(TypeError, match=r"^mine: expected partials"):
        row(Value(1.0), 2.0).backward()


@pytest.mark.parametrize("bad", ["q", None, [1.0], 1j, Value(2.0)])
def test_data_that_is_no_number_is_refused_by_name_at_its_next_use(bad):
    uses = [
        lambda x: x * 2,
        lambda x: 2 - x,
        lambda x: x + x,
        mg.exp,
        mg.relu,
        lambda x: mg.dot([x], [x]),
        lambda x: -x,
    ]
    for use in uses:
        x = Value(1.0, "speed")
        x.data = bad
        with pytest.raises((TypeError, GradientWarning)) as caught:  # math.exp takes a Value's number, with a warning
            use(x)
        assert "data of speed: expected a" in str(caught.value) or (use is mg.exp and isinstance(bad, Value))
    x = Value(1.0)
    for x.data in (3, True, 2**70):
        assert (x * 2).data == 2.0 * x.data and (x + x).data == 2 * x.data


def test_reading_numbers_is_as_before_after_a_trace_and_in_other_threads(monkeypatch):
    monkeypatch.setattr(mg.engine, "_changes", 0)  # there may have been hundreds of traces before
    mg.compile(lambda x: x, backend="python")(1.0)
    assert Value.data is Value.real is Value.__dict__["_data"]
    w = Value(2.0)
    found = []

    def f(x):
        thread = threading.Thread(target=lambda: found.append((w.data, w.real, setattr(w, "data", 3.0))))
        thread.start()
        thread.join()
        return x * w

    assert mg.compile(f, backend="python")(2.0) == 6.0 and found == [(2.0, 2.0, None)]
    assert Value.data is Value.real is Value.__dict__["_data"]


def test_after_hundreds_of_traces_numbers_are_still_asked_for_in_traces_alone(monkeypatch):
    monkeypatch.setattr(mg.engine, "_changes", mg.engine.CHANGES + 1)
    w = Value(2.0)
    for _ in range(2):
        with pytest.raises(TraceError):
            mg.compile(lambda x: x * w.data, backend="python")(1.0)
        w.data += 1.0
    assert w.data == w.real == 4.0
    monkeypatch.setattr(mg.engine, "_changes", 0)
    mg.compile(lambda x: x, backend="python")(1.0)
