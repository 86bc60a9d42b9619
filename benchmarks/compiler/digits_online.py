"""Digits, one at a time: a 64-32-10 network by `Trainer` against C and Python written by hand, PyTorch and micrograd.

The network has relu and cross entropy, and learns by SGD with momentum in whole epochs over the bundled digits, in
their own order, at batch 1 in float64. Each contender gets the samples in the form that suits it, and all of them must
reach the same parameters before anything is timed. C (digits_online.c), Python by hand and milligrad also add up losses
and right answers; PyTorch and micrograd, which would take longer for it, do not. micrograd runs in a process of its
own: its graphs are cycles, and the garbage collector takes the longer over them the more is loaded.

Needs gcc, and `pip install llvmlite==0.50.0 torch==2.13.0 micrograd==0.1.0`.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import statistics
import sys
from array import array
from collections.abc import Callable, Sequence
from operator import mul
from typing import Any

from contest import (
    Contender,
    Goal,
    Worker,
    agree,
    buffer,
    chosen,
    compiler_version,
    library,
    machine,
    parser,
    peer,
    report,
    seconds,
    serve,
    show,
    take_turns,
    torch_on_one_thread,
)

from milligrad import SGD, CrossEntropyLoss, Linear, ReLU, Sequential, manual_seed
from milligrad.data import load_digits

I, H, O = 64, 32, 10  # noqa: E741  # inputs, hidden, outputs
LR, MOMENTUM = 0.005, 0.9
FEW = 8  # steps of micrograd in a round, and to check it

XS, YS = (list(column) for column in zip(*load_digits()))
N = len(XS)
ORDER = range(N)


def our_model() -> Sequential:
    manual_seed(0)
    return Sequential(Linear(I, H), ReLU(), Linear(H, O))


def numbers(model: Sequential) -> list[float]:
    return [p.data for parameter in model.parameters() for p in parameter.values()]


START = numbers(our_model())


class Milligrad:
    """The Trainer. `shuffle=True` has it draw a new order for each epoch, as one would."""

    def __init__(self, backend: str, shuffle: bool = False) -> None:
        from milligrad import Trainer

        self.model, self.shuffle = our_model(), shuffle
        optimizer = SGD(self.model.parameters(), lr=LR, momentum=MOMENTUM)
        self.trainer = Trainer(self.model, CrossEntropyLoss(), optimizer, backend=backend)

    def train(self, epochs: int) -> None:
        self.trainer.fit(XS, YS, epochs=epochs, batch_size=1, shuffle=self.shuffle, seed=0, progress=False)

    def parameters(self) -> list[float]:
        return numbers(self.model)


def placed(numbers: Sequence[float]) -> Any:
    """A buffer of these where ours would lie, too: where parameters and momenta lie in a page tells in both."""
    from milligrad.compiler.llvm.native import buffer

    found = buffer(len(numbers))
    found[:] = array("d", numbers)
    return found


class C:
    """The loops of digits_online.c."""

    def __init__(self) -> None:
        self._epoch = library("digits_online.c").epoch
        self._epoch.restype = None
        self.x, self.y = array("d", [v for x in XS for v in x]), array("q", YS)
        self.order, self.totals = array("q", ORDER), array("d", [0.0, 0.0])
        self.p, self.v = placed(START), placed([0.0] * len(START))
        self.buffers = [
            buffer(self.x), buffer(self.y, ctypes.c_int64), buffer(self.order, ctypes.c_int64), ctypes.c_int64(N),
            buffer(self.p), buffer(self.v), ctypes.c_double(LR), ctypes.c_double(MOMENTUM), buffer(self.totals),
        ]  # fmt: skip

    def train(self, epochs: int) -> None:
        for _ in range(epochs):
            self._epoch(*self.buffers)

    def parameters(self) -> list[float]:
        return list(self.p)


def rows(flat: Sequence[float], n: int) -> list[list[float]]:
    return [list(flat[i : i + n]) for i in range(0, len(flat), n)]


class Python:
    """The same loops in Python, written by hand: rows as lists, `sum(map(mul, …))`, comprehensions."""

    def __init__(self) -> None:
        b1, w2, b2 = I * H, I * H + H, I * H + H + H * O
        self.layers: list[list[Any]] = [
            [rows(p[:b1], I), p[b1:w2], rows(p[w2:b2], H), p[b2:]] for p in (START, [0.0] * len(START))
        ]
        self.totals = [0.0, 0.0]

    def train(self, epochs: int) -> None:
        for _ in range(epochs):
            self.steps(ORDER)

    def steps(self, order: Sequence[int]) -> None:
        (W1, b1, W2, b2), (V1, c1, V2, c2) = self.layers
        exp, log, lr, momentum = math.exp, math.log, LR, MOMENTUM
        loss, right = 0.0, 0
        for i in order:
            x, y = XS[i], YS[i]
            h = [sum(map(mul, w, x)) + b for w, b in zip(W1, b1)]
            h = [a if a > 0.0 else 0.0 for a in h]
            z = [sum(map(mul, w, h)) + b for w, b in zip(W2, b2)]
            m = max(z)
            e = [exp(a - m) for a in z]
            total = sum(e)
            loss += log(total) + m - z[y]
            right += z.index(m) == y

            g2 = [a / total for a in e]
            g2[y] -= 1.0
            g1 = [sum(map(mul, g2, column)) for column in zip(*W2)]
            g1 = [g if a > 0.0 else 0.0 for g, a in zip(g1, h)]
            for j, g in enumerate(g2):
                V2[j] = u = [momentum * b + g * a for b, a in zip(V2[j], h)]
                W2[j] = [w - lr * b for w, b in zip(W2[j], u)]
            for j, g in enumerate(g1):
                V1[j] = u = [momentum * b + g * a for b, a in zip(V1[j], x)]
                W1[j] = [w - lr * b for w, b in zip(W1[j], u)]
            c2[:] = [momentum * b + g for b, g in zip(c2, g2)]
            b2[:] = [w - lr * b for w, b in zip(b2, c2)]
            c1[:] = [momentum * b + g for b, g in zip(c1, g1)]
            b1[:] = [w - lr * b for w, b in zip(b1, c1)]
        self.totals = [self.totals[0] + loss, self.totals[1] + right]

    def parameters(self) -> list[float]:
        W1, b1, W2, b2 = self.layers[0]
        return [*(w for row in W1 for w in row), *b1, *(w for row in W2 for w in row), *b2]


class PyTorch:
    """The loop that PyTorch's tutorials show, eager, with samples that are tensors already."""

    def __init__(self) -> None:
        torch = torch_on_one_thread()
        linear = [torch.nn.Linear(I, H, dtype=torch.float64), torch.nn.Linear(H, O, dtype=torch.float64)]
        self.model = torch.nn.Sequential(linear[0], torch.nn.ReLU(), linear[1])
        self.set(torch, START)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LR, momentum=MOMENTUM)
        self.loss = torch.nn.CrossEntropyLoss()
        self.x = list(torch.tensor(XS, dtype=torch.float64).split(1))
        self.y = list(torch.tensor(YS).split(1))

    def set(self, torch: Any, flat: Sequence[float]) -> None:
        torch.nn.utils.vector_to_parameters(torch.tensor(flat, dtype=torch.float64), self.model.parameters())

    def train(self, epochs: int) -> None:
        for _ in range(epochs):
            for i in ORDER:
                loss = self.loss(self.model(self.x[i]), self.y[i])
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()

    def parameters(self) -> list[float]:
        return [v for p in self.model.parameters() for v in p.detach().flatten().tolist()]


class Micrograd:
    """Its own MLP. exp and log, which it lacks, are made the way it makes its other operations."""

    def __init__(self) -> None:
        self.Value = peer("micrograd.engine").Value
        self.model = peer("micrograd.nn").MLP(I, [H, O])
        # A neuron of micrograd lists its weights, then its bias; here stand all weights of a layer, then its biases.
        flat, at = iter(START), {}
        for layer in self.model.layers:
            at.update({v: next(flat) for neuron in layer.neurons for v in neuron.w})
            at.update({neuron.b: next(flat) for neuron in layer.neurons})
        for v, number in at.items():
            v.data = number
        self.values, self.momenta = list(at), [0.0] * len(at)
        sys.setrecursionlimit(100_000)  # its backward recurses

    def function(self, x: Any, z: float, partial: float, name: str) -> Any:
        out = self.Value(z, (x,), name)

        def backward() -> None:
            x.grad += partial * out.grad

        out._backward = backward
        return out

    def cross_entropy(self, z: list[Any], y: int) -> Any:
        e = [self.function(a, math.exp(a.data), math.exp(a.data), "exp") for a in z]
        total = sum(e)
        return self.function(total, math.log(total.data), 1 / total.data, "log") - z[y]

    def steps(self, n: int) -> None:
        for i in range(n):
            loss = self.cross_entropy(self.model(XS[i]), YS[i])
            self.model.zero_grad()
            loss.backward()
            for k, p in enumerate(self.values):
                self.momenta[k] = u = MOMENTUM * self.momenta[k] + p.grad
                p.data -= LR * u

    def parameters(self) -> list[float]:
        return [p.data for p in self.values]


def by_epochs(contender: Any, at_least: float = 1.0) -> Contender:
    """Whole epochs in one call, for that long or up to twice: the seconds of a step in them."""
    contender.train(1)  # to warm up, and for ours to compile
    epochs = 1

    def round_() -> float:
        return seconds(lambda: contender.train(epochs))

    while round_() < at_least:
        epochs *= 2
    return lambda: round_() / (epochs * N)


def by_steps(contender: Micrograd) -> Contender:
    return lambda: seconds(lambda: contender.steps(FEW)) / FEW


MAKERS: dict[str, Callable[[], Any]] = {
    "milligrad llvm": lambda: Milligrad("llvm"),
    "milligrad llvm shuffled": lambda: Milligrad("llvm", shuffle=True),
    "milligrad python": lambda: Milligrad("python"),
    "C": C,
    "Python by hand": Python,
    "PyTorch": PyTorch,
    "micrograd": Micrograd,
}
GOALS = [
    Goal("milligrad llvm", "PyTorch", 150),
    Goal("milligrad llvm", "C", 1.25, "its time"),
    Goal("milligrad llvm shuffled", "C", None, "its time"),
    Goal("milligrad python", "micrograd", 90),
    Goal("milligrad python", "Python by hand", 1.3, "its time"),
]


def check(names: list[str], epochs: int) -> None:
    """Trained alike from the same start, all have the same parameters; those of C may be summed in another order."""
    reference = Python()
    reference.train(epochs)
    for name in names:
        contender = MAKERS[name]()
        if name == "micrograd":
            few = Python()
            few.steps(range(FEW))
            contender.steps(FEW)
            agree(f"{name} and Python by hand after {FEW} steps", contender.parameters(), few.parameters(), 1e-9)
        elif name not in ("Python by hand", "milligrad llvm shuffled"):
            contender.train(epochs)
            ours, theirs = contender.parameters(), reference.parameters()
            agree(f"{name} and Python by hand after {epochs * N:,} steps", ours, theirs, 1e-6 if name == "C" else 1e-9)


def to_compile(backend: str) -> float:
    """How much longer a Trainer's first epoch takes than its second."""
    contender = Milligrad(backend)
    return seconds(lambda: contender.train(1)) - seconds(lambda: contender.train(1))


def main() -> None:
    arguments = parser(__doc__, rounds=7)
    arguments.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        serve("micrograd", by_steps(Micrograd()))
        return
    names = chosen(MAKERS, options)
    print(machine("llvmlite", "torch", "micrograd"), compiler_version(), sep="; ", end="\n\n")
    check(names, epochs=2)
    for name in names:
        if name in ("milligrad llvm", "milligrad python"):
            compiling = statistics.median(to_compile(name.split()[1]) for _ in range(options.rounds))
            print(f"{name}: the first epoch takes {show(compiling)} longer, to trace and compile")
    contenders: dict[str, Contender] = {}
    for name in names:
        contenders[name] = Worker(__file__, "--serve") if name == "micrograd" else by_epochs(MAKERS[name]())
    report("digits online: 64-32-10, batch 1", take_turns(contenders, options.rounds), GOALS)


if __name__ == "__main__":
    main()
