"""Each scheduler against its closed form, what it saves, and what it refuses."""

import copy
import json
import math

import pytest

from milligrad import Value
from milligrad.optim import SGD, Adagrad, Adam
from milligrad.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    Scheduler,
    StepLR,
)


def two_groups(kind=SGD, **options):
    return kind([{"params": [Value(1.0)], "lr": 0.5}, {"params": [Value(2.0)], "lr": 0.02}], **options)


def one_group(kind=SGD, lr=1.0, **options):
    return kind([Value(1.0)], lr=lr, **options)


def rates(scheduler, epochs):
    """The rate of the first group in epoch 0, 1, … up to `epochs`."""
    sequence = [scheduler.get_last_lr()[0]]
    for _ in range(epochs):
        scheduler.step()
        sequence.append(scheduler.get_last_lr()[0])
        assert scheduler.optimizer.param_groups[0]["lr"] == sequence[-1]
    return sequence


EVERY = [
    (LambdaLR, {"lr_lambda": lambda e: 0.9**e}),
    (StepLR, {"step_size": 3}),
    (MultiStepLR, {"milestones": [2, 4, 4]}),
    (ExponentialLR, {"gamma": 0.9}),
    (LinearLR, {"total_iters": 9}),
    (CosineAnnealingLR, {"T_max": 6}),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 20}),
    (OneCycleLR, {"max_lr": [1.0, 0.1], "total_steps": 20, "three_phase": True, "anneal_strategy": "linear"}),
]


# ── Closed forms ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_step_lr_decays_at_multiples():
    assert rates(StepLR(one_group(), 3, gamma=0.5), 9) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


def test_multi_step_lr_decays_at_milestones_in_any_order_as_often_as_they_are_listed():
    assert rates(MultiStepLR(one_group(), [4, 2, 4], gamma=0.5), 5) == [1, 1, 0.5, 0.5, 0.125, 0.125]
    assert rates(MultiStepLR(one_group(), range(1, 3), gamma=0.5), 3) == [1, 0.5, 0.25, 0.25]


def test_exponential_lr_decays_always():
    assert rates(ExponentialLR(one_group(), 0.5), 3) == [1, 0.5, 0.25, 0.125]


def test_lambda_lr_is_the_base_times_the_function():
    assert rates(LambdaLR(one_group(lr=2.0), lambda e: e % 3), 4) == [0, 2, 4, 0, 2]


def test_linear_lr_is_a_straight_line_that_stays_at_its_end():
    expected = [0.25, 0.4, 0.55, 0.7, 0.85, 1.0, 1.0, 1.0]
    assert rates(LinearLR(one_group(), start_factor=0.25), 7) == pytest.approx(expected)
    assert rates(LinearLR(one_group(), start_factor=1.0, end_factor=0.0, total_iters=2), 4) == [1, 0.5, 0, 0, 0]


@pytest.mark.parametrize("n", [1, 2, 3, 10, 60])
def test_cosine_annealing_goes_down_and_up_again(n):
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * e / n)) / 2 for e in range(151)]
    assert rates(CosineAnnealingLR(one_group(), n, eta_min=0.1), 150) == pytest.approx(expected, rel=1e-11)


def test_one_cycle_goes_up_and_down_and_the_momentum_the_other_way():
    optimizer = one_group(momentum=0.5)
    scheduler = OneCycleLR(
        optimizer, 10.0, 10, pct_start=0.5, anneal_strategy="linear", div_factor=10, final_div_factor=10
    )
    seen = [(optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"])]
    for _ in range(9):
        scheduler.step()
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
    up = [(1 + 9 * i / 4, 0.95 - 0.1 * i / 4) for i in range(5)]
    down = [(10 - 9.9 * i / 5, 0.85 + 0.1 * i / 5) for i in range(1, 6)]
    assert seen == [(pytest.approx(lr), pytest.approx(m)) for lr, m in up + down]


def test_one_cycle_moves_the_first_beta_of_adam_and_leaves_the_second():
    optimizer = one_group(Adam, betas=(0.5, 0.7))
    scheduler = OneCycleLR(optimizer, 1.0, 10)
    assert optimizer.param_groups[0]["betas"] == (0.95, 0.7)
    rates(scheduler, 2)
    assert optimizer.param_groups[0]["betas"] == (pytest.approx(0.85), 0.7)


def test_one_cycle_without_momentum_leaves_it_alone():
    optimizer = one_group(momentum=0.5)
    rates(OneCycleLR(optimizer, 1.0, 10, cycle_momentum=False), 5)
    assert optimizer.param_groups[0]["momentum"] == 0.5
    OneCycleLR(one_group(Adagrad), 1.0, 10, cycle_momentum=False)


def test_a_phase_of_one_step_is_over_at_once():
    """pct_start · total_steps = 1, where the first phase begins and ends in step 0."""
    scheduler = OneCycleLR(one_group(), 1.0, 10, pct_start=0.1, anneal_strategy="linear")
    assert rates(scheduler, 9) == pytest.approx([1 - i / 9 * (1 - 1 / 25e4) for i in range(10)])
    assert rates(OneCycleLR(one_group(), 1.0, 5, pct_start=1.0), 5)[4:] == pytest.approx([1.0, 1 / 25e4])


def test_a_plateau_waits_reduces_and_cools_down():
    optimizer = one_group()
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=1, cooldown=2, min_lr=0.2)
    seen = []
    for metric in [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.49999, 0.5]:
        scheduler.step(metric)
        seen.append(scheduler.get_last_lr()[0])
    assert seen == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.2]
    assert scheduler.best == 0.5 and scheduler.last_epoch == 11
    for _ in range(4):
        scheduler.step(Value(1.0))
    assert scheduler.get_last_lr() == [0.2]


@pytest.mark.parametrize("mode, sign", [("min", -1), ("max", 1)])
@pytest.mark.parametrize("best", [-100.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 100.0, math.inf, -math.inf])
@pytest.mark.parametrize("threshold", [0.1, 0.0, 1.0])
def test_relative_to_the_best_is_by_a_share_of_its_size_whatever_its_sign(mode, sign, best, threshold):
    scheduler = ReduceLROnPlateau(one_group(), mode=mode, threshold=threshold)
    scheduler.best = best
    if math.isinf(best):
        assert [scheduler.is_better(x) for x in (-1e9, 0.0, 1e9)] == [sign * best < 0] * 3
    else:
        least = threshold * abs(best)  # by how much it must be better
        steps = [-2.0, -1.0, -0.1, 0.0, 0.5, 0.99, 1.01, 2.0]
        assert [scheduler.is_better(best + sign * least * s) for s in steps] == [s > 1 and least > 0 for s in steps]
        assert not scheduler.is_better(best) and scheduler.is_better(best + sign * (least + 1e-3))
    assert not scheduler.is_better(math.nan)


@pytest.mark.parametrize("start", [-1.0, 1.0])
def test_a_metric_that_becomes_worse_reduces_the_rate_whatever_its_sign(start):
    scheduler = ReduceLROnPlateau(one_group(), patience=2, factor=0.5)
    for i in range(4):
        scheduler.step(start + 1e-5 * i)
    assert scheduler.get_last_lr() == [0.5] and scheduler.best == start


# ── What all share ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind, arguments", EVERY)
def test_a_saved_scheduler_goes_on_to_the_bit_also_through_json(kind, arguments):
    optimizer = two_groups(momentum=0.9)
    scheduler = kind(optimizer, **arguments)
    rates(scheduler, 5)
    saved, groups = json.loads(json.dumps([scheduler.state_dict(), optimizer.state_dict()]))
    again = two_groups(momentum=0.9)
    resumed = kind(again, **arguments)
    resumed.load_state_dict(saved)
    again.load_state_dict(groups)
    assert resumed.get_last_lr() == scheduler.get_last_lr() and resumed.state_dict() == scheduler.state_dict()
    assert rates(resumed, 14) == rates(scheduler, 14)
    assert again.state_dict() == optimizer.state_dict()


TOGETHER = [*[[one] for one in EVERY], [EVERY[4], EVERY[1]], [EVERY[6], EVERY[3]], [EVERY[0], EVERY[5], EVERY[4]]]


@pytest.mark.parametrize("kinds", TOGETHER, ids=lambda kinds: " ".join(kind.__name__ for kind, _ in kinds))
@pytest.mark.parametrize("by_hand", [False, True])
def test_nothing_of_a_loaded_optimizer_is_lost_in_whichever_order_things_are_made_and_loaded(kinds, by_hand):
    optimizer = two_groups(momentum=0.9)
    schedulers = [kind(optimizer, **arguments) for kind, arguments in kinds]
    for scheduler in schedulers * 4:
        scheduler.step()
    if by_hand:
        optimizer.param_groups[0]["lr"] = 0.123
    saved, groups = [scheduler.state_dict() for scheduler in schedulers], optimizer.state_dict()
    runs = []
    for order in (
        "make load both",
        "make load reversed both",
        "load make both",
        "load make reversed both",
        "make both load",
    ):
        again, made = two_groups(momentum=0.5), []
        for word in order.split():
            if word == "load":
                again.load_state_dict(groups)
            elif word == "make":
                made = [kind(again, **arguments) for kind, arguments in kinds]
            elif word == "both":
                pairs = list(zip(made, saved))
                for scheduler, state in pairs[::-1] if "reversed" in order else pairs:
                    scheduler.load_state_dict(state)
        assert again.state_dict() == optimizer.state_dict(), order
        runs.append((made, again))
    for _ in range(5):
        for scheduler in [s for made, _ in [(schedulers, optimizer), *runs] for s in made]:
            scheduler.step()
        assert all(again.state_dict() == optimizer.state_dict() for _, again in runs)


def test_a_new_scheduler_for_a_loaded_optimizer_starts_afresh_and_is_loaded_later_without_a_change_of_rate():
    optimizer = one_group(lr=0.5)
    optimizer.load_state_dict(optimizer.state_dict())
    scheduler = LinearLR(optimizer, start_factor=0.5, total_iters=4)
    assert optimizer.param_groups[0]["lr"] == 0.25
    scheduler.step()
    state = scheduler.state_dict()
    scheduler.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.3125


def test_a_saved_plateau_goes_on_also_through_json():
    schedulers = [ReduceLROnPlateau(one_group(), patience=2, factor=0.5) for _ in range(2)]
    schedulers[1].load_state_dict(json.loads(json.dumps(schedulers[0].state_dict())))  # best is inf
    for metric in [1.0, 0.9, 0.95]:
        schedulers[0].step(metric)
    schedulers[1].load_state_dict(json.loads(json.dumps(schedulers[0].state_dict())))
    for scheduler in schedulers:
        for _ in range(2):
            scheduler.step(0.95)
        assert scheduler.get_last_lr() == [0.5]


def test_a_state_dict_holds_no_function_and_no_optimizer():
    state = LambdaLR(two_groups(), [lambda e: 1.0, lambda e: 2.0]).state_dict()
    assert state == {"last_epoch": 0, "base_lrs": [0.5, 0.02], "_last_lr": [0.5, 0.04]}


@pytest.mark.parametrize("kind, arguments", EVERY)
@pytest.mark.parametrize("change", [
    lambda s: s.pop("last_epoch"),
    lambda s: s.update(epoch=3),
    lambda s: s.update(last_epoch="3"),
    lambda s: s.update(last_epoch=True),
    lambda s: s.update(base_lrs=[0.1]),
    lambda s: s.update(base_lrs=[0.1, "a"]),
    lambda s: s.update(_last_lr=0.1),
])  # fmt: skip
def test_a_state_dict_that_does_not_fit_is_refused_and_changes_nothing(kind, arguments, change):
    scheduler = kind(two_groups(), **arguments)
    wrong = copy.deepcopy(scheduler.state_dict())
    scheduler.step()
    before = scheduler.state_dict()
    change(wrong)
    with pytest.raises((ValueError, TypeError), match=r"^state_dict.*: expected"):
        scheduler.load_state_dict(wrong)
    assert scheduler.state_dict() == before


@pytest.mark.parametrize("kind, arguments, others", [
    (StepLR, {"step_size": 3}, {"step_size": 30}),
    (MultiStepLR, {"milestones": [3]}, {"milestones": [3, 4]}),
    (ExponentialLR, {"gamma": 0.9}, {"gamma": 0.8}),
    (LinearLR, {"total_iters": 5}, {"total_iters": 6}),
    (LinearLR, {"start_factor": 0.5}, {"start_factor": 0.25}),
    (CosineAnnealingLR, {"T_max": 6}, {"T_max": 5}),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 20}, {"max_lr": 1.0, "total_steps": 20, "anneal_strategy": "linear"}),
    (ReduceLROnPlateau, {}, {"mode": "max"}),
    (ReduceLROnPlateau, {}, {"min_lr": 0.1}),
])  # fmt: skip
def test_the_progress_of_a_scheduler_with_other_arguments_is_refused(kind, arguments, others):
    scheduler, other = kind(two_groups(momentum=0.9), **arguments), kind(two_groups(momentum=0.9), **others)
    before = scheduler.state_dict()
    with pytest.raises(ValueError, match=r"^state_dict\['\w+'\]: expected .*, with which this scheduler was made, got"):
        scheduler.load_state_dict(other.state_dict())
    assert scheduler.state_dict() == before


@pytest.mark.parametrize("name, wrong", [
    ("total_iters", 2.5), ("start_factor", -9), ("last_epoch", 2.5), ("last_epoch", -1), ("base_lrs", 0.1),
])  # fmt: skip
def test_what_no_scheduler_can_have_saved_is_refused(name, wrong):
    scheduler = LinearLR(one_group())
    before = scheduler.state_dict()
    with pytest.raises(ValueError, match=rf"^state_dict\['{name}'\]: expected .*, got {wrong}"):
        scheduler.load_state_dict({**before, name: wrong})
    assert scheduler.state_dict() == before


@pytest.mark.parametrize("name, wrong, error", [
    ("best", "low", ValueError), ("num_bad_epochs", -1, ValueError), ("cooldown_counter", 0.5, ValueError),
])  # fmt: skip
def test_the_progress_of_a_plateau_is_a_number_and_counts(name, wrong, error):
    scheduler = ReduceLROnPlateau(one_group())
    before = scheduler.state_dict()
    with pytest.raises(error, match=rf"^state_dict\['{name}'\]: expected"):
        scheduler.load_state_dict({**before, name: wrong})
    assert scheduler.state_dict() == before


def test_a_plateau_is_a_scheduler_but_not_one_that_knows_the_rate_of_an_epoch():
    scheduler = ReduceLROnPlateau(one_group())
    assert isinstance(scheduler, Scheduler) and not isinstance(scheduler, LRScheduler)
    assert not hasattr(scheduler, "get_lr")


def test_no_dict_is_no_state_dict():
    with pytest.raises(ValueError, match=r"state_dict: expected a dict of step_size, gamma, .*, got NoneType"):
        StepLR(one_group(), 3).load_state_dict(None)


def test_what_is_saved_and_told_is_a_copy():
    scheduler = MultiStepLR(one_group(), [3])
    scheduler.get_last_lr()[0] = 9.0
    scheduler.state_dict()["base_lrs"][0] = 9.0
    scheduler.state_dict()["milestones"].append(1)
    state = scheduler.state_dict()
    scheduler.load_state_dict(state)
    state["milestones"].append(1)
    assert rates(scheduler, 2) == [1, 1, 1] and scheduler.base_lrs == [1]


def test_two_schedulers_on_one_optimizer_multiply():
    optimizer = one_group()
    first, second = ExponentialLR(optimizer, 0.5), StepLR(optimizer, 2, gamma=0.5)
    seen = []
    for _ in range(4):
        first.step()
        second.step()
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == [1 / 2, 1 / 8, 1 / 16, 1 / 64] and second.base_lrs == [1.0]


def test_a_scheduler_of_ones_own_says_the_rates():
    class Sawtooth(LRScheduler):
        def get_lr(self):
            return [base_lr / (1 + self.last_epoch % 2) for base_lr in self.base_lrs]

    assert rates(Sawtooth(one_group()), 3) == [1, 0.5, 1, 0.5]
    with pytest.raises(NotImplementedError):
        LRScheduler(one_group())


def test_repr_shows_what_it_does_and_where_it_is():
    scheduler = StepLR(one_group(lr=0.1), 30, gamma=0.5)
    rates(scheduler, 4)
    assert repr(scheduler) == "StepLR(step_size=30, gamma=0.5, last_epoch=4, base_lrs=[0.1])"


# ── Going on after an epoch ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind, arguments", EVERY)
def test_going_on_needs_the_initial_lr_in_every_group(kind, arguments):
    optimizer = two_groups()
    optimizer.param_groups[0].update(initial_lr=0.5, max_lr=1.0, min_lr=0.1, base_momentum=0.1, max_momentum=0.2)
    before = repr(optimizer)
    with pytest.raises(KeyError, match=r"param_groups\[1\]: expected .*initial_lr.* with last_epoch=3: load"):
        kind(optimizer, **arguments, last_epoch=3)
    assert repr(optimizer) == before


def test_going_on_uses_the_initial_lr():
    optimizer = one_group(lr=0.3)
    optimizer.param_groups[0]["initial_lr"] = 2.0
    scheduler = LambdaLR(optimizer, lambda e: e, last_epoch=4)
    assert (scheduler.last_epoch, scheduler.get_last_lr()) == (5, [10.0])


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────────────────────

NAN = math.nan


@pytest.mark.parametrize("kind, arguments, error, message", [
    (StepLR, {"step_size": 0}, ValueError, "step_size: expected a whole number that is at least 1, got 0"),
    (StepLR, {"step_size": 2.0}, ValueError, "step_size: expected a whole number"),
    (StepLR, {"step_size": True}, ValueError, "step_size: expected a whole number"),
    (StepLR, {"step_size": 3, "gamma": NAN}, ValueError, "gamma: expected a number that is not NaN"),
    (StepLR, {"step_size": 3, "gamma": "0.1"}, TypeError, "gamma: expected a real number"),
    (StepLR, {"step_size": 3, "last_epoch": -2}, ValueError, "last_epoch: expected a whole number that is at least -1"),
    (StepLR, {"step_size": 3, "last_epoch": None}, ValueError, "last_epoch: expected a whole number"),
    (MultiStepLR, {"milestones": 3}, TypeError, "milestones: expected a list of epochs, got 3"),
    (MultiStepLR, {"milestones": "3"}, TypeError, "milestones: expected a list of epochs, got '3'"),
    (MultiStepLR, {"milestones": [1, -1]}, ValueError, r"milestones\[1\]: expected a whole number that is at least 0"),
    (MultiStepLR, {"milestones": [1.5]}, ValueError, r"milestones\[0\]: expected a whole number"),
    (ExponentialLR, {"gamma": NAN}, ValueError, "gamma: expected"),
    (LinearLR, {"start_factor": 0.0}, ValueError, "start_factor: expected a number above 0 and at most 1, got 0.0"),
    (LinearLR, {"start_factor": 1.1}, ValueError, "start_factor: expected"),
    (LinearLR, {"start_factor": NAN}, ValueError, "start_factor: expected"),
    (LinearLR, {"end_factor": -0.1}, ValueError, "end_factor: expected a number from 0 to 1, got -0.1"),
    (LinearLR, {"end_factor": 1.1}, ValueError, "end_factor: expected"),
    (LinearLR, {"end_factor": None}, TypeError, "end_factor: expected"),
    (LinearLR, {"total_iters": 0}, ValueError, "total_iters: expected a whole number that is at least 1"),
    (CosineAnnealingLR, {"T_max": 0}, ValueError, "T_max: expected a whole number that is at least 1"),
    (CosineAnnealingLR, {"T_max": 3, "eta_min": NAN}, ValueError, "eta_min: expected"),
    (LambdaLR, {"lr_lambda": 0.9}, TypeError, "lr_lambda: expected a function of the epoch, got float 0.9"),
    (LambdaLR, {"lr_lambda": [lambda e: 1.0]}, ValueError, "lr_lambda: expected one for each of the 2 groups, got 1"),
    (LambdaLR, {"lr_lambda": [lambda e: 1.0, 3]}, TypeError, r"lr_lambda\[1\]: expected a function"),
    (LambdaLR, {"lr_lambda": lambda e: "a"}, TypeError, r"lr_lambda\(0\): expected a real number"),
    (OneCycleLR, {"max_lr": 1.0}, ValueError, "total_steps: expected it, or both epochs and steps_per_epoch"),
    (OneCycleLR, {"max_lr": 1.0, "epochs": 3}, ValueError, "total_steps: expected it, or both"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 0}, ValueError, "total_steps: expected a whole number"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 2.5}, ValueError, "total_steps: expected a whole number"),
    (OneCycleLR, {"max_lr": 1.0, "epochs": 0, "steps_per_epoch": 3}, ValueError, "epochs: expected a whole number"),
    (OneCycleLR, {"max_lr": 1.0, "epochs": 3, "steps_per_epoch": -1}, ValueError, "steps_per_epoch: expected"),
    (OneCycleLR, {"max_lr": -1.0, "total_steps": 9}, ValueError, "max_lr: expected a number that is at least 0"),
    (OneCycleLR, {"max_lr": [1.0], "total_steps": 9}, ValueError, "max_lr: expected one for each of the 2 groups"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 9, "pct_start": 1.1}, ValueError, "pct_start: expected a number from"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 9, "pct_start": NAN}, ValueError, "pct_start: expected"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 9, "anneal_strategy": "exp"}, ValueError,
     "anneal_strategy: expected 'cos' or 'linear', got 'exp'"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 9, "div_factor": 0}, ValueError, "^div_factor: expected"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 9, "final_div_factor": NAN}, ValueError, "^final_div_factor: expected"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 9, "three_phase": 2}, TypeError, "three_phase: expected True or False"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 9, "cycle_momentum": "no"}, TypeError, "cycle_momentum: expected True"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 9, "max_momentum": [0.9]}, ValueError, "max_momentum: expected one"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 9, "base_momentum": -1}, ValueError, "base_momentum: expected"),
    (ReduceLROnPlateau, {"mode": "mean"}, ValueError, "mode: expected 'min' or 'max', got 'mean'"),
    (ReduceLROnPlateau, {"threshold_mode": None}, ValueError, "threshold_mode: expected 'rel' or 'abs', got None"),
    (ReduceLROnPlateau, {"factor": 1.0}, ValueError, "factor: expected a number that is at least 0 and below 1"),
    (ReduceLROnPlateau, {"factor": NAN}, ValueError, "factor: expected"),
    (ReduceLROnPlateau, {"patience": -1}, ValueError, "patience: expected a whole number that is at least 0"),
    (ReduceLROnPlateau, {"cooldown": 0.5}, ValueError, "cooldown: expected a whole number"),
    (ReduceLROnPlateau, {"threshold": NAN}, ValueError, "threshold: expected"),
    (ReduceLROnPlateau, {"min_lr": [0.1]}, ValueError, "min_lr: expected one for each of the 2 groups, got 1"),
    (ReduceLROnPlateau, {"min_lr": [0.1, -1]}, ValueError, r"min_lr\[1\]: expected a number that is at least 0"),
    (ReduceLROnPlateau, {"eps": -1}, ValueError, "eps: expected"),
])  # fmt: skip
def test_a_wrong_argument_is_refused_by_its_name_and_changes_nothing(kind, arguments, error, message):
    optimizer = two_groups()
    before = repr(optimizer)
    with pytest.raises(error, match=message):
        kind(optimizer, **arguments)
    assert repr(optimizer) == before


@pytest.mark.parametrize("kind, arguments", [*EVERY, (ReduceLROnPlateau, {})])
def test_a_scheduler_is_of_an_optimizer(kind, arguments):
    for wrong in None, [Value(1.0)], SGD:
        with pytest.raises(TypeError, match="optimizer: expected an Optimizer, got"):
            kind(wrong, **arguments)


def test_one_cycle_needs_a_momentum_that_fits():
    with pytest.raises(ValueError, match="cycle_momentum: expected an optimizer with momentum or betas, got Adagrad"):
        OneCycleLR(one_group(Adagrad), 1.0, 10)
    with pytest.raises(ValueError, match="max_momentum: expected a number that is at least 0 and below 1"):
        OneCycleLR(one_group(Adam), 1.0, 10, max_momentum=1.0)


def test_a_cycle_that_is_over_refuses_to_go_on_and_changes_nothing():
    optimizer = two_groups(momentum=0.9)
    scheduler = OneCycleLR(optimizer, 1.0, 5)
    rates(scheduler, 5)
    before = scheduler.state_dict(), repr(optimizer)
    for _ in range(2):
        with pytest.raises(ValueError, match="step: expected at most 5 steps, as total_steps says"):
            scheduler.step()
    assert (scheduler.state_dict(), repr(optimizer)) == before


def test_a_function_that_fails_changes_nothing():
    optimizer = two_groups()
    scheduler = LambdaLR(optimizer, [lambda e: 1.0, lambda e: 1 / (2 - e)])
    scheduler.step()
    before = scheduler.state_dict(), repr(optimizer)
    with pytest.raises(ZeroDivisionError):
        scheduler.step()
    assert (scheduler.state_dict(), repr(optimizer)) == before


@pytest.mark.parametrize("wrong", ["0.1", None, [1.0]])
def test_a_metric_is_a_number(wrong):
    scheduler = ReduceLROnPlateau(one_group())
    with pytest.raises(TypeError, match="metrics: expected a real number"):
        scheduler.step(wrong)
    assert scheduler.last_epoch == 0


def test_a_plateau_with_bounds_for_each_group_needs_one_for_a_group_that_joins():
    optimizer = two_groups()
    scheduler = ReduceLROnPlateau(optimizer, min_lr=[0.1, 0.01])
    optimizer.add_param_group({"params": [Value(3.0)]})
    with pytest.raises(RuntimeError, match="min_lrs: expected one for each group, but 1 groups were added"):
        scheduler.step(1.0)
    scheduler.min_lrs.append(0.5)
    scheduler.step(1.0)
    assert scheduler.last_epoch == 1


@pytest.mark.parametrize("make", [lambda o: LambdaLR(o, lambda e: 0.5), lambda o: CosineAnnealingLR(o, 2)])
def test_a_group_added_after_the_scheduler_is_named_when_its_base_lr_is_missed(make):
    optimizer = one_group()
    scheduler = make(optimizer)
    optimizer.add_param_group({"params": [Value(2.0)]})
    with pytest.raises(RuntimeError, match="the optimizer has 2 groups, but the scheduler was made for 1"):
        for _ in range(3):
            scheduler.step()
