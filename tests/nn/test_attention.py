"""MultiheadAttention: what its masks mean, closed forms, finite differences, and what it must refuse."""

import math

import pytest

import milligrad
from milligrad import Value, nn, ops
from milligrad import functional as F
from milligrad.engine import number
from milligrad.nested import elementwise, flatten, full, shape, transpose


def floats(x):
    return elementwise(number, x)


def numbers(*size):
    """Some numbers between -1 and 1."""
    draw = milligrad.random.generator()
    return elementwise(lambda _: draw.uniform(-1, 1), full(size, 0.0))


def about(x):
    return pytest.approx(flatten(floats(x)), rel=1e-12, abs=1e-14)


@pytest.fixture(autouse=True)
def seed():
    milligrad.random.manual_seed(0)


def identity(n):
    return [[float(i == j) for j in range(n)] for i in range(n)]


def plain(embed_dim, heads):
    """Attention without projections: each is the identity."""
    module = nn.MultiheadAttention(embed_dim, heads, bias=False)
    module.load_state_dict({"in_proj_weight": identity(embed_dim) * 3, "out_proj.weight": identity(embed_dim)})
    return module


def test_one_head_is_softmax_of_the_scaled_products_times_the_values():
    query, key, value = [[1.0, 2.0]], [[0.5, -1.0], [0.3, 0.4]], [[1.0, 0.0], [5.0, 7.0]]
    output, weights = plain(2, 1)(query, key, value)
    e = [math.exp(-1.5 / math.sqrt(2)), math.exp(1.1 / math.sqrt(2))]
    p = [x / sum(e) for x in e]
    assert flatten(floats(weights)) == about([p])
    assert flatten(floats(output)) == about([[p[0] + 5 * p[1], 7 * p[1]]])


def test_each_head_sees_its_own_part_of_the_vectors():
    x = numbers(3, 4)
    output, weights = plain(4, 2)(x, x, x, average_attn_weights=False)
    for head, part in enumerate([slice(0, 2), slice(2, 4)]):
        own = [row[part] for row in x]
        expected, own_weights = plain(2, 1)(own, own, own)
        assert flatten(floats([row[part] for row in output])) == about(expected)
        assert flatten(floats(weights[head])) == about(own_weights)


def test_weights_are_averaged_over_the_heads_unless_asked_otherwise():
    module, x = nn.MultiheadAttention(4, 2), numbers(3, 4)
    _, each = module(x, x, x, average_attn_weights=False)
    _, mean = module(x, x, x)
    assert shape(each) == (2, 3, 3) and shape(mean) == (3, 3)
    assert flatten(floats(mean)) == about([(a + b) / 2 for a, b in zip(flatten(each[0]), flatten(each[1]))])
    assert all(sum(floats(row)) == pytest.approx(1, rel=1e-14) for row in mean)


def test_a_batch_is_its_samples_and_batch_first_only_transposes():
    module, first = nn.MultiheadAttention(4, 2), nn.MultiheadAttention(4, 2, batch_first=True)
    first.load_state_dict(module.state_dict())
    query, memory = numbers(5, 3, 4), numbers(5, 2, 4)
    output, weights = first(query, memory, memory)
    usual, usual_weights = module(transpose(query), transpose(memory), transpose(memory))
    assert shape(output) == (5, 3, 4) and shape(usual) == (3, 5, 4) and shape(weights) == (5, 3, 2)
    assert floats(output) == floats(transpose(usual)) and floats(weights) == floats(usual_weights)
    for i in range(5):
        alone, own_weights = module(query[i], memory[i], memory[i])
        assert floats(output[i]) == floats(alone) and floats(weights[i]) == floats(own_weights)


def test_without_need_weights_the_output_is_the_same_and_the_weights_are_none():
    module, x = nn.MultiheadAttention(4, 2), numbers(3, 2, 4)
    output, weights = module(x, x, x, need_weights=False)
    assert weights is None and floats(output) == floats(module(x, x, x)[0])
    assert module(x[0], x[0], x[0], need_weights=False)[1] is None


# ── Masks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_true_in_attn_mask_closes_while_true_in_the_function_opens():
    x = numbers(2, 2)
    _, weights = plain(2, 1)(x, x, x, attn_mask=[[False, True], [False, False]])
    assert floats(weights[0]) == [1.0, 0.0] and 0 < weights[1][1] < 1
    output, opened = F.scaled_dot_product_attention(x, x, x, [[True, False], [True, True]])
    assert floats(opened) == floats(weights) and floats(output[0]) == x[0]


def test_true_in_key_padding_mask_closes_a_key_to_every_query_of_its_sample():
    x = numbers(3, 2, 4)
    mask = [[False, False, True], [True, False, False]]
    _, weights = nn.MultiheadAttention(4, 2)(x, x, x, key_padding_mask=mask)
    assert [[p == 0 for p in floats(row)] for row in weights[0]] == [mask[0]] * 3
    assert [[p == 0 for p in floats(row)] for row in weights[1]] == [mask[1]] * 3
    sample = transpose(x)[0]
    _, alone = nn.MultiheadAttention(4, 2)(sample, sample, sample, key_padding_mask=mask[0])
    assert [[p == 0 for p in floats(row)] for row in alone] == [mask[0]] * 3


def test_a_mask_for_each_sample_and_head_goes_through_the_heads_first():
    closed = [[[False, i == 2]] for i in range(4)]
    _, weights = plain(4, 2)(
        numbers(1, 2, 4), numbers(2, 2, 4), numbers(2, 2, 4), attn_mask=closed, average_attn_weights=False
    )
    assert [[floats(weights[n][h][0])[1] == 0 for h in range(2)] for n in range(2)] == [[False, False], [True, False]]


@pytest.mark.parametrize("padding", [[False, True, False], [0.0, -math.inf, 0.0]], ids=["bools", "numbers"])
@pytest.mark.parametrize("as_numbers", [False, True])
def test_both_masks_together_close_what_either_closes(padding, as_numbers):
    module, x = nn.MultiheadAttention(4, 2), numbers(3, 4)
    causal = [[j > i for j in range(3)] for i in range(3)]
    mask = elementwise(lambda closed: -math.inf if closed else 0.0, causal) if as_numbers else causal
    _, weights = module(x, x, x, key_padding_mask=padding, attn_mask=mask)
    assert [[p == 0 for p in floats(row)] for row in weights] == [
        [False, True, True],
        [False, True, True],
        [False, True, False],
    ]


def test_numbers_of_both_masks_are_added_to_the_scores():
    x = [[0.0, 0.0], [0.0, 0.0]]
    _, weights = plain(2, 1)(x, x, x, key_padding_mask=[0.0, 1.0], attn_mask=[[0.0, 2.0], [0.5, -0.5]])
    odds = [math.exp(3), math.exp(0)]
    assert flatten(floats(weights)) == about([[1 / (1 + o), o / (1 + o)] for o in odds])


def test_a_mask_of_values_learns():
    mask = [[Value(0.0), Value(0.0)]]
    output, _ = plain(1, 1)([[0.0]], [[0.0], [0.0]], [[1.0], [3.0]], attn_mask=mask)
    output[0][0].backward()
    assert [v.grad for v in mask[0]] == pytest.approx([0.5 * (1 - 2), 0.5 * (3 - 2)], rel=1e-14)


def test_nothing_flows_through_what_is_closed():
    key, value = elementwise(Value, numbers(2, 2)), elementwise(Value, numbers(2, 2))
    for closed in ([[False, True]], [[0.0, -math.inf]]):
        output, _ = plain(2, 1)([[0.3, 0.4]], key, value, attn_mask=closed)
        ops.sum(output[0]).backward()
        assert [v.grad for v in key[1]] == [0.0, 0.0] == [v.grad for v in value[1]]
    assert [v.grad for v in value[0]] == [2.0, 2.0]


@pytest.mark.parametrize("mask", [[[True, True], [False, True]], [[-math.inf] * 2, [0.0, -math.inf]]], ids=str)
@pytest.mark.parametrize("need_weights", [False, True])
def test_a_query_that_may_look_nowhere_gets_nan_alone(mask, need_weights):
    x = elementwise(Value, numbers(2, 4))
    output, weights = nn.MultiheadAttention(4, 2)(x, x, x, attn_mask=mask, need_weights=need_weights)
    assert all(math.isnan(x.data) for x in output[0]) and all(math.isfinite(x.data) for x in output[1])
    if need_weights:
        assert all(math.isnan(number(x)) for x in weights[0]) and floats(weights[1]) == [1.0, 0.0]
    ops.sum(output[1]).backward()
    assert all(math.isfinite(v.grad) for v in flatten(x))
    ops.sum(output[0]).backward()
    assert any(math.isnan(v.grad) for v in flatten(x))


def test_is_causal_wants_the_causal_mask_and_changes_nothing():
    module, x = nn.MultiheadAttention(4, 2), numbers(3, 4)
    causal = [[j > i for j in range(3)] for i in range(3)]
    hinted, plainly = module(x, x, x, attn_mask=causal, is_causal=True), module(x, x, x, attn_mask=causal)
    assert floats(hinted[0]) == floats(plainly[0]) and floats(hinted[1]) == floats(plainly[1])
    with pytest.raises(ValueError, match=r"^attn_mask: expected the causal mask with is_causal, got None"):
        module(x, x, x, is_causal=True)


# ── Parameters, dropout, gradients ────────────────────────────────────────────────────────────────────────────────────


def test_weights_start_xavier_uniform_and_biases_at_zero():
    module = nn.MultiheadAttention(16, 4)
    assert module.in_proj_bias.data == [0.0] * 48 and module.out_proj.bias.data == [0.0] * 16
    bounds = {"in_proj_weight": math.sqrt(6 / 64), "out_proj.weight": 1 / 4}
    for name, bound in bounds.items():
        assert 0.9 * bound < max(map(abs, flatten(module.state_dict()[name]))) <= bound
    module = nn.MultiheadAttention(16, 4, kdim=8, vdim=20)
    assert module.in_proj_weight is None
    for name, columns in {"q_proj_weight": 16, "k_proj_weight": 8, "v_proj_weight": 20}.items():
        bound = math.sqrt(6 / (16 + columns))
        assert 0.9 * bound < max(map(abs, flatten(module.state_dict()[name]))) <= bound


def test_without_bias_there_is_none():
    module = nn.MultiheadAttention(4, 2, bias=False)
    assert list(module.state_dict()) == ["in_proj_weight", "out_proj.weight"]
    assert module.in_proj_bias is None and module.out_proj.bias is None and module.q_proj_weight is None


def test_dropout_acts_on_the_weights_in_training_only():
    module, x = nn.MultiheadAttention(4, 2, 0.5), numbers(6, 4)
    _, kept = module.eval()(x, x, x, average_attn_weights=False)
    assert all(sum(floats(row)) == pytest.approx(1, rel=1e-14) for head in kept for row in head)
    _, dropped = module.train()(x, x, x, average_attn_weights=False)
    ratios = [number(a) / number(b) for a, b in zip(flatten(dropped), flatten(kept))]
    assert {round(r, 9) for r in ratios} == {0.0, 2.0}


def test_with_all_weights_dropped_the_bias_is_left():
    module, x = nn.MultiheadAttention(4, 2, dropout=1.0), numbers(3, 4)
    module.out_proj.bias.copy_([1.0, 2.0, 3.0, 4.0])
    assert floats(module(x, x, x)[0]) == [[1.0, 2.0, 3.0, 4.0]] * 3


@pytest.mark.parametrize("widths", [{}, {"kdim": 3, "vdim": 1}])
def test_gradients_are_the_slopes_of_finite_differences(widths):
    module = nn.MultiheadAttention(2, 2, **widths)
    module.in_proj_bias.copy_(numbers(6))
    sizes = (2, 2), (3, widths.get("kdim", 2)), (3, widths.get("vdim", 2))
    inputs = [elementwise(Value, numbers(*size)) for size in sizes]

    def loss():
        output, weights = module(*inputs, attn_mask=[[False, False, True], [False, False, False]])
        return ops.sum([v * v for v in [*flatten(output), *flatten(weights)]])

    loss().backward()
    for v in [*flatten(inputs), *(p for parameter in module.parameters() for p in parameter.values())]:
        start, step = v.data, 1e-5
        v.data = start + step
        above = loss().data
        v.data = start - step
        below = loss().data
        v.data = start
        assert v.grad == pytest.approx((above - below) / (2 * step), rel=1e-6, abs=1e-9)


def test_second_derivatives_exist():
    module = plain(1, 1)

    def slope(at):
        y = Value(at)
        return milligrad.grad(module([[y]], [[y], [2.0]], [[1.0], [y * y]])[0][0][0], y), y

    g, y = slope(0.3)
    g.backward()
    assert y.grad == pytest.approx((slope(0.3 + 1e-5)[0].data - slope(0.3 - 1e-5)[0].data) / 2e-5, rel=1e-6)


def test_no_step_asks_a_value_for_its_number(monkeypatch):
    module, x = nn.MultiheadAttention(4, 2), elementwise(Value, numbers(2, 4))
    padding, mask = [False, True], elementwise(Value, numbers(2, 2))

    def refuse(*_):
        raise AssertionError("a Value was asked for its number")

    for method in ("__bool__", "__float__", "__int__", "__lt__", "__le__", "__gt__", "__ge__"):
        monkeypatch.setattr(Value, method, refuse)
    output, _ = module(x, x, x, key_padding_mask=padding, attn_mask=mask)
    assert shape(output) == (2, 4)


# ── What is refused ───────────────────────────────────────────────────────────────────────────────────────────────────

X = [[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]]  # L = 2


@pytest.mark.parametrize("query", [[], [[]], 1.0, [1.0] * 4, [[1.0] * 3], [[[1.0] * 5]], [[[[1.0] * 4]]]], ids=str)
def test_a_query_of_another_shape_is_refused(query):
    with pytest.raises(ValueError, match=r"^query: expected the shape \(L, 4\) or \(L, N, 4\), with L >= 1, got"):
        nn.MultiheadAttention(4, 2)(query, X, X)


def test_the_order_in_the_message_is_that_of_batch_first():
    with pytest.raises(ValueError, match=r"^query: expected the shape \(L, 4\) or \(N, L, 4\)"):
        nn.MultiheadAttention(4, 2, batch_first=True)([[1.0]], X, X)


@pytest.mark.parametrize("key", [[], [[]], 1.0, [1.0] * 4, [[1.0] * 3], [X]], ids=str)
def test_a_key_of_another_shape_is_refused(key):
    with pytest.raises(ValueError, match=r"^key: expected the shape \(.*, 4\) beside a query of \(2, 4\), got"):
        nn.MultiheadAttention(4, 2)(X, key, X)


@pytest.mark.parametrize("value", [[], [[]], 1.0, [1.0] * 4, [[1.0] * 3] * 2, [[1.0] * 4], X * 2, [X]], ids=str)
def test_a_value_of_another_shape_is_refused(value):
    with pytest.raises(ValueError, match=r"^value: expected the shape \(2, 4\) beside a query of \(2, 4\), got"):
        nn.MultiheadAttention(4, 2)(X, X, value)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_key_for_another_number_of_samples_is_refused(batch_first):
    module = nn.MultiheadAttention(4, 2, batch_first=batch_first)
    query, key = (numbers(3, 2, 4), numbers(4, 5, 4)) if batch_first else (numbers(2, 3, 4), numbers(5, 4, 4))
    expected = r"\(3, 5, 4\)" if batch_first else r"\(5, 3, 4\)"
    with pytest.raises(ValueError, match=rf"^key: expected the shape {expected} beside"):
        module(query, key, key)


@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_a_ragged_input_is_refused(name):
    inputs = {"query": X, "key": X, "value": X, name: [[1.0] * 4, [1.0] * 3]}
    with pytest.raises(ValueError, match=f"^{name} is ragged"):
        nn.MultiheadAttention(4, 2)(**inputs)


@pytest.mark.parametrize("mask", [[], True, [False], [False] * 3, [[False] * 2]], ids=str)
def test_a_key_padding_mask_of_another_shape_is_refused(mask):
    with pytest.raises(ValueError, match=r"^key_padding_mask: expected the shape \(2,\), got"):
        nn.MultiheadAttention(4, 2)(X, X, X, key_padding_mask=mask)
    with pytest.raises(ValueError, match=r"^key_padding_mask: expected the shape \(3, 2\), got"):
        nn.MultiheadAttention(4, 2)(*[numbers(2, 3, 4)] * 3, key_padding_mask=mask)


@pytest.mark.parametrize("mask", [[], 0.0, [False] * 2, [[False]], [[False] * 2] * 3, [[[False] * 2] * 2]], ids=str)
def test_an_attn_mask_of_another_shape_is_refused(mask):
    with pytest.raises(ValueError, match=r"^attn_mask: expected the shape \(2, 2\) or \(2, 2, 2\), got"):
        nn.MultiheadAttention(4, 2)(X, X, X, attn_mask=mask)


@pytest.mark.parametrize("name", ["key_padding_mask", "attn_mask"])
@pytest.mark.parametrize("row", [[1, 0], [True, 0.0], [False, 1]], ids=str)
def test_a_mask_that_might_mean_either_is_refused(name, row):
    mask = row if name == "key_padding_mask" else [row, row]
    with pytest.raises(TypeError, match=f"^{name}: expected bools only, or floats"):
        nn.MultiheadAttention(4, 2)(X, X, X, **{name: mask})


def test_whole_numbers_among_floats_are_numbers():
    x = [[0.0]] * 2
    _, weights = plain(1, 1)(x, x, x, attn_mask=[[0, -math.inf], [0, 0]])
    assert floats(weights) == [[1.0, 0.0], [0.5, 0.5]]


class NumpyBool:
    """What matters of NumPy's bool: it is none of Python's, and its dtype compares equal to "bool"."""

    dtype = "bool"

    def __init__(self, b):
        self.b = b

    def __bool__(self):
        return self.b

    def __float__(self):
        return float(self.b)


def test_numpys_bools_are_bools():
    x = [[0.0]] * 2
    mask = elementwise(NumpyBool, [[False, True], [False, False]])
    _, weights = plain(1, 1)(x, x, x, attn_mask=mask)
    assert floats(weights) == [[1.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize("wrong", [0, -2, 1.5, True, "4", None], ids=str)
def test_sizes_are_positive_whole_numbers(wrong):
    for name, arguments in {"embed_dim": (wrong, 2), "num_heads": (4, wrong)}.items():
        with pytest.raises(ValueError, match=f"^{name}: expected a whole number >= 1"):
            nn.MultiheadAttention(*arguments)
    for name in ("kdim", "vdim") if wrong is not None else ():
        with pytest.raises(ValueError, match=f"^{name}: expected a whole number >= 1"):
            nn.MultiheadAttention(4, 2, **{name: wrong})


def test_embed_dim_must_be_divisible_by_the_heads():
    with pytest.raises(ValueError, match=r"^num_heads: expected a divisor of embed_dim = 4, got 3"):
        nn.MultiheadAttention(4, 3)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_dropout_is_a_probability(wrong):
    with pytest.raises(ValueError, match=r"^dropout: expected a probability between 0 and 1"):
        nn.MultiheadAttention(4, 2, dropout=wrong)


@pytest.mark.parametrize(
    "inputs, name",
    [
        (([1.0], [[1.0]], [[1.0]]), "query"),
        (([[]], [[1.0]], [[1.0]]), "query"),
        (([[1.0]], [[1.0, 2.0]], [[1.0]]), "key"),
        (([[1.0]], [1.0], [[1.0]]), "key"),
        (([[1.0]], [[1.0]], [[1.0]] * 2), "value"),
        (([[1.0]], [[1.0]], [[]]), "value"),
        (([[[1.0]]], [[[1.0]]] * 2, [[[1.0]]] * 2), "key"),
    ],
)
def test_the_function_names_what_does_not_fit(inputs, name):
    with pytest.raises(ValueError, match=f"^{name}: expected the shape"):
        F.scaled_dot_product_attention(*inputs)


def test_the_function_refuses_masks_that_do_not_broadcast_or_might_mean_either():
    with pytest.raises(ValueError, match=r"^attn_mask of shape \(3,\) does not broadcast to the shape \(2, 2\)"):
        F.scaled_dot_product_attention(X, X, X, [True, False, True])
    with pytest.raises(TypeError, match=r"^attn_mask: expected bools only, or floats"):
        F.scaled_dot_product_attention(X, X, X, [[1, 0], [1, 1]])
