"""The layers: each is its function with parameters of its own. Shapes, first values, samples, batches, refusals."""

import math

import pytest

import milligrad
from milligrad import Value, nn
from milligrad import functional as F
from milligrad.engine import number
from milligrad.nested import elementwise, flatten, full, shape

WRONG_SIZES = [0, -1, 1.5, True, "3", None]


def floats(x):
    return elementwise(number, x)


def uniform(*size):
    draw = milligrad.random.generator()
    return elementwise(lambda _: draw.uniform(-1, 1), full(size, 0.0))


@pytest.fixture(autouse=True)
def seed():
    milligrad.manual_seed(0)


LAYERS = [  # the layer, the shape of a sample, and of what it makes of it
    (lambda: nn.Linear(3, 2), (3,), (2,)),
    (lambda: nn.Linear(3, 2, bias=False), (3,), (2,)),
    (lambda: nn.LayerNorm(3), (3,), (3,)),
    (lambda: nn.LayerNorm((2, 3), bias=False), (2, 3), (2, 3)),
    (lambda: nn.RMSNorm(3), (3,), (3,)),
    (lambda: nn.RMSNorm([2, 3], elementwise_affine=False), (2, 3), (2, 3)),
    (lambda: nn.Dropout(0.5).eval(), (3,), (3,)),
    (lambda: nn.Conv2d(2, 3, 2, padding=1), (2, 3, 3), (3, 4, 4)),
    (lambda: nn.Conv2d(2, 4, (2, 1), stride=(1, 2), groups=2, bias=False), (2, 3, 3), (4, 2, 2)),
    (lambda: nn.MaxPool2d(2, 1), (2, 3, 4), (2, 2, 3)),
    (lambda: nn.AvgPool2d((1, 2)), (2, 3, 4), (2, 3, 2)),
]
layers = pytest.mark.parametrize("make, size, out", LAYERS)


@layers
def test_a_batch_is_its_samples(make, size, out):
    layer, x = make(), uniform(4, *size)
    y = layer(x)
    assert shape(y) == (4, *out) and floats(y) == [floats(layer(sample)) for sample in x]
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        assert floats(layer([x, x])) == [floats(y)] * 2


@layers
def test_samples_may_be_tuples_whole_numbers_or_values(make, size, out):
    layer = make()
    x = elementwise(lambda v: round(10 * v), uniform(*size))
    y = floats(layer(x))

    def tuples(x):
        return tuple(map(tuples, x)) if isinstance(x, list) else x

    assert floats(layer(tuples(x))) == y
    assert flatten(floats(layer(elementwise(Value, x)))) == pytest.approx(flatten(y), rel=1e-14)


@layers
def test_gradients_are_the_slopes_of_finite_differences(make, size, out):
    layer, x = make(), elementwise(Value, uniform(*size))

    def loss():
        return milligrad.sum([y * y * (1 + 0.1 * i) for i, y in enumerate(flatten(layer(x)))])

    loss().backward()
    for v in [*flatten(x), *(p for parameter in layer.parameters() for p in parameter.values())]:
        start, step = v.data, 1e-5
        v.data = start + step
        above = loss().data
        v.data = start - step
        below = loss().data
        v.data = start
        assert v.grad == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-8)


@layers
def test_a_state_goes_into_another_of_its_kind(make, size, out):
    layer, other, x = make(), make(), uniform(*size)
    other.load_state_dict(layer.state_dict())
    assert floats(other(x)) == floats(layer(x)) and repr(other) == repr(layer)


# ── Linear ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_linear_starts_uniform_in_one_over_the_root_of_in_features():
    layer = nn.Linear(25, 40)
    for p in (layer.weight, layer.bias):
        assert -0.2 <= min(flatten(p.data)) < -0.15 and 0.15 < max(flatten(p.data)) <= 0.2
    n = 1000
    assert abs(sum(flatten(layer.weight.data)) / n) < 4 * 0.2 / math.sqrt(3 * n)
    assert sum(w * w for w in flatten(layer.weight.data)) / n == pytest.approx(0.04 / 3, rel=0.1)


def test_a_seed_repeats_the_first_values():
    first = nn.Linear(3, 2).state_dict()
    milligrad.manual_seed(0)
    assert nn.Linear(3, 2).state_dict() == first != nn.Linear(3, 2).state_dict()


def test_linear_by_hand_with_gradients():
    layer = nn.Linear(2, 2)
    layer.load_state_dict({"weight": [[1.0, 2.0], [3.0, 4.0]], "bias": [10.0, 20.0]})
    x = [Value(5.0), Value(-1.0)]
    y = layer(x)
    assert floats(y) == [13.0, 31.0] and [w.data for w in layer.weight[1]] == [3.0, 4.0]
    y[1].backward()
    assert [v.grad for v in x] == [3.0, 4.0]
    assert layer.weight.grad == [[0.0, 0.0], [5.0, -1.0]] and layer.bias.grad == [0.0, 1.0]


def test_linear_without_bias_has_none():
    layer = nn.Linear(2, 3, bias=False)
    assert layer.bias is None and list(layer.state_dict()) == ["weight"] and floats(layer([0, 0])) == [0.0] * 3


@pytest.mark.parametrize("wrong", WRONG_SIZES, ids=str)
def test_sizes_are_positive_whole_numbers(wrong):
    makes = {
        "in_features": lambda: nn.Linear(wrong, 2),
        "out_features": lambda: nn.Linear(2, wrong),
        "num_embeddings": lambda: nn.Embedding(wrong, 2),
        "embedding_dim": lambda: nn.Embedding(2, wrong),
        "in_channels": lambda: nn.Conv2d(wrong, 2, 1),
        "out_channels": lambda: nn.Conv2d(2, wrong, 1),
        "groups": lambda: nn.Conv2d(2, 2, 1, groups=wrong),
        "normalized_shape": lambda: nn.LayerNorm(wrong),
    }
    for name, make in makes.items():
        with pytest.raises(ValueError, match=rf"^{name}: expected a whole number >= 1, got"):
            make()
    with pytest.raises(ValueError, match=r"^normalized_shape: expected a whole number >= 1, got"):
        nn.RMSNorm((2, wrong))


@pytest.mark.parametrize("x, got", [([], 0), ([1.0], 1), ([1.0] * 3, 3), ([[]], 0), ([[1.0, 2.0], [1.0]], None)])
def test_linear_refuses_a_wrong_feature_width(x, got):
    expected = r"^input is ragged" if got is None else rf"^input: expected 2 numbers \(in_features\), got {got}$"
    with pytest.raises(ValueError, match=expected):
        nn.Linear(2, 3)(x)


def test_linear_refuses_what_is_no_list():
    for x in (1.0, None, "ab", Value(1.0)):
        with pytest.raises(ValueError, match=r"^input: expected a list of 2 numbers or a batch of them, got"):
            nn.Linear(2, 3)(x)


# ── Embedding ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_embedding_is_its_rows():
    layer = nn.Embedding(4, 2)
    rows = layer.weight.data
    assert floats(layer(3)) == rows[3] and floats(layer([[0, 1], (2, 0)])) == [[rows[0], rows[1]], [rows[2], rows[0]]]
    assert layer(1)[0] is layer.weight[1][0]


def test_embedding_starts_normal():
    numbers = flatten(nn.Embedding(50, 40).weight.data)
    assert abs(sum(numbers) / 2000) < 4 / math.sqrt(2000)
    assert sum(x * x for x in numbers) / 2000 == pytest.approx(1, rel=0.15) and max(numbers) > 2


@pytest.mark.parametrize("padding_idx, row", [(1, 1), (-1, 3), (-4, 0)])
def test_the_row_of_padding_starts_at_zero_and_gets_no_gradient(padding_idx, row):
    layer = nn.Embedding(4, 2, padding_idx=padding_idx)
    assert layer.padding_idx == row and layer.weight.data[row] == [0.0, 0.0]
    layer.weight[row][0].data = 5.0
    y = layer([0, 1, 2, 3, 3])
    assert y[row][0].data == 5.0
    milligrad.sum(flatten(y)).backward()
    expected = [[1.0 + (i == 3)] * 2 for i in range(4)]
    expected[row] = [0.0, 0.0]
    assert layer.weight.grad == expected
    assert repr(layer) == f"Embedding(4, 2, padding_idx={row})" and repr(nn.Embedding(4, 2)) == "Embedding(4, 2)"


def test_what_embedding_refuses():
    for wrong in (4, -5, 1.5, "1"):
        with pytest.raises(ValueError, match=r"^padding_idx: expected a whole number from -4 to 3, got"):
            nn.Embedding(4, 2, padding_idx=wrong)
    for wrong in (4, -1):
        with pytest.raises(IndexError, match=rf"^input: expected whole numbers from 0 to 3, got {wrong}"):
            nn.Embedding(4, 2)([0, wrong])
    for wrong in (1.0, "1", None):
        with pytest.raises(TypeError, match=r"^input: expected whole numbers from 0 to 3, got"):
            nn.Embedding(4, 2)([0, wrong])
    with pytest.raises(ValueError, match=r"^input is ragged"):
        nn.Embedding(4, 2)([[0], [0, 1]])


# ── Dropout ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dropout_acts_in_training_only_and_keeps_the_mean():
    layer, n = nn.Dropout(0.25), 20_000
    y = layer([3.0] * n)
    assert set(y) == {0.0, 4.0}
    assert abs(y.count(0.0) / n - 0.25) < 4 * math.sqrt(0.25 * 0.75 / n)
    assert layer.eval()([3.0] * 10) == [3.0] * 10 and not list(layer.parameters())
    assert set(layer.train()([3.0] * 100)) == {0.0, 4.0}


def test_each_number_of_a_batch_is_dropped_by_itself():
    y = nn.Dropout()([[1.0] * 64] * 4)
    assert len(set(map(tuple, y))) == 4


def test_the_gradient_of_dropout_is_its_mask():
    xs = [Value(3.0) for _ in range(64)]
    y = nn.Dropout(0.25)(xs)
    milligrad.sum(y).backward()
    assert [x.grad for x in xs] == [v.data / 3 for v in y] and 0.0 in floats(y)


def test_what_dropout_refuses():
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"^p: expected a probability between 0 and 1, got"):
            nn.Dropout(wrong)
    assert nn.Dropout(1.0)([1.0, 2.0]) == [0.0, 0.0] and repr(nn.Dropout(0.25)) == "Dropout(p=0.25)"


# ── Normalisation ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_norms_start_as_the_plain_formula():
    x = [1.0, 2.0, 6.0]
    layer = nn.LayerNorm(3)
    assert layer.weight.data == [1.0] * 3 and layer.bias.data == [0.0] * 3
    y = floats(layer(x))
    assert sum(y) == pytest.approx(0, abs=1e-14) and sum(v * v for v in y) / 3 == pytest.approx(1, rel=1e-5)
    assert y == pytest.approx(F.layer_norm(x, (3,)), rel=1e-15)
    assert floats(nn.LayerNorm(3, eps=10.0)(x)) == pytest.approx(F.layer_norm(x, (3,), eps=10.0), rel=1e-15)
    layer = nn.RMSNorm(3)
    assert layer.weight.data == [1.0] * 3
    assert floats(layer(x)) == pytest.approx([v / math.sqrt(41 / 3) for v in x], rel=1e-14)
    assert floats(nn.RMSNorm(3, eps=1.0)(x)) == pytest.approx([v / math.sqrt(44 / 3) for v in x], rel=1e-14)


def test_the_parameters_of_norms_may_be_left_out():
    assert list(nn.LayerNorm(2).state_dict()) == ["weight", "bias"]
    assert list(nn.LayerNorm(2, bias=False).state_dict()) == ["weight"]
    assert list(nn.LayerNorm(2, elementwise_affine=False).state_dict()) == []
    assert list(nn.RMSNorm(2).state_dict()) == ["weight"]
    assert list(nn.RMSNorm(2, elementwise_affine=False).state_dict()) == []
    assert repr(nn.LayerNorm((2, 3), bias=False)) == "LayerNorm((2, 3), eps=1e-05, elementwise_affine=True, bias=False)"
    assert repr(nn.RMSNorm(2)) == "RMSNorm((2,), eps=None, elementwise_affine=True)"


def test_what_norms_refuse():
    for layer in (nn.LayerNorm((2, 3)), nn.RMSNorm((2, 3))):
        for x in ([], [1.0] * 3, [[1.0] * 3], [[1.0] * 2] * 3, 1.0):
            with pytest.raises(
                ValueError, match=r"^input: expected a shape that ends in \(2, 3\) \(normalized_shape\)"
            ):
                layer(x)
        with pytest.raises(ValueError, match=r"^input is ragged"):
            layer([[1.0] * 3, [1.0] * 2])
    for norm in (nn.LayerNorm, nn.RMSNorm):
        with pytest.raises(ValueError, match=r"^normalized_shape: expected at least one dimension, got \(\)"):
            norm(())


# ── Images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_convolution_by_hand_with_gradients():
    layer = nn.Conv2d(1, 1, 2)
    layer.load_state_dict({"weight": [[[[1.0, 2.0], [3.0, 4.0]]]], "bias": [0.5]})
    image = [[[1.0, 0.0, 2.0], [0.0, 1.0, 0.0], [3.0, 0.0, 1.0]]]
    y = layer(image)
    assert floats(y) == [[[5.5, 7.5], [11.5, 5.5]]]
    milligrad.sum(flatten(y)).backward()
    assert layer.weight.grad == [[[[2.0, 3.0], [4.0, 2.0]]]] and layer.bias.grad == [4.0]


def test_a_convolution_starts_uniform_in_one_over_the_root_of_its_fan_in():
    layer = nn.Conv2d(8, 100, (2, 5), groups=2)
    bound = 1 / math.sqrt(4 * 10)
    assert layer.weight.shape == (100, 4, 2, 5) and layer.bias.shape == (100,)
    for p in (layer.weight, layer.bias):
        assert 0.8 * bound < max(map(abs, flatten(p.data))) <= bound


def test_options_reach_the_function():
    x = uniform(2, 5, 6)
    layer = nn.Conv2d(2, 4, (2, 3), (1, 2), (1, 0), (2, 1), 2)
    assert floats(layer(x)) == floats(F.conv2d(x, layer.weight, layer.bias, (1, 2), (1, 0), (2, 1), 2))
    assert nn.MaxPool2d(2, 3, 1, 2, True)(x) == F.max_pool2d(x, 2, 3, 1, 2, True) != F.max_pool2d(x, 2, 3, 1, 2)
    pooled = nn.AvgPool2d(2, 3, 1, True, False)(x)
    assert pooled == F.avg_pool2d(x, 2, 3, 1, True, False) != F.avg_pool2d(x, 2, 3, 1, True)
    assert nn.AvgPool2d(2, divisor_override=3)(x) == F.avg_pool2d(x, 2, divisor_override=3) != F.avg_pool2d(x, 2)
    assert shape(nn.Conv2d(2, 1, 3, padding="same")(x)) == (1, 5, 6)
    assert shape(nn.Conv2d(2, 1, 3, padding="valid")(x)) == (1, 3, 4)


def test_what_convolutions_refuse():
    layer = nn.Conv2d(2, 3, 3)
    with pytest.raises(ValueError, match=r"^input: expected 2 channels, got 1"):
        layer(uniform(1, 3, 3))
    with pytest.raises(ValueError, match=r"^input: expected a length of at least 3 for this kernel, got 2"):
        layer(uniform(2, 3, 2))
    for size in ((), (0,), (3,), (3, 3), (1, 1, 2, 3, 3)):
        with pytest.raises(ValueError, match=r"^input: expected the shape \(C, H, W\) or \(N, C, H, W\), got"):
            layer(uniform(*size))
    with pytest.raises(ValueError, match=r"^groups: expected a divisor of in_channels and out_channels, got 2"):
        nn.Conv2d(2, 3, 1, groups=2)
    with pytest.raises(ValueError, match=r"^groups: expected a divisor of in_channels and out_channels, got 2"):
        nn.Conv2d(3, 2, 1, groups=2)
    with pytest.raises(ValueError, match=r"^padding: 'same' goes with stride 1 only"):
        nn.Conv2d(1, 1, 1, stride=2, padding="same")
    with pytest.raises(ValueError, match=r"^padding: expected 'valid', 'same', a whole number or a pair"):
        nn.Conv2d(1, 1, 1, padding="full")


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2", (1, 2, 3), (1, 0), None], ids=str)
def test_kernels_and_steps_are_positive_whole_numbers_or_pairs(wrong):
    makes = {
        "kernel_size": [lambda: nn.Conv2d(1, 1, wrong), lambda: nn.MaxPool2d(wrong), lambda: nn.AvgPool2d(wrong)],
        "stride": [lambda: nn.Conv2d(1, 1, 1, wrong)],
        "dilation": [lambda: nn.Conv2d(1, 1, 1, dilation=wrong), lambda: nn.MaxPool2d(1, dilation=wrong)],
    }
    if wrong is not None:
        makes["stride"] += [lambda: nn.MaxPool2d(1, wrong), lambda: nn.AvgPool2d(1, wrong)]
    for name, each in makes.items():
        for make in each:
            with pytest.raises(ValueError, match=rf"^{name}: expected a whole number >= 1, or a pair of them, got"):
                make()


def test_pooling_refuses_too_much_padding_when_it_is_made():
    for pool in (nn.MaxPool2d, nn.AvgPool2d):
        with pytest.raises(ValueError, match=r"^padding: expected at most half of kernel_size \(3, 3\), got \(2, 2\)"):
            pool(3, padding=2)
        with pytest.raises(ValueError, match=r"^padding: expected a whole number >= 0, or a pair of them, got -1"):
            pool(3, padding=-1)
        with pytest.raises(ValueError, match=r"^input: expected a length of at least 3 for this kernel, got 2"):
            pool(3)(uniform(1, 2, 3))


def test_the_repr_of_images_shows_what_is_not_the_default():
    assert repr(nn.Conv2d(1, 2, 3)) == "Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))"
    shown = "Conv2d(2, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(2, 2), groups=2, bias=False)"
    assert repr(nn.Conv2d(2, 2, 3, 1, 1, 2, 2, bias=False)) == shown
    assert repr(nn.MaxPool2d(2)) == "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)"
    assert repr(nn.AvgPool2d((2, 1), 3)) == "AvgPool2d(kernel_size=(2, 1), stride=3, padding=0)"


# ── Flatten ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_flatten_keeps_the_batch():
    x = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert nn.Flatten()(x) == [[1, 2, 3, 4], [5, 6, 7, 8]] and nn.Flatten(0)(x) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert nn.Flatten(0, 1)(x) == nn.Flatten(-3, -2)(x) == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert nn.Flatten()([[1, 2]]) == [[1, 2]] and repr(nn.Flatten()) == "Flatten(start_dim=1, end_dim=-1)"
    v = Value(1.0)
    assert nn.Flatten()([[[v]]])[0][0] is v


def test_flatten_refuses_dims_out_of_range():
    with pytest.raises(IndexError, match=r"^start_dim: expected a dimension of the input, from -1 to 0, got 1"):
        nn.Flatten()([1.0, 2.0])
    with pytest.raises(IndexError, match=r"^end_dim: expected a dimension of the input, from -2 to 1, got 5"):
        nn.Flatten(0, 5)([[1.0]])
    with pytest.raises(ValueError, match=r"^start_dim: expected it not to come after end_dim, got 2 and 1"):
        nn.Flatten(2, 1)([[[1.0]]])
    with pytest.raises(ValueError, match=r"^input is ragged"):
        nn.Flatten()([[1.0], [1.0, 2.0]])
