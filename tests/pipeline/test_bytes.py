"""An update stores and pushes new data with little overhead."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from sandbox import SLUG, Sandbox, generate

COMMITS = ("update-1", "update-2", "HEAD")


OTHER_OUTPUTS = ("champion", "data/incoming", "work/prepared", "work/restored", "export")


def cache_of(project: Sandbox) -> Path:
    return project.root / ".dvc" / "cache" / "files" / "md5"


def remote_of(project: Sandbox) -> Path:
    return project.root.parent / f"{SLUG}-dvc-remote" / "files" / "md5"


def objects_in(store: Path) -> dict[str, int]:
    """Return the bytes of every object of a cache or a remote by its hash."""
    found = (path for path in store.rglob("*") if path.is_file())
    return {path.parent.name + path.name: path.stat().st_size for path in found}


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_new_bytes(project: Sandbox, before: str, after: str, number: int) -> int:
    """Check that an update's state adds new data with little overhead; return the added bytes."""
    old, new = project.objects(before), project.objects(after)
    fresh = {name: md5 for name, md5 in new.items() if md5 not in old.values()}
    size = {name: project.cached(md5).stat().st_size for name, md5 in fresh.items()}
    for name in fresh:  # no shard is written again under the same name
        assert f"{number:05d}-" in name or not name.endswith(".npy") or name == "memory/live.npy"
    data, rows = project.read_json("metrics/data.json"), 20 + 16 + 8  # metadata and label
    budget = (64 + rows) * (300 + data["test"]["rows"] + data["val"]["rows"])
    # Each stored split adds its index, five manifest entries and rows of evaluations.
    splits = sum(name.count("/") == 2 and name.endswith("index.json") for name in new)
    small = sum(n for name, n in size.items() if not name.endswith((".npy", "model.safetensors")))
    assert small < 5_000 + 3_000 * splits
    headers = 128 * sum(name.endswith(".npy") for name in fresh)
    npy = sum(n for name, n in size.items() if name.endswith(".npy"))
    assert npy <= budget + headers
    return sum(size.values())


def test_update_adds_only_new_objects_to_cache_and_remote(three_updates):
    states = [three_updates.state_at(f"update-{n}") for n in (1, 2)]
    lock = yaml.safe_load(three_updates.read("dvc.lock"))["stages"]["train"]["outs"]
    states.append(next(out["md5"] for out in lock if out["path"] == "state"))
    check_new_bytes(three_updates, states[1], states[2], 3)
    pushed, cached = objects_in(remote_of(three_updates)), objects_in(cache_of(three_updates))
    for each in states:
        assert {each, *three_updates.objects(each).values()} <= pushed.keys()
    written = ("metrics/data.json", "metrics/shift.csv")  # `prepare` writes them without caching
    shown = [three_updates.run("git", "show", f"{at}:{name}") for at in COMMITS for name in written]
    of_run_cache = {hashlib.md5(text.encode()).hexdigest() for text in shown}  # a few bytes each
    assert cached.keys() - pushed.keys() == of_run_cache
    assert not pushed.keys() - cached.keys()


def test_example_files_of_parent_and_state_are_hard_links_to_the_cache(project):
    project.stop_tracking()
    cached_before = project.hashes(".dvc/cache/files")
    shutil.rmtree(project.root / "parent-state")
    project.run("dvc", "checkout", "-q", "parent.dvc")
    project.run("dvc", "repro", "-q", "-f", "-s", "train")
    objects = project.objects(project.pointed_parent)
    linked = [name for name in objects if name.startswith("holdouts/") and name.endswith(".npy")]
    assert linked
    for name in linked:
        parent, cached = project.root / "parent-state" / name, project.cached(objects[name])
        assert parent.stat().st_ino == cached.stat().st_ino
        assert (project.root / "state" / name).stat().st_ino == cached.stat().st_ino
        assert not parent.stat().st_mode & 0o222
    assert not list((project.root / "work" / "restored").rglob("*.npy"))
    assert project.hashes(".dvc/cache/files").items() >= cached_before.items()  # also as root


@pytest.mark.slow
def test_storage_growth_per_update_stays_constant_over_ten_updates(tmp_path):
    project = generate(tmp_path)
    project.run("renate-stages", "init")
    project.stop_tracking()
    changes = [("max_epochs: 20", "max_epochs: 1")]
    changes += [
        (f"{each}_updates: null", f"{each}_updates: 3") for each in ("holdout", "validation")
    ]
    project.edit("params.yaml", *changes)
    generator = np.random.default_rng(0)
    states, added, grown, before = [project.pointed_parent], [], [], {}
    for number in range(1, 11):
        incoming = project.root / "data" / "incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir()
        np.save(incoming / "inputs.npy", generator.integers(0, 17, (400, 8, 8), dtype=np.uint8))
        np.save(incoming / "targets.npy", generator.integers(0, 10, 400))
        project.run("dvc", "add", "-q", "data/incoming")
        project.run("dvc", "repro", "-q")
        project.commit(f"Update {number}")
        states.append(project.state_at("HEAD"))
        added.append(check_new_bytes(project, states[-2], states[-1], number))
        project.run("dvc", "push", "-q")
        now = objects_in(remote_of(project))
        grown.append(sum(size for md5, size in now.items() if md5 not in before))
        others = sum(bytes_in(project.root / name) for name in OTHER_OUTPUTS)
        lists = sum(now[md5] for md5 in now if md5.endswith(".dir") and md5 not in before)
        assert grown[-1] <= added[-1] + others + lists
        assert now.keys() == objects_in(cache_of(project)).keys() & now.keys()
        before = now
        project.run("renate-stages", "next")
    for each in (added, grown):
        assert max(each[3:]) < 1.05 * min(each[3:]), each
