"""Import an existing model as the first state, and check a user's configuration."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file
from small_project import edit_config, edit_params, snapshot
from small_tables import write_customers

from renate_stages import errors
from renate_stages.actions.check import check_user_config
from renate_stages.actions.example_data import write_digits
from renate_stages.actions.import_model import write_imported
from renate_stages.data import StoredDataset, ingest
from renate_stages.data.modules.table import Table
from renate_stages.data.stored import preprocessed
from renate_stages.models import MLP, TabularMLP
from renate_stages.models.stored import read_state_dict, write_model
from renate_stages.params import Params
from renate_stages.preprocessing import read_preprocessing
from renate_stages.stages import prepare, restore_state, train, tune
from renate_stages.state import State, state
from renate_stages.tasks.labels import LabelNames


def quiet(message: str) -> None:
    pass


def team_model(**changes) -> MLP:
    torch.manual_seed(5)
    return MLP(**{"num_inputs": 64, "num_outputs": 10, "hidden_size": 128, **changes})


def imported_state(project, model_file, old_data=None) -> State:
    folder = project.root / "imported"
    folder.mkdir()
    write_imported(folder, project, Params.load(project.params), model_file, old_data)
    return State.open(folder)


def save(model, path):
    tensors = {k: v for k, v in model.state_dict().items() if isinstance(v, torch.Tensor)}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    elif path.suffix == ".ckpt":  # as Lightning writes it
        torch.save({"epoch": 3, "state_dict": tensors, "global_step": 9}, path)
    elif path.name.startswith("renate"):  # as awslabs/Renate writes it: bytes as int64
        given = {"constructor_arguments": {}, "tasks_params_ids": {"default_task"}}
        extra = torch.as_tensor(list(pickle.dumps(given)))
        prefix = "_model." if "wrapper" in path.name else ""
        named = {f"{prefix}{name}": value for name, value in tensors.items()}
        torch.save({"_extra_state": extra, **named}, path)
    else:
        torch.save(model.state_dict(), path)
    return path


@pytest.mark.parametrize(
    "name", ["model.pt", "model.safetensors", "model.ckpt", "renate.pt", "renate_wrapper.pt"]
)
def test_model_is_imported_from_all_known_forms(project, tmp_path, name):
    model = team_model()
    imported = imported_state(project, save(model, tmp_path / name))
    state.check(imported.folder)
    made = imported.provenance
    assert (made.kind, made.update, made.parent, made.classes) == ("init", 0, None, ())
    assert len(imported.memory()) == 0 and imported.split("holdouts") == {}
    for key, value in read_state_dict(imported.folder).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, model.state_dict()[key])


def test_old_data_fills_the_memory_and_becomes_holdout_0(project, tmp_path):
    edit_params(project, hyperparameters__memory_size=50)
    write_digits(tmp_path / "old", 1)
    write_digits(project.incoming, 2)
    imported = imported_state(project, save(team_model(), tmp_path / "model.pt"), tmp_path / "old")
    assert len(imported.memory()) == 50
    assert set(imported.memory().column("targets")) <= {0, 1, 2, 3}
    assert {n: len(store) for n, store in imported.split("holdouts").items()} == {0: 144}
    assert {n: len(store) for n, store in imported.split("validation").items()} == {0: 58}
    assert imported.provenance.classes == (0, 1, 2, 3)
    assert set(imported.evaluations().matrix("accuracy")[0]) == {0}

    measured = imported.evaluations().matrix("accuracy")[0][0]
    project.parent.rename(project.root / "empty")
    imported.folder.rename(project.parent)
    for stage in (prepare, restore_state, tune, train):
        stage.run(project, quiet)
    after = State.open(project.state)
    assert list(after.split("holdouts")) == [0, 1]
    assert after.provenance.classes == tuple(range(7))
    assert len(after.memory()) == 50
    before = after.evaluations().matrix("accuracy", "before")[1]
    assert before[0] == measured


def test_import_of_equal_inputs_gives_equal_bytes(project, tmp_path):
    write_digits(tmp_path / "old", 1)
    model = save(team_model(), tmp_path / "model.pt")
    identities = []
    for place in ("one", "two"):
        identities.append(imported_state(project, model, tmp_path / "old").identity)
        (project.root / "imported").rename(project.root / place)
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
    ids=["other shapes", "other names", "a list", "a pickled module", "not a model file"],
)
def test_model_file_that_does_not_fit_is_refused(project, tmp_path, write, expected):
    path = tmp_path / "model.pt"
    write(path)
    before = snapshot(project)
    with pytest.raises(errors.ModelMismatchError, match=f"(?s){expected}.*To fix this: "):
        imported_state(project, path)
    assert snapshot(project) == before


def test_missing_model_file_and_empty_old_data_are_reported(project, tmp_path):
    with pytest.raises(errors.MissingFileError, match=r"none\.pt is missing"):
        imported_state(project, tmp_path / "none.pt")
    (project.root / "imported").rmdir()
    (tmp_path / "old").mkdir()
    with pytest.raises(errors.EmptyIncomingError):
        imported_state(project, save(team_model(), tmp_path / "model.pt"), tmp_path / "old")


# -- models and data modules by name ---------------------------------------------------------------

ORDER = ["boat", "car", "train"]


def named_project(project, module="table", **changes):
    """Name the model and the data module of a project in params.yaml."""
    project.user_config.write_text('"""The model and the data are in params.yaml."""\n')
    modules = {
        "table": {"name": "table", "target": "label", "id": "customer", "text": ["note"]},
        "text": {"name": "text", "text": "note"},
        "images": {"name": "images"},
    }
    values = {"data__module": modules[module], "hyperparameters": {"hidden_size": 8}}
    values |= {"model": "TabularMLP", "data__labels": {"order": ORDER}}
    edit_params(project, **(values | changes))


def exported_table(folder, old_data) -> TabularMLP:
    """Write a model of a table with its preprocessing to a folder, as an export has them."""
    module = Table(old_data, "label", id="customer", text=["note"])
    module.setup()
    fitted = module.preprocessing
    names = LabelNames(tuple(ORDER))
    fitted.fit(
        ingest(module.train_data(), folder.with_name("s"), 1, "train", numbers=names.numbers)
    )
    fitted.built = {**fitted.sizes(), "num_outputs": 2}
    torch.manual_seed(0)
    model = TabularMLP(**fitted.built, hidden_size=8)
    model.grow_outputs("head", 3)
    folder.mkdir()
    fitted.write(folder)
    write_model(folder, model)
    return model.eval()


def test_model_by_name_is_imported_with_what_was_fitted_on_its_data(project, tmp_path):
    named_project(project)
    write_customers(tmp_path / "first", 1)
    model = exported_table(tmp_path / "export", tmp_path / "first")
    write_customers(tmp_path / "old", 2)  # with another city, and its word
    file = tmp_path / "export" / "model.safetensors"
    imported = imported_state(project, file, tmp_path / "old")
    fitted = read_preprocessing(imported.folder)
    assert fitted.categories[0].names[2:] == ["Bonn"]
    assert fitted.texts.columns[0].words[-1] == "bonn"
    stored = read_state_dict(imported.folder)
    assert len(stored["features.embeddings.0.weight"]) == 5
    (store,) = imported.split("holdouts").values()
    dataset = StoredDataset(store, None, preprocessed(fitted))
    inputs, targets = dataset.__getitems__(range(len(dataset)))
    again = TabularMLP.from_state_dict(stored).eval()
    with torch.no_grad():
        assert torch.equal(again(inputs), model(inputs)), "what is new counts as unknown"
    right = (again(inputs).argmax(1) == targets).double().mean()
    assert imported.evaluations().matrix("accuracy")[0][0] == pytest.approx(float(right))
    assert imported.provenance.labels == tuple(ORDER)


def test_preprocessing_is_kept_if_there_is_no_old_data(project, tmp_path):
    named_project(project)
    write_customers(tmp_path / "first", 1)
    exported_table(tmp_path / "export", tmp_path / "first")
    imported = imported_state(project, tmp_path / "export" / "model.safetensors")
    expected = read_preprocessing(tmp_path / "export")
    assert read_preprocessing(imported.folder).content() == expected.content()


@pytest.mark.parametrize(
    ("module", "cure"),
    [
        ("table", "categories, scales or words on data.*To fix this: give the model.safetensors"),
        ("text", "a vocabulary on data.*To fix this: name the tokenizer.json"),
        ("images", "means and deviations .*To fix this: set normalize in data.module"),
    ],
)
def test_model_without_what_was_fitted_on_its_data_is_refused(project, tmp_path, module, cure):
    named_project(project, module)
    torch.save(team_model().state_dict(), tmp_path / "model.pt")
    with pytest.raises(errors.UnfittedModelError, match=f"(?s){cure}"):
        imported_state(project, tmp_path / "model.pt")


def test_own_functions_cannot_import_a_model_without_what_was_fitted_either(project, tmp_path):
    code = "from renate_stages.data.modules.table import Table\n"
    code += "\n\ndef data_module_fn(data_path, seed: int = 0):\n"
    code += "    return Table(data_path, 'label', exclude=['note', 'customer'])\n"
    named_project(project, data__module=None, hyperparameters__num_numeric=7)
    sizes = {"num_numeric": 7, "cardinalities": [4], "num_outputs": 3, "hidden_size": 8}
    edit_params(project, hyperparameters=sizes)
    project.user_config.write_text(code)
    write_customers(tmp_path / "old", 1)
    torch.save(TabularMLP(**sizes).state_dict(), tmp_path / "model.pt")
    with pytest.raises(errors.UnfittedModelError, match="no folder preprocessing next to"):
        imported_state(project, tmp_path / "model.pt", tmp_path / "old")


def test_sizes_of_a_named_model_that_are_not_given_are_named(project, tmp_path):
    named_project(project, model="MLP", data__module={"name": "arrays"})
    torch.save(team_model().state_dict(), tmp_path / "model.pt")
    with pytest.raises(
        errors.ModelArgumentsError, match=r"(?s)num_inputs is missing.*hyperparameters"
    ):
        imported_state(project, tmp_path / "model.pt")


# -- the check of a user's configuration -----------------------------------------------------------


def test_config_check_writes_nothing_into_the_project(project):
    before = snapshot(project)
    check_user_config(project.root, examples=8)
    assert snapshot(project) == before


def test_config_check_uses_the_middle_of_search_spaces_and_the_first_learner(project):
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


def test_config_check_accepts_an_iterable_dataset(project):
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
    ids=["weights not loaded", "no model_fn", "failing loss_fn"],
)
def test_config_check_reports_errors_of_user_functions(project, old, new, error):
    edit_config(project, old, new)
    with pytest.raises(error):
        check_user_config(project.root)


def test_config_check_reports_missing_data(project):
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
def test_config_check_reports_invalid_hyperparameters(project, changes, error):
    edit_params(project, **changes)
    with pytest.raises(error):
        check_user_config(project.root)
