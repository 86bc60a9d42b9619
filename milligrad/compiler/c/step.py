"""A step of training as a function of numbers, which can be lowered to C: `Trainer.save_c`.

It is what a Trainer does with a batch, the loss, its gradient, clipping and the optimizer's rule, but it changes
nothing: new parameters and what the optimizer remembers are results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from milligrad import ops
from milligrad.compiler.passes.update import learning
from milligrad.engine import Value, grad


def step_of(
    model: Any, loss_fn: Callable[..., Any], optimizer: Any, norm: float | None, value: float | None
) -> tuple[Callable[..., Any], dict[str, list[float]]]:
    """(the function, what the optimizer remembers before the first step).

    It takes (x, y, lr, t, state): a batch, the learning rates of the optimizer's groups, the number of the step and
    the state, and returns the loss, the new parameters, in the order of the model's, and the new state.
    """
    groups = learning(optimizer)
    values = [v for p in groups for v in p.values]
    known = {v for parameter in model.parameters() for v in parameter.values()}
    if not known.issuperset(values):
        raise ValueError("optimizer: expected no parameters but those of the model, to be handed in and out")
    state: dict[str, list[float]] = {}
    for p in groups:
        for name, first in optimizer.initial_state(**p.options(optimizer)).items():
            state.setdefault(name, []).extend([first] * len(p.values))

    def train(x: Any, y: Any, lr: Sequence[Any], t: Any, state: dict[str, list[Any]]) -> dict[str, Any]:
        loss = loss_fn(model(x), y)
        gradients = clipped([g if g.symbolic else g.data for g in grad(loss, values)], norm, value)
        left = iter(gradients)
        remembered = {name: iter(xs) for name, xs in state.items()}
        new: dict[Value, Any] = {}
        kept: dict[str, list[Any]] = {name: [] for name in state}
        for p in groups:
            rule = optimizer.rule(t, **{**p.options(optimizer), "lr": lr[p.group]})
            for v in p.values:
                new[v], *rest = rule(v, next(left), *[next(remembered[name]) for name in p.state])
                for name, z in zip(p.state, rest, strict=True):
                    kept[name].append(z)
        parameters = {name: [new.get(v, v) for v in parameter.values()] for name, parameter in model.named_parameters()}
        return {"loss": loss, "parameters": parameters, "state": kept}

    train.__doc__ = (
        "A step of training. x, y: a batch. lr: the learning rate of each group. t: the number of the step, from 1.\n"
        "state: what the optimizer remembers, "
        + (", ".join([f"{name} begins with {xs[0]:g}" for name, xs in state.items() if xs]) or "nothing")
        + ".\nThe new parameters lie in the order of `parameters`, to be copied there."
    )
    return train, state


def clipped(gradients: Sequence[Any], norm: float | None, value: float | None) -> Sequence[Any]:
    """The gradients, as `clip_grad_norm_` and then `clip_grad_value_` leave them."""
    if norm is not None:
        whole = ops.sqrt(ops.sum([g * g for g in gradients]))
        factor = ops.minimum(norm / (whole + 1e-6), 1.0)
        gradients = [g * factor for g in gradients]
    return gradients if value is None else [ops.clamp(g, -value, value) for g in gradients]
