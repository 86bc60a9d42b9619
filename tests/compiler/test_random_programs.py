"""Random programs, from random_programs.py: every way to compute and to differentiate them gives the same numbers.

`MILLIGRAD_RANDOM_PROGRAMS=1000 pytest …` tries that many; the script itself runs by the clock.
"""

import os

import pytest

from milligrad import ops
from milligrad.compiler.backends import has_llvmlite
from tests.compiler import random_programs
from tests.compiler.in_c import HAS_CC
from tests.compiler.random_programs import Example, failure

COUNT = int(os.environ.get("MILLIGRAD_RANDOM_PROGRAMS", "80"))
BLOCKS = 10


@pytest.mark.parametrize("block", range(BLOCKS))
def test_all_ways_to_compute_a_random_program_agree(block):
    """Of ten examples one goes to llvm, which takes ten times as long to compile, and another one to C."""
    verdicts = []
    for seed in range(block, COUNT, BLOCKS):
        backends = ["python"]
        if has_llvmlite() and seed % 10 == seed // 10 % 10:
            backends.append("llvm")
        if HAS_CC and seed % 10 == (seed // 10 + 5) % 10:
            backends.append("c")
        verdict = failure(Example(seed), backends)
        assert not verdict.startswith("FAILED"), f"{verdict}\n{Example(seed)}"
        verdicts.append(verdict)
    assert verdicts.count("") > len(verdicts) / 3


@pytest.mark.parametrize("backend", ["python", pytest.param("c", marks=pytest.mark.skipif(not HAS_CC, reason="no cc"))])
def test_what_cancels_before_a_root_of_0_has_a_derivative_forwards_alone(backend):
    """Seed 152 has √(x - x): its tangent is 0 times one that is not finite, and backwards that is ∞ - ∞."""
    assert failure(Example(152), [backend]) == ""


def test_an_example_is_the_same_each_time():
    assert str(Example(3)) == str(Example(3)) != str(Example(4))


def test_a_way_that_differs_is_found(monkeypatch):
    """At the point of zeros, too."""
    wrong = lambda f, x, v, w: [2 * g for g in random_programs.FIRST["jvp"](f, x, v, w)]  # noqa: E731
    monkeypatch.setitem(random_programs.FIRST, "wrong", wrong)
    assert any("wrong at" in failure(Example(seed), []) for seed in range(10))


def test_a_wrong_value_is_found(monkeypatch):
    """The plain floats know nothing of the engine."""
    monkeypatch.setitem(random_programs.PLAIN, "tanh", lambda x: 1.001 * float(ops.tanh(x)))
    assert any("plain floats" in failure(Example(seed), []) for seed in range(30))
