"""Each scheduler's rates against torch.optim.lr_scheduler, over 60 and more epochs."""

import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import Value
from milligrad import optim as ours

torch.set_num_threads(1)

theirs = torch.optim
LR = [0.5, 0.02]


def optimizers(kind="SGD", **options):
    """The same optimizer of two groups, here and there."""
    groups = [{"params": [Value(1.0)], "lr": LR[0]}, {"params": [Value(2.0)], "lr": LR[1]}]
    tensors = [{"params": [torch.tensor(1.0, requires_grad=True)], "lr": lr} for lr in LR]
    return getattr(ours, kind)(groups, **options), getattr(theirs, kind)(tensors, **options)


def pair(schedulers, kind="SGD", **options):
    """(our optimizer, our schedulers), (theirs): `schedulers` is a list of (name, arguments)."""
    mine, other = optimizers(kind, **options)
    return [
        (optimizer, [getattr(package.lr_scheduler, name)(optimizer, **arguments) for name, arguments in schedulers])
        for package, optimizer in ((ours, mine), (theirs, other))
    ]


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def assert_same(a, b):
    """Rates, momenta and what the schedulers say of them."""
    (mine, mine_s), (other, other_s) = a, b
    assert rates(mine) == pytest.approx(rates(other), rel=1e-12, abs=1e-15)
    for g, h in zip(mine.param_groups, other.param_groups):
        for name in "initial_lr", "max_lr", "min_lr", "momentum", "betas", "base_momentum", "max_momentum":
            assert (name in g) == (name in h)
            assert g.get(name, 0.0) == pytest.approx(h.get(name, 0.0), rel=1e-12, abs=1e-15)
    for s, t in zip(mine_s, other_s):
        assert s.get_last_lr() == pytest.approx(t.get_last_lr(), rel=1e-12, abs=1e-15)
        assert s.last_epoch == t.last_epoch


def walk(a, b, epochs=60):
    assert_same(a, b)
    for _ in range(epochs):
        for optimizer, schedulers in a, b:
            optimizer.step()
            for scheduler in schedulers:
                scheduler.step()
        assert_same(a, b)


SCHEDULES = [
    ("StepLR", {"step_size": 7}),
    ("StepLR", {"step_size": 1, "gamma": 0.9}),
    ("StepLR", {"step_size": 100}),
    ("MultiStepLR", {"milestones": [3, 10, 50]}),
    ("MultiStepLR", {"milestones": [20, 3, 3, 0], "gamma": 0.5}),
    ("MultiStepLR", {"milestones": []}),
    ("ExponentialLR", {"gamma": 0.95}),
    ("ExponentialLR", {"gamma": 0.0}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 30}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.1, "total_iters": 1}),
    ("LinearLR", {"start_factor": 0.01, "total_iters": 60}),
    ("CosineAnnealingLR", {"T_max": 60}),
    ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.001}),
    ("CosineAnnealingLR", {"T_max": 1}),
    ("CosineAnnealingLR", {"T_max": 25, "eta_min": 0.1}),
    ("LambdaLR", {"lr_lambda": lambda e: 0.95**e}),
    ("LambdaLR", {"lr_lambda": [lambda e: 1 / (1 + e), lambda e: e % 3]}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 60}),
]


@pytest.mark.parametrize("name, arguments", SCHEDULES)
def test_sixty_epochs_have_the_rates_of_torch(name, arguments):
    walk(*pair([(name, arguments)]))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.floats(0, 0.4))
def test_a_cosine_of_any_length_has_the_rates_of_torch_beyond_its_end(T_max, eta_min):
    walk(*pair([("CosineAnnealingLR", {"T_max": T_max, "eta_min": eta_min})]), epochs=150)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 1), st.floats(0, 1), st.integers(1, 70))
def test_a_line_of_any_factors_has_the_rates_of_torch(start, end, n):
    walk(*pair([("LinearLR", {"start_factor": start, "end_factor": end, "total_iters": n})]), epochs=75)


ONE_CYCLES = [
    {"max_lr": [1.0, 0.1], "total_steps": 61, "anneal_strategy": "linear"},
    {"max_lr": 1.0, "epochs": 6, "steps_per_epoch": 10, "pct_start": 0.5},
    {"max_lr": 1.0, "total_steps": 60, "three_phase": True},
    {"max_lr": 1.0, "total_steps": 60, "three_phase": True, "anneal_strategy": "linear", "pct_start": 0.4},
    {"max_lr": 1.0, "total_steps": 60, "base_momentum": [0.7, 0.6], "max_momentum": 0.9},
    {"max_lr": 1.0, "total_steps": 60, "cycle_momentum": False, "div_factor": 5.0, "final_div_factor": 10.0},
    {"max_lr": 1.0, "total_steps": 60, "pct_start": 0.0},
    {"max_lr": 1.0, "total_steps": 60, "pct_start": 0.98},
    {"max_lr": 1.0, "total_steps": 1},
    {"max_lr": 1.0, "total_steps": 2},
]


@pytest.mark.parametrize("arguments", ONE_CYCLES)
@pytest.mark.parametrize("kind, options", [("SGD", {"momentum": 0.9}), ("Adam", {}), ("RMSprop", {})])
def test_one_cycle_has_the_rates_and_momenta_of_torch_to_its_last_step(kind, options, arguments):
    n = arguments.get("total_steps", 60)
    a, b = pair([("OneCycleLR", arguments)], kind, **options)
    walk(a, b, epochs=n)
    for optimizer, (scheduler,) in a, b:
        optimizer.step()
        with pytest.raises(ValueError):
            scheduler.step()


CHAINS = [
    [("LinearLR", {"start_factor": 0.1, "total_iters": 10}), ("ExponentialLR", {"gamma": 0.9})],
    [("ExponentialLR", {"gamma": 0.9}), ("StepLR", {"step_size": 10})],
    [("CosineAnnealingLR", {"T_max": 20}), ("MultiStepLR", {"milestones": [15, 40], "gamma": 0.5})],
    [("StepLR", {"step_size": 3}), ("LinearLR", {}), ("CosineAnnealingLR", {"T_max": 30, "eta_min": 0.01})],
]


@pytest.mark.parametrize("chain", CHAINS)
def test_schedulers_on_one_optimizer_multiply_as_in_torch(chain):
    walk(*pair(chain))


PLATEAUS = [
    {},
    {"patience": 2, "factor": 0.5},
    {"patience": 0, "factor": 0.5, "cooldown": 3},
    {"patience": 1, "mode": "max", "threshold": 0.01},
    {"patience": 1, "mode": "max", "threshold": 0.05, "threshold_mode": "abs", "cooldown": 1},
    {"patience": 1, "threshold": 0.05, "threshold_mode": "abs", "min_lr": 0.01},
    {"patience": 1, "factor": 0.7, "min_lr": [0.1, 0.001]},
    {"patience": 1, "factor": 0.5, "eps": 0.1},
    {"patience": 3, "threshold": -0.01, "factor": 0.0},
]


def metrics(kind, seed=0):
    rng = random.Random(seed)
    return {
        "falls then stays": [1 / (1 + e) if e < 30 else 0.03 for e in range(90)],
        "noise": [rng.gauss(0, 1) for _ in range(90)],
        "rises": [0.01 * e for e in range(90)],
        "constant": [0.0] * 90,
        "nan and inf": [1.0, float("nan"), float("inf"), 0.5, float("-inf")] * 18,
    }[kind]


@pytest.mark.parametrize("kind", ["falls then stays", "noise", "rises", "constant", "nan and inf"])
@pytest.mark.parametrize("arguments", PLATEAUS)
def test_a_plateau_reduces_the_rates_when_torch_does(arguments, kind):
    a, b = pair([("ReduceLROnPlateau", arguments)])
    for metric in metrics(kind):
        for _, (scheduler,) in a, b:
            scheduler.step(metric)
        assert_same(a, b)
        mine, other = a[1][0], b[1][0]
        for name in "num_bad_epochs", "cooldown_counter", "in_cooldown":
            assert getattr(mine, name) == getattr(other, name)
        assert mine.best == pytest.approx(other.best, nan_ok=True)


def test_a_group_that_joins_gets_the_bound_of_the_others_as_in_torch():
    a, b = pair([("ReduceLROnPlateau", {"patience": 0, "min_lr": 0.01})])
    for x, (optimizer, (scheduler,)) in zip((Value(1.0), torch.tensor(1.0, requires_grad=True)), (a, b)):
        optimizer.add_param_group({"params": [x], "lr": 3.0})
        for _ in range(6):
            scheduler.step(1.0)
    assert_same(a, b)


RESUMABLE = [case for case in SCHEDULES if case[0] != "OneCycleLR"]


@pytest.mark.parametrize("name, arguments", RESUMABLE)
@pytest.mark.parametrize("epoch", [0, 1, 2, 4, 6, 13])
def test_going_on_after_an_epoch_with_a_new_scheduler_has_the_rates_of_torch(name, arguments, epoch):
    """`last_epoch` with the initial_lr in the groups, at every kind of border that the schedules have."""
    mine, other = optimizers()
    for optimizer in mine, other:
        for group, lr in zip(optimizer.param_groups, LR):
            group.update(initial_lr=lr, lr=0.9 * lr)
    a, b = [
        (optimizer, [getattr(package.lr_scheduler, name)(optimizer, **arguments, last_epoch=epoch)])
        for package, optimizer in ((ours, mine), (theirs, other))
    ]
    walk(a, b)


@pytest.mark.parametrize("epoch", [0, 5, 30])
def test_going_on_in_a_cycle_has_the_rates_of_torch(epoch):
    a, b = pair([("OneCycleLR", {"max_lr": 1.0, "total_steps": 60})], momentum=0.9)
    walk(a, b, epochs=epoch)
    resumed = [
        (optimizer, [package.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=60, last_epoch=epoch)])
        for package, (optimizer, _) in ((ours, a), (theirs, b))
    ]
    walk(*resumed, epochs=60 - epoch - 1)


@pytest.mark.parametrize("name, arguments", SCHEDULES)
def test_a_saved_scheduler_goes_on_as_that_of_torch(name, arguments):
    a, b = pair([(name, arguments)])
    walk(a, b, epochs=13)
    c, d = pair([(name, arguments)])
    for (new, (scheduler,)), (old, (before,)) in ((c, a), (d, b)):
        state = before.state_dict()
        scheduler.load_state_dict(json.loads(json.dumps(state)) if old is a[0] else state)
        new.load_state_dict(old.state_dict())
    walk(c, d, epochs=47)
