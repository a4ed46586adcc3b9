"""Read, write and check the state directory that an update passes on to the next one.

    state.json                       schema, kind, update, parent's identity, learner, classes,
                                     and every other file with its size and SHA-256
    model.safetensors, model.json    the model's tensors; class, constructor arguments, task ids
    model.ckpt                       the same in torch's format; only in states of run_training_job
    learner.safetensors, learner.json    the learner's tensors, counters and random generators
    preprocessing/                   what was fitted on data, as JSON; only if the data module has any
    memory/                          store of the examples kept for replay
    holdouts/<N>/, validation/<N>/   stores of update N's test and validation split
    evaluations.csv                  every metric of every update on every holdout
    tuning_history.csv               every trial of every update; missing in older states
    plasticity.csv                   dead units, weights and features after every update; the same

A state's identity is the SHA-256 of its `state.json`, and so covers all its files. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from renate_stages import files
from renate_stages.errors import (
    DamagedStateError,
    MalformedFileError,
)
from renate_stages.evaluation import plasticity_history
from renate_stages.evaluation.history import EvaluationHistory
from renate_stages.evaluation.plasticity_history import PlasticityHistory
from renate_stages.memory import ExampleStore, StoreWriter, link_store
from renate_stages.state.manifest import MANIFEST, OPTIONAL, SCHEMA, Provenance, read_manifest

MODEL_FILES = ("model.safetensors", "model.json")
CHECKPOINT = "model.ckpt"  # the model in torch's format; only in states of `run_training_job`
LEARNER_FILES = ("learner.safetensors", "learner.json")
SPLITS = ("holdouts", "validation")
TUNING_HISTORY = "tuning_history.csv"
PLASTICITY = plasticity_history.FILE


@dataclass(frozen=True)
class State:
    """A state on disk: small files in one folder, examples in the same folder or another.

    Args:
        folder: Folder with `state.json` and the files of model and learner.
        examples: Folder with memory, holdouts, validation and evaluations.
        provenance: Provenance from its manifest.
        identity: SHA-256 of `state.json`.
    """

    folder: Path
    examples: Path
    provenance: Provenance
    identity: str

    @cached_property
    def _opened(self) -> dict[str, dict[int, ExampleStore]]:
        """The stores of examples that were opened, which a state never changes."""
        return {}

    @classmethod
    def open(cls, folder: str | Path, examples: Path | None = None) -> State:
        """Open a state, reading only its manifest.

        Raises:
            MissingFileError: If there is no state.
            DamagedStateError: If its manifest cannot be read.
            NewerStateError: If a newer version of this library wrote it.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        own = {name: manifest[name] for name in Provenance.__dataclass_fields__ if name in manifest}
        lists = {name: tuple(manifest.get(name) or ()) for name in ("classes", "labels")}
        fingerprint = manifest.get("fingerprint") or {}
        provenance = Provenance(**{**own, **lists, "fingerprint": fingerprint})
        return cls(folder, examples or folder, provenance, files.sha256(folder / MANIFEST))

    @property
    def label(self) -> str:
        """Return a name for messages: the update and the first digits of the identity."""
        name = f"update {self.provenance.update}" if self.provenance.update else "the first state"
        return f"{name} ({self.identity[:8]})"

    @property
    def has_model(self) -> bool:
        """Whether the state contains a model; the empty first state does not."""
        return (self.folder / MODEL_FILES[0]).is_file()

    @property
    def has_learner(self) -> bool:
        """Whether the state contains a learner's own state; a first state does not."""
        return (self.folder / LEARNER_FILES[0]).is_file()

    @property
    def has_examples(self) -> bool:
        """Whether the holdouts or the memory contain any example."""
        return any(len(store) for store in (self.memory(), *self.split("holdouts").values()))

    def memory(self) -> ExampleStore:
        """Return the examples kept for replay."""
        if "memory" not in self._opened:
            self._opened["memory"] = {0: ExampleStore.open(self.examples / "memory")}
        return self._opened["memory"][0]

    def split(self, name: str) -> dict[int, ExampleStore]:
        """Return the stores of `holdouts` or `validation` by the number of their update.

        Raises:
            MalformedFileError: If the index lists anything but numbers of updates, such as a path.
            DamagedStoreError: If a store is damaged.
        """
        folder = self.examples / name
        index = files.read_json(folder / "index.json")
        updates = index.get("updates") if isinstance(index, dict) else None
        if not (isinstance(updates, list) and all(type(each) is int for each in updates)):
            reason = f"found {index!r:.80}, expected the numbers of updates"
            raise MalformedFileError(folder / "index.json", f"the index of {name}", reason)
        if name not in self._opened:
            stores = {update: ExampleStore.open(folder / str(update)) for update in updates}
            self._opened[name] = stores
        return dict(self._opened[name])

    def evaluations(self) -> EvaluationHistory:
        """Return every metric of every update so far on every holdout."""
        return EvaluationHistory.read(self.examples / "evaluations.csv")

    def plasticity(self) -> PlasticityHistory:
        """Return the figures of plasticity of every update so far; empty in older states."""
        return PlasticityHistory.read(self.folder / PLASTICITY)


def check(folder: Path, *, deep: bool = True) -> None:
    """Compare every file of a state with its manifest (presence, size, SHA-256); allow no others.

    Args:
        folder: Folder of the state.
        deep: Whether to also compute the SHA-256 of arrays of examples. Otherwise only their size
            is compared, which is fast even for gigabytes.

    Raises:
        DamagedStateError: If files differ; it lists all of them.
    """
    listed = read_manifest(folder)["files"]
    problems = []
    present = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    present.pop(MANIFEST)
    for name, expected in sorted(listed.items()):
        path = present.pop(name, None)
        if path is None:
            problems.append(f"{name}: missing")
        elif path.stat().st_size != expected["size"]:
            problems.append(f"{name}: {path.stat().st_size} bytes, expected {expected['size']}")
        elif (deep or path.suffix != ".npy") and files.sha256(path) != expected["sha256"]:
            problems.append(f"{name}: its content changed (SHA-256 differs)")
    problems += [f"{name}: not part of the state" for name in sorted(present)]
    if problems:
        raise DamagedStateError(folder, problems)


def write_split(folder: Path, name: str, stores: Mapping[int, ExampleStore]) -> None:
    """Link the stores of a split into a new state.

    Args:
        folder: Folder of the state that is being written.
        name: `holdouts` or `validation`.
        stores: Stores by the number of their update.
    """
    for update, store in stores.items():
        link_store(store.path, folder / name / str(update))
    files.write_json(folder / name / "index.json", {"updates": sorted(stores)})


def write_manifest(
    folder: Path,
    provenance: Provenance,
    parent: State | None = None,
    left: Mapping[str, int] | None = None,
) -> None:
    """Finish a new state by writing its manifest: the list of its files and its provenance.

    Args:
        folder: Folder of the state that is being written.
        provenance: Provenance of the new state.
        parent: The state that the update started from; files linked from it are not hashed again.
        left: Number of rows removed from each of the parent's stores, by the path of the store.
    """
    before = read_manifest(parent.folder)["files"] if parent else {}
    known = files.identities(parent.examples, before) if parent else {}
    listed = files.inventory(folder, without=(MANIFEST,), known=known)
    record = asdict(provenance)
    del record["left"]
    for name in OPTIONAL[1:]:  # the empty state must stay the same
        if not record[name]:
            del record[name]
    if left:
        record["left"] = {
            store: {
                "rows": rows,
                "before": _of_store(before, store),
                "after": _of_store(listed, store),
            }
            for store, rows in sorted(left.items())
        }
    files.write_json(folder / MANIFEST, {"schema": SCHEMA, "files": listed, **record})


def _of_store(listed: Mapping[str, Any], store: str) -> str | None:
    """Return a digest of a store's files; None if the store no longer exists."""
    own = {name: entry for name, entry in listed.items() if name.startswith(f"{store}/")}
    return files.digest(own) if own else None


def write_empty(folder: Path) -> None:
    """Write the empty first state, without model or examples; its bytes are always the same.

    Args:
        folder: An empty folder.
    """
    with StoreWriter(folder / "memory", update=0):
        pass
    for split in SPLITS:
        write_split(folder, split, {})
    EvaluationHistory().write(folder / "evaluations.csv")
    write_manifest(folder, Provenance(kind="init", update=0))
