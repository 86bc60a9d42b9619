"""The recurrent layers against their formulas written out, finite differences, and what they must refuse."""

import math

import pytest

import milligrad
from milligrad import Value, nn, ops
from milligrad.engine import number
from milligrad.nested import elementwise, flatten, full, shape, transpose

LAYERS = [nn.RNN, nn.GRU, nn.LSTM]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def floats(x):
    return elementwise(number, x)


def numbers(*size):
    """Some numbers between -1 and 1."""
    draw = milligrad.random.generator()
    return elementwise(lambda _: draw.uniform(-1, 1), full(size, 0.0))


def last_states(result):
    return result[1] if isinstance(result[1], tuple) else (result[1],)


@pytest.fixture(autouse=True)
def seed():
    milligrad.random.manual_seed(0)


def one_number(layer, ih, hh, b_ih, b_hh):
    """A layer of one input and one hidden number, with the given parameters, one for each gate."""
    module = layer(1, 1)
    weights = {"weight_ih_l0": [[x] for x in ih], "weight_hh_l0": [[x] for x in hh]}
    module.load_state_dict({**weights, "bias_ih_l0": b_ih, "bias_hh_l0": b_hh})
    return module


def test_one_step_of_rnn_is_its_formula():
    output, last = one_number(nn.RNN, [0.5], [-0.3], [0.1], [0.2])([[2.0]], [[0.7]])
    expected = math.tanh(0.5 * 2 + 0.1 - 0.3 * 0.7 + 0.2)
    assert floats(output) == [[pytest.approx(expected, rel=1e-15)]] and floats(last) == floats(output)


def test_relu_rnn_cuts_off_below_zero():
    module = nn.RNN(1, 2, nonlinearity="relu", bias=False)
    module.load_state_dict({"weight_ih_l0": [[1.0], [-1.0]], "weight_hh_l0": [[2.0, 0.0], [0.0, 1.0]]})
    output, _ = module([[1.0], [3.0]])
    assert floats(output) == [[1.0, 0.0], [5.0, 0.0]]


def test_one_step_of_gru_is_its_formula():
    ih, hh, b_ih, b_hh = [0.5, -0.4, 0.9], [-0.3, 0.8, 0.6], [0.1, 0.2, 0.3], [0.4, -0.5, -0.6]
    x, h = 2.0, 0.7
    output, _ = one_number(nn.GRU, ih, hh, b_ih, b_hh)([[x]], [[h]])
    r = sigmoid(0.5 * x + 0.1 - 0.3 * h + 0.4)
    z = sigmoid(-0.4 * x + 0.2 + 0.8 * h - 0.5)
    n = math.tanh(0.9 * x + 0.3 + r * (0.6 * h - 0.6))
    assert number(output[0][0]) == pytest.approx((1 - z) * n + z * h, rel=1e-14)


def test_one_step_of_lstm_is_its_formula():
    ih, hh = [0.5, -0.4, 0.9, 0.2], [-0.3, 0.8, 0.6, -0.7]
    b_ih, b_hh = [0.1, 0.2, 0.3, 0.4], [0.4, -0.5, -0.6, 0.7]
    x, h, c = 2.0, 0.7, -0.9
    output, (h_n, c_n) = one_number(nn.LSTM, ih, hh, b_ih, b_hh)([[x]], ([[h]], [[c]]))
    i, f, g, o = (a * x + b + d * h + e for a, b, d, e in zip(ih, b_ih, hh, b_hh))
    c = sigmoid(f) * c + sigmoid(i) * math.tanh(g)
    assert number(c_n[0][0]) == pytest.approx(c, rel=1e-14)
    assert number(h_n[0][0]) == number(output[0][0]) == pytest.approx(sigmoid(o) * math.tanh(c), rel=1e-14)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_batch_is_its_samples(layer):
    module = layer(3, 2)
    samples = numbers(4, 5, 3)
    output, *_ = result = module(transpose(samples))
    assert shape(output) == (5, 4, 2)
    for i, sample in enumerate(samples):
        alone = module(sample)
        assert floats(transpose(output)[i]) == floats(alone[0])
        for state, own in zip(last_states(result), last_states(alone)):
            assert shape(state) == (1, 4, 2) and shape(own) == (1, 2)
            assert floats(state[0][i]) == floats(own[0])


@pytest.mark.parametrize("layer", LAYERS)
def test_batch_first_transposes_input_and_output_but_not_the_states(layer):
    module, other = layer(3, 2), layer(3, 2, batch_first=True)
    other.load_state_dict(module.state_dict())
    samples, start = numbers(4, 5, 3), numbers(1, 4, 2)
    hx = (start, start) if layer is nn.LSTM else start
    usual, first = module(transpose(samples), hx), other(samples, hx)
    assert floats(first[0]) == floats(transpose(usual[0]))
    assert [floats(s) for s in last_states(first)] == [floats(s) for s in last_states(usual)]


@pytest.mark.parametrize("layer", LAYERS)
def test_without_a_state_it_starts_from_zeros(layer):
    module, x = layer(3, 2), numbers(4, 3)
    zeros = [[0, 0]]
    assert floats(module(x)[0]) == floats(module(x, (zeros, zeros) if layer is nn.LSTM else zeros)[0])


@pytest.mark.parametrize("layer", LAYERS)
def test_the_last_output_is_the_last_state_in_another_list(layer):
    for x in (numbers(3, 2), numbers(3, 4, 2)):
        output, *_ = result = layer(2, 2)(x)
        assert floats(last_states(result)[0][0]) == floats(output[-1])
    output, *_ = result = layer(2, 2, batch_first=True)(numbers(4, 3, 2))
    h_n = last_states(result)[0]
    assert floats(h_n[0]) == floats([sample[-1] for sample in output])
    before = floats(h_n)
    output[0][-1][0] = None
    assert floats(h_n) == before


def test_a_state_of_one_sequence_is_a_list_of_its_own():
    output, h_n = nn.RNN(2, 2)(numbers(3, 2))
    output[-1][0] = None
    assert None not in h_n[0]


@pytest.mark.parametrize("layer", LAYERS)
def test_gradients_are_the_slopes_of_finite_differences(layer):
    module, x, h = layer(2, 2), elementwise(Value, numbers(3, 2)), elementwise(Value, numbers(1, 2))
    hx = (h, elementwise(Value, numbers(1, 2))) if layer is nn.LSTM else h

    def loss():
        result = module(x, hx)
        return ops.sum([v * v for part in (result[0], *last_states(result)) for v in flatten(part)])

    loss().backward()
    values = [*flatten(x), *flatten(hx), *(p for parameter in module.parameters() for p in parameter.values())]
    for v in values:
        start, step = v.data, 1e-5
        v.data = start + step
        above = loss().data
        v.data = start - step
        below = loss().data
        v.data = start
        assert v.grad == pytest.approx((above - below) / (2 * step), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("layer", LAYERS)
def test_second_derivatives_exist(layer):
    module, x = layer(1, 1), Value(0.3)

    def slope(at):
        y = Value(at)
        return milligrad.grad(module([[y], [y]])[0][-1][0], y), y

    g, x = slope(0.3)
    g.backward()
    assert x.grad == pytest.approx((slope(0.3 + 1e-5)[0].data - slope(0.3 - 1e-5)[0].data) / 2e-5, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("layer", LAYERS)
def test_no_step_asks_a_value_for_its_number(layer, monkeypatch):
    module, x = layer(2, 2), elementwise(Value, numbers(3, 2))

    def refuse(*_):
        raise AssertionError("a Value was asked for its number")

    for method in ("__bool__", "__float__", "__int__", "__lt__", "__le__", "__gt__", "__ge__"):
        monkeypatch.setattr(Value, method, refuse)
    assert shape(module(x)[0]) == (3, 2)


@pytest.mark.parametrize("layer", LAYERS)
def test_parameters_start_uniform_in_one_over_the_root_of_hidden_size(layer):
    for p in layer(7, 25).parameters():
        assert -0.2 <= min(flatten(p.data)) < -0.1 and 0.1 < max(flatten(p.data)) <= 0.2


@pytest.mark.parametrize("layer", LAYERS)
def test_without_bias_there_is_none(layer):
    module = layer(2, 3, bias=False)
    assert list(module.state_dict()) == ["weight_ih_l0", "weight_hh_l0"]
    assert module.bias_ih_l0 is None and module.bias_hh_l0 is None
    assert floats(module([[0, 0]])[0]) == [[0, 0, 0]]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    "x", [[], [[]], [[[]]], 1.0, [1.0, 2.0], [[1.0]], [[1.0] * 4], [[[1.0] * 4]], [[[[1.0] * 3]]]], ids=str
)
def test_an_input_of_another_shape_is_refused(layer, x):
    with pytest.raises(ValueError, match=r"^input: expected the shape \(L, 3\) or \(L, N, 3\)"):
        layer(3, 2)(x)
    with pytest.raises(ValueError, match=r"^input: expected the shape \(L, 3\) or \(N, L, 3\)"):
        layer(3, 2, batch_first=True)(x)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("x", [[[1.0, 2.0], [1.0]], [[1.0, 2.0], 3.0], [[[1.0, 2.0]], [[1.0, 2.0]] * 2]], ids=str)
def test_a_ragged_input_is_refused(layer, x):
    with pytest.raises(ValueError, match=r"^input is ragged"):
        layer(2, 2)(x)


@pytest.mark.parametrize("layer", [nn.RNN, nn.GRU])
@pytest.mark.parametrize("hx", [0.0, [0.0, 0.0], [[0.0]], [[[0.0, 0.0]]], [[0.0, 0.0]] * 2], ids=str)
def test_a_state_of_another_shape_is_refused(layer, hx):
    with pytest.raises(ValueError, match=r"^hx: expected the shape \(1, 2\), got"):
        layer(3, 2)([[1.0, 2.0, 3.0]], hx)


@pytest.mark.parametrize("layer", [nn.RNN, nn.GRU])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_batch_wants_a_state_for_each_sample(layer, batch_first):
    x = numbers(4, 5, 3) if batch_first else numbers(5, 4, 3)
    with pytest.raises(ValueError, match=r"^hx: expected the shape \(1, 4, 2\), got \(1, 5, 2\)"):
        layer(3, 2, batch_first=batch_first)(x, numbers(1, 5, 2))


@pytest.mark.parametrize("hx", [1.0, [[0.0, 0.0]], ([[0.0, 0.0]],) * 3], ids=str)
def test_lstm_wants_a_pair_of_states(hx):
    with pytest.raises(ValueError, match=r"^hx: expected a pair \(h_0, c_0\), each of shape \(1, 2\), got"):
        nn.LSTM(3, 2)([[1.0, 2.0, 3.0]], hx)


@pytest.mark.parametrize("at", [0, 1])
def test_lstm_names_the_state_that_does_not_fit(at):
    hx = [[[0.0, 0.0]], [[0.0, 0.0]]]
    hx[at] = [[0.0]]
    with pytest.raises(ValueError, match=rf"^hx\[{at}\]: expected the shape \(1, 2\), got \(1, 1\)"):
        nn.LSTM(3, 2)([[1.0, 2.0, 3.0]], tuple(hx))


def test_lstm_takes_no_state_that_is_half_missing():
    with pytest.raises(ValueError, match=r"^hx\[1\]: expected the shape \(1, 2\), got \(\)"):
        nn.LSTM(3, 2)([[1.0, 2.0, 3.0]], ([[0.0, 0.0]], None))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "3", None], ids=str)
def test_sizes_are_positive_whole_numbers(layer, wrong):
    with pytest.raises(ValueError, match=r"^input_size: expected a whole number >= 1"):
        layer(wrong, 2)
    with pytest.raises(ValueError, match=r"^hidden_size: expected a whole number >= 1"):
        layer(2, wrong)


def test_an_unknown_nonlinearity_is_refused():
    with pytest.raises(ValueError, match=r"^nonlinearity: expected 'tanh' or 'relu', got 'sigmoid'"):
        nn.RNN(2, 2, nonlinearity="sigmoid")


@pytest.mark.parametrize("layer", LAYERS)
def test_pytorchs_third_argument_num_layers_is_not_taken_for_another(layer):
    with pytest.raises(TypeError, match="positional arguments"):
        layer(2, 3, 2)


def test_the_repr_shows_the_options():
    assert repr(nn.RNN(2, 3)) == "RNN(2, 3, bias=True, batch_first=False, nonlinearity='tanh')"
    assert repr(nn.LSTM(2, 3, bias=False, batch_first=True)) == "LSTM(2, 3, bias=False, batch_first=True)"
