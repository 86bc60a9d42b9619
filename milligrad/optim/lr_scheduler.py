"""Learning rate schedulers: what the learning rate of an optimizer is in each epoch.

A scheduler writes `group["lr"]` of every parameter group: once when it is made (epoch 0), and in every `step()`,
which belongs after the optimizer's steps of an epoch. Most compute the next rate from the present one, so that
several can act on one optimizer: their factors multiply.

    lr       the present rate of a group
    base_lr  the rate the group had before any scheduler: group["initial_lr"]
    e        the epoch: `last_epoch`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

from milligrad import expected
from milligrad.engine import number
from milligrad.nested import is_list
from milligrad.optim.optimizer import Group, Optimizer, at_least_0, below_1, flag, real
from milligrad.typing import Any, ClassVar


class Scheduler:
    """Whatever changes the learning rates of an optimizer as time goes by: what it shows, and how it is saved.

    progress:   the names of the attributes that its steps change: numbers, and lists of numbers.
    not_saved:  the names of those that `state_dict` leaves out.

    All others are what it was made with. Raises TypeError if `optimizer` is none.
    """

    progress: ClassVar[tuple[str, ...]] = ("last_epoch", "_last_lr")
    not_saved: ClassVar[tuple[str, ...]] = ("optimizer",)

    last_epoch: int
    _last_lr: list[float]

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = _optimizer(optimizer)

    def get_last_lr(self) -> list[float]:
        """The rate of each group that the last step wrote."""
        return list(self._last_lr)

    def _present(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """All of the scheduler but the optimizer, as plain numbers and lists, fit for JSON.

        Save the optimizer's state_dict with it: the groups hold the rates.
        """
        own = {name: x for name, x in self.__dict__.items() if name not in self.not_saved}
        return {name: list(x) if isinstance(x, list) else x for name, x in own.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned: take its progress.

        The scheduler is made with the same arguments as the saved one. Raises ValueError if it was not, or if names
        or numbers do not fit, and then changes nothing. Load the optimizer's state, too, before or after: a
        scheduler that was made for an optimizer already loaded takes back what it wrote to the groups when it was made.
        """
        own = self.state_dict()
        if not isinstance(state_dict, dict) or state_dict.keys() != own.keys():
            got = ", ".join(map(str, state_dict)) if isinstance(state_dict, dict) else type(state_dict).__name__
            raise ValueError(f"state_dict: expected a dict of {', '.join(own)}, got {got}")
        for name in own.keys() - {*self.progress}:
            expected.saved(partial(_check_same, own[name]), state_dict[name], f"state_dict[{name!r}]")
        progress = {
            name: expected.saved(partial(_like, own[name]), state_dict[name], f"state_dict[{name!r}]")
            for name in self.progress
        }
        self.__dict__.update(progress)
        for group, before in zip(self.optimizer.param_groups, self.optimizer.resumed or ()):
            group.update(before)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={x!r}" for name, x in self.state_dict().items() if name[0] != "_")
        return f"{type(self).__name__}({shown})"


class LRScheduler(Scheduler):
    """A scheduler that knows the rates of an epoch. A subclass has `get_lr`, the rate of each group in `last_epoch`.

    last_epoch:  -1 starts afresh. Any other number goes on after that epoch, with groups that have an "initial_lr"
                 (KeyError if one has none), as they have it after `optimizer.load_state_dict`.
    base_lrs:    the base_lr of each group.

    Whatever fails, here or in `step`, changes nothing.
    """

    progress = (*Scheduler.progress, "base_lrs")

    base_lrs: list[float]

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        super().__init__(optimizer)
        self._begin([{} for _ in optimizer.param_groups], last_epoch)

    def _begin(self, settings: list[Group], last_epoch: int) -> None:
        """Write `settings` and the initial_lr to the groups (if afresh), and make the step to the first epoch."""
        self.last_epoch = _whole(last_epoch, "last_epoch", at_least=-1)
        groups = self.optimizer.param_groups
        before = [dict(group) for group in groups]
        if self.optimizer.resumed == []:
            self.optimizer.resumed = [{key: x for key, x in group.items() if key != "params"} for group in groups]
        try:
            for i, (group, new) in enumerate(zip(groups, settings)):
                if last_epoch < 0:
                    group.update({"initial_lr": group.get("initial_lr", group["lr"]), **new})
                elif missing := {"initial_lr", *new} - group.keys():
                    raise KeyError(
                        f"param_groups[{i}]: expected {', '.join(sorted(missing))} with last_epoch={last_epoch}: "
                        "load the optimizer's state_dict first, or start with last_epoch=-1"
                    )
            self.base_lrs = [group["initial_lr"] for group in groups]
            self._advance(self.first_lr)
        except BaseException:
            for group, old in zip(groups, before):
                group.clear()
                group.update(old)
            raise

    def get_lr(self) -> list[float]:
        """The rate of each group in the epoch `last_epoch`, computed from the groups as the epoch before left them."""
        raise NotImplementedError

    def first_lr(self) -> list[float]:
        """The same in the epoch in which the scheduler is made, where no step of its own came before."""
        return self.get_lr()

    def _bases(self) -> list[float]:
        """The base_lrs. RuntimeError if there are more groups now than when the scheduler was made."""
        n, m = len(self.optimizer.param_groups), len(self.base_lrs)
        if n != m:
            raise RuntimeError(f"the optimizer has {n} groups, but the scheduler was made for {m}: make it after them")
        return self.base_lrs

    def changes(self, lrs: list[float]) -> list[Group]:
        """What a step to the rates `lrs` writes to each group."""
        return [{"lr": lr} for lr in lrs]

    def step(self) -> None:
        """Go to the next epoch: write its rates to the optimizer's groups."""
        self._advance(self.get_lr)
        self.optimizer.resumed = None

    def _advance(self, get_lr: Callable[[], list[float]]) -> None:
        self.last_epoch += 1
        try:
            changes = list(zip(self.optimizer.param_groups, self.changes(get_lr()), strict=True))
        except BaseException:
            self.last_epoch -= 1
            raise
        for group, change in changes:
            group.update(change)
        self._last_lr = self._present()


class LambdaLR(LRScheduler):
    """lr = base_lr · f(e), with f = `lr_lambda`: one function, or a list of one for each group.

    `state_dict` leaves the functions out: make the scheduler with them, then load.
    """

    not_saved = ("optimizer", "lr_lambdas")

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | list[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        self.lr_lambdas = _for_each_group(lr_lambda, "lr_lambda", _optimizer(optimizer), _function)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        e = self.last_epoch
        pairs = zip(self._bases(), self.lr_lambdas, strict=True)
        return [base_lr * number(f(e), f"lr_lambda({e})") for base_lr, f in pairs]


class StepLR(LRScheduler):
    """lr ← lr · gamma in every epoch that is a multiple of `step_size`."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = _whole(step_size, "step_size", at_least=1)
        self.gamma = real(gamma, "gamma")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        decays = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return [lr * self.gamma if decays else lr for lr in self._present()]


class MultiStepLR(LRScheduler):
    """lr ← lr · gamma in the epochs `milestones`; one that is listed n times counts n times."""

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        if isinstance(milestones, str) or not isinstance(milestones, Iterable):
            raise TypeError(f"milestones: expected a list of epochs, got {milestones!r:.60}")
        self.milestones = sorted(_whole(e, f"milestones[{i}]", at_least=0) for i, e in enumerate(milestones))
        self.gamma = real(gamma, "gamma")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        n = self.milestones.count(self.last_epoch)
        return [lr * self.gamma**n if n else lr for lr in self._present()]


class ExponentialLR(LRScheduler):
    """lr ← lr · gamma in every epoch."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = real(gamma, "gamma")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [lr * self.gamma for lr in self._present()]

    def first_lr(self) -> list[float]:
        return self._present()


class LinearLR(LRScheduler):
    """lr = base_lr · f(e), where f goes in a straight line from start_factor to end_factor in total_iters epochs.

    start_factor is in (0, 1] and end_factor in [0, 1]. In steps it is lr ← lr · f(e) / f(e - 1).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor = number(start_factor, "start_factor")
        self.end_factor = number(end_factor, "end_factor")
        self.total_iters = _whole(total_iters, "total_iters", at_least=1)
        if not 0 < self.start_factor <= 1:
            raise ValueError(f"start_factor: expected a number above 0 and at most 1, got {start_factor}")
        if not 0 <= self.end_factor <= 1:
            raise ValueError(f"end_factor: expected a number from 0 to 1, got {end_factor}")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        e = self.last_epoch
        if e > self.total_iters:
            return self._present()
        rise = self.end_factor - self.start_factor
        before = self.total_iters * self.start_factor + (e - 1) * rise  # total_iters · f(e - 1)
        return [lr * (1 + rise / before) for lr in self._present()]

    def first_lr(self) -> list[float]:
        return [lr * self.start_factor if self.last_epoch == 0 else lr for lr in self._present()]


class CosineAnnealingLR(LRScheduler):
    """lr = eta_min + (base_lr - eta_min) · (1 + cos(π·e / T_max)) / 2.

    Without the restarts of Loshchilov and Hutter, "SGDR: Stochastic gradient descent with warm restarts" (ICLR
    2017), equation 5: after T_max epochs it rises again, along the cosine. In steps,
    lr - eta_min ← (lr - eta_min) · c(e) / c(e - 1), with c(e) = 1 + cos(π·e / T_max).
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = _whole(T_max, "T_max", at_least=1)
        self.eta_min = real(eta_min, "eta_min")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        e, n, low = self.last_epoch, self.T_max, self.eta_min
        if (e - 1 - n) % (2 * n) == 0:  # c(e - 1) is 0: the lowest point, from where no factor leads upwards
            rise = (1 - math.cos(math.pi / n)) / 2
            pairs = zip(self._present(), self._bases(), strict=True)
            return [lr + (base_lr - low) * rise for lr, base_lr in pairs]
        ratio = (1 + math.cos(math.pi * e / n)) / (1 + math.cos(math.pi * (e - 1) / n))
        return [low + (lr - low) * ratio for lr in self._present()]

    def first_lr(self) -> list[float]:
        return self._present()


class OneCycleLR(LRScheduler):
    """Up from a low rate to max_lr, then down to almost nothing; the momentum goes down and up. Step it every batch.

    Smith and Topin, "Super-convergence: Very fast training of neural networks using large learning rates" (2017).
    In `total_steps` (or `epochs` · `steps_per_epoch`) steps, along a cosine or a straight line ("linear"):

        phase               until              lr                              momentum
        warm up             pct_start          max_lr / div_factor → max_lr    max_momentum → base_momentum
        anneal              the end            max_lr → min_lr                 base_momentum → max_momentum
        or, if three_phase:
        back                2 · pct_start      max_lr → max_lr / div_factor    base_momentum → max_momentum
        annihilate          the end            max_lr / div_factor → min_lr    max_momentum

    with min_lr = max_lr / div_factor / final_div_factor. max_lr, base_momentum and max_momentum are numbers, or lists
    of one for each group. The momentum is SGD's and RMSprop's `momentum`, or the first of Adam's `betas`;
    cycle_momentum=False leaves it alone. ValueError after the last step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        Scheduler.__init__(self, optimizer)
        self.total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
        self.pct_start = number(pct_start, "pct_start")
        if not 0 <= self.pct_start <= 1:
            raise ValueError(f"pct_start: expected a number from 0 to 1, got {pct_start}")
        self.anneal_strategy = _one_of(anneal_strategy, "anneal_strategy", ("cos", "linear"))
        self.three_phase = flag(three_phase, "three_phase")
        self.cycle_momentum = flag(cycle_momentum, "cycle_momentum")
        div, final_div = _above_0(div_factor, "div_factor"), _above_0(final_div_factor, "final_div_factor")
        settings: list[Group] = [
            {"initial_lr": high / div, "max_lr": high, "min_lr": high / div / final_div}
            for high in _for_each_group(max_lr, "max_lr", optimizer, at_least_0)
        ]
        if self.cycle_momentum:
            check = below_1 if self._cycled() == "betas" else at_least_0
            lows = _for_each_group(base_momentum, "base_momentum", optimizer, check)
            highs = _for_each_group(max_momentum, "max_momentum", optimizer, check)
            for new, low, high in zip(settings, lows, highs):
                new.update({"base_momentum": low, "max_momentum": high})
        self._begin(settings, last_epoch)

    def _cycled(self) -> str:
        """The option that holds the momentum."""
        for name in "betas", "momentum":
            if name in self.optimizer.defaults:
                return name
        kind = type(self.optimizer).__name__
        raise ValueError(f"cycle_momentum: expected an optimizer with momentum or betas, got {kind}; pass False")

    def _phases(self) -> list[tuple[float, tuple[str, str], tuple[str, str]]]:
        """(last step, rates, momenta) of each phase; rates and momenta as the names of both ends."""
        up, down = ("base_momentum", "max_momentum"), ("max_momentum", "base_momentum")
        peak, last = self.pct_start * self.total_steps, float(self.total_steps - 1)
        warm_up = (peak - 1, ("initial_lr", "max_lr"), down)
        if not self.three_phase:
            return [warm_up, (last, ("max_lr", "min_lr"), up)]
        annihilate = (last, ("initial_lr", "min_lr"), ("max_momentum", "max_momentum"))
        return [warm_up, (2 * peak - 2, ("max_lr", "initial_lr"), up), annihilate]

    def _now(self) -> tuple[float, tuple[str, str], tuple[str, str]]:
        """(how much of the phase is over, from 0 to 1; rates; momenta) in the step `last_epoch`."""
        phases, start = self._phases(), 0.0
        for end, rates, momenta in phases[:-1]:
            if self.last_epoch <= end:
                return _share(start, self.last_epoch, end), rates, momenta
            start = end
        end, rates, momenta = phases[-1]
        return _share(start, self.last_epoch, end), rates, momenta

    def _anneal(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "cos":
            return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
        return start + (end - start) * share

    def get_lr(self) -> list[float]:
        if self.last_epoch > self.total_steps:
            raise ValueError(f"step: expected at most {self.total_steps} steps, as total_steps says")
        share, (start, end), _ = self._now()
        return [self._anneal(group[start], group[end], share) for group in self.optimizer.param_groups]

    def changes(self, lrs: list[float]) -> list[Group]:
        changes = super().changes(lrs)
        if self.cycle_momentum:
            share, _, (start, end) = self._now()
            for group, change in zip(self.optimizer.param_groups, changes):
                momentum = self._anneal(group[start], group[end], share)
                change.update(
                    {"betas": (momentum, group["betas"][1])} if self._cycled() == "betas" else {"momentum": momentum}
                )
        return changes


class ReduceLROnPlateau(Scheduler):
    """lr ← lr · factor when a metric has not improved for more than `patience` steps.

    mode:            "min" if the metric shall become small, "max" if it shall become large.
    threshold:       what counts as better than the best so far: in `threshold_mode` "rel" by this share of its size (of
                     a best that is negative, too), in "abs" by this much.
    cooldown:        for how many steps after a reduction none is counted as bad.
    min_lr:          no rate goes below it; a number, or a list of one for each group.
    eps:             a reduction by no more than this is left out.
    """

    progress = (*Scheduler.progress, "best", "num_bad_epochs", "cooldown_counter")

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | list[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(optimizer)
        self.mode = _one_of(mode, "mode", ("min", "max"))
        self.factor = below_1(factor, "factor")
        self.patience = _whole(patience, "patience", at_least=0)
        self.threshold = real(threshold, "threshold")
        self.threshold_mode = _one_of(threshold_mode, "threshold_mode", ("rel", "abs"))
        self.cooldown = _whole(cooldown, "cooldown", at_least=0)
        self.min_lrs = _for_each_group(min_lr, "min_lr", optimizer, at_least_0)
        self.eps = at_least_0(eps, "eps")
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self._last_lr = self._present()

    @property
    def in_cooldown(self) -> bool:
        """Whether a reduction was so short ago that bad steps are not counted."""
        return self.cooldown_counter > 0

    def is_better(self, metric: float) -> bool:
        """Whether `metric` improves on the best so far by more than the threshold."""
        sign = -1 if self.mode == "min" else 1
        margin = sign * self.threshold
        if self.threshold_mode == "abs" or math.isinf(self.best):
            return sign * metric > sign * (self.best + margin)
        return sign * metric > sign * self.best * (1 + margin * math.copysign(1.0, self.best))

    def step(self, metrics: Any) -> None:
        """Take note of the metric of one more epoch, a number or a Value, and reduce the rates if it is time."""
        metric = number(metrics, "metrics")
        self._check_groups()
        self.optimizer.resumed = None
        self.last_epoch += 1
        self.num_bad_epochs += 1
        if self.is_better(metric):
            self.best, self.num_bad_epochs = metric, 0
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = self._present()

    def _reduce(self) -> None:
        for group, low in zip(self.optimizer.param_groups, self.min_lrs):
            lr = max(group["lr"] * self.factor, low)
            if group["lr"] - lr > self.eps:
                group["lr"] = lr

    def _check_groups(self) -> None:
        """A group that was added later has the bound of the others, if they have one bound."""
        missing = len(self.optimizer.param_groups) - len(self.min_lrs)
        if missing and len(set(self.min_lrs)) > 1:
            raise RuntimeError(f"min_lrs: expected one for each group, but {missing} groups were added: append theirs")
        self.min_lrs += self.min_lrs[:1] * missing


# Checks of arguments. Each raises ValueError, or TypeError for what is of another kind.


def _optimizer(x: object) -> Optimizer:
    if not isinstance(x, Optimizer):
        raise TypeError(f"optimizer: expected an Optimizer, got {type(x).__name__} {x!r:.60}")
    return x


def _whole(x: object, name: str, at_least: int) -> int:
    if not isinstance(x, int) or isinstance(x, bool) or x < at_least:
        raise ValueError(f"{name}: expected a whole number that is at least {at_least}, got {x!r:.60}")
    return x


def _above_0(x: object, name: str) -> float:
    if not number(x, name) > 0:
        raise ValueError(f"{name}: expected a number above 0, got {x}")
    return number(x, name)


def _one_of(x: Any, name: str, choices: tuple[str, ...]) -> str:
    if not isinstance(x, str) or x not in choices:
        raise ValueError(f"{name}: expected {' or '.join(map(repr, choices))}, got {x!r:.60}")
    return x


def _function(x: Any, name: str) -> Callable[[int], float]:
    if not callable(x):
        raise TypeError(f"{name}: expected a function of the epoch, got {type(x).__name__} {x!r:.60}")
    f: Callable[[int], float] = x
    return f


def _for_each_group(x: Any, name: str, optimizer: Optimizer, check: Callable[[Any, str], Any]) -> list[Any]:
    """`x` for every group, or if it is a list, one of it for each."""
    n = len(optimizer.param_groups)
    if not is_list(x):
        return [check(x, name)] * n
    if len(x) != n:
        raise ValueError(f"{name}: expected one for each of the {n} groups, got {len(x)}")
    return [check(item, f"{name}[{i}]") for i, item in enumerate(x)]


def _total_steps(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    if total_steps is not None:
        return _whole(total_steps, "total_steps", at_least=1)
    if epochs is None or steps_per_epoch is None:
        raise ValueError("total_steps: expected it, or both epochs and steps_per_epoch, got neither")
    return _whole(epochs, "epochs", at_least=1) * _whole(steps_per_epoch, "steps_per_epoch", at_least=1)


def _share(start: float, now: float, end: float) -> float:
    """How much of the way from start to end is done. A way of no length is over at once."""
    return (now - start) / (end - start) if end != start else 1.0


def _check_same(own: Any, x: Any, name: str) -> None:
    if x != own:
        raise ValueError(f"{name}: expected {own!r:.60}, with which this scheduler was made, got {x!r:.60}")


def _like(own: Any, x: Any, name: str) -> Any:
    """`x` as what `own` is: a list of as many rates, a count from 0, or a number, which may be infinite."""
    if isinstance(own, list):
        if not is_list(x) or len(x) != len(own):
            raise ValueError(f"{name}: expected a list of {len(own)} numbers, got {x!r:.60}")
        return [expected.finite(item, f"{name}[{i}]") for i, item in enumerate(x)]
    if isinstance(own, int):
        number(x, name)  # no float counts further
        return _whole(x, name, at_least=0)
    return real(x, name)
