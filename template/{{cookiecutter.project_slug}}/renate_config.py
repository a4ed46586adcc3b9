{% if cookiecutter.starting_data == 'digits' -%}
"""The model and the data of this project: handwritten digits, a few classes in each update.

The pipeline calls these functions by name and passes the `hyperparameters` in their signatures from
params.yaml (data_module_fn also gets `data.arguments`). You may also define optimizer_fn,
lr_scheduler_fn, metrics_fn, buffer_transform and transforms of targets.
"""

from pathlib import Path

import numpy as np
import torch
from renate_stages.data import Batched, RenateDataModule
from renate_stages.models import MLP, RenateModule
from torch.utils.data import TensorDataset


class DigitsDataModule(RenateDataModule):
    """Images (8, 8) uint8 with values 0 to 16, and labels 0 to 9; the pipeline splits them."""

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
    """Return a loss with one value per example; the pipeline takes the mean."""
    return torch.nn.CrossEntropyLoss(reduction="none")


def train_transform():
    """Return the transform of stored examples for training, with augmentation if you want some.

    `Batched` applies it to a whole batch; without it, a transform gets one example at a time.
    """
    return Batched(to_unit_range)


def test_transform():
    """Return the transform of stored examples for validation and holdouts."""
    return Batched(to_unit_range)


def to_unit_range(images: torch.Tensor) -> torch.Tensor:
    """Convert values from 0 to 16 to floats from 0 to 1."""
    return images.float() / 16
{%- elif cookiecutter.starting_data != 'empty' -%}
"""Functions of this project, all optional: params.yaml names the data module and the model.

To write your own, remove `data.module` or `model` from params.yaml, and define data_module_fn
(docs/memory-and-state.md) or model_fn (docs/models.md). The pipeline calls these functions by name and
passes the `hyperparameters` in their signatures from params.yaml.
"""

# Optional functions; uncomment those that you need.
#
# def loss_fn():  # default: that of `task` in params.yaml, such as cross-entropy for labels
#     return torch.nn.CrossEntropyLoss(reduction="none")
#
# def optimizer_fn(learning_rate: float = 0.1):  # default: the `optimizer` in params.yaml
#     return functools.partial(torch.optim.SGD, lr=learning_rate)
#
# def lr_scheduler_fn():  # default: a constant rate; it steps after each "epoch" or "step"
#     return functools.partial(torch.optim.lr_scheduler.StepLR, step_size=10), "epoch"
#
# def metrics_fn():  # default: those of `task`, such as accuracy; the loss is always measured
#     return {"accuracy": torchmetrics.classification.MulticlassAccuracy(10, average="micro")}
#
# def train_transform():  # gets the inputs of the model, after the preprocessing of the data module
#     return renate_stages.data.Batched(lambda inputs: inputs)
{%- else -%}
"""The model and the data of this project: fill in the two functions that raise an error.

The pipeline calls these functions by name and passes the `hyperparameters` in their signatures from
params.yaml (data_module_fn also gets `data.arguments`). `make test` checks them on a few of your
examples in seconds.
"""

import torch
from renate_stages.data import RenateDataModule


class IncomingData(RenateDataModule):
    """One update's data, from the folder `self._data_path`."""

    def setup(self) -> None:
        # Set three map-style datasets of (inputs, targets) without augmentation. Inputs may be a
        # tensor, or a dict or tuple of tensors; all examples must have the same shapes. A label may
        # be a number from 0 or a text; the model grows for new texts. If the last
        # two stay None, a fraction of the training rows is set aside (data.validation_fraction and
        # data.test_fraction in params.yaml).
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


# Optional functions; uncomment those that you need.
#
# def loss_fn():  # default: that of `task` in params.yaml, such as cross-entropy for labels
#     return torch.nn.CrossEntropyLoss(reduction="none")
#
# def optimizer_fn(learning_rate: float = 0.1):  # default: the `optimizer` in params.yaml
#     return functools.partial(torch.optim.SGD, lr=learning_rate)
#
# def lr_scheduler_fn():  # default: a constant rate; it steps after each "epoch" or "step"
#     return functools.partial(torch.optim.lr_scheduler.StepLR, step_size=10), "epoch"
#
# def metrics_fn():  # default: those of `task`, such as accuracy; the loss is always measured
#     return {"accuracy": torchmetrics.classification.MulticlassAccuracy(10, average="micro")}
#
# def train_transform():  # gets one example's inputs; define buffer_transform for replayed examples
#     return lambda inputs: inputs.float()  # renate_stages.data.Batched(f): whole batches, faster
#
# def test_transform():
#     return lambda inputs: inputs.float()
{%- endif %}
