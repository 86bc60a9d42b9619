"""Training in compiled code: what a Trainer runs on the backends "python" and "llvm".

A session traces the loss of a model on a batch, adds the gradient, the clipping and the optimizer's rule, and makes
one program of it. It keeps the parameters and what the optimizer remembers in buffers of its own, from `load` to
`store`. If the loss is a sum over samples (see passes/separate.py), the program is a loop over samples and whole epochs
are one call; else there is a program for each shape of a batch. It knows nothing of epochs, files or callbacks.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import chain
from typing import Any, NamedTuple

from milligrad import ops
from milligrad.compiler import kept
from milligrad.compiler.compiled import (
    Clock,
    Memory,
    build,
    check_dtype,
    choose,
    collector_paused,
    found_or_made,
    times_told,
    told,
)
from milligrad.compiler.passes.fuse import fuse
from milligrad.compiler.passes.reroll import Layout, reroll
from milligrad.compiler.passes.separate import NONE, Batch, NotSeparable, gradients, same, separated
from milligrad.compiler.passes.simplify import simplify
from milligrad.compiler.passes.split import Threads, staged
from milligrad.compiler.passes.update import Parameters, Update, arrangement, learning
from milligrad.compiler.program import Array, Program
from milligrad.compiler.structure import NUMBER, Structure, nested, structure
from milligrad.compiler.trace import COMPARISONS, Symbol, Trace, captured, inputs_of, total
from milligrad.engine import Value, enable_grad, number
from milligrad.nested import is_list
from milligrad.nn.reads import Reads, recorded
from milligrad.random import generator, plain

BATCHES_PER_CALL = {"llvm": 512, "python": 16}  # a Ctrl-C waits for so many; a call costs as much as 10 small steps
DATA_SETS = 4  # whose numbers are kept in buffers: x and y of training and of validation
SHOWN = 100  # programs that `explain` remembers
EAGERLY = "the same with backend='eager' says where a number stops making sense"
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
        self.batches_per_call, self.explains = BATCHES_PER_CALL[self.backend], False
        self._codes: dict[Any, Any] = {}  # what was compiled, by the shape of its inputs and the mode of each module
        self._data: dict[int, tuple[Any, Any]] = {}  # id of a data set → (the data set, its numbers in buffers)
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
            ("predict whole", shape.key, self._fixed()), lambda: WholePrediction(self, shape, len(numbers))
        )
        return code.run(self, numbers)  # type: ignore[no-any-return]

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
                del self._seen[:-SHOWN]
        if isinstance(code, NotSeparable):
            raise code.with_traceback(None)  # which would grow with every call, and keep the traces alive
        return code

    def _loop(self, x: Any, y: Any, n: int, batch_size: int, train: bool, keep: bool = True) -> Any:
        """The program that loops over samples like x[0], y[0], n of them in batches; None if there is none."""
        sx, sy, lengths = _shape(x[0]), _shape(y[0]), _lengths(n, batch_size)
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
        return self._code((*key, batch_size, threads), lambda: Loops(self, traced, batch_size, train, threads))

    def _whole(self, xb: Any, yb: Any, train: bool) -> tuple[Whole, list[Any], list[Any]]:
        numbers_x: list[Any] = []
        numbers_y: list[Any] = []
        sx, sy = structure(xb, numbers_x, bools=True), structure(yb, numbers_y, bools=True)
        key = ("whole", train, sx.key, sy.key, self._fixed())
        code = self._code(key, lambda: Whole(self, sx, len(numbers_x), sy, len(numbers_y), train))
        return code, numbers_x, numbers_y

    def data(self, x: Any, keep: bool = True) -> Any:
        """All numbers of the data set x: rows of floats for python, one flat array for llvm."""
        known = self._data.get(id(x))
        if known and known[0] is x:
            return known[1]
        rows = _rows(x, self.memory)
        if keep:
            self._data[id(x)] = (x, rows)
            while len(self._data) > DATA_SETS:
                del self._data[next(iter(self._data))]
        return rows

    def explain(self) -> str:
        """What was made of the model: nodes, groups, loops, the times of the passes, and the source."""
        return "\n\n".join([code.explain() for code in self._seen if hasattr(code, "explain")])


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


# What is traced.


TRACED = 2_000_000  # inputs of all nodes of a model, for as many samples as it is traced for at most: this takes 1 s


class Traced(NamedTuple):
    """What came of a batch.

    predictions:  the numbers of each prediction, and `nesting`, the structure of them all; None if there is not one
                  for each sample
    right:        what is right of each sample, if that is asked
    mark:         the fingerprint of all that
    """

    batch: Batch
    predictions: list[list[Any]]
    nesting: Structure | None
    loss: Any
    right: list[Any]
    mark: bytes | None

    def each(self) -> list[Any]:
        """The numbers of the first prediction, if the others are the same functions of their samples."""
        if self.nesting is None:
            raise NotSeparable("the model returns no list of a prediction for each sample")
        columns = [*zip(*self.predictions)]
        _prove("each", [self], lambda: [same(self.batch, column) for column in columns])
        return [column[0] for column in columns]


def _prove(what: str, of: Sequence[Traced], proof: Callable[[], Any]) -> None:
    """Make a proof about batches, which raises NotSeparable if it fails. How it ends is kept for later processes."""

    def failure() -> str:
        try:
            proof()
        except NotSeparable as reason:
            return str(reason)
        return ""

    reason = kept.once(kept.key(what, "", *[batch.mark for batch in of]), failure)
    if reason:
        raise NotSeparable(reason)


class Samples:
    """Traces of batches of any number of samples of one structure, with forms in common; sy None asks for no loss."""

    def __init__(self, session: CompiledSession, sx: Structure, sy: Structure | None) -> None:
        self.session, self.sx, self.sy = session, sx, sy
        self.forms: dict[Any, int] = {}
        self.seen = kept.Seen()

    def traced(self, n: int, given: Structure | None = None) -> Traced:
        """A batch of n. With `given`, the structure of a prediction, predictions are inputs: it is the loss alone."""
        try:
            return self._traced(n, given)
        except NotSeparable:
            raise
        except Exception as error:  # the user's own, which may be about a length that never comes
            reason = f"a batch of {n} raises {type(error).__name__}: {error}"
        raise NotSeparable(reason)  # out here, without the error, whose traceback would keep the trace alive

    def _traced(self, n: int, given: Structure | None) -> Traced:
        session, trace = self.session, Trace()
        sx = given or self.sx
        xs = [trace.input(f"x{s}", _size(sx)) for s in range(n)]
        ys = [trace.input(f"y{s}", _size(self.sy) if self.sy else 0) for s in range(n)]
        loss, right = None, []
        with trace.running():
            prediction = [nested(sx, iter(x)) for x in xs]
            if given:
                for number in chain.from_iterable(xs):
                    number.requires_grad = True
            else:
                prediction = session.model(prediction)
            if self.sy:
                yb = [nested(self.sy, iter(y)) for y in ys]
                loss = session.loss_fn(prediction, yb)
                if not isinstance(loss, Value):
                    raise NotSeparable("the loss is no number that was computed from the model")
                if session.correct:
                    right = [session.correct(p, y) for p, y in zip(prediction, yb, strict=True)]
        predictions, nesting = _taken_apart(prediction, n)
        outputs = [0.0 if loss is None else loss, float(len(right)), *right, *chain.from_iterable(predictions)]
        mark = kept.fingerprint(trace.tape, outputs, self.seen, *xs, *ys, trace.random)
        batch = Batch(trace, [[*x, *y] for x, y in zip(xs, ys)], self.forms)
        if batch.draws != _drawing_order(_blocks(batch.draws), n):
            raise NotSeparable("random numbers that are not drawn in the order of the samples")
        return Traced(batch, predictions, nesting, loss, right, mark)

    def most(self, two: Traced) -> int:
        """For how many samples the model is asked at most; 0 if it consists of layers that are known to map samples."""
        try:
            two.each()
        except NotSeparable:
            return sys.maxsize  # there are no predictions that could be given to the loss alone
        if all(map(_is_ours, self.session.layers)):
            return 0
        return max(3, 2 * TRACED // (1 + sum([len(inputs_of(z)) for z in two.batch.trace.tape])))


def _is_ours(module: Any) -> bool:
    return type(module).__module__.partition(".")[0] == "milligrad" and "forward" not in vars(module)


def _taken_apart(prediction: Any, n: int) -> tuple[list[list[Any]], Structure | None]:
    """The numbers of each sample's prediction, and the structure of them all."""
    if not is_list(prediction) or len(prediction) != n:
        return [], None
    numbers: list[list[Any]] = [[] for _ in range(n)]
    nestings = [structure(p, mine, outputs=True) for p, mine in zip(prediction, numbers)]
    return (numbers, nestings[0]) if len({nesting.key for nesting in nestings}) == 1 else ([], None)


class Formula:
    """The loss of a batch of any length, and what is right of a sample, found from batches of two and of three.

    That there is one, and for which batches it holds, is kept for later processes: there it need not be found.
    """

    def __init__(self, two: Traced, three: Traced) -> None:
        self.two, self.three = two, three
        _prove("formula", [two, three], lambda: self.found)

    @cached_property
    def n(self) -> Symbol:
        """The number of samples."""
        return self.two.batch.trace.input("count", 1)[0]

    @cached_property
    def found(self) -> tuple[Any, Any]:
        """The loss, and what is right of a sample."""
        return self._found(self.three)

    def _found(self, many: Traced) -> tuple[Any, Any]:
        two, n = self.two, self.n
        with two.batch.trace.running():
            loss = separated(two.batch, many.batch, two.loss, many.loss, n)
        right = same(two.batch, two.right) if two.right else 0.0
        if two.right and many.batch.form_of(same(many.batch, many.right)) != two.batch.form_of(right):
            raise NotSeparable("what is right of a sample depends on the batch's length")
        return loss, right

    def check(self, many: Traced) -> None:
        """Raise NotSeparable if another formula is found from batches of two and of many."""
        _prove("holds", [self.two, self.three, many], lambda: self._check(many))

    def _check(self, many: Traced) -> None:
        form_of = self.two.batch.form_of
        if form_of(self._found(many)[0]) != form_of(self.found[0]):
            raise NotSeparable(f"a batch of {many.batch.n} is another function than one of two or three")


class Separated:
    """The loss, what is right, and the gradient, of a batch of any length, in terms of one sample."""

    def __init__(self, session: CompiledSession, sx: Structure, sy: Structure, train: bool) -> None:
        self.clock, self.session, self.train = Clock(), session, train
        with collector_paused(), self.clock("trace"), enable_grad():
            self.samples = Samples(session, sx, sy)
            two = self.samples.traced(2)
            self.most = self.samples.most(two)
            if train:
                session.examine(self._leaves(two))
            self.formula = Formula(two, self.samples.traced(3))
        self.loss_alone: Formula | None = None
        self.proved = {0, 2, 3}
        self.batch, self.trace = two.batch, two.batch.trace
        self.x, self.y = self.trace.inputs["x0"], self.trace.inputs["y0"]
        self.random = [x for x, (s, _) in zip(self.trace.random, self.batch.draws) if s == 0]
        self.draws = _blocks(self.batch.draws)

    def _leaves(self, two: Traced) -> list[Value]:
        """The Values that the loss depends on. To find them takes as long as the rest of what is done with a trace."""
        seen = self.samples.seen
        numbers = kept.once(
            kept.key("leaves", "", two.mark), lambda: [seen[v] for v in _leaves(two.batch.trace.tape, two.loss)]
        )
        return seen.values_at(numbers)

    @cached_property
    def outputs(self) -> list[Any]:
        """Σ loss, Σ right and the gradient of a batch."""
        with collector_paused(), self.clock("trace"), enable_grad():
            (loss, right), n = self.formula.found, self.formula.n
            with self.trace.running():
                outputs = [loss * n, _over_samples(right, n)]
                if self.train:
                    wrt = [v for p in self.session.parameters for v in p.values]
                    outputs += gradients(loss, wrt, lambda x: self.batch.owner_of(x) != NONE)
        return outputs

    def prove(self, n: int) -> bool:
        """Raise NotSeparable if a batch of n is another function: by its trace, or by that of its loss alone."""
        with collector_paused(), self.clock("trace"), enable_grad():
            samples, two, whole = self.samples, self.formula.two, min(n, self.most)
            if whole not in self.proved:
                self.formula.check(samples.traced(whole))
                self.proved.add(whole)
            if whole < n and n not in (2, 3):
                if self.loss_alone is None:
                    self.loss_alone = Formula(samples.traced(2, two.nesting), samples.traced(3, two.nesting))
                self.loss_alone.check(samples.traced(n, two.nesting))
        return True

    def key(self, *more: Any) -> str:
        """The key of code for it, on the session's backend, which depends on the formula and on `more`."""
        return self.session.key("samples", self.samples.seen, self.formula.two.mark, self.formula.three.mark, *more)


def _leaves(tape: Any, loss: Any) -> list[Value]:
    """The Values that were there before the trace and that a gradient of the loss reaches."""
    reached = bytearray(len(tape))
    if type(loss) is Symbol:
        reached[loss.number] = loss.requires_grad
    for z in reversed(tape):
        reached[z.number] &= z.op not in COMPARISONS
        if reached[z.number]:
            for x in inputs_of(z):
                if type(x) is Symbol:
                    reached[x.number] |= x.requires_grad
    return captured(tape, reached, [loss])


def _over_samples(x: Any, n: Symbol) -> Any:
    return x.record(total, (x, 1.0)) if type(x) is Symbol else n * x


def _size(s: Structure) -> int:
    """How many numbers there are in it."""
    if s.kind == "number":
        return 1
    if s.kind == "numbers":
        return int(s.parts)
    if s.kind == "fixed":
        return 0
    return sum(_size(part) for part in (s.parts[1] if s.kind == "dict" else s.parts))


def _blocks(draws: list[tuple[int, int]]) -> list[int]:
    """How many random numbers a sample draws at a time: [3, 5] if each draws 3, and then each draws 5."""
    blocks: list[int] = []
    before = None
    for s, _ in draws:
        if s == 0:
            if before == 0:
                blocks[-1] += 1
            else:
                blocks.append(1)
        before = s
    return blocks


def _drawing_order(blocks: list[int], n: int) -> list[tuple[int, int]]:
    """(sample, k) in the order in which n samples draw so many numbers at a time."""
    first = [sum(blocks[:i]) for i in range(len(blocks))]
    return [(s, k + i) for k, block in zip(first, blocks) for s in range(n) for i in range(block)]


# What is compiled.


def _program(
    session: CompiledSession,
    tape: Any,
    outputs: Sequence[Any],
    leaves: list[Layout],
    wanted: list[Layout],
    clock: Clock,
) -> tuple[Program, Layout]:
    """Passes 2 and 3. Captured Values that do not learn are an array of their own."""
    learning = {v for p in session.parameters for v in p.values}
    with collector_paused():
        with clock("simplify"):
            graph = simplify(tape, outputs, session.exact)
        others = [v for v in graph.captured() if v not in learning]
        captures = Layout(Array("captured", len(others), "leaf"), others)
        layouts = [*leaves, *[Layout(p.array, p.values) for p in session.parameters]]
        if others:
            layouts.append(captures)
        with clock("reroll"):
            program = reroll(graph, layouts, wanted)
            program.info["traced"] = len(tape)
    return program, captures


def _wanted(session: CompiledSession, totals: Array, train: bool) -> tuple[list[Array], list[Layout]]:
    """Arrays for the gradient of each parameter, and the layouts of them and of loss and right."""
    layouts, grads, at = [Layout(totals, range(2))], [], 2
    if train:
        for i, p in enumerate(session.parameters):
            grads.append(Array(f"gradient{i}", p.array.size, "value"))
            layouts.append(Layout(grads[-1], range(at, at + p.array.size)))
            at += p.array.size
    return grads, layouts


class Loops:
    """A program that loops over the samples of a batch; with several threads, over a part of them in each."""

    def __init__(self, session: CompiledSession, traced: Separated, capacity: int, train: bool, threads: int) -> None:
        self.clock, self.threads, self.train = Clock(), threads, train
        self.clock.times.update(traced.clock.times)
        self.x, self.y = Array("x", len(traced.x), "input", True), Array("y", len(traced.y), "input", True)
        self.random = Array("random", len(traced.random), "input", True)
        self.count, self.step = Array("count", 1, "input"), Array("step", 1, "input")
        self.draws, self.totals = traced.draws, Array("totals", 2, "output")
        key = traced.key(capacity, train, threads, session.update.mark() if train else 0)
        given = [self.x, self.y, self.random, self.count, self.step, self.totals, *session.buffers]
        self.program, code, (self.captured, self.others) = found_or_made(
            key, given, traced.samples.seen, self.clock, lambda: self._made(session, traced, capacity)
        )
        own = {array: session.memory.zeros(array.size) for array in (self.totals, self.captured, self.count, self.step)}
        self.buffers = {**session.buffers, **own}
        if threads > 1:
            self.split = Threads(code, threads, capacity, self.buffers, session.memory.zeros)
            self.code: Any = self.split
            return
        self.code = code
        session.memory.bind(self.code, self.program, self.buffers)

    def _made(self, session: CompiledSession, traced: Separated, capacity: int) -> tuple[Program, Any, Layout]:
        grads, wanted = _wanted(session, self.totals, self.train)
        numbers = [(self.x, traced.x), (self.y, traced.y), (self.random, traced.random)]
        leaves = [Layout(array, xs) for array, xs in numbers if xs]
        outputs = traced.outputs
        leaves.append(Layout(self.count, [traced.formula.n]))
        program, captures = _program(session, traced.trace.tape, outputs, leaves, wanted, self.clock)
        if self.train:
            session.update.append_to(program, [[g] for g in grads], self.step)

        def made(stage: Program, rows: int) -> Any:
            return build(stage, session.backend, rows, session.dtype, session.exact)

        if self.threads > 1:
            return program, staged(program, self.threads, capacity, made), captures
        with self.clock("fuse"):
            program = fuse(program)
        return program, made(program, capacity), captures

    def run(
        self, session: CompiledSession, x: Any, y: Any, order: Sequence[int], batch: int, done: int, keep: bool = True
    ) -> list[float]:
        """[Σ loss · n, Σ right] of the batches, after a step for each if this is a training program."""
        if self.others:
            session.memory.fill(self.buffers[self.captured], [v.data for v in self.others])
        data = {self.x: session.data(x, keep), self.y: session.data(y, keep)}
        if self.random.size:
            data[self.random] = self._drawn(session, len(x), order, batch)
        data = {array: rows for array, rows in data.items() if array in self.program.arrays}
        totals = Memory("llvm").zeros(2) if session.memory.typecode else [0.0, 0.0]
        with _arithmetic(session):
            if self.threads > 1:
                self._run_split(session, data, order, batch, done, totals)
            else:
                self._run(data, order, batch, done, totals)
        return list(totals)

    def _run(self, data: Any, order: Sequence[int], batch: int, done: int, totals: Any) -> None:
        arrays = self.program.arrays
        self.code.epoch(
            data, _positions(order), batch, 0, len(order),
            count=self.count if self.count in arrays else None, step=self.step if self.step in arrays else None,
            first_step=float(done + 1), totals={self.totals: totals},
        )  # fmt: skip

    def _drawn(self, session: CompiledSession, n: int, order: Sequence[int], batch: int) -> Any:
        """Random numbers for each sample, in the order in which the eager engine would draw them."""
        draw = plain()
        rows: list[list[float]] = [[] for _ in range(n)]
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            for block in self.draws:
                for i in part:
                    rows[i].extend([draw() for _ in range(block)])
        for row in rows:
            if not row:
                row.extend([0.0] * self.random.size)
        return rows if not session.memory.typecode else session.memory.new([x for row in rows for x in row])

    def _run_split(
        self, session: CompiledSession, data: Any, order: Sequence[int], batch: int, done: int, totals: Any
    ) -> None:
        positions, sums = _positions(order), self.buffers[self.totals]
        for k, start in enumerate(range(0, len(order), batch)):
            stop = min(start + batch, len(order))
            session.memory.fill(self.buffers[self.count], [float(stop - start)])
            session.memory.fill(self.buffers[self.step], [float(done + k + 1)])
            self.split.run(data, positions, start, stop)
            totals[0] += sums[0]
            totals[1] += sums[1]

    def explain(self) -> str:
        """Nodes, groups, loops, times and source."""
        return _explained("a batch, sample by sample", self.program, self.clock, self.code)


@contextmanager
def _arithmetic(session: CompiledSession) -> Iterator[None]:
    """What Python's arithmetic raises in compiled code is a FloatingPointError; native code raises nothing."""
    try:
        yield
    except (ValueError, ArithmeticError) as error:
        if session.backend == "llvm" or isinstance(error, FloatingPointError):
            raise
        raise FloatingPointError(f"{error}: {EAGERLY}") from error


def _explained(what: str, program: Program, clock: Clock, code: Any) -> str:
    info = told(program, clock, code)
    return "\n".join([
        f"{what}: {info['traced']:,} nodes traced, {info['nodes']:,} after simplify, {info['shape']}",
        times_told(program, clock, code),
        *(f"  {line}" for line in info["lines"]),
        "",
        code.source,
    ])  # fmt: skip


def _positions(order: Sequence[int]) -> Any:
    from array import array

    return order if isinstance(order, array) else array("q", order)


class Whole:
    """A program for batches of one shape."""

    def __init__(self, session: CompiledSession, sx: Structure, nx: int, sy: Structure, ny: int, train: bool) -> None:
        self.clock = Clock()
        with collector_paused(), self.clock("trace"), enable_grad():
            trace = Trace()
            x, y = trace.input("x", nx), trace.input("y", ny)
            with trace.running():
                xb, yb = nested(sx, iter(x)), nested(sy, iter(y))
                prediction = session.model(xb)
                loss = session.loss_fn(prediction, yb)
                right: Any = 0.0
                if session.correct:
                    pairs = zip(prediction, yb, strict=True) if is_list(yb) else [(prediction, yb)]
                    right = ops.sum([session.correct(p, t) for p, t in pairs])
            if train:
                session.examine(_leaves(trace.tape, loss))
        self.x, self.y = Array("x", nx, "input"), Array("y", ny, "input")
        self.random, self.step = Array("random", len(trace.random), "input"), Array("step", 1, "input")
        self.totals = Array("totals", 2, "output")

        def make() -> tuple[Program, Any, Layout]:
            outputs = [loss, right]
            if train:
                wrt = [v for p in session.parameters for v in p.values]
                with self.clock("trace"), enable_grad(), trace.running():
                    outputs += gradients(loss, wrt, lambda _: False)
            grads, wanted = _wanted(session, self.totals, train)
            leaves = [Layout(a, xs) for a, xs in ((self.x, x), (self.y, y), (self.random, trace.random)) if xs]
            program, captures = _program(session, trace.tape, outputs, leaves, wanted, self.clock)
            if train:
                session.update.append_to(program, [[g] for g in grads], self.step)
            with self.clock("fuse"):
                program = fuse(program)
            return program, build(program, session.backend, 1, session.dtype, session.exact), captures

        seen = kept.Seen()
        with self.clock("cache"):
            mark = kept.fingerprint(trace.tape, [loss, right], seen, x, y, trace.random)
            key = session.key("whole", seen, mark, train, session.update.mark() if train else 0)
        given = [self.x, self.y, self.random, self.step, self.totals, *session.buffers]
        self.program, self.code, (self.captured, self.others) = found_or_made(key, given, seen, self.clock, make)
        own = (self.x, self.y, self.random, self.step, self.totals, self.captured)
        self.buffers = {**session.buffers, **{array: session.memory.zeros(array.size) for array in own}}
        session.memory.bind(self.code, self.program, self.buffers)

    def run(self, session: CompiledSession, x: list[Any], y: list[Any], done: int) -> Any:
        """(loss, right), after a step if this is a training program."""
        fill, buffers = session.memory.fill, self.buffers
        fill(buffers[self.x], list(map(number, x)))
        fill(buffers[self.y], list(map(number, y)))
        fill(buffers[self.step], [float(done + 1)])
        if self.others:
            fill(buffers[self.captured], [v.data for v in self.others])
        if self.random.size:
            draw = plain()
            fill(buffers[self.random], [draw() for _ in range(self.random.size)])
        with _arithmetic(session):
            self.code()
        return buffers[self.totals]

    def explain(self) -> str:
        """Nodes, groups, loops, times and source."""
        return _explained("a whole batch", self.program, self.clock, self.code)


class Predict:
    """A program that predicts sample by sample."""

    def __init__(self, session: CompiledSession, sx: Structure) -> None:
        self.clock = Clock()
        with collector_paused(), self.clock("trace"), enable_grad():
            self.samples = Samples(session, sx, None)
            self.two = two = self.samples.traced(2)
            self.numbers, self.most = two.each(), self.samples.most(two)
        self.nesting, self.proved, trace = two.nesting or NUMBER, {0, 2}, two.batch.trace
        if trace.random:
            raise NotSeparable("a prediction that draws random numbers, batch by batch")
        xs, n = trace.inputs["x0"], len(self.numbers)
        self.x = Array("x", len(xs), "input", True)
        self.result = Array("prediction", n, "output", True)

        def make() -> tuple[Program, Any, Layout]:
            wanted = [Layout(self.result, range(n))]
            program, captures = _program(session, trace.tape, self.numbers, [Layout(self.x, xs)], wanted, self.clock)
            program = fuse(program)
            return program, build(program, session.backend, PREDICT_ROWS, session.dtype, session.exact), captures

        seen = self.samples.seen
        key, given = session.key("predict", seen, two.mark), [self.x, self.result, *session.buffers]
        self.program, self.code, (self.captured, self.others) = found_or_made(key, given, seen, self.clock, make)
        self.buffers = {**session.buffers, self.captured: session.memory.zeros(self.captured.size)}
        session.memory.bind(self.code, self.program, self.buffers)

    def prove(self, n: int) -> bool:
        """Raise NotSeparable if a sample among n is predicted otherwise than one of two."""
        whole = min(n, self.most)
        if whole not in self.proved:
            with collector_paused(), self.clock("trace"), enable_grad():
                many = self.samples.traced(whole)
                numbers = many.each()
                if many.nesting is None or many.nesting.key != self.nesting.key:
                    raise NotSeparable("predictions that depend on the batch's length")
                _prove("predicts", [self.two, many], lambda: self._check(many, numbers))
            self.proved.add(whole)
        return True

    def _check(self, many: Traced, numbers: list[Any]) -> None:
        if [*map(many.batch.form_of, numbers)] != [*map(self.two.batch.form_of, self.numbers)]:
            raise NotSeparable("predictions that depend on the batch's length")

    def run(self, session: CompiledSession, x: Sequence[Any]) -> list[Any]:
        """The predictions, nested."""
        if self.others:
            session.memory.fill(self.buffers[self.captured], [v.data for v in self.others])
        rows = session.data(x, keep=False)
        m, n = self.result.size, len(x)
        results = session.memory.zeros(m * n)
        data = {self.x: rows if session.memory.typecode else [v for row in rows for v in row]}
        with _arithmetic(session):
            self.code.rows(data if self.x in self.program.arrays else {}, {self.result: results}, n)
        flat = list(results)
        return [nested(self.nesting, iter(flat[i * m : (i + 1) * m])) for i in range(n)]


class WholePrediction:
    """A program that predicts for batches of one shape."""

    def __init__(self, session: CompiledSession, sx: Structure, nx: int) -> None:
        self.clock = Clock()
        with collector_paused(), self.clock("trace"):
            trace = Trace()
            x = trace.input("x", nx)
            with trace.running():
                prediction = session.model(nested(sx, iter(x)))
            outputs: list[Any] = []
            self.returned = structure(prediction, outputs, outputs=True)
        self.x, self.random = Array("x", nx, "input"), Array("random", len(trace.random), "input")
        self.result = Array("prediction", len(outputs), "output")

        def make() -> tuple[Program, Any, Layout]:
            leaves = [Layout(a, s) for a, s in ((self.x, x), (self.random, trace.random)) if s]
            wanted = [Layout(self.result, range(len(outputs)))]
            program, captures = _program(session, trace.tape, outputs, leaves, wanted, self.clock)
            program = fuse(program)
            return program, build(program, session.backend, 1, session.dtype, session.exact), captures

        seen = kept.Seen()
        key = session.key("whole prediction", seen, kept.fingerprint(trace.tape, outputs, seen, x, trace.random))
        given = [self.x, self.random, self.result, *session.buffers]
        self.program, self.code, (self.captured, self.others) = found_or_made(key, given, seen, self.clock, make)
        own = (self.x, self.random, self.result, self.captured)
        self.buffers = {**session.buffers, **{array: session.memory.zeros(array.size) for array in own}}
        session.memory.bind(self.code, self.program, self.buffers)

    def run(self, session: CompiledSession, x: list[Any]) -> Any:
        """The prediction, nested."""
        fill, buffers = session.memory.fill, self.buffers
        fill(buffers[self.x], list(map(number, x)))
        if self.others:
            fill(buffers[self.captured], [v.data for v in self.others])
        if self.random.size:
            draw = plain()
            fill(buffers[self.random], [draw() for _ in range(self.random.size)])
        with _arithmetic(session):
            self.code()
        return nested(self.returned, iter(list(buffers[self.result])))
