"""`DeployedModel`: an exported model that takes raw rows and returns named predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from renate_stages import files
from renate_stages.data.encoded import EncodedInputs
from renate_stages.data.stored import Transform
from renate_stages.errors import NoPredictionsError
from renate_stages.export.exported import Exported
from renate_stages.export.loading import user_of
from renate_stages.export.program_files import LABELS
from renate_stages.models import RenateModule
from renate_stages.models.stored import build_model
from renate_stages.preprocessing import Preprocessing
from renate_stages.user.file_watch import CODE

if TYPE_CHECKING:
    import pandas as pd

BATCH = 256


class DeployedModel:
    """A model, with what was fitted on data, that answers for raw rows.

        model = renate_stages.export.load("export")
        model.predict(pandas.DataFrame({"age": [31, None], "city": ["Oslo", "Rome"]}))

    Args:
        model: The model, in evaluation mode.
        preprocessing: Encodes raw rows; None: rows are stored inputs, as the data module returns.
        transform: The test transform of stored inputs.
        task: Name of the task; None if it is not known.
        labels: Names of the outputs; numbers as texts, if labels have no names.
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
            Outputs `(rows, ...)`, on the CPU.

        Raises:
            RenateStagesError: If a row cannot be read; it names the row and the reason.
            NoPredictionsError: If there is no row, or the model does not return one tensor.
        """
        encoded = rows if self.preprocessing is None else self.preprocessing.encode(rows)
        inputs, parts = EncodedInputs(encoded, self.transform), []
        if not len(inputs):
            raise NoPredictionsError("there is no row", "pass at least one row")
        device = next(self.model.parameters()).device
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
            and `probability_NAME`. Otherwise `prediction`, or `prediction_N` for each output.

        Raises:
            RenateStagesError: As for `outputs`.
            NoPredictionsError: If the outputs have more than one value for each row and column.
        """
        import pandas as pd

        outputs = self.outputs(rows, batch_size)
        if outputs.ndim > 2:
            what = f"the outputs have shape {tuple(outputs.shape)}"
            raise NoPredictionsError(what, "use `model.outputs(rows)`")
        outputs = outputs.double()
        index = getattr(rows, "index", None) if hasattr(rows, "columns") else None
        if self.task == "binary":
            positive = outputs.reshape(len(outputs)).sigmoid()
            names, probabilities = self._names(2), torch.stack([1 - positive, positive], dim=1)
        elif self.task == "classification":
            names, probabilities = self._names(outputs.shape[1]), outputs.softmax(dim=1)
        elif self.task == "multilabel":
            names, probabilities = self._names(outputs.shape[1]), outputs.sigmoid()
            columns = {f"prediction_{n}": (probabilities[:, c] > 0.5).long().numpy()
                       for c, n in enumerate(names)}  # fmt: skip
            return pd.DataFrame(columns | _columns(names, probabilities), index=index)
        else:
            values = outputs.reshape(len(outputs), -1).numpy()
            single = values.shape[1] == 1
            columns = {
                "prediction" if single else f"prediction_{c}": values[:, c]
                for c in range(values.shape[1])
            }
            return pd.DataFrame(columns, index=index)
        best = [names[column] for column in probabilities.argmax(dim=1).tolist()]
        return pd.DataFrame({"prediction": best} | _columns(names, probabilities), index=index)

    def _names(self, count: int) -> list[str]:
        return [*self.labels[:count], *map(str, range(len(self.labels), count))]


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
    described = files.read_json(folder / LABELS)
    names = described.get("names") or []
    transform = user.test_transforms(exported.hyperparameters)[0]
    task = described.get("task")
    return DeployedModel(model, user.preprocessing, transform, task, names, exported.task_id)


def _columns(names: Sequence[str], probabilities: Tensor) -> dict[str, Any]:
    return {f"probability_{n}": probabilities[:, c].numpy() for c, n in enumerate(names)}


def _moved(tree: Any, device: torch.device) -> Any:
    if isinstance(tree, dict):
        return {key: _moved(child, device) for key, child in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_moved(child, device) for child in tree)
    return tree.to(device)
