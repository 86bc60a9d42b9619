import math
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from milligrad import Value, dot, sum, tanh
from milligrad.explain import explain
from milligrad.explain.paths import paths
from milligrad.markup import shown
from tests.draw.graphs import graphs, small


def all_paths(built, source):
    """Every path from a Value to the output as (its Values, its derivatives), by the edges the graph was built of."""
    output = len(built.values) - 1
    after = {}
    for i, j, d in built.edges:
        after.setdefault(i, []).append((j, d))
    stack, found = [((source,), ())], []
    while stack:
        nodes, derivatives = stack.pop()
        if nodes[-1] == output:
            found.append((nodes, derivatives))
        for j, d in after.get(nodes[-1], ()):
            stack.append(((*nodes, j), (*derivatives, d)))
        assume(len(found) + len(stack) < 5_000)
    return found


@st.composite
def graphs_and_sources(draw):
    built = draw(graphs())
    live = [i for i, x in enumerate(built.values) if x.requires_grad]
    return built, draw(st.sampled_from(live))


@given(graphs_and_sources())
def test_all_paths_are_those_of_the_edges_that_were_built(case):
    built, i = case
    source, output = built.values[i], built.output
    expected = all_paths(built, i)
    explanation = explain(output, wrt=source, max_paths=5_000)
    number = {x: k for k, x in enumerate(built.values)}
    found = [(tuple(number[x] for x in p.nodes), p.derivatives) for p in explanation.paths]
    assert sorted(nodes for nodes, _ in found) == sorted(nodes for nodes, _ in expected)
    for (_, ds), (_, expected_ds) in zip(sorted(found), sorted(expected)):
        assert ds == pytest.approx(expected_ds)
    for path in explanation.paths:
        assert path.product == pytest.approx(math.prod(path.derivatives), rel=1e-12)
    sizes = [abs(path.product) for path in explanation.paths]
    assert sizes == sorted(sizes, reverse=True)


@given(graphs_and_sources())
def test_the_products_add_up_to_the_gradient(case):
    built, i = case
    source, output = built.values[i], built.output
    all_paths(built, i)
    explanation = explain(output, wrt=source, max_paths=5_000)
    for x in built.values:
        x.grad = 0.0
    output.backward()
    products = [path.product for path in explanation.paths]
    scale = math.fsum(map(abs, products))
    assert math.fsum(products) == pytest.approx(source.grad, rel=0, abs=1e-12 * scale)
    assert explanation.total == source.grad


def test_a_gradient_of_minus_zero_is_shown_as_0_like_the_products_that_make_it():
    x, zero = Value(0.0, "x"), Value(0.0, requires_grad=False)
    explanation = explain((x * zero + x * zero) * -0.25, wrt=x)
    [table] = [block for block in explanation.blocks if getattr(block, "label", "") == "paths"]
    assert {row[0] for row in table.rows} == {"0"} and math.copysign(1.0, explanation.total) == 1.0


@given(graphs_and_sources(), st.integers(1, 8) | st.just(5_000))
def test_the_table_says_what_is_so(case, most):
    """The column adds up to its last row; each row is the product of its factors; no two paths have one row."""
    built, i = case
    all_paths(built, i)
    explanation = explain(built.output, wrt=built.values[i], max_paths=most)
    assume(explanation.paths)
    [table] = [block for block in explanation.blocks if getattr(block, "label", "") == "paths"]
    whole = [row for row in table.rows if row[2] and "…" not in row[1]]
    for product, _, factors in whole:
        result = math.prod(map(number, factors.split(" · ")))
        assert product in [shown(0.0 + result, digits) for digits in range(4, 18)]
    assert len({row[1] for row in whole}) == len(whole)
    if len(table.rows) > 1:
        *column, last = [number(row[0]) for row in table.rows]
        scale = math.fsum(abs(path.product) for path in explanation.paths)
        assert shown(math.fsum(column)) == shown(last) or abs(math.fsum(column) - last) < 1e-14 * scale


def test_the_column_adds_up_where_paths_cancel():
    a = Value(1e6, "a")
    rows = explain(a * a - (a * a) * 0.999999, wrt=a).blocks[1].rows
    assert [row[0] for row in rows] == ["1e+06", "1e+06", "−999999", "−999999", "2"]
    assert rows[0][1] == "a → v1 → v4, through the 1st a"
    assert rows[3][1:] == ("a → v2 → v3 → v4, through the 2nd a", "1e+06 · 0.999999 · −1")


def test_a_sum_that_floats_cannot_add_up_says_so():
    a = Value(1.0, "a")
    rows = explain(a * 1e16 + a - a * 1e16, wrt=a).blocks[1].rows
    assert [row[0] for row in rows] == ["1e+16", "−1e+16", "1", "0"]
    assert rows[-1][1] == "the sum of all, as floats add it up"


def test_a_gradient_that_is_not_the_sum_does_not_look_like_it():
    x = Value(3.0, "x")
    y = x * x
    y.backward()
    x.grad += 1e-6
    assert "x.grad is 6.000001, which is not from v1 alone" in str(explain(y, wrt=x))


@given(graphs_and_sources(), st.integers(1, 8))
def test_a_few_paths_are_the_largest(case, most):
    built, i = case
    sizes = sorted([abs(math.prod(ds)) for _, ds in all_paths(built, i)], reverse=True)
    count, found = paths(built.values[i], built.output, most)
    assert count == len(sizes)
    assert len(found) == min(most, count)
    assert len({(p.nodes, p.derivatives) for p in found}) <= len(found)
    assert [abs(p.product) for p in found] == pytest.approx(sizes[:most])


@settings(max_examples=25)
@given(graphs_and_sources())
def test_nothing_is_changed_by_asking(case):
    built, i = case
    built.output.grad, built.values[i].grad = 3.0, -2.0
    before = [(x.data, x.grad, x.op, x.name) for x in built.values]
    str(explain(built.output, wrt=built.values[i]))
    assert [(x.data, x.grad, x.op, x.name) for x in built.values] == before


def doubled(x, times, a=0.5, b=0.51):
    for _ in range(times):
        x = x * a + x * b
    return x


def test_exponentially_many_paths_are_counted_and_added_up():
    x = Value(1.0, "x")
    z = doubled(x, 60)
    count, found = paths(x, z, 3)
    assert count == 2**60
    assert [p.product for p in found] == pytest.approx([0.51**60, 0.51**59 * 0.5, 0.51**59 * 0.5])
    assert len({p.nodes for p in found}) == 3
    text = str(explain(z, wrt=x, max_paths=3))
    assert "1,152,921,504,606,846,976 paths lead from x to v180; these 3 are the largest." in text
    assert "1,152,921,504,606,846,973 more paths, together" in text


def test_equal_paths_are_no_trap():
    x = z = Value(1.0)
    for _ in range(200):
        z = z + z
    count, found = paths(x, z, 20)
    assert count == 2**200
    assert [p.product for p in found] == [1.0] * 20


def test_numbers_of_paths_that_nobody_could_read():
    x = z = Value(1.0)
    for _ in range(20_000):
        z = z + z * 0.5
    text = str(explain(z, wrt=x, max_paths=2))
    assert "about 10^6,021 paths lead" in text
    for _ in range(20_000):
        z = z + z * 0.5
    assert "more than 10^10,000 paths lead" in str(explain(z, wrt=x, max_paths=2))


def test_long_paths_that_look_alike_are_one_row():
    x = z = Value(1.0, "x")
    for _ in range(12):
        z = z + z
    rows = explain(z, wrt=x, max_paths=30).blocks[1].rows
    first = "x → v1 → v2 → … 7 more … → v10 → v11 → v12, 30 such paths together"
    each, last = "each 1 · 1 · 1 · (6 more: 1) · 1 · 1 · 1", ("4096", "the sum of all", "")
    assert [*rows] == [("30", first, each), ("4066", "4,066 more paths, together", ""), last]


def test_a_deep_graph_needs_no_recursion():
    w = z = Value(0.5, "w")
    for _ in range(50_000):
        z = z * w + 1.5
    explanation = explain(z, wrt=w, max_paths=3)
    assert len(explanation.paths) == 3
    assert len(explanation.paths[0].nodes) == 3
    assert "50,001 paths lead from w to v100000" in str(explanation)
    x = z = Value(1.0, "x")
    for _ in range(100_000):
        z = z * 1.00001
    [path] = explain(z, wrt=x).paths
    assert len(path.nodes) == 100_001
    assert path.product == pytest.approx(math.e, rel=1e-5)


def test_a_long_path_is_elided_in_the_middle():
    x = z = Value(1.0, "x")
    for _ in range(10_000):
        z = z * 0.999
    text = str(explain(z, wrt=x))
    assert "x → v1 → v2 → … 9,995 more … → v9998 → v9999 → v10000" in text
    assert f"0.999 · 0.999 · 0.999 · (9,994 more: {0.999**9994:.5g}) · 0.999 · 0.999 · 0.999".replace("-", "−") in text
    assert "Step by step" not in text


@pytest.mark.parametrize("length, whole", [(1, True), (8, True), (9, False)])
def test_a_path_that_fits_is_whole(length, whole):
    x = z = Value(1.0, "x")
    for _ in range(length):
        z = z * 0.5
    text = str(explain(z, wrt=x))
    assert (" → ".join(["x", *[f"v{i}" for i in range(1, length + 1)]]) in text) == whole
    assert (" · ".join(["0.5"] * length) in text) == whole


def test_products_too_small_for_a_float_are_still_in_order():
    x = Value(1.0)
    small, smaller = x, x
    for _ in range(3):
        small, smaller = small * 1e-200, smaller * 1e-201
    z = smaller + small
    _, found = paths(x, z, 2)
    assert [p.product for p in found] == [0.0, 0.0]
    assert [p.derivatives[0] for p in found] == [1e-200, 1e-201]
    _, [best] = paths(x, z, 1)
    assert best.derivatives[0] == 1e-200


def test_products_too_large_for_a_float_are_still_in_order():
    x = Value(1e-300)
    large, larger = x, x
    for _ in range(2):
        large, larger = large * 1e180, larger * 1e181
    _, [best] = paths(x, large + larger, 1)
    assert best.derivatives[0] == 1e181


def test_nan_comes_first_and_then_infinity_and_zero_last():
    x = Value(0.0)
    zero, inf, nan = Value(0.0), Value(math.inf), Value(math.nan)
    z = sum([x * zero, x * 2.0, x * nan, x * inf, x * -3.0])
    _, found = paths(x, z, 5)
    assert [str(p.product) for p in found] == ["nan", "inf", "-3.0", "2.0", "0.0"]
    for most, expected in (1, ["nan"]), (2, ["nan", "inf"]), (3, ["nan", "inf", "-3.0"]):
        assert [str(p.product) for p in paths(x, z, most)[1]] == expected


def test_a_product_that_is_nan_is_shown_first_and_zero_times_infinity_is_zero():
    x = Value(0.0)
    z = x * 2.0 + (x * Value(0.0)) * Value(math.inf) + x * 3.0
    assert [str(p.product) for p in paths(x, z, 3)[1]] == ["3.0", "2.0", "0.0"]
    z = x * 2.0 + x * Value(math.nan) + x * 3.0
    assert [str(p.product) for p in paths(x, z, 3)[1]] == ["nan", "3.0", "2.0"]


@pytest.mark.parametrize("most, shown, rest", [(1, ["5"], "−1"), (2, ["5", "−3"], "2"), (3, ["5", "−3", "2"], None)])
def test_what_is_not_shown_is_added_up(most, shown, rest):
    x = Value(1.0, "x")
    lines = str(explain(sum([x * 2.0, x * 5.0, x * -3.0]), wrt=x, max_paths=most)).splitlines()
    assert [line.split()[0] for line in lines if " x →" in line] == shown
    assert [line.split()[0] for line in lines if " more path" in line] == ([rest] if rest else [])
    assert [line.split()[0] for line in lines if "the sum of all" in line] == ["4"]
    if rest:
        assert f"{3 - most} more path{'s, together' * (most == 1)}" in "\n".join(lines)


def test_a_value_that_is_used_twice_by_one_operation_lies_on_two_paths():
    x = Value(3.0, "x")
    assert [(p.derivatives, p.product) for p in explain(x * x, wrt=x).paths] == [((3.0,), 3.0)] * 2
    z = dot([x, x], [2.0, x])
    assert sorted(p.product for p in explain(z, wrt=x).paths) == [2.0, 3.0, 3.0]
    assert explain(z, wrt=x).total == 8.0


def test_only_what_is_between_counts():
    x, w = Value(0.5, "x"), Value(2.0, "w")
    inner = tanh(x * w)
    z = inner * inner + w
    explanation = explain(z, wrt=inner)
    assert [p.nodes[0] for p in explanation.paths] == [inner, inner]
    assert explanation.total == 2 * inner.data
    assert all(x not in p.nodes and w not in p.nodes for p in explanation.paths)


def test_the_loss_itself():
    x = Value(2.0, "x")
    [path] = explain(x, wrt=x).paths
    assert (path.nodes, path.derivatives, path.product) == ((x,), (), 1.0)
    z = x * x
    assert explain(z, wrt=z).total == 1.0


def test_no_path_is_said_plainly():
    x, y = Value(1.0, "x"), Value(2.0, "y")
    for z in (y * 3.0, y * x.detach()):
        z.name = "z"
        explanation = explain(z, wrt=x)
        assert explanation.total == 0.0
        assert explanation.paths == ()
        assert "No path leads from x to z" in str(explanation)


NEURON = """\
∂y/∂w = 0.4576: how y = −0.2913 moves with w = −1.2

One path leads from w to y. Its local derivatives, multiplied:

  product   path              local derivatives
   0.4576   w → v1 → v2 → y   0.5 · 1 · 0.9151

Step by step:

  what was computed   local derivative
  v1 = x * w          ∂v1/∂w = x = 0.5
  v2 = v1 + b         ∂v2/∂v1 = 1
  y = tanh(v2)        ∂y/∂v2 = 1 - y * y = 1 - (−0.2913) * (−0.2913) = 0.9151

w.grad is 0.4576, too."""


def test_the_neuron_of_the_readme():
    x, w, b = Value(0.5, name="x"), Value(-1.2, name="w"), Value(0.3, name="b")
    y = (x * w + b).tanh()
    y.name = "y"
    y.backward()
    assert str(explain(y, wrt=w)) == NEURON


def number(line):
    return float(line.split()[0].replace("−", "-"))


def test_a_sum_line_says_what_all_paths_add_up_to():
    y = small()
    [x] = [x for x in y.inputs if x.name == "x"]
    lines = str(explain(y, wrt=x)).splitlines()
    products = [number(line) for line in lines if " x →" in line]
    [total] = [number(line) for line in lines if "the sum of all" in line]
    assert math.fsum(products) == pytest.approx(total, abs=1e-3)
    assert total == float(f"{x.grad:.4g}")
    assert "−0.5 · 1 · 0.7864 · 2\n" in str(explain(y, wrt=x))


def test_digits_are_those_asked_for():
    y = small()
    [x] = [x for x in y.inputs if x.name == "x"]
    assert f"x.grad is −{-x.grad:.7g}, too." in str(explain(y, wrt=x, precision=7))
    assert f"∂y/∂x = −{-x.grad:.2g}:" in str(explain(y, wrt=x, precision=2))


@pytest.mark.parametrize(
    "prepare, expected",
    [
        (lambda z, x: None, "x.grad is 0: z.backward() has not run yet, or gradients were zeroed since."),
        (lambda z, x: z.backward(), "x.grad is 6, too."),
        (
            lambda z, x: (z.backward(), z.backward(), z.backward()),
            "x.grad is 18, 3 times as much, as z.grad is 3: z.backward() ran 3 times, and gradients add up; or\n"
            "backward() ran on what was computed of z.",
        ),
        (lambda z, x: z.backward(0.5), "x.grad is 3: backward began with z.grad = 0.5."),
        (
            lambda z, x: (z.backward(), (x * 5.0).backward()),
            "x.grad is 11, which is not from z alone: gradients add up until zero_grad(), or were changed since.",
        ),
        (
            lambda z, x: (x * 5.0).backward(),
            "x.grad is 5, which is not from z alone: gradients add up until zero_grad(), or were changed since.",
        ),
    ],
)
def test_it_compares_with_the_gradient_that_is_there(prepare, expected):
    x = Value(3.0, "x")
    z = x * x
    z.name = "z"
    prepare(z, x)
    assert str(explain(z, wrt=x)).endswith(f"\n\n{expected}")


def test_a_derivative_that_does_not_exist_is_said_in_words():
    x = Value(0.0, "x")
    z = x.sqrt() * 2.0 + x
    z.name = "z"
    explanation = explain(z, wrt=x)
    assert math.isnan(explanation.total)
    assert [str(p.product) for p in explanation.paths] == ["nan", "1.0"]
    text = " ".join(str(explanation).split())
    assert "∂z/∂x is no number: how z = 0 moves with x = 0" in text
    assert (
        "∂z/∂x does not exist: v1 = sqrt(x) = sqrt(0) = 0 has no finite derivative (float division by zero), and"
        in text
    )


def test_steps_are_explained_once_and_their_derivatives_each():
    x = Value(3.0, "x")
    z = x * x
    z.name = "z"
    steps = str(explain(z + 0.0, wrt=x)).split("Step by step:")[1]
    assert steps.count("z = x * x") == 1
    assert steps.count("∂z/∂x through the 1st x = x = 3") == steps.count("∂z/∂x through the 2nd x = x = 3") == 1
    y = dot([x, 1.0], [2.0, x])
    steps = str(explain(y, wrt=x)).split("Step by step:")[1]
    assert "∂v1/∂x through the 1st x = 2" in steps
    assert "∂v1/∂x through the 2nd x = 1" in steps


def exact(built, source):
    """The sum of all products, without rounding."""
    return float(math.fsum(math.prod(map(Fraction, ds)) for _, ds in all_paths(built, source)))


@settings(max_examples=25)
@given(graphs_and_sources())
def test_the_total_is_the_sum_without_rounding(case):
    built, i = case
    scale = math.fsum(abs(math.prod(ds)) for _, ds in all_paths(built, i))
    assert explain(built.output, wrt=built.values[i]).total == pytest.approx(exact(built, i), rel=0, abs=1e-12 * scale)


def test_a_derivative_that_is_missing_elsewhere_stops_backward_too():
    x, y = Value(0.0, "x"), Value(3.0, "y")
    explanation = explain(x.sqrt() + y * y, wrt=y)
    assert explanation.total == 6.0
    text = " ".join(str(explanation).split())
    assert "y.grad cannot be had: v1 = sqrt(x) = sqrt(0) = 0 has no finite derivative" in text
    assert "does not exist" not in text


def test_numbers_that_changed_since_are_told():
    x = Value(2.0, "x")
    y = x * x
    x.data = 3.0
    explanation = explain(y, wrt=x)
    assert [f.kind for f in explanation.findings] == ["changed"]
    assert "v1 = x * x is still 4" in str(explanation)
    assert explain(x * x, wrt=x).findings == []


def test_what_lies_on_no_path_makes_no_derivative_missing():
    x, y, z = Value(1.0, "x"), Value(0.0, "y"), Value(0.0, "z")
    text = str(explain(x.sqrt() * 2 + y.sqrt() + z.sqrt(), wrt=y))
    assert text.index("∂v6/∂y does not exist: v3 = sqrt(y)") < text.index("y.grad cannot be had: v5 = sqrt(z)")
    assert text.count("does not exist") == 1
