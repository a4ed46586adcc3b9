"""The dependencies in `dvc.yaml` of the stages that call the user's functions.

DVC reruns a stage only if a file in its `deps` changes. So a stage may use a file of the project only
if it is listed there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from renate_stages.files import sha256, yaml_file
from renate_stages.files.hashes import Hashes

IMPORT = "import"  # in place of a function's name: for files used while importing renate_config.py
# Functions called only in `prepare`, whose output is an input of the other stages.
OF_DATA = ("data_module_fn", "feature_fn")
EARLIER = "an interrupted training"  # in place of a name: for files used before an interruption
OF_TRAINING = (
    EARLIER,
    *("optimizer_fn", "lr_scheduler_fn", "train_transform", "train_target_transform"),
    *("buffer_transform", "buffer_target_transform"),
)
CALLING = ("prepare", "tune", "train", "export")  # the stages that import renate_config.py
POINTED = ("data/incoming", "parent-state", "champion", "forget.yaml")  # checked by other code
LARGE = 2**26  # size in bytes from which a hash is stored on disk for other processes


@dataclass(frozen=True)
class DeclaredFiles:
    """The declarations of a pipeline's stages; paths are relative, without a final slash.

    Args:
        root: The folder of `dvc.yaml`.
        deps: By stage, the paths that it depends on, including the user's own parameter files.
        outs: By stage, the paths that it writes.
        params: By stage, the keys that it reads from each parameter file; no keys: all of them.
    """

    root: Path
    deps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    outs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> DeclaredFiles | None:
        """Read `dvc.yaml`; if the file is missing, return None, and nothing has to be declared.

        Raises:
            MalformedFileError: If it is not valid YAML.
        """
        path = root / "dvc.yaml"
        return _parsed(root, path.read_text(encoding="utf-8")) if path.is_file() else None

    def allows(self, stage: str, name: str) -> bool:
        """Return whether a stage declares a file or one of the folders that contain it."""
        return _within(name, (*self.deps.get(stage, ()), *self.outs.get(stage, ())))

    def is_product(self, name: str) -> bool:
        """Return whether a file is written by the pipeline or by our commands, not by the user."""
        return _within(name, (*POINTED, *(out for outs in self.outs.values() for out in outs)))

    def quiet(self, stage: str | None) -> tuple[str, ...]:
        """Return the products that a stage may use; their use is not recorded."""
        declared = (*self.deps.get(stage or "", ()), *self.outs.get(stage or "", ()))
        return tuple(name for name in declared if self.is_product(name))

    def lacking(self, name: str, functions: Iterable[str], stage: str | None) -> list[str]:
        """Return the stages whose deps should list a file but do not.

        Args:
            name: The file.
            functions: Names of the user's functions that used it, or `IMPORT`.
            stage: The stage in which it was used; None if no stage is running.
        """
        calling = {caller for function in functions for caller in stages_of(function)}
        return [
            caller
            for caller in CALLING
            if (caller in calling or caller == stage)
            and (caller == stage or "renate_config.py" in self.deps.get(caller, ()))
            and not self.allows(caller, name)
        ]

    def user_files(self, stage: str) -> dict[str, Path]:
        """Return the user's files that a stage depends on, by relative path."""
        return self._files(name for name in self.deps.get(stage, ()) if not self.is_product(name))

    def products(self, stage: str) -> dict[str, Path]:
        """Return the files of data and of other stages that a stage depends on, by relative path."""
        return self._files(name for name in self.deps.get(stage, ()) if self.is_product(name))

    def _files(self, names: Iterable[str]) -> dict[str, Path]:
        paths: dict[str, Path] = {}
        for name in names:
            path = self.root / name
            if path.is_dir():
                for file in sorted(path.rglob("*")):
                    relative = file.relative_to(path).as_posix()
                    if file.is_file() and not is_passing(relative):
                        paths[f"{name}/{relative}"] = file
            elif path.is_file():
                paths[name] = path
        return paths


def stages_of(function: str) -> tuple[str, ...]:
    """Return the stages that call a user's function; other names stand for calls in training."""
    if function == IMPORT:
        return CALLING
    if function in OF_DATA:
        return ("prepare",)
    if function in OF_TRAINING:
        return ("tune", "train")
    return ("tune", "train", "export")


def is_passing(name: str) -> bool:
    """Return whether a path in a project belongs to a tool or a package, not to the project itself.

    These are hidden folders (`.git`, `.renate`, `.venv`, `.cache`), environment files (`.env`),
    bytecode, and the metadata of installed packages.
    """
    *folders, last = name.split("/")
    return (
        last.startswith(".env")
        or any(
            each.startswith(".")
            or each in ("__pycache__", "site-packages", "mlruns", "mlartifacts")
            or each.endswith((".egg-info", ".dist-info"))
            for each in (*folders, *(["__pycache__"] if last.endswith(".pyc") else []))
        )
        or (not folders and last.startswith("mlflow.db"))
    )


def hashes_of(wanted: Mapping[str, Path], known: Path | None) -> dict[str, str]:
    """Return the SHA-256 of files by name.

    Args:
        wanted: Files by name.
        known: File that stores the hashes of large files for other processes; None: do not store.
    """
    large = {n: p for n, p in wanted.items() if known and p.stat().st_size >= LARGE}
    cached = (
        {n: e["sha256"] for n, e in Hashes(known).entries(large).items()} if known and large else {}
    )
    return {name: cached.get(name) or sha256(path) for name, path in wanted.items()}


def values_of(root: Path, params: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the values of parameters that DVC compares.

    Args:
        root: The project's folder.
        params: Keys of each parameter file; no keys: the whole file.
    """
    values: dict[str, Any] = {}
    for name, keys in params.items():
        content = yaml_file.read(root / name)
        for key in keys or ("",):
            value = content
            for part in key.split(".") if key else ():
                value = value.get(part) if isinstance(value, dict) else None
            values[f"{name}:{key}"] = value
    return values


@lru_cache(maxsize=8)
def _parsed(root: Path, text: str) -> DeclaredFiles:
    content = yaml_file.parse(text, root / "dvc.yaml")
    stages = content.get("stages") if isinstance(content, dict) else None
    deps, outs, params = {}, {}, {}
    for name, stage in (stages if isinstance(stages, dict) else {}).items():
        if not isinstance(stage, dict):
            continue
        params[name] = _params(stage.get("params"))
        own = (file for file, keys in params[name].items() if file != "params.yaml" or not keys)
        deps[name] = (*_names(stage.get("deps")), *own)
        outs[name] = tuple(
            n for key in ("outs", "metrics", "plots") for n in _names(stage.get(key))
        )
    return DeclaredFiles(root, deps, outs, params)


def _names(entries: Any) -> Iterator[str]:
    for each in _listed(entries):
        name = next(iter(each), "") if isinstance(each, dict) else each
        yield os.path.normpath(str(name))


def _params(entries: Any) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for each in _listed(entries):
        if isinstance(each, dict):
            found |= {str(name): tuple(map(str, keys or ())) for name, keys in each.items()}
        else:
            found["params.yaml"] = (*found.get("params.yaml", ()), str(each))
    return found


def _listed(entries: Any) -> list[Any]:
    return entries if isinstance(entries, list) else []


def _within(name: str, folders: Iterable[str]) -> bool:
    return any(name == each or name.startswith(f"{each}/") for each in folders)
