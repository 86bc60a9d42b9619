"""Every code block of the READMEs runs, and prints what is said there that it prints."""

import builtins
import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = {"README.md": 10, "milligrad/compiler/README.md": 11}  # of Python
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", BLOCKS)
def test_each_python_block_prints_the_text_block_that_follows_it(path):
    blocks = BLOCK.findall((ROOT / path).read_text(encoding="utf-8"))
    namespace: dict[str, object] = {}
    ran = 0
    for (kind, code), (next_kind, promised) in zip(blocks, [*blocks[1:], ("", "")]):
        if kind != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(builtins.compile(code, path, "exec"), namespace)
        assert printed.getvalue() == (promised if next_kind == "text" else ""), code
        ran += 1
    assert ran == BLOCKS[path]


def test_every_block_is_python_its_output_or_one_of_the_two_commands():
    kinds = [kind for kind, _ in BLOCK.findall(README)]
    assert set(kinds) == {"sh", "python", "text"}
    assert kinds.count("sh") == 2  # .ci/run runs both
