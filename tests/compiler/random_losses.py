"""Random losses of a batch, and random models: do the backends train them as the eager engine does?

    python tests/compiler/random_losses.py [--minutes 10] [--seed 0] [--backends python,llvm]

A loss is Python code, written by chance out of what losses are made of: terms of each sample, sums and means of them,
in slices, in pairs, weighted by position; the length of the batch in every arithmetic; parameters inside and outside;
functions, products and quotients of all that; parts without a gradient. So is a model: layers alone, a user's `forward`
that maps samples, one that mixes them or counts them. `failure` trains it by a Trainer on every backend, with batches
of several lengths, a smaller last one, and ready-made ones, between which options, numbers and what is frozen change,
then judges and predicts; it is "" if all numbers are the eager engine's, "refused" if there was a TraceError. The run
prints every program that fails, and exits with 1.
"""

from __future__ import annotations

import argparse
import builtins
import math
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from milligrad import SGD, Trainer, manual_seed, nn, no_grad, ops
from milligrad.engine import TraceError
from milligrad.nested import flatten

LENGTHS = (1, 2, 3, 4, 5, 7, 11)
SAMPLES = 11

# ── Writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Writer:
    """Expressions by chance. Each method is what stands in a certain place, and none is larger than about 10."""

    def __init__(self, r: random.Random) -> None:
        self.r = r

    def one(self, *choices):
        """One of the texts, or of the functions that write one; only the chosen one is called."""
        chosen = self.r.choice(choices)
        return chosen() if callable(chosen) else chosen

    def constant(self):
        return repr(round(self.r.uniform(0.2, 2.0), 2))

    def parameter(self):
        return f"w[{self.r.randrange(4)}]"

    def length(self):
        """A positive number that depends on n, or does not."""
        k = self.r.randrange(2, 13)
        return self.one(
            "n", "n", "n", "(1 / n)", "(n + 1)", "max(n - 1, 1)", "(n // 2 + 1)", f"min(n, {k})", f"(n % {k} + 1)",
            f"(2.0 if n > {k} else 0.5)", f"(2.0 if n == {self.one('1', '2', '4', '5')} else 1.0)", "math.sqrt(n)",
            "math.log(n + 1)", "(n * n)", f"(n / {self.constant()})", "len(t)", f"(n * {self.constant()})",
        )  # fmt: skip

    def of_sample(self, p="a", t="b"):
        """A number of one sample: of its prediction p and target t."""
        a = f"{p}[{self.r.randrange(2)}]"
        return self.one(
            f"({a} - {t}) ** 2", f"({p}[0] * {t} - {p}[1]) ** 2", f"abs({a})", f"tanh({a} * {self.parameter()})",
            f"softplus(-{t} * {a})", f"({a} - {t}) ** 2 * exp(-{self.parameter()}) + {self.parameter()}", a,
            f"where({t} > 0, {a} * {self.parameter()}, {p}[1] ** 2)", f"maximum({p}[0], {p}[1])",
            f"sum([z * z for z in {p}])", f"{a} * {self.parameter()} + {self.parameter()}", f"{t} * {t}",
            f"logsumexp({p}) - {a}", f"where(equal({t}, 1.0), {a} ** 2, 0.0)", self.parameter,
        )  # fmt: skip

    def samples(self):
        """Which samples: (the loop's head, whether it may be empty)."""
        k = self.r.randrange(1, 7)
        return self.one(
            *["for a, b in zip(p, t)"] * 9, f"for a, b in zip(p[:{k}], t)", "for a, b in zip(p[1:], t[1:])",
            "for a, b in zip(p[::2], t[::2])", f"for a, b in zip(p[-{k}:], t[-{k}:])", "for a, b in zip(p[::-1], t)",
            "for a, b in zip(p[: n // 2], t)", "for a, b in zip(p[::2], t[1::2])", f"for a, b in zip(p, t[:{k}])",
            "for a, b in [*zip(p, t)][::-1]",
        )  # fmt: skip

    def over_samples(self):
        """A number of all samples: a sum, a mean, the largest …"""
        terms = lambda: f"[{self.of_sample()} {self.samples()}]"  # noqa: E731
        pairs = self.one("", "", " if i < j", " if i != j", " if abs(i - j) == 1")
        return self.one(
            *[lambda: f"mean_of({terms()})"] * 4,
            lambda: f"sum({terms()}) / {self.length()}",
            lambda: f"builtins.sum({terms()}) / {self.length()}",
            lambda: f"builtins.sum({terms()}, {self.parameter()}) * {self.length()} / (n * n)",
            lambda: f"added({self.parameter()}, {terms()}) / {self.length()}",
            lambda: f"sum([({self.of_sample()}) / {self.length()} {self.samples()}])",
            lambda: f"dot([a[0] for a in p], [a[1] for a in p]) / {self.length()}",
            lambda: f"dot([a[0] for a in p], t) / {self.length()}",
            lambda: f"mean_of([i * ({self.of_sample()}) for i, (a, b) in enumerate(zip(p, t))])",
            lambda: f"mean_of([({self.of_sample()}) * (2.0 if i < {self.r.randrange(1, 6)} else 1.0)"
                    " for i, (a, b) in enumerate(zip(p, t))])",
            lambda: f"mean_of([maximum(0.0, 1.0 + p[i][0] - p[j][1]) for i in range(n) for j in range(n){pairs}])",
            lambda: f"mean_of([(x[0] - y[0]) ** 2 for x, y in zip({self.one('p[::2], p[1::2]', 'p, p[1:]')})])",
            lambda: f"max({terms()} or [0.0])", lambda: f"logsumexp({terms()} or [0.0])",
            lambda: f"mean_of([mean_of([{self.of_sample()} for a, b in zip(p, t) if b == c]) for c in CLASSES])",
            lambda: f"mean_of([sum([where(equal(b, c), {self.of_sample()}, 0.0) for a, b in zip(p, t)])"
                    " / (1 + sum([equal(b, c) for b in t])) for c in CLASSES])",
            lambda: "(lambda m: mean_of([(a[0] - m) ** 2 for a in p]))(mean_of([a[0] for a in p]))",
            lambda: f"sum([where(b > 0, {self.of_sample()}, 0.0) for a, b in zip(p, t)])"
                    " / (1.0 + sum([where(b > 0, 1.0, 0.0) for b in t]))",
            lambda: "p[-1][0] ** 2", lambda: "p[0][1]", lambda: "p[n // 2][0]", lambda: "min([a[0] for a in p])",
        )  # fmt: skip

    def regulariser(self):
        return self.one(
            "sum([v * v for v in w])", "0.1 * sum([v * v for v in weights])", "sum([abs(v) for v in weights]) / 8",
            f"exp(-{self.parameter()})", self.parameter, self.parameter, "w[0] * w[1]",
        )  # fmt: skip

    def scalar(self, depth):
        """A number of the batch."""
        if depth == 0:
            return self.one(*[self.over_samples] * 5, self.regulariser, self.constant, self.length)
        x, y = lambda: self.scalar(depth - 1), lambda: self.scalar(self.r.randrange(depth))
        return self.one(
            lambda: f"({x()} + {y()})", lambda: f"({x()} - {y()})", lambda: f"tanh({x()}) * ({y()})",
            lambda: f"({self.parameter()} + tanh({x()})) ** 2", lambda: f"({x()}) * {self.parameter()}",
            lambda: f"tanh({x()}) * exp(-{self.parameter()}) + {self.parameter()}", lambda: f"exp(tanh({x()}))",
            lambda: f"({x()}) / (1.0 + {self.parameter()} ** 2)", lambda: f"({x()}) / (1.0 + ({y()}) ** 2)",
            lambda: f"softplus({x()}) ** {self.one('2', '0.5', 'min(n, 3)', 'len(p)', self.parameter())}",
            lambda: f"{self.constant()} * ({x()}) + {self.constant()} * ({y()})",
            lambda: f"where({x()} > {y()}, {x()}, {y()})",
            lambda: f"maximum({x()}, {y()})", lambda: f"sum([{x()}, {y()}, {self.regulariser()}])",
            lambda: f"({x()}) * stopped(tanh({y()}))", lambda: f"({x()}) + unseen(lambda: {y()})",
            lambda: f"log(1.0 + ({x()}) ** 2)", lambda: f"({x()}) * {self.length()} / (n + 1)", x, x,
            lambda: f"{self.length()} ** tanh({x()})", lambda: f"mean_of([{x()}, {y()}])", lambda: f"-({x()})",
        )  # fmt: skip

    def model(self):
        """The body of `forward(self, xs)`; "" for layers alone."""
        k = self.r.randrange(1, 7)
        return self.one(
            "", "", "",
            "return [[tanh(z) for z in self.layer(x)] for x in xs]",
            "return self.layer(xs)",
            "return [[z * self.w[0] + self.w[1] for z in row] for row in self.layer(xs)]",
            "return [[dot(row, x) + self.w[i] for i, row in enumerate(self.layer.weight)] for x in xs]",
            f"return [[z * {self.length()} / (n + 1) for z in row] for row in self.layer(xs)]",
            "h = self.layer(xs); return h[: n // 2] + [[tanh(z) for z in row] for row in h[n // 2 :]]",
            f"h = self.layer(xs); return [row if i < {k} else [tanh(z) for z in row] for i, row in enumerate(h)]",
            "h = self.layer(xs); m = [mean(c) for c in zip(*h)]; return [[z - y for z, y in zip(x, m)] for x in h]",
            f"h = self.layer(xs); return h if n < {2 * k} else [[tanh(z) for z in row] for row in h]",
            "return self.layer(xs[::-1])[::-1]",
            "return self.layer(xs[-1:] + xs[:-1])",
        )  # fmt: skip


class Example:
    """A random program: the text of loss and model, data, and what to do with them."""

    def __init__(self, seed: int) -> None:
        r = self.r = random.Random(seed)
        writer = Writer(r)
        self.loss, self.model = writer.scalar(r.randrange(4)), writer.model().replace("len(t)", "n")
        self.batch_size, self.lengths = r.choice(LENGTHS), r.sample(LENGTHS, 2)
        self.x = [[r.gauss(0, 1), r.gauss(0, 1)] for _ in range(SAMPLES)]
        self.y = [float(r.choice((-1, 1, 0))) for _ in range(SAMPLES)]
        self.changes = r.choices(list(CHANGES), [8, 1, 1, 1, 1, 1, 1], k=4)  # most of them compile anew
        self.seed = seed

    def __str__(self) -> str:
        text = f"seed {self.seed}, batches of {self.batch_size}, then {self.lengths}, between: {self.changes}"
        return f"{text}\nmodel: {self.model or 'layers'}\nloss:  {self.loss}"

    def numbers(self, backend: str) -> list[float]:
        """Every loss, the parameters, what `evaluate` says and the predictions."""
        model, loss = self.made()
        trainer = Trainer(
            model,
            loss,
            SGD([*model.parameters(), *loss.parameters()], lr=0.01, momentum=0.5),
            backend=backend,
            metric=None,
        )
        history = trainer.fit(self.x, self.y, epochs=2, batch_size=self.batch_size, shuffle=False, progress=False)
        found = [*history.loss]
        for n, change in zip(self.lengths * 2, self.changes):
            found.append(trainer.step(self.x[:n], self.y[:n]))
            CHANGES[change](trainer.optimizer.param_groups[0], loss.w)
        for n in self.lengths:
            found.append(trainer.evaluate(self.x, self.y, batch_size=n).loss)
            found += flatten(trainer.predict(self.x, batch_size=n))
        return found + [v.data for m in (model, loss) for p in m.parameters() for v in p.values()]

    def made(self):
        """(model, loss) with parameters that depend on the seed alone."""
        manual_seed(self.seed)
        body = self.model
        names = {**vars(ops), **HELPERS}
        exec(f"def forward(self, xs):\n    n = len(xs)\n    {body or 'pass'}", names)
        exec(f"def loss(p, t, w, weights):\n    n = len(p)\n    return {self.loss}", names)

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(2, 2)
                self.w = nn.Parameter([0.9, 0.1])

            def forward(self, xs):
                return names["forward"](self, xs)

        class Loss(nn.Module):
            def __init__(self, weights) -> None:
                super().__init__()
                self.w = nn.Parameter([0.4, -0.3, 0.8, 0.2])
                self._weights = [weights]

            def forward(self, p, t):
                return names["loss"](p, t, self.w, self._weights[0])

        model = Model() if body else nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
        layer = model.layer if body else model[0]
        return model, Loss([v for row in layer.weight for v in row])


CHANGES = {  # between two steps, of the optimizer's group and the loss's parameters
    "nothing": lambda group, w: None,
    "rate": lambda group, w: group.update(lr=group["lr"] / 2),
    "rate 0": lambda group, w: group.update(lr=0.0),
    "momentum": lambda group, w: group.update(momentum=0.9 - group["momentum"]),
    "decay": lambda group, w: group.update(weight_decay=0.1),
    "number": lambda group, w: setattr(w[1], "data", 0.7 - w[1].data),
    "frozen": lambda group, w: setattr(w[0], "requires_grad", not w[0].requires_grad),
}


def _either(many, few):
    """The table's row for a list, Python's own function for numbers such as lengths."""
    return lambda *xs: many(*xs) if len(xs) == 1 else few(*xs)


def mean_of(xs):
    return ops.mean(xs) if xs else 0.0


def added(start, xs):
    for x in xs:
        start = start + x
    return start


def stopped(x):
    return x.detach() if hasattr(x, "detach") else x


def unseen(f):
    with no_grad():
        return f()


HELPERS = {f.__name__: f for f in (mean_of, added, stopped, unseen)} | {
    "builtins": builtins, "math": math, "max": _either(ops.max, max), "min": _either(ops.min, min),
    "CLASSES": (-1.0, 0.0, 1.0),
}  # fmt: skip

# ── Judging ──────────────────────────────────────────────────────────────────────────────────────────────────────


def failure(example: Example, backends: list[str]) -> str:
    """What is wrong: "" if nothing is, "refused" for a TraceError, "eager" if the eager engine takes it not."""
    try:
        expected = example.numbers("eager")
    except (ValueError, ArithmeticError, LookupError, RuntimeError, TypeError, AttributeError) as error:
        return f"eager: {error}"
    if not all(map(math.isfinite, expected)) or max(map(abs, expected)) > 1e6:
        return "eager: large numbers"
    for backend in backends:
        try:
            found = example.numbers(backend)
        except TraceError as error:
            return f"refused: {error}"
        except Exception as error:
            return f"FAILED: {backend} raises {type(error).__name__}: {error}"
        if len(found) != len(expected):
            return f"FAILED: {backend} gives {len(found)} numbers for {len(expected)}"
        off = [(i, x, y) for i, (x, y) in enumerate(zip(found, expected)) if not abs(x - y) <= 1e-9 * max(1.0, abs(y))]
        if off:
            return f"FAILED: {backend} number {off[0][0]} of {len(found)}: {off[0][1]!r} for {off[0][2]!r}"
    return ""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--minutes", type=float, default=1.0)
    options.add_argument("--seed", type=int, default=0, help="where to start")
    options.add_argument("--backends", default="python,llvm")
    given = options.parse_args()
    stop, seed, count = (
        time.monotonic() + 60 * given.minutes,
        given.seed,
        {"": 0, "eager": 0, "refused": 0, "FAILED": 0},
    )
    while time.monotonic() < stop:
        example = Example(seed)
        verdict = failure(example, given.backends.split(","))
        count[verdict.partition(":")[0]] += 1
        if verdict.startswith("FAILED"):
            print(f"{verdict}\n{example}\n", flush=True)
        seed += 1
    print(
        f"seeds {given.seed} to {seed - 1}: {count['']} alike, {count['refused']} refused, "
        f"{count['eager']} that the eager engine refuses, {count['FAILED']} failed"
    )
    return 1 if count["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
