"""Ingest the datasets of the user's data module into the example stores of one update."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from renate_stages.data.rejected import check_rejected
from renate_stages.errors import (
    AllRowsRejectedError,
    DataModuleError,
    EmptyIncomingError,
    ReusedNamesError,
    UserResultError,
    user_code,
)
from renate_stages.memory import ExampleStore, Ragged
from renate_stages.memory.earlier_rows import EarlierRows
from renate_stages.memory.forget_list import CountedForgetList
from renate_stages.memory.identity import IdSet, given_ids
from renate_stages.memory.spec import IGNORED, ExampleSpec
from renate_stages.params import Params
from renate_stages.randomness import Generators
from renate_stages.state.feature_names import names_in, names_of_features
from renate_stages.state.manifest import MANIFEST
from renate_stages.state.prepared import SPLITS
from renate_stages.state.state import State
from renate_stages.tasks.labels import LabelNames
from renate_stages.user.config import UserConfig
from renate_stages.user.file_watch import unwatched

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from renate_stages.data.ingest import Unwanted
    from renate_stages.data.rejected import Rejected
    from renate_stages.preprocessing import Preprocessing


@dataclass(frozen=True)
class Splits:
    """The datasets of one update.

    Args:
        train: Training data.
        val: Validation data, for choosing hyperparameters and epochs.
        test: Test data, for measuring.
        ragged: Paths of the fields in their items that vary in length.
        feature_names: Names of the input features, if the data module has them.
        fingerprint: What `RenateDataModule.fingerprint` returned; None if there is no such method.
        label_order: Names of labels to number before others, in this order.
        preprocessing: What is to be fitted on the training data, if anything is.
        rejected: Rows that the data module left out.
        rows: Rows that it read, with those.
        categorical_features: Those of `feature_names` whose values are codes of categories.
        excluded_features: Those of `feature_names` that shift tests leave out.
        target_names: Names of the columns of the targets, if there are several.
        row_names: Names of all rows if names are their ids.
    """

    train: Dataset | None = None
    val: Dataset | None = None
    test: Dataset | None = None
    ragged: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    fingerprint: str | None = None
    label_order: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    rejected: Sequence[Rejected] = ()
    rows: int = 0
    categorical_features: tuple[str, ...] = ()
    excluded_features: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    row_names: Sequence[str] = ()


def reading(user: UserConfig | None) -> AbstractContextManager[None]:
    """Track the files that the user's datasets read items from; refuse undeclared ones at once."""
    return user.files.running("data_module_fn", long=True) if user else nullcontext()


def require_files(incoming: Path) -> None:
    """Check that the incoming folder contains files.

    Raises:
        EmptyIncomingError: If the folder is missing or contains no file.
    """
    if not incoming.is_dir() or not any(path.is_file() for path in incoming.rglob("*")):
        raise EmptyIncomingError(incoming)


def read_splits(
    user: UserConfig,
    incoming: Path,
    params: Params,
    generators: Generators,
    scratch: Path | None = None,
) -> Splits:
    """Return the datasets of the user's data module, which gets the seed of `params.yaml`.

    If the module provides no test or validation data, split off a share of the training rows by the
    rule `data.split`.

    Args:
        user: The functions of the user.
        incoming: Folder of the data.
        params: The parameters.
        generators: Random generators.
        scratch: Gets a list of the rejected rows if there are too many: `.renate/` of the project;
            None: no folder of the project remains.

    Raises:
        DataModuleError: If there is no training data, or no test data and no share is set for it.
        TooManyRejectedError: If the data module rejected more rows than `data.max_rejected` allows.
    """
    data, space = params.data, params.search_space
    try:
        module = user.data_module(
            incoming,
            data.arguments,
            params.seed,
            space.constants,
            space.domains.keys(),
            _scenario(params),
        )
    except AllRowsRejectedError as error:
        check_rejected(error.rejected, error.rows, data.max_rejected, scratch)
        raise
    with (
        user_code.running("the data module of data_module_fn"),
        user.files.running("data_module_fn"),
    ):
        train, val, test = module.train_data(), module.val_data(), module.test_data()
        own = getattr(module, "fingerprint", None)
        fingerprint = own() if callable(own) else own
    if not isinstance(fingerprint, str | None):
        what = "fingerprint() of the data module"
        raise UserResultError(what, user_code.outline(fingerprint), "a text, or None")
    rejected, rows = getattr(module, "rejected", ()), getattr(module, "rows_seen", 0)
    check_rejected(rejected, rows, data.max_rejected, scratch)
    for name, found in {"train": train, "val": val, "test": test}.items():
        _check_dataset(f"{name}_data() of the data module", found)
    if train is None:
        raise DataModuleError("train_data() returned None", "return the new training examples")
    padded: tuple[str, ...] = ()
    if any(hasattr(module, f"{split}_collate_fn") for split in SPLITS):
        from renate_stages.data.collate import collated

        with user.files.running("data_module_fn"):
            (train, val, test), padded = collated(module, (train, val, test), user.functions)
    if test is None and not data.test_fraction:
        raise DataModuleError(
            "test_data() returned None and data.test_fraction is 0",
            "return test data, or set data.test_fraction above 0: forgetting is measured on test data",
        )
    shares = {"test": data.test_fraction if test is None else 0}
    shares["val"] = data.validation_fraction if val is None else 0
    from renate_stages.data.splits import split_off

    train, parts = split_off(train, shares, generators, data.split, data.split_by)
    test, val = parts.get("test", test), parts.get("val", val)
    ragged = tuple(sorted({*names_in(module, "ragged_fields"), *padded}))
    return Splits(
        *(train, val, test, ragged),
        fingerprint=fingerprint,
        label_order=names_in(module, "label_order"),
        preprocessing=getattr(module, "preprocessing", None),
        rejected=rejected,
        rows=rows,
        target_names=names_in(module, "target_names"),
        row_names=getattr(module, "row_names", ()),
        **names_of_features(module),
    )


def _scenario(params: Params) -> Callable[[Any], Any] | None:
    """Return a function that makes the scenario of `data.scenario` of a data module, if it is set."""
    block = params.data.scenario
    if block is None:
        return None
    from renate_stages.scenarios import build_scenario

    chunk = block.chunk(params.update.number)
    return lambda module: build_scenario(block.name, module, chunk, params.seed, block.arguments)


def _check_dataset(what: str, found: Any) -> None:
    """Check that an object is a dataset or None.

    Raises:
        UserResultError: If it can be neither indexed nor iterated over, or is text or a mapping.
    """
    usable = hasattr(found, "__getitem__") or hasattr(found, "__iter__")
    if found is not None and (not usable or isinstance(found, str | bytes | Mapping)):
        expected = "a dataset of torch: with a length and items, or one to iterate over; or None"
        raise UserResultError(what, f"a {type(found).__name__}", expected)


def parent_in(folder: Path) -> State | None:
    """Return the parent's state, or None if the folder has none."""
    return State.open(folder) if (folder / MANIFEST).is_file() else None


def earlier_rows(parent: State, preprocessing: Preprocessing | None = None) -> EarlierRows:
    """Return the rows of the holdouts, the validation splits and the memory of a state.

    Args:
        parent: The state.
        preprocessing: Says whether rows with equal content are the same; None: they are.
    """
    stores = [s for name in ("holdouts", "validation") for s in parent.split(name).values()]
    by_content = preprocessing is None or preprocessing.equal_is_same
    return EarlierRows(stores, parent.memory(), by_content=by_content)


def check_row_names(names: Sequence[str], earlier: EarlierRows) -> None:
    """Check that no new row has the name of an earlier one but other inputs.

    Args:
        names: Names of the rows that are their ids.
        earlier: Rows of earlier updates, among which the new ones were looked up.

    Raises:
        ReusedNamesError: If one has.
    """
    if names and len(earlier.reused):
        is_reused = IdSet(earlier.reused).among(given_ids(names))
        raise ReusedNamesError([names[row] for row in np.flatnonzero(is_reused).tolist()])


def check_structure(train: ExampleStore, parent: State) -> None:
    """Check that new examples can share memory and validation data with those of the parent.

    Raises:
        ExampleMismatchError: If they differ in structure, dtype or shape.
    """
    for store in (parent.memory(), *parent.split("validation").values()):
        if len(store) and store.spec is not None and train.spec is not None:
            store.spec.require(train.spec, "the new data")


def ingest_splits(
    splits: Splits,
    folder: Path,
    update: int,
    forget: CountedForgetList | None = None,
    earlier: EarlierRows | None = None,
    names: LabelNames | None = None,
    num_workers: int = 0,
) -> dict[str, ExampleStore]:
    """Write each split as a store; a split that is None becomes an empty one.

    Args:
        splits: The datasets.
        folder: Folder of the stores.
        update: Number of the update.
        forget: Examples to leave out of every split.
        earlier: Rows of earlier updates; those of holdouts and validation splits are left out of
            training and validation.
        names: Names of labels, which numbers those in the data; None: targets are not names.
        num_workers: Processes that read items; see `ingest`.

    Raises:
        NamesNeededError: If targets are numbers, but labels got their names from data.
    """
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

            unwanted: list[Unwanted] = [forget] if forget and forget.listed else []
            unwanted += [_unwatched(earlier.left_out(split))] if earlier is not None else []
            stores[split] = ingest(
                dataset,
                folder / split,
                update,
                split,
                ragged=splits.ragged,
                unwanted=unwanted,
                numbers=names.numbers if names is not None else None,
                num_workers=num_workers,
            )
            if names is not None:
                names.check(split, partial(_labelled_rows, stores[split]))
    return stores


def _unwatched(look_up: Unwanted) -> Unwanted:
    """Let a function read files of the parent's state, which the user's code does not read."""

    def call(columns: dict[str, Any], spec: ExampleSpec) -> np.ndarray:
        with unwatched():
            return look_up(columns, spec)

    return call


def _labelled_rows(store: ExampleStore) -> int:
    """Return the number of rows, or 0 if all their targets are ignored."""
    if store.spec is None or "targets" not in store.spec.fields:
        return len(store)
    targets = store.column("targets")
    values = targets.values if isinstance(targets, Ragged) else targets
    return len(store) if bool((values != IGNORED).any()) else 0
