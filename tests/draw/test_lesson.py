"""The page that plays a graph: parsed, and played here by the changes that it lists, without a browser."""

import base64
import hashlib
import json
import math
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings

from milligrad import Linear, Sequential, Tanh, Value, compile, dot, max, record_lines, step_through, where
from milligrad.markup import shown
from milligrad.ops import bce
from milligrad.optim import SGD
from tests.draw.graphs import NASTY, UNSEEN, WHOLE, WHOLE_SHOWN, graphs
from tests.page import Page


class Lesson(Page):
    """What a page holds: the steps' phases, titles, sentences and formulas, and the script's data."""

    def __init__(self, value, **options):
        with TemporaryDirectory() as folder:
            step_through(value, Path(folder, "lesson.html"), **options)
            self.source = Path(folder, "lesson.html").read_text(encoding="utf-8")
        super().__init__(self.source)
        self.data = json.loads(self.texts("script")[0])
        self.nodes, self.steps = self.data["nodes"], self.data["steps"]
        self.phases = [text for tag, attributes, text in self.elements if attributes.get("class") == "phase"]
        self.titles = self.texts("h2")
        ol = re.search(r"<ol.*</ol>", self.source, re.DOTALL)[0]
        self.items = [[code.text for code in item.iter("code")] for item in ET.fromstring(ol).findall("li")]

    def played(self, until=None):
        """What stands in the boxes after so many steps: {(node, "data"): "data 2"}."""
        return {(node, what): text for step in self.steps[:until] for node, what, text in step["changes"]}

    def names(self):
        return [node["told"][0] for node in self.nodes]


def named(z, name):
    z.name = name
    return z


def neuron():
    x, w, b = Value(0.5, name="x"), Value(-1.2, name="w"), Value(0.3, name="b")
    y = (x * w + b).tanh()
    y.name = "y"
    return y


def test_the_steps_of_a_neuron_are_those_of_the_textbook():
    page = Lesson(neuron())
    assert page.phases == [
        "Given",
        *[f"Forward, {i} of 3" for i in (1, 2, 3)],
        *[f"Backward, {i} of 4" for i in (1, 2, 3, 4)],
        "Result",
    ]
    assert page.items == [
        ["x = 0.5", "w = −1.2", "b = 0.3"],
        ["v1 = x * w", "= 0.5 * (−1.2)", "= −0.6"],
        ["v2 = v1 + b", "= (−0.6) + 0.3", "= −0.3"],
        ["y = tanh(v2)", "= tanh(−0.3)", "= −0.2913"],
        ["∂y/∂y = 1", "y.grad += 1"],
        [  # 1 - tanh²(0.3) = 0.91514
            "∂y/∂v2 = 1 - y * y = 1 - (−0.2913) * (−0.2913) = 0.9151",
            "v2.grad += 1 · 0.9151",
            "v2.grad: 0 → 0.9151",
        ],
        [
            *("∂v2/∂v1 = 1", "v1.grad += 0.9151 · 1", "v1.grad: 0 → 0.9151"),
            *("∂v2/∂b = 1", "b.grad += 0.9151 · 1", "b.grad: 0 → 0.9151"),
        ],
        [
            *("∂v1/∂x = w = −1.2", "x.grad += 0.9151 · −1.2", "x.grad: 0 → −1.098"),
            *("∂v1/∂w = x = 0.5", "w.grad += 0.9151 · 0.5", "w.grad: 0 → 0.4576"),
        ],
        ["∂y/∂x = −1.098", "∂y/∂w = 0.4576", "∂y/∂b = 0.9151"],
    ]
    assert page.titles[3] == "y is computed" and page.titles[6] == "v2 passes its gradient on"
    assert "tanh: The hyperbolic tangent of x. Here x is v2." in page.texts("p")


def test_the_letters_of_a_sentence_are_told_apart_from_names():
    def said(z):
        return [s for s in Lesson(z).texts("p") if re.match(r"[\w<>]+: ", s)][-1]

    x, y, a = Value(0.5, "x"), Value(0.25, "y"), Value(0.75, "a")
    assert said(a.tanh()) == "tanh: The hyperbolic tangent of x. Here x is a."
    assert said(x.tanh()) == "tanh: The hyperbolic tangent of x."
    assert said(bce(y, x)).endswith("the binary cross entropy. Here x is y and y is x.")
    assert said(bce(a, 1)).endswith(" Here x is a and y is 1.")
    assert said(a.clamp(0, 1)) == "clamp: x, but at least the second input and at most the third. Here x is a."
    assert said(where(True, x, y)) == "where: The second input where the condition (1 or 0) holds, else the third."
    assert said(max([a, x])) == "max: The largest x; equals share the derivative. Here x is each input."
    assert said(dot([y], [x])) == (
        "dot: x₁·y₁ + x₂·y₂ + …, from left to right, of two lists x and y. "
        "Here x is the first list and y is the second."
    )
    compiled = compile(lambda x: x * x, backend="python")
    assert said(compiled.value(a)) == "<lambda>: The compiled function <lambda>."


def test_what_is_used_twice_gets_both_gradients():
    x = Value(3.0, "x")
    z = x * x
    z.name = "z"
    rows = Lesson(z).items[-2]
    assert rows[:3] == ["∂z/∂x through the 1st x = x = 3", "x.grad += 1 · 3", "x.grad: 0 → 3"]
    assert rows[3:] == ["∂z/∂x through the 2nd x = x = 3", "x.grad += 1 · 3", "x.grad: 3 → 6"]


def test_values_are_computed_in_the_order_in_which_they_were_made():
    x = Value(2.0, "x")
    p = x * 2.0
    q = x * 3.0
    assert [item[0] for item in Lesson(p + q).items[1:4]] == ["v1 = x * 2", "v2 = x * 3", "v3 = v1 + v2"]


def test_what_a_gradient_becomes_is_what_is_added():
    x = Value(1.0, "x")
    rows = Lesson(1.000001 * x - x * 1.0).items[-2]
    assert rows == ["∂v1/∂x = 1", "x.grad += 1 · 1.000001", "x.grad: −1 → 1e−06"]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(graphs())
def test_played_to_the_end_it_shows_what_backward_computes(built):
    for i, z in enumerate(built.values):
        z.name = f"n{i}"  # to find it by
    page = Lesson(built.output, precision=12)
    built.output.backward()
    assert sorted(page.names()) == sorted(f"n{i}" for i in built.reached())
    final = page.played()
    for number, name in enumerate(page.names()):
        z = built.values[int(name[1:])]
        assert final[number, "data"] == f"data {shown(z.data, 12)}"
        assert final.get((number, "grad")) == (f"grad {shown(z.grad, 12)}" if z.requires_grad else None)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(graphs())
def test_each_edge_is_looked_at_once_forward_and_once_backward_in_an_order_that_holds(built):
    for i, z in enumerate(built.values):
        z.name = f"n{i}"
    page = Lesson(built.output)
    numbers = [int(name[1:]) for name in page.names()]
    svg = ET.fromstring(re.search(r"<svg.*</svg>", page.source, re.DOTALL)[0])
    titles = {
        g.get("id"): g[0].text.splitlines()[0].split(" → ")
        for g in svg.iter("{http://www.w3.org/2000/svg}g")
        if "edge" in g.get("class", "")
    }
    for phase in ("Forward", "Backward"):
        steps = [step for step in page.steps if step["phase"] == phase and step["edges"]]
        turn = {numbers[step["node"]]: k for k, step in enumerate(steps)}
        looked_at = []
        for step in steps:
            for e in step["edges"]:
                source, target = (int(name[1:]) for name in titles[f"e{e}"])
                assert target == numbers[step["node"]]
                looked_at.append((source, target))
        assert sorted(looked_at) == sorted((s, t) for s, t, _ in built.edges if t in built.reached())
        for source, target in looked_at:
            if source in turn:
                assert (turn[source] < turn[target]) == (phase == "Forward")


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(graphs())
def test_every_contribution_is_the_gradient_times_the_local_derivative(built):
    for i, z in enumerate(built.values):
        z.name = f"n{i}"
    page = Lesson(built.output, precision=17)
    found = []
    for step, codes in zip(page.steps, page.items):
        if step["phase"] != "Backward" or not step["edges"]:
            continue
        for derivative, product, sum in zip(codes[::3], codes[1::3], codes[2::3]):
            target, source = re.match(
                r"∂n(\d+)/∂n(\d+)(?: through the \d+(?:st|nd|rd|th) n\2)? = ", derivative
            ).groups()
            numbers = f"{product.split('+= ')[1]} {sum.split(': ')[1]}".replace("−", "-").replace("→", "·").split()
            g, d, before, after = (float(x) for x in numbers if x != "·")
            assert float(derivative.rsplit(" ", 1)[1].replace("−", "-")) == d
            assert before + g * d == pytest.approx(after, rel=1e-12, abs=1e-300)
            found.append((int(source), int(target), d))
    expected = [e for e in built.edges if e[1] in built.reached() and built.values[e[0]].requires_grad]
    assert [e[:2] for e in sorted(found)] == [e[:2] for e in sorted(expected)]
    assert [e[2] for e in sorted(found)] == pytest.approx([e[2] for e in sorted(expected)], rel=1e-12)


def test_nothing_is_known_before_its_step():
    page = Lesson(neuron())
    number = {name: i for i, name in enumerate(page.names())}
    start, middle = page.played(1), page.played(3)
    assert start[number["x"], "data"] == "data 0.5" and start[number["v1"], "data"] == page.data["unknown"]
    assert middle[number["v2"], "data"] == "data −0.3" and middle[number["y"], "data"] == page.data["unknown"]
    assert {text for (_, what), text in page.played(4).items() if what == "grad"} == {"grad 0"}


def test_no_gradient_is_read_or_changed():
    y = neuron()
    y.backward()
    y.backward()
    before = y.grad, y.inputs[0].grad
    page = Lesson(y)
    assert (y.grad, y.inputs[0].grad) == before
    assert page.source == Lesson(neuron()).source  # though one has gradients, and the other none


def test_the_digits_that_are_asked_for_reach_the_constants():
    page = Lesson(Value(3.0, "x") * (2 / 3), precision=12)
    assert page.items[1] == ["v1 = x * 0.666666666667", "= 3 * 0.666666666667", "= 2"]
    assert page.nodes[-1]["told"][1] == "x * 0.666666666667"


def test_constants_get_no_gradient():
    c = Value(3.0, "c", requires_grad=False)
    z = dot([Value(2.0, "x"), 1.0], [c, 4.0])
    page = Lesson(z)
    assert page.items[-2] == ["∂v1/∂x = c = 3", "x.grad += 1 · 3", "x.grad: 0 → 3"]
    assert (page.names().index("c"), "grad") not in page.played()
    assert page.nodes[page.names().index("c")]["kind"] == "constant"


def test_a_leaf_alone_has_its_own_gradient():
    page = Lesson(Value(2.0, "x"))
    assert page.items == [["x = 2"], ["∂x/∂x = 1", "x.grad += 1"], ["∂x/∂x = 1"]]


def test_names_of_a_model_and_the_users_line_are_told():
    model = Sequential(Linear(2, 1), Tanh())
    with record_lines():
        z = model([1.0, 2.0])[0]
    page = Lesson(z, model=model)
    assert "0.weight[0][1]" in page.names()
    assert any("z = model([1.0, 2.0])[0]" in text for text in page.texts("p"))
    assert any("z = model([1.0, 2.0])[0]" in line for line in page.nodes[-1]["told"])


@pytest.mark.parametrize("name", NASTY)
def test_names_are_text(name):
    def of(name):
        x = Value(2.0, name)
        z = x * 3.0 + x
        z.name = name
        return Lesson(z)

    page, plain = of(name), of("plain")
    assert [tag for tag, *_ in page.elements] == [tag for tag, *_ in plain.elements]
    assert "<" not in re.search(r'<script type="application/json" id="lesson">(.*?)</script>', page.source)[1]
    told = page.names()[0]
    assert len(told) <= 300 and (
        told[:20].split() == name[:20].split() or "�" in told or (told == "v1" and not name.strip())
    )


@pytest.mark.parametrize("c", UNSEEN, ids=ascii)
def test_a_name_turns_nothing_around_and_hides_nothing(c):
    hidden, plain = (Lesson(Value(2.0, f"pay{sign}load") * Value(3.0, f"{sign}w")) for sign in (c, "\ufffd"))
    assert hidden.source == plain.source
    assert plain.nodes[-1]["told"][1] == "pay\ufffdload * \ufffdw"
    assert Lesson(Value(2.0, WHOLE)).names() == [WHOLE_SHOWN]


def test_names_from_right_to_left_turn_nothing_around():
    x, z = "\u200eאלף\u200e", "\u200eבית\u200e"
    page = Lesson(named(Value(7.0, "אלף") - 2.0, "בית"))
    assert page.texts("title")[0] == f"How {z} = 5 and its gradients are computed"
    assert page.items[1] == [f"{z} = {x} - 2", "= 7 - 2", "= 5"]
    assert page.items[3] == [f"∂{z}/∂{x} = 1", f"{x}.grad += 1 · 1", f"{x}.grad: 0 → 1"]
    assert page.nodes[1]["told"][:2] == [z, f"{x} - 2"]


def test_the_page_asks_for_nothing_and_runs_its_own_script_alone():
    page = Lesson(neuron())
    for tag, attributes, _ in page.elements:
        for key in ("src", "href", "action", "srcset", "data", "poster"):
            assert attributes.get(key, "data:").startswith(("data:", "#")), (tag, key)
        assert not any(key.startswith("on") or key == "style" for key in attributes)
    [policy] = [a["content"] for _, a, _ in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    [script] = [text for tag, a, text in page.elements if tag == "script" and "type" not in a]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.split("; ")[0] == "default-src 'none'" and f"script-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy.split("script-src")[1]


def test_what_can_be_operated_has_a_name_and_ids_are_unique():
    page = Lesson(neuron())
    ids = [a["id"] for _, a, _ in page.elements if "id" in a]
    assert len(ids) == len({*ids})
    for tag, attributes, text in page.elements:
        if tag in ("button", "input", "summary"):
            assert text.strip() or attributes.get("aria-label")


@pytest.mark.parametrize("direction", ["LR", "TB"])
def test_step_through_writes_the_page(tmp_path, direction):
    assert step_through(neuron(), tmp_path / "lesson.html", direction=direction, precision=3) is None
    source = (tmp_path / "lesson.html").read_text(encoding="utf-8")
    assert "= −0.291" in source and "−0.2913" not in source
    [x, y] = [re.search(rf'id="n{i}" transform="translate\((\S+) (\S+)\)"', source).groups() for i in (0, 5)]
    along = 0 if direction == "LR" else 1
    assert float(x[along]) < float(y[along])
    assert [*tmp_path.iterdir()] == [tmp_path / "lesson.html"]


def test_boxes_have_room_for_what_they_hold_at_any_step():
    x = Value(2.0, "x")
    page = Lesson(x * 1.234567e-200 - x * 1.234567e-200)
    [*_, middle, end] = [text for step in page.steps for i, what, text in step["changes"] if (i, what) == (0, "grad")]
    assert middle.endswith("1.235e−200") and end == "grad 0"
    svg = ET.fromstring(re.search(r"<svg.*</svg>", page.source, re.DOTALL)[0])
    for node, what in page.played():
        [g] = [g for g in svg.iter("{http://www.w3.org/2000/svg}g") if g.get("id") == f"n{node}"]
        width = min(float(r.get("width")) for r in g.iter("{http://www.w3.org/2000/svg}rect"))
        for step in page.steps:
            for i, kind, text in step["changes"]:
                if (i, kind) == (node, what):
                    assert len(text) * 7.5 < width


def test_formulas_that_do_not_hold_any_more_are_not_taught(tmp_path):
    w, x = Value(2.0, "w"), Value(3.0, "x")
    loss = (w * x - 1.0) ** 2
    loss.backward()
    SGD([w], lr=0.1).step()
    with pytest.raises(
        ValueError, match=r"v1 = w \* x is still 6: .* Compute value anew, .* before optimizer\.step\(\)"
    ):
        step_through(loss, tmp_path / "lesson.html")
    assert [*tmp_path.iterdir()] == []
    step_through((w * x - 1.0) ** 2, tmp_path / "lesson.html")


def test_nan_and_compiled_code_can_be_stepped_through():
    square = compile(lambda x: x * x, backend="python")
    assert Lesson(square.value(Value(3.0, "x")) * Value(math.nan, "y")).items[2][-1] == "= nan"


NO_DERIVATIVE = Value(0.0, "x").sqrt()  # options are checked before it is found out


@pytest.mark.parametrize(
    ("value", "options", "error", "message"),
    [
        (3.0, {}, TypeError, "value: expected a Value, got float 3.0"),
        (Value(1.0, requires_grad=False), {}, RuntimeError, "no gradient of"),
        (neuron(), {"max_nodes": 5}, ValueError, "at most max_nodes = 5 Values to step through, got 6"),
        (neuron(), {"max_nodes": 0}, ValueError, "max_nodes: expected a whole number"),
        (neuron(), {"precision": 0}, ValueError, "precision: expected a whole number"),
        (neuron(), {"direction": "up"}, ValueError, "direction: expected one of LR, TB, RL, BT"),
        (neuron(), {"model": 1}, TypeError, "model: expected a Module"),
        (neuron(), {"path": "lesson.htm"}, ValueError, r"path: expected a name that ends in \.html, got"),
        (NO_DERIVATIVE, {}, ZeroDivisionError, r"sqrt of x = 0\.0: no finite derivative"),
        (NO_DERIVATIVE, {"precision": 1.5}, ValueError, "precision: expected a whole number >= 1, got 1.5"),
        (NO_DERIVATIVE, {"precision": None}, ValueError, "precision: expected a whole number >= 1, got None"),
        (NO_DERIVATIVE, {"precision": True}, ValueError, "precision: expected a whole number >= 1, got True"),
        (NO_DERIVATIVE, {"direction": None}, ValueError, "direction: expected one of LR, TB, RL, BT, got None"),
        (NO_DERIVATIVE, {"model": 1}, TypeError, "model: expected a Module, got int 1"),
    ],
)
def test_bad_input_is_explained_and_nothing_written(tmp_path, monkeypatch, value, options, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        step_through(value, **{"path": "lesson.html", **options})
    assert [*tmp_path.iterdir()] == []


def test_the_limit_is_only_a_default():
    z = Value(0.5, "x")
    for _ in range(400):
        z = z * 0.99
    with pytest.raises(ValueError, match="got 401"):
        Lesson(z)
    page = Lesson(z, max_nodes=None)
    assert len(page.steps) == 1 + 400 + 1 + 400 + 1 and len(page.nodes) == 401
    assert page.played()[0, "data"] == "data 0.5"
