"""The dependencies that `dvc.yaml` declares for stages that call the user's functions.

DVC reruns a stage when a file among its deps changes, and only then. So a stage may use a file of
the project only if it is one of them.
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

IMPORT = "import"  # stands for a function's name: what importing renate_config.py uses
OF_DATA = (
    "data_module_fn",
    "feature_fn",
)  # in `prepare` alone, whose output is an input of the rest
EARLIER = "an interrupted training"  # stands for what it used, which goes on here
OF_TRAINING = (
    EARLIER,
    *("optimizer_fn", "lr_scheduler_fn", "train_transform", "train_target_transform"),
    *("buffer_transform", "buffer_target_transform"),
)
CALLING = ("prepare", "tune", "train", "export")  # the stages that import renate_config.py
POINTED = ("data/incoming", "parent-state", "champion", "forget.yaml")  # with rules of their own
LARGE = 2**26  # bytes from which on a hash is kept between processes


@dataclass(frozen=True)
class DeclaredFiles:
    """What the stages of one pipeline declare, as relative paths without a final slash.

    Args:
        root: The folder of `dvc.yaml`.
        deps: By stage, what it depends on; the user's own files of parameters too.
        outs: By stage, what it writes.
        params: By stage, the keys that it reads of each parameter file; none: all.
    """

    root: Path
    deps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    outs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> DeclaredFiles | None:
        """Read `dvc.yaml`. Without that file the result is None, and nothing has to be declared.

        Raises:
            MalformedFileError: If it is not YAML.
        """
        path = root / "dvc.yaml"
        return _parsed(root, path.read_text(encoding="utf-8")) if path.is_file() else None

    def allows(self, stage: str, name: str) -> bool:
        """Return whether a stage declares a file or one of the folders that contain it."""
        return _within(name, (*self.deps.get(stage, ()), *self.outs.get(stage, ())))

    def is_product(self, name: str) -> bool:
        """Return whether a file is made by the pipeline or by our commands, not by the user."""
        return _within(name, (*POINTED, *(out for outs in self.outs.values() for out in outs)))

    def quiet(self, stage: str | None) -> tuple[str, ...]:
        """Return the products that a stage may use: nothing needs to be known of those."""
        declared = (*self.deps.get(stage or "", ()), *self.outs.get(stage or "", ()))
        return tuple(name for name in declared if self.is_product(name))

    def lacking(self, name: str, functions: Iterable[str], stage: str | None) -> list[str]:
        """Return the stages that should declare a file, and do not.

        Args:
            name: The file.
            functions: What used it: names of the user's functions, or `IMPORT`.
            stage: The stage in which it was used; None where no stage runs.
        """
        calling = {each for function in functions for each in stages_of(function)}
        return [
            each
            for each in CALLING
            if (each in calling or each == stage)
            and (each == stage or "renate_config.py" in self.deps.get(each, ()))
            and not self.allows(each, name)
        ]

    def user_files(self, stage: str) -> dict[str, Path]:
        """Return the files of the user's that a stage depends on, by relative path."""
        return self._files(name for name in self.deps.get(stage, ()) if not self.is_product(name))

    def products(self, stage: str) -> dict[str, Path]:
        """Return the files of data and of other stages that a stage depends on, by relative path."""
        return self._files(name for name in self.deps.get(stage, ()) if self.is_product(name))

    def _files(self, names: Iterable[str]) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for name in names:
            path = self.root / name
            if path.is_dir():
                for each in sorted(path.rglob("*")):
                    relative = each.relative_to(path).as_posix()
                    if each.is_file() and not is_passing(relative):
                        found[f"{name}/{relative}"] = each
            elif path.is_file():
                found[name] = path
        return found


def stages_of(function: str) -> tuple[str, ...]:
    """Return the stages that call one of the user's functions; what is no name: a call in training."""
    if function == IMPORT:
        return CALLING
    if function in OF_DATA:
        return ("prepare",)
    if function in OF_TRAINING:
        return ("tune", "train")
    return ("tune", "train", "export")


def is_passing(name: str) -> bool:
    """Return whether a path below a project is of a tool or a package, not of the project itself.

    So are hidden folders (`.git`, `.renate`, `.venv`, `.cache`), settings of the environment
    (`.env`), bytecode, and what installed packages say of themselves.
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
        known: Where hashes of large files are kept from process to process; None: nowhere.
    """
    large = {n: p for n, p in wanted.items() if known and p.stat().st_size >= LARGE}
    found = (
        {n: e["sha256"] for n, e in Hashes(known).entries(large).items()} if known and large else {}
    )
    return {name: found.get(name) or sha256(path) for name, path in wanted.items()}


def values_of(root: Path, params: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """Return the values of parameters, as DVC compares them.

    Args:
        root: The project's folder.
        params: Keys of each parameter file; none: the whole file.
    """
    found: dict[str, Any] = {}
    for name, keys in params.items():
        content = yaml_file.read(root / name)
        for key in keys or ("",):
            value = content
            for part in key.split(".") if key else ():
                value = value.get(part) if isinstance(value, dict) else None
            found[f"{name}:{key}"] = value
    return found


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
