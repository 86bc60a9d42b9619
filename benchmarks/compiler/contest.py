"""What the scripts of this folder share: contenders that take turns, and the table of how they compare.

It measures and prints; it knows no library. A contender is a function that runs one round of its work and returns the
seconds that a unit of it took (a step, an evaluation). Contenders take turns, so that a slow minute of a shared machine
meets all of them; a time is the median over the rounds, a ratio the median of the ratios round by round.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.metadata
import os
import platform
import shlex
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("MILLIGRAD_CACHE", "off")  # what is compiled is compiled, but where a script asks for the cache

Contender = Callable[[], float]
Times = Mapping[str, Sequence[float]]

VERSIONS = {
    "micrograd": "0.1.0", "torch": "2.13.0", "casadi": "3.8.2", "xad": "1.5.2", "jax": "0.10.2", "llvmlite": "0.50.0",
}  # fmt: skip
"""The peers, and the version of each that the goals were set against."""


class Goal(NamedTuple):
    """What a contender of ours must reach beside another: `bound` times as fast, or no more than `bound` its time."""

    ours: str
    theirs: str
    bound: float | None  # None: shown without a goal
    kind: str = "as fast"  # or "its time"


def parser(doc: str, rounds: int) -> argparse.ArgumentParser:
    """A command line with what every script takes: --rounds, --only and --skip."""
    options = argparse.ArgumentParser(description=doc.splitlines()[0])
    options.add_argument("--rounds", type=int, default=rounds, help=f"rounds to take the median of ({rounds})")
    options.add_argument("--only", default="", metavar="A,B", help="run the contenders whose names begin with A or B")
    options.add_argument("--skip", default="", metavar="A,B", help="leave out those whose names begin so")
    return options


def chosen(names: Iterable[str], options: argparse.Namespace) -> list[str]:
    """The names that --only and --skip leave. Exits if that is none of them."""
    names = list(names)

    def listed(name: str, parts: str) -> bool:
        return any(name.lower().startswith(part.strip().lower()) for part in parts.split(",") if part.strip())

    left = [
        name for name in names if (not options.only or listed(name, options.only)) and not listed(name, options.skip)
    ]
    if not left:
        sys.exit(f"--only and --skip leave none of these: {', '.join(names)}")
    return left


def peer(name: str) -> Any:
    """The module `name`. Exits with the line that installs it, if it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        sys.exit(
            f"This contender needs {package} ({error}): pip install {package}=={VERSIONS[package]}\n"
            "or leave it out by --skip, see --help."
        )


def torch_on_one_thread() -> Any:
    """PyTorch, which from now on uses one thread."""
    torch = peer("torch")
    torch.set_num_threads(1)
    return torch


def library(source: str, *flags: str) -> ctypes.CDLL:
    """The C of the file `source` beside this one, compiled by `gcc -O3 -march=native -ffast-math` and loaded.

    -ffast-math is left out in linking: there it adds code that, when the library is loaded, makes the whole process,
    Python included, take numbers below 2.2e-308 for 0.
    """
    compiler = shlex.split(os.environ.get("CC", "gcc"))
    with tempfile.TemporaryDirectory() as folder:
        unit, target = str(Path(folder, "peer.o")), str(Path(folder, "peer.so"))
        optimized = ["-O3", "-march=native", "-ffast-math", "-fPIC", *flags]
        try:
            subprocess.run([*compiler, *optimized, "-c", str(HERE / source), "-o", unit], check=True)
            subprocess.run([*compiler, "-shared", unit, "-o", target, "-lm"], check=True)
        except FileNotFoundError:
            sys.exit(
                f"The C contenders need {compiler[0]} (or another compiler, named by CC); leave them out by --skip C."
            )
        return ctypes.CDLL(target)


def buffer(numbers: Any, kind: Any = ctypes.c_double) -> Any:
    """A ctypes array over the memory of an array('d'), array('f') or array('q')."""
    return (kind * len(numbers)).from_buffer(numbers)


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def per_call(work: Callable[[], object], at_least: float = 0.2, units: int = 1) -> Contender:
    """A contender that calls `work` for about `at_least` seconds: the mean of a unit, of which a call has `units`."""
    once = min(seconds(work) for _ in range(3))
    n = max(1, round(at_least / once))

    def round_() -> float:
        start = time.perf_counter()
        for _ in range(n):
            work()
        return (time.perf_counter() - start) / (n * units)

    return round_


def take_turns(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[float]]:
    """The seconds of each contender in each of the rounds."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            times[name].append(contender())
    return times


def ratios(times: Times, goal: Goal) -> list[float]:
    """The ratio that `goal` is about, round by round."""
    ours, theirs = times[goal.ours], times[goal.theirs]
    return [b / a if goal.kind == "as fast" else a / b for a, b in zip(ours, theirs, strict=True)]


def report(title: str, times: Times, goals: Iterable[Goal], unit: str = "step") -> None:
    """Print the median time of each contender and, but for goals with one left out, how ours compare."""
    print(f"\n### {title}\n\n| contender | time per {unit} | from | to |\n| --- | --- | --- | --- |")
    for name, column in times.items():
        print(f"| {name} | {show(statistics.median(column))} | {show(min(column))} | {show(max(column))} |")
    rows = [goal for goal in goals if goal.ours in times and goal.theirs in times]
    if rows:
        print("\n| ours | peer | ratio | goal | reached |\n| --- | --- | --- | --- | --- |")
    for goal in rows:
        print(f"| {goal.ours} | {goal.theirs} | {' | '.join(verdict(statistics.median(ratios(times, goal)), goal))} |")


def verdict(ratio: float, goal: Goal) -> tuple[str, str, str]:
    """The ratio, the goal and whether it was reached, in words."""
    said = f"{ratio:.3g} × {goal.kind}"
    if goal.bound is None:
        return said, "", ""
    if goal.kind == "as fast":
        return said, f"at least {goal.bound:g} ×", "yes" if ratio >= goal.bound else "no"
    return said, f"at most {goal.bound:g} ×", "yes" if ratio <= goal.bound else "no"


def bounded(what: str, got: float, bound: float, text: Callable[[float], str]) -> str:
    """A line of a table: a figure that must be at most `bound`."""
    return f"| {what} | {text(got)} | at most {text(bound)} | {'yes' if got <= bound else 'no'} |"


def show(t: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if t * scale >= 1:
            return f"{t * scale:.3g} {unit}" if t * scale < 1000 else f"{t * scale:.0f} {unit}"
    return f"{t * 1e9:.3g} ns"


def agree(what: str, ours: Iterable[float], theirs: Iterable[float], tolerance: float) -> None:
    """Print the greatest difference of two runs of numbers, relative where they are above 1; exit if it is too much."""
    pairs = list(zip(ours, theirs, strict=True))
    worst = max(abs(a - b) / max(1.0, abs(a), abs(b)) for a, b in pairs)
    print(f"{what}: {len(pairs):,} numbers, greatest difference {worst:.1e} (at most {tolerance:.0e})")
    if not worst <= tolerance:
        sys.exit(f"{what}: the contenders do not compute the same")


def machine(*packages: str) -> str:
    """The processor, the Python build and the versions of `packages`, in a line."""
    flags = sysconfig.get_config_var("CONFIG_ARGS") or ""
    optimized = "with" if "--enable-optimizations" in flags else "without"
    found = [f"{package} {version}" for package in packages if (version := _version(package))]
    python = f"CPython {platform.python_version()} {optimized} PGO"
    return "; ".join([_processor(), platform.system(), python, *found])


def compiler_version() -> str:
    """The first line of what the C compiler says of itself."""
    compiler = shlex.split(os.environ.get("CC", "gcc"))
    try:
        return subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout.partition("\n")[0]
    except FileNotFoundError:
        return f"no {compiler[0]}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {os.cpu_count()} cores" if names else platform.processor()


class Worker:
    """A contender in a process of its own: `script` with `arguments`, which calls `serve` there.

    It is for a contender whose settings hold for a whole process, such as how many threads a library may use.
    """

    def __init__(self, script: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, script, *arguments]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, **pipes)
        self.greeting = self._line()

    def __call__(self) -> float:
        self._process.stdin.write("\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return float(self._line())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _line(self) -> str:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            sys.exit(f"{shlex.join(self._process.args)} ended with code {self._process.wait()}")  # type: ignore[arg-type]
        return str(line.strip())


def serve(greeting: str, contender: Contender) -> None:
    """In a Worker's process: say `greeting`, then run a round for each line that comes."""
    print(greeting, flush=True)
    for _ in sys.stdin:
        print(contender(), flush=True)
