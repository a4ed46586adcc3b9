"""`DeployedModel`: an exported model that takes raw rows and returns named predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from renate_stages.data.encoded import EncodedInputs
from renate_stages.data.stored import Transform
from renate_stages.errors import NoPredictionsError
from renate_stages.export.exported import Exported
from renate_stages.export.loading import user_of
from renate_stages.export.program_files import read_labels
from renate_stages.models import RenateModule
from renate_stages.models.stored import build_model
from renate_stages.preprocessing import Preprocessing
from renate_stages.user.file_watch import CODE

if TYPE_CHECKING:
    import pandas as pd

BATCH = 256
BY_COLUMN = ("classification", "multilabel")  # tasks with an output for each label


class DeployedModel:
    """A model, with what was fitted on data, that answers for raw rows.

        model = renate_stages.export.load("export")
        model.predict(pandas.DataFrame({"age": [31, None], "city": ["Oslo", "Rome"]}))

    Args:
        model: The model, in evaluation mode.
        preprocessing: Encodes raw rows; None: rows are stored inputs, as the data module returns.
        transform: From stored inputs to inputs of the model: that of the preprocessing, then the user's
            test transform; None: there is neither.
        task: Name of the task; None if it is not known.
        labels: Names of the labels in the order of the outputs; empty: they are numbers.
        task_id: Task for which the model is called, for models with parameters for each task.
    """

    def __init__(
        self,
        model: RenateModule,
        preprocessing: Preprocessing | None,
        transform: Transform | None,
        task: str | None,
        labels: Sequence[str],
        task_id: str | None = None,
    ) -> None:
        self.model, self.preprocessing, self.transform = model, preprocessing, transform
        self.task, self.labels, self.task_id = task, tuple(labels), task_id

    def outputs(self, rows: Any, batch_size: int = BATCH) -> Tensor:
        """Return the model's outputs for raw rows.

        Args:
            rows: What the data module reads: for a table a DataFrame, a list of dicts or a dict of
                lists; for texts a list of them; for images paths or arrays. Without a
                preprocessing, stored inputs: a tensor or an array `(rows, ...)`, or a dict of them.
            batch_size: Rows for which the model is called at once.

        Returns:
            Outputs `(rows, ...)`, on the CPU. A table, Series or array without rows gives none.

        Raises:
            RenateStagesError: If a row cannot be read; it names the row and the reason.
            NoPredictionsError: If the model does not return one tensor. If there is no row, and rows
                are a list, are images, or the model has no preprocessing. Without a preprocessing,
                if rows are not tensors or arrays of one length.
        """
        unclear = self.preprocessing is None or isinstance(rows, list | tuple)
        if unclear and hasattr(rows, "__len__") and not len(rows):
            raise NoPredictionsError("there is no row", "pass at least one row")
        encoded = _stored(rows) if self.preprocessing is None else self.preprocessing.encode(rows)
        inputs, parts = EncodedInputs(encoded, self.transform), []
        if not len(inputs):
            return self.outputs([self._row_without_values()], batch_size)[:0]
        device = next((each.device for each in self.model.parameters()), torch.device("cpu"))
        with torch.inference_mode():
            for start in range(0, len(inputs), batch_size):
                batch = inputs.batch(range(start, min(start + batch_size, len(inputs))))
                part = self.model(_moved(batch, device), task_id=self.task_id)
                if not isinstance(part, Tensor):
                    what = f"the model returns a {type(part).__name__}, not one tensor"
                    raise NoPredictionsError(what, "call `model.model` for its own outputs")
                parts.append(part.float().cpu())
        return torch.cat(parts)

    def predict(self, rows: Any, batch_size: int = BATCH) -> pd.DataFrame:
        """Return a table with one row of predictions for each raw row.

        Args:
            rows: As for `outputs`.
            batch_size: As for `outputs`.

        Returns:
            For labels, the column `prediction` with the name of the most probable label, and
            `probability_NAME` for each label. For several labels per row, `prediction_NAME` (0 or 1)
            and `probability_NAME`. Otherwise `prediction`, or `prediction_NAME` for each output. Where
            outputs have no names, NAME is a number.

        Raises:
            RenateStagesError: As for `outputs`.
            NoPredictionsError: If the outputs are not one row of finite values for each raw row.
        """
        import pandas as pd

        outputs = self.outputs(rows, batch_size).double()
        columns = self._columns(outputs)
        finite = outputs.isfinite()
        finite = finite.flatten(1).all(dim=1) if finite.ndim > 1 else finite
        if not finite.all():
            what = f"the model's outputs for row {int(finite.int().argmin())} are not finite"
            raise NoPredictionsError(what, "check the values of this row, and the model's weights")
        index = rows.index if isinstance(rows, pd.DataFrame | pd.Series) else None
        return pd.DataFrame(columns, index=index)

    def _row_without_values(self) -> dict[str, Any]:
        """Return a raw row that can be encoded, to see the form of the outputs if there is no row.

        Raises:
            NoPredictionsError: If there is no such row, because inputs are images.
        """
        columns = () if self.preprocessing is None else self.preprocessing.raw_columns
        if not columns or any(each.kind == "image" for each in columns):
            raise NoPredictionsError("there is no row", "pass at least one row")
        return {each.name: None if each.optional else "" for each in columns}

    def _columns(self, outputs: Tensor) -> dict[str, Any]:
        """Return the columns of predictions for outputs, float64 `(rows, ...)`."""
        columns = 1 if outputs.ndim == 1 else outputs.shape[1]
        fits = outputs.ndim == 2 or (outputs.ndim == 1 and self.task not in BY_COLUMN)
        if not fits or (self.task == "binary" and columns != 1):
            what = f"the outputs have shape {tuple(outputs.shape)}, which is not one row of values"
            raise NoPredictionsError(
                f"{what} for the task {self.task}", "use `model.outputs(rows)`"
            )
        if self.task in BY_COLUMN or self.task == "binary":
            names, probabilities = self._probabilities(outputs)
            found = {f"probability_{n}": probabilities[:, c].numpy() for c, n in enumerate(names)}
            if self.task == "multilabel":
                chosen = (probabilities > 0.5).long().numpy()
                return {f"prediction_{n}": chosen[:, c] for c, n in enumerate(names)} | found
            best = probabilities.argmax(dim=1).numpy()
            return {"prediction": np.array(names)[best]} | found  # texts, also without a row
        values = outputs.reshape(len(outputs), columns).numpy()
        if columns == 1:
            return {"prediction": values[:, 0]}
        return {f"prediction_{n}": values[:, c] for c, n in enumerate(self._names(columns))}

    def _probabilities(self, outputs: Tensor) -> tuple[list[str], Tensor]:
        """Return the names of labels, and their probabilities `(rows, labels)`."""
        if self.task == "binary":
            positive = outputs.reshape(len(outputs)).sigmoid()
            probabilities = torch.stack([1 - positive, positive], dim=1)
        else:
            is_one = self.task == "classification"
            probabilities = outputs.softmax(dim=1) if is_one else outputs.sigmoid()
        count = probabilities.shape[1]
        return self._names(count), probabilities

    def _names(self, count: int) -> list[str]:
        """Return the names of outputs; a model may have more of them than labels are known."""
        targets = () if self.preprocessing is None else self.preprocessing.targets
        known = self.labels or (targets if len(targets) == count else ())
        others = (f"output {n}" if known else str(n) for n in range(count))
        return [*known[:count], *list(others)[len(known) :]]


def load(folder: str | Path) -> DeployedModel:
    """Load an exported model with its preprocessing, for predictions from raw rows.

        renate_stages.export.load("export").predict(rows)

    Args:
        folder: `export/`, or a copy of it.

    Raises:
        MissingFileError: If the folder has no exported model or no code.
        MalformedFileError: If one of its files is damaged.
    """
    folder = Path(folder)
    exported = Exported.read(folder)
    user = user_of(folder, folder / CODE, exported.named)
    model = build_model(user, exported.hyperparameters, folder, exported.task_id).eval()
    labels = read_labels(folder)
    transform = user.test_transforms(exported.hyperparameters)[0]
    own = (labels.task, labels.names, exported.task_id)
    return DeployedModel(model, user.preprocessing, transform, *own)


def _stored(rows: Any) -> Any:
    """Return rows of a model without a preprocessing, after a check that they are stored inputs."""
    leaves = list(_leaves(rows))
    for leaf in leaves:
        if not isinstance(leaf, Tensor | np.ndarray) or not leaf.ndim:
            what = f"found a {type(leaf).__name__}, but the model has no preprocessing"
            cure = "pass a tensor or an array (rows, ...), or a dict or tuple of them"
            raise NoPredictionsError(what, cure)
    if len(lengths := {len(leaf) for leaf in leaves}) != 1:
        what = f"its parts have {', '.join(map(str, sorted(lengths))) or 'no'} rows"
        raise NoPredictionsError(what, "pass parts with equal numbers of rows")
    return rows


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict | tuple):
        for child in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(child)
    else:
        yield tree


def _moved(tree: Any, device: torch.device) -> Any:
    if isinstance(tree, dict):
        return {key: _moved(child, device) for key, child in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_moved(child, device) for child in tree)
    return tree.to(device)
