import itertools
import math
import random

import pytest

from milligrad import (
    GELU,
    LSTM,
    BCELoss,
    Conv2d,
    Linear,
    Module,
    MSELoss,
    Parameter,
    ReLU,
    Sequential,
    Sigmoid,
    SiLU,
    Tanh,
    Value,
    grad,
    manual_seed,
    mean,
    relu,
    sum,
)
from milligrad.data import make_moons
from milligrad.draw.naming import inputs_first
from milligrad.explain import explain
from milligrad.explain.flow import FLAT
from milligrad.explain.units import FAR, _by_chance
from tests.explain.networks import batch, digit_classifier, found, line_of, small_network, trouble, xor


def relus(model, inputs, unit):
    """The inputs of the relus of a unit, computed by hand."""
    row, b = [p.data for p in model[0].weight[unit]], model[0].bias[unit].data
    return [b + math.fsum(w * v for w, v in zip(row, x)) for x in inputs]


@pytest.mark.parametrize("with_model", [True, False])
def test_a_dead_relu_is_found(with_model):
    model, loss = small_network(ReLU(), Tanh())
    model[0].bias[3].data = -100.0
    model[0].bias[3].name = None if with_model else "b3"
    options = {"model": model} if with_model else {}
    finding = found("dead relu", loss, **options)
    assert finding.trouble
    assert len(finding.values) == 16
    assert {z.op.name for z in finding.values} == {"relu"}
    inputs = relus(model, batch(), 3)
    assert sorted(z.inputs[0].data for z in finding.values) == pytest.approx(sorted(inputs))
    where = "unit 3 of layer 0" if with_model else "the unit of b3"
    assert finding.where == [f"{where}: its input lies between −{-min(inputs):.4g} and −{-max(inputs):.4g}"]
    layer = "layer 0" if with_model else "one layer"
    assert finding.text == f"1 of 8 relu units of {layer} is dead: relu gives 0 for all 16 inputs"


def test_a_unit_that_is_on_once_is_not_dead():
    model, loss = small_network(ReLU(), Tanh())
    inputs = batch()
    before = relus(model, inputs, 3)
    model[0].bias[3].data -= sorted(before)[-2]  # the second largest becomes 0
    findings = explain(loss, model=model).findings
    assert not [f for f in findings if "unit 3 " in str(f.where)]
    model[0].bias[3].data -= sorted(before)[-1] - sorted(before)[-2]  # and now the largest
    [finding] = [f for f in explain(loss, model=model).findings if "unit 3 " in str(f.where)]
    assert finding.kind == "off"
    assert not finding.trouble  # it may be chance


def test_what_is_off_by_chance_is_no_trouble_and_what_is_far_off_is():
    model, loss = small_network(ReLU(), Tanh(), width=16)
    inputs = batch()
    sizes = sorted(abs(x) for unit in range(16) if unit != 5 for x in relus(model, inputs, unit))
    usual = sizes[len(sizes) // 2]
    before = max(relus(model, inputs, 5))
    model[0].bias[5].data -= before + 0.5 * FAR * usual
    assert [f.trouble for f in explain(loss, model=model).findings if "unit 5 " in str(f.where)] == [False]
    model[0].bias[5].data -= FAR * usual
    assert [f.trouble for f in explain(loss, model=model).findings if "unit 5 " in str(f.where)] == [True]


def test_most_of_a_layer_is_trouble():
    model, loss = small_network(ReLU(), Tanh())
    for unit in range(6):
        model[0].bias[unit].data -= max(relus(model, batch(), unit)) + 0.01
    finding = found("dead relu", loss, model=model)
    assert finding.trouble
    assert finding.text.startswith("6 of 8 relu units of layer 0 are dead")
    model[0].bias[0].data += 10.0
    assert not found("off", loss, model=model).trouble


def test_the_network_of_the_readme_that_does_not_learn():
    """From seed 1, two of four hidden units become negative for every input."""
    model, loss = xor(1)
    for _ in range(100):
        model.zero_grad()
        z = loss()
        z.backward()
        for p in [p for parameter in model.parameters() for p in parameter.values()]:
            p.data -= 0.5 * p.grad
    finding = found("off", loss, model=model)
    assert finding.text.startswith("2 of 4 relu units of layer hidden are off for all 4 inputs")
    off = [unit for unit in range(4) if all(h(model, x, unit) <= 0 for x in ([0, 0], [1, 1], [1, 0], [0, 1]))]
    assert [line.split(":")[0] for line in finding.where] == [f"unit {unit} of layer hidden" for unit in off]


def h(model, x, unit):
    return model.hidden(x)[unit].data


def test_one_sample_tells_nothing_of_a_unit():
    model, _ = small_network(ReLU(), Tanh())
    [x] = batch(1)
    finding = found("off", lambda: model(x)[0] * 1.0, model=model)
    off = sum(z.data <= 0 for z in model[0](x)).real
    assert finding.text == f"{off:.0f} of 8 relu units of layer 0 are off for the only input"
    assert not finding.trouble
    assert trouble(lambda: model(x)[0] * 1.0, model=model) == []


@pytest.mark.parametrize("with_model", [True, False])
def test_but_of_a_whole_layer_it_does(with_model):
    model, _ = small_network(ReLU(), Tanh())
    for b in model[0].bias.values():
        b.data = -100.0
    [x] = batch(1)
    finding = found("dead relu", lambda: model(x)[0] * 1.0, **({"model": model} if with_model else {}))
    assert finding.trouble
    assert "8 of 8 relu units" in finding.text
    assert "relu gives 0 for the only input" in finding.text
    assert "and 3 more like this" in finding.where


def test_a_single_relu_that_is_off_may_be_chance():
    x = Value(-1.0, "x")
    for loss in (relu(x * 2.0) + 1.0, relu(x * 2.0) * -1.0):
        [finding] = [f for f in explain(loss).findings if f.kind in ("off", "dead relu")]
        assert not finding.trouble
        assert finding.text == "1 of 1 relu unit of one layer is off for the only input"
        assert finding.where == ["the unit of x: v2 = relu(v1) = relu(−2) = 0"]
        assert "1 thing to look at" in explain(loss).title


def test_an_input_is_not_called_negative_zero():
    w = Value(0.0, "w")
    finding = found("off", MSELoss()([relu(w * x) for x in (-1.0, -2.0)], [1.0, 1.0]))
    assert finding.where == ["the unit of w: its input lies between 0 and 0"]


def hinge_loss(b, margin):
    """Of two classes on a line, which w = 1 tells apart at b."""
    w = Value(1.0, "w")
    points = [(2.0, 1), (3.0, 1), (-2.0, -1), (-4.0, -1), (-2.5, -1)]
    return mean([relu(margin - y * (w * x + b)) for x, y in points])


@pytest.mark.parametrize("b", [0.0, 0.5])
def test_a_hinge_loss_that_is_satisfied_is_no_trouble(b):
    loss = hinge_loss(Value(b, "b"), 1.0)
    assert loss.data == 0
    assert trouble(loss) == []
    note = found("off", loss)
    assert "5 relus" in note.text
    assert "hinge loss" in note.advice
    assert trouble(hinge_loss(Value(b, "b"), 2.3)) == []  # and where some samples are within the margin
    decay = Value(3.0, "v") ** 2 * 0.1
    assert trouble(loss + decay) == []


def test_an_output_that_is_off_where_the_loss_wants_it_on_is_dead():
    w, b = Value(1.0, "w"), Value(-30.0, "b")
    answers = [relu(w * x + b) for x in range(1, 6)]
    assert trouble(MSELoss()(answers, [0.0] * 5)) == []
    finding = found("dead relu", MSELoss()(answers, [float(x) for x in range(1, 6)]))
    assert finding.text == "1 of 1 relu unit of one layer is dead: relu gives 0 for all 5 inputs"


def test_units_are_told_apart_also_where_sums_are_written_out():
    w, v, b, c = Value(1.0, "w"), Value(-1.0, "v"), Value(-50.0, "b"), Value(0.5, "c")
    terms = [relu(w * x + v * y + b) + relu(v * x - w * y + c) for x, y in [(1, 2), (3, -1), (0, 1), (-2, 0.5), (1, 1)]]
    finding = found("dead relu", MSELoss()(terms, [2.0] * 5))
    assert [line.split(":")[0] for line in finding.where] == ["the unit of b"]
    assert len(finding.values) == 5


def test_without_a_bias_a_weight_tells_units_apart_where_sums_are_written_out():
    w, v, a = Value(-9.0, "w"), Value(-8.0, "v"), Value(1.0, "a")
    terms = [relu(w * x + v * y) + relu(a * x - a * y) for x, y in [(1, 2), (3, 1), (1, 0.5), (2, 0.5), (1, 1)]]
    finding = found("dead relu", MSELoss()(terms, [9.0] * 5))
    assert len(finding.values) == 5
    assert finding.where[0].startswith("the unit of v: ") or finding.where[0].startswith("the unit of w: ")


def test_the_windows_of_a_convolution_share_their_unit():
    manual_seed(0)
    model = Sequential(Conv2d(1, 3, 2, padding=1), ReLU())
    model[0].bias[1].data = -100.0
    images = [[[[float((i + j + k) % 3) for j in range(4)] for i in range(4)]] for k in range(2)]

    def loss():
        return sum([x for image in model(images) for plane in image for row in plane for x in row])

    finding = found("dead relu", loss, model=model)
    assert finding.text.startswith("1 of 3 relu units of layer 0 is dead: relu gives 0 for all 50 inputs")
    assert finding.where[0].startswith("unit 1 of layer 0: ")


def test_windows_at_the_edge_have_fewer_weights_and_the_same_unit():
    manual_seed(0)
    model = Sequential(Conv2d(1, 2, 3, padding=1, bias=False), ReLU())
    for w in Parameter(model[0].weight[1]).values():
        w.data = -50.0
    image = [[[1.0, 2.0, 1.0], [1.0, 1.0, 1.0], [1.0, 3.0, 1.0]]]
    loss = sum([x for plane in model(image) for row in plane for x in row])
    dead = [f for f in explain(loss, model=model).findings if "unit 1 of layer 0" in str(f.where)]
    assert [len(f.values) for f in dead] == [9]
    assert "of 2 relu units" in dead[0].text


def test_without_a_bias_the_weights_name_the_unit():
    manual_seed(0)
    model = Sequential(Linear(2, 3, bias=False), ReLU())
    for w in model[0].weight[2]:
        w.data = -100.0
    explanation = explain(lambda: sum([v for x in [[1, 2], [2, 1], [3, 3]] for v in model(x)]), model=model)
    [finding] = [f for f in explanation.findings if f.trouble]
    assert finding.kind == "dead relu"
    assert finding.where[0].startswith("unit 2 of layer 0: ")


@pytest.mark.parametrize("activation, op", [(Sigmoid(), "sigmoid"), (Tanh(), "tanh")])
@pytest.mark.parametrize("with_model", [True, False])
def test_a_saturated_unit_is_found(activation, op, with_model):
    model, loss = small_network(activation, Tanh())
    model[0].bias[2].data = 30.0
    finding = found("saturated", loss, **({"model": model} if with_model else {}))
    assert len(finding.values) == 16
    assert {z.op.name for z in finding.values} == {op}
    assert all(z.inputs[0].data > 20 for z in finding.values)
    assert (
        f"1 of 8 {op} units of {'layer 0' if with_model else 'one layer'} is saturated for every input" == finding.text
    )
    assert "test_units.py" in finding.where[0] or "networks.py" in finding.where[0]


def test_inputs_that_are_too_large_saturate_a_layer():
    model, _ = small_network(Sigmoid(), Tanh())
    inputs = [[200 * x for x in row] for row in batch()]

    def forward():
        return MSELoss()([model(x)[0] for x in inputs], [0.3] * 16)  # large

    finding = found("saturated", forward, model=model)
    flat = [z for z in finding.values if z.data * (1 - z.data) < FLAT]
    assert len(flat) == len(finding.values) >= 64
    assert "sigmoids of layer 0 are saturated" in finding.text or "units of layer 0" in finding.text
    assert f":{line_of(forward, '# large')}: " in finding.where[0]


def test_one_sample_that_saturates_is_no_trouble():
    model, _ = small_network(Sigmoid(), Tanh())
    inputs = batch()
    inputs[3] = [500.0, -500.0, 500.0, 500.0]
    assert "saturated" not in trouble(lambda: MSELoss()([model(x)[0] for x in inputs], [0.3] * 16), model=model)


def test_one_unit_of_one_sample_is_no_trouble():
    model, _ = small_network(Sigmoid(), Tanh())
    model[0].bias[2].data = 30.0
    [x] = batch(1)
    assert "saturated" not in trouble(lambda: MSELoss()(model(x), [0.3]), model=model)


@pytest.mark.parametrize("large, expected", [(3, []), (5, ["saturated"])])
def test_half_of_a_layer_is_trouble(large, expected):
    v = Value(1.0, "v")
    ws = [Value(1.0, f"w{i}") for i in range(4)]
    inputs = [[30.0 if (i + k) % 8 < large else 0.1 for k in range(4)] for i in range(8)]
    loss = sum([(w * x).tanh() * v for row in inputs for w, x in zip(ws, row)])
    findings = [f for f in explain(loss).findings if f.trouble]
    assert [f.kind for f in findings] == expected
    for finding in findings:
        assert finding.text == f"{4 * large} of 32 tanhs of one layer are saturated"


def test_a_loss_that_makes_up_for_it_is_no_trouble():
    """Of binary cross entropy the derivative is p - y again, however flat the sigmoid is."""
    w = Value(1.0, "w")
    for targets in ([0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]):
        loss = BCELoss()([(w * x).sigmoid() for x in (12.0, 14.0, -11.0)], targets)
        assert trouble(loss) == []


def test_an_answer_that_is_right_is_no_trouble():
    w = Value(1.0, "w")
    right = MSELoss()([(w * x).sigmoid() for x in (12.0, 14.0, -11.0)], [1.0, 1.0, 0.0])
    assert "saturated" not in trouble(right)
    wrong = MSELoss()([(w * x).sigmoid() for x in (12.0, 14.0, -11.0)], [0.0, 0.0, 1.0])
    assert "saturated" in trouble(wrong)


def test_a_hidden_unit_is_saturated_wherever_the_loss_wants_it():
    for sign in (1.0, -1.0):
        w, v = Value(1.0, "w"), Value(sign, "v")
        loss = sum([(w * x).sigmoid() * 2.0 * v for x in (12.0, 14.0, 11.0)])
        assert "saturated" in trouble(loss)


def test_a_layer_of_a_model_within_a_model():
    class Inner(Module):
        def __init__(self):
            super().__init__()
            self.first = Linear(4, 3)

        def forward(self, x):
            return relu_all(self.first(x))

    class Outer(Module):
        def __init__(self):
            super().__init__()
            self.body = Inner()

        def forward(self, x):
            return self.body(x)

    manual_seed(0)
    model = Outer()
    model.body.first.bias[1].data = -50.0
    finding = found("dead relu", lambda: sum([v for x in batch() for v in model(x)]), model=model)
    assert finding.where[0].startswith("unit 1 of layer body.first: ")
    bare = model.body.first
    finding = found("dead relu", lambda: sum([v for x in batch() for v in relu_all(bare(x))]), model=bare)
    assert finding.where[0].startswith("unit 1 of the model: ")


def relu_all(xs):
    return [relu(x) for x in xs]


def test_a_classifier_with_dead_units_is_named_by_unit():
    model, loss = digit_classifier(samples=8)
    for unit in (4, 17):
        model[0].bias[unit].data = -60.0
    [finding] = [f for f in explain(loss, model=model).findings if f.kind == "dead relu" and f.trouble]
    assert [line.split(":")[0] for line in finding.where] == ["unit 4 of layer 0", "unit 17 of layer 0"]


@pytest.mark.parametrize("activation", [SiLU(), GELU("tanh")])
def test_what_goes_past_a_flat_activation_is_not_kept(activation):
    manual_seed(0)
    model = Sequential(Linear(1, 8), activation, Linear(8, 1))
    for x in [*model[0].weight.values(), *model[0].bias.values()]:
        x.data = abs(x.data)
    inputs = [[i * 20.0] for i in range(2, 20)]
    loss = MSELoss()(model(inputs), [[x / 20] for [x] in inputs])
    op = "sigmoid" if isinstance(activation, SiLU) else "tanh"
    assert sum(z.op.name == op and z.data > 0.9999 for z in inputs_first(loss) if z.op) > 100
    assert "saturated" not in trouble(loss, model=model)


def test_a_shared_scale_is_no_unit():
    class Scaled(Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.scale, self.output = Linear(4, 8), Parameter([1.0]), Linear(8, 1)

        def forward(self, x):
            return self.output([relu(h * self.scale[0]) for h in self.hidden(x)])[0]

    manual_seed(0)
    model = Scaled()
    for unit in (0, 2, 5):
        model.hidden.bias[unit].data = -500.0
    finding = found("dead relu", lambda: MSELoss()([model(x) for x in batch()], [1.0] * 16), model=model)
    assert [line.split(":")[0] for line in finding.where] == [f"unit {i} of layer hidden" for i in (0, 2, 5)]


def test_units_of_weights_by_input_are_told_apart():
    model = Module()
    model.w = Parameter([[-5.0 - i - j for j in range(3)] for i in range(2)])

    def unit(x, j):
        return relu(sum([x[i] * model.w[i][j] for i in range(2)]))

    loss = MSELoss()([sum([unit(x, j) for j in range(3)]) for x in [[1, 2], [2, 1], [1, 1], [2, 2]]], [1.0] * 4)
    [finding] = [f for f in explain(loss, model=model).findings if f.kind == "off"]
    assert [line.split(":")[0] for line in finding.where] == [f"unit {j} of the model" for j in range(3)]
    loss = MSELoss()([sum([unit(x, j) for j in (1, 2)]) for x in [[1, 2], [2, 1], [1, 1], [2, 2]]], [1.0] * 4)
    [finding] = [f for f in explain(loss, model=model).findings if f.kind == "off"]
    assert [line.split(":")[0] for line in finding.where] == ["unit 1 of the model", "unit 2 of the model"]


@pytest.mark.parametrize(
    "units, samples, expected",
    [(4, 1, ["zero gradient"]), (4, 4, ["dead relu"]), (2, 4, ["zero gradient"]), (2, 64, ["dead relu"])],
)
def test_a_small_layer_may_be_off_by_chance(units, samples, expected):
    """Of a start about 0.5/√n of all units are off for n samples."""
    manual_seed(0)
    model = Sequential(Linear(4, units), ReLU(), Linear(units, 1))
    inputs = batch(samples)
    for unit in range(units):
        model[0].bias[unit].data -= max(relus(model, inputs, unit)) + 0.01
    kinds = trouble(lambda: MSELoss()(model(inputs), [[1.0]] * samples), model=model)
    assert kinds == expected


def test_wrong_answers_that_teach_nothing_are_found():
    w = Value(2.0, "w")
    xs, ys = [-3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 6.0], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]
    loss = MSELoss()([(w * x).sigmoid() for x in xs], ys)
    note = found("saturated", loss)
    assert not note.trouble  # the others teach something
    assert note.text == "1 of 7 sigmoids of one layer is saturated"
    w.data = 300.0
    assert "saturated" in trouble(MSELoss()([(w * x).sigmoid() for x in xs], ys))


def test_a_loss_that_makes_up_for_it_later_is_no_trouble():
    w, b = Value(1.0, "w"), Value(0.0, "b")
    answers = [(w * x + b).sigmoid() for x in (8.0, 9.0, 10.0, 11.0)]
    assert trouble(mean([-(1 - p).log() for p in answers])) == []
    assert trouble(mean([-p.log() for p in answers])) == []
    assert trouble(mean([-(1 - (w * (8 + i / 1000) + b).sigmoid()).log() for i in range(2000)])) == []
    assert trouble(mean([p**2 for p in answers])) == ["saturated"]


def test_terms_of_a_loss_are_no_units():
    xs = [Value(float(i), f"x{i}") for i in range(25)]
    assert [f.kind for f in explain(mean([relu(x - 22.0) for x in xs])).findings] == ["no backward"]


@pytest.mark.parametrize("n, samples", [(1, 1), (4, 1), (5, 4), (6, 25)])
def test_the_odds_are_those_of_all_cases(n, samples):
    p = 0.5 / samples**0.5
    cases = [*itertools.product((True, False), repeat=n)]
    for k in range(n + 1):
        expected = math.fsum(math.prod(p if off else 1 - p for off in case) for case in cases if case.count(True) >= k)
        assert _by_chance(k, n, samples) == pytest.approx(expected)


def test_the_odds_of_many_units_are_no_overflow():
    assert _by_chance(2500, 5000, 1) == pytest.approx(0.5, abs=0.01)
    assert _by_chance(5000, 5000, 9) == 0.0


@pytest.mark.parametrize("width, off", [(2, 1), (8, 4), (10, 5), (8, 5)])
def test_dead_units_are_no_yardstick_for_themselves(width, off):
    model, loss = small_network(ReLU(), Tanh(), width=width)
    for unit in range(off):
        model[0].bias[unit].data = -100.0
    finding = found("dead relu", loss, model=model)
    assert [line.split(":")[0] for line in finding.where[:off]] == [f"unit {i} of layer 0" for i in range(off)]
    assert len(finding.values) == 16 * off


def test_an_output_that_is_off_for_a_sum_may_be_dead():
    model, _ = small_network(ReLU(), ReLU())
    model[2].bias[0].data = -100.0
    explanation = explain(sum([y for [y] in model(batch())]), model=model)
    [note] = [f for f in explanation.findings if f.kind == "off" and "layer 2" in f.text]
    assert note.text == "1 of 1 relu unit of layer 2 is off for all 16 inputs"
    assert "dead" in note.advice and "1 thing to look at" in explanation.title


def test_the_states_of_a_recurrent_network_are_one_layer():
    class Last(Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = LSTM(3, 5), Linear(5, 1)

        def forward(self, x):
            return self.head(self.rnn(x)[0][-1])

    manual_seed(0)
    model = Last()
    sequence = batch(20, 3)
    assert trouble(MSELoss()(model(sequence), [0.5]), model=model) == []
    for path, p in model.named_parameters():
        for b in p.values() if path.startswith("rnn.bias") else ():
            b.data += 30.0
    findings = [f for f in explain(MSELoss()(model(sequence), [0.5]), model=model).findings if f.kind == "saturated"]
    assert [f.text.split(" ", 3)[3] for f in findings] == [
        "sigmoid units of layer rnn are saturated for every input",
        "tanhs of what is computed are saturated",
        "tanh units of layer rnn are saturated for every input",
    ]


def test_a_gate_of_large_numbers_is_not_saturated():
    a = Value(1e4, "a")
    assert grad(a * a.sigmoid(), a).data == 1.0
    assert "saturated" not in trouble(a * a.sigmoid())


def test_where_no_gradient_is_left_at_all_that_is_said():
    model, loss = small_network(Sigmoid(), Sigmoid())
    model[0].bias[0].data = 1000.0
    [finding] = [f for f in explain(loss, model=model).findings if f.kind == "saturated"]
    assert finding.advice.startswith("The derivative is 0 there, so no gradient comes back.")


@pytest.mark.parametrize("samples", [1, 4, 16])
def test_the_odds_of_one_unit_are_about_those_of_real_starts(samples):
    points, starts, off = [x for x, _ in make_moons(100, noise=0.1)], 200, 0
    for seed in range(starts):
        manual_seed(seed)
        layer = Linear(2, 8)
        outputs = [layer(x) for x in random.Random(seed).sample(points, samples)]
        off += [all(z.data <= 0 for z in unit) for unit in zip(*outputs)].count(True)
    assert off / (8 * starts) == pytest.approx(_by_chance(1, 1, samples), rel=0.25)
