"""The activation modules: each is its function with options, of one number, one sample or a batch."""

import math

import pytest

import milligrad
from milligrad import Value, nn
from milligrad import functional as F
from milligrad.engine import number
from milligrad.nested import elementwise, flatten

MODULES = [
    (nn.ReLU(), F.relu, {}, "ReLU()"),
    (nn.LeakyReLU(), F.leaky_relu, {}, "LeakyReLU(negative_slope=0.01)"),
    (nn.LeakyReLU(0.3), F.leaky_relu, {"negative_slope": 0.3}, "LeakyReLU(negative_slope=0.3)"),
    (nn.ELU(), F.elu, {}, "ELU(alpha=1.0)"),
    (nn.ELU(2.5), F.elu, {"alpha": 2.5}, "ELU(alpha=2.5)"),
    (nn.GELU(), F.gelu, {}, "GELU(approximate='none')"),
    (nn.GELU("tanh"), F.gelu, {"approximate": "tanh"}, "GELU(approximate='tanh')"),
    (nn.SiLU(), F.silu, {}, "SiLU()"),
    (nn.Sigmoid(), F.sigmoid, {}, "Sigmoid()"),
    (nn.Tanh(), F.tanh, {}, "Tanh()"),
    (nn.Softplus(), F.softplus, {}, "Softplus(beta=1.0, threshold=20.0)"),
    (nn.Softplus(2.0, 1.0), F.softplus, {"beta": 2.0, "threshold": 1.0}, "Softplus(beta=2.0, threshold=1.0)"),
    (nn.Softmax(), F.softmax, {}, "Softmax(dim=-1)"),
    (nn.Softmax(0), F.softmax, {"dim": 0}, "Softmax(dim=0)"),
    (nn.LogSoftmax(), F.log_softmax, {}, "LogSoftmax(dim=-1)"),
    (nn.LogSoftmax(0), F.log_softmax, {"dim": 0}, "LogSoftmax(dim=0)"),
]
modules = pytest.mark.parametrize("module, function, options, shown", MODULES, ids=lambda x: getattr(x, "dim", None))
SAMPLE = [-2.0, 0.3, 1.7]
BATCH = [SAMPLE, [0.5, -0.5, 3.0]]


def floats(x):
    return elementwise(number, x)


@modules
def test_a_module_is_its_function_with_its_options(module, function, options, shown):
    for x in (SAMPLE, BATCH, [BATCH, BATCH]):
        assert module(x) == function(x, **options)
        assert floats(module(elementwise(Value, x))) == function(x, **options)


@modules
def test_its_repr_shows_the_options_and_it_has_no_parameters(module, function, options, shown):
    assert repr(module) == shown and not list(module.parameters()) and module.state_dict() == {}


@modules
def test_a_batch_of_any_depth_is_its_samples(module, function, options, shown):
    if getattr(module, "dim", -1) == 0:  # then the dimension in front is not that of the batch
        assert module(SAMPLE) == pytest.approx(function(SAMPLE), rel=1e-15)
    else:
        assert module(BATCH) == [module(x) for x in BATCH]
        assert module([BATCH, BATCH]) == [[module(x) for x in BATCH]] * 2


@modules
def test_gradients_flow_through_the_module(module, function, options, shown):
    assert milligrad.gradcheck(module, [SAMPLE], rtol=1e-6, atol=1e-8)
    xs = list(map(Value, SAMPLE))
    milligrad.sum([y * (i + 1) for i, y in enumerate(module(xs))]).backward()
    assert any(x.grad for x in xs) and all(math.isfinite(x.grad) for x in xs)


@modules
def test_far_out_values_and_gradients_are_finite(module, function, options, shown):
    xs = list(map(Value, [1e4, -1e4, 0.0]))
    ys = module(xs)
    milligrad.sum(ys).backward()
    assert all(math.isfinite(y.data) for y in ys) and all(math.isfinite(x.grad) for x in xs)


@modules
def test_training_mode_changes_nothing(module, function, options, shown):
    assert module.eval()(SAMPLE) == module.train()(SAMPLE)


def test_far_out_values_are_right():
    assert nn.Sigmoid()([1e4, -1e4]) == [1.0, 0.0] and nn.Tanh()([400.0, -400.0]) == [1.0, -1.0]
    assert nn.Softmax()([1000, 0]) == [1.0, 0.0] and nn.LogSoftmax()([1000, 0]) == [0.0, -1000.0]
    assert nn.Softplus()([1e4, -1e4]) == [1e4, 0.0] and nn.GELU()([1e4, -1e4]) == [1e4, 0.0]


def test_softmax_along_each_dimension():
    columns = nn.Softmax(0)(BATCH)
    assert [a + b for a, b in zip(*columns)] == pytest.approx([1.0] * 3, rel=1e-15)
    assert [sum(row) for row in nn.Softmax()(BATCH)] == pytest.approx([1.0] * 2, rel=1e-15)
    assert [math.exp(x) for x in flatten(nn.LogSoftmax(0)(BATCH))] == flatten(columns)


def test_what_activations_refuse():
    for module in (nn.Softmax(1), nn.LogSoftmax(-2)):
        with pytest.raises(IndexError, match=r"^dim is (1|-2), but x has 1 dimension"):
            module(SAMPLE)
    with pytest.raises(ValueError, match=r"^approximate: expected 'none' or 'tanh', got 'fast'"):
        nn.GELU("fast")(SAMPLE)
    with pytest.raises(ValueError, match=r"^input is ragged"):
        nn.Softmax()([[1.0], [1.0, 2.0]])
    with pytest.raises(ValueError, match=r"^input: expected at least one number, got an empty list"):
        nn.LogSoftmax()([])
