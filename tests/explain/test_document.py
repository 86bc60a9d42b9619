import os
from pathlib import Path

import pytest

from milligrad import Value
from milligrad.explain import explain
from milligrad.explain.document import Explanation, Finding, Items, Paragraph, Table
from tests.draw.graphs import NASTY
from tests.draw.test_graph import Page

SPECIAL = [
    *NASTY,
    "a|b",
    "*a* _b_ ~~c~~",
    "`code`",
    "[a](http://b)",
    "![a](b)",
    "# a",
    "- a",
    "+ a",
    "1. a",
    "2) a",
    "===",
    "---",
    "> a",
    "\\",
    "a\\|b",
    "www.a.b http://a.b a@b.c",
    "$x^2$",
    "&amp;",
    "a\u2028b",
    "&#35;",
    ":smile: |---|",
]


def document(name):
    return Explanation(
        f"{name} = 1",
        [
            Paragraph(f"{name} is a paragraph."),
            Paragraph(name.strip() or "-"),
            Items([name.strip() or "-", f"see {name}"]),
            Table(f"about {name}", ("name", name.strip() or "-"), [(name, "1"), ("x", name)], right=(1,)),
            Finding("nan", f"{name} was found", [name.strip() or "-"], f"mind {name}"),
        ],
    )


def plain(name):
    """What a reader sees of a name: on one line, control characters replaced, the end of a long one left off."""
    line = " ".join(name.split())
    return "".join("\ufffd" if ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF else c for c in line)


@pytest.mark.parametrize("name", SPECIAL)
def test_names_are_text_in_a_page(name):
    page, reference = Page(document(name).html()), Page(document("plain").html())
    assert [(tag, sorted(a)) for tag, a, _ in page.elements] == [(tag, sorted(a)) for tag, a, _ in reference.elements]
    shown = page.texts("p")[0]
    if len(name) < 1_000:
        assert plain(name).strip() in " ".join(shown.split()) or not plain(name).strip()
    else:
        assert len(shown) < 3_000


@pytest.mark.parametrize("name", SPECIAL)
def test_names_are_text_in_a_notebook(name):
    fragment, reference = Page(document(name)._repr_html_()), Page(document("plain")._repr_html_())
    assert [tag for tag, *_ in fragment.elements] == [tag for tag, *_ in reference.elements]


@pytest.mark.parametrize("name", SPECIAL)
def test_names_stay_on_their_line_of_text(name):
    lines, reference = str(document(name)).splitlines(), str(document("plain")).splitlines()
    if 0 < len(name.strip()) < 30:
        assert len(lines) == len(reference)
    assert all(c.isprintable() for line in lines for c in line if c != "\ufffd" and ord(c) < 128)


def blocks(markdown):
    """Source lines of Markdown, with each character that a backslash made plain as ☐."""
    lines = []
    for line in markdown.splitlines():
        kept, i = "", 0
        while i < len(line):
            escaped = line[i] == "\\" and i + 1 < len(line) and not line[i + 1].isalnum() and line[i + 1] != " "
            kept += "☐" if escaped else line[i]
            i += 2 if escaped else 1
        lines.append(kept)
    return lines


@pytest.mark.parametrize("name", SPECIAL)
def test_names_are_text_in_markdown(name):
    """What is not escaped has no meaning to a reader of Markdown: the structure is that of a harmless name."""
    lines, reference = blocks(document(name).markdown()), blocks(document("plain").markdown())
    assert len(lines) == len(reference)
    for line, other in zip(lines, reference):
        for sign in "|#`*_<>[]&~$!":
            assert line.count(sign) == other.count(sign), line
        for start in ("- ", "## ", "### ", "| "):
            assert line.startswith(start) == other.startswith(start)
        content = line.removeprefix("- ")
        assert not content.startswith(("+", "-", "=")) or other.startswith("-")
        assert not (content[:1].isdigit() and content.lstrip("0123456789")[:1] in (".", ")"))
        assert "://" not in line
        assert "www." not in line
        assert "@" not in line


@pytest.mark.parametrize("name", SPECIAL)
def test_names_are_text_to_a_reader_of_markdown(name):
    reader = pytest.importorskip("markdown_it")
    md = reader.MarkdownIt("commonmark").enable("table").enable("strikethrough")
    page, other = (Page(md.render(document(n).markdown())) for n in (name, "plain"))
    assert [tag for tag, *_ in page.elements] == [tag for tag, *_ in other.elements]
    if len(name) < 1_000:
        for text in (page.texts("p")[0], page.texts("h3")[0].removeprefix("✗ ")):
            assert " ".join(text.split()).startswith(plain(name).strip())


def test_a_table_in_three_ways():
    table = Table("numbers", ("name", "size"), [("a", "1"), ("名前", "−20")], right=(1,))
    assert table.lines() == ["  name   size", "  a         1", "  名前    −20"]
    assert table.markdown() == "| name | size |\n| --- | ---: |\n| a | 1 |\n| 名前 | −20 |"
    page = Page(table.html())
    [region] = [attributes for tag, attributes, _ in page.elements if tag == "div"]
    assert region == {"role": "region", "tabindex": "0", "aria-label": "numbers", "style": "overflow-x: auto"}
    assert page.texts("th") == ["name", "size"]
    assert page.texts("td") == ["a", "1", "名前", "−20"]
    sides = [attributes["style"] for tag, attributes, _ in page.elements if tag in ("td", "th")]
    assert sides == ["text-align: left", "text-align: right"] * 3


def test_a_finding_in_three_ways():
    finding = Finding("nan", "It is NaN", ["here", "there"], "Look.")
    assert finding.lines() == ["✗ It is NaN", "    - here", "    - there", "  Look."]
    assert Finding("note", "It is so", trouble=False).lines() == ["• It is so"]
    assert finding.markdown() == "### ✗ It is NaN\n\n- here\n- there\n\nLook."
    page = Page(finding.html())
    assert (page.texts("h2"), page.texts("li"), page.texts("p")) == (["✗ It is NaN"], ["here", "there"], ["Look."])


def test_text_is_wrapped_at_spaces():
    text = "word " * 100 + "x" * 150
    lines = str(Explanation("title", [Paragraph(text), Items([text])])).splitlines()
    assert max(len(line) for line in lines if "x" not in line) <= 100
    assert any("x" * 150 in line for line in lines)
    assert " ".join(" ".join(lines).replace("- ", "").split()).count("word") == 200


def sample():
    x = Value(3.0, "x")
    return explain(x * x, wrt=x)


@pytest.mark.parametrize("suffix", [".txt", ".md", ".html", ".HTML"])
@pytest.mark.parametrize("kind", [str, Path])
def test_the_name_of_the_file_says_the_format(tmp_path, suffix, kind):
    explanation = sample()
    file = tmp_path / f"why{suffix}"
    assert explanation.save(kind(file)) is None
    formats = {".txt": f"{explanation}\n", ".md": explanation.markdown(), ".html": explanation.html()}
    assert file.read_text(encoding="utf-8") == formats[suffix.lower()]
    assert os.listdir(tmp_path) == [file.name]


@pytest.mark.parametrize("path", ["why.pdf", "why", ".md", "x.md.gz", ""])
def test_other_names_are_refused(tmp_path, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"path: expected a name that ends in \.txt, \.md, \.html, got"):
        sample().save(path)
    assert os.listdir(tmp_path) == []


def test_it_shows_itself():
    explanation = sample()
    assert repr(explanation) == "<Explanation ∂v1/∂x = 6: how v1 = 9 moves with x = 3>"
    assert explanation._repr_markdown_() == explanation.markdown()
    page = Page(explanation.html())
    assert page.texts("title") == page.texts("h1") == [explanation.title]
    assert not page.texts("script")
    assert [a for tag, a, _ in page.elements if tag == "meta" and a.get("name") == "viewport"]
    assert Page(explanation._repr_html_()).texts("h2") == [explanation.title]


def test_a_long_name_is_elided_everywhere():
    x = Value(3.0, "n" * 10_000)
    explanation = explain(x * x, wrt=x)
    for text in (str(explanation), explanation.markdown(), explanation.html(), repr(explanation)):
        assert f"{'n' * 12}…{'n' * 11}" in text
        assert "n" * 41 not in text
