import builtins
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milligrad import (
    Embedding,
    Linear,
    Module,
    MultiheadAttention,
    Parameter,
    ReLU,
    Sequential,
    Tanh,
    Value,
    compile,
    manual_seed,
    max,
    no_grad,
    sqrt,
    sum,
)
from milligrad.draw.model import picture_of_module, picture_of_value, strength
from milligrad.nn import ModuleDict, ModuleList
from tests.draw.graphs import graphs, small


def indices(picture, built):
    """Which node shows which Value, by their names v1, v2, …, which nothing else has."""
    values = {f"value {i}": i for i in range(len(built.values))}
    return [values.get(node.name) for node in picture.nodes]


def with_names(built):
    for i, value in enumerate(built.values):
        value.name = f"value {i}"
    built.output.backward()
    return built


# Everything.


@given(graphs())
def test_it_has_the_nodes_and_edges_that_the_graph_was_built_of(built):
    picture = picture_of_value(with_names(built).output)
    shown, reached = indices(picture, built), built.reached()
    assert sorted(shown) == sorted(reached)
    found = Counter((shown[e.source], shown[e.target]) for e in picture.edges)
    assert found == Counter((i, j) for i, j, _ in built.edges if j in reached)
    for target in reached:
        derivatives = [e.derivative for e in picture.edges if shown[e.target] == target]
        assert derivatives == pytest.approx([d for _, j, d in built.edges if j == target])
    assert picture.note == ""


@given(graphs())
def test_nodes_show_the_numbers_and_come_after_their_inputs(built):
    picture = picture_of_value(with_names(built).output)
    computed = {j for _, j, _ in built.edges}
    for node, i in zip(picture.nodes, indices(picture, built)):
        value = built.values[i]
        assert node.data == value.data
        if i in computed:
            assert (node.kind, node.grad, node.op) == ("computed", value.grad, value.op.name)
            assert node.formula
        else:
            expected = ("leaf", value.grad) if value.requires_grad else ("constant", None)
            assert (node.kind, node.grad, node.op, node.formula) == (*expected, "", "")
    assert all(edge.source < edge.target for edge in picture.edges)
    assert picture.nodes[-1].name == built.output.name


@given(graphs())
def test_what_comes_back_along_the_edges_adds_up_to_grad(built):
    picture = picture_of_value(with_names(built).output)
    for i, node in enumerate(picture.nodes[:-1]):
        gradients = [edge.gradient for edge in picture.edges if edge.source == i]
        if node.kind == "constant":
            assert gradients == [None] * len(gradients)
        else:
            assert math.fsum(gradients) == pytest.approx(node.grad)
    sizes = [abs(x.grad) for x in picture.nodes if x.grad is not None]
    sizes += [abs(x.gradient) for x in picture.edges if x.gradient is not None]
    assert picture.largest == builtins.max(sizes)


def test_the_small_example_is_as_drawn_by_hand():
    picture = picture_of_value(small())
    assert [(n.name, n.kind, n.formula) for n in picture.nodes] == [
        ("x", "leaf", ""),
        ("w", "leaf", ""),
        ("b", "constant", ""),
        ("v1", "computed", "x * w"),
        ("v2", "computed", "v1 + b"),
        ("v3", "computed", "tanh(v2)"),
        ("y", "computed", "v3 * x"),
    ]
    z = math.tanh(0.5)
    expected = [(0, 3, -0.5), (1, 3, 2.0), (3, 4, 1.0), (2, 4, 1.0), (4, 5, 1 - z * z), (5, 6, 2.0), (0, 6, z)]
    assert [(e.source, e.target) for e in picture.edges] == [(i, j) for i, j, _ in expected]
    assert [e.derivative for e in picture.edges] == pytest.approx([d for _, _, d in expected])
    assert picture.title == "y = 0.9242, computed by a graph of 7 Values"


def test_plain_numbers_are_in_the_formula_and_no_nodes():
    picture = picture_of_value(2.0 * Value(3.0, "x") ** 2.0)
    assert [node.name for node in picture.nodes] == ["x", "v1", "v2"]
    assert [(e.source, e.target, e.derivative) for e in picture.edges] == [(0, 1, 6.0), (1, 2, 2.0)]


def test_a_leaf_is_a_graph_of_one():
    picture = picture_of_value(Value(2.0, "x"))
    assert [(n.name, n.kind, n.data, n.grad) for n in picture.nodes] == [("x", "leaf", 2.0, 0.0)]
    assert picture.edges == []
    assert picture.title == "x = 2, computed by a graph of 1 Value"


def test_a_constant_ends_the_graph_whatever_it_was_computed_of():
    x = Value(2.0, "x")
    z = x * x
    z.requires_grad = False
    picture = picture_of_value(z + x)
    assert [(n.name, n.kind) for n in picture.nodes] == [("x", "leaf"), ("v1", "constant"), ("v2", "computed")]
    with no_grad():
        picture = picture_of_value(x * 3)
    assert [(n.kind, n.data) for n in picture.nodes] == [("constant", 6.0)]


def test_a_derivative_that_does_not_exist_is_left_out():
    z = sqrt(Value(0.0)) + 1.0
    [first, second] = picture_of_value(z).edges
    assert (first.derivative, first.gradient) == (None, None)
    assert (second.derivative, second.gradient) == (1.0, 0.0)


def test_numbers_that_are_not_finite_do_not_set_the_scale():
    x = Value(3.0)
    z = x * 2.0
    x.grad, z.grad = math.inf, math.nan
    picture = picture_of_value(z)
    assert picture.largest == 0.0
    assert math.isnan(picture.edges[0].gradient)


def test_formulas_that_do_not_hold_any_more_are_counted():
    x, y = Value(1.0, "x"), Value(math.nan, "y")
    z = sum([x.log(), x * 2.0, compile(lambda x: x * x, backend="python").value(x), y * x])
    assert picture_of_value(z).note == ""
    z.inputs[1].data = 5.0
    assert picture_of_value(z).note == (
        "1 of 7 Values is not what its formula says: numbers changed after the graph was computed."
    )
    x.data = -1.0  # of which there is no log
    assert "2 of 7 Values are not what their formulas say" in picture_of_value(z).note
    note = picture_of_value(z, max_nodes=5).note
    assert note.startswith("7 Values, ") and "max_nodes=None shows each. 2 of 7 Values are not" in note


def test_a_recorded_line_is_shown():
    from milligrad.engine import record_lines

    x = Value(1.0)
    with record_lines():
        z = x * 3.0  # this line
    leaf, node = picture_of_value(z).nodes
    assert leaf.place == ""
    assert node.place.startswith("test_model.py:")
    assert node.place.endswith(": z = x * 3.0  # this line")


def test_names_are_the_models():
    model = Sequential(Linear(2, 1))
    picture = picture_of_value(model([1.0, 2.0])[0], model=model)
    assert [n.name for n in picture.nodes if n.kind == "leaf"] == ["0.weight[0][0]", "0.weight[0][1]", "0.bias[0]"]


def test_strength_is_a_share_of_six_decades():
    assert strength(5.0, 5.0) == strength(-5.0, 5.0) == strength(-math.inf, 5.0) == 1.0
    assert strength(5e-3, 5.0) == pytest.approx(0.5)
    assert strength(5e-7, 5.0) == strength(0.0, 5.0) == strength(None, 5.0) == strength(math.nan, 5.0) == 0.0
    assert strength(1.0, 0.0) == 0.0
    assert strength(5e-324, 1e308) == 0.0
    assert strength(1e308, 5e-324) == 1.0


# Folded.


def network(n=8, hidden=6, classes=3):
    manual_seed(0)  # from some starts all relus are off
    model = Sequential(Linear(n, hidden), ReLU(), Linear(hidden, classes))
    loss = sum([z * z for z in model([Value(0.1 * i, requires_grad=False) for i in range(n)])])
    loss.backward()
    return model, loss


def test_a_network_is_folded_to_its_layers():
    model, loss = network()
    picture = picture_of_value(loss, model=model, max_nodes=50)
    nodes = {node.name: i for i, node in enumerate(picture.nodes)}
    assert list(nodes) == [
        "0.weight, 48 × leaf",
        "0.bias, 6 × leaf",
        "2.weight, 18 × leaf",
        "2.bias, 3 × leaf",
        "8 × constant",
        "6 × dot",
        "6 × add",
        "6 × relu",
        "3 × dot",
        "3 × add",
        "3 × mul",
        "v36",
    ]
    assert {(e.source, e.target, e.label) for e in picture.edges} == {
        (nodes[source], nodes[target], f"× {n}")
        for source, target, n in [
            ("0.weight, 48 × leaf", "6 × dot", 48),
            ("8 × constant", "6 × dot", 48),
            ("6 × dot", "6 × add", 6),
            ("0.bias, 6 × leaf", "6 × add", 6),
            ("6 × add", "6 × relu", 6),
            ("6 × relu", "3 × dot", 18),
            ("2.weight, 18 × leaf", "3 × dot", 18),
            ("3 × dot", "3 × add", 3),
            ("2.bias, 3 × leaf", "3 × add", 3),
            ("3 × add", "3 × mul", 6),
            ("3 × mul", "v36", 3),
        ]
    }
    assert "folded by layer" in picture.note
    assert "111 Values" in picture.note
    assert "max_nodes=None" in picture.note


def test_a_group_tells_the_range_of_what_is_in_it():
    model, loss = network()
    values = model[2].weight.values()
    values[0].grad = 0.0
    values[1].data = -1234.5678
    values[2].data = values[3].grad = math.nan
    picture = picture_of_value(loss, model=model, max_nodes=50, precision=3)
    [group] = [node for node in picture.nodes if node.name.startswith("2.weight")]
    data = sorted(x.data for x in values if x.data == x.data)
    grads = [abs(x.grad) for x in values if x.grad == x.grad]
    assert group.about == (
        f"data −1.23e+03 … {data[-1]:.3g}",
        "data is NaN in 1 of 18",
        f"|grad| up to {sorted(grads)[-1]:.3g}",
        f"grad is 0 in {grads.count(0.0)} of 18",
        "grad is NaN in 1 of 18",
    )
    assert (group.kind, group.count, group.data, group.grad) == ("group", 18, None, None)
    [inputs] = [node for node in picture.nodes if node.name == "8 × constant"]
    assert inputs.about == ("data 0 … 0.7",)


def test_a_group_without_gradients_says_so_once():
    model = Sequential(Linear(8, 6), ReLU())
    picture = picture_of_value(sum(model([0.5] * 8)), model=model, max_nodes=20)
    assert {node.about[1:] for node in picture.nodes if node.kind == "group"} == {("grad is 0",)}


def test_a_folded_edge_has_the_largest_gradient():
    model, loss = network()
    whole = picture_of_value(loss, model=model)
    picture = picture_of_value(loss, model=model, max_nodes=50)
    [weight] = [i for i, node in enumerate(picture.nodes) if node.name.startswith("0.weight")]
    [edge] = [edge for edge in picture.edges if edge.source == weight]
    gradients = [e.gradient for e in whole.edges if whole.nodes[e.source].name.startswith("0.weight")]
    assert edge.gradient == builtins.max(map(abs, gradients)) > 0
    assert edge.derivative is None


@pytest.mark.parametrize(
    ("gradients", "largest", "mixed"),
    [
        ([2.0, 6.0, 4.0], 6.0, False),
        ([-2.0, -6.0, -4.0], -6.0, False),
        ([-2.0, 0.0], -2.0, False),
        ([2.0, -6.0, 0.0], 6.0, True),
        ([0.0, 0.0], 0.0, False),
    ],
)
def test_a_folded_edge_has_a_sign_if_all_of_its_gradients_agree(gradients, largest, mixed):
    xs = [Value(1.0) for _ in range(90)]
    terms = [x * gradients[i % len(gradients)] for i, x in enumerate(xs)]
    z = sum(terms)
    z.backward()
    from_leaves, from_terms = picture_of_value(z, max_nodes=20).edges
    assert (from_leaves.gradient, from_leaves.mixed, from_leaves.label) == (largest, mixed, "× 90")
    assert (from_terms.gradient, from_terms.mixed) == (1.0, False)


def test_a_nan_among_folded_gradients_is_not_lost():
    model, loss = network()
    loss.inputs[1].grad = math.nan  # of one of 3 × mul
    picture = picture_of_value(loss, model=model, max_nodes=50)
    nans = {picture.nodes[e.target].name for e in picture.edges if math.isnan(e.gradient or 0.0)}
    assert nans == {"3 × mul"}
    assert all(math.isfinite(e.gradient or 0.0) for e in picture.edges if picture.nodes[e.target].name != "3 × mul")


def all_values(z):
    found, waiting = {}, [z]
    while waiting:
        z = waiting.pop()
        if z not in found:
            found[z] = None
            waiting += [x for x in z.inputs if isinstance(x, Value)]
    return list(found)


@given(graphs(), st.integers(2, 8))
def test_folded_or_cut_nothing_is_lost_and_inputs_come_first(built, most):
    output = with_names(built).output
    whole, picture = picture_of_value(output), picture_of_value(output, max_nodes=most)
    assert len(picture.nodes) <= most
    assert builtins.sum(node.count for node in picture.nodes) == len(whole.nodes)
    assert all(edge.source < edge.target for edge in picture.edges)
    assert bool(picture.note) == (len(whole.nodes) > most)
    assert picture.nodes[-1].name == output.name
    single = {node.name: node for node in whole.nodes}
    for node in picture.nodes:
        if node.count == 1:
            assert node == single[node.name]


def as_users_write_it(n, width):
    """A layer of neurons with the sums written out, x₁·w₁ + x₂·w₂ + … + b, as micrograd has them."""
    xs = [Value(0.1, requires_grad=False) for _ in range(n)]
    neurons = [([Value(0.2) for _ in range(n)], Value(0.3)) for _ in range(width)]
    return [builtins.sum((w * x for w, x in zip(ws, xs)), b).tanh() for ws, b in neurons]


def test_sums_that_were_written_out_are_one_node():
    picture = picture_of_value(max(as_users_write_it(50, 4)), max_nodes=20)
    names = ["200 × leaf", "50 × constant", "4 × leaf", "200 × mul", "200 × add", "4 × tanh", "v458"]
    assert sorted(node.name for node in picture.nodes)[:-1] == sorted(names)[:-1]
    assert {(picture.nodes[e.source].name, picture.nodes[e.target].name, e.label) for e in picture.edges} >= {
        ("200 × mul", "200 × add", "× 200"),
        ("200 × add", "4 × tanh", "× 4"),
    }


def test_inputs_of_one_layer_that_are_used_differently_are_two_groups():
    xs, ws = [[Value(0.5) for _ in range(9)] for _ in range(2)]
    picture = picture_of_value(sum([x * w for x, w in zip(xs, ws)]), max_nodes=10)
    assert sorted(node.name for node in picture.nodes)[:3] == ["9 × leaf", "9 × leaf", "9 × mul"]


# Shown to a depth.


def chain(n):
    z = Value(1.0, "x")
    for _ in range(n):
        z = z * 0.5 + 1.0
    return z


def test_a_deep_chain_is_shown_to_a_depth():
    picture = picture_of_value(chain(10_000), max_nodes=100)
    assert len(picture.nodes) == 100
    cut = picture.nodes[0]
    assert (cut.kind, cut.name, cut.count) == ("cut", "19,902 more Values behind", 19_902)
    assert [(e.source, e.target) for e in picture.edges] == [(i, i + 1) for i in range(99)]
    assert "20,001 Values" in picture.note
    assert "99 nearest to the output" in picture.note


def test_what_is_shown_of_a_cut_graph_keeps_each_edge():
    z = Value(1.0)
    for _ in range(10):
        z = z * z
    picture = picture_of_value(z, max_nodes=3)
    assert [(e.source, e.target, e.derivative, e.label) for e in picture.edges] == [
        (0, 1, None, "× 2"),
        (1, 2, 1.0, ""),
        (1, 2, 1.0, ""),
    ]


def test_all_of_a_deep_chain_is_shown_if_asked_for():
    picture = picture_of_value(chain(10_000), max_nodes=None)
    assert len(picture.nodes) == 20_001
    assert picture.note == ""


@given(graphs(), st.integers(2, 8))
def test_what_is_cut_off_is_further_from_the_output(built, most):
    picture = picture_of_value(with_names(built).output, max_nodes=most)
    if picture.nodes[0].kind == "cut":
        distances = built.distances()
        shown = indices(picture, built)[1:]
        hidden = set(distances) - set(shown)
        assert builtins.max(distances[i] for i in shown) <= min(distances[i] for i in hidden)
        from_cut = Counter({e.target: int(e.label[2:] or 1) if e.label else 1 for e in picture.edges if e.source == 0})
        assert from_cut == Counter(1 + shown.index(j) for i, j, _ in built.edges if j in shown and i in hidden)


# Highlighted.


@given(graphs(), st.data())
def test_highlight_marks_what_lies_between_a_value_and_the_output(built, data):
    i = data.draw(st.sampled_from(sorted(built.reached())))
    picture = picture_of_value(with_names(built).output, highlight=built.values[i])
    shown, after = indices(picture, built), {i}
    for source, target, _ in sorted(built.edges, key=lambda edge: edge[1]):
        if source in after:
            after.add(target)
    assert {j for j, node in zip(shown, picture.nodes) if node.highlighted} == after & built.reached()
    for edge in picture.edges:
        assert edge.highlighted == (shown[edge.source] in after)


@pytest.mark.parametrize("direction", [1, -1])
def test_highlight_marks_a_path(direction):
    y = small()
    path = [y.inputs[1], y.inputs[0].inputs[0].inputs[0], y.inputs[0].inputs[0]]  # x → v1 → v2
    picture = picture_of_value(y, highlight=path[::direction])
    assert [n.name for n in picture.nodes if n.highlighted] == ["x", "v1", "v2"]
    assert [(e.source, e.target) for e in picture.edges if e.highlighted] == [(0, 3), (3, 4)]


def test_highlight_stays_visible_when_folded_or_cut():
    model, loss = network()
    picture = picture_of_value(loss, model=model, max_nodes=50, highlight=model[0].weight[0][0])
    names = [node.name.split()[0] + node.op for node in picture.nodes if node.highlighted]
    assert names == ["0.weight,", "6dot", "6add", "6relu", "3dot", "3add", "3mul", "v36sum"]
    assert len([e for e in picture.edges if e.highlighted]) == 7
    deep = chain(100)
    x = next(z for z in all_values(deep) if z.name == "x")
    picture = picture_of_value(deep, max_nodes=10, highlight=x)
    assert all(item.highlighted for item in [*picture.nodes, *picture.edges])


# Modules.


def edges_by_name(picture):
    name = [node.name for node in picture.nodes]
    return [(name[e.source], name[e.target], e.contains) for e in picture.edges]


def test_the_children_of_a_sequential_follow_one_another():
    picture = picture_of_module(Sequential(Linear(2, 8), Tanh(), Linear(8, 1)))
    assert [(n.name, n.kind, n.op, n.formula, n.about) for n in picture.nodes] == [
        ("model", "module", "Sequential", "", ("33 parameters",)),
        ("0", "module", "Linear", "in_features=2, out_features=8, bias=True", ("24 parameters",)),
        ("1", "module", "Tanh", "", ()),
        ("2", "module", "Linear", "in_features=8, out_features=1, bias=True", ("9 parameters",)),
    ]
    assert edges_by_name(picture) == [("model", "0", True), ("0", "1", False), ("1", "2", False)]
    assert picture.title == "Sequential: 33 parameters"
    assert picture.note == ""


class Branches(Module):
    def __init__(self):
        super().__init__()
        self.embedding = Embedding(5, 3)
        self.blocks = ModuleList([Sequential(Linear(3, 3), ReLU()), ModuleDict({"a": Tanh()})])
        self.head = Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.scale = Parameter([1.0])
        self.absent = None
        self.register_parameter("none", None)
        self.add_module("missing", None)


def test_the_children_of_other_modules_hang_on_them():
    picture = picture_of_module(Branches())
    assert edges_by_name(picture) == [
        ("model", "embedding", True),
        ("model", "blocks", True),
        ("model", "head", True),
        ("blocks", "blocks.0", True),
        ("blocks", "blocks.1", True),
        ("blocks.0", "blocks.0.0", True),
        ("blocks.0.0", "blocks.0.1", False),
        ("blocks.1", "blocks.1.a", True),
    ]


def test_shared_parameters_are_counted_once_and_pointed_out():
    picture = picture_of_module(Branches())
    about = {node.name: node.about for node in picture.nodes}
    assert about["model"] == ("28 parameters",)
    assert about["embedding"] == ("15 parameters",)
    assert about["head"] == ("15 parameters", "weight is embedding.weight")


def test_a_value_in_two_parameters_is_counted_once():
    first, second = Linear(2, 2), Linear(2, 1, bias=False)
    second.weight = Parameter([first.weight[0]])
    assert picture_of_module(Sequential(first, second)).nodes[0].about == ("6 parameters",)


def test_frozen_parameters_are_pointed_out():
    model = Sequential(Linear(2, 3), Linear(3, 1))
    model[0].requires_grad_(False)
    model[1].bias.requires_grad_(False)
    about = {node.name: node.about for node in picture_of_module(model).nodes}
    assert about == {
        "model": ("13 parameters, 10 of them frozen",),
        "0": ("9 parameters, frozen",),
        "1": ("4 parameters, 1 of them frozen",),
    }


def test_a_module_that_is_used_twice_is_shown_in_full_once():
    relu, block = ReLU(), Sequential(Linear(2, 2))
    picture = picture_of_module(Sequential(block, relu, block, relu))
    assert [(n.name, n.about) for n in picture.nodes] == [
        ("model", ("6 parameters",)),
        ("0", ("6 parameters",)),
        ("1", ()),
        ("2", ("the same module as 0",)),
        ("3", ("the same module as 1",)),
        ("0.0", ("6 parameters",)),
    ]


def test_a_forward_of_its_own_hides_what_flows():
    class Twice(Sequential):
        def forward(self, input):
            return self[1](self[0](input))

    assert [contains for *_, contains in edges_by_name(picture_of_module(Twice(ReLU(), Tanh())))] == [True, True]


def test_attention_has_its_projection_below():
    picture = picture_of_module(MultiheadAttention(4, 2))
    assert [(n.op, n.about) for n in picture.nodes] == [
        ("MultiheadAttention", ("80 parameters",)),
        ("Linear", ("20 parameters",)),
    ]


def test_too_many_modules_are_shown_from_the_top():
    model = Sequential(*[Sequential(Linear(1, 1), ReLU()) for _ in range(10)])
    picture = picture_of_module(model, max_nodes=14)
    assert [node.name for node in picture.nodes] == ["model", *map(str, range(10)), "0.0", "0.1", "1.0"]
    assert [node.about for node in picture.nodes[1:4]] == [
        ("2 parameters",),
        ("2 parameters", "1 more module inside"),
        ("2 parameters", "2 more modules inside"),
    ]
    assert picture.note == "Only the 14 modules nearest to the top are shown. max_nodes=None shows each."
    assert len(picture_of_module(model, max_nodes=None).nodes) == 31


# Errors.


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"output": 3.0}, TypeError, "output: expected a Value, got float 3.0"),
        ({"model": 3}, TypeError, "model: expected a Module, got int 3"),
        ({"max_nodes": 1}, ValueError, "max_nodes: expected a whole number >= 2, got 1"),
        ({"max_nodes": 2.5}, ValueError, "max_nodes: expected a whole number >= 2, got 2.5"),
        ({"precision": 0}, ValueError, "precision: expected a whole number >= 1, got 0"),
        ({"highlight": [3.0]}, TypeError, "highlight: expected a Value, got float 3.0"),
        ({"highlight": Value(7.0)}, ValueError, r"highlight: expected Values of the graph of Value\(data=0.9.*got.*7"),
    ],
)
def test_bad_input_is_explained(arguments, error, message):
    with pytest.raises(error, match=message):
        picture_of_value(**{"output": small(), **arguments})


def test_bad_modules_are_explained():
    with pytest.raises(TypeError, match="module: expected a Module, got Value"):
        picture_of_module(Value(1.0))
    with pytest.raises(ValueError, match="max_nodes: expected a whole number >= 1, got 0"):
        picture_of_module(ReLU(), max_nodes=0)
