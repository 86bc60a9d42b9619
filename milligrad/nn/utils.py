"""What is done to gradients between `backward` and `step`."""

from __future__ import annotations

import math
from collections.abc import Iterable

from milligrad import ops
from milligrad.engine import Value, number
from milligrad.nested import flatten
from milligrad.nn.module import Parameter
from milligrad.typing import Any


def _values(parameters: Any) -> list[Value]:
    """The learning Values of one parameter, one Value, or an iterable of them; a shared one once."""
    each = [parameters] if isinstance(parameters, Value | Parameter) else parameters
    values = dict.fromkeys(p for parameter in each for p in flatten(parameter))
    for p in values:
        if not isinstance(p, Value):
            raise TypeError(f"parameters: expected Parameters or Values, got {type(p).__name__} {p!r:.60}")
    return [p for p in values if p.requires_grad]


def clip_grad_norm_(
    parameters: Iterable[Any] | Value, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Scale all gradients so that the norm of all of them together is at most `max_norm`; returns the norm before.

    `norm_type` p is the p-norm (Σ|g|^p)^(1/p), inf the largest |g|. Pascanu et al. 2013, algorithm 1; as in PyTorch
    the factor is max_norm / (norm + 1e-6), and gradients whose powers overflow (squares do beyond 1e154) have the norm
    inf and become 0. Raises ValueError for a norm that is not finite, if asked to.
    """
    values = _values(parameters)
    bound, p = number(max_norm, "max_norm"), number(norm_type, "norm_type")
    if not bound >= 0:
        raise ValueError(f"max_norm: expected a number >= 0, got {max_norm}")
    if not p > 0:
        raise ValueError(f"norm_type: expected a number > 0, got {norm_type}")
    norm = _p_norm([abs(v.grad) for v in values], p)
    if error_if_nonfinite and not math.isfinite(norm):
        raise ValueError(f"the norm of the gradients is {norm}: no scaling makes it {max_norm}")
    factor = min(bound / (norm + 1e-6), 1.0)  # NaN if the norm is
    for v in values:
        v.grad *= factor
    return norm


def _p_norm(sizes: list[float], p: float) -> float:
    """(Σ size^p)^(1/p), of which no power vanishes; where one is beyond the floats the norm is inf, as in PyTorch."""
    largest = ops.max([0.0, *sizes])
    if math.isinf(p) or len(sizes) == 1 or largest in (0.0, math.inf):
        return float(largest)
    norm = float(largest * ops.added([(size / largest) ** p for size in sizes]) ** (1 / p))
    try:
        math.pow(norm, p)
    except OverflowError:
        return math.inf
    return norm


def clip_grad_value_(parameters: Iterable[Any] | Value, clip_value: float) -> None:
    """Move each gradient to the nearest number in [-clip_value, clip_value]."""
    values = _values(parameters)
    bound = number(clip_value, "clip_value")
    if not bound >= 0:
        raise ValueError(f"clip_value: expected a number >= 0, got {clip_value}")
    for v in values:
        v.grad = min(max(v.grad, -bound), bound)
