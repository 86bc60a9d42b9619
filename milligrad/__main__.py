"""`python -m milligrad digits`, `xor`, `names` and `mnist`: networks to train at the command line; `predict`, `export`.

Read it as an example. Each command makes its data and its network, and leaves the loop to a Trainer, which compiles it;
with `--backend eager` it is the loop that anybody would write.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from ast import literal_eval
from collections.abc import Sequence
from inspect import signature
from math import isfinite, isnan, isqrt
from pathlib import Path
from random import Random
from runpy import run_path
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
    TraceError,
    Trainer,
    __version__,
    compile,
    manual_seed,
    no_grad,
)
from milligrad.compiler import Compiled, cache
from milligrad.data import TensorDataset, load_digits, load_mnist, load_names, random_split, xor
from milligrad.expected import whole
from milligrad.files import replace
from milligrad.functional import softmax
from milligrad.ops import added
from milligrad.optim.lr_scheduler import CosineAnnealingLR
from milligrad.trainer import BACKENDS
from milligrad.typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milligrad.report import Section

END = len(LETTERS)  # the token before the first letter of a name and after its last; a letter is its place in LETTERS
CONTEXT = 3  # how many tokens the next one is guessed from
NOT_ASKED = ("run", "command", "error", "report")  # what of the options a report does not tell


NETWORKS = {
    "digits": lambda hidden: Sequential(Linear(64, hidden), ReLU(), Linear(hidden, 10)),
    "xor": lambda hidden: Sequential(Linear(2, hidden), Tanh(), Linear(hidden, 1)),
    "names": lambda hidden: Sequential(
        Embedding(END + 1, 8), Flatten(), Linear(8 * CONTEXT, hidden), Tanh(), Linear(hidden, END + 1)
    ),
    "mnist": lambda hidden: Sequential(Linear(28 * 28, hidden), ReLU(), Linear(hidden, 10)),
}
MEANINGS = {  # of the numbers that go in and come out, as C code tells them
    "digits": "sample: 8 rows of 8 pixels, from 0 (paper) to 1 (ink). result: a logit for each digit.",
    "xor": "sample: two numbers, 0 or 1. result: the logit of their exclusive or.",
    "names": "sample: three letters, a is 0 and z is 25; 26 stands before the first letter and after the last one.\n"
    "result: the logit of each letter to come, and of the end.",
    "mnist": "sample: 28 rows of 28 pixels, from 0 (paper) to 1 (ink). result: a logit for each digit.",
}


def digits(options: Namespace) -> str:
    """Train a 64-hidden-10 network on four fifths of the bundled handwritten digits, and test it on the rest."""
    manual_seed(options.seed)
    train, test = random_split(load_digits(), [0.8, 0.2])
    model = NETWORKS["digits"](options.hidden)
    trainer = _trainer(model, options)
    print(f"{len(train)} digits to learn from, {len(test)} to test on; {_count(model):,} parameters")
    start = time.perf_counter()

    def tell(trainer: Trainer, history: History) -> None:
        row = history[-1]
        row["loss"], row["accuracy"], _ = trainer.evaluate(train, batch_size=16)  # of the same weights as the test's
        train_part = f"train: loss {row['loss']:.4f}, accuracy {row['accuracy']:6.2%}"
        test_part = f"test: loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:6.2%}"
        seconds = time.perf_counter() - start
        print(f"epoch {len(history):2}/{options.epochs}   {train_part}   {test_part}   {seconds:5.1f} s", flush=True)

    history, failure = _fit(trainer, train, options, tell, batch_size=16, validation_data=test)
    _, accuracy, confusion = evaluate(model, test)
    save(model, options)
    print(f"\nTest accuracy: {accuracy:.2%}\n\n{table(confusion)}")
    if options.report:
        xs, ys = zip(*test)
        report_on_digits(options, history, model, xs, ys, trainer.predict(test))
    return failure


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


def xor_problem(options: Namespace) -> str:
    """Teach a 2-hidden-1 network that exactly one of two inputs is on: what no network without a hidden layer can."""
    manual_seed(options.seed)
    xs, ys = zip(*xor())
    model, every = NETWORKS["xor"](options.hidden), max(options.epochs // 10, 1)
    trainer = _trainer(model, options, loss_fn=BCEWithLogitsLoss(), metric=None)

    def tell(trainer: Trainer, history: History) -> None:
        if len(history) % every == 0:
            print(f"epoch {len(history):4}/{options.epochs}   loss {history.loss[-1]:.4f}", flush=True)

    samples = TensorDataset(xs, [[y] for y in ys])
    history, failure = _fit(trainer, samples, options, tell, batch_size=4, shuffle=False)
    print()
    _print_xor(model, xs)
    save(model, options)
    if options.report:
        from milligrad.charts import decision_regions, grid
        from milligrad.report import Section

        with no_grad():
            ones = [z.sigmoid().data for (z,) in map(model, grid(xs))]
        plane = decision_regions(xs, ys, [[1 - p, p] for p in ones], title="Decision regions", names=["0", "1"])
        boundary = Section("What it has learned", "The surer it is of an answer, the deeper is the colour.", [plane])
        write_report(options, "Exclusive or", {"Loss": f"{history.loss[-1]:.4f}"}, history, boundary)
    return failure


def _print_xor(model: Module, xs: Any) -> None:
    for (a, b), (z,) in zip(xs, model(list(xs))):
        known = f"   (should be {int(a) ^ int(b)})" * ({a, b} <= {0, 1})
        print(f"{a:.4g} xor {b:.4g}: {z.sigmoid().data:.4f}{known}")


def names(options: Namespace) -> str:
    """Learn from nine tenths of the bundled names which letter follows three others, test on the rest, make up 20.

    Bengio et al. 2003, "A neural probabilistic language model": each token has a vector, which is learned, too.
    """
    manual_seed(options.seed)
    train, test = (_windows(part) for part in random_split(load_names(), [0.9, 0.1]))
    model = NETWORKS["names"](options.hidden)
    print(f"{len(train):,} letters to learn from, {len(test):,} to test on; {_count(model):,} parameters")
    trainer = _trainer(model, options)
    history, failure = _fit(trainer, train, options, _tell, batch_size=options.batch_size, validation_data=test)
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


def make_up_name(trainer: Trainer, random: Random, beginning: str = "") -> str:
    """Letters drawn one by one, as likely as the model says, until it draws the end; 15 at most."""
    tokens = [END] * CONTEXT + [LETTERS.index(letter) for letter in beginning]
    while len(tokens) < CONTEXT + 15:
        (logits,) = trainer.predict([tokens[-CONTEXT:]])
        probabilities = softmax(logits)
        (token,) = random.choices(range(END + 1), probabilities)
        if token == END:
            break
        tokens.append(token)
    return "".join(LETTERS[token] for token in tokens[CONTEXT:])


def mnist(options: Namespace) -> str:
    """Train a 784-hidden-10 network on the 60,000 digits of MNIST in a folder, and test it on its 10,000 others."""
    start = time.perf_counter()
    manual_seed(options.seed)
    model = NETWORKS["mnist"](options.hidden)
    trainer = _trainer(model, options, dtype=options.dtype)
    try:
        train, test = (load_mnist(options.data, part, options.dtype) for part in (True, False))
    except (OSError, ValueError) as error:
        options.error(f"argument --data: {error}")
    print(f"{len(train):,} digits to learn from, {len(test):,} to test on; {_count(model):,} parameters")
    history, failure = _fit(trainer, train, options, _tell, batch_size=options.batch_size, validation_data=test)
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
    asked = {name: value for name, value in vars(options).items() if name not in NOT_ASKED}
    replace(options.report, report(title, figures, asked, [curves, *sections]))
    print(f"\nReport in {options.report}: open it in a browser.")


def _count(model: Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _trainer(
    model: Module, options: Namespace, loss_fn: Any = None, metric: Any = "accuracy", dtype: str = "float64"
) -> Trainer:
    optimizer = SGD(model.parameters(), lr=options.lr, momentum=0.9)
    try:
        return Trainer(model, loss_fn or CrossEntropyLoss(), optimizer, options.backend, dtype=dtype, metric=metric)
    except (ImportError, ValueError) as error:
        options.error(f"argument --{error}")  # it begins with the name: backend or dtype
        raise


def _tell(trainer: Trainer, history: History) -> None:
    print(history.line(), flush=True)


def _fit(trainer: Trainer, train: Any, options: Namespace, tell: Any, **data: Any) -> tuple[History, str]:
    """Train, and `tell` of each epoch. Returns what was recorded, and what went wrong, "" if nothing did.

    After Ctrl-C, or a number that is no longer finite, the model is as it was after the last whole epoch.
    """
    failure = ""
    scheduler = CosineAnnealingLR(trainer.optimizer, options.epochs) if "validation_data" in data else None
    try:
        trainer.fit(train, epochs=options.epochs, seed=options.seed, scheduler=scheduler, callbacks=tell, **data)
    except ArithmeticError as error:
        if not trainer.history:
            raise
        where = "" if f"{error}".startswith("epoch ") else f"epoch {len(trainer.history) + 1}: "
        failure = f"\nStopped in {where}{error}"
    if not trainer.history:
        raise KeyboardInterrupt
    return trainer.history, failure


def save(model: Module, options: Namespace) -> None:
    """Write what `predict` needs of the model, as JSON, to the file given with --save."""
    if options.save:
        saved = {"command": options.command, "hidden": options.hidden, "seed": options.seed}
        replace(options.save, json.dumps({**saved, "state_dict": model.state_dict()}))
        print(f"\nSaved to {options.save}: for what it says, {_program()} predict {options.save}")


def predict(options: Namespace) -> None:
    """Say what a model that was saved makes of new samples, or how it does on those that it did not learn from."""
    what, model, seed = _saved(options)
    options.lr = 0.0  # nothing is trained
    options.seed = seed if options.seed is None or what == "digits" else options.seed  # of the split, for digits
    if what == "names":
        _predict_names(model, options)
    elif what == "xor":
        _print_xor(model, _samples(options, 2) or [x for x, _ in xor()])
    else:
        _predict_digits(model, options, what)


def export(options: Namespace) -> None:
    """Write a model that was saved, or a function of a Python file, as C: a file that needs libm, and its header."""
    if options.c.suffix != ".c":
        options.error(f"argument model.c: expected a name that ends in .c, got {options.c}")
    f, example = _function_of_file(options) if ".py:" in f"{options.model}" else _saved_network(options)
    try:
        lowered = (f if isinstance(f, Compiled) else compile(f, backend="python")).lower(*example)
        lowered.save_c(options.c, dtype=options.dtype, parameters=options.parameters)
    except OSError as error:
        options.error(f"argument model.c: {error}")
    except (NotImplementedError, TraceError, ValueError) as error:
        options.error(f"argument model: {error}")
    print(f"Saved to {options.c} and {options.c.with_suffix('.h')}, which tells how it is called")


def _saved_network(options: Namespace) -> tuple[Any, list[Any]]:
    """The model that was saved as a function of one sample, and such a sample."""
    what, model, _ = _saved(options)
    if options.example:
        options.error(f"argument --example: expected none for a model that was saved, got {options.example[0]}")

    def network(sample: list[Any]) -> Any:
        return model([sample])[0]

    network.__doc__ = MEANINGS[what]
    return network, [[0.0] * {"digits": 64, "xor": 2, "names": CONTEXT, "mnist": 28 * 28}[what]]


def _function_of_file(options: Namespace) -> tuple[Any, list[Any]]:
    """What FILE.py:NAME names, and the example of its arguments."""
    file, _, name = f"{options.model}".rpartition(":")
    try:
        f: Any = run_path(file).get(name)
    except OSError as error:
        options.error(f"argument model: {error}")
    if not callable(f):
        options.error(f"argument model: expected the name of a function in {file}, got {name!r}")
    example = []
    for text in options.example:
        try:
            example.append(literal_eval(text))
        except (ValueError, SyntaxError):
            options.error(f"argument --example: expected numbers and lists of them, as Python has them, got {text!r}")
    try:
        signature(f).bind(*example)
    except TypeError as error:
        options.error(f"argument --example: expected the arguments of {name}{signature(f)}: {error}")
    return f, example


def _saved(options: Namespace) -> tuple[str, Module, int]:
    """What --save wrote to the file `model`: of which command, the model, and the seed."""
    try:
        saved = json.loads(options.model.read_text(encoding="utf-8"))
        what, hidden, seed = saved["command"], saved["hidden"], whole(saved["seed"], "seed")
        if hidden not in [len(x) for path, x in saved["state_dict"].items() if path.endswith("bias")]:
            raise ValueError(f"hidden: expected the length of the hidden layer, got {hidden!r:.60}")
        model = NETWORKS[what](hidden)
        model.load_state_dict(saved["state_dict"])
    except OSError as error:
        options.error(f"argument model: {error}")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        options.error(f"argument model: {options.model}: expected a file that --save wrote: {error}")
    return what, model, seed


def _predict_names(model: Module, options: Namespace) -> None:
    """Names that begin as asked for, or 20 that begin anyhow."""
    if wrong := [text for text in options.input if not {*text} <= {*LETTERS}]:
        options.error(f"argument input: expected beginnings of names, of letters from a to z, got {wrong[0]!r}")
    trainer, random = _trainer(model, options), Random(options.seed)
    for beginning in options.input or [""] * 20:
        print(make_up_name(trainer, random, beginning))


def _predict_digits(model: Module, options: Namespace, what: str) -> None:
    """The digit that each sample is read as, and how sure that is; or the accuracy on the test samples."""
    trainer = _trainer(model, options)
    if samples := _samples(options, 64 if what == "digits" else 28 * 28):
        for i, row in enumerate(trainer.predict(samples), 1):
            probabilities = [float(p) for p in softmax(row)]
            print(f"sample {i}: {probabilities.index(max(probabilities))}   ({max(probabilities):.1%} sure)")
        return
    if what == "digits":
        manual_seed(options.seed)
        test: Any = random_split(load_digits(), [0.8, 0.2])[1]
    elif options.data is None:
        options.error("argument --data: expected the folder of MNIST's files, or input to read")
    else:
        try:
            test = load_mnist(options.data, False)
        except (OSError, ValueError) as error:
            options.error(f"argument --data: {error}")
    confusion = [[0] * 10 for _ in range(10)]
    for (_, y), row in zip(test, trainer.predict(test)):
        confusion[y][row.index(max(row))] += 1
    right = sum(confusion[i][i] for i in range(10))
    print(f"Test accuracy: {right / len(test):.2%} of {len(test):,} digits\n\n{table(confusion)}")


def _samples(options: Namespace, n: int) -> list[list[float]]:
    """The samples in the files of `input`, one a line: n numbers, by commas or spaces; - is standard input."""
    samples = []
    for name in options.input:
        try:
            lines = sys.stdin if name == "-" else Path(name).read_text(encoding="utf-8").splitlines()
            for i, line in enumerate(lines, 1):
                numbers = [float(text) for text in line.replace(",", " ").split()]
                if numbers and (len(numbers) != n or not all(map(isfinite, numbers))):
                    raise ValueError(f"line {i}: expected {n} finite numbers, got {len(numbers)}")
                samples += [numbers] * bool(numbers)
        except (OSError, ValueError) as error:
            options.error(f"argument input: {name}: {error}")
    if options.input and not samples:
        options.error(f"argument input: expected samples, got {', '.join(options.input)} without any")
    return samples


def _program() -> str:
    """How this program was called: by the script that installing milligrad makes, or by Python."""
    return "milligrad" if Path(sys.argv[0]).stem == "milligrad" else "python -m milligrad"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and run what it asks for."""
    parser = ArgumentParser(prog=_program(), description="Networks of single numbers, trained before your eyes.")
    parser.add_argument("--version", action="version", version=f"milligrad {__version__}")
    commands = parser.add_subparsers(required=True, metavar="digits | xor | names | mnist | predict | export | cache")
    add_command(commands, "digits", digits, "handwritten digits of 8 by 8 pixels", epochs=15, hidden=32, lr=0.1)
    add_command(commands, "xor", xor_problem, "the exclusive or", epochs=200, hidden=4, lr=0.2)
    command = add_command(commands, "names", names, "first names, letter by letter", epochs=5, hidden=64, lr=0.03)
    command.add_argument("--batch-size", type=int, default=32, help="samples in a step")
    command = add_command(commands, "mnist", mnist, "the digits of MNIST", epochs=5, hidden=128, lr=0.05)
    command.add_argument("--batch-size", type=int, default=32, help="samples in a step")
    command.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder with its four files (.gz or not)"
    )
    command.add_argument("--dtype", choices=["float64", "float32"], default="float64", help="float32 on llvm only")
    add_predict(commands)
    add_export(commands)
    add_cache(commands)
    options = parser.parse_args(arguments)
    if options.command not in ("predict", "export", "cache"):
        _check(options)
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


def _check(options: Namespace) -> None:
    """Refuse options that make no sense, in the usage of their command, before anything runs."""
    for name in ("epochs", "hidden", "batch_size"):
        if getattr(options, name, 1) < 1:
            options.error(f"argument --{name.replace('_', '-')}: expected at least 1, got {getattr(options, name)}")
    if not 0 < options.lr < float("inf"):
        options.error(f"argument --lr: expected a number > 0, got {options.lr}")
    if options.save and options.save == options.report:
        options.error(f"argument --report: expected another file than that of --save, got {options.report}")
    for name in ("save", "report"):
        try:
            if path := getattr(options, name):
                if name == "report":
                    _check_page(path)
                _check_writable(path)
        except (OSError, ValueError) as error:
            options.error(f"argument --{name}: {error}")


def _check_page(path: Path) -> None:
    """A page has the ending of one. What is there and no file, such as a pipe, may have any name."""
    if path.suffix.lower() not in (".html", ".htm") and (path.is_file() or not path.exists()):
        raise ValueError(f"expected a name that ends in .html or .htm, got {path}")


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
    add_backend(command)
    command.set_defaults(run=run, command=name, error=command.error)
    return command


def add_cache(commands: Any) -> None:
    """The command that tells of the cache, and empties it."""
    about = "where compiled code is kept, and how much of it"
    command: ArgumentParser = commands.add_parser("cache", help=about, description=about)
    command.add_argument("--clear", action="store_true", help="remove it")
    command.set_defaults(run=show_cache, command="cache", error=command.error)


def show_cache(options: Namespace) -> None:
    """Tell where compiled code is kept, after removing it if that is asked."""
    if options.clear:
        cache.clear()
    print(cache.told())


def add_backend(command: ArgumentParser) -> None:
    """The option of all commands that says what computes."""
    command.add_argument("--backend", choices=BACKENDS, default="auto", help="what computes: eager is uncompiled")


def add_predict(commands: Any) -> None:
    """The command that uses what others have saved."""
    about = "what a model that was saved says"
    command: ArgumentParser = commands.add_parser("predict", help=about, description=predict.__doc__)
    command.add_argument("model", type=Path, metavar="model.json", help="file that --save wrote")
    command.add_argument(
        "input",
        nargs="*",
        help="files of samples, one a line, as numbers (- is standard input); for names, the beginnings of names",
    )
    command.add_argument("--data", type=Path, metavar="DIR", help="MNIST's files, to test a model of mnist on")
    command.add_argument("--seed", type=int, help="what names are drawn with (default: that of the training)")
    add_backend(command)
    command.set_defaults(run=predict, command="predict", error=command.error)


def add_export(commands: Any) -> None:
    """The command that writes as C what others have saved."""
    about = "a model or a function as C, for small devices"
    command: ArgumentParser = commands.add_parser("export", help=about, description=export.__doc__)
    command.add_argument("model", type=Path, metavar="model", help="file that --save wrote, or FILE.py:FUNCTION")
    command.add_argument("c", type=Path, metavar="model.c", help="file to write; its header, model.h, comes beside it")
    command.add_argument("--dtype", choices=["float64", "float32"], default="float64", help="double or float")
    command.add_argument(
        "--parameters", choices=["constants", "argument"], default="constants", help="in the file, or handed in"
    )
    command.add_argument(
        "--example",
        nargs="+",
        default=[],
        metavar="X",
        help="arguments of the function, of the right shapes: '[0, 0]' 1",
    )
    command.set_defaults(run=export, command="export", error=command.error)


if __name__ == "__main__":
    main()
