"""What is trained by loops in time: programs in two parts, against the eager engine and by hand."""

from __future__ import annotations

import random

import pytest

from milligrad import SGD, Adam, Dropout, Linear, Module, MSELoss, Parameter, Trainer, manual_seed, ops, tanh
from milligrad.compiler import pipeline
from milligrad.compiler.backends import has_llvmlite
from milligrad.compiler.passes.apart import apart
from milligrad.compiler.passes.simplify import simplify
from milligrad.compiler.trace import Trace, total
from milligrad.nested import flatten
from tests.compiler.rolled import forced

NATIVE = pytest.mark.skipif(not has_llvmlite(), reason="needs llvmlite")
BACKENDS = ["python", pytest.param("llvm", marks=NATIVE)]


class Pendulum(Module):
    """Where a pendulum with friction is after some steps; the samples are where it starts."""

    def __init__(self, steps):
        super().__init__()
        self.constants, self.steps = Parameter([9.0, 0.1]), steps

    def forward(self, starts):
        return [self.swing(*start) for start in starts]

    def swing(self, angle, speed):
        gravity, friction = self.constants
        for _ in range(self.steps):
            speed = speed - 0.05 * (gravity * ops.sin(angle) + friction * speed)
            angle = angle + 0.05 * speed
        return [angle]


class Recurrent(Module):
    """A network that reads numbers one after the other, with dropout on the way."""

    def __init__(self, steps):
        super().__init__()
        self.cell, self.head, self.dropout, self.steps = Linear(3, 2), Linear(2, 1), Dropout(0.2), steps

    def forward(self, samples):
        return [self.read(sample) for sample in samples]

    def read(self, sample):
        h = [0.0, 0.0]
        for k in range(self.steps):
            h = [tanh(z) for z in self.cell([sample[k % 2], *h])]
        return self.head(self.dropout(h))


class Coupled(Pendulum):
    """The samples' mean is taken away, which makes a whole of the batch."""

    def forward(self, starts):
        ends = [self.swing(*start)[0] for start in starts]
        mean = ops.mean(ends)
        return [[end - mean] for end in ends]


class Guarded(Pendulum):
    """Roots that are chosen where they have a slope: at 0 the other one counts, in the chain rule as well."""

    def swing(self, z, bias):
        scale, slope = self.constants
        for _ in range(self.steps):
            z = ops.where(z == 0, slope * z, ops.sqrt(ops.abs(z))) * (0.1 * scale)
        return [z + bias * scale]


DRAW = random.Random(4)
X = [[0.0, 0.5]] + [[DRAW.uniform(-1, 1), DRAW.uniform(-1, 1)] for _ in range(6)]
Y = [[DRAW.uniform(-1, 1)] for _ in X]

OPTIMIZERS = {
    "SGD": lambda model: SGD(model.parameters(), lr=1e-3, momentum=0.9),
    "Adam": lambda model: Adam(model.parameters(), lr=1e-2, weight_decay=0.01),
}
OPTIONS = {"plain": {}, "norm": {"clip_grad_norm": 0.1}, "value": {"clip_grad_value": 0.05}}


@pytest.fixture
def taken_apart(monkeypatch):
    """Every program of a Trainer is taken apart; what comes of each is told."""
    seen = []

    def and_tell(*arguments):
        parts = apart(*arguments)
        seen.append(parts is not None)
        return parts

    forced(monkeypatch)
    monkeypatch.setattr(pipeline, "apart", and_tell)
    return seen


def trained(make, optimizer, backend, batch_size, **options):
    """All numbers of a training run."""
    manual_seed(3)
    model = make(9)
    trainer = Trainer(model, MSELoss(), OPTIMIZERS[optimizer](model), backend=backend, **options)
    trainer.fit(X, Y, epochs=3, batch_size=batch_size, shuffle=False, progress=False)
    judged = trainer.evaluate(X, Y, batch_size=batch_size)
    losses = trainer.history.loss
    return [v.data for p in model.parameters() for v in p.values()] + list(losses) + [judged.loss]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [Pendulum, Recurrent, Coupled, Guarded])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_training_is_that_of_the_eager_engine(make, optimizer, options, batch_size, backend, taken_apart):
    options = OPTIONS[options]
    expected = trained(make, optimizer, "eager", batch_size, **options)
    assert trained(make, optimizer, backend, batch_size, **options) == pytest.approx(expected, rel=1e-9, abs=1e-11)
    assert taken_apart and all(taken_apart)


@NATIVE
@pytest.mark.parametrize("make", [Pendulum, Recurrent])
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_take_a_part_of_the_batch_each(make, threads, taken_apart):
    expected = trained(make, "Adam", "eager", 5)
    assert trained(make, "Adam", "llvm", 5, threads=threads) == pytest.approx(expected, rel=1e-9, abs=1e-11)
    assert all(taken_apart)


@NATIVE
def test_floats_of_single_precision(taken_apart):
    expected = trained(Pendulum, "SGD", "eager", 4)
    assert trained(Pendulum, "SGD", "llvm", 4, dtype="float32") == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_thousand_steps_are_a_few_statements(backend):
    def lines(make, steps, batch_size):
        model = make(steps)
        trainer = Trainer(model, MSELoss(), SGD(model.parameters(), lr=1e-4), backend=backend)
        trainer.fit(X[:4], Y[:4], epochs=1, batch_size=batch_size, progress=False)
        assert flatten(trainer.predict(X[:4], batch_size=2)) == pytest.approx(
            [z.data for start in (X[:2], X[2:4]) for row in model(start) for z in row], rel=1e-9
        )
        shapes = [x.executable.program.info["shape"] for x in trainer._session()._seen if hasattr(x, "executable")]
        assert any([shape.endswith("in order") for shape in shapes]), shapes  # the prediction
        return trainer._session().explain().splitlines()

    for make in (Pendulum, Coupled):
        first, *more = lines(make, 1_000, 2)
        assert "in order; then" in first, first
        assert [x for x in more if "99" in x and "times: " in x], more


def evaluated(graph, numbers):
    """The outputs for these numbers of the leaves, op by op; a sum over samples is one over its own terms."""
    known = {x.serial: number for x, number in numbers.items()}
    z = []
    for i, (op, inputs) in enumerate(zip(graph.op, graph.inputs)):
        x = graph.source.get(i)
        z.append(op.value(*[z[j] for j in inputs]) if op else x if type(x) is float else known[x.serial])
    return [z[i] for i in graph.outputs]


def test_the_parts_compute_what_the_whole_does():
    """By hand: terms of each sample, their sums, and what is made of these."""
    trace = Trace()
    (x,), (w, n) = trace.input("x", 1), trace.input("w", 2)
    with trace.running():
        y = ops.exp(x * w)
        loss = x.record(total, (y, x * w, 2.0, w))  # 2 y + w·(x w), over all samples
        count = x.record(total, (y - x, 1.0))
        outputs = [loss / n + w, count * loss, w * 3]
    graph = simplify(trace.tape, outputs)
    parts = apart(graph, [x])
    assert total not in parts.first.op and len(parts.terms) == len(parts.first.outputs) == 2
    samples, weight = [0.3, -0.7, 1.1], 0.4
    rows = [evaluated(parts.first, {x: s, w: weight, n: 3.0}) for s in samples]
    sums = dict(zip(parts.terms, map(sum, zip(*rows))))
    second = evaluated(parts.second, {**sums, w: weight, n: 3.0})
    ys = [ops.exp(s * weight) for s in samples]
    by_hand = sum(2 * z + weight * s * weight for z, s in zip(ys, samples)), sum(z - s for z, s in zip(ys, samples))
    assert second == pytest.approx([by_hand[0] / 3 + weight, by_hand[1] * by_hand[0], weight * 3], rel=1e-12)


def test_what_needs_a_sum_in_a_sample_stays_whole():
    """A sum over the samples that one of them needs again, or one of their numbers after the sums."""
    for after in (False, True):
        trace = Trace()
        [x] = trace.input("x", 1)
        with trace.running():
            mean = x.record(total, (x, 1.0))
            z = mean * x
            outputs = [z if after else x.record(total, (ops.exp(z), 1.0))]
        assert apart(simplify(trace.tape, outputs), [x]) is None
