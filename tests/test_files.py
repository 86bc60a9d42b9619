import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions, links and pipes are others there")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@posix
def test_an_old_file_keeps_its_permissions_and_a_new_one_has_the_usual_ones(tmp_path):
    with open(tmp_path / "plain", "w"):
        pass
    replace(tmp_path / "new", "")
    assert mode(tmp_path / "new") == mode(tmp_path / "plain")
    (tmp_path / "x").write_text("old")
    for permissions in (0o600, 0o640, 0o755):
        (tmp_path / "x").chmod(permissions)
        replace(tmp_path / "x", "new")
        assert mode(tmp_path / "x") == permissions


@posix
def test_of_a_link_the_file_that_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_text("old")
    (tmp_path / "first").symlink_to("folder/x")
    (tmp_path / "second").symlink_to("first")
    replace(tmp_path / "second", "new")
    assert (tmp_path / "second").is_symlink() and (tmp_path / "first").is_symlink()
    assert (tmp_path / "folder" / "x").read_text() == "new" and os.listdir(tmp_path / "folder") == ["x"]


@posix
def test_a_pipe_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as pool:
        heard = pool.submit((tmp_path / "pipe").read_text)
        replace(tmp_path / "pipe", "through it")
        assert heard.result() == "through it"
    assert (tmp_path / "pipe").is_fifo() and os.listdir(tmp_path) == ["pipe"]


@posix
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nowhere/x", FileNotFoundError),
        ("new/", FileNotFoundError),
        ("", FileNotFoundError),
        ("file/x", NotADirectoryError),
        ("folder", IsADirectoryError),
    ],
)
def test_an_error_names_the_path_that_was_given(tmp_path, monkeypatch, name, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(error) as raised:
        replace(name, "")
    assert raised.value.filename == name and str(raised.value).endswith(f": {name!r}")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_what_the_system_refuses_leaves_the_old_file_alone(tmp_path, monkeypatch):
    def refuse(part, target):
        raise OSError(errno.EACCES, "Permission denied", part, None, target)

    (tmp_path / "x").write_text("old")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError) as raised:
        replace(tmp_path / "x", "new")
    assert str(raised.value) == f"[Errno {errno.EACCES}] Permission denied: {str(tmp_path / 'x')!r}"
    assert (tmp_path / "x").read_text() == "old" and os.listdir(tmp_path) == ["x"]


def test_threads_that_write_the_same_file_do_not_get_in_each_others_way(tmp_path):
    contents = [letter * 100_000 for letter in "abcdefgh"]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for done in [pool.submit(replace, tmp_path / "x", content) for content in contents]:
                done.result()
            assert (tmp_path / "x").read_text() in contents
    assert os.listdir(tmp_path) == ["x"]


WRITER = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from milligrad.files import replace

def wait(descriptor):
    print("writing", flush=True)
    time.sleep(60)

os.fsync = wait
replace(sys.argv[2], "unfinished")
"""


@posix
def test_what_a_killed_process_leaves_is_taken_away_and_what_a_living_one_writes_is_not(tmp_path):
    (tmp_path / "x").write_text("old")
    (tmp_path / ".another.part").write_text("not ours")
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parent.parent), str(tmp_path / "x")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        replace(tmp_path / "y", "new")
        assert len(os.listdir(tmp_path)) == 4  # x, y, what is not ours, and the part
        process.kill()
    assert (tmp_path / "x").read_text() == "old" and len(os.listdir(tmp_path)) == 4
    replace(tmp_path / "y", "newer")
    assert sorted(os.listdir(tmp_path)) == [".another.part", "x", "y"]
    assert (tmp_path / "y").read_text() == "newer" and (tmp_path / "x").read_text() == "old"


@pytest.mark.parametrize("path", [None, 3, b"x.a", ["x.a"]])
def test_what_is_no_name_is_refused_before_anything_is_made(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match=f"path: expected the name of a file, got {type(path).__name__} "):
        save(path, {".a": lambda: pytest.fail("made"), ".b": lambda: ""})
    assert os.listdir(tmp_path) == []
