"""States at URLs: a part of one is none, what is there does not travel, nothing here is lost."""

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
    """An empty service in memory, and no waiting."""
    monkeypatch.setattr(retries, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])


@pytest.fixture
def first(make_state):
    return make_state(20).folder


@pytest.fixture
def second(first, tmp_path):
    """A state that has the first's files, but for a new one and another that changed."""
    return make_next(first, tmp_path / "second", b"0")


def make_next(before, folder, content):
    shutil.copytree(before, folder)
    (folder / "model.safetensors").write_bytes(content)
    (folder / "evaluations.csv").write_bytes(content * 3)
    state.write_manifest(folder, Provenance("update", 1))
    return folder


@pytest.fixture
def there():
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
    """Note which files of the service are touched, in order."""
    calls: list[str] = []
    for method in methods:
        whole = getattr(MemoryFileSystem, method)

        def call(self, *args, whole=whole, at=1 if method == "put_file" else 0, **kwargs):
            calls.append(args[at].split("/1/")[-1].split("/2/")[-1])
            return whole(self, *args, **kwargs)

        monkeypatch.setattr(MemoryFileSystem, method, call)
    return calls


def kill_after(monkeypatch, files):
    """End the process's part after so many files, wherever it is."""
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


class TestSending:
    def test_a_state_there_is_the_same_files(self, first, there, tmp_path):
        sent = send_state(first, there)
        assert sent == Traffic(len(bytes_of(first)), size_of(first, *bytes_of(first)))
        there.get({name: tmp_path / "plain" / name for name in there.sizes()}, there.versions())
        assert bytes_of(tmp_path / "plain") == bytes_of(first)
        state.check(tmp_path / "plain")

    def test_the_manifest_goes_last(self, first, there, monkeypatch):
        calls = record(monkeypatch, "put_file", "pipe_file")
        send_state(first, there)
        assert calls.index(MANIFEST) == len(calls) - 1 and calls.count(MANIFEST) == 1

    def test_killed_after_any_file_there_is_no_state_and_the_next_attempt_sends_the_rest(
        self, first, monkeypatch
    ):
        names = set(bytes_of(first))
        for files in range(len(names)):
            there = Storage.at(f"memory://bucket/after-{files}/1")
            with monkeypatch.context() as killing:
                kill_after(killing, files)
                with pytest.raises(KeyboardInterrupt):
                    send_state(first, there)
            assert not there.has(MANIFEST)
            with pytest.raises(errors.MissingFileError, match="no state here"):
                read_manifest(there)
            arrived = set(there.sizes())
            assert len(arrived) == files
            with monkeypatch.context() as noting:
                calls = record(noting, "put_file", "pipe_file")
                sent = send_state(first, there)
            assert set(calls) == names - arrived and sent.files == len(names) - files
            assert there.sizes() == {name: len(each) for name, each in bytes_of(first).items()}

    def test_what_another_attempt_left_is_replaced_or_removed(self, first, there):
        there.write("evaluations.csv", b"of another")
        there.write("memory/00009-00.inputs.npy", b"of another")
        send_state(first, there)
        assert there.sizes() == {name: len(each) for name, each in bytes_of(first).items()}

    def test_what_the_parent_has_at_the_same_service_does_not_travel(
        self, first, second, there, monkeypatch
    ):
        send_state(first, there)
        after = Storage.at("memory://bucket/states/2")
        calls = record(monkeypatch, "put_file", "pipe_file")
        sent = send_state(second, after, parent=there)
        new = ("model.safetensors", "evaluations.csv", MANIFEST)
        assert sorted(calls) == sorted(new)
        assert sent == Traffic(3, size_of(second, *new))
        assert {name: after.read(name) for name in after.sizes()} == bytes_of(second)

    def test_what_the_parent_has_at_another_service_travels(self, first, second, there, tmp_path):
        elsewhere = Storage.at(tmp_path / "elsewhere")
        send_state(first, elsewhere)
        assert send_state(second, there, parent=elsewhere).files == len(bytes_of(second))

    @pytest.mark.parametrize("failure", [PermissionError("no"), FileNotFoundError("gone")])
    def test_what_may_not_be_copied_travels(self, first, second, there, monkeypatch, failure):
        def refuse(*_, **__):
            raise failure

        send_state(first, there)
        monkeypatch.setattr(MemoryFileSystem, "cp_file", refuse)
        after = Storage.at("memory://bucket/states/2")
        assert send_state(second, after, parent=there).files == len(bytes_of(second))
        assert {name: after.read(name) for name in after.sizes()} == bytes_of(second)

    def test_what_was_damaged_at_the_parents_place_is_not_taken_from_there(
        self, first, second, there
    ):
        send_state(first, there)
        shard = next(name for name in there.sizes() if name.endswith(".npy"))
        there.write(shard, b"\0" * there.sizes()[shard])
        after = Storage.at("memory://bucket/states/2")
        send_state(second, after, parent=there)
        assert after.read(shard) == (second / shard).read_bytes()

    def test_no_state_is_replaced_and_the_same_one_is_not_sent_twice(
        self, first, second, there, monkeypatch
    ):
        send_state(first, there)
        calls = record(monkeypatch, "put_file", "pipe_file")
        assert send_state(first, there) == Traffic()
        with pytest.raises(
            errors.StateExistsError, match="memory://bucket/states/1 already exists"
        ):
            send_state(second, there)
        assert calls == [] and there.read(MANIFEST) == (first / MANIFEST).read_bytes()

    @pytest.mark.parametrize("name", ["holiday.jpg", "2/state.json", "modelled/a"])
    def test_files_of_no_state_are_not_touched(self, first, there, name):
        there.write(name, b"mine")
        with pytest.raises(errors.PlaceTakenError, match=name):
            send_state(first, there)
        assert there.sizes() == {name: 4}


class TestBringing:
    def bring(self, kept, there):
        return kept.bring(there, read_manifest(there))

    @pytest.fixture
    def kept(self, tmp_path):
        return KeptStates(tmp_path / "work")

    def test_a_second_time_nothing_travels(self, first, there, kept, monkeypatch):
        send_state(first, there)
        folder, fetched = self.bring(kept, there)
        assert bytes_of(folder) == bytes_of(first) and fetched.files == len(bytes_of(first)) - 1
        calls = record(monkeypatch, "get_file", "cat_file")
        assert self.bring(kept, there) == (folder, Traffic())
        assert calls == [MANIFEST]

    def test_of_a_later_state_only_what_is_new_travels(
        self, first, second, there, kept, monkeypatch
    ):
        after = Storage.at("memory://bucket/states/2")
        send_state(first, there)
        send_state(second, after)
        before, _ = self.bring(kept, there)
        calls = record(monkeypatch, "get_file")
        folder, fetched = self.bring(kept, after)
        assert sorted(calls) == ["evaluations.csv", "model.safetensors"] and fetched.files == 2
        assert bytes_of(folder) == bytes_of(second)
        shard = next(name for name in bytes_of(folder) if name.endswith(".npy"))
        assert (folder / shard).samefile(before / shard), "equal files share their bytes"

    def test_of_a_state_that_was_sent_from_here_nothing_travels(self, first, there, kept, tmp_path):
        send_state(first, there)
        moved = tmp_path / "work" / "unsent" / "1-0"
        shutil.copytree(first, moved)
        assert self.bring(kept, there)[1] == Traffic(), "it is still in unsent"
        taken = KeptStates(tmp_path / "other").take(moved)
        assert not moved.exists() and State.open(taken).identity == State.open(first).identity
        assert self.bring(KeptStates(tmp_path / "other"), there) == (taken, Traffic())

    def test_a_file_that_was_damaged_here_is_fetched_again(self, first, there, kept):
        send_state(first, there)
        folder, _ = self.bring(kept, there)
        shard = next(path for path in folder.rglob("*.npy"))
        size = shard.stat().st_size
        shard.write_bytes(b"\0" * size)
        assert self.bring(kept, there) == (folder, Traffic(1, size))
        assert bytes_of(folder) == bytes_of(first)

    def test_a_manifest_that_was_damaged_or_lost_here_is_fetched_again(self, first, there, kept):
        send_state(first, there)
        folder, _ = self.bring(kept, there)
        (folder / MANIFEST).write_bytes(b"{}")
        self.bring(kept, there)
        assert bytes_of(folder) == bytes_of(first)
        (folder / MANIFEST).unlink()
        self.bring(kept, there)
        assert bytes_of(folder) == bytes_of(first)

    def test_a_file_that_was_damaged_there_is_an_error_and_no_state_here(
        self, first, there, kept, tmp_path
    ):
        send_state(first, there)
        shard = next(name for name in there.sizes() if name.endswith(".npy"))
        there.write(shard, b"\0" * there.sizes()[shard])
        with pytest.raises(errors.DamagedTransferError, match=shard):
            self.bring(kept, there)
        assert list((tmp_path / "work" / "states").glob("[!.]*")) == []

    def test_an_interrupted_one_goes_on_where_it_was(self, first, there, kept, monkeypatch):
        send_state(first, there)
        whole, done = MemoryFileSystem.get_file, []

        def get(self, path, local, **kwargs):
            if len(done) == 3:
                raise KeyboardInterrupt
            done.append(path)
            return whole(self, path, local, **kwargs)

        with monkeypatch.context() as killing:
            killing.setattr(MemoryFileSystem, "get_file", get)
            with pytest.raises(KeyboardInterrupt):
                self.bring(kept, there)
        folder, fetched = self.bring(kept, there)
        assert fetched.files == len(bytes_of(first)) - 1 - 3
        assert bytes_of(folder) == bytes_of(first)

    def test_only_the_last_states_stay(self, first, there, kept, tmp_path):
        brought = []
        for number in range(module.LAST + 2):
            folder = make_next(first, tmp_path / f"state-{number}", b"%d" % number)
            storage = Storage.at(f"memory://bucket/states/{number}")
            send_state(folder, storage)
            brought.append(self.bring(kept, storage)[0])
            os.utime(brought[-1], (number, number))
            if number == module.LAST:  # it is used again, and so among the last
                self.bring(kept, Storage.at("memory://bucket/states/1"))
        assert {path for path in brought if path.exists()} == {brought[1], *brought[3:]}

    def test_folders_of_a_user_stay_whatever_their_names(self, first, there, kept, tmp_path):
        """A folder `backup`, whose name begins like a hexadecimal number, was once removed."""
        own = [tmp_path / "work" / "states" / name for name in ("1", "backup", "0123456789abcdef")]
        for folder in own:
            folder.mkdir(parents=True)
        self.test_only_the_last_states_stay(first, there, kept, tmp_path)
        assert all(folder.is_dir() for folder in own)

    def test_a_manifest_that_is_none_is_refused_with_its_url(self, there):
        there.write(MANIFEST, b"{}")
        with pytest.raises(errors.DamagedStateError, match="memory://bucket/states/1 is damaged"):
            read_manifest(there)
        there.write(MANIFEST, b'{"schema": 99}')
        with pytest.raises(errors.NewerStateError, match="memory://bucket/states/1/state"):
            read_manifest(there)

    def test_a_manifest_that_names_a_file_elsewhere_writes_nothing_there(
        self, first, there, kept, tmp_path
    ):
        send_state(first, there)
        evil = there.read(MANIFEST).replace(b'"evaluations.csv"', b'"../../../evil.csv"')
        there.write(MANIFEST, evil)
        with pytest.raises(errors.DamagedStateError, match="not a file of the state"):
            kept.bring(there, there.read(MANIFEST))
        assert not list(tmp_path.rglob("evil.csv"))


class TestCopying:
    def test_goes_there_and_back(self, first, tmp_path):
        there, back = "memory://bucket/states/1", tmp_path / "back"
        run = CliRunner().invoke
        done = run(app, ["copy-state", str(first), there])
        assert done.exit_code == 0 and f"state copied to {there}" in done.output
        again = run(app, ["copy-state", f"file://{first}", there])
        assert f"this state is already complete in {there}" in again.output
        done = run(app, ["copy-state", there, str(back)])
        assert done.exit_code == 0
        assert bytes_of(back) == bytes_of(first)
        assert {path.name for path in tmp_path.iterdir()} == {first.name, "back"}

    def test_refuses_what_is_no_state_and_what_is_taken(self, first, there, tmp_path):
        with pytest.raises(errors.MissingFileError, match="no state here"):
            copy_state(tmp_path / "nothing", there.url)
        with pytest.raises(errors.MissingFileError, match="no state here"):
            copy_state(there.url, tmp_path / "back")
        with pytest.raises(errors.StateExistsError):
            copy_state(there.url, first)
        with pytest.raises(errors.InvalidUrlError, match="must be a local folder"):
            copy_state(there.url, "memory://bucket/2")
        (first / "model.json").write_bytes(b"{}")
        with pytest.raises(errors.DamagedStateError, match=r"model.json: not part"):
            copy_state(first, there.url)
        assert there.sizes() == {}
