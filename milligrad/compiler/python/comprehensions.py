"""From a program of loops to Python source text that runs it: the backend that needs the standard library alone.

What a Python programmer would write by hand for speed is written here by rule. The innermost loop of a nest becomes a
comprehension over slices, a sum of products `sum(map(mul, row, x))`, and everything around it `for` statements:

    for i in range(32):
        dz_i = dz[i]
        V_i = [0.9 * V_ij + dz_i * x_j for V_ij, x_j in zip(V[i], x)]
        W[i] = [W_ij - lr * V_ij for W_ij, V_ij in zip(W[i], V_i)]
        V[i] = V_i

It decides how each array is kept and how each step is spelled, and nothing else: what is computed, and in which order,
the program says. An op is spelled by an operator or a short expression where that is the row's value to the last digit
and the last edge; everywhere else the row's own `value` is called. So Python's errors come out as in eager code.
(Only a sum whose terms are all -0.0 may come out as -0.0, and not as 0.0.)

    home      how an array is kept while the program runs: local variables, a flat list, or a list of rows
    nest      one Loop of the program; its last dimension is the inner one, the others are outer
    level     where in the nest a step is taken: 0 before it, 1 in the outer loops, 2 in the inner one
    item      what the inner loop draws from an iterable, named like a formula: W_ij
    let       a name given to a part of an expression, because it is used twice or the expression grew long
    columns   a per-sample array turned over: for each of its places, the numbers of all samples
"""

from __future__ import annotations

import builtins
import keyword
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import count, groupby, product, takewhile
from time import perf_counter
from typing import Any

from milligrad.compiler.passes.simplify import REFUSING
from milligrad.compiler.program import (
    Access,
    Apply,
    Array,
    Dims,
    Loop,
    Operand,
    Program,
    Reduce,
    Ref,
    Segment,
    accesses,
    operands,
    size,
)
from milligrad.compiler.python.code import (
    HELPERS,
    Code,
    adds_up_samples,
    is_bound,
    is_row_input,
    split,
    sums_samples,
)
from milligrad.compiler.python.homes import Home, Use, is_single, is_whole, pitch_of, uses_of
from milligrad.compiler.python.ieee import unrefusing
from milligrad.compiler.python.simpler import UNROLL, simpler
from milligrad.compiler.spelling import PAIRS, Expr, call, literal, literally, plus, python_form, times
from milligrad.engine import TABLE, Op

FIELDS = 64  # the longest array that may be kept as local variables, one for each number
NESTED = 8  # sums within sums, before the inner one gets a name: Python's parser knows 200 parentheses
LONG = 12  # operations in one expression, before it gets a name
WIDTH = 88  # characters of a comprehension, before it gets lines of its own
LETS = 3  # names inside a comprehension, before it becomes a loop of statements
VECTORS = 4  # comprehensions for one nest, before they become a loop of statements


def build(program: Program, capacity: int = 1, ieee: bool = False) -> Code:
    """The program as Python code, for up to `capacity` samples at once.

    With `ieee` it raises nothing: what has no value is NaN, and what is too large inf; that takes longer.
    """
    _check(program)
    start = perf_counter()
    text = _Text(program, samples=capacity > 1 or not sums_samples(program), ieee=ieee)
    source = text.write()
    emitted = perf_counter()
    return Code(program, capacity, source, text.globals, emitted - start)


def _check(program: Program) -> None:
    """Raises ValueError where a per-sample array is used without saying of which sample."""
    for loop in program.loops:
        over = adds_up_samples(loop)
        for use in uses_of(loop):
            a = use.access.array
            if a.per_sample and not loop.per_sample and not use.over_samples:
                raise ValueError(f"{a!r} is per-sample, but is used in a loop that is not")
            if use.stored and loop.per_sample and not a.per_sample:
                raise ValueError(f"{a!r} is not per-sample, but is written in a loop that is")
        if loop.per_sample and over:
            raise ValueError("a segment over samples stands in a loop that is per-sample")


# ── Expressions ────────────────────────────────────────────────────────────────────────────────────────────────────


def _added(runs: str, total: Expr | None, ops: int) -> Expr:
    """The sum of all that is in the iterable, after what has been added up before."""
    text = f"sum({runs})" if total is None else f"sum({runs}, {total.text})"
    return Expr(text, ops=ops + (total.ops if total else 0), total=False)


def _affine(base: int, terms: Sequence[tuple[str, int]]) -> str:
    """base + Σ stride·index, as text."""
    text = " + ".join([name if k == 1 else f"{k}*{name}" for name, k in terms if k])
    if not text:
        return str(base)
    return (f"{text} + {base}" if base > 0 else f"{text} - {-base}" if base else text).replace("+ -", "- ")


def _slice(name: str, length: int, base: int, terms: Sequence[tuple[str, int]], extent: int, stride: int) -> str:
    """The numbers of the list `name`, which has `length`, at base + Σ terms, in `extent` steps of `stride`."""
    terms = [term for term in terms if term[1]]
    low, high = sorted((base, base + (extent - 1) * stride))
    if not terms and (low, high + 1, abs(stride)) == (0, length, 1):
        text = name
    else:
        step = f":{abs(stride)}" if abs(stride) != 1 else ""
        start = _affine(low, terms) if terms or low else ""
        text = f"{name}[{start}:{_affine(high + 1, terms)}{step}]"
    return text if stride > 0 else f"{text}[::-1]"


def _range(base: int, terms: Sequence[tuple[str, int]], extent: int, stride: int) -> str:
    start, stop = _affine(base, terms), _affine(base + extent * stride, terms)
    if stride != 1:
        return f"range({start}, {stop}, {stride})"
    return f"range({stop})" if start == "0" else f"range({start}, {stop})"


# ── The source text ────────────────────────────────────────────────────────────────────────────────────────────────

INDICES = ("i", "j", "k", "l", *[f"i{d}" for d in range(4, 100)])
RESERVED = {*keyword.kwlist, *dir(builtins), *HELPERS, *INDICES, "n", "batches", "run"}


class _Text:
    """The source of one program, as it is written.

    samples:  whether a call may be for several samples. If not, the sample axis is left out: a program for one sample
              is one that has no samples, and its sums over them are single terms.
    """

    def __init__(self, program: Program, samples: bool, ieee: bool = False) -> None:
        self.program, self.samples, self.ieee = program, samples, ieee
        self.loops = [simpler(loop) for loop in program.loops if size(loop.dims)]
        self.globals: dict[str, Any] = dict(HELPERS)
        self.names = set(RESERVED)
        self.numbers: dict[str, Iterator[int]] = {}  # what to make names different with
        self.lines: list[str] = []
        self.depth = 0
        self.allocated: set[Array] = set()
        self.turned: set[Array] = set()  # those whose columns are there
        self.values: dict[Any, str] = {}  # functions called, by themselves
        self.uses: dict[Array, list[Use]] = {a: [] for a in program.arrays}
        self.writers: dict[Array, int] = dict.fromkeys(program.arrays, 0)
        for loop in self.loops:
            for use in uses_of(loop):
                self.uses[use.access.array].append(use)
            for a in {place.array for _, place in loop.stores}:
                self.writers[a] += 1
        self.homes = {a: self._home(a) for a in program.arrays}
        self.grown = {a for a in program.arrays if self._grows(a)}

    def _home(self, a: Array) -> Home:
        name, uses = self.name(a.name), self.uses[a]
        stored = {use.access.base for use in uses if use.stored}
        listed = a.per_sample and self.samples and (a.role in ("leaf", "state") or self.writers[a] > 1)
        whole = a.role not in ("value", "output") or len(stored) == a.size
        if uses and a.size <= FIELDS and whole and not listed and all(map(is_single, uses)):
            fields = (name,) if a.size == 1 else tuple(self.name(f"{name}_{k}") for k in range(a.size))
            return Home(name, a.size, fields)
        if a.per_sample and (a.role != "value" or self.writers[a] > 1):
            return Home(name, a.size)
        return Home(name, a.size, pitch=pitch_of(a.size, uses))

    def _grows(self, a: Array) -> bool:
        """Whether the array is made anew, from its beginning to its end, by one loop that writes nothing else of it."""
        stored, home = [use for use in self.uses[a] if use.stored], self.homes[a]
        if a.role not in ("value", "output") or len(stored) != 1 or not stored[0].dims:
            return False
        return is_whole(stored[0].access, stored[0].dims, home)

    def held(self, a: Array) -> bool:
        """Whether it has numbers before the program runs: its own, or an output's that the program writes in part."""
        partly = a.role == "output" and a not in self.grown and not self.homes[a].fields
        return bool(self.uses[a]) and (partly or a.role in ("leaf", "state"))

    def name(self, wanted: str) -> str:
        """A name that nothing else has."""
        wanted = re.sub(r"\W", "_", wanted)
        wanted = wanted if wanted.isidentifier() else f"_{wanted}"
        numbers = self.numbers.setdefault(wanted, count(2))
        name = wanted
        while name in self.names:
            name = f"{wanted}_{next(numbers)}"
        self.names.add(name)
        return name

    def constant(self, wanted: str, value: Any) -> str:
        """The name of something that is too long for the text."""
        name = self.name(wanted)
        self.globals[name] = value
        return name

    def function(self, op: Op) -> str:
        """The name by which the text calls the op's value."""
        if self.ieee:
            if op not in self.values:
                value = unrefusing(op)
                self.values[op] = self.constant(value.__name__, value)
            return self.values[op]
        value = op.value
        if value not in self.values:
            own = getattr(value, "__name__", "").lstrip("_")
            if self.globals.get(own) is value:
                self.values[value] = own
            else:
                wanted = own if own.isidentifier() and own not in self.names else f"{op.name}_value"
                self.values[value] = self.constant(wanted, value)
        return self.values[value]

    def line(self, text: str) -> None:
        self.lines += ["    " * self.depth + part for part in text.split("\n")]

    def write(self) -> str:
        """The whole text."""
        arrays = self.program.arrays
        self.lists = {a: self.name(f"{a.name}_list") for a in arrays if is_bound(a)}
        self.rows = {a: self.name(f"{a.name}_rows") for a in arrays if a.per_sample}
        self.columns = {a: self.name(f"{a.name}_columns") for a in arrays if a.per_sample}
        for a in arrays:
            if a.role == "constant" and not self.homes[a].fields:
                self.globals[self.homes[a].name] = _kept(a.values, self.homes[a].pitch)
        self.line(f"def run({', '.join(['batches', *self.lists.values()])}):")
        self.depth = 1
        taken = [a for a in self.lists if self.uses[a] and not (a.per_sample and (self.samples or a.role == "input"))]
        again = [a for a in taken if (a.role == "input" and self.homes[a].fields) or a.role == "output"]
        self._take([a for a in taken if a not in again])
        self._batch([a for a in again if a.role == "input" or self.held(a)])
        self._give([a for a in arrays if a.role in ("leaf", "state")])
        head = [f"# {name}: {_say(value)}"[:WIDTH] for name, value in self.globals.items() if name not in HELPERS]
        return "\n".join([*head, *self.lines, ""])

    def _take(self, arrays: Iterable[Array]) -> None:
        """Numbers from the lists that the caller bound; lists that the program does not change are used as they are."""
        for a in arrays:
            home, given = self.homes[a], self.lists[a]
            if home.fields:
                self.line(f"[{', '.join(home.fields)}] = {given}" + (f"[:{a.size}]" if a.per_sample else ""))
            elif home.pitch:
                self.line(f"{home.name} = [{given}[i:i + {home.pitch}] for i in range(0, {a.size}, {home.pitch})]")
            else:
                self.line(f"{home.name} = {given}" + (f"[:{a.size}]" if a.per_sample or self.writers[a] else ""))

    def _batch(self, taken: list[Array]) -> None:
        """The loop over the batches; each begins by taking those arrays."""
        arrays = self.program.arrays
        inputs = [a for a in arrays if is_row_input(a)]
        rows = [self.rows[a] if self.samples else f"[{_target(self.homes[a], True)}]" for a in inputs]
        self.line(f"for {', '.join(['n', *rows])} in batches:" if rows else "for [n] in batches:")
        self.depth = 2
        lasting = [a for a in arrays if a.per_sample and self.samples and self.held(a)]
        for a in lasting:
            self.line(f"{self.rows[a]} = [{self.lists[a]}[i:i + {a.size}] for i in range(0, n * {a.size}, {a.size})]")
        self._take(taken)
        first = len(self.lines)
        last = {use.access.array: k for k, loop in enumerate(self.loops) for use in uses_of(loop)}
        for k, loop in enumerate(self.loops):
            if not (self.samples and loop.per_sample):
                _Nest(self, loop).write()
            elif not k or not self.loops[k - 1].per_sample:
                phase = [*takewhile(lambda loop: loop.per_sample, self.loops[k:])]
                self._per_sample(phase, {a for a in last if last[a] >= k + len(phase)})
        self._give([a for a in arrays if a.role == "output" or a in lasting])
        if len(self.lines) == first:
            self.line("pass")
        self.depth = 1

    def _per_sample(self, loops: list[Loop], wanted: set[Array]) -> None:
        """Loops for each sample, one sample after the other; the arrays that are wanted later are kept in lists."""
        written = dict.fromkeys(place.array for loop in loops for _, place in loop.stores)
        used = dict.fromkeys(use.access.array for loop in loops for use in uses_of(loop) if use.access.array.per_sample)
        there = [a for a in used if a.role == "input" or self.held(a) or a in self.allocated]
        kept = [a for a in written if a in wanted or a.role != "value"]
        rows = {a: self.name(f"{a.name}_next") if a in there else self.rows[a] for a in kept}
        for a in kept:
            self.line(f"{rows[a]} = []")
        targets = [_target(self.homes[a], a.role == "input") for a in there]
        drawn = _zip([self.rows[a] for a in there]) if there else "range(n)"
        self.line(f"for {', '.join(targets) if there else '_'} in {drawn}:")
        self.depth += 1
        for loop in loops:
            _Nest(self, loop).write()
        for a in kept:
            self.line(f"{rows[a]}.append({_target(self.homes[a])})")
        self.depth -= 1
        for a in kept:
            if rows[a] != self.rows[a]:
                self.line(f"{self.rows[a]} = {rows[a]}")
        self.turned.difference_update(written)

    def turn(self, a: Array) -> str:
        """The name of the array's columns."""
        if a not in self.turned:
            self.turned.add(a)
            home, rows = self.homes[a], self.rows[a]
            scalar = len(home.fields) == 1 and a.role != "input"
            self.line(f"{self.columns[a]} = " + (f"[{rows}]" if scalar else f"[*zip(*{rows})]"))
        return self.columns[a]

    def _give(self, arrays: list[Array]) -> None:
        """The numbers of these arrays to the lists that the caller bound."""
        for a in arrays:
            if not self.writers[a]:
                continue
            given, home = self.lists[a], self.homes[a]
            if a.per_sample and self.samples:
                scalar = len(home.fields) == 1
                numbers = self.rows[a] if scalar else f"chain.from_iterable({self.rows[a]})"
                self.line(f"{given}[:n{'' if a.size == 1 else f' * {a.size}'}] = {numbers}")
            elif home.fields:
                self.line(f"{given}[:{a.size}] = [{', '.join(home.fields)}]")
            else:
                numbers = f"chain.from_iterable({home.name})" if home.pitch else home.name
                self.line(f"{given}[:{a.size}] = {numbers}")


def _kept(values: tuple[float, ...], pitch: int) -> Any:
    return split(values, pitch) if pitch else list(values)


def _target(home: Home, unpack: bool = False) -> str:
    """What a sample's numbers are called: to assign them, or to keep them."""
    if len(home.fields) == 1 and not unpack:
        return home.fields[0]
    return f"[{', '.join(home.fields)}]" if home.fields else home.name


def _zip(iterables: Sequence[str]) -> str:
    return iterables[0] if len(iterables) == 1 else f"zip({', '.join(iterables)})"


def _say(value: Any) -> str:
    """What a global of the text is, for its head."""
    if isinstance(value, operator.itemgetter):
        return f"itemgetter{_few(value.__reduce__()[1])}"
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"
    return _few(value)


def _few(values: Sequence[Any]) -> str:
    """The first of them, and how many there are."""
    few = ", ".join(_say(x) if isinstance(x, (list, tuple, operator.itemgetter)) else repr(x) for x in values[:8])
    return f"({few}, … {len(values)} in all)" if len(values) > 8 else f"({few})"


# ── One nest ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Block:
    """Where expressions stand together: a run of statements, or a comprehension with its items and lets."""

    def __init__(self, nest: _Nest, level: int, lets: list[tuple[str, str]]) -> None:
        self.nest, self.level, self.lets = nest, level, lets
        self.items: dict[str, str] = {}  # iterable → name

    def let(self, x: Expr, wanted: str = "t", exactly: bool = False) -> Expr:
        name = wanted if exactly else self.nest.local(wanted, self.level == 2)
        self.lets.append((name, x.text))
        return Expr(name)

    def atom(self, x: Expr) -> Expr:
        """The same as something that may be written twice."""
        return x if x.text.isidentifier() or literally(x) is not None else self.let(x)

    def item(self, iterable: str, wanted: str) -> str:
        if iterable not in self.items:
            self.items[iterable] = self.nest.local(wanted, self.level == 2)
        return self.items[iterable]


class _Nest:
    """One loop of the program, as it is written."""

    def __init__(self, text: _Text, loop: Loop) -> None:
        self.text, self.loop = text, loop
        m = len(loop.dims)
        self.outer = tuple(zip(INDICES, loop.dims[:-1]))
        self.extent = loop.dims[-1] if m else 1
        self.letters = ("".join(INDICES[: m - 1]), "".join(INDICES[:m]))
        self.taken: set[str] = set()
        self.numbers: dict[str, Iterator[int]] = {}  # what to make names different with
        self.inside: set[str] = set()  # names of the comprehension that is being written
        self.before: tuple[list[tuple[str, str]], list[tuple[str, str]]] = [], []  # names and texts, by level
        self.hoisted: dict[str, str] = {}
        self.vectors: dict[int, str] = {}  # steps kept as lists over the inner loop
        self.exprs: dict[int, Expr] = {}
        self.body: list[str] = []
        self.levels: list[int] = []
        self.blocks: dict[int, list[list[tuple[int, ...]]]] = {}  # of tables, by their ids
        self.users: list[list[int]] = [[] for _ in loop.steps]
        for k, step in enumerate(loop.steps):
            self.levels.append(max([0, *map(self.level, operands(step))]))
            for x in operands(step):
                if isinstance(x, Ref):
                    self.users[x.step].append(k)
        self.stored: dict[int, list[Access]] = {}
        for k, place in loop.stores:
            self.stored.setdefault(k, []).append(place)
        self.alive = self._alive()
        self.users = [[user for user in users if user in self.alive] for users in self.users]
        self.in_place = bool({x.array for x in accesses(loop)} & {place.array for _, place in loop.stores})
        self.roots: dict[int, int] = {}  # the step in whose comprehension a step stands
        self.done: set[int] = set()  # steps that are stored already

    def _alive(self) -> set[int]:
        alive = set(self.stored)
        for k in reversed(range(len(self.loop.steps))):
            if any(user in alive for user in self.users[k]):
                alive.add(k)
        return alive

    def local(self, wanted: str, inside: bool = False) -> str:
        """A name that nothing else has in this nest, nor any array; `inside` a comprehension, for as long as that."""
        used = self.taken, self.inside, self.text.names
        name = wanted if wanted != "t" else "t1"
        first = count(2) if inside else self.numbers.setdefault(wanted, count(2))
        while any(name in names for names in used):
            name = f"{wanted}{next(first)}"
        (self.inside if inside else self.taken).add(name)
        return name

    # Where things vary.

    def level(self, x: Operand) -> int:
        """0 if it is the same in the whole nest, 1 if it varies with the outer loops only, else 2."""
        if isinstance(x, Ref):
            return self.levels[x.step]
        if not isinstance(x, Access):
            return 0
        m = len(self.loop.dims)
        if x.table is not None:
            blocks = self._blocks(x)
            inner = any(len(set(outer)) > 1 for outer in blocks)
            return 2 if inner else int(len({outer[0] for outer in blocks}) > 1)
        if m and x.strides[m - 1]:
            return 2
        return int(any(x.strides[: max(m - 1, 0)]))

    def _blocks(self, x: Access) -> list[list[tuple[int, ...]]]:
        """The part of a table for each iteration of the outer loops, and in it for each of the inner one."""
        assert x.table is not None
        if id(x.table) not in self.blocks:
            self.blocks[id(x.table)] = self._cut(x.table)
        return self.blocks[id(x.table)]

    def _cut(self, table: tuple[int, ...]) -> list[list[tuple[int, ...]]]:
        width = len(table) // size(self.loop.dims)
        cells = [table[k : k + width] for k in range(0, len(table), width)]
        return [cells[k : k + self.extent] for k in range(0, len(cells), self.extent)]

    def terms(self, strides: Dims) -> list[tuple[str, int]]:
        return [(name, k) for (name, _), k in zip(self.outer, strides) if k]

    def number_of_outer(self) -> str:
        """Which iteration of the outer loops it is, counted through."""
        extents = [extent for _, extent in self.outer]
        return _affine(0, [(name, size(extents[d + 1 :])) for d, (name, _) in enumerate(self.outer)])

    # Operands.

    def scalar(self, x: Operand, block: _Block) -> Expr:
        """The operand as one number, for a step in that block."""
        if isinstance(x, Ref):
            if x.step in self.vectors:
                return Expr(block.item(self.vectors[x.step], self._step_name(x.step, 1)[0]))
            return self.exprs[x.step]
        if not isinstance(x, Access):
            return literal(x)
        home = self.text.homes[x.array]
        if home.fields:
            at = x.base
            return literal(x.array.values[at]) if x.array.role == "constant" else Expr(home.fields[at])
        return self.place(x, home, block)

    def place(self, x: Access, home: Home, block: _Block) -> Expr:
        """One number of a list, or what stands in its place."""
        level, wanted = self.level(x), self._wanted(x, home)
        if level == 2:
            return Expr(block.item(self.vector(x, home), wanted))
        return self.hoist(self.subscript(x, home), level, wanted, block)

    def _wanted(self, x: Access, home: Home) -> str:
        """What a number or a run of the array is best called: W_ij, if it varies with i and j."""
        if x.table is not None:
            return f"{home.name}_{self.letters[1]}"
        letters = [name for name, k in zip(INDICES, x.strides[: len(self.loop.dims)]) if k]
        return f"{home.name}_{''.join(letters) or 0}"

    def hoist(self, text: str, level: int, wanted: str, block: _Block) -> Expr:
        """Something that does not vary with the inner loop, given a name outside of it."""
        if block.level < 2 or text.isidentifier():
            return Expr(text)
        if text not in self.hoisted:
            self.hoisted[text] = self.local(wanted)
            self.before[level].append((self.hoisted[text], text))
        return Expr(self.hoisted[text])

    def subscript(self, x: Access, home: Home) -> str:
        """The number of an array for one iteration of the outer loops."""
        if x.table is not None:
            places = tuple(outer[0][0] for outer in self._blocks(x))
            return f"{home.name}[{self.text.constant(f'{home.name}_at', places)}[{self.number_of_outer()}]]"
        terms = self.terms(x.strides)
        if not home.pitch:
            return f"{home.name}[{_affine(x.base, terms)}]"
        return f"{self.row(x, home)}[{self._column(x, home)}]"

    def row(self, x: Access, home: Home) -> str:
        terms = [(name, k // home.pitch) for name, k in self.terms(x.strides) if k % home.pitch == 0]
        return f"{home.name}[{_affine(x.base // home.pitch, terms)}]"

    def _column(self, x: Access, home: Home) -> str:
        return _affine(x.base % home.pitch, self._columns(x, home))

    def _columns(self, x: Access, home: Home) -> list[tuple[str, int]]:
        return [(name, k) for name, k in self.terms(x.strides) if k % home.pitch]

    def vector(self, x: Access, home: Home) -> str:
        """The numbers of an array over the inner loop."""
        if x.table is not None:
            return self.gather(x, home.name, [tuple(cell[0] for cell in outer) for outer in self._blocks(x)])
        stride = x.strides[len(self.loop.dims) - 1]
        if home.pitch:
            columns = self._columns(x, home)
            return _slice(self.row(x, home), home.pitch, x.base % home.pitch, columns, self.extent, stride)
        return _slice(home.name, home.size, x.base, self.terms(x.strides), self.extent, stride)

    def gather(self, x: Access, name: str, tables: list[tuple[int, ...]]) -> str:
        """The numbers at the places of one of the tables: the only one, or that of the outer iteration."""
        getters = tuple(operator.itemgetter(*table) for table in tables)
        if len(set(tables)) == 1:
            return f"{self.text.constant(f'{name}_at', getters[0])}({name})"
        return f"{self.text.constant(f'{name}_at', getters)}[{self.number_of_outer()}]({name})"

    # Runs of inputs.

    def run(self, x: Operand, segment: Segment, block: _Block) -> str:
        """A factor of a segment, over all of the segment: the text of an iterable."""
        m, n = len(self.loop.dims), size(segment.dims)
        over = segment.over_samples and self.text.samples
        turned = over and isinstance(x, Access) and x.array.per_sample
        varies = isinstance(x, Access) and (x.table is not None or any(x.strides[m:]))
        if not turned and not (varies and segment.dims):
            times = "n" if over and n == 1 else f"{n} * n" if over else str(n)
            return f"repeat({self.scalar(x, block).text}, {times})"
        assert isinstance(x, Access)
        home = Home(self.text.turn(x.array), x.array.size) if turned else self.text.homes[x.array]
        if not segment.dims:
            return self.place(x, home, block).text
        text = self.inputs(x, home, segment.dims, block)
        if turned:
            return f"chain.from_iterable({text})"
        return f"chain.from_iterable(map(repeat, {text}, repeat(n)))" if over else text

    def inputs(self, x: Access, home: Home, dims: Dims, block: _Block) -> str:
        """The numbers of an array over a segment."""
        m, level, wanted = len(self.loop.dims), self.level(x), self._wanted(x, home)
        if x.table is not None:
            return self._inputs_by_table(x, home, level, wanted, block)
        if not any(x.strides[m:]):
            return f"repeat({self.place(x._replace(strides=x.strides[:m]), home, block).text}, {size(dims)})"
        if level < 2:
            text = self._window(x, home, dims, x.base, self.terms(x.strides))
            return self.hoist(text, level, wanted, block).text
        stride, extent = x.strides[m - 1], self.extent
        if home.pitch:
            return self._inputs_of_rows(x, home, dims, wanted, block)
        at = block.item(_range(x.base, self.terms(x.strides), extent, stride), f"at_{self.letters[1]}")
        return self._window(x, home, dims, 0, [(at, 1)])

    def _inputs_by_table(self, x: Access, home: Home, level: int, wanted: str, block: _Block) -> str:
        blocks = self._blocks(x)
        if level < 2:
            return self.hoist(self.gather(x, home.name, [outer[0] for outer in blocks]), level, wanted, block).text
        getters = [tuple(operator.itemgetter(*cell) for cell in outer) for outer in blocks]
        if len(getters) == 1:
            iterable = self.text.constant(f"{home.name}_at", getters[0])
        else:
            iterable = f"{self.text.constant(f'{home.name}_at', tuple(getters))}[{self.number_of_outer()}]"
        return f"{block.item(iterable, f'{home.name}_at_{self.letters[1]}')}({home.name})"

    def _inputs_of_rows(self, x: Access, home: Home, dims: Dims, wanted: str, block: _Block) -> str:
        m, pitch = len(self.loop.dims), home.pitch
        inner, stride = x.strides[m - 1 : m + 1]
        row, column = x.base // pitch, x.base % pitch
        terms = [(name, k // pitch) for name, k in self.terms(x.strides) if k % pitch == 0]
        if stride % pitch == 0:
            rows = _slice(home.name, home.size // pitch, row, terms, dims[0], stride // pitch)
            return block.item(f"zip(*{rows})", wanted)
        columns = self._columns(x, home)
        if inner % pitch:
            at = block.item(_range(column, columns, self.extent, inner), f"at_{self.letters[1]}")
            line = self.hoist(self.row(x, home), int(bool(terms)), f"{home.name}_row", block).text
            return _slice(line, pitch, 0, [(at, 1)], dims[0], stride)
        line = block.item(_slice(home.name, home.size // pitch, row, terms, self.extent, inner // pitch), wanted)
        return _slice(line, pitch, column, columns, dims[0], stride)

    def _window(self, x: Access, home: Home, dims: Dims, base: int, terms: list[tuple[str, int]]) -> str:
        """The numbers over a segment from one place on, which base and terms say."""
        strides = x.strides[len(self.loop.dims) :]
        if home.pitch:
            rows = [(name, k // home.pitch) for name, k in terms if k % home.pitch == 0]
            line = f"{home.name}[{_affine(base // home.pitch, rows)}]"
            return _slice(line, home.pitch, base % home.pitch, self._columns(x, home), dims[0], strides[0])
        if len(dims) == 1:
            return _slice(home.name, home.size, base, terms, dims[0], strides[0])
        places = [sum(map(operator.mul, i, strides)) for i in product(*map(range, dims))]
        low, high = min(places), max(places)
        getter = self.text.constant(f"{home.name}_at", operator.itemgetter(*[k - low for k in places]))
        return f"{getter}({_slice(home.name, home.size, base + low, terms, high - low + 1, 1)})"

    # Steps.

    def step(self, k: int, block: _Block) -> Expr:
        step = self.loop.steps[k]
        if isinstance(step, Reduce):
            return self.reduce(step, block)
        return self.apply(step, [self.scalar(x, block) for x in step.inputs], block)

    def apply(self, step: Apply, xs: list[Expr], block: _Block) -> Expr:
        op, _ = step
        form = None if self.text.ieee and op in REFUSING else python_form(op)
        spelled = form(block, *xs) if form else None
        return spelled or call(self.text.function(op), *xs)

    def reduce(self, step: Reduce, block: _Block) -> Expr:
        op, segments = step
        if op is TABLE["sum"]:
            return self.sum(segments, block)
        single = [not s.dims for s in segments]
        if op.name in PAIRS and TABLE[op.name] is op and single == [True, True]:
            return PAIRS[op.name](block, *[self.product(s, block) for s in segments])
        inputs = [
            self.product(s, block) if one else Expr(f"*{self.runs(s, block)}")
            for one, s in zip(single, segments, strict=True)
        ]
        return call(self.text.function(op), *inputs)

    def sum(self, segments: Sequence[Segment], block: _Block) -> Expr:
        """All inputs added up from left to right."""
        total: Expr | None = None
        groups = groupby(segments, lambda s: not s.dims and not (s.over_samples and self.text.samples))
        for k, (spelled, run) in enumerate(groups, 1):
            if total and k % NESTED == 0:
                total = block.atom(total)
            if not spelled:
                runs = [self.runs(s, block) for s in run]
                for part in [runs] if len(runs) > UNROLL else [[text] for text in runs]:
                    total = _added(part[0] if len(part) == 1 else f"chain({', '.join(part)})", total, 2 * len(part))
                continue
            terms = [self.product(s, block) for s in run]
            if len(terms) > LONG:  # a + b + … would be nested as deep as it is long
                total = _added(f"[{', '.join(x.text for x in terms)}]", total, sum(x.ops + 1 for x in terms))
            else:
                total = reduce(lambda x, y: plus(block, x, y), terms if total is None else [total, *terms])
        return total or literal(0.0)

    def product(self, segment: Segment, block: _Block) -> Expr:
        """The only input of a segment."""
        xs = [self.scalar(x, block) for x in segment.factors]
        return xs[0] if len(xs) == 1 else times(block, *xs)

    def runs(self, segment: Segment, block: _Block) -> str:
        """All inputs of a segment: the text of an iterable."""
        runs = [self.run(x, segment, block) for x in segment.factors]
        return runs[0] if len(runs) == 1 else f"map(mul, {', '.join(runs)})"

    def take(self, steps: Iterable[int], block: _Block, root: int = -1) -> None:
        """Steps one after the other: each becomes part of its only user, or gets a name, unless it is the root."""
        for k in steps:
            expr = self.step(k, block)
            inline = k == root or (len(self.users[k]) == 1 and self._together(k, block) and expr.ops < LONG)
            atomic = expr.text.isidentifier() or literally(expr) is not None
            named = not (inline or self._is_at_rest(k, expr) if atomic else inline or self._is_only_stored(k, block))
            self.exprs[k] = block.let(expr, *self._step_name(k, block.level)) if named else expr

    def _is_at_rest(self, k: int, x: Expr) -> bool:
        """Whether that name means the same number when the step is stored as it does now."""
        homes = [self.text.homes[place.array] for _, place in self.loop.stores]
        return k not in self.stored or not any(x.text in home.fields for home in homes)

    def _is_only_stored(self, k: int, block: _Block) -> bool:
        """Whether it is enough to compute the step when it is stored: the nest reads nothing that it writes."""
        return block.level < 2 and not self.users[k] and len(self.stored[k]) == 1 and not self.in_place

    def _together(self, k: int, block: _Block) -> bool:
        user = self.users[k][0]
        return k not in self.stored and self.levels[user] == block.level

    def _step_name(self, k: int, level: int) -> tuple[str, bool]:
        """What a step's result is called, like the array it is stored in; and whether it is stored thereby."""
        if k not in self.stored:
            return "t", False
        array = self.stored[k][0].array
        home = self.text.homes[array]
        if home.fields and not self.text.held(array):
            return home.fields[self.stored[k][0].base], True
        return (f"{home.name}_{self.letters[1]}" if level else "t"), False

    # The nest.

    def write(self) -> None:
        """All of it: what is the same everywhere, the outer loops, the inner ones, the results."""
        text = self.text
        for level in (0, 1):
            steps = [k for k in sorted(self.alive) if self.levels[k] == level]
            self.take(steps, _Block(self, level, self.before[level]))
        self._inner([k for k in sorted(self.alive) if self.levels[k] == 2])
        self._stores()
        text.line(f"# {self._comment()}")
        self._allocate()
        for name, expr in self.before[0]:
            text.line(f"{name} = {expr}")
        if self.outer:
            names, ranges = [name for name, _ in self.outer], [f"range({extent})" for _, extent in self.outer]
            drawn = ranges[0] if len(ranges) == 1 else f"product({', '.join(ranges)})"
            text.line(f"for {', '.join(names)} in {drawn}:")
            text.depth += 1
        for name, expr in self.before[1]:
            text.line(f"{name} = {expr}")
        for line in self.body:
            text.line(line)
        text.depth -= bool(self.outer)

    def _comment(self) -> str:
        """What the nest computes: its results, its extents, and what they come from."""
        written = dict.fromkeys(f"{place.array.name}" for _, place in self.loop.stores)
        read = dict.fromkeys(x.array.name for x in accesses(self.loop))
        dims = f"[{', '.join(map(str, self.loop.dims))}]" if self.loop.dims else ""
        return f"{', '.join(written)}{dims} from {', '.join(read)}" if read else f"{', '.join(written)}{dims}"

    def _inner(self, steps: list[int]) -> None:
        """The steps of the inner loop: a comprehension for each list that is needed, or one loop of statements."""
        self.roots = self._lists(steps)
        members: dict[int, list[int]] = {}
        for k, root in self.roots.items():
            members.setdefault(root, []).append(k)
        if len(members) > VECTORS:
            block = _Block(self, 2, [])
            self.take(steps, block)
            self._loop(block, [k for k in steps if k in self.stored])
        else:
            for root in sorted(members):
                self._comprehension(members[root], root)

    def _lists(self, steps: list[int]) -> dict[int, int]:
        """For each step the one in whose comprehension it is computed; itself, if it is stored or many want it."""
        root: dict[int, int] = {}
        for k in reversed(steps):
            wanted = {root[user] for user in self.users[k]}
            root[k] = k if k in self.stored or len(wanted) > 1 else wanted.pop()
        return dict(reversed(root.items()))

    def _comprehension(self, parts: list[int], root: int) -> None:
        block = _Block(self, 2, [])
        self.take(parts, block, root)
        if len(block.lets) > LETS:
            return self._loop(block, [root])
        text = _comprehension(self.exprs[root].text, block)
        self.inside.clear()
        if not self._store_now(root, text):
            self.vectors[root] = self.local(self._vector_name(root))
            self.body.append(f"{self.vectors[root]} = {text}")

    def _loop(self, block: _Block, roots: list[int]) -> None:
        """The inner loop as statements, with a list for each root."""
        self.taken |= self.inside
        self.inside.clear()
        names = [self.local(self._vector_name(k)) for k in roots]
        self.body += [f"{name} = []" for name in names]
        self.body.append(f"for {', '.join(block.items.values())} in {_zip([*block.items])}:")
        self.body += [f"    {name} = {x}" for name, x in block.lets]
        self.body += [f"    {name}.append({self.exprs[k].text})" for k, name in zip(roots, names, strict=True)]
        self.vectors.update(zip(roots, names, strict=True))

    def _vector_name(self, k: int) -> str:
        if k not in self.stored:
            return "t"
        name = self.text.homes[self.stored[k][0].array].name
        return f"{name}_{self.letters[0]}" if self.outer else f"new_{name}"

    # Results.

    def _store_now(self, k: int, text: str) -> bool:
        """Write the step's list where it is stored, without a name: if it is wanted once, and the old numbers never."""
        place = self.stored[k][0] if len(self.stored.get(k, [])) == 1 else None
        if place is None or self._is_read_after(place.array, k):
            return False
        home = self.text.homes[place.array]
        becomes_array = not self.outer and is_whole(place, self.loop.dims, home)
        if self.users[k] and not becomes_array:
            return False
        self.vectors[k] = home.name
        self.body.append(self._store_list(place, home, text))
        self.done.add(k)
        return True

    def _is_read_after(self, a: Array, k: int) -> bool:
        """Whether a comprehension that is written after that of step k reads the array."""
        later = [operands(self.loop.steps[part]) for part, root in self.roots.items() if root > k]
        return any(isinstance(x, Access) and x.array is a for xs in later for x in xs)

    def _allocate(self) -> None:
        """Lists for the arrays that are written part by part; those written in order start empty."""
        for a in dict.fromkeys(place.array for _, place in self.loop.stores):
            home = self.text.homes[a]
            if self.text.held(a) or home.fields or a in self.text.allocated:
                self.text.allocated.add(a)
                continue
            if a not in self.text.grown:
                rows = a.size // home.pitch if home.pitch else 0
                one = f"[nan] * {home.pitch or a.size}"
                self.text.line(f"{home.name} = " + (f"[{one} for _ in range({rows})]" if rows else one))
            elif self.outer:
                self.text.line(f"{home.name} = []")
            self.text.allocated.add(a)

    def _stores(self) -> None:
        # All that a store reads has a name by now, so none can see what another one wrote.
        lines = [self._store(k, place) for k, place in self.loop.stores if k not in self.done]
        self.body += [line for line in lines if line]

    def _store(self, k: int, place: Access) -> str:
        """The statement that stores a step's results; "" if they are in their place already."""
        home = self.text.homes[place.array]
        if home.fields:
            field, x = home.fields[place.base], self.exprs[k].text
            return f"{field} = {x}" if field != x else ""
        if not self.loop.dims:
            return f"{self.subscript(place, home)} = {self.exprs[k].text}"
        if k not in self.vectors:
            return self._store_list(place, home, f"[{self.exprs[k].text}] * {self.extent}")
        copied = "[:]" if len(self.stored[k]) > 1 else ""  # one list for two arrays would change with both
        return self._store_list(place, home, self.vectors[k] + copied)

    def _store_list(self, place: Access, home: Home, numbers: str) -> str:
        stride = place.strides[-1] if place.table is None else 0
        if place.table is not None:
            places = [tuple(cell[0] for cell in outer) for outer in self._blocks(place)]
            table = self.text.constant(f"{home.name}_at", tuple(places) if self.outer else places[0])
            table = f"{table}[{self.number_of_outer()}]" if self.outer else table
            at, x = self.local("at"), self.local("t")
            return f"for {at}, {x} in zip({table}, {numbers}): {home.name}[{at}] = {x}"
        if is_whole(place, self.loop.dims, home):
            if not self.outer:
                return f"{home.name} = {numbers}"
            if place.array in self.text.grown:
                return f"{home.name}.append({numbers})" if home.pitch else f"{home.name} += {numbers}"
        if not stride:
            return f"{self.subscript(place, home)} = {_grouped(numbers)}[-1]"
        if stride < 0:
            last = place.base + (self.extent - 1) * stride
            place = Access(place.array, last, (*place.strides[:-1], -stride))
            numbers = f"{_grouped(numbers)}[::-1]"
        target = self.vector(place, home)
        return f"{target}[:] = {numbers}" if target.isidentifier() else f"{target} = {numbers}"


def _comprehension(expr: str, block: _Block) -> str:
    """The list of expr over the items of the block, on lines of their own if it is long."""
    if not block.lets and [*block.items.values()] == [expr]:
        return f"list({', '.join(block.items)})"
    drawn = f"for {', '.join(block.items.values())} in {_zip([*block.items])}"
    parts = [expr, drawn, *[f"for {let} in [{x}]" for let, x in block.lets]]
    text = f"[{' '.join(parts)}]"
    return text if len(text) <= WIDTH else "[\n    " + "\n    ".join(parts) + "\n]"


def _grouped(text: str) -> str:
    return text if text.isidentifier() else f"({text})"
