import math
import random
import warnings

import pytest

from milligrad import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    Embedding,
    HuberLoss,
    L1Loss,
    Linear,
    Module,
    MSELoss,
    Parameter,
    ReLU,
    Sequential,
    Sigmoid,
    SmoothL1Loss,
    Softmax,
    Tanh,
    Value,
    clamp,
    dot,
    exp,
    grad,
    manual_seed,
    maximum,
    mean,
    no_grad,
    relu,
    softplus,
    where,
)
from milligrad.draw.naming import inputs_first
from milligrad.explain import explain
from milligrad.explain.gradients import EXPLODED, VANISHED
from milligrad.functional import softmax
from milligrad.nested import leaves
from tests.explain.networks import batch, digit_classifier, found, line_of, small_network, trouble


def rms(xs):
    return math.sqrt(math.fsum(x * x for x in xs) / len(xs))


def gradients(model, loss):
    """The root mean square of each parameter's gradient after backward."""
    model.zero_grad()
    loss().backward()
    sizes = {path: rms([x.grad for x in p.values()]) for path, p in model.named_parameters()}
    model.zero_grad()
    return sizes


def rows(explanation):
    """The table of parameters: name → (numbers, weight, gradient, verdict)."""
    [table] = [block for block in explanation.blocks if getattr(block, "label", "") == "gradients"]
    return {row[0]: row[1:] for row in table.rows}


def shown(x):
    return f"{x:.4g}".replace("-", "−")


def test_the_table_shows_what_backward_computes():
    model, loss = digit_classifier()
    expected = gradients(model, loss)
    table = rows(explain(loss, model=model))
    assert [*table] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    for path, parameter in model.named_parameters():
        numbers = [x.data for x in parameter.values()]
        assert table[path] == (f"{len(numbers):,}", shown(rms(numbers)), shown(expected[path]), "")


def deep_sigmoids(seed=0, depth=12):
    manual_seed(seed)
    model = Sequential(*[layer for _ in range(depth) for layer in (Linear(4, 4), Sigmoid())])

    def loss():
        return CrossEntropyLoss()(model(batch(4)), [0, 1, 2, 3])  # forward

    return model, loss


def test_a_vanished_gradient_is_found_with_the_operation_that_shrinks_it():
    model, loss = deep_sigmoids()
    sizes = gradients(model, loss)
    finding = found("vanished", loss, model=model)
    largest = max(sizes.values())
    tiny = [path for path, size in sizes.items() if size < VANISHED * largest]
    assert finding.text == f"The gradient vanishes in {', '.join(tiny[:3])} and {len(tiny) - 3} more"
    assert finding.where[0] == f"{tiny[0]}: {shown(sizes[tiny[0]])} (root mean square)"
    assert [z.op.name for z in finding.values] == ["sigmoid"]
    route = finding.where[-1]
    assert "12 steps of sigmoid multiply it by" in route
    assert f"test_gradients.py:{line_of(deep_sigmoids, '# forward')}: " in route
    [z] = finding.values
    leaf = strongest(model, loss, min(sizes, key=sizes.get))
    assert f"On the strongest path from {leaf} to the loss" in route
    assert f"the smallest is {shown(z.data * (1 - z.data))}, of " in route
    verdicts = {path: row[-1] for path, row in rows(explain(loss, model=model)).items()}
    assert verdicts == {path: "vanished" if path in tiny else "" for path in sizes}


def strongest(model, loss, path):
    """The name of the parameter at `path` whose gradient is largest."""
    loss().backward()
    numbers = dict(leaves(dict(model.named_parameters())[path], path))
    name = max(numbers, key=lambda name: abs(numbers[name].grad))
    model.zero_grad()
    return name


def test_the_smallest_factor_is_named():
    v = Value(1.0, "v")
    w = Value(0.0, "w")
    first = w.tanh()
    second = (first + 4.0).tanh()
    third = (second + 3.0).tanh()
    finding = found("vanished", third * 1.0 + v)
    assert finding.values == [min([first, second, third], key=lambda t: 1 - t.data**2)]
    assert "3 steps of tanh multiply it by" in finding.where[-1]


def test_a_vanished_gradient_is_found_without_a_model():
    _, loss = deep_sigmoids()
    finding = found("vanished", loss)
    assert [z.op.name for z in finding.values] == ["sigmoid"]
    assert "and 15 like it" in finding.text
    h = Value(0.5, "x")
    weights = [Value(1.0, f"w{i}") for i in range(12)]
    for w in weights:
        h = (w * h).sigmoid()
    finding = found("vanished", h)
    assert finding.text.startswith("The gradient vanishes in ")
    assert "w0" in finding.where[0] + finding.where[1]


def test_an_exploded_gradient_is_found_with_the_operation_that_swells_it():
    manual_seed(0)
    model = Sequential(Linear(4, 8), ReLU(), Linear(8, 8), ReLU(), Linear(8, 1))
    for layer in (model[2], model[4]):
        for w in layer.weight.values():
            w.data *= 400

    def loss():
        return sum(y[0] for y in model(batch()))

    sizes = gradients(model, loss)
    finding = found("exploded", loss, model=model)
    large = [p for p, size in sizes.items() if size > EXPLODED * max(1.0, rms_of(model, p))]
    assert large
    assert finding.text.startswith(f"The gradient explodes in {', '.join(large[:3])}")
    assert [z.op.name for z in finding.values] == ["dot"]
    assert "the largest is" in finding.where[-1]


def rms_of(model, path):
    return rms([x.data for x in dict(model.named_parameters())[path].values()])


def test_large_targets_explode_the_gradient():
    model, _ = small_network(Tanh(), Tanh())
    head = Sequential(model[0], model[1], Linear(8, 1))
    assert "exploded" in trouble(lambda: MSELoss()(head(batch()), [[1e5]] * 16), model=head)


def test_an_exploded_layer_does_not_make_the_others_vanish():
    a, b = Value(1.0, "a"), Value(1.0, "b")
    finding = found("exploded", a * 1e9 + b)
    assert trouble(a * 1e9 + b) == ["exploded"]
    assert "1 step of mul multiplies it by 1e+09: v1 = a * 1e+09" in finding.where[-1]


@pytest.mark.parametrize("ratio, expected", [(0.5, ["vanished"]), (2.0, [])])
def test_a_layer_vanishes_beside_the_largest(ratio, expected):
    a, b = Value(1.0, "a"), Value(1.0, "b")
    assert trouble(a + b * (VANISHED * ratio)) == expected


@pytest.mark.parametrize("size, expected", [(0.5, []), (2.0, ["exploded"])])
def test_a_layer_explodes_by_its_size(size, expected):
    assert trouble(Value(1.0, "a") * (EXPLODED * size)) == expected
    assert trouble(Value(5.0, "a") * (EXPLODED * size * 5)) == expected


def test_gradients_too_small_to_be_squared_are_still_told_from_zero():
    a, b = Value(1.0, "a"), Value(1.0, "b")
    assert trouble(a * 1e-9 + b * 1e-9) == []
    assert trouble(a * 1e-200 + b * 1e-200) == ["vanished"]
    assert trouble(a + b * 1e-200) == ["vanished"]


class TwoHeads(Module):
    def __init__(self):
        super().__init__()
        self.body, self.used, self.unused = Linear(4, 4), Linear(4, 1), Linear(4, 2)

    def forward(self, x):
        return self.used(self.body(x))


def test_parameters_that_the_loss_does_not_reach():
    manual_seed(0)
    model = TwoHeads()
    model.body.requires_grad_(False)
    loss = MSELoss()(model(batch()), [[0.0]] * 16)
    findings = explain(loss, model=model).findings
    lost, frozen = ([f for f in findings if f.kind == kind] for kind in ("unreached", "frozen"))
    assert lost[0].trouble
    assert lost[0].where == ["unused.weight: 8 numbers", "unused.bias: 2 numbers"]
    assert {*lost[0].values} == {*model.unused.weight.values(), *model.unused.bias.values()}
    assert not frozen[0].trouble
    assert frozen[0].where == ["body.weight: 16 numbers", "body.bias: 4 numbers"]


def test_what_a_detach_cuts_off_is_not_reached():
    manual_seed(0)
    model = TwoHeads()
    loss = sum(model.used([h.detach() for h in model.body(batch(1)[0])]))
    assert found("unreached", loss, model=model).text == "4 parameters are not reached by the loss"
    with no_grad():
        hidden = model.body(batch(1)[0])
    assert trouble(sum(model.used(hidden)), model=model) == ["unreached"]


def test_a_row_of_an_embedding_that_is_not_used_is_no_trouble():
    manual_seed(0)
    model = Embedding(10, 3)
    loss = sum(x * x for row in model([1, 2, 1]) for x in row)
    assert trouble(loss, model=model) == []
    x = rows(explain(loss, model=model))["weight"]
    used = [2 * n * p.data for i, n in ((1, 2), (2, 1)) for p in model.weight[i]]
    assert x[2] == shown(rms(used))


def test_what_is_reached_but_gets_nothing():
    manual_seed(0)
    model = Sequential(Linear(4, 3), Tanh(), Linear(3, 1))
    for w in model[2].weight.values():
        w.data = 0.0
    finding = found("zero gradient", lambda: sum(y[0] for y in model(batch())), model=model)
    assert finding.where[:2] == ["0.weight: 12 numbers", "0.bias: 3 numbers"]
    assert finding.where[2].startswith("∂v145/∂v97 is 0, of v145 = dot([2.weight[0][0], ")
    assert finding.where[-1] == f"and {16 * 3 - 1} more like this"
    assert {*finding.values} == {*model[0].weight.values(), *model[0].bias.values()}
    assert "zero" in rows(explain(sum(y[0] for y in model(batch())), model=model))["0.weight"]


def test_of_dead_relus_the_zeros_are_a_consequence():
    model, loss = small_network(ReLU(), Tanh())
    for b in model[0].bias.values():
        b.data = -100.0
    assert trouble(loss, model=model) == ["dead relu"]


def test_a_gradient_whose_parts_cancel_is_at_rest_and_has_not_vanished():
    w, b = Value(1.0, "w"), Value(0.0, "b")
    points = [(-1.0, 1.0), (1.0, -1.0), (3.0, 3.0), (2.0, 2.0)]  # about the line y = x: b is at its best, w is not
    loss = sum([(w * 1.1 * x + b - y) ** 2 for x, y in points[:2]])
    loss.backward()
    assert b.grad == 0 != w.grad
    assert trouble(loss) == []
    c = Value(1.0, "c")
    assert trouble(loss + c.relu() * 0.0) == ["zero gradient"]


def attention():
    """Single-head attention of three tokens, written out; b is the bias of its keys, which softmax takes out again."""
    draw = random.Random(0)
    w = {name: [[draw.gauss(0, 1) for _ in range(2)] for _ in range(2)] for name in "qkv"}
    model = Module()
    model.b, model.w = Parameter([0.5, -0.25]), Parameter([*w.values()])
    w, b = dict(zip("qkv", model.w)), model.b
    tokens = [[draw.gauss(0, 1) for _ in range(2)] for _ in range(3)]
    q, k, v = ([[dot(row, x) for row in w[name]] for x in tokens] for name in "qkv")
    k = [[x + bias for x, bias in zip(row, b)] for row in k]
    weights = [softmax([dot(query, key) for key in k]) for query in q]
    answers = [[dot(p, column) for column in zip(*v)] for p in weights]
    return model, sum([(y - 1) ** 2 for row in answers for y in row])


def test_a_bias_that_softmax_takes_out_is_stationary():
    model, loss = attention()
    assert rms([x.data for x in grad(loss, [*model.b])]) < 1e-12
    assert trouble(loss, model=model) == []
    assert rows(explain(loss, model=model))["b"][-1] == "stationary"
    assert trouble(loss) == []


@pytest.mark.parametrize("loss", [MSELoss(), L1Loss(), HuberLoss(), SmoothL1Loss()])
def test_a_perfect_fit_is_stationary(loss):
    w = Value(2.0, "w")
    fitted = loss([w * 1, w * 2], [2.0, 4.0])
    assert grad(fitted, w).data == 0
    assert trouble(fitted) == []
    assert found("stationary", fitted).values == [w]


def test_what_cancels_somewhere_on_the_way_is_stationary():
    x = Value(3.0, "x")
    y = -(x * 2.0)
    for loss in (x - x, y - y, x * 0.5 - x / 2):
        assert trouble(loss) == []
        assert found("stationary", loss).values == [x]


def test_the_bias_of_balanced_classes_is_stationary():
    w, b = Value(1.0, "w"), Value(0.0, "b")
    pairs = [(2.0, 3.0), (-1.0, -2.0), (4.0, 5.0), (-3.0, -4.0)]
    loss = L1Loss()([w * x + b for x, _ in pairs], [y for _, y in pairs])
    assert [g.data for g in grad(loss, [w, b])] == [-2.5, 0.0]
    assert trouble(loss) == []


@pytest.mark.parametrize("f", [lambda x: clamp(x, -1, 1), lambda x: where(x > 0, 5.0, x), lambda x: maximum(x, 1e4)])
def test_where_a_gradient_stops_is_said(f):
    x = Value(3.0, "x")
    y = x * 1000
    z = f(y)
    finding = found("zero gradient", z * Value(2.0, "v"))
    assert finding.where[0] == "x: 1 number"
    assert len(finding.where) == 2
    assert finding.where[1].startswith("∂v2/∂v1 is 0, of v2 = ")
    assert finding.advice.startswith("Nothing comes back through")
    [_, stop] = found("zero gradient", (x * 1) * Value(0.0, "w")).where
    assert stop == "∂v2/∂v1 is 0, of v2 = v1 * w = 3 * 0 = 0"


def test_a_gradient_fades_away_also_where_it_is_the_only_one():
    z = Value(0.5, "z")
    h = z
    for _ in range(40):
        h = h.sigmoid()
    finding = found("vanished", h)
    assert f"z: {shown(grad(h, z).data)} (root mean square)" == finding.where[0]
    assert "40 steps of sigmoid multiply it by" in finding.where[1]


def test_a_loss_near_its_minimum_has_not_faded():
    w = Value(2.0 + 1e-13, "w")
    loss = MSELoss()([(w * x).tanh() for x in (0.1, 0.2)], [math.tanh(0.2), math.tanh(0.4)])
    assert abs(grad(loss, w).data) < 1e-13
    assert trouble(loss) == []


def test_what_learns_beside_a_large_gradient_has_not_vanished():
    w, b = Value(1000.0, "w"), Value(1.0, "b")
    assert trouble(w * 9e4 + b) == []
    assert trouble(w * 9e5 + b) == ["exploded"]


def test_exploded_weights_do_not_hide_an_exploded_gradient():
    w = Value(1e5, "w")
    assert trouble(w * w + Value(1.0)) == ["exploded"]


def test_huge_weights_are_found():
    model, loss = small_network(Tanh(), Tanh())
    for x in model[0].weight.values():
        x.data *= 1e12
    findings = {f.kind: f for f in explain(loss, model=model).findings if f.trouble}
    huge = findings["huge weight"]
    assert huge.text == "The numbers of 0.weight are huge"
    assert huge.where == [f"0.weight: {shown(rms([x.data for x in model[0].weight.values()]))} (root mean square)"]


def test_a_model_without_parameters_is_judged_by_its_leaves():
    x = Value(1.0, "x")
    for model in (None, Module()):
        assert trouble(clamp(x * 2.0, 3.0, 4.0) * -2.0, model=model) == ["zero gradient"]


def test_zeros_are_found_beside_dead_units_that_do_not_make_them():
    class Beside(Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.output, self.side = Linear(4, 8), Linear(8, 1), Linear(4, 1)

        def forward(self, x):
            return self.output([relu(h) for h in self.hidden(x)])[0] + 0.0 * self.side(x)[0]

    manual_seed(0)
    model = Beside()
    for b in model.hidden.bias.values():
        b.data = -500.0
    findings = [
        f for f in explain(MSELoss()([model(x) for x in batch()], [1.0] * 16), model=model).findings if f.trouble
    ]
    assert [f.kind for f in findings] == ["dead relu", "zero gradient"]
    assert findings[1].where[:2] == ["side.weight: 4 numbers", "side.bias: 1 number"]


def test_parameters_in_units_of_their_own_have_not_vanished():
    k, b = Value(1e6, "k"), Value(0.0, "b")
    assert trouble(mean([(k * x / 1e6 + b - 2 * x) ** 2 for x in (1.0, 2.0, 3.0)])) == []
    k.data = 1.0
    assert trouble(mean([(k * x / 1e6 + b - 2 * x) ** 2 for x in (1.0, 2.0, 3.0)])) == ["vanished"]


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: (x * 3.0).sigmoid(),
        lambda x: exp(-x * x / 10),
        lambda x: softplus(x),
        lambda x: softmax([x, Value(0.0)])[0],
    ],
)
def test_what_comes_back_from_a_wrong_answer_that_is_flat_has_vanished(answer):
    x = Value(-60.0, "x")
    assert "vanished" in trouble((answer(x) - 1) ** 2)
    assert trouble((answer(x) - 0) ** 2) == []


@pytest.mark.parametrize("w", [10.0, 25.0, 28.0, 40.0, 60.0, 300.0])
def test_classes_that_are_told_apart_perfectly_are_stationary(w):
    w, b = Value(w, "w"), Value(0.0, "b")
    xs, ys = [-3.0, -2.0, -1.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    assert trouble(BCELoss()([(w * x + b).sigmoid() for x in xs], ys)) == []
    assert trouble(BCEWithLogitsLoss()([w * x + b for x in xs], ys)) == []
    wrong = BCELoss()([(w * x + b).sigmoid() for x in xs], [0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    assert ("saturated" in trouble(wrong)) == (w.data >= 40)  # before, the loss is as steep as the sigmoid is flat


def test_a_wide_network_does_not_hide_that_a_gradient_vanishes():
    """Without their signs the parts of its gradients do not shrink: 32 · 0.09 · 0.25 is about 1."""
    manual_seed(0)
    model = Sequential(*[layer for _ in range(9) for layer in (Linear(32, 32), Sigmoid())])
    loss = CrossEntropyLoss()(model(batch(1, 32)), [0])
    finding = found("vanished", loss, model=model)
    assert finding.text.startswith("The gradient vanishes in 0.weight, 0.bias")


def test_of_many_wrong_answers_each_has_a_small_part():
    w = Value(-60.0, "w")
    loss = MSELoss()([(w * x).sigmoid() for x in range(1, 3001)], [1.0] * 3000)
    assert trouble(loss) == ["saturated", "vanished"]


def test_the_bias_of_a_hinge_loss_with_decay_is_stationary():
    w, b = Value(1.0, "w"), Value(0.1, "b")
    pairs = [(0.5, 1), (0.2, 1), (-0.3, -1), (-0.1, -1)]
    loss = mean([relu(1 - y * (w * x + b)) for x, y in pairs]) + 1e-4 * (w * w + b * b)
    assert grad(loss, b).data == pytest.approx(2e-5)
    assert trouble(loss) == []


def test_what_cancels_but_was_little_before_has_vanished():
    a, b = Value(1.0, "a"), Value(1.0, "b")
    assert trouble(a + 1e-9 * (b * 1.001 - b)) == ["vanished"]
    assert trouble(a + 1e-9 * (b * (1 + 1e-9) - b)) == ["vanished"]
    assert trouble(a + 1e-9 * (b - b)) == []


def test_of_what_cancels_no_step_stops_it():
    a, b = Value(1.0, "a"), Value(1.0, "b")
    finding = found("zero gradient", a + 1e-9 * (b - b) + where(b > 0, 5.0, b))
    assert len(finding.where) == 2
    assert "∂v4/∂b is 0, of v4 = where(1, 5, b)" in finding.where[1]


def test_a_large_leaf_is_no_huge_weight():
    assert trouble(Value(1e7, "population") * 1e-3) == []


@pytest.mark.parametrize(
    "loss_fn, target", [(MSELoss(), [1.0, 0.0, 0.0]), (CrossEntropyLoss(), 0), (L1Loss(), [1.0, 0.0, 0.0])]
)
def test_a_softmax_that_is_sure_and_wrong_is_no_minimum(loss_fn, target):
    manual_seed(0)
    model = Sequential(Linear(4, 3), Softmax())
    model[0].bias[1].data = 1000.0
    assert trouble(loss_fn(model(batch()), [target] * 16), model=model) == ["zero gradient"]
    if loss_fn.__class__ is not CrossEntropyLoss:
        right = [0.0, 1.0, 0.0]
        assert trouble(loss_fn(model(batch()), [right] * 16), model=model) == []


def test_answers_half_of_which_are_stuck_are_at_no_minimum():
    manual_seed(0)
    model = Sequential(Linear(4, 1), Sigmoid())
    model[0].bias[0].data = 40.0
    loss = BCELoss()(model(batch()), [[float(i % 2)] for i in range(16)])
    assert trouble(loss, model=model)[0] == "saturated"
    assert {row[-1] for row in rows(explain(loss, model=model)).values()}.isdisjoint({"stationary", ""})


@pytest.mark.parametrize("f", [relu, lambda x: maximum(x, 0.0), lambda x: clamp(x, 0.0, 9.0)])
def test_a_parameter_without_any_gradient_is_trouble_whatever_stops_it(f):
    assert trouble((f(Value(-1.0, "w") * 2) - 1) ** 2) == ["zero gradient"]


def test_a_product_that_is_too_small_for_a_float_is_told_from_a_factor_of_0():
    w, h = Value(0.5, "w"), 1.0
    for _ in range(2000):
        h = h * w
    finding = found("zero gradient", h)
    assert "is 0.5, times 4.941e−324 too small for a float, of " in finding.where[1]
    assert finding.advice.endswith("their product is too small for a float.")


def test_of_stops_alike_one_of_each_layer_comes_first():
    xs = [Value(5.0, f"x{i}") for i in range(20)]
    finding = found(
        "zero gradient", sum([clamp(x, 0, 1) * 1.0 for x in xs[:10]] + [where(x > 0, 1.0, x) for x in xs[10:]])
    )
    stops = [line for line in finding.where if line.startswith("∂")]
    assert len(stops) == 2
    assert [("clamp(" in line, "where(" in line) for line in stops] in (
        [(True, False), (False, True)],
        [(False, True), (True, False)],
    )
    assert finding.where[-1] == "and 18 more like this"


def test_gradients_that_are_small_everywhere_are_only_noted():
    h = Value(0.3, "h")
    for w in [Value(0.5, f"w{i}") for i in range(30)]:
        h = (w * h).tanh()
    loss = (h - 1) ** 2
    note = found("small", loss)
    assert not note.trouble
    assert "30 steps of mul multiply it by 9.313e−10; the smallest is 0.5" in note.where[0]
    largest = max(abs(grad(loss, x).data) for x in inputs_first(loss) if x.op is None and x.requires_grad)
    assert note.text == f"All gradients are small: the largest is {shown(largest)}, of h"
    k = Value(1e6, "k")  # in a unit of its own: a step of 1 % changes the loss
    assert not [
        f for f in explain(mean([(k * x / 1e6 - 2 * x) ** 2 for x in (1.0, 2.0)])).findings if f.kind == "small"
    ]
    w = Value(2.0, "w")
    assert not [f for f in explain((w * 1.0 - 2.00001) ** 2).findings if f.kind == "small"]  # near a minimum they are


def test_a_table_of_many_parameters_shows_the_first_and_the_last():
    manual_seed(0)
    model = Sequential(*[Linear(1, 1) for _ in range(100)])
    for p in model.parameters():
        p.values()[0].data = 1.0
    table = rows(explain(model([1.0])[0], model=model))
    assert len(table) == 61
    assert [*table][:2] + [*table][-2:] == ["0.weight", "0.bias", "99.weight", "99.bias"]
    assert "… 140 more …" in table


def test_learning_values_that_no_parameter_of_the_model_holds_are_told():
    class Forgetful(Module):
        def __init__(self):
            super().__init__()
            self.known = Linear(1, 1)
            self.layers = Linear(1, 1), Linear(1, 1)  # a tuple: not registered
            self.scale = Value(2.0, "scale")

        def forward(self, x):
            x = self.known(x)
            for layer in self.layers:
                x = layer(x)
            return x[0] * self.scale

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a Module may say so when the attribute is set
        model = Forgetful()
    finding = found("not in the model", lambda: model([1.0]) ** 2, model=model)
    assert not finding.trouble
    assert finding.text == "5 Values that the loss depends on are in no Parameter of the model"
    assert {*finding.values} == {
        model.scale,
        *[v for layer in model.layers for p in layer.parameters() for v in p.values()],
    }
    assert any(line.startswith("scale = 2, used in v") and "return x[0] * self.scale" in line for line in finding.where)
    assert "ModuleList" in finding.advice
    for loss in (model.known([1.0])[0], model.known([Value(1.0, requires_grad=False)])[0]):
        assert "not in the model" not in [finding.kind for finding in explain(loss, model=model).findings]
    assert "not in the model" not in [finding.kind for finding in explain(model([1.0])).findings]
