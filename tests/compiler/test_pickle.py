"""Copies and pickles of all that `compile`, the transforms and `Trainer` return compute what the original does."""

import copy
import io
import multiprocessing
import pickle
from functools import partial

import pytest

from milligrad import CrossEntropyLoss, Trainer, manual_seed, nn, ops, optim, random
from milligrad.compiler.backends import has_llvmlite
from milligrad.compiler.compiled import compile
from milligrad.engine import number
from milligrad.nested import flatten
from milligrad.optim.lr_scheduler import StepLR
from milligrad.trainer import EarlyStopping
from milligrad.transforms import grad, hessian, jacobian, value_and_grad

NATIVE = pytest.mark.skipif(not has_llvmlite(), reason="needs llvmlite")
BACKENDS = ["python", pytest.param("llvm", marks=NATIVE)]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture(params=["pickle", "cloudpickle", "joblib"])
def through(request):
    """What makes a copy as another process would get it."""
    package = pytest.importorskip(request.param)

    def copied(x):
        file = io.BytesIO()
        package.dump(x, file)
        file.seek(0)
        return package.load(file)

    return copied


def cube(x):
    return x**3


@grad
def slope(x):
    return x * x


class Line:
    def __init__(self, by):
        self.by = by

    def at(self, x):
        return self.by * x

    @partial(compile, backend="python")
    def compiled(self, x):
        return self.by * x * x

    @partial(grad, argnums=1)
    def slope(self, x):
        return self.by * x * x

    @staticmethod
    @partial(compile, backend="python")
    def static(x):
        return 2 * x


def functions(backend):
    """What `compile` and the transforms return, in every way to call them."""
    compiled = partial(compile, backend=backend)
    f = compiled(cube)
    return {
        "a function": f, "a row": compiled(ops.sqrt), "a partial": compiled(partial(pow, 2.0)),
        "a compiled one": compiled(f), "a method": compiled(Line(3.0).at), "a layer": compiled(nn.Tanh()),
        "a gradient": compiled(grad(cube)), "a value and gradient": compiled(value_and_grad(cube, argnums=(0,))),
        "derivatives": compiled(jacobian(cube)), "second ones": compiled(hessian(cube)),
        "the gradient of a compiled one": grad(f), "a gradient of its own": slope, "that, compiled": compiled(slope),
        "its value": f.value, "its call": f.__call__, "automatically": compile(cube),
        "a compiled method": Line(3.0).compiled, "that, again": compiled(Line(3.0).compiled),
        "the gradient of a compiled method": grad(Line(3.0).compiled), "a method of a gradient": Line(3.0).slope,
        "a compiled static method": Line.static,
    }  # fmt: skip


def outcome(f):
    """All numbers of f(0.5)."""
    return [number(z) for z in flatten(f(0.5))]


def test_what_is_compiled_or_differentiated_can_be_pickled_before_a_call_and_after(backend, through):
    expected = {name: outcome(f) for name, f in functions("python").items()}
    for name, f in functions(backend).items():
        copies = [through(f), copy.copy(f), copy.deepcopy(f)]
        found = outcome(f)
        assert found == pytest.approx(expected[name], rel=1e-12), name
        for g in (*copies, through(f), copy.copy(f), copy.deepcopy(f)):
            assert outcome(g) == found, name
    assert expected["the gradient of a compiled method"] == expected["a method of a gradient"] == [3.0]


def test_what_decorates_a_function_is_found_by_its_name():
    for f in (slope, Line.compiled, Line.static):
        assert all([pickle.loads(pickle.dumps(f, protocol)) is f for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)])


def test_options_and_captured_numbers_are_copied(backend, through):
    model = nn.Linear(1, 1)
    f = compile(model, backend=backend, nonfinite="allow")
    f([2.0])
    g = through(f)
    assert (g.backend, g.dtype, g.nonfinite) == (backend, "float64", "allow") and g([2.0]) == f([2.0])
    model.bias[0].data += 1.0
    assert f([2.0])[0] == pytest.approx(g([2.0])[0] + 1.0)


def test_what_is_the_users_own_and_can_not_be_pickled_is_named_by_pythons_error():
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(compile(lambda x: x * 2))
    cloudpickle = pytest.importorskip("cloudpickle")
    assert pickle.loads(cloudpickle.dumps(compile(lambda x: x * 2, backend="python")))(4.0) == 8.0


def test_what_was_lowered_is_plain_data(through):
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    for f, example in ((value_and_grad(cube), (0.5,)), (model, ([1.0, 2.0],)), (lambda x, k: x / k, (1.0, Line(2)))):
        if len(example) == 2:
            f, example = partial(f, k=2.0), example[:1]
        low = compile(f, backend="python").lower(*example)
        for other in (copy.copy(low), copy.deepcopy(low)):
            assert (other.c_source, other.header) == (low.c_source, low.header)
        if not isinstance(f, partial):
            assert through(low).c(parameters="argument") == low.c(parameters="argument")


def test_a_process_that_is_spawned_computes_with_it(backend):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(compile(value_and_grad(ops.exp), backend=backend), [0.0, 0.0]) == [(1.0, 1.0)] * 2


# ── Trainer ────────────────────────────────────────────────────────────────────────────────────────────────────────


X = [[(7 * i + 3 * k) % 11 / 11 for k in range(3)] for i in range(23)]
Y = [i * i % 4 for i in range(23)]


def trained(backend, threads):
    """A Trainer after a fit with all that keeps a state, and what to fit it with again."""
    manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.2), nn.Tanh(), nn.Linear(5, 4))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    trainer = Trainer(model, CrossEntropyLoss(), optimizer, backend=backend, threads=threads, clip_grad_norm=1.0)
    options = {"scheduler": StepLR(optimizer, 2), "callbacks": [EarlyStopping(patience=9)], "validation_data": (X, Y)}
    trainer.fit(X, Y, epochs=2, batch_size=5, progress=False, **options)
    trainer.step(X[:3], Y[:3]), trainer.predict(X), trainer.evaluate(X, Y)
    return trainer, options


def after_another_fit(trainer, options, state):
    """All numbers after it, from that state of the generator."""
    random.generator().setstate(state)
    history = trainer.fit(X, Y, epochs=3, batch_size=4, progress=False, **options)
    rows = [{name: x for name, x in row.items() if name != "seconds"} for row in history]
    return rows, [v.data for v in trainer.model.values()], trainer.optimizer.state_dict(), trainer.predict(X)


@pytest.mark.parametrize("backend", ["eager", *BACKENDS])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_trainer_goes_on_to_the_bit_after_it_was_pickled(backend, threads, through):
    trainer, options = original = trained(backend, threads)
    copies = [through(original), copy.deepcopy(original)]
    state = random.generator().getstate()
    expected = after_another_fit(trainer, options, state)
    for other, its_options in copies:
        assert other.history.epochs != trainer.history.epochs
        assert after_another_fit(other, its_options, state) == expected
