import math

import pytest

import milligrad
from milligrad import (
    SGD,
    CrossEntropyLoss,
    Embedding,
    Linear,
    MultiheadAttention,
    ReLU,
    Sequential,
    Tanh,
    Value,
    compile,
    exp,
    log,
    logsumexp,
    manual_seed,
    record_lines,
    where,
)
from milligrad.explain import explain
from tests.explain.networks import batch, digit_classifier, found, line_of, small_network, trouble


def with_inf(model, inputs):
    """A network whose hidden numbers are squared; one of them overflows."""
    losses = []
    for x in inputs:
        h = model(x)
        losses.append(h[0] * h[1])  # birth
    return sum(losses)


def test_inf_is_found_where_it_was_born():
    head = Linear(4, 2)
    head.weight[0][0].data = head.weight[1][0].data = 1e200
    finding = found("inf", lambda: with_inf(head, batch(4)), model=head)
    assert [z.op.name for z in finding.values] == ["mul"] * 4
    assert all(math.isfinite(x.data) for z in finding.values for x in z.inputs)
    line = f"test_arithmetic.py:{line_of(with_inf, '# birth')}: losses.append(h[0] * h[1])  # birth"
    assert all(line in where for where in finding.where)
    assert finding.text == "inf was born in mul"
    assert "too large for a float" in finding.advice


def test_its_inputs_are_shown_with_their_numbers():
    x, y = Value(1e200, "x"), Value(3e250, "y")
    z = x * y
    z.name = "z"
    finding = found("inf", z + 1.0)
    assert finding.where == ["z = x * y = 1e+200 * 3e+250 = inf"]
    assert finding.values == [z]
    assert finding.advice.endswith("1 of 4 Values became NaN or infinite after that.")


def test_nan_of_infinities_has_two_births():
    x = Value(1e200, "x")
    square = x * x
    z = square - square
    findings = explain(z).findings
    assert [(f.kind, f.values) for f in findings] == [("inf", [square]), ("nan", [z])]
    assert "inf - inf" in findings[1].advice


def test_nan_of_an_overflow_within_one_operation():
    x = Value(1e200, "x")
    z = (Value(1.0) * 1.0).sum_of_products([x, x], [x, -1.0 * x])
    finding = found("nan", z + 1.0)
    assert finding.values == [z]
    assert "A part of it was too large" in finding.advice


def test_a_weight_that_is_nan_is_the_cause_and_not_what_follows():
    model, loss = digit_classifier()
    model[0].weight[3][5].data = math.nan
    explanation = explain(loss, model=model)
    [finding] = explanation.findings
    assert (finding.kind, finding.values) == ("nan", [model[0].weight[3][5]])
    assert finding.text == "0.weight[3][5] was NaN already"
    assert "optimizer" in finding.advice
    infected = sum(not math.isfinite(z.data) for z in values(loss()))
    total = len(values(loss()))
    assert f" {infected - 1:,} of {total:,} Values became NaN" in finding.advice
    assert "gradients of this loss" not in str(explanation)


def values(loss):
    from milligrad.draw.naming import inputs_first

    return inputs_first(loss)


@pytest.mark.parametrize("given", [math.nan, math.inf])
def test_data_that_is_no_number_is_found(given):
    model, _ = small_network(Tanh(), Tanh())
    inputs = batch(4)
    inputs[2][1] = given
    finding = found("nan", lambda: sum(y[0] for y in model(inputs)) * math.nan, model=model)
    assert finding.values[0].op is not None
    kind = "nan" if given != given else "inf"
    layer = Linear(4, 3)
    finding = found(kind, lambda: CrossEntropyLoss()([[v * 1.0 for v in layer(x)] for x in inputs], [0, 1, 2, 0]))
    assert {z.op.name for z in finding.values} == {"dot"}
    assert len(finding.values) == 3
    assert finding.advice.startswith(f"Element [1] of its second list ({given}) was given so: look where")


def test_of_many_inputs_it_is_said_which_is_no_number():
    xs = [Value(float(i), f"x{i}") for i in range(9)]
    for i, given, kind in ((6, math.nan, "nan"), (4, math.inf, "inf")):
        finding = found(kind, milligrad.sum([*xs[:i], given, *xs[i:]]))
        assert finding.advice.startswith(f"Element [{i}] of its list ({given}) was given so")
    finding = found("nan", milligrad.sum([*xs, exp(xs[1] * 700) * exp(xs[1] * 100), -math.inf]))
    assert "look where the inf came from. Element [9] of its list (v5 = inf and 1 more) is infinite." in finding.advice
    finding = found("nan", (xs[1] * 1e308 * 10) * (xs[0] * 0))
    assert finding.advice.endswith("Its input [0] (v2 = inf) is infinite.")


def test_a_constant_that_is_nan_is_found():
    x, c = Value(1.0, "x"), Value(math.nan, "c", requires_grad=False)
    finding = found("nan", x * c)
    assert (finding.values, finding.text) == ([c], "c was NaN already")
    assert finding.advice.startswith("Nothing computed it: it came with the data.")


def test_many_are_counted():
    xs = [Value(math.nan) for _ in range(9)]
    finding = found("nan", sum(xs))
    assert len(finding.where) == 6
    assert finding.where[-1] == "and 4 more like this"
    assert finding.text == "9 Values were NaN already"


def test_the_infinities_of_a_mask_are_no_trouble():
    manual_seed(0)
    model = MultiheadAttention(4, 2, batch_first=True)
    mask = [[False, True, True], [False, False, True], [False, False, False]]
    inputs = [batch(3)]

    def loss():
        output, _ = model(inputs, inputs, inputs, attn_mask=mask)
        return sum(x * x for row in output[0] for x in row)

    assert trouble(loss, model=model) == []


def test_the_infinities_of_a_sum_with_a_mask_are_no_trouble():
    xs = [Value(1.0), Value(2.0), Value(3.0)]
    masked = [x + m for x, m in zip(xs, [0.0, -math.inf, 0.0])]
    assert trouble(logsumexp(masked)) == []


def test_numbers_that_were_not_chosen_are_no_trouble():
    x, c = Value(1.0, "x"), Value(math.inf, "c", requires_grad=False)
    assert trouble(where(True, x, c) * 2.0) == []


def test_a_row_that_is_masked_whole_is_found():
    xs = [Value(1.0), Value(2.0)]
    masked = [x + -math.inf for x in xs]
    z = masked[0] - masked[1]
    finding = found("nan", z)
    assert finding.values == [z]


def test_a_derivative_that_does_not_exist():
    def norm(xs):
        return sum(xs).sqrt()  # here

    layer = Linear(3, 2, bias=False)
    for p in layer.weight.values():
        p.data = 0.0
    finding = found("no derivative", lambda: norm(layer([1.0, 2.0, 3.0])) + 1.0, model=layer)
    assert [z.op.name for z in finding.values] == ["sqrt"]
    assert f"test_arithmetic.py:{line_of(norm, '# here')}: " in finding.where[0]
    assert "no finite derivative (float division by zero)" in finding.where[0]
    assert "= sqrt(0) = 0" in finding.where[0]


def test_a_derivative_that_does_not_exist_but_is_multiplied_by_0_is_no_trouble():
    x = Value(0.0, "x")
    assert trouble(lambda: (x * x).sqrt() + x) == []
    assert "no derivative" in trouble(lambda: x.sqrt() + x)


def test_a_gradient_that_overflows_is_found_where_it_does():
    x, y = Value(1e-320, "given") * 1.0 * 1.0, Value(1e300, "y")
    x.name = "x"
    quotient = x / 1e-320  # ∂/∂x is too large
    quotient.name = "q"
    finding = found("inf gradient", quotient * y)
    assert finding.values == [quotient]
    assert "∂q/∂x = inf times 1e+300, which came back to q" in finding.where[0]


def test_a_sum_of_gradients_that_overflows_is_found():
    x = Value(0.5, "x")
    inner = x * 0.5
    z = inner * 1.5e308 + inner * 1.5e308 - inner * 1.0
    assert math.isfinite(z.data)
    assert "inf gradient" in trouble(z)


def test_zero_times_infinity_on_the_way_back_is_zero():
    x, zero = Value(1e-320, "x"), Value(0.0, "zero")
    z = (x / 1e-320) * zero
    assert trouble(z) == []
    z.backward()
    assert x.grad == 0.0


def test_numbers_that_changed_since_are_told_first():
    model, loss = digit_classifier()
    optimizer = SGD(model.parameters(), lr=0.1)
    value = loss()
    value.backward()
    assert trouble(value, model=model) == []
    optimizer.step()
    explanation = explain(value, model=model)
    assert explanation.findings[0].kind == "changed"
    assert "before optimizer.step()" in explanation.findings[0].advice
    assert "accumulated" not in [f.kind for f in explanation.findings]
    assert explanation.findings[0].values[0].op.name == "dot"


def test_a_number_that_changed_to_where_the_operation_is_not_defined():
    x = Value(1.0, "x")
    z = x.log()
    x.data = -1.0
    assert trouble(z)[0] == "changed"


def test_nan_has_not_changed():
    x = Value(math.nan, "x")
    assert trouble(x * 2.0 - 1.0) == ["nan"]


def test_compiled_code_is_taken_as_it_is():
    x = Value(3.0, "x")
    square = compile(lambda x: x * x, backend="python")
    z = square.value(x) * 2.0
    assert trouble(z) == []
    assert explain(z, wrt=x).total == 12.0


def test_the_line_is_asked_for_where_it_is_not_known():
    hint = "The lines of your code are known if the loss is computed within: explain(lambda: …)."
    x = Value(1e200, "x")
    assert hint in str(explain(x * x * 1.0))
    with record_lines():
        z = x * x
    assert hint not in str(explain(z))
    assert hint not in str(explain(Value(2.0) * 3.0))


def test_what_comes_of_nan_is_not_told_as_well():
    model = Sequential(Linear(4, 8), ReLU(), Linear(8, 2))
    for p in model[0].bias.values():
        p.data = -100.0
    model[2].weight[0][0].data = math.nan
    assert trouble(lambda: sum(model(batch(1)[0])), model=model) == ["nan"]


def test_a_branch_that_was_not_chosen_makes_no_gradient_nan():
    x = Value(2.0, "x")
    loss = where(x > 0, x, x * -math.inf)
    assert loss.data == 2.0 and trouble(loss) == []


def test_a_parameter_that_is_nan_is_found_though_the_loss_does_not_use_it():
    model = Embedding(4, 2)
    model.weight[3][0].data = math.nan
    finding = found("nan", lambda: milligrad.sum(model([0])[0]), model=model)
    assert finding.where == ["weight[3][0] = nan"]
    assert finding.values == [model.weight[3][0]]
    assert finding.trouble


def test_a_quotient_is_not_made_smaller_by_smaller_inputs():
    finding = found("inf", 1.0 / Value(5e-324, "tiny"))
    assert finding.advice.startswith("The result is too large for a float")
    assert "divisor" in finding.advice
    assert "Scale the inputs down" in found("inf", Value(1e200, "x") * 1e200).advice


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_each_log_that_met_an_exact_0_is_reported(zero):
    p, q = Value(zero, "p"), Value(0.5, "q")

    def likelihood():
        return -(p.log() + q.log() + log(p * q))

    finding = found("log of 0", likelihood)
    assert (finding.text, finding.trouble) == ("2 logs met an exact 0", True)
    first, second = finding.where
    assert first.startswith(f"v1 = log(p) = log({zero:g}) = −18.42, in test_arithmetic.py:".replace("-", "−"))
    assert "v5 = log(v4)" in second and "return -(p.log()" in second
    assert "log(0) is taken for log(1e−08) = −18.42, with the derivative 1e+08" in finding.advice
    assert [z.op.name for z in finding.values] == ["log", "log"]
    p.data = 1e-300
    assert not [finding for finding in explain(likelihood).findings if finding.kind == "log of 0"]


@pytest.mark.parametrize("f", [lambda p: 0.0 * log(p) + p, lambda p: where(p > 0, log(p), p)])
def test_a_log_of_0_that_does_not_matter_is_only_noted(f):
    finding = found("log of 0", f(Value(0.0, "p")))
    assert (finding.text, finding.trouble) == ("1 log met an exact 0", False)
