import math
from functools import partial

import pytest
import torch
import torch.nn.functional as T
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import Value, grad
from milligrad import functional as F
from milligrad.nested import unflatten

SAMPLE, BATCH, TWO_DEEP = (4,), (3, 4), (2, 3, 4)
examples = settings(max_examples=25, deadline=None)
floats = st.floats(-10, 10)


def arrays(size, elements=floats):
    """Nested lists of the shape `size`."""
    return st.lists(elements, min_size=math.prod(size), max_size=math.prod(size)).map(lambda xs: unflatten(xs, size))


def numbers(*size, seed=0, low=-3.0, high=3.0):
    """Nested lists of the shape `size`: uniform numbers that are the same in each run."""
    generator = torch.Generator().manual_seed(seed)
    return (low + (high - low) * torch.rand(size, dtype=torch.float64, generator=generator)).tolist()


def probabilities(*size, seed=0, dim=-1):
    return torch.softmax(torch.tensor(numbers(*size, seed=seed), dtype=torch.float64), dim).tolist()


def tensor(x):
    return None if x is None else torch.tensor(x, dtype=torch.float64)


# Activations

ACTIVATIONS = {
    "relu": [{}],
    "sigmoid": [{}],
    "tanh": [{}],
    "silu": [{}],
    "leaky_relu": [{}, {"negative_slope": 0.3}, {"negative_slope": 0.0}, {"negative_slope": -0.5}],
    "elu": [{}, {"alpha": 0.3}, {"alpha": 2.5}],
    "gelu": [{"approximate": "none"}, {"approximate": "tanh"}],
    "softplus": [{}, {"beta": 0.5}, {"beta": 3.0, "threshold": 5.0}, {"beta": 2.0, "threshold": 0.0}],
    "softmax": [{"dim": -1}, {"dim": 0}],
    "log_softmax": [{"dim": -1}, {"dim": 0}],
}
activations = pytest.mark.parametrize(
    "name, options", [(name, options) for name, each in ACTIVATIONS.items() for options in each]
)


@activations
@pytest.mark.parametrize("size", [SAMPLE, BATCH, TWO_DEEP])
def test_activations_of_samples_and_batches(name, options, size, agree):
    @settings(max_examples=10, deadline=None)
    @given(arrays(size))
    def compare(x):
        agree(lambda v: getattr(F, name)(v, **options), lambda t: getattr(T, name)(t, **options), x)

    compare()


@activations
def test_activations_at_zero_and_far_out(name, options, agree):
    far = [0.0, -0.0, 5e-324, -5e-324, 1e-300, -1e-300, 1e-9, -1e-9, 19.99, 20.0, 20.01, -20.0, 1e4, -1e4]
    agree(lambda v: getattr(F, name)(v, **options), lambda t: getattr(T, name)(t, **options), far)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "leaky_relu", "elu", "softplus"])
@pytest.mark.parametrize("x", [1e300, -1e300, math.inf, -math.inf])
def test_activations_at_the_ends_of_the_line(name, x, agree):
    agree(getattr(F, name), getattr(T, name), [x])


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "leaky_relu", "silu", "elu", "gelu", "softplus"])
def test_activations_of_nan_are_nan(name):
    assert math.isnan(getattr(F, name)(math.nan)) and torch.isnan(getattr(T, name)(torch.tensor(math.nan)))


@pytest.mark.parametrize("x", [38.0, -38.0, 1e4, -1e4, 1e100, -1e100, 1e154, -1e154])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_far_out(approximate, x, agree):
    agree(lambda v: F.gelu(v, approximate), lambda t: T.gelu(t, approximate=approximate), [x])


@pytest.mark.parametrize("x", [1e300, -1e300])
def test_gelu_at_1e300(x, agree):
    agree(F.gelu, T.gelu, [x])
    assert F.gelu([x], "tanh") == T.gelu(tensor([x]), approximate="tanh").tolist()


@pytest.mark.parametrize("x", [1e4, -1e4, 1e100, -1e300, 1e300])
def test_silu_far_out(x, agree):
    agree(F.silu, T.silu, [x])


@pytest.mark.parametrize("beta, threshold", [(1.0, 20.0), (2.0, 7.0), (0.25, 1.0)])
def test_softplus_on_both_sides_of_its_threshold(beta, threshold, agree):
    corner = threshold / beta
    x = [corner, math.nextafter(corner, 0), math.nextafter(corner, 1e9), corner + 1, corner - 1]
    agree(lambda v: F.softplus(v, beta, threshold), lambda t: T.softplus(t, beta, threshold), x)


@pytest.mark.parametrize("x", [[1000.0, 0.0], [0.0, 800.0], [1e4, -1e4, 0.0], [-1e4, -1e4], [1e300, -1e300], [3.0]])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_distant_logits(name, x, agree):
    agree(lambda v: getattr(F, name)(v), lambda t: getattr(T, name)(t, dim=-1), x)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_gives_nothing_to_minus_infinity(name, agree):
    agree(lambda v: getattr(F, name)(v), lambda t: getattr(T, name)(t, dim=-1), [1.0, -math.inf, 2.0])


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_along_each_dimension(name, dim, agree):
    x = numbers(2, 3, 4)
    agree(lambda v: getattr(F, name)(v, dim), lambda t: getattr(T, name)(t, dim=dim), x)


# Twice, at the edges

EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 0.4, 1e-300, -1e-300, 1e150, -1e150, 19.0, -20.0, 40.0, -40.0, 709.0, -709.0]
EDGES += [1e4, -1e4, math.inf, -math.inf, math.nan]


def three(f, *xs):
    """f, its gradient and its hessian by milligrad; None where Python's arithmetic raises."""
    values = [Value(x) for x in xs]
    try:
        z = f(*values)
        gradient = grad(z, values)
        rows = [grad(g, values) if g.requires_grad else [0.0] * len(xs) for g in gradient]
    except (ValueError, ArithmeticError):
        return None
    return [float(x) for x in (z.data, *[g.data for g in gradient], *[h.real for row in rows for h in row])]


def three_of_torch(f, *xs):
    xs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in xs]
    z = f(*xs)
    gradient = torch.autograd.grad(z, xs, create_graph=True)
    zeros = [torch.zeros(())] * len(xs)
    rows = [
        torch.autograd.grad(g, xs, retain_graph=True, materialize_grads=True) if g.requires_grad else zeros
        for g in gradient
    ]
    return [x.item() for x in (z, *gradient, *[h for row in rows for h in row])]


def agree_twice(f, g, *xs, only=None):
    """Values, gradients and second derivatives agree; where milligrad raises, PyTorch has no finite answer either."""
    ours, theirs = three(f, *xs), three_of_torch(g, *xs)
    if ours is None:
        assert not all(map(math.isfinite, theirs)), (xs, theirs)
    else:
        given = all(x == x for x in xs)  # PyTorch has NaN for 0 · inf, which is 0 here: see tests/test_zero_rule.py
        theirs = [x if k and y != y and given and math.isfinite(x) else y for k, (x, y) in enumerate(zip(ours, theirs))]
        assert ours[:only] == pytest.approx(theirs[:only], rel=1e-9, abs=1e-15, nan_ok=True), xs


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if "softmax" not in name])
@pytest.mark.parametrize("x", EDGES)
def test_activations_twice_at_the_edges(name, x):
    for options in ACTIVATIONS[name]:
        if name == "softplus" and x * options.get("beta", 1.0) == options.get("threshold", 20.0):
            continue  # there PyTorch's second derivative is already 0, and its first is not yet 1
        agree_twice(lambda v, o=options: getattr(F, name)(v, **o), lambda t, o=options: getattr(T, name)(t, **o), x)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("x", EDGES)
def test_softmax_twice_at_the_edges(name, x):
    for y in (0.0, 1e4, -1e4, 1e150, math.inf, -math.inf, math.nan):
        for k in (0, 1):
            agree_twice(
                lambda *v, k=k: getattr(F, name)(v)[k], lambda *t, k=k: getattr(T, name)(torch.stack(t), -1)[k], x, y
            )
        agree_twice(lambda *v: F.cross_entropy(v, 1), lambda *t: T.cross_entropy(torch.stack(t), torch.tensor(1)), x, y)


# Layers


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(lead, bias, agree):
    inputs = [numbers(*lead, 3), numbers(2, 3, seed=1)] + [numbers(2, seed=2)] * bias
    agree(F.linear, T.linear, *inputs)


@examples
@given(arrays((2, 3), st.floats(-1e6, 1e6)), arrays((4, 3)), arrays((4,)))
def test_linear_of_any_numbers(x, w, b):
    from_torch = T.linear(tensor(x), tensor(w), tensor(b))
    ours = tensor([[float(z) for z in row] for row in F.linear(x, w, b)])
    torch.testing.assert_close(ours, from_torch, rtol=1e-9, atol=1e-8)  # sums of numbers of size 1e7 cancel


@pytest.mark.parametrize("index", [3, [2], [2, 2, 0], [[1, 0], [4, 1]], [[[1]], [[4]]]])
@pytest.mark.parametrize("padding_idx", [None, 0, 1, 4, -1, -5])
def test_embedding(index, padding_idx, agree):
    agree(
        lambda w: F.embedding(index, w, padding_idx),
        lambda w: T.embedding(torch.tensor(index), w, padding_idx),
        numbers(5, 3),
    )


@pytest.mark.parametrize("index", [3, [2], [2, 2, 0], [[1, 0], [4, 1]], [[[1]], [[4]]]])
def test_one_hot(index):
    assert F.one_hot(index, 5) == T.one_hot(torch.tensor(index), 5).tolist()


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize("size", [(4,), (1,), (2, 3)])
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_layer_norm(lead, size, eps, agree):
    x, w, b = numbers(*lead, *size), numbers(*size, seed=1), numbers(*size, seed=2)
    agree(lambda x, w, b: F.layer_norm(x, size, w, b, eps), lambda x, w, b: T.layer_norm(x, size, w, b, eps), x, w, b)
    agree(lambda x, w: F.layer_norm(x, size, w, eps=eps), lambda x, w: T.layer_norm(x, size, w, eps=eps), x, w)
    agree(lambda x: F.layer_norm(x, size, eps=eps), lambda x: T.layer_norm(x, size, eps=eps), x)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize("size", [(4,), (1,), (2, 3)])
@pytest.mark.parametrize("eps", [None, 1e-5, 0.5])
def test_rms_norm(lead, size, eps, agree):
    x, w = numbers(*lead, *size), numbers(*size, seed=1)
    agree(lambda x, w: F.rms_norm(x, size, w, eps), lambda x, w: T.rms_norm(x, size, w, eps), x, w)
    agree(lambda x: F.rms_norm(x, size, eps=eps), lambda x: T.rms_norm(x, size, eps=eps), x)


@pytest.mark.parametrize("x", [[0.0, 0.0, 0.0], [1e-8, -1e-8, 0.0]])
def test_norms_of_nothing_are_held_up_by_eps(x, agree):
    agree(lambda v: F.layer_norm(v, (3,)), lambda t: T.layer_norm(t, (3,)), x)
    agree(lambda v: F.rms_norm(v, (3,)), lambda t: T.rms_norm(t, (3,)), x)


CONVOLUTIONS = [
    {},
    {"stride": 2},
    {"stride": (1, 3)},
    {"padding": 1},
    {"padding": (2, 0)},
    {"padding": "valid", "stride": 2},
    {"padding": "same"},
    {"padding": "same", "dilation": (1, 2)},
    {"dilation": 2},
    {"dilation": (1, 2), "stride": (2, 1), "padding": (0, 1)},
    {"groups": 2},
    {"groups": 2, "padding": 1, "stride": 2},
]


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("lead", [(), (2,)])
def test_conv2d(lead, kernel, options, agree):
    channels = 2 // options.get("groups", 1)
    x, w, b = numbers(*lead, 2, 6, 5), numbers(4, channels, *kernel, seed=1), numbers(4, seed=2)
    agree(lambda *v: F.conv2d(*v, **options), lambda *t: T.conv2d(*t, **options), x, w, b)
    agree(lambda *v: F.conv2d(*v, **options), lambda *t: T.conv2d(*t, **options), x, w)


pairs = st.integers(1, 3) | st.tuples(st.integers(1, 3), st.integers(1, 3))


def both(x):
    return x if isinstance(x, tuple) else (x, x)


@st.composite
def windows(draw):
    """(image, kernel size, stride, padding, dilation), so that windows fit, and none lies in the padding alone."""
    kernel, dilation = draw(pairs), draw(pairs)
    stride = draw(st.none() | pairs)
    padding = tuple(draw(st.integers(0, k // 2)) for k in both(kernel))
    least = [max(d, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(both(kernel), both(dilation), padding)]
    size = [draw(st.integers(n, n + 4)) for n in least]
    image = draw(arrays((2, *size), st.integers(-2, 2).map(float)))  # with many ties
    return image, kernel, stride, padding, dilation


@settings(max_examples=100, deadline=None)
@given(windows(), st.booleans())
def test_max_pool2d_with_ties(agree, window, ceil_mode):
    x, *options = window
    agree(lambda v: F.max_pool2d(v, *options, ceil_mode), lambda t: T.max_pool2d(t, *options, ceil_mode), x)


@settings(max_examples=100, deadline=None)
@given(windows(), st.booleans(), st.booleans(), st.sampled_from([None, 1, 3, -2]))
def test_avg_pool2d(agree, window, ceil_mode, count_include_pad, divisor):
    x, kernel, stride, padding, _ = window
    if min(len(x[0]) + 2 * padding[0] - both(kernel)[0], len(x[0][0]) + 2 * padding[1] - both(kernel)[1]) < 0:
        return
    options = kernel, stride, padding, ceil_mode, count_include_pad, divisor
    agree(lambda v: F.avg_pool2d(v, *options), lambda t: T.avg_pool2d(t, *options), x)


def test_pools_of_a_batch(agree):
    x = numbers(2, 3, 5, 4)
    agree(lambda v: F.max_pool2d(v, 2), lambda t: T.max_pool2d(t, 2), x)
    agree(lambda v: F.avg_pool2d(v, 2), lambda t: T.avg_pool2d(t, 2), x)


@pytest.mark.parametrize("row", [[math.nan, 1.0, 2.0], [1.0, math.nan, 2.0], [1.0, 2.0, math.nan], [-math.inf] * 3])
def test_max_pool2d_of_nan_and_infinity(row, agree):
    agree(lambda v: F.max_pool2d(v, (1, 3)), lambda t: T.max_pool2d(t, (1, 3)), [[row]])


def test_max_pool2d_of_a_window_with_nothing_but_padding():
    options = {"kernel_size": (2, 1), "padding": (1, 0), "dilation": (3, 1)}
    x = numbers(1, 2, 2)
    assert F.max_pool2d(x, **options) == T.max_pool2d(tensor(x), **options).tolist() == [[[-math.inf] * 2]]


@pytest.mark.parametrize("start", range(-4, 4))
@pytest.mark.parametrize("end", range(-4, 4))
def test_flatten_of_each_range_of_dimensions(start, end):
    x = torch.arange(120).reshape(2, 3, 4, 5)
    if start % 4 <= end % 4:
        assert F.flatten_dims(x.tolist(), start, end) == torch.flatten(x, start, end).tolist()
    else:
        with pytest.raises(RuntimeError):
            torch.flatten(x, start, end)
        with pytest.raises(ValueError, match="start_dim"):
            F.flatten_dims(x.tolist(), start, end)


# Losses of pairs of numbers

REDUCTIONS = ["mean", "sum", "none"]
reductions = pytest.mark.parametrize("reduction", REDUCTIONS)
sizes = pytest.mark.parametrize("size", [(), (1,), SAMPLE, BATCH, TWO_DEEP])
POINTWISE = [
    ("mse_loss", {}),
    ("l1_loss", {}),
    ("huber_loss", {}),
    ("huber_loss", {"delta": 0.4}),
    ("smooth_l1_loss", {}),
    ("smooth_l1_loss", {"beta": 0.4}),
    ("smooth_l1_loss", {"beta": 0.0}),
]


@pytest.mark.parametrize("name, options", POINTWISE)
@reductions
@sizes
def test_distances(name, options, reduction, size, agree):
    x, y = numbers(*size), numbers(*size, seed=1)
    options = {"reduction": reduction, **options}
    agree(lambda *v: getattr(F, name)(*v, **options), lambda *t: getattr(T, name)(*t, **options), x, y)


@pytest.mark.parametrize("name, options", POINTWISE)
def test_distances_of_any_numbers(name, options, agree):
    @examples
    @given(arrays((2, 2), st.floats(-1e4, 1e4)), arrays((2, 2), st.floats(-1e4, 1e4)))
    def compare(x, y):
        agree(lambda *v: getattr(F, name)(*v, **options), lambda *t: getattr(T, name)(*t, **options), x, y)

    compare()


@pytest.mark.parametrize("name, options", POINTWISE)
@pytest.mark.parametrize("x", [0.0, 0.4, -0.4, 1.0, -1.0, 1e100, -1e100, 1e154, 5e-324])
def test_distances_at_their_corners(name, options, x, agree):
    agree(lambda *v: getattr(F, name)(*v, **options), lambda *t: getattr(T, name)(*t, **options), [x], [0.0])


@pytest.mark.parametrize("name, options", POINTWISE[1:])
@pytest.mark.parametrize("x", [math.inf, -math.inf])
def test_distances_of_infinity(name, options, x, agree):
    agree(lambda *v: getattr(F, name)(*v, **options), lambda *t: getattr(T, name)(*t, **options), [x], [0.0])


@pytest.mark.parametrize("name, options", POINTWISE)
@pytest.mark.parametrize("x", EDGES)
def test_distances_twice_at_the_edges(name, options, x):
    # The second derivative of a NaN is that of the parabola; of PyTorch's three branches it is in none, and 0.
    only = 2 if x != x and name in ("huber_loss", "smooth_l1_loss") else None
    for y in (0.0, 1.0, 0.5):
        ours = partial(getattr(F, name), target=y, **options)
        agree_twice(ours, partial(getattr(T, name), target=tensor(y), **options), x, only=only)


@pytest.mark.parametrize("x", [x for x in EDGES if x > -math.inf or x != x])
def test_cross_entropies_of_two_classes_twice_at_the_edges(x):
    for y in (0.0, 1.0, 0.3):
        f, g = F.binary_cross_entropy_with_logits, T.binary_cross_entropy_with_logits
        agree_twice(partial(f, target=y), partial(g, target=tensor(y)), x)
        agree_twice(partial(F.kl_div, target=y), partial(T.kl_div, target=tensor(y), reduction="sum"), x)


def weight_sizes(size):
    """The shapes that broadcast to `size`, for a few of them."""
    return [None, (), size, size[-1:], (*size[:-1], 1)] if size else [None, ()]


@reductions
@sizes
def test_bce(reduction, size, agree):
    x, y = numbers(*size, low=0.0, high=1.0), numbers(*size, seed=1, low=0.0, high=1.0)
    for shape in weight_sizes(size):
        w = None if shape is None else numbers(*shape, seed=2, low=0.5, high=2.0)
        agree(
            lambda *v, w=w: F.binary_cross_entropy(*v, w, reduction),
            lambda *t, w=w: T.binary_cross_entropy(*t, tensor(w), reduction=reduction),
            x,
            y,
        )


@examples
@given(arrays((3,), st.floats(0, 1)), arrays((3,), st.floats(0, 1)))
def test_bce_of_any_probabilities(agree, x, y):
    agree(lambda v: F.binary_cross_entropy(v, y), lambda t: T.binary_cross_entropy(t, tensor(y)), x)


@pytest.mark.parametrize("x", [0.0, 1.0, 1e-300, 5e-324, 1e-44, 1e-43, 1e-12, 1 - 2**-53, 1 - 1e-12])
@pytest.mark.parametrize("y", [0.0, 1.0, 0.25])
def test_bce_at_the_edge_of_probability(x, y, agree):
    agree(lambda v: F.binary_cross_entropy(v, [y]), lambda t: T.binary_cross_entropy(t, tensor([y])), [x])
    if 1e-43 <= x < 1:  # beyond, PyTorch's gradient of the target leaves out the bound of -100 that its value has
        agree(lambda v: F.binary_cross_entropy([x], v), lambda t: T.binary_cross_entropy(tensor([x]), t), [y])


@reductions
@sizes
def test_bce_with_logits(reduction, size, agree):
    x, y = numbers(*size), numbers(*size, seed=1, low=0.0, high=1.0)
    for shape in weight_sizes(size):
        w = None if shape is None else numbers(*shape, seed=2, low=0.5, high=2.0)
        for name in ("weight", "pos_weight"):
            agree(
                lambda *v, o=name, w=w: F.binary_cross_entropy_with_logits(*v, reduction=reduction, **{o: w}),
                lambda *t, o=name, w=w: T.binary_cross_entropy_with_logits(*t, reduction=reduction, **{o: tensor(w)}),
                x,
                y,
            )


@pytest.mark.parametrize("x", [0.0, 1e4, -1e4, 1e300, -1e300, 40.0, -40.0])
@pytest.mark.parametrize("y", [0.0, 1.0, 0.25])
@pytest.mark.parametrize("pos_weight", [None, 3.0])
def test_bce_with_logits_far_out(x, y, pos_weight, agree):
    agree(
        lambda *v: F.binary_cross_entropy_with_logits(*v, pos_weight=pos_weight),
        lambda *t: T.binary_cross_entropy_with_logits(*t, pos_weight=tensor(pos_weight)),
        [x],
        [y],
    )


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("reduction", [*REDUCTIONS, "batchmean"])
@pytest.mark.parametrize("log_target", [False, True])
@sizes
def test_kl_div(reduction, log_target, size, agree):
    x, y = numbers(*size), numbers(*size, seed=1, low=0.01, high=1.0)
    agree(
        lambda *v: F.kl_div(*v, reduction, log_target),
        lambda *t: T.kl_div(*t, reduction=reduction, log_target=log_target),
        x,
        y,
    )


def test_kl_div_of_targets_that_are_0(agree):
    y = [[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]
    agree(
        lambda v: F.kl_div(v, y, "batchmean"),
        lambda t: T.kl_div(t, tensor(y), reduction="batchmean"),
        numbers(2, 3),
    )


# Losses of classes

CLASSES = 4
CLASS_SHAPES = [(CLASSES,), (3, CLASSES), (1, CLASSES), (2, CLASSES, 3), (2, CLASSES, 2, 2)]
class_shapes = pytest.mark.parametrize("size", CLASS_SHAPES)
class_weights = pytest.mark.parametrize("weight", [None, [0.5, 2.0, 1.0, 0.25]])


def class_targets(size, ignored=None):
    """Class indices for the input shape `size`; with `ignored`, a few of them are that."""
    count = math.prod(size) // CLASSES
    flat = [(2 * i + 1) % CLASSES if ignored is None or i % 3 else ignored for i in range(1, count + 1)]
    return unflatten(flat, () if len(size) == 1 else (size[0], *size[2:]))


@class_shapes
@class_weights
@reductions
@pytest.mark.parametrize("ignore_index", [None, -100, 1])
def test_nll_loss(size, weight, reduction, ignore_index, agree):
    y = class_targets(size, ignore_index if len(size) > 1 else None)
    options = {"ignore_index": -100 if ignore_index is None or len(size) == 1 else ignore_index, "reduction": reduction}
    agree(
        lambda v: F.nll_loss(v, y, weight, **options),
        lambda t: T.nll_loss(t, torch.tensor(y), tensor(weight), **options),
        numbers(*size),
    )


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("name", ["nll_loss", "cross_entropy"])
def test_what_is_ignored_altogether_is_0_and_so_is_its_gradient(name, reduction, agree):
    agree(
        lambda v: getattr(F, name)(v, [-100] * 3, reduction=reduction),
        lambda t: getattr(T, name)(t, torch.tensor([-100] * 3), reduction=reduction),
        numbers(3, 4),
    )


@class_shapes
@class_weights
@reductions
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ignore_index", [None, -100, 1])
def test_cross_entropy_of_class_indices(size, weight, reduction, smoothing, ignore_index, agree):
    y = class_targets(size, ignore_index if len(size) > 1 else None)
    ignored = -100 if ignore_index is None or len(size) == 1 else ignore_index
    options = {"ignore_index": ignored, "reduction": reduction, "label_smoothing": smoothing}
    agree(
        lambda v: F.cross_entropy(v, y, weight, **options),
        lambda t: T.cross_entropy(t, torch.tensor(y), tensor(weight), **options),
        numbers(*size),
    )


@class_shapes
@class_weights
@reductions
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_of_probabilities(size, weight, reduction, smoothing, agree):
    options = {"reduction": reduction, "label_smoothing": smoothing}
    agree(
        lambda *v: F.cross_entropy(*v, weight, **options),
        lambda *t: T.cross_entropy(*t, tensor(weight), **options),
        numbers(*size),
        probabilities(*size, seed=1, dim=0 if len(size) == 1 else 1),
    )


@examples
@given(arrays((3, CLASSES), st.floats(-100, 100)), st.lists(st.integers(0, CLASSES - 1), min_size=3, max_size=3))
def test_cross_entropy_of_any_logits(agree, x, y):
    agree(lambda v: F.cross_entropy(v, y), lambda t: T.cross_entropy(t, torch.tensor(y)), x)


@pytest.mark.parametrize("x", [[0.0, 800.0], [1e4, -1e4], [-1e4, 1e4], [1e300, -1e300], [0.0, -0.0]])
@pytest.mark.parametrize("y", [0, 1])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_distant_logits(x, y, smoothing, agree):
    agree(
        lambda v: F.cross_entropy(v, y, label_smoothing=smoothing),
        lambda t: T.cross_entropy(t, torch.tensor(y), label_smoothing=smoothing),
        x,
    )
