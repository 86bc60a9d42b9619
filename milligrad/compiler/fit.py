"""Training in compiled code: what a Trainer runs on the backends "python" and "llvm".

A session traces the loss of a model on a batch, adds the gradient, the clipping and the optimizer's rule, and makes
one program of it. It keeps the parameters and what the optimizer remembers in buffers of its own, from `load` to
`store`. If the loss is a sum over samples (see passes/separate.py), the program is a loop over samples and whole epochs
are one call; else there is a program for each shape of a batch. It knows nothing of epochs, files or callbacks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from itertools import chain
from typing import Any

from milligrad import ops
from milligrad.compiler import kept
from milligrad.compiler.backends import Memory, check_dtype, choose
from milligrad.compiler.batch import Prediction, Separated, leaves_of
from milligrad.compiler.executable import SCREEN, Executable, drawn
from milligrad.compiler.ir import Rolled
from milligrad.compiler.passes.counts import describe
from milligrad.compiler.passes.lengths import MOST, OWN, TRIED, AnyLength, OfLength, Product, for_any_length, products
from milligrad.compiler.passes.registers import Extents
from milligrad.compiler.passes.reroll import Layout
from milligrad.compiler.passes.separate import NotSeparable, gradients
from milligrad.compiler.passes.short import Unprovable
from milligrad.compiler.passes.simplify import Graph, simplify
from milligrad.compiler.passes.split import Staged, after, alone
from milligrad.compiler.passes.update import Parameters, Update, arrangement, learning
from milligrad.compiler.pipeline import Clock, Made, Task, collector_paused, found_or_made, made
from milligrad.compiler.program import Array, Program
from milligrad.compiler.structure import NUMBER, Structure, nested, size, structure
from milligrad.compiler.trace import Trace
from milligrad.engine import Value, enable_grad, number
from milligrad.nested import is_list
from milligrad.nn.reads import Reads, recorded
from milligrad.random import generator

UPDATES_PER_CALL = {"llvm": 1 << 23, "python": 1 << 15}  # of single numbers, in a call: a Ctrl-C waits for it
DATA_SETS = 4  # whose numbers are kept in buffers: x and y of training and of validation
REMEMBERED, PROGRAMS = 100, 3  # programs that `explain` knows of, and that it shows on a screen
EAGERLY = "the same with backend='eager' says where a number stops making sense"
KINDS = {True: "a training step", False: "an evaluation"}  # what a program is, by whether it trains
PREDICT_ROWS = 256  # how many samples are computed at a time where the caller does not say


class CompiledSession:
    """See `milligrad.trainer.Session`, whose methods these are.

    reads:  what the code depends on besides the shape of its inputs, the mode of each module, and the optimizer, of
            which it takes care itself. Who uses a session makes another one when these do not hold any more.
    """

    def __init__(
        self, model: Any, loss_fn: Callable[[Any, Any], Any], optimizer: Any, correct: Callable[[Any, Any], Any] | None,
        backend: str, threads: int = 1, dtype: str = "float64",
        clip_grad_norm: float | None = None, clip_grad_value: float | None = None,
    ) -> None:  # fmt: skip
        self.model, self.loss_fn, self.optimizer, self.correct = model, loss_fn, optimizer, correct
        self.backend, self.threads, self.dtype = choose(backend), threads, dtype
        check_dtype(dtype, self.backend)
        self.clip_grad_norm, self.clip_grad_value = clip_grad_norm, clip_grad_value
        self.reads = Reads()
        self.examine: Callable[[Iterable[Value]], None] = lambda leaves: None
        self.memory = Memory(self.backend, dtype)
        self.exact = False
        self.batches_per_call, self.explains = 1, False
        self._codes: dict[Any, Any] = {}  # what was compiled, by the shape of its inputs and the mode of each module
        self._data: dict[int, tuple[Any, Any, Structure]] = {}  # id of a data set → (it, its numbers, a sample's shape)
        self._layout: Any = None
        self._steps, self._checked = 0, -1  # made since the last `load` or `store`, and when `check` was called last
        self._random: Any = None  # the generator's state before the first number that they drew
        self.layers: list[Any] = []  # the modules of the model, and
        self._modules: list[Any] = []  # those of the loss, too
        self.parameters: list[Parameters] = []
        self.buffers: dict[Array, Any] = {}
        self.update = Update(optimizer, [], None, None)
        self._seen: list[Any] = []  # the programs made, for `explain`

    def be_exact(self) -> bool:
        """From now on run code that knows no error, and to which 0 times inf is 0 in the chain rule.

        It takes longer (see `simplify.Builder`), and is made where the other has found a number that is none. False if
        it runs already.
        """
        if self.exact:
            return False
        self.exact = True
        self._codes.clear()
        return True

    def key(self, what: str, seen: kept.Seen, *parts: Any) -> str:
        """The key of a program of that session: what it is, the Values that its traces met, and what else counts."""
        arrays = [(p.array.size, [*p.state]) for p in self.parameters]
        placed = seen.placed(chain.from_iterable([p.values for p in self.parameters]))
        return kept.key(what, self.backend, placed, arrays, self.dtype, self.exact, *parts)

    # From the Values to buffers and back.

    def load(self) -> None:
        """Take the numbers from the Values and from the optimizer, whose options may have changed, too."""
        self.layers = [*self.model.modules()]
        self._modules = [*self.layers, *(self.loss_fn.modules() if hasattr(self.loss_fn, "modules") else ())]
        self._arrange()
        for p in self.parameters:
            self.memory.fill(self.buffers[p.array], [v.data for v in p.values])
            initial = self.optimizer.initial_state(**p.options(self.optimizer))
            for name, array in p.state.items():
                column = p.slot.state.get(name) or [initial[name]] * len(p.slot.values)
                self.memory.fill(self.buffers[array], [column[i] for i in p.positions])
        self._begin()

    def discard(self) -> None:
        """Go back to the Values and the optimizer as they are, and to the random numbers drawn since they were so."""
        if self._random is not None:
            generator().setstate(self._random)
        self.load()

    def store(self) -> None:
        """Write the numbers back. If some parameter is not finite, raise FloatingPointError, and write nothing."""
        self.check()
        for p in self.parameters:
            for v, x in zip(p.values, self.buffers[p.array]):
                v.data = x
            if p.state and self._steps:
                for name, array in p.state.items():
                    p.slot.state[name] = self._column(p, name, list(self.buffers[array]))
                p.slot.step += self._steps
        self._begin()

    def check(self) -> None:
        """Raise FloatingPointError if some parameter is not finite."""
        if self._checked == self._steps:
            return
        for p in self.parameters:
            if not self.memory.finite(self.buffers[p.array]):
                raise FloatingPointError(f"a parameter is no longer finite: {EAGERLY}")
        self._checked = self._steps

    def _column(self, p: Parameters, name: str, numbers: list[float]) -> list[float]:
        """What the optimizer remembers of a whole parameter: `numbers` of what learns, and the rest as it was."""
        if len(numbers) == len(p.slot.values):
            return numbers
        initial = self.optimizer.initial_state(**p.options(self.optimizer))[name]
        column = list(p.slot.state.get(name) or [initial] * len(p.slot.values))
        for i, x in zip(p.positions, numbers):
            column[i] = x
        return column

    def _arrange(self) -> None:
        """Buffers for what learns, unless they are there already and still fit."""
        layout = arrangement(self.optimizer)
        if layout == self._layout:
            return
        self._layout = layout
        self._codes.clear()
        self.parameters = learning(self.optimizer)
        self.update = Update(self.optimizer, self.parameters, self.clip_grad_norm, self.clip_grad_value)
        self.batches_per_call = max(
            1, UPDATES_PER_CALL[self.backend] // sum([p.array.size for p in self.parameters], 1)
        )
        lasting = [array for p in self.parameters for array in (p.array, *p.state.values())]
        self.buffers = {array: self.memory.zeros(array.size) for array in (*lasting, self.update.hyper)}

    def _begin(self) -> None:
        """No step is made, none drew numbers; rates, and the steps made before, stand where the program reads them."""
        self._steps, self._checked, self._random = 0, -1, None
        self.memory.fill(self.buffers[self.update.hyper], self.update.hyperparameters())

    # Training.

    def epoch(self, x: Sequence[Any], y: Sequence[Any], order: Sequence[int], batch_size: int) -> tuple[float, float]:
        """A step for each batch of the samples order[0], order[1], …; returns (Σ loss · n, Σ right)."""
        code = self._loop(x, y, len(order), batch_size, train=True)
        if code is None:
            full = len(order) - len(order) % batch_size
            if 0 < full < len(order):  # it may be the smaller last batch alone that is no loop
                parts = [self.epoch(x, y, part, batch_size) for part in (order[:full], order[full:])]
                return parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]
            return self._one_by_one(x, y, order, batch_size)
        totals = self._run(code, x, y, order, batch_size)
        self._steps += -(-len(order) // batch_size)
        return _finite(totals)

    def _one_by_one(
        self, x: Sequence[Any], y: Sequence[Any], order: Sequence[int], batch_size: int
    ) -> tuple[float, float]:
        total = right = 0.0
        for k in range(0, len(order), batch_size):
            part = order[k : k + batch_size]
            loss, r = self._whole_batch([x[i] for i in part], [y[i] for i in part])
            total, right = total + loss * len(part), right + r
        return total, right

    def batch(self, xb: Any, yb: Any) -> tuple[float, float]:
        """A step on a ready-made batch of any shape; returns (loss, right)."""
        numbers_x: list[Any] = []
        numbers_y: list[Any] = []
        sx, sy = structure(xb, numbers_x, bools=True), structure(yb, numbers_y, bools=True)
        whole = self._codes.get(("whole", True, sx.key, sy.key, self._fixed()))
        if whole is not None:  # which is what most steps of ready-made batches need
            return self._stepped(whole, numbers_x, numbers_y)
        if _are_samples(sx) and _are_samples(sy) and len(xb) == len(yb):
            code = self._loop(xb, yb, len(xb), len(xb), train=True, keep=False)
            if code is not None:
                total, right = _finite(self._run(code, xb, yb, range(len(xb)), len(xb), keep=False))
                self._steps += 1
                return total / len(xb), right
        return self._whole_batch(xb, yb)

    def _whole_batch(self, xb: Any, yb: Any) -> tuple[float, float]:
        return self._stepped(*self._whole(xb, yb, train=True))

    def _stepped(self, whole: Whole, numbers_x: list[Any], numbers_y: list[Any]) -> tuple[float, float]:
        loss, right = _finite(self._run(whole, numbers_x, numbers_y))
        self._steps += 1
        return loss, right

    def _run(self, code: Any, *data: Any, **options: Any) -> Any:
        """Make steps by a program, Loops or Whole. The generator's state takes 10 µs: it is taken if they draw."""
        if code.random.size and self._random is None:
            self._random = generator().getstate()
        return code.run(self, *data, done=self._steps, **options)

    # Judging.

    def evaluate(self, x: Sequence[Any], y: Sequence[Any], batch_size: int | None) -> tuple[float, float]:
        """(Σ loss · n, right) without a step; batch_size None says that x, y is one ready-made batch."""
        if batch_size is None:
            whole, numbers_x, numbers_y = self._whole(x, y, train=False)
            loss, right = _finite(whole.run(self, numbers_x, numbers_y, 0))
            return loss * (len(y) if is_list(y) else 1), right
        code = self._loop(x, y, len(x), batch_size, train=False)
        if code is not None:
            return _finite(code.run(self, x, y, range(len(x)), batch_size, 0))
        total = right = 0.0
        for k in range(0, len(x), batch_size):
            part = range(k, min(k + batch_size, len(x)))
            xb, yb = [x[i] for i in part], [y[i] for i in part]
            loss, r = self.evaluate(xb, yb, None)
            total, right = total + loss, right + r
        return total, right

    def predict(self, x: Sequence[Any], batch_size: int | None) -> list[Any]:
        """The predictions as nested lists of floats; batch_size None says that x is one ready-made batch."""
        if batch_size is None:
            return self._predict_whole(x)
        sx = _shape(x[0])
        key = ("predict", sx.key, self._fixed())
        try:
            code = self._code(key, lambda: Predict(self, sx))
            for n in _lengths(len(x), batch_size):
                self._code((*key, n), partial(code.prove, n))
            return code.run(self, x)  # type: ignore[no-any-return]
        except NotSeparable:
            batches = [[x[i] for i in range(k, min(k + batch_size, len(x)))] for k in range(0, len(x), batch_size)]
            return [prediction for xb in batches for prediction in self._predict_whole(xb)]

    def _predict_whole(self, xb: Any) -> list[Any]:
        numbers: list[Any] = []
        shape = structure(xb, numbers, bools=True)
        code = self._code(
            ("predict whole", shape.key, self._fixed()),
            lambda: Whole(self, shape, None, False, self._lengths(shape, None, False)),
        )
        return nested(code.nesting, iter(list(code.run(self, numbers, []))))  # type: ignore[no-any-return]

    # Programs.

    def _fixed(self) -> Any:
        """What a trace depends on besides the shape of its inputs."""
        return tuple([m.training for m in self._modules])

    def _code(self, key: Any, make: Callable[[], Any]) -> Any:
        code = self._codes.get(key)
        if code is None:
            try:
                with recorded(self.reads):
                    code = make()
            except NotSeparable as reason:
                code = reason
            self.reads.forget("training", self._modules)  # which is part of the key
            self._codes[key] = code
            if not isinstance(code, NotSeparable):
                self._seen.append(code)
                del self._seen[:-REMEMBERED]
        if isinstance(code, NotSeparable):
            raise code.with_traceback(None)  # which would grow with every call, and keep the traces alive
        return code

    def _loop(self, x: Any, y: Any, n: int, batch_size: int, train: bool, keep: bool = True) -> Any:
        """The program that loops over samples like x[0], y[0], n of them in batches; None if there is none."""
        sx, sy, lengths = self._shape_of(x), self._shape_of(y), _lengths(n, batch_size)
        key = ("loop", train, sx.key, sy.key, self._fixed())
        all_of_it = (*key, batch_size, lengths)
        try:
            if all_of_it not in self._codes:
                self._codes[all_of_it] = self._proved_loop(key, sx, sy, batch_size, lengths, train)
            if keep and self._codes[all_of_it]:
                self.data(x), self.data(y)
        except NotSeparable:
            return None
        return self._codes[all_of_it]

    def _proved_loop(
        self, key: Any, sx: Structure, sy: Structure, batch_size: int, lengths: Iterable[int], train: bool
    ) -> Any:
        """The same, for the first time."""
        try:
            traced = self._code(key, lambda: Separated(self, sx, sy, train))
            for n in lengths:
                self._code((*key, n), partial(traced.prove, n))
        except NotSeparable:
            return None
        threads = self.threads if train and self.backend == "llvm" and batch_size >= self.threads else 1
        with collector_paused():  # until the trace is done with: every pass makes enough objects to have it walked
            return self._code((*key, batch_size, threads), lambda: Loops(self, traced, batch_size, train, threads))

    def _whole(self, xb: Any, yb: Any, train: bool) -> tuple[Whole, list[Any], list[Any]]:
        numbers_x: list[Any] = []
        numbers_y: list[Any] = []
        sx, sy = structure(xb, numbers_x, bools=True), structure(yb, numbers_y, bools=True)
        key = ("whole", train, sx.key, sy.key, self._fixed())
        code = self._code(key, lambda: Whole(self, sx, sy, train, self._lengths(sx, sy, train)))
        return code, numbers_x, numbers_y

    def _lengths(self, sx: Structure, sy: Structure | None, train: bool) -> Lengths | None:
        """What batches of such samples have in common; None if they are no lists of samples."""
        samples = [sample_of(s) for s in (sx, sy) if s]
        if None in samples or (sy and length_of(sx) != length_of(sy)):
            return None
        key = ("lengths", train, *[s and s.key for s in samples], self._fixed())
        if key not in self._codes:
            self._codes[key] = Lengths(self, samples, train)
        return self._codes[key]  # type: ignore[no-any-return]

    def data(self, x: Any, keep: bool = True) -> Any:
        """All numbers of the data set x: rows of floats for python, one flat array for llvm."""
        known = self._data.get(id(x))
        if known and known[0] is x:
            return known[1]
        rows = _rows(x, self.memory)
        if keep:
            self._data[id(x)] = (x, rows, _shape(x[0]))
            while len(self._data) > DATA_SETS:
                del self._data[next(iter(self._data))]
        return rows

    def _shape_of(self, x: Any) -> Structure:
        """What a sample of the data set x looks like."""
        known = self._data.get(id(x))
        return known[2] if known and known[0] is x else _shape(x[0])

    def explain(self, full: bool = False) -> str:
        """What was made of the model, program by program: nodes, loops, the times of the passes; "" if none was.

        full: all loops, and the generated source, too; else the programs that were made last, on a screen.
        """
        codes = [code for code in self._seen if hasattr(code, "executable")]
        shown = codes if full else codes[-PROGRAMS:]
        texts = [_explained(code.name, code.executable, 0 if full else SCREEN // len(shown)) for code in shown]
        texts += [code.code.source for code in [x.executable for x in shown] if full]
        more = [f"… and {len(codes) - len(shown):,} programs more, made before"] * (len(codes) > len(shown))
        return "\n\n".join([*texts, *more])

    def task(
        self, trace: Trace, outputs: Sequence[Any], inputs: Sequence[tuple[Array, Any]], results: list[Layout],
        update: Callable[[Program], None] | None, capacity: int = 1, threads: int = 1,
    ) -> Task:  # fmt: skip
        """What is to be compiled; its parameters stand in the session's buffers."""
        given = [Layout(array, numbers) for array, numbers in inputs if len(numbers)]
        lasting = [Layout(p.array, p.values) for p in self.parameters]
        return Task(
            trace.tape, outputs, given, results, self.backend, self.dtype, self.exact,
            capacity, threads, lasting, update,
        )  # fmt: skip

    def judged(self, result: Array) -> tuple[list[Layout], None]:
        """The layout of the results of a program that changes nothing."""
        return [Layout(result, range(result.size))], None

    def trained(self, totals: Array, step: Array) -> tuple[list[Layout], Callable[[Program], None]]:
        """The layouts of loss, what is right and the gradient of each parameter, and what appends the update by it."""
        layouts, at = [Layout(totals, range(totals.size))], totals.size
        for i, p in enumerate(self.parameters):
            layouts.append(Layout(Array(f"gradient{i}", p.array.size, "value"), range(at, at + p.array.size)))
            at += p.array.size
        gradient = [[layout.array] for layout in layouts[1:]]
        return layouts, lambda program: self.update.append_to(program, gradient, step)

    def executable(
        self, key: str, seen: kept.Seen, clock: Clock, arrays: Sequence[Array], task: Callable[[], Task],
        capacity: int = 1, threads: int = 1, shared: Callable[[], Made | None] = lambda: None,
    ) -> Executable:  # fmt: skip
        """The code of the task, kept, shared or made, on the session's buffers and on some of its own."""
        made = found_or_made(key, [*arrays, *self.buffers], seen, clock, task, shared)
        return Executable(made, clock, self.memory, arrays, self.buffers, threads=threads, capacity=capacity)


def _finite(totals: Sequence[float]) -> tuple[float, float]:
    loss, right = totals
    for what, x in (("loss", loss), ("metric", right)):
        if not math.isfinite(x):
            raise FloatingPointError(f"the {what} is {x}: {EAGERLY}")
    return loss, right


def _shape(x: Any) -> Structure:
    return NUMBER if type(x) is int or type(x) is float else structure(x, [], bools=True)


def _are_samples(s: Structure) -> bool:
    """Whether a batch of that structure is a list of samples of one structure."""
    return s.kind == "numbers" or (s.kind == "list" and len({part.key for part in s.parts}) == 1)


def sample_of(s: Structure) -> Structure | None:
    """The structure of a sample, of a batch of that structure; None if that is no list of samples."""
    return None if not _are_samples(s) else NUMBER if s.kind == "numbers" else s.parts[0]


def length_of(s: Structure) -> int:
    """How many samples a batch of that structure has."""
    return s.parts if s.kind == "numbers" else len(s.parts)


def many(sample: Structure, n: int) -> Structure:
    """The structure of a batch of n such samples."""
    if sample is NUMBER:
        return Structure("numbers", n, n)
    return Structure("list", [sample] * n, ("list", (sample.key,) * n))


def _lengths(n: int, batch_size: int) -> tuple[int, ...]:
    """How many samples the batches of n samples have: all but the last one have `batch_size`."""
    last = n % batch_size
    return (batch_size, last) if last and n > batch_size else (last or batch_size,)


def _rows(x: Any, memory: Memory) -> Any:
    """The numbers of a data set, sample by sample."""
    flat = getattr(x, "buffer", None)
    if flat is not None and memory.typecode and memoryview(flat).format == memory.typecode:
        return flat
    kinds = set(map(type, x))
    if kinds <= {int, float}:
        return memory.new(list(map(float, x))) if memory.typecode else [[number] for number in map(float, x)]
    if memory.typecode and len(kinds) == 1 and is_list(x[0]) and not any(is_list(number) for number in x[0]):
        return memory.new(list(chain.from_iterable(x)))
    rows, keys = [], set()
    for sample in x:
        numbers: list[Any] = []
        keys.add(structure(sample, numbers, bools=True).key)
        rows.append(numbers if {*map(type, numbers)} == {float} else [number(x) for x in numbers])
    if len(keys) > 1:
        raise NotSeparable("samples that are nested in different ways")
    if not memory.typecode:
        return rows
    buffer = memory.new([])
    for row in rows:
        buffer.extend(row)
    return buffer


# Programs.


class Loops:
    """A program that loops over the samples of a batch; with several threads, over a part of them in each."""

    def __init__(self, session: CompiledSession, traced: Separated, capacity: int, train: bool, threads: int) -> None:
        self.name = f"{KINDS[train]}, sample by sample"
        clock = Clock()
        clock.times.update(traced.clock.times)
        self.x, self.y = Array("x", len(traced.x), "input", True), Array("y", len(traced.y), "input", True)
        self.random = Array("random", len(traced.random), "input", True)
        self.count, self.step = Array("count", 1, "input"), Array("step", 1, "input")
        self.draws, self.totals = traced.draws, Array("totals", 2, "output")
        results, update = session.trained(self.totals, self.step) if train else session.judged(self.totals)

        def task() -> Task:
            outputs = traced.outputs
            numbers = [(self.x, traced.x), (self.y, traced.y), (self.random, traced.random)]
            inputs = [*numbers, (self.count, [traced.formula.n])]
            return session.task(traced.trace, outputs, inputs, results, update, capacity, threads)

        key = traced.key(capacity, train, threads, session.update.mark() if train else 0)
        arrays = [self.x, self.y, self.random, self.count, self.step, self.totals]
        self.executable = session.executable(key, traced.samples.seen, clock, arrays, task, capacity, threads)

    def run(
        self, session: CompiledSession, x: Any, y: Any, order: Sequence[int], batch: int, done: int, keep: bool = True
    ) -> list[float]:
        """[Σ loss · n, Σ right] of the batches, after a step for each if this is a training program."""
        data = {self.x: session.data(x, keep), self.y: session.data(y, keep)}
        if self.random.size:
            data[self.random] = self._drawn(session, len(x), order, batch)
        with _arithmetic(session):
            return self.executable.epoch(data, order, batch, self.count, self.step, done + 1, self.totals)

    def _drawn(self, session: CompiledSession, n: int, order: Sequence[int], batch: int) -> Any:
        """Random numbers for each sample, in the order in which the eager engine would draw them."""
        rows: list[list[float]] = [[] for _ in range(n)]
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            for block in self.draws:
                for i in part:
                    rows[i].extend(drawn(block))
        for row in rows:
            if not row:
                row.extend([0.0] * self.random.size)
        return rows if not session.memory.typecode else session.memory.new([x for row in rows for x in row])


class WholeBatch:
    """The trace of a whole batch: loss and what is right of it, or, without targets, the numbers of its prediction."""

    def __init__(self, session: CompiledSession, sx: Structure, sy: Structure | None) -> None:
        self.session, self.trace, self.nesting = session, Trace(), NUMBER
        self.x, self.y = self.trace.input("x", size(sx)), self.trace.input("y", size(sy) if sy else 0)
        with self.trace.running():
            self.outputs = self._judged(nested(sx, iter(self.x)), nested(sy, iter(self.y)) if sy else None)

    def _judged(self, xb: Any, yb: Any) -> list[Any]:
        session = self.session
        prediction = session.model(xb)
        if yb is None:
            numbers: list[Any] = []
            self.nesting = structure(prediction, numbers, outputs=True)
            return numbers
        loss, right = session.loss_fn(prediction, yb), 0.0
        if session.correct:
            pairs = zip(prediction, yb, strict=True) if is_list(yb) else [(prediction, yb)]
            right = ops.sum([session.correct(p, t) for p, t in pairs])
        return [loss, right]

    @cached_property
    def gradient(self) -> list[Any]:
        """∂loss/∂p of each number that learns."""
        wrt = [v for p in self.session.parameters for v in p.values]
        with enable_grad(), self.trace.running():
            return gradients(self.outputs[0], wrt, lambda _: False)

    def results(self, train: bool) -> list[Any]:
        """All that a program computes: for training, the gradient too."""
        return [*self.outputs, *(self.gradient if train else ())]


class Whole:
    """A program for batches of one shape: loss and what is right, and a step of training; or a prediction.

    From the third length of a batch on it may be the program of all `lengths`.
    """

    def __init__(
        self, session: CompiledSession, sx: Structure, sy: Structure | None, train: bool = False,
        lengths: Lengths | None = None,
    ) -> None:  # fmt: skip
        self.name = f"{KINDS[train] if sy else 'a prediction'}, a whole batch"
        clock = Clock()
        with collector_paused(), clock("trace"), enable_grad():
            batch = WholeBatch(session, sx, sy)
            trace, x, y, outputs = batch.trace, batch.x, batch.y, batch.outputs
            self.nesting = batch.nesting
            if train:
                session.examine(leaves_of(trace.tape, outputs[0]))
        self.x, self.y = Array("x", len(x), "input"), Array("y", len(y), "input")
        self.random, self.step = Array("random", len(trace.random), "input"), Array("step", 1, "input")
        self.result = Array("results", len(outputs), "output")
        if lengths and train:
            self.step, self.result = lengths.step, lengths.result
        results, update = session.trained(self.result, self.step) if train else session.judged(self.result)
        inputs = [(self.x, x), (self.y, y), (self.random, trace.random)]

        def task() -> Task:
            with collector_paused(), clock("trace"):
                outputs = batch.results(train)
            return session.task(trace, outputs, inputs, results, update)

        def shared() -> Made | None:
            return lengths.made(length_of(sx), batch, inputs, self.result, clock) if lengths else None

        seen = kept.Seen()
        with clock("cache"):
            mark = kept.fingerprint(trace.tape, outputs, seen, x, y, trace.random)
            key = session.key("whole", seen, mark, bool(sy), train, session.update.mark() if train else 0)
        arrays = [self.x, self.y, self.random, self.step, self.result]
        self.executable = session.executable(key, seen, clock, arrays, task, shared=shared)

    def run(self, session: CompiledSession, x: list[Any], y: list[Any], done: int = 0) -> Any:
        """(loss, right), after a step if this is a training program; or the numbers of the prediction."""
        given = {self.x: [*map(number, x)], self.y: [*map(number, y)], self.step: [float(done + 1)]}
        with _arithmetic(session):
            self.executable({**given, self.random: drawn(self.random.size)})
        return self.executable.buffers[self.result]


class Lengths:
    """Batches of samples of one structure, of any length: the program that they share, if they do.

    The first two lengths have programs of their own, in which all that stands side by side fills vectors; most sessions
    have no other ones. With the third length the program for all others is looked for, see `passes/lengths.py`.
    """

    def __init__(self, session: CompiledSession, samples: Sequence[Any], train: bool) -> None:
        self.session, self.samples, self.train = session, samples, train
        self.step, self.result = Array("step", 1, "input"), Array("results", 2, "output")
        self.met = 0
        self.program: AnyLength | None = None
        self.captured: list[Value] = []
        self._code: Any = None
        self._update: Any = None
        self._tried: list[tuple[int, WholeBatch]] = []
        self._loss: AnyLength | None = None
        self._products: list[Product] = []

    def made(
        self, n: int, batch: WholeBatch, inputs: Sequence[tuple[Array, Any]], result: Array, clock: Clock
    ) -> Made | None:
        """The code for n samples; None if they have to have a program of their own."""
        self.met += 1
        if self.met <= OWN:
            return None
        try:
            with collector_paused(), clock("lengths"):
                if self._code is None:
                    self._find()
                if self.program is None:
                    return None
                rolled = self._by_loss(n, batch) or self._followed(n, batch)
            return self._built(n, batch, inputs, result, rolled)
        except Unprovable:
            return None

    def _find(self) -> None:
        """Look for the program, once."""
        self._code = ()
        for counts in TRIED:
            try:
                self._tried = [(n, self._traced(n)) for n in counts]
                self.program = for_any_length([self._of_length(n, batch) for n, batch in self._tried])
                return
            except Unprovable as reason:
                if not reason.more:
                    return

    def _followed(self, n: int, batch: WholeBatch) -> Rolled:
        """What the program runs on, by its graph; the first time, what tells the gradient from the loss is found."""
        assert self.program is not None
        rolled = self.program.of(self._of_length(n, batch))
        tried, self._tried = self._tried, []
        if self.train and tried and self.program.has_fixed_constants():
            with suppress(Unprovable):
                losses = [self._loss_of_length(*each) for each in (*tried, (n, batch))]
                loss = for_any_length(losses[:-1])
                if loss.has_fixed_constants():
                    own = [self.program.of(self._of_length(*each)).constants for each in tried]
                    self._products = products([*own, rolled.constants], [loss.of(x).constants for x in losses])
                    self._loss = loss
        return rolled

    def _by_loss(self, n: int, batch: WholeBatch) -> Rolled | None:
        """The same, by the graph of the loss alone: the chain rule makes its gradient as it did for other lengths."""
        if self._loss is None or self.program is None or n < TRIED[0][0] or not self.program.runs_for(n):
            return None
        with suppress(Unprovable):
            constants = self._loss.of(self._loss_of_length(n, batch)).constants
            return self.program.with_constants(n, [x.of(constants) for x in self._products])
        return None

    def _loss_of_length(self, n: int, batch: WholeBatch) -> OfLength:
        return self._in_arrays(n, batch, simplify(batch.trace.tape, batch.outputs, self.session.exact))

    def _traced(self, n: int) -> WholeBatch:
        """A batch of n samples that never came."""
        structures = [many(sample, n) for sample in self.samples]
        try:
            with enable_grad():
                batch = WholeBatch(self.session, structures[0], structures[1] if len(structures) > 1 else None)
        except Exception as error:  # the user's own, which may be about this length
            raise Unprovable(f"a batch of {n} raises {type(error).__name__}") from None
        if len(batch.trace.tape) > MOST // 3:
            raise Unprovable("more nodes than are worth it")
        return batch

    def _of_length(self, n: int, batch: WholeBatch) -> OfLength:
        """The graph of a batch of n samples."""
        graph = simplify(batch.trace.tape, batch.results(self.train), self.session.exact)
        known = {v for p in self.session.parameters for v in p.values}
        if self.program is None:
            captured = [v for v in graph.captured() if v not in known]
            if self.captured and [*map(id, captured)] != [*map(id, self.captured)]:
                raise Unprovable("a Value for each sample")
            self.captured = captured
        return self._in_arrays(n, batch, graph)

    def _in_arrays(self, n: int, batch: WholeBatch, graph: Graph) -> OfLength:
        lasting: dict[str, Sequence[Any]] = {p.array.name: p.values for p in self.session.parameters}
        leaves = {"x": batch.x, "y": batch.y, "random": batch.trace.random, **lasting, "captured": self.captured}
        return OfLength(n, graph, {name: xs for name, xs in leaves.items() if xs})

    def _built(
        self, n: int, batch: WholeBatch, inputs: Sequence[tuple[Array, Any]], result: Array, rolled: Rolled
    ) -> Made:
        """The program's code, with what it runs on for n samples."""
        session, program = self.session, self.program
        assert program is not None
        captured = Array("captured", len(self.captured), "leaf")
        known = {a.name: a for a in (*[a for a, _ in inputs], *[p.array for p in session.parameters], captured)}
        given = Array("terms", rolled.outputs, "output") if self.train else result
        arrays = [*[known[name] for name in program.sizes], given]
        forms = [*program.sizes.values(), program.outputs]
        extents = Extents(n, program.values.linear(), {a: f.linear() for a, f in zip(arrays, forms)})
        made = Program(arrays, [])
        made.info.update(
            traced=len(batch.trace.tape), nodes=rolled.values, lines=describe(program.steps, n),
            shape=f"{program.statements():,} statements in {program.loops():,} loops, in order, for any length",
        )  # fmt: skip
        code = self._printed(made, rolled, extents)
        if self.train:
            code = after(made, code, (given, self._updated(given)), self._rest())
        return Made(made, code, Layout(captured, self.captured))

    def _printed(self, made: Program, rolled: Rolled, extents: Extents) -> Any:
        assert self.program is not None
        if self.session.backend == "python":
            from milligrad.compiler.python import in_order as python

            return python.build(made, rolled, self.program.steps, 1, self.session.exact, extents)
        from milligrad.compiler.llvm import in_order as native

        if not self._code:
            self._code = native.build(made, rolled, self.program.steps, 1, self.session.dtype, extents)
            return self._code
        return native.of_length(self._code, made, rolled, 1, extents)

    def _updated(self, given: Array) -> Array:
        """The array of loss, what is right and the gradient, as the update knows it, which is compiled once."""
        if self._update is None:
            session, trace = self.session, Trace()
            taken, numbers = Array("terms", given.size, "input"), trace.input("terms", given.size)
            results, update = session.trained(self.result, self.step)
            task = session.task(trace, numbers, [(taken, numbers)], results, update)
            program, code, _ = made(task, Clock())
            self._update = taken, alone(program, code, False)
        return self._update[0]  # type: ignore[no-any-return]

    def _rest(self) -> Staged:
        """The code of the update, to be bound to other memory."""
        _, staged = self._update
        return Staged(staged.stages, [code.instance() for code in staged.codes])


class Predict:
    """A program that predicts sample by sample."""

    name = "a prediction, sample by sample"

    def __init__(self, session: CompiledSession, sx: Structure) -> None:
        clock = Clock()
        with collector_paused(), clock("trace"), enable_grad():
            self.prediction = Prediction(session, sx)
        trace, numbers = self.prediction.trace, self.prediction.numbers
        xs = trace.inputs["x0"]
        self.x = Array("x", len(xs), "input", True)
        self.result = Array("prediction", len(numbers), "output", True)

        def task() -> Task:
            results, update = session.judged(self.result)
            return session.task(trace, numbers, [(self.x, xs)], results, update, PREDICT_ROWS)

        seen = self.prediction.samples.seen
        key = session.key("predict", seen, self.prediction.two.mark)
        self.executable = session.executable(key, seen, clock, [self.x, self.result], task)

    def prove(self, n: int) -> bool:
        """Raise NotSeparable if a sample among n is predicted otherwise than one of two."""
        with collector_paused(), self.executable.clock("trace"), enable_grad():
            return self.prediction.prove(n)

    def run(self, session: CompiledSession, x: Sequence[Any]) -> list[Any]:
        """The predictions, nested."""
        rows, m, n = session.data(x, keep=False), self.result.size, len(x)
        data = rows if session.memory.typecode else [v for row in rows for v in row]
        with _arithmetic(session):
            flat = list(self.executable.rows({self.x: data}, self.result, n))
        return [nested(self.prediction.nesting, iter(flat[i * m : (i + 1) * m])) for i in range(n)]


@contextmanager
def _arithmetic(session: CompiledSession) -> Iterator[None]:
    """What Python's arithmetic raises in compiled code is a FloatingPointError; native code raises nothing."""
    try:
        yield
    except (ValueError, ArithmeticError) as error:
        if session.backend == "llvm" or isinstance(error, FloatingPointError):
            raise
        raise FloatingPointError(f"{error}: {EAGERLY}") from error


def _explained(what: str, code: Executable, most: int) -> str:
    first, times, *lines = code.explain(f"{what}: ", most)
    return "\n".join([first, *[f"  {line}" for line in [times, *lines]]])
