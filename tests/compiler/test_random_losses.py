"""Random losses, from random_losses.py: compiled training walks the eager engine's trajectory, or says why not.

`MILLIGRAD_RANDOM_LOSSES=1000 pytest …` tries that many; the script itself runs by the clock.
"""

import os

import pytest

from milligrad.compiler.backends import has_llvmlite
from tests.compiler.random_losses import Example, failure

COUNT = int(os.environ.get("MILLIGRAD_RANDOM_LOSSES", "50"))
BLOCKS = 10


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_losses_are_trained_as_the_eager_engine_trains_them_or_refused(block):
    """Of ten examples one goes to llvm, which takes ten times as long to compile."""
    verdicts = []
    for seed in range(block, COUNT, BLOCKS):
        backends = ["python", "llvm"] if has_llvmlite() and seed % 10 == seed // 10 % 10 else ["python"]
        verdict = failure(Example(seed), backends)
        assert not verdict.startswith("FAILED"), f"{verdict}\n{Example(seed)}"
        verdicts.append(verdict.partition(":")[0])
    assert "" in verdicts and verdicts.count("refused") < len(verdicts) / 2


def test_an_example_is_the_same_each_time():
    assert str(Example(3)) == str(Example(3)) != str(Example(4))
    assert Example(7).numbers("eager") == Example(7).numbers("eager")
