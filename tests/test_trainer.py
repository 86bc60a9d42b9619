"""fit against a loop written by hand, resumption to the bit, what an interrupt leaves, and every refusal."""

import copy
import json
import math
import os
import pickle
import random
import signal
import sys
import threading
from array import array
from importlib.util import find_spec
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import functional as F
from milligrad import manual_seed, nn, no_grad, ops, optim
from milligrad import trainer as module
from milligrad.data import DataLoader, Subset, TensorDataset
from milligrad.data.rows import Rows
from milligrad.engine import number
from milligrad.nested import elementwise, flatten
from milligrad.nn.utils import clip_grad_norm_, clip_grad_value_
from milligrad.optim import lr_scheduler
from milligrad.optim.optimizer import at_least_0
from milligrad.random import generator
from milligrad.trainer import Callback, Checkpoint, EarlyStopping, History, Trainer

NATIVE = pytest.mark.skipif(find_spec("llvmlite") is None, reason="llvmlite is not installed")
BACKENDS = ["eager", "python", pytest.param("llvm", marks=NATIVE)]
each_backend = pytest.mark.parametrize("backend", BACKENDS)

rng = random.Random(1)
X = [[rng.gauss(0, 1) for _ in range(4)] for _ in range(23)]
Y = [max(range(3), key=lambda i: x[i] + 0.2 * x[3]) for x in X]
XT = [[rng.gauss(0, 1) for _ in range(4)] for _ in range(9)]
YT = [max(range(3), key=lambda i: x[i]) for x in XT]
BINARY = [[float(x[0] > x[1])] for x in X]


def classifier(dropout=0.0, out=3):
    manual_seed(3)
    hidden = [nn.Tanh(), nn.Dropout(dropout)] if dropout else [nn.Tanh()]
    return nn.Sequential(nn.Linear(4, 5), *hidden, nn.Linear(5, out))


def sgd(model, **options):
    return optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})


def setup(backend="eager", dropout=0.0, loss_fn=None, out=3, make=sgd, **options):
    model = classifier(dropout, out)
    return Trainer(model, loss_fn or nn.CrossEntropyLoss(), make(model), backend=backend, **options)


def numbers(model):
    return [v.data for p in model.parameters() for v in p.values()]


def everything(trainer):
    """All that training changes, in a form that can be compared to the bit."""
    return json.dumps([trainer.model.state_dict(), trainer.optimizer.state_dict()])


def figures(history):
    """The rows without the time they took."""
    return [{name: x for name, x in row.items() if name != "seconds"} for row in history]


def close(xs, ys):
    assert flatten(xs) == pytest.approx(flatten(ys), rel=1e-9, abs=1e-12)


def loop(model, loss_fn, optimizer, batches, epochs, scheduler=None, clip=lambda: None):
    """What fit does, by hand: the mean loss of each epoch."""
    means = []
    for _ in range(epochs):
        total = n = 0
        for xb, yb in batches:
            loss = loss_fn(model(xb), yb)
            optimizer.zero_grad()
            loss.backward()
            clip()
            optimizer.step()
            total, n = total + loss.data * len(yb), n + len(yb)
        means.append(total / n)
        if scheduler:
            scheduler.step()
    return means


# ── fit ──────────────────────────────────────────────────────────────────────────────────────────────────────────

OPTIMIZERS = {
    "sgd": sgd,
    "adam": lambda model: optim.Adam(model.parameters(), lr=0.05),
    "groups": lambda model: optim.SGD(
        [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.3}], lr=0.1, weight_decay=0.01
    ),
}


@each_backend
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("batch_size", [1, 8, 23, 40])
def test_fit_is_the_loop_written_by_hand_over_a_shuffled_loader(backend, make, batch_size):
    by_hand = classifier()
    batches = DataLoader(TensorDataset(X, Y), batch_size, shuffle=True, seed=7)
    means = loop(by_hand, nn.CrossEntropyLoss(), make(by_hand), batches, 4)
    trainer = setup(backend, make=make)
    history = trainer.fit(X, Y, epochs=4, batch_size=batch_size, seed=7, progress=False)
    close(numbers(trainer.model), numbers(by_hand))
    close(history.loss, means)
    assert history is trainer.history


@each_backend
@pytest.mark.parametrize("options", [{"shuffle": False}, {"shuffle": False, "drop_last": True}, {"drop_last": True}])
def test_order_and_the_last_batch_are_those_of_a_loader(backend, options):
    by_hand = classifier()
    batches = DataLoader(TensorDataset(X, Y), 5, **{"shuffle": True, "seed": 2, **options})
    means = loop(by_hand, nn.CrossEntropyLoss(), sgd(by_hand), batches, 3)
    trainer = setup(backend)
    history = trainer.fit(X, Y, epochs=3, batch_size=5, seed=2, progress=False, **options)
    close(numbers(trainer.model), numbers(by_hand))
    close(history.loss, means)


class Array:
    """Like NumPy's arrays in what matters here: elements of kinds of their own, and tolist."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return Array(self.items[i]) if isinstance(self.items[i], list) else self.items[i]

    def tolist(self):
        return self.items


FORMS = {
    "tuples": (tuple(map(tuple, X)), tuple(Y)),
    "arrays": (Array(X), Array(Y)),
    "rows that are arrays": ([Array(x) for x in X], Y),
    "TensorDataset": (TensorDataset(X, Y), None),
    "Rows": (Rows(array("d", flatten(X)), 4), Y),
    "Subset": (Subset(TensorDataset(XT + X, YT + Y), range(9, 32)), None),
}


@each_backend
@pytest.mark.parametrize(("data", "targets"), FORMS.values(), ids=FORMS)
def test_data_may_come_in_many_forms(backend, data, targets):
    plain, trainer = setup(backend), setup(backend)
    expected = plain.fit(X, Y, epochs=2, batch_size=5, seed=2, validation_data=(XT, YT), progress=False)
    validation = TensorDataset(XT, YT)
    history = trainer.fit(data, targets, epochs=2, batch_size=5, seed=2, validation_data=validation, progress=False)
    assert numbers(trainer.model) == numbers(plain.model)
    assert figures(history) == figures(expected)
    assert trainer.evaluate(data, targets) == trainer.evaluate(X, Y)
    if targets is None or not isinstance(data, tuple):
        assert trainer.predict(data) == trainer.predict(X)


@each_backend
def test_a_loader_goes_by_its_own_options(backend):
    plain, trainer = setup(backend), setup(backend)
    plain.fit(X, Y, epochs=3, batch_size=4, seed=9, drop_last=True, progress=False)
    loader = DataLoader(TensorDataset(X, Y), 4, shuffle=True, drop_last=True, seed=9)
    trainer.fit(loader, epochs=3, batch_size=1, shuffle=False, seed=0, progress=False)
    assert numbers(trainer.model) == numbers(plain.model)
    assert trainer.evaluate(loader) == trainer.evaluate(X, Y, batch_size=4)  # all samples, though it drops the last
    assert trainer.predict(loader) == trainer.predict(X)


@each_backend
def test_without_a_seed_the_order_is_drawn_from_milligrads_generator(backend):
    def run(seed):
        trainer = setup(backend)
        manual_seed(seed)
        trainer.fit(X, Y, epochs=2, batch_size=5, progress=False)
        return numbers(trainer.model)

    assert run(1) == run(1) != run(2)


@each_backend
def test_data_that_was_changed_between_two_fits_is_read_again(backend):
    trainer, whole = setup(backend), setup(backend)
    x, y = [row[:] for row in X], Y[:]
    trainer.fit(x, y, seed=0, progress=False)
    whole.fit(X, Y, seed=0, progress=False)
    x[3][:], y[3] = XT[3], (YT[3] + 1) % 3
    trainer.fit(x, y, seed=0, progress=False)
    whole.fit([row[:] for row in x], y[:], seed=0, progress=False)
    assert numbers(trainer.model) == numbers(whole.model)


def test_the_data_is_not_changed_and_lists_are_not_copied():
    before = json.dumps([X, Y])
    setup().fit(X, Y, epochs=1, seed=0, progress=False)
    assert json.dumps([X, Y]) == before
    assert module._checked(X, "X")[0][5] is X[5]


@each_backend
def test_gradients_from_before_do_not_count_and_no_grad_does_not_matter(backend):
    plain, trainer = setup(backend), setup(backend)
    plain.fit(X, Y, epochs=2, seed=0, progress=False)
    for p in trainer.model.parameters():
        for v in p.values():
            v.grad = 100.0
    with no_grad():
        trainer.fit(X, Y, epochs=2, seed=0, progress=False)
    assert numbers(trainer.model) == numbers(plain.model)


@each_backend
def test_a_second_fit_goes_on_from_the_first(backend):
    by_hand, trainer = classifier(), setup(backend)
    optimizer = sgd(by_hand)
    loop(by_hand, nn.CrossEntropyLoss(), optimizer, [(X, Y)], 2)
    trainer.fit(X, Y, epochs=2, batch_size=23, shuffle=False, progress=False)
    for group in (*optimizer.param_groups, *trainer.optimizer.param_groups):
        group["lr"] = 0.01
    by_hand[0].bias[0].data = trainer.model[0].bias[0].data = 0.5
    loop(by_hand, nn.CrossEntropyLoss(), optimizer, [(XT, YT)], 2)
    trainer.fit(XT, YT, epochs=2, batch_size=9, shuffle=False, progress=False)
    close(numbers(trainer.model), numbers(by_hand))


@each_backend
def test_what_is_frozen_stays_and_what_thaws_learns(backend):
    by_hand, trainer = classifier(), setup(backend)
    optimizer = sgd(by_hand)
    for frozen in (True, False):
        by_hand[0].requires_grad_(not frozen)
        trainer.model[0].requires_grad_(not frozen)
        loop(by_hand, nn.CrossEntropyLoss(), optimizer, [(X, Y)], 2)
        trainer.fit(X, Y, epochs=2, batch_size=23, shuffle=False, progress=False)
        close(numbers(trainer.model), numbers(by_hand))


@each_backend
def test_another_module_or_option_in_the_model_counts_from_the_next_fit_on(backend):
    by_hand, trainer = classifier(), setup(backend)
    optimizer = sgd(by_hand)
    for layer in (nn.Tanh(), nn.LeakyReLU(0.1), nn.LeakyReLU(0.5)):
        setattr(by_hand, "1", layer)
        if isinstance(trainer.model[1], nn.LeakyReLU):
            trainer.model[1].negative_slope = 0.5  # the same module, with another option
        else:
            setattr(trainer.model, "1", type(layer)(*[0.1] * isinstance(layer, nn.LeakyReLU)))
        loop(by_hand, nn.CrossEntropyLoss(), optimizer, [(X, Y)], 2)
        trainer.fit(X, Y, epochs=2, batch_size=23, shuffle=False, progress=False)
        close(numbers(trainer.model), numbers(by_hand))


@each_backend
@pytest.mark.parametrize(
    ("options", "clip"),
    [
        ({"clip_grad_norm": 0.05}, lambda ps: clip_grad_norm_(ps, 0.05)),
        ({"clip_grad_value": 0.01}, lambda ps: clip_grad_value_(ps, 0.01)),
        (
            {"clip_grad_norm": 0.05, "clip_grad_value": 0.01},
            lambda ps: (clip_grad_norm_(ps, 0.05), clip_grad_value_(ps, 0.01)),
        ),
    ],
)
def test_gradients_are_clipped(backend, options, clip):
    by_hand, trainer = classifier(), setup(backend, **options)
    batches = DataLoader(TensorDataset(X, Y), 8)
    loop(by_hand, nn.CrossEntropyLoss(), sgd(by_hand), batches, 2, clip=lambda: clip(list(by_hand.parameters())))
    trainer.fit(X, Y, epochs=2, batch_size=8, shuffle=False, progress=False)
    close(numbers(trainer.model), numbers(by_hand))


@each_backend
def test_the_loss_of_a_sum_is_the_mean_sum_of_a_batch_weighted_by_its_length(backend):
    trainer = setup(backend, loss_fn=nn.CrossEntropyLoss(reduction="sum"))
    loss_fn, model = trainer.loss_fn, classifier()
    sums = [number(loss_fn(model(X[k : k + 10]), Y[k : k + 10])) for k in (0, 10, 20)]
    expected = (10 * sums[0] + 10 * sums[1] + 3 * sums[2]) / 23
    assert trainer.evaluate(X, Y, batch_size=10).loss == pytest.approx(expected, rel=1e-12)


# ── Ready-made batches, and single steps ─────────────────────────────────────────────────────────────────────────


class Tagger(nn.Module):
    """A class for each token of a sequence, whatever its length; a token sees those before it."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(6, 3), nn.Linear(3, 6)

    def forward(self, tokens):
        vectors = self.embedding(tokens)
        means = [[ops.mean(column) for column in zip(*vectors[: i + 1])] for i in range(len(vectors))]
        return self.linear(means)


WORDS = [[1, 2, 3, 0], [4, 5], [2, 2, 1, 5, 3], [3, 4], [0, 1, 2, 4]]
SEQUENCES = [(word[:-1], word[1:]) for word in WORDS]


def tagger(backend="eager"):
    manual_seed(5)
    model = Tagger()
    return Trainer(model, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.1), backend=backend)


@each_backend
def test_batches_of_different_shapes_make_a_step_each(backend):
    by_hand, trainer = tagger(), tagger(backend)
    losses = [by_hand.step(xb, yb) for _ in range(3) for xb, yb in SEQUENCES]
    history = trainer.fit(SEQUENCES, epochs=3, shuffle=False, validation_data=SEQUENCES[:2], progress=False)
    close(history.batch_losses, losses)
    close(numbers(trainer.model), numbers(by_hand.model))
    tokens = [len(yb) for _, yb in SEQUENCES]
    means = [sum(n * x for n, x in zip(tokens, losses[k : k + 5])) / sum(tokens) for k in (0, 5, 10)]
    close(history.loss, means)
    both = [by_hand.evaluate([batch]) for batch in SEQUENCES[:2]]
    close(history.val_loss[-1], (both[0].loss * 3 + both[1].loss) / 4)
    close(history.val_accuracy[-1], (both[0].accuracy * 3 + both[1].accuracy) / 4)


def test_batches_are_shuffled_whole():
    by_hand, trainer = tagger(), tagger()
    order = random.Random(4)
    for _ in range(2):
        numbered = list(range(5))
        order.shuffle(numbered)
        for i in numbered:
            by_hand.step(*SEQUENCES[i])
    trainer.fit(SEQUENCES, epochs=2, seed=4, progress=False)
    assert numbers(trainer.model) == numbers(by_hand.model)


@each_backend
def test_a_batch_may_be_a_single_sample_without_a_batch_dimension(backend):
    by_hand, trainer = classifier(), setup(backend)
    optimizer, loss_fn = sgd(by_hand), nn.CrossEntropyLoss()
    for x, y in zip(X, Y):
        loss = loss_fn(by_hand(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    history = trainer.fit(list(zip(X, Y)), shuffle=False, progress=False)
    close(numbers(trainer.model), numbers(by_hand))
    assert len(history.batch_losses) == 23
    right = [row.index(max(row)) == y for row, y in zip(trainer.predict(X), Y)]
    assert trainer.evaluate(list(zip(X, Y))).accuracy == pytest.approx(sum(right) / 23)


@each_backend
def test_step_returns_the_loss_before_the_step(backend):
    by_hand, trainer = classifier(), setup(backend)
    expected = loop(by_hand, nn.CrossEntropyLoss(), sgd(by_hand), [(X, Y)], 3)
    close([trainer.step(X, Y) for _ in range(3)], expected)
    close(numbers(trainer.model), numbers(by_hand))


def test_a_step_that_fails_changes_nothing():
    trainer = setup(loss_fn=interrupting(OverflowError("too large"), 2))
    trainer.step(X, Y)
    before, step = everything(trainer), trainer.optimizer.step
    with pytest.raises(OverflowError, match="too large"):
        trainer.step(X, Y)
    assert everything(trainer) == before

    def fail_late():
        step()
        raise KeyboardInterrupt

    trainer.optimizer.step = fail_late
    with pytest.raises(KeyboardInterrupt):
        trainer.step(X, Y)
    assert everything(trainer) == before


# ── evaluate, predict, modes ─────────────────────────────────────────────────────────────────────────────────────


@each_backend
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_evaluate_and_predict_are_the_model_in_evaluation_mode(backend, batch_size):
    trainer = setup(backend, dropout=0.5)
    model = trainer.model
    before, state = everything(trainer), generator().getstate()
    model.eval()
    outputs = elementwise(number, model(XT))
    loss = number(nn.CrossEntropyLoss()(model(XT), YT))
    model.train()
    model[2].eval()
    result = trainer.evaluate(XT, YT, batch_size=batch_size)
    assert result.loss == pytest.approx(loss, rel=1e-12)
    assert result.accuracy == sum(row.index(max(row)) == y for row, y in zip(outputs, YT)) / 9
    assert result.metric is None
    close(trainer.predict(XT, batch_size=batch_size), outputs)
    assert {*map(type, flatten(trainer.predict(XT)))} == {float}
    assert [m.training for m in model.modules()] == [True, True, True, False, True]
    assert everything(trainer) == before
    assert generator().getstate() == state


@each_backend
def test_the_model_is_in_training_mode_in_fit_alone(backend):
    trainer = setup(backend, dropout=0.5)
    plain = setup(backend)
    trainer.model.eval()
    trainer.fit(X, Y, epochs=1, seed=0, progress=False)
    plain.fit(X, Y, epochs=1, seed=0, progress=False)
    assert numbers(trainer.model) != numbers(plain.model)
    assert not any(m.training for m in trainer.model.modules())


def test_dropout_draws_what_a_loop_by_hand_draws():
    by_hand, trainer = classifier(0.5), setup(dropout=0.5)
    by_hand.eval()
    with no_grad():
        by_hand([X[0]])
    by_hand.train()
    manual_seed(8)
    loop(by_hand, nn.CrossEntropyLoss(), sgd(by_hand), [(X, Y)], 3)
    manual_seed(8)
    trainer.fit(X, Y, epochs=3, batch_size=23, shuffle=False, validation_data=(XT, YT), progress=False)
    assert numbers(trainer.model) == numbers(by_hand)


# ── Accuracy and other metrics ───────────────────────────────────────────────────────────────────────────────────


class Echo(nn.Module):
    """Predicts what it is given, as long as it has not learned."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter([1.0])

    def forward(self, xs):
        return elementwise(lambda x: x * self.scale[0], xs)


LOGITS = [[1.0, 3.0, 3.0], [0.0, -1.0, -2.0], [5.0, 1.0, 5.0], [0.0, 0.0, 0.1]]
ACCURACIES = {
    "classes": (nn.CrossEntropyLoss(), LOGITS, [1, 0, 2, 2], 3 / 4),  # among equals the first
    "function": (F.cross_entropy, LOGITS, [1, 0, 2, 2], 3 / 4),
    "own loss of classes": (lambda p, y: 2 * F.nll_loss(p, y), LOGITS, [1, 0, 0, 1], 3 / 4),
    "own loss of floats": (
        lambda p, y: ops.mean([row[0] * t for row, t in zip(p, y)]),
        LOGITS,
        [1.0, 0.0, 2.0, 2.0],
        None,
    ),
    "own loss of one": (
        lambda p, y: ops.mean([row[0] * t for row, t in zip(p, y)]),
        [[0.1], [0.7], [0.5], [0.6]],
        [0] * 4,
        2 / 4,
    ),
    "class probabilities": (nn.CrossEntropyLoss(), LOGITS, [[1.0, 0.0, 0.0]] * 4, None),
    "logits": (nn.BCEWithLogitsLoss(), [0.1, 0.7, -0.1, 0.0], [1, 1, 1, 0], 3 / 4),
    "logits, function": (F.binary_cross_entropy_with_logits, [0.1, 0.7, -0.1, 0.0], [1, 1, 1, 0], 3 / 4),
    "logits in lists": (nn.BCEWithLogitsLoss(), [[0.1], [0.7], [-0.1], [0.4]], [[1.0], [1.0], [1.0], [0.0]], 2 / 4),
    "probabilities": (nn.BCELoss(), [0.1, 0.7, 0.5, 0.6], [0, 1, 0, 0], 3 / 4),
    "soft targets": (nn.BCELoss(), [0.1, 0.7, 0.5, 0.6], [0, 0.5, 0, 0], None),
    "squares of 0 and 1": (nn.MSELoss(), [0.1, 0.7, 0.5, 0.6], [0, 1, 1, 1], 3 / 4),
    "regression": (nn.MSELoss(), [0.1, 0.7, 0.5, 0.6], [0, 1, 2, 1], None),
    "many numbers": (nn.MSELoss(), [[0.1, 0.2]] * 4, [[0.0, 1.0]] * 4, None),
}


@each_backend
@pytest.mark.parametrize(("loss_fn", "answers", "y", "expected"), ACCURACIES.values(), ids=ACCURACIES)
def test_accuracy_is_there_where_it_makes_sense(backend, loss_fn, answers, y, expected):
    model = Echo()
    trainer = Trainer(model, loss_fn, sgd(model), backend=backend)
    assert trainer.evaluate(answers, y).accuracy == expected
    history = trainer.fit(answers, y, batch_size=3, progress=False)
    assert ("accuracy" in history.columns) == (expected is not None)
    batches = [(answers[:3], y[:3]), (answers[3:], y[3:])]
    fresh = Echo()
    assert Trainer(fresh, loss_fn, sgd(fresh), backend=backend).evaluate(batches).accuracy == expected


@each_backend
def test_the_accuracy_of_an_epoch_is_counted_while_the_model_learns(backend):
    by_hand, trainer = setup(backend), setup(backend)
    batches = [(X[k : k + 5], Y[k : k + 5]) for k in range(0, 23, 5)]
    right = 0.0
    for xb, yb in batches:
        right += by_hand.evaluate(xb, yb).accuracy * len(yb)
        by_hand.step(xb, yb)
    history = trainer.fit(X, Y, batch_size=5, shuffle=False, progress=False)
    assert history.accuracy == [pytest.approx(right / 23)]
    assert setup(backend).fit(batches, shuffle=False, progress=False).accuracy == history.accuracy
    assert history.accuracy[0] != trainer.evaluate(X, Y).accuracy


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, math.inf]), min_size=1, max_size=6), st.integers(0, 5))
def test_the_first_largest_is_the_class(prediction, target):
    assert module._is_largest(prediction, target) == float(prediction.index(max(prediction)) == target)
    assert module._is_largest([*prediction, math.nan], target % (len(prediction) + 1)) == 0.0


@each_backend
def test_a_metric_of_ones_own_is_averaged_over_the_samples(backend):
    def distance(prediction, target):
        return ops.abs(prediction[0] - target[0])

    trainer = setup(backend, loss_fn=nn.MSELoss(), out=1, metric=distance)
    history = trainer.fit(X, BINARY, epochs=2, validation_data=(X[:5], BINARY[:5]), seed=0, progress=False)
    assert history.columns == ("epoch", "loss", "metric", "val_loss", "val_metric", "lr", "seconds")
    expected = [abs(z - y) for (z,), (y,) in zip(trainer.predict(X), BINARY)]
    assert trainer.evaluate(X, BINARY).metric == pytest.approx(sum(expected) / 23)
    assert trainer.evaluate(X, BINARY).accuracy is None
    assert history.val_metric[-1] == pytest.approx(sum(expected[:5]) / 5)


def test_the_metric_may_be_left_out():
    trainer = setup(metric=None)
    assert trainer.fit(X, Y, progress=False).columns == ("epoch", "loss", "lr", "seconds")
    assert trainer.evaluate(X, Y).accuracy is None


# ── Schedulers ───────────────────────────────────────────────────────────────────────────────────────────────────

SCHEDULERS = {
    "step": lambda optimizer: lr_scheduler.StepLR(optimizer, 2, 0.5),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 5),
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda e: 1 / (e + 1)),
}


@each_backend
@pytest.mark.parametrize("make", SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_scheduler_is_stepped_after_each_epoch(backend, make):
    by_hand, trainer = classifier(), setup(backend)
    optimizer = sgd(by_hand)
    rates, scheduler = [], make(optimizer)
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        loop(by_hand, nn.CrossEntropyLoss(), optimizer, [(X, Y)], 1, scheduler)
    options = {"epochs": 5, "batch_size": 23, "shuffle": False, "progress": False}
    history = trainer.fit(X, Y, scheduler=make(trainer.optimizer), **options)
    assert history.lr == rates
    close(numbers(trainer.model), numbers(by_hand))


@pytest.mark.parametrize("validated", [True, False])
def test_reduce_on_plateau_gets_the_validation_loss_if_there_is_one(validated):
    trainer = setup()
    scheduler = lr_scheduler.ReduceLROnPlateau(trainer.optimizer)
    seen = []
    scheduler.step, step = lambda metrics: (seen.append(metrics), step(metrics)), scheduler.step
    validation = (XT, YT) if validated else None
    history = trainer.fit(X, Y, epochs=3, scheduler=scheduler, validation_data=validation, seed=0, progress=False)
    assert seen == history["val_loss" if validated else "loss"]


def test_of_several_groups_all_rates_are_recorded():
    trainer = setup(make=OPTIMIZERS["groups"])
    assert trainer.fit(X, Y, progress=False).lr == [[0.1, 0.3]]


# ── Callbacks ────────────────────────────────────────────────────────────────────────────────────────────────────


class Recorder(Callback):
    def __init__(self):
        self.calls = []

    def on_fit_begin(self, trainer, history):
        self.calls.append(("begin", len(history)))

    def on_epoch_end(self, trainer, history):
        self.calls.append(("epoch", len(history), numbers(trainer.model), trainer.optimizer.slots[0][0].step))

    def on_fit_end(self, trainer, history):
        self.calls.append(("end", len(history)))


@each_backend
def test_callbacks_see_the_numbers_after_each_epoch(backend):
    trainer, recorder = setup(backend), Recorder()
    trainer.fit(X, Y, epochs=2, batch_size=23, shuffle=False, callbacks=recorder, progress=False)
    by_hand = setup(backend)
    expected = []
    for step in (1, 2):
        by_hand.step(X, Y)
        expected.append(("epoch", step, numbers(by_hand.model), step))
    assert recorder.calls == [("begin", 0), *expected, ("end", 2)]


@each_backend
def test_what_a_callback_changes_counts(backend):
    def halve(trainer, history):
        trainer.optimizer.param_groups[0]["lr"] /= 2
        trainer.model[0].bias[0].data = 0.25

    by_hand, trainer = classifier(), setup(backend)
    optimizer = sgd(by_hand)
    for _ in range(3):
        loop(by_hand, nn.CrossEntropyLoss(), optimizer, [(X, Y)], 1)
        optimizer.param_groups[0]["lr"] /= 2
        by_hand[0].bias[0].data = 0.25
    history = trainer.fit(X, Y, epochs=3, batch_size=23, shuffle=False, callbacks=[halve], progress=False)
    close(numbers(trainer.model), numbers(by_hand))
    assert history.lr == [0.1, 0.05, 0.025]


def test_a_function_ends_the_run_by_returning_true():
    history = setup().fit(X, Y, epochs=9, callbacks=[lambda trainer, history: len(history) == 3], progress=False)
    assert len(history) == 3
    assert not history.interrupted


def stopping(losses, **options):
    """EarlyStopping told of these losses: (the epoch after which it stopped, the callback)."""
    callback, history = EarlyStopping("loss", restore_best=False, **options), History(["loss"])
    callback.on_fit_begin(None, history)
    for loss in losses:
        history.epochs.append({"loss": loss})
        if callback.on_epoch_end(None, history):
            return len(history), callback
    return None, callback


@pytest.mark.parametrize(
    ("losses", "options", "end", "best"),
    [
        ([3, 2, 1, 0], {"patience": 1}, None, 4),
        ([3, 2, 2, 2, 2], {"patience": 2}, 4, 2),
        ([3, 2, 2.5, 1, 1.5, 1.5], {"patience": 2}, 6, 4),
        ([3, 2.95, 2.85, 2.8], {"patience": 2, "min_delta": 0.1}, None, 3),
        ([3, 2.95, 2.95, 2.95], {"patience": 2, "min_delta": 0.1}, 3, 1),
        ([1, 2, 3, 2, 2], {"patience": 2, "mode": "max"}, 5, 3),
        ([math.nan, math.nan, 1.0], {"patience": 2}, 2, None),
        ([math.nan, 1.0, math.nan, math.nan], {"patience": 2}, 4, 2),
    ],
)
def test_early_stopping_waits_for_its_patience(losses, options, end, best):
    stopped_after, callback = stopping(losses, **options)
    assert (stopped_after, callback.best_epoch, callback.stopped) == (end, best, end is not None)


def test_callbacks_start_afresh_in_each_fit(tmp_path):
    stopping, checkpoint = (
        EarlyStopping("loss", patience=2),
        Checkpoint(tmp_path / "best.json", best=True, monitor="loss"),
    )
    stopping.best = checkpoint.best = -1.0  # as if a run before had come so far
    stopping.wait, stopping.stopped, stopping.best_epoch = 1, True, 7
    history = setup().fit(X, Y, epochs=3, seed=0, callbacks=[stopping, checkpoint], progress=False)
    assert len(history) == 3
    assert stopping.best == checkpoint.best == min(history.loss)
    assert (stopping.best_epoch, stopping.wait, stopping.stopped) == (3, 0, False)
    assert (tmp_path / "best.json").exists()


@each_backend
@pytest.mark.parametrize("restore_best", [True, False])
def test_early_stopping_gives_back_the_best_numbers(backend, restore_best):
    trainer, seen = setup(backend, make=lambda model: sgd(model, lr=1.5)), []
    callback = EarlyStopping("val_loss", patience=3, restore_best=restore_best)
    history = trainer.fit(
        X, Y, epochs=60, batch_size=5, seed=0, validation_data=(XT, YT), progress=False,
        callbacks=[lambda trainer, history: seen.append(numbers(trainer.model)), callback],
    )  # fmt: skip
    best = history.val_loss.index(min(history.val_loss))
    assert callback.stopped and len(history) == best + 4 < 60
    assert callback.best_epoch == best + 1 and callback.best == history.val_loss[best]
    assert numbers(trainer.model) == seen[best if restore_best else -1]


def test_accuracy_is_better_when_it_is_larger():
    assert EarlyStopping("val_accuracy").sign == 1
    assert EarlyStopping("val_loss").sign == EarlyStopping("val_accuracy", mode="min").sign == -1


def test_checkpoints_are_written_when_they_are_due(tmp_path):
    setup().fit(X, Y, epochs=7, callbacks=[Checkpoint(tmp_path / "epoch-{epoch}.json", every=3)], progress=False)
    assert sorted(os.listdir(tmp_path)) == ["epoch-3.json", "epoch-6.json"]


def test_the_best_checkpoint_stays(tmp_path):
    trainer, seen = setup(make=lambda model: sgd(model, lr=1.5)), []
    history = trainer.fit(
        X, Y, epochs=15, batch_size=5, seed=0, validation_data=(XT, YT), progress=False,
        callbacks=[lambda t, h: seen.append(t.model.state_dict()), Checkpoint(tmp_path / "best.json", best=True)],
    )  # fmt: skip
    best = history.val_loss.index(min(history.val_loss))
    assert best < 14
    assert json.loads((tmp_path / "best.json").read_text())["model"] == seen[best]


def test_a_checkpoint_that_cant_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path, trainer = tmp_path / "run.json", setup()
    trainer.save(path)
    before = path.read_text()

    def fail(file):
        raise OSError("disk full")

    monkeypatch.setattr(module.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        trainer.fit(X, Y, callbacks=[Checkpoint(path)], progress=False)
    assert path.read_text() == before
    assert os.listdir(tmp_path) == ["run.json"]


# ── Going on ─────────────────────────────────────────────────────────────────────────────────────────────────────


def long_run(
    backend, path, epochs, resume=None, every=1, loader=False, seed=5, scheduler="step", stop=None, min_delta=0
):
    """A run with all that has a memory of its own: dropout, Adam, a scheduler, early stopping, the order."""
    trainer = setup(backend, dropout=0.3, make=OPTIMIZERS["adam"])
    manual_seed(11 if resume is None else 999)
    plateau = lr_scheduler.ReduceLROnPlateau(trainer.optimizer, patience=1, factor=0.5)
    chosen = plateau if scheduler == "plateau" else SCHEDULERS[scheduler](trainer.optimizer)
    data = DataLoader(TensorDataset(X, Y), 5, shuffle=True, seed=seed) if loader else TensorDataset(X, Y)
    stopping = EarlyStopping("val_loss", patience=4, min_delta=min_delta)
    callbacks = [stopping, Checkpoint(path, every=every)]
    if stop:
        callbacks.append(stop)
    trainer.fit(
        data, epochs=epochs, batch_size=5, seed=seed, validation_data=(XT, YT), scheduler=chosen, progress=False,
        callbacks=callbacks, resume=resume,
    )  # fmt: skip
    return trainer, stopping, chosen


CASES = [{}, {"loader": True}, {"seed": None}, {"scheduler": "plateau"}, {"scheduler": "lambda", "every": 2}]


@each_backend
@pytest.mark.parametrize("options", CASES)
def test_a_resumed_run_is_to_the_bit_one_without_interruption(backend, options, tmp_path):
    whole_path, part_path = tmp_path / "whole.json", tmp_path / "part.json"
    whole, whole_stop, whole_schedule = long_run(backend, whole_path, 30, **options)
    long_run(backend, part_path, 4, **options)
    part, part_stop, part_schedule = long_run(backend, part_path, 30, resume=part_path, **options)
    assert figures(part.history) == figures(whole.history)
    assert everything(part) == everything(whole)
    assert part_stop.state_dict() == whole_stop.state_dict()
    assert part_schedule.state_dict() == whole_schedule.state_dict()
    strip = {"epochs": None}
    saved = [json.loads(path.read_text()) for path in (whole_path, part_path)]
    assert {**saved[0]["run"], **strip} == {**saved[1]["run"], **strip}
    assert saved[0]["model"] == saved[1]["model"] and saved[0]["optimizer"] == saved[1]["optimizer"]


@each_backend
def test_a_run_that_had_stopped_early_stays_stopped(backend, tmp_path):
    path = tmp_path / "run.json"
    whole, stopping, _ = long_run(backend, path, 60, min_delta=0.02)
    assert stopping.stopped
    again, _, _ = long_run(backend, path, 60, min_delta=0.02, resume=path)
    assert figures(again.history) == figures(whole.history)
    assert everything(again) == everything(whole)


def test_after_an_interrupt_the_run_can_be_saved_and_resumed_to_the_bit(tmp_path):
    path = tmp_path / "run.json"
    whole, _, _ = long_run("eager", tmp_path / "whole.json", 8)

    class Interrupt(Callback):
        def on_fit_begin(self, trainer, history):
            self.steps, step = 0, trainer.optimizer.step

            def interrupted_step():
                self.steps += 1
                if self.steps == 17:  # in the fourth epoch
                    raise KeyboardInterrupt
                step()

            trainer.optimizer.step = interrupted_step

    part, _, _ = long_run("eager", tmp_path / "unused.json", 8, stop=Interrupt())
    assert part.history.interrupted and len(part.history) == 3
    part.save(path)
    again, _, _ = long_run("eager", path, 8, resume=path)
    assert figures(again.history) == figures(whole.history)
    assert everything(again) == everything(whole)


@each_backend
def test_batches_are_resumed_too(backend, tmp_path):
    path = tmp_path / "run.json"
    whole, part, again = tagger(backend), tagger(backend), tagger(backend)
    whole.fit(SEQUENCES, epochs=4, seed=1, progress=False)
    part.fit(SEQUENCES, epochs=2, seed=1, progress=False, callbacks=Checkpoint(path))
    again.fit(SEQUENCES, epochs=4, seed=1, progress=False, resume=path)
    assert again.history.batch_losses == whole.history.batch_losses
    assert everything(again) == everything(whole)


def test_the_memory_of_a_callback_goes_on_and_a_new_one_starts_afresh(tmp_path):
    class Counter(Callback):
        def __init__(self):
            self.count = 0

        def on_epoch_end(self, trainer, history):
            self.count += 1

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    path = tmp_path / "run.json"
    setup().fit(X, Y, epochs=2, callbacks=[Counter(), Checkpoint(path)], progress=False)
    old, new = Counter(), Counter()
    setup().fit(X, Y, epochs=5, callbacks=[old, new], resume=path, progress=False)
    assert (old.count, new.count) == (5, 3)


@each_backend
def test_load_takes_the_numbers_of_model_loss_and_optimizer(backend, tmp_path):
    class Scaled(nn.Module):
        """A loss with a parameter of its own."""

        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter([1.0])

        def forward(self, prediction, target):
            return F.cross_entropy(elementwise(lambda x: x * self.scale[0], prediction), target)

    def make():
        model, loss_fn = classifier(), Scaled()
        return Trainer(model, loss_fn, optim.Adam([*model.parameters(), *loss_fn.parameters()], lr=0.1), backend)

    one, two = make(), make()
    one.fit(X, Y, epochs=2, seed=0, progress=False)
    one.save(tmp_path / "run.json")
    two.load(tmp_path / "run.json")
    assert one.loss_fn.scale.data == two.loss_fn.scale.data != [1.0]
    assert everything(one) == everything(two)
    assert one.step(X, Y) == two.step(X, Y)
    assert everything(one) == everything(two)
    assert len(two.history) == 0


def refuse_to_resume(path, error, match, **changed):
    options = {"epochs": 5, "validation_data": (XT, YT), "progress": False, **changed}
    trainer = setup(out=changed.pop("out", 3))
    options.pop("out", None)
    if make := options.pop("make", None):
        options["scheduler"] = make(trainer.optimizer)
    before, state = everything(trainer), generator().getstate()
    with pytest.raises(error, match=match):
        trainer.fit(X, Y, resume=path, **options)
    assert everything(trainer) == before
    assert generator().getstate() == state


def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(tmp_path):
    path, other = tmp_path / "run.json", tmp_path / "other.json"
    setup().fit(X, Y, epochs=2, validation_data=(XT, YT), callbacks=Checkpoint(path), progress=False)
    refuse_to_resume(path, ValueError, "records epoch, loss, accuracy, lr, seconds", validation_data=None)
    refuse_to_resume(path, ValueError, "with the scheduler StepLR, got one with None", make=SCHEDULERS["step"])
    refuse_to_resume(path, ValueError, "wrong shape: 2.weight", out=4)
    for text in ("", "{", "[]", '{"format": "another"}', "\x00"):
        other.write_text(text)
        refuse_to_resume(other, ValueError, "expected a file written by Trainer.save or Checkpoint")
    refuse_to_resume(tmp_path / "none.json", FileNotFoundError, "none.json")
    setup().save(other)
    refuse_to_resume(other, ValueError, "got one saved before any; use load")
    saved = json.loads(path.read_text())
    saved["optimizer"]["state"]["0"]["momentum_buffer"] = [1.0]
    other.write_text(json.dumps(saved))
    refuse_to_resume(other, ValueError, "momentum_buffer")


# ── Interrupts and errors ────────────────────────────────────────────────────────────────────────────────────────


def interrupting(error, at):
    """A loss that fails when it is called for the `at`-th time in training."""
    calls = 0

    def loss_fn(prediction, target):
        nonlocal calls
        loss = F.cross_entropy(prediction, target)
        if loss.requires_grad:
            calls += 1
            if calls == at:
                raise error
        return loss

    return loss_fn


def kept(trainer, epochs):
    """Whether it is as after so many epochs without interruption, random numbers included."""
    state = generator().getstate()
    whole = setup(dropout=0.5)
    manual_seed(4)
    if epochs:
        whole.fit(X, Y, epochs=epochs, batch_size=5, validation_data=(XT, YT), progress=False)
    return everything(trainer) == everything(whole) and generator().getstate() == state


@pytest.mark.parametrize("at", [1, 3, 6, 11, 15])
def test_an_interrupt_keeps_the_last_finished_epoch(at):
    trainer = setup(dropout=0.5, loss_fn=interrupting(KeyboardInterrupt, at))
    manual_seed(4)
    history = trainer.fit(X, Y, epochs=9, batch_size=5, validation_data=(XT, YT), progress=False)
    assert history.interrupted
    assert len(history) == (at - 1) // 5
    assert kept(trainer, len(history))


@each_backend
def test_an_interrupt_in_a_callback_keeps_the_epoch_before_it(backend):
    def interrupt(trainer, history):
        if len(history) == 2:
            raise KeyboardInterrupt

    trainer, whole, recorder = setup(backend), setup(backend), Recorder()
    history = trainer.fit(X, Y, epochs=9, seed=0, callbacks=[interrupt, recorder], progress=False)
    whole.fit(X, Y, epochs=2, seed=0, progress=False)
    assert history.interrupted and len(history) == 2
    assert everything(trainer) == everything(whole)
    assert recorder.calls[-1] == ("end", 2)


@each_backend
def test_what_a_callback_changed_stays_after_an_interrupt(backend):
    drawn = []

    def change(trainer, history):
        if len(history) == 2:
            trainer.model[0].bias[0].data = 0.25
            drawn.append(generator().random())

    trainer = setup(backend)
    manual_seed(6)
    epoch, calls = trainer._epoch, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            generator().random()
            raise KeyboardInterrupt
        return epoch(*arguments)

    trainer._epoch = interrupted
    history = trainer.fit(X, Y, epochs=9, callbacks=change, progress=False)
    assert history.interrupted and len(history) == 2
    assert trainer.model[0].bias[0].data == 0.25
    following = generator().random()
    whole = setup(backend)
    manual_seed(6)
    whole.fit(X, Y, epochs=2, progress=False)
    assert (generator().random(), generator().random()) == (drawn[0], following)


def test_an_interrupt_while_validating_drops_the_epoch():
    def loss_fn(prediction, target):
        loss = F.cross_entropy(prediction, target)
        if not loss.requires_grad and len(target) > 1 and armed:
            raise KeyboardInterrupt
        return loss

    armed = []
    trainer = setup(dropout=0.5, loss_fn=loss_fn)
    manual_seed(4)

    def arm(trainer, history):
        if len(history) == 2:
            armed.append(True)

    options = {"epochs": 9, "batch_size": 5, "validation_data": (XT, YT), "progress": False}
    history = trainer.fit(X, Y, callbacks=arm, **options)
    assert history.interrupted and len(history) == 2
    assert kept(trainer, 2)


@pytest.fixture
def listening():
    """Ctrl-C is heard, also where the tests run as a job that ignores it, such as one of nohup."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="no signals to send")
@pytest.mark.usefixtures("listening")
def test_a_ctrl_c_while_an_epoch_is_written_down_comes_after_it(monkeypatch):
    stores = 0

    def store(session):
        nonlocal stores
        stores += 1
        if stores == 2:
            signal.raise_signal(signal.SIGINT)
            sum(range(10000))  # the interpreter looks at signals between its steps: were it not held, it came here
        module._EagerSession.load(session)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(module._EagerSession, "store", store)
    trainer, whole = setup(), setup()
    history = trainer.fit(X, Y, epochs=9, seed=0, progress=False)
    assert history.interrupted and len(history) == 2
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    whole.fit(X, Y, epochs=2, seed=0, progress=False)
    assert everything(trainer) == everything(whole)


def test_fit_runs_in_any_thread():
    trainer, whole = setup(), setup()
    thread = threading.Thread(target=trainer.fit, args=(X, Y), kwargs={"epochs": 2, "seed": 0, "progress": False})
    thread.start()
    thread.join()
    whole.fit(X, Y, epochs=2, seed=0, progress=False)
    assert everything(trainer) == everything(whole)


def test_another_error_passes_and_leaves_the_last_finished_epoch():
    trainer = setup(dropout=0.5, loss_fn=interrupting(OverflowError("too large"), 13))
    manual_seed(4)
    with pytest.raises(OverflowError, match="too large"):
        trainer.fit(X, Y, epochs=9, batch_size=5, validation_data=(XT, YT), progress=False)
    assert len(trainer.history) == 2 and not trainer.history.interrupted
    assert kept(trainer, 2)
    assert all(m.training for m in trainer.model.modules())


# ── What is not finite ───────────────────────────────────────────────────────────────────────────────────────────


def regression(backend, loss_fn=None, lr=0.1, dropout=0.0, **options):
    manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(dropout), nn.Tanh(), nn.Linear(3, 1))
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return Trainer(model, loss_fn or nn.MSELoss(), optimizer, backend=backend, metric=None, **options)


SUMS = [[0.1 * sum(x)] for x in X]


def falling(prediction, target):
    """A loss whose logarithm ends in the second epoch."""
    return ops.mean([ops.log(row[0] + 2.0) for row in prediction])


FAILING = {
    "no logarithm": (falling, 0.2, r"the loss can't be computed: log of −[\d.]+ raised ValueError"),
    "an infinite loss": (nn.MSELoss(), 1e200, r"the loss is inf: inf was born in mul; v\d+ = "),
    "NaN": (lambda p, y: ops.mean([(r[0] * 1e170) ** 2 - (r[0] * 1e171) ** 2 for r in p]), 1.0, "the loss"),
    "a step that is too large": (
        lambda p, y: ops.mean([1e300 * r[0] for r in p]), 1e9,
        "the step of SGD with lr 1000000000.0 made a parameter -?inf, of the gradient -?[0-9.]+e[+]",
    ),
}  # fmt: skip


@each_backend
@pytest.mark.parametrize("name", FAILING)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_number_that_is_none_ends_the_fit_and_is_explained(backend, name, dropout):
    loss_fn, lr, message = FAILING[name]
    trainer, whole, eager = (regression(b, loss_fn, lr, dropout) for b in (backend, backend, "eager"))
    errors = []
    for t in (trainer, eager):
        manual_seed(5)
        with pytest.raises(FloatingPointError, match=rf"^epoch \d+, batch \d+: {message}") as error:
            t.fit(X, SUMS, epochs=30, batch_size=4, progress=False)
        errors.append(str(error.value).partition(":")[0])
        state = generator().getstate()
    assert errors[0] == errors[1]  # the same epoch, and the same batch
    finished = len(trainer.history)
    assert finished == len(eager.history) == int(errors[0].split()[1].rstrip(",")) - 1
    manual_seed(5)
    if finished:
        whole.fit(X, SUMS, epochs=finished, batch_size=4, progress=False)
    assert everything(trainer) == everything(whole)
    assert generator().getstate() == state
    assert all(m.training for m in trainer.model.modules())


def logarithms(prediction, target):
    return ops.mean([ops.log(y[0] + 0.0 * row[0]) + row[0] for row, y in zip(prediction, target)])


@each_backend
def test_a_step_that_fails_takes_back_the_random_numbers_that_it_drew(backend):
    trainer = regression(backend, logarithms, dropout=0.5)
    trainer.step(X[:4], [[1.0]] * 4)
    before, state = everything(trainer), generator().getstate()
    with pytest.raises(FloatingPointError, match="log of −1 raised"):
        trainer.step(X[:4], [[1.0], [1.0], [1.0], [-1.0]])
    assert everything(trainer) == before and generator().getstate() == state


def beyond_the_root(prediction, target):
    """A loss of which compiled code computes a root that no result depends on: it is computed once more, with care."""

    def far(x):
        return ops.where(x < 100.0, lambda: 0.0, lambda: ops.sqrt(x - 100.0))

    return F.mse_loss(prediction, target) + ops.mean([far(row[0]) for row in prediction])


@each_backend
def test_what_is_computed_once_more_draws_the_same_random_numbers(backend):
    trained = []
    for b in ("eager", backend):
        trainer = regression(b, beyond_the_root, dropout=0.5)
        losses = [trainer.step(X[:4], SUMS[:4]) for _ in range(3)]
        history = regression(b, beyond_the_root, dropout=0.5).fit(X, SUMS, epochs=2, batch_size=4, progress=False)
        trained.append([losses, history["loss"]])
    assert trained[1][0] == pytest.approx(trained[0][0], rel=1e-12)
    assert trained[1][1] == pytest.approx(trained[0][1], rel=1e-12)


@each_backend
def test_ready_made_batches_that_fail_are_named_and_so_is_a_loss_of_the_validation(backend):
    batches = [(X[:4], SUMS[:4]), (X[4:9], SUMS[4:9]), ([[30.0] * 4], [[0.0]])]

    def loss_fn(prediction, target):
        return ops.mean([ops.sqrt(2.0 - y[0] + 0.0 * p[0]) for p, y in zip(prediction, target)])

    trainer = regression(backend, loss_fn)
    trainer.fit(batches, shuffle=False, progress=False)
    before, state = everything(trainer), generator().getstate()
    batches[2][1][0] = [5.0]
    for run, where in (
        (lambda: trainer.fit(batches, shuffle=False, progress=False), "epoch 1, batch 3"),
        (lambda: trainer.fit(batches[:2], validation_data=batches, progress=False), "epoch 1, validation: batch 3"),
        (lambda: trainer.fit(X, SUMS, validation_data=(X, [*SUMS[:22], [7.0]]), batch_size=4, progress=False),
         "epoch 1, validation: batch 6"),
        (lambda: trainer.evaluate(batches), "batch 3"),
        (lambda: trainer.evaluate(X, [*SUMS[:10], [9.0], *SUMS[11:]], batch_size=5), "batch 3"),
        (lambda: trainer.step(*batches[2]), "the loss can't be computed"),
    ):  # fmt: skip
        with pytest.raises(FloatingPointError, match=rf"^{where}: .*sqrt of −"):
            run()
        assert everything(trainer) == before and generator().getstate() == state
    assert trainer.step(*batches[0]) > 0


class Logarithms(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter([1.0])

    def forward(self, xb):
        return [ops.log(x[0] * self.weight[0]) for x in xb]


@each_backend
@pytest.mark.parametrize("i", [0, 4])
def test_a_prediction_that_is_none_is_an_error(backend, i):
    model = Logarithms()
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), backend=backend)
    samples = [[1.0 + k] for k in range(7)]
    close(trainer.predict(samples), [math.log(1.0 + k) for k in range(7)])
    samples[i] = [-3.0]
    error = ValueError if backend == "eager" else FloatingPointError  # eagerly, what the model raises
    with pytest.raises(error, match=r"^log of -3.0: expected x >= 0"):
        trainer.predict(samples, batch_size=2)
    model.weight[0].data = math.inf
    samples[i] = [1.0]
    with pytest.raises(FloatingPointError, match=r"^X\[0\]: the prediction is inf"):
        trainer.predict(samples, batch_size=2)


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(5, 2)

    def forward(self, xb):
        return self.rows(xb)


@each_backend
@pytest.mark.parametrize("i", [0, 3])
def test_an_index_out_of_range_is_an_index_error(backend, i):
    model = Table()
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), backend=backend)
    x, y = [0, 1, 2, 3, 4], [[1.0, 2.0]] * 5
    trainer.predict(x)
    before = everything(trainer)
    x[i] = 5
    for use in (
        lambda: trainer.predict(x, batch_size=2),
        lambda: trainer.fit(x, y, batch_size=2, progress=False),
        lambda: trainer.evaluate(x, y),
        lambda: trainer.step(x, y),
    ):
        with pytest.raises(IndexError, match="expected whole numbers from 0 to 4, got 5"):
            use()
        assert everything(trainer) == before


@each_backend
def test_a_batch_whose_targets_are_all_ignored_is_refused(backend):
    trainer = setup(backend)
    y = [-100, -100, *Y[2:]]
    trainer.fit(X, y, batch_size=3, shuffle=False, progress=False)
    before = everything(trainer)
    for use in (
        lambda: trainer.fit(X, y, batch_size=2, shuffle=False, progress=False),
        lambda: trainer.fit(X, [-100] * len(X), progress=False),
        lambda: trainer.fit([(X[2:5], y[2:5]), (X[:2], y[:2])], shuffle=False, progress=False),
        lambda: trainer.evaluate(X, y, batch_size=2),
        lambda: trainer.step(X[:2], y[:2]),
    ):
        with pytest.raises(ValueError, match=r"^target: expected at least one class, got only -100 \(ignore_index\)"):
            use()
        assert everything(trainer) == before
    trainer.loss_fn.reduction = "sum"
    assert trainer.fit(X, y, batch_size=2, progress=False).loss[-1] > 0


@each_backend
def test_a_sum_of_ignored_targets_is_0_and_momentum_goes_on(backend):
    trainers = setup(backend), setup("eager")
    for trainer in trainers:
        trainer.loss_fn.reduction = "sum"
        ignored = [-100] * 2
        assert trainer.step(X[:2], ignored) == 0.0
        trainer.step(X[2:4], Y[2:4])
        before = numbers(trainer.model)
        assert trainer.step(X[:2], ignored) == 0.0
        assert numbers(trainer.model) != before  # by what the optimizer remembers
        trainer.fit(X, [*ignored, *Y[2:]], batch_size=2, shuffle=False, progress=False)
        trainer.fit([(X[:2], ignored), (X[2:5], Y[2:5])], seed=0, progress=False)
    assert numbers(trainers[0].model) == pytest.approx(numbers(trainers[1].model), rel=1e-9, abs=1e-12)


@each_backend
def test_what_can_learn_nothing_is_refused(backend):
    trainer, other = regression(backend), nn.Linear(4, 1)
    before = everything(trainer)
    data = {"X": X, "y": SUMS, "progress": False}

    def refused(match):
        for use in (lambda: trainer.fit(**data), lambda: trainer.step(X[:2], SUMS[:2])):
            with pytest.raises(ValueError, match=match):
                use()
            assert everything(trainer) == before

    trainer.model.requires_grad_(False)
    refused("^optimizer: expected a parameter that learns, got frozen ones only")
    trainer.model[3].bias.requires_grad_(True)
    for loss_fn in (
        lambda p, y: ops.mean([row[0] * row[0] for row in y]),
        lambda p, y: ops.mean([F.mse_loss(row, t) for row, t in zip(other(X[: len(y)]), y)]),
    ):
        trainer.loss_fn = loss_fn
        refused("^loss_fn: expected a loss that depends on a parameter of the optimizer that learns")
    trainer.loss_fn = nn.MSELoss()
    trainer.model.requires_grad_(False)
    assert trainer.evaluate(X, SUMS).loss > 0 and len(trainer.predict(X)) == len(X)
    trainer.model.requires_grad_(True)

    def freeze(trainer, history):
        trainer.model.requires_grad_(False)

    with pytest.raises(ValueError, match=r"^optimizer: expected a parameter that learns"):
        trainer.fit(X, SUMS, epochs=3, callbacks=freeze, progress=False)
    assert len(trainer.history) == 1


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 2)
        self.layers = (lambda: [nn.Linear(2, 1)])()

    def forward(self, xb):
        return self.layers[0](self.first(xb))


@each_backend
@pytest.mark.filterwarnings("ignore:.*is not registered")
def test_learning_values_that_nobody_holds_are_told_once(backend):
    model = Hidden()
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), backend=backend)
    with pytest.warns(UserWarning, match="^the loss depends on 3 learning Values that no Parameter of the model"):
        trainer.fit(X, SUMS, progress=False)
    trainer.fit(X, SUMS, progress=False)
    trainer.step(X[:2], SUMS[:2])


# ── What is changed meanwhile ────────────────────────────────────────────────────────────────────────────────────
# Most of it is in tests/compiler/test_changes.py.


@each_backend
@pytest.mark.parametrize("form", ["lists", "numbers", "Rows", "batches"])
@pytest.mark.parametrize("when", ["between", "callback"])
def test_data_that_is_changed_in_place_is_read_anew(backend, form, when):
    def data():
        if form == "numbers":
            return [x[0] for x in X], [x[1] for x in X]
        if form == "batches":
            return [([x], [y]) for x, y in zip(X, SUMS)], None
        return (Rows(array("d", flatten(X)), 4) if form == "Rows" else [x[:] for x in X]), [y[:] for y in SUMS]

    def change(x, y):
        if form == "Rows":
            x.buffer[:8] = array("d", [0.5] * 8)
        elif form == "numbers":
            x[:2] = [0.5, 0.25]
        elif form == "batches":
            x[0] = ([X[5]], [[7.0]])
        else:
            x[0][0], x[1] = 0.5, [0.25] * 4
        if y:
            y[3] = 5.0 if form == "numbers" else [5.0]

    def run(backend):
        manual_seed(2)
        model = Curve() if form == "numbers" else nn.Linear(4, 1)
        trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.05), backend=backend, metric=None)
        x, y = data()
        xt, yt = data()
        options = {"validation_data": (xt, yt) if y else xt, "shuffle": False, "progress": False, "batch_size": 4}
        seen = []

        def callback(trainer, history):
            if len(history) == 2:
                change(x, y)
                change(xt, yt)

        history = trainer.fit(x, y, epochs=4, callbacks=[callback] * (when == "callback"), **options)
        seen += [*history.loss, *history.val_loss]
        if when == "between":
            change(x, y)
            change(xt, yt)
            seen.append(trainer.evaluate(xt, yt).loss)
            if y:
                seen += flatten(trainer.predict(x))
            history = trainer.fit(x, y, epochs=2, **options)
            seen += [*history.loss, *history.val_loss]
        return seen + numbers(model)

    close(run(backend), run("eager"))


class Curve(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter([0.5, 0.25])

    def forward(self, xb):
        return [self.weight[0] * x + self.weight[1] for x in xb]


@each_backend
def test_a_rate_that_is_loaded_or_replaced_counts(backend, tmp_path):
    trainer = regression(backend)
    trainer.fit(X, SUMS, epochs=2, seed=1, progress=False)
    trainer.save(tmp_path / "a")
    trained = numbers(trainer.model)
    state = trainer.optimizer.state_dict()
    for set_rate in (
        lambda: trainer.optimizer.param_groups[0].update(lr=0.0),
        lambda: trainer.optimizer.load_state_dict({**state, "param_groups": [{**state["param_groups"][0], "lr": 0.0}]}),
        lambda: trainer.optimizer.param_groups.__setitem__(0, {**trainer.optimizer.param_groups[0], "lr": 0.0}),
    ):
        trainer.load(tmp_path / "a")
        trainer.fit(X, SUMS, seed=1, progress=False)
        assert numbers(trainer.model) != trained
        trainer.load(tmp_path / "a")
        set_rate()
        trainer.fit(X, SUMS, seed=1, progress=False)
        assert numbers(trainer.model) == trained
    others = [regression(backend) for _ in range(2)]
    for t in (*others, trainer):
        scheduler = lr_scheduler.StepLR(t.optimizer, 1, 0.5)
        if t is trainer:
            t.fit(X, SUMS, seed=1, epochs=1, scheduler=scheduler, progress=False)  # something is compiled already
        elif t is others[0]:
            t.fit(X, SUMS, seed=1, epochs=5, scheduler=scheduler, progress=False)
            continue
        else:
            t.fit(X, SUMS, seed=1, epochs=2, scheduler=scheduler, progress=False)
            t.save(tmp_path / "b")
            continue
        scheduler = lr_scheduler.StepLR(t.optimizer, 1, 0.5)
        t.fit(X, SUMS, seed=1, epochs=5, scheduler=scheduler, resume=tmp_path / "b", progress=False)
    assert everything(trainer) == everything(others[0])


@each_backend
def test_the_trainers_own_attributes_count_or_are_refused(backend):
    trainer, by_hand = regression(backend), regression("eager")
    data = {"X": X, "y": SUMS, "seed": 0, "progress": False}

    def change(t, history):
        if len(history) == 1:
            t.loss_fn = nn.L1Loss()
        elif len(history) == 2:
            t.optimizer, t.clip_grad_norm = optim.Adam(t.model.parameters(), lr=0.01), 0.5
        elif len(history) == 3:
            t.model[1], t.clip_grad_value = nn.Dropout(0.5), 0.1

    seen = []
    for t in (trainer, by_hand):
        manual_seed(1)
        seen.append(t.fit(epochs=5, callbacks=change, **data).loss)
        t.model = nn.Linear(4, 1)
        with pytest.raises(ValueError, match=r"^optimizer: expected one made with the model's parameters"):
            t.fit(**data)
        t.model.load_state_dict({"weight": [[0.5] * 4], "bias": [0.0]})
        t.optimizer = sgd(t.model)
        seen[-1] += t.fit(epochs=2, **data).loss + flatten(t.predict(X)) + numbers(t.model)
    close(*seen)
    refused = {
        "model": 3, "loss_fn": nn.MSELoss, "optimizer": None, "clip_grad_norm": -1, "clip_grad_value": "1",
        "metric": 0.5, "threads": 0, "backend": "fast", "dtype": "float16",
    }  # fmt: skip
    for name, x in refused.items():
        before = getattr(trainer, name)
        with pytest.raises((TypeError, ValueError), match=f"^{name}: expected"):
            setattr(trainer, name, x)
        assert getattr(trainer, name) is before

    def another_metric(t, history):
        t.metric = lambda p, y: 1.0

    with pytest.raises(ValueError, match=r"^metric: expected the one that this fit records, None, to stay"):
        trainer.fit(epochs=2, callbacks=another_metric, **data)

    def another_optimizer(t, history):
        t.optimizer = sgd(t.model)

    with pytest.raises(ValueError, match=r"^scheduler: expected one made for the Trainer's optimizer"):
        trainer.metric = None
        scheduler = lr_scheduler.StepLR(trainer.optimizer, 1)
        trainer.fit(epochs=2, callbacks=another_optimizer, scheduler=scheduler, **data)


def test_the_backend_may_change_too():
    trainer, eager = regression("eager"), regression("eager")

    def switch(t, history):
        if t is trainer:
            t.backend = ["python", "eager"][len(history) % 2]

    for t in (trainer, eager):
        t.fit(X, SUMS, epochs=4, seed=0, callbacks=switch, progress=False)
    close(numbers(trainer.model), numbers(eager.model))


@each_backend
def test_gradients_whose_squares_are_too_large_become_0_as_in_pytorch(backend):
    def loss_fn(prediction, target):
        return ops.mean([1e250 * p[0] for p in prediction])

    trainer = regression(backend, loss_fn, clip_grad_norm=0.5)
    before = numbers(trainer.model)
    trainer.step(X[:3], SUMS[:3])
    assert numbers(trainer.model) == before


# ── Threads, processes, copies ───────────────────────────────────────────────────────────────────────────────────


@each_backend
def test_threads_that_predict_take_turns_and_leave_the_mode(backend):
    trainer = setup(backend, dropout=0.5)
    expected, results, begin = trainer.predict(X), [], threading.Barrier(4)

    def use():
        begin.wait()
        for _ in range(20):
            results.append(trainer.predict(X) == expected)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80 and all(results)
    assert all(m.training for m in trainer.model.modules())


@each_backend
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_trainer_can_be_copied_before_and_after_a_fit(backend, copied):
    trainer = setup(backend)
    for _ in range(2):
        other = copied(trainer)
        for t in (trainer, other):
            t.fit(X, Y, seed=0, progress=False)
        assert everything(other) == everything(trainer)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@NATIVE
def test_a_process_that_was_forked_has_threads_of_its_own():
    trainer = setup("llvm", threads=2)
    trainer.fit(X, Y, progress=False)
    child = os.fork()
    if not child:
        signal.alarm(30)  # ends it if it hangs
        trainer.fit(X, Y, progress=False)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


# ── The history ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_history_has_rows_and_columns():
    trainer = setup()
    history = trainer.fit(X, Y, epochs=3, validation_data=(XT, YT), seed=0, progress=False)
    assert history.columns == ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds")
    assert len(history) == len(history.epochs) == 3
    assert history.epoch == history["epoch"] == [1, 2, 3]
    assert history.val_loss == [row["val_loss"] for row in history]
    assert history[-1]["val_loss"] == trainer.evaluate(XT, YT).loss
    assert history[-1]["val_accuracy"] == trainer.evaluate(XT, YT).accuracy
    assert all(x > 0 for x in history.seconds)
    assert history.batch_losses == []
    assert json.loads(json.dumps(history.epochs)) == history.epochs
    with pytest.raises(KeyError, match="expected one of epoch, loss"):
        history["los"]
    with pytest.raises(AttributeError, match="'los'"):
        _ = history.los


@pytest.mark.parametrize("batch_size", [1, 5, 23])
@pytest.mark.parametrize("data", [(X, Y), (SEQUENCES, None)], ids=["samples", "batches"])
def test_progress_shows_the_percentage_of_the_samples(data, batch_size, monkeypatch):
    shown, done, after = [], [], []

    def progress(items, label):
        shown.append((label, list(items)))
        for item in items:
            yield item
            done.append(item)

    monkeypatch.setattr(module, "counted", progress)
    trainer = tagger() if data[1] is None else setup()
    trainer.fit(*data, epochs=3, batch_size=batch_size, callbacks=[lambda t, h: after.append(len(done))])
    assert shown == [("% trained", list(range(100)))]
    assert after == [33, 66, 100]
    trainer.fit(*data, epochs=2, batch_size=5, progress=False)
    assert len(shown) == 1


# ── Refusals: before anything changes ────────────────────────────────────────────────────────────────────────────

NAN, INF = math.nan, math.inf
OK = {"X": X, "y": Y}


def but(rows, i, row):
    return [*rows[:i], row, *rows[i + 1 :]]


REFUSED = {
    "no list": ({"X": 3}, TypeError, "X: expected a list of numbers or of lists, got int 3"),
    "text": ({"X": "abc", "y": [1, 2, 3]}, TypeError, "X: expected a list of numbers or of lists, got str"),
    "a number for y": ({"y": 1}, TypeError, "y: expected a list of numbers or of lists, got int 1"),
    "nothing": ({"X": [], "y": []}, ValueError, "X: expected at least one sample, got none"),
    "lengths": ({"y": Y[:-1]}, ValueError, "y: expected 23 targets, one for each sample, got 22"),
    "ragged": ({"X": but(X, 3, [1.0, 2.0])}, ValueError, r"X\[3\]: expected the shape \(4,\), .* got \(2,\)"),
    "ragged inside": ({"X": but(X, 3, [1.0, [2.0], 3.0, 4.0])}, ValueError, r"X\[3\]\[1\]: expected the shape \(\)"),
    "empty row": ({"X": but(X, 3, [])}, ValueError, r"X\[3\]: expected at least one number, got an empty list"),
    "nan": ({"X": but(X, 3, [1.0, NAN, 2.0, 3.0])}, ValueError, r"X\[3\]\[1\]: expected a finite number, got nan"),
    "inf": ({"X": but(X, 3, [1.0, 1.0, -INF, INF])}, ValueError, r"X\[3\]\[2\]: expected a finite number, got -inf"),
    "word": ({"X": but(X, 3, [1.0, "a", 2.0, 3.0])}, TypeError, r"X\[3\]\[1\]: expected a real number .* got str"),
    "nan in Rows": ({"X": Rows(array("d", [NAN] * 92), 4)}, ValueError, r"X\[0\]\[0\]: expected a finite"),
    "none": ({"X": but(X, 3, None)}, TypeError, r"X\[3\]: expected a real number or a Value, got NoneType"),
    "huge": ({"X": but(X, 3, [10**400, 1, 1, 1])}, OverflowError, r"X\[3\]\[0\]: expected a number that"),
    "nan target": ({"y": but(Y, 5, NAN)}, ValueError, r"y\[5\]: expected a finite number, got nan"),
    "ragged targets": ({"y": but(Y, 5, [1])}, ValueError, r"y\[5\]: expected the shape \(\), .* got \(1,\)"),
    "width": ({"X": [x[:3] for x in X]}, ValueError, r"X\[0\]: the model does not take it: input: expected 4 numbers"),
    "class too large": ({"y": but(Y, 5, 3)}, ValueError, r"y\[5\]: expected a class from 0 to 2, got 3"),
    "negative class": ({"y": but(Y, 5, -1)}, ValueError, r"y\[5\]: expected a class from 0 to 2, got -1"),
    "half a class": ({"y": but(Y, 5, 0.5)}, TypeError, r"y\[5\]: expected a class, .* from 0 to 2, got float"),
    "shape of classes": ({"y": [[t] for t in Y]}, ValueError, r"y\[0\]: expected class numbers of the shape \(\)"),
    "dataset of no pairs": ({"X": Subset(X, range(3)), "y": None}, TypeError, r"X\[0\]: without y, expected a sample"),
    "no batches": ({"X": [], "y": None}, ValueError, "X: expected at least one batch, got none"),
    "no pair": ({"y": None}, TypeError, r"X\[0\]: without y, expected a list of batches \(xb, yb\), a Dataset"),
    "an iterator": ({"X": iter([]), "y": None}, TypeError, "X: expected a list, a Dataset or a DataLoader"),
    "nan in a batch": (
        {"X": [(X[:2], Y[:2]), (but(X, 1, [NAN] * 4)[:2], Y[:2])], "y": None},
        ValueError, r"X\[1\]\[0\]\[1\]\[0\]: expected a finite number, got nan",
    ),
    "class in a batch": (
        {"X": [(X[:2], Y[:2]), (X[:2], [0, 7])], "y": None}, ValueError, r"X\[1\]\[1\]\[1\]: expected a class",
    ),
    "width of a batch": ({"X": [(X, Y), ([[1.0]], [1])], "y": None}, ValueError, r"X\[1\]\[0\]: the model does"),
    "validation lengths": ({"validation_data": (XT, YT[1:])}, ValueError, r"validation_data\[1\]: expected 9 targets"),
    "validation nan": (
        {"validation_data": (but(XT, 2, [NAN] * 4), YT)}, ValueError, r"validation_data\[0\]\[2\]\[0\]: expected",
    ),
    "validation width": ({"validation_data": ([[1.0]], [1])}, ValueError, r"validation_data\[0\]\[0\]: the model"),
    "validation class": ({"validation_data": (XT, but(YT, 2, 9))}, ValueError, r"validation_data\[1\]\[2\]: expected"),
    "validation triple": ({"validation_data": (XT, YT, XT)}, TypeError, r"validation_data: expected \(X, y\)"),
    "validation number": ({"validation_data": 5}, TypeError, "validation_data: expected a list, a Dataset"),
    "epochs 0": ({"epochs": 0}, ValueError, "epochs: expected 1 or more, got 0"),
    "epochs 1.5": ({"epochs": 1.5}, TypeError, "epochs: expected a whole number, got float 1.5"),
    "batch_size 0": ({"batch_size": 0}, ValueError, "batch_size: expected 1 or more, got 0"),
    "batch_size text": ({"batch_size": "8"}, TypeError, "batch_size: expected a whole number, got str"),
    "drop all": ({"batch_size": 24, "drop_last": True}, ValueError, "batch_size: expected at most 23"),
    "seed": ({"seed": 1.5}, TypeError, "seed: expected a whole number, got float 1.5"),
    "shuffle": ({"shuffle": "yes"}, TypeError, "shuffle: expected True or False, got str"),
    "drop_last": ({"drop_last": None}, TypeError, "drop_last: expected True or False, got NoneType"),
    "progress": ({"progress": 3}, TypeError, "progress: expected True or False, got int"),
    "scheduler": ({"scheduler": 0.1}, TypeError, "scheduler: expected one of milligrad.optim.lr_scheduler, got float"),
    "scheduler of another": (
        {"scheduler": lr_scheduler.StepLR(sgd(classifier()), 1)}, ValueError, "scheduler: expected one made for",
    ),
    "callback": ({"callbacks": [print, 3]}, TypeError, r"callbacks\[1\]: expected a Callback or a function"),
    "callback class": ({"callbacks": EarlyStopping}, TypeError, r"callbacks\[0\]: expected a Callback or a function"),
    "monitor": ({"callbacks": [EarlyStopping("los")]}, ValueError, r"callbacks\[0\]: monitor: expected one of"),
    "val monitor": ({"callbacks": [EarlyStopping()]}, ValueError, "got 'val_loss'; pass validation_data"),
    "folder": ({"callbacks": [Checkpoint("no such folder/x")]}, FileNotFoundError, "path: expected an existing folder"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "error", "match"), REFUSED.values(), ids=REFUSED)
def test_fit_refuses(options, error, match):
    trainer = setup()
    before, state = everything(trainer), generator().getstate()
    arguments = {**OK, "progress": False, **options}
    with pytest.raises(error, match=match):
        trainer.fit(arguments.pop("X"), arguments.pop("y"), **arguments)
    assert everything(trainer) == before
    assert generator().getstate() == state
    assert all(m.training for m in trainer.model.modules())


@pytest.mark.parametrize("name", ["nothing", "lengths", "ragged", "nan", "width", "class too large", "no pair"])
def test_evaluate_refuses_the_same(name):
    options, error, match = REFUSED[name]
    arguments = {**OK, **options}
    with pytest.raises(error, match=match):
        setup().evaluate(arguments["X"], arguments["y"])
    with pytest.raises(ValueError, match="batch_size: expected 1 or more, got 0"):
        setup().evaluate(X, Y, batch_size=0)


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        (3, TypeError, "X: expected a list of samples or a Dataset, got int 3"),
        ([], ValueError, "X: expected at least one sample, got none"),
        ([[1.0]], ValueError, r"X\[0\]: the model does not take it"),
        (but(X, 3, [1.0, NAN, 2.0, 3.0]), ValueError, r"X\[3\]\[1\]: expected a finite number, got nan"),
        (but(X, 3, [1.0]), ValueError, r"X\[3\]: expected the shape \(4,\)"),
    ],
)
def test_predict_refuses(data, error, match):
    with pytest.raises(error, match=match):
        setup().predict(data)


@pytest.mark.parametrize(
    ("xb", "yb", "error", "match"),
    [
        (X, [7] * 23, ValueError, r"yb\[0\]: expected a class from 0 to 2, got 7"),
        (X, Y[1:], ValueError, "yb: expected class numbers"),
        ([[NAN] * 4], [1], ValueError, r"xb\[0\]\[0\]: expected a finite number, got nan"),
        ([[1.0]], [1], ValueError, "xb: the model does not take it"),
        ([], [], ValueError, "xb: expected at least one number, got an empty list"),
    ],
)
def test_step_refuses(xb, yb, error, match):
    trainer = setup()
    for _ in range(2):  # a shape that was refused is not remembered as a good one
        with pytest.raises(error, match=match):
            trainer.step(xb, yb)


def test_targets_of_another_shape_are_refused_by_the_loss():
    trainer = setup(loss_fn=nn.MSELoss(), out=1)
    with pytest.raises(ValueError, match=r"y\[0\]: the loss does not take it: target: expected the shape of input"):
        trainer.fit(X, [1.0] * 23, progress=False)


def test_classes_that_are_ignored_are_in_range():
    trainer = setup(loss_fn=nn.CrossEntropyLoss(ignore_index=-1))
    assert trainer.fit(X, but(Y, 0, -1), progress=False).columns[2] == "accuracy"
    with pytest.raises(ValueError, match=r"y\[0\]: expected a class from 0 to 2, got -100"):
        trainer.fit(X, but(Y, 0, -100), progress=False)


def test_a_loss_that_is_no_single_number_is_refused():
    trainer = setup(loss_fn=nn.MSELoss(reduction="none"))
    with pytest.raises(ValueError, match=r"loss_fn: expected one number for a batch, got a list of shape \(1, 3\)"):
        trainer.fit(X, [[0.0] * 3] * 23, progress=False)
    trainer = setup(loss_fn=lambda prediction, target: None)
    with pytest.raises(TypeError, match="loss_fn: expected a real number or a Value, got NoneType"):
        trainer.fit(X, Y, progress=False)


def test_a_model_that_takes_no_batches_is_refused():
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x):
            return self.linear(x)[0]

    model = First()
    with pytest.raises(ValueError, match="model: expected a list of one prediction for a batch of one sample"):
        Trainer(model, nn.CrossEntropyLoss(), sgd(model), "eager").fit(X, Y, progress=False)


MODEL = classifier()
ARGUMENTS = {
    "model": ({"model": lambda x: x}, TypeError, "model: expected a Module, got function"),
    "loss_fn": ({"loss_fn": 3}, TypeError, "loss_fn: expected a function"),
    "loss class": ({"loss_fn": nn.MSELoss}, TypeError, "loss_fn: expected a function"),
    "optimizer": ({"optimizer": 0.1}, TypeError, "optimizer: expected an Optimizer, got float"),
    "another's": (
        {"optimizer": sgd(classifier())},
        ValueError,
        "optimizer: expected one made with the model's parameters",
    ),
    "backend": (
        {"backend": "cuda"},
        ValueError,
        "backend: expected one of 'auto', 'eager', 'python', 'llvm', got 'cuda'",
    ),
    "threads": ({"threads": 0}, ValueError, "threads: expected 1 or more, got 0"),
    "half threads": ({"threads": 0.5}, TypeError, "threads: expected a whole number"),
    "dtype": ({"dtype": "float16"}, ValueError, "dtype: expected 'float64' or 'float32', got 'float16'"),
    "single": ({"dtype": "float32"}, ValueError, "dtype: expected 'float64' on the backend 'eager', got 'float32'"),
    "norm": ({"clip_grad_norm": -1}, ValueError, "clip_grad_norm: expected a number that is at least 0"),
    "value": ({"clip_grad_value": NAN}, ValueError, "clip_grad_value: expected a number that is at least 0"),
    "metric": ({"metric": "f1"}, TypeError, "metric: expected 'accuracy', None or a function"),
}


@pytest.mark.parametrize(("options", "error", "match"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_a_trainer_refuses(options, error, match):
    arguments = {"model": MODEL, "loss_fn": F.cross_entropy, "optimizer": sgd(MODEL), "backend": "eager", **options}
    with pytest.raises(error, match=match):
        Trainer(**arguments)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: EarlyStopping(3), TypeError, "monitor: expected the name of a column"),
        (lambda: EarlyStopping(mode="up"), ValueError, "mode: expected 'auto', 'min' or 'max', got 'up'"),
        (lambda: EarlyStopping("val_metric"), ValueError, "mode: expected 'min' or 'max' for the monitor 'val_metric'"),
        (lambda: EarlyStopping(patience=0), ValueError, "patience: expected 1 or more, got 0"),
        (lambda: EarlyStopping(min_delta=-1), ValueError, "min_delta: expected a number that is at least 0"),
        (lambda: EarlyStopping(restore_best=None), TypeError, "restore_best: expected True or False"),
        (lambda: Checkpoint("x", every=0), ValueError, "every: expected 1 or more, got 0"),
        (lambda: Checkpoint("x", best="y"), TypeError, "best: expected True or False"),
        (lambda: Checkpoint(3), TypeError, "PathLike"),
    ],
)
def test_a_callback_refuses(make, error, match):
    with pytest.raises(error, match=match):
        make()


# ── Backends ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_llvm_without_llvmlite_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    with pytest.raises(ImportError, match=r"pip install 'milligrad-autodiff\[native\]'"):
        setup("llvm")


def test_auto_says_once_what_it_took(monkeypatch, capsys):
    monkeypatch.setattr(module, "_announced", set())
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    assert setup("auto").backend == setup("auto").backend == "python"
    hint = "pip install 'milligrad-autodiff[native]'"
    assert capsys.readouterr().err == f"milligrad: backend 'auto' takes 'python'; for 'llvm': {hint}\n"


def test_auto_takes_llvm_where_it_is_installed(monkeypatch, capsys):
    pytest.importorskip("llvmlite")
    monkeypatch.setattr(module, "_announced", set())
    assert setup("auto", dtype="float32").backend == "llvm"
    assert capsys.readouterr().err == "milligrad: backend 'auto' takes 'llvm'\n"


class Scaled(nn.Module):
    """w·x, by whichever function."""

    def __init__(self, f, *w):
        super().__init__()
        self.w, self.f = nn.Parameter(list(w)), f

    def forward(self, xb):
        return [self.f(self.w, x) for x in xb]


def squares(p, y):
    return ops.mean([(a - b) ** 2 for a, b in zip(p, y)])


def cut_off(w, x):
    with no_grad():
        return w[0] * x


NO_GRADIENT = {
    "no_grad": (cut_off, squares),
    "detach": (lambda w, x: w[0].detach() * x, squares),
    "detach in the loss": (lambda w, x: w[0] * x, lambda p, y: squares([a.detach() for a in p], y)),
    "a choice": (lambda w, x: w[0] * x, lambda p, y: ops.where(p[0] > y[0], 1.0, 2.0)),
    "a comparison": (lambda w, x: w[0] * x, lambda p, y: p[0] > y[0]),
}


@each_backend
@pytest.mark.parametrize("name", NO_GRADIENT)
@pytest.mark.parametrize("n", [1, 3])
def test_a_loss_that_no_gradient_goes_through_is_refused(name, n, backend):
    f, loss = NO_GRADIENT[name]
    model = Scaled(f, 0.5)
    xs = [float(i) for i in range(n)]
    trainer = Trainer(model, loss, optim.SGD(model.parameters(), lr=0.1), backend=backend)
    for train in (lambda: trainer.step(xs, xs), lambda: trainer.fit(xs, xs, epochs=1, progress=False)):
        with pytest.raises(ValueError, match="expected a loss that depends on a parameter"):
            train()


class Sign(optim.Optimizer):
    options: ClassVar = {"lr": at_least_0}

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @staticmethod
    def initial_state(**options):
        return {}

    @staticmethod
    def rule(t, lr, **options):
        return lambda p, g: (ops.where(g >= 0, p - lr, p + lr),)


@each_backend
@pytest.mark.parametrize("clip", [{}, {"clip_grad_norm": 10.0}, {"clip_grad_value": 5.0}])
def test_a_rule_that_compares_sees_the_gradient_of_a_strong_zero(clip, backend):
    model = Scaled(lambda w, x: ops.sqrt(w[0] * w[0] * x) + w[1], 0.0, 2.0)  # 0 · ∞ is 0
    trainer = Trainer(model, squares, Sign(model.parameters()), backend=backend, **clip)
    trainer.fit([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 5.0], epochs=1, batch_size=2, shuffle=False, progress=False)
    assert [v.data for v in model.w] == pytest.approx([-0.2, 2.0], rel=1e-12)


@each_backend
@pytest.mark.parametrize(
    "metric",
    [
        lambda p, t: ops.where(ops.sqrt(p - t) < 1, 1.0, 0.0),
        lambda p, t: ops.log(p - t),
        lambda p, t: ops.exp(1e5 * p),
        lambda p, t: p / (t - 1.0),
    ],
)
def test_a_metric_that_is_no_number_ends_the_fit_as_a_loss_does(metric, backend):
    model = Scaled(lambda w, x: w[0] * x, 0.3)
    trainer = Trainer(model, squares, optim.SGD(model.parameters(), lr=0.1), backend=backend, metric=metric)
    with pytest.raises(FloatingPointError, match=r"epoch 1, batch 1.*metric"):
        trainer.fit([1.0, 2.0], [1.0, 2.0], epochs=1, progress=False)
    assert model.w[0].data == 0.3
    with pytest.raises(FloatingPointError, match="metric"):
        trainer.evaluate([1.0, 2.0], [1.0, 2.0])


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_explain_tells_what_was_compiled(backend):
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), backend=backend)
    assert trainer.explain() == "not compiled yet: call fit, step, evaluate or predict once"
    X, y = [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [[1.0], [1.0], [0.0]]
    trainer.fit(X, y, epochs=1, batch_size=2, progress=False)
    trainer.predict(X)
    text = trainer.explain()
    assert len(text.splitlines()) <= 40 and max(map(len, text.splitlines())) <= 130
    assert "a training step, sample by sample: " in text and "a prediction, sample by sample: " in text
    assert "tanh" in text and "nodes traced" in text and " ms" in text
    full = trainer.explain(full=True)
    assert ("def run(" if backend == "python" else "define void @run(") in full


def test_eagerly_there_is_nothing_to_explain():
    model = nn.Linear(1, 1)
    trainer = Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), backend="eager")
    assert "nothing is compiled" in trainer.explain()
