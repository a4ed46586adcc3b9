"""The code of a published model version that takes raw rows, which MLflow runs.

It needs this package and the packages of the user's code; the exported folder has all the rest.
"""

from __future__ import annotations

import base64
import binascii
import importlib
from typing import Any

import mlflow


class ServedRows(mlflow.pyfunc.PythonModel):
    """Encodes a table of raw rows and predicts, as `renate_stages.export.load` does."""

    def load_context(self, context: Any) -> None:
        """Load the exported model; MLflow calls this once."""
        # By name, because folders of this package may only import those below them.
        load = importlib.import_module("renate_stages.export.deployed").load
        self.model = load(context.artifacts["export"])

    def predict(self, context, model_input, params=None):  # without hints, which MLflow would check
        """Return a table of predictions for a table of raw rows.

        Args:
            context: Not used.
            model_input: A DataFrame with the columns of the signature. Images are the bytes of
                files, or their base64 text.
            params: Not used.
        """
        return self.model.predict(rows_of(self.model.preprocessing.raw_columns, model_input))


def rows_of(columns: Any, table: Any) -> Any:
    """Return a table as rows that the model's preprocessing takes.

    Args:
        columns: The columns of the preprocessing.
        table: A DataFrame. Texts of an image's column are never taken as paths of files, because
            they come from a request.

    Raises:
        ValueError: If a text of an image's column is not base64.
    """
    if [each.kind for each in columns] != ["image"]:
        return table
    return [_image(row, cell) for row, cell in enumerate(table[columns[0].name])]


def _image(row: int, cell: Any) -> bytes:
    if isinstance(cell, bytes):
        return cell
    try:
        return base64.b64decode(cell, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ValueError(f"row {row}: expected the bytes of an image, or base64") from None


mlflow.models.set_model(ServedRows())
