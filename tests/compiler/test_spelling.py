"""The rows of `spelling`: one for each op of the table. Their numbers are tested with the printers."""

import pytest

from milligrad import Value, compile
from milligrad.compiler.backends import has_llvmlite
from milligrad.compiler.c.in_order import Language, composed
from milligrad.compiler.llvm.nests import FOLDED
from milligrad.compiler.spelling import FOLDS, SPELLINGS, cost
from milligrad.engine import TABLE, Op, Reduction, apply
from milligrad.transforms import value_and_grad


def test_there_is_a_row_for_each_op_of_the_table_and_for_nothing_else():
    assert {*SPELLINGS} == {name for name, op in TABLE.items() if not isinstance(op, Reduction)}
    assert {*FOLDS} | {"logsumexp"} == FOLDED == {*TABLE} - {*SPELLINGS} - {"dot", "chain"}  # those are sums


def test_arithmetic_is_cheap_and_what_is_not_told_is_dear():
    assert cost("add") == cost("where") == 1 < cost("div") == cost("sqrt") < cost("exp") == cost("somebody's own")


@pytest.mark.parametrize("name", ["relu", "add", "log", "max", "pow"])
@pytest.mark.parametrize("backend", ["python", "llvm"])
@pytest.mark.parametrize("steps", [1, 300])  # by groups, and in order
def test_an_op_of_your_own_is_no_row_of_the_table_whatever_it_is_called(name, backend, steps):
    if backend == "llvm" and not has_llvmlite():
        pytest.skip("needs llvmlite")
    own = Op(name, lambda x, y: x + 10.0 * y, lambda z, x, y: (1.0, 10.0), f"{name}!({{}}, {{}})", "Not the row.")

    def f(x):
        y = x
        for _ in range(steps):
            y = apply(own, (y, x * 0.001))
        return y

    x = Value(2.0)
    y = f(x)
    y.backward()
    compiled = compile(value_and_grad(f), backend=backend)
    if backend == "llvm":
        with pytest.raises(NotImplementedError, match=f"the llvm backend has no op .{name}"):
            compiled(2.0)
    else:
        assert compiled(2.0) == (pytest.approx(y.data, rel=1e-12), pytest.approx(x.grad, rel=1e-12))


def test_a_long_formula_is_a_function_of_c_in_which_what_is_used_twice_has_a_name():
    assert {*composed()} == {"sigmoid", "softplus", "bce", "clamp", "xlogy", "log1mexp", "log_normal_cdf"}
    assert Language("float32").helper("sigmoid") == [
        "static float sigmoid(float x)",
        "{",
        "    const float t1 = expf(-fabsf(x));",
        "    return (x >= 0.0f ? 1.0f : t1) / (t1 + 1.0f);",
        "}",
    ]


def test_of_pieces_of_c_those_that_bind_less_tightly_stand_in_parentheses():
    code = Language("float64")
    x, y, z = (SPELLINGS["identity"].formula(code.function(name)) for name in "xyz")

    def text(piece):
        from milligrad.compiler.c.in_order import written

        return written(piece).replace("()", "")

    assert text(x - (y - z) * x) == "x - (y - z) * x"
    assert text((x - y) - z) == "x - y - z" and text(x / (y * z)) == "x / (y * z)" and text(x + -y) == "x + -y"
    minus = -x
    assert text(-minus) == "-(-x)" and text(2.0 * 1.0 - x * -3.0) == "2.0 - x * -3.0"
    assert text(code.select(x < y, code.select(y < z, x, y), z)) == "x < y ? (y < z ? x : y) : z"
    assert text(code.select((x < y) & (y < z) | z.equals(x), 1.0, z)) == "x < y && y < z || z == x ? 1.0 : z"
    assert text(code.intrinsic("fmuladd", x, y, z)) == "z + x * y"
