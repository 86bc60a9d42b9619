import math
import subprocess
import sys
from pathlib import Path

import pytest

import milligrad
from milligrad import CrossEntropyLoss, Linear, ReLU, Value, draw, no_grad, step_through
from milligrad.draw.naming import inputs_first
from milligrad.explain import explain
from tests.draw.graphs import NASTY, UNSEEN, WHOLE, WHOLE_SHOWN
from tests.draw.test_graph import Page
from tests.explain.networks import digit_classifier, line_of


def test_it_is_public_and_imported_late():
    assert milligrad.explain is explain
    code = "import sys, milligrad; print([m for m in sys.modules if m.startswith('milligrad.explain.')])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent.parent)
    assert done.stdout.strip() == "[]"


def price_of(price):
    discount = price - 0.5  # discount
    return discount.log() * 2.0  # log


def test_an_error_of_arithmetic_is_explained():
    [finding] = explain(lambda: price_of(Value(0.2, "price"))).findings
    assert finding.kind == "error"
    assert finding.text == "log of −0.3 raised ValueError: expected x >= 0"
    assert finding.where == [
        f"test_explain.py:{line_of(price_of, '# log')}: return discount.log() * 2.0  # log",
        "its input v1 = price - 0.5 = 0.2 - 0.5 = −0.3, in "
        f"test_explain.py:{line_of(price_of, '# discount')}: discount = price - 0.5  # discount",
    ]
    [x] = finding.values
    assert x.data == 0.2 - 0.5


def test_an_overflow_is_explained():
    explanation = explain(lambda: Value(1000.0, "x").exp())
    [finding] = explanation.findings
    assert finding.text == "exp of 1000 raised OverflowError: the result is too large for a float"
    assert finding.where[1] == "its input x = 1000"
    assert explanation.title == "The loss could not be computed"
    assert explanation.total is None


def test_an_error_of_plain_numbers_is_explained():
    def mean(xs):
        return sum(xs) / len(xs)  # of none

    [finding] = explain(lambda: Value(1.0) * mean([])).findings
    assert finding.text == "ZeroDivisionError: division by zero"
    assert f"test_explain.py:{line_of(mean, '# of none')}: " in finding.where[0]


@pytest.mark.parametrize(
    "f, error",
    [
        (lambda: Linear(2, 3)([1.0]), ValueError),
        (lambda: int("a"), ValueError),
        (lambda: {}["a"], KeyError),
        (lambda: Value("a"), TypeError),
        (lambda: CrossEntropyLoss()([[1.0, 2.0]], [5]), IndexError),
    ],
)
def test_other_errors_pass_through(f, error):
    with pytest.raises(error):
        explain(f)


def test_a_function_is_called_once_with_its_lines_recorded():
    calls = []

    def loss():
        calls.append(1)
        x = Value(1e200, "x")
        return x * x  # born here

    explanation = explain(loss)
    assert calls == [1]
    assert f":{line_of(loss, '# born here')}: return x * x" in explanation.findings[0].where[0]
    assert not hasattr(Value(2.0) * 3.0, "line")


x = Value(1.0, "x")


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"loss": 3.0}, TypeError, "loss: expected a Value or a function that returns one, got float 3.0"),
        ({"loss": lambda: 3.0}, TypeError, "loss: expected a function that returns a Value; it returned float 3.0"),
        ({"loss": lambda: None}, TypeError, "loss: expected a function that returns a Value; it returned NoneType"),
        ({"wrt": 3.0}, TypeError, "wrt: expected a Value, got float 3.0"),
        ({"wrt": [x]}, TypeError, "wrt: expected a Value, got list"),
        ({"model": 3}, TypeError, "model: expected a Module, got int 3"),
        ({"max_paths": 0}, ValueError, "max_paths: expected a whole number >= 1, got 0"),
        ({"max_paths": 1.5}, ValueError, "max_paths: expected a whole number >= 1, got 1.5"),
        ({"precision": 0}, ValueError, "precision: expected a whole number >= 1, got 0"),
        ({"wrt": x.detach()}, ValueError, "wrt: expected a Value that requires a gradient, got Value"),
        ({"loss": x.detach(), "wrt": x}, RuntimeError, "no gradient of Value.*it is a constant"),
    ],
)
def test_bad_input_is_explained(arguments, error, message):
    with pytest.raises(error, match=message):
        explain(**{"loss": x * 2.0, **arguments})


def test_a_bad_option_is_refused_before_anything_is_computed():
    def loss():
        raise AssertionError("was called")

    with pytest.raises(ValueError, match="precision"):
        explain(loss, precision=0)


def test_a_constant_is_told():
    with no_grad():
        z = x * 2.0
    [finding] = explain(z).findings
    assert finding.kind == "constant"
    assert finding.text == "v1 is a constant: it has no gradient"


def test_nothing_is_changed_by_asking():
    model, loss = digit_classifier()
    value = loss()
    value.backward()
    order = inputs_first(value)
    before = [(z.data, z.grad, z.op, z.inputs, z.name, z.requires_grad) for z in order]
    text = str(explain(value, model=model))
    explain(value, wrt=model[0].weight[0][0], model=model).html()
    assert [(z.data, z.grad, z.op, z.inputs, z.name, z.requires_grad) for z in order] == before
    assert str(explain(value, model=model)) == text


def test_a_model_names_the_paths():
    model, loss = digit_classifier(samples=2)
    explanation = explain(loss, wrt=model[2].bias[3], model=model)
    assert "2.bias[3] → " in str(explanation)
    assert "∂v" in str(explanation)


@pytest.mark.parametrize("c", UNSEEN, ids=ascii)
def test_a_name_turns_nothing_around_and_hides_nothing(c):
    def written(name):
        x = Value(2.0, name)
        explanation = explain(x * x.exp(), wrt=x)
        return str(explanation), repr(explanation), explanation.markdown(), explanation.html()

    assert written(f"pay{c}load") == written("pay\ufffdload")
    expected = [WHOLE] * 3 + [WHOLE_SHOWN]
    assert all(name in source for name, source in zip(expected, written(WHOLE), strict=True))


@pytest.mark.parametrize("name", NASTY)
def test_names_are_text_everywhere(name, tmp_path):
    def loss(name):
        x, w = Value(math.inf, name), Value(0.5, name)
        z = (x * w).relu() + w.tanh() * 0.0
        z.name = name
        return z, w

    (z, w), (plain_z, plain_w) = loss(name), loss("plain")
    for one, other in (
        (explain(z), explain(plain_z)),
        (explain(z, wrt=w), explain(plain_z, wrt=plain_w)),
        (
            explain(lambda: Value(-1.0, name).log() + Value(1.0, name)),
            explain(lambda: Value(-1.0, "plain").log() + Value(1.0, "plain")),
        ),
    ):
        page, plain = Page(one.html()), Page(other.html())
        assert [tag for tag, *_ in page.elements] == [tag for tag, *_ in plain.elements]
        assert len(str(one)) < 10_000
        for suffix in (".txt", ".md", ".html"):
            one.save(tmp_path / f"x{suffix}")


def test_names_of_modules_are_text_too():
    class Net(milligrad.Module):
        def forward(self, x):
            return self.used(x)

    name = "<script>" * 1_000
    net = Net()
    net.used = Linear(2, 1)
    net.add_module(name, Linear(2, 2))
    explanation = explain(lambda: ReLU()(net([1.0, 2.0]))[0] + 1.0, model=net)
    assert [f.kind for f in explanation.findings if f.trouble][-1] == "unreached"
    page = Page(explanation.html())
    assert not page.texts("script")
    assert len(str(explanation)) < 3_000


def test_it_stands_above_the_pictures_and_knows_nothing_of_the_compiler():
    package = Path(milligrad.__file__).parent
    for file in (package / "explain").glob("*.py"):
        assert "milligrad.compiler" not in file.read_text(encoding="utf-8")
    for file in (package / "draw").glob("*.py"):
        assert "milligrad.explain" not in file.read_text(encoding="utf-8")


def test_constants_have_the_digits_that_are_asked_for():
    loss = x * (1 / 3)
    assert "x * 0.333333 " in str(explain(loss, wrt=x))
    assert "x * 0.3333333333 " in str(explain(loss, wrt=x, precision=10))


@pytest.mark.parametrize("name", [None, "", " \t"])
def test_a_value_without_a_name_has_one_name_on_all_pages(name, tmp_path):
    loss = (x * 2.0 + 3.0) * x
    loss.name = name
    step_through(loss, tmp_path / "lesson.html")
    assert str(draw(loss)).startswith("v3 = v2 * x")
    assert "v3 = v2 * x" in (tmp_path / "lesson.html").read_text(encoding="utf-8")
    assert explain(loss, wrt=x).title.startswith("∂v3/∂x = 7: how v3 = 5 ")
    assert explain(loss, wrt=Value(1.0)).title == "∂v3/∂v4 = 0: how v3 = 5 moves with v4 = 1"
    assert explain(loss).title.startswith("The loss v3 = 5: ")
    loss.name = "z"
    assert explain(loss).title.startswith("z = 5: ")


def test_inputs_of_an_operation_that_failed_have_names_of_their_own():
    [finding] = explain(lambda: (x + 1.0) / (x - 1.0)).findings
    assert [line.split(",")[0] for line in finding.where[-2:]] == [
        "its input v1 = x + 1 = 1 + 1 = 2",
        "its input v2 = x - 1 = 1 - 1 = 0",
    ]
    y = Value(0.0, "y")
    [finding] = explain(lambda: y / y).findings
    assert finding.where[1:] == ["its input y = 0"]
    model = Linear(1, 1)
    model.weight[0][0].data = 0.0
    [finding] = explain(lambda: 1.0 / model.weight[0][0], model=model).findings
    assert finding.where[-1] == "its input weight[0][0] = 0"
