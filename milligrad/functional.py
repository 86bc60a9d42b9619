"""Activations, losses and the computations of layers, as functions without parameters of their own.

All are composed from the rows of `ops.py`: no derivative is defined here. Names, arguments and results are those of
`torch.nn.functional`, except where a docstring says so. Inputs are nested lists of numbers or Values; an activation
takes any nesting, and a layer's function takes one sample or a batch of them, as PyTorch takes leading dimensions.
(`milligrad.nn.functional` is this.)

All of them can be traced by the compiler: a number, a target, an index or the condition of a mask may be a Value
without a number (`Value.symbolic`). Then a choice by index is a sum over all that there is to choose from, and an
index that is out of range, which eagerly raises, makes the result NaN.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence

from milligrad import ops
from milligrad.engine import Answer, Number, Value, number
from milligrad.nested import (
    Nested,
    Shape,
    along,
    broadcast,
    elementwise,
    flatten,
    full,
    is_list,
    leaves,
    shape,
    transpose,
    unflatten,
)
from milligrad.random import source
from milligrad.typing import Any

__all__ = [
    "avg_pool2d",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "conv2d",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "gelu",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "one_hot",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "tanh",
]


# ── Activations: element by element ──────────────────────────────────────────────────────────────────────────────


def _each(f: Callable[[Number], Any], input: Nested) -> Nested:
    """f of each number of input; a ragged nesting raises ValueError, what is no number TypeError."""
    shape(input, "input")
    return elementwise(lambda x: f(x if isinstance(x, Value) else number(x, "input")), input)


def relu(input: Nested) -> Nested:
    """max(x, 0) of each number x."""
    return _each(ops.relu, input)


def sigmoid(input: Nested) -> Nested:
    """1 / (1 + exp(-x)) of each number x."""
    return _each(ops.sigmoid, input)


def tanh(input: Nested) -> Nested:
    """The hyperbolic tangent of each number."""
    return _each(ops.tanh, input)


def leaky_relu(input: Nested, negative_slope: float = 0.01) -> Nested:
    """x where x > 0, else negative_slope · x."""
    return _each(lambda x: ops.where(x > 0, x, negative_slope * x), input)


def elu(input: Nested, alpha: float = 1.0) -> Nested:
    """x where x > 0, else alpha · (exp(x) - 1). Clevert et al. 2015, eq. 15. Its second derivative at 0 is 0."""

    def f(x: Number) -> Any:
        straight = x if alpha == 1 else ops.where(x <= 0, alpha * x, x)  # 0 counts to it, with the slope alpha
        return ops.where(x < 0, alpha * ops.expm1(ops.where(x < 0, x, 0.0)), straight)

    return _each(f, input)


def gelu(input: Nested, approximate: str = "none") -> Nested:
    """x · Φ(x), where Φ is the normal distribution function, or its approximation by "tanh".

    Hendrycks and Gimpel 2016, section 2.
    """
    if approximate == "none":
        return _each(lambda x: x * 0.5 * (1 + ops.erf(x * math.sqrt(0.5))), input)
    if approximate == "tanh":
        scale = math.sqrt(2 / math.pi)
        return _each(lambda x: 0.5 * x * (1 + ops.tanh(scale * (x + 0.044715 * x * x * x))), input)
    raise ValueError(f"approximate: expected 'none' or 'tanh', got {approximate!r}")


def silu(input: Nested) -> Nested:
    """x · sigmoid(x)."""
    return _each(lambda x: x * ops.sigmoid(x), input)


def softplus(input: Nested, beta: float = 1.0, threshold: float = 20.0) -> Nested:
    """log(1 + exp(beta · x)) / beta, and x itself where beta · x > threshold."""
    return _each(lambda x: ops.where(beta * x > threshold, x, ops.softplus(beta * x) / beta), input)


# ── Activations: along a dimension ───────────────────────────────────────────────────────────────────────────────


def log_softmax(input: Nested, dim: int = -1) -> Nested:
    """x - log Σ exp(x) along `dim`. The largest x is taken off first, which keeps every digit of the small results."""

    if 0 in shape(input, "input"):
        raise ValueError("input: expected at least one number, got an empty list")

    def f(xs: Sequence[Number]) -> list[Any]:
        largest = ops.max(xs)
        if isinstance(largest, Value):
            largest = largest.detach()  # it cancels out, so no derivative passes through it
        shifted = [x - largest for x in xs]
        norm = ops.logsumexp(shifted)
        return [x - norm for x in shifted]

    return along(f, input, dim)


def softmax(input: Nested, dim: int = -1) -> Nested:
    """exp(x) / Σ exp(x) along `dim`."""
    return elementwise(ops.exp, log_softmax(input, dim))


# ── Layers ───────────────────────────────────────────────────────────────────────────────────────────────────────


def linear(input: Nested, weight: Nested, bias: Nested = None) -> Nested:
    """weight · x + bias for the vector x, or for each vector in a batch of any depth.

    Shapes: input (…, in), weight (out, in), bias (out,) → (…, out).
    """
    if not (is_list(weight) and len(weight) and is_list(weight[0])):
        raise ValueError(f"weight: expected the shape (out, in), got {shape(weight, 'weight')}")
    if not is_list(input):
        raise ValueError(f"input: expected a list of {len(weight[0])} numbers or a batch of them, got {input!r:.60}")
    if len(input) and is_list(input[0]):
        shape(input, "input")  # not ragged
        return [linear(x, weight, bias) for x in input]
    if len(input) != len(weight[0]):
        raise ValueError(f"input: expected {len(weight[0])} numbers (in_features), got {len(input)}")
    if bias is None:
        return ops.matvec(weight, input)
    _check_bias(bias, len(weight))
    return [z + b for z, b in zip(ops.matvec(weight, input), bias)]


def _check_bias(bias: Nested, n: int) -> None:
    if not is_list(bias) or len(bias) != n or is_list(bias[0]):
        raise ValueError(f"bias: expected {n} numbers, one for each output, got the shape {shape(bias, 'bias')}")


def embedding(input: Nested, weight: Nested, padding_idx: int | None = None) -> Nested:
    """The row of `weight` for each index in `input`; the row at `padding_idx` gets no gradient.

    Shapes: input (…) of whole numbers, weight (n, d) → (…, d).
    """

    n = len(weight)
    padding = padding_row(padding_idx, n)
    shape(input, "input")  # not ragged
    columns: list[list[Any]] = []  # of the rows, made for the first traced index and used for all

    def row(i: int) -> list[Any]:
        return list(weight[i]) if i != padding else [x.detach() if isinstance(x, Value) else x for x in weight[i]]

    def chosen(index: Any) -> list[Any]:
        if not _is_traced(index):
            return row(_index(index, n, "input"))
        if not columns:
            columns.extend(transpose(map(row, range(n))))
        return _chosen_row(index, columns, n)

    return elementwise(chosen, input)


def _chosen_row(index: Value, columns: list[list[Any]], n: int) -> list[Any]:
    """The row of n that a traced index chooses: Σ 1·x + Σ 0·y down each column. An index of none makes NaN of it."""
    choice = _choice(index, n)
    missed = ops.where(ops.sum(choice) > 0, 0.0, math.nan)
    return [ops.dot(choice, column) + missed for column in columns]


def one_hot(input: Nested, num_classes: int) -> Nested:
    """For each index in `input` num_classes numbers: 1 at the place of the index, 0 elsewhere.

    Shapes: input (…) of whole numbers from 0 to num_classes - 1 → (…, num_classes). PyTorch's gives whole numbers, and
    can find num_classes itself. A traced index that is none of these numbers gives zeros.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes: expected a whole number >= 1, got {num_classes!r:.60}")
    shape(input, "input")  # not ragged

    def row(index: Any) -> list[Any]:
        return _choice(index if _is_traced(index) else float(_index(index, num_classes, "input")), num_classes)

    return elementwise(row, input)


def _choice(index: Any, n: int) -> list[Any]:
    """1 at the place of the index, 0 at the other n - 1."""
    return [ops.equal(index, float(i)) for i in range(n)]


def _is_traced(x: object) -> bool:
    """Whether x is a Value without a number, as the compiler's are."""
    return isinstance(x, Value) and x.symbolic


def padding_row(padding_idx: Any, n: int) -> int | None:
    """Which of n rows `padding_idx` means (it may count from the end), checked; None for none."""
    if padding_idx is None:
        return None
    if not hasattr(padding_idx, "__index__") or not -n <= padding_idx < n:
        raise ValueError(f"padding_idx: expected a whole number from {-n} to {n - 1}, got {padding_idx!r:.60}")
    return operator.index(padding_idx) % n


def dropout(input: Nested, p: float = 0.5, training: bool = True) -> Nested:
    """Each number, with probability p, becomes 0, and else is divided by 1 - p; without `training`, nothing changes.

    Srivastava et al. 2014. The random numbers are those of `milligrad.manual_seed`.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p: expected a probability between 0 and 1, got {p}")
    if not training or p == 0:
        return input
    draw, scale = source(), 1 / (1 - p) if p < 1 else 0.0
    return elementwise(lambda x: x * (scale * (draw() >= p)), input)


def layer_norm(
    input: Nested, normalized_shape: Shape, weight: Nested = None, bias: Nested = None, eps: float = 1e-5
) -> Nested:
    """(x - mean) / sqrt(variance + eps) · weight + bias, over the last dimensions, which are `normalized_shape`.

    The variance is that of the population (divided by n). Ba et al. 2016, eq. 4.
    """

    def normalize(xs: list[Any]) -> list[Any]:
        m = ops.mean(xs)
        centered = [x - m for x in xs]
        scale = 1 / ops.sqrt(ops.dot(centered, centered) / len(xs) + eps)
        return [c * scale for c in centered]

    return _normalized(normalize, input, normalized_shape, weight, bias)


def rms_norm(input: Nested, normalized_shape: Shape, weight: Nested = None, eps: float | None = None) -> Nested:
    """x / sqrt(mean of x² + eps) · weight, over the last dimensions, which are `normalized_shape`.

    `eps` None is the spacing of floats at 1 (2.2e-16). Zhang and Sennrich 2019, eq. 4.
    """
    epsilon = 2.0**-52 if eps is None else eps

    def normalize(xs: list[Any]) -> list[Any]:
        scale = 1 / ops.sqrt(ops.dot(xs, xs) / len(xs) + epsilon)
        return [x * scale for x in xs]

    return _normalized(normalize, input, normalized_shape, weight, None)


def _normalized(
    normalize: Callable[[list[Any]], list[Any]], input: Nested, size: Shape, weight: Nested, bias: Nested
) -> Nested:
    """`normalize` each block of the shape `size` in the last dimensions of input, then scale and shift it."""
    own = shape(input, "input")
    if not size or own[-len(size) :] != tuple(size) or 0 in own:
        raise ValueError(f"input: expected a shape that ends in {tuple(size)} (normalized_shape), got {own}")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and shape(parameter, name) != tuple(size):
            raise ValueError(f"{name}: expected the shape {tuple(size)} (normalized_shape), got {shape(parameter)}")
    w = flatten(weight) if weight is not None else None
    b = flatten(bias) if bias is not None else None

    def block(x: Nested) -> Nested:
        y = normalize(flatten(x))
        y = [v * wi for v, wi in zip(y, w)] if w is not None else y
        y = [v + bi for v, bi in zip(y, b)] if b is not None else y
        return unflatten(y, tuple(size))

    return _blocks(block, input, len(own) - len(size))


def _blocks(f: Callable[[Nested], Nested], x: Nested, depth: int) -> Nested:
    """f of everything that stands `depth` levels deep in x."""
    return [_blocks(f, row, depth - 1) for row in x] if depth else f(x)


def scaled_dot_product_attention(
    query: Nested, key: Nested, value: Nested, attn_mask: Nested = None, dropout_p: float = 0.0
) -> tuple[Nested, Nested]:
    """softmax(query · keyᵀ / sqrt(d) + mask) · value, and the softmax itself. Vaswani et al. 2017, eq. 1.

    Shapes: query (…, L, d), key (…, S, d), value (…, S, dv) → (…, L, dv) and (…, L, S), with the same … everywhere.
    `attn_mask` broadcasts to (…, L, S). It holds bools, False where a query may not look, or numbers that are added.
    A query that may look nowhere (or whose numbers are all -inf) has no answer: its weights and its output are NaN.
    PyTorch's function returns the output alone, and 0 for such a query.
    """
    scores_shape = _scores_shape(query, key, value)
    mask = None if attn_mask is None else attention_mask(attn_mask, scores_shape, "attn_mask")
    if len(scores_shape) > 2:
        masks = [None] * len(query) if mask is None else mask
        results = [scaled_dot_product_attention(*rows, dropout_p) for rows in zip(query, key, value, masks)]
        return [output for output, _ in results], [weights for _, weights in results]
    scale = 1 / math.sqrt(len(query[0]))
    scores = [[ops.dot(q, k) * scale for k in key] for q in query]
    weights = dropout(softmax(scores if mask is None else elementwise(_masked, scores, mask)), dropout_p)
    columns = list(zip(*value, strict=True))
    return [[ops.dot(row, column) for column in columns] for row in weights], weights


def _scores_shape(query: Nested, key: Nested, value: Nested) -> Shape:
    """(…, L, S). Raises ValueError if the three do not go together."""
    q, k, v = shape(query, "query"), shape(key, "key"), shape(value, "value")
    if len(q) < 2 or 0 in q:
        raise ValueError(f"query: expected the shape (…, L, d), got {q}")
    if len(k) != len(q) or (*k[:-2], k[-1]) != (*q[:-2], q[-1]):
        raise ValueError(f"key: expected the shape {(*q[:-2], 'S', q[-1])} beside a query of {q}, got {k}")
    if len(v) != len(q) or v[:-1] != k[:-1] or 0 in v:
        raise ValueError(f"value: expected the shape {(*k[:-1], 'dv')} beside a key of {k}, got {v}")
    return (*q[:-1], k[-2])


def attention_mask(mask: Nested, to: Shape, name: str) -> Nested:
    """`mask` broadcast to the shape `to`: all conditions (see `is_condition`), or all numbers.

    Raises TypeError for a mixture, and for whole numbers alone, as PyTorch does: 1 might mean True.
    """
    entries = flatten(mask)
    conditions = list(map(is_condition, entries))
    if all(conditions):
        return broadcast(elementwise(lambda m: m if isinstance(m, Value) else bool(m), mask), to, name)
    if any(conditions) or all(hasattr(m, "__index__") and not _is_traced(m) for m in entries):
        raise TypeError(f"{name}: expected bools only, or floats that are added, got {mask!r:.60}")
    return broadcast(mask, to, name)


def is_condition(x: Any) -> bool:
    """Whether x is a bool, NumPy's included, or a comparison of traced numbers, which would be one eagerly."""
    kind = type(x)
    if kind is bool or kind is Answer or kind is float:
        return kind is not float
    if _is_traced(x):
        return x.op is ops.less or x.op is ops.less_equal
    return getattr(x, "dtype", None) == "bool"


def _masked(score: Number, mask: Any) -> Any:
    if isinstance(mask, bool):
        return score if mask else -math.inf
    return score + mask if not is_condition(mask) else ops.where(mask, score, -math.inf)


# ── Images: a sample is (channels, height, width), a batch has one more dimension in front ─────────────────────────


def conv2d(
    input: Nested,
    weight: Nested,
    bias: Nested = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Nested:
    """The cross-correlation of an image with kernels: each output number is a dot product with one patch.

    Shapes: input (C, H, W) or (N, C, H, W), weight (out, C / groups, kh, kw), bias (out,) → (out, H', W') or
    (N, out, H', W') with H' = (H + 2·padding - dilation·(kh - 1) - 1) // stride + 1, and W' alike.
    `padding` may be "valid" (none) or "same" (H' = H; only with stride 1).
    """
    own, kernels = shape(input, "input"), shape(weight, "weight")
    if len(kernels) != 4 or 0 in kernels:
        raise ValueError(f"weight: expected the shape (out, C / groups, kh, kw), all at least 1, got {kernels}")
    if len(own) not in (3, 4):
        raise ValueError(f"input: expected the shape (C, H, W) or (N, C, H, W), got {own} for a weight of {kernels}")
    if len(own) == 4:
        return [conv2d(x, weight, bias, stride, padding, dilation, groups) for x in input]
    out, channels, kh, kw = kernels
    if groups < 1 or out % groups:
        raise ValueError(f"groups: expected a divisor of {out} (output channels), got {groups}")
    if own[0] != channels * groups:
        raise ValueError(f"input: expected {channels * groups} channels, got {own[0]}")
    if bias is not None:
        _check_bias(bias, out)
    strides, dilations = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    image = _pad(input, _paddings(padding, (kh, kw), strides, dilations), 0.0)
    rows = _windows(len(image[0]), kh, strides[0], dilations[0])
    columns = _windows(len(image[0][0]), kw, strides[1], dilations[1])
    flat = [flatten(kernel) for kernel in weight]
    biases = [0.0] * out if bias is None else list(bias)

    def feature_maps(group: int) -> Nested:
        planes = image[group * channels : (group + 1) * channels]
        own = slice(group * out // groups, (group + 1) * out // groups)

        def at(r: range, c: range) -> list[Any]:
            patch = [plane[i][j] for plane in planes for i in r for j in c]
            return [z + b for z, b in zip(ops.matvec(flat[own], patch), biases[own])]

        by_place = [[at(r, c) for c in columns] for r in rows]
        return [[[z[o] for z in line] for line in by_place] for o in range(out // groups)]

    return [feature_map for group in range(groups) for feature_map in feature_maps(group)]


def max_pool2d(
    input: Nested, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Nested:
    """The largest number of each window; among equals the first one gets the gradient, as in PyTorch.

    Shapes as in `conv2d`, with a window in the place of a kernel; `stride` None is kernel_size. `ceil_mode` adds a
    last window that hangs over the edge. Padding never wins; NaN does.
    """

    def largest(xs: list[Any]) -> Any:
        step, n = 1, len(xs)
        while step < n:  # two by two, so that the derivatives by all of them are alike
            for i in range(0, n - step, 2 * step):
                z, x = xs[i], xs[i + step]
                xs[i] = ops.where((x > z) + (x != x), x, z)  # x is larger, or NaN
            step *= 2
        return xs[0] if xs else -math.inf

    def pool(plane: Nested, rows: Sequence[range], columns: Sequence[range]) -> Nested:
        return [[largest(_inside(plane, r, c)) for c in columns] for r in rows]

    return _pooled(pool, input, kernel_size, stride, padding, dilation, ceil_mode)


def avg_pool2d(
    input: Nested,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Nested:
    """The mean of each window. Shapes as in `max_pool2d`; padding counts as zeros unless `count_include_pad` is off."""
    high, wide = pair(padding, "padding", 0)
    if divisor_override == 0:
        raise ValueError("divisor_override: expected a number other than 0, got 0")

    def average(plane: Nested, r: range, c: range) -> Any:
        inside = _inside(plane, r, c)
        covered = _within(r, len(plane), high) * _within(c, len(plane[0]), wide)
        return ops.sum(inside) / (divisor_override or (covered if count_include_pad else len(inside)))

    def pool(plane: Nested, rows: Sequence[range], columns: Sequence[range]) -> Nested:
        return [[average(plane, r, c) for c in columns] for r in rows]

    return _pooled(pool, input, kernel_size, stride, padding, 1, ceil_mode)


def flatten_dims(input: Nested, start_dim: int = 1, end_dim: int = -1) -> Nested:
    """The dimensions start_dim … end_dim of `input` made one."""
    ndim = len(shape(input, "input"))
    for name, dim in (("start_dim", start_dim), ("end_dim", end_dim)):
        if not -ndim <= dim < ndim:
            raise IndexError(f"{name}: expected a dimension of the input, from {-ndim} to {ndim - 1}, got {dim}")
    start, end = start_dim % ndim, end_dim % ndim
    if start > end:
        raise ValueError(f"start_dim: expected it not to come after end_dim, got {start_dim} and {end_dim}")
    return _merge(input, start, end - start)


def _merge(x: Nested, start: int, extra: int) -> Nested:
    """The dimension `start` and the `extra` ones below it made one."""
    if start:
        return [_merge(row, start - 1, extra) for row in x]
    for _ in range(extra):
        x = [item for row in x for item in row]
    return x


def pair(x: Any, name: str, least: int) -> tuple[int, int]:
    """One whole number for both directions, or a pair (vertical, horizontal); each at least `least`."""
    both = tuple(x) if is_list(x) else (x, x)
    if len(both) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < least for n in both):
        raise ValueError(f"{name}: expected a whole number >= {least}, or a pair of them, got {x!r}")
    return both


def conv_padding(padding: Any, strides: tuple[int, int]) -> Any:
    """The padding of a convolution, checked: a pair of whole numbers, or "same"."""
    if padding == "same" and strides != (1, 1):
        raise ValueError(f"padding: 'same' goes with stride 1 only, got the stride {strides}")
    if isinstance(padding, str) and padding not in ("same", "valid"):
        raise ValueError(f"padding: expected 'valid', 'same', a whole number or a pair of them, got {padding!r}")
    return padding if padding == "same" else (0, 0) if padding == "valid" else pair(padding, "padding", 0)


def pool_options(kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> tuple[tuple[int, int], ...]:
    """(kernel, strides, paddings, dilations) of a pooling window, each a pair, and checked."""
    kernel, paddings = pair(kernel_size, "kernel_size", 1), pair(padding, "padding", 0)
    if any(2 * p > k for p, k in zip(paddings, kernel)):
        raise ValueError(f"padding: expected at most half of kernel_size {kernel}, got {paddings}")
    return kernel, kernel if stride is None else pair(stride, "stride", 1), paddings, pair(dilation, "dilation", 1)


def _paddings(padding: Any, kernel: Shape, strides: tuple[int, int], dilations: Shape) -> list[tuple[int, int]]:
    """(before, after) for each direction. "same" puts the odd one after, as PyTorch does."""
    padding = conv_padding(padding, strides)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilations)]
        return [(n // 2, n - n // 2) for n in totals]
    return [(n, n) for n in padding]


def _pad(image: Nested, paddings: list[tuple[int, int]], value: float) -> Nested:
    (top, bottom), (left, right) = paddings
    width = left + len(image[0][0]) + right

    def plane(rows: Nested) -> Nested:
        middle = [[value] * left + list(row) + [value] * right for row in rows]
        return full((top, width), value) + middle + full((bottom, width), value)

    return [plane(rows) for rows in image]


def _windows(
    length: int, kernel: int, stride: int, dilation: int, padding: int = 0, ceil_mode: bool = False
) -> list[range]:
    """The places each window covers, counted without the padding (which is below 0, and past the end)."""
    reach = dilation * (kernel - 1) + 1
    room = length + 2 * padding - reach
    if ceil_mode and -stride < room < 0:
        return [range(-padding, reach - padding, dilation)]
    if room < 0:
        raise ValueError(f"input: expected a length of at least {reach - 2 * padding} for this kernel, got {length}")
    starts = range(-padding, room - padding + 1, stride)
    if ceil_mode and room % stride and starts[-1] + stride < length:
        starts = range(-padding, starts[-1] + stride + 1, stride)
    return [range(start, start + reach, dilation) for start in starts]


def _within(window: range, length: int, padding: int) -> int:
    """How many places of a window lie on the line or its padding: one that hangs over the edge is cut there."""
    return len([i for i in window if i < length + padding])


def _inside(plane: Nested, rows: range, columns: range) -> list[Any]:
    """The numbers of `plane` under a window, without the padding."""
    height, width = len(plane), len(plane[0])
    return [plane[i][j] for i in rows if 0 <= i < height for j in columns if 0 <= j < width]


def _pooled(
    pool: Callable[[Nested, list[range], list[range]], Nested],
    input: Nested,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> Nested:
    own = shape(input, "input")
    if len(own) not in (3, 4):
        raise ValueError(f"input: expected the shape (C, H, W) or (N, C, H, W), got {own}")
    options = zip(own[-2:], *pool_options(kernel_size, stride, padding, dilation))
    rows, columns = (_windows(n, k, s, d, p, ceil_mode) for n, k, s, p, d in options)
    if len(own) == 4:
        return [[pool(plane, rows, columns) for plane in image] for image in input]
    return [pool(plane, rows, columns) for plane in input]


# ── Losses: `reduction` is "mean", "sum" or "none" (one loss per element) ───────────────────────────────────────────


def mse_loss(input: Nested, target: Nested, reduction: str = "mean") -> Any:
    """(x - y)² of each input x and target y."""

    def loss(x: Number, y: Number) -> Any:
        d = x - y
        return d * d

    return _pointwise(loss, input, target, reduction)


def l1_loss(input: Nested, target: Nested, reduction: str = "mean") -> Any:
    """|x - y| of each input x and target y."""
    return _pointwise(lambda x, y: ops.abs(x - y), input, target, reduction)


def huber_loss(input: Nested, target: Nested, reduction: str = "mean", delta: float = 1.0) -> Any:
    """½·d² where d = |x - y| < delta, else delta · (d - ½·delta). Huber 1964."""
    if not delta > 0:
        raise ValueError(f"delta: expected a number > 0, got {delta}")

    def loss(x: Number, y: Number) -> Any:
        d = x - y
        size = ops.abs(d)
        large = size >= delta  # a NaN is not, and goes the way on which its derivative is NaN, too
        near = ops.where(large, 0.0, d)  # an infinite d stays out of the square, and out of its derivative
        return ops.where(large, delta * (size - 0.5 * delta), 0.5 * near * near)

    return _pointwise(loss, input, target, reduction)


def smooth_l1_loss(input: Nested, target: Nested, reduction: str = "mean", beta: float = 1.0) -> Any:
    """½·d²/beta where d = |x - y| < beta, else d - ½·beta. Girshick 2015, eq. 3."""
    if not beta >= 0:
        raise ValueError(f"beta: expected a number >= 0, got {beta}")
    if beta == 0:
        return l1_loss(input, target, reduction)

    def loss(x: Number, y: Number) -> Any:
        d = x - y
        size = ops.abs(d)
        large = size >= beta  # as in huber_loss
        near = ops.where(large, 0.0, d)
        return ops.where(large, size - 0.5 * beta, 0.5 * near * near / beta)

    return _pointwise(loss, input, target, reduction)


def binary_cross_entropy(input: Nested, target: Nested, weight: Nested = None, reduction: str = "mean") -> Any:
    """-(y·ln x + (1 - y)·ln(1 - x)) of each probability x, with each logarithm at least -100 as in PyTorch.

    Targets y are probabilities, too: others raise ValueError, as inputs do. `weight` scales each element, and is
    broadcast to the shape of input.
    """
    return _pointwise(ops.bce, input, target, reduction, weight)


def binary_cross_entropy_with_logits(
    input: Nested, target: Nested, weight: Nested = None, reduction: str = "mean", pos_weight: Nested = None
) -> Any:
    """The binary cross entropy of sigmoid(x), exact for every x: y·softplus(-x) + (1 - y)·softplus(x).

    `pos_weight` scales the first term; it and `weight` are broadcast to the shape of input.
    """
    own = shape(input, "input")
    positive = full(own, 1.0) if pos_weight is None else broadcast(pos_weight, own, "pos_weight")

    def loss(x: Number, y: Number, p: Number) -> Any:
        return p * y * ops.softplus(-x) + (1 - y) * ops.softplus(x)

    return _pointwise(loss, input, target, reduction, weight, positive)


def kl_div(input: Nested, target: Nested, reduction: str = "mean", log_target: bool = False) -> Any:
    """y · (ln y - x) of each log-probability x and probability y (0 where y is 0): the divergence of Kullback, Leibler.

    With `log_target` the targets are log-probabilities, too. The reduction "batchmean" is the sum divided by the
    length of the first dimension: the divergence as mathematics has it.
    """

    def loss(x: Number, y: Number) -> Any:
        return ops.exp(y) * (y - x) if log_target else y * (ops.log(y) - x)

    if reduction == "batchmean":
        return _pointwise(loss, input, target, "sum") / (len(input) if is_list(input) else 1)
    return _pointwise(loss, input, target, reduction)


def nll_loss(
    input: Nested, target: Nested, weight: Nested = None, ignore_index: int = -100, reduction: str = "mean"
) -> Any:
    """-x[target] of each vector x of log-probabilities, scaled by weight[target].

    Shapes: input (C,), (N, C) or (N, C, d…); target the same without C: whole numbers from 0 to C - 1, or
    `ignore_index` for a sample that does not count. The mean is weighted: Σ losses / Σ weight[target].
    """
    return _class_losses(input, target, weight, ignore_index, reduction, 0.0)


def cross_entropy(
    input: Nested,
    target: Nested,
    weight: Nested = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """The negative log-probability that softmax(x) gives to the target class, of each vector x of logits.

    Shapes: input (C,), (N, C) or (N, C, d…); target either class indices, as in `nll_loss`, or probabilities in the
    shape of input. `label_smoothing` mixes the target with the uniform distribution (Szegedy et al. 2015, section 7).
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing: expected a number between 0 and 1, got {label_smoothing}")
    size = shape(input, "input")
    log_p = log_softmax(input, 0 if len(size) == 1 else 1) if size and 0 not in size else input
    if size and shape(target, "target") == size:
        return _probability_losses(log_p, target, weight, reduction, label_smoothing)
    return _class_losses(log_p, target, weight, ignore_index, reduction, label_smoothing)


def _pointwise(
    loss: Callable[..., Any], input: Nested, target: Nested, reduction: str, weight: Nested = None, *more: Nested
) -> Any:
    """`loss` of each input and target, scaled by `weight` and reduced."""
    own, other = shape(input, "input"), shape(target, "target")
    if own != other:
        raise ValueError(f"target: expected the shape of input, {own}, got {other}")
    _check_numbers(input, "input")
    _check_target(target)
    losses = elementwise(loss, input, target, *more)
    if weight is not None:
        losses = elementwise(operator.mul, losses, broadcast(weight, own, "weight"))
    return _reduced(losses, reduction)


def _reduced(losses: Nested, reduction: str) -> Any:
    if reduction == "none":
        return losses
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
    flat = flatten(losses)
    if not flat:
        raise ValueError("input: expected at least one number, got an empty list")
    return ops.mean(flat) if reduction == "mean" else ops.sum(flat)


def _check_numbers(x: Nested, name: str) -> None:
    for path, item in leaves(x, name):
        if not isinstance(item, Value):
            number(item, path)


def _check_target(target: Nested) -> None:
    for path, y in leaves(target, "target"):
        if not isinstance(y, Value) and math.isnan(number(y, path)):
            raise ValueError(f"{path}: expected a number, got NaN")


def _index(i: Any, n: int, name: str) -> int:
    """`i` as an index below n. What is not whole raises TypeError, what is out of range IndexError."""
    try:
        index = operator.index(i)
    except TypeError:
        raise TypeError(f"{name}: expected whole numbers from 0 to {n - 1}, got {i!r:.60}") from None
    if not 0 <= index < n:
        raise IndexError(f"{name}: expected whole numbers from 0 to {n - 1}, got {index}")
    return index


def _vectors(x: Nested, size: Shape) -> list[Sequence[Any]]:
    """The vectors along the class dimension of x: x itself, each row, or for (N, C, d…) one for each n and d."""
    if len(size) == 1:
        return [x]
    if len(size) == 2:
        return list(x)
    return [vector for sample in x for vector in zip(*map(flatten, sample), strict=True)]


def _class_weights(weight: Nested, classes: int) -> Sequence[Any]:
    if weight is None:
        return [1.0] * classes
    if shape(weight, "weight") != (classes,):
        raise ValueError(f"weight: expected one number for each of the {classes} classes, got {shape(weight)}")
    return weight  # type: ignore[no-any-return]


def _class_losses(
    log_p: Nested, target: Nested, weight: Nested, ignore_index: int, reduction: str, smoothing: float
) -> Any:
    """Losses against class indices: -w·log p of the target and, by `smoothing`, the mean of that over all classes."""
    size = _class_shape(log_p)
    classes = size[0] if len(size) == 1 else size[1]
    expected = () if len(size) == 1 else (size[0], *size[2:])
    if shape(target, "target") != expected:
        raise ValueError(f"target: expected class indices of the shape {expected}, got {shape(target, 'target')}")
    w = _class_weights(weight, classes)

    def smoothed(one: Any, x: Sequence[Any]) -> Any:
        return (1 - smoothing) * one - smoothing / classes * ops.dot(x, w) if smoothing else one

    vectors, targets = _vectors(log_p, size), flatten(target)
    if not {*map(type, targets)} <= {int} and any(map(_is_traced, targets)):  # a glance at the types is enough for ints
        each = [_traced_class_loss(x, t, weight, ignore_index, smoothed) for x, t in zip(vectors, targets, strict=True)]
        losses, counted = map(list, zip(*each))
    else:
        targets = [t if t == ignore_index else _index(t, classes, "target") for t in targets]
        pairs = zip(vectors, targets, strict=True)
        losses = [0.0 if t == ignore_index else smoothed(-x[t] * w[t], x) for x, t in pairs]
        counted = [w[t] for t in targets if t != ignore_index]
        if not counted:  # a loss that still is one of the predictions, and has the gradient 0
            losses = [ops.where(False, x[0], 0.0) for x in vectors]
    if reduction != "mean":
        return _reduced(unflatten(losses, expected), reduction)
    if not counted:
        raise ValueError(f"target: expected at least one class, got only {ignore_index} (ignore_index)")
    total = ops.sum(counted)
    if not isinstance(total, Value) and total == 0:
        raise ValueError("weight: expected the weights of the target classes not to add up to 0")
    return ops.sum(losses) / total


def _traced_class_loss(
    x: Sequence[Any], t: Any, weight: Nested, ignore_index: int, smoothed: Callable[[Any, Sequence[Any]], Any]
) -> tuple[Any, Any]:
    """The loss against a traced class index, and its weight.

    An ignored index has the loss 0 and the weight 0; any other number that is no class makes NaN of both.
    """
    choice = [0.0 if i == ignore_index else is_i for i, is_i in enumerate(_choice(t, len(x)))]
    counts, otherwise = ops.sum(choice) > 0, ops.where(ops.equal(t, ignore_index), 0.0, math.nan)
    chosen = ops.sum([ops.where(is_i, xi, 0.0) for is_i, xi in zip(choice, x)])  # in a dot, 0 · -inf would be NaN
    w = 1.0 if weight is None else ops.dot(choice, weight)
    return ops.where(counts, smoothed(-chosen * w, x), otherwise), ops.where(counts, w, otherwise)


def _probability_losses(log_p: Nested, target: Nested, weight: Nested, reduction: str, smoothing: float) -> Any:
    """Losses against probabilities: -Σ w·y·log p over the classes; the mean is over the vectors, not weighted."""
    size = _class_shape(log_p)
    classes = size[0] if len(size) == 1 else size[1]
    w = _class_weights(weight, classes)
    _check_target(target)

    def loss(x: Sequence[Any], ys: Iterable[Number]) -> Any:
        mixed = [y * (1 - smoothing) + smoothing / classes for y in ys] if smoothing else list(ys)
        return -ops.dot(x, [y * wi for y, wi in zip(mixed, w, strict=True)])

    losses = [loss(x, ys) for x, ys in zip(_vectors(log_p, size), _vectors(target, size), strict=True)]
    return _reduced(unflatten(losses, () if len(size) == 1 else (size[0], *size[2:])), reduction)


def _class_shape(x: Nested) -> Shape:
    size = shape(x, "input")
    if not size or 0 in size:
        raise ValueError(f"input: expected the shape (C,), (N, C) or (N, C, d…), all at least 1, got {size}")
    return size
