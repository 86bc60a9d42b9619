"""A network of MNIST's size, 784-128-10 in batches of 32, in float64 and float32: Trainer against PyTorch and C.

The samples are random, the learning is by SGD with momentum, everybody uses one thread, and all must reach the same
parameters before anything is timed. PyTorch's batches are ready tensors. The C (mnist_size.c) is there twice: as
plain loops, and in blocks of 8 samples with the update fused into the loop that makes the gradient.

Needs gcc, and `pip install llvmlite==0.50.0 torch==2.13.0`.
"""

from __future__ import annotations

import ctypes
import random
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from contest import (
    Contender,
    Goal,
    agree,
    buffer,
    chosen,
    compiler_version,
    library,
    machine,
    parser,
    report,
    seconds,
    take_turns,
    torch_on_one_thread,
)

from milligrad import SGD, CrossEntropyLoss, Linear, ReLU, Sequential, manual_seed

I, H, O = 784, 128, 10  # noqa: E741  # inputs, hidden, outputs
N, BATCH, LR, MOMENTUM = 2048, 32, 0.01, 0.9
TYPECODE = {"float64": "d", "float32": "f"}
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}

_random = random.Random(0)
XS = [[_random.random() for _ in range(I)] for _ in range(N)]
YS = [_random.randrange(O) for _ in range(N)]
STEPS = -(-N // BATCH)


def our_model() -> Sequential:
    manual_seed(0)
    return Sequential(Linear(I, H), ReLU(), Linear(H, O))


def numbers(model: Sequential) -> list[float]:
    return [p.data for parameter in model.parameters() for p in parameter.values()]


START = numbers(our_model())


class Milligrad:
    """The Trainer. Its own time is that of the epochs, as the history has it, but for the first one of a fit.

    That one takes the lists of samples into memory, too (50 to 100 ms); the peers have theirs there.
    """

    def __init__(self, dtype: str) -> None:
        from milligrad import Trainer

        self.model = our_model()
        optimizer = SGD(self.model.parameters(), lr=LR, momentum=MOMENTUM)
        self.trainer = Trainer(self.model, CrossEntropyLoss(), optimizer, backend="llvm", dtype=dtype)

    def train(self, epochs: int) -> Any:
        return self.trainer.fit(XS, YS, epochs=epochs, batch_size=BATCH, shuffle=False, progress=False)

    def parameters(self) -> list[float]:
        return numbers(self.model)


class C:
    """The loops of mnist_size.c, `which` of them."""

    def __init__(self, dtype: str, which: str) -> None:
        code, real = TYPECODE[dtype], ctypes.c_float if dtype == "float32" else ctypes.c_double
        self._epoch = getattr(library("mnist_size.c", f"-DREAL={real.__name__[2:]}"), f"{which}_epoch")
        self._epoch.restype = None
        self.x, self.y, self.order = array(code, [v for x in XS for v in x]), array("q", YS), array("q", range(N))
        self.p, self.v, self.totals = array(code, START), array(code, [0.0] * len(START)), array("d", [0.0, 0.0])
        self.arguments = [
            buffer(self.x, real), buffer(self.y, ctypes.c_int64), buffer(self.order, ctypes.c_int64),
            ctypes.c_int64(N), ctypes.c_int64(BATCH), buffer(self.p, real), buffer(self.v, real),
            real(LR), real(MOMENTUM), buffer(self.totals),
        ]  # fmt: skip

    def train(self, epochs: int) -> None:
        for _ in range(epochs):
            self._epoch(*self.arguments)

    def parameters(self) -> list[float]:
        return list(self.p)


class PyTorch:
    """The loop that PyTorch's tutorials show, eager, with batches that are tensors already."""

    def __init__(self, dtype: str, fused: bool | None = None) -> None:
        torch = torch_on_one_thread()
        kind = getattr(torch, dtype)
        linear = [torch.nn.Linear(I, H, dtype=kind), torch.nn.Linear(H, O, dtype=kind)]
        self.model = torch.nn.Sequential(linear[0], torch.nn.ReLU(), linear[1])
        torch.nn.utils.vector_to_parameters(torch.tensor(START, dtype=kind), self.model.parameters())
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LR, momentum=MOMENTUM, fused=fused)
        self.loss = torch.nn.CrossEntropyLoss()
        self.batches = list(zip(torch.tensor(XS, dtype=kind).split(BATCH), torch.tensor(YS).split(BATCH)))

    def train(self, epochs: int) -> None:
        for _ in range(epochs):
            for x, y in self.batches:
                loss = self.loss(self.model(x), y)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()

    def parameters(self) -> Sequence[float]:
        return [v for p in self.model.parameters() for v in p.detach().flatten().tolist()]


MAKERS: dict[str, Callable[[str], Any]] = {
    "milligrad": Milligrad,
    "PyTorch": PyTorch,
    "PyTorch fused": lambda dtype: PyTorch(dtype, fused=True),
    "C naive": lambda dtype: C(dtype, "naive"),
    "C blocked": lambda dtype: C(dtype, "blocked"),
}
AGAINST_C = {"float64": 1.1, "float32": 1.2}


def goals(dtype: str) -> list[Goal]:
    return [
        Goal("milligrad", "PyTorch", 0.75, "its time"),
        Goal("milligrad", "C blocked", AGAINST_C[dtype], "its time"),
        *(Goal("milligrad", other, None, "its time") for other in ("PyTorch fused", "C naive")),
        *(Goal(other, "PyTorch", None, "its time") for other in ("C naive", "C blocked")),
    ]


def check(names: list[str], dtype: str) -> None:
    """Trained alike from the same start, all have the same parameters."""
    standard = "PyTorch" if "PyTorch" in names else "C naive"
    trained = {name: MAKERS[name](dtype) for name in dict.fromkeys([standard, *names])}
    for name, contender in trained.items():
        contender.train(2)
        if name != standard:
            what = f"{dtype}: {name} and {standard} after {2 * STEPS} steps"
            agree(what, contender.parameters(), trained[standard].parameters(), TOLERANCE[dtype])


def by_epochs(contender: Any, epochs: int) -> Contender:
    return lambda: seconds(lambda: contender.train(epochs)) / (epochs * STEPS)


def ours(contender: Milligrad, epochs: int) -> Contender:
    return lambda: sum(contender.train(1 + epochs)["seconds"][1:]) / (epochs * STEPS)


def main() -> None:
    arguments = parser(__doc__, rounds=7)
    arguments.add_argument("--dtype", choices=TYPECODE, action="append", help="only this type of numbers")
    arguments.add_argument("--epochs", type=int, default=4, help=f"epochs of {STEPS} steps in a round (4)")
    options = arguments.parse_args()
    names = chosen(MAKERS, options)
    print(machine("llvmlite", "torch"), compiler_version(), sep="; ", end="\n\n")
    for dtype in options.dtype or TYPECODE:
        check(names, dtype)
        contenders: dict[str, Contender] = {}
        for name in names:
            timed = ours if name == "milligrad" else by_epochs
            contenders[name] = timed(MAKERS[name](dtype), options.epochs)
            contenders[name]()  # to warm up, and for ours to compile
        report(f"784-128-10, batch 32, {dtype}", take_turns(contenders, options.rounds), goals(dtype))


if __name__ == "__main__":
    main()
