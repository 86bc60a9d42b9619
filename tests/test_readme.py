"""Every code block of the README runs, and prints what the README says it prints."""

import contextlib
import io
import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_each_python_block_prints_the_text_block_that_follows_it():
    blocks = BLOCK.findall(README)
    namespace: dict[str, object] = {}
    ran = 0
    for (kind, code), (next_kind, promised) in zip(blocks, [*blocks[1:], ("", "")]):
        if kind != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "README.md", "exec"), namespace)
        assert printed.getvalue() == (promised if next_kind == "text" else ""), code
        ran += 1
    assert ran == 5


def test_every_block_is_python_its_output_or_one_of_the_two_commands():
    kinds = [kind for kind, _ in BLOCK.findall(README)]
    assert set(kinds) == {"sh", "python", "text"}
    assert kinds.count("sh") == 2  # .ci/run runs both
