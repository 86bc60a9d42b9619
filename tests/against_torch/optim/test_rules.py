"""Each optimizer against torch.optim, in float64, over 50 steps of gradients that depend on the parameters."""

import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import Value
from milligrad.nested import elementwise, flatten, shape, unflatten
from milligrad.optim import SGD, Adagrad, Adam, AdamW, RMSprop

torch.set_num_threads(1)

SHAPES = [(3, 2), (4,), (), (2, 1, 2)]
NOT_OURS = {"foreach", "differentiable", "fused", "capturable", "decoupled_weight_decay"}

CASES = [
    *[(SGD, options) for options in (
        {},
        {"lr": 0.1},
        {"lr": 0.0},
        {"lr": 0.1, "weight_decay": 0.2},
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.3},
        {"lr": 0.1, "momentum": 0.9, "dampening": 1.0},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "maximize": True},
        {"lr": 0.01, "maximize": True},
        {"lr": 0.01, "momentum": 0.5, "dampening": 0.5, "weight_decay": 0.1, "maximize": True},
        {"lr": 0.01, "momentum": 1.1},
    )],
    *[(kind, options) for kind in (Adam, AdamW) for options in (
        {},
        {"lr": 0.1},
        {"lr": 0.1, "amsgrad": True},
        {"lr": 0.1, "weight_decay": 0.0},
        {"lr": 0.1, "weight_decay": 0.3},
        {"lr": 0.1, "maximize": True, "weight_decay": 0.3},
        {"lr": 0.1, "betas": (0.0, 0.0)},
        {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3, "amsgrad": True, "weight_decay": 0.1, "maximize": True},
    )],
    *[(RMSprop, options) for options in (
        {},
        {"lr": 0.1, "alpha": 0.9},
        {"lr": 0.1, "alpha": 1.0, "eps": 0.1},
        {"momentum": 0.9},
        {"centered": True},
        {"centered": True, "momentum": 0.5, "weight_decay": 0.1, "maximize": True, "eps": 1e-4, "alpha": 0.8},
        {"weight_decay": 0.1},
        {"maximize": True},
    )],
    *[(Adagrad, options) for options in (
        {},
        {"lr": 0.5},
        {"lr": 0.5, "lr_decay": 0.1},
        {"lr": 0.5, "weight_decay": 0.1, "initial_accumulator_value": 0.3, "eps": 1e-3},
        {"lr": 0.5, "maximize": True},
    )],
]  # fmt: skip


def start(seed=0, shapes=SHAPES):
    """The same parameters for both, as nested lists of Values and as tensors."""
    rng = random.Random(seed)
    numbers = [unflatten((rng.gauss(0, 1) for _ in iter(int, 1)), s) for s in shapes]
    ours = [elementwise(Value, n) for n in numbers]
    theirs = [torch.tensor(n, dtype=torch.float64, requires_grad=True) for n in numbers]
    return ours, theirs


def give_gradients(ours, theirs, rng):
    """g = 0.5·(p - c) with c random, and one zero in each parameter now and then."""
    for p, tensor in zip(ours, theirs):
        values = flatten(p)
        offsets = [rng.gauss(0, 1) for _ in values]
        keep = [rng.random() > 0.2 for _ in values]
        for v, c, k in zip(values, offsets, keep):
            v.grad = k * 0.5 * (v.data - c)
        c, k = torch.tensor(offsets, dtype=torch.float64), torch.tensor(keep, dtype=torch.float64)
        tensor.grad = (k.reshape(tensor.shape) * 0.5 * (tensor.detach() - c.reshape(tensor.shape))).clone()


def assert_equal(ours, theirs):
    actual = torch.tensor([v.data for p in ours for v in flatten(p)], dtype=torch.float64)
    expected = torch.cat([tensor.detach().flatten() for tensor in theirs])
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)


def run(kind, options, steps=50, seed=0):
    ours, theirs = start(seed)
    optimizer, reference = kind(ours, **options), getattr(torch.optim, kind.__name__)(theirs, **options)
    rng = random.Random(seed + 1)
    for _ in range(steps):
        give_gradients(ours, theirs, rng)
        optimizer.step()
        reference.step()
        assert_equal(ours, theirs)
    return optimizer, reference


def as_list(x):
    return x.tolist() if isinstance(x, torch.Tensor) else x


def assert_same_state(optimizer, reference):
    """Names, nesting and numbers of the state are PyTorch's. SGD's has no step there: it counts it here."""
    ours, theirs = optimizer.state_dict(), reference.state_dict()
    assert ours["state"].keys() == theirs["state"].keys()
    for i, state in theirs["state"].items():
        expected = {name: as_list(x) for name, x in state.items() if x is not None}
        actual = dict(ours["state"][i])
        if isinstance(optimizer, SGD):
            del actual["step"]
        assert actual.keys() == expected.keys()
        for name in expected:
            assert shape(actual[name]) == shape(expected[name])
            assert flatten(actual[name]) == pytest.approx(flatten(expected[name]), rel=1e-10, abs=1e-12)
    for group, expected in zip(ours["param_groups"], theirs["param_groups"]):
        assert group == {name: x for name, x in expected.items() if name not in NOT_OURS}


@pytest.mark.parametrize("kind, options", CASES)
def test_fifty_steps_equal_those_of_torch_and_so_does_the_state(kind, options):
    optimizer, reference = run(kind, options)
    assert_same_state(optimizer, reference)


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW, RMSprop, Adagrad])
def test_the_defaults_are_those_of_torch(kind):
    ours, theirs = start()
    expected = getattr(torch.optim, kind.__name__)(theirs).defaults
    assert kind(ours).defaults == {name: x for name, x in expected.items() if name not in NOT_OURS}


rates = st.floats(0, 0.5)
fractions = st.floats(0, 0.99)
decays = st.sampled_from([0.0, 0.01, 0.3])
flags = st.booleans()


@settings(max_examples=25, deadline=None)
@given(
    st.builds(dict, lr=rates, momentum=fractions, dampening=fractions, weight_decay=decays, maximize=flags),
    st.integers(0, 99),
)
def test_sgd_of_any_options_equals_that_of_torch(options, seed):
    run(SGD, options, seed=seed)


@settings(max_examples=25, deadline=None)
@given(
    st.builds(dict, lr=rates, momentum=st.floats(0.01, 0.99), weight_decay=decays, maximize=flags), st.integers(0, 99)
)
def test_sgd_with_nesterov_of_any_options_equals_that_of_torch(options, seed):
    run(SGD, {**options, "nesterov": True}, seed=seed)


# β₁² < β₂ bounds the steps (Kingma and Ba, theorem 4.1). Beyond, m / √v has no bound, and 50 steps of gradients that
# depend on p amplify a last digit without end: in torch, too, if its own numbers are moved by one.
@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([Adam, AdamW]),
    st.builds(
        dict,
        lr=rates,
        betas=st.tuples(st.floats(0, 0.9), st.floats(0.82, 0.999)),
        eps=st.floats(1e-8, 0.1),
        weight_decay=decays,
        amsgrad=flags,
        maximize=flags,
    ),
    st.integers(0, 99),
)
def test_adam_and_adamw_of_any_options_equal_those_of_torch(kind, options, seed):
    run(kind, options, seed=seed)


@settings(max_examples=25, deadline=None)
@given(
    st.builds(
        dict,
        lr=rates,
        alpha=st.floats(0.5, 0.99),
        eps=st.floats(1e-6, 0.1),
        weight_decay=decays,
        momentum=fractions,
        centered=flags,
        maximize=flags,
    ),
    st.integers(0, 99),
)
def test_rmsprop_of_any_options_equals_that_of_torch(options, seed):
    run(RMSprop, options, seed=seed)


@settings(max_examples=25, deadline=None)
@given(
    st.builds(
        dict,
        lr=rates,
        lr_decay=st.floats(0, 1),
        weight_decay=decays,
        initial_accumulator_value=st.floats(0, 1),
        eps=st.floats(1e-10, 0.1),
        maximize=flags,
    ),
    st.integers(0, 99),
)
def test_adagrad_of_any_options_equals_that_of_torch(options, seed):
    run(Adagrad, options, seed=seed)


def test_only_zero_gradients_still_move_by_momentum_and_decay_as_in_torch():
    for kind, options in (
        (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
        (Adam, {}),
        (AdamW, {}),
        (RMSprop, {}),
    ):
        ours, theirs = start()
        optimizer, reference = kind(ours, **options), getattr(torch.optim, kind.__name__)(theirs, **options)
        for step in range(20):
            for p, tensor in zip(ours, theirs):
                for v in flatten(p):
                    v.grad = float(step == 0)
                tensor.grad = torch.full_like(tensor, float(step == 0))
            optimizer.step()
            reference.step()
        assert_equal(ours, theirs)


def test_groups_with_their_own_options_and_one_that_joins_later_equal_those_of_torch():
    for kind, first, second in (
        (SGD, {"momentum": 0.9, "dampening": 0.5}, {"lr": 0.3, "momentum": 0.0, "maximize": True}),
        (Adam, {"amsgrad": True}, {"lr": 0.3, "betas": (0.5, 0.5), "weight_decay": 0.1}),
        (RMSprop, {"centered": True}, {"alpha": 0.5, "momentum": 0.5}),
    ):
        ours, theirs = start()
        both = [
            make([{"params": p[:1], **first}, {"params": p[1:2], **second}], lr=0.05)
            for make, p in ((kind, ours), (getattr(torch.optim, kind.__name__), theirs))
        ]
        rng = random.Random(3)
        for step in range(50):
            if step == 20:
                both[0].add_param_group({"params": ours[2:]})
                both[1].add_param_group({"params": theirs[2:]})
            give_gradients(ours, theirs, rng)
            for optimizer in both:
                optimizer.step()
            assert_equal(ours, theirs)
        assert_same_state(*both)


@pytest.mark.parametrize("kind, options", [
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}), (Adam, {"amsgrad": True}), (AdamW, {}),
    (RMSprop, {"momentum": 0.9, "centered": True}), (Adagrad, {"lr_decay": 0.1}),
])  # fmt: skip
def test_a_parameter_that_is_frozen_for_a_while_counts_its_own_steps_as_in_torch(kind, options):
    ours, theirs = start()
    optimizer, reference = kind(ours, **options), getattr(torch.optim, kind.__name__)(theirs, **options)
    rng = random.Random(5)
    for step in range(50):
        give_gradients(ours, theirs, rng)
        frozen = {1} if step < 10 else {0} if step < 20 else set()
        for i, p in enumerate(ours):
            for v in flatten(p):
                v.requires_grad = i not in frozen
        for i in frozen:
            theirs[i].grad = None
        optimizer.step()
        reference.step()
        assert_equal(ours, theirs)
    assert_same_state(optimizer, reference)


def test_a_momentum_that_is_turned_on_later_starts_with_the_gradient_as_in_torch():
    ours, theirs = start()
    optimizer = SGD(ours, lr=0.1, dampening=0.5)
    reference = torch.optim.SGD(theirs, lr=0.1, dampening=0.5)
    rng = random.Random(6)
    for step in range(40):
        for o in optimizer, reference:
            o.param_groups[0]["momentum"] = 0.0 if step < 10 or 20 < step < 25 else 0.9
        give_gradients(ours, theirs, rng)
        optimizer.step()
        reference.step()
        assert_equal(ours, theirs)


@pytest.mark.parametrize("kind, options", [c for c in CASES if c[0] is not SGD])
def test_the_state_of_torch_can_be_loaded_by_us(kind, options):
    ours, theirs = start()
    reference = getattr(torch.optim, kind.__name__)(theirs, **options)
    rng = random.Random(7)
    for _ in range(5):
        give_gradients(ours, theirs, rng)
        reference.step()
    for p, tensor in zip(ours, theirs):
        for v, x in zip(flatten(p), tensor.flatten().tolist()):
            v.data = x
    saved = json.loads(json.dumps(reference.state_dict(), default=as_list))
    optimizer = kind(ours)
    optimizer.load_state_dict(saved)
    for _ in range(5):
        give_gradients(ours, theirs, rng)
        optimizer.step()
        reference.step()
        assert_equal(ours, theirs)


def test_training_a_regression_with_the_closure_equals_that_of_torch():
    xs, ys = [0.5, -1.0, 2.0], [1.0, 0.0, -1.5]
    w, b = Value(0.3), Value(-0.1)
    tw, tb = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.3, -0.1))
    optimizer, reference = Adam([w, b], lr=0.1), torch.optim.Adam([tw, tb], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = sum(((w * x + b).tanh() - y) ** 2 for x, y in zip(xs, ys))
        loss.backward()
        return loss

    def their_closure():
        reference.zero_grad()
        loss = sum(((tw * x + tb).tanh() - y) ** 2 for x, y in zip(xs, ys))
        loss.backward()
        return loss

    for _ in range(50):
        assert optimizer.step(closure).data == pytest.approx(reference.step(their_closure).item(), rel=1e-10)
    assert_equal([w, b], [tw, tb])
