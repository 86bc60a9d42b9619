"""Pictures: the PNG within, read without milligrad, has the pixels; captions stand under their own picture."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milligrad.charts import images
from milligrad.charts.images import BLUE, LEVELS, ORANGE, RED, png
from milligrad.data import load_digits
from tests.charts.reading import assert_legible, hover, of_class, parsed, pixels, pixels_of, texts_within, words

COLOURS = st.tuples(*[st.integers(0, 255)] * 4)


@given(st.integers(1, 9).flatmap(lambda n: st.lists(st.lists(COLOURS, min_size=n, max_size=n), min_size=1, max_size=9)))
def test_a_png_is_read_back_to_its_pixels(rows):
    assert pixels(png(rows)) == [list(row) for row in rows]


def test_a_png_has_256_colours_and_no_more():
    rows = [[(i, j, 0, 255) for i in range(16)] for j in range(16)]
    assert pixels(png(rows)) == rows
    with pytest.raises(ValueError, match="rows: expected at most 256 colours, got 257"):
        png([*rows, [(255, 255, 255, 0)] * 16])


@given(st.lists(st.floats(-0.5, 1.5), min_size=6, max_size=6))
def test_pixels_are_grey_from_paper_to_ink(numbers):
    [image] = of_class(parsed(images([numbers], (2, 3), [["x"]], title="t")), "picture")
    found = [pixel for row in pixels_of(image) for pixel in row]
    assert len(pixels_of(image)) == 2 and "grey" in image.get("class")
    for (r, g, b, opacity), x in zip(found, numbers, strict=True):
        assert r == g == b and opacity == 255
        assert r == pytest.approx(255 * (1 - min(max(x, 0), 1)), abs=0.51)


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6), st.floats(0.5, 2))
def test_weights_are_blue_above_0_and_orange_below_the_deeper_the_farther(numbers, vmax):
    [image] = of_class(parsed(images([numbers], (3, 2), [["x"]], title="t", vmax=vmax)), "picture")
    for (*hue, opacity), w in zip([pixel for row in pixels_of(image) for pixel in row], numbers, strict=True):
        assert opacity / 255 == pytest.approx(min(abs(w) / vmax, 1), abs=0.51 / LEVELS + 1 / 255)
        assert not opacity or tuple(hue) == (BLUE if w > 0 else ORANGE)


def test_what_is_no_finite_number_is_red():
    for vmax in (None, 1.0):
        chart = images([[math.nan, math.inf, 0.0]], (1, 3), [["x"]], title="t", vmax=vmax)
        [image] = of_class(parsed(chart), "picture")
        [[a, b, c]] = pixels_of(image)
        assert a == b == (*RED, 255) != c and "grey" not in image.get("class")  # the dark page turns greys around


def test_real_digits_are_few_bytes_and_their_captions_stand_under_them():
    samples = [*load_digits()][:12]
    captions = [[f"is {y}", "read as 3", "97% sure"] for _, y in samples]
    chart = images([x for x, _ in samples], (8, 8), captions, title="Misread", across=5)
    assert_legible(chart)
    root = parsed(chart)
    groups = of_class(root, "image")
    assert [words(g) for g in groups] == captions
    assert [hover(g) for g in groups] == [", ".join(caption) for caption in captions]
    for g, (x, _) in zip(groups, samples):
        image = of_class(g, "picture")[0]
        assert [255 - p[0] for row in pixels_of(image) for p in row] == [round(255 * v) for v in x]
        left, wide = float(image.get("x")), float(image.get("width"))
        assert left + wide / 2 == 0.0 == float(of_class(g, "tick")[0].get("x"))
        assert float(of_class(g, "tick")[0].get("y")) > float(image.get("height")) == wide == 56
    assert len(chart.svg()) < 1200 * 12
    tops = sorted({round(box[1]) for s, box in texts_within(root) if s == "read as 3"})
    assert len(tops) == 3 and chart.width <= 358


def test_a_hundred_and_twenty_eight_pictures_of_mnist_stay_small():
    numbers = [math.sin(k * k) for k in range(784)]
    chart = images([numbers] * 128, (28, 28), [[str(i)] for i in range(128)], title="t", vmax=1.0)
    assert len(chart.svg()) < 250_000
    assert float(of_class(parsed(chart), "picture")[0].get("width")) == 56


@pytest.mark.parametrize(
    ("pictures", "shape", "captions", "message"),
    [
        ([], (8, 8), [], "pictures: expected at least one"),
        ([[]], (0, 8), [["x"]], r"pictures: expected at least one, of at least one pixel, got 1 of \(0, 8\)"),
        ([[0.0] * 4, [0.0] * 3], (2, 2), [["x"]] * 2, r"pictures\[1\]: expected 2 × 2 numbers, got 3"),
        ([[0.0]], (1, 1), [], "captions: expected 1, one for each picture, got 0"),
    ],
)
def test_bad_input_is_explained(pictures, shape, captions, message):
    with pytest.raises(ValueError, match=message):
        images(pictures, shape, captions, title="t")


@pytest.mark.parametrize("vmax", [0.0, -1.0, math.nan])
def test_the_deepest_colour_is_that_of_a_number_above_0(vmax):
    with pytest.raises(ValueError, match=f"vmax: expected a number > 0, got {vmax}"):
        images([[0.5]], (1, 1), [["x"]], title="t", vmax=vmax)
