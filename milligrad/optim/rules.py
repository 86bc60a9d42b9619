"""SGD, Adam, AdamW, RMSprop and Adagrad: five update rules on one page.

Each class is its options with their defaults (PyTorch's), how they are checked, what the rule remembers, and the
rule. How rules are applied, grouped and saved is in `optimizer.py`.

In a rule p is a number of a parameter and g its gradient; what is remembered of it has one letter here and
PyTorch's name in `initial_state`. What depends on the step alone is computed once, outside of the function of p, g
and the state. An `if` asks about options only, so that a rule can be traced, with t and lr as inputs.
"""

from __future__ import annotations

from collections.abc import Iterable

from milligrad import ops
from milligrad.optim.optimizer import Check, Group, Optimizer, Rule, at_least_0, flag, real, two_below_1
from milligrad.typing import Any, ClassVar


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Polyak, 1964) if `momentum` is not 0.

        b ← momentum·b + (1 - dampening)·g          in the first step b ← g
        p ← p - lr·b                                with nesterov: p - lr·(g + momentum·b)

    weight_decay adds weight_decay·p to g; maximize turns g around. Nesterov's form is that of Sutskever, Martens,
    Dahl and Hinton, "On the importance of initialization and momentum in deep learning" (ICML 2013), as PyTorch
    rearranges it; it needs a momentum and no dampening (ValueError).
    """

    options: ClassVar[dict[str, Check]] = {
        "lr": at_least_0, "momentum": at_least_0, "dampening": real, "weight_decay": at_least_0,
        "nesterov": flag, "maximize": flag,
    }  # fmt: skip

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
        super().__init__(params, {**defaults, "nesterov": nesterov, "maximize": maximize})

    @staticmethod
    def check_together(options: Group, where: str) -> None:
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise ValueError(
                f"{where}nesterov: expected a momentum above 0 and a dampening of 0 with it, "
                f"got momentum={options['momentum']} and dampening={options['dampening']}"
            )

    @staticmethod
    def initial_state(momentum: float, **_: Any) -> dict[str, float]:
        return {"momentum_buffer": 0.0} if momentum else {}

    @staticmethod
    def rule(
        t: Any, lr: Any, momentum: float, dampening: float, weight_decay: float, nesterov: bool, maximize: bool
    ) -> Rule:
        take = ops.where(t <= 1, 1.0, 1 - dampening)

        def plain(p: Any, g: Any) -> tuple[Any, ...]:
            return (p - lr * g,)

        def with_momentum(p: Any, g: Any, b: Any) -> tuple[Any, ...]:
            b = momentum * b + take * g
            return p - lr * (g + momentum * b if nesterov else b), b

        return _of_gradient(with_momentum if momentum else plain, weight_decay, maximize)


class Adam(Optimizer):
    """Adam: Kingma and Ba, "Adam: A method for stochastic optimization" (ICLR 2015), algorithm 1.

        m ← β₁·m + (1 - β₁)·g
        v ← β₂·v + (1 - β₂)·g²
        p ← p - lr·m̂ / (√v̂ + eps)                  m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ)

    amsgrad puts the largest v so far in the place of v: Reddi, Kale and Kumar, "On the convergence of Adam and
    beyond" (ICLR 2018). weight_decay adds weight_decay·p to g; maximize turns g around.
    """

    options: ClassVar[dict[str, Check]] = {
        "lr": at_least_0, "betas": two_below_1, "eps": at_least_0, "weight_decay": at_least_0,
        "amsgrad": flag, "maximize": flag,
    }  # fmt: skip
    squares = frozenset(["exp_avg_sq", "max_exp_avg_sq"])

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, maximize=maximize)
        super().__init__(params, defaults)

    @staticmethod
    def initial_state(amsgrad: bool, **_: Any) -> dict[str, float]:
        return dict.fromkeys(["exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * amsgrad], 0.0)

    @staticmethod
    def rule(
        t: Any, lr: Any, betas: tuple[float, float], eps: float, weight_decay: float, amsgrad: bool, maximize: bool
    ) -> Rule:
        return _of_gradient(_adam(t, lr, betas, eps, amsgrad), weight_decay, maximize)


class AdamW(Optimizer):
    """AdamW: Adam whose weight decay acts on the parameter, p ← (1 - lr·weight_decay)·p, and not through g.

    Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019), algorithm 2, with PyTorch's lr in
    the decay.
    """

    options = Adam.options
    initial_state = staticmethod(Adam.initial_state)
    squares = Adam.squares

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, maximize=maximize)
        super().__init__(params, defaults)

    @staticmethod
    def rule(
        t: Any, lr: Any, betas: tuple[float, float], eps: float, weight_decay: float, amsgrad: bool, maximize: bool
    ) -> Rule:
        adam, shrink = _adam(t, lr, betas, eps, amsgrad), 1 - lr * weight_decay

        def decayed(p: Any, g: Any, *state: Any) -> tuple[Any, ...]:
            return adam(shrink * p, g, *state)

        return _of_gradient(decayed if weight_decay else adam, 0.0, maximize)


class RMSprop(Optimizer):
    """RMSprop: Hinton, "Neural networks for machine learning", lecture 6 (2012).

        s ← alpha·s + (1 - alpha)·g²
        p ← p - lr·g / (√s + eps)

    centered divides by an estimate of the standard deviation, √(s - m²) with m ← alpha·m + (1 - alpha)·g: Graves,
    "Generating sequences with recurrent neural networks" (2013), equations 38-45. Rounding can leave s - m² below
    0; it counts as 0 then. With a momentum, p ← p - lr·b, b ← momentum·b + g / (√s + eps). weight_decay adds
    weight_decay·p to g; maximize turns g around.
    """

    options: ClassVar[dict[str, Check]] = {
        "lr": at_least_0, "alpha": at_least_0, "eps": at_least_0, "weight_decay": at_least_0,
        "momentum": at_least_0, "centered": flag, "maximize": flag,
    }  # fmt: skip
    squares = frozenset(["square_avg"])

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = dict(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        super().__init__(params, {**defaults, "centered": centered, "maximize": maximize})

    @staticmethod
    def initial_state(momentum: float, centered: bool, **_: Any) -> dict[str, float]:
        names = ["square_avg", *["grad_avg"] * centered, *["momentum_buffer"] * bool(momentum)]
        return dict.fromkeys(names, 0.0)

    @staticmethod
    def rule(
        t: Any, lr: Any, alpha: float, eps: float, weight_decay: float, momentum: float, centered: bool, maximize: bool
    ) -> Rule:
        def update(p: Any, g: Any, s: Any, *state: Any) -> tuple[Any, ...]:
            s = alpha * s + (1 - alpha) * g * g
            new: tuple[Any, ...] = ()
            variance = s
            if centered:
                m = alpha * state[0] + (1 - alpha) * g
                variance, new = _maximum(s - m * m, 0.0), (m,)
            b = g / (_sqrt(variance) + eps)
            if momentum:
                b = momentum * state[-1] + b
                new = (*new, b)
            return (p - lr * b, s, *new) if new else (p - lr * b, s)  # most often there is no more to remember

        return _of_gradient(update, weight_decay, maximize)


class Adagrad(Optimizer):
    """Adagrad: Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization" (JMLR 12, 2011), the diagonal form of figure 1.

        s ← s + g²                                  s starts from initial_accumulator_value
        p ← p - lr / (1 + (t - 1)·lr_decay) · g / (√s + eps)

    weight_decay adds weight_decay·p to g; maximize turns g around.
    """

    options: ClassVar[dict[str, Check]] = {
        "lr": at_least_0, "lr_decay": at_least_0, "weight_decay": at_least_0,
        "initial_accumulator_value": at_least_0, "eps": at_least_0, "maximize": flag,
    }  # fmt: skip
    squares = frozenset(["sum"])

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = dict(lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps, maximize=maximize)
        super().__init__(params, {**defaults, "initial_accumulator_value": initial_accumulator_value})

    @staticmethod
    def initial_state(initial_accumulator_value: float, **_: Any) -> dict[str, float]:
        return {"sum": initial_accumulator_value}

    @staticmethod
    def rule(t: Any, lr: Any, lr_decay: float, weight_decay: float, eps: float, maximize: bool, **_: Any) -> Rule:
        lr = lr / (1 + (t - 1) * lr_decay)

        def update(p: Any, g: Any, s: Any) -> tuple[Any, ...]:
            s = s + g * g
            return p - lr * g / (_sqrt(s) + eps), s

        return _of_gradient(update, weight_decay, maximize)


# What several rules share.


def _of_gradient(update: Rule, weight_decay: float, maximize: bool) -> Rule:
    """`update`, of the gradient that it shall see: turned around to maximize, and with the pull of weight decay."""

    def decayed(p: Any, g: Any, *state: Any) -> tuple[Any, ...]:
        return update(p, g + weight_decay * p, *state)

    descending = decayed if weight_decay else update

    def ascending(p: Any, g: Any, *state: Any) -> tuple[Any, ...]:
        return descending(p, -g, *state)

    return ascending if maximize else descending


def _adam(t: Any, lr: Any, betas: tuple[float, float], eps: float, amsgrad: bool) -> Rule:
    beta1, beta2 = betas
    size = lr / (1 - beta1**t)
    root = _sqrt(1 - beta2**t)

    def update(p: Any, g: Any, m: Any, v: Any, largest: Any = 0.0) -> tuple[Any, ...]:
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        largest = _maximum(largest, v) if amsgrad else v
        p = p - size * m / (_sqrt(largest) / root + eps)
        return (p, m, v, largest) if amsgrad else (p, m, v)

    return update


# Two rows of the table. Of floats they take the row's value at once: a call of the row has to look first what it is
# given, and these are called for every number of every parameter.


def _sqrt(x: Any) -> Any:
    return ops.sqrt.value(x) if type(x) is float else ops.sqrt(x)


def _maximum(x: Any, y: Any) -> Any:
    return ops.max.value(x, y) if type(x) is float and type(y) is float else ops.maximum(x, y)
