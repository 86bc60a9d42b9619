"""LeNet on images of 28 × 28, and an LSTM that reads them line by line: Trainer on llvm against PyTorch.

The samples are random, the learning is by SGD with momentum, in float64 on one thread, and the parameters after the
first steps must be PyTorch's before anything is timed. PyTorch's batches are tensors already. "First fit" is a process
that has compiled nothing yet, from `fit` on, to the end of a first epoch.

Needs `pip install llvmlite==0.50.0 torch==2.13.0`.
"""

from __future__ import annotations

import argparse
import random
import statistics
from typing import Any, NamedTuple

from contest import (
    Contender,
    Goal,
    Worker,
    agree,
    bounded,
    chosen,
    machine,
    parser,
    report,
    seconds,
    serve,
    show,
    take_turns,
    torch_on_one_thread,
)

from milligrad import (
    LSTM,
    SGD,
    Conv2d,
    CrossEntropyLoss,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    manual_seed,
)

SIDE, CLASSES, HIDDEN = 28, 10, 32
STEPS, LR, MOMENTUM = 16, 0.01, 0.9


class Reader(Module):
    """The lines of an image, one after the other, through an LSTM; its last h tells the class."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = LSTM(SIDE, HIDDEN, batch_first=True)
        self.head = Linear(HIDDEN, CLASSES)

    def forward(self, images: Any) -> Any:
        _, (h, _) = self.lstm(images)
        return self.head(h[0])


def lenet() -> Module:
    return Sequential(
        Conv2d(1, 6, 5), ReLU(), MaxPool2d(2), Conv2d(6, 16, 5), ReLU(), MaxPool2d(2),
        Flatten(), Linear(256, 120), ReLU(), Linear(120, 84), ReLU(), Linear(84, CLASSES),
    )  # fmt: skip


def torch_lenet(torch: Any) -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, CLASSES),
    )  # fmt: skip


def torch_reader(torch: Any) -> Any:
    class Network(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(SIDE, HIDDEN, batch_first=True)
            self.head = torch.nn.Linear(HIDDEN, CLASSES)

        def forward(self, images: Any) -> Any:
            _, (h, _) = self.lstm(images)
            return self.head(h[0])

    return Network()


class Network(NamedTuple):
    """A network of ours and PyTorch's, how large a batch is, and what is to be reached."""

    ours: Any
    theirs: Any
    batch: int
    channels: bool
    ratio: float
    first: float


NETWORKS = {
    "LeNet": Network(lenet, torch_lenet, 16, True, 0.33, 3.0),
    "LSTM": Network(Reader, torch_reader, 8, False, 0.16, 2.0),
}


def samples(network: Network) -> tuple[list[Any], list[int]]:
    draw = random.Random(0)
    images: list[Any] = [
        [[draw.random() for _ in range(SIDE)] for _ in range(SIDE)] for _ in range(STEPS * network.batch)
    ]
    return [[image] for image in images] if network.channels else images, [draw.randrange(CLASSES) for _ in images]


def our_model(network: Network) -> Any:
    manual_seed(0)
    return network.ours()


def numbers(model: Any) -> list[float]:
    return [p.data for parameter in model.parameters() for p in parameter.values()]


class Milligrad:
    def __init__(self, network: Network) -> None:
        from milligrad import Trainer

        self.network, self.model = network, our_model(network)
        self.xs, self.ys = samples(network)
        optimizer = SGD(self.model.parameters(), lr=LR, momentum=MOMENTUM)
        self.trainer = Trainer(self.model, CrossEntropyLoss(), optimizer, backend="llvm")

    def train(self, epochs: int) -> Any:
        return self.trainer.fit(
            self.xs, self.ys, epochs=epochs, batch_size=self.network.batch, shuffle=False, progress=False
        )

    def parameters(self) -> list[float]:
        return numbers(self.model)


class PyTorch:
    def __init__(self, network: Network) -> None:
        torch = torch_on_one_thread()
        self.model = network.theirs(torch).double()
        start = torch.tensor(numbers(our_model(network)), dtype=torch.float64)
        torch.nn.utils.vector_to_parameters(start, self.model.parameters())
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LR, momentum=MOMENTUM)
        self.loss = torch.nn.CrossEntropyLoss()
        xs, ys = samples(network)
        x, y = torch.tensor(xs, dtype=torch.float64), torch.tensor(ys)
        self.batches = list(zip(x.split(network.batch), y.split(network.batch)))

    def train(self, epochs: int) -> None:
        for _ in range(epochs):
            for x, y in self.batches:
                loss = self.loss(self.model(x), y)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()

    def parameters(self) -> list[float]:
        return [v for p in self.model.parameters() for v in p.detach().flatten().tolist()]


MAKERS: dict[str, Any] = {"milligrad": Milligrad, "PyTorch": PyTorch}


def ours(contender: Milligrad, epochs: int) -> Contender:
    """An epoch's own time, as the history has it, but for a fit's first, which takes the samples into memory, too."""
    return lambda: sum(contender.train(1 + epochs)["seconds"][1:]) / (epochs * STEPS)


def theirs(contender: PyTorch, epochs: int) -> Contender:
    return lambda: seconds(lambda: contender.train(epochs)) / (epochs * STEPS)


def first_fit(name: str) -> float:
    """The seconds of a first epoch, in a process where nothing was compiled before."""
    worker = Worker(__file__, "--network", name, "--serve")
    taken = worker()
    worker.close()
    return taken


def main() -> None:
    arguments = parser(__doc__, rounds=7)
    arguments.add_argument("--network", choices=NETWORKS, action="append", help="only this one")
    arguments.add_argument("--epochs", type=int, default=2, help=f"epochs of {STEPS} steps in a round (2)")
    arguments.add_argument("--cold-rounds", type=int, default=3, help="processes that start cold (3)")
    arguments.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        contender = Milligrad(NETWORKS[options.network[0]])
        serve("first fit", lambda: seconds(lambda: contender.train(1)))
        return
    names = chosen(MAKERS, options)
    print(machine("llvmlite", "torch"), end="\n\n")
    for which in options.network or NETWORKS:
        network = NETWORKS[which]
        made = {name: MAKERS[name](network) for name in names}
        for contender in made.values():
            contender.train(1)
        if len(made) > 1:
            found = [contender.parameters() for contender in made.values()]
            agree(f"{which}: parameters after {STEPS} steps", found[0], found[1], 1e-9)
        timed = {name: (ours if name == "milligrad" else theirs)(c, options.epochs) for name, c in made.items()}
        goal = Goal("milligrad", "PyTorch", network.ratio, "its time")
        report(f"{which}, batch {network.batch}", take_turns(timed, options.rounds), [goal])
        if "milligrad" in names and options.cold_rounds:
            taken = statistics.median([first_fit(which) for _ in range(options.cold_rounds)])
            print("\n| milligrad | measured | goal | reached |\n| --- | --- | --- | --- |")
            print(bounded(f"first fit of {which}", taken, network.first, show))


if __name__ == "__main__":
    main()
