"""The command line: what it prints, saves, and refuses."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import milligrad.__main__ as command_line
from milligrad import Linear, ReLU, Sequential
from milligrad.__main__ import evaluate, main, table
from milligrad.data import load_digits

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
    for arguments in (["--help"], ["digits", "--help"], ["xor", "--epochs", "3"]):
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
        (["xor", "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["mnist"], "invalid choice: 'mnist'"),
        ([], "the following arguments are required: digits | xor"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err
