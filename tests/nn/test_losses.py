"""The loss modules: each is its function with options, and refuses an unknown reduction when it is made."""

import math
from importlib.util import find_spec

import pytest

import milligrad
from milligrad import Value, nn
from milligrad import functional as F
from milligrad.nested import elementwise, shape

P, Q = [[0.2, 0.7], [0.4, 0.8]], [[0.5, 0.5], [0.25, 0.75]]
LABELS = [1, 0]

CASES = [  # the module, its function, what the function must be given, and a target
    (nn.MSELoss, {}, F.mse_loss, Q),
    (nn.L1Loss, {}, F.l1_loss, Q),
    (nn.HuberLoss, {"delta": 0.1}, F.huber_loss, Q),
    (nn.SmoothL1Loss, {"beta": 0.1}, F.smooth_l1_loss, Q),
    (nn.BCELoss, {"weight": [1.0, 2.0]}, F.binary_cross_entropy, Q),
    (nn.BCEWithLogitsLoss, {"weight": [1.0, 2.0], "pos_weight": [3.0]}, F.binary_cross_entropy_with_logits, Q),
    (nn.CrossEntropyLoss, {"weight": [1.0, 2.0], "label_smoothing": 0.1}, F.cross_entropy, LABELS),
    (nn.CrossEntropyLoss, {"ignore_index": 0}, F.cross_entropy, LABELS),
    (nn.CrossEntropyLoss, {"weight": [1.0, 2.0], "label_smoothing": 0.1}, F.cross_entropy, Q),
    (nn.NLLLoss, {"weight": [1.0, 2.0]}, F.nll_loss, LABELS),
    (nn.NLLLoss, {"ignore_index": 0}, F.nll_loss, LABELS),
    (nn.KLDivLoss, {"log_target": True}, F.kl_div, Q),
]
cases = pytest.mark.parametrize("loss, options, function, target", CASES)
LOSSES = [nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss, nn.BCELoss, nn.BCEWithLogitsLoss]
LOSSES += [nn.CrossEntropyLoss, nn.NLLLoss, nn.KLDivLoss]
pointwise = pytest.mark.parametrize("loss", [*LOSSES[:6], nn.KLDivLoss])


@cases
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_each_option_reaches_the_function(loss, options, function, target, reduction):
    module = loss(reduction=reduction, **options)
    expected = function(P, target, reduction=reduction, **options)
    assert module(P, target) == expected
    for name in options:
        fewer = {key: value for key, value in options.items() if key != name}
        assert loss(reduction=reduction, **fewer)(P, target) != expected


@pytest.mark.parametrize("loss", LOSSES)
def test_mean_is_the_default_and_the_repr_shows_the_reduction(loss):
    assert loss().reduction == "mean" and repr(loss()) == f"{loss.__name__}(reduction='mean')"
    assert repr(loss(reduction="none")) == f"{loss.__name__}(reduction='none')" and not list(loss().parameters())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("wrong", ["average", "", None, 1, "Mean", "batchmean"], ids=str)
def test_an_unknown_reduction_is_refused_when_the_loss_is_made(loss, wrong):
    if loss is nn.KLDivLoss and wrong == "batchmean":
        assert loss(wrong)(P, P) == loss("sum")(P, P) / 2
    else:
        with pytest.raises(ValueError, match=r"^reduction: expected one of 'mean', 'sum', 'none'.*, got"):
            loss(reduction=wrong)


def test_options_out_of_range_are_refused_when_the_loss_is_made():
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"^delta: expected a number > 0, got"):
            nn.HuberLoss(delta=wrong)
    for wrong in (-1.0, math.nan):
        with pytest.raises(ValueError, match=r"^beta: expected a number >= 0, got"):
            nn.SmoothL1Loss(beta=wrong)
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"^label_smoothing: expected a number between 0 and 1, got"):
            nn.CrossEntropyLoss(label_smoothing=wrong)


@pointwise
def test_a_list_of_scalar_values_against_whole_numbers(loss):
    values = [Value(0.25), Value(0.75)]
    result = loss()(values, [0, 1])
    assert result.data == loss()([0.25, 0.75], (0.0, 1.0)) == loss()((0.25, 0.75), [False, True])
    result.backward()
    assert values[1].grad != 0


@pointwise
def test_a_single_scalar(loss):
    v = Value(0.75)
    for reduction in ("mean", "sum", "none"):
        assert loss(reduction=reduction)(v, 1.0).data == loss()([0.75], [1.0])
    loss()(v, 1.0).backward()
    assert v.grad != 0


@pointwise
def test_batches_are_the_mean_of_their_samples(loss):
    x, y = [P, Q], [Q, Q]
    each = [loss()(a, b) for rows in zip(x, y) for a, b in zip(*rows)]
    assert loss()(x, y) == pytest.approx(sum(each) / 4, rel=1e-14)
    assert shape(loss(reduction="none")(x, y)) == (2, 2, 2)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, nn.NLLLoss])
def test_class_losses_of_batches_are_the_mean_of_their_samples(loss):
    each = [loss()(x, t) for x, t in zip(P, LABELS)]
    assert loss()(P, LABELS) == loss()(tuple(map(tuple, P)), tuple(LABELS)) == pytest.approx(sum(each) / 2, rel=1e-15)
    assert loss(reduction="none")(P, LABELS) == each
    values = elementwise(Value, P)
    loss()(values, LABELS).backward()
    assert values[0][1].grad < 0 and values[1][0].grad < 0


def test_far_out_values_are_right():
    assert nn.CrossEntropyLoss()([0, 800], 0) == 800.0 and nn.CrossEntropyLoss()([[0, 800]], [1]) == 0.0
    assert nn.BCEWithLogitsLoss(reduction="none")([1e4, -1e4, 1e4, -1e4], [1, 0, 0, 1]) == [0.0, 0.0, 1e4, 1e4]
    assert nn.BCELoss(reduction="none")([0.0, 1.0, 0.0, 1.0], [0, 1, 1, 0]) == [0.0, 0.0, 100.0, 100.0]


def test_gradients_are_the_slopes_of_finite_differences():
    for loss, options, _, target in CASES:
        module = loss(**options)
        assert milligrad.gradcheck(lambda x, m=module, t=target: m(x, t), [P], rtol=1e-6, atol=1e-8)
        assert milligrad.gradgradcheck(lambda x, m=module, t=target: m(x, t), [P], rtol=1e-6, atol=1e-7)


@pointwise
def test_what_pointwise_losses_refuse(loss):
    with pytest.raises(ValueError, match=r"^target: expected the shape of input, \(2, 2\), got \(2,\)"):
        loss()(P, [1.0, 0.0])
    with pytest.raises(ValueError, match=r"^target: expected the shape of input, \(2, 1\), got \(2,\)"):
        loss()([[0.5], [0.5]], [1.0, 0.0])
    with pytest.raises(ValueError, match=r"^target\[0\]\[1\]: expected a number, got NaN"):
        loss()(P, [[0.5, math.nan], [0.5, 0.5]])
    with pytest.raises(ValueError, match=r"^input: expected at least one number, got an empty list"):
        loss()([], [])
    with pytest.raises(ValueError, match=r"^input is ragged"):
        loss()([[0.5], 0.5], [[0.5], 0.5])
    with pytest.raises(TypeError, match=r"^input\[0\]: expected a real number or a Value, got NoneType"):
        loss()([None], [1.0])


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, nn.NLLLoss])
def test_what_class_losses_refuse(loss):
    with pytest.raises(IndexError, match=r"^target: expected whole numbers from 0 to 1, got 2"):
        loss()(P, [0, 2])
    with pytest.raises(TypeError, match=r"^target: expected whole numbers from 0 to 1, got 0.5"):
        loss()(P, [0, 0.5])
    with pytest.raises(TypeError, match=r"^target: expected whole numbers from 0 to 1, got nan"):
        loss()(P, [0, math.nan])
    with pytest.raises(ValueError, match=r"^target: expected class indices of the shape \(2,\), got \(3,\)"):
        loss()(P, [0, 1, 1])
    with pytest.raises(ValueError, match=r"^weight: expected one number for each of the 2 classes, got \(3,\)"):
        loss(weight=[1.0, 1.0, 1.0])(P, LABELS)
    with pytest.raises(ValueError, match=r"^input: expected the shape \(C,\), \(N, C\) or"):
        loss()([], [])


@pytest.mark.parametrize("loss", [nn.BCELoss, nn.BCEWithLogitsLoss])
def test_weights_of_elements_must_broadcast(loss):
    with pytest.raises(ValueError, match=r"^weight of shape \(3,\) does not broadcast to the shape \(2, 2\)"):
        loss(weight=[1.0] * 3)(P, Q)


@pytest.mark.parametrize("y", [3, -1, 1.0000001, -1e-300, math.inf])
def test_a_target_of_bce_that_is_no_probability_is_refused_eagerly_and_compiled(y):
    with pytest.raises(ValueError, match=rf"^bce of p = 0.2, {float(y)}: expected 0 <= x <= 1 and 0 <= y <= 1"):
        nn.BCELoss()([Value(0.2, name="p")], [y])
    for backend in ["python", *["llvm"] * (find_spec("llvmlite") is not None)]:
        f = milligrad.compile(nn.BCELoss(), backend=backend)
        assert f([0.2], [1.0]) == pytest.approx(-math.log(0.2))
        with pytest.raises((ValueError, ArithmeticError)):
            f([0.2], [y])


@pytest.mark.parametrize("y", [3, -1])
def test_a_target_of_bce_with_logits_may_be_any_number_as_in_pytorch(y):
    expected = y * math.log1p(math.exp(-0.2)) + (1 - y) * math.log1p(math.exp(0.2))
    assert nn.BCEWithLogitsLoss()([0.2], [y]) == pytest.approx(expected, rel=1e-14)
