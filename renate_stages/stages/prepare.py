"""Turn the incoming data into stores, and compare it with the old: `renate-stages prepare`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from renate_stages import files, lineage
from renate_stages.errors import (
    AllForgottenError,
    DataModuleError,
    EmptyIncomingError,
    UserResultError,
    user_code,
)
from renate_stages.export import carried_files
from renate_stages.learners import registry
from renate_stages.memory import Column, ExampleSpec, ExampleStore
from renate_stages.memory.forget_list import ForgetList
from renate_stages.params import DataParams, Params
from renate_stages.processes import heavy_imports
from renate_stages.project import Project
from renate_stages.randomness import Generators
from renate_stages.shift.features import write_features
from renate_stages.state import State, prepared
from renate_stages.state.inputs import StageInputs
from renate_stages.state.prepared import SPLITS
from renate_stages.user.config import UserConfig

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from renate_stages.shift.comparison import Shift


@dataclass(frozen=True)
class Splits:
    """The datasets of one update.

    Args:
        train: To learn from.
        val: To choose by.
        test: To measure on.
        ragged: Paths in their items that differ in length.
        feature_names: Of the numbers of an example's inputs, where the data module has some.
    """

    train: Dataset | None = None
    val: Dataset | None = None
    test: Dataset | None = None
    ragged: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()


@dataclass
class CountedForgetList:
    """Leaves out what is to be forgotten, and counts it."""

    listed: ForgetList = field(default_factory=ForgetList)
    rows: int = 0

    def __call__(self, columns: Mapping[str, Column], spec: ExampleSpec) -> np.ndarray:
        """Return which rows of a block to leave out, bool `(rows,)`."""
        found = self.listed(columns, spec)
        self.rows += int(found.sum())
        return found


def run(project: Project, say: Callable[[str], None] = print) -> None:
    """Read `data/incoming` through the user's data module; write `work/prepared` and its figures.

    Raises:
        RenateStagesError: If parameters, the user's functions or the data cannot be used.
    """
    stage = StageInputs.read(project, "prepare")
    lineage.check_inputs(project, "prepare")
    params = Params.load(project.params)
    registry.check_installed(params.search_space.learners)
    carried_files.check_files(project, params)  # now, not after hours of training
    forget = CountedForgetList(ForgetList.read(project.forget_list))
    splits, user = Splits(), None
    if params.update.kind == "update":
        require_files(project.incoming)
        with heavy_imports():
            user = UserConfig.of(project, "prepare")
        generators = Generators(params.seed, params.update.number)
        generators.seed_global("prepare")
        splits = read_splits(user, project.incoming, params.data, generators)

    with files.whole_directory(project.prepared) as folder:
        with reading(user):
            stores = ingest_splits(splits, folder, params.update.number, forget)
        if params.update.kind == "update" and not len(stores["train"]):
            raise AllForgottenError(forget.rows)
        prepared.write_manifest(folder, params.update.number)
        counts: dict[str, Any] = {split: describe(store) for split, store in stores.items()}
        said = [f"{split} {count['rows']} rows" for split, count in counts.items()]
        say(", ".join([*said, *([f"{forget.rows} forgotten left out"] if forget.rows else [])]))
        counts |= {"forgotten": {"rows": forget.rows}, "update": params.update.number}
        shift, names = None, splits.feature_names
        if user is not None and params.shift.enabled:
            shift = compare_with_parent(project, params, user, stores["train"], names, say)
    if shift is not None:
        counts["shift"] = shift.figures
    write_features(project.feature_shift, shift.features if shift is not None else [])
    files.write_json(project.data_metrics, counts)
    stage.check(user)


def reading(user: UserConfig | None) -> AbstractContextManager[None]:
    """Count the files that items of the user's datasets are read from; refuse others at once."""
    return user.files.running("data_module_fn", long=True) if user else nullcontext()


def compare_with_parent(
    project: Project,
    params: Params,
    user: UserConfig,
    new: ExampleStore,
    feature_names: Sequence[str],
    say: Callable[[str], None],
) -> Shift | None:
    """Compare new training rows with the parent's; None where it has no examples."""
    parent = State.open(project.parent)
    if not parent.has_examples:
        return None
    from renate_stages.shift.comparison import compare

    found = compare(user, params, parent, new, feature_names)
    if found is None:
        return None
    for what, reason in found.figures.get("skipped", {}).items():
        say(f"{what} is left out: {reason}")
    tests = [f"{name} p {each['p_value']:.2g}" for name, each in found.figures["tests"].items()]
    if tests:
        seen = "shift" if found.figures["alarms"] else "no shift"
        say(f"{seen} against {parent.label}: {', '.join(tests)}")
    of = found.figures.get("features", {})
    if of.get("shifted"):
        say(f"{of['shifted']} of {of['compared']} features, most of all {of['most_shifted']}")
    return found


def require_files(incoming: Path) -> None:
    """Refuse an incoming folder that is absent or holds no file.

    Raises:
        EmptyIncomingError: In either case.
    """
    if not incoming.is_dir() or not any(path.is_file() for path in incoming.rglob("*")):
        raise EmptyIncomingError(incoming)


def read_splits(
    user: UserConfig, incoming: Path, data: DataParams, generators: Generators
) -> Splits:
    """Return the datasets of the user's data module.

    Where the module gives no test or validation data, a share of the training rows is set aside,
    at random by the seed.

    Raises:
        DataModuleError: If there are no training rows, or no test rows and no share for them.
    """
    module = user.data_module(incoming, data.arguments, generators.integer("split"))
    with (
        user_code.running("the data module of data_module_fn"),
        user.files.running("data_module_fn"),
    ):
        train, val, test = module.train_data(), module.val_data(), module.test_data()
    for name, found in {"train": train, "val": val, "test": test}.items():
        _check_dataset(f"{name}_data() of the data module", found)
    if train is None:
        raise DataModuleError("train_data() returned None", "return the new training examples")
    if test is None:
        if not data.test_fraction:
            raise DataModuleError(
                "test_data() returned None and data.test_fraction is 0",
                "give test data, or a share of the training rows: forgetting is measured on them",
            )
        train, test = split_off(train, data.test_fraction, generators.integer("test split"))
    if val is None and data.validation_fraction:
        train, val = split_off(train, data.validation_fraction, generators.integer("val split"))
    ragged, names = (_names(module, each) for each in ("ragged_fields", "feature_names"))
    return Splits(train, val, test, ragged, names)


def _check_dataset(what: str, found: Any) -> None:
    """Refuse what has neither items nor an end.

    Raises:
        UserResultError: If it is no dataset.
    """
    usable = hasattr(found, "__getitem__") or hasattr(found, "__iter__")
    if found is not None and (not usable or isinstance(found, str | bytes | Mapping)):
        expected = "a dataset of torch: with a length and items, or one to iterate over; or None"
        raise UserResultError(what, f"a {type(found).__name__}", expected)


def _names(module: Any, name: str) -> tuple[str, ...]:
    """Return a list of names that a data module has as an attribute.

    Raises:
        UserResultError: If it is something else.
    """
    found = getattr(module, name, ())
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise UserResultError(f"{name} of the data module", repr(found)[:80], "names, as a tuple")
    return tuple(map(str, found))


def split_off(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Return a dataset without a random share of its rows, and that share, neither of them empty.

    Raises:
        DataModuleError: If it has no length or too few rows.
    """
    from renate_stages.data.module import split

    if not hasattr(dataset, "__len__"):
        raise DataModuleError(
            f"train_data() is a {type(dataset).__name__} without a length, which cannot be split",
            "return test_data() and val_data() as well, or a dataset with a length",
        )
    with user_code.running("train_data() of the data module"):
        rest, share = split(dataset, fraction, seed)
    if not len(rest) or not len(share):
        raise DataModuleError(
            f"train_data() has {len(rest) + len(share)} row(s), too few to set {fraction:.0%} aside",
            "give more rows, or test_data() and val_data() of their own",
        )
    return rest, share


def ingest_splits(
    splits: Splits, folder: Path, update: int, forget: CountedForgetList | None = None
) -> dict[str, ExampleStore]:
    """Write each split as a store; a split that is None becomes an empty one."""
    from renate_stages.memory import StoreWriter

    stores = {}
    for split in SPLITS:
        dataset = getattr(splits, split)
        if dataset is None:
            with StoreWriter(folder / split, update=update):
                pass
            stores[split] = ExampleStore.open(folder / split)
        else:
            from renate_stages.data import ingest

            unwanted = forget if forget and forget.listed else None
            stores[split] = ingest(
                dataset, folder / split, update, split, ragged=splits.ragged, unwanted=unwanted
            )
    return stores


def describe(store: ExampleStore) -> dict[str, Any]:
    """Return the number of rows, their bytes, and rows per class where targets are labels."""
    found: dict[str, Any] = {"bytes": store.nbytes, "rows": len(store)}
    if store.spec is not None and "targets" in store.spec.fields:
        targets = store.column("targets")
        if isinstance(targets, np.ndarray) and targets.ndim == 1 and targets.dtype.kind in "iu":
            labels, counts = np.unique(targets, return_counts=True)
            found["classes"] = {str(label): int(n) for label, n in zip(labels, counts, strict=True)}
    return found
