"""From a function of a batch to a loop over samples, by proof.

A function is traced on a batch of two samples and on one of three. Each node of the two graphs belongs to one sample,
to none, or to several. Where a node that belongs to several adds up one term of each sample, and these terms are the
same graph but for the sample's own inputs, it is a sum over samples, whatever their number; and a constant that is 2
in one graph and 3 in the other (or 1/2 and 1/3) is the number of samples n (or 1/n). If everything that belongs to
several samples is made of such sums, the function of any batch is known from that of one sample. If not (a batch
normalization), `NotSeparable` is raised, and the batch has to be traced whole.

    mask   of a node: bit s is set if it depends on the sample s
    form   a number for each node, equal for nodes that are equal but for the sample that they belong to
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from milligrad import ops
from milligrad.compiler.trace import Symbol, Trace, inputs_of, total
from milligrad.engine import Value, adjoints, partials_as_values, product

ADDITIVE = (ops.add, ops.sum, ops.dot, ops.chain)


class NotSeparable(Exception):
    """A function of a batch is no sum over its samples."""


class Batch:
    """A trace of a function of `n` samples.

    samples:  the input Symbols of each sample
    draws:    the random numbers of each sample, by the sample and position in the order of drawing: (sample, k)
    """

    def __init__(self, trace: Trace, samples: Sequence[Sequence[Symbol]], forms: dict[Any, int]) -> None:
        self.trace, self.n = trace, len(samples)
        self._forms = forms
        self.separated: dict[tuple[int, int], Any] = {}  # what `separated` found for a pair of nodes used twice
        self.mask: list[int] = []
        self.form: list[int] = []
        self._inputs = {x: (s, k) for s, xs in enumerate(samples) for k, x in enumerate(xs)}
        self._assign_draws()
        self.mask_of(None)

    def mask_of(self, x: Any) -> int:
        """The mask of x: a Symbol, or a number or Value, which belong to none."""
        mask = self.mask
        for z in self.trace.tape[len(mask) :]:
            if z.op is None:
                s, _ = self._inputs.get(z, (None, None))
                mask.append(0 if s is None else 1 << s)
            else:
                m = 0
                for y in inputs_of(z):
                    if type(y) is Symbol:
                        m |= mask[y.number]
                mask.append(0 if z.op is total else m)
        return mask[x.number] if type(x) is Symbol else 0

    def form_of(self, x: Any) -> int:
        """The form of x."""
        form = self.form
        for z in self.trace.tape[len(form) :]:
            if z.op is None:
                s, k = self._inputs.get(z, (None, None))
                form.append(self._form(("input", k) if s is not None else z))
            else:
                xs = [form[y.number] if type(y) is Symbol else self._form(y) for y in inputs_of(z)]
                form.append(self._form((z.op, *xs)))
        return form[x.number] if type(x) is Symbol else self._form(x)

    def _form(self, key: Any) -> int:
        if type(key) is float:
            key = repr(key)
        return self._forms.setdefault(key, len(self._forms))

    def _assign_draws(self) -> None:
        """Find out to which sample each random number belongs: the one whose numbers it is combined with."""
        self.draws: list[tuple[int, int]] = []
        if not self.trace.random:
            return
        mask: list[int] = []
        roots: list[set[Symbol]] = []  # the random numbers behind a node that belongs to no sample yet
        owner: dict[Symbol, int] = {}
        for z in self.trace.tape:
            if z.op is None:
                s, _ = self._inputs.get(z, (None, None))
                mask.append(0 if s is None else 1 << s)
                roots.append({z} if s is None else set())
                continue
            m: int = 0
            r: set[Symbol] = set()
            for x in inputs_of(z):
                if type(x) is Symbol:
                    m |= mask[x.number]
                    r |= roots[x.number]
            if m:
                for x in r:
                    owner[x] = owner.get(x, 0) | m
            mask.append(m)
            roots.append(set() if m else r)
        count = [0] * self.n
        for x in self.trace.random:
            s = owner.get(x, 0).bit_length() - 1
            if s < 0 or owner[x] != 1 << s:
                raise NotSeparable("a random number belongs to no one sample")
            self.draws.append((s, count[s]))
            self._inputs[x] = (s, -1 - count[s])
            count[s] += 1


def separated(two: Batch, three: Batch, z2: Any, z3: Any, n: Symbol) -> Any:
    """The number z of a batch, traced for two and three samples, as a Symbol of the trace `two` for n of them.

    Sums over samples are nodes of the op `total` of the first sample's terms.
    """
    if type(z2) is not Symbol and type(z3) is not Symbol:
        return _constant(z2, z3, n)
    if type(z2) is not Symbol or type(z3) is not Symbol:
        raise NotSeparable("a node that depends on the batch's length")
    if not two.mask_of(z2) and not three.mask_of(z3) and two.form_of(z2) == three.form_of(z3):
        return z2
    pair = z2.number, z3.number
    if pair not in two.separated:
        two.separated[pair] = _separated(two, three, z2, z3, n)
    return two.separated[pair]


def _separated(two: Batch, three: Batch, z2: Symbol, z3: Symbol, n: Symbol) -> Any:
    if z2.op in ADDITIVE and z3.op in ADDITIVE:
        return _sum(two, three, z2, z3, n)
    x2, x3 = inputs_of(z2), inputs_of(z3)
    if z2.op is not z3.op or z2.op is None or len(x2) != len(x3):
        raise NotSeparable("a node that is no sum over samples")
    return z2.record(z2.op, tuple([separated(two, three, a, b, n) for a, b in zip(x2, x3)]))


def same(two: Batch, values: Sequence[Any]) -> Any:
    """The value of the first sample, of values of two samples that are the same function of each sample alone."""
    a, b = values
    if two.mask_of(a) & ~1 or two.mask_of(b) & ~2 or two.form_of(a) != two.form_of(b):
        raise NotSeparable("the result for one sample depends on others")
    return a


def _constant(x2: Any, x3: Any, n: Symbol) -> Any:
    if x2 is x3 or (type(x2) is float and x2 == x3):
        return x2
    if type(x2) is float and type(x3) is float:
        if x2 * 3 == x3 * 2:
            return n * (x2 / 2)
        if abs(x2 * 2 - x3 * 3) <= 1e-15 * abs(x2):
            return (x2 * 2) / n
    raise NotSeparable("a constant that depends on the batch's length")


def _sum(two: Batch, three: Batch, z2: Symbol, z3: Symbol, n: Symbol) -> Any:
    """A sum: the terms of one sample over all samples, and the terms that belong to none or to several."""
    own2, rest2 = _terms(two, z2)
    own3, rest3 = _terms(three, z3)
    forms = {tuple([(two.form_of(x), two.form_of(y)) for x, y in terms]) for terms in own2}
    forms |= {tuple([(three.form_of(x), three.form_of(y)) for x, y in terms]) for terms in own3}
    if len(forms) > 1 or len(rest2) != len(rest3):
        raise NotSeparable("a sum with other terms for one sample than for another")
    result: Any = 0.0
    if own2[0]:
        xs, ys = zip(*own2[0])
        result = z2.record(total, (*xs, *ys))
    for (a, b), (c, d) in zip(rest2, rest3):
        if a is z2 or c is z3:
            raise NotSeparable("a sum over samples of nothing")
        result = result + separated(two, three, a, c, n) * separated(two, three, b, d, n)
    return result


def _terms(batch: Batch, z: Symbol) -> tuple[list[list[tuple[Any, Any]]], list[tuple[Any, Any]]]:
    """The terms (factor, factor) of a sum that belong to each sample, and the others."""
    own: list[list[tuple[Any, Any]]] = [[] for _ in range(batch.n)]
    rest: list[tuple[Any, Any]] = []
    stack: list[tuple[Any, Any]] = [(z, 1.0)]
    while stack:
        x, y = stack.pop()
        mask = batch.mask_of(x) | batch.mask_of(y)
        if mask and not mask & (mask - 1):
            own[mask.bit_length() - 1].append((_without_zero(x), y))
        elif mask and type(y) is float and y == 1.0 and x.op in ADDITIVE:
            xs = inputs_of(x)
            ones = [1.0] * len(xs)
            pairs = (
                list(zip(xs[: len(xs) // 2], xs[len(xs) // 2 :]))
                if x.op in (ops.dot, ops.chain)
                else list(zip(xs, ones))
            )
            stack += reversed(pairs)
        else:
            rest.append((x, y))
    return own, rest


def _without_zero(x: Any) -> Any:
    """x of 0 + x, which is how Python's `sum` starts."""
    if type(x) is Symbol and x.op is ops.add and type(x.x) is float and x.x == 0.0:
        return x.y
    return x


def gradients(loss: Any, wrt: Sequence[Value], varies: Callable[[Any], bool]) -> list[Any]:
    """∂loss/∂x for each x: what flows from the samples to something that they share is added up over them there."""
    if not isinstance(loss, Value) or not loss.requires_grad:
        return [0.0] * len(wrt)

    each: set[int] = set()  # the numbers of adjoints of one sample that are the same for all samples

    def collected(x: Value, gs: list[Any], ds: list[Any]) -> Any:
        if varies(x):
            g: Any = _products(gs, ds)
            if not varies(g):  # and yet, what x and something shared add up to passes it on once for each sample
                g = x.record(ops.identity, (g,))
                each.add(g.number)
            return g
        if len(gs) == 1 and not (varies(gs[0]) or varies(ds[0]) or each):
            return _products(gs, ds)
        own = [varies(g) or varies(d) or (type(g) is Symbol and g.number in each) for g, d in zip(gs, ds)]
        if not any(own):
            return _products(gs, ds)
        mine = [g for g, o in zip(gs, own) if o], [d for d, o in zip(ds, own) if o]
        symbol = next(z for z in (*mine[0], *mine[1]) if type(z) is Symbol)
        over_samples = symbol.record(total, (*mine[0], *mine[1]))
        others = [g for g, o in zip(gs, own) if not o], [d for d, o in zip(ds, own) if not o]
        return over_samples + _products(*others) if others[0] else over_samples

    adjoint = adjoints([(loss, 1.0)], partials_as_values, collected)
    return [adjoint.get(x, 0.0) for x in wrt]


def _products(gs: list[Any], ds: list[Any]) -> Any:
    if len(gs) == 1:
        return product(gs[0], ds[0])
    return ops.chain(gs, ds)
