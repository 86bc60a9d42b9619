"""Does a test notice a broken derivative? Multiply each partial of the table by 1.01, one at a time, and see.

    python tests/break_each_row.py

For every row of the table and each of its partials this runs the pure-Python tests with that partial 1 % off, and
prints whether a test failed. It exits with 1 if any change survived. Loaded by pytest as a plugin (`-p`), with the
change named in the environment, the same file makes the change: "mul:0" is the first partial of mul. A row of many
inputs is broken in its first partial, in its last, and in all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from milligrad.engine import Op, Reduction  # noqa: E402
from milligrad.ops import TABLE  # noqa: E402

CHANGE = "MILLIGRAD_BREAK"
FACTOR = 1.01
TESTS_FAILED = 1  # pytest's exit code; others mean that the tests did not run


def break_partial(row: Op, which: str) -> None:
    """Make one partial of the row (or with "all" every one) wrong by the factor."""
    right = row.partials

    def wrong(*inputs):
        partials = list(right(*inputs))
        for i in range(len(partials)) if which == "all" else [int(which)]:
            partials[i] = partials[i] * FACTOR
        return partials

    row.partials = wrong


def pytest_configure(config) -> None:
    name, _, which = os.environ.get(CHANGE, "").partition(":")
    if name:
        break_partial(TABLE[name], which)


def pytest_collection_modifyitems(items) -> None:
    """The test of the table first: it takes two seconds, and most changes go no further."""
    items.sort(key=lambda item: not ("tests/test_ops.py" in item.nodeid and "finite_differences" in item.name))


def changes() -> list[str]:
    """All changes that change anything: a partial that is 0 for every input stays 0."""
    found = []
    for row in TABLE.values():
        if isinstance(row, Reduction):
            found += [f"{row.name}:{which}" for which in ("0", "-1", "all")]
        else:
            n = row.form.count("{}")
            found += [f"{row.name}:{i}" for i in range(n) if not is_zero(row, i, n)]
    return found


def is_zero(row: Op, i: int, n: int) -> bool:
    """Whether a partial is 0 at every one of some points, in any order of three numbers from each row's domain."""
    points = [[a, b, c][:n] for a in (0.2, 0.5, 0.9) for b in (0.3, 0.6, 0.8) for c in (0.1, 0.4, 0.7)]
    return not any(row.partials(row.value(*xs), *xs)[i] for xs in points)


def run(change: str) -> tuple[int, str]:
    """pytest's exit code for the pure tests under the change, and its last line."""
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-x", "-q", "-p", "break_each_row", "-p", "no:cacheprovider"),
            *("tests", "--ignore=tests/against_torch", "--no-header", "--tb=no"),
        ],
        cwd=ROOT,
        env={**os.environ, CHANGE: change, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    lines = [line for line in (process.stdout + process.stderr).splitlines() if line.strip()]
    failed = [line.partition(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))]
    return process.returncode, (failed or lines or ["no output"])[-1]


def verdict(change: str) -> tuple[str, str, str]:
    code, line = run(change)
    return change, {TESTS_FAILED: "caught", 0: "SURVIVED"}.get(code, f"NOT RUN (pytest's exit code {code})"), line


def main() -> int:
    start = time.perf_counter()
    code, line = run("")
    if code:
        print(f"The tests fail without any change, so nothing can be learned from them: {line}")
        return 2
    found = changes()
    with ThreadPoolExecutor(2) as pool:
        results = []
        for change, result, line in pool.map(verdict, found):
            print(f"{change:16}{result:10}{line}", flush=True)
            results.append(result)
    caught = results.count("caught")
    print(f"{caught} of {len(found)} changes caught, in {time.perf_counter() - start:.0f} s")
    return 0 if caught == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
