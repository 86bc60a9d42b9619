"""A batch in parts, one for each thread: a program as stages, within which threads need not wait for each other.

What is computed for each sample, each thread computes for its own. Where something is added up over all samples, it
adds up its own share; the shares are then added, and what follows from them for all samples together (a mean, the
norm of the gradient, the optimizer's step) is computed once, before the threads go on. It knows loops, and neither
models nor optimizers. A program that was taken apart (`apart.py`) is in stages, too, be it for one thread.

    time   stages are numbered: what stands in an even one is done once, in an odd one by each thread for its part
    share  an array of which each thread has its own: what it added up over its samples
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

from milligrad import ops
from milligrad.compiler.backends import Memory
from milligrad.compiler.passes.fuse import fuse, reads, writes
from milligrad.compiler.program import Access, Array, Dims, Loop, Program, Reduce, Segment, accesses


class Stages(NamedTuple):
    """programs:  to be run one after the other, and whether each thread runs it on its part of the batch, or one once.
    shares:    for each share the arrays by which the programs that are run once know that of each thread.
    passed:    the arrays that one program computes and another one reads, which may know it as another array; of those
               per_sample each thread has its own.
    """

    programs: list[tuple[Program, bool]]
    shares: dict[Array, list[Array]]
    passed: list[tuple[Array, ...]]


def stages(program: Program, threads: int) -> Stages:
    """The program in stages for so many threads. Its sums over samples are loops of one step, as `reroll` makes."""
    shares: dict[Array, list[Array]] = {}
    loops: dict[int, list[Loop]] = {}
    written: dict[Array, int] = {}  # when an array was last written
    used: dict[Array, set[int]] = {}  # when it was read or written
    for loop in program.loops:
        for part in _with_shares(loop, threads, shares):
            in_parts = part.per_sample or not writes(part).isdisjoint(shares)
            before = [written.get(a, 0) for a in reads(part)] + [max(used.get(a, {0})) for a in writes(part)]
            time = max(before, default=0)
            time += time % 2 != in_parts
            loops.setdefault(time, []).append(part)
            for a in writes(part):
                written.update(dict.fromkeys([a, *shares.get(a, ())], time))
            for a in reads(part) | writes(part):
                used.setdefault(a, set()).add(time)
    passed = [a for a in program.arrays if a.role == "value" and len(used.get(a, ())) > 1]
    for array in passed:
        array.role = "state"
    return Stages([(_program(loops[t], program), t % 2 == 1) for t in sorted(loops)], shares, [(a,) for a in passed])


def _with_shares(loop: Loop, threads: int, shares: dict[Array, list[Array]]) -> list[Loop]:
    """The loop; if it adds up over samples, one that adds up a share, and one that adds the shares."""
    step = loop.steps[0]
    if not isinstance(step, Reduce) or not any([s.over_samples for s in step.segments]):
        return [loop]
    assert len(loop.steps) == 1 and all([s.over_samples for s in step.segments])
    name, size = f"share{len(shares)}", math.prod(loop.dims)
    share = Array(name, size, "output")
    shares[share] = [Array(f"{name}_{t}", size, "input") for t in range(threads)]
    place: Dims = tuple([math.prod(loop.dims[d + 1 :]) for d in range(len(loop.dims))])
    added = Reduce(ops.sum, tuple([Segment((), (Access(a, 0, place),)) for a in shares[share]]))
    return [Loop(loop.dims, [step], [(0, Access(share, 0, place))]), Loop(loop.dims, [added], loop.stores)]


def _program(loops: list[Loop], whole: Program) -> Program:
    arrays = {x.array: None for loop in loops for x in [*accesses(loop), *[place for _, place in loop.stores]]}
    return fuse(Program(list(arrays), loops, whole.info))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """The threads that wait for parts; one is the caller's own. All programs share them."""
    return ThreadPoolExecutor(threads, "milligrad")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads are not copied: a child would wait for ever


@dataclass(eq=False)
class Staged:
    """The stages of a program, and the code of each."""

    stages: Stages
    codes: list[Any]
    kept_as = "staged"  # see `kept.py`

    @property
    def source(self) -> str:
        return "\n".join([code.source for code in self.codes])

    @property
    def times(self) -> dict[str, float]:
        return {name: sum([code.times[name] for code in self.codes]) for name in self.codes[0].times}

    def made_of(self) -> tuple[Any, ...]:
        return tuple(self.stages), self.codes


def restored(stages: tuple[Any, ...], codes: list[Any]) -> Staged:
    """The Staged that was `made_of` that."""
    return Staged(Stages(*stages), codes)


def staged(program: Program, threads: int, capacity: int, build: Callable[[Program, int], Any]) -> Staged:
    """The program in stages for so many threads, and code for up to `capacity` samples in all."""
    made = stages(program, threads)
    return Staged(made, [build(stage, most(capacity, threads) if in_parts else 1) for stage, in_parts in made.programs])


def after(first: Program, code: Any, terms: tuple[Array, Array], rest: Staged) -> Staged:
    """The stages of `rest`, and before them a program that computes `terms`: as it knows them, and as they do."""
    made = rest.stages
    in_parts = terms[0].per_sample
    return Staged(Stages([(first, in_parts), *made.programs], made.shares, [terms, *made.passed]), [code, *rest.codes])


def alone(program: Program, code: Any, sampled: bool) -> Staged:
    """A program that is one stage."""
    return Staged(Stages([(program, sampled)], {}, []), [code])


def most(capacity: int, threads: int) -> int:
    """How many samples a thread has to take at most."""
    return -(-capacity // threads)


class Threads:
    """The stages of a program as code, with its memory, and the threads that run it.

    buffers:  of the arrays that last, or are handed in, and not per_sample; one of all threads.
    """

    def __init__(
        self, staged: Staged, threads: int, capacity: int, buffers: Mapping[Array, Any], memory: Memory
    ) -> None:
        zeros, rows, made = memory.zeros, most(capacity, threads), staged.stages
        self.n, self._zeros = threads, zeros
        common = {**buffers, **_shared([x for x in made.passed if not x[0].per_sample], 1, zeros)}
        own = [_shared([x for x in made.passed if x[0].per_sample], rows, zeros) for _ in range(threads)]
        self.shares = [{a: zeros(a.size) for a in made.shares} for _ in range(threads)]
        common |= {each[t]: self.shares[t][a] for a, each in made.shares.items() for t in range(threads)}
        self.codes: list[tuple[bool, list[Any]]] = []  # of each stage: one for each thread, or one alone
        for (stage, in_parts), first in zip(made.programs, staged.codes):
            codes = [first, *[first.instance() for _ in range(in_parts * (threads - 1))]]
            for code, mine, share in zip(codes, own, self.shares):
                memory.bind(code, stage, {**common, **mine, **share} if in_parts else common)
            self.codes.append((in_parts, codes))
        self._inputs = [{a for a in stage.arrays if a.per_sample and a.role == "input"} for stage, _ in made.programs]
        self.source, self.times = staged.source, staged.times

    def run(self, data: Mapping[Array, Any], order: Any, start: int, stop: int) -> None:
        """Run it for the samples order[start:stop], one batch, of `data`, the per_sample inputs."""
        cuts = [start + (stop - start) * t // self.n for t in range(self.n + 1)]
        parts = [(t, a, b) for t, (a, b) in enumerate(pairwise(cuts)) if a < b]
        for share in [self.shares[t] for t in range(self.n) if cuts[t] == cuts[t + 1]]:
            for buffer in share.values():
                buffer[:] = self._zeros(len(buffer))
        for (in_parts, codes), inputs in zip(self.codes, self._inputs):
            if not in_parts:
                codes[0]()
                continue
            mine = {a: x for a, x in data.items() if a in inputs}
            jobs: list[tuple[Any, Any]] = [
                (codes[t].epoch, (mine, order, b - a, a, b)) if mine else (codes[t], (b - a,)) for t, a, b in parts
            ]
            others = [_pool(self.n - 1).submit(f, *arguments) for f, arguments in jobs[1:]]
            f, arguments = jobs[0]
            f(*arguments)
            for other in others:
                other.result()

    def __call__(self) -> None:
        """Run it where nothing is per_sample."""
        for _, codes in self.codes:
            codes[0]()


def _shared(passed: Iterable[tuple[Array, ...]], rows: int, zeros: Callable[[int], Any]) -> dict[Array, Any]:
    """A buffer of so many rows for each of the arrays, however it is called."""
    return {a: buffer for arrays in passed for buffer in [zeros(rows * arrays[0].size)] for a in arrays}
