"""The cache as files: what counts and what does not, who may use it, where it is, and that it stays small."""

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from milligrad.compiler import cache

OWNED = pytest.mark.skipif(not cache._OWNED, reason="files have no owners here")
KEY, OTHER = "a" * 64, "b" * 64
CONTENT = bytes(range(256)) * 3


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for the cache, which is not there yet."""
    monkeypatch.setenv("MILLIGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(folder):
    """The file of KEY, with the CONTENT."""
    cache.store(KEY, CONTENT)
    (path,) = folder.iterdir()
    assert cache.load(KEY) == CONTENT
    return path


def test_what_is_stored_is_loaded_and_belongs_to_this_user_alone(folder):
    assert cache.load(KEY) is None and not folder.exists() and cache.told() == f"{folder}: nothing yet"
    for content in (b"", CONTENT, CONTENT[::-1]):
        cache.store(KEY, content)
        assert cache.load(KEY) == content and cache.load(OTHER) is None
    (path,) = folder.iterdir()
    assert cache.told() == f"{folder}: 1 file, 0.0 MB"
    if cache._OWNED:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_was_torn_or_changed_is_not_there(file):
    whole = file.read_bytes()
    for n in range(len(whole)):
        file.write_bytes(whole[:n])
        assert cache.load(KEY) is None
    for n in range(len(whole)):
        file.write_bytes(bytes([*whole[:n], whole[n] ^ 1, *whole[n + 1 :]]))
        assert cache.load(KEY) is None
    file.write_bytes(whole + b"\0")
    assert cache.load(KEY) is None
    cache.store(KEY, CONTENT)
    assert cache.load(KEY) == CONTENT


def test_a_file_under_another_name_is_not_there(file):
    file.rename(file.with_name(file.name.replace(KEY, OTHER)))
    assert cache.load(OTHER) is None is cache.load(KEY)


@OWNED
def test_links_pipes_and_folders_are_no_files(file, tmp_path):
    kept = tmp_path / "kept"
    file.rename(kept)
    file.symlink_to(kept)
    assert cache.load(KEY) is None
    cache.store(KEY, CONTENT)  # takes the link's place
    assert cache.load(KEY) == CONTENT and not file.is_symlink() and kept.exists()
    file.unlink()
    os.mkfifo(file)
    found = []
    thread = threading.Thread(target=lambda: found.append(cache.load(KEY)), daemon=True)
    thread.start()
    thread.join(10)  # it does not wait until somebody writes
    assert found == [None]
    file.unlink()
    file.mkdir()
    assert cache.load(KEY) is None
    cache.store(KEY, CONTENT)
    assert [path.name for path in file.parent.iterdir()] == [file.name]  # what could not be put there is gone


@OWNED
def test_what_others_may_write_to_is_not_used(file):
    for mode in (0o620, 0o602, 0o666):
        file.chmod(mode)
        assert cache.load(KEY) is None
    file.chmod(0o644)
    assert cache.load(KEY) == CONTENT
    for mode in (0o720, 0o702, 0o777, 0o1777):
        file.parent.chmod(mode)
        assert cache.load(KEY) is None and cache.told().endswith(
            "not used: it belongs to somebody else, or others may write to it"
        )
        cache.store(OTHER, CONTENT)
    file.parent.chmod(0o755)
    assert cache.load(KEY) == CONTENT and cache.load(OTHER) is None


@OWNED
def test_what_belongs_to_somebody_else_is_not_used(file, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert cache.load(KEY) is None
        cache.store(OTHER, CONTENT)
    assert cache.load(KEY) == CONTENT and cache.load(OTHER) is None
    if os.geteuid() == 0:  # only then can files be given away
        os.chown(file, 1, 1)
        assert cache.load(KEY) is None
        os.chown(file, 0, 0)
        os.chown(file.parent, 1, 1)
        assert cache.load(KEY) is None


@OWNED
def test_a_folder_that_is_a_link_is_not_used(file, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(file.parent)
    monkeypatch.setenv("MILLIGRAD_CACHE", str(tmp_path / "link"))
    assert cache.load(KEY) is None
    cache.store(OTHER, CONTENT)
    assert len([*file.parent.iterdir()]) == 1


def test_a_folder_that_can_not_be_made_or_written_to_is_as_good_as_none(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    for path in (tmp_path / "file", tmp_path / "file" / "cache", "/proc/cache", "/dev/null"):
        monkeypatch.setenv("MILLIGRAD_CACHE", str(path))
        cache.store(KEY, CONTENT)
        cache.clear()
        assert cache.load(KEY) is None and ("not used: " in cache.told() or "nothing yet" in cache.told())
    readable = tmp_path / "readable"
    readable.mkdir(mode=0o500)
    monkeypatch.setenv("MILLIGRAD_CACHE", str(readable))
    cache.store(KEY, CONTENT)
    assert cache.load(KEY) in (None, CONTENT)  # root may write everywhere


def test_it_can_be_turned_off(folder, monkeypatch):
    for off in ("off", "OFF", "0"):
        monkeypatch.setenv("MILLIGRAD_CACHE", off)
        cache.store(KEY, CONTENT)
        assert cache.folder() == "" and cache.load(KEY) is None and not folder.exists()
        assert cache.told() == "there is no cache"


def test_it_is_where_the_system_has_such_files(monkeypatch):
    for name in ("MILLIGRAD_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", "/home/me"))
    places = {"linux": "/home/me/.cache/milligrad", "darwin": "/home/me/Library/Caches/milligrad"}
    for platform, place in places.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert cache.folder() == place
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast")
    assert cache.folder() == "/fast/milligrad"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert cache.folder() == ""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os.path, "isabs", lambda path: path[1:3] == ":\\" or path[:1] == "/")
    monkeypatch.setenv("LOCALAPPDATA", "C:\\Users\\me\\AppData\\Local")
    assert cache.folder() == os.path.join("C:\\Users\\me\\AppData\\Local", "milligrad", "Cache")
    monkeypatch.setenv("MILLIGRAD_CACHE", "~/here")
    assert cache.folder() == "/home/me/here"
    monkeypatch.setenv("MILLIGRAD_CACHE", "")
    assert cache.folder().endswith("Cache")


def test_the_files_used_the_longest_time_ago_go_first(folder, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT", 40_000)
    monkeypatch.setattr(cache, "LARGEST", 10_000)
    monkeypatch.setattr(cache, "LOOKS", 1)
    keys = [f"{i:064x}" for i in range(12)]
    long_ago = time.time() - 1_000
    (folder.parent / "cache").mkdir(mode=0o700)
    (folder / "somebody's").write_text("own" * 20_000)
    os.utime(folder / "somebody's", (0, 0))
    for i, key in enumerate(keys):
        if i:
            assert cache.load(keys[0]) is not None  # which is used all the time
        cache.store(key, bytes(5_000))
        os.utime(folder / f"milligrad-{key}", (long_ago + i, long_ago + i))
    left = [key for key in keys if cache.load(key) is not None]
    assert keys[0] in left and left[1:] == keys[-len(left) + 1 :] and 4 <= len(left) <= 8
    assert (
        sum([path.stat().st_size for path in folder.glob("milligrad-*")]) <= 40_000 and (folder / "somebody's").exists()
    )
    cache.store(OTHER, bytes(10_001))
    assert cache.load(OTHER) is None
    cache.clear()
    assert cache.told() == f"{folder}: 0 files, 0.0 MB" and [path.name for path in folder.iterdir()] == ["somebody's"]


def test_threads_and_processes_that_write_at_once_leave_whole_files(folder):
    contents = [bytes([k]) * 100_000 for k in range(4)]
    script = f"from milligrad.compiler import cache\nfor _ in range(50): cache.store({KEY!r}, bytes([0]) * 100_000)"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[2])
    found = []

    def use(content):
        for _ in range(50):
            cache.store(KEY, content)
            found.append(cache.load(KEY))

    threads = [threading.Thread(target=use, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.wait() == 0 and len(found) == 200 and {*found} <= {*contents}
    assert len([*folder.iterdir()]) == 1
