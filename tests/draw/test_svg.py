"""The SVG of a picture, parsed: its boxes, edges, texts and colours are those of the picture."""

import importlib.util
import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milligrad import Linear, Module, ReLU, Sequential, Value, sqrt
from milligrad.draw.dot import dot
from milligrad.draw.mermaid import mermaid
from milligrad.draw.model import Edge, Node, Picture, picture_of_module, picture_of_value
from milligrad.draw.svg import STYLE, svg
from milligrad.markup import CELL, DARK, LIGHT, width
from tests.draw.graphs import NASTY as GRAPHS_NASTY
from tests.draw.graphs import graphs, named

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
    """By number: what is drawn later lies above, so edges stand in another order."""
    found = [g for g in root.iter(f"{S}g") if kind in g.get("class", "").split()]
    return sorted(found, key=lambda g: int(re.search(r"\d+$", g.get("id"))[0]))


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
    assert ["blue" in kinds[0], "orange" in kinds[1], "line" in kinds[2], "red" in kinds[3]] == [True] * 4
    widths = [float(g.find(f"{S}path").get("stroke-width")) for g in groups(root, "edge")]
    assert widths[0] == 4.0 and widths[0] > widths[1] > widths[2] == 1.0
    tints = [float(t.get("fill-opacity")) for g in groups(root, "node") for t in g if t.get("class") == "tint"]
    assert len(tints) == 3 and tints[0] > tints[1] > 0


def luminance(colour):
    """Relative luminance as WCAG 2.2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(colour, ground):
    low, high = sorted([luminance(colour), luminance(ground)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_edges_and_borders_are_told_from_their_ground(palette):
    gradients = [2.0, -2.0, 2e-9, -2e-9, 0.0, None, float("nan")]
    edges = [Edge(0, 1, 1.0, g) for g in gradients] + [Edge(0, 1, contains=True), Edge(0, 1, None, 1.0, mixed=True)]
    root = parsed(Picture([Node("x"), Node("z", "computed")], edges, largest=2.0))
    rules = dict(re.findall(r"\.milligrad-graph(.*) \{ (.*); \}", root.find(f"{S}style").text))
    for group in groups(root, "edge"):
        assert group.find(f"{S}path").get("stroke-opacity") is None
        kind = group.get("class").split()[1]
        [name] = re.findall(r"--gradient: var\(--(\w+)\)", rules.get(f" .{kind}", rules[""]))
        assert contrast(palette[name], palette["paper"]) >= 3
    assert "opacity" not in rules[" .edge path"]
    for kind in (" .box", " .module .box", " .highlighted .box"):
        [name] = re.findall(r"stroke: var\(--(\w+)\)", rules[kind])
        assert min(contrast(palette[name], palette[ground]) for ground in ("paper", "panel")) >= 3


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
        assert max(map(width, words(group))) <= 30


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


def numbers(s):
    return [float(x) for x in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", s)]


def frames(root):
    """Each node's boxes, all of them together: left, top, right, bottom."""
    found = []
    for g in groups(root, "node"):
        x, y = numbers(g.get("transform"))
        rects = [[float(r.get(k)) for k in ("x", "y", "width", "height")] for r in g.findall(f"{S}rect")]
        found.append(
            (x + min(r[0] for r in rects), y + min(r[1] for r in rects),
             x + max(r[0] + r[2] for r in rects), y + max(r[1] + r[3] for r in rects))
        )  # fmt: skip
    return found


def points_of(d):
    """Points of a path of M, L and C with absolute coordinates, many for each curve: Bernstein's polynomials."""
    at = (0.0, 0.0)
    for command, rest in re.findall(r"([MLC])([^MLC]*)", d):
        xs = numbers(rest)
        ends = list(zip(xs[::2], xs[1::2]))
        if command == "C":
            p, q, r = at, ends[0], ends[1]
            for k in range(21):
                t = k / 20
                a, b, c, e = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
                yield tuple(a * p[i] + b * q[i] + c * r[i] + e * ends[2][i] for i in (0, 1))
        elif command == "L":
            for k in range(21):
                yield tuple(at[i] + k / 20 * (ends[0][i] - at[i]) for i in (0, 1))
        at = ends[-1]


@settings(deadline=None, max_examples=40)
@given(graphs(most=14), st.sampled_from(["LR", "RL", "TB", "BT"]))
def test_of_random_graphs_no_boxes_overlap_and_no_curve_meets_a_foreign_box(built, direction):
    built.output.backward()
    picture = picture_of_value(built.output)
    root = parsed(picture, direction)
    boxes = frames(root)
    assert len(boxes) == len(picture.nodes) and len(groups(root, "edge")) == len(picture.edges)
    for a, b in combinations(boxes, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
    for edge, group in zip(picture.edges, groups(root, "edge")):
        assert words(group) == [f"{edge.derivative:.4g}".replace("-", "−", 1)]
        for x, y in points_of(group.find(f"{S}path").get("d")):
            for i, (left, top, right, bottom) in enumerate(boxes):
                assert i in (edge.source, edge.target) or not (left < x < right and top < y < bottom)


def test_every_kind_of_node_stands_within_the_frame_and_its_texts_within_its_box():
    for name in GRAPHS_NASTY:
        root = parsed(named(name))
        width_of_all, height = (float(root.get(k)) for k in ("width", "height"))
        for group, (left, top, right, bottom) in zip(groups(root, "node"), frames(root)):
            assert left >= 0 and right <= width_of_all and top >= 0 and bottom <= height
            x, y = numbers(group.get("transform"))
            for line in group.findall(f"{S}text"):
                half = width(line.text or "") * CELL * 12 / 2
                assert left < x + float(line.get("x")) - half and x + float(line.get("x")) + half < right
                assert top < y + float(line.get("y")) - 8 and y + float(line.get("y")) + 3 < bottom


def test_a_group_is_a_stack_and_a_constant_has_a_class_of_its_own():
    root = parsed(named("z"))
    stacks = [sum(r.get("class") == "box" for r in g.findall(f"{S}rect")) for g in groups(root, "node")]
    assert stacks == [1, 1, 1, 3, 1]
    x, y = numbers(groups(root, "node")[3].get("transform"))
    left, top, right, bottom = frames(root)[3]  # the layout's box holds all of the stack
    assert (left + right, top + bottom) == pytest.approx((2 * x, 2 * y), abs=1e-3)
    kinds = [g.get("class").split()[1] for g in groups(root, "node")]
    assert kinds == ["leaf", "constant", "computed", "group", "cut"]


def test_what_is_highlighted_lies_above_and_the_strong_above_the_weak():
    edges = [Edge(0, 1, 1.0, g, highlighted=h) for g, h in [(2.0, False), (1e-3, True), (1e-3, False), (0.1, False)]]
    root = parsed(Picture([Node("a"), Node("z", "computed")], edges, largest=2.0))
    drawn = [g.get("id") for g in root.iter(f"{S}g") if g.get("class", "").startswith("edge")]
    assert drawn == ["e2", "e3", "e0", "e1"]


def test_the_legend_names_the_colours_that_occur(picture):
    def legend(root):
        return [t.text for g in root.iter(f"{S}g") if g.get("class") == "legend" for t in g.iter(f"{S}text")]

    assert legend(parsed(picture)) == ["positive gradient", "negative gradient"]
    picture.edges[0].gradient = float("nan")
    assert "NaN or infinite" in legend(parsed(picture))
    assert not legend(parsed(picture_of_module(Sequential(Linear(2, 2), ReLU()))))


ROUND = {"leaf": True, "constant": True, "computed": False, "cut": False, "module": False}


@pytest.mark.parametrize("kind", ROUND)
def test_what_was_given_is_round_in_every_form_and_of_one_colour(kind):
    picture = Picture([Node("x", kind)])
    [box] = [r for r in parsed(picture).iter(f"{S}rect") if r.get("class") == "box"]
    assert (float(box.get("rx")) > 10) == ROUND[kind]
    assert ("rounded" in dot(picture)) == ("rx:" in mermaid(picture)) == ROUND[kind]
    fill = LIGHT["panel" if kind == "computed" else "paper"]
    assert f'fillcolor="{fill}"' in dot(picture) and f"fill:{fill}" in mermaid(picture)
    assert re.findall(rf" \.{kind} \.box {{ fill: var\(--(\w+)\)", STYLE) == ["panel"] * (kind == "computed")


def test_the_numbers_on_the_edges_are_explained_wherever_there_are_some(picture):
    for form in (svg, dot, mermaid):
        words = " ".join(re.sub("<[^>]*>", " ", form(picture)).split())
        assert "number on an edge is the local derivative" in words and "positive gradient" in words
        assert "number on an edge" not in form(picture_of_module(Sequential(Linear(2, 2), ReLU())))


def test_edges_of_one_source_say_through_which_place_they_lead():
    x = Value(3.0, "x")
    titles = [g.find(f"{S}title").text.split("\n")[1] for g in groups(parsed(picture_of_value(x * x)), "edge")]
    assert titles == ["∂v1/∂x through the 1st x = 3.0", "∂v1/∂x through the 2nd x = 3.0"]
    source = dot(picture_of_value(x * x))
    assert 'tooltip="∂v1/∂x through the 1st x = 3"' in source and 'tooltip="∂v1/∂x through the 2nd x = 3"' in source


@pytest.mark.parametrize(
    ("gradient", "mixed", "kind", "meaning", "told"),
    [
        (6.0, False, "blue", "positive gradient", "gradient along it: up to 6.0"),
        (-6.0, False, "orange", "negative gradient", "gradient along it: up to -6.0"),
        (6.0, True, "ink", "gradients of both signs", "|gradient| up to 6.0"),
    ],
)
def test_of_many_edges_in_one_the_sign_is_told_where_they_agree(gradient, mixed, kind, meaning, told):
    edge = Edge(0, 1, None, gradient, "× 400", mixed=mixed)
    root = parsed(Picture([Node("x", "group"), Node("z", "group")], [edge], largest=6.0))
    [group] = groups(root, "edge")
    assert group.get("class") == f"edge {kind}"
    assert group.find(f"{S}title").text.split("\n") == ["x → z", told, "× 400"]
    [legend] = [g for g in root.iter(f"{S}g") if g.get("class") == "legend"]
    assert [t.text for t in legend.iter(f"{S}text")] == [meaning]
    assert legend.find(f"{S}rect").get("class") == kind and f" .{kind} {{ --gradient" in root.find(f"{S}style").text


def test_the_class_of_a_module_stands_below_its_name_and_cuts_nothing_of_it():
    [node] = groups(
        parsed(Picture([Node("decoder.attention.projection", "module", "Linear", "in_features=2")])), "node"
    )
    assert words(node) == ["decoder.attention.projection", "Linear(in_features=2)"]
    [node] = groups(parsed(Picture([Node("model", "module", "ReLU", about=("1 parameter",))])), "node")
    assert words(node) == ["model", "ReLU", "1 parameter"]


class Part(Module):
    """Modules of some depth, called by the order in which they were defined."""

    def __init__(self, *children):
        super().__init__()
        for i, child in enumerate(children):
            setattr(self, f"child{i}", child)


@pytest.mark.parametrize(("direction", "axis"), [("TB", 0), ("BT", 0), ("LR", 1), ("RL", 1)])
def test_children_stand_in_the_order_of_their_definition(direction, axis):
    model = Part(ReLU(), Part(ReLU(), ReLU(), Part(ReLU(), ReLU())), ReLU(), Part(Sequential(ReLU(), ReLU()), ReLU()))
    picture = picture_of_module(model)
    places = [numbers(g.get("transform"))[axis] for g in groups(parsed(picture, direction), "node")]
    for parent in picture.nodes:
        children = [e.target for e in picture.edges if e.contains and picture.nodes[e.source] is parent]
        assert [places[i] for i in children] == sorted({places[i] for i in children})


def test_a_part_hangs_on_its_module_without_an_arrow_head():
    root = parsed(picture_of_module(Sequential(Linear(2, 2), ReLU())))
    heads = {g.get("class"): g.find(f"{S}polygon") is not None for g in groups(root, "edge")}
    assert heads == {"edge contains": False, "edge line": True}


def test_an_edge_is_told_in_full(picture):
    picture.nodes[0].highlighted = True
    titles = [g.find(f"{S}title").text for g in groups(parsed(picture), "edge")]
    for edge, title in zip(picture.edges, titles):
        assert repr(edge.derivative) in title and repr(edge.gradient) in title
        assert f"{picture.nodes[edge.source].name} → {picture.nodes[edge.target].name}" in title


def test_a_node_is_told_in_full():
    node = Node("n" * 99, "computed", "mul", "x" * 99, 1 / 3, 2 / 3, about=("y" * 99,), place="file.py:12: z")
    title = groups(parsed(Picture([node])), "node")[0].find(f"{S}title").text
    assert title.split("\n") == ["n" * 99, "x" * 99, f"data {1 / 3!r}", f"grad {2 / 3!r}", "y" * 99, "file.py:12: z"]


def test_a_picture_of_nothing_is_a_picture():
    assert parsed(Picture()).tag == f"{S}svg"


def test_the_picture_of_the_readme_is_what_its_script_draws():
    docs = Path(__file__).parents[2] / "docs"
    spec = importlib.util.spec_from_file_location("pictures", docs / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    assert (docs / "neuron.svg").read_text(encoding="utf-8") == pictures.neuron()[1].svg()
