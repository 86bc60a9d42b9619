"""SVG and HTML as text: what comes in as text comes out as text, whatever it contains."""

import math
import re
import unicodedata
from decimal import Decimal
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milligrad import markup
from milligrad.markup import (
    DARK,
    LIGHT,
    colours,
    element,
    elided,
    left_to_right,
    page,
    printable,
    short_name,
    shown,
    text,
    width,
)
from tests.draw.graphs import UNSEEN

FORBIDDEN = st.characters(categories=["Cc", "Cs"])


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\u2065\ufffe\uffff" + UNSEEN)))
def test_text_and_attributes_are_read_back_as_they_were(s):
    root = ET.fromstring(element("a", text(s), class_=s, stroke_width=s))
    assert (root.text or "") == left_to_right(s) and re.sub("\u200e", "", left_to_right(s)) == s
    assert root.attrib == {"class": left_to_right(s), "stroke-width": left_to_right(s)}


@given(st.text(FORBIDDEN))
def test_what_xml_has_no_place_for_is_shown_as_a_sign(s):
    kept = ET.fromstring(element("a", text(s.replace("\r", "")))).text or ""
    assert kept == "".join(c if c in "\t\n\x7f" or "\x80" <= c <= "\x9f" else "\ufffd" for c in s.replace("\r", ""))


@pytest.mark.parametrize("c", UNSEEN, ids=ascii)
def test_what_would_not_be_seen_or_turn_text_around_is_shown_as_a_sign(c):
    assert ET.fromstring(element("a", text(f"x{c}y"), class_=f"{c}z")).text == "x\ufffdy" == printable(f"x{c}y", 10)
    assert ET.fromstring(element("a", text(f"x{c}y"), class_=f"{c}z")).get("class") == "\ufffdz"
    assert width(f"x{c}y") == 3 and printable(c * 100, 10) == "\ufffd" * 9 + "…"


@pytest.mark.parametrize(
    ("s", "expected"),
    [
        ("speed − 1", "speed − 1"),
        ("אלף - בית", "<אלף> - <בית>"),
        ("∂אלף/∂y = 2", "∂<אלף>/∂y = 2"),
        ("tanh(שם ארוך)", "tanh(<שם ארוך>)"),
        ("-שם_ארוך ** 2", "-<שם_ארוך> ** 2"),
        ("dot([א, ב], [ג, 0.5])", "dot([<א>, <ב>], [<ג>, 0.5])"),
        ("שכבה.weight[0][1]", "<שכבה>.weight[0][1]"),
        ("می\u200cخواهم + שָׁלוֹם", "<می\u200cخواهم> + <שָׁלוֹם>"),
    ],
)
def test_words_from_right_to_left_stand_for_themselves(s, expected):
    assert left_to_right(s) == expected.replace("<", "\u200e").replace(">", "\u200e")


def test_every_sign_that_is_written_from_right_to_left_is_known():
    turning = [c for c in map(chr, range(0x110000)) if unicodedata.bidirectional(c) in ("R", "AL", "AN")]
    assert len(turning) > 2_000
    for c in turning:
        assert c in UNSEEN or left_to_right(f"x {c}") == f"x \u200e{c}\u200e", ascii(c)
    others = " ".join(c for c in map(chr, range(0x110000)) if unicodedata.bidirectional(c) == "L")
    assert left_to_right(others) == others


def test_an_element_without_content_is_closed_as_its_kind_is():
    assert element("rect", x=1.23456789) == '<rect x="1.23457"/>'
    assert element("g") == "<g></g>"
    assert element("g", element("rect")) == "<g><rect/></g>"


@pytest.mark.parametrize(
    ("x", "digits", "expected"),
    [
        (None, 4, ""),
        (2.0, 4, "2"),
        (-1 / 3, 3, "−0.333"),
        (-1.5e-7, 4, "−1.5e−07"),
        (1e20, 4, "1e+20"),
        (float("nan"), 4, "nan"),
        (float("-inf"), 4, "−inf"),
    ],
)
def test_numbers_are_shown_with_a_minus_sign_that_is_one(x, digits, expected):
    assert shown(x, digits) == expected


def test_no_number_of_digits_is_too_large():
    x = math.nextafter(2.0**-1021, 0)  # no float has more digits
    digits, exponent = shown(x, 2**40).split("e−")
    assert Decimal(f"{digits}e-{exponent}") == Decimal(x) and len(digits) == len("4.") + 766


@pytest.mark.parametrize(
    ("s", "cells"),
    [("abc", 3), ("\uff21!", 3), ("漢字", 4), ("e\u0301", 1), ("🎉!", 3), ("a\u200db", 2), ("", 0)],
)
def test_the_width_of_a_text_in_cells(s, cells):
    assert width(s) == cells


@given(st.text(), st.integers(1, 30))
def test_an_elided_text_has_room_and_stands_on_one_line(s, cells):
    short = elided(s, cells)
    assert width(short) <= cells and len(short.splitlines()) <= 1
    if width(s) <= cells and not any(c.isspace() and c != " " for c in s):
        assert short == s


def test_a_long_name_keeps_its_beginning():
    assert elided("x" * 10_000, 10) == "x" * 9 + "…"
    assert elided("漢" * 10, 6) == "漢漢…"
    assert elided("two\n  lines", 20) == "two lines"


def test_light_and_dark_have_the_same_colours():
    assert LIGHT.keys() == DARK.keys()
    for name, colour in [*LIGHT.items(), *DARK.items()]:
        assert f"--{name}: {colour};" in colours(".picture")
    assert colours(".picture").count(".picture {") == 2 and ":root" not in colours(".picture")


def test_a_page_asks_for_nothing_and_has_what_a_phone_needs():
    class Page(HTMLParser):
        found: list[tuple[str, dict[str, str | None]]]

        def handle_starttag(self, tag, attributes):
            self.found.append((tag, dict(attributes)))

    parser = Page()
    parser.found = []
    parser.feed(page('<"Title" & more>', element("p", text("<script>"))))
    tags = [tag for tag, _ in parser.found]
    assert tags == ["html", "head", "meta", "meta", "meta", "link", "title", "style", "body", "main", "p"]
    attributes = [a for _, a in parser.found]
    assert "default-src 'none'" in attributes[3]["content"] and "script-src" not in attributes[3]["content"]
    assert attributes[4] == {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    assert attributes[5]["href"] == "data:,"


@pytest.mark.parametrize(
    "s, expected",
    [
        ("plain", "plain"),
        ("two\nlines\tand more", "two lines and more"),
        ("bell\x07 \x1b[31m", "bell\ufffd \ufffd[31m"),
        ("lone \ud800", "lone \ufffd"),
        ("名前 🎉", "名前 🎉"),
        ("👩\u200d💻 ❤\ufe0f می\u200cخ", "👩\u200d💻 ❤\ufe0f می\u200cخ"),
        ("n" * 10_000, "n" * 19 + "…"),
    ],
)
def test_what_is_printed_stays_on_its_line(s, expected):
    assert printable(s, 20) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0.weight[0][1]", "0.weight[0][1]"),
        ("encoder_feed_forward.weight[0][1]", "encod…rward.weight[0][1]"),
        ("the speed of the second train #2", "the speed o…ond train #2"),
        ("blocks.11.attention.projection.weight[3]", "b…s.11.a…n.p…n.w…t[3]"),
        ("transformer.blocks.0.attention.in_proj.weight[0][11]", "t….b….0.a….i….w…[0][11]"),
        ("1" * 100, "1" * 12 + "…" + "1" * 11),
        ("n" * 10_000, "n" * 12 + "…" + "n" * 11),
        ("漢" * 50, "漢" * 6 + "…" + "漢" * 5),
        ("two\nlines", "two lines"),
        ("bell\x07", "bell\ufffd"),
    ],
)
def test_a_long_name_loses_the_middles_of_its_words(name, expected):
    assert short_name(name, 24) == expected and width(expected) <= 24


@given(st.text(), st.integers(1, 30))
def test_a_short_name_has_room_and_stands_on_one_line(name, cells):
    short = short_name(name, cells)
    assert width(short) <= cells and len(short.splitlines()) <= 1 and printable(short, cells) == short
    if width(name) <= cells:
        assert short == printable(name, cells)


def test_a_name_is_shortened_once_however_often_it_is_shown(monkeypatch):
    short_name.cache_clear()
    names = [f"encoder_feed_forward.weight[{i}]" for i in range(1_000)]
    shown = [short_name(name, 24) for name in names]
    monkeypatch.setattr(markup, "width", lambda _: pytest.fail("measured again"))
    assert [short_name(name, 24) for name in names] == shown


@given(st.text())
def test_a_text_is_as_wide_as_its_letters(s):
    assert width(s) == sum(width(c) for c in s)


def test_names_of_one_model_stay_apart():
    names = [
        f"transformer.blocks.{block}.{part}.{kind}[{i}][{j}]"
        for block in range(4)
        for part in ("attention.in_proj", "attention.out_proj", "feed_forward.up", "feed_forward.down")
        for kind in ("weight", "bias")
        for i, j in [(0, 0), (0, 11), (11, 0), (1, 10)]
    ]
    assert len({short_name(name, 24) for name in names}) == len(names)
