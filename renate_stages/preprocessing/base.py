"""`Preprocessing`: what an update fits on its data, from raw rows to the inputs of the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from renate_stages import files
from renate_stages.memory import ExampleStore, Tree

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FOLDER = "preprocessing"  # in work/prepared, state and export
FILE = "preprocessing.json"
SCHEMA = 1


@dataclass(frozen=True)
class RawColumn:
    """A column of a table of raw rows, as `encode` takes it.

    Args:
        name: Its name.
        kind: What its values are; an image is the bytes of a file.
        optional: Whether values may be missing.
        other_names: Names that it may have instead, because files of updates called it so.
    """

    name: str
    kind: Literal["number", "boolean", "date", "category", "text", "image"]
    optional: bool = False
    other_names: tuple[str, ...] = ()


class Preprocessing(ABC):
    """Turns raw rows into stored inputs, and stored inputs into the inputs of the model.

    It is fitted on the training rows of the first update. Later updates may only add to it, for
    example a code for a new category, so that examples of earlier updates keep their meaning.
    """

    kind: ClassVar[str]  # its name in the file; see `registry.KINDS`

    equal_is_same: ClassVar[bool] = True
    """Whether rows with different ids but equal content are the same example."""

    built: dict[str, Any] | None = None
    """Sizes with which models of this data are built, those of the first update, with `num_outputs`;
    they grow from there. None if `prepare` has not set them."""

    targets: tuple[str, ...] = ()
    """Names of the columns of the targets, in the order of the model's outputs, if there are several."""

    @property
    def is_given(self) -> bool:
        """Whether settings alone decide it, so that nothing is fitted on data."""
        return False

    @property
    def raw_columns(self) -> tuple[RawColumn, ...]:
        """Columns of a table of raw rows; empty if `encode` does not take tables."""
        return ()

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages that it needs in addition to those that this library depends on."""
        return ()

    @abstractmethod
    def fit(self, train: ExampleStore) -> dict[str, Any]:
        """Fit to the training rows of the first update; later, only add what they have anew.

        Args:
            train: The training rows as they are stored, without those that are left out.

        Returns:
            What is new or unusual in these rows, as JSON values for the report.
        """

    @abstractmethod
    def encode(self, rows: Any) -> Tree:
        """Return raw rows as stored inputs, for a deployed model; nothing is added.

        Args:
            rows: Rows in a form of the data module, such as a DataFrame or a list of texts.

        Returns:
            Arrays `(rows, ...)` or `Ragged`, in the structure of stored inputs.

        Raises:
            RenateStagesError: If a row cannot be read; it names the row and the reason.
        """

    @abstractmethod
    def transform(self, stored: Tree) -> Tree:
        """Return the inputs of the model for a batch of stored inputs.

        Args:
            stored: Tensors `(B, ...)`; rows of different lengths are padded with zeros.
        """

    def transform_training(self, stored: Tree) -> Tree:
        """Return the inputs of the model for a batch of training examples.

        It differs from `transform` if the data module is to change training examples at random.
        """
        return self.transform(stored)

    def decode(self, encoded: np.ndarray, decoder: str) -> Tensor:
        """Return a stored example that is bytes, such as an image, as a tensor.

        Args:
            encoded: The bytes, uint8 `(n,)`.
            decoder: The decoder of the store, a name in `decoders.DECODERS`.

        Raises:
            UndecodableError: If it cannot be decoded.
        """
        from renate_stages.preprocessing.decoders import decode

        return decode(encoded, decoder)

    transform_example: Callable[[Tree], Tree] | None = None
    """Method that is applied to each stored example before they are stacked to a batch, for examples
    of different shapes; without a batch dimension. None: there is nothing to do."""

    def summary(self) -> str:
        """Return one line for the user that says how the data of the first update was read."""
        return f"data module: {self.kind}"

    @abstractmethod
    def sizes(self) -> dict[str, Any]:
        """Return the arguments of models that depend on the data, such as `vocab_size`."""

    def sizes_of_new_model(self) -> dict[str, Any]:
        """Return the sizes to build a new model with, which may leave room for later updates."""
        return self.sizes()

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """Return what it has fitted as JSON values."""

    @classmethod
    @abstractmethod
    def from_content(cls, content: Mapping[str, Any], folder: Path) -> Self:
        """Return the preprocessing that `content` describes.

        Args:
            content: What `content()` returned, parsed from a file that nobody vouches for.
            folder: Folder of the file, for further files.

        Raises:
            KeyError, TypeError, ValueError: If the content is not valid.
        """

    def problem_reading(self, writer: Preprocessing) -> str | None:
        """Return why this one cannot read examples that `writer` encoded; None if it can.

        The gate asks this of the champion's preprocessing, for the holdouts of an update.
        """
        return None if writer.kind == self.kind else f"it is for {self.kind}, not {writer.kind}"

    def write(self, folder: Path) -> None:
        """Write it to the folder `preprocessing` inside `folder`."""
        record = {"kind": self.kind, "built": self.built, "schema": SCHEMA, **self.content()}
        record |= {"targets": list(self.targets)} if self.targets else {}
        (folder / FOLDER).mkdir()
        files.write_json(folder / FOLDER / FILE, record)


def link_preprocessing(source: Path | None, folder: Path) -> None:
    """Link a preprocessing from one folder to another; do nothing without one.

    Args:
        source: `work/prepared`, a state or `export`; None: there is no preprocessing.
        folder: The folder that is being written.
    """
    if source is None or not (source / FOLDER).is_dir():
        return
    (folder / FOLDER).mkdir()
    for path in sorted((source / FOLDER).iterdir()):
        files.link_or_copy(path, folder / FOLDER / path.name)
