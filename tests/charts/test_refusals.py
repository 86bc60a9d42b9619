"""What charts refuse: arguments of another type, and numbers that are none of what they should be."""

import math

import pytest

from milligrad.charts import confusion_matrix, decision_regions, grid, images, lines

NAN, PLACES = math.nan, 64 * 64


def lines_of(series=None, x=None, **options):
    return lines({"a": [1.0]} if series is None else series, x, **{"title": "t", **options})


def confusion_of(counts=((3, 1), (0, 2)), names=None, title="t"):
    return confusion_matrix(counts, names, title=title)


def images_of(pictures=((0.0, 1.0),), shape=(1, 2), captions=(("x",),), **options):
    return images(pictures, shape, captions, **{"title": "t", **options})


def regions_of(points=((0.0, 0.0), (1.0, 2.0)), labels=(0, 1), probabilities=((0.3, 0.7),) * PLACES, **options):
    return decision_regions(points, labels, probabilities, **{"title": "t", **options})


@pytest.mark.parametrize("chart", [lines_of, confusion_of, images_of, regions_of])
def test_a_title_is_a_string(chart):
    assert chart(title="t").title == "t"
    with pytest.raises(TypeError, match="title: expected a string, got int 5"):
        chart(title=5)


@pytest.mark.parametrize(
    ("chart", "arguments", "message"),
    [
        (lines_of, {"series": {1: [1.0]}}, "a name in series: expected a string, got int 1"),
        (lines_of, {"series": {"a": 1.0}}, "a: expected a sequence of numbers, got float 1.0"),
        (lines_of, {"series": [1.0]}, r"series: expected a dict of numbers by name, got list \[1.0\]"),
        (lines_of, {"x": 3}, "x: expected a sequence of numbers, got int 3"),
        (lines_of, {"x_label": None}, "x_label: expected a string, got NoneType None"),
        (confusion_of, {"counts": 3}, "counts: expected a sequence of rows, got int 3"),
        (confusion_of, {"counts": [1, 2]}, r"counts\[0\]: expected a sequence of numbers, got int 1"),
        (confusion_of, {"counts": [["1"]]}, r"counts\[0\]\[0\]: expected a number, got str '1'"),
        (confusion_of, {"names": [0, 1]}, r"names\[0\]: expected a string, got int 0"),
        (confusion_of, {"names": 2}, "names: expected a sequence of strings, got int 2"),
        (images_of, {"pictures": [1.0, 2.0]}, r"pictures\[0\]: expected a sequence of numbers, got float 1.0"),
        (images_of, {"pictures": [[1.0, None]]}, r"pictures\[0\]\[1\]: expected a number, got NoneType None"),
        (images_of, {"pictures": 1.0}, "pictures: expected a sequence of pictures, got float 1.0"),
        (images_of, {"shape": 2}, "shape: expected a sequence of two whole numbers, got int 2"),
        (images_of, {"shape": (1, 2.0)}, r"shape\[1\]: expected a whole number, got float 2.0"),
        (images_of, {"captions": [[1]]}, r"captions\[0\]\[0\]: expected a string, got int 1"),
        (images_of, {"captions": [1]}, r"captions\[0\]: expected a sequence of strings, got int 1"),
        (images_of, {"vmax": "1"}, "vmax: expected a number, got str '1'"),
        (images_of, {"across": 1.5}, "across: expected a whole number, got float 1.5"),
        (regions_of, {"labels": [0.0, 1.0]}, r"labels\[0\]: expected a whole number, got float 0.0"),
        (regions_of, {"labels": 1}, "labels: expected a sequence of whole numbers, got int 1"),
        (regions_of, {"points": [1.0, 2.0]}, r"points\[0\]: expected a sequence of numbers, got float 1.0"),
        (regions_of, {"points": [("a", 2.0)] * 2}, r"points\[0\]\[0\]: expected a number, got str 'a'"),
        (regions_of, {"probabilities": [0.5] * PLACES}, r"probabilities\[0\]: expected a sequence of numbers, got flo"),
        (regions_of, {"probabilities": 0.5}, "probabilities: expected a sequence of rows, got float 0.5"),
        (regions_of, {"probabilities": [["0"]] * PLACES}, r"probabilities\[0\]\[0\]: expected a number, got str '0'"),
        (regions_of, {"names": [0, 1]}, r"names\[0\]: expected a string, got int 0"),
    ],
)  # fmt: skip
def test_what_is_of_another_type_is_named(chart, arguments, message):
    chart()
    with pytest.raises(TypeError, match=f"^{message}"):
        chart(**arguments)


@pytest.mark.parametrize(
    ("chart", "arguments", "message"),
    [
        (confusion_of, {"counts": [[1, NAN], [0, 2]]}, r"counts\[0\]\[1\]: expected a finite number >= 0, got nan"),
        (confusion_of, {"counts": [[1, 0], [-3, 2]]}, r"counts\[1\]\[0\]: expected a finite number >= 0, got -3"),
        (confusion_of, {"counts": [[math.inf]]}, r"counts\[0\]\[0\]: expected a finite number >= 0, got inf"),
        (images_of, {"across": 0}, "across: expected a whole number >= 1, got 0"),
        (images_of, {"shape": (1, 2, 3)}, r"shape: expected rows and columns, got \(1, 2, 3\)"),
        (regions_of, {"probabilities": [[0.5, 0.5], [1.0]] * (PLACES // 2)},
         r"probabilities\[1\]: expected 2 numbers, as in the first row, got 1"),
        (regions_of, {"probabilities": [[]] * PLACES}, r"probabilities\[0\]: expected at least one number, got 0"),
    ],
)  # fmt: skip
def test_numbers_that_fit_nowhere_are_named(chart, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        chart(**arguments)


def test_the_places_of_what_are_no_points_are_not_known_either():
    with pytest.raises(TypeError, match=r"points\[1\]: expected a sequence of numbers, got int 2"):
        grid([(0.0, 1.0), 2])


def test_numbers_and_strings_may_be_of_other_libraries():
    numpy = pytest.importorskip("numpy")
    answers = numpy.full((PLACES, 2), 0.5)
    assert regions_of(numpy.zeros((2, 2)), numpy.array([0, 1]), answers, names="AB").about.startswith("2 points of 2")
    assert confusion_of(numpy.array([[3, 1], [0, 2]]), numpy.array(["a", "b"])).about.startswith("5 of 6")
    assert images_of(numpy.zeros((1, 2)), numpy.array([1, 2])).about.startswith("1 picture of 1 × 2")
    assert lines_of({"a": numpy.ones(3)}, numpy.arange(3)).about.startswith("a goes from 1 to 1")
