"""The five rules against closed forms and by hand, their options, and that they run on Values."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import Value
from milligrad.optim import SGD, Adagrad, Adam, AdamW, RMSprop

ALL = [SGD, Adam, AdamW, RMSprop, Adagrad]
VARIANTS = [
    (SGD, {}),
    (SGD, {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    (SGD, {"momentum": 0.9, "nesterov": True, "maximize": True}),
    (Adam, {"weight_decay": 0.1}),
    (Adam, {"amsgrad": True}),
    (AdamW, {"amsgrad": True, "maximize": True}),
    (RMSprop, {}),
    (RMSprop, {"centered": True}),
    (RMSprop, {"centered": True, "momentum": 0.9}),
    (RMSprop, {"momentum": 0.9}),
    (Adagrad, {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.1}),
]


def after(kind, gradients, p=1.0, **options):
    """p after one step for each gradient."""
    v = Value(p)
    optimizer = kind([v], **options)
    for g in gradients:
        v.grad = float(g)
        optimizer.step()
    return v.data


def test_sgd_is_a_step_down_the_slope():
    assert after(SGD, [2.0, -1.0], lr=0.25) == 1 - 0.5 + 0.25
    assert after(SGD, [2.0], lr=0.25, maximize=True) == 1.5
    assert after(SGD, [2.0], lr=0.25, weight_decay=2.0) == 0.0
    assert after(SGD, [2.0], lr=0.25, weight_decay=2.0, maximize=True) == 1.0  # the decay is not turned around


def test_momentum_begins_with_the_gradient_and_is_dampened_from_the_second_step_on():
    assert after(SGD, [2.0], lr=1.0, momentum=0.5, dampening=0.75) == -1.0
    assert after(SGD, [2.0, 4.0], lr=1.0, momentum=0.5, dampening=0.75) == -1.0 - (0.5 * 2 + 0.25 * 4)
    assert after(SGD, [2.0, 4.0], lr=1.0, momentum=0.5, nesterov=True) == 1 - (2 + 1) - (4 + 0.5 * 5)


@given(st.floats(-1e6, 1e6).filter(lambda g: abs(g) > 1e-3))
@settings(max_examples=25, deadline=None)
def test_the_first_step_of_adam_is_lr_whatever_the_gradient(g):
    assert after(Adam, [g], lr=0.5, eps=0.0) == pytest.approx(1 - math.copysign(0.5, g), rel=1e-12)
    assert after(Adam, [g] * 9, lr=0.5, eps=0.0) == pytest.approx(1 - 9 * math.copysign(0.5, g), rel=1e-11)


def test_adam_by_hand():
    m = v = 0.0
    p = 1.0
    for t, g in enumerate([0.5, -2.0, 0.1], start=1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        p -= 0.1 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.99**t)) + 1e-3)
    assert after(Adam, [0.5, -2.0, 0.1], lr=0.1, betas=(0.9, 0.99), eps=1e-3) == pytest.approx(p, rel=1e-14)


def test_amsgrad_remembers_the_largest_square():
    optimizer = Adam([v := Value(1.0)], betas=(0.9, 0.5), amsgrad=True)
    largest = []
    for g in (1.0, 10.0, 0.1, 0.1):
        v.grad = g
        optimizer.step()
        largest.append(optimizer.state_dict()["state"][0]["max_exp_avg_sq"])
    assert largest == [0.5, 50.25, 50.25, 50.25]


def test_the_decay_of_adamw_is_apart_from_the_gradient():
    assert after(AdamW, [0.0], p=3.0, lr=0.5, weight_decay=0.1) == 3.0 * 0.95
    assert after(AdamW, [5.0], p=3.0, lr=0.5, weight_decay=0.1, eps=0.0) == pytest.approx(3.0 * 0.95 - 0.5)


def test_rmsprop_divides_by_the_root_of_the_mean_square():
    assert after(RMSprop, [3.0], lr=0.1, alpha=0.75, eps=0.0) == 1 - 0.1 * (3.0 / 1.5)
    assert after(RMSprop, [3.0, 0.0], lr=0.1, alpha=0.75, eps=0.0, momentum=0.5) == pytest.approx(1 - 0.2 - 0.1)


def test_a_variance_that_rounding_leaves_below_0_counts_as_0():
    """s - m² of a constant gradient goes to 0 from both sides; every step stays a number."""
    s = m = 0.0
    for _ in range(53):
        s, m = 0.5 * s + 0.5 * 1.1 * 1.1, 0.5 * m + 0.5 * 1.1
    assert s - m * m < 0
    assert after(RMSprop, [1.1] * 400, lr=1e-9, alpha=0.5, eps=1.0, centered=True) == pytest.approx(
        1 - 400e-9, abs=1e-7
    )


def test_adagrad_adds_squares_up_and_decays_its_rate():
    assert after(Adagrad, [3.0, 4.0], lr=1.0, eps=0.0) == pytest.approx(1 - 1 - 4 / 5)
    assert after(Adagrad, [3.0, 4.0], lr=1.0, eps=0.0, lr_decay=1.0) == pytest.approx(1 - 1 - 2 / 5)
    assert after(Adagrad, [4.0], lr=1.0, eps=1.0, initial_accumulator_value=9.0) == pytest.approx(1 - 4 / 6)


@pytest.mark.parametrize("kind, options", VARIANTS)
def test_a_bowl_is_gone_down_to_its_bottom_or_up_if_it_is_turned_over(kind, options):
    sign = -1 if options.get("maximize") else 1
    x, y = Value(1.0), Value(-2.0)
    optimizer = kind([[x, y]], **{**options, "lr": 0.5 if kind is Adagrad else 0.02, "weight_decay": 0.0})
    for _ in range(600):
        optimizer.zero_grad()
        (sign * (x * x + 3 * y * y)).backward()
        optimizer.step()
    assert x.data**2 + 3 * y.data**2 < 0.01 * (1**2 + 3 * 2**2)


@pytest.mark.parametrize("kind, options", VARIANTS)
@pytest.mark.parametrize("t", [1, 2, 7])
def test_a_rule_gives_the_same_on_values_and_with_t_and_lr_as_values(kind, options, t):
    optimizer = kind([Value(1.0)], **options)
    chosen = {name: optimizer.param_groups[0][name] for name in kind.options}
    state = [0.3, 0.2, 0.5][: len(kind.initial_state(**chosen))]
    expected = kind.rule(t, **chosen)(0.7, -0.4, *state)
    as_values = kind.rule(t, **chosen)(Value(0.7), Value(-0.4), *map(Value, state))
    traced = kind.rule(Value(t), **{**chosen, "lr": Value(chosen["lr"])})(Value(0.7), Value(-0.4), *map(Value, state))
    assert len(expected) == 1 + len(state)
    assert [z.data for z in as_values] == pytest.approx(list(expected), rel=1e-13)
    assert [z.data for z in traced] == pytest.approx(list(expected), rel=1e-13)
    assert traced[0].requires_grad


def test_nan_in_the_largest_square_stays_as_everywhere_else():
    assert math.isnan(after(Adam, [1.0, math.nan, 1.0], amsgrad=True))
    optimizer = RMSprop([v := Value(1.0)], centered=True)
    for g in math.nan, 1.0:
        v.data, v.grad = 1.0, g
        optimizer.step()
        assert math.isnan(v.data)


def test_infinite_gradients_are_numbers_to_a_rule():
    assert after(SGD, [math.inf]) == -math.inf
    assert math.isnan(after(Adam, [math.inf]))


def test_a_division_by_0_is_pythons_error_and_changes_nothing():
    v = Value(1.0)
    optimizer = Adam([v], eps=0.0)
    with pytest.raises(ZeroDivisionError) as caught:
        optimizer.step()
    assert "in step 1 of Adam(" in caught.value.__notes__[0]
    assert v.data == 1.0 and optimizer.state_dict()["state"] == {}


# ── Options ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("wrong", [-0.1, -math.inf, math.nan])
def test_a_negative_or_nan_option_is_refused_by_its_name(kind, wrong):
    for name in {"lr", "momentum", "weight_decay", "eps", "alpha", "lr_decay", "initial_accumulator_value"} & {
        *kind.options
    }:
        with pytest.raises(ValueError, match=f"^{name}: expected a number that is at least 0, got"):
            kind([Value(1.0)], **{name: wrong})


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("wrong", ["0.1", None, [0.1], 1j, {}])
def test_an_option_of_another_type_is_a_type_error_with_its_name(kind, wrong):
    for name in kind.options.keys() - {"betas"}:
        with pytest.raises(TypeError, match=f"^{name}: expected (a real number|True or False)"):
            kind([Value(1.0)], **{name: wrong})


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("wrong", [2, 0.5, math.nan])
def test_a_flag_is_true_or_false(kind, wrong):
    for name in {"nesterov", "maximize", "amsgrad", "centered"} & {*kind.options}:
        with pytest.raises(TypeError, match=f"^{name}: expected True or False, got"):
            kind([Value(1.0)], **{name: wrong})


def test_dampening_may_be_any_number_but_nan():
    assert SGD([Value(1.0)], dampening=-2.0).defaults["dampening"] == -2.0
    with pytest.raises(ValueError, match="dampening: expected a number that is not NaN"):
        SGD([Value(1.0)], dampening=math.nan)


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("betas, message", [
    ((1.0, 0.9), r"betas\[0\]: expected a number that is at least 0 and below 1, got 1.0"),
    ((0.9, 1.5), r"betas\[1\]: expected a number that is at least 0 and below 1, got 1.5"),
    ((0.9, -0.1), r"betas\[1\]: expected"),
    ((math.nan, 0.9), r"betas\[0\]: expected"),
    ((0.9,), "betas: expected two numbers"),
    ((0.9, 0.9, 0.9), "betas: expected two numbers"),
    (0.9, "betas: expected two numbers"),
    ("ab", "betas: expected two numbers"),
])  # fmt: skip
def test_betas_are_two_numbers_below_1(kind, betas, message):
    with pytest.raises(ValueError, match=message):
        kind([Value(1.0)], betas=betas)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "dampening": 0.1}])
def test_nesterov_needs_a_momentum_and_no_dampening_in_every_group(options):
    with pytest.raises(ValueError, match="nesterov: expected a momentum above 0 and a dampening of 0"):
        SGD([Value(1.0)], nesterov=True, **options)
    optimizer = SGD([Value(1.0)], momentum=0.9)
    with pytest.raises(ValueError, match=r"param_groups\[1\]: nesterov: expected"):
        optimizer.add_param_group({"params": [Value(1.0)], "momentum": 0.0, **options, "nesterov": True})


@pytest.mark.parametrize("kind", ALL)
def test_a_rate_of_0_changes_no_number(kind):
    assert after(kind, [1.0, -3.0], lr=0.0) == 1.0
