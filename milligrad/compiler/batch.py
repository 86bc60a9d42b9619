"""Batches of a model and a loss: traced for a few samples, and what a loss is for any number of them, by proof.

A loss is traced for two samples and for three. If both are one formula of sums over samples (passes/separate.py), it is
that of a batch of any length for which the trace gives this formula again. `Separated` has the proofs, and what is to
be compiled then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from milligrad.compiler import kept
from milligrad.compiler.passes.separate import Batch, NotSeparable, gradients, same, separated
from milligrad.compiler.pipeline import Clock, collector_paused
from milligrad.compiler.structure import NUMBER, Structure, nested, size, structure
from milligrad.compiler.trace import COMPARISONS, Symbol, Trace, captured, inputs_of, total
from milligrad.engine import Value, enable_grad
from milligrad.nested import is_list

if TYPE_CHECKING:
    from milligrad.compiler.fit import CompiledSession

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

    def traced(self, n: int, given: Traced | None = None) -> Traced:
        """A batch of n. With `given`, another batch, its predictions are the inputs: it is the loss alone."""
        try:
            return self._traced(n, given)
        except NotSeparable:
            raise
        except Exception as error:  # the user's own, which may be about a length that never comes
            reason = f"a batch of {n} raises {type(error).__name__}: {error}"
        raise NotSeparable(reason)  # out here, without the error, whose traceback would keep the trace alive

    def _traced(self, n: int, given: Traced | None) -> Traced:
        session, trace = self.session, Trace()
        sx = given.nesting or NUMBER if given else self.sx
        xs = [trace.input(f"x{s}", size(sx)) for s in range(n)]
        ys = [trace.input(f"y{s}", size(self.sy) if self.sy else 0) for s in range(n)]
        loss, right = None, []
        with trace.running():
            prediction = [nested(sx, iter(x)) for x in xs]
            if given:
                for x in xs:
                    for number, known in zip(x, given.predictions[0]):
                        number.requires_grad = known.requires_grad
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
        batch = Batch(trace, [[*x, *y] for x, y in zip(xs, ys)], self.forms, self._forms_of(given) if given else None)
        if batch.draws != _drawing_order(_blocks(batch.draws), n):
            raise NotSeparable("random numbers that are not drawn in the order of the samples")
        return Traced(batch, predictions, nesting, loss, right, mark)

    def _forms_of(self, given: Traced) -> list[int]:
        """The forms that the numbers of a prediction, and then what is to be predicted, have in that batch."""
        batch, start, count = given.batch, size(self.sx), size(self.sy) if self.sy else 0
        return [*map(batch.form_of, given.predictions[0]), *map(batch.form_of_input, range(start, start + count))]

    def most(self, two: Traced) -> int:
        """For how many samples the model is asked at most; 0 if it consists of layers that are known to map samples."""
        try:
            numbers = two.each()
        except NotSeparable:
            return sys.maxsize  # there are no predictions that could be given to the loss alone
        if self.sy and any([two.batch.owner_of(x) != 0 for x in numbers]):
            return sys.maxsize  # nor are numbers that are known
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
            alone = self.most < sys.maxsize  # the loss is: what the model makes of three is asked with that of n
            self.formula = Formula(two, self.samples.traced(3, two if alone else None))
        self.proved = {0, 2} if alone else {0, 2, 3}
        self.batch, self.trace = two.batch, two.batch.trace
        self.x, self.y = self.trace.inputs["x0"], self.trace.inputs["y0"]
        self.random = [x for x, (s, _) in zip(self.trace.random, self.batch.draws) if s == 0]
        self.draws = _blocks(self.batch.draws)

    def _leaves(self, two: Traced) -> list[Value]:
        """The Values that the loss depends on. To find them takes as long as the rest of what is done with a trace."""
        seen = self.samples.seen
        numbers = kept.once(
            kept.key("leaves", "", two.mark), lambda: [seen[v] for v in leaves_of(two.batch.trace.tape, two.loss)]
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
                    outputs += gradients(loss, wrt, self.batch.varies)
        return outputs

    def prove(self, n: int) -> bool:
        """Raise NotSeparable if a batch of n is another function: by its trace, or by that of its loss alone."""
        with collector_paused(), self.clock("trace"), enable_grad():
            samples, two, whole = self.samples, self.formula.two, min(n, self.most)
            if whole not in self.proved:
                self.formula.check(samples.traced(whole))
                self.proved.add(whole)
            if whole < n and n not in (2, 3):
                self.formula.check(samples.traced(n, two))
        return True

    def key(self, *more: Any) -> str:
        """The key of code for it, on the session's backend, which depends on the formula and on `more`."""
        return self.session.key("samples", self.samples.seen, self.formula.two.mark, self.formula.three.mark, *more)


class Prediction:
    """What a model predicts of a sample, whatever the others are."""

    def __init__(self, session: CompiledSession, sx: Structure) -> None:
        self.samples = Samples(session, sx, None)
        self.two = two = self.samples.traced(2)
        self.trace, self.numbers, self.most = two.batch.trace, two.each(), self.samples.most(two)
        self.nesting, self.proved = two.nesting or NUMBER, {0, 2}
        if self.trace.random:
            raise NotSeparable("a prediction that draws random numbers, batch by batch")

    def prove(self, n: int) -> bool:
        """Raise NotSeparable if a sample among n is predicted otherwise than one of two."""
        whole = min(n, self.most)
        if whole not in self.proved:
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


def leaves_of(tape: Any, loss: Any) -> list[Value]:
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
