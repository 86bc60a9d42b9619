"""Compiled training against the eager session, method by method: what is kept in buffers, and what is compiled."""

import math
import random
from functools import partial

import pytest

from milligrad import Value, manual_seed, nn, ops, optim
from milligrad import functional as F
from milligrad.compiler.run import _has_llvmlite
from milligrad.compiler.session import CompiledSession, Loops, Predict, Whole, WholePrediction
from milligrad.nested import flatten
from milligrad.random import generator
from milligrad.trainer import _EagerSession, _is_largest

BACKENDS = ["python", pytest.param("llvm", marks=pytest.mark.skipif(not _has_llvmlite(), reason="needs llvmlite"))]
needs_llvm = pytest.mark.skipif(not _has_llvmlite(), reason="needs llvmlite")

rng = random.Random(0)
X = [[rng.gauss(0, 1) for _ in range(3)] for _ in range(11)]
Y = [rng.randrange(3) for _ in X]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def network(*layers):
    manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), *layers, nn.Linear(4, 3))


class Standardized(nn.Module):
    """Each column of a batch less its mean: no sum over samples."""

    def __init__(self):
        super().__init__()
        manual_seed(1)
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        columns = [[x - ops.mean(column) for x in column] for column in zip(*self.layer(x))]
        return [list(row) for row in zip(*columns)]


def sgd(model, **options):
    return optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})


def session(backend, model, optimizer=None, loss_fn=None, correct=_is_largest, clips=(None, None), **options):
    optimizer = optimizer or sgd(model)
    loss_fn = loss_fn or nn.CrossEntropyLoss()
    if backend == "eager":
        return _EagerSession(model, loss_fn, optimizer, correct, *clips)
    return CompiledSession(model, loss_fn, optimizer, correct, backend, **options)


def everything(s):
    """Parameters and what the optimizer remembers, as one list."""
    state = s.optimizer.state_dict()["state"]
    numbers = [v.data for p in s.model.parameters() for v in p.values()]
    return numbers + [x for slot in state.values() for column in slot.values() for x in flatten(column)]


def about(xs):
    return pytest.approx(xs, rel=1e-11, abs=1e-12)


def kinds(s):
    return [type(code) for code in s._seen if isinstance(code, (Loops, Predict, Whole, WholePrediction))]


# ── What is compiled ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mean_over_samples_is_one_program_for_batches_of_any_length(backend):
    s, e = session(backend, network()), session("eager", network())
    s.load()
    assert s.epoch(X, Y, range(11), 4) == about(e.epoch(X, Y, range(11), 4))
    assert s.epoch(X, Y, [5, 3, 9], 4) == about(e.epoch(X, Y, [5, 3, 9], 4))
    s.store()
    assert everything(s) == about(everything(e))
    assert kinds(s) == [Loops]


def test_what_is_no_sum_over_samples_is_a_program_for_each_length_of_a_batch(backend):
    s, e = session(backend, Standardized()), session("eager", Standardized())
    s.load()
    for _ in range(2):
        assert s.epoch(X, Y, range(11), 4) == about(e.epoch(X, Y, range(11), 4))
    s.store()
    assert everything(s) == about(everything(e))
    assert s.evaluate(X, Y, 4) == about(e.evaluate(X, Y, 4))
    found, expected = s.predict(X, 4), e.predict(X, 4)
    assert flatten(found) == about(flatten(expected)) and len(found) == 11
    assert kinds(s) == [Whole] * 4 + [WholePrediction] * 2


def test_training_and_evaluation_are_programs_of_their_own(backend):
    s, e = (session(b, network(nn.Dropout(0.5))) for b in (backend, "eager"))
    s.load()
    for mode in (True, False, True, False):
        s.model.train(mode)
        e.model.train(mode)
        manual_seed(4)
        found = s.evaluate(X, Y, 4)
        manual_seed(4)
        assert found == about(e.evaluate(X, Y, 4))
    assert kinds(s) == [Loops] * 2


def test_the_mode_of_the_loss_counts_too(backend):
    class Noisy(nn.CrossEntropyLoss):
        def forward(self, input, target):
            return super().forward(input, target) * (2 if self.training else 1)

    s = session(backend, network(), loss_fn=Noisy())
    s.load()
    twice = s.evaluate(X, Y, 4)[0]
    s.loss_fn.eval()
    assert twice == about(2 * s.evaluate(X, Y, 4)[0])


def test_another_rate_is_no_other_program_but_another_option_is(backend):
    s, e = session(backend, network()), session("eager", network())
    for lr, momentum, programs in [(0.1, 0.9, 1), (0.02, 0.9, 1), (0.02, 0.5, 2), (0.3, 0.5, 2)]:
        for x in (s, e):
            x.optimizer.param_groups[0].update(lr=lr, momentum=momentum)
            x.load()
            x.epoch(X, Y, range(11), 4)
            x.store()
        assert everything(s) == about(everything(e))
        assert len(s._seen) >= programs and kinds(s).count(Loops) == programs


def test_data_is_taken_apart_once_as_long_as_it_is_the_same_object(backend):
    s = session(backend, network())
    s.load()
    first = s.data(X)
    assert s.data(X) is first and s.data(list(X)) is not first
    for _ in range(10):
        s.data([list(x) for x in X])
    assert len(s._data) <= 4
    again = s.data(X)
    assert list(flatten(list(again))) == list(flatten(list(first)))


def test_explain_shows_each_program(backend):
    s = session(backend, network())
    assert s.explain() == ""
    s.load()
    s.epoch(X, Y, range(11), 4)
    s.predict(X, 4)
    text = s.explain()
    assert text.startswith("a batch, sample by sample: ") and "nodes traced" in text and "trace: " in text
    assert ("def run" if backend == "python" else "define") in text


# ── Buffers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_values_change_in_store_alone(backend):
    s = session(backend, network())
    before = everything(s)
    s.load()
    s.epoch(X, Y, range(11), 4)
    assert everything(s) == before
    s.store()
    after = everything(s)
    assert after != before
    s.epoch(X, Y, range(11), 4)
    s.discard()
    s.store()
    assert everything(s) == after


def test_load_takes_what_was_changed_from_outside(backend):
    s, e = session(backend, network(), optim.Adam(network().parameters())), None
    s, e = (session(b, m, optim.Adam(m.parameters(), lr=0.1)) for b in (backend, "eager") for m in [network()])
    for k in range(3):
        for x in (s, e):
            x.load()
            x.epoch(X, Y, range(11), 4)
            x.store()
            x.model[0].weight[1][2].data = float(k)
            slot = x.optimizer.slots[0][1]
            slot.state["exp_avg"] = [float(k)] * len(slot.values)
            slot.step = 10 * k
        assert everything(s) == about(everything(e))


def test_what_is_frozen_stays_and_keeps_its_state(backend):
    s, e = (session(b, m, optim.Adam(m.parameters(), lr=0.1)) for b in (backend, "eager") for m in [network()])
    for freeze in [(), ((0, 0), (2, 1)), ((0, 0),), ()]:
        for x in (s, e):
            x.model.requires_grad_(True)
            for i, j in freeze:
                x.model[0].weight[i][j].requires_grad = False
            x.model[2].bias.requires_grad_(not freeze)
            before = everything(x)
            x.load()
            x.epoch(X, Y, range(11), 4)
            x.store()
            assert everything(x) != before
        assert everything(s) == about(everything(e))


def test_parameters_that_the_optimizer_does_not_have_are_live_and_stay(backend):
    outer = Value(0.5)

    def loss_fn(outer, prediction, target):
        return F.cross_entropy([[outer * x for x in row] for row in prediction], target)

    s, e = (session(b, network(), loss_fn=partial(loss_fn, outer)) for b in (backend, "eager"))
    for k in range(2):
        outer.data = 0.5 + k
        for x in (s, e):
            x.load()
            x.epoch(X, Y, range(11), 4)
            x.store()
        assert everything(s) == about(everything(e))
    assert outer.data == 1.5


def test_parameters_that_the_model_does_not_have_decay_as_they_would(backend):
    extra = [nn.Parameter([1.0, 2.0]) for _ in range(2)]
    s, e = (
        session(b, m, optim.SGD([*m.parameters(), p], lr=0.1, weight_decay=0.1))
        for b, p in zip((backend, "eager"), extra)
        for m in [network()]
    )
    for x in (s, e):
        x.load()
        x.epoch(X, Y, range(11), 4)
        x.store()
    assert extra[0].data == about(extra[1].data) and extra[0].data != [1.0, 2.0]


def test_a_regulariser_is_live_and_belongs_to_no_sample(backend):
    def loss_fn(model, prediction, target):
        return F.cross_entropy(prediction, target) + 0.1 * sum(abs(v) * v * v for v in model[0].weight.values())

    s, e = (session(b, m, loss_fn=partial(loss_fn, m)) for b in (backend, "eager") for m in [network()])
    s.load()
    for _ in range(3):
        assert s.epoch(X, Y, range(11), 4) == about(e.epoch(X, Y, range(11), 4))
    s.store()
    assert everything(s) == about(everything(e)) and kinds(s) == [Loops]


def test_a_regulariser_of_a_whole_batch_is_live_too(backend):
    def loss_fn(model, prediction, target):
        return F.cross_entropy(prediction, target) + 0.1 * sum(abs(v) for v in model.layer.weight.values())

    s, e = (session(b, m, loss_fn=partial(loss_fn, m)) for b in (backend, "eager") for m in [Standardized()])
    s.load()
    for k in range(4):
        for x in (s, e):
            x.model.layer.weight[0][0].data = (-1.0) ** k
            x.load()
            x.epoch(X, Y, range(4), 4)
            x.store()
        assert everything(s) == about(everything(e))
    assert kinds(s) == [Whole]


# ── Random numbers ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("batch", [1, 4, 11])
def test_dropout_draws_the_eager_engines_numbers_and_leaves_the_generator_where_it_does(backend, batch):
    s, e = (session(b, network(nn.Dropout(0.3), nn.Dropout(0.5))) for b in (backend, "eager"))
    s.load()
    order = [7, 2, 10, 0, 5, 4, 1]
    manual_seed(9)
    found = s.epoch(X, Y, order, batch), generator().random()
    manual_seed(9)
    expected = e.epoch(X, Y, order, batch), generator().random()
    assert found[0] == about(expected[0]) and found[1] == expected[1]
    s.store()
    assert everything(s) == about(everything(e))


def test_predictions_that_draw_are_drawn_batch_by_batch(backend):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = network()

        def forward(self, x):
            return F.dropout(self.layer(x), 0.5)  # in evaluation, too

    s, e = session(backend, Noisy()), session("eager", Noisy())
    s.load()
    manual_seed(2)
    found = s.predict(X, 4)
    manual_seed(2)
    assert flatten(found) == about(flatten(e.predict(X, 4)))


# ── Predictions and ready-made batches ───────────────────────────────────────────────────────────────────────────


def test_predictions_nest_as_the_model_does(backend):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = network()

        def forward(self, x):
            return [(row[0], [row[1], 1]) for row in self.layer(x)]

    model = Two()
    s = session(backend, model, correct=None)
    s.load()
    found = s.predict(X, 4)
    expected = [(row[0].data, [row[1].data, 1.0]) for row in model.layer(X)]
    assert [(type(a), type(b)) for a, b in found] == [(float, list)] * 11
    assert [x for a, b in found for x in (a, *b)] == about([x for a, b in expected for x in (a, *b)])


@pytest.mark.parametrize("n", [1, 256, 300])
def test_any_number_of_samples_is_predicted(backend, n):
    s, e = session(backend, network()), session("eager", network())
    s.load()
    many = [X[i % 11] for i in range(n)]
    assert flatten(s.predict(many, 32)) == about(flatten(e.predict(many, 32)))


def test_ready_made_batches_of_any_length_and_without_a_batch_dimension(backend):
    s, e = session(backend, network()), session("eager", network())
    s.load()
    for n in (3, 1, 5, 3):
        assert s.batch(X[:n], Y[:n]) == about(e.batch(X[:n], Y[:n]))
        assert s.evaluate(X[:n], Y[:n], None) == about(e.evaluate(X[:n], Y[:n], None))
        assert flatten(s.predict(X[:n], None)) == about(flatten(e.predict(X[:n], None)))
    s.store()
    assert everything(s) == about(everything(e))
    one, eager_one = (session(b, network(), correct=None) for b in (backend, "eager"))
    one.load()
    assert one.batch(X[0], Y[0]) == about(eager_one.batch(X[0], Y[0]))
    assert one.evaluate(X[0], Y[0], None) == about(eager_one.evaluate(X[0], Y[0], None))


# ── What is not finite ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_loss_that_is_not_finite_says_what_to_do_and_changes_nothing(backend):
    def loss_fn(prediction, target):
        return ops.mean([ops.exp(1000 * row[0] * row[0]) for row in prediction])

    s = session(backend, network(), loss_fn=loss_fn, correct=None)
    s.model[2].bias[0].data = 5.0
    before = everything(s)
    s.load()
    for make in (
        lambda: s.epoch(X, Y, range(11), 4),
        lambda: s.batch(X[:2], Y[:2]),
        lambda: s.evaluate(X, Y, 4),
        lambda: s.evaluate(X[:2], Y[:2], None),
    ):
        with pytest.raises(FloatingPointError, match="backend='eager' says where a number stops making sense"):
            make()
    s.discard()
    s.store()
    assert everything(s) == before


def test_a_gradient_that_is_not_finite_is_noticed_where_the_loss_is(backend):
    p = nn.Parameter([0.0])

    def loss_fn(prediction, target):
        return ops.mean([row[0] + ops.sqrt(p[0]) for row in prediction])

    s = session(backend, network(), optim.SGD([p], lr=0.1), loss_fn, correct=None)
    s.load()
    with pytest.raises(FloatingPointError, match="backend='eager'"):
        s.epoch(X, Y, range(4), 4)
        s.store()
    s.discard()
    assert p[0].data == 0.0


# ── Threads, and float32 ─────────────────────────────────────────────────────────────────────────────────────────


@needs_llvm
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("clips", [(None, None), (0.5, None), (0.5, 0.05)])
def test_threads_split_each_batch_and_change_nothing_else(threads, clips):
    def loss_fn(model, prediction, target):
        weights = [1.0, 2.0, 0.5]
        regulariser = 0.1 * sum(v * v for v in model[0].weight.values())
        return F.cross_entropy(prediction, target, weights, ignore_index=0) + regulariser

    made = []
    for n in (1, threads):
        model = network(nn.Dropout(0.2))
        s = session(
            "llvm", model, optim.Adam(model.parameters(), lr=0.1), partial(loss_fn, model), threads=n,
            **dict(zip(("clip_grad_norm", "clip_grad_value"), clips)),
        )  # fmt: skip
        s.load()
        manual_seed(3)
        losses = [s.epoch(X, Y, range(11), 5) for _ in range(3)]  # one sample in the last batch, for all threads
        s.store()
        made.append([x for loss in losses for x in loss] + everything(s))
    assert made[1] == pytest.approx(made[0], rel=1e-12, abs=1e-13)


@needs_llvm
def test_threads_are_shown_in_explain():
    s = session("llvm", network(), threads=2)
    s.load()
    s.epoch(X, Y, range(11), 4)
    text = s.explain()
    assert "llvm: " in text and text.count("@run(") > 1  # a program for each stage


@needs_llvm
def test_float32_is_within_its_rounding():
    s, e = session("llvm", network(), dtype="float32"), session("eager", network())
    s.load()
    for _ in range(5):
        assert s.epoch(X, Y, range(11), 4) == pytest.approx(e.epoch(X, Y, range(11), 4), rel=1e-4)
    s.store()
    assert everything(s) == pytest.approx(everything(e), rel=1e-4, abs=1e-5) and everything(s) != everything(e)
    assert flatten(s.predict(X, 4)) == pytest.approx(flatten(e.predict(X, 4)), rel=1e-4, abs=1e-5)


def test_what_there_is_not_is_refused():
    with pytest.raises(ValueError, match="float32"):
        session("python", network(), dtype="float32")
    with pytest.raises(ValueError, match="backend: expected"):
        session("cuda", network())


def test_numbers_are_floats_when_they_come_back(backend):
    s = session(backend, network())
    s.load()
    s.epoch(X, Y, range(11), 4)
    s.store()
    assert {type(x) for x in everything(s)} <= {float, int} and all(map(math.isfinite, everything(s)))
    assert all(type(v.data) is float for p in s.model.parameters() for v in p.values())
