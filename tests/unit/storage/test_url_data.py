"""New data at a URL: download changed files; delete files missing in the remote storage."""

from __future__ import annotations

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from renate_stages import errors
from renate_stages.storage import Storage, Traffic
from renate_stages.storage.data import bring_data

pytestmark = pytest.mark.usefixtures("empty_memory_storage")


@pytest.fixture
def remote():
    storage = Storage.at("memory://bucket/week-1")
    for name, content in {"a.csv": b"one", "images/b.npy": b"three", "empty": b""}.items():
        storage.write(name, content)
    return storage


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_downloaded_folder_holds_exactly_the_remote_files(remote, tmp_path):
    folder, fetched = bring_data(remote, tmp_path)
    assert contents(folder) == {"a.csv": b"one", "images/b.npy": b"three", "empty": b""}
    assert fetched == Traffic(3, 8)


def test_unchanged_data_is_not_downloaded_again(remote, tmp_path):
    first, _ = bring_data(remote, tmp_path)
    assert bring_data(remote, tmp_path) == (first, Traffic())


def test_changed_files_are_downloaded_and_deleted_files_are_removed(remote, tmp_path):
    bring_data(remote, tmp_path)
    remote.write("a.csv", b"two")  # equal size
    remote.remove(["empty"])
    remote.write("images/c.npy", b"four")
    folder, fetched = bring_data(remote, tmp_path)
    assert contents(folder) == {"a.csv": b"two", "images/b.npy": b"three", "images/c.npy": b"four"}
    assert fetched == Traffic(2, 7)


def test_local_changes_and_additions_are_reverted(remote, tmp_path):
    folder, _ = bring_data(remote, tmp_path)
    before = contents(folder)
    (folder / "a.csv").write_bytes(b"own")
    (folder / "images" / "own.npy").write_bytes(b"mine")
    again, fetched = bring_data(remote, tmp_path)
    assert again == folder and contents(folder) == before and fetched == Traffic(1, 3)


def test_retry_after_a_failure_downloads_only_the_remaining_files(remote, tmp_path, monkeypatch):
    whole = MemoryFileSystem.get_file

    def get(self, path, local, **kwargs):
        if path.endswith("b.npy"):
            raise PermissionError("no")
        return whole(self, path, local, **kwargs)

    monkeypatch.setattr("renate_stages.storage.parallel.WORKERS", 1)
    with monkeypatch.context() as failing:
        failing.setattr(MemoryFileSystem, "get_file", get)
        with pytest.raises(errors.RemoteRefusedError, match=r"week-1/images/b\.npy"):
            bring_data(remote, tmp_path)
    assert bring_data(remote, tmp_path)[1] == Traffic(1, 5)


def test_data_of_equally_named_remote_folders_is_kept_apart(remote, tmp_path):
    other = Storage.at("memory://elsewhere/week-1")
    other.write("a.csv", b"other")
    assert bring_data(remote, tmp_path)[0] != bring_data(other, tmp_path)[0]


@pytest.mark.parametrize("url", ["memory://bucket/week-9", "memory://bucket/week-1/a.csv"])
def test_url_without_files_is_refused(remote, tmp_path, url):
    with pytest.raises(errors.MissingFileError, match="no files under it"):
        bring_data(Storage.at(url), tmp_path)


def test_file_name_outside_the_data_folder_is_refused(remote, tmp_path, monkeypatch):
    monkeypatch.setattr(Storage, "versions", lambda self: {"../evil": {"size": 1, "mark": ""}})
    with pytest.raises(errors.InvalidUrlError, match="evil"):
        bring_data(remote, tmp_path / "work")
