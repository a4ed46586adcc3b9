"""Examples: what a data module gives, how they are stored, which are kept and forgotten."""

from __future__ import annotations

from collections.abc import Iterable

from renate_stages.errors.base import RenateStagesError, did_you_mean


class DataModuleError(RenateStagesError):
    """The user's data module gave something that cannot be used."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"data_module_fn of renate_config.py: {problem}.\nTo mend it: {cure}.")


class MissingSplitError(RenateStagesError):
    """A data module was asked for a split that its `setup()` did not set."""

    def __init__(self, module: str, split: str) -> None:
        super().__init__(
            f"{module}.{split}() has no data; expected `self._{split}` to be set by setup(): "
            f"call setup() first, and set `self._{split}` in it"
        )


class EmptyDatasetError(RenateStagesError):
    """A split that must hold examples has none."""

    def __init__(self, split: str) -> None:
        super().__init__(
            f"{split} data: found 0 items, expected at least 1; "
            "check what the data module reads from its data_path"
        )


class InvalidShareError(RenateStagesError):
    """A share of the data is outside [0, 1)."""

    def __init__(self, name: str, value: object) -> None:
        super().__init__(f"{name}: found {value!r}, expected a share from 0 up to, not with, 1")


class NotAPairError(RenateStagesError):
    """An item of a dataset is not `(inputs, targets)`."""

    def __init__(self, split: str, index: int, found: str) -> None:
        super().__init__(
            f"{split} data, item {index} is {found}; expected a pair (inputs, targets), or these "
            "and a dict of metadata: end the dataset's __getitem__ with `return inputs, targets`"
        )


class ItemMismatchError(RenateStagesError):
    """An item of a dataset differs from item 0 in structure, dtype or shape."""

    def __init__(self, split: str, index: int, where: str, found: str, expected: str) -> None:
        super().__init__(
            f"{split} data, item {index}: {where} is {found}, but item 0 has {expected}; "
            "let the data module return items of one structure, dtype and shape "
            "(resize, pad or convert them there, or name in its ragged_fields what differs in length)"
        )


class UnstorableValueError(RenateStagesError):
    """An item of a dataset holds something that is not a tensor, an array or a number."""

    def __init__(self, split: str, index: int, where: str, found: str, cure: str) -> None:
        super().__init__(
            f"{split} data, item {index}: {where} is {found}; "
            f"expected a tensor, a numeric NumPy array or a number: {cure}"
        )


class InvalidMetadataError(RenateStagesError):
    """What an item says of itself cannot be kept beside it."""

    def __init__(self, where: str, found: object, expected: str) -> None:
        super().__init__(f"{where} is {found!r}; expected {expected}")


class UndecodableError(RenateStagesError):
    """A stored example cannot be decoded."""

    def __init__(self, decoder: str, problem: object) -> None:
        super().__init__(
            f"a stored example cannot be decoded as {decoder}: {problem}; look at the file it came "
            "from, leave it out in the data module, and run `dvc repro`"
        )


class UnequalExamplesError(RenateStagesError):
    """Examples that must be stacked to a batch differ in shape."""

    def __init__(self, shapes: Iterable[object]) -> None:
        super().__init__(
            f"the examples of a batch have shapes {', '.join(sorted(map(str, shapes)))}, which "
            "cannot be stacked: let the transforms in renate_config.py resize or crop to one shape"
        )


class DamagedStoreError(RenateStagesError):
    """A file of a store of examples is missing, cut short, or not what the index says."""

    def __init__(self, file: object, problem: str, cure: str | None = None) -> None:
        cure = cure or "`dvc checkout` restores it, or `dvc pull` where the cache lacks it"
        super().__init__(f"store of examples: {file}: {problem}; {cure}")


class TooManyMapsError(RenateStagesError):
    """Examples lie in more files than the system lets a process map at once."""

    def __init__(self, file: object, problem: str | None) -> None:
        super().__init__(
            f"store of examples: {file} cannot be mapped ({problem}): too many files of examples "
            "are in use.\nTo mend it: raise the hard limit of open files (`ulimit -Hn`) and, as root, "
            "the system's limit of maps (`sysctl -w vm.max_map_count=1000000`); or take in less data "
            "in an update."
        )


class ExampleStructureError(RenateStagesError):
    """An example has a part that cannot be named or stored, such as an empty or oddly named one."""

    def __init__(self, where: str, found: str, expected: str) -> None:
        super().__init__(f"example: {where} is {found}; expected {expected}")


class ExampleMismatchError(RenateStagesError):
    """Examples that must look alike differ in structure, dtype or shape."""

    def __init__(self, where: str, found: str, expected: str) -> None:
        super().__init__(
            f"{where}: found {found}, expected {expected} as in the examples before; "
            "let the data module return examples of one structure, dtype and shape"
        )


class UnknownFieldError(RenateStagesError):
    """A part of an example is named that examples do not have."""

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
    """A memory that must be bounded was given no size, or one below 1."""

    def __init__(self, policy: str, size: object) -> None:
        super().__init__(
            f"memory_size: found {size!r}, expected a whole number of examples >= 1, or bytes such "
            f"as '500 MB' or 20GiB, for policy '{policy}'; set memory_size, or take policy 'infinite' to keep all"
        )


class LabelsNeededError(RenateStagesError):
    """A policy that balances classes met examples without integer labels."""

    def __init__(self, policy: str) -> None:
        super().__init__(
            f"memory policy '{policy}' balances classes, but the targets are not one integer "
            "for each example; let the data module return integer labels, or take policy "
            "'reservoir', which needs none"
        )


class ClassLabelsNeededError(RenateStagesError):
    """A learner of classes met targets that are no class labels."""

    def __init__(self, learner: str, found: str) -> None:
        super().__init__(
            f"{learner} learns classes, but the targets are {found}, expected one integer for each "
            "example; let the data module, or test_target_transform, return integer labels, or "
            "take another learner"
        )


class LabelOutOfRangeError(RenateStagesError):
    """A class label for which the model has no output."""

    def __init__(self, label: int, outputs: int) -> None:
        super().__init__(
            f"an example has the label {label}, but the model's head has {outputs} outputs, for "
            f"labels 0 to {outputs - 1}; let model_fn of renate_config.py build a head with more "
            "outputs, or let the data module return other labels"
        )
