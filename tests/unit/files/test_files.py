"""Files and folders are written atomically, and never through a link."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from renate_stages import files
from renate_stages.errors import FolderTakenError


def test_failed_write_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "a lone surrogate: \ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_new_files_and_folders_have_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with files.whole_directory(tmp_path / "out") as folder:
            files.write_text(folder / "a", "")
        assert files.umask() == 0o027
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "out" / "a").stat().st_mode & 0o777 == 0o640


def test_json_is_sorted_ends_with_a_newline_and_keeps_unicode(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    assert (tmp_path / "a.json").read_bytes() == '{\n "a": "é",\n "b": 1\n}\n'.encode()
    assert files.read_json(tmp_path / "a.json") == {"a": "é", "b": 1}


def test_link_or_copy_never_replaces_an_existing_file(tmp_path):
    for name, text in (("cached", "old"), ("source", "new")):
        (tmp_path / name).write_text(text)
    os.link(tmp_path / "cached", tmp_path / "output")
    with pytest.raises(FileExistsError):
        files.link_or_copy(tmp_path / "source", tmp_path / "output")
    assert (tmp_path / "cached").read_text() == "old"


def test_link_or_copy_copies_when_links_are_not_supported(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("operation not supported")

    (tmp_path / "source").write_text("x")
    monkeypatch.setattr(os, "link", refuse)
    files.link_or_copy(tmp_path / "source", tmp_path / "in" / "copy")
    assert (tmp_path / "in" / "copy").read_text() == "x"
    assert not (tmp_path / "in" / "copy").samefile(tmp_path / "source")


def test_replacing_a_folder_keeps_files_hard_linked_to_it(tmp_path):
    with files.whole_directory(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
    os.link(tmp_path / "out" / "a", tmp_path / "cached")
    with files.whole_directory(tmp_path / "out") as folder:
        (folder / "b").write_text("2")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b"]
    assert (tmp_path / "cached").read_text() == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cached", "out"]


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from renate_stages import files
with files.whole_directory(Path(sys.argv[1])) as folder:
    (folder / "a").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_WHILE_REPLACING = """
import os, signal, sys
from pathlib import Path
from renate_stages import files
rename = Path.rename
def renamed_once(self, target):
    rename(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = renamed_once
with files.whole_directory(Path(sys.argv[1])) as folder:
    (folder / "a").write_text("new")
"""


@pytest.mark.parametrize("program", [KILLED_WHILE_WRITING, KILLED_WHILE_REPLACING])
def test_old_folder_is_restored_after_a_killed_process(tmp_path, program):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("old")
    done = subprocess.run([sys.executable, "-c", program, str(out)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(RuntimeError), files.whole_directory(out):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "a").read_text() == "old"


def test_unfinished_files_of_a_similarly_named_folder_are_kept(tmp_path):
    """Regression: writing `states/v` removed unfinished files of `states/v.2`."""
    (tmp_path / ".v.2.12.new").write_text("of write_text, for v.2")
    with files.whole_directory(tmp_path / "v.2"), files.whole_directory(tmp_path / "v"):
        assert len(list(tmp_path.glob(".v.2.????????.new"))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v", "v.2"]


def test_concurrent_writers_of_one_folder_do_not_remove_each_others_files(tmp_path):
    other = [sys.executable, "-c", WRITES_AFTER_INPUT, str(tmp_path / "out")]
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        with files.whole_directory(tmp_path / "out") as folder:
            (folder / "ours").touch()
        process.communicate(b"go on\n")
    assert process.returncode == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


WRITES_AFTER_INPUT = """
import sys
from pathlib import Path
from renate_stages import files
with files.whole_directory(Path(sys.argv[1])) as folder:
    (folder / "theirs").touch()
    print("begun", flush=True)
    sys.stdin.readline()
"""


def test_folder_created_meanwhile_and_the_new_folder_are_both_kept(tmp_path):
    with (
        pytest.raises(FolderTakenError, match="out-3"),
        files.whole_directory(tmp_path / "out", replace=False) as folder,
    ):
        (folder / "new").touch()
        for name in ("out", "out-2"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "old").touch()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*/*")) == [
        "out-2/old",
        "out-3/new",
        "out/old",
    ]


def test_clear_abandoned_removes_only_leftovers_of_killed_processes(tmp_path):
    for name in (".params.yaml.12.new", ".env.new", ".a.notes.new", "b.12.new", ".c.12.newer"):
        (tmp_path / name).touch()
    (tmp_path / ".plots.0123abcd.new").mkdir()
    (tmp_path / ".state.12.old").mkdir()
    (tmp_path / ".export.12.old").mkdir()
    (tmp_path / "export").mkdir()
    files.clear_abandoned(tmp_path)
    left = [".a.notes.new", ".c.12.newer", ".env.new", "b.12.new", "export", "state"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_digest_does_not_depend_on_key_order():
    assert files.digest({"a": 1, "b": [1, 2]}) == files.digest({"b": [1, 2], "a": 1})
    assert files.digest({"a": 1}) != files.digest({"a": 2})


def test_inventory_has_the_size_and_hash_of_every_file(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"abc")
    (tmp_path / "left out").touch()
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert files.inventory(tmp_path, without=("left out",)) == {"b/c": {"sha256": known, "size": 3}}
