"""The SVG of a picture, parsed: its boxes, edges, texts and colours are those of the picture."""

import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from milligrad import Value, sqrt
from milligrad.draw.model import Edge, Node, Picture, picture_of_value
from milligrad.draw.svg import svg
from milligrad.markup import CELL, width

S = "{http://www.w3.org/2000/svg}"
NASTY = [
    "<script>alert(1)</script>",
    "\"quoted\" & 'single'",
    "🎉 e\u0301 漢字",
    "x" * 10_000,
    "a\nb\tc",
    "\x00\x1b[31m\ud800",
]
TAGS = {"svg", "title", "style", "g", "rect", "text", "path", "polygon"}


@pytest.fixture
def picture():
    x, w = Value(0.5, name="x"), Value(-1.2, name="w")
    y = (x * w).tanh() * x
    y.backward()
    return picture_of_value(y)


def parsed(*args, **options):
    return ET.fromstring(svg(*args, **options))


def groups(root, kind):
    return [g for g in root.iter(f"{S}g") if kind in g.get("class", "").split()]


def words(group):
    return [t.text for t in group.findall(f"{S}text")]


def test_each_node_and_edge_is_a_group_with_its_number_and_its_texts(picture):
    root = parsed(picture, prefix="p")
    nodes, edges = groups(root, "node"), groups(root, "edge")
    assert [g.get("id") for g in nodes] == [f"pn{i}" for i in range(5)]
    assert [g.get("id") for g in edges] == [f"pe{i}" for i in range(5)]
    found = {words(g)[0]: words(g)[1:] for g in nodes}
    assert found["x"][0] == "data 0.5" and found["w"] == ["data −1.2", "grad 0.1779"]  # x·x·(1 - tanh²(-0.6))
    assert found["v1"] == ["x * w", "data −0.6", "grad 0.3558"]
    labels = sorted(words(g)[0] for g in edges)
    assert labels == sorted(["−1.2", "0.5", "0.7116", "0.5", "−0.537"])


def test_colours_follow_the_sign_and_width_the_size_of_the_gradient():
    nodes = [Node("a", data=1.0, grad=g) for g in (2.0, -2e-3, 0.0, float("nan"))] + [Node("z", "computed", "sum")]
    edges = [Edge(i, 4, 1.0, node.grad) for i, node in enumerate(nodes[:4])]
    root = parsed(Picture(nodes, edges, largest=2.0))
    kinds = [set(g.get("class").split()) for g in groups(root, "edge")]
    assert ["positive" in kinds[0], "negative" in kinds[1], "none" in kinds[2], "trouble" in kinds[3]] == [True] * 4
    widths = [float(g.find(f"{S}path").get("stroke-width")) for g in groups(root, "edge")]
    assert widths[0] == 4.0 and widths[0] > widths[1] > widths[2] == 1.0
    tints = [float(t.get("fill-opacity")) for g in groups(root, "node") for t in g if t.get("class") == "tint"]
    assert len(tints) == 3 and tints[0] > tints[1] > 0


@pytest.mark.parametrize("name", NASTY)
def test_whatever_a_name_contains_it_is_text_and_fits_into_its_box(name):
    z = sqrt(Value(4.0, name=name))
    root = parsed(picture_of_value(z))
    assert {e.tag.removeprefix(S) for e in root.iter()} <= {
        "svg",
        "title",
        "style",
        "g",
        "rect",
        "text",
        "path",
        "polygon",
    }
    leaf = groups(root, "leaf")[0]
    whole = "".join(c if (c >= " " and not "\ud800" <= c <= "\udfff") or c in "\n\t" else "\ufffd" for c in name)
    assert leaf.find(f"{S}title").text.startswith(whole)
    for group in groups(root, "node"):
        room = float(group.find(f"{S}rect").get("width"))
        assert max(width(line) * CELL * 12 for line in words(group)) < room


@pytest.mark.parametrize("direction", ["LR", "RL", "TB", "BT"])
def test_the_head_of_an_edge_points_where_the_picture_goes(picture, direction):
    axis, sign = {"LR": (0, 1), "RL": (0, -1), "TB": (1, 1), "BT": (1, -1)}[direction]
    root = parsed(picture, direction)
    places = [[float(x) for x in re.findall(r"-?\d+\.?\d*", g.get("transform"))] for g in groups(root, "node")]
    for edge, group in zip(picture.edges, groups(root, "edge")):
        assert sign * (places[edge.target][axis] - places[edge.source][axis]) > 0
        tip, *back = [[float(x) for x in p.split(",")] for p in group.find(f"{S}polygon").get("points").split()]
        assert all(sign * (tip[axis] - corner[axis]) > 0 for corner in back)


def test_the_note_is_shown_and_everything_stands_within_the_frame(picture):
    picture.note = "Much is not shown here. " * 8
    root = parsed(picture)
    note = [t.text for t in root.iter(f"{S}text") if t.get("class") == "note"]
    assert " ".join(note) == picture.note.strip()
    frame = [float(x) for x in root.get("viewBox").split()]
    assert max(float(t.get("y")) for t in root.iter(f"{S}text") if t.get("class") == "note") + 16 < frame[3]
    assert max(width(line) for line in note) * CELL * 12 < frame[2]


def test_the_style_holds_within_the_picture_alone(picture):
    style = parsed(picture).find(f"{S}style").text
    for rule in re.findall(r"([^{}]+)\{[^{}]*\}", style):
        assert rule.strip().startswith((".milligrad-graph", "@media")), rule


def test_the_picture_of_the_readme_is_what_its_script_draws():
    docs = Path(__file__).parents[2] / "docs"
    spec = importlib.util.spec_from_file_location("pictures", docs / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    assert (docs / "neuron.svg").read_text(encoding="utf-8") == pictures.neuron().svg()
