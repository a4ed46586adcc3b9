"""A first state from a model that a team has, and the trial of a user's file."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from small_project import edit_config, edit_params, snapshot

from renate_stages import errors
from renate_stages.actions.check import check_user_config
from renate_stages.actions.digits import write_digits
from renate_stages.actions.import_model import write_imported
from renate_stages.models import MLP
from renate_stages.models.stored import read_state_dict
from renate_stages.params import Params
from renate_stages.stages import prepare, restore_state, train, tune
from renate_stages.state import State, state


def quiet(message: str) -> None:
    pass


def team_model(**changes) -> MLP:
    torch.manual_seed(5)
    return MLP(**{"num_inputs": 64, "num_outputs": 10, "hidden_size": 128, **changes})


def adopt(project, model_file, old_data=None) -> State:
    folder = project.root / "adopted"
    folder.mkdir()
    write_imported(folder, project, Params.load(project.params), model_file, old_data)
    return State.open(folder)


def save(model, path):
    tensors = {k: v for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    elif path.suffix == ".ckpt":  # as Lightning writes it
        torch.save({"epoch": 3, "state_dict": tensors, "global_step": 9}, path)
    else:
        torch.save(model.state_dict(), path)
    return path


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model.ckpt"])
def test_a_model_is_imported_from_every_usual_file(project, tmp_path, name):
    model = team_model()
    adopted = adopt(project, save(model, tmp_path / name))
    state.check(adopted.folder)
    made = adopted.provenance
    assert (made.kind, made.update, made.parent, made.classes) == ("init", 0, None, ())
    assert len(adopted.memory()) == 0 and adopted.split("holdouts") == {}
    for key, value in read_state_dict(adopted.folder).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, model.state_dict()[key])


def test_old_data_fills_the_memory_and_is_measured_from_then_on(project, tmp_path):
    edit_params(project, hyperparameters__memory_size=50)
    write_digits(tmp_path / "old", 1)
    write_digits(project.incoming, 2)
    adopted = adopt(project, save(team_model(), tmp_path / "model.pt"), tmp_path / "old")
    assert len(adopted.memory()) == 50
    assert set(adopted.memory().column("targets")) <= {0, 1, 2, 3}
    assert {n: len(store) for n, store in adopted.split("holdouts").items()} == {0: 144}
    assert {n: len(store) for n, store in adopted.split("validation").items()} == {0: 58}
    assert adopted.provenance.classes == (0, 1, 2, 3)
    assert set(adopted.evaluations().matrix("accuracy")[0]) == {0}

    measured = adopted.evaluations().matrix("accuracy")[0][0]
    project.parent.rename(project.root / "empty")
    adopted.folder.rename(project.parent)
    for stage in (prepare, restore_state, tune, train):
        stage.run(project, quiet)
    after = State.open(project.state)
    assert list(after.split("holdouts")) == [0, 1]
    assert after.provenance.classes == tuple(range(7))
    assert len(after.memory()) == 50
    before = after.evaluations().matrix("accuracy", "before")[1]
    assert before[0] == measured


def test_equal_inputs_are_adopted_in_equal_bytes(project, tmp_path):
    write_digits(tmp_path / "old", 1)
    model = save(team_model(), tmp_path / "model.pt")
    identities = []
    for place in ("one", "two"):
        identities.append(adopt(project, model, tmp_path / "old").identity)
        (project.root / "adopted").rename(project.root / place)
    assert identities[0] == identities[1]


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda path: save(team_model(hidden_size=64), path), "size mismatch"),
        (lambda path: torch.save({"weight": torch.ones(2)}, path), "Missing key"),
        (lambda path: torch.save([1, 2], path), "Missing key"),
        (lambda path: torch.save(team_model(), path), "no state dict that can be loaded safely"),
        (lambda path: path.write_bytes(b"not a model"), "no state dict that can be loaded safely"),
    ],
    ids=["other shapes", "other names", "no mapping", "a pickled object", "no model"],
)
def test_a_file_that_does_not_fit_is_refused(project, tmp_path, write, expected):
    path = tmp_path / "model.pt"
    write(path)
    before = snapshot(project)
    with pytest.raises(errors.ModelMismatchError, match=f"(?s){expected}.*To fix this: "):
        adopt(project, path)
    assert snapshot(project) == before


def test_a_model_or_old_data_that_are_not_there_are_told(project, tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"none\.pt is missing"):
        adopt(project, tmp_path / "none.pt")
    (project.root / "adopted").rmdir()
    (tmp_path / "old").mkdir()
    with pytest.raises(errors.EmptyIncomingError):
        adopt(project, save(team_model(), tmp_path / "model.pt"), tmp_path / "old")


# -- the trial of a user's file --------------------------------------------------------------------


def test_a_trial_writes_nothing_into_the_project(project):
    before = snapshot(project)
    check_user_config(project.root, examples=8)
    assert snapshot(project) == before


def test_a_trial_of_spaces_takes_their_middle_and_the_first_learner(project):
    edit_params(
        project,
        learner={"choice": ["ER", "DER"]},
        hyperparameters__learning_rate={"loguniform": [0.005, 0.5]},
        hyperparameters__alpha={"uniform": [0, 1]},
        hyperparameters__max_epochs={"randint": [1, 3]},
    )
    checked = check_user_config(project.root, examples=16)
    assert checked.loss_after < checked.loss_before
    edit_params(project, learner="ER", hyperparameters="auto")
    checked = check_user_config(project.root, examples=16)
    assert checked.loss_after < checked.loss_before


def test_a_trial_takes_a_stream_of_examples(project):
    edit_config(
        project,
        "self._train_data = TensorDataset(images, labels)",
        "self._test_data = TensorDataset(images, labels)\n"
        "        self._val_data = self._test_data\n"
        "        self._train_data = Stream(self._test_data)",
    )
    edit_config(
        project,
        "class DigitsDataModule",
        "class Stream(torch.utils.data.IterableDataset):\n"
        "    def __init__(self, data): self.data = data\n"
        "    def __iter__(self): return iter(self.data)\n\n\nclass DigitsDataModule",
    )
    checked = check_user_config(project.root, examples=16)
    assert checked.loss_after < checked.loss_before and checked.restored_equals_saved


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("if model_state_url is not None", "if False", errors.ModelMismatchError),
        ("def model_fn", "def build_model", errors.UserConfigError),
        ('return torch.nn.CrossEntropyLoss(reduction="none")', "1 / 0", errors.UserConfigError),
    ],
    ids=["weights not loaded", "no model_fn", "no loss"],
)
def test_a_trial_finds_what_an_update_would_trip_over(project, old, new, error):
    edit_config(project, old, new)
    with pytest.raises(error):
        check_user_config(project.root)


def test_a_trial_without_data_is_told(project):
    for path in project.incoming.iterdir():
        path.unlink()
    with pytest.raises(errors.EmptyIncomingError):
        check_user_config(project.root)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"hyperparameters__learing_rate": 0.1}, errors.UnknownHyperparameterError),
        ({"hyperparameters__memory_size": -1}, errors.InvalidHyperparameterError),
    ],
    ids=["misspelt", "out of range"],
)
def test_a_trial_finds_a_wrong_hyperparameter(project, changes, error):
    edit_params(project, **changes)
    with pytest.raises(error):
        check_user_config(project.root)
