"""An epoch over batches of twenty lengths, with losses that couple the samples: one program for them, or one for each.

    python benchmarks/compiler/lengths.py [--backend llvm]

Both are made by the same code in the same run; for "one for each", sharing is switched off. Compiling is the first
epoch less the second, running the second one.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from typing import Any
from unittest.mock import patch

os.environ["MILLIGRAD_CACHE"] = "off"  # nothing of an earlier run

from milligrad import manual_seed, nn, ops, optim
from milligrad.compiler.fit import CompiledSession, Lengths, Whole

LENGTHS = [*range(32, 52)]
MUST = {"batch normalization": 3.0, "pairs": 2.0, "in-batch negatives": 2.0}  # as many times as long at the least


class Net(nn.Module):
    def __init__(self, normalized: bool) -> None:
        super().__init__()
        manual_seed(0)
        self.first, self.last, self.normalized = nn.Linear(8, 16), nn.Linear(16, 4), normalized

    def forward(self, x: Any) -> Any:
        rows = self.first(x)
        if self.normalized:
            columns = []
            for column in zip(*rows):
                mean = sum(column) / len(column)
                variance = sum([(x - mean) ** 2 for x in column]) / len(column)
                columns.append([(x - mean) / ops.sqrt(variance + 1e-5) for x in column])
            rows = zip(*columns)
        return self.last([[ops.tanh(x) for x in row] for row in rows])


def squares(p: Any, y: Any) -> Any:
    return sum([(a - b) ** 2 for row, t in zip(p, y) for a, b in zip(row, t)]) / len(p)


def similarity(x: Any, y: Any) -> Any:
    return sum([a * b for a, b in zip(x, y)])


def pairs(p: Any, y: Any) -> Any:
    return sum([ops.relu(1.0 - similarity(a, b)) for i, a in enumerate(p) for b in p[:i]]) / len(p) ** 2


def negatives(p: Any, y: Any) -> Any:
    rows = [[similarity(a, b) for b in y] for a in p]
    return sum([ops.logsumexp(row) - row[i] for i, row in enumerate(rows)]) / len(p)


LOSSES = {"batch normalization": (True, squares), "pairs": (False, pairs), "in-batch negatives": (False, negatives)}


def batch(n: int) -> tuple[Any, Any]:
    rng = random.Random(n)
    x, y = ([[rng.gauss(0, 1) for _ in range(width)] for _ in range(n)] for width in (8, 4))
    return x, y


def epochs(backend: str, normalized: bool, loss_fn: Any) -> tuple[float, float, int, list[float]]:
    """(seconds to compile, to run an epoch, programs compiled, the losses)."""
    model = Net(normalized)
    session = CompiledSession(model, loss_fn, optim.SGD(model.parameters(), lr=0.01), None, backend)
    session.load()
    batches, seconds, losses = [batch(n) for n in LENGTHS], [], []
    for _ in range(3):
        started = time.perf_counter()
        losses += [session.batch(*b)[0] for b in batches]
        seconds.append(time.perf_counter() - started)
    wholes = [code for code in session._codes.values() if isinstance(code, Whole)]
    shared = ["any length" in code.executable.program.info.get("shape", "") for code in wholes]
    run = min(seconds[1:])
    return seconds[0] - run, run, shared.count(False) + any(shared), losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="llvm", choices=("llvm", "python"))
    backend = parser.parse_args().backend
    print(f"{backend}: an epoch over batches of {len(LENGTHS)} lengths, {LENGTHS[0]} to {LENGTHS[-1]}")
    print(f"{'':21}{'one for each':>26}{'shared':>26}   compile   run")
    for name, (normalized, loss_fn) in LOSSES.items():
        one = epochs(backend, normalized, loss_fn)
        with patch.object(Lengths, "made", lambda *_: None):
            each = epochs(backend, normalized, loss_fn)
        assert all([abs(x - y) <= 1e-9 * abs(x) for x, y in zip(one[3], each[3])])
        texts = [f"{n:3} × {c:6.2f} s, run {1000 * r:6.2f} ms" for c, r, n, _ in (each, one)]
        compile_, run = each[0] / one[0], one[1] / each[1]
        missed = "" if compile_ >= MUST[name] or backend == "python" else f"   missed: ÷ {MUST[name]}"
        print(f"{name:21}{texts[0]}   {texts[1]}   ÷ {compile_:4.1f}   × {run:4.2f}{missed}")


if __name__ == "__main__":
    main()
