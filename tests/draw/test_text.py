import re
from collections import Counter

import pytest
from hypothesis import given, settings

from milligrad import Linear, ReLU, Sequential, Value
from milligrad.draw.model import picture_of_module, picture_of_value
from milligrad.draw.text import DEPTH, text
from tests.draw.graphs import NASTY, graphs, named, small


def parsed(tree):
    """The tree read back: (name, name of the node it hangs on, what else the line says), a tuple for each line."""
    rows, path = [], []
    for line in tree.split("\n\nnote:")[0].splitlines():
        if not line:
            continue
        branches, rest = re.fullmatch(r"((?:│  |   )*(?:[├└]─ )?)(.*)", line).groups()
        depth = len(branches) // 3
        label, *columns = re.split(r" {3,}", rest)
        name = re.match(r"(?:[↑↓] )?(.*?)(?:, above|, below| = .*| \(constant\)| ◄|$)", label)[1]
        path[depth:] = [name]
        rows.append((name, path[-2] if depth else None, label, columns))
    return rows


def test_the_small_example():
    assert (
        text(picture_of_value(small()))
        == """\
y = v3 * x              data 0.9242   grad 1
├─ v3 = tanh(v2)        data 0.4621   grad 2         ∂y/∂v3 = 2
│  └─ v2 = v1 + b       data 0.5      grad 1.573     ∂v3/∂v2 = 0.7864
│     ├─ v1 = x * w     data −1       grad 1.573     ∂v2/∂v1 = 1
│     │  ├─ x           data 2        grad −0.3243   ∂v1/∂x = −0.5
│     │  └─ w           data −0.5     grad 3.146     ∂v1/∂w = 2
│     └─ b (constant)   data 1.5                     ∂v2/∂b = 1
└─ ↑ x, above                                        ∂y/∂x = 0.4621"""
    )


@settings(max_examples=50)
@given(graphs(most=40))
def test_read_back_it_has_every_node_once_and_every_edge(built):
    for i, value in enumerate(built.values):
        value.name = f"value-{i}"
    picture = picture_of_value(built.output, max_nodes=None)
    rows = parsed(text(picture))
    in_full = Counter(name for name, _, label, _ in rows if label[0] not in "↑↓")
    assert in_full == Counter(node.name for node in picture.nodes)
    edges = Counter((name, parent) for name, parent, *_ in rows if parent)
    reached = built.reached()
    assert edges == Counter((f"value-{i}", f"value-{j}") for i, j, _ in built.edges if j in reached)


@given(graphs(most=40))
def test_references_point_to_where_the_node_stands(built):
    rows = parsed(text(picture_of_value(built.output, max_nodes=None)))
    line = {name: i for i, (name, _, label, _) in enumerate(rows) if label[0] not in "↑↓"}
    for i, (name, _, label, _) in enumerate(rows):
        if label[0] == "↑":
            assert line[name] < i
        if label[0] == "↓":
            assert line[name] > i


def test_a_deep_chain_does_not_run_to_the_right():
    w = z = Value(1.0, "w")
    for _ in range(3_000):
        z = z * w
    lines = text(picture_of_value(z, max_nodes=None)).splitlines()
    assert max(len(re.match("[│├└─ ]*", line)[0]) for line in lines) == 3 * (DEPTH + 1)
    assert len([line for line in lines if not line]) == 3_000 // (DEPTH + 1)
    assert max(map(len, lines)) < 120
    rows = parsed("\n".join(lines))
    assert Counter((name, parent) for name, parent, *_ in rows if parent)["w", "v1"] == 2
    assert len([label for *_, label, _ in rows if label[0] not in "↑↓"]) == 3_001


def test_a_folded_network_tells_of_groups():
    model = Sequential(Linear(20, 10), ReLU(), Linear(10, 1))
    [z] = model([0.5] * 20)
    tree = text(picture_of_value(z, model=model, max_nodes=20))
    rows = {name: (parent, columns) for name, parent, _, columns in parsed(tree)}
    assert rows["0.weight, 200 × leaf"][0] == "10 × dot"
    about = rows["0.weight, 200 × leaf"][1]
    assert re.fullmatch(r"data −0\.\d+ … 0\.\d+", about[0])
    assert about[1:] == ["grad is 0", "× 200"]
    assert tree.endswith(
        "\n\n253 Values, folded by layer: those of one level and operation are one node. max_nodes=None shows each."
    )


def test_what_is_cut_off_stands_in_its_place():
    z = Value(1.0)
    for _ in range(10):
        z = z * 0.5
    tree = text(picture_of_value(z, max_nodes=3))
    assert tree.splitlines()[:3] == [
        "v11 = v10 * 0.5              data 0.0009766   grad 0",
        "└─ v10 = v9 * 0.5            data 0.001953    grad 0   ∂v11/∂v10 = 0.5",
        "   └─ 9 more Values behind                             ∂v10/∂… = 0.5",
    ]


def test_highlighted_nodes_are_marked():
    y = small()
    lines = text(picture_of_value(y, highlight=[y, y.inputs[1]])).splitlines()
    assert [line.split()[0] for line in lines if "◄" in line] == ["y", "│"]


def test_modules_have_their_children_below():
    model = Sequential(Linear(2, 3), Sequential(ReLU(), Linear(3, 1)), ReLU())
    assert (
        text(picture_of_module(model))
        == """\
model: Sequential()                                           13 parameters
├─ 0: Linear(in_features=2, out_features=3, bias=True)        9 parameters
├─ 1: Sequential()                                            4 parameters
│  ├─ 1.0: ReLU()
│  └─ 1.1: Linear(in_features=3, out_features=1, bias=True)   4 parameters
└─ 2: ReLU()"""
    )


def test_precision_is_that_of_all_numbers():
    tree = text(picture_of_value(Value(2.0, "x") / 3.0), precision=2)
    assert [line.split()[-1] for line in tree.splitlines()] == ["0", "0.33"]
    assert "data 0.67 " in tree


@pytest.mark.parametrize("name", NASTY)
def test_names_stay_on_their_line_and_move_no_cursor(name):
    picture = named(name)
    tree = text(picture)
    body, _, _note = tree.partition("\n\nnote:")
    lines = body.splitlines()
    assert len(lines) == 6
    assert max(map(len, lines)) < 400
    assert not any(c < " " or "\x7f" <= c < "\xa0" or "\ud800" <= c < "\ue000" for c in body.replace("\n", ""))
    assert "note" in tree


@pytest.mark.parametrize("name", ["🎉🎉", "名前", "e\u0301te\u0301", "x"])
def test_columns_stand_below_one_another_whatever_the_name(name):
    from milligrad.markup import width

    x = Value(2.0, name)
    first, *inputs = text(picture_of_value(x * x + Value(3.0, "other one"))).splitlines()
    assert len({width(line[: line.index("data")]) for line in [first, *inputs] if "↑" not in line}) == 1
    assert "↑" in inputs[2]
    assert len({width(line[: line.index("∂")]) for line in inputs}) == 1
