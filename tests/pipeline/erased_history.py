"""Write a project with a history of updates and all its DVC objects, without running DVC."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from renate_stages import lineage
from renate_stages.actions.erase import Erasure, erase
from renate_stages.files import yaml_file
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.memory.forget_list import ForgetList
from renate_stages.memory.identity import given_id, to_array
from renate_stages.project import Project

Folder = Mapping[str, bytes]
NOTHING = np.empty(0, np.int64)


def image(number: int) -> bytes:
    """Return the input bytes of one example, unique to its number."""
    return np.full(8, 1000.0 + number).tobytes()


def store(path: Path, numbers, update: int, ids: bool = True, **metadata) -> ExampleStore:
    """Write an example store in which example `n` has the id `n` and the input `image(n)`."""
    known = {"id": to_array(given_id(str(n)) for n in numbers)} if ids else {}
    known |= {name: np.asarray(values) for name, values in metadata.items()}
    inputs = np.stack([np.frombuffer(image(n)) for n in numbers]) if numbers else np.empty((0, 8))
    with StoreWriter(path, update) as writer:
        if numbers:
            writer.append((inputs, np.asarray(numbers)), known)
    return ExampleStore.open(path)


def contents(folder: Path, prefix: str = "") -> dict[str, bytes]:
    return {
        prefix + path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class UpdateHistory:
    """A project's commits and its objects, stored as DVC stores them in cache and remote."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project, self.folder = project, folder
        self.cache = project.root / ".dvc" / "cache" / "files" / "md5"
        self.remote = folder / "remote" / "files" / "md5"
        lineage.git(project, "init", "-q")
        (project.root / ".gitignore").write_text("/.renate\n/data/incoming\n/parent-state\n")
        (project.root / ".dvc").mkdir()  # as `dvc init` does, but faster
        (project.root / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
        self.configure(core={"remote": "storage"}, storage={"url": str(folder / "remote")})
        self.listed: dict[str, set[str]] = {}  # hashes of the files of a folder, by its hash
        self.raw: dict[int, str] = {}
        self.states: dict[int, str] = {0: self.put({"state.json": b"{}"})}
        self.prepared_of: dict[int, str] = {}
        self.stores = 0

    def configure(self, **sections: dict[str, str]) -> None:
        """Write DVC's configuration: `core`, `cache`, and remotes by name."""
        lines = []
        for name, values in sections.items():
            lines.append(f"[{name}]" if name in ("core", "cache") else f"['remote \"{name}\"']")
            lines += [f"    {key} = {value}" for key, value in values.items()]
        (self.project.root / ".dvc" / "config").write_text("\n".join(lines) + "\n")

    # -- objects ----------------------------------------------------------------------------------

    def put(self, content: Folder | bytes, *places: Path) -> str:
        """Put a folder or a file into cache and remote; return its hash."""
        if isinstance(content, bytes):
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        else:
            listed = [{"md5": self.put(each), "relpath": n} for n, each in sorted(content.items())]
            content = json.dumps(listed, sort_keys=True).encode()
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir"
            self.listed[md5] = {each["md5"] for each in listed}
        for place in places or (self.cache, self.remote):
            path = place / md5[:2] / md5[2:]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o444)
        return md5

    def made(self, numbers, update: int, **metadata) -> ExampleStore:
        self.stores += 1
        return store(self.folder / f"store{self.stores}", numbers, update, **metadata)

    def state(self, memory: ExampleStore, **holdouts: ExampleStore) -> dict[str, bytes]:
        found = {"state.json": b"{}", "learner.json": b"{}", "learner.safetensors": os.urandom(9)}
        found |= contents(memory.path, "memory/")
        for name, each in holdouts.items():
            found |= contents(each.path, f"holdouts/{name[1:]}/")
        return found | {"holdouts/index.json": b'{"updates": []}'}

    def prepared(self, train: ExampleStore) -> dict[str, bytes]:
        return {"prepared.json": b"{}", **contents(train.path, "train/")}

    # -- commits ----------------------------------------------------------------------------------

    def update(
        self,
        number: int,
        raw: Folder | None,
        prepared: Folder,
        state: Folder,
        left_out: int = 0,
        tag: bool = True,
    ) -> None:
        """Commit an update; without raw data, commit an update that only forgets."""
        if raw is not None:
            self.raw[number] = self.put(raw)
        else:
            self.raw[number] = self.raw[number - 1]
        self.states[number] = self.put(state)
        self.prepared_of[number] = self.put(prepared)
        root = self.project.root
        metrics = json.dumps({"forgotten": {"rows": left_out}, "update": number}).encode()
        (root / "metrics").mkdir(exist_ok=True)
        (root / "metrics" / "data.json").write_bytes(metrics)
        self.write_pointer("data/incoming.dvc", "incoming", self.raw[number])
        self.write_pointer("parent.dvc", "parent-state", self.states[number - 1])
        measured = hashlib.md5(metrics, usedforsecurity=False).hexdigest()
        stages = {
            "prepare": {
                "cmd": "renate-stages prepare",
                "deps": [self.entry("data/incoming", self.raw[number])],
                "params": {"params.yaml": {"seed": 0, "outs": {"path": "state", "md5": "a" * 32}}},
                "outs": [
                    self.entry("metrics/data.json", measured),
                    self.entry("work/prepared", self.prepared_of[number]),
                ],
            },
            "train": {
                "cmd": "renate-stages train",
                "deps": [self.entry("parent-state", self.states[number - 1])],
                "outs": [self.entry("state", self.states[number])],
            },
        }
        lock = yaml_file.dump({"schema": "2.0", "stages": stages})
        (root / "dvc.lock").write_text(lock)
        self.commit(f"Update {number}")
        if tag:
            lineage.git(self.project, "tag", f"update-{number}")

    def entry(self, path: str, md5: str) -> dict:
        return {"path": path, "hash": "md5", "md5": md5, "size": 3, "nfiles": 1}

    def write_pointer(self, name: str, path: str, md5: str) -> None:
        out = {"md5": md5, "size": 3, "nfiles": 1, "hash": "md5", "path": path}
        file = self.project.root / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml_file.dump({"outs": [out]}))

    def open_next(self, number: int) -> None:
        """Open the next update with this update's state as its parent."""
        self.write_pointer("parent.dvc", "parent-state", self.states[number])
        self.commit(f"Open update {number + 1}")

    def commit(self, message: str) -> None:
        lineage.git(self.project, "add", "-A")
        lineage.git(self.project, "commit", "-q", "-m", message)

    # -- erasing ----------------------------------------------------------------------------------

    def forget(self, *ids: object, where: str | None = None) -> None:
        listed = ForgetList().with_more(map(str, ids), [where] if where else [])
        listed.write(self.project.forget_list)
        self.commit("forget")

    def erase(self, *, shared: bool = False, agree: bool = True) -> Erasure:
        seen = []

        def agreed(erasure: Erasure) -> bool:
            seen.append(erasure)
            return agree

        assert erase(self.project, shared, agreed) is agree
        return seen[0]

    def has(self, md5: str) -> tuple[bool, bool]:
        """Return whether cache and remote have an object."""
        return tuple((each / md5[:2] / md5[2:]).exists() for each in (self.cache, self.remote))

    def hashes_of_update(self, number: int) -> set[str]:
        """Return the hashes of an update's folders and of all files in them."""
        folders = {self.raw[number], self.states[number], self.prepared_of[number]}
        found = set(folders)
        for md5 in folders:
            found |= self.listed[md5]
        return found

    def places_of(self, number: int) -> set[str]:
        """Return the places in the project and its remote that contain an example's bytes."""
        found = set()
        for top in (self.project.root, self.folder / "remote", self.folder / "cache"):
            for path in top.rglob("*"):
                if path.is_file() and image(number) in path.read_bytes():
                    found.add(path.relative_to(self.folder).as_posix().split("/md5/")[0])
        return found


def four_updates(folder: Path) -> UpdateHistory:
    """Return a history of three updates and a fourth that forgets examples 2 and 11.

    Example 2 is in the memory of update 1; example 11 arrived with update 2. The raw data of an
    update is one file for each example, and one file that all updates share.
    """
    project = Project(folder / "project")
    project.root.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        (project.root / name).write_text("{}\n")
    made = UpdateHistory(project, folder)
    numbers = {1: range(6), 2: range(10, 16), 3: range(20, 26)}
    memories = {1: [0, 1, 2, 3], 2: [1, 2, 3, 12, 13], 3: [2, 3, 13, 21, 22]}
    for number, own in numbers.items():
        raw = {f"{n}.bin": image(n) for n in own} | {"all.txt": b"of all updates"}
        memory = made.made(memories[number], number)
        holdout = made.made([own[5]], number)
        prepared = made.prepared(made.made(list(own), number))
        made.update(number, raw, prepared, made.state(memory, _1=holdout))
    forgot = made.state(made.made([3, 13, 21, 22], 4))
    made.forget(2, 11)
    made.update(4, None, made.prepared(made.made([], 4)), forgot)
    made.open_next(4)
    return made
