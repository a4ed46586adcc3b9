"""Errors of examples: from the data module, in stores, and when rows are selected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from renate_stages.errors.base import RenateStagesError, did_you_mean, sentence

FEW = 10  # rejected rows that an error lists
REASONS = 5  # reasons that it counts


class DataModuleError(RenateStagesError):
    """The user's data module returned data that cannot be used."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(
            "the data module (from data_module_fn, or data.module of params.yaml): "
            f"{sentence(problem)}\nTo fix this: {cure}."
        )


class UnknownDataModuleError(RenateStagesError):
    """`data.module` names a data module that does not exist."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(
            f"data.module: unknown data module '{name}'{did_you_mean(name, known)}.\n"
            f"To fix this: choose one of {', '.join(sorted(known))}, or remove data.module and define "
            "data_module_fn in renate_config.py."
        )


class TooManyRejectedError(RenateStagesError):
    """A data module had to leave out too many rows.

    Args:
        count: Their number.
        rows: Rows that it read, with those.
        most: Maximum share, `data.max_rejected`.
        rejected: The rows, with `place` and `reason`.
        reasons: The number of rows by reason, the most frequent first.
        path: File that lists all of them; None if no file was written.
    """

    def __init__(
        self,
        count: int,
        rows: int,
        most: float,
        rejected: Sequence[Any],
        reasons: Mapping[str, int],
        path: str | None = None,
    ) -> None:
        lines = [f"  {reason}: {number}" for reason, number in [*reasons.items()][:REASONS]]
        if (others := len(reasons) - REASONS) > 0:
            lines.append(f"  and {others} other reason{'s' if others > 1 else ''}")
        lines.append("The first rows:" if count > FEW else "The rows:")
        lines += [f"  {each.place}: {each.reason}" for each in rejected[:FEW]]
        if count > FEW:
            lines.append(f"  and {count - FEW} more" + (f"; all are in {path}" if path else ""))
        elif path:
            lines.append(f"They are also in {path}.")
        listed = "\n".join(lines)
        super().__init__(
            f"{count} of {rows} rows cannot be used, which is more than data.max_rejected "
            f"({most:g}) allows. Reasons:\n{listed}\n"
            "To fix this: correct these rows, or raise data.max_rejected to leave them out."
        )


class ChangedPreprocessingError(RenateStagesError):
    """New data, or another model, does not fit what was fitted on earlier data."""

    def __init__(self, what: str, problem: str, cure: str | None = None) -> None:
        cure = cure or "use data and models of one lineage, in which preprocessing only grows"
        super().__init__(f"{what}: {problem}.\nTo fix this: {cure}.")


class TableError(RenateStagesError):
    """A table cannot be read, or its columns are not those that are expected."""

    def __init__(self, where: Path | str, problem: str, cure: str) -> None:
        super().__init__(f"{where}: {problem}.\nTo fix this: {cure}.")


class NoPredictionsError(RenateStagesError):
    """A deployed model cannot return predictions for rows."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"predictions: {problem}.\nTo fix this: {cure}.")


class MissingSplitError(RenateStagesError):
    """A data module has no data for a split, because `setup()` has not set it."""

    def __init__(self, module: str, split: str) -> None:
        super().__init__(
            f"{module}.{split}() has no data, because setup() has not set `self._{split}`.\n"
            f"To fix this: set `self._{split}` in setup(). If it is set there, call setup() before "
            f"{split}()."
        )


class EmptyDatasetError(RenateStagesError):
    """A split that must hold examples has none."""

    def __init__(self, split: str) -> None:
        super().__init__(
            f"{split} data: found 0 items, expected at least 1.\n"
            "To fix this: check that the data module reads the files in its data_path."
        )


class InvalidShareError(RenateStagesError):
    """A fraction of the data is outside [0, 1)."""

    def __init__(self, name: str, value: object) -> None:
        super().__init__(f"{name}: found {value!r}, expected a fraction in [0, 1)")


class ColumnLengthError(RenateStagesError):
    """Columns of a dataset differ in length."""

    def __init__(self, path: str, rows: int, other: str, expected: int) -> None:
        super().__init__(
            f"column '{path}' has {rows} rows, but '{other}' has {expected}.\n"
            "To fix this: pass columns with one entry for each example."
        )


class NotAPairError(RenateStagesError):
    """An item of a dataset is not `(inputs, targets)`."""

    def __init__(self, split: str, index: int, found: str) -> None:
        super().__init__(
            f"{split} data, item {index} is {found}; expected (inputs, targets) or (inputs, "
            "targets, metadata), where metadata is a dict.\n"
            "To fix this: end the dataset's __getitem__ with `return inputs, targets`."
        )


class ItemMismatchError(RenateStagesError):
    """An item of a dataset differs from item 0 in structure, dtype or shape."""

    def __init__(self, split: str, index: int, where: str, found: str, expected: str) -> None:
        super().__init__(
            f"{split} data, item {index}: {where} is {found}, but item 0 has {expected}.\n"
            "To fix this: let the data module return items of one structure, dtype and shape "
            "(resize, pad or convert them there), or list fields of varying length in "
            "ragged_fields."
        )


class UnstorableValueError(RenateStagesError):
    """An item of a dataset contains a value that is not a tensor, an array or a number."""

    def __init__(self, split: str, index: int, where: str, found: str, cure: str) -> None:
        name = ", or the name of a label" if where == "targets" else ""
        super().__init__(
            f"{split} data, item {index}: {where} is {found}; "
            f"expected a tensor, a numeric NumPy array or a number{name}.\nTo fix this: {cure}."
        )


class FingerprintError(RenateStagesError):
    """What inputs are encoded with has changed since the parent's examples were stored.

    Args:
        names: What changed.
        missing: Those of them that are no longer listed.
        digest: Digest of the new fingerprint.
    """

    def __init__(self, names: Iterable[str], missing: Iterable[str], digest: str) -> None:
        gone = set(missing)
        listed = ", ".join(f"{each} (no longer listed)" if each in gone else each for each in names)
        super().__init__(
            f"the fingerprint of the data has changed: {listed}. Examples, model and holdouts of "
            "earlier updates were made with the old one, so inputs would be misread.\n"
            "To fix this: use the old files; or start again from the empty state with all data. If "
            "old examples fit the new files, such as when words were only added at the end, set "
            f"data.accepted_fingerprint: {digest} in params.yaml."
        )


class RaggedOutputsError(RenateStagesError):
    """A learner stores outputs with examples whose targets, and so outputs, differ in length."""

    def __init__(self, learner: str) -> None:
        super().__init__(
            f"{learner} stores the model's outputs with each example, which need one shape, but the "
            "targets differ in length.\n"
            "To fix this: let the data module pad targets to one length with -100, or choose a "
            "learner that stores no outputs, such as ER or LwF."
        )


class InvalidMetadataError(RenateStagesError):
    """The metadata of an item cannot be stored."""

    def __init__(self, where: str, found: object, expected: str) -> None:
        super().__init__(f"{where} is {found!r}; expected {expected}")


class UndecodableError(RenateStagesError):
    """A stored example cannot be decoded."""

    def __init__(self, decoder: str, problem: object) -> None:
        super().__init__(
            f"a stored example cannot be decoded as {decoder}: {problem}.\nTo fix this: find the "
            "damaged file in your data, skip it in the data module, and run `dvc repro`."
        )


class UnequalExamplesError(RenateStagesError):
    """The examples of a batch differ in shape, so they cannot be stacked."""

    def __init__(self, shapes: Iterable[object]) -> None:
        super().__init__(
            f"the examples of a batch have shapes {', '.join(sorted(map(str, shapes)))}, which "
            "cannot be stacked.\n"
            "To fix this: let the transforms in renate_config.py resize or crop them to one shape."
        )


class DamagedStoreError(RenateStagesError):
    """A file of a store of examples is missing, truncated, or does not match the index."""

    def __init__(self, file: object, problem: str, cure: str | None = None) -> None:
        cure = cure or "run `dvc checkout`, or `dvc pull` if the cache does not have the file"
        super().__init__(f"store of examples: {file}: {problem}.\nTo fix this: {cure}.")


class TooManyMapsError(RenateStagesError):
    """A store of examples has more files than a process may map at once."""

    def __init__(self, file: object, problem: str | None) -> None:
        super().__init__(
            f"store of examples: {file} cannot be mapped into memory ({problem}): too many files "
            "are mapped already.\nTo fix this: raise the hard limit of open files (`ulimit -Hn`) "
            "and, as root, the system's limit of memory maps (`sysctl -w "
            "vm.max_map_count=1000000`); or use less data per update."
        )


class ExampleStructureError(RenateStagesError):
    """A part of an example cannot be stored, for example because it is empty or has a bad name."""

    def __init__(self, where: str, found: str, expected: str) -> None:
        super().__init__(f"example: {where} is {found}; expected {expected}")


class ExampleMismatchError(RenateStagesError):
    """Examples differ in structure, dtype or shape."""

    def __init__(self, where: str, found: str, expected: str) -> None:
        super().__init__(
            f"{where}: found {found}, expected {expected} as in earlier examples.\n"
            "To fix this: let the data module return examples of one structure, dtype and shape."
        )


class UnknownFieldError(RenateStagesError):
    """A setting refers to a field that the examples do not have."""

    def __init__(self, where: str, name: str, known: Iterable[str]) -> None:
        super().__init__(
            f"{where}: examples have no '{name}'{did_you_mean(name, known)} "
            f"(known: {', '.join(known)})"
        )


class UnknownPolicyError(RenateStagesError):
    """No selection policy has this name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        super().__init__(
            f"memory policy: found {name!r}, expected one of {', '.join(known)}"
            f"{did_you_mean(name, known)}"
        )


class InvalidMemorySizeError(RenateStagesError):
    """A bounded memory has no size, or a size below 1."""

    def __init__(self, policy: str, size: object) -> None:
        super().__init__(
            f"memory_size: found {size!r}, expected a whole number of examples >= 1, or bytes such "
            f"as '500 MB' or 20GiB, for policy '{policy}'.\n"
            "To fix this: set memory_size, or choose policy 'infinite' to keep all examples."
        )


class LabelsNeededError(RenateStagesError):
    """A setting that balances classes needs integer labels, but the examples have none."""

    def __init__(self, setting: str) -> None:
        super().__init__(
            f"{setting} balances classes, but the targets are not one integer per example.\n"
            "To fix this: let the data module return integer labels, or choose a setting that "
            "needs no labels: `memory_policy: reservoir`, `sampling: uniform`."
        )


class ClassLabelsNeededError(RenateStagesError):
    """A learner needs class labels, but the targets are not class labels."""

    def __init__(self, learner: str, found: str) -> None:
        super().__init__(
            f"{learner} needs class labels, but the targets are {found}; expected one integer per "
            "example.\nTo fix this: let the data module or test_target_transform return integer "
            "labels, or choose another learner."
        )


class LabelOutOfRangeError(RenateStagesError):
    """The model has no output for a class label."""

    def __init__(self, label: int, outputs: int) -> None:
        super().__init__(
            f"an example has the label {label}, but the model's head has {outputs} outputs, for "
            f"labels 0 to {outputs - 1}.\nTo fix this: let model_fn in renate_config.py build a "
            "head with more outputs, or let the data module return labels in this range."
        )
