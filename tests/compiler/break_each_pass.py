# ruff: noqa: E501  (the table of faults is read across)
"""Does a test notice a broken pass? Make one fault at a time in a copy of the package, and see.

    python tests/compiler/break_each_pass.py [WORD]

Each fault is a piece of text of one file and what to put in its place; with a WORD only those whose name contains it.
For every fault this runs the tests of the passes and prints which test failed first. It exits with 1 if any fault
survived, or if its text is no longer in the file exactly once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TESTS = [f"tests/compiler/test_{name}.py" for name in ("program", "simplify", "reroll", "samples", "fuse")]
TESTS_FAILED = 1  # pytest's exit code; others mean that the tests did not run

FAULTS = {
    "simplify": {
        "share nothing": ("i = self._known.get(key)\n        if i is None:\n            i = self._known[key] = self._folded", "i = None\n        if i is None:\n            i = self._known[key] = self._folded"),
        "share what only has the same inputs": ("key = (op, *inputs)", "key = inputs"),
        "fold no constants": ("if None not in xs:", "if False:"),
        "0 and -0 are one constant": ("key = (math.copysign(1.0, x), x if x == x else \"nan\")", "key = (1.0, x)"),
        "keep dead code": ("if need[z.number]:\n            if z.op is None:\n                number", "if True:\n            if z.op is None:\n                number"),
        "x² is x": ("return b.node(ops.mul, (x, x)) if y == TWO", "return x if y == TWO"),
        "x⁰ is x": ("if y == ZERO:\n        return ONE", "if y == ZERO:\n        return x"),
        "x - y commutes": ("return b.node(ops.neg, (y,)) if x == ZERO else None", "return b.node(ops.neg, (y,)) if x == ZERO else b.node(ops.sub, (y, x)) if y < x else None"),
        "choose the other one": ("if known is None else x if known else y", "if known is None else y if known else x"),
        "minus a sum loses its sign": ("return b.node(ops.neg, (b.node(ops.dot, (*xy[:n], *[ONE] * n)),))", "return b.node(ops.dot, (*xy[:n], *[ONE] * n))"),
        "take in what is used twice": ("if count[x] == 1 and (graph", "if count[x] <= 2 and (graph"),
        "take in a sum that has a factor": ("if y == ONE:\n                    if count[x] == 1", "if True:\n                    if count[x] == 1"),
        "take in nothing": ("absorbed[x] = 1", "pass"),
        "drop the last term of a sum": ("stack.extend(reversed(pairs))", "stack.extend(reversed(pairs[:-1] or pairs))"),
        "count no outputs": ("for i in graph.outputs:\n        count[i] += 1", "for i in graph.outputs[:1]:\n        count[i] += 1"),
        "a sum over samples is a sum": ("sum_op = total if op is total else ops.dot", "sum_op = ops.dot"),
        "fold the sum over samples": ("for i in inputs]) and op is not total:", "for i in inputs]):"),
    },
    "reroll": {
        "levels too low": ("level[i] = 1 + max([level[x] for x in inputs])", "level[i] = 1 + min([level[x] for x in inputs])"),
        "swap the strides of two loops": ("return (*dims, r), [(*st, d) for st, d in zip(strides, steps)]", "return (*dims, r), [(d, *st) for st, d in zip(strides, steps)]"),
        "every run repeats": ("return s == [h + step for h in heads for step in steps]", "return True"),
        "runs of two are as long as you like": ("while k < n and s[k] - s[k - 1] == d:", "while k < n:"),
        "heads from one place before": ("heads = [s[::r] for s in sequences]", "heads = [s[r - 1 :: r] for s in sequences]"),
        "only the first sequence matters": ("longest = min([run(s) for s in sequences])", "longest = run(sequences[0])"),
        "a piece too long": ("while (blocks + 1) * r <= n and all(", "while (blocks + 1) * r <= n and blocks < 2 and all("),
        "a piece starts at 0": ("Piece(start, n, dims, [Affine(s[0], st)", "Piece(0, n, dims, [Affine(s[0], st)"),
        "one pattern for all": ("return list(patterns.values()) if len(patterns) <= MOST_PATTERNS else [members]", "return [members]"),
        "all patterns are the same": ("len({_pattern(arrays, p) for _, p in members}) == 1", "True"),
        "subtraction commutes": ("COMMUTING = {ops.add, ops.mul, ops.equal}", "COMMUTING = {ops.add, ops.mul, ops.equal, ops.sub}"),
        "forget the second factor": ("for side, array in ((0, a), (1, b)):\n                if array != NOTHING:\n                    table", "for side, array in ((0, a),):\n                if array != NOTHING:\n                    table"),
        "members in any order": ("members.sort(key=_inputs_places)", "members.reverse()"),
        "outputs where they come": ("members.sort(key=lambda member: self.wanted[member[0]][1])", "members.sort(key=_inputs_places)"),
        "one constant for all": ("if len({repr(x) for x in numbers}) == 1:\n            return numbers[0]\n        return Sequence_", "if numbers:\n            return numbers[0]\n        return Sequence_"),
        "constants of a sum are all the first": ("if len({repr(x) for x in numbers}) == 1:\n                return numbers[0]\n            return Ragged", "if numbers:\n                return numbers[0]\n            return Ragged"),
        "an output asked for twice is computed once": ("or node in self.wanted\n", "\n"),
        "no rows for samples": ("self.varies[node] = self.arrays[self.array[node]].per_sample", "pass"),
        "sums over samples have rows": ("varies[i] = op is not total and any", "varies[i] = any"),
        "sums over samples add up one": ("made.append(Segment(within.dims, fs, op is total))", "made.append(Segment(within.dims, fs))"),
        "the next group starts at 0": ("start = self.arrays[out].size\n", "start = 0\n"),
        "the offsets of a table backwards": ("offsets = [o + i * stride for o in offsets for i in range(n)]", "offsets = [o + i * stride for i in range(n) for o in offsets]"),
        "no group is small": ("SMALL = 3", "SMALL = 1"),
        "powers of any exponent are one group": ("BY_CONSTANT = {ops.power, ops.exponential, ops.pow}", "BY_CONSTANT = set()"),
    },
    "fuse": {
        "merge what reads another iteration": ("if x.array in shared and (x not in known or around != dims) and _overlaps(x, around, a):\n            return None", "if False:\n            return None"),
        "overwrite what others still read": ("if writes(b) & reads(a) and not _in_place(a, b):\n        return None", ""),
        "sinking over everything": ("sinks = not (writes_other & passed_reads or reads_other & passed_writes)", "sinks = True"),
        "sinking over who reads": ("sinks = not (writes_other & passed_reads or reads_other & passed_writes)", "sinks = not (reads_other & passed_writes)"),
        "sinking over who writes": ("sinks = not (writes_other & passed_reads or reads_other & passed_writes)", "sinks = not (writes_other & passed_reads)"),
        "rising over everything": ("free = free and not (r & writes_other or w & reads_other)", "free = True"),
        "rising over who reads": ("free = free and not (r & writes_other or w & reads_other)", "free = free and not (r & writes_other)"),
        "order: after who reads": ("if w & reading[i] or r & writing[i]", "if r & writing[i]"),
        "order: after who writes": ("if w & reading[i] or r & writing[i]", "if w & reading[i]"),
        "samples and no samples": ("if a.per_sample is not b.per_sample or", "if"),
        "the smallest place without what goes down": ("x.base + sum(s for s in spans if s < 0)", "x.base"),
        "the largest place is the base": ("x.base + sum(s for s in spans if s > 0)", "x.base"),
        "touching is not overlapping": ("first <= high and low <= last", "first < high and low < last"),
        "refs of the second loop as they were": ("return Ref(x.step + first)", "return Ref(x.step)"),
        "stores of the second loop as they were": ("*((k + first, place) for k, place in b.stores)", "*((k, place) for k, place in b.stores)"),
        "split strides the wrong way": ("inner.append(stride * block)\n                block *= extent", "block *= extent\n                inner.append(stride * block)"),
        "forget the strides of inner loops": ("Access(x.array, x.base, (*strides, *x.strides[old:]))", "Access(x.array, x.base, (*strides,))"),
        "any two nests with as many iterations": ("if any(large % small for small, large in pairwise(products)):\n        return None", ""),
        "parts of arrays that are read together": ("if not any(a <= low and high <= b for a, b, _ in writers[x.array]):", "if False:"),
        "parts that are interleaved": ("if any(b[0] <= a[1] for a, b in zip(writers[array], writers[array][1:])):", "if False:"),
        "keep every store": ("if place.array.role != \"value\" or place.array in read]", "]"),
        "drop the stores of outputs": ("if place.array.role != \"value\" or place.array in read]", "if place.array in read]"),
        "merge nothing": ("if related and (free or sinks):", "if False:"),
    },
    "samples": {
        "the form ignores constants": ("key = repr(key)", "key = \"constant\""),
        "the form ignores ops": ("self._form((z.op, z.requires_grad, *xs))", "self._form((\"op\", z.requires_grad, *xs))"),
        "the form ignores where a gradient ends": ("self._form((z.op, z.requires_grad, *xs))", "self._form((z.op, *xs))"),
        "the form ignores which input it is": ("self._form((\"input\", k) if s is not None else z)", "self._form((\"input\", 0) if s is not None else z)"),
        "the owner of the first input owns all": ("return of_samples.pop() if len(of_samples) == 1 else SEVERAL if of_samples else NONE", "return min(of_samples) if of_samples else NONE"),
        "the number of samples is a constant": ("return n * (x2 / 2)", "return x2"),
        "one over the number of samples is its double": ("return (x2 * 2) / n", "return x2 / n"),
        "any constant": ("raise NotSeparable(\"a constant that depends on the batch's length\")", "return x2"),
        "samples may differ": ("any([_forms(two, terms) != wanted for terms in own2]) or any([_forms(many, terms) != wanted for terms in own])", "False"),
        "samples of the second batch may differ": ("or any([_forms(many, terms) != wanted for terms in own])", ""),
        "other terms may differ": ("if len(rest2) != len(rest):", "if False:"),
        "what stands before the first sample is part of it": ("own2, rest2 = _terms(two, z2, wanted)", "pass"),
        "a batch of one has terms of one sample only": ("(known is None or (batch.form_of(x), batch.form_of(y)) in known)", "True"),
        "sums in no_grad are taken apart": ("and (x is z or not _is_cut(x))", ""),
        "no gradient ends": ("found.requires_grad = z2.requires_grad", "found.requires_grad |= z2.requires_grad"),
        "the gradients of two batches may end elsewhere": ("if z2.requires_grad is not z.requires_grad:", "if False:"),
        "an exponent stays a constant": ("OF_TWO.get(z2.op, z2.op) if depends else z2.op", "z2.op"),
        "every batch is one of three": ("_constant(z2, z, many.n, n)", "_constant(z2, z, 3, n)"),
        "forget the other terms": ("for (a, b), (c, d) in zip(rest2, rest):", "for (a, b), (c, d) in []:"),
        "forget the second factor": ("xs, ys = zip(*own2[0])\n        result = z2.record(total, (*xs, *ys))", "xs, ys = zip(*own2[0])\n        result = z2.record(total, (*xs, *[1.0] * len(xs)))"),
        "results of samples may depend on others": ("or any([batch.owner_of(x) not in (s, NONE) for s, x in enumerate(values)])", ""),
        "results of samples may differ": ("if len({batch.form_of(x) for x in values}) > 1:", "if False:"),
        "draws belong to the first sample": ("self.draws.append((s, count[s]))\n            self._inputs[x] = (s,", "self.draws.append((0, count[s]))\n            self._inputs[x] = (s,"),
        "draws may belong to all": ("if s < 0:", "if s == NONE:"),
        "add up nothing over samples": ("if not any(own):\n            return _products(gs, ds)", "return _products(gs, ds)"),
        "forget what comes from no sample": ("return over_samples + _products(*others) if others[0] else over_samples", "return over_samples"),
        "what is the same for all samples counts once": ("each.add(g.number)", "pass"),
        "∂z/∂x is 1": ("over_samples = symbol.record(total, (*mine[0], *mine[1]))", "over_samples = symbol.record(total, (*mine[0], *[1.0] * len(mine[0])))"),
        "take a node apart each time": ("if pair not in many.separated:", "if True:"),
    },
    "program": {
        "strides in the other order": ("zip(i, x.strides, strict=True)", "zip(i, reversed(x.strides), strict=True)"),
        "tables column by column": ("for j, extent in zip(i, dims, strict=True):\n                k = k * extent + j", "for j, extent in zip(reversed(i), reversed(dims), strict=True):\n                k = k * extent + j"),
        "one row for all samples": ("return at + (sample * x.array.size if x.array.per_sample else 0)", "return at"),
        "a sum of one sample": ("for s in (range(n) if segment.over_samples else [sample])", "for s in [sample]"),
        "one factor": ("math.prod(read(x, i + j, loop.dims + segment.dims, s) for x in segment.factors)", "math.prod(read(x, i + j, loop.dims + segment.dims, s) for x in segment.factors[:1])"),
        "anywhere in memory": ("assert 0 <= at < x.array.size", ""),
    },
}  # fmt: skip


def broken_copy(directory: Path, file: str, old: str, new: str) -> bool:
    """Put the package with the fault, and the tests, into the directory; False if the text is not there once."""
    for name in ("milligrad", "tests", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, directory / name)
    path = directory / "milligrad" / "compiler" / f"{file}.py"
    text = path.read_text()
    path.write_text(text.replace(old, new))
    return text.count(old) == 1


def verdict(file: str, old: str, new: str) -> tuple[str, str]:
    """("caught", the first test that failed), or another word and pytest's last line."""
    with tempfile.TemporaryDirectory() as name:
        if not broken_copy(Path(name), file, old, new):
            return "STALE", f"not once in {file}.py: {old!r}"
        first = [t for t in TESTS if file in t]
        process = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no"),
                "-p",
                "no:cacheprovider",
                *first,
                *TESTS,
            ],
            cwd=name,
            env={**os.environ, "PYTHONPATH": name, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
    lines = [line for line in (process.stdout + process.stderr).splitlines() if line.strip()]
    failed = [line.partition(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))]
    word = {TESTS_FAILED: "caught", 0: "SURVIVED"}.get(process.returncode, f"NOT RUN ({process.returncode})")
    return word, (failed or lines or ["no output"])[-1].removeprefix("FAILED tests/compiler/")


def main(word: str = "") -> int:
    start, results = time.perf_counter(), []
    for file, faults in FAULTS.items():
        for name, (old, new) in faults.items():
            if word in f"{file}: {name}":
                result, line = verdict(file, old, new)
                print(f"{file}: {name:45} {result:9} {line}", flush=True)
                results.append(result)
    caught = results.count("caught")
    print(f"{caught} of {len(results)} faults caught, in {time.perf_counter() - start:.0f} s")
    return 0 if caught == len(results) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
