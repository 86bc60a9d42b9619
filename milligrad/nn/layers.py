"""Layers with a function in `milligrad.functional`: what they add is parameters, their initial values, and checks.

Initial values are PyTorch's defaults, drawn from the generator that `milligrad.manual_seed` seeds.
"""

from __future__ import annotations

import math

from milligrad import functional as F
from milligrad.expected import size
from milligrad.nested import Nested, Shape, full, is_list
from milligrad.nn import init
from milligrad.nn.module import Module, Parameter
from milligrad.typing import Any


def uniform(shape: Shape, bound: float) -> Parameter:
    """A parameter drawn from the uniform distribution on [-bound, bound]."""
    return init.uniform_(Parameter(full(shape, 0.0)), -bound, bound)


class Linear(Module):
    """weight · x + bias. Weight and bias start uniform in ±1/√in_features.

    Shapes: x (…, in_features) → (…, out_features); weight (out_features, in_features), bias (out_features,).
    """

    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = size(in_features, "in_features"), size(out_features, "out_features")
        bound = 1 / math.sqrt(in_features)
        self.weight = uniform((out_features, in_features), bound)
        self.register_parameter("bias", uniform((out_features,), bound) if bias else None)

    def forward(self, input: Nested) -> Nested:
        """One vector, or a batch of any depth."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """A vector for each index, looked up in `weight`, which starts normal(0, 1).

    Shapes: indices (…) → (…, embedding_dim); weight (num_embeddings, embedding_dim). The row at `padding_idx` starts
    at zero and stays as it is.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None) -> None:
        super().__init__()
        self.num_embeddings = size(num_embeddings, "num_embeddings")
        self.embedding_dim = size(embedding_dim, "embedding_dim")
        self.padding_idx = F.padding_row(padding_idx, num_embeddings)
        self.weight = init.normal_(Parameter(full((num_embeddings, embedding_dim), 0.0)))
        if self.padding_idx is not None:
            for p in self.weight[self.padding_idx]:
                p.data = 0.0

    def forward(self, input: Nested) -> Nested:
        """One index, or any nesting of them."""
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class Dropout(Module):
    """In training, each number becomes 0 with probability p, and else is divided by 1 - p. Not in `eval()`."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p: expected a probability between 0 and 1, got {p}")
        self.p = p

    def forward(self, input: Nested) -> Nested:
        """Any nesting."""
        return F.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class LayerNorm(Module):
    """(x - mean) / sqrt(variance + eps) · weight + bias over the last dimensions. Weight starts at 1, bias at 0.

    Shapes: x (…, *normalized_shape) → the same; weight and bias normalized_shape.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self, normalized_shape: int | Shape, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True
    ) -> None:
        super().__init__()
        self.normalized_shape, self.eps = _normalized_shape(normalized_shape), eps
        ones, zeros = full(self.normalized_shape, 1.0), full(self.normalized_shape, 0.0)
        self.register_parameter("weight", Parameter(ones) if elementwise_affine else None)
        self.register_parameter("bias", Parameter(zeros) if elementwise_affine and bias else None)

    def forward(self, input: Nested) -> Nested:
        """One sample, or a batch of any depth."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        affine, bias = self.weight is not None, self.bias is not None
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}, bias={bias}"


class RMSNorm(Module):
    """x / sqrt(mean of x² + eps) · weight over the last dimensions. Weight starts at 1.

    Shapes: x (…, *normalized_shape) → the same; weight normalized_shape. `eps` None is 2.2e-16.
    """

    weight: Parameter | None

    def __init__(
        self, normalized_shape: int | Shape, eps: float | None = None, elementwise_affine: bool = True
    ) -> None:
        super().__init__()
        self.normalized_shape, self.eps = _normalized_shape(normalized_shape), eps
        ones = full(self.normalized_shape, 1.0)
        self.register_parameter("weight", Parameter(ones) if elementwise_affine else None)

    def forward(self, input: Nested) -> Nested:
        """One sample, or a batch of any depth."""
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"


def _normalized_shape(shape: Any) -> Shape:
    dims = tuple(shape) if is_list(shape) else (shape,)
    if not dims:
        raise ValueError("normalized_shape: expected at least one dimension, got ()")
    return tuple(size(n, "normalized_shape") for n in dims)


class Conv2d(Module):
    """The cross-correlation of images with kernels. All weights start uniform in ±1/√(in_channels/groups · kh · kw).

    Shapes: (in_channels, H, W), or a batch (N, in_channels, H, W), → (out_channels, H', W') or (N, out_channels, H',
    W'); weight (out_channels, in_channels / groups, kh, kw), bias (out_channels,). See `functional.conv2d`.
    """

    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = size(in_channels, "in_channels"), size(out_channels, "out_channels")
        if size(groups, "groups") and (in_channels % groups or out_channels % groups):
            raise ValueError(f"groups: expected a divisor of in_channels and out_channels, got {groups}")
        self.kernel_size, self.groups = F.pair(kernel_size, "kernel_size", 1), groups
        self.stride, self.dilation = F.pair(stride, "stride", 1), F.pair(dilation, "dilation", 1)
        self.padding = F.conv_padding(padding, self.stride)
        fan_in = in_channels // groups * self.kernel_size[0] * self.kernel_size[1]
        bound = 1 / math.sqrt(fan_in)
        self.weight = uniform((out_channels, in_channels // groups, *self.kernel_size), bound)
        self.register_parameter("bias", uniform((out_channels,), bound) if bias else None)

    def forward(self, input: Nested) -> Nested:
        """One image, or a batch of them."""
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        shown = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        defaults = {"padding": (0, 0), "dilation": (1, 1), "groups": 1}
        shown += "".join(f", {name}={getattr(self, name)}" for name, n in defaults.items() if getattr(self, name) != n)
        return shown if self.bias is not None else shown + ", bias=False"


class MaxPool2d(Module):
    """The largest number of each window of each channel. See `functional.max_pool2d`."""

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        F.pool_options(kernel_size, stride, padding, dilation)
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def forward(self, input: Nested) -> Nested:
        """One image, or a batch of them."""
        return F.max_pool2d(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class AvgPool2d(Module):
    """The mean of each window of each channel. See `functional.avg_pool2d`."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        F.pool_options(kernel_size, stride, padding, 1)
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, input: Nested) -> Nested:
        """One image, or a batch of them."""
        return F.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class Flatten(Module):
    """The dimensions start_dim … end_dim made one; by default all but the first, which is the batch."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Nested) -> Nested:
        """A batch; for one sample, use start_dim=0."""
        return F.flatten_dims(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
