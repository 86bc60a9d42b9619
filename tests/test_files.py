import os

import pytest

from milligrad.files import replace


@pytest.mark.parametrize("content", ["größer\nthan", b"\x00\xff"])
def test_the_file_is_what_was_written(tmp_path, content):
    for _ in range(2):
        replace(tmp_path / "x", content)
    assert (tmp_path / "x").read_bytes() == (content if isinstance(content, bytes) else content.encode("utf-8"))
    assert os.listdir(tmp_path) == ["x"]


def test_what_can_not_be_written_leaves_the_old_file_alone(tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        replace(tmp_path / "x", "lone \ud800")
    assert (tmp_path / "x").read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]
