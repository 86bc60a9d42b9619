"""The faults of break_each_pass.py can be made, each in one place, and every file of passes and printers has some."""

import ast
from pathlib import Path

import pytest

from tests.compiler import break_each_pass
from tests.compiler.break_each_pass import FAULTS, ROOT, TESTS

COMPILER = ROOT / "milligrad" / "compiler"
FOLDERS = ("passes", "python", "llvm", "c")


def text_of(file):
    return (COMPILER / f"{file}.py").read_text()


@pytest.mark.parametrize("file", FAULTS)
def test_each_fault_is_one_place_of_its_file_and_leaves_code(file):
    text = text_of(file)
    for name, (old, new) in FAULTS[file].items():
        assert text.count(old) == 1, f"{name}: {text.count(old)} times {old!r}"
        ast.parse(text.replace(old, new))


@pytest.mark.parametrize("file", FAULTS)
def test_the_tests_that_have_to_notice_exist(file):
    assert TESTS[file] and all((ROOT / break_each_pass.tests_of(name)).is_file() for name in TESTS[file])


def test_every_file_of_passes_and_printers_has_faults():
    files = {f"{folder}/{path.stem}" for folder in FOLDERS for path in Path(COMPILER, folder).glob("[!_]*.py")}
    assert files - FAULTS.keys() == set()
    assert min(map(len, FAULTS.values())) >= 3
