# ruff: noqa: E501  (the table of faults is read across)
"""Does a test notice a broken pass? Make one fault at a time in a copy of the package, and see.

    python tests/compiler/break_each_pass.py [WORD]

Each fault is a piece of text of one file and what to put in its place; with a WORD only those whose name contains it
(a word with a colon, as "roll:", is how it starts). For every fault this runs the tests of the file's part (`TESTS`) and prints
which test failed first. It exits with 1 if any fault survived, or if its text is no longer in the file exactly once.
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
BY_LEVEL = ("program", "passes/simplify", "passes/reroll", "passes/separate", "passes/fuse")
IN_ORDER = ("passes/roll", "passes/registers", "python/in_order", "llvm/in_order", "in_order")
CACHE = ("cache", "kept")
PYTHON = ("python/comprehensions", "fit")
LLVM = ("llvm/vectors", "llvm/nests", "llvm/tiling", "llvm/native", "fit")
C = ("c/in_order",)
TESTS = {
    **dict.fromkeys(BY_LEVEL, BY_LEVEL),
    **dict.fromkeys(["passes/roll", "passes/registers", "python/in_order", "llvm/in_order"], IN_ORDER),
    **dict.fromkeys(CACHE, CACHE),
    **dict.fromkeys(["passes/short", "passes/counts"], ("passes/counts",)),
    "passes/apart": ("passes/apart",),
    "passes/lengths": ("passes/lengths", "lengths"),
    "passes/overlay": ("checkpoints",),
    "passes/compact": ("passes/compact", *C),
    "passes/split": ("passes/split", "fit"),
    **dict.fromkeys(["passes/update", "batch"], ("fit", "passes/separate", "random_losses")),
    **{f"python/{name}": PYTHON for name in ("comprehensions", "simpler", "homes", "code")},
    "python/ieee": ("nonfinite", *IN_ORDER, *PYTHON),
    **{f"llvm/{name}": LLVM for name in ("vectors", "nests", "tiling", "around", "native")},
    "llvm/instructions": (*LLVM, "llvm/in_order"),
    **{f"c/{name}": C for name in ("in_order", "lowered", "step")},
}
"""For each file the tests that have to notice."""

QUICK = """\
from hypothesis import Phase, settings

settings.register_profile("quick", phases=[Phase.explicit, Phase.generate], derandomize=True)
settings.load_profile("quick")
"""  # an example that fails need not be the smallest
LONGEST = 1_800  # seconds for the tests of one fault: with some of them a loop has no end
TESTS_FAILED = 1  # pytest's exit code; others mean that the tests did not run

FAULTS = {
    "passes/overlay": {
        "nothing is ever lost": ("if at in stored and found.get(new[at]) != at:", "if False:"),
        "nothing is stored over": ("else self.size - self.back[at]", "else self.size"),
        "the array ends too early": ("max(new[:-1], default=-1) + 1", "max(new[:-1], default=-1) - 3"),
        "what is stored over stays where it was": ("found[new[addresses[0]]] = addresses[0]", "found.setdefault(new[addresses[0]], addresses[0])"),
    },
    "passes/simplify": {
        "share nothing": ("i = self._known.get(key)\n        if i is None:\n            i = self._known[key] = self._folded", "i = None\n        if i is None:\n            i = self._known[key] = self._folded"),
        "share what only has the same inputs": ("key = op, inputs", "key = inputs"),
        "fold no constants": ("if None not in xs:", "if False:"),
        "0 and -0 are one constant": ("key = (math.copysign(1.0, x), x if x == x else \"nan\")", "key = (1.0, x)"),
        "keep dead code": ("if not is_needed:", "if False:"),
        "x² is x": ("return b.node(ops.mul, (x, x)) if y == TWO", "return x if y == TWO"),
        "x⁰ is x": ("if y == ZERO:\n        return ONE", "if y == ZERO:\n        return x"),
        "x - y commutes": ("return b.node(ops.neg, (y,)) if x == ZERO else None", "return b.node(ops.neg, (y,)) if x == ZERO else b.node(ops.sub, (y, x)) if y < x else None"),
        "choose the other one": ("if known is None else x if known else y", "if known is None else y if known else x"),
        "minus a sum loses its sign": ("return b.node(ops.neg, (b.node(ops.dot, (*xy[:n], *[ONE] * n)),))", "return b.node(ops.dot, (*xy[:n], *[ONE] * n))"),
        "take in what is used twice": ("if count[term] == 1:", "if count[term] <= 2:"),
        "take in a sum that has a factor": ("term = x if y == ONE else y if x == ONE else ONE", "term = x"),
        "take in nothing": ("absorbed[term] = 1", "pass"),
        "take in what others like it are not": ("if len({b - a for a, b in pairwise(stay)}) > FEW:", "if False:"),
        "take in nothing that is alike": ("if len({b - a for a, b in pairwise(stay)}) > FEW:", "if True:"),
        "drop the last term of a sum": ("stack.extend(pairs)", "stack.extend(pairs[1:] or pairs)"),
        "count no outputs": ("for i in graph.outputs:\n        count[i] += 1", "for i in graph.outputs[:1]:\n        count[i] += 1"),
        "a sum over samples is a sum": ("sum_op = total if op is total else ops.dot", "sum_op = ops.dot"),
        "doubt nothing": ("if x not in told and self.doubtful(x):", "if False:"),
        "a NaN before the last doubt is forgotten": ("if 1 not in doubts and SAFE.issuperset(ops) and not self.in_doubt:", "if SAFE.issuperset(ops) and not self.in_doubt:"),
        "the chain rule is compared like the rest": ("z.number < tape.forward", "True"),
        "fold the sum over samples": ("inputs)) and op is not total:", "inputs)):"),
    },
    "passes/reroll": {
        "levels too low": ("enumerate(zip(self.graph.op, self.graph.inputs, self.graph.level)):", "enumerate(zip(self.graph.op, self.graph.inputs, [min(x, 3) for x in self.graph.level])):"),
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
    "passes/fuse": {
        "merge what reads another iteration": ("if x.array in shared and (x not in known or around != dims) and _overlaps(x, around, a):\n            return None", "if False:\n            return None"),
        "overwrite what others still read": ("if second.writes & first.reads and not _in_place(a, b):\n        return None", ""),
        "sinking over everything": ("sinks = not (writes_other & passed_reads or reads_other & passed_writes)", "sinks = True"),
        "sinking over who reads": ("sinks = not (writes_other & passed_reads or reads_other & passed_writes)", "sinks = not (reads_other & passed_writes)"),
        "sinking over who writes": ("sinks = not (writes_other & passed_reads or reads_other & passed_writes)", "sinks = not (writes_other & passed_reads)"),
        "rising over everything": ("free = free and not (r & writes_other or w & reads_other)", "free = True"),
        "rising over who reads": ("free = free and not (r & writes_other or w & reads_other)", "free = free and not (r & writes_other)"),
        "order: after who reads": ("if x.writes & y.reads or x.reads & y.writes", "if x.reads & y.writes"),
        "order: after who writes": ("if x.writes & y.reads or x.reads & y.writes", "if x.writes & y.reads"),
        "samples and no samples": ("if a.per_sample is not b.per_sample or", "if"),
        "the smallest place without what goes down": ("x.base + sum(s for s in spans if s < 0)", "x.base"),
        "the largest place is the base": ("x.base + sum(s for s in spans if s > 0)", "x.base"),
        "touching is not overlapping": ("first <= high and low <= last", "first < high and low < last"),
        "refs of the second loop as they were": ("return Ref(x.step + n)", "return Ref(x.step)"),
        "stores of the second loop as they were": ("*((k + n, place) for k, place in b.stores)", "*((k, place) for k, place in b.stores)"),
        "split strides the wrong way": ("inner.append(stride * block)\n                block *= extent", "block *= extent\n                inner.append(stride * block)"),
        "forget the strides of inner loops": ("Access(x.array, x.base, (*strides, *x.strides[old:]))", "Access(x.array, x.base, (*strides,))"),
        "any two nests with as many iterations": ("if any(large % small for small, large in pairwise(products)):\n        return None", ""),
        "parts of arrays that are read together": ("if not any(a <= low and high <= b for a, b, _ in writers[x.array]):", "if False:"),
        "parts that are interleaved": ("if any(b[0] <= a[1] for a, b in zip(writers[array], writers[array][1:])):", "if False:"),
        "keep every store": ("if place.array.role != \"value\" or place.array in read]", "]"),
        "drop the stores of outputs": ("if place.array.role != \"value\" or place.array in read]", "if place.array in read]"),
        "merge nothing": ("if related and (free or sinks):", "if False:"),
    },
    "passes/separate": {
        "the form ignores constants": ("key = repr(key)", "key = \"constant\""),
        "the form ignores ops": ("self._form((z.op, z.requires_grad, *xs))", "self._form((\"op\", z.requires_grad, *xs))"),
        "the form ignores where a gradient ends": ("self._form((z.op, z.requires_grad, *xs))", "self._form((z.op, *xs))"),
        "the form ignores which input it is": ("else self._form((\"input\", k))", "else self._form((\"input\", 0))"),
        "a given input is one of its own": ("self._given[k] if self._given and k >= 0 else ", ""),
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
        "add up nothing over samples": ("if not any(own):\n            return", "return"),
        "forget what comes from no sample": ("return over_samples + sum_of_products(*others) if others[0] else over_samples", "return over_samples"),
        "what is the same for all samples counts once": ("each.add(g.number)", "pass"),
        "∂z/∂x is 1": ("over_samples = symbol.record(total, (*mine[0], *mine[1]))", "over_samples = symbol.record(total, (*mine[0], *[1.0] * len(mine[0])))"),
        "take a node apart each time": ("if pair not in many.separated:", "if True:"),
    },
    "passes/apart": {
        "the terms of all samples are those of one": ("number[i] = new.node(total, (leaf, ONE)) if op is total else leaf", "number[i] = leaf"),
        "a number of a sample may follow the sums": ("or of_a_sample & needed:", "or False:"),
        "a sample may know the sums": ("if sums and any([number[i] is not None for i in sums]):", "if False:"),
        "terms stand for each other": ("dict(zip(cuts, terms)), after)", "dict(zip(cuts, terms[::-1])), after)"),
        "a factor of the terms is left out": ("first.node(ops.dot, inputs) if sums", "first.node(ops.dot, inputs[: len(inputs) // 2] + (ONE,) * (len(inputs) // 2)) if sums"),
    },
    "program": {
        "strides in the other order": ("zip(i, x.strides, strict=True)", "zip(i, reversed(x.strides), strict=True)"),
        "tables column by column": ("for j, extent in zip(i, dims, strict=True):\n                k = k * extent + j", "for j, extent in zip(reversed(i), reversed(dims), strict=True):\n                k = k * extent + j"),
        "one row for all samples": ("return at + (sample * x.array.size if x.array.per_sample else 0)", "return at"),
        "a sum of one sample": ("for s in (range(n) if segment.over_samples else [sample])", "for s in [sample]"),
        "one factor": ("math.prod(read(x, i + j, loop.dims + segment.dims, s) for x in segment.factors)", "math.prod(read(x, i + j, loop.dims + segment.dims, s) for x in segment.factors[:1])"),
        "anywhere in memory": ("assert 0 <= at < x.array.size", ""),
    },
    "passes/roll": {
        "two equal blocks are a loop": ("== [k for k, _ in z]:", "== [k for k, _ in y]:"),
        "the third block in any steps": ("if _in_step(first, second, third):", "if True:"),
        "one iteration too many": ("steps, (3, *first))", "steps, (4, *first))"),
        "steps backwards": ("steps = tuple([q - p for p, q in zip(first, second)])", "steps = tuple([p - q for p, q in zip(first, second)])"),
        "places of the second iteration": ("steps, (3, *first))", "steps, (3, *second))"),
        "steps of all places but the last": ("if _in_step(first, second, third):", "if _in_step(first[:-1], second, third):"),
        "find no loops": ("while self._begins():", "while False:"),
        "find loops once": ("while self._begins():\n            found = True", "found = self._begins()"),
        "outputs are numbers computed": ("self.values += key[0] is not None", "self.values += 1"),
        "one nearer": ("return (\"v\", self.values - address) if", "return (\"v\", self.values - address - 1) if"),
        "what is expected comes": ("if instruction != self.expected:\n            self.expected = None", "if instruction[0] != (self.expected or [None])[0]:\n            self.expected = None"),
        "what is expected comes once": ("self.stack[-1] = k, (count + 1, *first)\n            self._fold()", "self.stack[-1] = k, (count + 2, *first)\n            self._fold()"),
        "an iteration as expected makes no loops": ("self.stack[-1] = k, (count + 1, *first)\n            self._fold()", "self.stack[-1] = k, (count + 1, *first)"),
        "expect the last iteration again": ("self.ahead = self._iteration(k, first, count)", "self.ahead = self._iteration(k, first, count - 1)"),
        "expect loops to run never": ("elif places[0] < 1:\n                yield NONE  # a loop runs once at least\n            else:", "else:"),
        "expect the first iteration of inner loops": ("yield from self._iteration(k_of_part, places[1:], j)", "yield from self._iteration(k_of_part, places[1:], 0)"),
        "give up once": ("while self.pending and instruction != self.expected:\n            self._give_up()", "if self.pending and instruction != self.expected:\n            self._give_up()"),
        "what was expected in vain is lost": ("for instruction in pending:\n            self._take(instruction)", "pass"),
        "what was expected at the end is lost": ("while self.pending:\n            self._give_up()", "pass"),
        "what was expected before is expected still": ("if instruction != self.expected:\n            self.expected = None\n", "if instruction != self.expected:\n"),
        "entries one off": ("self.table += [self.values - place for", "self.table += [self.values - place + 1 for"),
        "entries are distances": ("self.table += [self.values - place for", "self.table += [place for"),
        "constants in another order": ("self.constants += [places[j] for places in terms]", "self.constants[:0] = [places[j] for places in terms]"),
        "constants of a run: the first for all": ("self.constants += [places[j] for places in terms]", "self.constants += [terms[0][j] for _ in terms]"),
        "runs of any steps": ("if steps is not None and new != steps:\n                    break", "pass"),
        "runs of any kinds": ("while end < n and terms[end][0] == kinds:", "while end < n and len(terms[end][0]) == len(kinds):"),
        "a sum term by term starts anew": ("so_far = [((\"v\",), (0,))] if j else []", "so_far = []"),
        "no tables": ("more = irregular(reader)", "more = frozenset()"),
        "gathered terms are one": ("told.append(len(group))", "told.append(1)"),
        "entries are all of the first term": ("self._entries(kind, [places[j] for places in terms])", "self._entries(kind, [terms[0][j] for _ in terms])"),
        "gathered terms tell their first places": ("self._told(kinds, group, range(len(kinds)))", "self._told(kinds, group, range(1))"),
        "the longest program": ("(best is None or found < best[0]):", "(best is None or found > best[0]):"),
        "counts stay as they are in the first iteration": ("loop = self.stack.loops.get(k)\n        if loop:\n            body, own = loop\n            count, inner = place(),", "loop = self.stack.loops.get(k)\n        if loop:\n            body, own = loop\n            count, inner = place()._replace(steps=(0,) * len(steps)),"),
        "steps of the inner loop first": ("inner = place(), [*steps, [*own]]", "inner = place(), [[*own], *steps]"),
    },
    "passes/registers": {
        "carried too late": ("later = Linear(place.constant + place.step(outer.loop.index), place.terms)", "later = Linear(place.constant + 2 * place.step(outer.loop.index), place.terms)"),
        "carried too early": ("later = Linear(place.constant + place.step(outer.loop.index), place.terms)", "later = place"),
        "carried from the second iteration on": ("first = Linear(place.constant, tuple([t for t in place.terms if t[0] != loop.index]))\n        loop.carried", "first = Linear(place.constant + place.step(loop.index), tuple([t for t in place.terms if t[0] != loop.index]))\n        loop.carried"),
        "carried from another loop's start": ("first = Linear(place.constant, tuple([t for t in place.terms if t[0] != loop.index]))\n        loop.carried", "first = Linear(place.constant, ())\n        loop.carried"),
        "carried though iterations differ in length": (" and outer.sizes[VALUES] is not None", ""),
        "the last number but one is known after the loop": ("loop.count.plus(Linear(-1))", "loop.count.plus(Linear(-2))"),
        "sizes of an iteration without inner loops": ("return {c: s and (s * x.count.base if fixed else None)", "return {c: s and (s if fixed else None)"),
        "triangles have fixed sizes": ("fixed = not any(x.count.steps)", "fixed = True"),
        "counters that stand still": ("for c, name in running.items():\n            loop.body.append(Set(name, end[c]))", ""),
        "counters start at 0": ("scope.steps.append(Let(running[c], counters[c]))", "scope.steps.append(Let(running[c], Linear()))"),
        "after a loop as before it": ("after[c] = counters[c].plus(loop.count, size)", "after[c] = counters[c]"),
        "after a loop one iteration further": ("after[c] = counters[c].plus(loop.count, size)", "after[c] = counters[c].plus(loop.count, size).plus(Linear(size))"),
        "runs of unknown lengths use no constants": ("if own and any(run.length.steps):\n                    n = None\n                    break", ""),
        "runs use one constant": ("counters[CONSTANTS] = place.plus(count or Linear(1))", "counters[CONSTANTS] = place.plus(Linear(1))"),
        "runs use one entry": ("counters[TABLE] = place.plus(count or Linear(1))", "counters[TABLE] = place.plus(Linear(1))"),
        "entries one off": ("return Entry(VALUES if x.array is None else x.array, place)", "return Entry(VALUES if x.array is None else x.array, place.plus(Linear(1)))"),
        "entries of leaves are of the first": ("return Entry(VALUES if x.array is None else x.array, place)", "return Entry(VALUES if x.array is None else 0, place)"),
        "runs of computed numbers go the other way": ("-s if isinstance(y, Back) else s", "s"),
        "runs of constants stand still": ("[1 if isinstance(y, (Next, LookedUp)) else", "["),
        "one further back": ("place = here.plus(self._affine(x.distance), -1)", "place = here.plus(self._affine(x.distance), -1).plus(Linear(-1))"),
        "outputs on top of each other": ("counters[OUTPUTS] = counters[OUTPUTS].plus(Linear(1))", "pass"),
        "load what is not computed yet": ("return not ahead.terms and ahead.constant < 0", "return True"),
        "load what may be computed next": ("return not ahead.terms and ahead.constant < 0", "return not ahead.terms and ahead.constant < 1"),
        "load whatever its index": ("if cell.place.step(scope.loop.index) or any([name[0] == \"n\" for name, _ in cell.place.terms]):", "if any([name[0] == \"n\" for name, _ in cell.place.terms]):"),
        "load one place for all": ("known = target.names.get(cell)", "known = next(iter([x for c, x in target.names.items() if isinstance(c, Cell)]), None)"),
        "load nothing before a loop": ("while target.loop is not None and self._is_fixed(cell, target):", "while False:"),
        "constants are all the first": ("equal = {cell: float(*texts) for cell, texts in found.items() if len(texts) == 1}", "equal = {cell: float(min(texts)) for cell, texts in found.items()}"),
        "0 and -0 are equal constants": ("set()).update(map(repr, numbers))", "set()).update(repr(x + 0.0) for x in numbers)"),
        "the last constant may differ": ("program.constants[number : number + count * step : step]", "program.constants[number : number + (count - 1) * step : step]"),
        "no constants are equal": ("if len(texts) == 1}", "if False}"),
        "drop stores that the last iteration reads": ("read[number : number + (count - 1) * step + 1 : step] = b\"\\1\" * count", "read[number : number + (count - 2) * step + 1 : step] = b\"\\1\" * (count - 1)"),
        "drop what is read backwards": ("number, step = number + (count - 1) * step, -step", "step = -step"),
        "drop what is read by a table": ("read[p] = 1", "pass"),
        "drop what is stored in the last iterations": ("any(read[number : number + count * step : step] if step else [read[number]])", "read[number]"),
        "drop what loops start from": ("for source, _ in x.carried.values():\n                if isinstance", "for source, _ in ():\n                if isinstance"),
        "drop what runs read but the first": ("many.number(variables) if many else 1", "1"),
        "drop what loops read in all iterations but the first": ("used.append((k, counts[name]))", "pass"),
        "drop what the shorter loops read but in the first iteration": ("for i in range(count)]\n    return", "for i in range(1)]\n    return"),
        "loops in loops run once": ("(*dims, (x.index, count))", "(*dims, (x.index, 1))"),
        "loops of growing lengths run as in the first iteration": ("if isinstance(x, (Let, Set)) or any([name in indices for length in lengths for name, _ in length.terms]):", "if isinstance(x, (Let, Set)):"),
        "only the outermost index changes lengths": ("_is_even(x.body, indices | {x.index})", "_is_even(x.body, {x.index})"),
        "drop no stores": ("x.store = None", "pass"),
        "the first iteration of all loops stands for all": ("for i in range(count):\n                variables[x.index] = i\n                yield from", "for i in range(1):\n                variables[x.index] = i\n                yield from"),
    },
    "python/in_order": {
        "one iteration too few": ("self.line(f\"for {x.index} in range({place(x.count)}):\")", "self.line(f\"for {x.index} in range({place(x.count)} - 1):\")"),
        "nothing is carried": ("if x.carried:\n            self.line", "if False:\n            self.line"),
        "what is used twice is written once": ("if x.store is None and self.uses[x.name] == 1 and", "if x.store is None and"),
        "what is stored is written elsewhere": ("if x.store is None and self.uses[x.name] == 1 and", "if self.uses[x.name] == 1 and"),
        "used in an inner loop is used once": ("uses[y.name] += 1 if home.get(y.name) == body else 2", "uses[y.name] += 1"),
        "carried names are not used": ("for _, after in x.carried.values():\n                    uses[after] += 2", ""),
        "entries are places": ("return Expr(f\"{self.array(x.array)}[table[{place(x.place)}]]\")", "return Expr(f\"{self.array(x.array)}[{place(x.place)}]\")"),
        "slices one too short": ("{place(x.place.plus(count, step))}:{step}]", "{place(x.place.plus(count, step).plus(Linear(-1)))}:{step}]"),
        "slices that go down start one lower": (":{first} + 1:{-step}][::-1]", ":{first}:{-step}][::-1]"),
        "slices that go down go up": (":{first} + 1:{-step}][::-1]", ":{first} + 1:{-step}]"),
        "one number once": ("text = f\"[{array}[{first}]] * ({place(count)})\"", "text = f\"[{array}[{first}]]\""),
        "slices of places": ("return f\"[{self.array(x.array)}[k] for k in {text}]\"", "return text"),
        "sums start anew": ("else f\"sum({runs}, {total.text})\"", "else f\"sum({runs})\""),
        "the first factor": ("return parts[0] if len(parts) == 1 else f\"map(mul", "return parts[0] if parts else f\"map(mul"),
        "all rows are the first": ("self.line(f\"{a.name} = {a.name}_rows[s]\")", "self.line(f\"{a.name} = {a.name}_rows[0]\")"),
        "all rows to the first": ("if self.outputs.per_sample else x.place", "if False else x.place"),
        "exact code refuses": ("form = None if self.ieee and op in REFUSING else python_form(op)", "form = python_form(op)"),
        "exact functions refuse": ("value = unrefusing(op) if self.ieee and op in REFUSING else op.value", "value = op.value"),
        "ops of one name are one": ("while self.globals.setdefault(f\"{name}_\", value) is not value and self.globals[f\"{name}_\"] != value:\n            name += \"_\"", "self.globals.setdefault(f\"{name}_\", value)"),
        "coefficients are 1": ("name if k == 1 else f\"{k} * {name}\"", "name"),
        "carried one after the other": ("self.line(f\"{', '.join(x.carried)} = {', '.join([z for _, z in x.carried.values()])}\")", "self.line(\"; \".join([f\"{c} = {z}\" for c, (_, z) in x.carried.items()]))"),
        "carried one iteration too late": ("self.line(f\"{', '.join(x.carried)} = {', '.join([z for _, z in x.carried.values()])}\")", "[self.line(f\"{c}, {c}_late = {c}_late if {x.index} else {c}, {z}\") for c, (_, z) in x.carried.items()]"),
        "read one iteration too early": ("return Expr(f\"{self.array(x.array)}[{place(x.place)}]\")", "return Expr(f\"{self.array(x.array)}[{place(x.place.plus(Linear(sum([k for _, k in x.place.terms]) * (x.array == 'values'))))}]\")"),
        "read one iteration too late": ("return Expr(f\"{self.array(x.array)}[{place(x.place)}]\")", "return Expr(f\"{self.array(x.array)}[{place(x.place.plus(Linear(sum([k for _, k in x.place.terms]) * (x.array == 'values')), -1))}]\")"),
    },
    "llvm/in_order": {
        "one iteration too many": ("index, carried = self.code.open(0, self.index(x.count).name, 1, True, firsts)", "index, carried = self.code.open(0, self.index(x.count.plus(Linear(1))).name, 1, True, firsts)"),
        "carried as it was": ("after = [self.names[z] for _, z in x.carried.values()]", "after = [self.names[z] for z in x.carried]"),
        "counters start anew after a loop": ("last = self.code.close(after)\n        self.names.update(zip(chain(x.carried, counters), last))", "self.code.close(after)"),
        "counters that stand still": ("def _set(self, x: Set) -> None:\n        self.names[x.name] = self.index(x.to)", "def _set(self, x: Set) -> None:\n        pass"),
        "coefficients are 1": ("y = i if k == 1 else", "y = i if k else"),
        "no constant in a place": ("if z is None or not x.constant:", "if z is None or True:"),
        "computed numbers are loaded before the loop": ("if x.array != VALUES:\n            return self.code.emit", "if True:\n            return self.code.emit"),
        "entries are places": ("place, more = Linear(), self.code.emit(\"sext i32 {} to i64\", (entry,), \"i64\")", "pass"),
        "runs stand still": ("if isinstance(y, (float, Name)) or not step:", "if True:"),
        "runs go up by 1": ("f\"mul nsw i64 {{}}, {step}\"", "\"mul nsw i64 {}, 1\""),
        "the terms before a run are forgotten": ("firsts = [code.num(f.identity) if z is None else z for f, z in zip(folds, sums)]", "firsts = [code.num(f.identity) for f in folds]"),
        "the terms before a vector are forgotten": ("[total if z is None else f.join(z, total) for f, z, total in", "[total for f, z, total in"),
        "runs that go down are vectors that go up": ("found.append(code.shuffled(z, z, range(lanes - 1, -1, -1)) if backwards else z)", "found.append(z)"),
        "vectors that go down start at their first number": ("last = Num(code, str(lanes - 1), 0, 1, \"i64\")", "last = Num(code, \"0\", 0, 1, \"i64\")"),
        "iterations that wait are side by side": ("falls and most.constant + by < 0", "True"),
        "the first iteration alone tells whether others wait": ("most.plus(self.last[name], max(k, 0))", "most"),
        "iterations that read by a table do not wait": ("most = Linear(ahead.constant)", "if isinstance(read, Entry):\n            return True\n        most = Linear(ahead.constant)"),
        "iterations of an unknown number run once too often": ("self.code.open(whole, count, 1, sure)", "self.code.open(whole, count, 1, True)"),
        "terms of an unknown number are one too many": ("self.index(x.length).name, 1, sure, firsts, told=True)", "self.index(x.length).name, 1, True, firsts, told=True)"),
        "vectors of what goes down": ("if step == 1 and isinstance(x, Cell):", "if abs(step) == 1 and isinstance(x, Cell):"),
        "vectors of entries of the table": ("if step == 1 and isinstance(x, Cell):", "if step == 1:"),
        "what lies apart is all the first": ("for k in range(side)]\n            self", "for _ in range(side) for k in (0,)]\n            self"),
        "stores that lie apart are on top of each other": ("place.plus(Linear(step * k))))", "place.plus(Linear(step))))"),
        "stores that lie apart are of the first": ("self.code.store(self.code.lane(z, k), self", "self.code.store(self.code.lane(z, 0), self"),
        "stores that go down go up": ("elif step == 1:\n            self.code.store(self.code.spread", "elif step:\n            self.code.store(self.code.spread"),
        "iterations that fill no vector are left out": ("if whole != count:", "if False:"),
        "every run fills vectors": ("return {1, -1, 0} >= {*x.steps} != {0}", "return True"),
        "half of a vector": ("for k in (0, half)])", "for k in (0, 0)])"),
        "what fills no vector is left out": ("range(int(start), x.length.constant))", "range(0))"),
        "one number less in a short run": ("sums, range(x.length.constant))\n            else", "sums, range(x.length.constant - 1))\n            else"),
        "the first factor": ("x = factors[0] if len(factors) == 1 else factors[0] * factors[1]", "x = factors[0]"),
        "folds are sums": ("if fold is not FOLDS[\"sum\"]:\n            return fold.take((0, None), z, factors)", ""),
        "all rows are the first": ("%o{k} = mul i64 %i, {size}", "%o{k} = mul i64 0, {size}"),
        "numbers are not stored": ("if x.store is not None:\n            self.store", "if False:\n            self.store"),
        "constants are the values": ("self.layout.values if array == VALUES else self.layout.constants", "self.layout.values"),
        "read one iteration too early": ("place = x.place\n        if isinstance(x, Entry):", "place = x.place.plus(Linear(sum([k for _, k in x.place.terms]) * (x.array == VALUES)))\n        if isinstance(x, Entry):"),
        "read one iteration too late": ("place = x.place\n        if isinstance(x, Entry):", "place = x.place.plus(Linear(sum([k for _, k in x.place.terms]) * (x.array == VALUES)), -1)\n        if isinstance(x, Entry):"),
        "carried from the iteration after the first": ("firsts = [self.source(first) for first, _ in x.carried.values()] +", "firsts = [self.source(first) * 0.5 for first, _ in x.carried.values()] +"),
    },
    "cache": {
        "no digest": ("if whole[:start] == _MAGIC + _digest(key, whole[start:]):", "if whole[: len(_MAGIC)] == _MAGIC:"),
        "a digest of the content alone": ("digest = blake2b(key.encode(), digest_size=_DIGEST)", "digest = blake2b(digest_size=_DIGEST)"),
        "the digest of the beginning": ("digest.update(content)", "digest.update(content[:64])"),
        "anybody's folder": ("if not _is_ours(os.fstat(descriptor)):", "if False:"),
        "anybody's file": ("if _is_ours(os.fstat(descriptor)):\n                whole", "if True:\n                whole"),
        "any owner": ("known.st_uid == os.geteuid() and not", "not"),
        "any mode": ("and not known.st_mode & 0o022", ""),
        "the group may write": ("known.st_mode & 0o022", "known.st_mode & 0o002"),
        "links to files": ("_READ = os.O_RDONLY | getattr(os, \"O_NOFOLLOW\", 0) |", "_READ = os.O_RDONLY |"),
        "links to folders": ("os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW", "os.O_RDONLY | os.O_DIRECTORY"),
        "wait for a pipe": ("getattr(os, \"O_NONBLOCK\", 0) |", ""),
        "files for all to read": ("_WRITE, 0o600,", "_WRITE, 0o644,"),
        "a folder for all to read": ("mode=0o700", "mode=0o755"),
        "written in place": ("part = f\"{os.urandom(8).hex()}.part\"", "part = key"),
        "parts are left": ("except OSError:\n                at.remove(part)", "except OSError:\n                pass"),
        "never too large": ("    if total > LIMIT:", "    if False:"),
        "all files go": ("            if total <= LIMIT * 3 // 4:\n                break\n", ""),
        "the newest goes first": ("return sorted(found)", "return sorted(found, reverse=True)"),
        "what is used does not count": ("os.utime(at.path(key), dir_fd=at.descriptor)", "pass"),
        "large files stay": ("if len(content) > LARGEST or", "if"),
        "always on": ("if named.lower() in (\"off\", \"0\"):", "if False:"),
        "relative to nothing": ("return path if os.path.isabs(path) else \"\"", "return path"),
    },
    "kept": {
        "no ops": ("whole = names, codes,", "whole = names, [],"),
        "no names of ops": ("whole = names, codes", "whole = [], codes"),
        "no lengths of inputs": ("whole = names, codes, lengths,", "whole = names, codes, [],"),
        "no inputs": ("lengths, numbers, given,", "lengths, [x for x in numbers if type(x) is float], given,"),
        "no constants": ("x.number if type(x) is Symbol else x if type(x) is float else seen[x]", "x.number if type(x) is Symbol else 0.0 if type(x) is float else seen[x]"),
        "constants are rounded": ("x.number if type(x) is Symbol else x if type(x) is float else seen[x]", "x.number if type(x) is Symbol else round(x, 9) if type(x) is float else seen[x]"),
        "0 and -0 are one constant": ("x.number if type(x) is Symbol else x if type(x) is float else seen[x]", "x.number if type(x) is Symbol else x + 0.0 if type(x) is float else seen[x]"),
        "Values are one": ("x if type(x) is float else seen[x] for x in read]", "x if type(x) is float else -1 for x in read]"),
        "no outputs": (", *[x if isinstance(x, Value) else number(x, \"output\") for x in outputs]]", "]"),
        "no places of inputs": ("numbers, given, [z.requires_grad", "numbers, [], [z.requires_grad"),
        "what is doubted does not count": ("[z.requires_grad for z in tape], doubts", "[z.requires_grad for z in tape]"),
        "what learns is all one": ("given, [z.requires_grad for z in tape]", "given, []"),
        "no places of parameters": ("([places.get(v) for v in self], 2)", "(len(self), 2)"),
        "Values that learn are as others": ("- 2 + v.requires_grad", "- 2"),
        "ops by their names": ("if not all([op is None or op is total or TABLE.get(op.name) is op or op in PARTS for op in kinds]):", "if False:"),
        "no options": ("repr((what, _surroundings(backend), parts))", "repr((what, _surroundings(backend), parts[:1]))"),
        "no surroundings": ("repr((what, _surroundings(backend), parts))", "repr((what, backend, parts))"),
        "no version": ("return __version__, _source(),", "return _source(),"),
        "no source": ("return __version__, _source(),", "return __version__,"),
        "half of the source": ("b\"\\0\" + stream.read()", "b\"\\0\""),
        "no processor": ("binding.get_default_triple(), host()", "binding.get_default_triple()"),
        "any LLVM": ("binding.llvm_version_info, ", ""),
        "what is not known has a key": ("if None in parts:", "if False:"),
        "arrays are copies": ("if k is None else (array_given, (k,))", ""),
        "anything is unpickled": ("        if name not in _TABLE:\n            raise pickle.UnpicklingError(f\"{module}.{name} is no part of code\")\n        return _TABLE[name]", "        return _TABLE.get(name) or super().find_class(module, name)"),
        "errors of a file are raised": ("    except Exception:  # of whatever kind", "    except MemoryError:  # of whatever kind"),
        "functions refuse again": ("return unrefusing(TABLE[name])", "return TABLE[name].value"),
        "captured Values in another order": ("known = [*self]", "known = [*self][::-1]"),
        "nothing is found": ("data = load(key) if key else None", "data = None"),
    },
    "passes/short": {
        "what a scan starts from is a constant": ("return x if isinstance(x, Value) else self._inputs([float(x)], 1)[0]", "return x"),
        "lists tell how many entries are there": ("return self.told", "return len(self.items)"),
        "the last entries are the first ones": ("return at if at < half else n - (self.told - at)", "return at if at < half else self.told - at - 1"),
        "an entry in the middle is the last one": ("if at >= half and self.told - at > half:", "if False:"),
        "a slice in steps is one without": ("if i.step not in (None, 1, -1):", "if False:"),
        "any loop may run over it": ("return iter(self.items) if ours else self._added_up()", "return iter(self.items)"),
        "any call may take the entries": ("            if len(made) != 1 or not _is_sum(made[0], x, total):\n                break\n            [total] = made\n", ""),
        "a loop may add them up": ("if \"CALL\" not in opname[frame.f_code.co_code[frame.f_lasti]] or type(x) is not Symbol:", "if type(x) is not Symbol:"),
        "steps may get what they like": ("if any([self.states[i] != self.states[self.middle(0)[0]] for i in self.middle(0)]):", "if False:"),
        "outputs may depend on steps as they like": ("if len({of_step.get(i) for i in self.scans[s].middle(self.depth)}) > 1:", "if False:"),
        "the derivatives do not count": ("self.derivatives.append([(z.number, g) for z, g in derivatives if type(z) is Symbol])", "pass"),
        "the numbers of the first steps are those of all": ("self.chunks.append(numbers)", "self.chunks.append((list(numbers[:n]) * len(numbers))[: len(numbers)])"),
        "values that learn are plain numbers": ("return isinstance(x, Value) and (x.symbolic or x.requires_grad)", "return isinstance(x, Value) and x.symbolic"),
        "cut one entry too few": ("return self.count + length - self.length", "return self.count + length - self.length - (length != self.length)"),
    },
    "passes/lengths": {
        "any node will do": ("self._demand(found == node)", "pass"),
        "any op will do": ("self._demand(op is x.op)", "pass"),
        "the inputs are not looked at": ("            for x, node in zip(found, nodes):\n                self._same(x, node)", "            pass"),
        "a constant is what it was last": ("self._demand(repr(numbers[hole.place]) == repr(x))", "numbers[hole.place] = x"),
        "any constant in the text will do": ("self._demand(repr(self.graph.constant(node)) == repr(found))", "pass"),
        "the rest of the graph is left out": ("self._demand(self.at == len(self.nodes) and not self.part and None not in self.given)", "pass"),
        "half a sum is a sum": ("        if self.part < len(terms):\n            self._demand(op in SUMS)\n            return Part(node, self.part)\n", ""),
        "loops need not run": ("self._demand(count >= 1)", "pass"),
        "a number may be stored twice": ("self._demand(0 <= at < len(self.memory) and self.memory[at] is None)", "pass"),
        "addresses are straight lines": ("pairs = z - 2 * y + x", "pairs = 0"),
        "programs need not be alike": ("if any([own != rest for own, _, _ in readings]):", "if False:"),
        "another leaf is as good": ("if source not in places:", "if False:"),
        "a factor for the first length": ("if all([abs(factor * found.of(row) - x) <= 1e-15 * abs(x) for x, row in zip(numbers, others)]):", "if True:"),
        "all addresses fit": ("if not all([within(place, last, 0, limits[of]) for place, of in addresses_of(x)]):", "if False:"),
        "no constants of their own": ("constants._replace(at=constants.at + varying)", "constants"),
    },
    "passes/counts": {
        "a constant in memory goes on in steps": ("[0 if type(y) is float else step for", "[step for"),
        "any integers": ("if more or any([form.of(n) != x for n, x in zip(counts, numbers)]):", "if more:"),
        "a constant over n is one": ("return self.by / n if self.over else self.at + self.by * n", "return self.by if self.over else self.at + self.by * n"),
        "told constants are those of the first length": ("numbers = [reading.floats[k] for k in self.where]", "numbers = [self.reading.floats[k] for k in self.where]"),
        "every length has the same program": ("return reading if alike else None", "return reading"),
        "no constant is told": ("return self.lying is not None and repr(self.lying.floats[k]) != repr(self.columns[k][0])", "return False"),
        "repeated constants are the first ones": ("!= numbers or name in counters:", "!= numbers and name in counters:"),
        "a step that grows with n is a step": ("z.body.append(Set(product, variable(product).plus(variable(COUNT))))", "z.body.append(Set(product, variable(product)))"),
        "long strides are those of the fewest steps": ("y._replace(place=y.place.plus(Linear(k * step)))", "y._replace(place=y.place)"),
        "results of the fewest steps": ("length = int(form.of(n))\n", "length = int(form.of(counts[0]))\n"),
        "a Value for each step is one Value": ("if [*map(id, mine)] != [*map(id, others)]:", "if False:"),
        "every twelfth is every one": ("n += (length - n) % every", "n += 0"),
        "numbers of Values are read once": ("return [x for chunk in short.chunks for x in chunk]", "return [float(getattr(x, 'data', x)) for chunk in short.chunks for x in chunk]"),
    },
    "passes/compact": {
        "new places one further": ("new = before[at] - sum(", "new = before[at] + 1 - sum("),
        "inputs are not used": ("(array == VALUES and slot != (\"store\",)):", "(array == VALUES and slot != (\"store\",)) or slot[0] == \"input\":"),
        "runs use their first number": ("for k in range(length):\n            used", "for k in range(1):\n            used"),
        "entries stay as they are": ("_move_entries(steps, program, before)\n", "pass\n"),
        "any form fits": ("elif new != want:\n            return False", "pass"),
        "any step of a run fits": ("return old.length is None or self._run_holds(", "return True or self._run_holds("),
        "steps of runs stay as they are": ("forms[\"term\", t, j][1] if (\"term\", t, j) in forms else step for", "step for"),
        "nothing is left out": ("used = bytearray(n)", "used = bytearray(b\"\\1\" * n)"),
        "indices have moved since 0": ("for (_, k), i in zip(terms, self.first, strict=True)])", "for (_, k), i in zip(terms, [0] * len(terms), strict=True)])"),
    },
    "passes/split": {
        "all is done once": ("time += time % 2 != in_parts", "time += time % 2"),
        "what is read may be written later": ("before = [written.get(a, 0) for a in reads(part)] +", "before = [0 for a in reads(part)] +"),
        "what is overwritten may be read later": (" + [max(used.get(a, {0})) for a in writes(part)]", ""),
        "the share of the first thread is all": ("for a in shares[share]]))", "for a in shares[share][:1]]))"),
        "a part without samples keeps its share": ("buffer[:] = self._zeros(len(buffer))", "pass"),
        "nobody waits for the others": ("other.result()", "pass"),
        "a sample belongs to two parts": ("* t // self.n for t in", "* t // self.n - (t == 1) for t in"),
        "a thread takes too few": ("return -(-capacity // threads)", "return capacity // threads"),
    },
    "passes/update": {
        "all of a group have made as many steps": ("known.setdefault((group, slot.step), len(known))", "known.setdefault(group, len(known))"),
        "the rate of the first group": ("(rates[p.group], float(p.slot.step))", "(rates[0], float(p.slot.step))"),
        "steps made before do not count": ("self.optimizer.rule(before + t,", "self.optimizer.rule(t,"),
        "the norm is its square": ("else ops.sqrt(squared[0])", "else squared[0]"),
        "no clipping by value": ("if self.value is not None:", "if False:"),
        "the first part of a gradient is all": ("g = sum(gs[1:], gs[0])", "g = gs[0]"),
        "what is frozen learns": ("positions = [k for k, v in enumerate(slot.values) if v.requires_grad]", "positions = [*range(len(slot.values))]"),
        "hyperparameters of the first": ("[Access(self.hyper, 2 * kind), Access(self.hyper, 2 * kind + 1),", "[Access(self.hyper, 0), Access(self.hyper, 1),"),
        "the norm of the first gradient": ("for g in grads])\n    program", "for g in grads[:1]])\n    program"),
    },
    "batch": {
        "a batch is what two and three are": ("self.formula.check(samples.traced(whole))", "pass"),
        "the loss alone is what it is of two": ("self.formula.check(samples.traced(n, two))", "pass"),
        "any formula holds": ("if form_of(self._found(many)[0]) != form_of(self.found[0]):", "if False:"),
        "predictions are those of two": ("if [*map(many.batch.form_of, numbers)] != [*map(self.two.batch.form_of, self.numbers)]:", "if False:"),
        "random numbers in any order": ("if batch.draws != _drawing_order(_blocks(batch.draws), n):", "if False:"),
        "what is right may depend on others": ("if two.right and many.batch.form_of(", "if False and many.batch.form_of("),
        "the sum is the mean": ("outputs = [loss * n,", "outputs = [loss,"),
        "predictions may draw": ("if self.trace.random:", "if False:"),
        "all that is proved is proved for ever": ("self.proved = {0, 2} if alone", "self.proved = {*range(100)} if alone"),
    },
    "python/comprehensions": {
        "slices one too short": ("{_affine(high + 1, terms)}{step}]", "{_affine(high, terms)}{step}]"),
        "what goes down goes up": ("return text if stride > 0 else f\"{text}[::-1]\"", "return text"),
        "the inner loop is the outer one": ("if m and x.strides[m - 1]:\n            return 2", "if m and x.strides[m - 1]:\n            return 1"),
        "stores that go down go up": ("numbers = f\"{_grouped(numbers)}[::-1]\"", "pass"),
        "the first of what is stored in one place": ("{_grouped(numbers)}[-1]\"", "{_grouped(numbers)}[0]\""),
        "two arrays are one list": ("copied = \"[:]\" if len(self.stored[k]) > 1 else \"\"", "copied = \"\""),
        "sums over samples are of one": ("over = segment.over_samples and self.text.samples", "over = False"),
        "stored before it is read": ("if place is None or self._is_read_after(place.array, k):", "if place is None:"),
        "what was added up before is forgotten": ("text = f\"sum({runs})\" if total is None else f\"sum({runs}, {total.text})\"", "text = f\"sum({runs})\""),
        "columns are turned once": ("self.turned.difference_update(written)", "pass"),
        "the first factor": ("return runs[0] if len(runs) == 1 else f\"map(mul", "return runs[0] if runs else f\"map(mul"),
        "any name means the same later": ("named = not (inline or self._is_at_rest(k, expr) if atomic", "named = not (inline or True if atomic"),
        "one table for all outer iterations": ("if len(set(tables)) == 1:", "if True:"),
        "exact code refuses": ("form = None if self.text.ieee and op in REFUSING else python_form(op)", "form = python_form(op)"),
        "rows are kept when they are not whole": ("return is_whole(stored[0].access, stored[0].dims, home)", "return True"),
    },
    "python/simpler": {
        "tables in the old order": ("table = tuple(x.table[sum(place)] for place in places)", "pass"),
        "any two loops are one": ("if all(x.strides[outer + d] == x.strides[outer + d + 1] * dims[d + 1] for x in affine):", "if True:"),
        "unrolled terms are the first": ("return Access(x.array, x.base + shift,", "return Access(x.array, x.base,"),
        "strides in the old order": ("tuple(x.strides[d] for d in order))", "tuple(x.strides[d] for d in sorted(order)))"),
        "tables of one entry": ("if min(table) == max(table):", "if True:"),
    },
    "python/homes": {
        "any number is a variable": ("not any(use.access.strides) and not", "not"),
        "any store is of all": ("return (place.base, place.strides, size(dims)) == (0, natural, home.size)", "return True"),
        "rows of any length": ("next((p for p in good if all(_suits(use, p) for use in uses)), 0)", "next(iter(good), 0)"),
        "runs across rows": ("if first < 0 or last >= pitch:", "if False:"),
        "columns of any width": ("== (1, pitch, 0, 1)", "!= ()"),
    },
    "python/code": {
        "the last block is as long as all": ("n = min(block, count - at)\n", "n = block\n"),
        "totals are of the last batch": ("total[:] = map(operator.add, total, output)", "total[:] = output"),
        "steps stand still": ("xs[0] = first_step + k", "xs[0] = first_step"),
        "rows in the order of the data": ("[[table[i] for i in picked] for table in tables]", "[[*table[: len(picked)]] for table in tables]"),
        "as many samples as you like": ("if not 1 <= n <= self._capacity:", "if False:"),
        "batches of one length": ("picked = order[at : min(at + batch, stop)]", "picked = order[at : at + batch]"),
    },
    "python/ieee": {
        "what is too large is above 0": ("return -math.inf if _is_negative(op, xs) else math.inf\n        except", "return math.inf\n        except"),
        "0 / 0 is infinite": ("return math.nan if x == 0 or x != x else math.copysign", "return math.copysign"),
        "0 is positive": ("* math.copysign(1.0, y)", ""),
        "0 times log 0 is NaN": ("math.copysign(math.inf, -xs[0]) if xs[1] == 0 else math.nan", "math.nan"),
        "even powers are negative": ("and abs(xs[1]) % 2 == 1", ""),
    },
    "llvm/vectors": {
        "what fills no tile is left out": ("if left:\n", "if False:\n"),
        "samples that fill no tile are left out": (", (end, \"%n\", 1, False, [(0, 1)])]", "]"),
        "samples are sure to fill a tile": ("(0, end, step, False, whole)", "(0, end, step, True, whole)"),
        "what goes down starts at its first number": ("self.read(place, moved(at, lane, lanes - 1), lanes)", "self.read(place, at, lanes)"),
        "what lies apart is all the first": ("self.read(place, moved(at, lane, i), 1)", "self.read(place, at, 1)"),
        "stores that lie apart are on top of each other": ("self.pointer(place, moved(copy.at, lane, i)))", "self.pointer(place, copy.at))"),
        "tables are not read": ("if not any(place.table_strides):\n            return None", "if True:\n            return None"),
        "the parts before a vector are forgotten": ("[joined(*z) for z in zip(folds, mine, new)]", "[z[2] for z in zip(folds, mine, new)]"),
        "what fills no vector is not added": ("range(done, self.whole + bool(self.left))", "range(done, self.whole)"),
        "vectors are filled up with 0": ("self.code.padded(x, self.width, fold.identity)", "self.code.padded(x, self.width, 0.0)"),
        "one of the sums side by side": ("for z in sums[k::total] if z is not None", "for z in sums[k : k + 1] if z is not None"),
        "half of a vector": ("high = [i + lanes for i in low]", "high = low"),
        "copies that differ in a dim are alike": ("for d in sorted(step.dims)]), [])", "for d in sorted(step.dims)[:1]]), [])"),
        "sums start at nothing": ("[f.take((c, None), z, factors) for f, z in zip(folds, sums[c * n", "[f.take((c, None), None, factors) for f, z in zip(folds, sums[c * n"),
        "the offsets of a tile are those of its first": ("fixed = place.base + sum([stride * offset for", "fixed = place.base + sum([0 * offset for"),
    },
    "llvm/nests": {
        "any two dims are one": ("x.strides[outer] == extent * x.strides[inner] and", ""),
        "any two dims of tables are one": (" and x.table_strides[outer] == extent * x.table_strides[inner]", ""),
        "all samples have one row": ("row = x.array.size if x.array.per_sample else 0", "row = 0"),
        "steps depend on nothing before": ("depends |= earlier[x.step].dims", "pass"),
        "0 and -0 are one constant": ("Constant(float(x).hex())", "Constant((float(x) + 0.0).hex())"),
        "all begin at the least base": ("base=x.base - base", "base=0"),
        "every table grows alike": ("if row != [x + i * step for x in heads]:", "if False:"),
        "tables on top of each other": ("self._starts[entries] = len(self.tables)", "self._starts[entries] = 0"),
        "every dim of one iteration counts": ("if extent == 1:\n            continue", "if extent == 2:\n            continue"),
    },
    "llvm/tiling": {
        "no vectors": ("sorted([None, *range(len(alone))],", "sorted([None],"),
        "nothing is taken together": ("if not any(self.work(p) >= HEAVY", "if True or not any(self.work(p) >= HEAVY"),
        "the worst plan": ("return min(plans,", "return max(plans,"),
        "never along": ("if other < best:", "if False:"),
        "samples first": ("return (*[d for d in dims if d not in last], *last)", "return (*last, *[d for d in dims if d not in last])"),
    },
    "llvm/instructions": {
        "subtraction commutes": ("def __rsub__(y, x: Operand) -> Num:     return y.code.binary(\"fsub contract\", x, y)", "def __rsub__(y, x: Operand) -> Num:     return y.code.binary(\"fsub contract\", y, x)"),
        "NaN differs from nothing": ("fcmp une", "fcmp one"),
        "literals are rounded": ("struct.pack('<d', x)", "struct.pack('<d', round(x, 6))"),
        "vectors are filled up with their first number": ("[min(i, x.lanes) for i in range(lanes)]", "[0 for i in range(lanes)]"),
        "lanes backwards": ("i64 {i}\", (z, x), x.of)", "i64 {len(xs) - 1 - i}\", (z, x), x.of)"),
        "loops that may be skipped hand on what was not computed": ("[ {first.name}, %{skipped} ], [ {x.name}", "[ undef, %{skipped} ], [ {x.name}"),
        "carried from the first iteration on as it was": ("edges = f\"[ {first.name}, %{before} ], [ {x.name},", "edges = f\"[ {first.name}, %{before} ], [ {carried.name},"),
        "steps of 1": ("add nuw nsw i64 %i{label}, {step}", "add nuw nsw i64 %i{label}, 1"),
    },
    "llvm/around": {
        "rows stand still": ("%bytes = mul i64 %row, %n", "%bytes = mul i64 %row, 0"),
        "the last batch is as long as the others": ("%n = call i64 @llvm.umin.i64(i64 %left, i64 %batch)", "%n = add i64 %batch, 0"),
        "steps are counted from 0": ("%sf = fadd double %bf, %first", "%sf = fadd double %bf, 0.0"),
        "rows in the order of the data": ("%k = load i64, ptr %op", "%k = add i64 %o, 0"),
        "totals are of the last batch": ("%zv = fadd double %yv, %xd", "%zv = fadd double 0.0, %xd"),
        "a single row is the first": ("%k0 = load i64, ptr %o0", "%k0 = add i64 0, 0"),
    },
    "llvm/native": {
        "the last numbers may be infinite": ("%left = icmp slt i64 %whole, %n", "%left = icmp slt i64 %n, 0"),
        "vectors may be infinite": ("%any = icmp sgt i64 %whole, 0", "%any = icmp slt i64 %whole, 0"),
        "the last row is the largest": ("%more = call i64 @llvm.umax.i64(i64 %most, i64 %k)", "%more = add i64 %k, 0"),
        "read-only buffers are written to": ("if view.readonly and not read:", "if False:"),
        "buffers of any length": ("if numbers != exactly >= 0 or numbers < least:", "if False:"),
        "instances share their memory": ("return Native(self._code)\n\n    def laid_out", "return self\n\n    def laid_out"),
        "as many samples as you like": ("if self._unbound or not 0 < n <= self._capacity:", "if self._unbound:"),
    },
    "c/in_order": {
        "carried one iteration too late": ("self.line(f\"{name} = {after};\")", "self.line(f\"static {self.code.type} {name}_late; {name} = {name}_late; {name}_late = {after};\")"),
        "carried as it was": ("self.line(f\"{name} = {after};\")", "self.line(f\"(void){after};\")"),
        "read one iteration too early": ("at = place(x.place if more is None else x.place.plus(more))", "at = place((x.place if more is None else x.place.plus(more)).plus(Linear(sum([k for _, k in x.place.terms]) * (x.array == VALUES))))"),
        "read one iteration too late": ("at = place(x.place if more is None else x.place.plus(more))", "at = place((x.place if more is None else x.place.plus(more)).plus(Linear(sum([k for _, k in x.place.terms]) * (x.array == VALUES)), -1))"),
        "one iteration too few": ("{index} < {place(count)};", "{index} + 1 < {place(count)};"),
        "all operators bind alike": ("text if part.binds >= level or", "text if True or"),
        "subtraction commutes": ("if reflected:\n            x, y = y, x", "if False:\n            x, y = y, x"),
        "folds start at 0": ("self.code.literal(fold.identity)", "self.code.literal(0.0)"),
        "runs stand still": ("Linear(0, ((index, s),)) if index and s else None for", "None for"),
        "0 times inf is NaN": ("x == 0.0 || y == 0.0 ? 0.0 : x * y", "x * y"),
        "entries are places": ("at = f\"{self.arrays[TABLE]}[{at}]\"", "pass"),
        "counters that stand still": ("self.line(f\"{x.name} = {place(x.to)};\")", "pass"),
        "constants are rounded": ("return repr(x)\n", "return f\"{x:.6e}\"\n"),
        "what is subtracted is added": ("f\" {'-' if k < 0 else '+'} {text}\"", "f\" + {text}\""),
        "functions stand before those that they call": ("for text in found.values() for", "for text in [*found.values()][::-1] for"),
        "NaN is smaller": ("return x > y || x != x ? x : y;", "return x > y ? x : y;"),
    },
    "c/lowered": {
        "nothing is doubtful": ("if lowered._exact is None:", "if True:"),
        "too little scratch memory": ("self.work = max(self.work, rolled.values)", "self.work = 1"),
        "parameters backwards": ("numbers = [x.data for _, xs in lowered._parameters for x in xs]", "numbers = [x.data for _, xs in lowered._parameters for x in xs][::-1]"),
        "one result less": ("\"RESULTS\": lowered._width", "\"RESULTS\": lowered._width - 1"),
        "names that are taken": ("return f\"{z}_\" if z in TAKEN else z", "return z"),
        "comments end in a name": (".replace(\"*/\", \"* /\")", ""),
        "the exact code has the constants of the plain one": ("lines = statements(rolled, steps, leaves, self.code, prefix)", "lines = statements(rolled, steps, leaves, self.code, \"\")"),
    },
    "c/step": {
        "the rate of the first group": ("\"lr\": lr[p.group]", "\"lr\": lr[0]"),
        "no clipping by value": ("return gradients if value is None else [", "return gradients if True else ["),
        "no clipping by norm": ("if norm is not None:", "if False:"),
        "the norm is its square": ("ops.sqrt(ops.sum([g * g for g in gradients]))", "ops.sum([g * g for g in gradients])"),
        "each step is the first": ("rule = optimizer.rule(t,", "rule = optimizer.rule(1.0,"),
        "what is remembered stays": ("kept[name].append(z)", "kept[name].append(0.0 * z)"),
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
    (directory / "conftest.py").write_text(QUICK)
    path = directory / "milligrad" / "compiler" / f"{file}.py"
    text = path.read_text()
    path.write_text(text.replace(old, new))
    return text.count(old) == 1


def tests_of(name: str) -> str:
    """The file of tests of a pass."""
    folder, _, name = name.rpartition("/")
    return f"tests/compiler/{folder}/test_{name}.py" if folder else f"tests/compiler/test_{name}.py"


def verdict(file: str, old: str, new: str) -> tuple[str, str]:
    """("caught", the first test that failed), or another word and pytest's last line."""
    with tempfile.TemporaryDirectory() as name:
        if not broken_copy(Path(name), file, old, new):
            return "STALE", f"not once in {file}.py: {old!r}"
        names = sorted(TESTS[file], key=lambda name: name != file)  # those of the file itself first
        command = [*(sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider")]
        command += [tests_of(name) for name in names]
        surroundings = {**os.environ, "PYTHONPATH": name, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            process = subprocess.run(
                command, cwd=name, env=surroundings, capture_output=True, text=True, timeout=LONGEST
            )
        except subprocess.TimeoutExpired:
            return "caught", f"no end after {LONGEST} s"
    lines = [line for line in (process.stdout + process.stderr).splitlines() if line.strip()]
    failed = [line.partition(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))]
    crashed = process.returncode < 0  # native code that writes anywhere
    word = {TESTS_FAILED: "caught", 0: "SURVIVED"}.get(process.returncode, f"NOT RUN ({process.returncode})")
    word = "caught" if crashed else word
    return word, (failed or lines or ["no output"])[-1].removeprefix("FAILED tests/compiler/")


def main(word: str = "") -> int:
    start, results = time.perf_counter(), []
    for file, faults in FAULTS.items():
        for name, (old, new) in faults.items():
            if f"{file}: {name}".startswith(word) or (":" not in word and word in f"{file}: {name}"):
                result, line = verdict(file, old, new)
                print(f"{file}: {name:45} {result:9} {line}", flush=True)
                results.append(result)
    caught = results.count("caught")
    print(f"{caught} of {len(results)} faults caught, in {time.perf_counter() - start:.0f} s")
    return 0 if caught == len(results) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
