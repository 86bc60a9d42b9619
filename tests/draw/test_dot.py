import html
import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter

import pytest
from hypothesis import given, settings

from milligrad import Linear, MultiheadAttention, ReLU, Sequential, Value
from milligrad.draw.dot import dot
from milligrad.draw.model import Edge, Node, Picture, notation, picture_of_module, picture_of_value
from milligrad.markup import LIGHT
from tests.draw.graphs import NASTY, graphs, named, small

TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|->|[\w.]+|[{}\[\]=,])', re.DOTALL)


def tokens(source):
    place = 0
    source = source.rstrip()
    while place < len(source):
        match = TOKEN.match(source, place)
        assert match, f"no DOT: {source[place : place + 40]!r}"
        place = match.end()
        yield match[1]


def parsed(source):
    """(defaults, nodes, edges) of DOT as far as we write it: {"graph": attributes}, {id: …}, [(source, target, …)]."""
    stream = list(tokens(source))
    assert stream[:2] == ["digraph", "{"]
    assert stream[-1] == "}"
    defaults, nodes, edges = {}, {}, []
    i = 2
    while i < len(stream) - 1:
        subject = [stream[i]]
        i += 1
        if stream[i] == "->":
            subject.append(stream[i + 1])
            i += 2
        attributes = {}
        assert stream[i] == "["
        while stream[i] != "]":
            name, equals, value = stream[i + 1 : i + 4]
            assert equals == "="
            assert name not in attributes
            attributes[name] = meant(value)
            i += 4
            assert stream[i] in ",]"
        i += 1
        if len(subject) == 2:
            edges.append((*subject, attributes))
        elif subject[0] in ("graph", "node", "edge"):
            defaults[subject[0]] = attributes
        else:
            assert subject[0] not in nodes
            nodes[subject[0]] = attributes
    return defaults, nodes, edges


def meant(value):
    """What a quoted string shows: its escapes, and then its entities, replaced as Graphviz does."""
    if not value.startswith('"'):
        return value
    escapes = {"\\\\": "\\", '\\"': '"', "\\n": "\n", "\\\n": ""}
    return html.unescape(re.sub(r"\\.", lambda match: escapes[match[0]], value[1:-1], flags=re.DOTALL))


needs_graphviz = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")


def graphviz(source, form="svg"):
    done = subprocess.run(["dot", f"-T{form}"], input=source.encode(), capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout.decode()


@settings(max_examples=50)
@given(graphs())
def test_it_has_the_nodes_and_edges_that_the_graph_was_built_of(built):
    for i, value in enumerate(built.values):
        value.name = f"value {i}"
    built.output.backward()
    _, nodes, edges = parsed(dot(picture_of_value(built.output)))
    name = {i: attributes["label"].split("\n")[0] for i, attributes in nodes.items()}
    reached = built.reached()
    assert sorted(name.values()) == sorted(f"value {i}" for i in reached)
    expected = [(f"value {i}", f"value {j}") for i, j, _ in built.edges if j in reached]
    assert Counter((name[i], name[j]) for i, j, _ in edges) == Counter(expected)


def test_boxes_show_name_formula_data_and_grad_and_edges_the_derivative():
    defaults, nodes, edges = parsed(dot(picture_of_value(small()), "TB"))
    assert defaults["graph"]["rankdir"] == "TB"
    assert [attributes["label"] for attributes in nodes.values()] == [
        "x\ndata 2\ngrad −0.3243",
        "w\ndata −0.5\ngrad 3.146",
        "b\ndata 1.5",
        "v1\nx * w\ndata −1\ngrad 1.573",
        "v2\nv1 + b\ndata 0.5\ngrad 1.573",
        "v3\ntanh(v2)\ndata 0.4621\ngrad 2",
        "y\nv3 * x\ndata 0.9242\ngrad 1",
    ]
    assert [(i, j, a["label"]) for i, j, a in edges][:4] == [
        ("n0", "n3", "−0.5"),
        ("n1", "n3", "2"),
        ("n3", "n4", "1"),
        ("n2", "n4", "1"),
    ]


def test_colour_tells_the_sign_and_width_the_size_of_a_gradient():
    gradients = [5.0, -5.0, 5e-3, 0.0, None, math.nan, math.inf, -math.inf]
    picture = Picture([Node("x"), Node("y")], [Edge(0, 1, 1.0, g) for g in gradients], largest=5.0)
    defaults, _, edges = parsed(dot(picture))
    colour = [{**defaults["edge"], **attributes}["color"] for *_, attributes in edges]
    assert len({*colour}) == 4
    blue, _orange, small_blue, none, absent, *red = colour
    assert small_blue == blue
    assert none == absent
    assert red == [red[0]] * 3
    width = [float(attributes.get("penwidth", 1)) for *_, attributes in edges]
    assert width == pytest.approx([4, 4, 2.5, 1, 1, 1, 4, 4])


def test_of_many_edges_in_one_the_sign_is_told_where_they_agree():
    edges = [Edge(0, 1, None, g, "× 9", mixed=mixed) for g, mixed in [(6.0, False), (-6.0, False), (6.0, True)]]
    _, _, found = parsed(dot(Picture([Node("x"), Node("y")], edges, largest=6.0)))
    assert [attributes["tooltip"] for *_, attributes in found] == [
        "gradient up to 6",
        "gradient up to −6",
        "|gradient| up to 6",
    ]
    assert [attributes["color"] for *_, attributes in found] == [LIGHT["blue"], LIGHT["orange"], LIGHT["ink"]]


def test_the_colour_of_a_box_is_that_of_its_grad():
    picture = Picture([Node("x", grad=g) for g in (2.0, -2.0, 0.0, math.nan)], largest=2.0)
    defaults, nodes, _ = parsed(dot(picture))
    assert len({{**defaults["node"], **attributes}["color"] for attributes in nodes.values()}) == 4


def test_what_is_highlighted_stands_out():
    y = small()
    picture = picture_of_value(y, highlight=[y, y.inputs[1]])
    _, nodes, edges = parsed(dot(picture))
    plain_nodes, plain_edges = parsed(dot(picture_of_value(y)))[1:]
    assert [i for i in nodes if nodes[i] != plain_nodes[i]] == ["n0", "n6"]
    assert [(i, j) for (i, j, a), (_, _, b) in zip(edges, plain_edges) if a != b] == [("n0", "n6")]


def test_kinds_differ_and_containing_is_no_arrow():
    _, nodes, edges = parsed(dot(picture_of_module(Sequential(ReLU(), ReLU()))))
    assert [attributes["label"] for attributes in nodes.values()] == ["model\nSequential", "0\nReLU", "1\nReLU"]
    assert [attributes.get("arrowhead") for *_, attributes in edges] == ["none", None]
    kinds = ["leaf", "constant", "computed", "group", "cut"]
    _, nodes, _ = parsed(dot(Picture([Node("x", kind) for kind in kinds])))
    assert len({str(attributes) for attributes in nodes.values()}) == 5


def test_the_note_is_the_label_of_the_graph():
    model = Sequential(Linear(20, 10), ReLU(), Linear(10, 1))
    picture = picture_of_value(model([0.5] * 20)[0], model=model, max_nodes=20)
    defaults, nodes, edges = parsed(dot(picture))
    assert defaults["graph"]["label"].split("\n") == [picture.note, *notation(picture)]
    assert defaults["graph"]["tooltip"] == picture.title
    assert "0.weight, 200 × leaf" in nodes["n0"]["label"]
    assert edges[0][2]["label"] == "× 200"


def seen(s):
    """`s` as it can be shown: without what XML has no place for, and with all kinds of space as one, or of no width."""
    s = s.replace("\u200b", "")
    return " ".join(re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]", "\ufffd", s).split())


@pytest.mark.parametrize("name", NASTY)
def test_names_are_shown_as_they_are(name):
    picture = named(name)
    _, nodes, edges = parsed(dot(picture))
    assert len(nodes) == 5
    assert len(edges) == 5
    first = seen(nodes["n0"]["label"].split("\n")[0])
    parts = first.split("…")
    assert first == seen(name) if len(name) < 40 else len(parts) > 1 and 10 < len(first) <= 40
    assert re.fullmatch(".*".join(map(re.escape, parts)), seen(name), re.DOTALL)
    assert len(nodes["n0"]["label"]) < 100
    assert seen(nodes["n2"].get("tooltip", "")) == seen(f"{name}\n{name}\n{name}")
    dot(picture).encode()  # also a lone surrogate


@needs_graphviz
@pytest.mark.parametrize("name", NASTY)
def test_graphviz_shows_names_as_they_are(name):
    root = ET.fromstring(graphviz(dot(named(name))))
    boxes = sorted(root.findall(".//{*}g[@class='node']"), key=lambda box: box.findtext("{*}title"))
    assert len(boxes) == 5
    assert not root.findall(".//{*}script")
    first = [text.text or "" for text in boxes[0].findall(".//{*}text")]
    if 0 < len(name.strip()) < 40:
        assert seen(first[0]).replace("\xa0", " ") == seen(name)
        assert [seen(text) for text in first[1:]] == ["data 1.5", "grad −2"]
    (third,) = [box for box in boxes if box.findtext("{*}title") == "n2"]
    links = third.findall(".//{*}a")
    tips = [link.get("{http://www.w3.org/1999/xlink}title") for link in links]
    assert [seen(tip) for tip in tips] == ([seen(f"{name}\n{name}\n{name}")] if name else [])


@needs_graphviz
@pytest.mark.parametrize("letter", ["n", "&", "🎉", "\\"])
def test_graphviz_reads_a_name_that_is_longer_than_its_buffer(letter):
    root = ET.fromstring(graphviz(dot(Picture([Node(letter * 20_000)]))))
    [link] = root.findall(".//{*}g[@class='node']//{*}a")
    assert link.get("{http://www.w3.org/1999/xlink}title").replace("\u200b", "").count(letter) == 20_000


@needs_graphviz
@settings(max_examples=5, deadline=None)
@given(graphs())
def test_graphviz_draws_every_node_and_edge(built):
    picture = picture_of_value(built.output)
    lines = graphviz(dot(picture), "plain").splitlines()
    assert len([line for line in lines if line.startswith("node ")]) == len(picture.nodes)
    ends = [tuple(line.split()[1:3]) for line in lines if line.startswith("edge ")]
    assert Counter(ends) == Counter((f"n{e.source}", f"n{e.target}") for e in picture.edges)


@needs_graphviz
@pytest.mark.parametrize("direction, axis, sign", [("LR", 2, 1), ("RL", 2, -1), ("TB", 3, -1), ("BT", 3, 1)])
def test_graphviz_puts_the_output_where_the_direction_says(direction, axis, sign):
    lines = [line.split() for line in graphviz(dot(picture_of_value(small()), direction), "plain").splitlines()]
    place = {line[1]: float(line[axis]) for line in lines if line[0] == "node"}
    assert (place["n6"] - place["n0"]) * sign > 0


@needs_graphviz
def test_graphviz_reads_modules_and_a_graph_that_is_cut():
    assert "4 parameters" not in graphviz(dot(picture_of_module(Sequential(MultiheadAttention(4, 2), ReLU()))))
    z = Value(1.0)
    for _ in range(100):
        z = z * 0.5
    root = ET.fromstring(graphviz(dot(picture_of_value(z, max_nodes=5))))
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "97 more Values behind" in texts


def test_a_deep_graph_is_written_whole():
    z = Value(1.0)
    for _ in range(5_000):
        z = z * 0.5
    _, _nodes, edges = parsed(dot(picture_of_value(z, max_nodes=None)))
    assert [(i, j) for i, j, _ in edges] == [(f"n{i}", f"n{i + 1}") for i in range(5_000)]
