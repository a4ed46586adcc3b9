"""Updates through the production path, for benchmarks: stores, `Updater`, a state on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from mnist import Images
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from renate_stages import files
from renate_stages.memory.forget_list import ForgetList
from renate_stages.models import MLP, RenateModule
from renate_stages.models.feature_classifier import FeatureClassifier
from renate_stages.models.stored import build_model
from renate_stages.params import Params
from renate_stages.randomness import Generators
from renate_stages.state import State, new_data, prepared, state
from renate_stages.state.prepared import PreparedData
from renate_stages.state.retention import Retention
from renate_stages.training.measured_update import MeasuredUpdate
from renate_stages.user.config import UserConfig

TASK = "default_task"


class DigitsMLP(MLP):
    """An MLP on uint8 images: examples are stored as bytes and scaled here, a batch at once."""

    def forward(self, x: Tensor, task_id: str | None = None) -> Tensor:
        return super().forward(x.float() / 255, task_id)


class AsFloats(nn.Module):
    """Bytes to floats in [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float() / 255


class ScaledMLP(FeatureClassifier):
    """The same whose submodule `features` takes bytes: iCaRL asks for features alone."""

    def __init__(self, nearest_mean: bool = False) -> None:
        features = nn.Sequential(
            AsFloats(),
            nn.Flatten(),
            nn.Linear(784, 100),
            nn.ReLU(),
            nn.Linear(100, 100),
            nn.ReLU(),
        )
        super().__init__({}, features, 100, 10, heads="shared", nearest_mean=nearest_mean)


class AsChannels(nn.Module):
    """Bytes `(B, H, W, 3)` to floats in [0, 1], `(B, 3, H, W)`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2).float() / 255


class ScaledCNN(FeatureClassifier):
    """The layers of `DigitsCNN` for colour images as bytes `(B, 32, 32, 3)`, scaled in `features`."""

    def __init__(self, nearest_mean: bool = False) -> None:
        features = nn.Sequential(
            AsChannels(),
            nn.Conv2d(3, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 8 * 8, 64),
            nn.ReLU(),
        )
        super().__init__({}, features, 64, 10, heads="shared", nearest_mean=nearest_mean)


class DigitsCNN(FeatureClassifier):
    """Two convolutions, each pooled, and a hidden layer, on uint8 images `(B, 28, 28)`."""

    def __init__(self, nearest_mean: bool = False) -> None:
        features = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 64),
            nn.ReLU(),
        )
        super().__init__({}, features, 64, 10, heads="shared", nearest_mean=nearest_mean)

    def forward(self, x: Tensor, task_id: str | None = None) -> Tensor:
        return super().forward(x.unsqueeze(1).float() / 255, task_id)


def stored_or(url: str | None, kind: type[RenateModule], *args: Any, **arguments: Any) -> Any:
    """Return the model of a state dict's file, or a new one where there is none."""
    if url is not None:
        return kind.from_state_dict(torch.load(url, weights_only=True))
    return kind(*args, **arguments)


class Split(NamedTuple):
    """The data of an update.

    Args:
        train: To learn from.
        test: The holdout that the state keeps. Small: results are measured apart.
        val: To choose by; None: none.
    """

    train: Images
    test: Images
    val: Images | None = None


def user_of(model_fn: Callable[..., RenateModule]) -> UserConfig:
    """Return a user whose only function is that of the model."""
    return UserConfig(Path(__file__), {"model_fn": model_fn})


def update(
    user: UserConfig,
    learner: str,
    hyperparameters: Mapping[str, Any],
    data: Split,
    source: Path | None,
    target: Path,
    seed: int,
    max_epochs: int = 1,
) -> dict[str, Any]:
    """Run one update from a state on disk to the next; return its figures.

    What `run_training_job` does, with a user's functions that are in no file and without a share of
    the training data set aside.
    """
    with TemporaryDirectory(dir=target.parent) as scratch:
        if source is None:
            source = Path(scratch) / "empty"
            source.mkdir()
            state.write_empty(source)
        state.check(source)
        parent = State.open(source)
        number = parent.provenance.update + 1
        params = Params.parse(
            {
                "seed": seed,
                "update": {"number": number, "parent": number - 1, "task_id": TASK},
                "learner": learner,
                "hyperparameters": dict(hyperparameters),
                "trainer": {"max_epochs": max_epochs, "threads": 1},
            }
        )
        folder = Path(scratch) / "prepared"
        train, val, test = (_dataset(part) for part in (data.train, data.val, data.test))
        new_data.ingest_splits(new_data.Splits(train, val, test), folder, number)
        prepared.write_manifest(folder, number)
        stores = PreparedData.open(folder)
        inputs = files.digest([params.model_dump(mode="json"), parent.identity, stores.digest])
        generators = Generators(params.seed, number)
        retention = Retention(ForgetList(), params.retention, generators)
        (Path(scratch) / "kept").mkdir()
        kept = retention.apply(parent, stores, Path(scratch) / "kept")
        done = MeasuredUpdate.run(user, params, parent, kept, key=inputs)
        done.write_state(target)
        return done.summary()


def model_of(user: UserConfig, hyperparameters: Mapping[str, Any], folder: Path) -> RenateModule:
    """Return the model of a state on disk, in evaluation mode."""
    return build_model(user, hyperparameters, folder, TASK).eval()


def accuracy(model: Callable[[Tensor], Tensor], images: Images, scale: bool = False) -> float:
    """Return the share of correct answers in percent.

    Args:
        model: Maps a batch to logits.
        images: All are asked for.
        scale: Whether the model takes floats in [0, 1], `(B, 784)`, and not bytes.
    """
    return 100 * float(np.mean(answers(model, images, scale) == images.labels))


def answers(model: Callable[[Tensor], Tensor], images: Images, scale: bool = False) -> np.ndarray:
    """Return the class that a model says of each image, int64 `(n,)`; arguments as `accuracy`."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(images.labels), 1000):
            part = images.at(slice(start, start + 1000))
            inputs = as_floats(part) if scale else torch.from_numpy(part.inputs.copy())
            found.append(model(inputs).argmax(1).numpy())
    return np.concatenate(found)


def as_floats(images: Images) -> Tensor:
    """Return inputs as the plain loops take them, float32 `(n, 784)` in [0, 1]."""
    return torch.from_numpy(images.inputs.reshape(len(images.inputs), -1).copy()).float() / 255


def _dataset(images: Images | None) -> TensorDataset | None:
    if images is None:
        return None
    inputs, labels = (torch.from_numpy(part.copy()) for part in images)
    return TensorDataset(inputs, labels)
