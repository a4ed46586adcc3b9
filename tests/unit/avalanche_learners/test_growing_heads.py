"""Avalanche's learners follow a model that grows for named labels."""

from __future__ import annotations

import pytest

pytest.importorskip("avalanche", reason="needs the extra avalanche")

import torch
from alone import INPUTS, write
from avalanche_updates import first_state, updater
from small_updates import state_of

from renate_stages import errors
from renate_stages.models import MLP, GrowingEmbedding
from renate_stages.training.update_data import UpdateData

pytestmark = pytest.mark.filterwarnings("ignore")  # raised by Avalanche itself


def model_fn(model_state_url: str | None = None) -> MLP:
    if model_state_url is not None:
        return MLP.from_state_dict(torch.load(model_state_url, weights_only=True))
    return MLP(num_inputs=INPUTS, num_outputs=2, hidden_size=8)


class WithCodes(MLP):
    """A model whose embedding grows with each load, as for new categories."""

    def __init__(self, **arguments) -> None:
        super().__init__(**arguments)
        self.codes = GrowingEmbedding(7, 2)

    def forward(self, x, task_id=None):
        return super().forward(x) + self.codes(x[:, 0].abs().long()).mean(1, keepdim=True)


def grows_embedding(model_state_url: str | None = None) -> WithCodes:
    if model_state_url is None:
        return WithCodes(num_inputs=INPUTS, num_outputs=2, hidden_size=8)
    model = WithCodes.from_state_dict(torch.load(model_state_url, weights_only=True))
    model.grow_outputs("codes", 9)
    return model


def two_updates(folder, name: str, model_fn=model_fn, names=(2, 4), **values):
    """Run two updates with two new labels each, of which so many have names; return the models."""
    parent, models = first_state(folder), []
    for number in (1, 2):
        new = write(folder / f"new-{number}", number)
        made = updater(name, number, values, functions={"model_fn": model_fn})
        made.labels = tuple("abcd"[: names[number - 1]])
        updated = made.update(UpdateData(parent, new))
        place = folder / f"state-{number}"
        parent = state_of(place, updated, number, range(2 * number), parent, new, made.labels)
        models.append(updated.model)
    return models


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Naive", {}),
        ("ER", {"memory_size": 20, "memory_batch_size": 4}),
        ("EWC", {"ewc_lambda": 1.0}),
        ("SI", {"si_lambda": 1.0}),
        ("LwF", {}),
        ("iCaRL", {"memory_size": 20}),
    ],
)
def test_learner_trains_all_outputs_after_growth(tmp_path, name, values):
    first, second = two_updates(tmp_path, name, **values)
    inputs = torch.rand(3, INPUTS)
    assert first(inputs).shape == (3, 2) and second(inputs).shape == (3, 4)
    assert all(each.isfinite().all() for each in second.parameters())


def test_logits_of_fewer_labels_are_refused_by_name(tmp_path):
    with pytest.raises(errors.AvalancheStateError, match=r"has logits of 2 labels.*grown to 4"):
        two_updates(tmp_path, "DER", memory_size=20, memory_batch_size=4)


@pytest.mark.parametrize(
    ("name", "values"),
    [("DER", {"memory_size": 20, "memory_batch_size": 4}), ("EWC", {"ewc_lambda": 1.0})],
)
def test_rows_of_an_embedding_are_not_counted_as_outputs(tmp_path, name, values):
    _, second = two_updates(tmp_path, name, grows_embedding, names=(4, 4), **values)
    assert second.grown == {"head": [2, 4], "codes": [7, 9]}
    assert all(each.isfinite().all() for each in second.parameters())
