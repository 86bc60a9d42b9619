"""A Trainer whose model takes steps in time: 1,000 Euler steps of a pendulum for each sample, against PyTorch.

Both learn gravity and friction from where a pendulum is after ten seconds, by SGD in batches of 8 of 32 samples.
PyTorch takes the samples of a batch as vectors, in the same loop of steps. Both must reach the same parameters before
anything is timed. An epoch is timed over whole fits, and the first fit, of one epoch, with a model that was never
compiled before.

Needs `pip install llvmlite==0.50.0 torch==2.13.0`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from contest import Goal, agree, machine, parser, report, seconds, show, take_turns, torch_on_one_thread

from milligrad import SGD, Module, MSELoss, Parameter, Trainer, sin

STEPS, SAMPLES, BATCH, EPOCHS = 1_000, 32, 8, 5
H, LR, START = 10 / STEPS, 1e-3, [9.0, 0.1]
X = [[0.02 * k, 0.0] for k in range(SAMPLES)]
GOALS = [Goal("milligrad llvm", "PyTorch", 10)]
Y = [[0.01 * k] for k in range(SAMPLES)]


def moved(angle: Any, speed: Any, p: Any, sin: Callable[[Any], Any]) -> tuple[Any, Any]:
    """One step."""
    speed = speed - H * (p[0] * sin(angle) + p[1] * speed)
    return angle + H * speed, speed


class Pendulum(Module):
    def __init__(self) -> None:
        super().__init__()
        self.p = Parameter(START)

    def forward(self, xs: Any) -> Any:
        found = []
        for angle, speed in xs:
            for _ in range(STEPS):
                angle, speed = moved(angle, speed, self.p, sin)
            found.append([angle])
        return found


class Milligrad:
    def __init__(self) -> None:
        self.model = Pendulum()
        self.trainer = Trainer(self.model, MSELoss(), SGD(self.model.parameters(), lr=LR), backend="llvm")

    def train(self, epochs: int) -> None:
        self.trainer.fit(X, Y, epochs=epochs, batch_size=BATCH, shuffle=False, progress=False)

    def parameters(self) -> list[float]:
        return [x.data for x in self.model.p]


class PyTorch:
    def __init__(self) -> None:
        import torch

        torch_on_one_thread()
        self.torch = torch
        self.p = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
        self.optimizer = torch.optim.SGD([self.p], lr=LR)
        self.x, self.y = (torch.tensor(rows, dtype=torch.float64) for rows in (X, Y))

    def train(self, epochs: int) -> None:
        for _ in range(epochs):
            for k in range(0, SAMPLES, BATCH):
                angle, speed = self.x[k : k + BATCH].unbind(1)
                for _ in range(STEPS):
                    angle, speed = moved(angle, speed, self.p, self.torch.sin)
                self.optimizer.zero_grad()
                ((angle - self.y[k : k + BATCH, 0]) ** 2).mean().backward()
                self.optimizer.step()

    def parameters(self) -> list[float]:
        return self.p.tolist()  # type: ignore[no-any-return]


def main() -> None:
    options = parser(__doc__, rounds=5).parse_args()
    print(machine("llvmlite", "torch"), end="\n\n")
    first = statistics.median([seconds(lambda: Milligrad().train(1)) for _ in range(3)])
    ours, theirs = Milligrad(), PyTorch()
    for contender in (ours, theirs):
        contender.train(2)
    agree("parameters after 8 steps", ours.parameters(), theirs.parameters(), 1e-9)
    contenders = {
        "milligrad llvm": lambda: seconds(lambda: ours.train(EPOCHS)) / EPOCHS,
        "PyTorch": lambda: seconds(lambda: theirs.train(1)),
    }
    report("An epoch", take_turns(contenders, options.rounds), GOALS, "epoch")
    print(f"\nthe first fit, of one epoch, with all that is compiled: {show(first)}")


if __name__ == "__main__":
    main()
