"""The command line: what it prints, saves, and refuses."""

import ctypes
import importlib.util
import io
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from random import Random

import pytest

import milligrad
import milligrad.__main__ as command_line
from milligrad import SGD, CrossEntropyLoss, Linear, ReLU, Sequential, manual_seed
from milligrad.__main__ import END, LETTERS, evaluate, main, make_up_name, table
from milligrad.data import DataLoader, load_digits, load_mnist, load_names, random_split
from tests.charts.reading import pixels
from tests.page import Page

ROOT = Path(__file__).parent.parent


def test_digits_learns_in_one_epoch_prints_what_it_reached_and_saves_the_model(capsys, tmp_path):
    file = tmp_path / "model.json"
    main(["digits", "--epochs", "1", "--hidden", "16", "--seed", "3", "--save", str(file)])
    printed = capsys.readouterr().out
    assert "1438 digits to learn from, 359 to test on; 1,210 parameters" in printed
    line = re.search(
        r"epoch  1/1   train: loss ([\d.]+), accuracy ([\d. ]+)%   test: loss ([\d.]+), accuracy ([\d. ]+)%", printed
    )
    assert float(line[1]) < 1 and float(line[3]) < 1 and float(line[2]) > 80 and float(line[4]) > 75

    rows = re.findall(r"^  is +(\d) \|((?: +[\d.]+){10})$", printed, re.MULTILINE)
    confusion = [[int(n) for n in cells.replace(".", "0").split()] for _, cells in rows]
    assert [int(digit) for digit, _ in rows] == list(range(10))
    assert sum(map(sum, confusion)) == 359
    accuracy = sum(confusion[i][i] for i in range(10)) / 359
    assert f"Test accuracy: {accuracy:.2%}" in printed

    saved = json.loads(file.read_text())
    model = Sequential(Linear(64, saved["hidden"]), ReLU(), Linear(saved["hidden"], 10))
    model.load_state_dict(saved["state_dict"])
    digits = load_digits()
    assert evaluate(model, [digits[i] for i in range(50)])[1] > 0.7
    manual_seed(3)
    for samples, figures in zip(random_split(digits, [0.8, 0.2]), (line.groups()[:2], line.groups()[2:])):
        loss, accuracy, _ = evaluate(model, samples)  # of both after the epoch
        assert (f"{loss:.4f}", f"{100 * accuracy:.2f}") == (figures[0], figures[1].strip())


def test_the_report_of_the_digits_is_what_was_printed(capsys, tmp_path):
    file, saved = tmp_path / "größe.html", tmp_path / "model.json"
    main(["digits", "--epochs", "2", "--hidden", "8", "--seed", "3", "--report", str(file), "--save", str(saved)])
    printed = capsys.readouterr().out
    assert printed.endswith(f"\nReport in {file}: open it in a browser.\n")
    page = Page(file.read_text(encoding="utf-8"))
    assert page.texts("h2") == ["How it learned", "Where it is wrong", "What it has learned", "Options"]
    figures = dict(zip(page.texts("dt"), page.texts("dd")))
    assert figures["Test accuracy"] == re.search(r"Test accuracy: (\S+)", printed)[1]
    assert figures["Parameters"] == re.search(r"([\d,]+) parameters", printed)[1] == "610"
    assert dict(zip(page.texts("th"), page.texts("td"))) == {
        "epochs": "2", "hidden": "8", "lr": "0.1", "seed": "3", "save": str(saved), "backend": "auto"
    }  # fmt: skip

    told = page.texts("title")
    for name, i in (("loss", 0), ("accuracy", 1), ("val_loss", 2), ("val_accuracy", 3)):
        rows = re.findall(r"loss ([\d.]+), accuracy +([\d.]+%)   test: loss ([\d.]+), accuracy +([\d.]+%)", printed)
        for epoch, row in enumerate(rows, 1):
            [found] = [s for s in told if s.startswith(f"{name}, epoch {epoch}: ")]
            number, expected = found.rsplit(" ", 1)[1], row[i]
            assert number == expected if "%" in expected else float(number) == pytest.approx(float(expected), abs=6e-5)

    confusion = re.findall(r"^  is +\d \|((?: +[\d.]+){10})$", printed, re.MULTILINE)
    counts = [int(n) for cells in confusion for n in cells.replace(".", "0").split()]
    assert [int(s.split(": ")[1].split(" of ")[0]) for s in told if re.match(r"is \d, read as \d: ", s)] == counts
    misread = [s for s in told if re.fullmatch(r"is \d, read as \d, \d+% sure", s)]
    wrong = sum(counts) - sum(counts[:: 10 + 1])
    assert len(misread) == min(wrong, 40) and page.texts("p")[1].startswith(f"{wrong} of 359 were misread.")

    model = Sequential(Linear(64, 8), ReLU(), Linear(8, 10))
    model.load_state_dict(json.loads(saved.read_text())["state_dict"])
    images = [attributes for tag, attributes, _ in page.elements if tag == "image"]
    assert len(images) == len(misread) + 8
    blue = [w > 0 for row in model[0].weight.data for w in row]
    found = [p for image in images[-8:] for row in pixels(b64decode(image["href"].split(",")[1])) for p in row]
    assert all((p[2] > p[0]) == b for p, b in zip(found, blue, strict=True) if p[3])


def test_the_report_of_xor_shows_where_it_says_what(capsys, tmp_path):
    file = tmp_path / "report.html"
    main(["xor", "--report", str(file)])
    printed = capsys.readouterr().out
    answers = [float(p) > 0.5 for p in re.findall(r"xor .: ([\d.]+)", printed)]
    assert answers == [False, True, True, False]
    page = Page(file.read_text(encoding="utf-8"))
    assert [text for tag, _, text in page.elements if tag == "desc"][1].startswith("4 points of 2 classes; 4 of them")
    losses = [float(s.split(": ")[1]) for s in page.texts("title") if s.startswith("loss, epoch")]
    assert len(losses) == 200
    for epoch, loss in re.findall(r"epoch +(\d+)/200   loss ([\d.]+)", printed):
        assert losses[int(epoch) - 1] == pytest.approx(float(loss), abs=6e-5)
    assert page.texts("dd") == [f"{losses[-1]:.4f}"]
    assert page.texts("h2") == ["How it learned", "What it has learned", "Options"]


def test_a_model_that_has_come_to_nan_ends_in_one_line_with_a_report_of_the_epochs_before(capsys, tmp_path):
    file = tmp_path / "report.html"
    arguments = ["--lr", "1e308", "--backend", "python", "--report", str(file)]
    with pytest.raises(SystemExit) as stop:
        main(["digits", "--hidden", "4", "--epochs", "1", *arguments])
    assert stop.value.code.startswith("\nStopped, nothing was saved: epoch 1, batch 2: the loss is nan: ")
    assert not file.exists() and stop.value.code.count("\n") == 1
    with pytest.raises(SystemExit) as stop:
        main(["xor", "--hidden", "100", "--epochs", "8", *arguments])
    epoch = int(re.match(r"\nStopped in epoch (\d), batch 1: the loss is (nan|inf)", stop.value.code)[1])
    page = Page(file.read_text(encoding="utf-8"))
    assert page.texts("p")[0].startswith(f"{epoch - 1} epochs.") and "nan%" not in file.read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes there")
def test_a_report_goes_through_a_pipe(capsys, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True, encoding="utf-8") as reader:
        main(["xor", "--epochs", "2", "--report", str(pipe)])
        assert Page(reader.stdout.read()).texts("h1") == ["Exclusive or"]


def test_the_same_seed_gives_the_same_run(capsys):
    runs = []
    for seed in ("4", "4", "5"):
        main(["xor", "--epochs", "20", "--seed", seed])
        runs.append(capsys.readouterr().out)
    assert runs[0] == runs[1] != runs[2]


def test_xor_is_learned_from_a_bare_clone_with_no_package_installed():
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"]
    command[-1] += "from milligrad.__main__ import main; main(['xor'])"
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    outputs = re.findall(r"(\d) xor (\d): ([\d.]+)", printed)
    assert [(int(a) ^ int(b)) for a, b, _ in outputs] == [round(float(p)) for *_, p in outputs]
    assert len(outputs) == 4


def test_all_that_is_printed_is_ascii_so_that_any_terminal_can_show_it():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for arguments in (["--help"], ["digits", "--help"], ["mnist", "--help"], ["xor", "--epochs", "3"]):
        command = [sys.executable, "-m", "milligrad", *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment)
    assert table([[1, 0], [0, 1]]).isascii()


def test_an_interrupted_run_ends_without_a_traceback(monkeypatch):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "xor_problem", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(["xor"])
    assert stop.value.code == "\nInterrupted: nothing was saved"


def test_output_that_nobody_reads_on_ends_without_a_traceback():
    command = f"{sys.executable} -m milligrad xor --epochs 2000 | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert "loss" in done.stdout and "Traceback" not in done.stderr


def test_evaluate_counts_losses_and_confusions():
    model = Sequential(Linear(2, 10))
    model[0].weight.copy_([[0.0, 0.0]] * 10)
    model[0].bias.copy_([1.0] + [0.0] * 9)
    loss, accuracy, confusion = evaluate(model, [([0.0, 0.0], 0), ([1.0, 1.0], 3)])
    norm = math.log(math.e + 9)
    assert math.isclose(loss, (norm - 1 + norm) / 2, rel_tol=1e-12)
    assert accuracy == 0.5
    assert confusion[0][0] == confusion[3][0] == 1 == sum(map(sum, confusion)) - 1


def test_the_table_shows_zeros_as_dots():
    assert table([[12, 0], [1, 3]]).splitlines() == [
        "           0   1   <- read as",
        "        --------",
        "  is  0 |  12   .",
        "  is  1 |   1   3",
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["digits", "--epochs", "0"], "argument --epochs: expected at least 1, got 0"),
        (["digits", "--hidden", "-3"], "argument --hidden: expected at least 1, got -3"),
        (["xor", "--lr", "-1"], "argument --lr: expected a number > 0, got -1.0"),
        (["xor", "--lr", "nan"], "argument --lr: expected a number > 0, got nan"),
        (
            ["xor", "--save", "no/such/folder/model.json"],
            "argument --save: [Errno 2] No such file or directory: 'no/such/folder/model.json'",
        ),
        (["xor", "--save", "."], "argument --save: [Errno 21] Is a directory"),
        (["xor", "--report", "."], "argument --report: [Errno 21] Is a directory"),
        (["digits", "--report", "no/such/folder/r.html"], "argument --report: [Errno 2] No such file or directory"),
        (
            ["xor", "--report", "x", "--save", "x"],
            "argument --report: expected another file than that of --save, got x",
        ),
        (["xor", "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["names", "--batch-size", "0"], "argument --batch-size: expected at least 1, got 0"),
        (["names", "--backend", "gpu"], "argument --backend: invalid choice: 'gpu'"),
        (["mnist"], "the following arguments are required: --data"),
        (["mnist", "--data", ".", "--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        (
            ["digits", "--report", "x.txt"],
            "milligrad digits: error: argument --report: expected a name that ends in .html",
        ),
        (["xor", "--report", "html"], "argument --report: expected a name that ends in .html or .htm, got html"),
        (["digits", "--backend", "gpu"], "milligrad digits: error: argument --backend: invalid choice: 'gpu'"),
        (["predict"], "the following arguments are required: model.json"),
        (["predict", "no/model.json"], "argument model: [Errno 2] No such file or directory: 'no/model.json'"),
        (["predict", __file__], "test___main__.py: expected a file that --save wrote"),
        (["cifar"], "invalid choice: 'cifar'"),
        ([], "the following arguments are required: digits | xor | names | mnist"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.fixture
def few_names(monkeypatch):
    monkeypatch.setattr(command_line, "load_names", lambda: load_names()[::200])


def test_names_learns_from_nine_tenths_prints_what_it_reached_and_makes_up_20(few_names, capsys, tmp_path):
    file = tmp_path / "model.json"
    arguments = ["--hidden", "8", "--lr", "0.1", "--backend", "eager", "--save", str(file)]
    main(["names", "--epochs", "3", *arguments, "--report", str(tmp_path / "report.html")])
    lines = capsys.readouterr().out.splitlines()
    learned, tested, parameters = map(int, re.findall(r"(\d+) (?:letters|to test|parameters)", lines[0]))
    assert learned + tested == sum(len(name) + 1 for name in load_names()[::200]) and 6 * tested < learned
    assert parameters == 27 * 8 + 8 * 24 + 8 + 27 * 8 + 27
    losses = [float(re.match(rf"epoch {i + 1}   loss ([\d.]+)", line)[1]) for i, line in enumerate(lines[1:4])]
    assert losses[2] < losses[0] < math.log(27) + 0.1
    made = lines[5:25]
    assert all(set(name) <= set(LETTERS) and len(name) <= 15 for name in made) and len({*made}) > 10
    assert len(json.loads(file.read_text())["state_dict"]["0.weight"]) == 27
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.texts("h2") == ["How it learned", "Names it made up", "Options"]
    assert page.texts("p")[1].split(", ") == made
    last = re.search(r"val_loss ([\d.]+)   val_accuracy (\S+)", lines[3])
    assert float(page.texts("dd")[0]) == pytest.approx(float(last[1]), abs=1e-3) and page.texts("dd")[1] == last[2]


def test_the_windows_of_a_name_are_each_three_tokens_and_the_next_one():
    assert list(command_line._windows(["abcd", "z"])) == [
        ([END, END, END], 0),
        ([END, END, 0], 1),
        ([END, 0, 1], 2),
        ([0, 1, 2], 3),
        ([1, 2, 3], END),
        ([END, END, END], 25),
        ([END, END, 25], END),
    ]


class Sure:
    """In the place of a Trainer: it predicts the letter after the last one, up to `last`, and then the end."""

    def __init__(self, last):
        self.last = last

    def predict(self, contexts):
        [(_, _, token)] = contexts
        following = 0 if token == END else (token + 1) % 26 if token != self.last else END
        return [[50.0 * (i == following) for i in range(27)]]


def test_a_made_up_name_is_drawn_from_what_is_predicted_up_to_15_letters():
    assert make_up_name(Sure(3), Random(0)) == "abcd"
    assert make_up_name(Sure(None), Random(0)) == "abcdefghijklmno"


def write_mnist(folder, train=100, test=40):
    """MNIST's four files, of digits that are easy: some noise, and lines 2·digit and 2·digit + 1 black."""
    random = Random(0)
    for part, n in (("train", train), ("t10k", test)):
        labels = bytes(random.randrange(10) for _ in range(n))
        images = bytes(
            255 if i // 28 // 2 == label else random.choice((0, 0, 0, 128)) for label in labels for i in range(784)
        )
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">HBBIII", 0, 8, 3, n, 28, 28) + images)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, n) + labels)
    return folder


def test_mnist_is_the_loop_that_one_would_write(tmp_path, capsys):
    folder, file = write_mnist(tmp_path), tmp_path / "model.json"
    arguments = ["--hidden", "8", "--epochs", "2", "--batch-size", "16", "--lr", "0.02", "--seed", "3"]
    report = tmp_path / "report.html"
    main(
        ["mnist", "--data", str(folder), "--backend", "eager", "--save", str(file), "--report", str(report), *arguments]
    )
    printed = capsys.readouterr().out

    manual_seed(3)
    train, test = load_mnist(folder), load_mnist(folder, train=False)
    model, loss_fn = Sequential(Linear(784, 8), ReLU(), Linear(8, 10)), CrossEntropyLoss()
    optimizer, loader = SGD(model.parameters(), lr=0.02, momentum=0.9), DataLoader(train, 16, shuffle=True, seed=3)
    for lr in (0.02, 0.01):  # a cosine over two epochs
        optimizer.param_groups[0]["lr"] = lr
        for xs, ys in loader:
            loss = loss_fn(model(xs), ys)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    loss, accuracy, _ = evaluate(model, test)

    assert "100 digits to learn from, 40 to test on; 6,370 parameters" in printed
    last = re.search(r"epoch 2 .* val_loss ([\d.]+)   val_accuracy ([\d.]+)%   lr 0.01 ", printed)
    assert float(last[1]) == pytest.approx(loss, rel=1e-3)
    assert f"Test accuracy: {accuracy:.2%}\n" in printed and float(last[2]) == pytest.approx(100 * accuracy, abs=0.01)
    assert re.search(r"Total time: [\d.]+ s", printed)
    _, _, confusion = evaluate(model, test)
    page = Page(report.read_text(encoding="utf-8"))
    told = [s for s in page.texts("title") if re.match(r"is \d, read as \d: ", s)]
    assert [int(s.split(": ")[1].split(" of ")[0]) for s in told] == [n for row in confusion for n in row]
    assert page.texts("dd")[0] == f"{accuracy:.2%}"
    saved = json.loads(file.read_text())["state_dict"]["2.weight"]
    assert [x for row in saved for x in row] == pytest.approx(
        [p.data for row in model[2].weight for p in row], rel=1e-9
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_mnist_learns_on_llvm_in_both_precisions(tmp_path, capsys, dtype):
    pytest.importorskip("llvmlite")
    folder = write_mnist(tmp_path)
    main(["mnist", "--data", str(folder), "--backend", "llvm", "--dtype", dtype, "--hidden", "8", "--epochs", "12"])
    assert "Test accuracy: 100.00%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--backend", "eager"], "argument --data: nowhere: expected one of the files train-images-idx3-ubyte"),
        (["--backend", "eager", "--dtype", "float32"], "argument --dtype: expected 'float64' on the backend 'eager'"),
        (["--backend", "llvm"], "argument --backend: 'llvm' needs llvmlite, which is not installed: pip install"),
    ],
)
def test_mnist_says_what_keeps_it_from_starting(monkeypatch, capsys, arguments, complaint):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        main(["mnist", "--data", "nowhere", *arguments])
    told = capsys.readouterr().err
    assert stop.value.code == 2 and told.startswith("usage: python -m milligrad mnist ")
    assert f"python -m milligrad mnist: error: {complaint}" in told


@pytest.mark.parametrize("command", ["digits", "xor", "names", "predict"])
def test_a_backend_that_is_not_installed_is_an_error_of_the_command(monkeypatch, capsys, tmp_path, command):
    saved = tmp_path / "model.json"
    main(["xor", "--epochs", "1", "--save", str(saved), "--backend", "eager"])
    main(["digits", "--epochs", "1", "--hidden", "2", "--save", str(saved), "--backend", "python"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        main([command, *[str(saved)] * (command == "predict"), "--backend", "llvm"])
    told = capsys.readouterr().err
    assert stop.value.code == 2 and f"usage: python -m milligrad {command} " in told
    assert f"python -m milligrad {command}: error: argument --backend: 'llvm' needs llvmlite, which is not" in told


# ── Versions, names, and what was saved ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("called", ["/usr/bin/milligrad", "milligrad.exe", "/x/milligrad/__main__.py", "pytest"])
def test_the_program_calls_itself_as_it_was_called(monkeypatch, capsys, called):
    monkeypatch.setattr(sys, "argv", [called])
    name = "milligrad" if "milligrad" in Path(called).name else "python -m milligrad"
    for arguments, start in (["--help"], f"usage: {name} [-h]"), (["xor", "--help"], f"usage: {name} xor [-h]"):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0 and capsys.readouterr().out.startswith(start)
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"milligrad {milligrad.__version__}\n"


def test_what_digits_saved_predicts_as_was_printed(capsys, tmp_path):
    file, samples = tmp_path / "model.json", tmp_path / "samples.csv"
    main(["digits", "--epochs", "2", "--hidden", "8", "--seed", "5", "--backend", "python", "--save", str(file)])
    trained = capsys.readouterr().out
    for backend in ("eager", "python"):
        main(["predict", str(file), "--backend", backend])
        told = capsys.readouterr().out
        assert re.search(r"Test accuracy: (\S+)", told)[1] == re.search(r"Test accuracy: (\S+)", trained)[1]
        assert told.partition("\n\n")[2] == trained[trained.index("           0") :]

    model = Sequential(Linear(64, 8), ReLU(), Linear(8, 10))
    model.load_state_dict(json.loads(file.read_text())["state_dict"])
    digits = load_digits()
    xs = [digits[i][0] for i in range(5)]
    samples.write_text("\n".join([",".join(map(str, x)) for x in xs[:3]] + ["", " ".join(map(str, xs[3]))]))
    main(["predict", str(file), str(samples), "--backend", "eager"])
    read = [[z.data for z in model(x)] for x in xs[:4]]
    expected = [logits.index(max(logits)) for logits in read]
    assert re.findall(r"^sample (\d): (\d)   \(\d+\.\d% sure\)$", capsys.readouterr().out, re.MULTILINE) == [
        (str(i), str(digit)) for i, digit in enumerate(expected, 1)
    ]


def test_what_xor_and_names_saved_predicts(few_names, monkeypatch, capsys, tmp_path):
    file = tmp_path / "model.json"
    main(["xor", "--epochs", "50", "--save", str(file), "--backend", "eager"])
    trained = capsys.readouterr().out
    main(["predict", str(file)])
    told = capsys.readouterr().out
    assert told in trained and told.count("should be") == 4
    monkeypatch.setattr(sys, "stdin", io.StringIO("0.5 1\n0,1\n"))
    main(["predict", str(file), "-"])
    assert re.fullmatch(r"0.5 xor 1: 0\.\d{4}\n0 xor 1: 0\.\d{4}   \(should be 1\)\n", capsys.readouterr().out)

    main(["names", "--epochs", "1", "--hidden", "4", "--save", str(file), "--backend", "eager"])
    made = capsys.readouterr().out.split("\n\n")[1].split("\n")
    main(["predict", str(file), "--backend", "eager"])
    assert capsys.readouterr().out.split("\n")[:20] == made[:20]
    main(["predict", str(file), "ma", "jo", "--seed", "1", "--backend", "eager"])
    assert [name[:2] for name in capsys.readouterr().out.splitlines()] == ["ma", "jo"]


def test_what_mnist_saved_predicts(capsys, tmp_path):
    folder, file = write_mnist(tmp_path), tmp_path / "model.json"
    options = ["--data", str(folder), "--backend", "eager"]
    main(["mnist", "--hidden", "4", "--epochs", "1", "--save", str(file), *options])
    accuracy = re.search(r"Test accuracy: (\S+)", capsys.readouterr().out)[1]
    main(["predict", str(file), *options])
    assert f"Test accuracy: {accuracy} of 40 digits" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["predict", str(file)])
    assert "argument --data: expected the folder of MNIST's files, or input to read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1 2 3", "line 1: expected 2 finite numbers, got 3"),
        ("0 1\n1 nan", "line 2: expected 2 finite numbers, got 2"),
        ("one two", "could not convert string to float: 'one'"),
        ("", "expected samples, got"),
    ],
)
def test_input_that_makes_no_samples_is_refused(capsys, tmp_path, text, complaint):
    file, samples = tmp_path / "model.json", tmp_path / "samples.txt"
    main(["xor", "--epochs", "1", "--save", str(file), "--backend", "eager"])
    samples.write_text(text)
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(file), str(samples)])
    told = capsys.readouterr().err
    assert stop.value.code == 2 and "milligrad predict: error: argument input: " in told and complaint in told


def test_a_saved_file_that_is_broken_is_refused(capsys, tmp_path):
    file = tmp_path / "model.json"
    main(["xor", "--epochs", "1", "--save", str(file), "--backend", "eager"])
    saved = json.loads(file.read_text())
    wrong = [None, [], 3, {}, *[{**saved, name: x} for name in saved for x in (None, "q", [], {}, math.nan, -1, 10**9)]]
    for state in [x for x in wrong if not (isinstance(x, dict) and x.get("seed", 0) in (-1, 10**9))]:
        file.write_text(json.dumps(state))
        with pytest.raises(SystemExit) as stop:
            main(["predict", str(file)])
        assert stop.value.code == 2 and "expected a file that --save wrote" in capsys.readouterr().err, state


def test_an_interrupt_in_the_first_epoch_saves_nothing_and_a_later_one_the_last_whole_epoch(
    few_names, monkeypatch, capsys, tmp_path
):
    file, steps = tmp_path / "model.json", 0

    class Loss(CrossEntropyLoss):
        def forward(self, input, target):
            nonlocal steps
            steps -= 1
            if steps < 0:
                raise KeyboardInterrupt
            return super().forward(input, target)

    monkeypatch.setattr(command_line, "CrossEntropyLoss", Loss)
    arguments = ["names", "--epochs", "9", "--hidden", "4", "--batch-size", "64", "--backend", "eager"]
    steps = 3
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--save", str(file)])
    assert stop.value.code == "\nInterrupted: nothing was saved" and not file.exists()
    steps = 8
    main([*arguments, "--save", str(file)])
    epochs = re.findall("^epoch (.)", capsys.readouterr().out, re.MULTILINE)
    assert epochs == ["1"] and json.loads(file.read_text())["hidden"] == 4


@pytest.mark.parametrize("command", ["digits", "names"])
def test_a_run_without_one_whole_epoch_saves_nothing_and_says_why(few_names, monkeypatch, capsys, tmp_path, command):
    class Loss(CrossEntropyLoss):
        def forward(self, input, target):
            raise OverflowError("too large")

    monkeypatch.setattr(command_line, "CrossEntropyLoss", Loss)
    with pytest.raises(SystemExit) as stop:
        main([command, "--save", str(tmp_path / "model.json"), "--report", str(tmp_path / "report.html")])
    assert stop.value.code == "\nStopped, nothing was saved: too large" and os.listdir(tmp_path) == []


def test_a_loss_that_is_nan_ends_the_run_in_one_line(few_names, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(["names", "--lr", "1e308", "--hidden", "4", "--backend", "python", "--report", str(tmp_path / "r.html")])
    assert stop.value.code.startswith("\nStopped, nothing was saved: epoch 1, batch 2: the loss is nan: ")
    assert os.listdir(tmp_path) == []
    assert stop.value.code.count("\n") == 1


def test_a_run_that_ends_in_a_later_epoch_saves_and_reports_the_epochs_before(few_names, monkeypatch, capsys, tmp_path):
    file, report, steps = tmp_path / "model.json", tmp_path / "report.html", 8

    class Loss(CrossEntropyLoss):
        def forward(self, input, target):
            nonlocal steps
            steps -= 1
            if steps < 0:
                raise FloatingPointError("the loss is nan")
            return super().forward(input, target)

    arguments = ["names", "--hidden", "4", "--batch-size", "64", "--backend", "eager", "--lr", "0.1"]
    with monkeypatch.context() as patched:
        patched.setattr(command_line, "CrossEntropyLoss", Loss)
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--epochs", "9", "--save", str(file), "--report", str(report)])
    assert re.fullmatch(r"\nStopped in epoch 2, batch \d: the loss is nan", stop.value.code)
    page, printed = Page(report.read_text(encoding="utf-8")), capsys.readouterr().out
    assert page.texts("p")[0].startswith("1 epoch.") and re.findall("^epoch (.)", printed, re.MULTILINE) == ["1"]
    whole = tmp_path / "whole.json"
    main([*arguments, "--epochs", "1", "--save", str(whole)])
    assert json.loads(file.read_text()) == json.loads(whole.read_text())


def test_a_model_that_has_come_to_nan_makes_up_no_letters(few_names, capsys, tmp_path):
    with pytest.raises(SystemExit, match="Stopped, nothing was saved: epoch 1, batch 2: the loss is nan: "):
        main(["names", "--epochs", "1", "--lr", "1e308", "--hidden", "4", "--backend", "eager"])
    model = command_line.NETWORKS["names"](4)
    trainer = milligrad.Trainer(model, CrossEntropyLoss(), SGD(model.parameters(), lr=0.1), backend="eager")
    for v in model.values():
        v.data = math.nan
    with pytest.raises(FloatingPointError, match=r"the prediction\[0\] is nan"):
        make_up_name(trainer, Random(0))


# ── What was saved, as C ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize("command", ["digits", "xor", "names", "mnist"])
def test_export_writes_what_was_saved_as_c(few_names, capsys, tmp_path, command):
    file, more = tmp_path / "saved.json", []
    if command == "mnist":
        more = ["--data", str(write_mnist(tmp_path))]
    options = ["--hidden", "4", "--epochs", "1", "--backend", "eager"]
    main([command, *options, *more, "--save", str(file)])
    capsys.readouterr()
    main(["export", str(file), str(tmp_path / "net.c"), "--dtype", "float32"])
    assert capsys.readouterr().out.startswith(f"Saved to {tmp_path / 'net.c'} and {tmp_path / 'net.h'}")
    header = (tmp_path / "net.h").read_text()
    assert command_line.MEANINGS[command].replace("\n", "\n   ") in header
    size = {what: int(n) for what, n in re.findall(r"#define NET_(\w+) (\d+)", header)}

    model = command_line.NETWORKS[command](4)
    model.load_state_dict(json.loads(file.read_text())["state_dict"])
    x = [(3 * i + 1) % 7 for i in range(size["ARGUMENTS"])]
    want = [z.data for z in model([x])[0]]
    library = tmp_path / "net.so"
    cc = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-shared", "-fPIC"]
    subprocess.run([*cc, "-o", library, tmp_path / "net.c", "-lm"], check=True)
    results, work = (ctypes.c_float * size["RESULTS"])(), (ctypes.c_float * size["WORK"])()
    ctypes.CDLL(str(library)).net((ctypes.c_float * len(x))(*x), results, work)
    assert list(results) == pytest.approx(want, rel=1e-4, abs=1e-5)

    main(["export", str(file), str(tmp_path / "net.c"), "--parameters", "argument"])
    count = sum(p.numel() for p in model.parameters())
    assert f"#define NET_PARAMETERS {count}\n" in (tmp_path / "net.h").read_text()


def test_export_of_a_function_in_a_file(capsys, tmp_path):
    code = tmp_path / "code.py"
    code.write_text(
        "from milligrad import compile, sin, value_and_grad\n"
        "def swing(x, rest):\n    return sin(x) * rest[0] + rest[1]\n"
        "gradient = compile(value_and_grad(swing), backend='python')\n"
    )
    for name, results in ("swing", 1), ("gradient", 2):
        main(["export", f"{code}:{name}", str(tmp_path / f"{name}.c"), "--example", "-1.5", "[1, 2.0]"])
        assert "arguments[1 .. 2]        rest[2]\n" in (tmp_path / f"{name}.c").read_text()
        assert f"RESULTS {results}\n" in (tmp_path / f"{name}.h").read_text()


def test_export_says_what_is_wrong(capsys, tmp_path):
    file, code = tmp_path / "model.json", tmp_path / "code.py"
    code.write_text(
        "from milligrad import nn\ndef f(x):\n    return nn.Dropout()(x)\ndef h(x):\n    return 1 if x > 0 else 0\n"
    )
    main(["xor", "--epochs", "1", "--save", str(file), "--backend", "eager"])
    for arguments, complaint in (
        ([], "the following arguments are required: model, model.c"),
        ([str(file)], "the following arguments are required: model.c"),
        (["no.json", "model.c"], "argument model: [Errno 2] No such file or directory: 'no.json'"),
        ([__file__, "model.c"], "test___main__.py: expected a file that --save wrote"),
        ([str(file), "model.txt"], "argument model.c: expected a name that ends in .c, got model.txt"),
        ([str(file), str(tmp_path / "no" / "model.c")], "argument model.c: [Errno 2] No such file or directory"),
        ([str(file), "model.c", "--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        (
            [str(file), "model.c", "--example", "1"],
            "argument --example: expected none for a model that was",
        ),
        (["no.py:f", "model.c"], "argument model: [Errno 2] No such file or directory: "),
        ([f"{code}:g", "model.c"], f"argument model: expected the name of a function in {code}, got 'g'"),
        (
            [f"{code}:f", "model.c", "--example", "x"],
            "argument --example: expected numbers and lists of",
        ),
        ([f"{code}:f", "model.c", "--example", "[1, 2]"], "argument model: f: draws random numbers"),
        ([f"{code}:f", "model.c"], "argument --example: expected the arguments of f(x): missing a required argument"),
        ([f"{code}:f", "model.c", "--example", "1", "2"], "expected the arguments of f(x): too many"),
        ([f"{code}:h", "model.c", "--example", "1"], "Write where(condition, a, b)"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["export", *arguments])
        told = capsys.readouterr().err
        assert stop.value.code == 2 and "usage: python -m milligrad export " in told and complaint in told
    assert {*tmp_path.iterdir()} == {file, code}


def test_cache_tells_where_code_is_kept_and_removes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MILLIGRAD_CACHE", str(tmp_path / "kept"))
    main(["cache"])
    milligrad.compile(lambda x: x + 1, backend="python")(1.0)
    main(["cache"])
    main(["cache", "--clear"])
    told = capsys.readouterr().out.splitlines()
    assert [line.removeprefix(f"{tmp_path / 'kept'}: ") for line in told] == [
        "nothing yet", "1 file, 0.0 MB", "0 files, 0.0 MB",
    ]  # fmt: skip
