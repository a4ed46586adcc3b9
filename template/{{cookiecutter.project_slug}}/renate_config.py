{% if cookiecutter.starting_data == 'digits' -%}
"""The model and the data of this project: handwritten digits that arrive class by class.

The pipeline calls these functions by name. Each receives the `hyperparameters` of params.yaml that
its signature names (data_module_fn: those of `data.arguments`). Also looked for, and called where
they are there: optimizer_fn, lr_scheduler_fn, metrics_fn, buffer_transform, target transforms.
"""

from pathlib import Path

import numpy as np
import torch
from renate_stages.data import Batched, RenateDataModule
from renate_stages.models import MLP, RenateModule
from torch.utils.data import TensorDataset


class DigitsDataModule(RenateDataModule):
    """Images (8, 8) uint8 from 0 to 16, and their labels 0 to 9; the pipeline splits them."""

    def setup(self) -> None:
        folder = Path(self._data_path)
        images = torch.from_numpy(np.load(folder / "inputs.npy"))
        labels = torch.from_numpy(np.load(folder / "targets.npy"))
        self._train_data = TensorDataset(images, labels)


def data_module_fn(data_path: str, seed: int = 0) -> RenateDataModule:
    """Read one update's data; `data_path` is its folder."""
    return DigitsDataModule(data_path, seed=seed)


def model_fn(model_state_url: str | None = None, hidden_size: int = 128) -> RenateModule:
    """Build the model, or load it from a state dict that the pipeline names."""
    if model_state_url is not None:
        return MLP.from_state_dict(torch.load(model_state_url))
    return MLP(num_inputs=64, num_outputs=10, hidden_size=hidden_size)


def loss_fn() -> torch.nn.Module:
    """One loss for each example: the pipeline takes the mean."""
    return torch.nn.CrossEntropyLoss(reduction="none")


def train_transform():
    """What is done to stored examples each time they are trained on; room for augmentation.

    `Batched`: to a whole batch at once. Without it a transform gets one example at a time.
    """
    return Batched(to_unit_range)


def test_transform():
    """What is done to stored examples before the model is measured on them."""
    return Batched(to_unit_range)


def to_unit_range(images: torch.Tensor) -> torch.Tensor:
    """Turn values of 0 to 16 into floats of 0 to 1."""
    return images.float() / 16
{%- else -%}
"""The model and the data of this project: fill in the two functions that raise.

The pipeline calls these functions by name. Each receives the `hyperparameters` of params.yaml that
its signature names (data_module_fn: those of `data.arguments`). `make test` tries them on data of
yours in seconds.
"""

import torch
from renate_stages.data import RenateDataModule


class IncomingData(RenateDataModule):
    """One update's data, from the folder `self._data_path`."""

    def setup(self) -> None:
        # Set three map-style datasets of (inputs, targets); inputs may be a tensor, or a dict or
        # tuple of tensors, of one shape for all examples, as they are before any augmentation.
        # The last two may stay None: then a share of the training rows is set aside (params.yaml,
        # data.validation_fraction and data.test_fraction).
        self._train_data = None
        self._val_data = None
        self._test_data = None


def data_module_fn(data_path: str, seed: int = 0) -> RenateDataModule:
    """Read one update's data; `data_path` is its folder."""
    raise NotImplementedError("data_module_fn: fill in IncomingData, then return it from here")
    return IncomingData(data_path, seed=seed)


def model_fn(model_state_url: str | None = None) -> torch.nn.Module:
    """Build the model, or load it from a state dict that the pipeline names."""
    raise NotImplementedError("model_fn: build your torch.nn.Module here")
    model = torch.nn.Linear(1, 1)
    if model_state_url is not None:
        model.load_state_dict(torch.load(model_state_url))
    return model


# Optional; remove the marks of those that you need.
#
# def loss_fn():  # default: cross-entropy for whole-number targets, else squared error
#     return torch.nn.CrossEntropyLoss(reduction="none")
#
# def optimizer_fn(learning_rate: float = 0.1):  # default: by `optimizer` in params.yaml
#     return functools.partial(torch.optim.SGD, lr=learning_rate)
#
# def lr_scheduler_fn():  # default: a constant rate; "epoch" or "step" says how often it steps
#     return functools.partial(torch.optim.lr_scheduler.StepLR, step_size=10), "epoch"
#
# def metrics_fn():  # default: accuracy where targets are labels; the loss is always measured
#     return {"accuracy": torchmetrics.classification.MulticlassAccuracy(num_classes=10)}
#
# def train_transform():  # of one example's inputs; buffer_transform for replayed ones
#     return lambda inputs: inputs.float()  # renate_stages.data.Batched(...): of a batch's, faster
#
# def test_transform():
#     return lambda inputs: inputs.float()
{%- endif %}
