"""Erase forgotten rows from older versions, on histories with hand-written DVC objects.

`tests/pipeline/test_forgetting.py` erases from real DVC histories.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from erased_history import UpdateHistory, contents, four_updates, image, store

from renate_stages import errors, lineage
from renate_stages.actions.erase import erase
from renate_stages.lineage.history import History, Version
from renate_stages.memory import ExampleStore, Ragged, StoreWriter, evolve
from renate_stages.memory.forget_list import ForgetList
from renate_stages.memory.identity import stored_ids
from renate_stages.project import Project

CACHE, REMOTE = "project/.dvc/cache/files", "remote/files"


@pytest.fixture
def story(tmp_path, monkeypatch) -> UpdateHistory:
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Test")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "test@example.org")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    return four_updates(tmp_path)


def test_erase_removes_only_objects_with_forgotten_rows(story):
    kept = {name: path.read_bytes() for name, path in all_objects(story).items()}
    assert story.places_of(2) == story.places_of(11) == {CACHE, REMOTE}
    shown = story.erase(agree=False)
    assert {name: p.read_bytes() for name, p in all_objects(story).items()} == kept

    remote, cache = shown.shares
    assert (remote.storage.name, cache.storage.name) == ("storage", "cache")
    assert remote.hashes == cache.hashes and remote.left is cache.left is None
    assert shown.incomplete["update-1"] == ["data/incoming", "state", "work/prepared"]
    assert shown.incomplete["update-2"] == [
        "data/incoming",
        "parent-state",
        "state",
        "work/prepared",
    ]
    assert shown.incomplete["update-3"] == ["parent-state", "state"]
    assert shown.incomplete["update-4"] == ["parent-state"]
    assert "branch main" not in shown.incomplete and not shown.incoming and not shown.unseen
    assert shown.unknown == () and shown.uncommitted == 0

    story.erase()
    assert story.places_of(2) == story.places_of(11) == set()
    gone = kept.keys() - all_objects(story).keys()
    assert {name.split("/")[0] for name in gone} == {"cache", "remote"}
    for name in gone:  # DVC takes a folder's list as proof that all its files exist
        assert name.split("/")[1] in {md5 for n in (1, 2, 3) for md5 in story.hashes_of_update(n)}
    assert story.hashes_of_update(4) <= {name.split("/")[1] for name in all_objects(story)}
    assert story.places_of(25) == story.places_of(20) == {CACHE, REMOTE}  # update 3's data
    assert story.places_of(3) == {CACHE, REMOTE}  # in a memory that is kept
    assert story.places_of(5) == set()  # only in folders of update 1
    assert not story.erase(agree=False)


def all_objects(story: UpdateHistory) -> dict[str, Path]:
    places = {"cache": story.cache, "remote": story.remote}
    return {
        f"{name}/{path.parent.name}{path.name}": path
        for name, place in places.items()
        for path in place.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("share", [0.1, 0.3, 0.49, 0.5, 0.51, 0.7, 0.9, 0.99])
def test_killed_erase_completes_when_it_is_run_again(story, share):
    """Objects are removed from the remote, then from the cache, with folder lists last."""
    plan = story.erase(agree=False)
    assert [each.storage.name for each in plan.shares] == ["storage", "cache"]
    order = [
        place / md5[:2] / md5[2:]
        for place, each in zip((story.remote, story.cache), plan.shares, strict=True)
        for md5 in sorted(each.hashes, key=lambda md5: (md5.endswith(".dir"), md5))
    ]
    end = set(all_objects(story).values()) - set(order)
    for path in order[: int(share * len(order))]:
        path.unlink()
    again = story.erase()
    assert set(all_objects(story).values()) == end and not again.shares[0].left
    assert story.places_of(2) == story.places_of(11) == set()
    assert not story.erase(agree=False)


@pytest.mark.parametrize("kept", ["inputs", "meta.id", "targets", "index.json"])
def test_all_files_of_an_incomplete_shard_are_erased(story, kept):
    """An incomplete shard is unusable, and its rows can no longer be identified."""
    only = contents(story.made([2, 7], 1).path)
    md5 = story.put({f"memory/{name}": each for name, each in only.items()})
    story.write_pointer("older.dvc", "older", md5)
    story.commit("older")
    lineage.git(story.project, "rm", "-q", "older.dvc")
    story.commit("no longer")
    for name, content in only.items():
        if kept not in name:
            each = hashlib.md5(content, usedforsecurity=False).hexdigest()
            for place in (story.cache, story.remote):
                (place / each[:2] / each[2:]).unlink()
    story.erase()
    assert story.places_of(2) == set()


def test_remote_with_objects_of_other_projects_is_erased_only_with_shared_storage_option(story):
    """Regression: `dvc gc --cloud` deleted objects of other projects."""
    theirs = [story.put(f"theirs {n}".encode(), story.remote) for n in range(3)]
    before = {name for name in all_objects(story) if name.startswith("remote")}
    shown = story.erase()
    remote, cache = shown.shares
    assert "3 objects that no commit of this project refers to" in remote.left
    assert cache.left is None and story.places_of(2) == {REMOTE}
    assert {name for name in all_objects(story) if name.startswith("remote")} == before
    listed = remote.listed.read_text().splitlines()
    assert listed == sorted(listed) and len(listed) == len(remote.hashes) > 0
    assert all(Path(each).is_file() for each in listed)

    shown = story.erase(shared=True)
    assert story.places_of(2) == story.places_of(11) == set()
    assert not any(Path(each).exists() for each in listed)
    assert all(story.has(md5) == (False, True) for md5 in theirs)
    assert not remote.listed.exists()
    left = {name for name in all_objects(story) if name.startswith("remote")}
    assert before - left == {f"remote/{md5}" for md5 in remote.hashes}


@pytest.mark.parametrize("foreign", [False, True])
def test_external_cache_is_erased_unless_it_holds_objects_of_other_projects(story, foreign):
    outside = story.folder / "cache"
    (story.project.root / ".dvc" / "cache").rename(outside)
    story.cache = outside / "files" / "md5"
    storage = {"url": str(story.folder / "remote")}
    story.configure(core={"remote": "storage"}, cache={"dir": str(outside)}, storage=storage)
    story.commit("cache")
    if foreign:
        story.put(b"theirs", story.cache)
    shown = story.erase()
    assert (shown.shares[-1].left is None) is not foreign and shown.shares[0].left is None
    assert story.places_of(2) == ({"cache/files"} if foreign else set())
    if foreign:
        story.erase(shared=True)
        assert story.places_of(2) == set()
        assert story.has(story.put(b"theirs", story.folder / "again"))[0]


def test_uncommitted_objects_are_erased_from_the_project_cache(story):
    """Runs and data replaced before a commit may hold rows, and no commit refers to them."""
    md5 = story.put({"2.bin": image(2) + b"of another run"}, story.cache)
    run = story.project.root / ".dvc" / "cache" / "runs" / "ab" / "ab12" / "cd34"
    run.parent.mkdir(parents=True)
    run.write_text(f"outs:\n- path: data/incoming\n  md5: {md5}\n")
    kept = run.with_name("ef56")
    kept.write_text(f"outs:\n- path: state\n  md5: {story.states[4]}\n")
    killed = story.cache / "ab" / "tmp2nX.tmp"
    killed.parent.mkdir(exist_ok=True)
    killed.write_bytes(image(2))
    shown = story.erase()
    assert shown.uncommitted == 2 and not shown.shares[0].left
    assert story.places_of(2) == set()
    assert kept.is_file() and not run.exists() and not killed.exists()


@pytest.mark.parametrize("place", ["branch", "experiment", "stash", "older stash", "reflog"])
def test_all_git_references_are_searched_for_objects_with_forgotten_rows(story, place):
    """Of two states that only this reference names, the one with the forgotten row is erased."""
    states = [story.state(story.made(numbers, 3)) for numbers in ([2, 40], [41, 42])]
    root = story.project.root
    lineage.git(story.project, "checkout", "-q", "-b", "aside")
    for number, state in enumerate(states):
        story.write_pointer(f"aside{number}.dvc", f"aside{number}", story.put(state))
    if "stash" in place:
        lineage.git(story.project, "stash", "push", "-u", "-q")
        if place == "older stash":
            (root / "params.yaml").write_text("# other\n")
            lineage.git(story.project, "stash", "push", "-q")
    else:
        story.commit("aside")
    if place == "experiment":
        lineage.git(story.project, "update-ref", "refs/exps/ab/cdef/name", "HEAD")
    lineage.git(story.project, "checkout", "-q", "-")
    if place != "branch":
        lineage.git(story.project, "branch", "-q", "-D", "aside")
    shown = story.erase()
    assert story.places_of(2) == set() and story.places_of(41) == {CACHE, REMOTE}
    assert shown.uncommitted == 0 and shown.shares[0].left is None
    name = {"branch": "branch aside", "experiment": "experiment name"}.get(place)
    assert name is None or shown.incomplete[name] == ["aside0"]


def test_objects_in_a_conflicted_lock_file_count_as_objects_of_this_project(story):
    lock = story.project.root / "dvc.lock"
    theirs = story.put(b"a model of theirs")
    lock.write_text(f"<<<<<<< HEAD\n{lock.read_text()}=======\n    md5: {theirs}\n>>>>>>> x\n")
    shown = story.erase()
    assert shown.shares[0].left is None and story.has(theirs) == (True, True)
    assert story.places_of(2) == set()


def test_raw_data_with_forgotten_or_unknown_rows_is_erased(story):
    """Rows that `prepare` left out count too; files that a clean version also has are kept."""
    raw = {"again.bin": image(2) + b"once more", "all.txt": b"of all updates"}
    clean = story.state(story.made([3, 13], 5))
    story.update(5, raw, story.prepared(story.made([50], 5)), clean, left_out=1)
    never = story.put({"never.bin": b"prepared"})
    story.write_pointer("data/incoming.dvc", "incoming", never)
    story.commit("data that no update read")
    last = {"last.bin": image(60), "all.txt": b"of all updates"}
    state = story.state(story.made([3, 13, 60], 6))
    story.update(6, last, story.prepared(story.made([60], 6)), state)
    story.open_next(6)
    shown = story.erase()
    assert shown.unseen == 1 and not shown.incoming
    assert not any(
        any(story.has(story.put(each, story.folder / "x")))
        for each in (raw["again.bin"], b"prepared")
    )
    assert story.has(story.put(b"of all updates", story.folder / "x")) == (True, True)
    assert story.places_of(60) == {CACHE, REMOTE}


def test_current_raw_data_is_kept_and_reported(story):
    story.forget(2, 11, 21)
    state = story.state(story.made([3, 13, 22], 5))
    story.update(5, None, story.prepared(story.made([], 5)), state)
    story.open_next(5)
    assert story.erase().incoming
    raw = story.put({f"{n}.bin": image(n) for n in range(20, 26)} | {"all.txt": b"of all updates"})
    assert raw == story.raw[3] and story.places_of(21) == {CACHE, REMOTE}
    new = story.state(story.made([3, 13, 22, 70], 6))
    story.update(6, {"70.bin": image(70)}, story.prepared(story.made([70], 6)), new)
    assert not story.erase().incoming
    assert story.places_of(21) == set() and story.places_of(70) == {CACHE, REMOTE}


def test_erase_is_refused_while_the_current_version_holds_forgotten_rows(story):
    before = all_objects(story).keys()
    story.forget(2, 11, 21)
    with pytest.raises(errors.StillHeldError, match=r"1 in (parent-state|state) of the current"):
        story.erase()
    assert all_objects(story).keys() == before


def test_erase_without_a_forget_list_is_refused(story):
    story.project.forget_list.unlink()
    with pytest.raises(errors.NothingToForgetError):
        story.erase()


@pytest.mark.parametrize("kind", ["condition", "content", "ragged content", "unknown"])
def test_shards_are_searched_for_forgotten_rows_by_condition_and_content_id(story, kind):
    folder = story.folder / "special"
    if kind == "condition":
        store(folder, [31, 32], 3, age=[5, 50])
        story.forget(where="age < 18")
    elif kind == "content":
        ids = stored_ids(store(folder, [31, 32], 3, ids=False))
        ForgetList().with_more([f"renate:{ids[0].astype('>u8').tobytes().hex()}"]).write(
            story.project.forget_list
        )
    elif kind == "ragged content":
        rows = [np.frombuffer(image(31)), np.frombuffer(image(32))[:3]]
        with StoreWriter(folder, 3) as writer:
            writer.append((Ragged.of(rows), np.arange(2)))
        ids = stored_ids(ExampleStore.open(folder))
        ForgetList().with_more([f"renate:{ids[0].astype('>u8').tobytes().hex()}"]).write(
            story.project.forget_list
        )
    else:
        old, new = story.made([31], 2), story.made([32], 3, age=[5])
        evolve(folder, old, np.arange(1), new, np.arange(1), 3)
        other = story.made([33], 2)
        grown = story.made([34], 3, age=[18])
        evolve(story.folder / "other", other, np.arange(1), grown, np.arange(1), 3)
        known = {f"memory/{n}": each for n, each in contents(story.folder / "other").items()}
        story.write_pointer("known.dvc", "known", story.put(known))
        story.forget(where="not (age >= 18)")
    md5 = story.put({f"memory/{n}": each for n, each in contents(folder).items()})
    story.write_pointer("aside.dvc", "aside", md5)
    story.commit("aside")
    (story.project.root / "aside.dvc").unlink()
    story.commit("no longer")
    story.erase()
    if kind == "unknown":  # row 33 has no age, so it does not match
        assert story.places_of(33) == {CACHE, REMOTE} and story.places_of(32) == set()
    else:
        assert story.places_of(31) == set()


def test_condition_skips_older_metadata_of_another_type(story):
    for number, ages in (1, [b"old", b"young"]), (2, [17, 18]):
        folder = store(story.folder / f"old{number}", [30 + number, 40 + number], 1, age=ages)
        md5 = story.put({f"memory/{n}": each for n, each in contents(folder.path).items()})
        story.write_pointer(f"old{number}.dvc", f"old{number}", md5)
    story.commit("ages were texts")
    for number in (1, 2):
        (story.project.root / f"old{number}.dvc").unlink()
    story.commit("no longer")
    story.forget(where="age < 18")
    story.erase()
    assert story.places_of(32) == set() and story.places_of(31) == {CACHE, REMOTE}


def test_learner_tensors_that_hold_examples_are_erased(story):
    """GEM stores examples as tensors, in which single rows cannot be found."""
    tensors = image(2) + b"in the middle of a tensor"
    folder = {
        **story.state(story.made([41], 3)),
        "learner.json": b'{"plugins": {"memory_x": 3}}',
        "learner.safetensors": tensors,
    }
    story.write_pointer("aside.dvc", "aside", story.put(folder))
    story.commit("aside")
    (story.project.root / "aside.dvc").unlink()
    story.commit("no longer")
    story.erase()
    assert story.places_of(2) == story.places_of(41) == set()


def test_erase_is_refused_while_the_current_learner_state_holds_examples(story):
    state = story.state(story.made([3, 13, 21, 22], 5)) | {"learner.json": b'{"memory_x": 1}'}
    story.update(5, None, story.prepared(story.made([], 5)), state)
    with pytest.raises(errors.StillHeldError, match="tensors of examples in state"):
        story.erase()


def test_objects_missing_from_the_cache_are_searched_in_the_remote(story):
    for path in story.cache.rglob("*"):
        if path.is_file():
            path.unlink()
    shown = story.erase()
    assert not shown.shares[1].hashes and shown.shares[0].hashes
    assert story.places_of(2) == story.places_of(11) == set()
    assert story.places_of(25) == {REMOTE}
    assert not (story.project.scratch / "objects").exists()


def test_temporary_project_files_are_erased(story):
    root = story.project.root
    places = [
        root / ".renate" / "resume" / "checkpoint.bin",
        root / ".renate" / "kept" / "memory" / "x.npy",
        root / ".renate" / "forget-unmatched.txt",
        root / ".dvc" / "tmp" / "exps" / "standalone" / "tmpab" / "state" / "x.npy",
        root / ".dvc" / "tmp" / "exps" / "tmpcd" / "state" / "x.npy",
    ]
    for path in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image(2))
    for workspace in (places[3], places[4]):
        (workspace.parents[1] / ".dvc").mkdir()
    queue = root / ".dvc" / "tmp" / "exps" / "celery" / "broker" / "x"
    lists = root / ".renate" / "erase-other.txt"
    for path in (queue, lists):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    story.erase()
    assert not any(path.exists() for path in places) and story.places_of(2) == set()
    assert queue.exists() and lists.exists()


def test_other_data_tracked_by_dvc_is_reported_and_kept(story):
    story.write_pointer("data/archive.dvc", "archive", story.put({"x": image(2) + b"?"}))
    story.commit("an archive")
    assert story.erase().unknown == ("data/archive",)
    assert story.places_of(2) == {CACHE, REMOTE}  # data/archive, whose format only the user knows


def test_a_project_that_dvc_cannot_open_is_refused(story):
    (story.project.root / ".dvc" / "config").write_text("[core]\nremote = nowhere\nodd\n")
    with pytest.raises(errors.CommandError, match="dvc status"):
        story.erase()
    (story.project.root / ".dvc").rename(story.folder / "elsewhere")
    with pytest.raises(errors.CommandError, match="dvc status"):
        story.erase()


def test_a_shallow_clone_is_refused(story):
    clone = story.folder / "clone"
    lineage.git(
        story.project, "clone", "-q", "--depth", "1", f"file://{story.project.root}", str(clone)
    )
    with pytest.raises(errors.ShallowHistoryError, match="--unshallow"):
        erase(Project(clone), False, lambda _: True)


def test_unreadable_remote_is_refused_before_anything_is_erased(story):
    before = all_objects(story).keys()
    other = {"url": "gs://bucket/x"}  # without dvc-gs
    story.configure(storage={"url": str(story.folder / "remote")}, other=other)
    story.commit("another remote")
    with pytest.raises(errors.StorageUnreadableError, match=r"(?s)other .*dvc remote remove other"):
        story.erase()
    assert all_objects(story).keys() == before


@pytest.mark.parametrize("name", ["index.json", ".dir", "meta.id"])
def test_damaged_object_is_refused_before_anything_is_erased(story, name):
    """A damaged object could name the wrong rows, or hide objects that are needed."""
    before = all_objects(story).keys()
    tree = {each["relpath"]: each["md5"] for each in json.loads(read(story, story.states[1]))}
    md5 = next((m for path, m in tree.items() if name in path), story.states[1])
    path = story.cache / md5[:2] / md5[2:]
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(errors.DamagedObjectError, match=md5):
        story.erase()
    assert all_objects(story).keys() == before


def read(story: UpdateHistory, md5: str) -> bytes:
    return (story.cache / md5[:2] / md5[2:]).read_bytes()


def test_erase_reports_a_running_dvc_command(story):
    from dvc.repo import Repo

    busy = pytest.raises(errors.BusyError, match="a DVC command")
    with Repo(str(story.project.root)) as repo, repo.lock, busy:
        story.erase()


@pytest.mark.parametrize(
    ("text", "outs", "deps"),
    [
        ("", {}, {}),
        ("outs:\n- md5: A\n  size: 1\n  hash: md5\n  path: incoming\n", {"d/incoming": "A"}, {}),
        ("outs:\n- path: 'a b'\n  md5: A\r\n", {"d/a b": "A"}, {}),
        ("deps:\n- path: x\n  md5: B\nouts:\n- path: y\n  md5: A", {"d/y": "A"}, {"d/x": "B"}),
        (
            "outs:\n- path: y\n  files:\n  - relpath: z\n    md5: B\n  - relpath: w\n    md5: C\n  md5: A\n",
            {"d/y": "A"},
            {},
        ),
        ("<<<<<<< HEAD\n=======\n  md5: A\n>>>>>>>\n", {}, {}),
    ],
)
def test_dvc_files_are_parsed_into_outs_deps_and_hashes(text, outs, deps):
    hashes = {name: name.lower() * 32 for name in "ABC"}
    for name, md5 in hashes.items():
        text = text.replace(f"md5: {name}", f"md5: {md5}")
    found = Version.parse(text, "d/")
    assert found.outs == {path: hashes[name] for path, name in outs.items()}
    assert found.deps == {path: hashes[name] for path, name in deps.items()}
    assert found.hashes == {md5 for md5 in hashes.values() if md5 in text}


def test_history_lists_the_outputs_of_every_lock_file(story):
    history = History.read(story.project)
    outs = [each.outs.get("state") for each in history.versions]
    assert {each for each in outs if each} == {story.states[n] for n in (1, 2, 3, 4)}
    assert {path for each in history.present for path in each.outs} == {
        "data/incoming",
        "metrics/data.json",
        "parent-state",
        "state",
        "work/prepared",
    }
    assert not any("a" * 32 in each.outs.values() for each in history.versions)
