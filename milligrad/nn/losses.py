"""Losses as modules: each is one line over its function in `milligrad.functional`, where the formula stands.

`reduction` is "mean", "sum" or "none"; an unknown one is refused when the loss is made.
"""

from __future__ import annotations

from milligrad import functional as F
from milligrad.nested import Nested
from milligrad.nn.module import Module
from milligrad.typing import Any


class _Loss(Module):
    """A loss with its reduction."""

    def __init__(self, reduction: str = "mean", others: tuple[str, ...] = ()) -> None:
        super().__init__()
        known = ("mean", "sum", "none", *others)
        if reduction not in known:
            raise ValueError(f"reduction: expected one of {', '.join(map(repr, known))}, got {reduction!r}")
        self.reduction = reduction

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class MSELoss(_Loss):
    """The mean squared error."""

    def forward(self, input: Nested, target: Nested) -> Any:
        """Input and target of one shape."""
        return F.mse_loss(input, target, self.reduction)


class L1Loss(_Loss):
    """The mean absolute error."""

    def forward(self, input: Nested, target: Nested) -> Any:
        """Input and target of one shape."""
        return F.l1_loss(input, target, self.reduction)


class HuberLoss(_Loss):
    """Squared where |x - y| ≤ delta, linear beyond."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        if not delta > 0:
            raise ValueError(f"delta: expected a number > 0, got {delta}")
        self.delta = delta

    def forward(self, input: Nested, target: Nested) -> Any:
        """Input and target of one shape."""
        return F.huber_loss(input, target, self.reduction, self.delta)


class SmoothL1Loss(_Loss):
    """Squared where |x - y| < beta, linear beyond; the Huber loss divided by beta."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        if not beta >= 0:
            raise ValueError(f"beta: expected a number >= 0, got {beta}")
        self.beta = beta

    def forward(self, input: Nested, target: Nested) -> Any:
        """Input and target of one shape."""
        return F.smooth_l1_loss(input, target, self.reduction, self.beta)


class BCELoss(_Loss):
    """The binary cross entropy of probabilities; `weight` scales the elements."""

    def __init__(self, weight: Nested = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight = weight

    def forward(self, input: Nested, target: Nested) -> Any:
        """Input and target of one shape, all probabilities: ValueError for what is not in [0, 1]."""
        return F.binary_cross_entropy(input, target, self.weight, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """The binary cross entropy of sigmoid(x); `pos_weight` scales the positive targets."""

    def __init__(self, weight: Nested = None, reduction: str = "mean", pos_weight: Nested = None) -> None:
        super().__init__(reduction)
        self.weight, self.pos_weight = weight, pos_weight

    def forward(self, input: Nested, target: Nested) -> Any:
        """Input (any numbers) and target of one shape."""
        return F.binary_cross_entropy_with_logits(input, target, self.weight, self.reduction, self.pos_weight)


class CrossEntropyLoss(_Loss):
    """The cross entropy of softmax(x) and a class, or probabilities; `weight` scales the classes."""

    def __init__(
        self,
        weight: Nested = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing: expected a number between 0 and 1, got {label_smoothing}")
        self.weight, self.ignore_index, self.label_smoothing = weight, ignore_index, label_smoothing

    def forward(self, input: Nested, target: Nested) -> Any:
        """Input (C,), (N, C) or (N, C, d…); target without C, or probabilities in the shape of input."""
        return F.cross_entropy(input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing)


class NLLLoss(_Loss):
    """The negative log-probability of the target class; `weight` scales the classes."""

    def __init__(self, weight: Nested = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight, self.ignore_index = weight, ignore_index

    def forward(self, input: Nested, target: Nested) -> Any:
        """Input (C,), (N, C) or (N, C, d…) of log-probabilities; target the same without C."""
        return F.nll_loss(input, target, self.weight, self.ignore_index, self.reduction)


class KLDivLoss(_Loss):
    """The Kullback-Leibler divergence; "batchmean" is the reduction that mathematics means."""

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction, ("batchmean",))
        self.log_target = log_target

    def forward(self, input: Nested, target: Nested) -> Any:
        """Input (log-probabilities) and target of one shape."""
        return F.kl_div(input, target, self.reduction, self.log_target)
