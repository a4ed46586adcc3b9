"""What an update stores and pushes: what is new, and little else."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import yaml
from sandbox import SLUG, Sandbox, generate


def check_new_bytes(project: Sandbox, before: str, after: str, number: int) -> int:
    """Check that an update's state adds what is new and little else; return the bytes it adds."""
    old, new = project.objects(before), project.objects(after)
    fresh = {name: md5 for name, md5 in new.items() if md5 not in old.values()}
    size = {name: project.cached(md5).stat().st_size for name, md5 in fresh.items()}
    for name in fresh:  # shards are never written twice under one name
        assert f"{number:05d}-" in name or not name.endswith(".npy") or name == "memory/live.npy"
    data, rows = project.read_json("metrics/data.json"), 20 + 16 + 8  # metadata and label
    budget = (64 + rows) * (300 + data["test"]["rows"] + data["val"]["rows"])
    # Of each split that is kept: its index, five files in the manifest, rows of evaluations.
    splits = sum(name.count("/") == 2 and name.endswith("index.json") for name in new)
    small = sum(n for name, n in size.items() if not name.endswith((".npy", "model.safetensors")))
    assert small < 5_000 + 3_000 * splits
    headers = 128 * sum(name.endswith(".npy") for name in fresh)
    npy = sum(n for name, n in size.items() if name.endswith(".npy"))
    assert npy <= budget + headers
    return sum(size.values())


def test_an_update_adds_to_cache_and_remote_what_is_new(three_updates):
    states = [three_updates.state_at(f"update-{n}") for n in (1, 2)]
    lock = yaml.safe_load(three_updates.read("dvc.lock"))["stages"]["train"]["outs"]
    states.append(next(out["md5"] for out in lock if out["path"] == "state"))
    check_new_bytes(three_updates, states[1], states[2], 3)
    remote = three_updates.root.parent / f"{SLUG}-dvc-remote" / "files" / "md5"
    pushed = {path.parent.name + path.name for path in remote.rglob("*") if path.is_file()}
    for each in states:
        assert {each, *three_updates.objects(each).values()} <= pushed
    cache = three_updates.root / ".dvc" / "cache" / "files" / "md5"
    in_cache = {path.parent.name + path.name for path in cache.rglob("*") if path.is_file()}
    assert pushed == in_cache, "the one holds what the other does, each object once"


def test_examples_are_linked_from_the_cache_to_the_parent_to_the_state(project):
    shutil.rmtree(project.root / "parent")
    project.run("dvc", "checkout", "-q", "parent.dvc")
    project.run("dvc", "repro", "-q", "-f", "-s", "train")
    objects = project.objects(project.pointed_parent)
    linked = [name for name in objects if name.startswith("holdouts/") and name.endswith(".npy")]
    assert linked
    for name in linked:
        parent, cached = project.root / "parent" / name, project.cached(objects[name])
        assert parent.stat().st_ino == cached.stat().st_ino
        assert (project.root / "state" / name).stat().st_ino == cached.stat().st_ino
        assert not parent.stat().st_mode & 0o222
    assert not list((project.root / "work" / "restored").rglob("*.npy"))


@pytest.mark.slow
def test_over_ten_updates_each_adds_as_much_as_the_one_before(tmp_path):
    project = generate(tmp_path)
    project.run("renate-stages", "init")
    project.stop_tracking()
    project.edit("params.yaml", ("max_epochs: 20", "max_epochs: 1"))
    retention = "\nretention:\n  holdout_updates: 3\n  validation_updates: 3\n"
    (project.root / "params.yaml").write_text(project.read("params.yaml") + retention)
    generator = np.random.default_rng(0)
    states, added = [project.pointed_parent], []
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
        project.run("renate-stages", "next")
    assert max(added[2:]) < 1.5 * min(added[2:])
