import os

import pytest

from milligrad.files import replace, save


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


@pytest.mark.parametrize("name", ["x.a", "x.B", "x.b.A"])
def test_the_name_says_the_format(tmp_path, name):
    save(tmp_path / name, {".a": lambda: "first", ".b": lambda: b"second"})
    assert (tmp_path / name).read_text() == ("second" if name == "x.B" else "first")


@pytest.mark.parametrize("name", ["x", "a", ".a", "x.c", "x.a.c", ""])
def test_another_name_is_refused_before_anything_is_made(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"path: expected a name that ends in \.a, \.b, got"):
        save(name, {".a": lambda: pytest.fail("made"), ".b": lambda: ""})
    assert os.listdir(tmp_path) == []
