"""The five stages in one process: written files, identical bytes, and errors for bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from small_project import edit_config, edit_params, snapshot

from renate_stages import errors, files
from renate_stages.cli.main import main
from renate_stages.stages import export, prepare, restore_state, train, tune
from renate_stages.state import state
from renate_stages.state.inputs import read_tuned

STAGES = {
    "prepare": prepare,
    "restore-state": restore_state,
    "tune": tune,
    "train": train,
    "export": export,
}


def quiet(message: str) -> None:
    assert message and "\n\n" not in message


METRICS = ("accuracy", "loss")


def run_until(project, last: str) -> None:
    for name, stage in STAGES.items():
        stage.run(project, quiet)
        if name == last:
            return


def tuned(project) -> None:
    run_until(project, "tune")


def trained(project) -> None:
    run_until(project, "train")


def all_run(project) -> None:
    run_until(project, "export")


def store(folder: str, *shards: str) -> set[str]:
    names = ("inputs", "targets", "meta.id", "meta.update")
    fields = {f"{folder}/{shard}.{name}.npy" for shard in shards for name in names}
    return {f"{folder}/index.json", *fields}


def test_each_stage_writes_exactly_its_files_with_identical_bytes(project):
    written = {}
    for name, stage in STAGES.items():
        before = snapshot(project)
        stage.run(project, quiet)
        after = snapshot(project)
        assert all(after[path] == content for path, content in before.items())
        written[name] = set(after) - set(before)
    shard = "00001-00"
    (folder,) = project.pictures.iterdir()  # named after a digest of the drawn data
    names = {"confusion", "classes", "learning_curve", "memory"}
    names |= {f"{kind}_{metric}" for kind in ("matrix", "holdouts") for metric in METRICS}
    pictures = {f"reports/pictures/{folder.name}/{name}.png" for name in names}
    assert written == {
        "prepare": {
            "work/prepared/prepared.json",
            "metrics/data.json",
            "metrics/shift.csv",
            *store("work/prepared/train", shard),
            *store("work/prepared/val", shard),
            *store("work/prepared/test", shard),
        },
        "restore-state": {"work/restored/state.json"},
        "tune": {"tuned.yaml", "work/tuning/search.json", "work/tuning/tuning_history.csv"},
        "train": {
            "metrics/update.json",
            "plots/classes.csv",
            "plots/confusion.csv",
            "plots/holdouts_accuracy.csv",
            "plots/holdouts_loss.csv",
            "plots/learning_curve.csv",
            "plots/memory.csv",
            "plots/plasticity.csv",
            "plots/summary.csv",
            "plots/tuning.csv",
            "state/evaluations.csv",
            "state/holdouts/index.json",
            "state/learner.json",
            "state/learner.safetensors",
            "state/model.json",
            "state/model.safetensors",
            "state/plasticity.csv",
            "state/state.json",
            "state/tuning_history.csv",
            "state/validation/index.json",
            *store("state/holdouts/1", shard),
            *store("state/memory", shard),
            *store("state/validation/1", shard),
        },
        "export": {
            "export/MODEL_CARD.md",
            "export/export.json",
            "export/labels.json",
            "export/model.ckpt",
            "export/model.json",
            "export/model.pt2",
            "export/model.safetensors",
            "export/program.json",
            "export/renate_config.py",
            "metrics/gate.json",
            "reports/update.md",
            "reports/verdict.json",
            *pictures,
        },
    }
    first = snapshot(project)
    run_until(project, "export")
    assert snapshot(project) == first
    state.check(project.state)


def test_renate_config_is_copied_into_the_export_and_not_linked(project, made_once):
    """DVC may link and write-protect cached files, but users edit their own."""
    made_once(project, all_run)
    exported = project.export / "renate_config.py"
    assert not exported.samefile(project.user_config)
    assert exported.read_bytes() == project.user_config.read_bytes()


def test_export_draws_and_writes_while_mlflow_is_being_imported(project, made_once, monkeypatch):
    """Importing MLflow is the slowest part of `export`, so no other part waits for it."""
    from renate_stages.tracking import runs

    class NeverOpen:
        problems: ClassVar[list[str]] = []
        artifacts: ClassVar[list[str]] = []

        def __init__(self, folder) -> None:
            self.folder = folder

        def send(self, command) -> None:
            if command["do"] == "artifact":
                assert Path(command["path"]).is_file()
                self.artifacts.append(Path(command["path"]).name)

        def wait_for(self, answer) -> None:
            raise AssertionError(f"export waits for {answer}")

        def close(self, command) -> None:
            assert command["status"] == "FINISHED"

    made_once(project, trained)
    edit_params(project, tracking__enabled=True)
    (project.root / "mlflow.db").write_bytes(b"a store that may hold runs")
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(runs, "SideProcess", NeverOpen)
    export.run(project, quiet)
    assert {
        *("update.md", "MODEL_CARD.md", "summary.csv", "matrix_accuracy.png"),
        *("confusion.png", "classes.png", "learning_curve.png", "memory.png"),
    } <= {*NeverOpen.artifacts}


def test_constant_hyperparameters_keep_value_and_type_in_tuned_yaml(project):
    values = {"rate": 1e-05, "flag": True, "text": "1e-3", "none": None, "list": [1, 2.5, "a: b"]}
    edit_params(project, hyperparameters=values)
    tune.run(project, quiet)
    assert read_tuned(project.tuned) == values
    assert list(read_tuned(project.tuned)) == sorted(values)
    edit_params(project, hyperparameters={})
    tune.run(project, quiet)
    assert read_tuned(project.tuned) == {}


def test_next_update_continues_from_parent_memory_holdouts_and_evaluations(project, made_once):
    from renate_stages.actions.example_data import write_digits
    from renate_stages.state import State

    made_once(project, trained)
    first = State.open(project.state)
    before = {path.name for path in (project.state / "memory").iterdir()}
    project.parent.rename(project.root / "older")
    project.state.rename(project.parent)
    write_digits(project.incoming, 2)
    edit_params(project, update__number=2, update__parent=1)
    run_until(project, "train")
    second = State.open(project.state)
    assert second.provenance.parent == first.identity
    assert second.provenance.classes == tuple(range(7))
    assert list(second.split("holdouts")) == [1, 2]
    assert len(second.memory()) == 300
    assert set(second.memory().column("targets")) == set(range(7))
    assert "00002-00.inputs.npy" in {p.name for p in (project.state / "memory").iterdir()} - before
    assert set(second.evaluations().matrix("accuracy")) == {1, 2}
    learner = files.read_json(project.state / "learner.json")
    assert learner["policy"]["seen"] == 518 + 391


def break_items(project):
    edit_config(
        project,
        "TensorDataset(images, labels)",
        "[(images[i].float() if i == 7 else images[i], int(labels[i])) for i in range(20)]",
    )


def empty_incoming(project):
    for path in project.incoming.iterdir():
        path.unlink()


def damage_parent(project):
    path = project.parent / "evaluations.csv"
    path.write_bytes(path.read_bytes() + b"1")


def give(project, returned: str):
    """Let the data module give something else as its training data."""
    edit_config(project, "TensorDataset(images, labels)", returned)


def search(project, **changes):
    """Set a search space for the learning rate, and run the stages before `tune`."""
    edit_params(
        project, **{"hyperparameters__learning_rate": {"loguniform": [0.01, 1.0]}, **changes}
    )
    run_until(project, "restore-state")


def lose_parent(project):
    project.parent.rename(project.root / "elsewhere")


def lose_tuned(project):
    project.tuned.unlink()


def lose_prepared(project):
    (project.prepared / "prepared.json").unlink()


def cut_a_store(project):
    path = next(project.prepared.glob("train/*.inputs.npy"))
    path.write_bytes(path.read_bytes()[:-1])


def diverge_in_the_last_step(project):
    edit_params(project, trainer__max_steps=1, hyperparameters__learning_rate=1e38)
    tune.run(project, quiet)


def write_newer_state(project):
    manifest = files.read_json(project.parent / "state.json")
    files.write_json(project.parent / "state.json", manifest | {"schema": 99})


# stage, edit of the project, expected error class, expected parts of its message
MISTAKES = [
    (
        "prepare",
        lambda p: edit_params(p, trainer__max_epoch=3),
        errors.InvalidParamsError,
        ["params.yaml", "trainer.max_epoch", "did you mean 'max_epochs'"],
    ),
    (
        "restore-state",
        lambda p: edit_params(p, update__number="two"),
        errors.InvalidParamsError,
        ["update.number", "valid integer", "'two'"],
    ),
    (
        "tune",
        lambda p: edit_params(p, learner="Er"),
        errors.InvalidParamsError,
        ["unknown learner 'Er'", "did you mean 'ER'", "Joint"],
    ),
    (
        "tune",
        lambda p: search(p, data__validation_fraction=0),
        errors.NoValidationDataError,
        ["no validation data", "data.validation_fraction", "val_data"],
    ),
    (
        "prepare",
        lambda p: edit_params(p, hyperparameters__learing_rate={"uniform": [0.01, 1.0]}),
        errors.InvalidParamsError,
        ["hyperparameters.learing_rate", "nothing reads it"],
    ),
    (
        "tune",
        lambda p: search(p, tuning={"metric": "acuracy", "mode": "max"}),
        errors.TrialMistakeError,
        ["the first trial", "did you mean 'accuracy'"],
    ),
    (
        "prepare",
        lambda p: edit_config(p, "def model_fn", "def modelfn"),
        errors.UserConfigError,
        ["the function model_fn is missing", "did you mean 'modelfn'"],
    ),
    (
        "prepare",
        lambda p: edit_config(p, "return DigitsDataModule(data_path, seed=seed)", "return None"),
        errors.DataModuleError,
        ["data_module_fn", "NoneType", "RenateDataModule"],
    ),
    (
        "prepare",
        lambda p: edit_config(p, "self._train_data = ", "unused = "),
        errors.MissingSplitError,
        ["train_data"],
    ),
    ("prepare", break_items, errors.ItemMismatchError, ["item ", "uint8 (8, 8)", "float32 (8, 8)"]),
    ("prepare", empty_incoming, errors.EmptyIncomingError, ["incoming", "dvc add", "example-data"]),
    (
        "restore-state",
        damage_parent,
        errors.DamagedStateError,
        ["evaluations.csv", "expected", "dvc checkout"],
    ),
    (
        "restore-state",
        lambda p: edit_params(p, update__number=3, update__parent=2),
        errors.WrongParentError,
        ["state of update 0", "update 3 starts from update 2", "dvc checkout parent.dvc"],
    ),
    ("restore-state", write_newer_state, errors.NewerStateError, ["99", "at most 1", "upgrade"]),
    (
        "train",
        lambda p: (edit_params(p, hyperparameters__learing_rate=0.1), tune.run(p, quiet)),
        errors.UnknownHyperparameterError,
        ["learing_rate", "did you mean 'learning_rate'"],
    ),
    (
        "train",
        lambda p: (edit_params(p, hyperparameters__hidden_size="big"), tune.run(p, quiet)),
        errors.UserConfigError,
        ["hidden_size: int", "'big'"],
    ),
    (
        "prepare",
        lambda p: p.params.write_bytes(b"seed: 0  # caf\xe9\n"),
        errors.MalformedFileError,
        ["params.yaml", "not UTF-8"],
    ),
    (
        "prepare",
        lambda p: edit_params(p, data__arguments={"siz": 3}),
        errors.UserConfigError,
        ["data.arguments.siz", "data_module_fn has no such argument"],
    ),
    (
        "prepare",
        lambda p: edit_config(p, "inputs.npy", "input.npy"),
        errors.UserConfigError,
        ["data_module_fn failed at line 22", "FileNotFoundError", "input.npy"],
    ),
    (
        "prepare",
        lambda p: give(p, "TensorDataset(images[:0], labels[:0])"),
        errors.DataModuleError,
        ["its training data has 0 rows, too few to split off 20% for test", "add rows"],
    ),
    (
        "prepare",
        lambda p: give(p, "iter(())"),
        errors.DataModuleError,
        ["without a length", "return test_data() and val_data() as well"],
    ),
    (
        "prepare",
        lambda p: give(p, "list(images)"),
        errors.NotAPairError,
        ["train data, item 0", "a Tensor", "return inputs, targets"],
    ),
    (
        "prepare",
        lambda p: give(p, "[('a word', 1)] * 20"),
        errors.UnstorableValueError,
        ["train data, item 0", "a str", "token ids"],
    ),
    (
        "prepare",
        lambda p: edit_params(p, data__test_fraction=0),
        errors.DataModuleError,
        ["test_data() returned None", "forgetting is measured"],
    ),
    ("restore-state", lose_parent, errors.MissingFileError, ["renate-stages init", "dvc pull"]),
    ("train", lose_tuned, errors.MissingFileError, ["tuned.yaml is missing", "dvc repro"]),
    ("train", lose_prepared, errors.MissingFileError, ["prepared.json", "dvc repro"]),
    ("train", cut_a_store, errors.DamagedStoreError, ["inputs.npy", "expected", "dvc checkout"]),
    (
        "train",
        lambda p: edit_params(p, trainer__accelerator="gpuu"),
        errors.InvalidParamsError,
        ["params.yaml", "accelerator 'gpuu'", "Available names are"],
    ),
    (
        "train",
        lambda p: edit_config(p, "return MLP(", "return print("),
        errors.UserConfigError,
        ["model_fn failed at line", "TypeError"],
    ),
    (
        "train",
        diverge_in_the_last_step,
        errors.NotFiniteError,
        ["not finite", "learning_rate", "no state was written"],
    ),
    ("export", lambda p: None, errors.MissingFileError, ["state.json is missing", "dvc pull"]),
    (
        "train",
        lambda p: edit_params(p, evaluation__metric="acuracy"),
        errors.UnmeasuredMetricError,
        ["did you mean 'accuracy'"],
    ),
]


@pytest.mark.parametrize(
    ("stage", "mistake", "error", "says"),
    MISTAKES,
    ids=[f"{stage}-{error.__name__}" for stage, _, error, _ in MISTAKES],
)
def test_user_error_prints_one_clear_message_and_changes_no_file(
    project, made_once, warm_searches, monkeypatch, capsys, stage, mistake, error, says
):
    if stage in ("train", "export"):
        made_once(project, tuned)
    mistake(project)
    before = snapshot(project)
    with pytest.raises(error) as raised:
        STAGES[stage].run(project, quiet)
    for words in says:
        assert words in str(raised.value)
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["renate-stages", stage])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and "Traceback" not in printed.err
    assert not printed.out
    assert snapshot(project) == before


def test_model_fn_that_ignores_the_parent_weights_is_refused(project, made_once):
    made_once(project, trained)
    project.parent.rename(project.root / "older")
    project.state.rename(project.parent)
    edit_params(project, update__number=2, update__parent=1)
    edit_config(project, "if model_state_url is not None", "if False")
    run_until(project, "tune")
    before = snapshot(project)
    with pytest.raises(errors.ModelMismatchError, match="does not have those weights"):
        train.run(project, quiet)
    assert snapshot(project) == before


def test_non_finite_loss_writes_no_state(project):
    edit_params(project, hyperparameters__learning_rate=1e30)
    run_until(project, "tune")
    with pytest.raises(errors.NotFiniteError, match="learning_rate"):
        train.run(project, quiet)
    assert not project.state.exists()


def test_imported_user_file_missing_from_stage_deps_is_refused(project):
    (project.root / "layers.py").write_text("SIZE = 3\n")
    edit_config(project, "import numpy as np", "import layers\nimport numpy as np")
    sys.modules.pop("layers", None)
    with pytest.raises(errors.UndeclaredUserFileError, match=r"layers\.py.*prepare"):
        prepare.run(project, quiet)


def test_exported_model_reaches_the_accuracy_of_the_update_metrics(project, made_once):
    import torch

    from renate_stages.models import MLP

    made_once(project, all_run)
    model = MLP.from_state_dict(torch.load(project.export / "model.ckpt")).eval()
    holdout = state.State.open(project.state).split("holdouts")[1]
    inputs, targets = holdout.gather(np.arange(len(holdout)))
    with torch.inference_mode():
        found = model(torch.from_numpy(inputs).float() / 16).argmax(1).numpy()
    accuracy = json.loads(project.update_metrics.read_text())["accuracy"]["holdout"]["1"]
    assert np.mean(found == targets) == pytest.approx(accuracy)


def test_check_user_config_trains_and_restores_the_model(project):
    from renate_stages.actions.check import check_user_config

    checked = check_user_config(project.root, examples=64)
    assert checked.loss_after < checked.loss_before and checked.restored_equals_saved
