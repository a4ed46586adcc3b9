"""Find the DVC objects that contain forgotten rows, in all versions of the project's history."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from renate_stages.lineage.history import History, Version
from renate_stages.lineage.objects import Objects
from renate_stages.memory import ExampleSpec, Shard
from renate_stages.memory.forget_list import ForgetList
from renate_stages.memory.index import INDEX, read_shards
from renate_stages.memory.loose import read_columns
from renate_stages.project import Project
from renate_stages.state import LEARNER_FILES

Pairs = tuple[tuple[str, str], ...]
"""For each file of a shard: the name of its field or offsets, and the file's hash."""
OURS = {  # what DVC tracks in every project, by the first part of its path
    "champion",
    "export",
    "metrics",
    "parent-state",
    "plots",
    "reports",
    "state",
    "tuned.yaml",
    "work",
}
KEEPS_EXAMPLES = b'"memory_x"'  # in learner.json: GEM stores examples as tensors without ids


class HeldRows:
    """The objects that contain rows to forget.

    Shards are searched. If the files that tell which rows a shard has are missing, the shard is
    unusable, and its other files count as containing rows to forget. Raw data cannot be searched: a
    version contains rows to forget if `prepare` found some in it, and may contain some if `prepare`
    never read it.

    Args:
        project: The project.
        objects: Its objects.
        history: Its Git history.
        forget: The examples to forget.

    Attributes:
        hashes: Hashes of the objects that contain, or may contain, rows to forget, and that are not
            part of a version without such rows.
        raw: Hashes of the versions of `data/incoming` that contain, or may contain, such rows.
        unseen: Those of `raw` that `prepare` never read.
        keeping_tensors: Hashes of states whose learner stores tensors of examples.
        unknown: Paths that DVC tracks and that are neither ours nor `data/incoming`.
    """

    def __init__(
        self, project: Project, objects: Objects, history: History, forget: ForgetList
    ) -> None:
        self._objects, self._forget = objects, forget
        self._prepared = project.relative(project.prepared)
        self._incoming = project.relative(project.incoming)
        self._metrics = project.relative(project.data_metrics)
        self._shards: dict[Pairs, int] = {}  # rows to forget, by shard
        self._stores: dict[frozenset[tuple[str, str]], tuple[set[str], int, int]] = {}
        self._folders: dict[str, tuple[int, int]] = {}  # rows to forget and all rows, by folder
        self.keeping_tensors: set[str] = set()
        self._holding: set[str] = set()
        self._innocent: set[str] = set()

        everything = [*history.versions, *history.present]
        raw = {md5 for each in everything if (md5 := self.incoming_of(each))}
        for version in everything:
            for md5 in (version.outs | version.deps).values():
                if md5 not in raw:
                    self._look_into(md5)
        read = self._read_by_prepare(everything, history.data_metrics)
        self.raw = {md5 for md5 in raw if read.get(md5, True)}
        self.unseen = self.raw - read.keys()
        for md5 in raw:
            (self._holding if md5 in self.raw else self._innocent).update(
                objects.closure(md5) - ({md5} if md5.endswith(".dir") else set())
            )
        self.hashes = self._holding - self._innocent
        tracked = {path for each in everything for path in each.outs} - {self._incoming}
        self.unknown = tuple(sorted(path for path in tracked if path.split("/")[0] not in OURS))

    def incoming_of(self, version: Version) -> str | None:
        """Return the hash of `data/incoming` in a version."""
        return version.outs.get(self._incoming) or version.deps.get(self._incoming)

    def rows(self, md5: str) -> int:
        """Return the number of rows to forget in the stores of a folder."""
        return self._look_into(md5)[0]

    def holds(self, md5: str) -> bool:
        """Return whether a folder contains rows to forget."""
        return self.rows(md5) > 0

    def _read_by_prepare(self, versions: list[Version], metrics: dict[str, str]) -> dict[str, bool]:
        """Return, for each version of the raw data that `prepare` read, if it has rows to forget."""
        found: dict[str, bool] = {}
        for version in versions:
            incoming = version.deps.get(self._incoming)
            prepared = version.outs.get(self._prepared)
            if incoming is None or prepared is None:
                continue
            held, rows = self._look_into(prepared)
            left_out = _left_out(metrics.get(version.outs.get(self._metrics, "")))
            if held or left_out:
                found[incoming] = True
            elif rows:
                found.setdefault(incoming, False)
        return found

    def _look_into(self, md5: str) -> tuple[int, int]:
        """Return the number of rows to forget and the number of all rows in a folder's stores."""
        if md5 in self._folders or not md5.endswith(".dir"):
            return self._folders.get(md5, (0, 0))
        tree = self._objects.tree(md5) or {}
        by_folder: dict[str, dict[str, str]] = defaultdict(dict)
        for path, each in tree.items():
            folder, _, name = path.rpartition("/")
            by_folder[folder][name] = each
        of_stores: set[str] = set()
        held = rows = 0
        for folder in by_folder.values():
            if INDEX in folder:
                hashes, *found = self._of_store(folder)
                of_stores |= hashes
                held, rows = held + found[0], rows + found[1]
        if learner := self._examples_of_a_learner(tree):
            self.keeping_tensors.add(md5)
            of_stores.add(learner)
            self._holding.add(learner)
        self._innocent |= set(tree.values()) - of_stores
        self._folders[md5] = held, rows
        return held, rows

    def _of_store(self, folder: dict[str, str]) -> tuple[set[str], int, int]:
        """Return the hashes of a store's shards, its number of rows to forget, and of all rows.

        Args:
            folder: The hash of each file in a folder with an index, by name.
        """
        key = frozenset(folder.items())  # remember the result: most stores are in many versions
        if key not in self._stores:
            arrays = {name: md5 for name, md5 in folder.items() if name.endswith(".npy")}
            hashes: set[str] = set()
            held = rows = 0
            index = self._objects.locate(folder[INDEX])
            if index is None:  # a store without its index is unusable
                hashes |= set(arrays.values())
                self._holding |= hashes
            elif _is_index(index):
                for shard, spec in _shards(index):
                    hashes |= {arrays[name] for name in shard.files(spec) if name in arrays}
                    held += self._of_shard(shard, spec, arrays)
                    rows += shard.rows
            self._stores[key] = hashes, held, rows
        return self._stores[key]

    def _of_shard(self, shard: Shard, spec: ExampleSpec, store: dict[str, str]) -> int:
        """Return the number of rows to forget in a shard, and record its objects."""
        names = shard.files(spec)
        key = tuple((name.removeprefix(shard.name), store.get(name, "")) for name in names)
        if key not in self._shards:
            paths = self._forget.paths(spec)

            def locate(name: str) -> Path | None:
                return self._objects.locate(store[name]) if name in store else None

            columns = read_columns(shard, spec, paths, locate)
            if columns is None:
                self._shards[key] = shard.rows
            else:
                self._shards[key] = (
                    int(self._forget.rows(columns, spec, lenient=True).sum()) if paths else 0
                )
            hashes = {md5 for _, md5 in key if md5}
            (self._holding if self._shards[key] else self._innocent).update(hashes)
        return self._shards[key]

    def _examples_of_a_learner(self, tree: dict[str, str]) -> str | None:
        """Return the hash of the file in which a learner stores tensors of examples, or None."""
        tensors, described = (tree.get(name) for name in LEARNER_FILES)
        file = self._objects.locate(described) if described else None
        keeps = file is not None and KEEPS_EXAMPLES in file.read_bytes()
        return tensors if keeps else None


def _shards(index: Path) -> list[tuple[Shard, ExampleSpec]]:
    """Return the shards of a store with the spec of their rows."""
    spec, shards = read_shards(index)
    if spec is None:
        return []
    own = [{path: f for path, f in spec.metadata.items() if path not in s.lacks} for s in shards]
    return [
        (shard, ExampleSpec(spec.structure, spec.fields, metadata))
        for shard, metadata in zip(shards, own, strict=True)
    ]


def _is_index(file: Path) -> bool:
    """Return whether a file is the index of a store; the index of holdouts has the same name."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"format", "shards"} <= content.keys()


def _left_out(metrics: str | None) -> int:
    """Return the number of rows that `prepare` left out because they are to be forgotten."""
    try:
        content: Any = json.loads(metrics or "{}")
        return int(content["forgotten"]["rows"])
    except (KeyError, TypeError, ValueError):
        return 0
