"""Five stages in one process: which files they write, equal bytes, and what bad input gets."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from conftest import edit_params, snapshot

from renate_stages import errors, files, state
from renate_stages.cli import main
from renate_stages.stages import export, prepare, restore_state, train, tune

STAGES = {
    "prepare": prepare,
    "restore-state": restore_state,
    "tune": tune,
    "train": train,
    "export": export,
}


def quiet(message: str) -> None:
    assert message and "\n\n" not in message


def run_until(project, last: str) -> None:
    for name, stage in STAGES.items():
        stage.run(project, quiet)
        if name == last:
            return


def edit_config(project, old: str, new: str) -> None:
    text = project.user_config.read_text()
    assert old in text
    project.user_config.write_text(text.replace(old, new))


def store(folder: str, *shards: str) -> set[str]:
    fields = {f"{folder}/{shard}.{name}.npy" for shard in shards for name in ("inputs", "targets")}
    return {f"{folder}/index.json", *fields}


def test_each_stage_writes_exactly_its_files_and_always_the_same_bytes(project):
    written = {}
    for name, stage in STAGES.items():
        before = snapshot(project)
        stage.run(project, quiet)
        after = snapshot(project)
        assert all(after[path] == content for path, content in before.items())
        written[name] = set(after) - set(before)
    shard = "00001-00"
    assert written == {
        "prepare": {
            "work/prepared/prepared.json",
            "metrics/data.json",
            *store("work/prepared/train", shard),
            *store("work/prepared/val", shard),
            *store("work/prepared/test", shard),
        },
        "restore-state": {"work/restored/state.json"},
        "tune": {"tuned.yaml"},
        "train": {
            "metrics/update.json",
            "plots/holdouts_accuracy.csv",
            "plots/holdouts_loss.csv",
            "plots/learning_curve.csv",
            "plots/summary.csv",
            "state/evaluations.csv",
            "state/holdouts/index.json",
            "state/learner.json",
            "state/learner.safetensors",
            "state/model.json",
            "state/model.safetensors",
            "state/state.json",
            "state/validation/index.json",
            *store("state/holdouts/1", shard),
            *store("state/memory", shard),
            *store("state/validation/1", shard),
        },
        "export": {
            "export/MODEL_CARD.md",
            "export/model.ckpt",
            "export/model.json",
            "export/model.safetensors",
            "export/renate_config.py",
            "reports/update.md",
        },
    }
    first = snapshot(project)
    run_until(project, "export")
    assert snapshot(project) == first
    state.check(project.state)


def test_the_next_update_takes_over_model_memory_and_history(project):
    from renate_stages.data import write_digits
    from renate_stages.state import State

    run_until(project, "train")
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


def write_newer_state(project):
    manifest = files.read_json(project.parent / "state.json")
    files.write_json(project.parent / "state.json", manifest | {"schema": 99})


# stage, what goes wrong, the error, what its message says
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
        lambda p: edit_params(p, hyperparameters__learning_rate={"loguniform": [0.01, 1.0]}),
        errors.InvalidParamsError,
        ["hyperparameters.learning_rate", "search space", "dvc exp run -S"],
    ),
    (
        "prepare",
        lambda p: edit_config(p, "def model_fn", "def modelfn"),
        errors.UserConfigError,
        ["no function model_fn", "did you mean 'modelfn'"],
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
    ("restore-state", write_newer_state, errors.NewerStateError, ["99", "up to 1", "upgrade"]),
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
def test_a_mistake_gets_one_clear_message_and_changes_no_file(
    project, monkeypatch, capsys, stage, mistake, error, says
):
    if stage == "train":
        run_until(project, "tune")
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


def test_a_model_that_ignores_its_parents_weights_is_refused(project):
    run_until(project, "train")
    project.parent.rename(project.root / "older")
    project.state.rename(project.parent)
    edit_params(project, update__number=2, update__parent=1)
    edit_config(project, "if model_state_url is not None", "if False")
    run_until(project, "tune")
    before = snapshot(project)
    with pytest.raises(errors.ModelMismatchError, match="does not hold those weights"):
        train.run(project, quiet)
    assert snapshot(project) == before


def test_a_loss_that_is_not_finite_writes_no_state(project):
    edit_params(project, hyperparameters__learning_rate=1e30)
    run_until(project, "tune")
    with pytest.raises(errors.NotFiniteError, match="learning_rate"):
        train.run(project, quiet)
    assert not project.state.exists()


def test_a_file_that_a_stage_does_not_declare_is_refused(project):
    (project.root / "layers.py").write_text("SIZE = 3\n")
    edit_config(project, "import numpy as np", "import layers\nimport numpy as np")
    sys.modules.pop("layers", None)
    with pytest.raises(errors.UndeclaredUserFileError, match=r"layers\.py.*prepare"):
        prepare.run(project, quiet)


def test_the_exported_model_predicts_what_the_state_says(project):
    import torch

    from renate_stages.models import MLP

    run_until(project, "export")
    model = MLP.from_state_dict(torch.load(project.export / "model.ckpt")).eval()
    holdout = state.State.open(project.state).split("holdouts")[1]
    inputs, targets = holdout.gather(np.arange(len(holdout)))
    with torch.inference_mode():
        found = model(torch.from_numpy(inputs).float() / 16).argmax(1).numpy()
    accuracy = json.loads(project.update_metrics.read_text())["accuracy"]["holdout"]["1"]
    assert np.mean(found == targets) == pytest.approx(accuracy)


def test_the_users_check_tries_model_and_data(project):
    from renate_stages.check import check_user_config

    checked = check_user_config(project.root, examples=64)
    assert checked.loss_after < checked.loss_before and checked.restored_equals_saved
