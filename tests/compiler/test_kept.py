"""What is kept of code: found again it computes the same, without a pass, and it is found for the same program only."""

import json
import math
import os
import pickle
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from milligrad import Trainer, Value, manual_seed, nn, no_grad, ops, optim, random, scan
from milligrad import functional as F
from milligrad.compiler import backends, batch, cache, kept, pipeline
from milligrad.compiler import fit as session
from milligrad.compiler.backends import has_llvmlite
from milligrad.compiler.compiled import compile
from milligrad.compiler.llvm import native
from milligrad.compiler.passes import counts, update
from milligrad.compiler.trace import Trace
from milligrad.engine import Op, number
from milligrad.transforms import grad, value_and_grad
from tests.compiler.random_programs import numbers

NATIVE = pytest.mark.skipif(not has_llvmlite(), reason="needs llvmlite")
BACKENDS = ["python", pytest.param("llvm", marks=NATIVE)]
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MILLIGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_pass(monkeypatch):
    """From its call on no pass runs, and LLVM translates nothing."""

    def refuse(*args, **options):
        raise AssertionError("a pass runs")

    def forbid():
        passes = {
            pipeline: ["made"], native: ["translated"], backends: ["build", "build_in_order"],
            batch: ["separated", "same", "gradients"], session: ["gradients"], update: ["simplify", "reroll", "fuse"],
            counts: ["simplify", "roll_evenly", "in_registers", "compact"],
        }  # fmt: skip
        for module, names in passes.items():
            for name in names:
                monkeypatch.setattr(module, name, refuse)

    return forbid


def pendulum(p):
    x, v = 1.0, 0.0
    for _ in range(60):
        v = v - 0.01 * (p[0] * ops.sin(x) + p[1] * v)
        x = x + 0.01 * v
    return x


def mixture(x):
    """All kinds of ops, folds, constants and a table."""
    odd = [ops.exp(a) / (1 + abs(b)) for a, b in zip(x, [*x[3:], *x[:3]])]
    best = ops.max(odd) - ops.min(x) + ops.logsumexp(odd) * ops.prod(odd[:4])
    return ops.where(best > 0.5, ops.log(1 + best * best), ops.tanh(best)) + ops.clamp(x[0], -0.5, 0.5) + ops.erf(x[1])


WEIGHTS = [Value(0.3 * i - 1) for i in range(12)]


def network(x):
    hidden = [ops.tanh(ops.dot(WEIGHTS[i : i + 3], x)) for i in range(0, 9, 3)]
    return ops.dot(WEIGHTS[9:], hidden)


def noisy(x):
    return [a * random.uniform() for a in x]


FUNCTIONS = {
    "in time": (pendulum, ([9.81, 0.1],)),
    "a gradient in time": (value_and_grad(pendulum), ([9.81, 0.1],)),
    "a mixture": (mixture, ([0.1 * i - 0.3 for i in range(8)],)),
    "its gradient": (grad(mixture), ([0.1 * i - 0.3 for i in range(8)],)),
    "captured Values": (value_and_grad(network), ([0.5, -0.2, 0.1],)),
    "random numbers": (noisy, ([1.0, 2.0, 3.0],)),
    "nothing to compute": (lambda x: [x[1], 2.0, WEIGHTS[0], 3], ([1.0, 2.0],)),
    "no arguments": (lambda: WEIGHTS[1] * 2, ()),
    "many results": (lambda x: [a * a for a in x], ([0.1 * i for i in range(100)],)),
}


def results(f, args):
    manual_seed(1)
    row = [list(args)] if args else []
    return [numbers(f(*args)), *[numbers(z) for z in f.map(row)]]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_later_the_same_numbers_are_computed_without_a_pass(name, backend, no_pass, folder):
    f, args = FUNCTIONS[name]
    expected = results(compile(f, backend=backend), args)
    files = len([*folder.iterdir()])
    native._asked.cache_clear()
    no_pass()
    again = compile(f, backend=backend)
    assert results(again, args) == expected and len([*folder.iterdir()]) == files
    told = again.explain(full=True)
    assert "; taken from the cache, made in " in told and "simplify: " in told and "trace: " in told
    assert again.source in told and ("def run" in again.source) is (backend == "python")


# ── Programs with a count ──────────────────────────────────────────────────────────────────────────────────────────


def steered(g, xs):
    """A state of two numbers, which is given back for each step, with constants that depend on the length."""

    def step(state, x):
        angle, speed = state
        speed = speed - 0.01 * g * ops.sin(angle) + x * WEIGHTS[4] / len(xs)
        return (angle + 0.01 * speed, speed), angle * speed

    (angle, _), seen = scan(step, (1.0, 0.0), xs)
    return angle + ops.mean(seen)


def dreamed(g, xs):
    return scan(lambda state, x: (0.9 * state + g * random.uniform() * x, state), 1.0, xs)


def delayed(g, xs):
    """A delay of two steps, and lists of nearly as many entries."""

    def step(state, x):
        a, b = state
        return (b, ops.tanh(g * a + x[0] * x[1])), None

    return scan(step, (0.5, g), (xs[1:], xs[:-1]))[0]


SCANS = {
    "a scan": steered, "its gradient": value_and_grad(steered), "random steps": dreamed, "a delay": delayed,
    "by lists": grad(steered, argnums=1), "steps in dicts": lambda g, xs: scan(
        lambda s, x: ({"a": s["a"] * g + x, "b": s["a"]}, {"y": s["b"]}), {"a": 0.0, "b": 1.0}, xs),
}  # fmt: skip


@pytest.mark.parametrize("name", SCANS)
def test_a_long_scan_is_computed_later_without_a_pass(name, backend, no_pass, folder):
    f, lists = SCANS[name], [[0.01 * i for i in range(n)] for n in (130, 178)]
    expected = [results(compile(f, backend=backend), (0.9, xs)) for xs in lists]
    files = len([*folder.iterdir()])
    no_pass()
    for xs, wanted in zip(lists, expected):
        again = compile(f, backend=backend)
        assert results(again, (0.9, xs)) == wanted and len([*folder.iterdir()]) == files
        manual_seed(1)
        eager = [number(z) for z in numbers(f(0.9, xs))]
        assert numbers(wanted[0]) == pytest.approx(eager, rel=1e-9, abs=1e-12)
        assert again.source in again.explain(full=True)


def test_all_lengths_are_told_of_where_the_code_is_kept(backend):
    f, lists = SCANS["a delay"], [[0.01 * i for i in range(n)] for n in (130, 178, 190)]
    compile(f, backend=backend)(0.9, lists[0])
    again = compile(f, backend=backend)
    for xs in lists:
        assert again(0.9, xs) == pytest.approx([number(z) for z in f(0.9, xs)], rel=1e-9)
        told = again.explain()
        assert "steps of a scan" in told and (backend == "python" or "taken from the cache" in told)


def test_what_is_no_program_with_a_count_is_not_looked_for_twice(backend, no_pass):
    def f(xs):
        return scan(lambda s, x: (0.5 * s + x, None), 0.0, xs)[0] * xs[len(xs) // 3]

    xs = [0.1 * i for i in range(150)]
    expected = compile(f, backend=backend)(xs)
    no_pass()
    assert compile(f, backend=backend)(xs) == expected == pytest.approx(f(xs), rel=1e-12)


def finished(step, final, xs):
    return final(scan(step, 0.5, xs), len(xs))


def test_no_scan_is_taken_for_another_one(backend, monkeypatch):
    w = [Value(0.2), Value(0.3)]
    steps = [
        lambda s, x: (0.5 * s + x, s), lambda s, x: (0.25 * s + x, s), lambda s, x: (0.5 * s + x, x),
        lambda s, x: (s * 0.5 - x, s), lambda s, x: (w[0] * s + x, s), lambda s, x: (w[0] * s + w[1] * x, s),
        lambda s, x: (w[0] * s + w[0] * x, s), lambda s, x: (ops.sin(s) + x, s), lambda s, x: (ops.cos(s) + x, s),
    ]  # fmt: skip
    finals = [lambda z, n: z[0], lambda z, n: z[1][-1], lambda z, n: z[1][-2], lambda z, n: z[0] * n, lambda z, n: z[1]]
    folder = os.environ["MILLIGRAD_CACHE"]
    for _ in range(2):
        for step, final in [*product(steps, finals[:1]), *product(steps[:1], finals)]:
            for n in (100, 120) if backend == "python" else (100,):
                xs = [0.01 * i for i in range(n)]
                monkeypatch.setenv("MILLIGRAD_CACHE", folder)
                f = partial(finished, step, final)
                found = compile(f, backend=backend)(xs)
                expected = [number(z) for z in numbers(f(xs))]
                assert numbers(found) == pytest.approx(expected, rel=1e-9)


def test_captured_numbers_are_those_of_each_call(backend, no_pass):
    f, args = FUNCTIONS["captured Values"]
    compile(f, backend=backend)(*args)
    no_pass()
    again = compile(f, backend=backend)
    for v in WEIGHTS:
        before = again(*args)[0]
        v.data += 0.25
        expected = [number(z) for z in numbers(f(*args))]
        assert numbers(again(*args)) == pytest.approx(expected, rel=1e-12)
        assert again(*args)[0] != before
        v.data -= 0.25


def test_values_with_gradients_and_exact_code_are_kept_too(backend, no_pass):
    def f(x):
        return ops.where(x > 0, ops.sqrt(x), 0 * x) + WEIGHTS[2] * x

    def used(g):
        x = Value(-1.0)
        z = g.value(x)
        z.backward()
        found = z.data, x.grad, WEIGHTS[2].grad
        WEIGHTS[2].grad = 0.0
        return found, g(-1.0), g(4.0)

    expected = used(compile(f, backend=backend))
    no_pass()
    assert used(compile(f, backend=backend)) == expected


@NATIVE
def test_the_machine_code_of_a_function_is_that_of_the_text(folder):
    f = compile(FUNCTIONS["a mixture"][0], backend="llvm")
    f(*FUNCTIONS["a mixture"][1])
    g = compile(FUNCTIONS["a mixture"][0], backend="llvm")
    g(*FUNCTIONS["a mixture"][1])
    assert g.source == f.source and g._last.code.optimized() == f._last.code.optimized()
    assert g._last.code.instance().source == f.source


# ── Training ───────────────────────────────────────────────────────────────────────────────────────────────────────


X = [[((7 * i + 3 * k) % 11) / 11 for k in range(3)] for i in range(17)]
Y = [i * i % 4 for i in range(17)]


class Own(nn.Module):
    """No layer of milligrad's alone, so that each length of a batch is traced."""

    def __init__(self, power=2.0, pairs=False):
        super().__init__()
        self.inner, self.power, self.pairs = nn.Linear(3, 4), power, pairs
        self.fixed = nn.Parameter([0.5])
        for v in self.fixed:
            v.requires_grad = False

    def forward(self, xs):
        mean = sum([x[0] for x in xs]) / len(xs) if self.pairs else 0.0
        return self.inner([[a**self.power * self.fixed[0] + mean for a in x] for x in xs])


def layers(*more):
    return nn.Sequential(nn.Linear(3, 5), *more, nn.Tanh(), nn.Linear(5, 4))


def summed(p, y):
    return F.cross_entropy(p, y) + 0.01 * sum([a * a for row in p for a in row]) / len(p)


def best(p, y):
    return p[0] > p[1]


class Two(nn.Module):
    """Two parameters of one size."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter([0.1, 0.2, 0.3]), nn.Parameter([0.3, -0.2, 0.1])

    def forward(self, xs):
        return [[ops.dot(self.a, x), ops.dot(self.b, x), x[0], 2 * self.a[1] * x[1]] for x in xs]


def grouped(ps, k):
    return optim.SGD([{"params": ps[:k]}, {"params": ps[k:], "momentum": 0.9}], lr=0.1)


SETUPS = {  # a step away from each other
    "layers": {}, "another slope": {"model": lambda: layers(nn.LeakyReLU(0.1))},
    "another slope, again": {"model": lambda: layers(nn.LeakyReLU(0.2))}, "an own module": {"model": Own},
    "dropout": {"model": lambda: layers(nn.Dropout(0.3))}, "more dropout": {"model": lambda: layers(nn.Dropout(0.4))},
    "with another power": {"model": lambda: Own(3.0)}, "not separable": {"model": lambda: Own(2.0, True)},
    "an own loss": {"loss": summed}, "an own metric": {"metric": best}, "none": {"metric": None},
    "momentum": {"optimizer": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9)},
    "more momentum": {"optimizer": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.8)},
    "Adam": {"optimizer": lambda ps: optim.Adam(ps, lr=0.01)},
    "groups": {"optimizer": lambda ps: grouped(ps, 1)}, "other groups": {"optimizer": lambda ps: grouped(ps, 2)},
    "norm": {"clip_grad_norm": 0.1}, "a larger norm": {"clip_grad_norm": 0.2}, "clipped": {"clip_grad_value": 0.01},
    "two": {"model": Two}, "two in groups": {"model": Two, "optimizer": lambda ps: grouped(ps, 1)},
    "two, turned": {"model": Two, "optimizer": lambda ps: grouped(ps[::-1], 1)},
    "smaller batches": {"batch_size": 4}, "frozen": {"frozen": 0}, "frozen, too": {"frozen": 2},
}  # fmt: skip


FEW = ("layers", "dropout", "an own module", "not separable", "norm")  # with LLVM, which takes its time


def trained(
    backend, threads=1, model=layers, loss=F.cross_entropy, optimizer=None, frozen=None, batch_size=5, **options
):
    """All numbers of a run: fit, evaluate, predict and step."""
    manual_seed(4)
    net = model()
    parameters = [*net.parameters()]
    if frozen is not None:
        for v in parameters[frozen].values():
            v.requires_grad = False
    chosen = optimizer(parameters) if optimizer else optim.SGD(parameters, lr=0.1)
    trainer = Trainer(net, loss, chosen, backend=backend, threads=threads, **options)
    history = trainer.fit(X, Y, epochs=2, batch_size=batch_size, progress=False, validation_data=(X[:7], Y[:7]))
    stepped = trainer.step(X[:2], Y[:2]), trainer.evaluate(X, Y), trainer.predict(X)
    rows = [{name: x for name, x in row.items() if name != "seconds"} for row in history]
    return repr([rows, stepped, [v.data for v in net.values()], trainer.optimizer.state_dict()])


def test_a_later_trainer_walks_the_same_way_without_a_pass(backend, monkeypatch, no_pass, folder):
    setups = SETUPS if backend == "python" else {name: SETUPS[name] for name in FEW}
    found = {name: trained(backend, **setup) for name, setup in setups.items()}
    split = trained(backend, threads=2)
    files = sorted(folder.iterdir())
    with monkeypatch.context() as patch:
        patch.setenv("MILLIGRAD_CACHE", "off")
        assert found == {name: trained(backend, **setup) for name, setup in setups.items()}
    assert len({*found.values()}) == len(setups)
    no_pass()
    assert found == {name: trained(backend, **setup) for name, setup in setups.items()}
    assert split == trained(backend, threads=2) and sorted(folder.iterdir()) == files


def test_numbers_that_are_looked_up_are_no_part_of_the_key(backend, no_pass):
    trained(backend)
    no_pass()
    for rate in (0.2, 0.3):
        assert trained(backend, optimizer=lambda ps, rate=rate: optim.SGD(ps, lr=rate))


def test_explain_tells_of_programs_that_were_kept(backend):
    def told():
        trainer = Trainer(model := layers(), F.cross_entropy, optim.SGD(model.parameters(), lr=0.1), backend=backend)
        trainer.fit(X, Y, progress=False)
        return trainer.explain() if hasattr(trainer, "explain") else next(iter(trainer._sessions.values())).explain()

    first, second = told(), told()
    assert "taken from the cache" in second and "taken from the cache" not in first
    assert [x for x in first.splitlines() if " ms" not in x] == [x for x in second.splitlines() if " ms" not in x]


# ── What the key tells apart ───────────────────────────────────────────────────────────────────────────────────────


W, B = Value(2.0), Value(3.0)
ALIKE = [  # functions of two numbers, each of which is one step away from another
    lambda x, y: x - y, lambda x, y: y - x, lambda x, y: x + y, lambda x, y: x * y, lambda x, y: x / y,
    lambda x, y: [x - y, x], lambda x, y: [x, x - y], lambda x, y: [x - y, x - y], lambda x, y: [x - y],
    lambda x, y: x - 1.0, lambda x, y: x - math.nextafter(1.0, 2.0), lambda x, y: 1.0 - x, lambda x, y: x - 1.5,
    lambda x, y: [x, 0.0], lambda x, y: [x, -0.0], lambda x, y: [x, 1.0], lambda x, y: [0.0, x],
    lambda x, y: x - W, lambda x, y: W - x, lambda x, y: W - B + x - x, lambda x, y: B - W + x - x,
    lambda x, y: [W, B], lambda x, y: [B, W], lambda x, y: [W, W], lambda x, y: [x, W], lambda x, y: [y, W],
    lambda x, y: ops.sum([x, y, 2.0]), lambda x, y: ops.sum([x, y, 2.0, 2.0]), lambda x, y: ops.prod([x, y, 2.0]),
    lambda x, y: ops.dot([x, y], [2.0, 4.0]), lambda x, y: ops.dot([x, 2.0], [y, 4.0]),
    lambda x, y: ops.dot([x, y, 1.0], [2.0, 4.0, 1.0]), lambda x, y: ops.max([x, y]), lambda x, y: ops.min([x, y]),
    lambda x, y: ops.where(x < y, 1.0, 2.0), lambda x, y: ops.where(x <= y, 1.0, 2.0), lambda x, y: x**2.0,
    lambda x, y: ops.where(x < y, 2.0, 1.0), lambda x, y: ops.where(y < x, 1.0, 2.0), lambda x, y: x**3.0,
    lambda x, y: 2.0**x, lambda x, y: ops.sin(ops.cos(x)), lambda x, y: ops.cos(ops.sin(x)), lambda x, y: [[x], y],
    lambda x, y: [ops.sum([x, y]), ops.sum([y])], lambda x, y: [ops.sum([x]), ops.sum([y, y])],
    lambda x, y: ops.sin(ops.sin(ops.cos(x))), lambda x, y: ops.sin(ops.cos(ops.cos(x))),
    lambda x, y: random.uniform() + 0 * x, lambda x, y: random.uniform() - x, lambda x, y: x - random.uniform(),
    lambda x, y: [random.uniform(), random.uniform()], lambda x, y: random.uniform() - random.uniform(),
]  # fmt: skip


def test_no_function_is_taken_for_another_one(backend, monkeypatch):
    def used(f):
        manual_seed(2)
        return repr([f(1.0, 1.0), f(0.5, 0.25), f.map([[2.0, 5.0]])])

    folder = os.environ["MILLIGRAD_CACHE"]
    for _ in range(2):  # the second time they are all there
        for f in ALIKE if backend == "python" else ALIKE[::4]:
            monkeypatch.setenv("MILLIGRAD_CACHE", folder)
            found = used(compile(f, backend=backend))
            monkeypatch.setenv("MILLIGRAD_CACHE", "off")
            assert found == used(compile(f, backend=backend))


def asked_for(act, f, **options):
    """The keys that `act`, with the function compiled, looks for."""
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "recall", lambda key, given=(): asked.append(key))
        act(compile(f, **options))
    return asked


def test_options_and_ways_to_call_have_keys_of_their_own():
    f = ALIKE[0]
    calls = {
        "as it is": lambda f: f(1.0, 2.0), "rows": lambda f: f.map([[1.0, 2.0]]), "exactly": lambda f: f(math.inf, 1.0),
        "a gradient": lambda f: f.value(Value(1.0), 2.0), "by the second": lambda f: f.value(1.0, Value(2.0)),
    }  # fmt: skip
    options = [{"backend": "python"}]
    if has_llvmlite():
        options += [{"backend": "llvm"}, {"backend": "llvm", "dtype": "float32"}]
    found = [asked_for(call, f, nonfinite="allow", **o)[-1] for o in options for call in calls.values()]
    assert len({*found}) == len(options) * len(calls) and "" not in found


def test_versions_processors_and_the_compilers_source_are_part_of_the_key(backend, monkeypatch):
    import milligrad

    def now():
        kept._surroundings.cache_clear()
        return asked_for(lambda f: f(1.0, 2.0), ALIKE[0], backend=backend)[-1]

    known = {now()}
    assert now() in known
    changes = [
        (milligrad, "__version__", "99"), (kept, "_source", lambda: "other"), (sys, "version_info", (9, 9, 9, "", 0)),
        (sys, "platform", "other"), (sys, "byteorder", "middle"), (kept.platform, "machine", lambda: "other"),
    ]  # fmt: skip
    if backend == "llvm":
        import llvmlite
        from llvmlite import binding

        machine = native.host()
        changes += [(native, "host", lambda field=field, x=x: machine._replace(**{field: x})) for field, x in (
            ("cpu", "other"), ("features", "+other"), ("bits", 64), ("registers", 8), ("functions", {}))]  # fmt: skip
        changes += [(llvmlite, "__version__", "99"), (binding, "llvm_version_info", (9, 9, 9))]
    for owner, name, value in changes:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            key = now()
        assert key not in known, name
        known.add(key)
    kept._surroundings.cache_clear()


def test_the_source_is_that_of_all_files_that_make_code(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "__file__", str(tmp_path / "compiler" / "kept.py"))
    (tmp_path / "compiler" / "passes").mkdir(parents=True)
    assert kept._source() == ""  # nothing to read
    for name in ("engine.py", "ops.py", "compiler/kept.py", "compiler/passes/roll.py"):
        (tmp_path / name).write_text(f"# {name}")
    known = {kept._source()}
    for name in ("engine.py", "ops.py", "compiler/passes/roll.py", "compiler/new.py"):
        (tmp_path / name).write_text("# changed")
        assert kept._source() not in known
        known.add(kept._source())
    assert all([(ROOT / "milligrad" / name).exists() for name in kept.COMPILES])


def test_an_operation_of_the_users_own_is_not_kept(folder):
    for k in (2.0, 3.0):  # of one name, and not the same
        times = Op("times", lambda x, k=k: x * k, lambda z, x, k=k: (k,), "times({})", "x times k.")
        f = compile(lambda x, times=times: times(x), backend="python")
        assert f(5.0) == 5.0 * k and "cache" not in f.explain()
    assert not folder.exists()


def test_an_operation_with_the_name_of_a_row_is_not_that_row(folder):
    mine = Op("sin", lambda x: 7.0, lambda z, x: (0.0,), "sin({})", "Always 7.")
    for f, expected in ((ops.sin, math.sin(1.0)), (mine, 7.0), (ops.sin, math.sin(1.0))):
        assert compile(lambda x, f=f: f(x), backend="python")(1.0) == expected


def test_what_learns_is_part_of_a_fingerprint():
    prints = set()
    for w_learns, v_learns, remembers in product((True, False), repeat=3):
        trace, w, v = Trace(), Value(1.0, requires_grad=w_learns), Value(1.0, requires_grad=v_learns)
        (x,) = trace.input("x", 1)
        with trace.running(), nullcontext() if remembers else no_grad():
            z = x * w * v
        prints.add(kept.fingerprint(trace.tape, [z], kept.Seen(), [x]))
    assert len(prints) == 8 - 1  # without any that learns, there is nothing to remember


def test_values_are_found_by_their_numbers():
    values = [Value(0.0, requires_grad=i % 3 > 0) for i in range(9)]
    seen = kept.Seen()
    numbers = [seen[v] for v in values]
    assert len({*numbers}) == 9 and max(numbers) < 0 and [seen[v] for v in values] == numbers
    found = seen.values_at(numbers[::-1])
    assert all([v is w for v, w in zip(found, values[::-1], strict=True)])


def test_an_argument_is_no_random_number(backend, monkeypatch):
    for _ in range(2):
        manual_seed(5)
        assert compile(lambda x: x - random.uniform(), backend=backend)(1.0) != compile(ALIKE[0], backend=backend)(
            1.0, 1.0
        )


# ── What is not trusted ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_with_another_digest_is_not_even_looked_into(backend, folder, monkeypatch):
    f, args = FUNCTIONS["a gradient in time"]
    expected = numbers(compile(f, backend=backend)(*args))
    for path in folder.iterdir():
        data = bytearray(path.read_bytes())
        data[-1] ^= 255
        path.write_bytes(data)
    read = []
    monkeypatch.setattr(kept, "_Reader", lambda *data: read.append(data))
    monkeypatch.setattr(kept, "keep", lambda *code: None)
    if backend == "llvm":
        monkeypatch.setattr(native, "restored", lambda *made: read.append(made))
    assert numbers(compile(f, backend=backend)(*args)) == expected and not read


class Evil:
    def __reduce__(self):
        return os.system, ("echo was called",)


def test_nothing_is_called_that_is_not_of_the_table(folder):
    key = kept.key("evil", "python", 1)
    for thing in (Evil(), os.system, print, {"a": [Evil()]}, partial(print, "called")):
        cache.store(key, pickle.dumps(thing))
        assert kept.recall(key) is None
    for data in (b"", b"no pickle", pickle.dumps([1, 2])[:-3]):
        cache.store(key, data)
        assert kept.recall(key) is None
    kept.keep(key, {"plain": [1, 2.0, "three", (None, True)]})
    assert kept.recall(key) == {"plain": [1, 2.0, "three", (None, True)]}


# ── Another process ────────────────────────────────────────────────────────────────────────────────────────────────


SCRIPT = """
import json, sys
from milligrad import compile, ops, scan, value_and_grad, Value
from milligrad.compiler import pipeline
from milligrad.compiler.llvm import native
from milligrad.compiler.passes import counts

called = []
def counted(module, name):
    f = getattr(module, name)
    def counting(*args, **options):
        called.append(name)
        return f(*args, **options)
    setattr(module, name, counting)

for name in ("simplify", "reroll", "roll_within"):
    counted(pipeline, name)
for name in ("roll_evenly", "in_registers"):
    counted(counts, name)
counted(native, "translated")
w = [Value(0.1 * i) for i in range(64)]

def f(x):
    for i in range(200):
        x = x + 0.01 * ops.sin(x) * w[i % 64]
    return x

z = compile(value_and_grad(f), backend=sys.argv[1])(0.5)
many = compile(lambda x: [ops.exp(x * a) for a in w], backend=sys.argv[1])(0.5)
long = compile(lambda x, xs: scan(lambda s, x: (ops.sin(s) * w[3] + x, None), x, xs)[0], backend=sys.argv[1])
print(json.dumps([called, z, many, long(0.5, [0.01] * 1000)]))
"""


def test_a_second_process_runs_no_pass(backend, folder):
    def run_it(**environment):
        command = [sys.executable, "-c", SCRIPT, backend]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, check=True)
        return json.loads(done.stdout)

    called, *first = run_it()
    assert {*called} >= {"simplify", "reroll", "roll_within", "roll_evenly"}
    for _ in range(2):
        assert run_it() == [[], *first]
    called_without, *without = run_it(MILLIGRAD_CACHE="off")
    assert called_without and without == first


def test_what_is_looked_at_for_nan_is_part_of_the_key():
    def mark(forward=None, doubtful=()):
        trace = Trace()
        x, y = trace.input("x", 2)
        with trace.running():
            z = ops.where(x < y, x, ops.sqrt(y))
        trace.tape.forward = trace.tape.forward if forward is None else forward
        trace.tape.doubtful = frozenset(doubtful)
        return kept.fingerprint(trace.tape, [z], kept.Seen(), [x, y])

    marks = [mark(), mark(forward=2), mark(forward=3), mark(doubtful=[0]), mark(doubtful=[1]), mark(2, [0, 1])]
    assert len({*marks}) == len(marks) and None not in marks
    assert mark() == marks[0] and mark(2, [0, 1]) == marks[-1]
