import pytest

from milligrad import SGD, Linear, Sequential, Tanh, Value, manual_seed
from milligrad.explain import explain
from milligrad.nn.utils import clip_grad_norm_, clip_grad_value_
from tests.explain.networks import digit_classifier, found, small_network, trouble


def shown(x):
    return f"{x:.4g}".replace("-", "−")


def test_after_one_backward_all_is_well():
    model, loss = digit_classifier()
    z = loss()
    z.backward()
    assert [f for f in explain(z, model=model).findings if f.kind != "off"] == []


@pytest.mark.parametrize("runs", [2, 3])
def test_a_second_backward_is_found(runs):
    model, loss = digit_classifier()
    z = loss()
    for _ in range(runs):
        z.backward()
    finding = found("accumulated", z, model=model)
    assert finding.trouble
    assert f"backward() ran {runs} times" in finding.text
    x = finding.values[0]
    assert f".grad is {shown(x.grad)}; this loss gives {shown(x.grad / runs)}" in finding.where[0]


def test_a_forgotten_zero_grad_is_found():
    model, loss = small_network(Tanh(), Tanh())
    optimizer = SGD(model.parameters(), lr=0.1)
    first = loss()
    first.backward()
    optimizer.step()
    second = loss()
    second.backward()
    finding = found("accumulated", second, model=model)
    assert {*finding.values} == {x for p in model.parameters() for x in p.values()}
    assert "are not what this loss gives" in finding.text
    assert "zero_grad()" in finding.advice


def test_an_equal_loss_twice_is_found_with_its_factor():
    model, loss = small_network(Tanh(), Tanh())
    loss().backward()
    z = loss()
    z.backward()
    finding = found("accumulated", z, model=model)
    assert "each .grad is 2 times what" in finding.text


def test_one_leaf_that_was_not_zeroed_is_named():
    x, w = Value(2.0, "x"), Value(3.0, "w")
    z = x * w
    x.grad = 1.0
    z.backward()
    finding = found("accumulated", z)
    assert finding.values == [x]
    assert finding.where == ["x.grad is 4; this loss gives 3"]


def test_before_backward_nothing_is_compared():
    x = Value(2.0, "x")
    z = x * x
    finding = found("no backward", z)
    assert (finding.text, finding.trouble) == ("v1.backward() has not run yet: each .grad is 0", False)
    x.grad = 5.0
    finding = found("no backward", z)
    assert finding.text == "v1.backward() has not run yet, but 1 .grad is not 0"
    assert finding.where == ["x.grad is 5"]
    assert "zero_grad()" in finding.advice


def test_of_a_loss_computed_for_it_no_gradient_is_compared():
    model, loss = small_network(Tanh(), Tanh())
    loss().backward()
    assert explain(loss, model=model).findings == []
    assert ".grad is" not in str(explain(loss, wrt=model[0].bias[0]))
    assert ".grad is" in str(explain(loss(), wrt=model[0].bias[0]))


def test_clipped_gradients_are_only_noted():
    model, loss = small_network(Tanh(), Tanh())
    z = loss()
    z.backward()
    clip_grad_norm_(model.parameters(), 1e-3)
    finding = found("scaled", z, model=model)
    assert not finding.trouble
    assert trouble(z, model=model) == []


def test_zeroed_gradients_are_only_noted():
    model, loss = small_network(Tanh(), Tanh())
    z = loss()
    z.backward()
    model.zero_grad()
    assert not found("zeroed", z, model=model).trouble


def test_a_scaled_backward_is_only_noted():
    x = Value(2.0, "x")
    z = x * x
    z.backward(0.25)
    finding = found("scaled", z)
    assert not finding.trouble
    assert "v1.grad = 0.25" in finding.text


def test_rounding_is_no_difference():
    x, w = Value(2.0, "x"), Value(3.0, "w")
    z = x * w
    z.backward()
    x.grad *= 1 + 1e-12
    assert trouble(z) == []
    x.grad *= 1 + 1e-7
    assert trouble(z) == ["accumulated"]


def test_gradients_limited_one_by_one_are_only_noted():
    x, y = Value(3.0, "x"), Value(2.0, "y")
    loss = x * y + y * y
    loss.backward()
    clip_grad_value_([x, y], 2.5)
    assert trouble(loss) == []
    note = found("scaled", loss)
    assert note.where == ["y.grad is 2.5; this loss gives 7"]
    x.zero_grad()
    assert found("scaled", loss).where == ["x.grad is 0; this loss gives 2", "y.grad is 2.5; this loss gives 7"]
    assert trouble(loss) == []
    x.grad = -0.5  # another sign, which no clipping makes
    assert trouble(loss) == ["accumulated"]


def test_what_was_zeroed_between_two_runs_holds_one():
    x = Value(3.0, "x")
    loss = x * 7
    loss.backward()
    x.zero_grad()
    loss.backward()
    assert explain(loss).findings == []


def test_a_part_of_a_larger_loss_is_told_from_a_second_run():
    x = Value(3.0, "x")
    part = x * 2.0
    (part * part).backward()
    finding = found("accumulated", part)
    assert "each .grad is 12 times what" in finding.text
    assert "of which this is a part" in finding.advice
    x.zero_grad()
    (part * 0.7).backward()
    assert trouble(x * 1.0) == []


def test_one_gradient_less_than_it_should_be_may_be_clipped_or_of_an_earlier_loss():
    w = Value(1.0, "w")
    ((w - 4) ** 2).backward()
    loss = (w + 3) ** 2
    loss.backward()
    note = found("scaled", loss)
    assert note.where == ["w.grad is 2; this loss gives 8"]
    assert "call zero_grad() before it" in note.advice


def test_a_backward_that_began_further_on_is_only_noted():
    w = Value(3.0, "w")
    part = w * w
    (-part).backward()
    assert trouble(part) == []
    assert "backward began with v1.grad = −1" in found("scaled", part).text


def test_a_function_may_return_what_was_there_before():
    w = Value(3.0, "w")
    loss = w * w
    loss.backward()
    loss.backward()
    assert trouble(lambda: loss) == ["accumulated"]


def test_of_a_model_only_its_own_parameters_are_compared():
    """The loss of a generator leaves gradients in the discriminator, which are zeroed before its own step."""
    manual_seed(0)
    generator, discriminator = Linear(2, 2), Sequential(Linear(2, 4), Tanh(), Linear(4, 1))

    def answer():
        return discriminator(generator([1.0, 2.0]))[0]

    (discriminator([3.0, -1.0])[0] ** 2 + answer() ** 2).backward()
    generator.zero_grad()
    loss = (answer() - 1) ** 2
    loss.backward()
    assert [finding.kind for finding in explain(loss, model=generator).findings] == ["not in the model"]
    assert trouble(loss) == trouble(loss, model=discriminator) == ["accumulated"]


def test_gradients_of_other_sizes_were_not_limited():
    x, y, z = Value(3.0, "x"), Value(2.0, "y"), Value(1.0, "z")
    loss = x * y * 5.0 + z
    x.grad, y.grad, z.grad, loss.grad = 2.0, 4.0, 1.0, 1.0
    assert trouble(loss) == ["accumulated"]
    x.grad = 4.0
    assert trouble(loss) == []


def test_numbers_that_differ_are_shown_to_differ():
    x = Value(3.0, "x")
    z = x * x
    z.backward()
    x.grad *= 1 + 1e-7
    finding = found("accumulated", z)
    assert finding.text.startswith("The gradients were accumulated: each .grad is 1.0000001 times what v1 gives")
    assert finding.where == ["x.grad is 6.000001; this loss gives 6"]
