"""Learners train the models for tables and texts, which grow for new labels and codes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from small_inputs import SMALL, TABLES, grown_sizes, small, table, texts
from small_updates import state_of, updater

from renate_stages.memory import ExampleStore, StoreWriter
from renate_stages.models import RenateModule
from renate_stages.models.registry import model_class
from renate_stages.state import State, state
from renate_stages.training.update_data import UpdateData

VALUES = {"learning_rate": 0.1, "batch_size": 8}
MEMORY = {"memory_batch_size": 4, "memory_size": 12}
LABELS = 2


def model_fn(name: str, number: int, model_state_url: str | None = None) -> RenateModule:
    """Build or load a model, with rows for the codes of the update."""
    model = small(name, num_outputs=LABELS)
    if model_state_url is not None:
        stored = torch.load(model_state_url, weights_only=True)
        model = model_class(name).from_state_dict(stored)
    if number > 1:
        model.grow_inputs(grown_sizes(name))
    return model


def write(path: Path, name: str, number: int) -> ExampleStore:
    """Write 16 rows with the codes and labels that are known in an update."""
    more = 2 * (number - 1)
    lengths = [1 + row % 6 for row in range(16)]
    batch = table(16, more) if name in TABLES else texts(lengths, more, width=7)
    if name in TABLES:
        batch["categorical"][:, 0] %= 5  # the other column gets two codes
    labels = np.arange(16) % (LABELS * number)
    with StoreWriter(path, update=number) as writer:
        writer.append(({key: each.numpy() for key, each in batch.items()}, labels))
    return ExampleStore.open(path)


def two_updates(folder: Path, name: str, learner: str, **values):
    """Run two updates with two labels each, the second one with two new codes; return the learners."""
    state.write_empty(folder / "empty")
    parent, found = State.open(folder / "empty"), []
    for number in (1, 2):
        new = write(folder / f"new-{number}", name, number)
        functions = {"model_fn": partial(model_fn, name, number)}
        made = updater(learner, {**VALUES, **values}, 0, number, functions, max_epochs=1)
        made.labels = tuple("abcd"[: LABELS * number])
        updated = made.update(UpdateData(parent, new))
        place = folder / f"state-{number}"
        classes = range(LABELS * number)
        parent = state_of(place, updated, number, classes, parent, new, made.labels)
        found.append(updated)
    return found


def _ends_in(key: str, weight: str) -> bool:
    return f".{key}".replace("/", ".").endswith(f".{weight}")


CASES = [(name, learner) for name in SMALL for learner in ("ER", "EWC", "LwF")] + [
    (name, learner)
    for name in ("TabularMLP", "TextGRU")
    for learner in ("iCaRL", "SI", "POD-ER", "LatentReplay", "RanPAC", "WiSE-FT", "GDumb", "CLS-ER")
]


@pytest.mark.parametrize(("name", "learner"), CASES)
def test_learner_trains_a_model_that_grows(tmp_path, name, learner, capsys):
    memory = (
        MEMORY if learner in ("ER", "iCaRL", "POD-ER", "LatentReplay", "GDumb", "CLS-ER") else {}
    )
    first, second = two_updates(tmp_path, name, learner, **memory)
    batch = table(5, more=2) if name in TABLES else texts([4, 1, 6], more=2)
    assert first.model(batch).shape[1] == 2 and second.model(batch).shape[1] == 4
    ((layer, grown),) = [each for each in second.model.grown.items() if each[0] != "head"]
    assert grown[1] == grown[0] + 2 and second.model.grown["head"] == [2, 4]
    assert all(each.isfinite().all() for each in second.model.parameters())
    rows = second.model.get_submodule(layer).weight.detach()
    if learner in ("ER", "EWC", "LwF", "SI"):
        assert not torch.equal(rows[-1], rows[-2]), "the rows of new codes are trained"
    tensors, _ = second.learner.learner_state()
    about = [each for key, each in tensors.items() if _ends_in(key, f"{layer}.weight")]
    assert all(each.shape == rows.shape for each in about)
    assert about or learner not in ("EWC", "SI", "CLS-ER")
    said = capsys.readouterr().out
    assert "starts from scratch" not in said and "new or reshaped" not in said


@pytest.mark.parametrize("name", SMALL)
def test_importances_are_those_of_every_trained_tensor(tmp_path, name):
    """The weights of recurrent layers are kept in two places, so their gradients could be missed."""
    _, second = two_updates(tmp_path, name, "EWC")
    tensors, _ = second.learner.learner_state()
    fisher = {key: each for key, each in tensors.items() if "fisher" in key}
    for weight, _ in second.model.named_parameters():
        (importance,) = (each for key, each in fisher.items() if _ends_in(key, weight))
        assert importance.any(), weight


def test_growth_alone_does_not_make_stored_outputs_outdated(tmp_path, capsys):
    values = {"latent_layer": "features", "pretrained_below": True, **MEMORY}
    two_updates(tmp_path, "TextCNN", "LatentReplay", **values)
    assert "computed latents" not in capsys.readouterr().out
