"""`ModelUpdater`: updates on datasets, from a program with a loop of its own."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from renate_stages import ModelUpdater, errors

VALUES = {"memory_size": 60}


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def week(number: int) -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """Return training, validation and test data: digits 0 to 4, then 5 to 9."""
    images, labels = map(torch.tensor, load_digits(return_X_y=True))
    rows = (labels < 5) if number == 1 else (labels >= 5)
    images, labels = (images[rows] / 16).float(), labels[rows]
    parts = (slice(0, 300), slice(300, 350), slice(350, 450))
    train, val, test = (TensorDataset(images[part], labels[part]) for part in parts)
    return train, val, test


def updater(model: nn.Module, **changes) -> ModelUpdater:
    given = {"hyperparameters": VALUES, "max_epochs": 8, **changes}
    return ModelUpdater(
        model, nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=0.1, momentum=0.9), **given
    )


def weights(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


@pytest.mark.parametrize("learner", ["ER", "DER++", "EWC", "GDumb"])
def test_updates_change_the_model_in_place_and_remember_examples(learner, capsys):
    model = make_model()
    own = updater(model, learner=learner, hyperparameters={} if learner == "EWC" else VALUES)
    first, second = own.update(*week(1)), own.update(*week(2))
    assert (first.update, second.update) == (1, 2) and set(second.metrics) == {1, 2}
    assert len(second.state.memory()) == (0 if learner == "EWC" else 60)
    inputs, labels = week(1)[2].tensors
    with torch.no_grad():
        accuracy = (model(inputs).argmax(1) == labels).float().mean()
    assert accuracy == pytest.approx(second.metrics[1]["accuracy"])
    if learner in ("ER", "DER++"):
        assert accuracy > 0.6, "the first digits are not forgotten"


def test_update_without_validation_and_test_data():
    model = make_model()
    before = weights(model)
    done = updater(model, max_epochs=1).update(week(1)[0])
    assert done.metrics == {} and "val_loss" not in done.curves[0]
    assert not torch.equal(weights(model), before)


def test_program_that_is_started_again_continues_from_the_folder(tmp_path):
    straight, model = make_model(), make_model()
    whole = updater(straight, folder=tmp_path / "straight")
    whole.update(*week(1))
    whole.update(*week(2))
    updater(model, folder=tmp_path / "again").update(*week(1))
    again = make_model()
    done = updater(again, folder=tmp_path / "again").update(*week(2))
    assert done.update == 2 and torch.equal(weights(again), weights(straight))


def test_update_starts_from_weights_that_the_program_has_changed():
    models = [make_model(), make_model()]
    for model in models:
        own = updater(model, max_epochs=1)
        own.update(*week(1))
        if model is models[1]:
            with torch.no_grad():
                model[2].bias.add_(1.0)  # pyright: ignore[reportIndexIssue, reportCallIssue]
        before = weights(model)
        own.update(*week(2))
        assert (weights(model) - before).norm() < before.norm()
    assert not torch.equal(*map(weights, models))


def test_transforms_and_loss_are_used():
    model = make_model()
    seen = []

    def noise(image):
        seen.append(image.shape)
        return image + 0.01

    own = updater(model, max_epochs=1, transforms={"train_transform": noise})
    own.update(week(1)[0])
    assert seen and set(seen) == {torch.Size([64])}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"hyperparameters": {"memori_size": 3}}, errors.UnknownHyperparameterError),
        ({"learner": "ERR"}, errors.InvalidParamsError),
        ({"max_epochs": 0}, errors.InvalidParamsError),
        ({"trainer": {"devices": 2}}, errors.InvalidParamsError),
        ({"hyperparameters": {"memory_size": {"choice": [1, 2]}}}, errors.InvalidParamsError),
        ({"transforms": {"train_transfrm": abs}}, errors.UserConfigError),
    ],
)
def test_wrong_setting_is_refused_at_once(changes, error):
    with pytest.raises(error):
        updater(make_model(), **changes)


def test_model_is_unchanged_if_an_update_fails():
    model = make_model()
    before = weights(model)
    images, labels = week(1)[0].tensors
    with pytest.raises(errors.RenateStagesError):
        updater(model).update(TensorDataset(images[:, :63], labels))
    assert torch.equal(weights(model), before)
