"""`python -m milligrad digits` and `python -m milligrad xor`: two networks trained from the command line.

Each is an ordinary loop as anybody would write it: forward, loss, backward, step. Read it as an example.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from milligrad import (
    SGD,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    Linear,
    Module,
    ReLU,
    Sequential,
    Tanh,
    manual_seed,
    no_grad,
)
from milligrad.data import DataLoader, load_digits, random_split, xor
from milligrad.optim.lr_scheduler import CosineAnnealingLR
from milligrad.progress import progress
from milligrad.typing import Any


def digits(options: Namespace) -> None:
    """Train a 64-hidden-10 network on four fifths of the bundled handwritten digits, and test it on the rest."""
    manual_seed(options.seed)
    train, test = random_split(load_digits(), [0.8, 0.2])
    model = Sequential(Linear(64, options.hidden), ReLU(), Linear(options.hidden, 10))
    loss_fn, optimizer = CrossEntropyLoss(), SGD(model.parameters(), lr=options.lr, momentum=0.9)
    scheduler = CosineAnnealingLR(optimizer, options.epochs)
    count = sum(p.numel() for p in model.parameters())
    print(f"{len(train)} digits to learn from, {len(test)} to test on; {count:,} parameters")

    start = time.perf_counter()
    for epoch in range(1, options.epochs + 1):
        for xs, ys in progress(DataLoader(train, batch_size=16, shuffle=True), f"epoch {epoch}"):
            loss = loss_fn(model(xs), ys)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
        train_loss, train_accuracy, _ = evaluate(model, train)
        test_loss, test_accuracy, confusion = evaluate(model, test)
        print(
            f"epoch {epoch:2}/{options.epochs}   train: loss {train_loss:.4f}, accuracy {train_accuracy:6.2%}   "
            f"test: loss {test_loss:.4f}, accuracy {test_accuracy:6.2%}   {time.perf_counter() - start:5.1f} s",
            flush=True,
        )
    save(model, options)
    print(f"\nTest accuracy: {test_accuracy:.2%}\n\n{table(confusion)}")


def evaluate(model: Module, samples: Any) -> tuple[float, float, list[list[int]]]:
    """The mean loss, the accuracy, and how often each class (row) was taken for each (column)."""
    loss_fn, losses = CrossEntropyLoss(), []
    confusion = [[0] * 10 for _ in range(10)]
    with no_grad():
        for x, y in samples:
            logits = [float(z) for z in model(x)]
            losses.append(loss_fn(logits, y))
            confusion[y][logits.index(max(logits))] += 1
    right = sum(confusion[i][i] for i in range(10))
    return sum(losses) / len(losses), right / len(losses), confusion


def table(confusion: list[list[int]]) -> str:
    """A confusion matrix as text; a dot is a zero."""
    header = "        " + "".join(f"{j:4}" for j in range(len(confusion))) + "   <- read as"
    rows = [f"  is {i:2} |" + "".join(f"{n or '.':>4}" for n in row) for i, row in enumerate(confusion)]
    return "\n".join([header, "        " + "-" * 4 * len(confusion), *rows])


def xor_problem(options: Namespace) -> None:
    """Teach a 2-hidden-1 network that exactly one of two inputs is on: what no network without a hidden layer can."""
    manual_seed(options.seed)
    xs, ys = zip(*xor())
    model = Sequential(Linear(2, options.hidden), Tanh(), Linear(options.hidden, 1))
    loss_fn, optimizer = BCEWithLogitsLoss(), SGD(model.parameters(), lr=options.lr, momentum=0.9)
    every = max(options.epochs // 10, 1)
    for epoch in progress(range(1, options.epochs + 1), "epoch"):
        loss = loss_fn([z for (z,) in model(xs)], ys)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if epoch % every == 0:
            print(f"epoch {epoch:4}/{options.epochs}   loss {loss.data:.4f}", flush=True)
    print()
    for x, y, (z,) in zip(xs, ys, model(xs)):
        print(f"{x[0]:.0f} xor {x[1]:.0f}: {z.sigmoid().data:.4f}   (should be {y})")
    save(model, options)


def save(model: Module, options: Namespace) -> None:
    """Write the numbers of the model, as JSON, to the file given with --save."""
    if options.save:
        options.save.write_text(json.dumps({"hidden": options.hidden, "state_dict": model.state_dict()}))
        print(f'\nSaved to {options.save}: Module.load_state_dict takes its "state_dict".')


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and run what it asks for."""
    parser = ArgumentParser(
        prog="python -m milligrad", description="Networks of single numbers, trained before your eyes."
    )
    commands = parser.add_subparsers(required=True, metavar="digits | xor")
    add_command(commands, "digits", digits, "handwritten digits of 8 by 8 pixels", epochs=15, hidden=32, lr=0.1)
    add_command(commands, "xor", xor_problem, "the exclusive or", epochs=200, hidden=4, lr=0.2)
    options = parser.parse_args(arguments)
    for name, least in (("epochs", 1), ("hidden", 1)):
        if getattr(options, name) < least:
            parser.error(f"argument --{name}: expected at least {least}, got {getattr(options, name)}")
    if not 0 < options.lr < float("inf"):
        parser.error(f"argument --lr: expected a number > 0, got {options.lr}")
    if options.save:
        try:
            options.save.open("a").close()  # a minute of training is not to be lost for a folder that is not there
        except OSError as error:
            parser.error(f"argument --save: {error}")
    try:
        options.run(options)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted: nothing was saved")
    except BrokenPipeError:  # whoever read the output has gone: there is nobody left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def add_command(commands: Any, name: str, run: Any, about: str, epochs: int, hidden: int, lr: float) -> None:
    """One command with the options that all of them take."""
    command = commands.add_parser(name, help=about, description=about, formatter_class=ArgumentDefaultsHelpFormatter)
    command.add_argument("--epochs", type=int, default=epochs, help="how often all samples are gone through")
    command.add_argument("--hidden", type=int, default=hidden, help="numbers in the hidden layer")
    command.add_argument("--lr", type=float, default=lr, help="learning rate at the start")
    command.add_argument("--seed", type=int, default=0, help="of the first weights, the split and the order")
    command.add_argument("--save", type=Path, metavar="model.json", help="file to write the trained model to")
    command.set_defaults(run=run)


if __name__ == "__main__":
    main()
