"""What enters a model's last layer, for models that do not name their parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from renate_stages.models import MLP, RenateModule
from renate_stages.models.features import features_before_head, features_of


class Unnamed(RenateModule):
    """Two linear layers without names that say what they are; the last may be called twice."""

    def __init__(self, calls: int = 1, axes: int = 2, declared: str | None = None) -> None:
        super().__init__(constructor_arguments={})
        self.output_layer = declared
        self.one, self.drop, self.two = nn.Linear(3, 5), nn.Dropout(), nn.Linear(5, 2)
        self.calls, self.axes = calls, axes

    def forward(self, x: Tensor, task_id: str | None = None) -> Tensor:
        hidden = self.drop(torch.relu(self.one(x)))
        if self.axes == 3:
            hidden = hidden[:, None]
        return sum((self.two(hidden) for _ in range(self.calls)), torch.zeros(()))


def test_inputs_of_the_last_linear_layer_are_returned_in_evaluation_mode():
    model, inputs = Unnamed().train(), torch.randn(4, 3)
    found = features_before_head(model, inputs, "default_task")
    assert found is not None and found.shape == (4, 5)
    torch.testing.assert_close(found, torch.relu(model.one(inputs)).detach())
    assert model.training and model.drop.training, "the mode is restored"
    declared = features_before_head(Unnamed(declared="one"), inputs, "default_task")
    assert declared is not None and torch.equal(declared, inputs)


def test_outputs_of_the_part_named_features_are_returned_if_there_is_one():
    model, inputs = MLP(num_inputs=3, num_outputs=2, hidden_size=7), torch.randn(4, 3)
    found = features_before_head(model, inputs, "default_task")
    assert found is not None and found.shape == (4, 7)
    assert torch.equal(found, features_of(model, inputs, "default_task"))


@pytest.mark.parametrize("settings", [{"calls": 2}, {"axes": 3}, {"declared": "none"}])
def test_last_layer_without_one_row_per_example_has_no_features(settings):
    assert features_before_head(Unnamed(**settings), torch.randn(4, 3), "default_task") is None
