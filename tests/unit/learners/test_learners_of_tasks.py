"""Each learner trains two updates of each task, or refuses it, as docs/tasks.md says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from small_updates import VALUES, state_of, updater, weights
from torch import nn

from renate_stages import errors
from renate_stages.learners.registry import LEARNERS, learner_class
from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.models import MLP, RenateWrapper
from renate_stages.state import State, state
from renate_stages.training.update_data import UpdateData

GUIDE = Path(__file__).parents[3] / "docs" / "tasks.md"
HOOKING = ("POD-ER", "Super-ER")  # they need hooks, which models of torch do not have
LAYERED = {"LatentReplay": {"latent_layer": "0"}}  # what learners need for models of torch
REFUSED = (errors.ClassLabelsNeededError, errors.LabelsNeededError)


def documented() -> list[tuple[str, str, bool]]:
    """Return learner, task, and whether docs/tasks.md says that they work together."""
    text = GUIDE.read_text(encoding="utf-8").partition("## What learners use")[2]
    head, _, *rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [
        (name, task.strip(), cell.strip() != "no")
        for first, *cells in rows
        for name in re.split(r", |:", first.strip())
        if name in LEARNERS
        for task, cell in zip(head[1:], cells, strict=True)
    ]


TARGETS = {
    "classification": lambda draw: draw.integers(0, 3, 24),
    "binary": lambda draw: draw.integers(0, 2, 24),
    "multilabel": lambda draw: draw.integers(0, 2, (24, 3)),
    "regression": lambda draw: draw.normal(size=24).astype(np.float32),
    "ranking": lambda draw: draw.integers(0, 3, (24, 4)),
    "tokens": lambda draw: draw.integers(0, 3, (24, 2)),
    "custom": lambda draw: draw.normal(size=24).astype(np.float32),
}
MODELS = {
    "classification": lambda: MLP(5, 3, hidden_size=4),
    "binary": lambda: nn.Linear(5, 1),
    "multilabel": lambda: nn.Linear(5, 3),
    "regression": lambda: nn.Linear(5, 1),
    "ranking": lambda: nn.Linear(5, 4),
    "tokens": lambda: nn.Sequential(nn.Linear(5, 6), nn.Unflatten(1, (2, 3))),
    "custom": lambda: nn.Linear(5, 3),
}


def functions_of(task: str, learner: str) -> dict:
    def model_fn(model_state_url: str | None = None):
        model = MODELS[task]()
        if learner in LAYERED:
            model = nn.Sequential(nn.Linear(5, 5), model)
        if model_state_url is not None:
            model.load_state_dict(torch.load(model_state_url, weights_only=True))
        if learner in HOOKING and not isinstance(model, MLP):
            (layer, *_) = (each for each in model.modules() if isinstance(each, nn.Linear))
            model = RenateWrapper(model)
            model.register_intermediate_representation_caching_hook(layer)
        return model

    def loss_fn():
        return lambda outputs, targets: (outputs.sum(1) - targets).abs()

    return {"model_fn": model_fn, **({"loss_fn": loss_fn} if task == "custom" else {})}


def examples(path: Path, task: str, seed: int) -> ExampleStore:
    draw = np.random.default_rng(seed)
    inputs = draw.normal(size=(24, 5)).astype(np.float32)
    with StoreWriter(path, update=1) as writer:
        writer.append((inputs, TARGETS[task](draw)))
    return ExampleStore.open(path)


def test_guide_names_all_learners_and_tasks():
    names = {learner for learner, _, _ in documented()}
    assert names == {name for name in LEARNERS if not name.startswith("Avalanche")}
    assert {task for _, task, _ in documented()} == set(TARGETS)


@pytest.mark.parametrize(("learner", "task", "works"), documented())
def test_learner_trains_or_refuses_a_task_as_documented(tmp_path, learner, task, works):
    state.write_empty(tmp_path)
    parent = State.open(tmp_path)
    values = {**VALUES, "memory_size": 10, "learning_rate": 0.02, **LAYERED.get(learner, {})}
    for number in (1, 2):
        new = examples(tmp_path / f"new-{number}", task, number)
        trained = updater(
            learner,
            values,
            number=number,
            functions=functions_of(task, learner),
            task="ranking" if task == "ranking" else "auto",  # which auto cannot tell
            max_epochs=learner_class(learner).min_epochs,
        )
        if not works:
            with pytest.raises(REFUSED):
                trained.update(UpdateData(parent, new))
            return
        before = nn.utils.parameters_to_vector(trained.build_model(None).parameters())
        updated = trained.update(UpdateData(parent, new))
        assert trained.task.name == task
        assert weights(updated).isfinite().all() and not torch.equal(weights(updated), before)
        folder = tmp_path / f"state-{number}"
        parent = state_of(folder, updated, number, parent=parent, new=new)
