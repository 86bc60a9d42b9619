"""Losses that couple the samples of a batch: one program for many lengths, against the eager session."""

import random
from itertools import pairwise

import pytest

from milligrad import functional as F
from milligrad import manual_seed, nn, ops, optim
from milligrad.compiler.backends import has_llvmlite
from milligrad.compiler.fit import CompiledSession, Whole
from milligrad.nested import flatten
from milligrad.trainer import _EagerSession

BACKENDS = ["python", pytest.param("llvm", marks=pytest.mark.skipif(not has_llvmlite(), reason="needs llvmlite"))]
LENGTHS = [7, 2, 20, 13, 9, 5, 16, 24, 11]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        manual_seed(1)
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.last([[ops.tanh(z) for z in row] for row in self.between(self.first(x))])

    def between(self, rows):
        return rows


class Normalized(Net):
    """With a batch normalization written by hand."""

    def between(self, rows):
        columns = []
        for column in zip(*rows):
            mean = sum(column) / len(column)
            variance = sum([(x - mean) ** 2 for x in column]) / (len(column) - 1)
            columns.append([(x - mean) / ops.sqrt(variance + 1e-5) for x in column])
        return [list(row) for row in zip(*columns)]


class Noisy(Normalized):
    """The same, which draws random numbers."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.3)

    def between(self, rows):
        return self.dropout(super().between(rows))


def squares(p, y):
    return sum([sum([(a - b) ** 2 for a, b in zip(row, t)]) for row, t in zip(p, y)]) / len(p)


def similarity(x, y):
    return sum([a * b for a, b in zip(x, y)])


def pairs(p, y):
    total = 0.0
    for i in range(len(p)):
        for j in range(i):
            total = total + ops.exp(-sum([(a - b) ** 2 for a, b in zip(p[i], p[j])]))
    return total / (len(p) * (len(p) - 1) / 2)


def upper_pairs(p, y):
    total = 0.0
    for i in range(len(p)):
        for j in range(i + 1, len(p)):
            total = total + ops.relu(1.0 - similarity(p[i], p[j])) * ops.abs(y[i][0] - y[j][0])
    return total


def all_pairs(p, y):
    return sum([ops.log1p(similarity(a, b) ** 2) for a in p for b in p]) / len(p) ** 2


def negatives(p, y):
    """Each target against those of the others."""
    scores = [[similarity(a, b) for b in y] for a in p]
    return sum([F.cross_entropy([row], [i]) for i, row in enumerate(scores)]) / len(p)


def own_negatives(p, y):
    """Each prediction against the others, by hand."""
    total = 0.0
    for i, a in enumerate(p):
        scores = [similarity(a, b) for b in p]
        total = total + ops.log(sum([ops.exp(s) for s in scores])) - scores[i - 1]
    return total / len(p)


def softmax(p, y):
    weights = F.softmax([row[0] for row in p])
    return sum([w * (row[1] - t[1]) ** 2 for w, row, t in zip(weights, p, y)])


def largest(p, y):
    worst = (p[0][0] - y[0][0]) ** 2
    for row, t in zip(p[1:], y[1:]):
        error = (row[0] - t[0]) ** 2
        worst = ops.where(error > worst, error, worst)
    return worst


def largest_by_maximum(p, y):
    worst = p[0][0]
    for row in p:
        worst = ops.maximum(worst, row[0] - row[1])
    return worst


def neighbours(p, y):
    total = 0.0
    for a, b in pairwise(p):
        total = total - similarity(a, b) / ops.sqrt(similarity(a, a) * similarity(b, b) + 1e-6)
    return total / (len(p) - 1)


def in_time(p, y):
    """A filter that runs over the batch."""
    state, total = 0.0, 0.0
    for row, t in zip(p, y):
        state = 0.9 * state + ops.tanh(row[0])
        total = total + (state - t[0]) ** 2
    return total / len(p)


COUPLED = {
    "batch normalization": (Normalized, squares),
    "batch normalization with dropout": (Noisy, squares),
    "pairs below": (Net, pairs),
    "pairs above": (Net, upper_pairs),
    "all pairs": (Net, all_pairs),
    "in-batch negatives": (Net, negatives),
    "negatives among predictions": (Net, own_negatives),
    "softmax over the batch": (Net, softmax),
    "largest by comparison": (Net, largest),
    "largest by maximum": (Net, largest_by_maximum),
    "neighbours": (Net, neighbours),
    "in time": (Net, in_time),
}


def batch(n):
    rng = random.Random(n)
    return [[[rng.gauss(0, 1) for _ in range(3)] for _ in range(n)] for _ in range(2)]


def session(backend, model, loss_fn, clip=None):
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    if backend == "eager":
        return _EagerSession(model, loss_fn, optimizer, None, clip, None)
    return CompiledSession(model, loss_fn, optimizer, None, backend, clip_grad_norm=clip)


def about(xs):
    return pytest.approx(xs, rel=1e-12, abs=1e-12)


def trained(backend, model, loss_fn, lengths=LENGTHS, **options):
    """(the session, the losses of a step for each length, then the parameters)."""
    s = session(backend, model(), loss_fn, **options)
    s.load()
    manual_seed(3)
    losses = [s.batch(*batch(n))[0] for n in lengths]
    s.store()
    return s, [*losses, *[v.data for p in s.model.parameters() for v in p.values()]]


def programs(s):
    """How many programs were compiled for whole batches: those of lengths that share one are one."""
    return len({compiled(code) if shares(code) else id(code) for code in wholes(s)})


def wholes(s):
    return [code for code in s._codes.values() if isinstance(code, Whole)]


def shares(code):
    return "any length" in code.executable.program.info.get("shape", "")


def compiled(code):
    """What is the same for programs that were compiled together: machine code, or the text of Python's."""
    code = code.executable.code
    code = code.codes[0][1][0] if hasattr(code, "codes") else code
    return id(code._code._engine) if hasattr(code, "_code") else code.source


@pytest.mark.parametrize("name", COUPLED)
def test_a_loss_that_couples_the_samples_is_one_program_from_the_third_length_on(backend, name):
    model, loss_fn = COUPLED[name]
    s, found = trained(backend, model, loss_fn)
    _, expected = trained("eager", model, loss_fn)
    assert found == about(expected)
    assert programs(s) == 3


# ── What is not one program for all lengths ──────────────────────────────────────────────────────────────────────


def first_five(p, y):
    """Five samples at most: of ten and more always the same number."""
    n = min(len(p), 5)
    return sum([row[0] * p[-1][1] for row in p[:n]]) / n


def up_to_fifteen(p, y):
    return pairs(p, y) if len(p) <= 15 else neighbours(p, y)


def every_third(p, y):
    return sum([similarity(a, p[0]) for a in p[::3]])


def middle(p, y):
    return (p[len(p) // 2][0] - p[0][0]) ** 2


def not_of_ten(p, y):
    if len(p) == 10:
        raise ValueError("ten samples")
    return pairs(p, y)


def triplets(p, y):
    products = [a[0] * b[0] * c[0] for i, a in enumerate(p) for j, b in enumerate(p[:i]) for c in p[:j]]
    return ops.tanh(ops.mean(products))


LIMITED = {
    first_five: {3, 4},  # and of 20, 13, 24 it is the same as of ten
    up_to_fifteen: {20, 24, 3},
    every_third: {20, 13, 24, 3, 4},
    middle: {20, 13, 24, 3, 4},
    not_of_ten: {20, 13, 24, 3, 4},
    triplets: {20, 13, 24, 3, 4},
}


@pytest.mark.parametrize("loss_fn", LIMITED)
def test_what_is_another_function_of_other_lengths_has_other_programs(backend, loss_fn):
    lengths = [7, 8, 20, 13, 24, 3, 4]
    s, found = trained(backend, Net, loss_fn, lengths)
    _, expected = trained("eager", Net, loss_fn, lengths)
    assert found == about(expected)
    own = {n for n, code in zip(lengths[2:], wholes(s)[2:]) if not shares(code)}
    assert own >= LIMITED[loss_fn] - {4}


def test_a_constant_is_what_the_trace_of_each_length_says(backend):
    def loss_fn(p, y):
        n = len(p)
        return pairs(p, y) * (1.0 / min(n, 15) + 0.1 * n**3 + 1 / (n - 1)) + (n > 14) * 0.5 * p[0][0]

    s, found = trained(backend, Net, loss_fn, [7, 8, 20, 13, 12, 30])
    _, expected = trained("eager", Net, loss_fn, [7, 8, 20, 13, 12, 30])
    assert found == about(expected)
    assert [shares(code) for code in wholes(s)] == [False, False, False, True, True, False]


def test_a_single_length_has_the_program_of_groups(backend):
    s, _ = trained(backend, Normalized, squares, [12, 12])
    assert [shares(code) for code in wholes(s)] == [False]


# ── What else a session does ─────────────────────────────────────────────────────────────────────────────────────


def test_batches_of_a_data_set_with_a_short_last_one_and_clipping(backend):
    x, y = batch(31)
    s, e = (session(b, Normalized(), squares, clip=0.1) for b in (backend, "eager"))
    for each in (s, e):
        each.load()
    for size in (8, 9, 12, 11):
        assert s.epoch(x, y, range(31), size) == about(e.epoch(x, y, range(31), size))
    for each in (s, e):
        each.store()
    assert [v.data for v in s.model.first.weight[0]] == about([v.data for v in e.model.first.weight[0]])
    assert programs(s) == 3  # for batches of 8, 7, 9, 4, 12 and 11


def test_judging_and_predicting(backend):
    x, y = batch(35)
    s, e = (session(b, Normalized(), squares) for b in (backend, "eager"))
    s.load()
    for size in (8, 10, 12, 14):
        assert s.evaluate(x, y, size) == about(e.evaluate(x, y, size))
        assert flatten(s.predict(x, size)) == about(flatten(e.predict(x, size)))
    assert len(wholes(s)) > 12 and programs(s) == 6


def test_a_sample_may_be_a_number(backend):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter([0.5])

        def forward(self, x):
            mean = sum(x) / len(x)
            return [self.w[0] * (number - mean) for number in x]

    def loss_fn(p, y):
        return sum([(a - b) ** 2 for a, b in zip(p, y)]) + p[0] * p[-1]

    s, e = (session(b, Scaled(), loss_fn) for b in (backend, "eager"))
    s.load()
    for n in (9, 8, 14, 21, 6):
        x, y = ([row[0] for row in rows] for rows in batch(n))
        assert s.batch(x, y) == about(e.batch(x, y))
    assert programs(s) == 3


def test_exact_code_is_shared_too(backend):
    s, e = (session(b, Normalized(), squares) for b in (backend, "eager"))
    s.load()
    s.be_exact()
    for n in (11, 12, 15, 18):
        assert s.batch(*batch(n)) == about(e.batch(*batch(n)))
    assert [shares(code) for code in wholes(s)] == [False, False, True, True]


def test_it_is_told_what_was_compiled(backend):
    s, _ = trained(backend, Net, pairs, [10, 11, 12])
    assert "loops, in order, for any length" in s.explain() and "66 times" in s.explain()
    assert "lengths: " in s.explain()


@pytest.mark.skipif(not has_llvmlite(), reason="needs llvmlite")
def test_in_floats():
    s, e = session("llvm", Net(), pairs), session("eager", Net(), pairs)
    s = CompiledSession(s.model, pairs, s.optimizer, None, "llvm", dtype="float32")
    s.load()
    for n in (9, 10, 14, 21):
        assert s.batch(*batch(n)) == pytest.approx(e.batch(*batch(n)), rel=1e-4)
    assert programs(s) == 3


def test_it_is_kept_for_later_processes(backend, monkeypatch, tmp_path):
    monkeypatch.setenv("MILLIGRAD_CACHE", str(tmp_path))
    first, found = trained(backend, Normalized, squares)
    again, same = trained(backend, Normalized, squares)
    assert same == found and [*map(shares, wholes(again))] == [*map(shares, wholes(first))]
    assert all(["reroll" not in code.executable.clock.times for code in wholes(again)])
    assert all(["lengths" not in code.executable.clock.times for code in wholes(again)])
