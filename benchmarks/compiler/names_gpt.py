"""The character GPT of examples/names_gpt.py, one name a step: Trainer on llvm against eager PyTorch.

1,000 names are learned from, by Adam, in their order. Cold is a process that has compiled nothing yet: every length of
name is compiled on the way. Warm is every later time through the same names. PyTorch has the same network in its own
terms, on one thread in float64, with names that are tensors already. Before anything is timed, the losses of the first
steps must be those of the eager engine to 1e-9, step by step, and PyTorch's too.

Needs `pip install llvmlite==0.50.0 torch==2.13.0`.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from contest import (
    ROOT,
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

from milligrad import Adam, CrossEntropyLoss, manual_seed

LR = 0.01
Batches = list[tuple[list[int], list[int]]]


def example() -> Any:
    """The module examples/names_gpt.py."""
    spec = importlib.util.spec_from_file_location("milligrad_names_gpt", ROOT / "examples" / "names_gpt.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


GPT = example()


def batches(path: Path | None, steps: int) -> Batches:
    """The names to learn from, as (tokens, targets); those of up to CONTEXT - 1 letters a to z."""
    if path:
        names = path.read_text().lower().split()
    else:
        from milligrad.data import load_names

        names = load_names()
    fit = [name for name in names if name.isascii() and name.isalpha() and len(name) < GPT.CONTEXT]
    return [GPT.encode(name) for name in random.Random(0).choices(fit, k=steps)]


def our_model() -> Any:
    manual_seed(0)
    return GPT.GPT()


class Milligrad:
    def __init__(self, data: Batches, backend: str) -> None:
        from milligrad import Trainer

        self.data, model = data, our_model()
        optimizer = Adam(model.parameters(), lr=LR)
        self.trainer = Trainer(model, CrossEntropyLoss(), optimizer, backend=backend)

    def train(self, epochs: int) -> None:
        self.trainer.fit(self.data, epochs=epochs, shuffle=False, progress=False)

    def losses(self, steps: int) -> Iterator[float]:
        return (self.trainer.step(x, y) for x, y in self.data[:steps])


class PyTorch:
    def __init__(self, data: Batches, fused: bool | None = None) -> None:
        self.torch = torch_on_one_thread()
        self.model = torch_gpt(self.torch)
        flat = [p.data for parameter in our_model().parameters() for p in parameter.values()]
        self.torch.nn.utils.vector_to_parameters(
            self.torch.tensor(flat, dtype=self.torch.float64), self.model.parameters()
        )
        self.optimizer = self.torch.optim.Adam(self.model.parameters(), lr=LR, fused=fused)
        self.data = [(self.torch.tensor(x), self.torch.tensor(y)) for x, y in data]

    def step(self, x: Any, y: Any) -> Any:
        loss = self.torch.nn.functional.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def train(self, epochs: int) -> None:
        for _ in range(epochs):
            for x, y in self.data:
                self.step(x, y)

    def losses(self, steps: int) -> Iterator[float]:
        return (self.step(x, y).item() for x, y in self.data[:steps])


def torch_gpt(torch: Any) -> Any:
    """The network of the example, as one writes it in PyTorch; its parameters in the same order."""
    nn, F = torch.nn, torch.nn.functional
    width, heads = GPT.WIDTH, GPT.HEADS

    def linear(n_in: int, n_out: int) -> Any:
        return nn.Linear(n_in, n_out, bias=False, dtype=torch.float64)

    def norm(x: Any) -> Any:
        return F.rms_norm(x, (width,), eps=1e-5)

    class Network(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Embedding(GPT.VOCABULARY, width, dtype=torch.float64)
            self.place = nn.Embedding(GPT.CONTEXT, width, dtype=torch.float64)
            self.query, self.key, self.value, self.mix = (linear(width, width) for _ in range(4))
            self.widen, self.narrow = linear(width, 4 * width), linear(4 * width, width)
            self.logits = linear(width, GPT.VOCABULARY)

        def forward(self, tokens: Any) -> Any:
            x = self.token(tokens) + self.place.weight[: len(tokens)]
            x = x + self.attention(norm(x))
            x = x + self.narrow(F.relu(self.widen(norm(x))))
            return self.logits(x)

        def attention(self, x: Any) -> Any:
            by_head = [part(x).view(len(x), heads, -1).transpose(0, 1) for part in (self.query, self.key, self.value)]
            mixed = F.scaled_dot_product_attention(*by_head, is_causal=True)
            return self.mix(mixed.transpose(0, 1).reshape(len(x), width))

    return Network()


MAKERS: dict[str, Callable[[Batches], Any]] = {
    "milligrad llvm": lambda data: Milligrad(data, "llvm"),
    "PyTorch": PyTorch,
    "PyTorch fused": lambda data: PyTorch(data, fused=True),
}
GOALS = [Goal("milligrad llvm", "PyTorch", 30), Goal("milligrad llvm", "PyTorch fused", None)]


def by_epochs(contender: Any, epochs: int) -> Contender:
    return lambda: seconds(lambda: contender.train(epochs)) / (epochs * len(contender.data))


def check(data: Batches, names: list[str], steps: int) -> None:
    reference = list(Milligrad(data, "eager").losses(steps))
    for name in names:
        agree(f"loss of each step, {name} and eager", MAKERS[name](data).losses(steps), reference, 1e-9)


def cold(data: Batches) -> Contender:
    """All that the first time through the names takes, from the model on."""
    return lambda: seconds(lambda: MAKERS["milligrad llvm"](data).train(1))


def in_a_fresh_process(*command: str) -> float:
    """The seconds of the first time through the names, where nothing was compiled before."""
    worker = Worker(__file__, *command, "--serve")
    taken = worker()
    worker.close()
    return taken


def main() -> None:
    arguments = parser(__doc__, rounds=7)
    arguments.add_argument(
        "--names", type=Path, help="a file of names, one a line; else those that come with milligrad"
    )
    arguments.add_argument("--steps", type=int, default=1000, help="names to learn from, one a step (1000)")
    arguments.add_argument("--check", type=int, default=100, help="steps whose losses are compared (100)")
    arguments.add_argument("--cold-rounds", type=int, default=3, help="processes that start cold (3)")
    arguments.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    data = batches(options.names, options.steps)
    if options.serve:
        serve("cold", cold(data))
        return
    names = chosen(MAKERS, options)
    lengths = sorted({len(x) for x, _ in data})
    print(machine("llvmlite", "torch"))
    print(f"{len(data):,} names of {len(lengths)} lengths, up to {lengths[-1]} tokens\n")
    check(data, names, options.check)
    command = [*(["--names", str(options.names)] if options.names else []), "--steps", str(options.steps)]
    first = [in_a_fresh_process(*command) for _ in range(options.cold_rounds * ("milligrad llvm" in names))]
    contenders = {name: by_epochs(MAKERS[name](data), 10 if "milligrad" in name else 1) for name in names}
    for contender in contenders.values():
        contender()  # to warm up, and for ours to compile
    times = take_turns(contenders, options.rounds)
    report("A character GPT of 4,192 parameters, one name a step, warm", times, GOALS)
    if first:
        warm = statistics.median(times["milligrad llvm"])
        print("\n| milligrad llvm | measured | goal | reached |\n| --- | --- | --- | --- |")
        print(bounded("a step, warm", warm, 60e-6, show))
        print(bounded(f"the first {len(data):,} steps, cold", statistics.median(first), 15.0, show))


if __name__ == "__main__":
    main()
