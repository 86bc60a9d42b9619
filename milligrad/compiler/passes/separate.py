"""From a function of a batch to a loop over samples, by proof.

A function is traced on a batch of two samples and on one of another length. Each node of the two graphs belongs to one
sample, to none, or to several. Where a node that belongs to several adds up one term of each sample, and these terms
are the same graph but for the sample's own inputs, it is a sum over samples; and a constant c that is the same in both
graphs is c, one that is as many times larger as the batch is, is c·n, one that is as many times smaller, c/n, for n
samples. If everything that belongs to several samples is made of such sums, both batches are known from one formula of
one sample and n. If not (a batch normalization), `NotSeparable` is raised, and the batch has to be traced whole.

Nothing is concluded for a third length: the formula holds for n samples if it is the one found from two and n.

    owner  of a node: the number of the sample that it belongs to, NONE or SEVERAL
    form   a number for each node, equal for nodes that are equal but for the sample that they belong to
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from milligrad import ops
from milligrad.compiler.trace import Symbol, Trace, inputs_of, total
from milligrad.engine import MANY, Value, adjoints, partials_as_values, sum_of_products

PAIRED = (ops.dot, ops.chain)  # sums of products, whose inputs are all x, then all y
ADDITIVE = (ops.add, ops.sum, *PAIRED)
NONE, SEVERAL = -1, -2  # the owners that are no samples
OF_TWO = {ops.power: ops.pow, ops.exponential: ops.pow}  # what a row for a constant is if it depends on n


class NotSeparable(Exception):
    """A function of a batch is no sum over its samples."""


class Batch:
    """A trace of a function of `n` samples.

    samples:  the input Symbols of each sample
    draws:    the random numbers of each sample, by the sample and position in the order of drawing: (sample, k)
    given:    what the inputs of each sample are in another batch, if they were computed there: their forms
    """

    def __init__(
        self,
        trace: Trace,
        samples: Sequence[Sequence[Symbol]],
        forms: dict[Any, int],
        given: Sequence[int] | None = None,
    ) -> None:
        self.trace, self.n = trace, len(samples)
        self._forms, self._given = forms, given
        self.separated: dict[tuple[int, int], Any] = {}  # what `separated` found for a node of two samples and one of n
        self.owner: list[int] = []
        self.form: list[int] = []
        self._inputs = {x: (s, k) for s, xs in enumerate(samples) for k, x in enumerate(xs)}
        self._assign_draws()

    def owner_of(self, x: Any) -> int:
        """The owner of x: a Symbol, or a number or Value, which belong to none."""
        owner = self.owner
        if type(x) is Symbol and x.number < len(owner):
            return owner[x.number]
        for z in self.trace.tape[len(owner) :]:
            if z.op is None:
                s, _ = self._inputs.get(z, (NONE, None))
                owner.append(s)
            else:
                found = NONE
                for y in z.x if z.y is MANY else (z.x, z.y):
                    if type(y) is Symbol and (s := owner[y.number]) != found and s != NONE:
                        found = s if found == NONE else SEVERAL
                owner.append(NONE if z.op is total else found)
        return owner[x.number] if type(x) is Symbol else NONE

    def varies(self, x: Any) -> bool:
        """Whether x belongs to samples."""
        if type(x) is not Symbol:
            return False
        known = x.number < len(self.owner)
        return (self.owner[x.number] if known else self.owner_of(x)) != NONE

    def form_of(self, x: Any) -> int:
        """The form of x."""
        form, known = self.form, self._forms
        for z in self.trace.tape[len(form) :]:
            if z.op is None:
                _, k = self._inputs.get(z, (NONE, None))
                form.append(self._form(z) if k is None else self.form_of_input(k))
            else:
                xs = [
                    form[y.number]
                    if type(y) is Symbol
                    else known[y]
                    if type(y) is Value and y in known
                    else self._form(y)
                    for y in inputs_of(z)
                ]
                form.append(self._form((z.op, z.requires_grad, *xs)))
        return form[x.number] if type(x) is Symbol else self._form(x)

    def form_of_input(self, k: int) -> int:
        """The form of the input number k of a sample, or of its random number -1 - k."""
        return self._given[k] if self._given and k >= 0 else self._form(("input", k))

    def _form(self, key: Any) -> int:
        if type(key) is float:
            key = repr(key)
        return self._forms.setdefault(key, len(self._forms))

    def _assign_draws(self) -> None:
        """Find out to which sample each random number belongs: the one whose numbers it is combined with."""
        self.draws: list[tuple[int, int]] = []
        if not self.trace.random:
            return
        owners: list[int] = []
        roots: list[set[Symbol]] = []  # the random numbers behind a node that belongs to no sample yet
        found: dict[Symbol, int] = {}  # the owner of each random number
        for z in self.trace.tape:
            if z.op is None:
                s, _ = self._inputs.get(z, (NONE, None))
                r = {z} if s == NONE else set()
            else:
                s = _joined([owners[y.number] for y in _symbols(z)])
                r = set().union(*[roots[y.number] for y in _symbols(z)])
                if s != NONE:
                    found.update((x, _joined([found.get(x, NONE), s])) for x in r)
                    r = set()
            owners.append(s)
            roots.append(r)
        count = [0] * self.n
        for x in self.trace.random:
            s = found.get(x, NONE)
            if s < 0:
                raise NotSeparable("a random number belongs to no one sample")
            self.draws.append((s, count[s]))
            self._inputs[x] = (s, -1 - count[s])
            count[s] += 1


def _symbols(z: Symbol) -> list[Symbol]:
    return [x for x in inputs_of(z) if type(x) is Symbol]


def _joined(owners: Iterable[int]) -> int:
    """The owner of what belongs to all of these."""
    of_samples = {s for s in owners if s != NONE}
    return of_samples.pop() if len(of_samples) == 1 else SEVERAL if of_samples else NONE


def separated(two: Batch, many: Batch, z2: Any, z: Any, n: Symbol) -> Any:
    """The number z of a batch of n, as a Symbol of the trace `two`, from its traces z2 for two samples and z for many.

    Sums over samples are nodes of the op `total` of the first sample's terms. The trace `two` has to be running.
    """
    if type(z2) is not Symbol and type(z) is not Symbol:
        return _constant(z2, z, many.n, n)
    if type(z2) is not Symbol or type(z) is not Symbol:
        raise NotSeparable("a node that depends on the batch's length")
    if two.owner_of(z2) == many.owner_of(z) == NONE and two.form_of(z2) == many.form_of(z):
        return z2
    pair = z2.number, z.number
    if pair not in many.separated:
        many.separated[pair] = found = _separated(two, many, z2, z, n)
        found.requires_grad = z2.requires_grad  # which may end here, by `detach` or `no_grad`
    return many.separated[pair]


def _separated(two: Batch, many: Batch, z2: Symbol, z: Symbol, n: Symbol) -> Symbol:
    if z2.requires_grad is not z.requires_grad:
        raise NotSeparable("a node with a gradient for some lengths of the batch")
    if z2.op in ADDITIVE and z.op in ADDITIVE:
        return _sum(two, many, z2, z, n)
    x2, x = inputs_of(z2), inputs_of(z)
    if z2.op is not z.op or z2.op is None or len(x2) != len(x):
        raise NotSeparable("a node that is no sum over samples")
    inputs = tuple([separated(two, many, a, b, n) for a, b in zip(x2, x)])
    depends = any([type(a) is float and type(b) is not float for a, b in zip(x2, inputs)])
    return z2.record(OF_TWO.get(z2.op, z2.op) if depends else z2.op, inputs)


def same(batch: Batch, values: Sequence[Any]) -> Any:
    """The first of values, one of each sample, that are the same function of each sample alone."""
    if len(values) != batch.n or any([batch.owner_of(x) not in (s, NONE) for s, x in enumerate(values)]):
        raise NotSeparable("the result for one sample depends on others")
    if len({batch.form_of(x) for x in values}) > 1:
        raise NotSeparable("the result for one sample is not that for another")
    return values[0]


def _constant(x2: Any, x: Any, length: int, n: Symbol) -> Any:
    if x2 is x or (type(x2) is float and x2 == x):
        return x2
    if type(x2) is float and type(x) is float:
        if abs(x2 * length - x * 2) <= 1e-15 * abs(x * 2):
            return n * (x2 / 2)
        if abs(x2 * 2 - x * length) <= 1e-15 * abs(x2 * 2):
            return (x2 * 2) / n
    raise NotSeparable("a constant that depends on the batch's length")


def _sum(two: Batch, many: Batch, z2: Symbol, z: Symbol, n: Symbol) -> Symbol:
    """A sum: the terms of one sample over all samples, and the terms that belong to none or to several."""
    own2, rest2 = _terms(two, z2)
    wanted = _forms(two, own2[-1])  # what stands before the first sample's may have become part of it
    if _forms(two, own2[0]) != wanted:
        own2, rest2 = _terms(two, z2, wanted)
    own, rest = _terms(many, z, wanted)
    if any([_forms(two, terms) != wanted for terms in own2]) or any([_forms(many, terms) != wanted for terms in own]):
        raise NotSeparable("a sum with other terms for one sample than for another")
    if len(rest2) != len(rest):
        raise NotSeparable("a sum with other terms for one length of the batch than for another")
    result: Any = 0.0
    if wanted:
        xs, ys = zip(*own2[0])
        result = z2.record(total, (*xs, *ys))
    for (a, b), (c, d) in zip(rest2, rest):
        if a is z2 or c is z:
            raise NotSeparable("a sum over samples of nothing")
        result = result + separated(two, many, a, c, n) * separated(two, many, b, d, n)
    return result if type(result) is Symbol else z2.record(ops.identity, (result,))


Terms = list[tuple[Any, Any]]  # (factor, factor), …


def _forms(batch: Batch, terms: Terms) -> list[tuple[int, int]]:
    return [(batch.form_of(x), batch.form_of(y)) for x, y in terms]


def _terms(batch: Batch, z: Symbol, wanted: list[tuple[int, int]] | None = None) -> tuple[list[Terms], Terms]:
    """The terms of a sum that belong to each sample, and the others.

    Sums within the sum are taken apart, those of one sample only if their forms are not `wanted`: the only sample of
    a batch of one has everything.
    """
    own: list[Terms] = [[] for _ in range(batch.n)]
    rest: Terms = []
    stack: Terms = [(z, 1.0)]
    known = None if wanted is None else set(wanted)
    while stack:
        x, y = stack.pop()
        s = _joined([batch.owner_of(x), batch.owner_of(y)])
        if s >= 0 and (known is None or (batch.form_of(x), batch.form_of(y)) in known):
            own[s].append((x, y))
        elif s != NONE and type(y) is float and y == 1.0 and x.op in ADDITIVE and (x is z or not _is_cut(x)):
            stack += reversed(_pairs(x))
        elif not (type(x) is type(y) is float and x == 0.0):  # which is how Python's `sum` starts
            rest.append((x, y))
    return own, rest


def _pairs(z: Symbol) -> Terms:
    """The terms that a sum adds up itself."""
    xs = inputs_of(z)
    if z.op in PAIRED:
        return list(zip(xs[: len(xs) // 2], xs[len(xs) // 2 :]))
    return [(x, 1.0) for x in xs]


def _is_cut(z: Symbol) -> bool:
    """Whether no gradient goes through z, though its inputs have one: it was computed in `no_grad`."""
    return not z.requires_grad and any([type(x) is not float and x.requires_grad for x in inputs_of(z)])


def gradients(loss: Any, wrt: Sequence[Value], varies: Callable[[Any], bool]) -> list[Any]:
    """∂loss/∂x for each x: what flows from the samples to something that they share is added up over them there."""
    if not isinstance(loss, Value) or not loss.requires_grad:
        return [0.0] * len(wrt)

    if type(loss) is Symbol:
        loss.tape.forward = len(loss.tape)
    each: set[int] = set()  # the numbers of adjoints of one sample that are the same for all samples

    def collected(x: Value, gs: list[Any], ds: list[Any]) -> Any:
        if varies(x):
            g: Any = sum_of_products(gs, ds)
            if not varies(g):  # and yet, what x and something shared add up to passes it on once for each sample
                g = x.record(ops.identity, (g,))
                each.add(g.number)
            return g
        if len(gs) == 1 and not (varies(gs[0]) or varies(ds[0]) or each):
            return sum_of_products(gs, ds)
        own = [varies(g) or varies(d) or (type(g) is Symbol and g.number in each) for g, d in zip(gs, ds)]
        if not any(own):
            return sum_of_products(gs, ds)
        mine = [g for g, o in zip(gs, own) if o], [d for d, o in zip(ds, own) if o]
        symbol = next(z for z in (*mine[0], *mine[1]) if type(z) is Symbol)
        over_samples = symbol.record(total, (*mine[0], *mine[1]))
        others = [g for g, o in zip(gs, own) if not o], [d for d, o in zip(ds, own) if not o]
        return over_samples + sum_of_products(*others) if others[0] else over_samples

    adjoint = adjoints([(loss, 1.0)], partials_as_values, collected)
    return [adjoint.get(x, 0.0) for x in wrt]
