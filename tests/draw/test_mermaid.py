import math
import re
from collections import Counter

import pytest
from hypothesis import given, settings

from milligrad import Linear, ReLU, Sequential
from milligrad.draw.mermaid import mermaid
from milligrad.draw.model import Edge, Node, Picture, notation, picture_of_module, picture_of_value
from milligrad.markup import LIGHT
from tests.draw.graphs import NASTY, graphs, named, small

STATEMENTS = {
    "node": r'(\w+)\["([^"]*)"\]',
    "edge": r'(n\d+) (-->|-\.-)(?:\|"([^"]*)"\|)? (n\d+)',
    "classDef": r"classDef (\w+) (.+)",
    "class": r"class (\w+(?:,\w+)*) (\w+)",
    "linkStyle": r"linkStyle (\d+(?:,\d+)*) (\S+)",
}


def parsed(source):
    """What the lines say, by kind of statement; a line of no known kind is an error, as in Mermaid."""
    first, *lines = source.splitlines()
    found = {"flowchart": re.fullmatch(r"flowchart (\w\w)", first)[1], **{kind: [] for kind in STATEMENTS}}
    for line in lines:
        [(kind, match)] = [(k, m) for k, p in STATEMENTS.items() if (m := re.fullmatch("  " + p, line))]
        found[kind].append(match.groups())
    return found


def meant(label):
    """A label's lines, as Mermaid shows them. Nothing else in it may mean anything: no markup, no entity of HTML's."""
    lines = label.split("<br/>")
    for line in lines:
        assert not re.search(r"[<>&`*$%{}\[\]|\\/~^@!?:-]|#(?!quot;|\d+;)", line)
    lines = [re.sub(r"#(quot|\d+);", lambda m: '"' if m[1] == "quot" else chr(int(m[1])), line) for line in lines]
    assert "$$" not in "".join(lines)  # a formula, whether or not it was written as codes
    return [line.replace("\u200b", "") for line in lines]


def styles(found, kind="linkStyle"):
    """The style of each edge, or the classes of each node, by their numbers or names."""
    given = {}
    for members, style in found[kind]:
        for member in members.split(","):
            given.setdefault(member, []).append(style)
    return given


@settings(max_examples=50)
@given(graphs())
def test_it_has_the_nodes_and_edges_that_the_graph_was_built_of(built):
    for i, value in enumerate(built.values):
        value.name = f"value {i}"
    found = parsed(mermaid(picture_of_value(built.output)))
    name = {i: meant(label)[0] for i, label in found["node"] if i != "note"}
    reached = built.reached()
    assert sorted(name.values()) == sorted(f"value {i}" for i in reached)
    edges = Counter((name[i], name[j]) for i, _, _, j in found["edge"])
    assert edges == Counter((f"value {i}", f"value {j}") for i, j, _ in built.edges if j in reached)


def test_the_small_example():
    found = parsed(mermaid(picture_of_value(small()), "BT"))
    assert found["flowchart"] == "BT"
    assert [meant(label) for name, label in found["node"] if name != "note"] == [
        ["x", "data 2", "grad −0.3243"],
        ["w", "data −0.5", "grad 3.146"],
        ["b", "data 1.5"],
        ["v1", "x * w", "data −1", "grad 1.573"],
        ["v2", "v1 + b", "data 0.5", "grad 1.573"],
        ["v3", "tanh(v2)", "data 0.4621", "grad 2"],
        ["y", "v3 * x", "data 0.9242", "grad 1"],
    ]
    assert [(i, j, meant(label)) for i, _, label, j in found["edge"]][:2] == [
        ("n0", "n3", ["−0.5"]),
        ("n1", "n3", ["2"]),
    ]
    classes = styles(found, "class")
    assert classes["n0"] == ["leaf", "orange"]
    assert classes["n2"] == ["constant", "line"]
    assert classes["n6"] == ["computed", "blue"]
    assert {name for name, _ in found["classDef"]} == {name for names in classes.values() for name in names}


def test_colour_tells_the_sign_and_width_the_size_of_a_gradient():
    gradients = [5.0, -5.0, 5e-3, 0.0, None, math.nan, -math.inf]
    picture = Picture([Node("x"), Node("y")], [Edge(0, 1, 1.0, g) for g in gradients], largest=5.0)
    given = styles(parsed(mermaid(picture)))
    assert sorted(given) == list("0123456")
    colour, width = zip(*[re.fullmatch(r"stroke:(#\w{6}),stroke-width:(\S+)px", *given[i]).groups() for i in "0123456"])
    assert [*map(float, width)] == [4, 4, 2.5, 1, 1, 1, 4]
    assert colour[0] == colour[2]
    assert colour[3] == colour[4]
    assert colour[5] == colour[6]
    assert len({*colour}) == 4


def test_many_edges_in_one_of_both_signs_have_a_colour_of_their_own():
    edges = [Edge(0, 1, None, g, "× 9", mixed=mixed) for g, mixed in [(6.0, False), (-6.0, False), (6.0, True)]]
    given = styles(parsed(mermaid(Picture([Node("x"), Node("y")], edges, largest=6.0))))
    colours = [given[i][0].split(",")[0] for i in "012"]
    assert colours == [f"stroke:{LIGHT[name]}" for name in ("blue", "orange", "ink")]


def test_what_is_highlighted_stands_out():
    y = small()
    found = parsed(mermaid(picture_of_value(y, highlight=[y, y.inputs[1]])))
    assert [n for n, names in styles(found, "class").items() if "mark" in names] == ["n0", "n6"]
    marked = dict(found["classDef"])["mark"].split(",")[0]
    assert [i for i, [style] in styles(found).items() if style.startswith(marked)] == ["6"]
    assert found["edge"][6][0] == "n0"


def test_the_note_is_a_node():
    model = Sequential(Linear(20, 10), ReLU(), Linear(10, 1))
    picture = picture_of_value(model([0.5] * 20)[0], model=model, max_nodes=20)
    found = parsed(mermaid(picture))
    assert ("note", [picture.note, *notation(picture)]) == (found["node"][-1][0], meant(found["node"][-1][1]))
    assert meant(found["node"][0][1])[0] == "0.weight, 200 × leaf"


def test_what_contains_is_dotted():
    found = parsed(mermaid(picture_of_module(Sequential(Linear(2, 2), ReLU()))))
    assert [(i, arrow, j) for i, arrow, _, j in found["edge"]] == [("n0", "-.-", "n1"), ("n1", "-->", "n2")]
    assert meant(found["node"][1][1]) == ["0", "Linear(in_features=2, out_features=2, bias=True)", "6 parameters"]


@pytest.mark.parametrize("name", NASTY)
def test_names_are_shown_as_they_are(name):
    found = parsed(mermaid(named(name)))
    assert len(found["node"]) == 6
    assert len(found["edge"]) == 5
    first = meant(found["node"][0][1])[0]
    expected = " ".join(re.sub("[\x00-\x08\x0e-\x1f\ud800-\udfff]", "\ufffd", name).split())
    if len(name) < 40:
        assert " ".join(first.split()) == expected
    else:
        assert 10 < len(first) <= 40
        assert "…" in first and re.fullmatch(".*".join(map(re.escape, first.split("…"))), name)
    mermaid(named(name)).encode()
