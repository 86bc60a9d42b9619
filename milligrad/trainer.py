"""Trainer: fit, step, evaluate and predict, eagerly or compiled, and what runs between epochs.

It knows data, epochs, batches and files. How a step is computed is the business of a `Session`. The eager one stands
here and is the loop that anybody would write; the compiled one is `compiler/fit.py`, imported when it is asked
for. No derivative and no update rule is defined here.

    X, y        samples and their targets, as the user gave them
    x           the samples once they are checked (and y the targets once they are)
    xb, yb      a batch of them
    prediction  what the model makes of one sample
    right       the metric, summed over the samples of a batch or an epoch: how many predictions were right
    order       the numbers of the samples (or of ready-made batches), as they come in an epoch
    row         what the history holds of an epoch: {"epoch": 1, "loss": 0.7, …}
"""

from __future__ import annotations

import math
import operator
import os
import sys
import time
from _thread import RLock
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial

from milligrad import expected, ops
from milligrad import functional as F
from milligrad.data.dataset import TensorDataset, source, whole
from milligrad.data.loader import DataLoader
from milligrad.data.rows import Rows
from milligrad.engine import Value, enable_grad, no_grad, number, topological_order
from milligrad.explain import explain
from milligrad.files import replace
from milligrad.history import Evaluation, History
from milligrad.markup import count
from milligrad.nested import Nested, Shape, elementwise, flatten, is_list, leaves, shape
from milligrad.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, NLLLoss
from milligrad.nn.module import Module
from milligrad.nn.reads import Reads, recorded
from milligrad.nn.utils import clip_grad_norm_, clip_grad_value_
from milligrad.optim.lr_scheduler import ReduceLROnPlateau, Scheduler
from milligrad.optim.optimizer import Optimizer, at_least_0, flag, real
from milligrad.places import warn
from milligrad.progress import progress as counted
from milligrad.random import generator
from milligrad.typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

if TYPE_CHECKING:
    from random import Random
    from typing import Protocol
else:
    Protocol = object  # as in milligrad.typing: only type checkers ask for it

__all__ = ["Callback", "Checkpoint", "EarlyStopping", "Evaluation", "History", "Trainer"]

BACKENDS = ("auto", "eager", "python", "llvm")
FORMAT = "milligrad checkpoint 1"
SESSIONS = 4  # that are kept, one for each metric
CLASS_LOSSES = (F.cross_entropy, F.nll_loss)
PathLike: TypeAlias = "str | os.PathLike[str]"
Metric: TypeAlias = Callable[[Any, Any], Any]  # (prediction, target) → a number
R = TypeVar("R")
Step: TypeAlias = "Callable[[Session], Any]"  # something to do in a session


# ── How steps are computed ───────────────────────────────────────────────────────────────────────────────────────


class Session(Protocol):
    """Holds the numbers of parameters and optimizer while they are trained, and computes with them.

    A Trainer calls `load` before it uses a session, and puts model and loss into training or evaluation mode. `x` and
    `y` are lists (or Rows) of samples of one shape. They are the same objects as long as the numbers in them are: a
    session may keep a form of its own. Whenever they may have changed, they are other lists, even of the same data.
    The gradients are those of the loss of a batch alone; all of the optimizer's together are clipped by norm, then
    each by value.

    A loss or a parameter that is not finite, or can't be computed, is a FloatingPointError: of `check` at the latest.
    """

    batches_per_call: int  # how many batches `epoch` is asked for at once: what passes before a Ctrl-C is heard
    explains: bool  # whether its FloatingPointErrors say where a number stopped being one
    examine: Callable[[Iterable[Value]], None]  # is told on which Values a loss depends, before the first step by it

    def epoch(self, x: Sequence[Any], y: Sequence[Any], order: Sequence[int], batch_size: int) -> tuple[float, float]:
        """A step for each batch of the samples order[0], order[1], …; returns (Σ loss · batch's length, right)."""

    def batch(self, xb: Nested, yb: Nested) -> tuple[float, float]:
        """A step on a ready-made batch of any shape; returns (loss, right)."""

    def evaluate(self, x: Sequence[Any], y: Sequence[Any], batch_size: int | None) -> tuple[float, float]:
        """(Σ loss · batch's length, right) without a step; batch_size None says that x, y is one ready-made batch."""

    def predict(self, x: Sequence[Any], batch_size: int | None) -> list[Any]:
        """The predictions as nested lists of floats; batch_size None says that x is one ready-made batch."""

    def be_exact(self) -> bool:
        """Compute more carefully from now on, after a FloatingPointError; False if there is no other way to compute."""

    def check(self) -> None:
        """Raise FloatingPointError if a parameter is not finite."""

    def store(self) -> None:
        """Write the numbers to the Values and to the optimizer: they are now those to go back to. Checks them first."""

    def load(self) -> None:
        """Take the numbers from the Values and the optimizer, whose options may have changed, too."""

    def discard(self) -> None:
        """Forget what was trained since the last `store` or `load`: Values and optimizer are as they were then, and the
        random numbers that steps have drawn will be drawn again."""


class _EagerSession:
    """The loop as anybody would write it: the Values themselves hold the numbers. A step that fails changes none."""

    batches_per_call = 1
    explains = True

    def __init__(
        self,
        model: Module,
        loss_fn: Callable[[Any, Any], Any],
        optimizer: Optimizer,
        correct: Metric | None,
        clip_grad_norm: float | None,
        clip_grad_value: float | None,
    ) -> None:
        self.model, self.loss_fn, self.optimizer, self.correct = model, loss_fn, optimizer, correct
        self.clip_grad_norm, self.clip_grad_value = clip_grad_norm, clip_grad_value
        self.load()
        self.examine: Callable[[Iterable[Value]], None] = lambda leaves: None
        self._seen = False  # whether it has been called

    def batch(self, xb: Nested, yb: Nested) -> tuple[float, float]:
        prediction, loss = self._computed(xb, yb)
        if not self._seen or not (isinstance(loss, Value) and loss.requires_grad):
            inputs = [x for z in topological_order([loss]) for x in z.inputs]
            self.examine([x for x in [loss, *inputs] if isinstance(x, Value) and x.is_leaf])
            self._seen = True
        result = loss.data, self._right(prediction, yb)  # before the step: they may be parameters themselves
        before = _Snapshot(self.optimizer)
        try:
            self.optimizer.zero_grad()
            loss.backward()
            if self.clip_grad_norm is not None:
                clip_grad_norm_(_optimized(self.optimizer), self.clip_grad_norm)
            if self.clip_grad_value is not None:
                clip_grad_value_(_optimized(self.optimizer), self.clip_grad_value)
            self.optimizer.step()
            self.check()
        except (ValueError, ArithmeticError) as error:
            before.restore()
            if not _is_of_arithmetic(error):
                raise
            finite = all(math.isfinite(v.grad) for v in _optimized(self.optimizer))
            raise FloatingPointError(f"{error}" if finite else self._trouble(loss) or f"{error}") from error
        return result

    def epoch(self, x: Sequence[Any], y: Sequence[Any], order: Sequence[int], batch_size: int) -> tuple[float, float]:
        return _totals(self.batch, x, y, order, batch_size)

    def evaluate(self, x: Sequence[Any], y: Sequence[Any], batch_size: int | None) -> tuple[float, float]:
        with no_grad():
            if batch_size is not None:
                return _totals(self._judge, x, y, range(len(x)), batch_size)
            loss, right = self._judge(x, y)
            return loss * _count(y), right

    def _judge(self, xb: Nested, yb: Nested) -> tuple[float, float]:
        prediction, loss = self._computed(xb, yb)
        return loss.real, self._right(prediction, yb)

    def _computed(self, xb: Nested, yb: Nested) -> tuple[Nested, Any]:
        """The prediction and the loss, which is finite."""
        try:
            prediction = self.model(xb)
            loss = self.loss_fn(prediction, yb)
        except (ValueError, ArithmeticError) as error:
            if not hasattr(error, "op"):  # the user's own
                raise
            raise FloatingPointError(f"the loss can't be computed: {self._trouble(error)}") from error
        if not math.isfinite(loss.real):
            about = loss if loss.real is not loss and loss.requires_grad else lambda: self.loss_fn(self.model(xb), yb)
            raise FloatingPointError(f"the loss is {loss.real}: {self._trouble(about)}")
        return prediction, loss

    def _trouble(self, about: Any) -> str:
        """What `explain` finds first of a loss, of a function that computes it, or of the error that this raises."""

        def fail() -> Any:
            raise about

        with enable_grad():
            found = explain(fail if isinstance(about, Exception) else about, model=self.model).findings
        first = next((finding for finding in found if finding.trouble), None)
        return "" if first is None else "; ".join([first.text, *first.where[:2]])

    def _right(self, predictions: Nested, yb: Nested) -> float:
        if self.correct is None:
            return 0.0
        numbers = elementwise(number, predictions)
        pairs = zip(numbers, yb, strict=True) if is_list(yb) else [(numbers, yb)]
        try:
            right = math.fsum([number(self.correct(prediction, target)) for prediction, target in pairs])
        except (ValueError, ArithmeticError) as error:
            if not _is_of_arithmetic(error):
                raise
            raise FloatingPointError(f"the metric can't be computed: {error}") from error
        if not math.isfinite(right):
            raise FloatingPointError(f"the metric is {right}")
        return right

    def predict(self, x: Sequence[Any], batch_size: int | None) -> list[Any]:
        with no_grad():
            if batch_size is None:
                return elementwise(number, self.model(x))  # type: ignore[no-any-return]
            batches = [[x[i] for i in k] for k in _slices(range(len(x)), batch_size)]
            return [prediction for xb in batches for prediction in elementwise(number, self.model(xb))]

    def be_exact(self) -> bool:
        return False

    def check(self) -> None:
        values = _optimized(self.optimizer)
        if not math.isfinite(sum([v.data for v in values])):
            bad = next((v for v in values if not math.isfinite(v.data)), None)
            if bad is not None:
                lrs = ", ".join([f"{group['lr']}" for group in self.optimizer.param_groups])
                raise FloatingPointError(
                    f"the step of {type(self.optimizer).__name__} with lr {lrs} made a parameter {bad.data}, "
                    f"of the gradient {bad.grad}"
                )

    def store(self) -> None:
        self._kept, self._random = _Snapshot(self.optimizer), generator().getstate()

    load = store

    def discard(self) -> None:
        self._kept.restore()
        generator().setstate(self._random)


def _exactly(session: Session, attempt: Callable[[], R], undo: Callable[[], Any] = lambda: None) -> R:
    """attempt(), once more with all care if some number is none: it may be that no result depends on it."""
    try:
        return attempt()
    except FloatingPointError:
        if not session.be_exact():
            raise
        undo()
        return attempt()


def _is_of_arithmetic(error: Exception) -> bool:
    """Whether a number made no sense, rather than an argument: a ValueError of an operation knows its `op`."""
    return isinstance(error, ArithmeticError) or hasattr(error, "op")


class _Snapshot:
    """The numbers of an optimizer's parameters, and of its memory of them, at one moment; not its options."""

    def __init__(self, optimizer: Optimizer, others: Iterable[Value] = ()) -> None:
        self._numbers = [(v, v.data) for v in [*_optimized(optimizer), *others]]
        self._slots = [(slot, slot.step, dict(slot.state)) for slots in optimizer.slots for slot in slots]

    def restore(self) -> None:
        for v, x in self._numbers:
            v.data = x
        for slot, step, state in self._slots:
            slot.step, slot.state = step, dict(state)


def _optimized(optimizer: Optimizer) -> list[Value]:
    """Every Value that the optimizer changes, in its order."""
    return [v for slots in optimizer.slots for slot in slots for v in slot.values]


@lru_cache(1)
def _in_order(n: int) -> Sequence[int]:
    """0, 1, … up to n: an array, which native code reads as it is, made once for all epochs."""
    return array("q", range(n))


def _slices(order: Sequence[int], n: int) -> Iterator[Sequence[int]]:
    """`order` in pieces of n, the last one smaller if need be."""
    return (order[k : k + n] for k in range(0, len(order), n))


def _count(yb: Nested) -> int:
    """For how many samples a batch counts: as many as it has targets."""
    return len(yb) if is_list(yb) else 1


def _totals(
    f: Callable[[Nested, Nested], tuple[float, float]],
    x: Sequence[Any],
    y: Sequence[Any],
    order: Sequence[int],
    batch_size: int,
) -> tuple[float, float]:
    """(Σ loss · n, Σ right) of `f` over the batches of n samples."""
    total = right = 0.0
    for k in _slices(order, batch_size):
        loss, r = f([x[i] for i in k], [y[i] for i in k])
        total, right = total + loss * len(k), right + r
    return total, right


# ── When a prediction is right: written for numbers and for symbols ──────────────────────────────────────────────


def _is_largest(prediction: Any, target: Any) -> Any:
    """1 where the first of the largest numbers of `prediction` is number `target`, else 0."""
    largest, n = ops.max(prediction), len(prediction)
    first = ops.min([ops.where(x >= largest, float(i), float(n)) for i, x in enumerate(prediction)])
    return ops.equal(first, target)


def _is_same_side(prediction: Any, target: Any, bound: float) -> Any:
    """1 where `target` is 1 and the prediction, a number alone or in a list, above the bound, or both are not."""
    x = prediction[0] if is_list(prediction) else prediction
    y = target[0] if is_list(target) else target
    return ops.equal(ops.where(x > bound, 1.0, 0.0), y)


def _is_probable(prediction: Any, target: Any) -> Any:
    return _is_same_side(prediction, target, 0.5)


def _is_positive(prediction: Any, target: Any) -> Any:
    return _is_same_side(prediction, target, 0.0)


# ── Data: everything is checked before anything changes ──────────────────────────────────────────────────────────


def _checked(x: Nested, name: str, ragged: bool = False) -> tuple[Nested, Shape]:
    """`x` as plain nested lists of finite numbers, and its shape (of a `ragged` one, the shapes of its rows).

    Rows, and lists that are flat and right, stay the objects they are. 784 numbers in a list take 5 µs.
    """
    if isinstance(x, Rows):
        x.check(name)
        return x, (len(x), x.width)
    x = x.tolist() if hasattr(x, "tolist") else x
    if not is_list(x):
        return _finite(x, name), ()
    if not len(x):
        raise ValueError(f"{name}: expected at least one number, got an empty list")
    if _is_flat(x):
        return x, (len(x),)
    if {*map(type, x)} == {list} and len({*map(len, x)}) == 1 and x[0] and _is_flat(map(sum, x)):
        return list(x), (len(x), len(x[0]))  # as below, in an eighth of the time
    rows, shapes = zip(*[_checked(row, f"{name}[{i}]", ragged) for i, row in enumerate(x)])
    if len({*shapes}) == 1:
        return list(rows), (len(x), *shapes[0])
    if ragged:
        return list(rows), shapes
    i = next(i for i, own in enumerate(shapes) if own != shapes[0])
    raise ValueError(f"{name}[{i}]: expected the shape {shapes[0]}, that of {name}[0], got {shapes[i]}")


def _is_flat(x: Iterable[Any]) -> bool:
    """Whether `x` is a list of finite floats and ints, for sure: only of those the sum is one. NaN and inf stay."""
    try:
        total = sum(x)
        return type(total) in (float, int) and math.isfinite(total)
    except (TypeError, OverflowError):
        return False


def _finite(x: Any, name: str) -> float:
    """`x` as a float, or as an int if it is a whole number by type."""
    if not math.isfinite(number(x, name)):
        raise ValueError(f"{name}: expected a finite number, got {float(x)}")
    return operator.index(x) if hasattr(x, "__index__") else number(x, name)


class _Feed:
    """Where the steps of an epoch come from, and in which order.

    given:    what it was made of, to read the data anew.
    names:    what errors call the samples and the targets.
    items:    how many things are shuffled: samples, or ready-made batches.
    size:     how many samples there are; trained: how many of them a step is made with in an epoch.
    random:   what draws the orders; None for milligrad's generator.
    """

    given: tuple[Any, ...]
    names: tuple[str, str]
    items: int
    size: int
    trained: int
    shuffle: bool = False
    random: Random | None = None
    dropped: int = 0  # the batch_size of drop_last

    def again(self) -> _Feed:
        """The same of the data as it is now."""
        feed = type(self)(*self.given)
        feed.shuffle, feed.random = self.shuffle, self.random
        if self.dropped:
            feed.drop_last(self.dropped)
        return feed

    def examples(self) -> Iterator[_Example]:
        """A batch of each shape that occurs, with the targets of all."""
        raise NotImplementedError

    def drop_last(self, batch_size: int) -> None:
        """Leave out a last batch that is smaller than the others."""

    def parts(self, order: Sequence[int], batches: int) -> list[Sequence[int]]:
        """`order` in pieces for which `train` is called, each of so many batches, if a call takes several."""
        raise NotImplementedError

    def length(self, part: Sequence[int]) -> int:
        """How many samples are in a part."""
        raise NotImplementedError

    def train(self, session: Session, part: Sequence[int], losses: list[float]) -> tuple[float, float]:
        """Make the steps of a part; (Σ loss · n, right). Appends the loss of each ready-made batch to `losses`."""
        raise NotImplementedError

    def step(self, part: Sequence[int]) -> Step:
        """To make the steps of a part."""
        return lambda session: self.train(session, part, [])

    def evaluate(self, session: Session) -> tuple[float, float]:
        """(Σ loss · n, right) of all samples."""
        raise NotImplementedError

    def each(self) -> Iterator[tuple[str, Step]]:
        """What `evaluate` does, batch by batch: which one it is, and what to do in a session."""
        raise NotImplementedError


class _Example:
    """The first batch of its shape, to try model and loss on, and the targets, with their names, of all like it."""

    def __init__(
        self, batch: tuple[Nested, Nested], names: Sequence[str], shapes: Sequence[Shape], targets: list[Any]
    ) -> None:
        self.xb, self.yb = batch
        self.x_name, self.y_name = names
        self.x_shape, self.y_shape = shapes
        self.targets: list[tuple[Nested, str]] = targets


class _Samples(_Feed):
    """Samples of one shape, each with its target: an epoch takes them in any order."""

    def __init__(self, X: Any, y: Any, names: tuple[str, str], batch_size: int) -> None:
        for data, name in zip((X, y), names):
            if not is_list(data):
                raise TypeError(f"{name}: expected a list of numbers or of lists, got {_kind(data)}")
        if not len(X):
            raise ValueError(f"{names[0]}: expected at least one sample, got none")
        if len(X) != len(y):
            raise ValueError(f"{names[1]}: expected {len(X)} targets, one for each sample, got {len(y)}")
        self.given, self.names, self.batch_size = (X, y, names, batch_size), names, batch_size
        x, self.x_shape = _checked(X, names[0])
        self.x = Rows(x.buffer, x.width) if isinstance(x, Rows) else list(x)  # no object that was there before
        self.y, self.y_shape = _checked(list(y), names[1])
        self.items = self.size = self.trained = len(self.x)

    def drop_last(self, batch_size: int) -> None:
        self.dropped, self.trained = batch_size, self.size - self.size % batch_size
        if not self.trained:
            raise ValueError(
                f"batch_size: expected at most {self.size}, the number of samples, with drop_last, got {batch_size}"
            )

    def examples(self) -> Iterator[_Example]:
        names, shapes = [f"{name}[0]" for name in self.names], [(1, *x[1:]) for x in (self.x_shape, self.y_shape)]
        yield _Example(([self.x[0]], [self.y[0]]), names, shapes, [(self.y, self.names[1])])

    def parts(self, order: Sequence[int], batches: int) -> list[Sequence[int]]:
        return list(_slices(order[: self.trained], self.batch_size * batches))

    def length(self, part: Sequence[int]) -> int:
        return len(part)

    def train(self, session: Session, part: Sequence[int], losses: list[float]) -> tuple[float, float]:
        return session.epoch(self.x, self.y, part, self.batch_size)

    def evaluate(self, session: Session) -> tuple[float, float]:
        return session.evaluate(self.x, self.y, self.batch_size)

    def each(self) -> Iterator[tuple[str, Step]]:
        for k, part in enumerate(_slices(range(self.size), self.batch_size), 1):
            xb, yb = [self.x[i] for i in part], [self.y[i] for i in part]
            yield f"batch {k}", operator.methodcaller("evaluate", xb, yb, len(xb))


class _Batches(_Feed):
    """Ready-made batches, each of any shape: an epoch makes a step with each."""

    def __init__(self, batches: Sequence[Any], name: str) -> None:
        self.given = batches, name
        if not len(batches):
            raise ValueError(f"{name}: expected at least one batch, got none")
        for i, pair in enumerate(batches):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise TypeError(
                    f"{name}[{i}]: without y, expected a list of batches (xb, yb), a Dataset or a DataLoader, "
                    f"got {_kind(pair)}"
                )
        names = [(f"{name}[{i}][0]", f"{name}[{i}][1]") if name else ("xb", "yb") for i in range(len(batches))]
        both = [[_checked(x, name, ragged=True) for x, name in zip(*row)] for row in zip(batches, names)]
        self.pairs = [(xb, yb) for (xb, _), (yb, _) in both]
        self._shapes = [(x_shape, y_shape) for (_, x_shape), (_, y_shape) in both]
        self._names, self.names = names, names[0]
        self.items, self.size = len(self.pairs), sum(_count(yb) for _, yb in self.pairs)
        self.trained = self.size

    def examples(self) -> Iterator[_Example]:
        alike: dict[Any, list[int]] = {}
        for i, shapes in enumerate(self._shapes):
            alike.setdefault(shapes, []).append(i)
        for shapes, indices in alike.items():
            targets = [(self.pairs[i][1], self._names[i][1]) for i in indices]
            yield _Example(self.pairs[indices[0]], self._names[indices[0]], shapes, targets)

    def parts(self, order: Sequence[int], batches: int) -> list[Sequence[int]]:
        return list(_slices(order, 1))

    def length(self, part: Sequence[int]) -> int:
        return _count(self.pairs[part[0]][1])

    def train(self, session: Session, part: Sequence[int], losses: list[float]) -> tuple[float, float]:
        xb, yb = self.pairs[part[0]]
        loss, right = session.batch(xb, yb)
        losses.append(loss)
        return loss * _count(yb), right

    def evaluate(self, session: Session) -> tuple[float, float]:
        losses, rights = zip(*[session.evaluate(xb, yb, None) for xb, yb in self.pairs])
        return ops.added(losses, 0.0), ops.added(rights, 0.0)

    def each(self) -> Iterator[tuple[str, Step]]:
        for k, (xb, yb) in enumerate(self.pairs, 1):
            yield f"batch {k}", operator.methodcaller("evaluate", xb, yb, None)


def _feed(X: Any, y: Any, names: tuple[str, str], batch_size: int) -> _Feed:
    """The data of `fit` and `evaluate`, in whichever form it was given, checked."""
    if y is not None:
        return _Samples(X, y, names, batch_size)
    if isinstance(X, DataLoader):
        feed = _Samples(*_columns(X.dataset, names[0]), names, X.batch_size)
        feed.shuffle, feed.random = X.shuffle, X._own
        if X.drop_last:
            feed.drop_last(X.batch_size)
        return feed
    if isinstance(X, (list, tuple)):
        return _Batches(X, names[0])
    if is_list(X):
        return _Samples(*_columns(X, names[0]), names, batch_size)
    raise TypeError(f"{names[0]}: expected a list, a Dataset or a DataLoader, got {_kind(X)}")


def _validation(data: Any, batch_size: int) -> _Feed:
    """The data to validate with: a tuple is (X, y)."""
    if isinstance(data, tuple):
        if len(data) != 2:
            raise TypeError(f"validation_data: expected (X, y), a Dataset, a DataLoader or batches, got {_kind(data)}")
        return _feed(*data, ("validation_data[0]", "validation_data[1]"), batch_size)
    return _feed(data, None, ("validation_data", "targets of validation_data"), batch_size)


def _columns(dataset: Any, name: str) -> tuple[Any, Any]:
    """The samples and the targets of a Dataset of pairs (x, y)."""
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        return dataset.tensors[0], dataset.tensors[1]
    samples = [dataset[i] for i in range(len(dataset))]
    for i, sample in enumerate(samples):
        if not isinstance(sample, (tuple, list)) or len(sample) != 2:
            raise TypeError(f"{name}[{i}]: without y, expected a sample (x, y), got {_kind(sample)}")
    return [x for x, _ in samples], [y for _, y in samples]


def _kind(x: object) -> str:
    return f"{type(x).__name__} {x!r:.60}"


# ── What runs between epochs ─────────────────────────────────────────────────────────────────────────────────────


class Callback:
    """What `fit` calls between epochs: subclass it and define what you need. A function (trainer, history) is one, too.

    Between epochs the parameters, the optimizer, the trainer and the data may be read and changed. A KeyboardInterrupt
    raised here ends the run like Ctrl-C, after the epoch that was just finished; any other exception passes through.
    """

    changes = True  # whether it may change anything but itself: if not, numbers, options and data are not read again

    def on_fit_begin(self, trainer: Trainer, history: History) -> None:
        """Before the first epoch: start afresh."""

    def on_epoch_end(self, trainer: Trainer, history: History) -> Any:
        """After an epoch, of which history[-1] is the row. Return True to end the run."""

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        """After the last epoch, or an interrupt; not after an error."""

    def state_dict(self) -> dict[str, Any]:
        """What it must remember to go on in another process, fit for JSON."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""


class _Function(Callback):
    def __init__(self, f: Callable[[Trainer, History], Any]) -> None:
        self.f = f

    def on_epoch_end(self, trainer: Trainer, history: History) -> Any:
        return self.f(trainer, history)


class _Watch(Callback):
    """The best value so far of a column of the history. NaN is never better."""

    changes = False
    monitor: str | None
    best: float | None

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"monitor: expected the name of a column of the history, got {_kind(monitor)}")
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode: expected 'auto', 'min' or 'max', got {mode!r:.60}")
        if mode == "auto" and "metric" in monitor:
            raise ValueError(f"mode: expected 'min' or 'max' for the monitor {monitor!r}, got 'auto'")
        self.monitor, self.min_delta = monitor, at_least_0(min_delta, "min_delta")
        self.sign = 1 if mode == "max" or (mode == "auto" and "accuracy" in monitor) else -1
        self.best = None

    def improved(self, history: History) -> bool:
        """Whether the last epoch was better than the best so far by more than min_delta; then it is the best."""
        x = history[self.monitor][-1]
        if math.isnan(x) or (self.best is not None and self.sign * (x - self.best) <= self.min_delta):
            return False
        self.best = x
        return True


class EarlyStopping(_Watch):
    """Ends the run when `monitor` has not improved by more than `min_delta` for `patience` epochs.

    monitor:       a column of the history: "val_loss", "loss", "val_accuracy", …
    restore_best:  when the run ends, in whichever way but by an error, give the parameters the numbers they had after
                   the best epoch. The optimizer stays as it is.
    mode:          "min" or "max" says what is better; "auto" is "max" for an accuracy and "min" for a loss.

    `best` and `best_epoch` (from 1) are None before the first epoch, `stopped` says whether it ended the run.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        min_delta: float = 0.0,
        restore_best: bool = True,
        mode: str = "auto",
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience, self.restore_best = whole(patience, "patience", least=1), flag(restore_best, "restore_best")
        self._start()

    def _start(self) -> None:
        self.best = self.best_epoch = self._numbers = None
        self.wait, self.stopped = 0, False

    best_epoch: int | None
    _numbers: list[float] | None
    _size: int | None = None  # how many numbers the optimizer changes, once that is known

    def on_fit_begin(self, trainer: Trainer, history: History) -> None:
        self._start()
        self._size = len(_optimized(trainer.optimizer)) if trainer else None

    def on_epoch_end(self, trainer: Trainer, history: History) -> bool:
        if self.improved(history):
            self.wait, self.best_epoch = 0, len(history)
            self._numbers = [v.data for v in _optimized(trainer.optimizer)] if self.restore_best else None
        else:
            self.wait += 1
        self.stopped = self.wait >= self.patience
        return self.stopped

    def on_fit_end(self, trainer: Trainer, history: History) -> None:
        if self._numbers is not None:
            for v, x in zip(_optimized(trainer.optimizer), self._numbers, strict=True):
                v.data = x

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _EARLY_STOPPING}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, x in expected.entries(state, _EARLY_STOPPING, "state").items():
            expected.saved(_EARLY_STOPPING[name], x, f"state[{name!r}]")
        numbers = state["_numbers"]
        if numbers is not None and self._size not in (None, len(numbers)):
            raise ValueError(f"state['_numbers']: expected {self._size} numbers, got {len(numbers)}")
        self.__dict__.update(state)


def _or_none(check: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    return lambda x, name: None if x is None else check(x, name)


_EARLY_STOPPING: dict[str, Callable[[Any, str], Any]] = {
    "best": _or_none(real),
    "best_epoch": _or_none(lambda x, name: real(x, name) and expected.size(x, name)),
    "wait": lambda x, name: real(x, name) and expected.size(x, name),
    "stopped": flag,
    "_numbers": _or_none(lambda xs, name: expected.array(xs, (len(xs),), name)),
}


class Checkpoint(_Watch):
    """Saves the run to a file (see `Trainer.save`), from which `fit(…, resume=path)` goes on to the bit.

    path:   the file; "{epoch}" in it becomes the number of the epoch. It is replaced in one step, so that whenever the
            process ends, there is a whole file.
    every:  save after the epochs that are multiples of it.
    best:   and only if `monitor` is better than after all epochs before; `mode` is that of EarlyStopping.
    """

    def __init__(
        self, path: PathLike, every: int = 1, best: bool = False, monitor: str = "val_loss", mode: str = "auto"
    ) -> None:
        super().__init__(monitor, mode)
        self.path, self.every, self.best_only = os.fspath(path), whole(every, "every", least=1), flag(best, "best")
        if not self.best_only:
            self.monitor = None
        self._due = False

    def on_fit_begin(self, trainer: Trainer, history: History) -> None:
        self.best = None
        folder = os.path.dirname(self.path) or "."
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"path: expected an existing folder to save {self.path!r} in, found none")

    def on_epoch_end(self, trainer: Trainer, history: History) -> None:
        better = not self.best_only or self.improved(history)
        self._due = better and len(history) % self.every == 0

    def write(self, trainer: Trainer, history: History) -> None:
        """Save what on_epoch_end found to be due. `fit` calls it when all callbacks have made up their state."""
        if self._due:
            trainer.save(self.path.replace("{epoch}", str(len(history))))

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        best = expected.entries(state, ["best"], "state")["best"]
        self.best = expected.saved(_or_none(real), best, "state['best']")


def _callbacks(callbacks: Any, columns: Sequence[str]) -> list[Callback]:
    given = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    for i, callback in enumerate(given):
        if not isinstance(callback, Callback) and not (callable(callback) and not isinstance(callback, type)):
            raise TypeError(
                f"callbacks[{i}]: expected a Callback or a function (trainer, history), got {_kind(callback)}"
            )
        monitor = callback.monitor if isinstance(callback, _Watch) else None
        if monitor is not None and monitor not in columns:
            hint = "; pass validation_data" if monitor.startswith("val_") and "val_loss" not in columns else ""
            raise ValueError(f"callbacks[{i}]: monitor: expected one of {', '.join(columns)}, got {monitor!r}{hint}")
    return [c if isinstance(c, Callback) else _Function(c) for c in given]


# ── One run of fit ───────────────────────────────────────────────────────────────────────────────────────────────


class _Run:
    """One fit: all that is needed to go on with it, beyond model and optimizer."""

    def __init__(
        self,
        history: History,
        feed: _Feed,
        validation: _Feed | None,
        metric: str,
        scheduler: Scheduler | None,
        callbacks: list[Callback],
    ) -> None:
        self.history, self.feed, self.validation, self.metric = history, feed, validation, metric
        self.scheduler, self.callbacks = scheduler, callbacks
        self.changes = any([callback.changes for callback in callbacks])  # whether anything may be other than it was
        self.roots: list[Module] = []
        self.mark()

    def read(self) -> None:
        """Read the data anew."""
        self.feed = self.feed.again()
        self.validation = self.validation and self.validation.again()

    def figures(self, prefix: str, total: float, right: float, n: int) -> dict[str, float]:
        """The loss, and the metric if there is one, of n samples."""
        return {f"{prefix}{name}": x / n for name, x in (("loss", total), (self.metric, right)) if name}

    def finish(self, row: dict[str, Any], losses: list[float]) -> None:
        """Record an epoch and step the scheduler."""
        self.history.epochs.append(row)
        self.history.batch_losses += losses
        self.mark()
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(row["loss" if self.validation is None else "val_loss"])
        elif self.scheduler is not None:
            self.scheduler.step()  # type: ignore[attr-defined]  # of the others

    def order(self) -> Sequence[int]:
        """The order of the next epoch: that of a DataLoader with the same seed."""
        if not self.feed.shuffle:
            return _in_order(self.feed.items)
        order = list(range(self.feed.items))
        (self.feed.random or generator()).shuffle(order)
        return array("q", order)

    def mark(self) -> None:
        """Remember where the random numbers are, to go back there with `rewind`."""
        own = self.feed.random
        self._marked: tuple[Any, Any] = own and own.getstate(), generator().getstate()

    def rewind(self) -> None:
        own, common = self._marked
        if self.feed.random is not None and own is not None:
            self.feed.random.setstate(own)
        generator().setstate(common)

    def state_dict(self) -> dict[str, Any]:
        own = self.feed.random
        return {
            "epochs": self.history.epochs,
            "batch_losses": self.history.batch_losses,
            "columns": list(self.history.columns),
            "order": own and own.getstate(),
            "random": generator().getstate(),
            "scheduler": self.scheduler and [type(self.scheduler).__name__, self.scheduler.state_dict()],
            "callbacks": [[type(c).__name__, c.state_dict()] for c in self.callbacks],
        }

    def load_state_dict(self, state: Any) -> None:
        """Go on from there. All is checked before anything changes, but for callbacks, which were just started."""
        if state is None:
            raise ValueError("resume: expected a checkpoint saved by or after fit, got one saved before any; use load")
        run = expected.entries(state, self.state_dict(), "run")
        checks = {
            "columns": self._check_columns,
            "epochs": self._check_rows,
            "batch_losses": lambda xs, name: [number(x, name) for x in _listed(xs, name)],
            "order": _or_none(_check_random),
            "random": _check_random,
            "scheduler": self._check_scheduler,
            "callbacks": lambda xs, name: [_check_kind(x, name) for x in _listed(xs, name)],
        }
        for name, check in checks.items():
            expected.saved(check, run[name], f"run[{name!r}]")
        self._load_callbacks(run["callbacks"])
        if self.scheduler is not None:
            expected.loaded(self.scheduler.load_state_dict, run["scheduler"][1], "run['scheduler']")
        self.history.epochs[:], self.history.batch_losses[:] = run["epochs"], run["batch_losses"]
        self._load_random(run["order"], run["random"])
        self.mark()

    def _check_columns(self, columns: Any, name: str) -> None:
        if tuple(_listed(columns, name)) != self.history.columns:
            raise ValueError(
                f"{name}: expected a run that records {', '.join(self.history.columns)}, as this one would, "
                f"got {', '.join(map(str, columns)):.200}"
            )

    def _check_rows(self, rows: Any, name: str) -> None:
        for i, row in enumerate(_listed(rows, name)):
            for column, x in expected.entries(row, self.history.columns, f"{name}[{i}]").items():
                path = f"{name}[{i}][{column!r}]"
                if column == "epoch" and x != i + 1:
                    raise ValueError(f"{path}: expected {i + 1}, got {type(x).__name__}")
                rates = x if column == "lr" and isinstance(x, list) and len(x) > 1 else [x]  # one for each group
                for z in rates:
                    expected.saved(number, z, path)  # which may be NaN

    def _check_scheduler(self, saved: Any, name: str) -> None:
        kind, own = saved and _check_kind(saved, name), self.scheduler and type(self.scheduler).__name__
        if kind != own:
            raise ValueError(f"{name}: expected a run with the scheduler {own}, got one with {kind}")

    def _load_callbacks(self, saved: list[Any]) -> None:
        """Each takes the first state of its own kind that is left; one that the run didn't have starts afresh."""
        remaining = dict(enumerate(saved))
        for callback in self.callbacks:
            i = next((i for i, (kind, _) in remaining.items() if kind == type(callback).__name__), None)
            if i is not None:
                expected.loaded(callback.load_state_dict, remaining.pop(i)[1], f"run['callbacks'][{i}]")

    def _load_random(self, own: Any, common: Any) -> None:
        generator().setstate(_random_state(common))
        if own is None:
            self.feed.random = None
            return
        random = self.feed.random or source(0)
        random.setstate(_random_state(own))
        self.feed.random = random


def _listed(xs: Any, name: str) -> list[Any]:
    if not isinstance(xs, list):
        raise ValueError(f"{name}: expected a list, got {type(xs).__name__} {xs!r:.60}")
    return xs


def _check_kind(saved: Any, name: str) -> str:
    """The kind of what was saved as [kind, state]."""
    if len(_listed(saved, name)) != 2 or not isinstance(saved[0], str) or not isinstance(saved[1], dict):
        raise ValueError(f"{name}: expected the name of a class and its state, got {saved!r:.60}")
    return saved[0]


def _random_state(saved: Any) -> tuple[Any, ...]:
    """What Random.getstate returned, once JSON has made lists of its tuples."""
    version, internal, gauss = saved
    return version, tuple(internal), gauss


def _check_random(saved: Any, name: str) -> None:
    """Raise an error for what is no state of Python's generator."""
    from random import Random

    version, internal, gauss = _random_state(saved)
    if version != Random.VERSION or len(internal) != 625:
        raise ValueError(f"{name}: expected what Random.getstate returns, got {saved!r:.60}")
    Random().setstate((version, internal, gauss))
    _or_none(expected.finite)(gauss, name)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A Ctrl-C within the block is heard at its end, so that what belongs together is written together."""
    import signal
    import threading

    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # other threads never see a Ctrl-C
        return
    held: list[Any] = []
    signal.signal(signal.SIGINT, lambda *event: held.append(event))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            before(*held[-1])


# ── The Trainer ──────────────────────────────────────────────────────────────────────────────────────────────────

_any = object()
_announced: set[str] = set()


class Trainer:
    """Trains `model` to make `loss_fn(model(xb), yb)` small, with `optimizer`.

    loss_fn:          a function of a batch of predictions and their targets, or a loss module; it returns one number.
    optimizer:        made with the parameters of the model.
    backend:          "eager" computes step by step, as you would; "python" and "llvm" compile the step to loops first
                      (llvm needs `pip install 'milligrad-autodiff[native]'`); "auto" is llvm where that is installed,
                      else python, and says on standard error which. All walk the same trajectory, up to rounding.
    threads:          into how many parts llvm splits a batch; eager and python use one thread, whatever is asked.
    dtype:            "float64", or "float32" on llvm.
    clip_grad_norm:   scale the gradients of all parameters of the optimizer together to at most this norm.
    clip_grad_value:  then move each gradient into [-clip_grad_value, clip_grad_value].
    metric:           "accuracy" where that makes sense; None for none; or a function of the prediction of one sample
                      (as the model nests it) and its target, whose mean is recorded. To compile, it must be arithmetic,
                      comparisons and functions of milligrad: no `if`.

    Accuracy makes sense if targets are class numbers and predictions are lists: then the first of the largest numbers
    counts as the predicted class. It does, too, if all targets are 0 or 1 and predictions are single numbers (alone or
    in a list): then a prediction says 1 if it is above 0 for BCEWithLogitsLoss, above 0.5 for any other loss.

    The loss of an epoch is the mean of its batches' losses, weighted by their numbers of targets: for a mean loss, the
    mean over the samples; for a loss with reduction="sum", the mean sum of a batch.

    Data comes as X and y: lists (or array-likes) of samples of one shape and of their targets; or, without y, as a
    Dataset of pairs (x, y), as a DataLoader, or as a list of ready-made batches (xb, yb) of any shapes. All of it is
    checked before anything changes: rows of different lengths, NaN or infinity, what the model or the loss does not
    take (found by a forward pass of one sample), classes out of range. The errors name the place: "X[3][1]".

    The model is in training mode in fit and step, in evaluation mode in evaluate and predict, and afterwards in the
    mode it was in. Raises TypeError or ValueError for arguments that are not as described, ImportError for a backend
    that is not installed. `history` is that of the last fit.

    What is changed between two calls, or by a callback, counts from then on: these attributes themselves, numbers and
    options of the optimizer, Parameters and submodules, any attribute that a module reads (`dropout.p`, `reduction`),
    `train()` and `eval()` of a submodule, what is frozen, and the data. (A Dataset is asked for its samples once in a
    fit.) On the compiled backends there is one exception: what a function (a loss, a metric, a `forward`) reads beside
    its arguments and modules (globals, variables that it closes over) is read when it is compiled. Make it an attribute
    of a module, or assign the function anew.

    A loss or a parameter that becomes infinite or NaN is a FloatingPointError that names the epoch and the batch, and
    says where the number was born: the same on every backend, since compiled code goes back to that batch and takes it
    eagerly. Random numbers of dropout are drawn in the same order on every backend. Several threads may evaluate and
    predict: they take turns, and between the epochs of a fit.
    """

    _checks: ClassVar[dict[str, Callable[[Trainer, Any], Any]]] = {
        "model": lambda self, x: _model(x),
        "loss_fn": lambda self, x: _loss_fn(x),
        "optimizer": lambda self, x: _optimizer(x),
        "backend": lambda self, x: _backend(x),
        "threads": lambda self, x: whole(x, "threads", least=1),
        "dtype": lambda self, x: _dtype(x, self.backend),
        "clip_grad_norm": lambda self, x: None if x is None else at_least_0(x, "clip_grad_norm"),
        "clip_grad_value": lambda self, x: None if x is None else at_least_0(x, "clip_grad_value"),
        "metric": lambda self, x: _metric(x),
    }

    def __init__(
        self,
        model: Module,
        loss_fn: Callable[[Any, Any], Any],
        optimizer: Optimizer,
        backend: str = "auto",
        threads: int = 1,
        dtype: str = "float64",
        clip_grad_norm: float | None = None,
        clip_grad_value: float | None = None,
        metric: str | Metric | None = "accuracy",
    ) -> None:
        self.model, self.loss_fn, self.optimizer, self.metric = model, loss_fn, optimizer, metric
        self._check_optimizer()
        self.threads, self.clip_grad_norm, self.clip_grad_value = threads, clip_grad_norm, clip_grad_value
        self.backend: str = backend
        self.dtype = dtype
        self.history = History()
        self._run: _Run | None = None
        self._begin()

    def _begin(self) -> None:
        """Nothing has been found out or compiled."""
        self._turn = RLock()  # who has it may put the model into a mode, and use sessions
        self._sessions: dict[Any, Session] = {}
        self._made_with: Any = None
        self._outputs: dict[Any, Shape | None] = {}  # of each shape of data that model and loss have been tried on
        self._taken: set[Shape] = set()  # the shapes of samples that the model alone has been tried on
        self._reads = Reads()  # what that depends on
        self._warned = False

    def __setattr__(self, name: str, value: Any) -> None:
        check = self._checks.get(name)
        value = check(self, value) if check else value
        if name == "backend" and hasattr(self, "dtype"):
            _dtype(self.dtype, value)
        object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or a pickle has: not what was compiled."""
        return {name: self.__dict__[name] for name in (*self._checks, "history", "_run")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def _check_optimizer(self) -> None:
        if {*_optimized(self.optimizer)}.isdisjoint(self._parameters()):
            raise ValueError("optimizer: expected one made with the model's parameters, got one that has none of them")

    def _modules(self) -> list[Module]:
        return [self.model, self.loss_fn] if isinstance(self.loss_fn, Module) else [self.model]

    def _parameters(self) -> list[Value]:
        return [v for module in self._modules() for parameter in module.parameters() for v in parameter.values()]

    # Training.

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: Any = None,
        shuffle: bool = True,
        seed: int | None = None,
        drop_last: bool = False,
        scheduler: Scheduler | None = None,
        callbacks: Any = (),
        progress: bool = True,
        resume: PathLike | None = None,
    ) -> History:
        """Go through the data `epochs` times, a step for each batch, and return what was recorded.

        batch_size:       samples in a batch; the last one of an epoch is smaller, or left out by `drop_last`.
                          Ready-made batches and those of a DataLoader stay as they are.
        validation_data:  (X, y), a Dataset, a DataLoader or a list of batches, evaluated after each epoch.
        shuffle:          a new order in every epoch, drawn with `seed`, the same on every backend: that of a DataLoader
                          with this seed. None draws from the generator that `milligrad.manual_seed` seeds. Of
                          ready-made batches the order of the batches changes; a DataLoader goes by its own options.
        scheduler:        stepped after each epoch; ReduceLROnPlateau gets the validation loss, or else the loss.
        callbacks:        called after that: `Callback`s, or functions (trainer, history) that return True to stop.
        progress:         whether to show on standard error how far it is.
        resume:           a file that `Checkpoint` or `save` wrote: go on from there up to `epochs` in all. With the
                          same data and arguments the run ends with the numbers, to the bit, of one that was never
                          interrupted: optimizer, scheduler, callbacks, order and random numbers go on as they were.

        Ctrl-C (KeyboardInterrupt) ends the run, not the program: parameters, optimizer and random numbers are those
        after the last finished epoch, and the history returned has `interrupted` set. Any other error passes through,
        and leaves them so, too.
        """
        epochs, n = whole(epochs, "epochs", least=1), whole(batch_size, "batch_size", least=1)
        shows = flag(progress, "progress")
        feed = self._training_feed(X, y, n, flag(shuffle, "shuffle"), seed, flag(drop_last, "drop_last"))
        validation = None if validation_data is None else _validation(validation_data, n)
        metric = self._metric_name(self._examined(feed, training=True))
        if validation is not None:
            self._examined(validation)
        history = History(_columns_of(metric, validation is not None))
        called = _callbacks(callbacks, history.columns)
        run = _Run(history, feed, validation, metric, self._checked_scheduler(scheduler), called)
        for callback in run.callbacks:
            callback.on_fit_begin(self, history)
        if resume is not None:
            self._resume(run, resume)
        self.history, self._run = history, run
        try:
            with self._mode(training=True), enable_grad():
                self._train(run, epochs, shows)
        except KeyboardInterrupt:
            history.interrupted = True
        for callback in run.callbacks:
            callback.on_fit_end(self, history)
        return history

    def _training_feed(self, X: Any, y: Any, batch_size: int, shuffle: bool, seed: Any, drop_last: bool) -> _Feed:
        random = None if seed is None else source(seed)
        feed = _feed(X, y, ("X", "y"), batch_size)
        if isinstance(X, DataLoader) and y is None:  # it has options of its own
            return feed
        feed.shuffle, feed.random = shuffle, random
        if drop_last:
            feed.drop_last(batch_size)
        return feed

    def _checked_scheduler(self, scheduler: Any) -> Scheduler | None:
        if scheduler is not None and not isinstance(scheduler, Scheduler):
            raise TypeError(f"scheduler: expected one of milligrad.optim.lr_scheduler, got {_kind(scheduler)}")
        if scheduler is not None and scheduler.optimizer is not self.optimizer:
            raise ValueError("scheduler: expected one made for the Trainer's optimizer, got one of another")
        return scheduler

    def _metric_name(self, correct: Metric | None) -> str:
        """The column of the metric, "" if there is none."""
        return "" if correct is None else "metric" if correct is self.metric else "accuracy"

    def _prepared(self, run: _Run, read: bool) -> Session:
        """The session to train in, with the numbers as they are; whatever changed meanwhile is checked."""
        if read:
            run.read()
        correct = self._examined(run.feed, training=True)
        if run.validation is not None:
            self._examined(run.validation)
        if self._metric_name(correct) != run.metric:
            raise ValueError(f"metric: expected the one that this fit records, {run.metric or None!r}, to stay")
        self._checked_scheduler(run.scheduler)
        for root in self._modules():
            if not any(root is known for known in run.roots):  # of a fit, a model is in training mode when it comes in
                run.roots.append(root.train())
        session = self._session(correct)
        session.load()
        return session

    def _train(self, run: _Run, epochs: int, progress: bool) -> None:
        """Epoch after epoch. Whatever ends it in the midst of one, what that epoch changed is undone."""
        history, callbacks = run.history, run.callbacks
        stopped = any(getattr(callback, "stopped", False) for callback in callbacks)
        session = self._prepared(run, read=any([_may_change_at_begin(callback) for callback in callbacks]))
        shown = _Progress(run.feed.trained * (epochs - len(history))) if progress and len(history) < epochs else None
        try:
            while len(history) < epochs and not stopped:
                with self._turn:
                    row, losses = self._epoch(session, run, shown)
                    with _uninterrupted():
                        session.store()
                        run.finish(row, losses)
                stopped = any([callback.on_epoch_end(self, history) is True for callback in callbacks])
                for callback in callbacks:
                    if isinstance(callback, Checkpoint):
                        callback.write(self, history)
                if len(history) < epochs and not stopped:
                    if run.changes:
                        session = self._prepared(run, read=True)
                    elif run.scheduler is not None:
                        session.load()
                if run.changes or run.scheduler is not None:
                    run.mark()
        except BaseException:
            with _uninterrupted():
                session.discard()
                run.rewind()
            raise
        finally:
            if shown:
                shown.close()

    def _epoch(self, session: Session, run: _Run, shown: _Progress | None) -> tuple[dict[str, Any], list[float]]:
        """Train for one epoch and validate: its row, and the losses of its steps if the batches are ready-made."""
        start, feed, validation = time.perf_counter(), run.feed, run.validation
        row: dict[str, Any] = {"epoch": len(run.history) + 1}
        losses: list[float] = []
        total, right = self._steps(session, run, losses, shown)
        row.update(run.figures("", total, right, feed.trained))
        if validation is not None:
            with self._mode(training=False), _named(f"epoch {row['epoch']}, validation"):
                row.update(run.figures("val_", *self._evaluated(session, validation), validation.size))
        lrs = [group["lr"] for group in self.optimizer.param_groups]
        row["lr"] = lrs[0] if len(lrs) == 1 else lrs
        row["seconds"] = time.perf_counter() - start
        return row, losses

    def _steps(self, session: Session, run: _Run, losses: list[float], shown: _Progress | None) -> tuple[float, float]:
        """The steps of an epoch; (Σ loss · n, Σ right)."""
        feed, epoch, order = run.feed, len(run.history) + 1, run.order()

        def undo() -> None:
            session.discard()
            losses.clear()

        def attempt() -> tuple[float, float]:
            total = right = 0.0
            for k, part in enumerate(feed.parts(order, session.batches_per_call), 1):
                with _named(f"epoch {epoch}, batch {k}" if session.explains else ""):
                    loss, r = feed.train(session, part, losses)
                total, right = total + loss, right + r
                if shown:
                    shown.advance(feed.length(part))
            session.check()
            return total, right

        try:
            return _exactly(session, attempt, undo)
        except FloatingPointError:
            if session.explains:
                raise
            undo()
            each = enumerate(feed.parts(order, 1), 1)
            self._explained(session, [(f"epoch {epoch}, batch {k}", feed.step(part)) for k, part in each])
            raise

    def _explained(self, session: Session, steps: Iterable[tuple[str, Step]]) -> None:
        """Take the steps one by one. The one that fails in this session fails eagerly, too, which says why.

        It returns if none fails. Afterwards all numbers are as they were.
        """
        before, state = _Snapshot(self.optimizer), generator().getstate()
        eager = self._eager(getattr(session, "correct", None))
        try:
            for where, step in steps:
                drawn = generator().getstate()
                try:
                    step(session)
                    if not session.explains:
                        session.store()
                except FloatingPointError as error:
                    generator().setstate(drawn)
                    with _named(where):
                        step(eager)
                        raise FloatingPointError(
                            f"{error}; eager code, which computes the same in another order and always in float64, "
                            "finds finite numbers there"
                        ) from None
        finally:
            before.restore()
            generator().setstate(state)

    def step(self, xb: Nested, yb: Nested) -> float:
        """One training step on one batch; returns its loss before the step.

        The numbers go from the model to the session and back in each call. Many batches at a time are quicker with
        `fit(batches, shuffle=False)`, whose history has the `batch_losses`. If it fails, nothing has changed.
        """
        feed = _Batches([(xb, yb)], "")
        with self._turn, self._mode(training=True), enable_grad():
            self._examined(feed, training=True)
            session = self._session()
            session.load()

            def attempt() -> float:
                loss, _ = session.batch(*feed.pairs[0])
                with _uninterrupted():
                    session.store()
                return loss

            try:
                loss = _exactly(session, attempt, session.discard)
            except BaseException as error:
                session.discard()
                if isinstance(error, FloatingPointError) and not session.explains:
                    self._explained(session, [("", feed.step([0]))])
                raise
        return loss

    # Using.

    def evaluate(self, X: Any, y: Any = None, *, batch_size: int = 32) -> Evaluation:
        """The loss and the accuracy on all of the data, in the forms that `fit` takes. Changes nothing."""
        feed = _feed(X, y, ("X", "y"), whole(batch_size, "batch_size", least=1))
        with self._turn, self._mode(training=False):
            correct = self._examined(feed)
            session = self._session(correct)
            session.load()
            total, right = self._evaluated(session, feed)
        name = self._metric_name(correct)
        return Evaluation(total / feed.size, **({name: right / feed.size} if name else {}))

    def _evaluated(self, session: Session, feed: _Feed) -> tuple[float, float]:
        """(Σ loss · n, Σ right). What is not finite is found in eager code."""
        try:
            return _exactly(session, lambda: feed.evaluate(session))
        except FloatingPointError:
            before = _Snapshot(self.optimizer)
            try:
                if not session.explains:
                    session.store()  # in a fit, the model has not got its numbers yet
                self._explained(session, feed.each())
            finally:
                before.restore()
            raise

    def predict(self, X: Any, *, batch_size: int = 32) -> list[Any]:
        """The predictions for a list of samples, or for those of a Dataset or DataLoader in the order of the data:
        a list with one for each, of floats nested as the model nests them. Changes nothing.

        Raises FloatingPointError for a prediction that is not finite; a backend "eager" raises what Python's
        arithmetic does, as a call of the model.
        """
        n = whole(batch_size, "batch_size", least=1)
        if isinstance(X, DataLoader):
            X, n = X.dataset, X.batch_size
        if is_list(X) and not isinstance(X, (list, tuple)) and len(X) and isinstance(X[0], tuple):
            X, _ = _columns(X, "X")
        if not is_list(X):
            raise TypeError(f"X: expected a list of samples or a Dataset, got {_kind(X)}")
        if not len(X):
            raise ValueError("X: expected at least one sample, got none")
        x, own = _checked(X, "X")
        with self._turn, self._mode(training=False):
            self._forget_what_changed()
            if own[1:] not in self._taken:
                with self._trying():
                    _check_one_each(self._prediction([x[0]], "X[0]"))
                    self._taken.add(own[1:])
            session = self._session()
            session.load()
            try:
                return _exactly(session, lambda: _predicted(session, x, n, 0))
            except FloatingPointError:
                if not session.explains:
                    parts = [partial(_predicted, x=x[k : k + n], batch_size=n, first=k) for k in range(0, len(x), n)]
                    self._explained(session, [("", part) for part in parts])
                raise

    def explain(self, full: bool = False) -> str:
        """What the model was compiled to, as `Compiled.explain` tells it: a screen of nodes, loops and times.

        full: all programs with all their loops, and the generated source, too.
        """
        if self.backend == "eager":
            return "backend 'eager': nothing is compiled, each operation computes its number when it is called"
        texts = [text for session in self._sessions.values() if (text := session.explain(full))]  # type: ignore[attr-defined]
        return "\n\n".join(texts) or "not compiled yet: call fit, step, evaluate or predict once"

    # Saving.

    def save_c(self, path: PathLike, X: Any, y: Any, *, dtype: str | None = None) -> None:
        """Write a step of training, on a batch of the shapes of X and y, as a C file and its header: a device learns.

        The C function changes nothing. It takes the batch, the learning rate of each of the optimizer's groups, the
        number of the step (from 1 on) and what the optimizer remembers; and in an array of their own the parameters.
        Results are the loss, the new parameters, in the order of these, and what the optimizer remembers then. The
        header tells what is where; for the rest see `compile(f).lower(x).c`.

        dtype:  "float64" for double, "float32" for float; by default the Trainer's.

        Raises ValueError for a name that does not end in .c, and for a model that draws random numbers (Dropout).
        """
        from milligrad.compiler import compile
        from milligrad.compiler.c.step import step_of

        with self._turn, self._mode(training=True), enable_grad():
            step, state = step_of(self.model, self.loss_fn, self.optimizer, self.clip_grad_norm, self.clip_grad_value)
            rates = [0.0 for _ in self.optimizer.param_groups]
            lowered = compile(step, backend="python").lower(X, y, rates, 1.0, state)
            lowered.save_c(path, dtype=self.dtype if dtype is None else dtype, parameters="argument")

    def save(self, path: PathLike) -> None:
        """Write the model, the loss (if it is a module), the optimizer and the state of the last fit to a JSON file.

        An existing file is replaced in one step. `Module.load_state_dict` takes its "model".
        """
        import json

        state = {
            "format": FORMAT,
            "model": self.model.state_dict(),
            "loss_fn": self.loss_fn.state_dict() if isinstance(self.loss_fn, Module) else None,
            "optimizer": self.optimizer.state_dict(),
            "run": self._run and self._run.state_dict(),
        }
        replace(path, json.dumps(state))

    def load(self, path: PathLike) -> None:
        """Take the numbers of model, loss and optimizer from a file that `save` or `Checkpoint` wrote.

        To go on with the run itself, use `fit(…, resume=path)`. Raises ValueError if it is no such file or does not
        fit, and then changes nothing.
        """
        self._load(_read(path), lambda: None)

    def _resume(self, run: _Run, path: PathLike) -> None:
        saved = _read(path)
        self._load(saved, lambda: run.load_state_dict(saved["run"]))

    def _load(self, saved: dict[str, Any], more: Callable[[], None]) -> None:
        """Take the numbers, then do `more`. If anything fails, all is as it was."""
        before, groups = _Snapshot(self.optimizer, self._parameters()), self.optimizer.param_groups[:]
        resumed = self.optimizer.resumed
        try:
            expected.loaded(self.model.load_state_dict, saved["model"], "model")
            if isinstance(self.loss_fn, Module):
                loss = {} if saved["loss_fn"] is None else saved["loss_fn"]
                expected.loaded(self.loss_fn.load_state_dict, loss, "loss_fn")
            expected.loaded(self.optimizer.load_state_dict, saved["optimizer"], "optimizer")
            more()
        except BaseException:
            before.restore()
            self.optimizer.param_groups[:], self.optimizer.resumed = groups, resumed
            raise

    # What all of them need.

    def _forget_what_changed(self) -> None:
        """What was found out, or compiled, holds for the parts and options that it was made with, and while what it
        read of them is the same. Of numbers, modes and the optimizer's options each session takes care itself."""
        parts = (self.model, self.loss_fn, self.optimizer)
        options = (self.clip_grad_norm, self.clip_grad_value, self.backend, self.threads, self.dtype)
        known = self._made_with
        if known is None or known[1] != options or not all(x is y for x, y in zip(known[0], parts)):
            self._check_optimizer()
            self._made_with = parts, options
        elif self._reads.hold():
            return
        self._reads.clear()
        self._reads.add(self, "loss_fn", self.loss_fn)
        self._reads.add(self, "metric", self.metric)
        self._sessions.clear()
        self._outputs.clear()
        self._taken.clear()

    def _session(self, correct: Any = _any) -> Session:
        """The session that counts what is `correct`; if that does not matter, one of those that were made already."""
        if correct is _any:
            correct = next(iter(self._sessions), None)
        if correct not in self._sessions:
            self._sessions[correct] = self._new_session(correct)
            while len(self._sessions) > SESSIONS:
                del self._sessions[next(iter(self._sessions))]
        return self._sessions[correct]

    def _eager(self, correct: Metric | None) -> _EagerSession:
        return _EagerSession(
            self.model, self.loss_fn, self.optimizer, correct, self.clip_grad_norm, self.clip_grad_value
        )

    def _new_session(self, correct: Metric | None) -> Session:
        if self.backend == "eager":
            eager = self._eager(correct)
            eager.examine = self._examine_leaves
            return eager
        from milligrad.compiler.fit import CompiledSession  # type: ignore[import-not-found,unused-ignore]

        session: Any = CompiledSession(
            self.model, self.loss_fn, self.optimizer, correct, self.backend, self.threads, self.dtype,
            self.clip_grad_norm, self.clip_grad_value,
        )  # fmt: skip
        session.examine, session.reads = self._examine_leaves, self._reads
        return session  # type: ignore[no-any-return]

    @contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        """Model and loss in training or evaluation mode; afterwards each module in the mode it was in."""
        with self._turn:
            before = [(module, module.training) for root in self._modules() for module in root.modules()]
            for root in self._modules():
                root.train(training)
        try:
            yield
        finally:
            with self._turn:
                for module, mode in before:
                    module.training = mode

    def _examined(self, feed: _Feed, training: bool = False) -> Metric | None:
        """The metric for this data, once model and loss have been seen to take it, and the classes to be in range.

        For training, some parameter must learn.
        """
        self._forget_what_changed()
        if training and not any([v.requires_grad for v in _optimized(self.optimizer)]):
            raise ValueError("optimizer: expected a parameter that learns, got frozen ones only (requires_grad=False)")
        found: set[Metric | None] = set()
        for example in feed.examples():
            output = self._output(example, isinstance(feed, _Samples))
            classes = self._classes(output, example)
            for y, name in example.targets if classes else ():
                _check_classes(y, classes, getattr(self.loss_fn, "ignore_index", -100), name)
            found.add(self._accuracy(output, example, classes))
        if self.metric != "accuracy":
            return self.metric if callable(self.metric) else None
        return found.pop() if len(found) == 1 else None

    def _output(self, example: _Example, one_each: bool) -> Shape | None:
        """The shape of what the model makes of the example, None if it is ragged. Each shape of data is tried once.

        What can't be computed for its numbers is left to the session to find.
        """
        key = example.x_shape, example.y_shape
        if key not in self._outputs:
            with self._trying():
                prediction = self._prediction(example.xb, example.x_name)
                if one_each:
                    _check_one_each(prediction)
                output = _shape_or_none(prediction)
                if not self._classes(output, example):  # a loss of classes may refuse a batch for its classes alone
                    self._try_loss(prediction, example)
                self._outputs[key] = output
        return self._outputs.get(key)

    @contextmanager
    def _trying(self) -> Iterator[None]:
        """In evaluation mode, and what is read is noted down. Arithmetic that fails ends the block, and no more."""
        with self._turn, self._mode(training=False), recorded(self._reads):
            try:
                yield
            except (ValueError, ArithmeticError) as error:
                if not hasattr(error, "op"):
                    raise
        self._reads.forget("training", [module for root in self._modules() for module in root.modules()])

    def _prediction(self, xb: Nested, name: str) -> Nested:
        with no_grad(), _blaming(name, "the model does not take it"):
            return self.model(xb)

    def _try_loss(self, prediction: Nested, example: _Example) -> None:
        with no_grad(), _blaming(example.y_name, "the loss does not take it"):
            loss = self.loss_fn(prediction, example.yb)
        if is_list(loss):
            raise ValueError(f"loss_fn: expected one number for a batch, got a list of shape {shape(loss)}")
        if not isinstance(loss, Value):
            number(loss, "loss_fn")

    def _examine_leaves(self, leaves: Iterable[Value]) -> None:
        """A loss to be trained depends on these: one must learn by the optimizer, and somebody hold all that learn."""
        learning, known = {x for x in leaves if x.requires_grad}, {*_optimized(self.optimizer)}
        if learning.isdisjoint(known):
            raise ValueError(
                "loss_fn: expected a loss that depends on a parameter of the optimizer that learns, "
                "got one that depends on none"
            )
        hidden = learning - known
        if hidden and not self._warned and (hidden := hidden - {*self._parameters()}):
            self._warned = True
            warn(
                f"the loss depends on {count(len(hidden), 'learning Value')} that no Parameter of the model, the loss "
                "or the optimizer holds: nothing trains or saves them. Keep layers in a ModuleList or ModuleDict, and "
                "Values in a Parameter",
                UserWarning,
            )

    def _classes(self, output: Shape | None, example: _Example) -> int:
        """How many classes there are, if the loss is one of classes, and the targets are their numbers; else 0."""
        is_of_classes = isinstance(self.loss_fn, (CrossEntropyLoss, NLLLoss)) or self.loss_fn in CLASS_LOSSES
        if not is_of_classes or not output or output == example.y_shape:
            return 0
        at = 0 if len(output) == 1 else 1  # (C,) or (N, C, d…)
        expected = output[:at] + output[at + 1 :]
        if example.y_shape != expected:
            raise ValueError(
                f"{example.y_name}: expected class numbers of the shape {expected[at:]} beside predictions of the "
                f"shape {output[at:]}, got the shape {example.y_shape[at:]}"
            )
        return output[at]

    def _accuracy(self, output: Shape | None, example: _Example, classes: int) -> Metric | None:
        """What counts as right of these targets: see the docstring of the class."""
        batch = example.y_shape[:1]
        if output is None or output[: len(batch)] != batch:
            return None
        one, target = output[len(batch) :], example.y_shape[len(batch) :]
        if target == () and len(one) == 1 and (classes or (one[0] > 1 and _are_classes(example.targets, one[0]))):
            return _is_largest
        if classes or one not in ((), (1,)) or target not in ((), (1,)) or not _are_classes(example.targets, 2):
            return None
        return _is_positive if _takes_logits(self.loss_fn) else _is_probable


def _model(x: Any) -> Module:
    if not isinstance(x, Module):
        raise TypeError(f"model: expected a Module, got {_kind(x)}")
    return x


def _loss_fn(x: Any) -> Any:
    if not callable(x) or isinstance(x, type):
        raise TypeError(f"loss_fn: expected a function (predictions, targets) or a loss module, got {_kind(x)}")
    return x


def _optimizer(x: Any) -> Optimizer:
    if not isinstance(x, Optimizer):
        raise TypeError(f"optimizer: expected an Optimizer, got {_kind(x)}")
    return x


def _metric(x: Any) -> Any:
    if x is not None and x != "accuracy" and not callable(x):
        raise TypeError(f"metric: expected 'accuracy', None or a function (prediction, target), got {_kind(x)}")
    return x


def _takes_logits(loss_fn: Any) -> bool:
    return isinstance(loss_fn, BCEWithLogitsLoss) or loss_fn is F.binary_cross_entropy_with_logits


def _are_classes(targets: list[tuple[Nested, str]], classes: int) -> bool:
    """Whether all are whole numbers from 0 to classes - 1; of floats, 0.0 and 1.0 are, among two classes."""
    numbers = {t for y, _ in targets for t in flatten(y)}
    return numbers <= {*range(classes)} and (classes == 2 or all(isinstance(t, int) for t in numbers))


def _check_classes(y: Nested, classes: int, ignore_index: int, name: str) -> None:
    allowed = {*range(classes), ignore_index}
    if is_list(y) and {*map(type, y)} == {int} and allowed.issuperset(y):
        return
    for path, t in leaves(y, name):
        if not isinstance(t, int):
            raise TypeError(f"{path}: expected a class, a whole number from 0 to {classes - 1}, got {_kind(t)}")
        if t not in allowed:
            raise ValueError(f"{path}: expected a class from 0 to {classes - 1}, got {t}")


def _check_one_each(prediction: Nested) -> None:
    if not is_list(prediction) or len(prediction) != 1:
        raise ValueError(f"model: expected a list of one prediction for a batch of one sample, got {_kind(prediction)}")


def _shape_or_none(x: Nested) -> Shape | None:
    try:
        return shape(x)
    except ValueError:
        return None


def _predicted(session: Session, x: Sequence[Any], batch_size: int, first: int) -> list[Any]:
    """The predictions for the samples x, the first of which has that number. Raises FloatingPointError for NaN, inf."""
    predictions = session.predict(x, batch_size)
    if _is_flat(predictions) or all(map(_is_flat, predictions)):
        return predictions
    for i, prediction in enumerate(predictions, first):
        for path, p in leaves(prediction, f"X[{i}]: the prediction"):
            if not math.isfinite(p):
                raise FloatingPointError(f"{path} is {p}")
    return predictions


def _may_change_at_begin(callback: Callback) -> bool:
    return callback.changes and type(callback).on_fit_begin is not Callback.on_fit_begin


@contextmanager
def _named(where: str) -> Iterator[None]:
    """An error of arithmetic in the block is a FloatingPointError of that batch; another one is told where it was."""
    try:
        yield
    except Exception as error:
        if isinstance(error, FloatingPointError) or hasattr(error, "op"):
            raise FloatingPointError(f"{where}: {error}".removeprefix(": ")) from error
        if where:
            error.add_note(f"in {where}")
        raise


@contextmanager
def _blaming(name: str, what: str) -> Iterator[None]:
    """An error in the block is one of the data `name`."""
    try:
        yield
    except (TypeError, ValueError, IndexError) as error:
        if hasattr(error, "op"):
            raise
        kind = IndexError if isinstance(error, IndexError) else ValueError
        raise kind(f"{name}: {what}: {error}") from error


def _columns_of(metric: str, validated: bool) -> list[str]:
    """The columns of a history."""
    own = ["loss", metric] if metric else ["loss"]
    return ["epoch", *own, *[f"val_{name}" for name in own if validated], "lr", "seconds"]


class _Progress:
    """Shows how much of a run is done, in percent: a million quick steps cost no more than a few slow ones."""

    def __init__(self, samples: int) -> None:
        self._ticks = counted(range(100), "% trained")
        self._samples, self._done, self._shown = samples, 0, 0
        next(self._ticks)

    def advance(self, n: int) -> None:
        """So many samples more are done."""
        self._done += n
        while self._shown < 100 * self._done // self._samples:
            self._shown += 1
            next(self._ticks, None)

    def close(self) -> None:
        """Take away a bar that is not full."""
        getattr(self._ticks, "close", int)()


def _backend(name: str) -> str:
    """The backend that `name` means. Raises ImportError if it is not installed."""
    from importlib.util import find_spec

    if name not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(map(repr, BACKENDS))}, got {name!r:.60}")
    has_llvm = name in ("auto", "llvm") and find_spec("llvmlite") is not None
    if name == "llvm" and not has_llvm:
        raise ImportError(
            "backend: 'llvm' needs llvmlite, which is not installed: pip install 'milligrad-autodiff[native]'"
        )
    if name != "auto":
        return name
    taken = "llvm" if has_llvm else "python"
    if taken not in _announced:
        _announced.add(taken)
        hint = "" if has_llvm else "; for 'llvm': pip install 'milligrad-autodiff[native]'"
        print(f"milligrad: backend 'auto' takes {taken!r}{hint}", file=sys.stderr)
    return taken


def _dtype(dtype: str, backend: str) -> str:
    if dtype not in ("float64", "float32"):
        raise ValueError(f"dtype: expected 'float64' or 'float32', got {dtype!r:.60}")
    if dtype == "float32" and backend != "llvm":
        raise ValueError(f"dtype: expected 'float64' on the backend {backend!r}, got 'float32', which only 'llvm' has")
    return dtype


def _read(path: PathLike) -> dict[str, Any]:
    """What `Trainer.save` wrote to the file."""
    import json

    with open(path, encoding="utf-8") as file:
        try:
            saved = json.load(file)
        except (ValueError, RecursionError):  # of JSON, or of UTF-8
            saved = None
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise ValueError(f"{os.fspath(path)}: expected a file written by Trainer.save or Checkpoint, found another one")
    return expected.entries(saved, ["format", "model", "loss_fn", "optimizer", "run"], os.fspath(path))
