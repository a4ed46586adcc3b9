"""Updates with Avalanche learners: state, memory, resume, supported options and errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("avalanche", reason="needs the extra avalanche")

import inspect
import itertools
from dataclasses import replace

import torch
from alone import BATCH, EPOCHS, MEMORY, STRATEGIES, arrays, model_fn, write
from avalanche_updates import another_update, first_state, parameters, updater, updates
from safetensors.torch import load_file
from small_updates import state_of

from renate_stages.actions.held import KEEPS_EXAMPLES
from renate_stages.errors import (
    AvalancheRefusedError,
    AvalancheStateError,
    InvalidHyperparameterError,
    InvalidParamsError,
    NotFiniteError,
)
from renate_stages.learners.avalanche import catalog
from renate_stages.learners.avalanche.building import load
from renate_stages.learners.avalanche.naming import named
from renate_stages.models import MLP
from renate_stages.training import update_task
from renate_stages.training.resume import Resume
from renate_stages.training.update_data import UpdateData

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ALL = sorted(set(STRATEGIES) - {"Naive"})
BUFFERED = sorted(n for n in STRATEGIES if "examples" in catalog.PARTS[n].keeps)


@pytest.fixture(scope="module")
def naive(tmp_path_factory) -> torch.Tensor:
    """Weights after two updates of fine-tuning."""
    found, _ = updates(tmp_path_factory.mktemp("naive") / "updates", "Naive", 2)
    return parameters(found[-1].model)


@pytest.mark.parametrize("name", ALL)
def test_strategy_gives_finite_weights_that_differ_from_fine_tuning(name, naive, tmp_path) -> None:
    found, _ = updates(tmp_path / "updates", name, 2, **STRATEGIES[name][0])
    weights = parameters(found[-1].model)
    assert weights.isfinite().all()
    assert not torch.equal(weights[: len(naive)], naive)


@pytest.mark.parametrize("name", ALL)
def test_strategy_differs_from_fine_tuning_when_classes_recur(name, tmp_path) -> None:
    plain, _ = updates(tmp_path / "naive", "Naive", 2, again=True)
    found, _ = updates(tmp_path / "updates", name, 2, again=True, **STRATEGIES[name][0])
    weights, naive = parameters(found[-1].model), parameters(plain[-1].model)
    assert weights.isfinite().all()
    assert not torch.equal(weights[: len(naive)], naive)


# -- state ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUFFERED)
def test_buffers_store_only_row_numbers_of_the_memory(name: str, tmp_path: Path) -> None:
    _, left = updates(tmp_path / "updates", name, 2, **STRATEGIES[name][0])
    memory = left.memory()
    tensors = load_file(left.folder / "learner.safetensors")
    numbers = torch.cat([each for key, each in tensors.items() if key.endswith("/rows")])
    assert sorted(set(numbers.tolist())) == list(range(len(memory)))
    if "memory_size" in STRATEGIES[name][0]:
        assert 0 < len(memory) <= MEMORY
    images = np.concatenate([arrays(number)[0] for number in (1, 2)])
    kept = memory.column("inputs")
    assert all((images == row).all(1).any() for row in kept)


def test_choosing_the_memory_twice_gives_the_same_examples(tmp_path: Path) -> None:
    found, _ = updates(tmp_path / "updates", "ER", 1, memory_size=10)
    again = found[-1].learner.choose_memory()
    assert again.selection.added.tolist() == found[-1].selection.added.tolist()
    assert len(again.selection.added) == 10


def test_learner_state_is_written_as_safetensors_and_json(tmp_path: Path) -> None:
    _, left = updates(tmp_path / "updates", "LwF", 1)
    names = {path.name for path in left.folder.iterdir() if path.is_file()}
    assert {"learner.safetensors", "learner.json"} <= names
    content = json.loads((left.folder / "learner.json").read_text())
    assert content["learner"] == "Avalanche-LwF"
    assert content["avalanche"]["plugins"]["Clock"]["train_exp_counter"] == 1


class StoppedError(Exception):
    """Raised to stop a training run between two epochs."""


@pytest.mark.parametrize("name", [n for n in STRATEGIES if catalog.PARTS[n].repeats])
def test_interrupted_training_resumes_to_identical_weights(name, tmp_path) -> None:
    values = STRATEGIES[name][0]
    _, parent = updates(tmp_path / "before", name, 1, **values)
    new = write(tmp_path / "new", 2)
    whole = updater(name, 2, values).update(UpdateData(parent, new))

    resume = Resume(tmp_path / "resume" / "key", say=lambda _: None)
    first = updater(name, 2, values)
    make, epochs = first.learner, itertools.count(1)

    def make_learner_that_stops(*arguments):
        learner = make(*arguments)
        begin = learner.on_train_epoch_start

        def begin_or_stop() -> None:
            if next(epochs) == 2:
                raise StoppedError
            begin()

        learner.on_train_epoch_start = begin_or_stop
        return learner

    first.learner = make_learner_that_stops  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RENATE_STAGES_CHECKPOINT_SECONDS", "0")
        with pytest.raises(StoppedError):
            first.update(UpdateData(parent, new), resume=resume)
        assert resume.file.is_file()
        resumed = updater(name, 2, values).update(UpdateData(parent, new), resume=resume)
    assert len(resumed.curves) == EPOCHS
    assert torch.equal(parameters(resumed.model), parameters(whole.model))
    for ours, theirs in zip(
        resumed.learner.learner_state()[0].values(),
        whole.learner.learner_state()[0].values(),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", STRATEGIES)
def test_completed_training_is_restored_from_its_checkpoint(name: str, tmp_path: Path) -> None:
    values = STRATEGIES[name][0]
    _, parent = updates(tmp_path / "before", name, 1, **values)
    new = write(tmp_path / "new", 2)
    folder = tmp_path / "resume"
    first = updater(name, 2, values).update(
        UpdateData(parent, new), resume=Resume(folder, lambda _: None, whole=True)
    )
    again = updater(name, 2, values).update(
        UpdateData(parent, new), resume=Resume(folder, lambda _: None, whole=True)
    )
    assert torch.equal(parameters(again.model), parameters(first.model))
    assert again.selection.added.tolist() == first.selection.added.tolist()


def test_only_resumable_strategies_write_checkpoints_between_epochs(tmp_path: Path) -> None:
    for name, part in catalog.PARTS.items():
        made = updater(name, 1, STRATEGIES[name][0])
        learner = made.learner(made.build_model(None), {})
        assert learner.resumes == part.repeats


def test_memory_shrinks_when_memory_size_is_reduced(tmp_path: Path) -> None:
    _, parent = updates(tmp_path / "before", "ER", 1, memory_size=20)
    _, left = another_update(tmp_path / "after", "ER", parent, 2, memory_size=10)
    assert len(left.memory()) == 10


def test_memory_of_another_learner_is_reused(tmp_path: Path) -> None:
    messages: list[str] = []
    _, parent = updates(tmp_path / "before", "ER", 1, learner="ER", memory_size=20)
    made = updater("ER", 2, {"memory_size": 20}, say=messages.append)
    new = write(tmp_path / "new", 2)
    updated = made.update(UpdateData(parent, new))
    assert any("offered to the strategy's buffers" in line for line in messages)
    assert len(updated.selection.kept) == 10  # half of the memory is from update 1
    back = updater("ER", 3, {"memory_size": 20}, learner="ER")
    left = state_of(tmp_path / "left", updated, 2, classes=range(4), parent=parent, new=new)
    assert len(back.update(UpdateData(left, write(tmp_path / "third", 3))).selection.kept)


def test_forgotten_rows_are_removed_from_the_buffers(tmp_path: Path) -> None:
    _, parent = updates(tmp_path / "before", "DER", 1, memory_size=20)
    gone = np.arange(20) >= 5
    made = updater("DER", 2, {"memory_size": 20})
    learner = made.restored(UpdateData(parent, parent.memory(), memory_rows=gone))
    tensors, _ = learner.learner_state()
    rows = torch.cat([each for name, each in tensors.items() if name.endswith("/rows")])
    assert sorted(rows.tolist()) == list(range(15))
    for name, each in tensors.items():
        if name.endswith("/logits"):
            assert len(each) == len(tensors[name.replace("/logits", "/rows")])


def test_gem_refuses_to_forget_examples_that_it_cannot_find(tmp_path: Path) -> None:
    _, parent = updates(tmp_path / "before", "GEM", 1, patterns_per_experience=8)
    made = updater("GEM", 2, {"patterns_per_experience": 8})
    with pytest.raises(AvalancheStateError, match="tensors of examples"):
        gone = write(tmp_path / "gone", 1)
        made.restored(UpdateData(parent, gone, forgotten=made.test_set(gone)))
    nothing_found = made.test_set(parent.memory())  # GEM keeps its rows outside the memory
    assert len(nothing_found) == 0
    with pytest.raises(AvalancheStateError, match="tensors of examples"):
        every = np.ones(0, dtype=bool)
        data = UpdateData(parent, parent.memory(), memory_rows=every, forgotten=nothing_found)
        made.carry_over(data)
    described = (parent.folder / "learner.json").read_bytes()
    assert KEEPS_EXAMPLES in described  # how `forget --erase` detects them


# -- defects of Avalanche -------------------------------------------------------------------------


def test_icarl_keeps_one_exemplar_group_per_class_when_classes_recur(tmp_path: Path) -> None:
    found, left = updates(tmp_path / "updates", "iCaRL", 3, again=True, memory_size=MEMORY)
    groups = json.loads((left.folder / "learner.json").read_text())["avalanche"]["plugins"]
    assert len(groups["Exemplars"]["groups"]) == 6
    assert len(left.memory()) == MEMORY
    model = found[-1].model
    inputs, labels = arrays(4, 60, again=True)
    with torch.no_grad():
        guessed = model(torch.from_numpy(inputs)).argmax(1).numpy()
    assert (guessed == labels).mean() > 0.3  # chance is 0.17


def test_icarl_predicts_the_nearest_mean_among_learned_classes(tmp_path: Path) -> None:
    found, left = updates(tmp_path / "updates", "iCaRL", 2, memory_size=MEMORY)
    model = found[-1].model
    inputs = torch.from_numpy(arrays(2)[0])
    with torch.no_grad():
        outputs = model(inputs)
        features = model.features(inputs)
    unit = features / features.norm(dim=1, keepdim=True)
    means = model.head.means[:4]
    by_hand = -torch.cdist(unit, means)
    torch.testing.assert_close(outputs[:, :4], by_hand)
    assert (outputs[:, 4:] == -4).all()
    restored = updater("iCaRL", 3, {"memory_size": MEMORY}).build_model(left.folder)
    with torch.no_grad():
        assert torch.equal(restored.eval()(inputs), outputs)


@pytest.mark.parametrize("fisher", ["batch", "example"])
def test_importances_depend_on_batch_size_unless_computed_per_example(fisher, tmp_path) -> None:
    from renate_stages.data import StoredDataset
    from renate_stages.learners.avalanche.examples import Examples
    from renate_stages.learners.avalanche.patched import Elastic

    store = write(tmp_path / "new", 1)
    new = StoredDataset(store)
    dataset = Examples(StoredDataset(store, np.empty(0, np.int64)), new, (None, None), 0).new()
    plugin = Elastic(fisher, ewc_lambda=1.0)
    torch.manual_seed(0)
    model = model_fn()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sums = []
    for size in (4, 21):
        found = plugin.compute_importances(
            model, torch.nn.CrossEntropyLoss(), optimizer, dataset, "cpu", size
        )
        sums.append(sum(float(each.data.sum()) for each in found.values()))
    assert (abs(sums[0] - sums[1]) < 1e-6) == (fisher == "example")


def test_changed_batch_size_is_reported_when_importances_depend_on_it(tmp_path: Path) -> None:
    _, parent = updates(tmp_path / "before", "EWC", 1, ewc_lambda=1.0)
    for fisher, expected in (("batch", 1), ("example", 0)):
        messages: list[str] = []
        values = {"ewc_lambda": 1.0, "batch_size": 2 * BATCH, "fisher": fisher}
        made = updater("EWC", 2, values, say=messages.append)
        made.update(UpdateData(parent, write(tmp_path / f"new-{fisher}", 2)))
        assert sum("have different scales" in line for line in messages) == expected


@pytest.mark.parametrize(("name", "argument"), [("EWC", "ewc_lambda"), ("MAS", "lambda_reg")])
def test_non_finite_training_raises_an_error(name, argument, tmp_path) -> None:
    with pytest.raises(NotFiniteError):
        updates(tmp_path / "updates", name, 2, **{argument: 1e12})


@pytest.mark.parametrize("name", ["DER", "ER-ACE", "MIR"])
def test_memory_too_small_for_one_batch_is_reported(name: str, tmp_path: Path) -> None:
    values = {"memory_size": 6, "memory_batch_size": 8}
    _, parent = updates(tmp_path / "before", name, 1, **values)
    for size, expected in ((8, 1), (4, 0)):
        messages: list[str] = []
        made = updater(name, 2, {**values, "memory_batch_size": size}, say=messages.append)
        made.update(UpdateData(parent, write(tmp_path / f"new-{size}", 2)))
        assert sum("nothing is replayed" in line for line in messages) == expected


# -- what Avalanche does not support ---------------------------------------------------------------


def test_settings_that_avalanche_would_ignore_are_refused() -> None:
    for name, settings, functions, match in (
        ("EWC", {"precision": "16-mixed"}, {}, "precision"),
        ("DER", {}, {"loss_fn": lambda: torch.nn.CrossEntropyLoss(label_smoothing=0.1)}, "loss_fn"),
    ):
        made = updater(name, 1, STRATEGIES[name][0], functions=functions, **settings)
        with pytest.raises(AvalancheRefusedError, match=match):
            made.learner(made.build_model(None), {})
    for setting in (
        {"shrink": 0.5},
        {"perturb": 0.1},
        {"reinitialize": "head"},
        {"replacement_rate": 0.1},
    ):
        made = updater("ER", 1, setting)
        with pytest.raises(AvalancheRefusedError, match="shrink, perturb, reinitialize"):
            made.learner(made.build_model(None), {})
    made = updater("ER", 1, {"mask_unused_classes": True})
    with pytest.raises(AvalancheRefusedError, match="mask_unused_classes"):
        made.learner(made.build_model(None), {})


@pytest.mark.parametrize("name", sorted(catalog.REFUSED))
def test_unsupported_strategy_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(InvalidParamsError, match="is not supported") as caught:
        updater(name, 1, {})
    assert catalog.REFUSED[name][:30] in str(caught.value)


def test_missing_required_hyperparameter_is_reported_before_data_is_read() -> None:
    with pytest.raises(InvalidHyperparameterError, match="ewc_lambda"):
        updater("EWC", 1, {})


@pytest.mark.parametrize("name", sorted(catalog.PARTS))
def test_catalog_arguments_exist_in_avalanche(name: str) -> None:
    part = catalog.PARTS[name]
    theirs = {argument.theirs or key for key, argument in part.arguments.items()}
    kind = load(part.place if name != "iCaRL" else "avalanche.training.supervised:ICaRL")
    known = {
        parameter
        for base in kind.__mro__
        if "__init__" in vars(base)
        for parameter in inspect.signature(base.__init__).parameters
    }
    assert theirs <= known


def test_learner_signature_lists_the_hyperparameters_of_its_strategies() -> None:
    shown = inspect.signature(named("Avalanche-ER+LwF").__init__).parameters
    assert {"batch_size", "memory_size", "memory_batch_size", "alpha", "temperature"} <= set(shown)


# -- the training loop -----------------------------------------------------------------------------


def test_every_epoch_is_validated_and_the_best_is_kept(tmp_path: Path) -> None:
    validation = {1: write(tmp_path / "val", 1)}
    made = updater("EWC", 1, {"ewc_lambda": 1.0}, keep="best", max_epochs=4)
    updated = made.update(UpdateData(first_state(tmp_path), write(tmp_path / "new", 1), validation))
    assert len(updated.curves) == 4
    assert {"train_loss", "val_loss", "val_accuracy"} <= set(updated.curves[0])
    best = max(updated.curves, key=lambda row: row["val_accuracy"])
    measured = made.examine(updated.model, {1: made.test_set(validation[1])})[1].metrics
    assert measured["accuracy"] == pytest.approx(best["val_accuracy"])
    assert updated.steps == 4 * -(-42 // BATCH)
    assert updated.examples == 4 * 42


def test_gradients_are_clipped(tmp_path: Path) -> None:
    start, new = first_state(tmp_path), write(tmp_path / "new", 1)
    norms: dict[float | None, list[float]] = {}
    for clip in (None, 0.01):
        made = updater("Naive", 1, {}, gradient_clip_val=clip, max_epochs=1)
        norms[clip] = []

        def step_fn(found=norms[clip]):
            class NormRecordingSGD(torch.optim.SGD):
                def step(self, closure=None):
                    grads = [p.grad.norm() for g in self.param_groups for p in g["params"]]
                    found.append(float(torch.stack(grads).norm()))
                    return super().step(closure)

            return lambda parameters: NormRecordingSGD(parameters, lr=0.1)

        made._functions = replace(made._functions, optimizer_fn=step_fn())
        made.update(UpdateData(start, new))
    assert max(norms[0.01]) <= 0.01 + 1e-6 < min(norms[None])


@pytest.mark.parametrize(("interval", "times"), [("epoch", EPOCHS), ("step", EPOCHS * 6)])
def test_lr_scheduler_steps_per_epoch_or_step(interval: str, times: int, tmp_path: Path) -> None:
    made = updater("Naive", 1, {})
    schedulers = []

    def schedule(optimizer):
        schedulers.append(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5))
        return schedulers[-1]

    made._functions = replace(made._functions, lr_scheduler_fn=(schedule, interval))
    made.update(UpdateData(first_state(tmp_path), write(tmp_path / "new", 1)))
    assert schedulers[-1].last_epoch == times


def test_max_steps_below_one_epoch_ends_the_update(tmp_path: Path) -> None:
    made = updater("ER", 1, {"memory_size": 10}, max_steps=3)
    updated = made.update(UpdateData(first_state(tmp_path), write(tmp_path / "new", 1)))
    assert updated.steps == 3
    assert len(updated.selection.added) == 10


def test_ema_decay_changes_the_final_weights(tmp_path: Path) -> None:
    start, new = first_state(tmp_path), write(tmp_path / "new", 1)
    plain = updater("Naive", 1, {}).update(UpdateData(start, new))
    averaged = updater("Naive", 1, {"ema_decay": 0.9}).update(UpdateData(start, new))
    assert not torch.equal(parameters(plain.model), parameters(averaged.model))


def test_training_runs_in_bf16_mixed_precision(tmp_path: Path) -> None:
    made = updater("EWC", 1, {"ewc_lambda": 1.0}, precision="bf16-mixed")
    updated = made.update(UpdateData(first_state(tmp_path), write(tmp_path / "new", 1)))
    assert parameters(updated.model).isfinite().all()
    plain = updater("EWC", 1, {"ewc_lambda": 1.0}).update(
        UpdateData(first_state(tmp_path / "plain"), write(tmp_path / "plain-new", 1))
    )
    assert not torch.equal(parameters(plain.model), parameters(updated.model))


def test_user_transforms_are_applied_to_new_and_replayed_examples(tmp_path: Path) -> None:
    seen = {"train": 0, "buffer": 0, "test": 0}

    def counting(name):
        def transform():
            def count(inputs):
                seen[name] += 1
                return inputs

            return count

        return transform

    functions = {
        "train_transform": counting("train"),
        "buffer_transform": counting("buffer"),
        "test_transform": counting("test"),
    }
    start = first_state(tmp_path)
    made = updater("DER", 1, {"memory_size": 10}, functions=functions)
    new = write(tmp_path / "new", 1)
    left = state_of(
        tmp_path / "left", made.update(UpdateData(start, new)), 1, parent=start, new=new
    )
    assert seen["train"] == EPOCHS * 42
    assert seen["test"] == 42 + update_task.ROWS  # for the stored logits, and the check before
    assert not seen["buffer"]
    made = updater("DER", 2, {"memory_size": 10}, functions=functions)
    made.update(UpdateData(left, write(tmp_path / "second", 2)))
    assert seen["buffer"]


def test_tasks_have_their_own_heads(tmp_path: Path) -> None:
    def tasks_model(model_state_url: str | None = None) -> MLP:
        if model_state_url is not None:
            return MLP.from_state_dict(torch.load(model_state_url, weights_only=True))
        return MLP(num_inputs=5, num_outputs=6, hidden_size=8, heads="per_task")

    parent = first_state(tmp_path)
    for number, name in enumerate(("a", "b", "c"), 1):
        made = updater(
            "ER+LwF",
            number,
            {"memory_size": 12},
            functions={"model_fn": tasks_model},
            task_id=name,
        )
        new = write(tmp_path / f"new-{number}", number)
        updated = made.update(UpdateData(parent, new))
        before = parent
        parent = state_of(tmp_path / f"state-{number}", updated, number, parent=parent, new=new)
    assert updated.model.task_ids == ["a", "b", "c"]
    old = made.build_model(before.folder)
    inputs = torch.from_numpy(arrays(1)[0])
    with torch.no_grad():
        assert not torch.equal(updated.model(inputs, "a"), old.eval()(inputs, "a"))
    tensors = load_file(parent.folder / "learner.safetensors")
    tasks = torch.cat([each for key, each in tensors.items() if key.endswith("/tasks")])
    assert set(tasks.tolist()) == {0, 1, 2}


# -- user plugins ----------------------------------------------------------------------------------


def test_user_plugin_with_state_dict_keeps_its_state_across_updates(tmp_path: Path) -> None:
    _, left = updates(tmp_path / "updates", "ER+users_plugins:Counting", 2, memory_size=10)
    stored = json.loads((left.folder / "learner.json").read_text())
    assert stored["avalanche"]["plugins"]["Counting"]["own"]["dict"] == [["steps", 24]]


def test_user_plugin_without_load_state_dict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AvalancheStateError, match="load_state_dict"):
        updates(tmp_path / "updates", "users_plugins:Forgetful", 1)


def test_user_plugin_can_stop_training(tmp_path: Path) -> None:
    made = updater("users_plugins:Impatient", 1, {}, max_epochs=5)
    updated = made.update(UpdateData(first_state(tmp_path), write(tmp_path / "new", 1)))
    assert len(updated.curves) < 5
