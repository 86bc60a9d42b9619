"""MultiheadAttention against PyTorch's: outputs, attention weights, gradients of parameters and inputs, masks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import Value, nn, ops
from milligrad import functional as F
from milligrad.engine import number
from milligrad.nested import elementwise, flatten

torch.set_num_threads(1)

# One kind of mask for both is what PyTorch asks for; with two kinds it warns, and does what is tested below.
pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")


def tensor(x):
    return torch.tensor(elementwise(number, x), dtype=torch.float64)


def close(actual, expected, nan=False):
    actual = tensor(actual)
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12, equal_nan=nan)


def pair(*sizes, **options):
    """The same attention twice: PyTorch's, and milligrad's with its numbers. Biases are drawn, to be seen."""
    theirs = torch.nn.MultiheadAttention(*sizes, dtype=torch.float64, **options)
    for name, p in theirs.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(p)
    ours = nn.MultiheadAttention(*sizes, **options)
    ours.load_state_dict({path: p.tolist() for path, p in theirs.state_dict().items()})
    return ours, theirs


def inputs(n, targets, sources, widths, batch_first=False):
    """query, key, value as tensors to be differentiated; n None is one sample."""
    sizes = [(length, width) for length, width in zip((targets, sources, sources), widths)]
    if n is not None:
        sizes = [(n, length, w) if batch_first else (length, n, w) for length, w in sizes]
    return [torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in sizes]


def mask_of(kind, *shape):
    """A mask that leaves the first key of each row open: bools, True where it is closed, or numbers."""
    if kind == "bool":
        mask = torch.rand(*shape) < 0.4
        mask[..., 0] = False
        return mask
    mask = torch.randn(*shape, dtype=torch.float64)
    closed = torch.rand(*shape) < 0.4
    closed[..., 0] = False
    return mask.masked_fill(closed, -math.inf) if kind == "float" else None


def listed(mask):
    return None if mask is None else mask.tolist()


def compare(ours, theirs, tensors, key_padding_mask=None, attn_mask=None, **options):
    """Output and weights, and the gradients of a sum of both with different weights."""
    values = [elementwise(Value, t.tolist()) for t in tensors]
    results = ours(*values, key_padding_mask=listed(key_padding_mask), attn_mask=listed(attn_mask), **options)
    expected = theirs(*tensors, key_padding_mask=key_padding_mask, attn_mask=attn_mask, **options)
    assert (results[1] is None) == (expected[1] is None)
    results, expected = [[x for x in pair if x is not None] for pair in (results, expected)]
    for actual, wanted in zip(results, expected, strict=True):
        close(actual, wanted)

    seeds = [torch.randn_like(t) for t in expected]
    sum((t * seed).sum() for t, seed in zip(expected, seeds)).backward()
    ops.dot([v for x in results for v in flatten(x)], [float(g) for seed in seeds for g in seed.flatten()]).backward()
    for name, p in theirs.named_parameters():
        close(dict(ours.named_parameters())[name].grad, p.grad)
    for x, t in zip(values, tensors):
        close(elementwise(lambda v: v.grad, x), t.grad)


@settings(max_examples=25, deadline=None)
@given(
    heads=st.integers(1, 3),
    head_dim=st.integers(1, 2),
    n=st.sampled_from([None, 1, 2]),
    targets=st.integers(1, 3),
    sources=st.integers(1, 3),
    other_widths=st.sampled_from([(None, None), (2, None), (None, 5), (3, 4)]),
    bias=st.booleans(),
    batch_first=st.booleans(),
    padding=st.sampled_from([None, "bool", "float"]),
    mask=st.sampled_from([None, "bool", "float"]),
    mask_for_each_head=st.booleans(),
    need_weights=st.booleans(),
    average=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_results_and_gradients_are_pytorchs(
    heads,
    head_dim,
    n,
    targets,
    sources,
    other_widths,
    bias,
    batch_first,
    padding,
    mask,
    mask_for_each_head,
    need_weights,
    average,
    seed,
):
    torch.manual_seed(seed)
    e = heads * head_dim
    kdim, vdim = other_widths
    ours, theirs = pair(e, heads, bias=bias, kdim=kdim, vdim=vdim, batch_first=batch_first)
    tensors = inputs(n, targets, sources, (e, kdim or e, vdim or e), batch_first)
    padding_shape = (sources,) if n is None else (n, sources)
    mask_shape = ((n or 1) * heads, targets, sources) if mask_for_each_head else (targets, sources)
    compare(
        ours,
        theirs,
        tensors,
        mask_of(padding, *padding_shape) if padding else None,
        mask_of(mask, *mask_shape) if mask else None,
        need_weights=need_weights,
        average_attn_weights=average,
    )


@pytest.mark.parametrize("padding", [None, "bool", "float"])
@pytest.mark.parametrize("mask", [None, "bool", "float"])
@pytest.mark.parametrize("mask_shape", [(3, 4), (4, 3, 4)])
def test_every_kind_of_mask_together_with_every_other(padding, mask, mask_shape):
    torch.manual_seed(1)
    ours, theirs = pair(4, 2)
    tensors = inputs(2, 3, 4, (4, 4, 4))
    compare(
        ours,
        theirs,
        tensors,
        mask_of(padding, 2, 4) if padding else None,
        mask_of(mask, *mask_shape) if mask else None,
        average_attn_weights=False,
    )


def test_self_attention_adds_up_the_gradients_of_its_three_roles():
    torch.manual_seed(2)
    ours, theirs = pair(4, 2)
    x = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    values = elementwise(Value, x.tolist())
    output, expected = ours(values, values, values)[0], theirs(x, x, x)[0]
    close(output, expected)
    expected.square().sum().backward()
    ops.sum([v * v for v in flatten(output)]).backward()
    close(elementwise(lambda v: v.grad, values), x.grad)


@pytest.mark.parametrize("need_weights", [False, True])
def test_is_causal_beside_the_causal_mask_is_pytorchs(need_weights):
    torch.manual_seed(3)
    ours, theirs = pair(4, 2)
    causal = torch.ones(3, 3, dtype=torch.bool).triu(1)
    compare(ours, theirs, inputs(2, 3, 3, (4, 4, 4)), attn_mask=causal, is_causal=True, need_weights=need_weights)


@pytest.mark.parametrize("scale", [1e-8, 30.0, 1e4])
def test_sharp_and_flat_attention_is_pytorchs(scale):
    torch.manual_seed(4)
    ours, theirs = pair(4, 2)
    tensors = [(t * scale).detach().requires_grad_() for t in inputs(None, 3, 4, (4, 4, 4))]
    values = [elementwise(Value, t.tolist()) for t in tensors]
    expected = theirs(*tensors)
    for actual, wanted in zip(ours(*values), expected, strict=True):  # the outputs are as large as `scale`
        torch.testing.assert_close(tensor(actual), wanted, rtol=1e-9, atol=1e-12 * max(scale, 1))


def mask_that_closes_one_row(kind):
    closed = torch.tensor([[False, True], [True, True], [False, False]])
    return closed if kind == "bool" else torch.zeros(3, 2, dtype=torch.float64).masked_fill(closed, -math.inf)


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("average", [False, True])
def test_a_query_that_may_look_nowhere_gets_nan_and_the_others_do_not(kind, average):
    torch.manual_seed(5)
    ours, theirs = pair(4, 2)
    tensors, mask = inputs(None, 3, 2, (4, 4, 4)), mask_that_closes_one_row(kind)
    options = {"average_attn_weights": average}
    output, weights = ours(*[t.tolist() for t in tensors], attn_mask=mask.tolist(), **options)
    expected = theirs(*tensors, attn_mask=mask, **options)
    close(output, expected[0], nan=True)
    close(weights, expected[1], nan=True)
    assert tensor(output).isnan().any(dim=1).tolist() == [False, True, False]


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_padded_sample_gets_nan_and_the_others_do_not(kind):
    torch.manual_seed(6)
    ours, theirs = pair(4, 2, batch_first=True)
    tensors = inputs(2, 3, 2, (4, 4, 4), batch_first=True)
    closed = torch.tensor([[True, True], [False, True]])
    mask = closed if kind == "bool" else torch.zeros(2, 2, dtype=torch.float64).masked_fill(closed, -math.inf)
    results = ours(*[t.tolist() for t in tensors], key_padding_mask=mask.tolist())
    for actual, wanted in zip(results, theirs(*tensors, key_padding_mask=mask), strict=True):
        close(actual, wanted, nan=True)
        assert tensor(actual)[0].isnan().all() and not tensor(actual)[1].isnan().any()


@pytest.mark.parametrize("need_weights", [True, False])
def test_nan_comes_with_need_weights_or_without_where_pytorch_gives_0_without(need_weights):
    ours, theirs = pair(4, 2)
    tensors, mask = inputs(None, 3, 2, (4, 4, 4)), mask_that_closes_one_row("bool")
    options = {"need_weights": need_weights}
    output, _ = ours(*[t.tolist() for t in tensors], attn_mask=mask.tolist(), **options)
    assert tensor(output)[1].isnan().all()
    assert theirs(*tensors, attn_mask=mask, **options)[0][1].isnan().all() == need_weights


@pytest.mark.parametrize("widths", [{}, {"kdim": 3}, {"vdim": 5}, {"kdim": 3, "vdim": 5}, {"kdim": 4, "vdim": 4}])
@pytest.mark.parametrize("bias", [False, True])
def test_parameters_have_pytorchs_names_and_shapes(widths, bias):
    theirs = torch.nn.MultiheadAttention(4, 2, bias=bias, **widths).state_dict()
    ours = nn.MultiheadAttention(4, 2, bias=bias, **widths)
    assert {name: p.shape for name, p in ours.named_parameters()} == {k: tuple(p.shape) for k, p in theirs.items()}


@pytest.mark.parametrize("widths", [{}, {"kdim": 8, "vdim": 24}])
def test_parameters_start_within_pytorchs_bounds(widths):
    theirs = torch.nn.MultiheadAttention(16, 2, **widths).state_dict()
    for name, numbers in nn.MultiheadAttention(16, 2, **widths).state_dict().items():
        largest = float(theirs[name].abs().max())
        assert float(tensor(numbers).abs().max()) == pytest.approx(largest, rel=0.1)
        assert float(tensor(numbers).mean()) == pytest.approx(0, abs=0.15 * largest)


def test_dropped_weights_are_the_ones_returned_and_used():
    torch.manual_seed(7)
    ours, theirs = pair(4, 2, 0.5)
    x = torch.randn(3, 4, dtype=torch.float64)
    output, weights = ours(x.tolist(), x.tolist(), x.tolist(), average_attn_weights=False)
    heads = torch.nn.functional.linear(x, theirs.in_proj_weight[8:], theirs.in_proj_bias[8:]).reshape(3, 2, 2)
    joined = torch.einsum("hls,shd->lhd", tensor(weights), heads).reshape(3, 4)
    close(output, theirs.out_proj(joined))


@settings(max_examples=25, deadline=None)
@given(
    batch=st.sampled_from([(), (2,), (2, 3), (1, 1, 2)]),
    sizes=st.tuples(*[st.integers(1, 3)] * 4),
    kind=st.sampled_from([None, "bool", "float"]),
    broadcast=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_scaled_dot_product_attention_is_pytorchs(batch, sizes, kind, broadcast, seed):
    torch.manual_seed(seed)
    targets, sources, d, dv = sizes
    shapes = (*batch, targets, d), (*batch, sources, d), (*batch, sources, dv)
    tensors = [torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in shapes]
    values = [elementwise(Value, t.tolist()) for t in tensors]
    mask = mask_of(kind, targets, sources) if broadcast else mask_of(kind, *batch, targets, sources)
    mask = ~mask if kind == "bool" else mask
    expected = torch.nn.functional.scaled_dot_product_attention(*tensors, mask)
    output, _ = F.scaled_dot_product_attention(*values, listed(mask))
    close(output, expected)
    expected.square().sum().backward()
    ops.sum([v * v for v in flatten(output)]).backward()
    for x, t in zip(values, tensors):
        close(elementwise(lambda v: v.grad, x), t.grad)


@pytest.mark.parametrize("mask", [[[False, False], [True, True]], [[-math.inf] * 2, [0.0, 0.0]]], ids=str)
def test_the_function_gives_nan_where_pytorchs_gives_0_for_a_query_that_may_look_nowhere(mask):
    x = torch.randn(2, 3, dtype=torch.float64)
    mask_torch = torch.tensor(mask, dtype=None if isinstance(mask[0][0], bool) else torch.float64)
    expected = torch.nn.functional.scaled_dot_product_attention(x, x, x, mask_torch)
    output, weights = F.scaled_dot_product_attention(x.tolist(), x.tolist(), x.tolist(), mask)
    assert tensor([output[0], weights[0] + [math.nan]]).isnan().all() and expected[0].tolist() == [0.0] * 3
    close(output[1:], expected[1:])
