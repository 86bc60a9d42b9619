"""MultiheadAttention: vectors that look at each other, in several ways at once.

The computation of one head is `functional.scaled_dot_product_attention`; here are the projections around it, the
masks in PyTorch's two meanings, and the batch, which is one sample mapped.
"""

from __future__ import annotations

import math

from milligrad import functional as F
from milligrad import ops
from milligrad.expected import size
from milligrad.nested import Nested, Shape, elementwise, flatten, full, shape, transpose, unflatten
from milligrad.nn import init
from milligrad.nn.layers import Linear
from milligrad.nn.module import Module, Parameter
from milligrad.typing import Any


class MultiheadAttention(Module):
    """Attention in `num_heads` heads, each on its own embed_dim / num_heads numbers of the projected vectors.

    Vaswani et al. 2017, section 3.2.2. The rows of in_proj_weight (3·embed_dim, embed_dim) project the query, then
    the key, then the value; if `kdim` or `vdim` is another width than embed_dim, q_proj_weight, k_proj_weight and
    v_proj_weight do. They start Xavier-uniform, in_proj_bias (3·embed_dim,) and the bias of out_proj at zero.
    `dropout` acts on the attention weights, in training.
    """

    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = size(embed_dim, "embed_dim"), size(num_heads, "num_heads")
        if embed_dim % num_heads:
            raise ValueError(f"num_heads: expected a divisor of embed_dim = {embed_dim}, got {num_heads}")
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout: expected a probability between 0 and 1, got {dropout}")
        self.dropout, self.batch_first = dropout, batch_first
        self.head_dim = embed_dim // num_heads
        self.kdim = embed_dim if kdim is None else size(kdim, "kdim")
        self.vdim = embed_dim if vdim is None else size(vdim, "vdim")
        self._set_weights()
        self.register_parameter("in_proj_bias", Parameter(full((3 * embed_dim,), 0.0)) if bias else None)
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def _set_weights(self) -> None:
        e, k, v = self.embed_dim, self.kdim, self.vdim
        one = {"in_proj_weight": (3 * e, e)}
        three = {"q_proj_weight": (e, e), "k_proj_weight": (e, k), "v_proj_weight": (e, v)}
        used = one if e == k == v else three
        for name in one | three:
            weight = init.xavier_uniform_(Parameter(full(used[name], 0.0))) if name in used else None
            self.register_parameter(name, weight)

    def forward(
        self,
        query: Nested,
        key: Nested,
        value: Nested,
        key_padding_mask: Nested = None,
        need_weights: bool = True,
        attn_mask: Nested = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Nested, Nested]:
        """What each query gathers from the values, and the attention weights (None without `need_weights`).

        Shapes: query (L, embed_dim), key (S, kdim), value (S, vdim), or a batch of them with N in the middle,
        (L, N, embed_dim), or first with `batch_first`. Output as query; weights (L, S) or (N, L, S), the mean over
        the heads, or without `average_attn_weights` (num_heads, L, S) or (N, num_heads, L, S).

        Masks: key_padding_mask (S,) or (N, S) for all queries; attn_mask (L, S) for all samples and heads, or
        (N·num_heads, L, S). Their elements are bools, True where a query may *not* look (the reverse of
        `scaled_dot_product_attention`, as in PyTorch), or floats that are added to the scores. `is_causal` only says
        that attn_mask, which must be given, is the causal mask. A query that may look nowhere gets NaN as weights and
        as output; PyTorch does the same with `need_weights`, and puts 0 in the place of attention without.

        Raises ValueError for other shapes, TypeError for a mask of whole numbers, or of bools and numbers.
        """
        inputs = query, key, value
        scores = self._scores_shape(*inputs)
        batched = len(shape(query)) == 3
        if is_causal and attn_mask is None:
            raise ValueError("attn_mask: expected the causal mask with is_causal, got None")
        masks = self._masks(key_padding_mask, attn_mask, scores, batched)
        samples = [[x] if not batched else x if self.batch_first else transpose(x) for x in inputs]
        results = [self._attend(*sample) for sample in zip(*samples, masks, strict=True)]
        outputs = [output for output, _ in results]
        weights = [_mean(heads) if average_attn_weights else heads for _, heads in results] if need_weights else None
        if not batched:
            return outputs[0], weights and weights[0]
        return outputs if self.batch_first else transpose(outputs), weights

    def _attend(self, query: Nested, key: Nested, value: Nested, mask: Nested) -> tuple[Nested, Nested]:
        """One sample: its output (L, embed_dim), and the weights of each head (num_heads, L, S)."""
        q, k, v = [self._heads(F.linear(x, w, b)) for x, w, b in zip((query, key, value), *self._projections())]
        outputs, weights = F.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0)
        joined = [[x for head in heads for x in head] for heads in transpose(outputs)]
        return self.out_proj(joined), weights

    def _projections(self) -> tuple[list[Nested], list[Nested]]:
        """The weights and the biases that project the query, the key and the value."""
        if self.in_proj_weight is None:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        else:
            weights = _thirds(self.in_proj_weight)
        return weights, [None] * 3 if self.in_proj_bias is None else _thirds(self.in_proj_bias)

    def _heads(self, xs: Nested) -> list[Nested]:
        """Vectors of embed_dim numbers, cut into the part of each head: (L, embed_dim) → (num_heads, L, head_dim)."""
        d = self.head_dim
        return [[x[h * d : (h + 1) * d] for x in xs] for h in range(self.num_heads)]

    def _scores_shape(self, query: Nested, key: Nested, value: Nested) -> Shape:
        """(N, num_heads, L, S), N = 1 without a batch. Raises ValueError if the three do not go together."""
        own, keys = shape(query, "query"), shape(key, "key")
        batch = "N, L" if self.batch_first else "L, N"
        if len(own) not in (2, 3) or own[-1] != self.embed_dim:
            expected = f"(L, {self.embed_dim}) or ({batch}, {self.embed_dim}), with L >= 1"
            raise ValueError(f"query: expected the shape {expected}, got {own}")
        at = 1 if len(own) == 3 and self.batch_first else 0  # the dimension that runs along a sequence
        samples = own[1 - at] if len(own) == 3 else 1
        sources = keys[at] if len(keys) == len(own) else "S"
        for x, name, width in ((key, "key", self.kdim), (value, "value", self.vdim)):
            wanted = (*own[:at], sources, *own[at + 1 : -1], width)
            if shape(x, name) != wanted:
                raise ValueError(f"{name}: expected the shape {wanted} beside a query of {own}, got {shape(x, name)}")
        return (samples, self.num_heads, own[at], keys[at])

    def _masks(self, padding: Nested, mask: Nested, scores: Shape, batched: bool) -> Nested:
        """Both masks as one per sample, (num_heads, L, S) with True where a query may look, or None."""
        n, heads, targets, sources = scores
        masks = []
        if mask is not None:
            _check_shape(mask, "attn_mask", (targets, sources), (n * heads, targets, sources))
            each = unflatten(flatten(mask), scores) if len(shape(mask)) == 3 else mask
            masks.append(_allowed(each, "attn_mask", scores))
        if padding is not None:
            _check_shape(padding, "key_padding_mask", (n, sources) if batched else (sources,))
            rows = padding if batched else [padding]
            masks.append(_allowed([[[row]] for row in rows], "key_padding_mask", scores))
        return elementwise(_both, *masks) if len(masks) == 2 else masks[0] if masks else [None] * n


def _thirds(x: Nested) -> list[Nested]:
    n = len(x) // 3
    return [x[:n], x[n : 2 * n], x[2 * n :]]


def _mean(heads: Nested) -> Nested:
    """The mean over the heads of their weights: (num_heads, L, S) → (L, S)."""
    return elementwise(lambda *ws: ops.mean(ws), *heads)


def _check_shape(mask: Nested, name: str, *expected: Shape) -> None:
    if shape(mask, name) not in expected:
        raise ValueError(f"{name}: expected the shape {' or '.join(map(str, expected))}, got {shape(mask, name)}")


def _allowed(mask: Nested, name: str, scores: Shape) -> Nested:
    """The mask for all scores, its bools reversed: True where a query may look. Numbers stay."""
    return elementwise(_reversed, F.attention_mask(mask, scores, name))


# Of a condition: a bool, or a traced comparison, which has to stay a comparison.


def _reversed(m: Any) -> Any:
    """`not m` of a condition; a number stays."""
    if isinstance(m, bool):
        return not m
    return m < 1 if F.is_condition(m) else m


def _both(x: Any, y: Any) -> Any:
    """One place of two masks: allowed where both allow it; numbers are added, to 0 or -inf if one mask is of bools."""
    if isinstance(x, bool) and isinstance(y, bool):
        return x and y
    if F.is_condition(x) and F.is_condition(y):
        return x + y > 1
    return _number(x) + _number(y)


def _number(m: Any) -> Any:
    if isinstance(m, bool):
        return 0.0 if m else -math.inf
    return ops.where(m, 0.0, -math.inf) if F.is_condition(m) else m
