import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from milligrad import Linear, ReLU, Sequential, Value
from milligrad.draw import draw
from milligrad.draw.graph import OWN, Graph
from milligrad.draw.model import picture_of_value
from tests.draw.graphs import NASTY, UNSEEN, WHOLE, WHOLE_SHOWN, named, small
from tests.page import Page


def test_it_shows_itself():
    graph = draw(small())
    assert isinstance(graph, Graph)
    assert repr(graph) == "<Graph y = 0.9242, computed by a graph of 7 Values: 7 nodes, 7 edges>"
    assert str(graph).startswith("y = v3 * x ")
    [mine, other] = [ET.fromstring(g._repr_svg_()) for g in (graph, draw(small()))]  # on one page
    assert not {e.get("id") for e in mine.iter()} & {e.get("id") for e in other.iter()} - {None}
    assert [*mine.itertext()] == [*ET.fromstring(graph.svg()).itertext()]
    assert ET.fromstring(graph.svg()).tag == "{http://www.w3.org/2000/svg}svg"
    assert not any(hasattr(graph, name) for name in ("_repr_html_", "_repr_png_"))


def test_options_reach_the_picture():
    y = small()
    graph = draw(y, direction="TB", precision=2, max_nodes=4, highlight=y)
    assert "rankdir=TB" in graph.dot()
    assert graph.mermaid().startswith("flowchart TB\n")
    assert "data 0.92 " in str(graph)
    assert "v1 = x * 0.333333333333 " in str(draw(Value(2.0, "x") * (1 / 3), precision=12))
    assert len(graph.picture.nodes) == 4
    assert graph.picture.nodes[-1].highlighted
    model = Sequential(Linear(2, 1), ReLU())
    assert "0.bias[0]" in str(draw(model([1.0, 2.0])[0], model=model))
    assert len(draw(model, max_nodes=2).picture.nodes) == 2
    assert draw(model).picture.title == "Sequential: 3 parameters"


@pytest.mark.parametrize("suffix", [".svg", ".html", ".dot", ".gv", ".mmd", ".SVG"])
@pytest.mark.parametrize("kind", [str, Path])
def test_the_name_of_the_file_says_the_format(tmp_path, suffix, kind):
    graph = draw(small())
    file = tmp_path / f"my graph{suffix}"
    assert graph.save(kind(file)) is None
    formats = {".svg": graph.svg, ".html": graph.html, ".dot": graph.dot, ".gv": graph.dot, ".mmd": graph.mermaid}
    assert file.read_text(encoding="utf-8") == formats[suffix.lower()]()
    assert os.listdir(tmp_path) == [file.name]


def test_a_page_has_the_picture_the_note_and_the_text():
    z = Value(1.0, "x")
    for _ in range(50):
        z = z * 0.5
    graph = draw(z, max_nodes=5)
    page = Page(graph.html())
    assert page.texts("title")[:1] == page.texts("h1") == [graph.picture.title]
    assert graph.picture.note in page.texts("p")
    assert page.texts("pre") == [str(graph)]
    [(_, svg, _)] = [element for element in page.elements if element[0] == "svg"]
    assert svg
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len({*ids})
    assert {f"n{i}" for i in range(5)} <= {*ids}
    assert page.texts("script") == [OWN.with_suffix(".js").read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", NASTY)
def test_names_are_text_in_a_page(name, tmp_path):
    graph = Graph(named(name))
    page, plain = Page(graph.html()), Page(Graph(named("plain")).html())
    tags = [[tag for tag, *_ in p.elements if tag not in ("text", "tspan", "title")] for p in (page, plain)]
    assert tags[0] == tags[1]
    assert len(page.texts("pre")[0].splitlines()) == len(str(graph).splitlines())
    for suffix in (".svg", ".html", ".dot", ".mmd"):
        graph.save(tmp_path / f"x{suffix}")


def written(graph):
    """In every format, with the codes of Mermaid's read."""
    mermaid = re.sub(r"#(\d+);", lambda code: chr(int(code[1])), graph.mermaid())
    return [str(graph), repr(graph), graph.svg(), graph.html(), graph.dot(), mermaid]


@pytest.mark.parametrize("c", UNSEEN, ids=ascii)
def test_a_name_turns_nothing_around_and_hides_nothing(c):
    def named(name):
        z = Value(2.0, name) * Value(3.0, "w")
        z.name = f"{name}z"
        return draw(z)

    for hidden, plain in zip(written(named(f"pay{c}load")), written(named("pay\ufffdload"))):
        assert hidden == plain and "pay\ufffdload" in plain


def test_joiners_and_selectors_stay():
    expected = [WHOLE] * 2 + [WHOLE_SHOWN] * 4
    assert all(name in source for name, source in zip(expected, written(draw(Value(2.0, WHOLE))), strict=True))
    assert f"tanh({WHOLE})" in str(draw(Value(2.0, WHOLE).tanh()))


def test_names_from_right_to_left_turn_nothing_around():
    x, y = Value(7.0, "אלף"), Value(2.0, "בית")
    as_text, _, *others = written(draw(x - y))
    assert "v1 = אלף - בית " in as_text  # of which terminals know nothing
    for source in others:
        assert "\u200eאלף\u200e - \u200eבית\u200e" in source and "\ufffd" not in source


@pytest.mark.parametrize("path", ["graph.pdf", "graph", ".svg", "x.svg.txt", ""])
def test_other_names_are_refused(tmp_path, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"path: expected a name that ends in \.svg, .*\.png, got"):
        draw(small()).save(path)
    assert os.listdir(tmp_path) == []


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "x.dot"
    file.write_text("old")

    def full(*_):
        raise OSError("disk is full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk is full"):
        draw(small()).save(file)
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.dot"]
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):
        draw(small()).save(tmp_path / "no such directory" / "x.dot")


def test_without_graphviz_png_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        draw(small()).save(tmp_path / "x.png")
    for line in ("apt-get install graphviz", "brew install graphviz", "winget install graphviz", ".svg"):
        assert line in str(error.value)
    assert os.listdir(tmp_path) == []


def test_an_error_of_graphviz_is_passed_on(tmp_path, monkeypatch):
    def fails(*_, **__):
        return subprocess.CompletedProcess([], 1, b"half", "dot: out of memory ☠".encode())

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(RuntimeError, match="Graphviz could not draw it: dot: out of memory ☠"):
        draw(small()).save(tmp_path / "x.png")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@pytest.mark.parametrize("name", NASTY)
def test_graphviz_draws_a_png(tmp_path, name):
    Graph(named(name)).save(tmp_path / "x.png")
    png = (tmp_path / "x.png").read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
    assert 200 < width < 5_000
    assert 50 < height < 5_000


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"x": 3.0}, TypeError, "x: expected a Value or a Module, got float 3.0"),
        ({"direction": "left"}, ValueError, "direction: expected one of LR, TB, RL, BT, got 'left'"),
        ({"precision": 0}, ValueError, "precision: expected a whole number >= 1, got 0"),
        ({"max_nodes": 0}, ValueError, "max_nodes: expected a whole number >= 2, got 0"),
        ({"highlight": 1}, TypeError, "highlight: expected a Value or a list of Values, got int 1"),
        ({"highlight": [1]}, TypeError, "highlight: expected a Value, got int 1"),
        ({"x": ReLU(), "highlight": small()}, ValueError, "highlight: expected None in a picture of a Module"),
        ({"x": ReLU(), "model": ReLU()}, ValueError, "model: expected None in a picture of a Module"),
    ],
)
def test_bad_input_is_explained(options, error, message):
    with pytest.raises(error, match=message):
        draw(**{"x": small(), **options})


@pytest.mark.parametrize("direction", [None, ["LR"], "lr", 3])
def test_a_direction_is_one_of_four(direction):
    with pytest.raises(ValueError, match="direction: expected one of LR, TB, RL, BT"):
        Graph(picture_of_value(small()), direction)


def test_a_picture_of_one_node():
    graph = draw(Value(1.0))
    assert repr(graph) == "<Graph v1 = 1, computed by a graph of 1 Value: 1 node, 0 edges>"
    assert str(graph) == "v1   data 1   grad 0"
