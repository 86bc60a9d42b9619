"""`python -m milligrad digits`, `xor`, `names` and `mnist`: networks trained from the command line.

Read it as an example. The first two are ordinary loops as anybody would write them: forward, loss, backward, step. The
other two leave the loop to a Trainer, which compiles it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Sequence
from math import isnan, isqrt
from pathlib import Path
from random import Random
from string import ascii_lowercase as LETTERS

from milligrad import (
    SGD,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    Embedding,
    Flatten,
    History,
    Linear,
    Module,
    ReLU,
    Sequential,
    Tanh,
    Trainer,
    manual_seed,
    no_grad,
)
from milligrad.data import DataLoader, TensorDataset, load_digits, load_mnist, load_names, random_split, xor
from milligrad.files import replace
from milligrad.functional import softmax
from milligrad.ops import added
from milligrad.optim.lr_scheduler import CosineAnnealingLR
from milligrad.progress import progress
from milligrad.trainer import BACKENDS
from milligrad.typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milligrad.report import Section

END = len(LETTERS)  # the token before the first letter of a name and after its last; a letter is its place in LETTERS
CONTEXT = 3  # how many tokens the next one is guessed from


def digits(options: Namespace) -> None:
    """Train a 64-hidden-10 network on four fifths of the bundled handwritten digits, and test it on the rest."""
    manual_seed(options.seed)
    train, test = random_split(load_digits(), [0.8, 0.2])
    model = Sequential(Linear(64, options.hidden), ReLU(), Linear(options.hidden, 10))
    loss_fn, optimizer = CrossEntropyLoss(), SGD(model.parameters(), lr=options.lr, momentum=0.9)
    scheduler = CosineAnnealingLR(optimizer, options.epochs)
    count = _count(model)
    print(f"{len(train)} digits to learn from, {len(test)} to test on; {count:,} parameters")
    history = History(["epoch", "loss", "accuracy", "val_loss", "val_accuracy"])

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
        figures = (epoch, train_loss, train_accuracy, test_loss, test_accuracy)
        history.epochs.append(dict(zip(history.columns, figures)))
    save(model, options)
    print(f"\nTest accuracy: {test_accuracy:.2%}\n\n{table(confusion)}")
    if options.report:
        xs, ys = zip(*test)
        with no_grad():
            report_on_digits(options, history, model, xs, ys, [model(x) for x in xs])


def evaluate(model: Module, samples: Any) -> tuple[float, float, list[list[int]]]:
    """The mean loss, the accuracy, and how often each class (row) was taken for each (column)."""
    loss_fn, losses = CrossEntropyLoss(), []
    confusion = [[0] * 10 for _ in range(10)]
    with no_grad():
        for x, y in samples:
            logits = [z.data for z in model(x)]
            losses.append(loss_fn(logits, y))
            if not any(map(isnan, logits)):  # a NaN speaks for no class
                confusion[y][logits.index(max(logits))] += 1
    right = sum(confusion[i][i] for i in range(10))
    return added(losses) / len(losses), right / len(losses), confusion


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
    history, every = History(["epoch", "loss"]), max(options.epochs // 10, 1)
    for epoch in progress(range(1, options.epochs + 1), "epoch"):
        loss = loss_fn([z for (z,) in model(xs)], ys)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.epochs.append({"epoch": epoch, "loss": loss.data})
        if epoch % every == 0:
            print(f"epoch {epoch:4}/{options.epochs}   loss {loss.data:.4f}", flush=True)
    print()
    for x, y, (z,) in zip(xs, ys, model(xs)):
        print(f"{x[0]:.0f} xor {x[1]:.0f}: {z.sigmoid().data:.4f}   (should be {y})")
    save(model, options)
    if options.report:
        from milligrad.charts import decision_regions, grid
        from milligrad.report import Section

        with no_grad():
            ones = [z.sigmoid().data for (z,) in map(model, grid(xs))]
        plane = decision_regions(xs, ys, [[1 - p, p] for p in ones], title="Decision regions", names=["0", "1"])
        boundary = Section("What it has learned", "The surer it is of an answer, the deeper is the colour.", [plane])
        write_report(options, "Exclusive or", {"Loss": f"{loss.data:.4f}"}, history, boundary)


def names(options: Namespace) -> str:
    """Learn from nine tenths of the bundled names which letter follows three others, test on the rest, make up 20.

    Bengio et al. 2003, "A neural probabilistic language model": each token has a vector, which is learned, too.
    """
    manual_seed(options.seed)
    train, test = (_windows(part) for part in random_split(load_names(), [0.9, 0.1]))
    model = Sequential(
        Embedding(END + 1, 8), Flatten(), Linear(8 * CONTEXT, options.hidden), Tanh(), Linear(options.hidden, END + 1)
    )
    print(f"{len(train):,} letters to learn from, {len(test):,} to test on; {_count(model):,} parameters")
    trainer = _trainer(model, options)
    history, failure = _fit(trainer, train, test, options)
    random = Random(options.seed)
    made_up = [make_up_name(trainer, random) for _ in range(20)]
    print("\n" + "\n".join(made_up))
    save(model, options)
    if options.report:
        from milligrad.report import Section

        figures = {"Test loss": f"{history.val_loss[-1]:.4f}", "Letters guessed": f"{history.val_accuracy[-1]:.2%}"}
        write_report(options, "First names", figures, history, Section("Names it made up", ", ".join(made_up), []))
    return failure


def _windows(some: Any) -> TensorDataset:
    """For each letter of each name, and for its end: the tokens before it, and its own."""
    contexts, targets = [], []
    for name in some:
        context = [END] * CONTEXT
        for token in [*map(LETTERS.index, name), END]:
            contexts.append(context)
            targets.append(token)
            context = [*context[1:], token]
    return TensorDataset(contexts, targets)


def make_up_name(trainer: Trainer, random: Random) -> str:
    """Letters drawn one by one, as likely as the model says, until it draws the end or says NaN; 15 at most."""
    tokens = [END] * CONTEXT
    while len(tokens) < CONTEXT + 15:
        (logits,) = trainer.predict([tokens[-CONTEXT:]])
        probabilities = softmax(logits)
        if any(map(isnan, probabilities)):
            break
        (token,) = random.choices(range(END + 1), probabilities)
        if token == END:
            break
        tokens.append(token)
    return "".join(LETTERS[token] for token in tokens[CONTEXT:])


def mnist(options: Namespace) -> str:
    """Train a 784-hidden-10 network on the 60,000 digits of MNIST in a folder, and test it on its 10,000 others."""
    start = time.perf_counter()
    manual_seed(options.seed)
    model = Sequential(Linear(28 * 28, options.hidden), ReLU(), Linear(options.hidden, 10))
    trainer = _trainer(model, options, options.dtype)
    try:
        train, test = (load_mnist(options.data, part, options.dtype) for part in (True, False))
    except (OSError, ValueError) as error:
        sys.exit(f"argument --data: {error}")
    print(f"{len(train):,} digits to learn from, {len(test):,} to test on; {_count(model):,} parameters")
    history, failure = _fit(trainer, train, test, options)
    print(f"\nTest accuracy: {history.val_accuracy[-1]:.2%}")
    print(f"Total time: {time.perf_counter() - start:.1f} s, with reading the files and compiling")
    save(model, options)
    if options.report:
        xs, ys = test.tensors
        report_on_digits(options, history, model, xs, ys, trainer.predict(test))
    return failure


def report_on_digits(
    options: Namespace, history: History, model: Sequential, xs: Any, ys: Sequence[int], logits: Sequence[Any]
) -> None:
    """The report with what is in common to all digits: the mistakes among the test samples, and the first weights."""
    from milligrad.report import mistakes, weights

    side = isqrt(len(xs[0]))
    probabilities = [[float(p) for p in softmax([float(z) for z in row])] for row in logits]
    figures = {
        "Test accuracy": f"{history.val_accuracy[-1]:.2%}",
        "Test loss": f"{history.val_loss[-1]:.4f}",
        "Parameters": f"{_count(model):,}",
    }
    sections = mistakes(xs, (side, side), ys, probabilities), weights(model[0].weight.data, (side, side))
    write_report(options, "Handwritten digits", figures, history, *sections)


def write_report(options: Namespace, title: str, figures: dict[str, str], history: History, *sections: Section) -> None:
    """Write the page to the file given with --report: the figures, the curves, the sections and the options."""
    from milligrad.report import Section, report

    columns = [name for name in ("loss", "accuracy") if name in history.columns]
    about = "1 epoch." if len(history) == 1 else f"{len(history)} epochs."
    about += " The curves called val_ are those of the test samples." * ("val_loss" in history.columns)
    curves = Section("How it learned", about, [history.plot(name) for name in columns])
    asked = {name: value for name, value in vars(options).items() if name not in ("run", "report")}
    replace(options.report, report(title, figures, asked, [curves, *sections]))
    print(f"\nReport in {options.report}: open it in a browser.")


def _count(model: Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _trainer(model: Module, options: Namespace, dtype: str = "float64") -> Trainer:
    optimizer = SGD(model.parameters(), lr=options.lr, momentum=0.9)
    try:
        return Trainer(model, CrossEntropyLoss(), optimizer, options.backend, dtype=dtype)
    except (ImportError, ValueError) as error:
        sys.exit(f"argument --{error}")  # it begins with the name: backend or dtype


def _fit(trainer: Trainer, train: Any, test: Any, options: Namespace) -> tuple[History, str]:
    """Train, and print a line for each epoch. Returns what was recorded, and what went wrong, "" if nothing did.

    After Ctrl-C, or a number that is no longer finite, the model is as it was after the last whole epoch.
    """
    failure = ""
    try:
        trainer.fit(
            train,
            epochs=options.epochs,
            batch_size=options.batch_size,
            validation_data=test,
            seed=options.seed,
            scheduler=CosineAnnealingLR(trainer.optimizer, options.epochs),
            callbacks=[lambda trainer, history: print(history.line(), flush=True)],
        )
    except ArithmeticError as error:
        if not trainer.history:
            raise
        failure = f"\nStopped in epoch {len(trainer.history) + 1}: {error}"
    if not trainer.history:
        raise KeyboardInterrupt
    return trainer.history, failure


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
    commands = parser.add_subparsers(required=True, metavar="digits | xor | names | mnist")
    add_command(commands, "digits", digits, "handwritten digits of 8 by 8 pixels", epochs=15, hidden=32, lr=0.1)
    add_command(commands, "xor", xor_problem, "the exclusive or", epochs=200, hidden=4, lr=0.2)
    command = add_command(commands, "names", names, "first names, letter by letter", epochs=5, hidden=64, lr=0.03)
    add_trainer_options(command)
    command = add_command(commands, "mnist", mnist, "the digits of MNIST", epochs=5, hidden=128, lr=0.05)
    add_trainer_options(command)
    command.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder with its four files (.gz or not)"
    )
    command.add_argument("--dtype", choices=["float64", "float32"], default="float64", help="float32 on llvm only")
    options = parser.parse_args(arguments)
    for name in ("epochs", "hidden", "batch_size"):
        if getattr(options, name, 1) < 1:
            parser.error(f"argument --{name.replace('_', '-')}: expected at least 1, got {getattr(options, name)}")
    if not 0 < options.lr < float("inf"):
        parser.error(f"argument --lr: expected a number > 0, got {options.lr}")
    if options.save and options.save == options.report:
        parser.error(f"argument --report: expected another file than that of --save, got {options.report}")
    for name in ("save", "report"):
        try:
            if path := getattr(options, name):
                _check_writable(path)
        except OSError as error:
            parser.error(f"argument --{name}: {error}")
    try:
        failure = options.run(options)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted: nothing was saved")
    except ArithmeticError as error:
        sys.exit(f"\nStopped, nothing was saved: {error}")
    except BrokenPipeError:  # whoever read the output has gone: there is nobody left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if failure:
        sys.exit(failure)


def _check_writable(path: Path) -> None:
    """A minute of training is not to be lost for a folder that is not there: raise the OSError now."""
    if path.is_fifo():  # to open it would be to wait for its reader, and to close it, to send him home
        return
    new = not path.exists()
    path.open("a").close()
    if new:
        path.unlink()


def add_command(commands: Any, name: str, run: Any, about: str, epochs: int, hidden: int, lr: float) -> ArgumentParser:
    """One command with the options that all of them take."""
    command: ArgumentParser = commands.add_parser(
        name, help=about, description=about, formatter_class=ArgumentDefaultsHelpFormatter
    )
    command.add_argument("--epochs", type=int, default=epochs, help="how often all samples are gone through")
    command.add_argument("--hidden", type=int, default=hidden, help="numbers in the hidden layer")
    command.add_argument("--lr", type=float, default=lr, help="learning rate at the start")
    command.add_argument("--seed", type=int, default=0, help="of the first weights, the split and the order")
    command.add_argument("--save", type=Path, metavar="model.json", help="file to write the trained model to")
    command.add_argument("--report", type=Path, metavar="report.html", help="file to write a page with pictures to")
    command.set_defaults(run=run)
    return command


def add_trainer_options(command: ArgumentParser) -> None:
    """The options of the commands that use a Trainer."""
    command.add_argument("--batch-size", type=int, default=32, help="samples in a step")
    command.add_argument("--backend", choices=BACKENDS, default="auto", help="what computes the steps")


if __name__ == "__main__":
    main()
