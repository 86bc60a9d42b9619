"""The functions of networks against closed forms, naive loops, finite differences, and what they must refuse."""

import math
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import milligrad
from milligrad import Value, grad, gradcheck, gradgradcheck
from milligrad import functional as F
from milligrad.engine import number
from milligrad.nested import elementwise, flatten, full, shape, unflatten

NAN, INF = math.nan, math.inf
examples = settings(max_examples=25, deadline=None)
numbers = st.floats(-30, 30)
vectors = st.lists(numbers, min_size=1, max_size=6)


def floats(x):
    return elementwise(number, x)


def uniform(*size, low=-1.0, high=1.0):
    draw = milligrad.random.generator()
    return elementwise(lambda _: draw.uniform(low, high), full(size, 0.0))


def about(x, rel=1e-12):
    return pytest.approx(flatten(floats(x)), rel=rel, abs=1e-14)


@pytest.fixture(autouse=True)
def seed():
    milligrad.manual_seed(0)


# ── Activations ──────────────────────────────────────────────────────────────────────────────────────────────────────


def normal_distribution(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


FORMULAS = {
    "relu": lambda x: max(x, 0.0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": lambda x: (math.exp(2 * x) - 1) / (math.exp(2 * x) + 1),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "gelu": lambda x: x * normal_distribution(x),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "softplus": lambda x: math.log(1 + math.exp(x)) if x <= 20 else x,
}
activations = pytest.mark.parametrize("name", FORMULAS)


@activations
@examples
@given(x=st.floats(-8, 8))
def test_activations_are_their_formulas(name, x):
    assert float(getattr(F, name)(x)) == pytest.approx(FORMULAS[name](x), rel=1e-9, abs=1e-12)
    assert getattr(F, name)(Value(x)).data == getattr(F, name)(x)


@activations
@examples
@given(x=st.floats(-5, 5))
def test_derivatives_of_activations_are_the_slopes_of_finite_differences(name, x):
    assume(abs(x) > 1e-3)
    f = getattr(F, name)
    assert gradcheck(f, [x], rtol=1e-6, atol=1e-8) and gradgradcheck(f, [x], rtol=1e-6, atol=1e-7)


@activations
def test_activations_keep_the_nesting_and_take_one_number_too(name):
    f, x = getattr(F, name), [[0.5, -1.0], [2, Value(-0.3)]]
    assert floats(f(x)) == [[number(f(item)) for item in row] for row in x]
    assert floats(f(tuple(map(tuple, x)))) == floats(f(x))
    assert f([]) == [] and f([[], []]) == [[], []]


@activations
@pytest.mark.parametrize("x", [1e4, -1e4, 1e300, -1e300])
def test_activations_are_finite_and_right_far_out(name, x):
    positive = 1.0 if name in ("sigmoid", "tanh") else x
    negative = {"tanh": -1.0, "leaky_relu": 0.01 * x, "elu": -1.0}.get(name, 0.0)
    v = Value(x)
    z = getattr(F, name)(v)
    assert z.data == (positive if x > 0 else negative)
    z.backward()
    assert v.grad == ((name not in ("sigmoid", "tanh")) if x > 0 else 0.01 * (name == "leaky_relu"))


@activations
def test_nan_in_nan_out(name):
    assert math.isnan(getattr(F, name)(NAN))


def test_elu_bends_below_0_only():
    for alpha in (1.0, 0.3, 2.5):
        for x, first, second in [
            (0.0, alpha, 0.0),
            (-0.0, alpha, 0.0),
            (-1e-9, alpha, alpha),
            (1e-9, 1.0, 0.0),
            (-40.0, alpha * math.exp(-40), alpha * math.exp(-40)),
        ]:
            v = Value(x)
            slope = grad(F.elu(v, alpha), v)
            bend = grad(slope, v).data if slope.requires_grad else 0.0
            assert [slope.data, bend] == pytest.approx([first, second], rel=1e-8, abs=0)


@pytest.mark.parametrize("f", [F.huber_loss, F.smooth_l1_loss, F.mse_loss])
def test_the_slope_of_a_loss_at_nan_is_nan(f):
    v = Value(NAN)
    z = f([v, 1.0], [0.0, 0.0])
    z.backward()
    assert math.isnan(z.data) and math.isnan(v.grad)


def test_corners_take_the_derivative_pytorch_documents():
    slopes = {"relu": 0.0, "leaky_relu": 0.01, "elu": 1.0, "gelu": 0.5, "silu": 0.5, "softplus": 0.5}
    for name, slope in slopes.items():
        x = Value(0.0)
        getattr(F, name)(x).backward()
        assert x.grad == slope, name


def test_options_of_activations():
    assert F.leaky_relu([-2.0, 3.0], 0.1) == [-0.2, 3.0]
    assert F.elu([-1.0, 3.0], alpha=2.0) == [pytest.approx(2 * math.expm1(-1), rel=1e-15), 3.0]
    assert F.softplus(1.0, beta=2.0) == pytest.approx(math.log(1 + math.exp(2)) / 2, rel=1e-14)
    assert F.softplus(3.0, beta=2.0, threshold=5.0) == 3.0
    assert F.softplus(2.5, beta=2.0, threshold=5.0) > 2.5
    inner = math.sqrt(2 / math.pi) * (0.7 + 0.044715 * 0.7**3)
    assert F.gelu(0.7, "tanh") == pytest.approx(0.35 * (1 + math.tanh(inner)), rel=1e-14)


def test_an_unknown_approximation_is_refused():
    with pytest.raises(ValueError, match=r"^approximate: expected 'none' or 'tanh', got 'erf'"):
        F.gelu([1.0], "erf")


@pytest.mark.parametrize("wrong", ["a", None, 1j], ids=str)
@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "silu"])
def test_what_is_no_number_is_refused(name, wrong):
    with pytest.raises(TypeError, match="expected a real number or a Value, got"):
        getattr(F, name)([1.0, wrong])


@examples
@given(vectors)
def test_softmax_is_a_distribution_that_a_shift_does_not_change(xs):
    p = F.softmax(xs)
    assert sum(p) == pytest.approx(1, rel=1e-14) and all(x >= 0 for x in p)
    e = [math.exp(x) for x in xs]
    assert p == pytest.approx([x / sum(e) for x in e], rel=1e-12)
    assert F.softmax([x + 5 for x in xs]) == pytest.approx(p, rel=1e-12)
    assert [math.exp(x) for x in F.log_softmax(xs)] == p


@examples
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=4))
def test_derivatives_of_softmax_are_p_times_delta_minus_p(xs):
    for i in range(len(xs)):
        values = list(map(Value, xs))
        p = F.softmax(values)
        p[i].backward()
        expected = [p[i].data * ((i == j) - p[j].data) for j in range(len(xs))]
        assert [v.grad for v in values] == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("f", [F.softmax, F.log_softmax])
def test_softmax_agrees_with_finite_differences_at_both_orders(f):
    assert gradcheck(f, [[0.3, -1.0, 0.3]], rtol=1e-6, atol=1e-9)
    assert gradgradcheck(f, [[0.3, -1.0, 2.0]], rtol=1e-6, atol=1e-8)


def test_softmax_far_out_is_exact():
    assert F.softmax([1000, 0]) == [1.0, 0.0]
    assert F.softmax([-1000, 0, -1000]) == [0.0, 1.0, 0.0]
    assert F.softmax([1e300, 1e300]) == [pytest.approx(0.5, rel=1e-15)] * 2
    assert F.log_softmax([1e4, 0, -1e4]) == [0.0, -1e4, -2e4]
    assert F.log_softmax([1e4, 1e4]) == [pytest.approx(-math.log(2), rel=1e-15)] * 2
    assert F.log_softmax([40.0, 0.0])[0] == pytest.approx(-math.exp(-40), rel=1e-14, abs=0)
    assert F.softmax([-INF, 3.0]) == [0.0, 1.0]


def test_softmax_runs_along_the_dimension_asked_for():
    x = uniform(2, 3, 4)
    for dim, at in product((0, 1, 2), product(range(2), range(3), range(4))):
        line = [[*at[:dim], k, *at[dim + 1 :]] for k in range(shape(x)[dim])]
        p = F.softmax([x[i][j][k] for i, j, k in line])[at[dim]]
        i, j, k = at
        assert F.softmax(x, dim)[i][j][k] == F.softmax(x, dim - 3)[i][j][k] == pytest.approx(p, rel=1e-14)


@pytest.mark.parametrize("f", [F.softmax, F.log_softmax])
def test_what_softmax_refuses(f):
    for empty in ([], [[]], [[], []]):
        with pytest.raises(ValueError, match=r"^input: expected at least one number, got an empty list"):
            f(empty)
    with pytest.raises(ValueError, match=r"^input is ragged"):
        f([[1.0, 2.0], [1.0]])
    for dim in (1, -2):
        with pytest.raises(IndexError, match=rf"^dim is {dim}, but x has 1 dimension"):
            f([1.0, 2.0], dim)
    with pytest.raises(IndexError, match=r"^dim is -1, but x has 0 dimensions"):
        f(1.0)


# ── Layers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_linear_is_the_sum_of_products():
    assert F.linear([1, 2, 3], [[1, 0, -1], [2, 2, 2]], [10, 20]) == [8, 32]
    assert F.linear([1, 2, 3], [[1, 0, -1], [2, 2, 2]]) == [-2, 12]


def test_linear_of_a_batch_is_linear_of_each_sample():
    w, b, x = uniform(2, 3), uniform(2), uniform(4, 5, 3)
    assert F.linear(x, w, b) == [[F.linear(row, w, b) for row in sample] for sample in x]


def test_linear_agrees_with_finite_differences():
    assert gradcheck(F.linear, [uniform(2, 3), uniform(2, 3), uniform(2)], rtol=1e-6, atol=1e-9)
    assert gradgradcheck(F.linear, [uniform(3), uniform(2, 3), uniform(2)], rtol=1e-6, atol=1e-8)


WEIGHT = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


@pytest.mark.parametrize("x, got", [([], 0), ([1.0], 1), ([1.0] * 3, 3), ([[]], 0), ([[[1.0]]], 1)])
def test_a_wrong_feature_width_is_refused(x, got):
    with pytest.raises(ValueError, match=rf"^input: expected 2 numbers \(in_features\), got {got}$"):
        F.linear(x, WEIGHT)


@pytest.mark.parametrize("x", [1.0, None, "ab", {0: 1.0, 1: 2.0}, Value(1.0)], ids=str)
def test_linear_wants_a_list(x):
    with pytest.raises(ValueError, match=r"^input: expected a list of 2 numbers or a batch of them, got"):
        F.linear(x, WEIGHT)


@pytest.mark.parametrize("x", [[[1.0, 2.0], [1.0]], [[1.0, 2.0], 3.0], [[1.0, 2.0], [[1.0, 2.0], [3.0, 4.0]]]], ids=str)
def test_linear_refuses_a_ragged_batch(x):
    with pytest.raises(ValueError, match=r"^input is ragged"):
        F.linear(x, WEIGHT)


def test_linear_refuses_entries_that_are_no_numbers():
    for x in ([1.0, [2.0]], ["a", "b"], [None, 1.0]):
        with pytest.raises(TypeError, match="expected a real number or a Value, got"):
            F.linear(x, WEIGHT)


@pytest.mark.parametrize("weight", [[], [1.0, 2.0], 3.0], ids=str)
def test_linear_refuses_a_weight_that_is_no_matrix(weight):
    with pytest.raises(ValueError, match=r"^weight: expected the shape \(out, in\), got"):
        F.linear([1.0, 2.0], weight)


@pytest.mark.parametrize("bias", [[], [1.0] * 2, [1.0] * 4, 1.0, [[1.0]] * 3], ids=str)
def test_linear_refuses_a_bias_of_another_length(bias):
    with pytest.raises(ValueError, match=r"^bias: expected 3 numbers, one for each output, got the shape"):
        F.linear([1.0, 2.0], WEIGHT, bias)


def test_embedding_looks_rows_up_in_any_nesting():
    assert F.embedding(2, WEIGHT) == WEIGHT[2]
    assert F.embedding([[0, 2], [1, 0]], WEIGHT) == [[WEIGHT[0], WEIGHT[2]], [WEIGHT[1], WEIGHT[0]]]
    assert F.embedding([], WEIGHT) == []


def test_embedding_adds_up_the_gradients_of_a_row_used_twice_and_none_of_padding():
    weight = elementwise(Value, WEIGHT)
    milligrad.sum(flatten(F.embedding([0, 1, 1, 2, 2], weight, padding_idx=-1))).backward()
    assert [[v.grad for v in row] for row in weight] == [[1, 1], [2, 2], [0, 0]]


@pytest.mark.parametrize("index", [3, -1, 100])
def test_embedding_refuses_an_index_out_of_range(index):
    with pytest.raises(IndexError, match=rf"^input: expected whole numbers from 0 to 2, got {index}$"):
        F.embedding([0, index], WEIGHT)


@pytest.mark.parametrize("index", [1.0, "1", None, Value(1.0)], ids=str)
def test_embedding_refuses_an_index_that_is_no_whole_number(index):
    with pytest.raises(TypeError, match=r"^input: expected whole numbers from 0 to 2, got"):
        F.embedding([0, index], WEIGHT)


def test_embedding_gives_lists_of_its_own():
    table = [[Value(1.0), 2.0], [Value(3.0), 4.0]]
    for padding in (None, 0):
        row = F.embedding(0, table, padding)
        row.append(5.0)
        assert len(table[0]) == 2


@pytest.mark.parametrize("index", [2, [2, 0, 1], [[0], [1]], (1, 1)], ids=str)
def test_one_hot_is_the_embedding_in_the_unit_matrix(index):
    rows = F.one_hot(index, 3)
    assert rows == F.embedding(index, [[float(i == j) for j in range(3)] for i in range(3)])
    assert {*map(type, flatten(rows))} == {float}


def test_what_one_hot_refuses():
    for index in (3, -1):
        with pytest.raises(IndexError, match=f"input: expected whole numbers from 0 to 2, got {index}"):
            F.one_hot([0, index], 3)
    for index in (1.0, "1", None, Value(1.0)):
        with pytest.raises(TypeError, match="input: expected whole numbers from 0 to 2, got"):
            F.one_hot(index, 3)
    for n in (0, -1, 2.0, True, None):
        with pytest.raises(ValueError, match=f"num_classes: expected a whole number >= 1, got {n}"):
            F.one_hot(0, n)
    with pytest.raises(ValueError, match="input is ragged"):
        F.one_hot([0, [1]], 3)


def test_embedding_refuses_ragged_input_and_a_padding_idx_out_of_range():
    with pytest.raises(ValueError, match=r"^input is ragged"):
        F.embedding([[0], [1, 2]], WEIGHT)
    for wrong in (3, -4, 1.5, "1"):
        with pytest.raises(ValueError, match=r"^padding_idx: expected a whole number from -3 to 2, got"):
            F.embedding([0], WEIGHT, padding_idx=wrong)


# ── Dropout ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dropout_keeps_the_mean_and_drops_the_fraction_asked_for():
    n, p = 20_000, 0.3
    y = F.dropout([1.0] * n, p)
    dropped = y.count(0.0)
    assert set(y) == {0.0, 1 / 0.7}
    assert abs(dropped / n - p) < 4 * math.sqrt(p * (1 - p) / n)
    assert sum(y) / n == pytest.approx(1, abs=0.02)


def test_dropout_repeats_itself_for_a_seed_only():
    draws = []
    for seed in (1, 1, 2):
        milligrad.manual_seed(seed)
        draws.append(F.dropout([1.0] * 50))
    assert draws[0] == draws[1] != draws[2] and F.dropout([1.0] * 50) != draws[2]


def test_the_gradient_of_dropout_is_its_mask():
    xs = [Value(2.0) for _ in range(50)]
    y = F.dropout(xs, 0.4)
    milligrad.sum(y).backward()
    assert [v.grad for v in xs] == [v.data / 2 for v in y]
    assert {v.grad for v in xs} == {0.0, 1 / 0.6}


def test_dropout_draws_one_number_for_each_place_and_drops_where_it_is_below_p():
    milligrad.manual_seed(3)
    drawn = [milligrad.random.generator().random() for _ in range(6)]
    milligrad.manual_seed(3)
    assert F.dropout([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], 0.4) == [
        [0.0 if u < 0.4 else x * (1 / 0.6) for u, x in zip(us, xs)]
        for us, xs in ((drawn[:3], (1.0, 2.0, 3.0)), (drawn[3:], (4.0, 5.0, 6.0)))
    ]


def test_dropout_changes_nothing_outside_training_or_for_p_0_and_all_for_p_1():
    x = [[1.0, -2.0], [3, 4]]
    assert F.dropout(x, 0.9, training=False) == x and F.dropout(x, 0.0) == x
    assert F.dropout(x, 1.0) == [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("p", [-0.1, 1.1, NAN, INF])
@pytest.mark.parametrize("training", [True, False])
def test_p_is_a_probability(p, training):
    with pytest.raises(ValueError, match=r"^p: expected a probability between 0 and 1, got"):
        F.dropout([1.0], p, training)


# ── Normalisation ────────────────────────────────────────────────────────────────────────────────────────────────────


@examples
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=6))
def test_layer_norm_leaves_mean_0_and_variance_1(xs):
    assume(max(xs) - min(xs) > 0.1)
    n, mean = len(xs), sum(xs) / len(xs)
    y = F.layer_norm(xs, (n,), eps=0.0)
    assert sum(y) == pytest.approx(0, abs=1e-9) and sum(v * v for v in y) / n == pytest.approx(1, rel=1e-9)
    sigma = math.sqrt(sum((x - mean) ** 2 for x in xs) / n + 1e-5)
    assert F.layer_norm(xs, (n,)) == pytest.approx([(x - mean) / sigma for x in xs], rel=1e-9, abs=1e-12)


def test_layer_norm_scales_and_shifts():
    plain = F.layer_norm([1.0, 2.0, 4.0], (3,))
    expected = [y * w + b for y, w, b in zip(plain, [1, 2, 3], [4, 5, 6])]
    assert F.layer_norm([1.0, 2.0, 4.0], (3,), [1, 2, 3], [4, 5, 6]) == expected
    assert F.layer_norm([1.0, 2.0, 4.0], (3,), bias=[1, 1, 1]) == [y + 1 for y in plain]
    assert F.layer_norm([5.0, 5.0], (2,)) == [0.0, 0.0]


def test_rms_norm_leaves_a_mean_square_of_1():
    xs = [1.0, -2.0, 4.0]
    y = F.rms_norm(xs, (3,))
    assert sum(v * v for v in y) / 3 == pytest.approx(1, rel=1e-14)
    assert y == pytest.approx([x / math.sqrt(7 + 2.0**-52) for x in xs], rel=1e-15)
    assert F.rms_norm(xs, (3,), [2, 0, 1], eps=9.0) == pytest.approx([0.5, 0, 1], rel=1e-15)
    assert F.rms_norm([0.0, 0.0], (2,)) == [0.0, 0.0]


@pytest.mark.parametrize("norm", [F.layer_norm, F.rms_norm])
def test_norms_of_batches_and_of_several_dimensions(norm):
    x, w = uniform(2, 3, 2, 2), uniform(2, 2)
    flat = [norm(flatten(m), (4,), flatten(w)) for sample in x for m in sample]
    assert flatten(norm(x, (2, 2), w)) == about(flat)
    assert shape(norm(x, (2, 2), w)) == (2, 3, 2, 2)
    assert flatten(norm(x, (2,))) == about([norm(row, (2,)) for sample in x for m in sample for row in m])


@pytest.mark.parametrize("norm", [F.layer_norm, F.rms_norm])
def test_norms_agree_with_finite_differences(norm):
    def f(x, w):
        return norm(x, (3,), w)

    assert gradcheck(f, [uniform(2, 3), uniform(3)], rtol=1e-5, atol=1e-8)
    assert gradgradcheck(f, [[0.5, -1.0, 2.0], uniform(3)], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("norm", [F.layer_norm, F.rms_norm])
def test_what_norms_refuse(norm):
    for x in ([], [1.0, 2.0], [[1.0] * 3, [1.0] * 3], 1.0, [[], []]):
        with pytest.raises(
            ValueError, match=r"^input: expected a shape that ends in \(2, 2\) \(normalized_shape\), got"
        ):
            norm(x, (2, 2))
    with pytest.raises(ValueError, match=r"^input is ragged"):
        norm([[1.0, 2.0], [1.0]], (2,))
    with pytest.raises(ValueError, match=r"^weight: expected the shape \(2,\) \(normalized_shape\), got \(3,\)"):
        norm([1.0, 2.0], (2,), [1.0] * 3)
    with pytest.raises(ValueError, match=r"^input: expected a shape that ends in \(\)"):
        norm([1.0, 2.0], ())


def test_layer_norm_refuses_a_bias_of_another_shape():
    with pytest.raises(ValueError, match=r"^bias: expected the shape \(2,\) \(normalized_shape\), got \(\)"):
        F.layer_norm([1.0, 2.0], (2,), bias=1.0)


# ── Images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def naive_conv2d(image, weight, bias, stride, padding, dilation, groups):
    """The sum of its definition, over every input number and none by slices."""
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    out, channels, kh, kw = shape(weight)
    _, height, width = shape(image)
    high = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    wide = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    result = full((out, high, wide), 0.0)
    for o, r, c in product(range(out), range(high), range(wide)):
        total = bias[o]
        for i, u, v in product(range(channels), range(kh), range(kw)):
            y, x = r * sh + u * dh - ph, c * sw + v * dw - pw
            if 0 <= y < height and 0 <= x < width:
                total += image[o // (out // groups) * channels + i][y][x] * weight[o][i][u][v]
        result[o][r][c] = total
    return result


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    *[st.tuples(st.integers(1, 3), st.integers(1, 3))] * 2,
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_conv2d_is_its_definition(counts, size, kernel, stride, padding, dilation):
    groups, channels, per_group = counts
    assume(all(n + 2 * p >= d * (k - 1) + 1 for n, k, p, d in zip(size, kernel, padding, dilation)))
    image, bias = uniform(groups * channels, *size), uniform(groups * per_group)
    weight = uniform(groups * per_group, channels, *kernel)
    options = (stride, padding, dilation, groups)
    expected = naive_conv2d(image, weight, bias, *options)
    ours = F.conv2d(image, weight, bias, *options)
    assert shape(ours) == shape(expected) and flatten(ours) == about(expected)


def test_conv2d_takes_one_number_for_both_directions_and_names_for_paddings():
    image, weight = uniform(1, 5, 4), uniform(2, 1, 2, 3)
    assert F.conv2d(image, weight, None, 2, 1) == F.conv2d(image, weight, [0.0, 0.0], (2, 2), (1, 1))
    assert F.conv2d(image, weight, padding="valid") == F.conv2d(image, weight)
    same = F.conv2d(image, weight, padding="same")
    assert shape(same) == (2, 5, 4)
    assert shape(F.conv2d(image, weight, padding="same", dilation=(3, 2))) == (2, 5, 4)
    below = [[*map(list, image[0]), [0.0] * 4]]  # the odd row of zeros comes after
    assert flatten(same) == about(naive_conv2d(below, weight, [0, 0], (1, 1), (0, 1), (1, 1), 1))


def test_conv2d_of_a_batch_is_conv2d_of_each_image():
    images, weight = uniform(3, 2, 4, 4), uniform(2, 2, 3, 3)
    assert F.conv2d(images, weight, padding=1) == [F.conv2d(x, weight, padding=1) for x in images]


def test_images_agree_with_finite_differences():
    image = uniform(2, 3, 3)
    assert gradcheck(lambda x, w, b: F.conv2d(x, w, b, 2, 1), [image, uniform(1, 2, 2, 2), [0.3]], rtol=1e-6, atol=1e-8)
    assert gradgradcheck(F.conv2d, [uniform(1, 2, 2), uniform(1, 1, 2, 2), [0.3]], rtol=1e-6, atol=1e-8)
    assert gradcheck(lambda x: F.max_pool2d(x, 2, 1, 1), [image], rtol=1e-6, atol=1e-8)
    assert gradcheck(lambda x: F.avg_pool2d(x, 2, 1, 1), [image], rtol=1e-6, atol=1e-8)


IMAGE = [[[float(4 * r + c) for c in range(4)] for r in range(3)]]  # 0 … 11


def test_pooling_by_hand():
    assert F.max_pool2d(IMAGE, 2) == [[[5.0, 7.0]]]
    assert F.avg_pool2d(IMAGE, 2) == [[[2.5, 4.5]]]
    assert F.max_pool2d(IMAGE, 2, 1) == [[[5.0, 6.0, 7.0], [9.0, 10.0, 11.0]]]
    assert F.max_pool2d(IMAGE, 2, ceil_mode=True) == [[[5.0, 7.0], [9.0, 11.0]]]
    assert F.avg_pool2d(IMAGE, 2, ceil_mode=True) == [[[2.5, 4.5], [8.5, 10.5]]]
    assert F.max_pool2d(IMAGE, (1, 2), dilation=(1, 3)) == [[[3.0], [7.0], [11.0]]]
    assert F.avg_pool2d(IMAGE, 2, padding=1)[0][0] == [0.0, 0.75, 0.75]
    assert F.avg_pool2d(IMAGE, 2, padding=1, count_include_pad=False)[0][0] == [0.0, 1.5, 3.0]
    assert F.avg_pool2d(IMAGE, 2, divisor_override=1) == [[[10.0, 18.0]]]


def test_padding_never_wins_the_maximum():
    assert F.max_pool2d([[[-5.0]]], 3, padding=1) == [[[-5.0]]]


def test_the_first_of_equals_gets_the_gradient_of_max_pooling():
    xs = [[[Value(1.0), Value(3.0)], [Value(3.0), Value(3.0)]]]
    F.max_pool2d(xs, 2)[0][0][0].backward()
    assert [v.grad for v in flatten(xs)] == [0, 1, 0, 0]


def test_a_nan_wins_max_pooling_wherever_it_stands():
    for at in range(4):
        xs = [1.0] * 4
        xs[at] = NAN
        assert math.isnan(F.max_pool2d([[xs[:2], xs[2:]]], 2)[0][0][0])


@pytest.mark.parametrize("pool", [F.max_pool2d, F.avg_pool2d])
def test_pooling_of_a_batch_is_pooling_of_each_image(pool):
    images = uniform(3, 2, 4, 5)
    assert pool(images, 2, 1, 1) == [pool(x, 2, 1, 1) for x in images]


KERNEL = [[[[1.0, 2.0], [3.0, 4.0]]]]


def test_conv2d_refuses_a_wrong_channel_count():
    with pytest.raises(ValueError, match=r"^input: expected 1 channels, got 2"):
        F.conv2d(uniform(2, 3, 3), KERNEL)
    with pytest.raises(ValueError, match=r"^input: expected 2 channels, got 1"):
        F.conv2d(uniform(1, 3, 3), KERNEL * 2, groups=2)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_a_kernel_larger_than_the_image_is_refused(size):
    for f in (F.conv2d, F.max_pool2d, F.avg_pool2d):
        with pytest.raises(ValueError, match=r"^input: expected a length of at least 2 for this kernel, got 1"):
            f(uniform(1, *size), KERNEL if f is F.conv2d else 2)
    with pytest.raises(ValueError, match=r"^input: expected a length of at least 7 for this kernel, got 5"):
        F.conv2d(uniform(1, 5, 5), KERNEL, dilation=6)


@pytest.mark.parametrize("x", [1.0, [], [1.0], [[1.0]], [[[[[1.0]]]]]], ids=str)
def test_what_is_no_image_is_refused(x):
    for f in (F.conv2d, F.max_pool2d, F.avg_pool2d):
        with pytest.raises(ValueError, match=r"^input: expected the shape \(C, H, W\) or \(N, C, H, W\), got"):
            f(x, KERNEL if f is F.conv2d else 1)


def test_a_ragged_image_is_refused():
    for f in (F.conv2d, F.max_pool2d, F.avg_pool2d):
        with pytest.raises(ValueError, match=r"^input is ragged"):
            f([[[1.0, 2.0], [1.0]]], KERNEL if f is F.conv2d else 1)


def test_an_image_without_columns_is_refused():
    with pytest.raises(ValueError, match=r"^input: expected a length of at least 1 for this kernel, got 0"):
        F.max_pool2d([[[]]], 1)


@pytest.mark.parametrize("weight", [[[1.0]], [[[1.0]]], [[[[]]]], []], ids=str)
def test_conv2d_refuses_a_weight_of_another_shape(weight):
    with pytest.raises(
        ValueError, match=r"^weight: expected the shape \(out, C / groups, kh, kw\), all at least 1, got"
    ):
        F.conv2d(uniform(1, 3, 3), weight)


def test_conv2d_refuses_a_bias_of_another_length():
    with pytest.raises(ValueError, match=r"^bias: expected 1 numbers, one for each output"):
        F.conv2d(uniform(1, 3, 3), KERNEL, [1.0, 2.0])


@pytest.mark.parametrize("groups", [0, -1, 2])
def test_conv2d_refuses_groups_that_do_not_divide(groups):
    with pytest.raises(ValueError, match=rf"^groups: expected a divisor of 1 \(output channels\), got {groups}"):
        F.conv2d(uniform(1, 3, 3), KERNEL, groups=groups)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2", (1,), (1, 2, 3), (1, 0)], ids=str)
def test_steps_and_sizes_are_positive_whole_numbers_or_pairs(wrong):
    x = uniform(1, 4, 4)
    calls = {
        "stride": [lambda: F.conv2d(x, KERNEL, stride=wrong), lambda: F.max_pool2d(x, 2, wrong)],
        "dilation": [lambda: F.conv2d(x, KERNEL, dilation=wrong), lambda: F.max_pool2d(x, 2, dilation=wrong)],
        "kernel_size": [lambda: F.max_pool2d(x, wrong), lambda: F.avg_pool2d(x, wrong)],
    }
    for name, each in calls.items():
        for call in each:
            with pytest.raises(ValueError, match=rf"^{name}: expected a whole number >= 1, or a pair of them, got"):
                call()


def test_what_is_refused_as_padding():
    x = uniform(1, 4, 4)
    for f in (F.max_pool2d, F.avg_pool2d):
        with pytest.raises(ValueError, match=r"^padding: expected at most half of kernel_size \(2, 2\), got \(2, 2\)"):
            f(x, 2, padding=2)
        with pytest.raises(ValueError, match=r"^padding: expected a whole number >= 0, or a pair of them, got -1"):
            f(x, 2, padding=-1)
    with pytest.raises(ValueError, match=r"^padding: expected a whole number >= 0, or a pair of them, got -1"):
        F.conv2d(x, KERNEL, padding=-1)
    with pytest.raises(
        ValueError, match=r"^padding: expected 'valid', 'same', a whole number or a pair of them, got 'f"
    ):
        F.conv2d(x, KERNEL, padding="full")
    with pytest.raises(ValueError, match=r"^padding: 'same' goes with stride 1 only, got the stride \(1, 2\)"):
        F.conv2d(x, KERNEL, padding="same", stride=(1, 2))


def test_a_divisor_of_0_is_refused():
    with pytest.raises(ValueError, match=r"^divisor_override: expected a number other than 0, got 0"):
        F.avg_pool2d(IMAGE, 2, divisor_override=0)


def test_flatten_dims_merges_the_dimensions_asked_for():
    x = unflatten(range(24), (2, 3, 2, 2))
    assert F.flatten_dims(x) == [list(range(12)), list(range(12, 24))]
    assert F.flatten_dims(x, 0) == list(range(24))
    assert shape(F.flatten_dims(x, 1, 2)) == (2, 6, 2) and shape(F.flatten_dims(x, -2)) == (2, 3, 4)
    for start, end in product(range(4), range(4)):
        if start <= end:
            assert flatten(F.flatten_dims(x, start, end)) == list(range(24))
            assert F.flatten_dims(x, start, end) == F.flatten_dims(x, start - 4, end - 4)


def test_flatten_dims_refuses_dims_out_of_range():
    for wrong in (2, -3):
        for name in ("start_dim", "end_dim"):
            with pytest.raises(
                IndexError, match=rf"^{name}: expected a dimension of the input, from -2 to 1, got {wrong}"
            ):
                F.flatten_dims([[1.0]], **{"start_dim": 0, name: wrong})
    with pytest.raises(IndexError, match=r"^start_dim: expected a dimension of the input, from -1 to 0, got 1"):
        F.flatten_dims([1.0, 2.0])
    with pytest.raises(ValueError, match=r"^start_dim: expected it not to come after end_dim, got 1 and 0"):
        F.flatten_dims([[1.0]], 1, 0)
    with pytest.raises(ValueError, match=r"^input is ragged"):
        F.flatten_dims([[1.0], [1.0, 2.0]])


# ── Losses ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def xlogy(y, x):
    return y * math.log(x) if y else 0.0


POINTWISE = {
    "mse_loss": lambda x, y: (x - y) ** 2,
    "l1_loss": lambda x, y: abs(x - y),
    "huber_loss": lambda x, y: 0.5 * (x - y) ** 2 if abs(x - y) <= 1 else abs(x - y) - 0.5,
    "smooth_l1_loss": lambda x, y: 0.5 * (x - y) ** 2 if abs(x - y) < 1 else abs(x - y) - 0.5,
    "binary_cross_entropy": lambda x, y: -xlogy(y, x) - xlogy(1 - y, 1 - x),
    "binary_cross_entropy_with_logits": lambda x, y: math.log(1 + math.exp(-x)) + (1 - y) * x,
    "kl_div": lambda x, y: xlogy(y, y) - y * x,
}
pointwise = pytest.mark.parametrize("name", POINTWISE)
SHAPES = [(), (4,), (2, 3), (2, 3, 2)]


@pointwise
@examples
@given(x=st.floats(0.01, 0.99), y=st.floats(0.01, 1), scale=st.sampled_from([1, 3]))
def test_pointwise_losses_are_their_formulas(name, x, y, scale):
    if "binary" not in name:
        x *= scale
    assert float(getattr(F, name)(x, y)) == pytest.approx(POINTWISE[name](x, y), rel=1e-9, abs=1e-12)


@pointwise
@pytest.mark.parametrize("size", SHAPES)
def test_reductions_are_none_their_sum_and_their_mean(name, size):
    f, x, y = getattr(F, name), uniform(*size, low=0.1, high=0.9), uniform(*size, low=0.1, high=0.9)
    each = f(x, y, reduction="none")
    expected = elementwise(lambda x, y: POINTWISE[name](x, y), x, y)
    assert shape(each) == size and flatten(each) == about(expected)
    assert f(x, y, reduction="sum") == pytest.approx(sum(flatten(expected)), rel=1e-12)
    assert f(x, y) == pytest.approx(sum(flatten(expected)) / len(flatten(expected)), rel=1e-12)


@pointwise
def test_pointwise_losses_agree_with_finite_differences(name):
    f = getattr(F, name)
    inputs = [
        uniform(2, 2, low=0.2, high=0.8),
        [[0.9, 0.1], [1.9, 0.15]] if "cross" not in name else uniform(2, 2, low=0.2, high=0.8),
    ]
    assert gradcheck(f, inputs, rtol=1e-5, atol=1e-8) and gradgradcheck(f, inputs, rtol=1e-5, atol=1e-7)


@pointwise
def test_pointwise_losses_take_lists_of_values_tuples_whole_numbers_and_one_scalar(name):
    f = getattr(F, name)
    expected = f([0.25, 0.75], [0.0, 1.0])
    values = [Value(0.25), Value(0.75)]
    for x, y in product([values, tuple(values)], [[0, 1], (0, 1), [False, True], list(map(Value, (0, 1)))]):
        assert f(x, y).data == pytest.approx(expected, rel=1e-15)
    assert f(Value(0.75), 1.0).data == f(0.75, 1) == f([0.75], [1.0])
    f(values, [0, 1]).backward()
    assert values[1].grad


@pointwise
@pytest.mark.parametrize("target", [[], 1.0, [1.0], [1.0] * 3, [[1.0, 1.0]], [[1.0], [1.0]]], ids=str)
def test_a_target_of_another_shape_is_refused(name, target):
    with pytest.raises(ValueError, match=r"^target: expected the shape of input, \(2,\), got"):
        getattr(F, name)([0.5, 0.5], target)


@pointwise
def test_pointwise_losses_refuse_what_is_no_number(name):
    f = getattr(F, name)
    for wrong in ("a", None, 1j):
        with pytest.raises(TypeError, match=r"^input\[1\]: expected a real number or a Value, got"):
            f([0.5, wrong], [0.5, 0.5])
        with pytest.raises(TypeError, match=r"^target\[0\]: expected a real number or a Value, got"):
            f([0.5, 0.5], [wrong, 0.5])
    with pytest.raises(ValueError, match=r"^target\[1\]\[0\]: expected a number, got NaN"):
        f([[0.5], [0.5]], [[0.5], [NAN]])
    with pytest.raises(ValueError, match=r"^target: expected a number, got NaN"):
        f(0.5, NAN)


@pointwise
def test_pointwise_losses_refuse_empty_and_ragged_lists_and_unknown_reductions(name):
    f = getattr(F, name)
    for reduction in ("mean", "sum"):
        for empty in ([], [[]]):
            with pytest.raises(ValueError, match=r"^input: expected at least one number, got an empty list"):
                f(empty, empty, reduction=reduction)
    with pytest.raises(ValueError, match=r"^input is ragged"):
        f([[0.5], [0.5, 0.5]], [[0.5], [0.5, 0.5]])
    with pytest.raises(ValueError, match=r"^target is ragged"):
        f([[0.5], [0.5]], [[0.5], 0.5])
    for wrong in ("average", None, 1, ""):
        with pytest.raises(ValueError, match=r"^reduction: expected 'mean', 'sum' or 'none', got"):
            f([0.5], [0.5], reduction=wrong)


def test_delta_and_beta():
    assert F.huber_loss([3.0], [0.0], delta=2.0) == 2 * (3 - 1)
    assert F.huber_loss([2.0], [0.0], delta=2.0) == 2.0
    assert F.smooth_l1_loss([3.0], [0.0], beta=2.0) == 2.0
    assert F.smooth_l1_loss([1.0], [0.0], beta=2.0) == 0.25
    assert F.smooth_l1_loss([-0.5], [0.0], beta=0) == 0.5
    for wrong in (0, -1.0, NAN):
        with pytest.raises(ValueError, match=r"^delta: expected a number > 0, got"):
            F.huber_loss([1.0], [1.0], delta=wrong)
    for wrong in (-1.0, NAN):
        with pytest.raises(ValueError, match=r"^beta: expected a number >= 0, got"):
            F.smooth_l1_loss([1.0], [1.0], beta=wrong)


def test_binary_cross_entropy_is_bounded_at_0_and_1_and_refuses_what_is_no_probability():
    assert F.binary_cross_entropy([0.0, 1.0], [0.0, 1.0]) == 0.0
    assert F.binary_cross_entropy([0.0, 1.0], [1.0, 0.0]) == 100.0
    for wrong in (-0.1, 1.1, NAN):
        with pytest.raises(ValueError, match="expected 0 <= x <= 1"):
            F.binary_cross_entropy([wrong], [1.0])


@pytest.mark.parametrize("x", [1e4, -1e4])
@pytest.mark.parametrize("y", [0.0, 0.25, 1.0])
def test_binary_cross_entropy_with_logits_is_exact_far_out(x, y):
    v = Value(x)
    loss = F.binary_cross_entropy_with_logits([v], [y])
    loss.backward()
    assert loss.data == (1e4 * (1 - y) if x > 0 else 1e4 * y)
    assert v.grad == (x > 0) - y
    assert F.sigmoid(x) == float(x > 0)


@examples
@given(st.floats(-20, 20), st.floats(0, 1))
def test_binary_cross_entropy_with_logits_is_that_of_the_sigmoid(x, y):
    expected = F.binary_cross_entropy([F.sigmoid(x)], [y])
    assert F.binary_cross_entropy_with_logits([x], [y]) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_weights_of_elements_and_of_positive_targets():
    x, y = [[0.2, 0.7], [0.4, 0.1]], [[0.0, 1.0], [1.0, 0.5]]
    for f in (F.binary_cross_entropy, F.binary_cross_entropy_with_logits):
        each = f(x, y, reduction="none")
        weighted = f(x, y, weight=[2.0, 3.0], reduction="none")
        assert weighted == [[2 * a, 3 * b] for a, b in each]
        assert f(x, y, weight=[[2.0], [3.0]]) == pytest.approx((2 * sum(each[0]) + 3 * sum(each[1])) / 4, rel=1e-14)
        with pytest.raises(ValueError, match=r"^weight of shape \(3,\) does not broadcast to the shape \(2, 2\)"):
            f(x, y, weight=[1.0] * 3)
    loss = F.binary_cross_entropy_with_logits([0.0, 0.0], [1.0, 0.0], reduction="none", pos_weight=[3.0, 3.0])
    assert loss == pytest.approx([3 * math.log(2), math.log(2)], rel=1e-15)
    with pytest.raises(ValueError, match=r"^pos_weight of shape \(3,\) does not broadcast to the shape \(2,\)"):
        F.binary_cross_entropy_with_logits([0.0, 0.0], [1.0, 0.0], pos_weight=[1.0] * 3)


def test_kl_div_of_distributions():
    p, q = [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]
    log_q, log_p = ([math.log(x) for x in xs] for xs in (q, p))
    divergence = 0.5 * math.log(2) - 0.25 * math.log(2)
    assert F.kl_div([log_q], [p], "batchmean") == pytest.approx(divergence, rel=1e-14)
    assert F.kl_div([log_q, log_q], [log_p, log_p], "batchmean", True) == pytest.approx(divergence, rel=1e-14)
    assert F.kl_div([log_q, log_q], [p, p]) == pytest.approx(divergence / 3, rel=1e-14)
    assert F.kl_div([log_p], [p], "sum") == pytest.approx(0, abs=1e-15)
    assert F.kl_div([-1.0, -2.0], [0.0, 1.0], "sum") == 2.0


# ── Classes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@examples
@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=4), st.data())
def test_cross_entropy_is_logsumexp_minus_the_logit_of_the_class(xs, data):
    ts = data.draw(st.lists(st.integers(0, 2), min_size=len(xs), max_size=len(xs)))
    each = [math.log(sum(map(math.exp, x))) - x[t] for x, t in zip(xs, ts)]
    assert F.cross_entropy(xs, ts, reduction="none") == pytest.approx(each, rel=1e-9, abs=1e-9)
    assert F.cross_entropy(xs, ts) == pytest.approx(sum(each) / len(xs), rel=1e-9, abs=1e-9)
    assert F.cross_entropy(xs, ts, reduction="sum") == pytest.approx(sum(each), rel=1e-9, abs=1e-9)
    assert F.cross_entropy(xs[0], ts[0]) == F.cross_entropy(xs[:1], ts[:1])
    assert F.nll_loss(F.log_softmax(xs), ts) == pytest.approx(F.cross_entropy(xs, ts), rel=1e-12, abs=1e-14)


@examples
@given(st.lists(st.floats(-4, 4), min_size=2, max_size=5), st.data())
def test_the_gradient_of_cross_entropy_is_softmax_minus_the_target(xs, data):
    t = data.draw(st.integers(0, len(xs) - 1))
    values = list(map(Value, xs))
    F.cross_entropy(values, t).backward()
    expected = [p - (i == t) for i, p in enumerate(F.softmax(xs))]
    assert [v.grad for v in values] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_cross_entropy_far_out_is_exact():
    assert F.cross_entropy([0, 800], 0) == 800.0 and F.cross_entropy([0, 800], 1) == 0.0
    assert F.cross_entropy([1e4, -1e4], [0.5, 0.5]) == 1e4
    values = [Value(0.0), Value(800.0)]
    F.cross_entropy(values, 0).backward()
    assert [v.grad for v in values] == [-1.0, 1.0]
    assert F.cross_entropy([40.0, 0.0], 0) == pytest.approx(math.exp(-40), rel=1e-14, abs=0)


def test_class_weights_weight_the_losses_and_their_mean():
    x, t, w = uniform(3, 2), [0, 1, 1], [1.0, 3.0]
    a, b, c = F.cross_entropy(x, t, reduction="none")
    assert F.cross_entropy(x, t, w, reduction="none") == pytest.approx([a, 3 * b, 3 * c], rel=1e-14)
    assert F.cross_entropy(x, t, w) == pytest.approx((a + 3 * b + 3 * c) / 7, rel=1e-14)
    assert F.nll_loss(F.log_softmax(x), t, w) == pytest.approx((a + 3 * b + 3 * c) / 7, rel=1e-12)


def test_a_sample_with_the_ignored_index_does_not_count():
    x = uniform(3, 2)
    assert F.cross_entropy(x, [0, -100, 1]) == F.cross_entropy([x[0], x[2]], [0, 1])
    assert F.nll_loss(x, [0, 1, 0], ignore_index=1) == F.nll_loss([x[0], x[2]], [0, 0])
    assert F.nll_loss(x, [0, -100, 1], reduction="none")[1] == 0
    with pytest.raises(ValueError, match=r"^target: expected at least one class, got only -100 \(ignore_index\)"):
        F.cross_entropy(x, [-100] * 3)


def test_probabilities_as_targets_generalise_indices():
    x = uniform(3, 2)
    assert F.cross_entropy(x, [[1, 0], [0, 1], [0.0, 1.0]]) == pytest.approx(F.cross_entropy(x, [0, 1, 1]), rel=1e-14)
    a, b = F.cross_entropy(x[0], 0), F.cross_entropy(x[0], 1)
    assert F.cross_entropy(x[0], [0.25, 0.75]) == pytest.approx(0.25 * a + 0.75 * b, rel=1e-14)
    assert F.cross_entropy(x[0], (0.25, 0.75), [2, 4]) == pytest.approx(0.5 * a + 3 * b, rel=1e-14)
    assert F.cross_entropy(x, [[Value(0.5), Value(0.5)]] * 3).data == F.cross_entropy(x, [[0.5, 0.5]] * 3)


def test_label_smoothing_mixes_in_the_uniform_distribution():
    x, s = uniform(3, 2), 0.2
    soft = [[1 - s / 2, s / 2], [s / 2, 1 - s / 2], [s / 2, 1 - s / 2]]
    expected = pytest.approx(F.cross_entropy(x, soft), rel=1e-14)
    assert F.cross_entropy(x, [0, 1, 1], label_smoothing=s) == expected
    assert F.cross_entropy(x, [[1, 0], [0, 1], [0, 1]], label_smoothing=s) == expected
    for wrong in (-0.1, 1.1, NAN):
        with pytest.raises(ValueError, match=r"^label_smoothing: expected a number between 0 and 1, got"):
            F.cross_entropy(x, [0, 1, 1], label_smoothing=wrong)


@pytest.mark.parametrize("deep", [(2,), (2, 3)])
def test_further_dimensions_are_further_samples(deep):
    x = uniform(2, 3, *deep)
    draw = milligrad.random.generator()
    t = elementwise(lambda _: draw.randrange(3), full((2, *deep), 0))
    columns = [list(c) for sample in x for c in zip(*map(flatten, sample))]
    expected = F.cross_entropy(columns, flatten(t), reduction="none")
    assert flatten(F.cross_entropy(x, t, reduction="none")) == about(expected)
    assert shape(F.cross_entropy(x, t, reduction="none")) == (2, *deep)
    assert F.cross_entropy(x, t) == pytest.approx(sum(expected) / len(expected), rel=1e-13)


def test_class_losses_agree_with_finite_differences():
    def indexed(x, w):
        return F.cross_entropy(x, [2, 0], w, label_smoothing=0.1)

    def soft(x, y):
        return F.cross_entropy(x, y)

    for f, inputs in ((indexed, [uniform(2, 3), [1.0, 2.0, 0.5]]), (soft, [uniform(2, 3), uniform(2, 3)])):
        assert gradcheck(f, inputs, rtol=1e-6, atol=1e-9) and gradgradcheck(f, inputs, rtol=1e-6, atol=1e-8)


class_losses = pytest.mark.parametrize("f", [F.cross_entropy, F.nll_loss])


@class_losses
def test_samples_may_be_tuples_and_lists_of_values(f):
    x = [(Value(-0.1), Value(-2.0)), (Value(-0.3), Value(-1.0))]
    assert f(x, (0, 1)).data == f(floats(x), [0, 1])
    f(x, (0, 1)).backward()
    assert x[0][0].grad < 0 and x[1][1].grad < 0


@class_losses
@pytest.mark.parametrize("label", [2, -1, 100])
def test_a_label_out_of_range_is_refused(f, label):
    for x, t in ([-1.0, -2.0], label), ([[-1.0, -2.0]] * 2, [0, label]):
        with pytest.raises(IndexError, match=rf"^target: expected whole numbers from 0 to 1, got {label}$"):
            f(x, t)


@class_losses
@pytest.mark.parametrize("label", [1.0, 0.5, NAN, "1", None, Value(1.0)], ids=str)
def test_a_label_that_is_no_whole_number_is_refused(f, label):
    for x, t in ([-1.0, -2.0], label), ([[-1.0, -2.0]] * 3, [0, 1, label]):
        with pytest.raises(TypeError, match=r"^target: expected whole numbers from 0 to 1, got"):
            f(x, t)


def test_a_nan_among_the_probabilities_is_refused():
    with pytest.raises(ValueError, match=r"^target\[1\]\[0\]: expected a number, got NaN"):
        F.cross_entropy([[1.0, 2.0]] * 2, [[0.0, 1.0], [NAN, 1.0]])


@class_losses
@pytest.mark.parametrize("target", [0, [], [0], [0] * 3, [[0]] * 2, [[[0, 1]]]], ids=str)
def test_labels_of_another_shape_are_refused(f, target):
    with pytest.raises(ValueError, match=r"^target: expected class indices of the shape \(2,\), got"):
        f([[-1.0, -2.0]] * 2, target)


@class_losses
@pytest.mark.parametrize("weight", [1.0, [], [1.0], [1.0] * 3, [[1.0, 1.0]]], ids=str)
def test_a_class_weight_of_another_length_is_refused(f, weight):
    with pytest.raises(ValueError, match=r"^weight: expected one number for each of the 2 classes, got"):
        f([[-1.0, -2.0]], [0], weight)


def test_probabilities_want_the_right_class_weights_too():
    with pytest.raises(ValueError, match=r"^weight: expected one number for each of the 2 classes, got"):
        F.cross_entropy([[-1.0, -2.0]], [[0.5, 0.5]], [1.0])


@class_losses
@pytest.mark.parametrize("x", [[], [[]], 1.0, [[], []]], ids=str)
def test_logits_that_are_none_are_refused(f, x):
    with pytest.raises(
        ValueError, match=r"^input: expected the shape \(C,\), \(N, C\) or \(N, C, d…\), all at least 1"
    ):
        f(x, 0)


@class_losses
def test_class_losses_refuse_ragged_lists_and_unknown_reductions(f):
    with pytest.raises(ValueError, match=r"^input is ragged"):
        f([[-1.0, -2.0], [-1.0]], [0, 0])
    with pytest.raises(ValueError, match=r"^target is ragged"):
        f([[-1.0, -2.0]] * 2, [0, [0]])
    for wrong in ("average", "batchmean", None):
        with pytest.raises(ValueError, match=r"^reduction: expected 'mean', 'sum' or 'none', got"):
            f([-1.0, -2.0], 0, reduction=wrong)


def test_huber_and_smooth_l1_are_squares_at_their_middle_in_the_second_derivative_too():
    for loss in (F.huber_loss, F.smooth_l1_loss):
        assert milligrad.hessian(lambda x, loss=loss: loss(x, 2.0))(2.0) == 1.0


def test_ceil_mode_has_one_window_where_the_input_is_shorter_than_it():
    image = [[[1.0, 2.0, 3.0]]]
    assert F.max_pool2d(image, 2, ceil_mode=True) == [[[2.0, 3.0]]]
    with pytest.raises(ValueError, match="expected a length of at least 2"):
        F.max_pool2d(image, 2)


def test_activations_refuse_ragged_input_and_what_is_no_number():
    for f in (F.relu, F.silu, F.leaky_relu, F.gelu, F.elu, F.softplus):
        with pytest.raises(ValueError, match=r"^input is ragged"):
            f([[1.0], [1.0, 2.0]])
        with pytest.raises(TypeError, match=r"^input: expected a real number or a Value, got str 'a'"):
            f([1.0, "a"])
