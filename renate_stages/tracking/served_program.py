"""The code of a published model version, which MLflow runs.

It needs only torch and numpy, and neither the user's code nor this package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np


class ServedProgram(mlflow.pyfunc.PythonModel):
    """Runs the exported program on a batch."""

    def load_context(self, context: Any) -> None:
        """Load the program; MLflow calls this once."""
        import torch

        exported = torch.export.load(context.artifacts["program"])
        self.program = exported.module()
        structure = exported.call_spec.in_spec
        assert structure is not None  # torch.export always records it
        self.structure = structure
        described = json.loads(Path(context.artifacts["description"]).read_text("utf-8"))
        self.inputs, self.outputs = described["inputs"], described["outputs"]

    def predict(self, context, model_input, params=None):  # without hints, which MLflow would check
        """Return the model's outputs for a batch.

        Args:
            context: Not used.
            model_input: An array `(B, ...)`, or a dict of arrays, according to the signature.
            params: Not used.

        Returns:
            An array `(B, ...)`, or a dict of arrays if the model has several outputs.
        """
        import torch
        from torch.utils import _pytree as pytree

        arrays = [
            model_input[each["name"]] if each["name"] else model_input for each in self.inputs
        ]
        tensors = [
            torch.from_numpy(np.array(array, dtype=each["dtype"]))
            for array, each in zip(arrays, self.inputs, strict=True)
        ]
        arguments, _ = pytree.tree_unflatten(tensors, self.structure)
        with torch.inference_mode():
            leaves = pytree.tree_leaves(self.program(*arguments))
        named = {
            each["name"]: leaf.numpy() for leaf, each in zip(leaves, self.outputs, strict=True)
        }
        return named.get(None, named)


mlflow.models.set_model(ServedProgram())
