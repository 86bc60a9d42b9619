"""A report, parsed: what went in is in it, as text; what is counted there is counted again here."""

import math
import re
import xml.etree.ElementTree as ET
from random import Random

import pytest

from milligrad.charts import lines
from milligrad.report import MOST, Section, confusion_of, mistakes, report, weights
from tests.charts.reading import S, assert_legible, hover, of_class, parsed, pixels_of, words
from tests.draw.graphs import NASTY
from tests.page import Page


def sample(n=30, classes=4, seed=0):
    """Pictures of 2 × 3 pixels, their classes, and what is made of them: some wrong, all sure to a different degree."""
    random = Random(seed)
    pictures = [[random.randrange(17) / 16 for _ in range(6)] for _ in range(n)]
    targets = [random.randrange(classes) for _ in range(n)]
    scores = [[random.random() + 0.5 * (k == target) for k in range(classes)] for target in targets]
    return pictures, targets, [[s / math.fsum(row) for s in row] for row in scores]


def paths(chart):
    return {(x, y): count for (x, y, count) in re.findall(r"is (\d), read as (\d): (\d+) of", " ".join(chart))}


def test_mistakes_are_counted_and_the_surest_come_first():
    pictures, targets, rows = sample()
    section = mistakes(pictures, (2, 3), targets, rows)
    guesses = [row.index(max(row)) for row in rows]
    wrong = sorted((i for i in range(30) if guesses[i] != targets[i]), key=lambda i: max(rows[i]), reverse=True)
    assert 5 < len(wrong) < 25
    assert section.about == f"{len(wrong)} of 30 were misread. Those that the model was surest of come first."
    table, misread = section.charts
    found = paths(hover(g) for g in of_class(parsed(table), "count"))
    for i in range(4):
        for j in range(4):
            pairs = [*zip(targets, guesses)]
            assert int(found[str(i), str(j)]) == pairs.count((i, j)) == confusion_of(targets, rows)[i][j]
    groups = of_class(parsed(misread), "image")
    assert [words(g) for g in groups] == [
        [f"is {targets[i]}", f"read as {guesses[i]}", f"{100 * max(rows[i]):.0f}% sure"] for i in wrong
    ]
    for g, i in zip(groups, wrong):
        shades = [255 - pixel[0] for row in pixels_of(of_class(g, "picture")[0]) for pixel in row]
        assert shades == [round(255 * x) for x in pictures[i]]
    assert_legible(misread)


def test_many_mistakes_are_cut_and_that_is_said():
    n = 130
    rows = [[0.4 - i / 1000, 0.6 + i / 1000] for i in range(n)]
    section = mistakes([[0.0]] * n, (1, 1), [0] * n, rows)
    assert (
        section.about == f"130 of 130 were misread. These are the {MOST} that the model was surest of; 90 are left out."
    )
    groups = of_class(parsed(section.charts[1]), "image")
    assert len(groups) == MOST == 40 and words(groups[0])[2] == "73% sure"


def test_without_a_mistake_there_are_no_pictures():
    section = mistakes([[0.0]], (1, 1), [1], [[0.1, 0.9]])
    assert section.about == "0 of 1 were misread." and len(section.charts) == 1


@pytest.mark.parametrize(("n", "parts"), [(3, [3]), (32, [20, 12]), (128, [20, 20])])
def test_weights_are_pictures_all_on_one_scale(n, parts):
    rows = [[math.sin(6 * i + k) for k in range(6)] for i in range(n)]
    rows[0][0] = 100.0  # pales no others
    section = weights(rows, (3, 2))
    assert [len(of_class(parsed(chart), "image")) for chart in section.charts] == parts
    assert ("are left out" in section.about) == (n > 40) and (f"{n - 40} are left out" in section.about or n <= 40)
    groups = [g for chart in section.charts for g in of_class(parsed(chart), "image")]
    assert [words(g) for g in groups] == [[str(i)] for i in range(min(n, 40))]
    largest = sorted(abs(w) for row in rows for w in row)
    vmax = largest[99 * (len(largest) - 1) // 100]
    for g, row in zip(groups, rows):
        found = [p for line in pixels_of(of_class(g, "picture")[0]) for p in line]
        assert [p[3] / 255 for p in found] == pytest.approx([min(abs(w) / vmax, 1.0) for w in row], abs=0.02)
        assert all((p[2] > p[0]) == (w > 0) for p, w in zip(found, row) if p[3])
    assert all(f"deepest from {vmax:.4g} on" in chart.about for chart in section.charts)


@pytest.mark.parametrize(
    ("n", "titles"),
    [
        (1, ["Weights of hidden unit 0"]),
        (2, ["Weights of hidden units 0 to 1"]),
        (21, ["Weights of hidden units 0 to 19", "Weights of hidden unit 20"]),
    ],
)
def test_the_titles_of_weights_are_whole_and_say_which(n, titles):
    charts = weights([[0.5] * 64] * n, (8, 8)).charts
    assert [words(parsed(chart), "heading") for chart in charts] == [[title] for title in titles]
    assert [chart.title for chart in charts] == titles


def test_weights_that_are_all_0_are_pictures():
    assert len(weights([[0.0] * 4], (2, 2)).charts) == 1


def test_a_model_that_has_come_to_nan_is_reported_on_too():
    nan, inf = math.nan, math.inf
    [chart] = weights([[nan, -1.0, inf, 0.5], [nan] * 4], (2, 2)).charts
    first, second = ([p for row in pixels_of(image) for p in row] for image in of_class(parsed(chart), "picture"))
    assert first[0] == first[2] == second[0] != first[1] != first[3] and len({*second}) == 1
    section = mistakes([[nan, 0.5], [0.0, 1.0]], (1, 2), [1, 0], [[nan, nan], [0.25, 0.75]])
    assert section.about.startswith("2 of 2 were misread.")


def test_an_answer_that_is_no_number_was_read_as_nothing_and_is_shown_last():
    nan = math.nan
    targets, rows = [0, 0, 1, 1, 0], [[nan, nan], [0.3, 0.7], [0.2, 0.8], [0.5, nan], [0.1, 0.9]]
    section = mistakes([[0.0]] * 5, (1, 1), targets, rows)
    assert section.about == (
        "4 of 5 were misread. Of 2 the answer was no number. Those that the model was surest of come first."
    )
    assert confusion_of(targets, rows) == [[0, 2], [0, 1]]
    assert [words(g) for g in of_class(parsed(section.charts[1]), "image")] == [
        ["is 0", "read as 1", "90% sure"],
        ["is 0", "read as 1", "70% sure"],
        ["is 0", "no number"],
        ["is 1", "no number"],
    ]


def page_of(name="plain"):
    chart = lines({name: [1.0, 2.0]}, title=name)
    sections = [Section(name, name, [chart, chart]), Section("Second", "Without charts.", [])]
    return report(name, {name: name, "Accuracy": "97.2%"}, {name: name, "save": None, "lr": 0.1}, sections)


def test_a_report_has_all_that_was_handed_in_in_order():
    page = Page(page_of("thing"))
    assert page.texts("h1") == ["thing"] and page.texts("h2") == ["thing", "Second", "Options"]
    assert [*zip(page.texts("dt"), page.texts("dd"))] == [("thing", "thing"), ("Accuracy", "97.2%")]
    assert [*zip(page.texts("th"), page.texts("td"))] == [("thing", "thing"), ("save", "none"), ("lr", "0.1")]
    assert page.texts("p") == ["thing", "Without charts."]
    figures = [attributes for tag, attributes, _ in page.elements if tag == "figure"]
    assert figures == [{"tabindex": "0", "role": "group", "aria-label": "thing"}] * 2
    assert len(page.texts("svg")) == 2 and page.texts("title")[0] == "thing"


@pytest.mark.parametrize("name", NASTY)
def test_names_are_text_in_a_report(name):
    page, plain = Page(page_of(name)), Page(page_of())
    assert [tag for tag, *_ in page.elements] == [tag for tag, *_ in plain.elements]
    assert not page.texts("script")
    kept = "".join(c if c in "\n\t\r" or (c >= " " and not "\ud800" <= c <= "\udfff") else "\ufffd" for c in name)
    kept = kept.replace("\r\n", "\n").replace("\r", "\n") if "\r" in page.texts("h1")[0] else kept
    for tag in ("h1", "dd", "td"):
        assert page.texts(tag)[0].replace("\r\n", "\n") == kept.replace("\r\n", "\n")


def test_a_report_asks_for_nothing_and_has_no_script():
    page = Page(page_of())
    assert not {"script", "iframe", "object", "form"} & {tag for tag, *_ in page.elements}
    for tag, attributes, _ in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("href", "src"):
            assert attributes.get(name, "data:").startswith("data:")
    style = page.texts("style")[0]
    assert "@import" not in style and "url(" not in style


def test_every_chart_of_a_report_is_narrow_enough_for_a_phone():
    pictures, targets, rows = sample(60, 10)
    digits = [p * 11 for p in pictures]
    section = mistakes([p[:64] for p in digits], (8, 8), targets, rows)
    for chart in (*section.charts, *weights([p[:64] for p in digits], (8, 8)).charts):
        assert chart.width <= 358
        assert ET.fromstring(chart.svg()).tag == f"{S}svg"


def test_a_probability_for_each_sample_is_needed():
    with pytest.raises(ValueError, match="zip"):
        mistakes([[0.0]], (1, 1), [0, 1], [[1.0, 0.0]])


def test_a_mistake_is_never_said_to_have_been_quite_sure():
    section = mistakes([[0.0]] * 3, (1, 1), [1, 1, 1], [[0.996, 0.004], [0.99, 0.01], [0.6, 0.4]])
    captions = [e.text for e in ET.fromstring(section.charts[1].svg()).iter("{http://www.w3.org/2000/svg}text")]
    assert [s for s in captions if "sure" in s] == ["over 99% sure", "99% sure", "60% sure"]
