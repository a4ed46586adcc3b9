"""States at URLs: a partial upload is no state; files found in the remote storage are reused."""

from __future__ import annotations

import os
import shutil

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

from renate_stages import errors
from renate_stages.cli.main import app
from renate_stages.state import MANIFEST, Provenance, State, state
from renate_stages.storage import Storage, Traffic, retries
from renate_stages.storage import states as module
from renate_stages.storage.states import KeptStates, copy_state, read_manifest, send_state


@pytest.fixture(autouse=True)
def service(monkeypatch):
    """An empty file system in memory, and retries that do not wait."""
    monkeypatch.setattr(retries, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])


@pytest.fixture
def first(make_state):
    return make_state(20).folder


@pytest.fixture
def second(first, tmp_path):
    """A state with the files of `first`, except one new and one changed file."""
    return make_next(first, tmp_path / "second", b"0")


def make_next(before, folder, content):
    shutil.copytree(before, folder)
    (folder / "model.safetensors").write_bytes(content)
    (folder / "evaluations.csv").write_bytes(content * 3)
    state.write_manifest(folder, Provenance("update", 1))
    return folder


@pytest.fixture
def remote():
    return Storage.at("memory://bucket/states/1")


def bytes_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def size_of(folder, *names):
    return sum(len(content) for name, content in bytes_of(folder).items() if name in names)


def record(monkeypatch, *methods):
    """Record the names of the remote files that are accessed, in order."""
    calls: list[str] = []
    for method in methods:
        whole = getattr(MemoryFileSystem, method)

        def call(self, *args, whole=whole, at=1 if method == "put_file" else 0, **kwargs):
            calls.append(args[at].split("/1/")[-1].split("/2/")[-1])
            return whole(self, *args, **kwargs)

        monkeypatch.setattr(MemoryFileSystem, method, call)
    return calls


def kill_after(monkeypatch, files):
    """Interrupt an upload after the given number of files."""
    left, whole = [None] * files, {}

    def killed(name):
        def call(self, *args, **kwargs):
            if not left:
                raise KeyboardInterrupt
            left.pop()
            return whole[name](self, *args, **kwargs)

        return call

    for name in ("put_file", "pipe_file"):
        whole[name] = getattr(MemoryFileSystem, name)
        monkeypatch.setattr(MemoryFileSystem, name, killed(name))


class TestSendState:
    def test_uploaded_state_consists_of_the_same_files(self, first, remote, tmp_path):
        sent = send_state(first, remote)
        assert sent == Traffic(len(bytes_of(first)), size_of(first, *bytes_of(first)))
        remote.get({name: tmp_path / "plain" / name for name in remote.sizes()}, remote.versions())
        assert bytes_of(tmp_path / "plain") == bytes_of(first)
        state.check(tmp_path / "plain")

    def test_manifest_is_uploaded_last(self, first, remote, monkeypatch):
        calls = record(monkeypatch, "put_file", "pipe_file")
        send_state(first, remote)
        assert calls.index(MANIFEST) == len(calls) - 1 and calls.count(MANIFEST) == 1

    def test_killed_upload_leaves_no_state_and_the_next_attempt_sends_the_rest(
        self, first, monkeypatch
    ):
        names = set(bytes_of(first))
        for files in range(len(names)):
            remote = Storage.at(f"memory://bucket/after-{files}/1")
            with monkeypatch.context() as killing:
                kill_after(killing, files)
                with pytest.raises(KeyboardInterrupt):
                    send_state(first, remote)
            assert not remote.has(MANIFEST)
            with pytest.raises(errors.MissingFileError, match="no state here"):
                read_manifest(remote)
            arrived = set(remote.sizes())
            assert len(arrived) == files
            with monkeypatch.context() as noting:
                calls = record(noting, "put_file", "pipe_file")
                sent = send_state(first, remote)
            assert set(calls) == names - arrived and sent.files == len(names) - files
            assert remote.sizes() == {name: len(each) for name, each in bytes_of(first).items()}

    def test_files_left_by_another_upload_are_replaced_or_removed(self, first, remote):
        remote.write("evaluations.csv", b"of another")
        remote.write("memory/00009-00.inputs.npy", b"of another")
        remote.write("preprocessing/preprocessing.json", b"of another")
        send_state(first, remote)
        assert remote.sizes() == {name: len(each) for name, each in bytes_of(first).items()}

    def test_parent_files_at_the_same_service_are_copied_and_not_uploaded(
        self, first, second, remote, monkeypatch
    ):
        send_state(first, remote)
        after = Storage.at("memory://bucket/states/2")
        calls = record(monkeypatch, "put_file", "pipe_file")
        sent = send_state(second, after, parent=remote)
        new = ("model.safetensors", "evaluations.csv", MANIFEST)
        assert sorted(calls) == sorted(new)
        assert sent == Traffic(3, size_of(second, *new))
        assert {name: after.read(name) for name in after.sizes()} == bytes_of(second)

    def test_parent_files_at_another_service_are_uploaded(self, first, second, remote, tmp_path):
        other_service = Storage.at(tmp_path / "other_service")
        send_state(first, other_service)
        assert send_state(second, remote, parent=other_service).files == len(bytes_of(second))

    @pytest.mark.parametrize("failure", [PermissionError("no"), FileNotFoundError("gone")])
    def test_files_are_uploaded_if_copy_fails(self, first, second, remote, monkeypatch, failure):
        def refuse(*_, **__):
            raise failure

        send_state(first, remote)
        monkeypatch.setattr(MemoryFileSystem, "cp_file", refuse)
        after = Storage.at("memory://bucket/states/2")
        assert send_state(second, after, parent=remote).files == len(bytes_of(second))
        assert {name: after.read(name) for name in after.sizes()} == bytes_of(second)

    def test_damaged_remote_file_of_the_parent_is_not_copied(self, first, second, remote):
        send_state(first, remote)
        shard = next(name for name in remote.sizes() if name.endswith(".npy"))
        remote.write(shard, b"\0" * remote.sizes()[shard])
        after = Storage.at("memory://bucket/states/2")
        send_state(second, after, parent=remote)
        assert after.read(shard) == (second / shard).read_bytes()

    def test_existing_state_is_not_replaced_and_an_equal_state_is_not_sent_again(
        self, first, second, remote, monkeypatch
    ):
        send_state(first, remote)
        calls = record(monkeypatch, "put_file", "pipe_file")
        assert send_state(first, remote) == Traffic()
        with pytest.raises(
            errors.StateExistsError, match="memory://bucket/states/1 already exists"
        ):
            send_state(second, remote)
        assert calls == [] and remote.read(MANIFEST) == (first / MANIFEST).read_bytes()

    @pytest.mark.parametrize("name", ["holiday.jpg", "2/state.json", "modelled/a"])
    def test_upload_to_a_folder_with_unrelated_files_is_refused(self, first, remote, name):
        remote.write(name, b"mine")
        with pytest.raises(errors.PlaceTakenError, match=name):
            send_state(first, remote)
        assert remote.sizes() == {name: 4}


class TestBringState:
    def bring(self, kept, remote):
        return kept.bring(remote, read_manifest(remote))

    @pytest.fixture
    def kept(self, tmp_path):
        return KeptStates(tmp_path / "work")

    def test_complete_local_copy_is_not_downloaded_again(self, first, remote, kept, monkeypatch):
        send_state(first, remote)
        folder, fetched = self.bring(kept, remote)
        assert bytes_of(folder) == bytes_of(first) and fetched.files == len(bytes_of(first)) - 1
        calls = record(monkeypatch, "get_file", "cat_file")
        assert self.bring(kept, remote) == (folder, Traffic())
        assert calls == [MANIFEST]

    def test_only_new_files_of_a_later_state_are_downloaded(
        self, first, second, remote, kept, monkeypatch
    ):
        after = Storage.at("memory://bucket/states/2")
        send_state(first, remote)
        send_state(second, after)
        before, _ = self.bring(kept, remote)
        calls = record(monkeypatch, "get_file")
        folder, fetched = self.bring(kept, after)
        assert sorted(calls) == ["evaluations.csv", "model.safetensors"] and fetched.files == 2
        assert bytes_of(folder) == bytes_of(second)
        shard = next(name for name in bytes_of(folder) if name.endswith(".npy"))
        assert (folder / shard).samefile(before / shard), "equal files share their bytes"

    def test_state_uploaded_from_here_is_not_downloaded_again(self, first, remote, kept, tmp_path):
        send_state(first, remote)
        moved = tmp_path / "work" / "unsent" / "1-0"
        shutil.copytree(first, moved)
        assert self.bring(kept, remote)[1] == Traffic(), "the copy in `unsent` is used"
        taken = KeptStates(tmp_path / "other").take(moved)
        assert not moved.exists() and State.open(taken).identity == State.open(first).identity
        assert self.bring(KeptStates(tmp_path / "other"), remote) == (taken, Traffic())

    def test_locally_damaged_file_is_downloaded_again(self, first, remote, kept):
        send_state(first, remote)
        folder, _ = self.bring(kept, remote)
        shard = next(path for path in folder.rglob("*.npy"))
        size = shard.stat().st_size
        shard.write_bytes(b"\0" * size)
        assert self.bring(kept, remote) == (folder, Traffic(1, size))
        assert bytes_of(folder) == bytes_of(first)

    def test_locally_damaged_or_missing_manifest_is_downloaded_again(self, first, remote, kept):
        send_state(first, remote)
        folder, _ = self.bring(kept, remote)
        (folder / MANIFEST).write_bytes(b"{}")
        self.bring(kept, remote)
        assert bytes_of(folder) == bytes_of(first)
        (folder / MANIFEST).unlink()
        self.bring(kept, remote)
        assert bytes_of(folder) == bytes_of(first)

    def test_remotely_damaged_file_is_an_error_and_leaves_no_local_state(
        self, first, remote, kept, tmp_path
    ):
        send_state(first, remote)
        shard = next(name for name in remote.sizes() if name.endswith(".npy"))
        remote.write(shard, b"\0" * remote.sizes()[shard])
        with pytest.raises(errors.DamagedTransferError, match=shard):
            self.bring(kept, remote)
        assert list((tmp_path / "work" / "states").glob("[!.]*")) == []

    def test_interrupted_download_fetches_missing_files(self, first, remote, kept, monkeypatch):
        send_state(first, remote)
        whole, done = MemoryFileSystem.get_file, []

        def get(self, path, local, **kwargs):
            if len(done) == 3:
                raise KeyboardInterrupt
            done.append(path)
            return whole(self, path, local, **kwargs)

        with monkeypatch.context() as killing:
            killing.setattr(MemoryFileSystem, "get_file", get)
            with pytest.raises(KeyboardInterrupt):
                self.bring(kept, remote)
        folder, fetched = self.bring(kept, remote)
        assert fetched.files == len(bytes_of(first)) - 1 - 3
        assert bytes_of(folder) == bytes_of(first)

    def test_only_the_most_recently_used_states_are_kept(self, first, remote, kept, tmp_path):
        brought = []
        for number in range(module.LAST + 2):
            folder = make_next(first, tmp_path / f"state-{number}", b"%d" % number)
            storage = Storage.at(f"memory://bucket/states/{number}")
            send_state(folder, storage)
            brought.append(self.bring(kept, storage)[0])
            os.utime(brought[-1], (number, number))
            if number == module.LAST:  # state 1 is used again, so it is kept
                self.bring(kept, Storage.at("memory://bucket/states/1"))
        assert {path for path in brought if path.exists()} == {brought[1], *brought[3:]}

    def test_user_folders_with_any_name_are_kept(self, first, remote, kept, tmp_path):
        """Regression: a folder `backup` was removed, as its name begins like a hex number."""
        own = [tmp_path / "work" / "states" / name for name in ("1", "backup", "0123456789abcdef")]
        for folder in own:
            folder.mkdir(parents=True)
        self.test_only_the_most_recently_used_states_are_kept(first, remote, kept, tmp_path)
        assert all(folder.is_dir() for folder in own)

    def test_invalid_remote_manifest_is_refused_with_its_url(self, remote):
        remote.write(MANIFEST, b"{}")
        with pytest.raises(errors.DamagedStateError, match="memory://bucket/states/1 is damaged"):
            read_manifest(remote)
        remote.write(MANIFEST, b'{"schema": 99}')
        with pytest.raises(errors.NewerStateError, match="memory://bucket/states/1/state"):
            read_manifest(remote)

    def test_manifest_path_outside_the_state_is_refused_and_not_written(
        self, first, remote, kept, tmp_path
    ):
        send_state(first, remote)
        evil = remote.read(MANIFEST).replace(b'"evaluations.csv"', b'"../../../evil.csv"')
        remote.write(MANIFEST, evil)
        with pytest.raises(errors.DamagedStateError, match="not a file of the state"):
            kept.bring(remote, remote.read(MANIFEST))
        assert not list(tmp_path.rglob("evil.csv"))


class TestCopyState:
    def test_copy_state_uploads_and_downloads_a_state(self, first, tmp_path):
        remote, back = "memory://bucket/states/1", tmp_path / "back"
        run = CliRunner().invoke
        done = run(app, ["copy-state", str(first), remote])
        assert done.exit_code == 0 and f"state copied to {remote}" in done.output
        again = run(app, ["copy-state", f"file://{first}", remote])
        assert f"this state is already complete in {remote}" in again.output
        done = run(app, ["copy-state", remote, str(back)])
        assert done.exit_code == 0
        assert bytes_of(back) == bytes_of(first)
        assert {path.name for path in tmp_path.iterdir()} == {first.name, "back"}

    def test_copy_state_refuses_invalid_sources_and_existing_targets(self, first, remote, tmp_path):
        with pytest.raises(errors.MissingFileError, match="no state here"):
            copy_state(tmp_path / "nothing", remote.url)
        with pytest.raises(errors.MissingFileError, match="no state here"):
            copy_state(remote.url, tmp_path / "back")
        with pytest.raises(errors.StateExistsError):
            copy_state(remote.url, first)
        with pytest.raises(errors.InvalidUrlError, match="must be a local folder"):
            copy_state(remote.url, "memory://bucket/2")
        (first / "model.json").write_bytes(b"{}")
        with pytest.raises(errors.DamagedStateError, match=r"model.json: not part"):
            copy_state(first, remote.url)
        assert remote.sizes() == {}
